"""convert.py: the reference implementations' numbers, and every key map against files written by
hand here.
"""

import lzma
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from tests.acgan.networks import random_state, tensor, tiny, with_state
from tests.conftest import run_cli, shared_dir

FORMS = [(form, imsize) for form in ("callifrey", "clvrai") for imsize in (32, 64, 128)]
NAMES = {
    "callifrey": ("G_{}.pdparams", "D_{}.pdparams"),
    "clvrai": ("netG_epoch_{}.pth", "netD_epoch_{}.pth"),
}


@pytest.fixture
def acgan(paper):
    return paper("acgan")


def published(model, form="callifrey", imsize=32, **changes):
    """A small network as both reproductions have it, every width and number other than the
    default.
    """
    sizes = {"num_classes": 3, "nz": 14, "ngf": 4, "ndf": 8, "fc_relu": False}
    return tiny(
        model, form, imsize, **(sizes | {"init": {"callifrey": "paddle"}.get(form, form)} | changes)
    )


def random_states(model, arch, seed=0):
    """Random weights of G and D, in the names and layout used here."""
    return random_state(model.Generator(arch), seed), random_state(
        model.Discriminator(arch), seed + 1
    )


# ---- files as the reproductions write them, made independently of convert.py ----


def as_torch(state):
    """clvrai's state dict: torch's names of the running statistics, linear weights (outputs,
    inputs), a step count.
    """
    result = {}
    for name, value in state.items():
        head, leaf = name.rsplit(".", 1)
        leaf = {"_mean": "running_mean", "_variance": "running_var"}.get(leaf, leaf)
        result[f"{head}.{leaf}"] = (
            value.T if head in ("fc1", "fc_dis", "fc_aux") and leaf == "weight" else value
        )
        if leaf == "running_var":
            result[f"{head}.num_batches_tracked"] = np.int64(1300)
    return result


def as_paddle(state):
    """Callifrey's: the names used here, and the table of automatic names that a raw paddle.save
    file holds.
    """
    return state | {
        "StructuredToParameterName@@": {name: f"parameter_{i}.w_0" for i, name in enumerate(state)}
    }


def write(folder, form, G, D, epoch=499):
    """The two files of an epoch. Returns: their paths."""
    folder.mkdir(exist_ok=True)
    layout = {"callifrey": as_paddle, "clvrai": as_torch}[form]
    paths = [folder / name.format(epoch) for name in NAMES[form]]
    for path, state in zip(paths, (G, D), strict=True):
        weights.save(layout(state), path)
    return paths


def assert_same(got, want):
    assert set(got) == set(want)
    assert [
        k for k in want if not np.array_equal(got[k], want[k]) or got[k].dtype != np.float32
    ] == []


# ---- the reference implementations' numbers ----


@pytest.mark.parametrize(
    "family, form, imsize", [("callifrey", "callifrey", 128), ("clvrai/32", "clvrai", 32)]
)
def test_images_and_logits_are_the_reference_codes(acgan, tmp_path, family, form, imsize):
    import paddle

    folder = shared_dir(f"parity/acgan_{family}")
    for packed in folder.glob("*.xz"):
        (tmp_path / packed.stem).write_bytes(lzma.open(packed).read())
    g_path, d_path = (next(tmp_path.glob(name.format("*"))) for name in NAMES[form])
    result = acgan.convert.read_published(g_path, d_path)
    arch = result.architecture
    assert (arch.form, arch.imsize, arch.nz, arch.ngf, arch.ndf, arch.num_classes) == (
        form,
        imsize,
        110,
        64,
        64,
        10,
    )
    assert result.source["epoch"] == int(re.search(r"\d+", g_path.name)[0])
    with np.load(folder / "cases.npz") as stored:
        cases = {name: stored[name][:3] for name in stored}  # eval mode: each image is on its own
    z = acgan.model.with_labels(cases["z_raw"], cases["labels"], arch.num_classes)
    assert np.array_equal(z, cases["z"])
    G, D = acgan.model.Generator(arch), acgan.model.Discriminator(arch)
    with paddle.no_grad():
        images = with_state(G, result.networks["generator"])(tensor(z)).numpy()
        np.testing.assert_allclose(images, cases["images"], atol=1e-4, rtol=0)
        with_state(D, result.networks["discriminator"])
        for x, mark in ((cases["images"], ""), (cases["real_images"], "_real")):
            source, classes = (y.numpy() for y in D(tensor(x)))
            np.testing.assert_allclose(source, cases[f"d_source_logit{mark}"], atol=1e-4, rtol=0)
            np.testing.assert_allclose(classes, cases[f"d_class_logits{mark}"], atol=1e-4, rtol=0)


