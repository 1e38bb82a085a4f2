"""The networks of SAGAN (Zhang et al., ICML 2019) in every published form.

Attribute names are the keys of the Atmosphere-art / voletiv weights. Images are (N, 3, S, S)
float32 in [-1, 1], latents (N, z_dim) float32, labels (N,) int64 in [0, num_classes): callers check
the labels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Assign, Constant, Orthogonal, Uniform, XavierUniform

from shared_metrics import fast
from shared_metrics.errors import UserError
from shared_metrics.published import PlainFields

# Channels of G in units of g_conv_dim: entering at 4x4, then after each block, which doubles the
# side.
G_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 8, 4, 2, 1),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
# Channels after each block of D in units of d_conv_dim, and how many of its first blocks halve the
# side.
D_WIDTHS = {
    32: (2, 2, 2, 2),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}
D_HALVINGS = {32: 2, 64: 4, 128: 5, 256: 6}


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes both networks; kept in checkpoints.

    Raises: UserError naming the flag where fields do not go together.
    """

    imsize: int = 128  # 32, 64, 128, 256
    num_classes: int = 1000
    z_dim: int = 128
    g_conv_dim: int = 64  # base width of G, see G_WIDTHS
    d_conv_dim: int = 64  # base width of D, see D_WIDTHS
    g_attention: tuple = (32,)  # sides with self-attention; its scores are N * S^2 * S^2/4 numbers
    d_attention: tuple = (32,)
    attention_bias: bool = True  # biases in attention's 1x1 convolutions
    # "gamma": gamma[y] * x + beta[y]; "one_plus": (1 + gain[y]) * x + bias[y]
    cbn: Literal["gamma", "one_plus"] = "gamma"
    cbn_spectral: bool = False  # spectral norm on gain and bias ("one_plus" only)
    bn_eps: float = 1e-5
    bn_momentum: float = 0.999  # share of the running statistics that is kept: 1 - torch's momentum
    last_bn_momentum: float = 0.9999  # the same for the BatchNorm before G's last convolution
    sn_eps: float = 1e-12  # spectral norm: stem, tail, head, cBN
    block_sn_eps: float = 1e-12  # spectral norm in the residual blocks (of D: all but the first)
    attention_sn_eps: float = 1e-12
    skip_relu: bool = False  # skips of D's blocks take ReLU(x), as an in-place ReLU makes them
    # of every convolution, linear layer and embedding; Xavier's uniform form, gain 1 in both
    init: Literal["xavier", "orthogonal"] = "xavier"
    # "fan_in": U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default
    bias_init: Literal["zeros", "fan_in"] = "zeros"

    def __post_init__(self):
        if self.imsize not in G_WIDTHS:
            sizes = ", ".join(map(str, G_WIDTHS))
            raise UserError(f"--imsize {self.imsize}: no such network; take one of {sizes}")
        if self.cbn_spectral and self.cbn != "one_plus":
            raise UserError("--cbn_spectral: only the cBN of --cbn one_plus has spectral norm")
        g_widths = {side: o for _, _, o, side in self.g_blocks()}
        d_widths = {}
        for _, _, o, _, side in self.d_blocks():
            d_widths.setdefault(side, o)  # attention follows the first block of its side
        for net, widths in (("g", g_widths), ("d", d_widths)):
            sides = tuple(sorted({int(side) for side in getattr(self, f"{net}_attention")}))
            object.__setattr__(self, f"{net}_attention", sides)  # the class is frozen
            self._check_attention(net, sides, widths)

    def _check_attention(self, net, sides, widths):
        for side in sides:
            if side not in widths:
                raise UserError(
                    f"--{net}_attention {side}: {net.upper()} at {self.imsize} px has features of "
                    f"side {', '.join(map(str, sorted(widths)))}"
                )
            if widths[side] < 8:  # theta and phi have an eighth of the channels
                width = getattr(self, f"{net}_conv_dim")
                raise UserError(
                    f"--{net}_conv_dim {width}: self-attention at {side}x{side} needs 8 channels "
                    f"and finds {widths[side]}; widen {net.upper()} or move --{net}_attention"
                )

    def g_blocks(self):
        """Rows of G's table: [(name, channels in, channels out, side of the output)]."""
        widths = [self.g_conv_dim * times for times in G_WIDTHS[self.imsize]]
        rows = []
        for n in range(1, len(widths)):
            rows.append((f"block{n}", widths[n - 1], widths[n], 4 * 2**n))
        return rows

    def d_blocks(self):
        """Rows of D's table: [(name, channels in, channels out, halves?, side of the output)]."""
        rows = []
        i = 3
        side = self.imsize
        for n, times in enumerate(D_WIDTHS[self.imsize]):
            o = self.d_conv_dim * times
            down = n < D_HALVINGS[self.imsize]
            side = side // 2 if down else side
            rows.append((f"block{n}" if n else "opt_block1", i, o, down, side))
            i = o
        return rows


