"""Losses worked out by hand, and the two updates: who moves, by which gradient and draws."""

import math

import numpy as np
import paddle
import pytest

from shared_metrics import inference
from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint


@pytest.fixture
def sagan(paper):
    return paper("sagan")


TINY = "--recipe cifar10 --z_dim 8 --batch_size 4 --d_steps_per_iter 1 --g_lr 1e-3 --d_lr 1e-3"
TINY += " --beta1 0 --beta2 0.9 --log_every 1 --keep_checkpoints 0 --num_workers 0 --iterations 2"


def tiny_args(train, tmp_path, **changes):
    """The flags of a model that steps in a blink. Args: train, the module; changes, flag=value."""
    flags = [*TINY.split(), "--output_dir", tmp_path]
    for name, value in changes.items():
        flags += [f"--{name}", value]
    return train.parse_args([str(flag) for flag in flags])


class Data:
    """Eight constant 32x32 images of two classes."""

    classes = ["a", "b"]
    counts = [4, 4]

    def __len__(self):
        return 8

    def load(self, index, rng):
        return np.full((3, 32, 32), index / 8 - 0.5, np.float32), np.int64(index % 2)


def make(sagan, tmp_path, arch=None, **changes):
    """A trainer on the smallest networks, the same weights each time."""
    args = tiny_args(sagan.train, tmp_path, **changes)
    arch = arch or architecture(sagan)
    paddle.seed(0)
    networks = sagan.model.Generator(arch), sagan.model.Discriminator(arch)
    return sagan.trainer.Trainer(*networks, arch=arch, args=args, dataset=Data())


def architecture(sagan, **changes):
    widths = {"z_dim": 8, "g_conv_dim": 2, "d_conv_dim": 4}
    return sagan.model.architecture("mmgen", 32, 2, **widths, **changes)


def saved(trainer):
    """What a checkpoint of this trainer's run holds."""
    with trainer._run(()) as run:
        return run.state()


def batch(n=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, 3, 32, 32)).astype("float32"), rng.integers(2, size=n)


def freeze_norms(trainer):
    """BatchNorm on its running statistics: then an image's result depends on no other's."""
    for layer in trainer.G.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer.eval()


def logits(*values):
    return paddle.to_tensor(values, "float32")


def softplus(x):
    return math.log1p(math.exp(x))


def test_d_losses_by_hand(sagan):
    real = logits(2.0, 0.25)
    fake = logits(-3.0, 0.5)
    expected = {
        "hinge": ((0 + 0.75) / 2, (0 + 1.5) / 2),
        "wgan_gp": (-1.125, -1.25),
        "dcgan": ((softplus(-2) + softplus(-0.25)) / 2, (softplus(-3) + softplus(0.5)) / 2),
    }
    expected["gan"] = expected["dcgan"]
    for kind, values in expected.items():
        losses = [float(loss) for loss in sagan.trainer.d_losses(real, fake, kind)]
        assert losses == pytest.approx(values), kind


def test_g_loss_by_hand(sagan):
    fake = logits(-3.0, 0.5)
    expected = {
        "hinge": 1.25,
        "wgan_gp": 1.25,
        "dcgan": (softplus(3) + softplus(-0.5)) / 2,
        "gan": -(softplus(-3) + softplus(0.5)) / 2,
    }
    for kind, value in expected.items():
        assert float(sagan.trainer.g_loss(fake, kind)) == pytest.approx(value), kind


def test_gradient_penalty_of_a_linear_discriminator(sagan):
    """D(x) = 2 sum x has a gradient of norm 2 sqrt(12) everywhere."""

    def discriminator(x, y):
        return 2 * x.sum([1, 2, 3])

    x = paddle.rand([5, 3, 2, 2])
    mix = paddle.rand([5, 1, 1, 1])
    penalty = sagan.trainer.gradient_penalty(discriminator, x, fake=x + 1, y=None, mix=mix)
    assert float(penalty) == pytest.approx((2 * math.sqrt(12) - 1) ** 2, rel=1e-5)


