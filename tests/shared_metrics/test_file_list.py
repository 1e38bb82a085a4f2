"""shared_metrics/file_list.py: paths in order, kept as bytes."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from shared_metrics import images
from shared_metrics.class_folders import class_files
from shared_metrics.file_list import FileList
from shared_metrics.files import digest, fingerprint

NAMES = ["b/2.png", "a.JPG", "déjà vu/图.png", os.fsdecode(b"\xff.png")]


def test_a_list_behaves_as_one_of_paths():
    files = FileList.of("data", NAMES)
    paths = [Path("data", name) for name in NAMES]
    assert list(files) == paths and files == paths and paths == files
    assert files != paths[:-1] and files != paths[::-1]
    assert [files[i] for i in (0, -1, np.int64(2))] == [paths[0], paths[-1], paths[2]]
    assert files[1::2] == paths[1::2] and files[np.array([3, 0])] == [paths[3], paths[0]]
    assert list(files[2:].names()) == NAMES[2:] and paths[1] in files
    assert not FileList.of("data", []) and not files[4:]
    with pytest.raises(IndexError):
        files[4]


def test_joined_lists_keep_their_folders():
    first = FileList.of("a", ["0.png", "1.png", "2.png"])
    second = FileList.of(Path("b"), ["c/0.png"])
    both = FileList.joined([first[1:], second])
    assert both == [Path("a/1.png"), Path("a/2.png"), Path("b/c/0.png")]
    assert FileList.joined([both, first[:1]])[2:] == [Path("b/c/0.png"), Path("a/0.png")]
    assert len(FileList.joined([])) == 0


def test_a_file_takes_little_more_than_its_name(tmp_path):
    for folder in ("cat", "dog"):
        (tmp_path / folder).mkdir()
        for i in range(2000):
            (tmp_path / folder / f"{folder}_{i:08d}.png").touch()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    files, labels = class_files(tmp_path, ["cat", "dog"], "--data_path")
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(files) == len(labels) == 4000 and labels[1999:2001].tolist() == [0, 1]
    assert files[2000] == tmp_path / "dog" / "dog_00000000.png"
    assert taken / 4000 < 60  # bytes: 16 of the name, 16 of where it is, 8 of the label


def test_no_file_is_looked_at_to_list_it(tmp_path, monkeypatch):
    (tmp_path / "cat").mkdir()
    for i in range(20):
        (tmp_path / "cat" / f"{i}.png").touch()
    looked_at = []
    for name in ("stat", "lstat"):
        real = getattr(os, name)

        def counted(path, *args, real=real, **how):
            looked_at.append(os.fspath(path))
            return real(path, *args, **how)

        monkeypatch.setattr(os, name, counted)
    assert len(images.list_images(tmp_path)) == 20 and len(images.sub_folders(tmp_path)) == 1
    assert not [path for path in looked_at if path.endswith(".png")]


def test_the_fingerprint_is_the_digest_of_names_and_sizes(tmp_path):
    (tmp_path / "b").mkdir()
    files = [tmp_path / "b" / "1.png", tmp_path / "a.png", tmp_path / "b!.png"]
    for size, file in enumerate(files):
        file.write_bytes(bytes(size))
    pairs = sorted([("b/1.png", 0), ("a.png", 1), ("b!.png", 2), ("gone.png", 0)])
    assert fingerprint([*files, tmp_path / "gone.png"]) == digest(pairs)
    assert fingerprint(FileList.of(tmp_path, ["b/1.png"])) == digest([("1.png", 0)])
    assert fingerprint([]) == digest([])
