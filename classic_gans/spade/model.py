"""The networks of SPADE (Park et al., "Semantic Image Synthesis with Spatially-Adaptive
Normalization", CVPR 2019), as NVlabs' code behaves.

Attribute names are the keys of NVlabs' weights. Images are (N, 3, H, W) float32 in [-1, 1];
semantic maps are (N, semantic_nc, H, W) float32: one channel per label id, then the edge map
(`semantics` makes them).
"""

from dataclasses import dataclass
from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Normal

from shared_metrics import fast, process
from shared_metrics.errors import UserError
from shared_metrics.published import Count, Depth, PlainFields

UPSAMPLINGS = {"normal": 5, "more": 6, "most": 7}  # doublings between G's start and its image
SPADE_WIDTH = 128  # channels between the map and SPADE's gamma and beta
MAX_DIM = 512  # no layer of D is wider


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes the networks; kept in checkpoints.

    Properties: nc, one-hot channels; semantic_nc, channels of the semantic map; start, (height,
        width) of G's first features.
    Raises: UserError for an image size that G's doublings do not make.
    """

    label_nc: int = 182  # label ids 0 ... label_nc - 1
    contain_dontcare_label: bool = True  # id label_nc stands for unknown
    no_instance: bool = False  # True: no edge map
    crop_width: int = 256  # of G's images
    crop_height: int = 256
    num_upsampling_layers: Literal["normal", "more", "most"] = "normal"  # see UPSAMPLINGS
    ngf: int = 64  # base width of G; its blocks have 16, 8, 4, 2, 1 times that
    ndf: int = 64  # base width of D
    num_D: Depth = 2  # scales of D, each half as large
    d_nlayers: Depth = 4  # convolutions of each scale before its logits
    d_padding: Count = 2  # of D's 4x4 convolutions (PaddleCV: 1)
    use_vae: bool = False  # G starts from the encoder's latent instead of the map
    z_dim: int = 256
    nef: int = 64  # base width of the encoder

    def __post_init__(self):
        step = 2 ** UPSAMPLINGS[self.num_upsampling_layers]
        for name in ("crop_width", "crop_height"):
            size = getattr(self, name)
            if size % step:
                near = max(1, round(size / step)) * step
                raise UserError(
                    f"--{name} {size}: --num_upsampling_layers {self.num_upsampling_layers} makes "
                    f"multiples of {step}; take {near}"
                )

    @property
    def nc(self):
        return self.label_nc + self.contain_dontcare_label

    @property
    def semantic_nc(self):
        return self.nc + (not self.no_instance)

    @property
    def start(self):
        step = 2 ** UPSAMPLINGS[self.num_upsampling_layers]
        return self.crop_height // step, self.crop_width // step

    def g_blocks(self):
        """Rows of G's table: [(name, channels in, channels out, whether the side is doubled
        before)].
        """
        n = self.ngf
        rows = [
            ("head_0", 16 * n, 16 * n, False),
            ("G_middle_0", 16 * n, 16 * n, True),
            ("G_middle_1", 16 * n, 16 * n, self.num_upsampling_layers in ("more", "most")),
            ("up_0", 16 * n, 8 * n, True),
            ("up_1", 8 * n, 4 * n, True),
            ("up_2", 4 * n, 2 * n, True),
            ("up_3", 2 * n, n, True),
        ]
        return rows + ([("up_4", n, n // 2, True)] if self.num_upsampling_layers == "most" else [])

    def smallest_logits(self):
        """The short side of the logits of D's last scale; 0 or less where none are left."""
        side = min(self.crop_width, self.crop_height)
        for _ in range(self.num_D - 1):
            side = (side - 1) // 2 + 1
        for _, _, stride in self.d_blocks():
            side = (side + 2 * self.d_padding - 4) // stride + 1
        return side

    def d_blocks(self):
        """Rows of each scale of D, its logits last: [(channels in, channels out, stride)]."""
        widths = [min(self.ndf * 2**n, MAX_DIM) for n in range(self.d_nlayers)]
        inputs = [self.semantic_nc + 3, *widths]
        strides = ([2] * max(self.d_nlayers - 1, 1) + [1, 1])[: self.d_nlayers + 1]
        return list(zip(inputs, [*widths, 1], strides, strict=True))


