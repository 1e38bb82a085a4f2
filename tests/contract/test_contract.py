"""What every paper's train.py promises, tried from the command line: see `papers.PAPERS`."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from visualdl import LogReader

from shared_metrics import weights
from tests.conftest import ROOT, run_cli
from tests.contract.papers import PAPERS, WHOLE

EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143}
SIGNALS = [(signal.SIGTERM, 2), (signal.SIGINT, 0)]  # and workers of the loader that they interrupt


@pytest.fixture(params=list(WHOLE))
def paper_run(request, tmp_path):
    """(the paper, its data, a folder for outputs), of the papers that are tried in all ways."""
    spec = WHOLE[request.param]
    return spec, spec.data(tmp_path), tmp_path


@pytest.fixture(params=list(PAPERS))
def any_paper_run(request, tmp_path):
    """The same of every paper."""
    spec = PAPERS[request.param]
    return spec, spec.data(tmp_path), tmp_path


def position(spec):
    """A paper's number among all. What takes long is tried in one of two ways by its parity."""
    return list(PAPERS.values()).index(spec)


def start(folder, args, launcher=()):
    """Start a command line in the background, its output in a pipe."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, *args],
        cwd=ROOT / folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def checkpoints(out):
    return sorted((out / "checkpoints").glob("iter_*.pdparams"))


def wait_for(condition, process, seconds=90):
    """Wait until `condition()` holds; fails when the process ends before."""
    for _ in range(seconds * 20):
        if condition():
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError("nothing came")


def alive(text):
    """Processes whose command line holds `text`."""
    search = subprocess.run(["pgrep", "-f", "--", text], capture_output=True, text=True)
    return [pid for pid in search.stdout.split() if int(pid) != os.getpid()]


def flat(value, name=""):
    """Nested dicts as {dotted name: leaf}."""
    if not isinstance(value, dict):
        return {name: value}
    leaves = {}
    for key, item in value.items():
        leaves |= flat(item, f"{name}.{key}")
    return leaves


def assert_same_state(a, b):
    """Two checkpoints hold the same, bit for bit, but for the flags of the two runs."""
    a = weights.load(a)
    b = weights.load(b)
    assert a.keys() == b.keys() and {"optimizer_g", "optimizer_d", "iteration"} <= a.keys()
    for part in a.keys() - {"args", "sha256"}:
        left = flat(a[part])
        right = flat(b[part])
        assert left.keys() == right.keys()
        for name in left:
            assert np.array_equal(left[name], right[name]), f"{part}{name} differs"


def rows(out):
    """The losses of each logged iteration, without speed and time."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
        line.pop("seconds", None)
    return lines


def assert_same_tags(out):
    """VisualDL shows every paper under the same tags, which lays papers over each other."""
    (record,) = (out / "log").iterdir()
    kinds = LogReader(file_path=str(record)).get_tags()
    tags = [*kinds["scalar"], *kinds.get("image", ())]
    assert "speed/images_per_second" in tags
    groups = {tag.partition("/")[0] for tag in tags}
    assert "loss" in groups and groups <= {"loss", "score", "images", "speed"}, tags


def test_resume_is_bit_identical_whatever_the_workers(any_paper_run):
    """In half of the papers the loader has two workers until the run goes on, in half from then."""
    spec, data, tmp = any_paper_run
    first, then = (0, 2) if position(spec) % 2 else (2, 0)
    run_cli(spec.folder, *spec.flags(data, tmp / "whole", 4, num_workers=then))
    assert_same_tags(tmp / "whole")
    out = tmp / "halves"
    run_cli(spec.folder, *spec.flags(data, out, 2, num_workers=first))
    run_cli(spec.folder, *spec.flags(data, out, 4, num_workers=then, resume="auto"))
    assert_same_state(checkpoints(tmp / "whole")[-1], checkpoints(out)[-1])
    assert rows(out) == rows(tmp / "whole")


def test_killed_at_any_moment_goes_on_from_a_whole_checkpoint(paper_run):
    spec, data, tmp = paper_run
    rng = random.Random(0)
    out = tmp / "killed"
    for _ in range(3):
        had = len(checkpoints(out))
        process = start(spec.folder, spec.flags(data, out, 100_000, resume="auto"))
        wait_for(lambda had=had: len(checkpoints(out)) > had, process)
        time.sleep(rng.random())
        process.kill()
        process.wait()
        newest = checkpoints(out)[-1]
        assert weights.load(newest)["iteration"] == int(newest.stem.split("_")[1])
    last = len(checkpoints(out)) + 1
    run_cli(spec.folder, *spec.flags(data, out, last, resume="auto"))
    assert [p.stem for p in checkpoints(out)] == [f"iter_{i:07d}" for i in range(1, last + 1)]
    assert [row["iteration"] for row in rows(out)] == list(range(1, last + 1))


