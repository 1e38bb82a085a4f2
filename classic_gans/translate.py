"""test.py's way for Pix2Pix and CycleGAN: pictures of one domain, of any size, into the other's.

Files are named as PaddleCV's: fakeB_NAME is drawn of inputA_NAME; inputB_NAME is what was wanted,
where that is known; cycA_NAME is fakeB_NAME mapped back. BtoA swaps the letters.
"""

import argparse
import os
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import translation
from dataset import Pairs, rgb, squares, to_array
from lists import (
    ONE_PATH,
    PAIR,
    check_readable,
    domain_files,
    has_split,
    list_path,
    paired_files,
    read_list,
    refuse,
)
from shared_metrics import testing, weights
from shared_metrics.efficientnet import class_indices
from shared_metrics.errors import UserError
from shared_metrics.files import file_names
from shared_metrics.flags import PX, truth
from shared_metrics.image_sets import open_source
from shared_metrics.images import grid, list_images, read_rgb, save_png, to_uint8
from shared_metrics.inference import Runner

WORDS = {"--n_samples": "--batch_size"}
NEEDS = dict.fromkeys(("dataset_dir", "test_list"), "input no")
PATTERNS = ("images/fake?_*.png", "images/input?_*.png", "images/cyc?_*.png")
STYLES = {"A": "AtoB", "B": "BtoA"}
LEAST = 8  # the smallest side that the residual generators' mirrored edges allow


# fmt: off
def add_flags(parser):
    """Add the flags of drawing from pictures."""
    testing.weight_flags(parser)
    testing.drawing_flags(parser, batch_size=1)
    testing.record_flags(parser, num_samples="all; fewer are spread evenly over them",
                         metrics="", output_dir="./infer_result",
                         real="image folder or statistics file of real pictures (default: those "
                              "that were wanted, or the test set's of that domain)")
    parser.set_defaults(bn_stats=None)
    add = parser.add_argument_group("pictures to translate").add_argument
    add("--input", default="", help="a picture, or a folder of them")
    add("--dataset_dir", default="", help="a data set's folder (default: the training's)")
    add("--test_list", default="",
        help="a list of it: one path a line, or inputA<TAB>inputB where what is wanted is known "
             "(default: its test set)")
    add("--direction", default="", choices=["", "AtoB", "BtoA"],
        help="what is given and what is drawn (default: the training's, else AtoB)")
    add("--input_style", default="", choices=["", *STYLES], help="A: --direction AtoB; B: BtoA")
    add("--image_size", type=PX.or_0,
        help="side to which pictures are resized; 0: each keeps its own, whatever it is (default: "
             "the training's --crop_size)")
    word = add("--crop_size", dest="image_size", type=PX.or_0, default=argparse.SUPPRESS,
               help="the original's word for it")
    word.may_differ = True  # its commands have an --image_size beside it; the last one counts
    switch = {"type": truth, "nargs": "?", "const": True, "metavar": "True|False"}
    add("--eval", dest="bn_stats", action="store_const", const="running",
        help="the same as --bn_stats running (default: as the training showed)")
    add("--dropout", **switch, default=None, help="(default: as the training showed)")
    add("--wnids", default="", metavar="A,B",
        help="ImageNet's ids of the two domains, e.g. n07747607,n07753592: the share of pictures "
             "that EfficientNet-Lite0 reads as the drawn domain's rather than the other's")
    add("--cycle", **switch, default=True, help="CycleGAN: map what is drawn back, too")
# fmt: on


