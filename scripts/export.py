"""Export a checkpoint's generator, and hold what the exported file draws against the checkpoint.

    python scripts/export.py RUN/checkpoints/iter_0100000.pdparams --format paddle
    python scripts/export.py RUN/checkpoints/iter_0100000.pdparams --format onnx

paddle: generator.json and generator.pdiparams (Paddle 2: .pdmodel), for Paddle Inference; onnx:
generator.onnx, by paddle2onnx, for ONNX Runtime (`pip install ".[export]"`). CycleGAN has two,
generator_A and generator_B. Batches may be of any size, pictures for Pix2Pix and CycleGAN too.
Spectral norm is folded into the weights, BatchNorm takes the statistics of training, nothing drops
out. export.json beside them tells what to feed and what comes out.
"""

import argparse
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from shared_metrics import files, native, process, testing, weights
from shared_metrics.errors import UserError
from shared_metrics.flags import YES_NO, new_parser
from shared_metrics.outputs import check_folder

LIMIT = 1e-4  # how much a picture may differ, of its largest value: pictures lie in [-1, 1]
TOLD = ("classes", "selected_attrs", "thres_int")  # what a checkpoint tells of G's inputs
BATCHES = (1, 3)  # sizes at which the exported file is tried
EXTRA = 'pip install -e ".[export]" at the root of this repository installs them'


# ---- what generators take ----


def normal(rng, shape):
    return rng.standard_normal(shape, dtype=np.float32)


def uniform(rng, shape):
    return rng.uniform(-1.0, 1.0, shape).astype(np.float32)


def bits(rng, shape):
    return rng.integers(0, 2, shape).astype(np.float32)


def maps(rng, shape):
    """One-hot ids (N, ids, H, W)."""
    N, ids, H, W = shape
    return np.eye(ids, dtype=np.float32)[rng.integers(0, ids, (N, H, W))].transpose(0, 3, 1, 2)


def labels(rng, shape, classes):
    return rng.integers(0, classes, shape)


@dataclass(frozen=True)
class Input:
    """An input of a generator.

    Args: shape, but for the batch; None: any side. draw, function (rng, whole shape) of values to
        try it with. about, for those who feed it. tried, the shape that is tried.
    """

    name: str
    shape: tuple
    draw: object
    about: str
    tried: tuple = ()
    dtype: str = "float32"


def noise(size, draw, about):
    return Input("z", (size,), draw, about)


def classes(number):
    draw = partial(labels, classes=number)
    return Input("labels", (), draw, f"classes, 0 to {number - 1}", dtype="int64")


def pictures(channels, side, any_side=False):
    sides = (None, None) if any_side else (side, side)
    about = "pictures in [-1, 1]"
    return Input("x", (channels, *sides), uniform, about, (channels, side, side))


def semantic_maps(arch, height, width):
    edges = "" if arch.no_instance else ", then the edges of the instances"
    about = f"the one-hot of {arch.nc} label ids{edges}: `semantics` of model.py"
    seg = Input("seg", (arch.semantic_nc, height, width), maps, about)
    return [seg, noise(arch.z_dim, normal, "N(0, 1)")] if arch.use_vae else [seg]


def inputs_of(paper, arch, network):
    """The inputs of a paper's generator, in their order."""
    if paper == "sagan":
        return [noise(arch.z_dim, normal, "N(0, 1)"), classes(arch.num_classes)]
    if paper == "acgan":
        about = f"N(0, 1), its first {arch.num_classes} entries the one-hot of the class"
        return [noise(arch.nz, normal, about)]
    if paper == "gaugan_simam":
        return semantic_maps(arch, *arch.size)
    if paper == "spade":
        return semantic_maps(arch, arch.crop_height, arch.crop_width)
    if paper in ("cgan", "dcgan"):
        z = noise(arch.noise_size, uniform, "uniform in [-1, 1]")
        return [z, classes(arch.n_classes)] if paper == "cgan" else [z]
    if paper in ("pix2pix", "cyclegan"):
        channels = arch.output_nc if network == "generator_B" else arch.input_nc
        return [pictures(channels, max(64, arch.multiple), any_side=True)]
    faces = pictures(3, arch.image_size)
    if paper == "stargan":
        return [faces, Input("label", (arch.planes,), bits, "the wanted attributes, 0 or 1")]
    wanted = Input(
        "attributes", (arch.c_dim,), uniform, "the wanted attributes, -thres_int or thres_int"
    )
    if paper == "stgan":
        wanted = Input("difference", (arch.c_dim,), uniform, "target less source, 0 keeps")
    return [faces, wanted]


# ---- a checkpoint's networks ----


def paper_of(path):
    """The paper that a checkpoint names. Raises: UserError where it names none."""
    state = None if path.is_dir() else weights.load(path)
    paper = state.get("paper") if isinstance(state, dict) else None
    if not isinstance(paper, str):
        raise UserError(f"{path}: does not tell its paper; give it by --paper")
    return paper