_STUDIOGAN = {
    "attention_bias": False,
    "cbn": "one_plus",
    "cbn_spectral": True,
    "bn_eps": 1e-4,
    "bn_momentum": 0.9,
    "last_bn_momentum": 0.9,
    "init": "orthogonal",
}
# What each published form changes in the paper's, which is also that of voletiv and Atmosphere-art.
FORMS = {
    "sagan": {},
    "studiogan": _STUDIOGAN
    | {"sn_eps": 1e-6, "block_sn_eps": 1e-6, "attention_sn_eps": 1e-6, "skip_relu": True},
    "mmgen": _STUDIOGAN | {"attention_sn_eps": 1e-6},
    "mmgen-biggan": _STUDIOGAN
    | {"cbn_spectral": False, "bn_eps": 1e-5, "block_sn_eps": 1e-8, "attention_sn_eps": 1e-6}
    | {"init": "xavier", "bias_init": "fan_in"},
}
# Side of the features that attend, in G and D; 64 is the paper's best and the largest by default.
_ATTENTION = {
    "sagan": {32: 16, 64: 32, 128: 32, 256: 32},
    "studiogan": {32: 16, 64: 32, 128: 64, 256: 64},
}


def architecture(form, imsize, num_classes, **changes):
    """Architecture of a form of FORMS with `changes` to its fields.

    Raises: UserError naming the flag of a size or of fields that do not go together.
    """
    sides = _ATTENTION["sagan" if form == "sagan" else "studiogan"]
    side = sides.get(imsize, 32)  # Architecture refuses other sizes
    values = {"g_attention": (side,), "d_attention": (side,)} | FORMS[form] | changes
    return Architecture(imsize=imsize, num_classes=num_classes, **values)


def _weight_attr(arch):
    return paddle.ParamAttr(initializer=XavierUniform() if arch.init == "xavier" else Orthogonal())


def _bias_attr(arch, fan_in):
    initial = Constant(0.0) if arch.bias_init == "zeros" else Uniform(-(fan_in**-0.5), fan_in**-0.5)
    return paddle.ParamAttr(initializer=initial)


def _normalize(x, eps):
    return x / paddle.linalg.norm(x).clip(min=eps)


