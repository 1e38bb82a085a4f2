"""Train SAGAN (Zhang et al., ICML 2019).   cd sagan && python train.py --data_path .../train

Several cards: python -m paddle.distributed.launch train.py --data_path .../train
"""

import argparse

from dataset import CROPS, describe, make_dataset
from recipes import RECIPES, describe_recipes
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import amount, not_negative, positive, ranges_or_none, share
from shared_metrics.runs.folder import run_folder


def parser():
    """The flags of train.py; the recipe's own values become their defaults in `parse_args`."""
    p = argparse.ArgumentParser(
        description=__doc__,
        usage="python train.py --data_path PATH [flags; --help lists them]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add(
        "--recipe",
        default="sagan128",
        choices=list(RECIPES),
        help="published setting; explicit flags override it",
    )
    add(
        "--list_recipes",
        action="store_true",
        help="print the recipes with their published scores and exit",
    )
    data_flags(p.add_argument_group("data").add_argument)
    networks_flags(p.add_argument_group("networks").add_argument)
    training_flags(p.add_argument_group("training").add_argument)
    run_flags(p.add_argument_group("run").add_argument)
    return p


def data_flags(add):
    """What to train on."""
    add(
        "--data_path",
        default="",
        help="folder with one sub-folder of images per class, any image type",
    )
    add(
        "--dataset",
        default="folder",
        choices=["folder", "imagenet", "lfw", "cifar10", "fake", "hdf5", "lsun"],
        help="folder, imagenet, lfw: class folders; cifar10: these or cifar-10-batches-py; fake: "
        "noise, no data needed",
    )
    add(
        "--num_classes",
        type=not_negative,
        default=0,
        help="expected number of classes; 0 takes what the data holds",
    )
    add("--imsize", type=positive, help="side of the images: 32, 64, 128 or 256 px")
    add("--crop", choices=CROPS, help="how an image becomes square: see dataset.ClassFolder")
    add("--flip", action=argparse.BooleanOptionalAction, help="mirror images at random")
    add(
        "--centercrop",
        action="store_true",
        help="cut the central --centercrop_size px after scaling the short edge",
    )
    add(
        "--centercrop_size",
        type=not_negative,
        default=0,
        help="px of an image whose short edge is --imsize; 0: all",
    )
    add("--dont_resize", action="store_true", help="images must already be --imsize px square")
    add("--dont_normalize", action="store_true", help="pixels in [0, 1] instead of [-1, 1]")
    add("--dont_shuffle", action="store_true", help="take the images in the order of their names")
    add("--dont_drop_last", action="store_true", help="use the last, smaller batch of an epoch too")
    add(
        "--skip_bad_images",
        action="store_true",
        help="replace unreadable images by the next ones and count them",
    )
    add(
        "--num_workers",
        type=not_negative,
        default=4,
        help="threads that decode images; 0 decodes in the training loop",
    )


def networks_flags(add):
    """What to train."""
    add("--z_dim", type=positive, help="length of the latent vector")
    add("--g_conv_dim", type=positive, help="base width of G, in channels")
    add("--d_conv_dim", type=positive, help="base width of D, in channels")
    add(
        "--g_attention",
        type=ranges_or_none,
        default=None,
        help="resolutions of G with self-attention, e.g. 16,32 or none",
    )
    add(
        "--d_attention",
        type=ranges_or_none,
        default=None,
        help="resolutions of D with self-attention, or none",
    )
    add(
        "--skip_relu",
        action=argparse.BooleanOptionalAction,
        help="skips of D's blocks take ReLU(x) instead of x",
    )


def training_flags(add):
    """The updates."""
    add(
        "--iterations",
        "--total_step",
        type=positive,
        help="iterations; each is the D updates, then the G updates",
    )
    add("--batch_size", type=positive, help="images per update and process")
    add(
        "--batch_size_in_gpu",
        type=not_negative,
        default=0,
        help="images at a time: gradients add up to --batch_size (0: all)",
    )
    add("--d_steps_per_iter", type=positive, help="updates of D per iteration")
    add("--g_steps_per_iter", type=positive, help="updates of G per iteration")
    add("--g_lr", type=amount, help="Adam's rate for G (two rates: sec. 4.2)")
    add("--d_lr", type=amount, help="Adam's rate for D (two rates: sec. 4.2)")
    add("--beta1", type=share, help="Adam's beta1")
    add("--beta2", type=share, help="Adam's beta2")
    add("--adam_eps", type=amount, help="Adam's epsilon")
    add(
        "--adv_loss",
        choices=["hinge", "dcgan", "wgan_gp", "gan"],
        help="adversarial loss (SAGAN: hinge, eq. 4)",
    )
    add("--lambda_gp", type=amount, default=10.0, help="weight of the gradient penalty of wgan_gp")
    add(
        "--fake_labels",
        choices=["uniform", "real"],
        help="labels of generated images: uniform, or the real batch's",
    )
    add(
        "--inst_noise_sigma",
        type=amount,
        default=0.0,
        help="std of Gaussian noise on D's inputs, in pixel units of [-1, 1]",
    )
    add(
        "--inst_noise_sigma_iters",
        type=positive,
        default=2000,
        help="iterations until that noise has fallen to 0",
    )
    add("--ema_decay", type=share, help="decay of the moving average of G per update; 0: none")
    add("--ema_start", type=not_negative, help="iteration from which G is averaged (copied before)")
    add(
        "--sync_bn",
        action=argparse.BooleanOptionalAction,
        help="BatchNorm statistics over all cards (GPU)",
    )
    add("--amp", default="none", choices=["none", "fp16", "bf16"], help="mixed precision (GPU)")


