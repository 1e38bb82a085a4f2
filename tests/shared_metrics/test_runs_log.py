"""Logs: the files and their rows, what resume keeps, and that no failure stops training."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from shared_metrics import process
from shared_metrics.runs.log import Means, RunLog


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def write(folder, iterations, **options):
    log = RunLog(folder, total=100, **options)
    log.info("made of paper")
    for i in iterations:
        log.row(i, {"d_loss": 1 / i, "g_loss": float(i)}, images=64)
    log.close()


@pytest.fixture
def no_curves(monkeypatch):
    """Matplotlib takes most of a test's time."""
    monkeypatch.setattr(RunLog, "_curves", lambda self: None)


def test_rows_go_to_screen_and_files(tmp_path, capsys):
    write(tmp_path, [10, 20])
    out, err = capsys.readouterr()
    for word in ("iteration 20/100", "d_loss 0.05", "images/s", "left"):
        assert word in out
    assert "it/s" not in err  # no bar: stderr is no terminal
    values = [(r["iteration"], r["d_loss"], r["g_loss"]) for r in rows(tmp_path)]
    assert all(r["images_per_second"] > 0 and r["seconds"] >= 0 for r in rows(tmp_path))
    assert values == [(10, 0.1, 10.0), (20, 0.05, 20.0)]
    text = (tmp_path / "log.txt").read_text()
    assert "made of paper" in text and text.count("iteration ") == 2
    assert Image.open(tmp_path / "curves.png").size[0] > 500


def test_a_row_tells_how_long_the_data_were_waited_for(tmp_path, no_curves, monkeypatch):
    now = iter((100.0, 104.0))
    monkeypatch.setattr("shared_metrics.runs.log.time.monotonic", lambda: next(now))
    log = RunLog(tmp_path, total=2)
    log.row(1, {"d_loss": 1.0}, images=8, waited=1.0)
    assert "2.0 images/s, 25% waiting for data" in (tmp_path / "log.txt").read_text()
    assert "waited" not in (tmp_path / "log.jsonl").read_text()  # rows of equal runs are equal


def test_resume_keeps_the_rows_up_to_its_iteration_only(tmp_path, no_curves):
    write(tmp_path, [10, 20, 30, 40])
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"iteration": 50, "d_l')  # killed while writing
    with open(tmp_path / "log.txt", "a") as file:
        file.write("2026-01-01 00:00:00 itera")
    write(tmp_path, [30, 40], start=20, resume=True)
    assert [r["iteration"] for r in rows(tmp_path)] == [10, 20, 30, 40]
    text = (tmp_path / "log.txt").read_text()
    assert [text.count(f"iteration {i}/") for i in (10, 20, 30, 40)] == [1, 1, 1, 1]
    assert text.count("made of paper") == 2 and "itera\n" not in text

    write(tmp_path, [50], start=40, resume=True)  # nothing to cut
    assert [r["iteration"] for r in rows(tmp_path)] == [10, 20, 30, 40, 50]
    write(tmp_path, [5])  # a new run
    assert [r["iteration"] for r in rows(tmp_path)] == [5]


def test_resume_drops_an_unfinished_last_line_even_where_no_row_is_later(tmp_path, no_curves):
    (tmp_path / "log.jsonl").write_text('{"iteration": 10, "d_loss": 1.0}\n{"iteration": 1')
    write(tmp_path, [20], start=10, resume=True)
    assert [r["iteration"] for r in rows(tmp_path)] == [10, 20]


def test_a_line_that_was_cut_and_ended_stops_no_run(tmp_path):
    """A full disk or an editor leaves such, in the middle or last."""
    for lines in ('{"iteration": 10, "seco\n{"iteration": 20}\n', '{"iteration": 10}\n{"iter\n7\n'):
        (tmp_path / "log.jsonl").write_text(lines)
        write(tmp_path, [30], start=20, resume=True)
        kept = (tmp_path / "log.jsonl").read_text().splitlines()
        assert json.loads(kept[-1])["iteration"] == 30 and kept[0].startswith('{"iteration": 10')
        assert (tmp_path / "curves.png").exists()
        (tmp_path / "curves.png").unlink()


def test_a_run_that_begins_anew_comes_after_the_log_of_the_one_before(tmp_path, no_curves):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [10, 20], start=0, resume=True)
    assert [r["iteration"] for r in rows(tmp_path)] == [10, 20, 30, 10, 20]
    write(tmp_path, [20, 30], start=10, resume=True)  # cuts its own rows alone
    assert [r["iteration"] for r in rows(tmp_path)] == [10, 20, 30, 10, 20, 30]
    text = (tmp_path / "log.txt").read_text()
    assert [text.count(f"iteration {i}/") for i in (10, 20, 30)] == [2, 2, 2]
    assert text.count("made of paper") == 3


