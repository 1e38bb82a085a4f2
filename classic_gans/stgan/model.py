"""The networks of STGAN (Liu et al., CVPR 2019), as its authors' TensorFlow code builds them.

Images are (N, 3, S, S) float32 in [-1, 1]. G is told the difference of the attributes, target less
source, (N, c_dim) float32: with `thres_int` 0.5 an entry is -1, 0 or 1, and 0 keeps the attribute.
"""

from dataclasses import dataclass
from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Constant, XavierUniform

from shared_metrics import fast
from shared_metrics.errors import UserError
from shared_metrics.published import Count, Depth, PlainFields

MAX_DIM = 1024  # no layer is wider


@dataclass(frozen=True)
class Architecture(PlainFields):
    """All that fixes both networks; kept in checkpoints.

    Properties: g_widths, d_widths, channels after each convolution of the encoder and of D.
    Raises: UserError for an image size or a number of skips that n_layers does not allow.
    """

    image_size: int = 128
    c_dim: int = 13  # attributes
    g_base_dims: int = 64  # width of the encoder's first and the decoder's last layer but one
    d_base_dims: int = 64
    d_fc_dim: int = 1024  # hidden width of D's two heads
    n_layers: Depth = 5  # layers of encoder, decoder and D's trunk
    shortcut_layers: Count = 4  # stages of the decoder that get a skip of their side
    inject_layers: Count = 4  # stages of the decoder that get the difference again
    use_gru: bool = True  # selective transfer units in the skips
    gru_n_layers: Count = (
        4  # skips with a unit, the deepest ones; the others are the encoder's features
    )
    pass_state: Literal["stu", "gru", "direct"] = "stu"  # what a unit hands on, see STU
    dis_norm: Literal["instance_norm", "none"] = "instance_norm"  # of D's trunk; none: biases
    slope: float = 0.2  # of LeakyReLU in encoder and trunk
    fc_slope: float = 0.2  # of LeakyReLU in D's heads
    bn_eps: float = 1e-3  # TensorFlow slim's (PaddleCV: 1e-5)
    bn_momentum: float = 0.999  # share of the running statistics that is kept (PaddleCV: 0.9)

    def __post_init__(self):
        # Instance norm of a 1x1 map is 0 whatever the image.
        step = 2**self.n_layers * (2 if self.dis_norm == "instance_norm" else 1)
        if self.image_size % 2**self.n_layers or self.image_size < step:
            raise UserError(
                f"--image_size {self.image_size}: {self.n_layers} layers (--n_layers) halve "
                f"multiples of {2**self.n_layers} from {step} on only"
            )
        for name in ("shortcut_layers", "inject_layers"):
            if not 0 <= getattr(self, name) < self.n_layers:
                raise UserError(
                    f"--{name} {getattr(self, name)}: {self.n_layers} layers allow 0 to "
                    f"{self.n_layers - 1}"
                )
        if self.use_gru and not 1 <= self.gru_n_layers <= self.shortcut_layers:
            raise UserError(
                f"--gru_n_layers {self.gru_n_layers}: must lie between 1 and the number of skips, "
                f"{self.shortcut_layers}"
            )

    @property
    def g_widths(self):
        return [min(self.g_base_dims * 2**i, MAX_DIM) for i in range(self.n_layers)]

    @property
    def d_widths(self):
        return [min(self.d_base_dims * 2**i, MAX_DIM) for i in range(self.n_layers)]

    def unit_rows(self):
        """Rows of the units' table, the deepest first: [(channels of the state, channels out)]."""
        widths = self.g_widths[::-1]
        units = self.gru_n_layers if self.use_gru else 0
        return [(widths[i] + self.c_dim, widths[i + 1]) for i in range(units)]

    def decoder_rows(self):
        """Rows of the decoder's table: [(channels in, channels out)]."""
        widths = self.g_widths
        rows = [(widths[-1] + self.c_dim, widths[-1])]
        for i in range(1, self.n_layers):
            skip = widths[-1 - i] if i <= self.shortcut_layers else 0
            attributes = self.c_dim if i <= self.inject_layers else 0
            last = i == self.n_layers - 1
            rows.append((rows[-1][1] + skip + attributes, 3 if last else widths[-1 - i]))
        return rows


# TensorFlow's Xavier (Glorot) uniform and biases of 0, as the authors'; Paddle's own differ.
def conv(i, o, bias, k=4, stride=2):
    """(N, i, H, W) -> (N, o, H/2, W/2), or (N, o, H, W) with k 3 and stride 1."""
    bias_attr = zero() if bias else False
    return fast.Conv2D(i, o, k, stride, 1, weight_attr=xavier(), bias_attr=bias_attr)


def deconv(i, o, bias):
    """4x4, doubles the side: (N, i, H, W) -> (N, o, 2H, 2W)."""
    attr = {"weight_attr": xavier(), "bias_attr": zero() if bias else False}
    return fast.Conv2DTranspose(i, o, 4, 2, 1, **attr)


def linear(i, o):
    return nn.Linear(i, o, weight_attr=xavier(), bias_attr=zero())


def xavier():
    return paddle.ParamAttr(initializer=XavierUniform())


def zero():
    return paddle.ParamAttr(initializer=Constant(0.0))


def with_attributes(z, a):
    """Features (N, C, H, W) and attributes (N, c) as planes -> (N, C + c, H, W)."""
    _, _, H, W = z.shape
    return paddle.concat([z, a.unsqueeze([2, 3]).expand([-1, -1, H, W])], 1)


