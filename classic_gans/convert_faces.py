"""Turn published weights of StarGAN, AttGAN, STGAN and SPADE into this repository's.

| here                       | published                | PaddleCV                          |
|----------------------------|--------------------------|-----------------------------------|
| StarGAN                    | yunjey's                 |                                   |
| G: main.{n}                | main.{n}                 | g_main{n}                         |
| main.{n}.main.{m}          | main.{n}.main.{m}        | g_main.{n}.main{m}                |
| D: main.{n}, conv{n}       | main.{n}, conv{n}        | d_main{n}, d_conv{n}              |
| AttGAN, STGAN              | elvisyjlin's AttGAN      |                                   |
| G: enc_layers.{i}          | enc_layers.{i}           | generator_Genc{i}                 |
| dec_layers.{i}             | dec_layers.{i}           | generator_Gdec{i}                 |
| stu.{i}.{part}             |                          | generator_GRU{i}_{part}           |
| D: conv.{i}                | conv.{i}                 | discriminator{i}                  |
| fc_{head}.{i}              | fc_{head}.{i}            | discriminatorfc_{head}_{i + 1}    |
| SPADE                      | NVlabs'                  |                                   |
| G: {block}.{layer}         | {block}.{layer}          | generator_{block}.{layer}         |
| D: discriminator_{s}.model{n} | discriminator_{s}.model{n} | discriminator_{s}.model{n}   |

Layout: torch's linear weights are transposed; instance norm's weight is `scale` here; running
statistics of StarGAN's instance norms are dropped, since its authors' test takes the image's own.
PaddleCV's names end in _w, _b and the like. Its files of G also hold D, VGG and the optimizer: they
are left out. Its spectral norm takes one power iteration from a u that never moved: u and v are
stored as that iteration leaves them. Its norms of SPADE are affine with scale 1 and shift 0.
"""

import json
import re
from pathlib import Path

import numpy as np

import attgan.model
import spade.model
import stargan.model
import stgan.model
from shared_metrics import published
from shared_metrics.errors import UserError

FAMILIES = {
    "stargan": {
        "yunjey": {
            "generator": [r"^main\.0\.", r"^main\.9\.main\.0\."],
            "discriminator": [r"^main\.0\.", r"^conv2\."],
        },
        "paddlecv": {"generator": [r"^g_main0_w$"], "discriminator": [r"^d_main0_w$"]},
    },
    "attgan": {
        "elvisyjlin": {
            "generator": [r"^enc_layers\.0\.layers\.0\."],
            "discriminator": [r"^fc_adv\.0\.layers\.0\."],
        },
        "paddlecv": {
            "generator": [r"^generator_Genc0_w$"],
            "discriminator": [r"^discriminatorfc_adv_1_w$"],
        },
    },
    "stgan": {
        "paddlecv": {
            "generator": [r"^generator_Genc0_w$"],
            "discriminator": [r"^discriminatorfc_adv_1_w$"],
        },
    },
    "spade": {
        "nvlabs": {
            "generator": [r"^head_0\.conv_0\.weight_orig$"],
            "discriminator": [r"^discriminator_0\.model0\.0\.weight$"],
            "encoder": [r"^layer1\.0\.weight_orig$"],
        },
        "paddlecv": {
            "generator": [r"^generator_head_0\.conv_0\.weight_orig$"],
            "discriminator": [r"^discriminator_0\.model0\.0_w$"],
        },
    },
}
# What PaddleCV's names of a network's weights begin with, in a file that holds others beside them.
PARTS = {
    "generator": r"^(g_main|generator_)",
    "discriminator": r"^(d_main|d_conv|discriminator)",
}
OPTIMIZER = r"(_moment[12]_\d+|_beta[12]_pow_acc_\d+)$"

