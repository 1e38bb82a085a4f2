"""Scores during training: which real images they are against, and which checkpoint was the best."""

from types import SimpleNamespace

import pytest

from shared_metrics.runs import evaluation


@pytest.fixture
def calls(monkeypatch):
    """The statistics that Evaluation makes and those that it reads; stand-ins for Inception."""
    calls = []

    def extractor(weights):
        return SimpleNamespace(info={"source": weights})

    def statistics_of(pictures, extractor, **_):
        calls.append(f"made of {pictures}")
        return SimpleNamespace(save=lambda path: path.write_text("statistics"))

    def read_real(source, extractor):
        calls.append(f"read {source}")

    monkeypatch.setattr(evaluation, "Extractor", extractor)
    monkeypatch.setattr(evaluation, "statistics_of", statistics_of)
    monkeypatch.setattr(evaluation, "read_real", read_real)
    return calls


def opened(folder, resumed, real=""):
    return evaluation.Evaluation(
        folder,
        real,
        inception_weights="random",
        eval_samples=10,
        pictures=lambda: "pictures",
        count=12,
        log=SimpleNamespace(info=lambda text: None),
        resumed=resumed,
    )


def test_only_a_resumed_run_trusts_the_statistics_in_its_folder(tmp_path, calls):
    """A run begun anew there may train on other classes."""
    cached = tmp_path / "real_stats.npz"
    for resumed in (True, False, True):
        opened(tmp_path, resumed)
    assert calls == ["made of pictures", "made of pictures", f"read {cached}"] and cached.exists()
    opened(tmp_path, True, real="theirs.npz")
    assert calls[-1] == "read theirs.npz"


def test_the_best_of_each_score_is_kept(tmp_path, calls, monkeypatch):
    scores = iter([(30.0, 2.0), (20.0, 1.5), (25.0, 2.5)])
    best = {}

    def evaluate(batches, extractor, real, num_images):
        fid, inception_score = next(scores)
        return {"scores": {"fid": fid, "is": inception_score}, "comparable": False}

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    judged = opened(tmp_path, False)
    results = [judged.score([], iteration, best) for iteration in (1, 2, 3)]
    assert [improved for _, improved in results] == [["fid", "is"], ["fid"], ["is"]]
    assert results[0][0] == {"fid_not_comparable": 30.0, "is_not_comparable": 2.0}
    assert best == {
        "fid": {"value": 20.0, "iteration": 2, "samples": 10, "comparable": False},
        "is": {"value": 2.5, "iteration": 3, "samples": 10, "comparable": False},
    }