def test_gradient_penalty_is_taken_between_real_and_fake(sagan):
    """D(x) = x^2 of one pixel: the gradient 2x tells where it was taken."""

    def discriminator(x, y):
        return x.square().sum([1, 2, 3])

    real = paddle.full([1, 1, 1, 1], 3.0)
    fake = paddle.full([1, 1, 1, 1], 1.0)
    mix = paddle.full([1, 1, 1, 1], 0.75)
    penalty = sagan.trainer.gradient_penalty(discriminator, real, fake=fake, y=None, mix=mix)
    assert float(penalty) == pytest.approx((2 * 2.5 - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["hinge", "dcgan", "wgan_gp", "gan"])
def test_each_update_moves_its_own_network_only(sagan, tmp_path, kind):
    trainer = make(sagan, tmp_path, adv_loss=kind)
    x, y = batch()

    def trained(network):
        return {n: p.numpy().copy() for n, p in network.named_parameters() if not p.stop_gradient}

    def moved(before, after):
        return {n for n in before if not np.array_equal(before[n], after[n])}

    def gradients():
        present = [p.grad for p in trainer.update_D.parameters if p.grad is not None]
        return [float(gradient.abs().sum()) for gradient in present]

    g0 = trained(trainer.G)
    d0 = trained(trainer.D)
    trainer.d_update(x, y, 0, rng=np.random.default_rng(0))
    g1 = trained(trainer.G)
    d1 = trained(trainer.D)
    assert not moved(g0, g1) and moved(d0, d1)
    trainer.g_update(y, 0, np.random.default_rng(1))
    g2 = trained(trainer.G)
    d2 = trained(trainer.D)
    assert moved(g1, g2) and not moved(d1, d2)
    assert all(not p.stop_gradient for p in trainer.update_D.parameters)
    before = gradients()
    trainer.g_update(y, 1, np.random.default_rng(2))
    assert before == gradients()  # none from G's step


def test_d_update_is_one_adam_step_on_the_hinge_loss(sagan, tmp_path):
    """Adam's first step from beta1 = 0 is lr * g / (|g| + eps), g the gradient of eq. 4.

    Here it is worked out again, on a second copy of the networks.
    """
    trainer = make(sagan, tmp_path, d_lr=4e-4)
    twin = make(sagan, tmp_path, d_lr=4e-4)
    x, y = batch()
    trainer.d_update(x, y, 0, rng=np.random.default_rng(7))
    rng = np.random.default_rng(7)
    z = paddle.to_tensor(rng.standard_normal((4, 8), dtype=np.float32))
    y_fake = paddle.to_tensor(rng.integers(2, size=4))
    fake = twin.G(z, y_fake).detach()
    real_logits = twin.D(paddle.to_tensor(x), paddle.to_tensor(y))
    fake_logits = twin.D(fake, y_fake)
    loss = paddle.clip(1 - real_logits, min=0).mean() + paddle.clip(1 + fake_logits, min=0).mean()
    loss.backward()
    after = dict(trainer.D.named_parameters())
    for name, p in twin.D.named_parameters():
        g = p.grad.numpy()
        expected = p.numpy() - 4e-4 * g / (np.abs(g) + 1e-8)
        assert np.allclose(after[name].numpy(), expected, atol=2e-6), name


def test_g_update_is_one_adam_step_on_the_hinge_loss(sagan, tmp_path):
    trainer = make(sagan, tmp_path, g_lr=1e-4)
    twin = make(sagan, tmp_path, g_lr=1e-4)
    y = batch()[1]
    trainer.g_update(y, 0, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    z = paddle.to_tensor(rng.standard_normal((4, 8), dtype=np.float32))
    y_fake = paddle.to_tensor(rng.integers(2, size=4))
    (-twin.D(twin.G(z, y_fake), y_fake).mean()).backward()
    after = dict(trainer.G.named_parameters())
    for name, p in twin.G.named_parameters():
        if not p.stop_gradient:
            g = p.grad.numpy()
            expected = p.numpy() - 1e-4 * g / (np.abs(g) + 1e-8)
            assert np.allclose(after[name].numpy(), expected, atol=2e-6), name


def test_d_update_builds_no_graph_through_g(sagan, tmp_path):
    trainer = make(sagan, tmp_path)
    trainer.d_update(*batch(), 0, np.random.default_rng(0))
    assert all(p.grad is None for p in trainer.update_G.parameters)


@pytest.mark.parametrize("recipe, moves", [
    ("cifar10", True), ("sagan128", True), ("studiogan-cifar10", False),
    ("studiogan-imagenet128", False),
])  # fmt: skip
def test_what_moves_gs_running_statistics(sagan, tmp_path, recipe, moves):
    """In StudioGAN G's own updates alone; the images, of the batch's statistics, are the same."""
    assert sagan.recipes.RECIPES[recipe]["d_moves_stats"] == moves
    trainer = make(sagan, tmp_path)
    trainer.args.d_moves_stats = moves

    def statistics():
        state = trainer.G.state_dict()
        return {k: v.numpy() for k, v in state.items() if k.endswith(("_mean", "_variance", "_u"))}

    before = statistics()
    trainer.d_update(*batch(), 0, np.random.default_rng(0))
    after = statistics()
    moved = {k for k in before if not np.array_equal(before[k], after[k])}
    assert any(k.endswith("_u") for k in moved)
    assert any(k.endswith("_mean") for k in moved) == moves
    assert all(k.endswith("_u") for k in moved) or moves
    trainer.g_update(batch()[1], 0, np.random.default_rng(0))
    assert any(k.endswith("_mean") and not np.array_equal(v, after[k])
               for k, v in statistics().items())  # fmt: skip


def test_weights_of_another_network_are_refused(sagan, tmp_path):
    """cifar10 and cifar10-inplace-relu have the same shapes and mean different networks."""
    trainer = make(sagan, tmp_path)
    relu = make(sagan, tmp_path, architecture(sagan, skip_relu=True))
    state = saved(relu)
    with pytest.raises(UserError, match="skip_relu True there, False here"):
        trainer.start_from(state, "other.pdparams")
    del state["discriminator"]
    assert "no discriminator" in trainer.start_from(state, "other.pdparams")[0]


def test_classes_that_changed_are_refused_on_resume(sagan, tmp_path):
    trainer = make(sagan, tmp_path)
    state = saved(trainer) | {"classes": ["a", "c"]}
    path = checkpoint.save_checkpoint(tmp_path / "checkpoints", 1, state, keep=0)
    trainer.args.resume = "auto"
    with pytest.raises(UserError, match=f"{path}.*other classes"):
        trainer.train()


def test_two_rates_and_moments_reach_the_optimizers(sagan, tmp_path):
    trainer = make(sagan, tmp_path, g_lr=1e-4, d_lr=4e-4, beta1=0.25, beta2=0.75, adam_eps=1e-6)
    for optimizer, lr in ((trainer.update_G.optimizer, 1e-4), (trainer.update_D.optimizer, 4e-4)):
        assert optimizer.get_lr() == pytest.approx(lr)
        assert (optimizer._beta1, optimizer._beta2, optimizer._epsilon) == (0.25, 0.75, 1e-6)


@pytest.mark.parametrize("d_steps, g_steps", [(1, 1), (5, 1), (2, 3)])
def test_steps_per_iteration(sagan, tmp_path, d_steps, g_steps):
    trainer = make(sagan, tmp_path, d_steps_per_iter=d_steps, g_steps_per_iter=g_steps)
    taken = []

    def batches():
        while True:
            taken.append(1)
            yield batch(seed=len(taken))

    trainer.train_step(0, batches())
    beta = 0.9
    for optimizer, network, steps in (
        (trainer.update_D.optimizer, trainer.D, d_steps),
        (trainer.update_G.optimizer, trainer.G, g_steps),
    ):
        powers = checkpoint.optimizer_state(optimizer, network)["beta2_pow_acc"].values()
        # Paddle keeps beta2^(steps + 1) after so many steps.
        expected = round(beta ** (steps + 1), 6)
        assert {round(float(power.item()), 6) for power in powers} == {expected}
    assert len(taken) == d_steps


def test_accumulated_gradients_are_those_of_the_whole_batch(sagan, tmp_path):
    """Three micro-batches, the last one smaller.

    BatchNorm and spectral norm are held still: they move with each pass.
    """
    gradients = []
    for size in (0, 3):
        trainer = make(sagan, tmp_path, g_lr=0.0, d_lr=0.0)
        for i in range(20):  # spectral norm's u and v settle
            trainer.g_update(batch()[1], 0, np.random.default_rng(i))
        trainer.update_G.micro_batch = trainer.update_D.micro_batch = size
        trainer.G.eval()
        trainer.D.eval()
        trainer._latents = fixed_latents(trainer)
        x, y = batch(8)
        logs = trainer.d_update(x, y, 0, rng=np.random.default_rng(0))
        arrays = [p.grad.numpy().copy() for p in trainer.update_D.parameters]
        trainer._latents = fixed_latents(trainer)
        logs |= trainer.g_update(y, 0, np.random.default_rng(0))
        arrays += [p.grad.numpy().copy() for p in trainer.update_G.parameters]
        arrays += [logs[name].numpy() for name in sorted(logs)]
        gradients.append(arrays)
    for whole, parts in zip(*gradients, strict=True):
        assert np.allclose(whole, parts, rtol=1e-4, atol=1e-5)


def fixed_latents(trainer):
    """Latents and labels from one list, however many are asked for at a time."""
    rng = np.random.default_rng(7)  # 5 and 6 lie at the kink of a ReLU, which rounding turns
    z = rng.standard_normal((8, 8)).astype("float32")
    y = rng.integers(2, size=8)
    start = 0

    def draw(_, labels):
        nonlocal start
        part = slice(start, start + len(labels))
        start += len(labels)
        return paddle.to_tensor(z[part]), paddle.to_tensor(y[part])

    return draw


def test_labels_of_fakes(sagan, tmp_path):
    y = np.array([1, 1, 1, 1, 1, 1, 1, 1])
    real = make(sagan, tmp_path, fake_labels="real")
    assert real._latents(np.random.default_rng(0), y)[1].tolist() == y.tolist()
    uniform = make(sagan, tmp_path, fake_labels="uniform")
    drawn = uniform._latents(np.random.default_rng(0), np.repeat(y, 500))[1].numpy()
    assert 0.45 < drawn.mean() < 0.55


def test_latents_are_standard_normal_and_differ_by_step(sagan, tmp_path):
    trainer = make(sagan, tmp_path)
    z, _ = trainer._latents(trainer._rng("d", 3, 0, 0), np.zeros(4000, np.int64))
    assert abs(float(z.mean())) < 0.02 and abs(float(z.std()) - 1) < 0.02
    draws = set()
    for key in (("d", 3, 0, 0), ("d", 4, 0, 0), ("d", 3, 1, 0), ("d", 3, 0, 1), ("g", 3, 0, 0)):
        z, _ = trainer._latents(trainer._rng(*key), np.zeros(2, np.int64))
        draws.add(z.numpy().tobytes())
    assert len(draws) == 5


def test_instance_noise_falls_linearly_to_nothing(sagan, tmp_path):
    trainer = make(sagan, tmp_path, inst_noise_sigma=0.5, inst_noise_sigma_iters=10)
    x = paddle.zeros([100, 3, 8, 8])
    for iteration, sigma in ((0, 0.5), (4, 0.3), (10, 0.0), (1000, 0.0)):
        noisy = trainer._noisy(np.random.default_rng(0), x, iteration)
        assert float(noisy.std()) == pytest.approx(sigma, rel=0.02)


def test_synchronised_norms_have_the_same_keys(sagan):
    """Conditional BatchNorm's scale and shift for Paddle's kernel are in no checkpoint."""
    generator = sagan.model.Generator(architecture(sagan))
    before = {name: value.numpy() for name, value in generator.state_dict().items()}
    generator = sagan.trainer.synchronise_norms(generator)
    after = generator.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name].numpy(), value, err_msg=name)
    norms = [n for n in generator.sublayers() if isinstance(n, paddle.nn.SyncBatchNorm)]
    assert len(norms) > 1 and all((norm.weight.numpy() == 1).all() for norm in norms)


