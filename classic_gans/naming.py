"""How what is drawn of files is called."""

import os
from pathlib import Path

from shared_metrics import files
from shared_metrics.errors import UserError


def file_names(paths):
    """What is drawn of each file is called: its path below their folder, without suffix.

    Raises: UserError where two would have one name.
    """
    paths = [Path(path).absolute() for path in paths]
    folder = os.path.commonpath([path.parent for path in paths])
    names = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix().replace("/", "_")
        if name in names:
            raise UserError(f"{names[name]} and {path} would both be drawn as {name}; rename one")
        names[name] = path
    return files.file_names(names)
