"""CGAN's networks: sizes of the specification's table, the class in every layer, the old form."""

import numpy as np
import paddle
import pytest

from tests.classic_gans import layers

LABELS = paddle.to_tensor([3, 0, 9, 3])


@pytest.fixture
def model(paper):
    paper("classic_gans")
    import cgan.model

    return cgan.model


# The one-hot of ten classes has 9 numbers more than PaddleCV's scalar in each layer, and G's last
# layer takes the class too.
@pytest.mark.parametrize(
    "legacy, G, D",
    [
        (True, 6_820_608, 2_403_138),
        (
            False,
            6_820_624 + 9 * (1024 + 6272 + 128 * 16 + 16),
            2_403_138 + 9 * (64 * 9 + 64 * 9 + 1024 + 1),
        ),
    ],
)
def test_parameters(model, legacy, G, D):
    arch = model.Architecture(legacy=legacy)
    assert layers.trainable(model.Generator(arch)) == G
    assert layers.trainable(model.Discriminator(arch)) == D


@pytest.mark.parametrize("size, channels, classes", [(28, 1, 10), (32, 3, 4), (64, 1, 2)])
def test_sizes(model, size, channels, classes):
    arch = model.Architecture(size, channels, classes, g_base_dims=4, d_base_dims=4)
    labels = paddle.to_tensor([0, classes - 1])
    images = model.Generator(arch)(paddle.randn([2, 100]), labels)
    assert images.shape == [2, channels, size, size]
    assert model.Discriminator(arch)(images, labels).shape == [2]


def test_initialisation(model):
    arch = model.Architecture()
    layers.check_initialisation(model.Generator(arch), model.Discriminator(arch))


def test_condition_planes(model):
    x = paddle.arange(8, dtype="float32").reshape([2, 1, 2, 2])
    joined = model.with_planes(x, paddle.to_tensor([[0.0, 1.0], [5.0, 7.0]]))
    assert joined.tolist() == [
        [[[0, 1], [2, 3]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]],
        [[[4, 5], [6, 7]], [[5, 5], [5, 5]], [[7, 7], [7, 7]]],
    ]


@pytest.mark.parametrize("legacy", [False, True])
def test_generator_in_numpy(model, legacy):
    arch = model.Architecture(8, 1, 10, 5, g_base_dims=3, legacy=legacy)
    G = model.Generator(arch)
    state = layers.state_of(G)
    z = np.random.default_rng(1).uniform(-1, 1, [4, 5])
    y = LABELS.numpy()[:, None] if legacy else np.eye(10)[LABELS.numpy()]
    planes = np.tile(y[:, :, None, None], (1, 1, 4, 4))

    h = np.concatenate([z, y], 1) @ state["l1.weight"] + state["l1.bias"]
    h = np.maximum(layers.batch_norm(h, state, "l1_norm"), 0)
    h = np.concatenate([h, y], 1) @ state["l2.weight"] + state["l2.bias"]
    h = np.maximum(layers.batch_norm(h, state, "l2_norm"), 0).reshape(4, 3, 2, 2)
    h = np.concatenate([h, planes[:, :, :2, :2]], 1)
    h = layers.deconv(h, state["dc1.weight"], None, 2, 1)
    h = np.maximum(layers.batch_norm(h, state, "dc1_norm"), 0)
    h = h if legacy else np.concatenate([h, planes], 1)
    h = np.tanh(layers.deconv(h, state["dc2.weight"], None, 2, 1))
    images = G(paddle.to_tensor(z, "float32"), LABELS)
    np.testing.assert_allclose(images.numpy(), h, atol=1e-4)


@pytest.mark.parametrize("legacy", [False, True])
def test_discriminator_in_numpy(model, legacy):
    arch = model.Architecture(12, 2, 10, d_base_dims=3, legacy=legacy)
    D = model.Discriminator(arch)
    state = layers.state_of(D)
    x = np.random.default_rng(1).uniform(-1, 1, [4, 2, 12, 12])
    y = LABELS.numpy()[:, None] if legacy else np.eye(10)[LABELS.numpy()]
    planes = np.tile(y[:, :, None, None], (1, 1, 12, 12))

    h = layers.conv(np.concatenate([x, planes], 1), state["l1.weight"], None, 2)  # 12 -> 5
    h = np.concatenate([layers.leaky_relu(h, 0.2), planes[:, :, :5, :5]], 1)
    h = layers.conv(h, state["l2.weight"], None, 2)  # 5 -> 2
    h = layers.leaky_relu(layers.batch_norm(h, state, "l2_norm"), 0.2).reshape(4, -1)
    h = np.concatenate([h, y], 1) @ state["l3.weight"] + state["l3.bias"]
    h = layers.leaky_relu(layers.batch_norm(h, state, "l3_norm"), 0.2)
    h = (np.concatenate([h, y], 1) @ state["l4.weight"] + state["l4.bias"])[:, 0]
    h = 1 / (1 + np.exp(-h)) if legacy else h
    logits = D(paddle.to_tensor(x, "float32"), LABELS)
    np.testing.assert_allclose(logits.numpy(), h, atol=1e-4)
