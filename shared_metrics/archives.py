"""Zip and tar archives unpacked without trust in what they say."""

import contextlib
import lzma
import os
import pickle
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from shared_metrics.errors import UserError
from shared_metrics.unpickle import printable

LIMIT = 32 * 2**30  # bytes that an archive may unpack to
MAX_ENTRIES = 10**6  # files in an archive
BLOCK = 2**18
DEFLATE = 1032  # times its size that deflate unpacks to at most
MAC_CLUTTER = "__MACOSX"  # what a Mac puts into its archives beside the files
# What the readers of archives raise on damaged or foreign files.
DAMAGE = (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError)
DAMAGE += (SyntaxError, TypeError, ValueError, pickle.PickleError, struct.error, lzma.LZMAError)
DAMAGE += (tarfile.TarError, zipfile.BadZipFile, zlib.error)


def extract(archive, folder, limit=LIMIT):
    """Unpack a zip or tar archive (also .gz, .bz2, .xz) into a new folder, which appears whole.

    A single folder that holds all the rest is left out. Every entry must be a file or a folder
    that lies inside: no links, no devices, no absolute paths, no "..", no name twice.
    Args: limit, bytes of all the files together, counted as they are written.
    Returns: Path of the folder. Raises: UserError naming the archive, and the entry at fault.
    """
    archive = Path(archive)
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder}: is there already; give another name or delete it")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    partial.mkdir(parents=True)
    try:
        _unpack(archive, partial, limit)
        inside = list(partial.iterdir())
        if not inside:
            raise UserError(f"{archive}: holds no files")
        whole = inside[0] if len(inside) == 1 and inside[0].is_dir() else partial
        os.rename(whole, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def open_member(archive, entry):
    """An entry (ZipInfo) of an open zip archive as a file, which unpacks in steps what is read.

    Raises: ValueError for an encrypted entry, for other methods than torch's and numpy's (with
        bzip2 and LZMA, zipfile unpacks all before it counts), and for an entry that declares more
        than can be packed into it.
    """
    if entry.flag_bits & 1:
        raise ValueError("its entries are encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("its entries are packed by a method other than deflate")
    if entry.file_size > DEFLATE * entry.compress_size + BLOCK:
        raise ValueError("an entry declares more than is packed in it")
    return archive.open(entry)


def read_member(archive, name, budget):
    """The bytes of an entry of an open zip archive, as many as it declares.

    Args: budget, unpickle.Budget, which they are taken from before any is unpacked.
    Raises: as `open_member`; KeyError for none of this name, EOFError, BadZipFile, ...
    """
    entry = archive.getinfo(name)
    size = entry.file_size
    budget.take(size)
    with open_member(archive, entry) as file:
        data = file.read(size)
        if len(data) != size:
            raise EOFError("an entry is shorter than declared")
        file.read(1)  # which checks its sum
    return data


def _unpack(archive, folder, limit):
    left = limit
    try:
        with contextlib.closing(_entries(archive)) as entries:
            for number, (name, file) in enumerate(entries):
                if number >= MAX_ENTRIES:
                    raise UserError(f"{archive}: more than {MAX_ENTRIES} files")
                path = folder / _inside(archive, name)
                if MAC_CLUTTER not in path.parts:
                    left -= _write(archive, name, file, path, left)
    except UserError:
        raise
    except DAMAGE as error:
        raise UserError(_damaged(archive, error)) from None
    except OSError as error:
        if error.errno is None:  # of the reader of .gz, not of the disk
            raise UserError(_damaged(archive, error)) from None
        raise UserError(
            f"{folder.parent}: {archive.name} cannot be unpacked there ({error.strerror})"
        ) from None


def _damaged(archive, error):
    return (
        f"{archive}: damaged, or no zip or tar archive ({printable(error)}); delete it and "
        "download it again"
    )


def _entries(archive):
    """Yield (name, open file) of the files in an archive; folders come into being with them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as source:
            for entry in source.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise UserError(_refused(archive, entry.filename, "a link or a device"))
                if not entry.is_dir():
                    with open_member(source, entry) as file:
                        yield entry.filename, file
        return
    with tarfile.open(archive) as source:
        for entry in source:
            if not (entry.isreg() or entry.isdir()) or entry.issparse():
                raise UserError(_refused(archive, entry.name, "a link or a device"))
            if entry.isreg():
                with source.extractfile(entry) as file:
                    yield entry.name, file
        while source.fileobj.read(BLOCK):
            pass  # up to the checksum of gzip, which stands at the very end


def _inside(archive, name):
    """The relative path of an entry, which must stay inside. Raises: UserError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", name) or not path.parts:
        raise UserError(_refused(archive, name, "a path that leads out of the archive's folder"))
    return path


def _refused(archive, name, why):
    return f"{archive}: refused: its entry {printable(name)} is {why}. Nothing was unpacked"


def _write(archive, name, file, path, left):
    """Write one entry, return its bytes. Raises: UserError past `left` bytes, on a name twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        target = open(path, "xb")
    except FileExistsError:
        raise UserError(_refused(archive, name, "there twice")) from None
    with target:
        while block := file.read(BLOCK):
            target.write(block)
            if target.tell() > left:
                raise UserError(f"{archive}: unpacks to more bytes than allowed")
        return target.tell()
