"""Turn published GauGAN weights into this repository's:   python convert.py SRC DST.pdparams

| here                              | photopen (PaddleGAN) | nvlabs (NVlabs/SPADE)                |
|-----------------------------------|----------------------|--------------------------------------|
| generator: fc, conv_img           | the same             | the same                             |
| {block}.spade_{0,1,s}             | the same             | {block}.norm_{0,1,s}                 |
| - param_free_norm._mean,_variance | the same             | param_free_norm.running_{mean,var}   |
| {block}.act_conv_{0,1}.1          | the same             | {block}.conv_{0,1}                   |
| {block}.act_conv_s.0              | the same             | {block}.conv_s                       |
| discriminator: nld_{i}.{i}        | the same             | discriminator_{i}                    |
| - block_0.0, block_{n}.0, block_6 | the same             | model0.0, model{n}.0.0, model4.0     |
| encoder: layer{n}.0, fc_mu,fc_var | none                 | the same                             |

Files: PaddleGAN's flat generator (photopen.pdparams, n_g.pdparams) and its engine's checkpoints and
weights (net_gen, net_des, perhaps epoch and optimizers); NVlabs' latest_net_G.pth, with
latest_net_D.pth and latest_net_E.pth beside it.
Layout: torch's linear weights are transposed, num_batches_tracked is dropped, a missing weight_v
(torch before 1.0) is rebuilt by power iteration. Widths, channels, layers, kernels and scales are
read from the shapes; what the file cannot tell follows its family and is printed with the flag that
changes it. NVlabs' weights are for non-commercial use only.
"""

import re
from pathlib import Path

import numpy as np

from model import VARIANTS, Architecture, Discriminator, Encoder, Generator, architecture
from shared_metrics import flags, published, weights
from shared_metrics.errors import UserError
from shared_metrics.process import command
from shared_metrics.unpickle import printable

# Keys of NVlabs' networks, whose encoder's are also ours, and of PaddleGAN's.
FAMILIES = {
    "nvlabs": {
        "generator": [r"\.(conv|norm)_[01s]\."],
        "discriminator": [r"^discriminator_\d+\."],
        "encoder": [r"^(layer\d|fc_mu|fc_var)\."],
    },
    "photopen": {
        "generator": [r"^(fc|conv_img|head_0|G_middle_[01]|up_\d)\."],
        "discriminator": [r"^nld_\d+\."],
    },
}
NETWORKS = {"generator": Generator, "discriminator": Discriminator, "encoder": Encoder}
ENGINE = {"net_gen": "generator", "net_des": "discriminator"}  # PaddleGAN's names in checkpoints
RENAMES = {
    "photopen": {},
    "nvlabs": {
        r"\.conv_([01])\.": r".act_conv_\1.1.",
        r"\.conv_s\.": ".act_conv_s.0.",
        r"\.norm_([01s])\.": r".spade_\1.",
        r"^discriminator_(\d+)\.model0\.0\.": r"nld_\1.\1.block_0.0.",
        r"^discriminator_(\d+)\.model(\d+)\.0\.0\.": r"nld_\1.\1.block_\2.0.",
        r"^discriminator_(\d+)\.model(\d+)\.0\.": r"nld_\1.\1.block_\2.",  # the logits
    },
}
OPPOSITES = {  # of flags
    "simam": "no_simam",
    "contain_dontcare_label": "no_dontcare_label",
    "no_instance": "edges",
}
POWER_ITERATIONS = 50  # for a weight_v that the file lacks
# NVlabs' released generators by their input channels: what they were trained with.
RELEASED = {
    184: ("COCO-Stuff", {}),
    151: ("ADE20K", {"no_instance": True}),
    36: ("Cityscapes", {"contain_dontcare_label": False, "crop_size": 512, "aspect_ratio": 2.0}
         | {"num_upsampling_layers": "more"}),
}  # fmt: skip


def read_published(path, discriminator="", encoder="", data=None, **changes):
    """Read published weights of either family, recognised by their keys.

    Args: discriminator, encoder: files of their own, as NVlabs keeps them; data, the contents of
        `path` where they are read already; changes, fields of Architecture, where not None: they
        decide what the file does not tell (variant, crop_size, aspect_ratio,
        num_upsampling_layers, batch or syncbatch in norm_G, simam, simam_lambda, how the semantic
        map's channels divide into labels, unknown and edges) and must agree with what it does.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys.
    """
    data = weights.load(path) if data is None else data
    further = {"discriminator": discriminator, "encoder": encoder}
    states, files = published.gather(path, _split, data, **further)
    published.need_generator(states, path)
    family, _ = published.recognise(states["generator"], FAMILIES, "GauGAN", path)
    notes = []
    for net, state in states.items():
        states[net] = _rename(state, family, net, files[net], notes)
    changes = {name: value for name, value in changes.items() if value is not None}
    arch = _architecture(states, family, changes, path, notes)
    if encoder and not arch.use_vae:
        raise UserError(
            f"--encoder {encoder}: the generator of {path} takes no latent; leave the flag out"
        )
    published.check_shapes(states, NETWORKS, arch, files)
    source = published.source(path, family, iteration=_iteration(data, Path(path).name))
    return published.Published(family, arch, states, source, notes)


