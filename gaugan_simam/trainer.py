"""GauGAN's losses, its two updates and the training loop (Park et al., CVPR 2019, sec. 3 and
appendix A).
"""

import copy
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F

from model import Architecture, semantics, sync_note
from shared_metrics import files, process, weights
from shared_metrics.errors import UserError
from shared_metrics.images import grid, save_png, to_uint8
from shared_metrics.runs import checkpoint
from shared_metrics.runs.ema import ema_update
from shared_metrics.runs.evaluation import Evaluation
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.log import Means, RunLog
from shared_metrics.runs.stop import StopSignals, check_finite, weight_sums
from vgg import perceptual_loss

PANELS = 8  # label maps that every sample sheet shows
RESIZABLE = (
    "crop_size",
    "aspect_ratio",
)  # fields of Architecture that new training may change: G is convolutional


def gan_loss(outputs, kind, real, for_D):
    """One adversarial loss, the mean over D's scales; of each output of D, its last entry, the
    logits, counts.

    Args: outputs, D's for one kind of images; real, whether D should call them real; for_D, False
        for G's loss.
    hinge (Lim and Ye 2017; SPADE sec. 3): E[max(0, 1 - D)] or E[max(0, 1 + D)]; for G -E[D].
        original (Goodfellow et
    al. 2014): -E[log s(D)] or -E[log(1 - s(D))], s the logistic function. ls (Mao et al. 2017):
    E[(D - 1)^2] or E[D^2].
    w (Arjovsky et al. 2017): -E[D] or E[D].
    """
    sign = 1.0 if real else -1.0
    losses = []
    for logits in (scale[-1].astype("float32") for scale in outputs):
        if kind == "hinge" and for_D:
            losses.append(F.relu(1.0 - sign * logits).mean())
        elif kind == "original":
            losses.append(F.softplus(-sign * logits).mean())
        elif kind == "ls":
            losses.append((logits - float(real)).square().mean())
        else:
            losses.append(-sign * logits.mean())
    return sum(losses) / len(losses)


def feature_loss(fake, real):
    """Feature matching (Wang et al., pix2pixHD, CVPR 2018, eq. 4): mean|D_k(fake) - D_k(real)| summed over all blocks
    of D but the logits, averaged over the scales. No gradient reaches real. fake, real: outputs of
        D.
    """
    pairs = [
        (f, r)
        for scales in zip(fake, real, strict=True)
        for f, r in zip(*(s[:-1] for s in scales), strict=True)
    ]
    return sum(
        (f.astype("float32") - r.detach().astype("float32")).abs().mean() for f, r in pairs
    ) / len(fake)


