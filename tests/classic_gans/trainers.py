"""Tiny data and trainers for the tests of the rooms' updates and loops."""

import gzip
import re
import struct

import numpy as np
import paddle
import pytest

ALWAYS = "--device cpu --num_workers 0 --log_every 1 --keep_checkpoints 0"


def write_digits(folder, number=24, side=28):
    """IDX files of a training set, labels in turn, each digit a bright bar of its own."""
    folder.mkdir(parents=True)
    labels = np.arange(number, dtype=np.uint8) % 10
    images = np.random.default_rng(0).integers(0, 60, (number, side, side)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 3] = 250
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
        data = gzip.compress(header + array.tobytes())
        (folder / f"train-{name}-ubyte.gz").write_bytes(data)
    return folder


def args_of(gans, name, tmp_path, **flags):
    """The flags of train.py for a model. Args: gans, `paper("classic_gans")`."""
    words = [*ALWAYS.split(), "--output_dir", tmp_path / "out", "--data_dir", tmp_path / "data"]
    for flag, value in flags.items():
        words += [f"--{flag}", value]
    room = gans.rooms.room(name)
    args, _ = gans.train.parse_args([str(word) for word in words], name, room)
    return args


def copy_of(network):
    """{name: array} of all that a network holds."""
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def moved(before, after):
    """The names whose values differ, without BatchNorm's statistics."""
    names = set()
    for name, value in before.items():
        if not name.endswith(("._mean", "._variance")) and not np.array_equal(value, after[name]):
            names.add(name)
    return names


def adam(network, rate=2e-4):
    """The plain optimizer of a twin that a test writes out."""
    parameters = [p for p in network.parameters() if not p.stop_gradient]
    return paddle.optimizer.Adam(rate, beta1=0.5, beta2=0.999, parameters=parameters)


def step(optimizer, loss):
    optimizer.clear_grad()
    loss.backward()
    optimizer.step()


def assert_same(network, twin, idle=r"(?!)", atol=1e-6):
    """Every weight and buffer is the twin's.

    Args: idle, a regular expression of the biases that a norm layer cancels, whose gradients are
        rounding errors that Adam makes whole steps of, and of the means that they shift.
    """
    ours = copy_of(network)
    theirs = copy_of(twin)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if re.fullmatch(idle, name):
            continue
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5, atol=atol, err_msg=name)


def record(layer, calls, what):
    """Append what(inputs) at every pass through a layer to `calls`."""
    layer.register_forward_pre_hook(lambda layer, inputs: calls.append(what(inputs)))


class Pictures:
    """A data set of pairs of random pictures for tests that read no files."""

    def __init__(self, number=6, channels=(3, 3), size=32):
        rng = np.random.default_rng(7)
        self.items = []
        for _ in range(number):
            pair = [rng.uniform(-1, 1, (c, size, size)).astype("float32") for c in channels]
            self.items.append(tuple(pair))
        self.files_a = self.files_b = range(number)

    def __len__(self):
        return len(self.items)

    def load(self, index, rng):
        return self.items[index]


def batch_of(data, start, number):
    """`number` items of a data set as arrays (a, b)."""
    items = [data.load((start + i) % len(data), None) for i in range(number)]
    return tuple(np.stack(part) for part in zip(*items, strict=True))


def in_float64(build):
    """What `build` makes, a network with weights in float64."""
    paddle.set_default_dtype("float64")
    try:
        return build()
    finally:
        paddle.set_default_dtype("float32")


def slope(function, array, place, h=1e-6):
    """The central difference of a function of an array along one of its entries."""
    values = []
    for sign in (1, -1):
        moved_array = array.copy()
        moved_array[place] += sign * h
        values.append(function(moved_array))
    return (values[0] - values[1]) / (2 * h)


def check_penalty(penalty, D, channels):
    """A gradient penalty and its gradients against central differences in float64.

    Args: penalty, (D, real, fake, alpha) -> 0-d tensor; D, in float64, on (2, channels, 16, 16).
    """
    rng = np.random.default_rng(0)
    real, fake = rng.uniform(-1, 1, (2, 2, channels, 16, 16))
    alpha = np.array([0.3, 0.8]).reshape(2, 1, 1, 1)
    tensors = [paddle.to_tensor(array) for array in (real, fake, alpha)]
    value = penalty(D, *tensors)

    def score(x):
        with paddle.no_grad():
            return float(D(paddle.to_tensor(x)).sum())

    x = alpha * real + (1 - alpha) * fake  # one alpha a sample
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        gradient[place] = slope(score, x, place)
    norms = np.sqrt((gradient**2).sum((1, 2, 3)))
    assert float(value) == pytest.approx(((norms - 1) ** 2).mean(), rel=1e-6)

    value.backward()
    compared = 0
    for parameter in D.parameters():
        if parameter.stop_gradient or parameter.grad is None:
            continue
        weights = parameter.numpy()

        def changed(array, parameter=parameter):
            parameter.set_value(array)
            return float(penalty(D, *tensors))

        for place in list(np.ndindex(weights.shape))[:: max(1, weights.size // 6)]:
            expected = slope(changed, weights, place)
            ours = float(parameter.grad.numpy()[place])
            assert ours == pytest.approx(expected, rel=1e-4, abs=1e-8), parameter.name
            compared += 1
        parameter.set_value(weights)
    assert compared > 20
