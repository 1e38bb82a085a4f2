"""FID, Inception Score, KID, precision and recall: pure functions of arrays of samples (rows)."""

import numpy as np
from scipy.linalg import lapack

BLOCK = 1024  # rows of a kernel or distance matrix held at a time


def frechet_distance(mean1, cov1, mean2, cov2):
    """d^2 = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2) of two Gaussians.

    With C1 = F1 F1^T and C2 = F2 F2^T the last trace is the sum of the singular values of F1^T F2:
    real by construction, whatever the rank. The F are Cholesky factors; a rank-deficient C gives a
    narrow F.

    Args: means (D,), covariances (D, D), any float type; the work is done in float64.
    Returns: {"fid", "fid_mean_term", "fid_cov_term"}, floats, fid >= 0 and the sum of its two
        terms.
    Raises: ValueError for NaN or infinite entries and for shapes that do not fit.
    Source: Heusel et al. 2017, eq. 6.
    """
    mean1 = _finite(mean1, "mean1")
    mean2 = _finite(mean2, "mean2")
    cov1 = _finite(cov1, "cov1")
    cov2 = _finite(cov2, "cov2")
    d = mean1.size
    if not (mean1.shape == mean2.shape == (d,) and cov1.shape == cov2.shape == (d, d)):
        raise ValueError(
            f"means {mean1.shape} and {mean2.shape}, covariances {cov1.shape} and {cov2.shape}: "
            "need (D,) and (D, D)"
        )
    cross = _factor(cov1).T @ _factor(cov2)  # (rank1, rank2)
    if cross.shape[0] > cross.shape[1]:
        cross = cross.T
    # Singular values as roots of the smaller product's eigenvalues: faster than an SVD.
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh(cross @ cross.T), 0.0)).sum()
    total = np.trace(cov1) + np.trace(cov2)
    cov_term = max(float(total - 2.0 * trace), 0.0)  # below 0 by rounding only
    mean_term = float(np.square(mean1 - mean2).sum())
    return {"fid": mean_term + cov_term, "fid_mean_term": mean_term, "fid_cov_term": cov_term}


def _factor(cov):
    """F (D, rank) with F F^T = cov, for a symmetric positive semi-definite cov."""
    try:
        factor = np.linalg.cholesky(cov)
        pivots = np.diagonal(factor)
        if pivots.min() > 1e-5 * pivots.max():  # else what is left of them is rounding
            return factor
    except np.linalg.LinAlgError:
        pass
    if not np.any(cov):
        return np.zeros((len(cov), 0))
    # Slower, with pivoting: it stops at the numerical rank.
    factor, order, rank, _ = lapack.dpstrf(cov.T, lower=1)
    out = np.empty((len(cov), rank))
    out[order - 1] = np.tril(factor)[:, :rank]  # rows back in their order, which counts from 1
    return out


