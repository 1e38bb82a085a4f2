"""Class groups, labels and pixels, and what is said of groups and folders that do not fit."""

import argparse

import numpy as np
import pytest
from PIL import Image

from shared_metrics.errors import UserError

RNG = np.random.default_rng(0)  # handed to loads that draw nothing


@pytest.fixture
def dataset(paper):
    return paper("acgan").dataset


@pytest.fixture
def folders(tmp_path):
    """25 class folders c00 ... c24.

    Class i holds i % 3 + 1 pictures of the gray value 10 i, all but the first two deep.
    """
    for i in range(25):
        deep = tmp_path / "data" / f"c{i:02d}" / "deeper"
        deep.mkdir(parents=True)
        for k in range(i % 3 + 1):
            place = deep if k else deep.parent
            Image.new("RGB", (6, 6), (10 * i,) * 3).save(place / f"{k}.png")
    return tmp_path / "data"


def flags(root, **changes):
    defaults = {"imsize": 4, "classes": "auto", "class_seed": 0, "flip": False, "num_classes": 0}
    defaults["any_folders"] = False
    return argparse.Namespace(data_path=str(root), **defaults | changes)


def picture(tmp_path, image, name="a/0.png"):
    """A folder of one class that holds this image."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return tmp_path


def test_a_range_leaves_its_end_out_and_labels_count_from_zero(dataset, folders):
    data = dataset.ClassFolder(folders, 4, "10-20")
    assert data.classes == [f"c{i}" for i in range(10, 20)]
    assert data.class_indices == list(range(10, 20)) and data.class_total == 25
    assert data.counts == [i % 3 + 1 for i in range(10, 20)] and len(data) == sum(data.counts)
    for index in range(len(data)):
        image, label = data.load(index, RNG)
        gray = 10 * (label + 10)  # it tells the folder
        assert np.allclose((image + 1) * 127.5, gray, atol=0.01)
        assert f"c{label + 10}" in data.name(index) and label.dtype == np.int64


def test_numbers_and_ranges_are_joined_in_the_order_of_the_folders(dataset, folders):
    data = dataset.ClassFolder(folders, 4, "21-23, 3,17")
    assert data.class_indices == [3, 17, 21, 22] and data.classes == ["c03", "c17", "c21", "c22"]
    assert sorted(set(data.labels)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "total, chosen",
    [(1, range(1)), (10, range(10)), (19, range(10)), (20, range(10, 20)), (1000, range(10, 20))],
)
def test_auto_is_all_of_few_and_the_published_group_of_many(dataset, total, chosen):
    assert dataset.choose_classes([f"{i:04d}" for i in range(total)], "auto") == list(chosen)


def test_random_groups_belong_to_their_seed(dataset):
    names = [f"n{i:04d}" for i in range(1000)]
    first = dataset.choose_classes(names, "random", 7)
    assert first == dataset.choose_classes(names, "random:10", 7) == sorted(set(first))
    assert len(first) == 10
    others = [dataset.choose_classes(names, "random", seed) for seed in range(100)]
    assert len({tuple(group) for group in others}) == 100
    assert 450 < np.mean(others) < 550
    assert np.min(others) < 10 and np.max(others) > 990
    assert dataset.choose_classes(names[:12], "random:12", 3) == list(range(12))


def test_names_go_before_numbers(dataset):
    names = ["0", "1", "10", "10-20", "2", "random"]  # sorted: 10 is third and 2 fifth
    assert dataset.choose_classes(names, "2,10") == [2, 4]
    assert dataset.choose_classes(names, "10-20") == [3]
    assert dataset.choose_classes(names, "random") == [5]
    assert dataset.choose_classes(names, "4,5") == [4, 5]  # no such folders: positions
    with pytest.raises(UserError, match="'random' is a name and others are not"):
        dataset.choose_classes(names, "4,random")


@pytest.mark.parametrize(
    "text, message",
    [
        ("20-30", "20-30: reaches past"),
        ("24-26", "24-26: reaches past"),
        ("25", "25: reaches past"),
        ("999999999", "999999999: reaches past"),
        ("20-10", "20-10: holds no class"),
        ("5-5", "5-5: holds no class; the end is not counted, so 5-6"),
        ("0-5,4-9", "0-5,4-9: names c04 more than once"),
        ("c01,c02,c01", "c01,c02,c01: names c01 more than once"),
        ("c01,c99", "c01,c99: no class 'c99'"),
        ("", "'': no class ''"),
        ("1,", "1,: no class ''"),
        ("-3", "-3: no class '-3'"),
        ("random:0", "random:0: cannot draw 0 of"),
        ("random:26", "random:26: cannot draw 26 of"),
        ("9" * 6000, "no class '999"),
    ],
)
def test_impossible_groups_are_one_line_that_says_what_there_is(dataset, folders, text, message):
    with pytest.raises(UserError) as error:
        dataset.ClassFolder(folders, 4, text)
    line = str(error.value)
    assert line.startswith("--classes ") and message in line and "\n" not in line
    if "more than once" not in message and "holds no" not in message:
        assert f"the 25 classes of --dataroot {folders}, counted from 0: c00, c01" in line
        assert "c24" in line


def test_a_list_of_names_is_taken_as_it_is(dataset, tmp_path):
    for name in ("tench, Tinca tinca", "1", "auto"):
        picture(tmp_path, Image.new("L", (4, 4)), f"{name}/0.png")
    data = dataset.ClassFolder(tmp_path, 4, ["tench, Tinca tinca", "1"])
    assert data.classes == ["1", "tench, Tinca tinca"] and data.class_indices == [0, 2]
    assert dataset.ClassFolder(tmp_path, 4, ["auto"]).classes == ["auto"]
    with pytest.raises(UserError, match="holds no class folder 2"):
        dataset.ClassFolder(tmp_path, 4, ["2"])  # not the third folder
    message = r"--held_out .*: holds no class folder eel. It has 1, auto, tench"
    with pytest.raises(UserError, match=message):
        dataset.ClassFolder(tmp_path, 4, ["1", "eel"], flag="--held_out")


def test_only_the_chosen_classes_need_images(dataset, folders):
    (folders / "c05" / "deeper").rename(folders.parent / "elsewhere")
    for path in (folders / "c07").rglob("*.png"):
        path.unlink()
    assert dataset.ClassFolder(folders, 4, "10-20").class_indices[0] == 10
    message = r"--dataroot .*c07: no images in this class folder.*--classes"
    with pytest.raises(UserError, match=message):
        dataset.ClassFolder(folders, 4, "5-10")


def test_files_and_hidden_folders_are_no_classes(dataset, folders):
    (folders / ".cache").mkdir()
    (folders / "labels.txt").write_text("c00 cat")
    assert dataset.ClassFolder(folders, 4, "0-2").class_total == 25


def triangle_filter(pixels, size):
    """Bilinear resize along axis 0 as the textbook has it.

    Weights fall linearly to 0 over max(1, scale) pixels.
    """
    scale = len(pixels) / size
    reach = max(1.0, scale)
    centres = (np.arange(size)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(len(pixels)) + 0.5 - centres) / reach)
    weights /= weights.sum(1, keepdims=True)
    return np.tensordot(weights, pixels, 1)


SIZES = [(50, 20, (20, 8)), (20, 50, (8, 20)), (8, 8, (8, 8))]
SIZES += [(5, 7, (8, 11)), (17, 16, (8, 8)), (33, 16, (16, 8))]


@pytest.mark.parametrize("width, height, resized", SIZES)
def test_the_short_side_is_resized_then_the_middle_cut_out(
    dataset, tmp_path, width, height, resized
):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    root = picture(tmp_path, Image.fromarray(pixels))
    image, _ = dataset.ClassFolder(root, 8).load(0, RNG)
    assert image.shape == (3, 8, 8) and image.dtype == np.float32 and image.flags["C_CONTIGUOUS"]
    wide = triangle_filter(pixels.transpose(1, 0, 2).astype(float), resized[0]).transpose(1, 0, 2)
    whole = triangle_filter(wide, resized[1])
    left, top = (round((side - 8) / 2) for side in resized)
    expected = whole[top : top + 8, left : left + 8].transpose(2, 0, 1) / 127.5 - 1
    assert np.abs(image - expected).max() < 1.6 / 127.5  # 8 bits after each of the two passes


def test_black_and_white_are_minus_one_and_one(dataset, tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[2:] = 255
    image, _ = dataset.ClassFolder(picture(tmp_path, Image.fromarray(pixels)), 4).load(0, RNG)
    assert (image[:, :2] == -1).all() and (image[:, 2:] == 1).all()


def test_a_picture_as_thin_as_a_line_costs_no_memory(dataset, tmp_path):
    root = picture(tmp_path, Image.new("L", (1_000_000, 1), 255))
    assert (dataset.ClassFolder(root, 128).load(0, RNG)[0] == 1).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_mode_becomes_rgb(dataset, tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 128 * 256 + 77, np.uint16))
    else:
        gray = Image.new("RGB" if mode in ("RGBA", "CMYK") else "L", (4, 4), "#808080")
        image = gray.convert(mode, dither=0)
    root = picture(tmp_path, image, "a/0.tif" if mode in ("CMYK", "I;16") else "a/0.png")
    value = 255 if mode == "1" else 128
    item = dataset.ClassFolder(root, 4).load(0, RNG)[0]
    assert item.shape == (3, 4, 4) and np.allclose((item + 1) * 127.5, value, atol=1)


def test_mirrored_only_when_asked_and_half_the_time(dataset, tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 0] = 255
    root = picture(tmp_path, Image.fromarray(pixels))
    plain = dataset.ClassFolder(root, 4)
    flip = dataset.ClassFolder(root, 4, flip=True)
    white = [flip.load(0, np.random.default_rng(i))[0][0, 0].argmax() for i in range(400)]
    assert set(white) == {0, 3} and 160 < white.count(3) < 240
    assert all(plain.load(0, np.random.default_rng(i))[0][0, 0, 0] == 1 for i in range(20))
    (batch,) = flip.pictures()
    assert batch.dtype == np.uint8 and batch.shape == (1, 4, 4, 3) and (batch[0] == pixels).all()


def test_pictures_are_those_of_the_group(dataset, folders):
    data = dataset.ClassFolder(folders, 4, "13-15")  # 2 + 3 pictures
    (batch,) = data.pictures()
    assert batch[:, 0, 0, 0].tolist() == [130] * 2 + [140] * 3


def test_unreadable_pictures_are_left_out_of_scores_when_asked(dataset, folders):
    data = dataset.ClassFolder(folders, 4, "13-15")
    data.files[1].write_bytes(b"no picture")
    with pytest.raises(UserError, match="not a readable image"):
        list(data.pictures())
    (batch,) = data.pictures(skip_bad=True)
    assert batch[:, 0, 0, 0].tolist() == [130] + [140] * 3


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_a_bad_file_is_named(dataset, tmp_path, content):
    root = picture(tmp_path, Image.effect_noise((64, 64), 50).convert("RGB"), "a/bad one.jpg")
    path = root / "a" / "bad one.jpg"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(UserError, match=r"a/bad one\.jpg: not a readable image"):
        dataset.ClassFolder(root, 4).load(0, RNG)


def test_missing_folders_say_what_is_expected(dataset, tmp_path):
    with pytest.raises(UserError, match="^--dataroot is missing"):
        dataset.make_dataset(flags(""))
    with pytest.raises(UserError, match=r"^--dataroot .*nowhere: no such folder"):
        dataset.make_dataset(flags(tmp_path / "nowhere"))
    message = r"^--dataroot .*: no sub-folders\. Expected .*/<class>/<image>"
    with pytest.raises(UserError, match=message):
        dataset.make_dataset(flags(tmp_path))


def test_the_number_of_classes_must_be_the_number_chosen(dataset, folders):
    assert len(dataset.make_dataset(flags(folders, classes="3-7", num_classes=4)).classes) == 4
    assert len(dataset.make_dataset(flags(folders, classes="3-7", num_classes=None)).classes) == 4
    message = r"^--num_classes 10: --classes 3-7 chooses 4 \(classes 3-7 of 25\)"
    with pytest.raises(UserError, match=message):
        dataset.make_dataset(flags(folders, classes="3-7", num_classes=10))


def test_flags_reach_the_data(dataset, folders):
    args = flags(folders, imsize=3, classes="random:5", class_seed=4, flip=True)
    data = dataset.make_dataset(args)
    names = [f"c{i:02d}" for i in range(25)]
    assert data.class_indices == dataset.choose_classes(names, "random:5", 4)
    assert data.flip and data.load(0, RNG)[0].shape == (3, 3, 3)


def test_the_log_line_names_the_group(dataset, folders):
    def line(classes):
        return dataset.describe(dataset.ClassFolder(folders, 4, classes))

    start = "data: 20 images of classes 10-20 of 25, 1 to 3 each (c10, c11, "
    assert line("10-20").startswith(start)
    assert line("3,9") == "data: 2 images of classes 3, 9 of 25, 1 each (c03, c09)"
    assert "all 25 classes" in line("0-25") and line("0-25").endswith("c09, ...)")
