"""convert.py: the reference implementations' numbers, and every key map against files written by
hand here.
"""

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from tests.conftest import run_cli, shared_dir
from tests.sagan.published_layouts import (
    OLD_STUDIOGAN_LAYERS,
    STUDIOGAN_LAYERS,
    STUDIOGAN_PLACES,
    mmgen_file,
    one_hot_layers,
    random_states,
    save,
    translate,
)

SIZES = {"g_conv_dim": 8, "d_conv_dim": 8, "z_dim": 6}


@pytest.fixture
def sagan(paper):
    return paper("sagan")


def networks(model, arch, generator, discriminator):
    """G and D in eval mode from state dicts, as functions of numpy arrays."""
    import paddle

    nets = (
        model.Generator(replace(arch, init="xavier")),
        model.Discriminator(replace(arch, init="xavier")),
    )
    for net, state in zip(nets, (generator, discriminator), strict=True):
        weights.load_into(net, state, "network", "test")
        net.eval()

    def function(net):
        def run(x, y):
            with paddle.no_grad():
                return net(paddle.to_tensor(np.ascontiguousarray(x)), paddle.to_tensor(y)).numpy()

        return run

    return [function(net) for net in nets]


# ---- the reference implementations' numbers ----


@pytest.mark.parametrize("family", ["voletiv", "studiogan_cifar10", "mmgen_cifar10"])
def test_images_and_logits_are_the_reference_codes(sagan, family):
    folder = shared_dir(f"parity/sagan_{family}")
    files = sorted(folder.glob("*.pth"))
    second = [f for f in files if f.name.startswith("model=D")]
    result = sagan.convert.read_published(next(f for f in files if f not in second), *second)
    with np.load(folder / "cases.npz") as stored:
        cases = dict(stored)
    if family.startswith("mmgen"):  # the stored arrays are as that network speaks: BGR
        cases["images"], cases["real_images"] = (
            cases["images"][:, ::-1],
            cases["real_images"][:, ::-1],
        )
    G, D = networks(
        sagan.model,
        result.architecture,
        result.networks["generator"],
        result.networks["discriminator"],
    )
    x, y = cases["images"], cases["labels"]
    following = (y + 1) % result.architecture.num_classes
    for got, want in [
        (G(cases["z"], y), x),
        (D(x, y), cases["d_logits"]),
        (D(x, following), cases["d_logits_next"]),
        (D(cases["real_images"], cases["real_labels"]), cases["d_logits_real"]),
    ]:
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)


# ---- files of every family, written by published_layouts ----


def assert_same(result, arch, G, D):
    assert result.architecture == arch
    for got, want in ((result.networks["generator"], G), (result.networks["discriminator"], D)):
        assert set(got) == set(want)
        assert [k for k in want if not np.array_equal(got[k], want[k])] == []


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_studiogan(sagan, tmp_path, old, prefix):
    arch = sagan.model.architecture("studiogan", 32, 5, **SIZES)
    G, D = random_states(sagan.model, arch)
    g_file = translate(G, STUDIOGAN_PLACES[0], OLD_STUDIOGAN_LAYERS if old else STUDIOGAN_LAYERS)
    g_file = g_file if old else one_hot_layers(g_file)
    d_file = translate(D, STUDIOGAN_PLACES[1], STUDIOGAN_LAYERS)
    g_path, d_path = (
        save(
            tmp_path / name,
            {"state_dict": {prefix + k: v for k, v in state.items()}, "optimizer": {"state": {}}},
        )
        for name, state in (
            ("model=G-best-weights-step=90000.pth", g_file),
            ("model=D-best-weights.pth", d_file),
        )
    )
    result = sagan.convert.read_published(g_path, d_path)
    assert_same(result, arch, G, D)
    assert (result.family, result.source["iteration"], result.source["ema"]) == (
        "studiogan",
        90000,
        False,
    )
    assert result.source["sha256"] == files.file_sha256(g_path)
    alone = sagan.convert.read_published(g_path)
    assert "discriminator" not in alone.networks and alone.architecture.g_conv_dim == 8


