"""`benchmark.py draw`, `steps` and `loader`: what drawing, a training step and the loader cost.

python scripts/benchmark.py draw CHECKPOINT...           pictures a second: the layers, the program
                                                         of every test.py, and what
                                                         scripts/export.py makes of them
python scripts/benchmark.py steps --batch_sizes 4,16     seconds a step and memory, every paper
python scripts/benchmark.py steps --papers sagan -- --g_conv_dim 64     with flags of train.py
python scripts/benchmark.py loader FOLDER --size 128     pictures a second from class folders
"""

import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from scripts import check_gpu
from shared_metrics import process
from shared_metrics.errors import UserError
from shared_metrics.flags import BATCH, PX, new_parser, positive, ranges

SECONDS = 2.0  # that a measurement takes at least
NO_TWIN = 3  # exit code of torch_twins.py


def speed(function, number):
    """How many a second `function`, which makes `number`, makes once warm."""
    function()
    made = 0
    start = time.perf_counter()
    while time.perf_counter() < start + SECONDS:
        function()
        made += number
    return made / (time.perf_counter() - start)


def table(title, rows):
    """Print Markdown, the head first."""
    here = process.environment()
    print(f"\n{title}; {here['cpu']}, {here['device']}, Paddle {here['paddle']}")
    head, *rest = rows
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rest:
        print(f"| {' | '.join(map(str, row))} |")


# ---- draw ----


def draw(args):
    """Drawing, a row a generator: its layers, the program that every test.py makes of them, and
    what scripts/export.py makes, in turns.
    """
    process.choose_device("cpu")
    rows = [("checkpoint", "generator", "layers", "program", "exported", "ONNX Runtime", "torch")]
    for path in args.checkpoints:
        code = "import sys; from scripts.benchmark_runs import draw_one; draw_one(*sys.argv[1:])"
        words = [sys.executable, "-c", code, path]
        words += [str(args.batch_size), str(args.size), str(args.repeat), args.torch]
        answer = ask(words, ROOT)
        rows += [(Path(path).name, *row) for row in json.loads(answer.splitlines()[-1])]
    table(f"pictures a second in batches of {args.batch_size}, medians", rows)


def draw_one(path, batch_size, size, repeat, torch=""):
    """Print the rows of a checkpoint as JSON: papers' modules bear the same names, so in a process
    of its own.
    """
    process.configure_cpu()
    process.choose_device("cpu")
    from scripts import export

    path = Path(path).expanduser()
    paper = export.paper_of(path)
    names = export.load_networks(paper, path, use_ema=True)[0]
    rows = []
    for name in names:
        runners, arrays = forms(paper, path, name, int(batch_size), int(size))
        speeds = {form: [] for form in runners}
        for _ in range(int(repeat)):
            for form, runner in runners.items():
                speeds[form].append(speed(partial(runner, arrays), int(batch_size)))
        medians = [f"{statistics.median(values):.1f}" for values in speeds.values()]
        missing = ["not available"] * (4 - len(medians))
        rows.append([name, *medians, *missing, twin_speed(paper, path, arrays, torch, int(repeat))])
    print(json.dumps(rows))


def twin_speed(paper, path, arrays, torch, repeat):
    """Pictures a second, the median, of a generator's twin in torch on all cores, or why there is
    none.

    Args: arrays, a batch of inputs; torch, a Python that has it.
    """
    if not torch:
        return "not asked"
    from scripts import export

    arch = export.load_networks(paper, path, use_ema=True)[1]
    ask = arch.to_dict() | {"paper": paper, "threads": process.usable_cores(), "seconds": SECONDS}
    ask["inputs"] = [(array.shape, str(array.dtype)) for array in arrays]
    if paper == "gaugan_simam":
        ask |= {"semantic_nc": arch.semantic_nc, "start": arch.start, "g_blocks": arch.g_blocks()}
        ask["spade_side"] = arch.norm_parts()[2]
    words = [torch, str(ROOT / "scripts" / "torch_twins.py"), "draw", json.dumps(ask)]
    answers = [ask_twin(words) for _ in range(repeat)]
    if None in answers:
        return "no twin"
    return f"{statistics.median(answer['speed'] for answer in answers):.1f}"


