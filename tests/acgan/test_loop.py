"""The training loop: what is averaged, shown, logged and saved when, and what a run starts from."""

import json
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from shared_metrics import weights
from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint, training
from shared_metrics.runs.log import RunLog
from shared_metrics.runs.stop import NotFinite
from tests.acgan.networks import discriminate
from tests.acgan.trainers import Data, batch, make, trained


@pytest.fixture
def acgan(paper, monkeypatch):
    monkeypatch.setattr(RunLog, "_curves", lambda log: None)  # drawing takes longest of all
    return paper("acgan")


# ---- the average, samples, held-out images ----


def test_ema_averages_weights_and_copies_statistics(acgan, tmp_path):
    trainer = make(acgan, tmp_path, ema_decay=0.75, ema_start=1)
    before = {n: v.numpy().copy() for n, v in trainer.G.state_dict().items()}
    trainer.train_step(0, *batch())  # before ema_start: a copy
    first = {n: v.numpy().copy() for n, v in trainer.G.state_dict().items()}
    assert any(not np.array_equal(before[n], first[n]) for n in first)
    assert all(np.array_equal(v.numpy(), first[n]) for n, v in trainer.G_ema.state_dict().items())
    trainer.train_step(1, *batch())
    second = {n: v.numpy() for n, v in trainer.G.state_dict().items()}
    names = set(trained(trainer.G))
    for name, value in trainer.G_ema.state_dict().items():
        expected = 0.75 * first[name] + 0.25 * second[name] if name in names else second[name]
        assert np.allclose(value.numpy(), expected, atol=1e-6), name
    statistics = set()
    for i in (2, 3, 4):
        statistics |= {f"tconv{i}.1._mean", f"tconv{i}.1._variance"}
    assert set(second) - names == statistics


def test_samples_come_from_the_average_in_eval_mode_and_leave_training_as_it_was(acgan, tmp_path):
    trainer = make(acgan, tmp_path, ema_decay=0.5)
    trainer.train_step(0, *batch())
    state = {n: v.numpy().copy() for n, v in trainer.G.state_dict().items()}
    y = np.full(10, 1)
    noise = np.random.default_rng(0).standard_normal((10, 7), dtype=np.float32)
    images = trainer.generate(noise, y)
    assert images.shape == (10, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images[:4], trainer.generate(noise[:4], y[:4]))  # whatever else is drawn
    assert not np.array_equal(images, trainer.generate(noise, np.full(10, 2)))  # the class is seen
    assert trainer.G.training
    assert all(np.array_equal(v.numpy(), state[n]) for n, v in trainer.G.state_dict().items())
    for p in trainer.G_ema.tconv5[0].parameters():
        p.set_value(paddle.zeros(p.shape))
    assert (trainer.generate(noise, y) == 128).all()  # tanh(0): G_ema drew them


def test_held_out_accuracy_is_ds_in_eval_mode(acgan, tmp_path):
    """Against the network written out in numpy; nothing of D changes, and batches do not matter."""
    held_out = Data(11, labels=[0] * 4 + [1] * 4 + [2] * 3)
    trainer = make(acgan, tmp_path, held_out=held_out)
    state = {n: v.numpy().copy() for n, v in trainer.D.state_dict().items()}
    _, logits = discriminate(state, held_out.images.astype("float64"), "callifrey", 32)
    predicted = logits.argmax(1)
    held_out.labels = [*predicted[:7], *((predicted[7:] + 1) % 3)]
    assert trainer.held_out_accuracy() == pytest.approx(7 / 11)
    trainer.args.batch_size = 5
    assert trainer.held_out_accuracy() == pytest.approx(7 / 11)
    # Images 0, 5 and 10: spread over the classes.
    assert trainer.held_out_accuracy(most=3) == pytest.approx(2 / 3)
    assert trainer.D.training
    assert all(np.array_equal(v.numpy(), state[n]) for n, v in trainer.D.state_dict().items())


def test_unreadable_images_are_left_out_of_what_is_shown_when_asked(acgan, tmp_path):
    data = Data(bad=(0, 3, 6, 9))  # of class 0 nothing can be read
    held_out = Data(6, labels=[0] * 6, bad=(1, 5))
    trainer = make(acgan, tmp_path, data=data, held_out=held_out)
    with pytest.raises(UserError, match="image 0 is broken"):
        trainer.show_real()
    with pytest.raises(UserError, match="image 1 is broken"):
        trainer.held_out_accuracy()
    trainer.args.skip_bad_images = True
    trainer.show_real()
    assert (tmp_path / "results" / "real_samples.png").exists()
    assert trainer.held_out_accuracy() in (0, 0.25, 0.5, 0.75, 1)


