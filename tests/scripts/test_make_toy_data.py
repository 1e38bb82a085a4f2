import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import make_toy_data as toy
from shared_metrics.errors import UserError
from tests.conftest import ROOT, run_cli


def pictures(folder):
    """{relative name: pixels} of every PNG below a folder."""
    files = sorted(folder.rglob("*.png"))
    return {str(p.relative_to(folder)): np.asarray(Image.open(p)) for p in files}


def draw(size, classes=4, count=8, seed=0):
    """Pictures float64 (size, size, 3) of the training split."""
    scenes = toy.scenes(seed, "train", count, classes=classes)
    return [np.asarray(toy.paint(scene, size), np.float64) for _, _, scene in scenes]


def make_thing(shape, centre=(0.5, 0.5), radius=0.4, angle=0.0):
    return toy.Thing(shape, "red", (255, 0, 0), centre=centre, radius=radius, angle=angle)


def test_class_folders_hold_balanced_rgb_pictures_of_the_size_asked_for(tmp_path):
    out = toy.make(tmp_path / "toy", classes=3, count=7, val_count=3, size=20)
    per_folder = {f"{p.parent.name}/{p.name}": len(list(p.iterdir())) for p in out.glob("*/*")}
    train = {"train/circle": 3, "train/square": 2, "train/triangle": 2}
    val = {"val/circle": 1, "val/square": 1, "val/triangle": 1}
    assert per_folder == train | val
    assert {(a.shape, a.dtype.str) for a in pictures(out).values()} == {((20, 20, 3), "|u1")}


def test_picture_i_depends_on_seed_and_i_alone(tmp_path):
    how = {"classes": 2, "size": 16}
    few = pictures(toy.make(tmp_path / "few", count=4, seed=5, **how) / "train")
    many = pictures(toy.make(tmp_path / "many", count=9, val_count=4, seed=5, **how) / "train")
    other = pictures(toy.make(tmp_path / "other", count=4, seed=6, **how) / "train")
    assert all(np.array_equal(few[name], many[name]) for name in few)
    assert not any(np.array_equal(few[name], other[name]) for name in few)


def test_validation_pictures_are_others(tmp_path):
    out = toy.make(tmp_path / "toy", classes=2, count=6, val_count=6, size=16)
    train = pictures(out / "train")
    val = pictures(out / "val")
    assert train.keys() == val.keys()
    assert not any(np.array_equal(train[name], val[name]) for name in train)


def test_one_scene_at_every_size():
    for small, large in zip(draw(32), draw(128), strict=True):
        reduced = large.reshape(32, 4, 32, 4, 3).mean((1, 3))  # means of 4x4 pixels
        assert np.abs(small - reduced).mean() < 6


def test_every_shape_lies_inside_the_picture_and_covers_a_fair_part_of_it():
    shapes = len(toy.SHAPES)
    for _, _, scene in toy.scenes(0, "train", 20 * shapes, classes=shapes):
        (thing,) = scene.things
        outline = thing.polygons()[0]
        assert 0 <= outline.min() and outline.max() <= 1, thing
        assert 0.035 < np.asarray(toy.paint_mask(thing.polygons(), 64)).mean() / 255 < 0.6, thing


def test_figures_lie_inside_the_picture_in_their_own_colours_on_white():
    # Of the figure's mean colour: the channels from the brightest to the darkest.
    expected = {
        "face": "rgb",
        "fish": "bgr",
        "flower": "rbg",
        "heart": "r",
        "house": "rgb",
        "tree": "g",
    }
    centres = []
    for _, name, scene in toy.scenes(0, "train", 60, len(toy.FIGURES), layout="figures"):
        outlines = np.concatenate([part.polygons()[0] for part in scene.things])
        assert 0 <= outlines.min() and outlines.max() <= 1, scene
        picture = np.asarray(toy.paint(scene, 64), np.float64)
        figure = (picture < 255).any(2)
        assert 0.08 < figure.mean() < 0.65, scene
        channels = np.argsort(-picture[figure].mean(0))
        assert "".join("rgb"[c] for c in channels).startswith(expected[name]), scene
        centres.append(scene.things[0].centre)
    assert len(set(centres)) == 60


def test_figures_are_written_as_class_folders(tmp_path):
    out = toy.make(tmp_path / "few", "figures", classes=2, count=4, val_count=2, size=16)
    few = pictures(out)
    many = pictures(toy.make(tmp_path / "many", "figures", classes=2, count=6, size=16))
    folders = [str(Path(name).parent) for name in few]
    assert folders == ["train/face"] * 2 + ["train/fish"] * 2 + ["val/face", "val/fish"]
    assert all(np.array_equal(few[name], many[name]) for name in few if name.startswith("train"))
    assert not np.array_equal(few["train/face/000000.png"], few["val/face/000000.png"])


def test_holes_show_the_ground():
    mask = np.asarray(toy.paint_mask(make_thing("ring").polygons(), 64))
    assert mask[32, 32] == 0 and mask[32, 32 + round(0.75 * 0.4 * 64)] == 255


def test_polygons_turn_clockwise_and_move():
    bar = make_thing("bar", centre=(0.3, 0.6), radius=0.2, angle=90.0).polygons()[0]
    assert bar.min(0) == pytest.approx([0.3 - 0.06, 0.6 - 0.2])
    assert bar.max(0) == pytest.approx([0.3 + 0.06, 0.6 + 0.2])
    arrow = make_thing("arrow", radius=0.2, angle=90.0).polygons()[0]
    # Its tip, on top at 0 degrees, points to the right.
    assert arrow[0] == pytest.approx([0.7, 0.5])


