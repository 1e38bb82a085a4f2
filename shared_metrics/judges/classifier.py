"""Classifiers that say which class an image shows: a small one trained here, ImageNet's of
paddle.vision, and EfficientNet-Lite0.
"""

from functools import partial
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from shared_metrics import efficientnet, weights
from shared_metrics.class_folders import choose, class_files, class_names, refuse_others
from shared_metrics.errors import UserError
from shared_metrics.features import EfficientNet
from shared_metrics.images import middle_square
from shared_metrics.inference import Runner, run_layer
from shared_metrics.judges import training
from shared_metrics.judges.pictures import Pictures, in_order, normalized, resized

IMAGENET = 1000  # classes, in the order of their sorted folder names
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], paddle.vision's
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_SIDES = {
    "inception_v3": 299,
    **dict.fromkeys(("mobilenet_v2", "vgg16"), 224),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), 224),
}


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
        layers = []
        inside = 3
        side = imsize
        while side > 4:
            side //= 2
            outside = max(8, width * 16 // side)
            layers += convolutions(inside, outside, stride=2)  # (N, outside, side, side)
            inside = outside
        self.features = nn.Sequential(*layers)  # (N, 4 width, 4, 4)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(inside, num_classes)

    def forward(self, x):
        # The mean by pooling: of Tensor.mean Paddle prints lines when a program is made.
        pooled = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return self.fc(self.dropout(pooled))


def convolutions(inside, outside, stride=1):
    """Two 3x3 convolutions, each with BN and ReLU, the first with `stride`: a list of layers."""
    return [
        nn.Conv2D(inside, outside, 3, stride, padding=1, bias_attr=False),
        nn.BatchNorm2D(outside),
        nn.ReLU(),
        nn.Conv2D(outside, outside, 3, padding=1, bias_attr=False),
        nn.BatchNorm2D(outside),
        nn.ReLU(),
    ]


class Classifier:
    """A network with what it takes to train it and to ask it.

    Attributes: network; imsize, the side it looks at; mean, std (3,) of RGB in [0, 1]; classes,
        their names, or [] for ImageNet's; num_classes; info, what a record tells of it; run, how
        the network is asked: as a layer until `fix`.
    """

    KIND = "classifier"  # the entry of its file that holds the weights

    def __init__(self, network, imsize, mean, std, num_classes, classes, info):
        self.network = network
        self.imsize = imsize
        self.mean = mean
        self.std = std
        self.num_classes = num_classes
        self.classes = classes
        self.info = info
        self.run = partial(run_layer, network)
        network.eval()

    def fix(self):
        """Ask the network the faster way, `inference.Runner`'s, and return self: its weights are
        not to change any more.
        """
        self.run = Runner(self.network)
        return self

    def inputs(self, images):
        """What the network takes, float32 (N, 3, imsize, imsize), of uint8 images (N, H, W, 3) or
        grey ones (N, H, W, 1).
        """
        if images.shape[3] == 1:
            images = images.repeat(3, axis=3)
        images = resized(images, self.imsize, self.imsize)
        return normalized(images, self.mean, self.std)

    def logits(self, images):
        """What the network answers, (N, num_classes), to images as `inputs` takes them."""
        return self.run(self.inputs(images))

    def predict(self, images, side=None):
        """The most probable class (N,) int64 of uint8 images, see `inputs`.

        `side`: of images (N, H, W, 3), bring them to that many pixels first, AC-GAN's loss of
        resolution (Odena et al., ICML 2017, sec. 4.1). All resizing is bilinear, by Pillow.
        """
        if side is not None:
            images = resized(images, side, side)
        return self.logits(images).argmax(axis=1)

    def loss(self, images, labels):
        """-log p(class), the mean over uint8 images with labels int64 (N,)."""
        logits = self.network(paddle.to_tensor(self.inputs(images)))
        return F.cross_entropy(logits, paddle.to_tensor(labels))

    def scores(self, data, batch_size):
        """{"accuracy": share of the `Pictures` whose class is seen}."""
        right = [self.predict(images) == labels for images, labels in in_order(data, batch_size)]
        return {"accuracy": float(np.concatenate(right).mean())}


class EfficientNetClassifier:
    """EfficientNet-Lite0 over ImageNet's 1000 classes, a judge where no ImageNet weights of
    paddle.vision are at hand.

    Args: weights, as in `features.EfficientNet`.
    Attributes: classes, their wnids; info, what a record tells of it.
    """

    def __init__(self, weights="auto"):
        self.network = EfficientNet(weights)
        self.classes = list(efficientnet.wnids())
        about = self.network.info
        self.info = {
            "file": Path(about["source"]).name,
            "sha256": about["sha256"],
            "model": "EfficientNet-Lite0",
            "classes": IMAGENET,
        }

    def predict(self, images, side=None):
        """The most probable class (N,) int64, its place among `classes`, see `Classifier`."""
        if side is not None:
            images = resized(images, side, side)
        return self.network.logits(self.network.features(images)).argmax(axis=1)


def load_classifier(path, model=""):
    """`Classifier` from a file of `python -m shared_metrics.judges classifier` or `digits`, or from
    ImageNet weights for paddle.vision.models.`model`.

    Raises: UserError naming the file when it is damaged, of another kind, or does not fit the
        network.
    """
    models = ", ".join(IMAGENET_SIDES)
    if not model:
        advice = "ImageNet weights of paddle.vision need their network's name, --classifier_model"
        return load_small(Classifier, path, f"{advice}, one of {models}")
    if model not in IMAGENET_SIDES:
        raise UserError(f"--classifier_model {model}: unknown here; one of {models}")
    network = getattr(paddle.vision.models, model)(pretrained=False)
    weights.load_into(network, weights.load(path), f"classifier {model}", path)
    info = training.about_file(path, model) | {"classes": IMAGENET}
    side = IMAGENET_SIDES[model]
    return Classifier(network, side, IMAGENET_MEAN, IMAGENET_STD, IMAGENET, [], info).fix()


def load_small(judge_type, path, advice):
    """A judge of this type with the `SmallClassifier` of a file; see training.load."""
    state = training.load(judge_type.KIND, path, advice)
    classes = state["classes"]
    make = partial(SmallClassifier, state["imsize"], len(classes), state["width"])
    network = weights.build(make, state[judge_type.KIND], judge_type.KIND, path)
    info = training.about_file(path, "SmallClassifier")
    info |= {"classes": len(classes), "held_out_accuracy": state["accuracy"]}
    mean = state["mean"]
    std = state["std"]
    judge = judge_type(network, state["imsize"], mean, std, len(classes), classes, info)
    return judge.fix()


def open_data(args):
    """(pictures to train on, held-out pictures) of the same classes, out of class folders."""
    names = class_names(args.data_path, "--data_path", args.any_folders)
    if args.classes != "all":
        names = [names[i] for i in choose(names, args.classes, f"--data_path {args.data_path}")]
    if len(names) < 2:
        raise UserError(
            f"--data_path {args.data_path}: {names[0]} is its only class; give two or more, a "
            "folder each, to tell apart"
        )
    # Every class must be among the held-out ones, which may have more.
    there = class_names(args.val_path, "--val_path", any_folders=True)
    refuse_others(there, names, f"--val_path {args.val_path}")

    def read(path):
        return np.asarray(middle_square(path, args.imsize))

    train_files = class_files(args.data_path, names, "--data_path")
    val_files = class_files(args.val_path, names, "--val_path")
    data = Pictures(*train_files, names, read, shift=True, flip=True)
    return data, Pictures(*val_files, names, read)


def train(args):
    """`python -m shared_metrics.judges classifier`."""
    fit(Classifier, *open_data(args), args)


def fit(judge_type, data, held_out, args):
    """Train a `SmallClassifier` for a judge of this type on `Pictures`, and save it."""
    classes = data.classes
    network = SmallClassifier(args.imsize, len(classes), args.width)
    mean, std = data.statistics()
    judge = judge_type(network, args.imsize, mean, std, len(classes), classes, {})
    scores = training.fit(
        network,
        data,
        held_out,
        loss=judge.loss,
        scores=judge.scores,
        args=args,
        weight_decay=0.05,
    )
    about = {
        "imsize": args.imsize,
        "width": args.width,
        "classes": classes,
        "mean": mean.tolist(),
        "std": std.tolist(),
        **scores,
    }
    training.save(judge.KIND, network, about, scores, args)
