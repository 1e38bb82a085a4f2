"""The classifiers that judge generated images: training, saving, loading, what they are given to
see.
"""

import argparse

import numpy as np
import paddle
import pytest
from PIL import Image

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.images import save_png
from shared_metrics.runs import checkpoint
from tests.conftest import run_cli


@pytest.fixture
def acgan(paper):
    return paper("acgan")


def coloured(folder, names, count):
    """Class folders whose images are told by their colour: class k's red is 40 + 70 k, under
    noise.
    """
    rng = np.random.default_rng(len(names) + count)
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (8, 8, 3))
            image[..., 0] = 40 + 70 * k + rng.integers(-30, 30, (8, 8))
            save_png(image.astype(np.uint8), folder / name / f"{i}.png")
    return folder


def test_trained_from_the_command_line_it_knows_held_out_images(acgan, tmp_path):
    names = ["ant", "bee", "cat"]
    train, val = coloured(tmp_path / "train", names, 32), coloured(tmp_path / "val", names, 8)
    flags = "--imsize 8 --epochs 12 --batch_size 16 --width 4 --device cpu --num_workers 0 --lr 0.01".split()
    done = run_cli("acgan", "train_classifier.py", "--data_path", train, "--val_path", val, *flags,
                   "--output", tmp_path / "c.pdparams")  # fmt: skip
    found = acgan.classifier.load_classifier(tmp_path / "c.pdparams")
    told = float(done.stdout.split("held-out accuracy ")[-1].split()[0])
    assert found.classes == names and found.imsize == 8
    assert found.info["held_out_accuracy"] == pytest.approx(told, abs=1e-4) and told > 0.8
    images = [np.asarray(Image.open(val / name / f"{i}.png")) for name in names for i in range(8)]
    right = found.predict(np.stack(images)) == np.repeat(range(3), 8)
    assert right.mean() == pytest.approx(
        told, abs=1e-4
    )  # uint8 images meet the normalisation of the training
    pixels = (
        np.concatenate(
            [np.asarray(Image.open(p)).reshape(-1, 3) for p in sorted(train.glob("*/*.png"))]
        )
        / 255
    )
    assert np.allclose(found.mean, pixels.mean(0), atol=1e-3) and np.allclose(
        found.std, pixels.std(0), atol=1e-3
    )


def test_images_are_brought_to_a_side_and_then_to_the_classifiers(acgan):
    seen = []

    class Network:
        def eval(self):
            pass

        def __call__(self, x):
            seen.append(x.numpy())
            return x.mean([2, 3])

    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
    classifier = acgan.classifier.Classifier(Network(), 16, mean, std, 3, list("rgb"), {})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert classifier.predict(images).dtype == np.int64
    classifier.predict(images, 8)
    way = [Image.fromarray(images[1]).resize((16, 16), Image.Resampling.BILINEAR)]
    small = Image.fromarray(images[1]).resize((8, 8), Image.Resampling.BILINEAR)
    way.append(small.resize((16, 16), Image.Resampling.BILINEAR))
    for x, image in zip(seen, way, strict=True):
        expected = (np.asarray(image) / 255.0 - mean) / std
        assert x.shape == (2, 3, 16, 16) and np.allclose(
            x[1].transpose(1, 2, 0), expected, atol=1e-5
        )


def small_file(acgan, path):
    paddle.seed(0)
    network = acgan.classifier.SmallClassifier(16, 3, 4)
    acgan.classifier.save_small(
        path, network, 16, 4, ["a", "b", "c"], np.zeros(3), np.ones(3), 0.5, {}
    )
    return network


def test_a_file_brings_the_very_network(acgan, tmp_path):
    network = small_file(acgan, tmp_path / "c.pdparams")
    network.eval()
    found = acgan.classifier.load_classifier(tmp_path / "c.pdparams")
    x = paddle.randn([2, 3, 16, 16])
    assert np.array_equal(network(x).numpy(), found.network(x).numpy())
    assert not found.network.training and found.info["sha256"] == files.file_sha256(
        tmp_path / "c.pdparams"
    )


def test_damaged_and_foreign_files_are_named(acgan, tmp_path):
    load, path = acgan.classifier.load_classifier, tmp_path / "c.pdparams"
    small_file(acgan, path)
    state = weights.load(path)
    state["classifier"]["fc.bias"][0] += 1
    weights.save(state, path)
    with pytest.raises(UserError, match=r"c.pdparams: damaged"):
        load(path)
    del state["classifier"]["fc.bias"], state["sha256"]
    weights.save(state | {"sha256": files.digest(state)}, path)
    with pytest.raises(UserError, match=r"1 missing \(fc.bias\)"):
        load(path)
    weights.save({"conv1.weight": np.zeros(3)}, path)
    with pytest.raises(UserError, match=r"--classifier_model, one of inception_v3"):
        load(path)
    with pytest.raises(UserError, match=r"c.pdparams: does not fit the classifier resnet18"):
        load(path, "resnet18")


def test_imagenet_weights_of_paddle_vision(acgan, tmp_path):
    """A whole ResNet-18 with given weights answers as paddle.vision's own does on the normalised
    image.
    """
    paddle.seed(1)
    network = paddle.vision.models.resnet18(pretrained=False)
    network.eval()
    weights.save(checkpoint.network_state(network), tmp_path / "resnet18.pdparams")
    found = acgan.classifier.load_classifier(tmp_path / "resnet18.pdparams", "resnet18")
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    transform = paddle.vision.transforms.Compose(
        [
            paddle.vision.transforms.ToTensor(),
            paddle.vision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    expected = int(network(transform(image[0]).unsqueeze(0)).argmax())
    assert (
        found.predict(image).tolist() == [expected]
        and found.classes == []
        and found.num_classes == 1000
    )


def test_every_imagenet_network_is_paddles(acgan):
    assert all(hasattr(paddle.vision.models, name) for name in acgan.classifier.IMAGENET_SIDES)


def test_an_odd_side_is_refused(acgan):
    with pytest.raises(UserError, match="--imsize 24"):
        acgan.classifier.SmallClassifier(24, 3)


def test_training_sees_every_class_by_default_and_the_same_held_out(acgan, tmp_path):
    names = [f"c{i:02d}" for i in range(12)]
    train, val = coloured(tmp_path / "train", names, 1), coloured(tmp_path / "val", names, 1)
    args = argparse.Namespace(data_path=str(train), val_path=str(val), imsize=8, classes="all")
    data, held_out = acgan.train_classifier.open_data(args)
    assert data.classes == held_out.classes == names
    args.classes = "3-5"
    data, held_out = acgan.train_classifier.open_data(args)
    assert data.classes == held_out.classes == ["c03", "c04"]


def test_augmentation_shifts_and_keeps_the_size(acgan, tmp_path):
    data = acgan.dataset.ClassFolder(coloured(tmp_path, ["a", "b"], 1), 8, "0-2")
    whole = (data.load(0, None)[0] + 1) / 2
    shifted = acgan.train_classifier.Augmented(data)
    padded = np.pad(whole, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    seen = set()
    for k in range(40):
        x, y = shifted.load(0, np.random.default_rng(k))
        places = [
            (i, j)
            for i in range(3)
            for j in range(3)
            if np.allclose(padded[:, i : i + 8, j : j + 8], x)
        ]
        assert x.shape == (3, 8, 8) and y == 0 and len(places) == 1
        seen.add(places[0])
    assert len(seen) == 9
