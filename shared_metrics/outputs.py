"""What a command writes: looked at before its work, and held by one process while it writes."""

import contextlib
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from shared_metrics.errors import UserError
from shared_metrics.files import temporary_path


def check_file(path, flag="", overwrite=False, reads=()):
    """The path of a file that a command will write, looked at before its work.

    Args: flag, that names it; overwrite, whether a file that is there may go; reads, files and
        folders that the command reads ("" for none).
    Raises: UserError where it is, or lies in, what is read; where it is there and is not to be
        replaced, or is no plain file; where its folder is missing or cannot be written.
    """
    path = Path(path).expanduser()
    shown = f"{flag} {path}".strip()
    with _cannot_be_written(shown, "a file in a folder that is there"):
        check_outside(path, shown, reads)
        if os.path.lexists(path):
            if not path.is_file():
                kind = "a folder" if path.is_dir() else "no plain file"
                raise UserError(f"{shown}: is {kind}; give the name of a file")
            if not overwrite:
                raise UserError(
                    f"{shown}: is there already; give another name, or --overwrite to replace it"
                )
        # To try is the only sure way: rights alone do not tell of long names or read-only disks.
        trial = temporary_path(path)
        open(trial, "wb").close()
        trial.unlink()
    return path


def check_folder(path, flag="--output_dir", reads=()):
    """The path of a folder that a command will write, made or not. Nothing is made yet.

    Args, Raises: as `check_file`; a folder that is there is good.
    """
    path = Path(path)
    shown = f"{flag} {path}"
    with _cannot_be_written(shown, "another folder"):
        check_outside(path, shown, reads)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)  # other errors: too long a name, a link to itself
        place = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
        if not place.is_dir():
            raise UserError(f"{shown}: {place} is no folder; give another")
        tempfile.TemporaryFile(dir=place).close()
    return path


def check_outside(path, shown, reads):
    """Raise UserError where `path` is, or lies in, one of the files and folders that are read."""
    place = path.resolve()
    for source in reads:
        own = Path(source).expanduser().resolve() if source else None
        if own and own.is_dir() and place.is_relative_to(own):
            raise UserError(f"{shown}: the data themselves lie in {own}; give another place")
        if own and own.is_file() and path.exists() and path.samefile(own):  # a hard link, too
            raise UserError(f"{shown}: is the source itself; give another name to write to")


@contextlib.contextmanager
def _cannot_be_written(shown, instead):
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, to pathlib
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{shown}: cannot be written ({reason}); give {instead}") from None


@contextlib.contextmanager
def lock_folders(folders):
    """Make the folders and hold them for this process: `with lock_folders({"--output_dir": out})`.

    The system frees them even on kill -9.
    Args: {flag: folder}; several flags may name one folder.
    Raises: UserError naming the flag whose folder another process holds or that cannot be made.
    """
    with contextlib.ExitStack() as stack:
        places = set()
        for flag, folder in folders.items():
            shown = f"{flag} {folder}"
            with _cannot_be_written(shown, "another folder"):
                place = Path(folder)
                place.mkdir(parents=True, exist_ok=True)
                if place.resolve() in places:
                    continue
                places.add(place.resolve())
                stack.callback(_unlock, _lock(place / ".lock", shown))
        yield


def _lock(path, shown):
    lock = FileLock(path)
    with contextlib.suppress(Timeout):
        lock.acquire(blocking=False)
        if path.exists():  # else who held it has just taken it away: not to be relied on
            return lock
    raise UserError(
        f"{shown}: another run is writing there; wait for its end or give another folder"
    )


def _unlock(lock):
    with contextlib.suppress(OSError):  # Windows keeps a file that is open
        os.unlink(lock.lock_file)
    lock.release()
