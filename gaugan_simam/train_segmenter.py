"""Train the small segmenter by which test.py measures whether generated pictures follow their label
maps.

cd gaugan_simam && python train_segmenter.py --data_path .../toy --label_nc 7 --crop_size 64 --output segmenter.pdparams
"""

import argparse
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from dataset import PREPROCESS, PairFolder
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
    add("--data_path", required=True, help="folder with train_img and train_inst (or train_label)")
    add(
        "--val_path",
        default="",
        help="folder with val_img and val_inst: held-out pairs (default: --data_path)",
    )
    add(
        "--label_nc",
        type=positive,
        required=True,
        help="number of classes, the same as of the generator",
    )
    add(
        "--contain_dontcare_label",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="id label_nc, and 255, stand for unknown; such pixels do not count",
    )
    add(
        "--crop_size",
        type=positive,
        default=256,
        help="side of the photos in px, from 8 on; test.py brings pictures to it",
    )
    add(
        "--load_size",
        type=not_negative,
        default=0,
        help="side before the random crop; 0: 286/256 of --crop_size",
    )
    add(
        "--preprocess_mode",
        default=PREPROCESS[0],
        choices=PREPROCESS,
        help="how pictures are resized, as in training",
    )
    add("--epochs", type=positive, default=10, help="passes over the training photos")
    add("--batch_size", type=positive, default=16, help="photos per step")
    add(
        "--lr",
        type=amount,
        default=1e-2,
        help="Adam's highest rate: it rises for a tenth of the steps, then falls",
    )
    add(
        "--width",
        type=positive,
        default=8,
        help="channels at full size, doubled at each of three halvings",
    )
    add("--seed", type=not_negative, default=0, help="fixes weights, order and augmentation")
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add(
        "--num_workers",
        type=not_negative,
        default=2,
        help="threads that decode pictures; 0 decodes in the loop",
    )
    add("--output", required=True, help="file to write, e.g. segmenter.pdparams")
    return p.parse_args(argv)


def open_data(args):
    """(training pairs, held-out pairs) as `PairFolder`s."""
    if args.crop_size < 8:
        raise UserError(f"--crop_size {args.crop_size}: the segmenter takes pictures from 8 px on")
    how = dict(
        label_nc=args.label_nc,
        contain_dontcare_label=args.contain_dontcare_label,
        load_size=args.load_size,
    )
    how |= dict(crop_size=args.crop_size, preprocess=args.preprocess_mode)
    train = PairFolder(args.data_path, flip=True, **how)
    return train, PairFolder(args.val_path or args.data_path, split="val", train=False, **how)


class LabelsAndPhotos:
    """The pairs of a `PairFolder` without their instance maps."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def load(self, index, rng):
        """Labels int64 (H, W) and photo float32 (3, H, W) in [-1, 1]; UserError naming a bad
        file.
        """
        labels, _, photo = self.data.load(index, rng)
        return labels, photo


def held_out_scores(network, data, batch_size):
    """{"pixel_accuracy", "miou"} of the network on a `PairFolder`, in eval mode."""
    from segmenter import Confusion, ask

    confusion, answer = Confusion(data.label_nc), ask(network)
    for start in range(0, len(data), batch_size):
        items = [data.load(i) for i in range(start, min(start + batch_size, len(data)))]
        labels, _, photos = (np.stack(part) for part in zip(*items, strict=True))
        confusion.update(labels, answer(photos).argmax(1))
    network.train()
    return {"pixel_accuracy": confusion.pixel_accuracy(), "miou": confusion.miou()}


def train(network, batches, held_out, args):
    """Adam on -log p(class) of each pixel of known class; prints a line an epoch. Returns the
    held-out scores.
    """
    import paddle
    import paddle.nn.functional as F

    steps = args.epochs * batches.batches_per_epoch
    warm = max(1, steps // 10)
    cosine = paddle.optimizer.lr.CosineAnnealingDecay(args.lr, max(1, steps - warm))
    rate = paddle.optimizer.lr.LinearWarmup(cosine, warm, args.lr / warm, args.lr)
    optimizer = paddle.optimizer.Adam(rate, parameters=network.parameters())
    losses, start = 0.0, time.perf_counter()
    for step in range(1, steps + 1):
        labels, photos = next(batches)
        logits = network(paddle.to_tensor(photos)).transpose([0, 2, 3, 1])  # (N, H, W, classes)
        loss = F.cross_entropy(logits, paddle.to_tensor(labels), ignore_index=args.label_nc)
        optimizer.clear_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        losses += loss.detach()
        if step % batches.batches_per_epoch == 0:
            mean = float(losses) / batches.batches_per_epoch
            check_finite({"loss": mean}, step, None)
            scores = held_out_scores(network, held_out, args.batch_size)
            seconds, epoch = time.perf_counter() - start, step // batches.batches_per_epoch
            print(
                f"epoch {epoch}/{args.epochs}  loss {mean:.3f}  held-out {told(scores)}  "
                f"{step * args.batch_size / seconds:.0f} images/s  {seconds:.0f} s",
                flush=True,
            )
            losses = 0.0
    return scores


def told(scores):
    """The scores as words."""
    return f"pixel accuracy {scores['pixel_accuracy']:.4f}, mIoU {scores['miou']:.4f}"


def main(argv=None):
    """Read the data, train, save."""
    args = parse_args(argv)
    print(process.configure_cpu())  # before Paddle is imported
    process.choose_device(args.device)
    import paddle

    from segmenter import UNet, save_unet

    if not Path(args.output).absolute().parent.is_dir():
        raise UserError(f"--output {args.output}: no such folder; make it first")
    data, held_out = open_data(args)
    paddle.seed(args.seed)
    network = UNet(args.label_nc, args.width)
    print(
        f"{len(data):,} photos to train on, {len(held_out):,} held out, {args.label_nc} classes",
        flush=True,
    )
    with closing(
        Batches(LabelsAndPhotos(data), args.batch_size, args.seed, workers=args.num_workers)
    ) as batches:
        scores = train(network, batches, held_out, args)
    save_unet(args.output, network, args.width, args.label_nc, args.crop_size, scores, vars(args))
    print(f"held-out {told(scores)}, saved to {args.output}")


if __name__ == "__main__":
    process.command(main)()
