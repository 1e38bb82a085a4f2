"""native.py: Paddle's own errors, as Paddle raises them: one line, or a traceback."""

import os
import sys

import pytest

from shared_metrics import fluid_files, native, process
from shared_metrics.errors import UserError
from tests.conftest import run_cli

paddle = pytest.importorskip("paddle")

FULL = """
import resource, signal
import numpy as np
from paddle import nn
from shared_metrics import inference, process

@process.command
def main():
    network = nn.Sequential(nn.Conv2D(3, 64, 3), nn.Conv2D(64, 64, 3))
    network.eval()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, BYTES))
    x = np.ones((1, 3, 8, 8), np.float32)
    inference.Runner(network, float("inf"))(x)  # by the layer, where there is no program
    inference.program(network, [x])

main()
"""


@pytest.mark.parametrize("limit", [1000, 20_000])  # cuts the program; cuts the weights
def test_a_full_temporary_folder_is_told(limit, tmp_path):
    """Paddle writes what there is room for and says nothing."""
    (tmp_path / "t").mkdir()
    done = run_cli(
        tmp_path, "-c", FULL.replace("BYTES", str(limit)), code=2, env={"TMPDIR": tmp_path / "t"}
    )
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert str(tmp_path / "t") in line and "cannot be written" in line and "MiB free" in line
    assert "Traceback" not in done.stderr and not os.listdir(tmp_path / "t")


def raised(function):
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def ended(error, monkeypatch, capsys):
    """What `process.command` prints of an error."""

    def main():
        raise error

    monkeypatch.setattr(sys, "argv", ["some/train.py"])
    with pytest.raises(SystemExit) as end:
        process.command(main)()
    assert end.value.code == 2
    return capsys.readouterr().err


def test_memory_and_files_are_one_line(monkeypatch, capsys):
    memory = raised(lambda: paddle.zeros([10**6, 10**7]))
    line = ended(memory, monkeypatch, capsys)
    assert line.startswith("train.py: error: out of memory (Fail to alloc memory of 4000")
    assert line.count("\n") == 1 and "--batch_size" in line and "Hint" not in line
    line = ended(
        OSError("(External) CUDA error(2), out of memory.\n [Hint: x] (at y.cc:1)"),
        monkeypatch,
        capsys,
    )
    assert line == "train.py: error: CUDA error(2), out of memory.\n"
    error = RuntimeError("(Unavailable) Cannot open x to save variables.\n  [Hint: y]")
    assert (
        ended(error, monkeypatch, capsys) == "train.py: error: Cannot open x to save variables.\n"
    )


@pytest.mark.parametrize(
    "bug",
    [
        lambda: paddle.matmul(paddle.zeros([2, 3]), paddle.zeros([2, 3])),
        lambda: paddle.zeros([2, 3]).reshape([7]),
        lambda: paddle.gather(paddle.zeros([2]), paddle.to_tensor([5])),
    ],
)
def test_bugs_keep_their_traceback(bug):
    kind = type(raised(bug))
    with pytest.raises(kind):
        process.command(bug)()


def test_a_kernels_own_fault_is_a_bug():
    assert not native.of_machine(OSError("(External) CUDA error(700), an illegal memory access"))
    assert not native.of_machine(RuntimeError("cannot load a module"))
    assert not native.of_machine(RuntimeError("(Unavailable) the tensor has no gradient"))
    assert native.of_machine(OSError(28, "No space left on device"))


def test_a_program_comes_with_all_its_weights(tmp_path):
    network = paddle.nn.Linear(2, 3)
    specs = [paddle.static.InputSpec([None, 2])]
    program = native.save_program(network, tmp_path / "n", specs)
    assert program.suffix in native.PROGRAMS
    whole = (tmp_path / "n.pdiparams").read_bytes()
    for part in (whole[:-1], whole[:30], whole + b"x"):
        (tmp_path / "n.pdiparams").write_bytes(part)
        assert not fluid_files.is_whole(tmp_path / "n.pdiparams")
    (tmp_path / "n.pdiparams").write_bytes(whole)
    assert fluid_files.is_whole(tmp_path / "n.pdiparams")
    with pytest.raises(UserError, match="cannot be written"):
        native.save_program(network, tmp_path / "n.pdiparams" / "n", specs)
