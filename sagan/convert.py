"""Turn published SAGAN weights into this repository's:   python convert.py SRC DST.pdparams

| here               | atmosphere, voletiv | studiogan (older keys)  | mmgen: MMGeneration, MMagic |
|--------------------|---------------------|-------------------------|-----------------------------|
| G: snlinear0       | snlinear0           | linear0                 | noise2feat                  |
| block{n}           | block{n}            | blocks.{i}.0            | conv_blocks.{i}             |
| - cond_bn{1,2}.bn  | cond_bn{1,2}.bn     | bn{1,2}.bn              | norm_{1,2}.norm             |
| - cond_bn{1,2}.*   | embed               | gain, bias (embed{0,1}) | {weight,bias}_embedding     |
| - snconv2d{0,1,2}  | snconv2d{0,1,2}     | conv2d{0,1,2}           | {shortcut,conv_{1,2}}.conv  |
| self_attn.{side}   | self_attn           | blocks.{i}.0            | conv_blocks.{i}             |
| - sigma            | sigma               | sigma                   | gamma                       |
| - snconv1x1_{part} | snconv1x1_{part}    | conv1x1_{part}          | {theta,phi,g,o}.conv        |
| bn, snconv2d1      | bn, snconv2d1       | bn4, conv2d5            | to_rgb.bn, to_rgb.conv      |
| D: opt_block1      | opt_block1          | blocks.0.0              | from_rgb                    |
| snlinear1          | snlinear1           | linear1                 | decision                    |
| sn_embedding1      | sn_embedding1       | embedding               | proj_y                      |

Layout: torch's linear weights are transposed; StudioGAN's later gain and bias are linear layers on
one-hot labels, so they are transposed and their u and v change places; sigma [] becomes [1];
num_batches_tracked is dropped. Sizes, classes, attention and cBN's form are read from the file;
what it cannot tell is printed with the flag that changes it.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from model import D_WIDTHS, G_WIDTHS, Architecture, Discriminator, Generator, architecture
from shared_metrics import flags, process, published, weights
from shared_metrics.errors import UserError
from shared_metrics.process import command

# fmt: off
FAMILIES = {  # by keys of their generators and discriminators
    "atmosphere": {"generator": [r"^snlinear0\.", r"\._mean$"], "discriminator": [r"^snlinear1\."]},
    "voletiv":    {"generator": [r"^snlinear0\."],              "discriminator": [r"^snlinear1\."]},
    "studiogan":  {"generator": [r"^linear0\."],                "discriminator": [r"^linear1\."]},
    "mmgen":      {"generator": [r"^noise2feat\."],             "discriminator": [r"^decision\."]},
}
# fmt: on
NETWORKS = {"generator": Generator, "discriminator": Discriminator}
# An entry of a network is a residual block or attention (which has a `sigma` or `gamma`).
ENTRY = {
    "atmosphere": r"block\d+|self_attn",
    "voletiv": r"block\d+|self_attn",
    "studiogan": r"blocks\.\d+\.0",
    "mmgen": r"conv_blocks\.\d+",
}
# What MMGeneration's published names tell of the ReLU in D's blocks, and of StudioGAN's weights.
RELU = re.compile(r"(?:^|[_-])(wo|w)rel?uinplace")
STUDIO = re.compile(r"cvt|convert-studio")
# All other names, after the entries have theirs.
RENAMES = {
    "atmosphere": {},
    "voletiv": {},
    "studiogan": {
        r"^linear([01])\.": r"snlinear\1.",
        r"^bn4\.": "bn.",
        r"^conv2d5\.": "snconv2d1.",
        r"^embedding\.": "sn_embedding1.",
        r"\.bn([12])\.bn\.": r".cond_bn\1.bn.",
        r"\.bn([12])\.(gain|embed0)\.": r".cond_bn\1.gain.",
        r"\.bn([12])\.(bias|embed1)\.": r".cond_bn\1.bias.",
        r"\.conv2d([012])\.": r".snconv2d\1.",
        r"\.conv1x1_": ".snconv1x1_",
    },
    "mmgen": {
        r"^noise2feat\.": "snlinear0.",
        r"^to_rgb\.bn\.": "bn.",
        r"^to_rgb\.conv\.": "snconv2d1.",
        r"^from_rgb\.": "opt_block1.",
        r"^decision\.": "snlinear1.",
        r"^proj_y\.": "sn_embedding1.",
        r"\.norm_([12])\.norm\.": r".cond_bn\1.bn.",
        r"\.norm_([12])\.weight_embedding\.": r".cond_bn\1.gain.",
        r"\.norm_([12])\.bias_embedding\.": r".cond_bn\1.bias.",
        r"\.conv_([12])\.conv\.": r".snconv2d\1.",
        r"\.shortcut\.conv\.": ".snconv2d0.",
        r"\.gamma$": ".sigma",
        r"\.o\.conv\.": ".snconv1x1_attn.",
        r"\.(theta|phi|g)\.conv\.": r".snconv1x1_\1.",
    },
}


def read_published(path, discriminator="", ema=None, color_order="auto", data=None, **changes):
    """Read a published checkpoint of any family above, recognised by its keys.

    Args: discriminator, a second file with D (StudioGAN keeps it apart); ema, True or False: insist
        on the averaged or the raw generator (None: averaged where there is one); color_order, of
        the file's images: auto, rgb or bgr; data, the contents of `path` where they are read
        already; changes, what no file tells (bn_eps, sn_eps of every layer, skip_relu) instead of
        its family's value, where not None.
    Returns: published.Published, whose networks speak RGB. Raises: UserError for unknown, missing,
        unexpected or mis-shaped keys.
    """
    data = weights.load(path) if data is None else data
    states, files = published.gather(path, _split, data, discriminator=discriminator)
    averaged = _choose_average(states, ema, path)
    family, _ = published.recognise(states["generator"], FAMILIES, "SAGAN", path)
    keys = FAMILIES[family]["discriminator"]
    if discriminator and not published.matches(states["discriminator"], keys):
        raise UserError(
            f"--discriminator {discriminator}: holds no discriminator of the {family} family"
        )
    sizes = {}
    for net in states:
        states[net], sizes[net] = _rename(states[net], family, net, files[net])
    published.agree(sizes, {"imsize": "for {} px"}, files)

    notes = []
    sizes = sizes["generator"] | sizes.get("discriminator", {})
    arch = _architecture(states["generator"], family, sizes, changes, path, notes)
    if family == "atmosphere":
        _fold_affine(states["generator"], notes)
    _drop_dead_skips(states.get("discriminator", {}), arch, notes)
    order = _color_order(family, path, color_order, notes)
    _warn_of_name(family, path, states, color_order, changes)
    # Paddle draws orthogonal matrices even where no values are wanted: seconds for nothing.
    published.check_shapes(states, NETWORKS, replace(arch, init="xavier"), files)
    if order == "bgr":
        _swap_colors(**states)
    about = {"iteration": _iteration(data, path), "ema": averaged, "color_order": order}
    source = published.source(path, family, **about)
    return published.Published(family, arch, states, source, notes)


def read_weights(path, ema=None):
    """The networks in a checkpoint, a converted, a published or a bare file of this repository's.

    Args: ema, see `read_published`; a file of this repository's brings both generators.
    Returns: the layout that this repository saves, a dict: "generator" and, where the file has
        them, "generator_ema", "discriminator", "architecture" (a dict; absent for bare generator
        weights), "source", ... Raises: UserError.
    """
    data = weights.load(path)
    own = published.own_of("sagan", Architecture, data, path)
    if own is not None:
        return own
    # Bare weights: attention is numbered here, and never absent in the originals.
    if isinstance(data, dict) and "snlinear0.weight_orig" in data and "self_attn.sigma" not in data:
        return {"generator": data}
    return read_published(path, ema=ema, data=data).saved()


# ---- what stands where in a file ----


def _split(data, path):
    """{"generator": {key: array}, "generator_ema": ..., "discriminator": ...} of a file's dict."""
    data = data if isinstance(data, dict) else {}
    if "G_state_dict" in data:
        states = {"generator": _arrays(data["G_state_dict"])}
        if data.get("D_state_dict") is not None:
            states["discriminator"] = _arrays(data["D_state_dict"])
        return states
    state = _arrays(data.get("state_dict", data))
    state.pop("generator_ema.steps", None)  # MMagic's count of averaging steps
    nets = ("generator", "generator_ema", "discriminator")
    if not any(key.partition(".")[0] in nets for key in state):  # a file of one network
        _, net = published.recognise(state, FAMILIES, "SAGAN", path)
        return {net: state}
    states = {}
    for key, value in state.items():
        net, _, rest = key.partition(".")
        states.setdefault(net, {})[rest] = value
    unknown = ", ".join(sorted(set(states) - set(nets))[:8])
    if unknown:
        raise UserError(f"{path}: unexpected keys beside generator and discriminator: {unknown}")
    return states


