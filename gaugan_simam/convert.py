"""Turn published GauGAN weights into this repository's:   cd gaugan_simam && python convert.py SRC
DST.pdparams

| here                              | photopen (PaddleGAN) | nvlabs (NVlabs/SPADE)                      |
|-----------------------------------|----------------------|--------------------------------------------|
| generator: fc, conv_img           | the same             | the same                                   |
| {block}.spade_{0,1,s}             | the same             | {block}.norm_{0,1,s}                       |
| - param_free_norm._mean,_variance | the same             | param_free_norm.running_mean, running_var  |
| {block}.act_conv_{0,1}.1          | the same             | {block}.conv_{0,1}                         |
| {block}.act_conv_s.0              | the same             | {block}.conv_s                             |
| discriminator: nld_{i}.{i}        | the same             | discriminator_{i}                          |
| - block_0.0, block_{n}.0, block_6 | the same             | model0.0, model{n}.0.0, model4.0           |
| encoder: layer{n}.0, fc_mu,fc_var | none                 | the same                                   |

Files: PaddleGAN's flat generator (photopen.pdparams, n_g.pdparams) and its engine's checkpoints and
    weights (net_gen,
net_des, perhaps epoch and optimizers); NVlabs' latest_net_G.pth, with latest_net_D.pth and
latest_net_E.pth beside it.
Layout: torch's linear weights are transposed, num_batches_tracked is dropped, a missing weight_v
    (torch before 1.0) is
rebuilt by power iteration. Widths, channels, layers, kernels and scales are read from the shapes;
what the file cannot tell follows its family and is printed with the flag that changes it. NVlabs'
weights are for non-commercial use only.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model import VARIANTS, Architecture, Discriminator, Encoder, Generator, architecture
from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.process import command
from shared_metrics.runs import checkpoint
from shared_metrics.unpickle import printable

# What a network's keys begin with, PaddleGAN's or NVlabs' (its encoder's are also ours).
STEMS = {
    "generator": r"(fc|conv_img|head_0|G_middle_[01]|up_\d)\.",
    "discriminator": r"(nld|discriminator)_\d+\.",
    "encoder": r"(layer\d|fc_mu|fc_var)\.",
}
ENGINE = {"net_gen": "generator", "net_des": "discriminator"}  # PaddleGAN's names in checkpoints
RENAMES = {
    r"\.conv_([01])\.": r".act_conv_\1.1.",
    r"\.conv_s\.": ".act_conv_s.0.",
    r"\.norm_([01s])\.": r".spade_\1.",
    r"\.running_mean$": "._mean",
    r"\.running_var$": "._variance",
}
OPPOSITES = {
    "simam": "no_simam",
    "contain_dontcare_label": "no_dontcare_label",
    "no_instance": "edges",
}  # of flags
GIVEN = "(as given)"  # ends the note on a value that the file does not tell and the user does
POWER_ITERATIONS = 50  # for a weight_v that the file lacks
# NVlabs' released generators by their input channels: what they were trained with.
RELEASED = {
    184: ("COCO-Stuff", {}),
    151: ("ADE20K", {"no_instance": True}),
    36: ("Cityscapes", {"contain_dontcare_label": False, "crop_size": 512, "aspect_ratio": 2.0}
         | {"num_upsampling_layers": "more"}),
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """What a published file holds, in this repository's names and layout."""

    family: str  # "photopen" or "nvlabs"
    architecture: Architecture
    generator: dict  # name -> float32 array, of Generator(architecture)
    discriminator: dict | None  # the same, where the file (or a second one) has it
    encoder: dict | None  # likewise
    source: dict  # file, sha256, family, iteration: plain values for records
    notes: tuple  # lines to show: what was assumed, rebuilt or dropped


