"""Files -> arrays: which pixels and labels, and what is said of folders that do not fit."""

import pickle

import numpy as np
import pytest
from PIL import Image

from shared_metrics.errors import UserError


@pytest.fixture
def dataset(paper):
    return paper("sagan").dataset


def folder_with(tmp_path, image, name="a/0.png"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return tmp_path


def stripes(width, height, axis):
    """An image whose red channel is its column number (axis 1) or row number (axis 0)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)[None, :] if axis else np.arange(height)[:, None]
    return Image.fromarray(pixels)


def reds(item):
    """The red channel of an item as 0..255."""
    return (item[0][0] + 1) * 127.5


def test_classes_are_the_sorted_folders(dataset, class_folder):
    data = dataset.ClassFolder(class_folder, 8)
    assert data.classes == ["circle", "square"] and data.counts == [3, 3]
    assert [int(data.load(i, np.random.default_rng(0))[1]) for i in range(6)] == [0, 0, 0, 1, 1, 1]


def test_pixels_reach_minus_one_and_one(dataset, tmp_path):
    checks = np.zeros((4, 4, 3), np.uint8)
    checks[2:] = 255
    folder = folder_with(tmp_path, Image.fromarray(checks))
    item = dataset.ClassFolder(folder, 4).load(0, np.random.default_rng(0))[0]
    assert item.shape == (3, 4, 4) and item.dtype == np.float32
    assert (item[:, :2] == -1).all() and (item[:, 2:] == 1).all()
    raw = dataset.ClassFolder(folder, 4, normalize=False).load(0, np.random.default_rng(0))[0]
    assert raw.min() == 0 and raw.max() == 1


def test_center_crop_takes_the_middle_square(dataset, tmp_path):
    folder = folder_with(tmp_path, stripes(12, 4, axis=1))
    item = dataset.ClassFolder(folder, 4, crop="center").load(0, np.random.default_rng(0))
    assert np.allclose(reds(item)[0], [4, 5, 6, 7], atol=0.01)


def test_zoom_cuts_closer(dataset, tmp_path):
    folder = folder_with(tmp_path, stripes(16, 16, axis=1))
    item = dataset.ClassFolder(folder, 8, crop="center", zoom=0.5).load(0, np.random.default_rng(0))
    assert np.allclose(reds(item)[0], range(4, 12), atol=0.01)


def test_random_crop_reaches_every_place_along_the_long_edge(dataset, tmp_path):
    folder = folder_with(tmp_path, stripes(4, 40, axis=0))
    data = dataset.ClassFolder(folder, 4, crop="random")
    starts = []
    for i in range(200):
        red = reds(data.load(0, np.random.default_rng(i)))
        starts.append(round(float(red[0, 0]), 3))
    assert min(starts) == 0 and max(starts) == 36 and 16 < np.mean(starts) < 20
    # Whole pixels: nothing is blurred where nothing is resized.
    assert all(start == int(start) for start in starts)


def test_squash_keeps_both_ends(dataset, tmp_path):
    folder = folder_with(tmp_path, stripes(40, 4, axis=1))
    row = reds(dataset.ClassFolder(folder, 4, crop="squash").load(0, np.random.default_rng(0)))[0]
    assert np.allclose(row, [4.5, 14.5, 24.5, 34.5], atol=1.0)


def test_flip_is_half_the_time_and_drawn_from_the_given_generator(dataset, tmp_path):
    folder = folder_with(tmp_path, stripes(4, 4, axis=1))
    data = dataset.ClassFolder(folder, 4, flip=True)
    flipped = [reds(data.load(0, np.random.default_rng(i)))[0, 0] > 1 for i in range(400)]
    assert 160 < sum(flipped) < 240
    again = [reds(data.load(0, np.random.default_rng(i)))[0, 0] > 1 for i in range(400)]
    assert flipped == again
    never = dataset.ClassFolder(folder, 4)
    assert all(reds(never.load(0, np.random.default_rng(i)))[0, 0] < 1 for i in range(20))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_mode_becomes_rgb(dataset, tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 255 * 257, np.uint16))
    else:
        white = Image.new("RGBA" if mode == "LA" else "RGB", (4, 4), "white")
        image = white.convert(mode)
    folder = folder_with(tmp_path, image, "a/0.tif" if mode in ("CMYK", "I;16") else "a/0.png")
    item = dataset.ClassFolder(folder, 4).load(0, np.random.default_rng(0))[0]
    assert item.shape == (3, 4, 4) and np.allclose(item, 1, atol=0.01)


def test_scores_see_middle_squares(dataset, tmp_path):
    folder = folder_with(tmp_path, stripes(12, 4, axis=1))
    data = dataset.ClassFolder(folder, 4, crop="random", flip=True)
    (batch,) = data.pictures()
    assert batch.dtype == np.uint8 and batch.shape == (1, 4, 4, 3)
    assert batch[0, 0, :, 0].tolist() == [4, 5, 6, 7]


def test_unreadable_pictures_are_left_out_of_scores_when_asked(dataset, tmp_path):
    for i in range(3):
        folder = folder_with(tmp_path, Image.new("RGB", (4, 4), (10 * i,) * 3), f"a/{i}.png")
    (folder / "a" / "1.png").write_bytes(b"no picture")
    data = dataset.ClassFolder(folder, 4)
    with pytest.raises(UserError, match=r"1\.png"):
        list(data.pictures())
    (batch,) = data.pictures(skip_bad=True)
    assert batch[:, 0, 0, 0].tolist() == [0, 20]


def test_wrong_size_without_resizing_names_the_file(dataset, tmp_path):
    folder = folder_with(tmp_path, stripes(5, 4, axis=1))
    with pytest.raises(UserError, match=r"0\.png: 5x4 px.*--dont_resize.*4x4"):
        dataset.ClassFolder(folder, 4, crop="none").load(0, np.random.default_rng(0))


def test_missing_and_empty_folders_say_what_is_expected(dataset, tmp_path):
    with pytest.raises(UserError, match=r"--data_path .*nowhere: no such folder"):
        dataset.ClassFolder(tmp_path / "nowhere", 4)
    with pytest.raises(UserError, match="no sub-folders"):
        dataset.ClassFolder(tmp_path, 4)
    (tmp_path / "cat").mkdir()
    folder_with(tmp_path, stripes(4, 4, axis=1), "dog/0.png")
    with pytest.raises(UserError, match=r"cat: no images in this class folder"):
        dataset.ClassFolder(tmp_path, 4)


def test_truncated_image_is_named(dataset, tmp_path):
    folder = folder_with(tmp_path, stripes(64, 64, axis=1), "a/0.jpg")
    path = folder / "a" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"0\.jpg"):
        dataset.ClassFolder(folder, 4).load(0, np.random.default_rng(0))


def test_cifar10_as_published(dataset, tmp_path):
    """The authors' pickles: rows of 3072 bytes, red plane first, with bytes as keys."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        rows = np.zeros((2, 3072), np.uint8)
        rows[:, :1024] = 10 * i  # the red plane
        rows[1, 32] = 255  # of the second image the second row, first column
        content = {b"data": rows, b"labels": [i, 0]}
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(content, protocol=2))
    names = {b"label_names": [b"c%d" % i for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    data = dataset.Cifar10Batches(tmp_path, 32)
    assert len(data) == 10 and data.classes[3] == "c3" and data.counts[0] == 5
    image, label = data.load(3, np.random.default_rng(0))
    assert int(label) == 0 and image[0, 1, 0] == 1
    assert np.allclose((image[:, 0, 0] + 1) * 127.5, [20, 0, 0])
    batch = next(data.pictures())
    assert batch.shape == (10, 32, 32, 3) and batch[3, 1, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "content, words",
    [
        ([1], "no pictures"),
        ({b"data": np.zeros((2, 3), np.uint8), b"labels": [0, 1]}, "no pictures"),
        ({b"data": "text", b"labels": [0, 1]}, "no pictures"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": ["cat", "dog"]}, "no labels"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "labels are not those"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, -1]}, "labels are not those"),
    ],
)
def test_a_batch_of_cifar10_that_is_none_is_named(dataset, tmp_path, content, words):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=f"data_batch_1: .*{words}"):
        dataset.read_batch(tmp_path / "data_batch_1")
    for names in ([b"a"], ["a", "b"], None):
        (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}))
        with pytest.raises(UserError, match="batches.meta: "):
            dataset.read_names(tmp_path / "batches.meta", 1)


def test_fake_data_has_the_asked_classes(dataset):
    data = dataset.FakeData(16, 3, length=10)
    items = [data.load(i, np.random.default_rng(0)) for i in range(10)]
    assert data.counts == [4, 3, 3] and items[4][0].shape == (3, 16, 16)
    assert np.bincount([label for _, label in items]).tolist() == data.counts
