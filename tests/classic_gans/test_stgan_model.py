"""STGAN's networks: the tables' sizes, the selective transfer unit in numpy, initial values."""

import numpy as np
import paddle
import pytest

from shared_metrics.errors import UserError
from tests.classic_gans.networks import arrays, check_uniform, conv, deconv, randomize, size, tensor


@pytest.fixture
def model(paper):
    paper("classic_gans")
    import stgan.model

    return stgan.model


def tiny(model, **changes):
    sizes = {"image_size": 16, "c_dim": 3, "g_base_dims": 4, "d_base_dims": 4, "d_fc_dim": 6}
    skips = {"n_layers": 3, "shortcut_layers": 2, "inject_layers": 2, "gru_n_layers": 2}
    return model.Architecture(**(sizes | skips | changes))


def test_parameters(model):
    arch = model.Architecture()
    with paddle.LazyGuard():
        G = model.Generator(arch)
        assert size(G.enc_layers) == 11_148_160
        assert size(G.stu) == 30_145_280
        assert size(G.dec_layers) == 33_705_331
        assert size(G) == 74_998_771
        assert size(model.Discriminator(arch)) == 44_718_990


def test_rows_are_the_tables(model):
    arch = model.Architecture()
    assert arch.unit_rows() == [(1037, 512), (525, 256), (269, 128), (141, 64)]
    assert arch.decoder_rows() == [(1037, 1024), (1549, 512), (781, 256), (397, 128), (205, 3)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("pass_state", ["stu", "gru", "direct"])
def test_unit_by_hand(model, pass_state):
    unit = randomize(model.STU(5, 3, pass_state))
    W = arrays(unit)
    rng = np.random.default_rng(1)
    f = rng.standard_normal((2, 3, 6, 8))
    state = rng.standard_normal((2, 5, 3, 4))

    def gate(name, x):
        return conv(x, W[f"{name}.weight"], W[f"{name}.bias"], padding=1)

    s_hat = deconv(state, W["deconv2d.weight"], W["deconv2d.bias"])
    both = np.concatenate([f, s_hat], 1)
    r = sigmoid(gate("reset_gate", both))
    u = sigmoid(gate("update_gate", both))
    s = r * s_hat
    n = np.tanh(gate("info", np.concatenate([f, s], 1)))
    output = (1 - u) * s_hat + u * n
    found = unit(tensor(f), tensor(state))
    np.testing.assert_allclose(found[0].numpy(), output, atol=1e-5)
    passed = {"stu": s, "gru": output, "direct": s_hat}[pass_state]
    np.testing.assert_allclose(found[1].numpy(), passed, atol=1e-5)


def test_units_stand_in_the_skips_from_the_deepest_on(model):
    """Each gets the encoder's features of its side and the deeper unit's state with the difference;
    the deepest features themselves are not touched.
    """
    G = randomize(model.Generator(tiny(model)))
    G.eval()
    x = tensor(np.random.default_rng(0).uniform(-1, 1, (2, 3, 16, 16)))
    diff = tensor([[1, 0, -1], [0, 0, 1]])
    z = G.encode(x)
    t = G.transfer(z, diff)
    assert t[2] is z[2]
    first, state = G.stu[0](z[1], model.with_attributes(z[2], diff))
    np.testing.assert_array_equal(t[1].numpy(), first.numpy())
    second, _ = G.stu[1](z[0], model.with_attributes(state, diff))
    np.testing.assert_array_equal(t[0].numpy(), second.numpy())
    image = G(x, diff)
    np.testing.assert_array_equal(image.numpy(), G.decode(t, diff).numpy())
    assert image.shape == [2, 3, 16, 16]


def test_without_units_it_is_attgan_with_as_many_skips(model):
    import attgan.model

    arch = tiny(model, use_gru=False, bn_eps=1e-5, bn_momentum=0.9)
    same = {"image_size": 16, "c_dim": 3, "g_base_dims": 4, "n_layers": 3}
    other = attgan.model.Architecture(**same, shortcut_layers=2, inject_layers=2)
    G = randomize(model.Generator(arch))
    A = attgan.model.Generator(other)
    assert arrays(A).keys() == arrays(G).keys()
    A.set_state_dict(G.state_dict())
    x = tensor(np.random.default_rng(0).uniform(-1, 1, (2, 3, 16, 16)))
    diff = tensor([[1, 0, -1], [0, 0, 1]])
    np.testing.assert_allclose(G(x, diff).numpy(), A(x, diff).numpy(), atol=1e-6)


def test_batch_norm_is_slims(model):
    """eps 1e-3, and 0.999 of the running statistics are kept."""
    norm = model.Generator(tiny(model)).enc_layers[0].layers[1]
    x = np.random.default_rng(0).standard_normal((4, 4, 3, 3)) * 0.05
    y = norm(tensor(x)).numpy()
    mean = x.mean((0, 2, 3), keepdims=True)
    var = x.var((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-3), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm._variance.numpy(), 0.999 + 0.001 * var.ravel(), rtol=1e-6)


def test_shapes_and_slopes_of_the_discriminator(model):
    D = model.Discriminator(tiny(model))
    real, logits = D(paddle.zeros([2, 3, 16, 16]))
    assert real.shape == [2, 1] and logits.shape == [2, 3]
    for activation in (D.conv[0].layers[2], D.fc_cls[0].layers[1]):
        assert activation(tensor([-1.0, 2.0])).tolist() == pytest.approx([-0.2, 2])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": 20}, "--image_size 20: 3 layers"),
        ({"image_size": 8}, "--image_size 8: 3 layers .* from 16 on"),
        ({"shortcut_layers": 3}, "--shortcut_layers 3: 3 layers allow 0 to 2"),
        ({"gru_n_layers": 3}, "--gru_n_layers 3: must lie between 1 and .*, 2"),
        ({"gru_n_layers": 0}, "--gru_n_layers 0"),
    ],
)
def test_impossible_sizes_are_refused(model, changes, message):
    with pytest.raises(UserError, match=message):
        tiny(model, **changes)


def test_initial_values_are_xavier_uniform(model):
    """TensorFlow slim's, with biases of 0; Paddle's convolutions would be normal."""
    paddle.seed(0)
    arch = tiny(model, g_base_dims=16, d_base_dims=16, d_fc_dim=64)
    for network in (model.Generator(arch), model.Discriminator(arch)):
        for layer in network.sublayers():
            weight = getattr(layer, "weight", None)
            if weight is None:
                continue
            if isinstance(layer, paddle.nn.BatchNorm2D):
                assert (weight.numpy() == 1).all()
            else:
                fans = sum(weight.shape[:2]) * np.prod(weight.shape[2:])
                check_uniform(weight.numpy(), (6 / fans) ** 0.5)
            if layer.bias is not None:
                assert not layer.bias.numpy().any()
