"""All that every test.py does alike before and after a picture is drawn: flags, seeds and labels,
the folder it writes, grids, the record. The loop stays in the paper's own test.py:

    output = testing.Output(args)                      # refuses what another test has left there
    scores = testing.open_scores(args, metrics, len(seeds))   # what can go wrong does so here
    with output:
        for part in testing.parts(len(seeds), args.batch_size):
            images = draw(generator, testing.latents(seeds[part], z_dim), labels[part])
            output.write(testing.file_names(seeds[part], labels[part]), images)
            scores.update(images)
"""

import argparse
import shlex
import shutil
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shared_metrics import films, process
from shared_metrics import needs as tables
from shared_metrics.class_folders import read_classes
from shared_metrics.errors import UserError
from shared_metrics.files import file_name, file_sha256, shown, writing
from shared_metrics.flags import BATCH, IMAGES, THREADS, YES_NO, Number, background_flag, ranges
from shared_metrics.images import grid, save_png, set_background, to_uint8
from shared_metrics.outputs import check_folder, lock_folders
from shared_metrics.protocols import PROTOCOLS
from shared_metrics.results import write_record

SEEDS = 2**32  # numpy takes seeds below
NAMED = "images/seed*_class*.png"  # what `file_names` gives
WRITTEN = ("grid.png", films.NAME, "results.json", "training.jsonl")  # besides
# What the flags of every test need to count, see needs.py.
TEST_NEEDS = {
    "seed": "seeds no",
    "inception_weights": "metrics fid is kid pr",
    "protocol": "metrics fid is kid pr",
    "efficientnet_weights": "metrics fd_eff kd_eff pr_eff acc",
}
SHOWN = 20  # more classes than these are not shown one by one


# ---- flags ----


# fmt: off
def weight_flags(parser, bn_stats=("running", "batch")):
    """Add the flags of the weights to draw from, and of the device."""
    add = parser.add_argument_group("weights").add_argument
    add("--pretrained_model", default="", help="a checkpoint or any file convert.py knows")
    add("--use_ema", action=YES_NO, default=True, help="the averaged G where the file has one")
    add("--no_ema", dest="use_ema", action="store_false", default=argparse.SUPPRESS,
        help="the raw G")
    add("--bn_stats", default="running", choices=bn_stats,
        help="BatchNorm statistics: those of training, or of each batch drawn")
    add("--device", default="auto", help="auto, cpu, gpu or gpu:N")


def drawing_flags(parser, batch_size):
    """Add the flags of drawing, whatever is drawn."""
    add = parser.add_argument_group("drawing").add_argument
    add("--batch_size", type=BATCH, default=batch_size, help="images at a time")
    background_flag(add)
    add("--num_workers", type=THREADS, default=4, help="threads that write pictures")
    add("--seed", type=Number(int, 0, SEEDS), default=0,
        help="of the first image's latent; image i has --seed + i")
    add("--overwrite", action="store_true", help="replace what an earlier test has left")


def record_flags(parser, num_samples, metrics, real, output_dir="./test_result"):
    """Add the flags of what is drawn, scored and recorded.

    Args: what --help tells of the number of images without --num_samples, of the paper's own
        metrics ("acc,") and of --real.
    """
    add = parser.add_argument_group("what to draw, and where it goes").add_argument
    add("--num_samples", type=IMAGES, help=f"how many images (default: {num_samples})")
    add("--seeds", default="", help="these seeds instead, one an image, e.g. 0-15,100")
    add("--output_dir", default=output_dir, help="for images/, grid.png, results.json")
    add("--name", default="", help="the run's name in the record (default: the training's)")
    add = parser.add_argument_group("scores").add_argument
    add("--metrics", default="none",
        help=f"{metrics}fid,is,kid,pr over Inception; fd_eff,kd_eff,pr_eff over "
             "EfficientNet-Lite0; or none; all but is need real images")
    add("--real", default="", help=real)
    add("--inception_weights", default="auto",
        help="auto (download), random (not comparable) or a file")
    add("--efficientnet_weights", default="auto", help="auto (the pip package's) or a file")
    add("--protocol", default="tf", choices=list(PROTOCOLS), help="how the scores are computed")


