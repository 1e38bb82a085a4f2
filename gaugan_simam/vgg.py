"""VGG19's features for the perceptual loss (Johnson et al., ECCV 2016; SPADE sec. 3, taken over
from pix2pixHD).
"""

import re

import paddle
import paddle.nn.functional as F
from paddle import nn

from model import resize_nearest
from shared_metrics import fast, weights
from shared_metrics.errors import UserError

CONVS = (2, 2, 4, 4, 4)  # of each block; a 2x2 max-pool follows each
WIDTHS = (64, 128, 256, 512, 512)
RATES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # weight of each feature, the shallowest first
HEAD = re.compile(r"(_fc\d|_out|classifier\.\d)\.(weight|bias)")  # fully connected: not used


class VGG19(nn.Layer):
    """Images (N, 3, H, W) -> the five features of the perceptual loss of `variant`, as a list.

    photopen: the image itself and what comes out of the first four max-pools. nvlabs: relu1_1,
    relu2_1, ..., relu5_1. What is deeper is not built. Neither subtracts ImageNet's mean: VGG sees
    [-1, 1].

    Args: bias, whether the convolutions have one; widths, channels of the five blocks.
    """

    def __init__(self, variant, bias=True, widths=WIDTHS):
        super().__init__()
        self.variant = variant
        self.convs = (*CONVS[:4], 0 if variant == "photopen" else 1)
        i = 3
        for block, (number, o) in enumerate(zip(self.convs, widths, strict=True), 1):
            for n in range(1, number + 1):
                conv = fast.Conv2D(i, o, 3, padding=1, bias_attr=None if bias else False)
                self.add_sublayer(f"conv{block}_{n}", conv)
                i = o
        for p in self.parameters():
            p.stop_gradient = True
        self.eval()

    def forward(self, x):
        features = [x] if self.variant == "photopen" else []
        for block, number in enumerate(self.convs, 1):
            for n in range(1, number + 1):
                x = F.relu(getattr(self, f"conv{block}_{n}")(x))
                if n == 1 and self.variant == "nvlabs":
                    features.append(x)
            if len(features) < len(RATES):
                x = F.max_pool2d(x, 2)
                if self.variant == "photopen":
                    features.append(x)
        return features


def perceptual_loss(vgg, fake, real, size=0):
    """sum_i RATES[i] mean|F_i(fake) - F_i(real)|, F_i the features of `vgg`.

    No gradient reaches real.

    Args: fake, real (N, 3, H, W); size, side to which both are resized before (nearest neighbour),
        0: their own.
    """
    real = real.detach()
    if size:
        fake = resize_nearest(fake, size, size)
        real = resize_nearest(real, size, size)
    with paddle.no_grad():
        real_features = vgg(real)
    loss = 0.0
    for rate, f, r in zip(RATES, vgg(fake), real_features, strict=True):
        loss += rate * (f.astype("float32") - r.astype("float32")).abs().mean()
    return loss


def load_vgg(path, variant, widths=WIDTHS):
    """VGG19(variant) with the weights of a file, recognised by its keys.

    Known are PaddleGAN's vgg19pretrain.pdparams (`_conv_block_1._conv_1.weight`, no biases), and
    paddle.vision's and torchvision's vgg19 (`features.0.weight`, `.bias`). Raises: UserError naming
    keys and shapes that do not fit.
    """
    data = weights.load(path)
    if not isinstance(data, dict):
        raise UserError(f"--vgg_weights {path}: holds no named weights; give those of a VGG19")
    paddlegan = any(str(key).startswith("_conv_block_1.") for key in data)
    vgg = VGG19(variant, bias=not paddlegan, widths=widths)
    names = _names(paddlegan)
    deeper = set(names.values()) - set(vgg.state_dict())  # than the loss looks
    state = {}
    for key, value in data.items():
        name = names.get(key, key)
        if name not in deeper and not HEAD.fullmatch(str(key)):
            state[name] = value
    weights.load_into(vgg, state, f"{variant} perceptual loss's VGG19", f"--vgg_weights {path}")
    return vgg


def _names(paddlegan):
    """{key in the file: our name} of all convolutions, in PaddleGAN's layout or torchvision's."""
    names = {}
    place = 0
    for block, number in enumerate(CONVS, 1):
        for n in range(1, number + 1):
            ours = f"conv{block}_{n}"
            if paddlegan:
                names[f"_conv_block_{block}._conv_{n}.weight"] = f"{ours}.weight"
            else:
                names[f"features.{place}.weight"] = f"{ours}.weight"
                names[f"features.{place}.bias"] = f"{ours}.bias"
            place += 2  # the ReLU
        place += 1  # the max-pool
    return names
