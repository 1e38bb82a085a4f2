"""The GPU check, with the CPU in the GPU's place, or with runs that are made up."""

import json
from functools import partial

import numpy as np
import pytest

from scripts import check_gpu
from shared_metrics import weights
from shared_metrics.errors import UserError

ROW = {"iteration": 2, "d_loss": 2.0, "g_loss": 0.5, "images_per_second": 16.0, "seconds": 1.0}


class MadeUp(check_gpu.Check):
    """Runs that end at once: {run: (change of the losses, of the weights)}; None: it fails."""

    changes = {}

    def train(self, name, *words, iterations=2, **how):
        self.runs = [*getattr(self, "runs", []), (name, *map(str, words))]
        change = self.changes.get(name, (0.0, 0.0))
        if change is None:
            raise check_gpu.Failed("error: no such kernel")
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / f"{name}.pdparams"
        step = 0.0 if name == "start" else 0.1 + change[1]
        weights.save({"generator": {"w": np.float32([1.0 + step, 2.0])}}, path)
        return ROW | {"d_loss": 2.0 + change[0]}, path


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Function that checks a paper in made-up runs: (its cells, problems, runs)."""
    monkeypatch.setattr(check_gpu, "run", lambda *_: "a line of Paddle's\n2e-4\n")

    def make(name, changes=(), device="gpu", cards=2):
        (paper,) = check_gpu.chosen(name)
        made = MadeUp(paper, tmp_path / "data", tmp_path, device, cards, iterations=3)
        made.changes = dict(changes)
        made.run()
        return made

    return make


def test_what_holds(check):
    made = check("gaugan_simam", {"gpu": (1e-4, 1e-5)})
    expected = {
        "pictures": "2.0e-04",
        "losses": "5.0e-05",
        "step": "1.0e-04",
        "two cards": "trains",
    }
    times = dict.fromkeys(("none", "fp16", "bf16"), "0.5 s")
    expected |= {"two cards": "trains", "SyncBatchNorm": "0.0e+00"}
    assert made.cells == expected | times and not made.problems
    amp = [words for name, *words in made.runs if name == "amp_bf16"]
    assert amp == [["--device", "gpu", "--amp", "bf16"]]


def test_what_does_not_hold_is_bold_and_told(check):
    changes = {"gpu": (0.1, 0.05), "amp_fp16": None, "two_cards": (0.0, 0.1)}
    made = check("cyclegan", changes)
    assert made.cells["losses"] == "**5.0e-02**" and made.cells["step"] == "**5.0e-01**"
    assert made.cells["fp16"] == "failed" and made.cells["bf16"] == "0.5 s"
    assert made.cells["two cards"] == "**1.0e+00**"
    text = check_gpu.report([made], {"gpu": "Card <1>", "commit": None}, "9 pictures a second")
    for line in (
        "- gpu: Card <1>",
        "- cyclegan, losses: 0.05, allowed 0.001",
        "- cyclegan, fp16: error: no such kernel",
    ):
        assert line in text.splitlines()
    assert "commit" not in text and "All held" not in text


def test_a_run_that_ends_in_nan_is_no_time(check, monkeypatch):
    monkeypatch.setitem(ROW, "g_loss", None)  # as the log writes it
    monkeypatch.setattr(check_gpu, "losses_difference", lambda *_: float("nan"))
    made = check("cgan")
    assert made.cells["none"] == "failed" and made.cells["losses"] == "**nan**"


def test_one_card_and_no_card(check):
    assert check("stargan", cards=1).cells["two cards"] == "not tried"
    cells = check("sagan", device="cpu").cells
    assert [cells[name] for name in ("fp16", "SyncBatchNorm", "two cards")] == [
        "not tried",
        "not tried",
        "trains",
    ]
    made = check("sagan", {"start": None})
    assert not made.cells and made.problems == ["sagan, on the CPU: error: no such kernel"]


def test_the_flags_of_each_paper_are_known(check, paper):
    """Its data and last words go to a parser that has them."""
    for spec in check_gpu.PAPERS:
        words = check(spec.name).words
        modules = paper(spec.folder)
        if spec.folder == "classic_gans":
            name = modules.rooms.spelling(words[words.index("--model_net") + 1])
            parser = modules.train.parser(name, modules.rooms.room(name))
        else:
            parser = modules.train.parser()
        args = parser.parse_args(words)
        assert args.batch_size == check_gpu.BATCH and args.keep_checkpoints == 0


def test_mistakes_are_named(tmp_path):
    main = partial(check_gpu.main, ["--output_dir", str(tmp_path)])
    with pytest.raises(UserError, match="--output_dir .*: exists already"):
        main()
    with pytest.raises(UserError, match="--papers nogan: unknown; some of sagan, "):
        check_gpu.main(["--papers", "nogan"])


def test_a_paper_on_the_cpu_twice(tmp_path, capsys):
    out = tmp_path / "check"
    words = ["--device", "cpu", "--papers", "cgan", "--iterations", 2, "--output_dir", out]
    assert check_gpu.main([str(word) for word in words]) == 0
    text = (out / "gpu_check.md").read_text()
    assert "| cgan | 0.0e+00 | 0.0e+00 | 0.0e+00 |" in text and "All held." in text
    args = json.loads((out / "runs" / "cgan" / "two_cards" / "args.json").read_text())
    assert (args["processes"], args["batch_size"]) == (2, check_gpu.BATCH // 2)
