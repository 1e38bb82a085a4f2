"""Checkpoints: one file, one dict, whole at every moment, checked when loaded.

    state = {"generator": network_state(G), "optimizer_g": optimizer_state(opt_G, G)}
    save_checkpoint(folder, iteration, state, keep=3)
    path, state = resume(args.resume, folder)            # None where there is nothing to go on from

`--resume auto` finds the newest that loads. A trainer adds `args`; `iteration`, `format` and
`sha256` are added here.
"""

import re
from pathlib import Path

import numpy as np

from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.process import warn
from shared_metrics.runs import entries
from shared_metrics.runs.stop import NotFinite

FORMAT = 1
NAME = re.compile(r"iter_(\d{7,})\.pdparams")


def network_state(layer):
    """{name: numpy array} of a layer's parameters and buffers; copies, so no step changes them."""
    return {name: tensor.numpy() for name, tensor in layer.state_dict().items()}


def optimizer_state(optimizer, layer):
    """The optimizer's state under the layer's own parameter names.

    Paddle's optimizer.state_dict() uses automatic names (conv2d_0.w_0_moment1_0) that change with
    the order in which networks are built.
    Args: layer, a Layer (or LayerList) that holds every parameter the optimizer updates.
    Returns: {"moment1": {name: array}, ..., "LR_Scheduler": {}}.
    """
    names = _structured_names(optimizer, layer)
    state = {}
    # Private, but the only place where Paddle keeps the parameter beside its moments.
    for accumulator, tensors in optimizer._accumulators.items():
        state[accumulator] = {names[parameter]: t.numpy() for parameter, t in tensors.items()}
    if _scheduler(optimizer) is not None:
        state["LR_Scheduler"] = _scheduler(optimizer).state_dict()
    return state


def load_optimizer_state(optimizer, layer, state, source):
    """Set what optimizer_state returned, into a fresh optimizer or one that has stepped already.

    Args: source, the file's name for the error.
    Raises: UserError when names, shapes or the kind of optimizer differ.
    """
    import paddle
    from paddle.base.layer_helper import LayerHelper

    names = _structured_names(optimizer, layer)
    state = dict(state)
    schedule = state.pop("LR_Scheduler", None)
    if (schedule is None) != (_scheduler(optimizer) is None):
        raise UserError(
            f"{source}: one of checkpoint and command has a learning rate schedule, "
            "the other has none."
        )
    stepped = set()  # a parameter that never had a gradient has no state
    for values in state.values():
        stepped.update(values)
    parameters = [p for p in layer.parameters() if names[p.name] in stepped]
    # The tensors that step() would create on its first call. Paddle's own set_state_dict would find
    # them only by the automatic names, which are not known before they exist.
    optimizer.helper = optimizer.helper or LayerHelper(type(optimizer).__name__)
    optimizer._create_accumulators(paddle.static.default_main_program().global_block(), parameters)
    own = {}
    for accumulator, tensors in optimizer._accumulators.items():
        own[accumulator] = {names[parameter]: t for parameter, t in tensors.items()}
    weights.check_keys(_shapes(own), _flat(state), what="optimizer", source=source)
    weights.check_values(_flat(state), what="optimizer", source=source)
    with paddle.no_grad():
        for accumulator, tensors in own.items():
            for name, tensor in tensors.items():
                tensor.set_value(np.asarray(state[accumulator][name]))
    if schedule is not None:
        _scheduler(optimizer).set_state_dict(schedule)


def _structured_names(optimizer, layer):
    """{Paddle's automatic parameter name: the layer's own}.

    Raises: ValueError for an optimizer of other parameters.
    """
    names = {p.name: name for name, p in layer.named_parameters()}
    strangers = [p.name for p in optimizer._parameter_list if p.name not in names]
    if strangers:
        raise ValueError(
            f"the optimizer updates {len(strangers)} parameters "
            f"that the layer lacks: {strangers[:3]}"
        )
    return names


def _scheduler(optimizer):
    """The optimizer's learning rate schedule, or None where the rate is a number."""
    from paddle.optimizer.lr import LRScheduler

    rate = optimizer._learning_rate
    return rate if isinstance(rate, LRScheduler) else None


def _flat(state):
    flat = {}
    for accumulator, values in state.items():
        for name, value in values.items():
            flat[f"{name}.{accumulator}"] = value
    return flat


def _shapes(own):
    return {name: tuple(tensor.shape) for name, tensor in _flat(own).items()}


def save_checkpoint(folder, iteration, state, keep):
    """Write folder/iter_<iteration>.pdparams whole or not at all, then delete old ones.

    What a kill -9 left half written goes too, so one run at a time (stop.lock_folder).
    Args: iteration, steps taken; state, dict of nested dicts of numpy arrays and plain values;
        keep, how many checkpoints stay, 0 for all.
    Returns: the path.
    Raises: NotFinite naming a tensor with NaN or Inf (nothing is written); UserError on a full
        disk.
    """
    path = Path(folder) / f"iter_{iteration:07d}.pdparams"
    _save(path, {**state, "iteration": iteration})
    if keep:
        # Later ones, left by a run that went on from an earlier checkpoint, are not ours to count.
        older = [p for n, p in _numbered(folder) if n < iteration]
        for old in older[keep - 1 :]:
            old.unlink(missing_ok=True)
    for remnant in path.parent.glob(".*.tmp.pdparams"):
        remnant.unlink(missing_ok=True)
    return path


