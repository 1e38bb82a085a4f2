"""The commands of acgan/README.md, each on what those before it have left."""

import shutil

import pytest

from scripts import make_toy_data
from shared_metrics.efficientnet import wnids
from tests.conftest import ROOT, run_cli
from tests.contract.papers import PAPERS
from tests.readmes.commands import LONG, World, name_of, runnable

PAPER = PAPERS["acgan"]
CHECKPOINT = "runs/x/checkpoints/iter_0000001.pdparams"
MORE = {
    "train": f"{PAPER.tiny} --iterations 1 --imsize 32 --device cpu --batch_size 4",
    "test": lambda words: (
        "--device cpu --overwrite" + ("" if "--seeds" in words else " --num_samples 40")
    ),
    "shared_metrics.judges": "--device cpu --overwrite --epochs 1 --width 4 --batch_size 8",
    "shared_metrics": "--device cpu --overwrite",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Twenty class folders with wnids of ImageNet's as names, two pictures each."""
    place = tmp_path_factory.mktemp("acgan")
    toy = make_toy_data.make(place / "toy", classes=2, count=40, size=32) / "train"
    data = place / "data"
    for i, path in enumerate(sorted(toy.rglob("*.png"))):
        target = data / wnids()[i % 20] / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    run_cli("acgan", *PAPER.flags(data, place / "runs" / "x", 1, batch_size=20))
    # A copy: training writes into ./results, too.
    shutil.copytree(ROOT / "acgan" / "results" / "run_all", place / "results" / "run_all")
    swaps = {
        r"^\.\.\./(imagenet/|cifar10/|tiny/)?(train|val|test)$": str(data),
        r"^n01530575,n02106662$": ",".join(wnids()[:2]),
        r"^runs/.*/iter_\d+\.pdparams$": CHECKPOINT,
        r"^\./checkpoints$": "runs/x/checkpoints",
        r"^499$": "0",
        **LONG,
    }
    return World(
        "acgan",
        place,
        swaps,
        MORE,
        ("checkpoints", "results", "class_results", "log.txt", "log.jsonl"),
    )


@pytest.mark.parametrize("words", runnable("acgan/README.md"), ids=name_of)
def test_command(words, world, paper, monkeypatch):
    monkeypatch.chdir(world.place)
    assert world.run(words, paper) == 0
