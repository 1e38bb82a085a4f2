"""Turn published SAGAN weights into this repository's:   cd sagan && python convert.py SRC
DST.pdparams

| here               | atmosphere, voletiv | studiogan (older keys)          | mmgen (MMGeneration, MMagic)       |
|--------------------|---------------------|---------------------------------|------------------------------------|
| G: snlinear0       | snlinear0           | linear0                         | noise2feat                         |
| block{n}           | block{n}            | blocks.{i}.0                    | conv_blocks.{i}                    |
| - cond_bn{1,2}.bn  | cond_bn{1,2}.bn     | bn{1,2}.bn                      | norm_{1,2}.norm                    |
| - cond_bn{1,2}.*   | embed               | gain, bias (embed0, embed1)     | weight_embedding, bias_embedding   |
| - snconv2d{0,1,2}  | snconv2d{0,1,2}     | conv2d{0,1,2}                   | shortcut.conv, conv_{1,2}.conv     |
| self_attn.{side}   | self_attn           | blocks.{i}.0                    | conv_blocks.{i}                    |
| - sigma            | sigma               | sigma                           | gamma                              |
| - snconv1x1_{part} | snconv1x1_{part}    | conv1x1_{theta,phi,g,attn}      | {theta,phi,g,o}.conv               |
| bn, snconv2d1      | bn, snconv2d1       | bn4, conv2d5                    | to_rgb.bn, to_rgb.conv             |
| D: opt_block1      | opt_block1          | blocks.0.0                      | from_rgb                           |
| snlinear1          | snlinear1           | linear1                         | decision                           |
| sn_embedding1      | sn_embedding1       | embedding                       | proj_y                             |

Layout: torch's linear weights are transposed; StudioGAN's later gain and bias are linear layers on
    one-hot labels, so
they are transposed and their u and v change places; sigma [] becomes [1]; num_batches_tracked is
dropped. Sizes, classes, attention and cBN's form are read from the file; what it cannot tell is
printed with the flag that changes it.
"""

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model import D_WIDTHS, G_WIDTHS, Architecture, Discriminator, Generator, architecture
from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.process import command
from shared_metrics.runs import checkpoint

# What G's and D's keys begin with, by which a family is known.
STEMS = {
    "atmosphere": ("snlinear0.", "snlinear1."),
    "voletiv": ("snlinear0.", "snlinear1."),
    "studiogan": ("linear0.", "linear1."),
    "mmgen": ("noise2feat.", "decision."),
}
# A numbered entry: a residual block, or attention (which has a `sigma` or `gamma`).
ENTRY = {
    "atmosphere": r"(block\d+|self_attn)\.",
    "voletiv": r"(block\d+|self_attn)\.",
    "studiogan": r"blocks\.(\d+)\.0\.",
    "mmgen": r"conv_blocks\.(\d+)\.",
}
# All other names, after the entries have theirs: pattern -> replacement.
_STUDIOGAN = {
    r"^linear([01])\.": r"snlinear\1.",
    r"^bn4\.": "bn.",
    r"^conv2d5\.": "snconv2d1.",
    r"^embedding\.": "sn_embedding1.",
    r"\.bn([12])\.bn\.": r".cond_bn\1.bn.",
    r"\.bn([12])\.(gain|embed0)\.": r".cond_bn\1.gain.",
    r"\.bn([12])\.(bias|embed1)\.": r".cond_bn\1.bias.",
    r"\.conv2d([012])\.": r".snconv2d\1.",
    r"\.conv1x1_": ".snconv1x1_",
}
_MMGEN = {
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
}
RENAMES = {"atmosphere": {}, "voletiv": {}, "studiogan": _STUDIOGAN, "mmgen": _MMGEN}


@dataclass(frozen=True)
class Published:
    """What a published file holds, in this repository's names and layout; the networks speak
    RGB.
    """

    family: str
    architecture: Architecture
    generator: dict  # name -> float32 array, of Generator(architecture)
    discriminator: dict | None  # the same, where the file (or the second file) has it
    source: dict  # file, sha256, family, iteration, ema, color_order: plain values for records
    notes: tuple  # lines to show: what was assumed, folded or dropped