def read_published(path, discriminator="", encoder="", **changes):
    """Read published weights of either family, recognised by their keys.

    Args: discriminator, encoder: files of their own, as NVlabs keeps them; changes, fields of
        Architecture: they decide what the file does not tell (variant, crop_size, aspect_ratio,
            num_upsampling_layers, batch or syncbatch in
        norm_G, simam, simam_lambda, how the semantic map's channels divide into labels, unknown and
        edges) and must agree with what it does.
    Returns: Published. Raises: UserError for unknown, missing, unexpected or mis-shaped keys.
    """
    data, notes = weights.load(path), []
    parts = {name: (state, path) for name, state in _parts(data, path).items()}
    if "generator" not in parts:
        name = next(iter(parts))
        raise UserError(
            f"{path}: holds {name} weights only; give the generator's file, and this as --{name}"
        )
    for name, file in (("discriminator", discriminator), ("encoder", encoder)):
        if file:
            found = _parts(weights.load(file), file)
            if name not in found:
                raise UserError(
                    f"--{name} {file}: holds no {name}, but {' and '.join(found)} weights"
                )
            parts[name] = (found[name], file)
    nv = any(re.search(r"\.(conv|norm)_[01s]\.", key) for key in parts["generator"][0])
    family = "nvlabs" if nv else "photopen"
    states = {
        name: _rename(state, family, name, file, notes) for name, (state, file) in parts.items()
    }
    arch = _architecture(states, family, changes, path, notes)
    if encoder and not arch.use_vae:
        raise UserError(
            f"--encoder {encoder}: the generator of {path} takes no latent; leave the flag out"
        )
    for name, net in (
        ("generator", Generator),
        ("discriminator", Discriminator),
        ("encoder", Encoder),
    ):
        if name in states:
            weights.load_into(
                net(arch), states[name], f"{name}, in the names used here", parts[name][1]
            )
    source = {"file": Path(path).name, "sha256": files.file_sha256(path), "family": family}
    source["iteration"] = _iteration(data, Path(path).name)
    nets = [states.get(name) for name in STEMS]
    return Published(family, arch, *nets, source, tuple(notes))


def read_weights(path, **changes):
    """The networks in a checkpoint, a converted or a published file, as one dict.

    Args: changes, fields of Architecture for what a published file does not tell, see
        `read_published`; a file of this repository's tells all itself, and they are not asked.
    Returns: "generator", "architecture" (a dict), "source", and, where the file has them,
        "generator_ema",
    "discriminator", "encoder", ...: the layout that this repository saves; of a published file also
    "notes", lines to show on what it does not tell and `changes` do not either. Raises UserError.
    """
    data = weights.load(path)
    if _own(data):
        return checkpoint.verified(data, path) if "sha256" in data else data
    published = read_published(path, **changes)
    return as_saved(published) | {
        "notes": [note for note in published.notes if not note.endswith(GIVEN)]
    }


def as_saved(published):
    """The dict that convert.py saves: generator, discriminator and encoder (where known),
    architecture, source.
    """
    nets = {
        name: getattr(published, name) for name in STEMS if getattr(published, name) is not None
    }
    return nets | {"architecture": published.architecture.to_dict(), "source": published.source}


def _own(data):
    return isinstance(data, dict) and "generator" in data and "architecture" in data


def _parts(data, path):
    """{"generator": {key: array}, ...} out of a file: one network's flat dict, or an engine's dict
    of them.
    """
    if _own(data):
        raise UserError(f"{path}: is in this repository's layout already")
    if isinstance(data, dict) and any(name in data for name in ENGINE):
        extra = [
            printable(k) for k in data if k not in ENGINE and not re.match("optim|epoch$", str(k))
        ]
        if extra:
            raise UserError(
                f"{path}: unexpected entries beside net_gen and net_des: {', '.join(extra[:8])}"
            )
        return {
            ours: _arrays(data[theirs], path) for theirs, ours in ENGINE.items() if theirs in data
        }
    state = _arrays(data, path)
    for name, stem in STEMS.items():
        if any(re.match(stem, key) for key in state):
            return {name: state}
    first = ", ".join(printable(key) for key in list(state)[:3])
    raise UserError(
        f"{path}: no GauGAN weights of a known family ({', '.join(VARIANTS)}); its keys begin "
        f"with {first}"
    )


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
        raise UserError(
            f"{path}: holds no GauGAN weights of a known family ({', '.join(VARIANTS)})"
        )
    return {str(k).removeprefix("module."): np.asarray(v) for k, v in state.items()}


def _rename(state, family, net, path, notes):
    """{our name: array in our layout} of one network's file."""
    result = {}
    last = max(
        (int(m[1]) for m in (re.match(r"discriminator_\d+\.model(\d+)\.", k) for k in state) if m),
        default=0,
    )
    for key, value in state.items():
        if key.endswith("num_batches_tracked") or (
            key.endswith(".weight") and f"{key}_orig" in state
        ):
            continue  # beside weight_orig: what torch before 1.0 stored of the normalised weight
        name = key
        if family == "nvlabs":
            for old, new in RENAMES.items():
                name = re.sub(old, new, name)
            name = re.sub(r"^discriminator_(\d+)\.", r"nld_\1.\1.", name)
            name = re.sub(rf"\.model{last}\.0\.", f".block_{last}.", name) if last else name
            name = re.sub(r"\.model0\.0\.", ".block_0.0.", name)
            name = re.sub(r"\.model(\d+)\.0\.0\.", r".block_\1.0.", name)
            value = (
                value.T
                if re.fullmatch(r"fc(_mu|_var)?\.weight", name) and value.ndim == 2
                else value
            )
        result[name] = np.ascontiguousarray(value, np.float32)
    lacking = [k for k in result if k.endswith(".weight_u") and f"{k[:-1]}v" not in result]
    for key in lacking:
        _rebuild_v(result, key.removesuffix("weight_u"), path)
    if lacking:
        notes.append(
            f"rebuilt {len(lacking)} weight_v of the {net}, which its file lacks, by power "
            "iteration"
        )
    return result


