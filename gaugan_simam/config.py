"""The yaml configuration of PaddleGAN's photopen, as flags of train.py.

    config = load_config("configs/photopen.yaml", ["model.batchSize=4", "model.generator.ngf=8"])
    flags = settings(config)    # {"batch_size": 4, "ngf": 8, "crop_size": 256, ...}

A place is a path of keys, written with dots. Places of one flag hold one value (crop_size,
label_nc, predict.*): one of them is enough; where two of equal rank differ, both are named. An
override (-o) outranks the file, the file outranks the defaults.
"""

import ast
import difflib
import functools
from typing import Any, NamedTuple

import yaml

from dataset import load_size_of
from recipes import RECIPES
from shared_metrics.errors import UserError
from shared_metrics.files import read_text

# fmt: off
# Place: the flag of train.py that it sets. optimizer.lr tells d_lr as well; semantic_nc is no flag,
# it follows from the classes.
FLAGS = {
    "total_iters": "iterations", "epochs": "epochs", "output_dir": "output_dir",
    "model.label_nc": "label_nc", "model.discriminator.label_nc": "label_nc",
    "model.contain_dontcare_label": "contain_dontcare_label",
    "model.discriminator.contain_dontcare_label": "contain_dontcare_label",
    "model.batchSize": "batch_size", "dataset.train.batch_size": "batch_size",
    "model.crop_size": "crop_size", "model.generator.crop_size": "crop_size",
    "model.discriminator.crop_size": "crop_size", "dataset.train.crop_size": "crop_size",
    "dataset.test.crop_size": "crop_size", "dataset.train.load_size": "load_size",
    "model.generator.ngf": "ngf", "model.generator.nef": "nef", "model.generator.norm_G": "norm_G",
    "model.generator.num_upsampling_layers": "num_upsampling_layers",
    "model.generator.aspect_ratio": "aspect_ratio", "model.generator.use_vae": "use_vae",
    "model.generator.semantic_nc": "semantic_nc",
    "model.discriminator.ndf": "ndf", "model.discriminator.num_D": "num_D",
    "model.discriminator.n_layers_D": "n_layers_D",
    "model.discriminator.no_instance": "no_instance",
    "model.criterion.lambda_vgg": "lambda_vgg", "model.criterion.crop_size": "vgg_size",
    "model.lambda_feat": "lambda_feat",
    "dataset.train.content_root": "data_path", "dataset.test.content_root": "test_data_path",
    "dataset.train.num_workers": "num_workers",
    "lr_scheduler.start_epoch": "niter", "lr_scheduler.decay_epochs": "niter_decay",
    "optimizer.lr": "g_lr",
    "optimizer.optimG.beta1": "beta1", "optimizer.optimG.beta2": "beta2",
    "optimizer.optimD.beta1": "beta1", "optimizer.optimD.beta2": "beta2",
    "validate.interval": "eval_every", "snapshot_config.interval": "save_every",
    "log_config.interval": "log_every", "log_config.visiual_interval": "sample_every",
    "predict.label_nc": "label_nc", "predict.contain_dontcare_label": "contain_dontcare_label",
    "predict.crop_size": "crop_size", "predict.ngf": "ngf", "predict.nef": "nef",
    "predict.norm_G": "norm_G", "predict.num_upsampling_layers": "num_upsampling_layers",
    "predict.aspect_ratio": "aspect_ratio", "predict.use_vae": "use_vae",
    "predict.semantic_nc": "semantic_nc",
}
# Place: what may stand there, the default first.
FIXED = {
    "model.name": ["PhotoPenModel"],
    "model.generator.name": ["SPADEGenerator"], "predict.name": ["SPADEGenerator"],
    "model.discriminator.name": ["MultiscaleDiscriminator"], "model.discriminator.output_nc": [3],
    "model.criterion.name": ["PhotoPenPerceptualLoss"],
    "dataset.train.name": ["PhotoPenDataset", "PhotoPenDataset_test"],
    "dataset.test.name": ["PhotoPenDataset_test", "PhotoPenDataset"],
    "lr_scheduler.name": ["LinearDecay"],
    "optimizer.optimG.name": ["Adam"], "optimizer.optimG.net_names": [["net_gen"]],
    "optimizer.optimD.name": ["Adam"], "optimizer.optimD.net_names": [["net_des"]],
}
# Place without effect here: the original's value, the reason.
IDLE = {
    "checkpoints_dir": ("checkpoints", "checkpoints go to <output_dir>/checkpoints"),
    "enable_visualdl": (None, "VisualDL's log is always written"),
    "find_unused_parameters": (None, "gradients are averaged without Paddle's DataParallel"),
    "min_max": (None, "pictures are always written from [-1, 1]"),
    "image_num": (None, "sample grids have a fixed size"),
    "dataset.test.load_size": (286, "testing resizes to the crop size"),
    "dataset.test.num_workers": (0, "test.py has a flag of this name"),
    "dataset.test.batch_size": (1, "test.py has a flag of this name"),
    "lr_scheduler.learning_rate": (1e-4, "the rate is optimizer.lr"),
    "lr_scheduler.iters_per_epoch": (1, "the data give the length of an epoch"),
    "validate.save_img": (None, "sample grids are written at log_config.visiual_interval"),
    "predict.batchSize": (1, "test.py has --batch_size"),
}
# fmt: on
PLACES = FIXED | FLAGS | IDLE
# The defaults: what photopen.yaml has other than our recipe, or besides.
DEFAULTS = RECIPES["gaugan"] | {"beta2": 0.999, "batch_size": 1, "load_size": 286, "epochs": 0}
DEFAULTS |= {"niter": 99999, "niter_decay": 99999, "num_workers": 0, "output_dir": "output_dir"}
DEFAULTS |= {"log_every": 10, "sample_every": 500, "save_every": 1000, "eval_every": 0}
DEFAULTS |= dict.fromkeys(("data_path", "test_data_path"), "test/coco_stuff")

SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
EXPECTED = {str: "text", int: "a whole number", float: "a number", list: "a list of names"}


class Value(NamedTuple):
    """A value with its rank (0 default, 1 file, 2 override) and where it stands, for messages."""

    value: Any
    rank: int = 0
    where: str = "default"


def load_config(path=None, overrides=()):
    """The configuration as {flag: value}, what sets no flag as {place: value}.

    Args: path, a yaml file, or None for the defaults; overrides, texts "a.b.c=value" ("a.b.0=value"
        in a list).
    Raises: UserError naming file, line and key, or the override, that is unknown, of a wrong type
        or contradictory.
    """
    values = {flag: Value(DEFAULTS.get(flag)) for flag in FLAGS.values()}
    values |= {place: Value(allowed[0]) for place, allowed in FIXED.items()}
    values |= {place: Value(usual) for place, (usual, _) in IDLE.items()}
    if path:
        values |= _by_flag(_read_file(path))
    values |= _by_flag(_read_overrides(overrides, values))
    _derive_semantic_nc(values)
    if values["load_size"].rank < values["crop_size"].rank:
        values["load_size"] = Value(load_size_of(values["crop_size"].value))
    return {name: value.value for name, value in values.items()}


def settings(config, reversed_rates=False):
    """A configuration as values of train.py's flags, {flag without dashes: value}.

    Args: config, as `load_config` returns it; reversed_rates, the original's rates 4 lr for G and
        lr for D, instead of lr and 4 lr (two time-scale update rule: D learns faster, SPADE sec.
        4).
    Returns: "iterations" is 0 where "epochs" counts; "load_size" is 0 where it stands to crop_size
        as 286 to 256, so that it follows another --crop_size.
    """
    flags = {flag: config[flag] for flag in FLAGS.values() if flag != "semantic_nc"}
    rate = flags["g_lr"]
    flags["g_lr"] = 4 * rate if reversed_rates else rate
    flags["d_lr"] = rate if reversed_rates else 4 * rate
    if flags["epochs"]:
        flags["iterations"] = 0
    if flags["load_size"] == load_size_of(flags["crop_size"]):
        flags["load_size"] = 0
    return flags


