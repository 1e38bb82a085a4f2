"""Arrays of .npy and .npz files, read without trust in what they declare.

Headers come first and only the arrays that are asked for are read, in steps, held against the size
of the file. Objects in a .npy are read as data, see unpickle.
"""

import math
import os
import tokenize
import zipfile
from contextlib import contextmanager

import numpy as np

from shared_metrics.archives import DAMAGE, open_member
from shared_metrics.errors import UserError
from shared_metrics.files import open_regular, too_large
from shared_metrics.unpickle import Budget, Refused, Unpickler, plain, printable
from shared_metrics.weights import check_head

PLENTY = 2**30  # bytes that the arrays of a small file may unpack to


class Header:
    """What an array's header declares: `shape`, `fortran` (its order), `dtype`.

    Raises: ValueError for a shape of other than numbers from 0 on.
    """

    def __init__(self, file):
        version = np.lib.format.read_magic(file)
        form = np.lib.format
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        try:
            self.shape, self.fortran, self.dtype = read(file)
        except (SyntaxError, tokenize.TokenError):  # numpy parses it as Python does a literal
            raise ValueError("an unreadable header") from None
        if not all(type(n) is int and n >= 0 for n in self.shape):
            raise ValueError(f"an array of shape {printable(self.shape)}")
        self.bytes = math.prod(self.shape) * self.dtype.itemsize


@contextmanager
def naming(path):
    """Turn whatever a damaged or foreign file raises into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except Refused as error:
        raise UserError(f"{path}: refused: it holds {printable(error)}; nothing was run") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); check the path"
        ) from None
    except MemoryError:
        raise too_large(path) from None
    except DAMAGE as error:
        reason = printable(error if " " in str(error) else type(error).__name__)
        raise UserError(f"{path}: damaged, or no array file ({reason}); make it again") from None


def headers(path):
    """{name: Header} of the arrays in a .npz, or {"": Header} of a .npy; told by their content.

    Raises: UserError naming the file.
    """
    found = {}
    with naming(path):
        for name in _members(path):
            with open_array(path, name) as (_, header):
                found[name] = header
    return found


def read(path, wanted=None):
    """{name: array} of those arrays of a .npz whose names are in `wanted`, or all.

    Raises: UserError naming the file.
    """
    with naming(path):
        budget = Budget(os.stat(path).st_size, PLENTY)
        arrays = {}
        for name in _members(path):
            if wanted is None or name in wanted:
                with open_array(path, name) as (file, header):
                    arrays[name] = _read(file, header, budget)
        return arrays


def _members(path):
    with open_regular(path) as file:
        head = file.read(512)
        check_head(path, head)
        if head.startswith(b"\x93NUMPY"):
            return [""]
        if not head.startswith(b"PK"):
            raise ValueError("neither .npy nor .npz")
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
    return [name.removesuffix(".npy") for name in names]


@contextmanager
def open_array(path, name):
    """(file, Header): an array of a .npz, or with "" that of a .npy, open after its header."""
    with open_regular(path) as whole:
        size = os.fstat(whole.fileno()).st_size
        if not name:
            header = Header(whole)
            _check_size(header, size - whole.tell())
            yield whole, header
            return
        with zipfile.ZipFile(whole) as archive:
            entry = archive.getinfo(f"{name}.npy")
            with open_member(archive, entry) as file:
                header = Header(file)
                _check_size(header, entry.file_size - file.tell())
                yield file, header


def _check_size(header, size):
    """Before any memory is taken for what a header declares."""
    if not header.dtype.hasobject and header.bytes > size:
        raise EOFError(f"it declares {header.dtype} of shape {header.shape}, and ends before")


def _read(file, header, budget):
    if header.dtype.hasobject:
        return plain(Unpickler(file, budget).load(), budget)
    if header.dtype.kind not in "biufcSU":
        raise Refused(f"an array of {header.dtype}")
    budget.take(header.bytes)
    data = file.read(header.bytes)
    if len(data) != header.bytes:
        raise EOFError("an array is shorter than declared")
    values = np.frombuffer(data, header.dtype, math.prod(header.shape))
    return values.reshape(header.shape, order="F" if header.fortran else "C")
