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


def faces(folder):
    """FOLDER/faces, a list of attributes as CelebA's with 24 faces; returns FOLDER."""
    return make_toy_data.make(folder / "faces", "celeba", count=24, size=24).parent


def maps(folder):
    """FOLDER/maps, 24 label maps with their photos; returns FOLDER."""
    return make_toy_data.make(folder / "maps", "coco_stuff", classes=2, count=24, size=36).parent


NOISE = "--dataset train --image_size 32 --noise_size 8 --batch_size 8 --d_base_dims 2"
PICTURES = "--dataset pairs --net_G resnet_6block --g_base_dims 2 --d_base_dims 2 --batch_size 8 "
PICTURES += "--image_size 36 --crop_size 32"
FACES = "--dataset faces --split all --selected_attrs Smiling,Wearing_Hat --image_size 16 "
FACES += "--crop_size 20 --g_base_dims 2 --d_base_dims 2 --batch_size 8 --n_samples 2 "
DEEP = "--n_layers 2 --d_fc_dim 4 --shortcut_layers 1 --inject_layers 1 --num_discriminator_time 1"
MAPS = "--dataset maps --label_nc 5 --no_instance --load_height 32 --load_width 32 "
MAPS += "--crop_height 32 --crop_width 32 --ngf 1 --ndf 1 --num_D 1 --batch_size 8 --n_samples 2"
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
    "stargan": Paper(
        data_flag="--data_dir",
        make=faces,
        tiny=f"--model_net StarGAN {FACES} --g_repeat_num 1 --d_repeat_num 3 --n_critic 2",
        edit=("return self.main(paddle.concat(", "return 0.5 * self.main(paddle.concat("),
        model="stargan/model.py",
        light=True,
    ),
    "attgan": Paper(
        data_flag="--data_dir",
        make=faces,
        tiny=f"--model_net AttGAN {FACES} {DEEP}",
        edit=("        return z\n", "        return 0.5 * z\n"),
        model="attgan/model.py",
        light=True,
    ),
    "stgan": Paper(
        data_flag="--data_dir",
        make=faces,
        tiny=f"--model_net STGAN {FACES} {DEEP} --gru_n_layers 1",
        edit=("        return z\n", "        return 0.5 * z\n"),
        model="stgan/model.py",
        light=True,
    ),
    "spade": Paper(
        data_flag="--data_dir",
        make=maps,
        tiny=f"--model_net SPADE {MAPS}",
        edit=TANH,
        model="spade/model.py",
        light=True,
    ),
}
