"""convert.py: PaddleGAN's numbers, and both families' key maps against files written by hand
here.
"""

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from tests.conftest import run_cli, shared_dir
from tests.gaugan_simam.networks import arrays, randomize, tensor, tiny

SMALL = {"norm_G": "spectralspadebatch1x1", "ngf": 1, "num_D": 2, "n_layers_D": 2}


@pytest.fixture
def gaugan(paper):
    return paper("gaugan_simam")


# ---- the reference implementation's numbers ----


@pytest.mark.parametrize("file", ["n_g.pdparams", "iter_0_weight.pdparams"])
def test_images_and_every_output_of_the_discriminator_are_paddlegans(gaugan, file):
    import paddle

    folder = shared_dir("parity/photopen_paddle")
    result = gaugan.convert.read_published(folder / file, crop_size=64)
    arch = result.architecture
    assert (result.family, arch.ngf, arch.semantic_nc, arch.label_nc) == ("photopen", 1, 14, 12)
    with np.load(folder / "cases.npz") as stored:
        cases = dict(stored)
    G = gaugan.model.Generator(arch)
    weights.load_into(G, result.networks["generator"], "generator", file)
    G.eval()
    seg = gaugan.model.semantics(cases["in/ins"][:, 0], None, arch)
    assert np.array_equal(seg.numpy(), cases["G/one_hot"])
    with paddle.no_grad():
        np.testing.assert_allclose(G(seg).numpy(), cases["G/img_f"], atol=1e-4, rtol=0)
    assert ("discriminator" not in result.networks) == (file == "n_g.pdparams")
    if "discriminator" not in result.networks:
        return
    assert (arch.ndf, arch.num_D, arch.n_layers_D) == (2, 4, 6) and result.source["iteration"] == 0
    D = gaugan.model.Discriminator(arch)
    weights.load_into(D, result.networks["discriminator"], "discriminator", file)
    D.eval()
    for name, image in (("D_real", cases["in/img"]), ("D_fake", cases["G/img_f"])):
        with paddle.no_grad():
            outputs = D(paddle.concat([seg, tensor(image)], 1))
        assert [len(scale) for scale in outputs] == [7] * 4
        for i, scale in enumerate(outputs):
            for n, output in enumerate(scale):
                want = cases[f"{name}/scale{i}_out{n}"]
                np.testing.assert_allclose(
                    output.numpy(), want, atol=1e-4, rtol=0, err_msg=f"{name} {i} {n}"
                )


@pytest.mark.parametrize(
    "name, iteration",
    [("photopen.pdparams", None), ("n_g.pdparams", None), ("generator.pdparams", None)]
    + [("iter_40_weight.pdparams", 40), ("latest_net_G.pth", None)],
)
def test_published_names(gaugan, tmp_path, name, iteration):
    """PaddleGAN's are told by their keys whatever they are called; a name tells the iteration."""
    weights.save(arrays(gaugan.model.Generator(tiny(gaugan.model, **SMALL))), tmp_path / name)
    result = gaugan.convert.read_published(tmp_path / name)
    assert (result.family, result.source["iteration"]) == ("photopen", iteration)


# ---- files written by hand ----


def states(model, arch):
    """Random generator, discriminator and encoder of an architecture as {name: array}."""
    networks = (model.Generator, model.Discriminator, model.Encoder)
    return [arrays(randomize(network(arch), seed)) for seed, network in enumerate(networks)]


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.save(data, path)
    return path


# ours -> NVlabs', by hand
NV_BLOCK = {
    "spade_0": "norm_0",
    "spade_1": "norm_1",
    "spade_s": "norm_s",
    "act_conv_0.1": "conv_0",
    "act_conv_1.1": "conv_1",
    "act_conv_s.0": "conv_s",
}


def nvlabs_generator(state, prefix="", without=()):
    result = {}
    for key, value in state.items():
        block, _, rest = key.partition(".")
        for ours, theirs in NV_BLOCK.items():
            if rest.startswith(f"{ours}."):
                rest = theirs + rest[len(ours) :]
        rest = rest.replace("_mean", "running_mean").replace("_variance", "running_var")
        if rest.endswith("running_var"):
            result[f"{prefix}{block}.{rest[:-11]}num_batches_tracked"] = np.array(7)
        if not rest.endswith(tuple(without)):
            result[f"{prefix}{block}.{rest}"] = (
                value.T if key == "fc.weight" and value.ndim == 2 else value
            )
    return result


