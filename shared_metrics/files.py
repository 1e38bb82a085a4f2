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
    """Give a temporary path beside `path`, of the same suffix; once written it becomes `path`.

    On success it is flushed to disk, then renamed. Whatever goes wrong, kill -9 included, an older
    `path` stays whole; any exception removes the temporary file. Only kill -9 can leave one behind:
    `.NAME.PID.tmp.SUFFIX`.
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
    """`atomic_path` for a block that only writes the file.

    Raises: UserError with the free space in the place of an OSError.
    """
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or error
        with contextlib.suppress(OSError):  # where the folder itself is missing, no disk is known
            free = shutil.disk_usage(Path(path).parent).free / 2**20
            raise UserError(
                f"{path}: cannot be written ({reason}; {free:.0f} MiB free on that disk); "
                "free some space or choose another folder"
            ) from error
        raise UserError(f"{path}: cannot be written ({reason}); choose another folder") from error


def save_json(obj, path):
    """Write `obj` as indented JSON, atomically.

    Raises: UserError as `writing`; ValueError on NaN or infinity, which JSON has not.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def digest(obj):
    """sha256 (hex) over names, dtypes, shapes, array bytes and scalars of nested containers.

    The order of keys does not matter. Raises: ValueError for any other object.
    """
    sha = hashlib.sha256()
    _digest(obj, sha)
    return sha.hexdigest()


def _digest(value, sha):
    # Every entry begins with its kind and length: neighbours cannot run into each other.
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
        little = value.dtype.newbyteorder("<")  # the same bytes on every machine
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
