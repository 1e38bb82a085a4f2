"""Losses against numbers worked out by hand, and the two updates: who moves, by which gradient,
from which draws.
"""

import math

import numpy as np
import paddle
import pytest

from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint
from tests.gaugan_simam.networks import arrays

# The smallest networks, and a run that writes little.
TINY = "--label_nc 3 --crop_size 32 --norm_G spectralspadebatch1x1 --ngf 1 --ndf 2 --num_D 2"
TINY += " --n_layers_D 2 --iterations 2 --lambda_vgg 0 --eval_samples 2"
TINY += " --log_every 1 --keep_checkpoints 0 --num_workers 0"
VAE = "--use_vae --nef 1 --z_dim 4"  # a small one


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


def make(gaugan, tmp_path, flags="", vgg=None):
    """A trainer on the smallest networks, the same weights each time. Args: flags, further ones."""
    flags = flags.replace("--use_vae", VAE)
    words = [*TINY.split(), "--output_dir", tmp_path, *flags.split()]
    args = gaugan.train.parse_args(words)
    model = gaugan.model
    names = model.Architecture.__dataclass_fields__
    arch = model.Architecture(**{name: getattr(args, name) for name in names})
    paddle.seed(0)
    nets = model.Generator(arch), model.Discriminator(arch)
    encoder = model.Encoder(arch) if arch.use_vae else None
    return gaugan.trainer.Trainer(*nets, arch, args, Data(), Data(), encoder, vgg)


def saved(trainer):
    """What a checkpoint of this trainer's run holds."""
    with trainer._run(()) as run:
        return run.state()


def batch(n=4):
    return tuple(np.stack(part) for part in zip(*(Data().load(i) for i in range(n)), strict=True))


def tensors(gaugan, trainer, n=4):
    """A batch as the updates take it: semantic maps and photos."""
    labels, instances, photos = batch(n)
    return gaugan.model.semantics(labels, instances, trainer.arch), paddle.to_tensor(photos)


def noise():
    """A generator of the updates' draws, the same each time."""
    return np.random.default_rng(9)


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
    trainer = make(gaugan, tmp_path, "--use_vae --lambda_vgg 1.6 --vgg_size 16", vgg)
    g0, e0, d0 = (trained(net) for net in (trainer.G, trainer.E, trainer.D))
    seg, real = tensors(gaugan, trainer)
    fakes, logs = trainer.g_update(seg, real, 0, noise())
    g1, e1, d1 = (trained(net) for net in (trainer.G, trainer.E, trainer.D))
    assert set(logs) == {"g_ganloss", "g_featloss", "g_vggloss", "kldloss"}
    assert moved(g0, g1) and moved(e0, e1) and not moved(d0, d1)
    of_G, of_D = trainer.update_G.parameters, trainer.update_D.parameters
    assert all(p.grad is None and not p.stop_gradient for p in of_D)
    g_grads = [p.grad.numpy().copy() for p in of_G if p.grad is not None]
    assert fakes.stop_gradient
    logs = trainer.d_update(seg, real, fakes, noise())
    g2, e2, d2 = (trained(net) for net in (trainer.G, trainer.E, trainer.D))
    assert set(logs) == {"df_ganloss", "dr_ganloss"}
    assert not moved(g1, g2) and not moved(e1, e2) and moved(d1, d2)
    after = [p.grad.numpy() for p in of_G if p.grad is not None]
    assert all(
        np.array_equal(a, b) for a, b in zip(g_grads, after, strict=True)
    )  # none from D's step
    assert not moved(frozen, arrays(vgg)) and all(p.grad is None for p in vgg.parameters())


def test_d_update_lets_no_gradient_through_to_g(gaugan, tmp_path):
    """Even when it is given images that are not detached, and when it draws them itself."""
    trainer = make(gaugan, tmp_path)
    seg, real = tensors(gaugan, trainer)
    trainer.d_update(seg, real, trainer.G(seg), noise())
    trainer.d_update(seg, real, None, noise())
    assert all(p.grad is None for p in trainer.update_G.parameters)


def test_d_sees_one_joined_batch_fake_first(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path)
    seg, real = tensors(gaugan, trainer, 3)
    seen, D = [], trainer.D.forward
    trainer.D.forward = lambda x: seen.append(x.numpy()) or D(x)
    fakes, _ = trainer.g_update(seg, real, 0, noise())
    trainer.d_update(seg, real, fakes, noise())
    assert len(seen) == 2  # one pass in each update
    for x in seen:
        assert x.shape == (6, trainer.arch.semantic_nc + 3, 32, 32)
        assert np.array_equal(x[:3, :-3], seg.numpy())
        assert np.array_equal(x[3:, :-3], seg.numpy())
        assert np.array_equal(x[:3, -3:], fakes.numpy())
        assert np.array_equal(x[3:, -3:], real.numpy())


