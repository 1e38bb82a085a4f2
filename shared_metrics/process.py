"""The process a run lives in: CPU threads and allocator, device, rank, random numbers, exit codes.

Nothing here imports Paddle before it is needed: `configure_cpu()` must run first.

    from shared_metrics.process import configure_cpu
    print(configure_cpu())
    import paddle
"""

import contextlib
import ctypes
import functools
import io
import itertools
import os
import platform
import re
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np

from shared_metrics import interrupts, native
from shared_metrics.errors import UserError
from shared_metrics.files import shown

# glibc's malloc.h: variable the user may have set, parameter number, value that keeps freed memory
MALLOPT = {
    "MALLOC_MMAP_MAX_": (-4, 0),
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),
    "MALLOC_TOP_PAD_": (-2, 64 * 2**20),
}
_waits = itertools.count()
_heard = {}  # {rank: lines that `told` has returned}


def configure_cpu():
    """Make Paddle's CPU kernels fast; call it before `import paddle`.

    The libraries read their environment when they load. Sets OMP_NUM_THREADS to the usable cores
    (divided by the local ranks under paddle.distributed.launch), on AMD MKL_DEBUG_CPU_TYPE (7 with
    AVX-512, 5 with AVX2), and on glibc tells malloc to keep freed memory. A value that the user has
    set is never changed. Paddle's "PLEASE USE OMP_NUM_THREADS WISELY" may be ignored: the threads
    of all ranks together are as many as the cores.
    Returns: one line that says what was set.
    """
    settings = []
    if "paddle" in sys.modules:
        settings.append("threads unchanged (Paddle was loaded before)")
    else:
        variables = {"MKL_DEBUG_CPU_TYPE": mkl_cpu_type(_cpuinfo())}
        # Elsewhere Paddle is built with OpenBLAS, which wants one thread.
        if platform.machine() in ("x86_64", "AMD64"):
            variables["OMP_NUM_THREADS"] = threads_per_rank(usable_cores())
        for name, value in variables.items():
            if value and not _set_by_user(name):
                os.environ[name] = str(value)
                settings.append(f"{name}={value}")
    parameters = _keep_freed_memory()
    if parameters:
        settings.append("malloc keeps freed memory (" + ", ".join(parameters) + ")")
    return "CPU: " + (", ".join(settings) or "nothing changed")


def usable_cores():
    """Cores this process may use.

    Its affinity mask, and a container's CPU quota (cgroup v2) where one is set.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS and Windows
        cores = os.cpu_count() or 1
    try:
        # Microseconds of processor time in every period of so many, "max" without a quota.
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def threads_per_rank(cores):
    """`cores` shared out among the ranks that the launcher started on this host; at least 1."""
    return max(1, cores // max(1, int(os.environ.get("PADDLE_LOCAL_SIZE", 1))))


def threads():
    """Threads of this process's kernels: OMP_NUM_THREADS, or its share of the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else threads_per_rank(usable_cores())


def mkl_cpu_type(cpuinfo):
    """The MKL_DEBUG_CPU_TYPE that lifts MKL's slow path on AMD.

    Args: cpuinfo, the text of /proc/cpuinfo ("" where there is none).
    Returns: "7" (AVX-512), "5" (AVX2), "" for other processors.
    """
    flags = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "vendor_id" and value.strip() != "AuthenticAMD":
            return ""
        if key.strip() == "flags":
            flags = set(value.split())
    if "AuthenticAMD" not in cpuinfo:
        return ""
    if "avx512f" in flags:
        return "7"
    return "5" if "avx2" in flags else ""


def _cpuinfo():
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _set_by_user(name):
    """Whether the user set the variable.

    The launcher imports Paddle, which writes OMP_NUM_THREADS=1 into what its ranks inherit; what
    the launcher itself was started with is the user's word.
    """
    if name not in os.environ or not launched():
        return name in os.environ
    try:
        environ = Path(f"/proc/{os.getppid()}/environ").read_bytes()  # as the launcher began
    except OSError:
        return True
    return any(entry.startswith(name.encode() + b"=") for entry in environ.split(b"\0"))


