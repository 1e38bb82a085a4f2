"""What every test.py does alike: seeds, labels, the folder it writes, the record, its mistakes."""

import argparse
import importlib
import json

import numpy as np
import pytest
from PIL import Image

from shared_metrics import results, scoring, testing
from shared_metrics.errors import UserError
from shared_metrics.image_sets import open_source
from shared_metrics.process import command, rng
from tests.conftest import ROOT
from tests.shared_metrics.test_results import record as record_of
from tests.shared_metrics.test_scoring import StandIn, folder_of, pictures

PAPERS = ("sagan", "acgan", "gaugan_simam")


# ---- seeds and labels ----


def drawing(seeds="", seed=0, num_samples=8, labels="uniform"):
    return argparse.Namespace(seeds=seeds, seed=seed, num_samples=num_samples, labels=labels)


def chosen(names=("ant", "bee", "cat"), counts=None, **flags):
    parts = testing.choose_labels(drawing(**flags), 3, names, counts)
    return [part.tolist() for part in parts]


def test_latents_are_the_documented_ones():
    z = testing.latents([5, 9], 4)
    assert z.dtype == np.float32
    assert np.array_equal(z[1], np.random.RandomState(9).randn(4).astype(np.float32))


def test_named_labels_are_drawn_with_every_seed():
    for text in ("0,2", "ant,cat"):
        assert chosen(labels=text, seeds="7,8") == [[7, 8, 7, 8], [0, 0, 2, 2]]
    assert chosen(labels="0,2", seed=3, num_samples=5) == [[3, 4, 5, 3, 4], [0, 0, 0, 2, 2]]


def test_classes_named_by_numbers_are_names():
    assert chosen(labels="2", names=("4", "2", "0"), num_samples=1) == [[0], [1]]
    assert chosen(labels="all", names=("4", "2", "0"), seeds="7") == [[7, 7, 7], [0, 1, 2]]


@pytest.mark.parametrize(
    "text, told",
    [
        ("0-3", "--labels 0-3: reaches past the 3 classes of this generator"),
        ("ant,cow", "--labels ant,cow: no class 'cow'.*ant, bee, cat"),
        ("1,0-2", "--labels 1,0-2: names bee more than once"),
        ("cat,cat", "--labels cat,cat: names cat more than once"),
        ("data", "--labels data: needs the class folders"),
    ],
)
def test_labels_that_cannot_be_drawn_are_told(text, told):
    with pytest.raises(UserError, match=told):
        chosen(labels=text)


def test_drawn_labels_do_not_depend_on_how_many_are_drawn():
    for how in ({}, {"labels": "data", "counts": [1, 1, 1]}):
        few, many = chosen(num_samples=50, **how), chosen(num_samples=3000, **how)
        assert few[1] == many[1][:50] and np.abs(np.bincount(many[1]) - 1000).max() < 100
    label = rng(7, "label").integers(3)  # of a seed alone
    assert chosen(seeds="7") == [[7], [label]]


def test_labels_as_often_as_in_the_data():
    _, labels = chosen(labels="data", counts=[1, 0, 3], num_samples=2000)
    assert np.bincount(labels) / 2000 == pytest.approx([0.25, 0, 0.75], abs=0.03)
    with pytest.raises(UserError, match="holds 2 classes, the generator knows 3"):
        chosen(labels="data", counts=[1, 3])


def test_seeds_that_cannot_be_drawn():
    last = 2**32 - 1
    assert chosen(seed=last, num_samples=1)[0] == [last] == chosen(seeds=str(last))[0]
    for flags in ({"seed": last, "num_samples": 2}, {"seed": 10**30}, {"seeds": f"{2**32}"}):
        with pytest.raises(UserError, match="too large"):
            chosen(**flags)
    with pytest.raises(UserError, match="--seeds '0-4000000000': expected fewer than 10,000,000"):
        chosen(seeds="0-4000000000")
    with pytest.raises(UserError, match="--seeds 3,2-4: .* twice"):
        chosen(seeds="3,2-4")


# ---- the folder ----


def output(folder, overwrite=False, model="run/checkpoints/iter_0000001.pdparams", **how):
    args = argparse.Namespace(output_dir=str(folder), overwrite=overwrite, num_workers=2)
    args.pretrained_model = str(model)
    return testing.Output(args, **how)


