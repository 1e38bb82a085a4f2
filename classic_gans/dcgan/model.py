"""The networks of DCGAN (Radford et al., ICLR 2016): the paper's, and PaddleCV's for digits.

Images are (N, channels, S, S) float32 in [-1, 1], noise (N, noise_size) uniform in [-1, 1].
Attribute names are the keys of PyTorch's DCGAN example, and the layers' names in PaddleCV's files.
"""

import math
from dataclasses import dataclass
from typing import Literal

import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Constant, Normal

from shared_metrics import fast
from shared_metrics.errors import UserError
from shared_metrics.published import PlainFields


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes both networks; kept in checkpoints."""

    # "digits": PaddleCV's, with linear layers; "paper": convolutions alone
    form: Literal["digits", "paper"] = "digits"
    image_size: int = 28  # S; digits: a multiple of 4; paper: 32, 64, 128, ...
    channels: int = 1
    noise_size: int = 100
    # G's features: digits 32 times as many, then 2 times; paper 16 times (1024 in figure 1), then
    # half as many in each layer.
    g_base_dims: int = 64
    d_base_dims: int = 64  # channels of D's first layer

    def __post_init__(self):
        side = self.image_size
        if self.form == "digits" and side % 4:
            raise UserError(
                f"--image_size {side}: the networks for digits (--form digits) draw sides that 4 "
                "divides"
            )
        if self.form == "paper" and (side < 16 or side & (side - 1)):
            raise UserError(
                f"--image_size {side}: the paper's networks (--form paper) draw 16, 32, 64, 128, "
                "... px"
            )


def networks(arch):
    """The generator and the discriminator that the architecture names."""
    if arch.form == "paper":
        return Generator(arch), Discriminator(arch)
    return DigitGenerator(arch), DigitDiscriminator(arch)


class Generator(nn.Layer):
    """Noise -> images by transposed convolutions (figure 1, for 64 px); no biases."""

    def __init__(self, arch):
        super().__init__()
        width = 16 * arch.g_base_dims
        layers = [fast.Conv2DTranspose(arch.noise_size, width, 4, bias_attr=False)]  # 1024 x 4 x 4
        layers += [nn.BatchNorm2D(width), nn.ReLU()]
        for _ in range(int(math.log2(arch.image_size)) - 3):  # 512 x 8, 256 x 16, 128 x 32 x 32
            layers += [fast.Conv2DTranspose(width, width // 2, 4, 2, 1, bias_attr=False)]
            width //= 2
            layers += [nn.BatchNorm2D(width), nn.ReLU()]
        layers += [fast.Conv2DTranspose(width, arch.channels, 4, 2, 1, bias_attr=False)]  # 3 x 64
        self.main = nn.Sequential(*layers, nn.Tanh())
        initialise(self)

    def forward(self, z):
        return self.main(z.unsqueeze([2, 3]))


class Discriminator(nn.Layer):
    """Images -> logits of "real" (N,) by strided convolutions; no biases, no pooling."""

    def __init__(self, arch):
        super().__init__()
        width = arch.d_base_dims
        layers = [fast.Conv2D(arch.channels, width, 4, 2, 1, bias_attr=False)]  # 64 x 32 x 32
        layers += [nn.LeakyReLU(0.2)]
        for _ in range(int(math.log2(arch.image_size)) - 3):  # 128 x 16, 256 x 8, 512 x 4 x 4
            layers += [fast.Conv2D(width, 2 * width, 4, 2, 1, bias_attr=False)]
            width *= 2
            layers += [nn.BatchNorm2D(width), nn.LeakyReLU(0.2)]
        layers += [fast.Conv2D(width, 1, 4, bias_attr=False)]  # 1 x 1 x 1
        self.main = nn.Sequential(*layers)
        initialise(self)

    def forward(self, x):
        return self.main(x).squeeze([1, 2, 3])


class DigitGenerator(nn.Layer):
    """Noise -> digits."""

    def __init__(self, arch):
        super().__init__()
        w = arch.g_base_dims
        side = arch.image_size // 4
        self.shape = [-1, 2 * w, side, side]
        self.l1 = nn.Linear(arch.noise_size, 32 * w)
        self.l1_norm = nn.BatchNorm1D(32 * w)
        self.l2 = nn.Linear(32 * w, 2 * w * side**2)
        self.l2_norm = nn.BatchNorm1D(2 * w * side**2)
        self.dc1 = fast.Conv2DTranspose(2 * w, 2 * w, 5, 2, 2, 1)
        self.dc2 = fast.Conv2DTranspose(2 * w, arch.channels, 5, 2, 2, 1)
        initialise(self)

    def forward(self, z):
        h = F.relu(self.l1_norm(self.l1(z)))  # (N, 2048)
        h = F.relu(self.l2_norm(self.l2(h)))  # (N, 6272)
        h = h.reshape(self.shape)  # (N, 128, 7, 7)
        h = F.relu(self.dc1(h))  # (N, 128, 14, 14), no BatchNorm
        return F.tanh(self.dc2(h))  # (N, 1, 28, 28)


class DigitDiscriminator(nn.Layer):
    """Digits -> logits of "real" (N,). The slope of 0.02 was the library's default."""

    def __init__(self, arch):
        super().__init__()
        w = arch.d_base_dims
        side = ((arch.image_size - 4) // 2 - 4) // 2  # 28, 12, 4
        if side < 1:
            raise UserError(
                f"--image_size {arch.image_size}: D of --form digits looks at sides from 16 on"
            )
        self.c1 = fast.Conv2D(arch.channels, w, 5)
        self.c2 = fast.Conv2D(w, 2 * w, 5)
        self.c2_bn = nn.BatchNorm2D(2 * w)
        self.l1 = nn.Linear(2 * w * side**2, 16 * w)
        self.l1_norm = nn.BatchNorm1D(16 * w)
        self.l2 = nn.Linear(16 * w, 1)
        initialise(self)

    def forward(self, x):
        h = F.leaky_relu(self.c1(x), 0.02)  # (N, 64, 24, 24)
        h = F.max_pool2d(h, 2)  # (N, 64, 12, 12)
        h = F.max_pool2d(self.c2(h), 2)  # (N, 128, 4, 4)
        h = F.leaky_relu(self.c2_bn(h), 0.02)
        h = h.reshape([len(h), -1])  # (N, 2048)
        h = F.leaky_relu(self.l1_norm(self.l1(h)), 0.2)  # (N, 1024)
        return self.l2(h).squeeze(1)  # (N,)


def initialise(network):
    """Weights N(0, 0.02), biases 0; scales of BatchNorm N(1, 0.02), its shifts 0 (section 4)."""
    for layer in network.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose, nn.Linear)):
            Normal(0.0, 0.02)(layer.weight)
            if layer.bias is not None:
                Constant(0.0)(layer.bias)
        elif isinstance(layer, (nn.BatchNorm1D, nn.BatchNorm2D)):
            Normal(1.0, 0.02)(layer.weight)
            Constant(0.0)(layer.bias)