# ---- the loop ----


def without_steps(trainer, logs):
    """A trainer whose steps do nothing but return logs(iteration)."""

    def train_step(iteration, x, y):
        values = logs(iteration)
        return {name: paddle.to_tensor(float(value)) for name, value in values.items()}

    trainer.train_step = train_step
    return trainer


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_rows_are_means_since_the_last_row(acgan, tmp_path):
    trainer = make(acgan, tmp_path, iterations=7, log_every=3, save_every=100, sample_every=100)
    without_steps(trainer, lambda i: {"D_loss": i * i, "Acc": i % 2}).train()
    means = [(row["iteration"], row["D_loss"], row["Acc"]) for row in rows(tmp_path)]
    assert means == [
        (3, pytest.approx(5 / 3), pytest.approx(1 / 3)),
        (6, pytest.approx(50 / 3), pytest.approx(2 / 3)),
        (7, 36, 0),
    ]


SAVES = [(7, 3, (0, 3, 6)), (8, 3, (0, 3, 6, 7)), (2, 5, (0, 1)), (1, 5, (0,))]


@pytest.mark.parametrize("niter, save_freq, epochs", SAVES)
def test_saves_and_samples_after_epoch_0_every_save_freq_and_the_last(
    acgan, tmp_path, niter, save_freq, epochs
):
    """Three batches an epoch; epochs count from 0, as in the file names of the reference code."""
    trainer = make(acgan, tmp_path, niter=niter, save_freq=save_freq, log_every=100)
    assert without_steps(trainer, lambda i: {}).train() == 0
    saved = numbers(tmp_path / "checkpoints")
    sampled = numbers(tmp_path / "results")
    assert saved == [3 * (e + 1) for e in epochs] and sampled == saved
    classes = {path.name for path in (tmp_path / "class_results").iterdir()}
    assert classes == {"a.png", "b.png", "c.png"}


def test_saves_and_samples_by_iterations_when_asked(acgan, tmp_path):
    flags = dict(niter=50, iterations=7, save_every=2, sample_every=3, log_every=100)
    without_steps(make(acgan, tmp_path, **flags), lambda i: {}).train()
    assert numbers(tmp_path / "checkpoints") == [2, 4, 6, 7]
    assert numbers(tmp_path / "results") == [3, 6, 7]


def numbers(folder):
    """The iterations in the names of a folder's files."""
    return [int(path.stem[5:]) for path in sorted(folder.glob("iter_*"))]


def test_scores_are_against_the_images_that_can_be_read(acgan, tmp_path, monkeypatch):
    """With --skip_bad_images without the others.

    The statistics of a run before are trusted only when it goes on.
    """
    calls = []
    monkeypatch.setattr(training, "open_networks", lambda *weights: (weights, ""))
    monkeypatch.setattr(training, "Evaluation", lambda *args, **how: calls.append((args, how)))
    for iterations, words in ((3, {"skip_bad_images": True}), (4, {"resume": True})):
        flags = dict(real_stats="stats.npz", inception_weights="random", eval_samples=9)
        trainer = make(acgan, tmp_path, iterations=iterations, eval_every=100, **flags, **words)
        without_steps(trainer, lambda i: {}).train()
        args, how = calls.pop()
        assert args == (tmp_path, "stats.npz", ("random", "auto"), 9)
        assert how["data"] is trainer.data and how["skip_bad"] == ("skip_bad_images" in words)
        assert how["resumed"] == ("resume" in words)


