"""Draw images from a trained AC-GAN and score them.

cd acgan && python test.py --check_path PATH --which_epoch 499
"""

import dataclasses
import re
from functools import partial
from pathlib import Path

import numpy as np

from recipes import PUBLISHED, RECIPES
from shared_metrics import films, process, testing
from shared_metrics.class_folders import any_folders_flag
from shared_metrics.errors import UserError
from shared_metrics.flags import CHANNELS, CLASSES, IMAGES, new_parser, not_negative, original_words
from shared_metrics.image_sets import open_source

OWN = re.compile(r"iter_(\d{7,})\.pdparams")
PEERS = re.compile(r"(?:G_(\d+)\.pdparams|netG_epoch_(\d+)\.pth)")
ORIGINAL = {
    "--result_path": "--output_dir",
    "--batchSize": "--batch_size",
    "--dataroot": "--real",
}
# What flags need to count: see shared_metrics.needs.
NEEDS = {"check_path": "pretrained_model no", "pairs": "metrics msssim", "classes": "real"}
SCORED = 50_000  # images drawn where they are scored and no number is given
PICTURES = ("class_swap.png", "interpolation.png", "nearest.png")


# fmt: off
def parser():
    """The flags of test.py."""
    p = new_parser(__doc__, "python test.py --check_path PATH [flags; --help lists them]")
    testing.weight_flags(p)
    p.add_argument("--check_path", default="./checkpoints",
                   help="instead: folder of checkpoints, train.py's, Callifrey's or clvrai's")
    p.add_argument("--which_epoch", type=not_negative,
                   help="of these the one after this epoch, counted from 0 (default: the newest)")
    testing.drawing_flags(p, batch_size=100)
    testing.record_flags(
        p, num_samples=f"{SCORED} to score, else one batch", metrics="acc,msssim,",
        real="class folders of real images, of which the generator's are taken, or statistics",
        output_dir="./results",
    )
    add = p.add_argument_group("classes").add_argument
    testing.label_flag(add)
    films.film_flag(add)
    add("--class_result_path", default="",
        help="for a picture a class (default: OUTPUT_DIR/class_results)")
    add = p.add_argument_group("the paper's scores").add_argument
    testing.accuracy_flags(add)
    add("--pairs", type=IMAGES, default=100, help="random pairs a class for msssim")

    add = p.add_argument_group("for published weights, which tell less").add_argument
    add("--nz", type=CHANNELS, help="expected length of z (default: what the file holds)")
    add("--num_classes", type=CLASSES, help="(default: what the file holds, or 10 as published)")
    any_folders_flag(add)
    add("--classes", default="auto", help="which folders of --real are the classes, as in train.py")
    original_words(p, ORIGINAL)
    return p
# fmt: on


def parse_args(argv=None):
    """The flags as a namespace."""
    args = testing.parse(parser(), argv, NEEDS)
    args.num_samples = args.num_samples or (args.batch_size if args.metrics == "none" else SCORED)
    if args.pretrained_model and args.which_epoch is not None:
        raise UserError(
            "--which_epoch: chooses a file of --check_path; leave it or --pretrained_model out"
        )
    return args


def find_weights(args):
    """The file to draw from: --pretrained_model, or the one in --check_path after epoch
    --which_epoch (the newest).
    """
    if args.pretrained_model:
        return Path(args.pretrained_model)
    folder = Path(args.check_path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"--check_path {folder}: no such folder. Give the folder of checkpoints, or "
            "--pretrained_model"
        )
    own = {}  # files by iterations
    epochs = {}  # and by epochs
    for path in folder.iterdir():
        if match := OWN.fullmatch(path.name):
            own[int(match[1])] = path
        if match := PEERS.fullmatch(path.name):
            epochs[int(match[1] or match[2])] = path
    if not own and not epochs:
        raise UserError(
            f"--check_path {folder}: holds no iter_N.pdparams, G_N.pdparams or netG_epoch_N.pth; "
            "give another folder, or a file by --pretrained_model"
        )
    if own and args.which_epoch is None:
        return own[max(own)]
    epochs = _by_epoch(own) | epochs
    wanted = max(epochs, default=None) if args.which_epoch is None else args.which_epoch
    if wanted not in epochs:
        last = ", ".join(map(str, sorted(epochs)[-10:]))
        there = f"epochs {last}" if last else "no whole epoch"
        raise UserError(
            f"--which_epoch {wanted}: {folder} holds {there}; give one of them, or leave the flag "
            "out"
        )
    return epochs[wanted]


def _by_epoch(own):
    """{epoch: file} of {iterations: checkpoint}, of those that an epoch ended with."""
    from shared_metrics.runs.checkpoint import load_checkpoint
    from shared_metrics.runs.epochs import ends

    ended = ends(load_checkpoint(own[max(own)])) if own else {}
    return {epoch: own[iterations] for epoch, iterations in ended.items() if iterations in own}


