"""Faces with attributes -> arrays for StarGAN, AttGAN and STGAN: CelebA's list, class folders such
as RaFD's, both together, and photos to edit.

An attribute is a name; labels are float32 vectors of 0 and 1 in the order of `names`. Images are
float32 (3, S, S) in [-1, 1].
"""

import difflib
import random
from pathlib import Path

import numpy as np
from PIL import Image

from shared_metrics.errors import UserError
from shared_metrics.images import list_images, read_rgb, stacks

SPLITS = ("yunjey", "attgan", "pcv", "official", "all")
PARTITION = {"train": "0", "val": "1", "test": "2"}  # CelebA's list_eval_partition.txt
ATTGAN_ENDS = (182_000, 182_637)  # where AttGAN's training and validation parts end in the list
YUNJEY_TEST = 1_999
CELEBA_SIZE = (178, 218)  # width and height of CelebA's aligned pictures
VALUES = {"1": 1, "-1": 0, "0": 0}

HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
# Attributes of which no face has two; data, not code: other sets have their own.
EXCLUSIVE = (
    HAIR_COLOURS,
    ("Straight_Hair", "Wavy_Hair"),
    ("Bald", "Bangs"),
    ("Receding_Hairline", "Bangs"),
)


# --- Labels: which attributes a face has, and which it is to have.


def with_attribute(labels, name, values, names, exclusive=EXCLUSIVE):
    """Labels (N, c) with one attribute set to `values`, 0 or 1 for all or one a face; where it is
    on, the attributes that exclude it are off.

    The rule goes by the label's value: switching Black_Hair off leaves the other colours alone.
    Source: AttGAN's and STGAN's published code, without their optional rule on No_Beard.
    """
    labels = np.array(labels, np.float32)
    labels[:, names.index(name)] = values
    on = labels[:, names.index(name)] > 0
    for group in exclusive:
        for other in group if name in group else ():
            if other != name and other in names:
                labels[on, names.index(other)] = 0
    return labels


def edits(labels, names, exclusive=EXCLUSIVE, choices=()):
    """The labels with each attribute changed in turn: (c, N, c).

    Args: choices, groups of attributes of which one is on (StarGAN's hair colours): these are
        switched on, all others inverted.
    """
    chosen = {name for group in choices for name in group}
    rows = []
    for i, name in enumerate(names):
        values = 1 if name in chosen else 1 - labels[:, i]
        rows.append(with_attribute(labels, name, values, names, exclusive))
    return np.stack(rows)


def describe(data):
    """One line on how many faces of a data set have each attribute."""
    total = len(data)
    parts = []
    for name, count in zip(data.names, data.labels.sum(0).astype(int), strict=True):
        parts.append(f"{name} {count:,} ({count / total:.1%})")
    return f"{total:,} faces: {', '.join(parts)}"


def check_varied(data, source):
    """Raise UserError naming the attributes that all or none of the faces have: nothing is to be
    learned of them, and every row of a sheet would look alike.
    """
    share = data.labels.mean(0)
    constant = [name for name, s in zip(data.names, share, strict=True) if s in (0.0, 1.0)]
    if constant:
        raise UserError(
            f"{source}: all {len(data):,} faces have the same value of {', '.join(constant[:8])}; "
            "leave it out of --selected_attrs or give more faces"
        )


# --- Lists.


def read_attributes(path):
    """Read a list of CelebA's form: the number of faces; the attributes' names; then a line a face,
    its file's name and 1 or -1 for each attribute (0 is read as -1).

    Returns: names (list), files (list), labels (faces, names) float32 of 0 and 1.
    Raises: UserError naming the file and the line that is no such list.
    """
    lines = read_lines(path, "the list of attributes")
    if not lines or not lines[0].strip().isdecimal():
        first = lines[0].strip()[:40] if lines else ""
        raise UserError(
            f"{path}: line 1 must be the number of faces, as in list_attr_celeba.txt, not {first!r}"
        )
    names = lines[1].split() if len(lines) > 1 else []
    if not names or set(names) & VALUES.keys():
        raise UserError(f"{path}: line 2 must be the attributes' names, separated by blanks")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: line 2 names an attribute twice")
    numbered = [(number, line) for number, line in enumerate(lines[2:], 3) if line.strip()]
    if len(numbered) != int(lines[0]):
        raise UserError(
            f"{path}: line 1 says {int(lines[0]):,} faces, but {len(numbered):,} follow; is the "
            "file cut? Correct the number or the lines"
        )
    files = []
    labels = np.empty((len(numbered), len(names)), np.float32)
    for row, (number, line) in zip(labels, numbered, strict=True):
        file, *values = line.split()
        if len(values) != len(names):
            raise UserError(
                f"{path}: line {number} has {len(values)} values for the {len(names)} names of "
                "line 2; correct it"
            )
        try:
            row[:] = [VALUES[value] for value in values]
        except KeyError as error:
            raise UserError(f"{path}: line {number}: {error} is neither 1 nor -1") from None
        files.append(file)
    return names, files, labels