def nvlabs_discriminator(state):
    """Two scales of two blocks and the logits."""
    places = {"block_0.0": "model0.0", "block_1.0": "model1.0.0", "block_2": "model2.0"}
    result = {}
    for key, value in state.items():
        scale, _, block = re.match(r"nld_(\d)\.(\d)\.(.*)\.\w+$", key).groups()
        result[f"discriminator_{scale}.{places[block]}.{key.rpartition('.')[2]}"] = value
    return result


def nvlabs_encoder(state):
    return {k: v.T if k in ("fc_mu.weight", "fc_var.weight") else v for k, v in state.items()}


def assert_same(got, want):
    assert set(got) == set(want)
    assert [k for k in want if not np.array_equal(got[k], want[k])] == []


@pytest.mark.parametrize("prefix", ["", "module."])
def test_nvlabs(gaugan, tmp_path, prefix):
    arch = tiny(gaugan.model, "nvlabs", **(SMALL | {"norm_G": "spectralspadesyncbatch1x1"}))
    G, D, _ = states(gaugan.model, arch)
    path = save(tmp_path / "latest_net_G.pth", nvlabs_generator(G, prefix))
    d_path = save(tmp_path / "latest_net_D.pth", nvlabs_discriminator(D))
    result = gaugan.convert.read_published(path, d_path, crop_size=32)
    assert result.family == "nvlabs" and result.architecture == replace(arch, z_dim=256, nef=64)
    assert not result.architecture.simam and result.source["iteration"] is None
    assert result.source["sha256"] == files.file_sha256(path)
    assert_same(result.networks["generator"], G)
    assert_same(result.networks["discriminator"], D)
    alone = gaugan.convert.read_published(path, crop_size=32)
    assert "discriminator" not in alone.networks and (
        alone.architecture.num_D,
        alone.architecture.ndf,
    ) == (
        2,
        64,
    )


def test_nvlabs_vae(gaugan, tmp_path):
    arch = tiny(gaugan.model, "nvlabs", use_vae=True, **SMALL)
    G, _, E = states(gaugan.model, arch)
    path, e_path = (
        save(tmp_path / "G.pth", nvlabs_generator(G)),
        save(tmp_path / "E.pth", nvlabs_encoder(E)),
    )
    result = gaugan.convert.read_published(path, encoder=e_path, crop_size=32)
    assert (result.architecture.use_vae, result.architecture.z_dim, result.architecture.nef) == (
        True,
        4,
        1,
    )
    assert_same(result.networks["generator"], G)
    assert_same(result.networks["encoder"], E)
    plain = tiny(gaugan.model, "nvlabs", **SMALL)
    path = save(tmp_path / "plain.pth", nvlabs_generator(states(gaugan.model, plain)[0]))
    with pytest.raises(
        UserError, match="^--encoder .*E.pth: the generator of .*plain.pth takes no latent"
    ):
        gaugan.convert.read_published(path, encoder=e_path, crop_size=32)


def test_missing_weight_v_is_rebuilt(gaugan, tmp_path):
    """As of torch before 1.0, which keeps the normalised `weight` besides; sigma is then the top
    singular value.
    """
    arch = tiny(gaugan.model, "nvlabs", **SMALL)
    G, _, _ = states(gaugan.model, arch)
    file = nvlabs_generator(G, without=["weight_v"])
    file |= {k.removesuffix("_orig"): v * 0 for k, v in file.items() if k.endswith("weight_orig")}
    result = gaugan.convert.read_published(save(tmp_path / "latest_net_G.pth", file), crop_size=32)
    assert any("rebuilt 18 weight_v of the generator" in note for note in result.notes)
    for name in [k.removesuffix("weight_orig") for k in G if k.endswith("weight_orig")]:
        W, u, v = (
            result.networks["generator"][f"{name}{k}"]
            for k in ("weight_orig", "weight_u", "weight_v")
        )
        W = W.reshape(len(W), -1)
        assert u @ W @ v == pytest.approx(np.linalg.svd(W, compute_uv=False)[0], rel=0.02)


