"""test.py's way for StarGAN, AttGAN and STGAN: faces with other attributes.

images/fake_image_ID.png is a sheet of --batch_size faces, of which ID is the first: a row of the
faces as they are, then a row for each attribute changed (StarGAN: and one of it changed back); with
--set one row of what was asked for, each of whose faces is in a file edit_ID.png, too. With a range
in --attr_int, slide_ATTRIBUTE_ID.png has a row a face, from one intensity to the other.
"""

import argparse
import re
from functools import partial
from pathlib import Path

import numpy as np

import attributes
import face_measures
import faces
from editing import Editor
from naming import file_names
from shared_metrics import weights
from shared_metrics.errors import UserError
from shared_metrics.flags import SHEET, signed
from shared_metrics.image_sets import open_source
from shared_metrics.images import grid, save_png, to_uint8
from shared_metrics.inference import Runner

WORDS = {"--n_samples": "--batch_size", "--test_int": "--attr_int"}
NEEDS = dict.fromkeys(("dataset_dir", "test_list"), "input no") | {"attrs": "input"}
PATTERNS = ("images/fake_image_*.png", "images/slide_*.png", "images/edit_*.png")
RANGE = re.compile(r"(-?[\d.]+)\.\.(-?[\d.]+)")
ALIGNED = (
    "faces should stand as in CelebA's aligned pictures (178x218 px, the eyes level, just above "
    "the middle); the middle of each photo was taken"
)


# ---- flags ----


