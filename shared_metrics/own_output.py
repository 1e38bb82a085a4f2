"""Folders that our own commands wrote, told by their records: which of their pictures are single
images to score, and which are sheets of several.
"""

import json
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from shared_metrics.files import open_regular
from shared_metrics.images import list_images

RECORD_BYTES = 2**26  # a record is read up to this size
DRAWN = "images/*"  # what a test draws, where its record does not tell it (`samples.files`)


def scored_images(folder):
    """(the images of a folder and its sub-folders that scores may count, lines on the others).

    They are `list_images`'s; of the folder of a test, the drawn ones alone; of a run's, none.
    Raises: UserError as `list_images`.
    """
    folder = Path(folder)
    files = list_images(folder)
    records = {}  # {folder: pattern of what is drawn there, or None where it is nobody's}
    top = folder.parent if folder.name == "images" else folder
    owners = {}  # {folder of a picture, from `folder` on: its nearest with a record, or None}
    counts = np.ones(len(files), bool)
    left_out = {}  # {folder of a test or run: how many of its pictures do not count}
    for i, name in enumerate(files.names()):
        place = name.rpartition("/")[0]
        if place not in owners:
            owners[place] = _owner(folder / place, top, records)
        owner = owners[place]
        if owner and not fnmatch(files[i].relative_to(owner).as_posix(), records[owner]):
            left_out[owner] = left_out.get(owner, 0) + 1
            counts[i] = False
    lines = []
    for place, number in left_out.items():
        drawn = f"its {records[place]} alone are" if records[place] else "none of its pictures are"
        lines.append(
            f"{place}: written by a test or a run, as its record tells; {drawn} scored, {number} "
            "sheets and other pictures are not"
        )
    return files[np.flatnonzero(counts)], lines


def _owner(place, top, records):
    """The nearest folder from `place` up to `top` that a test or run wrote; None without one."""
    while True:
        if place not in records:
            records[place] = _drawn_in(place)
        if records[place] is not None:
            return place
        if place == top or place == place.parent:
            return None
        place = place.parent


def _drawn_in(folder):
    """The pattern of what a test drew in its folder, "" for a run's, None for any other."""
    record = _read(folder / "results.json")
    if {"paper", "samples", "scores"} <= record.keys():
        samples = record["samples"]
        drawn = samples.get("files", DRAWN) if isinstance(samples, dict) else DRAWN
        return drawn if isinstance(drawn, str) else DRAWN
    run = {"output_dir", "seed", "save_every"} <= _read(folder / "args.json").keys()
    return "" if run else None


def _read(path):
    """The dict in a JSON file; {} where there is none."""
    try:
        with open_regular(path) as file:
            value = json.loads(file.read(RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
