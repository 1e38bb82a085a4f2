"""Flag types: what they read, and what they refuse."""

import argparse

import pytest

from shared_metrics import flags


@pytest.mark.parametrize(
    "text, numbers", [("5", [5]), ("0-3", [0, 1, 2, 3]), ("7,0-1", [7, 0, 1]), (" 2 , 4-4", [2, 4])]
)
def test_ranges(text, numbers):
    assert flags.ranges(text) == numbers == flags.ranges_or_none(text)


def test_none_is_an_empty_list():
    assert flags.ranges_or_none("none") == []


@pytest.mark.parametrize(
    "read, texts",
    [
        (flags.ranges, ("", "3-1", "1-", "-1", "a", "1,,2", "none", "1-99999999999")),
        (flags.positive, ("0", "-1", "1.5", "x", "nan")),
        (flags.not_negative, ("-1", "0.5", "inf")),
        (flags.truth, ("", "2", "maybe")),
        (flags.share, ("1", "-0.1", "nan", "x")),
        (flags.amount, ("-1", "inf", "nan", "x")),
    ],
)
def test_what_is_refused(read, texts):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            read(text)


def test_numbers():
    assert (flags.positive("1e6"), flags.not_negative("0")) == (1_000_000, 0)
    assert (flags.share("0.999"), flags.amount("2e-4")) == (0.999, 2e-4)


def test_truth():
    words = ("True", "false", "1", "No", "yes", "0")
    assert [flags.truth(word) for word in words] == [True, False, True, False, True, False]
