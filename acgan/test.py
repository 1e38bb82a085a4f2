"""Draw images from a trained AC-GAN and score them.   cd acgan && python test.py --check_path PATH
--which_epoch 499
"""

import argparse
import dataclasses
import re
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recipes import PUBLISHED, RECIPES
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import not_negative, positive, ranges
from shared_metrics.images import save_png, to_uint8
from shared_metrics.protocols import PROTOCOLS
from shared_metrics.results import write_record

OWN, PEERS = (
    re.compile(r"iter_(\d{7,})\.pdparams"),
    re.compile(r"(?:G_(\d+)\.pdparams|netG_epoch_(\d+)\.pth)"),
)
SCORED = 50_000  # images drawn where they are scored and no number is given
PICTURES = ("grid", "class_swap", "interpolation", "nearest")


def parse_args(argv=None):
    """The flags as a namespace."""
    p = argparse.ArgumentParser(
        description=__doc__,
        usage="python test.py --check_path PATH [flags; --help lists them]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add(
        "--check_path",
        default="./checkpoints",
        help="folder of checkpoints: train.py's, Callifrey's or clvrai's",
    )
    add(
        "--which_epoch",
        type=not_negative,
        help="the one after this epoch, counted from 0 (default: the newest)",
    )
    add(
        "--pretrained_model",
        default="",
        help="this file instead: a checkpoint or any file convert.py knows",
    )
    add(
        "--output_dir",
        "--result_path",
        default="./results",
        help="where images/, the pictures, results.json go",
    )
    add(
        "--class_result_path",
        default="",
        help="where a picture a class goes, if not OUTPUT_DIR/class_results",
    )
    add("--overwrite", action="store_true", help="replace what an earlier run left there")
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--batch_size", "--batchSize", type=positive, default=100, help="images at a time")
    add("--num_workers", type=positive, default=4, help="threads that write PNGs")
    add("--name", default="", help="the run's name in the record (default: that of the training)")

    drawing_flags(p.add_argument_group("what to draw").add_argument)
    score_flags(p.add_argument_group("scores").add_argument)
    add = p.add_argument_group(
        "for published weights, which tell less than a checkpoint"
    ).add_argument
    add("--nz", type=positive, help="expected length of z (default: what the file holds)")
    add(
        "--num_classes",
        type=positive,
        help="number of classes (default: what the file holds, or 10 as published)",
    )
    add("--classes", default="auto", help="which folders of --real the classes are, as in train.py")
    args = p.parse_args(argv)
    args.command = sys.argv[1:] if argv is None else list(argv)
    if args.seeds_text and args.num_samples:
        raise UserError("--num_samples: --seeds names the images already; leave one of the two out")
    args.num_samples = args.num_samples or (args.batch_size if args.metrics == "none" else SCORED)
    if args.pretrained_model and args.which_epoch is not None:
        raise UserError(
            "--which_epoch: chooses a file of --check_path; leave it or --pretrained_model out"
        )
    return args


def drawing_flags(add):
    """Which images."""
    add(
        "--num_samples",
        type=positive,
        help=f"images to draw, from seeds --seed, --seed + 1, ... (default: {SCORED} to score, "
        "else one batch)",
    )
    add("--seed", type=not_negative, default=0, help="the first of these seeds")
    add(
        "--seeds",
        default="",
        dest="seeds_text",
        metavar="SEEDS",
        help="these seeds instead, e.g. 0-15,100",
    )
    add(
        "--labels",
        default="uniform",
        help="uniform: one class a seed; or classes by name or number, e.g. cat,dog or 0-9: each "
        "from every seed",
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
        "--bn_stats",
        default="running",
        choices=["running", "batch"],
        help="BatchNorm statistics: of training, or of each batch drawn",
    )


