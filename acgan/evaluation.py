"""What test.py measures and shows of a generator: the paper's own evaluation (Odena et al., sec.
4).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset import ClassFolder, center_crops
from shared_metrics.errors import UserError
from shared_metrics.images import grid, save_png
from shared_metrics.ms_ssim import choose_pairs, intra_class

LEAST_DIVERSE = 0.25  # MS-SSIM of the least diverse class of ImageNet's training images (sec. 4.2)
METRICS = ("acc", "msssim")  # the paper's own
FOR_ACC = ("classifier", "classifier_model", "class_indices", "acc_sizes")  # flags


@dataclass
class Classes:
    """The generator's classes: `number`; `names` and `indices` among `total` folders, [] and 0
    where unknown.
    """

    number: int
    names: list = field(default_factory=list)
    indices: list = field(default_factory=list)
    total: int = 0

    def name(self, label):
        """The folder's name, or class003."""
        return self.names[label] if self.names else f"class{label:03d}"


class Judge:
    """Counts, batch by batch, how often a classifier sees the class that was meant (sec. 4.1).

    Args: classifier; columns (num_classes,), the classifier's number of each of the generator's
        classes; sizes, sides in px to which the images are brought first, for accuracies of their
        own.
    """

    def __init__(self, classifier, columns, sizes):
        self.classifier = classifier
        self.columns = np.asarray(columns)
        self.sizes = (None, *sizes)  # None: as they are
        self.seen = np.zeros(len(columns), np.int64)
        self.right = {side: np.zeros(len(columns), np.int64) for side in self.sizes}

    def update(self, images, labels):
        """Take uint8 images (N, H, W, 3) and their labels (N,)."""
        self.seen += np.bincount(labels, minlength=len(self.seen))
        for side, right in self.right.items():
            hits = self.classifier.predict(images, side) == self.columns[labels]
            right += np.bincount(labels[hits], minlength=len(right))

    def scores(self, suffix=""):
        """{"class_accuracy": of all images, "class_accuracy_32": the same of images brought to 32
        px, ...}.
        """
        scores = {}
        for side, right in self.right.items():
            name = f"class_accuracy{suffix}" if side is None else f"class_accuracy{suffix}_{side}"
            scores[name] = float(right.sum() / self.seen.sum())
        return scores

    def per_class(self):
        """{label: accuracy} of the classes seen."""
        present = np.flatnonzero(self.seen)
        return {int(y): float(self.right[None][y] / self.seen[y]) for y in present}


class Diversity:
    """MS-SSIM of random pairs within each class (sec. 4.2), of images that come one after another:
    it keeps those that the pairs need.

    Args: labels (N,) of all images to come; pairs, how many a class.
    """

    def __init__(self, labels, pairs):
        self.labels = labels
        self.pairs = pairs
        self.wanted = set()
        for chosen in choose_pairs(labels, pairs).values():
            self.wanted.update(chosen.ravel().tolist())
        self.images = {}
        self.number = 0

    def update(self, images):
        """Take the next uint8 images (N, H, W, 3)."""
        for image in images:
            if self.number in self.wanted:
                self.images[self.number] = image
            self.number += 1

    def per_class(self):
        """{label: mean MS-SSIM}."""
        return intra_class(self.images, self.labels, self.pairs)


class RealImages:
    """A data set's images as `intra_class` takes them: read, cut and resized when asked for."""

    def __init__(self, data):
        self.data = data

    def __getitem__(self, position):
        return next(center_crops([self.data.files[position]], self.data.imsize))[0]