def read_lines(path, what):
    try:
        return Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None


def columns_of(selected, names, source):
    """Positions of the selected attributes among the list's names. Raises UserError with the
    nearest name for an unknown one.
    """
    twice = [name for name in selected if selected.count(name) > 1]
    if twice or not selected:
        wrong = f"{twice[0]} stands twice" if twice else "no attribute"
        raise UserError(f"--selected_attrs {','.join(selected)}: {wrong}")
    for name in selected:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
            raise UserError(f"--selected_attrs {name}: {source} has no such attribute; {hint}")
    return [names.index(name) for name in selected]


def part_of(files, split, part, source, partition=""):
    """Indices of the faces of one part of a list.

    Args: files, the list's file names; part, "train", "val" or "test"; source, the list (message);
        split, "yunjey": shuffled, the first 1,999 for test, the rest for training;
        "attgan": by position, 182,000 for training, 637 for validation, the rest for test;
        "pcv": by position, 90 % for training, then 0.3 % for test;
        "official": as the file `partition` says; "all": every face, whatever the part.
    Raises: UserError when the part is empty.
    """
    count = len(files)
    if split == "all":
        return np.arange(count)
    if split == "official":
        indices = partitioned(files, part, source, partition)
    else:
        order = list(range(count))
        if split == "yunjey":
            random.Random(1234).shuffle(order)
            ends = {"test": (0, YUNJEY_TEST), "train": (YUNJEY_TEST, count)}
        elif split == "attgan":
            first, second = ATTGAN_ENDS
            ends = {"train": (0, first), "val": (first, second), "test": (second, count)}
        else:
            first = int(count * 0.9)
            ends = {"train": (0, first), "test": (first, int(first + count * 0.003))}
        start, end = ends.get(part, (0, 0))
        indices = np.array(order[start:end], int)
    if not len(indices):
        raise UserError(
            f"--split {split}: leaves no faces for the part {part} of {source}, which has "
            f"{count:,}; give another split or a list of its own for each part"
        )
    return indices


def partitioned(files, part, source, partition):
    """Indices of the faces whose line of the partition file, `name 0|1|2`, says this part."""
    parts = {}
    for number, line in enumerate(read_lines(partition, "CelebA's list_eval_partition.txt"), 1):
        if line.strip():
            fields = line.split()
            if len(fields) != 2 or fields[1] not in PARTITION.values():
                raise UserError(f"{partition}: line {number} is no file name and 0, 1 or 2")
            parts[fields[0]] = fields[1]
    for file in files:
        if file not in parts:
            raise UserError(f"{partition}: has no line for {file} of {source}")
    return np.flatnonzero([parts[file] == PARTITION[part] for file in files])


# --- Pictures.


def read_face(path, crop_size, image_size):
    """The middle square of crop_size pixels (0: the largest) of a picture, resized to image_size,
    as a PIL image. Raises UserError naming the file when it cannot be read or is smaller.
    """
    image = read_rgb(path, rotate=True)
    least = min(image.size)
    if crop_size > least:
        raise UserError(
            f"{path}: {image.width}x{image.height} px, smaller than --crop_size {crop_size}; give "
            f"at most {least}, or 0 for the largest middle square"
        )
    return middle(image, crop_size or least, image_size)


def middle(image, side, image_size):
    """The middle square of a PIL image, resized bilinearly."""
    left = round((image.width - side) / 2)
    top = round((image.height - side) / 2)
    # Cut first: resized with a box, Pillow's filter would see pixels outside of it.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((image_size, image_size), Image.Resampling.BILINEAR)


def to_array(image, mirrored=False):
    """PIL RGB image -> float32 (3, H, W) in [-1, 1]."""
    x = np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1.0
    return np.ascontiguousarray(x[:, :, ::-1] if mirrored else x)


