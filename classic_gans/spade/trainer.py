"""SPADE's losses, its two updates and the training loop (Park et al., CVPR 2019, sec. 3 and
appendix A), as NVlabs' code computes them.

D's outputs are [[output of each layer, the logits last] of each scale], see model.Discriminator.
"""

from argparse import ArgumentTypeError
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from label_maps import LabelledPhotos, colourise, read_list
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import (
    CHANNELS,
    CLASSES,
    LAYERS,
    PX,
    SHEET,
    YES_NO,
    amount,
    not_negative,
    truth,
)
from shared_metrics.images import grid, to_uint8
from shared_metrics.inference import Runner, run_layer
from shared_metrics.label_maps import find_folders, has_test_pairs, pair
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.loader import Batches
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

from .model import PRESETS, UPSAMPLINGS, Architecture, Discriminator, Encoder, Generator, semantics
from .vgg import load_vgg

KIND = "labels"
# What flags need to count: see shared_metrics.needs.
NEEDS = dict.fromkeys(("z_dim", "nef", "lambda_kld"), "use_vae")
NEEDS |= {"label_dir": "image_dir", "instance_dir": "image_dir"}
NEEDS |= {"vgg19_pretrain": "lambda_vgg"}
RECIPES = {}  # --preset has its settings
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of relu1_1 ... relu5_1


def d_hinge_loss(outputs, real):
    """E max(0, 1 - D), or for fakes E max(0, 1 + D), of the logits, averaged over the scales."""
    sign = 1.0 if real else -1.0
    losses = [F.relu(1.0 - sign * scale[-1]).mean() for scale in outputs]
    return sum(losses) / len(losses)


def g_hinge_loss(outputs):
    """-E D of the fakes' logits, averaged over the scales."""
    losses = [-scale[-1].mean() for scale in outputs]
    return sum(losses) / len(losses)


def feature_loss(fake, real):
    """Feature matching (pix2pixHD, CVPR 2018, eq. 4): E |D_k(fake) - D_k(real)| summed over all
    layers but the logits, averaged over the scales. No gradient reaches real.
    """
    loss = 0.0
    for scale_fake, scale_real in zip(fake, real, strict=True):
        for f, r in zip(scale_fake[:-1], scale_real[:-1], strict=True):
            loss += (f - r.detach()).abs().mean()
    return loss / len(fake)


def vgg_loss(fake, real):
    """The same of VGG19's five feature maps, weighted by depth. No gradient reaches real."""
    loss = 0.0
    for weight, f, r in zip(VGG_WEIGHTS, fake, real, strict=True):
        loss += weight * (f - r.detach()).abs().mean()
    return loss