def save_best(folder, name, state):
    """Write folder/best_<name>.pdparams (name: "fid"), which is never deleted.

    As save_checkpoint otherwise.
    """
    path = best_path(folder, name)
    _save(path, state)
    return path


def best_path(folder, name):
    """Where the best checkpoint by a score is."""
    return Path(folder) / f"best_{name}.pdparams"


def set_aside(path):
    """Rename a best checkpoint of an earlier run, if there is one: best_fid_before_1.pdparams."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_stem(f"{path.stem}_before_{number}")).exists():
        number += 1
    path.rename(aside)


def _save(path, state):
    bad = _first_not_finite(state)
    if bad:
        raise NotFinite(
            f"{path}: not saved, {bad} holds NaN or Inf; the previous checkpoint is untouched."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {**state, "format": FORMAT}
    weights.save({**state, "sha256": files.digest(state)}, path)


def _first_not_finite(value, name=""):
    """The dotted name of the first array with NaN or Inf in nested dicts and lists, or None."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    else:
        array = isinstance(value, np.ndarray) and value.dtype.kind in "fc"
        return name if array and not np.isfinite(value).all() else None
    for key, part in parts:
        bad = _first_not_finite(part, f"{name}.{key}" if name else str(key))
        if bad:
            return bad
    return None


def load_checkpoint(path):
    """Read and check one checkpoint file.

    Returns: its dict.
    Raises: UserError naming the file and what is wrong.
    """
    return verified(weights.load(path), path)


def verified(state, path):
    """A checkpoint file's contents, once types, format and sha256 are found right.

    Raises: UserError naming the file.
    """
    if not isinstance(state, dict) or "format" not in state or "sha256" not in state:
        raise UserError(
            f"{path}: not a training checkpoint of this repository (no format and sha256 in it)."
        )
    entries.check(state, path)
    if state["format"] != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {state['format']}, this version reads {FORMAT}."
        )
    sha256 = state.pop("sha256")  # it does not cover itself
    if files.digest(state) != sha256:
        raise UserError(
            f"{path}: damaged, its contents do not match the sha256 stored in it. "
            "Use another checkpoint."
        )
    return state


def resume(which, folder):
    """Find the checkpoint that --resume names.

    Args:
        which: "" (start afresh), "auto" (the newest in `folder` that loads), or a file or run
            folder.
        folder: where this run keeps its checkpoints.
    Returns: (path, dict), or None for "" and for "auto" without any checkpoint yet. Each file that
        "auto" skips is printed with its reason.
    Raises: UserError when what is named cannot be loaded, or checkpoints exist but none of them
        loads.
    """
    if not which:
        return None
    if which != "auto" and Path(which).is_file():
        state = load_checkpoint(which)
        _warn_of_later(Path(which), state.get("iteration", 0), folder)
        return Path(which), state
    if which != "auto" and not Path(which).is_dir():
        raise UserError(
            f"--resume {which}: no such file or folder. "
            "Give auto, a checkpoint file or a run folder."
        )
    folder = Path(folder if which == "auto" else which)
    # A folder of checkpoints, or of a run.
    checkpoints = _numbered(folder) or _numbered(folder / "checkpoints")
    for _, path in checkpoints:
        try:
            return path, load_checkpoint(path)
        except UserError as error:
            warn(f"--resume {which} skips {error}")
    if checkpoints:
        raise UserError(
            f"--resume {which}: none of the {len(checkpoints)} checkpoints in {path.parent} loads. "
            "Give an intact file, or another --output_dir to start afresh."
        )
    if which == "auto":
        return None
    raise UserError(f"--resume {which}: no checkpoint iter_*.pdparams in this folder.")


def _warn_of_later(path, iteration, folder):
    """Going back to an earlier checkpoint of the same run leaves the later ones there.

    A `--resume auto` after this run would prefer those.
    """
    later = [p for n, p in _numbered(folder) if n > iteration and path.parent.samefile(folder)]
    if later:
        warn(
            f"--resume {path}: {len(later)} later checkpoint(s) stay in its folder, "
            f"up to {later[0].name}; --resume auto would take them. "
            "Delete them, or give another --output_dir."
        )


def _numbered(folder):
    """[(iteration, path)] of the folder's checkpoints, the newest first.

    best_* and temporary files do not count.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    numbered = []
    for path in folder.iterdir():
        match = NAME.fullmatch(path.name)
        if match:
            numbered.append((int(match[1]), path))
    return sorted(numbered, reverse=True)
