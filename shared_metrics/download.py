"""Verified download of published files into a cache folder.

Environment: SHARED_METRICS_CACHE (folder; default ~/.cache/shared_metrics), SHARED_METRICS_MIRROR
    (folder URL that
holds the files under the same names, used instead of the published address),
SHARED_METRICS_OFFLINE=1 (never connect).
"""

import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from shared_metrics.errors import UserError
from shared_metrics.files import file_sha256

TIMEOUT = 30  # seconds without a byte


def cache_folder():
    """The folder of SHARED_METRICS_CACHE, else `shared_metrics` under XDG_CACHE_HOME or
    ~/.cache.
    """
    own = os.environ.get("SHARED_METRICS_CACHE")
    return Path(
        own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "shared_metrics")
    ).expanduser()


def fetch(url, sha256):
    """The local path of a published file: from the cache, else downloaded; its content is checked
    either way.

    A broken transfer leaves NAME.part, and the next call goes on from there; only a file with the
    right SHA-256 gets its name. Several processes may ask at once: one downloads, the others wait
    for it.
    Raises: UserError with the address and what to do by hand.
    """
    name = url.rpartition("/")[2]
    folder = cache_folder()
    path = folder / name
    by_hand = (
        f"Fetch {url} on another machine (sha256 {sha256}) and put it at {path}, or give its path"
    )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        if path.exists():
            if file_sha256(path) == sha256:
                return path
            raise UserError(f"{path}: damaged (wrong sha256); delete it and run again. {by_hand}")
        if os.environ.get("SHARED_METRICS_OFFLINE", "0") not in ("", "0"):
            raise UserError(
                f"{path}: not in the cache, and SHARED_METRICS_OFFLINE is set. {by_hand}"
            )
        mirror = os.environ.get("SHARED_METRICS_MIRROR")
        address = f"{mirror.rstrip('/')}/{name}" if mirror else url
        part = folder / f"{name}.part"
        try:
            _transfer(address, part)
        except (
            OSError,
            HTTPException,
            ValueError,
        ) as error:  # URLError is an OSError; ValueError: no such kind of URL
            raise UserError(f"{address}: cannot be downloaded ({error}). {by_hand}") from None
        if file_sha256(part) != sha256:
            part.unlink()
            raise UserError(
                f"{address}: what came has the wrong sha256 (a web page or another file); "
                f"removed. {by_hand}"
            )
        os.replace(part, path)
    return path


def _transfer(address, part):
    """Append to `part` what it lacks; OSError when the stream ends too early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing after what we have: the check of the whole decides
            return
        raise
    with response:
        have = have if response.status == 206 else 0  # 200: the server sends the whole file again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        label = f"downloading {part.stem}"
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=label, disable=None)
        with bar, open(part, "ab" if have else "wb") as file:
            while block := response.read(2**18):
                file.write(block)
                bar.update(len(block))
            received = file.tell()
    if total is not None and received < total:
        raise OSError(
            f"the connection broke after {received} of {total} bytes; run again to go on from there"
        )