def read_weights(path, data=None, **changes):
    """The networks in a checkpoint, a converted or a published file, as one dict.

    Args: data, changes, see `read_published`: a file of this repository's tells all itself, and
        changes are not asked.
    Returns: the layout that this repository saves: "generator", "architecture" (a dict), "source",
        and, where the file has them, "generator_ema", "discriminator", "encoder", ...; of a
        published file also "notes", lines to show on what it does not tell and `changes` do not
        either. Raises: UserError.
    """
    data = weights.load(path) if data is None else data
    own = published.own_of("gaugan_simam", Architecture, data, path)
    if own is not None:
        return own
    result = read_published(path, data=data, **changes)
    notes = [note for note in result.notes if not note.endswith("(as given)")]
    return result.saved() | {"notes": notes}


# ---- keys and layout ----


def _split(data, path):
    """{network: {key: array}} of a file: one network's flat dict, or an engine's dict of them."""
    if isinstance(data, dict) and any(name in data for name in ENGINE):
        strange = [k for k in data if k not in ENGINE and not re.match("optim|epoch$", str(k))]
        if strange:
            raise UserError(
                f"{path}: unexpected entries beside net_gen and net_des: "
                f"{', '.join(map(printable, strange[:8]))}"
            )
        states = {ENGINE[name]: data[name] for name in ENGINE if name in data}
    else:
        states = {"": data}
    result = {}
    for net, state in states.items():
        state = published.arrays(state, published.DATA_PARALLEL)
        _, kind = published.recognise(state, FAMILIES, "GauGAN", path)
        result[net or kind] = state
    return result


def _rename(state, family, net, path, notes):
    """{our name: array in our layout} of one network's file."""
    # Beside weight_orig, torch before 1.0 stored the normalised weight.
    state = {key: value for key, value in state.items() if f"{key}_orig" not in state}
    state = published.rename(
        state,
        RENAMES[family],
        torch=family == "nvlabs",
        transposed=r"fc(_mu|_var)?\.weight",
    )
    lacking = [k for k in state if k.endswith(".weight_u") and f"{k[:-1]}v" not in state]
    for key in lacking:
        _rebuild_v(state, key.removesuffix("weight_u"), path)
    if lacking:
        notes.append(
            f"rebuilt {len(lacking)} weight_v of the {net}, which its file lacks, by power "
            "iteration"
        )
    return state


def _rebuild_v(state, prefix, path):
    """Set weight_v (and converge weight_u) of one layer, from its weight_orig and weight_u."""
    W = state.get(f"{prefix}weight_orig")
    u = state[f"{prefix}weight_u"]
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
    state[f"{prefix}weight_u"] = u
    state[f"{prefix}weight_v"] = v


# ---- what the networks are ----


def _architecture(states, family, changes, path, notes):
    """The Architecture that shapes tell, completed by the family and by `changes`, which agree."""
    sizes, channels, norm = _sizes(states, path)
    for name, value in sizes.items():
        if changes.get(name, value) != value:
            raise UserError(f"{path}: {name} is {value} in the file, not {changes[name]}")
    if changes.get("norm_G", norm).replace("syncbatch", "batch") != norm:
        raise UserError(f"{path}: norm_G is {norm} in the file, not {changes['norm_G']}")
    released, trained = "", {}
    if family == "nvlabs":
        released, trained = RELEASED.get(channels, ("", {}))
    assumed = {
        "variant": family,
        "crop_size": 256,
        "aspect_ratio": 1.0,
        "num_upsampling_layers": "normal",
        "norm_G": norm.replace("batch", "syncbatch") if family == "nvlabs" else norm,
        "contain_dontcare_label": True,
        "no_instance": False,
        "simam": changes.get("variant", family) == "photopen",
        "simam_lambda": 1e-4,
    } | trained
    labels = _labels(channels, assumed, changes, path)
    arch = published.architecture(path, architecture, **(assumed | changes | sizes | labels))
    for name in assumed:
        if name in sizes or (name == "norm_G" and "instance" in norm):
            continue  # the file tells
        value = getattr(arch, name)
        chosen = name in changes or (name in labels and "label_nc" in changes)
        flag = OPPOSITES[name] if value is True else name
        notes.append(published.note(name, value, chosen, flag))
    if family == "nvlabs":
        notes.append("NVlabs' weights are under CC BY-NC-SA 4.0: for non-commercial use only")
    if released:
        notes.append(f"{channels} channels: taken for NVlabs' {released} weights")
    if released == "ADE20K":
        notes.append("label ids are ADE20K's own, unshifted: 0 is unknown, 1 to 150 are classes")
    return arch


