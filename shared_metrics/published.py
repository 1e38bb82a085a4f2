"""Published weights under this repository's names: what every convert.py does round its own tables.

A convert.py holds the keys of each family, the tables that rename them and what only its paper has
(folded layers, colour order, sizes read from shapes). Round them go, in this order,

    states, files = gather(path, split, discriminator=d_path)   # each file read once
    family, network = recognise(states["generator"], FAMILIES, "PAPER", path)
    G = rename(states["generator"], RENAMES[family], torch=True, transposed=r"fc\\.weight")
    arch = architecture(path, Architecture, nz=shape(G, "fc.weight", 2, path)[0], ...)
    check_shapes({"generator": G}, {"generator": Generator}, arch, files)
    Published(family, arch, {"generator": G}, source(path, family), notes).saved()

and `parser` and `convert` for the command. Nothing of a file is executed: see weights.load.
"""

import argparse
import math
import operator
import re
import sys
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal, NewType, get_args, get_origin, get_type_hints

import numpy as np

from shared_metrics import needs, process, weights
from shared_metrics.errors import UserError
from shared_metrics.files import file_sha256, shown
from shared_metrics.flags import version_flag
from shared_metrics.outputs import check_file
from shared_metrics.runs import checkpoint, entries
from shared_metrics.unpickle import printable

DATA_PARALLEL = r"\bmodule\."  # what torch's DataParallel puts before the names of its network
TORCH = {r"\brunning_mean$": "_mean", r"\brunning_var$": "_variance"}  # of BatchNorm, here: Paddle


# Fields of PlainFields, which are a file's word. An int is a size, from 1 on.
Count = NewType("Count", int)  # which may be 0
Depth = NewType("Depth", int)  # of layers: so many are built in no time
MOST = {int: 2**16, Count: 2**16, Depth: 100}


class PlainFields:
    """Base of a dataclass of plain values that checkpoints keep, such as `model.Architecture`."""

    def to_dict(self):
        """Plain numbers, strings and lists, for checkpoints and JSON."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values):
        """The inverse of `to_dict`.

        Raises: UserError on unknown or missing entries, and on values that are not of their field's
            type: bool, str, Literal, int, `Count` and `Depth` (up to MOST), float (finite, at least
            0), tuple (of at most 100 ints).
        """
        names = {field.name for field in fields(cls)}
        odd = sorted(map(str, names ^ set(values if isinstance(values, dict) else ())))
        if odd:
            raise UserError(
                f"architecture: entries {odd} are unknown or missing; the file is from another "
                "version"
            )
        for name, kind in get_type_hints(cls).items():
            if not _fits(values[name], kind):
                raise UserError(
                    f"architecture: {name} cannot be {printable(values[name])}; the file is "
                    "damaged or from another version"
                )
        return cls(**values)

    def check_same(self, state, source, ignored=(), alike=operator.eq):
        """Networks of other semantics can have weights of the same shapes: never mix them.

        Args: state, what the file holds, which may lack an "architecture"; source, its name;
            ignored, fields that may differ; alike, function that says whether two values mean the
            same.
        Raises: UserError naming the file and what differs.
        """
        if "architecture" not in state:
            return
        theirs = state["architecture"]
        wrong = []
        for name, ours in self.to_dict().items():
            if name not in ignored and not alike(theirs.get(name), ours):
                wrong.append(f"{name} {printable(theirs.get(name))} there, {ours} here")
        if wrong:
            raise UserError(
                f"{source}: weights of another network ({'; '.join(wrong)}). Give the --recipe or "
                "the flags they belong to"
            )


def _fits(value, kind):
    if get_origin(kind) is Literal:
        return type(value) in (str, int) and value in get_args(kind)
    if kind is tuple:
        listed = isinstance(value, (list, tuple)) and len(value) <= 100
        return listed and all(_fits(item, int) for item in value)
    if kind is float:
        return type(value) in (int, float) and 0 <= value < math.inf
    if kind in MOST:
        return type(value) is int and (kind is not Count) <= value <= MOST[kind]
    return type(value) is kind


@dataclass(frozen=True)
class Published:
    """What published files hold, in this repository's names and layout."""

    family: str
    architecture: PlainFields
    networks: dict  # {"generator": {name: float32 array}, "discriminator": ..., ...}
    source: dict  # see `source`
    notes: list  # lines to show: what was assumed, folded or dropped

    def saved(self):
        """The dict that convert.py saves and read_weights gives: the layout of checkpoints."""
        about = {"architecture": self.architecture.to_dict(), "source": self.source}
        return self.networks | about


