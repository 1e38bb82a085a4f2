"""Checkpoints of PaddleGAN's engine (iter_N_checkpoint.pdparams) as far as training can go on from
them.
"""

import re

from convert import read_weights
from shared_metrics import weights

ADAM = re.compile(r"(.+)_(moment1|moment2|beta1_pow_acc|beta2_pow_acc)_\d+")
NOT_TRAINED = ("._mean", "._variance", ".weight_u", ".weight_v")
# (our entry, the engine's, the network that it trains, what comes before its names here)
OPTIMIZERS = (
    ("optimizer_g", "optimG", "generator", "generator."),
    ("optimizer_d", "optimD", "discriminator", ""),
)


def read_engine(path, arch):
    """(state, notes) of an engine's checkpoint, None where the file is no such checkpoint.

    Args: arch, the `model.Architecture` to train: it must agree with what the file tells.
    Returns: state, of `trainer.Trainer.go_on`: generator, discriminator, architecture, iteration,
        and optimizer_g, optimizer_d where the file's Adam states fit the networks; notes, one line
        on each thing that starts anew.
    Raises: UserError, see `convert.read_published`.
    """
    data = weights.load(path)
    if not isinstance(data, dict) or "net_gen" not in data:
        return None
    published = read_weights(path, data=data, **arch.to_dict())
    parts = ("generator", "discriminator", "architecture")
    state = {name: published[name] for name in parts if name in published}
    state["iteration"] = published["source"]["iteration"] or 0
    notes = []
    if not state["iteration"]:
        notes.append(f"{path}: tells no iteration; counting from 0")
    for name, theirs, network, prefix in OPTIMIZERS:
        adam = adam_state(data.get(theirs), state.get(network, {}), prefix)
        if adam:
            state[name] = adam
        else:
            notes.append(
                f"{path}: no Adam state of the {network} that fits it; its moments start from 0"
            )
    notes.append(
        f"{path}: a checkpoint of PaddleGAN's engine holds no place in the data; their order "
        "starts anew"
    )
    return state, notes


def adam_state(saved, network, prefix=""):
    """Adam's state in the layout of `checkpoint.optimizer_state`, or None where it does not fit.

    Paddle names it by automatic parameter names (conv2d_3.w_0_moment1_0), in the order in which the
    network lists its parameters: so they are matched by place, and their shapes compared.

    Args: saved, {automatic name: array} or None; network, {name: array}; prefix, put before each
        name.
    """
    kinds = {}  # {"moment1": {automatic name: array}, ...}
    for key, value in (saved or {}).items():
        match = ADAM.fullmatch(str(key))
        if match:
            kinds.setdefault(match[2], {})[match[1]] = value
    names = [name for name in network if not name.endswith(NOT_TRAINED)]
    automatic = list(kinds.get("moment1", {}))
    alike = len(kinds) == 4 and all(values.keys() == set(automatic) for values in kinds.values())
    if not names or not alike or len(automatic) != len(names):
        return None
    pairs = list(zip(names, automatic, strict=True))
    for moment in ("moment1", "moment2"):
        if any(kinds[moment][key].shape != network[name].shape for name, key in pairs):
            return None
    return {
        kind: {prefix + name: values[key] for name, key in pairs} for kind, values in kinds.items()
    }