def test_edges_are_anti_aliased():
    mask = np.asarray(toy.paint_mask(make_thing("circle").polygons(), 32))
    assert np.logical_and(mask > 0, mask < 255).sum() > 30


def test_classes_can_be_told_apart_at_32_pixels():
    """The nearest training silhouette, both centred, gives the class of nearly every other one."""

    def silhouettes(split, number):
        masks = []
        labels = []
        for _, label, scene in toy.scenes(3, split, number, classes=len(toy.SHAPES)):
            centred = make_thing(scene.things[0].shape, angle=scene.things[0].angle)
            masks.append(np.asarray(toy.paint_mask(centred.polygons(), 32), np.float64).ravel())
            labels.append(label)
        return np.array(masks), np.array(labels)

    train, train_labels = silhouettes("train", 480)
    val, val_labels = silhouettes("val", 120)
    nearest = ((train**2).sum(1) - 2 * val @ train.T).argmin(1)
    assert (train_labels[nearest] == val_labels).mean() > 0.95


def test_coco_stuff_holds_photos_labels_and_instances_of_the_same_names(tmp_path):
    out = toy.make(tmp_path / "toy", "coco_stuff", classes=2, count=5, val_count=1, size=24, seed=1)
    folders = [p for p in out.iterdir() if p.is_dir()]
    names = {folder.name: sorted(p.name for p in folder.iterdir()) for folder in folders}
    expected = {}
    for part in ("img", "inst", "instance"):
        expected[f"train_{part}"] = [f"{i:06d}.png" for i in range(5)]
        expected[f"val_{part}"] = ["000000.png"]
    assert names == expected
    labels = pictures(out / "train_inst")
    instances = pictures(out / "train_instance")
    assert {a.shape for a in [*labels.values(), *instances.values()]} == {(24, 24)}
    assert {a.shape for a in pictures(out / "train_img").values()} == {(24, 24, 3)}
    seen = set(np.concatenate([a.ravel() for a in labels.values()]).tolist())
    assert seen <= set(range(5)) and {3, 4} <= seen
    names = json.loads((out / "toy_data.json").read_text())["labels"]
    assert names == ["plain", "clouds", "stripes", "circle", "square"]
    for name in labels:  # one thing, one class; the ground is number 0
        assert np.array_equal(instances[name] == 0, labels[name] < 3)
        for number in np.unique(instances[name]):
            assert len(np.unique(labels[name][instances[name] == number])) == 1


def test_label_maps_agree_with_the_pixels():
    """Wherever a thing lies on top it shows its one colour, elsewhere is the dark ground.

    But for its anti-aliased rim.
    """
    names = toy.label_names(len(toy.SHAPES))
    grounds = set()
    for _, _, scene in toy.scenes(2, "train", 40, 6, layout="coco_stuff"):
        photo = np.asarray(toy.paint(scene, 48)).astype(int)
        labels, instances = toy.label_maps(scene, 48, names)
        grounds.add(names[labels[instances == 0][0]])
        assert 2 <= len(scene.things) <= 4 and names[labels[instances == 0][0]] == scene.ground
        for number, thing in enumerate(scene.things, 1):
            assert thing.colour == list(toy.HUES)[(names.index(thing.shape) - 3) % len(toy.HUES)]
            exact = (photo == thing.rgb).all(2)
            # No pixel of the thing's colour lies outside of its map.
            assert (instances[exact] == number).all()
            if (instances == number).sum() > 60:
                assert exact[instances == number].mean() > 0.5
        ground = photo[instances == 0]
        assert (ground.max(1) < 128).mean() > 0.8
    assert grounds == set(toy.GROUNDS)


def test_crowded_scenes_depend_on_seed_split_and_number_alone(tmp_path):
    how = {"layout": "coco_stuff", "classes": 3, "size": 16}
    few = pictures(toy.make(tmp_path / "few", count=2, seed=4, **how))
    many = pictures(toy.make(tmp_path / "many", count=5, val_count=2, seed=4, **how))
    other = pictures(toy.make(tmp_path / "other", count=2, seed=5, **how))
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
        (
            {"layout": "figures", "classes": len(toy.FIGURES) + 1},
            f"--classes {len(toy.FIGURES) + 1}",
        ),
        ({"classes": 4, "count": 3}, "--count 3"),
        ({"layout": "figures", "classes": 4, "count": 3}, "--count 3"),
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
    toys = pictures(tmp_path / "toy")
    assert toys.keys() == pictures(expected).keys() and len(toys) == 6
    assert all(np.array_equal(toys[name], picture) for name, picture in pictures(expected).items())
    flags = "--layout coco_stuff --count 1 --size 8".split()
    maps = run_cli(".", "scripts/make_toy_data.py", tmp_path / "maps", *flags)
    ids = "label ids: 0 plain, 1 clouds, 2 stripes, 3 circle, 4 square, 5 triangle, 6 star\n"
    assert ids in maps.stdout
    flags = ["--count", "9"]
    error = run_cli(ROOT, "scripts/make_toy_data.py", tmp_path / "toy", *flags, code=2).stderr
    assert error.count("\n") == 1 and error.startswith("make_toy_data.py: error: ")
    assert "toy: holds other" in error
