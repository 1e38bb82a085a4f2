"""--processes: who shares a batch, and how the launcher is started."""

import argparse
import os
import sys

import pytest

from shared_metrics import flags, launch, process
from shared_metrics.errors import UserError


def make_args(tmp_path, *words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch_size", type=int, default=12)
    flags.run_flags(parser, name="toy", output_dir=str(tmp_path / "run"))
    return flags.with_recipe(parser, {}, [str(word) for word in words])


@pytest.fixture
def ranks(monkeypatch):
    """Function that makes this process one of the launcher's."""

    def start(world):
        monkeypatch.setenv("PADDLE_LOCAL_SIZE", str(world))
        monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(world))

    return start


@pytest.fixture
def started(monkeypatch):
    """What the process would have become, a list of (program, words, environment)."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.setattr(sys, "argv", ["train.py", "--data_path", "my data"])
    monkeypatch.setattr(process, "usable_cores", lambda: 5)
    return calls


def test_a_batch_is_shared_under_the_launcher_alone(tmp_path, ranks):
    assert make_args(tmp_path, "--processes", 3).batch_size == 12
    ranks(3)
    assert make_args(tmp_path, "--processes", 3).batch_size == 4
    assert make_args(tmp_path, "--processes", "auto").batch_size == 4
    assert make_args(tmp_path).batch_size == 12  # --batch_size is per process


def test_what_does_not_divide_is_refused(tmp_path, ranks):
    with pytest.raises(UserError, match="--processes 5: cannot share a batch of 12"):
        make_args(tmp_path, "--processes", 5)
    ranks(2)
    with pytest.raises(UserError, match="--processes 3: the launcher has started 2"):
        make_args(tmp_path, "--processes", 3)
    for text in ("0", "-1", "1.5", "all"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number"):
            flags.processes(text)


def test_the_process_becomes_the_launcher(tmp_path, started):
    launch.launch(make_args(tmp_path, "--processes", 3), "cpu")
    ((program, words, environment),) = started
    assert program == sys.executable == words[0]
    assert words[1:5] == ["-m", "paddle.distributed.launch", "--nproc_per_node", "3"]
    assert words[5:7] == ["--log_dir", str(tmp_path / "run" / "launch")]
    assert words[-3:] == sys.argv
    assert environment is launch.ENVIRON


@pytest.mark.parametrize("batch, number", [(12, 4), (10, 5), (7, None), (1, None)])
def test_auto_is_the_cores_where_the_batch_divides(tmp_path, started, batch, number):
    args = make_args(tmp_path, "--processes", "auto", "--batch_size", batch)
    launch.launch(args, "cpu")
    assert [call[1][4] for call in started] == ([str(number)] if number else [])


def test_who_stays_alone(tmp_path, started, ranks):
    launch.launch(make_args(tmp_path), "cpu")
    launch.launch(make_args(tmp_path, "--processes", 2, "--check_data"), "cpu")
    launch.launch(make_args(tmp_path, "--processes", "auto"), "gpu:0")
    ranks(2)
    launch.launch(make_args(tmp_path, "--processes", 2), "cpu")
    assert not started
