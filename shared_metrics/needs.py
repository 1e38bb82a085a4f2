"""Flags that would have no effect: found among the words of a command line, refused in one line.

A paper's table says what each of its flags needs to count, another flag or some of its values:

    NEEDS = {
        "ema_start": "ema_decay",                # --ema_decay, set to anything but none or 0
        "lambda_gp": "adv_loss wgan_gp",         # --adv_loss wgan_gp
        "zoom": "crop center, centercrop no",    # both --crop center and no --centercrop
        "use_gpu True": "device auto gpu",       # of --use_gpu True alone
    }

and which words stand for another flag's value: STANDS_FOR = {"disable_cuda": "device cpu"}.
"""

import argparse
from collections import defaultdict

from shared_metrics.errors import UserError

NOT_EMPTY = ("labels", "metrics", "seeds", "classes", "output_dir")


class _Values(argparse.Namespace):
    """A namespace that knows every value that a word of the command line sets."""

    def __init__(self, names):
        vars(self).update(dict.fromkeys(names), values=defaultdict(list))

    def __setattr__(self, name, value):
        self.values[name].append(value)
        super().__setattr__(name, value)


def given(parser, argv):
    """{flag without dashes: the word that gave it} of a command line that `parser` has read.

    Raises: UserError for two words of one flag, such as the original's and ours, that differ, but
        for argparse's actions that have been given a `may_differ`.
    """
    # argparse has no public list of flags. Names that have a value already get no default.
    names = {action.dest for action in parser._actions} | parser._defaults.keys()
    values = _Values(names)
    parser.parse_known_args(argv, values)
    words = defaultdict(list)
    for word in argv:
        flag = word.partition("=")[0]
        action = parser._option_string_actions.get(flag)
        if action and values.values[action.dest]:
            words[action.dest].append((flag, action))
    for name, found in words.items():
        first, *others = values.values[name]
        several = len({id(action) for _, action in found}) > 1
        free = any(getattr(action, "may_differ", False) for _, action in found)
        if several and not free and any(value != first for value in others):
            flags = " and ".join(dict.fromkeys(flag for flag, _ in found))
            raise UserError(f"{flags}: are one flag and say different things; leave one out")
    return {name: found[-1][0] for name, found in words.items()}


def check(args, words, needs, stands_for=None):
    """Set in `args` what flags stand for, and refuse flags that have no effect.

    Args: words, see `given`: flags that are not among them are let be; needs, stands_for: the
        tables, see above.
    Raises: UserError naming both flags.
    """
    for name in NOT_EMPTY:
        if name in words and getattr(args, name) == "":
            raise UserError(f"{words[name]} '': is empty; give a value or leave the flag out")
    for name, meaning in (stands_for or {}).items():
        other, value = meaning.split()
        if not getattr(args, name):
            continue
        if other in words and getattr(args, other) != value:
            both = f"{words.get(name, name)} and {words[other]} {getattr(args, other)}"
            raise UserError(f"{both}: are at odds; leave one out")
        setattr(args, other, value)
    for flag, conditions in needs.items():
        name = flag.split()[0]
        if name not in words or not _holds(args, flag):
            continue
        for condition in conditions.split(", "):
            if not _holds(args, condition):
                raise UserError(f"{words[name]}: {_reason(args, condition)}; leave it out")


def _holds(args, condition):
    name, *values = condition.split()
    value = getattr(args, name)
    is_set = bool(value) and value != "none"
    if not values or values == ["no"]:
        return is_set != bool(values)
    return any(part.partition(":")[0] in values for part in str(value).split(","))


def _reason(args, condition):
    name, *values = condition.split()
    if values == ["no"]:
        return f"has no effect beside --{name}"
    if not values:
        return f"has no effect without --{name}"
    value = getattr(args, name)
    beside = f" beside --{name} {value}" if value else ""
    return f"has no effect{beside} but with --{name} {' or '.join(values)}"
