"""Pickles read as data: arrays, numbers, strings, bytes and containers.

A pickle is a program: it names any importable function and calls it. Here a name is looked up in a
short table that leads to stand-ins of our own, never to numpy's or torch's constructors (numpy's
`dtype.__setstate__` trusts flags that decide whether bytes are read as pointers). Every other name
becomes an `Opaque`, which stands for an object of another program and is left out. So a hostile
file can at worst be an error.
"""

import pickle
import re
from collections import OrderedDict

import numpy as np

from shared_metrics.files import SCALARS

# paddle.save's table of automatic parameter names: no weights.
STRUCTURED_NAMES = "StructuredToParameterName@@"


MAX_DEPTH = 100  # containers inside each other
MAX_BITS = 1024  # of a whole number
# What one object costs besides what it holds, in bytes, about as Python has it.
CONTAINER = 64
ENTRY = 64  # of a dict or set
KEY_TYPES = (str, bytes, int, float, bool, type(None))


class Refused(Exception):
    """The file holds something that is not data; the text is its name."""


def printable(name):
    """A name from a file as one short line that may be shown on a screen.

    No newline or terminal code of the file gets there.
    """
    text = repr(str(name))[1:-1]
    return text if len(text) <= 100 else f"{text[:97]}..."


class Budget:
    """Bytes that a file may still unpack to, 32 times its own size and 1 MiB (`more`) in all, so
    that no small file fills the memory; and the names of what was left out of it.

    No flag raises it: nearly all bytes of a weights file are numbers, which are charged at most 9
    times each.
    """

    def __init__(self, size, more=2**20):
        self.left = 32 * size + more
        self.skipped = set()

    def take(self, amount):
        self.left -= amount
        if self.left < 0:
            raise ValueError("it unpacks to far more than its size")


class StandIn:
    """What a class named in the file becomes; pickle's BUILD hands its state to `set_state`."""

    name = "object"

    def set_state(self, state):
        raise Refused(self.name)

    def plain(self, budget, depth):
        """The array or container that this stands for, or an `Opaque`."""
        return Opaque(self.name)


class Opaque(StandIn):
    """A class, function or object of another program: known by its name alone.

    Whatever the file calls it with, or puts into it, is dropped.
    """

    def __init__(self, name):
        self.name = name

    def __call__(self, *args, **kwargs):
        return self

    def set_state(self, state):
        pass

    def append(self, item):
        pass

    def __setitem__(self, key, item):
        pass

    extend = add = append

    def plain(self, budget, depth):
        return self


class Dtype(StandIn):
    """numpy.dtype(code), plain numbers and fixed-length strings, and `O`: whatever objects."""

    name = "numpy.dtype"

    def __init__(self, code):
        self.value = np.dtype(code)

    def set_state(self, state):
        if any(part is not None for part in state[2:5]):
            raise Refused("numpy.dtype with fields")
        self.value = self.value.newbyteorder(_text(state[1]))


def _dtype(code, align=False, copy=False):
    code = _text(code)
    if isinstance(code, str) and re.fullmatch(r"[biufcSU][1-9]\d{0,8}|O8?", code):
        return Dtype(code)
    return Opaque(f"numpy.dtype({printable(code)})")


class Array(StandIn):
    """numpy.ndarray as `_reconstruct` makes it, empty.

    Its state is (version, shape, dtype, fortran order, bytes), or a list of objects for bytes.
    """

    name = "numpy.ndarray"

    def set_state(self, state):
        _, shape, dtype, fortran, raw = state
        if isinstance(dtype, Dtype) and dtype.value.hasobject:
            self.value = _objects(raw, shape)
        else:
            self.value = _array(raw, dtype, shape, "F" if fortran else "C")

    def plain(self, budget, depth):
        return plain(self.value, budget, depth)


def _text(value):
    """Python 2 pickles hold bytes where Python 3 has strings."""
    return value.decode("ascii") if isinstance(value, bytes) else value


