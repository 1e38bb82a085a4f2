"""Command-line flags that every `train.py` has, and types that all flags are read by."""

import argparse
import math
import sys

from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.outputs import check_folder

YES_NO = argparse.BooleanOptionalAction  # --flag and --no-flag


def new_parser(description, usage):
    """An ArgumentParser as all commands have it: defaults in --help, no abbreviations."""
    return argparse.ArgumentParser(
        description=description,
        usage=usage,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )


# fmt: off
def run_flags(parser, name, output_dir):
    """Add the flags that every run has. Args: name, output_dir: the paper's own defaults."""
    add = parser.add_argument_group("run").add_argument
    add("--output_dir", default=output_dir, help="everything the run writes")
    add("--name", default=name, help="the run's name in its records")
    add("--resume", nargs="?", const="auto", default="",
        help="go on: auto (newest whole checkpoint), a checkpoint or a run's folder")
    add("--pretrained_model", default="",
        help="start from these weights: a checkpoint or any file convert.py knows")
    add("--seed", type=not_negative,
        help="fixes weights, order, latents and augmentation (default: 0, or the resumed run's)")
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--amp", nargs="?", const="fp16", default="none", choices=["none", "fp16", "bf16"],
        help="mixed precision (GPU); alone: fp16")
    add("--num_workers", type=not_negative, default=4,
        help="threads that decode images; 0 decodes in the training loop")
    add("--skip_bad_images", action="store_true",
        help="replace unreadable images by the next ones and count them")
    add("--log_every", type=positive, default=10, help="iterations between log lines")
    add("--sample_every", type=not_negative, default=1000, help="iterations between sample grids")
    add("--save_every", type=not_negative, default=1000, help="iterations between checkpoints")
    add("--keep_checkpoints", type=not_negative, default=3, help="newest to keep; 0: all")
    add("--eval_every", type=not_negative, default=0, help="iterations between scores; 0: none")
    add("--eval_samples", type=positive, default=10_000, help="generated images per evaluation")
    add("--real_stats", default="",
        help="statistics file or image folder for FID; default: the training images")
    add("--inception_weights", default="auto",
        help="auto (download; where it cannot be had: EfficientNet's instead), random (not "
             "comparable) or a file")
    add("--efficientnet_weights", default="auto", help="auto (the pip package's) or a file")
# fmt: on


def original_words(parser, words):
    """Add a repository's own words for flags of ours, in a group of their own.

    Args: words, {"--theirs": "--ours"}: it takes the same values and sets the same entry.
    """
    group = parser.add_argument_group("words of the original")
    # argparse has no public way to find an argument by its flag.
    actions = parser._option_string_actions
    for theirs, ours in words.items():
        live = actions[ours]
        group.add_argument(
            theirs,
            dest=live.dest,
            type=live.type,
            choices=live.choices,
            default=argparse.SUPPRESS,
            help=f"the same as {ours}",
        )


def with_recipe(parser, recipes, argv, values=None):
    """Parse the flags, the chosen recipe's values as their defaults.

    Args:
        recipes: {name: {flag without dashes: value}}; what is no flag there is left out.
        argv: the words after the command, or None for those of this process.
        values: {flag: value} that outranks the recipe's.
    Returns: the namespace, with `seed_given`: whether --seed was among them.
    Raises: UserError for --pretrained_model together with --resume.
    """
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    # A recipe sets defaults, so its name must be read before the rest.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default=parser.get_default("recipe"))
    recipe = recipes.get(first.parse_known_args(argv)[0].recipe, {})
    flags = {action.dest for action in parser._actions}  # argparse has no public list of them
    recipe = {name: value for name, value in recipe.items() if name in flags}
    parser.set_defaults(**recipe | (values or {}))
    args = parser.parse_args(argv)
    args.seed_given = args.seed is not None
    args.seed = args.seed or 0
    if args.pretrained_model and args.resume:
        words = [a.option_strings[0] for a in parser._actions if a.dest == "pretrained_model"]
        raise UserError(
            f"{' or '.join(words)} and --resume: give one; --resume goes on, --pretrained_model "
            "starts anew"
        )
    return args


def begin(args, reads=(), writes=()):
    """Ready the process for a run: its folders, CPU threads, device, process group.

    Call it before Paddle is imported.
    Args: reads, files and folders of the run's data, "" for none; writes, flags (without dashes) of
        the folders that it writes besides --output_dir.
    Returns: the line that tells what was set.
    Raises: UserError for a folder that cannot be written or lies in the data, for a device that is
        not there, and for --amp on a CPU.
    """
    for name in ("output_dir", *writes) if process.is_main() else ():
        check_folder(getattr(args, name), f"--{name}", reads=[*reads, args.real_stats])
    configured = process.configure_cpu()
    device = process.choose_device(args.device)
    if args.amp != "none" and device == "cpu":
        raise UserError(
            f"--amp {args.amp}: Paddle has no mixed precision on the CPU; leave the flag out"
        )
    process.init_distributed()
    return configured


def run_notes(args, recipe):
    """Lines for the head of the log: what runs where, and how its batch compares.

    Args: recipe, the values of the recipe: "batch_size" and, if not one, "cards".
    """
    import paddle

    world = process.world_size()
    where = f"{world} process(es) on {paddle.get_device()}, Paddle {paddle.__version__}"
    lines = [f"{args.name}: recipe {args.recipe}, {where}"]
    cards = recipe.get("cards", 1)
    if args.batch_size * world != recipe["batch_size"] * cards:
        published = f"{recipe['batch_size']} x {cards}"
        ours = f"{args.batch_size} x {world} process(es)"
        lines.append(f"batch {ours}; the published run had {published}")
    return lines


def positive(text):
    """A whole number of at least 1."""
    return _whole(text, 1)


def not_negative(text):
    """A whole number of at least 0."""
    return _whole(text, 0)


def truth(text):
    """True or False, as a word: what PaddleCV's flags take."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}': expected True or False")
    return words[text.lower()]


def ranges(text):
    """Whole numbers and ranges, both ends included: "0-3,8" -> [0, 1, 2, 3, 8]."""
    numbers = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        # More digits would only be a list that fills the memory.
        numeric = first.isdecimal() and last.isdecimal() and len(last) <= 10
        if not numeric or int(last) < int(first):
            raise argparse.ArgumentTypeError(f"'{text}': expected numbers and ranges such as 0-3,8")
        numbers += range(int(first), int(last) + 1)
    return numbers


def ranges_or_none(text):
    """The same, or "none" for an empty list."""
    return [] if text == "none" else ranges(text)


def share(text):
    """A number of at least 0 and below 1, such as a decay."""
    return _real(text, 1.0)


def amount(text):
    """A finite number of at least 0, such as a learning rate."""
    return _real(text, math.inf)


def _real(text, below):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < below:
        bound = f" and below {below:g}" if below < math.inf else ""
        raise argparse.ArgumentTypeError(f"'{text}': expected a number of at least 0{bound}")
    return number


def _whole(text, least):
    try:
        # By way of float, so that 1e6 is a whole number too.
        number = int(float(text)) if float(text).is_integer() else None
    except ValueError:
        number = None
    if number is None or number < least:
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number of at least {least}")
    return number