def _rebuild_v(state, prefix, path):
    """Set weight_v (and converge weight_u) of one layer, from its weight_orig and weight_u."""
    W, u = state.get(f"{prefix}weight_orig"), state[f"{prefix}weight_u"]
    if W is None or W.ndim != 4 or u.shape != W.shape[:1]:
        raise UserError(
            f"{path}: {prefix}weight_u fits no {prefix}weight_orig; the file is damaged"
        )
    W = W.reshape(len(W), -1)
    for _ in range(POWER_ITERATIONS):
        v = W.T @ u
        v /= max(np.linalg.norm(v), 1e-12)
        u = W @ v
        u /= max(np.linalg.norm(u), 1e-12)
    state[f"{prefix}weight_u"], state[f"{prefix}weight_v"] = u, v


def _shape(state, key, dims, path):
    if key not in state or state[key].ndim != dims:
        raise UserError(f"{path}: lacks {key} (in the names used here) of {dims} dimensions")
    return state[key].shape


def _read(states, path):
    """The fields of Architecture that the shapes tell; semantic_nc and the kind of norm besides."""
    G = states["generator"]
    _, semantic_nc, kernel, _ = _shape(G, "head_0.spade_0.mlp_shared.0.weight", 4, path)
    values = {
        "ngf": _shape(G, "head_0.act_conv_0.1.bias", 1, path)[0] // 16,
        "use_vae": G["fc.weight"].ndim == 2,
    }
    if any(key.startswith("up_4.") for key in G):
        values["num_upsampling_layers"] = "most"
    kind = "batch" if "head_0.spade_0.param_free_norm._mean" in G else "instance"
    spectral = "spectral" if "head_0.act_conv_0.1.weight_orig" in G else ""
    D, E = states.get("discriminator"), states.get("encoder")
    if D is not None:
        numbers = [re.match(r"nld_(\d+)\.\d+\.block_(\d+)\.", key) for key in D]
        scales, blocks = ({int(m[i]) for m in numbers if m} for i in (1, 2))
        values |= {"num_D": len(scales), "n_layers_D": max(blocks, default=0)}
        values["ndf"] = _shape(D, "nld_0.0.block_0.0.weight", 4, path)[0]
    if values["use_vae"]:
        values["z_dim"] = G["fc.weight"].shape[0]
    if E is not None:
        values["nef"] = _shape(E, "layer1.0.weight_orig", 4, path)[0]
    return values, semantic_nc, (f"{spectral}spade", kind, f"{kernel}x{kernel}")


def _architecture(states, family, changes, path, notes):
    """The Architecture that the shapes tell, completed by the family's values and by `changes`,
    which must agree.
    """
    _shape(states["generator"], "conv_img.weight", 4, path)
    if "fc.weight" not in states["generator"]:
        raise UserError(f"{path}: lacks fc.weight")
    read, semantic_nc, (before, kind, sides) = _read(states, path)
    released, trained = RELEASED.get(semantic_nc, ("", {})) if family == "nvlabs" else ("", {})
    sync = "syncbatch" if family == "nvlabs" else "batch"
    assumed = {
        "variant": family,
        "crop_size": 256,
        "aspect_ratio": 1.0,
        "num_upsampling_layers": "normal",
    }
    assumed |= {"norm_G": before + (sync if kind == "batch" else kind) + sides}
    assumed |= {"contain_dontcare_label": True, "no_instance": False} | trained
    known = {k: v for k, v in changes.items() if v is not None}
    variant = known.get("variant", family)
    assumed |= {"simam": variant == "photopen", "simam_lambda": 1e-4}
    labels = _labels(semantic_nc, assumed, known, path)
    for name, value in read.items():
        if known.get(name, value) != value:
            raise UserError(f"{path}: {name} is {value} in the file, not {known[name]}")
    given = known.get("norm_G", assumed["norm_G"])
    if given.replace("syncbatch", "batch") != f"{before}{kind}{sides}":
        raise UserError(f"{path}: norm_G is {before}{kind}{sides} in the file, not {given}")
    try:
        arch = architecture(**(assumed | known | read | labels))
    except UserError as error:
        raise UserError(f"{path}: its shapes make no network of this kind ({error})") from None
    untold = [k for k in assumed if k not in read and not (k == "norm_G" and kind == "instance")]
    for name in untold:
        given = name in known or (name in labels and "label_nc" in known)
        value = getattr(arch, name)
        flag = OPPOSITES[name] if value is True else name
        how = GIVEN if given else f"(not in the file: by family; convert.py --{flag} changes it)"
        notes.append(f"{name} {value} {how}")
    if family == "nvlabs":
        notes.append("NVlabs' weights are under CC BY-NC-SA 4.0: for non-commercial use only")
    if released:
        notes.append(f"{semantic_nc} channels: taken for NVlabs' {released} weights")
    if released == "ADE20K":
        notes.append(
            "label ids are ADE20K's own, unshifted: 0 is unknown, 1 to 150 are the classes"
        )
    return arch


