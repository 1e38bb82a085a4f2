"""The comparison as rows of text: one a run, for Markdown, CSV and the page."""

import csv
import io
from dataclasses import dataclass

from shared_metrics.comparison.ranking import SCORES, number, protocol, shown_scores, stand
from shared_metrics.comparison.records import Result
from shared_metrics.files import shown

# Papers as their authors write them, by the name in a record; others are shown as they are.
TITLES = {
    "sagan": "SAGAN",
    "acgan": "AC-GAN",
    "gaugan_simam": "GauGAN + SimAM",
    "cgan": "CGAN",
    "dcgan": "DCGAN",
    "pix2pix": "Pix2Pix",
    "cyclegan": "CycleGAN",
    "stargan": "StarGAN",
    "attgan": "AttGAN",
    "stgan": "STGAN",
    "spade": "SPADE",
}
TEST_FOLDERS = ("test", "test_result", "infer_result")
DASH = "—"


@dataclass
class Row:
    """One run as text. scores: {name: Standing or None}, of the table's score columns."""

    result: Result
    paper: str
    name: str
    published: str
    scores: dict
    protocol: str
    samples: str
    weights: str
    time: str
    parameters: str
    images_per_second: str


@dataclass
class Table:
    """One data set. reasons: why some of its runs are not ranked."""

    dataset: str
    scores: list
    rows: list
    reasons: list


def tables(results):
    """A `Table` a data set, those of most runs first."""
    by_dataset = {}
    for result in results:
        by_dataset.setdefault(shown(result.record["dataset"]), []).append(result)
    ordered = sorted(by_dataset.items(), key=lambda item: (-len(item[1]), item[0]))
    return [_table(dataset, own) for dataset, own in ordered]


def _table(dataset, results):
    records = [result.record for result in results]
    names = shown_scores(records)
    standings = {}
    reasons = []
    for name in names:
        standings[name], why = stand(records, name)
        reasons += why
    rows = []
    for i, result in enumerate(results):
        rows.append(_row(result, {name: standings[name][i] for name in names}))
    return Table(dataset, names, rows, reasons)


def _row(result, scores):
    record = result.record
    checkpoint = record["checkpoint"] or {}
    measured = [name for name, standing in scores.items() if standing]
    iteration = checkpoint.get("iteration")
    weights = [shown(checkpoint["weights"])] if checkpoint else []
    weights += [f"{iteration:,} it"] if iteration is not None else []
    name = result.folder.name
    if name in TEST_FOLDERS:  # which says nothing: that of the run
        name = result.folder.absolute().parent.name
    return Row(
        result=result,
        paper=TITLES.get(record["paper"], shown(record["paper"])),
        name=shown(name),
        published=published(record),
        scores=scores,
        protocol="; ".join(dict.fromkeys(protocol(record, name) for name in measured)) or DASH,
        samples=number(record["samples"]["number"]),
        weights=", ".join(weights) or DASH,
        time=duration(result.hours),
        parameters=millions(result.parameters),
        images_per_second=number(result.images_per_second, 3),
    )


def published(record):
    """The published scores, each once: the first that is told of a name."""
    values = {}
    for entry in record["published"]:
        name = SCORES[entry["score"]].title if entry["score"] in SCORES else shown(entry["score"])
        values.setdefault(name, entry["value"])
    return ", ".join(f"{name} {number(value)}" for name, value in values.items()) or DASH


def duration(hours):
    """1.5 h, 12 min, 40 s."""
    if hours is None:
        return DASH
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 30 else f"{3600 * hours:.0f} s"


def millions(count):
    """9.42 M, 310 k."""
    if count is None:
        return DASH
    return f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count / 1e3:.3g} k"


def measured(standing):
    """A score as tables show it: 12.3 (1st of 3, A)."""
    if standing is None:
        return DASH
    words = [f"{standing.rank} of {standing.of}"] if standing.rank else []
    words += [standing.group] if standing.group else []
    return number(standing.value) + (f" ({', '.join(words)})" if words else "")


COLUMNS = ("Protocol", "Samples", "Weights", "Time", "Parameters", "Images/s")


def cells(row):
    """The texts under COLUMNS."""
    return (
        row.protocol,
        row.samples,
        row.weights,
        row.time,
        row.parameters,
        row.images_per_second,
    )


def markdown(comparison, failures, notes):
    """The tables in Markdown; nothing in a record is markup there."""
    lines = ["# Papers side by side", ""]
    for table in comparison:
        titles = [SCORES[name].title for name in table.scores]
        head = ["Paper", "Run", "Published", *titles, *COLUMNS]
        lines += [f"## {_plain(table.dataset)}", "", _line(head), _line(["---"] * len(head))]
        for row in table.rows:
            scores = [measured(standing) for standing in row.scores.values()]
            lines.append(_line([row.paper, row.result.place, row.published, *scores, *cells(row)]))
        lines += ["", *[f"- {_plain(reason)}" for reason in table.reasons]]
        lines += [""] if table.reasons else []
    if failures:
        lines += ["## Failed", ""]
        for failure in failures:
            paper = TITLES.get(failure["paper"], failure["paper"])
            lines.append(
                f"- {_plain(paper)}, {_plain(failure['step'])}: {_plain(failure['reason'])}"
            )
        lines.append("")
    lines += [f"- {_plain(note)}" for note in notes]
    return "\n".join(lines).rstrip() + "\n"


def _line(words):
    return "| " + " | ".join(map(_plain, words)) + " |"


def _plain(text):
    """Text that Markdown and the HTML in it leave alone."""
    text = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|~#!$" else letter for letter in text)


def comma_separated(comparison):
    """A line a run, all data sets in one table; a score's group is the column beside it."""
    names = [name for name in SCORES if any(name in table.scores for table in comparison)]
    head = ["dataset", "paper", "run", "name", "published"]
    for name in names:
        head += [name, f"{name}_rank", f"{name}_group"]
    head += ["protocol", "samples", "weights", "iteration", "training_hours", "parameters"]
    head += ["training_images_per_second", "command"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for table in comparison:
        for row in table.rows:
            writer.writerow([_cell(value) for value in _flat(table, row, names)])
    return out.getvalue()


def _flat(table, row, names):
    record = row.result.record
    checkpoint = record["checkpoint"] or {}
    values = [table.dataset, record["paper"], row.result.place, record.get("name", "")]
    values.append("" if row.published == DASH else row.published)
    for name in names:
        standing = row.scores.get(name)
        if standing is None:
            values += ["", "", ""]
        else:
            values += [standing.value, standing.rank or "", standing.why or standing.group]
    values += [row.protocol, record["samples"]["number"], checkpoint.get("weights", "")]
    values += [checkpoint.get("iteration"), row.result.hours, row.result.parameters]
    return [*values, row.result.images_per_second, record["command"]]


def _cell(value):
    """A text that a spreadsheet does not take for a formula."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = shown(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
