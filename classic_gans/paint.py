"""test.py's way for SPADE: pictures of label maps.

images/fakeB_NAME.png is drawn of a label map, images/real_NAME.png is its photo, where there is
one; NAME is the photo's, or the map's. grid.png shows some of them: map, drawn picture, photo.
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import paddle

from label_maps import LabelledPhotos, colourise
from naming import file_names
from shared_metrics import process, weights
from shared_metrics.errors import UserError
from shared_metrics.flags import OFFSET, PX, YES_NO, ranges, three
from shared_metrics.image_sets import open_source
from shared_metrics.images import grid, list_images, save_png, to_uint8
from shared_metrics.inference import Runner

WORDS = {"--n_samples": "--batch_size"}
NEEDS = dict.fromkeys(("dataset_dir", "test_list"), "input no") | {"instance_dir": "input"}
SEGMENTER = ("segmenter_mean", "segmenter_std", "segmenter_size", "segmenter_offset")
NEEDS |= dict.fromkeys((*SEGMENTER, "ignore"), "metrics miou")
PATTERNS = ("images/fakeB_*.png", "images/real_*.png")
METRICS = ("l1", "miou")
SHOWN = 8  # rows of grid.png


# fmt: off
def add_flags(parser):
    """Add the flags of drawing label maps, and those that every test has."""
    from shared_metrics import testing

    testing.weight_flags(parser)
    testing.drawing_flags(parser, batch_size=1)
    testing.record_flags(
        parser, num_samples="all; fewer are spread evenly over them", output_dir="./infer_result",
        metrics="l1,miou,", real="image folder or statistics file (default: the maps' photos)",
    )
    paint_flags(parser)


def paint_flags(parser):
    """Add those of drawing label maps alone."""
    add = parser.add_argument_group("label maps to draw").add_argument
    add("--input", default="", help="label maps without photos: a file or a folder")
    add("--instance_dir", default="", help="with it: folder of instance maps of the same names")
    add("--dataset_dir", default="", help="a data set's folder (default: the training's)")
    add("--test_list", default="",
        help="a list of it: label map, photo and instance map (default: its test set)")
    add("--zero_is_unknown", action=YES_NO,
        help="ids count from 1, and 0 is unknown (default: as in the training)")
    for side in ("width", "height"):
        add(f"--crop_{side}", type=PX, help=f"{side} in px (default: the training's)")
    add = parser.add_argument_group("the paper's scores").add_argument
    add("--segmenter", default="",
        help="for miou: a file of `python -m shared_metrics.judges segmenter`, or an exported "
             "network")
    add("--segmenter_mean", type=three, default="0.5,0.5,0.5", help="of an export: taken from RGB")
    add("--segmenter_std", type=three, default="0.5,0.5,0.5", help="which is then divided by this")
    add("--segmenter_size", type=PX.or_0, default=0,
        help="of an export: shorter side in px; 0: the pictures'")
    add("--segmenter_offset", type=OFFSET, default=0,
        help="of an export: its id + this is the map's")
    add("--ignore", type=ranges, default=[], help="ids that miou leaves out; unknown always is")
# fmt: on


# ---- the network and its maps ----


def architecture_of(args, state, room):
    """(the networks' sizes; lines on what departs from the training's)."""
    trained = room.Architecture.from_dict(state["architecture"])
    sizes = {
        "crop_width": args.crop_width or trained.crop_width,
        "crop_height": args.crop_height or trained.crop_height,
    }
    arch = dataclasses.replace(trained, **sizes)
    if arch == trained:
        return arch, []
    if arch.use_vae:
        raise UserError("--crop_width, --crop_height: a generator with a latent has one size only")
    area = arch.crop_width * arch.crop_height / (trained.crop_width * trained.crop_height)
    place = f"{trained.crop_width}x{trained.crop_height} px, the size of its training"
    notes = [f"drawn at {arch.crop_width}x{arch.crop_height} px; the generator knows {place}"]
    if area > 1:
        notes[0] += ": larger pictures of SPADE look washed out"
    return arch, notes


def find_items(args, state, room, arch):
    """([(photo or None, label map, instance map or None)], the folder they are from)."""
    if args.input:
        path = Path(args.input).expanduser()
        maps = list_images(path) if path.is_dir() else [path]
        if not maps:
            raise UserError(f"--input {path}: no label maps in this folder")
        return [(None, file, instance_of(args, file, arch)) for file in maps], str(path)
    trained = {**state.get("args", {}), "no_instance": arch.no_instance}
    if args.dataset_dir:
        folder = Path(args.dataset_dir).expanduser()
        trained |= {"data_dir": str(folder.parent), "dataset": folder.name}
        trained |= dict.fromkeys(("train_list", "test_list"), "")
        trained |= dict.fromkeys(("image_dir", "label_dir", "instance_dir"), "")
    if "dataset" not in trained:
        raise UserError("--input is missing: give label maps, or --dataset_dir")
    trained["test_list"] = args.test_list or trained["test_list"]
    items = room.find_items(argparse.Namespace(**trained), "test")
    return items, str(Path(trained["data_dir"]).expanduser() / trained["dataset"])


def instance_of(args, label_map, arch):
    """The instance map of a label map of --input; None where the generator sees no edges."""
    if arch.no_instance:
        return None
    if not args.instance_dir:
        raise UserError(
            "--instance_dir is missing: the generator sees the edges of instances. Give their "
            "maps, or the label maps' own folder: then edges are those of the labels"
        )
    file = Path(args.instance_dir).expanduser() / label_map.name
    if not file.is_file():
        raise UserError(f"--instance_dir: no file {file} for {label_map}")
    return file


def open_maps(args, state, room, arch):
    """(`LabelledPhotos` of the maps to draw, --num_samples of them; the folder they are from)."""
    items, folder = find_items(args, state, room, arch)
    count = min(args.num_samples or len(items), len(items))
    items = [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]
    zero = args.zero_is_unknown
    if zero is None:  # published weights do not tell it: ADE20K's are so
        zero = state.get("zero_is_unknown", (arch.label_nc, arch.no_instance) == (150, True))
    size = (arch.crop_width, arch.crop_height)
    how = (arch.label_nc, arch.contain_dontcare_label, size, size)
    return LabelledPhotos(items, *how, zero_is_unknown=zero, train=False), folder


# ---- what is drawn and measured ----


class Painter:
    """A generator, drawing label maps. Args: seed, fixes the latents where it takes some."""

    def __init__(self, generator, semantics, arch, seed):
        self.run = Runner(generator)
        self.semantics = semantics
        self.arch = arch
        self.seed = seed

    def paint(self, labels, instances, indices):
        """Images (N, 3, H, W) of maps (N, H, W), arrays; indices, of the maps among all."""
        latents = []
        for index in indices:
            rng = process.rng(self.seed, "latent", index)
            latents.append(rng.standard_normal(self.arch.z_dim, dtype=np.float32))
        maps = (paddle.to_tensor(ids) for ids in (labels, instances))
        seg = self.semantics(*maps, self.arch)
        return self.run(seg, np.stack(latents)) if self.arch.use_vae else self.run(seg)


class Measures:
    """l1, the mean absolute difference to the photos in [0, 1]; miou and pixel_accuracy, of the
    classes that a segmenter sees in the pictures.
    """

    def __init__(self, args, metrics, arch):
        self.metrics = metrics
        self.differences = []
        self.segmenter = None
        if "miou" in metrics:
            self.segmenter, self.confusion = open_segmenter(args, arch)

    def update(self, labels, images, photos):
        """Take ids (N, H, W) and uint8 images (N, H, W, 3); photos None where there are none."""
        if photos is not None and "l1" in self.metrics:
            difference = np.abs(images.astype(np.int16) - photos)
            self.differences += (difference.mean((1, 2, 3)) / 255).tolist()
        if self.segmenter is not None:
            self.confusion.update(labels, self.segmenter.predict(images))

    def result(self):
        """{"scores": {...}}, what is known of the segmenter, and notes where it has no score."""
        scores = {"l1": float(np.mean(self.differences))} if self.differences else {}
        if self.segmenter is None:
            return {"scores": scores}
        why = self.confusion.nothing()
        scores |= self.confusion.scores()
        return {
            "scores": scores,
            "segmenter": self.segmenter.info,
            "notes": [why] if why else [],
        }


def open_segmenter(args, arch):
    """(judges.segmenter.Segmenter, Confusion). Raises: UserError without --segmenter."""
    from shared_metrics.judges.segmenter import Confusion, load_segmenter

    if not args.segmenter:
        raise UserError(
            "--metrics miou: needs --segmenter; train one by `python -m shared_metrics.judges "
            "segmenter`, or export another"
        )
    how = (args.segmenter_mean, args.segmenter_std, args.segmenter_size, args.segmenter_offset)
    segmenter = load_segmenter(args.segmenter, *how)
    if segmenter.num_classes not in (None, arch.label_nc):
        raise UserError(
            f"--segmenter {args.segmenter}: knows {segmenter.num_classes} classes, the maps have "
            f"{arch.label_nc}"
        )
    return segmenter, Confusion(arch.label_nc, args.ignore)


def load_painter(args, state, room, arch):
    """`Painter` of the generator in a file. Raises: UserError."""
    from shared_metrics import testing

    path = args.pretrained_model
    if "generator" not in state:
        raise UserError(f"{path}: holds a discriminator; give the file of the generator")
    make = partial(room.Generator, arch)
    generator = weights.build(make, state["generator"], "generator", path)
    testing.set_bn_stats(generator, args.bn_stats)
    return Painter(generator, room.semantics, arch, args.seed)


def run(args, state, room):
    """Draw, write, score. Args: state, of convert.read_weights; room, the trainer module.

    Returns: the output folder, the record, the paper's own scores.
    """
    from shared_metrics import testing

    if args.seeds:
        raise UserError("--seeds: pictures are drawn of maps; leave it out")
    own, metrics = testing.chosen_metrics(args, METRICS)
    arch, notes = architecture_of(args, state, room)
    painter = load_painter(args, state, room, arch)
    data, folder = open_maps(args, state, room, arch)
    with_photos = data.items[0][0] is not None
    names = file_names([data.name(i) for i in range(len(data))])
    measures = Measures(args, own, arch)
    output = testing.Output(args, PATTERNS, data=[folder, args.real])
    real = None
    if metrics and with_photos and not args.real:
        real = open_source(data.pictures(), len(data), name=folder)
    scores = testing.open_scores(args, metrics, len(data), pictures=data.crops, data=real)
    cells = []
    with output:
        for part in testing.parts(len(data), args.batch_size):
            indices = range(part.start, part.stop)
            items = [data.load(i) for i in indices]
            labels, instances, photos = (np.stack(arrays) for arrays in zip(*items, strict=True))
            x = painter.paint(labels, instances, indices)
            images = testing.pixels(x, args.pretrained_model)
            photos = to_uint8(photos) if with_photos else None
            output.write([f"fakeB_{name}" for name in names[part]], images)
            if with_photos:
                output.write([f"real_{name}" for name in names[part]], photos)
            scores.update(images)
            measures.update(labels, images, photos)
            for i in range(min(len(items), SHOWN - part.start)):
                cells += [colourise(labels[i]), images[i], *([photos[i]] if with_photos else [])]

    titles = ["label", "generated", "real"][: 2 + with_photos]
    save_png(grid(np.stack(cells), len(titles), column_labels=titles), output.folder / "grid.png")
    result = scores.result()
    result["notes"] += [*notes, *data.doubts()]
    of_paper = measures.result()
    record = testing.make_record(
        args, state, painter.run.network, "raw", room.RECIPES, result, of_paper
    )
    record["samples"] |= {"seed": args.seed, "data": folder, "files": "images/fakeB_*"}
    return output, record, of_paper["scores"]
