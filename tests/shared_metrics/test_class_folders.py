"""Class folders as every command reads them: whose they are, of which level, what is left out."""

import argparse
import importlib

import numpy as np
import pytest
from PIL import Image

from shared_metrics import data_check, image_sets, testing
from shared_metrics.class_folders import class_names, read_classes, refuse_others
from shared_metrics.errors import UserError
from shared_metrics.images import list_images

# paper, module, what reads the class folders of a root
READERS = {
    "sagan": lambda module, root, **how: module("dataset").ClassFolder(root, 8, **how),
    "acgan": lambda module, root, **how: module("dataset").ClassFolder(root, 8, **how),
    "classic_gans": lambda module, root, **how: module("dataset").ClassFolder(root, 8, **how),
    "classic_gans faces": lambda module, root, **how: module("faces").class_folders(
        root, 8, 0, **how
    ),
}


@pytest.fixture(params=[*READERS, "judges"])
def read(request, paper):
    """Function of a root, and perhaps any_folders, that returns the classes of each reader."""
    if request.param == "judges":
        return read_judge
    paper(request.param.split()[0])

    def classes(root, **how):
        data = READERS[request.param](importlib.import_module, root, **how)
        return list(getattr(data, "classes", None) or data.names)

    return classes


def read_judge(root, any_folders=False):
    from shared_metrics.judges import classifier

    args = {"data_path": root, "val_path": root, "classes": "all", "imsize": 8}
    return classifier.open_data(argparse.Namespace(any_folders=any_folders, **args))[0].classes


def picture(path, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(path, **how)


def pictures(root, *places):
    for place in places:
        picture(root / place / "0.png")
    return root


def test_folders_of_systems_are_no_classes(tmp_path, read):
    names = ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "lost+found", "$RECYCLE.BIN"]
    pictures(tmp_path, "cat", "dog", *names, *(f"cat/{name}" for name in names))
    assert read(tmp_path) == ["cat", "dog"]
    assert [path.name for path in list_images(tmp_path / "cat")] == ["0.png"]
    assert image_sets.open_source(tmp_path).number == 2


@pytest.mark.parametrize(
    ("places", "advice"),
    [
        (["train/cat", "train/dog", "val/cat"], "Give .*/train, or give --any_folders"),
        (["train/cat", "train/dog", "devkit"], "Give .*/train, or give --any_folders"),
        (["train", "val"], "Give the folder whose sub-folders are the classes"),
        (["images"], "its only sub-folder, images, is no class"),
    ],
)
def test_one_level_too_high_is_refused_unless_asked_for(tmp_path, read, places, advice):
    pictures(tmp_path, *places)
    with pytest.raises(UserError, match=advice):
        read(tmp_path)
    names = sorted({place.split("/")[0] for place in places})
    assert class_names(tmp_path, "--data_path", any_folders=True) == names


def test_a_class_may_be_called_train(tmp_path, read):
    pictures(tmp_path, "bus", "train", "truck")
    assert read(tmp_path) == ["bus", "train", "truck"]


def test_pictures_that_are_left_out_are_told(tmp_path):
    pictures(tmp_path, "cat", "@eaDir")
    picture(tmp_path / "cat" / "plain", format="JPEG")
    picture(tmp_path / "cat" / "1.png_large", format="PNG")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "cat" / "b").write_bytes(b"\0\0\0\x18ftypmif1")
    unnamed, heic = data_check.left_out(tmp_path)
    assert "2 pictures without a known suffix are left out (cat/1.png_large, cat/plain)" in unnamed
    assert "2 HEIC pictures are left out (cat/a.heic, cat/b)" in heic


def test_a_class_of_such_pictures_alone_says_so(tmp_path, read):
    pictures(tmp_path, "cat", "dog")
    (tmp_path / "dog" / "0.png").rename(tmp_path / "dog" / "0")
    with pytest.raises(UserError, match="1 pictures without a known suffix are left out"):
        read(tmp_path)


def test_other_classes_are_refused_by_name():
    refuse_others(["cat", "dog", "owl"], ["cat", "owl"], "--held_out X")
    with pytest.raises(UserError, match="--held_out X: holds no class folder owl. It has cat, dog"):
        refuse_others(["cat", "dog"], ["cat", "owl"], "--held_out X")
    with pytest.raises(UserError, match="holds dog, which is no class"):
        refuse_others(["cat", "dog"], ["cat"], "--real X", exactly=True)


# ---- which of them: one reading of --classes and of --labels


def chosen_by_acgan(module, root, text):
    return module("dataset").ClassFolder(root, 8, text).classes


def chosen_by_judge(module, root, text):
    from shared_metrics.judges import classifier

    args = {"data_path": root, "val_path": root, "classes": text, "imsize": 8}
    return classifier.open_data(argparse.Namespace(any_folders=False, **args))[0].classes


def chosen_by_scores(module, root, text):
    source = image_sets.open_source(root, classes=text)
    names = class_names(root, "")
    return [names[int(image[0, 0, 0])] for batch in source.read(99, 0, 1) for image in batch]


def chosen_by_labels(module, root, text):
    """The end of a range is one of --labels, not of --classes."""
    names = class_names(root, "")
    args = argparse.Namespace(labels=text, seeds="0", seed=0, num_samples=1)
    return [names[i] for i in testing.choose_labels(args, len(names), names)[1]]


COMMANDS = [chosen_by_acgan, chosen_by_judge, chosen_by_scores, chosen_by_labels]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_a_choice_alike(tmp_path, paper, command):
    paper("acgan")
    for i, name in enumerate(sorted(map(str, range(12)))):  # 0, 1, 10, 11, 2, ...
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / name / "0.png")
    end = 3 if command is chosen_by_labels else 4
    for text in ("2,3", f"2-{end}", f"2,3-{end}"):
        assert command(importlib.import_module, tmp_path, text) == ["2", "3"]
    for i in (2, 3):
        (tmp_path / str(i)).rename(tmp_path / f"{i} renamed")
    (tmp_path / "0").rename(tmp_path / "00")  # 00, 1, 10, 11, 2 renamed, ...
    assert command(importlib.import_module, tmp_path, "2,3") == ["10", "11"]
    with pytest.raises(UserError, match="4 is the name of one class and.* 2 renamed"):
        command(importlib.import_module, tmp_path, "4,2")
    with pytest.raises(UserError, match="no class 'cat' among the 12 classes"):
        command(importlib.import_module, tmp_path, "cat")


def test_numbers_with_zeros_before_them_are_names(tmp_path):
    names = [f"{i:02d}" for i in range(12)]
    for text in ("02-04", "02,03", "2,3", "2-4"):
        assert read_classes(text, names, "--classes", "here") == [2, 3]
    assert read_classes("1-3", [], "--labels", "here", number=4, with_end=True) == [1, 2, 3]


def test_what_is_given_for_a_folder_is_said(tmp_path, read):
    for name, told in (("x.zip", "an archive, not a folder; unpack it"), ("x.png", "a file, not")):
        (tmp_path / name).write_bytes(b"PK\3\4")
        with pytest.raises(UserError, match=told):
            read(tmp_path / name)
        with pytest.raises(UserError, match=told):
            image_sets.open_source(tmp_path / name)


@pytest.mark.parametrize("place", [".", "cifar-10-batches-py"])
def test_batches_of_cifar_name_the_flag(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "data_batch_1").write_bytes(b"x")
    with pytest.raises(UserError, match="--data_path .*with --dataset cifar10"):
        class_names(tmp_path, "--data_path")
