"""Run by tests/contract, alone and under paddle.distributed.launch: one iteration on a
shared global batch.

Usage: two_steps.py OUT. Writes OUT/rank<r>.pdparams: the networks after the iteration.
"""

import sys
from pathlib import Path

from shared_metrics import process

process.choose_device("cpu")
process.init_distributed()
import numpy as np
import paddle

import train
from model import Discriminator, Generator, architecture
from shared_metrics import weights
from shared_metrics.runs import checkpoint
from tests.sagan.test_trainer import Data, freeze_norms, tiny_args
from trainer import Trainer

out, rank, world = Path(sys.argv[1]), process.rank(), process.world_size()
share = slice(8 // world * rank, 8 // world * (rank + 1))
arch = architecture("mmgen", 32, 2, z_dim=8, g_conv_dim=2, d_conv_dim=4)
paddle.seed(rank)  # ranks that start apart must be brought together
trainer = Trainer(
    Generator(arch), Discriminator(arch), arch, tiny_args(train, out, batch_size=8 // world), Data()
)
freeze_norms(trainer)
draws = np.random.default_rng(1)


def global_draw(_, labels):
    """This process's share of the latents and labels of the global batch."""
    z, y = draws.standard_normal((8, 8)).astype("float32"), draws.integers(2, size=8)
    return paddle.to_tensor(z[share]), paddle.to_tensor(y[share])


trainer._latents = global_draw
x, y = draws.uniform(-1, 1, (8, 3, 32, 32)).astype("float32"), draws.integers(2, size=8)
for iteration in range(2):
    trainer.train_step(iteration, iter([(x[share], y[share])]))
nets = {
    "generator": checkpoint.network_state(trainer.G),
    "discriminator": checkpoint.network_state(trainer.D),
}
weights.save(nets, out / f"rank{rank}.pdparams")
