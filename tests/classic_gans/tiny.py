"""How to train the classic GANs tiny, for tests/contract."""

from scripts import make_toy_data
from tests.contract.papers import Paper


def domains(folder):
    """FOLDER/pairs/trainA and trainB, 24 pictures of a name each; returns FOLDER."""
    toy = make_toy_data.make(folder / "toy", classes=2, count=24, size=32) / "train"
    for place, path in enumerate(sorted(toy.glob("*/*.png"))):
        for domain in "AB":
            target = folder / "pairs" / f"train{domain}" / f"{place}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


NOISE = "--dataset train --image_size 32 --noise_size 8 --batch_size 8 --d_base_dims 2"
PICTURES = "--dataset pairs --net_G resnet_6block --g_base_dims 2 --d_base_dims 2 --batch_size 8 "
PICTURES += "--image_size 36 --crop_size 32"
TANH = ("return F.tanh(", "return 0.5 * F.tanh(")
RESIDUAL = ("return x + self.conv_block(x)", "return x - self.conv_block(x)")

PAPERS = {
    "cgan": Paper(
        data_flag="--data_dir",
        part="",
        tiny=f"--model_net CGAN {NOISE} --g_base_dims 2",
        edit=TANH,
        model="cgan/model.py",
        light=True,
    ),
    "dcgan": Paper(
        data_flag="--data_dir",
        part="",
        tiny=f"--model_net DCGAN {NOISE} --g_base_dims 1 --form digits",
        edit=TANH,
        model="dcgan/model.py",
        light=True,
    ),
    "pix2pix": Paper(
        data_flag="--data_dir",
        make=domains,
        tiny=f"--model_net Pix2pix {PICTURES}",
        edit=RESIDUAL,
        model="pix2pix/model.py",
        light=True,
    ),
    # With all that any room has besides: several networks an update, and pools.
    "cyclegan": Paper(
        data_flag="--data_dir",
        make=domains,
        tiny=f"--model_net CycleGAN {PICTURES} --pool_size 10",
        edit=RESIDUAL,
        model="cyclegan/model.py",
    ),
}
