"""The commands of sagan/README.md, each on what those before it have left."""

import pytest

from scripts import make_toy_data
from tests.conftest import run_cli
from tests.contract.papers import PAPERS
from tests.readmes.commands import LONG, World, name_of, runnable

PAPER = PAPERS["sagan"]
CHECKPOINT = "runs/tiny/checkpoints/iter_0000001.pdparams"
TINY = f"{PAPER.tiny} --iterations 2 --imsize 32 --device cpu --num_workers 0 --eval_samples 4"
MORE = {
    "train": f"{TINY} --efficientnet_weights random",
    "test": "--device cpu --overwrite --inception_weights random",
    "shared_metrics": "--device cpu --overwrite",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("sagan")
    data = make_toy_data.make(place / "toy", classes=2, count=8, size=32) / "train"
    flags = PAPER.flags(data, place / "runs" / "tiny", 1)
    run_cli("sagan", *flags)
    swaps = {
        r"^\.\.\./(cifar10/)?(train|val|2000_training_images)$": str(data),
        r"^(\.\.\.(/.*\.pdparams)?|runs/.*/iter_\d+\.pdparams)$": CHECKPOINT,
        **LONG,
    }
    return World("sagan", place, swaps, MORE, ("sagan_models",))


@pytest.mark.parametrize("words", runnable("sagan/README.md"), ids=name_of)
def test_command(words, world, paper, monkeypatch):
    monkeypatch.chdir(world.place)
    world.run(words, paper)
