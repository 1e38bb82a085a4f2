"""Train one of the classic GANs.

cd classic_gans && python train.py --model_net=CGAN --dataset=mnist
`--model_net=NAME --help` shows the flags of that model. Several cards: python -m
paddle.distributed.launch train.py ...
"""

import argparse
import sys
from pathlib import Path

import rooms
from shared_metrics import data_report, process
from shared_metrics.errors import UserError
from shared_metrics.flags import (
    BATCH,
    PX,
    amount,
    begin,
    new_parser,
    not_negative,
    original_words,
    positive,
    run_flags,
    run_notes,
    truth,
    with_recipe,
)
from shared_metrics.runs.peers import from_main

DEFAULT = "CGAN"
ORIGINAL = {
    "--output": "--output_dir",
    "--print_freq": "--log_every",
    "--init_model": "--pretrained_model",
    "--max_iter": "--iterations",
    "--g_base_dim": "--g_base_dims",
}
# What flags need to count: see shared_metrics.needs. Rooms have tables of their own.
NEEDS = {"use_gpu True": "device auto gpu", "use_gpu False": "device auto cpu"}
FOLDERS = ("image_dir", "label_dir", "instance_dir", "rafd_image_dir")  # of data, in some rooms
CROPS = {"centor": "center", "center": "center", "random": "random"}


def crop_type(text):
    """ "center" or "random", as PaddleCV spells them, too."""
    if text.lower() not in CROPS:
        raise argparse.ArgumentTypeError(f"'{text}': expected center (or Centor) or random")
    return CROPS[text.lower()]


# fmt: off
def parser(name, room):
    """The flags of train.py for a model. Args: its name and its trainer module."""
    p = new_parser(__doc__, "python train.py --model_net=NAME --dataset=NAME [flags]")
    add = p.add_argument
    add("--model_net", default=DEFAULT, help=f"one of {', '.join(rooms.names())}, in any case")
    add("--recipe", default="default", choices=["default", *recipes_of(room)],
        help="published setting; explicit flags override it")

    add = p.add_argument_group("data").add_argument
    add("--dataset", default="mnist", help="the data set: its folder in --data_dir")
    add("--data_dir", default="./data", help="folder of data sets")
    add("--train_list", default="", help="list file of the training set, if not its train.txt")
    add("--test_list", default="", help="list file of the test set, if not its test.txt")
    if room.KIND in ("translation", "faces"):
        add("--image_size", type=PX, default=286, help="side to which pictures are resized")
        add("--crop_size", type=PX, default=256, help="side of the square cut out of them")
    if room.KIND == "translation":
        add("--crop_type", type=crop_type, default="random", help="center or random: where it lies")
    switch = {"type": truth, "nargs": "?", "const": True, "metavar": "True|False"}
    add("--shuffle", **switch, default=True, help="in a new order every epoch")
    add("--drop_last", **switch, default=True, help="leave out an epoch's last, smaller batch")

    add = p.add_argument_group("training").add_argument
    add("--batch_size", type=BATCH, default=1, help="pictures a batch and process")
    add("--epoch", type=positive, default=200, help="passes over the training set")
    add("--iterations", type=not_negative, default=0, help="end after these instead; 0: by --epoch")
    if room.KIND != "faces":
        add("--learning_rate", type=amount, default=2e-4, help="Adam's rate")
    add("--save_checkpoints", **switch, default=True,
        help="after every epoch, where --save_every is 0; False: at the end alone")
    add("--run_test", **switch, default=True,
        help="a sample sheet after every epoch, where --sample_every is 0; False: none")
    run_flags(p, name=rooms.ROOMS[name], output_dir="./output")
    p.set_defaults(save_every=0, sample_every=0)
    room.add_flags(p)
    flags = p._option_string_actions
    original_words(p, {word: flag for word, flag in ORIGINAL.items() if flag in flags})
    add = p.add_argument_group("of the original: what other flags do now").add_argument
    add("--use_gpu", **switch, default=None, help="True: --device gpu; False: --device cpu")
    add("--profile", **switch, default=False, help="scripts/benchmark.py measures speed")
    add("--profiler_path", default="", help="the same")
    add("--enable_ce", action="store_true", help="--seed and --iterations make a run short")
    return p
