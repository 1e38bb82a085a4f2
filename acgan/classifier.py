"""Classifiers that say which class an image shows: a small one trained here, and ImageNet's of
paddle.vision.
"""

from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from PIL import Image

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint

FORMAT = 1
IMAGENET = 1000  # classes, in the order of their sorted folder names
IMAGENET_MEAN, IMAGENET_STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of RGB in [0, 1], paddle.vision's
IMAGENET_SIDES = {
    "inception_v3": 299,
    "mobilenet_v2": 224,
    "resnet18": 224,
    "resnet34": 224,
    "resnet50": 224,
}
IMAGENET_SIDES |= {"resnet101": 224, "resnet152": 224, "vgg16": 224}


class SmallClassifier(nn.Layer):
    """Images (N, 3, imsize, imsize) -> logits (N, num_classes): pairs of 3x3 convolutions, BN,
    ReLU, down to 4x4 px.

    Args: imsize, a power of two from 8 on; width, channels at 16 px: half as many at twice the
        side, and so on.
    """

    def __init__(self, imsize, num_classes, width=32):
        super().__init__()
        if imsize < 8 or imsize & (imsize - 1):
            raise UserError(
                f"--imsize {imsize}: the classifier takes a power of two from 8 on, such as 32 or "
                "64"
            )
        layers, inside, side = [], 3, imsize
        while side > 4:
            side //= 2
            outside = max(8, width * 16 // side)
            layers += [*_convolution(inside, outside, 2), *_convolution(outside, outside, 1)]
            inside = outside
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(inside, num_classes)

    def forward(self, x):
        return self.fc(self.dropout(self.features(x).mean([2, 3])))


def _convolution(inside, outside, stride):
    return (
        nn.Conv2D(inside, outside, 3, stride, 1, bias_attr=False),
        nn.BatchNorm2D(outside),
        nn.ReLU(),
    )


class Classifier:
    """A trained network with what it takes to ask it.

    Attributes: network; imsize, the side it looks at; mean, std (3,) of RGB in [0, 1]; classes,
        their names, or [] for ImageNet's; num_classes; info, what a record tells of it.
    """

    def __init__(self, network, imsize, mean, std, num_classes, classes, info):
        self.network, self.imsize, self.num_classes, self.classes, self.info = (
            network,
            imsize,
            num_classes,
            classes,
            info,
        )
        self.mean, self.std = mean, std
        network.eval()

    def predict(self, images, side=None):
        """The most probable class (N,) int64 of uint8 images (N, H, W, 3).

        `side`: bring them to that many pixels first, the paper's loss of resolution (sec. 4.1). All
        resizing is bilinear, by Pillow.
        """
        if side is not None:
            images = resized(images, side)
        x = resized(images, self.imsize).transpose(0, 3, 1, 2).astype(np.float32) / 255.0
        with paddle.no_grad():
            return self.network(normalized(x, self.mean, self.std)).argmax(axis=1).numpy()


def normalized(x, mean, std):
    """Tensor (x - mean) / std of images (N, 3, H, W) float32 in [0, 1]; mean, std: of each channel
    (3,).
    """
    mean, std = (np.asarray(v, np.float32).reshape(1, 3, 1, 1) for v in (mean, std))
    return paddle.to_tensor((x - mean) / std)


def resized(images, side):
    """uint8 images (N, H, W, 3) -> (N, side, side, 3), bilinear; the same array when they have that
    side already.
    """
    if images.shape[1:3] == (side, side):
        return images
    return np.stack(
        [
            np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling.BILINEAR))
            for i in images
        ]
    )


def save_small(path, network, imsize, width, classes, mean, std, accuracy, args):
    """Write what `load_classifier` reads; `accuracy`: the share of held-out images that the network
    knows.
    """
    state = {
        "classifier": checkpoint.network_state(network),
        "imsize": imsize,
        "width": width,
        "classes": list(classes),
        "mean": [float(v) for v in mean],
        "std": [float(v) for v in std],
        "accuracy": float(accuracy),
        "args": args,
        "format": FORMAT,
    }
    weights.save({**state, "sha256": files.digest(state)}, path)


def load_classifier(path, model=""):
    """`Classifier` from a file of train_classifier.py, or from ImageNet weights for
    paddle.vision.models.`model`.

    Raises: UserError naming the file when it is damaged, of another kind, or does not fit the
        network.
    """
    if model and model not in IMAGENET_SIDES:
        raise UserError(
            f"--classifier_model {model}: unknown here; one of {', '.join(IMAGENET_SIDES)}"
        )
    state = weights.load(path)
    info = {"file": Path(path).name, "sha256": files.file_sha256(path)}
    if model:
        network = getattr(paddle.vision.models, model)(pretrained=False)
        weights.load_into(network, state, f"classifier {model}", path)
        info |= {"model": model, "classes": IMAGENET}
        return Classifier(
            network, IMAGENET_SIDES[model], IMAGENET_MEAN, IMAGENET_STD, IMAGENET, [], info
        )
    if not isinstance(state, dict) or "classifier" not in state:
        raise UserError(
            f"--classifier {path}: not a file of train_classifier.py; for ImageNet weights of "
            "paddle.vision name their "
            f"network by --classifier_model, one of {', '.join(IMAGENET_SIDES)}"
        )
    state = checkpoint.verified(state, path)
    network = SmallClassifier(state["imsize"], len(state["classes"]), state["width"])
    weights.load_into(network, state["classifier"], "classifier", path)
    info |= {
        "model": "train_classifier.py",
        "classes": len(state["classes"]),
        "held_out_accuracy": state["accuracy"],
    }
    return Classifier(
        network,
        state["imsize"],
        state["mean"],
        state["std"],
        len(state["classes"]),
        state["classes"],
        info,
    )