def ask_twin(words):
    """What a twin measured; None where there is none of such a network."""
    run = subprocess.run(words, capture_output=True, text=True)
    if run.returncode == NO_TWIN:
        return None
    if run.returncode:
        sys.exit(f"benchmark.py: error: --torch {words[0]}: failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def forms(paper, path, name, batch_size, size):
    """({form: function of a list of arrays that draws}, such a list) of a checkpoint's network.

    Args: size, side of the pictures that a network of any side is given.
    """
    import paddle

    from scripts import export
    from shared_metrics.inference import Runner

    network, arch = export.load_networks(paper, path, use_ema=True)[:2]
    inputs = export.inputs_of(paper, arch, name)
    own = network[name]

    @paddle.no_grad()
    def layers(arrays):
        return own(*map(paddle.to_tensor, arrays)).numpy()

    program = Runner(own, pixels=float("inf"))
    runners = {"layers": layers, "program": lambda arrays: program(*arrays)}
    exported = ["paddle"]
    with contextlib.suppress(UserError):
        export.need_onnx()
        exported.append("onnx")
    for form in exported:
        copy = export.load_networks(paper, path, use_ema=True)[0][name]
        with tempfile.TemporaryDirectory() as folder:
            export.export(copy, inputs, Path(folder) / form, form)
            runners[form] = export.runner(Path(folder) / form)
    asked = []
    for i in inputs:
        asked.append(replace(i, tried=(i.shape[0], size, size)) if None in i.shape else i)
    return runners, next(export.tries(asked, [batch_size]))


def ask(words, folder):
    """A command's stdout. It ends this one where it fails."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"benchmark.py: error: {' '.join(words)} failed:\n{run.stdout}\n{run.stderr}")
    return run.stdout


# ---- steps ----


def steps(args):
    """Seconds a step and the most memory, a row a paper, a column a batch size, on toy data.

    Networks are those of scripts/run_all.py, small, unless flags of train.py follow `--`.
    """
    from scripts import run_all

    process.choose_device(args.device)
    rows = [("paper", *(f"batch {size}" for size in args.batch_sizes))]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        check_gpu.make_data(data)
        for paper in check_gpu.chosen(args.papers):
            words = shlex.split(paper.train.format(data=data, classes=run_all.CLASSES))
            cells = []
            for size in args.batch_sizes:
                out = Path(folder) / f"{paper.name}_{size}"
                cells.append(one_size(paper, [*words, *args.flags], size, out, args))
            rows.append((paper.name, *cells))
            print(" | ".join(rows[-1]), flush=True)
    table("seconds a step, MiB of memory at most", rows)


def one_size(paper, words, batch_size, out, args):
    """ "0.12 s, 800 MiB", or why there is no such."""
    words = ["train.py", *words, "--output_dir", out, "--batch_size", batch_size]
    words += ["--device", args.device, "--num_workers", "1", "--sample_every", "1000000"]
    words += ["--iterations", 2 * args.iterations, "--log_every", args.iterations]
    words += ["--save_every", "1000000"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    with open(out.with_suffix(".txt"), "w+") as log:
        run = subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=ROOT / paper.folder,
            env=env,
            stdout=log,
            stderr=log,
        )
        try:
            _, status, usage = os.wait4(run.pid, 0)
        except BaseException:  # Ctrl-C or SIGTERM
            run.kill()
            raise
        log.seek(0)
        lines = log.read().splitlines()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"killed by signal {-code}"  # 9: most likely for its memory
    if code:
        return lines[-1].rpartition("error: ")[2][:60]
    row = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return f"{batch_size / row['images_per_second']:.3g} s, {usage.ru_maxrss / unit:.0f} MiB"


# ---- loader ----


def loader(args):
    """Pictures a second that the loader gives of class folders, by threads, medians."""
    process.choose_device("cpu")
    rows = [("threads", "pictures a second")]
    for workers in args.workers:
        speeds = [
            check_gpu.loader_speed(args.folder, args.size, workers) for _ in range(args.repeat)
        ]
        rows.append((workers, f"{statistics.median(speeds):.0f}"))
    table(f"{args.folder}, cut to {args.size} px, without training", rows)


# ---- command ----


def parse_args(argv=None):
    """The flags as a namespace; `function`, what to run; `flags`, what follows `--`."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    at = argv.index("--") if "--" in argv else len(argv)
    p = new_parser(__doc__.partition("\n")[0], "python scripts/benchmark.py WHAT [flags]")
    what = p.add_subparsers(dest="what", required=True)
    # fmt: off
    one = what.add_parser("draw")
    one.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="of any paper")
    one.add_argument("--batch_size", type=BATCH, default=16, help="pictures at a time")
    one.add_argument("--size", type=PX, default=256,
                     help="side in px of what generators of any side are given")
    one.add_argument("--torch", default="", metavar="PYTHON",
        help="a Python that has torch: draw with the same network in it too")
    one.set_defaults(function=draw)
    one = what.add_parser("steps")
    one.add_argument("--papers", default="", help="these only, e.g. sagan,cyclegan (default: all)")
    one.add_argument("--batch_sizes", type=ranges, default=[4, 16], help="e.g. 4,16,64")
    one.add_argument("--iterations", type=positive, default=10, help="timed steps")
    one.add_argument("--device", default="cpu", choices=["cpu", "gpu"],
        help="where; the memory told is the process's own, not the card's")
    one.set_defaults(function=steps)
    one = what.add_parser("loader")
    one.add_argument("folder", help="one sub-folder of pictures a class")
    one.add_argument("--size", type=PX, default=128, help="side in px")
    one.add_argument("--workers", type=ranges, default=[1, 2, 4], help="threads, e.g. 1,4")
    one.set_defaults(function=loader)
    # fmt: on
    for parser in what.choices.values():
        parser.add_argument("--repeat", type=positive, default=3, help="turns")
    args = p.parse_args(argv[:at])
    args.flags = argv[at + 1 :]
    return args


def main(argv=None):
    """Run what the first word names."""
    args = parse_args(argv)
    args.function(args)


if __name__ == "__main__":
    process.command(main)()
