"""The original's shell scripts, on tiny data and at a length of one iteration."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT

NARROW = ["--g_base_dims", 2, "--d_base_dims", 2]


@pytest.fixture
def cityscapes(data_dir):
    """Five pairs with the lists of make_pair_data.py and prepare_cityscapes_dataset.py's names."""
    root = data_dir / "pairs"
    for split in ("train", "test"):
        names = sorted(path.name for path in (root / f"{split}A").iterdir())
        lines = [f"{split}B/{name.replace('_A', '_B')}\t{split}A/{name}\n" for name in names]
        (root / f"pix2pix_{split}_list").write_text("".join(lines))
        for domain in "AB":
            files = sorted((root / f"{split}{domain}").iterdir())
            (root / f"{split}{domain}.txt").write_text(
                "".join(f"{split}{domain}/{path.name}\n" for path in files)
            )
    return root.rename(data_dir / "cityscapes")


def script(name, *flags):
    command = ["bash", f"classic_gans/scripts/{name}.sh", *map(str, flags)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("room", ["cgan", "dcgan", "pix2pix", "cyclegan"])
def test_run_then_infer(room, cityscapes, data_dir, tmp_path):
    out = tmp_path / "output" / room
    flags = [*NARROW, "--data_dir", data_dir, "--output", out]
    flags += ["--max_iter", 1, "--batch_size", 2, "--device", "cpu", "--num_workers", 0]
    script(f"run_{room}", *flags)
    flags = ["--init_model", out, "--output", tmp_path / "drawn", "--dataset_dir", cityscapes]
    text = script(f"infer_{room}", *flags, "--device", "cpu")
    pictures = sorted((tmp_path / "drawn" / "images").iterdir())
    if room in ("cgan", "dcgan"):
        assert len(pictures) == 32
    else:
        letter = {"pix2pix": "B", "cyclegan": "A"}[room]
        assert Image.open(tmp_path / f"drawn/images/fake{letter}_7_B.png").size == (256, 256)
    assert (tmp_path / "drawn" / "grid.png").is_file()
    if room == "cyclegan":  # whose script has the networks of run_cyclegan.sh, 32 wide
        assert "--g_base_dims 32: the file's is 2, which is used" in text
