"""Downloads from a server on this machine: verified, resumed, cached, mirrored, offline; one line
when they fail.
"""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shared_metrics.download import fetch
from shared_metrics.errors import UserError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Serves CONTENT at /w.pth; `cut` ends the next answer after so many bytes, `ranges`: is Range
    understood.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            http.asked.append((self.path, asked))
            body, status = http.content, 200
            if not self.path.endswith("w.pth"):
                return self.send_error(404)
            if asked and http.ranges:
                first = int(asked.removeprefix("bytes=").rstrip("-"))
                if first >= len(body):
                    return self.send_error(416)
                body, status = body[first:], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut, http.cut = http.cut, None
            self.wfile.write(body[:cut])

        def log_message(self, *args):
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.content, http.ranges, http.cut, http.asked = CONTENT, True, None, []
    http.url = f"http://127.0.0.1:{http.server_port}/w.pth"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SHARED_METRICS_CACHE", str(tmp_path / "cache"))
    for name in ("MIRROR", "OFFLINE"):
        monkeypatch.delenv(f"SHARED_METRICS_{name}", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def files(cache):
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_downloads_once_then_serves_the_cache_offline(server, cache, monkeypatch):
    assert fetch(server.url, SHA256).read_bytes() == CONTENT
    monkeypatch.setenv("SHARED_METRICS_OFFLINE", "1")
    assert fetch(server.url, SHA256) == cache / "w.pth"
    assert len(server.asked) == 1 and files(cache) == ["w.pth"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_is_taken_up_again(server, cache, ranges):
    server.ranges, server.cut = ranges, 1000
    with pytest.raises(UserError, match="1000 of 10240 bytes; run again"):
        fetch(server.url, SHA256)
    assert files(cache) == ["w.pth.part"]
    assert fetch(server.url, SHA256).read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=1000-" and files(cache) == ["w.pth"]


def test_a_complete_part_needs_nothing_more(server, cache):
    cache.mkdir()
    (cache / "w.pth.part").write_bytes(CONTENT)
    assert fetch(server.url, SHA256).read_bytes() == CONTENT


def test_wrong_content_is_removed(server, cache):
    server.content = b"<html>sign in first</html>"
    with pytest.raises(UserError, match="wrong sha256") as error:
        fetch(server.url, SHA256)
    assert SHA256 in str(error.value) and files(cache) == []


def test_a_damaged_cache_is_told(server, cache):
    fetch(server.url, SHA256).write_bytes(b"other")
    with pytest.raises(UserError, match="damaged"):
        fetch(server.url, SHA256)


def test_no_such_file_and_no_server(server, cache):
    address = server.url.replace("w.pth", "v.pth")
    with pytest.raises(UserError, match="404") as error:
        fetch(address, SHA256)
    assert "\n" not in str(error.value) and str(cache / "v.pth") in str(error.value)
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch("http://127.0.0.1:9/w.pth", SHA256)
    assert files(cache) == []


def test_offline_says_what_to_do_and_connects_nowhere(server, cache, monkeypatch):
    monkeypatch.setenv("SHARED_METRICS_OFFLINE", "1")
    with pytest.raises(UserError, match="SHARED_METRICS_OFFLINE is set. Fetch http"):
        fetch(server.url, SHA256)
    assert server.asked == []


def test_mirror(server, monkeypatch):
    monkeypatch.setenv("SHARED_METRICS_MIRROR", server.url.replace("w.pth", "mirror/"))
    assert fetch("https://example.invalid/releases/w.pth", SHA256).read_bytes() == CONTENT
    assert server.asked == [("/mirror/w.pth", None)]


def test_two_at_once_download_once(server):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(server.url, SHA256))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(server.asked) == 1
