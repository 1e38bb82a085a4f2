"""Train AC-GAN (Odena, Olah, Shlens, ICML 2017).   cd acgan && python train.py --dataroot .../train

Several cards: python -m paddle.distributed.launch train.py --dataroot .../train
"""

import argparse
from pathlib import Path

from dataset import ClassFolder, describe, make_dataset
from recipes import RECIPES, describe_recipes
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import amount, not_negative, positive, share
from shared_metrics.runs.folder import run_folder

DEFAULT = "imagenet128"


def parser():
    """The flags of train.py; the recipe's own values become their defaults in `parse_args`."""
    p = argparse.ArgumentParser(
        description=__doc__,
        usage="python train.py --dataroot PATH [flags; --help lists them]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add(
        "--recipe",
        default=DEFAULT,
        choices=list(RECIPES),
        help="published setting; explicit flags override it",
    )
    add(
        "--list_recipes",
        action="store_true",
        help="print the recipes with the paper's numbers and exit",
    )
    data_flags(p.add_argument_group("data").add_argument)
    networks_flags(p.add_argument_group("networks").add_argument)
    training_flags(p.add_argument_group("training").add_argument)
    run_flags(p.add_argument_group("run").add_argument)
    return p


def data_flags(add):
    """What to train on."""
    add(
        "--dataroot",
        "--data_path",
        dest="data_path",
        default="",
        help="folder with one sub-folder of images per class",
    )
    add(
        "--classes",
        default="auto",
        help="which of them: 10-20 (of the sorted names, counted from 0, without the 20th), "
        "random, random:N, names or "
        "numbers with commas; auto: all where there are ten or fewer, 0-10 of fewer than 20, else "
        "10-20",
    )
    add("--class_seed", type=not_negative, default=0, help="fixes the draw of --classes random")
    add(
        "--num_classes",
        type=positive,
        help="expected number of classes (default: as many as --classes chooses)",
    )
    add(
        "--imageSize",
        "--imsize",
        dest="imsize",
        type=positive,
        help="side of the images: 32, 64 or 128 px",
    )
    add("--flip", action=argparse.BooleanOptionalAction, help="mirror images at random")
    add(
        "--held_out",
        default="",
        help="folder with the same classes: D's class accuracy there is logged",
    )
    add(
        "--skip_bad_images",
        action="store_true",
        help="replace unreadable images by the next ones and count them",
    )
    add("--workers", "--num_workers", dest="num_workers", type=not_negative, default=4,
        help="threads that decode images; 0 decodes in the training loop")  # fmt: skip


def networks_flags(add):
    """What to train."""
    add("--nz", type=positive, help="length of z; the class's one-hot takes its first entries")
    add("--ngf", type=positive, help="width of G; 64 is the published one")
    add("--ndf", type=positive, help="width of D; 64 is the published one")
    add(
        "--form",
        choices=["callifrey", "clvrai"],
        help="which reproduction's kernels, paddings and biases",
    )
    add(
        "--fc_relu",
        action=argparse.BooleanOptionalAction,
        help="ReLU after G's linear layer, as in the paper",
    )
    add(
        "--init",
        choices=["normal", "clvrai", "paddle"],
        help="first weights; normal: N(0, 0.02), the paper's",
    )
    add("--dropout", type=share, help="of D, after each activation (paper: 0.5)")
    add(
        "--activation_noise",
        type=amount,
        help="sigma of Gaussian noise on D's activations (paper: 0, 0.1 or 0.2)",
    )


def training_flags(add):
    """The updates."""
    add("--niter", type=not_negative, help="epochs")
    add(
        "--iterations",
        type=not_negative,
        help="iterations, one update of D and of G each; 0: --niter epochs",
    )
    add(
        "--batchSize",
        "--batch_size",
        dest="batch_size",
        type=positive,
        help="images per update and process",
    )
    add("--lr", type=amount, help="Adam's rate, of both networks")
    add("--g_lr", type=amount, help="Adam's rate for G, if not --lr")
    add("--d_lr", type=amount, help="Adam's rate for D, if not --lr")
    add("--beta1", type=share, help="Adam's beta1")
    add("--beta2", type=share, help="Adam's beta2")
    add(
        "--class_loss",
        "--aux_loss",
        dest="class_loss",
        choices=["cross_entropy", "linear"],
        help="cross_entropy: -log p, the paper's; linear: -p, what the reproductions trained with",
    )
    add(
        "--class_on",
        choices=["both", "real"],
        help="images that teach D the classes: real ones, or both real and generated ones as in "
        "the paper",
    )
    add("--ema_decay", type=share, help="decay of the moving average of G per update; 0: none")
    add("--ema_start", type=not_negative, help="iteration from which G is averaged (copied before)")
    add("--amp", default="none", choices=["none", "fp16", "bf16"], help="mixed precision (GPU)")


