"""GauGAN's losses, its two updates and the training loop (Park et al., CVPR 2019, sec. 3 and
appendix A).
"""

import copy
import math

import numpy as np
import paddle
import paddle.nn.functional as F

from model import semantics
from shared_metrics import process
from shared_metrics.images import grid, to_uint8
from shared_metrics.inference import Runner
from shared_metrics.runs.ema import ema_update
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update
from vgg import perceptual_loss

PANELS = 8  # label maps that every sample sheet shows
# Fields of Architecture that new training may change: G and D are convolutional.
RESIZABLE = ("crop_size", "aspect_ratio")


def gan_loss(outputs, kind, real, for_D):
    """One half of the adversarial loss, the mean over D's scales.

    hinge (Lim and Ye 2017; SPADE sec. 3): E[max(0, 1 - D)] or E[max(0, 1 + D)]; for G -E[D].
    original (Goodfellow et al. 2014, eq. 1): -E[log s(D)] or -E[log(1 - s(D))], s the logistic
        function.
    ls (Mao et al. 2017, eq. 2, without its 1/2): E[(D - 1)^2] or E[D^2].
    w (Arjovsky et al. 2017, eq. 2): -E[D] or E[D].
    Args: outputs, D's for one kind of images: of each scale the last entry, the logits, counts;
        real, whether D should call them real; for_D, False for G's loss.
    """
    sign = 1.0 if real else -1.0
    loss = 0.0
    for scale in outputs:
        logits = scale[-1].astype("float32")
        if kind == "hinge" and for_D:
            loss = loss + F.relu(1.0 - sign * logits).mean()
        elif kind == "original":
            loss = loss + F.softplus(-sign * logits).mean()
        elif kind == "ls":
            loss = loss + (logits - float(real)).square().mean()
        else:
            loss = loss - sign * logits.mean()
    return loss / len(outputs)


def feature_loss(fake, real):
    """Feature matching: mean |D_k(fake) - D_k(real)|, summed over D's blocks k, averaged over its
    scales. No gradient reaches real.

    Source: Wang et al., pix2pixHD, CVPR 2018, eq. 4.  fake, real: outputs of D.
    """
    loss = 0.0
    for scale_fake, scale_real in zip(fake, real, strict=True):
        for f, r in zip(scale_fake[:-1], scale_real[:-1], strict=True):  # all but the logits
            loss = loss + (f.astype("float32") - r.detach().astype("float32")).abs().mean()
    return loss / len(fake)


