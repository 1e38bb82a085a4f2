"""Fetch a published data set:   cd classic_gans && python download.py --dataset=horse2zebra

MNIST stays as its four files. The others are unpacked to DATA_DIR/NAME, and each sub-folder gets
its list, such as trainA.txt, one path a line. What is there already is not fetched again.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from shared_metrics.archives import extract
from shared_metrics.download import LIMIT, download, limit_of
from shared_metrics.errors import UserError
from shared_metrics.files import file_sha256, writing
from shared_metrics.flags import version_flag
from shared_metrics.images import list_images, sub_folders
from shared_metrics.process import command

MNIST_HOSTS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "http://yann.lecun.com/exdb/mnist",
)
MNIST = {  # file: its sha256
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MNIST_SIZE = 9_912_422  # bytes of the largest of them
CYCLEGAN_HOSTS = (
    "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets",
    "https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets",
)
PIX2PIX_HOSTS = (
    "https://efrosgans.eecs.berkeley.edu/pix2pix/datasets",
    "https://people.eecs.berkeley.edu/~tinghuiz/projects/pix2pix/datasets",
)
BY_HAND = {
    "cityscapes": "needs an account at cityscapes-dataset.com; then "
    "scripts/prepare_cityscapes_dataset.py makes the folder",
    "celeba": "comes from mmlab.ie.cuhk.edu.hk/projects/CelebA.html: img_align_celeba and "
    "list_attr_celeba.txt",
}


@dataclass(frozen=True)
class Archive:
    """A published archive: its file below each host, what is in it, its size and checksum if they
    are known.
    """

    hosts: tuple
    file: str
    content: str
    sha256: str | None = None
    mib: int | None = None


def unpaired(name, content, mib=None, sha256=None):
    """An archive of CycleGAN's authors: trainA, trainB, testA and testB."""
    return Archive(CYCLEGAN_HOSTS, f"{name}.zip", content, sha256, mib)


def side_by_side(name, content, mib):
    """An archive of Pix2Pix's authors: train, val (and test) of pictures A|B."""
    return Archive(PIX2PIX_HOSTS, f"{name}.tar.gz", content, mib=mib)


# fmt: off
ARCHIVES = {
    "apple2orange": unpaired("apple2orange", "apples and oranges", 75,
        "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8"),
    "summer2winter_yosemite": unpaired("summer2winter_yosemite", "two seasons", 126,
        "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9"),
    "horse2zebra": unpaired("horse2zebra", "horses and zebras", 111,
        "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1"),
    "monet2photo": unpaired("monet2photo", "paintings and photos", 291,
        "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04"),
    "cezanne2photo": unpaired("cezanne2photo", "paintings and photos", 267,
        "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff"),
    "ukiyoe2photo": unpaired("ukiyoe2photo", "prints and photos", 279,
        "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08"),
    "vangogh2photo": unpaired("vangogh2photo", "paintings and photos", 292,
        "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff"),
    "maps": unpaired("maps", "aerial photos and maps, also as pairs by name", 1408,
        "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e"),
    "facades": unpaired("facades", "facades and their labels, also as pairs by name", 34,
        "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0"),
    "iphone2dslr_flower": unpaired("iphone2dslr_flower", "flowers by two cameras", 324,
        "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113"),
    "ae_photos": unpaired("ae_photos", "photos to edit"),
    "mini": unpaired("mini", "a few pictures to try things out"),
    "pix2pix_facades": side_by_side("facades", "facades | labels", 29),
    "pix2pix_maps": side_by_side("maps", "aerial photos | maps", 239),
    "edges2shoes": side_by_side("edges2shoes", "edges | shoes", 2048),
    "edges2handbags": side_by_side("edges2handbags", "edges | handbags", 8192),
    "night2day": side_by_side("night2day", "night | day", 1946),
}
# fmt: on


def listing():
    """Lines on every data set that --dataset takes."""
    lines = [f"{'mnist':24} 11 MiB, 60,000 + 10,000 digits"]
    for name, archive in ARCHIVES.items():
        size = f"{archive.mib} MiB, " if archive.mib else ""
        lines.append(f"{name:24} {size}{archive.content}")
    return lines + [f"{name:24} by hand: {how}" for name, how in BY_HAND.items()]


def fetch_mnist(folder):
    """Put the four files of MNIST into a folder; those that are there with the right sum stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, sha256 in MNIST.items():
        path = folder / file
        if path.exists() and file_sha256(path) != sha256:
            raise UserError(f"{path}: is there and is not MNIST's file; move it away or delete it")
        if not path.exists():
            urls = [f"{host}/{file}" for host in MNIST_HOSTS]
            download(urls, path, sha256, limit_of(MNIST_SIZE))
        print(f"{path}")


def fetch_archive(archive, folder):
    """Fetch and unpack an archive as `folder`, unless that is there; then write its lists.

    An archive that lies beside it under its published name is used, and stays.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is no folder; move it away")
    if not folder.exists():
        path = folder.with_name(archive.file)
        own = path.exists()
        if not own:
            urls = [f"{host}/{archive.file}" for host in archive.hosts]
            limit = limit_of(archive.mib * 2**20) if archive.mib else LIMIT
            download(urls, path, archive.sha256, limit)
        elif archive.sha256 and file_sha256(path) != archive.sha256:
            raise UserError(f"{path}: has the wrong sha256; delete it and run again")
        if archive.sha256 is None:
            print(f"{path}: no checksum is published; sha256 {file_sha256(path)}")
        extract(path, folder)
        if not own:
            path.unlink()
    write_lists(folder)


def write_lists(folder):
    """Write NAME.txt for each sub-folder NAME, the paths of its pictures from `folder` on.

    A list that is there with other lines is the user's and stays.
    """
    for part in sub_folders(folder):
        files = list_images(part)
        path = folder / f"{part.name}.txt"
        text = "".join(f"{file.relative_to(folder).as_posix()}\n" for file in files)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            print(f"{path}: is there with other lines and stays as it is")
        elif files and not path.exists():
            with writing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        print(f"{part}: {len(files):,} pictures")


def parse_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    version_flag(p)
    p.add_argument("--dataset", default="mnist", metavar="NAME", help="see --list (%(default)s)")
    p.add_argument("--data_dir", default="./data", help="where NAME's folder is (%(default)s)")
    p.add_argument("--list", action="store_true", help="show the data sets and end")
    return p.parse_args(argv)


def main(argv=None):
    """Fetch one data set, or list them all."""
    args = parse_args(argv)
    if args.list:
        print("\n".join(listing()))
        return
    if args.dataset in BY_HAND:
        raise UserError(f"--dataset {args.dataset}: {BY_HAND[args.dataset]}")
    if args.dataset != "mnist" and args.dataset not in ARCHIVES:
        raise UserError(f"--dataset {args.dataset}: unknown; --list shows those that are published")
    data_dir = Path(args.data_dir).expanduser()
    os.makedirs(data_dir, exist_ok=True)
    with FileLock(data_dir / f".{args.dataset}.lock"):
        if args.dataset == "mnist":
            fetch_mnist(data_dir / "mnist")
        else:
            fetch_archive(ARCHIVES[args.dataset], data_dir / args.dataset)


if __name__ == "__main__":
    command(main)()
