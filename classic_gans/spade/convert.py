"""Published weights of SPADE.

| here                              | NVlabs: latest_net_{G,D,E}.pth | PaddleCV               |
|-----------------------------------|--------------------------------|------------------------|
| G: {block}.{layer}                | the same                       | generator_{the same}   |
| D: discriminator_{scale}.model{n} | the same                       | the same               |
| E: layer{n}, fc_mu, fc_var        | the same                       | none                   |
| weight_u, weight_v                | the same                       | spectral_norm.w_0, w_1 |
| param_free_norm._mean, ._variance | running_mean, running_var      | the same as NVlabs     |

PaddleCV's spectral norm takes one power iteration at every call from a u that never moved: u and v
are stored as that iteration leaves them. Its norms are affine with scale 1 and shift 0: dropped.
"""

import re

import numpy as np

import converting
from shared_metrics import published
from shared_metrics.errors import UserError

from .model import PRESETS, Architecture, Discriminator, Encoder, Generator

FAMILIES = {
    "nvlabs": {
        "generator": [r"^head_0\.conv_0\.weight_orig$"],
        "discriminator": [r"^discriminator_0\.model0\.0\.weight$"],
        "encoder": [r"^layer1\.0\.weight_orig$"],
    },
    "paddlecv": {
        "generator": [r"^generator_head_0\.conv_0\.weight_orig$"],
        "discriminator": [r"^discriminator_0\.model0\.0_w$"],
    },
}
PADDLECV = {
    r"^generator_": "",
    r"\.spectral_norm\.w_0$": ".weight_u",
    r"\.spectral_norm\.w_1$": ".weight_v",
    r"\.running_": ".",
    r"_([wb])$": r".\1",
}
TRANSPOSED = r"fc(_mu|_var)?\.weight"
CHANNELS = {184: "coco", 151: "ade20k", 36: "cityscapes", 37: "pcv"}  # of labels and edges: preset
NETWORKS = {"generator": Generator, "discriminator": Discriminator, "encoder": Encoder}


def recognises(data):
    """Whether a file's contents are this room's G."""
    families = FAMILIES.values()
    return any(converting.holds(data, *networks["generator"]) for networks in families)


def read_published(path, data=None, discriminator="", encoder="", preset="", **labels):
    """SPADE of NVlabs or PaddleCV.

    Args: path, G's file; data, its contents where they are read already; discriminator, encoder,
        files of their own; preset, one of model.PRESETS, for labels and image size, which no file
        tells ("": by the number of channels); labels, fields of Architecture in place of its.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys.
    """
    further = {"discriminator": discriminator, "encoder": encoder}
    family, states, places = converting.gather(path, data, FAMILIES, "SPADE", **further)
    for name, state in states.items():
        if family == "paddlecv":
            states[name] = published.rename(state, PADDLECV | converting.LEAVES)
            drop_plain_norms(states[name], places[name])
            iterate(states[name])
        else:
            how = {"torch": True, "transposed": TRANSPOSED, "dropped": converting.COUNTERS}
            states[name] = published.rename(state, {}, **how)
    G = states["generator"]
    channels = published.shape(G, "head_0.norm_0.mlp_shared.0.weight", 4, path)[1]
    name = preset or CHANNELS.get(channels, "coco")
    fields = PRESETS[name] | labels | sizes_of(states, places)
    fields["d_padding"] = 2 if family == "nvlabs" else 1
    arch = published.architecture(path, Architecture, **fields)
    if arch.semantic_nc != channels:
        raise UserError(
            f"{path}: its maps have {channels} channels, but label_nc {arch.label_nc}, "
            f"contain_dontcare_label {arch.contain_dontcare_label} and no_instance "
            f"{arch.no_instance} make {arch.semantic_nc}; give those that it was trained with"
        )
    published.check_shapes(states, NETWORKS, arch, places)
    source = converting.source(path, data, family, "SPADE")
    notes = [published.note("preset", name, bool(preset))]
    return published.Published(family, arch, states, source, notes)


def sizes_of(states, places):
    """Fields of Architecture that the shapes tell."""
    G = states["generator"]
    first = "head_0.conv_0.weight_orig"
    sizes = {"ngf": published.shape(G, first, 4, places["generator"])[0] // 16}
    if "up_4.conv_0.weight_orig" in G:
        sizes["num_upsampling_layers"] = "most"
    if "fc.weight" in G and G["fc.weight"].ndim == 2:
        sizes |= {"use_vae": True, "z_dim": G["fc.weight"].shape[0]}
    if "discriminator" in states:
        D = states["discriminator"]
        first = "discriminator_0.model0.0.weight"
        sizes |= {
            "ndf": published.shape(D, first, 4, places["discriminator"])[0],
            "num_D": converting.count(D, r"discriminator_\d+\.model0\.0\.weight"),
            "d_nlayers": converting.count(D, r"discriminator_0\.model\d+\..*weight(_orig)?") - 1,
        }
    if "encoder" in states:
        first = "layer1.0.weight_orig"
        sizes["nef"] = published.shape(states["encoder"], first, 4, places["encoder"])[0]
    return sizes


def drop_plain_norms(state, path):
    """Drop scale 1 and shift 0 of the norms that have no affine map here. Raises UserError for
    other values.
    """
    plain = {"weight": 1.0, "scale": 1.0, "bias": 0.0, "offset": 0.0}
    for key in [k for k in state if re.search(r"(param_free_norm\.|_norm_)\w+$", k)]:
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
