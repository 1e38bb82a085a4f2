"""SPADE's networks: sizes of the tables, the layer by hand, spectral norm, both scales of D."""

import numpy as np
import paddle
import pytest

from shared_metrics.errors import UserError
from tests.classic_gans.networks import arrays, conv, randomize, size, tensor

RNG = np.random.default_rng


@pytest.fixture
def model(paper):
    paper("classic_gans")
    import spade.model

    return spade.model


def tiny(model, **changes):
    sizes = {"label_nc": 3, "crop_width": 32, "crop_height": 32, "ngf": 2, "ndf": 2, "nef": 1}
    return model.Architecture(**(sizes | {"z_dim": 4} | changes))


@pytest.mark.parametrize(
    "preset, g, d, start",
    [
        ("coco", 97_480_899, 5_904_514, (8, 8)),
        ("ade20k", 96_492_483, 5_836_930, (8, 8)),
        ("cityscapes", 93_048_003, 5_601_410, (4, 8)),
        ("pcv", 93_077_955, 5_603_458, (16, 32)),
    ],
)
def test_parameters(model, preset, g, d, start):
    arch = model.Architecture(**model.PRESETS[preset])
    assert arch.start == start
    with paddle.LazyGuard():
        assert size(model.Generator(arch)) == g
        assert size(model.Discriminator(arch)) == d


def test_parameters_of_the_vae(model):
    arch = model.Architecture(use_vae=True)
    with paddle.LazyGuard():
        assert size(model.Generator(arch)) == 112_626_883
        assert size(model.Encoder(arch)) == 10_463_424


def test_keys_are_the_published_ones(model):
    G = arrays(model.Generator(tiny(model)))
    convolution = {"weight_orig", "weight_u", "weight_v", "bias"}
    norm = {"param_free_norm._mean", "param_free_norm._variance"}
    for layer in ("mlp_shared.0", "mlp_gamma", "mlp_beta"):
        norm |= {f"{layer}.weight", f"{layer}.bias"}
    for block in ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3"):
        keys = {f"conv_{n}.{leaf}" for n in (0, 1) for leaf in convolution}
        keys |= {f"norm_{n}.{leaf}" for n in (0, 1) for leaf in norm}
        if block.startswith("up_"):
            keys |= {f"conv_s.{leaf}" for leaf in convolution - {"bias"}}
            keys |= {f"norm_s.{leaf}" for leaf in norm}
        assert {key.removeprefix(f"{block}.") for key in G if key.startswith(f"{block}.")} == keys
    others = {key for key in G if key.split(".")[0] in ("fc", "conv_img")}
    assert others == {"fc.weight", "fc.bias", "conv_img.weight", "conv_img.bias"}
    plain = {"model0.0.weight", "model0.0.bias", "model4.0.weight", "model4.0.bias"}
    for n in (1, 2, 3):
        plain |= {f"model{n}.0.0.{leaf}" for leaf in convolution - {"bias"}}
    keys = {f"discriminator_{scale}.{key}" for scale in (0, 1) for key in plain}
    assert arrays(model.Discriminator(tiny(model))).keys() == keys


def test_several_gpus_have_the_same_keys(model, monkeypatch):
    """SyncBatchNorm's kernel wants a scale and a shift: constants, which no checkpoint holds."""
    one = arrays(model.Generator(tiny(model)))
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    several = model.Generator(tiny(model))
    assert arrays(several).keys() == one.keys()
    norm = several.head_0.norm_0.param_free_norm
    assert isinstance(norm, paddle.nn.SyncBatchNorm)
    assert norm.weight.tolist() == [1.0] * 32 and norm.bias.tolist() == [0.0] * 32


def test_spade_layer_by_hand(model):
    """norm(x) (1 + gamma) + beta, by the batch's statistics, then by the running ones."""
    layer = randomize(model.SPADE(4, 3))
    W = arrays(layer)
    x = RNG(1).standard_normal((2, 4, 5, 6)) * 2 + 1
    seg = RNG(2).standard_normal((2, 3, 5, 6))
    h = np.maximum(conv(seg, W["mlp_shared.0.weight"], W["mlp_shared.0.bias"], padding=1), 0)
    gamma = conv(h, W["mlp_gamma.weight"], W["mlp_gamma.bias"], padding=1)
    beta = conv(h, W["mlp_beta.weight"], W["mlp_beta.bias"], padding=1)

    def expected(mean, var):
        mean = mean.reshape(1, -1, 1, 1)
        var = var.reshape(1, -1, 1, 1)
        return (x - mean) / np.sqrt(var + 1e-5) * (1 + gamma) + beta

    layer.eval()
    wanted = expected(W["param_free_norm._mean"], W["param_free_norm._variance"])
    np.testing.assert_allclose(layer(tensor(x), tensor(seg)).numpy(), wanted, atol=1e-3, rtol=1e-4)
    layer.train()
    wanted = expected(x.mean((0, 2, 3)), x.var((0, 2, 3)))
    np.testing.assert_allclose(layer(tensor(x), tensor(seg)).numpy(), wanted, atol=1e-3, rtol=1e-4)