@pytest.mark.parametrize(
    "norm_G", ["spadeinstance1x1", "spectralspadeinstance1x1", "spadesyncbatch1x1"]
)
def test_norm_g_is_read_from_the_keys(gaugan, tmp_path, norm_G):
    for variant in ("photopen", "nvlabs"):
        arch = tiny(gaugan.model, variant, **(SMALL | {"norm_G": norm_G}))
        G = arrays(randomize(gaugan.model.Generator(arch)))
        path = save(
            tmp_path / f"{variant}.pdparams", nvlabs_generator(G) if variant == "nvlabs" else G
        )
        result = gaugan.convert.read_published(path, crop_size=32)
        sync = norm_G.replace("sync", "") if variant == "photopen" else norm_G
        assert (result.architecture.norm_G, result.family) == (sync, variant)
        assert any(note.startswith("norm_G") for note in result.notes) == ("batch" in norm_G)
        assert_same(result.networks["generator"], G)


@pytest.mark.parametrize(
    "channels, labels",
    [(184, (182, True, False)), (151, (150, True, True)), (36, (35, False, False))],
)
def test_released_weights_are_known_by_their_channels(gaugan, tmp_path, channels, labels):
    arch = tiny(gaugan.model, "nvlabs", **(SMALL | {"label_nc": channels - 2}))
    G = nvlabs_generator(arrays(gaugan.model.Generator(arch)))
    result = gaugan.convert.read_published(save(tmp_path / "latest_net_G.pth", G))
    arch = result.architecture
    assert (arch.label_nc, arch.contain_dontcare_label, arch.no_instance) == labels
    assert arch.semantic_nc == channels
    assert (arch.size == (256, 512) and arch.num_upsampling_layers == "more") == (channels == 36)
    assert any("unshifted" in note for note in result.notes) == (channels == 151)


def engine_file(model, arch, **entries):
    G, D, _ = states(model, arch)
    return (
        G,
        D,
        {"net_gen": G, "net_des": D, "optimG": {"conv2d_0.w_0_moment1_0": G["fc.bias"]}} | entries,
    )


def test_engine_checkpoint(gaugan, tmp_path):
    """paddle.save's own container, with its table of automatic names."""
    import paddle

    arch = tiny(gaugan.model, **SMALL)
    G, D, data = engine_file(gaugan.model, arch, epoch=40, optimD={})
    data["net_gen"] = {k: paddle.to_tensor(v) for k, v in G.items()}
    path = tmp_path / "iter_40_checkpoint.pdparams"
    paddle.save(data, str(path))
    result = gaugan.convert.read_published(path, crop_size=32)
    assert (
        result.architecture == replace(arch, z_dim=256, nef=16) and result.source["iteration"] == 40
    )
    assert_same(result.networks["generator"], G)
    assert_same(result.networks["discriminator"], D)
    only = gaugan.convert.read_published(
        save(tmp_path / "x.pdparams", {"net_gen": G}), crop_size=32
    )
    assert "discriminator" not in only.networks and only.source["iteration"] is None
    assert_same(only.networks["generator"], G)


