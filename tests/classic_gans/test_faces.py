"""CelebA's list, its parts, class folders, both together, photos, and the rules of attributes."""

import argparse
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from scripts import make_toy_data as toy
from shared_metrics.errors import UserError
from shared_metrics.runs.loader import Batches
from tests.conftest import shared_dir

RNG = np.random.default_rng
THIRTEEN = (
    "Bald Bangs Black_Hair Blond_Hair Brown_Hair Bushy_Eyebrows Eyeglasses Male "
    "Mouth_Slightly_Open Mustache No_Beard Pale_Skin Young"
).split()


@pytest.fixture
def faces(paper):
    return paper("classic_gans").faces


@pytest.fixture
def attributes(faces):
    import attributes

    return attributes


@pytest.fixture
def folder(tmp_path):
    """Six toy faces for training and four for test, 24 px."""
    return toy.make(tmp_path / "脸", "celeba", count=6, val_count=4, size=24)


def read(faces, folder, selected=("Smiling", "Black_Hair"), part="train", **changes):
    flags = {"split": "official", "image_size": 16, "crop_size": 20} | changes
    partition = folder / "list_eval_partition.txt"
    table = folder / "list_attr_celeba.txt"
    images = folder / "img_align_celeba"
    return faces.celeba(images, table, selected, part=part, partition=partition, **flags)


def picture(path, size=(24, 24), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


# ---- CelebA's list ----


def test_labels_stand_in_the_order_asked_for_whatever_the_lists(faces, folder):
    data = read(faces, folder)
    drawn = [face.attributes for *_, face in toy.faces(0, "train", 6)]
    expected = [["Smiling" in names, "Black_Hair" in names] for names in drawn]
    np.testing.assert_array_equal(data.labels, np.float32(expected))
    assert data.labels.dtype == np.float32 and len(data) == 6
    image, label = data.load(3, RNG(0))
    assert image.shape == (3, 16, 16) and image.dtype == np.float32
    np.testing.assert_array_equal(label, data.labels[3])
    assert data.name(3).endswith("000004.png")
    test = read(faces, folder, part="test")
    assert [path.name for path in test.files] == [f"{i:06d}.png" for i in (7, 8, 9, 10)]


def test_the_real_list(faces, attributes):
    root = shared_dir("data/celeba")
    flags = {"split": "all", "part": "train", "image_size": 64, "crop_size": 178}
    data = faces.celeba(root / "images", root / "list_attr_celeba.txt", ["Male", "Young"], **flags)
    assert len(data) == 32
    image, label = data.load(0, RNG(0))
    assert image.shape == (3, 64, 64) and label.tolist() == [0, 1]
    assert attributes.describe(data).startswith("32 faces: Male ")


def test_pictures_are_cut_in_the_middle_and_scaled(faces, tmp_path):
    pixels = picture(tmp_path / "a.png", (178, 218))
    cut = faces.read_face(tmp_path / "a.png", 170, 170)
    np.testing.assert_array_equal(np.asarray(cut), pixels[24:194, 4:174])
    half = faces.read_face(tmp_path / "a.png", 178, 89)
    expected = Image.fromarray(pixels[20:198]).resize((89, 89), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(half), np.asarray(expected))
    assert faces.read_face(tmp_path / "a.png", 0, 32).size == (32, 32)
    with pytest.raises(UserError, match="a.png: 178x218 px, smaller than --crop_size 200; .* 178"):
        faces.read_face(tmp_path / "a.png", 200, 32)


def test_mirror_is_for_training_alone(faces, folder):
    plain = read(faces, folder)
    flipping = read(faces, folder, flip=True)
    straight = plain.load(0, RNG(0))[0]
    seen = [flipping.load(0, RNG(seed))[0] for seed in range(20)]
    mirrored = sum(np.array_equal(image, straight[:, :, ::-1]) for image in seen)
    assert mirrored + sum(np.array_equal(image, straight) for image in seen) == 20
    assert 4 < mirrored < 16
    assert all(np.array_equal(plain.load(0, RNG(seed))[0], straight) for seed in range(8))
    for batch in flipping.pictures():
        np.testing.assert_allclose(batch[0].transpose(2, 0, 1) / 127.5 - 1, straight, atol=1e-6)


def test_batches_of_the_loader(faces, folder):
    with Batches(read(faces, folder), batch_size=3, seed=0) as batches:
        images, labels = next(batches)
    assert images.shape == (3, 3, 16, 16) and labels.shape == (3, 2)


def test_png_files_do_for_names_on_jpg(faces, folder):
    table = folder / "list_attr_celeba.txt"
    table.write_text(table.read_text().replace(".png", ".jpg"))
    assert len(read(faces, folder, split="all")) == 10
    (folder / "img_align_celeba" / "000005.png").unlink()
    with pytest.raises(UserError, match="000005.jpg: no such file, but .*list_attr_celeba"):
        read(faces, folder, split="all")


@pytest.mark.parametrize(
    "lines, message",
    [
        (["A B", "1.jpg 1 -1"], "line 1 must be the number of faces, .* not 'A B'"),
        (["2", "1.jpg 1 -1", "2.jpg 1 1"], "line 2 must be the attributes' names"),
        (["1", "A A", "1.jpg 1 -1"], "line 2 names an attribute twice"),
        (["2", "A B", "1.jpg 1 -1"], "line 1 says 2 faces, but 1 follow"),
        (["2", "A B", "1.jpg 1 -1", "2.jpg 1"], "line 4 has 1 values for the 2 names"),
        (["2", "A B", "1.jpg 1 -1", "", "2.jpg 1 yes"], "line 5: 'yes' is neither 1 nor -1"),
        ([], "line 1 must be the number of faces"),
    ],
)
def test_bad_lists_are_named_by_their_lines(attributes, tmp_path, lines, message):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"list.txt: {message}"):
        attributes.read_attributes(tmp_path / "list.txt")


