"""Label maps: one-channel files that hold the class of each pixel of a photo; where they lie, which
photo is whose, their ids as they are.
"""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from shared_metrics.data_check import why_empty
from shared_metrics.errors import UserError
from shared_metrics.files import no_folder
from shared_metrics.images import SUFFIXES, list_images, opened, read_rgb

# What Cityscapes adds to the name that photo, labels and instances have in common, that name, and
# the files of a folder that are each.
CITYSCAPES = re.compile(r"_(leftImg8bit|gt(Fine|Coarse)_[A-Za-z]+)$")
FRAME = re.compile(r"[^_]+_\d{6}_\d{6}")  # city_sequence_frame
ENDINGS = {"photo": "_leftImg8bit", "label": "_labelIds", "instance": "_instanceIds"}
GRAY_STEPS = {"L;2": 85, "L;4": 17}  # Pillow stretches 2- and 4-bit grey to 0..255
UNKNOWN = 255  # in files, where it is no class
LOOKED_AT = 32  # maps, at the start: what is common to all is told then


def find_folders(
    root="", image_dir="", label_dir="", instance_dir="", split="train", flag="--data_path"
):
    """The folders of photos, label maps and instance maps (None where there are none), as Paths.

    Args:
        root: folder with {split}_img and {split}_inst (PaddleGAN's layout): the maps in the latter
            give classes and edges. A folder {split}_instance beside them gives the edges; or
            {split}_label (NVlabs' COCO layout) the classes and {split}_inst the edges. Or
            Cityscapes as downloaded, leftImg8bit and gtFine.
        image_dir, label_dir, instance_dir: separate folders as NVlabs' flags, instead of root; the
            last one may lack.
        split: "train", or "val" (val_* folders, else test_*).
        flag: what the command calls root.
    Raises: UserError naming the flag and folder that is missing.
    """
    flags = {"--image_dir": image_dir, "--label_dir": label_dir, "--instance_dir": instance_dir}
    if not root:
        if not image_dir or not label_dir:
            raise UserError(
                f"{flag} is missing. Give a folder with train_img and train_inst, or "
                "--image_dir and --label_dir"
            )
        for flag, folder in flags.items():
            if folder and not Path(folder).expanduser().is_dir():
                raise UserError(f"{flag} {folder}: {no_folder(folder)}")
        return tuple(Path(folder).expanduser() if folder else None for folder in flags.values())
    if any(flags.values()):
        raise UserError(
            f"{flag} and --image_dir, --label_dir or --instance_dir: give either the one or "
            "the others"
        )
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{flag} {root}: {no_folder(root)}. Give the folder that holds train_img and train_inst"
        )
    photos = root / "leftImg8bit" / split
    maps = root / "gtFine" / split
    if photos.is_dir() and maps.is_dir():
        return photos, maps, maps
    if split == "val" and not (root / "val_img").is_dir() and (root / "test_img").is_dir():
        split = "test"
    photos = root / f"{split}_img"
    maps = root / f"{split}_inst"
    labels = root / f"{split}_label"
    instances = root / f"{split}_instance"
    for folder in (photos, maps):
        if not folder.is_dir() and not (folder == maps and labels.is_dir()):
            raise UserError(
                f"{flag} {root}: no folder {folder.name} in it. Expected {photos.name} with "
                f"photos and {maps.name} with label maps of the same names"
            )
    if not labels.is_dir():
        return photos, maps, instances if instances.is_dir() else None
    return photos, labels, next((folder for folder in (instances, maps) if folder.is_dir()), None)


def has_test_pairs(root):
    """Whether `find_folders` finds pairs to test with in a folder."""
    folders = ("val_img", "test_img", "leftImg8bit/val")
    return any((Path(root).expanduser() / folder).is_dir() for folder in folders)


def pair(image_dir, label_dir, instance_dir=None):
    """Match the files of the folders by their path without suffix; those of Cityscapes by
    city_sequence_frame, wherever they lie.

    Returns: list of (photo, label map, instance map or None) sorted by name, and a list of
        problems, one line each.
    Raises: UserError when a folder holds no images at all.
    """
    problems = []
    photos = _by_stem(image_dir, "photo", problems)
    labels = _by_stem(label_dir, "label", problems)
    instances = _by_stem(instance_dir, "instance", problems) if instance_dir else {}
    stems = photos.keys() & labels.keys()
    problems += _unpaired(photos, image_dir, labels, label_dir, "label")
    if instance_dir:
        stems &= instances.keys()
        problems += _unpaired(photos, image_dir, instances, instance_dir, "instance")
    return [(photos[stem], labels[stem], instances.get(stem)) for stem in sorted(stems)], problems


