"""Make the Cityscapes pairs of Pix2Pix and CycleGAN from the data set's own folders.

    python scripts/prepare_cityscapes_dataset.py --gtFine_dir=.../gtFine \\
        --leftImg8bit_dir=.../leftImg8bit --output_dir=./data/cityscapes

Writes photos as trainA/0_A.jpg ... and their coloured label maps as trainB/0_B.jpg ..., the
validation pictures as testA and testB, 256x256 JPEGs of quality 100, and the lists trainA.txt ...
Then scripts/make_pair_data.py makes Pix2Pix's lists.
"""

import argparse
import os
import shutil
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from shared_metrics.errors import UserError
from shared_metrics.flags import version_flag
from shared_metrics.images import read_rgb
from shared_metrics.process import command

SIZE = (256, 256)
SPLITS = {"train": "train", "val": "test"}  # Cityscapes' names: those of the lists here
PHOTO = "_leftImg8bit.png"
LABELS = "_gtFine_color.png"


def find(folder, split, ending, flag):
    """{name: Path} of the files <folder>/<split>/<city>/<name><ending>. Raises: UserError."""
    files = sorted(Path(folder).expanduser().glob(f"{split}/*/*{ending}"))
    if not files:
        raise UserError(f"{flag} {folder}: no files {split}/<city>/*{ending}; give their folder")
    return {path.name.removesuffix(ending): path for path in files}


def pairs(photo_dir, labels_dir, split):
    """[(photo, label map)] of a split, matched by name. Raises: UserError on a lone one."""
    photos = find(photo_dir, split, PHOTO, "--leftImg8bit_dir")
    labels = find(labels_dir, split, LABELS, "--gtFine_dir")
    lone = [photos[name] for name in photos.keys() - labels.keys()]
    lone += [labels[name] for name in labels.keys() - photos.keys()]
    if lone:
        raise UserError(f"{min(lone)}: has no partner ({len(lone)} such files in {split})")
    return [(photos[name], labels[name]) for name in photos]


def write(image, path):
    image.save(path, format="JPEG", subsampling=0, quality=100)


def prepare(files, folder, split):
    """Write the pictures and the two lists of one split below `folder`."""
    names = {"A": [], "B": []}
    for domain in names:
        (folder / f"{split}{domain}").mkdir()
    for i, (photo, labels) in enumerate(tqdm(files, desc=split, disable=None)):
        for domain in names:
            names[domain].append(f"{split}{domain}/{i}_{domain}.jpg")
        write(read_rgb(photo).resize(SIZE, Image.Resampling.BICUBIC), folder / names["A"][-1])
        # Nearest, so that no colour arises that stands for no class.
        write(read_rgb(labels).resize(SIZE, Image.Resampling.NEAREST), folder / names["B"][-1])
    for domain, lines in names.items():
        (folder / f"{split}{domain}.txt").write_text("".join(f"{line}\n" for line in lines))


def parse_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    version_flag(p)
    p.add_argument("--gtFine_dir", required=True, help="folder gtFine, with train and val in it")
    p.add_argument("--leftImg8bit_dir", required=True, help="folder leftImg8bit, likewise")
    p.add_argument("--output_dir", required=True, help="folder to make, e.g. ./data/cityscapes")
    return p.parse_args(argv)


def main(argv=None):
    """Make the folder, which appears when it is complete."""
    args = parse_args(argv)
    files = {
        name: pairs(args.leftImg8bit_dir, args.gtFine_dir, split) for split, name in SPLITS.items()
    }
    out = Path(args.output_dir).expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--output_dir {out}: is there and not empty; give another or delete it")
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    partial.mkdir(parents=True)
    try:
        for split, pictures in files.items():
            prepare(pictures, partial, split)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{out}: {len(files['train']):,} + {len(files['test']):,} pairs")


if __name__ == "__main__":
    command(main)()
