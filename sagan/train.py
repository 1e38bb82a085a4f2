"""Train SAGAN (Zhang et al., ICML 2019).   cd sagan && python train.py --data_path .../train

Several cards: python -m paddle.distributed.launch train.py --data_path .../train
"""

import argparse

from dataset import CROPS, describe, make_dataset
from recipes import RECIPES, describe_recipes
from shared_metrics import data_report, process
from shared_metrics.class_folders import any_folders_flag
from shared_metrics.errors import UserError
from shared_metrics.flags import (
    BATCH,
    CHANNELS,
    CLASSES,
    PX,
    SHEET,
    YES_NO,
    amount,
    begin,
    new_parser,
    not_negative,
    original_words,
    positive,
    ranges_or_none,
    run_flags,
    run_notes,
    share,
    with_recipe,
)
from shared_metrics.runs.peers import from_main

ORIGINAL = {
    "--save_path": "--output_dir",
    "--total_step": "--iterations",
    "--manual_seed": "--seed",
    "--log_step": "--log_every",
    "--sample_step": "--sample_every",
    "--model_save_step": "--save_every",
}
# What flags need to count, and what they stand for: see shared_metrics.needs.
NEEDS = {
    "data_path": "dataset folder imagenet lfw cifar10 hdf5 lsun",
    "zoom": "crop center, centercrop no",
    "centercrop_size": "centercrop",
    "lambda_gp": "adv_loss wgan_gp",
    "inst_noise_sigma_iters": "inst_noise_sigma",
    "ema_start": "ema_decay",
    "use_ema": "pretrained_model",
    "max_frames_per_gif": "sample_every",
}
STANDS_FOR = {"centercrop": "crop center", "dont_resize": "crop none", "disable_cuda": "device cpu"}


# fmt: off
def parser():
    """The flags of train.py; the recipe's own values become their defaults in `parse_args`."""
    p = new_parser(__doc__, "python train.py --data_path PATH [flags; --help lists them]")
    p.add_argument("--recipe", default="sagan128", choices=list(RECIPES),
                   help="published setting; explicit flags override it")
    p.add_argument("--list_recipes", action="store_true",
                   help="print the recipes with their published scores and exit")

    add = p.add_argument_group("data").add_argument
    add("--data_path", default="", help="folder with one sub-folder of images per class")
    add("--dataset", default="folder",
        choices=["folder", "imagenet", "lfw", "cifar10", "fake", "hdf5", "lsun"],
        help="folder, imagenet, lfw: class folders; cifar10: these or cifar-10-batches-py; fake: "
             "noise, no data needed")
    add("--num_classes", type=CLASSES.or_0, default=0, help="expected number; 0: the data's")
    any_folders_flag(add)
    add("--imsize", type=PX, help="side of the images: 32, 64, 128 or 256 px")
    add("--crop", choices=CROPS, help="how an image becomes square: see dataset.ClassFolder")
    add("--zoom", type=amount, default=1.0, help="--crop center: share of the short edge to cut")
    add("--flip", action=YES_NO, help="mirror images at random")
    add("--dont_normalize", action="store_true", help="pixels in [0, 1] instead of [-1, 1]")
    add("--dont_shuffle", action="store_true", help="take the images in the order of their names")
    add("--dont_drop_last", action="store_true", help="use an epoch's last, smaller batch too")

    add = p.add_argument_group("networks").add_argument
    add("--z_dim", type=CHANNELS, help="length of the latent vector")
    add("--g_conv_dim", type=CHANNELS, help="base width of G, in channels")
    add("--d_conv_dim", type=CHANNELS, help="base width of D, in channels")
    add("--g_attention", type=ranges_or_none,
        help="resolutions of G with self-attention, e.g. 16,32 or none (default: the form's)")
    add("--d_attention", type=ranges_or_none, help="the same of D")
    add("--skip_relu", action=YES_NO, help="skips of D's blocks take ReLU(x) instead of x")

    add = p.add_argument_group("training").add_argument
    add("--iterations", type=positive, help="each is the updates of D, then those of G")
    add("--batch_size", type=BATCH, help="images per update and process")
    add("--batch_size_in_gpu", type=BATCH.or_0, default=0,
        help="images at a time: gradients add up to --batch_size (0: all)")
    add("--d_steps_per_iter", type=positive, help="updates of D per iteration")
    add("--g_steps_per_iter", type=positive, help="updates of G per iteration")
    add("--g_lr", type=amount, help="Adam's rate for G (two rates: sec. 4.2)")
    add("--d_lr", type=amount, help="Adam's rate for D (two rates: sec. 4.2)")
    add("--beta1", type=share, help="Adam's beta1")
    add("--beta2", type=share, help="Adam's beta2")
    add("--adam_eps", type=amount, help="Adam's epsilon")
    add("--adv_loss", choices=["hinge", "dcgan", "wgan_gp", "gan"],
        help="adversarial loss (SAGAN: hinge, eq. 4)")
    add("--lambda_gp", type=amount, default=10.0, help="weight of the penalty of wgan_gp")
    add("--fake_labels", choices=["uniform", "real"],
        help="labels of generated images: uniform, or the real batch's")
    add("--inst_noise_sigma", type=amount, default=0.0,
        help="std of Gaussian noise on D's inputs, in pixel units of [-1, 1]")
    add("--inst_noise_sigma_iters", type=positive, default=2000,
        help="iterations until that noise has fallen to 0")
    add("--ema_decay", type=share, help="decay of the moving average of G per update; 0: none")
    add("--ema_start", type=not_negative, help="iteration from which G is averaged (copied before)")
    add("--use_ema", action=YES_NO,
        help="start from the averaged G of --pretrained_model, or by --no_ema from the raw one "
             "(default: a published file's average, a checkpoint's raw G beside its average)")
    add("--no_ema", dest="use_ema", action="store_false", default=argparse.SUPPRESS,
        help="start from the raw G")
    add("--d_moves_stats", action=YES_NO,
        help="G's running statistics move in D's updates, too, not in its own alone")
    add("--sync_bn", action=YES_NO, help="BatchNorm statistics over all cards (GPU)")

    run_flags(p, name="sagan", output_dir="./sagan_models")
    p.add_argument("--max_frames_per_gif", type=SHEET.or_0, default=0,
                   help="at the end join up to this many sample grids to a GIF; 0: no")

    original_words(p, ORIGINAL)
    add = p.add_argument_group("of the original: what became one of the flags above").add_argument
    add("--centercrop", action="store_true", help="--crop center --zoom CENTERCROP_SIZE / IMSIZE")
    add("--centercrop_size", type=PX.or_0, default=0, help="px; 0: --imsize")
    add("--dont_resize", action="store_true", help="--crop none")
    add("--disable_cuda", action="store_true", help="--device cpu")
    add("--parallel", type=int, default=1, choices=[0, 1], help="0: refuse several processes")
    add("--state_dict_or_model", default="state_dict", choices=["state_dict", "model"],
        help="what --pretrained_model holds: Paddle has state dicts only")
    return p
