"""`benchmark.py growth`: what cost grows with the data, and whether in a straight line.

python scripts/benchmark.py growth scan --sizes 1000,100000     list class folders of empty files
python scripts/benchmark.py growth stats --sizes 1000,4000      statistics of tiny pictures
python scripts/benchmark.py growth draw --sizes 1000,4000       test.py of a tiny SAGAN, no scores
python scripts/benchmark.py growth compare --sizes 10,1000      compare_papers.py over records
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from scripts import make_toy_data
from scripts.benchmark_runs import table
from shared_metrics import process
from shared_metrics.flags import new_parser, ranges
from shared_metrics.images import save_png
from shared_metrics.results import write_record

PER_CLASS = 1000  # files
SCAN = """
import sys
from shared_metrics.class_folders import class_files, class_names
if len(sys.argv) > 1:
    files, labels = class_files(sys.argv[1], class_names(sys.argv[1], "FOLDER"), "FOLDER")
"""


def cost(words):
    """(seconds of processor, MiB of memory at most) of a command."""
    run = subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(run.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"benchmark.py: error: {words} failed")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def scan(folder, size):
    """A folder of `size` empty files, named as ImageNet's, as a data set lists it."""
    for i in range(size):
        name = f"n{i // PER_CLASS:08d}"
        if i % PER_CLASS == 0:
            (folder / name).mkdir(parents=True)
        (folder / name / f"{name}_{i % PER_CLASS:05d}.JPEG").touch()
    return ["-c", SCAN, folder]


def stats(folder, size):
    """`size` pictures of 8x8 px, their statistics by EfficientNet-Lite0."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(size):
        save_png(rng.integers(256, size=(8, 8, 3), dtype=np.uint8), folder / f"{i:06d}.png")
    words = ["-m", "shared_metrics", "stats", folder, "-o", folder.with_suffix(".npz")]
    return [*words, "--network", "efficientnet", "--device", "cpu"]


def draw(folder, size):
    """`size` pictures of 32x32 px, drawn by test.py of a tiny SAGAN."""
    data = make_toy_data.make(folder / "toy", classes=2, count=8, size=32) / "train"
    tiny = "--recipe cifar10 --imsize 32 --g_conv_dim 4 --d_conv_dim 4 --batch_size 4 --device cpu"
    words = [ROOT / "sagan" / "train.py", "--data_path", data, "--output_dir", folder / "run"]
    cost([*words, *tiny.split(), "--iterations", 1, "--d_steps_per_iter", 1])
    checkpoint = folder / "run" / "checkpoints" / "iter_0000001.pdparams"
    words = [ROOT / "sagan" / "test.py", "--pretrained_model", checkpoint, "--device", "cpu"]
    return [*words, "--num_samples", size, "--output_dir", folder / "test"]


def compare(folder, size):
    """`size` records with a log of 1,000 lines each, on ten data sets, as one page."""
    rows = []
    for i in range(1000):
        rows.append({"iteration": i, "d_loss": 1 / (i + 1), "seconds": float(i)})
        rows[-1]["images_per_second"] = 20.0
    log = "\n".join(map(json.dumps, rows))
    for i in range(size):
        place = folder / f"run{i}"
        place.mkdir(parents=True)
        write_record(place / "results.json", record(i))
        (place / "training.jsonl").write_text(log)
    out = folder.with_name(f"{folder.name}_page")
    return [ROOT / "scripts" / "compare_papers.py", folder, "--output_dir", out]


def record(i):
    """A record of an evaluation as test.py writes it."""
    network = dict.fromkeys(("source", "sha256", "protocol", "variant"), "tf") | {
        "comparable": True
    }
    return {
        "paper": f"paper{i % 5}",
        "dataset": f"set{i % 10}",
        "recipe": None,
        "checkpoint": {"sha256": f"{i:064x}", "iteration": 1000, "weights": "raw"},
        "samples": {"number": 1000, "seed": 0},
        "scores": {"fid": 10.0 + i},
        "comparable": True,
        "inception": network,
        "real": {"source": "set", "number": 1000, "sha256": "0"},
        "published": [],
        "environment": {"paddle": "3", "python": "3", "device": "cpu", "commit": None},
        "command": "test.py",
        "seconds": 1.0,
        "images_per_second": 20.0,
    }


# What is measured: (makes it and returns the command, what the command costs without it, sizes).
KINDS = {
    "scan": (scan, ["-c", SCAN], [1000, 10_000, 100_000, 1_000_000]),
    "stats": (stats, ["-c", "import paddle"], [250, 1000, 4000]),
    "draw": (draw, ["-c", "import paddle"], [250, 1000, 4000]),
    "compare": (compare, [ROOT / "scripts" / "compare_papers.py", "--help"], [10, 100, 1000]),
}


def main(argv=None):
    """Print a table a kind."""
    p = new_parser(__doc__.partition("\n")[0], "python scripts/benchmark.py growth [flags]")
    p.add_argument("kinds", nargs="*", default=list(KINDS), choices=KINDS, metavar="KIND",
                   help="scan, stats, draw, compare (default: all)")  # fmt: skip
    p.add_argument("--sizes", type=ranges, default=[], help="e.g. 1000,4000 (default: by kind)")
    args = p.parse_args(argv)
    for kind in args.kinds:
        make, empty, sizes = KINDS[kind]
        seconds, memory = cost(empty)
        rows = [
            (kind, "seconds of processor", "MiB at most"),
            ("0", f"{seconds:.2f}", f"{memory:.0f}"),
        ]
        for size in args.sizes or sizes:
            with tempfile.TemporaryDirectory() as folder:
                seconds, memory = cost(make(Path(folder) / "data", size))
            rows.append((f"{size:,}", f"{seconds:.2f}", f"{memory:.0f}"))
        table(make.__doc__.partition("\n")[0].strip("."), rows)


if __name__ == "__main__":
    process.command(main)()
