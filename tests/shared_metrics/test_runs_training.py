"""Update and Run round a loop of a few lines: what moves, what is due when, what is saved."""

import argparse
import json
import signal

import numpy as np
import paddle
import pytest

from shared_metrics import flags
from shared_metrics.errors import UserError
from shared_metrics.interrupts import Stopped
from shared_metrics.runs import checkpoint
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.stop import NotFinite
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update


def make_args(tmp_path, *words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="only")
    parser.add_argument("--batch_size", type=int, default=2)
    flags.run_flags(parser, name="toy", output_dir=str(tmp_path / "run"))
    return flags.with_recipe(parser, {"only": {"sample_every": 4}}, ["--log_every", 3, *words])


class Numbers:
    """Eight items: their own numbers."""

    def __len__(self):
        return 8

    def load(self, index, rng):
        return np.float32([index]), rng.random(dtype=np.float32)


class Pool:
    """Something besides networks that a checkpoint has to hold."""

    def __init__(self):
        self.items = []

    def state(self):
        return {"items": [np.copy(item) for item in self.items]}

    def load(self, state):
        self.items = list(state["items"])


class Toy:
    """One weight, trained to follow the data; `seen` are the batches."""

    def __init__(self, args, total=8, data=None, **how):
        self.data = data or Numbers()
        self.args = args
        self.total = total
        self.how = how
        self.net = paddle.nn.Linear(1, 1)
        self.net.weight.set_value(paddle.ones([1, 1]))
        self.net.bias.set_value(paddle.zeros([1]))
        self.update = Update(self.net, 0.1, beta1=0.5, beta2=0.9)
        self.pool = Pool()
        self.epochs = Epochs(len(Numbers()), args.batch_size)
        self.seen = []
        self.due = []

    def run(self):
        return Run(
            self.args,
            self.total,
            networks={"generator": self.net, "generator_ema": None},
            updates={"g": self.update},
            extras={"pool": self.pool},
            epochs=self.epochs,
            **self.how,
        )

    def train(self, after=lambda toy, iteration: None):
        with self.run() as run:
            batches = run.batches(self.data)
            for iteration in run:
                x, noise = next(batches)
                self.seen.append((iteration, x.ravel().tolist(), noise.tolist()))
                self.pool.items.append(x)
                loss = self.net(paddle.to_tensor(x)).square().mean()
                self.update.backward(loss, loss=loss)
                run.log(self.update.step())
                if run.due(self.args.sample_every, last=True):
                    self.due.append(run.iteration)
                    run.picture("samples", np.zeros((4, 4, 3), np.uint8))
                after(self, iteration)
        return run.exit_code


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_micro_batches_add_up_to_the_gradient_of_the_whole(tmp_path):
    """Three parts, the last one smaller; a sum over the batch is divided by the part's share."""
    x = paddle.to_tensor(np.arange(8, dtype="float32").reshape(8, 1) / 8)
    gradients = []
    logs = []
    for micro_batch in (0, 3):
        paddle.seed(1)
        net = paddle.nn.Linear(1, 1)
        update = Update(net, 0.0, beta1=0.5, beta2=0.9, micro_batch=micro_batch)
        for part in update.parts(8):
            mean = net(x[part]).square().mean()
            total = net(x[part]).sum()
            update.backward(mean + total / update.share, mean=mean)
        gradients.append(np.concatenate([p.grad.numpy().ravel() for p in update.parameters]))
        logs.append({name: float(value) for name, value in update.step().items()})
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5)
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_frozen_weights_get_no_gradient_and_pass_it_on():
    first = paddle.nn.Linear(1, 1)
    second = paddle.nn.Linear(1, 1)
    update = Update({"second": second}, 0.1, beta1=0.5, beta2=0.9)
    with update.frozen():
        second(first(paddle.ones([2, 1]))).sum().backward()
    assert first.weight.grad is not None and second.weight.grad is None
    assert not second.weight.stop_gradient
    assert list(checkpoint.optimizer_state(update.optimizer, update.networks)) == []


