"""Photos with label maps -> arrays for GauGAN.   Check a data set: python dataset.py PATH
[--label_nc N]
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shared_metrics.errors import UserError
from shared_metrics.files import shown
from shared_metrics.flags import CLASSES, version_flag
from shared_metrics.images import read_rgb, stacks
from shared_metrics.label_maps import (
    UNKNOWN,
    allowed,
    cut,
    doubts,
    few_classes,
    find_folders,
    out_of_range,
    pair,
    palette_of,
    read_ids,
    read_label,
    read_pair,
    unknown_ids,
    wrong_size,
)

PREPROCESS = ("scale_shortside_and_crop", "resize_and_crop", "scale_width_and_crop", "fixed")


class PairFolder:
    """Photos and label maps of the same name, any suffix, perhaps with instance maps; sub-folders
    are followed.

    Args:
        root: folder with train_img and train_inst (PaddleGAN's layout): the maps in train_inst give
            classes and edges. A folder train_instance beside them gives the edges; or train_label
            (NVlabs' COCO layout) the classes and train_inst the edges.
        image_dir, label_dir, instance_dir: separate folders as NVlabs' flags, instead of root; the
            last one may lack.
        split: "train", or "val" (val_* folders, else test_*).
        label_nc: number of classes; ids are 0..label_nc-1.
        contain_dontcare_label: id label_nc stands for unknown, and 255 (where label_nc <= 255) is
            read as it.
        crop_size, height: size of the items in pixels; height None means square.
        load_size: the size before the crop, on the scale of crop_size; 0: in the published
            proportion, 286 to 256.
        preprocess: "scale_shortside_and_crop" keeps the aspect ratio, shorter side = load_size
            (photopen); "resize_and_crop" does not keep it (NVlabs: COCO, ADE20K);
            "scale_width_and_crop": width = load_size; "fixed": to crop_size x height without a crop
            (NVlabs: Cityscapes).
        flip: mirror photo and maps with probability 1/2.
        train: random crops and flips; otherwise the middle crop at crop_size, the same at every
            call.
    Raises: UserError when folders or files are missing, or a photo or map has no partner.
    """

    def __init__(
        self,
        root="",
        image_dir="",
        label_dir="",
        instance_dir="",
        split="train",
        label_nc=12,
        contain_dontcare_label=True,
        load_size=0,
        crop_size=256,
        height=None,
        preprocess="scale_shortside_and_crop",
        flip=False,
        train=True,
    ):
        self.folders = find_folders(root, image_dir, label_dir, instance_dir, split)
        self.items, problems = pair(*self.folders)
        if len(problems) == 1:
            raise UserError(problems[0])
        if problems:
            more = f"({len(problems) - 1} more such; `python dataset.py` lists all)"
            raise UserError(f"{problems[0]} {more}")
        load_size = load_size or load_size_of(crop_size)
        if load_size < crop_size and preprocess != "fixed":
            raise UserError(
                f"--load_size {load_size}: smaller than --crop_size {crop_size}; give at least as "
                "much"
            )
        self.palette = palette_of(self.items)
        self.label_nc = label_nc
        self.contain_dontcare_label = contain_dontcare_label
        self.load_size = load_size
        self.crop_size = crop_size
        self.height = height or crop_size
        self.preprocess = preprocess
        self.flip = flip
        self.train = train

    def __len__(self):
        return len(self.items)

    def name(self, index):
        """The photo behind item `index`, for messages and file names."""
        return str(self.items[index][0])

    def load(self, index, rng=None):
        """One training item.

        Args: rng, numpy Generator for the crop's place and the flip (None when not training).
        Returns: labels int64 (H, W) in 0..label_nc; instances int64 (H, W), equal to labels where
            there are no instance maps; photo float32 (3, H, W) in [-1, 1].
        Raises: UserError naming the file that cannot be read, has an id out of range or another
            size than its partner.
        """
        labels, instances, photo = self._pixels(index, rng)
        photo = np.asarray(photo, np.float32).transpose(2, 0, 1) / 127.5 - 1.0
        arrays = [labels, instances, photo]
        if self.train and self.flip and rng.random() < 0.5:
            arrays = [array[..., ::-1] for array in arrays]
        return tuple(np.ascontiguousarray(array) for array in arrays)

    def pictures(self, skip_bad=False):
        """The photos as scores see them: uint8 (n, H, W, 3), resized and cropped in the middle,
        never flipped.

        skip_bad leaves out pairs that cannot be read. Raises: UserError naming the file otherwise.
        """
        middle = self.for_testing()
        return stacks(range(len(self)), lambda index: middle._pixels(index)[2], skip_bad)

    def crops(self, files, skip_bad=False):
        """The photos in other files as scores see them."""
        middle = self.for_testing()

        def resized(file):
            return middle._cut(file, read_rgb(file, rotate=True), [])[0]

        return stacks(files, resized, skip_bad)

    def sources(self):
        """The files of all pairs."""
        return [file for item in self.items for file in item if file]

    def for_testing(self):
        """The same pairs without randomness (see `train`)."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, train=False)
        return other

    def doubts(self):
        """Lines on label maps that show fewer than two classes, see `label_maps.doubts`."""
        unknown = unknown_ids(self.label_nc, self.contain_dontcare_label)
        return doubts(self.items, unknown, self.palette)

    def _read_labels(self, path):
        return read_label(path, self.label_nc, self.contain_dontcare_label, self.palette)

    def _pixels(self, index, rng=None):
        """(labels, instances, PIL photo), resized and cropped at one place."""
        photo, labels, instances = read_pair(self.items[index], self._read_labels)
        photo, maps = self._cut(self.name(index), photo, [labels, instances], rng)
        return *maps, photo

    def _cut(self, path, photo, maps, rng=None):
        """(PIL photo, maps), resized and cropped at one place."""
        width, height = self._resized(path, *photo.size)
        left = width - self.crop_size
        top = height - self.height
        left = rng.integers(left + 1) if self.train else left // 2
        top = rng.integers(top + 1) if self.train else top // 2
        window = (left, top, left + self.crop_size, top + self.height)
        return cut(photo, maps, (width, height), window)

    def _resized(self, path, width, height):
        """Width and height to which a photo of this size is resized before the crop."""
        if self.preprocess == "fixed":
            return self.crop_size, self.height
        load_width = self.load_size if self.train else self.crop_size
        load_height = round(load_width * self.height / self.crop_size)
        if self.preprocess == "resize_and_crop":
            return load_width, load_height
        if self.preprocess == "scale_shortside_and_crop":
            scale = max(load_width / width, load_height / height)
            return max(load_width, round(width * scale)), max(load_height, round(height * scale))
        scaled = round(height * self.load_size / width)
        if scaled < self.height:
            raise UserError(
                f"{path}: {width}x{height} px become {self.load_size}x{scaled} by "
                f"--preprocess_mode {self.preprocess}, lower than the crop ({self.height}); give "
                "another mode"
            )
        return self.load_size, scaled


def load_size_of(crop_size):
    """The published load_size at another crop_size: 286 for 256."""
    return round(crop_size * 286 / 256)


def make_dataset(args, arch, split="train"):
    """The data set that the flags of train.py name, with items as the networks want them.

    Args: arch, the networks' Architecture: it fixes size and classes. Raises: UserError with the
        flag at fault.
    """
    height, width = arch.size
    return PairFolder(
        args.data_path,
        args.image_dir,
        args.label_dir,
        "" if arch.no_instance else args.instance_dir,
        split=split,
        label_nc=arch.label_nc,
        contain_dontcare_label=arch.contain_dontcare_label,
        load_size=args.load_size,
        crop_size=width,
        height=height,
        preprocess=args.preprocess_mode,
        flip=args.flip,
        train=split == "train",
    )


def describe(data):
    """One line on a data set for the log: number of pairs, folders, sizes."""
    photos, labels, instances = data.folders
    edges = f", instances of {instances.name}" if instances else ""
    flip = " and flip" if data.flip else ""
    unknown = " and unknown" if data.contain_dontcare_label else ""
    return (
        f"data: {len(data):,} pairs ({photos}, labels of {labels.name}{edges}), "
        f"{data.crop_size}x{data.height} px by {data.preprocess}{flip}, "
        f"{data.label_nc} classes{unknown}"
    )


def survey(items, label_nc=0, contain_dontcare_label=True, palette=None):
    """Read every file of the pairs once.

    Args: items, as `pair` returns them; label_nc, 0 to accept every id; palette, of label maps.
    Returns: pixels and maps, Counters {id: pixels} and {id: maps it occurs in}; sizes, Counter
        {(width, height)} of the photos; problems, one line for each file at fault.
    """
    pixels = Counter()
    maps = Counter()
    sizes = Counter()
    problems = []
    for photo, label, instance in tqdm(items, disable=None, leave=False, unit="pair"):
        size = None
        try:
            size = read_rgb(photo, rotate=True).size
            sizes[size] += 1
        except UserError as error:
            problems.append(str(error))
        for file in filter(None, (label, instance)):
            try:
                ids = read_ids(file, palette if file is label else None)
            except UserError as error:
                problems.append(str(error))
                continue
            if size and ids.shape != size[::-1]:
                problems.append(wrong_size(photo, size, file, ids))
            if file is label:
                values, counts = np.unique(ids, return_counts=True)
                pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
                maps.update(values.tolist())
                if label_nc:
                    problems += _wrong_ids(file, values, label_nc, contain_dontcare_label)
    return pixels, maps, sizes, problems


def _wrong_ids(file, ids, label_nc, contain_dontcare_label):
    """A line where some of the ids in a map are out of range, in a list."""
    if contain_dontcare_label and label_nc <= 255:
        ids = ids[ids != 255]
    wrong = out_of_range(ids, label_nc, contain_dontcare_label)
    if not len(wrong):
        return []
    listed = ", ".join(map(str, wrong[:10])) + (", ..." if len(wrong) > 10 else "")
    right = allowed(label_nc, contain_dontcare_label)
    return [f"{file}: id {listed} out of range: {right}"]


def advice(pixels):
    """What to give as --label_nc for data with these ids {id: pixels}."""
    classes = {i for i in pixels if i != UNKNOWN or max(pixels) > UNKNOWN}
    line = few_classes(set(pixels), classes)
    if line:
        return line
    top = max(classes)
    unknown = "255 never occurs"
    if len(classes) < len(pixels):
        unknown = "--contain_dontcare_label, since 255 (unknown) occurs"
    return (
        f"--label_nc {top + 1} at least (largest id {top}; {top} if id {top} means unknown; the "
        f"number of classes of the whole data set if this is a part), {unknown}"
    )


def parse_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    version_flag(p)
    # fmt: off
    p.add_argument("data_path", nargs="?", default="", metavar="PATH",
                   help="folder with train_img and train_inst")
    p.add_argument("--image_dir", default="", help="instead of PATH: folder of photos")
    p.add_argument("--label_dir", default="", help="instead of PATH: folder of label maps")
    p.add_argument("--instance_dir", default="", help="besides: folder of instance maps, if any")
    p.add_argument("--label_nc", type=CLASSES.or_0, default=0,
                   help="number of classes to hold the ids against; 0: none")
    p.add_argument("--contain_dontcare_label", action=argparse.BooleanOptionalAction, default=True,
                   help="whether id label_nc, and 255, may stand for unknown")
    # fmt: on
    return p.parse_args(argv)


def main(argv=None):
    """Print what a data set holds and what is wrong with it; returns 2 when something is, else
    None.
    """
    args = parse_args(argv)
    splits = ["train"]
    if args.data_path:
        root = Path(args.data_path).expanduser()
        splits += [split for split in ("val", "test") if (root / f"{split}_img").is_dir()]
        splits += ["val"] if (root / "leftImg8bit/val").is_dir() else []
    together = Counter()
    problems = []
    palette = None  # the first split's holds for all
    for split in splits:
        named = (args.data_path, args.image_dir, args.label_dir, args.instance_dir)
        folders = find_folders(*named, split)
        items, unpaired = pair(*folders)
        palette = palette or palette_of(items)
        pixels, maps, sizes, wrong = survey(
            items, args.label_nc, args.contain_dontcare_label, palette
        )
        together += pixels
        problems += unpaired + wrong
        print(
            f"{len(items)} pairs: photos {folders[0]}, labels {folders[1]}, instances "
            f"{folders[2] or 'as labels'}"
        )
        print("sizes: " + ", ".join(f"{w}x{h} ({n})" for (w, h), n in sizes.most_common(12)))
        print(f"{'id':>6} {'pixels':>8} {'maps':>6}")
        for i in sorted(pixels):
            print(f"{i:>6} {pixels[i] / pixels.total():>8.2%} {maps[i]:>6}")
    if together:
        print(advice(together))
    print("\n".join(shown(f"problem: {line}") for line in problems) or "no problems found")
    return 2 if problems else None


if __name__ == "__main__":
    from shared_metrics.process import command

    command(main)()
