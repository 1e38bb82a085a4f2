"""Tiny data and trainers for the tests of the rooms' updates and loops."""

import gzip
import re
import struct

import numpy as np
import paddle

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
