"""train.py --check_data tells what the data hold and what is wrong, and trains nothing."""

import pytest

from shared_metrics.errors import UserError
from tests.contract.papers import PAPERS


@pytest.mark.parametrize("name", PAPERS)
def test_data_are_told_and_nothing_is_trained(paper, tmp_path, capsys, name):
    spec = PAPERS[name]
    main = paper(spec.folder).train.main
    data = spec.data(tmp_path)
    flags = [*spec.flags(data, tmp_path / "out", 1)[1:], "--check_data"]
    assert not main(flags)
    printed = capsys.readouterr().out
    assert "read as in training: 24 of 24 in" in printed and "problems: 0" in printed
    assert "sizes: " in printed and "kinds: PNG RGB (24)" in printed
    assert not (tmp_path / "out").exists()
    # A picture that is cut: its header is whole.
    folder = data if spec.part or "gaugan" in name else data / "pairs" / "trainB"
    folder = folder if folder.is_dir() else data
    picture = sorted(path for path in folder.rglob("*.png") if "inst" not in str(path.parent))[0]
    picture.write_bytes(picture.read_bytes()[:-30])
    try:
        code = main(flags)
    except UserError as error:  # that is told when the data set is opened
        code = 2
        print(error)
    assert code == 2 and picture.name in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
