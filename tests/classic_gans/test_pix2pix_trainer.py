"""Pix2Pix's two updates against a twin written out here, and what can go wrong in them."""

import itertools
import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from shared_metrics.errors import UserError
from shared_metrics.inference import Runner
from tests.classic_gans.trainers import (
    Pictures,
    adam,
    args_of,
    assert_same,
    batch_of,
    check_penalty,
    copy_of,
    in_float64,
    moved,
    record,
    step,
)

TINY = {"net_G": "resnet_6block", "g_base_dims": 2, "d_base_dims": 2, "crop_size": 32}


@pytest.fixture
def gans(paper):
    return paper("classic_gans")


@pytest.fixture
def make(gans, tmp_path):
    """Function that makes a tiny trainer on random pictures."""

    def build(data=None, **flags):
        args = args_of(gans, "Pix2pix", tmp_path, **{**TINY, **flags})
        data = data or Pictures(size=args.crop_size)
        return gans.rooms.room("Pix2pix").Trainer(args, (data, data))

    return build


def test_gan_losses_by_hand(gans):
    loss = gans.rooms.room("Pix2pix").gan_loss
    logits = paddle.to_tensor([[[[2.0, -0.5]]]])

    def softplus(x):
        return math.log1p(math.exp(x))

    expected = {
        ("vanilla", True): (softplus(-2) + softplus(0.5)) / 2,
        ("vanilla", False): (softplus(2) + softplus(-0.5)) / 2,
        ("lsgan", True): (1 + 1.5**2) / 2,
        ("lsgan", False): (4 + 0.25) / 2,
        ("wgangp", True): -0.75,
        ("wgangp", False): 0.75,
    }
    for (mode, real), value in expected.items():
        assert float(loss(logits, real, mode)) == pytest.approx(value), (mode, real)


@pytest.mark.parametrize("norm_type", ["batch_norm", "instance_norm"])
def test_the_penalty_against_differences(gans, norm_type):
    room = gans.rooms.room("Pix2pix")
    sizes = {"net_D": "nlayers", "d_nlayers": 1, "d_base_dims": 2, "norm_type": norm_type}
    arch = room.Architecture(input_nc=1, output_nc=1, **sizes)
    check_penalty(room.gradient_penalty, in_float64(lambda: room.Discriminator(arch)), channels=2)


def twin_loss(logits, real, mode):
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(logits, paddle.full(logits.shape, float(real)))
    return F.mse_loss(logits, paddle.full(logits.shape, float(real)))


@pytest.mark.parametrize("mode", ["vanilla", "lsgan"])
@pytest.mark.parametrize("net_G, side", [("resnet_6block", 32), ("unet_128", 128)])
def test_two_steps_against_a_twin(make, mode, net_G, side):
    """D on (A, G(A)), then on (A, B), half the sum; then G by the D that has just moved."""
    flags = {"gan_mode": mode, "net_G": net_G, "crop_size": side, "lambda_L1": 7}
    trainer = make(**flags)
    twin = make(**flags)
    optimizer_g = adam(twin.G)
    optimizer_d = adam(twin.D)
    for iteration in range(2):
        a, b = batch_of(trainer.data, 2 * iteration, 2)
        logs = trainer.train_step(iteration, a, b)
        rng = twin._rng("step", iteration, 0)
        paddle.seed(int(rng.integers(2**31)))
        a = paddle.to_tensor(a)
        b = paddle.to_tensor(b)
        fake = twin.G(a)
        loss_fake = twin_loss(twin.D(paddle.concat([a, fake.detach()], 1)), False, mode)
        loss_real = twin_loss(twin.D(paddle.concat([a, b], 1)), True, mode)
        step(optimizer_d, (loss_fake + loss_real) * 0.5)
        loss_gan = twin_loss(twin.D(paddle.concat([a, fake], 1)), True, mode)
        loss_l1 = F.l1_loss(fake, b) * 7
        step(optimizer_g, loss_gan + loss_l1)
        expected = {"D_fake": loss_fake, "D_real": loss_real, "G_GAN": loss_gan, "G_L1": loss_l1}
        for name, value in expected.items():
            assert float(logs[name]) == pytest.approx(float(value), rel=1e-5), name
        assert float(logs["D"]) == pytest.approx(float(loss_fake + loss_real) / 2, rel=1e-5)
        assert float(logs["G"]) == pytest.approx(float(loss_gan + loss_l1), rel=1e-5)
        assert all(value.stop_gradient and value.ndim == 0 for value in logs.values())
    assert_same(trainer.G, twin.G)
    assert_same(trainer.D, twin.D)


