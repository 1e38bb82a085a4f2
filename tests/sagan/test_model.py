"""SAGAN's networks: published parameter counts, shapes, initialisation, impossible
architectures.
"""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from shared_metrics.errors import UserError
from tests.sagan.networks import randomize, tensor, tiny

RNG = np.random.default_rng


@pytest.fixture
def model(paper):
    return paper("sagan").model


def numbers(net):
    """(trainable numbers, numbers in the state dict, its keys)."""
    state = net.state_dict()
    trainable = sum(p.size for p in net.parameters() if not p.stop_gradient)
    return trainable, sum(int(v.size) for v in state.values()), len(state)


# ---- published sizes
# -------------------------------------------------------------------------------------------------

# form, side, classes: G trainable, G numbers, G keys, D trainable, D numbers, D keys, all as
# published, and how many BatchNorms of G carry torch's num_batches_tracked (one number and one key
# each), which Paddle does not have.
COUNTS = {
    ("sagan", 128, 1000): (42_079_300, 42_160_978, 130, 40_513_442, 40_573_129, 96, 11),
    ("mmgen", 32, 10): (4_386_308, 4_417_862, 116, 1_075_586, 1_086_027, 60, 7),
    ("mmgen", 128, 1000): (42_017_412, 42_128_274, 176, 39_448_258, 39_505_561, 88, 11),
    ("mmgen-biggan", 128, 1000): (42_017_412, 42_098_418, 136, 39_448_258, 39_505_561, 88, 11),
}
# voletiv and Atmosphere build the 1x1 skip of D's last block (1024 -> 1024) and never use it:
# weight and bias, u and v, four keys. It is not built here.
DEAD = 1024 * 1024 + 1024


@pytest.mark.parametrize("form, side, classes", COUNTS)
def test_parameter_counts_are_the_published_ones(model, form, side, classes):
    g_train, g_all, g_keys, d_train, d_all, d_keys, batch_norms = COUNTS[form, side, classes]
    arch = model.architecture(
        form, side, classes, init="xavier"
    )  # orthogonal takes long at full width
    dead = DEAD if form == "sagan" else 0
    G = numbers(model.Generator(arch))
    assert G == (g_train, g_all - batch_norms, g_keys - batch_norms)
    d = numbers(model.Discriminator(arch))
    assert d == (d_train - dead, d_all - dead - (2048 if dead else 0), d_keys - (4 if dead else 0))
    if (
        form == "sagan"
        # Atmosphere: besides, an affine map (4928 channels x 2, 20 keys) in the BatchNorms inside
        # cBN
    ):
        assert (G[0] + 2 * 4928, G[1] + 2 * 4928, G[2] + 20) == (42_089_156, 42_170_823, 139)


def test_studiogan_has_the_sizes_of_mmgen(model):
    mmgen, studiogan = (
        model.architecture(form, 32, 10, init="xavier") for form in ("mmgen", "studiogan")
    )
    assert numbers(model.Generator(mmgen)) == numbers(model.Generator(studiogan))
    assert numbers(model.Discriminator(mmgen)) == numbers(model.Discriminator(studiogan))


def test_each_class_adds_its_rows(model):
    """At 128 px and published width: G 9856 and D 1024 numbers a class; here an eighth of the
    width.
    """
    few, many = (model.architecture("sagan", 128, n, g_conv_dim=8, d_conv_dim=8) for n in (2, 3))
    assert numbers(model.Generator(many))[0] - numbers(model.Generator(few))[0] == 9856 // 8
    assert numbers(model.Discriminator(many))[0] - numbers(model.Discriminator(few))[0] == 1024 // 8


def test_width_tables(model):
    arch = model.architecture("studiogan", 256, 10)
    assert [(i, o, s) for _, i, o, s in arch.g_blocks()] == [
        (1024, 1024, 8),
        (1024, 512, 16),
        (512, 512, 32),
        (512, 256, 64),
        (256, 128, 128),
        (128, 64, 256),
    ]
    assert [row[1:] for row in arch.d_blocks()] == [
        (3, 64, True, 128),
        (64, 128, True, 64),
        (128, 256, True, 32),
        (256, 512, True, 16),
        (512, 512, True, 8),
        (512, 1024, True, 4),
        (1024, 1024, False, 4),
    ]
    arch = model.architecture("mmgen", 32, 10)
    assert [row[1:] for row in arch.d_blocks()] == [
        (3, 128, True, 16), (128, 128, True, 8), (128, 128, False, 8), (128, 128, False, 8),
    ]  # fmt: skip
    assert [row[2:] for row in model.architecture("sagan", 64, 10).g_blocks()] == [
        (512, 8),
        (256, 16),
        (128, 32),
        (64, 64),
    ]


