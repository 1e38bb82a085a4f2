"""Scores during training: which real images they are against, and which checkpoint was the best."""

from types import SimpleNamespace

import pytest

from shared_metrics.runs import evaluation


@pytest.fixture
def calls(monkeypatch):
    """What Evaluation asks for, with stand-ins for Inception: the statistics that it makes and
    those that it reads.
    """
    calls = []

    def statistics_of(pictures, extractor, **_):
        calls.append(f"made of {pictures}")
        return SimpleNamespace(save=lambda path: path.write_text("statistics"))

    monkeypatch.setattr(
        evaluation, "Extractor", lambda weights: SimpleNamespace(info={"source": weights})
    )
    monkeypatch.setattr(evaluation, "statistics_of", statistics_of)
    monkeypatch.setattr(
        evaluation, "read_real", lambda source, extractor: calls.append(f"read {source}")
    )
    return calls


def opened(folder, resumed, real=""):
    log = SimpleNamespace(info=lambda text: None)
    return evaluation.Evaluation(folder, real, "random", 10, lambda: "pictures", 12, log, resumed)


def test_only_a_resumed_run_trusts_the_statistics_in_its_folder(tmp_path, calls):
    """A run begun anew there may train on other classes."""
    cached = tmp_path / "real_stats.npz"
    for resumed in (True, False, True):
        opened(tmp_path, resumed)
    assert calls == ["made of pictures", "made of pictures", f"read {cached}"] and cached.exists()
    opened(tmp_path, True, real="theirs.npz")
    assert calls[-1] == "read theirs.npz"


def test_the_best_of_each_score_is_kept(tmp_path, calls, monkeypatch):
    scores, best = iter([(30.0, 2.0), (20.0, 1.5), (25.0, 2.5)]), {}

    def evaluate(batches, extractor, real, num_images):
        fid, inception_score = next(scores)
        return {"scores": {"fid": fid, "is": inception_score}, "comparable": False}

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    judged = opened(tmp_path, False)
    found = [judged.score([], iteration, best) for iteration in (1, 2, 3)]
    assert [improved for _, improved in found] == [["fid", "is"], ["fid"], ["is"]]
    assert found[0][0] == {"fid_not_comparable": 30.0, "is_not_comparable": 2.0}
    assert best == {
        "fid": {"value": 20.0, "iteration": 2, "samples": 10, "comparable": False},
        "is": {"value": 2.5, "iteration": 3, "samples": 10, "comparable": False},
    }