def test_pictures_are_written_while_the_caller_draws(tmp_path):
    images = pictures(50, size=(4, 4))
    names = testing.file_names(range(50), [3] * 50)
    with output(tmp_path / "out") as out:
        for part in testing.parts(50, 16):
            out.write(names[part], images[part])
    for name, image in zip(names, images, strict=True):
        drawn = np.asarray(Image.open(tmp_path / "out" / "images" / f"{name}.png"))
        assert np.array_equal(drawn, image)
    assert names[12] == "seed00012_class003"


def test_the_log_of_the_training_lies_beside_the_record(tmp_path):
    """As training.jsonl, so that a test into the run's own folder leaves the log alone."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "log.jsonl").write_text('{"iteration": 1}\n')
    for folder in (tmp_path / "out", run):
        with output(folder, model=run / "checkpoints" / "iter_0000001.pdparams") as out:
            out.write(["a"], pictures(1, size=(4, 4)))
        out.finish(record_of(), ())
        assert (folder / "training.jsonl").read_text() == '{"iteration": 1}\n'
    assert (run / "log.jsonl").exists()
    with pytest.raises(UserError, match="training.jsonl|results.json"):
        output(tmp_path / "out")


def test_a_picture_that_cannot_be_written_ends_the_test(tmp_path):
    (tmp_path / "images" / "a.png").mkdir(parents=True)
    with pytest.raises(UserError, match="a.png: cannot be written"), output(tmp_path) as out:
        out.write(["a"], pictures(1))


@pytest.mark.parametrize("name", ["images/seed00001_class000.png", "grid.png", "results.json"])
def test_what_an_earlier_test_left_is_not_replaced_unasked(tmp_path, name):
    """Nor touched before the `with` block; what test.py does not write stays."""
    mine = tmp_path / "images" / "mine.png"
    for path in (mine, tmp_path / name):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    with pytest.raises(UserError, match=f"would replace 1 files, such as .*{name}.*--overwrite"):
        output(tmp_path)
    out = output(tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == "kept"
    with out:
        assert not (tmp_path / name).exists() and mine.read_text() == "kept"


def test_two_tests_never_write_one_folder(tmp_path):
    """Neither at once, nor one that began to look before the other ended."""
    first = output(tmp_path / "a", folders={"--class_result_path": tmp_path / "c"})
    late = output(tmp_path / "a")
    other = output(tmp_path / "b", folders={"--class_result_path": tmp_path / "c"})
    with first:
        first.write(["x"], pictures(1))
        with pytest.raises(UserError, match="--output_dir .*a: another run is writing there"):
            late.__enter__()
        with pytest.raises(UserError, match="--class_result_path .*c: another run"):
            other.__enter__()
    (tmp_path / "a" / "grid.png").write_text("first's")
    first.locks.close()  # as `finish`
    with pytest.raises(UserError, match="would replace 1 files, such as .*grid.png"):
        late.__enter__()


def test_pictures_never_mix_with_the_data(tmp_path):
    data = folder_of(tmp_path / "images" / "real", pictures(2))
    for folder in (tmp_path, data, data / "a"):
        with pytest.raises(UserError, match="the data themselves lie in .*real"):
            output(folder, overwrite=True, data=["", str(data), "stats.npz"])
    output(tmp_path / "beside", data=[str(data)])


def test_a_grid_has_a_row_a_class():
    """Ten classes at most, evenly spread, each with its first images; what is missing is white."""
    gallery = testing.Gallery(most=2)
    images = pictures(5, size=(4, 4))
    gallery.update(images[:3], np.array([2, 0, 2]))
    gallery.update(images[3:], np.array([2, 7]))
    assert gallery.rows() == [0, 2, 7]
    sheet = gallery.grid(lambda label: "")
    cells = [sheet[2 + 6 * row :, -(6 * 2) :][:4, :10] for row in range(3)]
    white = np.full((4, 4, 3), 255, np.uint8)
    for cell, left, right in zip(cells, images[[1, 0, 4]], (white, images[2], white), strict=True):
        assert np.array_equal(cell[:, :4], left) and np.array_equal(cell[:, 6:], right)
    wide = testing.Gallery()
    wide.update(pictures(20), np.arange(20))
    assert wide.rows() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 19]


def test_a_gallery_that_knows_its_labels_keeps_only_what_it_shows():
    labels = np.repeat(np.arange(1000), 2)  # DCGAN: a row for every ten seeds
    every = testing.Gallery()
    few = testing.Gallery(labels=labels)
    for part in testing.parts(len(labels), 16):
        batch = np.repeat(labels[part] % 256, 12).reshape(-1, 2, 2, 3).astype(np.uint8)
        every.update(batch, labels[part])
        few.update(batch, labels[part])
    assert sorted(few.images) == few.rows() == every.rows() and len(few.rows()) == 10
    assert all(image.base is None for images in few.images.values() for image in images)
    np.testing.assert_array_equal(few.grid(str), every.grid(str))


# ---- what can go wrong before anything is drawn ----


def test_weights_that_cannot_draw_are_told():
    with pytest.raises(UserError, match="netD.pth: holds a discriminator"):
        testing.generator_weights({"discriminator": {}}, True, "netD.pth")
    x = np.zeros((1, 3, 2, 2), np.float32)
    assert (testing.pixels(x, "w") == 128).all()
    x[0, 1, 0, 0] = np.nan
    with pytest.raises(UserError, match="w.pdparams: the network draws NaN"):
        testing.pixels(x, "w.pdparams")


def test_which_weights_are_drawn_from():
    state = {"generator": {"w": 0}, "generator_ema": {"w": 1}}
    assert testing.generator_weights(state, True, "x") == ({"w": 1}, "ema")
    assert testing.generator_weights(state, False, "x") == ({"w": 0}, "raw")
    published = {"generator": {"w": 2}, "source": {"ema": True}}
    assert testing.generator_weights(published, True, "x") == ({"w": 2}, "ema")


def opening(real=""):
    weights = {"inception_weights": "random", "efficientnet_weights": "auto"}
    return argparse.Namespace(real=str(real), protocol="tf", **weights)


def test_without_a_network_images_are_counted():
    """One image is enough to count; the rest of a record's part is there."""
    scores = testing.open_scores(opening(), [], 1)
    scores.update(pictures(1, size=(4, 6)))
    record = scores.result()
    assert record["samples"] == {"number": 1, "resolution": "6x4"}
    assert (record["scores"], record["inception"], record["real"]) == ({}, None, None)
    assert record["comparable"] is False and record["images_per_second"] > 0


