"""Train GauGAN with SimAM (Park et al., CVPR 2019; PaddleGAN's photopen).

cd gaugan_simam && python train.py --config-file configs/photopen.yaml
               or  python train.py --recipe nvlabs-coco --data_path PATH

Several cards: python -m paddle.distributed.launch train.py ...   Without --output_dir a run goes to
output_dir/NAME-date-time (output_dir: or what the yaml file names), without --name its name is the
file's or the recipe's. --resume takes PaddleGAN's iter_N_checkpoint.pdparams, too.
"""

import argparse
import sys
import time
from dataclasses import fields
from pathlib import Path

import config
from dataset import PREPROCESS, describe, make_dataset
from recipes import RECIPES, describe_recipes
from shared_metrics import data_report, process
from shared_metrics.errors import UserError
from shared_metrics.flags import (
    BATCH,
    CHANNELS,
    CLASSES,
    LAYERS,
    PX,
    YES_NO,
    amount,
    aspect,
    begin,
    new_parser,
    not_negative,
    original_words,
    positive,
    run_flags,
    run_notes,
    share,
    with_recipe,
)
from shared_metrics.label_maps import has_test_pairs
from shared_metrics.runs import checkpoint
from shared_metrics.runs.peers import from_main

# One of them replaces all of a recipe's.
LENGTH = ("iterations", "epochs", "niter", "niter_decay", "decay_iterations")
# What flags need to count: see shared_metrics.needs.
NEEDS = {
    **dict.fromkeys(("z_dim", "nef", "lambda_kld"), "use_vae"),
    "simam_lambda": "simam",
    "ema_start": "ema_decay",
    "vgg_weights": "lambda_vgg",
    "instance_dir": "label_dir, no_instance no",
}
ORIGINAL = {"--dataroot": "--data_path", "--batchSize": "--batch_size"}
ORIGINAL |= {"--load": "--pretrained_model"}


# fmt: off
def parser():
    """The flags of train.py; `parse_args` gives them the values of the recipe and the yaml file as
    defaults.
    """
    p = new_parser(__doc__, "python train.py [--config-file YAML [-o KEY=VALUE ...]] [flags; "
                            "--help lists them]")
    p.add_argument("--recipe", default="gaugan", choices=list(RECIPES),
                   help="published setting; file and flags override it")
    p.add_argument("--list_recipes", action="store_true",
                   help="print the recipes with the paper's numbers and exit")
    file_flags(p)

    add = p.add_argument_group("data").add_argument
    add("--data_path", default="", help="folder with train_img and train_inst")
    add("--image_dir", default="", help="instead: folder of photos")
    add("--label_dir", default="", help="and folder of label maps of the same names")
    add("--instance_dir", default="", help="and, if any, folder of instance maps")
    add("--test_data_path", default="",
        help="folder with val_img and val_inst (or test_*) for sample sheets and scores; '': "
             "DATA_PATH, or the training pairs where it has none")
    add("--label_nc", type=CLASSES, help="number of classes; `python dataset.py PATH` tells yours")
    add("--contain_dontcare_label", action=YES_NO, help="id label_nc, and 255, is unknown")
    add("--no_instance", action="store_true", help="no edge map among the inputs")
    add("--edges", dest="no_instance", action="store_false", help="the opposite of --no_instance")
    add("--preprocess_mode", choices=PREPROCESS, help="how pictures come to the crop's size")
    add("--load_size", type=PX.or_0,
        help="px before the random crop; 0: 286 for 256, in proportion")
    add("--flip", action=YES_NO, help="mirror pairs at random")

    add = p.add_argument_group("networks").add_argument
    add("--variant", choices=["photopen", "nvlabs"],
        help="activations, D's norms, first weights, perceptual loss")
    add("--crop_size", type=PX, help="width of the images in px")
    add("--aspect_ratio", type=aspect, help="width / height")
    add("--num_upsampling_layers", choices=["normal", "more", "most"],
        help="5, 6 or 7 doublings of the side in G")
    add("--norm_G", help="[spectral]spade{batch|syncbatch|instance}{k}x{k}")
    add("--ngf", type=CHANNELS, help="base width of G")
    add("--ndf", type=CHANNELS, help="base width of D")
    add("--num_D", type=LAYERS, help="scales of D")
    add("--n_layers_D", type=LAYERS, help="blocks of each scale before its logits")
    add("--simam", action=YES_NO, help="SimAM after every block of G and D")
    add("--simam_lambda", type=amount, help="SimAM's lambda")
    add("--use_vae", action=YES_NO, help="G starts from an encoder's latent of the photo")
    add("--z_dim", type=CHANNELS, help="length of that latent")
    add("--nef", type=CHANNELS, help="base width of the encoder")

    add = p.add_argument_group("losses").add_argument
    add("--gan_mode", choices=["hinge", "original", "ls", "w"], help="adversarial loss")
    add("--lambda_feat", type=amount, help="weight of feature matching")
    add("--lambda_vgg", type=amount, help="weight of the perceptual loss; it needs --vgg_weights")
    add("--lambda_kld", type=amount, help="weight of the KL loss, with --use_vae")
    add("--vgg_weights", default="",
        help="file of a VGG19: PaddleGAN's, paddle.vision's or torchvision's; '': no perceptual "
             "loss")
    add("--vgg_size", type=PX.or_0,
        help="side in px to which the perceptual loss resizes images; 0: it does not")

    add = p.add_argument_group("training").add_argument
    add("--iterations", type=not_negative,
        help="updates of D in all; any of these five replaces the recipe's length")
    add("--epochs", type=positive, default=0, help="passes over the data, if not --iterations")
    add("--niter", type=not_negative,
        help="epochs at the full rates; the length where neither of those is given")
    add("--niter_decay", type=not_negative,
        help="epochs after these in which the rates fall linearly to 0")
    add("--decay_iterations", type=not_negative, default=0,
        help="instead: the last so many iterations, in which they fall")
    add("--batch_size", type=BATCH, help="pairs per update and process")
    add("--accumulate", type=BATCH, default=1,
        help="parts of the batch that pass one after the other: less memory")
    add("--D_steps_per_G", type=positive, help="G is updated at every so many-th iteration")
    add("--redraw", action=YES_NO,
        help="D trains on images that the updated G draws anew, as in both originals; else on "
             "those of G's step: cheaper")
    add("--g_lr", type=amount, help="Adam's rate for G and the encoder")
    add("--d_lr", type=amount, help="Adam's rate for D")
    add("--beta1", type=share, help="Adam's beta1")
    add("--beta2", type=share, help="Adam's beta2")
    add("--ema_decay", type=share, help="decay of the moving average of G per update; 0: none")
    add("--ema_start", type=not_negative, help="iteration from which G is averaged (copied before)")

    run_flags(p, name="", output_dir="")
    p.set_defaults(sample_every=500, eval_samples=5000)
    original_words(p, ORIGINAL)
    add = p.add_argument_group("of the original: what another command does here").add_argument
    add("--evaluate-only", dest="evaluate_only", action="store_true", help="tells how: test.py")
    return p


