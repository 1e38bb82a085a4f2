"""SAGAN weights in the layouts of the published files, written independently of convert.py: our
names -> theirs.
"""

from dataclasses import replace

import numpy as np

from shared_metrics import weights


def random_states(model, arch, seed=0):
    """Random values for all weights and buffers of G and D, sigma and BatchNorm's averages
    included.
    """
    rng, states = np.random.default_rng(seed), []
    small = replace(arch, init="xavier")
    for net in (model.Generator(small), model.Discriminator(small)):
        state = {}
        for name, old in net.state_dict().items():
            value = rng.standard_normal(old.shape).astype("float32") * 0.5
            state[name] = np.abs(value) + 0.5 if name.endswith("_variance") else value
        for name in [
            k[: -len("_orig")] for k in state if k.endswith("weight_orig")
        ]:  # u and v of about the top sigma
            W, u = state[f"{name}_orig"], state[f"{name}_u"]
            W = W.T if "snlinear" in name else W.reshape(len(W), -1)
            for _ in range(5):
                v = (W.T @ u) / np.linalg.norm(W.T @ u)
                u = (W @ v) / np.linalg.norm(W @ v)
            state[f"{name}_u"], state[f"{name}_v"] = u, v
        states.append(state)
    return states


# What stands for our modules in each family, for 32 px with attention at 16 in both networks; G's
# names and D's.
STUDIOGAN_PLACES = (
    {
        "snlinear0": "linear0",
        "block1": "blocks.0.0",
        "block2": "blocks.1.0",
        "self_attn.16": "blocks.2.0",
        "block3": "blocks.3.0",
        "bn": "bn4",
        "snconv2d1": "conv2d5",
    },
    {
        "opt_block1": "blocks.0.0",
        "self_attn.16": "blocks.1.0",
        "block1": "blocks.2.0",
        "block2": "blocks.3.0",
        "block3": "blocks.4.0",
        "snlinear1": "linear1",
        "sn_embedding1": "embedding",
    },
)
MMGEN_PLACES = (
    {
        "snlinear0": "noise2feat",
        "block1": "conv_blocks.0",
        "block2": "conv_blocks.1",
        "self_attn.16": "conv_blocks.2",
        "block3": "conv_blocks.3",
        "bn": "to_rgb.bn",
        "snconv2d1": "to_rgb.conv",
    },
    {
        "opt_block1": "from_rgb",
        "self_attn.16": "conv_blocks.0",
        "block1": "conv_blocks.1",
        "block2": "conv_blocks.2",
        "block3": "conv_blocks.3",
        "snlinear1": "decision",
        "sn_embedding1": "proj_y",
    },
)
STUDIOGAN_LAYERS = {
    "snconv2d0": "conv2d0",
    "snconv2d1": "conv2d1",
    "snconv2d2": "conv2d2",
    "cond_bn1.bn": "bn1.bn",
    "cond_bn2.bn": "bn2.bn",
    "cond_bn1.gain": "bn1.gain",
    "cond_bn2.gain": "bn2.gain",
    "cond_bn1.bias": "bn1.bias",
    "cond_bn2.bias": "bn2.bias",
    "snconv1x1_theta": "conv1x1_theta",
    "snconv1x1_phi": "conv1x1_phi",
    "snconv1x1_g": "conv1x1_g",
    "snconv1x1_attn": "conv1x1_attn",
}
OLD_STUDIOGAN_LAYERS = STUDIOGAN_LAYERS | {
    "cond_bn1.gain": "bn1.embed0", "cond_bn2.gain": "bn2.embed0", "cond_bn1.bias": "bn1.embed1",
    "cond_bn2.bias": "bn2.embed1",
}  # fmt: skip
MMGEN_LAYERS = {
    "snconv2d0": "shortcut.conv",
    "snconv2d1": "conv_1.conv",
    "snconv2d2": "conv_2.conv",
    "cond_bn1.bn": "norm_1.norm",
    "cond_bn2.bn": "norm_2.norm",
    "cond_bn1.gain": "norm_1.weight_embedding",
    "cond_bn2.gain": "norm_2.weight_embedding",
    "cond_bn1.bias": "norm_1.bias_embedding",
    "cond_bn2.bias": "norm_2.bias_embedding",
    "snconv1x1_theta": "theta.conv",
    "snconv1x1_phi": "phi.conv",
    "snconv1x1_g": "g.conv",
    "snconv1x1_attn": "o.conv",
}
TORCH = {"_mean": "running_mean", "_variance": "running_var"}


def translate(state, places, layers):
    """A state dict under another family's names and in torch's layout."""
    result = {}
    for name, value in state.items():
        ours = next(p for p in places if name.startswith(p + "."))
        layer, _, leaf = name[len(ours) + 1 :].rpartition(".")
        parts = [places[ours], layers.get(layer, layer), TORCH.get(leaf, leaf)]
        if ours in ("snlinear0", "snlinear1") and leaf == "weight_orig":
            value = value.T
        result[".".join(p for p in parts if p)] = value
        if leaf == "_mean":
            result[".".join(p for p in [*parts[:-1], "num_batches_tracked"] if p)] = np.int64(7)
    return result


def one_hot_layers(state):
    """StudioGAN's later style: gain and bias are linear layers [channels, classes] on one-hot
    labels.
    """
    swap, result = {"weight_u": "weight_v", "weight_v": "weight_u"}, {}
    for name, value in state.items():
        head, _, leaf = name.rpartition(".")
        if head.endswith((".bn1.gain", ".bn2.gain", ".bn1.bias", ".bn2.bias")):
            name, value = f"{head}.{swap.get(leaf, leaf)}", value.T
        result[name] = value
    return result


def mmgen_file(G, D, bgr, ema=None, ema_prefix="generator_ema.", **extra):
    """MMGeneration's container; bgr: the networks in it speak BGR where G and D speak RGB."""
    flip = [2, 1, 0]

    def state(net, places):
        net = dict(net)
        if bgr and "snlinear0.bias" in net:
            for leaf in ("weight_orig", "weight_u", "bias"):
                net[f"snconv2d1.{leaf}"] = net[f"snconv2d1.{leaf}"][flip]
        elif bgr:
            for layer, k in (("opt_block1.snconv2d0", 1), ("opt_block1.snconv2d1", 3)):
                net[f"{layer}.weight_orig"] = net[f"{layer}.weight_orig"][:, flip]
                net[f"{layer}.weight_v"] = net[f"{layer}.weight_v"].reshape(3, k, k)[flip].ravel()
        net = translate(net, places, MMGEN_LAYERS)
        return {
            k.replace(".sigma", ".gamma"): v.reshape([]) if k.endswith(".sigma") else v
            for k, v in net.items()
        }

    nets = {"generator.": state(G, MMGEN_PLACES[0]), "discriminator.": state(D, MMGEN_PLACES[1])}
    nets |= {ema_prefix: state(ema, MMGEN_PLACES[0])} if ema else {}
    flat = {prefix + k: v for prefix, net in nets.items() for k, v in net.items()}
    return {"meta": {"iter": 826000, "mmcv_version": "1.7"}, "state_dict": flat | extra}


def save(path, data):
    path.parent.mkdir(exist_ok=True)
    weights.save(data, path)
    return path
