"""Images in class folders -> (image, label) arrays for SAGAN."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from shared_metrics import weights
from shared_metrics.class_folders import class_files, class_names
from shared_metrics.errors import UserError
from shared_metrics.images import read_rgb, stacks

CROPS = ("center", "random", "squash", "none")


class ClassFolder:
    """Images in one sub-folder per class; the classes are the sorted names of the sub-folders.

    Args:
        root: folder with one sub-folder of images per class, any image type and mode.
        imsize: side of the square images in pixels.
        crop: how an image becomes square. "center" or "random": a square as wide as the short edge,
            from the middle or from a random place, then bilinear resize. "squash": resize without
            cropping (changes the aspect ratio). "none": images must already be imsize x imsize.
        zoom: side of the square as a share of the short edge; below 1, "center" cuts closer.
        flip: mirror left-right with probability 1/2.
        normalize: pixels to [-1, 1], as G's tanh draws them; otherwise to [0, 1].
        flag: the command-line flag to name in errors; any_folders: see `class_names`.
    Raises: UserError when the folder, its classes or their images are missing.
    """

    def __init__(
        self,
        root,
        imsize,
        crop="center",
        zoom=1.0,
        flip=False,
        normalize=True,
        flag="--data_path",
        any_folders=False,
    ):
        self.classes = class_names(root, flag, any_folders)
        self.folders = [Path(root).expanduser()]
        self.files, self.labels = class_files(root, self.classes, flag)
        self.counts = np.bincount(self.labels).tolist()
        self.imsize = imsize
        self.crop = crop
        self.zoom = zoom
        self.flip = flip
        self.normalize = normalize

    def __len__(self):
        return len(self.files)

    def name(self, index):
        """The file behind item `index`, for messages."""
        return str(self.files[index])

    def load(self, index, rng):
        """Image float32 (3, imsize, imsize) in [-1, 1] and its label int64.

        Raises: UserError naming a bad file.
        """
        image = square(self.files[index], self.imsize, self.crop, rng=rng, zoom=self.zoom)
        return to_array(image, rng, self.flip, self.normalize), self.labels[index]

    def sources(self):
        """The files that the images come from."""
        return self.files

    def pictures(self, skip_bad=False):
        """The images as scores see them: see `center_crops`."""
        return self.crops(self.files, skip_bad)

    def crops(self, files, skip_bad=False):
        """The images in other files as scores see them."""
        return center_crops(files, self.imsize, skip_bad)


def read_batch(path):
    """(images (N, 3, 32, 32) uint8, labels (N,) int64) of one of CIFAR-10's batches. Raises:
    UserError naming a file that is none.
    """
    data = weights.load(path)
    images, labels = (
        data.get(key) if isinstance(data, dict) else None for key in (b"data", b"labels")
    )
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.shape[1:] != (3072,)
    ):
        raise UserError(f"{path}: holds no pictures of CIFAR-10; download its archive again")
    if not isinstance(labels, list) or {type(label) for label in labels} != {int}:
        raise UserError(f"{path}: holds no labels of CIFAR-10; download its archive again")
    if len(labels) != len(images) or min(labels) < 0:
        raise UserError(f"{path}: its labels are not those of its pictures; download it again")
    return images.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def read_names(path, most):
    """The names of CIFAR-10's classes, the numbers up to `most`. Raises: UserError."""
    data = weights.load(path)
    names = data.get(b"label_names") if isinstance(data, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise UserError(f"{path}: holds no names of classes; download CIFAR-10's archive again")
    if len(names) <= most:
        raise UserError(f"{path}: names {len(names)} classes, but there is a label {most}")
    return [name.decode(errors="replace") for name in names]


class Cifar10Batches:
    """The training part of CIFAR-10 as its authors publish it, images uint8 (50000, 3, 32, 32).

    Args: root, the unpacked folder `cifar-10-batches-py` or the one that holds it; the others as in
        `ClassFolder`.
    Raises: UserError for another imsize than 32 and for a file that is missing or damaged.
    """

    def __init__(self, root, imsize, flip=False, normalize=True):
        root = Path(root).expanduser()
        if (root / "cifar-10-batches-py").is_dir():
            root = root / "cifar-10-batches-py"
        if imsize != 32:
            raise UserError(
                f"--imsize {imsize}: CIFAR-10's images are 32x32; use --imsize 32 or class folders"
            )
        self.root = root
        parts = [read_batch(path) for path in self.sources()]
        self.images = np.concatenate([images for images, _ in parts])
        self.labels = np.concatenate([labels for _, labels in parts])
        self.classes = read_names(root / "batches.meta", self.labels.max())
        self.counts = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        self.flip = flip
        self.normalize = normalize

    def __len__(self):
        return len(self.images)

    def name(self, index):
        """The item's number, for messages."""
        return f"CIFAR-10 training image {index}"

    def sources(self):
        """The files that the images come from."""
        return [self.root / f"data_batch_{i}" for i in range(1, 6)]

    def crops(self, files, skip_bad=False):
        """The images in other files as scores see them: see `center_crops`."""
        return center_crops(files, 32, skip_bad)

    def pictures(self, skip_bad=False):
        """The images as scores see them: batches of uint8 (n, 32, 32, 3). None is unreadable."""
        for i in range(0, len(self), 32):
            yield self.images[i : i + 32].transpose(0, 2, 3, 1)

    def load(self, index, rng):
        """Image float32 (3, 32, 32) in [-1, 1] and its label int64."""
        image = Image.fromarray(self.images[index].transpose(1, 2, 0))
        return to_array(image, rng, self.flip, self.normalize), self.labels[index]


class FakeData:
    """Noise images with uniform labels: to try out a machine's speed and memory without data."""

    def __init__(self, imsize, num_classes, length=10_000):
        self.imsize = imsize
        self.length = length
        self.classes = [str(i) for i in range(num_classes)]
        self.counts = [(length + num_classes - 1 - i) // num_classes for i in range(num_classes)]

    def __len__(self):
        return self.length

    def name(self, index):
        """The item's number, for messages."""
        return f"noise image {index}"

    def sources(self):
        """No files."""
        return []

    def crops(self, files, skip_bad=False):
        """The images in files as scores see them: see `center_crops`."""
        return center_crops(files, self.imsize, skip_bad)

    def pictures(self, skip_bad=False):
        """Raises UserError: noise has no scores."""
        raise UserError(
            "--dataset fake: noise cannot be compared with; "
            "give --real_stats or leave --eval_every out"
        )

    def load(self, index, rng):
        """Noise float32 (3, imsize, imsize) in [-1, 1] and the label index % classes, int64."""
        noise = rng.random((3, self.imsize, self.imsize), dtype=np.float32) * 2 - 1
        return noise, np.int64(index % len(self.classes))


def square(path, imsize, crop, rng=None, zoom=1.0):
    """The picture in a file as a square PIL image of `imsize` pixels.

    Args: crop and zoom, as in `ClassFolder`; rng, numpy Generator, for crop "random".
    Raises: UserError naming the file.
    """
    size = (imsize, imsize)
    # A large JPEG is decoded smaller, yet never below the size of what is cut out of it.
    min_side = None if crop == "none" else math.ceil(imsize / zoom)
    image = read_rgb(path, min_side=min_side, rotate=True)
    if crop == "none":
        if image.size != size:
            raise UserError(
                f"{path}: {image.width}x{image.height} px, "
                f"but --dont_resize needs {imsize}x{imsize}"
            )
        return image
    if crop == "squash":
        return image.resize(size, Image.Resampling.BILINEAR)
    side = max(1, round(min(image.size) * zoom))
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    if crop == "random":
        left = rng.integers(image.width - side + 1)
        top = rng.integers(image.height - side + 1)
    return image.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def center_crops(files, imsize, skip_bad=False):
    """Batches of uint8 (n, imsize, imsize, 3): the files' middle squares, resized, not flipped.

    skip_bad leaves out those that cannot be read.
    Raises: UserError naming such a file otherwise.
    """
    return stacks(files, lambda path: square(path, imsize, "center"), skip_bad)


def to_array(image, rng, flip, normalize):
    """PIL RGB image -> float32 (3, H, W); [-1, 1] when `normalize`, else [0, 1].

    With `flip` it is mirrored with probability 1/2.
    """
    x = np.asarray(image, np.float32).transpose(2, 0, 1) / 255.0
    if flip and rng.random() < 0.5:
        x = x[:, :, ::-1]
    return np.ascontiguousarray((x - 0.5) / 0.5 if normalize else x)


def make_dataset(args):
    """The data set that the flags of train.py name, checked and counted.

    Raises: UserError with the flag at fault.
    """
    if args.dataset == "fake":
        return FakeData(args.imsize, args.num_classes or 10)
    if args.dataset in ("hdf5", "lsun"):
        raise UserError(
            f"--dataset {args.dataset}: not read here. "
            "Unpack it into one folder of images per class"
        )
    if not args.data_path:
        raise UserError(
            "--data_path is missing. Give the folder that holds one sub-folder of images per class"
        )
    root = Path(args.data_path).expanduser()
    batches = (root / "data_batch_1").exists() or (root / "cifar-10-batches-py").exists()
    how = {"flip": args.flip, "normalize": not args.dont_normalize}
    if args.dataset == "cifar10" and batches:
        data = Cifar10Batches(root, args.imsize, **how)
    else:
        data = ClassFolder(
            root, args.imsize, crop=args.crop, zoom=args.zoom, any_folders=args.any_folders, **how
        )
    if args.num_classes and args.num_classes != len(data.classes):
        raise UserError(
            f"--num_classes {args.num_classes}: {root} holds {len(data.classes)}; "
            "leave the flag out to use them"
        )
    return data


def describe(data):
    """One line on a data set for the log: images, classes and the smallest and largest class."""
    low = min(data.counts)
    high = max(data.counts)
    names = ", ".join(data.classes[:10]) + (", ..." if len(data.classes) > 10 else "")
    size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"data: {len(data):,} images in {len(data.classes):,} classes of {size} images ({names})"