def _arrays(state):
    return published.arrays(state, published.DATA_PARALLEL)


def _choose_average(states, ema, path):
    """Leave the chosen generator as states["generator"]; returns whether it is averaged."""
    average = states.pop("generator_ema", None)
    if average is None:
        averaged = "G_ema" in Path(path).name  # StudioGAN's has its own file
    else:
        averaged = ema is not False or "generator" not in states
        states["generator"] = average if averaged else states["generator"]
    published.need_generator(states, path)
    if ema not in (None, averaged):
        flag = "--ema" if ema else "--no_ema"
        kind = "averaged" if averaged else "raw"
        raise UserError(f"{flag}: {path} holds the {kind} generator only; leave the flag out")
    return averaged


def _rename(state, family, net, path):
    """(our names -> arrays in our layout, what they tell of the architecture) of one network."""
    places, imsize = _places(state, family, net, path)
    sides = [int(name.partition(".")[2]) for name in places.values() if "self_attn" in name]
    table = {rf"^{re.escape(entry)}\.": f"{name}." for entry, name in places.items()}
    state = published.rename(
        _tables_of_one_hot_layers(state) if family == "studiogan" else state,
        table | RENAMES[family],
        torch=family != "atmosphere",
        transposed=r"snlinear[01]\.weight_orig",
    )
    sizes = {"imsize": imsize, f"{net[0]}_attention": tuple(sides)}
    if net == "discriminator":
        width = published.shape(state, "opt_block1.snconv2d1.weight_orig", 4, path)[0]
        sizes["d_conv_dim"] = width // D_WIDTHS[imsize][0]
    return state, sizes


