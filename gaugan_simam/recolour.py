"""Colour masks -> label maps of ids. Without --palette: list the colours that occur, as a palette
to edit.

cd gaugan_simam && python recolour.py MASKS > palette.json
python recolour.py MASKS --palette palette.json --output_dir coco_stuff/train_inst
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from shared_metrics.errors import UserError
from shared_metrics.files import read_text, writing
from shared_metrics.flags import not_negative, version_flag
from shared_metrics.images import list_images, opened
from shared_metrics.outputs import check_folder, lock_folders

LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".webp", ".avif")
MOST = 1000  # colours that a palette may hold; far more are a photo's


def parse_args(argv=None):
    """The flags as a namespace."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    version_flag(p)
    p.add_argument(
        "masks", metavar="MASKS", help="folder of colour masks, sub-folders included; PNG, not JPEG"
    )
    p.add_argument(
        "--palette",
        default="",
        metavar="JSON",
        help='file {"#rrggbb": id, ...}, an id for each colour',
    )
    p.add_argument(
        "--output_dir", default="", help="folder for the label maps, PNG under the masks' names"
    )
    p.add_argument(
        "--others",
        type=not_negative,
        metavar="ID",
        help="id of all other colours, e.g. 255; else an error",
    )
    return p.parse_args(argv)


def read_palette(path):
    """{colour 0xrrggbb: id} of a JSON file {"#rrggbb": id}. Raises: UserError naming file and
    entry.
    """
    try:
        entries = json.loads(read_text(Path(path).expanduser()))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"--palette {path}: not a readable JSON file ({error}); `python recolour.py MASKS` "
            "prints one"
        ) from None
    if not isinstance(entries, dict) or not entries:
        raise UserError(f'--palette {path}: expected {{"#rrggbb": id, ...}}, an id for each colour')
    for colour, i in entries.items():
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise UserError(f'--palette {path}: {colour!r} is no colour; write "#rrggbb"')
        if type(i) is not int or not 0 <= i < 2**16:
            raise UserError(
                f"--palette {path}: {colour} has {i!r}; give a whole number from 0 to 65535"
            )
    return {int(colour[1:], 16): i for colour, i in entries.items()}


def read_colours(path):
    """The colours 0xrrggbb of a mask, int64 (H, W); alpha does not count. Raises: UserError naming
    the file.
    """
    if path.suffix.lower() in LOSSY:
        raise UserError(
            f"{path}: {path.suffix} changes colours, such files are no masks; save them as PNG"
        )
    with opened(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.int64) @ [1 << 16, 1 << 8, 1]


def to_ids(colours, palette, path, others=None):
    """Colours (H, W) -> ids, uint8, or uint16 where there are ids above 255; `others` is that of
    unlisted colours.

    Raises: UserError naming `path` and the commonest colour that the palette {colour: id} lacks, if
        others is None.
    """
    found, place, counts = np.unique(colours, return_inverse=True, return_counts=True)
    lacking = [
        (n, c) for c, n in zip(found.tolist(), counts.tolist(), strict=True) if c not in palette
    ]
    if lacking and others is None:
        n, colour = max(lacking)
        raise UserError(
            f"{path}: colour #{colour:06x} ({n / colours.size:.1%} of the pixels) is not in the "
            "palette"
            f"{f', nor are {len(lacking) - 1} more colours' if lacking[1:] else ''}; add it, or "
            "give --others"
        )
    kind = np.uint8 if max(*palette.values(), others or 0) < 256 else np.uint16
    return np.array([palette.get(c, others) for c in found.tolist()], kind)[
        place.reshape(colours.shape)
    ]


def save_map(ids, palette, path):
    """Write ids as a PNG; those of one byte with the palette's colours, so that the map looks like
    the mask.
    """
    image = Image.fromarray(ids)
    if ids.dtype == np.uint8:
        colours = np.zeros((256, 3), np.uint8)
        for colour, i in palette.items():
            colours[i] = colour >> 16, colour >> 8 & 255, colour & 255
        image.putpalette(colours.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        image.save(temporary)


def list_colours(files):
    """The text of a palette with the colours of all masks, numbered from 0 in the order of their
    values, which no other mask changes.

    Raises: UserError at more than MOST colours: photos, or masks with blended borders.
    """
    colours = set()
    for path in tqdm(files, disable=None, leave=False, unit="mask"):
        colours.update(np.unique(read_colours(path)).tolist())
        if len(colours) > MOST:
            raise UserError(
                f"{path}: more than {MOST} colours so far; are these photos, or masks with soft "
                "borders?"
            )
    return json.dumps({f"#{colour:06x}": i for i, colour in enumerate(sorted(colours))}, indent=2)


def convert(targets, palette, others, write):
    """Read the masks of {label map: mask}, and write the maps where that is asked for."""
    for target, path in tqdm(targets.items(), disable=None, leave=False, unit="mask"):
        ids = to_ids(read_colours(path), palette, path, others)
        if write:
            save_map(ids, palette, target)


def main(argv=None):
    """Print the palette, or write the maps. Nothing that exists is replaced."""
    args = parse_args(argv)
    files = list_images(args.masks)
    if not files:
        raise UserError(f"{args.masks}: no images in this folder or below it")
    if not args.palette:
        print(list_colours(files))
        return
    if not args.output_dir:
        raise UserError("--output_dir is missing: give a folder for the label maps")
    if args.others is not None and args.others >= 2**16:
        raise UserError(f"--others {args.others}: give a whole number from 0 to 65535")
    check_folder(Path(args.output_dir).expanduser(), reads=[args.masks])
    palette, targets = read_palette(args.palette), {}
    for path in files:
        target = Path(args.output_dir).expanduser() / path.relative_to(args.masks).with_suffix(
            ".png"
        )
        if target.exists():
            raise UserError(f"{target}: exists already; give another --output_dir")
        if target in targets:
            raise UserError(f"{path}: {targets[target].name} bears the same name; keep one of them")
        targets[target] = path
    convert(targets, palette, args.others, write=False)  # all are read before the first is written
    with lock_folders({"--output_dir": Path(args.output_dir).expanduser()}):
        convert(targets, palette, args.others, write=True)
    print(f"{len(targets)} label maps in {args.output_dir}; now: python dataset.py")


if __name__ == "__main__":
    from shared_metrics.process import command

    command(main)()
