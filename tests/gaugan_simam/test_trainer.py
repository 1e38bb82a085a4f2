"""Losses against numbers worked out by hand, and the two updates: who moves, by which gradient,
from which draws.
"""

import math
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint
from tests.gaugan_simam.networks import arrays

TINY = {
    "label_nc": 3,
    "crop_size": 32,
    "norm_G": "spectralspadebatch1x1",
    "ngf": 1,
    "ndf": 2,
    "num_D": 2,
}
TINY |= {"n_layers_D": 2, "nef": 1, "z_dim": 4}


@pytest.fixture
def gaugan(paper):
    return paper("gaugan_simam")


class Data:
    """Eight pairs of 32x32 pixels."""

    def __len__(self):
        return 8

    def load(self, index, rng=None):
        rng = np.random.default_rng(index)
        labels = rng.integers(0, 4, (32, 32))
        return labels, labels, rng.uniform(-1, 1, (3, 32, 32)).astype("float32")


def tiny_args(tmp_path, **changes):
    """What the trainer reads of train.py's flags."""
    values = dict(
        output_dir=str(tmp_path),
        seed=0,
        batch_size=4,
        accumulate=1,
        iterations=2,
        epochs=0,
        niter=0,
        niter_decay=0,
        decay_iterations=0,
        g_lr=1e-4,
        d_lr=4e-4,
        beta1=0.0,
        beta2=0.9,
        gan_mode="hinge",
        lambda_feat=10.0,
        lambda_vgg=0.0,
        lambda_kld=0.05,
        vgg_size=0,
        D_steps_per_G=1,
        ema_decay=0.0,
        ema_start=0,
        amp="none",
        log_every=1,
        sample_every=100,
        save_every=100,
        keep_checkpoints=0,
        eval_every=0,
        eval_samples=2,
        num_workers=0,
        skip_bad_images=False,
    )
    return SimpleNamespace(**(values | changes))


def make(gaugan, tmp_path, arch=None, vgg=None, **changes):
    """A trainer on the smallest networks, the same weights each time."""
    args, model = tiny_args(tmp_path, **changes), gaugan.model
    arch = model.architecture("photopen", **(TINY | (arch or {})))
    paddle.seed(0)
    nets = model.Generator(arch), model.Discriminator(arch)
    encoder = model.Encoder(arch) if arch.use_vae else None
    return gaugan.trainer.Trainer(*nets, arch, args, Data(), Data(), encoder, vgg)


def batch(n=4):
    return tuple(np.stack(part) for part in zip(*(Data().load(i) for i in range(n)), strict=True))


def parts(trainer, n=4):
    noise = np.random.default_rng(9).standard_normal((n, trainer.arch.z_dim), dtype=np.float32)
    return trainer._parts(*batch(n), noise)


def outputs(*scales):
    """What D returns: per scale one feature (here of one number) and the logits."""
    return [[paddle.to_tensor(np.float32(v)).reshape([-1, 1]) for v in scale] for scale in scales]


def trained(network):
    return {n: p.numpy().copy() for n, p in network.named_parameters() if not p.stop_gradient}


def moved(before, after):
    return {n for n in before if not np.array_equal(before[n], after[n])}


def softplus(x):
    return math.log1p(math.exp(x))


def test_gan_losses_by_hand(gaugan):
    """Two scales: logits 2, 0.25 and -0.5; the features before them do not count."""
    out = outputs(([7.0], [2.0, 0.25]), ([7.0], [-0.5]))
    cases, loss = ((True, True), (False, True), (True, False)), {}  # (real, for_D)
    for kind in ("hinge", "original", "ls", "w"):
        loss[kind] = [float(gaugan.trainer.gan_loss(out, kind, *case)) for case in cases]
    assert loss["hinge"] == pytest.approx(
        [(0.375 + 1.5) / 2, (2.125 + 0.5) / 2, (-1.125 + 0.5) / 2]
    )
    real = ((softplus(-2) + softplus(-0.25)) / 2 + softplus(0.5)) / 2
    fake = ((softplus(2) + softplus(0.25)) / 2 + softplus(-0.5)) / 2
    assert loss["original"] == pytest.approx([real, fake, real])
    ones = ((1 + 0.5625) / 2 + 2.25) / 2
    assert loss["ls"] == pytest.approx([ones, ((4 + 0.0625) / 2 + 0.25) / 2, ones])
    assert loss["w"] == pytest.approx([(-1.125 + 0.5) / 2, (1.125 - 0.5) / 2, (-1.125 + 0.5) / 2])


