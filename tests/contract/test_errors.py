"""An error that ends a run saves what is trained first, in every paper."""

import pytest

from shared_metrics import weights
from shared_metrics.errors import UserError
from shared_metrics.runs.loader import Batches
from tests.contract.papers import PAPERS


@pytest.mark.parametrize("name", list(PAPERS))
def test_a_bad_picture_ends_a_run_after_a_save(name, paper, tmp_path, monkeypatch, capsys):
    """It would be in the batches of iteration 2, counted from 0."""
    spec = PAPERS[name]
    main = paper(spec.folder).train.main
    taken = []
    take = Batches._take

    def broken(batches):
        # SAGAN's iterations take two batches.
        if len(taken) == 2 * batches._epochs.per_iteration:
            raise UserError("data/x.png: truncated")
        taken.append(1)
        return take(batches)

    monkeypatch.setattr(Batches, "_take", broken)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="data/x.png: truncated"):
        main(spec.flags(spec.data(tmp_path), out, 9, save_every=100)[1:])
    (saved,) = (out / "checkpoints").glob("*.pdparams")
    assert weights.load(saved)["iteration"] == 2
    assert "iteration 2 is saved first" in capsys.readouterr().out
