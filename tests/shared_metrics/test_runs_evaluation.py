"""Scores during training: over which networks, against which real images, and which is the best."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from shared_metrics import images
from shared_metrics.errors import UserError
from shared_metrics.runs import evaluation


class Pixels:
    """A feature network: the means of an image's quarters, times 255 for the other network."""

    batch_size = 8

    def __init__(self, name="inception", comparable=True):
        self.name = name
        self.dimensions = 4 if name == "inception" else 2
        about = {"protocol": name, "variant": name, "sha256": name * 8}
        self.info = {"source": f"{name} of a test", "comparable": comparable, **about}
        self.protocol = SimpleNamespace(
            is_variant=name, variant=name, is_bias=False, is_seed=2020, is_equal_splits=False
        )

    def features(self, images, variant=None):
        images = np.asarray(images, np.float32) / 255
        means = [images[:, :2].mean((1, 2, 3)), images[:, 2:].mean((1, 2, 3))]
        means += [images[:, :, :2].std((1, 2, 3)), images[:, :, 2:].std((1, 2, 3))]
        return np.stack(means[: self.dimensions], 1)

    def logits(self, features, bias=False):
        return np.pad(features * 5, ((0, 0), (0, 1008 - self.dimensions)))


def pictures(number, seed=0, offset=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (number, 4, 4, 3)) + offset
    return images.clip(0, 255).astype(np.uint8)


class Data:
    """A data set of twelve pictures, in these files; in other files each is cut to its first three
    rows.
    """

    classes = ("cat", "dog")

    def __init__(self, files, pictures):
        self.files = files
        self.pictures = pictures

    def __len__(self):
        return 12

    def sources(self):
        return self.files

    def crops(self, files, skip_bad):
        return images.stacks(files, lambda path: images.read_rgb(path).crop((0, 0, 4, 3)), skip_bad)


def opened(folder, networks, resumed=False, real="", reads=None, number=10, files=(), told=None):
    log = SimpleNamespace(info=[].append if told is None else told.append)

    def training_images(skip_bad):
        if reads is not None:
            reads.append("training images")
        return iter([pictures(12)])

    data = Data(files, training_images)
    how = {"data": data, "skip_bad": False, "log": log, "resumed": resumed}
    return evaluation.Evaluation(folder, real, networks, number, **how)


def both(comparable=True):
    inception = Pixels(comparable=comparable)
    return [(inception, ["fid", "is"]), (Pixels("efficientnet"), ["fid"])]


def test_only_a_resumed_run_trusts_the_statistics_in_its_folder(tmp_path):
    """A run begun anew there may train on other classes."""
    reads = []
    for resumed in (True, False, True):
        opened(tmp_path, both(), resumed, reads=reads)
    assert reads == ["training images"] * 2  # the third run has its own already
    assert (tmp_path / "real_stats.npz").exists()
    assert (tmp_path / "real_stats_efficientnet.npz").exists()
    opened(tmp_path, both(), True, real=str(tmp_path / "real_stats.npz"), reads=reads)
    assert len(reads) == 2


def test_a_statistics_file_decides_for_its_network(tmp_path):
    opened(tmp_path, both())
    judged = opened(tmp_path, both(), real=str(tmp_path / "real_stats_efficientnet.npz"))
    assert [network.name for network, _ in judged.networks] == ["efficientnet"]
    with pytest.raises(UserError, match="2 features an image, not Inception's 4"):
        opened(tmp_path, both()[:1], real=str(tmp_path / "real_stats_efficientnet.npz"))


def test_one_image_to_score_is_told_before_the_training(tmp_path):
    with pytest.raises(UserError, match="--eval_every: 1 image to score"):
        opened(tmp_path, both(), number=1)


def test_fewer_images_than_asked_for_are_scored(tmp_path):
    """--skip_bad_images leaves out those drawn of inputs that cannot be read."""
    best = {}
    values, _ = opened(tmp_path, both()).score([pictures(5), pictures(2, 1)], 3, best)
    assert values["is"] >= 1 and best["fid"]["samples"] == 7


