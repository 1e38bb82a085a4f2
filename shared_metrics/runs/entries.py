"""What the entries of a checkpoint, a converted file or a judge are, told before they are used.

A file can be whole and well signed and yet hold a text where a number should be.
"""

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.runs.epochs import STATE
from shared_metrics.unpickle import printable

NETWORKS = ("generator", "discriminator", "encoder", "classifier", "segmenter", "attributes")
# {entry: what it must be}: a type, [the type of each item], or a dict of the same.
TRAINED = {  # in "args", where None stands for what was not given
    **dict.fromkeys(("recipe", "name", "data_path", "image_dir", "data_dir", "dataset"), str),
    **dict.fromkeys(("test_list", "train_list", "partition", "preprocess_mode"), str),
    **dict.fromkeys(("crop_size", "load_size", "image_size", "batch_size"), int),
}
SOURCE = {
    **dict.fromkeys(("file", "sha256", "family", "model_net"), str),
    **dict.fromkeys(("iteration", "epoch"), int),
    "ema": bool,
    "selected_attrs": [str],
}
ENTRIES = {
    **dict.fromkeys(("iteration", "format", "batches_per_epoch", "crop_size", "class_total"), int),
    **dict.fromkeys(("imsize", "width", "num_classes", "first"), int),
    **dict.fromkeys(("paper", "sha256", "direction", "model_net"), str),
    **dict.fromkeys(("architecture", "best", "mode"), {}),
    **dict.fromkeys(("classes", "selected_attrs", "notes"), [str]),
    "class_indices": [int],
    "epochs": [{name: int for name in STATE}],
    "mean": [float],
    "std": [float],
    "args": TRAINED,
    "source": SOURCE,
}
SIZES = ("images", "batch_size", "processes")  # of "epochs": from 1 on
WORDS = {
    str: "text",
    int: "whole number from 0 on",
    float: "number",
    bool: "yes or no",
}


def check(state, path):
    """Refuse a file one of whose entries is not what that entry is.

    Args: state, the contents of `path`.
    Raises: UserError naming the file, the entry and what it should be.
    """
    for name, value in state.items():
        name = printable(name)
        if name.startswith(NETWORKS):
            _check_arrays(value, name, path)
        elif name.startswith("optimizer_"):
            _check(value, {}, name, path)
            for part, values in value.items():
                if part == "LR_Scheduler":
                    _check(values, {}, f"{name}.{part}", path)
                else:
                    _check_arrays(values, f"{name}.{printable(part)}", path)
        elif name.startswith("scaler_"):
            _check(value, {}, name, path)
        elif name in ENTRIES:
            _check(value, ENTRIES[name], name, path)
        if name == "architecture" and not all(map(_is_plain, value.values())):
            raise _wrong(path, name, "table of plain values")


def _check(value, kind, name, path, optional=False):
    if isinstance(kind, dict):
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _wrong(path, name, "table of named values")
        for key, of in kind.items():
            if key in value:
                _check(value[key], of, f"{name}.{key}", path, optional=True)
    elif isinstance(kind, list):
        if value is None and optional:
            return
        if not isinstance(value, (list, tuple)):
            raise _wrong(path, name, "list")
        for item in value:
            _check(item, kind[0], name, path)
            if name == "epochs" and not (set(STATE) <= set(item) and all(map(item.get, SIZES))):
                raise _wrong(path, name, f"list of tables of {', '.join(STATE)}")
    elif not (_fits(value, kind) or (value is None and optional)):
        raise _wrong(path, name, WORDS[kind])


def _fits(value, kind):
    if kind is int:
        return type(value) is int and 0 <= value < 2**63
    if kind is float:
        return type(value) in (int, float) and bool(np.isfinite(value))
    return type(value) is kind


def _is_plain(value):
    items = value if isinstance(value, (list, tuple)) else [value]
    return all(type(item) in (str, int, float, bool) for item in items)


def _check_arrays(values, name, path):
    named = isinstance(values, dict) and all(isinstance(key, str) for key in values)
    if not named or not all(isinstance(value, np.ndarray) for value in values.values()):
        raise _wrong(path, name, "table of named arrays")


def _wrong(path, name, what):
    return UserError(f"{path}: its entry {name} is no {what}; the file is damaged or made up")


def check_paper(state, paper, path):
    """Refuse a checkpoint of another paper. Raises: UserError naming the file and whose it is."""
    theirs = state.get("paper", paper)
    if theirs != paper:
        raise UserError(
            f"{path}: a checkpoint of {printable(theirs)}, not of {paper}; give it to the commands "
            "of that paper, or another file"
        )
