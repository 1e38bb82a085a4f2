"""MNIST's files, and the judge of digits that is trained on them."""

import gzip
import struct

import numpy as np
import pytest

from shared_metrics.errors import UserError
from shared_metrics.images import to_uint8
from shared_metrics.judges import digits
from shared_metrics.judges.__main__ import parse_args
from shared_metrics.judges.classifier import load_classifier
from tests.conftest import run_cli, shared_dir


def idx(array):
    """An IDX file's bytes, by the letter of its description."""
    array = np.asarray(array, np.uint8)
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def bars(count):
    """Pictures (count, 28, 28): digit k is a bar in row band k, under noise; and their digits."""
    rng = np.random.default_rng(count)
    labels = np.arange(count) % 3
    images = rng.integers(0, 60, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[8 * label + 3 : 8 * label + 9, 4:24] += 190
    return images.astype(np.uint8), labels.astype(np.uint8)


def write(folder, count):
    images, labels = bars(count)
    (folder / "images.gz").write_bytes(gzip.compress(idx(images)))
    (folder / "labels").write_bytes(idx(labels))
    return ["--images", str(folder / "images.gz"), "--labels", str(folder / "labels")]


def test_idx_files_are_read(tmp_path):
    images = np.arange(24).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx(images))
    (tmp_path / "packed").write_bytes(gzip.compress(idx(images)))
    for name in ("plain", "packed"):
        assert np.array_equal(digits.read_idx(tmp_path / name, 3), images)
    (tmp_path / "labels").write_bytes(idx([7, 0]))
    assert digits.read_idx(tmp_path / "labels", 1).tolist() == [7, 0]


@pytest.mark.parametrize(
    "content, told",
    [
        (idx([1, 2]), "no IDX file of bytes with 3 axes"),
        (b"", "no IDX file"),
        (b"<html>", "no IDX file"),
        (idx(np.zeros((2, 3, 4)))[:7], "no IDX file"),
        (idx(np.zeros((2, 3, 4)))[:-1], "23 values where its head says 2 x 3 x 4"),
        (idx(np.zeros((2, 3, 4))) + b"0", "25 values where its head says 2 x 3 x 4"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"1", "1 values where its head says 4294967295 x"),
        (gzip.compress(idx(np.zeros((2, 3, 4))), mtime=0)[:-9], "cannot be read"),
        (b"\x1f\x8b" + b"0" * 30, "cannot be read"),
    ],
)
def test_other_files_are_named(tmp_path, content, told):
    (tmp_path / "f.gz").write_bytes(content)
    with pytest.raises(UserError) as error:
        digits.read_idx(tmp_path / "f.gz", 3)
    assert f"f.gz: {told}" in str(error.value)


def test_half_is_held_out_and_pairs_stay_together(tmp_path):
    args = parse_args(["digits", *write(tmp_path, 12), "--output", "d", "--seed", "3"])
    data, held_out = digits.open_data(args)
    assert len(data) == len(held_out) == 6 and data.classes == ["0", "1", "2"]
    assert sorted([*data.labels, *held_out.labels]) == sorted(bars(12)[1])
    for part in (data, held_out):
        for i in range(6):
            picture, _ = part.load(i, np.random.default_rng(i))
            assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
            assert (picture[..., 0] == picture[..., 2]).all()
        for picture, label in zip(part.items, part.labels, strict=True):  # before any shift
            rows = picture[..., 0].mean(1)  # the bars begin 9 px apart, the first at 3
            assert (rows.argmax() - 3) // 9 == label


def test_one_digit_alone_is_refused(tmp_path):
    (tmp_path / "i").write_bytes(idx(np.zeros((4, 8, 8))))
    (tmp_path / "l").write_bytes(idx(np.full(4, 7)))
    flags = ["digits", "--images", str(tmp_path / "i"), "--labels", str(tmp_path / "l")]
    with pytest.raises(UserError, match="--labels .*: all are 7; give two digits"):
        digits.open_data(parse_args([*flags, "--output", "d"]))


def test_labels_of_other_images_are_told(tmp_path):
    flags = write(tmp_path, 12)
    (tmp_path / "labels").write_bytes(idx([1, 2]))
    with pytest.raises(UserError, match=r"--labels .*labels: 2 labels for 12 images"):
        digits.open_data(parse_args(["digits", *flags, "--output", "d"]))


def test_trained_from_the_command_line_it_reads_grey_pictures_of_any_size(tmp_path):
    flags = [*write(tmp_path, 96), *"--epochs 8 --batch_size 16 --width 4 --lr 0.01".split()]
    flags += ["--device", "cpu", "--num_workers", "0", "--output", tmp_path / "d.pdparams"]
    done = run_cli(".", "-m", "shared_metrics.judges", "digits", *flags)
    judge = load_classifier(tmp_path / "d.pdparams")
    accuracy = judge.info["held_out_accuracy"]
    assert judge.classes == ["0", "1", "2"] and accuracy > 0.9
    assert f"held-out accuracy {accuracy:.4f}" in done.stdout.splitlines()[-1]
    images, labels = bars(30)
    drawn = to_uint8(images[:, None] / 127.5 - 1)  # as a generator's (N, 1, 28, 28) becomes
    assert drawn.shape == (30, 28, 28, 1) and (judge.predict(drawn) == labels).mean() > 0.9
    assert np.array_equal(judge.predict(drawn.repeat(3, 3)), judge.predict(drawn))


def test_real_digits_are_read():
    folder = shared_dir("data/mnist")
    images = digits.read_idx(folder / "t10k-images-idx3-ubyte.gz", 3)
    labels = digits.read_idx(folder / "t10k-labels-idx1-ubyte.gz", 1)
    assert images.shape == (10_000, 28, 28) and labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(labels).min() > 800 and images[:, 0].max() == 0  # margins are black