class Inputs:
    """Pictures to translate and, where they are known, those that are wanted.

    Args: rows, [(given,)], [(A, B)] or, with `halves`, [(A|B,)]; direction, of the pairs; size,
        side to which pictures are resized, 0 for none; channels, of the given pictures.
    Raises: UserError naming files that cannot be read, that are no pairs, or share a name.
    """

    def __init__(self, rows, halves, direction, size, channels):
        files = [path for row in rows for path in row]
        self.pairs = None
        if halves or len(rows[0]) == 2:
            self.pairs = Pairs(rows, None, direction, where="the test pictures")
        else:
            check_readable(dict.fromkeys(files), "the pictures", skip_bad=False)
        self.rows = rows
        self.size = size
        self.channels = channels
        self.names = self._names(direction)

    def _names(self, direction):
        """What the results of each row are called: its file's path below all files' folder."""
        paths = [row[-1 if direction == "BtoA" else 0] for row in self.rows]
        folder = os.path.commonpath([path.absolute().parent for path in paths])
        files = {}
        problems = []
        for path in paths:
            name = path.absolute().relative_to(folder).with_suffix("").as_posix().replace("/", "_")
            if name in files:
                problems.append(f"{files[name]} and {path} would be drawn as {name}")
            files[name] = path
        refuse(problems, "the pictures", "Each needs a name of its own, whatever its suffix")
        return file_names(files)

    def __len__(self):
        return len(self.rows)

    def load(self, index):
        """(given, float32 (C, H, W); wanted, uint8 (H, W, 3), or None)."""
        if self.pairs:
            image, wanted = self.pairs.read(index)
            return to_array(self._resized(image), self.channels), np.asarray(self._resized(wanted))
        image = read_rgb(self.rows[index][0], rotate=True)
        return to_array(self._resized(image), self.channels), None

    def _resized(self, image):
        if not self.size:
            return image
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC)

    def wanted(self):
        """The wanted pictures one by one, as scores take them."""
        for index in range(len(self)):
            yield self.load(index)[1][None]


