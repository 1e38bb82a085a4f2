"""Multi-scale structural similarity of image pairs, and its mean within classes.

The latter measures (lacking) diversity. No library does it: scikit-image has the single-scale SSIM
only, and pytorch-msssim and TensorFlow refuse the 32 px images that this is for (their window never
shrinks) and need another framework.
"""

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.process import rng

# Of the scales, from the finest (Wang et al. 2003, sec. 3.2).
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11  # side of the Gaussian window, in pixels
SIGMA = 1.5
K1 = 0.01  # keep the quotients finite where images are black or flat
K2 = 0.03
RANGE = 255.0  # of the pixels
BATCH = 25  # pairs compared at a time


def ms_ssim(a, b):
    """MS-SSIM of pairs of images, each channel by itself, then averaged.

    Structure and contrast are compared at five scales, each half the side of the one before (means
    of 2x2 pixels), the luminance at the coarsest only. Windows lie wholly inside the image; where a
    scale is smaller than the window of 11 pixels, the window becomes as large as the image and its
    sigma shrinks in proportion, as in the code that came with TensorFlow's image compression models
    of 2016: so images from 16 px on have five scales. A scale's mean below 0 (images that are each
    other's negative) counts as 0: its root would not be real.

    Args: a, b, uint8 (N, H, W, 3) or (N, H, W, 1), 16 px or more on the short side.
    Returns: (N,) float64 in [0, 1]; 1 for equal images.
    Raises: ValueError on other shapes, dtypes or smaller images.
    Source: Wang, Simoncelli, Bovik 2003, eq. 7.
    """
    a = np.asarray(a)
    b = np.asarray(b)
    if a.shape != b.shape or a.ndim != 4 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(
            "need two uint8 (N, H, W, C) arrays of one shape, "
            f"got {a.dtype} {a.shape}, {b.dtype} {b.shape}"
        )
    if min(a.shape[1:3]) < 2 ** (len(WEIGHTS) - 1):
        raise ValueError(
            f"images of {a.shape[2]}x{a.shape[1]}: five scales need 16 px on the short side"
        )
    a = np.ascontiguousarray(a.transpose(0, 3, 1, 2), np.float64)
    b = np.ascontiguousarray(b.transpose(0, 3, 1, 2), np.float64)
    score = np.ones(a.shape[:2])
    for scale, weight in enumerate(WEIGHTS):
        luminance, structure = ssim_terms(a, b)
        last = scale == len(WEIGHTS) - 1
        means = (luminance * structure if last else structure).mean(axis=(2, 3))  # (N, C)
        score *= np.maximum(means, 0.0) ** weight
        if not last:
            a = _half(a)
            b = _half(b)
    return score.mean(axis=1)


def ssim_terms(a, b):
    """Maps (N, C, H', W') of the luminance term and of contrast times structure.

    SSIM is the mean of their product.
    Args: a, b, float64 (N, C, H, W) in [0, 255].
    Source: Wang et al. 2004, eq. 6 and 13; 2003, eq. 1 to 3.
    """
    c1 = (K1 * RANGE) ** 2
    c2 = (K2 * RANGE) ** 2
    mean_a = _window(a)
    mean_b = _window(b)
    both = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = _window(a * b) - both
    variances = _window(a * a + b * b) - squares
    luminance = (2 * both + c1) / (squares + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return luminance, structure


def _window(x):
    """Means of x (N, C, H, W) under the Gaussian window, wherever it lies inside the image."""
    height, width = x.shape[2:]
    size = min(WINDOW, height, width)
    offsets = np.arange(size) - (size - 1) / 2
    kernel = np.exp(-(offsets**2) / (2 * (size * SIGMA / WINDOW) ** 2))
    kernel /= kernel.sum()
    # A Gaussian is separable: one matrix for the columns, one for the rows.
    return _shifts(kernel, height) @ x @ _shifts(kernel, width).T


def _shifts(kernel, side):
    """Matrix (side - size + 1, side) whose row i holds the kernel from column i on."""
    rows = side - len(kernel) + 1
    matrix = np.zeros((rows, side))
    for i, value in enumerate(kernel):
        matrix[np.arange(rows), np.arange(rows) + i] = value
    return matrix


def _half(x):
    """Means of 2x2 pixels; the last row or column of an odd side is left out."""
    height, width = x.shape[2:]
    x = x[:, :, : height // 2 * 2, : width // 2 * 2]
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def choose_pairs(labels, pairs=100, seed=0):
    """{label: (P, 2) positions}: random pairs of two different images of one class, no pair twice.

    P is `pairs`, or all pairs of the class where it has fewer.
    Raises: UserError for a class of a single image.
    """
    labels = np.asarray(labels)
    chosen = {}
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        total = len(members) * (len(members) - 1) // 2
        if not total:
            raise UserError(
                f"MS-SSIM: class {label} has one image, a pair needs two; "
                "draw more or leave the class out"
            )
        codes = rng(seed, "msssim", label).choice(total, min(pairs, total), replace=False)
        # Pair number k is (i, j) with j < i and k = i (i - 1) / 2 + j.
        i = ((1 + np.sqrt(1 + 8 * codes)) / 2).astype(np.int64)
        chosen[label] = np.stack([members[i], members[codes - i * (i - 1) // 2]], axis=1)
    return chosen


def intra_class(images, labels, pairs=100, seed=0):
    """{label: mean MS-SSIM of random pairs within the class}: low means diverse.

    Args: images, whatever gives the uint8 image (H, W, 3) at a position in `labels` by
        `images[position]` (an array, or a dict of just those that `choose_pairs` picks); labels
        (N,) integers; pairs, seed as in `choose_pairs`.
    Source: Odena et al. 2017, sec. 4.2.
    """
    scores = {}
    for label, chosen in choose_pairs(labels, pairs, seed).items():
        a = np.stack([images[i] for i in chosen[:, 0].tolist()])
        b = np.stack([images[i] for i in chosen[:, 1].tolist()])
        values = [ms_ssim(a[k : k + BATCH], b[k : k + BATCH]) for k in range(0, len(a), BATCH)]
        scores[label] = float(np.concatenate(values).mean())
    return scores
