"""Torch's weight containers without torch: zip (torch >= 1.6), the stream before it, TorchScript.

A tensor is (storage, offset, size, stride); storages are raw numbers.
Source of the layouts: torch/serialization.py.
"""

import io
import math
import zipfile

import numpy as np

from shared_metrics.archives import read_member
from shared_metrics.unpickle import GLOBALS, Opaque, StandIn, Unpickler, check_keys, plain

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of 0x1950a86a20f9469cfc6c
BFLOAT16 = "bfloat16"  # numpy has none: read as uint16, given as float32
# fmt: off
STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "|i1",
    "ByteStorage": "|u1", "BoolStorage": "|b1",
    "ComplexFloatStorage": "<c8", "ComplexDoubleStorage": "<c16",
}
# fmt: on


class Storage:
    """A run of numbers that tensors share; `data` is a 1-D array, None until it is read."""

    def __init__(self, dtype, count):
        if dtype not in STORAGES.values() or type(count) is not int or count < 0:
            raise ValueError("a storage of unknown type")
        self.dtype = dtype
        self.count = count
        self.data = None
        self.itemsize = 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize

    def fill(self, raw):
        if len(raw) != self.count * self.itemsize:
            raise EOFError("a storage is shorter than declared")
        self.data = from_bytes(raw, self.dtype)


class Tensor(StandIn):
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)."""

    name = "torch.Tensor"

    def __init__(self, storage, offset, size, stride, *_):
        self.storage = storage
        self.offset = offset
        self.size = size
        self.stride = stride

    def plain(self, budget, depth):
        data = self.storage.data
        numbers = (self.offset, *self.size, *self.stride)
        odd = any(type(n) is not int or n < 0 for n in numbers)
        if odd or len(self.size) != len(self.stride):
            raise ValueError("a tensor with an odd shape")
        if 0 in self.size:
            return np.zeros(self.size, data.dtype)
        budget.take(4 * math.prod(self.size) * data.itemsize)  # a file holds each number once
        # as_strided reads whatever memory it is pointed at: the last element must lie in the data.
        last = self.offset
        for n, step in zip(self.size, self.stride, strict=True):
            last += (n - 1) * step
        if last >= len(data):
            raise ValueError("a tensor reaches past its storage")
        strides = [data.itemsize * step for step in self.stride]  # torch counts numbers, not bytes
        view = np.lib.stride_tricks.as_strided(data[self.offset :], self.size, strides)
        return np.array(view, order="C")


class Module(StandIn):
    """An object of a TorchScript class: its attributes."""

    name = "TorchScript module"

    def set_state(self, state):
        if not isinstance(state, dict):
            raise ValueError("a TorchScript module without attributes")
        self.attributes = state

    def plain(self, budget, depth):
        return plain(self.attributes, budget, depth)


TORCH_GLOBALS = {
    **GLOBALS,
    ("torch._utils", "_rebuild_tensor"): Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
    ("torch.jit._pickle", "build_intlist"): list,
    ("torch.jit._pickle", "build_doublelist"): list,
    ("torch.jit._pickle", "build_boollist"): list,
    ("torch.jit._pickle", "build_tensorlist"): list,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}


class TorchUnpickler(Unpickler):
    """`storage_of(dtype, key, count)` gives the Storage for a persistent id."""

    def __init__(self, file, budget, storage_of=None):
        super().__init__(file, budget, names=TORCH_GLOBALS, encoding="utf-8")
        self.storage_of = storage_of

    def find_class(self, module, name):
        if module.split(".")[0] == "__torch__":
            return Module
        return super().find_class(module, name)

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *view = pid
        check_keys([key])
        if kind != "storage" or self.storage_of is None:
            raise ValueError("an unknown persistent id")
        if view and view[0] is not None:
            raise ValueError("a storage that is a view of another")
        return self.storage_of(dtype, key, count)


def from_bytes(raw, dtype):
    """Little-endian bytes -> 1-D array of that dtype; "bfloat16" becomes float32."""
    if dtype == BFLOAT16:  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, dtype)


def read_zip(path, budget):
    """The object of a torch zip; a TorchScript module becomes a flat {dotted name: array}."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("a zip archive, but not one of torch (no data.pkl)")
        root = pickles[0][: -len("data.pkl")]

        def read(name):
            return read_member(archive, root + name, budget)

        if root + "byteorder" in archive.namelist() and read("byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        storages = {}

        def storage_of(dtype, key, count):
            if key not in storages:
                storages[key] = Storage(dtype, count)
                storages[key].fill(read(f"data/{key}"))
            if (storages[key].dtype, storages[key].count) != (dtype, count):
                raise ValueError("a storage with two types")
            return storages[key]

        value = TorchUnpickler(io.BytesIO(read("data.pkl")), budget, storage_of).load()
    tree = plain(value, budget)
    return dict(_arrays(tree)) if isinstance(value, Module) else tree


def _arrays(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _arrays(value, f"{prefix}{name}.")
        elif isinstance(value, np.ndarray):
            yield prefix + name, value


def read_legacy(file, budget):
    """The object of a torch stream.

    The stream is five pickles (magic, protocol, system, object, storage keys), then for each key
    its count and raw numbers.
    """
    TorchUnpickler(file, budget).load()  # magic
    TorchUnpickler(file, budget).load()  # protocol
    system = TorchUnpickler(file, budget).load()
    if not system["little_endian"]:
        raise ValueError("its numbers are big-endian")
    storages = {}

    def storage_of(dtype, key, count):
        return storages.setdefault(key, Storage(dtype, count))

    value = TorchUnpickler(file, budget, storage_of).load()
    if isinstance(value, Opaque):
        return value
    keys = TorchUnpickler(file, budget).load()
    check_keys(keys)
    for key in keys:
        storage = storages[key]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError("a storage with two sizes")
        storage.fill(file.read(storage.count * storage.itemsize))
    return plain(value, budget)
