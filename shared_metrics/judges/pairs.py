"""Photos with label maps of the same names, which the segmenter learns from."""

from dataclasses import dataclass

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.label_maps import (
    cut,
    doubts,
    find_folders,
    pair,
    palette_of,
    read_label,
    read_pair,
    unknown_ids,
)

PREPROCESS = ("scale_shortside_and_crop", "resize_and_crop", "scale_width_and_crop", "fixed")


@dataclass
class Pairs:
    """Photos and the class of each of their pixels, read as gaugan_simam reads them.

    Args:
        root, split: see label_maps.find_folders; "train" is cut at random places and mirrored with
            probability 1/2, "val" is cut in the middle.
        label_nc, contain_dontcare_label: see label_maps.read_label.
        crop_size: side of the items in pixels.
        load_size: the size before the crop in training; 0: 286/256 of crop_size.
        preprocess: how photos come to that size, see `_size`.
    Raises: UserError when folders or files are missing, or a photo or map has no partner.
    """

    root: str
    split: str
    label_nc: int
    contain_dontcare_label: bool = True
    crop_size: int = 256
    load_size: int = 0
    preprocess: str = PREPROCESS[0]

    def __post_init__(self):
        photos, labels, _ = find_folders(self.root, split=self.split)
        self.items, problems = pair(photos, labels)
        if problems:
            raise UserError(problems[0])
        self.palette = palette_of(self.items)
        self.load_size = self.load_size or round(self.crop_size * 286 / 256)
        if self.load_size < self.crop_size and self.preprocess != "fixed":
            raise UserError(
                f"--load_size {self.load_size}: smaller than --crop_size {self.crop_size}; give at "
                "least as much"
            )

    def __len__(self):
        return len(self.items)

    def doubts(self):
        """Lines on label maps that show fewer than two classes, see `label_maps.doubts`."""
        unknown = unknown_ids(self.label_nc, self.contain_dontcare_label)
        return doubts(self.items, unknown, self.palette)

    def _read_labels(self, path):
        return read_label(path, self.label_nc, self.contain_dontcare_label, self.palette)

    def load(self, index, rng):
        """Photo uint8 (crop_size, crop_size, 3) and its labels int64 (crop_size, crop_size) in
        0..label_nc; `rng` draws place and mirroring. Raises UserError naming a bad file.
        """
        photo_file, label_file, _ = self.items[index]
        photo, labels, _ = read_pair((photo_file, label_file, None), self._read_labels)
        width, height = self._size(photo_file, *photo.size)
        left = (width - self.crop_size) // 2
        top = (height - self.crop_size) // 2
        training = self.split == "train"
        if training:
            left = rng.integers(width - self.crop_size + 1)
            top = rng.integers(height - self.crop_size + 1)
        window = (left, top, left + self.crop_size, top + self.crop_size)
        photo, (labels,) = cut(photo, [labels], (width, height), window)
        photo = np.asarray(photo)
        if training and rng.random() < 0.5:
            return photo[:, ::-1], labels[:, ::-1]
        return photo, labels

    def _size(self, path, width, height):
        """Width and height to which a photo of this size is resized before the crop."""
        side = self.load_size if self.split == "train" else self.crop_size
        if self.preprocess == "fixed":
            return self.crop_size, self.crop_size
        if self.preprocess == "resize_and_crop":
            return side, side
        if self.preprocess == "scale_shortside_and_crop":
            scale = side / min(width, height)
            return max(side, round(width * scale)), max(side, round(height * scale))
        scaled = round(height * self.load_size / width)  # scale_width_and_crop
        if scaled < self.crop_size:
            raise UserError(
                f"{path}: {width}x{height} px become {self.load_size}x{scaled} by "
                f"--preprocess_mode {self.preprocess}, lower than the crop ({self.crop_size}); "
                "give another mode"
            )
        return self.load_size, scaled
