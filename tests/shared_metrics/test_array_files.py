"""Hostile and foreign .npy and .npz files: one line that names the file, and no memory taken."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from shared_metrics import array_files
from shared_metrics.errors import UserError
from shared_metrics.image_sets import open_source
from shared_metrics.statistics import Statistics

SMALL = np.zeros((4, 8, 8, 3), np.uint8)


def npy(array, shape=None):
    """The bytes of a .npy, its header declaring another shape."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    old = str(array.shape).encode()
    new = str(shape or array.shape).encode()
    return file.getvalue().replace(old + b", }" + b" " * (len(new) - len(old)), new + b", }")


def npz(method=zipfile.ZIP_DEFLATED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def lying(content, size):
    """A zip archive whose directory declares another size of its one entry."""
    place = content.index(b"PK\x01\x02") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def encrypted(content):
    content = bytearray(content)
    for place in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[place] |= 1
    return bytes(content)


FILES = {
    "far.npy": npy(SMALL, (3 * 10**9, 1, 1, 3)),
    "far.npz": npz(a=npy(SMALL, (3 * 10**9, 1, 1, 3))),
    "wide.npz": npz(a=npy(SMALL, (1, 10**6, 10**6, 3))),
    "negative.npy": npy(SMALL, (-4, 8, 8, 3)),
    "lying.npz": lying(npz(a=npy(SMALL)), 2**31),
    "bzip2.npz": npz(zipfile.ZIP_BZIP2, a=npy(SMALL)),
    "lzma.npz": npz(zipfile.ZIP_LZMA, a=npy(SMALL)),
    "encrypted.npz": encrypted(npz(a=npy(SMALL))),
    "deep.npy": npy(SMALL).replace(b"(4, 8, 8, 3)", b"((((((((((((")[:200],
    "cut.npy": npy(SMALL)[:-1],
    "empty.npz": b"",
    "pointer.npz": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    "page.npz": b"<html>404</html>",
    "float.npy": npy(SMALL.astype(np.float32)),
    "nchw.npy": npy(np.moveaxis(SMALL, 3, 1)),
    "grey.npz": npz(images=npy(SMALL[..., 0])),
    "objects.npy": npy(np.array([None, print], object)),
}


@pytest.mark.parametrize("name", FILES)
def test_each_is_one_line_and_takes_no_memory(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    tracemalloc.start()
    for read in (open_source, lambda path: Statistics.load(path, "tf")):
        with pytest.raises(UserError) as caught:
            read(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message
        if name.startswith(("float", "nchw", "grey")):
            assert "need uint8 (N, H, W, 3)" in message
        if name.startswith("pointer"):
            assert "git lfs pull" in message
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**24


def test_an_array_that_nobody_asks_for_is_not_read(tmp_path):
    path = tmp_path / "s.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in (("mu", np.zeros(2)), ("sigma", np.eye(2))):
            archive.writestr(f"{name}.npy", npy(array))
        archive.writestr("unused.npy", npy(np.zeros(2**23)))  # 64 MiB
    tracemalloc.start()
    Statistics.load(path, "tf")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**23


def test_objects_are_read_as_data(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'flag'}",)

    np.save(tmp_path / "x.npy", {"a": np.arange(3), "evil": Evil()}, allow_pickle=True)
    loaded = array_files.read(tmp_path / "x.npy")[""]
    assert loaded["a"].tolist() == [0, 1, 2] and "evil" not in loaded
    (tmp_path / "x.npy").write_bytes(npy(np.array(0, object)) + pickle.dumps(0))
    assert not (tmp_path / "flag").exists()