class Faces:
    """Pictures with labels; what CelebA's list and class folders are read into.

    Args: files, paths; labels (N, c) float32; names, the c attributes; image_size, crop_size in
        pixels, see `read_face`; flip, mirror with probability 1/2 (StarGAN's training only).
    """

    def __init__(self, files, labels, names, image_size, crop_size, flip=False):
        self.files = files
        self.labels = labels
        self.names = names
        self.image_size = image_size
        self.crop_size = crop_size
        self.flip = flip

    def __len__(self):
        return len(self.files)

    def name(self, index):
        """The file behind item `index`, for messages and file names."""
        return str(self.files[index])

    def load(self, index, rng):
        """Image float32 (3, S, S), labels float32 (c,). Raises UserError naming a bad file."""
        image = read_face(self.files[index], self.crop_size, self.image_size)
        mirrored = self.flip and rng.random() < 0.5
        return to_array(image, mirrored), self.labels[index]

    def pictures(self, skip_bad=False):
        """The pictures as scores see them: batches of uint8 (n, S, S, 3), never mirrored."""
        return stacks(
            self.files, lambda path: read_face(path, self.crop_size, self.image_size), skip_bad
        )


def celeba(images, list_file, selected, split, part, partition="", **sizes):
    """The faces of one part of a list of CelebA's form, with the selected attributes.

    Args: images, folder of the pictures (.png files do for names on .jpg); selected, names of
        attributes, in the order of the labels; split, part, partition, see `part_of`; sizes,
        image_size, crop_size and flip of `Faces`.
    Raises: UserError naming the flag, file or line at fault.
    """
    names, files, labels = read_attributes(list_file)
    columns = columns_of(list(selected), names, list_file)
    indices = part_of(files, split, part, list_file, partition)
    paths = existing(Path(images).expanduser(), [files[i] for i in indices], list_file)
    return Faces(paths, labels[indices][:, columns], list(selected), **sizes)


def existing(folder, files, source):
    """The paths of the files in the folder. Raises UserError naming the first that is missing."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; it should hold the pictures that {source} names"
        )
    paths = []
    for file in files:
        path = folder / file
        if not path.is_file():
            path = path.with_suffix(".png")
        if not path.is_file():
            raise UserError(f"{folder / file}: no such file, but {source} names it")
        paths.append(path)
    return paths


def class_folders(root, image_size, crop_size, flip=False):
    """Faces in one sub-folder per class (RaFD's eight expressions): the label is one-hot.

    Raises: UserError when there are no two classes, for instance because the folder lies one level
    too high.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder with a sub-folder per class")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        inner = sorted(p for folder in folders for p in folder.iterdir() if p.is_dir())
        advice = f"; did you mean {folders[0]}?" if len(inner) > 1 else ""
        raise UserError(
            f"{root}: needs a sub-folder of pictures per class, at least 2, but has "
            f"{len(folders)}{advice}"
        )
    files = []
    labels = []
    for row, folder in zip(np.eye(len(folders), dtype=np.float32), folders, strict=True):
        pictures = list_images(folder)
        if not pictures:
            raise UserError(f"{folder}: no pictures in this class folder; add some or remove it")
        files += pictures
        labels += [row] * len(pictures)
    names = [folder.name for folder in folders]
    return Faces(files, np.stack(labels), names, image_size, crop_size, flip)


def jointly(first, second):
    """Two data sets for one StarGAN (sec. 3.3), both with the labels of both and a mask of two that
    tells which are known; the unknown ones are 0.

    Returns: the two data sets with labels [first's, second's, mask], (N, c1 + c2 + 2).
    """
    width = [len(first.names), len(second.names)]
    joined = []
    for which, data in enumerate((first, second)):
        labels = np.zeros((len(data), sum(width) + 2), np.float32)
        start = which * width[0]
        labels[:, start : start + width[which]] = data.labels
        labels[:, sum(width) + which] = 1
        sizes = (data.image_size, data.crop_size, data.flip)
        joined.append(Faces(data.files, labels, [*first.names, *second.names], *sizes))
    return joined


class Photos:
    """One's own photos to edit, a file or a folder of them; their attributes are not known.

    They should be aligned as CelebA's, whose pictures have 178x218 px: of any other size the same
    share is cut from the middle.
    Args: image_size, of the items; crop_size, of a picture of CelebA's size (0: the largest middle
        square).
    """

    def __init__(self, path, image_size, crop_size):
        path = Path(path).expanduser()
        self.files = [path] if path.is_file() else list_images(path)
        if not self.files:
            raise UserError(f"--input {path}: no pictures in this folder")
        self.image_size = image_size
        self.crop_size = crop_size

    def __len__(self):
        return len(self.files)

    def name(self, index):
        """The file behind item `index`."""
        return str(self.files[index])

    def load(self, index, rng=None):
        """Image float32 (3, S, S), as a tuple of one."""
        image = read_rgb(self.files[index], rotate=True)
        side = least = min(image.size)
        if self.crop_size:
            scale = min(image.width / CELEBA_SIZE[0], image.height / CELEBA_SIZE[1])
            side = min(least, max(1, round(scale * self.crop_size)))
        return (to_array(middle(image, side, self.image_size)),)
