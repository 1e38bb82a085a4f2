"""StarGAN's networks: the tables' sizes, initial values, yunjey's numbers."""

import numpy as np
import paddle
import pytest

from shared_metrics.errors import UserError
from tests.classic_gans.networks import arrays, check_uniform, randomize, size, tensor
from tests.conftest import shared_dir


@pytest.fixture
def model(paper):
    paper("classic_gans")
    import stargan.model

    return stargan.model


def tiny(model, **changes):
    sizes = {"image_size": 16, "g_base_dims": 4, "d_base_dims": 4, "d_repeat_num": 3}
    return model.Architecture(**(sizes | {"g_repeat_num": 1} | changes))


@pytest.mark.parametrize(
    "changes, g, d",
    [
        ({}, 8_430_528, 44_762_048),
        ({"d_bias": False}, 8_430_528, 44_758_016),
        ({"image_size": 256}, 8_430_528, 44_884_928),
    ],
)
def test_parameters(model, changes, g, d):
    arch = model.Architecture(**changes)
    with paddle.LazyGuard():
        assert size(model.Generator(arch)) == g
        assert size(model.Discriminator(arch)) == d


def test_keys_are_the_published_ones(model):
    arch = tiny(model)
    G = {"main.0.weight", "main.1.scale", "main.1.bias", "main.3.weight", "main.4.scale"}
    G |= {"main.4.bias", "main.6.weight", "main.7.scale", "main.7.bias"}
    G |= {f"main.9.main.{n}" for n in ("0.weight", "1.scale", "1.bias", "3.weight", "4.scale")}
    G |= {"main.9.main.4.bias", "main.10.weight", "main.11.scale", "main.11.bias"}
    G |= {"main.13.weight", "main.14.scale", "main.14.bias", "main.16.weight"}
    assert arrays(model.Generator(arch)).keys() == G
    D = {f"main.{n}.{leaf}" for n in (0, 2, 4) for leaf in ("weight", "bias")}
    assert arrays(model.Discriminator(arch)).keys() == D | {"conv1.weight", "conv2.weight"}


def test_shapes_and_range(model):
    arch = tiny(model, c_dim=2)
    x = tensor(np.random.default_rng(0).uniform(-1, 1, (3, 3, 16, 24)))
    image = randomize(model.Generator(arch))(x, paddle.ones([3, 2]))
    assert image.shape == [3, 3, 16, 24]
    assert abs(image.numpy()).max() <= 1
    patches, logits = model.Discriminator(arch)(x[:, :, :, :16])
    assert patches.shape == [3, 1, 2, 2] and logits.shape == [3, 2]


def test_two_data_sets_have_a_mask_besides(model):
    arch = tiny(model, c_dim=5, c2_dim=8)
    assert (arch.outputs, arch.planes) == (13, 15)
    assert model.Generator(arch).main[0].weight.shape == [4, 3 + 15, 7, 7]
    assert model.Discriminator(arch)(paddle.zeros([1, 3, 16, 16]))[1].shape == [1, 13]


def test_labels_stand_behind_the_image_as_planes(model):
    """The first convolution sees colours, then one constant plane a label."""
    G = randomize(model.Generator(tiny(model, c_dim=2)))
    seen = []
    G.main[0].register_forward_post_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    x = tensor(np.random.default_rng(0).uniform(-1, 1, (2, 3, 16, 16)))
    G(x, tensor([[1, 0], [0, 1]]))
    planes = seen[0].numpy()
    np.testing.assert_array_equal(planes[:, :3], x.numpy())
    assert (planes[:, 3:] == np.array([[1, 0], [0, 1]])[:, :, None, None]).all()


@pytest.mark.parametrize("side, changes", [(48, {"d_repeat_num": 5}), (6, {"d_repeat_num": 1})])
def test_a_size_that_is_not_halved_so_often_is_refused(model, side, changes):
    with pytest.raises(UserError, match=f"--image_size {side}: .* take "):
        model.Architecture(image_size=side, **changes)


def test_initial_values_are_pytorchs(model):
    """Uniform in 1/sqrt(fan_in), biases too, the fan-in of a transposed convolution its outputs;
    Paddle's own would be normal with biases of 0.
    """
    paddle.seed(0)
    arch = model.Architecture(g_base_dims=16, d_base_dims=16, d_repeat_num=3, image_size=32)
    for network in (model.Generator(arch), model.Discriminator(arch)):
        for layer in network.sublayers():
            if isinstance(layer, paddle.nn.InstanceNorm2D):
                assert (layer.scale.numpy() == 1).all() and not layer.bias.numpy().any()
            elif isinstance(layer, (paddle.nn.Conv2D, paddle.nn.Conv2DTranspose)):
                # (out, in, k, k), or transposed (in, out, k, k)
                bound = np.prod(layer.weight.shape[1:]) ** -0.5
                check_uniform(layer.weight.numpy(), bound)
                if layer.bias is not None:
                    assert 0.6 * bound < np.abs(layer.bias.numpy()).max() <= bound


def test_yunjeys_numbers(model, paper):
    """Published weights through the importer give the authors' outputs, in their train mode."""
    folder = shared_dir("parity/stargan_yunjey")
    import stargan.convert

    cases = np.load(folder / "cases.npz")
    result = stargan.convert.read_published(
        folder / "200000-G.ckpt", discriminator=folder / "200000-D.ckpt"
    )
    arch = result.architecture
    assert arch == model.Architecture(image_size=64, g_base_dims=8, d_base_dims=8)
    assert result.source["selected_attrs"] == "Black_Hair Blond_Hair Brown_Hair Male Young".split()
    G = model.Generator(arch)
    D = model.Discriminator(arch)
    G.set_state_dict(result.networks["generator"])
    D.set_state_dict(result.networks["discriminator"])
    x = tensor(cases["in/x_real"])
    for mode in ("train", "eval"):  # instance statistics in both
        getattr(G, mode)()
        fake = G(x, tensor(cases["in/c_trg"]))
        np.testing.assert_allclose(fake.numpy(), cases["train/G_fake"], atol=1e-4)
    back = G(fake, tensor(cases["in/c_org"]))
    np.testing.assert_allclose(back.numpy(), cases["train/G_rec"], atol=1e-4)
    for name, images in (("real", x), ("fake", fake)):
        patches, logits = D(images)
        np.testing.assert_allclose(patches.numpy(), cases[f"train/D_{name}_src"], atol=1e-4)
        np.testing.assert_allclose(logits.numpy(), cases[f"train/D_{name}_cls"], atol=1e-4)
