"""Turn published AC-GAN weights into this repository's:   cd acgan && python convert.py SRC
DST.pdparams

| here                            | Callifrey: G_N.pdparams, D_N.pdparams | clvrai: netG_epoch_N.pth, netD_epoch_N.pth |
|---------------------------------|---------------------------------------|--------------------------------------------|
| G: fc1, tconv2 ...; D: conv1 ...| the same names; tconv7 at 128 px      | the same names; tconv6 at 128 px           |
| tconv{i}.0.bias, conv{i}.0.bias | the same                              | none                                       |
| {name}.1._mean, ._variance      | the same                              | running_mean, running_var                  |
| fc1, fc_dis, fc_aux: weight     | the same, (inputs, outputs)           | (outputs, inputs): transposed              |
| none                            | StructuredToParameterName@@: dropped  | num_batches_tracked: dropped               |

Each file holds one network. Its form is told by its biases; side, widths, length of z and classes
by its shapes. What no file tells is printed.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model import D_WIDTHS, G_WIDTHS, Architecture, Discriminator, Generator
from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.process import command
from shared_metrics.runs import checkpoint
from shared_metrics.unpickle import printable

# How each reproduction initialises its networks.
INIT = {"callifrey": "paddle", "clvrai": "clvrai"}
PUBLISHED_CLASSES = 10  # of every published run; a generator's file does not tell
EPOCH = re.compile(r"(?:[GD]_|net[GD]_epoch_)(\d+)")


@dataclass(frozen=True)
class Published:
    """What one published file, or G's and D's together, hold in this repository's names and
    layout.
    """

    architecture: Architecture
    generator: (
        dict | None
    )  # name -> float32 array, of Generator(architecture); None where only D's file was given
    discriminator: dict | None  # the same of Discriminator(architecture)
    source: dict  # file, sha256, family, epoch: plain values for records
    notes: tuple  # lines to show: what was assumed, or left unread


def read_published(path, discriminator="", num_classes=None):
    """Read a published generator or discriminator of either reproduction, recognised by its keys.

    Args: path, G's file or D's; discriminator, D's file where `path` is G's: it is never searched
        for; num_classes, of a G without its D, whose head would tell (None: 10, as published).
    Returns: Published. Raises: UserError for unknown, missing, unexpected or mis-shaped keys, and a
        D that is not G's.
    """
    state, d_path, notes = _state(path), discriminator or path, []
    G, D = (state, None) if _is_generator(state) else (None, state)
    if discriminator and G is None:
        raise UserError(
            f"{path}: holds a discriminator; give the generator's file, and this as --discriminator"
        )
    if discriminator:
        D = _state(discriminator)
        if _is_generator(D):
            raise UserError(
                f"--discriminator {discriminator}: holds a generator; give the file of D"
            )
    sizes = _g_sizes(G, path) if G else {}
    if D:
        found = _d_sizes(D, d_path)
        for name, words in (("form", "of the {} form"), ("imsize", "for {} px")):
            if sizes.get(name, found[name]) != found[name]:
                d_words, g_words = words.format(found[name]), words.format(sizes[name])
                raise UserError(
                    f"--discriminator {d_path}: D is {d_words}, the G of {path} {g_words}"
                )
        sizes |= found
    sizes["num_classes"] = _classes(sizes.get("num_classes"), num_classes, d_path, notes)
    try:
        arch = Architecture(fc_relu=False, init=INIT[sizes["form"]], **sizes)
    except UserError as error:
        raise UserError(f"{path}: its shapes make no network of this kind ({error})") from None
    for network, values, what, file in (
        (Generator, G, "generator", path),
        (Discriminator, D, "discriminator", d_path),
    ):
        if values:
            expected = {
                name: tuple(tensor.shape) for name, tensor in network(arch).state_dict().items()
            }
            weights.check_keys(expected, values, f"{what}, in the names used here", file)
    notes += _assumed(path, G, D)
    epoch = EPOCH.fullmatch(Path(path).stem)
    source = {"file": Path(path).name, "sha256": files.file_sha256(path), "family": arch.form}
    return Published(arch, G, D, source | {"epoch": int(epoch[1]) if epoch else None}, tuple(notes))


def read_weights(path):
    """The networks in a checkpoint of this repository, a converted or a published file, as one
    dict.

    Bare weights of one network, in the names used here, are read as Callifrey's or clvrai's:
    without ReLU after fc1.
    Returns: "generator" and/or "discriminator", "generator_ema" where the file has it, with
        "architecture" (a dict), "source", ...: the layout that this repository saves. Raises
        UserError.
    """
    data = weights.load(path)
    if (
        isinstance(data, dict)
        and "architecture" in data
        and ("generator" in data or "discriminator" in data)
    ):
        return checkpoint.verified(data, path) if "sha256" in data else data
    return as_saved(read_published(path))


def as_saved(published):
    """The dict that convert.py saves: generator and discriminator (where known), architecture,
    source.
    """
    nets = {"generator": published.generator, "discriminator": published.discriminator}
    nets = {name: state for name, state in nets.items() if state is not None}
    return nets | {"architecture": published.architecture.to_dict(), "source": published.source}


def _state(path):
    """One network's weights out of a published file: our names -> float32 arrays in Paddle's
    layout.

    Paddle's table of automatic names, StructuredToParameterName@@, is left out by weights.load
    already.
    """
    data = weights.load(path)
    if isinstance(data, dict) and "architecture" in data:
        raise UserError(f"{path}: is in this repository's layout already")
    state = {str(k): v for k, v in data.items()} if isinstance(data, dict) else {}
    numbers = all(
        isinstance(v, (np.ndarray, np.generic, int)) and np.asarray(v).dtype.kind in "iuf"
        for v in state.values()
    )
    if not numbers or not any(re.match(r"t?conv\d\.", k) for k in state):
        keys = (
            f"; its keys begin with {', '.join(map(printable, list(state)[:3]))}" if state else ""
        )
        raise UserError(
            f"{path}: holds no AC-GAN weights of a known family (Callifrey, clvrai){keys}"
        )
    torch = any(k.endswith(".running_mean") for k in state)
    result = {}
    for key, value in state.items():
        value = np.asarray(value, np.float32)
        if torch and key.endswith(".num_batches_tracked"):
            continue
        if torch:
            key = key.replace(".running_mean", "._mean").replace(".running_var", "._variance")
            value = value.T if re.fullmatch(r"fc\w+\.weight", key) else value
        result[key] = np.ascontiguousarray(value) if value.ndim else value
    return result


def _is_generator(state):
    return any(re.match(r"tconv\d\.", k) for k in state)


def _shape(state, key, dims, path):
    if key not in state or state[key].ndim != dims:
        raise UserError(f"{path}: lacks {key} (in the names used here) of {dims} dimensions")
    return state[key].shape


def _g_sizes(G, path):
    """{form, imsize, nz, ngf} of a generator: the side is told by its last layer's name and its
    first kernel.
    """
    form = "callifrey" if "tconv2.0.bias" in G else "clvrai"
    known = {}
    for side in G_WIDTHS[form]:
        rows = Architecture(imsize=side, form=form).g_layers()
        known[rows[-1][0], rows[0][3]] = side
    last = "tconv" + str(max(int(k[5]) for k in G if re.match(r"tconv\d\.", k)))
    kernel = _shape(G, "tconv2.0.weight", 4, path)[2]
    if (last, kernel) not in known:
        ways = ", ".join(f"{name} and {k}" for name, k in known)
        raise UserError(
            f"{path}: G ends at {last} and begins with a kernel of {kernel}; known for {form}: "
            f"{ways}"
        )
    imsize = known[last, kernel]
    nz, width = _shape(G, "fc1.weight", 2, path)
    return {
        "form": form,
        "imsize": imsize,
        "nz": nz,
        "ngf": width * 64 // G_WIDTHS[form][imsize][0],
    }


def _d_sizes(D, path):
    """{form, imsize, num_classes, ndf} of a discriminator: the side is told by the inputs of its
    heads.
    """
    form = "callifrey" if "conv1.0.bias" in D else "clvrai"
    ndf = _shape(D, "conv1.0.weight", 4, path)[0] * 64 // D_WIDTHS[0]
    inputs, classes = _shape(D, "fc_aux.weight", 2, path)
    known = {}
    for side in G_WIDTHS[form]:
        *_, channels, _, _, rest = Architecture(imsize=side, form=form, ndf=ndf).d_layers()[-1]
        known[channels * rest**2] = side
    if inputs not in known:
        ways = ", ".join(f"{n} for {side} px" for n, side in known.items())
        raise UserError(
            f"{path}: fc_aux takes {inputs} numbers; known for {form} at this width: {ways}"
        )
    return {"form": form, "imsize": known[inputs], "num_classes": classes, "ndf": ndf}


def _classes(head, given, d_path, notes):
    """The number of classes: that of D's head where D is known, else as given or as published."""
    if head is None:
        how = (
            "not in G's file: as published; --discriminator or --num_classes tells it"
            if given is None
            else "as given"
        )
        classes = PUBLISHED_CLASSES if given is None else given
        notes.append(f"{classes} classes ({how})")
        return classes
    if given is not None and given != head:
        raise UserError(
            f"--num_classes {given}: the D of {d_path} tells {head}; leave the flag out"
        )
    return head