# What the settings of the published networks change in the defaults, which are COCO-Stuff's;
# "pcv": the size and labels of PaddleCV's Cityscapes.
PRESETS = {
    "coco": {},
    "ade20k": {"label_nc": 150, "no_instance": True},
    "cityscapes": {"label_nc": 35, "contain_dontcare_label": False}
    | {"crop_width": 512, "crop_height": 256, "num_upsampling_layers": "more"},
    "pcv": {"label_nc": 36, "contain_dontcare_label": False}
    | {"crop_width": 1024, "crop_height": 512},
}


def semantics(labels, instances, arch):
    """The semantic map that G and D see: one-hot labels, then the edges of the instances.

    A pixel is on an edge where its id differs from any of its four neighbours'.
    Args: labels (N, H, W) integer tensor in [0, arch.nc): callers check them; instances, the same
        of any ids, or None with arch.no_instance.
    Returns: (N, arch.semantic_nc, H, W) float32.
    """
    channels = paddle.arange(arch.nc, dtype=labels.dtype).reshape([1, -1, 1, 1])
    one_hot = (labels.unsqueeze(1) == channels).astype("float32")  # (N, nc, H, W)
    if arch.no_instance:
        return one_hot
    N, H, W = instances.shape
    across = instances[:, :, 1:] != instances[:, :, :-1]  # (N, H, W - 1)
    down = instances[:, 1:] != instances[:, :-1]  # (N, H - 1, W)
    column = paddle.zeros([N, H, 1], "bool")
    row = paddle.zeros([N, 1, W], "bool")
    edge = paddle.concat([across, column], 2) | paddle.concat([column, across], 2)
    edge = edge | paddle.concat([down, row], 1) | paddle.concat([row, down], 1)
    return paddle.concat([one_hot, edge.unsqueeze(1).astype("float32")], 1)


def weight_attr(fan_in, fan_out):
    """Glorot's normal with gain 0.02, for every weight; biases start at 0."""
    return paddle.ParamAttr(initializer=Normal(0.0, 0.02 * (2.0 / (fan_in + fan_out)) ** 0.5))


def conv(i, o, k, stride=1, padding=None):
    """Convolution that keeps the side where nothing else is said."""
    padding = k // 2 if padding is None else padding
    attr = weight_attr(i * k * k, o * k * k)
    return fast.Conv2D(i, o, k, stride, padding, weight_attr=attr)


def linear(i, o):
    return nn.Linear(i, o, weight_attr=weight_attr(i, o))


def instance_norm(channels):
    return nn.InstanceNorm2D(channels, weight_attr=False, bias_attr=False)


def batch_norm(channels):
    """Batch norm without affine map, its statistics shared by all processes that have a GPU:
    Paddle's CPU has no such kernel.
    """
    shared = paddle.distributed.get_world_size() > 1 and paddle.device.get_device()[:3] == "gpu"
    if shared:
        norm = nn.SyncBatchNorm(channels, weight_attr=False, bias_attr=False)
        return process.constant_affine(norm)
    return nn.BatchNorm2D(channels, weight_attr=False, bias_attr=False)


def normalize(x):
    return x / paddle.linalg.norm(x).clip(min=1e-12)


