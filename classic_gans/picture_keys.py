"""Keys of the networks that Pix2Pix and CycleGAN share, as their authors, PaddleGAN and PaddleCV
have them.

| here                            | authors, PaddleGAN        | PaddleCV                       |
|---------------------------------|---------------------------|--------------------------------|
| U-Net: level k, see `unet`      | the same                  | unet256_u0_..uk_{down,up}_conv |
| ResNet: model.{i}, see `resnet` | the same                  | resnet9block_{c1..6, r1_c1 ..} |
| PatchGAN: model.{i}             | the same                  | basic_{c1..5}                  |
| .weight .bias ._mean ._variance | torch: running_mean, _var | _w _b _mean _var               |
| .scale .bias of InstanceNorm    | 1 and 0: dropped          | _scale _offset                 |

Sizes are read from shapes. Old files of the authors keep statistics of InstanceNorm, which nothing
reads: dropped.
"""

import re
from pathlib import Path

import numpy as np

from parts import BARE, LEAF, LEAVES, paddlecv, split
from shared_metrics import process, published
from shared_metrics.errors import UserError

# What the authors' keys of a generator, and of a discriminator, begin with.
GENERATOR = r"^(module\.)?model\.(model\.|\d+\.conv_block\.)"
DISCRIMINATOR = r"^(module\.)?(model|net)\.0\.weight$"
# The authors publish one generator of a CycleGAN alone, from A to B: latest_net_G.pth, called
# horse2zebra.pth, cityscapes_label2photo.pth, style_monet.pth, ... where it is downloaded.
SINGLE = re.compile(r"(latest|\d+)_net_G|([a-z]+_)?[a-z]+2[a-z]+(_[a-z]+)?|style_[a-z]+")


# ---- PaddleCV's names: regular expression -> function of the match


def unet(match):
    """generator_unet256_u0_u1_up_conv_norm_w: levels from the outermost, each inside the other."""
    size, levels, way, norm, leaf = match.groups()
    depth = levels.count("_u") - 1
    if depth == 0:
        return f"model.model.{0 if way == 'down' else 3}.{LEAVES[leaf]}"
    innermost = depth == {"128": 6, "256": 7}[size]
    place = 1 if way == "down" else 3 if innermost else 5
    inside = "model.model.1.model" + ".3.model" * (depth - 1)
    return f"{inside}.{place + bool(norm)}.{LEAVES[leaf]}"


def resnet(match):
    """generator_resnet9block_c1_w, or ..._r3_c2_norm_w of the third residual block."""
    count, block, layer, norm, leaf = match.groups()
    if block:
        place = {"1": 1, "2": 5}[layer] + bool(norm)
        return f"model.{9 + int(block)}.conv_block.{place}.{LEAVES[leaf]}"
    after = int(count) + 10
    places = {"1": 1, "2": 4, "3": 7, "4": after, "5": after + 3, "6": after + 7}
    return f"model.{places[layer] + bool(norm)}.{LEAVES[leaf]}"


def patches(match):
    """discriminator_basic_c2_norm_w: after the first, three layers a convolution."""
    layer, norm, leaf = match.groups()
    place = max(0, 3 * int(layer) - 4)
    return f"model.{place + bool(norm)}.{LEAVES[leaf]}"


RENAMES = {
    rf"^(?:generator|G[AB])_unet(128|256)((?:_u\d)+)_(down|up)_conv(_norm)?_{LEAF}": unet,
    rf"^(?:generator|G[AB])_resnet([69])block_(?:r([1-9])_)?c([1-6])(_norm)?_{LEAF}": resnet,
    rf"^(?:discriminator|D[AB])_(?:basic|nlayers)_c([1-9])(_norm)?_{LEAF}": patches,
}


# ---- sizes


def generator_sizes(G, path):
    """What the shapes of a U-Net or ResNet tell. Raises: UserError for other depths."""
    if "model.model.0.weight" in G:
        levels = 2 + max(key.count(".3.model") for key in G)
        sizes = {"net_G": kind(levels, {7: "unet_128", 8: "unet_256"}, "levels", path)}
        sizes["norm_type"] = norm_type(G, "model.model.1.model.2")
        first = "model.model.0.weight"
        sizes["output_nc"] = published.shape(G, "model.model.3.weight", 4, path)[1]
    else:
        blocks = len({key.split(".")[1] for key in G if ".conv_block." in key})
        sizes = {"net_G": kind(blocks, {6: "resnet_6block", 9: "resnet_9block"}, "blocks", path)}
        sizes["norm_type"] = norm_type(G, "model.2")
        # Dropout stands where the padding is else, so the second convolution is one further.
        sizes["dropout"] = "model.10.conv_block.5.weight" not in G
        first = "model.1.weight"
        sizes["output_nc"] = published.shape(G, f"model.{17 + blocks}.weight", 4, path)[0]
    width, inputs = published.shape(G, first, 4, path)[:2]
    return sizes | {"g_base_dims": width, "input_nc": inputs}