def read_published(
    path, discriminator="", ema=None, color_order="auto", bn_eps=None, sn_eps=None, skip_relu=None
):
    """Read a published checkpoint of any family above, recognised by its keys.

    Args: discriminator, a second file with D (StudioGAN keeps it apart); ema, True or False: insist
        on the averaged or the raw generator (None: averaged where there is one); color_order, of
        the file's images: auto, rgb or bgr; bn_eps, sn_eps, skip_relu: what no file tells, instead
        of its family's value.
    Returns: Published. Raises: UserError for unknown, missing, unexpected or mis-shaped keys.
    """
    data = weights.load(path)
    parts = _parts(data, path)
    averaged = _choose_ema(parts, ema, path)
    family = _family(parts["generator"], path)
    d_path = discriminator or path
    if discriminator:
        parts["discriminator"] = _parts(weights.load(d_path), d_path).get("discriminator")
    if discriminator and not any(
        k.startswith(STEMS[family][1]) for k in parts["discriminator"] or ()
    ):
        raise UserError(
            f"--discriminator {discriminator}: holds no discriminator of the {family} family, as "
            f"{path} is"
        )
    notes = []
    G, imsize, sides = _rename(parts["generator"], family, "generator", path)
    changes = {
        "bn_eps": bn_eps,
        "sn_eps": sn_eps,
        "block_sn_eps": sn_eps,
        "attention_sn_eps": sn_eps,
    }
    changes = {k: v for k, v in (changes | {"skip_relu": skip_relu}).items() if v is not None}
    D, d_read = None, {}
    if parts.get("discriminator") is not None:
        D, d_imsize, d_sides = _rename(parts["discriminator"], family, "discriminator", d_path)
        if d_imsize != imsize:
            raise UserError(f"{d_path}: D is for {d_imsize} px, the G of {path} for {imsize} px")
        width = _shape(D, "opt_block1.snconv2d1.weight_orig", 4, d_path)[0]
        d_read = {"d_conv_dim": width // D_WIDTHS[imsize][0], "d_attention": d_sides}
    arch = _architecture(G, family, imsize, sides, d_read, changes, path, notes)
    if family == "atmosphere":
        _fold_affine(G, notes)
    small = replace(
        arch, init="xavier"
    )  # only the shapes are asked for; orthogonal matrices would take seconds
    weights.load_into(Generator(small), G, "generator, in the names used here", path)
    if D is not None:
        _drop_dead_skips(D, arch, notes)
        weights.load_into(Discriminator(small), D, "discriminator, in the names used here", d_path)
    order = _color_order(family, path, color_order, notes)
    if order == "bgr":
        _swap_colors(G, D)
    source = {"file": Path(path).name, "sha256": files.file_sha256(path), "family": family}
    source |= {
        "iteration": _iteration(data, Path(path).name),
        "ema": averaged,
        "color_order": order,
    }
    return Published(family, arch, G, D, source, tuple(notes))


def read_weights(path, ema=None):
    """The networks in a checkpoint, a converted, a published or a bare file of this repository's,
    as one dict.

    Args: ema, True or False: insist on the averaged or the raw generator of a published file (None:
        averaged where there is one); a file of this repository's brings both.
    Returns: "generator" and, where the file has them, "generator_ema", "discriminator",
        "architecture" (a dict; absent
    for bare generator weights), "source", ...: the layout that this repository saves. Raises
    UserError.
    """
    data = weights.load(path)
    if isinstance(data, dict) and "generator" in data and "architecture" in data:
        return checkpoint.verified(data, path) if "sha256" in data else data
    if isinstance(data, dict) and "snlinear0.weight_orig" in data and "self_attn.sigma" not in data:
        return {
            "generator": data
        }  # bare: attention is numbered here, and never absent in the originals
    return as_saved(read_published(path, ema=ema))


def as_saved(published):
    """The dict that convert.py saves: generator, discriminator (where known), architecture,
    source.
    """
    nets = {"generator": published.generator, "discriminator": published.discriminator}
    nets = {name: state for name, state in nets.items() if state is not None}
    return nets | {"architecture": published.architecture.to_dict(), "source": published.source}


def _parts(data, path):
    """{"generator": {key: array}, ...} out of a family's container, prefixes and DataParallel's
    `module.` removed.
    """
    if isinstance(data, dict) and "generator" in data and "architecture" in data:
        raise UserError(f"{path}: is in this repository's layout already")
    if isinstance(data, dict) and "G_state_dict" in data:
        nets = {"generator": data["G_state_dict"], "discriminator": data.get("D_state_dict")}
        return {name: _arrays(state, path) for name, state in nets.items() if state is not None}
    state = _arrays(data.get("state_dict", data) if isinstance(data, dict) else data, path)
    state.pop("generator_ema.steps", None)  # MMagic's count of averaging steps
    if not any(k.startswith(("generator.", "generator_ema.", "discriminator.")) for k in state):
        is_d = any(k.startswith(tuple(d for _, d in STEMS.values())) for k in state)
        return {"discriminator" if is_d else "generator": state}
    parts = {}
    for key, value in state.items():
        name, _, rest = key.partition(".")
        parts.setdefault(name, {})[rest] = value
    unknown = set(parts) - {"generator", "generator_ema", "discriminator"}
    if unknown:
        raise UserError(
            f"{path}: unexpected keys beside generator and discriminator: "
            f"{', '.join(sorted(unknown)[:8])}"
        )
    return parts


def _arrays(state, path):
    """A flat state dict with plain key names; Paddle's table of automatic names is no weight and
    left out.
    """
    state = (
        {k: v for k, v in state.items() if k != "StructuredToParameterName@@"}
        if isinstance(state, dict)
        else {}
    )
    if not state or not all(isinstance(v, (np.ndarray, np.generic, int)) for v in state.values()):
        raise UserError(f"{path}: holds no SAGAN weights of a known family ({', '.join(STEMS)})")
    return {re.sub(r"(^|\.)module\.", r"\1", str(k)): np.asarray(v) for k, v in state.items()}


def _choose_ema(parts, ema, path):
    """Leave the chosen generator as parts["generator"]; returns whether it is the averaged one."""
    averaged = parts.pop("generator_ema", None)
    if averaged is not None and (ema is not False or "generator" not in parts):
        parts["generator"] = averaged
        held = True
    elif "generator" in parts:
        held = (
            averaged is None and "G_ema" in Path(path).name
        )  # StudioGAN's averaged generator has its own file
    else:
        raise UserError(
            f"{path}: holds a discriminator only; give the generator's file, and this as "
            "--discriminator"
        )
    if ema is not None and ema != held:
        flag = "--ema" if ema else "--no_ema"
        raise UserError(
            f"{flag}: {path} holds the {'averaged' if held else 'raw'} generator only; leave the "
            "flag out"
        )
    return held


def _family(state, path):
    for family, (stem, _) in STEMS.items():
        if any(k.startswith(stem) for k in state):
            torch = family == "atmosphere" and not any(k.endswith("._mean") for k in state)
            return "voletiv" if torch else family
    raise UserError(
        f"{path}: no SAGAN weights of a known family ({', '.join(STEMS)}); its keys begin with "
        f"{', '.join(list(state)[:3])}"
    )


def _shape(state, key, dims, path):
    if key not in state or state[key].ndim != dims:
        raise UserError(f"{path}: lacks {key} (in the names used here) of {dims} dimensions")
    return state[key].shape


def _rename(state, family, net, path):
    """(our names -> arrays in our layout, imsize, sides of the features with attention) of one
    network's file.
    """
    places, imsize, sides = _places(state, family, net, path)
    result = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        match = re.match(ENTRY[family], key)
        name = places[match[1]] + key[match.end() - 1 :] if match else key
        for old, new in RENAMES[family].items():
            name = re.sub(old, new, name)
        name = name.replace(".running_mean", "._mean").replace(".running_var", "._variance")
        if re.search(
            r"\.bn[12]\.(gain|bias)\.weight_", key
        ):  # StudioGAN's linear layer on one-hot labels
            name = re.sub(
                "weight_[uv]$",
                lambda m: {"weight_u": "weight_v", "weight_v": "weight_u"}[m[0]],
                name,
            )
            value = value.T
        elif family != "atmosphere" and re.fullmatch(r"snlinear[01]\.weight_orig", name):
            value = value.T
        result[name] = np.ascontiguousarray(value, np.float32)
    return result, imsize, sides


def _places(state, family, net, path):
    """({a file's entry: its name here}, imsize by the number of blocks, sides of the features with
    attention).
    """
    found = {m[1]: m[0] for m in (re.match(ENTRY[family], k) for k in state) if m}
    attention = {
        n for n, prefix in found.items() if prefix + "sigma" in state or prefix + "gamma" in state
    }
    head = (
        net == "discriminator" and family != "studiogan"
    )  # D's first block bears a name of its own
    count = len(found) - len(attention) + head - (net == "discriminator")
    sizes = {len(widths) - 1: size for size, widths in G_WIDTHS.items()}
    if count not in sizes:
        raise UserError(
            f"{path}: the {net} has {count} blocks; known are {', '.join(map(str, sizes))}"
        )
    plain = Architecture(imsize=sizes[count], g_attention=(), d_attention=())
    blocks = [
        (row[0], row[-1]) for row in (plain.g_blocks() if net == "generator" else plain.d_blocks())
    ]
    places, sides, done = {}, [], int(head)
    for n in sorted(found, key=lambda n: int(re.sub(r"\D", "", n) or 0)):
        if n not in attention:
            places[n] = blocks[done][0]
            done += 1
            continue
        if n == "self_attn":  # not numbered: it stands after the first block of as many channels
            C = _shape(state, "self_attn.snconv1x1_attn.weight_orig", 4, path)[0]
            after = [
                s for b, s in blocks if _shape(state, f"{b}.snconv2d2.weight_orig", 4, path)[0] == C
            ]
        else:
            after = [blocks[done - 1][1]] if done else []
        if not after:
            raise UserError(f"{path}: the {net}'s attention stands after none of its blocks")
        places[n] = f"self_attn.{after[0]}"
        sides.append(after[0])
    return places, plain.imsize, tuple(sides)


def _architecture(G, family, imsize, sides, d_read, changes, path, notes):
    """The Architecture that G's shapes and keys tell, completed by the family's values and by
    `changes`.
    """
    form = family if family in ("studiogan", "mmgen") else "sagan"
    gamma, spectral = "block1.cond_bn1.embed.weight" in G, "block1.cond_bn1.gain.weight_orig" in G
    if form == "mmgen" and not spectral:
        form = "mmgen-biggan"
    table = "embed.weight" if gamma else "gain.weight_orig" if spectral else "gain.weight"
    classes = _shape(G, f"block1.cond_bn1.{table}", 2, path)[0]
    z_dim, features = _shape(G, "snlinear0.weight_orig", 2, path)
    values = {
        "z_dim": z_dim,
        "g_conv_dim": features // 16 // G_WIDTHS[imsize][0],
        "g_attention": sides,
        "attention_bias": any(re.match(r"self_attn\..*\.bias", k) for k in G),
        "cbn": "gamma" if gamma else "one_plus",
        "cbn_spectral": spectral,
        "skip_relu": _skip_relu(family, Path(path).name),
    }
    try:
        arch = architecture(form, imsize, classes, **(values | d_read | changes))
    except UserError as error:
        raise UserError(f"{path}: its shapes make no network of this kind ({error})") from None
    eps = f"{arch.sn_eps:g} (blocks {arch.block_sn_eps:g}, attention {arch.attention_sn_eps:g})"
    for name, value in {
        "bn_eps": f"{arch.bn_eps:g}",
        "sn_eps": eps,
        "skip_relu": arch.skip_relu,
    }.items():
        how = (
            "as given"
            if name in changes
            else f"not in the file: by family and file name; --{name} changes it"
        )
        notes.append(f"{name} {value} ({how})")
    if family == "atmosphere":
        notes.append(
            "its BatchNorm averages are about the last batch's (momentum inverted): try "
            "--bn_stats standing"
        )
    return arch


def _skip_relu(family, name):
    """Whether skips of D's blocks take ReLU(x): an in-place ReLU's doing; MMGeneration's file names
    tell.
    """
    told = re.search(r"(?:^|[_-])(wo|w)rel?uinplace", name.lower())
    if family == "mmgen":
        return told[1] == "w" if told else _from_studiogan(name)
    return family in ("voletiv", "studiogan")


def _from_studiogan(name):
    return "cvt" in name.lower()  # MMGeneration's name for weights converted from StudioGAN


def _color_order(family, path, color_order, notes):
    """The order of the file's networks, rgb or bgr: MMGeneration trained on BGR, all others on
    RGB.
    """
    order, how = color_order, "as given"
    if order == "auto":
        order = "bgr" if family == "mmgen" and not _from_studiogan(Path(path).name) else "rgb"
        how = "not in the file: by family and file name; --color_order changes it"
    notes.append(f"colour order {order}{', permuted to RGB' if order == 'bgr' else ''} ({how})")
    return order


def _swap_colors(G, D):
    """Exchange red and blue in G's last and D's first convolutions; exact, since u and v are
    permuted along.
    """
    for key in ("snconv2d1.weight_orig", "snconv2d1.weight_u", "snconv2d1.bias"):
        G[key] = G[key][::-1].copy()  # one row a colour
    for name in ("opt_block1.snconv2d0", "opt_block1.snconv2d1") if D else ():
        W, v = D[f"{name}.weight_orig"], D[f"{name}.weight_v"]
        D[f"{name}.weight_orig"] = W[:, ::-1].copy()  # (out, colour, k, k)
        D[f"{name}.weight_v"] = v.reshape([3, -1])[::-1].flatten()  # (colour * k * k,)


def _fold_affine(G, notes):
    """Atmosphere's BatchNorm inside cBN has an affine map w x + b of its own; fold it into the
    embedding, exactly:

    gamma (w x + b) + beta = (gamma w) x + (gamma b + beta).
    """
    names = [k.removesuffix(".bn.weight") for k in G if re.search(r"\.cond_bn[12]\.bn\.weight$", k)]
    for name in names:
        w, b, table = (G.get(f"{name}.{key}") for key in ("bn.weight", "bn.bias", "embed.weight"))
        if (
            b is not None
            and table is not None
            and table.shape[1:] == (2 * w.size,)
            and b.shape == w.shape
        ):
            gamma, beta = np.split(table, 2, axis=1)
            G[f"{name}.embed.weight"] = np.concatenate([gamma * w, gamma * b + beta], axis=1)
            del G[f"{name}.bn.weight"], G[f"{name}.bn.bias"]
    if names:
        notes.append(
            f"folded the affine maps of {len(names)} BatchNorms inside cBN into their embeddings"
        )


def _drop_dead_skips(D, arch, notes):
    """Drop the 1x1 convolution that the originals build for a block with an identity skip, and
    never use.
    """
    for name in [row[0] for row in arch.d_blocks() if not row[3] and row[1] == row[2]]:
        dead = [k for k in D if k.startswith(f"{name}.snconv2d0.")]
        for key in dead:
            del D[key]
        if dead:
            notes.append(f"dropped D's {name}.snconv2d0: the original builds it and never uses it")


def _iteration(data, name):
    """The step count that the file or its name tells (MMGeneration counts updates of D), None where
    neither does.
    """
    meta = data.get("meta") if isinstance(data.get("meta"), dict) else {}
    named = re.search(r"step=(\d+)", name)  # StudioGAN
    found = named[1] if named else data.get("step", meta.get("iter"))
    return None if found is None else int(found)


def parse_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = p.add_argument
    add(
        "src",
        help="published file: Atmosphere .pdparams, voletiv, StudioGAN or MMGeneration / MMagic "
        ".pth",
    )
    add("dst", help="file to write, .pdparams: for test.py and train.py --pretrained_model")
    add(
        "--discriminator",
        default="",
        help="StudioGAN's file of D, model=D-...pth (default: what SRC holds)",
    )
    add(
        "--ema",
        action="store_true",
        default=None,
        help="insist on the averaged generator (default: where there is one)",
    )
    add("--no_ema", dest="ema", action="store_false", default=None, help="take the raw generator")
    add(
        "--color_order",
        default="auto",
        choices=["auto", "rgb", "bgr"],
        help="of SRC's images (default: by its family)",
    )
    add("--bn_eps", type=float, help="BatchNorm's epsilon (default: the family's)")
    add(
        "--sn_eps",
        type=float,
        help="spectral norm's epsilon in every layer (default: the family's)",
    )
    add(
        "--skip_relu",
        action="store_true",
        default=None,
        help="skips of D's blocks take ReLU(x) (default: the family's)",
    )
    add("--no_skip_relu", dest="skip_relu", action="store_false", default=None, help="they take x")
    return p.parse_args(argv)


def main(argv=None):
    """Convert one file and print what it is and what was assumed."""
    a = parse_args(argv)
    if Path(a.dst).exists() and Path(a.dst).samefile(a.src):
        raise UserError(f"{a.dst}: is the source itself; give another name to write to")
    found = read_published(
        a.src, a.discriminator, a.ema, a.color_order, a.bn_eps, a.sn_eps, a.skip_relu
    )
    weights.save(as_saved(found), a.dst)
    arch = found.architecture
    print(f"{a.src}: {found.family}, {arch.imsize} px, {arch.num_classes} classes")
    averaged = "averaged" if found.source["ema"] else "raw"
    print(
        f"  G ({averaged}): width {arch.g_conv_dim}, z_dim {arch.z_dim}, attention at "
        f"{list(arch.g_attention)}"
    )
    d_line = f"D: width {arch.d_conv_dim}, attention at {list(arch.d_attention)}"
    print(f"  {d_line if found.discriminator else 'D: none in the file'}")
    print("\n".join(f"  {note}" for note in found.notes), f"wrote {a.dst}", sep="\n")


if __name__ == "__main__":
    command(main)()
