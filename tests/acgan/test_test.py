"""test.py: which file, latents and labels are drawn, what is measured on them, what is written."""

import argparse
import json

import numpy as np
import paddle
import pytest
from PIL import Image

from shared_metrics import weights
from shared_metrics.errors import UserError
from shared_metrics.images import save_png
from shared_metrics.inference import Runner
from shared_metrics.runs import checkpoint
from shared_metrics.scores import inception_score
from shared_metrics.testing import latents
from tests.acgan.networks import random_state, tiny
from tests.conftest import run_cli
from tests.shared_metrics.test_judges_accuracy import Brightness
from tests.shared_metrics.test_scoring import StandIn

LOAD_CLASSIFIER = "shared_metrics.judges.accuracy.load_classifier"


@pytest.fixture
def acgan(paper):
    return paper("acgan")


def real_folders(tmp_path, names=("ant", "bee", "cat", "dog")):
    """Class folders of eight 32 px images; class k's have 30 + 60 k as their mean colour."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        (tmp_path / "real" / name).mkdir(parents=True)
        for i in range(8):
            image = rng.integers(0, 60, (32, 32, 3)) + 60 * k
            save_png(image.astype(np.uint8), tmp_path / "real" / name / f"{i}.png")
    return tmp_path / "real"


def saved(acgan, folder, iteration=6, per_epoch=2, classes=("bee", "cat", "dog"), **more):
    """A checkpoint of a tiny generator, whose averaged form draws grey alone; classes 1, 2, 3 of
    4.
    """
    arch = tiny(acgan.model, num_classes=len(classes))
    raw = random_state(acgan.model.Generator(arch))
    grey = {k: v * 0 if k.startswith("tconv5") else v for k, v in raw.items()}
    state = {
        "generator": raw,
        "generator_ema": grey,
        "architecture": arch.to_dict(),
        "classes": list(classes),
    }
    state |= {"class_indices": [1, 2, 3], "class_total": 4, "batches_per_epoch": per_epoch}
    state |= {"args": {"recipe": "cifar10", "data_path": "/somewhere/toy/train", "lr": 1e-3}} | more
    return checkpoint.save_checkpoint(folder, iteration, state, 0)


def expected_images(acgan, path, noise, labels):
    """What the raw generator in a checkpoint draws, from the documented z, written out here."""
    state = weights.load(path)
    G = acgan.model.Generator(acgan.model.Architecture.from_dict(state["architecture"]))
    G.set_state_dict(state["generator"])
    G.eval()
    z = noise.copy()
    for row, label in zip(z, labels, strict=True):
        row[:3] = 0
        row[label] = 1
    return ((G(paddle.to_tensor(z)).numpy().transpose(0, 2, 3, 1) + 1) * 127.5).clip(0, 255)


def record_of(folder):
    return json.loads((folder / "results.json").read_text())


# ---- which file, which latents and labels
# ----------------------------------------------------------------------------


def finding(path, epoch=None):
    return argparse.Namespace(pretrained_model="", check_path=str(path), which_epoch=epoch)


def test_epochs_count_from_zero_in_every_layout(acgan, tmp_path):
    own, callifrey, clvrai = (tmp_path / name for name in "abc")
    for iteration in (2, 5, 6):
        saved(acgan, own, iteration)
    find = acgan.test.find_weights
    assert find(finding(own)).name == "iter_0000006.pdparams"
    assert find(finding(own, 0)).name == "iter_0000002.pdparams"
    assert find(finding(own, 2)).name == "iter_0000006.pdparams"
    for folder, names in ((callifrey, ("G_{}.pdparams",)), (clvrai, ("netG_epoch_{}.pth",))):
        folder.mkdir()
        for epoch in (5, 499, 60):
            (folder / names[0].format(epoch)).touch()
        (folder / "D_600.pdparams").touch()
        assert find(finding(folder)).name == names[0].format(499)
        assert find(finding(folder, 60)).name == names[0].format(60)


def test_what_cannot_be_found_is_told(acgan, tmp_path):
    with pytest.raises(UserError, match=r"--check_path .*nowhere: no such folder"):
        acgan.test.find_weights(finding(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"holds no iter_N.pdparams"):
        acgan.test.find_weights(finding(tmp_path))
    saved(acgan, tmp_path, 4)
    with pytest.raises(UserError, match=r"--which_epoch 499: .* holds epochs 1;"):
        acgan.test.find_weights(finding(tmp_path, 499))
    with pytest.raises(UserError, match=r"--which_epoch"):
        acgan.test.parse_args(["--pretrained_model", "x", "--which_epoch", "3"])


def test_one_batch_without_scores_and_many_with(acgan):
    assert acgan.test.parse_args(["--batchSize", "7"]).num_samples == 7
    assert acgan.test.parse_args(["--metrics", "is"]).num_samples == 50_000
    assert acgan.test.parse_args(["--metrics", "is", "--num_samples", "9"]).num_samples == 9


def test_nz_and_num_classes_are_checked(acgan):
    state = {"architecture": tiny(acgan.model).to_dict(), "classes": ["a", "b", "c"]}
    for flags, told in (("--nz 100", "--nz 100: .* 7"), ("--num_classes 4", "4: .* 3 classes")):
        with pytest.raises(UserError, match=told):
            acgan.test.architecture_of(state, acgan.test.parse_args(flags.split()))
    bare = {"architecture": state["architecture"]}  # a published G does not tell its classes
    args = acgan.test.parse_args("--nz 7 --num_classes 4".split())
    assert acgan.test.architecture_of(bare, args).num_classes == 4


# ---- what is measured
# ------------------------------------------------------------------------------------------------


def opening(real="", classes="auto"):
    return argparse.Namespace(real=str(real), classes=classes, any_folders=False)


def test_real_images_are_those_of_the_checkpoints_classes(acgan, tmp_path):
    root, arch = real_folders(tmp_path), tiny(acgan.model)
    found = {
        "classes": ["bee", "cat", "dog"],
        "class_indices": [101, 102, 103],
        "class_total": 1000,
    }
    data, classes = acgan.evaluation.open_real(opening(root), arch, found)
    assert data.classes == ["bee", "cat", "dog"] and len(data) == 24
    assert (classes.names, classes.indices, classes.total) == (
        ["bee", "cat", "dog"],
        [101, 102, 103],
        1000,
    )
    data, classes = acgan.evaluation.open_real(opening(root, "1-4"), arch, {})  # published weights
    assert (classes.names, classes.indices, classes.total) == (["bee", "cat", "dog"], [1, 2, 3], 4)
    with pytest.raises(UserError, match=r"holds no class folder cow"):
        acgan.evaluation.open_real(opening(root), arch, {"classes": ["bee", "cow", "dog"]})
    (root / "dog").rename(root / "dog, hound")  # a comma is no end of a name here
    data, _ = acgan.evaluation.open_real(
        opening(root), arch, found | {"classes": ["bee", "cat", "dog, hound"]}
    )
    assert data.classes == ["bee", "cat", "dog, hound"]
    (root / "dog, hound").rename(root / "dog")
    with pytest.raises(UserError, match=r"--classes auto: chooses 4 .* knows 3"):
        acgan.evaluation.open_real(opening(root), arch, {})
    with pytest.raises(UserError, match=r"--classes 0-3: the checkpoint tells"):
        acgan.evaluation.open_real(opening(root, "0-3"), arch, found)


# ---- the command ----


def test_the_seeds_command(acgan, tmp_path):
    """python test.py --check_path PATH --which_epoch N: one batch, a grid with a row a class, a
    picture a class.
    """
    path = saved(acgan, tmp_path / "ckpt")
    out = tmp_path / "out"
    flags = [
        "--check_path",
        path.parent,
        "--which_epoch",
        "2",
        "--batchSize",
        "12",
        "--result_path",
        out,
    ]
    run_cli(
        "acgan",
        "test.py",
        *flags,
        "--class_result_path",
        tmp_path / "by_class",
        "--no_ema",
        "--film",
        "1",
        "--device",
        "cpu",
    )
    with Image.open(out / "film.gif") as film:  # a stop at each of ten seeds
        assert film.n_frames == 10
    names = sorted(p.name for p in (out / "images").iterdir())
    seeds = [int(n[4:9]) for n in names]
    labels = [int(n[15:18]) for n in names]
    assert seeds == list(range(12)) and set(labels) == {0, 1, 2}
    expected = expected_images(acgan, path, latents(seeds, 7), labels)
    drawn = np.stack([np.asarray(Image.open(out / "images" / name)) for name in names])
    assert np.abs(drawn - expected).max() <= 1.01 and drawn.std() > 10

    columns = max(np.bincount(labels))
    sheet = np.asarray(Image.open(out / "grid.png"))
    left = sheet.shape[1] - columns * 34 - 2
    for row in range(3):
        first = drawn[labels.index(row)]
        assert np.array_equal(sheet[2 + 34 * row :, left + 2 :][:32, :32], first)
    for name in ("bee", "cat", "dog"):
        assert (tmp_path / "by_class" / f"{name}.png").exists()

    swap = np.asarray(Image.open(out / "class_swap.png"))[:, left:]
    line = np.asarray(Image.open(out / "interpolation.png"))[:, left:]
    z = latents(range(10), 7)
    at = lambda sheet, row, column: sheet[2 + 34 * row :, 2 + 34 * column :][:32, :32]  # noqa: E731
    for row in range(3):
        assert (
            np.abs(at(swap, row, 9) - expected_images(acgan, path, z[9:10], [row])[0]).max() <= 1.01
        )
        between = (4 * z[0:1] + 3 * z[1:2]) / 7
        assert (
            np.abs(at(line, row, 3) - expected_images(acgan, path, between, [row])[0]).max() <= 1.01
        )
        assert np.array_equal(at(line, row, 0), at(swap, row, 0))
    assert not (out / "nearest.png").exists()
    record = record_of(out)
    assert record["checkpoint"]["epoch"] == 2 and record["checkpoint"]["iteration"] == 6
    assert record["checkpoint"]["weights"] == "raw" and record["samples"]["number"] == 12
    assert record["departures"] == {"lr": 1e-3} and record["dataset"] == "toy/train"
    assert any(row["score"] == "is" and row["value"] == 8.25 for row in record["published"])

    again = run_cli("acgan", "test.py", *flags, "--device", "cpu", code=2)
    assert "--overwrite" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.parametrize("name", ["results.json", "class_swap.png", "class_results/cat.png"])
def test_nothing_that_is_there_is_replaced_unasked(acgan, tmp_path, name):
    """A record kept without its images, and the pictures that train.py writes a class."""
    path, out = saved(acgan, tmp_path / "ckpt"), tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("kept")
    flags = f"--pretrained_model {path} --output_dir {out} --seeds 0 --device cpu".split()
    with pytest.raises(UserError, match=f"would replace 1 files, such as .*{name}"):
        acgan.test.main(flags)
    assert (out / name).read_text() == "kept" and not (out / "images").exists()
    acgan.test.main([*flags, "--overwrite", "--labels", "bee"])
    if name == "class_results/cat.png":  # no cat was drawn
        assert not (out / name).exists()
    else:
        assert (out / name).read_bytes() != b"kept"


def test_real_images_that_cannot_be_used_are_told_before_anything_is_drawn(acgan, tmp_path):
    path, root = saved(acgan, tmp_path / "ckpt"), real_folders(tmp_path)
    flags = f"--pretrained_model {path} --output_dir {tmp_path / 'out'} --real {root}"
    flags += " --num_samples 50 --device cpu"
    (root / "dog" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="dog/3.png: not a readable image"):
        acgan.test.main(flags.split())
    for i in range(1, 8):
        (root / "dog" / f"{i}.png").unlink()
    with pytest.raises(UserError, match="one image of class dog"):
        acgan.test.main([*flags.split(), "--metrics", "msssim"])
    assert not (tmp_path / "out").exists()


def test_scores_of_a_known_classifier(acgan, tmp_path, monkeypatch, capsys):
    """The averaged generator draws grey 128 alone, which is `cat` (60 k to 60 k + 59) for this
    classifier.
    """
    root = real_folders(tmp_path)
    classifier = type("Named", (Brightness,), {"classes": ["ant", "bee", "cat", "dog"]})()
    monkeypatch.setattr(LOAD_CLASSIFIER, lambda path, model: classifier)
    path = saved(acgan, tmp_path / "ckpt")
    out = tmp_path / "out"
    flags = f"--pretrained_model {path} --seeds 0-3 --labels 0-2 --metrics acc,msssim"
    flags += f" --real {root} --acc_sizes 16"
    flags += f" --classifier x --output_dir {out} --pairs 5 --device cpu"
    acgan.test.main(flags.split())
    record = record_of(out)
    scores = record["scores"]
    assert scores["class_accuracy"] == pytest.approx(1 / 3) and scores[
        "class_accuracy_16"
    ] == pytest.approx(1 / 3)
    assert scores["class_accuracy_real"] == 1.0 and scores[
        "class_accuracy_real_16"
    ] == pytest.approx(1 / 3, abs=0.1)
    assert scores["msssim"] == pytest.approx(1.0) and scores["classes_below_msssim_0.25"] == 0.0
    assert scores["msssim_real"] == pytest.approx(
        np.mean([c["msssim_real"] for c in record["per_class"].values()])
    )
    assert scores["msssim_real"] < 0.95
    assert (
        record["per_class"]["cat"]["class_accuracy"] == 1.0
        and record["per_class"]["bee"]["class_accuracy"] == 0.0
    )
    assert (
        record["comparable"] is False
        and record["inception"] is None
        and record["classifier"] == Brightness.info
    )
    assert "class_accuracy = 0.333" in capsys.readouterr().out
    nearest = np.asarray(Image.open(out / "nearest.png"))
    assert (
        nearest.shape[0] == 3 * 34 + 2 and nearest.shape[1] > 6 * 34
    )  # the image and five neighbours
    # Grey 128 is nearest to a cat (120 to 179, mean 149.5): all differences are |128 - p|.
    real = [
        np.abs(np.asarray(Image.open(p)).astype(float) - 128).mean()
        for p in (root / "cat").iterdir()
    ]
    assert record["nearest_real"]["bee"] == pytest.approx(min(real))


def test_efficientnet_judges_classes_named_by_wnids(acgan, tmp_path, monkeypatch):
    """It sees a lion, ImageNet's class 291, everywhere."""

    class Lions:
        def __init__(self, weights):
            self.info = {"source": f"/somewhere/{weights}", "sha256": "ab"}

        def features(self, images):
            return images

        def logits(self, features):
            return np.eye(1000)[[291] * len(features)]

    monkeypatch.setattr("shared_metrics.judges.classifier.EfficientNet", Lions)
    wnids = ["n01443537", "n02123394", "n02129165"]  # goldfish, Persian cat, lion
    path = saved(acgan, tmp_path / "ckpt", classes=wnids)
    flags = f"--pretrained_model {path} --seeds 0-1 --labels 0-2 --metrics acc --device cpu"
    flags += (
        f" --classifier efficientnet --efficientnet_weights w.pth --output_dir {tmp_path / 'out'}"
    )
    flags += f" --real {real_folders(tmp_path, wnids)}"
    acgan.test.main(flags.split())
    record = record_of(tmp_path / "out")
    assert record["scores"] == pytest.approx(
        {"class_accuracy": 1 / 3, "class_accuracy_real": 1 / 3}, abs=0.01
    )
    assert record["per_class"]["n02129165"]["class_accuracy_real"] == 1.0
    expected = {"file": "w.pth", "sha256": "ab", "model": "EfficientNet-Lite0", "classes": 1000}
    assert record["classifier"] == expected

    flags = flags.replace(str(path), str(saved(acgan, tmp_path / "other")))
    flags = flags.partition(" --real")[0]
    with pytest.raises(UserError, match="bee, cat, dog: not among ImageNet's 1000 classes"):
        acgan.test.main([*flags.split(), "--overwrite"])


