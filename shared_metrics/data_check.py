"""What a look at the data tells before a run: pictures that it will not see, or see as nobody
expects.
"""

import contextlib
import itertools
from pathlib import Path

import numpy as np

from shared_metrics import images
from shared_metrics.errors import UserError
from shared_metrics.files import open_regular
from shared_metrics.images import SUFFIXES, names_in, suffix

LOOKED_AT = 10_000  # files of other suffixes that are opened at most
SAMPLE = 32  # pictures of a data set that are looked at
SHOWN = 3
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIC_SUFFIXES = (".heic", ".heif", ".hif")


def notes(data):
    """Lines on a data set for the head of a run's log.

    Args: data, a paper's data set. `name(index)`, if it has one, is the file of an item, or no
        file's name; `folders`, if it has any, those that it has searched.
    """
    folders = getattr(data, "folders", ())
    lines = [line for folder in folders if folder for line in left_out(folder)]
    chosen = np.unique(np.linspace(0, len(data) - 1, SAMPLE).astype(int)).tolist()
    paths = [Path(getattr(data, "name", str)(index)) for index in chosen]
    return lines + doubtful([path for path in paths if path.suffix.lower() in SUFFIXES])


def doubtful(files):
    """Lines on pictures that may be read otherwise than meant: deeper than 8 bits a colour, floats,
    transparent. Files that cannot be read are left to those who need them.
    """
    kinds = {}  # {what is told: files}
    for path in files:
        with contextlib.suppress(UserError):
            if told := _doubt(path):
                kinds.setdefault(told, []).append(path)
    return [
        f"{len(paths)} of {len(files)} pictures looked at {told}, such as {paths[0]}"
        for told, paths in kinds.items()
    ]


def _doubt(path):
    """What to tell of a picture, or nothing."""
    with images.opened(path) as image:
        raw = image.tile[0][3] if image.tile else ""
        if images.is_deep(image.mode):
            top = int(np.asarray(image).max())
            bits = images.bits_used(min(top, 65535))
            return f"hold gray of {bits} bits in 16; read as {bits} bits" if bits < 16 else ""
        if image.mode == "F":
            unit = np.asarray(image).max() <= 1
            return f"hold floats, read as from 0 to {1 if unit else 255}"
        if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
            colour = "#{:02x}{:02x}{:02x}".format(*images.background)
            return f"are transparent in places, which show {colour} (--background)"
        if ";16" in str(raw) and max(top for _, top in image.convert("RGB").getextrema()) < 64:
            return "hold colours of 10 or 12 bits in 16 and come out dark; convert them to 8 bits"
    return ""


def left_out(folder):
    """Lines on the pictures of a folder that `list_images` leaves out: those without a suffix that
    it knows, and HEIC, which Pillow cannot read. Told by what the files hold.
    """
    folder = Path(folder)
    unnamed = []
    heic = []
    others = (name for name in names_in(folder) if suffix(name) not in SUFFIXES)
    for name in itertools.islice(others, LOOKED_AT):
        path = folder / name
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
