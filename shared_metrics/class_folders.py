"""A folder that holds one sub-folder of images per class: its classes, a choice of them, their
files.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.images import list_images

POSITIONS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def class_names(root, flag):
    """The sorted names of the sub-folders, hidden ones left out.

    Args: flag, the command-line flag to name in errors.
    Raises: UserError when the folder is missing or holds no sub-folder.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{flag} {root}: no such folder. Give the folder that holds one sub-folder of images "
            "per class, e.g. .../imagenet/train"
        )
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise UserError(
            f"{flag} {root}: no sub-folders. Expected {root.name}/<class>/<image>, one sub-folder "
            "per class"
        )
    return names


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
                f"{flag} {root / name}: no images in this class folder. Add images or choose "
                "others by --classes"
            )
        files += images
        labels += [label] * len(images)
    return files, np.array(labels, np.int64)
