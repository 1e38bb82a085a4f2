"""Losses against numbers worked out by hand, and the two updates: who moves, by which gradient,
from which draws.
"""

import math

import numpy as np
import paddle
import pytest

from tests.acgan.trainers import ReadD, batch, make, moved, still, trained


@pytest.fixture
def acgan(paper):
    return paper("acgan")


def tensors(*arrays):
    return [paddle.to_tensor(a) for a in arrays]


def images_of(*rows):
    """Images (N, 3, 1, 2) whose first pixels ReadD reads."""
    return paddle.to_tensor([[*row, 0, 0] for row in rows], "float32").reshape([len(rows), 3, 1, 2])


def softplus(x):
    return math.log1p(math.exp(x))


def numpy_class_loss(logits, y, kind):
    """By definition, float64: the mean of -log p_y or of -p_y."""
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p_y = p[np.arange(len(y)), y]
    return -(np.log(p_y) if kind == "cross_entropy" else p_y).mean()


# ---- the losses ----


def test_source_loss_by_hand(acgan):
    logits = paddle.to_tensor([2.0, -0.5])
    loss = acgan.trainer.source_loss
    assert float(loss(logits, True)) == pytest.approx((softplus(-2) + softplus(0.5)) / 2)
    assert float(loss(logits, False)) == pytest.approx((softplus(2) + softplus(-0.5)) / 2)
    sure = paddle.to_tensor([200.0])  # where log(sigmoid) would be -inf
    assert float(loss(sure, False)) == pytest.approx(200) and float(loss(sure, True)) == 0


def test_class_loss_by_hand(acgan):
    """Odds of 1 : 2 : 5 on class 2 and of 1 : 1 : 2 on class 0: p = 5/8 and 1/4."""
    logits = paddle.to_tensor([[0.0, math.log(2), math.log(5)], [3.0, 3.0, 3.0 + math.log(2)]])
    y, loss = paddle.to_tensor([2, 0]), acgan.trainer.class_loss
    assert float(loss(logits, y, "cross_entropy")) == pytest.approx(
        -(math.log(5 / 8) + math.log(1 / 4)) / 2
    )
    assert float(loss(logits, y, "linear")) == pytest.approx(-(5 / 8 + 1 / 4) / 2)


def test_the_linear_form_is_bounded_and_flat_where_the_other_is_steep(acgan):
    logits, y = np.array([[-30.0, 0.0, 0.0]], "float32"), paddle.to_tensor([0])
    slopes = {}
    for kind in ("cross_entropy", "linear"):
        x = paddle.to_tensor(logits, stop_gradient=False)
        acgan.trainer.class_loss(x, y, kind).backward()
        slopes[kind] = abs(x.grad.numpy()).max()
        assert (
            float(acgan.trainer.class_loss(paddle.to_tensor(-9 * logits), y, kind))
            == (kind == "linear") * -1.0
        )
    assert slopes["cross_entropy"] == pytest.approx(1) and slopes["linear"] < 1e-12


@pytest.mark.parametrize("kind", ["cross_entropy", "linear"])
def test_class_loss_gradient_is_the_finite_difference(acgan, kind):
    rng, h = np.random.default_rng(0), 1e-6
    logits, y = rng.standard_normal((5, 4)) * 2, np.array([0, 3, 1, 1, 2])
    x = paddle.to_tensor(logits.astype("float32"), stop_gradient=False)
    acgan.trainer.class_loss(x, paddle.to_tensor(y), kind).backward()
    expected = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[place] += h
        down[place] -= h
        expected[place] = (numpy_class_loss(up, y, kind) - numpy_class_loss(down, y, kind)) / (
            2 * h
        )
    assert np.allclose(x.grad.numpy(), expected, atol=1e-6)


def test_accuracy_counts_the_largest_logit(acgan):
    logits = paddle.to_tensor(
        [[1.0, 3.0, 2.0], [5.0, 4.0, 0.0], [0.0, 0.0, 0.1], [-1.0, -2.0, -3.0]]
    )
    assert float(acgan.trainer.accuracy(logits, paddle.to_tensor([1, 1, 2, 0]))) == 0.75


# ---- the updates ----