def _tables_of_one_hot_layers(state):
    """StudioGAN's gain and bias as embeddings, one row a class.

    Its later versions have linear layers on one-hot labels: (channels, classes), u for v.
    """
    swapped = {"weight_u": "weight_v", "weight_v": "weight_u"}
    result = {}
    for key, value in state.items():
        layer, _, leaf = key.rpartition(".")
        if re.search(r"\.bn[12]\.(gain|bias)$", layer):
            key = f"{layer}.{swapped.get(leaf, leaf)}"
            value = value.T
        result[key] = value
    return result


def _places(state, family, net, path):
    """({entry in the file: its name here}, imsize) of a network.

    The number of blocks tells imsize. Entries are numbered in the order in which they run, so an
    attention has the side of the block before it.
    """
    matches = (re.match(rf"({ENTRY[family]})\.", key) for key in state)
    entries = {match[1] for match in matches if match}
    entries = sorted(entries, key=lambda entry: (len(entry), entry))  # 2 before 10
    attention = [e for e in entries if f"{e}.sigma" in state or f"{e}.gamma" in state]
    # D's first block bears a name of its own, from_rgb or opt_block1, in all families but one.
    apart = int(net == "discriminator" and family != "studiogan")
    count = len(entries) - len(attention) + apart
    sizes = {len(_blocks(net, size)): size for size in G_WIDTHS}
    if count not in sizes:
        numbers = ", ".join(map(str, sizes))
        raise UserError(f"{path}: the {net} has {count} blocks; known are {numbers}")
    blocks = _blocks(net, sizes[count])
    side = blocks[0][1] if apart else None
    following = iter(blocks[apart:])
    places = {}
    for entry in entries:
        if entry not in attention:
            name, side = next(following)
        elif entry == "self_attn":  # the last of all, since it has no number
            name = f"self_attn.{_side_by_channels(state, blocks, path)}"
        else:
            name = f"self_attn.{side}"
        places[entry] = name
    if "self_attn.None" in places.values():
        raise UserError(f"{path}: the {net}'s attention stands after none of its blocks")
    return places, sizes[count]


def _blocks(net, imsize):
    """[(name here, side of the features)] of a network's blocks, in the order in which they run."""
    arch = Architecture(imsize=imsize, g_attention=(), d_attention=())
    rows = arch.g_blocks() if net == "generator" else arch.d_blocks()
    return [(row[0], row[-1]) for row in rows]


