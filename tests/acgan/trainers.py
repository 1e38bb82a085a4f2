"""A trainer of tiny networks on tiny data, for ACGAN's tests of the updates and of the loop."""

import numpy as np
import paddle

from shared_metrics.errors import UserError
from tests.acgan.networks import random_state

ARCH = dict(imsize=32, num_classes=3, nz=7, ngf=4, ndf=4)


TINY = "--data_path unread --recipe cifar10 --lr 1e-3 --batch_size 4 --niter 1 --log_every 1"
TINY += " --keep_checkpoints 0 --num_workers 0"


def tiny_args(train, tmp_path, **changes):
    """The flags of a model that steps in a blink. Args: train, the module; changes, flag=value
    (True: a flag without a value).
    """
    flags = [*TINY.split(), "--output_dir", tmp_path]
    for name, value in changes.items():
        flags += [f"--{name}"] if value is True else [f"--{name}", value]
    return train.parse_args([str(flag) for flag in flags])


class Data:
    """Random 32x32 images, classes in turn; those in `bad` cannot be read."""

    classes, counts, class_indices, class_total = ["a", "b", "c"], [4, 4, 4], [0, 1, 2], 3

    def __init__(self, number=12, labels=None, bad=()):
        self.images, self.bad = (
            np.random.default_rng(3).uniform(-1, 1, (number, 3, 32, 32)).astype("float32"),
            bad,
        )
        self.labels = [i % 3 for i in range(number)] if labels is None else list(labels)

    def __len__(self):
        return len(self.labels)

    def load(self, index, rng):
        if index in self.bad:
            raise UserError(f"image {index} is broken")
        return self.images[index], np.int64(self.labels[index])


class ReadD(paddle.nn.Layer):
    """A discriminator that reads its answer in the image: pixel 0 is the source logit, pixels 1 to
    3 the class's.
    """

    def __init__(self):
        super().__init__()
        self.w = self.create_parameter([1], default_initializer=paddle.nn.initializer.Constant(1.0))

    def forward(self, x):
        pixels = x.flatten(1)[:, :4] * self.w
        return pixels[:, 0], pixels[:, 1:]


def make(acgan, tmp_path, D=None, held_out=None, data=None, arch=None, **changes):
    """A trainer on the smallest networks, the same weights each time, of a size that lets every
    gradient be seen.
    """
    arch = acgan.model.Architecture(**(ARCH | (arch or {})))
    G, D = acgan.model.Generator(arch), D or acgan.model.Discriminator(arch)
    for net in (G, D):
        if not isinstance(net, ReadD):
            net.set_state_dict(random_state(net))
    return acgan.trainer.Trainer(
        G, D, arch, tiny_args(acgan.train, tmp_path, **changes), data or Data(), held_out
    )


def batch(n=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, 3, 32, 32)).astype("float32"), rng.integers(3, size=n)


def still(*networks):
    """Dropout off, so that a pass can be repeated."""
    for network in networks:
        for layer in network.sublayers():
            if isinstance(layer, paddle.nn.Dropout):
                layer.p = 0.0


def trained(network):
    """Copies of all parameters, also while D's are held still for G's step, but not BatchNorm's
    statistics.
    """
    return {
        n: p.numpy().copy()
        for n, p in network.named_parameters()
        if not n.endswith(("._mean", "._variance"))
    }


def moved(before, after):
    return {n for n in before if not np.array_equal(before[n], after[n])}