_ATTGAN = {
    r"^generator_Genc(\d+)_norm_": r"enc_layers.\1.layers.1.",
    r"^generator_Gdec(\d+)_norm_": r"dec_layers.\1.layers.1.",
    r"^generator_Genc(\d+)_": r"enc_layers.\1.layers.0.",
    r"^generator_Gdec(\d+)_": r"dec_layers.\1.layers.0.",
    r"^generator_GRU(\d+)_(\w+)_([wb])$": r"stu.\1.\2.\3",
    r"^discriminator(\d+)_norm_": r"conv.\1.layers.1.",
    r"^discriminator(\d+)_": r"conv.\1.layers.0.",
    r"^discriminatorfc_(adv|cls)_1_": r"fc_\1.0.layers.0.",
    r"^discriminatorfc_(adv|cls)_2_": r"fc_\1.1.layers.0.",
}
_STARGAN = {
    # Instance norm, named as the convolution before it, stands behind that.
    r"^g_main(\d+)_norm_": lambda m: f"main.{int(m[1]) + 1}.",
    r"^g_main\.(\d+)\.main(\d+)_norm_": lambda m: f"main.{m[1]}.main.{int(m[2]) + 1}.",
    r"^[gd]_main(\d+)_": r"main.\1.",
    r"^g_main\.(\d+)\.main(\d+)_": r"main.\1.main.\2.",
    r"^d_conv(\d)_": r"conv\1.",
}
_SPADE = {
    r"^generator_": "",
    r"\.spectral_norm\.w_0$": ".weight_u",
    r"\.spectral_norm\.w_1$": ".weight_v",
    r"\.running_": ".",
    r"_([wb])$": r".\1",
}
# The last part of PaddleCV's names, after the layers have theirs.
_LEAVES = {
    r"\.w$": ".weight",
    r"\.(b|offset)$": ".bias",
    r"\.mean$": "._mean",
    r"\.var$": "._variance",
}
PADDLECV = {
    "stargan": _STARGAN | _LEAVES,
    "attgan": _ATTGAN | _LEAVES,
    "stgan": _ATTGAN | _LEAVES,
    "spade": _SPADE | _LEAVES,
}
# In torch's files: linear weights, and what else has another name or is left out.
TRANSPOSED = {
    "attgan": r"fc_(adv|cls)\.\d\.layers\.0\.weight",
    "spade": r"fc(_mu|_var)?\.weight",
}
TORCH = {"attgan": {r"^(conv\.\d+\.layers\.1)\.weight$": r"\1.scale"}}
DROPPED = {"stargan": r"\.(running_mean|running_var|num_batches_tracked)$"}

CELEBA_5 = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
CELEBA_13 = (
    *("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses"),
    *("Male", "Mouth_Slightly_Open", "Mustache", "No_Beard", "Pale_Skin", "Young"),
)
SLOPES = {"lrelu": 0.01, "relu": 0.0}  # elvisyjlin's words for D's heads
# The published SPADE networks by their channels of labels and edges.
SPADE_PRESETS = {184: "coco", 151: "ade20k", 36: "cityscapes", 37: "pcv"}


# ---- one reader a room ----