def architecture_of(state, args):
    """The architecture that the file tells; of a published generator the number of classes may be
    given.
    """
    from model import Architecture

    arch = Architecture.from_dict(state["architecture"])
    if args.nz not in (None, arch.nz):
        raise UserError(
            f"--nz {args.nz}: this generator takes z of {arch.nz} numbers; leave the flag out"
        )
    if args.num_classes in (None, arch.num_classes):
        return arch
    if "classes" in state or "discriminator" in state:
        raise UserError(
            f"--num_classes {args.num_classes}: this generator knows {arch.num_classes} classes; "
            "leave the flag out"
        )
    return dataclasses.replace(arch, num_classes=args.num_classes)


def load_generator(state, args, path):
    """(G in eval mode with the BatchNorm statistics that --bn_stats names, "ema" or "raw")."""
    from model import Generator
    from shared_metrics import weights

    arrays, kind = testing.generator_weights(state, args.use_ema, path)
    make = partial(Generator, architecture_of(state, args))
    generator = weights.build(make, arrays, "generator", path)
    testing.set_bn_stats(generator, args.bn_stats)
    return generator, kind


def draw(run, noise, labels, path):
    """uint8 images (N, S, S, 3) of noise (N, nz), the class's one-hot over its first entries.

    Args: run, `inference.Runner` of the generator.
    """
    from model import with_labels

    z = with_labels(noise, labels, run.network.arch.num_classes)
    return testing.pixels(run(z), path)


def check_pictures(data):
    """UserError for a real image that cannot be read: now, not when all is drawn."""
    for _ in data.pictures():
        pass


def main(argv=None):
    """Draw, write, score, record."""
    args = parse_args(argv)
    args.pretrained_model = find_weights(args)
    testing.begin(args)
    from convert import read_weights
    from evaluation import (
        METRICS,
        Measures,
        class_files,
        open_real,
        show_latents,
        show_nearest,
        show_samples,
    )
    from model import pixels
    from shared_metrics.inference import Runner

    own, metrics = testing.chosen_metrics(args, METRICS)
    path = args.pretrained_model
    state = read_weights(path)
    generator, kind = load_generator(state, args, path)
    arch = generator.arch
    data, classes = open_real(args, arch, state)
    class_folder = Path(args.class_result_path or f"{args.output_dir}/class_results")
    output = testing.Output(
        args,
        patterns=[testing.NAMED, *PICTURES],
        others=[class_folder / file for file in class_files(classes)],
        folders={"--class_result_path": class_folder},
        data=[args.real],
    )
    counts = data.counts if data is not None and args.labels == "data" else None
    seeds, labels = testing.choose_labels(args, classes.number, classes.names, counts)
    run = Runner(generator, pixels(arch, len(seeds)))
    measures = Measures(args, own, arch, data, classes, labels)
    real = None if data is None else open_source(data.pictures(), len(data), name=args.real)
    scores = testing.open_scores(args, metrics, len(seeds), data=real)
    if data is not None and not metrics:
        check_pictures(data)

    def picture(noise, labels):
        return draw(run, noise, labels, path)

    gallery = testing.Gallery(most=min(100, max(1, 10_000 // classes.number)))
    with output:
        for part in testing.parts(len(seeds), args.batch_size):
            noise = testing.latents(seeds[part], arch.nz)
            images = picture(noise, labels[part])
            output.write(testing.file_names(seeds[part], labels[part]), images)
            scores.update(images)
            measures.update(images, labels[part])
            gallery.update(images, labels[part])

    result = scores.result()  # before what takes time of its own
    of_paper = measures.result()
    record = testing.make_record(args, state, generator, kind, RECIPES, result, of_paper)
    record["samples"] |= testing.about_seeds(args, seeds, labels)
    record["samples"]["latents"] += ", the class's one-hot over its first entries"
    record["checkpoint"]["epoch"] = state.get("source", {}).get("epoch", args.which_epoch)
    record |= {"paper": "acgan", "classes": classes.names, "class_indices": classes.indices}
    rows = PUBLISHED.get(record["recipe"], [])
    record["published"] = testing.published(rows, "Odena et al., ICML 2017")
    folder = output.folder
    show_samples(gallery, classes, folder, class_folder)
    noise = testing.latents((seeds[0] + np.arange(10)) % 2**32, arch.nz)
    show_latents(picture, noise, gallery, classes, folder)
    latents = partial(testing.latents, z_dim=arch.nz)
    films.write_film(args, folder, seeds, latents, picture, np.array(gallery.rows()))
    if data is not None:
        record["nearest_real"] = show_nearest(gallery, data, classes, folder / "nearest.png")
    output.finish(record, own=of_paper["scores"])


if __name__ == "__main__":
    process.command(main)()