def test_what_the_file_does_not_tell_is_noted_and_can_be_changed(gaugan, tmp_path):
    arch = tiny(gaugan.model, **(SMALL | {"label_nc": 5}))
    path = save(tmp_path / "n_g.pdparams", arrays(gaugan.model.Generator(arch)))
    read = gaugan.convert.read_published
    result = read(path)
    assert (result.architecture.size, result.architecture.label_nc) == ((256, 256), 5)
    untold = {note.split()[0] for note in result.notes if "changes it" in note}
    assert untold == {
        "variant",
        "crop_size",
        "aspect_ratio",
        "num_upsampling_layers",
        "norm_G",
        "contain_dontcare_label",
        "no_instance",
        "simam",
        "simam_lambda",
    }
    assert any(note.endswith("--no_simam changes it)") for note in result.notes)
    assert any(note.endswith("--no_instance changes it)") for note in result.notes)
    changes = {
        "crop_size": 128,
        "num_upsampling_layers": "more",
        "aspect_ratio": 2.0,
        "simam": False,
    }
    changes |= {"simam_lambda": 0.1, "norm_G": "spectralspadesyncbatch1x1", "no_instance": True}
    result = read(path, **changes)
    assert {k: getattr(result.architecture, k) for k in changes} == changes
    assert result.architecture.label_nc == 6 and result.architecture.semantic_nc == 7
    assert not any("simam" in note and "changes it" in note for note in result.notes)
    assert read(path, label_nc=7).architecture.no_instance
    assert read(path, variant="nvlabs").architecture.simam is False
    for wrong, words in [
        ({"ngf": 24}, "ngf is 1 in the file, not 24"),
        ({"norm_G": "spectralspadebatch3x3"}, "norm_G is spectralspadebatch1x1 in the file, not"),
        ({"label_nc": 9}, "its 7 channels .* do not go with label_nc 9"),
        ({"use_vae": True}, "use_vae is False in the file, not True"),
        ({"crop_size": 100}, "its shapes make no network of this kind .crop_size 100"),
    ]:
        with pytest.raises(UserError, match=f"n_g.pdparams: {words}"):
            read(path, **wrong)


def test_most_is_read_from_the_keys(gaugan, tmp_path):
    arch = tiny(
        gaugan.model, **(SMALL | {"ngf": 2, "num_upsampling_layers": "most", "crop_size": 128})
    )
    path = save(tmp_path / "n_g.pdparams", arrays(gaugan.model.Generator(arch)))
    assert gaugan.convert.read_published(path).architecture.num_upsampling_layers == "most"
    with pytest.raises(UserError, match="num_upsampling_layers is most in the file, not normal"):
        gaugan.convert.read_published(path, num_upsampling_layers="normal")


# ---- what is refused ----


def lacking(data):
    del data["net_gen"]["up_0.act_conv_s.0.weight_v"], data["net_gen"]["up_0.act_conv_s.0.weight_u"]


def surplus(data):
    data["net_des"]["nld_0.0.block_9.bias"] = np.zeros(3, "float32")


def misshaped(data):
    data["net_gen"]["up_3.spade_0.mlp_beta.bias"] = np.zeros(9, "float32")


def stranger(data):
    data["net_vgg"] = {}


def no_seed(data):
    del data["net_gen"]["fc.weight"]


def no_block(data):
    del data["net_gen"]["head_0.spade_0.mlp_shared.0.weight"]


def odd_u(data):
    del data["net_gen"]["up_0.act_conv_0.1.weight_v"]
    data["net_gen"]["up_0.act_conv_0.1.weight_u"] = np.zeros(3, "float32")


@pytest.mark.parametrize(
    "damage, words",
    [
        (lacking, r"generator.* 2 missing \(up_0\.act_conv_s\.0\.weight_u"),
        (surplus, r"discriminator"),
        (
            misshaped,
            r"of another shape \(up_3\.spade_0\.mlp_beta\.bias: file \(9,\), network \(2,\)",
        ),
        (stranger, "unexpected entries beside net_gen and net_des: net_vgg"),
        (no_seed, "lacks fc.weight"),
        (no_block, r"lacks head_0\.spade_0\.mlp_shared\.0\.weight"),
        (odd_u, "weight_u fits no"),
    ],
)
def test_every_foreign_key_is_an_error(gaugan, tmp_path, damage, words):
    _, _, data = engine_file(gaugan.model, tiny(gaugan.model, **SMALL))
    damage(data)
    path = save(tmp_path / "x.pdparams", data)
    with pytest.raises(UserError, match=words) as error:
        gaugan.convert.read_published(path, crop_size=32)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_refusals(gaugan, tmp_path):
    read = gaugan.convert.read_published
    G, D, _ = states(gaugan.model, tiny(gaugan.model, **SMALL))
    g_path, d_path = save(tmp_path / "g.pdparams", G), save(tmp_path / "d.pdparams", {"net_des": D})
    for args, words in [
        ([d_path], r"d\.pdparams: holds discriminator weights only; give the generator's file"),
        (
            [g_path, g_path],
            r"--discriminator .*g\.pdparams: holds no discriminator, but generator weights",
        ),
        (
            [save(tmp_path / "a", {"head": np.zeros(3)})],
            "no GauGAN weights of a known family .* begin with head",
        ),
        ([save(tmp_path / "b", {"net_gen": 3})], "holds no GauGAN weights"),
        ([save(tmp_path / "c", [np.zeros(3)])], "holds no GauGAN weights"),
        ([tmp_path / "none"], "none"),
    ]:
        with pytest.raises(UserError, match=words) as error:
            read(*args)
        assert "\n" not in str(error.value)


