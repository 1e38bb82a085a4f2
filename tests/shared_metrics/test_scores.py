"""Scores against closed forms, and against pytorch-fid and torch-fidelity on stored features."""

import numpy as np
import pytest

from shared_metrics.scores import (
    InceptionScore,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from tests.conftest import shared_dir


@pytest.fixture(scope="module")
def peers():
    with np.load(shared_dir("parity") / "inception" / "inception_fixture.npz") as data:
        yield data


def fid(x, y):
    x = np.asarray(x, np.float64)
    y = np.asarray(y, np.float64)
    return frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))


@pytest.mark.parametrize("case", ["full64", "full256", "deficient128", "low8"])
def test_fid_of_the_peers(peers, case):
    value = fid(peers[f"feat_{case}_1"], peers[f"feat_{case}_2"])["fid"]
    assert value == pytest.approx(float(peers[f"fid_pytorch_fid_{case}"]), rel=1e-6)
    assert value == pytest.approx(float(peers[f"fid_torch_fidelity_{case}"]), rel=1e-6)


def test_fid_at_2048_dimensions(peers):
    draw = np.random.RandomState(99)
    x = np.maximum(draw.randn(2300, 2048) * 0.3 + 0.3, 0)
    y = np.maximum(draw.randn(2200, 2048) * 0.33 + 0.28, 0)
    assert fid(x, y)["fid"] == pytest.approx(float(peers["fid_pytorch_fid_2048_recipe"]), rel=1e-6)


def test_fid_closed_forms():
    # Commuting covariances: the sum of (sqrt a - sqrt b)^2 over the eigenvalues.
    turn = np.linalg.qr(np.random.RandomState(0).randn(5, 5))[0]
    a = np.array([4.0, 1, 9, 0, 0])
    b = np.array([1.0, 1, 4, 25, 0])
    scores = frechet_distance(
        mean1=np.zeros(5),
        cov1=(turn * a) @ turn.T,
        mean2=np.full(5, 2.0),
        cov2=(turn * b) @ turn.T,
    )
    assert scores["fid_cov_term"] == pytest.approx(((a**0.5 - b**0.5) ** 2).sum(), abs=1e-6)
    assert scores["fid_mean_term"] == pytest.approx(20)
    assert scores["fid"] == pytest.approx(scores["fid_mean_term"] + scores["fid_cov_term"])


def test_fid_equal_covariances_leave_the_means():
    cov = np.cov(np.random.RandomState(1).randn(8, 50).T)  # rank 7 of 50
    scores = frechet_distance(np.zeros(50), cov, mean2=np.full(50, 0.5), cov2=cov)
    assert scores["fid"] == pytest.approx(12.5, abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 40, 400])
def test_fid_of_identical_sets_is_zero(n):
    x = np.maximum(np.random.RandomState(n).randn(n, 64), 0)
    assert 0 <= fid(x, x)["fid"] < 1e-6


def test_fid_of_two_images_and_of_constant_ones():
    x = np.array([[0.0, 0, 0], [2, 0, 0]])
    y = np.array([[0.0, 0, 0], [0, 2, 0]])
    # Covariances 2 e1 e1' and 2 e2 e2', product 0: |(1,0,0) - (0,1,0)|^2 + 2 + 2.
    assert fid(x, y)["fid"] == pytest.approx(6)
    assert fid(np.ones((5, 3)), np.zeros((4, 3)))["fid"] == pytest.approx(3)


@pytest.mark.parametrize("n, d, seed", [(4, 4, 1), (2, 256, 1), (1000, 2, 1), (300, 256, 3)])
def test_fid_is_real_where_the_peers_had_nan(n, d, seed):
    draw = np.random.RandomState(seed)
    x = draw.randn(n, d)
    y = draw.randn(n, d)
    cov_x = np.cov(x.T)
    cov_y = np.cov(y.T)
    product = np.linalg.eigvals(cov_x @ cov_y).astype(complex)
    mean_term = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = mean_term + np.trace(cov_x + cov_y) - 2 * np.sqrt(product).real.sum()
    assert fid(x, y)["fid"] == pytest.approx(expected, abs=1e-4)


def test_fid_refuses_nan_and_shapes():
    eye = np.eye(3)
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(np.array([0, 0, np.nan]), eye, np.zeros(3), eye)
    with pytest.raises(ValueError, match="need"):
        frechet_distance(np.zeros(3), eye, np.zeros(2), np.eye(2))


def test_inception_score_of_the_peers(peers):
    for seed, name in ((None, "inorder"), (2020, "shuffled2020")):
        scores = inception_score(peers["isc_logits"], 10, seed)
        expected = peers[f"isc_splits10_{name}"]
        assert (scores["is"], scores["is_std"]) == pytest.approx(expected, rel=1e-6)


def test_inception_score_bounds():
    sure = 1e4 * np.eye(8)[np.arange(80) % 8]  # every class equally often, no doubt: exp(log 8)
    assert inception_score(sure, 2, None)["is"] == pytest.approx(8)
    assert inception_score(np.ones((80, 8)), 4)["is"] == pytest.approx(1)


