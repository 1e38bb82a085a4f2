"""The result record: what is missing or wrong is named, on writing and on reading."""

import json

import pytest

from shared_metrics.errors import UserError
from shared_metrics.results import read_record, write_record


def network(**changes):
    about = {"source": "w.pth", "sha256": "ab", "comparable": True}
    return {**about, "protocol": "tf", "variant": "tf", **changes}


def record(**changes):
    inception = network()
    return {
        "paper": "sagan",
        "dataset": "cifar10",
        "recipe": None,
        "checkpoint": {"sha256": "cd", "iteration": 1000, "weights": "ema"},
        "samples": {"number": 50000, "seed": 0},
        "scores": {"fid": 10.5, "is": 8},
        "comparable": True,
        "inception": inception,
        "real": {"source": "cifar10.npz", "number": 50000, "sha256": "ef"},
        "published": [{"score": "fid", "value": 10.2, "source": "MMagic, sagan page"}],
        "environment": {"paddle": "3.3.1", "python": "3.11", "device": "cpu", "commit": None},
        "command": "python test.py",
        "seconds": 12.5,
        "images_per_second": 30,
        **changes,
    }


def test_round_trip(tmp_path):
    write_record(tmp_path / "results.json", record(notes=["free"]))
    assert read_record(tmp_path / "results.json") == {"format": 1, **record(notes=["free"])}


def test_parts_that_a_run_does_not_have_may_be_null(tmp_path):
    write_record(
        tmp_path / "r.json",
        record(
            checkpoint=None, real=None, inception=None, comparable=False, scores={}, published=[]
        ),
    )


REAL = {"source": None, "number": None, "sha256": None}


def test_scores_over_efficientnet_beside_inceptions_or_alone(tmp_path):
    """Both networks must be trained ones for the record to compare with others."""
    path = tmp_path / "r.json"
    beside = {"efficientnet": network(), "real_efficientnet": REAL}
    write_record(path, record(**beside))
    assert read_record(path)["efficientnet"] == network()
    write_record(path, record(**beside, inception=None, real=None))
    assert read_record(path)["comparable"] is True
    random = record(**beside, inception=network(comparable=False), comparable=False)
    write_record(path, random)
    with pytest.raises(ValueError, match="comparable differs"):
        write_record(path, {**random, "comparable": True})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"efficientnet": None}, "record.efficientnet is NoneType: need a dict"),
        ({"efficientnet": network(sha256=None)}, "record.efficientnet.sha256 is NoneType"),
        ({"real_efficientnet": {"source": "x"}}, "record.real_efficientnet.number is missing"),
        ({"paper": None}, "record.paper is NoneType: need str"),
        ({"seconds": True}, "record.seconds is bool"),
        (
            {"checkpoint": {"sha256": "a", "weights": "ema"}},
            "record.checkpoint.iteration is missing",
        ),
        ({"scores": {"fid": float("nan")}}, "scores.fid is nan"),
        ({"scores": {"fid": "3"}}, "scores.fid is '3'"),
        ({"published": [{"score": "fid", "value": 3}]}, r"published\[0\].source is missing"),
        ({"comparable": False}, "comparable differs from inception.comparable"),
        ({"inception": None}, "comparable differs"),
    ],
)
def test_wrong_entries_are_named_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write_record(tmp_path / "results.json", record(**changes))
    assert not any(tmp_path.iterdir())


def test_unreadable_records_are_named(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(UserError, match="results.json: not a result record"):
        read_record(path)
    path.write_text(json.dumps({"format": 1, **record(samples=3)}))
    with pytest.raises(UserError, match="record.samples is int: need dict"):
        read_record(path)
    path.write_text(json.dumps({"format": 2, **record()}))
    with pytest.raises(UserError, match="format 2"):
        read_record(path)
