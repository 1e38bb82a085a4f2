"""Draw a small picture world to train on: coloured shapes on textured ground, figures in their own
colours on white, or faces; any number, any size.

    python scripts/make_toy_data.py OUT --layout class_folders --classes 4 --count 1000 \\
        --size 32 --seed 0 [--val_count 200]
    python scripts/make_toy_data.py OUT --layout figures --classes 6 --count 1000 \\
        --size 32                               (class folders of faces, fish, flowers, ...)
    python scripts/make_toy_data.py OUT --layout coco_stuff --classes 4 --count 1000 \\
        --size 64                                                (photos with label maps)
    python scripts/make_toy_data.py OUT --layout celeba --count 1000 --size 64         (faces)

Picture i of a seed is the same whatever the count, and shows the same scene at every size. A layout
is one kind of scene, and one function that writes the files of some kind of data set from it.
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
from shared_metrics.flags import version_flag

SUPERSAMPLE = 4  # times as large, then averaged: smooth edges
# fmt: off
HUES = {
    "red": 0.0, "orange": 0.08, "yellow": 0.15, "green": 0.36, "cyan": 0.5, "blue": 0.6,
    "purple": 0.76, "pink": 0.9,
}
# fmt: on
GROUNDS = ("plain", "clouds", "stripes")
GROUND_HUES = {"plain": 0.6, "clouds": 0.33, "stripes": 0.08}  # in scenes with label maps


# --- Shapes: a filled outline, then the holes in it.
# Points (n, 2), x to the right, y down, within radius 1.06.


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
    """A disc less a smaller one to its right, as one outline.

    The two circles meet at (0.55, +-0.835).
    """
    start = np.arctan2(0.835, 0.55)
    outer = np.linspace(start, 2 * np.pi - start, 40)
    there = np.stack([np.cos(outer), np.sin(outer)], 1)
    inner_centre = 0.45
    inner_radius = np.hypot(0.1, 0.835)
    start = np.arctan2(0.835, 0.1)
    inner = np.linspace(2 * np.pi - start, start, 40)
    back = np.stack([inner_centre + inner_radius * np.cos(inner), inner_radius * np.sin(inner)], 1)
    return np.concatenate([there, back]) + [0.1, 0]


def half_disc():
    t = np.linspace(0, np.pi, 30)
    return np.stack([np.cos(t), np.sin(t) - 0.4], 1)


W = 1 / 3
# fmt: off
CROSS = [
    (-W, -1), (W, -1), (W, -W), (1, -W), (1, W), (W, W),
    (W, 1), (-W, 1), (-W, W), (-1, W), (-1, -W), (-W, -W),
]
ARROW = [
    (0, -1), (0.8, -0.05), (0.33, -0.05), (0.33, 0.95),
    (-0.33, 0.95), (-0.33, -0.05), (-0.8, -0.05),
]
# fmt: on
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


# --- Figures: parts of one colour each, the hindmost first.


def ellipse(across, down, x=0.0, y=0.0):
    return regular(32) * [across, down] + [x, y]


def petals():
    """Five petals: the radius rises and falls five times around the middle."""
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    radius = (1 + 0.3 * np.cos(5 * t)) / 1.3
    return np.stack([radius * np.sin(t), -radius * np.cos(t)], 1)


def smile():
    """A mouth between two arcs that meet near its corners."""
    t = np.linspace(0.15 * np.pi, 0.85 * np.pi, 20)
    lower = np.stack([0.62 * np.cos(t), 0.62 * np.sin(t)], 1)
    upper = np.stack([0.42 * np.cos(t), 0.3 * np.sin(t)], 1)
    return np.concatenate([lower, upper[::-1]])


PARTS = {
    "head": [regular(48)],
    "left eye": [ellipse(0.15, 0.15, -0.36, -0.25)],
    "right eye": [ellipse(0.15, 0.15, 0.36, -0.25)],
    "mouth": [smile()],
    "tail": [np.array([(0.45, 0), (1, -0.35), (1, 0.35)])],
    "body": [ellipse(0.78, 0.5, -0.2)],
    "fish eye": [ellipse(0.1, 0.1, -0.6, -0.12)],
    "petals": [petals()],
    "middle": [ellipse(0.36, 0.36)],
    "heart": [heart()],
    "walls": [np.array([(-0.7, -0.1), (0.7, -0.1), (0.7, 0.75), (-0.7, 0.75)])],
    "roof": [np.array([(-1, -0.1), (0, -0.95), (1, -0.1)])],
    "door": [np.array([(-0.22, 0.2), (0.22, 0.2), (0.22, 0.75), (-0.22, 0.75)])],
    "trunk": [np.array([(-0.18, 0.3), (0.18, 0.3), (0.18, 1), (-0.18, 1)])],
    "needles": [np.array([(0, -1), (0.8, 0.5), (-0.8, 0.5)])],
}
DARK = (0.1, 0.6, 0.25)
FIGURES = {  # {part: its hue, saturation and value}
    "face": {"head": (0.13, 0.85, 1.0), "left eye": DARK, "right eye": DARK, "mouth": DARK},
    "fish": {"tail": (0.58, 0.75, 0.9), "body": (0.58, 0.75, 0.9), "fish eye": (0.58, 0.5, 0.1)},
    "flower": {"petals": (0.9, 0.6, 1.0), "middle": (0.14, 0.9, 1.0)},
    "heart": {"heart": (0.99, 0.85, 0.9)},
    "house": {"walls": (0.12, 0.5, 0.95), "roof": (0.03, 0.8, 0.7), "door": (0.6, 0.6, 0.4)},
    "tree": {"trunk": (0.07, 0.65, 0.5), "needles": (0.36, 0.8, 0.6)},
}


# --- The world: scenes, described in numbers, and how to draw one.


@dataclass(frozen=True)
class Thing:
    """One shape or part of a figure, its colour by name and as RGB.

    Lengths are in units of the picture's side, the angle in degrees clockwise.
    """

    shape: str
    colour: str
    rgb: tuple
    centre: tuple
    radius: float
    angle: float

    def polygons(self):
        """Outline and holes in the picture, arrays (n, 2) of x, y in [0, 1]."""
        c = np.cos(np.radians(self.angle))
        s = np.sin(np.radians(self.angle))
        turn = [[c, s], [-s, c]]
        outlines = (SHAPES | PARTS)[self.shape]
        return [self.radius * points @ turn + self.centre for points in outlines]


@dataclass(frozen=True)
class Scene:
    """Two-tone ground and the things on it, each over those before.

    heights: of the clouds, uint8 (6, 6); stripes: angle in radians, period, phase.
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
    hue = HUES[colour] + rng.uniform(-0.02, 0.02)
    rgb = to_rgb(hue, rng.uniform(0.75, 0.95), rng.uniform(0.88, 1.0))
    radius = scale * rng.uniform(0.28, 0.4)
    centre = tuple(rng.uniform(1.06 * radius, 1 - 1.06 * radius, 2))  # wholly inside the picture
    angle = rng.uniform(-25, 25)
    return Thing(shape, colour, rgb, centre=centre, radius=radius, angle=angle)


