"""Networks that only draw or judge, run as fast as the CPU can: `Runner`.

On CPU a network becomes a program of Paddle Inference with oneDNN where enough is asked of it to
pay for the seconds that this takes; otherwise, and on GPU, it runs as the layer that it is.
"""

import contextlib
import copy
import functools
import tempfile
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from shared_metrics import native, process
from shared_metrics.fast import fold_spectral_norm

# What must pass through a network to be worth a program: 1024 pictures of 32 px, 16 of 256 px.
PIXELS = 2**20
# How much a program's numbers may differ from the layer's, of the largest or of 1, by rounding:
# those of CycleGAN's 24 layers by 1.2e-5, while the layers' own are 0.5e-5 off from float64's.
LIMIT = 3e-5
# Numbers of a picture from which `_instance_norm` pays: its operations take longer to start.
POOLED = 2**17
# What Paddle raises for a network that it cannot trace or run as a program.
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, OSError)
FAILURES += (AssertionError, LookupError, MemoryError, SystemError)


class Runner:
    """Function: a network's inputs, arrays or tensors (N, ...) -> its output, an array (N, ...).

    The program has spectral norm folded into its weights, keeps the weights that it was made of,
    and gives the layer's numbers to LIMIT. The network is left as it is, and so is Paddle's random
    state.

    The layer runs on GPU; where fewer than `PIXELS` are to come, or as long as fewer have passed;
    while any part of the network is in training mode (statistics of the batch, dropout); for inputs
    of other shapes than the program's; and for good where a program cannot be made, fails or
    differs on the first two pictures. So the choice depends on the network and what it is asked,
    never on time.

    Attributes: pixels, of all pictures to come (0: the layer always; infinite: a program at once),
        None where that is not known; program, a function of arrays, None until there is one.
    """

    def __init__(self, network, pixels=None):
        self.network = network
        self.program = None
        self.pixels = pixels
        self._passed = 0  # pixels that the layer has drawn or judged
        self._shapes = None  # of the inputs that a program was tried for

    def __call__(self, *inputs):
        if _in_training(self.network) or paddle.get_device() != "cpu":
            return run_layer(self.network, *inputs)
        inputs = [np.ascontiguousarray(x) for x in inputs]
        shapes = [(x.shape[1:], x.dtype) for x in inputs]
        passed = self._passed + _pixels(inputs)
        due = (passed if self.pixels is None else self.pixels) >= PIXELS
        if due and self._shapes is None and len(inputs[0]):
            self._shapes = shapes
            self.program = checked_program(self.network, inputs)
        if self.program and shapes == self._shapes:
            try:
                return self.program(*inputs)
            except FAILURES:
                self.program = None
        output = run_layer(self.network, *inputs)
        self._passed += _pixels([*inputs, output])
        return output


def run_layer(network, *inputs):
    """The network's output, an array, for inputs that are arrays or tensors; no gradients."""
    tensors = [x if isinstance(x, paddle.Tensor) else paddle.to_tensor(x) for x in inputs]
    with paddle.no_grad():
        return network(*tensors).numpy()


def checked_program(network, inputs):
    """`program` of a network, None where it fails or gives another answer to the first two of these
    inputs than the network itself.
    """
    first = [x[:2] for x in inputs]
    random = paddle.get_rng_state()
    expected = run_layer(network, *first)
    try:
        run = program(network, inputs)
        difference = np.abs(run(*first) - expected).max()
    except FAILURES:
        return None
    finally:
        paddle.set_rng_state(random)
    return run if difference <= LIMIT * max(1.0, np.abs(expected).max()) else None  # None for NaN