class SNConv(nn.Layer):
    """Convolution by W / sigma(W), sigma the largest singular value of W as `out` rows (Miyato et
    al., ICLR 2018).

    `weight_orig` is the parameter; buffers `weight_u` and `weight_v` move by one power iteration at
    each training-mode forward, never in eval. Always float32, also under auto_cast.
    """

    def __init__(self, i, o, k, stride=1, padding=None, bias=True):
        super().__init__()
        self.stride = stride
        self.padding = k // 2 if padding is None else padding
        attr = weight_attr(i * k * k, o * k * k)
        self.weight_orig = self.create_parameter([o, i, k, k], attr=attr)
        self.bias = self.create_parameter([o], is_bias=True) if bias else None
        self.register_buffer("weight_u", normalize(paddle.randn([o])))
        self.register_buffer("weight_v", normalize(paddle.randn([i * k * k])))

    @paddle.no_grad()
    def power_iteration(self):
        W = self.weight_orig.reshape([self.weight_orig.shape[0], -1])  # (o, i k k)
        v = normalize(paddle.matmul(W, self.weight_u, transpose_x=True))
        u = normalize(paddle.matmul(W, v))
        paddle.assign(u, self.weight_u)
        paddle.assign(v, self.weight_v)
        return u, v  # not the buffers: the next forward may move those before this one's backward

    def weight(self):
        """W / sigma, sigma = u^T W v; the gradient goes through sigma, with u and v constant."""
        with fast.float32():
            u, v = self.power_iteration() if self.training else (self.weight_u, self.weight_v)
            W = self.weight_orig.reshape([self.weight_orig.shape[0], -1])
            return self.weight_orig / paddle.dot(u, paddle.matmul(W, v))

    def forward(self, x):
        return fast.conv2d(x, self.weight(), self.bias, self.stride, self.padding)


class SPADE(nn.Layer):
    """norm(x) (1 + gamma) + beta, gamma and beta of x's shape, convolved from the map of x's side
    (eq. 1).
    """

    def __init__(self, C, semantic_nc):
        super().__init__()
        self.param_free_norm = batch_norm(C)
        self.mlp_shared = nn.Sequential(conv(semantic_nc, SPADE_WIDTH, 3), nn.ReLU())
        self.mlp_gamma = conv(SPADE_WIDTH, C, 3)
        self.mlp_beta = conv(SPADE_WIDTH, C, 3)

    def forward(self, x, seg):
        h = self.mlp_shared(seg)  # (N, 128, H, W)
        # One convolution for gamma and beta is faster than two.
        weight = paddle.concat([self.mlp_gamma.weight, self.mlp_beta.weight])
        bias = paddle.concat([self.mlp_gamma.bias, self.mlp_beta.bias])
        gamma, beta = fast.conv2d(h, weight, bias, padding=1).chunk(2, 1)  # (N, C, H, W) each
        return self.param_free_norm(x) * (1.0 + gamma) + beta


class SPADEResBlock(nn.Layer):
    """Residual block of G: (N, i, H, W) and the map of that side -> (N, o, H, W) (fig. 4)."""

    def __init__(self, i, o, semantic_nc):
        super().__init__()
        middle = min(i, o)
        self.norm_0 = SPADE(i, semantic_nc)
        self.conv_0 = SNConv(i, middle, 3)
        self.norm_1 = SPADE(middle, semantic_nc)
        self.conv_1 = SNConv(middle, o, 3)
        self.norm_s = SPADE(i, semantic_nc) if i != o else None
        self.conv_s = SNConv(i, o, 1, bias=False) if i != o else None

    def forward(self, x, seg):
        h = self.conv_0(F.leaky_relu(self.norm_0(x, seg), 0.2))  # (N, min(i, o), H, W)
        h = self.conv_1(F.leaky_relu(self.norm_1(h, seg), 0.2))  # (N, o, H, W)
        skip = x if self.norm_s is None else self.conv_s(self.norm_s(x, seg))
        return h + skip