def draw_scene(rng, shapes):
    """A random scene with one thing of each of these shapes, all numbers from this generator."""
    # Whatever the ground, all numbers are drawn, so that what follows stays the same.
    hue = rng.uniform()
    value = rng.uniform(0.14, 0.34)
    low = to_rgb(hue, 0.45, value)
    high = to_rgb(hue + rng.uniform(-0.1, 0.1), 0.35, value + rng.uniform(0.08, 0.16))
    heights = rng.integers(0, 256, (6, 6), dtype=np.uint8)
    stripes = rng.uniform(0, np.pi), rng.uniform(0.16, 0.3), rng.uniform()
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    things = tuple(draw_thing(rng, shape) for shape in shapes)
    return Scene(ground, (low, high), heights=heights, stripes=stripes, things=things)


def draw_crowd(rng, names):
    """A random scene of two to four smaller things, perhaps one over another.

    Hues follow from the classes, so a label map tells what the picture looks like, but for shades
    and the ground's pattern.
    """
    scene = draw_scene(rng, ())
    hue = GROUND_HUES[scene.ground]
    tones = []
    for low, high in ((0.18, 0.24), (0.36, 0.44)):
        tones.append(to_rgb(hue + rng.uniform(-0.02, 0.02), 0.45, rng.uniform(low, high)))
    things = []
    for k in rng.integers(len(names), size=rng.integers(2, 5)):
        colour = list(HUES)[k % len(HUES)]
        things.append(draw_thing(rng, names[k], colour=colour, scale=0.6))
    return replace(scene, tones=tuple(tones), things=tuple(things))


