"""Class accuracy: how often a classifier sees the class that a generator was asked for (Odena et
al., ICML 2017, sec. 4.1), and the class of real pictures beside it.
"""

from dataclasses import dataclass, field

import numpy as np

from shared_metrics import efficientnet
from shared_metrics.errors import UserError
from shared_metrics.judges.classifier import IMAGENET, EfficientNetClassifier, load_classifier

FLAGS = ("classifier", "classifier_model", "class_indices", "acc_sizes")


@dataclass
class Classes:
    """The generator's classes: `number`; `names` and `indices` among `total` folders, [] and 0
    where unknown.
    """

    number: int
    names: list = field(default_factory=list)
    indices: list = field(default_factory=list)
    total: int = 0

    def name(self, label):
        """The folder's name, or class003."""
        return self.names[label] if self.names else f"class{label:03d}"


class ClassAccuracy:
    """Counts, batch by batch, how often a classifier sees the class that was meant.

    Args: classifier; columns (num_classes,), the classifier's number of each of the generator's
        classes; sizes, sides in px to which the images are brought first, for accuracies of their
        own.
    """

    def __init__(self, classifier, columns, sizes=()):
        self.classifier = classifier
        self.columns = np.asarray(columns)
        self.sizes = (None, *sizes)  # None: as they are
        self.seen = np.zeros(len(columns), np.int64)
        self.right = {side: np.zeros(len(columns), np.int64) for side in self.sizes}
        self.real = None  # the `ClassAccuracy` of real images

    def update(self, images, labels):
        """Take uint8 images (N, H, W, 3) and their labels (N,)."""
        self.seen += np.bincount(labels, minlength=len(self.seen))
        for side, right in self.right.items():
            hits = self.classifier.predict(images, side) == self.columns[labels]
            right += np.bincount(labels[hits], minlength=len(right))

    def update_real(self, files, labels, pictures, most):
        """Judge real images too: at most `most` of the files, evenly spread.

        Args: labels (N,) of the files; pictures, function of a list of files that yields them as
            the generator was trained on them, in batches of uint8 (n, H, W, 3).
        """
        self.real = ClassAccuracy(self.classifier, self.columns, self.sizes[1:])
        chosen = np.linspace(0, len(files) - 1, min(most, len(files))).astype(int)
        labels = np.asarray(labels)[chosen]
        start = 0
        for images in pictures([files[i] for i in chosen]):
            self.real.update(images, labels[start : start + len(images)])
            start += len(images)

    def scores(self, suffix=""):
        """{"class_accuracy": of all images, "class_accuracy_32": the same of images brought to 32
        px, ...}.
        """
        scores = {}
        for side, right in self.right.items():
            name = f"class_accuracy{suffix}" if side is None else f"class_accuracy{suffix}_{side}"
            scores[name] = float(right.sum() / self.seen.sum())
        return scores

    def per_class(self):
        """{label: accuracy} of the classes seen."""
        present = np.flatnonzero(self.seen)
        return {int(y): float(self.right[None][y] / self.seen[y]) for y in present}

    def result(self, name=int):
        """What a record tells: `scores`, `per_class` and the `classifier`; real images' scores bear
        the suffix _real.

        Args: name, function of a label -> what `per_class` calls it.
        """
        scores = {}
        per_class = {}
        for suffix, accuracy in (("", self), ("_real", self.real)):
            if accuracy:
                scores |= accuracy.scores(suffix)
                for label, value in accuracy.per_class().items():
                    per_class.setdefault(label, {})[f"class_accuracy{suffix}"] = value
        named = {name(label): row for label, row in sorted(per_class.items())}
        return {"scores": scores, "per_class": named, "classifier": self.classifier.info}


def open_accuracy(args, metrics, classes, imsize):
    """`ClassAccuracy` as the flags of `testing.accuracy_flags` ask for it, or None without acc.

    Args: metrics, the paper's own that --metrics names; classes, `Classes`; imsize, side of the
        images in px.
    Raises: UserError when the classifier does not know the generator's classes, and for flags of
        acc without it.
    """
    if "acc" not in metrics:
        for flag in FLAGS:
            if getattr(args, flag):
                raise UserError(f"--{flag}: is for --metrics acc; add acc or leave the flag out")
        return None
    classifier = open_classifier(args)
    sizes = args.acc_sizes
    if sizes is None:
        sizes = [side for side in (64, 32) if side < imsize]
    if any(not 8 <= side < imsize for side in sizes):
        raise UserError(
            f"--acc_sizes {','.join(map(str, sizes))}: sides from 8 to below the images' {imsize} "
            "px"
        )
    return ClassAccuracy(classifier, _columns(args, classifier, classes), sizes)


def open_classifier(args):
    """The classifier that --classifier names."""
    if not args.classifier:
        raise UserError(
            "--metrics acc: needs --classifier FILE: one of `python -m shared_metrics.judges "
            "classifier`, or ImageNet weights; or --classifier efficientnet"
        )
    if args.classifier != "efficientnet":
        classifier = load_classifier(args.classifier, args.classifier_model)
        if classifier.classes and len(classifier.classes) < 2:
            raise UserError(
                f"--classifier {args.classifier}: knows one class alone, and would see it in "
                "everything; train one on two or more"
            )
        return classifier
    if args.classifier_model:
        raise UserError(
            f"--classifier_model {args.classifier_model}: is for a file of ImageNet weights, not "
            "for --classifier efficientnet; leave it out"
        )
    return EfficientNetClassifier(args.efficientnet_weights)


def _columns(args, classifier, classes):
    """The classifier's number of each of the generator's classes."""
    if not classifier.classes:  # ImageNet's, which knows numbers alone
        columns = args.class_indices or (classes.indices if classes.total == IMAGENET else [])
        if len(columns) != classes.number or max(columns) >= IMAGENET:
            raise UserError(
                f"--classifier_model {args.classifier_model}: which of ImageNet's 1000 classes are "
                f"the generator's {classes.number}? Give --class_indices, e.g. 10-19"
            )
        return columns
    if args.class_indices:
        raise UserError(
            "--class_indices: is for ImageNet weights (--classifier_model); leave it out"
        )
    if not classes.names:
        raise UserError(
            "--metrics acc: the weights name no classes; give their class folders (--help tells by "
            "which flag)"
        )
    if args.classifier == "efficientnet":
        return efficientnet.class_indices(classes.names)
    for name in classes.names:
        if name not in classifier.classes:
            raise UserError(
                f"--classifier {args.classifier}: does not know class {name} of the generator; "
                "train one that does: python -m shared_metrics.judges classifier"
            )
    return [classifier.classes.index(name) for name in classes.names]
