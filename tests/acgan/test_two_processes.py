"""Two processes train as one on the joined batch (without dropout; BatchNorm frozen, which depends
on the batch).
"""

import os

import numpy as np

from shared_metrics import weights
from tests.conftest import ROOT, run_cli


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    script = ROOT / "tests" / "acgan" / "two_steps.py"
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "acgan")])}
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir(), together.mkdir()
    run_cli(ROOT, script, alone, env=env)
    launch = [
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "2",
        "--log_dir",
        tmp_path / "logs",
    ]
    run_cli(ROOT, *launch, script, together, env=env)
    one = weights.load(alone / "rank0.pdparams")
    ranks = [weights.load(together / f"rank{r}.pdparams") for r in (0, 1)]
    for network, state in one.items():
        for name, value in state.items():
            first, second = ranks[0][network][name], ranks[1][network][name]
            assert np.array_equal(first, second), f"{network}.{name} differs between the processes"
            assert np.allclose(first, value, atol=1e-5), (
                f"{network}.{name} differs from one process"
            )