def draw_figure(rng, name):
    """A random scene of one figure on white: place, size, turn, and a shift of all its colours."""
    radius = rng.uniform(0.34, 0.44)
    centre = tuple(rng.uniform(1.06 * radius, 1 - 1.06 * radius, 2))
    angle = rng.uniform(-20, 20)
    shift = rng.uniform(-1, 1, 3) * (0.035, 0.08, 0.08)
    parts = []
    for part, colour in FIGURES[name].items():
        hue, saturation, value = colour + shift
        rgb = to_rgb(hue, min(saturation, 1.0), min(value, 1.0))
        parts.append(Thing(part, name, rgb, centre, radius, angle))
    white = (255, 255, 255)
    return Scene("plain", (white, white), heights=None, stripes=None, things=tuple(parts))


def paint_mask(polygons, size):
    """Anti-aliased coverage of an outline less its holes, PIL "L" of size x size."""
    mask = Image.new("L", (size * SUPERSAMPLE,) * 2)
    for k, points in enumerate(polygons):
        corners = (points * size * SUPERSAMPLE).ravel().tolist()
        ImageDraw.Draw(mask).polygon(corners, fill=0 if k else 255)  # all but the first are holes
    return mask.reduce(SUPERSAMPLE)


def paint_ground(scene, size):
    low, high = (Image.new("RGB", (size, size), tone) for tone in scene.tones)
    if scene.ground == "plain":
        return low
    if scene.ground == "clouds":
        clouds = Image.fromarray(scene.heights).resize((size, size), Image.BICUBIC)
        return Image.composite(high, low, clouds)
    angle, period, phase = scene.stripes
    across = np.array([np.cos(angle), np.sin(angle)])
    along = np.array([-np.sin(angle), np.cos(angle)])
    # The picture's corners are 0.71 away from its middle, where the stripes are counted from.
    for k in range(int(-0.8 / period) - 1, int(0.8 / period) + 2):
        near = 0.5 + across * ((k + phase) * period)
        far = 0.5 + across * ((k + phase + 0.5) * period)
        corners = np.array([near - along, far - along, far + along, near + along])
        low.paste(high, mask=paint_mask([corners], size))
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
    """Label ids and instance numbers, uint8 (size, size) each.

    Instance 0 is the ground, then the things as they stand. A pixel belongs to the last thing that
    covers at least half of it.
    """
    labels = np.full((size, size), names.index(scene.ground), np.uint8)
    instances = np.zeros((size, size), np.uint8)
    for number, thing in enumerate(scene.things, 1):
        inside = np.asarray(paint_mask(thing.polygons(), size)) >= 128
        labels[inside] = names.index(thing.shape)
        instances[inside] = number
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


def class_names(layout):
    """All classes that a layout can have, in the order in which --classes counts them."""
    return list(FIGURES if layout == "figures" else SHAPES)


def scenes(seed, split, count, classes, layout="class_folders"):
    """Yield (index, class name, Scene), with one shape or figure of that class.

    For coco_stuff the scene is one of `draw_crowd`, and the name "". Scene i depends on the seed,
    the split and i alone (and on its class; of coco_stuff on the number of classes).
    """
    names = class_names(layout)[:classes]
    for i in range(count):
        rng = np.random.default_rng([seed, i] if split == "train" else [seed, i, 1])
        name = names[i % classes]
        if layout == "coco_stuff":
            yield i, "", draw_crowd(rng, names)
        elif layout == "figures":
            yield i, name, draw_figure(rng, name)
        else:
            yield i, name, draw_scene(rng, [name])


def faces(seed, split, count):
    """Yield (index, class name, Face); face i depends on the seed, the split and i alone."""
    for i in range(count):
        rng = np.random.default_rng([seed, i] if split == "train" else [seed, i, 1])
        yield i, "", draw_face(rng)


def class_folders(folder, pictures, size):
    """<class>/000000.png ...: one sub-folder of pictures per class (ImageFolder's layout)."""
    for i, name, scene in pictures:
        path = folder / name / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        paint(scene, size).save(path, compress_level=1)