def test_a_step_of_wgangp_against_a_twin(make):
    trainer = make(gan_mode="wgangp", norm_type="instance_norm", lambda_gp=3)
    twin = make(norm_type="instance_norm")
    a, b = batch_of(trainer.data, 0, 2)
    logs = trainer.train_step(0, a, b)
    rng = twin._rng("step", 0, 0)
    paddle.seed(int(rng.integers(2**31)))
    alpha = paddle.to_tensor(rng.random((2, 1, 1, 1), dtype=np.float32))
    a = paddle.to_tensor(a)
    b = paddle.to_tensor(b)
    fake = twin.G(a)
    real_ab = paddle.concat([a, b], 1)
    fake_ab = paddle.concat([a, fake.detach()], 1)
    x = alpha * real_ab + (1 - alpha) * fake_ab
    x.stop_gradient = False
    (slope,) = paddle.grad(twin.D(x).sum(), x, create_graph=True)
    penalty = (((slope**2).sum([1, 2, 3])).sqrt() - 1) ** 2
    loss = 0.5 * (twin.D(fake_ab).mean() - twin.D(real_ab).mean()) + 3 * penalty.mean()
    step(adam(twin.D), loss)
    assert float(logs["D"]) == pytest.approx(float(loss), rel=1e-4)
    idle = r"model\.(2|5|8)\.bias"  # before a norm
    assert_same(trainer.D, twin.D, idle, atol=1e-5)


def test_what_each_pass_sees_and_when_weights_move(make):
    trainer = make()
    passes = []
    record(trainer.D, passes, lambda inputs: (inputs[0], copy_of(trainer.D), copy_of(trainer.G)))
    drawn = []
    record(trainer.G, drawn, lambda inputs: inputs[0].numpy())
    a, b = batch_of(trainer.data, 0, 2)
    trainer.train_step(0, a, b)
    (fake, d0, g0), (real, d1, _), (again, d2, g2) = passes
    assert len(drawn) == 1 and np.array_equal(drawn[0], a)
    assert np.array_equal(fake[:, :3], a) and np.array_equal(real, np.concatenate([a, b], 1))
    assert np.array_equal(fake, again)  # the fake of before the update, not one drawn anew
    assert fake.stop_gradient and real.stop_gradient and not again.stop_gradient
    assert not moved(d0, d1) and moved(d1, d2) and not moved(g0, g2)
    assert moved(g2, copy_of(trainer.G)) and not moved(d2, copy_of(trainer.D))


def test_statistics_of_d_move_three_times(make):
    """By the batch of fakes, the batch of real pairs, the fakes again, in train mode."""
    trainer = make()
    twin = make()
    norm = trainer.D.model[3]
    inputs = []
    record(norm, inputs, lambda x: x[0].numpy().astype("float64"))
    assert norm.training
    mean = twin.D.model[3]._mean.numpy().astype("float64")
    variance = twin.D.model[3]._variance.numpy().astype("float64")
    trainer.train_step(0, *batch_of(trainer.data, 0, 2))
    assert len(inputs) == 3
    for h in inputs:
        mean = 0.9 * mean + 0.1 * h.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * h.var((0, 2, 3))
    np.testing.assert_allclose(norm._mean.numpy(), mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(norm._variance.numpy(), variance, rtol=1e-5)


def test_gradients_of_each_update_are_its_own(make):
    """D's are those of D's loss after the whole step: G's loss leaves none in D."""
    trainer = make()
    twin = make()
    a, b = batch_of(trainer.data, 0, 2)
    trainer.train_step(0, a, b)
    paddle.seed(int(twin._rng("step", 0, 0).integers(2**31)))
    a = paddle.to_tensor(a)
    b = paddle.to_tensor(b)
    fake = twin.G(a).detach()
    loss = twin_loss(twin.D(paddle.concat([a, fake], 1)), False, "vanilla")
    loss = 0.5 * (loss + twin_loss(twin.D(paddle.concat([a, b], 1)), True, "vanilla"))
    loss.backward()
    for ours, theirs in zip(trainer.D.parameters(), twin.D.parameters(), strict=True):
        if not ours.stop_gradient:
            np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=1e-7)
    assert all(not p.stop_gradient for p in trainer.update_D.parameters)


# ---- the learning rate ----


@pytest.mark.parametrize(
    "flags, shares",
    [
        ({}, {0: 1, 99: 1, 100: 100 / 101, 198: 2 / 101, 199: 1 / 101, 500: 1 / 101}),
        ({"epoch": 4}, {0: 1, 1: 1, 2: 2 / 3, 3: 1 / 3}),
        ({"epoch": 1}, {0: 1 / 2}),
        ({"epoch": 5, "n_const": 5}, {0: 1, 4: 1, 9: 1}),
        ({"n_const": 3, "n_decay": 0}, {2: 1, 3: 1, 199: 1}),
        ({"n_const": 0, "n_decay": 3}, {0: 3 / 4, 2: 1 / 4, 3: 1 / 4}),
    ],
)
def test_rates(make, flags, shares):
    trainer = make(**flags)
    for epoch, share in shares.items():
        trainer.set_rates(epoch * trainer.per_epoch + trainer.per_epoch - 1)
        for update in (trainer.update_G, trainer.update_D):
            assert update.optimizer.get_lr() == pytest.approx(2e-4 * share)


