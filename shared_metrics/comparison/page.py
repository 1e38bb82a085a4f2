"""The comparison as one HTML file that needs no network: tables, pictures, curves.

Every text out of a record passes through `_text` (or JSON, for the curves), every picture is
decoded and encoded anew, and the page itself allows no script but its own.
"""

import base64
import hashlib
import html
import io
import json
from pathlib import Path

from PIL import Image

from shared_metrics.comparison.ranking import SCORES, basis, number
from shared_metrics.comparison.records import classes_of, common_keys, drawn_pictures
from shared_metrics.comparison.text import COLUMNS, DASH, TITLES, cells
from shared_metrics.errors import UserError
from shared_metrics.files import shown
from shared_metrics.images import read_rgb

HERE = Path(__file__).parent
SHEET = 900  # px, the longer side of a sample sheet on the page
CELL = 160  # px, of a picture that stands beside its like
MOST = 12  # such pictures a run
CHOSEN = 6  # runs of a data set whose pictures and curves are shown at first
SORTABLE = {"Samples": "samples", "Time": "time", "Parameters": "parameters", "Images/s": "speed"}


def page(comparison, failures, notes):
    """The HTML text. Adds to `notes` what cannot be shown; see `text.tables`."""
    parts = []
    curves = {}
    number_of_runs = 0
    for position, table in enumerate(comparison):
        runs = range(number_of_runs, number_of_runs + len(table.rows))
        number_of_runs += len(table.rows)
        parts.append(_section(f"set{position}", table, runs, notes))
        for run, row in zip(runs, table.rows, strict=True):
            curves[run] = row.result.curves
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    papers = {row.paper for table in comparison for row in table.rows}
    filled = {
        "POLICY": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "STYLE": (HERE / "page.css").read_text(encoding="utf-8"),
        "SCRIPT": script,
        "COUNTS": f"{_count(number_of_runs, 'run')} of {_count(len(papers), 'paper')} on "
        f"{_count(len(comparison), 'data set')}",
        "LINKS": "".join(
            f'<a href="#set{i}">{_text(table.dataset)} <span>{len(table.rows)}</span></a>'
            for i, table in enumerate(comparison)
        ),
        "FAILURES": _failures(failures),
        "SECTIONS": "".join(parts),
        "NOTES": _list("Left out", notes),
        "CURVES": json.dumps(curves, allow_nan=False).replace("<", "\\u003c"),
    }
    # In one pass, so that nothing in a record is taken for a place to fill.
    pieces = (HERE / "page.html").read_text(encoding="utf-8").split("@@")
    return "".join(filled[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _count(number, word):
    return f"{number} {word}" + ("" if number == 1 else "s")


def _text(value):
    """Text for HTML, between tags and in quoted attributes."""
    return html.escape(shown(value))


def _section(anchor, table, runs, notes):
    head = "".join(_head(title, key) for title, key in _columns(table))
    bodies = "".join(
        _body(run, row, i < CHOSEN)
        for i, (run, row) in enumerate(zip(runs, table.rows, strict=True))
    )
    figures = _pictures(table, runs, notes) + _sheets(table, runs, notes)
    return (
        f'<section class="set" id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{_text(table.dataset)}</h2>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Runs on {_text(table.dataset)}'
        f'"><table><thead><tr>{head}</tr></thead>{bodies}</table></div>'
        f"{_list('Not ranked', table.reasons)}{figures}"
        '<div class="curves"></div></section>'
    )


def _columns(table):
    columns = [("Run", "run"), ("Published", "")]
    columns += [(SCORES[name].title, name) for name in table.scores]
    return columns + [(title, SORTABLE.get(title, "")) for title in COLUMNS]


def _head(title, key):
    if not key:
        return f'<th scope="col">{title}</th>'
    better = SCORES[key].better if key in SCORES else 0
    arrow = {1: "↑", -1: "↓", 0: ""}[better]
    told = {1: "more is better", -1: "less is better", 0: ""}[better]
    kind = "" if key == "run" else ' class="number"'
    return (
        f'<th scope="col"{kind} aria-sort="none"><button type="button" data-sort="{key}" '
        f'data-better="{better}" title="{told}">{title}<i>{arrow}</i></button></th>'
    )


def _body(run, row, chosen):
    """A run: its row, and below it, folded, what else its record tells."""
    result = row.result
    sortable = {
        "run": f"{row.paper} {result.place}",
        "samples": result.record["samples"]["number"],
        "time": result.hours,
        "parameters": result.parameters,
        "speed": result.images_per_second,
    }
    published = "".join(f"<span>{_text(part)}</span>" for part in row.published.split(", "))
    numbers = ["Samples", "Time", "Parameters", "Images/s"]
    rest = ""
    for title, text in zip(COLUMNS, cells(row), strict=True):
        key = SORTABLE.get(title)
        value = f' data-value="{_text(sortable[key])}"' if key and sortable[key] is not None else ""
        kind = "number" if title in numbers else "words"
        rest += f'<td class="{kind}"{value}>{_text(text)}</td>'
    checked = " checked" if chosen else ""
    pick = f"Show pictures and curves of {_text(result.place)}"
    width = 2 + len(row.scores) + len(COLUMNS)
    return (
        f'<tbody data-run="{run}" data-group=""><tr><th scope="row" data-value="'
        f'{_text(sortable["run"])}"><div class="run"><label class="pick">'
        f'<input type="checkbox"{checked} aria-label="{pick}"><b></b></label>'
        f'<button type="button" class="more" aria-expanded="false" aria-controls="more{run}">'
        f"<strong>{_text(row.paper)}</strong><span>{_text(row.name)}</span></button></div></th>"
        f'<td class="words">{published}</td>'
        f"{''.join(_score(standing) for standing in row.scores.values())}{rest}</tr>"
        f'<tr class="details" id="more{run}" hidden><td colspan="{width}">{_details(row)}</td></tr>'
        "</tbody>"
    )


def _score(standing):
    if standing is None:
        return f'<td class="number none">{DASH}</td>'
    place = ""
    if standing.rank:
        place = f"<small>{standing.rank} of {standing.of}</small>"
    group = f'<sup title="group {standing.group}">{standing.group}</sup>' if standing.group else ""
    # What is not ranked sorts after all groups.
    rank = f' data-group="{_text(standing.group)}"' if not standing.why else ' data-group="~"'
    best = " best" if standing.rank == 1 else ""
    why = f' title="not ranked: {_text(standing.why)}"' if standing.why else ""
    return (
        f'<td class="number score{best}" data-value="{standing.value!r}"{rank}{why}>'
        f"<span>{number(standing.value)}{group}</span>{place}</td>"
    )


def _details(row):
    record = row.result.record
    checkpoint = record["checkpoint"] or {}
    environment = record["environment"]
    departures = record.get("departures")
    facts = [("Folder", row.result.place), ("Recipe", record["recipe"] or DASH)]
    if isinstance(departures, dict) and departures:
        pairs = [f"{name} {value}" for name, value in list(departures.items())[:40]]
        facts.append(("Departs from it in", ", ".join(pairs)[:1000]))
    for name, standing in row.scores.items():
        if standing and not standing.why:
            rests = ", ".join(f"{what} {value}" for what, value in basis(record, name).items())
            facts.append((f"{SCORES[name].title} rests on", rests))
    others = [name for name in record["scores"] if name not in row.scores]
    if others:
        told = ", ".join(f"{name} {number(record['scores'][name])}" for name in others[:30])
        facts.append(("Other scores", told))
    for entry in record["published"][:12]:
        title = SCORES[entry["score"]].title if entry["score"] in SCORES else entry["score"]
        facts.append((f"Published {title}", f"{number(entry['value'])} — {entry['source']}"))
    if checkpoint:
        facts.append(("Checkpoint", f"sha256 {checkpoint['sha256'][:16]}"))
    speed = f"{number(record['seconds'], 3)} s, {number(record['images_per_second'], 3)} images/s"
    facts.append(("Drawn and scored in", speed))
    facts.append(("On", f"Paddle {environment['paddle']}, {environment['device']}"))
    if environment["commit"]:
        facts.append(("Commit", environment["commit"]))
    told = record.get("notes")
    for note in told[:12] if isinstance(told, list) else ():
        facts.append(("Note", note))
    terms = "".join(f"<dt>{_text(what)}</dt><dd>{_text(value)}</dd>" for what, value in facts)
    commands = [record.get("training_command"), record["command"]]
    return "".join(map(_command, filter(None, commands))) + f"<dl>{terms}</dl>"


def _command(text):
    return (
        f'<div class="command"><code>{_text(text)}</code>'
        '<button type="button" class="copy">Copy</button></div>'
    )


def _list(title, texts):
    if not texts:
        return ""
    items = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return f'<aside class="reasons"><h3>{title}</h3><ul>{items}</ul></aside>'


def _failures(failures):
    if not failures:
        return ""
    items = ""
    for failure in failures:
        paper = TITLES.get(failure["paper"], failure["paper"])
        items += (
            f"<li><strong>{_text(paper)}</strong> {_text(failure['step'])}"
            f"<code>{_text(failure['reason'])}</code><span>{_text(failure['place'])}</span></li>"
        )
    return f'<aside class="failed"><h2>Failed</h2><ul>{items}</ul></aside>'


# ---- pictures ----


def _pictures(table, runs, notes):
    """Rows of pictures that belong together: of one seed and class, of one class, of one name."""
    sets = {run: drawn_pictures(row.result) for run, row in zip(runs, table.rows, strict=True)}
    keys, what = common_keys(list(sets.values()), MOST)
    if not keys:
        return ""
    heads = "".join(f'<th scope="col">{_text(_key_name(key, what))}</th>' for key in keys)
    lines = []
    for i, (run, row) in enumerate(zip(runs, table.rows, strict=True)):
        own = classes_of(sets[run]) if what == "class" else sets[run]
        if not set(keys) <= set(own):  # of pictures without classes beside those with
            continue
        pictures = "".join(f"<td>{_picture(own[key], CELL, notes)[0]}</td>" for key in keys)
        hidden = "" if i < CHOSEN else " hidden"
        head = f'<th scope="row">{_of(row)}</th>'
        lines.append(f'<tr data-of="{run}"{hidden}>{head}{pictures}</tr>')
    if len(lines) < 2:  # one run alone has its sheet
        return ""
    same = {"seed": "Same seed, same class", "class": "Same class", "name": "Same input"}[what]
    return (
        f'<h3>{same}</h3><div class="scroll" tabindex="0" role="region" aria-label="{same}">'
        f'<table class="same"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _key_name(key, what):
    """The class and the seed, or the name of the input."""
    if what != "seed":
        return key
    seed, label = key
    return f"#{seed}" if label is None else f"{label} #{seed}"


def _sheets(table, runs, notes):
    """The runs' grid.png, a pixel of each as large as of the others."""
    figures = []
    for i, (run, row) in enumerate(zip(runs, table.rows, strict=True)):
        path = row.result.folder / "grid.png"
        if not path.exists():
            continue
        picture, width = _picture(path, SHEET, notes)
        if picture:
            hidden = "" if i < CHOSEN else " hidden"
            figures.append(
                f'<figure data-of="{run}" data-width="{width}"{hidden}><div class="sheet" '
                f'tabindex="0">{picture}</div><figcaption>{_of(row)}</figcaption></figure>'
            )
    if not figures:
        return ""
    sizes = "".join(
        f'<button type="button" data-scale="{scale}" aria-pressed="{str(scale == 1).lower()}">'
        f"{scale}×</button>"
        for scale in (0.5, 1, 2)
    )
    return (
        '<div class="bar"><h3>Samples, one scale</h3><div class="scales" role="group" '
        f'aria-label="Size of a pixel">{sizes}</div></div>'
        f'<div class="sheets">{"".join(figures)}</div>'
    )


def _of(row):
    return f"<b></b><strong>{_text(row.paper)}</strong> <span>{_text(row.name)}</span>"


def _picture(path, most, notes):
    """(an img element, the file's width in px); ("", 0) and a note where it cannot be read."""
    try:
        if not path.is_file():
            raise UserError(f"{path}: no regular file; replace or remove it")
        image = read_rgb(path)
    except UserError as error:
        notes.append(f"without a picture: {shown(error)}")
        return "", 0
    width = image.width
    image.thumbnail((most, most), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=84, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    source = f"data:image/jpeg;base64,{data}"
    size = f'width="{image.width}" height="{image.height}"'
    kind = ' class="small"' if image.width <= CELL // 2 else ""
    return f'<img{kind} loading="lazy" alt="{_text(path.stem)}" {size} src="{source}">', width