def test_g_passes_once_an_iteration_without_redraw(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, "--D_steps_per_G 2 --no-redraw")
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
    """Adam's first step from beta1 = 0 is lr * g / (|g| + eps), g worked out again here."""
    trainer, twin = make(gaugan, tmp_path), make(gaugan, tmp_path)
    seg, real = tensors(gaugan, trainer)
    fakes, logs = trainer.g_update(seg, real, 0, noise())
    logs |= trainer.d_update(seg, real, fakes, noise())
    fake, n, D = twin.G(seg), 4, twin.D

    def both(images):
        return D(paddle.concat([paddle.concat([seg] * 2), paddle.concat([images, real])], 1))

    found = both(fake)
    gan = -sum(scale[-1][:n].mean() for scale in found) / 2
    match = (
        sum((h[:n] - h[n:].detach()).abs().mean() for scale in found for h in scale[:-1]) * 10 / 2
    )
    (gan + match).backward()
    assert float(logs["g_ganloss"]) == pytest.approx(float(gan), rel=1e-5)
    assert float(logs["g_featloss"]) == pytest.approx(float(match), rel=1e-5)
    check_step(twin.G, trainer.G, 1e-4)
    for p in twin.update_D.parameters:
        p.clear_gradient()
    found = both(fake.detach())
    loss_fake = sum(paddle.clip(1 + scale[-1][:n], min=0).mean() for scale in found) / 2
    loss_real = sum(paddle.clip(1 - scale[-1][n:], min=0).mean() for scale in found) / 2
    (loss_fake + loss_real).backward()
    assert float(logs["df_ganloss"]) == pytest.approx(float(loss_fake), rel=1e-5)
    assert float(logs["dr_ganloss"]) == pytest.approx(float(loss_real), rel=1e-5)
    check_step(twin.D, trainer.D, 4e-4)


@pytest.mark.parametrize("use_vae", ["--no-use_vae", "--use_vae"])
def test_d_trains_on_what_the_updated_g_draws(gaugan, tmp_path, use_vae):
    """As in both originals, G in training mode, with a latent of its own; without --redraw D would
    see the images of G's step.
    """
    flags = f"{use_vae} --g_lr 0.05"  # so large that the two differ
    trainer, twin = make(gaugan, tmp_path, flags), make(gaugan, tmp_path, flags)
    seen, D = [], trainer.D.forward
    trainer.D.forward = lambda x: seen.append(x[:4, -3:].numpy()) or D(x)
    logs = trainer.train_step(0, *batch())

    rng = twin._rng("step", 0, 0)
    rng.integers(2**31)
    seg, real = tensors(gaugan, twin)
    of_G_step, _ = twin.g_update(seg, real, 0, rng)
    assert moved(arrays(twin.G), arrays(trainer.G))  # by the pass below
    with paddle.no_grad():
        fake = twin.G(seg, twin.latent(real, rng)[0])
    assert np.array_equal(seen[0], of_G_step.numpy()) and np.array_equal(seen[1], fake.numpy())
    assert np.abs(seen[0] - seen[1]).mean() > 0.01
    for name in ("G", "E") if twin.E else ("G",):  # weights, statistics, u and v
        assert not moved(arrays(getattr(twin, name)), arrays(getattr(trainer, name)))
    maps, images = paddle.concat([seg] * 2), paddle.concat([fake, real])
    outputs_of_D = twin.D(paddle.concat([maps, images], 1))
    loss_fake = sum(paddle.clip(1 + scale[-1][:4], min=0).mean() for scale in outputs_of_D) / 2
    loss_real = sum(paddle.clip(1 - scale[-1][4:], min=0).mean() for scale in outputs_of_D) / 2
    (loss_fake + loss_real).backward()
    assert float(logs["df_ganloss"]) == pytest.approx(float(loss_fake), rel=1e-5)
    assert float(logs["dr_ganloss"]) == pytest.approx(float(loss_real), rel=1e-5)
    check_step(twin.D, trainer.D, 4e-4)


def check_step(before, after, lr):
    """Each weight has gone lr * g / (|g| + 1e-8) down its gradient."""
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


