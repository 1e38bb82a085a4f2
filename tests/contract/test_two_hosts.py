"""Two hosts, as two launchers on the loopback: each has an output folder of its own."""

import os
import socket
import subprocess
import sys

from tests.conftest import ROOT
from tests.contract.papers import PAPERS
from tests.contract.test_contract import assert_same_state, checkpoints

SPEC = PAPERS["sagan"]
TIMEOUT = 240  # seconds; a few on a quiet machine


def train(data, folder, iterations, **flags):
    """Train on both hosts; FOLDER/host0 is rank 0's. Returns: what rank 1's launcher printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{free.getsockname()[1]}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launchers = []
    for rank in range(2):
        words = f"-m paddle.distributed.launch --master {master} --nnodes 2 --rank {rank}".split()
        words += ["--nproc_per_node", "1", "--log_dir", str(folder / f"logs{rank}")]
        words += SPEC.flags(data, folder / f"host{rank}", iterations, **flags)
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [sys.executable, *words]
        launchers.append(subprocess.Popen(command, cwd=ROOT / SPEC.folder, env=env, **how))
    try:
        printed = [launcher.communicate(timeout=TIMEOUT)[0] for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0, 0], "\n".join(printed)


def test_trained_in_two_parts_equals_trained_in_one(tmp_path):
    """Nor are the halves saved where the whole is: it matters to none when a run is saved."""
    data = SPEC.data(tmp_path)
    flags = {"batch_size": 4, "save_every": 100}
    train(data, tmp_path / "parts", 1, **flags)
    train(data, tmp_path / "parts", 3, resume="auto", **flags)
    train(data, tmp_path / "whole", 3, **flags)
    assert_same_state(*(checkpoints(tmp_path / name / "host0")[-1] for name in ("whole", "parts")))
    assert not (tmp_path / "parts" / "host1" / "checkpoints").exists()
