"""STGAN's losses, its two updates and the training loop (Liu et al., CVPR 2019, sec. 3.3)."""

import numpy as np
import paddle
import paddle.nn.functional as F

import attributes
import face_measures
import faces
from editing import Editor
from shared_metrics import process
from shared_metrics.flags import CHANNELS, LAYERS, amount, positive, share, truth
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

from .model import Architecture, Discriminator, Generator

KIND = "faces"
NEEDS = faces.NEEDS | dict.fromkeys(("gru_n_layers", "pass_state"), "use_gru")
BACK = False  # sheets do not show changes undone
RECIPES = {"paddlecv": {"bn_eps": 1e-5, "bn_momentum": 0.9, "split": "pcv", "epoch": 50}}
# What published weights do not tell of their labels, see edit.py.
PUBLISHED = {"thres_int": 0.5, "crop_size": 170, "choices": []}
GAN_MODES = ("wgan", "lsgan", "dcgan")
SELECTED = (
    *("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses"),
    *("Male", "Mouth_Slightly_Open", "Mustache", "No_Beard", "Pale_Skin", "Young"),
)
D_ONLY = ("image_size", "d_base_dims", "d_fc_dim", "dis_norm", "fc_slope")  # of Architecture


# ---- losses ----


def d_adversarial_loss(real, fake, gan_mode):
    """D's adversarial loss on its outputs (N, 1) for real and fake images.

    wgan: E D(fake) - E D(real). lsgan: E (D(real) - 1)^2 + E D(fake)^2. dcgan, s the logistic
    function: -E log s(D(real)) - E log(1 - s(D(fake))).
    """
    if gan_mode == "wgan":
        return fake.mean() - real.mean()
    if gan_mode == "lsgan":
        return (real - 1.0).square().mean() + fake.square().mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def g_adversarial_loss(fake, gan_mode):
    """G's: wgan: -E D(fake). lsgan: E (D(fake) - 1)^2. dcgan: -E log s(D(fake))."""
    if gan_mode == "wgan":
        return -fake.mean()
    if gan_mode == "lsgan":
        return (fake - 1.0).square().mean()
    return F.softplus(-fake).mean()


def classification_loss(logits, labels):
    """Binary cross-entropy of the attributes, mean over all entries; logits, labels (N, c), the
    labels 0 and 1.
    """
    return F.binary_cross_entropy_with_logits(logits, labels)


def reconstruction_loss(real, reconstructed):
    """E |x - G(x) with x's own attributes|, mean over all entries."""
    return (real - reconstructed).abs().mean()


def gradient_penalty(D, real, other, alpha):
    """E (|grad D(x)| - 1)^2 at x = real + alpha (other - real) (Gulrajani et al., 2017).

    Args: other (N, 3, S, S), the fakes (wgan), or `perturbed` real images (lsgan, dcgan);
        alpha (N, 1, 1, 1) in [0, 1].
    """
    x = (real + alpha * (other - real)).detach()
    x.stop_gradient = False
    (gradient,) = paddle.grad(D(x)[0].sum(), x, create_graph=True)
    # 1e-16 under the root, whose derivative at 0 is infinite.
    norm = (gradient.square().sum([1, 2, 3]) + 1e-16).sqrt()  # (N,)
    return (norm - 1.0).square().mean()


def perturbed(real, noise):
    """real + 0.5 std(real) noise, the standard deviation of the whole batch, noise (N, 3, S, S)
    uniform in [0, 1]: the other end of DRAGAN's penalty (Kodali et al., 2017).
    """
    return real + 0.5 * real.std(unbiased=False) * noise


# ---- flags and data ----


