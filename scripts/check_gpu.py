"""Hold every paper on a GPU against the CPU, and write a report that fits an issue.

    python scripts/check_gpu.py [--output_dir gpu_check] [--papers sagan,cyclegan]

For each paper, on toy data: what G draws and one training step from the same checkpoint, on the GPU
and on the CPU; training in fp16 and bf16; by two cards, where there are two, and with
SyncBatchNorm; seconds a step, and the loader's pictures a second. gpu_check.md tells what held and
what did not. `--device cpu` puts the CPU in the GPU's place, to try this script itself.
"""

import json
import math
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from scripts import export, make_toy_data
from scripts.run_all import CLASSES, PAPERS, SIDE, make_pictures
from shared_metrics import process, weights
from shared_metrics.errors import UserError
from shared_metrics.files import writing
from shared_metrics.flags import new_parser, positive
from shared_metrics.images import list_images

# How far the GPU may be from the CPU, both in float32 (no TF32): sums run in another order.
PICTURES = 1e-3  # largest difference of what G draws, of the pictures' range
LOSSES = 1e-3  # of a loss, of the larger of it and 1
STEP = 0.05  # of all weights' step by Adam, which makes full steps of gradients that are rounding
BATCH = 8
# Last words count: nothing random of Paddle's own, which differs from device to device.
ALWAYS = f"--batch_size {BATCH} --num_workers 2 --keep_checkpoints 0 --sample_every 1000000"
DRAWS_NOTHING = {"acgan": "--dropout 0 --activation_noise 0", "pix2pix": "--dropout False"}
SYNC = {"sagan": "--sync_bn", "gaugan_simam": "--norm_G spectralspadesyncbatch3x3"}
# Two cards make one's step on the joined batch where none draws noise of its own, and there is no
# BatchNorm, or SyncBatchNorm (which SPADE takes by itself on several cards).
IN_STEP = ("cyclegan", "spade", "gaugan_simam SyncBatchNorm")
NOT_TRIED = "not tried"


class Failed(Exception):
    """A command that did not end well; its last line."""


