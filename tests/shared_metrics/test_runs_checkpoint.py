"""Checkpoints are whole, checked, pruned, found again, and hold the optimizer by name."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint
from shared_metrics.runs.stop import NotFinite
from tests.conftest import ROOT


def small_state(value=1.0):
    return {"generator": {"fc.weight": np.full((64, 64), value, np.float32)}, "args": {"seed": 3}}


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "bit":
        # Inside the weights: pickle alone reads it without complaint.
        data[data.index(np.float32(1).tobytes() * 4) + 7] ^= 1
    elif how == "cut":
        data = data[:-1]
    elif how == "empty":
        data = b""
    elif how == "page":
        data = b"<!DOCTYPE html><html>404</html>"
    path.write_bytes(data)


def test_what_is_saved_comes_back(tmp_path):
    path = checkpoint.save_checkpoint(tmp_path / "new", 20, small_state(), keep=3)
    assert path == tmp_path / "new" / "iter_0000020.pdparams"
    state = checkpoint.load_checkpoint(path)
    assert state["iteration"] == 20 and state["format"] == 1 and state["args"] == {"seed": 3}
    np.testing.assert_array_equal(state["generator"]["fc.weight"], np.ones((64, 64), np.float32))


def test_pruning_keeps_the_newest_and_every_best(tmp_path):
    checkpoint.save_best(tmp_path, "fid", small_state())
    for iteration in range(1, 6):
        checkpoint.save_checkpoint(tmp_path, iteration, small_state(), keep=2)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["best_fid.pdparams", "iter_0000004.pdparams", "iter_0000005.pdparams"]
    assert checkpoint.load_checkpoint(tmp_path / "best_fid.pdparams")["args"] == {"seed": 3}
    for iteration in range(6, 9):
        checkpoint.save_checkpoint(tmp_path, iteration, small_state(), keep=0)
    assert len(list(tmp_path.glob("iter_*"))) == 5


def test_pruning_never_takes_the_file_just_written(tmp_path):
    for iteration in (100, 200):
        checkpoint.save_checkpoint(tmp_path, iteration, small_state(), keep=0)
    damage(tmp_path / "iter_0000200.pdparams", "cut")
    path, _ = checkpoint.resume("auto", tmp_path)
    assert path.name == "iter_0000100.pdparams"
    checkpoint.save_checkpoint(tmp_path, 110, small_state(), keep=1)
    assert checkpoint.resume("auto", tmp_path)[0].name == "iter_0000110.pdparams"


def test_temporary_files_of_a_killed_save_are_cleared(tmp_path):
    left = tmp_path / ".iter_0000001.99999999.tmp.pdparams"
    left.write_bytes(b"half")
    assert checkpoint.resume("auto", tmp_path) is None
    checkpoint.save_checkpoint(tmp_path, 2, small_state(), keep=3)
    assert not left.exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_state_is_refused_and_named(tmp_path, bad):
    old = checkpoint.save_checkpoint(tmp_path, 1, small_state(), keep=1)
    state = small_state()
    state["optimizer_g"] = {"moment1": {"fc.weight": np.array([0.0, bad], np.float32)}}
    with pytest.raises(NotFinite, match="optimizer_g.moment1.fc.weight"):
        checkpoint.save_checkpoint(tmp_path, 2, state, keep=1)
    assert [p for p in tmp_path.iterdir()] == [old]
    checkpoint.load_checkpoint(old)


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "page"])
def test_damage_is_named_and_the_one_before_is_used(tmp_path, capsys, how):
    for iteration in (1, 2):
        checkpoint.save_checkpoint(tmp_path, iteration, small_state(), keep=0)
    newest = tmp_path / "iter_0000002.pdparams"
    damage(newest, how)
    with pytest.raises(UserError, match="iter_0000002"):
        checkpoint.resume(str(newest), tmp_path)
    path, state = checkpoint.resume("auto", tmp_path)
    assert path.name == "iter_0000001.pdparams" and state["iteration"] == 1
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and str(newest) in said and said.count("\n") == 1
    damage(path, how)
    with pytest.raises(UserError, match="none of the 2 checkpoints"):
        checkpoint.resume("auto", tmp_path)


def test_resume_finds_what_is_named(tmp_path, capsys):
    run = tmp_path / "run"
    assert checkpoint.resume("", run) is None
    assert checkpoint.resume("auto", run / "checkpoints") is None  # a first start
    for iteration in (9, 10):
        checkpoint.save_checkpoint(run / "checkpoints", iteration, small_state(), keep=0)
    assert checkpoint.resume("auto", run / "checkpoints")[1]["iteration"] == 10
    for which in (run, run / "checkpoints"):
        assert checkpoint.resume(str(which), tmp_path)[1]["iteration"] == 10
    assert capsys.readouterr().err == ""
    earlier = run / "checkpoints" / "iter_0000009.pdparams"
    assert checkpoint.resume(str(earlier), run / "checkpoints")[1]["iteration"] == 9
    assert "later checkpoint" in capsys.readouterr().err
    for wrong in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="--resume"):
            checkpoint.resume(str(wrong), run)


def test_bare_weights_and_later_formats_are_no_checkpoint(tmp_path):
    weights.save(small_state(), tmp_path / "bare.pdparams")
    with pytest.raises(UserError, match="not a training checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "bare.pdparams")
    weights.save({"format": 2, "sha256": ""}, tmp_path / "later.pdparams")
    with pytest.raises(UserError, match="format 2"):
        checkpoint.load_checkpoint(tmp_path / "later.pdparams")


SAVE_LOOP = """
import sys
import numpy as np
from shared_metrics.runs import checkpoint
newest = checkpoint.resume("auto", sys.argv[1])
start = newest[1]["iteration"] if newest else 0
print("saving", flush=True)
for i in range(start + 1, start + 10**6):
    state = {"generator": {"w": np.full(500_000, i, np.float32)}}
    checkpoint.save_checkpoint(sys.argv[1], i, state, keep=2)
