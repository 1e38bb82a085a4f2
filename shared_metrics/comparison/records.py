"""Result records as they lie on disk, with the log of the training and the pictures beside them.

What a file says is never trusted: what is broken, huge or foreign is named in one line and left
out.
"""

import json
import math
import os
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from shared_metrics.errors import UserError
from shared_metrics.files import shown
from shared_metrics.results import read_record

RECORD = "results.json"
FAILURE = "failed.json"  # {"paper", "step", "reason"}, of a run that has no record
LOGS = ("training.jsonl", "log.jsonl")  # as test.py copies it, as training writes it
MAX_RECORD = 8 * 2**20  # bytes
MAX_LOG = 128 * 2**20
POINTS = 300  # of a curve
CURVES = 40  # of a run
NOT_CURVES = ("iteration", "seconds", "images_per_second")
DRAWN = re.compile(r"seed(\d{1,10})(?:_class(\d{1,6}))?")


@dataclass
class Result:
    """One evaluation.

    Attributes: folder; place, the folder as a reader knows it; record, checked by
        `results.read_record`; curves, {name: [(iteration, hours or None, value)]}; hours, of the
        training up to this checkpoint, images_per_second, its median: both None where no log tells.
    """

    folder: Path
    place: str
    record: dict
    curves: dict = field(default_factory=dict)
    hours: float | None = None
    images_per_second: float | None = None

    @property
    def parameters(self):
        """Trained numbers of the generator, None in records that do not tell."""
        number = self.record.get("parameters")
        return number if type(number) is int and 0 < number < 10**15 else None


def find(places):
    """Records and failures in folders and below them, sorted by path.

    Args: places, folders or single files.
    Returns: ([Result], [failure, a dict of texts], notes on what was left out).
    Raises: UserError for a place that is not there, and where no record can be read.
    """
    results = []
    failures = []
    notes = []
    for path in _files(places):
        try:
            if path.name == FAILURE:
                failures.append(_failure(path))
            else:
                results.append(_result(path, notes))
        except UserError as error:
            notes.append(f"left out: {shown(error)}")
    if not results and not failures:
        told = f" ({notes[0]})" if notes else ""
        where = ", ".join(map(str, places))
        raise UserError(f"{where}: no {RECORD} that can be read{told}; test.py writes one")
    return results, failures, notes


def _files(places):
    files = {}  # by their real path: each once
    for place in map(Path, places):
        if place.is_file():
            files.setdefault(os.path.realpath(place), place)
            continue
        if not place.is_dir():
            raise UserError(f"{place}: no such file or folder; give folders that hold {RECORD}")
        for folder, folders, names in os.walk(place):
            folders[:] = sorted(name for name in folders if name[0] != ".")
            for name in sorted({RECORD, FAILURE} & set(names)):
                path = Path(folder, name)
                files.setdefault(os.path.realpath(path), path)
    return list(files.values())


def _result(path, notes):
    _check_size(path, MAX_RECORD)
    result = Result(path.parent, _place(path), read_record(path))
    for name in LOGS:
        log = path.parent / name
        if log.exists():
            try:
                _read_log(log, result)
            except UserError as error:
                notes.append(f"without curves: {shown(error)}")
            break
    return result


def _place(path):
    """The folder from here, where it lies below; of a file of another name, with that."""
    path = path.parent if path.name in (RECORD, FAILURE) else path
    place = os.path.relpath(path)
    return shown(place if not place.startswith("..") else Path(*path.absolute().parts[-2:]))


def _check_size(path, most):
    if not path.is_file():
        raise UserError(f"{path}: no regular file; replace or remove it")
    if path.stat().st_size > most:
        raise UserError(f"{path}: larger than {most // 2**20} MiB; replace or remove it")


