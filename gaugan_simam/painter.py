"""A trained generator with what it takes to ask it: label maps in, pictures out. For test.py and
demo.py.
"""

from pathlib import Path

import numpy as np
import paddle

from config import load_config, settings
from convert import read_weights
from dataset import resize_ids
from model import Architecture, Encoder, Generator, semantics
from shared_metrics import weights
from shared_metrics.errors import UserError
from shared_metrics.images import read_rgb, to_uint8

UNKNOWN = "unknown"
# What the configuration tells of a bare file of weights; a checkpoint tells it itself.
FROM_CONFIG = (
    "ngf",
    "num_upsampling_layers",
    "crop_size",
    "aspect_ratio",
    "norm_G",
    "use_vae",
    "label_nc",
)
FROM_CONFIG += ("contain_dontcare_label", "no_instance")
# PaddleGAN publishes no list of photopen.pdparams' classes; these are read off its sample maps, by
# eye.
PHOTOPEN_NAMES = {
    1: "sky",
    2: "tree",
    4: "grass",
    6: "ground",
    7: "mountain",
    9: "water",
    10: "rock",
}


class Painter:
    """A generator in eval mode, out of a checkpoint, converted or published weights.

    Args: path; use_ema, take the averaged generator where the file has one; bn_mode, BatchNorm
        statistics: "running", those of training, or "batch", of each batch drawn; changes, fields
            of Architecture for published files, see
        `convert.read_weights`.
    Attributes: arch; found, the file's dict; kind, "ema" or "raw".
    Raises: UserError when the file holds no generator or does not fit.
    """

    def __init__(self, path, use_ema=True, bn_mode="running", changes=None):
        self.path, self.found = path, read_weights(path, **(changes or {}))
        average = self.found.get("generator_ema") if use_ema else None
        self.kind = "ema" if average else "raw"
        self.arch = Architecture.from_dict(self.found["architecture"])
        self.generator = Generator(self.arch)
        weights.load_into(self.generator, average or self.found["generator"], "generator", path)
        self.generator.eval()
        if bn_mode == "batch":
            for layer in self.generator.sublayers():
                if isinstance(layer, paddle.nn.BatchNorm2D):
                    layer.train()

    def paint(self, labels, instances=None, z=None):
        """uint8 pictures (N, *arch.size, 3) of label maps, int64 (N, H, W) in [0, arch.nc), of any
        side.

        Args: instances, int64 (N, H, W), whose edges the network sees; None: the labels'. z (N,
            z_dim) float32, where the network takes a latent.
        Raises: UserError where the network's answer is NaN.
        """
        maps = [ids if ids is None else self._resized(ids) for ids in (labels, instances)]
        with paddle.no_grad():
            seg = semantics(*maps, self.arch)
            images = self.generator(seg, None if z is None else paddle.to_tensor(z)).numpy()
        if np.isnan(images).any():
            raise UserError(
                f"{self.path}: the network draws NaN; its training went wrong, take an earlier "
                "checkpoint"
            )
        return to_uint8(images)

    def _resized(self, ids):
        height, width = self.arch.size
        if ids.shape[1:] == (height, width):
            return ids
        return np.stack([resize_ids(one, width, height) for one in ids])

    def style(self, path):
        """The latent (z_dim,) of a photo: the encoder's mean. Raises UserError when the file has no
        encoder.
        """
        if "encoder" not in self.found:
            raise UserError(
                f"--style_image {path}: {self.path} holds no encoder. Give a checkpoint with one, "
                "or join NVlabs' file "
                "by `python convert.py SRC DST --encoder latest_net_E.pth`"
            )
        encoder = Encoder(self.arch)
        weights.load_into(encoder, self.found["encoder"], "encoder", self.path)
        encoder.eval()
        height, width = self.arch.size
        photo = (
            np.asarray(read_rgb(path).resize((width, height)), np.float32).transpose(2, 0, 1)
            / 127.5
            - 1.0
        )
        with paddle.no_grad():
            return encoder(paddle.to_tensor(photo[None]))[0].numpy()[0]

    def names(self, given=""):
        """The names of the label ids, `arch.nc` texts: those given, else those known of published
        weights, or numbers.

        Args: given, the value of --class_names: a file with one name a line, or names joined by
            commas.
        """
        arch, found = self.arch, []
        if given:
            file = Path(given).expanduser()
            found = [
                name.strip() for name in (_lines(file) if file.is_file() else given.split(","))
            ]
        if not found:
            known = (
                PHOTOPEN_NAMES if self.found.get("source", {}).get("family") == "photopen" else {}
            )
            found = [known.get(i, f"class {i}") for i in range(arch.label_nc)]
        if len(found) == arch.label_nc and arch.contain_dontcare_label:
            found.append(UNKNOWN)
        if len(found) != arch.nc:
            raise UserError(
                f"--class_names: {len(found)} names, but the network has classes 0 to "
                f"{arch.label_nc - 1}"
                f"{' and unknown' if arch.contain_dontcare_label else ''}; give one name a class, "
                "in their order"
            )
        return found


def _lines(file):
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(
            f"--class_names {file}: not a text file in UTF-8; write one name a line"
        ) from None


def latents(seed, first, count, z_dim):
    """z (count, z_dim) float32, row i: `np.random.RandomState(seed + first + i).randn(z_dim)`."""
    seeds = range(seed + first, seed + first + count)
    return np.stack([np.random.RandomState(s % 2**32).randn(z_dim) for s in seeds]).astype(
        np.float32
    )


def load_painter(args):
    """`Painter` of --weight_path as test.py's and demo.py's flags ask for it; --config-file
    completes bare weights.

    Prints what was assumed of a published file, and where a checkpoint knows better than the
    configuration.
    """
    told = settings(load_config(args.config_file)) if args.config_file else {}
    changes = {name: told[name] for name in FROM_CONFIG if name in told}
    painter = Painter(args.weight_path, args.use_ema, args.bn_mode, changes)
    for note in painter.found.get("notes", ()):
        print(f"{args.weight_path}: {note}")
    arch = painter.arch.to_dict()
    odd = [
        f"{name} {arch[name]}, not {value}"
        for name, value in changes.items()
        if arch[name] != value
    ]
    if odd:
        print(
            f"{args.weight_path}: tells its architecture itself; --config-file has no say in it "
            f"({', '.join(odd)})"
        )
    return painter
