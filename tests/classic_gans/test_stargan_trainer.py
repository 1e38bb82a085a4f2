"""StarGAN's losses by hand, its gradient penalty against differences."""

import numpy as np
import pytest

from tests.classic_gans.networks import check_penalty_gradient, tensor

RNG = np.random.default_rng


@pytest.fixture
def trainer(paper):
    paper("classic_gans")
    import stargan.trainer

    return stargan.trainer


def test_classification_is_summed_over_attributes_and_averaged_over_the_batch(trainer):
    logits = RNG(0).standard_normal((4, 3))
    labels = RNG(1).integers(0, 2, (4, 3))
    p = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum() / 4
    loss = trainer.classification_loss(tensor(logits), tensor(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_classes_have_a_softmax(trainer):
    logits = RNG(0).standard_normal((4, 3))
    labels = np.eye(3)[[2, 0, 1, 1]]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log((p * labels).sum(1)).mean()
    loss = trainer.class_loss(tensor(logits), tensor(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_is_the_mean_absolute_difference(trainer):
    a, b = RNG(0).standard_normal((2, 2, 3, 4, 4))
    loss = trainer.reconstruction_loss(tensor(a), tensor(b))
    assert loss.item() == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def test_penalty_of_a_quadratic_critic(trainer):
    """D(x) = sum(x^2) / 2 has the gradient x: the norm is that of the point between."""
    real, fake = RNG(0).standard_normal((2, 3, 3, 4, 4))
    alpha = RNG(1).uniform(size=(3, 1, 1, 1))
    between = alpha * real + (1 - alpha) * fake
    expected = ((np.sqrt((between**2).sum((1, 2, 3))) - 1) ** 2).mean()

    def D(x):
        return (x.square() / 2).sum([2, 3]), None

    loss = trainer.gradient_penalty(D, tensor(real), tensor(fake), tensor(alpha))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_penalty_of_a_critic_without_gradient_is_finite(trainer):
    """The square root's derivative at 0 is infinite: 1e-16 keeps the weights' gradient a number."""
    weight = tensor(np.zeros((1, 3, 4, 4)))
    weight.stop_gradient = False
    x = tensor(np.ones((2, 3, 4, 4)))
    loss = trainer.gradient_penalty(
        lambda x: (x * weight, None), x, x, tensor(np.ones((2, 1, 1, 1)))
    )
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert np.isfinite(weight.grad.numpy()).all()


def test_gradient_of_the_penalty(trainer):
    import stargan.model

    arch = stargan.model.Architecture(
        image_size=16, c_dim=2, d_base_dims=2, d_repeat_num=2, g_base_dims=2
    )
    alpha = tensor(RNG(2).uniform(size=(2, 1, 1, 1)), "float64")
    real, fake = RNG(0).standard_normal((2, 2, 3, 16, 16))
    check_penalty_gradient(
        stargan.model.Discriminator(arch),
        lambda D, real, fake: trainer.gradient_penalty(D, real, fake, alpha),
        real,
        fake,
    )
