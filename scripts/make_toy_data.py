"""Draw a small picture world to train on: coloured shapes on textured ground, or faces.

python scripts/make_toy_data.py OUT --classes 4 --count 1000 --size 32 --seed 0 [--val_count 200]
python scripts/make_toy_data.py OUT --layout coco_stuff --classes 4 --size 64    (label maps)
python scripts/make_toy_data.py OUT --layout celeba --count 1000 --size 64       (faces)

Picture i of a seed is the same whatever the count, and shows the same scene at every size. A layout
is one function that writes the files of some kind of data set from that one world.
"""

import argparse
import colorsys
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from shared_metrics.errors import UserError

SUPERSAMPLE = 4
HUES = {
    "red": 0.0,
    "orange": 0.08,
    "yellow": 0.15,
    "green": 0.36,
    "cyan": 0.5,
    "blue": 0.6,
    "purple": 0.76,
    "pink": 0.9,
}
GROUNDS = ("plain", "clouds", "stripes")
GROUND_HUES = {"plain": 0.6, "clouds": 0.33, "stripes": 0.08}  # in scenes with label maps


# --- Shapes: a filled outline, then the holes in it; points (n, 2), x to the right, y down, within
# radius 1.06.


def star(points, inner):
    """Corners that alternate between two radii, the first one on top."""
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1)


def regular(corners, radius=1.0, turn=0.0):
    angle = 2 * np.pi * np.arange(corners) / corners + turn
    return radius * np.stack([np.sin(angle), -np.cos(angle)], 1)


def heart():
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], 1) / 17


def moon():
    """A disc less a smaller one to its right, as one outline; the two circles meet at (0.55,
    +-0.835).
    """
    outer = np.linspace(np.arctan2(0.835, 0.55), 2 * np.pi - np.arctan2(0.835, 0.55), 40)
    inner_centre, inner_radius = 0.45, np.hypot(0.1, 0.835)
    start = np.arctan2(0.835, 0.1)
    inner = np.linspace(2 * np.pi - start, start, 40)
    back = np.stack([inner_centre + inner_radius * np.cos(inner), inner_radius * np.sin(inner)], 1)
    return np.concatenate([np.stack([np.cos(outer), np.sin(outer)], 1), back]) + [0.1, 0]


def half_disc():
    t = np.linspace(0, np.pi, 30)
    return np.stack([np.cos(t), np.sin(t) - 0.4], 1)


W = 1 / 3
CROSS = [
    (-W, -1),
    (W, -1),
    (W, -W),
    (1, -W),
    (1, W),
    (W, W),
    (W, 1),
    (-W, 1),
    (-W, W),
    (-1, W),
    (-1, -W),
    (-W, -W),
]
ARROW = [
    (0, -1),
    (0.8, -0.05),
    (0.33, -0.05),
    (0.33, 0.95),
    (-0.33, 0.95),
    (-0.33, -0.05),
    (-0.8, -0.05),
]
SQUARE = regular(4, turn=np.pi / 4)
SHAPES = {
    "circle": [regular(48, 0.9)],
    "square": [SQUARE],
    "triangle": [regular(3)],
    "star": [star(5, 0.42)],
    "ring": [regular(48), regular(48, 0.5)],
    "cross": [np.array(CROSS)],
    "heart": [heart()],
    "moon": [moon()],
    "arrow": [np.array(ARROW)],
    "frame": [1.05 * SQUARE, 0.6 * SQUARE],
    "bar": [np.array([(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)])],
    "half": [half_disc()],
}


# --- The world: scenes, described in numbers, and how to draw one.


@dataclass(frozen=True)
class Thing:
    """One shape; lengths in units of the picture's side, angle in degrees clockwise, colour by name
    and as RGB.
    """

    shape: str
    colour: str
    rgb: tuple
    centre: tuple
    radius: float
    angle: float

    def polygons(self):
        """Outline and holes in the picture, arrays (n, 2) of x, y in [0, 1]."""
        c, s = np.cos(np.radians(self.angle)), np.sin(np.radians(self.angle))
        return [
            self.radius * points @ [[c, s], [-s, c]] + self.centre for points in SHAPES[self.shape]
        ]


@dataclass(frozen=True)
class Scene:
    """Two-tone ground (clouds: 6x6 heights, uint8; stripes: angle in radians, period, phase) and
    the things on it.
    """

    ground: str
    tones: tuple
    heights: np.ndarray
    stripes: tuple
    things: tuple


