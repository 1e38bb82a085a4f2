"""What a command writes: never its own input, never an earlier file unasked, never two at once."""

import os
import subprocess
import sys

import pytest

from shared_metrics import outputs
from shared_metrics.errors import UserError
from tests.conftest import ROOT

HOLD = """
import sys, time
from shared_metrics.outputs import lock_folders
with lock_folders({"--output_dir": sys.argv[1]}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_new_file_and_one_to_replace(tmp_path):
    path = tmp_path / "s.npz"
    assert outputs.check_file(path, "-o", reads=["", tmp_path / "no"]) == path
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"mine")
    assert outputs.check_file(path, overwrite=True) == path and path.read_bytes() == b"mine"
    with pytest.raises(UserError, match="-o .*s.npz: is there already; .*--overwrite"):
        outputs.check_file(path, "-o")


def test_what_is_read_is_never_written(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    own = data / "a.npz"
    own.write_bytes(b"mine")
    os.link(own, tmp_path / "same.npz")
    (tmp_path / "link").symlink_to(data)
    for path in (own, tmp_path / "same.npz", tmp_path / "link" / "a.npz"):
        with pytest.raises(UserError, match="is the source itself"):
            outputs.check_file(path, overwrite=True, reads=[own])
    with pytest.raises(UserError, match="the data themselves lie in"):
        outputs.check_file(tmp_path / "link" / "b.npz", reads=[data])
    for path in (data, data / "out", tmp_path / "link"):
        with pytest.raises(UserError, match="--output_dir .*the data themselves lie in"):
            outputs.check_folder(path, reads=[data])
    assert outputs.check_folder(tmp_path, reads=[data]) == tmp_path


def test_what_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("no/s.npz", "file/s.npz", "loop/s.npz", "x" * 300, "", "pipe"):
        with pytest.raises(UserError) as error:
            outputs.check_file(tmp_path / name, "-o", overwrite=True)
        assert "\n" not in str(error.value) and str(error.value).startswith("-o ")
    for name in ("file", "file/out", "loop", "loop/out", "x" * 300):
        with pytest.raises(UserError):
            outputs.check_folder(tmp_path / name)
    outputs.check_folder(tmp_path / "new" / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop", "pipe"]


def test_one_process_a_folder_and_kill_9_frees_it(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path / "run"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    folders = {"--output_dir": tmp_path / "other", "--check_path": tmp_path / "run"}
    with pytest.raises(UserError, match="--check_path .*run: another run is writing there"):
        with outputs.lock_folders(folders):
            pass
    process.kill()
    process.wait()
    for _ in range(2):  # leaving frees them too, with an error as well; one folder twice is one
        with pytest.raises(ZeroDivisionError):
            with outputs.lock_folders(folders | {"--log_path": str(tmp_path / "run")}):
                raise ZeroDivisionError
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["other", "run"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UserError, match="--output_dir .*out: cannot be written"):
        with outputs.lock_folders({"--output_dir": tmp_path / "file" / "out"}):
            pass
