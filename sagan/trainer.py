"""SAGAN's losses, its two updates and the training loop (Zhang et al., ICML 2019, eq. 4)."""

import copy
from contextlib import contextmanager

import numpy as np
import paddle
import paddle.nn.functional as F

from shared_metrics import films, process
from shared_metrics.errors import UserError
from shared_metrics.images import grid, read_rgb, to_uint8
from shared_metrics.inference import Runner
from shared_metrics.runs.ema import ema_update
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

# Fields of Architecture that shapes tell, or that only the first weights depend on.
FREE = ("init", "bias_init", "imsize", "num_classes", "z_dim", "g_conv_dim", "d_conv_dim")
D_ONLY = ("d_attention", "skip_relu")  # say nothing of G


def d_losses(real, fake, kind):
    """The two halves of D's loss from its logits (N,) on real and on fake images; their sum is L_D.

    hinge (SAGAN eq. 4, first line): E[max(0, 1 - D(x, y))] and E[max(0, 1 + D(G(z), y))].
    dcgan and gan (Goodfellow et al. 2014, eq. 1): -E[log s(D(x))] and -E[log(1 - s(D(G(z))))], s
        the logistic function.
    wgan_gp (Gulrajani et al. 2017, eq. 3, without its penalty): -E[D(x)] and E[D(G(z))].
    """
    if kind == "hinge":
        return F.relu(1.0 - real).mean(), F.relu(1.0 + fake).mean()
    if kind == "wgan_gp":
        return -real.mean(), fake.mean()
    # -log s(a) = softplus(-a) and -log(1 - s(a)) = softplus(a), which no logit overflows.
    return F.softplus(-real).mean(), F.softplus(fake).mean()


def g_loss(fake, kind):
    """G's loss from D's logits (N,) on its images.

    hinge and wgan_gp (SAGAN eq. 4, second line): -E[D(G(z), y)].
    dcgan: -E[log s(D(G(z)))], the non-saturating form.
    gan: E[log(1 - s(D(G(z))))], the minimax form of Goodfellow et al. 2014, eq. 1.
    """
    if kind == "dcgan":
        return F.softplus(-fake).mean()
    if kind == "gan":
        return -F.softplus(fake).mean()
    return -fake.mean()


def gradient_penalty(discriminator, real, fake, y, mix):
    """E[(|grad D(x, y)|_2 - 1)^2] at x = mix * real + (1 - mix) * fake.

    Args: real, fake (N, 3, H, W); y (N,); mix (N, 1, 1, 1) uniform in [0, 1).
    Source: Gulrajani et al. 2017, eq. 3.
    """
    x = mix * real + (1.0 - mix) * fake
    x.stop_gradient = False
    # The sum: image i's logit alone depends on image i, so its slope is the i-th gradient.
    slope = paddle.grad(discriminator(x, y).sum(), x, create_graph=True)[0]
    norm = (slope.square().sum([1, 2, 3]) + 1e-12).sqrt()  # (N,); the root has no slope at 0
    return (norm - 1.0).square().mean()


def synchronise_norms(generator):
    """G with BatchNorm statistics over all cards.

    Conditional BatchNorm has no scale and shift of its own, which Paddle's kernel wants.
    """
    generator = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(generator)
    for layer in generator.sublayers():
        if isinstance(layer, paddle.nn.SyncBatchNorm) and layer._weight_attr is False:
            process.constant_affine(layer)
    return generator


@contextmanager
def statistics_fixed(network, fixed=True):
    """Context in which BatchNorm, in train mode, leaves its running statistics as they are."""
    norms = (paddle.nn.BatchNorm2D, paddle.nn.SyncBatchNorm)
    layers = [layer for layer in network.sublayers() if fixed and isinstance(layer, norms)]
    momenta = [layer._momentum for layer in layers]
    for layer in layers:
        layer._momentum = 1.0  # the share that is kept
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer._momentum = momentum