def kl_loss(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over batch and dimensions (SPADE appendix A; Kingma, Welling 2014)."""
    return -0.5 * (1.0 + logvar - mu.square() - logvar.exp()).sum()


def split(outputs, n):
    """D's outputs on a joined batch, fake first, as (those on the n fakes, those on the real
    images).
    """
    return [[h[:n] for h in scale] for scale in outputs], [
        [h[n:] for h in scale] for scale in outputs
    ]


def colourise(labels):
    """Ids (..., H, W) -> uint8 (..., H, W, 3), the palette of PASCAL VOC: id 0 is black, ids repeat
    after 256.
    """
    ids, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(
        8
    ):  # bits 0, 3, 6 are red's, 1, 4, 7 green's, 2, 5 blue's, the lowest the most weighty
        colours[:, bit % 3] |= ((ids >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours[np.asarray(labels) % 256]


class Part(NamedTuple):
    """A micro-batch on the device, and its share of the whole batch."""

    seg: paddle.Tensor  # (n, semantic_nc, H, W)
    real: paddle.Tensor  # (n, 3, H, W)
    noise: paddle.Tensor  # (n, z_dim)
    share: float


class Trainer:
    """Trains G, D and, with use_vae, the encoder E; `args`: the flags of train.py, `arch`:
    `model.Architecture`.

    Args: dataset, `dataset.PairFolder` to train on; held_out, its like without randomness for
        sample sheets and scores; encoder, None without use_vae; vgg, None without perceptual loss
        (args.lambda_vgg 0).
    """

    def __init__(
        self, generator, discriminator, arch, args, dataset, held_out, encoder=None, vgg=None
    ):
        self.G, self.D, self.E, self.vgg, self.arch, self.args = (
            generator,
            discriminator,
            encoder,
            vgg,
            arch,
            args,
        )
        self.data, self.held_out = dataset, held_out
        self.iteration, self.best, self.resumed_from = 0, {}, None
        self.notes = [sync_note(arch)] if sync_note(arch) else []
        self.rank, self.world = process.rank(), process.world_size()
        self.folder = Path(args.output_dir)
        self.per_epoch = max(1, len(dataset) // (args.batch_size * self.world))
        self.total = (
            args.iterations or (args.epochs or args.niter + args.niter_decay) * self.per_epoch
        )
        process.broadcast_layers(self.G, self.D, *([self.E] if self.E else []))
        self.G_ema = copy.deepcopy(self.G) if args.ema_decay else None
        trained = {"generator": self.G, "encoder": self.E} if self.E else {"generator": self.G}
        self.G_and_E = paddle.nn.LayerDict(trained)  # what G's optimizer updates
        self.params_G = [p for p in self.G_and_E.parameters() if not p.stop_gradient]
        self.params_D = [p for p in self.D.parameters() if not p.stop_gradient]
        moments = {"beta1": args.beta1, "beta2": args.beta2}
        self.opt_G = paddle.optimizer.Adam(args.g_lr, parameters=self.params_G, **moments)
        self.opt_D = paddle.optimizer.Adam(args.d_lr, parameters=self.params_D, **moments)
        self.scaler_G, self.scaler_D = (
            paddle.amp.GradScaler(enable=args.amp == "fp16") for _ in range(2)
        )
        self.evaluation = None

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def _autocast(self):
        dtype = {"fp16": "float16", "bf16": "bfloat16"}.get(self.args.amp, "float16")
        return paddle.amp.auto_cast(enable=self.args.amp != "none", dtype=dtype, level="O1")

    def decay(self):
        """(first iteration, number) of those in which the rates fall linearly to 0; number 0:
        never.
        """
        a = self.args
        if a.decay_iterations:
            return self.total - a.decay_iterations, a.decay_iterations
        return a.niter * self.per_epoch, a.niter_decay * self.per_epoch

    def _set_rates(self, iteration):
        first, number = self.decay()
        if number:
            share = min(1.0, max(0.0, 1.0 - (iteration - first) / number))
            self.opt_G.set_lr(self.args.g_lr * share)
            self.opt_D.set_lr(self.args.d_lr * share)

    def train_step(self, iteration, labels, instances, photos):
        """One update of G (and E), then one of D on the same generated images; G every
        `D_steps_per_G`-th time only.

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            labels and instances (N, H, W) int64, photos (N, 3, H, W) float32 in [-1, 1], arrays.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        self._set_rates(iteration)
        rng = self._rng("step", iteration, self.rank)
        paddle.seed(int(rng.integers(2**31)))
        noise = rng.standard_normal((len(photos), self.arch.z_dim), dtype=np.float32)
        parts = self._parts(labels, instances, photos, noise)
        if iteration % self.args.D_steps_per_G == 0:
            fakes, logs = self.g_update(parts)
            if self.G_ema is not None:
                ema_update(
                    self.G_ema,
                    self.G,
                    self.args.ema_decay if iteration >= self.args.ema_start else 0.0,
                )
        else:
            with paddle.no_grad(), self._autocast():
                fakes, logs = [self.G(p.seg, self.latent(p)[0]) for p in parts], {}
        return logs | self.d_update(parts, fakes)

    def _parts(self, labels, instances, photos, noise):
        """The batch in `accumulate` micro-batches (fewer, where it has not as many images)."""
        n, parts = len(photos), []
        for k in np.array_split(np.arange(n), min(self.args.accumulate, n)):
            seg = semantics(labels[k], instances[k], self.arch)
            parts.append(
                Part(seg, paddle.to_tensor(photos[k]), paddle.to_tensor(noise[k]), len(k) / n)
            )
        return parts

    def latent(self, part):
        """z = mu + noise * exp(logvar / 2) of the photos, and its KL loss; (None, None) without
        encoder.
        """
        if self.E is None:
            return None, None
        mu, logvar = (h.astype("float32") for h in self.E(part.real))
        return mu + part.noise * (0.5 * logvar).exp(), kl_loss(mu, logvar)

    def _discriminate(self, part, fake):
        """D's outputs on fake and on real images, from one joined batch, fake first, as the
        originals.
        """
        seg, images = (
            paddle.concat([part.seg, part.seg]),
            paddle.concat([fake.astype("float32"), part.real]),
        )
        return split(self.D(paddle.concat([seg, images], 1)), len(fake))

    def g_update(self, parts):
        """One Adam step of G and E on L_G = GAN + lambda_feat FM + lambda_vgg VGG + lambda_kld KL,
        D fixed.

        Args: parts, the batch as `_parts` makes it: gradients are those of the whole batch,
            BatchNorm and spectral norm apart, which see the parts one after the other. Returns: the
                generated images of each part; losses.
        """
        a, fakes, logs = self.args, [], {}
        self.opt_G.clear_grad()
        _require_gradients(self.params_D, False)
        for part in parts:
            with self._autocast():
                z, kl = self.latent(part)
                fake = self.G(part.seg, z)
                d_fake, d_real = self._discriminate(part, fake)
                losses = {"g_ganloss": gan_loss(d_fake, a.gan_mode, True, for_D=False)}
                losses["g_featloss"] = a.lambda_feat * feature_loss(d_fake, d_real)
                if self.vgg is not None:
                    losses["g_vggloss"] = a.lambda_vgg * perceptual_loss(
                        self.vgg, fake, part.real, a.vgg_size
                    )
            losses = {name: part.share * loss for name, loss in losses.items()}
            if kl is not None:  # a sum over the batch, not a mean
                losses["kldloss"] = a.lambda_kld * kl
            self.scaler_G.scale(sum(losses.values())).backward()
            logs |= {name: logs.get(name, 0.0) + loss.detach() for name, loss in losses.items()}
            fakes.append(fake.detach())
        _require_gradients(self.params_D, True)
        self._step(self.opt_G, self.scaler_G, self.params_G)
        return fakes, logs

    def d_update(self, parts, fakes):
        """One Adam step of D on the two halves of its adversarial loss; `fakes`: images of each
        part, detached.
        """
        logs = {}
        self.opt_D.clear_grad()
        for part, fake in zip(parts, fakes, strict=True):
            with self._autocast():
                d_fake, d_real = self._discriminate(part, fake.detach())
            losses = {
                "df_ganloss": part.share * gan_loss(d_fake, self.args.gan_mode, False, for_D=True)
            }
            losses["dr_ganloss"] = part.share * gan_loss(
                d_real, self.args.gan_mode, True, for_D=True
            )
            self.scaler_D.scale(sum(losses.values())).backward()
            logs |= {name: logs.get(name, 0.0) + loss.detach() for name, loss in losses.items()}
        self._step(self.opt_D, self.scaler_D, self.params_D)
        return logs

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
            closing(
                RunLog(self.folder, self.total, self.iteration, self.iteration > 0, self.rank == 0)
            ) as log,
            self._batches() as batches,
        ):
            self._begin(log, notes)
            for iteration in range(self.iteration, self.total):
                means.add(self.train_step(iteration, *next(batches)))
                self.iteration = done = iteration + 1
                stop = signals.requested()
                save, sample = done % a.save_every == 0, done % a.sample_every == 0
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
                    process.wait_for_all()
                if stop:
                    log.info(f"stopped after iteration {done}, saved {last}; go on with --resume")
                    return 128 + stop
        return 0

    def _begin(self, log, notes):
        """The head of the log, args.json and all that scoring needs."""
        a = self.args
        for note in [*notes, *self.notes]:
            log.info(note)
        if self.rank == 0:
            files.save_json(vars(a), self.folder / "args.json")
        if self.iteration >= self.total:
            log.info(
                f"iteration {self.iteration} is done already: raise --iterations or --niter to go "
                "on"
            )
        if a.eval_every and self.rank == 0:
            given = (a.real_stats, a.inception_weights, min(a.eval_samples, len(self.held_out)))
            real = (self.held_out.pictures, len(self.held_out))
            self.evaluation = Evaluation(self.folder, *given, *real, log, self.iteration > 0)
        process.wait_for_all()

    def _batches(self):
        a = self.args
        place = (self.iteration, self.rank, self.world, a.num_workers)
        return Batches(self.data, a.batch_size, a.seed, *place, skip_bad=a.skip_bad_images)

    def generate(self, labels, instances, noise):
        """Images uint8 (N, H, W, 3) of the averaged G, or of G without --ema_decay, in eval mode.

        labels, instances (N, H, W) int64; noise (N, z_dim) float32, the latents with use_vae, else
        of no effect.
        """
        network = self.G if self.G_ema is None else self.G_ema
        network.eval()
        with paddle.no_grad():
            seg, z = (
                semantics(labels, instances, self.arch),
                paddle.to_tensor(noise) if self.arch.use_vae else None,
            )
            images = to_uint8(network(seg, z).numpy())
        network.train()
        return images

    def _drawn(self, indices):
        """(labels, generated images, photos) of these held-out pairs, the same latents each
        time.
        """
        items = [self.held_out.load(int(i)) for i in indices]
        labels, instances, photos = (np.stack(part) for part in zip(*items, strict=True))
        noise = [
            self._rng("latent", int(i)).standard_normal(self.arch.z_dim, dtype=np.float32)
            for i in indices
        ]
        return labels, self.generate(labels, instances, np.stack(noise)), to_uint8(photos)

    def sample(self, log):
        """Write samples/iter_*.png: label map, generated image and photo of the same pairs each
        time, a row each.
        """
        rows = []
        for i in np.unique(np.linspace(0, len(self.held_out) - 1, PANELS).astype(int)):
            labels, images, photos = self._drawn([i])
            rows += [colourise(labels)[0], images[0], photos[0]]
        picture = grid(np.stack(rows), 3, column_labels=["label", "generated", "real"])
        path = self.folder / "samples" / f"iter_{self.iteration:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(picture, path)
        log.image("samples", picture, self.iteration)

    def evaluate(self, log):
        """FID (and IS) of images of the held-out maps against the real statistics; keeps the best
        as a checkpoint.
        """
        values, improved = self.evaluation.score(self._fakes(), self.iteration, self.best)
        log.row(self.iteration, values)
        for name in improved:
            checkpoint.save_best(self.folder / "checkpoints", name, self.state())

    def _fakes(self):
        """Batches of uint8 images, the same maps and latents at every evaluation."""
        number, size = min(self.args.eval_samples, len(self.held_out)), self.args.batch_size
        for start in range(0, number, size):
            yield self._drawn(range(start, min(start + size, number)))[1]

    def _average_statistics(self):
        """Each rank sees its own batches: average BatchNorm's running statistics before they are
        used or saved.
        """
        for network in filter(None, (self.G, self.G_ema, self.D)):
            process.average_buffers(network)

    def state(self):
        """Everything that a run needs to go on: the dict that a checkpoint holds."""
        state = {
            "generator": checkpoint.network_state(self.G),
            "discriminator": checkpoint.network_state(self.D),
            "optimizer_g": checkpoint.optimizer_state(self.opt_G, self.G_and_E),
            "optimizer_d": checkpoint.optimizer_state(self.opt_D, self.D),
            "scaler_g": self.scaler_G.state_dict(),
            "scaler_d": self.scaler_D.state_dict(),
            "iteration": self.iteration,
            "batches_per_epoch": self.per_epoch,
            "best": self.best,
            "architecture": self.arch.to_dict(),
            "args": vars(self.args),
        }
        others = {"generator_ema": self.G_ema, "encoder": self.E}
        return state | {
            name: checkpoint.network_state(net) for name, net in others.items() if net is not None
        }

    def save(self):
        """Save checkpoints/iter_*.pdparams and return its path."""
        given = (
            self.folder / "checkpoints",
            self.iteration,
            self.state(),
            self.args.keep_checkpoints,
        )
        return checkpoint.save_checkpoint(*given)

    def start_from(self, state, source, may_differ=RESIZABLE):
        """Begin with the networks in `state` (`convert.read_weights`): of G, and of D and E where
        it has them.

        Raises: UserError when they are not these networks. Args: may_differ, fields of Architecture
            that may differ.
        """
        theirs, ours = state["architecture"], self.arch.to_dict()
        names = [f.name for f in fields(Architecture) if f.name not in may_differ]
        wrong = [
            f"{n} {theirs[n]} there, {ours[n]} here"
            for n in names
            if not _alike(theirs[n], ours[n])
        ]
        if wrong:
            raise UserError(
                f"{source}: weights of another network ({'; '.join(wrong)}). Give the flags they "
                "belong to"
            )
        for name, network in (
            ("generator", self.G),
            ("discriminator", self.D),
            ("encoder", self.E),
        ):
            if network is not None and name in state:
                weights.load_into(network, state[name], name, source)
            elif network is not None:
                self.notes.append(f"{source}: holds no {name}; it starts from its initial weights")
        if self.G_ema is not None:
            weights.load_into(
                self.G_ema, state.get("generator_ema", state["generator"]), "generator_ema", source
            )

    def load(self, state, source):
        """Go on from a checkpoint of `state()`. Raises UserError when its networks are not
        these.
        """
        parts = [
            "architecture",
            "generator",
            "discriminator",
            "optimizer_g",
            "optimizer_d",
            "scaler_g",
            "scaler_d",
        ]
        missing = [
            name for name in [*parts, "best", *(["encoder"] if self.E else [])] if name not in state
        ]
        if missing:
            raise UserError(
                f"{source}: not a checkpoint of GauGAN's training, it has no {', '.join(missing)}"
            )
        self.go_on(state, source)
        for scaler, saved in (
            (self.scaler_G, state["scaler_g"]),
            (self.scaler_D, state["scaler_d"]),
        ):
            if saved:  # empty without fp16
                scaler.load_state_dict(saved)
        self.best = state["best"]

    def go_on(self, state, source):
        """Take over networks, Adam's state where there is one, and the iteration:
        `engine.read_engine` has no more.
        """
        self.start_from(state, source, may_differ=())
        if "optimizer_g" in state:
            checkpoint.load_optimizer_state(self.opt_G, self.G_and_E, state["optimizer_g"], source)
        if "optimizer_d" in state:
            checkpoint.load_optimizer_state(self.opt_D, self.D, state["optimizer_d"], source)
        self.iteration, self.resumed_from = state["iteration"], source


def _alike(a, b):
    """Whether two fields of Architecture mean the same weights; synchronised BatchNorm is
    BatchNorm.
    """
    return a == b or (
        isinstance(a, str)
        and a.replace("syncbatch", "batch") == str(b).replace("syncbatch", "batch")
    )


def _require_gradients(parameters, wanted):
    for p in parameters:
        p.stop_gradient = not wanted
