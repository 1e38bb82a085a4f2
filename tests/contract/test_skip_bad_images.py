"""With --skip_bad_images a run goes on over files that cannot be read: in training, on its sample
sheet and in what it scores.
"""

import pytest

from shared_metrics.images import SUFFIXES
from tests.contract.papers import PAPERS


class Drawn:
    """Stands for `Evaluation`: takes what would be scored, real and generated."""

    def __init__(self, *_, data, skip_bad, **__):
        self.real = sum(len(batch) for batch in data.pictures(skip_bad))

    def score(self, batches, iteration, best):
        number = sum(len(batch) for batch in batches)
        return {"generated": float(number), "real": float(self.real)}, []


@pytest.mark.parametrize("name", PAPERS)
def test_one_way_of_reading_for_training_sheets_and_scores(paper, tmp_path, monkeypatch, name):
    """The first file of every folder of pictures is none."""
    spec = PAPERS[name]
    data = spec.data(tmp_path)
    folders = {}
    for path in sorted((tmp_path / "data").rglob("*")):
        if path.suffix in SUFFIXES:
            folders.setdefault(path.parent, path)
    if not folders:
        pytest.skip("its data are no pictures in files")
    for path in folders.values():
        path.write_bytes(b"no picture")
    main = paper(spec.folder).train.main
    monkeypatch.setattr("shared_metrics.runs.training.Evaluation", Drawn)
    monkeypatch.setattr("shared_metrics.runs.training.open_networks", lambda *_: ([], ""))
    flags = {"sample_every": 1, "eval_every": 1, "eval_samples": 2, "skip_bad_images": None}
    assert not main(spec.flags(data, tmp_path / "out", 1, **flags)[1:])
    log = (tmp_path / "out" / "log.jsonl").read_text()
    assert '"generated": ' in log and '"real": ' in log
    assert list((tmp_path / "out").rglob("iter_0000001.png"))
