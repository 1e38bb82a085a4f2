"""The ten classes of one AC-GAN out of a folder of class folders -> (image, label) arrays (Odena et
al., sec. 4).
"""

import re
from pathlib import Path

import numpy as np

from shared_metrics.class_folders import choose, class_files, class_names, existing, refuse_others
from shared_metrics.errors import UserError
from shared_metrics.images import middle_square, stacks
from shared_metrics.process import rng as make_rng

GROUP = 10  # classes of one AC-GAN: the paper trains 100 of them for ImageNet's 1000
RANDOM = re.compile(r"random(?::([0-9]{1,9}))?")


class ClassFolder:
    """Images of some of the classes in a folder that holds one sub-folder per class.

    Labels count the chosen classes from 0 in the order of their names, however they were chosen;
    `class_indices` are their positions among all `class_total` sub-folders, sorted by name (for
    ImageNet: the standard class numbers).

    Args:
        root: folder with one sub-folder of images per class, any image type and mode, searched at
            any depth.
        imsize: side of the square images in pixels: the short side is resized to it, then the
            middle is cut out.
        classes, class_seed: which classes, see `choose_classes`. The folders of the others may be
            empty.
        flip: mirror left-right with probability 1/2; the paper and the reference codes do not.
        flag: the command-line flag to name in errors; any_folders: see `class_names`.
    Raises: UserError when the folder, a class or its images are missing.
    """

    def __init__(
        self,
        root,
        imsize,
        classes="auto",
        class_seed=0,
        flip=False,
        flag="--dataroot",
        any_folders=False,
    ):
        # Classes that are known by name are no question of the level.
        names = class_names(root, flag, any_folders or not isinstance(classes, str))
        where = f"{flag} {Path(root).expanduser()}"
        if not isinstance(classes, str):
            refuse_others(names, classes, where)
        self.class_indices = choose_classes(names, classes, class_seed, where)
        self.class_total = len(names)
        self.classes = [names[i] for i in self.class_indices]
        self.folders = [Path(root).expanduser() / name for name in self.classes]
        self.files, self.labels = class_files(root, self.classes, flag)
        self.counts = np.bincount(self.labels).tolist()
        self.imsize = imsize
        self.flip = flip

    def __len__(self):
        return len(self.files)

    def name(self, index):
        """The file behind item `index`, for messages."""
        return str(self.files[index])

    def load(self, index, rng):
        """Image float32 (3, imsize, imsize) in [-1, 1] and its label int64.

        Raises: UserError naming a bad file.
        """
        image = middle_square(self.files[index], self.imsize)
        x = np.asarray(image, np.float32).transpose(2, 0, 1) / 255.0 * 2.0 - 1.0
        if self.flip and rng.random() < 0.5:
            x = x[:, :, ::-1]
        return np.ascontiguousarray(x), self.labels[index]

    def sources(self):
        """The files that the images come from."""
        return self.files

    def pictures(self, skip_bad=False):
        """The images as scores see them: see `center_crops`."""
        return self.crops(self.files, skip_bad)

    def crops(self, files, skip_bad=False):
        """The images in other files as scores see them."""
        return center_crops(files, self.imsize, skip_bad)


def choose_classes(names, text, seed=0, where="--dataroot"):
    """Positions, ascending, of the classes that --classes picks among all class names.

    Args: names, sorted; where, the flag and folder they come from, for messages; text, a list of
            names, or one of
            auto: all when there are at most ten, else the published group 10-20, or 0-10 when there
                are fewer than 20;
            10-20: positions from 10 up to but not including 20, as the reference codes slice;
            3,17,40-45: several; random, random:N: ten or N of them, drawn with `seed`;
            names with commas between them; where every part is the name of a folder, it is never
            read as a number.
    Raises: UserError naming --classes and what there is, when a class does not exist, is named
        twice, or none is left.
    """
    if isinstance(text, str):
        text = text.strip()
    total = len(names)
    if text == "auto":
        start = GROUP if total >= 2 * GROUP else 0
        return list(range(start, min(total, start + GROUP)))
    drawn = RANDOM.fullmatch(text) if isinstance(text, str) and text not in names else None
    if drawn:
        count = int(drawn[1] or GROUP)
        if not 1 <= count <= total:
            raise UserError(f"--classes {text}: cannot draw {count} of {existing(names, where)}")
        return sorted(make_rng(seed, "classes").permutation(total)[:count].tolist())
    return choose(names, text, where)


def group_name(indices, total):
    """The group in words: "all 10 classes", "classes 10-20 of 1000" (20 not counted) or "classes 3,
    17, 40 of 1000".
    """
    if len(indices) == total:
        return f"all {total} classes"
    if indices[-1] - indices[0] == len(indices) - 1:
        return f"classes {indices[0]}-{indices[-1] + 1} of {total}"
    return f"classes {', '.join(map(str, indices))} of {total}"


def center_crops(files, imsize, skip_bad=False):
    """Batches of uint8 (n, imsize, imsize, 3): the files' pictures as in training, not flipped.

    skip_bad leaves out those that cannot be read. Raises: UserError naming such a file otherwise.
    """
    return stacks(files, lambda path: middle_square(path, imsize), skip_bad)


def make_dataset(args):
    """The data set that the flags of train.py name. Raises UserError with the flag at fault."""
    if not args.data_path:
        raise UserError(
            "--dataroot is missing. Give the folder that holds one sub-folder of images per class"
        )
    data = ClassFolder(
        args.data_path,
        args.imsize,
        args.classes,
        args.class_seed,
        args.flip,
        any_folders=args.any_folders,
    )
    if args.num_classes and args.num_classes != len(data.classes):
        raise UserError(
            f"--num_classes {args.num_classes}: --classes {args.classes} chooses "
            f"{len(data.classes)} "
            f"({group_name(data.class_indices, data.class_total)}); leave --num_classes out or "
            "change --classes"
        )
    return data


def describe(data):
    """One line on a data set for the log: images, the group, its classes, the smallest and largest
    class.
    """
    low, high = min(data.counts), max(data.counts)
    names = ", ".join(data.classes[:10]) + (", ..." if len(data.classes) > 10 else "")
    size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    group = group_name(data.class_indices, data.class_total)
    return f"data: {len(data):,} images of {group}, {size} each ({names})"
