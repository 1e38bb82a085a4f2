"""What the convert.py of StarGAN, AttGAN, STGAN and SPADE have in common round their key tables:
most of all what PaddleCV's files are like.

Its names end in _w, _b and the like. A file of G also holds D, VGG and the optimizer: they are left
out.
"""

import re
from pathlib import Path

from shared_metrics import files, process, published

# The last part of PaddleCV's names, after the layers have ours.
LEAVES = {
    r"\.w$": ".weight",
    r"\.(b|offset)$": ".bias",
    r"\.mean$": "._mean",
    r"\.var$": "._variance",
}
# What the names of a network begin with, in a file that holds others beside it.
PARTS = {
    "generator": r"^(g_main|generator_)",
    "discriminator": r"^(d_main|d_conv|discriminator)",
}
OPTIMIZER = r"(_moment[12]_\d+|_beta[12]_pow_acc_\d+)$"
COUNTERS = r"\.num_batches_tracked$"  # of torch's norms: nothing here counts


def gather(path, data, families, room, **further):
    """(family, {network: {key: array}}, {network: file}) of a room's published files.

    Args: data, the contents of `path` where they are read already; families, see
        published.recognise; room, its name; further, {network: its file, or ""}.
    Raises: UserError, see published.gather, and without a generator.
    """

    def split(contents, file):
        return split_networks(contents, families, room, file)

    states, places = published.gather(path, split, data, **further)
    published.need_generator(states, path)
    family, _ = published.recognise(states["generator"], families, room, path)
    if family == "paddlecv" and not (isinstance(data, dict) and "D" in data):
        # Its program of one network holds the others, too: they count from their own files only.
        states = {n: s for n, s in states.items() if n == "generator" or further.get(n)}
    return family, states, places


def split_networks(data, families, room, path):
    """{network: {key: array}} of a file's contents, or of {"G": a file's contents, "D": ...}."""
    if isinstance(data, dict) and "G" in data:  # elvisyjlin's, or a folder of net_G and net_D
        names = {"generator": "G", "discriminator": "D"}
        return {n: own_part(arrays(data[key]), n) for n, key in names.items() if key in data}
    state = arrays(data)
    family, network = published.recognise(state, families, room, path)
    if family != "paddlecv":
        return {network: state}
    states = {name: own_part(state, name) for name in PARTS}
    return {name: part for name, part in states.items() if part}


def own_part(state, name):
    """What of PaddleCV's variables is a network's own; another family's state as it is."""
    if not any(re.search("|".join(PARTS.values()), key) for key in state):
        return state
    keys = [k for k in state if re.search(PARTS[name], k) and not re.search(OPTIMIZER, k)]
    return {key: state[key] for key in keys}


def arrays(state):
    """{key: array} of a flat state dict, see published.arrays."""
    return published.arrays(state, published.DATA_PARALLEL)


def holds(data, *patterns):
    """Whether a file's contents have keys that match all these regular expressions."""
    state = data.get("G", data) if isinstance(data, dict) else {}
    keys = state if isinstance(state, dict) else ()
    return published.matches([str(key) for key in keys], patterns)


def count(state, pattern):
    """How many keys match a regular expression as a whole."""
    return sum(bool(re.fullmatch(pattern, key)) for key in state)


def source(path, data, family, room, names=()):
    """Where weights come from, for records: see published.source; `names` of the attributes, in the
    order in which G is told them, where they are known.

    Args: data, the contents of `path` where it is a folder.
    """
    about = {"model_net": room, "selected_attrs": list(names)}
    if Path(path).is_dir():
        place = {"file": Path(path).name, "sha256": files.digest(data), "family": family}
        return place | about
    return published.source(path, family, **about)


def size_note(states, arch, image_size, path):
    """The line on the image size, which D alone tells; a warning where nobody has told it."""
    if "discriminator" in states:
        return []
    if not image_size:
        process.warn(
            f"{path}: a generator alone does not tell its image size: taken for "
            f"{arch.image_size} px; convert.py --image_size changes it"
        )
    return [published.note("image_size", arch.image_size, bool(image_size))]


# ---- AttGAN and STGAN: encoder, decoder and D alike

SKIPPING = {
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
CELEBA_13 = (
    *("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses"),
    *("Male", "Mouth_Slightly_Open", "Mustache", "No_Beard", "Pale_Skin", "Young"),
)


def skipping_sizes(states, places, image_size):
    """Fields of AttGAN's and STGAN's Architecture that the shapes tell."""
    G = states["generator"]
    path = places["generator"]
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
        sizes |= skipping_d_sizes(states["discriminator"], layers, places["discriminator"])
    return sizes


def skipping_d_sizes(D, layers, path):
    """Those that D's shapes tell."""
    flat, hidden = published.shape(D, "fc_adv.0.layers.0.weight", 2, path)
    last = published.shape(D, f"conv.{layers - 1}.layers.0.weight", 4, path)[0]
    return {
        "d_base_dims": published.shape(D, "conv.0.layers.0.weight", 4, path)[0],
        "d_fc_dim": hidden,
        "dis_norm": "instance_norm" if "conv.0.layers.1.scale" in D else "none",
        "image_size": round((flat // last) ** 0.5) * 2**layers,
    }
