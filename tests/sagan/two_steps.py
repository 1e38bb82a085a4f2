"""Two iterations on shared global batches, alone or under paddle.distributed.launch.

Usage, by tests/contract: two_steps.py OUT. Writes OUT/rank<r>.pdparams: the networks after the
iterations.
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

out = Path(sys.argv[1])
rank = process.rank()
batch_size = 8 // process.world_size()
share = slice(batch_size * rank, batch_size * (rank + 1))  # of the global batch of 8
arch = architecture("mmgen", 32, 2, z_dim=8, g_conv_dim=2, d_conv_dim=4)
args = tiny_args(train, out, batch_size=batch_size)
paddle.seed(rank)  # ranks that start apart must be brought together
trainer = Trainer(Generator(arch), Discriminator(arch), arch=arch, args=args, dataset=Data())
freeze_norms(trainer)
draws = np.random.default_rng(1)


def global_draw(_, labels):
    """This process's share of the latents and labels of the global batch."""
    z = draws.standard_normal((8, 8)).astype("float32")
    y = draws.integers(2, size=8)
    return paddle.to_tensor(z[share]), paddle.to_tensor(y[share])


trainer._latents = global_draw
x = draws.uniform(-1, 1, (8, 3, 32, 32)).astype("float32")
y = draws.integers(2, size=8)
for iteration in range(2):
    trainer.train_step(iteration, iter([(x[share], y[share])]))
networks = {"generator": trainer.G, "discriminator": trainer.D}
state = {name: checkpoint.network_state(network) for name, network in networks.items()}
weights.save(state, out / f"rank{rank}.pdparams")
