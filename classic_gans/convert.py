"""Turn published weights of CGAN, DCGAN, Pix2Pix and CycleGAN into this repository's:

    python convert.py --model_net=CycleGAN SRC DST.pdparams

| here                            | authors, PaddleGAN        | PaddleCV                        |
|---------------------------------|---------------------------|---------------------------------|
| Pix2Pix: generator              | one file; netG            | generator_                      |
|          discriminator          | one file; netD            | discriminator_                  |
| CycleGAN: generator_A, _B       | one file; netG_A, netG_B  | GA_, GB_                        |
|           discriminator_A, _B   | one file; netD_A, netD_B  | DA_, DB_                        |
| CGAN, DCGAN                     | none                      | G_, D_                          |
| U-Net: level k, see `unet`      | the same                  | unet256_u0_..uk_{down,up}_conv  |
| ResNet: model.{i}, see `resnet` | the same                  | resnet9block_{c1..6, r1_c1 ..}  |
| PatchGAN: model.{i}             | the same                  | basic_{c1..5}                   |
| digits: l1, l1_norm, dc1 ...    | none                      | l1, l1_norm, dc1 ...            |
| .weight .bias ._mean ._variance | torch: running_mean, _var | _w _b _mean _var                |
| .scale .bias of InstanceNorm    | 1 and 0: dropped          | _scale _offset                  |

SRC is a file; or a folder of PaddlePaddle 1.x with one raw file a variable; or a folder that holds
one such file or folder for each network, as net_G and net_D, or latest_net_G.pth. Sizes are read
from shapes. Old files of the authors keep statistics of InstanceNorm, which nothing reads: dropped.
"""

import re
from pathlib import Path

import numpy as np

import rooms
from shared_metrics import files, fluid_files, published, weights
from shared_metrics.errors import UserError
from shared_metrics.process import command
from shared_metrics.unpickle import printable

NET_FILE = re.compile(r"(?:latest_)?net_?([GD](?:_?[AB])?)(?:\.pth|\.pdparams)?")
BARE = ""  # the name of a network that stands in a file without one
# A network's names in the authors' and PaddleGAN's files: here. And what PaddleCV's begin with.
PIX2PIX = {"G": "generator", "D": "discriminator"}
CYCLEGAN = {"G_A": "generator_A", "G_B": "generator_B"}
CYCLEGAN |= {"D_A": "discriminator_A", "D_B": "discriminator_B"}
PADDLECV = {
    "cgan": {"generator": r"G_", "discriminator": r"D_"},
    "dcgan": {"generator": r"G_", "discriminator": r"D_"},
    "pix2pix": {"generator": r"generator_", "discriminator": r"discriminator_"},
    "cyclegan": {net: rf"{name.replace('_', '')}_" for name, net in CYCLEGAN.items()},
}
# Variables of PaddleCV that tell the room where --model_net does not.
TELLING = {
    "CGAN": r"^(G_dc1_norm_w|D_l3_w)$",
    "DCGAN": r"^(G_dc1_b|D_c1_w)$",
    "Pix2pix": r"^(generator_(unet|resnet)\d|discriminator_(basic|nlayers)_)",
    "CycleGAN": r"^[GD][AB]_",
}
OPTIMIZER = r"(_moment[12]_\d+|_beta[12]_pow_acc_\d+)$"
LEAVES = {"w": "weight", "b": "bias", "mean": "_mean", "var": "_variance"}
LEAVES |= {"scale": "scale", "offset": "bias"}


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


def digits(match):
    layer, leaf = match.groups()
    return f"{layer}.{LEAVES[leaf]}"


_LEAF = f"({'|'.join(LEAVES)})$"
RENAMES = {
    rf"^(?:generator|G[AB])_unet(128|256)((?:_u\d)+)_(down|up)_conv(_norm)?_{_LEAF}": unet,
    rf"^(?:generator|G[AB])_resnet([69])block_(?:r([1-9])_)?c([1-6])(_norm)?_{_LEAF}": resnet,
    rf"^(?:discriminator|D[AB])_(?:basic|nlayers)_c([1-9])(_norm)?_{_LEAF}": patches,
    rf"^[GD]_(\w+?)_{_LEAF}": digits,
}