def _by_stem(folder, what, problems):
    """{what a photo and its maps share: file} of the images in a folder that are of a kind, of
    ENDINGS; `problems` gains those of one name.
    """
    files = {}
    paths = list_images(folder)
    # Labels, instances and colours of Cityscapes lie side by side.
    own = [path for path in paths if path.stem.endswith(ENDINGS[what])]
    for path in own or paths:
        name = CITYSCAPES.sub("", path.stem)
        stem = path.relative_to(folder).with_name(name).as_posix()
        first = files.setdefault(name if FRAME.fullmatch(name) else stem, path)
        if first != path:
            problems.append(f"{path}: {first.name} bears the same name; keep one of them")
    if not files:
        raise UserError(
            f"{folder}: no images in this folder ({', '.join(sorted(SUFFIXES)[:6])}, ...)"
            f"{why_empty(folder)}"
        )
    return files


def _unpaired(photos, image_dir, maps, map_dir, what):
    """One line for each photo without a map and each map without a photo."""
    no_map = [
        f"{photos[stem]}: no {what} map {map_dir / stem}.png; add it or remove the photo"
        for stem in sorted(photos.keys() - maps.keys())
    ]
    no_photo = [
        f"{maps[stem]}: no photo {image_dir / stem}.*; add it or remove the map"
        for stem in sorted(maps.keys() - photos.keys())
    ]
    return no_map + no_photo


def read_ids(path, palette=None):
    """The ids in a map: int64 (H, W). One channel of 1 to 32 bits; of a palette the indices, not
    the colours.

    Args: palette, of `palette_of`, with which the map's own must agree.
    Raises: UserError naming the file when it is no such picture, is a JPEG (lossy), cannot be read
        whole, or has another colour for an id that occurs.
    """
    ids, colours = _read(path)
    if palette is not None and colours is not None:
        _check_palette(path, ids, colours, *palette)
    return ids


def _read(path):
    """(ids, colours uint8 (K, 3) of the palette or None) of a map."""
    with opened(path, "map") as image:
        mode = image.mode
        kind = image.format
        raw = image.tile[0][3] if image.tile else None
        ids = np.asarray(image)
        colours = np.reshape(image.getpalette(), (-1, 3)) if mode == "P" else None
    if kind in ("JPEG", "MPO"):
        raise UserError(f"{path}: a JPEG is no map, its compression changes ids; save maps as PNG")
    if mode not in ("1", "L", "P", "I") and not mode.startswith("I;16"):
        raise UserError(
            f"{path}: a map of mode {mode}, but ids need one whole number a pixel. `python "
            "recolour.py` (in gaugan_simam) turns colours into ids"
        )
    step = GRAY_STEPS.get(raw if isinstance(raw, str) else raw[0] if raw else None, 1)
    return ids.astype(np.int64) // step, colours


def palette_of(items):
    """(file, colours) of the first label map with a palette among LOOKED_AT of them, None where
    none has one: what an id means must not change from file to file.
    """
    for index in looked_at(items):
        file = items[index][1]
        with suppress(UserError):
            _, colours = _read(file)
            if colours is not None:
                return file, colours
    return None


def _check_palette(path, ids, colours, first, theirs):
    """Raise UserError where an id that occurs has another colour than in the file `first`."""
    used = np.unique(ids)
    used = used[used < min(len(colours), len(theirs))]
    for i in used[(colours[used] != theirs[used]).any(1)]:
        ours, other = ("#{:02x}{:02x}{:02x}".format(*table[i]) for table in (colours, theirs))
        raise UserError(
            f"{path}: id {i} is {ours} in its palette, but {other} in {first}'s, so that it may "
            "mean another class. `python recolour.py` (in gaugan_simam) numbers all maps alike; "
            "where the numbers are right, save the maps as grey"
        )


def looked_at(items):
    """Positions of LOOKED_AT of the items at the most, evenly spread."""
    return np.linspace(0, len(items) - 1, min(len(items), LOOKED_AT)).astype(int)


def read_pair(item, read_labels):
    """(photo, a PIL image; labels; instances, equal to the labels where there are none), of an item
    of `pair`. The photo is turned as its EXIF orientation says, as it was when it was labelled;
    without one it is black.

    Args: read_labels, function of a file -> ids (H, W).
    Raises: UserError naming the file that cannot be read or has another size than the photo.
    """
    photo_file, label_file, instance_file = item
    labels = read_labels(label_file)
    instances = read_ids(instance_file) if instance_file else labels
    if not photo_file:
        return Image.new("RGB", labels.shape[::-1]), labels, instances
    photo = read_rgb(photo_file, rotate=True)
    for file, ids in ((label_file, labels), (instance_file, instances)):
        if file and ids.shape[::-1] != photo.size:
            raise UserError(wrong_size(photo_file, photo.size, file, ids))
    return photo, labels, instances