def score_flags(add):
    """What is measured on them, and by what."""
    add(
        "--metrics",
        default="none",
        help="acc,msssim,fid,is,kid,pr or none; fid, kid and pr need --real",
    )
    add(
        "--real",
        "--dataroot",
        default="",
        help="class folders of real images, of which the generator's are taken, or a statistics "
        "file",
    )
    add(
        "--classifier",
        default="",
        help="for acc: a file of train_classifier.py, or ImageNet weights",
    )
    add(
        "--classifier_model",
        default="",
        help="the network of paddle.vision that ImageNet weights are for",
    )
    add(
        "--class_indices",
        type=ranges,
        help="ImageNet's numbers of the classes, if the file does not tell, e.g. 10-19",
    )
    add(
        "--acc_sizes",
        type=ranges,
        help="acc also of images brought to these sides in px first (default: 64 and 32, where "
        "smaller)",
    )
    add("--pairs", type=positive, default=100, help="random pairs a class for msssim")
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


def find_weights(args):
    """The file to draw from: --pretrained_model, or the one in --check_path after epoch
    --which_epoch (the newest).
    """
    from shared_metrics import weights

    if args.pretrained_model:
        return Path(args.pretrained_model)
    folder = Path(args.check_path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"--check_path {folder}: no such folder. Give the folder of checkpoints, or "
            "--pretrained_model"
        )
    own = {int(m[1]): p for p in folder.iterdir() if (m := OWN.fullmatch(p.name))}
    epochs = {int(m[1] or m[2]): p for p in folder.iterdir() if (m := PEERS.fullmatch(p.name))}
    if not own and not epochs:
        raise UserError(
            f"--check_path {folder}: holds no iter_N.pdparams, G_N.pdparams or netG_epoch_N.pth; "
            "give another folder, "
            "or a file by --pretrained_model"
        )
    if own and args.which_epoch is None:
        return own[max(own)]
    if own:
        state = weights.load(own[max(own)])
        per_epoch = state.get("batches_per_epoch") if isinstance(state, dict) else None
        if (
            per_epoch
        ):  # checkpoints are numbered by the iterations done: epoch 0 ends with per_epoch of them
            epochs = {
                n // per_epoch - 1: p
                for n, p in own.items()
                if n >= per_epoch and n % per_epoch == 0
            } | epochs
    wanted = max(epochs, default=None) if args.which_epoch is None else args.which_epoch
    if wanted not in epochs:
        known = (
            f"epochs {', '.join(map(str, sorted(epochs)[-10:]))}" if epochs else "no whole epoch"
        )
        raise UserError(
            f"--which_epoch {wanted}: {folder} holds {known}; give one of them, or leave the flag "
            "out"
        )
    return epochs[wanted]


def latents(seeds, nz):
    """Noise (N, nz) float32, one standard normal row a seed:
    `np.random.RandomState(seed).randn(nz)`.

    z is this with the class in its first entries: `model.with_labels`.
    """
    return np.stack([np.random.RandomState(s).randn(nz) for s in seeds]).astype(np.float32)


