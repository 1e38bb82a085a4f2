"""SAGAN's losses, its two updates and the training loop (Zhang et al., ICML 2019, eq. 4)."""

import copy
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from PIL import Image

from shared_metrics import files, process, weights
from shared_metrics.errors import UserError
from shared_metrics.images import grid, save_png, to_uint8
from shared_metrics.runs import checkpoint
from shared_metrics.runs.ema import ema_update
from shared_metrics.runs.evaluation import Evaluation
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.log import RunLog
from shared_metrics.runs.stop import StopSignals, check_finite, weight_sums

D_ONLY = ("d_attention", "skip_relu")  # fields of Architecture that say nothing of G


def d_losses(real, fake, kind):
    """The two halves of D's loss from its logits on real and fake images, each (N,); their sum is
    L_D.

    hinge (SAGAN eq. 4, first line): E[max(0, 1 - D(x, y))] and E[max(0, 1 + D(G(z), y))].
    dcgan and gan (Goodfellow et al. 2014, eq. 1): -E[log s(D(x))] and -E[log(1 - s(D(G(z))))], s
        the logistic function.
    wgan_gp (Gulrajani et al. 2017, eq. 3, without its penalty): -E[D(x)] and E[D(G(z))].
    """
    if kind == "hinge":
        return F.relu(1.0 - real).mean(), F.relu(1.0 + fake).mean()
    if kind == "wgan_gp":
        return -real.mean(), fake.mean()
    return F.softplus(-real).mean(), F.softplus(fake).mean()


def g_loss(fake, kind):
    """G's loss from D's logits (N,) on its images.

    hinge and wgan_gp (SAGAN eq. 4, second line): -E[D(G(z), y)]. dcgan: -E[log s(D(G(z)))], the
        non-saturating form.
    gan: E[log(1 - s(D(G(z))))], the minimax form of Goodfellow et al. 2014, eq. 1.
    """
    if kind == "dcgan":
        return F.softplus(-fake).mean()
    if kind == "gan":
        return -F.softplus(fake).mean()
    return -fake.mean()


def gradient_penalty(discriminator, real, fake, y, mix):
    """E[(|grad D(x, y)|_2 - 1)^2] at x = mix * real + (1 - mix) * fake (Gulrajani et al. 2017, eq. 3).

    real, fake (N, 3, H, W); y (N,); mix (N, 1, 1, 1) uniform in [0, 1).
    """
    x = mix * real + (1.0 - mix) * fake
    x.stop_gradient = False
    slope = paddle.grad(discriminator(x, y).sum(), x, create_graph=True)[0]
    norm = (slope.square().sum([1, 2, 3]) + 1e-12).sqrt()
    return (norm - 1.0).square().mean()


def synchronise_norms(generator):
    """G with BatchNorm statistics over all cards. Paddle's kernel wants a scale and a shift where
    cBN has none.
    """
    generator = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(generator)
    for layer in generator.sublayers():
        if isinstance(layer, paddle.nn.SyncBatchNorm) and layer.weight is None:
            for name, value in (("weight", 1.0), ("bias", 0.0)):
                layer._parameters.pop(name, None)
                layer.__dict__.pop(name, None)
                layer.register_buffer(
                    name, paddle.full(layer._mean.shape, value), persistable=False
                )
    return generator