def test_inception_scores_in_the_same_pass(acgan, tmp_path, monkeypatch):
    """The images that Inception is given are those that the gallery and MS-SSIM saw, in order."""
    path = saved(acgan, tmp_path / "ckpt")
    seen = []

    class Extractor(StandIn):
        def features(self, images, variant=None):
            seen.append(images)
            return super().features(images, variant)

    monkeypatch.setattr("shared_metrics.scoring.Extractor", Extractor)
    out = tmp_path / "out"
    flags = f"--pretrained_model {path} --num_samples 9 --batch_size 4 --metrics msssim,is"
    flags += f" --output_dir {out}"
    flags += " --device cpu --labels 0-2 --no_ema --inception_weights random"
    acgan.test.main(flags.split())
    drawn = [
        np.asarray(Image.open(p))
        for y in range(3)
        for p in sorted((out / "images").glob(f"*class00{y}.png"))
    ]
    assert np.array_equal(np.concatenate(seen), np.stack(drawn))
    scores = record_of(out)["scores"]
    features = Extractor().features(np.stack(drawn))
    expected = inception_score(Extractor().logits(features), splits=4)  # of two images each
    assert scores["is"] == pytest.approx(expected["is"]) and 0 <= scores["msssim"] < 1


@pytest.mark.parametrize(
    "flags, told",
    [
        ("--metrics acc", "--metrics acc: needs --classifier"),
        ("--metrics fid,kidd", "no metric 'kidd'"),
        ("--metrics none --real stats.npz", "--real stats.npz"),
        ("--metrics msssim --labels 0 --num_samples 1", "one image"),
        ("--classifier x", "--classifier: is for --metrics acc"),
        ("--metrics acc --classifier_model alexnet --classifier x", "--classifier_model alexnet"),
        ("--which_epoch 3", "--which_epoch"),
        ("--nz 100", "--nz 100"),
    ],
)
def test_a_failing_start_keeps_the_old_images(acgan, tmp_path, capsys, flags, told):
    (tmp_path / "images").mkdir()
    old = tmp_path / "images" / "seed00000_class000.png"
    old.write_bytes(b"old")
    main = acgan.test.process.command(acgan.test.main)
    path = saved(acgan, tmp_path / "ckpt")
    flags = [
        "--pretrained_model",
        path,
        "--overwrite",
        "--output_dir",
        tmp_path,
        "--device",
        "cpu",
        *flags.split(),
    ]
    with pytest.raises(SystemExit) as stopped:
        main([str(flag) for flag in flags])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and told in error and error.count("\n") == 1
    assert old.read_bytes() == b"old"


