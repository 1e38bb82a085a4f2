"""Turn published weights into this repository's.

    python convert.py [--model_net=NAME] SRC DST.pdparams

SRC is a file; or a folder of PaddlePaddle 1.x with one raw file a variable; or a folder that holds
one such file or folder for each network, as net_G and net_D, or latest_net_G.pth. The keys of each
model's families are in ROOM/convert.py. `train.py --init_model` and `test.py` read the same.
"""

import inspect
from pathlib import Path

import parts
import rooms
from shared_metrics import published
from shared_metrics.errors import UserError
from shared_metrics.flags import positive
from shared_metrics.process import command
from shared_metrics.runs.checkpoint import load_checkpoint
from shared_metrics.runs.epochs import ends
from shared_metrics.unpickle import printable


def find(path):
    """The file or published folder that a path of --init_model stands for.

    A run's folder, or its checkpoints, stand for the newest checkpoint; CHECKPOINTS/19, as
    PaddleCV's folders were called, for the one after epoch 19, counted from 0.
    Raises: UserError for an epoch that is not there.
    """
    path = Path(path).expanduser()
    for folder in (path, path / "checkpoints"):
        if checkpoints := own_checkpoints(folder):
            return checkpoints[-1]
    if path.exists() or not path.name.isdecimal():
        return path
    return after_epoch(path, int(path.name))


def own_checkpoints(folder):
    """The checkpoints in a folder, the newest last."""
    return sorted(folder.glob("iter_*.pdparams"), key=lambda path: (len(path.name), path.name))


def after_epoch(path, epoch):
    """The checkpoint beside `path` that was saved after an epoch. Raises: UserError."""
    checkpoints = own_checkpoints(path.parent)
    if not checkpoints:
        raise UserError(f"{path}: no such file or folder")
    iterations = ends(load_checkpoint(checkpoints[-1])).get(epoch, 0)
    file = path.with_name(f"iter_{iterations:07d}.pdparams")
    if not file.is_file():
        names = ", ".join(file.name for file in checkpoints[-5:])
        raise UserError(f"{path}: no checkpoint after epoch {epoch} there, but {names}; give one")
    return file


def read_weights(path, model_net=""):
    """The dict of a checkpoint of this repository, or of published weights in its layout.

    Args: path, see `find`; model_net, which model they must be of; "" for any.
    Returns: {network: {name: array}, "architecture": ..., "model_net": a key of ROOMS, ...}.
    Raises: UserError where they are of another model or of no known family.
    """
    path = find(path)
    data = parts.contents(path)
    state = published.own(data, path)
    if state is None:
        result = read_published(path, model_net, data)
        return result.saved() | {"model_net": result.source["model_net"]}
    room = state.get("paper") or state.get("source", {}).get("model_net", "").lower()
    name = next((name for name, folder in rooms.ROOMS.items() if folder == room), None)
    if name is None or model_net not in ("", name):
        raise UserError(
            f"{path}: holds weights of {name or printable(room) or 'another paper'}, not of "
            f"{model_net or 'one of these models'}"
        )
    published.own_of(room, rooms.room(name).Architecture, state, path)
    return state | {"model_net": name}


def converters():
    """{model: its convert module} of the rooms that are here."""
    return {name: rooms.room(name, "convert") for name in rooms.names()}


def recognise(data, path):
    """The model that contents are of. Raises: UserError where they do not tell one."""
    models = [name for name, module in converters().items() if module.recognises(data)]
    if len(models) == 1:
        return models[0]
    choice = " or ".join(models) or "Pix2pix"
    raise UserError(f"{path}: does not tell its model; give --model_net, e.g. {choice}")


def read_published(path, model_net="", data=None, **further):
    """Read published weights.

    Args: path, a file or folder, see above; model_net, in any case, "" where the keys tell it;
        data, `parts.contents` of `path` where they are read already; further, what its room's
        read_published takes besides, such as discriminator=FILE.
    Returns: published.Published. Raises: UserError for files of no known family, and for missing,
        unexpected or mis-shaped keys.
    """
    data = parts.contents(path) if data is None else data
    name = rooms.spelling(model_net) if model_net else recognise(data, path)
    module = rooms.room(name, "convert")
    for flag in further:
        if flag not in inspect.signature(module.read_published).parameters:
            raise UserError(f"--{flag}: {name} has no such flag; leave it out")
    return module.read_published(path, data, **further)


def describe(result):
    """Lines on what was read."""
    yield f"{result.source['model_net']} of {result.family}: {', '.join(result.networks)}"
    yield ", ".join(f"{name} {value}" for name, value in result.architecture.to_dict().items())


def add_flags(p):
    """Add what the rooms' read_published take besides a path: files, words and numbers."""
    networks = []
    for module in converters().values():
        for parameter in list(inspect.signature(module.read_published).parameters.values())[2:]:
            flag = f"--{parameter.name}"
            if parameter.kind is parameter.VAR_KEYWORD or flag in p._option_string_actions:
                continue
            text = parameter.default == ""
            owner = module.__package__
            p.add_argument(flag, type=str if text else positive, help=f"of {owner}, see there")
            if parameter.name in ("discriminator", "encoder"):
                networks.append(parameter.name)
    p.set_defaults(further=networks)


def read(src, model_net, **further):
    """`read_published` of the command's flags, those that are given."""
    chosen = {name: value for name, value in further.items() if value is not None}
    return read_published(src, model_net, **chosen)


def main(argv=None):
    """Convert one file or folder, and print what it is and what was assumed."""
    p = published.parser(
        __doc__,
        src="published file or folder",
        dst="file to write, .pdparams: for test.py and train.py --init_model",
    )
    p.add_argument(
        "--model_net",
        default="",
        help=f"{', '.join(rooms.names())}; needed for the authors' files of Pix2Pix and CycleGAN, "
        "whose names are the same",
    )
    add_flags(p)
    published.convert(p, read, describe, argv)


if __name__ == "__main__":
    command(main)()