# fmt: off
def add_flags(parser):
    """Add STGAN's flags. An iteration is one batch, of which either D or G learns."""
    faces.add_flags(parser, SELECTED, split="attgan", n_samples=16)
    add = parser.add_argument_group("STGAN").add_argument
    add("--g_base_dims", type=CHANNELS, default=64, help="width of the encoder's first layer")
    add("--d_base_dims", type=CHANNELS, default=64, help="width of D's first layer")
    add("--d_fc_dim", type=CHANNELS, default=1024, help="hidden width of D's two heads")
    add("--n_layers", type=LAYERS, default=5, help="layers of encoder, decoder and D's trunk")
    add("--shortcut_layers", type=LAYERS.or_0, default=4, help="skips from encoder to decoder")
    add("--inject_layers", type=LAYERS.or_0, default=4,
        help="stages of the decoder, after its first, that get the difference again")
    add("--use_gru", type=truth, default=True,
        help="selective transfer units in the skips; False: the encoder's features")
    add("--gru_n_layers", type=LAYERS.or_0, default=4, help="skips with a unit, the deepest")
    add("--pass_state", default="stu", choices=["stu", "gru", "direct"],
        help="what a unit hands to the next: its state after the reset gate, its output, or its "
             "state before the gate")
    add("--dis_norm", default="instance_norm", choices=["instance_norm", "none"], help="D's norm")
    add("--slope", type=amount, default=0.2, help="of LeakyReLU in encoder and trunk")
    add("--fc_slope", type=amount, default=0.2, help="in D's heads")
    add("--bn_eps", type=amount, default=1e-3, help="BatchNorm's epsilon (PaddleCV: 1e-5)")
    add("--bn_momentum", type=share, default=0.999,
        help="share of the running statistics that a batch leaves (PaddleCV: 0.9)")
    add("--gan_mode", default="wgan", choices=GAN_MODES,
        help="adversarial loss; lsgan and dcgan with DRAGAN's penalty")
    add("--g_lr", type=amount, default=2e-4, help="Adam's rate of G")
    add("--d_lr", type=amount, default=2e-4, help="Adam's rate of D")
    add("--lr_decay_epoch", type=positive, default=100,
        help="epochs after which both rates fall to a tenth")
    add("--num_discriminator_time", type=positive, default=5, help="updates of D per update of G")
    add("--thres_int", type=amount, default=0.5,
        help="attributes are plus or minus this, of which G is told the difference")
    add("--lambda_cls", type=amount, default=10.0, help="weight of the attributes in G's loss")
    add("--lambda_rec", type=amount, default=100.0, help="weight of the reconstruction")
    add("--lambda_gp", type=amount, default=10.0, help="weight of the gradient penalty")
    parser.set_defaults(batch_size=32, image_size=128, crop_size=170)
# fmt: on


def read_data(args):
    """(faces to train on, faces to test on), as the flags say."""
    data = faces.open_celeba(args, "train")
    attributes.check_varied(data, faces.list_of(args, "train"))
    return data, faces.open_celeba(args, "test")


def condition(source, target):
    """What G is told to turn faces with the intensities `source` (N, c) into `target`: the
    difference, which is 0 for what is kept.
    """
    return target - source


# ---- training ----


