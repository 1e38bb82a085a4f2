"""Losses worked out by hand, and the two updates: who moves, by which gradient and draws."""

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


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


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
    y = paddle.to_tensor([2, 0])
    loss = acgan.trainer.class_loss
    expected = -(math.log(5 / 8) + math.log(1 / 4)) / 2
    assert float(loss(logits, y, "cross_entropy")) == pytest.approx(expected)
    assert float(loss(logits, y, "linear")) == pytest.approx(-(5 / 8 + 1 / 4) / 2)


def test_the_linear_form_is_bounded_and_flat_where_the_other_is_steep(acgan):
    logits = np.array([[-30.0, 0.0, 0.0]], "float32")
    y = paddle.to_tensor([0])
    slopes = {}
    for kind, least in (("cross_entropy", 0.0), ("linear", -1.0)):
        x = paddle.to_tensor(logits, stop_gradient=False)
        acgan.trainer.class_loss(x, y, kind).backward()
        slopes[kind] = abs(x.grad.numpy()).max()
        sure = paddle.to_tensor(-9 * logits)
        assert float(acgan.trainer.class_loss(sure, y, kind)) == least
    assert slopes["cross_entropy"] == pytest.approx(1) and slopes["linear"] < 1e-12


@pytest.mark.parametrize("kind", ["cross_entropy", "linear"])
def test_class_loss_gradient_is_the_finite_difference(acgan, kind):
    h = 1e-6
    logits = np.random.default_rng(0).standard_normal((5, 4)) * 2
    y = np.array([0, 3, 1, 1, 2])
    x = paddle.to_tensor(logits.astype("float32"), stop_gradient=False)
    acgan.trainer.class_loss(x, paddle.to_tensor(y), kind).backward()
    expected = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        up = logits.copy()
        up[place] += h
        down = logits.copy()
        down[place] -= h
        difference = numpy_class_loss(up, y, kind) - numpy_class_loss(down, y, kind)
        expected[place] = difference / (2 * h)
    assert np.allclose(x.grad.numpy(), expected, atol=1e-6)


def test_accuracy_counts_the_largest_logit(acgan):
    rows = [[1.0, 3.0, 2.0], [5.0, 4.0, 0.0], [0.0, 0.0, 0.1], [-1.0, -2.0, -3.0]]
    logits = paddle.to_tensor(rows)
    assert float(acgan.trainer.accuracy(logits, paddle.to_tensor([1, 1, 2, 0]))) == 0.75


# ---- the updates ----


@pytest.mark.parametrize(
    "kind, on", [("cross_entropy", "both"), ("cross_entropy", "real"), ("linear", "both")]
)
def test_what_is_logged_by_hand(acgan, tmp_path, kind, on):
    """Two real images of classes 0, 1 and two fakes of class 2, whose pixels hold D's logits."""
    trainer = make(acgan, tmp_path, ReadD(), class_loss=kind, class_on=on)
    # p of 0: 2/4; p of 1: 8/17
    real = images_of([2, math.log(2), 0, 0], [-1, math.log(8), math.log(8), 0])
    # p of 2: 3/5, 5/10
    fake = images_of([0.5, 0, 0, math.log(3)], [-3, 0, math.log(4), math.log(5)])
    y = paddle.to_tensor([0, 1])
    y_fake = paddle.to_tensor([2, 2])
    cost = {"cross_entropy": lambda p: -math.log(p), "linear": lambda p: -p}[kind]
    logs = trainer.d_update(real, y, fake=fake, y_fake=y_fake)
    logs = {name: float(value) for name, value in logs.items()}
    loss_s = (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2
    loss_c = (cost(2 / 4) + cost(8 / 17)) / 2 + (on == "both") * (cost(3 / 5) + cost(5 / 10)) / 2
    assert logs["D_loss_S"] == pytest.approx(loss_s, rel=1e-5)
    assert logs["D_loss_C"] == pytest.approx(loss_c, rel=1e-5)
    assert logs["D_loss"] == pytest.approx(loss_s + loss_c, rel=1e-5)
    assert (logs["Acc"], logs["Acc_fake"]) == (0.5, 1.0)  # a tie goes to the first
    d_real = (sigmoid(2) + sigmoid(-1)) / 2
    d_fake = (sigmoid(0.5) + sigmoid(-3)) / 2
    assert logs["D_x"] == pytest.approx(d_real, rel=1e-5)
    assert logs["D_G_z1"] == pytest.approx(d_fake, rel=1e-5)
    trainer.D.w.set_value(paddle.ones([1]))
    fake.stop_gradient = False
    logs = {name: float(v) for name, v in trainer.g_update(fake, y_fake, 0).items()}
    loss = (softplus(-0.5) + softplus(3)) / 2 + (cost(3 / 5) + cost(5 / 10)) / 2
    assert logs["G_loss"] == pytest.approx(loss, rel=1e-5)
    assert logs["D_G_z2"] == pytest.approx(d_fake, rel=1e-5)


@pytest.mark.parametrize("on, alike", [("real", True), ("both", False)])
def test_which_images_teach_d_the_classes(acgan, tmp_path, on, alike):
    """With "real" the classes of generated images leave no trace in D."""
    states = []
    for k, classes in enumerate(([0, 1, 2, 0], [2, 2, 1, 1])):
        paddle.seed(0)
        trainer = make(acgan, tmp_path / str(k), class_on=on)
        x, y = tensors(*batch())
        trainer.d_update(x, y, fake=0.5 * x, y_fake=paddle.to_tensor(classes))
        states.append(trained(trainer.D))
    assert (not moved(*states)) == alike


@pytest.mark.parametrize("kind, least", [("cross_entropy", 0.0), ("linear", -2.0)])
def test_the_loss_of_a_perfect_discriminator(acgan, tmp_path, kind, least):
    trainer = make(acgan, tmp_path, ReadD(), class_loss=kind)
    real = images_of([90, 90, 0, 0])
    fake = images_of([-90, 0, 90, 0])
    y, y_fake = tensors([0], [1])
    logs = trainer.d_update(real, y, fake=fake, y_fake=y_fake)
    assert float(logs["D_loss"]) == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "linear"])
