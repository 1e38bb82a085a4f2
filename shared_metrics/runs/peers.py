"""What the processes of a run tell each other besides gradients: what rank 0 has read, whether all
have the same data, and who has died.
"""

import contextlib
import io
import os
import pickle
import threading
import time
from pathlib import Path

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.files import digest, shown
from shared_metrics.process import is_main, rank, wait_for_all, world_size
from shared_metrics.unpickle import Budget, Unpickler, plain

CHUNK = 2**28  # bytes that travel at a time
BLOCKS = 64  # parts of the data that are compared
SIZED = 1000  # files whose sizes are
BEAT = 3.0  # seconds between signs of life
SILENT = 25.0  # seconds without one after which a process counts as dead
LEFT = 10**12  # what the counter of a process that has ended well is above
FAILED = 10**15


def share(value, source=0):
    """A value of rank `source` on every rank: nested dicts and lists of arrays and plain values.

    All ranks call it. With one process: the value.
    """
    if world_size() == 1:
        return value
    import paddle

    mine = rank() == source
    data = np.frombuffer(pickle.dumps(value, protocol=4), np.uint8) if mine else np.zeros(0)
    wait_for_all()  # for as long as the source takes: a collective would be broken off
    size = paddle.to_tensor([len(data)], dtype="int64")
    paddle.distributed.broadcast(size, src=source)
    size = size.item()
    parts = []
    for start in range(0, size, CHUNK):
        length = min(CHUNK, size - start)
        part = data[start : start + length].copy() if mine else np.zeros(length, np.uint8)
        part = paddle.to_tensor(part)
        paddle.distributed.broadcast(part, src=source)
        parts.append(part.numpy().tobytes())
    if mine:
        return value
    budget = Budget(size)
    return plain(Unpickler(io.BytesIO(b"".join(parts)), budget).load(), budget)


def from_main(make):
    """What `make()` returns on rank 0, which alone calls it, on every rank; see `share`.

    Raises: there what it raises; on the others UserError of the same text.
    """
    if world_size() == 1:
        return make()
    answer = {}
    if is_main():
        try:
            answer["value"] = make()
        except Exception as error:
            share({"error": str(error) or type(error).__name__})
            raise
    answer = share(answer)
    if "error" in answer:
        raise UserError(f"rank 0: {answer['error']}")
    return answer["value"]


def check_same_data(data):
    """Raise UserError, on all ranks, where one has other data than rank 0: another number of items,
    other names (of file and folder), other sizes of files.

    Args: data, the data set, with `name(index)` of each item.
    """
    if world_size() == 1:
        return
    mine = _blocks(data)
    main = share(mine)
    problem = ""
    if mine["count"] != main["count"]:
        problem = f"{mine['count']:,} images, rank 0 has {main['count']:,}"
    elif mine["digests"] != main["digests"]:
        pairs = zip(mine["digests"], main["digests"], mine["places"], strict=True)
        place = next(place for ours, theirs, place in pairs if ours != theirs)
        problem = f"other images than rank 0, the first among {place}"
    for other in range(1, world_size()):
        told = share(problem, source=other)
        if told:
            raise UserError(
                f"rank {other}: its data are {told}; every host needs the same files and flags"
            )


def _blocks(data):
    """{"count", "digests" and "places" of up to BLOCKS parts}."""
    count = len(data)
    names = [str(data.name(i)) for i in range(count)]
    sized = set(np.linspace(0, count - 1, min(count, SIZED)).astype(int).tolist())
    entries = []
    for i, name in enumerate(names):
        path = Path(name)
        size = path.stat().st_size if i in sized and path.is_file() else -1
        entries.append([list(path.parts[-2:]), size])  # hosts may have them in other places
    digests = []
    places = []
    for part in np.array_split(np.arange(count), min(count, BLOCKS)):
        digests.append(digest([entries[i] for i in part]))
        places.append(f"{names[part[0]]} ... {names[part[-1]]}")
    return {"count": count, "digests": digests, "places": places}


class Watch:
    """A thread that ends this process, with a line that says which rank, when another has died.

        with Watch(tell) as watch:

    Each rank counts up a number in the store of rank 0, who looks at them all; where that store is
    gone, so is rank 0. Nothing with one process.
    Args: tell, function of a line, besides the one on stderr.
    """

    def __init__(self, tell):
        self._tell = tell
        self._end = threading.Event()
        self._thread = None
        self._seen = {r: (0, time.monotonic()) for r in range(1, world_size())}
        self._lost = None  # since when rank 0's store does not answer

    def __enter__(self):
        if world_size() == 1:
            return self
        import paddle

        # A connection of its own: the main thread's is no place for two.
        host, port = _store_address().rsplit(":", 1)
        self._store = paddle.base.core.TCPStore(host, int(port), False, 1, 900)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind, error, trace):
        if self._thread is None:
            return
        if kind is not None and _of_others(error):
            time.sleep(SILENT + 5 * BEAT)  # the thread tells which rank it was, and ends this one
        self._end.set()
        self._thread.join(10 * BEAT)
        # Gone with rank 0, where that has ended before.
        with contextlib.suppress(Exception):
            self._store.add(f"beat/{rank()}", LEFT if kind is None else FAILED)
            if is_main() and kind is not None:
                self._store.add("dead", 1)

    def _watch(self):
        while not self._end.wait(BEAT):
            try:
                dead = self._beat()
                self._lost = None
            except Exception:  # of whatever kind Paddle makes it
                self._lost = self._lost or time.monotonic()
                dead = 0 if time.monotonic() - self._lost > 2 * BEAT else None
            if dead is not None and not self._end.is_set():
                line = f"rank {dead} has ended or answers no more, so rank {rank()} ends; go on "
                line += "with --resume"
                self._tell(line)
                os.write(2, f"error: {shown(line)}\n".encode())
                os._exit(1)

    def _beat(self):
        """Give a sign of life. Returns: the rank that is dead, or None."""
        self._store.add(f"beat/{rank()}", 1)
        if is_main():
            for other, (value, since) in self._seen.items():
                now = self._store.add(f"beat/{other}", 0)  # adding 0 reads it
                if now != value:
                    self._seen[other] = (now, time.monotonic())
                silent = now < LEFT and time.monotonic() - since > SILENT and now == value
                if silent or now >= FAILED:
                    self._store.add("dead", other + 1)
                    return other
        dead = self._store.add("dead", 0)
        return dead - 1 if dead else None


def _store_address():
    """host:port of rank 0's store, as Paddle finds it."""
    if os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT"):
        return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    first = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")[0]
    return os.environ.get("PADDLE_MASTER") or first


def _of_others(error):
    """Whether an error is of a broken connection between the processes."""
    return isinstance(error, (RuntimeError, ValueError, OSError)) and any(
        word in str(error) for word in ("gloo", "TCP", "NCCL", "nccl", "ProcessGroup")
    )
