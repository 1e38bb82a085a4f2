"""One run a folder: who may go on in it, and who may not."""

from types import SimpleNamespace

import numpy as np
import pytest

from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint
from shared_metrics.runs.folder import run_folder


def save(folder, iteration):
    state = {"w": np.ones(2), "args": {"lr": 1}}
    return checkpoint.save_checkpoint(folder / "checkpoints", iteration, state, keep=0)


def opened(folder, resume="", **flags):
    args = SimpleNamespace(output_dir=str(folder), resume=resume, **flags)
    with run_folder(args) as newest:
        return newest


def test_a_new_folder_and_a_run_to_go_on(tmp_path, capsys):
    assert opened(tmp_path / "new") is None
    first = save(tmp_path / "run", 1)
    save(tmp_path / "run", 2)
    for resume in ("auto", str(tmp_path / "run")):
        path, state = opened(tmp_path / "run", resume, lr=2)
        assert path.name == "iter_0000002.pdparams" and state["iteration"] == 2
    assert "--lr was 1 in the checkpoint and is 2 now" in capsys.readouterr().out
    path, state = opened(tmp_path / "run", str(first))
    assert state["iteration"] == 1


def test_a_run_is_not_mixed_with_another(tmp_path):
    other = save(tmp_path / "other", 7)
    save(tmp_path / "run", 1)
    for resume in ("", str(other)):
        with pytest.raises(UserError, match="holds a run already"):
            opened(tmp_path / "run", resume)
    assert opened(tmp_path / "fresh", str(other))[1]["iteration"] == 7


@pytest.mark.parametrize("name", ["log.txt", "log.jsonl"])
def test_a_log_is_a_run_too(tmp_path, name):
    (tmp_path / name).write_text("hours of work\n")
    with pytest.raises(UserError, match=f"holds a run already, .*{name}.*--resume auto"):
        opened(tmp_path)
    assert opened(tmp_path, "auto") is None
    assert (tmp_path / name).read_text() == "hours of work\n"


def test_pictures_of_another_run_are_kept(tmp_path):
    folders = {"--result_path": tmp_path / "results"}
    folders["--result_path"].mkdir()
    (tmp_path / "results" / "cat.png").write_bytes(b"mine")
    args = SimpleNamespace(output_dir=str(tmp_path / "run"), resume="")
    with pytest.raises(UserError, match="holds a run already, .*cat.png"):
        with run_folder(args, folders=folders):
            pass
    args.resume = "auto"
    with run_folder(args, folders=folders) as newest:
        assert newest is None


def test_two_runs_at_once(tmp_path):
    args = SimpleNamespace(output_dir=str(tmp_path / "run"), resume="")
    with run_folder(args):
        with pytest.raises(UserError, match="another run"):
            opened(tmp_path / "run")
    opened(tmp_path / "run")
