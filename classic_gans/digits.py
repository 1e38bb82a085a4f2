"""Pictures drawn from noise, by class or not: what CGAN and DCGAN read, and show of their G.

Pictures are uint8 (N, S, S, channels), noise (N, noise_size) float32, uniform in [-1, 1].
"""

from pathlib import Path

import numpy as np
import paddle

from dataset import labelled
from shared_metrics.errors import UserError
from shared_metrics.flags import not_negative, positive
from shared_metrics.images import grid, to_uint8

JUDGED = 500  # pictures that the judge is asked about in training
SHOWN = 10  # classes, and pictures of each, on a sheet


# fmt: off
def add_flags(parser, picture_size):
    """Add the flags that CGAN and DCGAN have in common. Args: picture_size, see `open_data`."""
    add = parser.add_argument_group("pictures from noise").add_argument
    add("--image_size", type=not_negative, default=0,
        help=f"side of the pictures in px; 0: 28 for digits, {picture_size} for class folders")
    add("--channels", type=int, default=0, choices=[0, 1, 3],
        help="1: grey; 3: colour; 0: grey for digits, colour for class folders")
    add("--n_classes", type=positive, default=10,
        help="the labels of digits run from 0 to below this; class folders are counted")
    add("--noise_size", type=positive, default=100, help="length of z, uniform in [-1, 1]")
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
    data = labelled(root, *how)
    rest = len(data) % args.batch_size
    if args.batch_size == 1 or (rest == 1 and not args.drop_last):
        raise UserError(
            f"--batch_size {args.batch_size}: leaves a batch of one picture, of which BatchNorm "
            "has no statistics; give another, or --drop_last True"
        )
    return data


def open_judge(path, classes):
    """`shared_metrics.judges.classifier.Classifier` of a file, None without one.

    Raises: UserError when it knows other classes than the data.
    """
    if not path:
        return None
    from shared_metrics.judges.classifier import load_classifier

    judge = load_classifier(path)
    if judge.classes != classes:
        raise UserError(
            f"--judge {path}: knows the classes {', '.join(judge.classes[:10])}, the data have "
            f"{', '.join(classes[:10])}; train one on them"
        )
    return judge


def noise(rng, number, size):
    """z (number, size) float32, uniform in [-1, 1]: a tensor. Args: rng, a numpy Generator."""
    return paddle.to_tensor(rng.uniform(-1.0, 1.0, (number, size)).astype(np.float32))


def draw(generator, *inputs):
    """What G draws of its inputs in eval mode; G is left in the mode that it had."""
    training = generator.training
    generator.eval()
    with paddle.no_grad():
        images = to_uint8(generator(*inputs).numpy())
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


def quality(images, judge, labels=None):
    """Numbers that tell a G that has gone wrong: {name: float}.

    spread: standard deviation over the pictures, the mean over all pixels, in units of [-1, 1]; 0
        where all are the same. MNIST's own is 0.40.
    With a judge: judge_classes, how many classes it sees; judge_entropy, of their shares, in nats;
        and of labels asked for, judge_accuracy and the lowest of a class, judge_worst_class.
    """
    values = {"spread": float((images / 127.5).std(axis=0).mean())}
    if judge is None:
        return values
    seen = judge.predict(images)
    shares = np.bincount(seen, minlength=len(judge.classes)) / len(seen)
    shares = shares[shares > 0]
    values["judge_classes"] = len(shares)
    values["judge_entropy"] = float(-(shares * np.log(shares)).sum())
    if labels is not None:
        right = seen == labels
        by_class = [right[labels == y].mean() for y in np.unique(labels)]
        values |= {"judge_accuracy": right.mean(), "judge_worst_class": min(by_class)}
    return values
