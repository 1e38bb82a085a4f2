"""Attributes of faces ("Smiling", "Eyeglasses"), each there or not: CelebA's list, and a network
that reads them off pictures.
"""

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from shared_metrics.errors import UserError
from shared_metrics.files import read_text, shown
from shared_metrics.images import middle_square
from shared_metrics.judges.classifier import Classifier, fit, load_small
from shared_metrics.judges.pictures import Pictures, in_order, split


class AttributeClassifier(Classifier):
    """A `Classifier` whose classes, the attributes, do not exclude each other."""

    KIND = "attributes"

    def predict(self, images):
        """The probability of each attribute, float32 (N, K), of uint8 images as `inputs` takes
        them.
        """
        return F.sigmoid(paddle.to_tensor(self.logits(images))).numpy()

    def loss(self, images, labels):
        """Binary cross-entropy, the mean over attributes and images; labels float32 (N, K), 0 or
        1.
        """
        logits = self.network(paddle.to_tensor(self.inputs(images)))
        return F.binary_cross_entropy_with_logits(logits, paddle.to_tensor(labels))

    def scores(self, data, batch_size):
        """{"accuracy": {attribute: share of the `Pictures` where it is seen as it is}}, without
        those that all of them have, or none: to answer always the same would be perfect.
        """
        right = [
            (self.predict(images) > 0.5) == (labels > 0.5)
            for images, labels in in_order(data, batch_size)
        ]
        shares = np.concatenate(right).mean(0).tolist()
        accuracy = dict(zip(self.classes, shares, strict=True))
        for name in _constant(data):
            del accuracy[name]
        return {"accuracy": accuracy}


def load_attributes(path):
    """`AttributeClassifier` from a file of `python -m shared_metrics.judges attributes`.

    Raises: UserError naming the file when it is damaged, of another kind, or does not fit the
        network.
    """
    return load_small(AttributeClassifier, path, "train one on your list")


def read_list(path, chosen):
    """A list as CelebA has it: the number of pictures; the names of the attributes; a line for each
    picture, its file and 1 (there) or -1 (not) for every attribute.

    Args: chosen, names of attributes.
    Returns: file names; labels float32 (N, len(chosen)), 1 or 0, columns in the order of `chosen`.
    Raises: UserError naming the list and the line that is wrong.
    """
    try:
        lines = read_text(Path(path).expanduser()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not a text in UTF-8")
        raise UserError(f"--list {path}: cannot be read ({reason})") from None
    rows = [(number, line) for number, line in enumerate(lines[2:], start=3) if line.strip()]
    count = lines[0].strip() if lines else ""
    if not rows or count != str(len(rows)):
        raise UserError(
            f"--list {path}, line 1: '{count[:40]}', but {len(rows)} pictures follow the line of "
            "names; line 1 holds their number, line 2 the names of the attributes"
        )
    names = lines[1].split()
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise UserError(
            f"--attributes {','.join(chosen)}: no {unknown[0]} in line 2 of {path} "
            f"({', '.join(names)})"
        )
    columns = [names.index(name) for name in chosen]
    pictures = []
    labels = []
    for number, line in rows:
        name, *values = line.strip().rsplit(maxsplit=len(names))
        if len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise UserError(
                f"--list {path}, line {number}: not a file name and {len(names)} values 1 or -1, "
                "as line 2 has names"
            )
        pictures.append(name)
        labels.append([values[column] == "1" for column in columns])
    return pictures, np.array(labels, np.float32)


def open_data(args):
    """(pictures to train on, held-out pictures) of the list; prints how many have each
    attribute.
    """
    classes = [name.strip() for name in args.attributes.split(",")]
    names, labels = read_list(args.list, classes)
    folder = Path(args.data_path).expanduser()
    paths = [folder / name for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"--data_path {folder}: {len(missing)} of the {len(paths)} pictures of {args.list} "
            f"are not there, such as {missing[0]}"
        )

    def read(path):
        return np.asarray(middle_square(path, args.imsize))

    def part(numbers, **augmentation):
        return Pictures([paths[i] for i in numbers], labels[numbers], classes, read, **augmentation)

    chosen, held_out = split(len(paths), args.held_out, args.seed)
    data = part(chosen, shift=True, flip=True)
    for name, positive in zip(classes, data.labels.sum(0).astype(int), strict=True):
        print(shown(f"{name}: {positive:,} of {len(data):,}"))
        if positive in (0, len(data)):
            raise UserError(
                f"--attributes {name}: all of the {len(data)} pictures to train on have the same "
                "value; leave it out or give more pictures"
            )
    held_out = part(held_out)
    for name in _constant(held_out):
        print(f"{name}: all of the {len(held_out)} held-out pictures have the same value, so no "
              "accuracy of it")  # fmt: skip
    return data, held_out


def _constant(data):
    """The attributes of `Pictures` that all of them have, or none."""
    same = (data.labels == data.labels[0]).all(0)
    return [name for name, constant in zip(data.classes, same, strict=True) if constant]


def train(args):
    """`python -m shared_metrics.judges attributes`."""
    fit(AttributeClassifier, *open_data(args), args)
