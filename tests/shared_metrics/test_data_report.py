"""What --check_data tells of a data set: all of it, or what the time allows."""

import time

import numpy as np
import pytest
from PIL import Image

from shared_metrics import data_report
from shared_metrics.errors import UserError


class Items:
    """PNGs in a folder, of two classes; some cannot be read, each read takes `seconds`."""

    def __init__(self, folder, number, bad=(), seconds=0.0):
        self.folder, self.number, self.bad, self.seconds = folder, number, bad, seconds
        self.classes = ["owl", "\x1b[2J"]
        self.counts = [number - 1, 1]
        for i in range(number):
            mode = "L" if i % 3 == 0 else "RGB"
            Image.new(mode, (4 + i % 2, 6)).save(self.name(i))

    def __len__(self):
        return self.number

    def name(self, index):
        return str(self.folder / f"{index}.png")

    def load(self, index, rng):
        assert isinstance(rng, np.random.Generator)
        time.sleep(self.seconds)
        if index in self.bad:
            raise UserError(f"{self.name(index)}: broken\x1b[2J")
        return (np.zeros(2),)


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_kinds_and_problems_by_name(tmp_path, capsys, workers):
    data = Items(tmp_path, 200, bad=range(7, 30))
    assert data_report.report(data, "the data", workers) == 2
    printed = capsys.readouterr().out
    assert printed.startswith("the data\nclasses: 2 of 1 to 199 items: owl (199), ")
    assert "sizes: 4 to 5 px wide, 6 to 6 px high: 4x6 (100), 5x6 (100)\n" in printed
    assert "kinds: PNG RGB (133), PNG L (67)\n" in printed
    assert "read as in training: 200 of 200 in " in printed and "\x1b" not in printed
    assert printed.count("problem: ") == data_report.SHOWN and "7.png: broken" in printed
    assert printed.endswith("problems: 23, the first above\n")


def test_the_time_is_bounded(tmp_path, capsys):
    data = Items(tmp_path, 300, seconds=0.01)
    assert data_report.report(data, "", workers=1, seconds=0.1) == 0
    printed = capsys.readouterr().out
    assert any(f"training: {count} of 300" in printed for count in (64, 128, 192))
    assert "drawn at random: the time for it was over" in printed and "problems: 0\n" in printed