class SpectralNorm(nn.Layer):
    """A layer whose weight is W / sigma(W), sigma the largest singular value.

    W is read as a matrix of one row per output (for embeddings: per class). `weight_orig` is the
    parameter; buffers `weight_u` (rows) and `weight_v` (columns) move by one power iteration at
    each training-mode forward, never in eval. Always float32, also under auto_cast. Source: Miyato
    et al., ICLR 2018, algorithm 1.
    """

    transposed = False  # whether `weight_orig` is stored as columns x rows

    def __init__(self, shape, arch, eps, bias=0, fan_in=1):
        super().__init__()
        self.eps = eps
        self.weight_orig = self.create_parameter(shape, attr=_weight_attr(arch))
        rows, columns = shape[::-1] if self.transposed else (shape[0], int(np.prod(shape[1:])))
        self.register_buffer("weight_u", _normalize(paddle.randn([rows]), eps))
        self.register_buffer("weight_v", _normalize(paddle.randn([columns]), eps))
        self.bias = None
        if bias:
            self.bias = self.create_parameter([bias], attr=_bias_attr(arch, fan_in), is_bias=True)

    def weight(self):
        """W / sigma, of the shape of `weight_orig`.

        The gradient goes through sigma, with u and v constant.
        """
        with fast.float32():
            W = self.weight_orig.reshape([self.weight_orig.shape[0], -1])
            v = self.weight_v
            if self.training:
                with paddle.no_grad():
                    v = paddle.matmul(W, self.weight_u, transpose_x=not self.transposed)
                    v = _normalize(v, self.eps)
            Wv = paddle.matmul(W, v, transpose_x=self.transposed)
            u = self.weight_u
            if self.training:
                u = _normalize(Wv.detach(), self.eps)
                paddle.assign(u, self.weight_u)
                paddle.assign(v, self.weight_v)
            return self.weight_orig / paddle.dot(u, Wv)


class SNConv2D(SpectralNorm):
    """Convolution of stride 1 that keeps the side. Weight (out, in, kernel, kernel)."""

    def __init__(self, inputs, outputs, kernel, arch, eps, bias=True):
        shape = [outputs, inputs, kernel, kernel]
        super().__init__(shape, arch, eps, outputs if bias else 0, inputs * kernel**2)
        self.padding = kernel // 2

    def forward(self, x):
        return fast.conv2d(x, self.weight(), self.bias, padding=self.padding)  # (N, out, H, W)


class SNLinear(SpectralNorm):
    """Weight (in, out): Paddle's order, the transpose of torch's."""

    transposed = True

    def __init__(self, inputs, outputs, arch, eps):
        super().__init__([inputs, outputs], arch, eps, outputs, inputs)

    def forward(self, x):
        return F.linear(x, self.weight(), self.bias)


class SNEmbedding(SpectralNorm):
    """Weight (classes, channels)."""

    def __init__(self, classes, channels, arch, eps):
        super().__init__([classes, channels], arch, eps)

    def forward(self, y):
        return F.embedding(y, self.weight())