# ---- files of both families, written here ----


@pytest.mark.parametrize("form, imsize", FORMS)
def test_both_files_of_every_form(acgan, tmp_path, form, imsize):
    arch = published(acgan.model, form, imsize)
    G, D = random_states(acgan.model, arch)
    g_path, d_path = write(tmp_path, form, G, D)
    result = acgan.convert.read_published(g_path, d_path)
    assert result.architecture == arch
    assert_same(result.networks["generator"], G)
    assert_same(result.networks["discriminator"], D)
    sha256 = files.file_sha256(g_path)
    assert result.source == {"file": g_path.name, "sha256": sha256, "family": form, "epoch": 499}
    assert any("no ReLU after fc1" in note for note in result.notes)


@pytest.mark.parametrize("form", NAMES)
def test_the_generator_alone(acgan, tmp_path, form):
    """Its file tells no classes; D's file beside it is told of and left alone."""
    arch = published(acgan.model, form)
    G, D = random_states(acgan.model, arch)
    g_path, d_path = write(tmp_path, form, G, D, 24)
    result = acgan.convert.read_published(g_path)
    assert "discriminator" not in result.networks and result.architecture == replace(
        arch, num_classes=10, ndf=64
    )
    assert_same(result.networks["generator"], G)
    assert any("10 classes" in note and "--num_classes" in note for note in result.notes)
    assert any(f"--discriminator {d_path}" in note for note in result.notes)
    d_path.unlink()
    result = acgan.convert.read_published(g_path, num_classes=4)
    assert result.architecture.num_classes == 4 and not any(
        "--discriminator " in note for note in result.notes
    )
    assert "discriminator" not in result.saved()


@pytest.mark.parametrize("form", NAMES)
def test_the_discriminator_alone(acgan, tmp_path, form):
    arch = published(acgan.model, form, 64)
    _, d_path = write(tmp_path, form, *random_states(acgan.model, arch))
    result = acgan.convert.read_published(d_path)
    assert "generator" not in result.networks and result.architecture == replace(
        arch, nz=110, ngf=64
    )
    assert sorted(result.saved()) == ["architecture", "discriminator", "source"]
    assert result.source["epoch"] == 499 and any("no G" in note for note in result.notes)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"imsize": 64}, "D is for 64 px, the G of .* for 32 px"),
        ({"form": "clvrai"}, "D is of the clvrai form, the G of .* of the callifrey form"),
    ],
)
def test_a_discriminator_of_another_network(acgan, tmp_path, changes, words):
    arch = published(acgan.model)
    other = published(acgan.model, **({"form": "callifrey", "imsize": 32} | changes))
    g_path, _ = write(tmp_path / "a", "callifrey", *random_states(acgan.model, arch))
    _, d_path = write(tmp_path / "b", other.form, *random_states(acgan.model, other))
    with pytest.raises(UserError, match=f"--discriminator .*: {words}"):
        acgan.convert.read_published(g_path, d_path)


# ---- what is refused ----


def lacking(G, D):
    del G["tconv3.1._mean"]


def surplus(G, D):
    G["tconv5.1.weight"] = np.zeros(3, "float32")


def misshaped(G, D):
    G["tconv4.0.weight"] = G["tconv4.0.weight"][:, :, :3]


def transposed(G, D):
    D["fc_dis.weight"] = D["fc_dis.weight"].T


def headless(G, D):
    del D["fc_aux.weight"]


def d_surplus(G, D):
    D["fc_aux.weight_u"] = np.zeros(3, "float32")


def other_head(G, D):
    D["fc_aux.weight"] = D["fc_aux.weight"][:-1]


def no_stem(G, D):
    del G["fc1.weight"]


def odd_width(G, D):
    G["fc1.weight"] = G["fc1.weight"][:, :-1]


def odd_kernel(G, D):
    G["tconv2.0.weight"] = G["tconv2.0.weight"][:, :, :2, :2]