def test_studiogans_averaged_generator_is_told_by_its_name(sagan, tmp_path):
    G, _ = random_states(sagan.model, sagan.model.architecture("studiogan", 32, 5, **SIZES))
    state = {"state_dict": translate(G, STUDIOGAN_PLACES[0], OLD_STUDIOGAN_LAYERS)}
    path = save(tmp_path / "model=G_ema-best-weights-step=5.pth", state)
    assert sagan.convert.read_published(path, ema=True).source["ema"]
    with pytest.raises(UserError, match="--no_ema: .* holds the averaged generator only"):
        sagan.convert.read_published(path, ema=False)


# The files that the tables of MMGeneration and MMagic link: name -> (BGR, skips take ReLU(x)).
CIFAR = "sagan_cifar10_32_lr2e-4_ndisc5_b64x1_"
IMAGENET = "sagan_imagenet1k_128_Glr1e-4_Dlr4e-4_ndisc1_b32x4_"
BIGGAN = "sagan_128_woReLUinplace_noaug_bigGAN_imagenet1k_b32x8_Glr1e-4_Dlr-4e-4_ndisc1_"
MMGEN_NAMES = {
    f"{CIFAR}woReUinplace_is-iter400000_20210730_125743-4008a9ca.pth": (True, False),
    f"{CIFAR}woReUinplace_fid-iter480000_20210730_125449-d50568a4.pth": (True, False),
    f"{CIFAR}wReLUinplace_is-iter380000_20210730_124937-c77b4d25.pth": (True, True),
    f"{CIFAR}wReLUinplace_fid-iter460000_20210730_125155-cbefb354.pth": (True, True),
    f"{IMAGENET}woReLUinplace_is-iter980000_20210730_163140-cfbebfc6.pth": (True, False),
    f"{IMAGENET}woReLUinplace_fid-iter950000_20210730_163431-d7916963.pth": (True, False),
    f"{BIGGAN}20210818_210232-3f5686af.pth": (True, False),
    "sagan_32_cifar10_convert-studio-rgb_20210730_153321-080da7e2.pth": (False, True),
    "sagan_128_imagenet1k_convert-studio-rgb_20210730_153357-eddb0d1d.pth": (False, True),
    "sagan_32_cvt_studioGAN.pth": (False, True),  # as their configurations are called
}


@pytest.mark.parametrize("name", MMGEN_NAMES)
def test_mmgen_by_its_published_names(sagan, tmp_path, capsys, name):
    """What no key tells: the colour order, and whether skips take ReLU(x). The averaged generator
    of the BigGAN schedule is told by its keys.
    """
    bgr, skip_relu = MMGEN_NAMES[name]
    averaged = "bigGAN" in name
    form = "mmgen-biggan" if averaged else "mmgen"
    arch = sagan.model.architecture(form, 32, 5, skip_relu=skip_relu, **SIZES)
    G, D = random_states(sagan.model, arch)
    content = mmgen_file(G, D, bgr, G if averaged else None)
    result = sagan.convert.read_published(save(tmp_path / name, content))
    assert_same(result, arch, G, D)
    assert (result.family, result.source["color_order"]) == ("mmgen", "bgr" if bgr else "rgb")
    assert result.source["ema"] is averaged
    assert capsys.readouterr().err == ""


def test_a_name_that_does_not_tell_is_a_warning(sagan, tmp_path, capsys):
    arch = sagan.model.architecture("mmgen", 32, 5, **SIZES)
    G, D = random_states(sagan.model, arch)
    path = save(tmp_path / "mine.pth", mmgen_file(G, D, True))
    sagan.convert.main([str(path), str(tmp_path / "out.pdparams")])
    assert_same(sagan.convert.read_published(path), arch, G, D)
    for read in (
        sagan.convert.read_weights,
        sagan.convert.read_published,
    ):  # test.py's, convert.py's
        capsys.readouterr()
        read(path)
        warning = capsys.readouterr().err
        assert warning.startswith(f"warning: {path}: ") and warning.count("\n") == 1
        assert "--color_order" in warning and "--skip_relu" in warning
    sagan.convert.read_published(path, color_order="bgr", skip_relu=False)
    assert capsys.readouterr().err == ""  # told


