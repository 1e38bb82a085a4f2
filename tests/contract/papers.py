"""What the contract tests need to know of each paper: how to train a tiny model.

Every folder at the root that has a train.py is a paper; `tests/<folder>/tiny.py` declares it as
PAPER, or its several papers as PAPERS, {name: Paper}.

What `runs.training` does for all trainers alike, kill -9, signals, damaged and full disks, is tried
with one paper of each folder: `light` papers take part in the tests of what is their own.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from scripts import make_toy_data
from tests.conftest import ROOT


@dataclass(frozen=True)
class Paper:
    """How to train a tiny model of one paper.

    Args:
        data_flag: the flag that names the data.
        tiny: flags of a model that trains an iteration in a blink, eight images a batch and
            process.
        edit: (text in model.py, its replacement), which changes what the generator draws.
        layout: of make_toy_data.
        part: the folder in it that the data flag wants.
        make: function of a new folder that makes the data there instead, and returns what the data
            flag wants.
        model: the file in the paper's folder that `edit` is of.
        light: whether it is left out where the tests are of the shared loop alone.
        folder: set by `find_papers`.
    """

    data_flag: str
    tiny: str
    edit: tuple
    layout: str = "class_folders"
    part: str = "train"
    make: Callable | None = None
    model: str = "model.py"
    light: bool = False
    folder: str = ""

    def data(self, tmp_path):
        """Make a tiny data set and return its path.

        It holds three batches an epoch, so that runs cross epochs.
        """
        if self.make:
            return self.make(tmp_path / "data")
        out = make_toy_data.make(tmp_path / "data", self.layout, classes=2, count=24, size=32)
        return out / self.part

    @property
    def tiny_flags(self):
        """The flags of a tiny run that saves and logs every iteration."""
        always = (
            "--device cpu --num_workers 0 --log_every 1 --save_every 1 "
            "--sample_every 1000 --keep_checkpoints 0"
        )
        return [*always.split(), *self.tiny.split()]

    def flags(self, data, out, iterations, **changes):
        """Command line of train.py; `changes` are further flags, name=value."""
        flags = ["train.py", self.data_flag, data, "--output_dir", out]
        flags += ["--iterations", iterations, *self.tiny_flags]
        for name, value in changes.items():
            flags += [f"--{name}", value] if value is not None else [f"--{name}"]
        return [str(flag) for flag in flags]


def find_papers():
    """{folder, or folder-name: Paper} of all papers; a folder that declares none is an error."""
    papers = {}
    for path in sorted(ROOT.glob("*/train.py")):
        folder = path.parent.name
        module = importlib.import_module(f"tests.{folder}.tiny")
        if hasattr(module, "PAPERS"):
            declared = {f"{folder}-{name}": paper for name, paper in module.PAPERS.items()}
        else:
            declared = {folder: module.PAPER}
        for name, paper in declared.items():
            papers[name] = replace(paper, folder=folder)
    return papers


PAPERS = find_papers()
WHOLE = {name: paper for name, paper in PAPERS.items() if not paper.light}