def _array(raw, dtype, shape, order="C"):
    """A fresh writable array in native byte order and C order.

    Raises: ValueError where the bytes do not fill the shape.
    """
    if isinstance(dtype, Opaque):
        return dtype
    if dtype.value.hasobject:
        return Opaque("numpy.dtype(O)")
    array = np.ndarray(shape, dtype.value, buffer=raw, order=order)
    if array.nbytes != len(raw):
        raise ValueError("an array's bytes do not fit its shape")
    return array.astype(dtype.value.newbyteorder("="), order="C")


def _objects(items, shape):
    """An array of objects: the one without dimensions, else a list of them all."""
    if not isinstance(items, list) or (shape == () and len(items) != 1):
        raise ValueError("an array of objects without them")
    return items[0] if shape == () else items


def _scalar(dtype, raw):
    value = _array(raw, dtype, ())
    return value if isinstance(value, Opaque) else value.item()


def _encode(text, codec):
    """How protocols 0-2 spell bytes. Other codecs (zlib, ...) have no business here."""
    if _text(codec) not in ("latin1", "latin-1"):
        return Opaque(f"_codecs.encode({printable(codec)})")
    return text.encode("latin1")


def is_key(value):
    """Whether a dict or set here may be looked up by this value.

    Tuples hash by what they hold, however deep, and like whole numbers above 2**60 they can be
    chosen to share one hash, which makes a dict of n entries take n**2 steps.
    """
    return type(value) in KEY_TYPES and not (type(value) is int and abs(value) > 2**60)


def check_keys(keys):
    """Raise ValueError for a key that is none (`is_key`)."""
    for key in keys:
        if not is_key(key):
            raise ValueError(f"a key that is no text or number of 60 bits ({type(key).__name__})")


def _set(kind):
    def make(items=()):
        check_keys(items)
        return kind(items)

    return make


def _dict(kind):
    def make(items=()):
        items = list(items.items() if isinstance(items, dict) else items)
        check_keys(key for key, _ in items)
        return kind(items)

    return make


GLOBALS = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict(OrderedDict),
    ("collections", "defaultdict"): lambda factory=None, *items: _dict(dict)(*items),
}
for _numpy in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    GLOBALS[f"{_numpy}.multiarray", "_reconstruct"] = lambda subtype, shape, typecode: Array()
    GLOBALS[f"{_numpy}.multiarray", "scalar"] = _scalar
    GLOBALS[f"{_numpy}.numeric", "_frombuffer"] = _array
for _builtins in ("builtins", "__builtin__"):
    for _type in (tuple, list, complex):
        GLOBALS[_builtins, _type.__name__] = _type
    for _type in (set, frozenset):
        GLOBALS[_builtins, _type.__name__] = _set(_type)
    GLOBALS[_builtins, "dict"] = _dict(dict)
    GLOBALS[_builtins, "bytes"] = lambda: b""  # so spell protocols 0-2 the empty one
for _copy in ("copyreg", "copy_reg"):  # an object of its first argument's class, protocols 0 and 1
    GLOBALS[_copy, "_reconstructor"] = lambda kind, *_: Opaque(getattr(kind, "name", "object"))


def _charged(load, cost):
    """An opcode's loader that first takes what it makes from the budget."""

    def charged(self):
        self.budget.take(cost)
        load(self)

    return charged


