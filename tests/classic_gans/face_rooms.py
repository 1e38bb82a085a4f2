"""Rooms by name, the flags of their training without the entry points, faces without files, and
what a training step is held against.
"""

import argparse
import importlib

import numpy as np
import paddle

from shared_metrics import flags


def load(paper, name):
    """(model, trainer) of a room, loaded anew."""
    paper("classic_gans")
    return [importlib.import_module(f"{name}.{part}") for part in ("model", "trainer")]


def parse(trainer, output_dir, *words):
    """The flags of a room as train.py makes them: what all rooms share, what every run has, its
    own. Args: trainer, its module; words, the command line.
    """
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    for name in ("dataset", "train_list", "test_list", "recipe"):
        add(f"--{name}", default="")
    add("--data_dir", default="./data")
    add("--batch_size", type=int, default=1)
    add("--epoch", type=int, default=200)
    add("--iterations", type=int, default=0)
    add("--image_size", type=int, default=286)
    add("--crop_size", type=int, default=256)
    add("--learning_rate", type=float, default=2e-4)
    for name in ("shuffle", "drop_last", "save_checkpoints", "run_test"):
        add(f"--{name}", type=flags.truth, default=True)
    flags.run_flags(parser, name="toy", output_dir=str(output_dir))
    parser.set_defaults(sample_every=0, save_every=0, num_workers=0)
    trainer.add_flags(parser)
    return flags.with_recipe(parser, {}, [str(word) for word in words])


class Faces:
    """Faces of noise, as faces.Faces but without files."""

    flip = False
    one_hot = False

    def __init__(self, count, names, side=16, seed=0):
        rng = np.random.default_rng(seed)
        self.x = rng.uniform(-1, 1, (count, 3, side, side)).astype("float32")
        self.labels = rng.integers(0, 2, (count, len(names))).astype("float32")
        self.names = list(names)

    def __len__(self):
        return len(self.x)

    def load(self, index, rng):
        return self.x[index], self.labels[index]


class Adam:
    """Adam on a network's gradients, in numpy (Kingma and Ba, ICLR 2015, algorithm 1)."""

    def __init__(self, network, rate, beta1, beta2):
        self.parameters = [p for p in network.parameters() if not p.stop_gradient]
        self.rate = rate
        self.betas = (beta1, beta2)
        self.t = 0
        self.m = [np.zeros(p.shape) for p in self.parameters]
        self.v = [np.zeros(p.shape) for p in self.parameters]

    def step(self, loss):
        """One step on the gradients of `loss`, which alone stay in the parameters."""
        for p in self.parameters:
            p.clear_gradient()
        loss.backward()
        beta1, beta2 = self.betas
        self.t += 1
        for i, p in enumerate(self.parameters):
            g = p.grad.numpy()
            self.m[i] = beta1 * self.m[i] + (1 - beta1) * g
            self.v[i] = beta2 * self.v[i] + (1 - beta2) * g**2
            m_hat = self.m[i] / (1 - beta1**self.t)
            v_hat = self.v[i] / (1 - beta2**self.t)
            p.set_value((p.numpy() - self.rate * m_hat / (np.sqrt(v_hat) + 1e-8)).astype("f4"))


def penalty(D, x):
    """E (|grad D(x)| - 1)^2 of the first output of D."""
    x = x.detach()
    x.stop_gradient = False
    (gradient,) = paddle.grad(D(x)[0].sum(), x, create_graph=True)
    norm = (gradient.square().sum([1, 2, 3]) + 1e-16).sqrt()
    return (norm - 1.0).square().mean()


def assert_same(network, twin, rtol=5e-4):
    """Two networks have the same gradients, weights and buffers, to rounding; then the twin takes
    over the state, so that roundings do not add up.

    Adam makes full steps of gradients that are nothing but rounding: there weights may differ.
    """
    ours = dict(network.named_parameters())
    state = network.state_dict()
    learned = {}
    for name, p in twin.named_parameters():
        if p.stop_gradient:
            continue
        g = np.zeros(p.shape) if p.grad is None else p.grad.numpy()
        theirs = ours[name].grad
        theirs = np.zeros(p.shape) if theirs is None else theirs.numpy()
        scale = np.abs(g).max()
        np.testing.assert_allclose(theirs, g, 0, rtol * scale + 1e-6, err_msg=f"gradient of {name}")
        learned[name] = np.abs(g) > 10 * (rtol * scale + 1e-6)
    for name, expected in twin.state_dict().items():
        expected = expected.numpy()
        if name in learned:
            actual = np.where(learned[name], state[name].numpy(), expected)
            np.testing.assert_allclose(actual, expected, 5e-3, 1e-5, err_msg=name)
        else:
            np.testing.assert_allclose(state[name].numpy(), expected, 2e-5, 1e-6, err_msg=name)
    twin.set_state_dict(state)


def assert_losses(logs, **expected):
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name].item(), float(value), 2e-4, 1e-5, err_msg=name)


def state_of(trainer):
    """What a checkpoint of this trainer's run would hold now."""
    trainer.args.output_dir += "_again"
    with trainer._run(()) as run:
        return run.state()