def module_prefix(G, D):
    for key in list(G):
        G[f"module.{key}"] = G.pop(key)


@pytest.mark.parametrize("form", NAMES)
@pytest.mark.parametrize(
    "damage, words",
    [
        (lacking, r"generator.*1 missing \(tconv3\.1\._mean\)"),
        (surplus, r"generator.*1 unexpected \(tconv5\.1\.weight\)"),
        (misshaped, r"\(tconv4\.0\.weight: file \(12, 6, 3, 4\), network \(12, 6, 4, 4\)\)"),
        (transposed, r"\(fc_dis\.weight: file \(1, 1024\), network \(1024, 1\)\)"),
        (headless, r"lacks fc_aux\.weight"),
        (d_surplus, r"discriminator.*1 unexpected \(fc_aux\.weight_u\)"),
        (other_head, r"fc_aux takes 1023 numbers; known for .*: 1024 for 32 px"),
        (no_stem, r"lacks fc1\.weight"),
        (odd_width, "its shapes make no network of this kind .*--ngf"),
        (odd_kernel, "G ends at tconv5 and begins with a kernel of 2"),
        (module_prefix, r"holds no AC-GAN weights of a known family.*module\.fc1\.weight"),
    ],
)
def test_every_foreign_key_is_an_error(acgan, tmp_path, form, damage, words):
    G, D = random_states(acgan.model, published(acgan.model, form, ngf=8))
    damage(G, D)
    paths = write(tmp_path, form, G, D)
    with pytest.raises(UserError, match=words) as error:
        acgan.convert.read_published(*paths)
    assert "\n" not in str(error.value) and any(str(path) in str(error.value) for path in paths)


def test_biases_where_clvrai_has_none(acgan, tmp_path):
    """One bias too many or too few is told, not taken for the other form."""
    arch = published(acgan.model, "clvrai")
    G, D = random_states(acgan.model, arch)
    path, _ = write(tmp_path, "clvrai", G | {"tconv3.0.bias": np.zeros(6, "float32")}, D)
    with pytest.raises(UserError, match=r"1 unexpected \(tconv3\.0\.bias\)"):
        acgan.convert.read_published(path)
    path, _ = write(tmp_path, "clvrai", G | {"tconv2.0.bias": np.zeros(12, "float32")}, D)
    with pytest.raises(
        UserError, match=r"3 missing \(tconv3\.0\.bias, tconv4\.0\.bias, tconv5\.0\.bias\)"
    ):
        acgan.convert.read_published(path)


def test_refusals(acgan, tmp_path):
    read = acgan.convert.read_published
    arch = published(acgan.model)
    g_path, d_path = write(tmp_path, "callifrey", *random_states(acgan.model, arch))
    with pytest.raises(
        UserError,
        match="D_499.pdparams: holds discriminator weights only; give the generator's file",
    ):
        read(d_path, g_path)
    with pytest.raises(
        UserError,
        match="--discriminator .*G_499.pdparams: holds no discriminator, but generator weights",
    ):
        read(g_path, g_path)
    with pytest.raises(UserError, match="--num_classes 4: the D of .*D_499.pdparams tells 3"):
        read(g_path, d_path, num_classes=4)
    with pytest.raises(UserError, match="--nz 14: must exceed the 20 classes"):
        read(g_path, num_classes=20)
    with pytest.raises(UserError, match="num_classes cannot be 0"):
        read(g_path, num_classes=0)
    for content in (
        {"a.b": np.zeros(3)},
        [1, 2],
        {},
        {"conv1.0.weight": "text"},
        {"tconvx.weight": np.zeros(3)},
    ):
        weights.save(content, tmp_path / "other.pth")
        with pytest.raises(UserError, match="holds no AC-GAN weights of a known family"):
            read(tmp_path / "other.pth")
    weights.save(read(g_path).saved(), tmp_path / "own.pdparams")
    with pytest.raises(UserError, match="in this repository's layout already"):
        read(tmp_path / "own.pdparams")
    with pytest.raises(UserError, match="in this repository's layout already"):
        read(g_path, tmp_path / "own.pdparams")


# ---- read_weights ----


