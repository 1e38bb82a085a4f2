"""A folder that holds one sub-folder of images per class: its classes, a choice of them, their
files.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from shared_metrics.data_check import why_empty
from shared_metrics.errors import UserError
from shared_metrics.file_list import FileList
from shared_metrics.files import no_folder
from shared_metrics.images import list_images, sub_folders

CIFAR = "cifar-10-batches-py"  # the folder in CIFAR-10's archive
# What parts of data sets are called, and what one folder of all pictures is.
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
PICTURES = {"images", "image", "imgs", "img", "jpegimages", "photos", "pictures"}
RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


# fmt: off
def any_folders_flag(add):
    """Add the flag that takes folders as classes whatever they are called."""
    add("--any_folders", action="store_true",
        help="take folders called train, val, images, ... as classes")
# fmt: on


def class_names(root, flag, any_folders=False):
    """The sorted names of the sub-folders, without hidden ones and a system's own.

    Args: flag, the command-line flag to name in errors; any_folders, see `check_level`.
    Raises: UserError when the folder is missing, holds no sub-folder or is of a wrong level.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{flag} {root}: {no_folder(root)}. Give the folder that holds one sub-folder of "
            "images per class, e.g. .../imagenet/train"
        )
    names = [path.name for path in sub_folders(root)]
    for folder in (root, root / CIFAR):
        if (folder / "data_batch_1").is_file():
            raise UserError(
                f"{flag} {root}: CIFAR-10's own batches, no class folders. sagan/train.py reads "
                "them with --dataset cifar10; for others write its images into class folders"
            )
    if not names:
        raise UserError(
            f"{flag} {root}: no sub-folders. Expected {root.name}/<class>/<image>, one sub-folder "
            "per class"
        )
    if not any_folders:
        check_level(root, names, flag)
    return names


def check_level(root, names, flag):
    """Raise UserError where sub-folders are the parts of a data set (ImageNet's train and val), or
    one folder of all pictures (Tiny-ImageNet's val/images), and no classes.
    """
    advice = "or give --any_folders to take them as classes"
    parts = [name for name in names if name.casefold() in SPLITS]
    inner = [root / name for name in parts if len(sub_folders(root / name)) > 1]
    if inner or (parts and parts == names):
        place = f"{inner[0]}" if inner else "the folder whose sub-folders are the classes"
        raise UserError(
            f"{flag} {root}: its sub-folders {', '.join(parts)} are parts of a data set, no "
            f"classes. Give {place}, {advice}"
        )
    if len(names) == 1 and names[0].casefold() in PICTURES:
        raise UserError(
            f"{flag} {root}: its only sub-folder, {names[0]}, is no class. Give the folder whose "
            "sub-folders are the classes (for Tiny-ImageNet's val sort the pictures as "
            f"val_annotations.txt says), {advice}"
        )


def choose(names, text, where):
    """Positions, ascending, of the classes that --classes picks among all class names.

    Args: names, all of them, sorted; text, see `read_classes` (the end of a range is not in it), or
        a list of names alone; where, the flag and folder they come from, for messages.
    Raises: UserError as `read_classes`.
    """
    if not isinstance(text, str):
        refuse_others(names, text, where)
        return sorted(names.index(name) for name in text)
    return sorted(read_classes(text, names, "--classes", where))


def read_classes(text, names, flag, where, number=None, with_end=False):
    """Positions of the classes that a flag names, in its order: cat,dog or 3,17,40-45.

    Where every entry is the name of a class, or a range of whole numbers that all are, names are
    meant; otherwise every entry is a position, counted from 0, or a range of them.
    Args: names, of all classes; flag and where they come from, for messages; number, how many they
        are, where names may be []; with_end, whether the end of a range is in it.
    Raises: UserError for what is neither or named twice, and where a number that is meant as a
        position is the name of another class.
    """
    number = len(names) if number is None else number
    there = existing(names, where, number)
    entries = [entry.strip() for entry in text.split(",")]
    position = {name: i for i, name in enumerate(names)}
    chosen = [_by_name(entry, position, with_end) for entry in entries]
    if not all(chosen):
        for entry in entries:
            if entry not in position and not RANGE.fullmatch(entry):
                raise UserError(f"{flag} {text or repr(text)}: no class '{entry}' among {there}")
        chosen = [_by_position(entry, number, with_end, flag, there) for entry in entries]
        _refuse_two_readings(chosen, names, position, f"{flag} {text}")
    chosen = [i for part in chosen for i in part]
    twice = [i for i, times in sorted(Counter(chosen).items()) if times > 1]
    if twice:
        shown = ", ".join(names[i] if names else str(i) for i in twice[:3])
        raise UserError(f"{flag} {text}: names {shown} more than once")
    return chosen


