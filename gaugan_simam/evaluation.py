"""What test.py draws, measures and shows of a generator over pairs of label map and photo (SPADE,
sec. 4).
"""

from pathlib import Path

import numpy as np

from dataset import PREPROCESS, PairFolder
from shared_metrics import testing
from shared_metrics.errors import UserError
from shared_metrics.files import file_names
from shared_metrics.images import grid
from shared_metrics.judges.segmenter import Confusion, load_segmenter

METRICS = ("l1", "miou")  # the paper's own
ROWS = 8  # pairs in grid.png


def open_pairs(args, arch, trained):
    """The pairs to draw, `PairFolder` of the network's size: resized as in training and cut from
    the middle.

    Args: trained, the arguments of the training, {} where unknown. --num_samples or --seeds take
        pairs evenly spread over all.
    """
    height, width = arch.size
    data = PairFolder(
        args.data_path,
        args.image_dir,
        args.label_dir,
        "" if arch.no_instance else args.instance_dir,
        args.split,
        arch.label_nc,
        arch.contain_dontcare_label,
        load_size=trained.get("load_size") or 0,
        crop_size=width,
        height=height,
        preprocess=args.preprocess_mode or trained.get("preprocess_mode") or PREPROCESS[0],
        train=False,
    )
    count = min(args.num_samples or len(data), len(data))
    if args.seeds:
        count = len(testing.choose_seeds(args, len(data)))
    if count > len(data):
        raise UserError(f"--seeds {args.seeds}: {count} seeds for {len(data)} pairs; give fewer")
    data.items = [data.items[i * len(data) // count] for i in range(count)]
    return data


def open_output(args, data):
    """(names of the pairs' pictures without suffix, `testing.Output` for them).

    A picture bears the name of its photo, sub-folders joined by "_". Of images/ only those are an
    earlier test's that have a panel.
    """
    root = data.folders[0]
    names = []
    for i in range(len(data)):
        path = Path(data.name(i)).relative_to(root).with_suffix("")
        names.append(path.as_posix().replace("/", "_"))
    for name in names:
        if len(set(names)) < len(names) and names.count(name) > 1:
            raise UserError(f"{root}: two photos come out as {name}; rename one of them")
    names = file_names(names)
    folder = Path(args.output_dir)
    earlier = {path.stem for path in (folder / "panels").glob("*.png")}
    images = [folder / "images" / f"{name}.png" for name in sorted(earlier | set(names))]
    places = [*data.folders, args.real]
    return names, testing.Output(args, patterns=["panels/*.png"], others=images, data=places)


def load_pairs(data, part):
    """(labels, instances (n, H, W), photos uint8 (n, H, W, 3)) of a slice of the pairs."""
    items = [data.load(i) for i in range(part.start, part.stop)]
    labels, instances, photos = (np.stack(arrays) for arrays in zip(*items, strict=True))
    photos = np.rint((photos + 1) * 127.5).astype(np.uint8)
    return labels, instances, photos.transpose(0, 2, 3, 1)


def describe(data):
    """The pairs, for the record: folders' names, without where they lie on this disk."""
    photos, labels, instances = data.folders
    names = [f"{photos.parent.name}/{photos.name}", labels.name]
    if instances:
        names.append(instances.name)
    return f"{', '.join(names)} at {data.crop_size}x{data.height} px by {data.preprocess}"


class Measures:
    """L1 and segmentation of generated pictures as they come, and of the photos beside them.

    Opens the segmenter first, so that a mistake is told before anything is drawn.
    Args: metrics, of METRICS.
    """

    def __init__(self, args, metrics, arch):
        for flag in ("segmenter", "ignore"):
            if getattr(args, flag) and "miou" not in metrics:
                raise UserError(
                    f"--{flag}: is for --metrics miou; name one of them or leave the flag out"
                )
        self.l1 = "l1" in metrics
        self.segmenter = open_segmenter(args, arch) if "miou" in metrics else None
        self.generated = Confusion(arch.label_nc, args.ignore or ())
        self.real = Confusion(arch.label_nc, args.ignore or ())
        self.difference = 0.0  # sum over the pictures of their mean absolute difference, in [0, 1]
        self.number = 0

    def update(self, labels, images, photos):
        """Take label maps (N, H, W), generated pictures and photos, both uint8 (N, H, W, 3)."""
        difference = np.abs(images.astype(np.int16) - photos)
        self.difference += difference.mean((1, 2, 3)).sum() / 255
        self.number += len(images)
        if self.segmenter:
            self.generated.update(labels, self.segmenter.predict(images))
            self.real.update(labels, self.segmenter.predict(photos))

    def result(self):
        """What a record tells of them: scores, and with a segmenter what it is and iou {class id:
        {"iou", "iou_real"}} of the classes that occur, or a note on why there is none.
        """
        scores = {}
        ious = {}
        if self.l1:
            scores["l1"] = self.difference / self.number
        if not self.segmenter:
            return {"scores": scores}
        result = {"scores": scores, "segmenter": self.segmenter.info, "iou": ious}
        if self.real.nothing():
            return result | {"notes": [self.real.nothing()]}
        for suffix, confusion in (("", self.generated), ("_real", self.real)):
            scores |= confusion.scores(suffix)
            for label, value in confusion.ious().items():
                ious.setdefault(str(label), {})[f"iou{suffix}"] = value
        return result


def open_segmenter(args, arch):
    """The network of --segmenter. Raises UserError when its classes are not the generator's."""
    if not args.segmenter:
        raise UserError(
            "--metrics miou: needs --segmenter FILE: one of `python -m shared_metrics.judges "
            "segmenter`, or an exported network"
        )
    how = args.segmenter_mean, args.segmenter_std, args.segmenter_size, args.segmenter_offset
    segmenter = load_segmenter(args.segmenter, *how)
    if segmenter.num_classes not in (None, arch.label_nc):
        raise UserError(
            f"--segmenter {args.segmenter}: knows {segmenter.num_classes} classes, the generator "
            f"{arch.label_nc}; train it with --label_nc {arch.label_nc}"
        )
    return segmenter


class Sheet:
    """grid.png: label | generated | real of some pairs, evenly spread over all, as they come by."""

    def __init__(self, number):
        self.rows = set(np.linspace(0, number - 1, min(ROWS, number)).astype(int).tolist())
        self.number = 0
        self.cells = []

    def update(self, panels):
        """Take the next panels: three uint8 (H, W, 3) each."""
        for panel in panels:
            if self.number in self.rows:
                self.cells += panel
            self.number += 1

    def grid(self):
        """A row a pair."""
        return grid(np.stack(self.cells), 3, column_labels=["label", "generated", "real"])
