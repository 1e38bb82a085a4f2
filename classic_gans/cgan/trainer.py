"""CGAN's losses, its updates and the training loop (Mirza and Osindero, 2014, sec. 3.2).

The order of updates, and the noise, are those of PaddleCV's convolutional form.
"""

from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F

import drawing
from dataset import describe, rgb
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import CHANNELS
from shared_metrics.inference import Runner
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

from .model import Architecture, Discriminator, Generator

KIND = "digits"
RECIPES = {"paddlecv": {"batch_size": 121, "epoch": 20}}
PICTURE_SIZE = 32
D_ONLY = ("d_base_dims",)


def d_loss(logits, real):
    """A half of eq. 2 that D minimises: -log D(x|y) of real pictures, or -log(1 - D(G(z|y)|y)).

    logits (N,): D's before the logistic function.
    """
    return F.softplus(-logits if real else logits).mean()


def g_loss(logits):
    """-log D(G(z|y)|y): eq. 2 for G in the form that is steep while D knows the fakes."""
    return F.softplus(-logits).mean()


# fmt: off
def add_flags(parser):
    """Add CGAN's flags."""
    drawing.add_flags(parser, PICTURE_SIZE)
    add = parser.add_argument_group("CGAN").add_argument
    add("--g_base_dims", type=CHANNELS, default=128, help="channels of G's maps")
    add("--d_base_dims", type=CHANNELS, default=64, help="channels of D's maps")
# fmt: on


def generators(arch):
    """{name in checkpoints: function that builds the network} of those that draw."""
    return {"generator": partial(Generator, arch)}