def _assumed(path, G, D):
    """Lines on what the file does not tell, and on D's file beside G's, which is not read
    unasked.
    """
    if G is None:
        return ["no G: its width and length of z are taken as published, 64 and 110"]
    lines = ["no ReLU after fc1 (not in the file: as both reproductions)"]
    name = Path(path).name
    beside = Path(path).with_name(re.sub(r"^(net)?G_(?=(?:epoch_)?\d+\.)", r"\1D_", name))
    if D is None and beside.name != name and beside.exists():
        lines.append(
            f"{beside.name} lies beside it and was not read: --discriminator {beside} takes it"
        )
    return lines


def parse_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = p.add_argument
    add(
        "src",
        help="published file: Callifrey's G_N.pdparams or D_N.pdparams, clvrai's "
        "net{G,D}_epoch_N.pth",
    )
    add("dst", help="file to write, .pdparams: for test.py and train.py --pretrained_model")
    add(
        "--discriminator",
        default="",
        help="the file of D that belongs to the G of SRC (default: none)",
    )
    add(
        "--num_classes",
        type=int,
        help="of a G without --discriminator, whose head tells it (default: 10)",
    )
    return p.parse_args(argv)


def main(argv=None):
    """Convert one file, or G's and D's, into one, and print what it is and what was assumed."""
    a = parse_args(argv)
    for source in filter(None, (a.src, a.discriminator)):
        if Path(a.dst).exists() and Path(source).exists() and Path(a.dst).samefile(source):
            raise UserError(f"{a.dst}: is the source itself; give another name to write to")
    found = read_published(a.src, a.discriminator, a.num_classes)
    weights.save(as_saved(found), a.dst)
    arch = found.architecture
    print(f"{a.src}: {arch.form}, {arch.imsize} px, {arch.num_classes} classes")
    print(f"  G: width {arch.ngf}, nz {arch.nz}" if found.generator else "  G: none in the file")
    print(f"  D: width {arch.ndf}" if found.discriminator else "  D: none in the file")
    print("\n".join(f"  {note}" for note in found.notes), f"wrote {a.dst}", sep="\n")


if __name__ == "__main__":
    command(main)()
