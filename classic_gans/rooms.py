"""The papers of this folder. Each has a room, a folder with its networks, updates and key tables:

    ROOM/model.py  ROOM/trainer.py  ROOM/convert.py

Deleting a room takes its paper out; the others do not miss it. A new room needs a line in ROOMS.
"""

import importlib
from pathlib import Path

from shared_metrics import process
from shared_metrics.errors import UserError

# --model_net: folder
ROOMS = {
    "CGAN": "cgan",
    "DCGAN": "dcgan",
    "Pix2pix": "pix2pix",
    "CycleGAN": "cyclegan",
    "StarGAN": "stargan",
    "AttGAN": "attgan",
    "STGAN": "stgan",
    "SPADE": "spade",
}


def names():
    """The models whose rooms are here, as --model_net spells them."""
    here = Path(__file__).resolve().parent
    return [name for name, room in ROOMS.items() if (here / room / "trainer.py").is_file()]


def spelling(word):
    """The name of a model as ROOMS spells it, of the word in any case. Raises: UserError."""
    for name in names():
        if name.lower() == word.lower():
            return name
    raise UserError(f"--model_net {word}: unknown; take one of {', '.join(names())}")


def room(name, part="trainer"):
    """A module of a model's room: its trainer, convert or model. It imports Paddle."""
    process.import_paddle()
    return importlib.import_module(f"{ROOMS[name]}.{part}")
