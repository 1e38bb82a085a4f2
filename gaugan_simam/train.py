"""Train GauGAN with SimAM (Park et al., CVPR 2019; PaddleGAN's photopen).

cd gaugan_simam && python train.py --config-file configs/photopen.yaml   or   --recipe nvlabs-coco --data_path PATH

Several cards: python -m paddle.distributed.launch train.py ...
"""

import argparse
import time
from dataclasses import fields
from pathlib import Path

import config
from dataset import PREPROCESS, describe, make_dataset
from recipes import RECIPES, describe_recipes
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import amount, not_negative, positive, share
from shared_metrics.runs import checkpoint
from shared_metrics.runs.folder import run_folder

DEFAULT = "gaugan"
LENGTH = (
    "iterations",
    "epochs",
    "niter",
    "niter_decay",
    "decay_iterations",
)  # one of them replaces all of a recipe's


def parser():
    """The flags of train.py; the values of the recipe and the yaml file become their defaults in
    `parse_args`.
    """
    p = argparse.ArgumentParser(
        description=__doc__,
        usage="python train.py [--config-file YAML [-o KEY=VALUE ...]] [flags; --help lists them]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add(
        "--config-file",
        "-c",
        dest="config_file",
        default="",
        help="yaml file as configs/photopen.yaml; flags outrank",
    )
    add(
        "-o",
        "--opt",
        "--o",
        dest="opt",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the file, as in model.batchSize=4",
    )
    add(
        "--recipe",
        default=DEFAULT,
        choices=list(RECIPES),
        help="published setting; file and flags override it",
    )
    add(
        "--list_recipes",
        action="store_true",
        help="print the recipes with the paper's numbers and exit",
    )
    data_flags(p.add_argument_group("data").add_argument)
    networks_flags(p.add_argument_group("networks").add_argument)
    losses_flags(p.add_argument_group("losses").add_argument)
    training_flags(p.add_argument_group("training").add_argument)
    run_flags(p.add_argument_group("run").add_argument)
    return p


def data_flags(add):
    """What to train on."""
    add(
        "--data_path",
        "--dataroot",
        dest="data_path",
        default="",
        help="folder with train_img and train_inst",
    )
    add("--image_dir", default="", help="instead: folder of photos")
    add("--label_dir", default="", help="and folder of label maps of the same names")
    add("--instance_dir", default="", help="and, if any, folder of instance maps")
    add(
        "--test_data_path",
        default="",
        help="folder with val_img and val_inst (or test_*) for sample sheets and "
        "scores; '': DATA_PATH, or the training pairs where it has none",
    )
    add("--label_nc", type=positive, help="number of classes; `python dataset.py PATH` tells yours")
    add(
        "--contain_dontcare_label",
        action=argparse.BooleanOptionalAction,
        help="id label_nc, and 255, is unknown",
    )
    add("--no_instance", action="store_true", help="no edge map among the inputs")
    add("--edges", dest="no_instance", action="store_false", help="the opposite of --no_instance")
    add("--preprocess_mode", choices=PREPROCESS, help="how pictures come to the crop's size")
    add(
        "--load_size",
        type=not_negative,
        help="px before the random crop; 0: 286 for 256, in proportion",
    )
    add("--flip", action=argparse.BooleanOptionalAction, help="mirror pairs at random")
    add(
        "--skip_bad_images",
        action="store_true",
        help="replace unreadable pairs by the next ones and count them",
    )
    add(
        "--num_workers",
        type=not_negative,
        default=4,
        help="threads that decode; 0 decodes in the training loop",
    )


def networks_flags(add):
    """What to train."""
    add(
        "--variant",
        choices=["photopen", "nvlabs"],
        help="activations, D's norms, first weights, perceptual loss",
    )
    add("--crop_size", type=positive, help="width of the images in px")
    add("--aspect_ratio", type=amount, help="width / height")
    add(
        "--num_upsampling_layers",
        choices=["normal", "more", "most"],
        help="5, 6 or 7 doublings of the side in G",
    )
    add("--norm_G", help="[spectral]spade{batch|syncbatch|instance}{k}x{k}")
    add("--ngf", type=positive, help="base width of G")
    add("--ndf", type=positive, help="base width of D")
    add("--num_D", type=positive, help="scales of D")
    add("--n_layers_D", type=positive, help="blocks of each scale before its logits")
    add("--simam", action=argparse.BooleanOptionalAction, help="SimAM after every block of G and D")
    add("--simam_lambda", type=amount, help="SimAM's lambda")
    add(
        "--use_vae",
        action=argparse.BooleanOptionalAction,
        help="G starts from an encoder's latent of the photo",
    )
    add("--z_dim", type=positive, help="length of that latent")
    add("--nef", type=positive, help="base width of the encoder")