def coco_stuff(folder, pictures, size):
    """<split>_img/000000.png ..., and maps of the same names in two folders beside it.

    The label maps are in <split>_inst (PaddleGAN's name for them), the numbered things in
    <split>_instance.
    """
    folders = [folder.with_name(f"{folder.name}_{part}") for part in ("img", "inst", "instance")]
    for place in folders:
        place.mkdir()
    names = label_names(len(SHAPES))
    for i, _, scene in pictures:
        labels, instances = label_maps(scene, size, names)
        images = paint(scene, size), Image.fromarray(labels), Image.fromarray(instances)
        for place, image in zip(folders, images, strict=True):
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


LAYOUTS = {
    "class_folders": class_folders,
    "figures": class_folders,
    "coco_stuff": coco_stuff,
    "celeba": celeba,
}


def make(out, layout="class_folders", classes=4, count=1000, val_count=0, size=32, seed=0):
    """Write one data set as OUT/train, OUT/val (where val_count > 0) and OUT/toy_data.json.

    The latter tells what it was made from. The layout coco_stuff has OUT/train_img, OUT/train_inst
    and so on; toy_data.json then names the label ids. The layout celeba has the pictures of both
    splits in one folder (see `celeba`). OUT appears when it is complete. Where the same data
    already lies there, nothing is written.
    Returns: Path of OUT.
    Raises: UserError for numbers out of range and for an OUT that holds something else.
    """
    made_from = {"layout": layout, "classes": classes, "count": count, "val_count": val_count}
    made_from |= {"size": size, "seed": seed}
    check(made_from)
    if layout == "coco_stuff":
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
                    pictures = scenes(seed, split, number, classes=classes, layout=layout)
                LAYOUTS[layout](partial / split, pictures, size)
        (partial / "toy_data.json").write_text(to_json(made_from))
        if out.is_dir():  # and empty
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def to_json(made_from):
    return json.dumps({"format": 1, **made_from}, indent=1) + "\n"


def check(made_from):
    """Raise UserError for the first number out of range."""
    layout = made_from["layout"]
    # Class folders: no class may stay without a picture.
    least = 1 if layout in ("coco_stuff", "celeba") else made_from["classes"]
    bounds = {
        "classes": (1, len(class_names(layout))),
        "count": (least, 10**6),
        "val_count": (least, 10**6),
        "size": (4, 2048),
        "seed": (0, 2**32 - 1),
    }
    if made_from["val_count"] == 0:
        del bounds["val_count"]
    for name, (low, high) in bounds.items():
        if not low <= made_from[name] <= high:
            raise UserError(f"--{name} {made_from[name]}: must lie between {low} and {high}")


def parse_args(argv=None):
    plain = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    version_flag(p)
    # fmt: off
    add = p.add_argument
    add("out", metavar="OUT",
        help="folder to make; it must be new, empty, or hold the very same data")
    add("--layout", choices=sorted(LAYOUTS), default="class_folders",
        help="kind of data set (%(default)s)")
    add("--classes", type=int, default=4,
        help=f"the first so many of {', '.join(SHAPES)} (%(default)s); of the layout figures: "
             f"{', '.join(FIGURES)}; faces have none")
    add("--count", type=int, default=1000, help="pictures under OUT/train (%(default)s)")
    add("--val_count", type=int, default=0,
        help="other pictures under OUT/val; 0: no such folder (%(default)s)")
    add("--size", type=int, default=32, help="side of a picture in pixels (%(default)s)")
    add("--seed", type=int, default=0, help="fixes every picture (%(default)s)")
    # fmt: on
    return p.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    out = make(**vars(args))
    print(
        f"{out}: {args.count} + {args.val_count} pictures of {args.size} px, "
        f"{args.classes} classes, seed {args.seed}"
    )
    if args.layout == "coco_stuff":
        ids = [f"{i} {name}" for i, name in enumerate(label_names(args.classes))]
        print(f"label ids: {', '.join(ids)}")
    if args.layout == "celeba":
        print(f"attributes: {', '.join(FACE_ATTRIBUTES)}")


if __name__ == "__main__":
    from shared_metrics.process import command

    command(main)()
