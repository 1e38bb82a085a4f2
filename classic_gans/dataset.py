"""Files on disk -> arrays for the classic GANs: digits, class folders, pairs, unpaired domains.

Pictures are float32 (C, H, W) in [-1, 1]. Every data set has `len`, `load(index, rng)`,
`name(index)` and `pictures(skip_bad)`, the real pictures as scores see them, uint8 (n, H, W, 3).
`lists` says which files belong to a set.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lists import check_folder, check_readable, readable_sizes, refuse
from shared_metrics.class_folders import check_level
from shared_metrics.data_check import why_empty
from shared_metrics.errors import UserError
from shared_metrics.file_list import FileList
from shared_metrics.files import open_regular
from shared_metrics.images import list_images, read_rgb, stacks, sub_folders

IDX_LIMIT = 2**30  # bytes that a file of digits may unpack to


# --- Pictures -> arrays


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes a square: resized to `load` x `load` (bicubic), cut to `crop` x `crop`,
    perhaps mirrored.

    crop_type: "random" or "center"; flip: mirror left-right with probability 1/2; multiple: what
    the network needs of its pictures' sides.
    Raises: UserError when the cut is larger than the picture, or its side is no such multiple.
    """

    load: int = 286
    crop: int = 256
    crop_type: str = "random"
    flip: bool = True
    multiple: int = 1

    def __post_init__(self):
        if self.crop > self.load:
            raise UserError(
                f"--crop_size {self.crop}: larger than --image_size {self.load}, to which pictures "
                "are resized before the cut; give a smaller one"
            )
        if self.crop % self.multiple:
            raise UserError(
                f"--crop_size {self.crop}: this --net_G needs sides that {self.multiple} divides"
            )

    @classmethod
    def plain(cls, size, multiple=1):
        """Resizing alone, as for tests."""
        return cls(load=size, crop=size, crop_type="center", flip=False, multiple=multiple)

    def draw(self, rng):
        """A random place: (left, top, whether to mirror). Both ends of the range can be drawn."""
        spare = self.load - self.crop
        if self.crop_type == "random":
            left = int(rng.integers(spare + 1))
            top = int(rng.integers(spare + 1))
        else:
            left = spare // 2
            top = spare // 2
        return left, top, self.flip and rng.random() < 0.5

    def apply(self, image, place):
        """PIL image -> PIL image of crop x crop at a place that `draw` gave."""
        left, top, mirror = place
        image = image.resize((self.load, self.load), Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else image


def to_array(image, channels=3):
    """PIL RGB image -> float32 (channels, H, W) in [-1, 1]; one channel is the luminance."""
    image = image if channels == 3 else image.convert("L")
    x = np.asarray(image, np.float32).reshape(image.height, image.width, channels)
    return np.ascontiguousarray((x.transpose(2, 0, 1) / 255.0 - 0.5) / 0.5)


def rgb(images):
    """Pictures uint8 (N, H, W, 1 or 3) with three channels, as grids and scores take them."""
    return images.repeat(3, axis=3) if images.shape[3] == 1 else images


def middle(path, size):
    """The picture in a file with its short side resized to `size`, then the middle square (PIL)."""
    image = read_rgb(path, min_side=size, rotate=True)
    side = min(image.size)
    left = (image.width - side) / 2
    top = (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def middles(files, size, skip_bad=False):
    """The middle squares of the files' pictures as scores see them, see `middle`."""
    return stacks(files, lambda path: middle(path, size), skip_bad)


def squares(files, size, skip_bad=False):
    """The files' pictures as scores see them where whole pictures are resized, not cut."""

    def read(path):
        return read_rgb(path, rotate=True).resize((size, size), Image.Resampling.BICUBIC)

    return stacks(files, read, skip_bad)


# --- Data sets


class Digits:
    """Images and labels in IDX files, gzip or not, as MNIST is published: item (image, label).

    Image float32 (channels, image_size, image_size), label int64 below n_classes.
    Args: root, the folder; split, "train" or "t10k".
    Raises: UserError when a file is missing, damaged, or holds a label that is too large.
    """

    def __init__(self, root, image_size=28, channels=1, n_classes=10, split="train"):
        self.images_file = idx_file(root, f"{split}-images", 3)
        self.images = read_idx(self.images_file, 3)
        labels_file = idx_file(root, f"{split}-labels", 1)
        self.labels_file = labels_file
        self.labels = read_idx(labels_file, 1).astype(np.int64)
        if len(self.images) != len(self.labels):
            raise UserError(
                f"{labels_file}: {len(self.labels)} labels for the {len(self.images)} images of "
                f"{self.images_file.name}; they are not of one set"
            )
        if self.labels.max() >= n_classes:
            where = int((self.labels >= n_classes).argmax())
            raise UserError(
                f"{labels_file}: label {self.labels[where]} at position {where}, but --n_classes "
                f"{n_classes}; the labels are counted from 0"
            )
        self.classes = [str(i) for i in range(n_classes)]
        self.counts = np.bincount(self.labels, minlength=n_classes).tolist()
        self.image_size = image_size
        self.channels = channels

    def __len__(self):
        return len(self.images)

    def name(self, index):
        """The item's place, for messages."""
        return f"{self.images_file.name}, image {index}"

    def read(self, index):
        """PIL RGB image of image_size x image_size."""
        size = (self.image_size, self.image_size)
        image = Image.fromarray(self.images[index])
        image = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
        return image.convert("RGB")

    def load(self, index, rng):
        """(image, label)."""
        return to_array(self.read(index), self.channels), self.labels[index]

    def pictures(self, skip_bad=False):
        """The real images as scores see them."""
        return stacks(range(len(self)), self.read, skip_bad)

    def sources(self):
        """The files that the images and labels come from."""
        return [self.images_file, self.labels_file]

    def crops(self, files, skip_bad=False):
        """The pictures in other files as scores see them."""
        return middles(files, self.image_size, skip_bad)


def idx_file(root, name, dimensions):
    """The IDX file of that name, in any of the spellings in use. Raises: UserError."""
    spellings = [f"{name}-idx{dimensions}-ubyte", f"{name}.idx{dimensions}-ubyte"]
    for spelling in spellings:
        for path in (Path(root) / f"{spelling}.gz", Path(root) / spelling):
            if path.is_file():
                return path
    raise UserError(
        f"{root}: no {spellings[0]}.gz and no pictures. Get MNIST by `python download.py "
        "--dataset=mnist`, or make one sub-folder of pictures per class there"
    )


def read_idx(path, dimensions):
    """The uint8 array of an IDX file. Raises: UserError when its header or length is wrong."""
    with open_regular(path) as file:
        zipped = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if zipped else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            magic, *shape = struct.unpack(f">{1 + dimensions}I", header)
            size = math.prod(shape)
            if magic != 0x800 + dimensions or not 0 < size < IDX_LIMIT:
                raise ValueError(f"its header is {header[:4].hex()}, shape {shape}")
            data = file.read(size + 1)
        if len(data) != size:
            raise ValueError(f"it does not hold the {size} bytes that its header tells")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(
            f"{path}: no IDX file of {dimensions} dimension(s), or damaged ({error}); download it "
            "again"
        ) from None
    return np.frombuffer(data, np.uint8).reshape(shape)


class ClassFolder:
    """Pictures in one sub-folder per class, or all in one folder: item (image, label).

    Image float32 (channels, image_size, image_size), the middle square; label int64, the place of
    its folder's name among all sorted.
    Raises: UserError when the folder, a class or its pictures are missing, when pictures lie beside
        class folders, when one cannot be read (unless skip_bad).
    """

    def __init__(
        self,
        root,
        image_size,
        channels=3,
        skip_bad=False,
        flag="--data_dir",
        any_folders=False,
    ):
        root = check_folder(root, flag)
        folders = sub_folders(root)
        if not any_folders:
            check_level(root, [folder.name for folder in folders], flag)
        self.folders = [root]
        loose = [name for name in list_images(root).names() if "/" not in name]
        if folders and loose:
            raise UserError(
                f"{flag} {root}: {loose[0]} lies beside class folders such as "
                f"{folders[0].name}; move it into one of them"
            )
        lists = []
        self.classes = [folder.name for folder in folders] or [root.name]
        for folder in folders or [root]:
            files = list_images(folder)
            if not files:
                raise UserError(
                    f"{flag} {folder}: no pictures{why_empty(folder)}. Add some or remove the "
                    "folder"
                )
            lists.append(files)
        self.files = FileList.joined(lists)
        self.counts = [len(files) for files in lists]
        self.labels = np.repeat(np.arange(len(lists), dtype=np.int64), self.counts)
        check_readable(self.files, f"{flag} {root}", skip_bad)
        self.image_size = image_size
        self.channels = channels

    def __len__(self):
        return len(self.files)

    def name(self, index):
        """The file behind item `index`, for messages."""
        return str(self.files[index])

    def load(self, index, rng):
        """(image, label)."""
        image = middle(self.files[index], self.image_size)
        return to_array(image, self.channels), self.labels[index]

    def pictures(self, skip_bad=False):
        """The real images as scores see them."""
        return self.crops(self.files, skip_bad)

    def sources(self):
        """The files that the pictures come from."""
        return self.files

    def crops(self, files, skip_bad=False):
        """The pictures in other files as scores see them."""
        return middles(files, self.image_size, skip_bad)


class Pairs:
    """Two pictures of one thing: item (A, B), float32 (channels, crop, crop), cut alike.

    Args: files, [(A, B)], or [(AB,)] for pictures that hold A left and B right; geometry, see
        `Geometry`; direction, "AtoB", or "BtoA" to give B and want A; channels, of the given and of
        the wanted picture; where, the list or folder, for messages.
    Raises: UserError naming pairs of one file, of other proportions, or without two halves.
    """

    def __init__(self, files, geometry, direction, channels=(3, 3), where="", skip_bad=False):
        self.files = files
        self.geometry = geometry
        self.direction = direction
        self.channels = channels
        paths = dict.fromkeys(path for row in files for path in row)
        sizes = dict(readable_sizes(paths, where, skip_bad))
        check_row = check_halves if len(files[0]) == 1 else check_pair
        problems = [check_row(row, [sizes.get(path) for path in row]) for row in files]
        problems = [problem for problem in problems if problem]
        refuse(problems, where, "A and B show one thing, A|B side by side or in two files")

    def __len__(self):
        return len(self.files)

    def name(self, index):
        """The file of the given picture, for messages and for the names of results."""
        last = self.direction == "BtoA"
        return str(self.files[index][-1 if last else 0])

    def read(self, index):
        """The given and the wanted picture, PIL RGB, in their own size."""
        pictures = [read_rgb(path, rotate=True) for path in self.files[index]]
        if len(pictures) == 1:
            width, height = pictures[0].size
            left = pictures[0].crop((0, 0, width // 2, height))
            right = pictures[0].crop((width // 2, 0, width, height))
            pictures = [left, right]
        return pictures if self.direction == "AtoB" else pictures[::-1]

    def load(self, index, rng):
        """(A, B): the given and the wanted picture."""
        place = self.geometry.draw(rng)
        pictures = [self.geometry.apply(image, place) for image in self.read(index)]
        return tuple(to_array(x, c) for x, c in zip(pictures, self.channels, strict=True))

    def pictures(self, skip_bad=False):
        """The wanted pictures as scores see them, resized to the size of the cut."""
        size = (self.geometry.crop, self.geometry.crop)

        def wanted(index):
            return self.read(index)[1].resize(size, Image.Resampling.BICUBIC)

        return stacks(range(len(self)), wanted, skip_bad)

    def sources(self):
        """The files of all pairs."""
        return [path for row in self.files for path in row]

    def crops(self, files, skip_bad=False):
        """The pictures in other files as scores see them: whole, each of one thing."""
        return squares(files, self.geometry.crop, skip_bad)


def check_pair(row, sizes):
    """What is wrong with a pair of files, or None; sizes, (width, height) or None where unread."""
    a, b = row
    if a == b:
        return f"{a} is paired with itself"
    if None in sizes:
        return None
    (width_a, height_a), (width_b, height_b) = sizes
    # Of one picture in two sizes, sides are rounded to whole pixels.
    if abs(width_a * height_b - width_b * height_a) > max(*sizes[0], *sizes[1]):
        return f"{a} is {width_a}x{height_a}, but {b} {width_b}x{height_b}"
    return None


def check_halves(row, sizes):
    """What is wrong with a picture that should hold two side by side, or None."""
    if None in sizes:
        return None
    width, height = sizes[0]
    if width % 2 or width <= height:
        return f"{row[0]} is {width}x{height}, not two pictures of one size side by side"
    return None


class Unpaired:
    """Pictures of two domains: item (A, B), float32 (channels, crop, crop), each cut by itself.

    An epoch is as long as the larger domain. Item i has picture i of A (from the start again after
    the last) and, as in the authors' code, a random one of B, or with `serial` picture i too.
    Raises: UserError when both domains are the same pictures, or one cannot be read.
    """

    def __init__(self, files_a, files_b, geometry, serial=False, channels=(3, 3), skip_bad=False):
        if set(files_a) == set(files_b):
            raise UserError(f"{files_a[0].parent}: the same pictures for A and B; give two domains")
        check_readable(dict.fromkeys([*files_a, *files_b]), "A and B", skip_bad)
        self.files_a = files_a
        self.files_b = files_b
        self.geometry = geometry
        self.serial = serial
        self.channels = channels

    def __len__(self):
        return max(len(self.files_a), len(self.files_b))

    def name(self, index):
        """The file of A, for messages and for the names of results."""
        return str(self.files_a[index % len(self.files_a)])

    def load(self, index, rng):
        """(A, B)."""
        count = len(self.files_b)
        other = index % count if self.serial else int(rng.integers(count))
        files = (self.files_a[index % len(self.files_a)], self.files_b[other])
        arrays = []
        for path, channels in zip(files, self.channels, strict=True):
            image = read_rgb(path, rotate=True)
            arrays.append(to_array(self.geometry.apply(image, self.geometry.draw(rng)), channels))
        return tuple(arrays)

    def pictures(self, skip_bad=False, domain="B"):
        """The pictures of a domain as scores see them, resized to the size of the cut."""
        return self.crops(self.files_b if domain == "B" else self.files_a, skip_bad)

    def sources(self):
        """The files of both domains."""
        return [*self.files_a, *self.files_b]

    def crops(self, files, skip_bad=False):
        """The pictures in other files as scores see them."""
        return squares(files, self.geometry.crop, skip_bad)


class Pictures:
    """Pictures to translate: item (picture,), float32 (channels, H, W).

    size: side of the square that each is resized to; None keeps every picture's own size, of which
    both sides must then be multiples of `multiple`.
    Raises: UserError naming pictures that cannot be read (unless skip_bad) or are no multiples.
    """

    def __init__(self, files, size=None, channels=3, multiple=1, skip_bad=False):
        sizes = dict(readable_sizes(dict.fromkeys(files), "the pictures", skip_bad))
        if size is None:
            problems = [
                f"{path} is {width}x{height}"
                for path, (width, height) in sizes.items()
                if width % multiple or height % multiple
            ]
            advice = f"The network needs sides that {multiple} divides; give --image_size"
            refuse(problems, "the pictures", advice)
        self.files = files
        self.size = size
        self.channels = channels

    def __len__(self):
        return len(self.files)

    def name(self, index):
        """The file behind item `index`, for messages and for the names of results."""
        return str(self.files[index])

    def load(self, index, rng=None):
        """(picture,)."""
        image = read_rgb(self.files[index], rotate=True)
        if self.size:
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return (to_array(image, self.channels),)


def labelled(
    root,
    image_size=0,
    channels=0,
    n_classes=10,
    picture_size=64,
    skip_bad=False,
    flag="--data_dir",
    any_folders=False,
):
    """The digits of a folder with IDX files, else the pictures of its class folders.

    Args: image_size, channels, 0 for what suits: digits grey and of 28 px, pictures in colour and
        of `picture_size` px.
    """
    root = check_folder(root, flag)
    if any(root.glob("*idx*-ubyte*")) or not list_images(root):
        return Digits(root, image_size or 28, channels or 1, n_classes)
    size = image_size or picture_size
    return ClassFolder(root, size, channels or 3, skip_bad, flag, any_folders)


def describe(data):
    """One line on a data set for the log."""
    if isinstance(data, Unpaired):
        return f"data: {len(data.files_a):,} pictures of A, {len(data.files_b):,} of B"
    if isinstance(data, Pairs):
        halves = "halves of one file" if len(data.files[0]) == 1 else "two files"
        return f"data: {len(data):,} pairs, each {halves}, {data.direction}"
    low = min(data.counts)
    high = max(data.counts)
    size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"data: {len(data):,} images in {len(data.classes):,} classes of {size} images"