def test_inception_score_by_hand():
    p = np.array([[0.5, 0.5], [0.9, 0.1]])
    kl = (p * np.log(p / p.mean(0))).sum(1)
    assert inception_score(np.log(p), 1, None)["is"] == pytest.approx(np.exp(kl.mean()))


def test_inception_score_stream_equals_whole_in_any_order():
    logits = np.random.RandomState(0).randn(103, 20)
    whole = inception_score(logits, 10)
    stream = InceptionScore(103, 10, classes=20)
    for rows in (np.arange(90, 103), np.arange(0, 50), np.arange(50, 90)):
        stream.update(logits[rows], rows)
    assert stream.result()["is"] == pytest.approx(whole["is"], rel=1e-12)
    assert stream.result()["is_std"] == pytest.approx(whole["is_std"], rel=1e-9)


def test_inception_score_equal_splits_leave_the_rest_out():
    logits = np.random.RandomState(0).randn(25, 6)
    first = inception_score(logits[:24], 4, None)
    assert inception_score(logits, 4, None, equal_splits=True) == first


def test_inception_score_counts_the_images():
    score = InceptionScore(5, 2, classes=3)
    score.update(np.zeros((4, 3)), np.arange(4))
    with pytest.raises(ValueError, match="5 images were announced, 4 came"):
        score.result()
    with pytest.raises(ValueError, match="more came"):
        score.update(np.zeros((2, 3)), np.arange(4, 6))
    with pytest.raises(ValueError, match="11 splits of 10"):
        inception_score(np.zeros((10, 3)), 11)


def test_kid_of_torch_fidelity(peers):
    features = peers["feat_full64_1"], peers["feat_full64_2"]
    scores = kernel_distance(*features, subsets=50, size=200)
    expected = peers["kid_full64_50x200_seed2020"]
    assert (scores["kid"], scores["kid_std"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("numbers, size, spread", [((6, 6), 5, True), ((6, 9), 6, False)])
def test_kid_of_subsets_that_are_the_whole_set_has_no_spread(numbers, size, spread):
    draw = np.random.RandomState(0)
    scores = kernel_distance(*(draw.randn(n, 4) for n in numbers), subsets=9, size=size)
    assert ("kid_std" in scores) == spread and scores["kid_subset_size"] == size


def test_kid_by_its_definition():
    draw = np.random.RandomState(3)
    x = draw.randn(6, 4)
    y = draw.randn(6, 4) + 1

    def k(a, b):
        return (a @ b / 4 + 1) ** 3

    within = 0.0
    across = 0.0
    for i in range(6):
        for j in range(6):
            across += k(x[i], y[j]) / 36
            if i != j:
                within += (k(x[i], x[j]) + k(y[i], y[j])) / 30
    assert kernel_distance(x, y, subsets=3, size=6)["kid"] == pytest.approx(within - 2 * across)


def test_kid_over_blocks_equals_one_block(monkeypatch):
    x, y = np.random.RandomState(0).rand(2, 70, 8)
    whole = kernel_distance(x, y, subsets=5, size=20)
    monkeypatch.setattr("shared_metrics.scores.BLOCK", 16)
    blocks = kernel_distance(x, y, subsets=5, size=20)
    assert blocks["kid"] == pytest.approx(whole["kid"], rel=1e-9)
    with pytest.raises(ValueError, match="subsets of 71"):
        kernel_distance(x, y, subsets=5, size=71)


@pytest.mark.parametrize("case", ["full64_k3", "full64_k5", "low8_k3", "low8_k5"])
def test_precision_recall_of_torch_fidelity(peers, case, monkeypatch):
    monkeypatch.setattr("shared_metrics.scores.BLOCK", 128)  # several blocks
    name, k = case.split("_k")
    scores = precision_recall(peers[f"feat_{name}_2"], peers[f"feat_{name}_1"], int(k))
    assert list(scores.values()) == pytest.approx(peers[f"prc_{case}"], rel=1e-6)


def test_precision_recall_by_hand():
    real = np.array([[0.0], [1.0], [10.0]])  # k=1: radii 1, 1, 9
    generated = np.array([[1.5], [30.0], [32.0]])  # radii 28.5, 2, 2
    scores = precision_recall(real, generated, k=1)
    assert scores["precision"] == pytest.approx(1 / 3)  # 1.5 lies within 1 of 1 and 9 of 10
    assert scores["recall"] == pytest.approx(1)  # all real lie within 28.5 of 1.5


def test_precision_recall_of_a_collapsed_generator_and_of_equal_sets():
    draw = np.random.RandomState(0)
    real = draw.randn(300, 5)
    scores = precision_recall(real, real[:1] + 0.01 * draw.randn(300, 5))
    assert scores["precision"] > 0.8 and scores["recall"] < 0.3
    assert precision_recall(real, real)["f_score"] == 1
    ones = np.ones((9, 4))  # duplicates: radius 0
    assert precision_recall(ones, ones)["f_score"] == 1
    assert precision_recall(ones, np.zeros((9, 4)))["f_score"] == 0
    with pytest.raises(ValueError, match="neighbours"):
        precision_recall(real[:3], real)
