"""Train the networks that judge generated pictures: one of

    python -m shared_metrics.judges classifier --data_path .../train --val_path .../val --output F
    python -m shared_metrics.judges segmenter --data_path .../toy --label_nc 7 --output F
    python -m shared_metrics.judges digits --images t10k-images-idx3-ubyte.gz \\
        --labels t10k-labels-idx1-ubyte.gz --output F
    python -m shared_metrics.judges attributes --data_path IMAGES --list list_attr_celeba.txt \\
        --attributes Smiling,Eyeglasses --output F
"""

import argparse
import importlib

from shared_metrics.class_folders import any_folders_flag
from shared_metrics.flags import (
    BATCH,
    CHANNELS,
    CLASSES,
    PX,
    SEED,
    THREADS,
    amount,
    background_flag,
    positive,
    share,
    version_flag,
)
from shared_metrics.images import set_background
from shared_metrics.judges.pairs import PREPROCESS
from shared_metrics.outputs import check_file
from shared_metrics.process import choose_device, command, configure_cpu


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults shown, paragraphs kept."""


# fmt: off
def parse_args(argv=None):
    """The flags as a namespace; `judge` is the name of the command."""
    p = argparse.ArgumentParser(
        prog="python -m shared_metrics.judges", description=__doc__, formatter_class=Help)
    version_flag(p)
    judges = p.add_subparsers(dest="judge", required=True)

    add = _judge(judges, "classifier", "which class an image shows: acgan's --classifier")
    add("--data_path", required=True, help="folder with a sub-folder of training images per class")
    add("--val_path", required=True, help="the same classes, held out to measure the accuracy")
    any_folders_flag(add)
    add("--imsize", type=PX, default=32, help="side in pixels: a power of two from 8 on")
    add("--classes", default="all",
        help="all folders, or some: names, numbers or 10-20 (without the 20th)")

    add = _judge(judges, "segmenter", "the class of each pixel: gaugan_simam's --segmenter",
                 batch_size=16, lr=1e-2, width=8)
    add("--data_path", required=True, help="folder with train_img and train_inst (or train_label)")
    add("--val_path", default="", help="folder with val_img, val_inst (default: --data_path)")
    add("--label_nc", type=CLASSES, required=True, help="number of classes, the generator's")
    add("--contain_dontcare_label", action=argparse.BooleanOptionalAction, default=True,
        help="id label_nc, and 255, stand for unknown; such pixels do not count")
    add("--crop_size", type=PX, default=256,
        help="side of the photos in px, from 8 on; test.py brings pictures to it")
    add("--load_size", type=PX.or_0, default=0,
        help="side before the random crop; 0: 286/256 of --crop_size")
    add("--preprocess_mode", default=PREPROCESS[0], choices=PREPROCESS,
        help="how pictures are resized, as in the generator's training")

    add = _judge(judges, "digits", "which digit a picture shows: a classifier out of MNIST's files",
                 imsize=32)
    add("--images", required=True, help="t10k-images-idx3-ubyte.gz, train-... or any such IDX file")
    add("--labels", required=True, help="t10k-labels-idx1-ubyte.gz: the labels of the same images")
    add("--held_out", type=share, default=0.5, help="share of them that measures the accuracy")

    add = _judge(judges, "attributes", "which attributes a face has, each on its own")
    add("--data_path", required=True, help="folder of the pictures that the list names")
    add("--list", required=True,
        help="as CelebA's list_attr_celeba.txt: number, names, a line of 1 and -1 per picture")
    add("--attributes", required=True, help="some of its names, joined by commas")
    add("--imsize", type=PX, default=64,
        help="side in px, a power of two from 8 on, to which the middle square is brought")
    add("--held_out", type=share, default=0.1, help="share of them that measures the accuracy")
    return p.parse_args(argv)


def _judge(judges, name, what, **defaults):
    """`add_argument` of a new command, which has the flags that all judges share."""
    parser = judges.add_parser(
        name, help=what, description=what, formatter_class=Help, allow_abbrev=False)
    add = parser.add_argument
    add("--epochs", type=positive, help="passes over the training pictures")
    add("--batch_size", type=BATCH, help="pictures per step")
    add("--lr", type=amount, help="highest rate: it rises for a tenth of the steps, then falls")
    add("--width", type=CHANNELS,
        help="channels of a classifier at 16 px (at 32 px half), of a segmenter at full size")
    add("--seed", type=SEED, default=0, help="fixes weights, order, augmentation, held out")
    background_flag(add)
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--num_workers", type=THREADS.or_0, default=2,
        help="threads that decode pictures; 0 decodes in the loop")
    add("--output", required=True, help="file to write, such as judge.pdparams")
    add("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(**{"epochs": 10, "batch_size": 128, "lr": 3e-3, "width": 32, **defaults})
    return add
# fmt: on


def sources(args):
    """The files and folders that the judge's flags name."""
    names = ("data_path", "val_path", "images", "labels", "list")
    return [getattr(args, name, "") for name in names]


def main(argv=None):
    """Read the data, train, save."""
    args = parse_args(argv)
    args.output = str(check_file(args.output, "--output", args.overwrite, reads=sources(args)))
    print(configure_cpu())  # before Paddle is imported
    set_background(args.background)
    choose_device(args.device)
    import paddle

    paddle.seed(args.seed)
    importlib.import_module(f"shared_metrics.judges.{args.judge}").train(args)


if __name__ == "__main__":
    command(main)()
