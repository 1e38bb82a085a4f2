"""Handwritten digits: MNIST's IDX files, and a classifier of them, which is `classifier`'s on grey
pictures.
"""

import gzip
import zlib

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.files import open_regular
from shared_metrics.judges.classifier import Classifier, fit
from shared_metrics.judges.pictures import Pictures, resized, split

UINT8 = 0x08  # IDX's number for unsigned bytes


def read_idx(path, ndim):
    """The uint8 array of an IDX file, plain or gzip (LeCun's format: two zero bytes, the type, the
    number of axes, each axis as a big-endian uint32, the values).

    Args: ndim, the axes that it must have: 3 for images (N, H, W), 1 for labels (N,).
    Raises: UserError naming the file when it is missing, damaged, cut or of another kind.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); download it again") from None
    start = 4 + 4 * ndim
    if data[:4] != bytes([0, 0, UINT8, ndim]) or len(data) < start:
        raise UserError(
            f"{path}: no IDX file of bytes with {ndim} axes (images have 3, labels 1); give "
            "MNIST's own, such as train-images-idx3-ubyte.gz"
        )
    shape = np.frombuffer(data[4:start], ">u4").tolist()
    values = np.frombuffer(data, np.uint8, offset=start)
    if len(values) != np.prod(shape, dtype=object):
        raise UserError(
            f"{path}: {len(values)} values where its head says {' x '.join(map(str, shape))}; "
            "download it again"
        )
    return values.reshape(shape)


def open_data(args):
    """(pictures to train on, held-out pictures), RGB of args.imsize px."""
    images = read_idx(args.images, 3)
    labels = read_idx(args.labels, 1).astype(np.int64)
    if len(images) != len(labels) or not len(images):
        raise UserError(
            f"--labels {args.labels}: {len(labels)} labels for {len(images)} images of "
            f"{args.images}; give the two files of one set"
        )
    if labels.min() == labels.max():
        raise UserError(
            f"--labels {args.labels}: all are {labels[0]}; give two digits or more to tell apart"
        )
    classes = [str(digit) for digit in range(labels.max() + 1)]
    grey = np.repeat(images[..., None], 3, axis=3)
    pictures = resized(grey, args.imsize, args.imsize)
    chosen, held_out = split(len(labels), args.held_out, args.seed)
    # A mirrored digit is none: shifts alone.
    data = Pictures(pictures[chosen], labels[chosen], classes, np.asarray, shift=True)
    return data, Pictures(pictures[held_out], labels[held_out], classes, np.asarray)


def train(args):
    """`python -m shared_metrics.judges digits`."""
    fit(Classifier, *open_data(args), args)