def choose_labels(args, classes):
    """(seeds, labels) of the images to draw: two int64 arrays of one length.

    By name or number every class is drawn from every seed, class by class. "uniform" draws one
    class a seed, from that seed, so that image N is the same however many are drawn.
    """
    named = [] if args.labels == "uniform" else _named_labels(args.labels, classes)
    per_label = -(-args.num_samples // max(1, len(named)))
    seeds = _seeds(args.seeds_text) or range(args.seed, args.seed + per_label)
    for flag, values in ((f"--seeds {args.seeds_text}", seeds), (f"--labels {args.labels}", named)):
        if len(set(values)) < len(values):
            raise UserError(f"{flag}: names one twice; give each once")
    if max(seeds) >= 2**32:
        raise UserError(
            f"--seed or --seeds: {max(seeds)} is too large, numpy takes seeds below {2**32}"
        )
    seeds = np.asarray(seeds, np.int64)
    if named:
        most = None if args.seeds_text else args.num_samples
        return np.tile(seeds, len(named))[:most], np.repeat(
            np.asarray(named, np.int64), len(seeds)
        )[:most]
    return seeds, np.array(
        [process.rng(int(s), "label").integers(classes.number) for s in seeds], np.int64
    )


def _seeds(text):
    """The seeds in "0-15,100"."""
    try:
        return ranges(text) if text else []
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--seeds {error}") from None


def _named_labels(text, classes):
    unknown = [name for name in text.split(",") if name not in classes.names]
    if not unknown:
        return [classes.names.index(name) for name in text.split(",")]
    try:
        labels = ranges(text)
    except argparse.ArgumentTypeError:
        raise UserError(
            f"--labels {text}: no class '{unknown[0]}'. Give uniform, numbers such as 0-9, or "
            "names out of "
            f"{', '.join(classes.names[:10]) or '(the file names no classes)'}"
        ) from None
    if max(labels) >= classes.number:
        raise UserError(f"--labels {text}: this generator knows classes 0 to {classes.number - 1}")
    return labels


def architecture_of(found, args):
    """The architecture that the file tells; of a published generator the number of classes may be
    given.
    """
    from model import Architecture

    arch = Architecture.from_dict(found["architecture"])
    if args.nz not in (None, arch.nz):
        raise UserError(
            f"--nz {args.nz}: this generator takes z of {arch.nz} numbers; leave the flag out"
        )
    if args.num_classes in (None, arch.num_classes):
        return arch
    if "classes" in found or "discriminator" in found:
        raise UserError(
            f"--num_classes {args.num_classes}: this generator knows {arch.num_classes} classes; "
            "leave the flag out"
        )
    return dataclasses.replace(arch, num_classes=args.num_classes)


def load_generator(found, args, source):
    """(G in eval mode with the BatchNorm statistics that --bn_stats names, "ema" or "raw")."""
    import paddle

    from model import Generator
    from shared_metrics import weights

    if "generator" not in found:
        raise UserError(f"{source}: holds a discriminator; give the file of the generator")
    average = found.get("generator_ema") if args.use_ema else None
    generator = Generator(architecture_of(found, args))
    weights.load_into(generator, average or found["generator"], "generator", source)
    generator.eval()
    if args.bn_stats == "batch":
        for layer in generator.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                layer.train()
    return generator, "ema" if average else "raw"


def draw(generator, noise, labels):
    """uint8 images (N, S, S, 3) of noise (N, nz) and labels (N,)."""
    import paddle

    from model import with_labels

    with paddle.no_grad():
        z = paddle.to_tensor(with_labels(noise, labels, generator.arch.num_classes))
        return to_uint8(generator(z).numpy())


def draw_all(generator, seeds, labels, args, bar):
    """Draw in batches, write each image as images/seed00012_class003.png, and yield (labels,
    images) on.
    """
    folder = Path(args.output_dir) / "images"
    with ThreadPoolExecutor(args.num_workers) as pool:
        for i in range(0, len(seeds), args.batch_size):
            s, y = seeds[i : i + args.batch_size], labels[i : i + args.batch_size]
            images = draw(generator, latents(s, generator.arch.nz), y)
            names = [
                folder / f"seed{seed:05d}_class{label:03d}.png"
                for seed, label in zip(s, y, strict=True)
            ]
            list(pool.map(save_png, images, names))
            bar.update(len(images))
            yield y, images


def main(argv=None):
    """Draw, save, score, record."""
    args = parse_args(argv)
    print(process.configure_cpu())  # before Paddle is imported
    process.choose_device(args.device)
    from convert import read_weights
    from evaluation import Evaluation, open_real, show_latents, show_nearest, show_samples
    from shared_metrics import files

    folder = Path(args.output_dir)
    class_folder = Path(args.class_result_path or folder / "class_results")
    source = find_weights(args)
    found = read_weights(source)
    generator, kind = load_generator(found, args, source)
    data, classes = open_real(args, generator.arch, found)
    old = written(folder, class_folder, classes)
    if old and not args.overwrite:
        raise UserError(
            f"--output_dir {folder}: this would replace {len(old)} files, such as {old[0]}. Name "
            "another, or give "
            "--overwrite"
        )
    seeds, labels = choose_labels(args, classes)
    evaluation = Evaluation(args, generator.arch, data, classes, labels)

    for path in old:
        path.unlink()
    for place in (folder / "images", class_folder):
        place.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(seeds), unit="images", disable=None) as bar:
        scores = evaluation.run(draw_all(generator, seeds, labels, args, bar))
    gallery = evaluation.gallery
    show_samples(gallery, classes, folder, class_folder)
    noise = latents((seeds[0] + np.arange(10)) % 2**32, generator.arch.nz)
    show_latents(lambda z, y: draw(generator, z, y), noise, gallery, classes, folder)
    if data is not None:
        scores["nearest_real"] = show_nearest(gallery, data, classes, folder / "nearest.png")

    checkpoint = {
        "file": source.name,
        "sha256": files.file_sha256(source),
        "iteration": found.get("iteration"),
        "epoch": found.get("source", {}).get("epoch", args.which_epoch),
        "weights": kind,
        "bn_stats": args.bn_stats,
    }
    samples = {
        "seed": args.seeds_text or f"{seeds[0]}-{seeds[-1]}",
        "latents": "np.random.RandomState(seed).randn(nz), the class's one-hot over its first "
        "entries",
        "labels": args.labels,
        "classes_drawn": int(len(np.unique(labels))),
    }
    write_record(
        folder / "results.json", make_record(args, found, scores, checkpoint, samples, classes)
    )
    for line in report(scores):
        print(line)
    print(
        f"{len(seeds)} images in {folder / 'images'}, {folder / 'grid.png'}, "
        f"{folder / 'results.json'}"
    )


