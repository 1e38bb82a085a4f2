"""A trained generator with what it takes to ask it: label maps in, pictures out. For predict.py,
test.py and demo.py.
"""

from functools import partial
from pathlib import Path

import numpy as np
import paddle

from config import load_config, settings
from convert import read_weights
from model import Architecture, Encoder, Generator, semantics
from shared_metrics import testing, weights
from shared_metrics.errors import UserError
from shared_metrics.files import read_text, shown
from shared_metrics.images import read_rgb
from shared_metrics.inference import Runner
from shared_metrics.label_maps import resize_ids

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

    Args: path; use_ema, take the averaged generator where the file has one; bn_stats, BatchNorm
        statistics: "running", those of training, or "batch", of each batch drawn; changes, fields
        of Architecture for published files, see `convert.read_weights`.
    Attributes: arch; state, the file's dict; kind, "ema" or "raw".
    Raises: UserError when the file holds no generator or does not fit.
    """

    def __init__(self, path, use_ema=True, bn_stats="running", changes=None):
        self.path = path
        self.state = read_weights(path, **(changes or {}))
        arrays, self.kind = testing.generator_weights(self.state, use_ema, path)
        self.arch = Architecture.from_dict(self.state["architecture"])
        self.generator = weights.build(
            partial(Generator, self.arch), arrays, what="generator", source=path
        )
        testing.set_bn_stats(self.generator, bn_stats)
        self.run = Runner(self.generator)

    def expect(self, number):
        """Make ready for so many pictures in all, or infinitely many."""
        height, width = self.arch.size
        self.run.pixels = number * height * width

    def paint(self, labels, instances=None, z=None):
        """uint8 pictures (N, *arch.size, 3) of label maps, int64 (N, H, W) in [0, arch.nc), of any
        side.

        Args: instances, int64 (N, H, W), whose edges the network sees; None: the labels'. z (N,
            z_dim) float32, where the network takes a latent.
        Raises: UserError where the network's answer is NaN.
        """
        maps = [ids if ids is None else self._resized(ids) for ids in (labels, instances)]
        seg = semantics(*maps, self.arch)
        return testing.pixels(self.run(seg) if z is None else self.run(seg, z), self.path)

    def _resized(self, ids):
        height, width = self.arch.size
        if ids.shape[1:] == (height, width):
            return ids
        return np.stack([resize_ids(one, width, height) for one in ids])

    def style(self, path):
        """The latent (z_dim,) of a photo: the encoder's mean. Raises UserError when the file has no
        encoder.
        """
        if "encoder" not in self.state:
            raise UserError(
                f"--style_image {path}: {self.path} holds no encoder. Give a checkpoint with one, "
                "or join NVlabs' file "
                "by `python convert.py SRC DST --encoder latest_net_E.pth`"
            )
        make = partial(Encoder, self.arch)
        encoder = weights.build(make, self.state["encoder"], "encoder", self.path)
        encoder.eval()
        height, width = self.arch.size
        photo = read_rgb(path, rotate=True)
        photo = np.asarray(photo.resize((width, height)), np.float32)
        photo = photo.transpose(2, 0, 1) / 127.5 - 1.0
        with paddle.no_grad():
            return encoder(paddle.to_tensor(photo[None]))[0].numpy()[0]

    def names(self, text=""):
        """The names of the label ids, `arch.nc` texts: those of `text`, else those known of
        published weights, or numbers.

        Args: text, the value of --class_names: a file with one name a line, or names joined by
            commas.
        """
        arch = self.arch
        if text:
            file = Path(text).expanduser()
            names = _lines(file) if file.is_file() else text.split(",")
            names = [name.strip() for name in names]
        else:
            photopen = self.state.get("source", {}).get("family") == "photopen"
            published = PHOTOPEN_NAMES if photopen else {}
            names = [published.get(i, f"class {i}") for i in range(arch.label_nc)]
        if len(names) == arch.label_nc and arch.contain_dontcare_label:
            names.append(UNKNOWN)
        if len(names) != arch.nc:
            unknown = " and unknown" if arch.contain_dontcare_label else ""
            raise UserError(
                f"--class_names: {len(names)} names, but the network has classes 0 to "
                f"{arch.label_nc - 1}{unknown}; give one name a class, in their order"
            )
        return names


def _lines(file):
    try:
        return [line for line in read_text(file).splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(
            f"--class_names {file}: not a text file in UTF-8; write one name a line"
        ) from None


def load_painter(args):
    """`Painter` of --pretrained_model as the flags ask for it; --config-file completes bare
    weights.

    Prints what was assumed of a published file, and where a checkpoint knows better than the
    configuration.
    """
    config = settings(load_config(args.config_file)) if args.config_file else {}
    changes = {name: config[name] for name in FROM_CONFIG if name in config}
    painter = Painter(args.pretrained_model, args.use_ema, args.bn_stats, changes)
    for note in painter.state.get("notes", ()):
        print(shown(f"{painter.path}: {note}"))
    arch = painter.arch.to_dict()
    odd = []
    for name, value in changes.items():
        if arch[name] != value:
            odd.append(f"{name} {arch[name]}, not {value}")
    if odd:
        print(
            f"{painter.path}: tells its architecture itself; --config-file has no say in it "
            f"({', '.join(odd)})"
        )
    return painter
