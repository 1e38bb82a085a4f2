"""Segmentation: says which class each pixel of a picture shows. A small U-Net trained here, and
exported networks.
"""

from functools import partial
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from shared_metrics import fast, files, weights
from shared_metrics.errors import UserError
from shared_metrics.inference import Runner, run_layer
from shared_metrics.judges import training
from shared_metrics.judges.classifier import convolutions
from shared_metrics.judges.exports import find_graph, open_export
from shared_metrics.judges.pairs import Pairs
from shared_metrics.judges.pictures import in_order, normalized, resized
from shared_metrics.label_maps import resize_ids

# Mean and deviation of RGB in [0, 1] that PaddleSeg's configurations use, and ours.
HALF = (0.5, 0.5, 0.5)


class UNet(nn.Layer):
    """Photos (N, 3, H, W) -> logits (N, num_classes, H, W), any H and W from 8 on (Ronneberger et
    al., MICCAI 2015).

    Three halvings of the side, each doubling `width` channels, and back with the features of the
    same side beside.
    """

    def __init__(self, num_classes, width=8):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.stem = nn.Sequential(*convolutions(3, width))  # (N, width, H, W)
        down = [nn.Sequential(*convolutions(i, o, stride=2)) for i, o in steps]
        up = [nn.Sequential(*convolutions(i + o, i)) for i, o in steps]
        self.down = nn.LayerList(down)  # H/2, H/4, H/8
        self.up = nn.LayerList(up[::-1])  # H/4, H/2, H
        self.head = nn.Conv2D(width, num_classes, 1)  # (N, num_classes, H, W)

    def forward(self, x):
        levels = [self.stem(x)]
        for block in self.down:
            levels.append(block(levels[-1]))
        h = levels.pop()
        for block, beside in zip(self.up, reversed(levels), strict=True):
            h = enlarged(h, *beside.shape[2:])
            h = block(paddle.concat([h, beside], 1))
        return self.head(h)


def enlarged(x, height, width):
    """(N, C, h, w) -> (N, C, height, width) of the nearest pixels."""
    _, _, h, w = x.shape
    if (height, width) == (2 * h, 2 * w):  # Paddle's own is slow, and fails in programs of oneDNN
        return fast.upsample(x)
    return F.interpolate(x, size=[height, width], mode="nearest")


class Segmenter:
    """A network with what it takes to ask it.

    Args:
        network: function from a normalised float32 array (N, 3, H, W) to an array: logits (N,
            classes, h, w) or ids (N, h, w) or (N, 1, h, w).
        mean, std: (3,) of RGB in [0, 1].
        info: what a record tells of it.
        size: side to which the shorter side of pictures is brought first (0: none).
        offset: added to the network's ids.
        num_classes: None where it is not known.
    """

    def __init__(self, network, mean, std, info, size=0, offset=0, num_classes=None):
        self.network = network
        self.mean = mean
        self.std = std
        self.info = info
        self.size = size
        self.offset = offset
        self.num_classes = num_classes

    def predict(self, images):
        """The id of each pixel, int64 (N, H, W), of uint8 pictures (N, H, W, 3). Resizing is
        bilinear, of ids nearest.

        Raises: UserError when what the network answers is neither logits nor ids.
        """
        height, width = images.shape[1:3]
        if self.size:
            scale = self.size / min(height, width)
            images = resized(images, round(width * scale), round(height * scale))
        answer = self.network(normalized(images, self.mean, self.std))
        if answer.ndim == 4 and answer.dtype.kind == "f" and answer.shape[1] > 1:
            answer = answer.argmax(1)
        ids = answer[:, 0] if answer.ndim == 4 and answer.shape[1] == 1 else answer
        if ids.ndim != 3 or ids.dtype.kind not in "iu" or len(ids) != len(images):
            raise UserError(
                f"--segmenter {self.info['file']}: answers {answer.dtype} {answer.shape} to "
                f"{len(images)} pictures; "
                "export a network that gives logits (N, classes, h, w) or ids (N, h, w)"
            )
        ids = ids.astype(np.int64) + self.offset
        if ids.shape[1:] == (height, width):
            return ids
        return np.stack([resize_ids(one, width, height) for one in ids])


