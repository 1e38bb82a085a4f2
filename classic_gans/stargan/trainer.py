"""StarGAN's losses, its two updates and the training loop (Choi et al., CVPR 2018, sec. 3)."""

import numpy as np
import paddle
import paddle.nn.functional as F

import attributes
import face_measures
import faces
from editing import Editor
from shared_metrics import process
from shared_metrics.class_folders import any_folders_flag
from shared_metrics.flags import CHANNELS, LAYERS, PX, amount, not_negative, positive
from shared_metrics.runs.epochs import Epochs
from shared_metrics.runs.training import Run, start_from
from shared_metrics.runs.update import Update

from .model import Architecture, Discriminator, Generator

KIND = "faces"
# What flags need to count: see shared_metrics.needs.
NEEDS = faces.NEEDS | dict.fromkeys(("num_iters_decay", "lr_update_step"), "lr_decay linear")
NEEDS |= {"rafd_crop_size": "rafd_image_dir", "num_iters": "iterations no, epoch no"}
BACK = True  # sheets show each change undone, too
RECIPES = {"paddlecv": {"legacy": True, "split": "pcv", "epoch": 20, "lr_decay": "none"}}
# What published weights do not tell of their labels, see edit.py.
PUBLISHED = {"thres_int": 1.0, "crop_size": 178, "choices": [attributes.HAIR_COLOURS]}
D_ONLY = ("image_size", "d_base_dims", "d_repeat_num", "d_slope", "d_bias")  # of Architecture
SELECTED = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")


# ---- losses ----


