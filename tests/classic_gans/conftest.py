"""Fixtures that run the commands of classic_gans in this process."""

import pytest

from shared_metrics import process
from shared_metrics.runs.log import RunLog
from tests.classic_gans.commands import make_data

ALWAYS = ["--device", "cpu", "--num_workers", "0", "--log_every", "1"]


class Result:
    """How a command ended: code, out and err, its texts."""

    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err


@pytest.fixture
def data_dir(tmp_path):
    return make_data(tmp_path / "data")


@pytest.fixture
def run(paper, data_dir, tmp_path, capfd, monkeypatch):
    """Function (module, *flags, code=0) that runs a command's main and returns its `Result`; one
    that fails must end in one line.
    """
    monkeypatch.setattr(RunLog, "_curves", lambda log: None)  # drawing takes longer than all else
    monkeypatch.chdir(tmp_path)
    gans = paper("classic_gans")

    def command(module, *flags, code=0):
        words = [str(flag) for flag in flags]
        if module == "train":
            words = [*ALWAYS, "--data_dir", str(data_dir), *words]
        ended = 0
        try:
            process.command(getattr(gans, module).main)(words)
        except SystemExit as error:
            ended = error.code
        out, err = capfd.readouterr()
        assert ended == code, out + err
        if code == 2:
            assert err.count("\n") == 1 and "Traceback" not in err, err
        return Result(ended, out, err)

    return command
