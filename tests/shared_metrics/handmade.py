"""Helpers: torch's containers written opcode by opcode, and what a test says of a loaded file."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from shared_metrics import weights
from shared_metrics.errors import UserError
from shared_metrics.torch_files import LEGACY_MAGIC


def assert_same(left, right):
    """Equal values, types and dtypes, all the way down."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        np.testing.assert_array_equal(left, right)
    else:
        assert left == right


def refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        weights.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def together(*parts):
    return b"(" + b"".join(parts) + b"t"


def numbers(values):
    return together(*map(number, values))


def dictionary(**items):
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def tensor(storage, key, count, offset, size, stride, legacy=False):
    """Opcodes of a tensor that lies in storage `key` of `count` numbers."""
    view = b"N" if legacy else b""
    kind = f"ctorch\n{storage}\n".encode()
    pid = together(text("storage"), kind, text(key), text("cpu"), number(count), view) + b"Q"
    place = number(offset) + numbers(size) + numbers(stride)
    requires_grad = b"\x89"  # False
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = together(pid, place, requires_grad, hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


STORAGES = {  # key -> (type, raw little-endian numbers)
    "0": ("FloatStorage", np.arange(24, dtype="<f4")),
    "1": ("BFloat16Storage", np.array([0x3F80, 0xC000, 0x3F00], dtype="<u2")),  # 1, -2, 0.5
    "2": ("HalfStorage", np.array([0.5, -3], dtype="<f2")),
    "3": ("LongStorage", np.array([-1, 2**40], dtype="<i8")),
    "4": ("BoolStorage", np.array([1, 0], dtype="|u1")),
}
BASE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
TENSORS = {  # name -> (key, offset, size, stride, expected)
    "whole": ("0", 0, (2, 3, 4), (12, 4, 1), BASE),
    "transposed": ("0", 0, (4, 3, 2), (1, 4, 12), BASE.transpose(2, 1, 0)),
    "slice": ("0", 12 + 2, (3,), (4,), BASE[1, :, 2]),
    "expanded": ("0", 5, (2, 2), (0, 0), np.full((2, 2), 5, np.float32)),
    "0-d": ("0", 7, (), (), np.array(7, np.float32)),
    "empty": ("0", 0, (0, 3), (3, 1), np.zeros((0, 3), np.float32)),
    "bfloat16": ("1", 0, (3,), (1,), np.array([1, -2, 0.5], np.float32)),
    "half": ("2", 0, (2,), (1,), np.array([0.5, -3], np.float16)),
    "long": ("3", 0, (2,), (1,), np.array([-1, 2**40])),
    "bool": ("4", 0, (2,), (1,), np.array([True, False])),
}
EXPECTED = {"state_dict": {name: row[-1] for name, row in TENSORS.items()}, "step": 3}


def torch_object(legacy=False):
    tensors = {}
    for name, (key, offset, size, stride, _) in TENSORS.items():
        storage, values = STORAGES[key]
        place = {"offset": offset, "size": size, "stride": stride}
        tensors[name] = tensor(storage, key, len(values), legacy=legacy, **place)
    return b"\x80\x02" + dictionary(state_dict=dictionary(**tensors), step=number(3)) + b"."


def torch_zip(data_pkl, storages=STORAGES, compression=zipfile.ZIP_STORED, **extra):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for key, (_, values) in storages.items():
            archive.writestr(f"archive/data/{key}", values.tobytes())
        for name, content in extra.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def torch_legacy(obj):
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    parts = [LEGACY_MAGIC, pickle.dumps(1001, 2), pickle.dumps(system, 2), obj]
    parts.append(pickle.dumps(list(STORAGES), 2))
    for _, values in STORAGES.values():
        parts += [struct.pack("<q", len(values)), values.tobytes()]
    return b"".join(parts)