def test_gradients_that_others_left_do_not_count():
    net = paddle.nn.Linear(1, 1)
    update = Update(net, 0.1, beta1=0.5, beta2=0.9)
    net(paddle.ones([2, 1])).sum().backward()  # another network's loss
    update.backward(net(paddle.ones([2, 1])).mean())
    assert net.bias.grad.item() == 1.0


def test_a_rate_that_falls():
    net = paddle.nn.Linear(1, 1)
    net.weight.set_value(paddle.ones([1, 1]))
    update = Update(net, 0.5, beta1=0.0, beta2=0.9)
    for rate in (0.5, 0.25, 0.0):
        before = net.weight.item()
        update.set_rate(rate)
        update.backward(net(paddle.ones([2, 1])).mean())  # the gradient is 1: Adam goes by the rate
        update.step()
        assert before - net.weight.item() == pytest.approx(rate, abs=1e-5)


def test_rows_hold_means_and_what_is_due_comes_with_its_row(tmp_path):
    """Rows every 3 iterations, samples every 4 (the recipe's), the last iteration has both."""
    toy = Toy(make_args(tmp_path, "--save_every", 5), total=9)
    losses = []
    step = toy.update.step

    def remembered():
        logs = step()
        losses.append(float(logs["loss"]))
        return logs

    toy.update.step = remembered
    assert toy.train() == 0
    written = rows(tmp_path / "run")
    assert [row["iteration"] for row in written] == [3, 4, 5, 6, 8, 9]
    assert written[0]["loss"] == pytest.approx(np.mean(losses[:3]), rel=1e-6)
    assert written[3]["loss"] == pytest.approx(losses[5], rel=1e-6)
    assert written[4]["loss"] == pytest.approx(np.mean(losses[6:8]), rel=1e-6)
    assert toy.due == [4, 8, 9]
    samples = sorted(p.stem for p in (tmp_path / "run" / "samples").iterdir())
    assert samples == ["iter_0000004", "iter_0000008", "iter_0000009"]
    checkpoints = sorted(p.stem for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoints == ["iter_0000005", "iter_0000009"]


def test_epochs_as_the_unit_of_saving(tmp_path):
    """After the epochs 0, 2, 4, ...: four iterations an epoch."""
    args = make_args(tmp_path, "--save_every", 0, "--keep_checkpoints", 0)
    Toy(args, total=18, save_epochs=2).train()
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [int(p.stem[5:]) for p in saved] == [4, 12, 18]


def test_a_run_in_two_parts_sees_and_holds_what_one_in_a_whole_does(tmp_path):
    whole = Toy(make_args(tmp_path / "a"))
    whole.train()
    Toy(make_args(tmp_path / "b"), total=3).train()
    rest = Toy(make_args(tmp_path / "b", "--resume"))
    rest.train()
    assert rest.seen == whole.seen[3:]
    states = []
    for name in "ab":
        path = tmp_path / name / "run" / "checkpoints" / "iter_0000008.pdparams"
        states.append(checkpoint.load_checkpoint(path))
    for part in ("generator", "pool", "optimizer_g"):
        np.testing.assert_equal(states[0][part], states[1][part])


def test_a_length_in_epochs_goes_on_where_the_batch_changes(tmp_path, capsys):
    """Six of two are an epoch and a half: of four, one more ends it and two are the third."""
    flags = ("--save_every", 0, "--keep_checkpoints", 0)
    Toy(make_args(tmp_path, *flags), total=6).train()
    toy = Toy(make_args(tmp_path, "--resume", "--batch_size", 4, *flags), save_epochs=1)
    toy.total = lambda: toy.epochs.end(3)
    toy.train()
    assert [iteration for iteration, *_ in toy.seen] == [6, 7, 8]
    seen = [number for _, x, _ in toy.seen for number in x]
    first = Batches(Numbers(), 2, 0)
    before = [number for _ in range(6) for number in next(first)[0].ravel()]
    assert sorted(before[8:] + seen[:4]) == sorted(seen[4:]) == list(range(8))
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [int(p.stem[5:]) for p in saved] == [6, 7, 9]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "4 in all" in line]
    assert "before: 8 images, batch 2 x 1 process(es), 2 in all" in line
    assert "after 1 epoch(s) and 4 images" in line


