"""Draw images from a trained SAGAN and score them.   cd sagan && python test.py --pretrained_model
PATH --seeds 0-15
"""

import argparse
import dataclasses
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset import ClassFolder, center_crops
from recipes import PUBLISHED, RECIPES
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import not_negative, positive, ranges, ranges_or_none
from shared_metrics.images import grid, list_images, save_png, to_uint8
from shared_metrics.protocols import PROTOCOLS
from shared_metrics.results import write_record


def parse_args(argv=None):
    """The flags as a namespace."""
    p = argparse.ArgumentParser(
        description=__doc__,
        usage="python test.py --pretrained_model PATH [flags; --help lists them]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add(
        "--pretrained_model",
        required=True,
        help="a checkpoint, bare generator weights or any file convert.py knows",
    )
    add(
        "--output_dir",
        "--test_path",
        default="./test_result",
        help="where images/, grid.png and results.json go",
    )
    add("--overwrite", action="store_true", help="replace the images that --output_dir holds")
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add("--disable_cuda", action="store_true", help="the same as --device cpu")
    add("--batch_size", "--batch_size_test", type=positive, default=64, help="images at a time")
    add("--num_workers", type=positive, default=4, help="threads that write PNGs")
    add("--name", default="", help="the run's name in the record (default: that of the training)")
    add(
        "--state_dict_or_model",
        default="state_dict",
        choices=["state_dict", "model"],
        help="what the file holds",
    )

    add = p.add_argument_group("what to draw").add_argument
    add(
        "--num_samples",
        type=positive,
        help="images to draw, from seeds --seed, --seed + 1, ... (default: 50000)",
    )
    add("--seed", "--manual_seed", type=not_negative, default=0, help="the first of these seeds")
    add(
        "--seeds",
        default="",
        dest="seeds_text",
        metavar="SEEDS",
        help="these seeds instead, e.g. 0-15,100",
    )
    add(
        "--labels",
        default="",
        help="uniform, data, or classes by name or number, e.g. cat,dog or 0-9: each is drawn "
        "from every seed",
    )
    add(
        "--test_data_path",
        default="",
        help="class folders: draw labels as often as they occur there; names the classes",
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
        choices=["running", "standing", "batch"],
        help="BatchNorm statistics: of training, averaged anew over --standing_batches, or of "
        "each batch drawn",
    )
    add("--standing_batches", type=positive, default=16, help="batches for --bn_stats standing")

    add = p.add_argument_group("scores").add_argument
    add("--metrics", default="none", help="fid,is,kid,pr or none; fid, kid and pr need --real")
    add("--real", default="", help="image folder or statistics file of the real images")
    add(
        "--inception_weights",
        default="auto",
        help="auto (download), random (not comparable) or a file",
    )
    add("--protocol", default="tf", choices=list(PROTOCOLS), help="how the scores are computed")

    add = p.add_argument_group(
        "for bare weights, which do not tell their architecture"
    ).add_argument
    add(
        "--recipe",
        default="sagan128",
        choices=list(RECIPES),
        help="the recipe they were trained by",
    )
    add("--imsize", type=positive, default=None, help="side of the images, if not the recipe's")
    add(
        "--z_dim",
        type=positive,
        default=None,
        help="length of the latent vector, if not the recipe's",
    )
    add("--g_conv_dim", type=positive, default=None, help="base width of G, if not the recipe's")
    add(
        "--g_attention",
        type=ranges_or_none,
        default=None,
        help="resolutions with attention, if not the recipe's",
    )
    add(
        "--num_classes",
        type=not_negative,
        default=0,
        help="expected number of classes; 0 takes what the file holds",
    )
    args = p.parse_args(argv)
    args.command = sys.argv[1:] if argv is None else list(argv)
    if args.state_dict_or_model == "model":
        raise UserError(
            "--state_dict_or_model model: Paddle cannot save whole models; give a file of weights"
        )
    if args.seeds_text and args.num_samples:
        raise UserError("--num_samples: --seeds names the images already; leave one of the two out")
    args.num_samples = args.num_samples or 50_000
    return args


def latents(seeds, z_dim):
    """z (N, z_dim) float32, one standard normal row a seed:
    `np.random.RandomState(seed).randn(z_dim)`.
    """
    return np.stack([np.random.RandomState(s).randn(z_dim) for s in seeds]).astype(np.float32)


