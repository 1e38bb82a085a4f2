"""Mean, covariance and (where asked for) a sample of a stream of features, and the files that hold
them.
"""

import pickle
from pathlib import Path

import numpy as np

from shared_metrics import files, process, statistics_files
from shared_metrics.errors import UserError
from shared_metrics.protocols import get_protocol

CHUNK = 1024  # rows added at a time: rank-k updates of a 2048 x 2048 matrix are slow row by row
FORMATS = ("npz", "mmgen", "mmagic", "stylegan")


class Statistics:
    """Number, mean and covariance (N - 1) of features (n, D), summed in float64 one batch after
    another.

    Args:
        keep: how many features to keep as well (KID and precision/recall need them). Of more, a
            random sample is kept that depends on the images' numbers only: not on batches, nor on
            how processes share them.
        info: what the features are (protocol, variant, weights_sha256, comparable, resolution);
            travels with the file.
    Without `keep`, memory does not grow with the number of features. `number` is None where a file
    does not tell it.
    """

    def __init__(self, keep=0, **info):
        self.keep = keep
        self.info = info
        self.source = None  # the file or folder they come from, for the result record
        self.notes = ()  # what a reader of scores against them should know
        self.number = 0
        # numbers of the kept images (k,), their features (k, D) float32
        self.kept = np.zeros(0, np.int64), None
        self._sum = None
        self._outer = None
        self._moments = None  # (mean, covariance) where a file tells these alone
        self._waiting = []  # rows not yet added to the sums
        self._rows = 0

    @classmethod
    def from_moments(cls, mean, cov, number=None, **info):
        """Statistics with this mean (D,) and covariance (D, D); they cannot be updated further."""
        stats = cls(**info)
        mean = np.asarray(mean, np.float64)
        cov = np.asarray(cov, np.float64)
        if mean.ndim != 1 or cov.shape != (mean.size, mean.size):
            raise ValueError(f"mean {mean.shape} and covariance {cov.shape}: need (D,) and (D, D)")
        if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
            raise ValueError("mean or covariance holds NaN or infinite values")
        stats.number = number
        stats._moments = mean, cov
        return stats

    def update(self, features, indices=None):
        """Add features (n, D) of the images number `indices` (default: the next ones). ValueError
        for NaN or infinity."""
        if self._moments is not None:
            raise ValueError("statistics read from a file cannot be updated")
        features = np.asarray(features)
        if features.ndim != 2 or not np.isfinite(features).all():
            raise ValueError(
                f"features {features.shape}: need (n, D) without NaN or infinite values"
            )
        if not len(features):
            return
        if self.keep:
            indices = (
                np.arange(self.number, self.number + len(features))
                if indices is None
                else np.asarray(indices)
            )
            self._keep(indices, features.astype(np.float32))
        self.number += len(features)
        self._waiting.append(features.astype(np.float64))
        self._rows += len(features)
        if self._rows >= CHUNK:
            self._flush()

    def _keep(self, indices, features):
        """Of the kept and these, keep the `keep` images whose numbers have the lowest hash, in the
        order of the numbers."""
        old = self.kept
        indices = np.concatenate([old[0], indices])
        features = features if old[1] is None else np.concatenate([old[1], features])
        if len(indices) > self.keep:
            chosen = np.argpartition(hashed(indices), self.keep - 1)[: self.keep]
            indices = indices[chosen]
            features = features[chosen]
        order = np.argsort(indices, kind="stable")
        self.kept = indices[order], features[order]

    @property
    def features(self):
        """The kept features (k, D) float32, in the order of the images; None without `keep`."""
        return self.kept[1]

    def _flush(self):
        if not self._rows:
            return
        x = np.concatenate(self._waiting)
        self._waiting = []
        self._rows = 0
        if self._sum is None:
            dimensions = x.shape[1]
            self._sum = np.zeros(dimensions)
            self._outer = np.zeros((dimensions, dimensions))
        self._sum += x.sum(axis=0)
        self._outer += x.T @ x

    def sums(self):
        """(number, sum of x (D,), sum of x x^T (D, D)) so far; the arrays are the live ones, None
        before any feature."""
        self._flush()
        return self.number, self._sum, self._outer

    def merge(self, other):
        """Add the features that `other` has seen (of images with other numbers)."""
        number, total, outer = other.sums()
        if not number:
            return
        self._flush()
        self.number += number
        self._sum = total.copy() if self._sum is None else self._sum + total
        self._outer = outer.copy() if self._outer is None else self._outer + outer
        if self.keep and other.features is not None:
            self._keep(*other.kept)

    def join(self, share, dimensions):
        """Put the sum over all processes in place of this one's; every one of them calls this.

        Args: share, (this process, how many there are); dimensions, D, which a process that has
            seen no image cannot know.
        """
        number, total, outer = self.sums()
        if total is None:
            total = np.zeros(dimensions)
            outer = np.zeros((dimensions, dimensions))
        self.number = int(process.add_up(np.array([number]))[0])
        self._sum = process.add_up(total)
        self._outer = process.add_up(outer)
        if self.keep:
            numbers, features = self.kept
            features = np.zeros((0, dimensions)) if features is None else features
            numbers = process.gather_rows(numbers[:, None], share)[:, 0]
            features = process.gather_rows(features, share)
            self.kept = np.zeros(0, np.int64), None
            self._keep(numbers.astype(np.int64), features.astype(np.float32))

    @property
    def mean(self):
        return self.moments()[0]

    @property
    def cov(self):
        return self.moments()[1]

    def moments(self):
        """(mean (D,), covariance (D, D)) in float64. Raises: ValueError for fewer than two
        features.
        """
        if self._moments is not None:
            return self._moments
        if self.number < 2:
            raise ValueError(f"{self.number} image(s): a covariance needs at least 2")
        n, total, outer = self.sums()
        return total / n, (outer - np.outer(total, total) / n) / (n - 1)

    def sha256(self):
        """sha256 (hex) over mean and covariance."""
        return files.digest(dict(zip(("mean", "cov"), self.moments(), strict=True)))

    def save(self, path, form="npz"):
        """Write them, atomically.

        form: "npz" with `mu` and `sigma` (pytorch-fid, clean-fid, StudioGAN and TTUR read it),
            `feats` (clean-fid's KID), num_items, version and `info`; or a peer's pickle, which
            cannot tell the protocol: "mmgen", "mmagic", "stylegan".
        """
        mean, cov = self.moments()
        if form == "npz":
            data = {
                "mu": mean,
                "sigma": cov,
                "num_items": -1 if self.number is None else self.number,
                "version": 1,
            }
            data.update({key: value for key, value in self.info.items() if value is not None})
            if self.features is not None:
                data["feats"] = self.features
        else:
            data = _peer_dict(form, mean, cov, self.number, path)
        with files.writing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **data) if form == "npz" else pickle.dump(data, file, protocol=4)

    @classmethod
    def load(cls, path, protocol=None):
        """Read a statistics file of ours or of a peer, told by its content: see
        `statistics_files`. Nothing in it is run.

        Args: protocol, what to take a file for that does not tell its own, as no peer's does.
        Raises: UserError naming the file: unreadable, without statistics, or without a protocol.
        """
        told = statistics_files.read(path)
        features = told["features"]
        if told["mean"] is not None:
            stats = cls.from_moments(told["mean"], told["cov"], told["number"], **told["info"])
            if features is not None:
                stats.kept = np.arange(len(features)), features.astype(np.float32)
        else:
            stats = cls(keep=len(features), **told["info"])
            stats.update(features)
        if stats.info.get("variant") is None:
            if protocol is None:
                raise UserError(
                    f"{path}: does not tell its protocol, and scores of different ones do not "
                    "compare. Say once which "
                    f"it is: python -m shared_metrics stats {path} -o NEW.npz --protocol "
                    "tf|pytorch-fid|clean|mmagic"
                )
            stats.info.update(
                protocol=protocol, variant=get_protocol(protocol).variant, comparable=True
            )
        stats.source = str(path)
        stats.notes = told["notes"]
        return stats


def hashed(numbers):
    """Random-looking uint64 of each number: the finaliser of SplitMix64 (Steele et al. 2014)."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _peer_dict(form, mean, cov, number, path):
    if form not in FORMATS:
        raise UserError(f"--format {form}: unknown. Choose one of {', '.join(FORMATS)}")
    if form == "mmagic":
        return {"real_mean": mean, "real_cov": cov}
    if number is None:
        raise UserError(
            f"{path}: --format {form} holds the number of images, which these statistics do not "
            "tell"
        )
    if form == "mmgen":
        return {
            "mean": mean.astype(np.float32),
            "cov": cov,
            "size": number,
            "name": Path(path).stem,
        }
    scatter = cov * (number - 1) + number * np.outer(mean, mean)  # StyleGAN keeps sums
    return {
        "num_items": number,
        "num_features": len(mean),
        "capture_all": False,
        "capture_mean_cov": True,
        "max_items": number,
        "all_features": None,
        "raw_mean": mean * number,
        "raw_cov": scatter,
    }