def source(path, family, **more):
    """Where weights come from, for records: {"file", "sha256", "family"} and `more`."""
    path = Path(path)
    return {"file": path.name, "sha256": file_sha256(path), "family": family} | more


# ---- files ----


def own(data, path):
    """`data`, the contents of `path`, if in this repository's layout, or None.

    Its types are checked and, of a training checkpoint, its sha256; what convert.py writes has
    none. Raises: UserError.
    """
    if not isinstance(data, dict) or "architecture" not in data:
        return None
    if not any(str(name).startswith(("generator", "discriminator")) for name in data):
        return None
    entries.check(data, path)
    return checkpoint.verified(data, path) if "sha256" in data else data


def own_of(paper, build, data, path):
    """The same of one paper. Args: paper, its name; build, its Architecture.

    Raises: UserError naming the file, and whose it is.
    """
    state = own(data, path)
    if state is None:
        return None
    entries.check_paper(state, paper, path)
    try:
        build.from_dict(state["architecture"])
    except UserError as error:
        raise UserError(f"{path}: no weights of {paper} ({error})") from None
    return state


def generators_alone(state, path):
    """What draws of a file in this repository's layout, small enough to hand on.

    The averaged G where there is one, weights in float16 (vectors, such as BatchNorm's statistics,
    stay float32), what tells the networks and the training, and "source"; no D, no optimizer, no
    pictures, and of the training's paths the last part alone.
    Args: state, see `own`; path, its file.
    Raises: UserError for a file without a generator.
    """
    need_generator(state, path)
    names = [name for name in state if name.startswith(("generator", "encoder"))]
    networks = {name: _half(state[name]) for name in names}
    averaged = "generator_ema" in networks
    if averaged:
        networks["generator"] = networks.pop("generator_ema")
    about = {k: v for k, v in state.items() if k not in names and not _holds_arrays(v)}
    for name in ("format", "optimizer_g", "optimizer_d", "scaler_g", "scaler_d", "best"):
        about.pop(name, None)
    if "args" in about:
        about["args"] = {name: _last_part(value) for name, value in about["args"].items()}
    family = {"ema": averaged} if averaged or "source" not in state else {}
    about["source"] = state.get("source", source(path, "this repository's")) | family
    return networks | about


def _half(network):
    """The arrays of a network, those of two and more dimensions as float16 where they fit in it."""
    half = {}
    for name, array in network.items():
        with np.errstate(over="ignore"):
            small = array.astype(np.float16) if array.ndim > 1 else array
        half[name] = small if np.isfinite(small).all() else array
    return half


def _holds_arrays(value):
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, np.ndarray) or (
        isinstance(value, (list, tuple)) and any(map(_holds_arrays, value))
    )


