"""Run by tests/contract, alone and under paddle.distributed.launch: two iterations on shared
global batches.

Usage: two_steps.py OUT. Writes OUT/rank<r>.pdparams: the networks after the iterations.
"""

import sys
from pathlib import Path

from shared_metrics import process

process.choose_device("cpu")
process.init_distributed()
import numpy as np
import paddle

import train
from model import Architecture, Discriminator, Generator
from shared_metrics import weights
from shared_metrics.runs import checkpoint
from tests.acgan.networks import random_state
from tests.acgan.trainers import ARCH, Data, still, tiny_args
from trainer import Trainer

out, rank, world = Path(sys.argv[1]), process.rank(), process.world_size()
share = slice(8 // world * rank, 8 // world * (rank + 1))
arch = Architecture(**ARCH)
G, D = Generator(arch), Discriminator(arch)
for network in (G, D):
    network.set_state_dict(
        random_state(network, seed=rank)
    )  # ranks that start apart must be brought together
trainer = Trainer(G, D, arch, tiny_args(train, out, batch_size=8 // world, ema_decay=0.5), Data())
still(D)
for layer in [*G.sublayers(), *D.sublayers()]:
    if isinstance(layer, paddle.nn.BatchNorm2D):
        layer.eval()
draws = np.random.default_rng(1)


class GlobalDraws:
    """This process's share of the labels and the noise of the global batch."""

    def integers(self, high, size=None):
        return draws.integers(high, size=8)[share] if size else draws.integers(high)

    def standard_normal(self, shape, dtype):
        return draws.standard_normal((8, *shape[1:]), dtype=dtype)[share]


trainer._rng = lambda *_: GlobalDraws()
for iteration in range(2):
    x, y = draws.uniform(-1, 1, (8, 3, 32, 32)).astype("float32"), draws.integers(3, size=8)
    trainer.train_step(iteration, x[share], y[share])
networks = {"generator": trainer.G, "average": trainer.G_ema, "discriminator": trainer.D}
weights.save(
    {k: checkpoint.network_state(v) for k, v in networks.items()}, out / f"rank{rank}.pdparams"
)
