"""Feature networks, ready to run: uint8 images -> features and logits.

`Extractor` is the FID Inception network, `EfficientNet` the one that pip brings where Inception's
published weights cannot be had.
"""

from functools import lru_cache
from itertools import islice

import numpy as np
from PIL import Image

from shared_metrics import efficientnet, inception_weights
from shared_metrics.errors import UserError
from shared_metrics.inception import FEATURES, InceptionV3
from shared_metrics.inference import Runner
from shared_metrics.protocols import get_protocol

SIZE = 299


@lru_cache(maxsize=64)
def bilinear(size, half_pixel):
    """(299, size) float32 matrix that resizes one axis bilinearly, without antialiasing.

    half_pixel: source = (i + 0.5) size / 299 - 0.5 (PyTorch); otherwise source = i size / 299
        (TensorFlow 1).
    """
    # In float32 as the peers compute it: another rounding may take other pixels.
    i = np.arange(SIZE, dtype=np.float32)
    scale = np.float32(size / SIZE)
    half = np.float32(0.5)
    source = np.maximum((i + half) * scale - half, 0) if half_pixel else i * scale
    low = np.minimum(source.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((SIZE, size), np.float32)
    # Added, not set: at the edge both neighbours are one pixel.
    np.add.at(matrix, (np.arange(SIZE), low), 1 - (source - low))
    np.add.at(matrix, (np.arange(SIZE), high), source - low)
    return matrix


def prepare(images, variant):
    """uint8 images (N, H, W, 3) -> Inception's input (N, 3, 299, 299) float32.

    variant: the peer whose way it is. "torch" is half-pixel bilinear, scaled to [-1, 1]; the others
        scale by (p - 128) / 128: "tf" bilinear without the half-pixel shift, "clean" Pillow bicubic
        on floats, clipped to 0..255, "pil" Pillow bicubic on bytes.
    """
    if variant == "clean":
        pictures = []
        for image in images.astype(np.float32):
            pictures.append([_bicubic(image[:, :, c], SIZE) for c in range(3)])
        x = np.stack(pictures).clip(0, 255)  # bicubic weights are negative in places
    elif variant == "pil":
        x = _bicubic_bytes(images, SIZE)
    else:
        x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        height, width = x.shape[2:]
        if (height, width) != (SIZE, SIZE):
            half_pixel = variant == "torch"
            x = bilinear(height, half_pixel) @ x @ bilinear(width, half_pixel).T
    if variant == "torch":
        return x / np.float32(127.5) - np.float32(1)
    return (x - np.float32(128)) / np.float32(128)


def prepare_efficientnet(images):
    """uint8 images (N, H, W, 3) -> EfficientNet-Lite0's input (N, 3, 224, 224) float32.

    The whole picture by Pillow's bicubic on bytes, then (p - 127) / 128.
    """
    return (_bicubic_bytes(images, efficientnet.SIZE) - np.float32(127)) / np.float32(128)


def _bicubic_bytes(images, size):
    """uint8 (N, H, W, 3) -> float32 (N, 3, size, size) of whole numbers in 0..255."""
    resized = np.stack([_bicubic(image, size) for image in images])
    return np.ascontiguousarray(resized.transpose(0, 3, 1, 2), dtype=np.float32)


def _bicubic(array, size):
    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BICUBIC))