def file_flags(p):
    """The flags that name the yaml file, which `file_values` reads before the others."""
    p.add_argument("--config-file", "-c", dest="config_file", default="",
                   help="yaml file as configs/photopen.yaml; flags outrank")
    p.add_argument("-o", "--opt", "--o", dest="opt", nargs="+", action="extend", default=[],
                   metavar="KEY=VALUE",
                   help="change a value of the file, as in model.batchSize=4")
# fmt: on


def parse_args(argv=None):
    """The flags as a namespace: the recipe's values, overridden by the yaml file's, these by the
    command line.
    """
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    values = file_values(argv)
    root = values.pop("output_dir", "output_dir")
    test_data = values.pop("test_data_path", "")
    args = with_recipe(parser(), RECIPES, argv, values, NEEDS)
    if test_data and args.data_path == values["data_path"] and has_test_pairs(test_data):
        args.test_data_path = args.test_data_path or test_data
    check(args)
    args.name = args.name or (Path(args.config_file).stem if args.config_file else args.recipe)
    args.output_dir = args.output_dir or str(new_folder(root, args.name, args.resume))
    return args


def file_values(argv):
    """{flag: value} of the yaml file, which outrank the recipe's. Where the command line has a
    length of its own, any other length is 0.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default="")
    file_flags(first)
    for name in LENGTH:
        first.add_argument(f"--{name}")
    args = first.parse_known_args(argv)[0]
    values = {}
    if args.config_file:
        if RECIPES.get(args.recipe, {}).get("variant") == "nvlabs":
            raise UserError(
                f"--recipe {args.recipe}: the networks of --config-file are photopen's; leave one "
                "of the two out"
            )
        file = config.load_config(args.config_file, args.opt)
        values = config.settings(file, reversed_rates=args.recipe == "photopen")
    elif args.opt:
        raise UserError(
            f"-o {args.opt[0]}: changes a value of a yaml file; name it, --config-file "
            "configs/photopen.yaml"
        )
    if any(getattr(args, name) is not None for name in LENGTH):
        values |= dict.fromkeys(LENGTH, 0)
    return values


def check(args):
    """Raise UserError for flags that do not go together."""
    if args.evaluate_only:
        raise UserError(
            "--evaluate-only: test.py does that: python test.py --pretrained_model FILE --metrics "
            "fid"
        )
    if not (args.iterations or args.epochs or args.niter or args.niter_decay):
        raise UserError("--iterations 0: nothing to train; give --iterations, --epochs or --niter")
    if args.decay_iterations and args.niter_decay:
        raise UserError("--decay_iterations and --niter_decay: give one, iterations or epochs")


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
    folder = stamped
    number = 1
    while folder.exists():
        number += 1
        folder = Path(f"{stamped}-{number}")
    return folder


def held_out(args, arch, data):
    """(pairs for sample sheets and scores, a line on them): the test data's, else the training
    pairs themselves.
    """
    root = args.test_data_path or args.data_path
    if root and has_test_pairs(root):
        folders = {"data_path": root, "image_dir": "", "label_dir": "", "instance_dir": ""}
        pairs = make_dataset(argparse.Namespace(**vars(args) | folders), arch, "val")
        pairs.palette = data.palette or pairs.palette
        return pairs, f"sample sheets and scores: {len(pairs):,} held-out pairs of {root}"
    if args.test_data_path not in ("", args.data_path):
        raise UserError(
            f"--test_data_path {args.test_data_path}: no folder val_img or test_img in it"
        )
    line = "sample sheets and scores: the training pairs, since no val_img is given"
    return data.for_testing(), line


def load_perceptual(args):
    """(VGG19 or None, a line on it or ""). Without weights the loss is left out: args.lambda_vgg
    becomes 0.
    """
    from vgg import load_vgg

    if not args.lambda_vgg:
        return None, ""
    if args.vgg_weights:
        vgg = load_vgg(args.vgg_weights, args.variant)
        return vgg, f"perceptual loss: VGG19 of {args.vgg_weights}"
    asked = args.lambda_vgg
    args.lambda_vgg = 0.0
    line = f"no --vgg_weights, so no perceptual loss: lambda_vgg is 0 instead of {asked:g}"
    return None, f"warning: {line}"


def decay_note(args):
    """One line: where the rates fall, or ""."""
    if args.decay_iterations:
        return f"the rates fall to 0 in the last {args.decay_iterations:,} iterations"
    if args.niter_decay:
        return f"the rates fall to 0 in {args.niter_decay:,} epochs, after {args.niter:,}"
    return ""


def recipe_note(args):
    """One line: what is other than the recipe says, or ""."""
    odd = []
    for name, value in RECIPES[args.recipe].items():
        if name not in (*LENGTH, "batch_size", "cards") and getattr(args, name) != value:
            odd.append(f"{name} {getattr(args, name)} ({value})")
    return f"other than in recipe {args.recipe}: {', '.join(odd)}" if odd else ""


def foreign_checkpoint(args, arch):
    """(state, notes) of --resume where that is a checkpoint of PaddleGAN's engine, else None."""
    from engine import read_engine

    path = Path(args.resume)
    if path.is_file() and not checkpoint.NAME.fullmatch(path.name):
        return read_engine(args.resume, arch)
    return None


