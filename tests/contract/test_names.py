"""Names of classes and files that are no UTF-8: trained on, drawn, recorded, in every folder."""

import io
import os
import sys

import pytest

from shared_metrics.results import read_record
from tests.contract.papers import PAPERS

CLASSES = (b"circle", b"square")  # of the toy data
TEST_FLAGS = {  # of test.py, besides the file: data with those names, where it takes any
    "sagan": "--seeds 0 --labels all --test_data_path {data}",
    "acgan": "--seeds 0-1 --labels all --real {data} --metrics msssim",
    "gaugan_simam": "--data_path {data} --split train --num_samples 1",
    "classic_gans": "--num_samples 2",
}


def rename_all(root):
    """Give every file and every class folder such a name."""
    for place, folders, files in os.walk(os.fsencode(root), topdown=False):
        for name in files + [name for name in folders if name in CLASSES]:
            os.rename(os.path.join(place, name), os.path.join(place, b"caf\xe9 " + name))


@pytest.mark.parametrize("name", ["sagan", "acgan", "gaugan_simam", "classic_gans-cgan"])
def test_names_that_are_no_utf8_end_nothing(name, paper, tmp_path, monkeypatch):
    spec = PAPERS[name]
    data = spec.data(tmp_path)
    rename_all(tmp_path / "data")
    # As a terminal: whatever is printed has to be UTF-8.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    folder = paper(spec.folder)
    folder.train.main(spec.flags(data, tmp_path / "run", 1)[1:])
    model = tmp_path / "run" / "checkpoints" / "iter_0000001.pdparams"
    flags = ["--pretrained_model", str(model), "--output_dir", str(tmp_path / "out")]
    words = TEST_FLAGS[spec.folder].split()
    flags += [*(word.format(data=data) for word in words), "--device", "cpu"]
    folder.test.main(flags)
    assert read_record(tmp_path / "out" / "results.json")["samples"]["number"] >= 1
