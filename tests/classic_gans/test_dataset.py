"""Data sets of the classic GANs: values and places of pixels, draws, pictures of every kind."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from shared_metrics.errors import UserError
from shared_metrics.runs.loader import Batches
from tests.conftest import shared_dir


@pytest.fixture
def dataset(paper):
    return paper("classic_gans").dataset


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def idx(array):
    """An array of bytes as an IDX file."""
    array = np.asarray(array, np.uint8)
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


# --- digits


IMAGES = np.arange(3 * 4 * 4).reshape(3, 4, 4) * 5


@pytest.fixture
def digits(tmp_path):
    """Three 4x4 images, compressed, and their labels, not compressed, in another spelling."""
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx([7, 0, 7]))
    return tmp_path


def test_digits(dataset, digits):
    data = dataset.labelled(digits, image_size=4, channels=1)
    assert len(data) == 3 and data.counts == [1, 0, 0, 0, 0, 0, 0, 2, 0, 0]
    image, label = data.load(2, None)
    assert label == 7 and image.shape == (1, 4, 4) and image.dtype == np.float32
    np.testing.assert_allclose(image[0], IMAGES[2] / 255 * 2 - 1, atol=1e-6)
    assert next(data.pictures()).shape == (3, 4, 4, 3)
    assert dataset.describe(data) == "data: 3 images in 10 classes of 0 to 2 images"
    assert data.name(2) == "train-images-idx3-ubyte.gz, image 2"


def test_digits_in_another_size_and_colour(dataset, digits):
    image, _ = dataset.Digits(digits, image_size=8, channels=3).load(0, None)
    assert image.shape == (3, 8, 8) and (image[0] == image[2]).all()


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("train-labels.idx1-ubyte", idx([1, 2]), "2 labels for the 3 images"),
        ("train-labels.idx1-ubyte", idx([1, 10, 2]), "label 10 at position 1"),
        ("train-labels.idx1-ubyte", idx([1, 2, 3])[:-1], "does not hold the 3 bytes"),
        ("train-labels.idx1-ubyte", idx([1, 2, 3]) + b"x", "does not hold the 3 bytes"),
        ("train-labels.idx1-ubyte", idx(IMAGES), "header is 00000803"),
        ("train-labels.idx1-ubyte", struct.pack(">2I", 0x801, 2**32 - 1), "header is 00000801"),
        ("train-labels.idx1-ubyte", b"", "no IDX file"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES), mtime=0)[:-9], "damaged"),
        ("train-images-idx3-ubyte.gz", b"<html>", "no IDX file of 3"),
    ],
)
def test_damaged_digits_are_told(dataset, digits, name, content, told):
    (digits / name).write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        dataset.Digits(digits, 4)
    assert name in str(error.value)


def test_missing_digits(dataset, digits, tmp_path):
    (digits / "train-labels.idx1-ubyte").unlink()
    with pytest.raises(UserError, match="no train-labels-idx1-ubyte.gz.*download.py"):
        dataset.labelled(digits, 4, 1)


def test_real_digits(dataset):
    data = dataset.Digits(shared_dir("data/mnist"), split="t10k")
    assert len(data) == 10_000 and min(data.counts) > 800
    image, label = data.load(0, None)
    assert label == 7 and image.max() == 1 and image.min() == -1


# --- class folders


def test_class_folders(dataset, tmp_path):
    save(tmp_path / "b/wide.png", np.stack([np.zeros((4, 8)), *[np.full((4, 8), 255)] * 2], 2))
    save(tmp_path / "a/x.png", np.zeros((4, 4)))
    data = dataset.labelled(tmp_path, image_size=4, channels=3)
    assert data.classes == ["a", "b"] and data.counts == [1, 1]
    image, label = data.load(1, None)
    assert label == 1 and image.shape == (3, 4, 4)
    assert (image[0] == -1).all() and (image[1:] == 1).all()
    assert dataset.labelled(tmp_path, 4, channels=1).load(1, None)[0].shape == (1, 4, 4)


def test_a_folder_without_classes_is_one_class(dataset, tmp_path):
    save(tmp_path / "x.png", np.zeros((4, 4)))
    assert dataset.labelled(tmp_path, 4, 3).classes == [tmp_path.name]


def test_class_folders_at_fault(dataset, tmp_path):
    save(tmp_path / "a/x.png", np.zeros((4, 4)))
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="b: no pictures"):
        dataset.labelled(tmp_path, 4, 3)
    save(tmp_path / "y.png", np.zeros((4, 4)))
    with pytest.raises(UserError, match="y.png lies beside class folders such as a"):
        dataset.labelled(tmp_path, 4, 3)


# --- geometry


class Draws:
    """A generator whose integers are the largest possible, and whose random() is `number`."""

    def __init__(self, number):
        self.number = number

    def integers(self, end):
        return end - 1

    def random(self):
        return self.number


COLUMNS = np.tile(np.arange(6) * 40, (6, 1))  # each column has a grey of its own


def test_cut_and_mirror(dataset):
    image = Image.fromarray(COLUMNS.astype(np.uint8))
    random = dataset.Geometry(6, 4, "random", flip=True)
    last = random.apply(image, random.draw(Draws(0.9)))
    assert np.asarray(last)[0].tolist() == [80, 120, 160, 200]
    mirrored = random.apply(image, random.draw(Draws(0.1)))
    assert np.asarray(mirrored)[0].tolist() == [200, 160, 120, 80]
    centre = dataset.Geometry(6, 4, "center", flip=False)
    assert np.asarray(centre.apply(image, centre.draw(Draws(0.1))))[0].tolist() == [
        40,
        80,
        120,
        160,
    ]


def test_every_place_is_drawn(dataset):
    """Also where the picture is as large as the cut, which PaddleCV could not draw."""
    rng = np.random.default_rng(0)
    places = {dataset.Geometry(6, 4).draw(rng) for _ in range(300)}
    assert places == {(x, y, m) for x in range(3) for y in range(3) for m in (False, True)}
    assert dataset.Geometry(4, 4, flip=False).draw(rng) == (0, 0, False)


def test_impossible_sizes(dataset):
    with pytest.raises(UserError, match="--crop_size 256: larger than --image_size 255"):
        dataset.Geometry(255, 256)
    with pytest.raises(
        UserError, match="--crop_size 250: this --net_G needs sides that 256 divides"
    ):
        dataset.Geometry(286, 250, multiple=256)


# --- pairs


RNG = np.random.default_rng


@pytest.fixture
def pair(tmp_path):
    """A picture and its negative."""
    picture = RNG(0).integers(0, 256, (8, 8, 3))
    return save(tmp_path / "a.png", picture), save(tmp_path / "b.png", 255 - picture)


def test_both_pictures_of_a_pair_are_cut_alike(dataset, pair):
    data = dataset.Pairs([pair], dataset.Geometry(8, 4), "AtoB")
    draws = [data.load(0, RNG(seed)) for seed in range(20)]
    for a, b in draws:
        assert a.shape == b.shape == (3, 4, 4)
        np.testing.assert_allclose(a, -b, atol=1e-6)
    assert len({a.tobytes() for a, _ in draws}) > 10


def test_direction_turns_pairs_round(dataset, pair):
    geometry = dataset.Geometry.plain(8)
    data = dataset.Pairs([pair], geometry, "AtoB", channels=(3, 1))
    back = dataset.Pairs([pair], geometry, "BtoA", channels=(1, 3))
    assert (data.load(0, RNG(0))[0] == back.load(0, RNG(0))[1]).all()
    assert data.load(0, RNG(0))[1].shape == (1, 8, 8)
    assert data.name(0).endswith("a.png") and back.name(0).endswith("b.png")
    wanted = next(data.pictures())
    assert (wanted[0] == np.asarray(Image.open(pair[1]))).all()


def test_halves_of_one_picture(dataset, tmp_path):
    both = np.concatenate([np.zeros((4, 4)), np.full((4, 4), 255)], 1)
    file = save(tmp_path / "ab.png", both)
    data = dataset.Pairs([(file,)], dataset.Geometry.plain(4), "AtoB")
    a, b = data.load(0, RNG(0))
    assert (a == -1).all() and (b == 1).all()
    back = dataset.Pairs([(file,)], dataset.Geometry.plain(4), "BtoA")
    assert (back.load(0, RNG(0))[0] == 1).all()
    assert dataset.describe(back) == "data: 1 pairs, each halves of one file, BtoA"


def test_pairs_that_are_none(dataset, pair, tmp_path):
    geometry = dataset.Geometry.plain(4)
    wide = save(tmp_path / "wide.png", np.zeros((8, 16)))
    odd = save(tmp_path / "odd.png", np.zeros((4, 9)))
    for files, told in (
        ([(pair[0], pair[0])], "a.png is paired with itself"),
        ([pair, (pair[0], wide)], "a.png is 8x8, but .*wide.png 16x8"),
        ([(wide,), (odd,)], "odd.png is 9x4, not two pictures"),
        ([(pair[0],)], "a.png is 8x8, not two pictures of one size side by side"),
    ):
        with pytest.raises(UserError, match=told):
            dataset.Pairs(files, geometry, "AtoB", where="train.txt")


def test_a_pair_in_two_sizes_is_one(dataset, tmp_path):
    files = (
        save(tmp_path / "a.png", np.zeros((10, 15))),
        save(tmp_path / "b.png", np.zeros((7, 10))),
    )
    assert len(dataset.Pairs([files], dataset.Geometry.plain(4), "AtoB")) == 1


def test_pictures_of_every_kind(dataset, tmp_path):
    """Grey, palette, alpha, 16 bits, TIFF, CMYK: all become three channels in [-1, 1]."""
    grey = Image.fromarray(np.full((4, 4), 200, np.uint8))
    deep = Image.fromarray(np.full((4, 4), 200 * 256, np.uint16))
    kinds = {"l.png": grey, "p.png": grey.convert("P"), "rgba.png": grey.convert("RGBA")}
    kinds |= {"deep.png": deep, "l.tif": grey, "cmyk.jpg": grey.convert("RGB").convert("CMYK")}
    for name, image in kinds.items():
        image.save(tmp_path / name)
    files = [tmp_path / name for name in kinds]
    data = dataset.Unpaired(files, files[:1], dataset.Geometry.plain(4))
    for i in range(len(files)):
        a, _ = data.load(i, RNG(0))
        assert a.shape == (3, 4, 4), files[i]
        np.testing.assert_allclose(a, 200 / 255 * 2 - 1, atol=0.03, err_msg=str(files[i]))


# --- unpaired


def greys(tmp_path, domain, values):
    return [save(tmp_path / domain / f"{v}.png", np.full((4, 4), v)) for v in values]


def test_domains_of_two_lengths(dataset, tmp_path):
    """A in order, from the start again after the last; B at random."""
    files_a = greys(tmp_path, "A", [10, 20])
    files_b = greys(tmp_path, "B", [110, 120, 130, 140, 150])
    data = dataset.Unpaired(files_a, files_b, dataset.Geometry.plain(4))
    assert len(data) == 5 and dataset.describe(data) == "data: 2 pictures of A, 5 of B"

    def value(array):
        return round((array[0, 0, 0] + 1) / 2 * 255)

    items = [data.load(i, RNG([seed, i])) for seed in range(60) for i in range(5)]
    assert [value(a) for a, _ in items[:5]] == [10, 20, 10, 20, 10]
    assert {value(b) for _, b in items} == {110, 120, 130, 140, 150}
    assert {value(b) for _, b in items[::5]} == {110, 120, 130, 140, 150}, "B follows A"
    serial = dataset.Unpaired(files_a, files_b, dataset.Geometry.plain(4), serial=True)
    assert [value(serial.load(i, RNG(0))[1]) for i in range(5)] == [110, 120, 130, 140, 150]
    assert next(data.pictures())[:, 0, 0, 0].tolist() == [110, 120, 130, 140, 150]
    assert next(data.pictures(domain="A"))[:, 0, 0, 0].tolist() == [10, 20]


def test_both_domains_are_cut_apart(dataset, tmp_path):
    picture = RNG(0).integers(0, 256, (8, 8, 3))
    files = [save(tmp_path / name, picture) for name in ("a.png", "b.png")]
    data = dataset.Unpaired(files[:1], files[1:], dataset.Geometry(8, 4))
    items = [data.load(0, RNG(seed)) for seed in range(20)]
    assert sum((a == b).all() for a, b in items) < 10


def test_one_domain_is_refused(dataset, tmp_path):
    files = greys(tmp_path, "A", [1, 2])
    with pytest.raises(UserError, match="the same pictures for A and B"):
        dataset.Unpaired(files, files[::-1], dataset.Geometry.plain(4))


def test_batches_of_the_loader(dataset, tmp_path):
    data = dataset.Unpaired(
        greys(tmp_path, "A", [1, 2, 3]), greys(tmp_path, "B", [9]), dataset.Geometry(6, 4)
    )
    with Batches(data, 2, seed=0) as batches, Batches(data, 2, seed=0, workers=2) as others:
        for _ in range(3):
            a, b = next(batches)
            assert a.shape == b.shape == (2, 3, 4, 4)
            assert (a == next(others)[0]).all()


# --- pictures to translate


def test_pictures_keep_their_size(dataset, tmp_path):
    file = save(tmp_path / "x.png", np.zeros((8, 12)))
    assert dataset.Pictures([file]).load(0)[0].shape == (3, 8, 12)
    assert dataset.Pictures([file], size=6, channels=1).load(0)[0].shape == (1, 6, 6)
    with pytest.raises(UserError, match="x.png is 12x8. The network needs sides that 8 divides"):
        dataset.Pictures([file], multiple=8)
    assert len(dataset.Pictures([file], size=16, multiple=8)) == 1