def test_feature_matching_by_hand_and_no_gradient_to_the_real_half(gaugan):
    fake = outputs(([1.0, 3.0], [0.0], [100.0]), ([2.0], [-1.0], [100.0]))
    real = outputs(([0.0, 0.0], [4.0], [-50.0]), ([2.5], [1.0], [-50.0]))
    for scale in (*fake, *real):
        for h in scale:
            h.stop_gradient = False
    loss = gaugan.trainer.feature_loss(fake, real)
    assert float(loss) == pytest.approx(((0.5 * (1 + 3) + 4) + (0.5 + 2)) / 2)
    loss.backward()
    assert all(h.grad is None for scale in real for h in scale)
    assert fake[0][0].grad.numpy().tolist() == [[0.25], [0.25]] and fake[0][2].grad is None


def test_kl_loss_by_hand(gaugan):
    mu, logvar = (
        paddle.to_tensor([[1.0, 0.0], [0.0, 2.0]]),
        paddle.to_tensor([[0.0, 0.0], [math.log(2.0), 0.0]]),
    )
    assert float(gaugan.trainer.kl_loss(mu, logvar)) == pytest.approx(
        0.5 + 2.0 + 0.5 * (2 - 1 - math.log(2))
    )


def test_each_update_moves_its_own_networks_only(gaugan, tmp_path):
    vgg = gaugan.vgg.VGG19("photopen", widths=(2, 2, 2, 2, 2))
    frozen = arrays(vgg)
    trainer = make(gaugan, tmp_path, {"use_vae": True}, vgg, lambda_vgg=1.6, vgg_size=16)
    g0, e0, d0 = (trained(net) for net in (trainer.G, trainer.E, trainer.D))
    batch_parts = parts(trainer)
    fakes, logs = trainer.g_update(batch_parts)
    g1, e1, d1 = (trained(net) for net in (trainer.G, trainer.E, trainer.D))
    assert set(logs) == {"g_ganloss", "g_featloss", "g_vggloss", "kldloss"}
    assert moved(g0, g1) and moved(e0, e1) and not moved(d0, d1)
    assert all(p.grad is None and not p.stop_gradient for p in trainer.params_D)
    g_grads = [p.grad.numpy().copy() for p in trainer.params_G if p.grad is not None]
    assert all(fake.stop_gradient for fake in fakes)
    logs = trainer.d_update(batch_parts, fakes)
    g2, e2, d2 = (trained(net) for net in (trainer.G, trainer.E, trainer.D))
    assert set(logs) == {"df_ganloss", "dr_ganloss"}
    assert not moved(g1, g2) and not moved(e1, e2) and moved(d1, d2)
    after = [p.grad.numpy() for p in trainer.params_G if p.grad is not None]
    assert all(
        np.array_equal(a, b) for a, b in zip(g_grads, after, strict=True)
    )  # none from D's step
    assert not moved(frozen, arrays(vgg)) and all(p.grad is None for p in vgg.parameters())


def test_d_update_lets_no_gradient_through_to_g(gaugan, tmp_path):
    """Even when it is given images that are not detached."""
    trainer = make(gaugan, tmp_path)
    (part,) = parts(trainer)
    trainer.d_update([part], [trainer.G(part.seg)])
    assert all(p.grad is None for p in trainer.params_G)


def test_d_sees_one_joined_batch_fake_first(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path)
    (part,) = parts(trainer, 3)
    seen, D = [], trainer.D.forward
    trainer.D.forward = lambda x: seen.append(x.numpy()) or D(x)
    fakes, _ = trainer.g_update([part])
    trainer.d_update([part], fakes)
    assert len(seen) == 2  # one pass in each update
    for x in seen:
        assert x.shape == (6, trainer.arch.semantic_nc + 3, 32, 32)
        assert np.array_equal(x[:3, :-3], part.seg.numpy()) and np.array_equal(
            x[3:, :-3], part.seg.numpy()
        )
        assert np.array_equal(x[:3, -3:], fakes[0].numpy()) and np.array_equal(
            x[3:, -3:], part.real.numpy()
        )


