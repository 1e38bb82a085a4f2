"""The commands of shared_metrics/README.md, each on what those before it have left."""

import pickle

import numpy as np
import pytest

from scripts import make_toy_data
from tests.classic_gans.trainers import write_digits
from tests.readmes.commands import LONG, World, name_of, runnable

README = "shared_metrics/README.md"
MORE = {
    "shared_metrics": "--device cpu",
    "shared_metrics.judges": "--device cpu --epochs 1 --width 4 --batch_size 4",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("shared_metrics")
    data = make_toy_data.make(place / "toy", classes=2, count=8, size=32) / "train"
    maps = make_toy_data.make(
        place / "maps", "coco_stuff", classes=4, count=8, size=64, val_count=4
    )
    faces = make_toy_data.make(place / "faces", "celeba", count=16, size=32)
    (faces / "list_attr_celeba.txt").rename(place / "list_attr_celeba.txt")
    digits = write_digits(place / "digits")
    statistics = {"real_mean": np.zeros(2048), "real_cov": np.eye(2048), "size": 50_000}
    (place / "cifar10_mmagic.pkl").write_bytes(pickle.dumps(statistics))
    swaps = {
        r"^(FAKES|REALS|\.\.\./train|\.\.\./val)$": str(data),
        r"^IMAGES$": str(faces / "img_align_celeba"),
        r"^\.\.\./toy$": str(maps),
        r"^\.\.\./t10k(-.*)$": rf"{digits}/train\1",
        **LONG,
    }
    return World("", place, swaps, MORE)


@pytest.mark.parametrize("words", runnable(README), ids=name_of)
def test_command(words, world, paper, monkeypatch):
    monkeypatch.chdir(world.place)
    assert world.run(words, paper) == 0