def run_flags(add):
    """Where the run goes, what it writes and when."""
    add("--output_dir", "--save_path", default="./sagan_models", help="everything the run writes")
    add("--name", default="sagan", help="the run's name in its records")
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
        "--state_dict_or_model",
        default="state_dict",
        choices=["state_dict", "model"],
        help="what that file holds",
    )
    add(
        "--seed",
        "--manual_seed",
        type=not_negative,
        default=29,
        help="fixes weights, order, latents and augmentation",
    )
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--disable_cuda", action="store_true", help="the same as --device cpu")
    add(
        "--parallel",
        type=int,
        default=1,
        choices=[0, 1],
        help="0: refuse to run as one of several processes",
    )
    add("--log_every", "--log_step", type=positive, default=10, help="iterations between log lines")
    add(
        "--sample_every",
        "--sample_step",
        type=positive,
        default=1000,
        help="iterations between sample grids",
    )
    add(
        "--save_every",
        "--model_save_step",
        type=positive,
        default=1000,
        help="iterations between checkpoints",
    )
    add(
        "--keep_checkpoints",
        type=not_negative,
        default=3,
        help="newest checkpoints to keep; 0: all",
    )
    add(
        "--max_frames_per_gif",
        type=not_negative,
        default=0,
        help="at the end join up to this many sample grids to a GIF; 0: no",
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
    first.add_argument("--recipe", default="sagan128")
    name = first.parse_known_args(argv)[0].recipe
    p = parser()
    p.set_defaults(**{k: v for k, v in RECIPES.get(name, {}).items() if k not in ("form", "cards")})
    args = p.parse_args(argv)
    args.form, args.cards = RECIPES[args.recipe]["form"], RECIPES[args.recipe]["cards"]
    args.centercrop_size = args.centercrop_size or args.imsize
    if not args.parallel and process.world_size() > 1:
        raise UserError(
            "--parallel 0: this is one of several processes; start it without "
            "paddle.distributed.launch"
        )
    if args.state_dict_or_model == "model":
        raise UserError(
            "--state_dict_or_model model: Paddle cannot save whole models; give a file of weights"
        )
    if args.pretrained_model and args.resume:
        raise UserError(
            "--pretrained_model and --resume: give one; --resume goes on, --pretrained_model "
            "starts anew"
        )
    return args


def check_device(args):
    """Raise UserError for flags that need a GPU where there is none."""
    import paddle

    if paddle.get_device() != "cpu":
        return
    if args.amp != "none":
        raise UserError(
            f"--amp {args.amp}: Paddle has no mixed precision on the CPU; leave the flag out"
        )
    if args.sync_bn and process.world_size() > 1:
        raise UserError(
            "--sync_bn: Paddle's SyncBatchNorm needs GPUs; give --no-sync_bn to train without it"
        )


def notes(args):
    """Lines for the head of the log: what runs where, and how the batch compares with the
    recipe's.
    """
    import paddle

    world = process.world_size()
    recipe = RECIPES[args.recipe]
    lines = [
        f"{args.name}: recipe {args.recipe}, {world} process(es) on {paddle.get_device()}, Paddle "
        f"{paddle.__version__}"
    ]
    if (args.batch_size * world) != recipe["batch_size"] * recipe["cards"]:
        published = f"{recipe['batch_size']} x {recipe['cards']}"
        lines.append(
            f"batch {args.batch_size} x {world} process(es); the published run had {published}"
        )
    return lines


def main(argv=None):
    """Build the data, the networks and the trainer, then run; returns the exit code."""
    args = parse_args(argv)
    if args.list_recipes:
        return print(describe_recipes())
    cpu = process.configure_cpu()  # before Paddle is imported
    process.choose_device("cpu" if args.disable_cuda else args.device)
    import paddle

    from convert import read_weights
    from model import Discriminator, Generator, architecture
    from trainer import Trainer

    check_device(args)
    process.init_distributed()
    data = make_dataset(args)
    changes = {"z_dim": args.z_dim, "g_conv_dim": args.g_conv_dim, "d_conv_dim": args.d_conv_dim}
    attention = {"g_attention": args.g_attention, "d_attention": args.d_attention}
    changes |= {name: sides for name, sides in attention.items() if sides is not None}
    arch = architecture(
        args.form, args.imsize, len(data.classes), skip_relu=args.skip_relu, **changes
    )
    with run_folder(args) as found:
        paddle.seed(args.seed)
        trainer = Trainer(Generator(arch), Discriminator(arch), arch, args, data)
        if found:
            path, state = found
            trainer.load(state, path)
        elif args.pretrained_model:
            trainer.start_from(read_weights(args.pretrained_model), args.pretrained_model)
        return trainer.train(notes=[cpu, *notes(args), describe(data)])


if __name__ == "__main__":
    process.command(main)()
