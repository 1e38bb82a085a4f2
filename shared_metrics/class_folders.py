"""A folder that holds one sub-folder of images per class: its classes, a choice of them, their
files.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from shared_metrics.data_check import why_empty
from shared_metrics.errors import UserError
from shared_metrics.images import list_images, sub_folders

# What parts of data sets are called, and what one folder of all pictures is.
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
PICTURES = {"images", "image", "imgs", "img", "jpegimages", "photos", "pictures"}
POSITIONS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


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
            f"{flag} {root}: no such folder. Give the folder that holds one sub-folder of images "
            "per class, e.g. .../imagenet/train"
        )
    names = [path.name for path in sub_folders(root)]
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

    Args:
        names: all of them, sorted.
        text: a list of names, or names, positions and ranges with commas between them: 3,17,40-45
            (45 is not in it). Where every part is the name of a folder, none is read as a number.
        where: the flag and folder they come from, for messages.
    Raises: UserError naming --classes and what there is, when a class does not exist or is named
        twice.
    """
    by_name_only = not isinstance(text, str)
    parts = list(text) if by_name_only else [part.strip() for part in text.split(",")]
    text = ",".join(parts)
    position = {name: i for i, name in enumerate(names)}
    unknown = [part for part in parts if part not in position]
    if not unknown:
        chosen = [position[part] for part in parts]
    elif not by_name_only and all(POSITIONS.fullmatch(part) for part in parts):
        chosen = []
        for part in parts:
            chosen += _positions(part, names, where)
    else:
        raise UserError(
            f"--classes {text or repr(text)}: no class folder '{unknown[0]}' among "
            f"{existing(names, where)}"
        )
    twice = [names[i] for i, times in sorted(Counter(chosen).items()) if times > 1]
    if twice:
        raise UserError(f"--classes {text}: names {', '.join(twice[:3])} more than once")
    return sorted(chosen)


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


def _positions(part, names, where):
    """ "7" -> [7]; "10-20" -> 10 to 19."""
    first, end = POSITIONS.fullmatch(part).groups()
    first = int(first)
    end = int(end) if end else first + 1
    if first >= end:
        raise UserError(
            f"--classes {part}: holds no class; the end is not counted, so {first}-{first + 1} is "
            "one class"
        )
    if end > len(names):
        raise UserError(f"--classes {part}: reaches past {existing(names, where)}")
    return range(first, end)


def existing(names, where):
    """What there is to choose from, for messages."""
    shown = names if len(names) <= 10 else [*names[:9], "...", names[-1]]
    return f"the {len(names)} class folders of {where}, counted from 0: {', '.join(shown)}"


def class_files(root, names, flag):
    """The images of the named classes, at any depth of their folders.

    Returns: files, a list of Path; labels int64 (N,), each file's position in `names`.
    Raises: UserError naming a class folder without images.
    """
    root = Path(root).expanduser()
    files = []
    labels = []
    for label, name in enumerate(names):
        images = list_images(root / name)
        if not images:
            raise UserError(
                f"{flag} {root / name}: no images in this class folder{why_empty(root / name)}. "
                "Add images or choose others by --classes"
            )
        files += images
        labels += [label] * len(images)
    return files, np.array(labels, np.int64)