def test_attention_stands_where_each_form_has_it(model):
    sides = {
        (f, s): model.architecture(f, s, 10).g_attention
        for f in model.FORMS
        for s in (32, 64, 128, 256)
    }
    assert (
        sides["sagan", 128] == (32,)
        and sides["mmgen", 128] == (64,)
        and sides["studiogan", 32] == (16,)
    )
    assert max(max(s) for s in sides.values()) == 64
    arch = tiny(model, imsize=64, g_attention=(32, 16), d_attention=[4])
    assert list(model.Generator(arch).self_attn.keys()) == ["16", "32"]
    assert (
        model.Discriminator(arch).self_attn["4"].snconv1x1_attn.weight_orig.shape[0] == 8 * 8
    )  # the first of side 4
    assert not any(
        "self_attn" in k for k in model.Generator(replace(arch, g_attention=())).state_dict()
    )


# ---- whole networks
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form, imsize", [("sagan", 32), ("studiogan", 64), ("mmgen-biggan", 128), ("mmgen", 256)]
)
def test_shapes_range_and_gradients(model, form, imsize):
    import paddle

    arch = tiny(
        model,
        form,
        imsize,
        init="xavier",
        **({"g_conv_dim": 4, "d_conv_dim": 4} if imsize == 256 else {}),
    )
    G, D = model.Generator(arch), model.Discriminator(arch)
    for attention in [*G.self_attn.values(), *D.self_attn.values()]:
        attention.sigma.set_value(paddle.ones([1]))  # at 0 no gradient enters the attention
    z, y = tensor(RNG(0).standard_normal((2, 6)).astype("float32")), tensor(np.array([0, 2]))
    x = G(z, y)
    assert x.shape == [2, 3, imsize, imsize] and float(x.abs().max()) <= 1
    logits = D(x, y)
    assert logits.shape == [2]
    logits.sum().backward()
    named = [*G.named_parameters(), *D.named_parameters()]
    assert [n for n, p in named if not p.stop_gradient and p.grad is None] == []
    assert D(x[:1], y[:1]).shape == [1]


def test_networks_see_the_label(model):
    import paddle

    arch = tiny(model)
    G, D = randomize(model.Generator(arch)), randomize(model.Discriminator(arch))
    G.eval(), D.eval()
    z, a, b = paddle.ones([1, 6]), tensor(np.array([0])), tensor(np.array([1]))
    assert float((G(z, a) - G(z, b)).abs().max()) > 1e-3
    assert (D(G(z, a), a) - D(G(z, a), b)).abs().item() > 1e-3


def test_seed_fixes_weights_and_singular_vectors(model):
    import paddle

    def states(seed):
        paddle.seed(seed)
        arch = tiny(model, "studiogan")
        return model.Generator(arch).state_dict() | model.Discriminator(arch).state_dict()

    one, same, other = states(1), states(1), states(2)
    assert all(np.array_equal(one[k].numpy(), same[k].numpy()) for k in one)
    random = [
        k for k in one if k.endswith(("weight_orig", "weight_u", "weight_v")) and one[k].size > 1
    ]
    assert len(random) > 50 and not any(
        np.array_equal(one[k].numpy(), other[k].numpy()) for k in random
    )


def test_copies_share_nothing(model):
    import paddle

    G = model.Generator(tiny(model))
    twin = copy.deepcopy(G)
    before = {k: v.numpy().copy() for k, v in twin.state_dict().items()}
    G(paddle.randn([2, 6]), tensor(np.array([0, 1])))
    assert all(np.array_equal(before[k], v.numpy()) for k, v in twin.state_dict().items())
    assert not np.array_equal(before["snlinear0.weight_u"], G.snlinear0.weight_u.numpy())


def test_gradient_penalty_can_be_trained(model):
    """WGAN-GP differentiates D's input gradient once more; Paddle's own softmax and max-pooling
    cannot be.
    """
    import paddle

    D = randomize(model.Discriminator(tiny(model)))
    for attention in D.self_attn.values():
        attention.twice = True
    x = paddle.randn([2, 3, 32, 32])
    x.stop_gradient = False
    slope = paddle.grad(D(x, tensor(np.array([0, 1]))).sum(), x, create_graph=True)[0]
    slope.square().sum().backward()
    assert float(D.block1.snconv2d1.weight_orig.grad.abs().max()) > 0


def test_export_equals_the_eager_network(model, tmp_path):
    """Never run in eval mode before: Paddle's own spectral_norm would export what it last
    normalised.
    """
    import paddle

    G = randomize(model.Generator(tiny(model)))
    G.eval()
    inputs = [
        paddle.static.InputSpec([None, 6], "float32"),
        paddle.static.InputSpec([None], "int64"),
    ]
    paddle.jit.save(paddle.jit.to_static(G, inputs, full_graph=True), str(tmp_path / "g"))
    z, y = tensor(RNG(0).standard_normal((2, 6))), tensor(np.array([0, 2]))
    exported = paddle.jit.load(str(tmp_path / "g"))(z, y).numpy()
    np.testing.assert_allclose(exported, model.Generator.forward(G, z, y).numpy(), atol=1e-5)


