"""Names out of files: on the screen, in records, as names of files of ours."""

import argparse
import importlib
import json
import os
import signal

import numpy as np
import pytest

from shared_metrics import (
    files,
    image_sets,
    images,
    label_maps,
    results,
    statistics,
    testing,
    weights,
)
from shared_metrics.errors import UserError
from shared_metrics.images import grid
from shared_metrics.judges import attributes, digits
from shared_metrics.process import command
from shared_metrics.runs.log import RunLog

UNDECODABLE = b"caf\xe9".decode(errors="surrogateescape")
HOSTILE = [
    "../../../victim",
    "/etc/passwd",
    "C:\\victim",
    "..",
    ".hidden",
    "",
    "a\0b",
    "\x1b[2Jgone\r\n",
    UNDECODABLE,
    "\ud800",
    "x" * 5000,
    "目" * 200,
]


def test_harmless_names_stay_as_they_are():
    for name in ("cat", "目录 ü", "n01440764", "seed00012_class003", "hot dog (1).v2", "100%"):
        assert files.file_name(name) == name
        assert files.shown(name) == name


def test_any_name_is_one_file_in_its_folder(tmp_path):
    names = files.file_names(HOSTILE)
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        with files.writing(tmp_path / f"{name}.png") as temporary:
            temporary.write_bytes(b"x")
    assert len(list(tmp_path.iterdir())) == len(HOSTILE)
    for path in tmp_path.iterdir():
        assert path.name[0] != "." and path.name.isprintable()


def test_names_that_a_file_system_may_take_for_one_are_told_apart():
    assert files.file_names(["Cat", "cat", "CAT", "cat~2"]) == ["Cat", "cat~2", "CAT~3", "cat~2~2"]
    long = files.file_names(["x" * 300 + "a", "x" * 300 + "b"])
    assert long[0] != long[1] and all(len(name) <= files.NAME_BYTES for name in long)


def test_nothing_of_a_name_moves_the_cursor():
    assert files.shown("a\x1b[31mb\r\n\x9b\u202e") == "a\\x1b[31mb\\r\\n\\x9b\\u202e"
    assert files.shown(UNDECODABLE) == "caf\\udce9"


def test_records_hold_any_name(tmp_path):
    files.save_json({UNDECODABLE: ["\x9b", "目", "\x1b"]}, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"caf\\udce9": ["\\x9b", "目", "\x1b"]}
    assert "\x9b" not in text and "\x1b" not in text


def test_pictures_stay_in_the_folder_of_a_test(tmp_path):
    args = argparse.Namespace(
        output_dir=tmp_path / "out", overwrite=False, num_workers=1, pretrained_model=""
    )
    with testing.Output(args) as output:
        output.write(["../../victim", UNDECODABLE], np.zeros((2, 4, 4, 3), np.uint8))
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_logs_and_sheets_show_any_name(tmp_path, capsys):
    log = RunLog(tmp_path, total=1)
    log.info(f"classes {UNDECODABLE} \x1b[2J")
    log.close()
    for text in (capsys.readouterr().out, (tmp_path / "log.txt").read_text(encoding="utf-8")):
        assert "classes caf\\udce9 \\x1b[2J" in text
    picture = grid(np.zeros((1, 8, 8, 3), np.uint8), 1, row_labels=[UNDECODABLE + "\x1b"])
    assert picture.shape[2] == 3


def test_errors_and_prints_of_any_name_end_in_no_traceback(capsys):
    def main():
        print(UNDECODABLE)
        raise files.UserError(f"{UNDECODABLE}\x1b[2J: no such class")

    with pytest.raises(SystemExit, match="2"):
        command(main)()
    captured = capsys.readouterr()
    assert captured.out == "caf\\udce9\n"
    assert "caf\\udce9\\x1b[2J: no such class" in captured.err


# ---- what is no regular file


READERS = {
    "picture": lambda path: images.read_rgb(path),
    "map": lambda path: label_maps.read_ids(path),
    "weights": lambda path: weights.load(path),
    "statistics": lambda path: statistics.Statistics.load(path),
    "images": lambda path: image_sets.open_source(path),
    "record": lambda path: results.read_record(path),
    "digits": lambda path: digits.read_idx(path, 3),
    "attributes": lambda path: attributes.read_list(path, ["Smiling"]),
    "classic list": lambda path: importlib.import_module("lists").list_lines(path),
    "classic digits": lambda path: importlib.import_module("dataset").read_idx(path, 3),
    "classic attributes": lambda path: importlib.import_module("attributes").read_lines(path, ""),
    "classic maps": lambda path: importlib.import_module("label_maps").read_list(path, "."),
    "gaugan config": lambda path: importlib.import_module("config").load_config(path),
    "gaugan palette": lambda path: importlib.import_module("recolour").read_palette(path),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, paper, name):
    if " " in name:
        paper({"classic": "classic_gans", "gaugan": "gaugan_simam"}[name.split()[0]])
    os.mkfifo(tmp_path / "pipe.npz")

    def give_up(*_):
        raise AssertionError("waits for the pipe")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    try:
        with pytest.raises((UserError, OSError), match="no regular file|no folder of images"):
            READERS[name](tmp_path / "pipe.npz")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