def kl_loss(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over batch and dimensions.

    Source: SPADE appendix A; Kingma and Welling 2014, appendix B.
    """
    return -0.5 * (1.0 + logvar - mu.square() - logvar.exp()).sum()


def split(outputs, n):
    """D's outputs on a joined batch, fake first: (those on the n fakes, those on real images)."""
    fake = [[h[:n] for h in scale] for scale in outputs]
    real = [[h[n:] for h in scale] for scale in outputs]
    return fake, real


def colourise(labels):
    """Ids (..., H, W) -> uint8 (..., H, W, 3), the palette of PASCAL VOC: id 0 is black, ids repeat
    after 256.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    # Bits 0, 3, 6 of an id are red's, 1, 4, 7 green's, 2, 5 blue's; the lowest weighs most.
    for bit in range(8):
        value = (ids >> bit & 1) << (7 - bit // 3)
        colours[:, bit % 3] |= value.astype(np.uint8)
    return colours[np.asarray(labels) % 256]


class Trainer:
    """Trains G, D and, with use_vae, the encoder E.

    Args: arch, `model.Architecture`; args, the flags of train.py; dataset, `dataset.PairFolder` to
        train on; held_out, its like without randomness for sample sheets and scores; encoder, None
        without use_vae; vgg, None without perceptual loss.
    Attributes: per_epoch, iterations an epoch.
    """

    def __init__(
        self, generator, discriminator, arch, args, dataset, held_out, encoder=None, vgg=None
    ):
        self.G = generator
        self.D = discriminator
        self.E = encoder
        self.vgg = vgg
        self.arch = arch
        self.args = args
        self.data = dataset
        self.held_out = held_out
        self.rank = process.rank()
        self.epochs = Epochs(len(dataset), args.batch_size, process.world_size())
        self.per_epoch = self.epochs.per_epoch
        drawing = {"generator": self.G}
        if self.E is not None:
            drawing["encoder"] = self.E
        self.update_G = self._update(drawing, args.g_lr)
        self.update_D = self._update(self.D, args.d_lr)
        self.G_ema = copy.deepcopy(self.G) if args.ema_decay else None
        self.networks = {
            "generator": self.G,
            "generator_ema": self.G_ema,
            "discriminator": self.D,
            "encoder": self.E,
        }
        self.foreign = None  # (source, state) of PaddleGAN's checkpoint to go on from

    @property
    def total(self):
        """Iterations in all: --iterations, or those of --epochs, or --niter and --niter_decay."""
        a = self.args
        return a.iterations or self.epochs.end(a.epochs or a.niter + a.niter_decay)

    def _update(self, networks, rate):
        a = self.args
        how = {"amp": a.amp, "micro_batch": math.ceil(a.batch_size / a.accumulate)}
        return Update(networks, rate, beta1=a.beta1, beta2=a.beta2, **how)

    def _rng(self, stream, *counters):
        return process.rng(self.args.seed, stream, *counters)

    def decay(self):
        """(first iteration, number) of those in which the rates fall linearly to 0; number 0:
        never.
        """
        a = self.args
        if a.decay_iterations:
            return self.total - a.decay_iterations, a.decay_iterations
        return self.epochs.end(a.niter), a.niter_decay * self.per_epoch

    def set_rates(self, iteration):
        """The rates of this iteration: constant, then falling linearly to 0."""
        first, number = self.decay()
        if number:
            share = min(1.0, max(0.0, 1.0 - (iteration - first) / number))
            self.update_G.set_rate(self.args.g_lr * share)
            self.update_D.set_rate(self.args.d_lr * share)

    def train_step(self, iteration, labels, instances, photos):
        """One update of G and E, every `D_steps_per_G`-th time only, then one of D on images that
        the updated G draws anew, or with --no-redraw on those of G's step.

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            labels and instances (N, H, W) int64, photos (N, 3, H, W) float32 in [-1, 1], arrays.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        self.set_rates(iteration)
        rng = self._rng("step", iteration, self.rank)
        paddle.seed(int(rng.integers(2**31)))
        seg = semantics(labels, instances, self.arch)  # (N, semantic_nc, H, W)
        real = paddle.to_tensor(photos)  # (N, 3, H, W)
        fake = None
        logs = {}
        if iteration % self.args.D_steps_per_G == 0:
            fake, logs = self.g_update(seg, real, iteration, rng)
        if self.args.redraw:
            fake = None
        return logs | self.d_update(seg, real, fake, rng)

    def latent(self, real, rng):
        """z = mu + noise * exp(logvar / 2), (N, z_dim), of the photos, noise ~ N(0, I), and its KL
        loss (SPADE appendix A); (None, None) without encoder.
        """
        if self.E is None:
            return None, None
        mu, logvar = self.E(real)
        mu = mu.astype("float32")
        logvar = logvar.astype("float32")
        noise = paddle.to_tensor(rng.standard_normal(mu.shape, dtype=np.float32))
        return mu + noise * (0.5 * logvar).exp(), kl_loss(mu, logvar)

    def discriminate(self, seg, fake, real):
        """D's outputs on fake and on real images of the same maps. Both pass as one batch, fake
        first, as in both originals.
        """
        maps = paddle.concat([seg, seg])
        images = paddle.concat([fake.astype("float32"), real])
        return split(self.D(paddle.concat([maps, images], 1)), len(fake))

    def g_update(self, seg, real, iteration, rng):
        """One Adam step of G and E, D fixed, on (SPADE sec. 3 and appendix A)

            L_G = GAN + lambda_feat FM + lambda_vgg VGG + lambda_kld KL,

        then G's exponential moving average. Of a batch in micro-batches the gradients are those of
        the whole; BatchNorm and spectral norm see the parts one after the other.
        Returns: the generated images (N, 3, H, W), detached; the losses.
        """
        a = self.args
        fakes = []
        with self.update_D.frozen():
            for part in self.update_G.parts(len(real)):
                with self.update_G.autocast():
                    z, kl = self.latent(real[part], rng)
                    fake = self.G(seg[part], z)
                    d_fake, d_real = self.discriminate(seg[part], fake, real[part])
                    losses = {
                        "g_ganloss": gan_loss(d_fake, a.gan_mode, real=True, for_D=False),
                        "g_featloss": a.lambda_feat * feature_loss(d_fake, d_real),
                    }
                    if self.vgg is not None:
                        vgg = perceptual_loss(self.vgg, fake, real[part], a.vgg_size)
                        losses["g_vggloss"] = a.lambda_vgg * vgg
                if kl is not None:  # a sum over the part; the others are means
                    losses["kldloss"] = a.lambda_kld * kl / self.update_G.share
                self.update_G.backward(sum(losses.values()), **losses)
                fakes.append(fake.detach())
        logs = self.update_G.step()
        if self.G_ema is not None:
            ema_update(self.G_ema, self.G, a.ema_decay if iteration >= a.ema_start else 0.0)
        return paddle.concat(fakes), logs

    def d_update(self, seg, real, fake, rng):
        """One Adam step of D on the two halves of its adversarial loss (SPADE sec. 3).

        Args: fake, images (N, 3, H, W) of G, or None: G draws them here, in training mode, so that
            its BatchNorm statistics and u, v move once more. No gradient reaches G.
        """
        kind = self.args.gan_mode
        for part in self.update_D.parts(len(real)):
            with self.update_D.autocast():
                if fake is None:
                    with paddle.no_grad():
                        drawn = self.G(seg[part], self.latent(real[part], rng)[0])
                else:
                    drawn = fake[part].detach()
                d_fake, d_real = self.discriminate(seg[part], drawn, real[part])
            loss_fake = gan_loss(d_fake, kind, real=False, for_D=True)
            loss_real = gan_loss(d_real, kind, real=True, for_D=True)
            loss = loss_fake + loss_real
            self.update_D.backward(loss, df_ganloss=loss_fake, dr_ganloss=loss_real)
        return self.update_D.step()

    def train(self, notes=()):
        """Step, log, show, score, save, until the last iteration or a signal.

        Args: notes, lines for the head of the log. Returns: 0, or 128 + the signal.
        Raises: NotFinite when a loss is NaN.
        """
        with self._run(notes) as run:
            batches = run.batches(self.data)
            for iteration in run:
                run.log(self.train_step(iteration, *next(batches)))
                if run.due(self.args.sample_every, last=True):
                    run.picture("samples", self.sample_sheet())
                if run.due(self.args.eval_every):
                    run.score(self.fakes())
        return run.exit_code

    def _run(self, notes):
        return Run(
            self.args,
            lambda: self.total,
            self.networks,
            updates={"g": self.update_G, "d": self.update_D},
            about={"paper": "gaugan_simam", "architecture": self.arch.to_dict()},
            check=self.resumes,
            begin=self.foreign,
            real=self.held_out,
            eval_samples=self._eval_samples(),
            epochs=self.epochs,
            notes=notes,
        )

    def runner(self, number=0):
        """`Runner` of the averaged G, or of G without --ema_decay, for so many images."""
        network = self.G if self.G_ema is None else self.G_ema
        height, width = self.arch.size
        return Runner(network, pixels=number * height * width)

    def generate(self, labels, instances, noise, run=None):
        """Images uint8 (N, H, W, 3) of the averaged G, or of G without --ema_decay, in eval mode.

        labels, instances (N, H, W) int64; noise (N, z_dim) float32, the latents with use_vae, else
        of no effect. run: `runner`'s, for many of them.
        """
        run = run or self.runner()
        run.network.eval()
        seg = semantics(labels, instances, self.arch)
        images = to_uint8(run(seg, noise) if self.arch.use_vae else run(seg))
        run.network.train()
        return images

    def sample_sheet(self):
        """Label map, generated image and photo of the same held-out pairs each time, a row each."""
        rows = []
        for i in np.unique(np.linspace(0, len(self.held_out) - 1, PANELS).astype(int)):
            with self._held_out(batch_size=1, start=int(i)) as batches:
                labels, instances, photos = next(batches)
            image = self.generate(labels, instances, self._latents(i, 1))[0]
            rows += [colourise(labels)[0], image, to_uint8(photos)[0]]
        return grid(np.stack(rows), 3, column_labels=["label", "generated", "real"])

    def fakes(self):
        """Batches of uint8 images, the same maps and latents at every evaluation."""
        number = self._eval_samples()
        size = self.args.batch_size
        run = self.runner(number)
        with self._held_out(size, workers=self.args.num_workers) as batches:
            for start in range(0, number, size):
                n = min(size, number - start)
                labels, instances, _ = next(batches)
                yield self.generate(labels[:n], instances[:n], self._latents(start, n), run)

    def _eval_samples(self):
        return min(self.args.eval_samples, len(self.held_out))

    def _held_out(self, batch_size, start=0, workers=0):
        """Batches of the held-out pairs in their order, from batch `start` on; with
        --skip_bad_images the next pair takes the place of one that cannot be read.
        """
        a = self.args
        how = {"shuffle": False, "drop_last": False, "skip_bad": a.skip_bad_images}
        return Batches(self.held_out, batch_size, a.seed, start=start, workers=workers, **how)

    def _latents(self, first, count):
        """z (count, z_dim) ~ N(0, I) of the held-out pairs from `first` on, the same each time."""
        rows = []
        for i in range(first, first + count):
            rows.append(self._rng("latent", i).standard_normal(self.arch.z_dim, dtype=np.float32))
        return np.stack(rows)

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (`convert.read_weights`): of G, and of D and
        E where the file has them; its images may have another size.

        Returns: lines for the log. Raises: UserError when it is another network.
        """
        self.check(state, source, may_differ=RESIZABLE)
        return start_from(self.networks, state, source)

    def go_on(self, state, source):
        """Go on from a checkpoint of PaddleGAN's engine (`engine.read_engine`), which may lack some
        networks and optimizers. Returns and raises: see `start_from`.
        """
        self.check(state, source)
        self.foreign = (source, state)
        return start_from(self.networks, state, source)

    def resumes(self, state, source):
        """Before a run goes on from a checkpoint: its networks must be these, and one of before
        there was --redraw keeps its form.
        """
        self.check(state, source)
        if self.args.redraw and "redraw" not in state.get("args", {"redraw": True}):
            self.args.redraw = False
            if process.is_main():
                print(f"resume: {source} is of before --redraw; the run goes on as --no-redraw")

    def check(self, state, source, may_differ=()):
        """Raise UserError where `state` is of other networks: SimAM, for one, has no weights.

        Args: may_differ, fields of Architecture that may.
        """
        self.arch.check_same(state, source, may_differ, _alike)


def _alike(a, b):
    """Whether two fields of Architecture mean the same weights; synchronised BatchNorm is
    BatchNorm.
    """
    if isinstance(a, str):
        return a.replace("syncbatch", "batch") == str(b).replace("syncbatch", "batch")
    return a == b