def test_each_update_moves_its_own_network_only(acgan, tmp_path, kind):
    trainer = make(acgan, tmp_path, class_loss=kind)
    x, y = tensors(*batch())
    fake = trainer.G(paddle.randn([4, 7]))
    g0 = trained(trainer.G)
    d0 = trained(trainer.D)
    trainer.d_update(x, y, fake=fake.detach(), y_fake=y)
    g1 = trained(trainer.G)
    d1 = trained(trainer.D)
    assert not moved(g0, g1) and moved(d0, d1) == set(d0)
    gradients = [p.grad.numpy().copy() for p in trainer.update_D.parameters]
    trainer.g_update(fake, y, 0)
    g2 = trained(trainer.G)
    d2 = trained(trainer.D)
    assert moved(g1, g2) == set(g1) and not moved(d1, d2)
    assert all(not p.stop_gradient for p in trainer.update_D.parameters)
    for gradient, p in zip(gradients, trainer.update_D.parameters, strict=True):
        assert np.array_equal(gradient, p.grad)  # none from G's step


def check_adam_step(twin, before, after, lr):
    """Adam's first step is lr * g / (|g| + 1e-8), whatever its betas.

    Args: twin, a network with the gradients g; before and after, {name: array} of the other.
    """
    compared = 0
    for name, p in twin.named_parameters():
        if not p.stop_gradient:
            g = p.grad.numpy()
            change = after[name] - before[name]
            clear = np.abs(g) > 1e-4  # a gradient of rounding errors has no sign
            compared += clear.sum() / clear.size
            assert np.allclose(change[clear], -lr * np.sign(g[clear]), rtol=2e-3, atol=1e-6), name
    assert compared > len(before) / 2


def test_d_update_is_one_adam_step_on_the_papers_loss(acgan, tmp_path):
    """-L_S - L_C of eq. 2 and 3, from probabilities, on a second copy of the networks."""
    trainer = make(acgan, tmp_path, d_lr=4e-4, arch={"form": "clvrai"})
    twin = make(acgan, tmp_path, d_lr=4e-4, arch={"form": "clvrai"})
    still(trainer.D, twin.D)
    x, y, y_fake = tensors(*batch(), np.array([2, 0, 1, 1]))
    fake = trainer.G(paddle.randn([4, 7])).detach()
    before = trained(trainer.D)
    trainer.d_update(x, y, fake=fake, y_fake=y_fake)
    real_s, real_c = twin.D(x)
    fake_s, fake_c = twin.D(fake)
    loss = -paddle.log(paddle.nn.functional.sigmoid(real_s)).mean()
    loss -= paddle.log(1 - paddle.nn.functional.sigmoid(fake_s)).mean()
    for logits, labels in ((real_c, y), (fake_c, y_fake)):
        p = paddle.nn.functional.softmax(logits)
        loss -= sum(paddle.log(p[i, int(labels[i])]) for i in range(4)) / 4
    loss.backward()
    check_adam_step(twin.D, before=before, after=trained(trainer.D), lr=4e-4)


