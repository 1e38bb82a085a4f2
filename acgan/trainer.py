"""AC-GAN's losses, its two updates and the training loop (Odena et al., ICML 2017, sec. 3)."""

import copy
from itertools import islice
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from model import pixels, with_labels
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.files import file_names
from shared_metrics.images import grid, save_png, to_uint8
from shared_metrics.inference import Runner
from shared_metrics.runs.ema import ema_update
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

# Fields of Architecture that shapes tell, or that have no part in what the weights mean.
FREE = ("imsize", "num_classes", "nz", "ngf", "ndf", "init", "dropout", "activation_noise")


def source_loss(logits, real):
    """-E[log P(S = real)] or -E[log P(S = fake)], a half of -L_S (eq. 2).

    Args: logits (N,), D's source logits; real, whether S = real.
    """
    # -log s(a) = softplus(-a) and -log(1 - s(a)) = softplus(a), which no logit overflows.
    return F.softplus(-logits if real else logits).mean()


def class_loss(logits, y, kind):
    """-L_C on one batch (eq. 3) from D's class logits (N, C) and labels y (N,).

    cross_entropy: -E[log P(C = y)], the paper's.
    linear: -E[P(C = y)], what both reproductions minimise, since they give softmax's probabilities
        to a loss that expects their logarithms; bounded by -1, flat where P(C = y) is near 0.
    """
    if kind == "cross_entropy":
        return F.cross_entropy(logits, y)
    return -(F.softmax(logits, axis=1) * F.one_hot(y, logits.shape[1])).sum(1).mean()


def accuracy(logits, y):
    """Share of the batch whose largest class logit (N, C) is that of y (N,)."""
    return (logits.argmax(1) == y).astype("float32").mean()


