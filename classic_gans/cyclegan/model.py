"""The networks of CycleGAN (Zhu et al., ICCV 2017, section 7.1) as in its authors' PyTorch code.

Attribute names are the keys of the published weights: renaming one breaks loading. Pictures are
(N, C, S, S) float32 in [-1, 1].
"""

from dataclasses import dataclass
from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Constant, Normal

from shared_metrics import fast
from shared_metrics.published import Depth, PlainFields


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes the four networks; kept in checkpoints."""

    # The paper has 6 blocks for 128 px.
    net_G: Literal["unet_128", "unet_256", "resnet_6block", "resnet_9block"] = "resnet_9block"
    net_D: Literal["basic", "nlayers", "pixel"] = "basic"  # basic: the 70x70 PatchGAN
    d_nlayers: Depth = 3  # layers of stride 2 in the net_D "nlayers"; basic has 3
    g_base_dims: int = 64  # channels of the first layer of both G
    d_base_dims: int = 64  # channels of the first layer of both D
    input_nc: int = 3  # channels of domain A
    output_nc: int = 3  # channels of domain B
    # instance_norm has no affine map; the convolutions before it have biases.
    norm_type: Literal["batch_norm", "instance_norm"] = "instance_norm"
    dropout: bool = False  # of 0.5: in every residual block or in the U-Net's inner decoder
    # PaddleCV's generators: no bias in the U-Net; in the ResNets a row and a column of zeros where
    # the authors have output_padding, and BatchNorm in the blocks whatever norm_type. Affine
    # InstanceNorm. To import weights, not to train.
    legacy: bool = False

    @property
    def multiple(self):
        """The sides of the pictures must be multiples of this."""
        return {"unet_256": 256, "unet_128": 128}.get(self.net_G, 4)

    @property
    def bias(self):
        """The `bias_attr` of a convolution before a norm layer: BatchNorm would cancel a bias."""
        return None if self.norm_type == "instance_norm" else False

    @property
    def g_bias(self):
        """The same in G, outside its residual blocks."""
        return False if self.legacy else self.bias


def networks(arch):
    """The four networks by the names that checkpoints have.

    G_A makes B of A and is judged by D_A, which sees pictures of B; G_B makes A of B, judged by
    D_B, which sees pictures of A.
    """
    A = arch.input_nc
    B = arch.output_nc
    return {
        "generator_A": Generator(arch, A, B),
        "generator_B": Generator(arch, B, A),
        "discriminator_A": Discriminator(arch, B),
        "discriminator_B": Discriminator(arch, A),
    }


class Generator(nn.Layer):
    """One domain (N, inputs, S, S) -> the other (N, outputs, S, S) in [-1, 1]."""

    def __init__(self, arch, inputs, outputs):
        super().__init__()
        build = UNet if arch.net_G.startswith("unet") else resnet
        self.model = build(arch, inputs, outputs)
        initialise(self)

    def forward(self, x):
        return self.model(x)


def resnet(arch, inputs, outputs):
    """The generator of Johnson et al. (ECCV 2016) with 6 or 9 residual blocks; sizes for 256 px."""
    w = arch.g_base_dims
    return nn.Sequential(
        reflect(3),
        fast.Conv2D(inputs, w, 7, bias_attr=arch.g_bias),  # 64 x 256 x 256
        norm(w, arch),
        nn.ReLU(),
        fast.Conv2D(w, 2 * w, 3, 2, 1, bias_attr=arch.g_bias),  # 128 x 128 x 128
        norm(2 * w, arch),
        nn.ReLU(),
        fast.Conv2D(2 * w, 4 * w, 3, 2, 1, bias_attr=arch.g_bias),  # 256 x 64 x 64
        norm(4 * w, arch),
        nn.ReLU(),
        *[ResidualBlock(4 * w, arch) for _ in range(6 if arch.net_G == "resnet_6block" else 9)],
        upsampling(4 * w, 2 * w, arch),  # 128 x 128 x 128
        norm(2 * w, arch),
        nn.ReLU(),
        upsampling(2 * w, w, arch),  # 64 x 256 x 256
        norm(w, arch),
        nn.ReLU(),
        reflect(3),
        fast.Conv2D(w, outputs, 7),  # 3 x 256 x 256
        nn.Tanh(),
    )


class ResidualBlock(nn.Layer):
    """x (N, C, H, W) -> x + two 3x3 convolutions of x."""

    def __init__(self, C, arch):
        super().__init__()
        block_norm = batch_norm if arch.legacy else norm
        self.conv_block = nn.Sequential(
            reflect(1),
            fast.Conv2D(C, C, 3, bias_attr=arch.bias),
            block_norm(C, arch),
            nn.ReLU(),
            *([nn.Dropout(0.5)] if arch.dropout else []),
            reflect(1),
            fast.Conv2D(C, C, 3, bias_attr=arch.bias),
            block_norm(C, arch),
        )

    def forward(self, x):
        return x + self.conv_block(x)


class ZeroEdgeUpsampling(fast.Conv2DTranspose):
    """A 3x3 deconvolution to 2S - 1, then a row of zeros below and a column of zeros to the right.

    It equals one with output_padding=1 everywhere else, but its last row and column are empty.
    """

    def forward(self, x):
        return F.pad(super().forward(x), [0, 1, 0, 1])


def upsampling(inputs, outputs, arch):
    """(N, inputs, S, S) -> (N, outputs, 2S, 2S)."""
    if arch.legacy:
        return ZeroEdgeUpsampling(inputs, outputs, 3, 2, 1, bias_attr=False)
    return fast.Conv2DTranspose(inputs, outputs, 3, 2, 1, output_padding=1, bias_attr=arch.g_bias)


class UNet(nn.Layer):
    """The outermost level of the U, which holds the others; sizes as unet_256 has them for 256 px.

    unet_128 has one level of 512 channels less.
    """

    def __init__(self, arch, inputs, outputs):
        super().__init__()
        w = arch.g_base_dims
        last_bias = False if arch.legacy else None
        level = UNetLevel(8 * w, 8 * w, arch)  # 8: 512 x 1 x 1
        for _ in range(3 if arch.net_G == "unet_256" else 2):
            level = UNetLevel(8 * w, 8 * w, arch, level, arch.dropout)  # 7, 6, 5: 512 x 2, 4, 8
        level = UNetLevel(4 * w, 8 * w, arch, level)  # 4: 512 x 16 x 16
        level = UNetLevel(2 * w, 4 * w, arch, level)  # 3: 256 x 32 x 32
        level = UNetLevel(w, 2 * w, arch, level)  # 2: 128 x 64 x 64
        self.model = nn.Sequential(
            fast.Conv2D(inputs, w, 4, 2, 1, bias_attr=arch.g_bias),  # 1: 64 x 128 x 128
            level,
            nn.ReLU(),
            fast.Conv2DTranspose(2 * w, outputs, 4, 2, 1, bias_attr=last_bias),
            nn.Tanh(),
        )

    def forward(self, x):
        return self.model(x)


class UNetLevel(nn.Layer):
    """x (N, outer, H, W) -> (N, 2 * outer, H, W): x itself, then what the levels from here on make
    of it.

    Args: outer, channels here; inner, channels one level further in, at half the side; below, that
        level, or None for the innermost; dropout, whether the way up ends with it.
    """

    def __init__(self, outer, inner, arch, below=None, dropout=False):
        super().__init__()
        down = [nn.LeakyReLU(0.2), fast.Conv2D(outer, inner, 4, 2, 1, bias_attr=arch.g_bias)]
        joined = inner
        if below is not None:
            down += [norm(inner, arch), below]
            joined = 2 * inner  # the level below gives its own input back beside its output
        up = fast.Conv2DTranspose(joined, outer, 4, 2, 1, bias_attr=arch.g_bias)
        last = [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*down, nn.ReLU(), up, norm(outer, arch), *last)

    def forward(self, x):
        return paddle.concat([x, self.model(x)], axis=1)


class Discriminator(nn.Layer):
    """Pictures of one domain (N, inputs, S, S) -> logits of "real", one a patch, (N, 1, S', S').

    S' = 30 at 256 px for the 70x70 patches of net_D "basic"; S for "pixel".
    """

    def __init__(self, arch, inputs):
        super().__init__()
        if arch.net_D == "pixel":
            self.net = pixels(arch, inputs)
        else:
            self.model = patches(arch, inputs)
        self.arch = arch
        initialise(self)

    def forward(self, x):
        return self.net(x) if self.arch.net_D == "pixel" else self.model(x)


def patches(arch, inputs):
    """PatchGAN: stride-2 layers that double the width up to 8 times, then two of stride 1."""
    strided = 3 if arch.net_D == "basic" else arch.d_nlayers
    width = arch.d_base_dims
    layers = [fast.Conv2D(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2)]  # 64 x 128 x 128
    for n in range(1, strided + 1):  # 128 x 64 x 64, 256 x 32 x 32, 512 x 31 x 31
        inputs = width
        width = arch.d_base_dims * min(2**n, 8)
        stride = 2 if n < strided else 1
        layers += [fast.Conv2D(inputs, width, 4, stride, 1, bias_attr=arch.bias)]
        layers += [norm(width, arch), nn.LeakyReLU(0.2)]
    # differentiated twice, for the penalty of gan_mode wgangp
    return nn.Sequential(*layers, fast.TwiceConv2D(width, 1, 4, 1, 1))  # 1 x 30 x 30


def pixels(arch, inputs):
    """PixelGAN: 1x1 convolutions, so each pixel is judged alone."""
    w = arch.d_base_dims
    return nn.Sequential(
        fast.Conv2D(inputs, w, 1),  # 64 x S x S
        nn.LeakyReLU(0.2),
        fast.Conv2D(w, 2 * w, 1, bias_attr=arch.bias),  # 128 x S x S
        norm(2 * w, arch),
        nn.LeakyReLU(0.2),
        fast.Conv2D(2 * w, 1, 1, bias_attr=arch.bias),  # 1 x S x S
    )


def reflect(width):
    return fast.ReflectionPad2D(width)


def norm(C, arch):
    """The norm layer that the architecture names, for C channels."""
    if arch.norm_type == "batch_norm":
        return batch_norm(C, arch)
    affine = None if arch.legacy else False
    return nn.InstanceNorm2D(C, weight_attr=affine, bias_attr=affine)


def batch_norm(C, arch):
    return nn.BatchNorm2D(C, momentum=0.9, epsilon=1e-5)  # torch calls this momentum 0.1


def initialise(network):
    """Weights N(0, 0.02), biases 0; scales of BatchNorm N(1, 0.02), its shifts 0 (section 4)."""
    for layer in network.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose)):
            Normal(0.0, 0.02)(layer.weight)
            if layer.bias is not None:
                Constant(0.0)(layer.bias)
        elif isinstance(layer, nn.BatchNorm2D):
            Normal(1.0, 0.02)(layer.weight)
            Constant(0.0)(layer.bias)