@pytest.mark.parametrize("use_vae", ["--no-use_vae", "--use_vae"])
def test_accumulated_gradients_are_those_of_the_whole_batch(gaugan, tmp_path, use_vae):
    """Three parts of 3, 3 and 2; BatchNorm and spectral norm held still, which move with each
    pass.
    """
    gradients, sizes = [], []
    for accumulate in (1, 3):
        flags = f"{use_vae} --batch_size 8 --g_lr 0 --d_lr 0 --accumulate {accumulate}"
        trainer = make(gaugan, tmp_path, flags)
        for network in filter(None, (trainer.G, trainer.D, trainer.E)):
            network.eval()
        calls, G = [], trainer.G.forward
        trainer.G.forward = lambda seg, z, calls=calls, G=G: calls.append(len(seg)) or G(seg, z)
        seg, real = tensors(gaugan, trainer, 8)
        fakes, logs = trainer.g_update(seg, real, 0, noise())
        logs |= trainer.d_update(seg, real, fakes, noise())
        sizes.append(calls)
        found = []
        for p in [*trainer.update_G.parameters, *trainer.update_D.parameters]:
            if p.grad is not None:
                found.append(p.grad.numpy())
        gradients.append(found + [np.float32(float(v)) for _, v in sorted(logs.items())])
    assert sizes == [[8], [3, 3, 2]]
    for whole, pieces in zip(*gradients, strict=True):
        assert np.allclose(
            whole, pieces, rtol=1e-3, atol=2e-5
        )  # biases before InstanceNorm: 0, up to rounding


def test_a_vae_draws_its_latent_from_the_photo(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, "--use_vae")
    _, real = tensors(gaugan, trainer)
    trainer.E.eval()
    mu, logvar = trainer.E(real)
    z, kl = trainer.latent(real, noise())
    drawn = noise().standard_normal((4, 4), dtype=np.float32)
    assert np.allclose(z.numpy(), mu.numpy() + drawn * np.exp(0.5 * logvar.numpy()), atol=1e-6)
    assert float(kl) == pytest.approx(
        float(-0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()), rel=1e-5
    )


@pytest.mark.parametrize("length, total, rates", [
    ("--iterations 10", 10, {0: 1, 9: 1}),
    ("--iterations 10 --decay_iterations 4", 10, {0: 1, 5: 1, 6: 1, 7: 0.75, 9: 0.25}),
    ("--iterations 0 --niter 2 --niter_decay 2", 8, {0: 1, 4: 1, 5: 0.75, 7: 0.25}),
    ("--iterations 0 --epochs 4 --niter 1 --niter_decay 2", 8,
     {1: 1, 2: 1, 3: 0.75, 6: 0, 7: 0}),
])  # fmt: skip
def test_the_rates_fall_linearly(gaugan, tmp_path, length, total, rates):
    """Two batches an epoch."""
    trainer = make(gaugan, tmp_path, length)
    assert trainer.total == total
    for iteration, share in rates.items():
        trainer.set_rates(iteration)
        assert trainer.update_G.optimizer.get_lr() == pytest.approx(1e-4 * share)
        assert trainer.update_D.optimizer.get_lr() == pytest.approx(4e-4 * share)


def test_the_rates_fall_at_the_same_epochs_where_the_batch_changes(gaugan, tmp_path):
    """Three of four epochs are done, in half as many iterations as they would take now."""
    trainer = make(gaugan, tmp_path, "--iterations 0 --niter 2 --niter_decay 2")
    before = trainer.epochs.state(6) | {"batch_size": 2 * trainer.args.batch_size}
    assert trainer.epochs.go_on(3, before, "a.pdparams")
    assert trainer.total == 3 + 2
    for iteration, share in {3: 0.5, 4: 0.25}.items():
        trainer.set_rates(iteration)
        assert trainer.update_G.optimizer.get_lr() == pytest.approx(1e-4 * share)


def test_moments_reach_the_optimizers(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, "--beta1 0.25 --beta2 0.75")
    for update in (trainer.update_G, trainer.update_D):
        assert (update.optimizer._beta1, update.optimizer._beta2) == (0.25, 0.75)


def test_samples_come_from_the_average_in_eval_mode_and_leave_training_as_it_was(gaugan, tmp_path):
    trainer = make(gaugan, tmp_path, "--ema_decay 0.5")
    trainer.train_step(0, *batch())
    state = arrays(trainer.G)
    labels, instances, _ = batch(2)
    z = np.zeros((2, 4), np.float32)
    images = trainer.generate(labels, instances, z)
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, trainer.generate(labels, instances, z))
    assert trainer.G.training and not moved(state, arrays(trainer.G))
    for p in trainer.G_ema.conv_img.parameters():
        p.set_value(paddle.zeros(p.shape))
    assert (trainer.generate(labels, instances, z) == 128).all()  # tanh(0): G_ema drew them


def test_ema_follows_each_step_of_g_alone(gaugan, tmp_path):
    """Before --ema_start it is G; an iteration without a step of G leaves it as it is."""
    trainer = make(gaugan, tmp_path, "--ema_decay 0.75 --ema_start 2 --D_steps_per_G 2")
    trainer.train_step(0, *batch())
    first = trained(trainer.G)
    assert not moved(first, trained(trainer.G_ema))
    trainer.train_step(1, *batch())
    assert not moved(first, trained(trainer.G_ema))
    trainer.train_step(2, *batch())
    second = trained(trainer.G)
    for name, value in trained(trainer.G_ema).items():
        assert np.allclose(value, 0.75 * first[name] + 0.25 * second[name], atol=1e-6), name