# ---- showing ----


def test_showing_leaves_everything_alone_and_repeats(make):
    trainer = make(dropout=True)
    trainer.train_step(0, *batch_of(trainer.data, 0, 2))
    before = copy_of(trainer.G)
    sheet, distance = trainer.sheet()
    again, _ = trainer.sheet()
    assert np.array_equal(sheet, again) and 0 < distance < 1
    after = copy_of(trainer.G)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert all(layer.training for layer in trainer.G.sublayers(include_self=True))
    assert all(layer._momentum == 0.9 for layer in norms(trainer.G))


def norms(network):
    return [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]


def test_modes_of_showing(make):
    """Batch statistics of a batch of one are an instance norm's; running ones are not."""
    import translation

    trainer = make(dropout=True)
    trainer.train_step(0, *batch_of(trainer.data, 0, 2))
    a, _ = trainer.data.load(0, None)

    def drawn(norm, dropout, index=0):
        mode = {"norm": norm, "dropout": dropout}
        return translation.draw(Runner(trainer.G), a[None], mode, 0, index)

    plain = drawn("batch", False)
    assert np.array_equal(plain, drawn("batch", False, index=1))
    assert not np.array_equal(drawn("batch", True), drawn("batch", True, index=1))
    trainer.G.train()
    for layer in trainer.G.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.eval()
    with paddle.no_grad():
        np.testing.assert_array_equal(trainer.G(paddle.to_tensor(a[None])).numpy(), plain)
    trainer.G.eval()
    with paddle.no_grad():
        running = trainer.G(paddle.to_tensor(a[None])).numpy()
    np.testing.assert_array_equal(running, drawn("running", False))
    assert np.abs(running - plain).max() > 0.01


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_value_of_every_flag_takes_a_step(make, batch_size):
    choices = {
        "net_G": ["resnet_9block", "unet_128"],
        "net_D": ["basic", "nlayers", "pixel"],
        "d_nlayers": [1, 4],
        "norm_type": ["batch_norm", "instance_norm"],
        "dropout": [True, False],
        "gan_mode": ["vanilla", "lsgan", "wgangp"],
        "direction": ["AtoB", "BtoA"],
        "lambda_L1": [0],
    }
    for flag, values in choices.items():
        for value in values:
            flags = {flag: value}
            if flag == "d_nlayers":
                flags |= {"net_D": "nlayers", "crop_size": 64}
            if value == "unet_128":
                flags["crop_size"] = 128
            check_step(make(**flags), batch_size)
    for pair in itertools.product([1, 3], repeat=2):
        data = Pictures(channels=pair)
        trainer = make(data, input_nc=pair[0], output_nc=pair[1])
        check_step(trainer, batch_size)
        assert trainer.sheet()[0].shape[2] == 3


def check_step(trainer, batch_size):
    g0 = copy_of(trainer.G)
    d0 = copy_of(trainer.D)
    logs = trainer.train_step(0, *batch_of(trainer.data, 0, batch_size))
    assert all(math.isfinite(float(value)) for value in logs.values())
    assert moved(g0, copy_of(trainer.G)) and moved(d0, copy_of(trainer.D))


# ---- checkpoints of others ----


def test_what_a_checkpoint_must_agree_with(make):
    trainer = make()
    state = {"architecture": trainer.arch.to_dict(), "direction": "BtoA"}
    with pytest.raises(UserError, match="--direction BtoA"):
        trainer.check(state, "a.pdparams")
    with pytest.raises(UserError, match="dropout True there, False here"):
        make(dropout=False).start_from({"architecture": trainer.arch.to_dict()}, "a.pdparams")
    unet = {"net_G": "unet_128", "crop_size": 128}
    trainer = make(**unet)
    G = copy_of(trainer.G)
    other = make(d_base_dims=4, dropout=False, seed=1, **unet)
    notes = other.start_from({"architecture": trainer.arch.to_dict(), "generator": G}, "a.pdparams")
    assert notes == ["a.pdparams: holds no discriminator; it starts from its initial weights"]
    with pytest.raises(UserError, match="d_base_dims 2 there, 4 here"):
        other.start_from(
            {"architecture": trainer.arch.to_dict(), "generator": G, "discriminator": G}, "a"
        )