def losses_flags(add):
    """What to minimise."""
    add("--gan_mode", choices=["hinge", "original", "ls", "w"], help="adversarial loss")
    add("--lambda_feat", type=amount, help="weight of feature matching")
    add("--lambda_vgg", type=amount, help="weight of the perceptual loss; it needs --vgg_weights")
    add("--lambda_kld", type=amount, help="weight of the KL loss, with --use_vae")
    add(
        "--vgg_weights",
        default="",
        help="file of a VGG19: PaddleGAN's, paddle.vision's or torchvision's; '': no "
        "perceptual loss",
    )
    add(
        "--vgg_size",
        type=not_negative,
        help="side in px to which the perceptual loss resizes images; 0: it does not",
    )


def training_flags(add):
    """The updates. Their number has no default here: --iterations, --epochs, --niter and so on
    replace the recipe's.
    """
    own = dict(type=not_negative, default=argparse.SUPPRESS)
    add(
        "--iterations",
        help="updates of D in all; any of these five replaces the recipe's length",
        **own,
    )
    add("--epochs", help="passes over the data in all, if not --iterations", **own)
    add(
        "--niter",
        help="epochs at the full rates; the length where neither of those is given",
        **own,
    )
    add("--niter_decay", help="epochs after these in which the rates fall linearly to 0", **own)
    add(
        "--decay_iterations", help="instead: the last so many iterations, in which they fall", **own
    )
    add(
        "--batch_size",
        "--batchSize",
        dest="batch_size",
        type=positive,
        help="pairs per update and process",
    )
    add(
        "--accumulate",
        type=positive,
        default=1,
        help="parts of the batch that pass one after the other: less memory",
    )
    add("--D_steps_per_G", type=positive, help="G is updated at every so many-th iteration")
    add("--g_lr", type=amount, help="Adam's rate for G and the encoder")
    add("--d_lr", type=amount, help="Adam's rate for D")
    add("--beta1", type=share, help="Adam's beta1")
    add("--beta2", type=share, help="Adam's beta2")
    add("--ema_decay", type=share, help="decay of the moving average of G per update; 0: none")
    add("--ema_start", type=not_negative, help="iteration from which G is averaged (copied before)")
    add("--amp", nargs="?", const="fp16", default="none", choices=["none", "fp16", "bf16"],
        help="mixed precision (GPU); alone: fp16")  # fmt: skip


def run_flags(add):
    """Where the run goes, what it writes and when."""
    add(
        "--output_dir",
        default="",
        help="the run's folder; '': output_dir/NAME-date-time, or as the yaml file says",
    )
    add(
        "--name",
        default="",
        help="the run's name in its records; '': the yaml file's or the recipe's",
    )
    add(
        "--resume",
        nargs="?",
        const="auto",
        default="",
        help="go on: auto (newest whole checkpoint), a checkpoint, PaddleGAN's "
        "iter_N_checkpoint.pdparams",
    )
    add(
        "--load",
        default="",
        help="start from these weights: a checkpoint or any file convert.py knows",
    )
    add(
        "--evaluate-only",
        dest="evaluate_only",
        action="store_true",
        help="is test.py's task here; it tells how",
    )
    add(
        "--seed",
        type=not_negative,
        default=0,
        help="fixes weights, order, latents and augmentation",
    )
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--log_every", type=positive, default=10, help="iterations between log lines")
    add("--sample_every", type=positive, default=500, help="iterations between sample sheets")
    add("--save_every", type=positive, default=1000, help="iterations between checkpoints")
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
    add("--eval_samples", type=positive, default=5000, help="label maps per evaluation, at most")
    add(
        "--real_stats",
        default="",
        help="statistics file or image folder for FID; default: the photos of those maps",
    )
    add(
        "--inception_weights",
        default="auto",
        help="auto (download), random (not comparable) or a file",
    )