def _keep_freed_memory():
    """Set glibc's malloc parameters unless the user did.

    Each step of training frees and asks again for the same large arrays; given back to the system
    in between, they would come back as pages to be zeroed.
    Returns: those set, as "NAME=value"; [] on another C library.
    """
    if platform.libc_ver()[0] != "glibc" or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return []
    libc = ctypes.CDLL(None)
    free = [name for name in MALLOPT if name not in os.environ]
    return [f"{name}={MALLOPT[name][1]}" for name in free if libc.mallopt(*MALLOPT[name]) == 1]


def launched():
    """Whether paddle.distributed.launch started this process (with one rank or more)."""
    return "PADDLE_LOCAL_SIZE" in os.environ and "PADDLE_TRAINER_ID" in os.environ


def rank():
    """This process's number among all, from the launcher's environment; 0 without a launcher."""
    return int(os.environ.get("PADDLE_TRAINER_ID", 0))


def world_size():
    """How many processes train together, from the launcher's environment; 1 without a launcher."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", 1))


def is_main():
    """Whether this is rank 0, the only one that writes files and logs."""
    return rank() == 0


def warn(text):
    """Print a warning on stderr, once for all processes."""
    if is_main():
        print(f"warning: {text}", file=sys.stderr)


def choose_device(name):
    """Select Paddle's device and return its name ("cpu", "gpu:0").

    Args: name, the value of --device: auto (the GPU if there is one), cpu, gpu (under the launcher:
        this rank's card), or gpu:N.
    Raises: UserError when the GPU asked for is not there.
    """
    paddle = import_paddle()
    if not re.fullmatch(r"auto|cpu|gpu(:\d+)?", name):
        raise UserError(f"--device {name}: unknown; give auto, cpu, gpu or gpu:N")
    if ":" in name and world_size() > 1:
        raise UserError(
            f"--device {name}: {world_size()} processes cannot share one card; "
            "give gpu, each takes its own"
        )
    cuda = paddle.is_compiled_with_cuda()
    cards = paddle.device.cuda.device_count() if cuda else 0
    if name == "cpu" or (name == "auto" and not cards):
        if name == "auto" and cuda:
            warn("this Paddle can use a GPU but finds none; running on the CPU")
        paddle.set_device("cpu")
        return "cpu"
    if not cuda:
        raise UserError(
            f"--device {name}: this Paddle has no CUDA; "
            "install paddlepaddle-gpu or give --device cpu"
        )
    if name.startswith("gpu:"):
        card = int(name.removeprefix("gpu:"))
    else:  # the launcher tells every rank its card; card 0 without a launcher
        card = paddle.distributed.ParallelEnv().device_id
    if card >= cards:
        raise UserError(
            f"--device {name}: this machine has {cards} usable GPU(s), counted from 0; "
            "give another or cpu"
        )
    paddle.set_device(f"gpu:{card}")
    return f"gpu:{card}"


def import_paddle():
    """Import Paddle without the lines that it shows to every user.

    They are its advice on OMP_NUM_THREADS, set here on purpose, a compiler cache that nothing here
    needs, a change of BatchNorm of years ago, and the warnings of its C++ code (a line a program,
    for instance; the user's own GLOG_minloglevel stays). Nor does it take over SIGTERM, nor leave
    its OMP_NUM_THREADS=1 to the processes that this one starts.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("GLOG_minloglevel", "2")
    for message in ("No ccache found", "When training, we now always track"):
        warnings.filterwarnings("ignore", message=message)
    printed = io.StringIO()  # Paddle writes the advice to stderr itself: no filter reaches it
    try:
        with contextlib.redirect_stderr(printed), interrupts.kept():
            import paddle
    finally:
        lines = printed.getvalue().splitlines(keepends=True)
        sys.stderr.writelines(line for line in lines if "OMP_NUM_THREADS" not in line)
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
    return paddle


def init_distributed():
    """Join the process group of paddle.distributed.launch: NCCL on GPUs, gloo on CPU.

    Call it after choose_device. Nothing with one process.
    """
    if world_size() == 1:
        return
    import paddle

    if paddle.get_device() == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    paddle.distributed.init_parallel_env()


def wait_for_all():
    """Go on when every rank has come here; nothing with one process.

    Call it after work that rank 0 does alone (evaluation, samples, a checkpoint): the others would
    otherwise wait in the next all-reduce, which gloo breaks off after 30 seconds. Every rank calls
    it equally often.
    """
    if world_size() == 1:
        return
    store = _store()
    key = f"wait_for_all/{next(_waits)}"  # a counter of its own for each wait, equal on all ranks
    store.add(key, 1)
    while store.add(key, 0) < world_size():  # adding 0 reads the counter and waits for nobody
        time.sleep(0.05)


def tell_main(text):
    """Leave a line for rank 0, which finds it by `told`; neither waits for the other."""
    key = f"told/{rank()}"
    store = _store()
    number = store.add(f"{key}/count", 1)
    store.set(f"{key}/{number}", text.encode("utf-8", "backslashreplace").decode())


def told():
    """[(rank, line)] that other ranks have left since the last call, for rank 0."""
    lines = []
    for other in range(1, world_size()):
        key = f"told/{other}"
        store = _store()
        for number in range(_heard.get(other, 0) + 1, store.add(f"{key}/count", 0) + 1):
            lines.append((other, store.get(f"{key}/{number}").decode()))
            _heard[other] = number
    return lines


def _store():
    """What the processes of a run have in common, names with values."""
    import paddle

    return paddle.base.core.create_or_get_global_tcp_store()


def average_gradients(parameters):
    """Replace every gradient by its mean over all ranks, in one all-reduce.

    A gradient that only some ranks have counts as zero on the others; one that no rank has stays
    None, so that the optimizer skips the parameter exactly as it would with one process. Every rank
    passes the same parameters. Nothing with one process.
    """
    if world_size() == 1:
        return
    import paddle

    parameters = list(parameters)
    with paddle.no_grad():
        # One flag a parameter travels ahead of the gradients: whether any rank has one.
        present = paddle.to_tensor([0.0 if p.grad is None else 1.0 for p in parameters])
        flat = [
            paddle.zeros([p.size]) if p.grad is None else p.grad.astype("float32").flatten()
            for p in parameters
        ]
        fused = paddle.concat([present, *flat])
        paddle.distributed.all_reduce(fused)
        fused /= world_size()
        start = len(parameters)
        for i, p in enumerate(parameters):
            mean = fused[start : start + p.size].reshape(p.shape).astype(p.dtype)
            start += p.size
            if p.grad is not None:
                paddle.assign(mean, p.grad)
            elif fused[i].item() > 0:  # read back (a synchronisation) only in this rare case
                p.grad = mean


def broadcast_layers(*layers):
    """Copy rank 0's parameters and buffers to every rank, so that all start alike.

    Nothing with one process.
    """
    if world_size() == 1:
        return
    import paddle

    with paddle.no_grad():
        for layer in layers:
            for tensor in [*layer.parameters(), *layer.buffers()]:
                copy = tensor.detach().clone()
                paddle.distributed.broadcast(copy, src=0)
                paddle.assign(copy, tensor)


def constant_affine(norm):
    """Give a SyncBatchNorm without affine map a scale of 1 and a shift of 0, which Paddle's kernel
    wants, as constants: no optimizer trains them, and no checkpoint holds them.
    """
    import paddle

    for name, value in (("weight", 1.0), ("bias", 0.0)):
        # A buffer may not bear the name of a parameter, be it None.
        norm._parameters.pop(name, None)
        norm.__dict__.pop(name, None)
        constant = paddle.full(norm._mean.shape, value)
        norm.register_buffer(name, constant, persistable=False)
    return norm


def average_buffers(layer):
    """Average the floating-point state that no gradient trains over the ranks.

    It is BatchNorm's running mean and variance: each rank has seen other images. State that is
    equal on all ranks (spectral norm's u and v) stays as it is. Nothing with one process.
    """
    if world_size() == 1:
        return
    import paddle

    # Of what a checkpoint holds: spectral norm keeps a copy of every weight besides.
    state = [t for t in layer.state_dict().values() if t.stop_gradient and t.is_floating_point()]
    if not state:
        return
    with paddle.no_grad():
        fused = paddle.concat([t.astype("float32").flatten() for t in state])
        paddle.distributed.all_reduce(fused)
        fused /= world_size()
        start = 0
        for t in state:
            paddle.assign(fused[start : start + t.size].reshape(t.shape).astype(t.dtype), t)
            start += t.size


def add_up(array):
    """The float64 array's sum over all ranks; every one of them calls this, with the same shape."""
    import paddle

    tensor = paddle.to_tensor(np.ascontiguousarray(array, np.float64))
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def gather_rows(rows, share):
    """The rows (n, D) of all ranks, n differing between them, joined in their order; float64.

    Args: share, (this rank, how many there are).
    """
    index, ranks = share
    counts = np.zeros(ranks)
    counts[index] = len(rows)
    counts = add_up(counts).astype(int)
    joined = np.zeros((counts.sum(), rows.shape[1]))
    start = counts[:index].sum()
    joined[start : start + len(rows)] = rows
    return add_up(joined) if len(joined) else joined


def rng(seed, stream, *counters):
    """A numpy Generator that depends on its arguments only, so that no random state need be saved.

    Args: seed, int >= 0; stream, what is drawn ("latent", "augment"); counters, ints >= 0 such as
        iteration and rank.
    """
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), *counters])


