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
        (flags.ranges, ("", "3-1", "1-", "-1", "a", "1,,2", "none")),
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


def test_whole_numbers_are_exact_and_bounded():
    assert flags.SEED("9007199254740993") == 9007199254740993
    assert flags.SEED(str(2**63 - 1)) == 2**63 - 1 and flags.SEED("0") == 0
    assert (flags.CHANNELS("9999"), flags.PX.or_0("0"), flags.OFFSET("-3")) == (9999, 0, -3)
    for read in (flags.SEED, flags.positive, flags.CHANNELS, flags.THREADS.or_0, flags.IMAGES):
        for text in ("1e30", "1e999999999", "9" * 5000, "-1", "0.5", "inf"):
            with pytest.raises(
                argparse.ArgumentTypeError, match="expected a whole number of at"
            ) as e:
                read(text)
            assert len(str(e.value)) < 160
    assert flags.aspect("2") == 2.0
    for text in ("1e-9", "1e9", "0", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="at least 0.1 and below 10"):
            flags.aspect(text)


def test_ranges_are_counted_before_they_are_made():
    for text in ("0-4000000000", "5,0-99999999999999999999"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected fewer than 10,000,000"):
            flags.ranges(text)


def test_truth():
    words = ("True", "false", "1", "No", "yes", "0")
    assert [flags.truth(word) for word in words] == [True, False, True, False, True, False]