def _side_by_channels(state, blocks, path):
    """The side of voletiv's attention, which follows the first block of as many channels."""
    channels = published.shape(state, "self_attn.snconv1x1_attn.weight_orig", 4, path)[0]
    for name, side in blocks:
        if published.shape(state, f"{name}.snconv2d2.weight_orig", 4, path)[0] == channels:
            return side
    return None


# ---- what the networks are ----


def _architecture(G, family, sizes, changes, path, notes):
    """The Architecture that shapes and keys tell, completed by the family and by `changes`."""
    sizes = sizes | _sizes_of_generator(G, sizes["imsize"], path)
    form = family if family in ("studiogan", "mmgen") else "sagan"
    if form == "mmgen" and not sizes["cbn_spectral"]:
        form = "mmgen-biggan"
    values = {"skip_relu": _assumed(family, path)[0]}
    values |= {name: value for name, value in changes.items() if value is not None}
    if "sn_eps" in values:
        values |= dict.fromkeys(("block_sn_eps", "attention_sn_eps"), values["sn_eps"])
    arch = published.architecture(path, architecture, form=form, **sizes, **values)
    eps = f"{arch.sn_eps:g} (blocks {arch.block_sn_eps:g}, attention {arch.attention_sn_eps:g})"
    assumed = {"bn_eps": f"{arch.bn_eps:g}", "sn_eps": eps, "skip_relu": arch.skip_relu}
    for name, value in assumed.items():
        notes.append(published.note(name, value, chosen=changes.get(name) is not None))
    if family == "atmosphere":
        notes.append("BatchNorm kept the last batch's statistics alone: try --bn_stats standing")
    return arch


def _sizes_of_generator(G, imsize, path):
    gamma = "block1.cond_bn1.embed.weight" in G
    spectral = "block1.cond_bn1.gain.weight_orig" in G
    table = "embed.weight" if gamma else "gain.weight_orig" if spectral else "gain.weight"
    z_dim, features = published.shape(G, "snlinear0.weight_orig", 2, path)
    return {
        "num_classes": published.shape(G, f"block1.cond_bn1.{table}", 2, path)[0],
        "z_dim": z_dim,
        "g_conv_dim": features // (4 * 4 * G_WIDTHS[imsize][0]),
        "attention_bias": any(re.match(r"self_attn\..*\.bias", key) for key in G),
        "cbn": "gamma" if gamma else "one_plus",
        "cbn_spectral": spectral,
    }


def _assumed(family, path):
    """(skip_relu, colour order) of a file, by its family and name.

    An in-place ReLU makes skips of D's blocks take ReLU(x). MMGeneration trained on BGR; its names
    tell of the ReLU (woReUinplace, wReLUinplace), and of weights converted from StudioGAN
    (convert-studio-rgb, cvt).
    """
    if family != "mmgen":
        return family in ("voletiv", "studiogan"), "rgb"
    name = Path(path).name.lower()
    relu = RELU.search(name)
    studio = bool(STUDIO.search(name))
    return relu[1] == "w" if relu else studio, "rgb" if studio else "bgr"


def _warn_of_name(family, path, states, color_order, changes):
    """Say what nothing but a published name tells where the file has another name."""
    name = Path(path).name
    if family == "studiogan" and not re.match(r"model=G(_ema)?-", name):
        process.warn(
            f"{path}: raw or averaged, StudioGAN's name of the file tells, model=G-... or "
            "model=G_ema-..., and this is neither: taken for raw"
        )
    if family != "mmgen" or RELU.search(name.lower()) or STUDIO.search(name.lower()):
        return
    guesses = []
    if color_order == "auto":
        guesses.append("images are BGR (--color_order)")
    if "discriminator" in states and changes.get("skip_relu") is None:
        guesses.append("skips of D's blocks take x (--skip_relu)")
    if guesses:
        process.warn(
            f"{path}: is called as none of MMGeneration's published files, and no key tells: "
            f"assuming that its {' and '.join(guesses)}; convert.py's flags change it"
        )


def _color_order(family, path, flag, notes):
    order = _assumed(family, path)[1] if flag == "auto" else flag
    text = "bgr, permuted to RGB" if order == "bgr" else order
    notes.append(published.note("color_order", text, chosen=flag != "auto"))
    return order


