"""Pictures drawn from pictures: what Pix2Pix and CycleGAN show of their G, and test.py draws.

Pictures are float32 (N, C, H, W) in [-1, 1]. How G's norm layers and dropout work when it is shown
is a `mode`, {"norm": "batch" or "running", "dropout": whether}, which checkpoints keep: a test
draws as the training has shown.
"""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from dataset import Geometry
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import CHANNELS, LAYERS, amount, not_negative, truth

NETS_G = ("unet_128", "unet_256", "resnet_6block", "resnet_9block")
NETS_D = ("basic", "nlayers", "pixel")
GAN_MODES = ("vanilla", "lsgan", "wgangp")
# Flags that are fields of Architecture; and those of these that say nothing of G.
SIZES = ("net_G", "net_D", "d_nlayers", "g_base_dims", "d_base_dims", "input_nc", "output_nc")
SIZES += ("norm_type", "dropout")
# What flags need to count: see shared_metrics.needs.
NEEDS = {"lambda_gp": "gan_mode wgangp", "d_nlayers": "net_D nlayers"}
D_ONLY = ["net_D", "d_nlayers", "d_base_dims"]
SHOWN = 8  # pictures on a sheet


# fmt: off
def add_flags(parser, net_G, norm_type, dropout, gan_mode):
    """Add the flags that Pix2Pix and CycleGAN have in common. Args: their defaults."""
    switch = {"type": truth, "nargs": "?", "const": True, "metavar": "True|False"}
    add = parser.add_argument_group("translation").add_argument
    add("--flip", **switch, default=True, help="mirror pictures at random")
    add("--net_G", default=net_G, choices=NETS_G, help="generators")
    add("--net_D", default="basic", choices=NETS_D,
        help="discriminators: basic looks at patches of 70x70 px, pixel at each alone")
    add("--d_nlayers", type=LAYERS, default=3, help="layers of stride 2 in --net_D nlayers")
    add("--g_base_dims", type=CHANNELS, default=64, help="channels of a G's first layer")
    add("--d_base_dims", type=CHANNELS, default=64, help="channels of a D's first layer")
    add("--norm_type", default=norm_type, choices=["batch_norm", "instance_norm"], help="norms")
    add("--dropout", **switch, default=dropout, help="of 0.5 in G, in training and when shown")
    add("--input_nc", type=int, default=3, choices=[1, 3], help="channels of A")
    add("--output_nc", type=int, default=3, choices=[1, 3], help="channels of B")
    add("--gan_mode", default=gan_mode, choices=GAN_MODES, help="adversarial loss")
    add("--lambda_gp", type=amount, default=10.0, help="weight of the penalty of wgangp")
    add("--n_const", type=not_negative,
        help="epochs of constant learning rate (default: half of --epoch)")
    add("--n_decay", type=not_negative,
        help="then epochs in which it falls linearly towards 0 (default: the rest)")
# fmt: on


def rate_share(args, epoch):
    """Share of the learning rate in an epoch, counted from 0: 1, then falling linearly.

    1 - max(0, epoch + 1 - n_const) / (n_decay + 1), as the authors' code has it; after the last
    epoch of the decay it stays.
    """
    n_const = args.epoch // 2 if args.n_const is None else args.n_const
    n_decay = max(0, args.epoch - n_const) if args.n_decay is None else args.n_decay
    falling = min(max(0, epoch + 1 - n_const), n_decay)
    return 1.0 - falling / (n_decay + 1)


def root_of(args):
    """The data set's folder."""
    return Path(args.data_dir).expanduser() / args.dataset


def geometries(args, multiple):
    """How pictures become squares: (in training, when shown).

    Raises: UserError for squares that G or D cannot take.
    """
    strides = {"pixel": 0, "basic": 3, "nlayers": args.d_nlayers}[args.net_D]
    least = 3 * 2**strides  # D's last two layers take a row and a column each
    if strides and args.crop_size < least:
        raise UserError(
            f"--crop_size {args.crop_size}: --net_D {args.net_D} with {strides} layers of stride 2 "
            f"looks at {least} px and more; give that, --net_D pixel, or nlayers with fewer "
            "--d_nlayers"
        )
    sizes = (args.image_size, args.crop_size, args.crop_type, args.flip)
    return Geometry(*sizes, multiple), Geometry.plain(args.crop_size, multiple)


def some(number):
    """The numbers of SHOWN pictures at the most, spread evenly over a data set's `number`."""
    return np.linspace(0, number - 1, min(number, SHOWN)).astype(int).tolist()


def free_fields(arch, state):
    """Fields of an Architecture that may differ from those of a file with the networks `state`:
    what leaves no weights in a U-Net, and D's without a D.
    """
    fields = ["dropout"] if arch.net_G.startswith("unet") else []
    return fields if any(name.startswith("discriminator") for name in state) else fields + D_ONLY


@contextmanager
def shown(network, mode):
    """A network in a mode, see above. With norm "batch" its BatchNorms take the statistics of the
    pictures at hand, as in training. Nothing of the network is changed by what passes.
    """
    training = network.training
    network.eval()
    norms = [layer for layer in network.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    momenta = [layer._momentum for layer in norms]
    if mode["norm"] == "batch":
        for layer in norms:
            layer.train()
            layer._momentum = 1.0  # the share of the running statistics that stays
    for layer in network.sublayers():
        if mode["dropout"] and isinstance(layer, nn.Dropout):
            layer.train()
    try:
        yield network
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer._momentum = momentum
        network.train() if training else network.eval()


def draw(run, x, mode, seed, index):
    """What a network draws of pictures, both arrays.

    Args: run, `inference.Runner` of the network; seed, index, of the first picture in its data set:
        they fix the dropout.
    """
    paddle.seed(int(process.rng(seed, "dropout", index).integers(2**31)))
    with shown(run.network, mode):
        return run(x)
