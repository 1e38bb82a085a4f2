"""Pickles read as data: arrays, numbers, strings, bytes and containers.

Every other object is refused by its name. A pickle is a program: it names any importable function
and calls it. Here a name is looked up in a short table that leads to stand-ins of our own, never to
numpy's or torch's constructors (numpy's `dtype.__setstate__` trusts flags that decide whether bytes
are read as pointers). So a hostile file can at worst be an error.
"""

import pickle
import re
from collections import OrderedDict

import numpy as np

from shared_metrics.files import SCALARS

# paddle.save's table of automatic parameter names: no weights.
STRUCTURED_NAMES = "StructuredToParameterName@@"


class Refused(Exception):
    """The file holds something that is not data; the text is its name."""


def printable(name):
    """A name from a file as one short line that may be shown on a screen.

    No newline or terminal code of the file gets there.
    """
    text = repr(str(name))[1:-1]
    return text if len(text) <= 100 else f"{text[:97]}..."


class Budget:
    """Bytes and items that a file may still unpack to.

    8 times its own size in all, so that no small file fills the memory.
    """

    def __init__(self, size):
        self.left = 8 * size + 2**16

    def take(self, amount):
        self.left -= amount
        if self.left < 0:
            raise ValueError("it unpacks to far more than its size")


class StandIn:
    """What a class named in the file becomes; pickle's BUILD hands its state to `set_state`."""

    name = "object"

    def set_state(self, state):
        raise Refused(self.name)

    def plain(self, budget):
        """The array or container that this stands for."""
        raise Refused(self.name)


class Dtype(StandIn):
    """numpy.dtype(code), plain numbers and fixed-length strings only."""

    name = "numpy.dtype"

    def __init__(self, code, align=False, copy=False):
        code = _text(code)
        if not re.fullmatch(r"[biufcSU][1-9]\d{0,8}", code):
            raise Refused(f"numpy.dtype({code})")
        self.value = np.dtype(code)

    def set_state(self, state):
        if any(part is not None for part in state[2:5]):
            raise Refused("numpy.dtype with fields")
        self.value = self.value.newbyteorder(_text(state[1]))


class Array(StandIn):
    """numpy.ndarray as `_reconstruct` makes it, empty.

    Its state is (version, shape, dtype, fortran order, bytes).
    """

    name = "numpy.ndarray"

    def set_state(self, state):
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")

    def plain(self, budget):
        return self.value


def _text(value):
    """Python 2 pickles hold bytes where Python 3 has strings."""
    return value.decode("ascii") if isinstance(value, bytes) else value


def _array(raw, dtype, shape, order="C"):
    """A fresh writable array in native byte order and C order.

    Raises: ValueError where the bytes do not fill the shape.
    """
    array = np.ndarray(shape, dtype.value, buffer=raw, order=order)
    if array.nbytes != len(raw):
        raise ValueError("an array's bytes do not fit its shape")
    return array.astype(dtype.value.newbyteorder("="), order="C")


def _encode(text, codec):
    """How protocols 0-2 spell bytes. Other codecs (zlib, ...) have no business here."""
    if _text(codec) not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode({codec})")
    return text.encode("latin1")


GLOBALS = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
}
for _numpy in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    GLOBALS[f"{_numpy}.multiarray", "_reconstruct"] = lambda subtype, shape, typecode: Array()
    GLOBALS[f"{_numpy}.multiarray", "scalar"] = lambda dtype, raw: _array(raw, dtype, ()).item()
    GLOBALS[f"{_numpy}.numeric", "_frombuffer"] = _array
for _builtins in ("builtins", "__builtin__"):
    for _type in (tuple, list, dict, set, frozenset, complex):
        GLOBALS[_builtins, _type.__name__] = _type
    GLOBALS[_builtins, "bytes"] = lambda: b""  # so spell protocols 0-2 the empty one


class Unpickler(pickle._Unpickler):
    """Python's own unpickler with a closed table of names.

    Calls are charged to the budget by what they copy. It is not the C one: there BUILD cannot be
    overridden (it sets attributes of any object), and the memo is a C array that grows to whatever
    index the file names.
    """

    dispatch = dict(pickle._Unpickler.dispatch)
    # They name objects by a process-wide registry that by-passes find_class.
    for _opcode in (pickle.EXT1, pickle.EXT2, pickle.EXT4):
        del dispatch[_opcode[0]]

    def __init__(self, file, budget, names=GLOBALS, encoding="bytes"):
        super().__init__(file, encoding=encoding)
        self.budget = budget
        self.names = names

    def find_class(self, module, name):
        if (module, name) not in self.names:
            raise Refused(f"{module}.{name}")
        return self.names[module, name]

    def _instantiate(self, klass, args):  # INST and OBJ: classes of Python 2
        raise Refused("an instance of a class")

    def _charge(self, values):
        for value in values:
            if isinstance(value, (bytes, bytearray, str, list, tuple)):
                self.budget.take(len(value))

    def load_reduce(self):
        self._charge(self.stack[-1])
        super().load_reduce()

    def load_newobj(self):
        if self.stack.pop() != ():
            raise Refused("an object with arguments")
        self.append(self.stack.pop()())

    def load_newobj_ex(self):
        raise Refused("an object with named arguments")

    def load_bytearray8(self):  # the original fills memory of the declared size first
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_build(self):
        state = self.stack.pop()
        value = self.stack[-1]
        if isinstance(value, StandIn):
            self._charge(state)
            value.set_state(state)
        # torch hangs `_metadata` on its state dicts: no weights, dropped.
        elif not isinstance(value, OrderedDict):
            raise Refused(f"state for {type(value).__name__}")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.BUILD[0]] = load_build


def plain(value, budget):
    """The value with stand-ins resolved and subclasses as plain containers.

    The (name, array) pairs of paddle.save become arrays. Raises: Refused on what is not data.
    """
    budget.take(1)
    if isinstance(value, StandIn):
        return value.plain(budget)
    if type(value) in SCALARS or type(value) is np.ndarray:
        return value
    if isinstance(value, dict):
        items = {}
        for key, item in value.items():
            if key != STRUCTURED_NAMES:
                items[plain(key, budget)] = plain(item, budget)
        return items
    if type(value) in (list, tuple, set, frozenset):
        items = [plain(item, budget) for item in value]
        if type(value) is tuple and [type(item) for item in items] == [str, np.ndarray]:
            return items[1]
        return type(value)(items)
    raise Refused(type(value).__name__)
