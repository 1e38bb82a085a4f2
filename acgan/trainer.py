"""AC-GAN's losses, its two updates and the training loop (Odena, Olah, Shlens, ICML 2017, sec.
3).
"""

import copy
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from model import with_labels
from shared_metrics import files, process, weights
from shared_metrics.errors import UserError
from shared_metrics.images import grid, save_png, to_uint8
from shared_metrics.runs import checkpoint
from shared_metrics.runs.ema import ema_update
from shared_metrics.runs.evaluation import Evaluation
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.log import Means, RunLog
from shared_metrics.runs.stop import StopSignals, check_finite, weight_sums


def source_loss(logits, real):
    """-E[log P(S = real)] or -E[log P(S = fake)] from D's source logits (N,): one half of -L_S (eq.
    2).
    """
    return F.softplus(-logits if real else logits).mean()


def class_loss(logits, y, kind):
    """-L_C on one batch (eq. 3) from D's class logits (N, C) and labels y (N,).

    cross_entropy: -E[log P(C = y)], the paper's. linear: -E[P(C = y)], what both reproductions
        minimise, since they
    give softmax's probabilities to a loss that expects their logarithms; bounded by -1, flat where
    P(C = y) is near 0.
    """
    if kind == "cross_entropy":
        return F.cross_entropy(logits, y)
    return -(F.softmax(logits, axis=1) * F.one_hot(y, logits.shape[1])).sum(1).mean()


def accuracy(logits, y):
    """Share of the batch whose largest class logit (N, C) is that of y (N,)."""
    return (logits.argmax(1) == y).astype("float32").mean()