def parse_args(argv=None):
    """The flags as a namespace: the recipe's values, overridden by the yaml file's, these by the
    command line.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default=DEFAULT)
    first.add_argument("--config-file", "-c", dest="config_file", default="")
    first.add_argument("-o", "--opt", "--o", dest="opt", nargs="+", action="extend", default=[])
    known = first.parse_known_args(argv)[0]
    base = defaults(known.recipe, known.config_file, known.opt)
    length = {name: base.pop(name, 0) for name in LENGTH}
    root, test_data = base.pop("output_dir", "output_dir"), base.pop("test_data_path", "")
    p = parser()
    p.set_defaults(**base)
    args = p.parse_args(argv)
    given = {name: getattr(args, name) for name in LENGTH if hasattr(args, name)}
    vars(args).update(dict.fromkeys(LENGTH, 0) | given if given else length)
    if (
        not args.test_data_path
        and args.data_path == base.get("data_path")
        and has_test_pairs(test_data)
    ):
        args.test_data_path = test_data
    check(args)
    args.name = args.name or (Path(args.config_file).stem if args.config_file else args.recipe)
    args.output_dir = args.output_dir or str(new_folder(root, args.name, args.resume))
    return args


def defaults(recipe, config_file, overrides):
    """{flag: value} of a recipe and a yaml file, which outranks it."""
    base = {name: value for name, value in RECIPES.get(recipe, {}).items() if name != "cards"}
    if overrides and not config_file:
        raise UserError(
            f"-o {overrides[0]}: changes a value of a yaml file; name it, --config-file "
            "configs/photopen.yaml"
        )
    if not config_file:
        return base
    if base.get("variant") == "nvlabs":
        raise UserError(
            f"--recipe {recipe}: the networks of --config-file are photopen's; leave one of the "
            "two out"
        )
    values = config.settings(
        config.load_config(config_file, overrides), reversed_rates=recipe == "photopen"
    )
    return (
        base
        | values
        | {"niter": values.pop("decay_start"), "niter_decay": values.pop("decay_epochs")}
    )


def check(args):
    """Raise UserError for flags that do not go together."""
    if args.evaluate_only:
        raise UserError(
            "--evaluate-only: test.py does that: python test.py --pretrained_model FILE --metrics "
            "fid"
        )
    if not args.list_recipes and not (
        args.iterations or args.epochs or args.niter + args.niter_decay
    ):
        raise UserError("--iterations 0: nothing to train; give --iterations, --epochs or --niter")
    if args.decay_iterations and args.niter_decay:
        raise UserError("--decay_iterations and --niter_decay: give one, iterations or epochs")
    if args.load and args.resume:
        raise UserError(
            "--load and --resume: give one; --resume goes on, --load starts anew from weights"
        )


def new_folder(root, name, resume=""):
    """The folder of a run that --output_dir does not name: ROOT/NAME-2022-01-31-23-59, as
    PaddleGAN's.

    To go on with a run is to stay in its folder: --resume auto takes the newest of this name that
        has checkpoints.
    """
    root = Path(root)
    if resume == "auto":
        runs = [path.parent for path in root.glob(f"{name}-*/checkpoints")]
        if runs:
            return max(runs)
    elif checkpoint.NAME.fullmatch(Path(resume).name):
        return Path(resume).parent.parent
    stamped = root / f"{name}-{time.strftime('%Y-%m-%d-%H-%M')}"
    names = (stamped, *(Path(f"{stamped}-{i}") for i in range(2, 10_000)))
    return next(path for path in names if not path.exists())


def has_test_pairs(root):
    """Whether a folder holds val_img or test_img."""
    return any((Path(root).expanduser() / f"{split}_img").is_dir() for split in ("val", "test"))


def held_out(args, arch, data):
    """(pairs for sample sheets and scores, a line on them): the test data's, else the training
    pairs themselves.
    """
    root = Path(args.test_data_path or args.data_path).expanduser()
    if root != Path() and has_test_pairs(root):
        folders = {"data_path": str(root), "image_dir": "", "label_dir": "", "instance_dir": ""}
        pairs = make_dataset(argparse.Namespace(**vars(args) | folders), arch, "val")
        return pairs, f"sample sheets and scores: {len(pairs):,} held-out pairs of {root}"
    if args.test_data_path not in ("", args.data_path):
        raise UserError(
            f"--test_data_path {args.test_data_path}: no folder val_img or test_img in it"
        )
    return (
        data.for_testing(),
        "sample sheets and scores: the training pairs, since no val_img is given",
    )


def load_perceptual(args):
    """(VGG19 or None, a line on it or ""). Without weights the loss is left out: args.lambda_vgg
    becomes 0.
    """
    from vgg import load_vgg

    if not args.lambda_vgg:
        return None, ""
    if args.vgg_weights:
        return load_vgg(
            args.vgg_weights, args.variant
        ), f"perceptual loss: VGG19 of {args.vgg_weights}"
    asked, args.lambda_vgg = args.lambda_vgg, 0.0
    return (
        None,
        f"warning: no --vgg_weights, so no perceptual loss: lambda_vgg is 0 instead of {asked:g}",
    )


def notes(args, trainer):
    """Lines for the head of the log: what runs where, how long, other than the recipe says, and
    what has no effect.
    """
    import paddle

    world, recipe = process.world_size(), RECIPES[args.recipe]
    first, number = trainer.decay()
    falling = (
        f", the rates falling to 0 in the {number:,} from {first:,} on"
        if number and first < trainer.total
        else ""
    )
    lines = [
        f"{args.name}: recipe {args.recipe}, {world} process(es) on {paddle.get_device()}, Paddle "
        f"{paddle.__version__}",
        f"{trainer.total:,} iterations of {args.batch_size * world} pairs, {trainer.per_epoch:,} "
        f"an epoch{falling}",
    ]
    other = {
        n: v
        for n, v in recipe.items()
        if n not in (*LENGTH, "batch_size", "cards") and getattr(args, n) != v
    }
    if other:
        told = ", ".join(f"{name} {getattr(args, name)} ({value})" for name, value in other.items())
        lines.append(f"other than in recipe {args.recipe}: {told}")
    if args.batch_size * world != recipe["batch_size"] * recipe["cards"]:
        published = f"{recipe['batch_size']} x {recipe['cards']}"
        lines.append(f"batch {args.batch_size} x {world} process(es); the recipe has {published}")
    if args.config_file:
        lines += config.notes(config.load_config(args.config_file, args.opt))
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
    from engine import read_engine
    from model import Architecture, Discriminator, Encoder, Generator
    from trainer import Trainer

    if args.amp != "none" and paddle.get_device() == "cpu":
        raise UserError(
            f"--amp {args.amp}: Paddle has no mixed precision on the CPU; leave the flag out"
        )
    process.init_distributed()
    arch = Architecture(**{f.name: getattr(args, f.name) for f in fields(Architecture)})
    data = make_dataset(args, arch)
    pairs, about_pairs = held_out(args, arch, data)
    vgg, about_vgg = load_perceptual(args)
    lines = [line for line in (cpu, describe(data), about_pairs, about_vgg) if line]
    foreign = resumes_foreign(args) and read_engine(args.resume, arch)
    with run_folder(
        argparse.Namespace(**vars(args) | ({"resume": ""} if foreign else {}))
    ) as found:
        paddle.seed(args.seed)
        encoder = Encoder(arch) if arch.use_vae else None
        trainer = Trainer(
            Generator(arch), Discriminator(arch), arch, args, data, pairs, encoder, vgg
        )
        if foreign:
            state, told = foreign
            trainer.go_on(state, args.resume)
            lines += told
        elif found:
            path, state = found
            trainer.load(state, path)
        elif args.load:
            state = read_weights(args.load, **arch.to_dict())
            trainer.start_from(state, args.load)
            lines += [f"{args.load}: {note}" for note in state.get("notes", ())]
        return trainer.train(notes=[*notes(args, trainer), *lines])


def resumes_foreign(args):
    """Whether --resume may name a file of PaddleGAN's engine: a file, not of our own naming."""
    return Path(args.resume).is_file() and not checkpoint.NAME.fullmatch(Path(args.resume).name)


if __name__ == "__main__":
    process.command(main)()