def _labels(semantic_nc, assumed, known, path):
    """label_nc, contain_dontcare_label and no_instance that make `semantic_nc` channels, as given
    or as assumed.
    """
    default = (assumed["contain_dontcare_label"], assumed["no_instance"])
    for dontcare, plain in [default, (True, False), (False, False), (True, True), (False, True)]:
        found = {"label_nc": semantic_nc - dontcare - (not plain)}
        found |= {"contain_dontcare_label": dontcare, "no_instance": plain}
        if all(known.get(name, value) == value for name, value in found.items()):
            return found
    given = ", ".join(
        f"{k} {known[k]}"
        for k in ("label_nc", "contain_dontcare_label", "no_instance")
        if k in known
    )
    raise UserError(
        f"{path}: its {semantic_nc} channels of labels, unknown and edges do not go with {given}"
    )


def _iteration(data, name):
    """The step count that PaddleGAN's file or its name tells, None where neither does."""
    named = re.search(r"iter_(\d+)", name)
    found = named[1] if named else data.get("epoch") if not name.startswith("epoch") else None
    return None if found is None else int(found)


def parse_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = p.add_argument
    add("src", help="published file: PaddleGAN's .pdparams or NVlabs' latest_net_G.pth")
    add("dst", help="file to write, .pdparams: for test.py, demo.py and train.py --load")
    add("--discriminator", default="", help="file of D, latest_net_D.pth (default: what SRC holds)")
    add("--encoder", default="", help="file of the VAE's encoder, latest_net_E.pth (default: none)")
    told = " (default: the family's)"
    add(
        "--variant",
        choices=list(VARIANTS),
        help="activations, norms and initialisation of the networks" + told,
    )
    add("--crop_size", type=int, help="width of G's images in pixels" + told)
    add("--aspect_ratio", type=float, help="width / height of G's images" + told)
    add(
        "--num_upsampling_layers",
        choices=["normal", "more", "most"],
        help="doublings of the side in G" + told,
    )
    add("--norm_G", help="batch or syncbatch in place of the other, the rest as in the file" + told)
    add("--simam_lambda", type=float, help="SimAM's lambda" + told)
    for name, no in OPPOSITES.items():
        add(f"--{name}", action="store_true", default=None, help="insist" + told)
        add(
            f"--{no}",
            dest=name,
            action="store_false",
            default=None,
            help=f"the opposite of --{name}",
        )
    return p.parse_args(argv)


def main(argv=None):
    """Convert one file and print what it is and what was assumed."""
    a = parse_args(argv)
    if Path(a.dst).exists() and Path(a.dst).samefile(a.src):
        raise UserError(f"{a.dst}: is the source itself; give another name to write to")
    changes = {k: v for k, v in vars(a).items() if k not in ("src", "dst")}
    found = read_published(a.src, **changes)
    weights.save(as_saved(found), a.dst)
    arch = found.architecture
    print(
        f"{a.src}: {found.family}, {arch.size[1]}x{arch.size[0]} px, {arch.semantic_nc} channels "
        "of labels and edges"
    )
    print(f"  G: width {arch.ngf}, {arch.norm_G}{', VAE' if arch.use_vae else ''}")
    d_line = f"D: width {arch.ndf}, {arch.num_D} scales of {arch.n_layers_D} blocks"
    print(f"  {d_line if found.discriminator else 'D: none in the file'}")
    print("\n".join(f"  {note}" for note in found.notes), f"wrote {a.dst}", sep="\n")


if __name__ == "__main__":
    command(main)()
