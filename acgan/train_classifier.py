"""Train the small classifier that test.py asks which class a generated image shows.

cd acgan && python train_classifier.py --data_path .../train --val_path .../val --imsize 32 --output classifier.pdparams
"""

import argparse
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from dataset import ClassFolder
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import amount, not_negative, positive
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.stop import check_finite


def parse_args(argv=None):
    """The flags as a namespace."""
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add(
        "--data_path", required=True, help="folder with one sub-folder of training images per class"
    )
    add(
        "--val_path",
        required=True,
        help="the same classes with held-out images, which measure the accuracy",
    )
    add(
        "--imsize",
        type=positive,
        default=32,
        help="side of the images in pixels: a power of two from 8 on",
    )
    add(
        "--classes",
        default="all",
        help="all folders, or some of them: names, numbers or 10-20 as in train.py",
    )
    add("--epochs", type=positive, default=10, help="passes over the training images")
    add("--batch_size", type=positive, default=128, help="images per step")
    add(
        "--lr",
        type=amount,
        default=3e-3,
        help="Adam's highest rate: it rises for a tenth of the steps, then falls",
    )
    add(
        "--width",
        type=positive,
        default=32,
        help="channels at 16 px; half as many at 32 px, twice as many at 8 px",
    )
    add("--seed", type=not_negative, default=0, help="fixes weights, order and augmentation")
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add(
        "--num_workers",
        type=not_negative,
        default=2,
        help="threads that decode images; 0 decodes in the loop",
    )
    add("--output", required=True, help="file to write, e.g. classifier.pdparams")
    return p.parse_args(argv)


class Augmented:
    """The images of a `ClassFolder` in [0, 1], shifted by up to an eighth of the side (mirrored
    edges).
    """

    def __init__(self, data):
        self.data, self.margin = data, data.imsize // 8

    def __len__(self):
        return len(self.data)

    def load(self, index, rng):
        """Image float32 (3, imsize, imsize) in [0, 1] and its label; UserError naming a bad
        file.
        """
        x, y = self.data.load(index, rng)
        top, left = rng.integers(2 * self.margin + 1, size=2)
        x = np.pad(x, ((0, 0), (self.margin,) * 2, (self.margin,) * 2), mode="reflect")
        return (x[:, top : top + self.data.imsize, left : left + self.data.imsize] + 1) / 2, y


def open_data(args):
    """(training images, held-out images) of the same classes, as `ClassFolder`s."""
    root = Path(args.data_path).expanduser()
    names = args.classes
    if names == "all" and root.is_dir():
        names = f"0-{sum(p.is_dir() and not p.name.startswith('.') for p in root.iterdir())}"
    train = ClassFolder(args.data_path, args.imsize, names, flip=True, flag="--data_path")
    held_out = ClassFolder(args.val_path, args.imsize, train.classes, flag="--val_path")
    return train, held_out


def statistics(data, most=2000):
    """Mean and standard deviation (3,) of RGB in [0, 1] over some images, evenly spread."""
    chosen = np.unique(np.linspace(0, len(data) - 1, most).astype(int))
    pixels = np.stack([data.load(i, np.random.default_rng(0))[0] for i in chosen]) / 2 + 0.5
    return pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clip(1e-3)


def accuracy(network, data, batch_size, mean, std):
    """Share of the images of a `ClassFolder` for which the network's best class is the right
    one.
    """
    import paddle

    from classifier import normalized

    network.eval()
    right, rng = 0, np.random.default_rng(0)
    with paddle.no_grad():
        for start in range(0, len(data), batch_size):
            items = [data.load(i, rng) for i in range(start, min(start + batch_size, len(data)))]
            x, y = (np.stack(part) for part in zip(*items, strict=True))
            right += int(
                (network(normalized((x + 1) / 2, mean, std)).argmax(axis=1).numpy() == y).sum()
            )
    network.train()
    return right / len(data)


def train(network, batches, held_out, args, mean, std):
    """Adam with decoupled weight decay on -log p(class); prints a line an epoch. Returns the
    held-out accuracy.
    """
    import paddle
    import paddle.nn.functional as F

    from classifier import normalized

    steps = args.epochs * batches.batches_per_epoch
    warm = max(1, steps // 10)
    cosine = paddle.optimizer.lr.CosineAnnealingDecay(args.lr, max(1, steps - warm))
    rate = paddle.optimizer.lr.LinearWarmup(cosine, warm, args.lr / warm, args.lr)
    optimizer = paddle.optimizer.AdamW(rate, parameters=network.parameters(), weight_decay=0.05)
    losses, start = 0.0, time.perf_counter()
    for step in range(1, steps + 1):
        x, y = next(batches)
        loss = F.cross_entropy(network(normalized(x, mean, std)), paddle.to_tensor(y))
        optimizer.clear_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        losses += loss.detach()
        if step % batches.batches_per_epoch == 0:
            mean_loss = float(losses) / batches.batches_per_epoch
            check_finite({"loss": mean_loss}, step, None)
            known = accuracy(network, held_out, args.batch_size, mean, std)
            seconds = time.perf_counter() - start
            epoch = step // batches.batches_per_epoch
            print(
                f"epoch {epoch}/{args.epochs}  loss {mean_loss:.3f}  held-out accuracy "
                f"{known:.4f}  "
                f"{step * args.batch_size / seconds:.0f} images/s  {seconds:.0f} s",
                flush=True,
            )
            losses = 0.0
    return known


def main(argv=None):
    """Read the data, train, save."""
    args = parse_args(argv)
    print(process.configure_cpu())  # before Paddle is imported
    process.choose_device(args.device)
    import paddle

    from classifier import SmallClassifier, save_small

    if not Path(args.output).absolute().parent.is_dir() or Path(args.output).is_dir():
        raise UserError(f"--output {args.output}: give the name of a file in a folder that exists")
    data, held_out = open_data(args)
    paddle.seed(args.seed)
    network = SmallClassifier(args.imsize, len(data.classes), args.width)
    mean, std = statistics(data)
    print(
        f"{len(data):,} images to train on, {len(held_out):,} held out, {len(data.classes)} "
        "classes",
        flush=True,
    )
    with closing(
        Batches(Augmented(data), args.batch_size, args.seed, workers=args.num_workers)
    ) as batches:
        known = train(network, batches, held_out, args, mean, std)
    save_small(
        args.output, network, args.imsize, args.width, data.classes, mean, std, known, vars(args)
    )
    print(f"held-out accuracy {known:.4f} over {len(data.classes)} classes, saved to {args.output}")


if __name__ == "__main__":
    process.command(main)()
