"""download.py against a server on this machine that also fails, breaks off and moves its files."""

import functools
import hashlib
import io
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shared_metrics.errors import UserError
from tests.conftest import run_cli

FILES = {
    f"mini/{part}/{i}_{part[-1]}.jpg": b"picture" for part in ("trainA", "trainB") for i in (1, 2)
}


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a folder; `http.broken` names files of which the first answer breaks off half-way."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            http.asked.append(self.path)
            if self.path.startswith("/old/"):
                self.send_response(301)
                self.send_header("Location", self.path.removeprefix("/old"))
                return self.end_headers()
            if self.path not in http.broken:
                return super().do_GET()
            http.broken.remove(self.path)
            content = (folder / self.path[1:]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

        def log_message(self, *args):
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    http.folder, http.asked, http.broken = folder, [], []
    http.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("MIRROR", "OFFLINE"):
        monkeypatch.delenv(f"SHARED_METRICS_{name}", raising=False)
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def download(paper):
    return paper("classic_gans").download


def archive(download, server, content, sha256=None, hosts=("",)):
    """An entry of the table for a zip file that the server holds."""
    (server.folder / "mini.zip").write_bytes(content)
    hosts = tuple(f"{server.url}{host}" for host in hosts)
    return download.Archive(hosts, "mini.zip", "a few pictures", sha256)


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_set_is_unpacked_and_listed_once(download, server, tmp_path):
    content = zipped(FILES)
    entry = archive(download, server, content, hashlib.sha256(content).hexdigest())
    folder = tmp_path / "data" / "mini"
    folder.parent.mkdir()
    download.fetch_archive(entry, folder)
    assert names(folder.parent) == sorted([*FILES, "mini/trainA.txt", "mini/trainB.txt"])
    assert (folder / "trainA.txt").read_text() == "trainA/1_A.jpg\ntrainA/2_A.jpg\n"
    download.fetch_archive(entry, folder)
    assert server.asked == ["/mini.zip"]


def test_lists_of_the_user_stay(download, server, tmp_path, capsys):
    entry = archive(download, server, zipped(FILES))
    folder = tmp_path / "mini"
    download.fetch_archive(entry, folder)
    (folder / "trainA.txt").write_text("trainA/2_A.jpg\n")
    (folder / "trainB.txt").unlink()
    download.fetch_archive(entry, folder)
    assert (folder / "trainA.txt").read_text() == "trainA/2_A.jpg\n"
    assert (folder / "trainB.txt").read_text() == "trainB/1_B.jpg\ntrainB/2_B.jpg\n"
    assert "trainA.txt: is there with other lines and stays" in capsys.readouterr().out


def test_a_broken_transfer_and_a_moved_file(download, server, tmp_path):
    content = zipped(FILES)
    server.broken = ["/mini.zip"]
    hosts = ("/nothing", "/old")
    entry = archive(download, server, content, hashlib.sha256(content).hexdigest(), hosts)
    download.fetch_archive(entry, tmp_path / "mini")
    assert "mini/trainA/1_A.jpg" in names(tmp_path)
    assert server.asked[0] == "/nothing/mini.zip" and server.asked[1] == "/old/mini.zip"


def test_another_file_than_published_is_refused(download, server, tmp_path):
    entry = archive(download, server, b"<html>sign in</html>", "0" * 64)
    with pytest.raises(UserError, match="wrong sha256"):
        download.fetch_archive(entry, tmp_path / "mini")
    assert names(tmp_path) == ["served/mini.zip"]


def test_a_hostile_archive_leaves_nothing(download, server, tmp_path):
    entry = archive(download, server, zipped({**FILES, "../slip.jpg": b"x"}))
    with pytest.raises(UserError, match="slip.jpg is a path that leads out"):
        download.fetch_archive(entry, tmp_path / "data" / "mini")
    assert not (tmp_path / "data" / "mini").exists() and not (tmp_path / "slip.jpg").exists()


def test_an_archive_put_there_by_hand_is_used_and_stays(download, tmp_path):
    (tmp_path / "mini.zip").write_bytes(zipped(FILES))
    entry = download.Archive(("http://127.0.0.1:9",), "mini.zip", "a few pictures")
    download.fetch_archive(entry, tmp_path / "mini")
    assert "mini.zip" in names(tmp_path) and "mini/trainB.txt" in names(tmp_path)


def test_mnist_goes_on_after_a_failure(download, server, tmp_path, monkeypatch):
    sums = {}
    for file in download.MNIST:
        content = file.encode() * 100
        (server.folder / file).write_bytes(content)
        sums[file] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(download, "MNIST", sums)
    monkeypatch.setattr(download, "MNIST_HOSTS", (server.url,))
    last = list(sums)[-1]
    (server.folder / last).rename(server.folder / "away")
    with pytest.raises(UserError, match=f"{last}: .*404"):
        download.fetch_mnist(tmp_path / "mnist")
    assert names(tmp_path / "mnist") == sorted(list(sums)[:-1])
    (server.folder / "away").rename(server.folder / last)
    server.asked.clear()
    download.fetch_mnist(tmp_path / "mnist")
    assert server.asked == [f"/{last}"]
    (tmp_path / "mnist" / last).write_bytes(b"mine")
    with pytest.raises(UserError, match="is not MNIST's file"):
        download.fetch_mnist(tmp_path / "mnist")
    assert (tmp_path / "mnist" / last).read_bytes() == b"mine"


def test_the_command(server, tmp_path):
    (server.folder / "mini.zip").write_bytes(zipped(FILES))
    env = {"SHARED_METRICS_MIRROR": server.url}
    command = ["download.py", "--dataset=mini", "--data_dir", tmp_path / "data"]
    done = run_cli("classic_gans", *command, env=env)
    assert "no checksum is published; sha256" in done.stdout
    assert "2 pictures" in done.stdout and (tmp_path / "data/mini/trainA.txt").exists()
    command[1] = "--dataset=maps"
    failed = run_cli("classic_gans", *command, env=env, code=2)
    assert failed.stderr.count("\n") == 1 and "404" in failed.stderr
    assert "and put it at" in failed.stderr and "Traceback" not in failed.stderr


def test_list_and_sets_that_are_not_there(download, capsys):
    download.main(["--list"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("mnist", "horse2zebra", "edges2shoes", "cityscapes"))
    with pytest.raises(UserError, match="--dataset cityscapes: .*prepare_cityscapes_dataset.py"):
        download.main(["--dataset", "cityscapes"])
    with pytest.raises(UserError, match="--dataset Maps: unknown; --list"):
        download.main(["--dataset", "Maps"])


def test_the_table(download):
    """Every address is https but MNIST's last; every known checksum is one."""
    assert set(download.ARCHIVES) >= set(
        "apple2orange summer2winter_yosemite horse2zebra monet2photo cezanne2photo ukiyoe2photo "
        "vangogh2photo maps facades iphone2dslr_flower ae_photos mini".split()
    )
    sums = [a.sha256 for a in download.ARCHIVES.values() if a.sha256]
    sums += download.MNIST.values()
    assert len(set(sums)) == len(sums) == 14
    assert all(len(bytes.fromhex(text)) == 32 for text in sums)
