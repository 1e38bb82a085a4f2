"""The networks of AC-GAN (Odena, Olah, Shlens, ICML 2017, table 1) in the forms of both published
reproductions.

Attribute names are the keys of their weights. Images are (N, 3, S, S) float32 in [-1, 1], latents
(N, nz) float32.
"""

from dataclasses import asdict, dataclass, fields

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Constant, Normal, Uniform

from shared_metrics.errors import UserError

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
class Architecture:
    """All that fixes both networks; kept in checkpoints. Raises UserError naming the flag of an
    impossible value.
    """

    imsize: int = 128  # 32, 64 or 128
    num_classes: int = 10
    nz: int = 110  # length of z; its first num_classes entries are the one-hot of the class
    ngf: int = 64  # width of G; 64 is the published one
    ndf: int = 64  # width of D; 64 is the published one
    # "callifrey": kernels of 4, biases, padding 1; "clvrai": none, and above 32 px 5, 8 and 0
    form: str = "callifrey"
    fc_relu: bool = True  # ReLU after G's linear layer, as the paper; both reproductions have none
    # "normal": N(0, 0.02), biases 0, as the paper; "clvrai" and "paddle": see `initialise`
    init: str = "normal"
    dropout: float = 0.5  # of D, after each activation
    activation_noise: float = (
        0.0  # sigma of the Gaussian noise on D's activations (paper, table 1), in training mode
    )

    def __post_init__(self):
        words = {"form": tuple(G_WIDTHS), "init": ("normal", "clvrai", "paddle")}
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"--{name} {getattr(self, name)}: unknown; take one of {', '.join(allowed)}"
                )
        if self.imsize not in G_WIDTHS[self.form]:
            raise UserError(f"--imageSize {self.imsize}: no such network; take 32, 64 or 128")
        for name in ("num_classes", "nz", "ngf", "ndf"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1")
        if self.nz <= self.num_classes:
            raise UserError(
                f"--nz {self.nz}: must exceed the {self.num_classes} classes, whose one-hot z "
                "begins with"
            )
        for name in ("ngf", "ndf"):
            if getattr(self, name) % 4:
                raise UserError(f"--{name} {getattr(self, name)}: must be a multiple of 4")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout {self.dropout}: must be at least 0 and below 1")
        if not 0 <= self.activation_noise < 10:
            raise UserError(
                f"--activation_noise {self.activation_noise}: must be at least 0 and below 10"
            )

    @property
    def bias(self):
        """Whether the convolutions of G and D have biases."""
        return self.form == "callifrey"

    def g_layers(self):
        """Rows of G's table: [(name, channels in, channels out, kernel, stride, padding)]."""
        widths = [w * self.ngf // 64 for w in G_WIDTHS[self.form][self.imsize]] + [3]
        last = len(widths) - 2
        if self.form == "callifrey" or self.imsize == 32:
            shapes = [(4, 2, 1) if i else (4, 1, 0) for i in range(last + 1)]
        else:
            shapes = [(8 if i == last else 5, 2, 0) for i in range(last + 1)]
        return [(f"tconv{i + 2}", widths[i], widths[i + 1], *shapes[i]) for i in range(last + 1)]

    def d_layers(self):
        """Rows of D's table: [(name, channels in, channels out, stride, padding, side of the
        output)], kernels of 3.
        """
        widths = [3] + [w * self.ndf // 64 for w in D_WIDTHS]
        tight = self.form == "clvrai" and self.imsize > 32
        rows, side = [], self.imsize
        for i, stride in enumerate(D_STRIDES):
            padding = 0 if tight and stride == 1 else 1
            side = (side + 2 * padding - 3) // stride + 1
            rows.append((f"conv{i + 1}", widths[i], widths[i + 1], stride, padding, side))
        return rows

    def to_dict(self):
        """Plain numbers and strings, for checkpoints and JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """The inverse of `to_dict`. Raises UserError on unknown or missing entries."""
        odd = sorted({f.name for f in fields(cls)} ^ set(values))
        if odd:
            raise UserError(
                f"architecture: entries {odd} are unknown or missing; the file is from another "
                "version"
            )
        return cls(**values)


def with_labels(noise, labels, num_classes):
    """z (N, nz): `noise` (N, nz), its first `num_classes` columns overwritten by the one-hot of
    `labels` (N,).

    So the class takes the place of noise instead of standing beside it, as in both reproductions.
    """
    z = np.array(noise, np.float32)
    z[:, :num_classes] = np.eye(num_classes, dtype=np.float32)[labels]
    return z


# On CPU, Paddle adds a bias of shape (C, 1, 1) many times as fast as the (1, C, 1, 1) of its own
# convolutions.
class Conv2D(nn.Conv2D):
    def forward(self, x):
        h = F.conv2d(x, self.weight, None, self._stride, self._padding)
        return h if self.bias is None else h + self.bias.reshape([-1, 1, 1])


class Conv2DTranspose(nn.Conv2DTranspose):
    def forward(self, x):
        h = F.conv2d_transpose(x, self.weight, None, self._stride, self._padding)
        return h if self.bias is None else h + self.bias.reshape([-1, 1, 1])


class ActivationNoise(nn.Layer):
    """x + sigma * N(0, I) in training mode, x otherwise."""

    def __init__(self, sigma):
        super().__init__()
        self.sigma = sigma

    def forward(self, x):
        return (
            x + self.sigma * paddle.randn(x.shape).astype(x.dtype)
            if self.training and self.sigma
            else x
        )


class Generator(nn.Layer):
    """z (N, nz) -> images (N, 3, S, S) in [-1, 1]. The class stands in z: see `with_labels`."""

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        rows = arch.g_layers()
        self.fc1 = nn.Linear(arch.nz, rows[0][1])
        for name, i, o, kernel, stride, padding in rows:
            conv = Conv2DTranspose(
                i, o, kernel, stride, padding, bias_attr=None if arch.bias else False
            )
            last = name == rows[-1][0]
            setattr(
                self,
                name,
                nn.Sequential(*([conv] if last else [conv, nn.BatchNorm2D(o), nn.ReLU()])),
            )
        initialise(self, arch.init)

    def forward(self, z):
        h = self.fc1(z)  # (N, 768)
        h = F.relu(h) if self.arch.fc_relu else h
        h = h.unsqueeze([2, 3])  # (N, 768, 1, 1)
        for name, *_ in self.arch.g_layers():
            h = getattr(self, name)(h)  # (N, 384, 4, 4), (N, 256, 8, 8), ...
        return F.tanh(h)  # (N, 3, S, S)


class Discriminator(nn.Layer):
    """Images (N, 3, S, S) -> logits of "real" (N,) and of the classes (N, num_classes). It is not
    told the class.
    """

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        rows = arch.d_layers()
        for name, i, o, stride, padding, _ in rows:
            conv = Conv2D(i, o, 3, stride, padding, bias_attr=None if arch.bias else False)
            norm = [] if name == "conv1" else [nn.BatchNorm2D(o)]
            tail = [
                nn.LeakyReLU(0.2),
                ActivationNoise(arch.activation_noise),
                nn.Dropout(arch.dropout),
            ]
            setattr(self, name, nn.Sequential(conv, *norm, *tail))
        features = rows[-1][2] * rows[-1][5] ** 2
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
    for linear layers, which is
        U(-b, b) with b = 1 / sqrt(inputs) for weight and bias. "paddle": what the layers come with,
        as Callifrey's.
    """
    if init == "paddle":
        return
    for layer in network.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose)) or (
            init == "normal" and isinstance(layer, nn.Linear)
        ):
            Normal(0.0, 0.02)(layer.weight)
            if layer.bias is not None:
                Constant(0.0)(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = layer.weight.shape[0] ** -0.5
            Uniform(-bound, bound)(layer.weight)
            Uniform(-bound, bound)(layer.bias)
        elif isinstance(layer, nn.BatchNorm2D) and init == "clvrai":
            Normal(1.0, 0.02)(layer.weight)
