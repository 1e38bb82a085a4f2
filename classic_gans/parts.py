"""Published files of CGAN, DCGAN, Pix2Pix and CycleGAN as {name of a network in the file: state}.

A path is a file; or a folder of PaddlePaddle 1.x with one raw file a variable; or a folder that
holds one such file or folder for each network, as net_G and net_D, or latest_net_G.pth.
"""

import re
from itertools import chain, islice
from pathlib import Path

from shared_metrics import files, fluid_files, published, weights
from shared_metrics.errors import UserError
from shared_metrics.unpickle import printable

NET_FILE = re.compile(r"(?:latest_)?net_?([GD](?:_?[AB])?)(?:\.pth|\.pdparams)?")
BARE = ""  # the name of a network that stands in a file without one
# PaddleCV's names: what else its files hold, and their last part.
OPTIMIZER = r"(_moment[12]_\d+|_beta[12]_pow_acc_\d+)$"
LEAVES = {"w": "weight", "b": "bias", "mean": "_mean", "var": "_variance"}
LEAVES |= {"scale": "scale", "offset": "bias"}
LEAF = f"({'|'.join(LEAVES)})$"


def contents(path):
    """What a path holds: a file's contents, {variable: array} of a folder of raw files, or {"G":
    the same, ...} of a folder of several networks.
    """
    path = Path(path)
    if not path.is_dir():
        return weights.load(path)
    places = {m[1]: p for p in sorted(path.iterdir()) if (m := NET_FILE.fullmatch(p.name))}
    if not places:
        return fluid_files.load_folder(path)
    result = {}
    for name, place in places.items():
        result[short_name(name)] = contents(place)
        if BARE not in split(result[short_name(name)], place):
            raise UserError(f"{place}: holds several networks; give it alone, not its folder")
    return result


def split(data, path):
    """{name of a network, or BARE: {key: array}} of contents. Raises: UserError.

    PaddleGAN's files hold a dict of networks, the others one network's dict.
    """
    if isinstance(data, dict) and "architecture" in data:
        raise UserError(f"{path}: is in this repository's layout already")
    networks = {}
    for key, value in data.items() if isinstance(data, dict) else ():
        if isinstance(value, dict) and re.fullmatch(r"(net)?[GD](_[AB])?", str(key)):
            networks[key.removeprefix("net")] = published.arrays(value)
    return networks or {BARE: published.arrays(data)}


def short_name(name):
    """G, D, G_A ... of PaddleCV's DA and DB, too."""
    return f"{name[0]}_{name[-1]}" if len(name) > 1 else name


def holds(data, pattern):
    """Whether some key in contents matches a regular expression."""
    keys = chain.from_iterable(split(data, "").values())
    return any(re.search(pattern, key) for key in keys)


def paddlecv(parts, prefixes, table):
    """{network: {our name: array}} of PaddleCV's variables, {} where there are none.

    A file of a generator also holds the discriminators of its program; they count where the file is
    theirs. Args: prefixes, {network: what its names begin with}; table, see published.rename.
    """
    states = {}
    for name, part in parts.items():
        part = {key: value for key, value in part.items() if not re.search(OPTIMIZER, key)}
        here = {}
        for net, prefix in prefixes.items():
            here[net] = {key: value for key, value in part.items() if re.match(prefix, key)}
        generators = [net for net in here if net.startswith("generator") and here[net]]
        wanted = "discriminator" if name.startswith("D") or not generators else "generator"
        for net, state in here.items():
            if net.startswith(wanted) and state:
                states[net] = published.rename(state, table)
    return states


def digits(match):
    """The layers of CGAN and DCGAN: G_l1_norm_w."""
    layer, leaf = match.groups()
    return f"{layer}.{LEAVES[leaf]}"


DIGITS = {rf"^[GD]_(\w+?)_{LEAF}": digits}


def side_of(features, width):
    """The side of `width` square maps that lie in a row of features."""
    return round((features / max(1, width)) ** 0.5)


def finish(path, model_net, family, build, values, states, networks, parts):
    """Published of states in our names, whose shapes fit. Raises: UserError."""
    if not states:
        keys = islice(chain.from_iterable(parts.values()), 4)
        shown = ", ".join(printable(key) for key in keys)
        raise UserError(
            f"{path}: holds no {model_net} weights of a known family; keys such as {shown}"
        )
    arch = published.architecture(path, build, **values)
    published.check_shapes(states, networks, arch, dict.fromkeys(states, path))
    sha256 = files.digest(parts) if Path(path).is_dir() else files.file_sha256(path)
    source = {"file": Path(path).name, "sha256": sha256, "family": family, "model_net": model_net}
    notes = []
    unread = sum(map(len, parts.values())) - sum(map(len, states.values()))
    if family == "paddlecv" and unread:
        notes.append(f"{unread} variables left out: the optimizer's, or of other networks")
    if getattr(arch, "net_G", "").startswith("unet"):
        notes.append(f"dropout {arch.dropout} (not in the file: as its authors train)")
    return published.Published(family, arch, states, source, notes)