@pytest.mark.parametrize(
    "name, averaged, told",
    [
        ("model=G-best-weights-step=90000.pth", False, True),
        ("model=G_ema-best-weights-step=90000.pth", True, True),
        ("mine.pth", False, False),
    ],
)
def test_studiogan_by_its_published_names(sagan, tmp_path, capsys, name, averaged, told):
    G, _ = random_states(sagan.model, sagan.model.architecture("studiogan", 32, 5, **SIZES))
    state = {"state_dict": translate(G, STUDIOGAN_PLACES[0], OLD_STUDIOGAN_LAYERS)}
    result = sagan.convert.read_published(save(tmp_path / name, state))
    assert result.source["ema"] is averaged and result.source["color_order"] == "rgb"
    assert result.source["iteration"] == (90000 if told else None)
    assert ("raw or averaged" in capsys.readouterr().err) is not told


@pytest.mark.parametrize("prefix", ["generator_ema.", "generator_ema.module."])
def test_mmgen_biggan_schedule(sagan, tmp_path, prefix):
    """cBN's tables are plain there, and the averaged generator is the one taken."""
    arch = sagan.model.architecture("mmgen-biggan", 32, 5, **SIZES)
    (raw, D), (averaged, _) = (
        random_states(sagan.model, arch, 0),
        random_states(sagan.model, arch, 1),
    )
    steps = {"generator_ema.steps": np.int64(9)} if "module" in prefix else {}
    path = save(tmp_path / "bigGAN_sch.pth", mmgen_file(raw, D, True, averaged, prefix, **steps))
    result = sagan.convert.read_published(path)
    assert_same(result, arch, averaged, D)
    assert result.source["ema"] and result.source["iteration"] == 826000
    assert arch.bn_eps == 1e-5 and not arch.cbn_spectral
    assert_same(sagan.convert.read_published(path, ema=False), arch, raw, D)


def test_bgr_weights_speak_rgb_afterwards(sagan, tmp_path):
    """The file's own networks, read as they are, against the permuted ones on flipped images."""
    arch = sagan.model.architecture("mmgen", 32, 5, **SIZES)
    G, D = random_states(sagan.model, arch)
    path = save(tmp_path / "x.pth", mmgen_file(G, D, False))
    raw, swapped = (sagan.convert.read_published(path, color_order=o) for o in ("rgb", "bgr"))
    rng = np.random.default_rng(2)
    z, y, x = (
        rng.standard_normal((3, 6)).astype("float32"),
        np.array([0, 4, 2]),
        rng.random((3, 3, 32, 32), "float32"),
    )
    raw_G, raw_D = networks(
        sagan.model, arch, raw.networks["generator"], raw.networks["discriminator"]
    )
    G, D = networks(
        sagan.model, arch, swapped.networks["generator"], swapped.networks["discriminator"]
    )
    np.testing.assert_allclose(G(z, y)[:, ::-1], raw_G(z, y), atol=1e-6)
    np.testing.assert_allclose(D(x[:, ::-1], y), raw_D(x, y), atol=1e-5)
    assert np.abs(G(z, y) - raw_G(z, y)).max() > 1e-2 and np.abs(D(x, y) - raw_D(x, y)).max() > 1e-3


# voletiv and Atmosphere, 128 px: our names but for attention, which has no number.
def originals_names(state):
    return {k.replace("self_attn.32.", "self_attn."): v for k, v in state.items()}


def dead_skip(width):
    rng, names = np.random.default_rng(5), ("weight_orig", "bias", "weight_u", "weight_v")
    shapes = [(width, width, 1, 1), (width,), (width,), (width,)]
    return {
        f"block5.snconv2d0.{n}": rng.random(s, "float32")
        for n, s in zip(names, shapes, strict=True)
    }


@pytest.mark.parametrize("prefix", ["", "module."])
def test_voletiv(sagan, tmp_path, prefix):
    arch = sagan.model.architecture("sagan", 128, 5, skip_relu=True, **SIZES)
    G, D = random_states(sagan.model, arch)
    same = {name.split(".")[0]: name.split(".")[0] for name in [*G, *D]}
    nets = [originals_names(translate(net, same, {})) for net in (G, D)]
    nets[1] |= dead_skip(128)
    data = {
        f"{n}_state_dict": {prefix + k: v for k, v in net.items()}
        for n, net in zip("GD", nets, strict=True)
    }
    result = sagan.convert.read_published(save(tmp_path / "ckpt_0000012.pth", data | {"step": 12}))
    assert_same(result, arch, G, D)
    assert (result.family, result.source["iteration"]) == ("voletiv", 12)
    assert any("dropped D's block5.snconv2d0" in note for note in result.notes)