# ---- one reader a room: {name in the file: {key: array}} -> Published


def read_cgan(parts, path):
    from cgan.model import Architecture, Discriminator, Generator

    states = split_paddlecv(parts, "cgan")
    values = {"legacy": True}
    if "generator" in states:
        G = states["generator"]
        width = published.shape(G, "dc1.weight", 4, path)[1]
        values["noise_size"] = published.shape(G, "l1.weight", 2, path)[0] - 1
        values["g_base_dims"] = width
        values["image_size"] = 4 * side_of(published.shape(G, "l2.weight", 2, path)[1], width)
        values["channels"] = published.shape(G, "dc2.weight", 4, path)[1]
    if "discriminator" in states:
        D = states["discriminator"]
        width, inputs = published.shape(D, "l1.weight", 4, path)[:2]
        # Without padding, a side of 4 (s + 1) becomes s in two convolutions.
        side = side_of(published.shape(D, "l3.weight", 2, path)[0] - 1, width)
        values |= {"d_base_dims": width, "channels": inputs - 1, "image_size": 4 * (side + 1)}
    networks = {"generator": Generator, "discriminator": Discriminator}
    return finish(path, "CGAN", "paddlecv", Architecture, values, states, networks, parts)


def read_dcgan(parts, path):
    from dcgan.model import Architecture, DigitDiscriminator, DigitGenerator

    states = split_paddlecv(parts, "dcgan")
    values = {"form": "digits"}
    if "generator" in states:
        G = states["generator"]
        width = published.shape(G, "dc1.weight", 4, path)[1]
        values["noise_size"] = published.shape(G, "l1.weight", 2, path)[0]
        values["g_base_dims"] = width // 2
        values["image_size"] = 4 * side_of(published.shape(G, "l2.weight", 2, path)[1], width)
        values["channels"] = published.shape(G, "dc2.weight", 4, path)[1]
    if "discriminator" in states:
        D = states["discriminator"]
        width, channels = published.shape(D, "c1.weight", 4, path)[:2]
        # Each 5x5 convolution takes 4, each pooling halves.
        side = side_of(published.shape(D, "l1.weight", 2, path)[0], 2 * width)
        values |= {"d_base_dims": width, "channels": channels, "image_size": 4 * side + 12}
    networks = {"generator": DigitGenerator, "discriminator": DigitDiscriminator}
    return finish(path, "DCGAN", "paddlecv", Architecture, values, states, networks, parts)


def read_pix2pix(parts, path):
    from pix2pix.model import Architecture, Discriminator, Generator

    family, states = split_image_networks(parts, "pix2pix", PIX2PIX, path)
    values = {"legacy": family == "paddlecv", "dropout": family != "paddlecv"}
    if "generator" in states:
        values |= generator_sizes(states["generator"], path)
    if "discriminator" in states:
        inputs, sizes = discriminator_sizes(states["discriminator"], path)
        values |= sizes
        if "generator" not in states:
            values["input_nc"] = max(1, inputs - 3)
    networks = {"generator": Generator, "discriminator": Discriminator}
    return finish(path, "Pix2pix", family, Architecture, values, states, networks, parts)


def read_cyclegan(parts, path):
    from cyclegan.model import Architecture, networks

    family, states = split_image_networks(parts, "cyclegan", CYCLEGAN, path)
    values = {"legacy": family == "paddlecv"}
    for name, state in states.items():
        if name.startswith("discriminator"):
            channels, sizes = discriminator_sizes(state, path)
            sizes["output_nc" if name.endswith("A") else "input_nc"] = channels
        else:
            sizes = generator_sizes(state, path)
            if name.endswith("B"):  # which draws A
                sizes |= {"input_nc": sizes["output_nc"], "output_nc": sizes["input_nc"]}
        values |= sizes

    def builder(name):
        return lambda arch: networks(arch)[name]

    builders = {name: builder(name) for name in states}
    return finish(path, "CycleGAN", family, Architecture, values, states, builders, parts)


