"""The command line: `python -m shared_metrics`, its files, its one-line errors."""

import json

import numpy as np
import pytest
from PIL import Image

from shared_metrics import __main__ as cli
from shared_metrics import scoring
from shared_metrics.errors import UserError
from shared_metrics.statistics import Statistics
from tests.conftest import ROOT, run_cli
from tests.shared_metrics.test_scoring import StandIn, folder_of, pictures


@pytest.fixture
def quick(monkeypatch):
    """The stand-in in place of the network."""
    monkeypatch.setattr(scoring, "Extractor", StandIn)


def run(capsys, *args):
    cli.main([str(arg) for arg in args])
    return capsys.readouterr().out


def test_from_the_shell_with_the_real_network(tmp_path):
    """Images against themselves; then, without network, the published weights that are not
    there.
    """
    folder_of(tmp_path / "images", pictures(5))
    env = {"PYTHONPATH": str(ROOT), "SHARED_METRICS_OFFLINE": "1", "SHARED_METRICS_CACHE": "none"}
    command = (
        "-m",
        "shared_metrics",
        "evaluate",
        "images",
        "--real",
        "images",
        "--json",
        "--device",
        "cpu",
    )
    done = run_cli(
        tmp_path, *command, "--metrics", "fid,is,kid,pr", "--inception_weights", "random", env=env
    )
    report = json.loads(done.stdout)
    assert (
        report["scores"]["fid"] == pytest.approx(0, abs=1e-6) and report["scores"]["precision"] == 1
    )
    assert report["comparable"] is False and report["inception"]["source"].startswith("random")
    done = run_cli(tmp_path, *command, env=env, code=2)
    assert (
        done.stdout == ""
        and "SHARED_METRICS_OFFLINE" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_every_command_gives_its_scores(quick, tmp_path, capsys):
    folder_of(tmp_path / "fakes", pictures(8))
    folder_of(tmp_path / "reals", pictures(9, 1))
    for command, names in (
        ("fid", {"fid", "fid_mean_term", "fid_cov_term"}),
        ("is", {"is", "is_std", "is_splits"}),
        ("kid", {"kid", "kid_subsets", "kid_subset_size"}),  # all images in each subset
        ("pr", {"precision", "recall", "f_score"}),
    ):
        real = () if command == "is" else ("--real", tmp_path / "reals")
        report = json.loads(run(capsys, command, tmp_path / "fakes", *real, "--json"))
        assert set(report["scores"]) == names


def test_text_shows_scores_and_that_they_do_not_compare(quick, tmp_path, capsys):
    np.save(tmp_path / "i.npy", pictures(6))
    out = run(
        capsys,
        "fid",
        tmp_path / "i.npy",
        "--real",
        tmp_path / "i.npy",
        "--inception_weights",
        "random",
    )
    assert "\nfid_mean_term = 0\n" in out and "comparable: False" in out
    assert "comparable: False" not in run(
        capsys, "is", tmp_path / "i.npy", "--inception_weights", "real.pth"
    )


def test_stats_converts_and_labels_files(quick, tmp_path, capsys):
    np.save(tmp_path / "i.npy", pictures(6))
    made = json.loads(
        run(
            capsys,
            "stats",
            tmp_path / "i.npy",
            "-o",
            tmp_path / "p.pkl",
            "--format",
            "mmgen",
            "--json",
        )
    )
    assert made["number"] == 6 and made["protocol"] == "tf"
    run(capsys, "stats", tmp_path / "p.pkl", "-o", tmp_path / "ours.npz", "--protocol", "clean")
    stats = Statistics.load(tmp_path / "ours.npz")
    assert stats.info["variant"] == "clean" and stats.number == 6


def test_classes_hold_for_both_sides(quick, tmp_path, capsys):
    folder_of(tmp_path / "f", pictures(12), classes=("cat", "dog"))
    out = run(capsys, "fid", tmp_path / "f", "--real", tmp_path / "f", "--classes", "dog", "--json")
    report = json.loads(out)
    assert report["samples"]["number"] == report["real"]["number"] == 6
    run(capsys, "stats", tmp_path / "f", "-o", tmp_path / "s.npz")
    with pytest.raises(UserError, match="--classes dog: .*s.npz holds statistics of all classes"):
        run(capsys, "fid", tmp_path / "f", "--real", tmp_path / "s.npz", "--classes", "dog")


def test_user_errors_are_one_line(quick, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    folder_of(tmp_path / "one", pictures(1))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png").write_text("this is no picture")
    folder_of(tmp_path / "good", pictures(4))
    run(capsys, "stats", tmp_path / "good", "-o", tmp_path / "clean.npz", "--protocol", "clean")
    good = tmp_path / "good"
    for args, message in (
        (("is", tmp_path / "missing"), "missing: no folder"),
        (("is", tmp_path / "empty"), "empty: no images"),
        (("is", tmp_path / "one"), "one: 1 image"),
        (("is", tmp_path / "text"), "a.png: not a readable image"),
        (("fid", good), "needs real images"),
        (("fid", good, "--real", tmp_path / "clean.npz"), "clean.npz: made under protocol clean"),
        (("fid", good, "--real", tmp_path / "missing.npz"), "missing.npz: no folder"),
        (("is", good, "--protocol", "fid"), "--protocol fid: unknown"),
        (("evaluate", good, "--metrics", "fid,ssim"), "--metrics fid,ssim"),
        (
            ("kid", good, "--real", tmp_path / "clean.npz", "--protocol", "clean"),
            "keeps no features",
        ),
        (("stats", good, "-o", tmp_path / "no" / "s.npz"), "-o .*s.npz: cannot be written"),
        (("stats", good, "-o", tmp_path / "clean.npz"), "clean.npz: is there already"),
        (("stats", good, "-o", good / "s.npz"), "s.npz: the data themselves lie in"),
    ):
        with pytest.raises(UserError, match=message) as error:
            run(capsys, *args)
        assert "\n" not in str(error.value)


def test_stats_never_writes_over_what_it_reads(quick, tmp_path, capsys):
    np.save(tmp_path / "mine.npy", pictures(6))
    before = (tmp_path / "mine.npy").read_bytes()
    with pytest.raises(UserError, match="mine.npy: is the source itself"):
        run(capsys, "stats", tmp_path / "mine.npy", "-o", tmp_path / "mine.npy", "--overwrite")
    assert (tmp_path / "mine.npy").read_bytes() == before
    with pytest.raises(SystemExit):
        run(capsys, "stats", tmp_path / "mine.npy", "-o", tmp_path / "s", "--format", "nonsense")


def test_a_damaged_picture_leaves_no_statistics(quick, tmp_path, capsys):
    folder_of(tmp_path / "f", pictures(6))
    Image.fromarray(pictures(1, size=(64, 64))[0]).save(tmp_path / "f" / "zz.png")
    whole = (tmp_path / "f" / "zz.png").read_bytes()
    (tmp_path / "f" / "zz.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="zz.png"):
        run(capsys, "stats", tmp_path / "f", "-o", tmp_path / "s.npz")
    assert not list(tmp_path.glob("*s.npz*"))


def test_help_tells_defaults(capsys):
    with pytest.raises(SystemExit) as done:
        cli.parse_args(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert done.value.code == 0 and "(default: tf)" in text and "(default: fid,is)" in text


# ---- over EfficientNet-Lite0, from the pip package ----


def test_two_networks_in_one_pass(quick, tmp_path, capsys):
    """Each has its own real statistics; only Inception's scores bear the literature's names."""
    fakes = folder_of(tmp_path / "fakes", pictures(5))
    reals = folder_of(tmp_path / "reals", pictures(6))
    metrics = "fid,fd_eff,kd_eff,pr_eff"
    words = ["evaluate", fakes, "--real", reals, "--metrics", metrics]
    record = json.loads(run(capsys, *words, "--inception_weights", "random", "--json"))
    scores = set(record["scores"])
    assert {"fid", "fd_efficientnet", "kd_efficientnet", "precision_efficientnet"} < scores
    assert "kid" not in scores and "precision" not in scores
    assert record["inception"]["comparable"] is False and record["comparable"] is False
    assert record["efficientnet"]["comparable"] is True
    assert record["real_efficientnet"]["variant"] == "bicubic-224"


def test_statistics_of_one_network_are_refused_for_the_other(quick, tmp_path, capsys):
    reals = folder_of(tmp_path / "reals", pictures(6))
    stats = tmp_path / "eff.npz"
    run(capsys, "stats", reals, "-o", stats, "--network", "efficientnet")
    assert Statistics.load(stats).mean.shape == (1280,)
    words = ["evaluate", reals, "--real", stats, "--metrics"]
    assert "fd_efficientnet = " in run(capsys, *words, "fd_eff")
    with pytest.raises(UserError, match="1280 features an image, not Inception's 2048"):
        run(capsys, *words, "fid")