def accuracy_flags(add):
    """Add the flags of acc, see `judges.accuracy`, by a parser's or a group's `add_argument`."""
    add("--classifier", default="",
        help="for acc: a file of `shared_metrics.judges classifier`, ImageNet weights, or "
             "efficientnet, for classes named by ImageNet's wnids")
    add("--classifier_model", default="",
        help="the network of paddle.vision that ImageNet weights are for")
    add("--class_indices", type=ranges,
        help="ImageNet's numbers of the classes, if the file does not tell, e.g. 10-19")
    add("--acc_sizes", type=ranges,
        help="acc also of images brought to these px first (default: 64 and 32, where smaller)")


def label_flag(add):
    """Add the flag of the classes to draw, by a parser's or a group's `add_argument`."""
    add("--labels", default="uniform",
        help="uniform, data (as often as in the real images), all, or classes by name or position, "
             "e.g. cat,dog or 0-9 (10 classes): each is drawn from every seed")
# fmt: on


def parse(parser, argv, needs=None, stands_for=None):
    """The flags as a namespace, with `command`: the words themselves, for the record.

    Args: needs, stands_for: the paper's tables, see shared_metrics.needs.
    Raises: UserError for --seeds and --num_samples together, and for flags that have no effect.
    """
    words = sys.argv[1:] if argv is None else [str(word) for word in argv]
    args = parser.parse_args(words)
    args.command = words
    if args.seeds and args.num_samples:
        raise UserError("--num_samples: --seeds names the images already; leave one of the two out")
    tables.check(args, tables.given(parser, words), TEST_NEEDS | (needs or {}), stands_for)
    return args


def begin(args):
    """Ready the process to draw: CPU threads and device. Call it before Paddle is imported.

    Raises: UserError without --pretrained_model, and for a device that is not there.
    """
    if not args.pretrained_model:
        raise UserError("--pretrained_model is missing: give a checkpoint or a file of weights")
    set_background(args.background)
    print(process.configure_cpu())
    process.choose_device(args.device)


def chosen_metrics(args, own=()):
    """(the paper's own metrics, those of `scoring`) that --metrics names; two lists, in its order.

    Raises: UserError for a word that is neither among `own` nor there.
    """
    from shared_metrics.scoring import METRICS

    names = [name for name in args.metrics.split(",") if name not in ("", "none")]
    for name in names:
        if name not in (*own, *METRICS):
            choice = ", ".join((*own, *METRICS))
            raise UserError(
                f"--metrics {args.metrics}: no metric '{name}'; choose from {choice}, or none"
            )
    return [name for name in names if name in own], [name for name in names if name in METRICS]


def open_scores(args, metrics, number, pictures=None, data=None, known=()):
    """`scoring.Scores` ready to take `number` images.

    Weights and real images are read here, so that a mistake is told before anything is drawn.

    Args:
        args: real (statistics file, array file or folder), inception_weights,
            efficientnet_weights, protocol.
        metrics: of `scoring.METRICS`; none of them to count only.
        pictures: function of a list of files that yields their pictures as the paper reads them, in
            batches of uint8 (n, H, W, 3); for --real being a folder.
        data: `image_sets.Source` of the real images, in place of --real.
        known: names of the generator's classes, which a folder of class folders must hold.
    """
    from shared_metrics import scoring

    against = [name for name in metrics if name in scoring.AGAINST_REAL]
    if args.real and not data and not against:
        raise UserError(
            f"--real {args.real}: is for --metrics {','.join(scoring.AGAINST_REAL)}; name one of "
            "them or leave the flag out"
        )
    if not metrics:
        return scoring.Scores()
    weights = {
        "inception_weights": args.inception_weights,
        "efficientnet_weights": args.efficientnet_weights,
    }
    networks = scoring.open_networks(metrics, protocol=args.protocol, **weights)
    real = data or args.real
    how = {"pictures": pictures, "known": known, "progress": True}
    scores = scoring.open_scores(networks, real, number, **how)
    scores.check_enough(number)
    return scores


# ---- what is drawn ----


def choose_seeds(args, count):
    """The seeds to draw from, int64: those of --seeds, else `count` of them from --seed on.

    Raises: UserError for a seed named twice, which would be one picture counted as two, and for one
        that numpy does not take.
    """
    flag = f"--seed {args.seed}"
    seeds = range(args.seed, args.seed + count)
    if args.seeds:
        flag = f"--seeds {args.seeds}"
        try:
            seeds = _once(flag, ranges(args.seeds))
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--seeds {error}") from None
    if max(seeds) >= SEEDS:
        raise UserError(f"{flag}: seed {max(seeds)} is too large, numpy takes those below {SEEDS}")
    return np.asarray(seeds, np.int64)


