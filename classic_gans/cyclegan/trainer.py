"""CycleGAN's losses, its two updates and the training loop (Zhu et al., ICCV 2017, sec. 3)."""

from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F

import translation
from dataset import Unpaired, describe, rgb
from lists import domain_files, has_split, readable
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import IMAGES, amount, truth
from shared_metrics.images import grid, to_uint8
from shared_metrics.inference import Runner
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

from .model import Architecture, Generator, networks

KIND = "translation"
NEEDS = translation.NEEDS
RECIPES = {
    # sec. 7.1's networks for 128 px, which its Cityscapes numbers are of
    "cityscapes": {"net_G": "resnet_6block", "image_size": 143, "crop_size": 128},
    "paddlecv": {"g_base_dims": 32, "norm_type": "batch_norm", "flip": False},
}


def gan_loss(logits, real, mode):
    """The adversarial loss on D's outputs (N, 1, S', S') for pictures meant to be real, or fake.

    lsgan (sec. 4): the squared distance to 1, or to 0. vanilla: eq. 1 in the form -log D, or
    -log(1 - D). wgangp: -D, or D.
    """
    if mode == "lsgan":
        return (logits - float(real)).square().mean()
    logits = -logits if real else logits
    return F.softplus(logits).mean() if mode == "vanilla" else logits.mean()


def gradient_penalty(D, real, fake, alpha):
    """E (|grad D(x)| - 1)^2 at x = alpha real + (1 - alpha) fake, of the sum of D's patches.

    Args: real, fake (N, C, S, S); alpha (N, 1, 1, 1) in [0, 1].
    Source: Gulrajani et al., 2017, eq. 3; the authors' code for gan_mode wgangp.
    """
    x = (alpha * real + (1.0 - alpha) * fake).detach()
    x.stop_gradient = False
    (gradient,) = paddle.grad(D(x).sum(), x, create_graph=True)
    # 1e-16 under the root, whose derivative at 0 is infinite.
    norm = (gradient.square().sum([1, 2, 3]) + 1e-16).sqrt()  # (N,)
    return (norm - 1.0).square().mean()


def distance(x, y):
    """E |x - y|: of a picture to what its cycle (eq. 2) or the identity (sec. 5.2) makes of it."""
    return (x - y).abs().mean()


class ImagePool:
    """Fakes of earlier steps, which D sees again (sec. 4; Shrivastava et al., CVPR 2017).

    Until it is full it stores every fake and gives it back. Then with probability 1/2 it gives back
    one of those stored, drawn at random, and stores the new one in its place.
    """

    def __init__(self, size):
        self.size = size
        self.images = []  # tensors (C, S, S)

    def query(self, fakes, rng):
        """(N, C, S, S) of which each is the fake or a stored one. Args: rng, a numpy Generator."""
        if not self.size:
            return fakes
        result = []
        for image in fakes.detach():
            if len(self.images) < self.size:
                self.images.append(image)
            elif rng.random() < 0.5:
                place = int(rng.integers(self.size))
                self.images[place], image = image, self.images[place]
            result.append(image)
        return paddle.stack(result)

    def state(self):
        """What a checkpoint keeps."""
        return [image.numpy() for image in self.images]

    def load(self, state):
        """Take over what `state` gave."""
        self.images = [paddle.to_tensor(image) for image in state[: self.size]]


# fmt: off
def add_flags(parser):
    """Add CycleGAN's flags."""
    how = {"net_G": "resnet_9block", "norm_type": "instance_norm"}
    translation.add_flags(parser, **how, dropout=False, gan_mode="lsgan")
    add = parser.add_argument_group("CycleGAN").add_argument
    add("--serial_batches", type=truth, nargs="?", const=True, default=False, metavar="True|False",
        help="the i-th picture of A with the i-th of B, not with a random one")
    add("--lambda_A", type=amount, default=10.0, help="weight of the cycle A, B, A (eq. 3)")
    add("--lambda_B", type=amount, default=10.0, help="weight of the cycle B, A, B")
    add("--lambda_identity", type=amount, default=0.5,
        help="weight of the identity loss (sec. 5.2), times that of the domain's cycle; 0: without")
    add("--pool_size", type=IMAGES.or_0, default=50, help="fakes that each pool stores; 0: none")
