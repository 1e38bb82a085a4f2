"""Command-line flags that every `train.py` has, and types that all flags are read by."""

import argparse
import contextlib
import platform
import sys
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from importlib import metadata

from PIL import ImageColor

import shared_metrics
from shared_metrics import needs as tables
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.images import set_background
from shared_metrics.launch import launch, share_batch
from shared_metrics.outputs import check_folder

YES_NO = argparse.BooleanOptionalAction  # --flag and --no-flag

# What the flags of every run need to count, see needs.py.
RUN_NEEDS = dict.fromkeys(("real_stats", "inception_weights", "efficientnet_weights"), "eval_every")


@dataclass(frozen=True)
class Number:
    """A type of flags: numbers of a kind (int or float) of at least `least`, below `below`.

    1e6 is a whole number, too; digits that a float has not are kept.
    """

    kind: type
    least: float
    below: float

    def __call__(self, text):
        number = self.read(text)
        if number is None or not self.least <= number < self.below:
            what = "a whole number" if self.kind is int else "a number"
            bounds = f"of at least {self.least:g} and below {self.below:,}"
            raise argparse.ArgumentTypeError(f"'{text:.60}': expected {what} {bounds}")
        return self.kind(number)

    def read(self, text):
        """The Decimal that a text (or a number) stands for; None for what is of another kind."""
        try:
            number = Decimal(str(text))
        except InvalidOperation:
            return None
        if not number.is_finite() or number.adjusted() > 100:
            return None
        whole = number == number.to_integral_value()
        return number if whole or self.kind is float else None

    @property
    def or_0(self):
        """The same, and 0."""
        return replace(self, least=0)


positive = Number(int, 1, 2**31)  # iterations, epochs
not_negative = positive.or_0
SEED = Number(int, 0, 2**63)
PX = Number(int, 1, 20_000)  # a side
CHANNELS = Number(int, 1, 10_000)  # and the length of a latent
LAYERS = Number(int, 1, 100)
CLASSES = Number(int, 1, 2**16)
BATCH = Number(int, 1, 100_000)  # images at a time
IMAGES = Number(int, 1, 10_000_000)  # in all
SHEET = Number(int, 1, 1_000)  # on one picture
THREADS = Number(int, 1, 1_000)
amount = Number(float, 0, 1e38)  # such as a learning rate
share = Number(float, 0, 1)  # such as a decay
aspect = Number(float, 0.1, 10)  # width / height
signed = Number(float, -1_000, 1_000)
OFFSET = Number(int, -(2**16), 2**16)  # between ids


def new_parser(description, usage):
    """An ArgumentParser as all commands have it: defaults in --help, no abbreviations."""
    parser = argparse.ArgumentParser(
        description=description,
        usage=usage,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    version_flag(parser)
    return parser


def version_flag(parser):
    """Add --version, which every command has. Nothing is imported for it."""
    paddle = "Paddle not installed"
    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            paddle = f"{name} {metadata.version(name)}"
    text = f"paddle-gan-papers {shared_metrics.__version__}, {paddle}"
    text += f", Python {platform.python_version()}"
    parser.add_argument("--version", action="version", version=text, help="show it and exit")


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
    add("--seed", type=SEED,
        help="fixes weights, order, latents and augmentation (default: 0, or the resumed run's)")
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--processes", type=processes, default=1,
        help="how many share each batch, by paddle.distributed.launch; auto: the cores, where the "
             "batch divides")
    add("--amp", nargs="?", const="fp16", default="none", choices=["none", "fp16", "bf16"],
        help="mixed precision (GPU); alone: fp16")
    add("--num_workers", type=THREADS.or_0, default=4,
        help="threads that decode images; 0 decodes in the training loop")
    background_flag(add)
    add("--check_data", action="store_true",
        help="tell what the data hold (counts, sizes, modes, classes) and the first problems by "
             "name, and exit")
    add("--skip_bad_images", action="store_true",
        help="replace unreadable images by the next ones and count them")
    add("--log_every", type=positive, default=10, help="iterations between log lines")
    add("--sample_every", type=not_negative, default=1000, help="iterations between sample grids")
    add("--save_every", type=not_negative, default=1000, help="iterations between checkpoints")
    add("--keep_checkpoints", type=not_negative, default=3, help="newest to keep; 0: all")
    add("--eval_every", type=not_negative, default=0, help="iterations between scores; 0: none")
    add("--eval_samples", type=IMAGES, default=10_000, help="generated images per evaluation")
    add("--real_stats", default="",
        help="statistics file or image folder for FID; default: the training images")
    add("--inception_weights", default="auto",
        help="auto (download; where it cannot be had: EfficientNet's instead), random (not "
             "comparable) or a file")
    add("--efficientnet_weights", default="auto", help="auto (the pip package's) or a file")
