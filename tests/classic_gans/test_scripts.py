"""The scripts that make lists and folders of pairs."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import run_cli


def picture(path, colour=(0, 0, 0), size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def maps(tmp_path):
    """Names with other letters A and other suffixes, in a list without last newline."""
    root = tmp_path / "MAPA" / "maps"
    for name in ("trainA/BALA_A.png", "trainB/BALA_B.jpg", "trainA/2_A.png", "trainB/2_B.png"):
        picture(root / name)
    (root / "trainA.txt").write_text("trainA/BALA_A.png\ntrainA/2_A.png")
    return root


def make_pairs(root, *flags, code=0):
    command = ["scripts/make_pair_data.py", "--data_dir", root.parent, "--dataset", root.name]
    return run_cli("classic_gans", *command, *flags, code=code)


def test_pair_lists(maps, paper):
    done = make_pairs(maps, "--direction=A2B")
    assert (maps / "pix2pix_train_list").read_text() == (
        "trainA/BALA_A.png\ttrainB/BALA_B.jpg\ntrainA/2_A.png\ttrainB/2_B.png\n"
    )
    assert "2 pairs, A2B" in done.stdout and "testA.txt: not there" in done.stdout
    files, _ = paper("classic_gans").lists.paired_files(maps, "train", maps / "pix2pix_train_list")
    assert files[0] == (maps / "trainA/BALA_A.png", maps / "trainB/BALA_B.jpg")


def test_b_is_given_by_default(maps):
    (maps / "testA.txt").write_text("trainA/2_A.png\n")
    make_pairs(maps)
    assert (maps / "pix2pix_test_list").read_text() == "trainB/2_B.png\ttrainA/2_A.png\n"


def test_a_list_with_other_lines_stays(maps):
    make_pairs(maps)
    make_pairs(maps)  # the same lines
    failed = make_pairs(maps, "--direction", "A2B", code=2)
    assert "pix2pix_train_list: is there already" in failed.stderr
    make_pairs(maps, "--direction", "A2B", "--overwrite")


def test_lone_pictures_are_told_and_nothing_is_written(maps):
    (maps / "trainB/2_B.png").unlink()
    failed = make_pairs(maps, code=2)
    assert "2_A.png: no 2_B or 2 of any suffix" in failed.stderr
    assert failed.stderr.count("\n") == 1 and not (maps / "pix2pix_train_list").exists()


def test_folders_without_an_a(maps):
    picture(maps / "left/1.png")
    (maps / "trainA.txt").write_text("left/1.png\n")
    assert "no folder of its path ends in A" in make_pairs(maps, code=2).stderr


@pytest.fixture
def cityscapes(tmp_path):
    """Two training pictures and one for validation, 16x8, labels in two colours."""
    labels = np.zeros((8, 16, 3), np.uint8)
    labels[:, 8:] = (128, 64, 128)
    for split, city, name in (
        ("train", "aachen", "1"),
        ("train", "ulm", "2"),
        ("val", "bonn", "3"),
    ):
        stem = f"{split}/{city}/{city}_{name}"
        picture(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", (10, 20, 200), (16, 8))
        path = tmp_path / f"gtFine/{stem}_gtFine_color.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(labels).save(path)
        Image.fromarray(labels).save(path.with_name(f"{city}_{name}_gtFine_labelIds.png"))
    return tmp_path


def prepare(folder, code=0):
    flags = ["--gtFine_dir", folder / "gtFine", "--leftImg8bit_dir", folder / "leftImg8bit"]
    out = ["--output_dir", folder / "data" / "cityscapes"]
    return run_cli("classic_gans", "scripts/prepare_cityscapes_dataset.py", *flags, *out, code=code)


def test_cityscapes(cityscapes):
    assert "2 + 1 pairs" in prepare(cityscapes).stdout
    out = cityscapes / "data" / "cityscapes"
    assert (out / "trainA.txt").read_text() == "trainA/0_A.jpg\ntrainA/1_A.jpg\n"
    assert (out / "testB.txt").read_text() == "testB/0_B.jpg\n"
    photo = np.asarray(Image.open(out / "trainA/1_A.jpg")).astype(int)
    assert photo.shape == (256, 256, 3) and abs(photo - (10, 20, 200)).max() <= 2
    labels = np.asarray(Image.open(out / "testB/0_B.jpg")).astype(int)
    assert abs(labels[:, :128]).max() <= 3, "colours ran into each other"
    assert abs(labels[:, 128:] - (128, 64, 128)).max() <= 3
    make_pairs(out)
    assert (out / "pix2pix_train_list").read_text().startswith("trainB/0_B.jpg\ttrainA/0_A.jpg\n")
    assert "not empty" in prepare(cityscapes, code=2).stderr


def test_cityscapes_at_fault(cityscapes):
    lone = cityscapes / "gtFine/train/ulm/ulm_2_gtFine_color.png"
    lone.rename(lone.with_name("ulm_4_gtFine_color.png"))
    failed = prepare(cityscapes, code=2).stderr
    assert "has no partner (2 such files in train)" in failed and failed.count("\n") == 1
    assert not (cityscapes / "data").exists()
    (cityscapes / "gtFine").rename(cityscapes / "away")
    assert "no files train/<city>/*_gtFine_color.png" in prepare(cityscapes, code=2).stderr
