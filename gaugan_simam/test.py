"""Turn label maps into pictures with a trained GauGAN, and score it.

One map or a folder of them, as PaddleGAN's photopen.py:
    python test.py --semantic_label_path L.png --weight_path W.pdparams --output_path O.jpg
A data set, with panels label | generated | real, and scores:
    python test.py --pretrained_model W.pdparams --data_path .../coco_stuff --metrics fid,miou --segmenter S.pdparams
"""

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset import PREPROCESS, read_label
from recipes import PUBLISHED, RECIPES
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.files import writing
from shared_metrics.flags import not_negative, positive, ranges
from shared_metrics.images import list_images
from shared_metrics.protocols import PROTOCOLS
from shared_metrics.results import write_record

WRITTEN = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
}  # suffix: Pillow's format
ONE_WAY = {  # flags that only one of the two ways knows, by what chooses it
    "--semantic_label_path": ("output_path", "keep_size"),
    "--data_path": (
        "instance_dir",
        "split",
        "preprocess_mode",
        "num_samples",
        "output_dir",
        "name",
        "metrics",
    )
    + (
        "segmenter",
        "segmenter_mean",
        "segmenter_std",
        "segmenter_size",
        "segmenter_offset",
        "ignore",
        "real",
    )
    + ("inception_weights", "protocol"),
}


def parse_args(argv=None):
    """The flags as a namespace."""
    p = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        usage="python test.py --weight_path W (--semantic_label_path L --output_path O | "
        "--data_path D) [flags]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add(
        "--weight_path",
        "--pretrained_model",
        required=True,
        help="a checkpoint or any file convert.py knows",
    )
    add(
        "--config-file",
        "-c",
        default="",
        help="photopen.yaml: tells what bare weights do not, such as crop_size",
    )
    add(
        "--use_ema",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the averaged G where the file has one",
    )
    add(
        "--no_ema",
        dest="use_ema",
        action="store_false",
        default=argparse.SUPPRESS,
        help="the raw G",
    )
    add(
        "--bn_mode",
        default="running",
        choices=["running", "batch"],
        help="BatchNorm statistics: of training, or of each batch drawn",
    )
    add(
        "--seed",
        type=not_negative,
        default=0,
        help="of the latents, where the network takes one: map i has seed + i",
    )
    add(
        "--style_image",
        default="",
        help="photo whose style all pictures take, where the network has an encoder",
    )
    add("--batch_size", type=positive, default=8, help="maps at a time")
    add("--num_workers", type=positive, default=4, help="threads that write pictures")
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--cpu", action="store_true", help="the same as --device cpu")
    add("--overwrite", action="store_true", help="replace the pictures of an earlier run")

    add = p.add_argument_group("label maps to pictures").add_argument
    add(
        "--semantic_label_path", default="", help="a label map, one id a pixel, or a folder of them"
    )
    add(
        "--output_path",
        default="",
        help="the picture to write (.jpg, .png, ...), or a folder: names as the maps'",
    )
    add(
        "--keep_size",
        action="store_true",
        help="pictures of each map's own size instead of the network's",
    )

    add = p.add_argument_group("a data set to pictures and scores").add_argument
    add(
        "--data_path",
        default="",
        help="folder with val_img and val_inst (or val_label), as in train.py",
    )
    add("--image_dir", default="", help="instead: folder of photos")
    add("--label_dir", default="", help="instead: folder of label maps")
    add("--instance_dir", default="", help="besides: folder of instance maps")
    add(
        "--split",
        default="val",
        help="val (or test, where there is no val) or train: which folders of --data_path",
    )
    add(
        "--preprocess_mode",
        default="",
        choices=["", *PREPROCESS],
        help="how to resize (default: as in training)",
    )
    add(
        "--num_samples",
        "--limit",
        type=positive,
        help="so many pairs, evenly spread (default: all)",
    )
    add(
        "--output_dir",
        default="./test_result",
        help="where images/, panels/, grid.png and results.json go",
    )
    add("--name", default="", help="the run's name in the record (default: that of the training)")
    add(
        "--metrics",
        default="none",
        help="l1,miou,fid,is,kid,pr or none; miou brings pixel accuracy too",
    )
    add(
        "--segmenter",
        default="",
        help="for miou: a file of train_segmenter.py, or an exported network",
    )
    halves = {"type": three, "default": (0.5, 0.5, 0.5), "metavar": "R,G,B"}
    add("--segmenter_mean", **halves, help="of an export: taken from RGB in [0, 1] ...")
    add("--segmenter_std", **halves, help="... which is then divided by this")
    add(
        "--segmenter_size",
        type=not_negative,
        default=0,
        help="of an export: shorter side in px; 0: the pictures'",
    )
    add(
        "--segmenter_offset", type=int, default=0, help="of an export: its id + this = the map's id"
    )
    add(
        "--ignore",
        type=ranges,
        help="ids of the maps that miou leaves out, e.g. 0 (unknown always is)",
    )
    add(
        "--real",
        default="",
        help="image folder or statistics file for fid, kid, pr (default: the pairs' photos)",
    )
    add(
        "--inception_weights",
        default="auto",
        help="auto (download), random (not comparable) or a file",
    )
    add(
        "--protocol",
        default="tf",
        choices=list(PROTOCOLS),
        help="how fid, is, kid and pr are computed",
    )
    args = p.parse_args(argv)
    args.command = sys.argv[1:] if argv is None else list(argv)
    _check_way(p, args)
    return args


