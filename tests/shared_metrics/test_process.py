"""What configure_cpu sets and leaves alone, devices, ranks, randomness, exit codes; two ranks."""

import json
import os
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from shared_metrics import process
from shared_metrics.errors import UserError
from tests.conftest import ROOT

AMD = "processor : 0\nvendor_id\t: AuthenticAMD\nmodel name : AMD EPYC\nflags\t\t: fpu avx avx2{}\n"


@pytest.mark.parametrize(
    "cpuinfo, expected",
    [
        (AMD.format(" avx512f avx512dq"), "7"),
        (AMD.format(""), "5"),
        (AMD.format("").replace("avx2", "sse4_2"), ""),
        (AMD.format(" avx512f").replace("AuthenticAMD", "GenuineIntel"), ""),
        ("processor : 0\nBogoMIPS : 50.0\nFeatures : fp asimd\n", ""),  # Arm
        ("", ""),  # no /proc
    ],
)
def test_mkl_is_told_on_amd_only(cpuinfo, expected):
    assert process.mkl_cpu_type(cpuinfo) == expected


NAMES = ["OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE"]
CONFIGURE = """
import json, os
from shared_metrics import process
process._cpuinfo = lambda: os.environ.get("FAKE_CPUINFO", "")
process.usable_cores = lambda: 6
process.platform.machine = lambda: os.environ.get("FAKE_MACHINE", "x86_64")
line = process.configure_cpu()
import sys
assert "paddle" not in sys.modules
print(json.dumps([line] + [os.environ.get(n) for n in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")]))
"""


def configure(*, script=CONFIGURE, **env):
    """[line, OMP_NUM_THREADS, MKL_DEBUG_CPU_TYPE] as a process with these variables sees them."""
    clean = {}
    for name, value in os.environ.items():
        if name not in NAMES and not name.startswith(("MALLOC_", "PADDLE_")):
            clean[name] = value
    output = subprocess.check_output(
        [sys.executable, "-c", script], cwd=ROOT, env={**clean, **env}, text=True
    )
    return json.loads(output)


def test_configure_cpu_sets_threads_and_never_overrides_the_user():
    amd = AMD.format(" avx512f")
    line, threads, mkl = configure(FAKE_CPUINFO=amd)
    assert (threads, mkl) == ("6", "7") and "OMP_NUM_THREADS=6" in line and "\n" not in line
    line, threads, mkl = configure(FAKE_CPUINFO=amd, OMP_NUM_THREADS="3", MKL_DEBUG_CPU_TYPE="4")
    assert (threads, mkl) == ("3", "4") and "OMP" not in line and "MKL" not in line
    line, threads, mkl = configure(FAKE_CPUINFO=amd.replace("AuthenticAMD", "GenuineIntel"))
    assert (threads, mkl) == ("6", None)
    line, threads, mkl = configure(FAKE_MACHINE="aarch64")  # OpenBLAS
    assert (threads, mkl) == (None, None)


IMPORT = """
import json, os
from shared_metrics import process
process.import_paddle()
print(json.dumps(os.environ.get("OMP_NUM_THREADS")))
"""


def test_importing_paddle_leaves_no_threads_to_child_processes():
    assert configure(script=IMPORT) is None
    assert configure(script=IMPORT, OMP_NUM_THREADS="3") == "3"


@pytest.mark.skipif(not hasattr(os, "confstr"), reason="glibc only")
def test_the_allocator_keeps_memory_unless_the_user_chose():
    if process.platform.libc_ver()[0] != "glibc":
        pytest.skip("glibc only")
    every = set(process.MALLOPT)
    assert all(name in configure()[0] for name in every)
    line = configure(MALLOC_TOP_PAD_="0")[0]
    assert "TOP_PAD" not in line and "MMAP_MAX" in line
    assert "MALLOC" not in configure(GLIBC_TUNABLES="glibc.malloc.trim_threshold=1000000")[0]


