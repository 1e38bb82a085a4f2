"""The original's shell scripts of StarGAN, AttGAN, STGAN and SPADE, on tiny data and at a length of
one iteration.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import make_toy_data as toy
from tests.conftest import ROOT

NAMES = ["--selected_attrs", "Smiling,Wearing_Hat"]
NARROW = ["--g_base_dims", 2, "--d_base_dims", 2, "--crop_size", 24, "--image_size", 32]
DEEP = ["--n_layers", 3, "--d_fc_dim", 4, "--shortcut_layers", 1, "--inject_layers", 1]
SMALL = {
    "stargan": [*NAMES, *NARROW, "--d_repeat_num", 4, "--g_repeat_num", 1, "--split", "all"],
    "attgan": [*NAMES, *NARROW, *DEEP, "--split", "all"],
    "stgan": [*NAMES, *NARROW, *DEEP, "--gru_n_layers", 1, "--split", "all"],
    "spade": ["--load_height", 36, "--load_width", 68, "--crop_height", 32, "--crop_width", 64]
    + ["--ngf", 1, "--ndf", 1],
}

pytestmark = pytest.mark.skipif(
    not (ROOT / "classic_gans" / "train.py").is_file(), reason="needs classic_gans/train.py"
)


@pytest.fixture
def data_dir(tmp_path):
    """DATA/celeba, and DATA/cityscapes with lists of maps in three columns."""
    faces = toy.make(tmp_path / "data" / "celeba", "celeba", count=12, val_count=4, size=24)
    table = faces / "list_attr_celeba.txt"
    assert table.is_file()
    pairs = toy.make(tmp_path / "data" / "cityscapes", "coco_stuff", classes=2, count=3, size=40)
    lines = []
    for i in range(3):
        names = [f"train_{part}/00000{i}.png" for part in ("inst", "img", "instance")]
        lines.append("\t".join(names))
    for name in ("train_list", "val_list"):
        (pairs / name).write_text("\n".join(lines))
    return tmp_path / "data"


def script(name, *flags):
    command = ["bash", f"classic_gans/scripts/{name}.sh", *map(str, flags)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.parametrize("room", list(SMALL))
def test_run_then_infer(room, data_dir, tmp_path):
    out = tmp_path / "output" / room
    flags = ["--data_dir", data_dir, "--output", out, "--max_iter", 1, "--batch_size", 2]
    flags += ["--device", "cpu", "--num_workers", 0, *SMALL[room]]
    if room != "spade":
        flags += ["--train_list", data_dir / "celeba" / "list_attr_celeba.txt"]
    script(f"run_{room}", *flags)
    data = data_dir / ("cityscapes" if room == "spade" else "celeba")
    flags = ["--init_model", out, "--output", tmp_path / "drawn", "--dataset_dir", data]
    flags += ["--device", "cpu"]
    flags += ["--crop_height", 32, "--crop_width", 64] if room == "spade" else NAMES
    script(f"infer_{room}", *flags)
    pictures = sorted(path.name for path in (tmp_path / "drawn" / "images").iterdir())
    if room == "spade":
        assert pictures == [f"{k}_00000{i}.png" for k in ("fakeB", "real") for i in range(3)]
    else:
        assert pictures == ["fake_image_000001.png"]