def choose_labels(args, num_classes, classes):
    """(seeds, labels, how) of the images to draw: two int64 arrays of one length, and the way
    labels were chosen.

    By name or number every label is drawn with every seed, label by label. "uniform" and "data"
    draw one label a seed, from that seed, so that image N is the same however many are drawn.
    """
    how = args.labels or ("data" if args.test_data_path else "uniform")
    named = [] if how in ("uniform", "data") else _named_labels(how, num_classes, classes)
    per_label = -(-args.num_samples // max(1, len(named)))
    seeds = np.asarray(_seeds(args.seeds_text) or range(args.seed, args.seed + per_label), np.int64)
    if named:
        most = None if args.seeds_text else args.num_samples
        return (
            np.tile(seeds, len(named))[:most],
            np.repeat(np.asarray(named, np.int64), len(seeds))[:most],
            how,
        )
    weights = np.ones(num_classes)
    if how == "data":
        weights = np.asarray(_class_counts(args, num_classes), np.float64)
    edges = np.cumsum(weights / weights.sum())
    draws = np.array([process.rng(int(s), "label").random() for s in seeds])
    return seeds, np.minimum(np.searchsorted(edges, draws, side="right"), num_classes - 1), how


def _seeds(text):
    """The seeds in "0-15,100"; numpy takes those below 2**32."""
    try:
        seeds = ranges(text) if text else []
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--seeds {error}") from None
    if seeds and max(seeds) >= 2**32:
        raise UserError(f"--seeds {text}: a seed must be below {2**32}")
    return seeds


def _named_labels(text, num_classes, classes):
    unknown = [name for name in text.split(",") if name not in classes]
    if not unknown:
        return [classes.index(name) for name in text.split(",")]
    try:
        labels = ranges(text)
    except argparse.ArgumentTypeError:
        raise UserError(
            f"--labels {text}: no class '{unknown[0]}'. Give uniform, data, numbers such as 0-9, "
            "or names out of "
            f"{', '.join(classes[:10]) or '(the file names no classes)'}"
        ) from None
    if max(labels) >= num_classes:
        raise UserError(f"--labels {text}: this generator knows classes 0 to {num_classes - 1}")
    return labels


def _class_counts(args, num_classes):
    if not args.test_data_path:
        raise UserError("--labels data: needs --test_data_path with the class folders to count")
    counts = ClassFolder(args.test_data_path, imsize=1, flag="--test_data_path").counts
    if len(counts) != num_classes:
        raise UserError(
            f"--test_data_path {args.test_data_path}: holds {len(counts)} classes, the generator "
            f"knows {num_classes}"
        )
    return counts


def set_bn_stats(generator, mode, arch, batches, batch_size):
    """Set G to eval mode with the BatchNorm statistics of `mode`.

    running: those kept in training. batch: each batch's own. standing: the plain mean over
        `batches` fresh batches of
    random latents and uniform labels (Brock et al., ICLR 2019, appendix E). Spectral norm's u and v
    never move.
    """
    import paddle

    generator.eval()
    norms = [layer for layer in generator.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    if mode == "running":
        return
    for layer in norms:
        layer.train()
    if mode == "batch":
        return
    rng = process.rng(0, "standing")
    with paddle.no_grad():
        for k in range(batches):
            for layer in norms:
                layer._momentum = k / (
                    k + 1
                )  # the share that Paddle's BatchNorm keeps: a running mean
            z = rng.standard_normal((batch_size, arch.z_dim), dtype=np.float32)
            generator(
                paddle.to_tensor(z),
                paddle.to_tensor(rng.integers(arch.num_classes, size=batch_size)),
            )
    generator.eval()


def draw(generator, seeds, labels, batch_size):
    """Yield (seeds, labels, images uint8 (n, H, W, 3)) batch by batch."""
    import paddle

    with paddle.no_grad():
        for i in range(0, len(seeds), batch_size):
            part = slice(i, i + batch_size)
            z = paddle.to_tensor(latents(seeds[part], generator.arch.z_dim))
            yield (
                seeds[part],
                labels[part],
                to_uint8(generator(z, paddle.to_tensor(labels[part])).numpy()),
            )


def save_images(batches, folder, workers, bar):
    """Write each image as `seed00012_class003.png`, several at a time; yields the batches of images
    on.
    """
    with ThreadPoolExecutor(workers) as pool:
        for seeds, labels, images in batches:
            names = [
                folder / f"seed{s:05d}_class{y:03d}.png" for s, y in zip(seeds, labels, strict=True)
            ]
            list(pool.map(save_png, images, names))
            bar.update(len(images))
            yield images


def main(argv=None):
    """Draw, save, score, record."""
    args = parse_args(argv)
    print(process.configure_cpu())  # before Paddle is imported
    process.choose_device("cpu" if args.disable_cuda else args.device)
    from convert import read_weights
    from model import Generator
    from shared_metrics import files, weights

    folder = Path(args.output_dir)
    check_folder(folder, args.overwrite)
    found = read_weights(args.pretrained_model, ema=None if args.use_ema else False)
    arch = architecture_of(found, args)
    average = found.get("generator_ema") if args.use_ema else None
    generator = Generator(
        dataclasses.replace(arch, init="xavier")
    )  # its first weights are not kept: take the quick way
    weights.load_into(generator, average or found["generator"], "generator", args.pretrained_model)
    classes = found.get("classes") or class_names(args)
    seeds, labels, how = choose_labels(args, arch.num_classes, classes)
    score = make_scorer(args, arch, len(seeds))
    set_bn_stats(generator, args.bn_stats, arch, args.standing_batches, args.batch_size)

    empty_folder(folder)
    draw_grid(generator, args, seeds, labels, classes, folder / "grid.png")
    with tqdm(total=len(seeds), unit="images", disable=None) as bar:
        drawn = draw(generator, seeds, labels, args.batch_size)
        scores = score(save_images(drawn, folder / "images", args.num_workers, bar))
    source = found.get("source", {})
    checkpoint = {
        "file": Path(args.pretrained_model).name,
        "sha256": files.file_sha256(args.pretrained_model),
        "iteration": found.get("iteration", source.get("iteration")),
        "weights": "ema" if average or source.get("ema") else "raw",
        "bn_stats": args.bn_stats,
    }
    samples = {
        "seed": args.seeds_text or f"{seeds[0]}-{seeds[-1]}",
        "latents": "np.random.RandomState(seed).randn(z_dim)",
        "labels": how,
        "classes_drawn": int(len(np.unique(labels))),
    }
    write_record(folder / "results.json", make_record(args, found, scores, checkpoint, samples))
    for name, value in scores["scores"].items():
        print(
            f"{name} = {value:.6g}"
            + ("" if scores["comparable"] else "   (random Inception: not comparable)")
        )
    for note in scores.get("notes", ()):
        print(f"note: {note}")
    print(
        f"{len(seeds)} images in {folder / 'images'}, {folder / 'grid.png'}, "
        f"{folder / 'results.json'}"
    )


def check_folder(folder, overwrite):
    """Raise UserError when the output folder holds what this would replace and --overwrite is not
    given.
    """
    old = len(list((folder / "images").glob("seed*_class*.png")))
    found = (
        f"{old} images"
        if old
        else next((n for n in ("results.json", "grid.png") if (folder / n).exists()), "")
    )
    if found and not overwrite:
        raise UserError(
            f"--output_dir {folder}: holds {found} already. Name another, or give --overwrite"
        )


def empty_folder(folder):
    """Make the output folder, and take away what an earlier run of test.py wrote there."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for old in [
        *(folder / "images").glob("seed*_class*.png"),
        folder / "grid.png",
        folder / "results.json",
    ]:
        old.unlink(missing_ok=True)


def architecture_of(found, args):
    """The architecture that the file names; for bare weights the recipe's with the flags given and
    G's classes.
    """
    from model import Architecture, architecture

    if "architecture" in found:
        arch = Architecture.from_dict(found["architecture"])
        if args.num_classes not in (0, arch.num_classes):
            raise UserError(
                f"--num_classes {args.num_classes}: {args.pretrained_model} knows "
                f"{arch.num_classes} classes"
            )
        return arch
    names = ("z_dim", "g_conv_dim", "g_attention")
    recipe = RECIPES[args.recipe]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    changes = {name: recipe[name] for name in names if name in recipe} | given
    tables = [
        v for k, v in found["generator"].items() if k.startswith("block1.cond_bn1.") and v.ndim == 2
    ]
    if not tables:
        raise UserError(
            f"--pretrained_model {args.pretrained_model}: no class table block1.cond_bn1.*; not "
            "SAGAN weights"
        )
    return architecture(recipe["form"], args.imsize or recipe["imsize"], len(tables[0]), **changes)


def class_names(args):
    """The class names of --test_data_path, or none."""
    return (
        ClassFolder(args.test_data_path, 1, flag="--test_data_path").classes
        if args.test_data_path
        else []
    )


def draw_grid(generator, args, seeds, labels, classes, path):
    """grid.png: a row a class (ten at most, evenly spread), a column a seed (the first ten)."""
    present = np.unique(labels)
    rows = present[np.linspace(0, len(present) - 1, min(len(present), 10)).astype(int)]
    columns = np.unique(seeds)[:10]
    cells = draw(
        generator, np.tile(columns, len(rows)), np.repeat(rows, len(columns)), args.batch_size
    )
    names = [classes[y] if classes else str(y) for y in rows]
    save_png(grid(np.concatenate([c[2] for c in cells]), len(columns), row_labels=names), path)


def make_scorer(args, arch, number):
    """Function that takes the batches of images, `number` of them in all, and returns the record's
    part on scores.

    Inception and the real images are read here, before anything is drawn. Real images of a folder
    are cropped and resized to the generator's size as in training; see
    `shared_metrics.scoring.evaluate` for the scores.
    """
    metrics = [name for name in args.metrics.split(",") if name not in ("", "none")]
    if not metrics and args.real:
        raise UserError(
            f"--real {args.real}: nothing is scored without --metrics; give e.g. --metrics fid,is"
        )
    if not metrics:
        return count_only
    from shared_metrics.scoring import (
        KEEP,
        Extractor,
        check_metrics,
        evaluate,
        read_real,
        statistics_of,
    )

    extractor = Extractor(args.inception_weights, args.protocol)
    real, keep = None, KEEP if {"kid", "pr"} & set(metrics) else 0
    if Path(args.real).is_dir() and args.real:
        files = list_images(args.real)
        if not files:
            raise UserError(f"--real {args.real}: no images in this folder or below it")
        pictures = center_crops(files, arch.imsize)
        real = statistics_of(pictures, extractor, keep, num_images=len(files), progress=True)
        real.source = args.real
    elif args.real:
        real = read_real(args.real, extractor, keep)
    check_metrics(metrics, extractor, real)
    return lambda images: evaluate(images, extractor, metrics, real, num_images=number)


def count_only(images):
    """The scores part of the record without scores."""
    start, number = time.perf_counter(), sum(len(batch) for batch in images)
    seconds = time.perf_counter() - start
    speed = {"seconds": round(seconds, 2), "images_per_second": round(number / seconds, 2)}
    return {
        "scores": {},
        "comparable": False,
        "inception": None,
        "real": None,
        "samples": {"number": number},
        **speed,
    }


def make_record(args, found, scores, checkpoint, samples):
    """The result record (`shared_metrics.results`): every number with what it takes to get it
    again.

    The recipe's published numbers stand beside it; `departures` tells where the training was not
    the published one.
    """
    trained = found.get("args", {})
    recipe = trained.get("recipe") or (None if "source" in found else args.recipe)
    departures = {
        k: trained[k]
        for k, v in RECIPES.get(recipe, {}).items()
        if k in trained and trained[k] != v
    }
    published = [
        {"score": name, "value": value, "source": f"{where}; {how}"}
        for where, inception_score, fid, how in PUBLISHED.get(recipe, [])
        for name, value in (("is", inception_score), ("fid", fid))
    ]
    return scores | {
        "paper": "sagan",
        "name": args.name or trained.get("name", ""),
        "dataset": "/".join(Path(trained["data_path"]).parts[-2:])
        if trained.get("data_path")
        else "unknown",
        "recipe": recipe,
        "departures": departures,
        "checkpoint": checkpoint,
        "samples": scores["samples"] | samples,
        "classes": found.get("classes", []),
        "published": published,
        "environment": process.environment(),
        "command": "python test.py " + shlex.join(args.command),
    }


if __name__ == "__main__":
    process.command(main)()
