"""Types for command-line flags that every `train.py` and `test.py` reads alike (for argparse's
`type=`).
"""

import argparse
import math


def positive(text):
    """A whole number of at least 1."""
    return _whole(text, 1)


def not_negative(text):
    """A whole number of at least 0."""
    return _whole(text, 0)


def ranges(text):
    """Whole numbers and ranges, both ends included: "0-3,8" -> [0, 1, 2, 3, 8]."""
    numbers = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if (
            len(last) > 10
            or not first.isdecimal()
            or not last.isdecimal()
            or int(last) < int(first)
        ):
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
        number = int(float(text)) if float(text).is_integer() else None
    except ValueError:
        number = None
    if number is None or number < least:
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number of at least {least}")
    return number