def test_g_passes_once_an_iteration(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, D_steps_per_G=2)
    calls, G = [], trainer.G.forward
    trainer.G.forward = lambda *given: calls.append(1) or G(*given)
    before = trained(trainer.G)
    logs = trainer.train_step(0, *batch())
    assert len(calls) == 1 and set(logs) == {"g_ganloss", "g_featloss", "df_ganloss", "dr_ganloss"}
    first = trained(trainer.G)
    logs = trainer.train_step(1, *batch())
    assert len(calls) == 2 and set(logs) == {"df_ganloss", "dr_ganloss"}
    assert moved(before, first) and not moved(first, trained(trainer.G))


def test_both_updates_are_one_adam_step_on_the_spade_losses(gaugan, tmp_path):
    """Adam's first step from beta1 = 0 is lr * g / (|g| + eps), g the gradient of the losses worked out again."""
    trainer, twin = make(gaugan, tmp_path), make(gaugan, tmp_path)
    (part,) = parts(trainer)
    fakes, logs = trainer.g_update([part])
    logs |= trainer.d_update([part], fakes)
    fake, n, D = twin.G(part.seg), 4, twin.D

    def both(images):
        return D(
            paddle.concat([paddle.concat([part.seg] * 2), paddle.concat([images, part.real])], 1)
        )

    found = both(fake)
    gan = -sum(scale[-1][:n].mean() for scale in found) / 2
    match = (
        sum((h[:n] - h[n:].detach()).abs().mean() for scale in found for h in scale[:-1]) * 10 / 2
    )
    (gan + match).backward()
    assert float(logs["g_ganloss"]) == pytest.approx(float(gan), rel=1e-5)
    assert float(logs["g_featloss"]) == pytest.approx(float(match), rel=1e-5)
    check_step(twin.G, trainer.G, 1e-4)
    for p in twin.params_D:
        p.clear_gradient()
    found = both(fake.detach())
    loss_fake = sum(paddle.clip(1 + scale[-1][:n], min=0).mean() for scale in found) / 2
    loss_real = sum(paddle.clip(1 - scale[-1][n:], min=0).mean() for scale in found) / 2
    (loss_fake + loss_real).backward()
    assert float(logs["df_ganloss"]) == pytest.approx(float(loss_fake), rel=1e-5)
    assert float(logs["dr_ganloss"]) == pytest.approx(float(loss_real), rel=1e-5)
    check_step(twin.D, trainer.D, 4e-4)


def check_step(before, after, lr):
    """Each weight has gone lr * g / (|g| + 1e-8) * sqrt(1 - 0.9) / sqrt(1 - 0.9) down its gradient."""
    after, some = dict(after.named_parameters()), 0
    for name, p in before.named_parameters():
        if p.stop_gradient or p.grad is None:
            continue
        g = p.grad.numpy()
        clear = np.abs(g) > 1e-5  # smaller ones drown in rounding
        step = p.numpy() - after[name].numpy()
        assert np.allclose(step[clear], lr * np.sign(g[clear]), rtol=0.05, atol=1e-7), name
        some += clear.sum()
    assert some > 100


@pytest.mark.parametrize("use_vae", [False, True])
def test_accumulated_gradients_are_those_of_the_whole_batch(gaugan, tmp_path, use_vae):
    """Three parts of 3, 3 and 2; BatchNorm and spectral norm held still, which move with each
    pass.
    """
    gradients, sizes = [], []
    for accumulate in (1, 3):
        trainer = make(
            gaugan, tmp_path, {"use_vae": use_vae}, g_lr=0.0, d_lr=0.0, accumulate=accumulate
        )
        for network in filter(None, (trainer.G, trainer.D, trainer.E)):
            network.eval()
        batch_parts = parts(trainer, 8)
        fakes, logs = trainer.g_update(batch_parts)
        logs |= trainer.d_update(batch_parts, fakes)
        sizes.append([len(part.real) for part in batch_parts])
        found = [
            p.grad.numpy() for p in [*trainer.params_G, *trainer.params_D] if p.grad is not None
        ]
        gradients.append(found + [np.float32(float(v)) for _, v in sorted(logs.items())])
    assert sizes == [[8], [3, 3, 2]]
    for whole, pieces in zip(*gradients, strict=True):
        assert np.allclose(
            whole, pieces, rtol=1e-3, atol=2e-5
        )  # biases before InstanceNorm: 0, up to rounding