def main(argv=None):
    """Build the data, the networks and the trainer, then run; returns the exit code."""
    args = parse_args(argv)
    if args.list_recipes:
        return print(describe_recipes())
    folders = [args.data_path, args.image_dir, args.label_dir, args.instance_dir]
    if args.test_data_path and has_test_pairs(args.test_data_path):
        folders.append(args.test_data_path)
    configured = begin(args, reads=folders)  # before Paddle is imported
    import paddle

    from convert import read_weights
    from model import Architecture, Discriminator, Encoder, Generator, sync_note
    from trainer import Trainer

    arch = Architecture(**{field.name: getattr(args, field.name) for field in fields(Architecture)})
    data = make_dataset(args, arch)
    if args.check_data:
        about = "; ".join([describe(data), *data.doubts()])
        return data_report.report(data, about, args.num_workers)
    pairs, about_pairs = held_out(args, arch, data)
    vgg, about_vgg = load_perceptual(args)
    foreign = from_main(lambda: foreign_checkpoint(args, arch))
    paddle.seed(args.seed)
    encoder = Encoder(arch) if arch.use_vae else None
    G = Generator(arch)
    D = Discriminator(arch)
    trainer = Trainer(G, D, arch, args, data, pairs, encoder, vgg)
    notes = [*run_notes(args, RECIPES[args.recipe]), decay_note(args), recipe_note(args)]
    if args.config_file:
        notes += config.notes(config.load_config(args.config_file, args.opt))
    notes += [configured, describe(data), about_pairs, about_vgg, sync_note(arch)]
    notes += [f"warning: {line}" for line in dict.fromkeys([*data.doubts(), *pairs.doubts()])]
    if foreign:
        state, about_state = foreign
        notes += about_state + trainer.go_on(state, args.resume)
        args.resume = ""
    elif args.pretrained_model:
        state = from_main(lambda: read_weights(args.pretrained_model, **arch.to_dict()))
        notes += trainer.start_from(state, args.pretrained_model)
        notes += [f"{args.pretrained_model}: {note}" for note in state.get("notes", ())]
    return trainer.train([note for note in notes if note])


if __name__ == "__main__":
    process.command(main)()