def test_batch_statistics_depend_on_the_batch(acgan, tmp_path):
    path = saved(acgan, tmp_path)
    noise, labels = latents(range(4), 7), np.zeros(4, np.int64)
    for mode, same in (("running", True), ("batch", False)):
        args = acgan.test.parse_args(["--no_ema", "--bn_stats", mode])
        G, _ = acgan.test.load_generator(weights.load(path), args, path)
        alone, beside = (
            acgan.test.draw(Runner(G), noise[:2], labels[:2], path),
            acgan.test.draw(Runner(G), noise, labels, path)[:2],
        )
        assert np.array_equal(alone, beside) == same


def test_a_discriminators_file_is_told(acgan):
    args = acgan.test.parse_args([])
    with pytest.raises(UserError, match="netD.pth: holds a discriminator"):
        acgan.test.load_generator({"discriminator": {}}, args, "netD.pth")


def test_class_names_of_a_file_lead_nowhere(acgan, tmp_path, capsys):
    """Names in a well signed checkpoint that point outside, or that no UTF-8 holds."""
    undecodable = b"caf\xe9".decode(errors="surrogateescape")
    names = ("../../../victim", str(tmp_path / "absolute"), f"{undecodable}\x1b[2J")
    path, out = saved(acgan, tmp_path / "ckpt", classes=names), tmp_path / "a" / "b" / "out"
    acgan.test.main(
        f"--pretrained_model {path} --output_dir {out} --seeds 0 --labels 0-2 --device cpu".split()
    )
    assert {place.name for place in tmp_path.iterdir()} == {"ckpt", "a"}
    assert len(list((out / "class_results").iterdir())) == len(set(record_of(out)["classes"])) == 3
    assert "\x1b" not in capsys.readouterr().out
