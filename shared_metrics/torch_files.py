"""Torch's weight containers read without torch: zip (torch >= 1.6), the stream before it,
TorchScript.

Source of the layouts: torch/serialization.py. A tensor is (storage, offset, size, stride); storages
    are raw numbers.
"""

import io
import zipfile

import numpy as np

from shared_metrics.unpickle import GLOBALS, StandIn, Unpickler, plain

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of 0x1950a86a20f9469cfc6c
BFLOAT16 = "bfloat16"  # numpy has none: read as uint16, given as float32
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
}


class Storage:
    """A run of numbers that tensors share; `data` is a 1-D array, None until it is read."""

    def __init__(self, dtype, count):
        if dtype not in STORAGES.values() or type(count) is not int or count < 0:
            raise ValueError("a storage of unknown type")
        self.dtype, self.count, self.data = dtype, count, None
        self.itemsize = 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize

    def fill(self, raw):
        if len(raw) != self.count * self.itemsize:
            raise EOFError("a storage is shorter than declared")
        self.data = from_bytes(raw, self.dtype)


class Tensor(StandIn):
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)."""

    name = "torch.Tensor"

    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def plain(self, budget):
        data, size, stride = self.storage.data, self.size, self.stride
        if len(size) != len(stride) or any(
            type(n) is not int or n < 0 for n in (self.offset, *size, *stride)
        ):
            raise ValueError("a tensor with an odd shape")
        if 0 in size:
            return np.zeros(size, data.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= len(data):
            raise ValueError("a tensor reaches past its storage")
        view = np.lib.stride_tricks.as_strided(
            data[self.offset :], size, [data.itemsize * step for step in stride]
        )
        budget.take(view.nbytes)
        return np.array(view, order="C")


class Module(StandIn):
    """An object of a TorchScript class: its attributes."""

    name = "TorchScript module"

    def set_state(self, state):
        self.attributes = dict(state)

    def plain(self, budget):
        return plain(self.attributes, budget)


TORCH_GLOBALS = {
    **GLOBALS,
    ("torch._utils", "_rebuild_tensor"): Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
    **{
        ("torch.jit._pickle", f"build_{kind}list"): list
        for kind in ("int", "double", "bool", "tensor")
    },
}


class TorchUnpickler(Unpickler):
    """`storage_of(dtype, key, count)` gives the Storage for a persistent id."""

    def __init__(self, file, budget, storage_of=None):
        super().__init__(file, budget, TORCH_GLOBALS, encoding="utf-8")
        self.storage_of = storage_of

    def find_class(self, module, name):
        if module.split(".")[0] == "__torch__":
            return Module
        return super().find_class(module, name)

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or self.storage_of is None:
            raise ValueError("an unknown persistent id")
        if view and view[0] is not None:
            raise ValueError("a storage that is a view of another")
        return self.storage_of(dtype, key, count)


def from_bytes(raw, dtype):
    """Little-endian bytes -> 1-D array of that dtype; "bfloat16" becomes float32 (its upper
    half).
    """
    if dtype == BFLOAT16:
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
            budget.take(archive.getinfo(root + name).file_size)
            return archive.read(root + name)

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
    """The object of a torch stream: pickles (magic, protocol, system, object, storage keys), then
    count + raw a key.
    """
    _, _, system = (TorchUnpickler(file, budget).load() for _ in range(3))
    if not system["little_endian"]:
        raise ValueError("its numbers are big-endian")
    storages = {}

    def storage_of(dtype, key, count):
        return storages.setdefault(key, Storage(dtype, count))

    value = TorchUnpickler(file, budget, storage_of).load()
    for key in TorchUnpickler(file, budget).load():
        storage = storages[key]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError("a storage with two sizes")
        storage.fill(file.read(storage.count * storage.itemsize))
    return plain(value, budget)
