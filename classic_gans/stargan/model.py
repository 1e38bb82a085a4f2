"""The networks of StarGAN (Choi et al., CVPR 2018), as its authors' code builds them.

Attribute names are the keys of yunjey's weights. Images are (N, 3, S, S) float32 in [-1, 1], labels
(N, labels) float32 of 0 and 1.
"""

from dataclasses import dataclass

import paddle
from paddle import nn
from paddle.nn.initializer import Uniform

from shared_metrics import fast
from shared_metrics.errors import UserError
from shared_metrics.published import Count, Depth, PlainFields


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes both networks; kept in checkpoints.

    Properties: outputs, labels that D classifies; planes, label planes that G sees.
    Raises: UserError for an image size that the networks cannot halve so often.
    """

    image_size: int = 128
    c_dim: int = 5  # attributes (or classes) of the data set
    c2_dim: Count = 0  # classes of a second data set learned jointly (sec. 3.3); 0: there is none
    g_base_dims: int = 64  # width of G's first convolution
    d_base_dims: int = 64  # width of D's first convolution
    g_repeat_num: Depth = 6  # residual blocks of G
    d_repeat_num: Depth = 6  # convolutions of D, each of which halves the side
    d_slope: float = 0.01  # of D's LeakyReLU (PaddleCV: 0.2)
    d_bias: bool = True  # of D's trunk (PaddleCV: False)

    def __post_init__(self):
        step = 2 ** max(2, self.d_repeat_num)
        if self.image_size % step:
            near = max(1, round(self.image_size / step)) * step
            raise UserError(
                f"--image_size {self.image_size}: {self.d_repeat_num} convolutions of D halve "
                f"multiples of {step} only; take {near}"
            )

    @property
    def outputs(self):
        return self.c_dim + self.c2_dim

    @property
    def planes(self):
        # The mask that tells which data set's labels are known is a one-hot vector of two.
        return self.outputs + (2 if self.c2_dim else 0)


def conv(i, o, k, stride=1, padding=0, bias=False):
    """Convolution with PyTorch's initial values, as the authors'."""
    fan_in = i * k * k
    attr = {"weight_attr": uniform(fan_in), "bias_attr": uniform(fan_in) if bias else False}
    return fast.Conv2D(i, o, k, stride, padding, **attr)


def deconv(i, o, k, stride, padding):
    """Transposed convolution likewise; PyTorch's fan-in counts its outputs."""
    attr = uniform(o * k * k)
    return fast.Conv2DTranspose(i, o, k, stride, padding, weight_attr=attr, bias_attr=False)


def uniform(fan_in):
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), weights and biases: PyTorch's default, not Paddle's."""
    bound = fan_in**-0.5
    return paddle.ParamAttr(initializer=Uniform(-bound, bound))


def normed(layer, channels):
    """The layer, instance norm and ReLU. The norm takes the image's own statistics at test, too."""
    return layer, nn.InstanceNorm2D(channels), nn.ReLU()


class ResidualBlock(nn.Layer):
    """(N, C, H, W) -> the same shape."""

    def __init__(self, C):
        super().__init__()
        self.main = nn.Sequential(
            *normed(conv(C, C, 3, 1, 1), C), conv(C, C, 3, 1, 1), nn.InstanceNorm2D(C)
        )

    def forward(self, x):
        return x + self.main(x)


class Generator(nn.Layer):
    """G: image (N, 3, S, S), target label (N, planes) -> image (N, 3, S, S) in [-1, 1] (appendix).

    Zero padding on purpose: reflected, the constant label planes would be cancelled by the norm.
    """

    def __init__(self, arch):
        super().__init__()
        n = arch.g_base_dims
        self.main = nn.Sequential(
            *normed(conv(3 + arch.planes, n, 7, 1, 3), n),  # (N,   n, S,   S)
            *normed(conv(n, 2 * n, 4, 2, 1), 2 * n),  # (N, 2 n, S/2, S/2)
            *normed(conv(2 * n, 4 * n, 4, 2, 1), 4 * n),  # (N, 4 n, S/4, S/4)
            *[ResidualBlock(4 * n) for _ in range(arch.g_repeat_num)],  # (N, 4 n, S/4, S/4)
            *normed(deconv(4 * n, 2 * n, 4, 2, 1), 2 * n),  # (N, 2 n, S/2, S/2)
            *normed(deconv(2 * n, n, 4, 2, 1), n),  # (N,   n, S,   S)
            conv(n, 3, 7, 1, 3),  # (N,   3, S,   S)
            nn.Tanh(),
        )

    def forward(self, x, label):
        _, _, H, W = x.shape
        planes = label.unsqueeze([2, 3]).expand([-1, -1, H, W])  # (N, planes, S, S)
        return self.main(paddle.concat([x, planes], 1))


class Discriminator(nn.Layer):
    """D: image (N, 3, S, S) -> real or fake by patch (N, 1, S/64, S/64), logits (N, outputs) of the
    label (appendix). With n = d_base_dims:

    main    (N,  n, S/2, S/2), (N, 2 n, S/4, S/4), ... (N, 32 n, S/64, S/64), LeakyReLU after each
    conv1   (N,  1, S/64, S/64)
    conv2   (N,  outputs, 1, 1)
    """

    def __init__(self, arch):
        super().__init__()
        rows = []
        i = 3
        for k in range(arch.d_repeat_num):
            o = arch.d_base_dims * 2**k
            rows += [conv(i, o, 4, 2, 1, arch.d_bias), nn.LeakyReLU(arch.d_slope)]
            i = o
        self.main = nn.Sequential(*rows)
        # differentiated twice, for the penalty
        attr = {"weight_attr": uniform(9 * i), "bias_attr": False}
        self.conv1 = fast.TwiceConv2D(i, 1, 3, 1, 1, **attr)
        self.conv2 = conv(i, arch.outputs, arch.image_size // 2**arch.d_repeat_num)

    def forward(self, x):
        h = self.main(x)
        return self.conv1(h), self.conv2(h).reshape([x.shape[0], -1])