def _finite(x, name):
    x = np.asarray(x, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return x


class InceptionScore:
    """Inception Score of a stream: keeps one mean prediction per split, never the predictions.

    Args:
        number: images in all (the splits are cut from a permutation of them).
        splits: parts scored on their own, part i holds rows [i N // splits, (i + 1) N // splits);
            at most `number`.
        seed: numpy RandomState that permutes the rows first (torch-fidelity: 2020); None keeps
            their order (StyleGAN).
        equal_splits: parts of N // splits rows each, the rest unused (MMGeneration).
        classes: length of a row of logits.
    """

    def __init__(self, number, splits=10, seed=2020, equal_splits=False, classes=1008):
        if not 1 <= splits <= number:
            raise ValueError(f"{splits} splits of {number} images: need 1 <= splits <= images")
        order = np.arange(number)
        if seed is not None:
            order = np.random.RandomState(seed).permutation(number)
        used = number - number % splits if equal_splits else number
        self._split_of = np.full(number, splits)  # the unused rows' part comes last
        for i in range(splits):
            self._split_of[order[i * used // splits : (i + 1) * used // splits]] = i
        self.splits = splits
        self.count = np.zeros(splits + 1)  # images
        self.entropy = np.zeros(splits + 1)  # sum_i sum_y p log p
        self.probs = np.zeros((splits + 1, classes))  # sum_i p

    def update(self, logits, indices):
        """Take the logits (n, classes) of the images number `indices` (n,) of the whole set."""
        logits = _finite(logits, "logits")
        if len(indices) and indices.max() >= len(self._split_of):
            raise ValueError(f"{len(self._split_of)} images were announced, more came")
        log_p = logits - logits.max(axis=1, keepdims=True)  # so that no exp overflows
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        split = self._split_of[indices]
        member = (split == np.arange(len(self.count))[:, None]).astype(np.float64)  # (splits, n)
        self.count += member.sum(axis=1)
        self.entropy += member @ (p * log_p).sum(axis=1)
        self.probs += member @ p

    def result(self):
        """{"is", "is_std", "is_splits"}; raises ValueError when not every image has come."""
        announced = len(self._split_of)
        if self.count.sum() != announced:
            raise ValueError(f"{announced} images were announced, {int(self.count.sum())} came")
        count = self.count[: self.splits]
        mean_p = self.probs[: self.splits] / count[:, None]
        log_mean = np.log(np.where(mean_p > 0, mean_p, 1.0))  # 0 log 0 = 0
        scores = np.exp(self.entropy[: self.splits] / count - (mean_p * log_mean).sum(axis=1))
        return {"is": float(scores.mean()), "is_std": float(scores.std()), "is_splits": len(scores)}


def inception_score(logits, splits=10, seed=2020, equal_splits=False):
    """Inception Score exp(E_x KL(p(y|x) || p(y))); higher is better.

    Args: logits (N, classes) before the softmax; the others as in `InceptionScore`.
    Returns: {"is", "is_std" (population), "is_splits"}; 1 <= is <= classes.
    Source: Salimans et al. 2016, sec. 4.
    """
    logits = np.asarray(logits)
    number, classes = logits.shape
    score = InceptionScore(number, splits, seed=seed, equal_splits=equal_splits, classes=classes)
    score.update(logits, np.arange(number))
    return score.result()


def kernel_distance(features1, features2, subsets=100, size=1000, seed=2020):
    """KID: squared MMD, unbiased, under k(x, y) = (x.y / D + 1)^3.

    The mean over `subsets` pairs of `size` samples, drawn without replacement by numpy's
    RandomState(seed), from set 1 first, as torch-fidelity does. Small negative values are
    legitimate.
    Args: features (N1, D) and (N2, D).
    Returns: {"kid", "kid_std" (population), "kid_subsets", "kid_subset_size"}; without "kid_std"
        where a subset is the whole of a set, so that all are alike and spread by nothing.
    Raises: ValueError when a set holds fewer than `size` samples, or size < 2.
    Source: Binkowski et al. 2018, sec. 4.
    """
    x, y = _pair(features1, features2)
    if not 2 <= size <= min(len(x), len(y)):
        raise ValueError(
            f"subsets of {size} from {len(x)} and {len(y)} samples: need 2 <= size <= samples"
        )
    draw = np.random.RandomState(seed)
    in_x = np.zeros((subsets, len(x)))  # 1 where the sample is in the subset
    in_y = np.zeros((subsets, len(y)))
    for i in range(subsets):
        in_x[i, draw.choice(len(x), size, replace=False)] = 1
        in_y[i, draw.choice(len(y), size, replace=False)] = 1
    # Unbiased: pairs of a sample with itself are taken out again.
    within = _kernel_sums(x, x, in_x, in_x) - in_x @ _kernel((x * x).sum(axis=1), x.shape[1])
    within += _kernel_sums(y, y, in_y, in_y) - in_y @ _kernel((y * y).sum(axis=1), x.shape[1])
    values = within / (size * (size - 1)) - 2 * _kernel_sums(x, y, in_x, in_y) / size**2
    spread = {"kid_std": float(values.std())} if size < min(len(x), len(y)) else {}
    about = {"kid_subsets": subsets, "kid_subset_size": size}
    return {"kid": float(values.mean())} | spread | about


def _kernel(products, dimension):
    k = products / dimension + 1.0
    return k * k * k  # numpy's power is many times slower


def _kernel_sums(x, y, in_x, in_y):
    """For each subset the sum of k over its pairs, (subsets,).

    The kernel is computed once, by blocks of rows, for all subsets.
    """
    sums = np.zeros(len(in_x))
    for i in range(0, len(x), BLOCK):
        block = _kernel(x[i : i + BLOCK] @ y.T, x.shape[1])
        sums += ((in_x[:, i : i + BLOCK] @ block) * in_y).sum(axis=1)
    return sums


def precision_recall(real, generated, k=3):
    """Improved precision and recall.

    A set covers the balls around its samples that reach to their k-th nearest neighbour in the set,
    themselves excluded. Over Inception features (the paper's are VGG-16's) the values do not
    compare with VGG-based tables.
    Args: real (N1, D) and generated (N2, D) features.
    Returns: {"precision", share of generated samples that the real set covers; "recall", the
        reverse; "f_score"}.
    Raises: ValueError when a set has no k neighbours.
    Source: Kynkaanniemi et al. 2019, eq. 1 and 2.
    """
    real, generated = _pair(real, generated)
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"{len(real)} and {len(generated)} samples have no {k} neighbours each")
    centre = real.mean(axis=0)  # distances stay, rounding shrinks
    real = real - centre
    generated = generated - centre
    radius_real = _radii(real, k)
    radius_generated = _radii(generated, k)
    covered_generated = np.zeros(len(generated), bool)
    covered_real = np.zeros(len(real), bool)
    for i, squared in _squared_distances(real, generated):
        rows = slice(i, i + len(squared))
        covered_generated |= (squared <= radius_real[rows, None]).any(axis=0)  # eq. 1
        covered_real[rows] = (squared <= radius_generated).any(axis=1)
    precision = float(covered_generated.mean())  # eq. 2
    recall = float(covered_real.mean())
    f_score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f_score": f_score}


def _radii(x, k):
    """Squared distance (N,) of every sample to its k-th nearest other one."""
    radii = np.empty(len(x))
    for i, squared in _squared_distances(x, x):
        rows = np.arange(len(squared))
        squared[rows, i + rows] = np.inf  # no sample is its own neighbour
        radii[i + rows] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii


def _squared_distances(x, y):
    """Yield (first row, squared distances (rows, len(y))) block by block.

    What is equal but for rounding is 0 apart.
    """
    norm_x = (x * x).sum(axis=1)
    norm_y = (y * y).sum(axis=1)
    for i in range(0, len(x), BLOCK):
        norms = norm_x[i : i + BLOCK, None] + norm_y
        squared = norms - 2 * (x[i : i + BLOCK] @ y.T)
        squared[squared < 1e-12 * norms] = 0.0
        yield i, squared


def _pair(features1, features2):
    x = _finite(features1, "features")
    y = _finite(features2, "features")
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features {x.shape} and {y.shape}: need (N1, D) and (N2, D)")
    return x, y
