"""Published weights of AttGAN.

| here              | elvisyjlin: weights.N.pth | PaddleCV                     |
|-------------------|---------------------------|------------------------------|
| G: enc_layers.{i} | enc_layers.{i}            | generator_Genc{i}            |
| dec_layers.{i}    | dec_layers.{i}            | generator_Gdec{i}            |
| D: conv.{i}       | conv.{i}                  | discriminator{i}             |
| fc_{head}.{i}     | fc_{head}.{i}             | discriminatorfc_{head}_{i+1} |

torch's linear weights are transposed; instance norm's weight is `scale` here.
"""

import json
from pathlib import Path

import converting
from shared_metrics import published
from shared_metrics.errors import UserError
from shared_metrics.files import read_text
from shared_metrics.unpickle import printable

from .model import Architecture, Discriminator, Generator

FAMILIES = {
    "elvisyjlin": {
        "generator": [r"^enc_layers\.0\.layers\.0\."],
        "discriminator": [r"^fc_adv\.0\.layers\.0\."],
    },
    "paddlecv": {
        "generator": [r"^generator_Genc0_w$"],
        "discriminator": [r"^discriminatorfc_adv_1_w$"],
    },
}
TORCH = {r"^(conv\.\d+\.layers\.1)\.weight$": r"\1.scale"}
TRANSPOSED = r"fc_(adv|cls)\.\d\.layers\.0\.weight"
SLOPES = {"lrelu": 0.01, "relu": 0.0}  # elvisyjlin's words for D's heads
NETWORKS = {"generator": Generator, "discriminator": Discriminator}


def recognises(data):
    """Whether a file's contents are this room's G; PaddleCV's STGAN has units besides."""
    units = converting.holds(data, r"^generator_GRU0_")
    families = FAMILIES.values()
    mine = any(converting.holds(data, *networks["generator"]) for networks in families)
    return mine and not units


def read_published(path, data=None, discriminator="", image_size=None):
    """AttGAN of elvisyjlin, with the setting.txt of its experiment where that lies near, or of
    PaddleCV.

    Args: path, G's file, or both networks'; data, its contents where they are read already;
        discriminator, D's file; image_size, which D's weights alone tell.
    Returns: published.Published. Raises: UserError for unknown, missing, unexpected or mis-shaped
        keys, and a setting.txt that is none.
    """
    family, states, places = converting.gather(
        path, data, FAMILIES, "AttGAN", discriminator=discriminator
    )
    setting = read_setting(path) if family == "elvisyjlin" else {}
    for name, state in states.items():
        if family == "paddlecv":
            states[name] = published.rename(state, converting.SKIPPING | converting.LEAVES)
        else:
            how = {"torch": True, "transposed": TRANSPOSED, "dropped": converting.COUNTERS}
            states[name] = published.rename(state, TORCH, **how)
    slope = SLOPES.get(setting.get("dis_fc_acti", "relu"))
    if slope is None:
        raise UserError(f"{path}: its setting.txt has an unknown dis_fc_acti")
    image_size = image_size or setting.get("img_size")
    sizes = converting.skipping_sizes(states, places, image_size)
    sizes |= {"slope": 0.01, "fc_slope": slope}
    arch = published.architecture(path, Architecture, **sizes)
    published.check_shapes(states, NETWORKS, arch, places)
    names = setting.get("attrs", converting.CELEBA_13 if arch.c_dim == 13 else ())
    source = converting.source(path, data, family, "AttGAN", names)
    notes = converting.size_note(states, arch, image_size, path)
    return published.Published(family, arch, states, source, notes)


def read_setting(path):
    """elvisyjlin's setting.txt, a JSON dict, beside the weights or above their folder; {} where
    there is none. Raises UserError where it is no such file.
    """
    for folder in (Path(path).parent, Path(path).absolute().parent.parent):
        file = folder / "setting.txt"
        if file.is_file():
            try:
                setting = json.loads(read_text(file))
            except (OSError, ValueError, RecursionError) as error:
                raise UserError(f"{file}: is no JSON ({error}); remove or repair it") from None
            if not isinstance(setting, dict):
                return {}
            for name, kind in (("img_size", int), ("attrs", list), ("dis_fc_acti", str)):
                if not isinstance(setting.get(name, kind()), kind):
                    raise UserError(f"{file}: {name} cannot be {printable(setting[name])}")
            return setting
    return {}