def test_missing_and_binary_lists(attributes, tmp_path):
    with pytest.raises(UserError, match="list.txt: no such file; give the list of attributes"):
        attributes.read_attributes(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="list.txt: cannot be read as text"):
        attributes.read_attributes(tmp_path / "list.txt")


def test_zero_is_read_as_absent(attributes, tmp_path):
    (tmp_path / "list.txt").write_text("2\nA B\n1.jpg 1 0\n2.jpg  0 1\n")
    names, files, labels = attributes.read_attributes(tmp_path / "list.txt")
    assert names == ["A", "B"] and files == ["1.jpg", "2.jpg"]
    np.testing.assert_array_equal(labels, [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    "selected, message",
    [
        (["Smile"], "--selected_attrs Smile: .* has no such attribute; did you mean Smiling"),
        (["Xyz"], "--selected_attrs Xyz: .*; it has Black_Hair, Blond_Hair, "),
        (["Smiling", "Smiling"], "Smiling stands twice"),
        ([], "no attribute"),
    ],
)
def test_unknown_attributes_are_named(faces, folder, selected, message):
    with pytest.raises(UserError, match=message):
        read(faces, folder, selected)


def test_constant_attributes_are_refused_and_counts_shown(faces, attributes, folder):
    data = read(faces, folder)
    data.labels = np.float32([[1, 1], [0, 1], [0, 1], [1, 1], [0, 1], [0, 1]])
    assert attributes.describe(data) == "6 faces: Smiling 2 (33.3%), Black_Hair 6 (100.0%)"
    with pytest.raises(UserError, match="all 6 faces have the same value of Black_Hair; leave"):
        attributes.check_varied(data, "list.txt")
    data.labels[0, 1] = 0
    attributes.check_varied(data, "list.txt")


# ---- parts ----


def test_parts_of_the_whole_of_celeba(faces):
    files = range(202_599)

    def sizes(split):
        parts = {}
        for part in ("train", "val", "test"):
            try:
                parts[part] = faces.part_of(files, split, part, "list")
            except UserError:
                continue
        assert len(np.unique(np.concatenate(list(parts.values())))) == sum(map(len, parts.values()))
        return {part: len(indices) for part, indices in parts.items()}, parts

    numbers, parts = sizes("pcv")
    assert numbers == {"train": 182_339, "test": 607} and parts["test"][0] == 182_339
    numbers, parts = sizes("attgan")
    assert numbers == {"train": 182_000, "val": 637, "test": 19_962}
    assert parts["test"][-1] == 202_598
    numbers, parts = sizes("yunjey")
    assert numbers == {"train": 200_600, "test": 1_999}
    assert parts["test"].max() > 190_000  # shuffled


def test_yunjeys_order_is_pythons_shuffle_of_the_lines(faces):
    import random

    lines = [f"line {i}" for i in range(2_500)]
    random.seed(1234)
    random.shuffle(lines)
    indices = faces.part_of(range(2_500), "yunjey", "test", "list")
    assert [f"line {i}" for i in indices] == lines[:1_999]


def test_a_list_too_short_for_its_split_is_refused(faces, folder):
    for split, part in (("yunjey", "train"), ("pcv", "test"), ("attgan", "val"), ("pcv", "val")):
        with pytest.raises(UserError, match=f"--split {split}: leaves no faces .* {part} .* 10; "):
            read(faces, folder, split=split, part=part)


def test_partition_file_must_name_every_face(faces, folder):
    partition = folder / "list_eval_partition.txt"
    text = partition.read_text()
    partition.write_text(text.replace("000003.png 0\n", ""))
    with pytest.raises(UserError, match="partition.txt: has no line for 000003.png"):
        read(faces, folder)
    partition.write_text(text.replace("000003.png 0", "000003.png 3"))
    with pytest.raises(UserError, match="partition.txt: line 3 is no file name and 0, 1 or 2"):
        read(faces, folder)


# ---- which attributes go together ----


def test_hair_colours_exclude_each_other_where_one_is_switched_on(attributes):
    names = ["Black_Hair", "Blond_Hair", "Brown_Hair", "Male"]
    labels = np.float32([[0, 1, 0, 1], [1, 0, 1, 0]])
    on = attributes.with_attribute(labels, "Black_Hair", 1, names)
    np.testing.assert_array_equal(on, [[1, 0, 0, 1], [1, 0, 0, 0]])
    off = attributes.with_attribute(labels, "Black_Hair", 0, names)  # by the value, not by the name
    np.testing.assert_array_equal(off, [[0, 1, 0, 1], [0, 0, 1, 0]])
    each = attributes.with_attribute(labels, "Black_Hair", 1 - labels[:, 0], names)
    np.testing.assert_array_equal(each, [[1, 0, 0, 1], [0, 0, 1, 0]])
    np.testing.assert_array_equal(labels[0], [0, 1, 0, 1])


def test_baldness_and_bangs(attributes):
    names = ["Bald", "Bangs", "Receding_Hairline", "Wavy_Hair"]
    both = np.float32([[1, 1, 1, 1]])
    rows = {"Bald": [1, 0, 1, 1], "Bangs": [0, 1, 0, 1], "Receding_Hairline": [1, 0, 1, 1]}
    for name, expected in rows.items():
        assert attributes.with_attribute(both, name, 1, names).tolist() == [expected]
    assert attributes.with_attribute(both, "Bangs", 0, names).tolist() == [[1, 0, 1, 1]]


def test_rivals_are_those_of_all_groups(attributes):
    names = ["Bald", "Bangs", "Receding_Hairline", "Black_Hair", "Blond_Hair"]
    assert attributes.rivals("Bangs", names) == [0, 2]
    assert attributes.rivals("Blond_Hair", names) == [3]
    assert attributes.rivals("Male", [*names, "Male"]) == []


def test_other_sets_bring_their_own_rules(attributes):
    labels = np.float32([[0, 1]])
    on = attributes.with_attribute(labels, "Cat", 1, ["Cat", "Dog"], exclusive=[("Cat", "Dog")])
    assert on.tolist() == [[1, 0]]
    assert attributes.with_attribute(labels, "Cat", 1, ["Cat", "Dog"]).tolist() == [[1, 1]]


def test_rows_of_yunjeys_sheet(attributes):
    cases = np.load(shared_dir("parity/stargan_yunjey") / "cases.npz")
    names = ["Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"]
    rows = attributes.edits(cases["in/c_org"], names, choices=[attributes.HAIR_COLOURS])
    np.testing.assert_array_equal(rows, cases["labels/create_labels"])


def test_rows_of_elvisyjlins_sheet(attributes):
    """Its rule on beards besides; the edited entry is twice as strong."""
    cases = np.load(shared_dir("parity/attgan_elvisyjlin") / "cases.npz")
    labels = cases["in/att_a"]
    rows = attributes.edits(labels, THIRTEEN, [*attributes.EXCLUSIVE, ("Mustache", "No_Beard")])
    expected = cases["labels/test_rows"]
    np.testing.assert_allclose(expected[0], labels - 0.5)
    np.testing.assert_array_equal(rows, expected[1:] > 0)
    for i, row in enumerate(rows):
        entries = attributes.intensities(labels, row, [i], thres_int=0.5, test_int=1.0)
        np.testing.assert_allclose(entries, expected[1 + i])


def test_only_what_changes_is_told_more_strongly(attributes):
    labels = np.float32([[1, 0], [0, 0]])
    target = np.float32([[1, 1], [1, 1]])
    entries = attributes.intensities(labels, target, [0], thres_int=0.5, test_int=2.0)
    np.testing.assert_array_equal(entries, [[0.5, 0.5], [2.0, 0.5]])


def test_groups_are_cut_to_the_attributes_at_hand(attributes):
    text = "Black_Hair,Blond_Hair,Brown_Hair Bald,Bangs Straight_Hair,Wavy_Hair"
    names = ["Bald", "Brown_Hair", "Black_Hair", "Bangs", "Wavy_Hair"]
    assert attributes.groups(text, names) == [["Black_Hair", "Brown_Hair"], ["Bald", "Bangs"]]
    assert attributes.groups("none", names) == attributes.groups("", names) == []


def test_labels_in_one_of_two_sets(attributes):
    labels = np.float32([[1, 0, 1, 1, 0]])
    first = attributes.in_one_set(labels, 0, first=2, both=3)
    second = attributes.in_one_set(labels, 1, first=2, both=3)
    assert first.tolist() == [[1, 0, 0, 1, 0]] and second.tolist() == [[0, 0, 1, 0, 1]]
    assert labels.tolist() == [[1, 0, 1, 1, 0]]


# ---- what the flags name ----


def flags_of(faces, root, *words):
    parser = argparse.ArgumentParser()
    for name in ("train_list", "test_list"):
        parser.add_argument(f"--{name}", default="")
    faces.add_flags(parser, ["Smiling", "Black_Hair"], split="official", n_samples=2)
    args = parser.parse_args([str(word) for word in words])
    args.data_dir = str(root.parent)
    args.dataset = root.name
    args.image_size = 16
    args.crop_size = 20
    return args


def test_one_list_is_divided_and_two_count_whole(faces, folder):
    args = flags_of(faces, folder)
    parts = [len(faces.open_celeba(args, part)) for part in ("train", "test")]
    assert parts == [6, 4]
    own = folder / "list_attr_celeba.txt"
    args = flags_of(faces, folder, "--train_list", own, "--test_list", own, "--split", "all")
    assert len(faces.open_celeba(args, "test")) == 10
    table = own.read_text().splitlines()
    (folder / "mine.txt").write_text("\n".join(["3", table[1], *table[5:8]]))
    args = flags_of(faces, folder, "--test_list", "mine.txt")
    files = [faces.open_celeba(args, "test").name(i)[-10:] for i in range(3)]
    assert files == ["000004.png", "000005.png", "000006.png"]
    assert len(faces.open_celeba(args, "train")) == 10  # the training list counts whole, too
    own.rename(folder / "train.txt")
    (folder / "mine.txt").rename(folder / "test.txt")
    args = flags_of(faces, folder)
    parts = [len(faces.open_celeba(args, part)) for part in ("train", "test")]
    assert parts == [10, 3]


def test_flags_that_do_not_agree(faces, folder):
    with pytest.raises(UserError, match="--c_dim 5: --selected_attrs names 2 attributes; leave"):
        faces.open_celeba(flags_of(faces, folder, "--c_dim", 5), "train")
    assert len(faces.open_celeba(flags_of(faces, folder, "--c_dim", 2), "train").names) == 2
    with pytest.raises(UserError, match="--dataset nowhere: no folder .*for CelebA it holds img_"):
        faces.open_celeba(flags_of(faces, folder.with_name("nowhere")), "train")


def test_some_faces_are_evenly_spread(faces, folder):
    data = faces.open_celeba(flags_of(faces, folder), "train")
    images, labels = faces.some(data, 3)
    assert images.shape == (3, 3, 16, 16)
    np.testing.assert_array_equal(labels, data.labels[[0, 2, 5]])
    assert len(faces.some(data, 50)[0]) == 6


def test_faces_that_cannot_be_read_are_left_out_of_sheets_and_scores_where_asked(faces, folder):
    from editing import Editor

    data = faces.open_celeba(flags_of(faces, folder), "train")
    for i in (0, 3, 4):
        data.files[i].write_bytes(b"no picture")
    with pytest.raises(UserError, match="not a readable image"):
        faces.some(data, 3)
    _, labels = faces.some(data, 3, skip_bad=True)
    np.testing.assert_array_equal(labels, data.labels[[2, 5]])

    class Copier(paddle.nn.Layer):
        def forward(self, x, condition):
            return x * 1

    about = {"selected_attrs": data.names, "first": 0, "thres_int": 0.5}
    editor = Editor(Copier(), lambda source, target: target, about)
    drawn = list(editor.fakes(data, 6, 2, seed=0, skip_bad=True))
    assert [len(batch) for batch in drawn] == [1, 1, 1]


# ---- class folders, both together, photos ----


def test_class_folders_have_one_hot_labels(faces, attributes, tmp_path):
    for name, count in (("sad", 2), ("angry", 1), ("happy", 2)):
        for i in range(count):
            picture(tmp_path / name / f"{i}.png", seed=i)
    data = faces.class_folders(tmp_path, image_size=8, crop_size=0)
    assert data.names == ["angry", "happy", "sad"]
    np.testing.assert_array_equal(data.labels, np.eye(3)[[0, 1, 1, 2, 2]])
    assert data.load(0, RNG(0))[0].shape == (3, 8, 8)
    assert attributes.describe(data) == "5 faces: angry 1 (20.0%), happy 2 (40.0%), sad 2 (40.0%)"
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none: no pictures in this class folder"):
        faces.class_folders(tmp_path, 8, 0)


def test_a_single_class_and_a_folder_one_level_too_high_are_refused(faces, tmp_path):
    for name in ("sad", "angry"):
        picture(tmp_path / "train" / name / "0.png")
    with pytest.raises(UserError, match=r"parts of a data set, no classes. Give .*train,"):
        faces.class_folders(tmp_path, 8, 0)
    (tmp_path / "train").rename(tmp_path / "faces")
    with pytest.raises(UserError, match=r"at least 2, but has 1; did you mean .*faces\?"):
        faces.class_folders(tmp_path, 8, 0)
    (tmp_path / "faces").rename(tmp_path / "train")
    with pytest.raises(UserError, match="at least 2, but has 0"):
        faces.class_folders(tmp_path / "train" / "sad", 8, 0)
    with pytest.raises(UserError, match="no such folder"):
        faces.class_folders(tmp_path / "nowhere", 8, 0)


def test_two_sets_have_both_labels_and_a_mask(faces, folder, tmp_path):
    for name in ("sad", "angry", "happy"):
        picture(tmp_path / "rafd" / name / "0.png")
    first = read(faces, folder)
    second = faces.class_folders(tmp_path / "rafd", image_size=16, crop_size=0, flip=True)
    a, b = faces.jointly(first, second)
    assert (len(a), len(b), b.flip) == (6, 3, True)
    image, label = a.load(2, RNG(0))
    np.testing.assert_array_equal(image, first.load(2, RNG(0))[0])
    np.testing.assert_array_equal(label, [*first.labels[2], 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(b.load(1, RNG(0))[1], [0, 0, 0, 1, 0, 0, 1])


def test_photos_are_cut_as_celebas(faces, tmp_path):
    """Of a picture of twice CelebA's size, twice the crop."""
    pixels = picture(tmp_path / "me" / "large.png", (356, 436))
    picture(tmp_path / "me" / "sub" / "wide.jpg", (50, 20))
    photos = faces.Photos(tmp_path / "me", image_size=340, crop_size=170)
    assert [Path(photos.name(i)).name for i in range(len(photos))] == ["large.png", "wide.jpg"]
    (image,) = photos.load(0)
    expected = pixels[48:388, 8:348].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(image, expected, atol=1e-6)
    assert faces.Photos(tmp_path / "me", 8, 0).load(1)[0].shape == (3, 8, 8)
    assert len(faces.Photos(tmp_path / "me" / "large.png", 8, 0)) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--input .*empty: no pictures"):
        faces.Photos(tmp_path / "empty", 8, 0)