class Trainer:
    """Trains one generator and one discriminator; `args`: the flags of train.py, `arch`:
    `model.Architecture`.

    `held_out` is None or a data set of the same classes, on which D's class accuracy is logged with
    each sample grid.
    """

    def __init__(self, generator, discriminator, arch, args, dataset, held_out=None):
        self.G, self.D, self.arch, self.args = generator, discriminator, arch, args
        self.data, self.held_out = dataset, held_out
        self.iteration, self.best, self.resumed_from, self.notes = 0, {}, None, []
        self.rank, self.world = process.rank(), process.world_size()
        self.folder, self.checkpoints = Path(args.output_dir), Path(args.check_path)
        self.per_epoch = max(1, len(dataset) // (args.batch_size * self.world))
        self.total = args.iterations or args.niter * self.per_epoch
        self.fixed_noise = self._rng("grid").standard_normal((10, arch.nz), dtype=np.float32)
        process.broadcast_layers(self.G, self.D)
        self.G_ema = copy.deepcopy(self.G) if args.ema_decay else None
        self.params_G = [p for p in self.G.parameters() if not p.stop_gradient]
        self.params_D = [p for p in self.D.parameters() if not p.stop_gradient]
        self.opt_G = self._adam(args.lr if args.g_lr is None else args.g_lr, self.params_G)
        self.opt_D = self._adam(args.lr if args.d_lr is None else args.d_lr, self.params_D)
        self.scaler_G, self.scaler_D = (
            paddle.amp.GradScaler(enable=args.amp == "fp16") for _ in range(2)
        )
        self.evaluation = None

    def _adam(self, lr, parameters):
        a = self.args
        return paddle.optimizer.Adam(lr, beta1=a.beta1, beta2=a.beta2, parameters=parameters)

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def _autocast(self):
        dtype = {"fp16": "float16", "bf16": "bfloat16"}.get(self.args.amp, "float16")
        return paddle.amp.auto_cast(enable=self.args.amp != "none", dtype=dtype, level="O1")

    def train_step(self, iteration, x, y):
        """One update of D, then one of G, on the same generated images (sec. 3).

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step; x
            (N, 3, S, S) float32 in [-1, 1] and y (N,) int64, arrays of real images and their
            classes.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        rng = self._rng("step", iteration, self.rank)
        paddle.seed(int(rng.integers(2**31)))  # dropout and activation noise
        y_fake = rng.integers(
            self.arch.num_classes, size=len(y)
        )  # c ~ p_c: uniform, whatever the real batch holds
        noise = rng.standard_normal((len(y), self.arch.nz), dtype=np.float32)
        z = paddle.to_tensor(with_labels(noise, y_fake, self.arch.num_classes))
        x, y, y_fake = paddle.to_tensor(x), paddle.to_tensor(y), paddle.to_tensor(y_fake)
        with self._autocast():
            fake = self.G(z)  # X_fake = G(c, z)
        logs = self.d_update(x, y, fake.detach(), y_fake) | self.g_update(fake, y_fake)
        if self.G_ema is not None:
            ema_update(
                self.G_ema, self.G, self.args.ema_decay if iteration >= self.args.ema_start else 0.0
            )
        return logs

    def d_update(self, real, y, fake, y_fake):
        """One Adam step of D, which maximises L_S + L_C (eq. 2, 3); real and fake pass D apart,
        each a batch.

        With args.class_on "real", L_C is of the real images alone.
        """
        self.opt_D.clear_grad()
        with self._autocast():
            (s_real, c_real), (s_fake, c_fake) = self.D(real), self.D(fake)
        s_real, c_real, s_fake, c_fake = (
            t.astype("float32") for t in (s_real, c_real, s_fake, c_fake)
        )
        loss_s = source_loss(s_real, True) + source_loss(s_fake, False)
        loss_c = class_loss(c_real, y, self.args.class_loss)
        if self.args.class_on == "both":
            loss_c = loss_c + class_loss(c_fake, y_fake, self.args.class_loss)
        loss = loss_s + loss_c
        self.scaler_D.scale(loss).backward()
        self._step(self.opt_D, self.scaler_D, self.params_D)
        logs = {"D_loss": loss, "D_loss_S": loss_s, "D_loss_C": loss_c, "Acc": accuracy(c_real, y)}
        logs |= {"Acc_fake": accuracy(c_fake, y_fake), "D_x": F.sigmoid(s_real).mean()}
        return {
            name: value.detach()
            for name, value in (logs | {"D_G_z1": F.sigmoid(s_fake).mean()}).items()
        }

    def g_update(self, fake, y_fake):
        """One Adam step of G, which maximises L_C - L_S (eq. 2, 3) by making D say "real" and the
        class.

        Of L_S it raises E[log P(S = real | X_fake)] instead of lowering E[log P(S = fake | X_fake)], which is flat
        while D knows the fakes; so do both reproductions.
        """
        self.opt_G.clear_grad()
        _require_gradients(self.params_D, False)
        with self._autocast():
            s_fake, c_fake = self.D(fake)
        s_fake, c_fake = s_fake.astype("float32"), c_fake.astype("float32")
        loss = source_loss(s_fake, True) + class_loss(c_fake, y_fake, self.args.class_loss)
        self.scaler_G.scale(loss).backward()
        _require_gradients(self.params_D, True)
        self._step(self.opt_G, self.scaler_G, self.params_G)
        return {"G_loss": loss.detach(), "D_G_z2": F.sigmoid(s_fake).mean().detach()}

    def _step(self, optimizer, scaler, parameters):
        process.average_gradients(parameters)
        scaler.step(optimizer)
        scaler.update()

    def train(self, notes=()):
        """The loop: step, log, sample, evaluate, save, until the last iteration; `notes` are lines
        for the log's head.

        Logged values are means since the last row. Returns 0, or 128 + the signal that stopped it.
        Raises NotFinite when a loss is NaN.
        """
        a, last, means = self.args, self.resumed_from, Means()
        with (
            StopSignals() as signals,
            closing(self._open_log()) as log,
            self._batches() as batches,
        ):
            self._begin(log, notes)
            for iteration in range(self.iteration, self.total):
                means.add(self.train_step(iteration, *next(batches)))
                self.iteration = done = iteration + 1
                stop = signals.requested()
                save, sample = self._due(a.save_every), self._due(a.sample_every)
                score = a.eval_every and done % a.eval_every == 0 and not stop
                last_step = stop or done == self.total
                if done % a.log_every == 0 or sample or score or save or last_step:
                    images = means.steps * a.batch_size * self.world
                    values = means.take()
                    check_finite(values | weight_sums(G=self.params_G, D=self.params_D), done, last)
                    log.row(done, values, images=images)
                    log.skipped(batches.skipped)
                if sample or score or save or last_step:
                    self._average_statistics()
                    if self.rank == 0:
                        if save or score or last_step:
                            last = self.save()
                        if sample or done == self.total:
                            self.sample(log)
                        if score:
                            self.evaluate(log)
                            self.save()  # once more, with the best scores so far
                        if done == self.total:
                            self.sample_classes()
                    process.wait_for_all()
                if stop:
                    log.info(f"stopped after iteration {done}, saved {last}; go on with --resume")
                    return 128 + stop
        return 0

    def _open_log(self):
        going_on, visualdl = self.iteration > 0, self.args.log_path
        return RunLog(self.folder, self.total, self.iteration, going_on, self.rank == 0, visualdl)

    def _begin(self, log, notes):
        """The head of the log, args.json, the grid of real images, and all that scoring needs."""
        a = self.args
        for note in [*notes, *self.notes]:
            log.info(note)
        if self.rank == 0:
            files.save_json(vars(a), self.folder / "args.json")
            self.show_real(log)
        if self.iteration >= self.total:
            log.info(
                f"iteration {self.iteration} is done already: raise --niter or --iterations to go "
                "on"
            )
        if a.eval_every and self.rank == 0:
            given = (a.real_stats, a.inception_weights, a.eval_samples)
            pictures = partial(self.data.pictures, a.skip_bad_images)
            self.evaluation = Evaluation(
                self.folder, *given, pictures, len(self.data), log, self.iteration > 0
            )
        process.wait_for_all()

    def _due(self, every):
        """Whether to save or sample now: every so many iterations, or, for 0, after the epochs 0,
        save_freq, ...
        """
        if every:
            return self.iteration % every == 0
        epochs, rest = divmod(self.iteration, self.per_epoch)
        return rest == 0 and (epochs - 1) % self.args.save_freq == 0

    def _batches(self):
        a = self.args
        return Batches(
            self.data,
            a.batch_size,
            a.seed,
            start=self.iteration,
            rank=self.rank,
            world=self.world,
            workers=a.num_workers,
            skip_bad=a.skip_bad_images,
        )

    def generate(self, noise, y):
        """Images uint8 (N, S, S, 3) of the averaged G, or of G without --ema_decay, in eval mode.

        noise (N, nz) float32, y (N,) integers.
        """
        network = self.G if self.G_ema is None else self.G_ema
        network.eval()
        with paddle.no_grad():
            images = to_uint8(
                network(paddle.to_tensor(with_labels(noise, y, self.arch.num_classes))).numpy()
            )
        self.G.train()
        return images

    def show_real(self, log):
        """Write real_samples.png: one row a class (ten at most), ten of its images; to compare the
        grids with.
        """
        labels, cells = np.asarray(self.data.labels), []
        for y in self._rows():
            images = [
                x for x, _ in islice(self._readable(self.data, np.flatnonzero(labels == y)), 10)
            ]
            cells += (images * 10)[:10] or [
                np.zeros((3, self.arch.imsize, self.arch.imsize), np.float32)
            ] * 10
        picture = grid(
            to_uint8(np.stack(cells)), 10, row_labels=[self.data.classes[y] for y in self._rows()]
        )
        self._save_picture(picture, Path(self.args.result_path) / "real_samples.png")
        log.image("real", picture, self.iteration)

    def sample(self, log):
        """Write iter_*.png: one row a class (ten at most), the same ten latents in each row; log
        held-out accuracy.
        """
        rows = self._rows()
        images = np.concatenate([self.generate(self.fixed_noise, np.full(10, y)) for y in rows])
        picture = grid(images, 10, row_labels=[self.data.classes[y] for y in rows])
        self._save_picture(picture, Path(self.args.result_path) / f"iter_{self.iteration:07d}.png")
        log.image("samples", picture, self.iteration)
        if self.held_out is not None:
            log.row(self.iteration, {"Acc_held_out": self.held_out_accuracy()})

    def sample_classes(self):
        """Write class_results/<class>.png, a hundred images of each class."""
        noise = self._rng("classes").standard_normal((100, self.arch.nz), dtype=np.float32)
        for y, name in enumerate(self.data.classes):
            picture = grid(self.generate(noise, np.full(100, y)), 10)
            self._save_picture(picture, Path(self.args.class_result_path) / f"{name}.png")

    def _rows(self):
        n = self.arch.num_classes
        return [i * n // min(n, 10) for i in range(min(n, 10))]

    @staticmethod
    def _save_picture(picture, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(picture, path)

    def held_out_accuracy(self, most=1000):
        """D's class accuracy, in eval mode, on up to `most` held-out images spread over the
        classes.
        """
        chosen = np.linspace(0, len(self.held_out) - 1, min(most, len(self.held_out))).astype(int)
        items, right, seen = self._readable(self.held_out, chosen), 0, 0
        self.D.eval()
        while batch := list(islice(items, self.args.batch_size)):
            x, y = (np.stack(part) for part in zip(*batch, strict=True))
            with paddle.no_grad():
                right += int((self.D(paddle.to_tensor(x))[1].numpy().argmax(1) == y).sum())
            seen += len(batch)
        self.D.train()
        return right / seen if seen else float("nan")

    def _readable(self, data, indices):
        """Items of a data set one by one; --skip_bad_images leaves out those that cannot be
        read.
        """
        for i in indices:
            try:
                yield data.load(int(i), self._rng("show", int(i)))
            except UserError:
                if not self.args.skip_bad_images:
                    raise

    def evaluate(self, log):
        """FID and IS of `eval_samples` images against the real statistics; keeps the best of each
        as a checkpoint.
        """
        values, improved = self.evaluation.score(self._fakes(), self.iteration, self.best)
        log.row(self.iteration, values)
        for name in improved:
            checkpoint.save_best(self.checkpoints, name, self.state())

    def _fakes(self):
        """Batches of uint8 images, the same latents and uniform labels at every evaluation."""
        rng, a = self._rng("evaluate"), self.args
        for start in range(0, a.eval_samples, a.batch_size):
            n = min(a.batch_size, a.eval_samples - start)
            noise = rng.standard_normal((n, self.arch.nz), dtype=np.float32)
            yield self.generate(noise, rng.integers(self.arch.num_classes, size=n))

    def _average_statistics(self):
        """Each rank sees its own batches: average BatchNorm's running statistics before they are
        used or saved.
        """
        for network in (self.G, self.G_ema, self.D):
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
            "batches_per_epoch": self.per_epoch,
            "best": self.best,
            "architecture": self.arch.to_dict(),
            "classes": self.data.classes,
            "class_indices": self.data.class_indices,
            "class_total": self.data.class_total,
            "args": vars(self.args),
        }
        if self.G_ema is not None:
            state["generator_ema"] = checkpoint.network_state(self.G_ema)
        return state

    def save(self):
        """Save iter_*.pdparams and return its path."""
        return checkpoint.save_checkpoint(
            self.checkpoints, self.iteration, self.state(), self.args.keep_checkpoints
        )

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (`convert.read_weights`): of G, D or both."""
        theirs, ours = state.get("architecture", {}), self.arch.to_dict()
        fields = (
            ("form", "fc_relu") if "generator" in state else ("form",)
        )  # fc_relu says nothing of D
        wrong = [
            f"{n} {theirs[n]} there, {ours[n]} here"
            for n in fields
            if theirs.get(n, ours[n]) != ours[n]
        ]
        if wrong:
            raise UserError(
                f"{source}: weights of another network ({'; '.join(wrong)}). Give the --recipe "
                "they belong to"
            )
        for name, network in (("generator", self.G), ("discriminator", self.D)):
            if name in state:
                weights.load_into(network, state[name], name, source)
            else:
                self.notes.append(f"{source}: holds no {name}; it starts from its initial weights")
        if self.G_ema is not None and "generator" in state:
            weights.load_into(
                self.G_ema, state.get("generator_ema", state["generator"]), "generator_ema", source
            )

    def load(self, state, source):
        """Go on from a checkpoint of `state()`. Raises UserError when its networks or classes are
        not these.
        """
        parts = [
            "generator",
            "discriminator",
            "optimizer_g",
            "optimizer_d",
            "scaler_g",
            "scaler_d",
            "best",
        ]
        missing = [name for name in parts if name not in state]
        if missing:
            raise UserError(
                f"{source}: not a checkpoint of ACGAN's training, it has no {', '.join(missing)}"
            )
        if state.get("classes") != self.data.classes:
            raise UserError(
                f"{source}: was trained on other classes than --dataroot and --classes choose now"
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


def _require_gradients(parameters, wanted):
    for p in parameters:
        p.stop_gradient = not wanted
