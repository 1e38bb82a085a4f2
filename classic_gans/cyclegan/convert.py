"""Published weights of CycleGAN: its authors', PaddleGAN's and PaddleCV's; keys: picture_keys.

| here                | authors            | PaddleGAN      | PaddleCV |
|---------------------|--------------------|----------------|----------|
| generator_A, _B     | latest_net_G_A.pth | netG_A, netG_B | GA_, GB_ |
| discriminator_A, _B | latest_net_D_A.pth | netD_A, netD_B | DA_, DB_ |
"""

import parts
import picture_keys

from .model import Architecture, networks

NAMES = {"G_A": "generator_A", "G_B": "generator_B"}
NAMES |= {"D_A": "discriminator_A", "D_B": "discriminator_B"}
PREFIXES = {network: rf"{name.replace('_', '')}_" for name, network in NAMES.items()}
TELLING = r"^[GD][AB]_"


def recognises(data):
    """Whether contents (parts.contents) are of this model. A network of the authors without its
    name may be Pix2Pix's as well.
    """
    return parts.holds(data, TELLING) or picture_keys.named(data, NAMES)


def read_published(path, data=None):
    """CycleGAN of its authors, PaddleGAN or PaddleCV: one to all of its networks.

    Args: path, a file or folder; data, its contents where they are read already.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys.
    """
    theirs = parts.split(parts.contents(path) if data is None else data, path)
    family, states = picture_keys.split_networks(theirs, PREFIXES, NAMES, path)
    values = {"legacy": family == "paddlecv"}
    for name, state in states.items():
        if name.startswith("discriminator"):
            channels, sizes = picture_keys.discriminator_sizes(state, path)
            sizes["output_nc" if name.endswith("A") else "input_nc"] = channels
        else:
            sizes = picture_keys.generator_sizes(state, path)
            if name.endswith("B"):  # which draws A
                sizes |= {"input_nc": sizes["output_nc"], "output_nc": sizes["input_nc"]}
        values |= sizes

    def builder(name):
        return lambda arch: networks(arch)[name]

    builders = {name: builder(name) for name in states}
    return parts.finish(path, "CycleGAN", family, Architecture, values, states, builders, theirs)