# fmt: on


def parse_args(argv=None):
    """The flags as a namespace: the recipe's values, overridden by the command line's.

    The original's words are turned into ours here: nothing else reads them.
    """
    args = with_recipe(parser(), RECIPES, argv, needs=NEEDS, stands_for=STANDS_FOR)
    args.form = RECIPES[args.recipe]["form"]
    args.cards = RECIPES[args.recipe]["cards"]
    if args.centercrop_size > args.imsize:
        raise UserError(
            f"--centercrop_size {args.centercrop_size}: must lie in 1..{args.imsize} (--imsize)"
        )
    if args.centercrop:
        args.zoom = (args.centercrop_size or args.imsize) / args.imsize
    if not 0 < args.zoom <= 1:
        raise UserError(f"--zoom {args.zoom:g}: must lie above 0, and at most at 1")
    if not args.parallel and process.world_size() > 1:
        raise UserError(
            "--parallel 0: this is one of several processes; "
            "start it without paddle.distributed.launch"
        )
    if args.state_dict_or_model == "model":
        raise UserError(
            "--state_dict_or_model model: Paddle cannot save whole models; give a file of weights"
        )
    return args


def choose_generator(state, averaged, path):
    """Leave in `state` the one generator that --use_ema (True) or --no_ema (False) names, of a
    checkpoint that holds both; None leaves both.

    Raises: UserError where the file does not hold it.
    """
    if averaged is None:
        return
    average = state.pop("generator_ema", None)
    if averaged and average is None and not state.get("source", {}).get("ema"):
        raise UserError(f"--use_ema: {path} holds the raw generator only; leave the flag out")
    if averaged and average is not None:
        state["generator"] = average


def main(argv=None):
    """Build the data, the networks and the trainer, then run; returns the exit code."""
    args = parse_args(argv)
    if args.list_recipes:
        return print(describe_recipes())
    configured = begin(args, reads=[args.data_path])  # before Paddle is imported
    import paddle

    from convert import read_weights
    from model import Discriminator, Generator, architecture
    from trainer import Trainer

    if args.sync_bn and process.world_size() > 1 and paddle.get_device() == "cpu":
        raise UserError(
            "--sync_bn: Paddle's SyncBatchNorm needs GPUs; give --no-sync_bn to train without it"
        )
    data = make_dataset(args)
    if args.check_data:
        return data_report.report(data, describe(data), args.num_workers)
    changes = {"z_dim": args.z_dim, "g_conv_dim": args.g_conv_dim, "d_conv_dim": args.d_conv_dim}
    for name in ("g_attention", "d_attention"):  # else the form's own
        if getattr(args, name) is not None:
            changes[name] = getattr(args, name)
    classes = len(data.classes)
    arch = architecture(args.form, args.imsize, classes, skip_relu=args.skip_relu, **changes)
    paddle.seed(args.seed)  # the first weights
    trainer = Trainer(Generator(arch), Discriminator(arch), arch=arch, args=args, dataset=data)
    notes = [configured, *run_notes(args, RECIPES[args.recipe]), describe(data)]
    if args.pretrained_model:
        path = args.pretrained_model
        state = from_main(lambda: read_weights(path, ema=args.use_ema))
        choose_generator(state, args.use_ema, path)
        notes += trainer.start_from(state, args.pretrained_model)
    return trainer.train(notes)


if __name__ == "__main__":
    process.command(main)()