def program(network, inputs):
    """Function: arrays of the shapes and types of `inputs`, in batches of any size -> the output of
    a network in eval mode, run by Paddle Inference with oneDNN.

    Raises: FAILURES.
    """
    network = copy.deepcopy(network)
    fold_spectral_norm(network)
    add_affine(network)
    pool_instance_norm(network)
    specs = []
    for i, x in enumerate(inputs):
        specs.append(paddle.static.InputSpec([None, *x.shape[1:]], str(x.dtype), f"x{i}"))
    with tempfile.TemporaryDirectory() as folder:
        with plain_leaky_relu():
            model = native.save_program(network, Path(folder) / "network", specs)
        names, run = open_program(model, onednn=True)
    order = [int(name[1:]) for name in names]
    return lambda *arrays: run(*(arrays[i] for i in order))


def open_program(program, weights=None, onednn=False, device="cpu"):
    """Load a program that Paddle saved, with its weights (beside it unless told).

    Returns: (its inputs' names, function: as many arrays -> its first output, an array).
    Raises: FAILURES.
    """
    weights = weights or program.with_suffix(".pdiparams")
    config = paddle.inference.Config(str(program), str(weights))
    config.disable_glog_info()  # a page of optimization passes on the screen
    if device == "cpu":
        config.disable_gpu()
    else:
        config.enable_use_gpu(256, int(device.partition(":")[2] or 0))
    if onednn:
        config.enable_mkldnn()
    threads = process.threads()
    config.set_cpu_math_library_num_threads(threads)
    predictor = paddle.inference.create_predictor(config)
    names = predictor.get_input_names()
    sources = [predictor.get_input_handle(name) for name in names]
    target = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(*arrays):
        for source, array in zip(sources, arrays, strict=True):
            source.reshape(array.shape)
            source.copy_from_cpu(np.ascontiguousarray(array))
        try:
            predictor.run()
        finally:  # it leaves all of Paddle, a training beside it too, with one thread
            paddle.base.core.set_num_threads(threads)
        return target.copy_to_cpu()

    return names, run


def add_affine(network):
    """Give BatchNorms without scale and shift those that change nothing.

    Paddle Inference's pass that joins a convolution, its bias and BatchNorm fails without them.
    """
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D) and layer.weight is None:
            one = paddle.nn.initializer.Constant(1.0)
            layer.weight = layer.create_parameter(layer._mean.shape, default_initializer=one)
            layer.bias = layer.create_parameter(layer._mean.shape, is_bias=True)


def pool_instance_norm(network):
    """Let InstanceNorm2Ds take their means by pooling, as oneDNN does in its convolutions' layout.

    Paddle's own runs on one thread and has each tensor turned to another layout and back. For
    networks of which no size but the number of pictures is unknown.
    """
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.InstanceNorm2D):
            layer.forward = functools.partial(_instance_norm, layer)


def _instance_norm(layer, x):
    if np.prod(x.shape[1:]) < POOLED:
        return type(layer).forward(layer, x)
    x = x - _mean(x)
    scale = (_mean(x * x) + layer._epsilon).rsqrt()  # (N, C, 1, 1)
    if layer.scale is None:
        return x * scale
    return x * (scale * layer.scale.reshape([1, -1, 1, 1])) + layer.bias.reshape([1, -1, 1, 1])


def _mean(x):
    """(N, C, H, W) -> (N, C, 1, 1), of columns, then of rows: one sum over all would round more."""
    return F.avg_pool2d(F.avg_pool2d(x, [x.shape[2], 1]), [1, x.shape[3]])


@contextlib.contextmanager
def plain_leaky_relu():
    """Context in which `F.leaky_relu`, of slopes up to 1, is traced as a maximum.

    Paddle 3's own, behind a convolution, ends the process when a program of oneDNN is made, and
    paddle2onnx 2.1 loses its slope.
    """

    def leaky_relu(x, negative_slope=0.01, name=None):
        return paddle.maximum(x, negative_slope * x)

    own = F.leaky_relu
    F.leaky_relu = leaky_relu
    try:
        yield
    finally:
        F.leaky_relu = own


def _in_training(network):
    return any(layer.training for layer in network.sublayers(include_self=True))


def _pixels(arrays):
    """Of the largest pictures (N, C, H, W) among these, 0 without any."""
    return max([len(x) * x.shape[2] * x.shape[3] for x in arrays if x.ndim == 4], default=0)
