"""Which runs a score may rank: those that were measured alike, and why not the others.

Runs of one data set form groups by what a score rests on (`basis`). A rank is given inside a group
alone; between groups there is only the list of what differs.
"""

import bisect
import math
from dataclasses import dataclass

from shared_metrics.files import shown


@dataclass(frozen=True)
class Score:
    """A score that tables show. better: 1, more is; -1, less is; 0, neither."""

    name: str
    title: str
    better: int


# fmt: off
SCORES = {
    score.name: score for score in (
        Score("fid", "FID", -1),
        Score("is", "IS", 1),
        Score("kid", "KID", -1),
        Score("precision", "Precision", 1),
        Score("recall", "Recall", 1),
        Score("fd_efficientnet", "FD EffNet", -1),
        Score("kd_efficientnet", "KD EffNet", -1),
        Score("precision_efficientnet", "Precision EffNet", 1),
        Score("recall_efficientnet", "Recall EffNet", 1),
        Score("class_accuracy", "Class accuracy", 1),
        Score("judge_accuracy", "Judge accuracy", 1),
        Score("accuracy", "Edit accuracy", 1),
        Score("preservation", "Preservation", 1),
        Score("miou", "mIoU", 1),
        Score("pixel_accuracy", "Pixel accuracy", 1),
        Score("l1", "L1", -1),
        Score("psnr", "PSNR", 1),
        Score("ssim", "SSIM", 1),
        Score("msssim", "MS-SSIM in a class", 0),  # less is more diverse, noise least of all
    )
}
# fmt: on
INCEPTION = ("fid", "is", "kid", "precision", "recall")
JUDGES = ("classifier", "judge", "segmenter")


@dataclass
class Standing:
    """What a run's score counts among the others. group: "A", "B", ... where there are several
    groups, else ""; rank: place in the group, from 1, of `of` runs; None: not ranked, and why.
    """

    value: float
    group: str = ""
    rank: int | None = None
    of: int = 1
    why: str = ""


def basis(record, name):
    """What a score rests on, {what: text}: equal for two runs that it may rank."""
    samples = record["samples"]
    rests = {"pictures": str(samples["number"])}
    network, real = _network(record, name)
    if network is not None:
        rests["feature network"] = network["sha256"][:12]
        rests["protocol"] = f"{network['protocol']} ({network['variant']})"
        if name != "is":
            real = real or {}
            rests["real pictures"] = str(real.get("number"))
            rests["real statistics"] = str(real.get("sha256"))[:12]
        return {what: shown(text) for what, text in rests.items()}
    for judge in JUDGES:
        about = record.get(judge)
        if isinstance(about, dict) and "sha256" in about:
            rests["judge"] = str(about["sha256"])[:12]
    real = record["scores"].get(f"{name}_real")
    if real is not None:
        rests["real pictures' score"] = f"{real:.4g}"
    elif isinstance(samples.get("data"), str):
        rests["data"] = samples["data"][:80]
    return {what: shown(text) for what, text in rests.items()}


def _network(record, name):
    """(the feature network, the real statistics) of a score, None where it is of none."""
    if name.endswith("_efficientnet"):
        return record.get("efficientnet"), record.get("real_efficientnet")
    return (record["inception"], record["real"]) if name in INCEPTION else (None, None)


def protocol(record, name):
    """What stands beside a number: the protocol of its network, or its judge."""
    network, _ = _network(record, name)
    if network is not None:
        return shown(network["protocol"]) + ("" if network["comparable"] else ", random weights")
    judges = [judge for judge in JUDGES if isinstance(record.get(judge), dict)]
    return judges[0] if judges else "of pixels"


def stand(records, name):
    """(one `Standing` a record, None without this score; reasons why some are not ranked).

    Args: records, of one data set; name, of SCORES.
    """
    standings = [None] * len(records)
    groups = {}  # basis: places of the records
    reasons = []
    for i, record in enumerate(records):
        if name not in record["scores"]:
            continue
        standings[i] = Standing(record["scores"][name])
        standings[i].why = _unfit(record, name)
        if not standings[i].why:
            groups.setdefault(tuple(sorted(basis(record, name).items())), []).append(i)
    title = SCORES[name].title
    for why in dict.fromkeys(standing.why for standing in standings if standing):
        if why:
            number = sum(standing is not None and standing.why == why for standing in standings)
            reasons.append(f"{title}: {number} not ranked, {why}")
    ordered = sorted(groups.values(), key=lambda places: (-len(places), places[0]))
    for number, places in enumerate(ordered):
        if len(groups) > 1:
            for i in places:
                standings[i].group = letters(number)
        _rank([standings[i] for i in places], SCORES[name].better)
    if len(groups) > 1:
        reasons.append(_why(title, [dict(basis(records[p[0]], name)) for p in ordered]))
    return standings, reasons


def _unfit(record, name):
    """Why a score ranks with no other; "" where nothing speaks against it."""
    network, real = _network(record, name)
    if not SCORES[name].better:
        return "neither more nor less is better"
    if network is not None and not network["comparable"]:
        return "a feature network of random weights orders nothing"
    if network is not None and name != "is" and not (real and real["sha256"]):
        return "the record does not tell its real statistics"
    return ""


def _rank(standings, better):
    best_first = sorted(-better * standing.value for standing in standings)
    for standing in standings:
        standing.of = len(standings)
        if len(standings) > 1:
            standing.rank = 1 + bisect.bisect_left(best_first, -better * standing.value)


def _why(title, bases):
    """Which of the things that a score rests on differ between groups, and how."""
    differences = []
    for what in dict.fromkeys(what for rests in bases for what in rests):
        values = [rests.get(what, "none") for rests in bases]
        if len(set(values)) == 1:
            continue
        pairs = [f"{letters(i)} {value}" for i, value in enumerate(values[:6])]
        differences.append(f"{what} ({', '.join(pairs)}{', ...' if len(values) > 6 else ''})")
    return f"{title}: groups are not ranked against each other, they differ in " + "; ".join(
        differences
    )


def letters(number):
    """A, B, ..., Z, AA, AB, ..."""
    text = ""
    while number >= 0:
        text = chr(65 + number % 26) + text
        number = number // 26 - 1
    return text


def shown_scores(records):
    """Those of SCORES that some record has, in their order."""
    return [name for name in SCORES if any(name in record["scores"] for record in records)]


def number(value, digits=4):
    """A measured number for a reader: 4 significant digits, never 1e+05 for a count."""
    if value is None:
        return "—"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}" if math.isfinite(value) and abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:.{digits}g}"
