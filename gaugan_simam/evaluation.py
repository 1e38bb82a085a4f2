"""What test.py measures and shows of a generator over pairs of label map and photo (SPADE, sec.
4).
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dataset import PREPROCESS, PairFolder
from shared_metrics.errors import UserError
from shared_metrics.images import grid, save_png
from shared_metrics.judges.segmenter import Confusion, load_segmenter
from trainer import colourise

INCEPTION = ("fid", "is", "kid", "pr")
METRICS = ("l1", "miou", *INCEPTION)
ROWS = 8  # pairs in grid.png


def chosen_metrics(text):
    """The metrics in "fid,miou,l1", or [] for "none". Raises UserError."""
    names = [name for name in text.split(",") if name not in ("", "none")]
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UserError(
            f"--metrics {text}: no metric '{unknown[0]}'; choose from {', '.join(METRICS)}, or none"
        )
    return names


def open_pairs(args, arch, trained):
    """The pairs to draw, `PairFolder` of the network's size: resized as in training and cut from
    the middle.

    Args: trained, the arguments of the training, {} where unknown. --num_samples takes pairs evenly
        spread over all.
    """
    height, width = arch.size
    preprocess = args.preprocess_mode or trained.get("preprocess_mode") or PREPROCESS[0]
    data = PairFolder(
        args.data_path,
        args.image_dir,
        args.label_dir,
        "" if arch.no_instance else args.instance_dir,
        args.split,
        arch.label_nc,
        arch.contain_dontcare_label,
        trained.get("load_size") or 0,
        width,
        height,
        preprocess,
        train=False,
    )
    if args.num_samples:
        count = min(args.num_samples, len(data))
        data.items = [data.items[i * len(data) // count] for i in range(count)]
    return data


def file_names(data):
    """The name of each pair's picture, without suffix: that of its photo, sub-folders joined by
    "_".
    """
    root = data.folders[0]
    names = [
        Path(data.name(i)).relative_to(root).with_suffix("").as_posix().replace("/", "_")
        for i in range(len(data))
    ]
    twice = (
        next((name for name in names if names.count(name) > 1), None)
        if len(set(names)) < len(names)
        else None
    )
    if twice:
        raise UserError(f"{root}: two photos come out as {twice}; rename one of them")
    return names


class Evaluation:
    """Everything that is measured in the one pass over the pairs: L1, segmentation, and what
    Inception tells.

    Opens segmenter, Inception and real photos first, so that a mistake is told before anything is
    drawn.
    """

    def __init__(self, args, arch, data):
        self.args, self.arch, self.data = args, arch, data
        self.metrics = chosen_metrics(args.metrics)
        self.inception = [name for name in self.metrics if name in INCEPTION]
        for flag, wanted in (
            ("segmenter", ("miou",)),
            ("ignore", ("miou",)),
            ("real", ("fid", "kid", "pr")),
        ):
            if getattr(args, flag) and not set(wanted) & set(self.metrics):
                raise UserError(
                    f"--{flag}: is for --metrics {','.join(wanted)}; name one of them or leave "
                    "the flag out"
                )
        self.segmenter = self._open_segmenter() if "miou" in self.metrics else None
        ignore = args.ignore or ()
        self.confusions = {
            "": Confusion(arch.label_nc, ignore),
            "_real": Confusion(arch.label_nc, ignore),
        }
        self.difference, self.seen = 0.0, 0
        if self.inception:
            self._prepare_inception()

    def _open_segmenter(self):
        args = self.args
        if not args.segmenter:
            raise UserError(
                "--metrics miou: needs --segmenter FILE: one of train_segmenter.py, or an "
                "exported network"
            )
        how = args.segmenter_mean, args.segmenter_std, args.segmenter_size, args.segmenter_offset
        segmenter = load_segmenter(args.segmenter, *how)
        if segmenter.num_classes not in (None, self.arch.label_nc):
            raise UserError(
                f"--segmenter {args.segmenter}: knows {segmenter.num_classes} classes, the "
                "generator "
                f"{self.arch.label_nc}; train it with --label_nc {self.arch.label_nc}"
            )
        return segmenter

    def _prepare_inception(self):
        from shared_metrics.scoring import KEEP, Extractor, check_metrics, read_real, statistics_of

        args, keep = self.args, KEEP if {"kid", "pr"} & set(self.inception) else 0
        self.extractor = Extractor(args.inception_weights, args.protocol)
        if args.real:
            self.real = read_real(args.real, self.extractor, keep)
        else:
            pictures = self.data.pictures()
            self.real = statistics_of(
                pictures, self.extractor, keep, num_images=len(self.data), progress=True
            )
            self.real.source = str(self.data.folders[0])
        check_metrics(self.inception, self.extractor, self.real)

    def run(self, batches):
        """Consume batches of (labels (N, H, W), generated, photos), both uint8; returns the
        record's part on scores.
        """
        images = self._watched(batches)
        if self.inception:
            from shared_metrics.scoring import evaluate

            result = evaluate(
                images, self.extractor, self.inception, self.real, num_images=len(self.data)
            )
        else:
            result = count_only(images)
        scores, about = {}, {}
        if "l1" in self.metrics:
            scores["l1"] = self.difference / self.seen
        if self.segmenter:
            for suffix, confusion in self.confusions.items():
                scores[f"miou{suffix}"] = confusion.miou()
                scores[f"pixel_accuracy{suffix}"] = confusion.pixel_accuracy()
            about = {"segmenter": self.segmenter.info, "iou": self._ious()}
        return result | {"scores": scores | result["scores"]} | about

    def _watched(self, batches):
        """The generated pictures, each measured as it passes."""
        for labels, images, photos in batches:
            self.difference += np.abs(images.astype(np.int16) - photos).mean((1, 2, 3)).sum() / 255
            self.seen += len(images)
            if self.segmenter:
                self.confusions[""].update(labels, self.segmenter.predict(images))
                self.confusions["_real"].update(labels, self.segmenter.predict(photos))
            yield images

    def _ious(self):
        """{class id: {"iou", "iou_real"}} of the classes that occur."""
        found = {}
        for suffix, confusion in self.confusions.items():
            for label, value in confusion.ious().items():
                found.setdefault(str(label), {})[f"iou{suffix}"] = value
        return found


def count_only(images):
    """The scores part of the record without Inception."""
    start, number = time.perf_counter(), sum(len(batch) for batch in images)
    seconds = time.perf_counter() - start
    speed = {"seconds": round(seconds, 2), "images_per_second": round(number / seconds, 2)}
    return {
        "scores": {},
        "comparable": False,
        "inception": None,
        "real": None,
        "samples": {"number": number},
        **speed,
    }


class Shown:
    """Writes images/NAME.png, panels/NAME.png (label | generated | real) and, at the end, grid.png of some panels."""

    def __init__(self, folder, names, workers):
        self.folder, self.names, self.workers = folder, names, workers
        chosen = np.linspace(0, len(names) - 1, min(ROWS, len(names))).astype(int)
        self.rows, self.done = {int(i): None for i in chosen}, 0

    def write(self, batches):
        """Write each batch of (labels, generated, photos) and yield it on; the grid after the
        last.
        """
        with ThreadPoolExecutor(self.workers) as pool:
            for labels, images, photos in batches:
                panels = list(zip(colourise(labels), images, photos, strict=True))
                names = self.names[self.done : self.done + len(images)]
                jobs = [pool.submit(save_png, image, self.folder / "images" / f"{name}.png")
                        for name, image in zip(names, images, strict=True)]  # fmt: skip
                jobs += [
                    pool.submit(
                        save_png, grid(np.stack(panel), 3), self.folder / "panels" / f"{name}.png"
                    )
                    for name, panel in zip(names, panels, strict=True)
                ]
                for job in jobs:
                    job.result()
                for i, panel in enumerate(panels, self.done):
                    if i in self.rows:
                        self.rows[i] = panel
                self.done += len(images)
                yield labels, images, photos
        cells = [cell for panel in self.rows.values() for cell in panel]
        save_png(
            grid(np.stack(cells), 3, column_labels=["label", "generated", "real"]),
            self.folder / "grid.png",
        )
