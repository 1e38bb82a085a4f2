"""DCGAN's networks: sizes of the tables and of PyTorch's example, numbers in numpy."""

import numpy as np
import paddle
import pytest

from tests.classic_gans import layers


@pytest.fixture
def model(paper):
    paper("classic_gans")
    import dcgan.model

    return dcgan.model


@pytest.mark.parametrize(
    "changes, G, D",
    [
        ({}, 13_487_745, 2_308_097),
        # PyTorch's example: widths 512 to 64 in G, 64 to 512 in D
        (
            {"form": "paper", "image_size": 64, "channels": 3, "g_base_dims": 32},
            3_576_704,
            2_765_568,
        ),
    ],
)
def test_parameters(model, changes, G, D):
    generator, discriminator = model.networks(model.Architecture(**changes))
    assert layers.trainable(generator) == G
    assert layers.trainable(discriminator) == D


@pytest.mark.parametrize(
    "form, size, channels",
    [("digits", 28, 1), ("digits", 32, 3), ("paper", 32, 1), ("paper", 64, 3), ("paper", 128, 3)],
)
def test_sizes(model, form, size, channels):
    arch = model.Architecture(form, size, channels, g_base_dims=2, d_base_dims=2)
    G, D = model.networks(arch)
    images = G(paddle.randn([2, 100]))
    assert images.shape == [2, channels, size, size]
    assert D(images).shape == [2]


def test_the_paper_begins_with_1024_channels_and_halves_them(model):
    G, _ = model.networks(model.Architecture("paper", 64, 3))
    widths = [v.shape[1] for v in G.state_dict().values() if v.ndim == 4]
    assert widths == [1024, 512, 256, 128, 3]


@pytest.mark.parametrize("form, size", [("digits", 28), ("paper", 32)])
def test_initialisation(model, form, size):
    layers.check_initialisation(*model.networks(model.Architecture(form, size)))


def test_digit_generator_in_numpy(model):
    arch = model.Architecture(image_size=8, noise_size=5, g_base_dims=2)
    G = model.DigitGenerator(arch)
    state = layers.state_of(G)
    z = np.random.default_rng(1).uniform(-1, 1, [4, 5])
    h = layers.batch_norm(z @ state["l1.weight"] + state["l1.bias"], state, "l1_norm")
    h = np.maximum(h, 0)
    h = layers.batch_norm(h @ state["l2.weight"] + state["l2.bias"], state, "l2_norm")
    h = np.maximum(h, 0).reshape(4, 4, 2, 2)
    h = layers.deconv(h, state["dc1.weight"], state["dc1.bias"], 2, 2, 1)
    h = layers.deconv(np.maximum(h, 0), state["dc2.weight"], state["dc2.bias"], 2, 2, 1)
    images = G(paddle.to_tensor(z, "float32"))
    np.testing.assert_allclose(images.numpy(), np.tanh(h), atol=1e-4)


def test_digit_discriminator_in_numpy(model):
    """Slope 0.02 in the convolutions, 0.2 after; the second pools before BatchNorm."""
    arch = model.Architecture(image_size=20, d_base_dims=2)
    _, D = model.networks(arch)
    state = layers.state_of(D)
    x = np.random.default_rng(1).uniform(-1, 1, [4, 1, 20, 20])
    h = layers.leaky_relu(layers.conv(x, state["c1.weight"], state["c1.bias"]), 0.02)
    h = layers.conv(layers.max_pool(h), state["c2.weight"], state["c2.bias"])
    h = layers.leaky_relu(layers.batch_norm(layers.max_pool(h), state, "c2_bn"), 0.02)
    h = h.reshape(4, -1) @ state["l1.weight"] + state["l1.bias"]
    h = layers.leaky_relu(layers.batch_norm(h, state, "l1_norm"), 0.2)
    h = (h @ state["l2.weight"] + state["l2.bias"])[:, 0]
    np.testing.assert_allclose(D(paddle.to_tensor(x, "float32")).numpy(), h, atol=1e-4)