class Unpickler(pickle._Unpickler):
    """Python's own unpickler with a closed table of names.

    What it makes is charged to the budget. It is not the C one: there BUILD cannot be overridden
    (it sets attributes of any object), and the memo is a C array that grows to whatever index the
    file names.
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
        return self.names.get((module, name)) or Opaque(f"{module}.{name}")

    def _instantiate(self, klass, args):  # INST and OBJ: classes of Python 2
        self.append(klass if isinstance(klass, Opaque) else Opaque("an instance of a class"))

    def _charge(self, values):
        for value in values:
            # A list may become a set or a dict.
            if isinstance(value, (dict, set, frozenset, list, tuple)):
                self.budget.take(ENTRY * len(value))
            elif isinstance(value, (bytes, bytearray, str)):
                self.budget.take(8 * len(value))

    def load_reduce(self):
        self._charge(self.stack[-1])
        super().load_reduce()

    def load_newobj(self):
        args = self.stack.pop()
        make = self.stack.pop()
        if args != () and not isinstance(make, Opaque):
            raise Refused("an object with arguments")
        self.append(make())

    def load_newobj_ex(self):
        del self.stack[-2:]
        if not isinstance(self.stack[-1], Opaque):
            raise Refused("an object with named arguments")

    def load_bytearray8(self):  # the original fills memory of the declared size first
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_setitem(self):
        value = self.stack.pop()
        key = self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self):
        self._set_items(self.pop_mark())

    def load_dict(self):
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _set_items(self, items):
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict):
            raise Refused(f"entries of {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if self._keeps(key):
                target[key] = value

    def _keeps(self, key):
        """Charge an entry; one by another key than `is_key` allows is left out."""
        self.budget.take(ENTRY)
        if not is_key(key):
            self.budget.skipped.add(f"an entry by a {type(key).__name__}")
        return is_key(key)

    def load_additems(self):
        items = self.pop_mark()
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(item for item in items if self._keeps(item))
        elif not isinstance(target, Opaque):
            raise Refused(f"items of {type(target).__name__}")

    def load_frozenset(self):
        self.append(frozenset(item for item in self.pop_mark() if self._keeps(item)))

    def load_put(self):
        index = int(self.readline()[:-1])
        if not 0 <= index < 2**32:
            raise ValueError("a memo out of range")
        self.memo[index] = self.stack[-1]

    def load_build(self):
        state = self.stack.pop()
        value = self.stack[-1]
        if isinstance(value, StandIn):
            value.set_state(state)
        # torch hangs `_metadata` on its state dicts: no weights, dropped.
        elif not isinstance(value, OrderedDict):
            raise Refused(f"state for {type(value).__name__}")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.PUT[0]] = load_put
    dispatch[pickle.BUILD[0]] = load_build
    for _opcode in b"(tl}])\x85\x86\x87d\x91":  # marks, tuples, lists and dicts
        dispatch[_opcode] = _charged(dispatch[_opcode], CONTAINER)
    dispatch[pickle.EMPTY_SET[0]] = _charged(dispatch[pickle.EMPTY_SET[0]], 4 * CONTAINER)
    for _opcode in b"pqr\x94":  # what is kept for later use
        dispatch[_opcode] = _charged(dispatch[_opcode], CONTAINER)


def plain(value, budget, depth=0):
    """The value with stand-ins resolved and subclasses as plain containers.

    The (name, array) pairs of paddle.save become arrays. An `Opaque` leaves its dict, and is None
    in lists; `budget` keeps its name. Returns: an `Opaque` where the value is one. Raises: Refused
    on what is not data, ValueError past MAX_DEPTH.
    """
    budget.take(8)
    if depth > MAX_DEPTH:
        raise ValueError("its containers are nested too deeply")
    if isinstance(value, StandIn):
        return value.plain(budget, depth + 1)
    if type(value) is int and value.bit_length() > MAX_BITS:
        raise Refused(f"a number of {value.bit_length()} bits")
    if type(value) in SCALARS or type(value) is np.ndarray:
        return value
    if not isinstance(value, (dict, list, tuple, set, frozenset)):
        return Opaque(type(value).__name__)
    budget.take(CONTAINER)
    if isinstance(value, dict):
        items = {}
        for key, item in value.items():
            if key != STRUCTURED_NAMES:
                item = plain(item, budget, depth + 1)
                if not _left_out(item, budget):
                    items[key] = item
        return items
    items = [plain(item, budget, depth + 1) for item in value]
    if type(value) is tuple and [type(item) for item in items] == [str, np.ndarray]:
        return items[1]
    return type(value)(None if _left_out(item, budget) else item for item in items)


def _left_out(item, budget):
    if not isinstance(item, Opaque):
        return False
    budget.skipped.add(printable(item.name))
    return True