def open_real(args, arch, found):
    """(real images of the checkpoint's classes or None, `Classes`). Class folders are found by the
    classes' names.

    Weights that name no classes (published ones) take theirs from --real and --classes.
    """
    names = found.get("classes") or []
    classes = Classes(
        arch.num_classes, names, found.get("class_indices") or [], found.get("class_total") or 0
    )
    if names and args.classes != "auto":
        raise UserError(
            f"--classes {args.classes}: the checkpoint tells its classes ({', '.join(names)}); "
            "leave it out"
        )
    root = Path(args.real).expanduser()
    if not args.real or not root.is_dir():
        return None, classes
    missing = [name for name in names if not (root / name).is_dir()]
    if missing:
        raise UserError(
            f"--real {root}: has no folder {missing[0]}, a class of this generator; give its "
            "class folders"
        )
    data = ClassFolder(root, arch.imsize, names or args.classes, flag="--real")
    if len(data.classes) != arch.num_classes:
        raise UserError(
            f"--classes {args.classes}: chooses {len(data.classes)} of the folders in {root}, the "
            "generator knows "
            f"{arch.num_classes} classes; name its own"
        )
    if not names:
        classes = Classes(arch.num_classes, data.classes, data.class_indices, data.class_total)
    return data, classes


def make_judge(args, classes, imsize):
    """`Judge` as the flags ask for it. Raises UserError when the classifier does not know the
    generator's classes.
    """
    from shared_metrics.judges.classifier import load_classifier

    if not args.classifier:
        raise UserError(
            "--metrics acc: needs --classifier FILE: one of `python -m shared_metrics.judges "
            "classifier`, or ImageNet weights"
        )
    classifier = load_classifier(args.classifier, args.classifier_model)
    sizes = args.acc_sizes
    if sizes is None:
        sizes = [side for side in (64, 32) if side < imsize]
    if any(not 8 <= side < imsize for side in sizes):
        raise UserError(
            f"--acc_sizes {','.join(map(str, sizes))}: sides from 8 to below the images' {imsize} "
            "px"
        )
    return Judge(classifier, _columns(args, classifier, classes), sizes)


def _columns(args, classifier, classes):
    """The classifier's number of each of the generator's classes."""
    from shared_metrics.judges.classifier import IMAGENET

    if not classifier.classes:  # ImageNet's, which knows numbers alone
        columns = args.class_indices or (classes.indices if classes.total == IMAGENET else [])
        if len(columns) != classes.number or max(columns) >= IMAGENET:
            raise UserError(
                f"--classifier_model {args.classifier_model}: which of ImageNet's 1000 classes are "
                f"the generator's {classes.number}? Give --class_indices, e.g. 10-19"
            )
        return columns
    if args.class_indices:
        raise UserError(
            "--class_indices: is for ImageNet weights (--classifier_model); leave it out"
        )
    if not classes.names:
        raise UserError(
            "--metrics acc: the weights name no classes; give their class folders by --real (and "
            "--classes)"
        )
    for name in classes.names:
        if name not in classifier.classes:
            raise UserError(
                f"--classifier {args.classifier}: does not know class {name} of the generator; "
                "train one that does: python -m shared_metrics.judges classifier"
            )
    return [classifier.classes.index(name) for name in classes.names]


