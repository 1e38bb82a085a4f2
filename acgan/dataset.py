"""The ten classes of one AC-GAN (Odena et al., sec. 4) -> (image, label) arrays.

They are chosen among the sub-folders of a folder of class folders.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from shared_metrics.errors import UserError
from shared_metrics.images import list_images, read_rgb, stacks
from shared_metrics.process import rng as make_rng

GROUP = 10  # classes of one AC-GAN: the paper trains 100 of them for ImageNet's 1000
# Nine digits at most: int() refuses thousands of them with an error of its own.
RANDOM = re.compile(r"random(?::([0-9]{1,9}))?")
POSITIONS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


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
        flag: the command-line flag to name in errors.
    Raises: UserError when the folder, a class or its images are missing.
    """

    def __init__(self, root, imsize, classes="auto", class_seed=0, flip=False, flag="--dataroot"):
        root = Path(root).expanduser()
        if not root.is_dir():
            raise UserError(
                f"{flag} {root}: no such folder. "
                "Give the folder that holds one sub-folder of images per class, "
                "e.g. .../imagenet/train"
            )
        names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not names:
            raise UserError(
                f"{flag} {root}: no sub-folders. "
                f"Expected {root.name}/<class>/<image>, one sub-folder per class"
            )
        where = f"{flag} {root}"
        self.class_indices = choose_classes(names, classes, seed=class_seed, where=where)
        self.class_total = len(names)
        self.classes = [names[i] for i in self.class_indices]
        self.files = []
        self.labels = []
        self.counts = []
        for label, name in enumerate(self.classes):
            files = list_images(root / name)
            if not files:
                raise UserError(
                    f"{flag} {root / name}: no images in this class folder. "
                    "Add images or choose others by --classes"
                )
            self.files += files
            self.labels += [label] * len(files)
            self.counts.append(len(files))
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
        image = middle(self.files[index], self.imsize)
        x = np.asarray(image, np.float32).transpose(2, 0, 1) / 255.0 * 2.0 - 1.0
        if self.flip and rng.random() < 0.5:
            x = x[:, :, ::-1]
        return np.ascontiguousarray(x), np.int64(self.labels[index])

    def pictures(self, skip_bad=False):
        """The images as scores see them: see `center_crops`."""
        return center_crops(self.files, self.imsize, skip_bad)


def choose_classes(names, text, seed=0, where="--dataroot"):
    """Positions, ascending, of the classes that --classes picks among all class names.

    Args:
        names: all class names, sorted.
        text: a list of names, or one of
            auto: all when there are at most ten, else the published group 10-20, or 0-10 when there
                are fewer than 20;
            10-20: positions from 10 up to but not including 20, as the reference codes slice;
            3,17,40-45: several; random, random:N: ten or N of them, drawn with `seed`;
            names with commas between them; where every part is the name of a folder, it is never
                read as a number.
        where: the flag and folder they come from, for messages.
    Raises: UserError naming --classes and what there is, when a class does not exist, is named
        twice, or none is left.
    """
    by_name_only = not isinstance(text, str)
    parts = text if by_name_only else [part.strip() for part in text.split(",")]
    text = ",".join(parts)
    total = len(names)
    there = existing(names, where)
    position = {name: i for i, name in enumerate(names)}
    if text == "auto" and not by_name_only:
        start = GROUP if total >= 2 * GROUP else 0
        return list(range(start, min(total, start + GROUP)))
    unknown = [part for part in parts if part not in position]
    if not unknown:  # names first: a folder called 10-20 is that folder
        picked = [position[part] for part in parts]
    elif (drawn := RANDOM.fullmatch(text)) and not by_name_only:
        count = int(drawn[1] or GROUP)
        if not 1 <= count <= total:
            raise UserError(f"--classes {text}: cannot draw {count} of {there}")
        picked = make_rng(seed, "classes").permutation(total)[:count].tolist()
    elif all(POSITIONS.fullmatch(part) for part in parts) and not by_name_only:
        picked = []
        for part in parts:
            picked += _positions(part, total, there)
    else:
        raise UserError(
            f"--classes {text or repr(text)}: no class folder '{unknown[0]}' among {there}"
        )
    twice = [names[i] for i, times in sorted(Counter(picked).items()) if times > 1]
    if twice:
        raise UserError(f"--classes {text}: names {', '.join(twice[:3])} more than once")
    return sorted(picked)


def _positions(part, total, there):
    """The positions of one part: 7 alone, or 10 to 19 for 10-20."""
    first, end = POSITIONS.fullmatch(part).groups()
    first = int(first)
    end = int(end) if end else first + 1
    if first >= end:
        raise UserError(
            f"--classes {part}: holds no class; "
            f"the end is not counted, so {first}-{first + 1} is one class"
        )
    if end > total:
        raise UserError(f"--classes {part}: reaches past {there}")
    return range(first, end)


def existing(names, where):
    """What there is to choose from, for messages."""
    shown = names if len(names) <= 10 else [*names[:9], "...", names[-1]]
    return f"the {len(names)} class folders of {where}, counted from 0: {', '.join(shown)}"


def group_name(indices, total):
    """The group in words.

    "all 10 classes", "classes 10-20 of 1000" (20 not counted) or "classes 3, 17, 40 of 1000".
    """
    if len(indices) == total:
        return f"all {total} classes"
    if indices[-1] - indices[0] == len(indices) - 1:
        return f"classes {indices[0]}-{indices[-1] + 1} of {total}"
    return f"classes {', '.join(map(str, indices))} of {total}"


def middle(path, imsize):
    """The picture in a file with its short side resized to imsize, then the middle square.

    A PIL image; bilinear, as the reference codes resize.
    """
    image = read_rgb(path, min_side=imsize, rotate=True)
    short = min(image.size)
    box = []
    for side in image.size:
        # Rounded as torchvision's Resize (down) and CenterCrop do.
        resized = imsize * side // short
        start = round((resized - imsize) / 2)
        box.append((start * side / resized, (start + imsize) * side / resized))
    (left, right), (top, bottom) = box
    # Resampling only what is kept gives the pixels of resizing all of it, and a very long picture
    # costs no more.
    return image.resize((imsize, imsize), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def center_crops(files, imsize, skip_bad=False):
    """Batches of uint8 (n, imsize, imsize, 3): the files' pictures as in training, not flipped.

    skip_bad leaves out those that cannot be read.
    Raises: UserError naming such a file otherwise.
    """
    return stacks(files, lambda path: middle(path, imsize), skip_bad)


def make_dataset(args):
    """The data set that the flags of train.py name. Raises UserError with the flag at fault."""
    if not args.data_path:
        raise UserError(
            "--dataroot is missing. Give the folder that holds one sub-folder of images per class"
        )
    data = ClassFolder(
        args.data_path,
        args.imsize,
        classes=args.classes,
        class_seed=args.class_seed,
        flip=args.flip,
    )
    if args.num_classes and args.num_classes != len(data.classes):
        group = group_name(data.class_indices, data.class_total)
        raise UserError(
            f"--num_classes {args.num_classes}: --classes {args.classes} chooses "
            f"{len(data.classes)} ({group}); leave --num_classes out or change --classes"
        )
    return data


def describe(data):
    """One line on a data set for the log: images, the group, its classes and their sizes."""
    low = min(data.counts)
    high = max(data.counts)
    names = ", ".join(data.classes[:10]) + (", ..." if len(data.classes) > 10 else "")
    size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    group = group_name(data.class_indices, data.class_total)
    return f"data: {len(data):,} images of {group}, {size} each ({names})"