READERS = {
    "CGAN": read_cgan,
    "DCGAN": read_dcgan,
    "Pix2pix": read_pix2pix,
    "CycleGAN": read_cyclegan,
}


def finish(path, room, family, build, values, states, networks, parts):
    """Published of states in our names, whose shapes fit. Raises: UserError."""
    if not states:
        shown = ", ".join(printable(key) for state in parts.values() for key in list(state)[:2])
        raise UserError(f"{path}: holds no {room} weights of a known family; keys such as {shown}")
    arch = published.architecture(path, build, **values)
    published.check_shapes(states, networks, arch, dict.fromkeys(states, path))
    sha256 = files.digest(parts) if Path(path).is_dir() else files.file_sha256(path)
    source = {"file": Path(path).name, "sha256": sha256, "family": family, "model_net": room}
    notes = []
    unread = sum(map(len, parts.values())) - sum(map(len, states.values()))
    if family == "paddlecv" and unread:
        notes.append(f"{unread} variables left out: the optimizer's, or of other networks")
    if getattr(arch, "net_G", "").startswith("unet"):
        notes.append(f"dropout {arch.dropout} (not in the file: as its authors train)")
    return published.Published(family, arch, states, source, notes)


# ---- sizes


def side_of(features, width):
    """The side of `width` square maps that lie in a row of features."""
    return round((features / max(1, width)) ** 0.5)


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


# ---- files and names


def read_parts(path, data=None):
    """{name of a network, or BARE: {key: array}} of a file or folder; `data`, what it holds."""
    path = Path(path)
    if not path.is_dir():
        return file_parts(weights.load(path) if data is None else data, path)
    places = {m[1]: p for p in sorted(path.iterdir()) if (m := NET_FILE.fullmatch(p.name))}
    if not places:
        return {BARE: fluid_files.load_folder(path)}
    return {short_name(name): read_one(place) for name, place in places.items()}


def read_one(path):
    """{key: array} of a file or folder that holds one network, in a folder of several."""
    parts = read_parts(path)
    if BARE not in parts:
        raise UserError(f"{path}: holds several networks; give it alone, not its folder")
    return parts[BARE]


def file_parts(data, path):
    """PaddleGAN's files hold a dict of networks, the others one network's dict."""
    if isinstance(data, dict) and "architecture" in data:
        raise UserError(f"{path}: is in this repository's layout already")
    networks = {}
    for key, value in data.items() if isinstance(data, dict) else ():
        if isinstance(value, dict) and re.fullmatch(r"net[GD](_[AB])?", str(key)):
            networks[short_name(key.removeprefix("net"))] = published.arrays(value)
    return networks or {BARE: published.arrays(data)}


def short_name(name):
    """G, D, G_A ... of PaddleCV's DA and DB, too."""
    return f"{name[0]}_{name[-1]}" if len(name) > 1 else name


def find_room(parts, model_net, path):
    """The key of READERS that --model_net or the names in the file tell. Raises: UserError."""
    for room in READERS:
        if room.lower() == model_net.lower():
            return room
    if model_net:
        raise UserError(f"--model_net {model_net}: unknown; take one of {', '.join(READERS)}")
    keys = [key for state in parts.values() for key in state]
    for room, pattern in TELLING.items():
        if any(re.search(pattern, key) for key in keys):
            return room
    if BARE in parts:
        raise UserError(f"{path}: does not tell its model; give --model_net, e.g. Pix2pix")
    return "CycleGAN" if any(name in CYCLEGAN for name in parts) else "Pix2pix"


def split_paddlecv(parts, room):
    """{network: {our name: array}} of PaddleCV's variables of a room, {} where there are none.

    A file of a generator also holds the discriminators of its program; they count where the file is
    theirs.
    """
    states = {}
    for name, part in parts.items():
        part = {key: value for key, value in part.items() if not re.search(OPTIMIZER, key)}
        here = {}
        for net, prefix in PADDLECV[room].items():
            here[net] = {key: value for key, value in part.items() if re.match(prefix, key)}
        generators = [net for net in here if net.startswith("generator") and here[net]]
        wanted = "discriminator" if name.startswith("D") or not generators else "generator"
        for net, state in here.items():
            if net.startswith(wanted) and state:
                states[net] = published.rename(state, RENAMES)
    return states