class Trainer:
    """Trains CGAN's G and D.

    Args: args, the flags of train.py; data, the labelled pictures, where they are read already.
    """

    def __init__(self, args, data=None):
        self.args = args
        self.data = drawing.open_data(args, PICTURE_SIZE) if data is None else data
        self.judge = drawing.open_judge(args.judge, self.data.classes)
        self.arch = Architecture(
            image_size=self.data.image_size,
            channels=self.data.channels,
            n_classes=len(self.data.classes),
            noise_size=args.noise_size,
            g_base_dims=args.g_base_dims,
            d_base_dims=args.d_base_dims,
        )
        paddle.seed(args.seed)
        self.G = Generator(self.arch)
        self.D = Discriminator(self.arch)
        self.networks = {"generator": self.G, "discriminator": self.D}
        adam = {"beta1": 0.5, "beta2": 0.999, "amp": args.amp}
        self.update_G = Update(self.G, args.learning_rate, **adam)
        self.update_D = Update(self.D, args.learning_rate, **adam)
        size = (args.batch_size, process.world_size(), args.drop_last)
        self.epochs = Epochs(len(self.data), *size)
        self.per_epoch = self.epochs.per_epoch

    @property
    def total(self):
        """Iterations in all: --iterations, or those of --epoch."""
        return self.args.iterations or self.epochs.end(self.args.epoch)

    def describe(self):
        """One line on the data for the log."""
        return describe(self.data)

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def train_step(self, iteration, x, y):
        """An update of D on real pictures, one on fakes, then `num_generator_time` of G, all of the
        same z and under the real pictures' labels.

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            x (N, channels, S, S) float32 in [-1, 1] and y (N,) int64, arrays of real pictures and
            their classes.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        rng = self._rng("z", iteration, process.rank())
        z = drawing.noise(rng, len(y), self.arch.noise_size)
        x = paddle.to_tensor(x)
        y = paddle.to_tensor(y)
        fake = self.generate(z, y)
        logs = self.d_update(x, y, real=True)
        logs |= self.d_update(fake.detach(), y, real=False)
        for k in range(self.args.num_generator_time):
            if k > 0:  # G has moved
                fake = self.generate(z, y)
            logs |= self.g_update(fake, y)
        return logs

    def generate(self, z, y):
        """G(z|y) in train mode, with gradients."""
        with self.update_G.autocast():
            return self.G(z, y).astype("float32")

    def d_update(self, x, y, real):
        """One Adam step of D on real pictures, or on fakes."""
        with self.update_D.autocast():
            logits = self.D(x, y).astype("float32")
        loss = d_loss(logits, real)
        name = "real" if real else "fake"
        logs = {f"d_loss_{name}": loss, f"D_{name}": F.sigmoid(logits).mean()}
        self.update_D.backward(loss, **logs)
        return self.update_D.step()

    def g_update(self, fake, y):
        """One Adam step of G, D fixed."""
        with self.update_D.frozen():
            with self.update_D.autocast():
                logits = self.D(fake, y).astype("float32")
            loss = g_loss(logits)
            self.update_G.backward(loss, g_loss=loss)
        return self.update_G.step()

    def train(self, notes=()):
        """Step, log, show, score, save, until the last iteration or a signal.

        Args: notes, lines for the head of the log. Returns: 0, or 128 + the signal.
        Raises: NotFinite when a loss is NaN.
        """
        a = self.args
        with self._run(notes) as run:
            batches = run.batches(self.data, shuffle=a.shuffle)
            for iteration in run:
                run.log(self.train_step(iteration, *next(batches)))
                if run.due(a.sample_every, epochs=int(a.run_test)):
                    run.picture("samples", self.sheet())
                    run.values(self.quality())
                if run.due(a.eval_every):
                    run.score(self.fakes(run.eval_samples))
        return run.exit_code

    def _run(self, notes):
        about = {"classes": self.data.classes, "batches_per_epoch": self.per_epoch}
        return Run(
            self.args,
            lambda: self.total,
            self.networks,
            updates={"g": self.update_G, "d": self.update_D},
            about={"paper": "cgan", "architecture": self.arch.to_dict(), **about},
            check=self.check,
            real=self.data,
            epochs=self.epochs,
            save_epochs=int(self.args.save_checkpoints),
            notes=notes,
        )

    def draw(self, z, labels, run=None):
        """Pictures uint8 of z (N, noise_size) and labels (N,); run, see drawing.draw."""
        return drawing.draw(self.G, z, labels, run=run)

    def sheet(self):
        """Real pictures, then a row a class (ten at most), the same ten z in each."""
        n = self.arch.n_classes
        rows = [i * n // min(n, drawing.SHOWN) for i in range(min(n, drawing.SHOWN))]
        z = drawing.noise(self._rng("sheet"), drawing.SHOWN, self.arch.noise_size)
        images = [self.draw(z, np.full(drawing.SHOWN, y)) for y in rows]
        names = [self.data.classes[y] for y in rows]
        return drawing.sheet(self.data, np.concatenate(images), names, self.args.skip_bad_images)

    def quality(self):
        """Spread of the drawn pictures, and what the judge reads in them; see drawing.quality."""
        z = drawing.noise(self._rng("judge"), drawing.JUDGED, self.arch.noise_size)
        labels = np.arange(drawing.JUDGED) % self.arch.n_classes
        return drawing.quality(self.draw(z, labels), self.judge, labels)

    def fakes(self, number):
        """Batches of pictures to score, the same z and uniform labels at every evaluation."""
        rng = self._rng("evaluate")
        run = Runner(self.G, pixels=number * self.arch.image_size**2)
        for start in range(0, number, self.args.batch_size):
            n = min(self.args.batch_size, number - start)
            z = drawing.noise(rng, n, self.arch.noise_size)
            yield rgb(self.draw(z, rng.integers(self.arch.n_classes, size=n), run))

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (convert.read_weights): of G, D or both.

        Returns: lines for the log. Raises: UserError when they are of another network.
        """
        self.arch.check_same(state, source, () if "discriminator" in state else D_ONLY)
        return start_from(self.networks, state, source)

    def check(self, state, source):
        """Raise UserError where a checkpoint is of other classes or another network."""
        if state.get("classes") != self.data.classes:
            raise UserError(f"{source}: was trained on other classes than the data have now")
        self.arch.check_same(state, source)
