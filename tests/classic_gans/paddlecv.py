"""PaddleCV's names of layers, built as its code builds them: {theirs: ours}."""


def unet(net, levels):
    """Layers of a U-Net, level inside level."""
    theirs = f"{net}_unet{2**levels}"
    ours = "model.model"
    layers = {}
    for level in range(levels):
        theirs += f"_u{level}"
        if level == 0:
            places = {"down_conv": 0, "up_conv": 3}
        elif level < levels - 1:
            places = {"down_conv": 1, "down_conv_norm": 2, "up_conv": 5, "up_conv_norm": 6}
        else:
            places = {"down_conv": 1, "up_conv": 3, "up_conv_norm": 4}
        for name, place in places.items():
            layers[f"{theirs}_{name}"] = f"{ours}.{place}"
        ours += ".1.model" if level == 0 else ".3.model"
    return layers


def resnet(net, blocks):
    """Layers of a ResNet in the order in which they run."""
    places = [1, 4, 7, 10 + blocks, 13 + blocks, 16 + blocks + 1]
    layers = {}
    for i, place in enumerate(places, 1):
        layers[f"{net}_resnet{blocks}block_c{i}"] = f"model.{place}"
        if i < 6:
            layers[f"{net}_resnet{blocks}block_c{i}_norm"] = f"model.{place + 1}"
    for i in range(blocks):
        for j, place in ((1, 1), (2, 5)):
            block = f"model.{10 + i}.conv_block"
            layers[f"{net}_resnet{blocks}block_r{i + 1}_c{j}"] = f"{block}.{place}"
            layers[f"{net}_resnet{blocks}block_r{i + 1}_c{j}_norm"] = f"{block}.{place + 1}"
    return layers


def basic(net):
    """Layers of the 70x70 PatchGAN."""
    layers = {f"{net}_basic_c{i}": f"model.{p}" for i, p in enumerate((0, 2, 5, 8, 11), 1)}
    return layers | {f"{net}_basic_c{i}_norm": f"model.{p}" for i, p in ((2, 3), (3, 6), (4, 9))}


def digits(net, names):
    """Layers of CGAN's and DCGAN's networks."""
    return {f"{net}_{name}": name for name in names}


LEAVES = {"weight": "w", "bias": "b", "_mean": "mean", "_variance": "var", "scale": "scale"}


def renamed(state, layers):
    """A state in our names -> the same in PaddleCV's."""
    theirs = {ours: name for name, ours in layers.items()}
    result = {}
    for key, value in state.items():
        layer, _, leaf = key.rpartition(".")
        affine = leaf == "bias" and f"{layer}.scale" in state
        result[f"{theirs[layer]}_{'offset' if affine else LEAVES[leaf]}"] = value
    return result
