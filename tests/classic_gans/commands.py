"""Flags of tiny networks, and tiny data, for tests of the commands of classic_gans."""

from PIL import Image

from scripts import make_toy_data
from tests.classic_gans.trainers import write_digits

CGAN = "--model_net=CGAN --batch_size 8 --g_base_dims 2 --d_base_dims 2 --noise_size 5".split()
DCGAN = "--model_net=DCGAN --batch_size 8 --g_base_dims 1 --d_base_dims 2 --noise_size 5".split()
NETS = "--net_G resnet_6block --g_base_dims 2 --d_base_dims 2".split()
SIZES = "--image_size 36 --crop_size 32".split()
PIX2PIX = ["--model_net=Pix2pix", "--dataset=pairs", *NETS, *SIZES]
CYCLEGAN = ["--model_net=CycleGAN", "--dataset=pairs", *NETS, *SIZES]
TINY = {"CGAN": CGAN, "DCGAN": DCGAN, "Pix2pix": PIX2PIX, "CycleGAN": CYCLEGAN}


def make_data(folder):
    """FOLDER/mnist and FOLDER/pairs: trainA, trainB, testA, testB of pictures of one name, B being
    A mirrored; returns FOLDER.
    """
    write_digits(folder / "mnist")
    toy = make_toy_data.make(folder / "toy", classes=1, count=10, size=40) / "train"
    pictures = sorted(toy.glob("*/*.png"))
    for i, path in enumerate(pictures):
        split = "train" if i < 7 else "test"
        image = Image.open(path).convert("RGB")
        for domain, picture in (("A", image), ("B", image.transpose(Image.FLIP_LEFT_RIGHT))):
            place = folder / "pairs" / f"{split}{domain}"
            place.mkdir(parents=True, exist_ok=True)
            picture.save(place / f"{i}_{domain}.png")
    return folder
