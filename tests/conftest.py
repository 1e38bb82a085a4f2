"""What every test may use: papers loaded alone, tiny data, command lines.

Functions and ROOT are imported: `from tests.conftest import ROOT, run_cli, shared_dir`.
"""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

# Before Paddle is loaded anywhere: tests run side by side, so with one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")  # plots without a screen

import pytest

from scripts import make_toy_data

ROOT = Path(__file__).resolve().parents[1]


class Paper:
    """A paper folder on sys.path; attributes are its modules: `paper("sagan").model.Generator`."""

    def __init__(self, folder):
        self.folder = Path(folder)
        modules = {p.stem for p in self.folder.glob("*.py")}
        packages = {p.name for p in self.folder.iterdir() if p.is_dir()}
        self.names = modules | packages
        self.hidden = self.take_modules()
        sys.path.insert(0, str(self.folder))
        importlib.invalidate_caches()

    def __getattr__(self, name):
        if name.startswith("_") or name not in self.names:
            raise AttributeError(f"{self.folder} has no module {name}")
        return importlib.import_module(name)

    def take_modules(self):
        """Remove and return the loaded modules that go by this folder's names."""
        ours = [name for name in sys.modules if name.split(".")[0] in self.names]
        return {name: sys.modules.pop(name) for name in ours}

    def close(self):
        """Forget this folder's modules and put back what they hid."""
        self.take_modules()
        sys.modules.update(self.hidden)
        sys.path.remove(str(self.folder))


@pytest.fixture
def paper():
    """Function that makes one paper's bare module names importable.

    `paper("sagan")`, then `from model import ...`. Takes a folder of the repository or any path; a
    second call replaces the first. Undone at the end of the test.
    """
    current = []

    def load(folder):
        while current:
            current.pop().close()
        current.append(Paper(ROOT / folder))
        return current[-1]

    yield load
    while current:
        current.pop().close()


@pytest.fixture
def class_folder(tmp_path):
    """Folder with two classes of three 8x8 PNGs each.

    Its name has a blank and letters outside ASCII.
    """
    return make_toy_data.make(tmp_path / "目录 ü", classes=2, count=6, size=8) / "train"


def shared_dir(path):
    """<repository>/../shared/<path>, for tests on reference data; skips the test without it."""
    place = ROOT.parent / "shared" / path
    if not place.exists():
        pytest.skip(f"needs ../shared/{path}, which is not part of the repository")
    return place


def run_cli(folder, *args, env=None, code=0, timeout=120):
    """Run `python args...` in a folder of the repository (or any path), as a user would.

    Args:
        env: variables on top of the present ones.
        code: the exit status to insist on (None: any).
        timeout: seconds after which the command and its children are killed and the test fails.
    Returns: subprocess.CompletedProcess with text stdout and stderr.
    """
    command = [sys.executable, *map(str, args)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        cwd=ROOT / folder,
        env={**os.environ, "PYTHONPATH": path, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a group of its own, which can be killed as a whole
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    output = f"--- stdout\n{stdout}\n--- stderr\n{stderr}"
    shown = f"{' '.join(command)}\nexit {process.returncode}\n{output}"
    assert code is None or process.returncode == code, shown
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
