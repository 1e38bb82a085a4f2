"""ACGAN's networks: published sizes, the specification's tables in numpy, initialisation,
impossible architectures.
"""

import json

import numpy as np
import pytest

from shared_metrics.errors import UserError
from tests.acgan.networks import (
    D_PADDINGS,
    G_SHAPES,
    discriminate,
    generate,
    random_state,
    tensor,
    tiny,
    with_state,
)

RNG = np.random.default_rng
FORMS = list(G_SHAPES)


@pytest.fixture
def model(paper):
    return paper("acgan").model


def numbers(net):
    """(trainable numbers, numbers in the state dict, its keys)."""
    state = net.state_dict()
    trainable = sum(p.size for p in net.parameters() if not p.stop_gradient)
    return trainable, sum(int(v.size) for v in state.values()), len(state)


# ---- published sizes
# -------------------------------------------------------------------------------------------------

# G and D: trainable numbers, numbers and keys of the state dict as published; clvrai's with torch's
# num_batches_tracked (one number and one key a BatchNorm), which Paddle does not have.
COUNTS = {
    ("callifrey", 128): ((7_396_835, 7_398_691, 34), (3_016_555, 3_018_539, 36), 0),
    ("clvrai", 128): (
        (11_465_728, 11_465_728 + 2 * 896 + 4, 27),
        (2_525_563, 2_525_563 + 2 * 992 + 5, 35),
        1,
    ),
    ("clvrai", 32): ((1_593_888, 1_594_563, 21), (1_663_867, 1_665_856, 35), 1),
}


@pytest.mark.parametrize("form, imsize", COUNTS)
def test_parameter_counts_are_the_published_ones(model, form, imsize):
    arch = model.Architecture(form=form, imsize=imsize, init="paddle")
    *published, torch = COUNTS[form, imsize]
    for net, (trainable, everything, keys) in zip(
        (model.Generator, model.Discriminator), published, strict=True
    ):
        net = net(arch)
        tracked = torch * sum(k.endswith("._mean") for k in net.state_dict())
        assert numbers(net) == (trainable, everything - tracked, keys - tracked)


# What the specification's tables say of channels at the published width, and of sides.
G_CHANNELS = {
    ("callifrey", 32): (384, 192, 96, 48, 3),
    ("callifrey", 64): (768, 384, 256, 192, 64, 3),
    ("callifrey", 128): (768, 384, 256, 192, 64, 32, 3),
    ("clvrai", 32): (384, 192, 96, 48, 3),
    ("clvrai", 64): (768, 384, 256, 192, 3),
    ("clvrai", 128): (768, 384, 256, 192, 64, 3),
}
G_SIDES = {
    ("callifrey", 32): (4, 8, 16, 32),
    ("callifrey", 64): (4, 8, 16, 32, 64),
    ("callifrey", 128): (4, 8, 16, 32, 64, 128),
    ("clvrai", 32): (4, 8, 16, 32),
    ("clvrai", 64): (5, 13, 29, 64),
    ("clvrai", 128): (5, 13, 29, 61, 128),
}
D_SIDES = {
    ("callifrey", 32): (16, 16, 8, 8, 4, 4),
    ("callifrey", 64): (32, 32, 16, 16, 8, 8),
    ("callifrey", 128): (64, 64, 32, 32, 16, 16),
    ("clvrai", 32): (16, 16, 8, 8, 4, 4),
    ("clvrai", 64): (32, 30, 15, 13, 7, 5),
    ("clvrai", 128): (64, 62, 31, 29, 15, 13),
}


def shapes_of(net, prefix, x):
    """Output shapes of the layers whose name begins with `prefix`, in the order in which they
    run.
    """
    seen = []
    for name, layer in net.named_children():
        if name.startswith(prefix):
            layer.register_forward_post_hook(
                lambda layer, inputs, output: seen.append(tuple(output.shape))
            )
    net(x)
    return seen


