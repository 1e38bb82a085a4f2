"""test.py's way for CGAN and DCGAN: pictures from seeds, of chosen classes, and what lies between
two seeds.
"""

from functools import partial

import numpy as np

import drawing
from dataset import middles, rgb
from shared_metrics import films, testing, weights
from shared_metrics.errors import UserError
from shared_metrics.flags import BATCH
from shared_metrics.images import grid, save_png
from shared_metrics.inference import Runner

STEPS = 10  # pictures in a row of interpolation.png
WORDS = {"--n_samples": "--num_samples"}
NEEDS = {"per_class": "num_samples no, seeds no"}


# fmt: off
def add_flags(parser):
    """Add the flags of drawing from noise."""
    testing.weight_flags(parser)
    testing.drawing_flags(parser, batch_size=100)
    testing.record_flags(parser, num_samples="--per_class of each class", metrics="",
                         real="image folder or statistics file of the real pictures",
                         output_dir="./infer_result")
    add = parser.add_argument_group("digits and other classes").add_argument
    add("--labels", default="",
        help="CGAN: which classes, by name or number, e.g. 0-9 for ten (default: all; with "
             "--num_samples at random)")
    add("--per_class", type=BATCH, default=10, help="pictures of each class, a seed each")
    add("--judge", default="",
        help="a file of `python -m shared_metrics.judges digits` (or classifier), to score by")
    films.film_flag(add)
# fmt: on


def choose(args, number, names):
    """(seeds, labels or None) of the pictures to draw. Args: number, names, of G's classes; 0, []
    for a G that is told none.
    """
    if not number:
        if args.labels:
            raise UserError(f"--labels {args.labels}: DCGAN is told no class; leave it out")
        return testing.choose_seeds(args, args.num_samples or 10 * args.per_class), None
    at_random = args.num_samples and not args.labels
    args.labels = args.labels or ("uniform" if at_random else "all")
    if not args.num_samples:
        args.seeds = args.seeds or f"{args.seed}-{args.seed + args.per_class - 1}"
        args.num_samples = 1  # the seeds tell how many
    return testing.choose_labels(args, number, names)


class Painter:
    """A generator with its latents: draws pictures of seeds, or of z."""

    def __init__(self, generator, arch, path):
        self.run = Runner(generator)
        self.size = arch.noise_size
        self.path = path

    def latents(self, seeds):
        """z (N, noise_size), an array."""
        return drawing.latents(seeds, self.size)

    def draw(self, z, labels):
        """Pictures uint8 (N, S, S, 3) of z and labels (N,), arrays; labels None: G is told none."""
        inputs = [z] if labels is None else [z, labels]
        return rgb(testing.pixels(self.run(*inputs), self.path))


def interpolation(painter, seeds, labels, names):
    """A row a class, or one for each pair of neighbouring seeds: pictures of STEPS points on the
    way from one z to the next, uint8 (H, W, 3).
    """
    rows = []
    titles = []
    steps = np.linspace(0.0, 1.0, STEPS, dtype=np.float32)[:, None]
    z = painter.latents(np.unique(seeds)[: drawing.SHOWN + 1])
    if len(z) < 2:
        z = painter.latents([seeds[0], (seeds[0] + 1) % testing.SEEDS])
    classes = [None] * (len(z) - 1) if labels is None else np.unique(labels)[: drawing.SHOWN]
    for i, label in enumerate(classes):
        first = z[i] if label is None else z[0]
        last = z[i + 1] if label is None else z[1]
        points = (1 - steps) * first + steps * last
        rows.append(painter.draw(points, None if label is None else np.full(STEPS, label)))
        titles.append("" if label is None else names[label])
    return grid(np.concatenate(rows), STEPS, row_labels=titles)


def run(args, state, room):
    """Draw, write, score. Args: state, of convert.read_weights; room, the trainer module.

    Returns: the output folder, the record, the paper's own scores.
    """
    arch = room.Architecture.from_dict(state["architecture"])
    path = args.pretrained_model
    arrays, kind = testing.generator_weights(state, args.use_ema, path)
    make = room.generators(arch)["generator"]
    generator = weights.build(make, arrays, "generator", path)
    testing.set_bn_stats(generator, args.bn_stats)
    number = getattr(arch, "n_classes", 0)
    names = state.get("classes", [str(i) for i in range(number)])[: number or None]
    seeds, labels = choose(args, number, names)
    _, metrics = testing.chosen_metrics(args)
    output = testing.Output(
        args, patterns=["images/seed*.png", "interpolation.png"], data=[args.real]
    )
    quality = drawing.Quality(drawing.open_judge(args.judge, names if number else None))
    how = {"pictures": partial(middles, size=arch.image_size), "known": names}
    scores = testing.open_scores(args, metrics, len(seeds), **how)
    painter = Painter(generator, arch, path)
    gallery = testing.Gallery(labels=rows_of(seeds, labels))
    with output:
        for part in testing.parts(len(seeds), args.batch_size):
            classes = None if labels is None else labels[part]
            images = painter.draw(painter.latents(seeds[part]), classes)
            output.write(file_names(seeds[part], classes), images)
            scores.update(images)
            quality.update(images, classes)
            gallery.update(images, rows_of(seeds[part], classes))

    own = {"scores": quality.result()}
    if quality.judge is not None:
        own["judge"] = quality.judge.info
        if labels is not None:
            by_class = quality.accuracies()
            own["per_class"] = {names[y]: {"judge_accuracy": by_class[y]} for y in by_class}
    record = testing.make_record(args, state, generator, kind, room.RECIPES, scores.result(), own)
    record["samples"] |= testing.about_seeds(args, seeds, labels)
    if number:
        record["classes"] = names
    record["samples"]["latents"] = "np.random.RandomState(seed).uniform(-1, 1, noise_size)"
    titles = {label: names[label] if labels is not None else "" for label in gallery.rows()}
    save_png(gallery.grid(titles.get), output.folder / "grid.png")
    between = interpolation(painter, seeds, labels, names)
    save_png(between, output.folder / "interpolation.png")
    cells = None if labels is None else np.array(gallery.rows())
    films.write_film(args, output.folder, seeds, painter.latents, painter.draw, cells)
    return output, record, own["scores"]


def file_names(seeds, labels):
    """seed00012_class003, or seed00012 where there are no classes."""
    if labels is not None:
        return testing.file_names(seeds, labels)
    return [f"seed{seed:05d}" for seed in seeds]


def rows_of(seeds, labels):
    """The row of the grid in which each picture stands: its class, or ten seeds a row."""
    return seeds // 10 if labels is None else labels
