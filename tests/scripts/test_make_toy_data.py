import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from scripts import make_toy_data as toy
from shared_metrics.errors import UserError
from tests.conftest import ROOT, run_cli


def pictures(folder):
    """{relative name: pixels} of every PNG below a folder."""
    return {
        str(p.relative_to(folder)): np.asarray(Image.open(p)) for p in sorted(folder.rglob("*.png"))
    }


def draw(size, classes=4, count=8, seed=0):
    return [
        np.asarray(toy.paint(scene, size), np.float64)
        for _, _, scene in toy.scenes(seed, "train", count, classes)
    ]


def test_class_folders_hold_balanced_rgb_pictures_of_the_size_asked_for(tmp_path):
    out = toy.make(tmp_path / "toy", classes=3, count=7, val_count=3, size=20)
    found = pictures(out)
    per_folder = {f"{p.parent.name}/{p.name}": len(list(p.iterdir())) for p in out.glob("*/*")}
    assert per_folder == {"train/circle": 3, "train/square": 2, "train/triangle": 2} | {
        f"val/{name}": 1 for name in ("circle", "square", "triangle")
    }
    assert {(a.shape, a.dtype.str) for a in found.values()} == {((20, 20, 3), "|u1")}


def test_picture_i_depends_on_seed_and_i_alone(tmp_path):
    few = pictures(toy.make(tmp_path / "few", classes=2, count=4, size=16, seed=5) / "train")
    many = pictures(
        toy.make(tmp_path / "many", classes=2, count=9, val_count=4, size=16, seed=5) / "train"
    )
    other = pictures(toy.make(tmp_path / "other", classes=2, count=4, size=16, seed=6) / "train")
    assert all(np.array_equal(few[name], many[name]) for name in few)
    assert not any(np.array_equal(few[name], other[name]) for name in few)


def test_validation_pictures_are_others(tmp_path):
    out = toy.make(tmp_path / "toy", classes=2, count=6, val_count=6, size=16)
    train, val = pictures(out / "train"), pictures(out / "val")
    assert train.keys() == val.keys()
    assert not any(np.array_equal(train[name], val[name]) for name in train)


def test_one_scene_at_every_size():
    for small, large in zip(draw(32), draw(128), strict=True):
        reduced = large.reshape(32, 4, 32, 4, 3).mean((1, 3))
        assert np.abs(small - reduced).mean() < 6


def test_every_shape_lies_inside_the_picture_and_covers_a_fair_part_of_it():
    for _, _, scene in toy.scenes(0, "train", 20 * len(toy.SHAPES), len(toy.SHAPES)):
        (thing,) = scene.things
        outline = thing.polygons()[0]
        assert 0 <= outline.min() and outline.max() <= 1, thing
        assert 0.035 < np.asarray(toy.paint_mask(thing.polygons(), 64)).mean() / 255 < 0.6, thing


def test_holes_show_the_ground():
    thing = toy.Thing("ring", "red", (255, 0, 0), (0.5, 0.5), 0.4, 0.0)
    mask = np.asarray(toy.paint_mask(thing.polygons(), 64))
    assert mask[32, 32] == 0 and mask[32, 32 + round(0.75 * 0.4 * 64)] == 255


def test_polygons_turn_clockwise_and_move():
    bar = toy.Thing("bar", "red", (255, 0, 0), (0.3, 0.6), 0.2, 90.0).polygons()[0]
    assert bar.min(0) == pytest.approx([0.3 - 0.06, 0.6 - 0.2]) and bar.max(0) == pytest.approx(
        [0.3 + 0.06, 0.6 + 0.2]
    )
    arrow = toy.Thing("arrow", "red", (255, 0, 0), (0.5, 0.5), 0.2, 90.0).polygons()[0]
    assert arrow[0] == pytest.approx(
        [0.7, 0.5]
    )  # its tip, on top at 0 degrees, points to the right


def test_edges_are_anti_aliased():
    thing = toy.Thing("circle", "red", (255, 0, 0), (0.5, 0.5), 0.4, 0.0)
    mask = np.asarray(toy.paint_mask(thing.polygons(), 32))
    assert np.logical_and(mask > 0, mask < 255).sum() > 30


def test_classes_can_be_told_apart_at_32_pixels():
    """The nearest known silhouette, both centred, gives the class of nearly every unseen one."""

    def silhouettes(split, number):
        found, labels = [], []
        for _, label, scene in toy.scenes(3, split, number, len(toy.SHAPES)):
            thing = scene.things[0]
            centred = toy.Thing(thing.shape, thing.colour, thing.rgb, (0.5, 0.5), 0.4, thing.angle)
            found.append(np.asarray(toy.paint_mask(centred.polygons(), 32), np.float64).ravel())
            labels.append(label)
        return np.array(found), np.array(labels)

    known, names = silhouettes("train", 480)
    asked, right = silhouettes("val", 120)
    nearest = ((known**2).sum(1) - 2 * asked @ known.T).argmin(1)
    assert (names[nearest] == right).mean() > 0.95