def run_flags(add):
    """Where the run goes, what it writes and when."""
    add("--output_dir", default=".", help="everything the run writes")
    for name, folder in (
        ("check", "checkpoints"),
        ("result", "results"),
        ("class_result", "class_results"),
        ("log", "log"),
    ):
        add(f"--{name}_path", default="", help=f"if not OUTPUT_DIR/{folder}")
    add("--name", default="acgan", help="the run's name in its records")
    add(
        "--resume",
        nargs="?",
        const="auto",
        default="",
        help="go on: auto (newest whole checkpoint) or a checkpoint",
    )
    add(
        "--pretrained_model",
        default="",
        help="start from these weights: a checkpoint or any file convert.py knows",
    )
    add(
        "--seed",
        type=not_negative,
        default=0,
        help="fixes weights, order, latents and augmentation",
    )
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--log_every", type=positive, default=10, help="iterations between log lines")
    add("--save_freq", type=positive, default=5, help="epochs between checkpoints and sample grids")
    add(
        "--save_every",
        type=not_negative,
        default=0,
        help="iterations between checkpoints; 0: by --save_freq",
    )
    add(
        "--sample_every",
        type=not_negative,
        default=0,
        help="iterations between sample grids; 0: by --save_freq",
    )
    add(
        "--keep_checkpoints",
        type=not_negative,
        default=3,
        help="newest checkpoints to keep; 0: all",
    )
    add(
        "--eval_every",
        type=not_negative,
        default=0,
        help="iterations between evaluations (FID, IS); 0: none",
    )
    add("--eval_samples", type=positive, default=10_000, help="generated images per evaluation")
    add(
        "--real_stats",
        default="",
        help="statistics file or image folder for FID; default: the training images",
    )
    add(
        "--inception_weights",
        default="auto",
        help="auto (download), random (not comparable) or a file",
    )


def parse_args(argv=None):
    """The flags as a namespace: the recipe's values, overridden by what is given on the command
    line.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default=DEFAULT)
    name = first.parse_known_args(argv)[0].recipe
    p = parser()
    p.set_defaults(**RECIPES.get(name, {}))
    args = p.parse_args(argv)
    given = parser().parse_args(argv)  # without the recipe's values
    if given.niter and given.iterations is None:
        args.iterations = 0  # epochs that the user asks for go before a recipe's iterations
    out = Path(args.output_dir)
    args.check_path = args.check_path or str(out / "checkpoints")
    args.result_path = args.result_path or str(out / "results")
    args.class_result_path = args.class_result_path or str(out / "class_results")
    args.log_path = args.log_path or str(out / "log")
    if not args.niter and not args.iterations:
        raise UserError("--niter 0: nothing to train; give --niter epochs or --iterations")
    if args.pretrained_model and args.resume:
        raise UserError(
            "--pretrained_model and --resume: give one; --resume goes on, --pretrained_model "
            "starts anew"
        )
    return args


def notes(args, trainer):
    """Lines for the head of the log: what runs where, for how long, and how the batch compares with
    the recipe's.
    """
    import paddle

    world, recipe = process.world_size(), RECIPES[args.recipe]
    lines = [
        f"{args.name}: recipe {args.recipe}, {world} process(es) on {paddle.get_device()}, Paddle "
        f"{paddle.__version__}",
        f"{trainer.total:,} iterations of {args.batch_size * world} images, {trainer.per_epoch:,} "
        "an epoch",
    ]
    if args.batch_size * world != recipe["batch_size"]:
        lines.append(
            f"batch {args.batch_size} x {world} process(es); the published run had "
            f"{recipe['batch_size']}"
        )
    return lines


def main(argv=None):
    """Build the data, the networks and the trainer, then run; returns the exit code."""
    args = parse_args(argv)
    if args.list_recipes:
        return print(describe_recipes())
    cpu = process.configure_cpu()  # before Paddle is imported
    process.choose_device(args.device)
    import paddle

    from convert import read_weights
    from model import Architecture, Discriminator, Generator
    from trainer import Trainer

    if args.amp != "none" and paddle.get_device() == "cpu":
        raise UserError(
            f"--amp {args.amp}: Paddle has no mixed precision on the CPU; leave the flag out"
        )
    process.init_distributed()
    data = make_dataset(args)
    held_out = None
    if args.held_out:
        held_out = ClassFolder(args.held_out, args.imsize, data.classes, flag="--held_out")
    names = ("imsize", "nz", "ngf", "ndf", "form", "fc_relu", "init", "dropout", "activation_noise")
    arch = Architecture(
        num_classes=len(data.classes), **{name: getattr(args, name) for name in names}
    )
    with run_folder(args, args.check_path) as found:
        paddle.seed(args.seed)
        trainer = Trainer(Generator(arch), Discriminator(arch), arch, args, data, held_out)
        if found:
            path, state = found
            trainer.load(state, path)
        elif args.pretrained_model:
            trainer.start_from(read_weights(args.pretrained_model), args.pretrained_model)
        return trainer.train(notes=[cpu, *notes(args, trainer), describe(data)])


if __name__ == "__main__":
    process.command(main)()