class Trainer:
    """Trains one generator and one discriminator.

    Args: arch, `model.Architecture`; args, the flags of train.py; dataset, see dataset.py;
        held_out, None or a data set of the same classes, on which D's class accuracy is logged with
        each sample grid.
    """

    def __init__(self, generator, discriminator, arch, args, dataset, held_out=None):
        self.G = generator
        self.D = discriminator
        self.arch = arch
        self.args = args
        self.data = dataset
        self.held_out = held_out
        self.rank = process.rank()
        self.epochs = Epochs(len(dataset), args.batch_size, process.world_size())
        self.per_epoch = self.epochs.per_epoch
        self.update_G = self._update(self.G, args.g_lr)
        self.update_D = self._update(self.D, args.d_lr)
        self.G_ema = copy.deepcopy(self.G) if args.ema_decay else None
        # Under the names of a checkpoint.
        self.networks = {
            "generator": self.G,
            "generator_ema": self.G_ema,
            "discriminator": self.D,
        }
        n = arch.num_classes
        self.shown = [i * n // min(n, 10) for i in range(min(n, 10))]  # classes in sample grids

    @property
    def total(self):
        """Iterations in all: --iterations, or those of --niter."""
        return self.args.iterations or self.epochs.end(self.args.niter)

    def _update(self, network, rate):
        a = self.args
        rate = a.lr if rate is None else rate
        return Update(network, rate, beta1=a.beta1, beta2=a.beta2, amp=a.amp)

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def train_step(self, iteration, x, y):
        """One update of D, then one of G, on the same generated images (sec. 3).

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            x (N, 3, S, S) float32 in [-1, 1] and y (N,) int64, arrays of real images and their
            classes.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        rng = self._rng("step", iteration, self.rank)
        paddle.seed(int(rng.integers(2**31)))  # dropout and activation noise
        # c ~ p_c: uniform, whatever the real batch holds.
        y_fake = rng.integers(self.arch.num_classes, size=len(y))
        noise = rng.standard_normal((len(y), self.arch.nz), dtype=np.float32)
        z = paddle.to_tensor(with_labels(noise, y_fake, self.arch.num_classes))
        y_fake = paddle.to_tensor(y_fake)
        # One pass of G serves both updates: D's step sees its images cut from the graph.
        with self.update_G.autocast():
            fake = self.G(z)  # X_fake = G(c, z)
        real = paddle.to_tensor(x)
        y = paddle.to_tensor(y)
        logs = self.d_update(real, y, fake=fake.detach(), y_fake=y_fake)
        return logs | self.g_update(fake, y_fake, iteration)

    def d_update(self, real, y, fake, y_fake):
        """One Adam step of D, which maximises L_S + L_C (eq. 2, 3).

        Real and fake images pass D apart, each a batch. With args.class_on "real", L_C is of the
        real images alone.
        """
        a = self.args
        with self.update_D.autocast():
            s_real, c_real = (logits.astype("float32") for logits in self.D(real))
            s_fake, c_fake = (logits.astype("float32") for logits in self.D(fake))
        # Losses in full precision.
        loss_s = source_loss(s_real, real=True) + source_loss(s_fake, real=False)
        loss_c = class_loss(c_real, y, a.class_loss)
        if a.class_on == "both":
            loss_c = loss_c + class_loss(c_fake, y_fake, a.class_loss)
        loss = loss_s + loss_c
        self.update_D.backward(
            loss,
            D_loss=loss,
            D_loss_S=loss_s,
            D_loss_C=loss_c,
            Acc=accuracy(c_real, y),
            Acc_fake=accuracy(c_fake, y_fake),
            D_x=F.sigmoid(s_real).mean(),
            D_G_z1=F.sigmoid(s_fake).mean(),
        )
        return self.update_D.step()

    def g_update(self, fake, y_fake, iteration):
        """One Adam step of G, which maximises L_C - L_S (eq. 2, 3); then its moving average.

        It makes D say "real" and the class. Of L_S it raises E[log P(S = real | X_fake)] instead of
        lowering E[log P(S = fake | X_fake)], which is flat while D knows the fakes; so do both
        reproductions.
        """
        a = self.args
        with self.update_D.frozen():
            with self.update_D.autocast():
                s_fake, c_fake = (logits.astype("float32") for logits in self.D(fake))
            loss = source_loss(s_fake, real=True) + class_loss(c_fake, y_fake, a.class_loss)
            self.update_G.backward(loss, G_loss=loss, D_G_z2=F.sigmoid(s_fake).mean())
        logs = self.update_G.step()
        if self.G_ema is not None:  # decay 0 copies G
            ema_update(self.G_ema, self.G, a.ema_decay if iteration >= a.ema_start else 0.0)
        return logs

    def train(self, notes=()):
        """Step, log, show, score, save, until the last iteration or a signal.

        Args: notes, lines for the head of the log.
        Returns: 0, or 128 + the signal.
        Raises: NotFinite when a loss is NaN.
        """
        a = self.args
        with self._run(notes) as run:
            if run.is_main:
                run.show("real", self.show_real())
            batches = run.batches(self.data)
            for iteration in run:
                run.log(self.train_step(iteration, *next(batches)))
                if run.due(a.sample_every, epochs=a.save_freq, last=True):
                    run.picture("samples", self.sample_grid(), folder=a.result_path)
                    if self.held_out is not None:
                        run.values({"Acc_held_out": self.held_out_accuracy()})
                    if run.iteration == self.total:
                        self.sample_classes()
                if run.due(a.eval_every):
                    run.score(self.fakes())
        return run.exit_code

    def _run(self, notes):
        a = self.args
        about = {
            "paper": "acgan",
            "architecture": self.arch.to_dict(),
            "classes": self.data.classes,
            "class_indices": self.data.class_indices,
            "class_total": self.data.class_total,
            "batches_per_epoch": self.per_epoch,
        }
        folders = {
            "--check_path": a.check_path,
            "--result_path": a.result_path,
            "--class_result_path": a.class_result_path,
            "--log_path": a.log_path,
        }
        return Run(
            a,
            lambda: self.total,
            self.networks,
            updates={"g": self.update_G, "d": self.update_D},
            about=about,
            check=self.check,
            real=self.data,
            epochs=self.epochs,
            save_epochs=a.save_freq,
            checkpoints=a.check_path,
            visualdl=a.log_path,
            folders=folders,
            notes=notes,
        )

    def runner(self, number=0):
        """`Runner` of the averaged G, or of G without --ema_decay, for so many images."""
        network = self.G if self.G_ema is None else self.G_ema
        return Runner(network, pixels(self.arch, number))

    def generate(self, noise, y, run=None):
        """Images uint8 (N, S, S, 3) of the averaged G, or of G without --ema_decay, in eval mode.

        noise (N, nz) float32, y (N,) integers. run: `runner`'s, for many of them.
        """
        run = run or self.runner()
        run.network.eval()
        images = to_uint8(run(with_labels(noise, y, self.arch.num_classes)))
        run.network.train()
        return images

    def show_real(self):
        """Write real_samples.png, to compare the grids with, and return the picture.

        One row a class (ten at most), ten of its images.
        """
        labels = np.asarray(self.data.labels)
        side = self.arch.imsize
        cells = []
        for y in self.shown:
            readable = self._readable(self.data, np.flatnonzero(labels == y))
            images = [x for x, _ in islice(readable, 10)]
            images = images or [np.zeros((3, side, side), np.float32)]  # none can be read: gray
            cells += (images * 10)[:10]  # a small class shows its images again
        names = [self.data.classes[y] for y in self.shown]
        picture = grid(to_uint8(np.stack(cells)), 10, row_labels=names)
        self._save(picture, Path(self.args.result_path) / "real_samples.png")
        return picture

    def sample_grid(self):
        """One row a class (ten at most), the same ten latents in each row."""
        noise = self._rng("grid").standard_normal((10, self.arch.nz), dtype=np.float32)
        images = [self.generate(noise, np.full(10, y)) for y in self.shown]
        names = [self.data.classes[y] for y in self.shown]
        return grid(np.concatenate(images), 10, row_labels=names)

    def sample_classes(self):
        """Write class_results/<class>.png, a hundred images of each class."""
        noise = self._rng("classes").standard_normal((100, self.arch.nz), dtype=np.float32)
        for y, name in enumerate(file_names(self.data.classes)):
            picture = grid(self.generate(noise, np.full(100, y)), 10)
            self._save(picture, Path(self.args.class_result_path) / f"{name}.png")

    @staticmethod
    def _save(picture, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(picture, path)

    def held_out_accuracy(self, most=1000):
        """D's class accuracy, in eval mode, on held-out images; NaN where none can be read.

        most: images at most, spread over the classes.
        """
        number = min(most, len(self.held_out))
        chosen = np.linspace(0, len(self.held_out) - 1, number).astype(int)
        items = self._readable(self.held_out, chosen)
        right = 0
        seen = 0
        self.D.eval()
        while batch := list(islice(items, self.args.batch_size)):
            images, labels = zip(*batch, strict=True)
            x = paddle.to_tensor(np.stack(images))
            with paddle.no_grad():
                _, logits = self.D(x)
            right += int((logits.numpy().argmax(1) == np.stack(labels)).sum())
            seen += len(batch)
        self.D.train()
        return right / seen if seen else float("nan")

    def _readable(self, data, indices):
        """Items of a data set one by one; --skip_bad_images leaves out unreadable ones."""
        for i in indices:
            try:
                yield data.load(int(i), self._rng("show", int(i)))
            except UserError:
                if not self.args.skip_bad_images:
                    raise

    def fakes(self):
        """Batches of uint8 images, the same latents and uniform labels at every evaluation."""
        a = self.args
        rng = self._rng("evaluate")
        run = self.runner(a.eval_samples)
        for start in range(0, a.eval_samples, a.batch_size):
            n = min(a.batch_size, a.eval_samples - start)
            noise = rng.standard_normal((n, self.arch.nz), dtype=np.float32)
            yield self.generate(noise, rng.integers(self.arch.num_classes, size=n), run)

    def start_from(self, state, source):
        """Begin a new run from the weights in `state`: of G, D or both.

        Args: state, see `convert.read_weights`; source, the file.
        Returns: lines for the log.
        Raises: UserError when they are of another network.
        """
        self.check_architecture(state, source)
        return start_from(self.networks, state, source)

    def check(self, state, source):
        """Raise UserError where a checkpoint is of other classes or other networks."""
        if state.get("classes") != self.data.classes:
            raise UserError(
                f"{source}: was trained on other classes than --dataroot and --classes choose now"
            )
        self.check_architecture(state, source)

    def check_architecture(self, state, source):
        """Raise UserError where a checkpoint is of another architecture.

        Networks of another form can have weights of the same shapes.
        """
        ignored = FREE if "generator" in state else FREE + ("fc_relu",)
        self.arch.check_same(state, source, ignored)