def test_coco_stuff_holds_photos_labels_and_instances_of_the_same_names(tmp_path):
    out = toy.make(tmp_path / "toy", "coco_stuff", classes=2, count=5, val_count=1, size=24, seed=1)
    names = {
        folder.name: sorted(p.name for p in folder.iterdir())
        for folder in out.iterdir()
        if folder.is_dir()
    }
    train, val = [f"{i:06d}.png" for i in range(5)], ["000000.png"]
    assert names == {f"train_{part}": train for part in ("img", "inst", "instance")} | {
        f"val_{part}": val for part in ("img", "inst", "instance")
    }
    labels, instances = pictures(out / "train_inst"), pictures(out / "train_instance")
    assert {a.shape for a in [*labels.values(), *instances.values()]} == {(24, 24)}
    assert {a.shape for a in pictures(out / "train_img").values()} == {(24, 24, 3)}
    seen = set(np.concatenate([a.ravel() for a in labels.values()]).tolist())
    assert seen <= set(range(5)) and {3, 4} <= seen
    assert json.loads((out / "toy_data.json").read_text())["labels"] == [
        "plain",
        "clouds",
        "stripes",
        "circle",
        "square",
    ]
    for name in labels:  # one thing, one class; the ground is number 0
        assert np.array_equal(instances[name] == 0, labels[name] < 3)
        for number in np.unique(instances[name]):
            assert len(np.unique(labels[name][instances[name] == number])) == 1


def test_label_maps_agree_with_the_pixels():
    """Wherever a thing lies on top it shows its one colour, but for its anti-aliased rim; elsewhere
    the dark ground.
    """
    names = toy.label_names(len(toy.SHAPES))
    grounds = set()
    for _, _, scene in toy.scenes(2, "train", 40, 6, crowded=True):
        photo = np.asarray(toy.paint(scene, 48)).astype(int)
        labels, instances = toy.label_maps(scene, 48, names)
        grounds.add(names[labels[instances == 0][0]])
        assert 2 <= len(scene.things) <= 4 and names[labels[instances == 0][0]] == scene.ground
        for number, thing in enumerate(scene.things, 1):
            assert thing.colour == list(toy.HUES)[(names.index(thing.shape) - 3) % len(toy.HUES)]
            exact = (photo == thing.rgb).all(2)
            assert (
                instances[exact] == number
            ).all()  # no pixel of the thing's colour lies outside of its map
            if (instances == number).sum() > 60:
                assert exact[instances == number].mean() > 0.5
        ground = photo[instances == 0]
        assert (ground.max(1) < 128).mean() > 0.8
    assert grounds == set(toy.GROUNDS)


def test_crowded_scenes_depend_on_seed_split_and_number_alone(tmp_path):
    few = pictures(toy.make(tmp_path / "few", "coco_stuff", classes=3, count=2, size=16, seed=4))
    many = pictures(
        toy.make(tmp_path / "many", "coco_stuff", classes=3, count=5, val_count=2, size=16, seed=4)
    )
    other = pictures(
        toy.make(tmp_path / "other", "coco_stuff", classes=3, count=2, size=16, seed=5)
    )
    assert len(few) == 6 and all(np.array_equal(few[name], many[name]) for name in few)
    for i in range(2):
        name = f"train_img/{i:06d}.png"
        assert not np.array_equal(few[name], other[name])
        assert not np.array_equal(many[name], many[name.replace("train", "val")])


def draw_faces(count, seed=0):
    return [face for _, _, face in toy.faces(seed, "train", count)]


def test_celeba_has_one_folder_and_two_lists(tmp_path):
    out = toy.make(tmp_path / "toy", "celeba", count=3, val_count=2, size=24, seed=1)
    found = pictures(out)
    assert list(found) == [f"img_align_celeba/{i:06d}.png" for i in range(1, 6)]
    assert {a.shape for a in found.values()} == {(24, 24, 3)}
    count, names, *lines = (out / "list_attr_celeba.txt").read_text().splitlines()
    assert count == "5" and names.split() == list(toy.FACE_ATTRIBUTES)
    faces = [face for split, n in (("train", 3), ("val", 2)) for *_, face in toy.faces(1, split, n)]
    for i, (line, face) in enumerate(zip(lines, faces, strict=True), 1):
        name, *values = line.split()
        assert name == f"{i:06d}.png"
        on = {n for n, v in zip(toy.FACE_ATTRIBUTES, values, strict=True) if v == "1"}
        assert on == face.attributes and set(values) <= {"1", "-1"}
        assert np.array_equal(found[f"img_align_celeba/{name}"], toy.paint_face(face, 24))
    partition = (out / "list_eval_partition.txt").read_text().split()
    assert partition[::2] == [f"{i:06d}.png" for i in range(1, 6)]
    assert partition[1::2] == ["0", "0", "0", "2", "2"]
    record = json.loads((out / "toy_data.json").read_text())
    assert record["attributes"] == list(toy.FACE_ATTRIBUTES)