def test_atmosphere(sagan, tmp_path):
    """paddle.save's own container, cBN with an affine BatchNorm inside: folded, the images stay."""
    import paddle

    arch = sagan.model.architecture("sagan", 128, 5, **SIZES)
    G, D = random_states(sagan.model, arch)
    rng, affine = np.random.default_rng(3), {}
    for name in [
        k.removesuffix("._mean")
        for k in G
        if k.endswith("cond_bn1.bn._mean") or k.endswith("cond_bn2.bn._mean")
    ]:
        affine |= {
            f"{name}.{leaf}": rng.standard_normal(G[f"{name}._mean"].shape, "float32")
            for leaf in ("weight", "bias")
        }
    nets = {
        "G_state_dict": originals_names(G | affine),
        "D_state_dict": originals_names(D | dead_skip(128)),
    }
    nets = {n: {k: paddle.to_tensor(v) for k, v in net.items()} for n, net in nets.items()}
    paddle.save(
        nets | {"step": 2015000, "G_optimizer_state_dict": {}},
        str(tmp_path / "sagan_paddle_pretrained.pdparams"),
    )
    result = sagan.convert.read_published(tmp_path / "sagan_paddle_pretrained.pdparams")
    assert (result.family, result.architecture, result.source["iteration"]) == (
        "atmosphere",
        arch,
        2015000,
    )
    assert any("affine maps of 10 BatchNorms" in note for note in result.notes)
    assert [k for k in D if not np.array_equal(result.networks["discriminator"][k], D[k])] == []

    reference = sagan.model.Generator(
        arch
    )  # the original's: the affine map stands in the BatchNorm itself
    reference.set_state_dict(G)
    for name, layer in reference.named_sublayers():
        if name.endswith((".cond_bn1", ".cond_bn2")):
            layer.bn.weight = layer.bn.create_parameter([layer.bn._num_features])
            layer.bn.bias = layer.bn.create_parameter([layer.bn._num_features])
            layer.bn.weight.set_value(affine[f"{name}.bn.weight"])
            layer.bn.bias.set_value(affine[f"{name}.bn.bias"])
    reference.eval()
    z, y = rng.standard_normal((2, 6)).astype("float32"), np.array([4, 1])
    want = reference(paddle.to_tensor(z), paddle.to_tensor(y)).numpy()
    G, _ = networks(
        sagan.model, arch, result.networks["generator"], result.networks["discriminator"]
    )
    np.testing.assert_allclose(G(z, y), want, atol=2e-6)
    for name, layer in reference.named_sublayers():
        if name.endswith((".cond_bn1", ".cond_bn2")):
            layer.bn.bias.set_value(affine[f"{name}.bn.bias"] * 0)  # the map matters
    assert np.abs(reference(paddle.to_tensor(z), paddle.to_tensor(y)).numpy() - want).max() > 0.01


@pytest.mark.parametrize("step", ["later", [1], np.zeros(3), np.nan])
def test_a_step_count_that_is_none_is_left_out(sagan, tmp_path, step):
    arch = sagan.model.architecture("mmgen", 32, 5, **SIZES)
    data = mmgen_file(*random_states(sagan.model, arch), True)
    data["meta"]["iter"] = step
    path = save(tmp_path / "x.pth", data)
    assert sagan.convert.read_published(path).source["iteration"] is None


def test_flags_replace_what_the_family_assumes(sagan, tmp_path):
    arch = sagan.model.architecture("mmgen", 32, 5, **SIZES)
    path = save(tmp_path / "x.pth", mmgen_file(*random_states(sagan.model, arch), False))
    result = sagan.convert.read_published(
        path, bn_eps=1e-3, sn_eps=1e-4, skip_relu=True, color_order="rgb"
    ).architecture
    assert (result.bn_eps, result.skip_relu) == (1e-3, True)
    assert {result.sn_eps, result.block_sn_eps, result.attention_sn_eps} == {1e-4}


