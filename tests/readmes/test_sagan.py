"""The commands of sagan/README.md, each on what those before it have left."""

import pytest

from scripts import make_toy_data
from tests.conftest import ROOT, run_cli
from tests.contract.papers import PAPERS
from tests.readmes.commands import LONG, World, name_of, runnable

PAPER = PAPERS["sagan"]
CHECKPOINT = "runs/tiny/checkpoints/iter_0000001.pdparams"
TINY = f"{PAPER.tiny} --iterations 2 --imsize 32 --device cpu --eval_samples 4"
MORE = {
    "train": f"{TINY}",
    "test": lambda words: (
        "--device cpu --overwrite"
        + ("" if {"--seeds", "--num_samples"} & set(words) else " --num_samples 40")
    ),
    "shared_metrics": "--device cpu --overwrite",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("sagan")
    (place / "results").symlink_to(ROOT / "sagan" / "results")
    data = make_toy_data.make(place / "toy", classes=2, count=8, size=32) / "train"
    for old, new in zip(sorted(data.iterdir()), ("cat", "dog"), strict=True):
        old.rename(data / new)
    judge = "-m shared_metrics.judges classifier --epochs 1 --width 4 --batch_size 4 --imsize 32"
    words = [*judge.split(), "--data_path", data, "--val_path", data]
    run_cli("sagan", *words, "--output", place / "classifier.pdparams")
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
    assert world.run(words, paper) == 0
