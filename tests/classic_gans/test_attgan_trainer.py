"""AttGAN's and STGAN's losses by hand, their gradient penalty against differences."""

import importlib

import numpy as np
import pytest

from tests.classic_gans.networks import check_penalty_gradient, tensor

RNG = np.random.default_rng


@pytest.fixture(params=["attgan", "stgan"])
def room(paper, request):
    """(model, trainer)"""
    paper("classic_gans")
    return [importlib.import_module(f"{request.param}.{name}") for name in ("model", "trainer")]


@pytest.fixture
def trainer(room):
    return room[1]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    "gan_mode, d, g",
    [
        ("wgan", lambda r, f: f - r, lambda f: -f),
        ("lsgan", lambda r, f: (r - 1) ** 2 + f**2, lambda f: (f - 1) ** 2),
        (
            "dcgan",
            lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)),
            lambda f: -np.log(sigmoid(f)),
        ),
    ],
)
def test_adversarial_losses(trainer, gan_mode, d, g):
    real, fake = RNG(0).standard_normal((2, 5, 1))
    loss = trainer.d_adversarial_loss(tensor(real), tensor(fake), gan_mode)
    assert loss.item() == pytest.approx(d(real, fake).mean(), rel=1e-5)
    loss = trainer.g_adversarial_loss(tensor(fake), gan_mode)
    assert loss.item() == pytest.approx(g(fake).mean(), rel=1e-5)


def test_classification_is_the_mean_over_all_entries(trainer):
    logits = RNG(0).standard_normal((4, 3))
    labels = RNG(1).integers(0, 2, (4, 3))
    p = sigmoid(logits)
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    loss = trainer.classification_loss(tensor(logits), tensor(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_is_the_mean_absolute_difference(trainer):
    a, b = RNG(0).standard_normal((2, 2, 3, 4, 4))
    loss = trainer.reconstruction_loss(tensor(a), tensor(b))
    assert loss.item() == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def test_penalty_of_a_quadratic_critic(trainer):
    """D(x) = sum(x^2) / 2 has the gradient x: the norm is that of the point between."""
    real, fake = RNG(0).standard_normal((2, 3, 3, 4, 4))
    alpha = RNG(1).uniform(size=(3, 1, 1, 1))
    between = real + alpha * (fake - real)
    expected = ((np.sqrt((between**2).sum((1, 2, 3))) - 1) ** 2).mean()

    def D(x):
        return (x.square() / 2).sum([1, 2, 3]), None

    loss = trainer.gradient_penalty(D, tensor(real), tensor(fake), tensor(alpha))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_penalty_of_a_critic_without_gradient_is_finite(trainer):
    weight = tensor(np.zeros((1, 3, 4, 4)))
    weight.stop_gradient = False
    x = tensor(np.ones((2, 3, 4, 4)))
    alpha = tensor(np.ones((2, 1, 1, 1)))
    loss = trainer.gradient_penalty(lambda x: (x * weight, None), x, x, alpha)
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert np.isfinite(weight.grad.numpy()).all()


def test_dragans_other_end_goes_by_the_deviation_of_the_whole_batch(trainer):
    real = RNG(0).standard_normal((2, 3, 4, 4)) * 3 + 1
    noise = RNG(1).uniform(size=real.shape)
    other = trainer.perturbed(tensor(real), tensor(noise))
    np.testing.assert_allclose(other.numpy(), real + 0.5 * real.std() * noise, rtol=1e-5)


@pytest.mark.parametrize("dis_norm", ["instance_norm", "none"])
@pytest.mark.parametrize("dragan", [False, True])
def test_gradient_of_the_penalty(room, dis_norm, dragan):
    model, trainer = room
    sizes = {"image_size": 16, "c_dim": 2, "d_base_dims": 2, "d_fc_dim": 4, "n_layers": 2}
    skips = {"shortcut_layers": 1, "inject_layers": 1}
    skips |= {"gru_n_layers": 1} if hasattr(model, "STU") else {}
    arch = model.Architecture(**sizes, **skips, dis_norm=dis_norm)
    alpha = tensor(RNG(2).uniform(size=(2, 1, 1, 1)), "float64")
    noise = tensor(RNG(3).uniform(size=(2, 3, 16, 16)), "float64")
    real, fake = RNG(0).standard_normal((2, 2, 3, 16, 16))

    def penalty(D, real, fake):
        other = trainer.perturbed(real, noise) if dragan else fake
        return trainer.gradient_penalty(D, real, other, alpha)

    check_penalty_gradient(model.Discriminator(arch), penalty, real, fake)