def _last_part(value):
    """A text that is an absolute path without its folders, in a list too; all else as it is."""
    if isinstance(value, list):
        return [_last_part(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def gather(path, split, data=None, **further):
    """The states of the networks in a published file and in further ones, and their files.

    Args: split, a function (contents, path) -> {network: {key: array}}; data, the contents of
        `path` where they are read already; further, {network: its file, or ""}, by flag.
    Returns: {network: {key: array}}, {network: file}. Raises: UserError for a file in this
        repository's layout, and for a further one that lacks its network.
    """
    states = split(_foreign(path, data), path)
    if any(further.values()):
        need_generator(states, path)
    places = dict.fromkeys(states, path)
    for network, file in further.items():
        if file:
            others = split(_foreign(file), file)
            if network not in others:
                raise UserError(
                    f"--{network} {file}: holds no {network}, but {' and '.join(others)} weights"
                )
            states[network] = others[network]
            places[network] = file
    return states, places


def _foreign(path, data=None):
    data = weights.load(path) if data is None else data
    if own(data, path) is not None:
        raise UserError(f"{path}: is in this repository's layout already")
    return data


def need_generator(states, path):
    """Raise UserError where there is no generator among the networks of a file."""
    if not any(network.startswith("generator") for network in states):
        network = next(iter(states))
        raise UserError(
            f"{path}: holds {network} weights only; give the generator's file, and this as "
            f"--{network}"
        )


def count(value):
    """A file's number of steps as a whole number, None where it tells none."""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(value, str) and re.fullmatch(r"\d{1,15}", value):
        return int(value)
    return int(value) if type(value) in (int, float) and 0 <= value < 2**53 else None


def arrays(state, prefix=r"(?!)"):
    """{key: array} of a flat state dict, without what matches `prefix` in its keys.

    Returns: {} where `state` is no dict of numeric arrays, none of them empty: `recognise` refuses
        it.
    """
    result = {}
    for key, value in state.items() if isinstance(state, dict) else ():
        value = np.asarray(value) if isinstance(value, (np.ndarray, np.generic, int)) else None
        if value is None or value.dtype.kind not in "biuf" or not value.size:
            return {}
        result[_new(re.sub(prefix, "", str(key)), result)] = value
    return result


def _new(name, state):
    """`name`, or one that no network has, where two entries of a file become one."""
    return f"{name} (twice)" if name in state else name


# ---- keys ----


def matches(state, patterns):
    """Whether each regular expression is found in some key of `state`."""
    return all(any(re.search(pattern, key) for key in state) for pattern in patterns)


def recognise(state, families, paper, path):
    """(family, network) of a flat state dict, the first that matches.

    Args: families, {family: {network: [regular expressions, each found in some key]}}; paper, its
        name and path, the file, for the message.
    Raises: UserError where none matches.
    """
    for family, networks in families.items():
        for network, patterns in networks.items():
            if matches(state, patterns):
                return family, network
    first = ", ".join(printable(key) for key in list(state)[:3])
    keys = f"; its keys begin with {first}" if first else ""
    raise UserError(
        f"{path}: holds no {paper} weights of a known family ({', '.join(families)}){keys}"
    )


def rename(state, table, torch=False, transposed=r"(?!)", dropped=r"\bnum_batches_tracked$"):
    """{our name: float32 array in Paddle's layout} of one network's state dict.

    Args: table, {regular expression: replacement}, applied to every key, one after the other;
        torch, whether the file's names of BatchNorm's averages and layout of linear weights are
        torch's; transposed, a regular expression of those weights, in our names; dropped, one of
        keys to leave out.
    """
    result = {}
    for key, value in state.items():
        if re.search(dropped, key):
            continue
        name = key
        for pattern, replacement in (table | TORCH if torch else table).items():
            name = re.sub(pattern, replacement, name)
        if torch and value.ndim == 2 and re.fullmatch(transposed, name):
            value = value.T
        with np.errstate(over="ignore"):  # an infinity, which check_shapes tells
            # whose copies of a number, [], are of shape [1]
            result[_new(name, result)] = np.ascontiguousarray(value, np.float32)
    return result


# ---- shapes ----


def shape(state, key, dims, path):
    """The shape of an entry, by our name. Raises UserError where it is absent or not of `dims`."""
    if key not in state or state[key].ndim != dims:
        raise UserError(f"{path}: lacks {key} (in the names used here) of {dims} dimensions")
    return state[key].shape


def agree(sizes, phrases, files):
    """Raise UserError where G and D, if there are both, are of networks that differ.

    Args: sizes, {network: {name: value}}; phrases, {name to compare: "for {} px"}; files, {network:
        its file}.
    """
    if not sizes.keys() >= {"generator", "discriminator"}:
        return
    g_file = files["generator"]
    d_file = files["discriminator"]
    flag = "" if g_file == d_file else "--discriminator "
    for name, phrase in phrases.items():
        G = sizes["generator"][name]
        D = sizes["discriminator"][name]
        if G != D:
            raise UserError(
                f"{flag}{d_file}: D is {phrase.format(D)}, the G of {g_file} {phrase.format(G)}"
            )


def architecture(path, build, **values):
    """build(**values), the architecture that the shapes of a file tell.

    Raises: UserError naming the file where they make none.
    """
    try:
        arch = build(**values)
        return arch.from_dict(arch.to_dict())  # which looks at each value
    except UserError as error:
        raise UserError(f"{path}: its shapes make no network of this kind ({error})") from None


def check_shapes(states, networks, arch, files):
    """Refuse weights that do not fit their networks; nothing of those is drawn for that.

    Args: states, {network: {our name: array}}; networks, {network: class, or function of arch};
        files, {network: its file}.
    Raises: UserError, see weights.check_keys and check_values.
    """
    for name, state in states.items():
        shapes = weights.shapes_of(partial(networks[name], arch))
        what = f"{name}, in the names used here"
        weights.check_keys(shapes, state, what, files[name])
        weights.check_values(state, what, files[name])


def note(name, value, chosen, flag=None):
    """The line on a value that no file tells: chosen by the user, or else the family's."""
    how = f"not in the file: by family; convert.py --{flag or name} changes it"
    return f"{name} {value} ({'as given' if chosen else how})"


# ---- the command ----


def parser(doc, src, dst, **further):
    """The flags of every convert.py: SRC, DST and a file for each network in `further`.

    Args: doc, the module's docstring; src, dst and {network: ...}, help.
    """
    p = argparse.ArgumentParser(description=doc.partition("\n")[0], allow_abbrev=False)
    version_flag(p)
    p.add_argument("src", help=src)
    p.add_argument("dst", help=dst)
    for network, text in further.items():
        p.add_argument(f"--{network}", default="", help=text)
    p.add_argument("--overwrite", action="store_true", help="replace DST where it is there")
    p.set_defaults(further=tuple(further))
    return p


def convert(p, read, describe, argv=None):
    """Convert one file, or several into one, and print what it is and what was assumed. Of a file
    in this repository's layout, a checkpoint, write `generators_alone`.

    Args: p, `parser` with the paper's own flags; read(src, **flags) gives Published; describe gives
        lines on one, the first of which follows the file's name.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    args = vars(p.parse_args(words))
    flags = needs.given(p, words)
    process.import_paddle()  # before any other does, so that SIGTERM stays ours
    src = args.pop("src")
    reads = (src, *(args[network] for network in args.pop("further")))
    dst = check_file(args.pop("dst"), overwrite=args.pop("overwrite"), reads=reads)
    ours = own(weights.load(src), src) if Path(src).is_file() else None
    if ours is not None:
        for name in flags.keys() - {"overwrite", "model_net"}:
            raise UserError(
                f"{flags[name]}: has no effect on {src}, which tells all by itself; leave it out"
            )
        weights.save(generators_alone(ours, src), dst)
        print(shown(f"{src}: the generator alone, its weights as float16"))
        return print(f"wrote {dst}")
    published = read(src, **args)
    weights.save(published.saved(), dst)
    first, *lines = describe(published)
    print(shown(f"{src}: {first}"))
    for line in (*lines, *published.notes):
        print(shown(f"  {line}"))
    print(f"wrote {dst}")
