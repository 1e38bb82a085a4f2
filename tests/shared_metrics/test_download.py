"""Downloads from a server on this machine: verified, resumed, cached, mirrored, offline; one line
when they fail.
"""

import contextlib
import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shared_metrics import download as module
from shared_metrics.download import download, fetch
from shared_metrics.errors import UserError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Serves CONTENT at /w.pth; `cut` ends the next answer after so many bytes, `ranges`: is Range
    understood, `statuses`: what the next answers are instead, `shift`: how far behind the byte
    asked for an answer begins. /moved/w.pth leads to /w.pth.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            http.asked.append((self.path, asked))
            http.headers = self.headers
            body, status = http.content, 200
            if http.statuses:
                return self.send_error(http.statuses.pop(0))
            if self.path == "/moved/w.pth":
                self.send_response(302)
                self.send_header("Location", "/w.pth")
                return self.end_headers()
            if not self.path.endswith("w.pth"):
                return self.send_error(404, http.reason)
            if asked and http.ranges:
                first = int(asked.removeprefix("bytes=").rstrip("-"))
                if first >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    return self.end_headers()
                first += http.shift
                body, status = body[first:], 206
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{len(http.content) - 1}/*")
            if http.told:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut, http.cut = http.cut, None
            self.wfile.write(body[:cut])

        def log_message(self, *args):
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.content, http.ranges, http.cut, http.asked = CONTENT, True, None, []
    http.statuses, http.shift = [], 0
    http.told, http.reason = True, None
    http.url = f"http://127.0.0.1:{http.server_port}/w.pth"
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
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


# ---- download: to any path, from several addresses, with or without a checksum


def test_the_next_address_is_asked(server, tmp_path):
    urls = [server.url.replace("w.pth", "v.pth"), server.url]
    assert download(urls, tmp_path / "x.bin", SHA256).read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/v.pth", "/w.pth"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_broken_transfer_goes_on_within_one_call(server, tmp_path):
    server.cut = 1000
    assert download([server.url], tmp_path / "x.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-"]


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.statuses = [503, 500]
    assert download([server.url], tmp_path / "x.bin", SHA256).read_bytes() == CONTENT
    server.statuses = [403, 403]
    with pytest.raises(UserError, match="403"):
        download([server.url], tmp_path / "y.bin", SHA256)
    assert server.statuses == [403]


def test_redirects_are_followed_with_the_range(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT[:5000])
    url = server.url.replace("w.pth", "moved/w.pth")
    assert download([url], tmp_path / "x.bin", SHA256).read_bytes() == CONTENT
    assert server.asked == [("/moved/w.pth", "bytes=5000-"), ("/w.pth", "bytes=5000-")]


def test_an_answer_that_begins_elsewhere_is_not_appended(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT[:5000])
    server.shift = 100
    with pytest.raises(UserError, match="wrong sha256"):
        download([server.url], tmp_path / "x.bin", SHA256, tries=1)


def test_without_a_checksum_addresses_do_not_mix(server, tmp_path):
    other = server.url.replace("w.pth", "other/w.pth")
    server.cut = 1000
    with pytest.raises(UserError, match="v.pth: .*404"):
        download([server.url, server.url.replace("w.pth", "v.pth")], tmp_path / "x.bin", tries=1)
    assert download([server.url.replace("w.pth", "v.pth"), other], tmp_path / "x.bin")
    assert server.asked[-1] == ("/other/w.pth", None)


@pytest.mark.parametrize("part", [CONTENT + b"more", b"another file's beginning"])
def test_a_part_of_another_file_is_fetched_anew(server, tmp_path, part):
    (tmp_path / "x.bin.part").write_bytes(part)
    assert download([server.url], tmp_path / "x.bin", SHA256).read_bytes() == CONTENT


def test_no_more_bytes_than_allowed(server, tmp_path):
    with pytest.raises(UserError, match="10240 bytes, more than the 10239 allowed"):
        download([server.url], tmp_path / "x.bin", limit=10239)
    assert len(server.asked) == 1 and list(tmp_path.iterdir()) == []
    assert download([server.url], tmp_path / "x.bin", limit=10240).exists()


def test_every_address_is_named_when_all_fail(tmp_path):
    urls = ["http://127.0.0.1:9/a/x.bin", "http://127.0.0.1:9/b/x.bin"]
    with pytest.raises(UserError) as error:
        download(urls, tmp_path / "x.bin", SHA256)
    text = str(error.value)
    assert all(url in text for url in urls) and SHA256 in text and str(tmp_path / "x.bin") in text


# ---- what a server may not do


def test_a_file_without_end_leaves_nothing(server, tmp_path):
    """Neither where the server tells no size, nor where an earlier call has left too much."""
    server.told = False
    with pytest.raises(UserError, match="more than the 5000 bytes allowed"):
        download([server.url], tmp_path / "x.bin", limit=5000)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.bin.part").write_bytes(bytes(20_000))
    assert download([server.url], tmp_path / "x.bin", SHA256, limit=10240).exists()


@pytest.mark.parametrize("drip", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_a_server_that_drips_is_left_in_time(tmp_path, monkeypatch, drip):
    """In its headers as in the file; what came stays, to go on from."""
    monkeypatch.setattr(module, "PATIENCE", 0.6)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with contextlib.suppress(OSError):
            connection.sendall(drip)
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.05)

    threading.Thread(target=serve, daemon=True).start()
    start = time.monotonic()
    with pytest.raises(UserError, match="took too long; run again"):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/w.pth"
        download([url], tmp_path / "x.bin", limit=1000)
    assert time.monotonic() - start < 5
    listener.close()


def test_a_password_reaches_the_mirror_and_no_screen(server, tmp_path, monkeypatch):
    place = server.url.partition("//")[2].replace("/w.pth", "")
    monkeypatch.setenv("SHARED_METRICS_MIRROR", f"http://me:s%2Fcret@{place}")
    assert download(["https://example.invalid/w.pth"], tmp_path / "x.bin", SHA256).exists()
    assert server.headers["Authorization"] == "Basic bWU6cy9jcmV0"  # me:s/cret
    for mirror in (f"http://me:s%2Fcret@{place}/none", "http://me:s%2Fcret@127.0.0.1:9"):
        monkeypatch.setenv("SHARED_METRICS_MIRROR", mirror)
        with pytest.raises(UserError) as error:
            download(["https://example.invalid/v.pth"], tmp_path / "y.bin", tries=1)
        assert "cret" not in str(error.value) and "http://127.0.0.1" in str(error.value)
    for mirror in ("http://me:s/cret@host", "me:cret@host", "http://me@:cret"):
        monkeypatch.setenv("SHARED_METRICS_MIRROR", mirror)
        with pytest.raises(UserError, match="SHARED_METRICS_MIRROR: is no address") as error:
            download(["https://example.invalid/v.pth"], tmp_path / "y.bin")
        assert "cret" not in str(error.value)


def test_a_password_follows_no_redirect(server, tmp_path, monkeypatch):
    place = server.url.partition("//")[2].replace("/w.pth", "/moved")
    monkeypatch.setenv("SHARED_METRICS_MIRROR", f"http://me:secret@{place}")
    assert download(["https://example.invalid/w.pth"], tmp_path / "x.bin", SHA256).exists()
    assert server.asked[-1][0] == "/w.pth" and "Authorization" not in server.headers


def test_control_codes_of_a_server_reach_no_screen(server, tmp_path):
    server.reason = "\x1b[31mred\x9b2J"
    with pytest.raises(UserError, match="404") as error:
        download([server.url.replace("w.pth", "v.pth")], tmp_path / "x.bin")
    assert str(error.value).isprintable() and "red" in str(error.value)