def read_stargan(path, discriminator="", image_size=None, c2_dim=0, data=None):
    """StarGAN of yunjey or PaddleCV.

    Args: discriminator, D's file, where it has its own; image_size, which D's weights alone tell;
        c2_dim, classes of the second data set, of networks for two; data, the contents of `path`
        where they are read already.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys.
    """
    family, states, files = gather("stargan", path, data, discriminator=discriminator)
    G = states["generator"]
    width, inputs = published.shape(G, "main.0.weight", 4, path)[:2]
    sizes = {
        "c_dim": inputs - 3 - (c2_dim + 2 if c2_dim else 0),
        "c2_dim": c2_dim,
        "g_base_dims": width,
        "g_repeat_num": count(G, r"main\.\d+\.main\.0\.weight"),
        "image_size": image_size or 128,
    }
    if "discriminator" in states:
        D = states["discriminator"]
        layers = count(D, r"main\.\d+\.weight")
        sizes |= {
            "d_base_dims": published.shape(D, "main.0.weight", 4, files["discriminator"])[0],
            "d_repeat_num": layers,
            "d_bias": "main.0.bias" in D,
            "d_slope": 0.01 if family == "yunjey" else 0.2,
            "image_size": published.shape(D, "conv2.weight", 4, files["discriminator"])[2]
            * 2**layers,
        }
    arch = published.architecture(path, stargan.model.Architecture, **sizes)
    names = CELEBA_5 if (arch.c_dim, c2_dim) == (5, 0) else ()
    published.check_shapes(states, networks_of(stargan.model), arch, files)
    source = published.source(path, family, selected_attrs=list(names))
    return published.Published(family, arch, states, source, size_note(states, arch, image_size))


def read_attgan(path, discriminator="", image_size=None, data=None):
    """AttGAN of elvisyjlin, with the setting.txt of its experiment where that lies near, or of
    PaddleCV. Args, returns, raises as `read_stargan`.
    """
    family, states, files = gather("attgan", path, data, discriminator=discriminator)
    setting = read_setting(path) if family == "elvisyjlin" else {}
    image_size = image_size or setting.get("img_size")
    slope = SLOPES.get(setting.get("dis_fc_acti", "relu"))
    if slope is None:
        raise UserError(f"{path}: its setting.txt has an unknown dis_fc_acti")
    sizes = attgan_sizes(states, files, image_size) | {"slope": 0.01, "fc_slope": slope}
    arch = published.architecture(path, attgan.model.Architecture, **sizes)
    names = setting.get("attrs", CELEBA_13 if arch.c_dim == 13 else ())
    published.check_shapes(states, networks_of(attgan.model), arch, files)
    source = published.source(path, family, selected_attrs=list(names))
    return published.Published(family, arch, states, source, size_note(states, arch, image_size))


def read_stgan(path, discriminator="", image_size=None, data=None):
    """STGAN of PaddleCV. Args, returns, raises as `read_stargan`."""
    family, states, files = gather("stgan", path, data, discriminator=discriminator)
    units = count(states["generator"], r"stu\.\d+\.info\.weight")
    sizes = attgan_sizes(states, files, image_size) | {"bn_eps": 1e-5, "bn_momentum": 0.9}
    sizes |= {"use_gru": units > 0, "gru_n_layers": units}
    arch = published.architecture(path, stgan.model.Architecture, **sizes)
    names = CELEBA_13 if arch.c_dim == 13 else ()
    published.check_shapes(states, networks_of(stgan.model), arch, files)
    source = published.source(path, family, selected_attrs=list(names))
    return published.Published(family, arch, states, source, size_note(states, arch, image_size))


def read_spade(path, discriminator="", encoder="", preset="", data=None, **labels):
    """SPADE of NVlabs or PaddleCV.

    Args: discriminator, encoder, files of their own; preset, one of spade.model.PRESETS, for labels
        and image size, which no file tells ("": by the number of channels); labels, fields of
        spade.model.Architecture in place of the preset's.
    Returns, raises: as `read_stargan`.
    """
    further = {"discriminator": discriminator, "encoder": encoder}
    family, states, files = gather("spade", path, data, **further)
    if family == "paddlecv":
        for name, state in states.items():
            drop_plain_norms(state, files[name])
            iterate(state)
    G = states["generator"]
    channels = published.shape(G, "head_0.norm_0.mlp_shared.0.weight", 4, path)[1]
    name = preset or SPADE_PRESETS.get(channels, "coco")
    sizes = spade.model.PRESETS[name] | labels | spade_sizes(states, files)
    sizes["d_padding"] = 2 if family == "nvlabs" else 1
    arch = published.architecture(path, spade.model.Architecture, **sizes)
    if arch.semantic_nc != channels:
        raise UserError(
            f"{path}: its maps have {channels} channels, but label_nc {arch.label_nc}, "
            f"contain_dontcare_label {arch.contain_dontcare_label} and no_instance "
            f"{arch.no_instance} make {arch.semantic_nc}; give those that it was trained with"
        )
    networks = networks_of(spade.model) | {"encoder": spade.model.Encoder}
    published.check_shapes(states, networks, arch, files)
    notes = [published.note("preset", name, bool(preset))]
    return published.Published(family, arch, states, published.source(path, family), notes)


