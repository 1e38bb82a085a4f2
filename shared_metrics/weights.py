"""Weights are data, never code: safe loading of every container, atomic saving, strict assignment.

Nothing here imports Paddle or torch; arrays are numpy's.
"""

import mmap
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np

from shared_metrics import torch_files
from shared_metrics.archives import DAMAGE
from shared_metrics.errors import UserError
from shared_metrics.files import SCALARS, open_regular, too_large, writing
from shared_metrics.process import warn
from shared_metrics.unpickle import Budget, Opaque, Refused, Unpickler, plain, printable

VARIANCE = re.compile(r"(_variance|running_var)$")

# fmt: off
SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": torch_files.BFLOAT16,
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
    "BOOL": "|b1",
}
# fmt: on


def load(path):
    """Read a weights file of any known container, told by its content: no code of the file runs.

    Containers: .pdparams / .pdopt of paddle.save (2.x and 3.x), plain pickles of arrays (CIFAR's
    too: bytes keys), torch zip, torch legacy, TorchScript (modules flattened into dotted names),
    .safetensors.
    Objects of other programs beside the weights (argparse.Namespace, torch.device, ...) are left
    out, with a warning that names them.
    Returns: nested dict / list / tuple of fresh numpy arrays and Python scalars, strings, bytes;
        bfloat16 as float32.
    Raises: UserError naming the file when it is missing, a folder, no regular file, empty, a web
        page, a Git LFS pointer, cut, damaged, or holds nothing but a foreign object (which is named
        and never called).
    """
    if Path(path).is_dir():
        example = newest(path)
        hint = (
            f"one of its iter_*.pdparams, the newest: {example}" if example else "the weights' own"
        )
        raise UserError(f"{path}: a folder, not a file; give {hint}")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise UserError(f"{path}: the file is empty; save or download it again")
            # Mapped, not read: the readers copy what they need out of a file of gigabytes.
            budget = Budget(size)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                contents = _read(path, data, budget)
        if isinstance(contents, Opaque):
            raise Refused(contents.name)
        if budget.skipped and contents in ({}, [], ()):
            raise Refused(min(budget.skipped))
    except UserError:
        raise
    except Refused as error:
        raise UserError(
            f"{path}: refused: it holds {printable(error)}, which is not weights "
            "(nothing was run); save a plain state dict of arrays"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); check path and download"
        ) from None
    except MemoryError:
        raise too_large(path) from None
    except DAMAGE as error:
        reason = printable(error if " " in str(error) else type(error).__name__)
        raise UserError(
            f"{path}: cut, damaged or no weights file ({reason}); save or download it again"
        ) from None
    if budget.skipped:
        names = sorted(budget.skipped)
        more = ", ..." if len(names) > 5 else ""
        warn(
            f"{path}: left out objects of other programs ({', '.join(names[:5])}{more}); nothing "
            "of them was run"
        )
    return contents


def check_head(path, head):
    """UserError for a file that others put in the place of the one that was meant.

    Args: head, its first 512 bytes.
    """
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):  # after a byte order mark or blanks
        raise UserError(
            f"{path}: a web page, not weights; open the link in a browser and save the file itself"
        )
    if head.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path}: a Git LFS pointer, which only names the file; get it by `git lfs pull` or "
            "download it"
        )
    if head.startswith((b"\x1f\x8b", b"\xfd7zXZ", b"BZh")):
        raise UserError(f"{path}: a compressed file; unpack it and give the weights file inside")


def newest(folder):
    """The newest checkpoint of a run's folder, or of its checkpoints/; None where there is none."""
    for place in (Path(folder), Path(folder) / "checkpoints"):
        files = sorted(place.glob("iter_*.pdparams"), key=lambda path: (len(path.name), path.name))
        if files:
            return files[-1]
    return None


def _read(path, data, budget):
    head = data[:512]
    check_head(path, head)
    if head.startswith(b"PK"):
        return torch_files.read_zip(path, budget)
    if head.startswith(torch_files.LEGACY_MAGIC):
        return torch_files.read_legacy(data, budget)
    # safetensors: the length of a JSON header, then the header.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(data) - 8:
        return _read_safetensors(data)
    return plain(Unpickler(data, budget).load(), budget)


def _read_safetensors(data):
    from safetensors import SafetensorError, deserialize

    try:
        tensors = deserialize(data[:])
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    arrays = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in SAFETENSORS:
            raise Refused(f"safetensors dtype {tensor['dtype']}")
        values = torch_files.from_bytes(tensor["data"], SAFETENSORS[tensor["dtype"]])
        arrays[name] = values.reshape(tensor["shape"]).copy()
    return arrays


