"""Two processes train as one on the joined batch.

Without dropout, and with BatchNorm frozen, which depends on the batch by design.
tests/<folder>/two_steps*.py OUT takes two iterations, alone or under the launcher, and writes
OUT/rank<r>.pdparams: {network: its state}.
"""

import json
import os

import numpy as np
import pytest

from shared_metrics import weights
from tests.conftest import ROOT, run_cli
from tests.contract.papers import PAPERS

SCRIPTS = sorted((ROOT / "tests").glob("*/two_steps*.py"))


@pytest.mark.parametrize(
    "script", SCRIPTS, ids=[f"{path.parent.name}-{path.stem}" for path in SCRIPTS]
)
def test_two_processes_equal_one_on_the_joined_batch(script, tmp_path):
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / script.parent.name)])}
    alone = tmp_path / "alone"
    together = tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    run_cli(ROOT, script, alone, env=env)
    launch = "-m paddle.distributed.launch --nproc_per_node 2 --log_dir".split()
    run_cli(ROOT, *launch, tmp_path / "logs", script, together, env=env)
    one = weights.load(alone / "rank0.pdparams")
    rank0 = weights.load(together / "rank0.pdparams")
    rank1 = weights.load(together / "rank1.pdparams")
    for network, state in one.items():
        for name, value in state.items():
            first = rank0[network][name]
            second = rank1[network][name]
            assert np.array_equal(first, second), f"{network}.{name} differs between the processes"
            difference = f"{network}.{name} differs from one process"
            assert np.allclose(first, value, atol=1e-5), difference


def test_processes_starts_the_launcher(tmp_path):
    spec = PAPERS["sagan"]
    flags = spec.flags(spec.data(tmp_path), tmp_path / "run", 1, processes=2)
    run = run_cli(spec.folder, *flags, env={"OMP_NUM_THREADS": "1"}, timeout=300)
    assert "2 processes, 4 images of a batch each" in run.stdout
    assert "2 process(es) on cpu" in (tmp_path / "run" / "log.txt").read_text()
    args = json.loads((tmp_path / "run" / "args.json").read_text())
    assert (args["processes"], args["batch_size"]) == (2, 4)
    assert (tmp_path / "run" / "launch" / "workerlog.1").is_file()
    assert (tmp_path / "run" / "checkpoints" / "iter_0000001.pdparams").is_file()
