"""The networks of CGAN (Mirza and Osindero, 2014) as PaddleCV's convolutional form has them.

The paper's are fully connected. Images are (N, channels, S, S) float32 in [-1, 1], noise
(N, noise_size) uniform in [-1, 1], labels (N,) int64 in [0, n_classes): callers check the labels.
Attribute names are the layers' names in PaddleCV's files.
"""

from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Constant, Normal

from shared_metrics import fast
from shared_metrics.errors import UserError
from shared_metrics.published import PlainFields


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes both networks; kept in checkpoints."""

    image_size: int = 28  # S, a multiple of 4
    channels: int = 1
    n_classes: int = 10
    noise_size: int = 100
    g_base_dims: int = 128  # channels of G's maps; its first layer has 8 times as many features
    d_base_dims: int = 64  # channels of D's maps; its last layer but one has 16 times as many
    # PaddleCV's own form, to import weights: the class is told as one number 0..9 in place of a
    # one-hot vector, G's last layer is not told it, and D ends with a sigmoid, before a loss that
    # takes logits.
    legacy: bool = False

    def __post_init__(self):
        if self.image_size % 4 or self.image_size < 8:
            raise UserError(
                f"--image_size {self.image_size}: CGAN draws sides that 4 divides, from 8 on"
            )

    @property
    def condition(self):
        """Length of y, the vector that tells the class."""
        return 1 if self.legacy else self.n_classes

    def vectors(self, labels):
        """Labels (N,) -> y (N, condition)."""
        if self.legacy:
            return labels.astype("float32").unsqueeze(1)
        return F.one_hot(labels, self.n_classes)


def with_planes(x, y):
    """x (N, C, H, W) and one constant plane for each number of y (N, c) -> (N, C + c, H, W)."""
    _, _, H, W = x.shape
    planes = y.unsqueeze([2, 3]).expand([-1, -1, H, W])
    return paddle.concat([x, planes], axis=1)


class Generator(nn.Layer):
    """Noise z and labels -> images; every layer is told the class."""

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        self.side = arch.image_size // 4
        w = arch.g_base_dims
        c = arch.condition
        self.l1 = nn.Linear(arch.noise_size + c, 8 * w)
        self.l1_norm = nn.BatchNorm1D(8 * w)
        self.l2 = nn.Linear(8 * w + c, w * self.side**2)
        self.l2_norm = nn.BatchNorm1D(w * self.side**2)
        self.dc1 = fast.Conv2DTranspose(w + c, w, 4, 2, 1, bias_attr=False)
        self.dc1_norm = nn.BatchNorm2D(w)
        last_inputs = w if arch.legacy else w + c
        self.dc2 = fast.Conv2DTranspose(last_inputs, arch.channels, 4, 2, 1, bias_attr=False)
        initialise(self)

    def forward(self, z, labels):
        y = self.arch.vectors(labels)  # (N, 10)
        h = paddle.concat([z, y], axis=1)  # (N, 110)
        h = F.relu(self.l1_norm(self.l1(h)))  # (N, 1024)
        h = paddle.concat([h, y], axis=1)  # (N, 1034)
        h = F.relu(self.l2_norm(self.l2(h)))  # (N, 6272)
        h = h.reshape([-1, self.arch.g_base_dims, self.side, self.side])  # (N, 128,  7,  7)
        h = F.relu(self.dc1_norm(self.dc1(with_planes(h, y))))  # (N, 128, 14, 14)
        h = h if self.arch.legacy else with_planes(h, y)  # (N, 138, 14, 14)
        return F.tanh(self.dc2(h))  # (N, 1, 28, 28)


class Discriminator(nn.Layer):
    """Images and their labels -> logits of "real" (N,); every layer is told the class."""

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        w = arch.d_base_dims
        c = arch.condition
        side = ((arch.image_size - 1) // 2 - 1) // 2  # 28, 13, 6
        self.l1 = fast.Conv2D(arch.channels + c, w, 3, 2, bias_attr=False)
        self.l2 = fast.Conv2D(w + c, w, 3, 2, bias_attr=False)
        self.l2_norm = nn.BatchNorm2D(w)
        self.l3 = nn.Linear(w * side**2 + c, 16 * w)
        self.l3_norm = nn.BatchNorm1D(16 * w)
        self.l4 = nn.Linear(16 * w + c, 1)
        initialise(self)

    def forward(self, x, labels):
        y = self.arch.vectors(labels)  # (N, 10)
        h = F.leaky_relu(self.l1(with_planes(x, y)), 0.2)  # (N, 64, 13, 13)
        h = F.leaky_relu(self.l2_norm(self.l2(with_planes(h, y))), 0.2)  # (N, 64, 6, 6)
        h = h.reshape([len(h), -1])  # (N, 2304)
        h = paddle.concat([h, y], axis=1)  # (N, 2314)
        h = F.leaky_relu(self.l3_norm(self.l3(h)), 0.2)  # (N, 1024)
        h = paddle.concat([h, y], axis=1)  # (N, 1034)
        logits = self.l4(h).squeeze(1)  # (N,)
        return F.sigmoid(logits) if self.arch.legacy else logits


def initialise(network):
    """Weights N(0, 0.02), biases 0; scales of BatchNorm N(1, 0.02), its shifts 0."""
    for layer in network.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose, nn.Linear)):
            Normal(0.0, 0.02)(layer.weight)
            if layer.bias is not None:
                Constant(0.0)(layer.bias)
        elif isinstance(layer, (nn.BatchNorm1D, nn.BatchNorm2D)):
            Normal(1.0, 0.02)(layer.weight)
            Constant(0.0)(layer.bias)