def test_a_vae_draws_its_latent_from_the_photo(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, {"use_vae": True})
    (part,) = parts(trainer)
    trainer.E.eval()
    mu, logvar = trainer.E(part.real)
    z, kl = trainer.latent(part)
    assert np.allclose(
        z.numpy(), mu.numpy() + part.noise.numpy() * np.exp(0.5 * logvar.numpy()), atol=1e-6
    )
    assert float(kl) == pytest.approx(
        float(-0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()), rel=1e-5
    )


@pytest.mark.parametrize("length, rates", [
    ({"iterations": 10}, {0: 1, 9: 1}),
    ({"iterations": 10, "decay_iterations": 4}, {0: 1, 5: 1, 6: 1, 7: 0.75, 9: 0.25}),
    ({"iterations": 0, "niter": 2, "niter_decay": 2}, {0: 1, 4: 1, 5: 0.75, 7: 0.25}),
    ({"iterations": 0, "epochs": 4, "niter": 1, "niter_decay": 2}, {1: 1, 2: 1, 3: 0.75, 6: 0, 7: 0}),
])  # fmt: skip
def test_the_rates_fall_linearly(gaugan, tmp_path, length, rates):
    """Two batches an epoch."""
    trainer = make(gaugan, tmp_path, **length)
    assert trainer.total == (length["iterations"] or 8)
    for iteration, share in rates.items():
        trainer._set_rates(iteration)
        assert trainer.opt_G.get_lr() == pytest.approx(1e-4 * share)
        assert trainer.opt_D.get_lr() == pytest.approx(4e-4 * share)


def test_moments_reach_the_optimizers(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, beta1=0.25, beta2=0.75)
    for optimizer in (trainer.opt_G, trainer.opt_D):
        assert (optimizer._beta1, optimizer._beta2) == (0.25, 0.75)


def test_samples_come_from_the_average_in_eval_mode_and_leave_training_as_it_was(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, ema_decay=0.5)
    trainer.train_step(0, *batch())
    state = arrays(trainer.G)
    labels, instances, _ = batch(2)
    noise = np.zeros((2, 4), np.float32)
    images = trainer.generate(labels, instances, noise)
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, trainer.generate(labels, instances, noise))
    assert trainer.G.training and not moved(state, arrays(trainer.G))
    for p in trainer.G_ema.conv_img.parameters():
        p.set_value(paddle.zeros(p.shape))
    assert (trainer.generate(labels, instances, noise) == 128).all()  # tanh(0): G_ema drew them


def test_a_checkpoint_holds_all_and_gives_it_back(gaugan, tmp_path):
    changes = {"use_vae": True}, None
    trainer = make(gaugan, tmp_path, *changes, ema_decay=0.9)
    trainer.train_step(0, *batch())
    trainer.iteration = 1
    path = checkpoint.save_checkpoint(tmp_path, 1, trainer.state() | {"args": {}}, 0)
    state = checkpoint.load_checkpoint(path)
    kept = {
        "generator",
        "generator_ema",
        "discriminator",
        "encoder",
        "optimizer_g",
        "optimizer_d",
        "architecture",
    }
    assert kept <= set(state) and any(name.endswith("weight_u") for name in state["discriminator"])
    assert any(name.startswith("encoder.") for name in state["optimizer_g"]["moment1"])
    other = make(gaugan, tmp_path, *changes, ema_decay=0.9)
    other.load(state, path)
    for t in (trainer, other):
        t.train_step(1, *batch())
    for name in ("G", "G_ema", "D", "E"):
        assert not moved(arrays(getattr(trainer, name)), arrays(getattr(other, name))), name