def _swap_colors(generator, discriminator=None):
    """Exchange red and blue in G's last and D's first convolutions; exact, u and v included."""
    for leaf in ("weight_orig", "weight_u", "bias"):
        key = f"snconv2d1.{leaf}"
        generator[key] = generator[key][::-1].copy()  # one row a colour
    for name in ("opt_block1.snconv2d0", "opt_block1.snconv2d1") if discriminator else ():
        W = discriminator[f"{name}.weight_orig"]  # (out, colour, k, k)
        v = discriminator[f"{name}.weight_v"]  # (colour * k * k,)
        discriminator[f"{name}.weight_orig"] = W[:, ::-1].copy()
        discriminator[f"{name}.weight_v"] = v.reshape([3, -1])[::-1].flatten()


def _fold_affine(G, notes):
    """Fold the affine map w x + b of Atmosphere's BatchNorm inside cBN into the embedding, exactly:

    gamma (w x + b) + beta = (gamma w) x + (gamma b + beta).
    """
    names = [k.removesuffix(".bn.weight") for k in G if re.search(r"\.cond_bn[12]\.bn\.weight$", k)]
    for name in names:
        w = G[f"{name}.bn.weight"]
        b = G.get(f"{name}.bn.bias")
        table = G.get(f"{name}.embed.weight")
        if b is None or table is None or table.shape[1:] != (2 * w.size,) or b.shape != w.shape:
            continue  # the check of all keys and shapes tells
        gamma, beta = np.split(table, 2, axis=1)
        G[f"{name}.embed.weight"] = np.concatenate([gamma * w, gamma * b + beta], axis=1)
        del G[f"{name}.bn.weight"], G[f"{name}.bn.bias"]
    if names:
        notes.append(
            f"folded the affine maps of {len(names)} BatchNorms inside cBN into their embeddings"
        )


def _drop_dead_skips(D, arch, notes):
    """Drop the 1x1 convolutions that the originals build for identity skips and never use."""
    for name, i, o, down, _ in arch.d_blocks():
        dead = [key for key in D if key.startswith(f"{name}.snconv2d0.")]
        if dead and not down and i == o:
            for key in dead:
                del D[key]
            notes.append(f"dropped D's {name}.snconv2d0: the original builds it and never uses it")


def _iteration(data, path):
    """The step count that the file or its name tells, or None. MMGeneration counts updates of D."""
    meta = data.get("meta") if isinstance(data.get("meta"), dict) else {}
    match = re.search(r"step=(\d+)", Path(path).name)  # StudioGAN
    step = match[1] if match else data.get("step", meta.get("iter"))
    return published.count(step)


# ---- the command ----


def main(argv=None):
    """Convert one file and print what it is and what was assumed."""
    p = published.parser(
        __doc__,
        src="published file: Atmosphere .pdparams, voletiv, StudioGAN or MMGeneration/MMagic .pth",
        dst="file to write, .pdparams: for test.py and train.py --pretrained_model",
        discriminator="StudioGAN's file of D, model=D-...pth (default: what SRC holds)",
    )
    # fmt: off
    add = p.add_argument
    add("--ema", action="store_true", default=None,
        help="insist on the averaged generator (default: where there is one)")
    add("--no_ema", dest="ema", action="store_false", default=None, help="take the raw generator")
    add("--color_order", default="auto", choices=["auto", "rgb", "bgr"],
        help="of SRC's images (default: by its family)")
    add("--bn_eps", type=flags.share, help="BatchNorm's epsilon (default: the family's)")
    add("--sn_eps", type=flags.share,
        help="spectral norm's epsilon in every layer (default: the family's)")
    add("--skip_relu", action="store_true", default=None,
        help="skips of D's blocks take ReLU(x) (default: the family's)")
    add("--no_skip_relu", dest="skip_relu", action="store_false", default=None, help="they take x")
    # fmt: on
    published.convert(p, read_published, _describe, argv)


def _describe(result):
    arch = result.architecture
    averaged = "averaged" if result.source["ema"] else "raw"
    yield f"{result.family}, {arch.imsize} px, {arch.num_classes} classes"
    sides = list(arch.g_attention)
    yield f"G ({averaged}): width {arch.g_conv_dim}, z_dim {arch.z_dim}, attention at {sides}"
    d_line = f"width {arch.d_conv_dim}, attention at {list(arch.d_attention)}"
    yield f"D: {d_line if 'discriminator' in result.networks else 'none in the file'}"


if __name__ == "__main__":
    command(main)()