def save(obj, path):
    """Save nested dicts / lists of numpy arrays, scalars, strings, atomically.

    The file is a pickle that paddle.load reads too.
    Raises: ValueError naming the entry that `load` would refuse; UserError with the free space when
        the disk fails, an older file at `path` staying as it was.
    """
    _check_plain(obj, "")
    with writing(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(obj, file, protocol=4)


def _check_plain(value, name):
    # By type, not isinstance: pickle would store a subclass under the name of its class.
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {name or 'the file'}")
            _check_plain(item, f"{name}.{key}" if name else str(key))
    elif type(value) in (list, tuple, set, frozenset):
        for index, item in enumerate(value):
            _check_plain(item, f"{name}[{index}]")
    elif type(value) is np.ndarray or isinstance(value, np.generic):
        if value.dtype.kind not in "biufcSU":
            raise ValueError(
                f"{name}: an array of {value.dtype}, which is no plain number or string"
            )
    elif type(value) not in SCALARS:
        raise ValueError(
            f"{name}: {type(value).__name__} is neither an array of numbers "
            "nor a scalar, string or container"
        )


def check_keys(expected, state, what, source):
    """Compare a state with what a network needs.

    Args: expected, {name: shape}; state, {name: array}; what, the network ("generator"), and
        source, the file, both for the message.
    Raises: UserError, one line: counts and first 8 names of entries that are missing, unexpected,
        no numbers or mis-shaped, both shapes.
    """
    if not isinstance(state, dict):
        raise UserError(
            f"{source}: holds a {type(state).__name__} where the {what}'s named weights should be"
        )
    shapes = {name: _shape(value) for name, value in state.items()}
    misshaped = []
    for name, shape in expected.items():
        if shapes.get(name) is not None and shapes[name] != tuple(shape):
            misshaped.append(f"{name}: file {shapes[name]}, network {tuple(shape)}")
    faults = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [printable(name) for name in shapes if name not in expected],
        "without numbers": [n for n in expected if n in shapes and shapes[n] is None],
        "of another shape": misshaped,
    }
    problems = []
    for kind, names in faults.items():
        if names:
            more = ", ..." if len(names) > 8 else ""
            problems.append(f"{len(names)} {kind} ({', '.join(names[:8])}{more})")
    if problems:
        raise UserError(
            f"{source}: does not fit the {what} ({len(expected)} entries): {'; '.join(problems)}. "
            "Give weights of this very network, or the flags they were trained with"
        )


def _shape(value):
    """That of an array of real numbers, or of a number; None for all else."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value.shape
    return () if isinstance(value, (int, float)) else None


def check_values(state, what, source):
    """Refuse numbers that no network can have; for what and source see `check_keys`.

    Raises: UserError naming the first entry of {name: array} with NaN, infinity or, among
        BatchNorm's variances, a negative number.
    """
    for name, values in state.items():
        fault = ""
        if not np.isfinite(values).all():
            fault = "NaN or infinite values"
        elif VARIANCE.search(name) and (np.asarray(values) < 0).any():
            fault = "a negative variance"
        if fault:
            raise UserError(
                f"{source}: {name} of the {what} holds {fault}; the file is damaged, or its "
                "training diverged: give another"
            )


def shapes_of(make):
    """{name: shape} of the weights of the layer that make() builds; they are neither drawn nor
    given memory.
    """
    import paddle

    with paddle.LazyGuard():
        return _shapes(make())


def build(make, state, what, source):
    """make(), a Paddle layer, with `state` ({name: array}) in it.

    Its sizes are a file's word: they are held against the file's arrays before any memory is taken
    for them. Raises: UserError, see `load_into`.
    """
    check_keys(shapes_of(make), state, what=what, source=source)
    layer = make()
    load_into(layer, state, what, source)
    return layer


def _shapes(layer):
    return {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}


def load_into(layer, state, what, source):
    """Put `state` ({name: array}) into a Paddle layer, all or nothing.

    Names, shapes and values must fit: see `check_keys` and `check_values`.
    """
    own = layer.state_dict()
    check_keys(_shapes(layer), state, what=what, source=source)
    arrays = {}
    for name, tensor in own.items():
        dtype = str(tensor.dtype).split(".")[-1]  # "paddle.float32" -> "float32"
        with np.errstate(over="ignore"):  # told below
            arrays[name] = np.asarray(state[name], dtype=dtype)
    check_values(arrays, what, source)
    layer.set_state_dict(arrays)