"""


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    moments = random.Random(5)
    before = 0
    for _ in range(6):
        command = [sys.executable, "-c", SAVE_LOOP, str(tmp_path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "saving\n"
        while not list(tmp_path.glob("iter_*")):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        path, state = checkpoint.resume("auto", tmp_path)
        assert path == max(tmp_path.glob("iter_*"))  # nothing had to be skipped
        assert (state["generator"]["w"] == state["iteration"]).all()
        assert state["iteration"] >= before
        before = state["iteration"]
    assert before > 6


# ---- optimizer state


class Trained:
    """A small network, its optimizer and a data stream that depends on the iteration only."""

    def __init__(self, schedule=True, kind="Adam", width=4):
        paddle = pytest.importorskip("paddle")
        self.paddle = paddle
        paddle.seed(0)
        nn = paddle.nn
        self.net = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1D(width), nn.Linear(width, 1))
        # It never gets a gradient, so never any state.
        self.net.add_sublayer("unused", nn.Linear(2, 2))
        self.rate = paddle.optimizer.lr.StepDecay(0.01, 3) if schedule else 0.01
        options = {"beta1": 0.5, "beta2": 0.9} if kind.startswith("Adam") else {}
        optimizer = getattr(paddle.optimizer, kind)
        self.opt = optimizer(self.rate, parameters=self.net.parameters(), **options)

    def train(self, first, last):
        for i in range(first, last):
            x = np.random.default_rng(i).standard_normal((5, 3), dtype=np.float32)
            h = self.net[1](self.net[0](self.paddle.to_tensor(x)))
            loss = self.net[2](h).square().mean()
            self.opt.clear_grad()
            loss.backward()
            self.opt.step()
            if not isinstance(self.rate, float):
                self.rate.step()
        return self

    def state(self):
        return {
            "net": checkpoint.network_state(self.net),
            "opt": checkpoint.optimizer_state(self.opt, self.net),
        }

    def load(self, state):
        weights.load_into(self.net, state["net"], what="net", source="file")
        checkpoint.load_optimizer_state(self.opt, self.net, state["opt"], source="file")
        return self


@pytest.mark.parametrize("kind, schedule", [("Adam", True), ("AdamW", False), ("Momentum", False)])
def test_training_goes_on_bit_identically_under_other_automatic_names(tmp_path, kind, schedule):
    half = Trained(schedule, kind).train(0, 5)
    path = checkpoint.save_checkpoint(tmp_path, 5, half.state(), keep=1)
    saved = checkpoint.load_checkpoint(path)
    straight = half.train(5, 9).state()  # going on must not change what was saved, either
    names = set()
    for values in straight["opt"].values():
        names |= values.keys()
    assert {"0.weight", "2.bias"} < names and "unused.weight" not in names
    half.paddle.nn.Conv2D(3, 3, 3)  # later networks get other automatic names
    fresh = Trained(schedule, kind)
    stepped = Trained(schedule, kind).train(30, 33)
    for again in (fresh, stepped):
        assert set(again.opt.state_dict()).isdisjoint(set(half.opt.state_dict()) - {"LR_Scheduler"})
        assert files.digest(again.load(saved).train(5, 9).state()) == files.digest(straight)
        assert again.opt.get_lr() == half.opt.get_lr()


def test_saved_state_does_not_change_with_later_steps():
    trained = Trained().train(0, 2)
    state = trained.state()
    before = files.digest(state)
    trained.train(2, 4)
    assert files.digest(state) == before != files.digest(trained.state())


def test_a_foreign_optimizer_state_is_refused():
    state = Trained().train(0, 2).state()["opt"]
    for other in (Trained(width=5), Trained(kind="Momentum")):
        with pytest.raises(UserError, match="run7.*optimizer"):
            checkpoint.load_optimizer_state(other.opt, other.net, state, source="run7")
    other = Trained(schedule=False)
    with pytest.raises(UserError, match="run7.*schedule"):
        checkpoint.load_optimizer_state(other.opt, other.net, state, source="run7")
    with pytest.raises(ValueError, match="parameters that the layer lacks"):
        checkpoint.optimizer_state(Trained().opt, Trained().net)


@pytest.mark.parametrize(
    "name, value",
    [
        ("iteration", "12"),
        ("iteration", -1),
        ("args", [1]),
        ("classes", "cat,dog"),
        ("optimizer_g", {"moment1": {"w": "text"}}),
        ("generator", {"w": [1.0]}),
        ("epochs", [1]),
        ("epochs", [{"epoch": 1}]),
    ],
)
def test_entries_of_a_wrong_type_are_named(tmp_path, name, value):
    """Of a file that is whole and well signed."""
    path = tmp_path / "iter_0000012.pdparams"
    state = {"generator": {"w": np.ones(2)}, "iteration": 12, "format": 1, name: value}
    weights.save({**state, "sha256": files.digest(state)}, path)
    with pytest.raises(UserError, match=f"^{path}: its entry {name}"):
        checkpoint.load_checkpoint(path)
