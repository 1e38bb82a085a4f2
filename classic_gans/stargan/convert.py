"""Published weights of StarGAN.

| here              | yunjey: 200000-{G,D}.ckpt | PaddleCV           |
|-------------------|---------------------------|--------------------|
| G: main.{n}       | main.{n}                  | g_main{n}          |
| main.{n}.main.{m} | main.{n}.main.{m}         | g_main.{n}.main{m} |
| D: main.{n}       | main.{n}                  | d_main{n}          |
| conv{n}           | conv{n}                   | d_conv{n}          |

Instance norm's weight is `scale` here; its running statistics are dropped, since the authors' test
takes the image's own.
"""

import re

import converting
from shared_metrics import published

from .model import Architecture, Discriminator, Generator

FAMILIES = {
    "yunjey": {
        "generator": [r"^main\.0\.", r"^main\.9\.main\.0\."],
        "discriminator": [r"^main\.0\.", r"^conv2\."],
    },
    "paddlecv": {"generator": [r"^g_main0_w$"], "discriminator": [r"^d_main0_w$"]},
}
PADDLECV = {
    # Instance norm, named as the convolution before it, stands behind that.
    r"^g_main(\d+)_norm_": lambda m: f"main.{int(m[1]) + 1}.",
    r"^g_main\.(\d+)\.main(\d+)_norm_": lambda m: f"main.{m[1]}.main.{int(m[2]) + 1}.",
    r"^[gd]_main(\d+)_": r"main.\1.",
    r"^g_main\.(\d+)\.main(\d+)_": r"main.\1.main.\2.",
    r"^d_conv(\d)_": r"conv\1.",
}
STATISTICS = r"\.(running_mean|running_var|num_batches_tracked)$"
CELEBA_5 = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
NETWORKS = {"generator": Generator, "discriminator": Discriminator}


def recognises(data):
    """Whether a file's contents are this room's G."""
    families = FAMILIES.values()
    return any(converting.holds(data, *networks["generator"]) for networks in families)


def read_published(path, data=None, discriminator="", image_size=None, c2_dim=0):
    """StarGAN of yunjey or PaddleCV.

    Args: path, G's file; data, its contents where they are read already; discriminator, D's file;
        image_size, which D's weights alone tell; c2_dim, classes of the second data set, of
        networks for two.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys.
    """
    family, states, places = converting.gather(
        path, data, FAMILIES, "StarGAN", discriminator=discriminator
    )
    for name, state in states.items():
        states[name] = rename(state, family)
    sizes = g_sizes(states["generator"], c2_dim, path) | {"image_size": image_size or 128}
    if "discriminator" in states:
        sizes |= d_sizes(states["discriminator"], family, places["discriminator"])
    arch = published.architecture(path, Architecture, **sizes)
    published.check_shapes(states, NETWORKS, arch, places)
    names = CELEBA_5 if (arch.c_dim, c2_dim) == (5, 0) else ()
    source = converting.source(path, data, family, "StarGAN", names)
    notes = converting.size_note(states, arch, image_size, path)
    return published.Published(family, arch, states, source, notes)


def rename(state, family):
    """{our name: array} of one network."""
    if family == "paddlecv":
        return published.rename(state, PADDLECV | converting.LEAVES)
    scales = {}
    for key, value in state.items():  # what has one dimension is of instance norms
        scales[re.sub(r"\.weight$", ".scale", key) if value.ndim == 1 else key] = value
    return published.rename(scales, {}, torch=True, dropped=STATISTICS)


def g_sizes(G, c2_dim, path):
    """Fields of Architecture that G's shapes tell."""
    width, inputs = published.shape(G, "main.0.weight", 4, path)[:2]
    return {
        "c_dim": inputs - 3 - (c2_dim + 2 if c2_dim else 0),
        "c2_dim": c2_dim,
        "g_base_dims": width,
        "g_repeat_num": converting.count(G, r"main\.\d+\.main\.0\.weight"),
    }


def d_sizes(D, family, path):
    """Fields of Architecture that D's shapes tell."""
    layers = converting.count(D, r"main\.\d+\.weight")
    return {
        "d_base_dims": published.shape(D, "main.0.weight", 4, path)[0],
        "d_repeat_num": layers,
        "d_bias": "main.0.bias" in D,
        "d_slope": 0.01 if family == "yunjey" else 0.2,
        "image_size": published.shape(D, "conv2.weight", 4, path)[2] * 2**layers,
    }
