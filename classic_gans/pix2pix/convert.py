"""Published weights of Pix2Pix: its authors', PaddleGAN's and PaddleCV's; their keys: picture_keys.

| here          | authors: latest_net_{G,D}.pth | PaddleGAN | PaddleCV       |
|---------------|-------------------------------|-----------|----------------|
| generator     | one file                      | netG      | generator_     |
| discriminator | one file                      | netD      | discriminator_ |
"""

import parts
import picture_keys

from .model import Architecture, Discriminator, Generator

NAMES = {"G": "generator", "D": "discriminator"}
PREFIXES = {"generator": r"generator_", "discriminator": r"discriminator_"}
TELLING = r"^(generator_(unet|resnet)\d|discriminator_(basic|nlayers)_)"


def recognises(data):
    """Whether contents (parts.contents) are of this model. A network of the authors without its
    name may be CycleGAN's as well.
    """
    return parts.holds(data, TELLING) or picture_keys.named(data, NAMES)


def read_published(path, data=None):
    """Pix2Pix of its authors, PaddleGAN or PaddleCV.

    Args: path, a file or folder; data, its contents where they are read already.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys.
    """
    theirs = parts.split(parts.contents(path) if data is None else data, path)
    family, states = picture_keys.split_networks(theirs, PREFIXES, NAMES, path)
    values = {"legacy": family == "paddlecv", "dropout": family != "paddlecv"}
    if "generator" in states:
        values |= picture_keys.generator_sizes(states["generator"], path)
    if "discriminator" in states:
        inputs, sizes = picture_keys.discriminator_sizes(states["discriminator"], path)
        values |= sizes
        if "generator" not in states:
            values["input_nc"] = max(1, inputs - 3)
    networks = {"generator": Generator, "discriminator": Discriminator}
    return parts.finish(path, "Pix2pix", family, Architecture, values, states, networks, theirs)