def test_the_best_of_each_score_is_kept(tmp_path):
    judged = opened(tmp_path, both())
    best = {}
    names = []
    logs = []
    for iteration, offset in ((1, 50), (2, 10), (3, 30)):
        images = [pictures(6, 1, offset), pictures(4, 2, offset)]
        values, improved = judged.score(images, iteration, best)
        logs.append(values)
        names.append(improved)
    assert sorted(logs[0]) == ["fd_efficientnet", "fid", "is"]
    assert names[0] == ["fid", "is", "fd_efficientnet"]
    assert {"fid", "fd_efficientnet"} <= set(names[1]) and "fid" not in names[2]
    assert best["fid"] == {"value": logs[1]["fid"], "iteration": 2, "samples": 10}
    assert best["fd_efficientnet"]["value"] == min(log["fd_efficientnet"] for log in logs)


def test_a_random_inception_keeps_no_best(tmp_path):
    judged = opened(tmp_path, both(comparable=False))
    best = {}
    values, improved = judged.score([pictures(10, 1)], 1, best)
    assert sorted(values) == ["fd_efficientnet", "fid_not_comparable", "is_not_comparable"]
    assert improved == list(best) == ["fd_efficientnet"]


def test_which_networks_tell_a_runs_progress(monkeypatch):
    """Inception where it can be had, else EfficientNet-Lite0, which also stands by a random one."""

    def inception(weights):
        if weights != "random":
            raise UserError("no Inception here")
        return Pixels(comparable=False)

    def missing(weights):
        raise UserError("no EfficientNet here")

    monkeypatch.setattr(evaluation, "Extractor", inception)
    monkeypatch.setattr(evaluation, "EfficientNet", lambda weights: Pixels("efficientnet"))
    networks, note = evaluation.open_networks("auto", "auto")
    assert [(n.name, measures) for n, measures in networks] == [("efficientnet", ["fid"])]
    assert "no Inception here" in note
    networks, note = evaluation.open_networks("random", "auto")
    assert [n.name for n, _ in networks] == ["inception", "efficientnet"] and not note
    with pytest.raises(UserError, match="no Inception here"):
        evaluation.open_networks("theirs.pth", "auto")
    monkeypatch.setattr(evaluation, "EfficientNet", missing)
    networks, note = evaluation.open_networks("random", "auto")
    assert [n.name for n, _ in networks] == ["inception"] and "no EfficientNet here" in note
    with pytest.raises(UserError, match="no Inception here.*no EfficientNet here"):
        evaluation.open_networks("auto", "auto")


def test_statistics_are_measured_anew_where_the_images_have_changed(tmp_path):
    data = [tmp_path / f"{i}.png" for i in range(3)]
    for path in data:
        path.write_bytes(b"0123")
    run = tmp_path / "run"
    run.mkdir()
    reads = []
    told = []
    for change in (lambda: None, lambda: None, lambda: data[2].write_bytes(b"01234"), data.pop):
        change()
        opened(run, both(), True, reads=reads, files=list(data), told=told)
    assert len(reads) == 3
    assert sum("not those of now (names, sizes or number differ)" in line for line in told) == 2


def test_a_folder_of_real_images_is_read_as_the_training_images_are(tmp_path):
    for name in ("cat", "dog", "owl"):
        (tmp_path / name).mkdir()
        for i in range(6):
            images.save_png(pictures(1, seed=i)[0], tmp_path / name / f"{i}.png")
    told = []
    judged = opened(tmp_path, both(), real=str(tmp_path), told=told)
    assert judged.real[0].number == 12 and judged.real[0].info["resolution"] == "4x3"
    judged.score([pictures(10)], 1, {})
    judged.score([pictures(10)], 2, {})
    line = "note: .*: the generator's 2 classes are taken, 1 other class folders and 0 pictures"
    assert len([text for text in told if re.match(line, text)]) == 1
    assert any(text.startswith("note: 10 images against 12") for text in told)
    (tmp_path / "dog").rename(tmp_path / "cow")
    with pytest.raises(UserError, match="--real_stats .*: holds no class folder dog"):
        opened(tmp_path, both(), real=str(tmp_path))
