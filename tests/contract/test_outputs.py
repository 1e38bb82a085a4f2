"""No train.py writes among its data. Tried without a subprocess: it is refused before the data are
read.
"""

import pytest

from shared_metrics.errors import UserError
from tests.contract.papers import PAPERS


@pytest.mark.parametrize("name", PAPERS)
def test_a_folder_in_the_data_is_refused(paper, tmp_path, name):
    spec = PAPERS[name]
    main = paper(spec.folder).train.main
    data = spec.data(tmp_path)
    words = spec.tiny.split()
    own = data / words[words.index("--dataset") + 1] if "--dataset" in words else data
    before = sorted(tmp_path.rglob("*"))
    for out in (own, own / "runs" / "new"):
        flags = spec.flags(data, out, 1)[1:]
        with pytest.raises(UserError, match="--output_dir .*the data themselves lie in"):
            main(flags)
    assert sorted(tmp_path.rglob("*")) == before