def notes(config):
    """One line for every key without effect here that has another value than the original's."""
    odd = [place for place, (usual, _) in IDLE.items() if config[place] != usual]
    return [f"{place}: without effect here; {IDLE[place][1]}" for place in odd]


def _read_file(path):
    """{place: Value} of a yaml file. Raises UserError naming the line."""
    try:
        loader = yaml.SafeLoader(read_text(path))
        node = loader.get_single_node()
        return dict(_entries(loader, node, "", path)) if node else {}
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"--config-file {path}: no such file") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"--config-file {path}{line}: {error.problem or error}") from None
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"--config-file {path}: not a readable yaml file ({error})") from None


def _entries(loader, node, prefix, path):
    """(place, Value) of every key below a node of the file."""
    if not isinstance(node, yaml.MappingNode):
        where = f"{path} line {node.start_mark.line + 1}: {prefix[:-1] or 'the file'}"
        raise UserError(f"{where} must hold keys, such as {_below(prefix)[0]}: ...")
    written = [key.value for key, _ in node.value]
    loader.flatten_mapping(node)  # << merges another section; its own keys come later and win
    for key, inner in node.value:
        place = f"{prefix}{key.value}"
        where = f"{path} line {key.start_mark.line + 1}"
        if written.count(key.value) > 1:
            raise UserError(f"{where}: {place} stands twice in this section; keep one")
        if _below(f"{place}."):
            yield from _entries(loader, inner, f"{place}.", path)
        elif place in PLACES:
            where = f"{where}: {place}"
            value = loader.construct_object(inner, deep=True)
            yield place, Value(_typed(place, value, where), 1, where)
        else:
            raise UserError(f"{where}: {_unknown(place)}")


def _read_overrides(texts, values):
    """{place: Value} of texts "a.b.c=value". A value is a Python literal or else text; nothing is
    evaluated.
    """
    layer = {}
    for text in texts:
        where = f"-o {text}"
        place, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not place:
            raise UserError(f"{where}: expected key=value, such as model.batchSize=4")
        value = _literal(value)
        if names := _below(f"{place}."):
            key = f"{place}.{names[0]}"
            raise UserError(f"{where}: {place} is a section; set one of its keys, such as {key}")
        for key in PLACES:
            if place.startswith(f"{key}."):
                old = layer.get(key, values.get(key))
                value = _in_list(old, place.removeprefix(f"{key}."), value, key, where)
                place = key
        if place not in PLACES:
            raise UserError(f"{where}: {_unknown(place)}")
        layer[place] = Value(_typed(place, value, where), 2, where)
    return layer