@pytest.mark.parametrize(
    "kind, on", [("cross_entropy", "both"), ("cross_entropy", "real"), ("linear", "both")]
)
def test_what_is_logged_by_hand(acgan, tmp_path, kind, on):
    """Two real images of classes 0, 1 and two fakes of classes 2, 2, from logits written into their
    pixels.
    """
    trainer = make(acgan, tmp_path, ReadD(), class_loss=kind, class_on=on)
    real = images_of(
        [2, math.log(2), 0, 0], [-1, math.log(8), math.log(8), 0]
    )  # p of 0: 2/4; p of 1: 8/17
    fake = images_of(
        [0.5, 0, 0, math.log(3)], [-3, 0, math.log(4), math.log(5)]
    )  # p of 2: 3/5, 5/10
    y, y_fake = paddle.to_tensor([0, 1]), paddle.to_tensor([2, 2])
    cost = {"cross_entropy": lambda p: -math.log(p), "linear": lambda p: -p}[kind]
    logs = {name: float(v) for name, v in trainer.d_update(real, y, fake, y_fake).items()}
    loss_s = (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2
    loss_c = (cost(2 / 4) + cost(8 / 17)) / 2 + (on == "both") * (cost(3 / 5) + cost(5 / 10)) / 2
    assert logs["D_loss_S"] == pytest.approx(loss_s, rel=1e-5)
    assert logs["D_loss_C"] == pytest.approx(loss_c, rel=1e-5)
    assert logs["D_loss"] == pytest.approx(loss_s + loss_c, rel=1e-5)
    assert (logs["Acc"], logs["Acc_fake"]) == (0.5, 1.0)  # a tie goes to the first
    assert logs["D_x"] == pytest.approx(
        (1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(1))) / 2, rel=1e-5
    )
    d_fake = (1 / (1 + math.exp(-0.5)) + 1 / (1 + math.exp(3))) / 2
    assert logs["D_G_z1"] == pytest.approx(d_fake, rel=1e-5)
    trainer.D.w.set_value(paddle.ones([1]))
    fake.stop_gradient = False
    logs = {name: float(v) for name, v in trainer.g_update(fake, y_fake, 0).items()}
    loss = (softplus(-0.5) + softplus(3)) / 2 + (cost(3 / 5) + cost(5 / 10)) / 2
    assert logs["G_loss"] == pytest.approx(loss, rel=1e-5) and logs["D_G_z2"] == pytest.approx(
        d_fake, rel=1e-5
    )


@pytest.mark.parametrize("on, alike", [("real", True), ("both", False)])
def test_which_images_teach_d_the_classes(acgan, tmp_path, on, alike):
    """With "real" the classes of generated images leave no trace in D."""
    found = []
    for k, classes in enumerate(([0, 1, 2, 0], [2, 2, 1, 1])):
        paddle.seed(0)
        trainer = make(acgan, tmp_path / str(k), class_on=on)
        x, y = tensors(*batch())
        trainer.d_update(x, y, 0.5 * x, paddle.to_tensor(classes))
        found.append(trained(trainer.D))
    assert (not moved(*found)) == alike


@pytest.mark.parametrize("kind, least", [("cross_entropy", 0.0), ("linear", -2.0)])
def test_the_loss_of_a_perfect_discriminator(acgan, tmp_path, kind, least):
    trainer = make(acgan, tmp_path, ReadD(), class_loss=kind)
    real, fake = images_of([90, 90, 0, 0]), images_of([-90, 0, 90, 0])
    logs = trainer.d_update(real, paddle.to_tensor([0]), fake, paddle.to_tensor([1]))
    assert float(logs["D_loss"]) == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "linear"])
def test_each_update_moves_its_own_network_only(acgan, tmp_path, kind):
    trainer = make(acgan, tmp_path, class_loss=kind)
    x, y = tensors(*batch())
    fake = trainer.G(paddle.randn([4, 7]))
    g0, d0 = trained(trainer.G), trained(trainer.D)
    trainer.d_update(x, y, fake.detach(), y)
    g1, d1 = trained(trainer.G), trained(trainer.D)
    assert not moved(g0, g1) and moved(d0, d1) == set(d0)
    d_grads = [p.grad.numpy().copy() for p in trainer.update_D.parameters]
    trainer.g_update(fake, y, 0)
    g2, d2 = trained(trainer.G), trained(trainer.D)
    assert moved(g1, g2) == set(g1) and not moved(d1, d2)
    assert all(not p.stop_gradient for p in trainer.update_D.parameters)
    assert all(
        np.array_equal(g, p.grad) for g, p in zip(d_grads, trainer.update_D.parameters, strict=True)
    )  # none from G's step


