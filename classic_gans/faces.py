"""Faces with attributes -> arrays for StarGAN, AttGAN and STGAN: CelebA's list, class folders such
as RaFD's, both together, and photos to edit.

Images are float32 (3, S, S) in [-1, 1], labels as in attributes.py.
"""

import random
from pathlib import Path

import numpy as np
from PIL import Image

from attributes import EXCLUSIVE, columns_of, groups, read_attributes, read_lines
from lists import readable
from shared_metrics.class_folders import check_level
from shared_metrics.data_check import why_empty
from shared_metrics.errors import UserError
from shared_metrics.file_list import FileList
from shared_metrics.files import no_folder
from shared_metrics.flags import CLASSES, SHEET
from shared_metrics.images import list_images, read_rgb, stacks, sub_folders

SPLITS = ("yunjey", "attgan", "pcv", "official", "all")
PARTITION = {"train": "0", "val": "1", "test": "2"}  # CelebA's list_eval_partition.txt
ATTGAN_ENDS = (182_000, 182_637)  # where AttGAN's training and validation parts end in the list
YUNJEY_TEST = 1_999
CELEBA_SIZE = (178, 218)  # width and height of CelebA's aligned pictures
LIST = "list_attr_celeba.txt"

NEEDS = {"partition": "split official"}  # see shared_metrics.needs


# --- Flags, and what they name.


# fmt: off
def add_flags(parser, selected, split, n_samples):
    """Add the flags of faces with attributes. Args: their defaults."""
    add = parser.add_argument_group("faces").add_argument
    add("--selected_attrs", default=",".join(selected), help="attributes to learn, by name")
    add("--c_dim", type=CLASSES.or_0, default=0, help="how many these are expected to be; 0: any")
    add("--exclusive_attrs", default=" ".join(",".join(group) for group in EXCLUSIVE),
        help="groups of attributes of which no face has two: A,B C,D,E; none")
    add("--split", default=split, choices=SPLITS,
        help="which faces of the list train: yunjey all but 1,999 at random; attgan the first "
             "182,000, the next 637 are left out; pcv the first 90 %%, the next 0.3 %% test; "
             "official by --partition; all")
    add("--partition", default="", help="list_eval_partition.txt (default: the data set's own)")
    add("--n_samples", type=SHEET, default=n_samples, help="faces on a sample sheet")
    add("--attribute_judge", default="",
        help="a file of `python -m shared_metrics.judges attributes`: what it sees in the edited "
             "faces of each sample sheet is logged")
# fmt: on


def data_folder(args):
    """The data set's folder, DATA_DIR/DATASET. Raises UserError where there is none."""
    root = Path(args.data_dir).expanduser() / args.dataset
    if not root.is_dir():
        raise UserError(
            f"--data_dir {args.data_dir} --dataset {args.dataset}: no folder {root}; for CelebA it "
            f"holds img_align_celeba and {LIST}"
        )
    return root


def list_of(args, part):
    """The list that the flags name for a part, or the data set's own: train.txt or test.txt, or
    CelebA's. It need not exist.
    """
    root = data_folder(args)
    file = args.test_list if part == "test" else args.train_list
    if file:
        path = Path(file).expanduser()
        return path if path.is_file() or not (root / file).is_file() else root / file
    if part == "test" and not (root / "test.txt").is_file():
        return list_of(args, "train")
    own = root / f"{part}.txt"
    return own if own.is_file() else root / LIST


def image_folder(root):
    """Where a data set's pictures lie: in CelebA's folder, in images, or in the set's own."""
    for name in ("img_align_celeba", "images"):
        if (root / name).is_dir():
            return root / name
    return root