def test_scores_while_training_keep_the_best(acgan, tmp_path, monkeypatch):
    """Every evaluation draws the same latents; what it finds is logged and kept in checkpoints."""
    flags = dict(iterations=5, save_every=100, sample_every=100, log_every=100, ema_decay=0.5)
    trainer = make(acgan, tmp_path, eval_every=2, eval_samples=7, **flags)
    seen = []

    def score(batches, iteration, best):
        seen.append(np.concatenate(list(batches)))
        improved = [] if best else ["fid"]
        best.setdefault("fid", {"value": 9.0, "iteration": iteration})
        return {"fid": 10.0 - iteration}, improved

    monkeypatch.setattr(training, "open_networks", lambda *weights: ([], ""))
    monkeypatch.setattr(training, "Evaluation", lambda *args, **how: SimpleNamespace(score=score))
    trainer.train()
    assert [images.shape for images in seen] == [(7, 32, 32, 3)] * 2
    assert not np.array_equal(*seen)
    again = [np.concatenate(list(trainer.fakes())) for _ in range(2)]
    assert np.array_equal(*again)
    trainer.G.fc1.weight.set_value(trainer.G.fc1.weight * 2)
    assert np.array_equal(np.concatenate(list(trainer.fakes())), again[0])  # the average drew them
    scores = [(row["iteration"], row["fid"]) for row in rows(tmp_path) if "fid" in row]
    assert scores == [(2, 8.0), (4, 6.0)]
    states = {p.stem: weights.load(p) for p in (tmp_path / "checkpoints").iterdir()}
    assert sorted(states) == ["best_fid", "iter_0000002", "iter_0000004", "iter_0000005"]
    assert states["best_fid"]["iteration"] == 2
    best = {"fid": {"value": 9.0, "iteration": 2}}
    assert all(state["best"] == best for state in states.values())


@pytest.mark.parametrize("where", ["G.tconv3.0.weight", "D.conv1.0.weight", "D.fc_aux.bias"])
def test_a_nan_stops_with_the_iteration_and_keeps_the_last_checkpoint(acgan, tmp_path, where):
    trainer = make(acgan, tmp_path, iterations=6, save_every=1, sample_every=100)
    step = trainer.train_step
    network, name = where.split(".", 1)
    poison = dict(getattr(trainer, network).named_parameters())[name]

    def poisoned(iteration, x, y):
        logs = step(iteration, x, y)
        if iteration == 2:
            poison.set_value(paddle.full(poison.shape, float("nan")))
        return logs

    trainer.train_step = poisoned
    with pytest.raises(NotFinite, match=r"iteration 3.*iter_0000002"):
        trainer.train()
    newest = max((tmp_path / "checkpoints").iterdir())
    assert newest.name == "iter_0000002.pdparams"


# ---- what a run starts from ----


def test_weights_of_another_network_are_refused(acgan, tmp_path):
    """With and without ReLU after fc1 the shapes are the same and the networks are not.

    D has no part in it.
    """
    trainer = make(acgan, tmp_path)
    state = saved(make(acgan, tmp_path, arch={"fc_relu": False}))
    with pytest.raises(UserError, match="fc_relu False there, True here"):
        trainer.start_from(state, "other.pdparams")
    del state["generator"]
    assert "no generator" in trainer.start_from(state, "other.pdparams")[0]
    state = saved(make(acgan, tmp_path, arch={"form": "clvrai"}))
    with pytest.raises(UserError, match="form clvrai there, callifrey here"):
        trainer.start_from(state, "other.pdparams")


def saved(trainer):
    """What a checkpoint of this trainer's run holds."""
    with trainer._run(()) as run:
        return run.state()


def test_a_checkpoint_goes_on_where_it_was(acgan, tmp_path):
    """Networks, average, both optimizers and the place; a step later they still agree."""
    one = make(acgan, tmp_path, ema_decay=0.5)
    other = make(acgan, tmp_path, ema_decay=0.5)
    one.train_step(0, *batch())
    with one._run(()) as run:
        run.iteration = 1
        run.best = {"fid": {"value": 3.0, "iteration": 1}}
        run.save()
    other.args.resume = "auto"
    with other._run(()) as run:
        assert (run.iteration, run.best) == (1, {"fid": {"value": 3.0, "iteration": 1}})
    for trainer in (one, other):
        trainer.train_step(1, *batch(seed=1))
    for network in ("G", "D", "G_ema"):
        theirs = getattr(other, network).state_dict()
        for name, value in getattr(one, network).state_dict().items():
            assert np.array_equal(value.numpy(), theirs[name].numpy()), f"{network}.{name}"


def test_what_is_no_checkpoint_of_this_run_is_refused(acgan, tmp_path):
    trainer = make(acgan, tmp_path)
    state = saved(trainer)
    trainer.args.resume = "auto"
    folder = tmp_path / "checkpoints"
    checkpoint.save_checkpoint(folder, 1, state | {"classes": ["a", "b", "d"]}, keep=0)
    with pytest.raises(UserError, match="other classes"):
        trainer.train()
    del state["optimizer_d"]
    path = checkpoint.save_checkpoint(folder, 2, state, keep=0)
    with pytest.raises(UserError, match=f"{path}.*optimizer_d"):
        trainer.train()
