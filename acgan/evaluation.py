"""What test.py measures and shows of a generator: the paper's own evaluation (Odena et al., sec.
4).
"""

import time
from pathlib import Path

import numpy as np

from dataset import ClassFolder, center_crops
from shared_metrics.errors import UserError
from shared_metrics.images import grid, save_png
from shared_metrics.ms_ssim import choose_pairs, intra_class

LEAST_DIVERSE = 0.25  # MS-SSIM of the least diverse class of ImageNet's training images (sec. 4.2)
INCEPTION = ("fid", "is", "kid", "pr")
METRICS = ("acc", "msssim", *INCEPTION)


class Classes:
    """The generator's classes: `number`; `names` and `indices` among `total` folders, [] and 0
    where unknown.
    """

    def __init__(self, number, names=(), indices=(), total=0):
        self.number, self.names, self.indices, self.total = (
            number,
            list(names),
            list(indices),
            total,
        )

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
        self.classifier, self.columns, self.sizes = classifier, np.asarray(columns), (None, *sizes)
        self.seen = np.zeros(len(columns), np.int64)
        self.right = {side: np.zeros(len(columns), np.int64) for side in self.sizes}

    def update(self, images, labels):
        """Take uint8 images (N, H, W, 3) and their labels (N,)."""
        self.seen += np.bincount(labels, minlength=len(self.seen))
        for side, right in self.right.items():
            known = self.classifier.predict(images, side) == self.columns[labels]
            right += np.bincount(labels[known], minlength=len(right))

    def scores(self, suffix=""):
        """{"class_accuracy": share of all images, "class_accuracy_32": the same of images brought
        to 32 px, ...}.
        """
        total = self.seen.sum()
        return {
            f"class_accuracy{suffix}{'' if side is None else f'_{side}'}": float(
                right.sum() / total
            )
            for side, right in self.right.items()
        }

    def per_class(self):
        """{label: accuracy} of the classes seen."""
        return {
            int(y): float(self.right[None][y] / self.seen[y]) for y in np.flatnonzero(self.seen)
        }


