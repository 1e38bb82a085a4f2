"""Files that appear whole or not at all, and what tells that their contents are the same."""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import unicodedata
from pathlib import Path

import numpy as np

from shared_metrics.errors import UserError

NAME_BYTES = 160  # of a file name that we make: file systems take 255, with suffix and pid
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
SCALARS = (bool, int, float, complex, str, bytes, type(None))  # what a plain file may hold


def temporary_path(path):
    """Where this process writes what is to become `path`."""
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary path beside `path`, of the same suffix; once written it becomes `path`.

    On success it is flushed to disk, then renamed. Whatever goes wrong, kill -9 included, an older
    `path` stays whole; any exception removes the temporary file. Only kill -9 can leave one behind:
    `.NAME.PID.tmp.SUFFIX`.
    """
    path = Path(path)
    temporary = temporary_path(path)
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
        raise unwritable(path, error.strerror or error) from error


def too_large(path):
    """The UserError of a file that does not fit into memory."""
    return UserError(
        f"{path}: does not fit into the memory that is free; close other programs, or take a "
        "machine with more"
    )


def unwritable(path, reason):
    """The UserError of a file or folder that cannot be written, with the free space."""
    with contextlib.suppress(OSError):  # where the folder itself is missing, no disk is known
        free = shutil.disk_usage(Path(path).parent).free / 2**20
        return UserError(
            f"{path}: cannot be written ({reason}; {free:.0f} MiB free on that disk); "
            "free some space or choose another folder"
        )
    return UserError(f"{path}: cannot be written ({reason}); choose another folder")


def shown(text):
    """Text that may stand on a screen, in a log, in a picture: one line without control codes.

    Names of files, classes and entries are others' words. Of these, what moves a cursor, turns the
    direction of writing or is no UTF-8 becomes its Python escape.
    """
    return "".join(_escape(letter) if _hidden(letter) else letter for letter in str(text))


def _hidden(letter):
    """Whether a letter is a control code, half of a pair, unassigned, or ends a line."""
    kind = unicodedata.category(letter)
    return kind[0] == "C" or kind in ("Zl", "Zp")


def _escape(letter):
    return letter.encode("unicode_escape").decode()


def file_name(name):
    """A name out of a file (a class, an attribute, another file's) as the name of a file of ours,
    without suffix: no separators, no leading dot, no control codes, at most NAME_BYTES bytes.
    Harmless names stay as they are.
    """
    letters = []
    for letter in str(name):
        unsafe = letter in '/\\:*?"<>|' or _hidden(letter)
        letters.append(f"%{ord(letter):02x}" if unsafe else letter)
    text = "".join(letters) or "%"
    if text[0] == ".":
        text = f"%2e{text[1:]}"
    encoded = text.encode()
    if len(encoded) > NAME_BYTES:  # cut, and told apart from others cut alike
        mark = hashlib.sha256(encoded).hexdigest()[:8]
        text = encoded[: NAME_BYTES - 9].decode(errors="ignore") + f"-{mark}"
    return text


def file_names(names):
    """`file_name` of each, no two of them alike, also where a file system knows no upper case."""
    taken = set()
    unique = []
    for name in map(file_name, names):
        candidate = name
        number = 2
        while _folded(candidate) in taken:
            candidate = f"{name}~{number}"
            number += 1
        taken.add(_folded(candidate))
        unique.append(candidate)
    return unique


def _folded(name):
    return unicodedata.normalize("NFC", name).casefold()


def save_json(obj, path):
    """Write `obj` as indented JSON, atomically; what is no UTF-8 in its texts as `shown` has it.

    Raises: UserError as `writing`; ValueError on NaN or infinity, which JSON has not.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A backslash more: in JSON it stands for itself.
    text = re.sub("[\x7f-\x9f\ud800-\udfff]", lambda match: "\\" + _escape(match[0]), text)
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


def no_folder(path):
    """What to say of a path that is no folder, but should be one."""
    path = Path(path)
    if not path.is_file():
        return "no such folder"
    if path.name.lower().endswith(ARCHIVES):
        return "an archive, not a folder; unpack it and give the folder it becomes"
    return "a file, not a folder"


def open_regular(path):
    """Open a file to read its bytes. Raises: OSError, also where it is no regular file: a pipe or a
    device is not waited for.
    """
    file = open(path, "rb", opener=_without_waiting)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "no regular file", str(path))


def _without_waiting(path, flags):
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path, encoding="utf-8-sig"):
    """The text of a regular file. Raises: OSError as `open_regular`, UnicodeDecodeError."""
    with open_regular(path) as file, io.TextIOWrapper(file, encoding=encoding) as text:
        return text.read()


def fingerprint(paths):
    """sha256 (hex) over the number, names and sizes of files, which changes where a data set has.

    Names are taken from the files' common folder on, so a copy elsewhere has the same. A file that
    is missing counts as empty.
    """
    here = os.getcwd()
    files = []  # absolute path, NUL, size: millions of them take less than pairs would
    folders = set()
    for path in paths:
        path = os.path.join(here, Path(path))
        try:
            size = os.stat(path).st_size
        except OSError:
            size = 0
        files.append(f"{path}\0{size}")
        folders.add(os.path.dirname(path))
    start = len(os.path.join(os.path.commonpath(folders), "")) if folders else 0
    files.sort()
    sha = hashlib.sha256(f"list {len(files)};".encode())  # `digest` of [(name, size)]
    for file in files:
        name, _, size = file[start:].partition("\0")
        _digest((name.replace(os.sep, "/"), int(size)), sha)
    return sha.hexdigest()


def file_sha256(path):
    """sha256 (hex) of a file's bytes."""
    sha = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(2**20):
            sha.update(block)
    return sha.hexdigest()
