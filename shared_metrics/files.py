"""Files that appear whole or not at all, and what tells that their contents are the same."""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from shared_metrics.errors import UserError

SCALARS = (bool, int, float, complex, str, bytes, type(None))  # what a plain file may hold


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary path beside `path` (same suffix) to write to; on success flush it to disk,
    rename it to `path`.

    Whatever goes wrong, kill -9 included, an older `path` stays whole; any exception removes the
    temporary file. Only kill -9 can leave one behind: `.NAME.PID.tmp.SUFFIX`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path):
    """`atomic_path` for a block that only writes the file: its OSError becomes a UserError with the
    free space.
    """
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(Path(path).parent).free / 2**20
            raise UserError(
                f"{path}: cannot be written ({error.strerror or error}; {free:.0f} MiB free on "
                "that disk); "
                "free some space or choose another folder"
            ) from error
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); choose another folder"
        ) from error


def save_json(obj, path):
    """Write `obj` as indented JSON, atomically. Raises: UserError as `save`; ValueError on NaN or
    Infinity, no JSON.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def digest(obj):
    """sha256 (hex) over names, dtypes, shapes, array bytes, scalars of nested containers; key order
    does not matter.
    """
    sha = hashlib.sha256()
    _digest(obj, sha)
    return sha.hexdigest()


def _digest(value, sha):
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        sha.update(f"dict {len(value)};".encode())
        for key in sorted(value, key=repr):
            _digest(key, sha)
            _digest(value[key], sha)
    elif isinstance(value, (list, tuple)):
        sha.update(f"{type(value).__name__} {len(value)};".encode())
        for item in value:
            _digest(item, sha)
    elif isinstance(value, (set, frozenset)):
        _digest(sorted(map(digest, value)), sha)
    elif isinstance(value, np.ndarray):
        little = value.dtype.newbyteorder("<")
        sha.update(f"array {little.str} {value.shape};".encode())
        sha.update(np.ascontiguousarray(value, dtype=little).data)
    elif isinstance(value, SCALARS):
        text = repr(value).encode()
        sha.update(f"{type(value).__name__} {len(text)};".encode() + text)
    else:
        raise ValueError(f"no digest for {type(value).__name__}")


def file_sha256(path):
    """sha256 (hex) of a file's bytes."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            sha.update(block)
    return sha.hexdigest()