class Gallery:
    """The first images of each class, as they come by."""

    def __init__(self, num_classes, most=100):
        self.most, self.images = min(most, max(1, 10_000 // num_classes)), {}

    def update(self, images, labels):
        """Take uint8 images (N, H, W, 3) and their labels (N,)."""
        for image, label in zip(images, labels.tolist(), strict=True):
            kept = self.images.setdefault(label, [])
            if len(kept) < self.most:
                kept.append(image)

    def rows(self):
        """The classes to show, ten at most and evenly spread."""
        present = sorted(self.images)
        return [
            present[i] for i in np.linspace(0, len(present) - 1, min(len(present), 10)).astype(int)
        ]


class Kept:
    """The images that MS-SSIM needs, out of a stream."""

    def __init__(self, labels, pairs):
        self.labels, self.pairs = labels, pairs
        self.wanted = set(
            np.concatenate(list(choose_pairs(labels, pairs).values())).ravel().tolist()
        )
        self.images, self.number = {}, 0

    def update(self, images):
        """Take the next uint8 images (N, H, W, 3) of the stream."""
        for image in images:
            if self.number in self.wanted:
                self.images[self.number] = image
            self.number += 1

    def scores(self):
        """{label: mean MS-SSIM of random pairs}."""
        return intra_class(self.images, self.labels, self.pairs)


class Files:
    """Image files as `intra_class` takes images: read, cut and resized when asked for."""

    def __init__(self, files, imsize):
        self.files, self.imsize = files, imsize

    def __getitem__(self, position):
        return next(center_crops([self.files[position]], self.imsize))[0]


def chosen_metrics(text):
    """The metrics in "acc,msssim,fid", or [] for "none". Raises UserError."""
    names = [name for name in text.split(",") if name not in ("", "none")]
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UserError(
            f"--metrics {text}: no metric '{unknown[0]}'; choose from {', '.join(METRICS)}, or none"
        )
    return names


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
    from shared_metrics.judges.classifier import IMAGENET, load_classifier

    if not args.classifier:
        raise UserError(
            "--metrics acc: needs --classifier FILE: one of train_classifier.py, or ImageNet "
            "weights"
        )
    classifier = load_classifier(args.classifier, args.classifier_model)
    sizes = (
        [side for side in (64, 32) if side < imsize] if args.acc_sizes is None else args.acc_sizes
    )
    if any(not 8 <= side < imsize for side in sizes):
        raise UserError(
            f"--acc_sizes {','.join(map(str, sizes))}: sides from 8 to below the images' {imsize} "
            "px"
        )
    if classifier.classes:
        if args.class_indices:
            raise UserError(
                "--class_indices: is for ImageNet weights (--classifier_model); leave it out"
            )
        if not classes.names:
            raise UserError(
                "--metrics acc: the weights name no classes; give their class folders by --real "
                "(and --classes)"
            )
        strange = [name for name in classes.names if name not in classifier.classes]
        if strange:
            raise UserError(
                f"--classifier {args.classifier}: does not know class {strange[0]} of the "
                "generator; train one that "
                "does with train_classifier.py"
            )
        return Judge(classifier, [classifier.classes.index(name) for name in classes.names], sizes)
    columns = args.class_indices or (classes.indices if classes.total == IMAGENET else [])
    if len(columns) != classes.number or max(columns) >= IMAGENET:
        raise UserError(
            f"--classifier_model {args.classifier_model}: which of ImageNet's 1000 classes are "
            "the generator's "
            f"{classes.number}? Give --class_indices, e.g. 10-19"
        )
    return Judge(classifier, columns, sizes)


class Evaluation:
    """Everything that is measured in the one pass over the generated images.

    Opens classifier, Inception and real images first, so that a mistake is told before anything is
    drawn.
    """

    def __init__(self, args, arch, data, classes, labels):
        self.args, self.data, self.classes, self.labels = args, data, classes, labels
        self.metrics = chosen_metrics(args.metrics)
        for flag in ("classifier", "classifier_model", "class_indices", "acc_sizes"):
            if getattr(args, flag) and "acc" not in self.metrics:
                raise UserError(f"--{flag}: is for --metrics acc; add acc or leave the flag out")
        self.inception = [name for name in self.metrics if name in INCEPTION]
        self.judge = make_judge(args, classes, arch.imsize) if "acc" in self.metrics else None
        self.kept = Kept(labels, args.pairs) if "msssim" in self.metrics else None
        self.gallery = Gallery(arch.num_classes)
        if self.kept and data is not None and min(data.counts) < 2:
            alone = data.classes[data.counts.index(1)]
            raise UserError(
                f"--real {args.real}: one image of class {alone}; msssim compares pairs. Leave "
                "msssim out"
            )
        if self.inception:
            self._prepare_inception()
        elif data is not None:
            for _ in data.pictures():  # a broken picture is told now, not when all is drawn
                pass
        elif args.real:
            raise UserError(
                f"--real {args.real}: no folder, and none of {', '.join(INCEPTION)} is asked for"
            )

    def _prepare_inception(self):
        from shared_metrics.scoring import KEEP, Extractor, check_metrics, read_real, statistics_of

        args, keep = self.args, KEEP if {"kid", "pr"} & set(self.inception) else 0
        self.extractor, self.real = Extractor(args.inception_weights, args.protocol), None
        if self.data is not None:
            pictures = self.data.pictures()
            self.real = statistics_of(
                pictures, self.extractor, keep, num_images=len(self.data), progress=True
            )
            self.real.source = args.real
        elif args.real:
            self.real = read_real(args.real, self.extractor, keep)
        check_metrics(self.inception, self.extractor, self.real)

    def run(self, batches):
        """Consume batches of (labels, images); returns the record's part on scores."""
        images = self._watched(batches)
        if self.inception:
            from shared_metrics.scoring import evaluate

            result = evaluate(
                images, self.extractor, self.inception, self.real, num_images=len(self.labels)
            )
        else:
            result = count_only(images)
        scores, per_class = self._paper_scores()
        names = {self.classes.name(y): values for y, values in sorted(per_class.items())}
        about = {"classifier": self.judge.classifier.info} if self.judge else {}
        return result | {"scores": scores | result["scores"], "per_class": names} | about

    def _watched(self, batches):
        """The images, each seen by all that gathers from the stream."""
        for labels, images in batches:
            self.gallery.update(images, labels)
            if self.judge:
                self.judge.update(images, labels)
            if self.kept:
                self.kept.update(images)
            yield images

    def _paper_scores(self):
        """(scores, {label: scores}) of accuracy and MS-SSIM, of generated and, where there are
        some, real images.
        """
        scores, per_class = {}, {}

        def put(name, values):
            for label, value in values.items():
                per_class.setdefault(label, {})[name] = value
            return float(np.mean(list(values.values())))

        if self.judge:
            scores |= self.judge.scores()
            put("class_accuracy", self.judge.per_class())
        if self.kept:
            values = self.kept.scores()
            scores["msssim"] = put("msssim", values)
            below = np.array(list(values.values())) < LEAST_DIVERSE
            scores[f"classes_below_msssim_{LEAST_DIVERSE}"] = float(below.mean())
        if self.data is not None and self.judge:
            real = self._judge_real()
            scores |= real.scores("_real")
            put("class_accuracy_real", real.per_class())
        if self.data is not None and self.kept:
            values = intra_class(
                Files(self.data.files, self.data.imsize), self.data.labels, self.args.pairs
            )
            scores["msssim_real"] = put("msssim_real", values)
        return scores, per_class

    def _judge_real(self):
        """A `Judge` that has seen as many real images as were drawn, evenly spread over the
        files.
        """
        judge = Judge(self.judge.classifier, self.judge.columns, self.judge.sizes[1:])
        count = min(len(self.labels), len(self.data))
        chosen = np.linspace(0, len(self.data) - 1, count).astype(int)
        labels, start = np.asarray(self.data.labels)[chosen], 0
        for images in center_crops([self.data.files[i] for i in chosen], self.data.imsize):
            judge.update(images, labels[start : start + len(images)])
            start += len(images)
        return judge


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


def show_samples(gallery, classes, folder, class_folder):
    """Write grid.png, a row a class with its first ten images, and <class>.png with its first
    hundred.
    """
    rows, columns = gallery.rows(), min(10, max(len(images) for images in gallery.images.values()))
    blank = np.full_like(gallery.images[rows[0]][0], 255)
    cells = [image for y in rows for image in (gallery.images[y] + [blank] * columns)[:columns]]
    save_png(
        grid(np.stack(cells), columns, row_labels=[classes.name(y) for y in rows]),
        folder / "grid.png",
    )
    for label, images in gallery.images.items():
        save_png(
            grid(np.stack(images), min(10, len(images))),
            class_folder / f"{classes.name(label)}.png",
        )


def show_latents(draw, noise, gallery, classes, folder):
    """Write class_swap.png and interpolation.png, a row a class.

    class_swap: the same latents in every row, so a column shows what is left when only the class
        changes (sec. 4.5).
    interpolation: eight steps on the line between the first two latents (sec. 4.5).
    Args: draw, function (noise (N, nz), labels (N,)) -> uint8 images; noise (10, nz).
    """
    rows = gallery.rows()
    names = [classes.name(y) for y in rows]
    share = np.linspace(0, 1, 8, dtype=np.float32)[:, None]
    line = (1 - share) * noise[:1] + share * noise[1:2]
    for name, latents in (("class_swap", noise[:10]), ("interpolation", line)):
        images = np.concatenate([draw(latents, np.full(len(latents), y)) for y in rows])
        save_png(grid(images, len(latents), row_labels=names), folder / f"{name}.png")


def show_nearest(gallery, data, classes, path, count=5):
    """Write nearest.png: the first image of each class and, beside it, its nearest real ones in
    pixel L1 (sec. 4.5).

    All real images are looked through, not those of its class alone. Returns: {class name: mean
        absolute difference
    of the nearest, in [0, 255]}.
    """
    rows = gallery.rows()
    queries = np.stack([gallery.images[y][0] for y in rows]).astype(np.int16)
    distances = np.concatenate(
        [[np.abs(q - p).mean((1, 2, 3)) for q in queries] for p in _int16(data)], axis=1
    )
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    files = Files(data.files, data.imsize)
    cells = [
        image
        for y, near in zip(rows, order, strict=True)
        for image in (gallery.images[y][0], *map(files.__getitem__, near))
    ]
    save_png(
        grid(np.stack(cells), len(cells) // len(rows), row_labels=[classes.name(y) for y in rows]),
        path,
    )
    return {
        classes.name(y): float(d[near[0]])
        for y, d, near in zip(rows, distances, order, strict=True)
    }


def _int16(data):
    return (batch.astype(np.int16) for batch in data.pictures())
