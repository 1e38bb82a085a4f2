"""Sets of images to score, whatever they come from, as batches of uint8 RGB arrays: folders,
arrays, files, generators.

One process of several reads every `step`-th image from its own `start` on, in order, so no image is
read twice and image k of a process is number start + k step of all.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from shared_metrics import array_files
from shared_metrics.class_folders import choose, refuse_others
from shared_metrics.data_check import left_out, why_empty
from shared_metrics.errors import UserError
from shared_metrics.files import no_folder
from shared_metrics.images import MAX_PIXELS, read_rgb, sub_folders, suffix
from shared_metrics.own_output import scored_images
from shared_metrics.process import usable_cores
from shared_metrics.unpickle import printable

BATCH_BYTES = 2**27
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif")


@dataclass(frozen=True)
class Source:
    """A set of images in a fixed order.

    name: for messages and records; number: images in all, None if unknown; read(size, start, step):
        yields batches, each an array (n, H, W, 3) or a list of (H, W, 3) arrays; notes: what a
        reader of the scores should know.
    """

    name: str
    number: int | None
    read: Callable[[int, int, int], Iterator]
    notes: tuple = ()


def open_source(
    images, number=None, classes="", limit=None, name="", pictures=None, known=(), flag=""
):
    """A `Source` of a folder (with its sub-folders), an .npz or .npy file, a uint8 array (N, H, W,
    3), a function or an iterable.

    Args:
        images: a function takes a count and returns that many images; an iterable yields batches
            (n, H, W, 3) of any n. In a run of several processes both give this process's share
            only.
        number: how many images in all; required for a function, useful for an iterable, known for
            the others.
        classes: only these sub-folders, or labels of a file, see `class_folders.read_classes`
            ("cat,dog", "0-5" without the 5th); "" for all.
        limit: at most so many of a folder's or file's images, spread evenly over them.
        name: what a record calls the images of an array, a function or an iterable.
        pictures: of a folder: function of a list of its files that yields their pictures as a paper
            reads them, in batches (None: as they are).
        known: names of a generator's classes: of a folder of class folders these alone are taken.
        flag: the command-line flag to name in errors.
    Raises: UserError naming what is wrong with the folder or file.
    """
    if isinstance(images, (str, Path)):
        path = Path(images)
        if path.is_dir():
            return _folder(path, classes, limit, pictures, known, flag)
        if path.suffix.lower() in (".npz", ".npy") and path.is_file():
            return _array_file(path, classes, limit)
        hint = f" ({no_folder(path)})" if path.is_file() else ""
        raise UserError(f"{images}: no folder of images, and no .npz or .npy file of them{hint}")
    if classes or limit:
        raise ValueError("classes and limit are for a folder or a file only")
    if isinstance(images, np.ndarray):
        array = _checked(images, "array")
        return Source(name or "array", len(array), partial(_slices, array))
    if callable(images):
        if number is None:
            raise ValueError("a function that makes images needs `number`, how many to ask for")
        return Source(name or "function", number, partial(_calls, images, number))
    if isinstance(images, Iterable):
        return Source(name or "iterable", number, lambda size, start, step: iter(images))
    raise ValueError(
        f"images: {type(images).__name__} is no folder, file, uint8 array, function or iterable"
    )


def _folder(folder, classes, limit, pictures, known, flag):
    """The one way in which a folder of images is read to be scored, or to be compared with."""
    where = f"{flag} {folder}".strip()
    files, notes = scored_images(folder)
    if not files and notes:
        raise UserError(f"{where}: {notes[0].partition(': ')[2]}; give the folder of a test")
    names = sorted({_first_folder(name) for name in files.names()} - {""})
    chosen = None
    if classes:
        names = [path.name for path in sub_folders(folder)]
        chosen = {names[i] for i in choose(names, str(classes), where)}
    elif len(known) > 1 and names and not notes:
        refuse_others(names, known, where)
        chosen = set(known)
        notes += _others(files, folder, names, known)
    if chosen is not None:
        inside = [_first_folder(name) in chosen for name in files.names()]
        files = files[np.flatnonzero(inside)]
    if not files:
        raise UserError(
            f"{where}: no images in this folder or below it{why_empty(folder)}; give a folder of "
            ".png, .jpg, ... files"
        )
    files = files[_spread(len(files), limit)]
    notes += left_out(folder)
    lossy = sum(suffix(name) in LOSSY for name in files.names())
    if lossy:
        kind = f"{lossy} of {len(files)} files are lossy (JPEG or the like)"
        notes.append(f"{folder}: {kind}, which moves FID")
    read = partial(_decode, files)
    if pictures:
        read = partial(_as_of_paper, pictures, files)
    return Source(str(folder), len(files), read, tuple(notes))


def _first_folder(name):
    """The first of the folders in a file's name, "" where it lies in none."""
    return name.partition("/")[0] if "/" in name else ""