LAUNCHER = """
import os, subprocess, sys
os.environ["OMP_NUM_THREADS"] = "1"  # what importing Paddle does to the launcher
env = {**os.environ, "PADDLE_LOCAL_SIZE": "2", "PADDLE_TRAINER_ID": "0"}
command = [sys.executable, "-c", os.environ["SCRIPT"]]
print(subprocess.check_output(command, text=True, env=env))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs /proc")
def test_ranks_share_the_cores_though_the_launcher_leaks_a_one():
    assert configure(script=LAUNCHER, SCRIPT=CONFIGURE)[1] == "3"  # 6 cores, 2 local ranks
    # The user's own 1.
    assert configure(script=LAUNCHER, SCRIPT=CONFIGURE, OMP_NUM_THREADS="1")[1] == "1"


def test_usable_cores_and_shares(monkeypatch):
    assert 1 <= process.usable_cores() <= os.cpu_count()
    for ranks, threads in (("1", 6), ("4", 1), ("16", 1)):
        monkeypatch.setenv("PADDLE_LOCAL_SIZE", ranks)
        assert process.threads_per_rank(6) == threads


def test_no_module_of_runs_loads_paddle():
    code = "import sys; from shared_metrics.runs import checkpoint, loader, log, stop; "
    code += "sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_devices():
    paddle = pytest.importorskip("paddle")
    assert process.choose_device("cpu") == paddle.get_device() == "cpu"
    for wrong in ("tpu", "gpu:", "gpu:x", "cpu:1", "auto:0", ""):
        with pytest.raises(UserError, match="--device"):
            process.choose_device(wrong)
    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle has CUDA")
    assert process.choose_device("auto") == "cpu"
    for name in ("gpu", "gpu:0"):
        with pytest.raises(UserError, match="--device gpu.*no CUDA"):
            process.choose_device(name)


def test_one_process_never_calls_a_collective(monkeypatch):
    paddle = pytest.importorskip("paddle")
    for name in ("all_reduce", "broadcast", "init_parallel_env", "barrier"):
        monkeypatch.setattr(paddle.distributed, name, None)
    monkeypatch.setattr(paddle.base.core, "create_or_get_global_tcp_store", None)
    net = paddle.nn.BatchNorm1D(2)
    net(paddle.ones([3, 2])).sum().backward()
    before = net.bias.grad.numpy()
    process.init_distributed()
    process.average_gradients(net.parameters())
    process.broadcast_layers(net)
    process.average_buffers(net)
    process.wait_for_all()
    np.testing.assert_array_equal(net.bias.grad.numpy(), before)
    assert (process.rank(), process.world_size(), process.is_main()) == (0, 1, True)


def test_random_numbers_have_no_state():
    first = process.rng(7, "latent", 3, 1).standard_normal(4)
    np.testing.assert_array_equal(first, process.rng(7, "latent", 3, 1).standard_normal(4))
    by_design = np.random.default_rng([7, zlib.crc32(b"latent"), 3, 1]).standard_normal(4)
    np.testing.assert_array_equal(first, by_design)
    for other in ((8, "latent", 3, 1), (7, "augment", 3, 1), (7, "latent", 1, 3), (7, "latent", 3)):
        assert not np.array_equal(first, process.rng(*other).standard_normal(4))


def test_environment_names_the_commit(tmp_path, monkeypatch):
    pytest.importorskip("paddle")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py")])
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    environment = process.environment()
    assert environment["commit"] is None and environment["gpu"] is None
    assert "cores" in environment["cpu"]
    json.dumps(environment)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "train.py").write_text("pass")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    commit = process.environment()["commit"]
    assert len(commit) == 40
    (tmp_path / "train.py").write_text("changed")
    assert process.environment()["commit"] == commit + "-dirty"


MISSING = FileNotFoundError(2, "No such file or directory", "a/b")


@pytest.mark.parametrize(
    "error, code, said",
    [
        (UserError("--batch_size 9: too\nmany"), 2, "train.py: error: --batch_size 9: too many\n"),
        (MISSING, 2, "train.py: error: a/b: No such file or directory\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_user_mistake_is_one_line_and_code_2(monkeypatch, capsys, error, code, said):
    def main(argv):
        raise error

    monkeypatch.setattr(sys, "argv", ["some/train.py"])
    with pytest.raises(SystemExit) as ended:
        process.command(main)([])
    assert ended.value.code == code and capsys.readouterr().err == said


def test_exit_codes_pass_and_bugs_keep_their_traceback():
    assert process.command(lambda: None)() is None
    with pytest.raises(SystemExit) as ended:
        process.command(lambda: 143)()
    assert ended.value.code == 143
    with pytest.raises(ZeroDivisionError):
        process.command(lambda: 1 / 0)()


RANK = """
import os, sys, time
from shared_metrics import process
process.configure_cpu()
import numpy as np
import paddle
from shared_metrics.runs.stop import StopSignals