@pytest.mark.parametrize("form, imsize", FORMS)
def test_every_layer_has_the_tables_shape(model, form, imsize):
    import paddle

    arch, key = tiny(model, form, imsize, ngf=8, ndf=12, init="paddle"), (form, imsize)
    channels = [c // 8 for c in G_CHANNELS[key][1:-1]] + [3]
    found = shapes_of(model.Generator(arch), "tconv", paddle.zeros([2, 7]))
    assert found == [(2, c, side, side) for c, side in zip(channels, G_SIDES[key], strict=True)]
    D = model.Discriminator(arch)
    found = shapes_of(D, "conv", paddle.zeros([2, 3, imsize, imsize]))
    assert found == [(2, 3 * 2**i, side, side) for i, side in enumerate(D_SIDES[key])]
    inputs = 96 * D_SIDES[key][-1] ** 2
    assert (D.fc_dis.weight.shape, D.fc_aux.weight.shape) == ([inputs, 1], [inputs, 3])


def test_width_at_the_published_value(model):
    for (form, imsize), channels in G_CHANNELS.items():
        rows = model.Architecture(form=form, imsize=imsize).g_layers()
        assert (rows[0][1], *[row[2] for row in rows]) == channels
        rows = model.Architecture(form=form, imsize=imsize).d_layers()
        assert [row[2] for row in rows] == [16, 32, 64, 128, 256, 512]


# ---- against numpy ----


@pytest.mark.parametrize("form, imsize", FORMS)
def test_generator_is_the_tables_in_numpy(model, form, imsize):
    """In eval mode and with the batch's own statistics; with and without the ReLU after fc1."""
    z = RNG(1).standard_normal((3, 7))
    state = random_state(model.Generator(tiny(model, form, imsize, init="paddle")))
    images = {}
    for fc_relu in (True, False):
        G = with_state(
            model.Generator(tiny(model, form, imsize, init="paddle", fc_relu=fc_relu)), state
        )
        images[fc_relu] = G(tensor(z)).numpy()
        np.testing.assert_allclose(
            images[fc_relu], generate(state, z, form, imsize, fc_relu), atol=2e-5
        )
    assert images[True].shape == (3, 3, imsize, imsize) and np.abs(images[True]).max() <= 1
    assert np.abs(images[True] - images[False]).max() > 0.05 and 0.1 < images[True].std() < 0.9
    G.train()
    want = generate(state, z, form, imsize, False, training=True)
    np.testing.assert_allclose(G(tensor(z)).numpy(), want, atol=1e-4)
    assert np.abs(want - images[False]).max() > 0.05


@pytest.mark.parametrize("form, imsize", FORMS)
def test_discriminator_is_the_tables_in_numpy(model, form, imsize):
    D = model.Discriminator(tiny(model, form, imsize, init="paddle", activation_noise=0.2))
    state = random_state(D, 2)
    x = np.tanh(RNG(3).standard_normal((2, 3, imsize, imsize)))
    source, classes = with_state(D, state)(tensor(x))
    want_source, want_classes = discriminate(state, x, form, imsize)
    assert source.shape == [2] and classes.shape == [2, 3]
    np.testing.assert_allclose(source.numpy(), want_source[:, 0], atol=2e-5)
    np.testing.assert_allclose(classes.numpy(), want_classes, atol=2e-5)
    assert np.ptp(want_classes) > 0.1


def test_paddings_reach_the_borders(model):
    """The numpy networks see padding: a wrong one would pass unseen if borders did not matter."""
    D = model.Discriminator(tiny(model, "clvrai", 64, init="paddle"))
    state, x = random_state(D, 2), RNG(3).standard_normal((1, 3, 64, 64))
    assert D_PADDINGS["clvrai", 64] == [1, 0, 1, 0, 1, 0]
    inner = x.copy()
    inner[:, :, 0], inner[:, :, :, -1] = 0, 0
    assert (
        abs(
            discriminate(state, x, "clvrai", 64)[0] - discriminate(state, inner, "clvrai", 64)[0]
        ).max()
        > 1e-3
    )


def test_fc_relu_cuts_what_is_negative(model):
    """Where fc1 gives nothing positive, ReLU leaves one image for every z; where all is positive it
    changes nothing.
    """
    z = RNG(0).standard_normal((2, 7)).astype("float32")
    nets = [model.Generator(tiny(model, fc_relu=on, init="paddle")) for on in (True, False)]
    state = random_state(nets[0])
    for bias, cut, same in ((-50, True, False), (50, False, True)):
        with_relu, without = (
            with_state(G, state | {"fc1.bias": state["fc1.bias"] + bias})(tensor(z)) for G in nets
        )
        spread = float((with_relu[0] - with_relu[1]).abs().max())
        assert (spread == 0) == cut
        assert np.array_equal(with_relu.numpy(), without.numpy()) == same


def test_batch_norm_constants(model):
    """eps 1e-5; running statistics keep 0.9 of their value (torch's momentum 0.1)."""
    import paddle

    arch = tiny(model)
    found = [
        m for net in (model.Generator(arch), model.Discriminator(arch)) for m in net.sublayers()
    ]
    found = [m for m in found if isinstance(m, paddle.nn.BatchNorm2D)]
    assert len(found) == 3 + 5
    for norm in found:
        C = norm.weight.shape[0]
        norm._variance.set_value(paddle.zeros([C]))
        norm.eval()
        assert norm(paddle.ones([1, C, 1, 1])).numpy() == pytest.approx(1 / np.sqrt(1e-5), rel=1e-5)
        norm.train()
        norm(tensor(RNG(0).standard_normal((500, C, 1, 1)) * 3 + 2))
        assert norm._mean.numpy() == pytest.approx(0.1 * 2, abs=0.06)
        assert norm._variance.numpy() == pytest.approx(0.1 * 9, rel=0.3)


# ---- dropout and noise in D's blocks
# ---------------------------------------------------------------------------------


def activations(D, x):
    """What conv1 and conv2 make of x before dropout, in training mode, from the layers' own
    convolutions.
    """
    h1 = D.conv1[0](x).numpy()
    h1 = np.where(h1 > 0, h1, 0.2 * h1)
    h2 = D.conv2[0](tensor(h1)).numpy().astype("float64")
    h2 = (h2 - h2.mean((0, 2, 3), keepdims=True)) / np.sqrt(h2.var((0, 2, 3), keepdims=True) + 1e-5)
    return h1, np.where(h2 > 0, h2, 0.2 * h2)


def test_dropout_comes_last_in_every_block(model):
    """Half of the activations are 0, the others twice what the block gives without: BatchNorm does
    not see dropout.
    """
    import paddle

    paddle.seed(0)
    D = model.Discriminator(tiny(model))
    x = tensor(RNG(0).standard_normal((8, 3, 32, 32)))
    h1, h2 = activations(D, x)
    for got, want in ((D.conv1(x), h1), (D.conv2(tensor(h1)), h2)):
        got = got.numpy()
        assert (got == 0).mean() == pytest.approx(0.5, abs=0.06)
        np.testing.assert_allclose(got, np.where(got == 0, 0, 2 * want), atol=1e-4)
    D.eval()
    np.testing.assert_allclose(D.conv1(x).numpy(), h1, atol=1e-6)
    blocks = [getattr(D, f"conv{i}") for i in range(1, 7)]
    assert all(
        isinstance(list(block)[-1], paddle.nn.Dropout) and list(block)[-1].p == 0.5
        for block in blocks
    )


def test_dropout_rate_is_the_architectures(model):
    D = model.Discriminator(tiny(model, dropout=0.25))
    assert [list(getattr(D, f"conv{i}"))[-1].p for i in range(1, 7)] == [0.25] * 6


def test_activation_noise_in_training_only(model):
    import paddle

    arch = tiny(model, activation_noise=0.3)
    D = model.Discriminator(arch)
    for layer in D.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.p = 0.0
    x = tensor(RNG(0).standard_normal((8, 3, 32, 32)))
    h1, h2 = activations(D, x)
    for block, entered, want in ((D.conv1, x, h1), (D.conv2, tensor(h1), h2)):
        noise = block(entered).numpy() - want
        assert noise.std() == pytest.approx(0.3, rel=0.05) and abs(noise.mean()) < 0.02
    assert not np.array_equal(D(x)[0].numpy(), D(x)[0].numpy())
    D.eval()
    assert np.array_equal(D(x)[0].numpy(), D(x)[0].numpy())
    quiet = with_state(model.Discriminator(tiny(model)), D.state_dict())
    assert np.array_equal(D(x)[1].numpy(), quiet(x)[1].numpy())


# ---- the label, gradients
# --------------------------------------------------------------------------------------------


def test_with_labels_overwrites_the_first_entries(model):
    noise = RNG(0).standard_normal((4, 7)).astype("float32")
    before, labels = noise.copy(), np.array([2, 0, 1, 2])
    z = model.with_labels(noise, labels, 3)
    assert z.dtype == np.float32 and z.shape == (4, 7)
    assert z[:, :3].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert np.array_equal(z[:, 3:], before[:, 3:]) and np.array_equal(noise, before)


def test_generator_sees_the_class(model):
    G = model.Generator(tiny(model, init="paddle"))
    with_state(G, random_state(G))
    one, other = (tensor(model.with_labels(np.ones((1, 7)), [y], 3)) for y in (0, 1))
    assert float((G(one) - G(other)).abs().max()) > 1e-3


@pytest.mark.parametrize("form, imsize", FORMS)
def test_gradients_reach_every_parameter(model, form, imsize):
    import paddle

    arch = tiny(model, form, imsize, activation_noise=0.1)
    G, D = model.Generator(arch), model.Discriminator(arch)
    source, classes = D(G(paddle.randn([2, 7])))
    (source.sum() + classes.square().sum()).backward()
    named = [*G.named_parameters(), *D.named_parameters()]
    assert [n for n, p in named if not p.stop_gradient and p.grad is None] == []
    assert D(paddle.zeros([1, 3, imsize, imsize]))[0].shape == [1]


# ---- initialisation
# --------------------------------------------------------------------------------------------------


def split(net):
    """Values of a network by kind: convolutions, linear layers, biases of each, BatchNorm's scales
    and shifts.
    """
    import paddle

    kinds = {"conv": {}, "conv_bias": {}, "linear": {}, "linear_bias": {}, "scale": {}, "shift": {}}
    for name, layer in net.named_sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            kinds["scale"][name], kinds["shift"][name] = layer.weight.numpy(), layer.bias.numpy()
        elif getattr(layer, "weight", None) is not None:
            kind = "linear" if isinstance(layer, paddle.nn.Linear) else "conv"
            kinds[kind][name] = layer.weight.numpy()
            if layer.bias is not None:
                kinds[f"{kind}_bias"][name] = layer.bias.numpy()
    return kinds


def initialised(model, init, form="callifrey"):
    import paddle

    paddle.seed(3)
    arch = tiny(model, form, ngf=32, ndf=32, nz=110, init=init)
    return split(model.Generator(arch)), split(model.Discriminator(arch))


def assert_normal(values, mean, std):
    """Mean, standard deviation and the share beyond one of them, each within five of its own
    standard errors.
    """
    values = np.asarray(values).ravel().astype("float64")
    error = 5 / np.sqrt(values.size)
    assert values.mean() == pytest.approx(mean, abs=std * error)
    assert values.std() == pytest.approx(std, rel=error)
    assert (np.abs(values - mean) > std).mean() == pytest.approx(0.3173, abs=error / 2)


def zero(values):
    return all((v == 0).all() for v in values.values())


@pytest.mark.parametrize("form", ["callifrey", "clvrai"])
def test_the_papers_initialisation_reaches_every_weight(model, form):
    for kinds in initialised(model, "normal", form):
        assert len(kinds["conv"]) in (4, 6) and len(kinds["linear"]) in (1, 2)
        assert bool(kinds["conv_bias"]) == (form == "callifrey")
        for values in [*kinds["conv"].values(), *kinds["linear"].values()]:
            assert_normal(values, 0.0, 0.02)
        assert zero(kinds["conv_bias"]) and zero(kinds["linear_bias"]) and zero(kinds["shift"])
        assert all((v == 1).all() for v in kinds["scale"].values())


def test_clvrais_initialisation(model):
    """N(0, 0.02), BatchNorm's scale N(1, 0.02), linear layers as torch makes them: U(-b, b), b = 1
    / sqrt(inputs).
    """
    scales = []
    for kinds in initialised(model, "clvrai", "clvrai"):
        for values in kinds["conv"].values():
            assert_normal(values, 0.0, 0.02)
        scales += kinds["scale"].values()
        assert zero(kinds["shift"]) and not kinds["conv_bias"]
        for name, w in kinds["linear"].items():
            bound, bias = len(w) ** -0.5, kinds["linear_bias"][name]
            assert 0.97 * bound < np.abs(w).max() <= bound
            assert w.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
            assert 0 < np.abs(bias).max() <= bound
    assert_normal(np.concatenate(scales), 1.0, 0.02)


def test_paddles_initialisation(model):
    """As Callifrey's: convolutions N(0, sqrt(2 / inputs)); transposed ones and linear layers
    Xavier-uniform.
    """
    G, D = initialised(model, "paddle")
    for w in D["conv"].values():
        assert_normal(w, 0.0, np.sqrt(2 / np.prod(w.shape[1:])))
    for w in [*G["conv"].values(), *G["linear"].values(), *D["linear"].values()]:
        bound = np.sqrt(6 / ((w.shape[0] + w.shape[1]) * np.prod(w.shape[2:])))
        assert 0.97 * bound < np.abs(w).max() <= bound * (1 + 1e-6)
        assert w.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    for kinds in (G, D):
        assert zero(kinds["conv_bias"]) and zero(kinds["linear_bias"]) and zero(kinds["shift"])
        assert all((v == 1).all() for v in kinds["scale"].values())


@pytest.mark.parametrize("init", ["normal", "clvrai", "paddle"])
def test_seed_fixes_the_weights(model, init):
    import paddle

    def states(seed):
        paddle.seed(seed)
        return [
            net(tiny(model, init=init)).state_dict()
            for net in (model.Generator, model.Discriminator)
        ]

    one, same, other = states(1), states(1), states(2)
    assert all(
        np.array_equal(a[k].numpy(), b[k].numpy())
        for a, b in zip(one, same, strict=True)
        for k in a
    )
    drawn = [
        (a[k].numpy(), b[k].numpy())
        for a, b in zip(one, other, strict=True)
        for k in a
        if a[k].ndim > 1
    ]
    assert len(drawn) == 5 + 8 and not any(np.array_equal(a, b) for a, b in drawn)


# ---- Architecture ----


@pytest.mark.parametrize(
    "changes, flag",
    [
        ({"imsize": 48}, "--imageSize 48"),
        ({"imsize": 256, "form": "clvrai"}, "--imageSize 256"),
        ({"nz": 0}, "--nz 0"),
        ({"nz": 10}, "--nz 10: must exceed the 10 classes"),
        ({"num_classes": 200}, "--nz 110: must exceed the 200 classes"),
        ({"ngf": 6}, "--ngf 6: must be a multiple of 4"),
        ({"ndf": 3}, "--ndf 3: must be a multiple of 4"),
    ],
)
def test_impossible_values_name_their_flag(model, changes, flag):
    with pytest.raises(UserError, match=f"^{flag}") as error:
        model.Architecture(**changes)
    assert "\n" not in str(error.value)


def test_architecture_survives_a_checkpoint(model):
    arch = tiny(model, "clvrai", 64, fc_relu=False, init="clvrai", activation_noise=0.1)
    assert model.Architecture.from_dict(json.loads(json.dumps(arch.to_dict()))) == arch
    with pytest.raises(UserError, match=r"entries \['colour', 'form'\] are unknown or missing"):
        model.Architecture.from_dict(
            {k: v for k, v in arch.to_dict().items() if k != "form"} | {"colour": 1}
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 0},
        {"ngf": 0},
        {"ndf": -4},
        {"form": "dcgan"},
        {"init": "xavier"},
        {"activation_noise": -0.1},
        {"activation_noise": float("nan")},
    ],
)
def test_senseless_values_of_a_file_are_refused(model, changes):
    with pytest.raises(UserError, match=f"architecture: {next(iter(changes))} cannot be"):
        model.Architecture.from_dict(model.Architecture().to_dict() | changes)


def test_the_default_is_the_paper_at_the_seeds_size(model):
    arch = model.Architecture()
    assert (arch.imsize, arch.num_classes, arch.nz, arch.ngf, arch.ndf) == (128, 10, 110, 64, 64)
    assert (arch.fc_relu, arch.init, arch.activation_noise) == (True, "normal", 0.0)