def test_a_resumed_run_keeps_its_seed_unless_another_is_asked_for(tmp_path):
    Toy(make_args(tmp_path, "--seed", 7), total=2).train()
    path = tmp_path / "run" / "checkpoints" / "iter_0000002.pdparams"
    resumed = Toy(make_args(tmp_path, "--resume", "--save_every", 100), total=3)
    resumed.train()
    assert resumed.args.seed == 7
    other = Toy(make_args(tmp_path, "--resume", path, "--seed", 8), total=3)
    other.train()
    assert other.args.seed == 8 and other.seen != resumed.seen


def test_resume_with_nothing_to_go_on_from_says_so_and_keeps_what_is_there(tmp_path, capsys):
    out = tmp_path / "run"
    Toy(make_args(tmp_path, "--resume"), total=3).train()  # a folder that does not exist
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "anew" in text]
    assert "--resume auto" in line and str(out / "checkpoints") in line and "best" not in line
    (saved,) = (out / "checkpoints").iterdir()
    saved.rename(out / "checkpoints" / "best_fid.pdparams")
    text, written = ((out / name).read_text() for name in ("log.txt", "log.jsonl"))
    with pytest.raises(UserError, match="holds a run already"):
        Toy(make_args(tmp_path)).train()
    Toy(make_args(tmp_path, "--resume"), total=3).train()
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "anew" in text]
    assert "best_fid.pdparams stay" in line and "log" in line
    assert (out / "log.txt").read_text().startswith(text)
    assert (out / "log.jsonl").read_text().startswith(written)
    checkpoint.set_aside(checkpoint.best_path(out / "checkpoints", "fid"))
    names = {path.name for path in (out / "checkpoints").iterdir()}
    assert names == {"best_fid_before_1.pdparams", "iter_0000003.pdparams"}


def test_a_run_that_trained_nothing_leaves_no_log(tmp_path):
    with pytest.raises(ZeroDivisionError), Toy(make_args(tmp_path)).run():
        raise ZeroDivisionError
    assert Toy(make_args(tmp_path), total=1).train() == 0


def test_a_signal_ends_the_loop_after_a_whole_step(tmp_path, capsys):
    def interrupt(toy, iteration):
        if iteration == 1:
            signal.raise_signal(signal.SIGTERM)

    toy = Toy(make_args(tmp_path))
    assert toy.train(after=interrupt) == 143
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert saved.name == "iter_0000003.pdparams"
    assert "stopped after iteration 3" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_long_work_between_two_steps(tmp_path, capsys, number):
    """Of what is drawn and scored nothing more is done; the iteration is saved."""

    def draw(toy, iteration):
        if toy.due == [4]:
            signal.raise_signal(number)
            raise AssertionError("went on")

    toy = Toy(make_args(tmp_path))
    assert toy.train(after=draw) == 128 + number
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["iter_0000004"]
    assert "stopped after iteration 4, saved" in capsys.readouterr().out


def test_a_signal_ends_the_first_real_statistics(tmp_path, monkeypatch):
    def measure(run):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on")

    monkeypatch.setattr(Run, "_open_evaluation", measure)
    with pytest.raises(Stopped):
        Toy(make_args(tmp_path, "--eval_every", 2)).train()
    assert not list(tmp_path.glob("run/checkpoints/*.pdparams"))


