"""What faces have or lack: names, labels, which exclude each other, how strongly G is told.

An attribute is a name ("Smiling"); labels are float32 arrays (N, c) of 0 and 1 in the order of the
names. The names, and the groups that exclude each other, are data: checkpoints keep them.
"""

import difflib
from pathlib import Path

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.files import read_text

VALUES = {"1": 1, "-1": 0, "0": 0}
HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
# Attributes of which no face has two.
EXCLUSIVE = (
    HAIR_COLOURS,
    ("Straight_Hair", "Wavy_Hair"),
    ("Bald", "Bangs"),
    ("Receding_Hairline", "Bangs"),
)


def with_attribute(labels, name, values, names, exclusive=EXCLUSIVE):
    """Labels (N, c) with one attribute set to `values`, 0 or 1 for all or one a face; where it is
    on, the attributes that exclude it are off.

    The rule goes by the label's value: switching Black_Hair off leaves the other colours alone.
    Source: AttGAN's and STGAN's published code, without their optional rule on No_Beard.
    """
    labels = np.array(labels, np.float32)
    labels[:, names.index(name)] = values
    on = labels[:, names.index(name)] > 0  # by the value: PaddleCV's code goes by the name
    for group in exclusive:
        for other in group if name in group else ():
            if other != name and other in names:
                labels[on, names.index(other)] = 0
    return labels


def rivals(name, names, exclusive=EXCLUSIVE):
    """Positions of the attributes that exclude this one."""
    others = set()
    for group in exclusive:
        others |= set(group) if name in group else set()
    return [i for i, other in enumerate(names) if other in others and other != name]


def edits(labels, names, exclusive=EXCLUSIVE, choices=(), first=0):
    """The labels with each attribute changed in turn: (c, N, c).

    Args: choices, groups of attributes of which one is on (StarGAN's hair colours): these are
        switched on, all others inverted; first, of labels of two data sets with their mask (see
        faces.jointly), how many names are of the first one.
    """
    rows = []
    for i, name in enumerate(names):
        values = 1 if any(name in group for group in choices) else 1 - labels[:, i]
        row = with_attribute(labels, name, values, names, exclusive)
        rows.append(in_one_set(row, i >= first, first, len(names)) if first else row)
    return np.stack(rows)


def in_one_set(labels, which, first, both):
    """Labels of two data sets (N, both + 2) as G is told them in set `which`, 0 or 1: what is the
    other's is unknown, 0, and the mask says so.
    """
    labels = labels.copy()
    others = slice(0, first) if which else slice(first, both)
    labels[:, others] = 0
    labels[:, both:] = np.eye(2)[int(which)]
    return labels


def intensities(labels, target, positions, thres_int, test_int):
    """What AttGAN and STGAN are told of the target labels: (N, c) float32, signed.

    Args: labels, target (N, c); positions, of the attributes that are to change: where they do,
        their entries are plus or minus `test_int`, all others plus or minus `thres_int`.
    """
    strength = np.full(target.shape, thres_int, np.float32)
    for i in positions:
        # Of what a face has already nothing is to be drawn more strongly than in training.
        strength[target[:, i] != labels[:, i], i] = test_int
    return (2.0 * target - 1.0).astype(np.float32) * strength


def groups(text, names):
    """ "Black_Hair,Blond_Hair Bald,Bangs" -> [["Black_Hair", "Blond_Hair"], ["Bald", "Bangs"]], of
    each group the attributes that are among `names`, where these are two or more; "none": [].
    """
    result = []
    for group in text.replace("none", "").split():
        present = [name for name in group.split(",") if name in names]
        if len(present) > 1:
            result.append(present)
    return result


def check_same(names, state, source):
    """Raise UserError where the attributes in a checkpoint, or of published weights, are others, or
    stand in another order: every one would be taken for its neighbour.
    """
    theirs = state.get("selected_attrs") or state.get("source", {}).get("selected_attrs")
    if theirs and list(theirs) != list(names):
        raise UserError(
            f"{source}: trained on the attributes {','.join(theirs)}; give these as "
            f"--selected_attrs, not {','.join(names)}"
        )


def describe(data):
    """One line on how many faces of a data set have each attribute."""
    total = len(data)
    parts = []
    for name, count in zip(data.names, data.labels.sum(0).astype(int), strict=True):
        parts.append(f"{name} {count:,} ({count / total:.1%})")
    return f"{total:,} faces: {', '.join(parts)}"


def check_varied(data, source):
    """Raise UserError naming the attributes that all or none of the faces have: nothing is to be
    learned of them, and every row of a sheet would look alike.
    """
    share = data.labels.mean(0)
    constant = [name for name, s in zip(data.names, share, strict=True) if s in (0.0, 1.0)]
    if constant:
        raise UserError(
            f"{source}: all {len(data):,} faces have the same value of {', '.join(constant[:8])}; "
            "leave it out of --selected_attrs or give more faces"
        )


# --- Lists.


def read_attributes(path):
    """Read a list of CelebA's form: the number of faces; the attributes' names; then a line a face,
    its file's name and 1 or -1 for each attribute (0 is read as -1).

    Returns: names (list), files (list), labels (faces, names) float32 of 0 and 1.
    Raises: UserError naming the file and the line that is no such list.
    """
    lines = read_lines(path, "the list of attributes")
    if not lines or not lines[0].strip().isdecimal():
        first = lines[0].strip()[:40] if lines else ""
        raise UserError(
            f"{path}: line 1 must be the number of faces, as in list_attr_celeba.txt, not {first!r}"
        )
    names = lines[1].split() if len(lines) > 1 else []
    if not names or set(names) & VALUES.keys():
        raise UserError(f"{path}: line 2 must be the attributes' names, separated by blanks")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: line 2 names an attribute twice")
    numbered = [(number, line) for number, line in enumerate(lines[2:], 3) if line.strip()]
    if len(numbered) != int(lines[0]):
        raise UserError(
            f"{path}: line 1 says {int(lines[0]):,} faces, but {len(numbered):,} follow; is the "
            "file cut? Correct the number or the lines"
        )
    files = []
    labels = np.empty((len(numbered), len(names)), np.float32)
    for row, (number, line) in zip(labels, numbered, strict=True):
        file, *values = line.split()
        if len(values) != len(names):
            raise UserError(
                f"{path}: line {number} has {len(values)} values for the {len(names)} names of "
                "line 2; correct it"
            )
        try:
            row[:] = [VALUES[value] for value in values]
        except KeyError as error:
            raise UserError(f"{path}: line {number}: {error} is neither 1 nor -1") from None
        files.append(file)
    return names, files, labels


def read_lines(path, what):
    try:
        return read_text(Path(path).expanduser()).splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None


def columns_of(selected, names, source, flag="--selected_attrs"):
    """Positions of the selected attributes among the list's names.

    Raises: UserError with the nearest name for an unknown one. Args: flag, that selected them.
    """
    twice = [name for name in selected if selected.count(name) > 1]
    if twice or not selected:
        wrong = f"{twice[0]} stands twice" if twice else "no attribute"
        raise UserError(f"{flag} {','.join(selected)}: {wrong}")
    for name in selected:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
            raise UserError(f"{flag} {name}: {source} has no such attribute; {hint}")
    return [names.index(name) for name in selected]