def choose_labels(args, number, names=(), counts=None):
    """(seeds, labels) of the images to draw: int64 arrays of one length.

    By name or position, --labels draws every class from every seed, class by class. "uniform" and
    "data" draw one class a seed, from that seed alone, so that image N is the same however many are
    drawn.

    Args: number, names: of the generator's classes; counts, how often each comes, for all but
        uniform draws.
    Raises: UserError for a class that is not there or named twice, and for missing counts.
    """
    if args.labels not in ("uniform", "data"):
        classes = list(range(number))
        if args.labels != "all":
            where = "this generator"
            classes = read_classes(args.labels, names, "--labels", where, number, with_end=True)
        seeds = choose_seeds(args, -(-args.num_samples // len(classes)))
        if len(classes) * len(seeds) >= IMAGES.below:
            raise UserError(
                f"--labels {args.labels}: {len(classes):,} classes of {len(seeds):,} seeds are too "
                "many images; give fewer"
            )
        most = None if args.seeds else args.num_samples
        labels = np.repeat(np.asarray(classes, np.int64), len(seeds))
        return np.tile(seeds, len(classes))[:most], labels[:most]
    if args.labels == "data" and counts is None:
        raise UserError("--labels data: needs the class folders to count; give them, or uniform")
    if counts is not None and len(counts) != number:
        raise UserError(
            f"--labels data: the folder holds {len(counts)} classes, the generator knows {number}"
        )
    seeds = choose_seeds(args, args.num_samples)
    draws = (process.rng(int(seed), "label") for seed in seeds)
    if counts is None:
        return seeds, np.array([draw.integers(number) for draw in draws], np.int64)
    edges = np.cumsum(np.asarray(counts, np.float64) / np.sum(counts))
    labels = np.searchsorted(edges, [draw.random() for draw in draws], side="right")
    return seeds, np.minimum(labels, number - 1)


def _once(flag, values):
    if len(set(values)) < len(values):
        raise UserError(f"{flag}: names one twice; give each once")
    return values


def latents(seeds, z_dim):
    """z (N, z_dim) float32, one standard normal row a seed.

    It is `np.random.RandomState(seed).randn(z_dim)`, so any framework can draw the same.
    """
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return np.stack(rows).astype(np.float32)


def file_names(seeds, labels):
    """seed00012_class003, ...: which latent and class a picture is of."""
    pairs = zip(seeds, labels, strict=True)
    return [f"seed{seed:05d}_class{label:03d}" for seed, label in pairs]


def generator_weights(state, use_ema, path):
    """(arrays of the generator to draw from, "ema" or "raw"), of the dict that convert.py reads.

    Raises: UserError for a file without a generator.
    """
    if "generator" not in state:
        raise UserError(f"{path}: holds a discriminator; give the file of the generator")
    average = state.get("generator_ema") if use_ema else None
    averaged = average or state.get("source", {}).get("ema")  # published files hold one of the two
    return average or state["generator"], "ema" if averaged else "raw"


def set_bn_stats(generator, mode):
    """Set G to eval mode; in mode "batch" its BatchNorms go by the statistics of each batch."""
    import paddle

    generator.eval()
    if mode == "batch":
        for layer in generator.sublayers():
            if isinstance(layer, (paddle.nn.BatchNorm1D, paddle.nn.BatchNorm2D)):
                layer.train()


def pixels(x, path):
    """A generator's output (N, 3, H, W) in [-1, 1] as uint8 (N, H, W, 3).

    Raises: UserError naming the weights' file when it is NaN.
    """
    if np.isnan(x).any():
        raise UserError(
            f"{path}: the network draws NaN; its training went wrong, take an earlier checkpoint"
        )
    return to_uint8(x)


def parts(number, batch_size):
    """Slices of `batch_size` of `number` images, under a progress bar on a terminal."""
    with tqdm(total=number, unit=" images", disable=None) as bar:
        for start in range(0, number, batch_size):
            part = slice(start, min(start + batch_size, number))
            yield part
            bar.update(part.stop - part.start)


# ---- what is written ----


class Output:
    """The folder that a test writes: pictures by several threads, and the record.

    Nothing is touched before the `with` block: a start that fails keeps what is there.

    Args:
        args: output_dir, overwrite, num_workers; pretrained_model, whose training's log.jsonl the
            folder shall hold too, as training.jsonl.
        patterns: which files in the folder a test writes, besides WRITTEN.
        others: paths of further files that this test will write.
        folders: {flag: folder} of those of them that lie elsewhere.
        data: files and folders of the user's, or "", which the pictures must not mix with.
    Raises: UserError where this would replace or mix with such files and --overwrite is not given,
        or mix with the data; where a folder cannot be written, or another test writes there.
    """

    def __init__(self, args, patterns=(NAMED,), others=(), folders=None, data=()):
        self.folder = Path(args.output_dir)
        self.log = Path(args.pretrained_model).parent.parent / "log.jsonl"  # of RUN/checkpoints/
        self.folders = {"--output_dir": self.folder, **(folders or {})}
        for flag, folder in self.folders.items():
            check_folder(folder, flag, reads=data)
        self.workers = args.num_workers
        self.jobs = deque()
        places = {self.folder / "images"} | {self.folder / Path(p).parent for p in patterns}
        for place in places:
            _check_apart(self.folder, place.resolve(), data)
        self.patterns = (*patterns, *WRITTEN)
        self.others = list(others)
        self.overwrite = args.overwrite
        self.locks = ExitStack()
        self._earlier()

    def _earlier(self):
        """What an earlier test has left. Raises: UserError where it is not to be replaced."""
        old = []
        for pattern in self.patterns:
            old += sorted(self.folder.glob(pattern))
        old += [path for path in self.others if path.exists()]
        if old and not self.overwrite:
            first = old[0]
            beside = sum(path.parent == first.parent for path in old)
            what = first.name if first.parent == self.folder else f"{beside} {first.parent.name}"
            raise UserError(
                f"--output_dir {self.folder}: holds {what} already; this would replace "
                f"{len(old)} files, such as {first}. Name another, or give --overwrite"
            )
        return old

    def __enter__(self):
        """Hold the folders until `finish`, and take away what an earlier test has left."""
        self.locks.enter_context(lock_folders(self.folders))
        for path in self._earlier():  # once more: another test may have ended meanwhile
            path.unlink(missing_ok=True)
        self.pool = ThreadPoolExecutor(self.workers)
        return self

    def write(self, names, images, folder="images"):
        """Write uint8 images (n, H, W, 3) as FOLDER/NAME.png while the caller draws on."""
        place = self.folder / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, image in zip(names, images, strict=True):
            while len(self.jobs) > 4 * self.workers:  # no more pictures wait in memory than these
                self.jobs.popleft().result()
            self.jobs.append(self.pool.submit(save_png, image, place / f"{file_name(name)}.png"))

    def __exit__(self, kind, error, trace):
        self.pool.shutdown(cancel_futures=kind is not None)
        if kind is not None:
            self.locks.close()
        else:
            for job in self.jobs:
                job.result()  # raises what went wrong in its thread

    def finish(self, record, own=()):
        """Write and show the record. Args: own, the names of the paper's own scores."""
        if self.log.is_file():
            with writing(self.folder / "training.jsonl") as temporary:
                shutil.copyfile(self.log, temporary)
        write_record(self.folder / "results.json", record)
        self.locks.close()
        for line in report(record, own):
            print(shown(line))
        names = [self.folder / name for name in ("images", "grid.png", "results.json")]
        print(f"{record['samples']['number']} images in {', '.join(map(str, names))}")


def _check_apart(folder, place, data):
    """UserError when the data lie among the pictures at `place`."""
    for own in data:
        own = Path(own).expanduser().resolve() if own else None
        if own and own.is_dir() and own.is_relative_to(place):
            raise UserError(
                f"--output_dir {folder}: the data themselves lie in {own}; name another folder"
            )


def spread(classes):
    """Ten of a list of classes at most, evenly spread."""
    places = np.linspace(0, len(classes) - 1, min(len(classes), 10)).astype(int)
    return [classes[i] for i in places]


class Gallery:
    """The first images of each class, `most` of them, as they come by.

    Args: labels, of all images to come: of the classes that are not to be shown none is kept
        (default: all are).
    """

    def __init__(self, most=10, labels=None):
        self.most = most
        self.shown = None if labels is None else set(spread(np.unique(labels).tolist()))
        self.images = {}  # label: list of uint8 (H, W, 3)

    def update(self, images, labels):
        """Take uint8 images (N, H, W, 3) and their labels (N,)."""
        for image, label in zip(images, labels.tolist(), strict=True):
            if self.shown is not None and label not in self.shown:
                continue
            kept = self.images.setdefault(label, [])
            if len(kept) < self.most:
                kept.append(image.copy())  # a view would keep its whole batch

    def rows(self):
        """The classes to show, ten at most and evenly spread."""
        return spread(sorted(self.images))

    def grid(self, name):
        """A row a class with its first ten images; `name` gives the text beside a label's row."""
        rows = self.rows()
        columns = min(10, max(len(images) for images in self.images.values()))
        blank = np.full_like(self.images[rows[0]][0], 255)
        cells = []
        for label in rows:
            cells += (self.images[label] + [blank] * columns)[:columns]
        return grid(np.stack(cells), columns, row_labels=[name(label) for label in rows])


# ---- what is recorded ----


def make_record(args, state, generator, kind, recipes, result, own=None, recipe=None):
    """The record of a test but for what is the paper's alone: `paper`, `published`, ...

    Args: state, the dict that convert.py reads; generator, the Layer that has drawn; kind, "ema" or
        "raw"; recipes, of the paper; result, of `scoring.Scores`; own, what the paper itself
        measures: its `scores`, `notes` on them, and further entries; recipe, that of weights that
        do not tell it.
    """
    own = own or {"scores": {}}
    trained = state.get("args", {})
    source = state.get("source", {})
    recipe = trained.get("recipe", recipe)
    path = trained.get("data_path") or trained.get("image_dir")
    departures = {}
    for name, value in recipes.get(recipe, {}).items():
        if name in trained and trained[name] != value:
            departures[name] = trained[name]
    record = {
        "name": args.name or trained.get("name", ""),
        "dataset": "/".join(Path(path).parts[-2:]) if path else "unknown",
        "recipe": recipe,
        "departures": departures,
        "parameters": sum(p.size for p in generator.parameters() if not p.stop_gradient),
        "checkpoint": {
            "file": Path(args.pretrained_model).name,
            "sha256": _sha256(args.pretrained_model, source),
            "iteration": state.get("iteration", source.get("iteration")),
            "weights": kind,
            "bn_stats": args.bn_stats,
            "source": source,
        },
        "environment": process.environment(),
        "training_command": _training_command(trained.get("command")),
        "command": "python test.py " + shlex.join(args.command),
    }
    record["scores"] = own["scores"] | result["scores"]
    record["notes"] = [*result.get("notes", ()), *own.get("notes", ())]
    return own | result | record


def _training_command(words):
    """The command line of train.py, None where the file does not tell it."""
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return "python train.py " + shlex.join(words)
    return None


def _sha256(path, source):
    """That of a file of weights, or of all files of a published folder."""
    return file_sha256(path) if Path(path).is_file() else source["sha256"]


def published(rows, where):
    """Published numbers as a record lists them, of rows (score, value, how it was measured)."""
    return [
        {"score": name, "value": value, "source": f"{where}; {how}"} for name, value, how in rows
    ]


def about_seeds(args, seeds, labels=None):
    """What a record tells of the latents and, where there are some, of the classes drawn."""
    about = {
        "seed": args.seeds or f"{seeds[0]}-{seeds[-1]}",
        "latents": "np.random.RandomState(seed).randn(z_dim)",
    }
    if labels is not None:
        about |= {"labels": args.labels, "classes_drawn": len(np.unique(labels))}
    return about


def report(record, own=()):
    """Lines that show a record's scores, class by class where there are some, and its notes."""
    random = record["inception"] and not record["inception"]["comparable"]
    for name, value in record["scores"].items():
        theirs = random and name not in own and not name.endswith("_efficientnet")
        note = "   (random Inception: not comparable)" if theirs else ""
        yield f"{name} = {value:.6g}{note}"
    per_class = record.get("per_class", {})
    for name, scores in per_class.items() if len(per_class) <= SHOWN else ():
        values = [f"{score} {value:.4g}" for score, value in scores.items()]
        yield f"  {name}: {', '.join(values)}"
    for note in record.get("notes", ()):
        yield f"note: {note}"