def kl_loss(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over batch and dimensions."""
    return -0.5 * (1.0 + logvar - mu.square() - logvar.exp()).sum()


def split(outputs, n):
    """D's outputs on a joined batch, fake first, as (those on the n fakes, those on the others)."""
    fake = [[h[:n] for h in scale] for scale in outputs]
    real = [[h[n:] for h in scale] for scale in outputs]
    return fake, real


# ---- flags and data ----

# What the presets of the networks, model.PRESETS, go with in the published trainings: sizes in
# pixels, batch, epochs.
_SQUARE = {"load_width": 286, "load_height": 286, "flip": True, "batch_size": 32}
TRAINING = {
    "coco": _SQUARE | {"niter": 100, "niter_decay": 0},
    "ade20k": _SQUARE | {"zero_is_unknown": True},
    "cityscapes": {"load_width": 512, "load_height": 256, "flip": True, "batch_size": 16},
    "pcv": {"load_width": 1124, "load_height": 612},
}
DEFAULTS = {"flip": False, "batch_size": 1, "niter": 100, "niter_decay": 100}
DEFAULTS |= {"zero_is_unknown": False}
D_ONLY = ("ndf", "num_D", "d_nlayers", "d_padding")  # of Architecture
RESIZABLE = ("crop_width", "crop_height")  # what fine-tuning may change: G is convolutional


def crop_type(text):
    """ "center" or "random", as PaddleCV spells them, too."""
    words = {"centor": "center", "center": "center", "random": "random"}
    if text.lower() not in words:
        raise ArgumentTypeError(f"'{text}': expected center (or Centor) or random")
    return words[text.lower()]


# fmt: off
def add_flags(parser):
    """Add SPADE's flags; what --preset tells is None until `with_preset`."""
    add = parser.add_argument_group("SPADE: what --preset tells, if not given").add_argument
    add("--preset", default="pcv", choices=list(PRESETS), help="a published setting")
    for side in ("width", "height"):
        add(f"--load_{side}", type=PX, help=f"{side} in px to which photos are resized")
        add(f"--crop_{side}", type=PX, help=f"{side} in px of what is cut out of that")
    add("--label_nc", type=CLASSES, help="classes; ids are 0 ... LABEL_NC - 1")
    add("--contain_dontcare_label", action=YES_NO, help="id LABEL_NC, and 255, is unknown")
    add("--zero_is_unknown", action=YES_NO, help="ids count from 1, and 0 is unknown (ADE20K)")
    add("--no_instance", type=truth, nargs="?", const=True,
        help="no edge map: lists have two columns")
    add("--num_upsampling_layers", choices=list(UPSAMPLINGS), help="5, 6 or 7 doublings in G")
    add("--crop_type", type=crop_type, default="random", help="where it is cut: random, center")
    add("--flip", action=YES_NO, help="mirror at random")
    add("--niter", type=not_negative, help="epochs at the full rates")
    add("--niter_decay", type=not_negative, help="epochs in which they then fall towards 0")
    parser.set_defaults(batch_size=None, epoch=0)

    add = parser.add_argument_group("SPADE").add_argument
    add("--image_dir", default="", help="folder of photos, instead of lists and --dataset")
    add("--label_dir", default="", help="with it: folder of label maps of the same names")
    add("--instance_dir", default="", help="with it: folder of instance maps")
    add("--ngf", type=CHANNELS, default=64, help="base width of G")
    add("--ndf", type=CHANNELS, default=64, help="base width of D")
    add("--num_D", type=LAYERS, default=2, help="scales of D")
    add("--d_nlayers", type=LAYERS, default=4, help="convolutions of each before its logits")
    add("--d_padding", type=LAYERS.or_0, default=2, help="of these (PaddleCV's weights: 1)")
    add("--use_vae", action="store_true", help="an encoder of photos gives G its style")
    add("--z_dim", type=CHANNELS, default=256, help="length of its latent")
    add("--nef", type=CHANNELS, default=64, help="base width of the encoder")
    add("--no_TTUR", action="store_true",
        help="Adam(0.5, 0.999), both rates --learning_rate, as PaddleCV; else Adam(0, 0.9), G's "
             "half and D's twice that")
    add("--lambda_feat", type=amount, default=10.0, help="weight of the feature matching")
    add("--lambda_vgg", type=amount, default=10.0, help="weight of the perceptual loss")
    add("--lambda_kld", type=amount, default=0.05, help="weight of the encoder's KL divergence")
    add("--vgg19_pretrain", default="",
        help="VGG19 weights of the perceptual loss, any known file or PaddleCV's folder; none: "
             "train without it")
    add("--n_samples", type=SHEET, default=8, help="pairs on a sample sheet")
# fmt: on


def with_preset(args):
    """The flags with the values of --preset where none were given. The epochs of --epoch are
    divided in constant and falling rates as the preset's.
    """
    preset = DEFAULTS | Architecture(**PRESETS[args.preset]).to_dict() | TRAINING[args.preset]
    if args.epoch and args.niter is None:
        falling = args.epoch * preset["niter_decay"] // (preset["niter"] + preset["niter_decay"])
        falling = falling if args.niter_decay is None else args.niter_decay
        args.niter = max(0, args.epoch - falling)
    if args.epoch and args.niter_decay is None:
        args.niter_decay = max(0, args.epoch - args.niter)
    for name, value in preset.items():
        if getattr(args, name, value) is None:
            setattr(args, name, value)
    return args


def check_size(arch):
    """Raise UserError where D's last scale has no logits: the mean of none is NaN."""
    if arch.smallest_logits() < 1:
        raise UserError(
            f"--crop_width {arch.crop_width}, --crop_height {arch.crop_height}: too small for D's "
            f"--num_D {arch.num_D} scales of --d_nlayers {arch.d_nlayers} with --d_padding "
            f"{arch.d_padding}; give larger ones, fewer scales or layers, or more padding"
        )


def find_items(args, part):
    """[(photo, label map, instance map or None)] of a part, "train" or "test": of its list, else of
    its folders; for "test" those of "train" where there are no others.
    """
    root = Path(args.data_dir).expanduser() / args.dataset
    file = args.test_list if part == "test" else args.train_list
    path = Path(file or root / f"{part}.txt").expanduser()
    if not path.is_file() and (root / path).is_file():
        path = root / path
    if file or path.is_file():
        return read_list(path, root, args.no_instance)
    folders = (args.image_dir, args.label_dir, "" if args.no_instance else args.instance_dir)
    if part == "test" and (args.image_dir or not has_test_pairs(root)):
        return find_items(args, "train")
    flag = f"--data_dir {args.data_dir} --dataset"
    where = "" if args.image_dir else root
    split = "val" if part == "test" else "train"
    items, problems = pair(*find_folders(where, *folders, split=split, flag=flag))
    if problems:
        raise UserError(f"{problems[0]} ({len(problems)} such in all)")
    if args.no_instance:
        return [(photo, labels, None) for photo, labels, _ in items]
    if items[0][2] is None:
        raise UserError(f"{items[0][1]}: has no instance map; give them, or --no_instance")
    return items


def read_data(args):
    """(pairs to train on, pairs of the sample sheets), as the flags say."""
    parts = []
    for part in ("train", "test"):
        data = LabelledPhotos(
            find_items(args, part),
            args.label_nc,
            args.contain_dontcare_label,
            load_size=(args.load_width, args.load_height),
            crop_size=(args.crop_width, args.crop_height),
            zero_is_unknown=args.zero_is_unknown,
            crop_type=args.crop_type,
            flip=args.flip,
            train=part == "train",
        )
        parts.append(data)
    parts[1].palette = parts[0].palette or parts[1].palette
    for data in parts:
        data.check(args.skip_bad_images)
    return parts


# ---- training ----


class Trainer:
    """Trains SPADE's G and D and, with --use_vae, the encoder E.

    Args: args, the flags of train.py; data, what `read_data` returns, where it is read already.
    """

    def __init__(self, args, data=None):
        self.args = with_preset(args)
        self.data, self.held_out = read_data(args) if data is None else data
        self.arch = Architecture(**{name: getattr(args, name) for name in Architecture().to_dict()})
        check_size(self.arch)
        self.vgg = load_vgg(args.vgg19_pretrain) if args.vgg19_pretrain else None
        paddle.seed(args.seed)
        self.G = Generator(self.arch)
        self.D = Discriminator(self.arch)
        self.E = Encoder(self.arch) if args.use_vae else None
        self.networks = {"generator": self.G, "encoder": self.E, "discriminator": self.D}
        learned = {"generator": self.G, "encoder": self.E} if args.use_vae else self.G
        # Two rates (Heusel et al., NIPS 2017): D learns four times as fast as G.
        self.rates = (1.0, 1.0) if args.no_TTUR else (0.5, 2.0)
        moments = (0.5, 0.999) if args.no_TTUR else (0.0, 0.9)
        how = {"beta1": moments[0], "beta2": moments[1], "amp": args.amp}
        self.update_G = Update(learned, self.rates[0] * args.learning_rate, **how)
        self.update_D = Update(self.D, self.rates[1] * args.learning_rate, **how)
        size = (args.batch_size, process.world_size(), args.drop_last)
        self.epochs = Epochs(len(self.data), *size)
        self.per_epoch = self.epochs.per_epoch

    @property
    def total(self):
        """Iterations in all: --iterations, or those of --epoch, or --niter and --niter_decay."""
        a = self.args
        return a.iterations or self.epochs.end(a.epoch or a.niter + a.niter_decay)

    def describe(self):
        """One line on the data for the log."""
        vgg = "" if self.vgg else "; no --vgg19_pretrain: trained without the perceptual loss"
        return f"{len(self.data):,} pairs, {len(self.held_out):,} for the sheets{vgg}"

    def set_rates(self, iteration):
        """The rates are constant for `niter` epochs, then fall linearly towards 0 in `niter_decay`,
        after which they stay.
        """
        a = self.args
        share = 1.0
        if a.niter_decay:
            over = max(0, self.epochs.done(iteration) - a.niter)
            share = 1.0 - min(over, a.niter_decay - 1) / a.niter_decay
        for update, rate in zip((self.update_G, self.update_D), self.rates, strict=True):
            update.set_rate(share * rate * a.learning_rate)

    def train_step(self, iteration, batches):
        """One update of G (and E), then one of D on the same batch.

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            batches, iterator of (labels (N, H, W) int64, instances likewise, photos (N, 3, H, W)
            float32 in [-1, 1]) arrays.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        self.set_rates(iteration)
        rng = process.rng(self.args.seed, "step", iteration, process.rank())
        labels, instances, photos = (paddle.to_tensor(part) for part in next(batches))
        seg = semantics(labels, instances, self.arch)  # (N, semantic_nc, H, W)
        logs = self.g_update(seg, photos, self.noise(rng, len(photos)))
        return logs | self.d_update(seg, photos, self.noise(rng, len(photos)))

    def noise(self, rng, n):
        """(n, z_dim) from N(0, I)."""
        return paddle.to_tensor(rng.standard_normal((n, self.arch.z_dim), dtype=np.float32))

    def generate(self, seg, real, noise):
        """Fakes, and the KL loss of their latent z = mu + noise exp(logvar / 2); 0 without E."""
        if self.E is None:
            return self.G(seg).astype("float32"), paddle.zeros([])
        mu, logvar = (h.astype("float32") for h in self.E(real))
        z = mu + noise * (0.5 * logvar).exp()
        return self.G(seg, z).astype("float32"), kl_loss(mu, logvar)

    def discriminate(self, seg, fake, real):
        """D's outputs on fakes and on real photos, which pass as one batch, fakes first."""
        images = paddle.concat([fake, real])  # (2 N, 3, H, W)
        outputs = self.D(paddle.concat([paddle.concat([seg, seg]), images], 1))
        outputs = [[h.astype("float32") for h in scale] for scale in outputs]
        return split(outputs, len(fake))

    def g_update(self, seg, real, noise):
        """One Adam step of G and E on hinge, feature matching, perceptual and KL loss."""
        a = self.args
        with self.update_D.frozen():
            with self.update_G.autocast():
                fake, kl = self.generate(seg, real, noise)
                d_fake, d_real = self.discriminate(seg, fake, real)
            losses = {
                "g_loss_gan": g_hinge_loss(d_fake),
                "g_loss_feat": a.lambda_feat * feature_loss(d_fake, d_real),
            }
            if self.vgg is not None:
                losses["g_loss_vgg"] = a.lambda_vgg * vgg_loss(self.vgg(fake), self.vgg(real))
            if self.E is not None:
                losses["g_loss_kld"] = a.lambda_kld * kl
            self.update_G.backward(sum(losses.values()), **losses)
        return self.update_G.step()

    def d_update(self, seg, real, noise):
        """One Adam step of D on both halves of its hinge loss, on fakes drawn anew by the updated
        G: its BatchNorms, u and v, and E's, move once more.
        """
        with self.update_D.autocast():
            with paddle.no_grad():  # G is fixed here, but in training mode
                fake, _ = self.generate(seg, real, noise)
            d_fake, d_real = self.discriminate(seg, fake, real)
        losses = {
            "d_loss_fake": d_hinge_loss(d_fake, real=False),
            "d_loss_real": d_hinge_loss(d_real, real=True),
        }
        self.update_D.backward(sum(losses.values()), **losses)
        return self.update_D.step()

    def train(self, notes=()):
        """Step, log, show, score, save, until the last iteration or a signal.

        Args: notes, lines for the head of the log. Returns: 0, or 128 + the signal.
        Raises: NotFinite when a loss is NaN.
        """
        a = self.args
        warnings = [f"warning: {line}" for line in self.data.doubts()]
        with self._run([*notes, *warnings]) as run:
            batches = run.batches(self.data, shuffle=a.shuffle)
            for iteration in run:
                run.log(self.train_step(iteration, batches))
                if run.due(a.sample_every, epochs=int(a.run_test), last=True):
                    run.picture("samples", self.sample_sheet())
                if run.due(a.eval_every):
                    run.score(self.fakes(run.eval_samples))
        return run.exit_code

    def _run(self, notes):
        a = self.args
        return Run(
            a,
            lambda: self.total,
            self.networks,
            updates={"g": self.update_G, "d": self.update_D},
            about={
                "paper": "spade",
                "architecture": self.arch.to_dict(),
                "batches_per_epoch": self.per_epoch,
                "zero_is_unknown": a.zero_is_unknown,
            },
            check=self.check,
            real=self.data,
            eval_samples=min(a.eval_samples, len(self.held_out)),
            epochs=self.epochs,
            save_epochs=int(a.save_checkpoints),
            notes=notes,
        )

    # ---- pictures ----

    def drawn(self, index, run=None):
        """(labels (H, W), uint8 generated image, uint8 photo) of a held-out pair, with
        --skip_bad_images of the next that can be read; the latent is the same each time.

        Args: run, `inference.Runner` of G, for many of them (default: its layers).
        """
        how = {"shuffle": False, "skip_bad": self.args.skip_bad_images}
        with Batches(self.held_out, 1, self.args.seed, start=index, **how) as batches:
            labels, instances, photo = (part[0] for part in next(batches))
        maps = (paddle.to_tensor(ids[None]) for ids in (labels, instances))
        inputs = [semantics(*maps, self.arch)]
        if self.arch.use_vae:
            inputs.append(self.noise(process.rng(self.args.seed, "latent", index), 1))
        self.G.eval()
        image = (run or partial(run_layer, self.G))(*inputs)
        self.G.train()
        return labels, to_uint8(image)[0], to_uint8(photo[None])[0]

    def sample_sheet(self):
        """A row for each of the same held-out pairs: label map, generated image, photo."""
        cells = []
        number = self.args.n_samples
        for i in np.unique(np.linspace(0, len(self.held_out) - 1, number).astype(int)):
            labels, image, photo = self.drawn(int(i))
            cells += [colourise(labels), image, photo]
        return grid(np.stack(cells), 3, column_labels=["label", "generated", "real"])

    def fakes(self, number):
        """uint8 images of the first held-out label maps, one at a time."""
        run = Runner(self.G, pixels=number * self.arch.crop_height * self.arch.crop_width)
        for index in range(number):
            yield self.drawn(index, run)[1][None]

    # ---- weights of others ----

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (convert.py): of G, and D and E where it has
        them. Returns: lines for the log. Raises: UserError when they are of another network.
        """
        ignored = RESIZABLE if "discriminator" in state else RESIZABLE + D_ONLY
        self.arch.check_same(state, source, ignored)
        return start_from(self.networks, state, source)

    def check(self, state, source):
        """Raise UserError where a checkpoint is of other networks."""
        self.arch.check_same(state, source)