class Extractor:
    """The FID Inception network, ready to run.

    It runs on CPU as an oneDNN program, on GPU as the layer itself, see `inference`.
    Args:
        weights: "auto" (published weights: cache, then download), "random" (scores comparable with
            nothing) or a file.
        protocol: "tf", "pytorch-fid", "clean" or "mmagic", see `protocols`; fixes how images are
            resized and scaled.
        batch_size: images in one pass through the network; features do not depend on it.
    Attributes: info, {"source", "sha256", "comparable", "protocol", "variant"}, which belongs
        beside every number.
    """

    name = "inception"
    dimensions = FEATURES

    def __init__(self, weights="auto", protocol="tf", batch_size=32):
        self.protocol = get_protocol(protocol)
        self.batch_size = batch_size
        network = InceptionV3()
        shapes = inception_weights.expected_shapes(network)
        state, info = inception_weights.load_inception(weights, shapes)
        # The network ends before the classifier, which some published files lack.
        self._classifier = state.pop("fc.weight", None), state.pop("fc.bias", None)
        network.set_state_dict({inception_weights.paddle_name(k): v for k, v in state.items()})
        self.info = {**info, "protocol": protocol, "variant": self.protocol.variant}
        self._run = Runner(network, pixels=float("inf"))

    def features(self, images, variant=None):
        """Pooled features (N, 2048) float32 of uint8 RGB images.

        Args: images, an array (N, H, W, 3) or a list of (H, W, 3) of any sizes; variant, another
            resize than the protocol's for FID (the protocol's IS may ask for one).
        """
        variant = variant or self.protocol.variant
        inputs = _batches(images, lambda group: prepare(group, variant), self.batch_size)
        return _concatenated(map(self._run, inputs), self.dimensions)

    def logits(self, features, bias=False):
        """Class logits (N, 1008) float32 of features (N, 2048).

        Without the bias as the original Inception Score has it.
        Raises: UserError when the weights came without the classifier.
        """
        weight, offset = self._classifier
        if weight is None:
            raise UserError(
                f"{self.info['source']}: these weights have no classifier, "
                "so no Inception Score; leave `is` out"
            )
        logits = np.asarray(features, np.float32) @ weight.T
        return logits + offset if bias else logits


class EfficientNet:
    """EfficientNet-Lite0 with ImageNet weights, ready to run.

    It runs as `Extractor` does. Distances over its features are
    neither FID nor KID.
    Args:
        weights: "auto" (the file of the installed pip package) or a file with the same keys.
        batch_size: images in one pass through the network; features do not depend on it.
    Attributes: info, with the keys of `Extractor`'s.
    """

    name = "efficientnet"
    dimensions = efficientnet.FEATURES

    def __init__(self, weights="auto", batch_size=32):
        self.batch_size = batch_size
        network = efficientnet.EfficientNetLite0()
        shapes = inception_weights.expected_shapes(network)
        state, info = efficientnet.load_efficientnet(weights, shapes)
        self._classifier = state.pop("_fc.weight"), state.pop("_fc.bias")
        network.set_state_dict({inception_weights.paddle_name(k): v for k, v in state.items()})
        self.info = {**info, "protocol": "efficientnet", "variant": "bicubic-224"}
        self._run = Runner(network, pixels=float("inf"))

    def features(self, images):
        """Pooled features (N, 1280) float32 in [0, 6] of uint8 RGB images.

        Args: images, an array (N, H, W, 3) or a list of (H, W, 3) of any sizes.
        """
        inputs = _batches(images, prepare_efficientnet, self.batch_size)
        return _concatenated(map(self._run, inputs), self.dimensions)

    def logits(self, features):
        """Class logits (N, 1000) float32 of features (N, 1280), ordered as `efficientnet.wnids`."""
        weight, bias = self._classifier
        return np.asarray(features, np.float32) @ weight.T + bias


def _batches(images, prepare, size):
    """The network's inputs of at most `size` images each, one after another.

    Raises: ValueError for images that are not uint8 RGB.
    """
    if isinstance(images, np.ndarray):
        groups = [images]
    else:
        groups = [np.asarray(image)[None] for image in images]
    for group in groups:
        if group.dtype != np.uint8 or group.ndim != 4 or group.shape[3] != 3:
            raise ValueError(
                f"images are {group.dtype} {group.shape}: need uint8 (N, H, W, 3), RGB in 0..255 "
                "(images.to_uint8 turns a generator's [-1, 1] into that)"
            )
    if len(groups) == 1:
        whole = groups[0]
        return (prepare(whole[i : i + size]) for i in range(0, len(whole), size))
    # Images of several sizes share a batch only once they are resized.
    ready = map(prepare, groups)
    return (np.concatenate([x, *islice(ready, size - 1)]) for x in ready)


def _concatenated(parts, dimensions):
    """The batches' features as one array; (0, dimensions) of no images."""
    return np.concatenate([np.zeros((0, dimensions), np.float32), *parts])