def test_g_update_is_one_adam_step_on_the_papers_loss(acgan, tmp_path):
    trainer = make(acgan, tmp_path, g_lr=1e-4, arch={"form": "clvrai"})
    twin = make(acgan, tmp_path, g_lr=1e-4, arch={"form": "clvrai"})
    still(trainer.D, twin.D)
    noise = np.random.default_rng(1).standard_normal((4, 7)).astype("float32")
    z, y_fake = tensors(noise, np.array([2, 0, 1, 1]))
    before = trained(trainer.G)
    trainer.g_update(trainer.G(z), y_fake, 0)
    s, c = twin.D(twin.G(z))
    p = paddle.nn.functional.softmax(c)
    loss = -paddle.log(paddle.nn.functional.sigmoid(s)).mean()
    loss -= sum(paddle.log(p[i, int(y_fake[i])]) for i in range(4)) / 4
    loss.backward()
    check_adam_step(twin.G, before=before, after=trained(trainer.G), lr=1e-4)


def test_the_order_of_one_step(acgan, tmp_path):
    """D sees the real images, then fakes cut from G, and steps; G asks the new D about the same."""
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
    """BatchNorm's running statistics tell: one step towards the reals', then the fakes'."""
    trainer = make(acgan, tmp_path, d_lr=0.0)
    twin = make(acgan, tmp_path, d_lr=0.0)
    still(trainer.D, twin.D)
    x, y = tensors(*batch())
    fake = paddle.full([4, 3, 32, 32], 0.9)
    trainer.d_update(x, y, fake=fake, y_fake=y)
    norm = trainer.D.conv2[1]
    mean = twin.D.conv2[1]._mean.numpy()
    variance = twin.D.conv2[1]._variance.numpy()
    for image in (x, fake):
        h = twin.D.conv2[0](twin.D.conv1(image)).numpy().astype("float64")
        mean = 0.9 * mean + 0.1 * h.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * h.var((0, 2, 3))
    assert np.allclose(norm._mean.numpy(), mean, rtol=1e-4, atol=1e-6)
    assert np.allclose(norm._variance.numpy(), variance, rtol=1e-4)


def test_rates_and_moments_reach_the_optimizers(acgan, tmp_path):
    def rates(trainer):
        return [trainer.update_G.optimizer.get_lr(), trainer.update_D.optimizer.get_lr()]

    both = make(acgan, tmp_path, lr=3e-4, beta1=0.25, beta2=0.75)
    apart = make(acgan, tmp_path, lr=3e-4, g_lr=1e-4, d_lr=0.0)
    assert rates(both) == pytest.approx([3e-4, 3e-4])
    assert rates(apart) == pytest.approx([1e-4, 0.0])
    for optimizer in (both.update_G.optimizer, both.update_D.optimizer):
        assert (optimizer._beta1, optimizer._beta2) == (0.25, 0.75)


# ---- the draws ----


def drawn(trainer, iteration, y, seed=0, rank=0):
    """(z, labels) that a step draws for its fakes, given the real labels; nothing is trained."""
    draws = {}

    def generator(z):
        draws["z"] = z
        return z

    def d_update(x, y, fake, y_fake):
        draws["d"] = y_fake
        return {}

    def g_update(fake, y_fake, iteration):
        draws["g"] = y_fake
        return {}

    trainer.args.seed = seed
    trainer.rank = rank
    trainer.G = generator
    trainer.d_update = d_update
    trainer.g_update = g_update
    trainer.train_step(iteration, np.zeros((len(y), 1), "float32"), np.asarray(y))
    assert draws["d"] is draws["g"]
    return draws["z"].numpy(), draws["d"].numpy()


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
    trainer = make(acgan, tmp_path)
    y = np.zeros(8, np.int64)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = [drawn(trainer, i, y, seed=seed, rank=rank) for i, seed, rank in keys]
    assert len({z.tobytes() for z, _ in draws}) == 4
    assert len({labels.tobytes() for _, labels in draws}) == 4


def test_a_step_depends_on_nothing_else(acgan, tmp_path):
    """Dropout and activation noise too: neither Paddle's random state nor earlier steps matter."""
    trainer = make(acgan, tmp_path, lr=0.0, arch={"activation_noise": 0.1})

    def step(iteration):
        logs = trainer.train_step(iteration, *batch())
        return {name: float(value) for name, value in logs.items()}

    first = step(5)
    paddle.seed(99)
    other = step(3)
    assert step(5) == first != other