@pytest.mark.parametrize("number, workers", SIGNALS)
def test_a_signal_saves_that_step_and_ends(paper_run, number, workers):
    spec, data, tmp = paper_run
    out = tmp / "stopped"
    flags = spec.flags(data, out, 100_000, num_workers=workers, save_every=100_000)
    process = start(spec.folder, flags)
    wait_for(lambda: (out / "log.jsonl").exists() and len(rows(out)) > 1, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT[number], output
    (saved,) = checkpoints(out)
    assert weights.load(saved)["iteration"] == rows(out)[-1]["iteration"] and saved.name in output
    assert not alive(str(out))


def test_a_signal_to_the_launcher_ends_both_processes_at_one_step(paper_run):
    spec, data, tmp = paper_run
    number, workers = SIGNALS[position(spec) % 2]
    out = tmp / "stopped"
    launcher = "-m paddle.distributed.launch --nproc_per_node 2 --log_dir".split()
    launcher.append(str(tmp / "logs"))
    flags = dict(num_workers=workers, save_every=100_000, batch_size=4)
    process = start(spec.folder, spec.flags(data, out, 100_000, **flags), launcher)
    wait_for(lambda: (out / "log.jsonl").exists() and len(rows(out)) > 1, process)
    process.send_signal(number)
    deadline = time.monotonic() + 60  # a few seconds on a quiet machine
    while alive(str(out)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(str(out))
    assert process.wait(timeout=60) != 0
    (saved,) = checkpoints(out)
    stopped = rows(out)[-1]["iteration"]
    assert weights.load(saved)["iteration"] == stopped
    run_cli(spec.folder, *launcher, *spec.flags(data, out, stopped + 1, resume="auto", **flags))
    assert rows(out)[-1]["iteration"] == stopped + 1


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(paper_run):
    spec, data, tmp = paper_run
    out = tmp / "damaged"
    run_cli(spec.folder, *spec.flags(data, out, 4))
    first, *damaged = checkpoints(out)
    # One bit flipped, the end missing, another file altogether.
    content = bytearray(damaged[0].read_bytes())
    arrays = [v for v in flat(weights.load(damaged[0])).values() if isinstance(v, np.ndarray)]
    content[content.index(max(arrays, key=np.size).tobytes())] ^= 1
    damaged[0].write_bytes(content)
    damaged[1].write_bytes(damaged[1].read_bytes()[:-100])
    damaged[2].write_text("<html><body>404 Not Found</body></html>")
    resumed = run_cli(spec.folder, *spec.flags(data, out, 2, resume="auto"))
    for path in damaged:
        assert re.search(rf"skips .*{path.name}", resumed.stderr), resumed.stderr
    assert weights.load(first)["iteration"] == 1 and rows(out)[-1]["iteration"] == 2


def test_a_copy_elsewhere_trains_with_its_own_edited_model(any_paper_run):
    spec, data, tmp = any_paper_run
    copy = tmp / "my_variant"
    unneeded = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / spec.folder, copy, ignore=unneeded)
    old, new = spec.edit
    source = (copy / spec.model).read_text()
    assert old in source
    run_cli(copy, *spec.flags(data, tmp / "same", 1))
    (copy / spec.model).write_text(source.replace(old, new))
    run_cli(copy, *spec.flags(data, tmp / "edited", 1))
    assert rows(tmp / "same") != rows(tmp / "edited")


def test_a_run_is_never_overwritten(paper_run):
    spec, data, tmp = paper_run
    run_cli(spec.folder, *spec.flags(data, tmp / "run", 1))
    before = checkpoints(tmp / "run")[0].read_bytes()
    again = run_cli(spec.folder, *spec.flags(data, tmp / "run", 1, seed=1), code=2)
    assert "--output_dir" in again.stderr and "--resume" in again.stderr
    assert "Traceback" not in again.stderr
    assert checkpoints(tmp / "run")[0].read_bytes() == before


def test_a_full_disk_loses_nothing(paper_run):
    spec, data, tmp = paper_run
    out = tmp / "full"
    run_cli(spec.folder, *spec.flags(data, out, 1))
    size = checkpoints(out)[0].stat().st_size
    # No file may grow past half a checkpoint; the signal that would end the process is ignored.
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, {size // 2})); "
        "sys.argv = sys.argv[1:]; sys.path.insert(0, '.'); "
        "runpy.run_path('train.py', run_name='__main__')"
    )
    failed = run_cli(spec.folder, "-c", limited, *spec.flags(data, out, 2, resume="auto"), code=2)
    assert "iter_0000002" in failed.stderr and "Traceback" not in failed.stderr
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["iter_0000001.pdparams"]
    assert weights.load(checkpoints(out)[0])["iteration"] == 1


def test_bad_device_is_one_line(paper_run):
    spec, data, tmp = paper_run
    failed = run_cli(spec.folder, *spec.flags(data, tmp / "gpu", 1, device="gpu"), code=None)
    import paddle

    if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        pytest.skip("this machine has a GPU")
    assert failed.returncode == 2
    assert "--device gpu" in failed.stderr and "Traceback" not in failed.stderr
