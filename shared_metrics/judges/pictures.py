"""What judges look at: square pictures with labels, and the arrays that networks take of them."""

import numpy as np
from PIL import Image

from shared_metrics.errors import UserError
from shared_metrics.process import rng as make_rng


class Pictures:
    """Square pictures with their labels, to train on or held out.

    Args: items, N files or pictures; labels, array (N, ...); classes, the names of what they count;
        read, function item -> uint8 (side, side, 3), which raises UserError naming a bad file;
        shift, move by up to an eighth of the side each way (mirrored at the edges); flip, mirror
        left-right with probability 1/2.
    """

    def __init__(self, items, labels, classes, read, shift=False, flip=False):
        self.items = items
        self.labels = labels
        self.classes = classes
        self.read = read
        self.shift = shift
        self.flip = flip

    def __len__(self):
        return len(self.items)

    def load(self, index, rng):
        """Picture uint8 (side, side, 3) and its label; `rng` draws shift and mirroring."""
        picture = self.read(self.items[index])
        if self.flip and rng.random() < 0.5:
            picture = picture[:, ::-1]
        if self.shift:
            side = len(picture)
            margin = side // 8
            top, left = rng.integers(2 * margin + 1, size=2)
            padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
            picture = padded[top : top + side, left : left + side]
        return picture, self.labels[index]

    def statistics(self, most=2000):
        """Mean and standard deviation (3,) of RGB in [0, 1] over some pictures, evenly spread."""
        chosen = np.unique(np.linspace(0, len(self) - 1, most).astype(int))
        moments = np.zeros((2, 3))
        for index in chosen:
            pixels = self.read(self.items[index]).reshape(-1, 3) / 255
            moments += pixels.mean(0), (pixels**2).mean(0)
        mean, square = moments / len(chosen)
        variance = square - mean**2
        return mean, np.sqrt(variance.clip(1e-6))  # pictures of one colour must not divide by 0


def split(count, share, seed):
    """Numbers of `count` pictures, drawn with `seed`: (to train on, held out), each ascending.

    Args: share, held out. Raises: UserError naming --held_out when one of the two is empty.
    """
    number = round(count * share)
    if not 0 < number < count:
        raise UserError(
            f"--held_out {share:g}: {number} of {count} pictures; give a share that leaves some to "
            "train on and some to test with"
        )
    order = make_rng(seed, "held_out").permutation(count)
    return np.sort(order[number:]), np.sort(order[:number])


def in_order(data, batch_size):
    """Batches (pictures, labels) of all held-out items, once; the last may be smaller."""
    for start in range(0, len(data), batch_size):
        items = [data.load(i, None) for i in range(start, min(start + batch_size, len(data)))]
        yield tuple(np.stack(part) for part in zip(*items, strict=True))


def resized(images, width, height):
    """uint8 images (N, H, W, 3) -> (N, height, width, 3), bilinear; the same array where they have
    that size.
    """
    if images.shape[1:3] == (height, width):
        return images
    pictures = [Image.fromarray(image) for image in images]
    pictures = [picture.resize((width, height), Image.Resampling.BILINEAR) for picture in pictures]
    return np.stack([np.asarray(picture) for picture in pictures])


def normalized(images, mean, std):
    """uint8 images (N, H, W, 3) -> float32 (N, 3, H, W), (x / 255 - mean) / std; mean, std: (3,) of
    RGB in [0, 1].
    """
    mean = np.asarray(mean, np.float32).reshape(1, 3, 1, 1)
    std = np.asarray(std, np.float32).reshape(1, 3, 1, 1)
    x = images.transpose(0, 3, 1, 2).astype(np.float32) / 255.0
    return np.ascontiguousarray((x - mean) / std)