# ---- initialisation
# --------------------------------------------------------------------------------------------------


def weights(net):
    return {
        k: v.numpy()
        for k, v in net.state_dict().items()
        if k.endswith(("weight_orig", "gain.weight", "bias.weight"))
    }


@pytest.mark.parametrize("form", ["sagan", "mmgen-biggan"])
def test_xavier_uniform_reaches_every_weight(model, form):
    arch = model.architecture(form, 32, 40, g_conv_dim=16, d_conv_dim=16)
    for net in (model.Generator(arch), model.Discriminator(arch)):
        for name, w in weights(net).items():
            area = int(np.prod(w.shape[2:]))
            bound = np.sqrt(6 / ((w.shape[0] + w.shape[1]) * area))
            assert 0.8 * bound < np.abs(w).max() <= bound * (1 + 1e-6), name
            if w.size > 2000:  # uniform: standard deviation bound / sqrt(3), mean 0
                assert w.std() == pytest.approx(bound / np.sqrt(3), rel=0.06), name
                assert abs(w.mean()) < bound / 15, name


@pytest.mark.parametrize("form", ["studiogan", "mmgen"])
def test_orthogonal_reaches_every_weight(model, form):
    arch = tiny(model, form, classes=40)
    for net in (model.Generator(arch), model.Discriminator(arch)):
        for name, w in weights(net).items():
            w = w.reshape(len(w), -1)
            gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("form", ["sagan", "studiogan", "mmgen-biggan"])
def test_biases_sigma_and_embeddings_at_the_start(model, form):
    arch = tiny(model, form, init="xavier")
    for net in (model.Generator(arch), model.Discriminator(arch)):
        found = {
            n: m for n, m in net.named_sublayers() if getattr(m, "weight_orig", None) is not None
        }
        assert any(m.bias is not None for m in found.values())
        for name, layer in found.items():
            if layer.bias is None:
                continue
            fan_in = (
                layer.weight_orig.shape[0]
                if layer.transposed
                else int(np.prod(layer.weight_orig.shape[1:]))
            )
            largest = float(layer.bias.abs().max())
            if form == "mmgen-biggan":
                assert 0 < largest <= fan_in**-0.5, name
            else:
                assert largest == 0, name
        assert (
            all(m.sigma.tolist() == [0.0] for m in net.self_attn.values())
            and len(net.self_attn) == 1
        )
    cbn = model.Generator(arch).block1.cond_bn1
    if form == "sagan":
        table = cbn.embed.weight.numpy()
        assert table.shape == (3, 64) and (table[:, :32] == 1).all() and (table[:, 32:] == 0).all()
    assert model.Generator(arch).self_attn["16"].snconv1x1_theta.bias is None or form == "sagan"


# ---- Architecture ----


@pytest.mark.parametrize(
    "changes, flag",
    [
        ({"imsize": 48}, "--imsize 48"),
        ({"g_conv_dim": -1}, "--g_conv_dim -1"),
        ({"g_attention": (24,)}, "--g_attention 24"),
        ({"d_attention": (32,)}, "--d_attention 32"),
        ({"d_conv_dim": 2}, "--d_conv_dim 2"),
        ({"cbn_spectral": True}, "--cbn_spectral"),
    ],
)
def test_impossible_values_name_their_flag(model, changes, flag):
    values = {"form": "sagan", "imsize": 32, "num_classes": 3} | changes
    with pytest.raises(UserError, match=f"^{flag}") as error:
        model.architecture(**values)
    assert "\n" not in str(error.value)


def test_architecture_survives_a_checkpoint(model):
    arch = model.architecture("mmgen-biggan", 64, 7, g_attention=[32, 16], skip_relu=True)
    assert model.Architecture.from_dict(json.loads(json.dumps(arch.to_dict()))) == arch
    with pytest.raises(UserError, match=r"entries \['cbn', 'colour'\] are unknown or missing"):
        model.Architecture.from_dict(
            {k: v for k, v in arch.to_dict().items() if k != "cbn"} | {"colour": 1}
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 0},
        {"z_dim": 0},
        {"cbn": "both"},
        {"init": "normal"},
        {"bias_init": "ones"},
        {"bn_eps": -1e-5},
        {"g_attention": [16.0]},
    ],
)
def test_senseless_values_of_a_file_are_refused(model, changes):
    values = model.architecture("sagan", 32, 3).to_dict() | changes
    with pytest.raises(UserError, match=f"architecture: {next(iter(changes))} cannot be"):
        model.Architecture.from_dict(values)
