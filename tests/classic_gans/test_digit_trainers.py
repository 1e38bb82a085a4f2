"""The updates of CGAN and DCGAN, and what both show of their pictures."""

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from shared_metrics.errors import UserError
from tests.classic_gans.trainers import (
    adam,
    args_of,
    assert_same,
    copy_of,
    moved,
    record,
    step,
    write_digits,
)

SIZES = {
    "CGAN": {"g_base_dims": 2, "d_base_dims": 2},
    "DCGAN": {"g_base_dims": 1, "d_base_dims": 2},
}


@pytest.fixture
def gans(paper):
    return paper("classic_gans")


@pytest.fixture
def make(gans, tmp_path):
    """Function that makes a tiny trainer of a model on tiny digits."""
    write_digits(tmp_path / "data" / "mnist")

    def build(name, **flags):
        flags = {"batch_size": 6, "noise_size": 5, **SIZES[name], **flags}
        return gans.rooms.room(name).Trainer(args_of(gans, name, tmp_path, **flags))

    return build


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (6, 1, 28, 28)).astype("float32"), rng.integers(10, size=6)


@pytest.mark.parametrize("name", ["CGAN", "DCGAN"])
def test_losses_by_hand(gans, name):
    room = gans.rooms.room(name)
    logits = paddle.to_tensor([2.0, -0.5])
    softplus = [math.log1p(math.exp(x)) for x in (-2.0, 0.5, 2.0, -0.5)]
    assert float(room.d_loss(logits, real=True)) == pytest.approx(sum(softplus[:2]) / 2)
    assert float(room.d_loss(logits, real=False)) == pytest.approx(sum(softplus[2:]) / 2)
    assert float(room.g_loss(logits)) == pytest.approx(sum(softplus[:2]) / 2)
    # Where the logistic function rounds to 0 the loss is still steep.
    assert float(room.g_loss(paddle.to_tensor([-200.0]))) == 200


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, paddle.full(logits.shape, target))


def test_two_steps_of_cgan_against_a_twin(make):
    """D learns of the real pictures, steps, learns of the fakes, steps; G of the same z, twice."""
    trainer = make("CGAN", num_generator_time=2)
    twin = make("CGAN")
    optimizer_g = adam(twin.G)
    optimizer_d = adam(twin.D)
    for iteration in range(2):
        x, y = batch(iteration)
        logs = trainer.train_step(iteration, x, y)
        rng = twin._rng("z", iteration, 0)
        z = paddle.to_tensor(rng.uniform(-1, 1, (6, 5)).astype("float32"))
        x = paddle.to_tensor(x)
        y = paddle.to_tensor(y)
        fake = twin.G(z, y)
        loss_real = bce(twin.D(x, y), 1.0)
        step(optimizer_d, loss_real)
        loss_fake = bce(twin.D(fake.detach(), y), 0.0)
        step(optimizer_d, loss_fake)
        step(optimizer_g, bce(twin.D(fake, y), 1.0))
        loss_g = bce(twin.D(twin.G(z, y), y), 1.0)
        step(optimizer_g, loss_g)
        assert float(logs["d_loss_real"]) == pytest.approx(float(loss_real), rel=1e-5)
        assert float(logs["d_loss_fake"]) == pytest.approx(float(loss_fake), rel=1e-5)
        assert float(logs["g_loss"]) == pytest.approx(float(loss_g), rel=1e-5)
        assert all(value.stop_gradient and value.ndim == 0 for value in logs.values())
    assert_same(trainer.G, twin.G, r"l[12](\.bias|_norm\._mean)")
    assert_same(trainer.D, twin.D, r"l3(\.bias|_norm\._mean)")


@pytest.mark.parametrize("form, side", [("digits", 28), ("paper", 32)])
def test_two_steps_of_dcgan_against_a_twin(make, form, side):
    """As CGAN's, but each update of G draws a z of its own, and there is no update in between."""
    flags = {"num_generator_time": 2, "form": form, "image_size": side}
    trainer = make("DCGAN", **flags)
    twin = make("DCGAN", **flags)
    optimizer_g = adam(twin.G)
    optimizer_d = adam(twin.D)
    for iteration in range(2):
        x = np.random.default_rng(iteration).uniform(-1, 1, (6, 1, side, side)).astype("float32")
        logs = trainer.train_step(iteration, x)
        rng = twin._rng("z", iteration, 0)
        z = [paddle.to_tensor(rng.uniform(-1, 1, (6, 5)).astype("float32")) for _ in range(3)]
        fake = twin.G(z[0]).detach()
        loss_real = bce(twin.D(paddle.to_tensor(x)), 1.0)
        step(optimizer_d, loss_real)
        loss_fake = bce(twin.D(fake), 0.0)
        step(optimizer_d, loss_fake)
        step(optimizer_g, bce(twin.D(twin.G(z[1])), 1.0))
        loss_g = bce(twin.D(twin.G(z[2])), 1.0)
        step(optimizer_g, loss_g)
        assert float(logs["d_loss_real"]) == pytest.approx(float(loss_real), rel=1e-5)
        assert float(logs["d_loss_fake"]) == pytest.approx(float(loss_fake), rel=1e-5)
        assert float(logs["g_loss"]) == pytest.approx(float(loss_g), rel=1e-5)
    assert_same(trainer.G, twin.G, r"l[12](\.bias|_norm\._mean)")
    assert_same(trainer.D, twin.D, r"c2(\.bias|_bn\._mean)|l1(\.bias|_norm\._mean)")


