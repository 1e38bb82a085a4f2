"""Feature networks, ready to run: uint8 images -> features and logits.

`Extractor` is the FID Inception network, `EfficientNet` the one that pip brings where Inception's
published weights cannot be had.
"""

import os
import tempfile
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import paddle
from PIL import Image

from shared_metrics import efficientnet, inception_weights
from shared_metrics.errors import UserError
from shared_metrics.inception import FEATURES, InceptionV3
from shared_metrics.process import threads_per_rank, usable_cores
from shared_metrics.protocols import get_protocol

SIZE = 299


@lru_cache(maxsize=64)
def bilinear(size, half_pixel):
    """(299, size) float32 matrix that resizes one axis bilinearly, without antialiasing.

    half_pixel: source = (i + 0.5) size / 299 - 0.5 (PyTorch); otherwise source = i size / 299
        (TensorFlow 1).
    """
    i = np.arange(SIZE, dtype=np.float32)
    scale = np.float32(size / SIZE)
    source = (
        np.maximum((i + np.float32(0.5)) * scale - np.float32(0.5), 0) if half_pixel else i * scale
    )
    low = np.minimum(source.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((SIZE, size), np.float32)
    np.add.at(matrix, (np.arange(SIZE), low), 1 - (source - low))
    np.add.at(matrix, (np.arange(SIZE), high), source - low)
    return matrix


def prepare(images, variant):
    """uint8 images (N, H, W, 3) -> the network's input (N, 3, 299, 299) float32, as the variant's
    peer makes it.

    variant: "torch" half-pixel bilinear, scaled to [-1, 1]; the others scale by (p - 128) / 128:
        "tf" bilinear
    without the half-pixel shift, "clean" Pillow bicubic on floats, clipped to 0..255, "pil" Pillow
    bicubic on bytes.
    """
    if variant == "clean":
        x = np.stack(
            [
                [_bicubic(image[:, :, c].astype(np.float32), SIZE) for c in range(3)]
                for image in images
            ]
        ).clip(0, 255)
    elif variant == "pil":
        x = _bicubic_bytes(images, SIZE)
    else:
        x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        if x.shape[2:] != (SIZE, SIZE):
            half_pixel = variant == "torch"
            x = bilinear(x.shape[2], half_pixel) @ x @ bilinear(x.shape[3], half_pixel).T
    if variant == "torch":
        return x / np.float32(127.5) - np.float32(1)
    return (x - np.float32(128)) / np.float32(128)


def prepare_efficientnet(images):
    """uint8 images (N, H, W, 3) -> EfficientNet-Lite0's input (N, 3, 224, 224) float32: Pillow
    bicubic on bytes of the whole picture, (p - 127) / 128.
    """
    return (_bicubic_bytes(images, efficientnet.SIZE) - np.float32(127)) / np.float32(128)


def _bicubic_bytes(images, size):
    """uint8 (N, H, W, 3) -> float32 (N, 3, size, size) of whole numbers in 0..255."""
    resized = np.stack([_bicubic(image, size) for image in images])
    return np.ascontiguousarray(resized.transpose(0, 3, 1, 2), dtype=np.float32)


def _bicubic(array, size):
    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BICUBIC))


class Extractor:
    """The FID Inception network, ready to run; on CPU through oneDNN (`paddle.inference`), on GPU
    as the layer itself.

    Args:
        weights: "auto" (published weights: cache, then download), "random" (scores comparable with
            nothing) or a file.
        protocol: "tf", "pytorch-fid", "clean" or "mmagic", see `protocols`; fixes how images are
            resized and scaled.
        batch_size: images in one pass through the network; features do not depend on it.
    `info` tells {"source", "sha256", "comparable", "protocol", "variant"} and belongs beside every
    number.
    """

    name = "inception"
    dimensions = FEATURES

    def __init__(self, weights="auto", protocol="tf", batch_size=32):
        self.protocol, self.batch_size = get_protocol(protocol), batch_size
        network = InceptionV3()
        state, info = inception_weights.load_inception(
            weights, inception_weights.expected_shapes(network)
        )
        self._classifier = state.pop("fc.weight", None), state.pop("fc.bias", None)
        network.set_state_dict({inception_weights.paddle_name(k): v for k, v in state.items()})
        self.info = {**info, "protocol": protocol, "variant": self.protocol.variant}
        self._run = _runner(network, SIZE)

    def features(self, images, variant=None):
        """Pooled features (N, 2048) float32 of uint8 RGB images: an array (N, H, W, 3) or a list of
        (H, W, 3) of any sizes.

        variant: another resize than the protocol's for FID (the protocol's IS may ask for one).
        """
        variant = variant or self.protocol.variant
        inputs = _batches(images, lambda group: prepare(group, variant), self.batch_size)
        return _concatenated(map(self._run, inputs), self.dimensions)

    def logits(self, features, bias=False):
        """Class logits (N, 1008) float32 of features (N, 2048); without the bias as the original
        Inception Score has it."""
        weight, offset = self._classifier
        if weight is None:
            raise UserError(
                f"{self.info['source']}: these weights have no classifier, so no Inception Score; "
                "leave `is` out"
            )
        logits = np.asarray(features, np.float32) @ weight.T
        return logits + offset if bias else logits


