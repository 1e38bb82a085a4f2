"""Measure speed on this machine, variants side by side in one run.

    python scripts/benchmark.py train     SAGAN's iterations per second: stock Paddle,
                                          configure_cpu(), two processes
    python scripts/benchmark.py metrics   shared_metrics against its peers where they are installed
    python scripts/benchmark.py draw      pictures a second of a checkpoint, and as exported
    python scripts/benchmark.py steps     seconds and memory by batch size, every paper
    python scripts/benchmark.py loader    pictures a second from class folders
    python scripts/benchmark.py growth    seconds and memory by size: listing, statistics, records

Each measurement is a process of its own, since the settings are read when the libraries load; the
variants take turns, so that a busy machine slows all of them. The median is told, with every single
figure.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKER = """
import json, os, sys, time
from types import SimpleNamespace
sys.path[:0] = [{sagan!r}, {root!r}]
from shared_metrics import process
if {tuned}:
    process.configure_cpu()
from train import parse_args
args = parse_args({flags!r})
import paddle
from dataset import FakeData
from model import Discriminator, Generator, architecture
from shared_metrics.runs.loader import Batches
from trainer import Trainer
paddle.set_device("cpu")
process.init_distributed()
data = FakeData(args.imsize, 10)
widths = {{"g_conv_dim": args.g_conv_dim, "d_conv_dim": args.d_conv_dim}}
arch = architecture(args.form, args.imsize, 10, **widths)
paddle.seed(0)
trainer = Trainer(Generator(arch), Discriminator(arch), arch, args, data)
rank, world = process.rank(), process.world_size()
batches = Batches(data, args.batch_size, 0, rank=rank, world=world)
x, y = next(batches)
trainer.d_update(x, y, 0, process.rng(0, "warm-up"))
trainer.g_update(y[:8], 0, process.rng(0, "warm-up"))
start = time.perf_counter()
for iteration in range({iterations}):
    losses = trainer.train_step(iteration, batches)
    float(losses["g_loss"])
seconds = time.perf_counter() - start
if rank == 0:
    open({out!r}, "w").write(json.dumps([{iterations} / seconds, arch.to_dict()]))
"""


def measure(tuned, processes, args):
    """(iterations per second of `sagan --recipe cifar10`, the networks' Architecture as a dict).

    Args: tuned, whether configure_cpu() is called; processes, how many share the batch.
    """
    flags = ["--recipe", "cifar10", "--batch_size", str(args.batch_size // processes)]
    flags += ["--d_steps_per_iter", str(args.d_steps)]
    if args.g_conv_dim:
        d_conv_dim = args.d_conv_dim or args.g_conv_dim
        flags += ["--g_conv_dim", str(args.g_conv_dim), "--d_conv_dim", str(d_conv_dim)]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "worker.py"
        out = Path(folder) / "speed.json"
        code = WORKER.format(
            sagan=str(ROOT / "sagan"),
            root=str(ROOT),
            out=str(out),
            tuned=tuned,
            flags=flags,
            iterations=args.iterations,
        )
        script.write_text(code)
        command = [sys.executable, str(script)]
        if processes > 1:
            launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
            command[1:1] = [*launch, "--log_dir", folder]
        env = environment(tuned)
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
        if run.returncode:
            output = f"{run.stdout}\n{run.stderr}"
            sys.exit(f"benchmark.py: error: {' '.join(command)} failed:\n{output}")
        return json.loads(out.read_text())


def measure_torch(arch, args):
    """Iterations per second of the same networks written in torch, on all cores.

    Args: arch, a dict as of `measure`.
    """
    from shared_metrics.process import usable_cores

    sizes = {"batch_size": args.batch_size, "d_steps": args.d_steps, "iterations": args.iterations}
    ask = arch | sizes | {"threads": usable_cores()}
    command = [args.torch, ROOT / "scripts" / "torch_twins.py", "train", json.dumps(ask)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment(tuned=False))
    if run.returncode:
        sys.exit(f"benchmark.py: error: --torch {args.torch}: failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])["speed"]


def environment(tuned):
    """The user's variables; for stock Paddle without those that configure_cpu() would set."""
    malloc = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
    names = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", *malloc)
    return {k: v for k, v in os.environ.items() if tuned or k not in names}


def train(args):
    """Print a table of the variants."""
    from shared_metrics.process import environment as machine

    variants = {  # tuned, processes
        "stock Paddle": (False, 1),
        "configure_cpu()": (True, 1),
        "configure_cpu(), 2 processes": (True, 2),
    }
    speeds = {name: [] for name in [*variants, *(["torch"] if args.torch else [])]}
    for turn in range(args.repeat):
        for name, (tuned, processes) in variants.items():
            speed, arch = measure(tuned, processes, args)
            speeds[name].append(speed)
            print(f"turn {turn + 1}: {name}: {speed:.4f} iterations/s", flush=True)
        if args.torch:
            speeds["torch"].append(measure_torch(arch, args))
            print(f"turn {turn + 1}: torch: {speeds['torch'][-1]:.4f} iterations/s", flush=True)
    here = machine()
    print(
        f"\nsagan --recipe cifar10, batch {args.batch_size}, an iteration = {args.d_steps} D + 1 G "
        f"updates; {here['cpu']}, Paddle {here['paddle']}"
    )
    print("| | iterations/s (median) | times stock | each turn |")
    print("| --- | --- | --- | --- |")
    stock = statistics.median(speeds["stock Paddle"])
    for name, values in speeds.items():
        median = statistics.median(values)
        each = ", ".join(f"{v:.4f}" for v in values)
        print(f"| {name} | {median:.4f} | {median / stock:.2f} | {each} |")


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "metrics":
        script = ROOT / "scripts" / "benchmark_metrics.py"
        raise SystemExit(subprocess.call([sys.executable, script, *sys.argv[2:]]))
    if what == "growth":
        script = ROOT / "scripts" / "benchmark_growth.py"
        raise SystemExit(subprocess.call([sys.executable, script, *sys.argv[2:]]))
    if what in ("draw", "steps", "loader"):
        script = ROOT / "scripts" / "benchmark_runs.py"
        raise SystemExit(subprocess.call([sys.executable, script, *sys.argv[1:]]))
    sys.path.insert(0, str(ROOT))
    from shared_metrics.flags import positive, version_flag

    plain = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    version_flag(p)
    # fmt: off
    p.add_argument("what", choices=["train", "metrics", "draw", "steps", "loader", "growth"])
    p.add_argument("--iterations", type=positive, default=1,
                   help="timed iterations a measurement (default 1)")
    p.add_argument("--repeat", type=positive, default=3, help="turns (default 3)")
    p.add_argument("--g_conv_dim", type=positive.or_0, default=0,
                   help="another base width of both networks (default: the recipe's)")
    p.add_argument("--d_conv_dim", type=positive.or_0, default=0, help="of D, where it is another")
    p.add_argument("--batch_size", type=positive, default=64, help="of all processes (default 64)")
    p.add_argument("--d_steps", type=positive, default=5, help="updates of D (default 5)")
    p.add_argument("--torch", default="", metavar="PYTHON",
                   help="a Python that has torch: measure the same networks in it too")
    # fmt: on
    train(p.parse_args())


if __name__ == "__main__":
    main()