class Measures:
    """Accuracy and MS-SSIM of generated images as they come, and of the real ones beside them.

    Opens the classifier and looks at the real images first, so that a mistake is told before
    anything is drawn.

    Args: metrics, of METRICS; data, the real images or None; labels (N,) of the images to come.
    """

    def __init__(self, args, metrics, arch, data, classes, labels):
        for flag in FOR_ACC:
            if getattr(args, flag) and "acc" not in metrics:
                raise UserError(f"--{flag}: is for --metrics acc; add acc or leave the flag out")
        self.pairs = args.pairs
        self.data = data
        self.classes = classes
        self.number = len(labels)
        self.judge = make_judge(args, classes, arch.imsize) if "acc" in metrics else None
        self.diversity = Diversity(labels, args.pairs) if "msssim" in metrics else None
        if self.diversity and data is not None and min(data.counts) < 2:
            alone = data.classes[data.counts.index(1)]
            raise UserError(
                f"--real {args.real}: one image of class {alone}; msssim compares pairs. Leave "
                "msssim out"
            )

    def update(self, images, labels):
        """Take uint8 images (N, H, W, 3) and their labels (N,)."""
        if self.judge:
            self.judge.update(images, labels)
        if self.diversity:
            self.diversity.update(images)

    def result(self):
        """What a record tells of them: scores, per_class {name: scores} and the classifier."""
        scores, per_class = {}, {}

        def put(name, values):
            for label, value in values.items():
                per_class.setdefault(label, {})[name] = value

        if self.judge:
            scores |= self.judge.scores()
            put("class_accuracy", self.judge.per_class())
        if self.diversity:
            values = self.diversity.per_class()
            put("msssim", values)
            values = np.array(list(values.values()))
            scores["msssim"] = float(values.mean())
            below = float((values < LEAST_DIVERSE).mean())
            scores[f"classes_below_msssim_{LEAST_DIVERSE}"] = below
        if self.data is not None and self.judge:
            real = self._judge_real()
            scores |= real.scores("_real")
            put("class_accuracy_real", real.per_class())
        if self.data is not None and self.diversity:
            values = intra_class(RealImages(self.data), self.data.labels, self.pairs)
            put("msssim_real", values)
            scores["msssim_real"] = float(np.mean(list(values.values())))
        names = {self.classes.name(label): row for label, row in sorted(per_class.items())}
        about = {"classifier": self.judge.classifier.info} if self.judge else {}
        return {"scores": scores, "per_class": names} | about

    def _judge_real(self):
        """A `Judge` that has seen as many real images as were drawn, evenly spread over the
        files.
        """
        judge = Judge(self.judge.classifier, self.judge.columns, self.judge.sizes[1:])
        count = min(self.number, len(self.data))
        chosen = np.linspace(0, len(self.data) - 1, count).astype(int)
        labels = np.asarray(self.data.labels)[chosen]
        start = 0
        for images in center_crops([self.data.files[i] for i in chosen], self.data.imsize):
            judge.update(images, labels[start : start + len(images)])
            start += len(images)
        return judge


def show_samples(gallery, classes, folder, class_folder):
    """Write grid.png, a row a class with its first ten images, and <class>.png with its first
    hundred.
    """
    save_png(gallery.grid(classes.name), folder / "grid.png")
    class_folder.mkdir(parents=True, exist_ok=True)
    for label, images in gallery.images.items():
        sheet = grid(np.stack(images), min(10, len(images)))
        save_png(sheet, class_folder / f"{classes.name(label)}.png")


def show_latents(draw, noise, gallery, classes, folder):
    """Write class_swap.png and interpolation.png, a row a class.

    class_swap: the same latents in every row, so a column shows what is left when only the class
        changes (sec. 4.5).
    interpolation: eight steps on the line between the first two latents (sec. 4.5).
    Args: draw, function (noise (N, nz), labels (N,)) -> uint8 images; noise (10, nz).
    """
    rows = gallery.rows()
    names = [classes.name(label) for label in rows]
    way = np.linspace(0, 1, 8, dtype=np.float32)[:, None]
    line = (1 - way) * noise[:1] + way * noise[1:2]
    for name, latents in (("class_swap", noise), ("interpolation", line)):
        images = [draw(latents, np.full(len(latents), label)) for label in rows]
        sheet = grid(np.concatenate(images), len(latents), row_labels=names)
        save_png(sheet, folder / f"{name}.png")


def show_nearest(gallery, data, classes, path, count=5):
    """Write nearest.png: the first image of each class and, beside it, its nearest real ones in
    pixel L1 (sec. 4.5).

    All real images are looked through, not those of its class alone.
    Returns: {class name: mean absolute difference of the nearest, in [0, 255]}.
    """
    rows = gallery.rows()
    distances = {label: [] for label in rows}
    for batch in data.pictures():
        real = batch.astype(np.int16)
        for label in rows:
            query = gallery.images[label][0].astype(np.int16)
            distances[label].append(np.abs(query - real).mean((1, 2, 3)))
    real_images = RealImages(data)
    cells, nearest = [], {}
    for label in rows:
        row = np.concatenate(distances[label])
        order = np.argsort(row, kind="stable")[:count]
        cells.append(gallery.images[label][0])
        cells += [real_images[i] for i in order]
        nearest[classes.name(label)] = float(row[order[0]])
    names = [classes.name(label) for label in rows]
    save_png(grid(np.stack(cells), len(cells) // len(rows), row_labels=names), path)
    return nearest
