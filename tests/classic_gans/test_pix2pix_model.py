"""Pix2Pix's networks: sizes of the paper's tables, the authors' numbers, dropout, the old form."""

import numpy as np
import paddle
import pytest

from shared_metrics import weights
from tests.classic_gans import layers
from tests.conftest import shared_dir


@pytest.fixture
def model(paper):
    paper("classic_gans")
    import pix2pix.model

    return pix2pix.model


@pytest.mark.parametrize(
    "changes, numbers",
    [
        ({"net_G": "unet_256"}, 54_413_955),
        ({"net_G": "unet_256", "legacy": True}, 54_413_952),
        ({"net_G": "unet_128"}, 41_828_995),
        ({"net_G": "resnet_9block"}, 11_383_427),
        ({"net_G": "resnet_6block"}, 7_841_411),
        ({"net_G": "unet_256", "norm_type": "instance_norm"}, 54_409_603),
    ],
)
def test_parameters_of_the_generators(model, changes, numbers):
    assert layers.trainable(model.Generator(model.Architecture(**changes))) == numbers


@pytest.mark.parametrize("net_D, numbers", [("basic", 2_768_705), ("pixel", 9_024)])
def test_parameters_of_the_discriminators(model, net_D, numbers):
    assert layers.trainable(model.Discriminator(model.Architecture(net_D=net_D))) == numbers


def tiny(model, **changes):
    return model.Architecture(**{"g_base_dims": 2, "d_base_dims": 2, **changes})


@pytest.mark.parametrize(
    "net_G, side", [("unet_256", 256), ("unet_128", 128), ("resnet_6block", 8)]
)
def test_generators_keep_the_size(model, net_G, side):
    arch = tiny(model, net_G=net_G, input_nc=1)
    picture = paddle.zeros([1, 1, side, 2 * side])
    assert model.Generator(arch)(picture).shape == [1, 3, side, 2 * side]
    assert side % arch.multiple == 0


@pytest.mark.parametrize(
    "net_D, layers_of_stride_2, side",
    # each stride-2 layer halves, the last two take one pixel each
    [("basic", 3, 30), ("nlayers", 1, 126), ("nlayers", 5, 6), ("pixel", 3, 256)],
)
def test_patches_of_the_discriminators(model, net_D, layers_of_stride_2, side):
    arch = tiny(model, net_D=net_D, d_nlayers=layers_of_stride_2)
    assert model.Discriminator(arch)(paddle.zeros([1, 6, 256, 256])).shape == [1, 1, side, side]


def test_width_of_many_layers_is_capped(model):
    D = model.Discriminator(tiny(model, net_D="nlayers", d_nlayers=5))
    widths = [v.shape[0] for k, v in D.state_dict().items() if v.ndim == 4]
    assert widths == [2, 4, 8, 16, 16, 16, 1]


def test_initialisation(model):
    arch = model.Architecture(net_G="resnet_9block")
    layers.check_initialisation(model.Generator(arch), model.Discriminator(arch))
    arch = model.Architecture(net_G="unet_128", g_base_dims=32, norm_type="instance_norm")
    layers.check_initialisation(model.Generator(arch), model.Discriminator(arch))


def test_dropout_is_active_in_training_only(model):
    for net_G in ("unet_128", "resnet_6block"):
        paddle.seed(0)
        picture = paddle.randn([1, 3, 128, 128])
        G = model.Generator(tiny(model, net_G=net_G))
        assert (G(picture) - G(picture)).abs().max() > 1e-4
        G.eval()
        assert (G(picture) - G(picture)).abs().max() == 0
        without = model.Generator(tiny(model, net_G=net_G, dropout=False))
        assert (without(picture) - without(picture)).abs().max() == 0


def test_dropout_stands_where_the_authors_have_it(model):
    """In the levels with 512 channels on both sides but the innermost; in each residual block."""
    level = "model.model.1.model" + ".3.model" * 3  # 5
    for net_G, places in (
        ("unet_128", [f"{level}.7", f"{level}.3.model.7"]),
        ("unet_256", [f"{level}.7", f"{level}.3.model.7", f"{level}.3.model.3.model.7"]),
        ("resnet_6block", [f"model.{i}.conv_block.4" for i in range(10, 16)]),
    ):
        G = model.Generator(tiny(model, net_G=net_G))
        dropout = [n for n, m in G.named_sublayers() if isinstance(m, paddle.nn.Dropout)]
        assert sorted(dropout) == sorted(places)