def check_adam_step(before, after, twin, lr):
    """Adam's first step is lr * g / (|g| + 1e-8), whatever its betas; a gradient of rounding errors has no sign."""
    compared = 0
    for name, p in twin.named_parameters():
        if not p.stop_gradient:
            g, change = p.grad.numpy(), after[name] - before[name]
            clear = np.abs(g) > 1e-4
            compared += clear.sum() / clear.size
            assert np.allclose(change[clear], -lr * np.sign(g[clear]), rtol=2e-3, atol=1e-6), name
    assert compared > len(before) / 2


def test_d_update_is_one_adam_step_on_the_papers_loss(acgan, tmp_path):
    """-L_S - L_C of eq. 2 and 3, from probabilities, on a second copy of the networks."""
    trainer, twin = (make(acgan, tmp_path, d_lr=4e-4, arch={"form": "clvrai"}) for _ in range(2))
    still(trainer.D, twin.D)
    x, y, y_fake = tensors(*batch(), np.array([2, 0, 1, 1]))
    fake = trainer.G(paddle.randn([4, 7])).detach()
    before = trained(trainer.D)
    trainer.d_update(x, y, fake, y_fake)
    (real_s, real_c), (fake_s, fake_c) = twin.D(x), twin.D(fake)
    loss = -paddle.log(paddle.nn.functional.sigmoid(real_s)).mean()
    loss -= paddle.log(1 - paddle.nn.functional.sigmoid(fake_s)).mean()
    for logits, labels in ((real_c, y), (fake_c, y_fake)):
        p = paddle.nn.functional.softmax(logits)
        loss -= sum(paddle.log(p[i, int(labels[i])]) for i in range(4)) / 4
    loss.backward()
    check_adam_step(before, trained(trainer.D), twin.D, 4e-4)


def test_g_update_is_one_adam_step_on_the_papers_loss(acgan, tmp_path):
    trainer, twin = (make(acgan, tmp_path, g_lr=1e-4, arch={"form": "clvrai"}) for _ in range(2))
    still(trainer.D, twin.D)
    z, y_fake = tensors(
        np.random.default_rng(1).standard_normal((4, 7)).astype("float32"), np.array([2, 0, 1, 1])
    )
    before = trained(trainer.G)
    trainer.g_update(trainer.G(z), y_fake, 0)
    s, c = twin.D(twin.G(z))
    p = paddle.nn.functional.softmax(c)
    loss = -paddle.log(paddle.nn.functional.sigmoid(s)).mean()
    loss -= sum(paddle.log(p[i, int(y_fake[i])]) for i in range(4)) / 4
    loss.backward()
    check_adam_step(before, trained(trainer.G), twin.G, 1e-4)


def test_the_order_of_one_step(acgan, tmp_path):
    """D sees the real images, then fakes cut from G, and steps; G's step asks the new D about the
    same fakes.
    """
    trainer = make(acgan, tmp_path, d_lr=0.01)
    calls = []

    def record(layer, inputs):
        calls.append((inputs[0].numpy(), inputs[0].stop_gradient, trained(trainer.D)))

    trainer.D.register_forward_pre_hook(record)
    start = trained(trainer.D)
    x, y = batch()
    logs = trainer.train_step(0, x, y)
    (real, _, d_real), (fake, cut, d_fake), (again, cut_again, d_again) = calls
    assert np.array_equal(real, x) and fake.shape == x.shape and cut and not cut_again
    assert np.array_equal(fake, again)
    assert not moved(start, d_real) and not moved(start, d_fake)
    assert moved(start, d_again) == set(start) and not moved(d_again, trained(trainer.D))
    assert all(v.stop_gradient and v.ndim == 0 for v in logs.values())
    names = "D_loss D_loss_S D_loss_C G_loss Acc Acc_fake D_x D_G_z1 D_G_z2"
    assert set(logs) == set(names.split())


