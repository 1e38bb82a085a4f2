"""All papers inside a budget: what fails does not stop the others, what is done is kept."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from scripts import make_toy_data, run_all
from shared_metrics.errors import UserError
from tests.conftest import ROOT
from tests.shared_metrics.test_results import record

# A paper that trains until it is told to end, and one whose training breaks.
TRAIN = """
import pathlib, signal, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
if "--broken" in sys.argv:
    sys.exit("no such data")
(out / "checkpoints").mkdir(parents=True, exist_ok=True)
def save(*_):
    (out / "checkpoints" / "iter_0000007.pdparams").write_text("weights")
    sys.exit(143)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "--deaf" in sys.argv else save)
(out / "log.jsonl").write_text('{"iteration": 7, "d_loss": 1.0, "seconds": 60.0}')
with open(out / "starts.txt", "a") as file:
    file.write("x")
time.sleep(600)
"""
TEST = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
assert "--metrics" in sys.argv and sys.argv[2].endswith("iter_0000007.pdparams")
out.mkdir(parents=True, exist_ok=True)
(out / "results.json").write_text({record!r})
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Function that runs the script with fake papers of these names; flags by name."""
    content = json.dumps({"format": 1, **record()})
    folder = tmp_path / "paper"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "test.py").write_text(TEST.replace("{record!r}", repr(content)))
    monkeypatch.setattr(run_all, "make_data", lambda folder, source: 6)
    monkeypatch.setattr(run_all, "choose_metric", lambda output: "fd_eff")
    monkeypatch.setattr(run_all, "make_statistics", lambda output, metric: None)
    monkeypatch.setattr(run_all, "TESTING", 0)
    monkeypatch.setattr(run_all, "LEAST", 1)

    def run(*flags, **papers):
        table = []
        for name, words in papers.items():
            table.append(run_all.Paper(name, str(folder), 1.0, "maps", words))
        monkeypatch.setattr(run_all, "PAPERS", table)
        return run_all.main(["--budget", "1", "--output", str(tmp_path / "all"), *flags])

    monkeypatch.setattr(run_all, "MINUTE", 18)  # of which the page takes 15
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_paper_that_fails_is_shown_and_does_not_stop_the_others(fake, tmp_path):
    began = time.monotonic()
    assert fake(one="", two="--broken", three="--data {data}") == 1
    assert time.monotonic() - began < 15
    out = tmp_path / "all"
    assert json.loads((out / "two" / "failed.json").read_text()) == {
        "paper": "two",
        "step": "training",
        "reason": "no such data",
    }
    page = (out / "comparison" / "index.html").read_text()
    assert page.count("<tbody data-run") == 2 and "no such data" in page
    # Again: what is done is kept, what failed is tried once more.
    assert fake(one="", two="", three="") == 0
    starts = {name: (out / name / "run" / "starts.txt").read_text() for name in ("one", "two")}
    assert starts == {"one": "x", "two": "x"} and not (out / "two" / "failed.json").exists()


def test_the_data_of_a_folder_that_was_begun_are_not_changed(fake):
    assert fake(one="") == 0
    with pytest.raises(UserError, match="--data .*pictures.* was begun with toy"):
        fake("--data", "pictures", one="")
    with pytest.raises(UserError, match="--only nothing: no paper nothing"):
        fake("--only", "nothing", one="")


def test_shares_use_the_whole_time():
    runner = run_all.Runner(Path("."), time.monotonic() + 1000, {}, "fid")
    papers = [run_all.Paper(str(share), "", share, "maps", "") for share in (2.0, 1.0, 1.0)]
    runner.workers = 1
    runner.waiting = papers
    assert runner._seconds() == pytest.approx((1000 / 3 - run_all.TESTING) * 1.5, abs=1)
    runner.waiting = papers[2:]
    assert runner._seconds() == pytest.approx(1000 - run_all.TESTING, abs=1)
    runner.workers = 2
    runner.waiting = papers[:2]  # side by side: the larger share ends in time, too
    assert runner._seconds() == pytest.approx(1000 - run_all.TESTING, abs=1)


@pytest.mark.parametrize("name", [paper.name for paper in run_all.PAPERS])
def test_the_flags_of_each_paper_are_its_own(paper, name, tmp_path):
    """train.py and test.py take them: no flag is refused after the budget has begun to run."""
    own = next(one for one in run_all.PAPERS if one.name == name)
    values = {"data": "d", "classes": 6, "last_class": 5, "last": 99, "number": 600}
    folder = paper(own.folder)
    train = own.train.format(**values).split()
    test = ["--pretrained_model", "x", *own.test.format(**values).split()]
    if own.folder == "classic_gans":
        import importlib

        model = folder.train.chosen_model(train)
        room = folder.rooms.room(model)
        args, _ = folder.train.parse_args(train, model, room)
        assert args.model_net == model and args.output_dir
        way = importlib.import_module(folder.test.WAYS[room.KIND])
        folder.test.parser(room, way).parse_args(test)
    else:
        args = folder.train.parse_args([*train, "--output_dir", str(tmp_path)])
        folder.test.parse_args(test)
    assert args.iterations is not None