def test_a_checkpoint_holds_all_and_gives_it_back(gaugan, tmp_path):
    flags = "--use_vae --ema_decay 0.9 --save_every 1"
    trainer = make(gaugan, tmp_path, f"{flags} --iterations 1")
    trainer.train()
    state = checkpoint.load_checkpoint(tmp_path / "checkpoints" / "iter_0000001.pdparams")
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
    other = make(gaugan, tmp_path, f"{flags} --resume")
    with other._run(()) as run:
        assert run.iteration == 1
    for t in (trainer, other):
        t.train_step(1, *batch())
    for name in ("G", "G_ema", "D", "E"):
        assert not moved(arrays(getattr(trainer, name)), arrays(getattr(other, name))), name


def test_weights_of_another_network_are_refused(gaugan, tmp_path):
    """SimAM has no weights: only the architecture tells."""
    trainer, other = make(gaugan, tmp_path), make(gaugan, tmp_path, "--no-simam")
    with pytest.raises(UserError, match="simam False there, True here"):
        trainer.start_from(saved(other), "other.pdparams")
    part = tmp_path / "checkpoints" / "iter_0000001.pdparams"
    checkpoint.save_checkpoint(part.parent, 1, {"architecture": {}, "generator": {}}, 0)
    with pytest.raises(UserError, match="no discriminator, best, optimizer_g"):
        saved(make(gaugan, tmp_path, "--resume"))
    part.unlink()
    state = saved(trainer)
    larger = make(gaugan, tmp_path, "--crop_size 64")
    notes = larger.start_from(
        {k: v for k, v in state.items() if k != "discriminator"}, "small.pdparams"
    )
    assert "no discriminator" in notes[-1]
    with pytest.raises(UserError, match="crop_size"):
        larger.check(state, "small.pdparams")
    with pytest.raises(UserError, match="crop_size"):
        larger.go_on(state, "small.pdparams")


def test_syncbatch_is_batch_on_cpu(gaugan, tmp_path):
    """That it is said once stands in test_cli.py."""
    trainer = make(gaugan, tmp_path, "--norm_G spectralspadesyncbatch1x1")
    plain = make(gaugan, tmp_path)
    trainer.start_from(saved(plain), "batch.pdparams")  # the same weights
    for t in (trainer, plain):
        t.train_step(0, *batch())
    assert not moved(arrays(trainer.G), arrays(plain.G))


def test_unreadable_held_out_pairs_are_skipped_when_asked(gaugan, tmp_path):
    """The next pair takes the place of one that cannot be read; its latents stay those of its
    place.
    """

    class Damaged(Data):
        def load(self, index, rng=None):
            if index in (1, 7):
                raise UserError(f"pair {index} is damaged")
            return super().load(index)

        def name(self, index):
            return str(index)

    for flags in ("--eval_samples 8", "--eval_samples 8 --skip_bad_images"):
        trainer = make(gaugan, tmp_path, flags)
        trainer.held_out = Damaged()
        drawn = []
        trainer.generate = lambda labels, *_, drawn=drawn: drawn.append(labels) or labels
        if "skip" not in flags:
            with pytest.raises(UserError, match="pair 1 is damaged"):
                list(trainer.fakes())
            with pytest.raises(UserError, match="pair 1 is damaged"):
                trainer.sample_sheet()
            continue
        assert sum(map(len, trainer.fakes())) == 8
        expected = [Data().load(i)[0] for i in (0, 2, 2, 3, 4, 5, 6, 0)]
        assert np.array_equal(np.concatenate(drawn), expected)
    trainer = make(gaugan, tmp_path, "--skip_bad_images")
    whole = trainer.sample_sheet()
    trainer.held_out = Damaged()
    sheet = trainer.sample_sheet()
    rows = slice(-8 * 34, None)  # 32 px and a border of 2, below the labels of the columns
    for i, shown in enumerate((0, 2, 2, 3, 4, 5, 6, 0)):
        row, same = (picture[rows][34 * i : 34 * i + 32] for picture in (sheet, whole))
        photos = slice(2 + 2 * 34, 2 + 2 * 34 + 32)
        original = whole[rows][34 * shown : 34 * shown + 32]
        assert np.array_equal(row[:, photos], original[:, photos])
        assert np.array_equal(row, same) == (i == shown)


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

    trainer = make(gaugan, tmp_path, "--iterations 4 --save_every 1")
    step = trainer.train_step
    poison = trainer.update_D.parameters[0]

    def poisoned(iteration, *given):
        losses = step(iteration, *given)
        if iteration == 1:
            poison.set_value(paddle.full(poison.shape, float("nan")))
        return losses

    trainer.train_step = poisoned
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
