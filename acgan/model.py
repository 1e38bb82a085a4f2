"""The networks of AC-GAN (Odena, Olah, Shlens, ICML 2017, table 1) as both reproductions have them.

Attribute names are the keys of their weights. Images are (N, 3, S, S) float32 in [-1, 1], latents
(N, nz) float32.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Constant, Normal, Uniform

from shared_metrics import fast
from shared_metrics.errors import UserError
from shared_metrics.published import PlainFields

# Channels of G at --ngf 64, from fc1 on; each transposed convolution doubles the side (the first
# makes 4x4 or 5x5).
_32 = (384, 192, 96, 48)
G_WIDTHS = {
    "callifrey": {32: _32, 64: (768, 384, 256, 192, 64), 128: (768, 384, 256, 192, 64, 32)},
    "clvrai": {32: _32, 64: (768, 384, 256, 192), 128: (768, 384, 256, 192, 64)},
}
D_WIDTHS = (16, 32, 64, 128, 256, 512)  # channels of D at --ndf 64
D_STRIDES = (2, 1, 2, 1, 2, 1)


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes both networks; kept in checkpoints.

    Raises: UserError naming the flag where fields do not go together.
    """

    imsize: int = 128  # 32, 64 or 128
    num_classes: int = 10
    nz: int = 110  # length of z; its first num_classes entries are the one-hot of the class
    ngf: int = 64  # width of G; 64 is the published one
    ndf: int = 64  # width of D; 64 is the published one
    # "callifrey": kernels of 4, biases, padding 1; "clvrai": none, and above 32 px 5, 8 and 0
    form: Literal["callifrey", "clvrai"] = "callifrey"
    fc_relu: bool = True  # ReLU after G's linear layer, as the paper; both reproductions have none
    # "normal": N(0, 0.02), biases 0, as the paper; "clvrai" and "paddle": see `initialise`
    init: Literal["normal", "clvrai", "paddle"] = "normal"
    dropout: float = 0.5  # of D, after each activation
    activation_noise: float = 0.0  # sigma of Gaussian noise on D's activations (paper, table 1)

    def __post_init__(self):
        if self.imsize not in G_WIDTHS[self.form]:
            raise UserError(f"--imageSize {self.imsize}: no such network; take 32, 64 or 128")
        if self.nz <= self.num_classes:
            raise UserError(
                f"--nz {self.nz}: must exceed the {self.num_classes} classes, whose one-hot z "
                "begins with"
            )
        for name in ("ngf", "ndf"):
            if getattr(self, name) % 4:  # some layers have a quarter or three of it
                raise UserError(f"--{name} {getattr(self, name)}: must be a multiple of 4")

    @property
    def bias(self):
        """Whether the convolutions of G and D have biases."""
        return self.form == "callifrey"

    def g_layers(self):
        """Rows of G's table: [(name, channels in, channels out, kernel, stride, padding)]."""
        widths = [width * self.ngf // 64 for width in G_WIDTHS[self.form][self.imsize]] + [3]
        last = len(widths) - 2
        rows = []
        for n in range(last + 1):
            if self.form == "clvrai" and self.imsize > 32:
                shape = (8 if n == last else 5, 2, 0)
            else:
                shape = (4, 2, 1) if n else (4, 1, 0)
            rows.append((f"tconv{n + 2}", widths[n], widths[n + 1], *shape))
        return rows

    def d_layers(self):
        """Rows of D's table: [(name, channels in, channels out, stride, padding, side after)].

        All kernels are 3x3.
        """
        unpadded = self.form == "clvrai" and self.imsize > 32
        rows = []
        i = 3
        side = self.imsize
        for n, (width, stride) in enumerate(zip(D_WIDTHS, D_STRIDES, strict=True), 1):
            o = width * self.ndf // 64
            padding = 0 if unpadded and stride == 1 else 1
            side = (side + 2 * padding - 3) // stride + 1
            rows.append((f"conv{n}", i, o, stride, padding, side))
            i = o
        return rows


def pixels(arch, number):
    """Of so many of G's images, for `inference.Runner`; 0 at 32 px, where a program gains nothing
    over these few channels.
    """
    return number * arch.imsize**2 if arch.imsize > 32 else 0


def with_labels(noise, labels, num_classes):
    """z (N, nz): `noise` (N, nz), its first `num_classes` columns the one-hot of `labels` (N,).

    So the class takes the place of noise instead of standing beside it, as in both reproductions.
    """
    z = np.array(noise, np.float32)
    z[:, :num_classes] = np.eye(num_classes, dtype=np.float32)[labels]
    return z


class ActivationNoise(nn.Layer):
    """x + sigma * N(0, I) in training mode, x otherwise."""

    def __init__(self, sigma):
        super().__init__()
        self.sigma = sigma

    def forward(self, x):
        if not self.training or not self.sigma:
            return x
        return x + self.sigma * paddle.randn(x.shape).astype(x.dtype)


class Generator(nn.Layer):
    """z (N, nz) -> images (N, 3, S, S) in [-1, 1]. The class stands in z: see `with_labels`."""

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        rows = arch.g_layers()
        self.fc1 = nn.Linear(arch.nz, rows[0][1])
        bias = None if arch.bias else False
        for name, i, o, kernel, stride, padding in rows:
            layers = [fast.Conv2DTranspose(i, o, kernel, stride, padding, bias_attr=bias)]
            if name != rows[-1][0]:
                layers += [nn.BatchNorm2D(o), nn.ReLU()]
            self.add_sublayer(name, nn.Sequential(*layers))
        initialise(self, arch.init)

    def forward(self, z):
        h = self.fc1(z)  # (N, 768)
        h = F.relu(h) if self.arch.fc_relu else h
        h = h.unsqueeze([2, 3])  # (N, 768, 1, 1)
        for name, *_ in self.arch.g_layers():
            h = getattr(self, name)(h)  # (N, 384, 4, 4), (N, 256, 8, 8), ...
        return F.tanh(h)  # (N, 3, S, S)


class Discriminator(nn.Layer):
    """Images (N, 3, S, S) -> logits of "real" (N,) and of the classes (N, num_classes).

    It is not told the class.
    """

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        rows = arch.d_layers()
        bias = None if arch.bias else False
        for name, i, o, stride, padding, _ in rows:
            layers = [fast.Conv2D(i, o, 3, stride, padding, bias_attr=bias)]
            if name != "conv1":
                layers.append(nn.BatchNorm2D(o))
            layers += [nn.LeakyReLU(0.2), ActivationNoise(arch.activation_noise)]
            layers.append(nn.Dropout(arch.dropout))
            self.add_sublayer(name, nn.Sequential(*layers))
        features = rows[-1][2] * rows[-1][5] ** 2  # channels times height times width
        self.fc_dis = nn.Linear(features, 1)
        self.fc_aux = nn.Linear(features, arch.num_classes)
        initialise(self, arch.init)

    def forward(self, x):
        for name, *_ in self.arch.d_layers():
            x = getattr(self, name)(x)  # (N, 16, S/2, S/2), ..., (N, 512, S/8, S/8)
        h = x.flatten(1)
        return self.fc_dis(h).squeeze(1), self.fc_aux(h)  # P(S|X), P(C|X) of sec. 3 as logits


def initialise(network, init):
    """Set the first weights of G or D.

    "normal": the paper's, N(0, 0.02) for every convolution and linear layer, biases 0, BatchNorm 1
    and 0. "clvrai": N(0, 0.02) for convolutions, N(1, 0.02) for BatchNorm's scale, torch's default
    for linear layers: U(-b, b) with b = 1 / sqrt(inputs) for weight and bias. "paddle": what the
    layers come with, as Callifrey's.
    """
    if init == "paddle":
        return
    for layer in network.sublayers():
        linear = isinstance(layer, nn.Linear)
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose)) or (linear and init == "normal"):
            Normal(0.0, 0.02)(layer.weight)
            if layer.bias is not None:
                Constant(0.0)(layer.bias)
        elif linear:
            bound = layer.weight.shape[0] ** -0.5
            Uniform(-bound, bound)(layer.weight)
            Uniform(-bound, bound)(layer.bias)
        elif isinstance(layer, nn.BatchNorm2D) and init == "clvrai":
            Normal(1.0, 0.02)(layer.weight)