def _sizes(states, path):
    """(fields that shapes and keys tell, channels of the map, norm_G without "sync")."""
    G = states["generator"]
    D = states.get("discriminator")
    E = states.get("encoder")
    published.shape(G, "conv_img.weight", 4, path)
    if "fc.weight" not in G:
        raise UserError(f"{path}: lacks fc.weight")
    _, channels, kernel, _ = published.shape(G, "head_0.spade_0.mlp_shared.0.weight", 4, path)
    kind = "batch" if "head_0.spade_0.param_free_norm._mean" in G else "instance"
    spectral = "spectral" if "head_0.act_conv_0.1.weight_orig" in G else ""
    sizes = {
        "ngf": published.shape(G, "head_0.act_conv_0.1.bias", 1, path)[0] // 16,
        "use_vae": G["fc.weight"].ndim == 2,
    }
    if sizes["use_vae"]:
        sizes["z_dim"] = G["fc.weight"].shape[0]
    if any(key.startswith("up_4.") for key in G):
        sizes["num_upsampling_layers"] = "most"
    if D is not None:
        numbers = [re.findall(r"^nld_(\d+)\.\d+\.block_(\d+)\.", key) for key in D]
        numbers = [(int(scale), int(block)) for match in numbers for scale, block in match]
        sizes["num_D"] = len({scale for scale, _ in numbers})
        sizes["n_layers_D"] = max((block for _, block in numbers), default=0)
        sizes["ndf"] = published.shape(D, "nld_0.0.block_0.0.weight", 4, path)[0]
    if E is not None:
        sizes["nef"] = published.shape(E, "layer1.0.weight_orig", 4, path)[0]
    return sizes, channels, f"{spectral}spade{kind}{kernel}x{kernel}"


def _labels(channels, assumed, changes, path):
    """label_nc, contain_dontcare_label, no_instance that make `channels`, as given or assumed."""
    names = ("label_nc", "contain_dontcare_label", "no_instance")
    first = (assumed["contain_dontcare_label"], assumed["no_instance"])
    for dontcare, plain in (first, (True, False), (False, False), (True, True), (False, True)):
        label_nc = channels - dontcare - (not plain)
        labels = dict(zip(names, (label_nc, dontcare, plain), strict=True))
        if all(changes.get(name, value) == value for name, value in labels.items()):
            return labels
    wanted = ", ".join(f"{name} {changes[name]}" for name in names if name in changes)
    raise UserError(
        f"{path}: its {channels} channels of labels, unknown and edges do not go with {wanted}"
    )


def _iteration(data, name):
    """The step count that PaddleGAN's file or its name tells, None where neither does."""
    match = re.search(r"iter_(\d+)", name)
    if match:
        return int(match[1])
    if name.startswith("epoch"):  # epoch_N files count epochs in it
        return None
    return published.count(data.get("epoch"))


# ---- the command ----


def main(argv=None):
    """Convert one file and print what it is and what was assumed."""
    p = published.parser(
        __doc__,
        src="published file: PaddleGAN's .pdparams or NVlabs' latest_net_G.pth",
        dst="file to write, .pdparams: for test.py, demo.py and train.py --load",
        discriminator="file of D, latest_net_D.pth (default: what SRC holds)",
        encoder="file of the VAE's encoder, latest_net_E.pth (default: none)",
    )
    add = p.add_argument
    default = " (default: the family's)"
    # fmt: off
    add("--variant", choices=list(VARIANTS),
        help="activations, norms and initialisation of the networks" + default)
    add("--crop_size", type=flags.PX, help="width of G's images in pixels" + default)
    add("--aspect_ratio", type=flags.aspect, help="width / height of G's images" + default)
    add("--num_upsampling_layers", choices=["normal", "more", "most"],
        help="doublings of the side in G" + default)
    add("--norm_G",
        help="batch or syncbatch in place of the other, the rest as in the file" + default)
    add("--simam_lambda", type=flags.amount, help="SimAM's lambda" + default)
    for name, no in OPPOSITES.items():
        add(f"--{name}", action="store_true", default=None, help="insist" + default)
        add(f"--{no}", dest=name, action="store_false", default=None,
            help=f"the opposite of --{name}")
    # fmt: on
    published.convert(p, read_published, _describe, argv)


def _describe(result):
    arch = result.architecture
    height, width = arch.size
    yield f"{result.family}, {width}x{height} px, {arch.semantic_nc} channels of labels and edges"
    yield f"G: width {arch.ngf}, {arch.norm_G}{', VAE' if arch.use_vae else ''}"
    d_line = f"width {arch.ndf}, {arch.num_D} scales of {arch.n_layers_D} blocks"
    yield f"D: {d_line if 'discriminator' in result.networks else 'none in the file'}"


if __name__ == "__main__":
    command(main)()
