"""The classifiers that judge generated images: training, saving, loading, what they are given to
see.
"""

import numpy as np
import paddle
import pytest
from PIL import Image

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.images import middle_square, save_png
from shared_metrics.judges import classifier as judges
from shared_metrics.judges.__main__ import main, parse_args
from shared_metrics.judges.pictures import Pictures
from shared_metrics.process import command
from shared_metrics.runs import checkpoint
from tests.conftest import run_cli


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


def test_trained_from_the_command_line_it_knows_held_out_images(tmp_path):
    names = ["ant", "bee", "cat"]
    train, val = coloured(tmp_path / "train", names, 32), coloured(tmp_path / "val", names, 8)
    flags = "--imsize 8 --epochs 12 --batch_size 16 --width 4 --lr 0.01".split()
    flags += "--device cpu --num_workers 0".split()
    done = run_cli(".", "-m", "shared_metrics.judges", "classifier", "--data_path", train,
                   "--val_path", val, *flags, "--output", tmp_path / "c.pdparams")  # fmt: skip
    judge = judges.load_classifier(tmp_path / "c.pdparams")
    accuracy = float(done.stdout.split("held-out accuracy ")[-1].split()[0])
    assert judge.classes == names and judge.imsize == 8
    assert judge.info["held_out_accuracy"] == pytest.approx(accuracy, abs=1e-4) and accuracy > 0.8
    images = [np.asarray(Image.open(val / name / f"{i}.png")) for name in names for i in range(8)]
    right = judge.predict(np.stack(images)) == np.repeat(range(3), 8)
    # uint8 images meet the normalisation of the training
    assert right.mean() == pytest.approx(accuracy, abs=1e-4)
    pixels = (
        np.concatenate(
            [np.asarray(Image.open(p)).reshape(-1, 3) for p in sorted(train.glob("*/*.png"))]
        )
        / 255
    )
    assert np.allclose(judge.mean, pixels.mean(0), atol=1e-3) and np.allclose(
        judge.std, pixels.std(0), atol=1e-3
    )