# fmt: on


def recipes_of(room):
    """{name: {flag: value}} of a room's published settings besides its defaults."""
    return getattr(room, "RECIPES", {})


def check_flags(words, own, name):
    """Raise UserError for a flag that other models have and this one has not."""
    for word in words:
        flag = word.partition("=")[0]
        if not flag.startswith("--") or flag in own._option_string_actions:
            continue
        owners = []
        for other in rooms.names():
            if flag in parser(other, rooms.room(other))._option_string_actions:
                owners.append(other)
        if owners:
            raise UserError(
                f"{flag}: is a flag of {', '.join(owners)}, {name} has none of that name; leave it "
                f"out. Its own: train.py --model_net={name} --help"
            )


def original_notes(args, room):
    """Turn what is left of the original into flags of ours. Returns: lines for the log."""
    notes = []
    if args.use_gpu is not None:
        args.device = args.device if args.use_gpu else "cpu"
        notes.append(f"--use_gpu {args.use_gpu}: --device auto, cpu, gpu or gpu:N has replaced it")
    if args.profile or args.profiler_path:
        notes.append("--profile: no profiler here; scripts/benchmark.py measures the speed")
    if args.enable_ce:
        notes.append(
            "--enable_ce: nothing here; --seed and --iterations make a run short and exact"
        )
    if room.KIND == "digits" and (args.train_list or args.test_list):
        notes.append("--train_list, --test_list: this model reads no list, but the whole data set")
    return notes


def parse_args(argv, name, room):
    """(the flags as a namespace, notes on flags of the original)."""
    from convert import find

    p = parser(name, room)
    check_flags(argv, p, name)
    needs = NEEDS | getattr(room, "NEEDS", {})
    args = with_recipe(p, recipes_of(room), argv, needs=needs)
    args.model_net = name
    notes = original_notes(args, room)
    if args.pretrained_model:
        path = find(args.pretrained_model)
        if path.resolve().is_relative_to(Path(args.output_dir).resolve()):
            args.resume = str(path)
            args.pretrained_model = ""
            notes.append(f"--init_model {path}: of this --output_dir, so the run goes on from it")
    return args, notes


def chosen_model(argv):
    """The model that --model_net names, as ROOMS spells it; the other flags depend on it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--model_net", default=DEFAULT)
    return rooms.spelling(first.parse_known_args(argv)[0].model_net)


def main(argv=None):
    """Build the trainer, which reads its data, and run it; returns the exit code."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    name = chosen_model(argv)
    configured = process.configure_cpu()  # before the room imports Paddle
    room = rooms.room(name)
    args, notes = parse_args(argv, name, room)
    folders = [getattr(args, name, "") for name in FOLDERS]
    begin(args, reads=[Path(args.data_dir, args.dataset), *folders])
    trainer = room.Trainer(args)
    if args.check_data:
        sets = getattr(trainer, "sets", None) or [trainer.data]  # StarGAN may have two
        about = trainer.describe()
        return max(data_report.report(data, about, args.num_workers) for data in sets)
    whole = args.batch_size * process.world_size()
    recipe = {"batch_size": whole} | recipes_of(room).get(args.recipe, {})
    notes = [configured, *run_notes(args, recipe), trainer.describe(), *notes]
    if args.pretrained_model:
        from convert import read_weights

        state = from_main(lambda: read_weights(args.pretrained_model, name))
        notes += trainer.start_from(state, args.pretrained_model)
    return trainer.train(notes)


if __name__ == "__main__":
    process.command(main)()
