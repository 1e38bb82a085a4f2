"""FID, Inception Score, KID, precision and recall in one pass over images.

Of images as they are made (push), or of a set of them (pull, `evaluate`):

    scores = Scores([FeatureScores(Extractor(), ("fid", "is"), real, number=50_000)])
    for images in ...:                 # uint8 (n, H, W, 3)
        scores.update(images)
    record |= scores.result()
"""

import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shared_metrics import statistics_files
from shared_metrics.errors import UserError
from shared_metrics.features import EfficientNet, Extractor
from shared_metrics.image_sets import Source, open_source
from shared_metrics.process import add_up, gather_rows
from shared_metrics.scores import (
    InceptionScore,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from shared_metrics.statistics import Statistics, hashed

__all__ = ["Extractor", "FeatureScores", "Scores", "evaluate", "read_real", "statistics_of"]

MEASURES = ("fid", "is", "kid", "pr")  # of a `FeatureScores`
# What --metrics may name, by the network whose features it is over: the measure it stands for.
OF_INCEPTION = {name: name for name in MEASURES}
OF_EFFICIENTNET = {"fd_eff": "fid", "kd_eff": "kid", "pr_eff": "pr"}
METRICS = (*OF_INCEPTION, *OF_EFFICIENTNET)
AGAINST_REAL = tuple(name for name in METRICS if name != "is")
KEPT = ("kid", "kd_eff", "pr", "pr_eff")  # those that need the features of single images
KEEP = 10_000  # features kept for KID, precision and recall: 82 MB of Inception's
NEIGHBOURS = 3  # k of precision and recall


class FeatureScores:
    """The scores over one network's features, gathered as the images come.

    Args:
        network: ready to run, such as `features.Extractor`: `features(images)` (n, dimensions),
            `dimensions`, `name`, `info` and `batch_size`; for "is" also `logits` and `protocol`.
        metrics: of MEASURES; None gathers statistics alone.
        real: `Statistics` of the real images (`read_real`), needed for all but "is"; of the same
            protocol and weights, and with kept features for "kid" and "pr".
        number: how many images will come, so that IS need not keep a prediction per image; None:
            unknown.
        splits: parts of the Inception Score; fewer images give fewer parts.
        keep: features kept for "kid" and "pr", a random sample where there are more images; FID and
            IS keep none.
        quarters: also FID of a random quarter, half and three quarters, and its extrapolation to
            infinitely many images.
    Raises: UserError for a metric that cannot be had, or statistics that do not fit the network.
    """

    def __init__(
        self, network, metrics=None, real=None, number=None, splits=10, keep=KEEP, quarters=False
    ):
        if metrics is not None:
            check_metrics(metrics, network, real)
            keep = keep if {"kid", "pr"} & set(metrics) else 0
        self.network = network
        self.metrics = tuple(dict.fromkeys(metrics or ()))  # each once
        self.real = real
        self.splits = splits
        self.parts = [new_statistics(network, keep) for _ in range(4 if quarters else 1)]
        self.logits = []  # of all images, where their number is not known before
        self.score = self._new_score(number) if "is" in self.metrics and number else None

    def _new_score(self, number):
        protocol = self.network.protocol
        splits = max(1, min(self.splits, number // 2))  # IS of a single image is 1 whatever it is
        return InceptionScore(number, splits, protocol.is_seed, protocol.is_equal_splits)

    def update(self, images, numbers):
        """Take uint8 RGB images, array (n, H, W, 3) or list, and their numbers (n,) among all."""
        features = None
        if self.metrics != ("is",):
            features = self.network.features(images)
            part_of = hashed(numbers) % np.uint64(len(self.parts))
            for i, part in enumerate(self.parts):
                part.update(features[part_of == i], numbers[part_of == i])
        if "is" in self.metrics:
            self._update_inception_score(images, features, numbers)

    def _update_inception_score(self, images, features, numbers):
        protocol = self.network.protocol
        if features is None or protocol.is_variant != protocol.variant:
            features = self.network.features(images, protocol.is_variant)
        logits = self.network.logits(features, protocol.is_bias)
        if self.score:
            self.score.update(logits, numbers)
        else:
            self.logits.append(logits)

    def join(self, share):
        """Sum everything over the processes; each then holds the whole."""
        for part in self.parts:
            part.join(share, self.network.dimensions)
        if self.score:
            for name in ("count", "entropy", "probs"):
                setattr(self.score, name, add_up(getattr(self.score, name)))

    def statistics(self):
        """`Statistics` of all images."""
        if len(self.parts) == 1:
            return self.parts[0]
        whole = new_statistics(self.network, self.parts[0].keep)
        for part in self.parts:
            whole.merge(part)
        return whole

    def result(self, count, resolution):
        """({name: score}, notes for a reader of them) of `count` images of that resolution."""
        stats = self.statistics()
        real = self.real
        scores = {}
        notes = []
        if "fid" in self.metrics:
            scores |= frechet_distance(stats.mean, stats.cov, real.mean, real.cov)
        if "fid" in self.metrics and len(self.parts) > 1:
            curve = self._fid_curve(count)
            inverse = [1 / number for number, _ in curve]
            slope, intercept = np.polyfit(inverse, [fid for _, fid in curve], 1)
            scores["fid_infinity"] = float(intercept)
            points = [f"{fid:.5g} at {number}" for number, fid in curve]
            notes.append("FID at random parts: " + ", ".join(points))
        if "is" in self.metrics:
            scores |= self._inception_score(count)
        if "kid" in self.metrics:
            size = min(1000, len(stats.features), len(real.features))
            distance = kernel_distance(stats.features, real.features, size=size)
            scores |= distance
            if "kid_std" not in distance:
                name = score_name("kid_std", self.network)
                notes.append(
                    f"no {name}: each subset of {size} is the whole of a set, so that they do not "
                    "spread; it takes more images on either side than a subset has"
                )
        if "pr" in self.metrics:
            if min(len(stats.features), len(real.features)) <= NEIGHBOURS:
                name = metric_name("pr", self.network)
                raise UserError(
                    f"--metrics {name}: needs more than {NEIGHBOURS} images on either side; leave "
                    f"{name} out"
                )
            scores |= precision_recall(real.features, stats.features, NEIGHBOURS)
        notes += _notes(self, count, resolution)
        return {score_name(name, self.network): value for name, value in scores.items()}, notes

    def _fid_curve(self, count):
        """[(images, FID)] of growing random parts."""
        curve = []
        sum_of_parts = new_statistics(self.network)
        for part in self.parts:
            sum_of_parts.merge(part)
            if sum_of_parts.number < 2:
                raise UserError(f"{count} images are too few for FID at quarters of them")
            mean, cov = sum_of_parts.moments()
            distance = frechet_distance(mean, cov, self.real.mean, self.real.cov)
            curve.append((sum_of_parts.number, distance["fid"]))
        return curve

    def _inception_score(self, count):
        if self.score is None:
            self.score = self._new_score(count)
            self.score.update(np.concatenate(self.logits), np.arange(count))
        return self.score.result()


class Scores:
    """Scores of images as they come, over one feature network, several, or none: then it counts.

    Args:
        by_network: a `FeatureScores` each.
        share: (i, n) where n processes score together, this one the i-th: it takes the images
            number i, i + n, ..., and the scores are of all images.
        name: of the images, for messages.
    """

    def __init__(self, by_network=(), share=(0, 1), name="the images"):
        self.by_network = list(by_network)
        self.share = share
        self.name = name
        self.count = 0  # images so far
        self.sizes = set()  # their (height, width)
        for part in self.by_network:
            if share[1] > 1 and "is" in part.metrics and part.score is None:
                raise ValueError(
                    "several processes can compute IS only of a known number of images (num_images)"
                )
        self.start = time.perf_counter()

    def update(self, images):
        """Take the next uint8 RGB images: an array (n, H, W, 3), or a list of (H, W, 3) of any
        sizes.
        """
        index, processes = self.share
        numbers = index + processes * np.arange(self.count, self.count + len(images))
        for part in self.by_network:
            part.update(images, numbers)
        self.sizes.update(image.shape[:2] for image in images)
        self.count += len(images)

    def resolution(self):
        """ "64x48" (width first), or "mixed"."""
        if len(self.sizes) != 1:
            return "mixed"
        ((height, width),) = self.sizes
        return f"{width}x{height}"

    def join(self):
        """Put what all processes have gathered in place of this one's, after the last image."""
        if self.share[1] > 1:
            for part in self.by_network:
                part.join(self.share)
            self.count = int(add_up(np.array([self.count]))[0])
            sizes = np.array(sorted(self.sizes)[:2]).reshape(-1, 2)  # two tell "mixed"
            sizes = gather_rows(sizes, self.share).astype(int)
            self.sizes = {tuple(size) for size in sizes.tolist()}
        self.check_enough(self.count)

    def result(self):
        """What a result record (`results`) tells of these images, after the last of them: scores,
        comparable, inception (or another network's name), real, samples, seconds,
        images_per_second; and `notes`, what a reader of the scores should know.

        Raises: UserError for fewer than 2 images, where there is a network.
        """
        self.join()
        record = {"scores": {}, "comparable": False, "inception": None, "real": None, "notes": []}
        for part in self.by_network:
            network = part.network
            scores, notes = part.result(self.count, self.resolution())
            record["scores"] |= scores
            record["notes"] += [note for note in notes if note not in record["notes"]]
            record[network.name] = dict(network.info)
            if part.real is not None:
                record[score_name("real", network)] = about_real(part.real)
        networks = [part.network.info for part in self.by_network]
        record["comparable"] = bool(networks) and all(info["comparable"] for info in networks)
        seconds = time.perf_counter() - self.start
        record["samples"] = {"number": self.count, "resolution": self.resolution()}
        record["seconds"] = round(seconds, 2)
        record["images_per_second"] = round(self.count / seconds, 2)
        return record

    def check_enough(self, count):
        """UserError when so many images have no scores."""
        if self.by_network and count < 2:
            raise UserError(f"{self.name}: {count} image(s) to score; at least 2 are needed")


def score_name(name, network):
    """Under which name a record keeps what is of this network.

    Inception's scores bear the literature's names. FID and KID are of no other network: theirs are
    fd_NETWORK and kd_NETWORK.
    """
    if network.name == "inception":
        return name
    name = name.lower().replace("fid", "fd").replace("kid", "kd")
    return f"{name}_{network.name}"


def metric_name(measure, network):
    """What --metrics calls a measure over this network's features: kid, or kd_eff."""
    names = OF_EFFICIENTNET if network.name == "efficientnet" else OF_INCEPTION
    return next(name for name, of in names.items() if of == measure)


def about_real(real):
    """What a record tells of the real images' `Statistics`."""
    about = {"source": real.source, "number": real.number, "sha256": real.sha256()}
    return about | real.info


def feed(scores, source, progress=False):
    """Push the images of a `Source` through `Scores`, each process its share; progress=True shows a
    bar on a terminal.
    """
    index, processes = scores.share
    mine = None if source.number is None else len(range(index, source.number, processes))
    size = max(part.network.batch_size for part in scores.by_network)
    hidden = None if progress else True  # None: shown on a terminal
    with tqdm(total=mine, unit=" images", smoothing=0.1, disable=hidden) as bar:
        for images in source.read(size, index, processes):
            scores.update(images)
            bar.update(len(images))


def evaluate(
    images,
    extractor,
    metrics=("fid", "is"),
    real=None,
    num_images=None,
    splits=10,
    keep=KEEP,
    quarters=False,
    share=(0, 1),
    progress=False,
):
    """Scores of a set of images over one feature network, in one pass.

    Args:
        images: whatever `image_sets.open_source` takes, num_images being its `number`.
        extractor, metrics, real, splits, keep, quarters: as in `FeatureScores`; share as in
            `Scores`, progress as in `feed`.
    Returns: what `Scores.result` returns, and `source` among the samples.
    Raises: UserError for fewer than 2 images, statistics that do not fit the extractor, or a metric
        that cannot be had.
    """
    source = _source(images, num_images)
    part = FeatureScores(
        extractor,
        metrics,
        real,
        number=source.number,
        splits=splits,
        keep=keep,
        quarters=quarters,
    )
    scores = Scores([part], share=share, name=source.name)
    feed(scores, source, progress)
    record = scores.result()
    record["samples"]["source"] = source.name
    record["notes"] = [*source.notes, *record["notes"]]
    return record


def statistics_of(images, networks, keep=0, num_images=None, share=(0, 1), progress=False):
    """`Statistics` of a set of images, with a sample of `keep` features; the other arguments as in
    `evaluate`.

    Args: networks, one, or a list of them: then a list of `Statistics`, made in one pass.
    """
    if not isinstance(networks, list):
        return statistics_of(images, [networks], keep, num_images, share, progress)[0]
    source = _source(images, num_images)
    parts = [FeatureScores(network, keep=keep) for network in networks]
    scores = Scores(parts, share=share, name=source.name)
    feed(scores, source, progress)
    scores.join()
    statistics = [part.statistics() for part in parts]
    for stats in statistics:
        stats.info["resolution"] = scores.resolution()
        stats.source = source.name
        stats.notes = source.notes
    return statistics


def _source(images, number):
    return images if isinstance(images, Source) else open_source(images, number)


def read_real(
    source, networks, keep=0, classes="", limit=None, pictures=None, known=(), flag="--real", **how
):
    """`Statistics` of real images from a statistics file (.npz, .pkl) or from the images themselves
    (folder, .npz, .npy, `Source`).

    Args:
        networks: one, or a list of them, as in `statistics_of`.
        keep: how many features to keep (`KEEP` for KID, precision and recall).
        classes, limit: as in `image_sets.open_source`.
        pictures, known, flag: as in `image_sets.open_source`.
        how: as in `statistics_of`.
    Raises: UserError when they are of another protocol, other weights or another network.
    """
    if isinstance(source, Source):
        return statistics_of(source, networks, keep, **how)
    if not Path(source).is_file() or holds_images(source):
        of_paper = {"pictures": pictures, "known": known, "flag": flag}
        images = open_source(source, classes=classes, limit=limit, **of_paper)
        return statistics_of(images, networks, keep, **how)
    if classes:
        raise UserError(
            f"--classes {classes}: {source} holds statistics of all classes; give the folder of "
            "real images"
        )
    stats = Statistics.load(source)
    for network in networks if isinstance(networks, list) else [networks]:
        check_match(stats, network)
    return [stats] if isinstance(networks, list) else stats


def open_networks(
    metrics, inception_weights="auto", efficientnet_weights="auto", protocol="tf", batch_size=32
):
    """The feature networks that these of METRICS are over, ready to run: [(network, measures)].

    Raises: UserError for an unknown metric, and for weights that cannot be had.
    """
    if not metrics or not set(metrics) <= set(METRICS):
        raise UserError(f"--metrics {','.join(metrics)}: choose from {', '.join(METRICS)}")
    chosen = []
    measures = [OF_INCEPTION[name] for name in metrics if name in OF_INCEPTION]
    if measures:
        chosen.append((Extractor(inception_weights, protocol, batch_size), measures))
    measures = [OF_EFFICIENTNET[name] for name in metrics if name in OF_EFFICIENTNET]
    if measures:
        chosen.append((EfficientNet(efficientnet_weights, batch_size), measures))
    return chosen


def open_scores(
    networks,
    real=None,
    number=None,
    splits=10,
    quarters=False,
    share=(0, 1),
    name="the images",
    **how,
):
    """`Scores` over the networks that `open_networks` gives, the real images read in one pass.

    Args: real, whatever `read_real` takes, or None; number, splits, quarters as in `FeatureScores`;
        share and name as in `Scores`; how as in `read_real`.
    """
    against = [network for network, measures in networks if set(measures) - {"is"}]
    statistics = [None] * len(networks)
    if real and against:
        kept = any({"kid", "pr"} & set(measures) for _, measures in networks)
        keep = KEEP if kept else 0
        statistics = read_real(real, against, keep, share=share, **how)
        by_name = dict(zip([network.name for network in against], statistics, strict=True))
        statistics = [by_name.get(network.name) for network, _ in networks]
    parts = []
    for (network, measures), stats in zip(networks, statistics, strict=True):
        settings = {"number": number, "splits": splits, "quarters": quarters}
        parts.append(FeatureScores(network, measures, stats, **settings))
    return Scores(parts, share=share, name=name)


def holds_images(path):
    """Whether the file is an array of images, as opposed to statistics, which count first where it
    holds both.
    """
    try:
        open_source(path)
    except UserError:
        return False
    return not statistics_files.beside(path)


def new_statistics(network, keep=0):
    """Empty `Statistics` labelled with the network's protocol and weights."""
    info = network.info
    return Statistics(
        keep,
        protocol=info["protocol"],
        variant=info["variant"],
        weights_sha256=info["sha256"],
        comparable=info["comparable"],
    )


def check_match(real, network):
    """UserError when the statistics were made with another resize, other weights or another network
    than this.
    """
    ours = network.info
    theirs = real.info
    kind = network.name.capitalize()
    made = f"{real.source or 'the statistics of the real images'}: made"
    if real.mean.size != network.dimensions:
        raise UserError(
            f"{made} of {real.mean.size} features an image, not {kind}'s {network.dimensions}"
        )
    if theirs.get("variant") != ours["variant"]:
        raise UserError(
            f"{made} under protocol {theirs.get('protocol')} (resize {theirs.get('variant')!r}), "
            f"the images are scored under {ours['protocol']} ({ours['variant']!r}): not "
            "comparable. Give the same --protocol, or make the statistics again"
        )
    weights = theirs.get("weights_sha256")  # a peer's file tells none: they are the published ones
    others = weights and weights != ours["sha256"]
    if others or bool(theirs.get("comparable", True)) != ours["comparable"]:
        raise UserError(
            f"{made} with {kind} weights {(weights or 'published')[:12]}, the images are scored "
            f"with {ours['sha256'][:12]} ({ours['source']}): not comparable. Give the same "
            f"--{network.name}_weights, or make the statistics again"
        )


def check_metrics(metrics, network, real):
    """UserError when a metric is unknown, or cannot be had from this network and these real
    `Statistics` (or None).
    """
    if not metrics or not set(metrics) <= set(MEASURES):
        raise UserError(f"--metrics {','.join(metrics)}: choose from {', '.join(MEASURES)}")
    names = ",".join(metric_name(name, network) for name in metrics)
    if "is" in metrics:  # raises when the weights have no classifier
        network.logits(np.zeros((1, network.dimensions), np.float32))
    against = [metric_name(name, network) for name in metrics if name != "is"]
    if against and real is None:
        raise UserError(
            f"--metrics {','.join(against)}: needs real images to compare with (--real "
            "PATH_OR_STATS)"
        )
    if against:
        check_match(real, network)
    if {"kid", "pr"} & set(metrics) and real.features is None:
        raise UserError(
            f"--metrics {names}: {real.source} keeps no features, which kid and pr need. Give the "
            "folder of real images, or make the file again: python -m shared_metrics stats FOLDER "
            f"-o FILE.npz --keep {KEEP}"
        )


def _notes(scored, count, resolution):
    """What a reader of these `FeatureScores` should know."""
    network = scored.network
    real = scored.real
    yield from real.notes if real else ()
    if not network.info["comparable"]:
        kind = network.name.capitalize()
        yield f"random {kind} weights: these numbers compare with nothing but their like"
    if scored.metrics == ("is",):
        return
    enough = network.dimensions + 1  # below, the covariance of the features is singular
    small = [str(n) for n in (count, real.number) if n is not None and n < enough]
    if "fid" in scored.metrics and small:
        yield (
            f"few images ({', '.join(small)}): {score_name('FID', network)} is biased upwards; "
            f"{enough} at the least, 10000 or more to publish"
        )
    if real.number is not None and real.number != count:
        yield (
            f"{count} images against {real.number} real ones: compare only scores of the same "
            "numbers"
        )
    theirs = real.info.get("resolution")
    if theirs and theirs != resolution:
        yield (
            f"images of {resolution} against real ones of {theirs}: the difference counts in the "
            "scores"
        )