def open_paper(paper, path):
    """(the dict that the paper's convert.py reads, its model module).

    Raises: UserError for a paper that is not here, and where a bare file does not tell its sizes.
    """
    # A file's word chooses among these folders: code of no other place is run for it.
    alone = paper in {model.parent.name for model in ROOT.glob("*/model.py")}
    folder = str(ROOT / paper if alone else ROOT / "classic_gans")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    convert = importlib.import_module("convert")
    if alone:
        state = convert.read_weights(path)
        model = importlib.import_module("model")
    else:
        rooms = importlib.import_module("rooms")
        name = next((name for name, room in rooms.ROOMS.items() if room == paper), None)
        if name is None:
            raise UserError(f"--paper {paper}: unknown; a folder's name, such as sagan or cyclegan")
        state = convert.read_weights(path, name)
        model = rooms.room(name, "model")
    if "architecture" not in state:
        raise UserError(f"{path}: tells no sizes; give a checkpoint of train.py")
    return state, model


def generators(paper, model, arch):
    """{name in checkpoints: function that builds the network} of those that draw."""
    if paper == "cyclegan":
        A = arch.input_nc
        B = arch.output_nc
        return {
            "generator_A": partial(model.Generator, arch, A, B),
            "generator_B": partial(model.Generator, arch, B, A),
        }
    digits = paper == "dcgan" and arch.form == "digits"
    return {"generator": partial(model.DigitGenerator if digits else model.Generator, arch)}


def load_networks(paper, path, use_ema):
    """({name: generator in eval mode}, their Architecture, the file's dict, "ema" or "raw")."""
    state, model = open_paper(paper, path)
    arch = model.Architecture.from_dict(state["architecture"])
    kind = "raw"
    networks = {}
    for name, make in generators(paper, model, arch).items():
        if name == "generator":
            arrays, kind = testing.generator_weights(state, use_ema, path)
        elif name in state:  # a published file of CycleGAN may hold one of the two
            arrays = state[name]
        else:
            continue
        network = weights.build(make, arrays, name, path)
        network.eval()
        networks[name] = network
    return networks, arch, state, kind


def notes_of(state, arch):
    """Lines on where test.py would draw other pictures."""
    mode = state.get("mode", {"norm": "batch", "dropout": getattr(arch, "dropout", False)})
    if getattr(arch, "norm_type", "") == "batch_norm" and mode["norm"] == "batch":
        yield "BatchNorm takes the statistics of training, as test.py --bn_stats running does"
    if hasattr(arch, "norm_type") and mode["dropout"]:
        yield "nothing drops out, as with test.py --dropout False"


# ---- export ----


def save_paddle(network, inputs, prefix):
    """Write PREFIX.pdiparams and PREFIX.json (Paddle 2: .pdmodel). Changes the network."""
    import paddle
    from paddle.static import InputSpec

    from shared_metrics.fast import fold_spectral_norm
    from shared_metrics.inference import add_affine, plain_leaky_relu

    fold_spectral_norm(network)
    add_affine(network)
    specs = [InputSpec([None, *i.shape], i.dtype, i.name) for i in inputs]
    with plain_leaky_relu():
        traced = paddle.jit.to_static(network, input_spec=specs, full_graph=True)
        native.save_program(traced, prefix)


def program_of(prefix):
    """The file beside PREFIX.pdiparams that holds the program."""
    return next(p for p in map(prefix.with_suffix, (".json", ".pdmodel")) if p.is_file())


def save_onnx(prefix):
    """Turn what `save_paddle` has written into PREFIX.onnx. Raises: UserError.

    In a process of its own: paddle2onnx ends the whole process over an operator it does not know.
    """
    code = "import sys, paddle2onnx; paddle2onnx.export(*sys.argv[1:], opset_version=13)"
    program = program_of(prefix)
    out = prefix.with_suffix(".onnx")
    paths = map(str, (program, prefix.with_suffix(".pdiparams"), out))
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    if run.returncode or not out.is_file():
        lines = (run.stdout + run.stderr).strip().splitlines() or ["no word"]
        raise UserError(
            f"--format onnx: paddle2onnx ended with {run.returncode} ({lines[-1][:300]}); "
            "export with --format paddle"
        )
    program.unlink()
    prefix.with_suffix(".pdiparams").unlink()


def need_onnx():
    """Raise UserError under Paddle 2 and where paddle2onnx or onnxruntime is not installed."""
    import paddle

    if paddle.__version__.startswith("2."):
        raise UserError(
            f"--format onnx: paddle2onnx needs Paddle 3 and this is {paddle.__version__}; export "
            "with --format paddle"
        )
    for name in ("paddle2onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--format onnx: needs paddle2onnx and onnxruntime; {EXTRA}")