class Trainer:
    """Trains one generator and one discriminator.

    Args: arch, `model.Architecture`; args, the flags of train.py; dataset, see dataset.py.
    """

    def __init__(self, generator, discriminator, arch, args, dataset):
        self.G = generator
        self.D = discriminator
        self.arch = arch
        self.args = args
        self.data = dataset
        self.rank = process.rank()
        for attention in self.D.self_attn.values():  # the penalty differentiates D's gradient
            attention.twice = args.adv_loss == "wgan_gp"
        if args.sync_bn and process.world_size() > 1:
            self.G = synchronise_norms(self.G)
        self.update_G = self._update(self.G, args.g_lr)
        self.update_D = self._update(self.D, args.d_lr)
        self.G_ema = copy.deepcopy(self.G) if args.ema_decay else None
        # Under the names of a checkpoint.
        self.networks = {
            "generator": self.G,
            "generator_ema": self.G_ema,
            "discriminator": self.D,
        }

    def _update(self, network, rate):
        a = self.args
        how = {"amp": a.amp, "micro_batch": a.batch_size_in_gpu}
        return Update(network, rate, beta1=a.beta1, beta2=a.beta2, epsilon=a.adam_eps, **how)

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def _latents(self, rng, y):
        """z ~ N(0, I), (N, z_dim), and labels (N,): the real batch's own, or uniform."""
        z = rng.standard_normal((len(y), self.args.z_dim), dtype=np.float32)
        if self.args.fake_labels == "uniform":
            y = rng.integers(self.arch.num_classes, size=len(y))
        return paddle.to_tensor(z), paddle.to_tensor(y)

    def _noisy(self, rng, x, iteration):
        """Instance noise: x + sigma N(0, I), sigma falling linearly to 0."""
        a = self.args
        sigma = a.inst_noise_sigma * max(0.0, 1.0 - iteration / a.inst_noise_sigma_iters)
        if sigma == 0.0:
            return x
        return x + sigma * paddle.to_tensor(rng.standard_normal(x.shape, dtype=np.float32))

    def train_step(self, iteration, batches):
        """`d_steps_per_iter` updates of D, then `g_steps_per_iter` of G (SAGAN sec. 4, eq. 4).

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            batches, iterator of (x (N, 3, H, W) float32 in [-1, 1], y (N,) int64) arrays, one taken
            per D update.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        paddle.seed(int(self._rng("paddle", iteration, self.rank).integers(2**31)))
        logs = {}
        for k in range(self.args.d_steps_per_iter):
            x, y = next(batches)
            rng = self._rng("d", iteration, k, self.rank)
            logs |= self.d_update(x, y, iteration, rng=rng)
        for k in range(self.args.g_steps_per_iter):
            rng = self._rng("g", iteration, k, self.rank)
            logs |= self.g_update(y, iteration, rng=rng)
        return logs

    def d_update(self, x, y, iteration, rng):
        """One Adam step of D on L_D (eq. 4)."""
        a = self.args
        for part in self.update_D.parts(len(y)):
            real = paddle.to_tensor(x[part])
            y_real = paddle.to_tensor(y[part])
            z, y_fake = self._latents(rng, y[part])
            with self.update_D.autocast():
                # G is fixed here; its u, v move as in every training pass, and with
                # --d_moves_stats its BatchNorm's running statistics.
                with paddle.no_grad(), statistics_fixed(self.G, not a.d_moves_stats):
                    fake = self.G(z, y_fake)
                real = self._noisy(rng, real, iteration)
                fake = self._noisy(rng, fake.astype("float32"), iteration)
                d_real = self.D(real, y_real).astype("float32")  # losses in full precision
                d_fake = self.D(fake, y_fake).astype("float32")
            loss_real, loss_fake = d_losses(d_real, d_fake, a.adv_loss)
            loss = loss_real + loss_fake
            if a.adv_loss == "wgan_gp":
                mix = paddle.to_tensor(rng.random((len(y_real), 1, 1, 1), dtype=np.float32))
                penalty = gradient_penalty(self.D, real=real, fake=fake, y=y_real, mix=mix)
                loss = loss + a.lambda_gp * penalty
            self.update_D.backward(
                loss,
                d_loss=loss,
                d_loss_real=loss_real,
                d_loss_fake=loss_fake,
                D_real=d_real.mean(),
                D_fake=d_fake.mean(),
            )
        return self.update_D.step()

    def g_update(self, y, iteration, rng):
        """One Adam step of G on L_G (eq. 4), D fixed; then G's exponential moving average."""
        a = self.args
        with self.update_D.frozen():
            for part in self.update_G.parts(len(y)):
                z, y_fake = self._latents(rng, y[part])
                with self.update_G.autocast():
                    fake = self._noisy(rng, self.G(z, y_fake), iteration)
                    d_fake = self.D(fake, y_fake).astype("float32")
                loss = g_loss(d_fake, a.adv_loss)
                self.update_G.backward(loss, g_loss=loss, D_fake_g=d_fake.mean())
        logs = self.update_G.step()
        if self.G_ema is not None:  # decay 0 copies G
            ema_update(self.G_ema, self.G, a.ema_decay if iteration >= a.ema_start else 0.0)
        return logs

    def train(self, notes=()):
        """Step, log, show, score, save, until `iterations` or a signal.

        Args: notes, lines for the head of the log.
        Returns: 0, or 128 + the signal.
        Raises: NotFinite when a loss is NaN.
        """
        with self._run(notes) as run:
            batches = run.batches(self.data, shuffle=not self.args.dont_shuffle)
            for iteration in run:
                run.log(self.train_step(iteration, batches))
                if run.due(self.args.sample_every, last=True):
                    run.picture("samples", self.sample_grid())
                if run.due(self.args.eval_every):
                    run.score(self.fakes())
        if self.args.max_frames_per_gif and run.is_main and not run.exit_code:
            join_samples(run.folder, self.args.max_frames_per_gif)
        return run.exit_code

    def _run(self, notes):
        a = self.args
        return Run(
            a,
            a.iterations,
            self.networks,
            updates={"g": self.update_G, "d": self.update_D},
            about={
                "paper": "sagan",
                "architecture": self.arch.to_dict(),
                "classes": self.data.classes,
            },
            check=self.check,
            real=self.data,
            epochs=self._epochs(),
            # G's updates take no real images.
            images=a.batch_size * a.d_steps_per_iter * process.world_size(),
            notes=notes,
        )

    def _epochs(self):
        a = self.args
        how = {"drop_last": not a.dont_drop_last, "per_iteration": a.d_steps_per_iter}
        return Epochs(len(self.data), a.batch_size, process.world_size(), **how)

    def runner(self, number=0):
        """`Runner` of the averaged G, or of G where there is none, for so many images."""
        network = self.G if self.G_ema is None else self.G_ema
        return Runner(network, pixels=number * self.arch.imsize**2)

    def generate(self, z, y, run=None):
        """Images uint8 (N, H, W, 3) of the averaged G, or of G where there is none, in eval mode.

        z (N, z_dim) float32, y (N,) integers: arrays. run: `runner`'s, for many of them.
        """
        run = run or self.runner()
        run.network.eval()
        images = to_uint8(run(z, y))
        run.network.train()
        return images

    def sample_grid(self):
        """One row a class (ten at most, evenly spaced), the same ten latents in each row."""
        z = self._rng("grid").standard_normal((10, self.args.z_dim)).astype("float32")
        n = self.arch.num_classes
        rows = [i * n // min(n, 10) for i in range(min(n, 10))]
        images = [self.generate(z, np.full(10, y)) for y in rows]
        return grid(np.concatenate(images), 10, row_labels=[self.data.classes[y] for y in rows])

    def fakes(self):
        """Batches of uint8 images, the same latents and uniform labels at every evaluation."""
        a = self.args
        rng = self._rng("evaluate")
        run = self.runner(a.eval_samples)
        for start in range(0, a.eval_samples, a.batch_size):
            n = min(a.batch_size, a.eval_samples - start)
            z = rng.standard_normal((n, a.z_dim), dtype=np.float32)
            yield self.generate(z, rng.integers(self.arch.num_classes, size=n), run)

    def start_from(self, state, source):
        """Begin a new run from the weights in `state`: G, and D where the file has it.

        Args: state, see `convert.read_weights`; source, the file.
        Returns: lines for the log.
        Raises: UserError when it is another network.
        """
        if "generator" not in state:
            raise UserError(f"{source}: holds no generator; give the file of G")
        self.check_architecture(state, source)
        return start_from(self.networks, state, source)

    def check(self, state, source):
        """Raise UserError where a checkpoint is of other classes or other networks."""
        if state.get("classes") != self.data.classes:
            raise UserError(
                f"{source}: was trained on other classes than --data_path holds now: "
                "labels would change"
            )
        self.check_architecture(state, source)

    def check_architecture(self, state, source):
        """Raise UserError where a checkpoint is of another architecture.

        Networks of other semantics (eps, skip_relu, cBN) can have weights of the same shapes.
        """
        ignored = FREE if "discriminator" in state else FREE + D_ONLY
        self.arch.check_same(state, source, ignored)


def join_samples(folder, most):
    """Write samples.gif from the sample grids, `most` of them at the most, evenly spread."""
    paths = sorted((folder / "samples").glob("iter_*.png"))
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), most)).astype(int)
    if paths:
        pictures = (np.asarray(read_rgb(paths[i])) for i in chosen)
        films.save_gif(pictures, folder / "samples.gif", milliseconds=200)