def _as_of_paper(pictures, files, size, start, step):
    yield from pictures(files[start::step])


def _others(files, folder, names, known):
    """A line on what does not count in a folder that holds more than the known classes."""
    beside = sum("/" not in name for name in files.names())
    others = len(set(names) - set(known))
    if not beside and not others:
        return []
    return [
        f"{folder}: the generator's {len(known)} classes are taken, {others} other class folders "
        f"and {beside} pictures beside them are not"
    ]


def _spread(number, limit):
    """Numbers of at most `limit` of `number` things, evenly spread."""
    count = min(number, limit or number)
    return np.arange(count) * number // max(count, 1)


def _decode(files, size, start, step):
    """Threads decode a batch ahead (Pillow works without Python's lock); a batch of large pictures
    ends early.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            ahead = (pool.submit(_pixels, file) for file in files[start::step])
            waiting = deque(islice(ahead, size))
            while waiting:
                batch = []
                size_in_bytes = 0
                while waiting and len(batch) < size and size_in_bytes < BATCH_BYTES:
                    batch.append(waiting.popleft().result())
                    size_in_bytes += batch[-1].nbytes
                    waiting.extend(islice(ahead, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)


def _pixels(path):
    return np.asarray(read_rgb(path))


def _slices(array, size, start, step):
    mine = array[start::step]
    for i in range(0, len(mine), size):
        yield np.asarray(mine[i : i + size])


def _calls(function, number, size, start, step):
    mine = len(range(start, number, step))
    for i in range(0, mine, size):
        count = min(size, mine - i)
        images = _checked(np.asarray(function(count)), "the function's result")
        if len(images) != count:
            raise ValueError(f"the function was asked for {count} images and made {len(images)}")
        yield images


def _checked(array, what):
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        raise UserError(
            f"{what}: {array.dtype} {array.shape}; need uint8 (N, H, W, 3), RGB in 0..255"
        )
    return array


def _array_file(path, classes, limit):
    """The images of an .npz or .npy, read as a stream: they are never whole in memory."""
    member, number, labels = _find_images(path)
    chosen = np.ones(number, bool)
    if classes:
        if labels is None or len(labels) != number:
            raise UserError(
                f"--classes {classes}: {path} holds no `labels` for its {number} images"
            )
        members = np.unique(labels)
        wanted = choose([str(label) for label in members.tolist()], str(classes), path)
        chosen = np.isin(labels, members[wanted])
    if limit:
        candidates = np.flatnonzero(chosen)
        chosen[:] = False
        chosen[candidates[_spread(len(candidates), limit)]] = True
    if not chosen.any():
        raise UserError(f"{path}: holds no images")
    return Source(str(path), int(chosen.sum()), partial(_stream, path, member, chosen))


def _find_images(path):
    """(name inside, number, labels or None) of a file's one uint8 array (N, H, W, 3)."""
    headers = array_files.headers(path)
    images = []
    for name, header in headers.items():
        if header.dtype == np.uint8 and len(header.shape) == 4 and header.shape[3] == 3:
            images.append(name)
    if len(images) != 1 or headers[images[0]].fortran:
        contents = [f"{name} {h.dtype} {h.shape}".strip() for name, h in headers.items()]
        raise UserError(
            f"{path}: need uint8 (N, H, W, 3), RGB in 0..255, in one array; found "
            f"{printable('; '.join(contents)) or 'nothing'}"
        )
    number, height, width, _ = headers[images[0]].shape
    if height * width > MAX_PIXELS:
        raise UserError(f"{path}: {width}x{height} pixels, more than the {MAX_PIXELS} allowed")
    labels = array_files.read(path, ["labels"]).get("labels") if "labels" in headers else None
    return images[0], number, labels


def _stream(path, member, chosen, size, start, step):
    """The chosen images: of them this process's share."""
    new = np.cumsum(chosen) - 1  # numbers among the chosen
    with array_files.naming(path), array_files.open_array(path, member) as (file, header):
        each = math.prod(header.shape[1:])
        size = max(1, min(size, BATCH_BYTES // max(each, 1)))
        for i in range(0, header.shape[0], size):
            rows = slice(i, min(i + size, header.shape[0]))
            wanted = (rows.stop - i) * each
            try:
                data = file.read(wanted)
            except array_files.DAMAGE:
                data = b""
            if len(data) != wanted:
                raise UserError(f"{path}: cut or damaged after image {i}; make or copy it again")
            mine = chosen[rows] & (new[rows] % step == start)
            if mine.any():
                yield np.frombuffer(data, np.uint8).reshape(-1, *header.shape[1:])[mine]