def split_image_networks(parts, room, names, path):
    """(family, {network: {our name: array}}) of Pix2Pix's or CycleGAN's networks.

    names: {name in the file: network}. A file of one network without name is G or D by its keys,
    and of CycleGAN the first one of these, or the one that the file's own name tells.
    """
    if states := split_paddlecv(parts, room):
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
    return told[1] if told and told[1] in candidates else candidates[0]


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


# ---- the command


def read_published(path, model_net="", data=None):
    """Read published weights: of one network of a room, or of all.

    Args: path, a file or folder, see above; model_net, a key of READERS in any case, "" where the
        names in the file tell it; data, the contents of `path` where they are read already.
    Returns: published.Published. Raises: UserError for files of no known family, and for missing,
        unexpected or mis-shaped keys.
    """
    parts = read_parts(path, data)
    return READERS[find_room(parts, model_net, path)](parts, path)


def find(path):
    """The file or published folder that a path of --init_model stands for.

    A run's folder, or its checkpoints, stand for the newest checkpoint; CHECKPOINTS/19, as
    PaddleCV's folders were called, for the one after epoch 19, counted from 0.
    Raises: UserError for an epoch that is not there.
    """
    path = Path(path).expanduser()
    for folder in (path, path / "checkpoints"):
        if checkpoints := own_checkpoints(folder):
            return checkpoints[-1]
    if path.exists() or not path.name.isdecimal():
        return path
    return after_epoch(path, int(path.name))


def own_checkpoints(folder):
    """The checkpoints in a folder, the newest last."""
    return sorted(folder.glob("iter_*.pdparams"), key=lambda path: (len(path.name), path.name))


def after_epoch(path, epoch):
    """The checkpoint beside `path` that was saved after an epoch. Raises: UserError."""
    checkpoints = own_checkpoints(path.parent)
    if not checkpoints:
        raise UserError(f"{path}: no such file or folder")
    length = weights.load(checkpoints[-1]).get("batches_per_epoch", 0)
    file = path.with_name(f"iter_{(epoch + 1) * length:07d}.pdparams")
    if not length or not file.is_file():
        names = ", ".join(file.name for file in checkpoints[-5:])
        raise UserError(f"{path}: no checkpoint after epoch {epoch} there, but {names}; give one")
    return file


def read_weights(path, model_net=""):
    """The dict of a checkpoint of this repository, or of published weights in its layout.

    Args: path, see `find`; model_net, which model they must be of; "" for any.
    Returns: {network: {name: array}, "architecture": ..., "model_net": a key of ROOMS, ...}.
    Raises: UserError where they are of another model or of no known family.
    """
    path = find(path)
    data = None if path.is_dir() else weights.load(path)
    state = None if path.is_dir() else published.own(data, path)
    if state is None:
        result = read_published(path, model_net, data)
        return result.saved() | {"model_net": result.source["model_net"]}
    folder = state.get("paper") or state.get("source", {}).get("model_net", "").lower()
    name = next((name for name, room in rooms.ROOMS.items() if room == folder), None)
    if name is None or model_net not in ("", name):
        raise UserError(f"{path}: holds weights of {name or 'another paper'}, not of {model_net}")
    return state | {"model_net": name}


def describe(result):
    """Lines on what was read."""
    yield f"{result.source['model_net']} of {result.family}: {', '.join(result.networks)}"
    yield ", ".join(f"{name} {value}" for name, value in result.architecture.to_dict().items())


def main(argv=None):
    """Convert one file or folder, and print what it is and what was assumed."""
    p = published.parser(
        __doc__,
        src="published file or folder of the authors, of PaddleGAN or of PaddleCV",
        dst="file to write, .pdparams: for test.py and train.py --init_model",
    )
    p.add_argument(
        "--model_net",
        default="",
        help=f"{', '.join(READERS)}; needed for the authors' files, whose names are the same",
    )
    published.convert(p, read_published, describe, argv)


if __name__ == "__main__":
    command(main)()
