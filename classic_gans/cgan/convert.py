"""Published weights of CGAN: PaddleCV's.

| here              | PaddleCV        |
|-------------------|-----------------|
| generator: l1 ... | G_l1, G_l1_norm |
| discriminator     | D_l1 ...        |
| .weight .bias     | _w _b           |
| ._mean ._variance | _mean _var      |
"""

import parts
from shared_metrics import published

from .model import Architecture, Discriminator, Generator

PREFIXES = {"generator": r"G_", "discriminator": r"D_"}
TELLING = r"^(G_dc1_norm_w|D_l3_w)$"  # which DCGAN has not


def recognises(data):
    """Whether contents (parts.contents) are of this model."""
    return parts.holds(data, TELLING)


def read_published(path, data=None):
    """CGAN of PaddleCV.

    Args: path, a file or folder; data, its contents where they are read already.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys.
    """
    theirs = parts.split(parts.contents(path) if data is None else data, path)
    states = parts.paddlecv(theirs, PREFIXES, parts.DIGITS)
    values = {"legacy": True}
    if "generator" in states:
        G = states["generator"]
        width = published.shape(G, "dc1.weight", 4, path)[1]
        values["noise_size"] = published.shape(G, "l1.weight", 2, path)[0] - 1
        values["g_base_dims"] = width
        values["image_size"] = 4 * parts.side_of(published.shape(G, "l2.weight", 2, path)[1], width)
        values["channels"] = published.shape(G, "dc2.weight", 4, path)[1]
    if "discriminator" in states:
        D = states["discriminator"]
        width, inputs = published.shape(D, "l1.weight", 4, path)[:2]
        # Without padding, a side of 4 (s + 1) becomes s in two convolutions.
        side = parts.side_of(published.shape(D, "l3.weight", 2, path)[0] - 1, width)
        values |= {"d_base_dims": width, "channels": inputs - 1, "image_size": 4 * (side + 1)}
    networks = {"generator": Generator, "discriminator": Discriminator}
    return parts.finish(path, "CGAN", "paddlecv", Architecture, values, states, networks, theirs)
