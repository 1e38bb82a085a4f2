"""What a look at the data tells before a run: pictures that it will not see, or see as nobody
expects.
"""

import itertools
from pathlib import Path

from shared_metrics.files import open_regular
from shared_metrics.images import SUFFIXES, list_files

LOOKED_AT = 10_000  # files of other suffixes that are opened at most
SHOWN = 3
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIC_SUFFIXES = (".heic", ".heif", ".hif")


def notes(data):
    """Lines on a data set for the head of a run's log.

    Args: data, a paper's data set: `name(index)` is the file of an item, or no file's name where
        there are none; `folders`, if it has any, those that it has searched.
    """
    folders = getattr(data, "folders", ())
    lines = [line for folder in folders if folder for line in left_out(folder)]
    return lines


def left_out(folder):
    """Lines on the pictures of a folder that `list_images` leaves out: those without a suffix that
    it knows, and HEIC, which Pillow cannot read. Told by what the files hold.
    """
    folder = Path(folder)
    unnamed = []
    heic = []
    others = (path for path in list_files(folder) if path.suffix.lower() not in SUFFIXES)
    for path in itertools.islice(others, LOOKED_AT):
        kind = _kind(path)
        if kind == "heic":
            heic.append(path)
        elif kind:
            unnamed.append(path)
    lines = []
    if unnamed:
        lines.append(
            f"{folder}: {len(unnamed)} pictures without a known suffix are left out "
            f"({_some(unnamed, folder)}); name them .jpg, .png, ..."
        )
    if heic:
        lines.append(
            f"{folder}: {len(heic)} HEIC pictures are left out ({_some(heic, folder)}), which "
            "Pillow cannot read; convert them to JPEG or PNG"
        )
    return lines


def why_empty(folder):
    """For the message on a folder without images: what is there instead, or nothing."""
    lines = left_out(folder)
    return f" ({'; '.join(line.partition(': ')[2] for line in lines)})" if lines else ""


def _kind(path):
    """Return "heic", "picture", or "" for anything else, by a file's first bytes."""
    if path.suffix.lower() in HEIC_SUFFIXES:
        return "heic"
    try:
        with open_regular(path) as file:
            start = file.read(16)
    except OSError:
        return ""
    if start[4:8] == b"ftyp" and start[8:12] in HEIF:
        return "heic"
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return "picture" if webp or start.startswith(STARTS) else ""


def _some(paths, folder):
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