def to_rgb(hue, saturation, value):
    return tuple(int(round(255 * v)) for v in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def draw_thing(rng, shape, colour=None, scale=1.0):
    colour = colour or list(HUES)[rng.integers(len(HUES))]
    rgb = to_rgb(
        HUES[colour] + rng.uniform(-0.02, 0.02), rng.uniform(0.75, 0.95), rng.uniform(0.88, 1.0)
    )
    radius = scale * rng.uniform(0.28, 0.4)
    centre = tuple(rng.uniform(1.06 * radius, 1 - 1.06 * radius, 2))
    return Thing(shape, colour, rgb, centre, radius, rng.uniform(-25, 25))


def draw_scene(rng, shapes):
    """A random scene with one thing of each of these shapes, all numbers from this generator."""
    hue, value = rng.uniform(), rng.uniform(0.14, 0.34)
    tones = (
        to_rgb(hue, 0.45, value),
        to_rgb(hue + rng.uniform(-0.1, 0.1), 0.35, value + rng.uniform(0.08, 0.16)),
    )
    heights = rng.integers(0, 256, (6, 6), dtype=np.uint8)
    stripes = rng.uniform(0, np.pi), rng.uniform(0.16, 0.3), rng.uniform()
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    return Scene(ground, tones, heights, stripes, tuple(draw_thing(rng, shape) for shape in shapes))


def draw_crowd(rng, names):
    """A random scene of two to four smaller things, perhaps one over another, whose hues follow
    from the classes.

    So a label map tells what the picture looks like, but for shades and the ground's pattern.
    """
    scene = draw_scene(rng, ())
    hue = GROUND_HUES[scene.ground]
    tones = tuple(
        to_rgb(hue + rng.uniform(-0.02, 0.02), 0.45, rng.uniform(*v))
        for v in ((0.18, 0.24), (0.36, 0.44))
    )
    chosen = rng.integers(len(names), size=rng.integers(2, 5))
    things = tuple(draw_thing(rng, names[k], list(HUES)[k % len(HUES)], 0.6) for k in chosen)
    return replace(scene, tones=tones, things=things)


def paint_mask(polygons, size):
    """Anti-aliased coverage of an outline less its holes, PIL "L" of size x size."""
    mask = Image.new("L", (size * SUPERSAMPLE,) * 2)
    for k, points in enumerate(polygons):
        ImageDraw.Draw(mask).polygon(
            (points * size * SUPERSAMPLE).ravel().tolist(), fill=0 if k else 255
        )
    return mask.reduce(SUPERSAMPLE)


def paint_ground(scene, size):
    low, high = (Image.new("RGB", (size, size), tone) for tone in scene.tones)
    if scene.ground == "plain":
        return low
    if scene.ground == "clouds":
        return Image.composite(
            high, low, Image.fromarray(scene.heights).resize((size, size), Image.BICUBIC)
        )
    angle, period, phase = scene.stripes
    across, along = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    for k in range(int(-0.8 / period) - 1, int(0.8 / period) + 2):
        edges = [(k + phase) * period, (k + phase + 0.5) * period]
        corners = np.array(
            [
                0.5 + across * e + along * side
                for e, side in zip(edges * 2, (-1, -1, 1, 1), strict=True)
            ]
        )
        low.paste(high, mask=paint_mask([corners[[0, 1, 3, 2]]], size))
    return low


def paint(scene, size):
    """The scene as a PIL RGB picture of size x size."""
    image = paint_ground(scene, size)
    for thing in scene.things:
        image.paste(thing.rgb, mask=paint_mask(thing.polygons(), size))
    return image


def label_names(classes):
    """The names of the label ids 0, 1, ...: the grounds, then the shapes."""
    return [*GROUNDS, *list(SHAPES)[:classes]]


def label_maps(scene, size, names):
    """Label ids and instance numbers (0 the ground, then the things as they stand), uint8 (size,
    size) each.

    A pixel belongs to the last thing that covers at least half of it.
    """
    labels = np.full((size, size), names.index(scene.ground), np.uint8)
    instances = np.zeros((size, size), np.uint8)
    for number, thing in enumerate(scene.things, 1):
        inside = np.asarray(paint_mask(thing.polygons(), size)) >= 128
        labels[inside], instances[inside] = names.index(thing.shape), number
    return labels, instances


# --- Faces: attributes drawn independently of each other, and how to draw one.
#
# Points are in units of the face's half height, x to the right, y down, its middle at (0, 0).

HAIR = {"Black_Hair": (30, 26, 32), "Blond_Hair": (228, 194, 108), "Brown_Hair": (122, 72, 34)}
FACE_ATTRIBUTES = (*HAIR, "Eyeglasses", "Smiling", "Wearing_Hat", "Mustache")
SKIN = ((250, 220, 196), (150, 98, 66))  # the lightest and the darkest
DARK = (28, 26, 30)


@dataclass(frozen=True)
class Face:
    """What a face looks like: names of its attributes, colours, and where it is in the picture (in
    units of the picture's side; tilt in degrees clockwise).
    """

    attributes: frozenset
    ground: Scene
    hair: tuple
    skin: tuple
    eyes: tuple
    clothes: tuple
    hat: tuple
    centre: tuple
    radius: float
    tilt: float


def draw_face(rng):
    """A random face, all numbers from this generator."""
    attributes = {list(HAIR)[rng.integers(len(HAIR))]}
    attributes |= {name for name in FACE_ATTRIBUTES[len(HAIR) :] if rng.random() < 0.5}
    (hair,) = attributes & HAIR.keys()
    hue, value = rng.uniform(), rng.uniform(0.45, 0.75)
    tones = (to_rgb(hue, 0.35, value), to_rgb(hue, 0.25, value + 0.15))
    shade = rng.uniform()
    return Face(
        attributes=frozenset(attributes),
        ground=replace(draw_scene(rng, ()), ground=GROUNDS[rng.integers(2)], tones=tones),
        hair=tuple(int(c + rng.integers(-8, 9)) for c in HAIR[hair]),
        skin=tuple(round(a + shade * (b - a)) for a, b in zip(*SKIN, strict=True)),
        eyes=to_rgb(rng.uniform(0.05, 0.65), 0.6, rng.uniform(0.3, 0.6)),
        clothes=to_rgb(rng.uniform(), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.8)),
        hat=to_rgb(rng.uniform(), 0.75, rng.uniform(0.5, 0.8)),
        centre=(0.5 + rng.uniform(-0.02, 0.02), 0.55 + rng.uniform(-0.02, 0.02)),
        radius=rng.uniform(0.29, 0.32),
        tilt=rng.uniform(-4, 4),
    )


