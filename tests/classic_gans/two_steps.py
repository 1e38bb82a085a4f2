"""Two iterations of each room on shared global batches, alone or under paddle.distributed.launch.

Usage, by tests/contract: two_steps.py OUT. Writes OUT/rank<r>.pdparams: the networks after the
iterations. BatchNorms are frozen, which depend on the batch; each process has pools of its own, so
there are none.
"""

import sys
import types
from pathlib import Path

from shared_metrics import process

process.choose_device("cpu")
process.init_distributed()
import numpy as np
import paddle

import rooms
import train
from shared_metrics import weights
from shared_metrics.runs import checkpoint
from tests.classic_gans.trainers import Pictures, args_of, batch_of

out = Path(sys.argv[1])
rank = process.rank()
batch_size = 8 // process.world_size()
share = slice(batch_size * rank, batch_size * (rank + 1))  # of the global batch of 8
PICTURES = {"net_G": "resnet_6block", "g_base_dims": 2, "d_base_dims": 2, "crop_size": 32}
PICTURES |= {"norm_type": "batch_norm", "dropout": "False"}
FLAGS = {
    "CGAN": {"g_base_dims": 2, "d_base_dims": 2, "noise_size": 5},
    "DCGAN": {"g_base_dims": 1, "d_base_dims": 2, "noise_size": 5, "form": "digits"},
    "Pix2pix": PICTURES,
    "CycleGAN": PICTURES | {"pool_size": 0},
}
draws = np.random.default_rng(1)


class GlobalDraws:
    """This process's share of the noise of the global batch."""

    def uniform(self, low, high, shape):
        return draws.uniform(low, high, (8, *shape[1:]))[share]

    def integers(self, high):
        return draws.integers(high)


def labelled():
    """Eight pictures in two classes."""
    data = Pictures(8, channels=(3, 3))
    data.classes = ["a", "b"]
    data.image_size = 32
    data.channels = 3
    return data


def freeze_norms(networks):
    for network in networks.values():
        for layer in network.sublayers():
            if isinstance(layer, (paddle.nn.BatchNorm1D, paddle.nn.BatchNorm2D)):
                layer.eval()


state = {}
for name, flags in FLAGS.items():
    gans = types.SimpleNamespace(train=train, rooms=rooms)
    args = args_of(gans, name, out, batch_size=batch_size, **flags)
    args.seed = rank  # ranks that start apart must be brought together
    room = rooms.room(name)
    data = labelled() if room.KIND == "digits" else (Pictures(8), Pictures(8))
    trainer = room.Trainer(args, data)
    freeze_norms(trainer.networks)
    trainer._rng = lambda *_: GlobalDraws()
    for iteration in range(2):
        a, b = batch_of(Pictures(16), 8 * iteration, 8)
        labels = draws.integers(2, size=8)
        inputs = {"CGAN": (a, labels), "DCGAN": (a,)}.get(name, (a, b))
        trainer.train_step(iteration, *[x[share] for x in inputs])
    for network, layer in trainer.networks.items():
        state[f"{name} {network}"] = checkpoint.network_state(layer)
weights.save(state, out / f"rank{rank}.pdparams")
