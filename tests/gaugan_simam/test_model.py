"""GauGAN's networks: published sizes, shapes, the VAE branch, initialisation, impossible
architectures.
"""

import json

import numpy as np
import pytest

from shared_metrics.errors import UserError
from tests.gaugan_simam.networks import arrays, tensor, tiny

RNG = np.random.default_rng


@pytest.fixture
def model(paper):
    return paper("gaugan_simam").model


# ---- published sizes ----


@pytest.fixture
def sizes(model, monkeypatch):
    """sizes(network class, architecture) -> (trainable numbers, numbers and keys of the state),
    weights unallocated.
    """
    import paddle

    create, shapes = paddle.nn.Layer.create_parameter, {}

    def small(self, shape, attr=None, *args, **kwargs):
        parameter = create(self, [1], attr, *args, **kwargs)
        if parameter is not None:
            shapes[id(parameter)] = parameter, int(np.prod(shape))
        return parameter

    monkeypatch.setattr(paddle.nn.Layer, "create_parameter", small)
    monkeypatch.setattr(model.SNConv, "power_iteration", lambda self, times=1: None)

    def count(network, arch):
        net = network(arch)
        trainable = sum(shapes[id(p)][1] for p in net.parameters() if not p.stop_gradient)
        state = net.state_dict().values()
        return (
            trainable,
            sum(shapes[id(v)][1] if id(v) in shapes else int(v.size) for v in state),
            len(state),
        )

    return count


def test_photopen_has_the_published_sizes(model, sizes):
    arch = model.architecture("photopen")
    assert (arch.nc, arch.semantic_nc, arch.start, arch.size) == (13, 14, (8, 8), (256, 256))
    assert sizes(model.Generator, arch) == (19_191_339, 19_234_107, 216)
    trainable, _, keys = sizes(model.Discriminator, arch)
    assert (trainable, keys) == (61_017_604, 136)


CITYSCAPES = {
    "label_nc": 35,
    "contain_dontcare_label": False,
    "crop_size": 512,
    "aspect_ratio": 2.0,
}
CITYSCAPES |= {"num_upsampling_layers": "more"}
ADE20K = {"label_nc": 150, "no_instance": True}


@pytest.mark.parametrize(
    "changes, channels, g, d",
    [
        ({}, 184, 97_480_899, 5_904_514),
        (ADE20K, 151, 96_492_483, 5_836_930),
        (CITYSCAPES, 36, 93_048_003, 5_601_410),
        ({"use_vae": True}, 184, 112_626_883, 5_904_514),
    ],
)
def test_nvlabs_has_the_published_sizes(model, sizes, changes, channels, g, d):
    arch = model.architecture("nvlabs", **changes)
    assert arch.semantic_nc == channels
    assert sizes(model.Generator, arch)[0] == g
    assert sizes(model.Discriminator, arch)[0] == d
    if "use_vae" in changes:
        assert sizes(model.Encoder, arch)[0] == 10_463_424
    if "aspect_ratio" in changes:
        assert (arch.start, arch.size) == ((4, 8), (256, 512))


def test_state_has_234_entries_less_num_batches_tracked(model, sizes):
    """NVlabs' 234 entries of G hold one num_batches_tracked for each of its 18 norms."""
    assert sizes(model.Generator, model.architecture("nvlabs"))[2] == 234 - 18


SIDES = [
    [129, 65, 33, 17, 9, 10, 11],
    [65, 33, 17, 9, 5, 6, 7],
    [33, 17, 9, 5, 3, 4, 5],
    [17, 9, 5, 3, 2, 3, 4],
]


