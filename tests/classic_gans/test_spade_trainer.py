"""SPADE's losses by hand."""

import numpy as np
import pytest

from tests.classic_gans.networks import tensor

RNG = np.random.default_rng


@pytest.fixture
def trainer(paper):
    paper("classic_gans")
    import spade.trainer

    return spade.trainer


def outputs(seed, scales=2):
    """D's outputs of some layers and, last, logits that lie on both sides of the hinge."""
    rng = RNG(seed)
    shapes = [(3, 2, 6, 6), (3, 4, 4, 4), (3, 1, 5, 5)]
    return [[2 * rng.standard_normal(shape) for shape in shapes] for _ in range(scales)]


def tensors(outputs, stop_gradient=True):
    result = [[tensor(h) for h in scale] for scale in outputs]
    for scale in result:
        for h in scale:
            h.stop_gradient = stop_gradient
    return result


def test_hinge_losses_are_averaged_over_the_scales(trainer):
    values = outputs(0)
    for real, sign in ((True, 1), (False, -1)):
        expected = np.mean([np.maximum(0, 1 - sign * scale[-1]).mean() for scale in values])
        assert trainer.d_hinge_loss(tensors(values), real).item() == pytest.approx(
            expected, rel=1e-5
        )
    expected = -np.mean([scale[-1].mean() for scale in values])
    assert trainer.g_hinge_loss(tensors(values)).item() == pytest.approx(expected, rel=1e-5)


def test_feature_loss_sums_the_layers_without_the_logits(trainer):
    fake, real = outputs(0), outputs(1)
    expected = 0.0
    for s in range(2):
        for k in range(2):  # the third output is the logits
            expected += np.abs(fake[s][k] - real[s][k]).mean()
    fakes, reals = tensors(fake, False), tensors(real, False)
    loss = trainer.feature_loss(fakes, reals)
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)
    loss.backward()
    assert fakes[1][0].grad is not None and reals[1][0].grad is None


def test_vgg_loss_weighs_by_depth(trainer):
    fake, real = outputs(0, scales=2)[0] + outputs(2)[0][:2], outputs(1)[0] + outputs(3)[0][:2]
    weights = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1]
    expected = sum(weights[k] * np.abs(fake[k] - real[k]).mean() for k in range(5))
    (fakes,), (reals,) = tensors([fake], False), tensors([real], False)
    loss = trainer.vgg_loss(fakes, reals)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert fakes[0].grad is not None and reals[0].grad is None


def test_kl_loss_is_summed(trainer):
    mu, logvar = RNG(0).standard_normal((2, 3, 4))
    expected = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum()
    assert trainer.kl_loss(tensor(mu), tensor(logvar)).item() == pytest.approx(expected, rel=1e-5)


def test_split_gives_fakes_first(trainer):
    values = outputs(0)
    fake, real = trainer.split(tensors(values), 1)
    for s in range(2):
        for k in range(3):
            np.testing.assert_array_equal(fake[s][k].numpy(), values[s][k][:1].astype("float32"))
            np.testing.assert_array_equal(real[s][k].numpy(), values[s][k][1:].astype("float32"))
