"""Verified download of published files.

Environment: SHARED_METRICS_CACHE (folder; default ~/.cache/shared_metrics), SHARED_METRICS_MIRROR
(folder URL that holds the files under the same names, used instead of the published addresses; it
may hold a name and password, https://NAME:PASSWORD@HOST/FOLDER, which are never shown),
SHARED_METRICS_OFFLINE=1 (never connect).
"""

import base64
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from shared_metrics.errors import UserError
from shared_metrics.files import file_sha256, shown
from shared_metrics.timed_http import Opener, TookTooLong

TIMEOUT = 30  # seconds without a byte
LIMIT = 16 * 2**30  # bytes that a file may have whose size nobody has published
PATIENCE = 600  # seconds that any transfer may take ...
SLOWEST = 2**14  # ... and one more for so many bytes
BLOCK = 2**18


class GiveUp(Exception):
    """A fault that asking again would not mend."""


def cache_folder():
    """The folder of SHARED_METRICS_CACHE, else `shared_metrics` under XDG_CACHE_HOME or
    ~/.cache.
    """
    own = os.environ.get("SHARED_METRICS_CACHE")
    return Path(
        own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "shared_metrics")
    ).expanduser()


def limit_of(size):
    """Bytes that a file of a published size may have: that and a little."""
    return size + size // 20 + 2**20


def fetch(url, sha256, size=None):
    """The local path of a published file: from the cache, else downloaded; its content is checked
    either way.

    A broken transfer leaves NAME.part, and the next call goes on from there; only a file with the
    right SHA-256 gets its name. Several processes may ask at once: one downloads, the others wait
    for it.
    Args: size, its bytes, where they are published.
    Raises: UserError with the address and what to do by hand.
    """
    name = url.rpartition("/")[2]
    folder = cache_folder()
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        if path.exists():
            if file_sha256(path) == sha256:
                return path
            raise UserError(
                f"{path}: damaged (wrong sha256); delete it and run again. "
                f"{_by_hand([url], path, sha256)}"
            )
        limit = limit_of(size) if size else LIMIT
        return download([url], path, sha256, limit, tries=1)


def download(urls, path, sha256=None, limit=LIMIT, tries=3):
    """Put a published file at `path`, from the first of its addresses that gives it.

    A broken transfer leaves PATH.part; the next try, of this call or of a later one, goes on from
    there. The file gets its name when it is whole. More bytes than `limit` are not kept, and a
    transfer ends in a time that `limit` or the server's own word on the size gives.
    Args: sha256, of the whole file; None where nobody has published it: then no transfer goes on
        from another address's. limit, bytes; tries, at each address.
    Returns: `path`. Raises: UserError with every address and its fault, and what to do by hand.
    """
    path = Path(path)
    by_hand = _by_hand(urls, path, sha256)
    if os.environ.get("SHARED_METRICS_OFFLINE", "0") not in ("", "0"):
        raise UserError(f"{path}: not there, and SHARED_METRICS_OFFLINE is set. {by_hand}")
    mirror = os.environ.get("SHARED_METRICS_MIRROR")
    if mirror:
        urls = [f"{_checked(mirror).rstrip('/')}/{urls[0].rpartition('/')[2]}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    faults = []
    for number, url in enumerate(urls):
        part = path.with_name(f"{path.name}.part")
        if sha256 is None and number:
            part = path.with_name(f"{path.name}.{number}.part")
        fault = _tries(url, part, sha256, limit, tries)
        if fault is None:
            os.replace(part, path)
            return path
        faults.append(f"{_address(url)}: {fault}")
    raise UserError(f"{'; '.join(faults)}. {by_hand}")


def _checked(mirror):
    try:
        parts = urllib.parse.urlsplit(mirror)
        if parts.scheme and (parts.hostname or parts.scheme == "file") and parts.port != 0:
            return mirror
    except ValueError:  # its words could hold a part of a password
        pass
    raise UserError("SHARED_METRICS_MIRROR: is no address; give one such as https://HOST/FOLDER")


def _address(url):
    """An address that may be shown: without a name, a password, or what follows a "?"."""
    return shown(re.sub(r"//.*@", "//", url).partition("?")[0])


def _request(url, have):
    """The request for what follows `have` bytes; name and password go to this very host alone."""
    parts = urllib.parse.urlsplit(url)
    if not parts.username:
        request = urllib.request.Request(url)
    else:
        host = parts.netloc.rpartition("@")[2]
        request = urllib.request.Request(parts._replace(netloc=host).geturl())
        words = f"{parts.username}:{parts.password or ''}"
        coded = base64.b64encode(urllib.parse.unquote(words).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {coded}")
    if have:
        request.add_header("Range", f"bytes={have}-")
    return request


def _by_hand(urls, path, sha256):
    checksum = f" (sha256 {sha256})" if sha256 else ""
    return f"Fetch {urls[0]} on another machine{checksum} and put it at {path}, or give its path"


def _tries(url, part, sha256, limit, tries):
    """Transfer a file to `part`. Returns: None, or why it did not succeed."""
    for _ in range(tries):
        resumed = part.exists()
        try:
            _transfer(url, part, limit)
        except (GiveUp, TookTooLong) as error:
            return f"cannot be downloaded ({shown(error)})"
        except (OSError, HTTPException, ValueError) as error:  # ValueError: no such kind of URL
            fault = f"cannot be downloaded ({shown(error)})"
            continue
        if not sha256 or file_sha256(part) == sha256:
            return None
        part.unlink()
        fault = "what came has the wrong sha256 (a web page or another file); removed"
        if not resumed:  # else it may have been the beginning that was of another file
            break
    return fault


def _transfer(url, part, limit):
    """Append to `part` what it lacks. Raises: OSError when the stream ends too early; GiveUp."""
    have = part.stat().st_size if part.exists() else 0
    if have > limit:
        part.unlink()
        have = 0
    opener = Opener(TIMEOUT, time.monotonic() + PATIENCE + limit / SLOWEST)
    try:
        response = opener.open(_request(url, have))
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing after what we have
            if error.headers.get("Content-Range") in (None, f"bytes */{have}"):
                return  # it is whole; what checks the whole decides
            part.unlink()
            raise OSError("the file there is another than before; run again") from None
        if error.code < 500:  # not there, not allowed
            raise GiveUp(error) from None
        raise
    with response:
        # 200: the server sends the whole file again
        have = have if response.status == 206 and _begins_at(response) in (have, None) else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if (total or 0) > limit:
            raise GiveUp(f"it has {total} bytes, more than the {limit} allowed")
        if total:
            opener.hurry(time.monotonic() + PATIENCE + total / SLOWEST)
        received = _receive(response, part, have, total, limit)
    if total is not None and received < total:
        raise OSError(
            f"the connection broke after {received} of {total} bytes; run again to go on from there"
        )


def _receive(response, part, have, total, limit):
    """Append a response's bytes to `part`, which has `have`. Returns: how many it then has."""
    label = f"downloading {shown(part.name.removesuffix('.part'))}"
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=label, disable=None)
    with bar, open(part, "ab" if have else "wb") as file:
        while block := response.read1(BLOCK):
            file.write(block)
            bar.update(len(block))
            if file.tell() > limit:
                part.unlink()
                raise GiveUp(f"it has more than the {limit} bytes allowed")
        return file.tell()


def _begins_at(response):
    """The first byte of an answer to a Range request, None where it does not tell."""
    told = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return int(told[1]) if told else None