def test_read_weights_takes_every_kind(acgan, tmp_path):
    from shared_metrics.runs import checkpoint

    read, arch = acgan.convert.read_weights, published(acgan.model)
    G, D = random_states(acgan.model, arch)
    g_path, d_path = write(tmp_path, "callifrey", G, D)
    alone = read(g_path)
    assert (
        sorted(alone) == ["architecture", "generator", "source"]
        and not alone["architecture"]["fc_relu"]
    )
    assert sorted(read(d_path)) == ["architecture", "discriminator", "source"]
    both = acgan.convert.read_published(g_path, d_path).saved()
    assert sorted(both) == ["architecture", "discriminator", "generator", "source"]
    assert acgan.model.Architecture.from_dict(both["architecture"]) == arch
    weights.save(both, tmp_path / "converted.pdparams")
    assert files.digest(read(tmp_path / "converted.pdparams")) == files.digest(both)

    state = {
        "generator": G,
        "generator_ema": G,
        "discriminator": D,
        "architecture": arch.to_dict(),
        "classes": ["a"],
    }
    own = checkpoint.save_checkpoint(tmp_path, 3, state, 0)
    result = read(own)
    assert result["iteration"] == 3 and result["classes"] == ["a"]
    assert_same(result["generator_ema"], G)
    damaged = weights.load(own)
    damaged["generator"]["fc1.bias"][0] += 1
    weights.save(damaged, own)
    with pytest.raises(UserError, match="sha256"):
        read(own)


# ---- the command ----


def test_command(acgan, tmp_path, capsys):
    import paddle

    arch = published(acgan.model, "clvrai", 64)
    G, D = random_states(acgan.model, arch)
    g_path, d_path = write(tmp_path / "重 量", "clvrai", G, D, 7)
    acgan.convert.main(
        [str(g_path), str(tmp_path / "out.pdparams"), "--discriminator", str(d_path)]
    )
    out = capsys.readouterr().out
    for words in (
        "clvrai, 64 px, 3 classes",
        "G: width 4, nz 14",
        "D: width 8",
        "no ReLU after fc1",
        "wrote",
    ):
        assert words in out
    assert "lies beside it" not in out
    written = paddle.load(str(tmp_path / "out.pdparams"), return_numpy=True)
    assert_same(written["generator"], G)
    assert_same(written["discriminator"], D)
    assert written["architecture"] == arch.to_dict()
    assert (written["source"]["file"], written["source"]["epoch"]) == (g_path.name, 7)
    again = acgan.convert.read_weights(tmp_path / "out.pdparams")
    assert files.digest(again) == files.digest(written)


def test_command_without_a_discriminator(acgan, tmp_path, capsys):
    arch = published(acgan.model)
    g_path, d_path = write(tmp_path, "callifrey", *random_states(acgan.model, arch))
    acgan.convert.main([str(g_path), str(tmp_path / "out.pdparams"), "--num_classes", "5"])
    out = capsys.readouterr().out
    assert (
        "callifrey, 32 px, 5 classes" in out
        and "D: none in the file" in out
        and f"--discriminator {d_path}" in out
    )
    assert acgan.convert.read_weights(tmp_path / "out.pdparams")["architecture"]["num_classes"] == 5
    with pytest.raises(SystemExit):
        acgan.convert.main([str(g_path), str(tmp_path / "none.pdparams"), "--num_classes", "0"])
    assert "--num_classes: '0': expected a whole number of at least 1" in capsys.readouterr().err
    acgan.convert.main([str(d_path), str(tmp_path / "out.pdparams"), "--overwrite"])
    assert "G: none in the file" in capsys.readouterr().out


def test_command_errors_are_one_line(acgan, tmp_path):
    hostile = tmp_path / "x.pdparams"
    hostile.write_bytes(pickle.dumps(print))
    process = run_cli("acgan", "convert.py", hostile, tmp_path / "out.pdparams", code=2)
    assert (
        re.search("^convert.py: error: .*refused", process.stderr, re.M)
        and "Traceback" not in process.stderr
    )
    assert not (tmp_path / "out.pdparams").exists()
    g_path, d_path = write(
        tmp_path, "callifrey", *random_states(acgan.model, published(acgan.model))
    )
    for dst in (g_path, d_path):
        before = dst.read_bytes()
        with pytest.raises(UserError, match=f"{dst.name}: is the source itself"):
            acgan.convert.main([str(g_path), str(dst), "--discriminator", str(d_path)])
        assert dst.read_bytes() == before
