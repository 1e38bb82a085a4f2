"""Turn label maps into pictures with a trained GauGAN, as PaddleGAN's photopen.py does.

python predict.py --semantic_label_path L.png --weight_path W.pdparams --output_path O.jpg
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from shared_metrics import needs, process, testing
from shared_metrics.errors import UserError
from shared_metrics.files import writing
from shared_metrics.flags import new_parser, original_words
from shared_metrics.images import list_images
from shared_metrics.label_maps import read_label, resize_ids
from shared_metrics.outputs import check_file, check_folder, lock_folders

ORIGINAL = {"--weight_path": "--pretrained_model", "--bn_mode": "--bn_stats"}
STANDS_FOR = {"cpu": "device cpu"}  # see shared_metrics.needs
FORMATS = {  # Pillow's, by suffix
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
}


# fmt: off
def network_flags(p, words=()):
    """Add the flags of the network, which predict.py, test.py and demo.py share, with the words of
    the original for these and other flags.
    """
    testing.weight_flags(p)
    p.add_argument("--config-file", "-c", default="",
                   help="photopen.yaml: tells what bare weights do not, such as crop_size")
    original_words(p, ORIGINAL | dict(words))
    add = p.add_argument_group("of the original: what became one of the flags above").add_argument
    add("--cpu", action="store_true", help="--device cpu")


def style_flag(p):
    """Add the flag of the style."""
    p.add_argument("--style_image", default="",
                   help="photo whose style all pictures take, where the network has an encoder")


def parse_args(argv=None):
    """The flags as a namespace."""
    p = new_parser(
        __doc__.partition("\n")[0],
        "python predict.py --semantic_label_path L --weight_path W --output_path O [flags]",
    )
    p.add_argument("--semantic_label_path", required=True,
                   help="a label map, one id a pixel, or a folder of them")
    p.add_argument("--output_path", default="",
                   help="the picture to write (.jpg, .png, ...), or a folder: names as the maps'")
    p.add_argument("--keep_size", action="store_true",
                   help="pictures of each map's own size instead of the network's")
    testing.drawing_flags(p, batch_size=8)
    style_flag(p)
    network_flags(p)
    p.set_defaults(seeds="")
    words = sys.argv[1:] if argv is None else [str(word) for word in argv]
    args, others = p.parse_known_args(words)
    if others:
        raise UserError(f"{others[0]}: goes with --data_path in test.py, if anywhere; leave it out")
    if not args.output_path:
        raise UserError(
            "--output_path is missing: the picture to write, such as out.jpg, or a folder for a "
            "folder"
        )
    needs.check(args, needs.given(p, words), {}, STANDS_FOR)
    return args
# fmt: on


def choose_latents(args, painter, number):
    """z (number, z_dim) of the pictures in their order, or None where the network takes none."""
    seeds = testing.choose_seeds(args, number)
    if not painter.arch.use_vae:
        if args.style_image:
            raise UserError(
                f"--style_image {args.style_image}: this network takes no style (use_vae is off)"
            )
        return None
    if args.style_image:
        return np.tile(painter.style(args.style_image), (number, 1))
    return testing.latents(seeds, painter.arch.z_dim)


def targets(label_path, output_path, overwrite):
    """[(label map, picture to write)]. Raises UserError where a map would be overwritten, or
    pictures unasked, and where they cannot be written.
    """
    source = Path(label_path).expanduser()
    output = Path(output_path).expanduser()
    if source.is_dir():
        return _folder_targets(source, output, overwrite)
    if output.is_dir():
        output = output / f"{source.stem}.png"
    if output.suffix.lower() not in FORMATS:
        raise UserError(
            f"--output_path {output}: unknown kind of picture; give one of {', '.join(FORMATS)}"
        )
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"--output_path {output}: is the label map itself; give another name")
    check_folder(output.parent, "--output_path")
    if output.parent.is_dir():  # else it is made for the picture
        check_file(output, "--output_path", overwrite)
    return [(source, output)]


def _folder_targets(source, output, overwrite):
    if output.exists() and not output.is_dir():
        raise UserError(
            f"--output_path {output}: is a file, and a folder of maps needs a folder of pictures; "
            "give another folder"
        )
    if output.exists() and output.samefile(source):
        raise UserError(f"--output_path {output}: holds the maps; give another folder")
    check_folder(output, "--output_path", reads=[source])
    files = list_images(source)
    if not files:
        raise UserError(f"--semantic_label_path {source}: no images in this folder")
    maps = {}  # picture to write: its label map
    for file in files:
        picture = output / file.relative_to(source).with_suffix(".png")
        first = maps.setdefault(picture, file)
        if first != file:
            raise UserError(f"{file}: {first.name} bears the same name; keep one of them")
    old = next((picture for picture in maps if picture.exists()), None)
    if old and not overwrite:
        raise UserError(
            f"--output_path {output}: holds {old.name} already; give another folder, or --overwrite"
        )
    return [(file, picture) for picture, file in maps.items()]


def save_picture(image, path, size=None):
    """Write uint8 (H, W, 3) in the format of the suffix, atomically; size: (width, height) to
    resize to first.
    """
    image = Image.fromarray(image)
    if size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        image.save(temporary, format=FORMATS[path.suffix.lower()], quality=95)


def main(argv=None):
    """Draw the maps of --semantic_label_path."""
    args = parse_args(argv)
    pairs = targets(args.semantic_label_path, args.output_path, args.overwrite)
    testing.begin(args)
    from painter import load_painter

    painter = load_painter(args)
    arch = painter.arch
    painter.expect(len(pairs))
    latents = choose_latents(args, painter, len(pairs))
    folders = {"--output_path": args.output_path} if Path(args.semantic_label_path).is_dir() else {}
    with lock_folders(folders), ThreadPoolExecutor(args.num_workers) as pool:
        for part in testing.parts(len(pairs), args.batch_size):
            maps, pictures = zip(*pairs[part], strict=True)
            labels = [read_label(file, arch.label_nc, arch.contain_dontcare_label) for file in maps]
            sizes = [ids.shape[::-1] if args.keep_size else None for ids in labels]
            labels = np.stack([resize_ids(ids, *arch.size[::-1]) for ids in labels])
            images = painter.paint(labels, z=None if latents is None else latents[part])
            list(pool.map(save_picture, images, pictures, sizes))
    print(f"{len(pairs)} picture{'s' if len(pairs) > 1 else ''} in {args.output_path}")


if __name__ == "__main__":
    process.command(main)()