def test_ema_averages_weights_and_copies_statistics(sagan, tmp_path):
    trainer = make(sagan, tmp_path, ema_decay=0.75, ema_start=1)
    before = {n: v.numpy().copy() for n, v in trainer.G.state_dict().items()}
    trainer.g_update(batch()[1], 0, np.random.default_rng(0))  # before ema_start: a copy
    first = {n: v.numpy().copy() for n, v in trainer.G.state_dict().items()}
    assert any(not np.array_equal(before[n], first[n]) for n in first)
    assert all(np.array_equal(v.numpy(), first[n]) for n, v in trainer.G_ema.state_dict().items())
    trainer.g_update(batch()[1], 1, np.random.default_rng(1))
    second = {n: v.numpy() for n, v in trainer.G.state_dict().items()}
    trained = {n for n, p in trainer.G.named_parameters() if not p.stop_gradient}
    for name, value in trainer.G_ema.state_dict().items():
        expected = 0.75 * first[name] + 0.25 * second[name] if name in trained else second[name]
        assert np.allclose(value.numpy(), expected, atol=1e-6), name
    assert any("_mean" in n for n in second) and any("weight_u" in n for n in second)


def test_samples_come_from_the_average_in_eval_mode_and_leave_training_as_it_was(sagan, tmp_path):
    trainer = make(sagan, tmp_path, ema_decay=0.5)
    trainer.g_update(batch()[1], 0, np.random.default_rng(0))
    state = {n: v.numpy().copy() for n, v in trainer.G.state_dict().items()}
    y = np.zeros(10, np.int64)
    z = np.random.default_rng(0).standard_normal((10, 8), dtype=np.float32)
    images = trainer.generate(z, y)
    assert images.shape == (10, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, trainer.generate(z, y))
    assert trainer.G.training
    assert all(np.array_equal(v.numpy(), state[n]) for n, v in trainer.G.state_dict().items())
    for p in (trainer.G_ema.bn.weight, trainer.G_ema.bn.bias, trainer.G_ema.snconv2d1.bias):
        p.set_value(paddle.zeros(p.shape))
    assert (trainer.generate(z, y) == 128).all()  # tanh(0): G_ema drew them


