"""The commands of the repository's README, each on what those before it have left."""

import pytest

from scripts import make_toy_data
from tests.conftest import ROOT
from tests.contract.papers import PAPERS
from tests.readmes.commands import LONG, World, name_of, runnable

PAPER = PAPERS["sagan"]
MORE = {
    "train": f"{PAPER.tiny} --iterations 1 --imsize 32 --device cpu",
    "test": "--device cpu --overwrite",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("root")
    data = make_toy_data.make(place / "toy", classes=2, count=8, size=32) / "train"
    swaps = {
        r"^\.\.\./cifar10/train$": str(data),
        r"iter_0100000": "iter_0000001",
        r"^((sagan|acgan)/results|my_runs)$": str(ROOT / "sagan" / "results"),
        **LONG,
    }
    return World("sagan", place, swaps, MORE)


@pytest.mark.parametrize("words", runnable("README.md"), ids=name_of)
def test_command(words, world, paper, monkeypatch):
    monkeypatch.chdir(world.place)
    assert world.run(words, paper) == 0