def test_a_users_class_folders_are_taken_small_and_divided(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "HELD_OUT", 4)
    make = make_toy_data.make

    def few(out, layout, classes=4, count=0, val_count=0, size=32):
        return make(out, layout, classes, 4, 4, size)

    monkeypatch.setattr(run_all, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(run_all.make_toy_data, "make", few)
    make(tmp_path / "own", classes=2, count=24, size=48)
    classes = run_all.make_data(tmp_path / "data", str(tmp_path / "own" / "train"))
    assert classes == 2
    places = {name: sorted((tmp_path / "data").glob(f"{name}/*.png")) for name in FOLDERS}
    assert {name: len(files) for name, files in places.items()} == FOLDERS
    assert Image.open(places["pairs/trainA"][0]).size == (32, 32)
    with pytest.raises(UserError, match="--data .*two or more sub-folders"):
        run_all.take_classes(tmp_path / "own", tmp_path / "other")


def test_pictures_of_a_run_that_was_ended_are_made_anew(tmp_path, monkeypatch):
    """Half of them under their final name would be taken for all."""
    files = make_toy_data.make(tmp_path / "own", classes=1, count=4, val_count=4, size=32)
    files = sorted(files.glob("train/*/*.png"))
    read = run_all.read_rgb

    def ended(file):
        if file == files[2]:
            raise KeyboardInterrupt
        return read(file)

    monkeypatch.setattr(run_all, "read_rgb", ended)
    with pytest.raises(KeyboardInterrupt):
        run_all.make_pictures(tmp_path, "train", files)
    assert not (tmp_path / "domains" / "trainB").exists()
    monkeypatch.setattr(run_all, "read_rgb", read)
    run_all.make_pictures(tmp_path, "train", files)
    counts = {
        f"{place.parent.name}/{place.name}": len(list(place.iterdir()))
        for place in sorted(tmp_path.glob("[pd]*/*"))
    }
    assert counts == {
        "domains/trainA": 2,
        "domains/trainB": 2,
        "pairs/trainA": 4,
        "pairs/trainB": 4,
    }


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"metric": "x"}', "[" * 100_000])
def test_a_damaged_file_of_an_earlier_run_is_told(content, tmp_path):
    for name in ("metric.json", "data.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="metric.json: damaged"):
        run_all.choose_metric(tmp_path)
    with pytest.raises(UserError, match="data.json: damaged"):
        run_all.check_source(tmp_path, "toy")


def test_what_a_log_says_moves_no_cursor(tmp_path, capsys):
    (tmp_path / "train.txt").write_text("command\n\x1b[2Jowned\x9b1m\n")
    run_all.say(run_all.last_line(tmp_path / "train.txt"))
    assert capsys.readouterr().out == "== \\x1b[2Jowned\\x9b1m\n"


FOLDERS = {
    "classes/train/circle": 10,
    "classes/val/square": 2,
    "pairs/trainA": 20,
    "pairs/testB": 4,
    "domains/trainA": 10,
    "domains/trainB": 10,
    "maps/train_img": 4,
    "faces/img_align_celeba": 8,
}


class Inline:
    """A pool of no processes."""

    def __init__(self, workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, call, *args):
        call(*args)
        return self

    def result(self):
        pass


def test_all_eleven_papers_are_there():
    folders = [path.parent.name for path in ROOT.glob("*/train.py") if path.parent.name[0] != "."]
    assert {paper.folder for paper in run_all.PAPERS} == set(folders)
    sys.path.insert(0, str(ROOT / "classic_gans"))
    try:
        import rooms
    finally:
        sys.path.remove(str(ROOT / "classic_gans"))
    own = {paper.name for paper in run_all.PAPERS if paper.folder == "classic_gans"}
    assert own == set(rooms.ROOMS.values())


def test_a_training_that_does_not_end_stops_no_other(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "STOPPING", 1)
    assert fake(one="--deaf", two="") == 1
    failure = json.loads((tmp_path / "all" / "one" / "failed.json").read_text())
    assert failure["step"] == "run" and "timed out" in failure["reason"]
    assert (tmp_path / "all" / "two" / "test" / "results.json").exists()


def test_a_signal_ends_the_trainings_too_and_the_same_command_goes_on(fake, tmp_path, monkeypatch):
    began = tmp_path / "all" / "one" / "run" / "log.jsonl"
    stop = threading.Thread(target=interrupt, args=[began])
    monkeypatch.setattr(run_all, "MINUTE", 300)
    stop.start()
    with pytest.raises(KeyboardInterrupt):
        fake(one="")
    stop.join()
    assert (began.parent / "checkpoints" / "iter_0000007.pdparams").exists()
    assert not (tmp_path / "all" / "one" / "failed.json").exists()
    monkeypatch.setattr(run_all, "MINUTE", 18)
    assert fake(one="") == 0


def interrupt(began):
    """SIGTERM for this process, twice, once the training has begun."""
    run_all.wait_for(began.exists)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
