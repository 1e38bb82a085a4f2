"""Turn published AC-GAN weights into this repository's:   python convert.py SRC DST.pdparams

| here                             | Callifrey: {G,D}_N.pdparams | clvrai: net{G,D}_epoch_N.pth |
|----------------------------------|-----------------------------|------------------------------|
| G: fc1, tconv2 ...; D: conv1 ... | the same                    | the same                     |
| last layer of G at 128 px        | tconv7                      | tconv6                       |
| tconv{i}.0.bias, conv{i}.0.bias  | the same                    | none                         |
| {name}.1._mean, ._variance       | the same                    | running_mean, running_var    |
| fc1, fc_dis, fc_aux: weight      | (inputs, outputs)           | (outputs, inputs)            |
| none                             | none                        | num_batches_tracked: dropped |

Each file holds one network. Its form is told by its biases; side, widths, length of z and classes
by its shapes. What no file tells is printed.
"""

import re
from pathlib import Path

from model import D_WIDTHS, G_WIDTHS, Architecture, Discriminator, Generator
from shared_metrics import flags, published, weights
from shared_metrics.errors import UserError
from shared_metrics.process import command

FAMILIES = {
    "callifrey": {"generator": [r"^tconv2\.0\.bias$"], "discriminator": [r"^conv1\.0\.bias$"]},
    "clvrai": {"generator": [r"^tconv\d\."], "discriminator": [r"^conv\d\."]},
}
NETWORKS = {"generator": Generator, "discriminator": Discriminator}
INIT = {"callifrey": "paddle", "clvrai": "clvrai"}  # how each initialises its networks
PUBLISHED_CLASSES = 10  # of every published run; a generator's file does not tell
EPOCH = re.compile(r"(?:[GD]_|net[GD]_epoch_)(\d+)")


def read_published(path, discriminator="", num_classes=None, data=None):
    """Read a published generator or discriminator of either reproduction, recognised by its keys.

    Args: path, G's file or D's; discriminator, D's file where `path` is G's: it is never searched
        for; num_classes, of a G without its D, whose head would tell (None: 10, as published);
        data, the contents of `path` where they are read already.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys, and a D that is not G's.
    """
    states, files = published.gather(path, _split, data, discriminator=discriminator)
    sizes = {}
    for net, state in states.items():
        form, _ = published.recognise(state, FAMILIES, "AC-GAN", files[net])
        torch = any(key.endswith(".running_mean") for key in state)
        state = published.rename(state, {}, torch, transposed=r"fc\w+\.weight")
        read_sizes = _g_sizes if net == "generator" else _d_sizes
        sizes[net] = read_sizes(state, form, files[net])
        states[net] = state
    published.agree(sizes, {"form": "of the {} form", "imsize": "for {} px"}, files)

    notes = []
    values = sizes.get("generator", {}) | sizes.get("discriminator", {})
    form = values["form"]
    values["num_classes"] = _classes(values.get("num_classes"), num_classes, files, notes)
    arch = published.architecture(path, Architecture, fc_relu=False, init=INIT[form], **values)
    published.check_shapes(states, NETWORKS, arch, files)
    notes += _assumed(path, states)
    epoch = EPOCH.fullmatch(Path(path).stem)
    source = published.source(path, form, epoch=int(epoch[1]) if epoch else None)
    return published.Published(form, arch, states, source, notes)


def read_weights(path):
    """The networks in a checkpoint of this repository, a converted or a published file.

    Bare weights of one network, in the names used here, are read as Callifrey's or clvrai's:
    without ReLU after fc1.
    Returns: the layout that this repository saves, a dict: "generator" and/or "discriminator",
        "generator_ema" where the file has it, "architecture" (a dict), "source", ... Raises:
        UserError.
    """
    data = weights.load(path)
    own = published.own_of("acgan", Architecture, data, path)
    return read_published(path, data=data).saved() if own is None else own


def _split(data, path):
    """{"generator" or "discriminator": {key: array}} of a file's one network."""
    state = published.arrays(data)
    _, net = published.recognise(state, FAMILIES, "AC-GAN", path)
    return {net: state}