def test_weights_of_another_network_are_refused(gaugan, tmp_path):
    """SimAM has no weights: only the architecture tells."""
    trainer, other = make(gaugan, tmp_path), make(gaugan, tmp_path, {"simam": False})
    with pytest.raises(UserError, match="simam False there, True here"):
        trainer.start_from(other.state(), "other.pdparams")
    with pytest.raises(UserError, match="no discriminator, optimizer_g"):
        trainer.load({"architecture": {}, "generator": {}}, "part.pdparams")
    larger = make(gaugan, tmp_path, {"crop_size": 64})
    larger.start_from(
        {k: v for k, v in trainer.state().items() if k != "discriminator"}, "small.pdparams"
    )
    assert "no discriminator" in larger.notes[-1]
    with pytest.raises(UserError, match="crop_size"):
        larger.load(trainer.state(), "small.pdparams")


def test_syncbatch_is_batch_on_cpu_and_is_said_once(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, {"norm_G": "spectralspadesyncbatch1x1"})
    assert [note for note in trainer.notes if "syncbatch" in note] == trainer.notes and len(
        trainer.notes
    ) == 1
    trainer.train_step(0, *batch())
    trainer.start_from(make(gaugan, tmp_path).state(), "batch.pdparams")  # the same weights


def test_colours_are_pascal_vocs(gaugan):
    colours = gaugan.trainer.colourise(np.arange(256))
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        7: (128, 128, 128),
        8: (64, 0, 0),
    }
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {i: tuple(colours[i].tolist()) for i in known} == known
    assert len(np.unique(colours, axis=0)) == 256 and gaugan.trainer.colourise(
        np.zeros((2, 3), int)
    ).shape == (2, 3, 3)


def test_a_nan_stops_with_the_iteration(gaugan, tmp_path):
    from shared_metrics.runs.stop import NotFinite

    trainer = make(gaugan, tmp_path, iterations=4, save_every=1)
    trainer.args = tiny_args(tmp_path, iterations=4, save_every=1)
    step = trainer.train_step

    def poisoned(iteration, *given):
        losses = step(iteration, *given)
        if iteration == 1:
            trainer.params_D[0].set_value(paddle.full(trainer.params_D[0].shape, float("nan")))
        return losses

    trainer.train_step = poisoned
    trainer.save = lambda: checkpoint.save_checkpoint(
        tmp_path, trainer.iteration, {"generator": arrays(trainer.G)}, 0
    )
    with pytest.raises(NotFinite, match="iteration 2.*iter_0000001"):
        trainer.train()


def test_adam_states_of_the_engine_are_matched_by_place(gaugan):
    """Automatic names sort otherwise than they stand; statistics and u, v have no moments."""
    network = {
        "fc.bias": np.zeros(2),
        "fc.weight_orig": np.zeros((2, 3)),
        "fc.weight_u": np.zeros(2),
        "n._mean": np.zeros(4),
        "up.bias": np.zeros(2),
    }
    automatic = {
        "conv2d_9.b_0": np.full(2, 1.0),
        "conv2d_9.w_0": np.full((2, 3), 2.0),
        "conv2d_10.b_0": np.full(2, 3.0),
    }
    saved = {
        f"{name}_{moment}_0": value
        for moment in ("moment1", "moment2")
        for name, value in automatic.items()
    }
    saved |= {f"{name}_beta{i}_pow_acc_0": np.array([0.5]) for i in (1, 2) for name in automatic}
    read = gaugan.engine.adam_state
    state = read(saved | {"LR_Scheduler": {}}, network, "generator.")
    assert set(state) == {"moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"}
    values = {name: float(value.flat[0]) for name, value in state["moment2"].items()}
    assert values == {
        "generator.fc.bias": 1.0,
        "generator.fc.weight_orig": 2.0,
        "generator.up.bias": 3.0,
    }
    assert read(saved, {k: v for k, v in network.items() if k != "up.bias"}) is None
    assert read(saved, network | {"up.bias": np.zeros(3)}) is None
    assert read(None, network) is None
