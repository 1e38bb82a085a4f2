"""The result record of an evaluation (`results.json`): one schema for all papers, checked on
writing and on reading.
"""

import json
import math

from shared_metrics.errors import UserError
from shared_metrics.files import read_text, save_json

FORMAT = 1
NUMBER = (int, float)
NOTHING = type(None)

# What a record tells of a feature network, and of the real images' statistics over it.
NETWORK = {"source": str, "sha256": str, "comparable": bool, "protocol": str, "variant": str}
REAL = {"source": (str, NOTHING), "number": (int, NOTHING), "sha256": (str, NOTHING)}
# name: types, or a dict of the same kind; `(dict, None)` parts may be null where a run has no such
# thing.
SCHEMA = {
    "format": int,
    "paper": str,
    "dataset": str,
    "recipe": (str, NOTHING),
    "checkpoint": (
        {"sha256": str, "iteration": (int, NOTHING), "weights": str},
        NOTHING,
    ),  # weights: "raw" or "ema"
    "samples": {"number": int, "seed": (int, str, NOTHING)},
    "scores": dict,  # name: finite number
    "comparable": bool,  # false without a feature network, and where one has random weights
    "inception": (NETWORK, NOTHING),
    "real": (REAL, NOTHING),
    "published": list,  # of {"score", "value", "source"}
    "environment": {"paddle": str, "python": str, "device": str, "commit": (str, NOTHING)},
    "command": str,
    "seconds": NUMBER,
    "images_per_second": NUMBER,
}
# Stands there only where EfficientNet-Lite0 was used.
OPTIONAL = {"efficientnet": NETWORK, "real_efficientnet": REAL}
PUBLISHED = {"score": str, "value": NUMBER, "source": str}


def write_record(path, record):
    """Check the record (`SCHEMA`; `format` is added; further keys are free) and write it as JSON,
    atomically.

    Raises: ValueError naming the first entry that is missing or wrong: that is a bug of the caller.
    """
    record = {"format": FORMAT, **record}
    check_record(record)
    save_json(record, path)


def read_record(path):
    """Read a record; entries of earlier ones come under their names of today.

    Raises: UserError naming the file and the entry that is wrong.
    """
    try:
        record = json.loads(read_text(path, "utf-8"))
        check_record(record)
    except (OSError, ValueError, ArithmeticError, RecursionError) as error:
        raise UserError(
            f"{path}: not a result record ({error}); write it again with test.py"
        ) from None
    checkpoint = record["checkpoint"] or {}
    if "bn_mode" in checkpoint:  # gaugan_simam's, once
        checkpoint["bn_stats"] = checkpoint.pop("bn_mode")
    return record


def check_record(record):
    """ValueError naming the first entry that does not fit `SCHEMA`."""
    _check(record, SCHEMA, "record")
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']}, known is {FORMAT}")
    for name, value in record["scores"].items():
        if isinstance(value, bool) or not isinstance(value, NUMBER) or not math.isfinite(value):
            raise ValueError(f"scores.{name} is {value!r}: need a finite number")
    for i, row in enumerate(record["published"]):
        _check(row, PUBLISHED, f"published[{i}]")
    for name, schema in OPTIONAL.items():
        if name in record:
            _check(record[name], schema, f"record.{name}")
    networks = [record[name] for name in ("inception", "efficientnet") if record.get(name)]
    if record["comparable"] != (bool(networks) and all(n["comparable"] for n in networks)):
        raise ValueError(
            "comparable differs from inception.comparable and efficientnet.comparable (false "
            "without both)"
        )


def _check(value, schema, name):
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {type(value).__name__}: need a dict")
    for key, kinds in schema.items():
        where = f"{name}.{key}"
        if key not in value:
            raise ValueError(f"{where} is missing")
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        types = tuple(dict if isinstance(kind, dict) else kind for kind in kinds)
        item = value[key]
        if not isinstance(item, types) or (isinstance(item, bool) and bool not in types):
            raise ValueError(
                f"{where} is {type(item).__name__}: need {' or '.join(t.__name__ for t in types)}"
            )
        if isinstance(item, int) and abs(item) >= 2**63:
            raise ValueError(f"{where} is a number of {item.bit_length()} bits: need one of 63")
        part = next((kind for kind in kinds if isinstance(kind, dict)), None)
        if part and item is not None:
            _check(item, part, where)