def test_residual_block(model):
    """LeakyReLU 0.2 before the two 3x3 convolutions and none in the skip, which is there only where
    the channels change.
    """
    block = randomize(model.SPADEResBlock(4, 2, 3))
    block.eval()
    x = tensor(RNG(0).standard_normal((2, 4, 5, 5)))
    seg = tensor(RNG(1).random((2, 3, 5, 5)))

    def leaky(h):
        return paddle.maximum(h, 0.2 * h)

    h = block.conv_0(leaky(block.norm_0(x, seg)))
    assert h.shape == [2, 2, 5, 5]
    h = block.conv_1(leaky(block.norm_1(h, seg)))
    skip = block.conv_s(block.norm_s(x, seg))
    np.testing.assert_allclose(block(x, seg).numpy(), (h + skip).numpy(), atol=1e-5)
    plain = model.SPADEResBlock(4, 4, 3)
    assert plain.conv_s is None and plain.norm_s is None


def test_spectral_norm_finds_the_largest_singular_value(model):
    paddle.seed(1)
    layer = model.SNConv(3, 6, 3)
    x = paddle.zeros([1, 3, 4, 4])
    for _ in range(60):
        layer(x)
    layer.eval()
    W = layer.weight().numpy().reshape(6, 27)
    assert np.linalg.svd(W)[1][0] == pytest.approx(1.0, rel=1e-4)
    orig = layer.weight_orig.numpy().reshape(6, 27)
    np.testing.assert_allclose(W, orig / np.linalg.svd(orig)[1][0], rtol=1e-3, atol=1e-6)


