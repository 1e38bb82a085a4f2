"""Pairs of photo and maps: turned alike, cut before they are resized, palettes that agree. In each
of the three data sets that read them.
"""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from shared_metrics import label_maps
from shared_metrics.errors import UserError
from shared_metrics.judges.pairs import Pairs
from shared_metrics.label_maps import cut, pair, palette_of, resize_ids

READERS = ("gaugan_simam", "classic_gans", "judges")


@pytest.fixture(params=READERS)
def read(request, paper):
    """Function (root, label_nc=4, size=8) -> (labels, photo in [-1, 1] (3, H, W)) of the first
    training pair of a folder; `read.data` makes the data set alone.
    """

    def data(root, label_nc=4, size=8):
        if request.param == "gaugan_simam":
            dataset = paper("gaugan_simam").dataset
            return dataset.PairFolder(root, label_nc=label_nc, crop_size=size, load_size=size)
        if request.param == "judges":
            return Pairs(root, "train", label_nc, crop_size=size, load_size=size)
        items, _ = pair(root / "train_img", root / "train_inst")
        label_maps = paper("classic_gans").label_maps
        how = {"load_size": (size, size), "crop_size": (size, size)}
        return label_maps.LabelledPhotos(items, label_nc, True, **how)

    def first(root, **how):
        if request.param == "judges":
            pairs = data(root, **how)
            pairs.split = "val"  # no mirror
            photo, labels = pairs.load(0, None)
            return labels, photo.transpose(2, 0, 1) / 127.5 - 1
        labels, _, photo = data(root, **how).load(0, np.random.default_rng(0))
        return labels, photo

    first.data = data
    return first


def add(root, name, photo, labels, palette=None, **how):
    for folder in ("train_img", "train_inst"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    photo = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    photo.save(root / "train_img" / f"{name}.png", **how)
    image = Image.fromarray(np.uint8(labels))
    if palette:
        image.putpalette(np.uint8(palette).tobytes())
    image.save(root / "train_inst" / f"{name}.png")


@pytest.mark.parametrize("orientation, turn", [(3, 180), (6, 90), (8, 270), (2, None)])
def test_photos_are_turned_as_exif_says(read, tmp_path, orientation, turn):
    """The file holds its pixels so that a viewer, who turns them, shows what the map says."""
    labels = np.zeros((8, 8), np.uint8)
    labels[:4, 4:] = 1
    shown = Image.fromarray(np.stack([labels * 255] * 3, 2))
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    stored = shown.rotate(turn) if turn else shown.transpose(flip)
    exif = Image.Exif()
    exif[0x0112] = orientation
    add(tmp_path, "a", stored, labels, exif=exif)
    ids, photo = read(tmp_path)
    assert np.array_equal(ids, labels) and np.array_equal(photo[0] > 0, labels == 1)


def test_a_map_turned_otherwise_is_told_with_exif(read, tmp_path):
    add(tmp_path, "a", np.zeros((8, 12, 3), np.uint8), np.zeros((12, 8)))
    with pytest.raises(UserError, match="8x12 px, but its photo .* 12x8 .*EXIF orientation"):
        read(tmp_path)


def test_the_first_file_whose_palette_differs_is_named(read, tmp_path):
    """Of ids that occur; a palette that is only longer agrees, and so does a grey map."""
    photo = np.zeros((8, 8, 3), np.uint8)
    labels = np.arange(64).reshape(8, 8) % 2
    palette = [[0, 0, 0], [255, 0, 0]]
    add(tmp_path, "a", photo, labels)
    add(tmp_path, "b", photo, labels, palette)
    add(tmp_path, "c", photo, labels * 2, [[0, 0, 0], [9, 9, 9], [0, 255, 0]])
    data = read.data(tmp_path)
    assert data.palette[0].name == "b.png" and data.doubts() == []
    for name in "de":
        add(tmp_path, name, photo, labels, [[0, 0, 0], [0, 255, 0], [255, 0, 0]])
    data = read.data(tmp_path)
    told = "d.png: id 1 is #00ff00 in its palette, but #ff0000 in .*b.png's"
    with pytest.raises(UserError, match=told):
        data.doubts()
    with pytest.raises(UserError, match=told):
        data.load(3, np.random.default_rng(0))


def test_a_long_photo_is_cut_before_it_is_resized(read, tmp_path):
    """20000x10 px become 512000x256 px otherwise, 400 MB."""
    add(tmp_path, "a", np.zeros((10, 20000, 3), np.uint8), np.zeros((10, 20000)))
    tracemalloc.start()
    labels, photo = read(tmp_path, size=256)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    assert labels.shape == (256, 256) and photo.shape == (3, 256, 256)


@pytest.mark.parametrize("size", [(60, 90), (17, 23), (20, 30), (7, 11)])
def test_a_window_is_that_of_the_resized_whole(size):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:30, :20]
    photo = np.stack([5 * x, 4 * y, 128 + 60 * np.sin(x + y / 3)], 2)
    photo = Image.fromarray(photo.astype(np.uint8))
    ids = rng.integers(0, 9, (30, 20))
    whole = np.asarray(photo.resize(size, Image.Resampling.BICUBIC)).astype(int)
    left, top, right, bottom = window = (1, 2, 6, 10)
    cropped, (kept,) = cut(photo, [ids], size, window)
    assert np.abs(np.asarray(cropped).astype(int) - whole[top:bottom, left:right]).max() <= 1
    assert np.array_equal(kept, resize_ids(ids, *size)[top:bottom, left:right])
    nearest = Image.fromarray(np.int32(ids)).resize(size, Image.Resampling.NEAREST)
    assert (np.asarray(nearest) == resize_ids(ids, *size)).mean() > 0.9  # but for ties


def test_maps_without_palettes_have_none(tmp_path):
    add(tmp_path, "a", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)))
    assert palette_of(pair(tmp_path / "train_img", tmp_path / "train_inst")[0]) is None


@pytest.mark.parametrize("cities", [True, False])
def test_cityscapes_as_downloaded_is_paired_by_frame(tmp_path, cities):
    """Labels, instances and colours lie side by side; photos perhaps all in one folder."""
    for split, city, frame in (
        ("train", "aachen", "000000_000019"),
        ("train", "bad-honnef", "000001_000019"),
        ("val", "lindau", "000000_000019"),
    ):
        maps = tmp_path / "gtFine" / split / city
        photos = tmp_path / "leftImg8bit" / split / (city if cities else "")
        for folder in (maps, photos):
            folder.mkdir(parents=True, exist_ok=True)
        ids = Image.new("L", (8, 4), 7)
        for kind in ("labelIds", "instanceIds", "color", "labelTrainIds"):
            ids.save(maps / f"{city}_{frame}_gtFine_{kind}.png")
        ids.convert("RGB").save(photos / f"{city}_{frame}_leftImg8bit.png")
        (maps / f"{city}_{frame}_gtFine_polygons.json").write_text("{}")
    assert label_maps.has_test_pairs(tmp_path) and not label_maps.has_test_pairs(tmp_path / "x")
    for split, number in (("train", 2), ("val", 1)):
        items, problems = label_maps.pair(*label_maps.find_folders(tmp_path, split=split))
        assert len(items) == number and not problems
        for photo, labels, instances in items:
            city, sequence, frame = photo.stem.split("_")[:3]
            assert labels.name == f"{city}_{sequence}_{frame}_gtFine_labelIds.png"
            assert instances.name == f"{city}_{sequence}_{frame}_gtFine_instanceIds.png"
