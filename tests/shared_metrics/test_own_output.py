"""What a test or a run has written, given to be scored."""

import json

import numpy as np
import pytest

from shared_metrics import image_sets
from shared_metrics.errors import UserError
from shared_metrics.images import save_png
from shared_metrics.own_output import scored_images

RECORD = {"paper": "any", "scores": {}, "samples": {"number": 2}}
RUN = {"output_dir": "x", "seed": 0, "save_every": 10}


def written(folder, names, record=None, run=None):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_png(np.zeros((4, 4, 3), np.uint8), folder / name)
    for file, content in (("results.json", record), ("args.json", run)):
        if content is not None:
            (folder / file).write_text(json.dumps(content))
    return folder


def names(folder):
    return [path.relative_to(folder).as_posix() for path in scored_images(folder)[0]]


def test_the_drawn_images_of_a_test_alone_are_scored(tmp_path):
    drawn = ["images/a.png", "images/b.png"]
    folder = written(tmp_path / "t", ["grid.png", "panels/a.png", *drawn], RECORD)
    assert names(folder) == drawn
    assert names(folder / "images") == ["a.png", "b.png"]
    assert names(tmp_path) == ["t/images/a.png", "t/images/b.png"]
    source = image_sets.open_source(folder)
    assert source.number == 2
    assert "written by a test or a run" in source.notes[0] and "2 sheets" in source.notes[0]


def test_a_record_says_which_images_were_drawn(tmp_path):
    record = {**RECORD, "samples": {"files": "images/fakeB_*"}}
    images = ["images/fakeB_a.png", "images/inputA_a.png", "images/cycA_a.png"]
    folder = written(tmp_path / "t", images, record)
    assert names(folder) == ["images/fakeB_a.png"] and names(folder / "images") == ["fakeB_a.png"]


def test_the_sheets_of_a_run_are_no_images_to_score(tmp_path):
    run = written(tmp_path, ["samples/iter_0000001.png", "curves.png"], run=RUN)
    with pytest.raises(UserError, match="none of its pictures are scored.* give the folder of a"):
        image_sets.open_source(run)
    written(run / "test_result", ["images/a.png", "grid.png"], RECORD)
    assert names(run) == ["test_result/images/a.png"]


def test_records_of_others_say_nothing(tmp_path):
    for content in ("[1]", "{", '{"scores": 1}', "[" * 100_000):
        written(tmp_path, ["a/b.png", "c.png"])
        (tmp_path / "results.json").write_text(content)
        assert names(tmp_path) == ["a/b.png", "c.png"]
