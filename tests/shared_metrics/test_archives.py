"""Archives that lie about themselves: nothing leaves the folder, nothing half unpacked stays."""

import io
import stat
import tarfile
import zipfile

import pytest

from shared_metrics.archives import extract
from shared_metrics.errors import UserError


def make_zip(path, files):
    """files: {name or ZipInfo: bytes}."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path, files, mode="w:gz"):
    """files: {name or TarInfo: bytes}."""
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


FILES = {"set/trainA/1.jpg": b"a" * 1000, "set/trainB/1.jpg": b"b"}
INSIDE = {"trainA/1.jpg": b"a" * 1000, "trainB/1.jpg": b"b"}


@pytest.mark.parametrize("make, name", [(make_zip, "x.zip"), (make_tar, "x.tar.gz")])
def test_the_folder_round_all_is_left_out(tmp_path, make, name):
    folder = extract(make(tmp_path / name, FILES), tmp_path / "out")
    assert folder == tmp_path / "out" and tree(folder) == INSIDE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", name]


@pytest.mark.parametrize("mode", ["w", "w:bz2", "w:xz"])
def test_other_compressions(tmp_path, mode):
    assert tree(extract(make_tar(tmp_path / "x.tar", INSIDE, mode), tmp_path / "out")) == INSIDE


def test_what_a_mac_adds_is_left_out(tmp_path):
    archive = make_zip(tmp_path / "x.zip", FILES | {"__MACOSX/set/._1.jpg": b"x"})
    assert tree(extract(archive, tmp_path / "out")) == INSIDE


def link(name, to):
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.SYMTYPE
    entry.linkname = to
    return entry


def typed(name, kind):
    entry = tarfile.TarInfo(name)
    entry.type = kind
    return entry


def zip_link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


NAMES = ["../slip.txt", "set/../../slip.txt", "/slip.txt", "C:\\slip.txt", "a\\..\\slip.txt"]


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", NAMES)
def test_paths_that_lead_out_are_refused(tmp_path, make, name):
    archive = make(tmp_path / "x.bin", FILES | {name: b"x"})
    with pytest.raises(UserError, match="x.bin: refused: its entry .*slip.txt.*leads out"):
        extract(archive, tmp_path / "inner" / "out")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["x.bin"]


@pytest.mark.parametrize(
    "make, entry",
    [
        (make_tar, link("set/l", "/etc/passwd")),
        (make_tar, typed("set/l", tarfile.LNKTYPE)),
        (make_tar, typed("set/l", tarfile.CHRTYPE)),
        (make_zip, zip_link("set/l")),
    ],
)
def test_links_and_devices_are_refused(tmp_path, make, entry):
    content = b"/etc/passwd" if make is make_zip else b""
    archive = make(tmp_path / "x.bin", FILES | {entry: content})
    with pytest.raises(UserError, match="its entry set/l is a link or a device"):
        extract(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_bomb_is_stopped(tmp_path, make):
    archive = make(tmp_path / "x.bin", {"zeros.bin": bytes(10**6), "more.bin": b"x"})
    assert archive.stat().st_size < 5000
    with pytest.raises(UserError, match="unpacks to more bytes than allowed"):
        extract(archive, tmp_path / "out", limit=10**6)
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    extract(archive, tmp_path / "out", limit=10**6 + 1)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_entries_that_zipfile_unpacks_at_once_are_refused(tmp_path, method):
    """A few hundred bytes by these methods are gigabytes before the first is counted."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("zeros.bin", bytes(10**6))
    with pytest.raises(UserError, match="x.zip: damaged, .* other than deflate"):
        extract(tmp_path / "x.zip", tmp_path / "out", limit=10**5)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/1.txt", b"one")
        archive.writestr("a/1.txt", b"two")
    with pytest.raises(UserError, match="there twice"):
        extract(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_damaged_archives(tmp_path, make):
    content = {"a/1.txt": bytes(range(256)) * 1000}
    whole = make(tmp_path / "x.bin", content).read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for damaged in (whole[:middle], flipped, b"", b"<html>sign in</html>"):
        (tmp_path / "x.bin").write_bytes(damaged)
        with pytest.raises(UserError, match="x.bin: damaged, or no zip or tar archive|holds no"):
            extract(tmp_path / "x.bin", tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_a_folder_that_is_there_stays(tmp_path):
    archive = make_zip(tmp_path / "x.zip", FILES)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        extract(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {"mine.txt": b"mine"}


def test_no_files(tmp_path):
    with pytest.raises(UserError, match="holds no files"):
        extract(make_zip(tmp_path / "x.zip", {}), tmp_path / "out")