def test_read_weights(gaugan, tmp_path):
    read, arch = gaugan.convert.read_weights, tiny(gaugan.model, **SMALL)
    G, D, _ = states(gaugan.model, arch)
    published = read(
        save(tmp_path / "p.pdparams", {"net_gen": G, "net_des": D}), crop_size=32, simam=False
    )
    assert set(published) == {"generator", "discriminator", "architecture", "source", "notes"}
    notes = " ".join(published.pop("notes"))
    assert "variant photopen (not in the file: by family; convert.py --variant changes it)" in notes
    assert "crop_size" not in notes and "simam False" not in notes  # as given
    assert gaugan.model.Architecture.from_dict(published["architecture"]) == replace(
        arch, z_dim=256, nef=16, simam=False
    )
    own = save(tmp_path / "own.pdparams", published | {"iteration": 3})
    assert (
        read(own, crop_size=256)["iteration"] == 3
        and read(own)["architecture"] == published["architecture"]
    )
    with pytest.raises(UserError, match="own.pdparams: is in this repository's layout already"):
        gaugan.convert.read_published(own)
    broken = {"format": 1, "sha256": "0", "generator": G, "architecture": arch.to_dict()}
    with pytest.raises(UserError, match="damaged|format"):
        read(save(tmp_path / "broken.pdparams", broken))


# ---- the command ----


def test_command(gaugan, tmp_path, capsys):
    arch = tiny(gaugan.model, "nvlabs", **SMALL)
    G, D, _ = states(gaugan.model, arch)
    source = save(tmp_path / "重 量" / "latest_net_G.pth", nvlabs_generator(G))
    d_source = save(tmp_path / "latest_net_D.pth", nvlabs_discriminator(D))
    flags = [
        "--crop_size",
        "32",
        "--discriminator",
        str(d_source),
        "--no_instance",
        "--norm_G",
        SMALL["norm_G"],
    ]
    gaugan.convert.main([str(source), str(tmp_path / "out.pdparams"), *flags])
    out = capsys.readouterr().out
    for words in (
        "nvlabs, 32x32 px, 5 channels",
        "D: width 2, 2 scales",
        "--simam changes it",
        "non-commercial",
        "wrote",
    ):
        assert words in out
    assert "crop_size 32 (as given)" in out and "--crop_size changes" not in out
    written = weights.load(tmp_path / "out.pdparams")
    assert files.digest(written["generator"]) == files.digest(G)
    assert files.digest(written["discriminator"]) == files.digest(D)
    result = gaugan.model.Architecture.from_dict(written["architecture"])
    assert (result.label_nc, result.no_instance, result.norm_G) == (4, True, SMALL["norm_G"])
    assert written["source"]["file"] == source.name


def test_command_errors_are_one_line(gaugan, tmp_path):
    hostile = tmp_path / "x.pdparams"
    hostile.write_bytes(pickle.dumps(print))
    process = run_cli("gaugan_simam", "convert.py", hostile, tmp_path / "out.pdparams", code=2)
    assert (
        re.search("^convert.py: error: .*refused", process.stderr, re.M)
        and "Traceback" not in process.stderr
    )
    assert not (tmp_path / "out.pdparams").exists()
    with pytest.raises(UserError, match="x.pdparams: is the source itself"):
        gaugan.convert.main([str(hostile), str(hostile)])
    assert hostile.read_bytes() == pickle.dumps(print)
