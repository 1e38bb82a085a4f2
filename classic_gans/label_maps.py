"""Photos with label maps and instance maps -> arrays for SPADE."""

from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb
from PIL import Image

from shared_metrics.errors import UserError
from shared_metrics.files import read_text
from shared_metrics.images import read_rgb, stacks
from shared_metrics.label_maps import (
    UNKNOWN,
    allowed,
    cut,
    doubts,
    out_of_range,
    palette_of,
    read_ids,
    read_pair,
    unknown_ids,
)

CHECKED = 32  # items that are read at start, so that a mistake common to all is told at once


def read_list(path, root, no_instance=False):
    """Read a list of PaddleCV's form, one photo a line: label map, photo and instance map, paths
    relative to `root`, separated by tabs (or by blanks, where a line has no tab).

    Args: no_instance, two columns will do.
    Returns: [(photo, label map, instance map or None)], as `shared_metrics.label_maps.pair`.
    Raises: UserError naming the line with too few columns or a file that does not exist.
    """
    try:
        lines = read_text(Path(path).expanduser()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list ({error})") from None
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        columns = [part.strip() for part in line.split("\t" if "\t" in line else None)]
        if len(columns) not in (2, 3) or (len(columns) == 2 and not no_instance):
            raise UserError(
                f"{path}: line {number} has {len(columns)} columns; expected label map, photo and "
                "instance map, separated by tabs (--no_instance: the first two)"
            )
        files = [Path(root).expanduser() / column for column in columns]
        for file in files:
            if not file.is_file():
                raise UserError(f"{path}: line {number}: {file}: no such file")
        items.append((files[1], files[0], None if no_instance else files[2]))
    if not items:
        raise UserError(f"{path}: the list is empty")
    return items


class LabelledPhotos:
    """Photos, what each of their pixels shows, and which pixels belong together.

    Args:
        items: [(photo, label map, instance map or None)], see `read_list` and
            `shared_metrics.label_maps.pair`; a photo of None is black.
        label_nc: number of classes; ids are 0 ... label_nc - 1.
        contain_dontcare_label: 255 and label_nc stand for unknown.
        zero_is_unknown: the files count classes from 1, and 0 is unknown (ADE20K).
        load_size, crop_size: (width, height) in pixels to which a photo is resized and which is cut
            out of that.
        crop_type: "random", or "center": from the middle.
        flip: mirror all three with probability 1/2.
        train: False resizes straight to crop_size, the same at every call.
    """

    def __init__(
        self,
        items,
        label_nc,
        contain_dontcare_label,
        load_size,
        crop_size,
        zero_is_unknown=False,
        crop_type="random",
        flip=False,
        train=True,
    ):
        for name, load, crop in zip(("width", "height"), load_size, crop_size, strict=True):
            if load < crop:
                raise UserError(
                    f"--load_{name} {load}: smaller than --crop_{name} {crop}; give at least as "
                    "much"
                )
        self.items = items
        self.palette = palette_of(items)
        self.label_nc = label_nc
        self.contain_dontcare_label = contain_dontcare_label
        self.zero_is_unknown = zero_is_unknown
        self.load_size = tuple(load_size) if train else tuple(crop_size)
        self.crop_size = tuple(crop_size)
        self.crop_type = crop_type
        self.flip = flip and train

    def __len__(self):
        return len(self.items)

    def name(self, index):
        """The photo (or map) behind item `index`, for messages and file names."""
        return str(self.items[index][0] or self.items[index][1])

    def check(self, skip_bad=False):
        """Read some items, evenly spread. Raises: UserError as `load`, with skip_bad only where
        none of them can be read.
        """
        good = 0
        for index in np.unique(np.linspace(0, len(self) - 1, CHECKED).astype(int)):
            try:
                self.load(int(index), np.random.default_rng(0))
                good += 1
            except UserError as error:
                if not skip_bad:
                    raise
                bad = error
        if not good:
            raise bad

    def doubts(self):
        """Lines on label maps that show fewer than two classes."""
        if self.zero_is_unknown:
            return doubts(self.items, {0, self.label_nc + 1}, self.palette)
        unknown = unknown_ids(self.label_nc, self.contain_dontcare_label)
        return doubts(self.items, unknown, self.palette)

    def load(self, index, rng=None):
        """One item; rng for the crop's place and the mirror.

        Returns: labels int64 (H, W) in 0 ... label_nc; instances int64 (H, W), equal to the labels
            where there are none; photo float32 (3, H, W) in [-1, 1].
        Raises: UserError naming a file that cannot be read, has an id out of range or another size
            than its photo.
        """
        photo, *maps = read_pair(self.items[index], self.read_labels)
        photo, maps = cut(photo, maps, self.load_size, self.window(rng))
        photo = np.asarray(photo, np.float32).transpose(2, 0, 1) / 127.5 - 1.0
        arrays = [*maps, photo]
        if self.flip and rng.random() < 0.5:
            arrays = [array[..., ::-1] for array in arrays]
        return tuple(np.ascontiguousarray(array) for array in arrays)

    def window(self, rng):
        """(left, top, right, bottom) of the crop, the same for photo and maps; the last place is
        possible.
        """
        room = [load - crop for load, crop in zip(self.load_size, self.crop_size, strict=True)]
        if self.crop_type == "random" and any(room):
            left, top = (rng.integers(r + 1) for r in room)
        else:
            left, top = (r // 2 for r in room)
        width, height = self.crop_size
        return left, top, left + width, top + height

    def pictures(self, skip_bad=False):
        """The photos as scores see them: batches of uint8 (n, H, W, 3), resized to crop_size.

        skip_bad leaves out pairs that cannot be read. Raises: UserError naming the file otherwise.
        """

        def resized(item):
            photo, _, _ = read_pair(item, self.read_labels)
            return photo.resize(self.crop_size, Image.Resampling.BICUBIC)

        return stacks(self.items, resized, skip_bad)

    def sources(self):
        """The files of all items."""
        return [file for item in self.items for file in item if file]

    def crops(self, files, skip_bad=False):
        """The photos in other files as scores see them."""

        def resized(file):
            photo = read_rgb(file, rotate=True)
            return photo.resize(self.crop_size, Image.Resampling.BICUBIC)

        return stacks(files, resized, skip_bad)

    def read_labels(self, path):
        """The classes in a label map, int64 (H, W), unknown pixels as label_nc. Raises UserError
        naming the file and an id out of range.
        """
        labels = read_ids(path, self.palette)
        if self.zero_is_unknown:
            labels = np.where(labels == 0, UNKNOWN, labels - 1)
        if self.contain_dontcare_label and self.label_nc <= UNKNOWN:
            labels[labels == UNKNOWN] = self.label_nc
        ids = np.unique(labels)
        wrong = out_of_range(ids, self.label_nc, self.contain_dontcare_label)
        if len(wrong):
            raise UserError(f"{path}: {self.advice(ids, wrong)}")
        return labels

    def advice(self, ids, wrong):
        """What to do about a map with these ids, of which some are out of range."""
        problem = (
            f"id {wrong[0]} is out of range: {allowed(self.label_nc, self.contain_dontcare_label)}"
        )
        if set(ids.tolist()) == {0, UNKNOWN}:
            return f"{problem}; a black-and-white mask: save its second class as 1"
        if set(wrong.tolist()) == {UNKNOWN}:
            return f"{problem}; if it means unknown, give --contain_dontcare_label"
        return f"{problem}; repair the map or raise --label_nc"


def colourise(labels):
    """Ids (H, W) -> uint8 (H, W, 3), of neighbouring ids colours that differ much."""
    ids = np.asarray(labels)
    hue = (ids * 0.618034) % 1.0  # the golden ratio: the next hue is never near
    value = 1.0 - 0.25 * (ids % 3)
    colours = hsv_to_rgb(np.stack([hue, np.full(ids.shape, 0.7), value], -1))
    return (255.0 * colours).round().astype(np.uint8)