def ellipse(x, y, width, height):
    """An outline of these half axes round (x, y)."""
    return regular(32) * [width, height] + [x, y]


def lens(x, width, top, bottom, bend=0.0):
    """A shape between two parabolas through (x - width, bend) and (x + width, bend), whose peaks
    are at `top` and `bottom`.
    """
    t = np.linspace(-1, 1, 17)
    upper = np.stack([x + width * t, bend + (top - bend) * (1 - t**2)], 1)
    lower = np.stack([x + width * t, bend + (bottom - bend) * (1 - t**2)], 1)
    return np.concatenate([upper, lower[::-1]])


def box(left, top, right, bottom):
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def darker(rgb, share=0.7):
    return tuple(int(share * c) for c in rgb)


def face_parts(face):
    """[(colour, [outline, hole, ...])] of all that is seen of a face, from back to front."""
    t = np.linspace(-1, 1, 25)
    crown = np.stack([0.98 * np.sin(1.4 * t), -0.1 - 1.12 * np.cos(1.4 * t)], 1)
    hairline = np.stack([0.8 * t, -0.62 + 0.4 * t**2], 1)[::-1]
    parts = [
        (face.hair, [ellipse(0, -0.1, 0.98, 1.12)]),
        (face.hair, [box(-0.98, -0.1, 0.98, 0.75)]),
        (face.clothes, [ellipse(0, 1.9, 1.5, 0.75)]),
        (darker(face.skin, 0.85), [box(-0.28, 0.6, 0.28, 1.3)]),  # neck
        (face.skin, [ellipse(-0.76, 0.0, 0.12, 0.2)]),
        (face.skin, [ellipse(0.76, 0.0, 0.12, 0.2)]),
        (face.skin, [ellipse(0, 0, 0.75, 1.0)]),
        (face.hair, [np.concatenate([crown, hairline])]),
        (darker(face.skin, 0.8), [np.array([(0, -0.05), (0.12, 0.24), (-0.12, 0.24)])]),  # nose
    ]
    return parts + eye_parts(face) + mouth_parts(face) + hat_parts(face)