@pytest.mark.parametrize(
    "form, places", [("studiogan", {"d_attention": (16, 8)}), ("sagan", {"g_attention": ()})]
)
def test_attention_is_read_from_the_keys(sagan, tmp_path, form, places):
    """Two places in D (entries 1 and 3 of StudioGAN's list), or none in G."""
    arch = sagan.model.architecture("studiogan", 32, 5, **(SIZES | places))
    G, D = random_states(sagan.model, arch)
    g_places, d_places = dict(STUDIOGAN_PLACES[0]), dict(STUDIOGAN_PLACES[1])
    if form == "studiogan":
        d_places |= {"self_attn.8": "blocks.3.0", "block2": "blocks.4.0", "block3": "blocks.5.0"}
    else:
        g_places["block3"] = "blocks.2.0"
    g_path = save(tmp_path / "G.pth", {"state_dict": translate(G, g_places, OLD_STUDIOGAN_LAYERS)})
    d_path = save(tmp_path / "D.pth", {"state_dict": translate(D, d_places, OLD_STUDIOGAN_LAYERS)})
    assert_same(sagan.convert.read_published(g_path, d_path), arch, G, D)


# ---- what is refused ----


def lacking(state):
    del state["generator.conv_blocks.1.conv_2.conv.weight_v"]


def surplus(state):
    state["generator.conv_blocks.1.conv_9.conv.bias"] = np.zeros(3, "float32")


def misshaped(state):
    state["discriminator.proj_y.weight_orig"] = np.zeros((6, 16), "float32")


def stranger(state):
    state["encoder.weight"] = np.zeros(3, "float32")


def wrong_width(state):
    state["generator.noise2feat.weight_orig"] = np.zeros((16, 6), "float32")


def not_finite(state):
    state["generator.to_rgb.bn.bias"][1] = np.inf


def no_table(state):
    del state["generator.conv_blocks.0.norm_1.weight_embedding.weight_orig"]