# fmt: on


def background_flag(add):
    """Add the flag of what transparent pictures are shown on, see `images.set_background`."""
    what = "colour behind transparent pictures, a name or #rrggbb"
    add("--background", type=colour, default="white", help=what)


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


def with_recipe(parser, recipes, argv, values=None, needs=None, stands_for=None):
    """Parse the flags, the chosen recipe's values as their defaults.

    Args:
        recipes: {name: {flag without dashes: value}}; what is no flag there is left out.
        argv: the words after the command, or None for those of this process.
        values: {flag: value} that outranks the recipe's.
        needs, stands_for: the paper's tables, see shared_metrics.needs.
    Returns: the namespace, with `command`, the words, and `seed_given`: whether --seed was among
        them.
    Raises: UserError for --pretrained_model together with --resume, for flags that have no effect,
        and see `share_batch`.
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
    args.command = list(argv)
    args.seed_given = args.seed is not None
    args.seed = args.seed or 0
    if args.pretrained_model and args.resume:
        words = [a.option_strings[0] for a in parser._actions if a.dest == "pretrained_model"]
        raise UserError(
            f"{' or '.join(words)} and --resume: give one; --resume goes on, --pretrained_model "
            "starts anew"
        )
    tables.check(args, tables.given(parser, argv), RUN_NEEDS | (needs or {}), stands_for)
    share_batch(args)
    return args


def begin(args, reads=(), writes=()):
    """Ready the process for a run: its folders, CPU threads, device, process group.

    With --processes it becomes the launcher of processes that come here again. Call it before
    Paddle is imported.
    Args: reads, files and folders of the run's data, "" for none; writes, flags (without dashes) of
        the folders that it writes besides --output_dir.
    Returns: the line that tells what was set.
    Raises: UserError for a folder that cannot be written or lies in the data, for a device that is
        not there, and for --amp on a CPU.
    """
    for name in ("output_dir", *writes) if process.is_main() else ():
        check_folder(getattr(args, name), f"--{name}", reads=[*reads, args.real_stats])
    set_background(args.background)
    configured = process.configure_cpu()
    device = process.choose_device(args.device)
    if args.amp != "none" and device == "cpu":
        raise UserError(
            f"--amp {args.amp}: Paddle has no mixed precision on the CPU; leave the flag out"
        )
    launch(args, device)
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


def processes(text):
    """A number of processes, or "auto"."""
    return text if text == "auto" else THREADS(text)


def colour(text):
    """A colour by name or #rrggbb, as #rrggbb."""
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected white, black, #rrggbb, ...") from None
    return f"#{red:02x}{green:02x}{blue:02x}"


def truth(text):
    """True or False, as a word: what PaddleCV's flags take."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}': expected True or False")
    return words[text.lower()]


def ranges(text):
    """Whole numbers and ranges, both ends included: "0-3,8" -> [0, 1, 2, 3, 8]."""
    parts = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        numeric = first.isdecimal() and last.isdecimal() and len(first + last) < 40
        if not numeric or int(last) < int(first):
            raise argparse.ArgumentTypeError(f"'{text}': expected numbers and ranges such as 0-3,8")
        parts.append(range(int(first), int(last) + 1))
    number = sum(part.stop - part.start for part in parts)
    if number >= IMAGES.below:  # counted before they are made
        raise argparse.ArgumentTypeError(
            f"'{text:.60}': expected fewer than {IMAGES.below:,} numbers, not {number:,}"
        )
    return [i for part in parts for i in part]


def ranges_or_none(text):
    """The same, or "none" for an empty list."""
    return [] if text == "none" else ranges(text)


def three(text):
    """Three numbers, joined by commas: one a colour."""
    numbers = tuple(signed(part) for part in text.split(","))
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"'{text}': expected three numbers such as 0.5,0.5,0.5")
    return numbers