def intensity(text):
    """ "0.5" -> (0.5, 0.5); "-1..1" -> (-1.0, 1.0)."""
    match = RANGE.fullmatch(text)
    try:
        return (signed(match[1]), signed(match[2])) if match else (signed(text), signed(text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or two as in -1..1") from None


def settings(text):
    """ "Male=1,Young=0" -> {"Male": 1, "Young": 0}."""
    values = {}
    for part in text.split(",") if text else ():
        name, _, value = part.strip().partition("=")
        if value not in ("0", "1") or name in values:
            wanted = "expected each attribute once, with 1 (there) or 0 (not): Male=1,Young=0"
            raise argparse.ArgumentTypeError(f"'{text}': {wanted}")
        values[name] = int(value)
    return values


# fmt: off
def add_flags(parser):
    """Add the flags of editing faces, and those that every test has."""
    from shared_metrics import testing

    testing.weight_flags(parser)
    testing.drawing_flags(parser, batch_size=16)
    testing.record_flags(
        parser, num_samples="all; fewer are spread evenly over them", output_dir="./infer_result",
        metrics=f"{','.join(face_measures.METRICS)},",
        real="image folder or statistics file of real faces (default: those that are edited)",
    )
    edit_flags(parser)


def edit_flags(parser):
    """Add those of editing alone."""
    add = parser.add_argument_group("faces to edit").add_argument
    add("--input", default="", help="own photos: a file or a folder; see --attrs")
    add("--attrs", default="",
        help="what the faces of --input have: names joined by commas, none, or a list of CelebA's "
             "form (default: what --attribute_judge sees)")
    add("--dataset_dir", default="", help="a data set's folder (default: the training's)")
    add("--test_list", default="", help="a list of CelebA's form, all of whose faces are edited "
                                        "(default: the test part of the training's)")
    add("--selected_attrs", default="",
        help="the attributes in the order in which G is told them, where the file does not tell")
    add = parser.add_argument_group("what to change").add_argument
    add("--set", type=settings, default="",
        help="what the faces are to have (1) or lack (0), e.g. Male=1,Young=0 (default: each "
             "attribute changed in turn)")
    add("--attr_int", type=intensity, default="1",
        help="how strongly a changed attribute is told; FROM..TO, e.g. -1..1: a slider")
    add("--n_slide", type=SHEET, default=9, help="steps of the slider")
    add("--attribute_judge", default="",
        help="a file of `python -m shared_metrics.judges attributes`: for accuracy and "
             "preservation, and to guess what --input's faces have")
    # argparse would take -1..1 for a flag; it has no public way to say that it is a value.
    parser._negative_number_matcher = re.compile(r"-[\d.]+$")
# fmt: on


# ---- what the file tells ----


def about_of(state, room, selected=""):
    """What editing.Editor has to know, of a checkpoint or, with the room's defaults, of published
    weights. Args: selected, names of the attributes where the file does not tell.

    Raises: UserError without names, and for names that the file contradicts.
    """
    names = state.get("selected_attrs") or state.get("source", {}).get("selected_attrs")
    if names and selected and selected.split(",") != list(names):
        raise UserError(f"--selected_attrs {selected}: the file's are {','.join(names)}; leave it")
    names = list(names or selected.split(","))
    c_dim = state["architecture"]["c_dim"] + state["architecture"].get("c2_dim", 0)
    if len(names) != c_dim:
        raise UserError(
            f"--selected_attrs {','.join(names)}: the file is of {c_dim} attributes and does not "
            "tell their names; give them all, in the order of its training"
        )
    # What a checkpoint keeps goes before the defaults, which are for published weights.
    about = {"first": 0, **room.PUBLISHED}
    for key, sets in (("exclusive", attributes.EXCLUSIVE), ("choices", room.PUBLISHED["choices"])):
        about[key] = attributes.groups(" ".join(",".join(group) for group in sets), names)
    return about | {key: state[key] for key in about if key in state} | {"selected_attrs": names}


def load_generator(state, room, path):
    """The generator of a file. Raises: UserError."""
    if "generator" not in state:
        raise UserError(f"{path}: holds a discriminator; give the file of the generator")
    make = partial(room.Generator, room.Architecture.from_dict(state["architecture"]))
    return weights.build(make, state["generator"], "generator", path)


# ---- faces, and what they have ----


class Subjects:
    """Faces to edit. Attributes: labels (N, planes), as G is told them; names, of what is drawn.

    Args: data, faces.Faces or faces.Photos; labels (N, c); about, see `about_of`.
    """

    def __init__(self, data, labels, about):
        self.data = data
        first = about["first"]
        if first:  # G is of two data sets, of which these faces are in the first
            both = len(about["selected_attrs"])
            planes = np.zeros((len(labels), both + 2), np.float32)
            planes[:, :first] = labels[:, :first]
            labels = attributes.in_one_set(planes, 0, first, both)
        self.labels = labels
        self.names = file_names([data.name(i) for i in range(len(data))])

    def load(self, indices):
        """Faces (n, 3, S, S)."""
        return np.stack([self.data.load(int(i), None)[0] for i in indices])

    def pictures(self, indices):
        """The faces one by one, as scores take them."""
        for i in indices:
            yield to_uint8(self.load([i]))


def open_subjects(args, state, room, about, judge):
    """(`Subjects` that the flags name, the folder they are from, lines on what was assumed)."""
    names = about["selected_attrs"]
    sizes = {"image_size": state["architecture"]["image_size"], "crop_size": about["crop_size"]}
    if args.input:
        photos = faces.Photos(args.input, **sizes)
        labels, notes = photo_labels(args.attrs, photos, names, judge)
        return Subjects(photos, labels, about), args.input, [ALIGNED, *notes]
    trained = training_flags(args, state)
    folder = faces.data_folder(trained)
    if args.test_list:
        first = names[: about["first"] or None]
        path = faces.list_of(trained, "test")
        how = {"split": "all", "part": "test"}
        data = faces.celeba(faces.image_folder(folder), path, first, **how, **sizes)
    else:
        _, data = room.read_data(trained)
    return Subjects(data, data.labels, about), str(folder), []


def training_flags(args, state):
    """The flags of the training that say where its faces are, changed as the test's say."""
    trained = {"train_list": "", "partition": "", "any_folders": False, **state.get("args", {})}
    if args.dataset_dir:
        folder = Path(args.dataset_dir).expanduser()
        trained |= {"data_dir": str(folder.parent), "dataset": folder.name, "train_list": ""}
    if "dataset" not in trained or not (args.test_list or "split" in trained):
        raise UserError("--input is missing: give photos, or --dataset_dir and --test_list")
    trained["test_list"] = args.test_list or trained.get("test_list", "")
    return argparse.Namespace(**trained)


def photo_labels(attrs, photos, names, judge):
    """(labels (N, c) of one's own photos, lines on what was guessed), by --attrs or the judge."""
    if not attrs:
        if judge is None:
            raise UserError(
                "--attrs is missing: G must be told what the faces of --input have. Give names, "
                "none, a list, or --attribute_judge to guess them"
            )
        x = np.stack([photos.load(i)[0] for i in range(len(photos))])
        labels = face_measures.seen(judge, names, to_uint8(x))
        notes = []
        for i, row in enumerate(labels):
            present = [name for name, on in zip(names, row, strict=True) if on]
            notes.append(f"{photos.name(i)}: guessed {', '.join(present) or 'none of them'}")
        return labels, notes
    if Path(attrs).expanduser().is_file():
        return listed_labels(attrs, photos, names), []
    present = [] if attrs == "none" else attrs.split(",")
    if present:
        attributes.columns_of(present, names, "the file", "--attrs")
    row = np.float32([name in present for name in names])
    return np.tile(row, (len(photos), 1)), []


def listed_labels(path, photos, names):
    """The labels (N, c) of photos in a list of CelebA's form, found by their files' names.

    Raises: UserError naming a photo or an attribute that it lacks.
    """
    listed, files, labels = attributes.read_attributes(path)
    columns = attributes.columns_of(names, listed, path, "--attrs")
    rows = {Path(file).stem: i for i, file in enumerate(files)}
    indices = []
    for i in range(len(photos)):
        stem = Path(photos.name(i)).stem
        if stem not in rows:
            raise UserError(f"--attrs {path}: has no line for {photos.name(i)}")
        indices.append(rows[stem])
    return labels[indices][:, columns]


# ---- what is drawn and measured ----


def sheets(args, editor, x, labels, first, back):
    """{file name: picture} of a batch of faces, of which `first` is the first one's name."""
    low, high = args.attr_int
    if low != high:
        points = np.linspace(low, high, args.n_slide).round(3)
        pictures = {}
        for values in [args.set] if args.set else [{name: 1} for name in editor.names]:
            name = f"slide_{'_'.join(values)}_{first}"
            pictures[name] = editor.slide(x, labels, values, points)
        return pictures
    if args.set:
        drawn = to_uint8(editor.draw_values(x, labels, args.set))
        titles = ["original", ", ".join(f"{name}={value}" for name, value in args.set.items())]
        rows = np.concatenate([to_uint8(x), drawn])
        return {f"fake_image_{first}": grid(rows, len(x), row_labels=titles)}
    return {f"fake_image_{first}": editor.sheet(x, labels, back)}


def edited(args, editor, x, labels, others):
    """The faces that scores see, uint8 (N, S, S, 3): as --set wants them, or with the labels of
    `others`.
    """
    if args.set:
        return to_uint8(editor.draw_values(x, labels, args.set))
    return to_uint8(editor.draw(x, labels, others))


def run(args, state, room):
    """Draw, write, score. Args: state, of convert.read_weights; room, the trainer module.

    Returns: the output folder, the record, the paper's own scores.
    """
    from shared_metrics import testing

    if args.seeds:
        raise UserError("--seeds: faces are drawn from faces; leave it out")
    path = args.pretrained_model
    about = about_of(state, room, args.selected_attrs)
    names = about["selected_attrs"][: about["first"] or None]  # those that faces here can have
    own, metrics = testing.chosen_metrics(args, face_measures.METRICS)
    judge = face_measures.open_judge(args.attribute_judge, names, own)
    measures = face_measures.Measures(own, names, judge)
    generator = load_generator(state, room, path)
    testing.set_bn_stats(generator, args.bn_stats)
    editor = Editor(generator, room.condition, about, args.attr_int[1], Runner(generator))
    editor.positions(args.set or names[:1], "--set")
    subjects, folder, notes = open_subjects(args, state, room, about, judge)
    count = min(args.num_samples or len(subjects.names), len(subjects.names))
    chosen = np.linspace(0, len(subjects.names) - 1, count).astype(int)
    output = testing.Output(args, PATTERNS, data=[folder, args.real])
    real = None
    if metrics and not args.real:
        real = open_source(subjects.pictures(chosen), count, name=folder)
    sizes = {"crop_size": about["crop_size"], "image_size": state["architecture"]["image_size"]}
    whole = partial(faces.read_faces, **sizes)
    scores = testing.open_scores(args, metrics, count, pictures=whole, data=real)
    with output:
        for part in testing.parts(count, args.batch_size):
            x = subjects.load(chosen[part])
            labels = subjects.labels[chosen[part]]
            first = subjects.names[chosen[part.start]]
            pictures = sheets(args, editor, x, labels, first, back=room.BACK)
            for name, picture in pictures.items():
                output.write([name], picture[None])
                if part.start == 0:
                    save_png(picture, output.folder / "grid.png")
            # For scores: labels as faces have them, and as often.
            others = subjects.labels[np.roll(chosen, 1)[part]]
            images = edited(args, editor, x, labels, others)
            if args.set:
                output.write([f"edit_{subjects.names[i]}" for i in chosen[part]], images)
            scores.update(images)
            face_measures.measure(measures, editor, x, labels)

    result = scores.result()
    result["notes"] += notes
    of_paper = measures.result()
    record = testing.make_record(args, state, generator, "raw", room.RECIPES, result, of_paper)
    # Without --set sheets alone are written.
    record["samples"]["files"] = "images/edit_*" if args.set else ""
    asked = {"set": args.set or {}, "attr_int": list(args.attr_int)}
    record["samples"] |= {"seed": args.seed, "data": folder, **asked}
    return output, record, of_paper["scores"]
