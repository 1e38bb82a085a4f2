"""AttGAN's networks: the tables' sizes, initial values, elvisyjlin's numbers."""

import numpy as np
import paddle
import pytest

from shared_metrics.errors import UserError
from tests.classic_gans.networks import arrays, check_uniform, randomize, size, tensor
from tests.conftest import shared_dir


@pytest.fixture
def model(paper):
    paper("classic_gans")
    import attgan.model

    return attgan.model


def tiny(model, **changes):
    sizes = {"image_size": 16, "c_dim": 3, "g_base_dims": 4, "d_base_dims": 4, "d_fc_dim": 6}
    return model.Architecture(**(sizes | {"n_layers": 3} | changes))


@pytest.mark.parametrize(
    "changes, g", [({}, 43_459_203), ({"inject_layers": 0}, 43_352_707)], ids=["inject 1", "0"]
)
def test_parameters(model, changes, g):
    arch = model.Architecture(**changes)
    with paddle.LazyGuard():
        assert size(model.Generator(arch)) == g
        assert size(model.Discriminator(arch)) == 44_718_990


def test_decoder_rows_are_the_tables(model):
    assert model.Architecture().decoder_rows() == [
        (1037, 1024),
        (1549, 512),
        (512, 256),
        (256, 128),
        (128, 3),
    ]
    rows = model.Architecture(shortcut_layers=4, inject_layers=4).decoder_rows()
    assert [i for i, _ in rows] == [1037, 1549, 781, 397, 205]
    assert model.Architecture(n_layers=6, image_size=256).g_widths[-2:] == [1024, 1024]


def test_keys_are_the_published_ones(model):
    G = set()
    for part in ("enc", "dec"):
        for i in range(3):
            G.add(f"{part}_layers.{i}.layers.0.weight")
            if (part, i) != ("dec", 2):
                G |= {
                    f"{part}_layers.{i}.layers.1.{leaf}"
                    for leaf in ("weight", "bias", "_mean", "_variance")
                }
    assert arrays(model.Generator(tiny(model))).keys() == G | {"dec_layers.2.layers.0.bias"}
    heads = {
        f"fc_{head}.{i}.layers.0.{leaf}"
        for head in ("adv", "cls")
        for i in (0, 1)
        for leaf in ("weight", "bias")
    }
    trunk = {f"conv.{i}.layers.0.weight" for i in range(3)}
    normed = {f"conv.{i}.layers.1.{leaf}" for i in range(3) for leaf in ("scale", "bias")}
    assert arrays(model.Discriminator(tiny(model))).keys() == heads | trunk | normed
    plain = {f"conv.{i}.layers.0.bias" for i in range(3)}
    D = model.Discriminator(tiny(model, dis_norm="none"))
    assert arrays(D).keys() == heads | trunk | plain


@pytest.mark.parametrize("shortcut_layers, inject_layers", [(0, 0), (1, 1), (2, 0), (1, 2)])
def test_shapes_and_range(model, shortcut_layers, inject_layers):
    arch = tiny(model, shortcut_layers=shortcut_layers, inject_layers=inject_layers)
    x = tensor(np.random.default_rng(0).uniform(-1, 1, (2, 3, 16, 16)))
    G = randomize(model.Generator(arch))
    features = G.encode(x)
    assert [z.shape for z in features] == [[2, 4, 8, 8], [2, 8, 4, 4], [2, 16, 2, 2]]
    image = G(x, paddle.zeros([2, 3]))
    assert image.shape == [2, 3, 16, 16] and abs(image.numpy()).max() <= 1
    real, logits = model.Discriminator(arch)(x)
    assert real.shape == [2, 1] and logits.shape == [2, 3]


def test_activations_of_trunk_and_heads_have_their_slopes(model):
    arch = tiny(model, slope=0.01, fc_slope=0.0)
    G = model.Generator(arch)
    D = model.Discriminator(arch)
    x = tensor([-1.0, 2.0])
    assert G.enc_layers[1].layers[2](x).tolist() == pytest.approx([-0.01, 2])
    assert G.dec_layers[1].layers[2](x).tolist() == [0, 2]
    assert D.conv[1].layers[2](x).tolist() == pytest.approx([-0.01, 2])
    assert D.fc_cls[0].layers[1](x).tolist() == [0, 2]
    D = model.Discriminator(tiny(model))
    assert D.fc_adv[0].layers[1](x).tolist() == pytest.approx([-0.2, 2])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": 20}, "--image_size 20: 3 layers"),
        ({"image_size": 8}, "--image_size 8: 3 layers .* multiples of 8 from 16 on"),
        ({"shortcut_layers": 3}, "--shortcut_layers 3: 3 layers allow 0 to 2"),
        ({"inject_layers": -1}, "--inject_layers -1"),
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


def test_elvisyjlins_numbers(model):
    """Published weights through the importer give the authors' outputs, with running statistics and
    with the batch's.
    """
    folder = shared_dir("parity/attgan_elvisyjlin")
    import attgan.convert

    cases = np.load(folder / "cases.npz")
    result = attgan.convert.read_published(folder / "checkpoint" / "weights.199.pth")
    arch = result.architecture
    assert arch == model.Architecture(g_base_dims=4, slope=0.01, fc_slope=0.0)
    assert result.source["selected_attrs"][::12] == ["Bald", "Young"]
    G = model.Generator(arch)
    G.set_state_dict(result.networks["generator"])
    x = tensor(cases["in/img_a"])
    edited = tensor(cases["in/att_b_fed"])
    own = tensor(cases["in/att_a_fed"])
    G.eval()
    features = G.encode(x)
    for z, name in ((features[3], "enc_z4"), (features[4], "enc_z5")):
        np.testing.assert_allclose(z.numpy(), cases[f"eval/{name}"], atol=1e-4)
    np.testing.assert_allclose(G(x, edited).numpy(), cases["eval/G_fake"], atol=1e-4)
    recon = G.decode(features, own)
    np.testing.assert_allclose(recon.numpy(), cases["eval/G_recon"], atol=1e-4)
    G.train()
    np.testing.assert_allclose(G(x, edited).numpy(), cases["train/G_fake"], atol=1e-4)
