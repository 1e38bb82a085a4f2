"""Weights that PaddlePaddle 1.x (fluid) saved as a folder with one raw file for each variable.

A file holds, little endian: u32 version, 0; u64 number of levels of detail, each a u64 number of
bytes and these; u32 version, 0; i32 length of a message that tells the tensor's type and shape (a
protocol buffer: field 1 the type, field 2 each side); then the numbers. Nothing here needs Paddle.
"""

import math
import mmap
import os
import struct
from pathlib import Path

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.files import open_regular

TYPES = {0: "?", 1: "<i2", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 20: "u1", 21: "i1"}
TYPES[22] = "V2"  # bfloat16, which numpy has not
PROGRAM = "__model__"  # what save_inference_model writes beside the variables
MAX_DIMS = 16


def load_folder(folder):
    """{variable: array} of the files in a folder, as save_persistables and save_params wrote them.

    Raises: UserError naming the file that holds no variable, or the folder when it has no files.
    """
    files = sorted(p for p in Path(folder).iterdir() if p.is_file() and p.name[0] != ".")
    state = {path.name: load(path) for path in files if path.name != PROGRAM}
    if not state:
        raise UserError(f"{folder}: holds no variables; give the folder with one file for each")
    return state


def load(path):
    """The array in the file of one variable. Raises: UserError naming a file that holds none."""
    try:
        with open_regular(path) as file:
            return _parse(file.read())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (LookupError, MemoryError, OverflowError, ValueError, struct.error) as error:
        raise UserError(
            f"{path}: no variable of PaddlePaddle 1.x ({error}); each needs a file of its own, as "
            "save_persistables writes without `filename`"
        ) from None


def is_whole(path):
    """Whether a file of Paddle 2 or 3 that joins all variables of a network (.pdiparams) ends with
    the last of them: Paddle writes what a full disk has room for, and reads what there is.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:  # of a network without weights
            return True
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                place = 0
                while place < size:
                    dtype, shape, place = _head(data, place)
                    place += math.prod(shape) * dtype.itemsize
        except (ValueError, struct.error):
            return False
    return place == size


def _parse(data):
    dtype, shape, place = _head(data, 0)
    if dtype.kind == "V":
        raise ValueError("bfloat16, which Paddle 1.x had not")
    if math.prod(shape) * dtype.itemsize != len(data) - place:
        raise ValueError(f"{len(data) - place} bytes for {dtype} of shape {shape}")
    return np.frombuffer(data, dtype, offset=place).reshape(shape).copy()


def _head(data, place):
    """(dtype, shape, place of its numbers) of the variable that begins at a place."""
    version, levels = struct.unpack_from("<IQ", data, place)
    place += 12
    if version:
        raise ValueError(f"version {version}")
    for _ in range(levels):
        (length,) = struct.unpack_from("<Q", data, place)
        place += 8 + length
    version, length = struct.unpack_from("<Ii", data, place)
    place += 8
    if version or length < 0:
        raise ValueError(f"tensor version {version}, description of {length} bytes")
    kind, shape = _description(data[place : place + length])
    return np.dtype(TYPES[kind]), shape, place + length


def _description(message):
    """(type, shape) of a TensorDesc, whose sides stand one by one or packed together."""
    kind = None
    shape = []
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        value, place = _varint(message, place)
        if key == 0x08:  # field 1, a number
            kind = value
        elif key == 0x10:  # field 2, a number
            shape.append(value)
        elif key == 0x12:  # field 2, several numbers; `value` is their length in bytes
            end = place + value
            while place < end:
                side, place = _varint(message, place)
                shape.append(side)
        else:
            raise ValueError(f"field key {key}")
    if kind not in TYPES or len(shape) > MAX_DIMS:
        raise ValueError(f"type {kind}, {len(shape)} dimensions")
    return kind, shape


def _varint(data, place):
    """(number, next place): 7 bits a byte, the lowest first, a top bit where more follow."""
    number = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("its description is cut")