class Confusion:
    """Counts pixels by (true class, class seen), for pixel accuracy and mean intersection over
    union.

    Pixels of unknown truth do not count. Where the network sees an id that is no class, the pixel
    is wrong. Of fewer than two true classes there is nothing to tell apart, and no score.
    Args: num_classes, ids 0 to num_classes - 1; ignore, further ids whose pixels do not count.
    """

    def __init__(self, num_classes, ignore=()):
        self.num_classes = num_classes
        self.ignore = list(ignore)
        # The last column counts what is seen as no class.
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, labels, seen):
        """Take true ids and ids seen, int64 arrays of one shape."""
        K = self.num_classes
        counted = (labels >= 0) & (labels < K) & ~np.isin(labels, self.ignore)
        column = np.where((seen >= 0) & (seen < K), seen, K)
        cells = labels[counted] * (K + 1) + column[counted]
        self.counts += np.bincount(cells, minlength=K * (K + 1)).reshape(K, K + 1)

    def scores(self, suffix=""):
        """{"pixel_accuracy", "miou"}, the names with the suffix; {} where `nothing` says why."""
        if self.nothing():
            return {}
        return {f"pixel_accuracy{suffix}": self.pixel_accuracy(), f"miou{suffix}": self.miou()}

    def nothing(self):
        """Why there is no score; "" where there is one."""
        known = np.flatnonzero(self.counts.sum(1)).tolist()
        if len(known) > 1:
            return ""
        what = f"only class {known[0]}" if known else f"no class 0 to {self.num_classes - 1}"
        return (
            f"no mIoU, no pixel accuracy: {what} occurs in the maps (255 is unknown), and to see "
            "it everywhere would be perfect; give maps of two classes or more"
        )

    def pixel_accuracy(self):
        """Share of the pixels of known class whose class is seen."""
        return float(np.trace(self.counts) / self.counts.sum())

    def ious(self):
        """{class: intersection / union} of the classes that occur, in the truth or in what is
        seen.
        """
        both = np.diag(self.counts)
        union = self.counts.sum(1) + self.counts[:, :-1].sum(0) - both
        return {int(k): float(both[k] / union[k]) for k in np.flatnonzero(union)}

    def miou(self):
        """Mean of `ious`: classes absent from truth and prediction are left out."""
        return float(np.mean(list(self.ious().values())))


def load_segmenter(path, mean=HALF, std=HALF, size=0, offset=0):
    """`Segmenter` from a file of `python -m shared_metrics.judges segmenter`, or from an exported
    network, named as `exports.find_graph` says.

    Args: mean, std, size, offset: of exports alone, see `Segmenter`.
    Raises: UserError naming the file when it is damaged, of another kind, or does not fit the
        network.
    """
    graph = find_graph(Path(path).expanduser())
    if graph:
        if min(std) <= 0:
            raise UserError(f"--segmenter_std {','.join(map(str, std))}: must be above 0")
        sha256 = files.file_sha256(graph.with_suffix(".pdiparams"))
        info = {"file": graph.name, "sha256": sha256, "model": "export"}
        return Segmenter(open_export(graph, size), mean, std, info, size, offset)
    advice = "export other networks with paddle.jit.save, since weights alone do not tell theirs"
    state = training.load("segmenter", path, advice)
    if (*mean, *std, size, offset) != (*HALF, *HALF, 0, 0):
        raise UserError(
            f"--segmenter {path}: of `python -m shared_metrics.judges segmenter`, which needs no "
            "--segmenter_mean, _std, _size, _offset"
        )
    make = partial(UNet, state["num_classes"], state["width"])
    network = weights.build(make, state["segmenter"], "segmenter", path)
    network.eval()
    size = state["crop_size"]
    info = training.about_file(path, "UNet") | {"crop_size": size, "held_out": state["scores"]}
    return Segmenter(Runner(network), HALF, HALF, info, size, num_classes=state["num_classes"])


def train(args):
    """`python -m shared_metrics.judges segmenter`: a `UNet` on -log p(class) of each pixel of known
    class.
    """
    if args.crop_size < 8:
        raise UserError(f"--crop_size {args.crop_size}: the segmenter takes pictures from 8 px on")
    if args.label_nc < 2:
        raise UserError(f"--label_nc {args.label_nc}: give two classes or more to tell apart")
    settings = {
        "label_nc": args.label_nc,
        "contain_dontcare_label": args.contain_dontcare_label,
        "crop_size": args.crop_size,
        "load_size": args.load_size,
        "preprocess": args.preprocess_mode,
    }
    data = Pairs(args.data_path, "train", **settings)
    held_out = Pairs(args.val_path or args.data_path, "val", **settings)
    held_out.palette = data.palette or held_out.palette
    network = UNet(args.label_nc, args.width)
    judge = Segmenter(partial(run_layer, network), HALF, HALF, info={})
    for line in {*data.doubts(), *held_out.doubts()}:
        print(f"warning: {line}")

    def loss(photos, labels):
        logits = network(paddle.to_tensor(normalized(photos, HALF, HALF)))
        logits = logits.transpose([0, 2, 3, 1])  # (N, H, W, classes)
        return F.cross_entropy(logits, paddle.to_tensor(labels), ignore_index=args.label_nc)

    def scores(pairs, batch_size):
        confusion = Confusion(args.label_nc)
        for photos, labels in in_order(pairs, batch_size):
            confusion.update(labels, judge.predict(photos))
        if confusion.nothing():
            print(confusion.nothing())
        return confusion.scores()

    result = training.fit(network, data, held_out, loss=loss, scores=scores, args=args)
    about = {
        "width": args.width,
        "num_classes": args.label_nc,
        "crop_size": args.crop_size,
        "scores": result,
    }
    training.save("segmenter", network, about, result, args)
