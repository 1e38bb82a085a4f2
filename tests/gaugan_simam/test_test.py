"""test.py: label maps to pictures, and a data set to panels and scores."""

import argparse
import json

import numpy as np
import paddle
import pytest
from PIL import Image

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.images import save_png
from shared_metrics.judges import segmenter, training
from shared_metrics.runs import checkpoint
from tests.conftest import run_cli, shared_dir
from tests.gaugan_simam.networks import arrays, tiny
from tests.shared_metrics.test_scoring import StandIn


@pytest.fixture
def gaugan(paper):
    return paper("gaugan_simam")


def saved(gaugan, folder, average=False, **changes):
    """A checkpoint of a tiny generator: classes 0 to 2, unknown 3, 32 px; its averaged form draws
    grey alone.
    """
    arch = tiny(gaugan.model, **changes)
    paddle.seed(0)
    raw = arrays(gaugan.model.Generator(arch))
    state = {"generator": raw, "architecture": arch.to_dict()}
    state["args"] = {
        "recipe": "gaugan",
        "name": "trial",
        "data_path": "/somewhere/toy",
        "d_lr": 1.0,
    }
    if average:
        state["generator_ema"] = {
            k: v * 0 if k.startswith("conv_img") else v for k, v in raw.items()
        }
    if arch.use_vae:
        state["encoder"] = arrays(gaugan.model.Encoder(arch))
    return checkpoint.save_checkpoint(folder, 7, state, 0)


def expected(gaugan, path, labels, instances=None, z=None):
    """What the raw generator of a checkpoint draws, [0, 255] float, of ids of its size: one-hot and
    edges, by hand.
    """
    state = weights.load(path)
    arch = gaugan.model.Architecture.from_dict(state["architecture"])
    G = gaugan.model.Generator(arch)
    G.set_state_dict(state["generator"])
    G.eval()
    ids = np.pad(labels if instances is None else instances, 1, mode="edge")
    middle = ids[1:-1, 1:-1]
    edge = np.zeros(labels.shape, bool)
    for other in (ids[:-2, 1:-1], ids[2:, 1:-1], ids[1:-1, :-2], ids[1:-1, 2:]):
        edge |= other != middle
    seg = np.concatenate([np.eye(4)[labels].transpose(2, 0, 1), edge[None]])[None].astype("float32")
    x = (
        G(paddle.to_tensor(seg), None if z is None else paddle.to_tensor(z[None]))
        .numpy()[0]
        .transpose(1, 2, 0)
    )
    return ((x + 1) * 127.5).clip(0, 255)


