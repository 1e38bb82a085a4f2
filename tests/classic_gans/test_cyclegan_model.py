"""CycleGAN's networks: sizes of the paper's tables, who judges whom, independence of the batch."""

import numpy as np
import paddle
import pytest

from tests.classic_gans import layers


@pytest.fixture
def model(paper):
    paper("classic_gans")
    import cyclegan.model

    return cyclegan.model


@pytest.mark.parametrize(
    "changes, numbers",
    [
        ({}, 11_378_179),
        ({"net_G": "resnet_6block"}, 7_837_699),
        ({"norm_type": "batch_norm"}, 11_383_427),
        ({"net_G": "resnet_6block", "norm_type": "batch_norm"}, 7_841_411),
        ({"norm_type": "batch_norm", "legacy": True, "g_base_dims": 32}, 2_853_187),
    ],
)
def test_parameters_of_the_generators(model, changes, numbers):
    assert layers.trainable(model.Generator(model.Architecture(**changes), 3, 3)) == numbers


@pytest.mark.parametrize(
    "norm_type, numbers", [("instance_norm", 2_764_737), ("batch_norm", 2_765_633)]
)
def test_parameters_of_the_discriminators(model, norm_type, numbers):
    arch = model.Architecture(norm_type=norm_type)
    assert layers.trainable(model.Discriminator(arch, 3)) == numbers


def tiny(model, **changes):
    return model.Architecture(**{"g_base_dims": 2, "d_base_dims": 2, **changes})


def test_the_four_networks_fit_their_domains(model):
    """Domain A is grey, domain B has three channels."""
    four = model.networks(tiny(model, net_G="resnet_6block", input_nc=1, output_nc=3))
    a = paddle.zeros([1, 1, 32, 36])
    b = paddle.zeros([1, 3, 32, 36])
    assert four["generator_A"](a).shape == b.shape and four["generator_B"](b).shape == a.shape
    assert four["discriminator_A"](b).shape == four["discriminator_B"](a).shape == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "net_G, side", [("unet_128", 128), ("unet_256", 256), ("resnet_9block", 12)]
)
def test_generators_keep_the_size(model, net_G, side):
    arch = tiny(model, net_G=net_G)
    picture = paddle.zeros([1, 3, side, side])
    assert model.Generator(arch, 3, 3)(picture).shape == picture.shape
    assert side % arch.multiple == 0


def test_initialisation(model):
    four = model.networks(model.Architecture(g_base_dims=32))
    layers.check_initialisation(*four.values())
    four = model.networks(model.Architecture(norm_type="batch_norm", net_G="resnet_6block"))
    layers.check_initialisation(*four.values())


def test_a_picture_does_not_depend_on_its_batch(model):
    G = model.Generator(tiny(model, net_G="resnet_6block"), 3, 3)
    pictures = paddle.randn([3, 3, 16, 16])
    assert (G(pictures)[:1] - G(pictures[:1])).abs().max() < 1e-5


def test_dropout_is_an_option(model):
    pictures = paddle.randn([1, 3, 16, 16])
    G = model.Generator(tiny(model, net_G="resnet_6block", dropout=True), 3, 3)
    assert (G(pictures) - G(pictures)).abs().max() > 1e-4
    assert "model.10.conv_block.6.weight" in G.state_dict()


def test_resnet_with_instance_norm_in_numpy(model):
    G = model.Generator(tiny(model, net_G="resnet_6block"), 3, 3)
    state = layers.state_of(G)
    x = np.random.default_rng(1).standard_normal([2, 3, 8, 8])

    def row(h, name, kernel, *shape):
        h = kernel(h, state[f"{name}.weight"], state[f"{name}.bias"], *shape)
        return layers.normalise(h, (2, 3))

    h = np.maximum(row(layers.reflect(x, 3), "model.1", layers.conv), 0)
    h = np.maximum(row(h, "model.4", layers.conv, 2, 1), 0)
    h = np.maximum(row(h, "model.7", layers.conv, 2, 1), 0)
    for i in range(10, 16):
        y = np.maximum(row(layers.reflect(h, 1), f"model.{i}.conv_block.1", layers.conv), 0)
        h = h + row(layers.reflect(y, 1), f"model.{i}.conv_block.5", layers.conv)
    h = np.maximum(row(h, "model.16", layers.deconv, 2, 1, 1), 0)
    h = np.maximum(row(h, "model.19", layers.deconv, 2, 1, 1), 0)
    h = layers.conv(layers.reflect(h, 3), state["model.23.weight"], state["model.23.bias"])
    np.testing.assert_allclose(G(paddle.to_tensor(x, "float32")).numpy(), np.tanh(h), atol=1e-4)


def test_patch_gan_in_numpy(model):
    D = model.Discriminator(tiny(model, norm_type="batch_norm"), 3)
    state = layers.state_of(D)
    x = np.random.default_rng(1).standard_normal([2, 3, 32, 32])
    h = layers.conv(x, state["model.0.weight"], state["model.0.bias"], 2, 1)
    h = layers.leaky_relu(h, 0.2)
    for index, stride in ((2, 2), (5, 2), (8, 1)):
        h = layers.conv(h, state[f"model.{index}.weight"], None, stride, 1)
        h = layers.leaky_relu(layers.batch_norm(h, state, f"model.{index + 1}"), 0.2)
    h = layers.conv(h, state["model.11.weight"], state["model.11.bias"], 1, 1)
    assert h.shape == (2, 1, 2, 2)
    np.testing.assert_allclose(D(paddle.to_tensor(x, "float32")).numpy(), h, atol=1e-4)
