"""Weights of the FID Inception network: published exports under one naming, or seeded random ones.

The naming is pytorch-fid's: `{Conv2d_1a_3x3 ... Mixed_7c.branch_pool}.conv.weight` and
`.bn.{weight,bias,running_mean,running_var}`, then `fc.weight` (1008, 2048), `fc.bias` (1008,).
Files without the classifier give features but no Inception Score.
"""

import math
import re

import numpy as np

from shared_metrics import files, weights
from shared_metrics.download import fetch
from shared_metrics.errors import UserError

URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = 95_628_359  # bytes
CLASSIFIER = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}


def expected_shapes(network):
    """{name: shape} of the trunk, so without the classifier, in the naming above."""
    return {torch_name(key): tuple(value.shape) for key, value in network.state_dict().items()}


def torch_name(key):
    return key.replace("._mean", ".running_mean").replace("._variance", ".running_var")


def paddle_name(key):
    return key.replace(".running_mean", "._mean").replace(".running_var", "._variance")


def random_weights(shapes, seed=2015):
    """A seeded random network, the same on every machine.

    It is drawn by numpy and centred in whole numbers, so no rounding can differ. Convolutions as He
    et al. 2015, less a fifth of each filter's mean: plain ones answer all images nearly alike,
    fully centred ones no longer tell near images from far. BatchNorm leaves its input alone; the
    classifier's rows have mean 0.
    """
    draw = np.random.RandomState(seed)

    def filters(shape, centring):
        whole = np.rint(4096 * draw.standard_normal((shape[0], math.prod(shape[1:]))))
        return (whole - centring * whole.mean(axis=1, keepdims=True)).reshape(shape) / 4096

    state = {}
    for name, shape in sorted(shapes.items()):
        if len(shape) == 4:
            # The first layer sees pixels, of mean about 0: nothing to take off.
            centring = 0 if name.startswith("Conv2d_1a") else 0.2
            # The others see a ReLU's output: its mean square is 1/2, its squared mean 1/(2 pi).
            gain = 2 / (1 - centring * (2 - centring) / math.pi)
            scale = math.sqrt(gain / math.prod(shape[1:]))
            state[name] = (filters(shape, centring) * scale).astype(np.float32)
        else:
            state[name] = np.full(shape, name.endswith(("bn.weight", "running_var")), np.float32)
    state["fc.weight"] = filters(CLASSIFIER["fc.weight"], 1).astype(np.float32)
    state["fc.bias"] = np.zeros(CLASSIFIER["fc.bias"], np.float32)
    return state


def load_inception(source, shapes):
    """Weights of the network whose trunk has these `shapes` (`expected_shapes`).

    Args: source, "random", "auto" (the published weights: cache, then download) or the path of a
        published export.
    Returns: (state {name: float32 array}, info {"source", "sha256", "comparable"}); sha256 is over
        the trunk's arrays, so that every export of the same weights has the same one.
    Raises: UserError for a file that cannot be read or is no FID Inception, and when there is no
        network for "auto".
    """
    if source == "random":
        state = random_weights(shapes)
        sha256 = trunk_sha256(state)
        return state, {"source": "random (seed 2015)", "sha256": sha256, "comparable": False}
    if source == "auto":
        source = fetch(URL, SHA256, SIZE)
    state = recognise(weights.load(source), source)
    headless = not any(key in state for key in CLASSIFIER)
    expected = shapes if headless else {**shapes, **CLASSIFIER}
    weights.check_keys(expected, state, what="FID Inception network", source=source)
    state = {key: np.ascontiguousarray(value, np.float32) for key, value in state.items()}
    weights.check_values(state, "FID Inception network", source)
    return state, {"source": str(source), "sha256": trunk_sha256(state), "comparable": True}


def trunk_sha256(state):
    return files.digest({key: value for key, value in state.items() if key not in CLASSIFIER})


def recognise(state, source):
    """The file's dict of arrays under our names, whichever export it is."""
    if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
        raise UserError(
            f"{source}: holds no named weights; expected the FID Inception network, e.g. {URL}"
        )
    # A counter of torch and a name table of Paddle.
    ignored = ("num_batches_tracked", "StructuredToParameterName@@")
    state = {key: value for key, value in state.items() if not key.endswith(ignored)}
    # Each layout is told by a block that the others name differently.
    if any(key.startswith("layers.mixed_10.") for key in state):
        return from_tero(state)
    if any(key.startswith("inception_block_list.") for key in state):
        return from_paddle_vision(state)
    return transpose_classifier({torch_name(key): value for key, value in state.items()})