def _by_name(entry, position, with_end):
    """[its position] of a name, those of a range of numbers that are names; [] otherwise."""
    if entry in position:
        return [position[entry]]
    match = RANGE.fullmatch(entry)
    if not match or not match[2] or int(match[2]) - int(match[1]) > len(position):
        return []
    width = len(match[1]) if match[1][0] == "0" else 1  # 00, 01, ...
    numbers = range(int(match[1]), int(match[2]) + with_end)
    members = [f"{i:0{width}d}" for i in numbers]
    return [position[name] for name in members] if set(members) <= set(position) else []


def _by_position(entry, number, with_end, flag, there):
    """ "7" -> range of 7 alone; "10-20" -> of 10 to 19, and of 20 too `with_end`."""
    match = RANGE.fullmatch(entry)
    if not match:
        raise UserError(
            f"{flag}: '{entry}' is a name and others are not; give names alone or positions alone, "
            f"among {there}"
        )
    first = int(match[1])
    end = int(match[2]) + with_end if match[2] else first + 1
    if first >= end:
        advice = (
            "" if with_end else f"; the end is not counted, so {first}-{first + 1} is one class"
        )
        raise UserError(f"{flag} {entry}: holds no class{advice}")
    if end > number:
        raise UserError(f"{flag} {entry}: reaches past {there}")
    return range(first, end)


def _refuse_two_readings(chosen, names, position, flag):
    """Raise UserError where a chosen position, as a number, is the name of another class."""
    for i in (i for part in chosen for i in part):
        if position.get(str(i), i) != i:
            raise UserError(
                f"{flag}: {i} is the name of one class and, as a position counted from 0, means "
                f"{names[i]}. Give names alone"
            )


def existing(names, where, number=None):
    """What there is to choose from, for messages."""
    shown = names if len(names) <= 10 else [*names[:9], "...", names[-1]]
    count = len(names) if number is None else number
    listed = f": {', '.join(shown)}" if names else ""
    return f"the {count} classes of {where}, counted from 0{listed}"


def refuse_others(there, names, where, exactly=False):
    """Raise UserError where a folder lacks one of the classes that are known by these names, or
    holds another one where it should hold `exactly` these.

    Args: there, the names of its sub-folders; where, the flag and the folder.
    """
    problem = ""
    if missing := [name for name in names if name not in there]:
        problem = f"holds no class folder {missing[0]}"
    elif exactly and (others := [name for name in there if name not in names]):
        problem = f"holds {others[0]}, which is no class of the generator"
    elif exactly and there != names:
        problem = "sorts the classes in another order"
    if problem:
        raise UserError(f"{where}: {problem}. It has {_first(there)}; wanted are {_first(names)}")


def _first(names):
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def class_files(root, names, flag):
    """The images of the named classes, at any depth of their folders.

    Returns: files, a FileList; labels int64 (N,), each file's position in `names`.
    Raises: UserError naming a class folder without images.
    """
    root = Path(root).expanduser()
    lists = []
    for name in names:
        images = list_images(root / name)
        if not images:
            raise UserError(
                f"{flag} {root / name}: no images in this class folder{why_empty(root / name)}. "
                "Add images or choose others by --classes"
            )
        lists.append(images)
    numbers = np.arange(len(lists), dtype=np.int64)
    labels = np.repeat(numbers, [len(images) for images in lists])
    return FileList.joined(lists), labels