def run(folder, words, env=()):
    """Run Python in a folder of the repository. Returns: stdout. Raises: Failed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", **dict(env)}
    command = [sys.executable, *map(str, words)]
    ended = subprocess.run(command, cwd=ROOT / folder, env=env, capture_output=True, text=True)
    if ended.returncode:
        lines = (ended.stdout + ended.stderr).strip().splitlines() or ["no word"]
        errors = [line for line in lines if "error" in line.lower()]
        raise Failed((errors or lines)[-1].strip()[:300])
    return ended.stdout


def make_data(folder):
    """Toy data for all papers, small, below `folder`."""
    make_toy_data.make(folder / "classes", "figures", CLASSES, 96, 24, SIDE)
    make_toy_data.make(folder / "faces", "celeba", 4, 96, 24, SIDE)
    make_toy_data.make(folder / "maps", "coco_stuff", 4, 48, 12, SIDE)
    for split, name in (("train", "train"), ("test", "val")):
        make_pictures(folder, split, list_images(folder / "classes" / name))


def forward(paper, path, device):
    """Print the largest difference of what a checkpoint draws on a device and on the CPU.

    In a process of its own: papers' modules bear the same names.
    """
    import paddle

    drawn = []
    for where in ("cpu", device):
        process.choose_device(where)
        networks, arch, *_ = export.load_networks(paper, Path(path), use_ema=True)
        for name, network in networks.items():
            for arrays in export.tries(export.inputs_of(paper, arch, name)):
                with paddle.no_grad():
                    drawn.append(network(*map(paddle.to_tensor, arrays)).numpy())
    half = len(drawn) // 2
    pairs = zip(drawn[:half], drawn[half:], strict=True)
    print(max(export.difference(expected, actual) for expected, actual in pairs))


class Check:
    """The runs of one paper, and what they show.

    Args: paper, of run_all.PAPERS; data, output: folders; device, the GPU or what is in its place;
        cards, how many there are; iterations, that are timed.
    Attributes: cells, {column: text}; problems, lines on what did not hold.
    """

    def __init__(self, paper, data, output, device, cards, iterations):
        self.paper = paper
        self.words = shlex.split(paper.train.format(data=data, classes=CLASSES))
        self.words += shlex.split(f"{ALWAYS} {DRAWS_NOTHING.get(paper.name, '')}")
        self.output = output / paper.name
        self.device = device
        self.cards = cards
        self.iterations = iterations
        self.cells = {}
        self.problems = []

    def train(self, name, *words, iterations=2, log_every=1, start=None, tf32=False):
        """A run of train.py from the checkpoint `start`. Returns: (last row, last checkpoint)."""
        out = self.output / name
        words = ["train.py", *self.words, "--output_dir", out, *words]
        words += ["--iterations", iterations, "--log_every", log_every, "--save_every", iterations]
        words += ["--resume", start] if start else []
        run(self.paper.folder, words, {} if tf32 else {"NVIDIA_TF32_OVERRIDE": "0"})
        rows = (out / "log.jsonl").read_text().splitlines()
        return json.loads(rows[-1]), sorted((out / "checkpoints").glob("iter_*.pdparams"))[-1]

    def attempt(self, column, function, *args):
        """Fill a cell with what a function returns; a command that fails is a problem."""
        try:
            self.cells[column] = function(*args)
        except Failed as error:
            self.cells[column] = "failed"
            self.problems.append(f"{self.paper.name}, {column}: {error}")

    def hold(self, column, value, limit):
        """`value` as text; more than `limit` is a problem."""
        if not value <= limit:  # nor NaN
            self.problems.append(f"{self.paper.name}, {column}: {value:.2g}, allowed {limit:g}")
        return f"{value:.1e}" if value <= limit else f"**{value:.1e}**"

    def run(self):
        """Fill the cells."""
        try:
            _, self.start = self.train("start", "--device", "cpu", iterations=1)
            self.on_cpu = self.train("cpu", "--device", "cpu", start=self.start)
        except Failed as error:
            self.problems.append(f"{self.paper.name}, on the CPU: {error}")
            return
        self.attempt("pictures", self.pictures)
        self.attempt("losses", self.step)
        for amp in ("none", "fp16", "bf16"):
            if amp != "none" and self.device == "cpu":
                self.cells[amp] = NOT_TRIED
            else:
                self.attempt(amp, self.timed, amp)
        self.attempt("two cards", self.two_cards)
        if self.paper.name in SYNC:
            words = SYNC[self.paper.name].split()
            self.attempt("SyncBatchNorm", self.two_cards, "SyncBatchNorm", words)

    def pictures(self):
        code = "import sys; from scripts.check_gpu import forward; forward(*sys.argv[1:])"
        words = ["-c", code, self.paper.name, self.start, self.device]
        difference = float(run(".", words, {"NVIDIA_TF32_OVERRIDE": "0"}).split()[-1])
        return self.hold("pictures", difference, PICTURES)

    def step(self):
        row, path = self.train("gpu", "--device", self.device, start=self.start)
        self.cells["step"] = self.hold("step", self.step_difference(path), STEP)
        return self.hold("losses", losses_difference(self.on_cpu[0], row), LOSSES)

    def step_difference(self, path):
        """How far the step to a checkpoint is from the CPU's, as a share of that."""
        start, cpu, other = (
            flat(weights.load(file)) for file in (self.start, self.on_cpu[1], path)
        )
        apart = sum(np.abs(other[name] - cpu[name]).sum() for name in cpu)
        return float(apart / sum(np.abs(cpu[name] - start[name]).sum() for name in cpu))

    def timed(self, amp):
        how = {"iterations": 2 * self.iterations, "log_every": self.iterations}
        words = ["--device", self.device, *(["--amp", amp] if amp != "none" else [])]
        row, _ = self.train(f"amp_{amp}", *words, start=self.start, tf32=True, **how)
        check_finite(row)
        return f"{BATCH / row['images_per_second']:.3g} s"  # of the second row, past the warm-up

    def two_cards(self, column="two cards", words=()):
        if self.cards < 2 or (self.device == "cpu" and words):  # Paddle's SyncBatchNorm is on GPUs
            return NOT_TRIED
        words = ["--device", self.device, "--processes", 2, *words]
        row, path = self.train(column.replace(" ", "_"), *words, start=self.start)
        check_finite(row)
        if self.device == "cpu" and self.paper.name == "spade":
            return "trains"
        if not {self.paper.name, f"{self.paper.name} {column}"} & set(IN_STEP):
            return "trains"
        return self.hold(column, self.step_difference(path), STEP)


def flat(state):
    """{name: array} of the networks in a checkpoint."""
    networks = {name: value for name, value in state.items() if name.startswith(("gen", "disc"))}
    return {f"{net}.{key}": value for net, own in networks.items() for key, value in own.items()}


