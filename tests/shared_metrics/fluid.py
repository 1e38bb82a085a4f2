"""The file of one variable of PaddlePaddle 1.x, written byte by byte."""

import struct

import numpy as np

CODES = {"int16": 1, "int32": 2, "int64": 3, "float16": 4, "float32": 5, "float64": 6, "uint8": 20}


def varint(number):
    """A whole number of at least 0 in a protocol buffer's coding."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def variable(array, levels=(), packed=False):
    """An array as fluid's save_op writes it; levels, offsets of a sequence's parts."""
    array = np.asarray(array)
    sides = [varint(side) for side in array.shape]
    description = b"\x08" + varint(CODES[str(array.dtype)])
    if packed:
        description += b"\x12" + varint(len(b"".join(sides))) + b"".join(sides)
    else:
        description += b"".join(b"\x10" + side for side in sides)
    head = struct.pack("<IQ", 0, len(levels))
    for level in levels:
        offsets = np.asarray(level, "<u8").tobytes()
        head += struct.pack("<Q", len(offsets)) + offsets
    return head + struct.pack("<Ii", 0, len(description)) + description + array.tobytes()