def test_side_lengths_of_the_discriminator(model):
    import paddle

    D = model.Discriminator(tiny(model, label_nc=12, ndf=1))
    scales = D(paddle.zeros([1, 17, 256, 256]))
    assert [[x.shape[2] for x in scale] for scale in scales] == SIDES
    assert [x.shape[1] for x in scales[0]] == [1, 2, 4, 8, 16, 32, 1]
    D = model.Discriminator(tiny(model, "nvlabs", label_nc=2))
    assert [len(scale) for scale in D(paddle.zeros([1, 7, 32, 32]))] == [5, 5]
    widths = model.architecture("photopen").d_blocks()
    assert [row[1:] for row in widths] == [
        (128, 2),
        (256, 2),
        (512, 2),
        (512, 2),
        (512, 2),
        (512, 1),
        (1, 1),
    ]


# ---- whole networks ----


@pytest.mark.parametrize(
    "variant, layers, crop, ratio, start",
    [
        ("photopen", "normal", 64, 1.0, (2, 2)),
        ("nvlabs", "more", 128, 2.0, (1, 2)),
        ("photopen", "most", 128, 1, (1, 1)),
    ],
)
def test_generator_shapes_range_and_gradients(model, variant, layers, crop, ratio, start):
    import paddle

    norm = (
        "spectralspadebatch3x3" if layers == "normal" else "spectralspadebatch1x1"
    )  # the latter are fast
    arch = tiny(
        model,
        variant,
        num_upsampling_layers=layers,
        crop_size=crop,
        aspect_ratio=ratio,
        norm_G=norm,
    )
    assert arch.start == start and arch.size == (int(crop / ratio), crop)
    G = model.Generator(arch)
    assert ("up_4.spade_0.mlp_gamma.weight" in G.state_dict()) == (layers == "most")
    assert G.conv_img.weight.shape[1] == (arch.ngf // 2 if layers == "most" else arch.ngf)
    x = G(model.semantics(RNG(0).integers(arch.nc, size=(2, *arch.size)), None, arch))
    assert x.shape == [2, 3, *arch.size] and float(x.abs().max()) <= 1
    (x * paddle.randn(x.shape)).sum().backward()
    assert [n for n, p in G.named_parameters() if not p.stop_gradient and p.grad is None] == []
    assert all(np.isfinite(p.grad.numpy()).all() for p in G.parameters() if not p.stop_gradient)


@pytest.mark.parametrize(
    "h, w, H, W",
    [(64, 64, 8, 16), (286, 286, 256, 100), (21, 13, 8, 8), (5, 6, 5, 6), (4, 4, 8, 8)],
)
def test_maps_are_resized_as_torchs_legacy_nearest(model, h, w, H, W):
    seg = np.arange(h * w, dtype="float32").reshape(1, 1, h, w)
    rows, columns = (np.arange(n) * m // n for n, m in ((H, h), (W, w)))
    assert np.array_equal(
        model.resize_nearest(tensor(seg), H, W).numpy()[0, 0], seg[0, 0][rows][:, columns]
    )


def test_syncbatch_is_batch_on_the_cpu_and_a_note_says_so(model):
    plain, sync = (tiny(model, norm_G=f"spectralspade{kind}3x3") for kind in ("batch", "syncbatch"))
    assert model.sync_note(plain) == ""
    note = model.sync_note(sync)
    assert "syncbatch" in note and "plain BatchNorm" in note and "\n" not in note
    states = [model.SPADEResBlock(2, 2, arch).state_dict() for arch in (plain, sync)]
    assert list(states[0]) == list(states[1])


def test_several_gpus_have_the_same_keys(model, monkeypatch):
    """SyncBatchNorm's kernel wants a scale and a shift: constants, which no checkpoint holds."""
    import paddle

    arch = tiny(model, norm_G="spectralspadesyncbatch3x3")
    one = model.SPADEResBlock(2, 2, arch).state_dict()
    monkeypatch.setattr(model, "_synchronised", lambda: True)
    several = model.SPADEResBlock(2, 2, arch)
    assert list(several.state_dict()) == list(one)
    norm = several.spade_0.param_free_norm
    assert isinstance(norm, paddle.nn.SyncBatchNorm)
    assert norm.weight.tolist() == [1.0, 1.0] and norm.bias.tolist() == [0.0, 0.0]


def test_vae_branch_trains(model):
    """KLD is finite, its gradient and the image's reach the encoder, and G listens to z."""
    import paddle

    arch = tiny(model, use_vae=True)
    G, E = model.Generator(arch), model.Encoder(arch)
    assert G.fc.weight.shape == [4, 32] and "fc.weight" in G.state_dict()
    mu, logvar = E(paddle.randn([2, 3, 32, 32]))
    assert mu.shape == logvar.shape == [2, 4]
    kld = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
    assert np.isfinite(kld.item()) and kld.item() >= 0
    seg = model.semantics(RNG(0).integers(4, size=(2, 32, 32)), None, arch)
    z = mu + paddle.randn(mu.shape) * (0.5 * logvar).exp()
    (G(seg, z).square().mean() + 0.05 * kld).backward()
    for net in (G, E):
        assert [
            n for n, p in net.named_parameters() if not p.stop_gradient and p.grad is None
        ] == []
    assert (
        float(E.layer1[0].weight_orig.grad.abs().max()) > 0
        and float(G.fc.weight.grad.abs().max()) > 0
    )
    G.eval()
    assert float((G(seg, z) - G(seg, -z)).abs().max()) > 1e-4
    paddle.seed(1)
    drawn = G(seg)
    assert float((drawn - G(seg)).abs().max()) > 1e-5  # no z given: drawn anew


def test_seed_fixes_the_weights(model):
    import paddle

    states = []
    for seed in (1, 1, 2):
        paddle.seed(seed)
        states.append(arrays(model.Discriminator(tiny(model, num_D=1))))
    assert all(np.array_equal(v, states[1][k]) for k, v in states[0].items())
    random = [k for k in states[0] if k.endswith(("weight", "weight_orig", "weight_u", "weight_v"))]
    assert len(random) == 17 and not any(np.array_equal(states[0][k], states[2][k]) for k in random)


@pytest.mark.parametrize("variant", ["photopen", "nvlabs"])
def test_initialisation(model, variant):
    """Paddle's default, N(0, 2 / fan_in), or Glorot's normal with gain 0.02; biases 0."""
    arch = tiny(model, variant, ngf=4, ndf=16)
    G, D = model.Generator(arch), model.Discriminator(arch)
    for layer in (
        G.G_middle_0.spade_0.mlp_gamma,
        G.up_0.act_conv_0[1],
        D.nld_0["0"].block_2[0],
        G.fc,
    ):
        W = (layer.weight_orig if hasattr(layer, "weight_orig") else layer.weight).numpy()
        fan_in, fan_out = W[0].size, len(W) * W[0, 0].size
        std = (
            np.sqrt(2 / fan_in) if variant == "photopen" else 0.02 * np.sqrt(2 / (fan_in + fan_out))
        )
        assert W.std() == pytest.approx(std, rel=0.1) and abs(W.mean()) < std / 5
        assert layer.bias is None or float(layer.bias.abs().max()) == 0


def test_simam_has_no_weights_and_can_be_switched_in_both_variants(model):
    import paddle

    for variant in ("photopen", "nvlabs"):
        on, off = (
            tiny(model, variant, simam=simam, n_layers_D=2, num_D=1) for simam in (True, False)
        )
        for network, shape in (
            (model.Generator, [1, 5, 32, 32]),
            (model.Discriminator, [1, 8, 32, 32]),
        ):
            nets = [network(arch) for arch in (on, off)]
            assert {k: v.shape for k, v in nets[0].state_dict().items()} == {
                k: v.shape for k, v in nets[1].state_dict().items()
            }
            nets[1].set_state_dict(nets[0].state_dict())
            outputs = []
            for net in nets:
                net.eval()
                y = net(paddle.ones(shape))
                outputs.append((y if network is model.Generator else y[0][-1]).numpy())
            assert (
                np.isfinite(outputs).all()
                and np.abs(outputs[0] - outputs[1]).max() > 0.01 * np.abs(outputs[0]).max()
            )


# ---- Architecture ----


@pytest.mark.parametrize(
    "text, words",
    [
        ("spectralinstance", "G's norm is spade; write"),
        ("spadebatch", "'' is no square kernel"),
        ("spectralspadebatch3x5", "'3x5' is no square kernel"),
        ("spadeinstance4x4", "'4x4' is no square kernel of an odd side"),
        ("spadebatch3x3x3", "'3x3x3' is no square kernel"),
        ("spadebatch03x03", "'03x03' is no square kernel"),
        ("spadenone3x3", "no norm 'none' after spade"),
        ("spectralspade3x3", "no norm '' after spade"),
        ("spadeBatch3x3", "no norm 'Batch' after spade"),
        ("", "G's norm is spade"),
    ],
)
def test_norm_g_says_which_part_is_wrong(model, text, words):
    with pytest.raises(UserError, match=f"^norm_G {text}: ") as error:
        tiny(model, norm_G=text)
    assert words in str(error.value) and "spade{batch|syncbatch|instance}" in str(error.value)
    assert "\n" not in str(error.value)


def test_norm_g_is_read(model):
    assert tiny(model, norm_G="spectralspadesyncbatch5x5").norm_parts() == (True, "syncbatch", 5)
    assert tiny(model, norm_G="spadeinstance1x1").norm_parts() == (False, "instance", 1)
    G = model.Generator(tiny(model, norm_G="spadebatch1x1"))
    assert not any("weight_orig" in k for k in G.state_dict())
    assert G.head_0.spade_0.mlp_gamma.weight.shape == [32, 128, 1, 1] and G.conv_img.weight.shape[
        2:
    ] == [3, 3]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"crop_size": 250}, "crop_size 250: normal upsampling makes multiples of 32; take 256"),
        (
            {"crop_size": 64, "num_upsampling_layers": "most"},
            "crop_size 64: most .* of 128; take 128",
        ),
        ({"crop_size": 10}, "crop_size 10: .* take 32"),
        ({"aspect_ratio": 9.0}, "aspect_ratio 9.0: leaves no height"),
        ({"aspect_ratio": 0.0}, "aspect_ratio 0.0: must be a number above 0"),
        ({"aspect_ratio": float("nan")}, "aspect_ratio nan"),
        ({"simam_lambda": 0.0}, "simam_lambda 0.0"),
        (
            {"ngf": 1, "num_upsampling_layers": "most", "crop_size": 128},
            "ngf 1: must be at least 2",
        ),
    ],
)
def test_impossible_values_name_their_entry(model, changes, words):
    values = {"variant": "photopen"} | changes
    with pytest.raises(UserError, match=f"^{words}") as error:
        tiny(model, **values)
    assert "\n" not in str(error.value)


def test_architecture_survives_a_checkpoint(model):
    arch = model.architecture("nvlabs", **CITYSCAPES)
    assert model.Architecture.from_dict(json.loads(json.dumps(arch.to_dict()))) == arch
    with pytest.raises(UserError, match=r"entries \['colour', 'ngf'\] are unknown or missing"):
        model.Architecture.from_dict(
            {k: v for k, v in arch.to_dict().items() if k != "ngf"} | {"colour": 1}
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "pix2pix"},
        {"num_upsampling_layers": "less"},
        {"crop_size": 0},
        {"label_nc": 0},
        {"num_D": 0},
        {"n_layers_D": 0},
        {"use_vae": 1},
        {"aspect_ratio": "2"},
    ],
)
def test_senseless_values_of_a_file_are_refused(model, changes):
    values = model.architecture("photopen").to_dict() | changes
    with pytest.raises(UserError, match=f"architecture: {next(iter(changes))} cannot be"):
        model.Architecture.from_dict(values)
