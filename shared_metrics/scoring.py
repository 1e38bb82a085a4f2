"""Scores of a set of images in one pass: images -> features -> statistics, FID, IS, KID, precision
and recall.
"""

import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shared_metrics.errors import UserError
from shared_metrics.features import Extractor
from shared_metrics.image_sets import Source, open_source
from shared_metrics.inception import FEATURES
from shared_metrics.ranks import add_up, gather_rows, join_statistics
from shared_metrics.scores import (
    InceptionScore,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from shared_metrics.statistics import Statistics, hashed

METRICS = ("fid", "is", "kid", "pr")
KEEP = 10_000  # features kept for KID, precision and recall: 82 MB
NEIGHBOURS = 3  # k of precision and recall
ENOUGH = 2049  # images below which the covariance of 2048 features is singular

__all__ = ["Extractor", "check_metrics", "evaluate", "read_real", "statistics_of"]


def evaluate(
    images,
    extractor,
    metrics=("fid", "is"),
    real=None,
    num_images=None,
    splits=10,
    keep=KEEP,
    **how,
):
    """Scores of a set of images in one pass.

    Args:
        images: batches of uint8 RGB arrays (n, H, W, 3), or anything else that
            `image_sets.open_source` takes.
        extractor: an `Extractor`; its protocol decides.
        metrics: of "fid", "is", "kid" and "pr" (precision and recall).
        real: `Statistics` of the real images (`read_real`), needed for all but "is"; of the same
            protocol and weights, and with kept features for "kid" and "pr".
        num_images: how many images will come, so that IS need not keep a prediction per image;
            None: unknown.
        splits: parts of the Inception Score; fewer images give fewer parts.
        keep: features kept for "kid" and "pr", a random sample where there are more images; FID and
            IS keep none.
        how: quarters=True also gives FID of a random quarter, half and three quarters and its
            extrapolation to infinitely many images; share=(i, n) when n processes call this, this
            one the i-th: the scores are of all images together; progress=True shows a bar on a
            terminal.
    Returns: the parts of a result record (`results`) that it knows: scores, comparable, inception,
        real, samples, seconds, images_per_second; and `notes`, what a reader of the scores should
        know.
    Raises: UserError for fewer than 2 images, statistics that do not fit the extractor, or a metric
        that cannot be had.
    """
    metrics, start = tuple(metrics), time.perf_counter()
    check_metrics(metrics, extractor, real)
    done = _Pass(
        images,
        extractor,
        metrics,
        num_images,
        splits,
        keep if {"kid", "pr"} & set(metrics) else 0,
        **how,
    )
    stats = done.statistics()
    scores, notes = {}, list(done.source.notes)
    if "fid" in metrics:
        scores.update(frechet_distance(stats.mean, stats.cov, real.mean, real.cov))
        curve = done.fid_curve(real)
        if curve:
            scores["fid_infinity"] = float(
                np.polyfit([1 / n for n, _ in curve], [fid for _, fid in curve], 1)[1]
            )
            notes.append(
                "FID at random parts: " + ", ".join(f"{fid:.5g} at {n}" for n, fid in curve)
            )
    if "is" in metrics:
        scores.update(done.inception_score())
    if "kid" in metrics:
        size = min(1000, len(stats.features), len(real.features))
        scores.update(kernel_distance(stats.features, real.features, size=size))
    if "pr" in metrics:
        if min(len(stats.features), len(real.features)) <= NEIGHBOURS:
            raise UserError(
                f"--metrics pr: needs more than {NEIGHBOURS} images on either side; leave pr out"
            )
        scores.update(precision_recall(real.features, stats.features, NEIGHBOURS))
    seconds = time.perf_counter() - start
    return {
        "scores": scores,
        "comparable": extractor.info["comparable"],
        "inception": dict(extractor.info),
        "real": real
        and {"source": real.source, "number": real.number, "sha256": real.sha256(), **real.info},
        "samples": {
            "number": done.count,
            "source": done.source.name,
            "resolution": stats.info["resolution"],
        },
        "notes": [*notes, *_notes(metrics, stats, real, done.count, extractor)],
        "seconds": round(seconds, 2),
        "images_per_second": round(done.count / seconds, 2),
    }


def statistics_of(images, extractor, keep=0, num_images=None, **how):
    """`Statistics` of a set of images, with a sample of `keep` features; the other arguments as in
    `evaluate`.
    """
    done = _Pass(images, extractor, ("fid",), num_images, 1, keep, **how)
    stats = done.statistics()
    stats.source = done.source.name
    return stats


def read_real(source, extractor, keep=0, classes="", limit=None, **how):
    """`Statistics` of real images from a statistics file (.npz, .pkl) or from the images themselves
    (folder, .npz, .npy).

    Args: keep, how many features to keep (`KEEP` for KID, precision and recall); classes and limit
        as in `image_sets.open_source`; how as in `evaluate`.
    Raises: UserError when they are of another protocol or other weights than the extractor's.
    """
    if not Path(source).is_file() or holds_images(source):
        return statistics_of(
            open_source(source, classes=classes, limit=limit), extractor, keep, **how
        )
    if classes:
        raise UserError(
            f"--classes {classes}: {source} holds statistics of all classes; give the folder of "
            "real images"
        )
    stats = Statistics.load(source)
    check_match(stats, extractor)
    return stats


def holds_images(path):
    """Whether the file is an array of images, as opposed to statistics."""
    try:
        open_source(path)
    except UserError:
        return False
    return True


def new_statistics(extractor, keep=0):
    """Empty `Statistics` labelled with the extractor's protocol and weights."""
    info = extractor.info
    names = {
        "protocol": "protocol",
        "variant": "variant",
        "weights_sha256": "sha256",
        "comparable": "comparable",
    }
    return Statistics(keep, **{ours: info[theirs] for ours, theirs in names.items()})


def check_match(real, extractor):
    """UserError when the statistics were made with another resize or other weights than the
    extractor's.
    """
    ours, theirs = extractor.info, real.info
    told = f"{real.source or 'the statistics of the real images'}: made"
    if real.mean.size != FEATURES:
        raise UserError(
            f"{told} of {real.mean.size} features an image, not the {FEATURES} of Inception's "
            "last pooling"
        )
    if theirs.get("variant") != ours["variant"]:
        raise UserError(
            f"{told} under protocol {theirs.get('protocol')} (resize {theirs.get('variant')!r}), "
            "the images are scored "
            f"under {ours['protocol']} ({ours['variant']!r}): not comparable. Give the same "
            "--protocol, or make the "
            "statistics again"
        )
    weights = theirs.get("weights_sha256")
    if (weights or ours["sha256"]) != ours["sha256"] or bool(
        theirs.get("comparable", True)
    ) != ours["comparable"]:
        raise UserError(
            f"{told} with Inception weights {(weights or 'published')[:12]}, the images are "
            "scored with "
            f"{ours['sha256'][:12]} ({ours['source']}): not comparable. Give the same "
            "--inception_weights, or make the "
            "statistics again"
        )


def check_metrics(metrics, extractor, real):
    """UserError when a metric is unknown, or cannot be had from these weights and these real
    `Statistics` (or None).
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise UserError(f"--metrics {','.join(metrics)}: choose from {', '.join(METRICS)}")
    if "is" in metrics:
        extractor.logits(
            np.zeros((1, FEATURES), np.float32)
        )  # raises when the weights have no classifier
    against = [name for name in metrics if name != "is"]
    if against and real is None:
        raise UserError(
            f"--metrics {','.join(against)}: needs real images to compare with (--real "
            "PATH_OR_STATS)"
        )
    if against:
        check_match(real, extractor)
    if {"kid", "pr"} & set(metrics) and real.features is None:
        raise UserError(
            f"--metrics {','.join(metrics)}: {real.source} keeps no features, which kid and pr "
            "need. Give the folder "
            "of real images, or make the file again: python -m shared_metrics stats FOLDER -o "
            f"FILE.npz --keep {KEEP}"
        )


def _notes(metrics, stats, real, count, extractor):
    if not extractor.info["comparable"]:
        yield "random Inception weights: these numbers compare with nothing but their like"
    if metrics == ("is",):
        return
    small = [str(n) for n in (count, real.number) if n is not None and n < ENOUGH]
    if "fid" in metrics and small:
        yield f"few images ({', '.join(small)}): FID is biased upwards; {ENOUGH} at the least, 10000 or more to publish"
    if real.number is not None and real.number != count:
        yield f"{count} images against {real.number} real ones: compare only scores of the same numbers"
    theirs = real.info.get("resolution")
    if theirs and theirs != stats.info["resolution"]:
        yield f"images of {stats.info['resolution']} against real ones of {theirs}: the difference counts in the scores"


class _Pass:
    """One pass over the images, gathering what the metrics need; in the end over all processes that
    share them.
    """

    def __init__(
        self,
        images,
        extractor,
        metrics,
        number,
        splits,
        keep,
        quarters=False,
        share=(0, 1),
        progress=False,
    ):
        self.source = images if isinstance(images, Source) else open_source(images, number)
        self.extractor, self.metrics, self.splits, self.count = extractor, metrics, splits, 0
        self.parts = [new_statistics(extractor, keep) for _ in range(4 if quarters else 1)]
        self.logits, self.score, self.sizes = [], None, set()
        if "is" in metrics and self.source.number:
            self.score = self._score(self.source.number)
        elif "is" in metrics and share[1] > 1:
            raise ValueError(
                "several processes can compute IS only of a known number of images (num_images)"
            )
        number = self.source.number
        mine = None if number is None else len(range(share[0], number, share[1]))
        with tqdm(
            total=mine, unit=" images", smoothing=0.1, disable=None if progress else True
        ) as bar:
            for numbers, batch in self.source.read(extractor.batch_size, *share):
                self._take(numbers, batch)
                bar.update(len(batch))
        if share[1] > 1:
            self._join(share)
        if self.count < 2:
            raise UserError(
                f"{self.source.name}: {self.count} image(s) to score; at least 2 are needed"
            )

    def _score(self, number):
        protocol = self.extractor.protocol
        return InceptionScore(
            number, min(self.splits, number), protocol.is_seed, protocol.is_equal_splits
        )

    def _take(self, numbers, batch):
        extractor, protocol, features = self.extractor, self.extractor.protocol, None
        self.sizes.update(image.shape[:2] for image in batch)
        self.count += len(batch)
        if self.metrics != ("is",):
            features = extractor.features(batch)
            part_of = hashed(numbers) % np.uint64(len(self.parts))
            for i, part in enumerate(self.parts):
                part.update(features[part_of == i], numbers[part_of == i])
        if "is" in self.metrics:
            if features is None or protocol.is_variant != protocol.variant:
                features = extractor.features(batch, protocol.is_variant)
            logits = extractor.logits(features, protocol.is_bias)
            if self.score:
                self.score.update(logits, numbers)
            else:
                self.logits.append(logits)

    def _join(self, share):
        """Sum everything over the processes; each then holds the whole."""
        for part in self.parts:
            join_statistics(part, share)
        if self.score:
            for name in ("count", "entropy", "probs"):
                setattr(self.score, name, add_up(getattr(self.score, name)))
        self.count = int(add_up(np.array([self.count]))[0])
        sizes = np.array(sorted(self.sizes)[:2]).reshape(-1, 2)  # two tell "mixed"
        self.sizes = {tuple(size) for size in gather_rows(sizes, share).astype(int).tolist()}

    def statistics(self):
        """`Statistics` of all images, with their resolution."""
        whole = self.parts[0]
        if len(self.parts) > 1:
            whole = new_statistics(self.extractor, whole.keep)
            for part in self.parts:
                whole.merge(part)
        whole.info["resolution"] = (
            "{1}x{0}".format(*next(iter(self.sizes))) if len(self.sizes) == 1 else "mixed"
        )
        return whole

    def fid_curve(self, real):
        """[(images, FID)] of growing random parts; [] unless quarters were asked for."""
        if len(self.parts) == 1:
            return []
        curve, sum_of_parts = [], new_statistics(self.extractor)
        for part in self.parts:
            sum_of_parts.merge(part)
            if sum_of_parts.number < 2:
                raise UserError(f"{self.count} images are too few for FID at quarters of them")
            fid = frechet_distance(sum_of_parts.mean, sum_of_parts.cov, real.mean, real.cov)["fid"]
            curve.append((sum_of_parts.number, fid))
        return curve

    def inception_score(self):
        if self.score is None:
            self.score = self._score(self.count)
            self.score.update(np.concatenate(self.logits), np.arange(self.count))
        return self.score.result()
