"""DCGAN's losses, its updates and the training loop (Radford et al., ICLR 2016).

The order of updates, and the noise, are those of PaddleCV's form, without the update of G that its
fakes for D cost it by mistake.
"""

from functools import partial

import paddle
import paddle.nn.functional as F

import drawing
from dataset import Digits, describe, rgb
from shared_metrics import process
from shared_metrics.flags import CHANNELS
from shared_metrics.inference import Runner
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

from .model import Architecture, DigitGenerator, Generator, networks

KIND = "digits"
RECIPES = {"paddlecv": {"form": "digits", "batch_size": 128, "epoch": 20}}
PICTURE_SIZE = 64
FORMS = ("auto", "digits", "paper")
D_ONLY = ("d_base_dims",)


def d_loss(logits, real):
    """A half of what D minimises: -log D(x) of real pictures, or -log(1 - D(G(z))) of fakes.

    logits (N,): D's before the logistic function. Source: Goodfellow et al., 2014, eq. 1.
    """
    return F.softplus(-logits if real else logits).mean()


def g_loss(logits):
    """-log D(G(z)), the form for G that is steep while D knows the fakes."""
    return F.softplus(-logits).mean()


# fmt: off
def add_flags(parser):
    """Add DCGAN's flags."""
    drawing.add_flags(parser, PICTURE_SIZE)
    add = parser.add_argument_group("DCGAN").add_argument
    add("--form", default="auto", choices=FORMS,
        help="networks: PaddleCV's for digits, the paper's all-convolutional ones (32, 64, 128 "
             "px), or by the data")
    add("--g_base_dims", type=CHANNELS, default=64,
        help="width of G: digits have 2 times as many maps, the paper's first layer 16 times")
    add("--d_base_dims", type=CHANNELS, default=64, help="channels of D's first layer")
# fmt: on


def generators(arch):
    """{name in checkpoints: function that builds the network} of those that draw."""
    kind = Generator if arch.form == "paper" else DigitGenerator
    return {"generator": partial(kind, arch)}


class Trainer:
    """Trains DCGAN's G and D.

    Args: args, the flags of train.py; data, the pictures, where they are read already.
    """

    def __init__(self, args, data=None):
        self.args = args
        self.data = drawing.open_data(args, PICTURE_SIZE) if data is None else data
        self.judge = drawing.open_judge(args.judge, self.data.classes)
        by_data = "digits" if isinstance(self.data, Digits) else "paper"
        self.arch = Architecture(
            form=by_data if args.form == "auto" else args.form,
            image_size=self.data.image_size,
            channels=self.data.channels,
            noise_size=args.noise_size,
            g_base_dims=args.g_base_dims,
            d_base_dims=args.d_base_dims,
        )
        paddle.seed(args.seed)
        self.G, self.D = networks(self.arch)
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
        """One line on the data and the networks for the log."""
        return f"{describe(self.data)}; networks: {self.arch.form}"

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def train_step(self, iteration, x):
        """An update of D on real pictures, one on fakes, then `num_generator_time` of G, each of a
        z of its own.

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            x (N, channels, S, S) float32 in [-1, 1], array of real pictures.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        rng = self._rng("z", iteration, process.rank())
        x = paddle.to_tensor(x)
        with paddle.no_grad():  # G is fixed here; its BatchNorms move in every training pass
            fake = self.generate(rng, len(x))
        logs = self.d_update(x, real=True)
        logs |= self.d_update(fake, real=False)
        for _ in range(self.args.num_generator_time):
            logs |= self.g_update(self.generate(rng, len(x)))
        return logs

    def generate(self, rng, number):
        """G(z) in train mode, of new z."""
        z = drawing.noise(rng, number, self.arch.noise_size)
        with self.update_G.autocast():
            return self.G(z).astype("float32")

    def d_update(self, x, real):
        """One Adam step of D on real pictures, or on fakes."""
        with self.update_D.autocast():
            logits = self.D(x).astype("float32")
        loss = d_loss(logits, real)
        name = "real" if real else "fake"
        logs = {f"d_loss_{name}": loss, f"D_{name}": F.sigmoid(logits).mean()}
        self.update_D.backward(loss, **logs)
        return self.update_D.step()

    def g_update(self, fake):
        """One Adam step of G, D fixed."""
        with self.update_D.frozen():
            with self.update_D.autocast():
                logits = self.D(fake).astype("float32")
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
                x, _ = next(batches)
                run.log(self.train_step(iteration, x))
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
            about={"paper": "dcgan", "architecture": self.arch.to_dict(), **about},
            check=self.arch.check_same,
            real=self.data,
            epochs=self.epochs,
            save_epochs=int(self.args.save_checkpoints),
            notes=notes,
        )

    def sheet(self):
        """Real pictures, then five rows of drawn ones, the same z each time."""
        z = drawing.noise(self._rng("sheet"), 5 * drawing.SHOWN, self.arch.noise_size)
        images = drawing.draw(self.G, z)
        return drawing.sheet(self.data, images, ["drawn"] * 5, self.args.skip_bad_images)

    def quality(self):
        """Spread of the drawn pictures, and what the judge reads in them; see drawing.quality."""
        z = drawing.noise(self._rng("judge"), drawing.JUDGED, self.arch.noise_size)
        return drawing.quality(drawing.draw(self.G, z), self.judge)

    def fakes(self, number):
        """Batches of pictures to score, the same z at every evaluation."""
        rng = self._rng("evaluate")
        run = Runner(self.G, pixels=number * self.arch.image_size**2)
        for start in range(0, number, self.args.batch_size):
            n = min(self.args.batch_size, number - start)
            z = drawing.noise(rng, n, self.arch.noise_size)
            yield rgb(drawing.draw(self.G, z, run=run))

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (convert.read_weights): of G, D or both.

        Returns: lines for the log. Raises: UserError when they are of another network.
        """
        self.arch.check_same(state, source, () if "discriminator" in state else D_ONLY)
        return start_from(self.networks, state, source)