def open_celeba(args, part, flip=False):
    """The faces of one part, "train" or "test", that the flags name, with --selected_attrs.

    A list of its own for each part counts whole; one list is divided by --split.
    Raises: UserError, also where --c_dim is another number of attributes.
    """
    root = data_folder(args)
    selected = args.selected_attrs.split(",")
    if args.c_dim not in (0, len(selected)):
        raise UserError(
            f"--c_dim {args.c_dim}: --selected_attrs names {len(selected)} attributes; leave "
            "--c_dim out, or make both agree"
        )
    # Of two files neither is divided: their authors have chosen.
    one_list = list_of(args, "train") == list_of(args, "test")
    return celeba(
        image_folder(root),
        list_of(args, part),
        selected,
        split=args.split if one_list else "all",
        part=part,
        partition=args.partition or root / "list_eval_partition.txt",
        image_size=args.image_size,
        crop_size=args.crop_size,
        flip=flip,
    )


def some(data, number, skip_bad=False):
    """Images (n, 3, S, S) and labels (n, c) of `number` faces of a set, evenly spread, or of all
    where it has fewer; without those that cannot be read where `skip_bad`.
    """
    indices = np.unique(np.linspace(0, len(data) - 1, number).astype(int))
    items = [item for _, item in readable(data, indices.tolist(), skip_bad)]
    if not items:
        raise UserError(f"none of the {len(indices)} faces of the sample sheet can be read")
    return tuple(np.stack(part) for part in zip(*items, strict=True))


def about(args, data):
    """What a checkpoint keeps of the attributes, so that none is mistaken for another: see
    editing.Editor.
    """
    return {
        "selected_attrs": list(data.names),
        "exclusive": groups(args.exclusive_attrs, data.names),
        "choices": [],
        "first": 0,
        "crop_size": args.crop_size,
    }


# --- The parts of a list.


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


def read_faces(files, crop_size, image_size, skip_bad=False):
    """The pictures in files as scores see them, see `read_face`: uint8 (n, S, S, 3) in batches."""
    return stacks(files, lambda path: read_face(path, crop_size, image_size), skip_bad)


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
        pixels, see `read_face`; flip, mirror with probability 1/2 (StarGAN's training only);
        one_hot, whether each face has exactly one of the names, its class.
    """

    def __init__(self, files, labels, names, image_size, crop_size, flip=False, one_hot=False):
        self.files = files
        self.labels = labels
        self.names = names
        self.image_size = image_size
        self.crop_size = crop_size
        self.flip = flip
        self.one_hot = one_hot

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
        return self.crops(self.files, skip_bad)

    def sources(self):
        """The files that the pictures come from."""
        return self.files

    def crops(self, files, skip_bad=False):
        """The pictures in other files as scores see them."""
        return read_faces(files, self.crop_size, self.image_size, skip_bad)


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


def class_folders(root, image_size, crop_size, flip=False, any_folders=False):
    """Faces in one sub-folder per class (RaFD's eight expressions): the label is one-hot.

    Args: any_folders, see `shared_metrics.class_folders.class_names`.
    Raises: UserError when there are no two classes, for instance because the folder lies one level
    too high.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: {no_folder(root)}; give the folder with a sub-folder per class")
    folders = sub_folders(root)
    if not any_folders:
        check_level(root, [folder.name for folder in folders], "--dataset")
    if len(folders) < 2:
        inner = [path for folder in folders for path in sub_folders(folder)]
        advice = f"; did you mean {folders[0]}?" if len(inner) > 1 else ""
        raise UserError(
            f"{root}: needs a sub-folder of pictures per class, at least 2, but has "
            f"{len(folders)}{advice}"
        )
    lists = []
    for folder in folders:
        pictures = list_images(folder)
        if not pictures:
            raise UserError(
                f"{folder}: no pictures in this class folder{why_empty(folder)}; add some or "
                "remove it"
            )
        lists.append(pictures)
    counts = [len(pictures) for pictures in lists]
    labels = np.repeat(np.eye(len(folders), dtype=np.float32), counts, axis=0)
    names = [folder.name for folder in folders]
    files = FileList.joined(lists)
    data = Faces(files, labels, names, image_size, crop_size, flip, one_hot=True)
    data.folders = [root]
    return data


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
            raise UserError(f"--input {path}: no pictures in this folder{why_empty(path)}")
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
