"""CycleGAN's two updates against a twin written out here, its pools, and what can go wrong."""

import itertools
import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from shared_metrics.errors import UserError
from tests.classic_gans.trainers import (
    Pictures,
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
# Biases before a norm, and the means that they shift.
IDLE_G = r"model\.((1|4|7|16|19)\.bias|1\d\.conv_block\.[15]\.bias)"
IDLE_D = r"model\.(2|5|8)\.bias"


@pytest.fixture
def gans(paper):
    return paper("classic_gans")


@pytest.fixture
def room(gans):
    return gans.rooms.room("CycleGAN")


@pytest.fixture
def make(gans, tmp_path):
    """Function that makes a tiny trainer on random pictures."""

    def build(data=None, **flags):
        args = args_of(gans, "CycleGAN", tmp_path, **{**TINY, **flags})
        data = data or Pictures(size=args.crop_size)
        return gans.rooms.room("CycleGAN").Trainer(args, (data, data))

    return build


def test_gan_losses_by_hand(room):
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
        assert float(room.gan_loss(logits, real, mode)) == pytest.approx(value), (mode, real)
    assert float(room.distance(logits, -logits)) == 2.5


def test_the_penalty_against_differences(room):
    arch = room.Architecture(net_D="nlayers", d_nlayers=1, d_base_dims=2)
    import cyclegan.model

    D = in_float64(lambda: cyclegan.model.Discriminator(arch, 2))
    check_penalty(room.gradient_penalty, D, channels=2)


class TwinPool:
    """The authors' pool, one picture at a time, from the same draws."""

    def __init__(self, size):
        self.size = size
        self.images = []

    def query(self, fakes, rng):
        result = []
        for n in range(len(fakes)):
            image = fakes[n : n + 1].numpy()
            if len(self.images) < self.size:
                self.images.append(image)
                result.append(image)
            elif rng.random() < 0.5:
                place = rng.integers(self.size)
                result.append(self.images[place])
                self.images[place] = image
            else:
                result.append(image)
        return paddle.to_tensor(np.concatenate(result))


def mse(logits, real):
    return F.mse_loss(logits, paddle.full(logits.shape, float(real)))


@pytest.mark.parametrize("norm_type", ["instance_norm", "batch_norm"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_steps_against_a_twin(make, norm_type, batch_size):
    """Both G by one Adam on all losses; then both D by one Adam on half the sums for real pictures
    and for the fakes of before, through pools of three.
    """
    flags = {"norm_type": norm_type, "pool_size": 3, "lambda_A": 7, "lambda_B": 3}
    trainer = make(**flags)
    twin = make(**flags)
    G_A, G_B, D_A, D_B = twin.networks.values()
    optimizer_g = paddle.optimizer.Adam(
        2e-4, beta1=0.5, beta2=0.999, parameters=twin.update_G.parameters
    )
    optimizer_d = paddle.optimizer.Adam(
        2e-4, beta1=0.5, beta2=0.999, parameters=twin.update_D.parameters
    )
    pool_a = TwinPool(3)
    pool_b = TwinPool(3)
    for iteration in range(4):
        a, b = batch_of(trainer.data, batch_size * iteration, batch_size)
        logs = trainer.train_step(iteration, a, b)
        rng = twin._rng("step", iteration, 0)
        paddle.seed(int(rng.integers(2**31)))
        a = paddle.to_tensor(a)
        b = paddle.to_tensor(b)
        fake_b = G_A(a)
        cycle_a = G_B(fake_b)
        fake_a = G_B(b)
        cycle_b = G_A(fake_a)
        expected = {
            "idt_A": F.l1_loss(G_A(b), b) * 3 * 0.5,
            "idt_B": F.l1_loss(G_B(a), a) * 7 * 0.5,
            "G_A": mse(D_A(fake_b), True),
            "G_B": mse(D_B(fake_a), True),
            "cycle_A": F.l1_loss(cycle_a, a) * 7,
            "cycle_B": F.l1_loss(cycle_b, b) * 3,
        }
        expected["G"] = sum(expected.values())
        step(optimizer_g, expected["G"])
        old_b = pool_b.query(fake_b.detach(), rng)
        old_a = pool_a.query(fake_a.detach(), rng)
        expected["D_A"] = 0.5 * (mse(D_A(b), True) + mse(D_A(old_b), False))
        expected["D_B"] = 0.5 * (mse(D_B(a), True) + mse(D_B(old_a), False))
        step(optimizer_d, expected["D_A"] + expected["D_B"])
        assert logs.keys() == expected.keys()
        for name, value in expected.items():
            assert float(logs[name]) == pytest.approx(float(value), rel=1e-4), name
        assert all(value.stop_gradient and value.ndim == 0 for value in logs.values())
    for name, network in trainer.networks.items():
        idle = IDLE_G if name.startswith("generator") else IDLE_D
        idle = idle if norm_type == "instance_norm" else r"(?!)"
        assert_same(network, twin.networks[name], idle, atol=1e-5)


def test_what_each_d_sees_and_when_weights_move(make):
    """D_A judges pictures of B: the fake in G's step, then the real one, then the pooled fake, all
    of which G made before its update. No D moves in G's step, no G in D's.
    """
    trainer = make()
    passes = []
    for name in ("discriminator_A", "discriminator_B"):
        D = trainer.networks[name]
        record(D, passes, lambda inputs, name=name: (name[-1], inputs[0], states(trainer)))
    a, b = batch_of(trainer.data, 0, 2)
    start = states(trainer)
    trainer.train_step(0, a, b)
    (n0, fake_b, s0), (n1, fake_a, _), (n2, real_b, s2), (n3, old_b, _) = passes[:4]
    (n4, real_a, s4), (n5, old_a, s5) = passes[4:]
    assert [n0, n1, n2, n3, n4, n5] == ["A", "B", "A", "A", "B", "B"]
    assert np.array_equal(real_b, b) and np.array_equal(real_a, a)
    assert np.array_equal(fake_b, old_b) and np.array_equal(fake_a, old_a)
    assert not fake_b.stop_gradient and old_b.stop_gradient and old_a.stop_gradient
    end = states(trainer)
    for name in trainer.networks:
        generator = name.startswith("generator")
        assert not moved(start[name], s0[name])
        assert bool(moved(s0[name], s2[name])) == generator
        assert not moved(s2[name], s5[name]) and not moved(s2[name], s4[name])
        assert bool(moved(s5[name], end[name])) == (not generator)


def states(trainer):
    return {name: copy_of(network) for name, network in trainer.networks.items()}


def test_which_pictures_pass_g(make):
    """G_A: A, the fake of A, B for the identity; without lambda_identity that pass is spared."""
    for weight, number in ((0.5, 3), (0, 2)):
        trainer = make(lambda_identity=weight)
        passes = []
        record(trainer.G_A, passes, lambda inputs: inputs[0].numpy())
        a, b = batch_of(trainer.data, 0, 1)
        logs = trainer.train_step(0, a, b)
        assert len(passes) == number and np.array_equal(passes[0], a)
        assert weight == 0 or np.array_equal(passes[2], b)
        assert ("idt_A" in logs) == bool(weight)


def test_d_gradients_are_those_of_half_the_sum(make):
    trainer = make()
    twin = make()
    a, b = batch_of(trainer.data, 0, 1)
    with paddle.no_grad():
        fake_b = twin.G_A(paddle.to_tensor(a))
    trainer.train_step(0, a, b)
    loss = 0.5 * (mse(twin.D_A(paddle.to_tensor(b)), True) + mse(twin.D_A(fake_b), False))
    loss.backward()
    for ours, theirs in zip(trainer.D_A.parameters(), twin.D_A.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=1e-6)
    assert all(not p.stop_gradient for p in trainer.update_D.parameters)


def test_one_adam_for_both_generators_and_one_for_both_discriminators(make):
    trainer = make()
    for update, networks in (
        (trainer.update_G, (trainer.G_A, trainer.G_B)),
        (trainer.update_D, (trainer.D_A, trainer.D_B)),
    ):
        names = {p.name for p in update.optimizer._parameter_list}
        assert names == {p.name for network in networks for p in network.parameters()}
        assert (update.optimizer._beta1, update.optimizer._beta2) == (0.5, 0.999)
    make(n_const=1, n_decay=1).set_rates(0)


def test_rates(make):
    trainer = make(epoch=4)
    for epoch, share in {0: 1, 1: 1, 2: 2 / 3, 3: 1 / 3}.items():
        trainer.set_rates(epoch * trainer.per_epoch)
        for update in (trainer.update_G, trainer.update_D):
            assert update.optimizer.get_lr() == pytest.approx(2e-4 * share)


# ---- the pool ----


def numbered(*values):
    """Pictures (n, 1, 1, 1) of one number each."""
    return paddle.to_tensor(np.array(values, np.float32).reshape(-1, 1, 1, 1))


def test_a_pool_gives_back_what_is_new_until_it_is_full(room):
    pool = room.ImagePool(3)
    rng = np.random.default_rng(0)
    for values in ([1, 2], [3]):
        given = numbered(*values)
        assert np.array_equal(pool.query(given, rng), given)
    assert [image.item() for image in pool.images] == [1, 2, 3]


def test_a_full_pool_swaps_half_of_the_time_and_any_of_its_places(room):
    pool = room.ImagePool(4)
    rng = np.random.default_rng(0)
    pool.query(numbered(*range(4)), rng)
    stored = set(range(4))
    swaps = 0
    for value in range(4, 804):
        (given,) = pool.query(numbered(value), rng).numpy().ravel()
        if given != value:  # an old one, in whose place the new one is now
            swaps += 1
            assert given in stored
            stored = stored - {given} | {value}
        assert {image.item() for image in pool.images} == stored
    assert abs(swaps - 400) < 4 * math.sqrt(200)
    # After so many swaps none of the first is left in any place.
    assert min(stored) > 3


def test_a_pool_of_none_and_its_state(room):
    rng = np.random.default_rng(0)
    fakes = numbered(1, 2)
    assert room.ImagePool(0).query(fakes, rng) is fakes
    pool = room.ImagePool(3)
    fakes.stop_gradient = False
    pool.query(fakes, rng)
    assert all(image.stop_gradient for image in pool.images)
    other = room.ImagePool(3)
    other.load(pool.state())
    for _ in range(9):
        seeds = rng.integers(1000)
        results = []
        for each in (pool, other):
            draws = np.random.default_rng(seeds)
            results.append(each.query(numbered(int(seeds)), draws).numpy())
        assert np.array_equal(*results)


def test_pool_draws_depend_on_seed_and_iteration(make):
    trainer = make(pool_size=1)
    a, b = batch_of(trainer.data, 0, 1)
    choices = set()
    for iteration in range(12):
        trainer.pools["pool_B"].images = [paddle.zeros([3, 32, 32])]
        before = trainer.pools["pool_B"].images[0]
        trainer.train_step(iteration, a, b)
        choices.add(trainer.pools["pool_B"].images[0] is before)
    assert choices == {True, False}


# ---- showing, flags, checkpoints ----


def test_showing_leaves_everything_alone_and_repeats(make):
    for flags in ({}, {"norm_type": "batch_norm", "dropout": True}):
        trainer = make(**flags)
        before = states(trainer)
        sheet = trainer.sheet()
        assert np.array_equal(sheet, trainer.sheet())
        assert sheet.shape[1] == 2 + 8 * 34
        after = states(trainer)
        for name, state in before.items():
            assert all(np.array_equal(state[key], after[name][key]) for key in state)
        assert all(network.training for network in trainer.networks.values())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_value_of_every_flag_takes_a_step(make, batch_size):
    choices = {
        "net_G": ["resnet_9block", "unet_128"],
        "net_D": ["basic", "nlayers", "pixel"],
        "norm_type": ["batch_norm", "instance_norm"],
        "dropout": [True, False],
        "gan_mode": ["vanilla", "lsgan", "wgangp"],
        "pool_size": [0, 1],
        "lambda_identity": [0, 0.1],
        "lambda_A": [0],
    }
    for flag, values in choices.items():
        for value in values:
            flags = {"crop_size": 128} if value == "unet_128" else {}
            check_step(make(**{flag: value}, **flags), batch_size)
    for A, B in itertools.product([1, 3], repeat=2):
        weight = 0.5 if A == B else 0
        flags = {"input_nc": A, "output_nc": B, "lambda_identity": weight}
        trainer = make(Pictures(channels=(A, B)), **flags)
        check_step(trainer, batch_size)
        assert trainer.sheet().shape[1] == 2 + (8 if A == B else 6) * 34


def check_step(trainer, batch_size):
    before = states(trainer)
    logs = trainer.train_step(0, *batch_of(trainer.data, 0, batch_size))
    assert all(math.isfinite(float(value)) for value in logs.values())
    after = states(trainer)
    assert all(moved(before[name], after[name]) for name in before)


def test_identity_needs_domains_of_the_same_channels(make):
    with pytest.raises(UserError, match="--lambda_identity 0.5: needs domains of the same"):
        make(input_nc=1)


def test_what_a_checkpoint_must_agree_with(make):
    trainer = make()
    state = {"architecture": trainer.arch.to_dict(), "crop_size": 64}
    with pytest.raises(UserError, match="its pools hold pictures of 64 px"):
        trainer.check(state, "a.pdparams")
    state = {"architecture": trainer.arch.to_dict(), "generator_A": copy_of(trainer.G_A)}
    other = make(d_base_dims=4, seed=1)
    notes = other.start_from(state, "a.pdparams")
    assert len(notes) == 3 and "holds no generator_B" in notes[0]
    assert_same(other.G_A, trainer.G_A)
    state["discriminator_B"] = copy_of(trainer.D_B)
    with pytest.raises(UserError, match="d_base_dims 2 there, 4 here"):
        other.start_from(state, "a.pdparams")
