"""Run by tests/contract, alone and under paddle.distributed.launch: two updates of D and of G of
StarGAN, AttGAN, STGAN and SPADE on a shared global batch.

Usage: two_steps_faces.py OUT. Writes OUT/rank<r>.pdparams: all networks afterwards, with their last
gradients. The rates are tiny: Adam makes full steps of gradients that are rounding.
"""

import importlib
import sys
import tempfile
from pathlib import Path

from shared_metrics import process

process.choose_device("cpu")
process.init_distributed()
import numpy as np
import paddle

from shared_metrics import weights
from shared_metrics.runs import checkpoint
from tests.classic_gans import test_attgan_trainer, test_spade_trainer, test_stargan_trainer

TOTAL = 4
out = Path(sys.argv[1])
rank = process.rank()
world = process.world_size()
share = slice(TOTAL // world * rank, TOTAL // world * (rank + 1))
TESTS = {
    "stargan": test_stargan_trainer,
    "attgan": test_attgan_trainer,
    "stgan": test_attgan_trainer,
    "spade": test_spade_trainer,
}
RATES = ["--g_lr", "1e-6", "--d_lr", "1e-6"]


class Draws:
    """This process's share of what is drawn for the global batch."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def random(self, shape, dtype):
        return self.rng.random((TOTAL, *shape[1:]), dtype=dtype)[share]


def freeze_norms(network):
    """BatchNorm on its running statistics: then an image's result does not depend on the others."""
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer.eval()


def two_steps(room, trainer):
    """Two updates of D and of G, in the room's own order."""
    rng = np.random.default_rng(7)
    for iteration in range(2):
        if room == "spade":
            pairs = test_spade_trainer.Pairs(TOTAL, seed=iteration)
            maps = (paddle.to_tensor(ids[share]) for ids in (pairs.labels, pairs.instances))
            seg = room_module.semantics(*maps, trainer.arch)
            batch = (seg, paddle.to_tensor(pairs.photos[share]), None)
            trainer.g_update(*batch)
            trainer.d_update(*batch)
            continue
        x = rng.uniform(-1, 1, (TOTAL, 3, 16, 16)).astype("float32")
        labels = rng.integers(0, 2, (2, TOTAL, 3)).astype("float32")
        batch = [paddle.to_tensor(part[share]) for part in (x, *labels)]
        which = [0] if room == "stargan" else []
        trainer.d_update(*batch, *which, Draws(iteration))
        trainer.g_update(*batch, *which)


states = {}
for room, module in TESTS.items():
    room_module = importlib.import_module(f"{room}.trainer")
    paddle.seed(rank)  # ranks that start apart must be brought together
    rates = ["--learning_rate", "1e-6"] if room == "spade" else RATES
    trainer = module.make(room_module, Path(tempfile.gettempdir()), "--seed", rank, *rates)
    freeze_norms(trainer.G)
    two_steps(room, trainer)
    for name, network in trainer.networks.items():
        if network is not None:
            gradients = {
                f"gradient of {key}": p.grad.numpy()
                for key, p in network.named_parameters()
                if p.grad is not None
            }
            states[f"{room}.{name}"] = checkpoint.network_state(network) | gradients
weights.save(states, out / f"rank{rank}.pdparams")