def cut(photo, maps, size, window):
    """A window out of a photo and its maps, as if these were resized first, bicubic and nearest.
    Only what is kept is resampled, so that a very long photo costs nothing.

    Args: maps, ids (H, W) each; size, (width, height) to which they would be resized; window,
        (left, top, right, bottom) in that.
    Returns: PIL image; list of ids.
    """
    left, top, right, bottom = window
    scale = [own / resized for own, resized in zip(photo.size, size, strict=True)]
    box = [edge * scale[i % 2] for i, edge in enumerate(window)]
    box[2:] = [min(edge, own) for edge, own in zip(box[2:], photo.size, strict=True)]
    kept = (right - left, bottom - top)
    photo = photo.resize(kept, Image.Resampling.BICUBIC, box=box)
    return photo, [resize_ids(ids, *size, window) for ids in maps]


def read_label(path, label_nc, contain_dontcare_label=True, palette=None):
    """The classes in a label map: int64 (H, W) in 0..label_nc-1, or label_nc where unknown.

    Args: contain_dontcare_label, whether unknown pixels may occur: id label_nc, and 255 where
        label_nc <= 255; palette as in `read_ids`.
    Raises: UserError as `read_ids`, and naming the file and the first id out of range.
    """
    labels = read_ids(path, palette)
    if contain_dontcare_label and label_nc <= 255:
        labels[labels == 255] = label_nc
    wrong = out_of_range(np.unique(labels), label_nc, contain_dontcare_label)
    if len(wrong):
        count = np.isin(labels, wrong).sum() / labels.size
        raise UserError(
            f"{path}: id {wrong[0]} is out of range ({count:.1%} of the pixels are): "
            f"{allowed(label_nc, contain_dontcare_label)}. Repair the map, or train with a larger "
            "label_nc; `python dataset.py` (in gaugan_simam) lists all ids"
        )
    return labels


def few_classes(ids, classes):
    """What to say of maps that show fewer than two classes, so that nothing is learnt or measured
    of them; "" where they show more.

    Args: ids, the set of those in the files; classes, the set of classes that these stand for.
    """
    if ids == {0, UNKNOWN}:
        return (
            "only 0 and 255 occur: a black-and-white mask. 255 would mean unknown; save the second "
            "class as 1"
        )
    if not classes:
        return f"no class occurs, only {', '.join(map(str, sorted(ids)))} (unknown)"
    return f"only class {min(classes)} occurs" if len(classes) == 1 else ""


def unknown_ids(label_nc, contain_dontcare_label):
    """The set of ids that stand for unknown in files."""
    if not contain_dontcare_label:
        return set()
    return {label_nc, UNKNOWN} if label_nc <= UNKNOWN else {label_nc}


def doubts(items, unknown, palette=None):
    """What to say at the start of the label maps of a data set: lines, none where all is well.

    Reads LOOKED_AT of them, evenly spread; one that cannot be read is left to who trains on it.
    Args: items, as `pair` returns them; unknown, the set of ids that are no class; palette as in
        `read_ids`.
    Raises: UserError naming the first whose palette differs.
    """
    ids = set()
    chosen = looked_at(items)
    for index in chosen:
        file = items[index][1]
        try:
            own, colours = _read(file)
        except UserError:
            continue
        ids.update(np.unique(own).tolist())
        if palette is not None and colours is not None:
            _check_palette(file, own, colours, *palette)
    line = few_classes(ids, ids - unknown) if ids else ""
    folder = items[0][1].parent
    return [f"{folder}: in {len(chosen)} of {len(items)} label maps {line}"] if line else []


def out_of_range(ids, label_nc, contain_dontcare_label):
    """Those of the ids that are no class and, after 255 has become label_nc, not unknown either."""
    return ids[(ids < 0) | (ids >= label_nc + bool(contain_dontcare_label))]


def allowed(label_nc, contain_dontcare_label):
    """The ids that may occur, for messages."""
    unknown = (
        f" and {label_nc}{' or 255' if label_nc <= 255 else ''} for unknown"
        if contain_dontcare_label
        else ""
    )
    return f"label_nc {label_nc} allows 0 to {label_nc - 1}{unknown}"


def wrong_size(photo, size, file, ids):
    """The message on a map whose shape is not its photo's `size`, (width, height)."""
    turned = " (photos are turned as their EXIF orientation says)" if ids.shape == size else ""
    return (
        f"{file}: {ids.shape[1]}x{ids.shape[0]} px, but its photo {photo} has {size[0]}x{size[1]}"
        f"{turned}; make both of one size"
    )


def resize_ids(ids, width, height, window=None):
    """Ids int64 (H, W) -> (height, width), nearest neighbour: no id is made up.

    Args: window, (left, top, right, bottom) in that: what is cut out of it.
    """
    left, top, right, bottom = window or (0, 0, width, height)
    rows = (2 * np.arange(top, bottom) + 1) * ids.shape[0] // (2 * height)
    columns = (2 * np.arange(left, right) + 1) * ids.shape[1] // (2 * width)
    return ids[rows[:, None], columns]
