"""The training loop of the judges: any number of steps, its schedule, its output, its command."""

import argparse
import math

import numpy as np
import paddle
import pytest
from paddle import nn

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.judges import pictures, training
from shared_metrics.judges.__main__ import main
from tests.conftest import run_cli


class Points:
    """Items x in {0, 1, 2, ...} / 8 with their doubles."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def load(self, index, rng):
        return np.array([index / 8], np.float32), np.array([index / 4], np.float32)


def fit(count, epochs, lr=0.1, batch_size=4):
    """A line fitted to `Points`, and the scores after each epoch."""
    paddle.seed(0)
    network = nn.Linear(1, 1)
    modes = []

    def loss(x, y):
        modes.append(network.training)
        return ((network(paddle.to_tensor(x)) - paddle.to_tensor(y)) ** 2).mean()

    def scores(data, size):
        modes.append(network.training)
        with paddle.no_grad():
            answer = network(paddle.to_tensor([[1.0]])).item()
        return {"error": abs(answer - 2.0)}

    args = argparse.Namespace(epochs=epochs, lr=lr, batch_size=batch_size, seed=0, num_workers=0)
    before = network.weight.numpy().copy()
    result = training.fit(network, Points(count), Points(2), loss=loss, scores=scores, args=args)
    return network, before, result, modes


@pytest.mark.parametrize("count, epochs", [(4, 1), (8, 1), (4, 2), (4, 10), (4, 19), (43, 2)])
def test_any_number_of_steps_trains(count, epochs):
    """1, 2, 2, 10, 19 and 20 steps in all: with 1 to 19 the warm-up is one step or none."""
    network, before, result, modes = fit(count, epochs)
    assert not np.array_equal(network.weight.numpy(), before) and math.isfinite(result["error"])
    steps = count // 4
    assert modes == ([True] * steps + [False]) * epochs and not network.training


def test_it_learns_and_says_so(capsys):
    _, _, result, _ = fit(16, 100)
    lines = capsys.readouterr().out.splitlines()
    assert result["error"] < 0.1 and lines[0] == "16 pictures to train on, 2 held out"
    assert len(lines) == 101 and lines[-1].startswith("epoch 100/100  loss 0.0")
    assert f"held-out error {result['error']:.4f}" in lines[-1]


def test_less_than_a_batch_is_refused_and_divergence_told():
    with pytest.raises(UserError, match="--batch_size 4: the data has only 3 image"):
        fit(3, 1)
    with pytest.raises(UserError, match="diverged at iteration 2: .*lower the learning rates"):
        fit(8, 3, lr=1e38)


def rates(steps, highest=0.5):
    rate = training.learning_rate(highest, steps)
    seen = []
    for _ in range(steps):
        seen.append(rate())
        rate.step()
    return seen


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_without_a_tenth_the_rate_begins_at_its_highest(steps):
    expected = [0.25 * (1 + math.cos(math.pi * k / steps)) for k in range(steps)]
    assert rates(steps) == pytest.approx(expected)


def test_the_rate_rises_for_a_tenth_then_falls():
    """Of 40 steps 4 rise, the fifth has the highest rate, the last the lowest."""
    seen = rates(40)
    assert seen[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    expected = [0.25 * (1 + math.cos(math.pi * k / 36)) for k in range(36)]
    assert seen[4:] == pytest.approx(expected)
    assert rates(3, highest=0.0) == [0.0, 0.0, 0.0]


def test_held_out_pictures_are_drawn_once_for_a_seed():
    chosen, held_out = pictures.split(10, 0.3, seed=1)
    assert len(held_out) == 3 and sorted([*chosen, *held_out]) == list(range(10))
    assert np.array_equal(held_out, pictures.split(10, 0.3, seed=1)[1])
    drawn = {tuple(pictures.split(10, 0.3, seed)[1]) for seed in range(9)}
    assert len(drawn) > 3
    with pytest.raises(UserError, match=r"--held_out 0.01: 0 of 10 pictures"):
        pictures.split(10, 0.01, seed=1)


def test_output_that_cannot_be_written_is_told_before_the_work(tmp_path):
    there = tmp_path / "judge.pdparams"
    there.write_bytes(b"mine")
    flags = ["classifier", "--data_path", tmp_path / "a", "--val_path", tmp_path / "b", "--output"]
    for output in (there, tmp_path, tmp_path / "none" / "judge.pdparams"):
        with pytest.raises(UserError, match=f"--output {output}: "):
            main([*map(str, flags), str(output)])
    assert there.read_bytes() == b"mine"


def test_a_file_is_kept_and_told_from_others(tmp_path):
    args = argparse.Namespace(output=str(tmp_path / "j.pdparams"), lr=0.5)
    network = nn.Linear(2, 1)
    about = {"width": 3, "imsize": 8, "classes": ["a", "b"], "mean": [0.5] * 3, "std": [0.2] * 3}
    about["accuracy"] = 0.5
    training.save("classifier", network, about, {"accuracy": 0.5}, args)
    state = training.load("classifier", args.output, "")
    assert np.array_equal(state["classifier"]["weight"], network.weight.numpy())
    assert state["width"] == 3 and state["args"] == {"output": args.output, "lr": 0.5}
    with pytest.raises(UserError, match="judges segmenter`; make one"):
        training.load("segmenter", args.output, "make one")
    state["width"] = 4
    weights.save(state | {"sha256": "0" * 64}, args.output)
    with pytest.raises(UserError, match="damaged"):
        training.load("classifier", args.output, "")


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    digits = "digits --images a --labels b --output x"
    for flags in ("", "judge --output x", "classifier", f"{digits} --held_out 1"):
        with pytest.raises(SystemExit) as stopped:
            main(flags.split())
        assert stopped.value.code == 2
    capsys.readouterr()
    flags = ["--images", tmp_path / "none.gz", "--labels", "b", "--output", tmp_path / "d.pdparams"]
    done = run_cli(".", "-m", "shared_metrics.judges", "digits", *flags, "--device", "cpu", code=2)
    assert done.stderr.splitlines()[-1].endswith(
        "none.gz: cannot be read (No such file or directory); download it again"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"width": None}, "lacks width"),
        ({"width": 2**40}, "its width cannot be"),
        ({"width": "8"}, "its entry width"),
        ({"imsize": 0}, "its imsize cannot be"),
        ({"mean": [0.5]}, "its mean cannot be"),
        ({"classes": [1, 2]}, "its entry classes"),
        ({"classifier": [1.0]}, "its entry classifier"),
    ],
)
def test_a_signed_file_of_wrong_entries_is_named(tmp_path, change, fault):
    state = {"classifier": {}, "imsize": 8, "width": 2, "classes": ["a", "b"], "accuracy": 0.5}
    state |= {"mean": [0.5] * 3, "std": [0.5] * 3, "format": 1, "args": {}} | change
    state = {name: value for name, value in state.items() if value is not None}
    path = tmp_path / "j.pdparams"
    weights.save({**state, "sha256": files.digest(state)}, path)
    with pytest.raises(UserError, match=f"^{path}: {fault}"):
        training.load("classifier", path, "")
