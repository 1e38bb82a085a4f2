"""The yaml configuration of PaddleGAN's photopen: read safely, held against a schema, turned into
train.py's flags.

    config = load_config("configs/photopen.yaml", ["model.batchSize=4", "model.generator.ngf=8"])
    flags = settings(config)    # {"batch_size": 4, "ngf": 8, "crop_size": 256, ...}

Every key of the original is known. What the original wants in several places (crop_size, label_nc,
the batch size, predict.*) is enough in one of them here; where places of equal rank differ, both
are named. An override (-o) outranks the file, the file outranks the defaults.
"""

import ast
import difflib
import math
import reprlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from dataset import load_size_of
from shared_metrics.errors import UserError

LISTS = {list: "a list of names", tuple: "a list of numbers"}
EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"} | LISTS


@dataclass(frozen=True)
class Key:
    """What a key may hold: kind (list: of names, tuple: a list of numbers), default (None: may be
    absent), allowed values or the least number, and where it has no effect here, the reason."""

    kind: type
    default: Any
    choices: tuple = ()
    least: float = -math.inf
    idle: str = ""


class Given(NamedTuple):
    """A value with its rank (0 default, 1 file, 2 override) and where it stands, for messages."""

    value: Any
    rank: int = 0
    where: str = "default"


def _generator():
    """The keys of model.generator; predict repeats them."""
    return {
        "name": Key(str, "SPADEGenerator", ("SPADEGenerator",)),
        "ngf": Key(int, 24, least=1),
        "num_upsampling_layers": Key(str, "normal", ("normal", "more", "most")),
        "crop_size": Key(int, 256, least=1),
        "aspect_ratio": Key(float, 1.0, least=0.01),
        "norm_G": Key(str, "spectralspadebatch3x3"),
        "semantic_nc": Key(int, 14, least=1),
        "use_vae": Key(bool, False),
        "nef": Key(int, 16, least=1),
    }


def _data(name, split):
    """The keys of dataset.train and dataset.test."""
    here = "testing resizes to the crop size" if split == "test" else ""
    there = "test.py has a flag of this name" if split == "test" else ""
    return {
        "name": Key(str, name, ("PhotoPenDataset", "PhotoPenDataset_test")),
        "content_root": Key(str, "test/coco_stuff"),
        "load_size": Key(int, 286, least=1, idle=here),
        "crop_size": Key(int, 256, least=1),
        "num_workers": Key(int, 0, least=0, idle=there),
        "batch_size": Key(int, 1, least=1, idle=there),
    }


def _optimizer(net):
    return {
        "name": Key(str, "Adam", ("Adam",)),
        "net_names": Key(list, [net], ([net],)),
        "beta1": Key(float, 0.0, least=0),
        "beta2": Key(float, 0.999, least=0),
    }


SCHEMA = {
    "total_iters": Key(int, 100_000, least=1),
    "epochs": Key(int, None, least=1),
    "output_dir": Key(str, "output_dir"),
    "checkpoints_dir": Key(str, "checkpoints", idle="checkpoints go to <output_dir>/checkpoints"),
    "enable_visualdl": Key(bool, None, idle="VisualDL's log is always written"),
    "find_unused_parameters": Key(
        bool, None, idle="gradients are averaged without Paddle's DataParallel"
    ),
    "min_max": Key(tuple, None, idle="pictures are always written from [-1, 1]"),
    "image_num": Key(int, None, least=1, idle="sample grids have a fixed size"),
    "model": {
        "name": Key(str, "PhotoPenModel", ("PhotoPenModel",)),
        "generator": _generator(),
        "discriminator": {
            "name": Key(str, "MultiscaleDiscriminator", ("MultiscaleDiscriminator",)),
            "ndf": Key(int, 128, least=1),
            "num_D": Key(int, 4, least=1),
            "crop_size": Key(int, 256, least=1),
            "label_nc": Key(int, 12, least=1),
            "output_nc": Key(int, 3, (3,)),
            "contain_dontcare_label": Key(bool, True),
            "no_instance": Key(bool, False),
            "n_layers_D": Key(int, 6, least=1),
        },
        "criterion": {
            "name": Key(str, "PhotoPenPerceptualLoss", ("PhotoPenPerceptualLoss",)),
            "crop_size": Key(int, 224, least=1),
            "lambda_vgg": Key(float, 1.6, least=0),
        },
        "label_nc": Key(int, 12, least=1),
        "contain_dontcare_label": Key(bool, True),
        "batchSize": Key(int, 1, least=1),
        "crop_size": Key(int, 256, least=1),
        "lambda_feat": Key(float, 10.0, least=0),
    },
    "dataset": {
        "train": _data("PhotoPenDataset", "train"),
        "test": _data("PhotoPenDataset_test", "test"),
    },
    "lr_scheduler": {
        "name": Key(str, "LinearDecay", ("LinearDecay",)),
        "learning_rate": Key(float, 1e-4, least=0, idle="the rate is optimizer.lr"),
        "start_epoch": Key(int, 99999, least=0),
        "decay_epochs": Key(int, 99999, least=0),
        "iters_per_epoch": Key(int, 1, least=1, idle="the data give the length of an epoch"),
    },
    "optimizer": {
        "lr": Key(float, 1e-4, least=0),
        "optimG": _optimizer("net_gen"),
        "optimD": _optimizer("net_des"),
    },
    "validate": {
        "interval": Key(int, None, least=1),
        "save_img": Key(bool, None, idle="sample grids are written at log_config.visiual_interval"),
    },
    "log_config": {"interval": Key(int, 10, least=1), "visiual_interval": Key(int, 500, least=1)},
    "snapshot_config": {"interval": Key(int, 1000, least=1)},
    "predict": {
        **_generator(),
        "contain_dontcare_label": Key(bool, True),
        "label_nc": Key(int, 12, least=1),
        "batchSize": Key(int, 1, least=1, idle="test.py has --batch_size"),
    },
}