def test_the_seconds_of_a_run_go_on_after_a_resume(tmp_path, no_curves):
    """Those of the last row that is kept, not those that were trained in vain."""
    kept = '{"iteration": 10, "seconds": 3600.0}\n{"iteration": 20, "seconds": 7200.0}\n'
    (tmp_path / "log.jsonl").write_text(kept)
    write(tmp_path, [20], start=10, resume=True)
    assert 3600 <= rows(tmp_path)[-1]["seconds"] < 3700
    (tmp_path / "log.jsonl").write_text('{"iteration": 10}\n')  # of before rows had seconds
    write(tmp_path, [20], start=10, resume=True)
    assert rows(tmp_path)[-1]["seconds"] < 100


def test_visualdl_gets_scalars_and_pictures(tmp_path, no_curves):
    visualdl = pytest.importorskip("visualdl")
    log = RunLog(tmp_path, total=10)
    log.row(3, {"d_loss": 0.5})
    log.row(3, {"fid": 9.5}, group="score")
    log.image("samples", np.full((8, 8, 3), 200, np.uint8), 3)
    log.close()
    write(tmp_path, [4], start=3, resume=True)  # goes on in the same record
    (record,) = (tmp_path / "log").iterdir()
    reader = visualdl.LogReader(file_path=str(record))
    losses = reader.get_data("scalar", "loss/d_loss")
    assert [(d.id, d.value) for d in losses] == [(3, 0.5), (4, 0.25)]
    assert [d.value for d in reader.get_data("scalar", "score/fid")] == [9.5]
    assert [d.id for d in reader.get_data("scalar", "speed/images_per_second")] == [4]
    assert len(reader.get_data("image", "images/samples")) == 1


def test_without_visualdl_one_warning_and_all_else_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "visualdl", None)
    write(tmp_path, [1, 2, 3])
    assert capsys.readouterr().err.count("warning:") == 1
    assert len(rows(tmp_path)) == 3 and (tmp_path / "curves.png").exists()


def test_a_folder_that_cannot_be_written_does_not_stop_training(tmp_path, capsys):
    (tmp_path / "file").write_text("a file where the folder should be")
    write(tmp_path / "file" / "run", range(1, 50))
    out, err = capsys.readouterr()
    assert "iteration 49/100" in out
    warnings = [line for line in err.splitlines() if line.startswith("warning: logging failed")]
    assert 1 <= len(warnings) <= 4  # once each: the folder, the files, VisualDL, the curves


def test_nan_is_shown_and_stays_valid_json(tmp_path, capsys):
    log = RunLog(tmp_path, total=2)
    log.row(1, {"d_loss": float("nan"), "fid": float("inf")})
    log.row(2, {"d_loss": 1.0})
    log.close()
    assert "d_loss nan" in capsys.readouterr().out
    assert rows(tmp_path)[0] | {"seconds": 0} == {
        "iteration": 1,
        "d_loss": None,
        "fid": None,
        "seconds": 0,
    }
    assert (tmp_path / "curves.png").exists()


def test_other_ranks_write_nothing(tmp_path, no_curves, capsys):
    write(tmp_path / "run", [1], enabled=False)
    assert not (tmp_path / "run").exists() and capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(tmp_path, no_curves, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    write(tmp_path, [10, 60])
    assert "60/100" in capsys.readouterr().err


def test_means_count_only_the_steps_that_had_a_value_and_start_anew():
    means = Means()
    for values in ({"d": 1.0, "g": 4.0}, {"d": 2.0}, {"d": 6.0}):
        means.add(values)
    assert means.steps == 3 and means.take() == {"d": 3.0, "g": 4.0}
    means.add({"d": 5.0})
    assert means.steps == 1 and means.take() == {"d": 5.0}


def test_each_skipped_image_is_told_once(tmp_path):
    log = RunLog(tmp_path, total=2)
    reasons = {7: "a.png: cut"}
    log.skipped(reasons)
    reasons[3] = "b.png: empty"
    log.skipped(reasons)
    log.close()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    messages = [line.partition("skipped: ")[2] for line in lines]
    assert messages == ["a.png: cut", "b.png: empty"]


class Store(dict):
    """What the processes of a run have in common, as Paddle's store has it."""

    def add(self, key, number):
        self[key] = dict.get(self, key, 0) + number
        return self[key]

    def set(self, key, text):
        self[key] = text.encode()

    def get(self, key):
        return self[key]


def test_what_other_processes_skip_is_told(tmp_path, monkeypatch, capsys):
    store = Store()
    monkeypatch.setattr(process, "_store", lambda: store)
    monkeypatch.setattr(process, "_heard", {})
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    logs = [RunLog(tmp_path, total=1, enabled=enabled) for enabled in (True, False)]
    bad = {3: "a.png: bad"}
    for reasons in (bad, bad, {**bad, 5: "\udce9.png: bad"}):
        monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
        logs[1].skipped(reasons)
        monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
        logs[0].skipped({0: "b.png: bad"})
    logs[0].close()
    lines = [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert lines == [
        "skipped: b.png: bad",
        "process 1: skipped: a.png: bad",
        "process 1: skipped: \\udce9.png: bad",
    ]