out = sys.argv[1]
r = process.rank()
process.choose_device("cpu")
process.init_distributed()
paddle.seed(r)
nn = paddle.nn
net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1D(4))
head = nn.Linear(2, 1)
process.broadcast_layers(net, head)
results = {"start": net[0].weight.numpy(), "threads": int(os.environ["OMP_NUM_THREADS"])}
net(paddle.to_tensor(np.arange(12, dtype="f4").reshape(4, 3) ** (r + 1))).square().sum().backward()
if r == 0:  # rank 1 has no gradient for head.weight; nobody has one for head.bias
    (head.weight * 2).sum().backward()
results["own"] = net[0].weight.grad.numpy()
results["running"] = net[1]._mean.numpy()
process.average_gradients([*net.parameters(), *head.parameters()])
process.average_buffers(net)
results["mean"] = net[0].weight.grad.numpy()
results["head"] = head.weight.grad.numpy()
results["no_grad"] = head.bias.grad is None and net[1]._mean.grad is None
results["average"] = net[1]._mean.numpy()
np.savez(f"{out}/rank{r}.npz", **results)

def loop(name, signal_self_at=None):
    with StopSignals() as stop:
        for step in range(3000):
            time.sleep(0.01)
            if step == signal_self_at:
                os.kill(os.getpid(), 15)
            number = stop.requested()
            if number:
                with open(f"{out}/{name}{r}.tmp", "w") as file:
                    file.write(f"{step} {number}")
                os.rename(f"{out}/{name}{r}.tmp", f"{out}/{name}{r}")
                return

for i in range(2):
    if r == i:
        time.sleep(0.5)
        open(f"{out}/work{i}", "w").close()
    process.wait_for_all()
    assert os.path.exists(f"{out}/work{i}")
loop("own", 20 if r == 1 else None)
loop("launcher")
"""


def wait_for(paths, seconds):
    """The words of each file, once all exist."""
    until = time.monotonic() + seconds
    while missing := [p.name for p in paths if not p.exists()]:
        assert time.monotonic() < until, f"still missing: {missing}"
        time.sleep(0.05)
    return [p.read_text().split() for p in paths]


def test_two_ranks_train_in_step_and_stop_together(tmp_path):
    """Averages over ranks; one signalled rank, or a killed launcher, stops both at one step."""
    pytest.importorskip("paddle")
    (tmp_path / "rank.py").write_text(RANK)
    launch = "-m paddle.distributed.launch --nproc_per_node 2 --log_dir".split()
    command = [sys.executable, *launch, tmp_path / "log", tmp_path / "rank.py", tmp_path]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "launcher.txt", "w") as said:
        launcher = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=said, stderr=said)
    try:
        while launcher.poll() is None and not (tmp_path / "own0").exists():
            time.sleep(0.1)
        assert launcher.poll() is None, (tmp_path / "launcher.txt").read_text()
        own = wait_for([tmp_path / f"own{r}" for r in (0, 1)], 10)
        assert own == [["20", "15"]] * 2
        time.sleep(0.3)
        launcher.send_signal(signal.SIGKILL)
        first, second = wait_for([tmp_path / f"launcher{r}" for r in (0, 1)], 30)
        assert first == second and first[1] == "15"
    finally:
        launcher.kill()
        launcher.wait()
    a = np.load(tmp_path / "rank0.npz")
    b = np.load(tmp_path / "rank1.npz")
    np.testing.assert_array_equal(a["start"], b["start"])
    np.testing.assert_array_equal(a["mean"], b["mean"])
    assert not np.allclose(a["own"], b["own"])
    np.testing.assert_allclose(a["mean"], (a["own"] + b["own"]) / 2, rtol=1e-6)
    for x in (a, b):
        np.testing.assert_array_equal(x["head"], np.ones((2, 1)))  # (2 + 0) / 2
        assert x["no_grad"] and x["threads"] == int(os.environ.get("OMP_NUM_THREADS", x["threads"]))
        np.testing.assert_allclose(x["average"], (a["running"] + b["running"]) / 2, rtol=1e-6)