# ---- files and names ----


def networks_of(model):
    return {"generator": model.Generator, "discriminator": model.Discriminator}


def gather(room, path, data, **further):
    """(family, {network: {our name: array}}, {network: file}) of a room's published files."""

    def split(contents, file):
        return split_networks(room, contents, file)

    states, files = published.gather(path, split, data, **further)
    published.need_generator(states, path)
    family, _ = published.recognise(states["generator"], FAMILIES[room], room, path)
    if family == "paddlecv":
        # Its program of one network holds the others, too: they count from their own files only.
        states = {n: s for n, s in states.items() if n == "generator" or further.get(n)}
    renamed = {}
    for name, state in states.items():
        if family == "paddlecv":
            renamed[name] = published.rename(state, PADDLECV[room])
        else:
            renamed[name] = published.rename(
                instance_scales(state) if room == "stargan" else state,
                TORCH.get(room, {}),
                torch=True,
                transposed=TRANSPOSED.get(room, r"(?!)"),
                dropped=DROPPED.get(room, r"\.num_batches_tracked$"),
            )
    return family, renamed, files


def split_networks(room, data, path):
    """{network: {key: array}} of a file's contents."""
    if isinstance(data, dict) and "G" in data:  # elvisyjlin's; optimizers stand beside
        parts = {"generator": "G", "discriminator": "D"}
        return {n: arrays(data[key]) for n, key in parts.items() if key in data}
    state = arrays(data)
    family, network = published.recognise(state, FAMILIES[room], room, path)
    if family != "paddlecv":
        return {network: state}
    states = {}
    for name, pattern in PARTS.items():
        keys = [k for k in state if re.search(pattern, k) and not re.search(OPTIMIZER, k)]
        if keys:
            states[name] = {key: state[key] for key in keys}
    return states


def arrays(state):
    return published.arrays(state, published.DATA_PARALLEL)


def instance_scales(state):
    """Weights of one dimension, which are instance norms', under Paddle's name for them."""
    result = {}
    for key, value in state.items():
        result[re.sub(r"\.weight$", ".scale", key) if value.ndim == 1 else key] = value
    return result


def read_setting(path):
    """elvisyjlin's setting.txt, a JSON dict, beside the weights or above their folder; {} where
    there is none. Raises UserError where it is no such file.
    """
    for folder in (Path(path).parent, Path(path).absolute().parent.parent):
        file = folder / "setting.txt"
        if file.is_file():
            try:
                setting = json.loads(file.read_text())
            except ValueError as error:
                raise UserError(f"{file}: is no JSON ({error}); remove or repair it") from None
            return setting if isinstance(setting, dict) else {}
    return {}


# ---- sizes ----


def count(state, pattern):
    return sum(bool(re.fullmatch(pattern, key)) for key in state)


def size_note(states, arch, given):
    """The line on the image size, which D alone tells."""
    if "discriminator" in states:
        return []
    return [published.note("image_size", arch.image_size, bool(given))]