class Trainer:
    """Trains one generator and one discriminator; `args`: the flags of train.py, `arch`:
    `model.Architecture`.
    """

    def __init__(self, generator, discriminator, arch, args, dataset):
        self.G, self.D, self.arch, self.args, self.data = (
            generator,
            discriminator,
            arch,
            args,
            dataset,
        )
        self.iteration, self.best, self.resumed_from, self.notes = 0, {}, None, []
        self.rank, self.world = process.rank(), process.world_size()
        self.folder = Path(args.output_dir)
        self.fixed_z = paddle.to_tensor(
            self._rng("grid").standard_normal((10, args.z_dim)).astype("float32")
        )
        for attention in self.D.self_attn.values():
            attention.twice = args.adv_loss == "wgan_gp"
        process.broadcast_layers(self.G, self.D)
        if args.sync_bn and self.world > 1:
            self.G = synchronise_norms(self.G)
        self.G_ema = copy.deepcopy(self.G) if args.ema_decay else None
        self.params_G = [p for p in self.G.parameters() if not p.stop_gradient]
        self.params_D = [p for p in self.D.parameters() if not p.stop_gradient]
        self.opt_G, self.opt_D = (
            self._adam(args.g_lr, self.params_G),
            self._adam(args.d_lr, self.params_D),
        )
        self.scaler_G, self.scaler_D = (
            paddle.amp.GradScaler(enable=args.amp == "fp16") for _ in range(2)
        )
        self.evaluation = None

    def _adam(self, lr, parameters):
        a = self.args
        return paddle.optimizer.Adam(
            lr, beta1=a.beta1, beta2=a.beta2, epsilon=a.adam_eps, parameters=parameters
        )

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def _autocast(self):
        dtype = {"fp16": "float16", "bf16": "bfloat16"}.get(self.args.amp, "float16")
        return paddle.amp.auto_cast(enable=self.args.amp != "none", dtype=dtype, level="O1")

    def _latents(self, rng, y):
        """z ~ N(0, I), (N, z_dim), and labels (N,): the real batch's own, or uniform over the
        classes.
        """
        z = rng.standard_normal((len(y), self.args.z_dim), dtype=np.float32)
        if self.args.fake_labels == "uniform":
            y = rng.integers(self.arch.num_classes, size=len(y))
        return paddle.to_tensor(z), paddle.to_tensor(y)

    def _noisy(self, rng, x, iteration):
        """Instance noise: x + sigma N(0, I), sigma falling linearly to 0 over the first
        iterations.
        """
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
        for k in range(self.args.d_steps_per_iter):
            x, y = next(batches)
            logs = self.d_update(x, y, iteration, self._rng("d", iteration, k, self.rank))
        for k in range(self.args.g_steps_per_iter):
            logs |= self.g_update(y, iteration, self._rng("g", iteration, k, self.rank))
        return logs

    def d_update(self, x, y, iteration, rng):
        """One Adam step of D on L_D (eq. 4), summed over micro-batches of `batch_size_in_gpu`
        images.
        """
        a, logs = self.args, {}
        self.opt_D.clear_grad()
        for part in self._micro_batches(len(y)):
            real, y_real, share = (
                paddle.to_tensor(x[part]),
                paddle.to_tensor(y[part]),
                len(y[part]) / len(y),
            )
            z, y_fake = self._latents(rng, y[part])
            with self._autocast():
                with paddle.no_grad():
                    fake = self.G(
                        z, y_fake
                    )  # G is fixed here; its BatchNorm and u, v move as in every training pass
                real, fake = (
                    self._noisy(rng, real, iteration),
                    self._noisy(rng, fake.astype("float32"), iteration),
                )
                d_real, d_fake = self.D(real, y_real), self.D(fake, y_fake)
            loss_real, loss_fake = d_losses(
                d_real.astype("float32"), d_fake.astype("float32"), a.adv_loss
            )
            loss = loss_real + loss_fake
            if a.adv_loss == "wgan_gp":
                mix = paddle.to_tensor(rng.random((len(y_real), 1, 1, 1), dtype=np.float32))
                loss = loss + a.lambda_gp * gradient_penalty(self.D, real, fake, y_real, mix)
            self.scaler_D.scale(loss * share).backward()
            _add(logs, share, d_loss=loss, d_loss_real=loss_real, d_loss_fake=loss_fake)
            _add(logs, share, D_real=d_real.mean(), D_fake=d_fake.mean())
        self._step(self.opt_D, self.scaler_D, self.params_D)
        return logs

    def g_update(self, y, iteration, rng):
        """One Adam step of G on L_G (eq. 4), D fixed; then G's exponential moving average."""
        a, logs = self.args, {}
        self.opt_G.clear_grad()
        _require_gradients(self.params_D, False)
        for part in self._micro_batches(len(y)):
            share = len(y[part]) / len(y)
            z, y_fake = self._latents(rng, y[part])
            with self._autocast():
                d_fake = self.D(self._noisy(rng, self.G(z, y_fake), iteration), y_fake)
            loss = g_loss(d_fake.astype("float32"), a.adv_loss)
            self.scaler_G.scale(loss * share).backward()
            _add(logs, share, g_loss=loss, D_fake_g=d_fake.mean())
        _require_gradients(self.params_D, True)
        self._step(self.opt_G, self.scaler_G, self.params_G)
        if self.G_ema is not None:
            ema_update(self.G_ema, self.G, a.ema_decay if iteration >= a.ema_start else 0.0)
        return logs

    def _micro_batches(self, n):
        size = self.args.batch_size_in_gpu or n
        return [slice(i, min(i + size, n)) for i in range(0, n, size)]

    def _step(self, optimizer, scaler, parameters):
        process.average_gradients(parameters)
        scaler.step(optimizer)
        scaler.update()

    def train(self, notes=()):
        """The loop: step, log, sample, evaluate, save, until `iterations`; `notes` are lines for
        the head of the log.

        Returns 0, or 128 + the signal that stopped it. Raises NotFinite when a loss is NaN.
        """
        a, last, logged = self.args, self.resumed_from, self.iteration
        with (
            StopSignals() as signals,
            closing(
                RunLog(
                    self.folder, a.iterations, self.iteration, self.iteration > 0, self.rank == 0
                )
            ) as log,
            self._batches() as batches,
        ):
            for note in [*notes, *self.notes]:
                log.info(note)
            if self.rank == 0:
                files.save_json(vars(a), self.folder / "args.json")
            if self.iteration >= a.iterations:
                log.info(
                    f"iteration {self.iteration} is done already: raise --iterations "
                    f"{a.iterations} to go on"
                )
            if a.eval_every and self.rank == 0:
                given = (a.real_stats, a.inception_weights, a.eval_samples)
                pictures = partial(self.data.pictures, a.skip_bad_images)
                self.evaluation = Evaluation(
                    self.folder, *given, pictures, len(self.data), log, self.iteration > 0
                )
            process.wait_for_all()
            for iteration in range(self.iteration, a.iterations):
                losses = self.train_step(iteration, batches)
                self.iteration = done = iteration + 1
                stop = signals.requested()
                sample, save = done % a.sample_every == 0, done % a.save_every == 0
                score = a.eval_every and done % a.eval_every == 0 and not stop
                last_step = stop or done == a.iterations
                if done % a.log_every == 0 or sample or score or save or last_step:
                    values = {name: float(value) for name, value in losses.items()}
                    check_finite(values | weight_sums(G=self.params_G, D=self.params_D), done, last)
                    log.row(
                        done,
                        values,
                        images=(done - logged) * a.batch_size * a.d_steps_per_iter * self.world,
                    )
                    logged = done
                    log.skipped(batches.skipped)
                if sample or score or save or last_step:
                    self._average_statistics()
                    if self.rank == 0:
                        if save or score or last_step:
                            last = self.save()
                        if sample or done == a.iterations:
                            self.sample(log)
                        if score:
                            self.evaluate(log)
                            self.save()  # once more, with the best scores so far
                    process.wait_for_all()
                if stop:
                    log.info(f"stopped after iteration {done}, saved {last}; go on with --resume")
                    return 128 + stop
        if a.max_frames_per_gif and self.rank == 0:
            join_samples(self.folder, a.max_frames_per_gif)
        return 0

    def _batches(self):
        a = self.args
        return Batches(
            self.data,
            a.batch_size,
            a.seed,
            start=self.iteration * a.d_steps_per_iter,
            rank=self.rank,
            world=self.world,
            workers=a.num_workers,
            shuffle=not a.dont_shuffle,
            drop_last=not a.dont_drop_last,
            skip_bad=a.skip_bad_images,
        )

    def generate(self, z, y):
        """Images uint8 (N, H, W, 3) of the EMA generator, or of G where the recipe has no EMA, in
        eval mode.
        """
        network = self.G if self.G_ema is None else self.G_ema
        network.eval()
        with paddle.no_grad():
            images = to_uint8(network(z, y).numpy())
        self.G.train()
        return images

    def sample(self, log):
        """Write samples/iter_*.png: one row a class (ten at most, evenly spaced), the same ten
        latents in each row.
        """
        n = self.arch.num_classes
        rows = [i * n // min(n, 10) for i in range(min(n, 10))]
        images = np.concatenate(
            [self.generate(self.fixed_z, paddle.full([10], y, "int64")) for y in rows]
        )
        picture = grid(images, 10, row_labels=[self.data.classes[y] for y in rows])
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        save_png(picture, folder / f"iter_{self.iteration:07d}.png")
        log.image("samples", picture, self.iteration)

    def evaluate(self, log):
        """FID and IS of `eval_samples` images against the real statistics; keeps the best of each
        as a checkpoint.
        """
        values, improved = self.evaluation.score(self._fakes(), self.iteration, self.best)
        log.row(self.iteration, values)
        for name in improved:
            checkpoint.save_best(self.folder / "checkpoints", name, self.state())

    def _fakes(self):
        """Batches of uint8 images, the same latents and uniform labels at every evaluation."""
        rng, a = self._rng("evaluate"), self.args
        for start in range(0, a.eval_samples, a.batch_size):
            n = min(a.batch_size, a.eval_samples - start)
            z = rng.standard_normal((n, a.z_dim), dtype=np.float32)
            yield self.generate(
                paddle.to_tensor(z), paddle.to_tensor(rng.integers(self.arch.num_classes, size=n))
            )

    def _average_statistics(self):
        """Each rank sees its own batches: average BatchNorm's running statistics before they are
        used or saved.
        """
        for network in (self.G, self.G_ema):
            if network is not None:
                process.average_buffers(network)

    def state(self):
        """Everything that a run needs to go on: the dict that a checkpoint holds."""
        state = {
            "generator": checkpoint.network_state(self.G),
            "discriminator": checkpoint.network_state(self.D),
            "optimizer_g": checkpoint.optimizer_state(self.opt_G, self.G),
            "optimizer_d": checkpoint.optimizer_state(self.opt_D, self.D),
            "scaler_g": self.scaler_G.state_dict(),
            "scaler_d": self.scaler_D.state_dict(),
            "iteration": self.iteration,
            "best": self.best,
            "architecture": self.arch.to_dict(),
            "classes": self.data.classes,
            "args": vars(self.args),
        }
        if self.G_ema is not None:
            state["generator_ema"] = checkpoint.network_state(self.G_ema)
        return state

    def save(self):
        """Save checkpoints/iter_*.pdparams and return its path."""
        a = self.args
        return checkpoint.save_checkpoint(
            self.folder / "checkpoints", self.iteration, self.state(), a.keep_checkpoints
        )

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (`convert.read_weights`): G, and D where the
        file has it.
        """
        _require(state, ["generator"], source)
        self._check_architecture(state, source)
        if "discriminator" not in state:
            self.notes.append(
                f"{source}: holds no discriminator; D starts from its initial weights"
            )
        average = state.get("generator_ema", state["generator"])
        weights.load_into(self.G, state["generator"], "generator", source)
        if "discriminator" in state:
            weights.load_into(self.D, state["discriminator"], "discriminator", source)
        if self.G_ema is not None:
            weights.load_into(self.G_ema, average, "generator_ema", source)

    def _check_architecture(self, state, source):
        """Networks of other semantics (eps, skip_relu, cBN) can have weights of the same shapes:
        never mix them.
        """
        theirs, ours = state.get("architecture"), self.arch.to_dict()
        if theirs is None:
            return
        told = [
            name
            for name in ours
            if name not in ("init", "bias_init", "imsize", "num_classes", "z_dim")
        ]
        told = [
            n
            for n in told
            if not n.endswith("conv_dim") and ("discriminator" in state or n not in D_ONLY)
        ]
        wrong = [
            f"{n} {theirs.get(n)} there, {ours[n]} here" for n in told if theirs.get(n) != ours[n]
        ]
        if wrong:
            raise UserError(
                f"{source}: weights of another network ({'; '.join(wrong)}). Give the --recipe "
                "they belong to"
            )

    def load(self, state, source):
        """Go on from a checkpoint of `state()`. Raises UserError when its networks are not
        these.
        """
        _require(
            state,
            [
                "generator",
                "discriminator",
                "optimizer_g",
                "optimizer_d",
                "scaler_g",
                "scaler_d",
                "best",
            ],
            source,
        )
        if state.get("classes") != self.data.classes:
            raise UserError(
                f"{source}: was trained on other classes than --data_path holds now: labels would "
                "change"
            )
        self.start_from(state, source)
        checkpoint.load_optimizer_state(self.opt_G, self.G, state["optimizer_g"], source)
        checkpoint.load_optimizer_state(self.opt_D, self.D, state["optimizer_d"], source)
        for scaler, saved in (
            (self.scaler_G, state["scaler_g"]),
            (self.scaler_D, state["scaler_d"]),
        ):
            if saved:  # empty without fp16
                scaler.load_state_dict(saved)
        self.iteration, self.best, self.resumed_from = state["iteration"], state["best"], source


def _add(logs, share, **values):
    """Add each value's share of the batch to the running means in `logs`."""
    for name, value in values.items():
        value = value.detach().astype("float32") * share
        logs[name] = logs[name] + value if name in logs else value


def _require(state, names, source):
    missing = [name for name in names if name not in state]
    if missing:
        raise UserError(
            f"{source}: not a checkpoint of SAGAN's training, it has no {', '.join(missing)}"
        )


def join_samples(folder, most):
    """Write samples.gif from the sample grids, `most` of them at the most, evenly spread over the
    run.
    """
    paths = sorted((folder / "samples").glob("iter_*.png"))
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), most)).astype(int)]
    if chosen:
        first, *others = [
            Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE) for path in chosen
        ]
        with files.atomic_path(folder / "samples.gif") as temporary:
            first.save(
                temporary, format="GIF", save_all=True, append_images=others, duration=200, loop=0
            )


def _require_gradients(parameters, wanted):
    for p in parameters:
        p.stop_gradient = not wanted
