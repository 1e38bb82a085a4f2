"""Segmentation: says which class each pixel of a picture shows. A small U-Net trained here, and
exported networks.
"""

import json
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from PIL import Image

from dataset import resize_ids
from shared_metrics import files, weights
from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint

FORMAT = 1
HALF = (
    0.5,
    0.5,
    0.5,
)  # mean and deviation of RGB in [0, 1] that PaddleSeg's configurations use, and ours
GRAPHS = (".json", ".pdmodel")  # the graph of an export, by Paddle 3 and by Paddle 2


class UNet(nn.Layer):
    """Photos (N, 3, H, W) -> logits (N, num_classes, H, W), any H and W from 8 on (Ronneberger et
    al., MICCAI 2015).

    Three halvings of the side, each doubling `width` channels, and back with the features of the
    same side beside.
    """

    def __init__(self, num_classes, width=8):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.stem = _block(3, width)
        self.down = nn.LayerList(
            [_block(i, o, 2) for i, o in zip(widths, widths[1:], strict=False)]
        )
        self.up = nn.LayerList(
            [_block(i + o, i) for i, o in zip(widths, widths[1:], strict=False)][::-1]
        )
        self.head = nn.Conv2D(width, num_classes, 1)

    def forward(self, x):
        levels = [self.stem(x)]
        for block in self.down:
            levels.append(block(levels[-1]))
        h = levels.pop()
        for block, beside in zip(self.up, reversed(levels), strict=True):
            h = F.interpolate(h, size=beside.shape[2:], mode="nearest")
            h = block(paddle.concat([h, beside], 1))
        return self.head(h)


def _block(i, o, stride=1):
    first, second = (
        nn.Conv2D(i, o, 3, stride, 1, bias_attr=False),
        nn.Conv2D(o, o, 3, padding=1, bias_attr=False),
    )
    return nn.Sequential(first, nn.BatchNorm2D(o), nn.ReLU(), second, nn.BatchNorm2D(o), nn.ReLU())


class Segmenter:
    """A network with what it takes to ask it.

    Args: network, function from a normalised float32 array (N, 3, H, W) to an array: logits (N,
        classes, h, w) or ids (N, h, w) or (N, 1, h, w); mean, std (3,) of RGB in [0, 1]; size, side
        to which the shorter side of pictures is brought first (0: none); offset, added to the
        network's ids; num_classes, None where it is not known; info, what a record tells of it.
    """

    def __init__(self, network, mean, std, info, size=0, offset=0, num_classes=None):
        self.network, self.info, self.size, self.offset, self.num_classes = (
            network,
            info,
            size,
            offset,
            num_classes,
        )
        self.mean, self.std = (np.asarray(v, np.float32).reshape(1, 3, 1, 1) for v in (mean, std))

    def predict(self, images):
        """The id of each pixel, int64 (N, H, W), of uint8 pictures (N, H, W, 3). Resizing is
        bilinear, of ids nearest.

        Raises: UserError when what the network answers is neither logits nor ids.
        """
        height, width = images.shape[1:3]
        x = (
            _resized(images, self.size).transpose(0, 3, 1, 2).astype(np.float32) / 255 - self.mean
        ) / self.std
        answer = self.network(np.ascontiguousarray(x))
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


def _resized(images, size):
    """uint8 pictures with their shorter side brought to `size`; 0 leaves them."""
    height, width = images.shape[1:3]
    if not size or min(height, width) == size:
        return images
    scale = size / min(height, width)
    to = (round(width * scale), round(height * scale))
    return np.stack(
        [np.asarray(Image.fromarray(i).resize(to, Image.Resampling.BILINEAR)) for i in images]
    )


class Confusion:
    """Counts pixels by (true class, class seen), for pixel accuracy and mean intersection over
    union.

    Pixels of unknown truth do not count. Where the network sees an id that is no class, the pixel
    is wrong.
    Args: num_classes, ids 0 to num_classes - 1; ignore, further ids whose pixels do not count.
    """

    def __init__(self, num_classes, ignore=()):
        self.num_classes, self.ignore = num_classes, list(ignore)
        self.counts = np.zeros(
            (num_classes, num_classes + 1), np.int64
        )  # the last column: no class

    def update(self, labels, seen):
        """Take true ids and ids seen, int64 arrays of one shape."""
        K = self.num_classes
        known = (labels >= 0) & (labels < K) & ~np.isin(labels, self.ignore)
        seen = np.where((seen >= 0) & (seen < K), seen, K)[known]
        self.counts += np.bincount(labels[known] * (K + 1) + seen, minlength=K * (K + 1)).reshape(
            K, K + 1
        )

    def pixel_accuracy(self):
        """Share of the pixels of known class whose class is seen. Raises UserError when there are
        none.
        """
        total = self.counts.sum()
        if not total:
            raise UserError(
                "--metrics miou: no pixel of these maps is of a known class; give other maps"
            )
        return float(np.trace(self.counts) / total)

    def ious(self):
        """{class: intersection / union} of the classes that occur, in the truth or in what is
        seen.
        """
        both = np.diag(self.counts)
        union = self.counts.sum(1) + self.counts[:, :-1].sum(0) - both
        return {int(k): float(both[k] / union[k]) for k in np.flatnonzero(union)}

    def miou(self):
        """Mean of `ious`: classes absent from truth and prediction are left out."""
        self.pixel_accuracy()  # raises when nothing was counted
        return float(np.mean(list(self.ious().values())))