@pytest.mark.parametrize("legacy", [False, True])
def test_resnet_in_numpy(model, legacy):
    G = model.Generator(tiny(model, net_G="resnet_6block", dropout=False, legacy=legacy))
    assert {f"model.{i}.conv_block.{j}.weight" for i in range(10, 16) for j in (1, 2, 5, 6)} < set(
        G.state_dict()
    )
    state = layers.state_of(G)
    x = np.random.default_rng(1).standard_normal([2, 3, 8, 8])

    def row(h, index, norm):
        return np.maximum(layers.batch_norm(h, state, f"model.{norm}"), 0)

    h = row(layers.conv(layers.reflect(x, 3), state["model.1.weight"]), 1, 2)
    h = row(layers.conv(h, state["model.4.weight"], None, 2, 1), 4, 5)
    h = row(layers.conv(h, state["model.7.weight"], None, 2, 1), 7, 8)
    for i in range(10, 16):
        block = f"model.{i}.conv_block"
        y = layers.conv(layers.reflect(h, 1), state[f"{block}.1.weight"])
        y = np.maximum(layers.batch_norm(y, state, f"{block}.2"), 0)
        y = layers.conv(layers.reflect(y, 1), state[f"{block}.5.weight"])
        h = h + layers.batch_norm(y, state, f"{block}.6")
    for i in (16, 19):
        if legacy:
            h = layers.deconv(h, state[f"model.{i}.weight"], None, 2, 1)
            h = np.pad(h, ((0, 0), (0, 0), (0, 1), (0, 1)))
            assert not h[:, :, -1].any() and not h[:, :, :, -1].any()
        else:
            h = layers.deconv(h, state[f"model.{i}.weight"], None, 2, 1, 1)
        h = row(h, i, i + 1)
    h = layers.conv(layers.reflect(h, 3), state["model.23.weight"], state["model.23.bias"])
    np.testing.assert_allclose(G(paddle.to_tensor(x, "float32")).numpy(), np.tanh(h), atol=1e-4)


def test_instance_norm_has_no_state_and_biases_before_it(model):
    arch = tiny(model, net_G="resnet_6block", norm_type="instance_norm", dropout=False)
    G = model.Generator(arch)
    assert [tuple(v.shape) for k, v in G.state_dict().items() if k.startswith("model.1.")] == [
        (2, 3, 7, 7),
        (2,),
    ]
    assert not any(k.startswith(("model.2.", "model.10.conv_block.2.")) for k in G.state_dict())
    picture = paddle.randn([2, 3, 8, 8])
    alone = G(picture[:1])
    assert (G(picture)[:1] - alone).abs().max() < 1e-5, "a picture depends on its batch"


def test_old_form_keeps_batch_norm_in_the_blocks(model):
    """PaddleCV did not hand norm_type on to its residual blocks; its InstanceNorm is affine."""
    arch = tiny(model, net_G="resnet_6block", norm_type="instance_norm", legacy=True, dropout=False)
    keys = set(model.Generator(arch).state_dict())
    assert {"model.2.scale", "model.2.bias", "model.10.conv_block.2._mean"} < keys
    assert "model.10.conv_block.1.bias" in keys and "model.1.bias" not in keys


def authors_state(name):
    """The weights of the authors' own layout under Paddle's names for running statistics."""
    state = weights.load(shared_dir("parity/pix2pix_junyanz") / f"latest_net_{name}.pth")
    return {
        key.replace("running_mean", "_mean").replace("running_var", "_variance"): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def test_parity_with_the_authors_code(model):
    cases = np.load(shared_dir("parity/pix2pix_junyanz") / "cases.npz")
    # The reference was made with the dropout's probability at 0.
    arch = model.Architecture("unet_128", g_base_dims=8, d_base_dims=8, dropout=False)
    A = paddle.to_tensor(cases["in/A"])
    B = paddle.to_tensor(cases["in/B"])
    real = paddle.concat([A, B], axis=1)
    swapped = paddle.concat([B, A], axis=1)
    for mode in ("eval", "train"):
        for case, name, network, x in (
            ("G_fake_B", "G", model.Generator, A),
            ("G_fake_B_first_alone", "G", model.Generator, A[:1]),
            ("D_real", "D", model.Discriminator, real),
            ("D_swapped", "D", model.Discriminator, swapped),
        ):
            if f"{mode}/{case}" not in cases:
                continue
            network = network(arch)
            weights.load_into(network, authors_state(name), name, "the authors' file")
            getattr(network, mode)()
            drawn = network(x).numpy()
            np.testing.assert_allclose(drawn, cases[f"{mode}/{case}"], atol=1e-4)
