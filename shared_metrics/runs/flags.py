"""Types for command-line flags that every `train.py` and `test.py` reads alike (for argparse's `type=`)."""

import argparse


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
        if not first.isdecimal() or not last.isdecimal() or int(last) < int(first):
            raise argparse.ArgumentTypeError(f"'{text}': expected numbers and ranges such as 0-3,8")
        numbers += range(int(first), int(last) + 1)
    return numbers


def _whole(text, least):
    try:
        number = int(float(text)) if float(text).is_integer() else None
    except ValueError:
        number = None
    if number is None or number < least:
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number of at least {least}")
    return number