def test_real_and_fake_pass_d_in_batches_of_their_own(acgan, tmp_path):
    """BatchNorm's running statistics tell: one step towards the reals', then one towards the
    fakes'; not the mean's.
    """
    trainer, twin = (make(acgan, tmp_path, d_lr=0.0) for _ in range(2))
    still(trainer.D, twin.D)
    (x, y), fake = tensors(*batch()), paddle.full([4, 3, 32, 32], 0.9)
    trainer.d_update(x, y, fake, y)
    norm, old = trainer.D.conv2[1], twin.D.conv2[1]
    mean, variance = old._mean.numpy(), old._variance.numpy()
    for image in (x, fake):
        h = twin.D.conv2[0](twin.D.conv1(image)).numpy().astype("float64")
        mean, variance = (
            0.9 * mean + 0.1 * h.mean((0, 2, 3)),
            0.9 * variance + 0.1 * h.var((0, 2, 3)),
        )
    assert np.allclose(norm._mean.numpy(), mean, rtol=1e-4, atol=1e-6)
    assert np.allclose(norm._variance.numpy(), variance, rtol=1e-4)


def test_rates_and_moments_reach_the_optimizers(acgan, tmp_path):
    both = make(acgan, tmp_path, lr=3e-4, beta1=0.25, beta2=0.75)
    apart = make(acgan, tmp_path, lr=3e-4, g_lr=1e-4, d_lr=0.0)
    assert [
        o.get_lr() for o in (both.update_G.optimizer, both.update_D.optimizer)
    ] == pytest.approx([3e-4, 3e-4])
    assert [
        o.get_lr() for o in (apart.update_G.optimizer, apart.update_D.optimizer)
    ] == pytest.approx([1e-4, 0.0])
    for optimizer in (both.update_G.optimizer, both.update_D.optimizer):
        assert (optimizer._beta1, optimizer._beta2) == (0.25, 0.75)


# ---- the draws ----


def drawn(trainer, iteration, y, seed=0, rank=0):
    """(z, labels) that a step draws for its fakes, given the real batch's labels; nothing is
    trained.
    """
    found = {}
    trainer.args.seed, trainer.rank = seed, rank
    trainer.G = lambda z: found.setdefault("z", z)
    trainer.d_update = lambda x, y, fake, y_fake: found.setdefault("d", {"y": y_fake}) and {}
    trainer.g_update = lambda fake, y_fake, iteration: found.setdefault("g", {"y": y_fake}) and {}
    trainer.train_step(iteration, np.zeros((len(y), 1), "float32"), np.asarray(y))
    assert found["d"]["y"] is found["g"]["y"]
    return found["z"].numpy(), found["d"]["y"].numpy()


def test_fakes_have_uniform_labels_whatever_the_batch_holds(acgan, tmp_path):
    trainer = make(acgan, tmp_path)
    z, labels = drawn(trainer, 0, np.zeros(6000, np.int64))
    counts = np.bincount(labels, minlength=3)
    assert len(counts) == 3 and np.abs(counts - 2000).max() < 4 * math.sqrt(6000 * 2 / 9)
    again, same = drawn(trainer, 0, np.arange(6000) % 3)
    assert np.array_equal(labels, same) and np.array_equal(z, again)


def test_z_is_the_one_hot_of_the_label_then_noise(acgan, tmp_path):
    z, labels = drawn(make(acgan, tmp_path), 0, np.zeros(6000, np.int64))
    assert z.dtype == np.float32 and z.shape == (6000, 7)
    assert np.array_equal(z[:, :3], np.eye(3)[labels])
    noise = z[:, 3:]
    assert np.allclose(np.cov(noise.T), np.eye(4), atol=0.07) and np.abs(noise.mean(0)).max() < 0.06
    assert np.abs([noise[labels == c].mean(0) for c in range(3)]).max() < 0.1


def test_draws_differ_by_seed_iteration_and_rank(acgan, tmp_path):
    trainer, y = make(acgan, tmp_path), np.zeros(8, np.int64)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = [drawn(trainer, i, y, seed, rank) for i, seed, rank in keys]
    assert (
        len({z.tobytes() for z, _ in draws}) == 4
        and len({labels.tobytes() for _, labels in draws}) == 4
    )


def test_a_step_depends_on_nothing_else(acgan, tmp_path):
    """Dropout and activation noise too: neither Paddle's random state nor the steps before matter
    (rates of 0).
    """
    trainer = make(acgan, tmp_path, lr=0.0, arch={"activation_noise": 0.1})
    first = {k: float(v) for k, v in trainer.train_step(5, *batch()).items()}
    paddle.seed(99)
    other = {k: float(v) for k, v in trainer.train_step(3, *batch()).items()}
    assert {k: float(v) for k, v in trainer.train_step(5, *batch()).items()} == first != other