def attgan_sizes(states, files, image_size):
    """Fields of AttGAN's and STGAN's Architecture that the shapes tell."""
    G = states["generator"]
    path = files["generator"]
    layers = count(G, r"enc_layers\.\d+\.layers\.0\.weight")
    widths = []
    stages = []
    for i in range(layers):
        widths.append(published.shape(G, f"enc_layers.{i}.layers.0.weight", 4, path)[0])
        stages.append(published.shape(G, f"dec_layers.{i}.layers.0.weight", 4, path)[:2])
    c_dim = stages[0][0] - widths[-1]
    shortcuts = 0
    injections = 0
    for i in range(1, layers):
        more = stages[i][0] - stages[i - 1][1]  # channels beside those of the stage before
        skip = widths[-1 - i]
        shortcuts += more in (skip, skip + c_dim)
        injections += more in (c_dim, skip + c_dim)
    sizes = {
        "c_dim": c_dim,
        "g_base_dims": widths[0],
        "n_layers": layers,
        "shortcut_layers": shortcuts,
        "inject_layers": injections,
        "image_size": image_size or 128,
    }
    if "discriminator" in states:
        D = states["discriminator"]
        path = files["discriminator"]
        flat, hidden = published.shape(D, "fc_adv.0.layers.0.weight", 2, path)
        last = published.shape(D, f"conv.{layers - 1}.layers.0.weight", 4, path)[0]
        sizes |= {
            "d_base_dims": published.shape(D, "conv.0.layers.0.weight", 4, path)[0],
            "d_fc_dim": hidden,
            "dis_norm": "instance_norm" if "conv.0.layers.1.scale" in D else "none",
            "image_size": round((flat // last) ** 0.5) * 2**layers,
        }
    return sizes


def spade_sizes(states, files):
    """Fields of SPADE's Architecture that the shapes tell."""
    G = states["generator"]
    first = "head_0.conv_0.weight_orig"
    sizes = {"ngf": published.shape(G, first, 4, files["generator"])[0] // 16}
    if "up_4.conv_0.weight_orig" in G:
        sizes["num_upsampling_layers"] = "most"
    if "fc.weight" in G and G["fc.weight"].ndim == 2:
        sizes |= {"use_vae": True, "z_dim": G["fc.weight"].shape[0]}
    if "discriminator" in states:
        D = states["discriminator"]
        first = "discriminator_0.model0.0.weight"
        sizes |= {
            "ndf": published.shape(D, first, 4, files["discriminator"])[0],
            "num_D": count(D, r"discriminator_\d+\.model0\.0\.weight"),
            "d_nlayers": count(D, r"discriminator_0\.model\d+\..*weight(_orig)?") - 1,
        }
    if "encoder" in states:
        first = "layer1.0.weight_orig"
        sizes["nef"] = published.shape(states["encoder"], first, 4, files["encoder"])[0]
    return sizes


# ---- PaddleCV's SPADE ----


def drop_plain_norms(state, path):
    """Drop scale 1 and shift 0 of the norms that have no affine map here. Raises UserError for
    other values.
    """
    for key in [k for k in state if re.search(r"(param_free_norm\.|_norm_)\w+$", k)]:
        plain = {"weight": 1.0, "scale": 1.0, "bias": 0.0, "offset": 0.0}
        leaf = re.split(r"[._]", key)[-1]
        if leaf in plain:
            if (state[key] != plain[leaf]).any():
                raise UserError(
                    f"{path}: {key} is not {plain[leaf]:g} throughout, as PaddleCV's is"
                )
            del state[key]


def iterate(state):
    """One power iteration of each spectral norm, as PaddleCV's inference makes it at every call."""
    for key in [k for k in state if k.endswith(".weight_orig")]:
        layer = key.removesuffix(".weight_orig")
        W = state[key].reshape(len(state[key]), -1)
        u = state.get(f"{layer}.weight_u")
        if u is None or u.shape != W.shape[:1]:
            continue  # the check of keys and shapes tells
        v = W.T @ u
        v = v / max(np.linalg.norm(v), 1e-12)
        u = W @ v
        state[f"{layer}.weight_u"] = u / max(np.linalg.norm(u), 1e-12)
        state[f"{layer}.weight_v"] = v