def three(text):
    """Three numbers, joined by commas."""
    numbers = tuple(float(part) for part in text.split(","))
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise argparse.ArgumentTypeError(f"'{text}': expected three numbers such as 0.5,0.5,0.5")
    return numbers


def _check_way(parser, args):
    """UserError unless the flags ask for one of the two ways, with nothing of the other."""
    prediction = bool(args.semantic_label_path)
    if prediction == bool(args.data_path or args.image_dir or args.label_dir):
        raise UserError(
            "give either --semantic_label_path (maps to pictures) or --data_path (pairs to scores)"
        )
    if prediction and not args.output_path:
        raise UserError(
            "--output_path is missing: the picture to write, such as out.jpg, or a folder for a "
            "folder"
        )
    this, other = (
        ("--semantic_label_path", "--data_path")
        if prediction
        else ("--data_path", "--semantic_label_path")
    )
    for name in ONE_WAY[other]:
        if getattr(args, name) != parser.get_default(name):
            raise UserError(f"--{name}: goes with {other}, not with {this}; leave it out")


def make_latents(args, painter):
    """Function (number of the first map, how many) -> z (n, z_dim), or None where the network takes
    no latent.
    """
    from painter import latents

    if not painter.arch.use_vae:
        if args.style_image:
            raise UserError(
                f"--style_image {args.style_image}: this network takes no style (use_vae is off)"
            )
        return lambda first, count: None
    if not args.style_image:
        return lambda first, count: latents(args.seed, first, count, painter.arch.z_dim)
    style = painter.style(args.style_image)
    return lambda first, count: np.tile(style, (count, 1))


# ---- label maps to pictures
# ------------------------------------------------------------------------------------------


