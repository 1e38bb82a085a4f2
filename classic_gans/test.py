"""Draw with a trained model, score and record what it draws.

cd classic_gans && python test.py --init_model=output/checkpoints [flags]
Which model it is, the file tells. `--model_net=NAME --help` shows the flags of that model.
"""

import argparse
import importlib
import sys

import rooms
from shared_metrics import process, testing
from shared_metrics.errors import UserError
from shared_metrics.files import shown
from shared_metrics.flags import new_parser, original_words, truth
from shared_metrics.images import set_background

# The way of each kind of model (KIND of its trainer): a module with `add_flags`, `run`,
# WORDS and NEEDS (see shared_metrics.needs).
WAYS = {"digits": "draw", "translation": "translate", "faces": "edit", "labels": "paint"}
ORIGINAL = {"--init_model": "--pretrained_model", "--output": "--output_dir"}
# What the original had to be told again, and which of its flags some models do not read.
REPEATED = (
    *("net_G", "norm_type", "g_base_dims", "g_base_dim", "ngf", "c_dim", "n_layers", "use_gru"),
    *("gru_n_layers", "noise_size", "label_nc", "no_instance", "selected_attrs", "dropout"),
    *("crop_type", "image_size", "crop_size", "load_height", "load_width", "crop_height"),
    *("crop_width", "input_style", "dataset_dir", "test_list"),
)


# fmt: off
def parser(room, way):
    """The flags of test.py for a model. Args: its trainer module; the module of its way."""
    p = new_parser(__doc__, "python test.py --init_model=PATH [flags; --help lists them]")
    p.add_argument("--model_net", default="",
                   help=f"one of {', '.join(rooms.names())}; needed for weights of others that do "
                        "not tell it, and for --help")
    way.add_flags(p)
    flags = p._option_string_actions
    words = ORIGINAL | {word: flag for word, flag in way.WORDS.items() if flag in flags}
    original_words(p, words)
    add = p.add_argument_group("of the original: what the file tells, or --device").add_argument
    add("--use_gpu", type=truth, nargs="?", const=True, metavar="True|False",
        help="True: --device auto; False: --device cpu")
    p.set_defaults(repeated=[name for name in REPEATED if f"--{name}" not in flags])
    for name in p.get_default("repeated"):
        add(f"--{name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return p
# fmt: on


def repeated_notes(args, state):
    """Lines on flags of the original that say other than the file, or that nothing reads."""
    arch = state["architecture"]
    for name in vars(args).pop("repeated"):
        if name not in args:
            continue
        field = "g_base_dims" if name == "g_base_dim" else name
        theirs = getattr(args, name)
        if field not in arch:
            yield f"--{name} {theirs}: {state['model_net']} does not read it"
        elif str(arch[field]).lower() != theirs.lower():
            yield f"--{name} {theirs}: the file's is {arch[field]}, which is used"


def open_file(argv):
    """(the model's name, what --init_model holds or None) of the words of the command line."""
    from convert import read_weights

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--model_net", default="")
    first.add_argument("--init_model", "--pretrained_model", default="")
    options, _ = first.parse_known_args(argv)
    name = rooms.spelling(options.model_net) if options.model_net else ""
    if not options.init_model or {"-h", "--help"} & set(argv):
        return name or rooms.names()[0], None
    state = read_weights(options.init_model, name)
    return state["model_net"], state


def main(argv=None):
    """Draw, write, score, record."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    configured = process.configure_cpu()  # before the room imports Paddle
    name, state = open_file(argv)
    room = rooms.room(name)
    way = importlib.import_module(WAYS[room.KIND])
    needs = {"use_gpu False": "device auto cpu"} | way.NEEDS
    args = testing.parse(parser(room, way), argv, needs)
    if state is None:
        raise UserError("--init_model is missing: give a checkpoint or a file of weights")
    print(configured)
    for note in repeated_notes(args, state):
        print(shown(f"note: {note}"))
    set_background(args.background)
    process.choose_device("cpu" if args.use_gpu is False else args.device)
    from convert import find

    args.pretrained_model = str(find(args.pretrained_model))
    output, record, own = way.run(args, state, room)
    trained = state.get("args", {})
    record["dataset"] = trained.get("dataset", "unknown")
    record |= {"paper": rooms.ROOMS[name], "architecture": state["architecture"], "published": []}
    output.finish(record, own)


if __name__ == "__main__":
    process.command(main)()
