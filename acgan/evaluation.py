"""What test.py measures and shows of a generator: the paper's own evaluation (Odena et al., sec.
4).
"""

from functools import partial
from pathlib import Path

import numpy as np

from dataset import ClassFolder, center_crops
from shared_metrics.errors import UserError
from shared_metrics.files import file_names
from shared_metrics.images import grid, save_png
from shared_metrics.judges.accuracy import Classes, open_accuracy
from shared_metrics.ms_ssim import choose_pairs, intra_class

LEAST_DIVERSE = 0.25  # MS-SSIM of the least diverse class of ImageNet's training images (sec. 4.2)
METRICS = ("acc", "msssim")  # the paper's own


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
    choice = names or args.classes
    data = ClassFolder(root, arch.imsize, choice, flag="--real", any_folders=args.any_folders)
    if len(data.classes) != arch.num_classes:
        raise UserError(
            f"--classes {args.classes}: chooses {len(data.classes)} of the folders in {root}, the "
            "generator knows "
            f"{arch.num_classes} classes; name its own"
        )
    if not names:
        classes = Classes(arch.num_classes, data.classes, data.class_indices, data.class_total)
    return data, classes


class Measures:
    """Accuracy and MS-SSIM of generated images as they come, and of the real ones beside them.

    Opens the classifier and looks at the real images first, so that a mistake is told before
    anything is drawn.

    Args: metrics, of METRICS; data, the real images or None; labels (N,) of the images to come.
    """

    def __init__(self, args, metrics, arch, data, classes, labels):
        self.pairs = args.pairs
        self.data = data
        self.classes = classes
        self.accuracy = open_accuracy(args, metrics, classes, arch.imsize)
        self.diversity = Diversity(labels, args.pairs) if "msssim" in metrics else None
        if self.diversity and data is not None and min(data.counts) < 2:
            alone = data.classes[data.counts.index(1)]
            raise UserError(
                f"--real {args.real}: one image of class {alone}; msssim compares pairs. Leave "
                "msssim out"
            )
        if self.accuracy and data is not None:
            crops = partial(center_crops, imsize=arch.imsize)  # real images as in training
            self.accuracy.update_real(data.files, data.labels, crops, most=len(labels))

    def update(self, images, labels):
        """Take uint8 images (N, H, W, 3) and their labels (N,)."""
        if self.accuracy:
            self.accuracy.update(images, labels)
        if self.diversity:
            self.diversity.update(images)

    def result(self):
        """What a record tells of them: scores, per_class {name: scores} and the classifier."""
        record = self.accuracy.result() if self.accuracy else {"scores": {}, "per_class": {}}
        scores = record["scores"]
        per_class = record["per_class"]

        def put(name, values):
            scores[name] = float(np.mean(list(values.values())))
            for label, value in values.items():
                per_class.setdefault(label, {})[name] = value

        if self.diversity:
            values = self.diversity.per_class()
            put("msssim", values)
            below = np.array(list(values.values())) < LEAST_DIVERSE
            scores[f"classes_below_msssim_{LEAST_DIVERSE}"] = float(below.mean())
        if self.data is not None and self.diversity:
            put("msssim_real", intra_class(RealImages(self.data), self.data.labels, self.pairs))
        names = {self.classes.name(label): row for label, row in sorted(per_class.items())}
        return record | {"per_class": names}


def show_samples(gallery, classes, folder, class_folder):
    """Write grid.png, a row a class with its first ten images, and <class>.png with its first
    hundred.
    """
    save_png(gallery.grid(classes.name), folder / "grid.png")
    class_folder.mkdir(parents=True, exist_ok=True)
    files = class_files(classes)
    for label, images in gallery.images.items():
        sheet = grid(np.stack(images), min(10, len(images)))
        save_png(sheet, class_folder / files[label])


def class_files(classes):
    """The names of the classes' pictures, <class>.png."""
    names = [classes.name(label) for label in range(classes.number)]
    return [f"{name}.png" for name in file_names(names)]


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
    cells = []
    nearest = {}
    for label in rows:
        row = np.concatenate(distances[label])
        order = np.argsort(row, kind="stable")[:count]
        cells.append(gallery.images[label][0])
        cells += [real_images[i] for i in order]
        nearest[classes.name(label)] = float(row[order[0]])
    names = [classes.name(label) for label in rows]
    save_png(grid(np.stack(cells), len(cells) // len(rows), row_labels=names), path)
    return nearest