class Trainer:
    """Trains STGAN's G and D.

    Args: args, the flags of train.py; data, what `read_data` returns, where it is read already.
    """

    def __init__(self, args, data=None):
        self.args = args
        self.data, self.held_out = read_data(args) if data is None else data
        self.about = faces.about(args, self.data) | {"thres_int": args.thres_int}
        self.shown = faces.some(self.held_out, args.n_samples, args.skip_bad_images)
        sizes = {name: getattr(args, name) for name in Architecture().to_dict()}
        self.arch = Architecture(**sizes | {"c_dim": len(self.data.names)})
        paddle.seed(args.seed)
        self.G = Generator(self.arch)
        self.D = Discriminator(self.arch)
        self.update_G = Update(self.G, args.g_lr, beta1=0.5, beta2=0.999, amp=args.amp)
        self.update_D = Update(self.D, args.d_lr, beta1=0.5, beta2=0.999, amp=args.amp)
        self.networks = {"generator": self.G, "discriminator": self.D}
        self.editor = Editor(self.G, condition, self.about)
        self.judge = face_measures.open_judge(args.attribute_judge, self.editor.own_names)
        size = (args.batch_size, process.world_size(), args.drop_last)
        self.epochs = Epochs(len(self.data), *size)
        self.per_epoch = self.epochs.per_epoch

    @property
    def total(self):
        """Iterations in all: --iterations, or those of --epoch."""
        return self.args.iterations or self.epochs.end(self.args.epoch)

    def describe(self):
        """One line on the data for the log."""
        return attributes.describe(self.data)

    def set_rates(self, iteration):
        """Both rates fall to a tenth after every `lr_decay_epoch` epochs."""
        share = 0.1 ** (self.epochs.done(iteration) // self.args.lr_decay_epoch)
        self.update_G.set_rate(share * self.args.g_lr)
        self.update_D.set_rate(share * self.args.d_lr)

    def train_step(self, iteration, batches):
        """One update on a new batch: of D `num_discriminator_time` times, then of G once.

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            batches, iterator of (x (N, 3, S, S) float32 in [-1, 1], a (N, c) float32 of 0 and 1)
            arrays.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        self.set_rates(iteration)
        rng = process.rng(self.args.seed, "step", iteration, process.rank())
        x, a = next(batches)
        # Labels that faces have, and as often: those of the other faces of the batch.
        b = paddle.to_tensor(a[rng.permutation(len(a))])
        x = paddle.to_tensor(x)
        a = paddle.to_tensor(a)
        if (iteration + 1) % (self.args.num_discriminator_time + 1):
            return self.d_update(x, a, b, rng)
        return self.g_update(x, a, b)

    def difference(self, a, b):
        """What G is told to turn the labels a into b; -1, 0 or 1 with `thres_int` 0.5."""
        return 2.0 * (b - a) * self.args.thres_int

    def d_update(self, x, a, b, rng):
        """One Adam step of D and C: adversarial loss, classification of x, gradient penalty."""
        args = self.args
        with self.update_D.autocast():
            with paddle.no_grad():  # G is fixed here; its BatchNorms move in every training pass
                fake = self.G(x, self.difference(a, b))
            d_real, c_real = (h.astype("float32") for h in self.D(x))  # (N, 1), (N, c)
            d_fake, _ = self.D(fake)
        fake = fake.astype("float32")
        loss_adv = d_adversarial_loss(d_real, d_fake.astype("float32"), args.gan_mode)
        loss_cls = classification_loss(c_real, a)
        alpha = paddle.to_tensor(rng.random((len(x), 1, 1, 1), dtype=np.float32))
        if args.gan_mode != "wgan":
            fake = perturbed(x, paddle.to_tensor(rng.random(x.shape, dtype=np.float32)))
        # Outside of autocast: it is differentiated twice.
        penalty = gradient_penalty(self.D, x, fake, alpha)
        loss = loss_adv + loss_cls + args.lambda_gp * penalty
        logs = {"d_loss_adv": loss_adv, "d_loss_cls": loss_cls, "d_loss_gp": penalty}
        self.update_D.backward(loss, d_loss=loss, **logs)
        return self.update_D.step()

    def g_update(self, x, a, b):
        """One Adam step of G: adversarial loss and classification of the edited faces,
        reconstruction with the difference 0, a second pass of all of G.
        """
        args = self.args
        with self.update_D.frozen():
            with self.update_G.autocast():
                fake = self.G(x, self.difference(a, b))
                # The units select by the difference: nothing of the first pass serves again.
                reconstructed = self.G(x, paddle.zeros_like(a))
                d_fake, c_fake = (h.astype("float32") for h in self.D(fake))
            loss_adv = g_adversarial_loss(d_fake, args.gan_mode)
            loss_cls = classification_loss(c_fake, b)
            loss_rec = reconstruction_loss(x, reconstructed.astype("float32"))
            loss = loss_adv + args.lambda_cls * loss_cls + args.lambda_rec * loss_rec
            logs = {"g_loss_adv": loss_adv, "g_loss_cls": loss_cls, "g_loss_rec": loss_rec}
            self.update_G.backward(loss, g_loss=loss, **logs)
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
                run.log(self.train_step(iteration, batches))
                if run.due(a.sample_every, epochs=int(a.run_test), last=True):
                    run.picture("samples", self.editor.sheet(*self.shown))
                    if self.judge is not None:
                        run.values(face_measures.quality(self.editor, self.judge, *self.shown))
                if run.due(a.eval_every):
                    how = (run.eval_samples, a.batch_size, a.seed, a.skip_bad_images)
                    run.score(self.editor.fakes(self.held_out, *how))
        return run.exit_code

    def _run(self, notes):
        a = self.args
        return Run(
            a,
            lambda: self.total,
            self.networks,
            updates={"g": self.update_G, "d": self.update_D},
            about={
                "paper": "stgan",
                "architecture": self.arch.to_dict(),
                "batches_per_epoch": self.per_epoch,
                **self.about,
            },
            check=self.check,
            real=self.data,
            eval_samples=min(a.eval_samples, len(self.held_out)),
            epochs=self.epochs,
            save_epochs=int(a.save_checkpoints),
            notes=notes,
        )

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (convert.py): of G, D or both.

        Returns: lines for the log. Raises: UserError when they are of another network.
        """
        self.check(state, source)
        return start_from(self.networks, state, source)

    def check(self, state, source):
        """Raise UserError where a checkpoint is of other attributes or another network."""
        attributes.check_same(self.data.names, state, source)
        self.arch.check_same(state, source, () if "discriminator" in state else D_ONLY)