def targets(label_path, output_path, overwrite):
    """[(label map, picture to write)]. Raises UserError where a map would be overwritten, or
    pictures unasked.
    """
    source, output = Path(label_path).expanduser(), Path(output_path).expanduser()
    if not source.is_dir():
        if output.is_dir():
            output = output / f"{source.stem}.png"
        if output.suffix.lower() not in WRITTEN:
            raise UserError(
                f"--output_path {output}: unknown kind of picture; give one of {', '.join(WRITTEN)}"
            )
        if output.exists() and source.exists() and output.samefile(source):
            raise UserError(f"--output_path {output}: is the label map itself; give another name")
        return [(source, output)]
    if output.exists() and (not output.is_dir() or output.samefile(source)):
        what = (
            "holds the maps"
            if output.is_dir()
            else "is a file, and a folder of maps needs a folder of pictures"
        )
        raise UserError(f"--output_path {output}: {what}; give another folder")
    files = list_images(source)
    if not files:
        raise UserError(f"--semantic_label_path {source}: no images in this folder")
    found = {}
    for file in files:
        first = found.setdefault(output / file.relative_to(source).with_suffix(".png"), file)
        if first != file:
            raise UserError(f"{file}: {first.name} bears the same name; keep one of them")
    old = next((picture for picture in found if picture.exists()), None)
    if old and not overwrite:
        raise UserError(
            f"--output_path {output}: holds {old.name} already; give another folder, or --overwrite"
        )
    return [(file, picture) for picture, file in found.items()]


def predict(args, painter):
    """Draw the maps of --semantic_label_path, batch by batch; returns how many."""
    from dataset import resize_ids

    arch, z = painter.arch, make_latents(args, painter)
    pairs = targets(args.semantic_label_path, args.output_path, args.overwrite)
    with tqdm(total=len(pairs), unit="pictures", disable=None if len(pairs) > 1 else True) as bar:
        for i in range(0, len(pairs), args.batch_size):
            part = pairs[i : i + args.batch_size]
            labels, sizes = [], []
            for file, _ in part:
                label = read_label(file, arch.label_nc, arch.contain_dontcare_label)
                sizes.append(label.shape[::-1])
                labels.append(resize_ids(label, *arch.size[::-1]))
            images = painter.paint(np.stack(labels), z=z(i, len(part)))
            for image, size, (_, picture) in zip(images, sizes, part, strict=True):
                save_picture(image, picture, size if args.keep_size else None)
            bar.update(len(part))
    return len(pairs)


def save_picture(image, path, size=None):
    """Write uint8 (H, W, 3) in the format of the suffix, atomically; size: (width, height) to
    resize to first.
    """
    image = Image.fromarray(image)
    if size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        image.save(temporary, format=WRITTEN[path.suffix.lower()], quality=95)


# ---- a data set to pictures and scores
# -------------------------------------------------------------------------------


