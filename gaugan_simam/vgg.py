"""VGG19's features for the perceptual loss (Johnson et al., ECCV 2016; SPADE sec. 3, taken over
from pix2pixHD).
"""

import re

import paddle
import paddle.nn.functional as F
from paddle import nn

from model import resize_nearest
from shared_metrics import weights
from shared_metrics.errors import UserError

CONVS = (2, 2, 4, 4, 4)  # of each block; a 2x2 max-pool follows each
WIDTHS = (64, 128, 256, 512, 512)
RATES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # weight of each feature, the shallowest first


class VGG19(nn.Layer):
    """The features of images (N, 3, H, W), a list of five, of the perceptual loss of `variant`; the
    rest is left out.

    photopen: the image itself and what comes out of the first four max-pools. nvlabs: relu1_1,
        relu2_1, ..., relu5_1.
    Neither subtracts ImageNet's mean: VGG sees [-1, 1]. Args: bias, whether the convolutions have
    one; widths, channels of the five blocks.
    """

    def __init__(self, variant, bias=True, widths=WIDTHS):
        super().__init__()
        self.variant, i = variant, 3
        self.convs = (*CONVS[:4], 0) if variant == "photopen" else (*CONVS[:4], 1)
        for block, (number, o) in enumerate(zip(self.convs, widths, strict=True), 1):
            for n in range(1, number + 1):
                conv = nn.Conv2D(i, o, 3, padding=1, bias_attr=None if bias else False)
                self.add_sublayer(f"conv{block}_{n}", conv)
                i = o
        for p in self.parameters():
            p.stop_gradient = True
        self.eval()

    def forward(self, x):
        found = [x] if self.variant == "photopen" else []
        for block, number in enumerate(self.convs, 1):
            for n in range(1, number + 1):
                x = F.relu(getattr(self, f"conv{block}_{n}")(x))
                if n == 1 and self.variant == "nvlabs":
                    found.append(x)
            if len(found) < len(RATES):
                x = F.max_pool2d(x, 2)
                if self.variant == "photopen":
                    found.append(x)
        return found


def perceptual_loss(vgg, fake, real, size=0):
    """sum_i RATES[i] mean|F_i(fake) - F_i(real)|, F_i the features of `vgg`; no gradient reaches real.

    Args: fake, real (N, 3, H, W); size, side to which both are resized before (nearest neighbour),
        0: their own.
    """
    real = real.detach()
    if size:
        fake, real = resize_nearest(fake, size, size), resize_nearest(real, size, size)
    with paddle.no_grad():
        wanted = vgg(real)
    pairs = zip(vgg(fake), wanted, RATES, strict=True)
    return sum(
        rate * (f.astype("float32") - r.astype("float32")).abs().mean() for f, r, rate in pairs
    )


def load_vgg(path, variant, widths=WIDTHS):
    """VGG19(variant) with the weights of a file, recognised by its keys; its fully connected layers
    are not used.

    Known are PaddleGAN's vgg19pretrain.pdparams (`_conv_block_1._conv_1.weight`, no biases), and
    paddle.vision's and torchvision's vgg19 (`features.0.weight`, `.bias`). Raises: UserError naming
    keys and shapes that do not fit.
    """
    data = weights.load(path)
    if not isinstance(data, dict):
        raise UserError(f"--vgg_weights {path}: holds no named weights; give those of a VGG19")
    plain = any(str(key).startswith("_conv_block_1.") for key in data)
    names = _names(plain)
    known = re.compile(r"StructuredToParameterName@@|(_fc\d|_out|classifier\.\d)\.(weight|bias)")
    state = {
        names.get(key, key): value for key, value in data.items() if not known.fullmatch(str(key))
    }
    vgg = VGG19(variant, bias=not plain, widths=widths)
    unused = set(names.values()) - set(vgg.state_dict())  # deeper than the loss looks
    state = {name: value for name, value in state.items() if name not in unused}
    weights.load_into(vgg, state, f"{variant} perceptual loss's VGG19", f"--vgg_weights {path}")
    return vgg


def _names(plain):
    """{key in the file: our name} of all convolutions, in PaddleGAN's layout (plain: no biases) or
    torchvision's.
    """
    names, place = {}, 0
    for block, number in enumerate(CONVS, 1):
        for n in range(1, number + 1):
            key = f"_conv_block_{block}._conv_{n}" if plain else f"features.{place}"
            for part in ("weight",) if plain else ("weight", "bias"):
                names[f"{key}.{part}"] = f"conv{block}_{n}.{part}"
            place += 2  # the ReLU
        place += 1  # the max-pool
    return names