def test_an_evaluation_by_a_program_leaves_training_as_it_was(sagan, tmp_path, monkeypatch):
    trainer = make(sagan, tmp_path, eval_samples=10, batch_size=4)
    trainer.g_update(batch()[1], 0, np.random.default_rng(0))
    state = {n: v.numpy().copy() for n, v in trainer.G.state_dict().items()}
    layers = list(trainer.fakes())
    made = []
    own = inference.program
    monkeypatch.setattr(inference, "PIXELS", 10 * 32**2)
    monkeypatch.setattr(inference, "program", lambda *how: made.append(own(*how)) or made[0])
    programs = list(trainer.fakes())
    assert len(made) == 1 and [len(images) for images in programs] == [4, 4, 2]
    assert np.abs(np.concatenate(programs) - np.concatenate(layers).astype(int)).max() <= 1
    assert trainer.G.training
    assert all(np.array_equal(v.numpy(), state[n]) for n, v in trainer.G.state_dict().items())
    trainer.g_update(batch()[1], 1, np.random.default_rng(1))


@pytest.mark.parametrize(
    "where", ["G.block1.snconv2d1.bias", "G.snconv2d1.bias", "D.block1.snconv2d1.bias", "D.sigma"]
)
def test_a_nan_stops_with_the_iteration_and_keeps_the_last_checkpoint(sagan, tmp_path, where):
    """Wherever it arises: Paddle's ReLU turns NaN to 0, so not every NaN reaches the losses."""
    from shared_metrics.runs.stop import NotFinite

    trainer = make(sagan, tmp_path, iterations=6, save_every=1)
    step = trainer.train_step
    network, _, ending = where.partition(".")
    parameters = getattr(trainer, network).named_parameters()
    poison = next(p for name, p in parameters if name.endswith(ending))

    def poisoned(iteration, batches):
        losses = step(iteration, batches)
        if iteration == 3:
            poison.set_value(paddle.full(poison.shape, float("nan")))
        return losses

    trainer.train_step = poisoned
    with pytest.raises(NotFinite, match=r"iteration 4.*iter_0000003"):
        trainer.train()
    newest = max((tmp_path / "checkpoints").iterdir())
    assert newest.name == "iter_0000003.pdparams"


def test_nan_weights_are_never_saved(sagan, tmp_path):
    from shared_metrics.runs.stop import NotFinite

    trainer = make(sagan, tmp_path)
    weight = trainer.update_D.parameters[0]
    weight.set_value(paddle.full(weight.shape, float("nan")))
    with pytest.raises(NotFinite, match="discriminator"), trainer._run(()) as run:
        run.save()
    assert not list(tmp_path.rglob("*.pdparams"))
