"""Signals are read at the step boundary, NaN stops a run, a folder belongs to one run."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from shared_metrics.errors import UserError
from shared_metrics.runs import stop
from tests.conftest import ROOT

LOOP = """
import sys, time
from shared_metrics.runs.stop import StopSignals
with StopSignals() as stop:
    print("ready", flush=True)
    for i in range(2000):
        time.sleep(float(sys.argv[1]))  # a step
        number = stop.requested()
        if number:
            print("stopped by", number, flush=True)
            assert "paddle" not in sys.modules
            sys.exit(128 + number)
"""
LAUNCHED = {"PADDLE_LOCAL_SIZE": "1", "PADDLE_TRAINER_ID": "0"}


def start(step=0.01, **env):
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, str(step)],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step(number):
    process = start()
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert out == f"stopped by {int(number)}\n" and process.returncode == 128 + number
    assert number.name in err and "Traceback" not in err


@pytest.mark.parametrize(
    "number, env, forced",
    [
        (signal.SIGINT, {}, True),
        (signal.SIGTERM, {}, True),
        (signal.SIGINT, LAUNCHED, True),
        (signal.SIGTERM, LAUNCHED, False),  # the launcher itself repeats SIGTERM
    ],
)
def test_the_second_signal_ends_it_at_once(number, env, forced):
    process = start(step=20.0 if forced else 1.0, **env)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    for _ in range(2):
        process.send_signal(number)
        time.sleep(0.15)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert out == ("" if forced else f"stopped by {int(number)}\n")


def test_handlers_are_put_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with stop.StopSignals() as signals:
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] != before
        assert signals.requested() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() == signal.SIGTERM
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "0.01"])
child.wait()
"""


# Without a launcher the parent is a shell that closes.
@pytest.mark.parametrize("env, ends", [(LAUNCHED, True), ({}, False)])
def test_a_launcher_that_died_ends_its_ranks(env, ends):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, LOOP],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        os.set_blocking(parent.stdout.fileno(), False)
        said = ""
        until = time.monotonic() + (10 if ends else 0.5)
        while time.monotonic() < until and not said:
            said = parent.stdout.readline()
            time.sleep(0.02)
        assert said == ("stopped by 15\n" if ends else "")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


def test_not_finite_losses_stop_with_what_is_needed_to_go_on():
    stop.check_finite({"d_loss": 1.0, "g_loss": -3e30}, 5, None)
    losses = {"d_loss": 1.25, "g_loss": float("nan")}
    with pytest.raises(stop.NotFinite) as error:
        stop.check_finite(losses, 41, "runs/a/iter_0000040.pdparams")
    text = str(error.value)
    assert isinstance(error.value, UserError) and "\n" not in text
    for part in ("iteration 41", "d_loss 1.25", "g_loss nan", "runs/a/iter_0000040.pdparams"):
        assert part in text
    with pytest.raises(stop.NotFinite, match="No checkpoint"):
        stop.check_finite({"d_loss": float("inf")}, 1, None)
