"""A length in epochs goes on, in every paper that has one, where the batch changes at --resume."""

import json

import pytest

from tests.contract.papers import PAPERS

FLAGS = {"acgan": "--niter", "gaugan_simam": "--epochs", "classic_gans": "--epoch"}
BY_EPOCHS = [name for name, paper in PAPERS.items() if paper.folder in FLAGS]


@pytest.mark.parametrize("name", BY_EPOCHS)
def test_one_of_two_epochs_done_is_one_to_do(name, paper, tmp_path, capsys):
    """24 pictures are three batches of eight, or six of four."""
    spec = PAPERS[name]
    main = paper(spec.folder).train.main
    data, out = spec.data(tmp_path), tmp_path / "out"
    flag = FLAGS[spec.folder].removeprefix("--")
    assert not main(spec.flags(data, out, 0, **{flag: 1})[1:])
    assert not main(spec.flags(data, out, 0, **{flag: 2}, batch_size=4, resume="auto")[1:])
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, 3 + 6 + 1))
    log = (out / "log.txt").read_text()
    assert log.count("before: 24 images, batch 8 x 1 process(es), 8 in all") == 1
    assert "done already" not in log