def kind(count, kinds, what, path):
    """The name of the generator with so many levels or blocks."""
    if count not in kinds:
        known = " and ".join(f"{n} ({name})" for n, name in kinds.items())
        raise UserError(f"{path}: a generator of {count} {what}; known are {known}")
    return kinds[count]


def discriminator_sizes(D, path):
    """(channels of its input, what the other shapes of a PatchGAN or PixelGAN tell)."""
    pixel = "net.0.weight" in D
    width, inputs = published.shape(D, "net.0.weight" if pixel else "model.0.weight", 4, path)[:2]
    strided = sum(value.ndim == 4 for value in D.values()) - 2
    sizes = {"d_base_dims": width, "norm_type": norm_type(D, "net.3" if pixel else "model.3")}
    if pixel:
        return inputs, sizes | {"net_D": "pixel"}
    net_D = "basic" if strided == 3 else "nlayers"
    return inputs, sizes | {"net_D": net_D, "d_nlayers": max(1, strided)}


def norm_type(state, layer):
    return "batch_norm" if f"{layer}._mean" in state else "instance_norm"


# ---- networks of a file


def split_networks(parts, prefixes, names, path):
    """(family, {network: {our name: array}}) of Pix2Pix's or CycleGAN's networks.

    Args: parts, see parts.split; prefixes, {network: what PaddleCV's names begin with}; names,
        {name in the file: network}. A file of one network without name is G or D by its keys, and
        of CycleGAN the first one of these, or the one that the file's own name tells.
    """
    if states := paddlecv(parts, prefixes, RENAMES):
        return "paddlecv", states
    family = "junyanz"
    for name, part in parts.items():
        state = published.arrays(part, published.DATA_PARALLEL)
        if name == BARE:
            name = bare_name(state, names, path)
        if name is None or name not in names:
            continue
        torch = any(key.endswith("running_mean") for key in state)
        if not torch and any(key.endswith(("._mean", ".scale")) for key in state):
            family = "paddlegan"
        states[names[name]] = plain_norms(published.rename(state, {}, torch=torch), path)
    return family, states


def named(data, names):
    """Whether contents hold networks under these names, with the authors' keys."""
    for name, state in split(data, "").items():
        if name in names and any(re.search(f"{GENERATOR}|{DISCRIMINATOR}", key) for key in state):
            return True
    return False


def bare_name(state, names, path):
    """The name of the only network in a file: by the keys G or D, by the file's name A or B."""
    if any(re.match(r"model\.model\.|model\.\d+\.conv_block\.", key) for key in state):
        letter = "G"
    elif any(re.match(r"(model|net)\.0\.weight$", key) for key in state):
        letter = "D"
    else:
        return None
    candidates = [name for name in names if name.startswith(letter)]
    told = re.search(r"net_([GD]_[AB])\b", Path(path).stem)
    if told and told[1] in candidates:
        return told[1]
    if len(candidates) > 1 and not SINGLE.fullmatch(Path(path).stem):
        process.warn(
            f"{path}: neither its keys nor its name tell {' or '.join(candidates)}: taken for "
            f"{candidates[0]}; its authors' names, latest_net_{candidates[1]}.pth, tell the other"
        )
    return candidates[0]


def plain_norms(state, path):
    """The state without what files keep of InstanceNorm although it has no affine map: running
    statistics that nothing reads, or (PaddleGAN) a scale of 1 and a shift of 0.
    """
    idle = set()
    for key, value in state.items():
        layer, _, leaf = key.rpartition(".")
        if leaf == "_mean" and f"{layer}.weight" not in state:
            idle |= {key, f"{layer}._variance"}
        elif leaf == "scale":
            shift = state.get(f"{layer}.bias", np.ones(1))
            if (value != 1).any() or shift.any():
                raise UserError(f"{path}: {key} is not 1; its InstanceNorm learnt an affine map")
            idle |= {key, f"{layer}.bias"}
    return {key: value for key, value in state.items() if key not in idle}
