"""The record of a run: log.txt and the screen, log.jsonl, curves.png, VisualDL.

No failure here stops training.
"""

import json
import math
import re
import sys
import time
from pathlib import Path

from tqdm import tqdm

from shared_metrics import process
from shared_metrics.files import atomic_path, shown

ROW = re.compile(rb"^\S+ \S+ iteration (\d+)/")


class RunLog:
    """Writes <folder>/log.txt, log.jsonl, log/ (VisualDL) and, on close, curves.png.

    Args:
        folder: the run's folder.
        total: iterations of the whole run.
        start: iterations trained before (resume).
        resume: keep the rows up to `start` and go on after them (VisualDL's record cannot be cut:
            there a stretch trained twice shows twice); with `start` 0 all of them, the log of a
            run that began before, whose rows come first. False starts the files anew.
        enabled: False (every rank but 0) makes all methods do nothing.
        visualdl: folder of VisualDL's record (default: <folder>/log).
    """

    def __init__(self, folder, total, start=0, resume=False, enabled=True, visualdl=None):
        self.folder = Path(folder)
        self.total = total
        self.start = start
        self.enabled = enabled
        self.visualdl = visualdl or self.folder / "log"
        self._warned = set()  # kinds of failure that were told once
        self._skipped = set()  # the reasons that were told
        self._visualdl = None  # opened by the first entry; False once that failed
        self._before = 0.0  # seconds that the run took before this process
        self._begun = time.monotonic()
        self._last = self._begun
        if not enabled:
            return
        self._guard(self._prepare, resume)
        self._bar = tqdm(total=total, initial=start, disable=None, unit="it", dynamic_ncols=True)

    def info(self, text):
        """One line on the screen and in log.txt."""
        if self.enabled:
            self._line(text)

    def row(self, iteration, scalars, images=0, waited=0.0, group="loss"):
        """Log one iteration, with the seconds that the run has taken, over all its resumes.

        Args: iteration, steps taken; scalars, dict name -> float; images, how many were trained on
            since the last row; waited, the seconds of them that training waited for data;
            group, under which VisualDL shows the scalars: "loss" or "score".
        """
        if not self.enabled:
            return
        now = time.monotonic()
        since = max(now - self._last, 1e-9)
        rate = images / since
        left = (now - self._begun) / max(iteration - self.start, 1) * (self.total - iteration)
        self._last = now
        scalars = {name: float(value) for name, value in scalars.items()}
        words = [f"iteration {iteration}/{self.total}"]
        row = {"iteration": iteration}
        for name, value in scalars.items():
            words.append(f"{name} {value:.4g}")
            row[name] = value if math.isfinite(value) else None  # JSON has no NaN
        if images:
            words.append(f"{rate:.1f} images/s, {waited / since:.0%} waiting for data")
            row["images_per_second"] = round(rate, 2)
        row["seconds"] = round(self._before + now - self._begun, 1)
        words.append(f"{_clock(left)} left")
        self._line("  ".join(words))
        self._bar.update(iteration - self._bar.n)
        self._guard(self._append, "log.jsonl", json.dumps(row) + "\n")
        for name, value in scalars.items():
            self._visual("add_scalar", shown(f"{group}/{name}"), value, iteration)
        if images:
            self._visual("add_scalar", "speed/images_per_second", rate, iteration)
            self._visual("add_scalar", "speed/waiting_for_data", waited / since, iteration)

    def skipped(self, reasons):
        """Tell the reasons that were not told before, and on rank 0 those that other ranks told.

        Args: reasons, `Batches.skipped`, which only grows.
        """
        new = [reason for reason in list(reasons.values()) if reason not in self._skipped]
        self._skipped.update(new)
        for reason in new:
            if self.enabled:
                self.info(f"skipped: {reason}")
            else:
                process.tell_main(f"skipped: {reason}")
        if self.enabled:
            self._hear()

    def _hear(self):
        for rank, text in process.told():
            self.info(f"process {rank}: {text}")

    def image(self, tag, picture, iteration):
        """Show a picture, uint8 (H, W, 3), in VisualDL."""
        if self.enabled:
            self._visual("add_image", shown(f"images/{tag}"), picture, iteration)

    def close(self):
        """Draw curves.png and close what is open."""
        if not self.enabled:
            return
        self._guard(self._hear)
        self._bar.close()
        if self._visualdl:
            self._guard(self._visualdl.close)
        self._guard(self._curves)

    def _prepare(self, resume):
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("log.txt", "log.jsonl"):
            if resume:
                _cut_after(self.folder / name, self.start or math.inf)
            else:
                (self.folder / name).unlink(missing_ok=True)
        if resume and self.start:
            self._before = _seconds(self.folder / "log.jsonl")

    def _line(self, text):
        text = shown(text)
        self._guard(_print, text)
        self._guard(self._append, "log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _append(self, name, text):
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(text)

    def _visual(self, method, *args):
        if self._visualdl is None:
            self._visualdl = self._guard(self._open_visualdl) or False
        if self._visualdl:
            self._guard(getattr(self._visualdl, method), *args)

    def _open_visualdl(self):
        from visualdl import LogWriter

        return LogWriter(logdir=str(self.visualdl), file_name="vdlrecords.run.log")

    def _curves(self):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        if not (self.folder / "log.jsonl").exists():  # nothing was logged yet
            return
        rows = []
        for line in (self.folder / "log.jsonl").read_text().splitlines():
            row = _row(line)
            if "iteration" not in row:
                continue
            if rows and row["iteration"] < rows[-1]["iteration"]:  # of a run that began anew
                rows = []
            rows.append(row)
        names = {}  # a dict, which keeps the order in which they came up
        for row in rows:
            names |= dict.fromkeys(row)
        names.pop("iteration", None)
        names.pop("seconds", None)
        if not names:
            return
        lines = math.ceil(len(names) / 2)  # two curves side by side
        figure = Figure(figsize=(10, 2.4 * lines), layout="constrained")
        FigureCanvasAgg(figure)
        for i, name in enumerate(names, start=1):
            axes = figure.add_subplot(lines, 2, i, title=name, xlabel="iteration")
            points = [(row["iteration"], row[name]) for row in rows if row.get(name) is not None]
            marker = "." if len(points) < 50 else None  # a line of few points is hard to see
            axes.plot(*zip(*points, strict=True), linewidth=0.8, marker=marker)
        with atomic_path(self.folder / "curves.png") as temporary:
            figure.savefig(temporary, dpi=100)

    def _guard(self, action, *args):
        """Run `action`; should it fail, warn once for its kind and go on.

        A log must not end hours of training.
        """
        try:
            return action(*args)
        # Whatever VisualDL, matplotlib, a full disk or a closed pipe raise.
        except Exception as error:
            kind = getattr(action, "__name__", "log")
            if kind not in self._warned:
                self._warned.add(kind)
                reason = f"{type(error).__name__}: {error}"
                print(f"warning: logging failed, training goes on: {reason}", file=sys.stderr)


class Means:
    """Means of what the steps return, kept as tensors: nothing waits for the GPU until `take`.

    Attributes: steps, how many were added since the last `take`.
    """

    def __init__(self):
        self.steps = 0
        self._sums = {}  # name: (sum, how many steps had it)

    def add(self, values):
        """Add one step's dict name -> 0-d tensor; a name may be absent from some steps."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        self.steps += 1

    def take(self):
        """{name: mean over the steps that had it, as float}; starts anew."""
        means = {name: float(total) / count for name, (total, count) in self._sums.items()}
        self.steps = 0
        self._sums = {}
        return means


def _print(text):
    tqdm.write(text, file=sys.stdout)  # keeps clear of the bar
    sys.stdout.flush()


def _cut_after(path, iteration):
    """Cut a log file at the first row later than `iteration` of the run that it ends with.

    A last line that was not written to its end goes too.
    """
    if not path.exists():
        return
    end = 0  # of what was read
    cut = None
    last = 0
    with open(path, "rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            number = _row_number(line)
            if 0 <= number < last:  # a run that began anew
                cut = None
            if number >= 0:
                last = number
            if number > iteration and cut is None:
                cut = end
            end += len(line)
        file.truncate(end if cut is None else cut)


def _seconds(path):
    """What the last row tells; 0 of logs that do not."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return _row(lines[-1]).get("seconds", 0.0) if lines else 0.0


def _row(line):
    """A line of log.jsonl as a dict; {} for one that a full disk or an editor has cut."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _row_number(line):
    """The iteration of one line of log.jsonl or log.txt; -1 for a line of text."""
    if line.startswith(b"{"):
        return _row(line).get("iteration", -1)
    match = ROW.match(line)
    return int(match[1]) if match else -1


def _clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