def open_inputs(args, state, direction, size, channels):
    """`Inputs` as the flags say, `--num_samples` of them; the data set's folder, or None."""
    root = None
    halves = False
    if args.input:
        path = Path(args.input).expanduser()
        rows = [(file,) for file in (list_images(path) if path.is_dir() else [path])]
        if not rows:
            raise UserError(f"--input {path}: no pictures in this folder")
    else:
        root = dataset_folder(args, state)
        if args.test_list:
            kinds = ONE_PATH | {2: PAIR[2]}
            rows = read_list(list_path(args.test_list, root), root, kinds)
        elif state["model_net"] == "CycleGAN":
            files = domain_files(root, "test", direction[0], "--dataset_dir")
            rows = [(file,) for file in files]
        else:
            rows, _ = paired_files(root, "test", flag="--dataset_dir")
            halves = len(rows[0]) == 1
    count = min(args.num_samples or len(rows), len(rows))
    rows = [rows[i * len(rows) // count] for i in range(count)]
    return Inputs(rows, halves, direction, size, channels), root


def dataset_folder(args, state):
    """The data set's folder: --dataset_dir, or the one of the training. Raises: UserError."""
    trained = state.get("args", {})
    if args.dataset_dir:
        return Path(args.dataset_dir).expanduser()
    if "dataset" not in trained:
        raise UserError("--input is missing: give a picture or a folder, or --dataset_dir")
    return Path(trained["data_dir"]).expanduser() / trained["dataset"]


def choose_direction(args, state):
    """ "AtoB" or "BtoA". Raises: UserError where the generator was trained the other way."""
    flags = {args.direction, STYLES.get(args.input_style, "")} - {""}
    if len(flags) == 2:
        raise UserError("--direction and --input_style: name two directions; give one of them")
    trained = state.get("direction")
    direction = flags.pop() if flags else trained or "AtoB"
    if trained not in (None, direction):
        raise UserError(f"--direction {direction}: this generator was trained {trained}")
    return direction


def choose_mode(args, state, arch):
    """How norm layers and dropout work: as the training showed, but for the flags."""
    mode = dict(state.get("mode", {"norm": "batch", "dropout": arch.dropout}))
    if args.bn_stats:
        mode["norm"] = args.bn_stats
    if args.dropout is not None:
        mode["dropout"] = args.dropout
    if args.batch_size > 1 and mode["norm"] == "batch" and arch.norm_type == "batch_norm":
        print(
            f"note: --batch_size {args.batch_size}: BatchNorm takes the statistics of the pictures "
            "at hand, so each result depends on its neighbours; with 1 it does not"
        )
    return mode


def choose_size(args, state):
    """Side to which pictures are resized; 0: none. Published weights do not tell it: 256."""
    if args.image_size is not None:
        return args.image_size
    return state.get("args", {}).get("crop_size", 256)


class Translator:
    """The generators of a file, from one domain to the other, over pictures of any size.

    Args: networks, {name: Layer}; mode, see `translation`; seed, of the dropout; cycle, whether to
        map back too; path, of the file.
    Raises: UserError where the generator of that direction is missing.
    """

    def __init__(self, networks, arch, direction, mode, seed, cycle, path):
        self.source = direction[0]
        self.target = direction[-1]
        there = networks.get("generator") or networks.get(f"generator_{self.source}")
        back = networks.get(f"generator_{self.target}") if cycle else None
        if there is None:
            raise UserError(
                f"{path}: holds no generator_{self.source}, which --direction {direction} takes; "
                "give the other direction, or its file"
            )
        self.there = Runner(there)
        self.back = None if back is None else Runner(back)
        swapped = "generator" not in networks and self.source == "B"
        self.channels = arch.output_nc if swapped else arch.input_nc
        self.multiple = arch.multiple
        self.mode = mode
        self.seed = seed
        self.path = path

    def translate(self, x, index):
        """{"inputA": the pictures, "fakeB": what is drawn of them, "cycA": these mapped back}.

        Args: x, pictures (N, C, H, W), an array, the first the index-th of all.
        Returns: uint8 (N, H, W, 3) each.
        """
        y = self.draw(self.there, x, index)
        results = {f"input{self.source}": x, f"fake{self.target}": y}
        if self.back is not None:
            results[f"cyc{self.source}"] = self.draw(self.back, y, index)
        return {kind: rgb(testing.pixels(z, self.path)) for kind, z in results.items()}

    def draw(self, run, x, index):
        """What the `Runner` of a network draws of pictures. Sides that it cannot take are mirrored
        at their ends, and cut again.
        """
        _, _, H, W = x.shape
        edges = ((0, 0), (0, 0), (0, self._missing(H)), (0, self._missing(W)))
        x = np.pad(x, edges, mode="reflect")
        return translation.draw(run, x, self.mode, self.seed, index)[:, :, :H, :W]

    def _missing(self, side):
        return max(-(-side // self.multiple) * self.multiple, LEAST) - side


def load_translator(args, state, room, direction):
    """`Translator` of the generators in a file."""
    arch = room.Architecture.from_dict(state["architecture"])
    mode = choose_mode(args, state, arch)
    networks = {}
    path = args.pretrained_model
    for name, make in room.generators(arch).items():
        if name in state:
            networks[name] = weights.build(make, state[name], name, path)
    return Translator(networks, arch, direction, mode, args.seed, args.cycle, path)


class Distances:
    """Mean absolute differences to the wanted pictures, in [0, 1]: of those drawn, and of the given
    ones, which is what drawing has to improve on.
    """

    def __init__(self):
        self.of_drawn = []
        self.of_inputs = []

    def update(self, drawn, inputs, wanted):
        """Take pictures uint8 (N, H, W, 3)."""
        for distances, images in ((self.of_drawn, drawn), (self.of_inputs, inputs)):
            difference = np.abs(images.astype(np.int16) - wanted)
            distances += (difference.mean((1, 2, 3)) / 255).tolist()

    def result(self):
        """{"l1", "l1_input"}, the means over the pictures; {} without any."""
        if not self.of_drawn:
            return {}
        return {"l1": float(np.mean(self.of_drawn)), "l1_input": float(np.mean(self.of_inputs))}


class Readings:
    """Which of two classes of ImageNet EfficientNet-Lite0 finds the likelier, in the pictures drawn
    and in the given ones.

    Args: wnids, "A,B" of the domains A and B; target, the letter of the one that is drawn; weights,
        see `EfficientNetClassifier`.
    Raises: UserError for other than two of ImageNet's wnids.
    """

    def __init__(self, wnids, target, weights):
        from shared_metrics.judges.classifier import EfficientNetClassifier

        names = wnids.split(",")
        if len(names) != 2:
            raise UserError(f"--wnids {wnids}: give two, of A and of B, joined by a comma")
        self.places = class_indices(names, "--wnids")
        if target == "A":
            self.places = self.places[::-1]
        self.judge = EfficientNetClassifier(weights)
        self.of_drawn = []
        self.of_inputs = []

    def update(self, drawn, inputs):
        """Take pictures uint8 (N, H, W, 3)."""
        for reads, images in ((self.of_drawn, drawn), (self.of_inputs, inputs)):
            network = self.judge.network
            source, target = network.logits(network.features(images))[:, self.places].T
            reads += (target > source).tolist()

    def result(self):
        """{"read_as_target", "read_as_target_input"}: shares of the pictures."""
        shares = (float(np.mean(self.of_drawn)), float(np.mean(self.of_inputs)))
        return dict(zip(("read_as_target", "read_as_target_input"), shares, strict=True))


class Sheet:
    """A row for some of the pictures, evenly spread: given, drawn and what else there is."""

    def __init__(self, number):
        self.shown = translation.some(number)
        self.cells = []
        self.titles = []

    def update(self, numbers, results):
        """Take the pictures of these numbers, {kind: uint8 (N, H, W, 3)}."""
        self.titles = list(results)
        for place, number in enumerate(numbers):
            if number in self.shown:
                self.cells += [images[place] for images in results.values()]

    def grid(self):
        """uint8 (H, W, 3); pictures of other sizes are brought to that of the first."""
        height, width, _ = self.cells[0].shape
        resized = [Image.fromarray(cell).resize((width, height)) for cell in self.cells]
        cells = np.stack([np.asarray(cell) for cell in resized])
        return grid(cells, len(self.titles), column_labels=self.titles)


def groups(inputs, part):
    """The pictures of a part as (numbers, x (n, C, H, W), wanted (n, H, W, 3) or None), each group
    of one size.
    """
    result = []
    for number in range(part.start, part.stop):
        x, wanted = inputs.load(number)
        if not result or result[-1][1][0].shape != x.shape:
            result.append(([], [], []))
        for values, value in zip(result[-1], (number, x, wanted), strict=True):
            values.append(value)
    for numbers, pictures, wanted in result:
        yield numbers, np.stack(pictures), np.stack(wanted) if inputs.pairs else None


def real_pictures(args, inputs, root, letter):
    """`image_sets.Source` to compare with where --real names none: what was wanted, or the test
    set's pictures of the domain; None without these.
    """
    if args.real:
        return None
    if inputs.pairs:
        return open_source(inputs.wanted(), len(inputs), name="the wanted pictures")
    if root is None or not has_split(root, "test"):
        return None
    files = domain_files(root, "test", letter, "--dataset_dir")
    others = Inputs([(file,) for file in files], False, "AtoB", inputs.size, 3)
    pictures = (to_uint8(others.load(i)[0][None]) for i in range(len(others)))
    return open_source(pictures, len(others), name=f"test pictures of {letter} in {root}")


def run(args, state, room):
    """Draw, write, score. Args: state, of convert.read_weights; room, the trainer module.

    Returns: the output folder, the record, the paper's own scores.
    """
    if args.seeds:
        raise UserError("--seeds: pictures are drawn from pictures; leave it out")
    direction = choose_direction(args, state)
    translator = load_translator(args, state, room, direction)
    args.bn_stats = translator.mode["norm"]
    size = choose_size(args, state)
    inputs, root = open_inputs(args, state, direction, size, translator.channels)
    output = testing.Output(args, PATTERNS, data=[args.input, root or ""])
    _, metrics = testing.chosen_metrics(args)
    real = real_pictures(args, inputs, root, translator.target) if metrics else None
    whole = partial(squares, size=size) if size else None
    scores = testing.open_scores(args, metrics, len(inputs), pictures=whole, data=real)
    distances = Distances()
    readings = None
    if args.wnids:
        readings = Readings(args.wnids, translator.target, args.efficientnet_weights)
    panels = Sheet(len(inputs))
    with output:
        for part in testing.parts(len(inputs), args.batch_size):
            for numbers, x, wanted in groups(inputs, part):
                results = translator.translate(x, numbers[0])
                drawn = results[f"fake{translator.target}"]
                if wanted is not None:
                    results[f"input{translator.target}"] = wanted
                    distances.update(drawn, results[f"input{translator.source}"], wanted)
                for kind, images in results.items():
                    names = [f"{kind}_{inputs.names[number]}" for number in numbers]
                    output.write(names, images)
                scores.update(drawn)
                if readings:
                    readings.update(drawn, results[f"input{translator.source}"])
                panels.update(numbers, results)

    own = {"scores": distances.result()}
    if readings:
        own["scores"] |= readings.result()
        own |= {"classifier": readings.judge.info, "wnids": args.wnids.split(",")}
    record = testing.make_record(
        args, state, translator.there.network, "raw", room.RECIPES, scores.result(), own
    )
    record["samples"] |= {"seed": args.seed, "direction": direction, "mode": translator.mode}
    record["samples"]["files"] = f"images/fake{translator.target}_*"
    record["samples"]["data"] = args.input or args.test_list or str(root)
    save_png(panels.grid(), output.folder / "grid.png")
    return output, record, own["scores"]
