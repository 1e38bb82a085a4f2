"""The commands of gaugan_simam/README.md, each on what those before it have left."""

import shutil

import pytest

from scripts import make_toy_data
from tests.conftest import ROOT, run_cli
from tests.contract.papers import PAPERS
from tests.readmes.commands import LONG, World, name_of, runnable

PAPER = PAPERS["gaugan_simam"]
CHECKPOINT = "runs/tiny/checkpoints/iter_0000001.pdparams"
DATA = "coco_stuff"
MORE = {
    "train": f"{PAPER.tiny} --load_size 32 --iterations 1 --device cpu --num_workers 0",
    "test": "--device cpu --overwrite",
    "shared_metrics.judges": "--device cpu --overwrite --crop_size 32 --epochs 1 --width 4"
    " --batch_size 2",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("gaugan")
    data = make_toy_data.make(place / DATA, "coco_stuff", classes=4, count=8, size=32, val_count=2)
    run_cli("gaugan_simam", *PAPER.flags(data, place / "runs" / "tiny", 1, label_nc=7))
    shutil.copytree(ROOT / "gaugan_simam" / "configs", place / "configs")
    (place / "results").symlink_to(ROOT / "gaugan_simam" / "results")
    shutil.copy(next((data / "val_inst").glob("*.png")), place / "map.png")
    shutil.copy(place / CHECKPOINT, place / "photopen.pdparams")
    shutil.copytree(data / "val_img", place / "MASKS")
    palette = run_cli("gaugan_simam", "recolour.py", place / "MASKS").stdout
    (place / "palette.json").write_text(palette)
    swaps = {
        rf"\.\.\./{DATA}": DATA,
        r"^(DATA|runs/coco13_data)$": DATA,
        r"^runs/.*/iter_\d+\.pdparams$": CHECKPOINT,
        r"^coco_stuff/train_inst$": "ids",
        r"^3000$": "8",
        r"^300$": "2",
        **LONG,
    }
    return World("gaugan_simam", place, swaps, MORE)


@pytest.mark.parametrize("words", runnable("gaugan_simam/README.md"), ids=name_of)
def test_command(words, world, paper, monkeypatch):
    monkeypatch.chdir(world.place)
    assert world.run(words, paper) == 0
