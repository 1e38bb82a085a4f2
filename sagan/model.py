"""The networks of SAGAN (Zhang et al., ICML 2019) in every published form.

Attribute names are the keys of the Atmosphere-art / voletiv weights. Images are (N, 3, S, S)
float32 in [-1, 1],
latents (N, z_dim) float32, labels (N,) int64 in [0, num_classes): callers check the labels.
"""

from dataclasses import asdict, dataclass, fields

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Assign, Constant, Orthogonal, Uniform, XavierUniform

from shared_metrics.errors import UserError

# Channels in units of g_conv_dim: entering at 4x4, then after each block of G, which doubles the
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
class Architecture:
    """All that fixes both networks; kept in checkpoints. Raises UserError naming the flag of an
    impossible value.
    """

    imsize: int = 128  # 32, 64, 128, 256
    num_classes: int = 1000
    z_dim: int = 128
    g_conv_dim: int = 64  # base width of G, see G_WIDTHS
    d_conv_dim: int = 64  # base width of D, see D_WIDTHS
    g_attention: tuple = (
        32,
    )  # resolutions with self-attention; its scores take N * S^2 * S^2/4 numbers
    d_attention: tuple = (32,)
    attention_bias: bool = True  # biases in attention's 1x1 convolutions
    cbn: str = "gamma"  # "gamma": gamma[y] * x + beta[y]; "one_plus": (1 + gain[y]) * x + bias[y]
    cbn_spectral: bool = False  # spectral norm on gain and bias ("one_plus" only)
    bn_eps: float = 1e-5
    bn_momentum: float = (
        0.999  # share of the running statistics that is kept: 1 - momentum of torch
    )
    last_bn_momentum: float = 0.9999  # the same for the BatchNorm before G's last convolution
    sn_eps: float = 1e-12  # spectral norm: stem, tail, head, cBN
    block_sn_eps: float = 1e-12  # spectral norm in the residual blocks (of D: all but the first)
    attention_sn_eps: float = 1e-12
    skip_relu: bool = False  # skips of D's blocks take ReLU(x), as an in-place ReLU makes them
    # "xavier" (uniform) or "orthogonal": every convolution, linear and embedding, gain 1
    init: str = "xavier"
    bias_init: str = (
        "zeros"  # "zeros" or "fan_in": U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default
    )

    def __post_init__(self):
        for name in ("g_attention", "d_attention"):
            object.__setattr__(self, name, tuple(sorted({int(r) for r in getattr(self, name)})))
        if self.imsize not in G_WIDTHS:
            raise UserError(
                f"--imsize {self.imsize}: no such network; take one of "
                f"{', '.join(map(str, G_WIDTHS))}"
            )
        for name in ("num_classes", "z_dim", "g_conv_dim", "d_conv_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1")
        words = {
            "cbn": ("gamma", "one_plus"),
            "init": ("xavier", "orthogonal"),
            "bias_init": ("zeros", "fan_in"),
        }
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"--{name} {getattr(self, name)}: unknown; take one of {', '.join(allowed)}"
                )
        if self.cbn_spectral and self.cbn != "one_plus":
            raise UserError("--cbn_spectral: only the cBN of --cbn one_plus has spectral norm")
        for name in (
            "bn_eps",
            "sn_eps",
            "block_sn_eps",
            "attention_sn_eps",
            "bn_momentum",
            "last_bn_momentum",
        ):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must lie between 0 and 1")
        self._check_attention("g", {r: c for _, _, c, r in self.g_blocks()})
        self._check_attention("d", {r: c for _, _, c, _, r in reversed(self.d_blocks())})

    def _check_attention(self, net, widths):
        for r in getattr(self, f"{net}_attention"):
            if r not in widths:
                sides = ", ".join(map(str, sorted(widths)))
                raise UserError(
                    f"--{net}_attention {r}: {net.upper()} at {self.imsize} px has features of "
                    f"side {sides}"
                )
            if widths[r] < 8:
                raise UserError(
                    f"--{net}_conv_dim {getattr(self, net + '_conv_dim')}: self-attention at "
                    f"{r}x{r} needs 8 channels "
                    f"and finds {widths[r]}; widen {net.upper()} or move --{net}_attention"
                )

    def g_blocks(self):
        """Rows of G's table: [(name, channels in, channels out, side of the output)]."""
        w = [self.g_conv_dim * m for m in G_WIDTHS[self.imsize]]
        return [(f"block{i}", w[i - 1], w[i], 4 * 2**i) for i in range(1, len(w))]

    def d_blocks(self):
        """Rows of D's table: [(name, channels in, channels out, halves the side, side of the
        output)].
        """
        w = [3] + [self.d_conv_dim * m for m in D_WIDTHS[self.imsize]]
        halved = D_HALVINGS[self.imsize]
        return [
            (
                f"block{i}" if i else "opt_block1",
                w[i],
                w[i + 1],
                i < halved,
                self.imsize // 2 ** min(i + 1, halved),
            )
            for i in range(len(w) - 1)
        ]

    def to_dict(self):
        """Plain numbers, strings and lists, for checkpoints and JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values):
        """The inverse of `to_dict`. Raises UserError on unknown or missing entries."""
        names = {f.name for f in fields(cls)}
        if names != set(values):
            odd = sorted(names ^ set(values))
            raise UserError(
                f"architecture: entries {odd} are unknown or missing; the file is from another "
                "version"
            )
        return cls(**values)


_STUDIOGAN = {
    "attention_bias": False,
    "cbn": "one_plus",
    "cbn_spectral": True,
    "bn_eps": 1e-4,
    "bn_momentum": 0.9,
    "last_bn_momentum": 0.9,
    "init": "orthogonal",
}
# What each published form changes in the paper's form, which is also that of voletiv and
# Atmosphere-art.
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
    """Architecture of a published form ("sagan", "studiogan", "mmgen", "mmgen-biggan") with
    `changes` to its fields.

    Raises UserError naming the flag for a form, size or field value that does not exist.
    """
    if form not in FORMS:
        raise UserError(f"--form {form}: unknown; take one of {', '.join(FORMS)}")
    side = _ATTENTION["sagan" if form == "sagan" else "studiogan"].get(imsize, 32)
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
    """A layer whose weight is W / sigma(W), sigma the largest singular value (Miyato et al., ICLR
    2018, algorithm 1).

    W is read as a matrix of one row per output (for embeddings: per class). `weight_orig` is the
    parameter; buffers `weight_u` (rows) and `weight_v` (columns) move by one power iteration at
    each training-mode forward, never in eval. Always float32, also under auto_cast.
    """

    transposed = False  # whether `weight_orig` is stored as columns x rows

    def __init__(self, shape, arch, eps, bias=0, fan_in=1):
        super().__init__()
        self.eps = eps
        self.weight_orig = self.create_parameter(shape, attr=_weight_attr(arch))
        rows, columns = shape[::-1] if self.transposed else (shape[0], int(np.prod(shape[1:])))
        self.register_buffer("weight_u", _normalize(paddle.randn([rows]), eps))
        self.register_buffer("weight_v", _normalize(paddle.randn([columns]), eps))
        self.bias = (
            self.create_parameter([bias], attr=_bias_attr(arch, fan_in), is_bias=True)
            if bias
            else None
        )

    def weight(self):
        """W / sigma, of the shape of `weight_orig`; the gradient goes through sigma, with u and v
        constant.
        """
        with paddle.amp.auto_cast(enable=False):
            W, u, v = (
                self.weight_orig.reshape([self.weight_orig.shape[0], -1]),
                self.weight_u,
                self.weight_v,
            )
            if self.training:
                with paddle.no_grad():
                    v = _normalize(paddle.matmul(W, u, transpose_x=not self.transposed), self.eps)
            Wv = paddle.matmul(W, v, transpose_x=self.transposed)
            if self.training:
                u = _normalize(Wv.detach(), self.eps)
                paddle.assign(u, self.weight_u)
                paddle.assign(v, self.weight_v)
            return self.weight_orig / paddle.dot(u, Wv)


class SNConv2D(SpectralNorm):
    """Convolution of stride 1 that keeps the side. Weight (out, in, kernel, kernel)."""

    def __init__(self, inputs, outputs, kernel, arch, eps, bias=True):
        super().__init__(
            [outputs, inputs, kernel, kernel], arch, eps, outputs if bias else 0, inputs * kernel**2
        )
        self.padding = kernel // 2

    def forward(self, x):
        h = F.conv2d(x, self.weight(), padding=self.padding)  # (N, out, H, W)
        # Shape (out, 1, 1), not the (1, out, 1, 1) that conv2d adds: Paddle's CPU kernel is ten
        # times as fast there.
        return h if self.bias is None else h + self.bias.reshape([-1, 1, 1])


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


def softmax_twice(x, axis):
    """F.softmax, which Paddle differentiates once only, of operations that it differentiates
    twice.
    """
    p = F.sigmoid(x - x.max(axis, keepdim=True).detach())
    e = p / (1.0 - p)  # exp(x - max): Paddle 2.6 differentiates exp itself once only
    return e / e.sum(axis, keepdim=True)


def max_pool_twice(x, size):
    """F.max_pool2d likewise: the mean of x where it is the largest of its window, times the
    window's area.
    """
    with paddle.no_grad():
        _, C, H, W = x.shape
        windows = x.reshape([-1, H // size, size, W // size, size])
        largest = (windows == windows.max([2, 4], keepdim=True)).astype(x.dtype)
        largest = (largest / largest.sum([2, 4], keepdim=True)).reshape([-1, C, H, W])
    return F.avg_pool2d(x * largest, size) * size**2


class SelfAttention(nn.Layer):
    """x (N, C, H, W) + sigma * attention(x), where sigma starts at 0 (SAGAN eq. 1-3).

    The paper's g, f, h, v and gamma are theta, phi, g, attn and sigma here. As in the authors'
    code, h has C/2 channels (paper: C/8), f and h are max-pooled 2x2, and the scores are not
    divided by a square root.
    """

    def __init__(self, C, arch):
        super().__init__()
        eps, bias = arch.attention_sn_eps, arch.attention_bias
        self.snconv1x1_theta = SNConv2D(C, C // 8, 1, arch, eps, bias)
        self.snconv1x1_phi = SNConv2D(C, C // 8, 1, arch, eps, bias)
        self.snconv1x1_g = SNConv2D(C, C // 2, 1, arch, eps, bias)
        self.snconv1x1_attn = SNConv2D(C // 2, C, 1, arch, eps, bias)
        self.sigma = self.create_parameter([1], attr=paddle.ParamAttr(initializer=Constant(0.0)))
        self.twice = False  # whether gradients of gradients are wanted (wgan_gp)

    def forward(self, x):
        _, C, H, W = x.shape
        g = self.snconv1x1_theta(x).reshape([0, C // 8, -1])  # (N, C/8, HW)
        pool, softmax = (max_pool_twice, softmax_twice) if self.twice else (F.max_pool2d, F.softmax)
        f = pool(self.snconv1x1_phi(x), 2).reshape([0, C // 8, -1])  # (N, C/8, HW/4)
        h = pool(self.snconv1x1_g(x), 2).reshape([0, C // 2, -1])  # (N, C/2, HW/4)
        beta = softmax(paddle.matmul(g, f, transpose_x=True), axis=-1)  # (N, HW, HW/4)   eq. 1
        o = paddle.matmul(h, beta, transpose_y=True).reshape(
            [-1, C // 2, H, W]
        )  # (N, C/2, H, W)   eq. 2, before v
        return self.sigma * self.snconv1x1_attn(o) + x  # (N, C, H, W)   eq. 3


class ConditionalBatchNorm(nn.Layer):
    """BatchNorm without its own affine map, then a scale and a shift per class (`arch.cbn` names
    the form).
    """

    def __init__(self, C, arch):
        super().__init__()
        self.bn = nn.BatchNorm2D(
            C, arch.bn_momentum, arch.bn_eps, weight_attr=False, bias_attr=False
        )
        if arch.cbn == "gamma":  # gamma = 1 in the first C columns, beta = 0 in the others
            start = np.repeat(np.float32([[1, 0]]), C, axis=1).repeat(arch.num_classes, axis=0)
            self.embed = nn.Embedding(
                arch.num_classes, 2 * C, weight_attr=paddle.ParamAttr(initializer=Assign(start))
            )
        elif arch.cbn_spectral:
            self.gain = SNEmbedding(arch.num_classes, C, arch, arch.sn_eps)
            self.bias = SNEmbedding(arch.num_classes, C, arch, arch.sn_eps)
        else:
            self.gain = nn.Embedding(arch.num_classes, C, weight_attr=_weight_attr(arch))
            self.bias = nn.Embedding(arch.num_classes, C, weight_attr=_weight_attr(arch))
        self.one_plus = arch.cbn == "one_plus"

    def forward(self, x, y):
        if self.one_plus:
            gamma, beta = 1.0 + self.gain(y), self.bias(y)  # (N, C) each
        else:
            gamma, beta = self.embed(y).chunk(2, axis=1)
        return self.bn(x) * gamma.unsqueeze([2, 3]) + beta.unsqueeze([2, 3])  # (N, C, H, W)


def upsample(x):
    """Nearest neighbour, twice the side: (N, C, H, W) -> (N, C, 2H, 2W). On CPU five times as fast
    as F.interpolate.
    """
    _, C, H, W = x.shape
    return x.reshape([-1, 1, W, 1]).tile([1, 2, 1, 2]).reshape([-1, C, 2 * H, 2 * W])


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
        h = upsample(F.relu(self.cond_bn1(x, y)))  # (N, i, 2H, 2W)
        h = self.snconv2d1(h)  # (N, o, 2H, 2W)
        h = self.snconv2d2(F.relu(self.cond_bn2(h, y)))  # (N, o, 2H, 2W)
        return h + upsample(
            self.snconv2d0(x)
        )  # 1x1 before upsampling is the same, at a quarter of the work


class DiscBlock(nn.Layer):
    """Residual block of D: (N, i, H, W) -> (N, o, H/2, W/2), or (N, o, H, W) where it does not
    halve.

    The first block has no leading ReLU; one that keeps side and channels has an identity skip.
    """

    def __init__(self, i, o, down, arch, first=False):
        super().__init__()
        eps = arch.sn_eps if first else arch.block_sn_eps
        self.first, self.down, self.skip_relu = first, down, arch.skip_relu
        self.snconv2d1 = SNConv2D(i, o, 3, arch, eps)
        self.snconv2d2 = SNConv2D(o, o, 3, arch, eps)
        self.snconv2d0 = SNConv2D(i, o, 1, arch, eps) if down or i != o else None

    def forward(self, x):
        h = x if self.first else F.relu(x)
        skip = h if self.skip_relu else x
        h = self.snconv2d2(F.relu(self.snconv2d1(h)))  # (N, o, H, W)
        if self.down:
            h, skip = (
                F.avg_pool2d(h, 2),
                F.avg_pool2d(skip, 2),
            )  # the skip's 1x1 convolution commutes with the mean
        return h + (self.snconv2d0(skip) if self.snconv2d0 else skip)


class Generator(nn.Layer):
    """G: latents (N, z_dim) float32, labels (N,) int64 -> images (N, 3, S, S) in [-1, 1]. At 128
    px, ch = g_conv_dim:

    linear        (N, 16 ch,   4,   4)        block3    (N, 4 ch,  32,  32), then self-attention (by `g_attention`)
    block1        (N, 16 ch,   8,   8)        block4    (N, 2 ch,  64,  64)
    block2        (N,  8 ch,  16,  16)        block5    (N,   ch, 128, 128), then BN, ReLU, 3x3 convolution, tanh
    """

    def __init__(self, arch):
        super().__init__()
        self.arch, blocks = arch, arch.g_blocks()
        self.width = blocks[0][1]
        self.snlinear0 = SNLinear(
            arch.z_dim, self.width * 16, arch, arch.sn_eps
        )  # (N, width * 4 * 4)
        attention = {}
        for name, i, o, side in blocks:
            self.add_sublayer(name, GenBlock(i, o, arch))  # (N, o, side, side)
            if side in arch.g_attention:
                attention[str(side)] = SelfAttention(o, arch)
        self.order = [
            (name, str(side) if side in arch.g_attention else "") for name, _, _, side in blocks
        ]
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
    """D: images (N, 3, S, S) in [-1, 1], labels (N,) int64 -> logits (N,). At 128 px, ch =
    d_conv_dim:

    opt_block1    (N,    ch, 64, 64)          block3    (N,  8 ch, 8, 8)
    block1        (N,  2 ch, 32, 32)          block4    (N, 16 ch, 4, 4)
    attention by `d_attention`                block5    (N, 16 ch, 4, 4)
    block2        (N,  4 ch, 16, 16)          h = sum over H, W of ReLU; logit = linear(h) + <embedding(y), h>
    """

    def __init__(self, arch):
        super().__init__()
        self.arch, self.order, attention = arch, [], {}
        for name, i, o, down, side in arch.d_blocks():
            self.add_sublayer(
                name, DiscBlock(i, o, down, arch, first=name == "opt_block1")
            )  # (N, o, side, side)
            attends = (
                side in arch.d_attention and str(side) not in attention
            )  # after the first block of that side
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
        return self.snlinear1(h).squeeze(1) + (self.sn_embedding1(y) * h).sum(
            1
        )  # (N,)   Miyato & Koyama 2018