class SelfAttention(nn.Layer):
    """x (N, C, H, W) + sigma * attention(x), where sigma starts at 0 (SAGAN eq. 1-3).

    The paper's g, f, h, v and gamma are theta, phi, g, attn and sigma here. As in the authors'
    code, h has C/2 channels (paper: C/8), f and h are max-pooled 2x2, and the scores are not
    divided by a square root.
    """

    def __init__(self, C, arch):
        super().__init__()
        eps = arch.attention_sn_eps
        bias = arch.attention_bias
        self.snconv1x1_theta = SNConv2D(C, C // 8, 1, arch, eps, bias)
        self.snconv1x1_phi = SNConv2D(C, C // 8, 1, arch, eps, bias)
        self.snconv1x1_g = SNConv2D(C, C // 2, 1, arch, eps, bias)
        self.snconv1x1_attn = SNConv2D(C // 2, C, 1, arch, eps, bias)
        self.sigma = self.create_parameter([1], attr=paddle.ParamAttr(initializer=Constant(0.0)))
        self.twice = False  # whether gradients of gradients are wanted (wgan_gp)

    def forward(self, x):
        _, C, H, W = x.shape
        ops = fast if self.twice else F  # Paddle's own are quicker, but differentiable once only
        g = self.snconv1x1_theta(x).reshape([0, C // 8, -1])  # (N, C/8, HW)
        f = ops.max_pool2d(self.snconv1x1_phi(x), 2).reshape([0, C // 8, -1])  # (N, C/8, HW/4)
        h = ops.max_pool2d(self.snconv1x1_g(x), 2).reshape([0, C // 2, -1])  # (N, C/2, HW/4)
        beta = ops.softmax(paddle.matmul(g, f, transpose_x=True), axis=-1)  # (N, HW, HW/4), eq. 1
        o = paddle.matmul(h, beta, transpose_y=True)  # (N, C/2, HW), eq. 2 before v
        o = self.snconv1x1_attn(o.reshape([-1, C // 2, H, W]))  # (N, C, H, W), eq. 2
        return self.sigma * o + x  # (N, C, H, W), eq. 3


class ConditionalBatchNorm(nn.Layer):
    """BatchNorm without its own affine map, then a scale and a shift per class (see `arch.cbn`)."""

    def __init__(self, C, arch):
        super().__init__()
        classes = arch.num_classes
        self.bn = nn.BatchNorm2D(
            C, arch.bn_momentum, arch.bn_eps, weight_attr=False, bias_attr=False
        )
        self.one_plus = arch.cbn == "one_plus"
        if not self.one_plus:  # gamma = 1 in the first C columns, beta = 0 in the others
            start = np.tile(np.repeat(np.float32([1, 0]), C), [classes, 1])
            attr = paddle.ParamAttr(initializer=Assign(start))
            self.embed = nn.Embedding(classes, 2 * C, weight_attr=attr)
        elif arch.cbn_spectral:
            self.gain = SNEmbedding(classes, C, arch, arch.sn_eps)
            self.bias = SNEmbedding(classes, C, arch, arch.sn_eps)
        else:
            self.gain = nn.Embedding(classes, C, weight_attr=_weight_attr(arch))
            self.bias = nn.Embedding(classes, C, weight_attr=_weight_attr(arch))

    def forward(self, x, y):
        if self.one_plus:
            gamma = 1.0 + self.gain(y)  # (N, C)
            beta = self.bias(y)  # (N, C)
        else:
            gamma, beta = self.embed(y).chunk(2, axis=1)  # (N, C) each
        return self.bn(x) * gamma.unsqueeze([2, 3]) + beta.unsqueeze([2, 3])  # (N, C, H, W)


class GenBlock(nn.Layer):
    """Residual block of G: (N, i, H, W) -> (N, o, 2H, 2W)."""

    def __init__(self, i, o, arch):
        super().__init__()
        self.cond_bn1 = ConditionalBatchNorm(i, arch)
        self.snconv2d1 = SNConv2D(i, o, 3, arch, arch.block_sn_eps)
        self.cond_bn2 = ConditionalBatchNorm(o, arch)
        self.snconv2d2 = SNConv2D(o, o, 3, arch, arch.block_sn_eps)
        self.snconv2d0 = SNConv2D(i, o, 1, arch, arch.block_sn_eps)

    def forward(self, x, y):
        first, skip = self.snconv2d1, self.snconv2d0
        h = F.relu(self.cond_bn1(x, y))  # (N, i, H, W)
        h = fast.conv2d_of_upsampled(h, first.weight(), first.bias)  # (N, o, 2H, 2W)
        h = self.snconv2d2(F.relu(self.cond_bn2(h, y)))  # (N, o, 2H, 2W)
        return h + fast.conv2d_of_upsampled(x, skip.weight(), skip.bias)


class DiscBlock(nn.Layer):
    """Residual block of D: (N, i, H, W) -> (N, o, H/2, W/2), or (N, o, H, W) if not `down`.

    The first block has no leading ReLU; one that keeps side and channels has an identity skip.
    """

    def __init__(self, i, o, down, arch, first=False):
        super().__init__()
        eps = arch.sn_eps if first else arch.block_sn_eps
        self.first = first
        self.down = down
        self.skip_relu = arch.skip_relu
        self.snconv2d1 = SNConv2D(i, o, 3, arch, eps)
        self.snconv2d2 = SNConv2D(o, o, 3, arch, eps)
        self.snconv2d0 = SNConv2D(i, o, 1, arch, eps) if down or i != o else None

    def forward(self, x):
        h = x if self.first else F.relu(x)
        skip = h if self.skip_relu else x
        h = F.relu(self.snconv2d1(h))  # (N, o, H, W)
        last = self.snconv2d2
        if not self.down:
            h = last(h)  # (N, o, H, W)
        else:
            h = fast.pooled_conv2d(h, last.weight(), last.bias)  # (N, o, H/2, W/2)
            skip = F.avg_pool2d(skip, 2)  # before its 1x1 convolution: the mean commutes with it
        return h + (self.snconv2d0(skip) if self.snconv2d0 else skip)


class Generator(nn.Layer):
    """G: latents (N, z_dim), labels (N,) -> images (N, 3, S, S) in [-1, 1].

    At 128 px, ch = g_conv_dim:

        linear    (N, 16 ch,   4,   4)
        block1    (N, 16 ch,   8,   8)
        block2    (N,  8 ch,  16,  16)
        block3    (N,  4 ch,  32,  32), then self-attention (by `g_attention`)
        block4    (N,  2 ch,  64,  64)
        block5    (N,    ch, 128, 128), then BN, ReLU, 3x3 convolution, tanh
    """

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        self.width = arch.g_blocks()[0][1]
        self.snlinear0 = SNLinear(arch.z_dim, self.width * 4 * 4, arch, arch.sn_eps)
        self.order = []  # (block, key of the attention that follows it or "")
        attention = {}
        for name, i, o, side in arch.g_blocks():
            self.add_sublayer(name, GenBlock(i, o, arch))  # (N, o, side, side)
            key = str(side) if side in arch.g_attention else ""
            self.order.append((name, key))
            if key:
                attention[key] = SelfAttention(o, arch)
        self.self_attn = nn.LayerDict(attention)
        self.bn = nn.BatchNorm2D(o, arch.last_bn_momentum, arch.bn_eps)
        self.snconv2d1 = SNConv2D(o, 3, 3, arch, arch.sn_eps)  # (N, 3, S, S)

    def forward(self, z, y):
        h = self.snlinear0(z).reshape([-1, self.width, 4, 4])
        for block, attention in self.order:
            h = getattr(self, block)(h, y)
            if attention:
                h = self.self_attn[attention](h)
        return F.tanh(self.snconv2d1(F.relu(self.bn(h))))


class Discriminator(nn.Layer):
    """D: images (N, 3, S, S) in [-1, 1], labels (N,) -> logits (N,).

    At 128 px, ch = d_conv_dim:

        opt_block1    (N,    ch, 64, 64)
        block1        (N,  2 ch, 32, 32), then self-attention (by `d_attention`)
        block2        (N,  4 ch, 16, 16)
        block3        (N,  8 ch,  8,  8)
        block4        (N, 16 ch,  4,  4)
        block5        (N, 16 ch,  4,  4)
        h = sum over H, W of ReLU; logit = linear(h) + <embedding(y), h>   (Miyato & Koyama 2018)
    """

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        self.order = []  # (block, key of the attention that follows it or "")
        attention = {}
        for name, i, o, down, side in arch.d_blocks():
            block = DiscBlock(i, o, down, arch, first=name == "opt_block1")
            self.add_sublayer(name, block)  # (N, o, side, side)
            # after the first block of its side only
            attends = side in arch.d_attention and str(side) not in attention
            self.order.append((name, str(side) if attends else ""))
            if attends:
                attention[str(side)] = SelfAttention(o, arch)
        self.self_attn = nn.LayerDict(attention)
        self.snlinear1 = SNLinear(o, 1, arch, arch.sn_eps)
        self.sn_embedding1 = SNEmbedding(arch.num_classes, o, arch, arch.sn_eps)

    def forward(self, x, y):
        h = x
        for block, attention in self.order:
            h = getattr(self, block)(h)
            if attention:
                h = self.self_attn[attention](h)
        h = F.relu(h).sum([2, 3])  # (N, o): the sum, not the mean
        return self.snlinear1(h).squeeze(1) + (self.sn_embedding1(y) * h).sum(1)  # (N,)