def losses_difference(cpu, gpu):
    """The largest difference of two rows of the log."""
    names = cpu.keys() - {"iteration", "images_per_second", "seconds"}
    return max(abs(gpu[name] - cpu[name]) / max(1.0, abs(cpu[name])) for name in names)


def check_finite(row):
    if not all(value is not None and math.isfinite(value) for value in row.values()):
        raise Failed(f"losses that are not finite: {row}")


def loader_speed(folder, size, workers, seconds=2.0):
    """Pictures a second that SAGAN's data set and the loader give of class folders, once warm."""
    if str(ROOT / "sagan") not in sys.path:
        sys.path.insert(0, str(ROOT / "sagan"))
    from dataset import ClassFolder
    from shared_metrics.runs.loader import Batches

    made = 0
    with Batches(ClassFolder(folder, size), 16, seed=0, workers=workers) as batches:
        next(batches)
        start = time.perf_counter()
        while time.perf_counter() < start + seconds:
            next(batches)
            made += 16
        return made / (time.perf_counter() - start)


COLUMNS = ("pictures", "losses", "step", "none", "fp16", "bf16", "two cards", "SyncBatchNorm")


def report(checks, environment, loader):
    """The Markdown of all checks."""
    lines = ["# GPU check", ""]
    lines += [f"- {name}: {value}" for name, value in environment.items() if value]
    lines += [f"- loader: {loader}", ""]
    lines += [
        f"Against the CPU, in float32: pictures to {PICTURES:g} of their range, losses to "
        f"{LOSSES:g}, a step of all weights to {STEP:g}; bold where they are further apart. "
        f"none, fp16, bf16: seconds a step of {BATCH} pictures of {SIDE} px, small networks. Two "
        f"cards: of {', '.join(IN_STEP)} their step, held against one on the joined batch.",
        "",
        f"| paper | {' | '.join(COLUMNS)} |",
        f"| --- |{' --- |' * len(COLUMNS)}",
    ]
    for check in checks:
        cells = [check.cells.get(column, "") for column in COLUMNS]
        lines.append(f"| {check.paper.name} | {' | '.join(cells)} |")
    problems = [problem for check in checks for problem in check.problems]
    lines += ["", "All held." if not problems else "What did not hold:", ""]
    return "\n".join([*lines, *(f"- {problem}" for problem in problems)]).rstrip() + "\n"


def parse_args(argv=None):
    """The flags as a namespace, `papers` as a list of run_all.Paper."""
    p = new_parser(__doc__.partition("\n")[0], "python scripts/check_gpu.py [flags]")
    p.add_argument("--output_dir", default="gpu_check", help="new folder for runs and the report")
    p.add_argument("--papers", default="", help="these only, e.g. sagan,cyclegan (default: all)")
    p.add_argument("--device", default="gpu", choices=["gpu", "cpu"], help="cpu: to try the script")
    p.add_argument("--iterations", type=positive, default=30, help="timed steps")
    args = p.parse_args(argv)
    args.papers = chosen(args.papers)
    return args


def chosen(text):
    """The papers, of run_all.PAPERS, that --papers names; all without. Raises: UserError."""
    names = [paper.name for paper in PAPERS]
    wanted = text.split(",") if text else names
    for name in wanted:
        if name not in names:
            raise UserError(f"--papers {name}: unknown; some of {', '.join(names)}")
    return [paper for paper in PAPERS if paper.name in wanted]


def count_cards(device):
    """Usable cards; two processes stand for them on a CPU."""
    import paddle

    return 2 if device == "cpu" else paddle.device.cuda.device_count()


def main(argv=None):
    """Check paper by paper; the report is whole after each. Returns: 1 where something failed."""
    args = parse_args(argv)
    output = Path(args.output_dir).expanduser().resolve()
    export.check_new(output)
    process.choose_device(args.device)
    environment = process.environment()
    cards = count_cards(args.device)
    data = output / "data"
    make_data(data)
    loader = (
        f"{loader_speed(data / 'classes' / 'train', SIDE, 4):.0f} pictures of {SIDE} px a second"
    )
    checks = []
    for paper in args.papers:
        print(f"{paper.name} ...", flush=True)
        check = Check(paper, data, output / "runs", args.device, cards, args.iterations)
        check.run()
        checks.append(check)
        text = report(checks, environment | {"cards": cards}, loader)
        with writing(output / "gpu_check.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(text)
    print(f"wrote {output / 'gpu_check.md'}: paste it into an issue")
    return int(any(check.problems for check in checks))


if __name__ == "__main__":
    process.command(main)()
