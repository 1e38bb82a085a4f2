"""The commands of acgan/README.md, each on what those before it have left."""

import pytest

from scripts import make_toy_data
from tests.contract.papers import PAPERS
from tests.readmes.commands import LONG, World, name_of, runnable

PAPER = PAPERS["acgan"]
CHECKPOINT = "runs/tiny/checkpoints/iter_0000001.pdparams"
# Twelve class folders, four of them named by ImageNet's wnids, which EfficientNet judges.
WNIDS = ["n01440764", "n01530575", "n01531178", "n02106662"]
MORE = {
    "train": f"{PAPER.tiny} --iterations 1 --imsize 32 --device cpu --num_workers 0 ",
    "test": "--device cpu --overwrite --inception_weights random --num_samples 4",
    "shared_metrics.judges": "--device cpu --overwrite --epochs 1 --width 4 --batch_size 8",
    "shared_metrics": "--device cpu --overwrite",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("acgan")
    data = make_toy_data.make(place / "toy", classes=12, count=48, size=32) / "train"
    for path, wnid in zip(sorted(data.iterdir()), WNIDS, strict=False):
        path.rename(data / wnid)
    return World(
        "acgan",
        place,
        {r"^\.\.\./(imagenet/|cifar10/|tiny/)?(train|val|test)$": str(data), **LONG},
        MORE,
        ("checkpoints", "log.txt", "log.jsonl"),
    )


@pytest.mark.parametrize("words", runnable("acgan/README.md"), ids=name_of)
def test_command(words, world, paper, monkeypatch):
    monkeypatch.chdir(world.place)
    world.run(words, paper)
