"""Pix2Pix's losses, its two updates and the training loop (Isola et al., CVPR 2017, sec. 3)."""

from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F

import translation
from dataset import Pairs, describe, rgb
from lists import has_split, list_path, paired_files, readable
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import amount
from shared_metrics.images import grid, to_uint8
from shared_metrics.inference import Runner
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

from .model import Architecture, Discriminator, Generator

KIND = "translation"
NEEDS = translation.NEEDS
RECIPES = {
    "paddlecv": {"flip": False},  # its U-Net has no dropout, whatever the flag says
    "facades": {"direction": "BtoA"},  # the two sets of which the authors give the label map as B
    "maps": {"direction": "BtoA"},
}


def gan_loss(logits, real, mode):
    """The adversarial loss on D's outputs (N, 1, S', S') for pictures meant to be real, or fake.

    vanilla: eq. 1 in the form -log D, or -log(1 - D), s the logistic function. lsgan: the squared
    distance to 1, or to 0. wgangp: -D, or D.
    """
    if mode == "lsgan":
        return (logits - float(real)).square().mean()
    logits = -logits if real else logits
    return F.softplus(logits).mean() if mode == "vanilla" else logits.mean()


def gradient_penalty(D, real, fake, alpha):
    """E (|grad D(x)| - 1)^2 at x = alpha real + (1 - alpha) fake, of the sum of D's patches.

    Args: real, fake (N, C, S, S): A and B joined; alpha (N, 1, 1, 1) in [0, 1].
    Source: Gulrajani et al., 2017, eq. 3; the authors' code for gan_mode wgangp.
    """
    x = (alpha * real + (1.0 - alpha) * fake).detach()
    x.stop_gradient = False
    (gradient,) = paddle.grad(D(x).sum(), x, create_graph=True)
    # 1e-16 under the root, whose derivative at 0 is infinite.
    norm = (gradient.square().sum([1, 2, 3]) + 1e-16).sqrt()  # (N,)
    return (norm - 1.0).square().mean()


# fmt: off
def add_flags(parser):
    """Add Pix2Pix's flags."""
    how = {"net_G": "unet_256", "norm_type": "batch_norm", "dropout": True, "gan_mode": "vanilla"}
    translation.add_flags(parser, **how)
    add = parser.add_argument_group("Pix2Pix").add_argument
    add("--direction", default="AtoB", choices=["AtoB", "BtoA"],
        help="AtoB: A is given and B drawn; BtoA: the other way round")
    add("--lambda_L1", type=amount, default=100.0, help="weight of the distance to B (eq. 4)")
# fmt: on


def read_data(args, multiple):
    """(pairs to train on, pairs to show: those of the test set, or the same without one)."""
    root = translation.root_of(args)
    training, plain = translation.geometries(args, multiple)
    how = (args.direction, (args.input_nc, args.output_nc))
    files, where = paired_files(root, "train", list_path(args.train_list, root))
    data = Pairs(files, training, *how, where, args.skip_bad_images)
    if args.test_list or has_split(root, "test"):
        files, where = paired_files(root, "test", list_path(args.test_list, root), "--test_list")
    return data, Pairs(files, plain, *how, where, args.skip_bad_images)


def generators(arch):
    """{name in checkpoints: function that builds the network} of those that draw."""
    return {"generator": partial(Generator, arch)}