def written(folder, class_folder, classes):
    """The files of an earlier run that stand where this one writes."""
    files = [*sorted((folder / "images").glob("seed*_class*.png")), folder / "results.json"]
    files += [folder / f"{name}.png" for name in PICTURES]
    files += [class_folder / f"{classes.name(label)}.png" for label in range(classes.number)]
    return [path for path in files if path.exists()]


def report(result):
    """Lines that show the scores, class by class where there are some."""
    random_inception = result["inception"] and not result["comparable"]
    for name, value in result["scores"].items():
        paper = name.startswith(("class", "msssim"))
        note = "   (random Inception: not comparable)" if random_inception and not paper else ""
        yield f"{name} = {value:.6g}{note}"
    for name, values in result["per_class"].items():
        yield f"  {name}: " + ", ".join(f"{score} {value:.4g}" for score, value in values.items())
    for note in result.get("notes", ()):
        yield f"note: {note}"


def make_record(args, found, scores, checkpoint, samples, classes):
    """The result record (`shared_metrics.results`): every number with what it takes to get it
    again.

    The paper's numbers stand beside it; `departures` tells where the training was not the recipe's.
    """
    trained = found.get("args", {})
    recipe = trained.get("recipe")
    return scores | {
        "paper": "acgan",
        "name": args.name or trained.get("name", ""),
        "dataset": "/".join(Path(trained["data_path"]).parts[-2:])
        if trained.get("data_path")
        else "unknown",
        "recipe": recipe,
        "departures": {
            k: trained[k]
            for k, v in RECIPES.get(recipe, {}).items()
            if k in trained and trained[k] != v
        },
        "checkpoint": checkpoint | {"source": found.get("source", {})},
        "samples": scores["samples"] | samples,
        "classes": classes.names,
        "class_indices": classes.indices,
        "published": [
            {"score": score, "value": value, "source": f"Odena et al., ICML 2017; {how}"}
            for score, value, how in PUBLISHED.get(recipe, [])
        ],
        "environment": process.environment(),
        "command": "python test.py " + shlex.join(args.command),
    }


if __name__ == "__main__":
    process.command(main)()