def draw(painter, data, batch_size, z):
    """Yield (labels (n, H, W), generated, photos, both uint8 (n, H, W, 3)) of all pairs, in their
    order.
    """
    for i in range(0, len(data), batch_size):
        items = [data.load(k) for k in range(i, min(i + batch_size, len(data)))]
        labels, instances, photos = (np.stack(part) for part in zip(*items, strict=True))
        real = np.rint((photos + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
        yield labels, painter.paint(labels, instances, z(i, len(items))), real


def evaluate(args, painter):
    """Draw all pairs, save, score, record."""
    from evaluation import Evaluation, Shown, file_names, open_pairs
    from shared_metrics.files import file_sha256

    folder, found = Path(args.output_dir), painter.found
    z, data = make_latents(args, painter), open_pairs(args, painter.arch, found.get("args", {}))
    check_folder(folder, args.overwrite, data.folders)
    evaluation = Evaluation(args, painter.arch, data)
    shown = Shown(folder, file_names(data), args.num_workers)
    empty_folder(folder)
    with tqdm(total=len(data), unit="pictures", disable=None) as bar:
        drawn = counted(draw(painter, data, args.batch_size, z), bar)
        scores = evaluation.run(shown.write(drawn))
    source = found.get("source", {})
    checkpoint = {
        "file": Path(args.weight_path).name,
        "sha256": file_sha256(args.weight_path),
        "iteration": found.get("iteration", source.get("iteration")),
        "weights": painter.kind,
        "bn_mode": args.bn_mode,
    }
    samples = {
        "seed": args.seed if painter.arch.use_vae and not args.style_image else None,
        "data": describe(data),
    }
    write_record(folder / "results.json", make_record(args, found, scores, checkpoint, samples))
    for line in report(scores):
        print(line)
    print(f"{len(data)} pairs in {folder / 'images'}, {folder / 'panels'}, {folder / 'grid.png'}, "
          f"{folder / 'results.json'}")  # fmt: skip


def counted(batches, bar):
    for batch in batches:
        bar.update(len(batch[0]))
        yield batch


def describe(data):
    """The pairs, for the record: folders' names, without where they lie on this disk."""
    photos, labels, instances = data.folders
    names = [
        f"{photos.parent.name}/{photos.name}",
        labels.name,
        *([instances.name] if instances else []),
    ]
    return f"{', '.join(names)} at {data.crop_size}x{data.height} px by {data.preprocess}"


def check_folder(folder, overwrite, pairs):
    """Raise UserError when the output would mix with the pairs, or with pictures and --overwrite is
    not given.

    Args: pairs, the folders of photos, label maps and instance maps (or None).
    """
    for name in ("panels", "images"):
        place = (folder / name).resolve()
        for own in (path.resolve() for path in pairs if path):
            if own.is_relative_to(place) or place.is_relative_to(own):
                raise UserError(
                    f"--output_dir {folder}: the pairs themselves lie in {own}; name another folder"
                )
        old = len(list((folder / name).glob("*.png")))
        if old and not overwrite:
            raise UserError(
                f"--output_dir {folder}: holds {old} {name} already. Name another, or give "
                "--overwrite"
            )


def empty_folder(folder):
    """Make the output folder, and take away what an earlier run of test.py wrote there: each image
    has a panel.
    """
    for name in ("images", "panels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for old in (folder / "panels").glob("*.png"):
        (folder / "images" / old.name).unlink(missing_ok=True)
        old.unlink()
    for name in ("grid.png", "results.json"):
        (folder / name).unlink(missing_ok=True)


def report(result):
    """Lines that show the scores."""
    random_inception = result["inception"] and not result["comparable"]
    own = ("l1", "miou", "miou_real", "pixel_accuracy", "pixel_accuracy_real")
    for name, value in result["scores"].items():
        note = (
            "   (random Inception: not comparable)" if random_inception and name not in own else ""
        )
        note = "   (the segmenter on the real photos)" if name.endswith("_real") else note
        yield f"{name} = {value:.6g}{note}"
    for note in result.get("notes", ()):
        yield f"note: {note}"


def make_record(args, found, scores, checkpoint, samples):
    """The result record (`shared_metrics.results`): every number with what it takes to get it
    again.

    The paper's numbers stand beside it; `departures` tells where the training was not the recipe's.
    """
    trained = found.get("args", {})
    recipe = trained.get("recipe")
    where = Path(trained["data_path"]).parts[-1:] if trained.get("data_path") else ()
    return scores | {
        "paper": "gaugan_simam",
        "name": args.name or trained.get("name", ""),
        "dataset": "/".join(where) or "unknown",
        "recipe": recipe,
        "departures": {
            k: trained[k]
            for k, v in RECIPES.get(recipe, {}).items()
            if k in trained and trained[k] != v
        },
        "architecture": found["architecture"],
        "checkpoint": checkpoint | {"source": found.get("source", {})},
        "samples": scores["samples"] | samples,
        "published": [
            {"score": score, "value": value, "source": f"Park et al., CVPR 2019; {how}"}
            for score, value, how in PUBLISHED.get(recipe, [])
        ],
        "environment": process.environment(),
        "command": "python test.py " + shlex.join(args.command),
    }


def main(argv=None):
    """Draw label maps, or draw and score a data set."""
    args = parse_args(argv)
    print(process.configure_cpu())  # before Paddle is imported
    process.choose_device("cpu" if args.cpu else args.device)
    from painter import load_painter

    painter = load_painter(args)
    if not args.semantic_label_path:
        evaluate(args, painter)
        return
    number = predict(args, painter)
    print(f"{number} picture{'s' if number > 1 else ''} in {args.output_path}")


if __name__ == "__main__":
    process.command(main)()
