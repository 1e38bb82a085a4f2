"""Photos with label maps: lists, folders, one crop for the three, ids that are checked."""

import numpy as np
import pytest
from PIL import Image

from scripts import make_toy_data as toy
from shared_metrics.errors import UserError
from shared_metrics.label_maps import find_folders, pair
from shared_metrics.runs.loader import Batches
from tests.conftest import shared_dir

RNG = np.random.default_rng


@pytest.fixture
def label_maps(paper):
    return paper("classic_gans").label_maps


def write(folder, name, array):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name)
    return folder / name


@pytest.fixture
def item(tmp_path):
    """A photo of 12x10 px whose red tells x and green y; labels x // 3, instances y, 16 bit:
    (photo, label map, instance map).
    """
    y, x = np.mgrid[:10, :12]
    photo = np.stack([x * 20, y * 20, 0 * x], 2).astype(np.uint8)
    return (
        write(tmp_path, "photo.png", photo),
        write(tmp_path, "label.png", (x // 3).astype(np.uint8)),
        write(tmp_path, "instance.png", (1000 * y).astype(np.uint16)),
    )


def data_of(label_maps, items, **changes):
    flags = {"label_nc": 4, "contain_dontcare_label": False}
    flags |= {"load_size": (12, 10), "crop_size": (8, 6)}
    return label_maps.LabelledPhotos(items, **(flags | changes))


def test_one_random_crop_for_the_three_and_every_place_is_possible(label_maps, item):
    data = data_of(label_maps, [item])
    places = set()
    for seed in range(80):
        labels, instances, photo = data.load(0, RNG(seed))
        x, y = (np.round((photo[c] + 1) * 127.5 / 20).astype(int) for c in (0, 1))
        np.testing.assert_array_equal(labels, x // 3)
        np.testing.assert_array_equal(instances, 1000 * y)
        assert photo.shape == (3, 6, 8) and labels.shape == (6, 8)
        places.add((x[0, 0], y[0, 0]))
    assert {x for x, _ in places} == {0, 1, 2, 3, 4} == {y for _, y in places}


def test_load_size_equal_to_crop_size_has_one_place(label_maps, item):
    data = data_of(label_maps, [item], crop_size=(12, 10))
    assert data.load(0, RNG(0))[2].shape == (3, 10, 12)


def test_the_middle_is_cut_with_center(label_maps, item):
    photo = data_of(label_maps, [item], crop_type="center").load(0, RNG(0))[2]
    assert round((photo[0, 0, 0] + 1) * 127.5 / 20) == 2
    assert round((photo[1, 0, 0] + 1) * 127.5 / 20) == 2


def test_flip_mirrors_all_three(label_maps, item):
    sizes = {"crop_size": (12, 10), "flip": True}
    plain = data_of(label_maps, [item], **sizes | {"flip": False}).load(0, RNG(0))
    flipped = 0
    for seed in range(12):
        arrays = data_of(label_maps, [item], **sizes).load(0, RNG(seed))
        mirrored = arrays[2][0, 0, 0] > 0
        flipped += mirrored
        for array, straight in zip(arrays, plain, strict=True):
            np.testing.assert_array_equal(array, straight[..., ::-1] if mirrored else straight)
    assert 2 < flipped < 10


def test_testing_resizes_to_the_crop_and_makes_up_no_ids(label_maps, item):
    data = data_of(label_maps, [item], train=False, flip=True, crop_size=(8, 6))
    labels, instances, photo = data.load(0)
    assert labels.shape == (6, 8) and photo.shape == (3, 6, 8)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}
    assert set(np.unique(instances)) <= set(range(0, 10_000, 1000))
    (batch,) = data.pictures()
    np.testing.assert_allclose(batch[0].transpose(2, 0, 1) / 127.5 - 1, photo, atol=1e-6)


def test_without_instances_they_are_the_labels(label_maps, item):
    labels, instances, _ = data_of(label_maps, [(*item[:2], None)]).load(0, RNG(0))
    np.testing.assert_array_equal(labels, instances)


def test_a_load_smaller_than_the_crop_is_refused(label_maps, item):
    with pytest.raises(UserError, match="--load_height 5: smaller than --crop_height 6"):
        data_of(label_maps, [item], load_size=(8, 5))


# ---- ids ----


def labels_of(label_maps, tmp_path, ids, **changes):
    path = write(tmp_path, "map.png", np.uint8(ids))
    return data_of(label_maps, [], **changes).read_labels(path).tolist()


def test_unknown_ids(label_maps, tmp_path):
    unknown = {"contain_dontcare_label": True}
    assert labels_of(label_maps, tmp_path, [[0, 3, 255, 4]], **unknown) == [[0, 3, 4, 4]]
    ade20k = unknown | {"zero_is_unknown": True}
    assert labels_of(label_maps, tmp_path, [[0, 1, 4]], **ade20k) == [[4, 0, 3]]


@pytest.mark.parametrize(
    "ids, changes, message",
    [
        ([[0, 4]], {}, "map.png: id 4 is out of range: label_nc 4 allows 0 to 3"),
        ([[0, 1, 255]], {}, "map.png: id 255 .* if it means unknown, give --contain_dontcare"),
        ([[0, 255]], {}, "map.png: id 255 .* a black-and-white mask: save its second class as 1"),
        ([[5]], {"contain_dontcare_label": True}, "map.png: id 5 is out of range"),
        ([[0]], {"zero_is_unknown": True}, "map.png: id 255 is out of range"),
    ],
)
def test_ids_out_of_range_are_named(label_maps, tmp_path, ids, changes, message):
    with pytest.raises(UserError, match=message):
        labels_of(label_maps, tmp_path, ids, **changes)


def test_maps_of_another_size_are_named(label_maps, item, tmp_path):
    other = write(tmp_path, "small.png", np.zeros((5, 12), np.uint8))
    with pytest.raises(UserError, match="small.png: 12x5 px, but its photo .* has 12x10"):
        data_of(label_maps, [(item[0], other, item[2])]).load(0, RNG(0))


@pytest.mark.parametrize(
    "ids, changes, told",
    [
        ([[0, 255]], {}, "only 0 and 255 occur: a black-and-white mask"),
        ([[0, 2]], {"zero_is_unknown": True}, "only class 2 occurs"),
        ([[4, 255]], {}, "no class occurs, only 4, 255 (unknown)"),
        ([[0, 1, 255]], {}, ""),
    ],
)
def test_maps_of_which_nothing_is_learnt_are_told(label_maps, tmp_path, ids, changes, told):
    path = write(tmp_path, "map.png", np.uint8(ids))
    changes |= {"contain_dontcare_label": True}
    lines = data_of(label_maps, [(None, path, None)], **changes).doubts()
    assert len(lines) == bool(told)
    assert all(f"{tmp_path}: in 1 of 1 label maps {told}" in line for line in lines)


# ---- lists and folders ----


def test_lists_of_three_and_two_columns(label_maps, item, tmp_path):
    (tmp_path / "three.txt").write_text("label.png\tphoto.png\tinstance.png\n\n")
    assert label_maps.read_list(tmp_path / "three.txt", tmp_path) == [item]
    assert label_maps.read_list(tmp_path / "three.txt", tmp_path, True) == [(*item[:2], None)]
    (tmp_path / "two.txt").write_text("label.png photo.png\n")
    assert label_maps.read_list(tmp_path / "two.txt", tmp_path, True) == [(*item[:2], None)]
    with pytest.raises(UserError, match="two.txt: line 1 has 2 columns; expected .*--no_instance"):
        label_maps.read_list(tmp_path / "two.txt", tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("label.png\tphoto.png\tinstance.png\nlabel.png", "line 2 has 1 columns"),
        ("\nlabel.png\tnone.png\tinstance.png\n", "line 2: .*none.png: no such file"),
        ("\n", "the list is empty"),
    ],
)
def test_bad_lists_are_named_by_their_lines(label_maps, item, tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=f"list.txt: {message}"):
        label_maps.read_list(tmp_path / "list.txt", tmp_path)


def test_a_name_with_blanks_stands_between_tabs(label_maps, item, tmp_path):
    item[0].rename(tmp_path / "my photo.png")
    (tmp_path / "list.txt").write_text("label.png\tmy photo.png\tinstance.png")
    assert label_maps.read_list(tmp_path / "list.txt", tmp_path)[0][0].name == "my photo.png"


def test_toy_folders(label_maps, tmp_path):
    root = toy.make(tmp_path / "toy", "coco_stuff", classes=2, count=3, val_count=1, size=16)
    folders = find_folders(root)
    assert [f.name for f in folders] == ["train_img", "train_inst", "train_instance"]
    sizes = {"label_nc": 5, "load_size": (18, 18), "crop_size": (16, 16)}
    data = data_of(label_maps, pair(*folders)[0], **sizes)
    with Batches(data, batch_size=3, seed=0) as batches:
        labels, instances, photos = next(batches)
    assert labels.shape == instances.shape == (3, 16, 16) and photos.shape == (3, 3, 16, 16)


def test_the_real_folders(label_maps):
    folders = find_folders(shared_dir("data/coco_stuff"))
    assert [f.name for f in folders] == ["train_img", "train_label", "train_inst"]
    items, problems = pair(*folders)
    assert not problems
    sizes = {"load_size": (72, 72), "crop_size": (64, 64)}
    data = data_of(label_maps, items, label_nc=182, contain_dontcare_label=True, **sizes)
    assert len(data) == 13
    labels, instances, photo = data.load(0, RNG(0))
    assert labels.max() <= 182 and len(np.unique(instances)) > 2 and photo.shape == (3, 64, 64)


def test_cityscapes_names_are_paired(tmp_path):
    ends = ("leftImg8bit", "gtFine_labelIds", "gtFine_instanceIds")
    for folder, end in zip("abc", ends, strict=True):
        write(tmp_path / folder / "ulm", f"ulm_1_{end}.png", np.zeros((4, 4), np.uint8))
    folders = [tmp_path / folder for folder in "abc"]
    ((files,), problems) = pair(*folders)
    assert [file.name for file in files] == [f"ulm_1_{end}.png" for end in ends]
    assert not problems
    write(tmp_path / "b", "ulm_2_gtFine_labelIds.png", np.zeros((4, 4), np.uint8))
    assert "b/ulm_2_gtFine_labelIds.png: no photo" in pair(*folders)[1][0]


def test_missing_folders_are_told_by_the_flag(tmp_path):
    with pytest.raises(UserError, match="^--dataset .*: no folder train_img in it"):
        find_folders(tmp_path, flag="--dataset")
