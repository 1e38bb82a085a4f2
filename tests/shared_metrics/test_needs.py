"""Flags without effect: which command lines are refused, and which are not."""

import pytest

from shared_metrics import flags, needs, testing
from shared_metrics.errors import UserError

NEEDS = {
    "start": "decay",
    "gp": "loss wgan hinge",
    "zoom": "crop center, square no",
    "gpu True": "device auto gpu",
    "pairs": "metrics msssim",
}


def parser():
    p = flags.new_parser("", "")
    for name in ("loss", "crop", "metrics", "output_dir"):
        p.add_argument(f"--{name}", default="none")
    p.add_argument("--device", default="auto")
    for name in ("start", "decay", "gp", "zoom", "pairs"):
        p.add_argument(f"--{name}", type=flags.amount, default=0.0)
    p.add_argument("--gpu", type=flags.truth)
    p.add_argument("--square", action="store_true")
    p.add_argument("--no_cuda", action="store_true")
    p.add_argument("--list", nargs="+", action="extend", default=[])
    p.add_argument("--ema", action=flags.YES_NO, default=True)
    flags.original_words(p, {"--path": "--output_dir", "--begin": "--start"})
    return p


def checked(line):
    p = parser()
    words = line.split()
    args = p.parse_args(words)
    needs.check(args, needs.given(p, words), NEEDS, {"no_cuda": "device cpu"})
    return args


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--start 0",
        "--start 5 --decay 0.9",
        "--gp 1 --loss hinge",
        "--zoom 0.5 --crop center",
        "--pairs 3 --metrics fid,msssim",
        "--gpu True --device gpu:1",
        "--gpu False --device cpu",
        "--output_dir a --output_dir b",
        "--path a --output_dir a",
        "--ema --no-ema",
        "--list a b --list c",
    ],
)
def test_command_lines_that_mean_something(line):
    checked(line)


@pytest.mark.parametrize(
    "line, told",
    [
        ("--start 5", "--start: has no effect without --decay; leave it out"),
        ("--begin=5", "--begin: has no effect without --decay"),
        ("--gp 1 --loss ls", "--gp: has no effect beside --loss ls but with --loss wgan or hinge"),
        ("--zoom 2 --crop squash", "--zoom: has no effect beside --crop squash"),
        ("--zoom 2 --crop center --square", "--zoom: has no effect beside --square"),
        ("--pairs 3 --metrics fid,is", "--pairs: has no effect beside --metrics fid,is"),
        ("--gpu True --device cpu", "--gpu: has no effect beside --device cpu"),
        ("--no_cuda --device gpu", "--no_cuda and --device gpu: are at odds"),
        ("--path a --output_dir b", "--path and --output_dir: are one flag and say different"),
        ("--output_dir=", "--output_dir '': is empty"),
    ],
)
def test_flags_without_effect_are_refused(line, told):
    with pytest.raises(UserError, match=told) as error:
        checked(line)
    assert "\n" not in str(error.value)


def test_a_word_stands_for_a_value():
    assert checked("--no_cuda").device == "cpu" and checked("--no_cuda --device cpu")


def test_what_every_run_and_every_test_says(tmp_path):
    p = flags.new_parser("", "")
    p.add_argument("--recipe", default="a")
    flags.run_flags(p, "x", str(tmp_path))
    for line in ("--real_stats x", "--inception_weights random"):
        with pytest.raises(UserError, match=f"{line.split()[0]}: .* without --eval_every"):
            flags.with_recipe(p, {}, line.split())
        flags.with_recipe(p, {}, [*line.split(), "--eval_every", "5"])
    with pytest.raises(UserError, match="--real_stats: .* without --eval_every"):
        flags.with_recipe(p, {"a": {"eval_every": 0}}, ["--real_stats", "x"])
    assert flags.with_recipe(p, {"a": {"eval_every": 5}}, ["--real_stats", "x"]).real_stats == "x"
    p = flags.new_parser("", "")
    testing.drawing_flags(p, 1)
    testing.record_flags(p, "", "", "")
    testing.label_flag(p.add_argument)
    for line in ("--seed 3 --seeds 4", "--protocol clean --metrics fd_eff", "--labels="):
        with pytest.raises(UserError, match=line.partition(" ")[0].rstrip("=")):
            testing.parse(p, line.split())
