"""Published weights of STGAN.

| here              | PaddleCV                     |
|-------------------|------------------------------|
| G: enc_layers.{i} | generator_Genc{i}            |
| stu.{i}.{part}    | generator_GRU{i}_{part}      |
| dec_layers.{i}    | generator_Gdec{i}            |
| D: conv.{i}       | discriminator{i}             |
| fc_{head}.{i}     | discriminatorfc_{head}_{i+1} |
"""

import converting
from shared_metrics import published

from .model import Architecture, Discriminator, Generator

FAMILIES = {
    "paddlecv": {
        "generator": [r"^generator_Genc0_w$"],
        "discriminator": [r"^discriminatorfc_adv_1_w$"],
    },
}
NETWORKS = {"generator": Generator, "discriminator": Discriminator}


def recognises(data):
    """Whether a file's contents are this room's G; without units they pass for AttGAN's."""
    return converting.holds(data, r"^generator_Genc0_w$", r"^generator_GRU0_")


def read_published(path, data=None, discriminator="", image_size=None):
    """STGAN of PaddleCV, with units or without.

    Args: path, G's file; data, its contents where they are read already; discriminator, D's file;
        image_size, which D's weights alone tell.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys.
    """
    family, states, places = converting.gather(
        path, data, FAMILIES, "STGAN", discriminator=discriminator
    )
    for name, state in states.items():
        states[name] = published.rename(state, converting.SKIPPING | converting.LEAVES)
    units = converting.count(states["generator"], r"stu\.\d+\.info\.weight")
    sizes = converting.skipping_sizes(states, places, image_size)
    sizes |= {"use_gru": units > 0, "gru_n_layers": units, "bn_eps": 1e-5, "bn_momentum": 0.9}
    arch = published.architecture(path, Architecture, **sizes)
    published.check_shapes(states, NETWORKS, arch, places)
    names = converting.CELEBA_13 if arch.c_dim == 13 else ()
    source = converting.source(path, data, family, "STGAN", names)
    notes = converting.size_note(states, arch, image_size, path)
    return published.Published(family, arch, states, source, notes)