def _flat(tree, prefix=""):
    """{"model.generator.ngf": leaf, ...} of a nested dict."""
    leaves = {}
    for name, value in tree.items():
        leaves |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return leaves


KEYS = _flat(SCHEMA)
# Places of one value: setting any of them sets all.
ALIKE = [
    tuple(
        f"{place}.crop_size"
        for place in (
            "model",
            "model.generator",
            "model.discriminator",
            "dataset.train",
            "dataset.test",
            "predict",
        )
    ),
    ("model.label_nc", "model.discriminator.label_nc", "predict.label_nc"),
    tuple(
        f"{place}.contain_dontcare_label" for place in ("model", "model.discriminator", "predict")
    ),
    ("model.batchSize", "dataset.train.batch_size"),
    *(
        (f"model.generator.{name}", f"predict.{name}")
        for name in (
            "ngf",
            "num_upsampling_layers",
            "aspect_ratio",
            "norm_G",
            "semantic_nc",
            "use_vae",
            "nef",
        )
    ),
    *((f"optimizer.optimG.{name}", f"optimizer.optimD.{name}") for name in ("beta1", "beta2")),
]


def load_config(path=None, overrides=()):
    """The configuration as a nested dict with every key that has a value.

    Args: path, a yaml file, or None for the defaults; overrides, texts "a.b.c=value" ("a.b.0=value"
        in a list).
    Raises: UserError naming file, line and key, or the override, that is unknown, of a wrong type
        or contradictory.
    """
    given = {name: Given(key.default) for name, key in KEYS.items()}
    if path:
        given |= _read_file(path)
    here = {}
    for text in overrides:
        name, value = _read_override(text, {**given, **here})
        here[name] = Given(value, 2, f"-o {text}")
    given |= here
    for group in ALIKE:
        _unify(given, group)
    _derive_semantic_nc(given)
    if given["dataset.train.load_size"].rank < given["model.crop_size"].rank:
        given["dataset.train.load_size"] = Given(load_size_of(given["model.crop_size"].value))
    config = {}
    for name, (value, _, _) in given.items():
        if value is not None:
            *sections, last = name.split(".")
            inner = config
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[last] = value
    return config


