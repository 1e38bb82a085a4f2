"""What the processes of a run tell each other, tried with two of them under the launcher."""

import os
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

RANK = """
import os, signal, sys, threading, time
from shared_metrics import process
process.configure_cpu()
import numpy as np
from shared_metrics.errors import UserError
from shared_metrics.runs import peers
from shared_metrics.runs.stop import StopSignals

process.choose_device("cpu")
process.init_distributed()
rank = process.rank()


class Data:
    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]


def tried(action):
    try:
        return action()
    except UserError as error:
        return str(error)


def checked(here, there):
    return tried(lambda: peers.check_same_data(Data(there if rank else here)))


def fail():
    raise UserError("a.pdparams: damaged")


value = {"w": np.arange(6.0).reshape(2, 3), "names": ["a", None], "n": 3}
given = peers.share(value if rank else None, source=1)
assert np.array_equal(given["w"], value["w"]) and given["names"] == ["a", None]
peers.CHUNK = 7
assert np.array_equal(peers.from_main(lambda: value)["w"], value["w"])
names = [f"/{rank}/data/cat/{i}.png" for i in range(200)]
other = [name.replace("/77.", "/x.") for name in names]
said = [tried(lambda: peers.from_main(fail)), checked(names, names), checked(names, names[1:])]
said.append(checked(names, other))
print("said", said, flush=True)


def send():
    for _ in range(200):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.005)


with StopSignals() as signals:
    sender = threading.Thread(target=send if rank == 1 else lambda: time.sleep(3))
    sender.start()
    if rank == 0:
        sender.join()
    process.wait_for_all()
    sender.join()
    print("waited", signals.requested(), flush=True)
try:
    with peers.Watch(lambda line: print("told", flush=True)):
        process.wait_for_all()
        print("watched", flush=True)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        process.wait_for_all()
finally:
    print("left", flush=True)
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What rank 0 and rank 1 have printed, and how long rank 0 outlived rank 1.

    Without a launcher, which would end rank 0 itself.
    """
    folder = tmp_path_factory.mktemp("ranks")
    port = 20000 + os.getpid() % 20000
    ends = f"127.0.0.1:{port},127.0.0.1:{port + 1}"
    processes = []
    for rank in range(2):
        env = {
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": "2",
            "PADDLE_LOCAL_SIZE": "1",
            "PADDLE_TRAINER_ENDPOINTS": ends,
            "PADDLE_CURRENT_ENDPOINT": ends.split(",")[rank],
            "PADDLE_MASTER": ends.split(",")[0],
        }
        with open(folder / f"{rank}", "wb") as out:
            command = [sys.executable, "-c", RANK]
            streams = {"stdout": out, "stderr": subprocess.STDOUT}
            processes.append(
                subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, **streams)
            )
    try:
        processes[1].wait(timeout=120)
        killed = time.monotonic()
        processes[0].wait(timeout=120)
    finally:
        for process in processes:
            process.kill()
    texts = [(folder / f"{rank}").read_text() for rank in range(2)]
    return texts, time.monotonic() - killed, processes[0].returncode


def test_values_and_errors_travel_and_other_data_are_named(printed):
    for rank, text in enumerate(printed[0]):
        (line,) = [line for line in text.splitlines() if line.startswith("said")]
        prefix = "rank 0: " if rank else ""
        assert line.startswith(f"said ['{prefix}a.pdparams: damaged', None, 'rank 1: its data are")
        assert "199 images, rank 0 has 200" in line
        assert "other images than rank 0, the first among /1/data/cat/" in line


def test_signals_to_a_rank_that_waits_for_rank_0_do_not_end_it(printed):
    for text in printed[0]:
        assert "waited 15" in text


def test_a_killed_rank_ends_the_others_with_a_line_that_says_which(printed):
    (text, _), seconds, code = printed
    assert "watched" in text and "left" not in text
    assert "told" in text and "rank 1 has ended or answers no more" in text
    assert seconds < 60 and code == 1
