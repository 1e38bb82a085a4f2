"""SIGTERM and Ctrl-C end a command in one line, and leave nothing behind; a second one at once."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

COMMAND = """
import sys, tempfile, time
from shared_metrics import process

def main():
    if sys.argv[1] == "paddle":
        paddle = process.import_paddle()
        paddle.zeros([2])
    with tempfile.TemporaryDirectory():
        try:
            print("ready", flush=True)
            while True:
                time.sleep(0.01)
        finally:
            if sys.argv[1] == "slow":
                print("tidying", flush=True)
                time.sleep(60)

process.command(main)()
"""


def start(tmp_path, how):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, how],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background, pytest may ignore SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    "how, number", [("plain", signal.SIGINT), ("plain", signal.SIGTERM), ("paddle", signal.SIGTERM)]
)
def test_a_signal_ends_a_command_in_one_line(tmp_path, how, number):
    process = start(tmp_path, how)
    assert process.stdout.readline() == "ready\n"
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == f"-c: stopped by {number.name}"
    assert "FatalError" not in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_it_at_once(tmp_path, number):
    process = start(tmp_path, "slow")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "tidying\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