def resize_nearest(seg, H, W):
    """(N, C, h, w) -> (N, C, H, W), pixel (i, j) from (floor(i h / H), floor(j w / W))."""
    h, w = seg.shape[2:]
    if h % H == 0 and w % W == 0:
        return seg if (h, w) == (H, W) else seg[:, :, :: h // H, :: w // W]
    return F.interpolate(seg, size=[H, W], mode="nearest")


class Generator(nn.Layer):
    """G: semantic map (N, semantic_nc, H, W) -> images (N, 3, crop_height, crop_width) in [-1, 1].
    At 256 px, n = ngf, "normal":

    fc          (N, 16 n,   8,   8)      up_0    (N, 8 n,  32,  32)
    head_0      (N, 16 n,   8,   8)      up_1    (N, 4 n,  64,  64)
    G_middle_0  (N, 16 n,  16,  16)      up_2    (N, 2 n, 128, 128)
    G_middle_1  (N, 16 n,  16,  16)      up_3    (N,   n, 256, 256), LeakyReLU, conv_img, tanh
    """

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        self.width = 16 * arch.ngf
        if arch.use_vae:
            H, W = arch.start
            self.fc = linear(arch.z_dim, self.width * H * W)
        else:
            self.fc = conv(arch.semantic_nc, self.width, 3)
        for name, i, o, _ in arch.g_blocks():
            self.add_sublayer(name, SPADEResBlock(i, o, arch.semantic_nc))
        self.conv_img = conv(o, 3, 3)

    def forward(self, seg, z=None):
        """Args: seg, of any side (it is resized to each block's); z (N, z_dim), with use_vae."""
        H, W = self.arch.start
        here = resize_nearest(seg, H, W)  # one map serves all SPADE layers of its side
        x = self.fc(z).reshape([-1, self.width, H, W]) if self.arch.use_vae else self.fc(here)
        for name, _, _, doubled in self.arch.g_blocks():
            if doubled:
                H = 2 * H
                W = 2 * W
                x = fast.upsample(x)
                here = resize_nearest(seg, H, W)
            x = getattr(self, name)(x, here)
        return F.tanh(self.conv_img(F.leaky_relu(x, 0.2)))


class PatchDiscriminator(nn.Layer):
    """One scale of D: (N, semantic_nc + 3, H, W) -> the outputs of its layers, the logits
    (N, 1, h, w) last.

    4x4 convolutions: of stride 2, the last two of 1; the first and the last have neither spectral
    nor instance norm.
    """

    def __init__(self, arch):
        super().__init__()
        rows = arch.d_blocks()
        self.names = [f"model{n}" for n in range(len(rows))]
        for n, (i, o, stride) in enumerate(rows):
            if n in (0, len(rows) - 1):
                layers = [conv(i, o, 4, stride, arch.d_padding)]
            else:
                convolution = SNConv(i, o, 4, stride, arch.d_padding, bias=False)
                layers = [nn.Sequential(convolution, instance_norm(o))]
            if n < len(rows) - 1:
                layers.append(nn.LeakyReLU(0.2))
            self.add_sublayer(f"model{n}", nn.Sequential(*layers))

    def forward(self, x):
        outputs = []
        for name in self.names:
            x = getattr(self, name)(x)
            outputs.append(x)
        return outputs


class Discriminator(nn.Layer):
    """D: map and image joined, (N, semantic_nc + 3, H, W) -> [[output of each layer] of each
    scale], largest first.

    Scale i sees its input pooled i times (average of 3x3, stride 2, padding not counted).
    """

    def __init__(self, arch):
        super().__init__()
        self.num_D = arch.num_D
        for i in range(arch.num_D):
            self.add_sublayer(f"discriminator_{i}", PatchDiscriminator(arch))

    def forward(self, x):
        outputs = []
        for i in range(self.num_D):
            if i:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, exclusive=True)
            outputs.append(getattr(self, f"discriminator_{i}")(x))
        return outputs


class Encoder(nn.Layer):
    """E of the VAE: photos (N, 3, H, W), resized to 256x256 -> mu, logvar, (N, z_dim) each
    (appendix A).

    Six 3x3 convolutions of stride 2 with spectral and instance norm, n = nef: n, 2 n, 4 n, 8 n,
    8 n, 8 n.
    """

    def __init__(self, arch):
        super().__init__()
        i = 3
        for n, times in enumerate((1, 2, 4, 8, 8, 8), 1):
            o = arch.nef * times
            convolution = SNConv(i, o, 3, stride=2, bias=False)
            self.add_sublayer(f"layer{n}", nn.Sequential(convolution, instance_norm(o)))
            i = o
        self.fc_mu = linear(i * 4 * 4, arch.z_dim)
        self.fc_var = linear(i * 4 * 4, arch.z_dim)

    def forward(self, x):
        x = F.interpolate(x, size=[256, 256], mode="bilinear")
        for n in range(1, 7):
            x = F.leaky_relu(getattr(self, f"layer{n}")(x), 0.2)  # side 128, 64, 32, 16, 8, 4
        x = x.flatten(1)
        return self.fc_mu(x), self.fc_var(x)
