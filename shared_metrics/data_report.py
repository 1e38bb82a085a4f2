"""`train.py --check_data`: what a data set holds and what is wrong with it, told before a run."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from shared_metrics import data_check
from shared_metrics.errors import UserError
from shared_metrics.files import shown
from shared_metrics.images import opened
from shared_metrics.process import is_main, rng

SECONDS = 40  # in all: headers are looked at first, items then read whole in a random order
SHOWN = 10  # problems, classes, kinds
PART = 64  # items read at a time


def report(data, about, workers=1, seconds=SECONDS):
    """Print what a paper's data set holds, and the first items that training could not read.

    Items are read as in training, by the data set's own `load`, so that its checks speak.
    Args: data: `len(data)`, `name(index)`, `load(index, rng)` and, where it has them, `classes`
        with `counts`; about, the paper's own line on it; workers, threads that read.
    Returns: the exit code, 2 where there are problems.
    """
    if not is_main():
        return 0
    start = time.monotonic()
    number = len(data)
    lines = [about, *_classes(data), *_kinds(data), *data_check.notes(data)]
    for line in lines:
        print(shown(line), flush=True)
    problems, count = _read(data, max(1, workers), start + seconds)
    took = f"in {time.monotonic() - start:.0f} s"
    part = "" if count == number else ", drawn at random: the time for it was over"
    print(f"read as in training: {count:,} of {number:,} {took}{part}")
    for index in sorted(problems)[:SHOWN]:
        print(f"problem: {shown(problems[index])}")
    print(f"problems: {len(problems):,}" + (", the first above" if len(problems) > SHOWN else ""))
    return 2 if problems else 0


def _classes(data):
    if not getattr(data, "counts", None):
        return []
    pairs = list(zip(data.classes, data.counts, strict=True))
    spread = f"of {min(data.counts):,} to {max(data.counts):,} items"
    return [f"classes: {len(pairs):,} {spread}: {_listed(pairs)}"]


def _kinds(data):
    """Lines on the sizes and modes of the files, by their headers."""
    sizes = Counter()
    modes = Counter()
    for index in tqdm(range(len(data)), disable=None, leave=False, unit=" headers"):
        path = Path(data.name(index))
        if not path.is_file():
            continue
        try:
            with opened(path) as image:
                sizes[image.size] += 1
                modes[f"{image.format} {image.mode}"] += 1
        except UserError:  # told when it is read
            continue
    if not sizes:
        return []
    widths, heights = zip(*sizes, strict=True)
    spread = f"{min(widths)} to {max(widths)} px wide, {min(heights)} to {max(heights)} px high"
    named = [(f"{width}x{height}", count) for (width, height), count in sizes.most_common()]
    return [f"sizes: {spread}: {_listed(named)}", f"kinds: {_listed(modes.most_common())}"]


def _listed(pairs):
    more = ", ..." if len(pairs) > SHOWN else ""
    return ", ".join(f"{what} ({count:,})" for what, count in pairs[:SHOWN]) + more


def _read(data, workers, end):
    """({index: what is wrong}, how many were read), some until a moment of time.monotonic."""
    problems = {}

    def load(index):
        try:
            data.load(int(index), rng(0, "check", int(index)))
        except UserError as error:
            problems[int(index)] = str(error)

    order = rng(0, "check").permutation(len(data))
    count = 0
    bar = tqdm(total=len(data), disable=None, leave=False, unit=" items")
    with bar, ThreadPoolExecutor(workers) as pool:
        while count < len(order) and (count == 0 or time.monotonic() < end):
            part = order[count : count + PART]
            list(pool.map(load, part))
            count += len(part)
            bar.update(len(part))
    return problems, count