def white(files):
    yield np.full((len(files), 8, 8, 3), 255, np.uint8)


def test_real_images_are_read_before_anything_is_drawn(monkeypatch, tmp_path):
    """Of a folder as the paper reads them, or of a data set in place of --real."""
    monkeypatch.setattr(scoring, "Extractor", StandIn)
    folder = folder_of(tmp_path / "f", pictures(6))
    black = open_source(np.zeros((5, 8, 8, 3), np.uint8), name="mine")
    for real, how, number, mean in (
        (folder, {}, 6, None),
        (folder, {"pictures": white}, 6, 1.0),
        (folder, {"data": black}, 5, 0.0),
    ):
        (part,) = testing.open_scores(opening(real), ["fid", "is"], 9, **how).by_network
        assert part.real.number == number
        assert part.real.source == ("mine" if "data" in how else str(folder))
        if mean is not None:
            assert part.real.mean == pytest.approx(StandIn().mix.sum(0) * mean, rel=1e-5)


def test_real_images_that_do_not_serve_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(scoring, "Extractor", StandIn)
    (tmp_path / "empty").mkdir()
    for metrics, real, told in (
        (["is"], "somewhere", "--real somewhere: is for --metrics fid,kid,pr"),
        ([], "somewhere", "--real somewhere: is for --metrics fid,kid,pr"),
        (["fid"], "", "--metrics fid: needs real images"),
        (["fid"], tmp_path / "nowhere", "nowhere: no folder of images"),
        (["fid"], tmp_path / "empty", "empty: no images"),
        (["is"], "", r"1 image\(s\) to score"),
    ):
        with pytest.raises(UserError, match=told):
            testing.open_scores(opening(real), metrics, 1, pictures=white)


# ---- all test.py alike ----