@pytest.mark.parametrize(
    "damage, words",
    [
        (lacking, r"generator.* 1 missing \(block2\.snconv2d2\.weight_v\)"),
        (surplus, r"generator.* 1 unexpected \(block2\.conv_9\.conv\.bias\)"),
        (
            misshaped,
            r"discriminator.*\(sn_embedding1\.weight_orig: file \(6, 16\), network \(5, 16\)",
        ),
        (stranger, "unexpected keys beside generator and discriminator: encoder"),
        (wrong_width, "its shapes make no network"),
        (not_finite, r"bn\.bias of the generator.* holds NaN or infinite values"),
        (no_table, r"lacks block1\.cond_bn1\.gain\.weight"),
    ],
)
def test_every_foreign_key_is_an_error(sagan, tmp_path, damage, words):
    arch = sagan.model.architecture("mmgen", 32, 5, **SIZES)
    data = mmgen_file(*random_states(sagan.model, arch), True)
    damage(data["state_dict"])
    path = save(tmp_path / "x.pth", data)
    with pytest.raises(UserError, match=words) as error:
        sagan.convert.read_published(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_refusals(sagan, tmp_path):
    convert = sagan.convert
    arch = sagan.model.architecture("mmgen", 32, 5, **SIZES)
    G, D = random_states(sagan.model, arch)
    mmgen = save(tmp_path / "mmgen.pth", mmgen_file(G, D, True))
    with pytest.raises(UserError, match="--ema: .*mmgen.pth holds the raw generator only"):
        convert.read_published(mmgen, ema=True)
    studio = save(
        tmp_path / "D.pth", {"state_dict": translate(D, STUDIOGAN_PLACES[1], STUDIOGAN_LAYERS)}
    )
    with pytest.raises(UserError, match="D.pth: holds discriminator weights only; give the"):
        convert.read_published(studio)
    with pytest.raises(
        UserError, match="--discriminator .*D.pth: holds no discriminator of the mmgen family"
    ):
        convert.read_published(mmgen, studio)
    with pytest.raises(UserError, match="no SAGAN weights of a known family.*begin with a.b"):
        convert.read_published(save(tmp_path / "other.pth", {"a.b": np.zeros(3)}))
    with pytest.raises(UserError, match="no SAGAN weights of a known family"):
        convert.read_published(save(tmp_path / "list.pth", [1, 2]))
    with pytest.raises(UserError, match="no SAGAN weights of a known family"):
        convert.read_published(save(tmp_path / "none.pth", {"G_state_dict": None}))
    stray = translate(D, STUDIOGAN_PLACES[1], STUDIOGAN_LAYERS) | {"stray": np.zeros(3)}
    stray = save(tmp_path / "stray.pth", {"state_dict": stray})
    G_file = save(tmp_path / "G.pth", translate(G, STUDIOGAN_PLACES[0], OLD_STUDIOGAN_LAYERS))
    with pytest.raises(UserError, match=r"stray.pth: .*discriminator.* 1 unexpected \(stray\)"):
        convert.read_published(G_file, stray)
    with pytest.raises(UserError, match="in this repository's layout already"):
        convert.read_published(
            save(tmp_path / "own.pdparams", convert.read_published(mmgen).saved())
        )
    big, _ = random_states(sagan.model, sagan.model.architecture("studiogan", 64, 5, **SIZES))
    places = dict(STUDIOGAN_PLACES[0]) | {
        "self_attn.32": "blocks.3.0",
        "block3": "blocks.2.0",
        "block4": "blocks.4.0",
    }
    big = save(tmp_path / "G64.pth", {"state_dict": translate(big, places, OLD_STUDIOGAN_LAYERS)})
    with pytest.raises(UserError, match="D is for 32 px, the G of .* for 64 px"):
        convert.read_published(big, studio)


def test_read_weights_takes_every_kind(sagan, tmp_path):
    read = sagan.convert.read_weights
    arch = sagan.model.architecture("mmgen", 32, 5, **SIZES)
    G, D = random_states(sagan.model, arch)
    published = read(save(tmp_path / "published.pth", mmgen_file(G, D, True)))
    assert sorted(published) == ["architecture", "discriminator", "generator", "source"]
    assert sagan.model.Architecture.from_dict(published["architecture"]) == arch
    own = read(save(tmp_path / "own.pdparams", published | {"iteration": 3}))
    assert own["iteration"] == 3 and files.digest(own["generator"]) == files.digest(G)
    bare = read(save(tmp_path / "bare.pdparams", G))
    assert list(bare) == ["generator"] and files.digest(bare["generator"]) == files.digest(G)


# ---- the command ----


def test_command(sagan, tmp_path):
    import paddle

    arch = sagan.model.architecture("mmgen", 32, 5, **SIZES)
    G, D = random_states(sagan.model, arch)
    source = save(tmp_path / "重 量" / "sagan_woReUinplace.pth", mmgen_file(G, D, True))
    out = run_cli("sagan", "convert.py", source, tmp_path / "out.pdparams").stdout
    for words in (
        "mmgen, 32 px, 5 classes",
        "--bn_eps",
        "--sn_eps",
        "--skip_relu",
        "bgr, permuted to RGB",
        "wrote",
    ):
        assert words in out
    written = paddle.load(str(tmp_path / "out.pdparams"), return_numpy=True)
    assert files.digest(written["generator"]) == files.digest(G)
    assert files.digest(written["discriminator"]) == files.digest(D)
    assert written["architecture"] == arch.to_dict() and written["source"]["file"] == source.name


def test_command_errors_are_one_line(sagan, tmp_path):
    hostile = tmp_path / "x.pdparams"
    hostile.write_bytes(pickle.dumps(print))
    process = run_cli("sagan", "convert.py", hostile, tmp_path / "out.pdparams", code=2)
    assert (
        re.search("^convert.py: error: .*refused", process.stderr, re.M)
        and "Traceback" not in process.stderr
    )
    assert not (tmp_path / "out.pdparams").exists()
    with pytest.raises(UserError, match="x.pdparams: is the source itself"):
        sagan.convert.main([str(hostile), str(hostile)])
    assert hostile.read_bytes() == pickle.dumps(print)