@pytest.mark.parametrize("steps", [1, 2, 16])
def test_a_batch_or_two_train(tmp_path, capsys, steps):
    """Of 1 to 19 steps in all a tenth is one step or none."""
    train = coloured(tmp_path / "train", ["a", "b"], 8)
    val = coloured(tmp_path / "val", ["a", "b"], 1)
    flags = ["classifier", "--data_path", str(train), "--val_path", str(val), "--imsize", "8"]
    flags += ["--output", str(tmp_path / "c.pdparams"), *"--device cpu --num_workers 0".split()]
    main([*flags, "--epochs", "1", "--batch_size", str(16 // steps)])
    assert judges.load_classifier(tmp_path / "c.pdparams").info["held_out_accuracy"] in (0, 0.5, 1)
    assert f"saved {tmp_path}/c.pdparams: held-out accuracy" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        command(main)([*flags, "--overwrite", "--batch_size", "17"])
    assert "--batch_size 17: the data has only 16 image" in capsys.readouterr().err


def test_images_are_brought_to_a_side_and_then_to_the_classifiers():
    seen = []

    class Network:
        def eval(self):
            pass

        def __call__(self, x):
            seen.append(x.numpy())
            return x.mean([2, 3])

    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
    classifier = judges.Classifier(Network(), 16, mean, std, 3, list("rgb"), {})
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


def small_file(path):
    """A file as the first version of this repository wrote it, entry by entry."""
    paddle.seed(0)
    network = judges.SmallClassifier(16, 3, 4)
    state = {
        "classifier": checkpoint.network_state(network),
        "imsize": 16,
        "width": 4,
        "classes": ["a", "b", "c"],
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "accuracy": 0.5,
        "args": {},
        "format": 1,
    }
    weights.save({**state, "sha256": files.digest(state)}, path)
    return network


def test_a_file_brings_the_very_network(tmp_path):
    network = small_file(tmp_path / "c.pdparams")
    network.eval()
    judge = judges.load_classifier(tmp_path / "c.pdparams")
    x = paddle.randn([2, 3, 16, 16])
    assert np.array_equal(network(x).numpy(), judge.network(x).numpy())
    assert not judge.network.training and judge.info["sha256"] == files.file_sha256(
        tmp_path / "c.pdparams"
    )


def test_damaged_and_foreign_files_are_named(tmp_path):
    load, path = judges.load_classifier, tmp_path / "c.pdparams"
    small_file(path)
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


def test_imagenet_weights_of_paddle_vision(tmp_path):
    """A whole ResNet-18 with given weights answers as paddle.vision's own does on the normalised
    image.
    """
    paddle.seed(1)
    network = paddle.vision.models.resnet18(pretrained=False)
    network.eval()
    weights.save(checkpoint.network_state(network), tmp_path / "resnet18.pdparams")
    judge = judges.load_classifier(tmp_path / "resnet18.pdparams", "resnet18")
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    transform = paddle.vision.transforms.Compose(
        [
            paddle.vision.transforms.ToTensor(),
            paddle.vision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    expected = int(network(transform(image[0]).unsqueeze(0)).argmax())
    assert (
        judge.predict(image).tolist() == [expected]
        and judge.classes == []
        and judge.num_classes == 1000
    )


def test_every_imagenet_network_is_paddles():
    assert all(hasattr(paddle.vision.models, name) for name in judges.IMAGENET_SIDES)


def test_an_odd_side_is_refused():
    with pytest.raises(UserError, match="--imsize 24"):
        judges.SmallClassifier(24, 3)


def test_training_sees_every_class_by_default_and_the_same_held_out(tmp_path):
    names = [f"c{i:02d}" for i in range(12)]
    train, val = coloured(tmp_path / "train", names, 1), coloured(tmp_path / "val", names, 1)
    flags = ["classifier", "--data_path", str(train), "--val_path", str(val), "--imsize", "8"]
    flags += ["--output", "c.pdparams"]
    data, held_out = judges.open_data(parse_args(flags))
    assert data.classes == held_out.classes == names
    data, held_out = judges.open_data(parse_args([*flags, "--classes", "3-5"]))
    assert data.classes == held_out.classes == ["c03", "c04"]


def test_classes_without_held_out_images_are_told(tmp_path):
    train = coloured(tmp_path / "train", ["a", "b"], 1)
    val = coloured(tmp_path / "val", ["a"], 1)
    flags = ["classifier", "--data_path", str(train), "--val_path", str(val), "--output", "c"]
    with pytest.raises(UserError, match="--val_path .*: holds no class folder b. It has a"):
        judges.open_data(parse_args(flags))
    (val / "b").mkdir()
    with pytest.raises(UserError, match=r"--val_path .*b: no images in this class folder"):
        judges.open_data(parse_args(flags))


def test_one_class_alone_is_refused(tmp_path):
    root = coloured(tmp_path / "train", ["a", "b"], 2)
    flags = ["classifier", "--data_path", str(root), "--val_path", str(root), "--output", "c"]
    with pytest.raises(UserError, match="--data_path .*train: a is its only class; give two"):
        judges.open_data(parse_args([*flags, "--classes", "a"]))


def test_pictures_are_mirrored_half_of_the_time():
    picture = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    data = Pictures([picture], np.array([0]), ["a"], np.asarray, flip=True)
    seen = [data.load(0, np.random.default_rng(k))[0] for k in range(40)]
    mirrored = sum(np.array_equal(one, picture[:, ::-1]) for one in seen)
    assert 10 < mirrored < 30
    assert sum(np.array_equal(one, picture) for one in seen) == 40 - mirrored


def test_augmentation_shifts_and_keeps_the_size(tmp_path):
    files = sorted(coloured(tmp_path, ["a", "b"], 1).rglob("*.png"))

    def read(path):
        return np.asarray(middle_square(path, 8))

    whole = read(files[0]).transpose(2, 0, 1) / 255
    shifted = Pictures(files, np.array([0, 1]), ["a", "b"], read, shift=True)
    padded = np.pad(whole, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    seen = set()
    for k in range(40):
        picture, y = shifted.load(0, np.random.default_rng(k))
        x = picture.transpose(2, 0, 1) / 255
        places = [
            (i, j)
            for i in range(3)
            for j in range(3)
            if np.allclose(padded[:, i : i + 8, j : j + 8], x)
        ]
        assert x.shape == (3, 8, 8) and y == 0 and len(places) == 1
        seen.add(places[0])
    assert len(seen) == 9