# fmt: on


def read_data(args, multiple):
    """(pictures to train on, pictures to show: of the test set, or the same without one)."""
    root = translation.root_of(args)
    training, plain = translation.geometries(args, multiple)
    channels = (args.input_nc, args.output_nc)
    files = [domain_files(root, "train", domain) for domain in "AB"]
    how = {"channels": channels, "skip_bad": args.skip_bad_images}
    data = Unpaired(*files, training, serial=args.serial_batches, **how)
    if has_split(root, "test"):
        files = [domain_files(root, "test", domain) for domain in "AB"]
    return data, Unpaired(*files, plain, serial=True, **how)


def generators(arch):
    """{name in checkpoints: function that builds the network} of those that draw."""
    A = arch.input_nc
    B = arch.output_nc
    return {
        "generator_A": partial(Generator, arch, A, B),
        "generator_B": partial(Generator, arch, B, A),
    }


class Trainer:
    """Trains CycleGAN's two G and two D: G_A makes B of A and is judged by D_A, G_B by D_B.

    Args: args, the flags of train.py; data, what `read_data` returns, where it is read already.
    """

    def __init__(self, args, data=None):
        self.args = args
        self.arch = Architecture(**{name: getattr(args, name) for name in translation.SIZES})
        if args.lambda_identity and args.input_nc != args.output_nc:
            raise UserError(
                f"--lambda_identity {args.lambda_identity:g}: needs domains of the same channels; "
                "give 0, or the same --input_nc and --output_nc"
            )
        self.data, self.held_out = read_data(args, self.arch.multiple) if data is None else data
        self.mode = {"norm": "batch", "dropout": args.dropout}
        paddle.seed(args.seed)
        self.networks = networks(self.arch)
        self.G_A, self.G_B, self.D_A, self.D_B = self.networks.values()
        self.pools = {"pool_A": ImagePool(args.pool_size), "pool_B": ImagePool(args.pool_size)}
        adam = {"beta1": 0.5, "beta2": 0.999, "amp": args.amp}
        self.update_G = Update({"A": self.G_A, "B": self.G_B}, args.learning_rate, **adam)
        self.update_D = Update({"A": self.D_A, "B": self.D_B}, args.learning_rate, **adam)
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
        """One update of both G, then one of both D, which see G's fakes through the pools.

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            a (N, input_nc, S, S) and b (N, output_nc, S, S), arrays of pictures of the domains,
            float32 in [-1, 1].
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        self.set_rates(iteration)
        rng = self._rng("step", iteration, process.rank())
        paddle.seed(int(rng.integers(2**31)))  # dropout
        a = paddle.to_tensor(a)
        b = paddle.to_tensor(b)
        logs, fake_a, fake_b = self.g_update(a, b)
        return logs | self.d_update(a, b, fake_a, fake_b, rng)

    def g_update(self, a, b):
        """One Adam step of both G on eq. 3 and the identity loss, D fixed.

        Returns: (logs, the fakes of A and of B that G made before it).
        """
        args = self.args
        with self.update_D.frozen(), self.update_G.autocast():
            fake_b = self.G_A(a)
            cycle_a = self.G_B(fake_b)
            fake_a = self.G_B(b)
            cycle_b = self.G_A(fake_a)
            losses = {}
            if args.lambda_identity:
                same_b = args.lambda_B * distance(self.G_A(b).astype("float32"), b)
                same_a = args.lambda_A * distance(self.G_B(a).astype("float32"), a)
                losses["idt_A"] = args.lambda_identity * same_b
                losses["idt_B"] = args.lambda_identity * same_a
            logits_b = self.D_A(fake_b).astype("float32")
            logits_a = self.D_B(fake_a).astype("float32")
            losses["G_A"] = gan_loss(logits_b, True, args.gan_mode)
            losses["G_B"] = gan_loss(logits_a, True, args.gan_mode)
            losses["cycle_A"] = args.lambda_A * distance(cycle_a.astype("float32"), a)
            losses["cycle_B"] = args.lambda_B * distance(cycle_b.astype("float32"), b)
            loss = sum(losses.values())
            self.update_G.backward(loss, G=loss, **losses)
        fakes = [fake.detach().astype("float32") for fake in (fake_a, fake_b)]
        return self.update_G.step(), *fakes

    def d_update(self, a, b, fake_a, fake_b, rng):
        """One Adam step of both D, each on half its loss for real pictures and for pooled fakes."""
        args = self.args
        old_b = self.pools["pool_B"].query(fake_b, rng)
        old_a = self.pools["pool_A"].query(fake_a, rng)
        for name, D, real, fake in (("D_A", self.D_A, b, old_b), ("D_B", self.D_B, a, old_a)):
            with self.update_D.autocast():
                d_real = D(real).astype("float32")
                d_fake = D(fake).astype("float32")
            loss_real = gan_loss(d_real, True, args.gan_mode)
            loss_fake = gan_loss(d_fake, False, args.gan_mode)
            loss = 0.5 * (loss_real + loss_fake)
            if args.gan_mode == "wgangp":
                alpha = paddle.to_tensor(rng.random((len(real), 1, 1, 1), dtype=np.float32))
                loss = loss + args.lambda_gp * gradient_penalty(D, real, fake, alpha)
            self.update_D.backward(loss, **{name: loss})
        return self.update_D.step()

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
                    run.picture("samples", self.sheet())
                if run.due(a.eval_every):
                    run.score(self.fakes(run.eval_samples))
        return run.exit_code

    def _run(self, notes):
        about = {"crop_size": self.args.crop_size, "mode": self.mode}
        return Run(
            self.args,
            lambda: self.total,
            self.networks,
            updates={"g": self.update_G, "d": self.update_D},
            about={
                "paper": "cyclegan",
                "architecture": self.arch.to_dict(),
                "batches_per_epoch": self.per_epoch,
                **about,
            },
            extras=self.pools,
            check=self.check,
            real=self.held_out,
            eval_samples=min(self.args.eval_samples, len(self.held_out.files_a)),
            epochs=self.epochs,
            save_epochs=int(self.args.save_checkpoints),
            notes=notes,
        )

    def shown(self, indices):
        """(index, (A, B)) of pictures to show."""
        return readable(self.held_out, indices, self.args.skip_bad_images)

    def draw(self, run, x, index):
        """What the `Runner` of a generator draws of x (1, C, S, S), an array, as test.py does."""
        return translation.draw(run, x, self.mode, 0, index)

    def sheet(self):
        """A row for some pictures of A, and of B beside: itself, translated, translated back, and
        what the generator of its own domain makes of it.
        """
        alike = self.arch.input_nc == self.arch.output_nc  # only then there is an identity
        cells = []
        to_b = Runner(self.G_A, pixels=0)
        to_a = Runner(self.G_B, pixels=0)
        for index, (a, b) in self.shown(translation.some(len(self.held_out))):
            for x, there, back in ((a, to_b, to_a), (b, to_a, to_b)):
                fake = self.draw(there, x[None], index)
                cells += [x[None], fake, self.draw(back, fake, index)]
                if alike:
                    cells.append(self.draw(back, x[None], index))
        titles = ["real", "fake", "cycle", *["identity"] * alike]
        images = np.concatenate([rgb(to_uint8(x)) for x in cells])
        return grid(images, 2 * len(titles), column_labels=titles * 2)

    def fakes(self, number):
        """The first `number` pictures of A translated, one by one."""
        run = Runner(self.G_A, pixels=number * self.args.crop_size**2)
        for index, (a, _) in self.shown(range(number)):
            yield rgb(to_uint8(self.draw(run, a[None], index)))

    def start_from(self, state, source):
        """Begin a new run from the weights in `state` (convert.read_weights), of any networks.

        Returns: lines for the log. Raises: UserError when they are of other networks.
        """
        self.arch.check_same(state, source, translation.free_fields(self.arch, state))
        return start_from(self.networks, state, source)

    def check(self, state, source):
        """Raise UserError where a checkpoint is of other networks, or its pools of other sizes."""
        if state.get("crop_size") != self.args.crop_size:
            raise UserError(
                f"{source}: its pools hold pictures of {state.get('crop_size')} px; resume with "
                "the same --crop_size, or start anew from it by --init_model"
            )
        self.arch.check_same(state, source)