class Trainer:
    """Trains Pix2Pix's G and D.

    Args: args, the flags of train.py; data, what `read_data` returns, where it is read already.
    """

    def __init__(self, args, data=None):
        self.args = args
        self.arch = Architecture(**{name: getattr(args, name) for name in translation.SIZES})
        self.data, self.held_out = read_data(args, self.arch.multiple) if data is None else data
        self.mode = {"norm": "batch", "dropout": args.dropout}
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
        return f"{describe(self.data)}; {len(self.held_out):,} to show"

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def set_rates(self, iteration):
        """Both rates: constant, then falling linearly, epoch by epoch."""
        share = translation.rate_share(self.args, self.epochs.done(iteration))
        for update in (self.update_G, self.update_D):
            update.set_rate(share * self.args.learning_rate)

    def train_step(self, iteration, a, b):
        """One update of D, then one of G, on the same B' = G(A).

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            a (N, input_nc, S, S), what is given, and b (N, output_nc, S, S), what is wanted: arrays
            float32 in [-1, 1].
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        self.set_rates(iteration)
        rng = self._rng("step", iteration, process.rank())
        paddle.seed(int(rng.integers(2**31)))  # dropout
        a = paddle.to_tensor(a)
        b = paddle.to_tensor(b)
        with self.update_G.autocast():
            fake = self.G(a).astype("float32")
        return self.d_update(a, b, fake.detach(), rng) | self.g_update(a, b, fake)

    def judge(self, a, b):
        """D's logits for B as a picture of A."""
        with self.update_D.autocast():
            return self.D(paddle.concat([a, b], axis=1)).astype("float32")

    def d_update(self, a, b, fake, rng):
        """One Adam step of D on eq. 1, halved: it sees (A, G(A)), then (A, B)."""
        args = self.args
        loss_fake = gan_loss(self.judge(a, fake), False, args.gan_mode)
        loss_real = gan_loss(self.judge(a, b), True, args.gan_mode)
        loss = 0.5 * (loss_fake + loss_real)
        logs = {"D_fake": loss_fake, "D_real": loss_real}
        if args.gan_mode == "wgangp":
            alpha = paddle.to_tensor(rng.random((len(a), 1, 1, 1), dtype=np.float32))
            pairs = [paddle.concat([a, picture], axis=1) for picture in (b, fake)]
            logs["D_gp"] = gradient_penalty(self.D, *pairs, alpha)
            loss = loss + args.lambda_gp * logs["D_gp"]
        self.update_D.backward(loss, D=loss, **logs)
        return self.update_D.step()

    def g_update(self, a, b, fake):
        """One Adam step of G on eq. 4, D fixed: the GAN's loss and lambda_L1 |B - G(A)|."""
        with self.update_D.frozen():
            loss_gan = gan_loss(self.judge(a, fake), True, self.args.gan_mode)
            loss_l1 = self.args.lambda_L1 * (fake - b).abs().mean()
            loss = loss_gan + loss_l1
            self.update_G.backward(loss, G=loss, G_GAN=loss_gan, G_L1=loss_l1)
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
                    sheet, distance = self.sheet()
                    run.picture("samples", sheet)
                    run.values({"shown_l1": distance})
                if run.due(a.eval_every):
                    run.score(self.fakes(run.eval_samples))
        return run.exit_code

    def _run(self, notes):
        about = {"direction": self.args.direction, "mode": self.mode}
        return Run(
            self.args,
            lambda: self.total,
            self.networks,
            updates={"g": self.update_G, "d": self.update_D},
            about={
                "paper": "pix2pix",
                "architecture": self.arch.to_dict(),
                "batches_per_epoch": self.per_epoch,
                **about,
            },
            check=self.check,
            real=self.held_out,
            eval_samples=min(self.args.eval_samples, len(self.held_out)),
            epochs=self.epochs,
            save_epochs=int(self.args.save_checkpoints),
            notes=notes,
        )

    def drawn(self, indices):
        """(A, B' = G(A), B) of pairs to show, uint8 (1, S, S, 3) each, B' as test.py draws it."""
        run = Runner(self.G, pixels=len(indices) * self.args.crop_size**2)
        skip_bad = self.args.skip_bad_images
        for index, (a, b) in readable(self.held_out, indices, skip_bad):
            fake = translation.draw(run, a[None], self.mode, 0, index)
            yield [rgb(to_uint8(x)) for x in (a[None], fake, b[None])]

    def sheet(self):
        """(a row A, G(A), B for each of some pairs; the mean |B - G(A)| of these, in [0, 1])."""
        cells = []
        distances = []
        for a, fake, b in self.drawn(translation.some(len(self.held_out))):
            cells += [a, fake, b]
            distances.append(np.abs(fake.astype(np.int16) - b).mean() / 255)
        titles = ["given", "drawn", "wanted"]
        return grid(np.concatenate(cells), 3, column_labels=titles), float(np.mean(distances))

    def fakes(self, number):
        """The first `number` pictures drawn of pairs to show, one by one."""
        for _, fake, _ in self.drawn(range(number)):
            yield fake

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (convert.read_weights): of G, D or both.

        Returns: lines for the log. Raises: UserError when they are of another network.
        """
        self.arch.check_same(state, source, translation.free_fields(self.arch, state))
        return start_from(self.networks, state, source)

    def check(self, state, source):
        """Raise UserError where a checkpoint is of the other direction or another network."""
        if state.get("direction") != self.args.direction:
            raise UserError(
                f"{source}: was trained with --direction {state.get('direction')}; give the same"
            )
        self.arch.check_same(state, source)