def test_u_and_v_move_in_training_only(model):
    layer = randomize(model.SNConv(3, 6, 3))
    W = layer.weight_orig.numpy().reshape(6, 27)
    u = layer.weight_u.numpy()
    v = layer.weight_v.numpy()
    x = tensor(RNG(0).standard_normal((1, 3, 4, 4)))
    layer.eval()
    found = layer(x).numpy()
    expected = conv(
        x.numpy(), layer.weight_orig.numpy() / (u @ W @ v), layer.bias.numpy(), padding=1
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(layer.weight_u.numpy(), u)
    layer.train()
    layer(x)
    v = W.T @ u / np.linalg.norm(W.T @ u)
    np.testing.assert_allclose(layer.weight_v.numpy(), v, atol=1e-5)
    np.testing.assert_allclose(layer.weight_u.numpy(), W @ v / np.linalg.norm(W @ v), atol=1e-5)


def test_gradient_goes_through_sigma(model):
    """W / (u^T W v) does not change along W: neither does the loss."""
    layer = randomize(model.SNConv(2, 3, 3))
    layer.eval()
    layer(tensor(RNG(0).standard_normal((1, 2, 4, 4)))).square().sum().backward()
    along = (layer.weight_orig.grad * layer.weight_orig).sum().item()
    scale = (layer.weight_orig.grad.abs() * layer.weight_orig.abs()).sum().item()
    assert abs(along) < 1e-5 * scale


@pytest.mark.parametrize(
    "changes, map_size, size_of_image",
    [
        ({}, (32, 32), [32, 32]),
        ({"crop_width": 128, "crop_height": 64, "num_upsampling_layers": "more"}, (64, 128), None),
        ({"crop_width": 128, "crop_height": 128, "num_upsampling_layers": "most"}, (50, 60), None),
    ],
)
def test_generator_draws_the_size_of_its_architecture(model, changes, map_size, size_of_image):
    arch = tiny(model, **changes)
    size_of_image = size_of_image or [arch.crop_height, arch.crop_width]
    seg = tensor(RNG(0).random((2, arch.semantic_nc, *map_size)))
    image = randomize(model.Generator(arch))(seg)
    assert image.shape == [2, 3, *size_of_image]
    assert abs(image.numpy()).max() <= 1


def test_vae_draws_from_a_latent(model):
    arch = tiny(model, use_vae=True)
    seg = tensor(RNG(0).random((2, arch.semantic_nc, 32, 32)))
    mu, logvar = model.Encoder(arch)(tensor(RNG(1).uniform(-1, 1, (2, 3, 32, 32))))
    assert mu.shape == [2, 4] and logvar.shape == [2, 4]
    G = randomize(model.Generator(arch))
    assert G(seg, mu).shape == [2, 3, 32, 32]
    assert not np.allclose(G(seg, mu).numpy(), G(seg, mu + 1.0).numpy())


@pytest.mark.parametrize("padding, sides", [(2, [17, 9, 5, 6, 7]), (1, [16, 8, 4, 3, 2])])
def test_layers_of_the_discriminator(model, padding, sides):
    arch = tiny(model, d_padding=padding)
    outputs = model.Discriminator(arch)(tensor(RNG(0).random((2, arch.semantic_nc + 3, 32, 32))))
    assert len(outputs) == 2
    widths = [2, 4, 8, 16, 1]
    shapes = [[2, width, side, side] for width, side in zip(widths, sides, strict=True)]
    assert [h.shape for h in outputs[0]] == shapes


def test_second_scale_sees_the_pooled_input_without_its_padding(model):
    """An input of ones stays ones: padding is not counted."""
    D = randomize(model.Discriminator(tiny(model)))
    D.eval()
    seen = []
    for scale in (D.discriminator_0, D.discriminator_1):
        scale.register_forward_post_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    x = RNG(0).random((1, 8, 9, 9))
    D(tensor(x))
    pooled = seen[1].numpy()
    assert pooled.shape == (1, 8, 5, 5)
    np.testing.assert_allclose(pooled[:, :, 0, 0], x[:, :, :2, :2].mean((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(pooled[:, :, 1, 2], x[:, :, 1:4, 3:6].mean((2, 3)), rtol=1e-5)


def test_middle_layers_of_the_discriminator_are_normed_and_the_others_not(model):
    D = randomize(model.Discriminator(tiny(model)))
    first, *middle, last = D(tensor(RNG(0).random((2, 8, 32, 32))))[0]
    assert first.numpy().mean((2, 3)).std() > 0.01 and last.numpy().std() > 0
    for layer in (D.discriminator_0.model1, D.discriminator_0.model3):
        assert isinstance(layer[0][1], paddle.nn.InstanceNorm2D)
        assert layer[0][1].scale is None and layer[0][0].bias is None
    for layer in (D.discriminator_0.model0, D.discriminator_0.model4):
        assert isinstance(layer[0], paddle.nn.Conv2D) and layer[0].bias is not None
    for h in middle:  # LeakyReLU of what has mean 0 and variance 1 in each channel
        normed = np.where(h.numpy() < 0, h.numpy() / 0.2, h.numpy())
        np.testing.assert_allclose(normed.mean((2, 3)), 0, atol=1e-3)
        np.testing.assert_allclose(normed.std((2, 3)), 1, atol=0.05)


def test_semantic_map(model):
    labels = paddle.to_tensor([[[0, 0, 2], [0, 0, 2], [3, 3, 2]]])
    instances = paddle.to_tensor([[[7, 7, 7], [7, 7, 7], [7, 7, 9]]])
    arch = tiny(model)
    seg = model.semantics(labels, instances, arch).numpy()
    assert seg.shape == (1, 5, 3, 3) and arch.semantic_nc == 5
    for i in range(4):
        np.testing.assert_array_equal(seg[0, i], labels[0].numpy() == i)
    np.testing.assert_array_equal(seg[0, 4], [[0, 0, 0], [0, 0, 1], [0, 1, 1]])
    arch = tiny(model, no_instance=True, contain_dontcare_label=False)
    assert model.semantics(labels, None, arch).shape == [1, 3, 3, 3]


def test_a_map_is_shrunk_by_its_nearest_pixels(model):
    seg = tensor(np.arange(64).reshape(1, 1, 8, 8))
    small = model.resize_nearest(seg, 4, 2).numpy()[0, 0]
    np.testing.assert_array_equal(small, [[0, 4], [16, 20], [32, 36], [48, 52]])
    odd = model.resize_nearest(seg, 3, 3).numpy()[0, 0]
    rows = np.floor(np.arange(3) * 8 / 3)
    np.testing.assert_array_equal(odd, rows[:, None] * 8 + rows)


@pytest.mark.parametrize("name", ["crop_width", "crop_height"])
def test_sizes_that_the_doublings_do_not_make_are_refused(model, name):
    with pytest.raises(UserError, match=f"--{name} 72: .*normal makes multiples of 32; take 64"):
        tiny(model, **{name: 72})


@pytest.mark.parametrize(
    "changes, side", [({}, 5), ({"d_padding": 1}, 0), ({"num_D": 1, "d_padding": 1}, 2)]
)
def test_the_smallest_logits(model, changes, side):
    """By hand: 32 px, the second scale 16, then 9, 5, 3, 4, 5; with padding 1 8, 4, 2, 1, 0."""
    arch = tiny(model, **changes)
    assert arch.smallest_logits() == side
    if side:
        x = paddle.zeros([1, arch.semantic_nc + 3, 32, 32])
        assert model.Discriminator(arch)(x)[-1][-1].shape[2:] == [side, side]


def test_initial_values_are_xavier_normal_with_a_small_gain(model):
    paddle.seed(0)
    arch = tiny(model, ngf=8, ndf=16, nef=8, use_vae=True)
    for network in (model.Generator(arch), model.Discriminator(arch), model.Encoder(arch)):
        for layer in network.sublayers():
            weight = getattr(layer, "weight_orig", None)
            weight = getattr(layer, "weight", None) if weight is None else weight
            if weight is None:
                continue
            fans = sum(weight.shape[:2]) * np.prod(weight.shape[2:])
            std = 0.02 * (2 / fans) ** 0.5
            assert weight.numpy().std() == pytest.approx(std, rel=5 / weight.size**0.5)
            assert np.abs(weight.numpy()).max() > 2.2 * std  # not uniform
            if layer.bias is not None:
                assert not layer.bias.numpy().any()