def settings(config, reversed_rates=False):
    """A configuration as values of train.py's flags, {flag without dashes: value}.

    Args: config, as `load_config` returns it; reversed_rates, the original's rates 4 lr for G and
        lr for D, instead of lr and 4 lr (two time-scale update rule: D learns faster, SPADE sec.
        4).
    Returns: also "epochs" (0: "iterations" count, which is 0 otherwise), "niter" and
        "niter_decay" in epochs, "eval_every" (0: none), "vgg_size" (side of the perceptual loss's
        pictures); "load_size" is 0 where it stands to crop_size as 286 to 256, so that it follows
        another --crop_size.
    """
    model, train, rate = config["model"], config["dataset"]["train"], config["optimizer"]["lr"]
    g, d, epochs = model["generator"], model["discriminator"], config.get("epochs", 0)
    load_size = 0 if train["load_size"] == load_size_of(train["crop_size"]) else train["load_size"]
    return {
        "data_path": train["content_root"],
        "test_data_path": config["dataset"]["test"]["content_root"],
        "output_dir": config["output_dir"],
        **{
            name: model[name]
            for name in ("label_nc", "contain_dontcare_label", "crop_size", "lambda_feat")
        },
        **{
            name: g[name]
            for name in ("ngf", "num_upsampling_layers", "aspect_ratio", "norm_G", "use_vae", "nef")
        },
        **{name: d[name] for name in ("ndf", "num_D", "n_layers_D", "no_instance")},
        "load_size": load_size,
        "num_workers": train["num_workers"],
        "batch_size": model["batchSize"],
        "lambda_vgg": model["criterion"]["lambda_vgg"],
        "vgg_size": model["criterion"]["crop_size"],
        "g_lr": rate * 4 if reversed_rates else rate,
        "d_lr": rate if reversed_rates else rate * 4,
        "beta1": config["optimizer"]["optimG"]["beta1"],
        "beta2": config["optimizer"]["optimG"]["beta2"],
        "iterations": 0 if epochs else config["total_iters"],
        "epochs": epochs,
        "niter": config["lr_scheduler"]["start_epoch"],
        "niter_decay": config["lr_scheduler"]["decay_epochs"],
        "log_every": config["log_config"]["interval"],
        "sample_every": config["log_config"]["visiual_interval"],
        "save_every": config["snapshot_config"]["interval"],
        "eval_every": config.get("validate", {}).get("interval", 0),
    }


def notes(config):
    """One line for every key without effect here that was given another value than the original's,
    with the reason.
    """
    return [
        f"{name}: without effect here; {KEYS[name].idle}"
        for name, value in _flat(config).items()
        if KEYS[name].idle and value != KEYS[name].default
    ]


def _read_file(path):
    """{dotted key: Given} of a yaml file. Raises UserError naming the line."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            loader = yaml.SafeLoader(file.read())
    except FileNotFoundError:
        raise UserError(f"--config-file {path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--config-file {path}: not a readable yaml file ({error})") from None
    try:
        node = loader.get_single_node()
        return _read_section(loader, node, SCHEMA, "", path) if node else {}
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"--config-file {path}{line}: {error.problem or error}") from None
    except UserError:
        raise
    except (RecursionError, ValueError) as error:
        raise UserError(f"--config-file {path}: not a readable yaml file ({error})") from None


def _read_section(loader, node, schema, prefix, path):
    if not isinstance(node, yaml.MappingNode):
        raise UserError(
            f"{path} line {node.start_mark.line + 1}: {prefix.rstrip('.') or 'the file'} must "
            "hold keys, "
            f"such as {next(iter(schema))}: ..."
        )
    written = [key.value for key, _ in node.value]
    loader.flatten_mapping(node)  # << merges another section; its own keys come later and win
    found = {}
    for key, value in node.value:
        name, where = str(key.value), f"{path} line {key.start_mark.line + 1}"
        if written.count(key.value) > 1:
            raise UserError(f"{where}: {prefix}{name} stands twice in this section; keep one")
        if name not in schema:
            raise UserError(f"{where}: {_unknown(prefix, name, schema)}")
        if isinstance(schema[name], dict):
            found |= _read_section(loader, value, schema[name], f"{prefix}{name}.", path)
        else:
            where += f": {prefix}{name}"
            given = loader.construct_object(value, deep=True)
            found[prefix + name] = Given(_typed(schema[name], given, where), 1, where)
    return found


def _read_override(text, given):
    """(dotted key, value) of "a.b.c=value". The value is a Python literal or else text; nothing is
    evaluated.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UserError(f"-o {text}: expected key=value, such as model.batchSize=4")
    parts, schema, prefix = path.strip().split("."), SCHEMA, ""
    for i, part in enumerate(parts):
        if isinstance(schema, Key):
            return prefix[:-1], _in_list(schema, given[prefix[:-1]].value, parts[i:], value, text)
        if part not in schema:
            raise UserError(f"-o {text}: {_unknown(prefix, part, schema)}")
        schema, prefix = schema[part], f"{prefix}{part}."
    if isinstance(schema, dict):
        raise UserError(
            f"-o {text}: {path} is a section; set one of its keys, such as "
            f"{prefix}{next(iter(schema))}"
        )
    return path.strip(), _typed(schema, _literal(value), f"-o {text}")