def test_face_i_depends_on_seed_split_and_number_alone(tmp_path):
    few = pictures(toy.make(tmp_path / "few", "celeba", count=2, size=16, seed=4))
    many = pictures(toy.make(tmp_path / "many", "celeba", count=4, val_count=2, size=16, seed=4))
    other = pictures(toy.make(tmp_path / "other", "celeba", count=2, size=16, seed=5))
    assert all(np.array_equal(few[name], many[name]) for name in few)
    assert not any(np.array_equal(few[name], other[name]) for name in few)
    assert len({picture.tobytes() for picture in many.values()}) == 6


def test_attributes_are_drawn_independently_but_for_one_hair_colour():
    table = np.array(
        [[name in face.attributes for name in toy.FACE_ATTRIBUTES] for face in draw_faces(3000)]
    )
    assert (table[:, :3].sum(1) == 1).all()
    assert np.abs(table[:, :3].mean(0) - 1 / 3).max() < 0.04
    assert np.abs(table[:, 3:].mean(0) - 1 / 2).max() < 0.04
    together = np.corrcoef(table.T)
    together[:3, :3] = 0
    assert np.abs(together - np.diag(np.diag(together))).max() < 0.07


@pytest.mark.parametrize("name", toy.FACE_ATTRIBUTES[3:])
def test_each_attribute_shows_at_64_pixels_and_only_where_it_belongs(name):
    rows = {"Eyeglasses": (20, 42), "Smiling": (34, 56), "Wearing_Hat": (0, 34)}
    top, bottom = rows.get(name, (32, 54))
    for face in draw_faces(20):
        other = replace(face, attributes=face.attributes ^ {name})
        a, b = (np.asarray(toy.paint_face(f, 64)).astype(int) for f in (face, other))
        changed = np.abs(a - b).max(2) > 20
        assert changed.sum() > 25
        assert not changed[:top].any() and not changed[bottom:].any()


def test_one_face_at_every_size():
    for face in draw_faces(5):
        small = np.asarray(toy.paint_face(face, 32), np.float64)
        large = np.asarray(toy.paint_face(face, 128), np.float64)
        assert np.abs(small - large.reshape(32, 4, 32, 4, 3).mean((1, 3))).mean() < 6


def test_same_data_again_is_left_alone_and_other_data_is_refused(tmp_path):
    out = toy.make(tmp_path / "toy", classes=2, count=4, size=8)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    toy.make(out, classes=2, count=4, size=8)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    with pytest.raises(UserError, match="holds other files or other toy data"):
        toy.make(out, classes=2, count=4, size=8, seed=1)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_a_folder_with_other_files_is_refused_and_an_empty_one_filled(tmp_path):
    (tmp_path / "mine").mkdir()
    toy.make(tmp_path / "mine", classes=1, count=1, size=8)
    assert json.loads((tmp_path / "mine" / "toy_data.json").read_text())["count"] == 1
    shutil.rmtree(tmp_path / "mine" / "train")
    (tmp_path / "mine" / "toy_data.json").rename(tmp_path / "mine" / "thesis.txt")
    with pytest.raises(UserError, match="mine"):
        toy.make(tmp_path / "mine", classes=1, count=1, size=8)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_nothing_is_left_when_drawing_fails(tmp_path, monkeypatch):
    def full_disk(folder, pictures, size):
        folder.mkdir()
        (folder / "0.png").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(toy.LAYOUTS, "class_folders", full_disk)
    with pytest.raises(OSError, match="No space left"):
        toy.make(tmp_path / "toy", classes=1, count=1, size=8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong, flag",
    [
        ({"classes": 0}, "--classes 0"),
        ({"classes": len(toy.SHAPES) + 1}, f"--classes {len(toy.SHAPES) + 1}"),
        ({"classes": 4, "count": 3}, "--count 3"),
        ({"classes": 4, "val_count": 3}, "--val_count 3"),
        ({"size": 1}, "--size 1"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_numbers_out_of_range_are_named(tmp_path, wrong, flag):
    with pytest.raises(UserError, match=f"^{flag}: must lie between"):
        toy.make(tmp_path / "toy", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path):
    flags = "--layout class_folders --classes 2 --count 4 --val_count 2 --size 8 --seed 3".split()
    first = run_cli(".", "scripts/make_toy_data.py", tmp_path / "toy", *flags)
    assert "4 + 2 pictures of 8 px, 2 classes, seed 3" in first.stdout
    expected = toy.make(tmp_path / "again", classes=2, count=4, val_count=2, size=8, seed=3)
    found = pictures(tmp_path / "toy")
    assert found.keys() == pictures(expected).keys() and len(found) == 6
    assert all(np.array_equal(found[name], picture) for name, picture in pictures(expected).items())
    maps = run_cli(
        ".",
        "scripts/make_toy_data.py",
        tmp_path / "maps",
        *"--layout coco_stuff --count 1 --size 8".split(),
    )
    assert (
        "label ids: 0 plain, 1 clouds, 2 stripes, 3 circle, 4 square, 5 triangle, 6 star\n"
        in maps.stdout
    )
    error = run_cli(
        ROOT, "scripts/make_toy_data.py", tmp_path / "toy", "--count", "9", code=2
    ).stderr
    assert (
        error.count("\n") == 1
        and error.startswith("make_toy_data.py: error: ")
        and "toy: holds other" in error
    )
