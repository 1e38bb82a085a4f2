"""The commands of classic_gans/README.md, each on what those before it have left."""

import re
import shutil

import pytest

from scripts import make_toy_data
from tests.classic_gans.commands import make_data
from tests.conftest import ROOT, run_cli
from tests.readmes.commands import LONG, World, name_of, runnable

DIGITS = "--batch_size 8 --g_base_dims 1 --d_base_dims 2 --noise_size 5"
PICTURES = "--batch_size 2 --g_base_dims 2 --d_base_dims 2 --image_size 36 --crop_size 32"
PICTURES += " --net_G resnet_6block"
FACES = "--batch_size 8 --g_base_dims 2 --d_base_dims 2 --image_size 16 --crop_size 20"
FACES += " --n_samples 2"
DEEP = " --n_layers 2 --d_fc_dim 4 --shortcut_layers 1 --inject_layers 1"
MAPS = "--label_nc 5 --no_instance --load_height 32 --load_width 32 --crop_height 32"
MAPS += " --crop_width 32 --ngf 1 --ndf 1 --num_D 1 --batch_size 8 --n_samples 2"
TINY = {"CGAN": DIGITS, "DCGAN": DIGITS, "Pix2pix": PICTURES, "CycleGAN": PICTURES}
TINY |= {"StarGAN": f"{FACES} --g_repeat_num 1 --d_repeat_num 3", "SPADE": MAPS}
TINY |= {"AttGAN": FACES + DEEP, "STGAN": f"{FACES}{DEEP} --gru_n_layers 1"}
RUNS = {
    "cgan": "CGAN --dataset mnist",
    "pix2pix": "Pix2pix --dataset facades",
    "cyclegan": "CycleGAN --dataset horse2zebra",
    "attgan": "AttGAN --dataset faces --split all --selected_attrs Eyeglasses,Smiling,Wearing_Hat",
}


def tiny(words):
    """Flags of a tiny run of the model that a command of train.py names."""
    model = re.search(r"--model_net[ =](\w+)", " ".join(words))[1]
    return f"{TINY[model]} --iterations 1 --device cpu --num_workers 0"


JUDGE = "--device cpu --overwrite --epochs 1 --width 4 --batch_size 4"
MORE = {
    "train": tiny,
    "test": "--device cpu --overwrite",
    "shared_metrics.judges": JUDGE,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("classic")
    data = make_data(place / "data")
    for name in ("facades", "grey2colour", "horse2zebra", "orange2banana"):
        shutil.copytree(data / "pairs", data / name)
    pairs = (data / "pairs").rename(data / "cityscapes")
    for split in ("train", "test"):
        rows = zip(*(sorted((pairs / f"{split}{side}").iterdir()) for side in "AB"), strict=True)
        lines = ["\t".join(str(path.relative_to(pairs)) for path in row) for row in rows]
        (pairs / f"pix2pix_{split}_list").write_text("\n".join(lines))
    for path in (data / "mnist").iterdir():
        shutil.copy(path, path.with_name(path.name.replace("train", "t10k")))
    faces = make_toy_data.make(data / "faces", "celeba", count=16, size=24, val_count=8)
    maps = make_toy_data.make(data / "coco_stuff", "coco_stuff", classes=2, count=8, size=36)
    rows = (
        f"train_inst/{path.stem}.png\ttrain_img/{path.name}" for path in maps.glob("train_img/*")
    )
    (maps / "train_list").write_text("\n".join(rows))
    shutil.copytree(pairs / "testA", place / "my_pictures")
    (place / "results").symlink_to(ROOT / "classic_gans" / "results")
    words = f"-m shared_metrics.judges attributes {JUDGE} --imsize 16"
    words += f" --data_path {faces}/img_align_celeba --list {faces}/list_attr_celeba.txt"
    words += f" --attributes Eyeglasses,Smiling,Wearing_Hat --output {place}/attributes.pdparams"
    run_cli("classic_gans", *words.split())
    digits = [f"{data}/mnist/train-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    words = f"-m shared_metrics.judges digits {JUDGE} --output {place}/digits.pdparams"
    run_cli("classic_gans", *f"{words} --images {digits[0]} --labels {digits[1]}".split())
    for name, flags in RUNS.items():
        words = f"train.py --model_net {flags} --data_dir {data} --output_dir {place}/output/{name}"
        run_cli("classic_gans", *f"{words} {tiny(['--model_net', flags])}".split())
    swaps = {
        r"^(horses|my_pictures)/$": "my_pictures",
        r"^\.\.\./mnist_png$": "my_pictures",
        r"horse2zebra\.pth$": "output/cyclegan",
        r"^data/faces$": "made_faces",
        r"^4000$": "24",
        r"^500$": "8",
        **LONG,
    }
    output = ("args.json", "log.txt", "log.jsonl", "checkpoints", "samples", "log", "curves.png")
    return World("classic_gans", place, swaps, MORE, tuple(f"output/{name}" for name in output))


@pytest.mark.parametrize("words", runnable("classic_gans/README.md"), ids=name_of)
def test_command(words, world, paper, monkeypatch):
    monkeypatch.chdir(world.place)
    assert world.run(words, paper) == 0