class Block(nn.Layer):
    """A layer, its norm and its activation where it has them."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


class STU(nn.Layer):
    """Selective transfer unit (sec. 3.2): what of the encoder's features f passes to the decoder.

    f (N, d, H, W) and the deeper unit's state with the difference (N, i, H/2, W/2) -> the features
    that the decoder gets and the state that the next unit gets, (N, d, H, W) each.
    """

    def __init__(self, i, d, pass_state):
        super().__init__()
        self.pass_state = pass_state
        self.deconv2d = deconv(i, d, bias=True)
        self.reset_gate = conv(2 * d, d, bias=True, k=3, stride=1)
        self.update_gate = conv(2 * d, d, bias=True, k=3, stride=1)
        self.info = conv(2 * d, d, bias=True, k=3, stride=1)

    def forward(self, f, state):
        s_hat = self.deconv2d(state)  # (N, d, H, W)
        both = paddle.concat([f, s_hat], 1)  # (N, 2 d, H, W)
        r = F.sigmoid(self.reset_gate(both))
        z = F.sigmoid(self.update_gate(both))
        s = r * s_hat
        f_hat = F.tanh(self.info(paddle.concat([f, s], 1)))
        output = (1.0 - z) * s_hat + z * f_hat
        return output, {"stu": s, "gru": output, "direct": s_hat}[self.pass_state]


class Generator(nn.Layer):
    """G: image x and difference of the attributes -> image (N, 3, S, S) in [-1, 1].

    At 128 px with n = 64; the decoder's stages also get the difference, as the units' states do:
    encoder z1 (N,    n, 64, 64)   units t4 (N, 8 n,  8,  8)   decoder [z5]     (N, 16 n,   8,   8)
            z2 (N,  2 n, 32, 32)         t3 (N, 4 n, 16, 16)           [.., t4] (N,  8 n,  16,  16)
            z3 (N,  4 n, 16, 16)         t2 (N, 2 n, 32, 32)           [.., t3] (N,  4 n,  32,  32)
            z4 (N,  8 n,  8,  8)         t1 (N,   n, 64, 64)           [.., t2] (N,  2 n,  64,  64)
            z5 (N, 16 n,  4,  4)                                       [.., t1] (N,    3, 128, 128)
    """

    def __init__(self, arch):
        super().__init__()
        self.shortcut_layers = arch.shortcut_layers
        self.inject_layers = arch.inject_layers

        def norm(channels):
            return nn.BatchNorm2D(channels, arch.bn_momentum, arch.bn_eps)

        self.enc_layers = nn.LayerList()
        for i, o in zip([3, *arch.g_widths], arch.g_widths, strict=False):
            block = Block(conv(i, o, bias=False), norm(o), nn.LeakyReLU(arch.slope))
            self.enc_layers.append(block)  # (N, o, H/2, W/2)
        self.stu = nn.LayerList()
        for i, d in arch.unit_rows():
            self.stu.append(STU(i, d, arch.pass_state))  # (N, d, 2H, 2W)
        *rows, (i_last, _) = arch.decoder_rows()
        self.dec_layers = nn.LayerList()
        for i, o in rows:
            self.dec_layers.append(Block(deconv(i, o, bias=False), norm(o), nn.ReLU()))
        self.dec_layers.append(Block(deconv(i_last, 3, bias=True), nn.Tanh()))  # (N, 3, S, S)

    def encode(self, x):
        """The encoder's features z1 ... z5, the deepest last."""
        features = []
        for layer in self.enc_layers:
            x = layer(x)
            features.append(x)
        return features

    def transfer(self, features, diff):
        """The same with the units' outputs in place of the features they select from; the deepest
        stays as it is.
        """
        features = list(features)
        state = features[-1]
        for n, unit in enumerate(self.stu):
            i = -2 - n
            features[i], state = unit(features[i], with_attributes(state, diff))
        return features

    def decode(self, features, diff):
        """The image that the features become with this difference (N, c_dim)."""
        z = with_attributes(features[-1], diff)
        for i, layer in enumerate(self.dec_layers):
            z = layer(z)
            if i < self.shortcut_layers:
                z = paddle.concat([z, features[-2 - i]], 1)
            if i < self.inject_layers:
                z = with_attributes(z, diff)
        return z

    def forward(self, x, diff):
        return self.decode(self.transfer(self.encode(x), diff), diff)


class Discriminator(nn.Layer):
    """D and C: image (N, 3, S, S) -> real or fake (N, 1), logits (N, c_dim) of the attributes.

    One trunk `conv` as deep as the encoder, two heads of two linear layers.
    """

    def __init__(self, arch):
        super().__init__()
        normed = arch.dis_norm == "instance_norm"
        self.conv = nn.Sequential()
        for n, (i, o) in enumerate(zip([3, *arch.d_widths], arch.d_widths, strict=False)):
            norm = [nn.InstanceNorm2D(o)] if normed else []
            block = Block(conv(i, o, bias=not normed), *norm, nn.LeakyReLU(arch.slope))
            self.conv.add_sublayer(str(n), block)  # (N, o, H/2, W/2)
        flat = o * (arch.image_size // 2**arch.n_layers) ** 2
        self.fc_adv = head(flat, arch.d_fc_dim, 1, arch.fc_slope)
        self.fc_cls = head(flat, arch.d_fc_dim, arch.c_dim, arch.fc_slope)

    def forward(self, x):
        h = self.conv(x)
        # Not `flatten`, which Paddle differentiates once only: the gradient penalty needs it twice.
        h = h.reshape([x.shape[0], -1])
        return self.fc_adv(h), self.fc_cls(h)


def head(flat, hidden, outputs, slope):
    """Features (N, flat) -> (N, outputs)."""
    return nn.Sequential(
        Block(linear(flat, hidden), nn.LeakyReLU(slope)), Block(linear(hidden, outputs))
    )