def _failure(path):
    _check_size(path, MAX_RECORD)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        words = {name: shown(told[name])[:500] for name in ("paper", "step", "reason")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: tells no failure ({type(error).__name__}); remove it") from None
    return words | {"place": _place(path)}


# ---- the log ----


def _read_log(path, result):
    """Fill in what the log tells up to the record's iteration."""
    _check_size(path, MAX_LOG)
    last = (result.record["checkpoint"] or {}).get("iteration")
    curves = {}
    speeds = []
    with open(path, "rb") as file:
        for line in file:
            row = _row(line)
            if row is None or (last is not None and row["iteration"] > last):
                continue
            seconds = row.get("seconds")
            result.hours = seconds / 3600 if seconds is not None else None
            if row.get("images_per_second", 0) > 0:
                speeds.append(row["images_per_second"])
            for name, value in row.items():
                if name not in NOT_CURVES and (name in curves or len(curves) < CURVES):
                    point = (row["iteration"], result.hours, value)
                    curves.setdefault(shown(name)[:60], []).append(point)
    if not curves:
        raise UserError(f"{path}: holds no row of a training's log")
    result.curves = {name: _thinned(points) for name, points in curves.items()}
    result.images_per_second = statistics.median(speeds) if speeds else None


def _row(line):
    """{name: finite number} of a line, None where it is none of a log's."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    numbers = {name: value for name, value in row.items() if type(value) in (int, float)}
    row = {name: value for name, value in numbers.items() if abs(value) < 1e300}
    return row if isinstance(row.get("iteration"), int) and row["iteration"] >= 0 else None


def _thinned(points):
    """At most POINTS, evenly spread, each the mean of those around it; few stay as they are."""
    if len(points) <= POINTS:
        return points
    thin = []
    for i in range(POINTS):
        part = points[i * len(points) // POINTS : (i + 1) * len(points) // POINTS]
        iteration, hours, _ = part[-1]
        thin.append((iteration, hours, math.fsum(value for *_, value in part) / len(part)))
    return thin


# ---- the pictures ----


def drawn_pictures(result):
    """{(seed, class's name or None), or the picture's name: file} of what a test drew."""
    pictures = {}
    folder = result.folder / "images"
    if not folder.is_dir():
        return pictures
    for path in sorted(folder.iterdir()):
        match = DRAWN.fullmatch(path.stem)
        if match:
            label = None if match[2] is None else _class_name(result.record, int(match[2]))
            pictures[int(match[1]), label] = path
        elif path.suffix == ".png" and not path.stem.startswith(("input", "cyc", "real_")):
            name = re.sub(r"^fake[AB]_", "", path.stem)
            pictures[shown(name)[:60]] = path
    return pictures


def _class_name(record, label):
    """By name: another run's class of this number may be another class."""
    names = record.get("classes")
    if isinstance(names, list) and label < len(names):
        return shown(names[label])[:40]
    return f"class {label:03d}"


def common_keys(sets, most):
    """(keys of the columns, what they share: "seed", "class" or "name") for pictures side by side.

    Args: sets, what `drawn_pictures` gives of each run; most, columns.
    Returns: ([], "") where no two pictures belong together. A "class" key is its name.
    """
    with_class = [pictures for pictures in sets if classes_of(pictures)]
    sets = with_class or [pictures for pictures in sets if pictures]
    if not sets:
        return [], ""
    same = set(sets[0]).intersection(*sets[1:])
    drawn = sorted(key for key in same if isinstance(key, tuple) and key[1] is not None)
    if drawn:
        return _one_a_class(drawn, most), "seed"
    if same:
        keys = sorted(same, key=str if isinstance(next(iter(same)), str) else None)
        return keys[:most], "seed" if isinstance(keys[0], tuple) else "name"
    classes = set(classes_of(sets[0])).intersection(*map(classes_of, sets[1:]))
    return sorted(classes)[:most], "class" if classes else ""


def classes_of(pictures):
    """{class: its first picture}."""
    with_class = [key for key in pictures if isinstance(key, tuple) and key[1] is not None]
    first = {}
    for seed, label in sorted(with_class):
        first.setdefault(label, pictures[seed, label])
    return first


def _one_a_class(keys, most):
    """Classes in turn, each with its first seed, then its second, ...; classes stay together."""
    by_class = {}
    for key in keys:
        by_class.setdefault(key[1], []).append(key)
    each = max(1, most // len(by_class))
    chosen = []
    for label in sorted(by_class):
        chosen += by_class[label][:each]
    return chosen[:most]
