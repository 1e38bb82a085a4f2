"""Train AC-GAN (Odena, Olah, Shlens, ICML 2017).   cd acgan && python train.py --dataroot .../train

Several cards: python -m paddle.distributed.launch train.py --dataroot .../train
"""

from pathlib import Path

from dataset import ClassFolder, describe, make_dataset
from recipes import RECIPES, describe_recipes
from shared_metrics import data_report, process
from shared_metrics.class_folders import any_folders_flag
from shared_metrics.errors import UserError
from shared_metrics.flags import (
    BATCH,
    CHANNELS,
    CLASSES,
    PX,
    SEED,
    YES_NO,
    amount,
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
from shared_metrics.runs.peers import from_main

ORIGINAL = {
    "--dataroot": "--data_path",
    "--imageSize": "--imsize",
    "--batchSize": "--batch_size",
    "--workers": "--num_workers",
    "--aux_loss": "--class_loss",
}
# What flags need to count: see shared_metrics.needs.
NEEDS = {"class_seed": "classes random", "ema_start": "ema_decay"}
# Flag of a folder that a run writes: where that is by itself, in --output_dir.
FOLDERS = {
    "check_path": "checkpoints",
    "result_path": "results",
    "class_result_path": "class_results",
    "log_path": "log",
}


# fmt: off
def parser():
    """The flags of train.py; the recipe's own values become their defaults in `parse_args`."""
    p = new_parser(__doc__, "python train.py --dataroot PATH [flags; --help lists them]")
    p.add_argument("--recipe", default="imagenet128", choices=list(RECIPES),
                   help="published setting; explicit flags override it")
    p.add_argument("--list_recipes", action="store_true",
                   help="print the recipes with the paper's numbers and exit")

    add = p.add_argument_group("data").add_argument
    add("--data_path", default="", help="folder with one sub-folder of images per class")
    add("--classes", default="auto",
        help="which of them: 10-20 (of the sorted names, counted from 0, without the 20th), "
             "random, random:N, names or numbers with commas; auto: all where there are ten or "
             "fewer, 0-10 of fewer than 20, else 10-20")
    any_folders_flag(add)
    add("--class_seed", type=SEED, default=0, help="fixes the draw of --classes random")
    add("--num_classes", type=CLASSES, help="expected number (default: what --classes chooses)")
    add("--imsize", type=PX, help="side of the images: 32, 64 or 128 px")
    add("--flip", action=YES_NO, help="mirror images at random")
    add("--held_out", default="", help="folder of the same classes: D's class accuracy is logged")

    add = p.add_argument_group("networks").add_argument
    add("--nz", type=CHANNELS, help="length of z; the class's one-hot takes its first entries")
    add("--ngf", type=CHANNELS, help="width of G; 64 is the published one")
    add("--ndf", type=CHANNELS, help="width of D; 64 is the published one")
    add("--form", choices=["callifrey", "clvrai"],
        help="which reproduction's kernels, paddings and biases")
    add("--fc_relu", action=YES_NO, help="ReLU after G's linear layer, as in the paper")
    add("--init", choices=["normal", "clvrai", "paddle"],
        help="first weights; normal: N(0, 0.02), the paper's")
    add("--dropout", type=share, help="of D, after each activation (paper: 0.5)")
    add("--activation_noise", type=amount,
        help="sigma of Gaussian noise on D's activations (paper: 0, 0.1 or 0.2)")

    add = p.add_argument_group("training").add_argument
    add("--niter", type=not_negative, help="epochs")
    add("--iterations", type=not_negative,
        help="iterations, one update of D and of G each; 0: --niter epochs")
    add("--batch_size", type=BATCH, help="images per update and process")
    add("--lr", type=amount, help="Adam's rate, of both networks")
    add("--g_lr", type=amount, help="Adam's rate for G, if not --lr")
    add("--d_lr", type=amount, help="Adam's rate for D, if not --lr")
    add("--beta1", type=share, help="Adam's beta1")
    add("--beta2", type=share, help="Adam's beta2")
    add("--class_loss", choices=["cross_entropy", "linear"],
        help="cross_entropy: -log p, the paper's; linear: -p, what the reproductions trained with")
    add("--class_on", choices=["both", "real"],
        help="images that teach D the classes: real ones, or both as in the paper")
    add("--ema_decay", type=share, help="decay of the moving average of G per update; 0: none")
    add("--ema_start", type=not_negative, help="iteration from which G is averaged (copied before)")

    run_flags(p, name="acgan", output_dir=".")
    p.set_defaults(sample_every=0, save_every=0)  # by epochs
    add = p.add_argument_group("run, by epochs and folder").add_argument
    add("--save_freq", type=positive, default=5,
        help="epochs between checkpoints and sample grids, "
             "where --save_every, --sample_every are 0")
    for name, folder in FOLDERS.items():
        add(f"--{name}", default="", help=f"if not OUTPUT_DIR/{folder}")
    original_words(p, ORIGINAL)
    return p
# fmt: on


def parse_args(argv=None):
    """The flags as a namespace: the recipe's values, overridden by the command line's."""
    words = parser().parse_args(argv)  # without the recipe's values
    # Epochs that the user asks for go before a recipe's iterations.
    values = {"iterations": 0} if words.niter and words.iterations is None else {}
    args = with_recipe(parser(), RECIPES, argv, values, NEEDS)
    for name, folder in FOLDERS.items():
        setattr(args, name, getattr(args, name) or str(Path(args.output_dir) / folder))
    if not args.niter and not args.iterations:
        raise UserError("--niter 0: nothing to train; give --niter epochs or --iterations")
    return args


def main(argv=None):
    """Build the data, the networks and the trainer, then run; returns the exit code."""
    args = parse_args(argv)
    if args.list_recipes:
        return print(describe_recipes())
    data_folders = [args.data_path, args.held_out]
    configured = begin(args, data_folders, writes=FOLDERS)  # before Paddle is imported
    import paddle

    from convert import read_weights
    from model import Architecture, Discriminator, Generator
    from trainer import Trainer

    data = make_dataset(args)
    if args.check_data:
        return data_report.report(data, describe(data), args.num_workers)
    held_out = None
    if args.held_out:
        held_out = ClassFolder(args.held_out, args.imsize, data.classes, flag="--held_out")
    names = ("imsize", "nz", "ngf", "ndf", "form", "fc_relu", "init", "dropout", "activation_noise")
    fields = {name: getattr(args, name) for name in names}
    arch = Architecture(num_classes=len(data.classes), **fields)
    paddle.seed(args.seed)  # the first weights
    networks = Generator(arch), Discriminator(arch)
    trainer = Trainer(*networks, arch=arch, args=args, dataset=data, held_out=held_out)
    notes = [configured, *run_notes(args, RECIPES[args.recipe]), describe(data)]
    if args.pretrained_model:
        state = from_main(lambda: read_weights(args.pretrained_model))
        notes += trainer.start_from(state, args.pretrained_model)
    return trainer.train(notes)


if __name__ == "__main__":
    process.command(main)()