def _g_sizes(G, form, path):
    """What G's shapes tell; the side by its last layer's name and its first kernel."""
    sides = {}
    for side in G_WIDTHS[form]:
        rows = Architecture(imsize=side, form=form).g_layers()
        sides[rows[-1][0], rows[0][3]] = side
    last = max(key.partition(".")[0] for key in G if key.startswith("tconv"))
    kernel = published.shape(G, "tconv2.0.weight", 4, path)[2]
    if (last, kernel) not in sides:
        ways = ", ".join(f"{name} and {k}" for name, k in sides)
        raise UserError(
            f"{path}: G ends at {last} and begins with a kernel of {kernel}; known for {form}: "
            f"{ways}"
        )
    imsize = sides[last, kernel]
    nz, width = published.shape(G, "fc1.weight", 2, path)
    ngf = width * 64 // G_WIDTHS[form][imsize][0]
    return {"form": form, "imsize": imsize, "nz": nz, "ngf": ngf}


def _d_sizes(D, form, path):
    """What D's shapes tell; the side by the inputs of its heads."""
    ndf = published.shape(D, "conv1.0.weight", 4, path)[0] * 64 // D_WIDTHS[0]
    inputs, classes = published.shape(D, "fc_aux.weight", 2, path)
    sides = {}
    for side in G_WIDTHS[form]:
        _, _, channels, _, _, rest = Architecture(imsize=side, form=form, ndf=ndf).d_layers()[-1]
        sides[channels * rest**2] = side
    if inputs not in sides:
        ways = ", ".join(f"{n} for {side} px" for n, side in sides.items())
        raise UserError(
            f"{path}: fc_aux takes {inputs} numbers; known for {form} at this width: {ways}"
        )
    return {"form": form, "imsize": sides[inputs], "num_classes": classes, "ndf": ndf}


def _classes(head, flag, files, notes):
    """The number of classes: that of D's head where D is known, else as given or as published."""
    if head is None:
        how = "not in G's file: as published; --discriminator or --num_classes tells it"
        classes = PUBLISHED_CLASSES if flag is None else flag
        notes.append(f"{classes} classes ({how if flag is None else 'as given'})")
        return classes
    if flag not in (None, head):
        raise UserError(
            f"--num_classes {flag}: the D of {files['discriminator']} tells {head}; leave the flag "
            "out"
        )
    return head


def _assumed(path, states):
    """Lines on what the file does not tell, and on D's file beside G's, never read unasked."""
    if "generator" not in states:
        return ["no G: its width and length of z are taken as published, 64 and 110"]
    lines = ["no ReLU after fc1 (not in the file: as both reproductions)"]
    name = Path(path).name
    beside = Path(path).with_name(re.sub(r"^(net)?G_(?=(?:epoch_)?\d+\.)", r"\1D_", name))
    if "discriminator" not in states and beside.name != name and beside.exists():
        lines.append(
            f"{beside.name} lies beside it and was not read: --discriminator {beside} takes it"
        )
    return lines


def main(argv=None):
    """Convert one file, or G's and D's, into one, and print what it is and what was assumed."""
    p = published.parser(
        __doc__,
        src="published file: Callifrey's {G,D}_N.pdparams, clvrai's net{G,D}_epoch_N.pth",
        dst="file to write, .pdparams: for test.py and train.py --pretrained_model",
        discriminator="the file of D that belongs to the G of SRC (default: none)",
    )
    p.add_argument(
        "--num_classes",
        type=flags.CLASSES,
        help="of a G without --discriminator, whose head tells it (default: 10)",
    )
    published.convert(p, read_published, _describe, argv)


def _describe(result):
    arch = result.architecture
    lines = {"generator": f"width {arch.ngf}, nz {arch.nz}", "discriminator": f"width {arch.ndf}"}
    yield f"{arch.form}, {arch.imsize} px, {arch.num_classes} classes"
    for net, line in lines.items():
        yield f"{net[0].upper()}: {line if net in result.networks else 'none in the file'}"


if __name__ == "__main__":
    command(main)()