class EfficientNet:
    """EfficientNet-Lite0 with ImageNet weights, ready to run; on CPU through oneDNN, on GPU as the
    layer itself.

    Args:
        weights: "auto" (the file of the installed pip package) or a file with the same keys.
        batch_size: images in one pass through the network; features do not depend on it.
    `info` has the keys of `Extractor`'s. Distances over these features are neither FID nor KID.
    """

    name = "efficientnet"
    dimensions = efficientnet.FEATURES

    def __init__(self, weights="auto", batch_size=32):
        self.batch_size = batch_size
        network = efficientnet.EfficientNetLite0()
        state, info = efficientnet.load_efficientnet(
            weights, inception_weights.expected_shapes(network)
        )
        self._classifier = state.pop("_fc.weight"), state.pop("_fc.bias")
        network.set_state_dict({inception_weights.paddle_name(k): v for k, v in state.items()})
        self.info = {**info, "protocol": "efficientnet", "variant": "bicubic-224"}
        self._run = _runner(network, efficientnet.SIZE)

    def features(self, images):
        """Pooled features (N, 1280) float32 in [0, 6] of uint8 RGB images: an array (N, H, W, 3) or
        a list of (H, W, 3) of any sizes.
        """
        inputs = _batches(images, prepare_efficientnet, self.batch_size)
        return _concatenated(map(self._run, inputs), self.dimensions)

    def logits(self, features):
        """Class logits (N, 1000) float32 of features (N, 1280); the classes are
        `efficientnet.wnids()`.
        """
        weight, bias = self._classifier
        return np.asarray(features, np.float32) @ weight.T + bias


def _batches(images, prepare, size):
    """The network's inputs of at most `size` images each, one after another.

    Raises: ValueError for images that are not uint8 RGB.
    """
    groups = (
        [images]
        if isinstance(images, np.ndarray)
        else [np.asarray(image)[None] for image in images]
    )
    for group in groups:
        if group.dtype != np.uint8 or group.ndim != 4 or group.shape[3] != 3:
            raise ValueError(
                f"images are {group.dtype} {group.shape}: need uint8 (N, H, W, 3), RGB in 0..255 "
                "(images.to_uint8 turns a generator's [-1, 1] into that)"
            )
    if len(groups) == 1:
        whole = groups[0]
        return (prepare(whole[i : i + size]) for i in range(0, len(whole), size))
    ready = map(prepare, groups)
    return (np.concatenate([x, *islice(ready, size - 1)]) for x in ready)


def _concatenated(parts, dimensions):
    """The batches' features as one array; (0, dimensions) of no images."""
    return np.concatenate([np.zeros((0, dimensions), np.float32), *parts])


def _runner(network, size):
    """Function: float32 (N, 3, size, size) -> the network's features, on the chosen device."""
    if paddle.get_device().startswith("gpu"):
        return _layer(network)
    return _predictor(network, size)


def _layer(network):
    def run(x):
        with paddle.no_grad():
            return network(paddle.to_tensor(x)).numpy()

    return run


def _predictor(network, size):
    """The network as an oneDNN program: on CPU 2 to 3 times the layer's speed with Inception, 8
    times with EfficientNet, same numbers to 1e-5.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = paddle.static.InputSpec([None, 3, size, size], "float32")
        paddle.jit.save(network, str(Path(folder) / "network"), input_spec=[spec])
        model = next(p for p in Path(folder).iterdir() if p.suffix in (".json", ".pdmodel"))
        config = paddle.inference.Config(str(model), str(model.with_suffix(".pdiparams")))
        config.disable_gpu()
        config.disable_glog_info()
        config.enable_mkldnn()
        config.set_cpu_math_library_num_threads(_threads())
        predictor = paddle.inference.create_predictor(config)
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    target = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(x):
        source.reshape(x.shape)
        source.copy_from_cpu(np.ascontiguousarray(x))
        predictor.run()
        return target.copy_to_cpu()

    return run


def _threads():
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() else threads_per_rank(usable_cores())
