"""The fixtures that other tests stand on."""

import sys

import pytest
from PIL import Image

from tests.conftest import Paper, run_cli


def two_papers(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name / "room").mkdir(parents=True)
        (tmp_path / name / "model.py").write_text(f"WHO = {name!r}\n")
        (tmp_path / name / "trainer.py").write_text("from model import WHO\n")
        (tmp_path / name / "room" / "model.py").write_text(f"WHO = {name!r} + ' room'\n")
    return tmp_path / "first", tmp_path / "second"


def test_each_paper_sees_its_own_modules_only(paper, tmp_path):
    first, second = two_papers(tmp_path)
    for folder in (first, second, first):
        loaded = paper(folder)
        from room.model import WHO as room

        from trainer import WHO

        assert (WHO, room, loaded.model.WHO) == (folder.name, f"{folder.name} room", folder.name)
        assert [p for p in sys.path if p.startswith(str(tmp_path))] == [str(folder)]


def test_a_paper_leaves_no_trace_and_gives_back_what_it_hid(tmp_path, monkeypatch):
    first, _ = two_papers(tmp_path)
    monkeypatch.setitem(sys.modules, "model", sys)
    before = list(sys.path), set(sys.modules)
    loaded = Paper(first)
    assert loaded.trainer.WHO == "first"
    loaded.close()
    assert (sys.path, set(sys.modules)) == before and sys.modules["model"] is sys


def test_class_folder(class_folder):
    files = sorted(class_folder.rglob("*.png"))
    assert [p.parent.name for p in files] == ["circle"] * 3 + ["square"] * 3
    assert [Image.open(p).size for p in files] == [(8, 8)] * 6


def test_run_cli_checks_the_exit_status_and_passes_variables(tmp_path):
    (tmp_path / "show.py").write_text(
        "import os, sys\nprint(os.environ['COLOUR'], os.getcwd())\nsys.exit(3)\n"
    )
    shown = run_cli(tmp_path, "show.py", env={"COLOUR": "blue"}, code=3)
    assert shown.stdout.split() == ["blue", str(tmp_path)]
    with pytest.raises(AssertionError, match="exit 3"):
        run_cli(tmp_path, "show.py", env={"COLOUR": "blue"})
