"""Which groups are trained, where and on which card, with a stand-in for Python that notes it."""

import os
import signal
import subprocess
import time
from functools import partial

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "train_acgan_groups.sh"
# Notes its card and arguments in calls.txt. STUB, run with the slice in $classes, may fail or take
# some time.
STUB = r"""#!/usr/bin/env bash
classes=$(sed 's/.*--classes \([^ ]*\).*/\1/' <<<"$*")
echo "card=${CUDA_VISIBLE_DEVICES-none} $*" >>"$(dirname "$0")/calls.txt"
echo "trains $classes"
eval "${STUB:-}"
"""


class Bench:
    """A folder of empty class folders, an output folder that is not there yet, the stand-in."""

    def __init__(self, tmp_path):
        self.data = tmp_path / "my data"
        self.output = tmp_path / "out put"
        self.calls_file = tmp_path / "calls.txt"
        self.stub = tmp_path / "python"
        self.stub.write_text(STUB)
        self.stub.chmod(0o755)
        self.data.mkdir()

    def classes(self, count):
        for i in range(count):
            (self.data / f"n{i:08d}").mkdir()
        (self.data / ".hidden").mkdir()
        (self.data / "words.txt").write_text("a file is no class")
        return self

    def start(self, *arguments, stub="", data=None):
        env = {**os.environ, "PYTHON": str(self.stub), "STUB": stub}
        env.pop("CUDA_VISIBLE_DEVICES", None)
        return subprocess.Popen(
            ["bash", SCRIPT, data or self.data, self.output, *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Started in the background, pytest ignores SIGINT, and a bash that inherits this
            # cannot trap it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments, code=0, **more):
        process = self.start(*arguments, **more)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == code, stdout + stderr
        return stdout, stderr

    def calls(self):
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    def slices(self):
        return [line.split("--classes ")[1].split()[0] for line in self.calls()]

    def wait_until_ready(self, count):
        """Until so many groups have written a line to ready.txt: then signals find them ready."""
        end = time.monotonic() + 20
        ready = self.stub.with_name("ready.txt")
        while not ready.exists() or ready.read_text().count("\n") < count:
            assert time.monotonic() < end, self.calls()
            time.sleep(0.02)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_each_ten_class_folders_are_a_group_and_the_last_one_takes_the_rest(bench):
    stdout, _ = bench.classes(23).run("--", "--niter", "2")
    assert bench.calls() == [
        f"card=none {ROOT}/acgan/train.py --niter 2 --dataroot {bench.data} "
        f"--classes {first}-{end} "
        f"--output_dir {bench.output}/group-{first:03d}-{end:03d} --resume auto"
        for first, end in ((0, 10), (10, 20), (20, 23))
    ]
    assert "23 classes in 3 groups; 3 to train here" in stdout and "all 3 groups done" in stdout
    assert "trains 10-20" in stdout


def test_shares_hold_every_group_once(bench):
    bench.classes(75)
    parts = []
    for shard in ("1/3", "2/3", "3/3"):
        bench.run("--shard", shard)
        parts.append(bench.slices())
        bench.calls_file.unlink()
    assert parts == [["0-10", "30-40", "60-70"], ["10-20", "40-50", "70-75"], ["20-30", "50-60"]]
    stdout, _ = bench.run("--shard", "09/9")
    assert "0 to train here" in stdout and bench.calls() == []


def test_cards_work_side_by_side_each_on_a_group_of_its_own(bench):
    # Card 1 ends its first group when card 3 has begun one too; card 3 ends its own when all five
    # have begun.
    begun = 'wc -l <"$(dirname "$0")/calls.txt"'
    needed = "CUDA_VISIBLE_DEVICES == 3 ? 5 : 2"
    stub = f'while [ "$({begun})" -lt $(({needed})) ]; do sleep 0.02; done'
    stdout, _ = bench.classes(50).run("--gpus", "3,1", "--", "--amp", "fp16", stub=stub)
    assert sorted(bench.slices()) == ["0-10", "10-20", "20-30", "30-40", "40-50"]
    cards = [line.split()[0] for line in bench.calls()]
    assert sorted(cards) == ["card=1"] * 4 + ["card=3"]
    assert all(" --device gpu --amp fp16 --dataroot " in line for line in bench.calls())
    assert (bench.output / "group-040-050" / "output.txt").read_text() == "trains 40-50\n"
    assert "trains" not in stdout and "group-040-050 on card 1: done" in stdout


def test_the_users_device_goes_before_that_of_gpus(bench):
    bench.classes(3).run("--gpus", "0", "--", "--device", "cpu")
    (call,) = bench.calls()
    assert call.index("--device gpu") < call.index("--device cpu")  # argparse takes the last


def test_the_visible_card_is_left_as_it_is(bench):
    env = {**os.environ, "PYTHON": str(bench.stub), "CUDA_VISIBLE_DEVICES": "5"}
    bench.classes(3)
    command = ["bash", SCRIPT, bench.data, bench.output]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert bench.calls()[0].startswith("card=5 ") and "--device" not in bench.calls()[0]


@pytest.mark.parametrize("cards", [[], ["--gpus", "0,1"]])
def test_a_group_that_fails_is_named_and_stops_no_other(bench, cards):
    stub = "case $classes in 10-20) exit 2 ;; 30-40) kill -9 $$ ;; esac"
    stdout, _ = bench.classes(50).run(*cards, stub=stub, code=1)
    assert len(bench.calls()) == 5
    assert stdout.splitlines()[-1] == (
        "== FAILED: group-010-020 (exit status 2), group-030-040 (exit status 137)"
    )
    assert stdout.count(": done") == 3


# As train.py does: the first signal lets it save and end.
SAVES = """
trap 'echo "$classes" >>"$(dirname "$0")/saved.txt"; exit 143' INT TERM
echo >>"$(dirname "$0")/ready.txt"
for i in {1..200}; do sleep 0.05; done
"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("whole_group", [True, False])
def test_one_signal_lets_every_group_save_and_starts_no_more(
    bench, tmp_path, number, code, whole_group
):
    """Whether it comes to the whole group (a terminal's Ctrl-C) or to the script alone (kill)."""
    process = bench.classes(50).start("--gpus", "0,1", stub=SAVES)
    bench.wait_until_ready(2)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == code, stdout + stderr
    assert sorted((tmp_path / "saved.txt").read_text().split()) == ["0-10", "10-20"]  # once each
    assert len(bench.calls()) == 2 and "FAILED" not in stdout
    assert stdout.splitlines()[-1] == "== stopped; the same command goes on"


def test_a_second_signal_is_passed_on(bench):
    """train.py ends at once on a second signal; so must the whole command, without its saving."""
    stub = """
    trap 'count=$((${count:-0} + 1)); if ((count == 2)); then exit 143; fi' TERM
    echo >>"$(dirname "$0")/ready.txt"
    for i in {1..400}; do sleep 0.05; done
    """
    process = bench.classes(5).start(stub=stub)
    bench.wait_until_ready(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--shard", "0/4"], "--shard 0/4: the first number must lie in 1..4"),
        (["--shard", "5/4"], "--shard 5/4: the first number"),
        (["--shard", "1"], "--shard 1: give I/N"),
        (["--shard"], "--shard : give I/N"),
        (["--gpus", "a"], "--gpus a: give the numbers of cards"),
        (["--gpus", "0,"], "--gpus 0,: give"),
        (["--niter", "3"], "unknown argument --niter; arguments for train.py come after --"),
        (["third"], "give two folders, DATA and OUTPUT"),
        (["--", "--classes", "0-5"], "--classes: is set for each group here"),
        (["--", "--resume=x"], "--resume=x: is set for each group here"),
        (["--", "--check_path", "x"], "--check_path: is set for each group here"),
    ],
)
def test_bad_usage_is_one_line_and_trains_nothing(bench, arguments, message):
    stdout, stderr = bench.classes(20).run(*arguments, code=2)
    assert stderr.startswith(f"train_acgan_groups.sh: error: {message}")
    assert stderr.count("\n") == 1 and stdout == ""
    assert bench.calls() == [] and not bench.output.exists()


def test_a_data_folder_without_classes_is_told(bench, tmp_path):
    for data, fault in ((tmp_path / "nowhere", "no such folder"), (bench.data, "no sub-folders")):
        _, stderr = bench.run(data=data, code=2)
        assert f"{data}: {fault}" in stderr and stderr.count("\n") == 1


def test_help_is_the_header():
    command = ["bash", SCRIPT, "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert shown.startswith("Train one AC-GAN for every ten classes")
    assert "--shard I/N" in shown and "set -" not in shown


def test_arguments_are_flags_of_train_py(bench, paper):
    """What the script adds is understood by the real command line."""
    bench.classes(12).run()
    train = paper("acgan").train
    # Without the blanks of the folders' names.
    call = bench.calls()[1].replace(str(bench.data), "DATA").replace(str(bench.output), "OUT")
    args = train.parse_args(call.split()[2:])
    assert (args.data_path, args.classes, args.resume) == ("DATA", "10-12", "auto")
    assert args.output_dir == "OUT/group-010-012"
    assert args.check_path == "OUT/group-010-012/checkpoints"