def blocks(size, seed=0, classes=4):
    """A label map of `size` px a side, in blocks."""
    ids = np.random.default_rng(seed).integers(0, classes, (8, 8))
    return np.kron(ids, np.ones((size // 8, size // 8), np.int64)).astype(np.uint8)


def pairs(root, split="val", count=3, instances=False):
    """Pairs of 32 px, photos of random colours; unknown is 255."""
    rng = np.random.default_rng(count)
    for i in range(count):
        labels = blocks(32, i)
        arrays = {
            "img": rng.integers(0, 256, (32, 32, 3)).astype(np.uint8),
            "inst": np.where(labels == 3, 255, labels),
        }
        if instances:
            arrays["instance"] = blocks(32, 100 + i, 9)
        for name, array in arrays.items():
            (root / f"{split}_{name}").mkdir(parents=True, exist_ok=True)
            save_png(array.astype(np.uint8), root / f"{split}_{name}" / f"p{i}.png")
    return root


def run(gaugan, *flags):
    gaugan.test.main([*map(str, flags), "--device", "cpu"])


def image_of(path):
    return np.asarray(Image.open(path))


# ---- label maps to pictures
# ------------------------------------------------------------------------------------------


def test_the_seeds_command(gaugan, tmp_path, monkeypatch):
    """A configuration beside the checkpoint's own architecture, a JPEG; and a bare file name."""
    path = saved(gaugan, tmp_path)
    save_png(blocks(32), tmp_path / "L.png")
    done = run_cli(
        "gaugan_simam",
        "test.py",
        "--semantic_label_path",
        tmp_path / "L.png",
        "--weight_path",
        path,
        "--output_path",
        tmp_path / "O.jpg",
        "--config-file",
        "configs/photopen.yaml",
        "--cpu",
    )
    image = Image.open(tmp_path / "O.jpg")
    assert image.format == "JPEG" and image.size == (32, 32)
    error = np.asarray(image) - expected(gaugan, path, blocks(32).astype(int))
    assert (
        np.abs(error.reshape(4, 8, 4, 8, 3).mean((1, 3))).mean() < 2
    )  # JPEG keeps the means of its blocks
    assert "tells its architecture itself" in done.stdout and "ngf 2, not 24" in done.stdout
    monkeypatch.chdir(tmp_path)
    run(
        gaugan, "--semantic_label_path", "L.png", "--weight_path", path, "--output_path", "bare.png"
    )
    assert (
        np.abs(image_of("bare.png") - expected(gaugan, path, blocks(32).astype(int))).max() <= 1.01
    )


def test_a_folder_of_maps_of_any_size_and_kind(gaugan, tmp_path):
    """Palette, 16-bit and 255 for unknown; nearest neighbour to the network's size; pictures bear
    the maps' names.
    """
    path, maps = saved(gaugan, tmp_path / "w"), tmp_path / "maps"
    (maps / "sub").mkdir(parents=True)
    labels = blocks(32)
    palette = Image.fromarray(labels)
    palette.putpalette([9, 8, 7] * 256)
    palette.save(maps / "palette.png")
    Image.fromarray(np.kron(labels, np.ones((2, 2), np.uint16)).astype(np.uint16)).save(
        maps / "sub" / "deep.png"
    )
    wide = np.repeat(np.where(labels == 3, 255, labels), 3, axis=1)
    Image.fromarray(wide.astype(np.uint8)).save(maps / "wide.tif")
    out = tmp_path / "pictures"
    flags = [
        "--semantic_label_path",
        maps,
        "--pretrained_model",
        path,
        "--output_path",
        out,
        "--batch_size",
        2,
    ]
    run(gaugan, *flags)
    want = expected(gaugan, path, labels.astype(int))
    for name in ("palette.png", "sub/deep.png", "wide.png"):
        assert np.abs(image_of(out / name) - want).max() <= 1.01, name
    assert want.std() > 1
    with pytest.raises(UserError, match="holds palette.png already.*--overwrite"):
        run(gaugan, *flags)
    run(gaugan, *flags, "--overwrite", "--keep_size")
    sizes = {
        name: image_of(out / name).shape[:2] for name in ("palette.png", "sub/deep.png", "wide.png")
    }
    assert sizes == {"palette.png": (32, 32), "sub/deep.png": (64, 64), "wide.png": (32, 96)}
    assert np.array_equal(image_of(maps / "palette.png"), labels)


@pytest.mark.parametrize(
    "flags, told",
    [
        ("--output_path o.gif", "o.gif: unknown kind of picture"),
        ("", "--output_path is missing"),
        ("--output_path L.png", "is the label map itself"),
        ("--output_path o.png --metrics fid", "--metrics: goes with --data_path"),
        ("--output_path o.png --output_dir d", "--output_dir: goes with --data_path"),
        ("--output_path o.png --segmenter_std 1,1,1", "--segmenter_std: goes with --data_path"),
        ("--output_path o.png --data_path d", "give either"),
        (
            "--output_path o.png --style_image p.jpg",
            "--style_image p.jpg: this network takes no style",
        ),
    ],
)
def test_wrong_requests_are_told(gaugan, tmp_path, monkeypatch, flags, told):
    monkeypatch.chdir(tmp_path)
    save_png(blocks(32), "L.png")
    with pytest.raises(UserError, match=told):
        run(
            gaugan,
            "--semantic_label_path",
            "L.png",
            "--weight_path",
            saved(gaugan, tmp_path),
            *flags.split(),
        )
    assert np.array_equal(image_of("L.png"), blocks(32)) and not (tmp_path / "o.png").exists()


def test_ids_out_of_range_are_told_with_the_file(gaugan, tmp_path):
    save_png(np.full((8, 8), 9, np.uint8), tmp_path / "bad.png")
    with pytest.raises(UserError, match=r"bad.png: id 9 is out of range"):
        run(
            gaugan,
            "--semantic_label_path",
            tmp_path / "bad.png",
            "--weight_path",
            saved(gaugan, tmp_path),
            "--output_path",
            tmp_path / "o.png",
        )
    assert not (tmp_path / "o.png").exists()


def test_a_picture_that_is_there_is_replaced_only_when_asked(gaugan, tmp_path):
    save_png(blocks(32), tmp_path / "L.png")
    (tmp_path / "o.png").write_bytes(b"mine")
    words = [str(tmp_path / "L.png"), str(tmp_path / "o.png")]
    with pytest.raises(UserError, match="o.png: is there already; .*--overwrite"):
        gaugan.predict.targets(*words, overwrite=False)
    assert gaugan.predict.targets(*words, overwrite=True) == [
        (tmp_path / "L.png", tmp_path / "o.png")
    ]


def test_a_folder_never_overwrites_its_maps(gaugan, tmp_path):
    (tmp_path / "maps").mkdir()
    for name in ("a.png", "a.bmp"):
        Image.fromarray(blocks(8)).save(tmp_path / "maps" / name)
    with pytest.raises(UserError, match="holds the maps"):
        gaugan.predict.targets(str(tmp_path / "maps"), str(tmp_path / "maps"), True)
    with pytest.raises(UserError, match="bears the same name"):
        gaugan.predict.targets(str(tmp_path / "maps"), str(tmp_path / "o"), True)


def test_bare_weights_are_completed_by_the_configuration(gaugan, tmp_path, capsys):
    """Sizes are not in PaddleGAN's files: with crop_size 64 the picture has 64 px; what the shapes
    deny is refused.
    """
    arch = tiny(gaugan.model, label_nc=3)
    weights.save(arrays(gaugan.model.Generator(arch)), tmp_path / "n_g.pdparams")
    config = tmp_path / "c.yaml"
    config.write_text("model: {crop_size: 64, label_nc: 3, generator: {ngf: 2}}\n")
    args = gaugan.predict.parse_args(
        [
            "--weight_path",
            str(tmp_path / "n_g.pdparams"),
            "--semantic_label_path",
            "l",
            "--output_path",
            "o",
            "-c",
            str(config),
        ]
    )
    painter = gaugan.painter.load_painter(args)
    assert painter.arch.size == (64, 64) and painter.arch.simam and painter.kind == "raw"
    assert painter.paint(np.zeros((1, 32, 32), np.int64)).shape == (1, 64, 64, 3)
    told = capsys.readouterr().out  # what neither file nor configuration tells
    assert "n_g.pdparams: simam True (not in the file: by family; convert.py --no_simam" in told
    assert "crop_size" not in told
    args.config_file = str(gaugan.folder / "configs" / "photopen.yaml")
    with pytest.raises(UserError, match="n_g.pdparams"):
        gaugan.painter.load_painter(args)


def test_published_weights_draw_the_reference_pictures(gaugan, tmp_path):
    """From PaddleGAN's file and its label maps as PNGs to its own outputs, rounded."""
    folder = shared_dir("parity/photopen_paddle")
    cases = np.load(folder / "cases.npz")
    (tmp_path / "maps").mkdir()
    for i, ids in enumerate(cases["in/ins"][:, 0]):
        save_png(ids.astype(np.uint8), tmp_path / "maps" / f"{i}.png")
    (tmp_path / "c.yaml").write_text("model: {crop_size: 64, generator: {ngf: 1}}\n")
    run(
        gaugan,
        "--weight_path",
        folder / "n_g.pdparams",
        "--semantic_label_path",
        tmp_path / "maps",
        "--output_path",
        tmp_path / "o",
        "-c",
        tmp_path / "c.yaml",
    )
    for i, x in enumerate(cases["G/img_f"].transpose(0, 2, 3, 1)):
        picture = image_of(tmp_path / "o" / f"{i}.png").astype(float)
        assert np.abs(picture - 127.5 * (x + 1)).max() <= 0.52


def test_averaged_weights_and_batch_statistics(gaugan, tmp_path):
    path, labels = (
        saved(gaugan, tmp_path, average=True),
        np.stack([blocks(32), blocks(32, 1)]).astype(np.int64),
    )
    Painter = gaugan.painter.Painter
    average = Painter(path)
    assert average.kind == "ema" and (average.paint(labels) == 128).all()
    raw = Painter(path, use_ema=False)
    assert raw.kind == "raw" and np.array_equal(raw.paint(labels)[0], raw.paint(labels[:1])[0])
    batch = Painter(path, use_ema=False, bn_stats="batch")
    assert not np.array_equal(batch.paint(labels)[0], batch.paint(labels[:1])[0])


def test_latents_and_styles(gaugan, tmp_path):
    """Map i draws with z = RandomState(seed + i).randn; --style_image takes the encoder's mean for
    all.
    """
    path, maps = saved(gaugan, tmp_path / "w", use_vae=True, no_instance=True), tmp_path / "maps"
    maps.mkdir()
    for name in "abc":
        save_png(blocks(32), maps / f"{name}.png")
    flags = ["--semantic_label_path", maps, "--weight_path", path, "--batch_size", 2]
    run(gaugan, *flags, "--output_path", tmp_path / "o", "--seed", 5)
    painter, ids = gaugan.painter.Painter(path), blocks(32).astype(np.int64)[None]
    for i, name in enumerate("abc"):
        z = np.random.RandomState(5 + i).randn(1, 4).astype(np.float32)
        assert np.array_equal(image_of(tmp_path / "o" / f"{name}.png"), painter.paint(ids, z=z)[0])
    assert not np.array_equal(
        image_of(tmp_path / "o" / "a.png"), image_of(tmp_path / "o" / "b.png")
    )

    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    save_png(photo, tmp_path / "style.png")
    run(gaugan, *flags, "--output_path", tmp_path / "s", "--style_image", tmp_path / "style.png")
    encoder = gaugan.model.Encoder(painter.arch)
    encoder.set_state_dict(weights.load(path)["encoder"])
    encoder.eval()
    mean = encoder(paddle.to_tensor(photo.transpose(2, 0, 1)[None].astype("float32") / 127.5 - 1))[
        0
    ].numpy()
    for name in "ac":
        assert np.array_equal(
            image_of(tmp_path / "s" / f"{name}.png"), painter.paint(ids, z=mean)[0]
        )


def test_a_style_needs_an_encoder(gaugan, tmp_path):
    path = saved(gaugan, tmp_path, use_vae=True)
    state = weights.load(path)
    del state["encoder"], state["sha256"]
    weights.save(state | {"sha256": files.digest(state)}, path)
    with pytest.raises(UserError, match="--style_image x.jpg: .* holds no encoder.*convert.py"):
        gaugan.painter.Painter(path).style("x.jpg")


# ---- a data set to pictures and scores
# -------------------------------------------------------------------------------


def test_panels_l1_and_record(gaugan, tmp_path):
    path, root, out = (
        saved(gaugan, tmp_path / "w"),
        pairs(tmp_path / "d", instances=True),
        tmp_path / "out",
    )
    flags = [
        "--pretrained_model",
        path,
        "--data_path",
        root,
        "--output_dir",
        out,
        "--batch_size",
        2,
    ]
    run(gaugan, *flags, "--metrics", "l1")
    difference = []
    for i in range(3):
        want = expected(gaugan, path, blocks(32, i).astype(int), blocks(32, 100 + i, 9).astype(int))
        image, photo = (
            image_of(out / "images" / f"p{i}.png"),
            image_of(root / "val_img" / f"p{i}.png"),
        )
        assert np.abs(image - want).max() <= 1.01
        panel = image_of(out / "panels" / f"p{i}.png")
        cells = [panel[2:34, 2 + 34 * k :][:, :32] for k in range(3)]
        assert np.array_equal(cells[1], image) and np.array_equal(cells[2], photo)
        colours = {tuple(c) for c in cells[0].reshape(-1, 3).tolist()}
        assert (
            len(colours) == len(np.unique(blocks(32, i)))
            and cells[0][0, 0].tolist() == cells[0][1, 1].tolist()
        )
        difference.append(np.abs(image.astype(float) - photo).mean() / 255)
    record = json.loads((out / "results.json").read_text())
    assert record["scores"]["l1"] == pytest.approx(np.mean(difference))
    assert (
        record["checkpoint"] | {"iteration": 7, "weights": "raw", "bn_stats": "running"}
        == record["checkpoint"]
    )
    assert (
        record["samples"]["number"] == 3
        and record["recipe"] == "gaugan"
        and record["name"] == "trial"
    )
    assert record["departures"]["d_lr"] == 1.0 and record["comparable"] is False
    assert Image.open(out / "grid.png").height > 3 * 34
    with pytest.raises(UserError, match="holds 3 panels already"):
        run(gaugan, *flags)
    run(gaugan, *flags, "--overwrite", "--limit", "2")
    assert sorted(p.name for p in (out / "images").iterdir()) == ["p0.png", "p1.png"]


def test_pairs_are_never_overwritten(gaugan, tmp_path):
    """Photos under the name that pictures would take, and pictures among the photos."""
    path, root = saved(gaugan, tmp_path / "w"), pairs(tmp_path / "d")
    (root / "val_img").rename(root / "images")
    before = {file.name: file.read_bytes() for file in (root / "images").iterdir()}
    flags = [
        "--pretrained_model",
        path,
        "--image_dir",
        root / "images",
        "--label_dir",
        root / "val_inst",
    ]
    for out in (root, root / "images", root / "images" / "sub"):
        with pytest.raises(UserError, match="the data themselves lie in .*images"):
            run(gaugan, *flags, "--output_dir", out, "--overwrite")
    assert {file.name: file.read_bytes() for file in (root / "images").iterdir()} == before
    (tmp_path / "out" / "images").mkdir(parents=True)
    save_png(blocks(32), tmp_path / "out" / "images" / "p0.png")
    with pytest.raises(UserError, match="holds 1 images already"):
        run(gaugan, *flags, "--output_dir", tmp_path / "out")


class Perfect:
    """A segmenter that sees class 1 in every real photo of `pairs` and class 0 in what is grey."""

    num_classes, info = 3, {"file": "perfect"}

    def predict(self, images):
        grey = (images == 128).all((1, 2, 3))
        return np.where(grey[:, None, None], 0, 1) * np.ones(images.shape[:3], np.int64)


def test_segmentation_of_generated_and_real(gaugan, tmp_path, monkeypatch):
    """The averaged generator draws grey: class 0 everywhere. Known pixels alone count."""
    path, root, out = (
        saved(gaugan, tmp_path / "w", average=True),
        pairs(tmp_path / "d"),
        tmp_path / "out",
    )
    monkeypatch.setattr(gaugan.evaluation, "load_segmenter", lambda *how: Perfect())
    run(gaugan, "--pretrained_model", path, "--data_path", root, "--output_dir", out,
        "--metrics", "miou", "--segmenter", "x")  # fmt: skip
    labels = np.stack([blocks(32, i) for i in range(3)])
    share = [(labels == k).sum() / (labels != 3).sum() for k in range(3)]
    record = json.loads((out / "results.json").read_text())
    assert record["scores"]["pixel_accuracy"] == pytest.approx(share[0])
    assert record["scores"]["pixel_accuracy_real"] == pytest.approx(share[1])
    assert record["scores"]["miou"] == pytest.approx(share[0] / 3)
    assert record["iou"]["1"] == {"iou": 0.0, "iou_real": pytest.approx(share[1])}
    assert record["segmenter"] == {"file": "perfect"}


def test_black_and_white_masks_are_told_and_have_no_miou(gaugan, tmp_path, monkeypatch):
    """255 is unknown, so class 0 alone is known, and to see it everywhere would be perfect."""
    path, root, out = saved(gaugan, tmp_path / "w"), pairs(tmp_path / "d"), tmp_path / "out"
    for file in (root / "val_inst").iterdir():
        save_png(np.uint8(image_of(file) > 0) * 255, file)
    monkeypatch.setattr(gaugan.evaluation, "load_segmenter", lambda *how: Perfect())
    run(gaugan, "--pretrained_model", path, "--data_path", root, "--output_dir", out,
        "--metrics", "miou,l1", "--segmenter", "x")  # fmt: skip
    record = json.loads((out / "results.json").read_text())
    assert record["scores"].keys() == {"l1"} and record["iou"] == {}
    notes = "\n".join(record["notes"])
    assert "val_inst: in 3 of 3 label maps only 0 and 255 occur: a black-and-white mask" in notes
    assert "no mIoU, no pixel accuracy: only class 0 occurs" in notes


def test_inception_sees_the_pictures_in_order(gaugan, tmp_path, monkeypatch):
    """First the photos, as real ones, then what is drawn."""
    path, root, out = saved(gaugan, tmp_path / "w"), pairs(tmp_path / "d"), tmp_path / "out"
    seen = []

    class Extractor(StandIn):
        def features(self, images, variant=None):
            seen.extend(images)
            return super().features(images, variant)

    monkeypatch.setattr("shared_metrics.scoring.Extractor", Extractor)
    flags = f"--pretrained_model {path} --data_path {root} --output_dir {out} --metrics fid,l1"
    run(gaugan, *flags.split(), "--batch_size", 2, "--inception_weights", "random")
    names = [f"p{i}.png" for i in range(3)]
    assert np.array_equal(seen[3:], [image_of(out / "images" / name) for name in names])
    assert np.array_equal(seen[:3], [image_of(root / "val_img" / name) for name in names])
    record = json.loads((out / "results.json").read_text())
    assert {"fid", "l1"} <= set(record["scores"]) and record["real"]["number"] == 3
    assert record["real"]["source"].endswith("val_img")


def test_seeds_are_one_a_pair(gaugan, tmp_path):
    """So many pairs, evenly spread, each with the latent of its seed."""
    path = saved(gaugan, tmp_path / "w", use_vae=True, no_instance=True)
    root, out = pairs(tmp_path / "d", count=4), tmp_path / "out"
    flags = ["--pretrained_model", path, "--data_path", root, "--output_dir", out]
    run(gaugan, *flags, "--seeds", "9,5")
    painter = gaugan.painter.Painter(path)
    for name, seed, i in (("p0", 9, 0), ("p2", 5, 2)):
        z = np.random.RandomState(seed).randn(1, 4).astype(np.float32)
        picture = painter.paint(blocks(32, i).astype(np.int64)[None], z=z)[0]
        assert np.array_equal(image_of(out / "images" / f"{name}.png"), picture)
    assert len(list((out / "images").iterdir())) == 2
    assert json.loads((out / "results.json").read_text())["samples"]["seed"] == "9,5"
    with pytest.raises(UserError, match="--seeds 0-9: 10 seeds for 4 pairs"):
        run(gaugan, *flags, "--seeds", "0-9", "--overwrite")


def test_predict_is_a_command_of_its_own(gaugan, tmp_path):
    """With the flags of the original, as test.py takes them, too."""
    path = saved(gaugan, tmp_path)
    save_png(blocks(32), tmp_path / "L.png")
    flags = ["--semantic_label_path", tmp_path / "L.png", "--weight_path", path, "--cpu"]
    for program in ("predict", "test"):
        main = getattr(gaugan, program).main
        main([*map(str, flags), "--output_path", str(tmp_path / f"{program}.png")])
    assert np.array_equal(image_of(tmp_path / "predict.png"), image_of(tmp_path / "test.png"))
    want = expected(gaugan, path, blocks(32).astype(int))
    assert np.abs(image_of(tmp_path / "predict.png") - want).max() <= 1.01


@pytest.mark.parametrize(
    "flags, told",
    [
        ("--metrics miou", "--metrics miou: needs --segmenter"),
        ("--metrics fid,kidd", "no metric 'kidd'"),
        ("--metrics miou --segmenter nowhere", "nowhere"),
        ("--output_path x.png", "--output_path: goes with --semantic_label_path"),
        ("--image_dir x", "--data_path and --image_dir"),
        ("--split test", "no folder test_img"),
        ("--segmenter x", "--segmenter: is for --metrics miou"),
        ("--metrics is --real x", "--real x: is for --metrics fid,kid,pr"),
    ],
)
def test_a_failing_start_keeps_the_old_pictures(gaugan, tmp_path, capsys, flags, told):
    root, path = pairs(tmp_path / "d", count=1), saved(gaugan, tmp_path / "w")
    old = tmp_path / "out" / "panels" / "p0.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    flags = [
        "--pretrained_model",
        path,
        "--data_path",
        root,
        "--output_dir",
        tmp_path / "out",
        *flags.split(),
    ]
    with pytest.raises(SystemExit) as stopped:
        gaugan.test.process.command(gaugan.test.main)(
            [*map(str, flags), "--overwrite", "--device", "cpu"]
        )
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and told in error and error.count("\n") == 1
    assert old.read_bytes() == b"old"


def test_a_segmenter_of_other_classes_is_told(gaugan, tmp_path):
    about = {"width": 1, "num_classes": 5, "crop_size": 32, "scores": {}}
    args = argparse.Namespace(output=str(tmp_path / "s.pdparams"))
    training.save("segmenter", segmenter.UNet(5, 1), about, {}, args)
    with pytest.raises(UserError, match="knows 5 classes, the generator 3"):
        run(
            gaugan,
            "--pretrained_model",
            saved(gaugan, tmp_path),
            "--data_path",
            pairs(tmp_path / "d", count=1),
            "--metrics",
            "miou",
            "--segmenter",
            tmp_path / "s.pdparams",
        )