def _in_list(key, old, index, value, text):
    """The list `old` with one place replaced, as "a.b.0=value" asks."""
    if (
        key.kind not in LISTS
        or not isinstance(old, list)
        or len(index) > 1
        or not index[0].isdecimal()
    ):
        raise UserError(
            f"-o {text}: no key below {text.partition('=')[0].rsplit('.', len(index))[0]}"
        )
    if len(index[0]) > 9 or int(index[0]) >= len(old):
        raise UserError(f"-o {text}: the list has {len(old)} places, counted from 0")
    new = [*old]
    new[int(index[0])] = _literal(value)
    return _typed(key, new, f"-o {text}")


def _literal(text):
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text.strip()


def _unknown(prefix, name, schema):
    """The line on a key that is not known, with the nearest that is."""
    near = difflib.get_close_matches(name, schema, 1)
    elsewhere = [key for key in KEYS if key.endswith(f".{name}")]
    if near:
        hint = f"did you mean {prefix}{near[0]}?"
    elif elsewhere:
        hint = f"did you mean {elsewhere[0]}?"
    else:
        hint = f"known are {', '.join(schema)}"
    return f"unknown key {prefix}{reprlib.repr(name)[1:-1]}; {hint}"


def _typed(key, value, where):
    """The value as the key's kind, or UserError. A number as text passes, since yaml reads 1e-4 as
    text.
    """
    kind, typed = key.kind, None
    if kind in LISTS and isinstance(value, list | tuple):
        part = str if kind is list else float
        typed = [_typed(Key(part, None), v, where) for v in value]
    elif kind is bool:
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        typed = (
            value
            if isinstance(value, bool)
            else words.get(value.lower())
            if isinstance(value, str)
            else None
        )
    elif kind is str and isinstance(value, str) and value:
        typed = value
    elif (
        kind in (int, float)
        and isinstance(value, int | float | str)
        and not isinstance(value, bool)
    ):
        typed = _number(value, kind)
    if typed is None:
        hint = "; put it into quotes" if kind is str and isinstance(value, int | float) else ""
        raise UserError(f"{where}: expected {EXPECTED[kind]}, not {reprlib.repr(value)}{hint}")
    if key.choices and typed not in key.choices:
        raise UserError(
            f"{where}: {reprlib.repr(typed)} is not known here; take "
            f"{' or '.join(map(str, key.choices))}"
        )
    if kind in (int, float) and typed < key.least:
        raise UserError(f"{where}: {typed} is too small; take at least {key.least:g}")
    return typed


def _number(value, kind):
    """The finite number as an int or float, None where it is none (or no whole one)."""
    try:
        number = float(value)
        if kind is int and isinstance(value, int):
            return value
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        return None
    return kind(number)


def _unify(given, group):
    """Give all places of one value the highest-ranked one. Raises UserError where two of that rank
    differ.
    """
    rank = max(given[name].rank for name in group)
    first, *others = [name for name in group if given[name].rank == rank]
    for other in others:
        a, b = given[first], given[other]
        if not _same(a.value, b.value):
            raise UserError(
                f"{a.where} is {a.value}, but {b.where} is {b.value}. They must agree; one of "
                "them is enough"
            )
    for name in group:
        if given[name].rank < rank:
            given[name] = given[first]


def _same(a, b):
    """Whether two values mean the same; synchronised BatchNorm is BatchNorm where nothing is
    trained.
    """
    return a == b or (
        isinstance(a, str) and a.replace("syncbatch", "batch") == b.replace("syncbatch", "batch")
    )


def _derive_semantic_nc(given):
    """Channels of G's input: classes, unknown, edge map. Raises UserError when a given number is
    another one.
    """
    sources = [
        given[f"model.{name}"]
        for name in ("label_nc", "contain_dontcare_label", "discriminator.no_instance")
    ]
    label_nc, unknown, no_instance = (source.value for source in sources)
    right = label_nc + unknown + (not no_instance)
    told = given["model.generator.semantic_nc"]
    if told.value != right and told.rank and told.rank >= max(source.rank for source in sources):
        raise UserError(
            f"{told.where} is {told.value}, but label_nc {label_nc}, contain_dontcare_label "
            f"{unknown} and "
            f"no_instance {no_instance} make {right}; leave semantic_nc out"
        )
    for name in ("model.generator.semantic_nc", "predict.semantic_nc"):
        given[name] = Given(right, told.rank)