def test_who_moves_when_in_cgan(make):
    trainer = make("CGAN")
    calls = []
    record(trainer.D, calls, lambda inputs: (inputs, copy_of(trainer.D), copy_of(trainer.G)))
    x, y = batch()
    trainer.train_step(0, x, y)
    (real, d0, _), (fake, d1, _), (again, d2, g2) = calls
    assert np.array_equal(real[0], x) and np.array_equal(real[1], y)
    assert fake[0].stop_gradient and not again[0].stop_gradient
    assert np.array_equal(fake[0], again[0]) and np.array_equal(again[1], y)
    assert moved(d0, d1) and moved(d1, d2) and not moved(d2, copy_of(trainer.D))
    assert moved(g2, copy_of(trainer.G))


@pytest.mark.parametrize("name", ["CGAN", "DCGAN"])
def test_noise_is_uniform_and_of_seed_iteration_and_rank(make, name, monkeypatch):
    trainer = make(name)
    draws = []

    def draw(seed, iteration, rank):
        trainer.args.seed = seed
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        draws.clear()
        trainer.train_step(iteration, *batch()[: 2 if name == "CGAN" else 1])
        return draws[0]

    record(trainer.G, draws, lambda inputs: inputs[0].numpy())
    first = draw(0, 0, 0)
    assert first.dtype == np.float32 and np.abs(first).max() <= 1
    assert np.array_equal(first, draw(0, 0, 0))
    for key in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.array_equal(first, draw(*key))
    import drawing

    many = drawing.noise(np.random.default_rng(0), 4000, 5).numpy()
    assert many.std() == pytest.approx(1 / math.sqrt(3), rel=0.02) and abs(many.mean()) < 0.02


@pytest.mark.parametrize("name", ["CGAN", "DCGAN"])
def test_showing_leaves_the_networks_alone(make, name):
    trainer = make(name)
    before = copy_of(trainer.G)
    height, width, _ = trainer.sheet().shape
    rows = 11 if name == "CGAN" else 6  # with the real pictures
    assert height == 2 + rows * 30 and width > 2 + 10 * 30
    values = trainer.quality()
    assert set(values) == {"spread"} and values["spread"] > 0
    number = sum(len(images) for images in trainer.fakes(15))
    assert number == 15 and next(trainer.fakes(6)).shape == (6, 28, 28, 3)
    after = copy_of(trainer.G)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert trainer.G.training


def test_each_row_of_cgans_sheet_is_a_class(make):
    trainer = make("CGAN")
    calls = []
    record(trainer.G, calls, lambda inputs: [tensor.numpy() for tensor in inputs])
    trainer.sheet()
    assert [set(labels.tolist()) for _, labels in calls] == [{y} for y in range(10)]
    assert all(np.array_equal(z, calls[0][0]) for z, _ in calls)


class Judge:
    """Reads a class in the first pixel."""

    classes = ["0", "1", "2"]

    def predict(self, images):
        return images[:, 0, 0, 0].astype(np.int64)


def test_quality_by_hand(paper):
    paper("classic_gans")
    import drawing

    images = np.zeros((4, 2, 2, 1), np.uint8)
    assert drawing.quality(images, None) == {"spread": 0.0}
    images[:, 0, 0, 0] = [0, 1, 1, 1]
    labels = np.array([0, 0, 1, 1])
    values = drawing.quality(images, Judge(), labels)
    std = math.sqrt(3 / 16) / 127.5
    assert values["spread"] == pytest.approx(std / 4, rel=1e-6)
    assert values["judge_classes"] == 2
    assert values["judge_entropy"] == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert values["judge_accuracy"] == 0.75 and values["judge_worst_class"] == 0.5
    assert "judge_accuracy" not in drawing.quality(images, Judge())


def test_a_batch_of_one_is_refused(make):
    for flags in ({"batch_size": 1}, {"batch_size": 23, "drop_last": "False"}):
        with pytest.raises(UserError, match=r"--batch_size \d+: leaves a batch of one"):
            make("CGAN", **flags)
    make("CGAN", batch_size=23)


def test_the_networks_of_dcgan_go_by_the_data(make, gans, tmp_path):
    from scripts import make_toy_data

    assert make("DCGAN").arch.form == "digits"
    make_toy_data.make(tmp_path / "toy", classes=2, count=6, size=8)
    (tmp_path / "toy" / "train").rename(tmp_path / "data" / "toy")
    trainer = make("DCGAN", dataset="toy")
    assert (trainer.arch.form, trainer.arch.image_size, trainer.arch.channels) == ("paper", 64, 3)
    trainer = make("CGAN", dataset="toy")
    assert (trainer.arch.n_classes, trainer.arch.image_size, trainer.arch.channels) == (2, 32, 3)
    assert trainer.sheet().shape[0] == 2 + 3 * 34


def test_a_checkpoint_of_other_classes_is_refused(make):
    trainer = make("CGAN")
    state = {"architecture": trainer.arch.to_dict(), "classes": ["cat"]}
    with pytest.raises(UserError, match="other classes"):
        trainer.check(state, "a.pdparams")
    state = {"architecture": {**trainer.arch.to_dict(), "g_base_dims": 64}}
    with pytest.raises(UserError, match="g_base_dims 64 there, 2 here"):
        trainer.start_from(state | {"generator": {}}, "a.pdparams")
