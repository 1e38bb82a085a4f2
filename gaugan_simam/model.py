"""The networks of GauGAN (Park et al., "Semantic Image Synthesis with Spatially-Adaptive
Normalization", CVPR 2019).

Two variants: "photopen", PaddleGAN's, with GELU and SimAM (Yang et al., ICML 2021), and "nvlabs",
the paper's. Attribute names are the keys of PaddleGAN's weights. Images are (N, 3, H, W) float32 in
[-1, 1]; semantic maps are (N, semantic_nc, H, W) float32: one channel per label id, then the edge
map (`semantics` makes them).
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Normal

from shared_metrics import fast, process
from shared_metrics.errors import UserError
from shared_metrics.published import Depth, PlainFields

UPSAMPLINGS = {"normal": 5, "more": 6, "most": 7}  # doublings of the side between start and image
NORM_G = "[spectral]spade{batch|syncbatch|instance}{k}x{k}, for instance spectralspadebatch3x3"
WARM_UP = 15  # power iterations at construction: sigma starts random, far below the truth
SPADE_WIDTH = 128  # channels between the map and SPADE's gamma and beta


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes the networks; kept in checkpoints.

    Properties: nc, one-hot channels; semantic_nc, channels of the semantic map; start and size,
        (height, width) of G's first features and of its images.
    Raises: UserError naming the entry where entries do not go together.
    """

    # activations, norms of D, initialisation; "nvlabs": the paper's
    variant: Literal["photopen", "nvlabs"] = "photopen"
    label_nc: int = 12  # label ids 0 ... label_nc - 1
    contain_dontcare_label: bool = True  # id label_nc stands for unknown
    no_instance: bool = False  # True: no edge map
    crop_size: int = 256  # width of G's images
    aspect_ratio: float = 1.0  # width / height
    num_upsampling_layers: Literal["normal", "more", "most"] = "normal"  # see UPSAMPLINGS
    norm_G: str = "spectralspadebatch3x3"  # see NORM_G; spectral norm of the blocks' convolutions
    ngf: int = 24  # base width of G; its blocks have 16, 8, 4, 2, 1 times that
    use_vae: bool = False  # G starts from the encoder's latent instead of the map
    z_dim: int = 256
    nef: int = 16  # base width of the encoder
    ndf: int = 128  # base width of D, doubled by each block up to 512
    num_D: Depth = 4  # scales of D, each half as large
    n_layers_D: Depth = 6  # blocks of each scale before its logits
    simam: bool = True  # SimAM after every block of G and D
    simam_lambda: float = 1e-4

    def __post_init__(self):
        layers = self.num_upsampling_layers
        if layers == "most" and self.ngf < 2:
            raise UserError(f"ngf {self.ngf}: must be at least 2, which most upsampling halves")
        for name in ("aspect_ratio", "simam_lambda"):  # divisors
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} {getattr(self, name)}: must be a number above 0")
        step = 2 ** UPSAMPLINGS[layers]
        if self.crop_size % step:
            near = max(round(self.crop_size / step), 1) * step
            raise UserError(
                f"crop_size {self.crop_size}: {layers} upsampling makes multiples of {step}; take "
                f"{near}"
            )
        if self.start[0] < 1:
            raise UserError(
                f"aspect_ratio {self.aspect_ratio}: leaves no height of {self.start[1]} columns; "
                "lower it"
            )
        self.norm_parts()

    def norm_parts(self):
        """norm_G as (spectral norm in G's blocks?, norm inside SPADE, side of SPADE's kernels)."""
        wrong = f"norm_G {self.norm_G}"
        spectral = self.norm_G.startswith("spectral")
        rest = self.norm_G.removeprefix("spectral")
        if not rest.startswith("spade"):
            raise UserError(f"{wrong}: G's norm is spade; write {NORM_G}")
        kind, sides = re.fullmatch(r"([^\d]*)(.*)", rest.removeprefix("spade")).groups()
        if kind not in ("batch", "syncbatch", "instance"):
            raise UserError(f"{wrong}: no norm {kind!r} after spade; write {NORM_G}")
        match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", sides)
        if not match or match[1] != match[2] or int(match[1]) % 2 == 0:
            raise UserError(
                f"{wrong}: {sides!r} is no square kernel of an odd side below 100; write {NORM_G}"
            )
        return spectral, kind, int(match[1])

    @property
    def nc(self):
        return self.label_nc + self.contain_dontcare_label

    @property
    def semantic_nc(self):
        return self.nc + (not self.no_instance)

    @property
    def start(self):
        width = self.crop_size // 2 ** UPSAMPLINGS[self.num_upsampling_layers]
        return round(width / self.aspect_ratio), width

    @property
    def size(self):
        return self.start[0] * 2 ** UPSAMPLINGS[self.num_upsampling_layers], self.crop_size

    def g_blocks(self):
        """Rows of G's table: [(name, channels in, channels out, side doubled before it?)]."""
        n = self.ngf
        more = self.num_upsampling_layers in ("more", "most")
        rows = [
            ("head_0", 16 * n, 16 * n, False),
            ("G_middle_0", 16 * n, 16 * n, True),
            ("G_middle_1", 16 * n, 16 * n, more),
            ("up_0", 16 * n, 8 * n, True),
            ("up_1", 8 * n, 4 * n, True),
            ("up_2", 4 * n, 2 * n, True),
            ("up_3", 2 * n, n, True),
        ]
        if self.num_upsampling_layers == "most":
            rows.append(("up_4", n, n // 2, True))
        return rows

    def d_blocks(self):
        """Rows of each scale of D, its logits last: [(channels in, channels out, stride)]."""
        rows = []
        i = self.semantic_nc + 3  # the map and an image
        o = self.ndf
        for n in range(self.n_layers_D):
            last = n == self.n_layers_D - 1
            rows.append((i, o, 1 if last and n > 0 else 2))
            i = o
            o = min(2 * o, 512)
        return [*rows, (i, 1, 1)]


# What each published variant changes in the defaults above; the labels of nvlabs are COCO-Stuff's.
VARIANTS = {
    "photopen": {},
    "nvlabs": {
        "label_nc": 182,
        "norm_G": "spectralspadesyncbatch3x3",
        "ngf": 64,
        "nef": 64,
        "ndf": 64,
        "num_D": 2,
        "n_layers_D": 4,
        "simam": False,
    },
}


def architecture(variant, **changes):
    """Architecture of a published variant ("photopen", "nvlabs") with `changes` to its fields."""
    return Architecture(**{"variant": variant} | VARIANTS[variant] | changes)


def semantics(labels, instances, arch):
    """The semantic map that G and D see: one-hot labels, then the edges of the instances.

    A pixel is on an edge where its id differs from any of its four neighbours', so both sides of a
    border are.

    Args: labels (N, H, W) integers, tensor or array, in [0, arch.nc): callers check them;
        instances, the same of any ids, or None: the edges are the labels' own, as PaddleGAN's.
    Returns: (N, arch.semantic_nc, H, W) float32.
    """
    maps = (labels, labels if instances is None else instances)
    labels, ids = (m if isinstance(m, paddle.Tensor) else paddle.to_tensor(m) for m in maps)
    channels = paddle.arange(arch.nc, dtype=labels.dtype).reshape([1, -1, 1, 1])
    one_hot = (labels.unsqueeze(1) == channels).astype("float32")  # (N, nc, H, W)
    if arch.no_instance:
        return one_hot
    N, H, W = ids.shape
    across = ids[:, :, 1:] != ids[:, :, :-1]  # (N, H, W - 1)
    down = ids[:, 1:] != ids[:, :-1]  # (N, H - 1, W)
    column = paddle.zeros([N, H, 1], "bool")
    row = paddle.zeros([N, 1, W], "bool")
    edge = paddle.concat([across, column], 2) | paddle.concat([column, across], 2)
    edge = edge | paddle.concat([down, row], 1) | paddle.concat([row, down], 1)
    return paddle.concat([one_hot, edge.unsqueeze(1).astype("float32")], 1)


def simam(x, lam):
    """x * sigmoid(e), e = d / (4 (v + lam)) + 1/2, d = (x - mean)^2, v = sum(d) / (HW - 1), over
    each channel's H, W.

    Attention without parameters: what stands out from its channel passes, its mean is scaled by
    sigmoid(1/2) = 0.6225, and so is a 1x1 map. float32, also under auto_cast; returns x's dtype.
    Source: Yang et al., ICML 2021, sec. 3.2.
    """
    _, C, H, W = x.shape
    with fast.float32():
        # (N C, HW): Paddle's CPU broadcasts this form faster
        h = x.astype("float32").reshape([-1, H * W])
        # not `mean`, of which Paddle prints a line where it makes a program
        d = (h - h.sum(1, keepdim=True) / (H * W)).square()
        v = d.sum(1, keepdim=True) / max(H * W - 1, 1)
        h = h * F.sigmoid(d / (4.0 * (v + lam)) + 0.5)
        return h.reshape([-1, C, H, W]).astype(x.dtype)


def _activation(arch):
    return nn.GELU() if arch.variant == "photopen" else nn.LeakyReLU(0.2)


def _weight_attr(arch, fan_in, fan_out):
    """photopen: Paddle's default for convolutions; nvlabs: Glorot's normal, gain 0.02.

    Biases start at 0 in both.
    """
    if arch.variant == "photopen":
        std = (2 / fan_in) ** 0.5
    else:
        std = 0.02 * (2 / (fan_in + fan_out)) ** 0.5
    return paddle.ParamAttr(initializer=Normal(0.0, std))


def _linear(i, o, arch):
    return nn.Linear(i, o, weight_attr=_weight_attr(arch, i, o))


def _instance_norm(C, affine):
    attr = None if affine else False
    return nn.InstanceNorm2D(C, weight_attr=attr, bias_attr=attr)


class Conv(nn.Layer):
    """Convolution of weight (out, in, k, k), padded by k // 2."""

    def __init__(self, i, o, k, arch, stride=1, bias=True, weight="weight"):
        super().__init__()
        self.stride = stride
        self.padding = k // 2
        attr = _weight_attr(arch, i * k * k, o * k * k)
        self.add_parameter(weight, self.create_parameter([o, i, k, k], attr=attr))
        self.bias = self.create_parameter([o], is_bias=True) if bias else None

    def kernel(self):
        return self.weight

    def forward(self, x):
        return fast.conv2d(x, self.kernel(), self.bias, self.stride, self.padding)


def _normalize(x):
    return x / paddle.linalg.norm(x).clip(min=1e-12)


class SNConv(Conv):
    """The same with W / sigma(W), sigma the largest singular value of W as `out` rows.

    `weight_orig` is the parameter; buffers `weight_u` and `weight_v` move by one power iteration at
    each training-mode forward, never in eval. Always float32, also under auto_cast. Source: Miyato
    et al., ICLR 2018.
    """

    def __init__(self, i, o, k, arch, stride=1, bias=True):
        super().__init__(i, o, k, arch, stride, bias, weight="weight_orig")
        self.register_buffer("weight_u", _normalize(paddle.randn([o])))
        self.register_buffer("weight_v", paddle.zeros([i * k * k]))
        if self.weight_orig._is_initialized():  # paddle.LazyGuard gives it a shape alone
            self.power_iteration(WARM_UP)

    @paddle.no_grad()
    def power_iteration(self, times=1):
        W = self.weight_orig.flatten(1)
        u = self.weight_u
        for _ in range(times):
            v = _normalize(paddle.matmul(W, u, transpose_x=True))
            u = _normalize(paddle.matmul(W, v))
        paddle.assign(u, self.weight_u)
        paddle.assign(v, self.weight_v)
        return u, v  # not the buffers: the next forward may move those before this one's backward

    def kernel(self):
        """W / sigma, sigma = u^T W v; the gradient goes through sigma, with u and v constant."""
        with fast.float32():
            if self.training:
                u, v = self.power_iteration()
            else:
                u = self.weight_u
                v = self.weight_v
            return self.weight_orig / paddle.dot(u, paddle.matmul(self.weight_orig.flatten(1), v))


def _synchronised():
    """Whether BatchNorm can share statistics: several processes, each with a GPU.

    Paddle's CPU has no such kernel.
    """
    return paddle.distributed.get_world_size() > 1 and paddle.device.get_device().startswith("gpu")


def sync_note(arch):
    """A line to show where norm_G asks for syncbatch and plain BatchNorm takes its place, or ""."""
    if arch.norm_parts()[1] != "syncbatch" or _synchronised():
        return ""
    return (
        f"norm_G {arch.norm_G}: one process or no GPU, so plain BatchNorm takes syncbatch's place "
        "(same weights)"
    )


def _param_free_norm(C, arch):
    kind = arch.norm_parts()[1]
    if kind == "instance":
        return _instance_norm(C, affine=arch.variant == "photopen")  # PaddleGAN's has parameters
    if kind == "syncbatch" and _synchronised():
        return process.constant_affine(nn.SyncBatchNorm(C, weight_attr=False, bias_attr=False))
    return nn.BatchNorm2D(C, weight_attr=False, bias_attr=False)


class SPADE(nn.Layer):
    """norm(x) * (1 + gamma) + beta (SPADE eq. 1).

    gamma and beta, of x's shape, are convolved from the map of x's side.
    """

    def __init__(self, C, arch):
        super().__init__()
        k = arch.norm_parts()[2]
        self.param_free_norm = _param_free_norm(C, arch)
        activation = nn.GELU() if arch.variant == "photopen" else nn.ReLU()
        self.mlp_shared = nn.Sequential(Conv(arch.semantic_nc, SPADE_WIDTH, k, arch), activation)
        self.mlp_gamma = Conv(SPADE_WIDTH, C, k, arch)
        self.mlp_beta = Conv(SPADE_WIDTH, C, k, arch)

    def forward(self, x, seg):
        h = self.mlp_shared(seg)  # (N, 128, H, W)
        # gamma and beta in one convolution: faster on CPU than two
        weight = paddle.concat([self.mlp_gamma.weight, self.mlp_beta.weight])
        bias = paddle.concat([self.mlp_gamma.bias, self.mlp_beta.bias])
        h = fast.conv2d(h, weight, bias, padding=self.mlp_gamma.padding)  # (N, 2C, H, W)
        gamma, beta = h.chunk(2, 1)  # (N, C, H, W) each
        return self.param_free_norm(x) * (1.0 + gamma) + beta


class SPADEResBlock(nn.Layer):
    """Residual block of G: (N, i, H, W) and the map of that side -> (N, o, H, W) (SPADE fig. 4).

    SimAM, which the paper does not have, follows the sum.
    """

    def __init__(self, i, o, arch):
        super().__init__()
        self.lam = arch.simam_lambda if arch.simam else None
        conv = SNConv if arch.norm_parts()[0] else Conv
        middle = min(i, o)
        self.spade_0 = SPADE(i, arch)
        self.act_conv_0 = nn.Sequential(_activation(arch), conv(i, middle, 3, arch))
        self.spade_1 = SPADE(middle, arch)
        self.act_conv_1 = nn.Sequential(_activation(arch), conv(middle, o, 3, arch))
        self.spade_s = None
        self.act_conv_s = None
        if i != o:
            self.spade_s = SPADE(i, arch)
            self.act_conv_s = nn.Sequential(conv(i, o, 1, arch, bias=False))  # no activation in it

    def forward(self, x, seg):
        h = self.act_conv_0(self.spade_0(x, seg))  # (N, min(i, o), H, W)
        h = self.act_conv_1(self.spade_1(h, seg))  # (N, o, H, W)
        h = h + (x if self.spade_s is None else self.act_conv_s(self.spade_s(x, seg)))
        return h if self.lam is None else simam(h, self.lam)


def resize_nearest(seg, H, W):
    """(N, C, h, w) -> (N, C, H, W), pixel (i, j) from (floor(i h / H), floor(j w / W)).

    That is torch's legacy "nearest".
    """
    h, w = seg.shape[2:]
    if h % H == 0 and w % W == 0:
        return seg if (h, w) == (H, W) else seg[:, :, :: h // H, :: w // W]
    return F.interpolate(seg, size=[H, W], mode="nearest")


class Generator(nn.Layer):
    """G: semantic map (N, semantic_nc, H, W) -> images (N, 3, *arch.size) in [-1, 1].

    At 256 px, ch = ngf, "normal":

        fc            (N, 16 ch,   8,   8)
        head_0        (N, 16 ch,   8,   8)
        G_middle_0    (N, 16 ch,  16,  16)
        G_middle_1    (N, 16 ch,  16,  16)
        up_0          (N,  8 ch,  32,  32)
        up_1          (N,  4 ch,  64,  64)
        up_2          (N,  2 ch, 128, 128)
        up_3          (N,    ch, 256, 256), then activation, 3x3 convolution, tanh
    """

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        n = 16 * arch.ngf
        H, W = arch.start
        if arch.use_vae:
            self.fc = _linear(arch.z_dim, n * H * W, arch)
        else:
            self.fc = Conv(arch.semantic_nc, n, 3, arch)
        for name, i, o, _ in arch.g_blocks():
            self.add_sublayer(name, SPADEResBlock(i, o, arch))
        self.activation = _activation(arch)
        self.conv_img = Conv(o, 3, 3, arch)

    def forward(self, seg, z=None):
        """Args: seg, of any side: it is resized to each block's; z (N, z_dim), with use_vae only,
        None: drawn from N(0, 1).
        """
        H, W = self.arch.start
        here = resize_nearest(seg, H, W)  # one map serves all SPADE layers of its side
        if self.arch.use_vae:
            z = paddle.randn([seg.shape[0], self.arch.z_dim]) if z is None else z
            x = self.fc(z).reshape([-1, 16 * self.arch.ngf, H, W])
        else:
            x = self.fc(here)
        for name, _, _, doubled in self.arch.g_blocks():
            if doubled:
                x = fast.upsample(x)
                H *= 2
                W *= 2
                here = resize_nearest(seg, H, W)
            x = getattr(self, name)(x, here)
        return F.tanh(self.conv_img(self.activation(x)))


class PatchDiscriminator(nn.Layer):
    """One scale of D: (N, semantic_nc + 3, H, W) -> [outputs of its blocks, logits (N, 1, h, w)].

    Convolutions are 4x4 with padding 2; the first has neither norm nor spectral norm, the last no
    activation either.
    """

    def __init__(self, arch):
        super().__init__()
        self.lam = arch.simam_lambda if arch.simam else None
        affine = arch.variant == "photopen"  # nvlabs: no affine norm, no bias before it
        rows = arch.d_blocks()
        for n, (i, o, stride) in enumerate(rows):
            if n == 0:
                block = nn.Sequential(Conv(i, o, 4, arch, stride))
            elif n == len(rows) - 1:
                block = Conv(i, o, 4, arch, stride)
            else:
                conv = SNConv(i, o, 4, arch, stride, bias=affine)
                block = nn.Sequential(conv, _instance_norm(o, affine))
            self.add_sublayer(f"block_{n}", block)
        self.count = len(rows)
        self.activation = _activation(arch)

    def forward(self, x):
        outputs = []
        for n in range(self.count):
            x = getattr(self, f"block_{n}")(x)
            if n < self.count - 1:
                x = self.activation(x)
            if self.lam is not None:
                x = simam(x, self.lam)  # the logits too, as PaddleGAN
            outputs.append(x)
        return outputs


class Discriminator(nn.Layer):
    """D: map and image joined, (N, semantic_nc + 3, H, W) -> a list for each scale, largest first.

    The list holds the output of each block of the scale. Scale i sees its input pooled i times
    (average of 3x3, stride 2, padding not counted).
    """

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        for i in range(arch.num_D):  # PaddleGAN's keys number a scale twice
            self.add_sublayer(f"nld_{i}", nn.LayerDict({str(i): PatchDiscriminator(arch)}))

    def forward(self, x):
        scales = []
        for i in range(self.arch.num_D):
            if i > 0:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, exclusive=True)
            scales.append(getattr(self, f"nld_{i}")[str(i)](x))
        return scales


class Encoder(nn.Layer):
    """E of the VAE: photos (N, 3, H, W), resized to 256x256 -> mu, logvar, (N, z_dim) each.

    Six 3x3 convolutions of stride 2 with spectral and instance norm, ch = nef: ch, 2 ch, 4 ch, 8
    ch, 8 ch, 8 ch. Source: SPADE, appendix A.
    """

    def __init__(self, arch):
        super().__init__()
        affine = arch.variant == "photopen"
        i = 3
        for n, times in enumerate((1, 2, 4, 8, 8, 8), 1):
            o = arch.nef * times
            conv = SNConv(i, o, 3, arch, stride=2, bias=affine)
            self.add_sublayer(f"layer{n}", nn.Sequential(conv, _instance_norm(o, affine)))
            i = o
        self.activation = _activation(arch)
        self.fc_mu = _linear(i * 16, arch.z_dim, arch)
        self.fc_var = _linear(i * 16, arch.z_dim, arch)

    def forward(self, x):
        x = F.interpolate(x, size=[256, 256], mode="bilinear")
        for n in range(1, 7):
            x = self.activation(getattr(self, f"layer{n}")(x))  # sides 128, 64, 32, 16, 8, 4
        x = x.flatten(1)
        return self.fc_mu(x), self.fc_var(x)