def _literal(text):
    """A Python literal's value; other text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _in_list(old, index, value, key, where):
    """The list of a `Value` with one place replaced, as "a.b.0=value" asks."""
    names = old and old.value
    if not isinstance(names, list) or not index.isdecimal():
        raise UserError(f"{where}: no key below {key}")
    if len(index) > 9 or int(index) >= len(names):
        raise UserError(f"{where}: the list has {len(names)} places, counted from 0")
    return [*names[: int(index)], value, *names[int(index) + 1 :]]


def _below(prefix):
    """The names directly below a section "a.b."; of the whole file for ""."""
    places = [place.removeprefix(prefix) for place in PLACES if place.startswith(prefix)]
    return list(dict.fromkeys(place.split(".")[0] for place in places))


def _unknown(place):
    """The line on a place that is not known, with the nearest that is."""
    section, dot, name = place.rpartition(".")
    names = _below(section + dot)
    if not names:
        return _unknown(section)
    near = [section + dot + n for n in difflib.get_close_matches(name, names, 1)]
    near += [key for key in PLACES if key.endswith(f".{name}")]
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
    return f"unknown key {section}{dot}{name:.40}; {hint}"


@functools.cache
def _actions():
    """{flag: its argparse action}: what a flag takes, its places take."""
    from train import parser  # only now, since train.py imports this module

    actions = {action.dest: action for action in parser()._actions}
    return actions | {"semantic_nc": actions["label_nc"]}


def _typed(place, value, where):
    """The value as its place takes it, or UserError."""
    if place in IDLE:
        value = _literal(value) if isinstance(value, str) else value  # yaml reads 1e-4 as text
        return list(value) if isinstance(value, tuple) else value
    if place in FIXED:
        choices = FIXED[place]
        expected = EXPECTED[type(choices[0])]
        typed = value if isinstance(value, type(choices[0])) else None
    else:
        action = _actions()[FLAGS[place]]
        choices = action.choices
        if action.nargs == 0:
            expected = "true or false"
            typed = SWITCH.get(str(value).lower()) if isinstance(value, bool | str) else None
        elif action.type:
            expected = EXPECTED[action.type.kind]
            typed = _number(value, action.type, where)
        else:
            expected = "text"
            typed = value if isinstance(value, str) and value else None
    if typed is None:
        hint = "; put it into quotes" if expected == "text" and isinstance(value, int) else ""
        raise UserError(f"{where}: expected {expected}, not {value!r:.60}{hint}")
    if choices and typed not in choices:
        allowed = " or ".join(map(str, choices))
        raise UserError(f"{where}: {typed!r:.60} is not known here; take {allowed}")
    return typed


def _number(value, flag_type, where):
    """The number that a flag of this type takes, None where it is none; it may be text, as 1e-4 is.
    Raises UserError where it is too small or large.
    """
    number = None if isinstance(value, bool) else flag_type.read(value)
    if number is None:
        return None
    if number < flag_type.least:
        raise UserError(
            f"{where}: {flag_type.kind(number)} is too small; take at least {flag_type.least:g}"
        )
    if number >= flag_type.below:
        raise UserError(
            f"{where}: {flag_type.kind(number)} is too large; stay below {flag_type.below:,}"
        )
    return flag_type.kind(number)


def _by_flag(layer):
    """{place: Value} of one rank as {flag: Value}, what sets no flag as it is. Raises UserError
    where two places of one flag differ.
    """
    values = {}
    for place in PLACES:  # in this order: model.generator.norm_G counts, not predict's
        if place in layer:
            value = layer[place]
            first = values.setdefault(FLAGS.get(place, place), value)
            if not _same(first.value, value.value):
                raise UserError(
                    f"{first.where} is {first.value}, but {value.where} is {value.value}. They "
                    "must agree; one of them is enough"
                )
    return values


def _same(a, b):
    """Whether two values mean the same; where nothing is trained, synchronised BatchNorm is
    BatchNorm.
    """
    return str(a).replace("syncbatch", "batch") == str(b).replace("syncbatch", "batch")


def _derive_semantic_nc(values):
    """Channels of G's input: classes, unknown, edge map. UserError where another number stands."""
    sources = [values[name] for name in ("label_nc", "contain_dontcare_label", "no_instance")]
    label_nc, unknown, no_instance = [source.value for source in sources]
    right = label_nc + unknown + (not no_instance)
    named = values["semantic_nc"]
    latest = max(source.rank for source in sources)
    if named.rank and named.rank >= latest and named.value != right:
        raise UserError(
            f"{named.where} is {named.value}, but label_nc {label_nc}, contain_dontcare_label "
            f"{unknown} and no_instance {no_instance} make {right}; leave semantic_nc out"
        )
    values["semantic_nc"] = Value(right)