def save_unet(path, network, width, num_classes, crop_size, scores, args):
    """Write what `load_segmenter` reads.

    Args: crop_size, side of the photos it was trained on; scores, {"pixel_accuracy", "miou"} of
        held-out photos.
    """
    state = {
        "segmenter": checkpoint.network_state(network),
        "width": width,
        "num_classes": num_classes,
    }
    state |= {"crop_size": crop_size, "scores": scores, "args": args, "format": FORMAT}
    weights.save({**state, "sha256": files.digest(state)}, path)


def load_segmenter(path, mean=HALF, std=HALF, size=0, offset=0):
    """`Segmenter` from a file of train_segmenter.py, or from an exported network (paddle.jit.save,
    PaddleSeg's export).

    An export is named by its graph (.json of Paddle 3, .pdmodel of Paddle 2), its .pdiparams, both
    without suffix, or the folder that holds one. It is data and a graph of Paddle's own operators,
    run by paddle.inference: no Python code comes with it, and the pickle beside it
        (.pdiparams.info), which paddle.jit.load would read, is left alone.
    Args: mean, std, size, offset: of exports alone, see `Segmenter`.
    Raises: UserError naming the file when it is damaged, of another kind, or does not fit the
        network.
    """
    graph = _find_graph(Path(path).expanduser())
    if graph:
        if min(std) <= 0:
            raise UserError(f"--segmenter_std {','.join(map(str, std))}: must be above 0")
        info = {
            "file": graph.name,
            "sha256": files.file_sha256(graph.with_suffix(".pdiparams")),
            "model": "export",
        }
        return Segmenter(_exported(graph), mean, std, info, size, offset)
    state = weights.load(path)
    if not isinstance(state, dict) or "segmenter" not in state:
        raise UserError(
            f"--segmenter {path}: neither a file of train_segmenter.py nor a network exported "
            "with paddle.jit.save; "
            "weights alone do not tell their network: export it first"
        )
    if (*mean, *std, size, offset) != (*HALF, *HALF, 0, 0):
        raise UserError(
            f"--segmenter {path}: of train_segmenter.py, which needs no --segmenter_mean, _std, "
            "_size, _offset"
        )
    state = checkpoint.verified(state, path)
    network = UNet(state["num_classes"], state["width"])
    weights.load_into(network, state["segmenter"], "segmenter", path)
    info = {
        "file": Path(path).name,
        "sha256": files.file_sha256(path),
        "model": "train_segmenter.py",
    }
    info |= {"crop_size": state["crop_size"], "held_out": state["scores"]}
    return Segmenter(
        ask(network), HALF, HALF, info, state["crop_size"], num_classes=state["num_classes"]
    )


def ask(network):
    """Function float32 array -> array of a Paddle layer, in eval mode from now on."""
    network.eval()

    def answer(x):
        with paddle.no_grad():
            return network(paddle.to_tensor(x)).numpy()

    return answer


def _find_graph(path):
    """The graph file of the export that `path` names, None where it names none."""
    if path.is_dir():
        found = [
            file for file in sorted(path.iterdir()) if file.suffix in GRAPHS and _has_weights(file)
        ]
        if len(found) != 1:
            raise UserError(
                f"--segmenter {path}: holds {len(found)} exported networks; name the file of one"
            )
        return found[0]
    stem = path.with_suffix("") if path.suffix in (*GRAPHS, ".pdiparams") else path
    found = [
        file for file in (stem.with_name(stem.name + suffix) for suffix in GRAPHS) if file.is_file()
    ]
    if not found:
        return None
    graph = path if path in found else found[0]
    if not _has_weights(graph):
        raise UserError(
            f"--segmenter {graph}: its weights {graph.stem}.pdiparams are not beside it; add them"
        )
    return graph


def _has_weights(graph):
    return graph.with_suffix(".pdiparams").is_file()


def _exported(graph):
    """Function float32 array -> array of the network's first output."""
    from paddle import inference

    wrong = f"--segmenter {graph}"
    if graph.suffix == ".json":
        _check_json(graph, wrong)
    config = inference.Config(str(graph), str(graph.with_suffix(".pdiparams")))
    config.disable_glog_info()
    device = paddle.get_device()
    if device.startswith("gpu"):
        config.enable_use_gpu(256, int(device.partition(":")[2] or 0))
    try:
        predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        raise UserError(
            f"{wrong}: not a whole export ({_last_line(error)}); export it again"
        ) from None
    names = predictor.get_input_names()
    if len(names) != 1:
        raise UserError(
            f"{wrong}: wants {len(names)} inputs ({', '.join(names)}); export a network of one "
            "picture"
        )

    def answer(x):
        predictor.get_input_handle(names[0]).copy_from_cpu(x)
        try:
            predictor.run()
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"{wrong}: does not run on pictures of {x.shape[3]}x{x.shape[2]} px "
                f"({_last_line(error)}); export it "
                "for any size, or give --segmenter_size"
            ) from None
        return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

    return answer


def _check_json(graph, wrong):
    """Raise UserError where Paddle would crash: a version that does not know the format, or no
    program in the file.
    """
    if int(paddle.__version__.split(".")[0]) == 2:
        raise UserError(
            f"{wrong}: an export by Paddle 3, which Paddle {paddle.__version__} cannot read; "
            "export it anew"
        )
    try:
        program = json.loads(graph.read_text(encoding="utf-8"))
    except ValueError:
        program = None
    if not isinstance(program, dict) or "program" not in program:
        raise UserError(f"{wrong}: holds no program of Paddle; give the graph of an export")


def _last_line(error):
    lines = [
        line.strip() for line in str(error).splitlines() if line.strip() and "Hint" not in line
    ]
    return (next((line for line in reversed(lines) if "Error" in line or "(" in line), "damaged"))[
        :160
    ]