def runner(prefix):
    """Function that draws with an exported generator, a list of arrays in, pictures out."""
    if prefix.with_suffix(".onnx").is_file():
        import onnxruntime

        path = str(prefix.with_suffix(".onnx"))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [tensor.name for tensor in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0]
    from shared_metrics.inference import open_program

    run = open_program(program_of(prefix))[1]
    return lambda arrays: run(*arrays)


def tries(inputs, sizes=BATCHES):
    """Lists of arrays to try a generator with, one a batch size."""
    rng = process.rng(0, "export")
    for number in sizes:
        yield [i.draw(rng, (number, *(i.tried or i.shape))) for i in inputs]


def difference(expected, actual):
    """The largest difference of pictures, as a share of the largest value expected."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def export(network, inputs, prefix, form):
    """Write a generator as PREFIX.* and try it. Returns: the largest difference.

    Raises: UserError where the file draws other pictures than the network.
    """
    import paddle

    batches = list(tries(inputs))
    with paddle.no_grad():
        expected = [network(*map(paddle.to_tensor, arrays)).numpy() for arrays in batches]
    save_paddle(network, inputs, prefix)
    if form == "onnx":
        save_onnx(prefix)
    draw = runner(prefix)
    largest = max(difference(x, draw(arrays)) for x, arrays in zip(expected, batches, strict=True))
    if not largest <= LIMIT:  # nor NaN
        raise UserError(
            f"--format {form}: the exported {prefix.name} draws other pictures than the checkpoint "
            f"(they differ by {largest:.3g} of their range, {LIMIT:g} is allowed); nothing is kept"
        )
    return largest


def check_new(folder, reads=()):
    """Raise UserError where a folder is there already or cannot be made, see `check_folder`."""
    if os.path.lexists(folder):
        raise UserError(f"--output_dir {folder}: exists already; name a new folder, or delete it")
    check_folder(folder, reads=reads)


@contextlib.contextmanager
def new_folder(folder):
    """Yield a temporary folder that becomes `folder`, or nothing where the block fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def card(paper, path, state, kind, arch):
    """What export.json tells besides the networks."""
    source = state.get("source", {})
    return {
        "paper": paper,
        "checkpoint": {
            "file": path.name,
            "sha256": files.file_sha256(path) if path.is_file() else source.get("sha256"),
            "iteration": state.get("iteration", source.get("iteration")),
            "weights": kind,
        },
        "architecture": arch.to_dict(),
        **{name: state[name] for name in TOLD if name in state},
        "output": "pictures (N, channels, H, W) float32 in [-1, 1]",
        "environment": process.environment(),
    }


def parse_args(argv=None):
    """The flags as a namespace."""
    p = new_parser(__doc__.partition("\n")[0], "python scripts/export.py CHECKPOINT [flags]")
    add = p.add_argument
    # fmt: off
    add("checkpoint", help="of train.py, or published weights with --paper")
    add("--format", required=True, choices=["paddle", "onnx"], default=argparse.SUPPRESS,
        help="what to write")
    add("--output_dir", default=argparse.SUPPRESS,
        help="new folder to write (default: CHECKPOINT_FORMAT, beside it)")
    add("--paper", default=argparse.SUPPRESS,
        help="sagan, cyclegan, ... (default: the checkpoint's)")
    add("--use_ema", action=YES_NO, default=True, help="the averaged G where the file has one")
    add("--no_ema", dest="use_ema", action="store_false", default=argparse.SUPPRESS,
        help="the raw G")
    # fmt: on
    return p.parse_args(argv)


def main(argv=None):
    """Load, export, try, keep."""
    args = parse_args(argv)
    path = Path(args.checkpoint).expanduser()
    beside = path.with_name(f"{path.stem}_{args.format}")
    folder = Path(getattr(args, "output_dir", beside)).expanduser()
    check_new(folder, reads=[path])
    process.configure_cpu()
    process.choose_device("cpu")
    if args.format == "onnx":
        need_onnx()
    paper = getattr(args, "paper", "") or paper_of(path)
    networks, arch, state, kind = load_networks(paper, path, args.use_ema)
    about = card(paper, path, state, kind, arch) | {"notes": list(notes_of(state, arch))}
    about["networks"] = {}
    with new_folder(folder) as place:
        for name, network in networks.items():
            inputs = inputs_of(paper, arch, name)
            largest = export(network, inputs, place / name, args.format)
            about["networks"][name] = {
                "inputs": [
                    {"name": i.name, "shape": [None, *i.shape], "dtype": i.dtype, "is": i.about}
                    for i in inputs
                ],
                "difference": largest,
            }
            print(f"{name}: as the checkpoint to {largest:.2g} of the pictures' range")
        files.save_json(about, place / "export.json")
    for note in about["notes"]:
        print(f"note: {note}")
    print(f"wrote {folder}")


if __name__ == "__main__":
    process.command(main)()