def test_a_bad_picture_ends_the_run_after_a_save(tmp_path, capsys):
    """The third batch cannot be read; what two have trained is there, and trains on once mended."""
    whole = Toy(make_args(tmp_path / "a"), total=4)
    whole.train()
    seen = []

    class Broken(Numbers):
        def load(self, index, rng):
            seen.append(index)
            if len(seen) in (5, 6):
                raise UserError("data/007.png: truncated image")
            return super().load(index, rng)

    toy = Toy(make_args(tmp_path / "b"), total=4, data=Broken())
    with pytest.raises(UserError, match="data/007.png: truncated image"):
        toy.train()
    assert "an error ends the run: iteration 2 is saved first" in capsys.readouterr().out
    rest = Toy(make_args(tmp_path / "b", "--resume"), total=4)
    rest.train()
    assert rest.seen == whole.seen[2:]


@pytest.mark.parametrize("error, saved", [(ZeroDivisionError, True), (NotFinite, False)])
def test_an_error_between_two_steps_ends_the_run_after_a_save(tmp_path, error, saved):
    def draw(toy, iteration):
        if iteration == 1:
            raise error("while drawing")

    with pytest.raises(error):
        Toy(make_args(tmp_path)).train(after=draw)
    assert (tmp_path / "run" / "checkpoints" / "iter_0000002.pdparams").exists() == saved


def test_an_error_inside_a_step_saves_nothing(tmp_path):
    toy = Toy(make_args(tmp_path))
    step = toy.update.step

    def broken():
        if len(toy.seen) == 3:
            raise ZeroDivisionError
        return step()

    toy.update.step = broken
    with pytest.raises(ZeroDivisionError):
        toy.train()
    assert not list(tmp_path.glob("run/checkpoints/*.pdparams"))


def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path):
    Toy(make_args(tmp_path), total=1).train()
    path = tmp_path / "run" / "checkpoints" / "iter_0000001.pdparams"
    state = checkpoint.load_checkpoint(path)
    del state["optimizer_g"]
    checkpoint.save_checkpoint(path.parent, 2, state, keep=0)
    with pytest.raises(UserError, match="iter_0000002.*no optimizer_g"):
        Toy(make_args(tmp_path, "--resume")).train()


def test_a_foreign_checkpoint_may_lack_optimizers(tmp_path):
    weights = {"weight": np.full((1, 1), 5, "float32"), "bias": np.zeros(1, "float32")}
    toy = Toy(make_args(tmp_path), begin=("x.pth", {"generator": weights, "iteration": 6}))
    with toy.run() as run:
        assert run.iteration == 6 and toy.net.weight.item() == 5


def test_a_finished_run_says_so(tmp_path, capsys):
    Toy(make_args(tmp_path), total=1).train()
    Toy(make_args(tmp_path, "--resume"), total=1).train()
    assert "iteration 1 is done already" in capsys.readouterr().out


def test_start_from_gives_the_average_the_generators_weights(tmp_path):
    values = {"weight": np.full((1, 1), 5, "float32"), "bias": np.zeros(1, "float32")}
    networks = {name: paddle.nn.Linear(1, 1) for name in ("generator", "generator_ema", "encoder")}
    networks["discriminator"] = None
    notes = start_from(networks, {"generator": values}, "x.pth")
    assert networks["generator"].weight.item() == networks["generator_ema"].weight.item() == 5
    assert notes == ["x.pth: holds no encoder; it starts from its initial weights"]


def test_pretrained_and_resume_exclude_each_other(tmp_path):
    with pytest.raises(UserError, match="--pretrained_model and --resume"):
        make_args(tmp_path, "--pretrained_model", "x", "--resume")


def test_a_flag_outranks_the_recipe(tmp_path):
    assert make_args(tmp_path).sample_every == 4
    assert make_args(tmp_path, "--sample_every", 2).sample_every == 2


def test_the_originals_words_set_our_flags():
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=flags.positive, default=5)
    flags.original_words(parser, {"--total_step": "--iterations"})
    assert parser.parse_args([]).iterations == 5
    assert parser.parse_args(["--total_step", "1e3"]).iterations == 1000