def eye_parts(face):
    parts = []
    for x in (-0.33, 0.33):
        parts += [
            (darker(face.hair), [lens(x, 0.17, -0.38, -0.31, -0.3)]),  # brow
            ((245, 245, 245), [ellipse(x, -0.1, 0.16, 0.1)]),
            (face.eyes, [ellipse(x, -0.1, 0.085, 0.09)]),
            (DARK, [ellipse(x, -0.1, 0.04, 0.045)]),
        ]
    if "Eyeglasses" in face.attributes:
        parts.append((DARK, [box(-0.1, -0.15, 0.1, -0.08)]))
        for x, ear in ((-0.33, -0.78), (0.33, 0.58)):
            parts.append((DARK, [ellipse(x, -0.1, 0.29, 0.25), ellipse(x, -0.1, 0.21, 0.17)]))
            parts.append((DARK, [box(ear, -0.16, ear + 0.2, -0.09)]))
    return parts


def mouth_parts(face):
    parts = [((170, 70, 74), [lens(0, 0.24, 0.5, 0.62, 0.56)])]
    if "Smiling" in face.attributes:
        parts = [
            ((150, 40, 48), [lens(0, 0.4, 0.5, 0.78, 0.44)]),
            ((250, 250, 250), [lens(0, 0.31, 0.52, 0.68, 0.48)]),
        ]
    if "Mustache" in face.attributes:
        parts.append((darker(face.hair, 0.85), [lens(0, 0.42, 0.24, 0.42, 0.44)]))
    return parts


def hat_parts(face):
    if "Wearing_Hat" not in face.attributes:
        return []
    return [
        (face.hat, [np.array([(-0.78, -0.6), (-0.66, -1.4), (0.66, -1.4), (0.78, -0.6)])]),
        (darker(face.hat), [box(-0.78, -0.8, 0.78, -0.6)]),
        (face.hat, [ellipse(0, -0.58, 1.2, 0.13)]),
    ]


def paint_face(face, size):
    """The face as a PIL RGB picture of size x size."""
    image = paint_ground(face.ground, size)
    c, s = np.cos(np.radians(face.tilt)), np.sin(np.radians(face.tilt))
    for rgb, outlines in face_parts(face):
        placed = [face.radius * points @ [[c, s], [-s, c]] + face.centre for points in outlines]
        image.paste(rgb, mask=paint_mask(placed, size))
    return image


# --- Layouts: (folder, scenes of one split, size) -> files.


def scenes(seed, split, count, classes, crowded=False):
    """Yield (index, class index, Scene), with one thing of that class or, if crowded, as
    `draw_crowd` (index 0).

    Scene i depends on the seed, the split and i alone (and on its shape; if crowded on the number
    of classes).
    """
    names = list(SHAPES)[:classes]
    for i in range(count):
        rng = np.random.default_rng([seed, i] if split == "train" else [seed, i, 1])
        if crowded:
            yield i, 0, draw_crowd(rng, names)
        else:
            yield i, i % classes, draw_scene(rng, names[i % classes : i % classes + 1])


def faces(seed, split, count):
    """Yield (index, class index, Face), the index of its class 0; face i depends on the seed, the
    split and i alone.
    """
    for i in range(count):
        yield (
            i,
            0,
            draw_face(np.random.default_rng([seed, i] if split == "train" else [seed, i, 1])),
        )


def class_folders(folder, pictures, size):
    """<shape>/000000.png ...: one sub-folder of pictures per class (ImageFolder's layout)."""
    for i, _, scene in pictures:
        path = folder / scene.things[0].shape / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        paint(scene, size).save(path, compress_level=1)


def coco_stuff(folder, pictures, size):
    """<split>_img/000000.png ..., the label maps of the same names in <split>_inst (PaddleGAN's
    name for them), and the numbered things in <split>_instance."""
    folders = [folder.with_name(f"{folder.name}_{part}") for part in ("img", "inst", "instance")]
    for place in folders:
        place.mkdir()
    names = label_names(len(SHAPES))
    for i, _, scene in pictures:
        files = paint(scene, size), *map(Image.fromarray, label_maps(scene, size, names))
        for place, image in zip(folders, files, strict=True):
            image.save(place / f"{i:06d}.png", compress_level=1)