def classification_loss(logits, labels):
    """-log D_cls(c | x) (eq. 2, 3): binary cross-entropies, summed over the attributes and averaged
    over the batch. logits and labels (N, c).
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    return loss / logits.shape[0]


def class_loss(logits, labels):
    """The same of one-hot labels (RaFD's expressions): softmax cross-entropy, the batch's mean."""
    return F.cross_entropy(logits, labels, soft_label=True)


def reconstruction_loss(real, reconstructed):
    """E |x - G(G(x, c), c')|, mean over all entries (eq. 4)."""
    return (real - reconstructed).abs().mean()


def gradient_penalty(D, real, fake, alpha):
    """E (|grad D_src(x_hat)| - 1)^2 at x_hat = alpha real + (1 - alpha) fake (eq. 8).

    Args: real, fake (N, 3, S, S); alpha (N, 1, 1, 1) in [0, 1].
    """
    x = (alpha * real + (1.0 - alpha) * fake).detach()
    x.stop_gradient = False
    (gradient,) = paddle.grad(D(x)[0].sum(), x, create_graph=True)
    # 1e-16 under the root, whose derivative at 0 is infinite.
    norm = (gradient.square().sum([1, 2, 3]) + 1e-16).sqrt()  # (N,)
    return (norm - 1.0).square().mean()


# ---- flags and data ----


# fmt: off
def add_flags(parser):
    """Add StarGAN's flags. Iterations are updates of D, as in its authors' code."""
    faces.add_flags(parser, SELECTED, split="yunjey", n_samples=8)
    add = parser.add_argument_group("StarGAN").add_argument
    add("--rafd_image_dir", default="",
        help="a second data set learned jointly: a sub-folder of pictures per class (sec. 3.3)")
    add("--rafd_crop_size", type=PX.or_0, default=256, help="its crop in px; 0: the largest")
    add("--g_base_dims", type=CHANNELS, default=64, help="width of G's first convolution")
    add("--d_base_dims", type=CHANNELS, default=64, help="width of D's first convolution")
    add("--g_repeat_num", type=LAYERS, default=6, help="residual blocks of G")
    add("--d_repeat_num", type=LAYERS, default=6, help="convolutions of D")
    add("--legacy", action="store_true",
        help="PaddleCV's D, for its weights: LeakyReLU of slope 0.2, no biases")
    add("--gan_mode", default="wgan", choices=["wgan"], help="with gradient penalty (eq. 8)")
    add("--g_lr", type=amount, default=1e-4, help="Adam's rate of G")
    add("--d_lr", type=amount, default=1e-4, help="Adam's rate of D")
    add("--n_critic", type=positive, default=5, help="updates of D per update of G")
    add("--num_iters", type=positive, default=200_000,
        help="iterations, where neither --iterations nor --epoch is given")
    add("--num_iters_decay", type=not_negative,
        help="the last of these, in which the rates fall to 0; None: half of all")
    add("--lr_decay", default="linear", choices=["linear", "none"],
        help="none: constant in effect, as the released code's")
    add("--lr_update_step", type=positive, default=1000, help="iterations between new rates")
    add("--lambda_cls", type=amount, default=1.0, help="weight of the classification (eq. 5, 6)")
    add("--lambda_rec", type=amount, default=10.0, help="weight of the reconstruction (eq. 6)")
    add("--lambda_gp", type=amount, default=10.0, help="weight of the gradient penalty (eq. 8)")
    any_folders_flag(add)
    parser.set_defaults(batch_size=16, epoch=0, image_size=128, crop_size=178)
# fmt: on


def read_data(args):
    """([training set, perhaps a second one], faces to test on), as the flags say: a list of
    attributes, or class folders where the data set's folder holds no list.
    """
    root = faces.data_folder(args)
    sizes = {"image_size": args.image_size, "crop_size": args.crop_size}
    celeba = args.train_list or (root / "img_align_celeba").is_dir()
    if celeba or faces.list_of(args, "train").is_file():
        sets = [faces.open_celeba(args, "train", flip=True)]
        held_out = faces.open_celeba(args, "test")
        attributes.check_varied(sets[0], faces.list_of(args, "train"))
    else:
        sets = [faces.class_folders(root, **sizes, flip=True, any_folders=args.any_folders)]
        held_out = faces.class_folders(root, **sizes, any_folders=args.any_folders)
    if args.rafd_image_dir:
        sizes["crop_size"] = args.rafd_crop_size
        how = {"flip": True, "any_folders": args.any_folders}
        sets.append(faces.class_folders(args.rafd_image_dir, **sizes, **how))
    return sets, held_out


def label_parts(sets):
    """Which of D's outputs the labels of each data set speak of, and the loss: [(slice, loss)]."""
    parts = []
    start = 0
    for data in sets:
        columns = slice(start, start + len(data.names))
        parts.append((columns, class_loss if data.one_hot else classification_loss))
        start = columns.stop
    return parts


def about_labels(args, sets):
    """What a checkpoint keeps of the labels, see editing.Editor; one hair colour, and one class, is
    always on.
    """
    about = faces.about(args, sets[0])
    choices = attributes.groups(",".join(attributes.HAIR_COLOURS), sets[0].names)
    classes = [list(data.names) for data in sets if data.one_hot]
    about["selected_attrs"] = sum((list(data.names) for data in sets), [])
    about["exclusive"] += classes
    about["choices"] = choices + classes
    about["first"] = len(sets[0].names) if len(sets) == 2 else 0
    about["thres_int"] = PUBLISHED["thres_int"]
    return about


def architecture(args, c_dim, c2_dim=0):
    """The networks that the flags name, for so many labels of the first and second data set."""
    return Architecture(
        image_size=args.image_size,
        c_dim=c_dim,
        c2_dim=c2_dim,
        g_base_dims=args.g_base_dims,
        d_base_dims=args.d_base_dims,
        g_repeat_num=args.g_repeat_num,
        d_repeat_num=args.d_repeat_num,
        d_slope=0.2 if args.legacy else 0.01,
        d_bias=not args.legacy,
    )


def condition(source, target):
    """What G is told to turn faces of `source` into `target`, both intensities (N, labels) in
    [-1, 1]: labels in [0, 1].
    """
    return (target + 1.0) / 2.0


# ---- training ----


class Trainer:
    """Trains StarGAN's G and D.

    Args: args, the flags of train.py; data, what `read_data` returns, where it is read already.
    """

    def __init__(self, args, data=None):
        self.args = args
        sets, held_out = read_data(args) if data is None else data
        self.counts = "; ".join(attributes.describe(data) for data in sets)
        self.parts = label_parts(sets)
        self.about = about_labels(args, sets)
        self.arch = architecture(args, *(len(data.names) for data in sets))
        if len(sets) == 2:
            held_out = faces.jointly(held_out, sets[1])[0]
            sets = faces.jointly(*sets)
        self.sets = sets
        self.held_out = held_out
        self.shown = faces.some(held_out, args.n_samples, args.skip_bad_images)
        paddle.seed(args.seed)
        self.G = Generator(self.arch)
        self.D = Discriminator(self.arch)
        self.update_G = Update(self.G, args.g_lr, beta1=0.5, beta2=0.999, amp=args.amp)
        self.update_D = Update(self.D, args.d_lr, beta1=0.5, beta2=0.999, amp=args.amp)
        self.networks = {"generator": self.G, "discriminator": self.D}
        self.editor = Editor(self.G, condition, self.about)
        self.judge = face_measures.open_judge(args.attribute_judge, self.editor.own_names)
        size = (args.batch_size, process.world_size(), args.drop_last)
        self.epochs = [Epochs(len(data), *size) for data in sets]
        self.per_epoch = self.epochs[0].per_epoch

    @property
    def total(self):
        """Iterations in all: --iterations, or those of --epoch, or --num_iters."""
        a = self.args
        return a.iterations or (self.epochs[0].end(a.epoch) if a.epoch else a.num_iters)

    def describe(self):
        """One line on the data for the log."""
        return self.counts

    def set_rates(self, iteration):
        """Both rates fall linearly to 0 in the last `num_iters_decay` iterations, anew every
        `lr_update_step` of them.
        """
        a = self.args
        decay = self.total // 2 if a.num_iters_decay is None else a.num_iters_decay
        share = 1.0
        if a.lr_decay == "linear" and decay:
            start = iteration - iteration % a.lr_update_step
            share = min(1.0, (self.total - start) / decay)
        self.update_G.set_rate(share * a.g_lr)
        self.update_D.set_rate(share * a.d_lr)

    def train_step(self, iteration, streams):
        """One update of D on a new batch of each data set; every `n_critic`-th time also one of G
        on the same batch.

        Args: iteration, counts from 0 and fixes with the seed and rank every draw of the step;
            streams, of each data set an iterator of (x (N, 3, S, S) float32 in [-1, 1], labels
            (N, planes) float32) arrays.
        Returns: dict of detached 0-d tensors. `float()` them only to log: it waits for the GPU.
        """
        self.set_rates(iteration)
        logs = {}
        for which, batches in enumerate(streams):
            rng = process.rng(self.args.seed, "step", iteration, which, process.rank())
            x, labels = next(batches)
            # Labels that faces have, and as often: those of the other faces of the batch.
            target = paddle.to_tensor(labels[rng.permutation(len(labels))])
            x = paddle.to_tensor(x)
            source = paddle.to_tensor(labels)
            losses = self.d_update(x, source, target, which, rng)
            if (iteration + 1) % self.args.n_critic == 0:
                losses |= self.g_update(x, source, target, which)
            logs |= {f"{name}_{which + 1}" if which else name: v for name, v in losses.items()}
        return logs

    def d_update(self, x, source, target, which, rng):
        """One Adam step of D on L_D = -L_adv + lambda_cls L_cls^r (eq. 5, 8, 2)."""
        a = self.args
        columns, label_loss = self.parts[which]
        with self.update_D.autocast():
            src_real, cls_real = self.D(x)  # (N, 1, S/64, S/64), (N, outputs)
            with paddle.no_grad():  # G is fixed here
                fake = self.G(x, target)  # (N, 3, S, S)
            src_fake, _ = self.D(fake)
        loss_real = -src_real.astype("float32").mean()
        loss_fake = src_fake.astype("float32").mean()
        loss_cls = label_loss(cls_real.astype("float32")[:, columns], source[:, columns])
        alpha = paddle.to_tensor(rng.random((len(x), 1, 1, 1), dtype=np.float32))
        # Outside of autocast: it is differentiated twice.
        penalty = gradient_penalty(self.D, x, fake.astype("float32"), alpha)
        loss = loss_real + loss_fake + a.lambda_cls * loss_cls + a.lambda_gp * penalty  # eq. 5, 8
        self.update_D.backward(
            loss,
            d_loss=loss,
            d_loss_real=loss_real,
            d_loss_fake=loss_fake,
            d_loss_cls=loss_cls,
            d_loss_gp=penalty,
        )
        return self.update_D.step()

    def g_update(self, x, source, target, which):
        """One Adam step of G on L_G = L_adv + lambda_cls L_cls^f + lambda_rec L_rec (eq. 6), with
        the updated D and fakes made anew.
        """
        a = self.args
        columns, label_loss = self.parts[which]
        with self.update_D.frozen():
            with self.update_G.autocast():
                fake = self.G(x, target)
                src_fake, cls_fake = self.D(fake)
                reconstructed = self.G(fake, source)  # back to what the faces were
            loss_fake = -src_fake.astype("float32").mean()
            loss_cls = label_loss(cls_fake.astype("float32")[:, columns], target[:, columns])
            loss_rec = reconstruction_loss(x, reconstructed.astype("float32"))
            loss = loss_fake + a.lambda_cls * loss_cls + a.lambda_rec * loss_rec  # eq. 6
            self.update_G.backward(
                loss,
                g_loss=loss,
                g_loss_fake=loss_fake,
                g_loss_cls=loss_cls,
                g_loss_rec=loss_rec,
            )
        return self.update_G.step()

    def train(self, notes=()):
        """Step, log, show, score, save, until the last iteration or a signal.

        Args: notes, lines for the head of the log. Returns: 0, or 128 + the signal.
        Raises: NotFinite when a loss is NaN.
        """
        a = self.args
        with self._run(notes) as run:
            sets = zip(self.sets, self.epochs, strict=True)
            streams = [run.batches(*each, shuffle=a.shuffle) for each in sets]
            for iteration in run:
                run.log(self.train_step(iteration, streams))
                if run.due(a.sample_every, epochs=int(a.run_test), last=True):
                    run.picture("samples", self.editor.sheet(*self.shown, back=True))
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
                "paper": "stargan",
                "architecture": self.arch.to_dict(),
                "batches_per_epoch": self.per_epoch,
                **self.about,
            },
            check=self.check,
            real=self.sets[0],
            eval_samples=min(a.eval_samples, len(self.held_out)),
            epochs=self.epochs,
            save_epochs=int(a.save_checkpoints),
            images=a.batch_size * len(self.sets) * process.world_size(),
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
        attributes.check_same(self.about["selected_attrs"], state, source)
        self.arch.check_same(state, source, () if "discriminator" in state else D_ONLY)
