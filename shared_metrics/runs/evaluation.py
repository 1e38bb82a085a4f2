"""Scores while a run goes on (`--eval_every`), and the best of each so far."""

from functools import partial
from pathlib import Path

from shared_metrics import files
from shared_metrics.errors import UserError
from shared_metrics.features import EfficientNet, Extractor
from shared_metrics.scoring import FeatureScores, Scores, holds_images, read_real, statistics_of
from shared_metrics.statistics import Statistics

BETTER = {"fid": min, "is": max, "fd_efficientnet": min}


class Evaluation:
    """Scores a generator in training against one set of real images.

    Args:
        folder: the run's folder; `real_stats.npz` there keeps the statistics of the training
            images over Inception, `real_stats_efficientnet.npz` those over EfficientNet-Lite0, as
            long as the images are the same (`files.fingerprint`).
        real: statistics file or image folder; "": the training images.
        networks: [(feature network, measures)], see `open_networks`.
        eval_samples: images per evaluation.
        data: the training images' data set: its `pictures(skip_bad)`, all of them as scores see
            them, `crops(files, skip_bad)`, those in other files read alike, and `sources()`, the
            files they come from.
        skip_bad: leave out images that cannot be read.
        log: RunLog, which says what is compared with what.
        resumed: the run goes on, so the statistics in its folder are its own; what an earlier run
            left there is not used.
    Raises: UserError when real images are missing or do not fit, so before training.
    """

    def __init__(self, folder, real, networks, eval_samples, data, skip_bad, log, resumed):
        self.networks = _fitting(networks, real)
        self.number = eval_samples
        self.log = log
        self.told = set()  # notes that the log has
        if eval_samples < 2:
            raise UserError(
                f"--eval_every: {eval_samples} image to score, of one there is no FID or IS; give "
                "more test data, or a larger --eval_samples"
            )
        only = [network for network, _ in self.networks]
        weights = ", ".join(f"{network.name}: {network.info['source']}" for network in only)
        if real:
            log.info(f"evaluation: against {real}, {weights}")
            of_paper = {"pictures": partial(data.crops, skip_bad=skip_bad), "flag": "--real_stats"}
            self.real = read_real(real, only, known=getattr(data, "classes", ()), **of_paper)
            return
        cached = [folder / file_of(network) for network in only]
        fingerprint = files.fingerprint(data.sources())
        self.real = self._measured_before(cached, only, fingerprint) if resumed else None
        before = ", measured before" if self.real else ""
        log.info(f"evaluation: against the training images{before}, {weights}")
        if not self.real:
            pictures = data.pictures(skip_bad)
            self.real = statistics_of(pictures, only, num_images=len(data), progress=True)
            for path, stats in zip(cached, self.real, strict=True):
                stats.info["fingerprint"] = fingerprint
                stats.save(path)

    def _measured_before(self, cached, networks, fingerprint):
        """The statistics that this run has kept; None where they are not of these images."""
        if not all(path.exists() for path in cached):
            return None
        kept = [read_real(path, n) for path, n in zip(cached, networks, strict=True)]
        if any(stats.info.get("fingerprint") != fingerprint for stats in kept):
            self.log.info(
                f"{cached[0]}: of {kept[0].number} images that are not those of now (names, sizes "
                "or number differ); measured anew"
            )
            return None
        return kept

    def score(self, batches, iteration, best):
        """Score one generator.

        Args: batches, uint8 (n, H, W, 3) arrays of `eval_samples` images in all; best, {"fid":
            {"value", ...}, ...} of this run so far, which is brought up to date.
        Returns: (values for the log, names of the scores that are the best so far). A network of
            random weights orders no checkpoints: none of its scores is ever the best.
        """
        parts = []
        for (network, measures), real in zip(self.networks, self.real, strict=True):
            # Their number is left open: with --skip_bad_images fewer may come.
            parts.append(FeatureScores(network, measures, real))
        scores = Scores(parts)
        for images in batches:
            scores.update(images)
        result = scores.result()
        for note in [note for note in result["notes"] if note not in self.told]:
            self.told.add(note)
            self.log.info(f"note: {note}")
        random = result["inception"] and not result["inception"]["comparable"]
        values = {}
        improved = []
        for name in [name for name in BETTER if name in result["scores"]]:
            value = result["scores"][name]
            if random and name != "fd_efficientnet":
                values[f"{name}_not_comparable"] = value
                continue
            values[name] = value
            # An equal value is no improvement.
            if name not in best or BETTER[name](value, best[name]["value"]) != best[name]["value"]:
                number = result["samples"]["number"]
                best[name] = {"value": value, "iteration": iteration, "samples": number}
                improved.append(name)
        return values, improved


def open_networks(inception_weights, efficientnet_weights):
    """The feature networks that tell a run's progress: ([(network, measures)], line for the log).

    Inception where its published weights are at hand; else EfficientNet-Lite0, which beside a
    random Inception tells what that cannot. Raises: UserError where neither can be had.
    """
    try:
        networks = [(Extractor(inception_weights), ["fid", "is"])]
    except UserError as error:
        if inception_weights != "auto":
            raise
        try:
            networks = [(EfficientNet(efficientnet_weights), ["fid"])]
        except UserError as other:
            raise UserError(f"{error} Nor is there EfficientNet-Lite0: {other}") from None
        return networks, f"scores are over EfficientNet-Lite0, without Inception: {error}"
    note = ""
    if inception_weights == "random":
        try:
            networks.append((EfficientNet(efficientnet_weights), ["fid"]))
        except UserError as error:
            note = (
                f"a random Inception orders no checkpoints, and none will be kept as best: {error}"
            )
    return networks, note


def file_of(network):
    """The file in a run's folder that keeps the training images' statistics over this network."""
    return "real_stats.npz" if network.name == "inception" else f"real_stats_{network.name}.npz"


def _fitting(networks, real):
    """Those of the networks that a statistics file is of; all of them for anything else."""
    if not real or not Path(real).is_file() or holds_images(real):
        return networks
    size = Statistics.load(real).mean.size
    return [(n, measures) for n, measures in networks if n.dimensions == size] or networks