def celeba(folder, pictures, size):
    """CelebA's layout, beside `folder`: img_align_celeba/000001.png ..., their attributes in
    list_attr_celeba.txt, and in list_eval_partition.txt 0 for the split train, 2 (test) for val.

    A second split is numbered on from the first.
    """
    images = folder.with_name("img_align_celeba")
    images.mkdir(exist_ok=True)
    table = folder.with_name("list_attr_celeba.txt")
    partition = folder.with_name("list_eval_partition.txt")
    lines = table.read_text().splitlines()[2:] if table.is_file() else []
    parts = partition.read_text().splitlines() if partition.is_file() else []
    for _, _, face in pictures:
        name = f"{len(lines) + 1:06d}.png"
        paint_face(face, size).save(images / name, compress_level=1)
        values = [" 1" if a in face.attributes else "-1" for a in FACE_ATTRIBUTES]
        lines.append(" ".join([name, *values]))
        parts.append(f"{name} {0 if folder.name == 'train' else 2}")
    table.write_text("\n".join([str(len(lines)), " ".join(FACE_ATTRIBUTES), *lines]) + "\n")
    partition.write_text("\n".join(parts) + "\n")


LAYOUTS = {"class_folders": class_folders, "coco_stuff": coco_stuff, "celeba": celeba}


def make(out, layout="class_folders", classes=4, count=1000, val_count=0, size=32, seed=0):
    """Write one data set as OUT/train, OUT/val (where val_count > 0) and OUT/toy_data.json, what it
    was made from.

    The layout coco_stuff has OUT/train_img, OUT/train_inst and so on; toy_data.json then names the
    label ids. The layout celeba has the pictures of both splits in one folder (see `celeba`).
    OUT appears when it is complete. Where the same data already lies there, nothing is done.
    Returns: Path of OUT. Raises: UserError for numbers out of range and for an OUT that holds
        something else.
    """
    made_from = {
        "layout": layout,
        "classes": classes,
        "count": count,
        "val_count": val_count,
        "size": size,
        "seed": seed,
    }
    check(made_from)
    crowded = layout == "coco_stuff"
    if crowded:
        made_from["labels"] = label_names(classes)
    if layout == "celeba":
        made_from["attributes"] = list(FACE_ATTRIBUTES)
    out = Path(out).expanduser().absolute()
    if out.is_dir() and any(out.iterdir()):
        record = out / "toy_data.json"
        if record.is_file() and record.read_text() == to_json(made_from):
            return out
        raise UserError(
            f"{out}: holds other files or other toy data; give a new folder or delete this one"
        )
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        for split, number in (("train", count), ("val", val_count)):
            if number:
                if layout == "celeba":
                    pictures = faces(seed, split, number)
                else:
                    pictures = scenes(seed, split, number, classes, crowded)
                LAYOUTS[layout](partial / split, pictures, size)
        (partial / "toy_data.json").write_text(to_json(made_from))
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def to_json(made_from):
    return json.dumps({"format": 1, **made_from}, indent=1) + "\n"


def check(made_from):
    """Raise UserError for the first number out of range."""
    classes, val_count = made_from["classes"], made_from["val_count"]
    least = classes if made_from["layout"] == "class_folders" else 1
    bounds = {
        "classes": (1, len(SHAPES)),
        "count": (least, 10**6),
        "val_count": (least, 10**6),
        "size": (4, 2048),
    }
    if val_count == 0:
        del bounds["val_count"]
    for name, (low, high) in {**bounds, "seed": (0, 2**32 - 1)}.items():
        if not low <= made_from[name] <= high:
            raise UserError(f"--{name} {made_from[name]}: must lie between {low} and {high}")


def parse_args(argv=None):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "out",
        metavar="OUT",
        help="folder to make; it must be new, empty, or hold the very same data",
    )
    p.add_argument(
        "--layout",
        choices=sorted(LAYOUTS),
        default="class_folders",
        help="kind of data set (%(default)s)",
    )
    p.add_argument(
        "--classes",
        type=int,
        default=4,
        help=f"the first so many of {', '.join(SHAPES)} (%(default)s); faces have none",
    )
    p.add_argument("--count", type=int, default=1000, help="pictures under OUT/train (%(default)s)")
    p.add_argument(
        "--val_count",
        type=int,
        default=0,
        help="other pictures under OUT/val; 0: no such folder (%(default)s)",
    )
    p.add_argument("--size", type=int, default=32, help="side of a picture in pixels (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="fixes every picture (%(default)s)")
    return p.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    out = make(**vars(args))
    print(
        f"{out}: {args.count} + {args.val_count} pictures of {args.size} px, {args.classes} "
        f"classes, seed {args.seed}"
    )
    if args.layout == "coco_stuff":
        print(
            f"label ids: {', '.join(f'{i} {name}' for i, name in enumerate(label_names(args.classes)))}"
        )
    if args.layout == "celeba":
        print(f"attributes: {', '.join(FACE_ATTRIBUTES)}")


if __name__ == "__main__":
    from shared_metrics.process import command

    command(main)()
