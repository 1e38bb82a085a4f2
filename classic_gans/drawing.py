"""Pictures drawn from noise, by class or not: what CGAN and DCGAN read, and show of their G.

Pictures are uint8 (N, S, S, channels), noise (N, noise_size) float32, uniform in [-1, 1].
"""

from functools import partial
from pathlib import Path

import numpy as np
import paddle

from dataset import labelled
from shared_metrics.class_folders import any_folders_flag
from shared_metrics.errors import UserError
from shared_metrics.flags import CHANNELS, CLASSES, PX, positive
from shared_metrics.images import grid, to_uint8
from shared_metrics.inference import run_layer

JUDGED = 500  # pictures that the judge is asked about in training
SHOWN = 10  # classes, and pictures of each, on a sheet


# fmt: off
def add_flags(parser, picture_size):
    """Add the flags that CGAN and DCGAN have in common. Args: picture_size, see `open_data`."""
    add = parser.add_argument_group("pictures from noise").add_argument
    add("--image_size", type=PX.or_0, default=0,
        help=f"side of the pictures in px; 0: 28 for digits, {picture_size} for class folders")
    add("--channels", type=int, default=0, choices=[0, 1, 3],
        help="1: grey; 3: colour; 0: grey for digits, colour for class folders")
    add("--n_classes", type=CLASSES, default=10,
        help="the labels of digits run from 0 to below this; class folders are counted")
    any_folders_flag(add)
    add("--noise_size", type=CHANNELS, default=100, help="length of z, uniform in [-1, 1]")
    add("--num_generator_time", type=positive, default=1, help="updates of G per batch")
    add("--judge", default="",
        help="a file of `python -m shared_metrics.judges digits` (or classifier): what it reads in "
             "G's pictures is logged with each sample sheet")
    parser.set_defaults(batch_size=128, epoch=20)
# fmt: on


def open_data(args, picture_size):
    """The data set DATA_DIR/DATASET: digits, or pictures in class folders.

    Args: picture_size, side of the latter without --image_size.
    Raises: UserError, see `dataset`, and for batches of one picture.
    """
    root = Path(args.data_dir).expanduser() / args.dataset
    how = (args.image_size, args.channels, args.n_classes, picture_size, args.skip_bad_images)
    data = labelled(root, *how, any_folders=args.any_folders)
    rest = len(data) % args.batch_size
    if args.batch_size == 1 or (rest == 1 and not args.drop_last):
        raise UserError(
            f"--batch_size {args.batch_size}: leaves a batch of one picture, of which BatchNorm "
            "has no statistics; give another, or --drop_last True"
        )
    return data


def open_judge(path, classes=None):
    """`shared_metrics.judges.classifier.Classifier` of a file, None without one.

    Raises: UserError when it knows other classes than these, the data's.
    """
    if not path:
        return None
    from shared_metrics.judges.classifier import load_classifier

    judge = load_classifier(path)
    if classes is not None and judge.classes != classes:
        raise UserError(
            f"--judge {path}: knows the classes {', '.join(judge.classes[:10])}, the data have "
            f"{', '.join(classes[:10])}; train one on them"
        )
    return judge


def noise(rng, number, size):
    """z (number, size) float32, uniform in [-1, 1]: a tensor. Args: rng, a numpy Generator."""
    return paddle.to_tensor(rng.uniform(-1.0, 1.0, (number, size)).astype(np.float32))


def latents(seeds, size):
    """z (N, size) float32, an array: `np.random.RandomState(seed).uniform(-1, 1, size)` a seed, so
    that any framework can draw the same.
    """
    rows = [np.random.RandomState(seed).uniform(-1.0, 1.0, size) for seed in seeds]
    return np.stack(rows).astype(np.float32)


def draw(generator, *inputs, run=None):
    """What G draws of its inputs in eval mode; G is left in the mode that it had.

    Args: run, `inference.Runner` of G, for many pictures (default: its layers).
    """
    training = generator.training
    generator.eval()
    images = to_uint8((run or partial(run_layer, generator))(*inputs))
    if training:
        generator.train()
    return images


def sheet(data, images, row_labels, skip_bad):
    """A row of the data's own pictures, spread evenly, then the drawn ones, SHOWN a row."""
    rows = []
    for index in np.linspace(0, len(data) - 1, SHOWN).astype(int):
        try:
            rows.append(to_uint8(data.load(int(index), None)[0][None]))
        except UserError:
            if not skip_bad:
                raise
            rows.append(np.full_like(images[:1], 255))
    return grid(np.concatenate([*rows, images]), SHOWN, row_labels=["real", *row_labels])


class Quality:
    """Numbers that tell a G that has gone wrong, gathered as its pictures come.

    Args: judge, `open_judge`'s, or None.
    """

    def __init__(self, judge):
        self.judge = judge
        self.number = 0
        self.sums = 0.0  # of the pixels, and of their squares
        self.squares = 0.0
        self.seen = []  # the classes that the judge sees, and those that were asked for
        self.asked = []

    def update(self, images, labels=None):
        """Take pictures and, where G is told classes, those (N,) that were asked for."""
        pixels = images / 127.5
        self.number += len(images)
        self.sums = self.sums + pixels.sum(0)
        self.squares = self.squares + (pixels**2).sum(0)
        if self.judge is not None:
            self.seen.append(self.judge.predict(images))
        if labels is not None:
            self.asked.append(labels)

    def result(self):
        """{name: float}.

        spread: standard deviation over the pictures, the mean over all pixels, in units of [-1, 1];
            0 where all are the same. MNIST's own is 0.38.
        With a judge: judge_classes, how many classes it sees; judge_entropy, of their shares, in
            nats; and of labels asked for, judge_accuracy and the lowest of a class,
            judge_worst_class.
        """
        mean = self.sums / self.number
        variance = np.maximum(0.0, self.squares / self.number - mean**2)  # rounding may go below
        values = {"spread": float(np.sqrt(variance).mean())}
        if self.judge is None:
            return values
        seen = np.concatenate(self.seen)
        shares = np.bincount(seen, minlength=len(self.judge.classes)) / len(seen)
        shares = shares[shares > 0]
        values["judge_classes"] = len(shares)
        values["judge_entropy"] = float((shares * np.log(1 / shares)).sum())
        if self.asked:
            by_class = self.accuracies()
            right = seen == np.concatenate(self.asked)
            values["judge_accuracy"] = float(right.mean())
            values["judge_worst_class"] = min(by_class.values())
        return values

    def accuracies(self):
        """{class asked for: share of its pictures in which the judge sees it}."""
        asked = np.concatenate(self.asked)
        right = np.concatenate(self.seen) == asked
        return {int(y): float(right[asked == y].mean()) for y in np.unique(asked)}


def quality(images, judge, labels=None):
    """`Quality`'s result of these pictures alone."""
    numbers = Quality(judge)
    numbers.update(images, labels)
    return numbers.result()
