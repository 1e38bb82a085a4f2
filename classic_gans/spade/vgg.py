"""VGG19's features for SPADE's perceptual loss (Johnson et al., ECCV 2016), of any known file."""

import re

import paddle.nn.functional as F
from paddle import nn

import parts
from shared_metrics import fast, weights
from shared_metrics.errors import UserError

WIDTHS = (64, 128, 256, 512, 512)  # of the blocks; a 2x2 max-pool stands between
CONVS = (2, 2, 4, 4, 4)  # convolutions of each; of the last only the first is used
# Names of block b's convolution n in files: PaddleClas' and PaddleGAN's, PaddleCV's for SPADE.
PADDLE = re.compile(r"_?conv_block_(?P<b>\d)\._?conv_?(?P<n>\d)\.weight")
PADDLECV = re.compile(r"(vgg19_)?conv(?P<b>\d)_(?P<n>\d)_weights")
FEATURES = re.compile(
    r"features\.(?P<place>\d+)\.(?P<leaf>weight|bias)"
)  # paddle.vision's, torch's


class VGG19(nn.Layer):
    """Images (N, 3, H, W) in [-1, 1] -> [relu1_1, relu2_1, ..., relu5_1]. Never trained.

    ImageNet's mean is not subtracted, as in NVlabs' code. Args: bias, whether the convolutions have
    one.
    """

    def __init__(self, bias):
        super().__init__()
        i = 3
        for block, (o, number) in enumerate(zip(WIDTHS, CONVS, strict=True), 1):
            for n in range(1, 2 if block == 5 else number + 1):
                conv = fast.Conv2D(i, o, 3, padding=1, bias_attr=None if bias else False)
                self.add_sublayer(f"conv{block}_{n}", conv)
                i = o
        for parameter in self.parameters():
            parameter.stop_gradient = True

    def forward(self, x):
        features = []
        for name, conv in self.named_children():
            if name.endswith("_1") and features:
                x = F.max_pool2d(x, 2)
            x = F.relu(conv(x))
            if name.endswith("_1"):
                features.append(x)
        return features


def load_vgg(path):
    """VGG19 with the weights of a file of PaddleClas, PaddleGAN, PaddleCV, paddle.vision or
    torchvision, or of PaddleCV's folder with one raw file a variable.

    Raises: UserError naming what is missing or does not fit.
    """
    data = parts.contents(path)
    state = {}
    for key, value in data.items() if isinstance(data, dict) else ():
        name = our_name(str(key))
        if name:
            state[name] = value
    if not state:
        raise UserError(f"--vgg19_pretrain {path}: holds no convolutions of a known VGG19")
    vgg = VGG19(bias="conv1_1.bias" in state)
    used = vgg.state_dict()
    state = {name: value for name, value in state.items() if name in used}
    weights.load_into(vgg, state, "VGG19", f"--vgg19_pretrain {path}")
    return vgg


def our_name(key):
    """conv3_1.weight for any file's name of it; None for what is no convolution."""
    if match := PADDLE.fullmatch(key) or PADDLECV.fullmatch(key):
        return f"conv{match['b']}_{match['n']}.weight"
    match = FEATURES.fullmatch(key)
    if match is None:
        return None
    place = int(match["place"])
    for block, number in enumerate(CONVS, 1):
        if place < 2 * number:  # a convolution and its ReLU take two places, a max-pool one
            return f"conv{block}_{place // 2 + 1}.{match['leaf']}"
        place -= 2 * number + 1
    return None