def environment():
    """What a result was made with.

    Returns: {"paddle", "python", "device", "cpu", "gpu", "platform", "commit"}; gpu is None on a
        CPU, commit None outside a git checkout.
    """
    import paddle

    device = paddle.get_device()
    card = None
    if device.startswith("gpu"):
        card = paddle.device.cuda.get_device_name(int(device.split(":")[1]))
    cpu = platform.processor()
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "paddle": paddle.__version__,
        "python": platform.python_version(),
        "device": device,
        "cpu": f"{cpu} ({usable_cores()} cores)",
        "gpu": card,
        "platform": platform.platform(),
        "commit": _commit(Path(sys.argv[0]).resolve().parent),
    }


def _commit(folder):
    """The git commit of `folder`, with "-dirty" after local changes.

    None where there is no git or no checkout.
    """
    # All tags are excluded: the commit itself is wanted, not the nearest tag.
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    git = ["git", "-C", str(folder), *describe]
    try:
        answer = subprocess.run(git, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def command(main):
    """Wrap a command's main, which returns None or an exit code, e.g. 143 after SIGTERM.

    A user's mistake ends in one line and exit code 2, and so does what the machine is the cause
    of, see native.of_machine; Ctrl-C in 130, SIGTERM in 143, a second of these at once; a bug in
    its traceback.

        if __name__ == "__main__":
            command(main)()
    """

    @functools.wraps(main)
    def run(*args, **kwargs):
        # Names that the screen's encoding lacks must not end what is done: escaped.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        program = Path(sys.argv[0]).name
        try:
            with interrupts.raising():
                code = main(*args, **kwargs)
        except (UserError, OSError, MemoryError, RuntimeError) as error:
            if not isinstance(error, UserError) and not native.of_machine(error):
                raise
            print(f"{program}: error: {_one_line(error)}", file=sys.stderr)
            code = 2
        except interrupts.Stopped as stopped:
            print(f"{program}: stopped by {stopped.name}", file=sys.stderr)
            code = 128 + stopped.number
        except KeyboardInterrupt:  # raised, not by a signal
            code = 130
        if code:
            raise SystemExit(code)

    return run


def _one_line(error):
    if isinstance(error, UserError):
        return shown(" ".join(str(error).split()))
    if isinstance(error, MemoryError):  # a GPU's too
        advice = "lower --batch_size, or the sizes of pictures and networks"
        return f"out of memory ({native.reason(error)}); {advice}"
    if isinstance(error, OSError) and error.strerror:
        return shown(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return native.reason(error)