def transpose_classifier(state):
    """Paddle's Linear holds (inputs, outputs), torch's the transpose."""
    weight = state.get("fc.weight")
    if np.shape(weight) == CLASSIFIER["fc.weight"][::-1]:
        state["fc.weight"] = weight.T
    return state


def from_paddle_vision(state):
    """ppdiffusers' export, in the layout of paddle.vision.

    Blocks are numbered from 5b to 7c; in each the convolution is `.0.`, BatchNorm `.1.`.
    """
    blocks = dict(enumerate(BLOCKS))
    out = {}
    for key, value in state.items():
        key = re.sub(r"^inception_stem\.c", "C", key)
        key = key.replace("Conv_", "Conv2d_")
        key = re.sub(
            r"^inception_block_list\.(\d+)\.", lambda m: f"Mixed_{blocks.get(int(m[1]))}.", key
        )
        key = key.replace(".branch_pool_conv.", ".branch_pool.")
        key = key.replace(".0.weight", ".conv.weight")
        key = re.sub(r"\.1\.(?=weight|bias|_mean|_variance)", ".bn.", key)
        out[torch_name(key)] = value
    return transpose_classifier(out)


# fmt: off
STEM = {
    "conv": "1a_3x3", "conv_1": "2a_3x3", "conv_2": "2b_3x3", "conv_3": "3b_1x1",
    "conv_4": "4a_3x3",
}
# fmt: on
BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
MIXED = {f"mixed_{i}" if i else "mixed": name for i, name in enumerate(BLOCKS)}
TOWERS = {  # block kind: tower -> branches in order
    "5": {
        "tower": ("branch5x5_1", "branch5x5_2"),
        "tower_1": ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    },
    "6a": {"tower": ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")},
    "6": {
        "tower": ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
        "tower_1": tuple(f"branch7x7dbl_{i}" for i in range(1, 6)),
    },
    "7a": {
        "tower": ("branch3x3_1", "branch3x3_2"),
        "tower_1": tuple(f"branch7x7x3_{i}" for i in range(1, 5)),
    },
}
# fmt: off
LAST_BLOCKS = {  # 7b and 7c have flat names
    "conv": "branch1x1",
    "tower_conv": "branch3x3_1",
    "tower_mixed_conv": "branch3x3_2a", "tower_mixed_conv_1": "branch3x3_2b",
    "tower_1_conv": "branch3x3dbl_1", "tower_1_conv_1": "branch3x3dbl_2",
    "tower_1_mixed_conv": "branch3x3dbl_3a", "tower_1_mixed_conv_1": "branch3x3dbl_3b",
    "tower_2_conv": "branch_pool",
}
LEAVES = {
    "weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var",
}
# fmt: on


def from_tero(state):
    """StyleGAN's TorchScript export: TF's own names, BatchNorm without gamma (= 1).

    Unknown names are kept as they are.
    """
    out = {}
    for key, value in state.items():
        match = re.fullmatch(r"layers\.(.+)\.(weight|beta|mean|var|gamma)", key)
        conv = tero_convolution(match[1]) if match else None
        if key in ("output.weight", "output.bias"):
            out[key.replace("output", "fc")] = value
        elif conv is None:
            out[key] = value
        else:
            leaf = LEAVES.get(match[2], "bn.weight")
            out[f"{conv}.{leaf}"] = value
            # Its gamma, unless the file has one: every leaf of a convolution has as many channels.
            out.setdefault(f"{conv}.bn.weight", np.ones(np.shape(value)[:1], np.float32))
    return out


def tero_convolution(path):
    """Our name of TF's convolution `path`, None for one that the graph has not.

    For example mixed_4.tower_1.conv_2 -> Mixed_6b.branch7x7dbl_3.
    """
    if path in STEM:
        return f"Conv2d_{STEM[path]}"
    mixed, _, rest = path.partition(".")
    block = MIXED.get(mixed)
    if block is None:
        return None
    if block in ("7b", "7c"):
        branch = LAST_BLOCKS.get(rest)
    elif rest == "conv" and block != "7a":  # 7a has no branch of a single convolution
        branch = "branch3x3" if block == "6a" else "branch1x1"
    elif rest == "tower_2.conv":
        branch = "branch_pool"
    else:
        tower, _, conv = rest.rpartition(".")
        branches = TOWERS.get(block, TOWERS.get(block[0], {})).get(tower, ())
        order = ["conv"] + [f"conv_{i}" for i in range(1, 5)]
        branch = dict(zip(order, branches, strict=False)).get(conv)
    return branch and f"Mixed_{block}.{branch}"