def tiny_command(paper, name, tmp_path):
    """(the paper, the flags that draw from a tiny checkpoint of it)."""
    folder = paper(name)
    module = importlib.import_module(f"tests.{name}.test_test")
    flags = ["--pretrained_model", module.saved(folder, tmp_path / "weights"), "--device", "cpu"]
    if name == "gaugan_simam":
        flags += ["--data_path", module.pairs(tmp_path / "pairs")]
    return folder, [str(flag) for flag in flags]


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize(
    "flags, told",
    [
        ("--seeds 3,3", "--seeds 3,3: names one twice"),
        ("--seed 4294967295 --num_samples 2", "--seed 4294967295: seed 4294967296 is too large"),
        ("--seeds 4294967296", "--seeds 4294967296: seed 4294967296 is too large"),
        ("--seeds 5-", "--seeds '5-': expected numbers and ranges"),
        ("--seeds 0-1 --num_samples 2", "--num_samples: --seeds names the images already"),
        ("--metrics fid,kidd", "--metrics fid,kidd: no metric 'kidd'"),
        ("--metrics is --real s.npz", "--real s.npz: is for --metrics fid,kid,pr"),
        ("--pretrained_model nowhere.pdparams", "nowhere.pdparams"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(paper, tmp_path, capsys, name, flags, told):
    folder, always = tiny_command(paper, name, tmp_path)
    flags = [*always, "--output_dir", str(tmp_path / "out"), *flags.split()]
    with pytest.raises(SystemExit) as stopped:
        command(folder.test.main)(flags)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and told in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", PAPERS)
def test_the_last_seed_can_be_drawn(paper, tmp_path, name):
    folder, always = tiny_command(paper, name, tmp_path)
    out = tmp_path / "out"
    folder.test.main([*always, "--output_dir", str(out), "--seeds", "4294967295"])
    assert len(list((out / "images").iterdir())) == 1
    assert results.read_record(out / "results.json")["samples"]["number"] == 1


def test_records_agree(paper, tmp_path, monkeypatch, capsys):
    """The same entries from every paper, besides those of what it draws and measures itself."""
    monkeypatch.setattr(scoring, "Extractor", StandIn)
    records = []
    for name in PAPERS:
        folder, always = tiny_command(paper, name, tmp_path / name)
        classes = ("cat", "dog", "owl") if name == "sagan" else ("bee", "cat", "dog")
        real = folder_of(tmp_path / name / "real", pictures(6), classes=classes)
        flags = ["--num_samples", "3", "--metrics", "fid", "--inception_weights", "random"]
        flags += ["--real", str(real), "--name", "trial", "--no_ema", "--bn_stats", "batch"]
        folder.test.main([*always, *flags, "--output_dir", str(tmp_path / name / "out")])
        record = results.read_record(tmp_path / name / "out" / "results.json")
        assert (record["paper"], record["name"]) == (name, "trial")
        assert record["command"].startswith("python test.py --pretrained_model")
        checkpoint = record["checkpoint"]
        assert checkpoint["file"].startswith("iter_") and checkpoint["source"] == {}
        assert (checkpoint["weights"], checkpoint["bn_stats"]) == ("raw", "batch")
        assert record["samples"]["number"] == 3 and record["samples"]["resolution"] == "32x32"
        assert record["notes"] and record["departures"] is not None
        assert record["parameters"] > 1000
        assert record["training_command"] is None  # the file, made here, does not tell
        checkpoint.pop("epoch", None)  # acgan counts epochs, as the original does
        records.append(record)
    assert [record["dataset"] for record in records] == ["unknown", "toy/train", "somewhere/toy"]
    own = {"per_class", "class_indices", "classes", "nearest_real", "architecture"}
    for record in records[1:]:
        assert record.keys() - own == records[0].keys() - own
        for part in ("checkpoint", "inception", "real", "scores", "environment"):
            assert record[part].keys() == records[0][part].keys()
    lines = capsys.readouterr().out.splitlines()
    assert sum("fid = " in line and "not comparable" in line for line in lines) == 3


def test_the_record_tells_how_the_network_was_trained():
    told = testing._training_command(["--data_path", "my data", "--resume"])
    assert told == "python train.py --data_path 'my data' --resume"
    assert testing._training_command("rm -rf") is None is testing._training_command([1])


def test_a_score_of_each_class_is_shown_where_classes_are_few():
    record = {"inception": None, "scores": {"class_accuracy": 0.5}, "per_class": {}}
    for number, shown in ((20, True), (21, False)):
        names = [f"class{label:03d}" for label in range(number)]
        record["per_class"] = {name: {"class_accuracy": 0.25} for name in names}
        lines = list(testing.report(record))
        assert lines[0] == "class_accuracy = 0.5"
        assert ("  class019: class_accuracy 0.25" in lines) == shown


def test_committed_records_are_read(tmp_path):
    """With the names of today."""
    paths = sorted(ROOT.glob("*/results/*/results.json"))
    assert paths
    for path in paths:
        assert "bn_stats" in results.read_record(path)["checkpoint"], path
    old = json.loads(paths[0].read_text())
    old["checkpoint"]["bn_mode"] = old["checkpoint"].pop("bn_stats", "running")
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert "bn_mode" not in results.read_record(tmp_path / "old.json")["checkpoint"]
