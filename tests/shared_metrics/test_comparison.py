"""Runs side by side: what compares is ranked, what does not is told, no file is trusted."""

import csv
import io
import json
import os
import re
import shutil
import time

import numpy as np
import pytest

from scripts import compare_papers
from shared_metrics.comparison import ranking, records, text
from shared_metrics.errors import UserError
from shared_metrics.images import save_png
from tests import chromium
from tests.shared_metrics.test_results import network
from tests.shared_metrics.test_results import record as record_of

EVIL = "<script>document.title='owned'</script>"
REAL = {"source": "cifar10.npz", "number": 50000, "sha256": "ef"}


def record(fid=10.0, **changes):
    return record_of(format=1, scores={"fid": fid}, dataset="cifar10", **changes)


def write(folder, record, rows=(), pictures=(), grid=None):
    """A record as test.py leaves it, with a log of (iteration, seconds, d_loss) and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(record))
    lines = [
        {"iteration": i, "d_loss": loss, "images_per_second": 20.0, "seconds": seconds}
        for i, seconds, loss in rows
    ]
    if lines:
        (folder / "training.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in pictures:
        (folder / "images").mkdir(exist_ok=True)
        save_png(np.full((8, 8, 3), 90, np.uint8), folder / "images" / f"{name}.png")
    if grid is not None:
        save_png(grid, folder / "grid.png")
    return folder


def standings(*own):
    result, reasons = ranking.stand(list(own), "fid")
    return [(standing.rank, standing.group) for standing in result], " ".join(reasons)


def test_runs_measured_alike_are_ranked():
    found, reasons = standings(record(12.0), record(10.0), record(12.0), record(30.0))
    assert found == [(2, ""), (1, ""), (2, ""), (4, "")] and reasons == ""


@pytest.mark.parametrize(
    "altered, told",
    [
        ({"inception": network(protocol="clean", variant="clean")}, r"protocol \(A tf.*B clean"),
        ({"inception": network(sha256="other")}, "feature network .*other"),
        ({"real": REAL | {"sha256": "another"}}, "real statistics .*another"),
        ({"real": REAL | {"number": 10000}}, r"real pictures \(A 50000, B 10000\)"),
        ({"samples": {"number": 5000, "seed": 0}}, r"pictures \(A 50000, B 5000\)"),
        ({"inception": network(comparable=False), "comparable": False}, "random weights"),
        ({"real": None}, "does not tell its real statistics"),
    ],
)
def test_what_was_measured_otherwise_is_not_ranked_and_the_reason_is_told(altered, told):
    """Altering one record takes it out of the ranking of the others."""
    same = [record(12.0), record(10.0)]
    assert standings(*same, record(1.0))[0][2] == (1, "")
    found, reasons = standings(*same, record(1.0, **altered))
    assert [rank for rank, _ in found] == [2, 1, None]
    assert re.search(told, reasons), reasons


def test_scores_of_judges_rank_under_one_judge_and_the_same_real_pictures():
    def judged(accuracy, sha, real=0.8):
        scores = {"class_accuracy": accuracy, "class_accuracy_real": real}
        return record() | {"scores": scores, "classifier": {"sha256": sha}}

    result, _ = ranking.stand([judged(0.5, "a"), judged(0.6, "a")], "class_accuracy")
    assert [standing.rank for standing in result] == [2, 1]
    for other in (judged(0.6, "b"), judged(0.6, "a", real=0.7)):
        result, reasons = ranking.stand([judged(0.5, "a"), other], "class_accuracy")
        assert [standing.rank for standing in result] == [None, None] and reasons


def test_the_command_refuses_to_rank_an_altered_protocol(tmp_path, capsys):
    write(tmp_path / "a", record(12.0))
    write(tmp_path / "b", record(10.0))
    compare_papers.main([str(tmp_path), "--output_dir", str(tmp_path / "same")])
    assert "1 of 2" in (tmp_path / "same" / "comparison.md").read_text()
    assert "not ranked" not in capsys.readouterr().out
    write(tmp_path / "b", record(10.0, inception=network(protocol="mmagic")))
    compare_papers.main([str(tmp_path), "--output_dir", str(tmp_path / "other")])
    assert "not ranked" in capsys.readouterr().out
    for name in ("comparison.md", "index.html"):
        page = (tmp_path / "other" / name).read_text()
        assert "1 of 2" not in page and "differ in protocol" in page
    with pytest.raises(UserError, match="--overwrite"):
        compare_papers.main([str(tmp_path), "--output_dir", str(tmp_path / "other")])


def test_a_row_tells_what_the_log_and_the_record_tell(tmp_path):
    rows = [(500, 1800.0, 2.0), (1000, 5400.0, 1.0), (2000, 9000.0, 0.5)]
    write(tmp_path / "run", record(parameters=9_420_000), rows=rows)
    write(tmp_path / "old", record() | {"dataset": "old"})
    (new, old) = text.tables(records.find([tmp_path])[0])
    (row,) = new.rows
    assert (row.paper, row.published, row.weights) == ("SAGAN", "FID 10.2", "ema, 1,000 it")
    assert (row.time, row.parameters, row.images_per_second) == ("1.5 h", "9.42 M", "20")
    # The checkpoint is of iteration 1000: what was trained later is not its.
    assert row.result.curves == {"d_loss": [(500, 0.5, 2.0), (1000, 1.5, 1.0)]}
    (row,) = old.rows
    assert (row.time, row.parameters, row.images_per_second) == ("—", "—", "—")


def test_long_logs_are_thinned(tmp_path):
    write(tmp_path, record(), rows=[(i, 1.0 * i, 1.0) for i in range(1000)])
    (result,), _, _ = records.find([tmp_path])
    points = result.curves["d_loss"]
    assert len(points) == records.POINTS and points[-1][0] == 999


def test_what_is_broken_huge_or_foreign_is_named_in_one_line_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD", 50_000)
    write(tmp_path / "good", record())
    bad = {
        "cut": '{"format": 1, "sco',
        "deep": "[" * 20_000,
        "foreign": '{"name": "something else"}',
        "list": "[1, 2]",
        "nan": json.dumps(record(float("nan"))),
        "large": json.dumps(record()).replace("10.0", "1" + "0" * 400),
        "huge": json.dumps(record(filler="x" * 60_000)),
        "bytes": "\udcff",
    }
    for name, content in bad.items():
        (tmp_path / name).mkdir()
        path = tmp_path / name / "results.json"
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "results.json")
    results, _, notes = records.find([tmp_path])
    assert [result.folder.name for result in results] == ["good"]
    assert len(notes) == len(bad) + 1
    for name in (*bad, "pipe"):
        (note,) = [note for note in notes if f"/{name}/results.json" in note]
        assert "\n" not in note and len(note) < 400
    with pytest.raises(UserError, match="no results.json that can be read .*cut"):
        records.find([tmp_path / "cut"])
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        records.find([tmp_path / "nowhere"])


def test_a_damaged_log_or_picture_leaves_the_record(tmp_path):
    write(tmp_path / "a", record(), grid=np.zeros((8, 8, 3), np.uint8), pictures=["seed00000"])
    (tmp_path / "a" / "training.jsonl").write_text('garbage\n{"iteration": "x"}\n[1]\n')
    (tmp_path / "a" / "grid.png").write_bytes(b"<svg onload=alert(1)>")
    (tmp_path / "a" / "images" / "seed00000.png").write_text("no picture")
    compare_papers.main([str(tmp_path / "a"), "--output_dir", str(tmp_path / "out")])
    page = (tmp_path / "out" / "index.html").read_text()
    assert "without curves" in page and page.count("without a picture") == 2
    assert "onload=alert" not in page


def test_text_from_records_stays_text(tmp_path):
    own = record(
        name="=1+1", command=EVIL, training_command=EVIL, notes=[EVIL], classes=[EVIL], recipe=EVIL
    )
    own |= {"paper": EVIL, "dataset": f"{EVIL}|`x`", "departures": {EVIL: EVIL}}
    own["published"] = [{"score": EVIL, "value": 1, "source": EVIL + "@@SCRIPT@@"}]
    own["checkpoint"] |= {"weights": EVIL, "sha256": EVIL}
    folder = write(tmp_path / EVIL.replace("/", ""), own, pictures=["seed00000_class000"])
    row = {"iteration": 1, EVIL: 1.0, "</script>": 2.0}
    (folder / "log.jsonl").write_text(json.dumps(row))
    (tmp_path / "failed.json").write_text(json.dumps(dict.fromkeys(("paper", "step"), EVIL)))
    failure = {"paper": EVIL, "step": EVIL, "reason": EVIL}
    (tmp_path / "failed.json").write_text(json.dumps(failure))
    compare_papers.main([str(tmp_path), "--output_dir", str(tmp_path / "out")])
    page = (tmp_path / "out" / "index.html").read_text()
    assert EVIL not in page and page.count("<script") == 2 and page.count("</script>") == 2
    plain = (tmp_path / "out" / "comparison.md").read_text()
    assert "<script" not in plain and "\\|\\`x\\`" in plain
    (line,) = list(csv.DictReader(io.StringIO((tmp_path / "out/comparison.csv").read_text())))
    assert line["name"] == "'=1+1" and line["command"] == EVIL


def test_pictures_of_one_seed_and_class_stand_in_one_column():
    def drawn(*keys):
        return {key: None for key in keys}

    one = drawn((0, "a"), (1, "a"), (0, "b"), (1, "b"), (2, "b"))
    each = [(0, "a"), (1, "a"), (0, "b"), (1, "b")]
    assert records.common_keys([one, one], 4) == (each, "seed")
    some = drawn((1, "b"), (0, "a"))
    assert records.common_keys([one, some], 4) == ([(0, "a"), (1, "b")], "seed")
    # Other seeds of the same classes; other inputs of the same names; nothing in common.
    assert records.common_keys([one, drawn((7, "b"), (8, "a"))], 4) == (["a", "b"], "class")
    assert records.common_keys([drawn("fakeB_1", "x"), drawn("fakeB_1")], 4) == (
        ["fakeB_1"],
        "name",
    )
    # Without classes beside runs that have them: they are left out, not the columns.
    assert records.common_keys([one, drawn((0, None))], 4) == (each, "seed")
    assert records.common_keys([drawn((0, "a"), (0, None))] * 2, 4) == ([(0, "a")], "seed")
    assert records.common_keys([drawn("x"), drawn("y")], 4) == ([], "")
    assert records.common_keys([{}], 4) == ([], "")


def test_pictures_drawn_of_one_input_go_by_its_name(tmp_path):
    """Whatever the paper calls what it drew, and without what it was drawn of."""
    one = write(tmp_path / "one", record(), pictures=["fakeB_7", "inputA_7", "cycA_7", "real_7"])
    other = write(tmp_path / "other", record(), pictures=["7"])
    for result in records.find([one, other])[0]:
        assert list(records.drawn_pictures(result)) == ["7"]


def test_pictures_of_one_class_go_by_its_name(tmp_path):
    """Runs of other classes count them from 0 as well."""
    keys = []
    for i, classes in enumerate((["cat", "dog"], ["dog", "emu"], None)):
        pictures = ["seed00003_class000", "seed00003_class001"]
        write(tmp_path / str(i), record(classes=classes), pictures=pictures)
    for result in records.find([tmp_path])[0]:
        keys.append([label for _, label in records.drawn_pictures(result)])
    assert keys == [["cat", "dog"], ["dog", "emu"], ["class 000", "class 001"]]


def test_two_hundred_records_take_seconds(tmp_path):
    grid = np.random.RandomState(0).randint(0, 255, (330, 330, 3)).astype(np.uint8)
    rows = [(j, 10.0 * j, 1.0) for j in range(0, 500, 5)]
    first = write(tmp_path / "first", record(), rows, ["seed00000_class000"], grid)
    for i in range(199):
        shutil.copytree(first, tmp_path / f"run{i}", copy_function=os.link)
        (tmp_path / f"run{i}" / "results.json").unlink()
        own = record(float(i), samples={"number": 50000 + i % 3, "seed": 0})
        write(tmp_path / f"run{i}", own)
    began = time.process_time()
    compare_papers.main([str(tmp_path), "--output_dir", str(tmp_path / "out")])
    assert time.process_time() - began < 30  # 4 s of a quiet core
    assert (tmp_path / "out" / "index.html").read_text().count("<tbody data-run") == 200


HUGE = 10**400  # which JSON has, and no float


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": HUGE},
        {"images_per_second": -HUGE},
        {"samples": {"number": HUGE, "seed": 0}},
        {"published": [{"score": "fid", "value": HUGE, "source": "x"}]},
    ],
)
def test_a_number_that_no_measure_gives_is_told(changes, tmp_path, capsys):
    write(tmp_path / "whole", record())
    write(tmp_path / "huge", record(**changes))
    compare_papers.main([str(tmp_path), "--output_dir", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert "1 records" in said.out and "huge/results.json: not a result record" in said.err


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not chromium.find():
        pytest.skip(f"no browser ({', '.join(chromium.NAMES)})")
    browser = chromium.Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """The page of three runs, of which the last was measured otherwise, and one with a bad name."""
    classes = ["cat", "dog"]
    names = ["seed00000_class000", "seed00000_class001"]
    for name, fid, changes in (
        ("good", 10.0, {}),
        ("better", 5.0, {}),
        ("other", 1.0, {"inception": network(protocol="clean")}),
        ("script", 30.0, {"command": EVIL, "name": EVIL}),
    ):
        own = record(fid, classes=classes, **changes)
        own["paper"] = EVIL if name == "script" else "sagan"
        grid = np.full((40, 60, 3), 120, np.uint8)
        rows = [(i, 36.0 * i, fid / i) for i in range(100, 1001, 100)]
        folder = write(tmp_path / "runs" / name, own, rows=rows, pictures=names, grid=grid)
        if name == "script":  # curves under names that every object of JavaScript has
            with open(folder / "training.jsonl", "a") as file:
                file.write('\n{"iteration": 1, "constructor": 1, "__proto__": 2, "seconds": 36000}')
    compare_papers.main([str(tmp_path / "runs"), "--output_dir", str(tmp_path / "out")])
    browser.open((tmp_path / "out" / "index.html").as_uri())
    browser.wait("document.readyState === 'complete' && !!document.querySelector('.line')")
    return browser


RUNS = "[...document.querySelectorAll('tbody[data-run] .more span')].map(e => e.textContent)"


def test_sorting_keeps_groups_apart(opened):
    fid = "button[data-sort='fid']"
    opened.js(f'document.querySelector("{fid}").focus()')
    opened.key("Enter")
    assert opened.js(RUNS) == ["better", "good", "script", "other"]
    assert opened.js("document.querySelectorAll('tbody.cut').length") == 1
    opened.key("Enter")  # the other way round: the group that was measured otherwise stays last
    assert opened.js(RUNS) == ["script", "good", "better", "other"]
    assert opened.js("document.querySelector('th[aria-sort=descending]').textContent") == "FID↓"


def test_the_page_tells_a_run_and_copies_its_command(opened):
    opened.js("document.querySelectorAll('.more')[0].focus()")
    opened.key("Enter")
    assert (
        opened.js("document.querySelectorAll('.more')[0].getAttribute('aria-expanded')") == "true"
    )
    command = "getComputedStyle(document.querySelector('.details:not([hidden]) code')).display"
    assert opened.js(command)
    opened.js(
        "window.copied = []; navigator.clipboard.writeText = text => { copied.push(text); }; "
        "document.querySelectorAll('.copy')[0].click()"
    )
    assert opened.js("copied") == ["python test.py"]
    assert opened.js("document.getElementById('said').textContent") == "Copied"


CHOOSE = """{
const menu = document.querySelector(".choices select");
menu.value = "NAME";
menu.dispatchEvent(new Event("change"));
}"""


def test_pictures_share_one_scale_and_curves_have_two_axes(opened):
    widths = (
        "[...document.querySelectorAll('figure img')].map(e => e.getBoundingClientRect().width)"
    )
    assert opened.js(widths) == [60.0] * 4
    opened.js("document.querySelector('[data-scale=\"2\"]').click()")
    assert opened.js(widths) == [120.0] * 4
    heads = "[...document.querySelectorAll('.same thead th')].map(e => e.textContent)"
    assert opened.js(heads) == ["cat #0", "dog #0"]
    assert opened.js("document.querySelectorAll('.line').length") == 4
    assert opened.js("document.querySelector('.read').textContent").startswith("iteration 1,000")
    opened.js("document.querySelectorAll('.choices button')[1].click()")
    assert opened.js("document.querySelector('.read').textContent").startswith("10.00 h")
    opened.js("document.querySelector('.chart svg').focus()")
    opened.key("ArrowLeft")
    assert opened.js("document.querySelector('.read').textContent").startswith("9.00 h")
    opened.js(CHOOSE.replace("NAME", "constructor"))
    assert opened.js("document.querySelectorAll('.line').length") == 1
    opened.js(CHOOSE.replace("NAME", "d_loss"))
    opened.js("document.querySelector('.pick input').click()")  # a run less
    assert opened.js("document.querySelectorAll('.line').length") == 3
    assert opened.js("document.querySelectorAll('figure:not([hidden])').length") == 3


def test_scripts_in_records_stay_text_and_nothing_is_fetched(opened):
    assert opened.js("document.title") == "Papers side by side"
    told = "[...document.querySelectorAll('.more strong')].map(e => e.textContent)"
    assert EVIL in opened.js(told)
    opened.js("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"hit=1\">')")
    sent = [event for event in opened.events if event["method"] == "Network.requestWillBeSent"]
    urls = {event["params"]["request"]["url"].partition(":")[0] for event in sent}
    assert urls <= {"file", "data"}
    assert opened.js("typeof hit") == "undefined"


def test_both_themes_and_a_phone(opened, tmp_path):
    from PIL import Image

    light = {}
    for theme in ("light", "dark"):
        opened.look(1280, 800, theme)
        opened.wait(f"document.documentElement.dataset.theme === '{theme}'")
        opened.screenshot(tmp_path / f"{theme}.png")
        light[theme] = np.asarray(Image.open(tmp_path / f"{theme}.png").convert("L")).mean()
    assert light["light"] > 220 and light["dark"] < 60
    opened.js("document.getElementById('theme').click()")
    assert opened.js("document.documentElement.dataset.theme") == "light"
    opened.look(390, 844)
    assert opened.js("document.documentElement.scrollWidth") == 390  # tables scroll on their own
    opened.look(1280, 800)
