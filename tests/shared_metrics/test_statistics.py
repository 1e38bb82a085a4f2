"""Statistics: exact sums, samples that do not depend on who saw what, files of ours and of every
peer.
"""

import pickle

import numpy as np
import pytest

from shared_metrics import scoring, statistics, weights
from shared_metrics.errors import UserError
from shared_metrics.statistics import Statistics
from tests.conftest import shared_dir
from tests.shared_metrics.handmade import torch_zip

LABELS = {
    "protocol": "tf",
    "variant": "tf",
    "weights_sha256": "ab" * 32,
    "comparable": True,
    "resolution": "32x32",
}


def features(n=50, d=6, seed=0):
    return np.random.RandomState(seed).rand(n, d).astype(np.float32)


def made_of(x, keep=0, **info):
    stats = Statistics(keep, **(info or LABELS))
    stats.update(x)
    return stats


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_mean_and_covariance(monkeypatch, chunk):
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    x, stats = features(53), Statistics()
    for part in np.array_split(x, [1, 1, 20, 40]):  # an empty part among them
        stats.update(part)
    assert stats.number == 53
    np.testing.assert_allclose(stats.mean, x.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(stats.cov, np.cov(x.astype(np.float64).T), rtol=1e-11, atol=1e-14)


def test_float64_sums_keep_small_differences():
    x = (1000 + np.random.RandomState(0).rand(4000, 3)).astype(np.float32)
    np.testing.assert_allclose(made_of(x).cov, np.cov(x.astype(np.float64).T), rtol=1e-6, atol=1e-8)


def test_merge_equals_one_pass_whoever_saw_what():
    x = features(40)
    whole = made_of(x, keep=9)
    halves = [Statistics(keep=9), Statistics(keep=9)]
    for i in (0, 1):
        halves[i].update(x[i::2], np.arange(i, 40, 2))
    halves[1].merge(halves[0])
    np.testing.assert_allclose(halves[1].cov, whole.cov, rtol=1e-12)
    np.testing.assert_array_equal(halves[1].features, whole.features)


def test_kept_features_are_all_in_order_or_a_spread_sample():
    x = np.arange(300, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(made_of(x, keep=300).features, x)
    sample = made_of(x, keep=60).features[:, 0]
    assert len(set(sample)) == 60 and (np.diff(sample) > 0).all()
    assert 20 <= (sample < 150).sum() <= 40  # not the first 60, nor the last
    assert made_of(x).features is None


def test_bad_features_are_refused():
    stats = Statistics()
    with pytest.raises(ValueError, match="NaN"):
        stats.update(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="need"):
        stats.update(np.zeros(3))
    stats.update(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="at least 2"):
        _ = stats.cov


def test_round_trip(tmp_path):
    stats = made_of(features(), keep=10)
    stats.save(tmp_path / "s.npz")
    back = Statistics.load(tmp_path / "s.npz")
    assert back.info == LABELS and back.number == 50 and back.source == str(tmp_path / "s.npz")
    np.testing.assert_array_equal(back.mean, stats.mean)
    np.testing.assert_array_equal(back.cov, stats.cov)
    np.testing.assert_array_equal(back.features, stats.features)
    assert back.sha256() == stats.sha256() != made_of(features(seed=1)).sha256()
    with pytest.raises(ValueError, match="cannot be updated"):
        back.update(features())
    with np.load(tmp_path / "s.npz") as raw:  # what pytorch-fid reads
        assert raw["mu"].dtype == raw["sigma"].dtype == np.float64 and raw["sigma"].shape == (6, 6)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    made_of(features()).save(tmp_path / "s.npz")
    before = (tmp_path / "s.npz").read_bytes()
    with pytest.raises(UserError, match="--format excel"):
        made_of(features()).save(tmp_path / "s.npz", "excel")
    assert (tmp_path / "s.npz").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def peer_files(x):
    """name: (content, whether it is an .npz) as each peer writes it, from the features x."""
    mean, cov = x.mean(0), np.cov(x.T)
    return {
        "pytorch-fid": ({"mu": mean, "sigma": cov}, True),
        "studiogan-features": ({"real_feats": x, "real_probs": x, "real_labels": x[:, 0]}, True),
        "clean-fid-kid": ({"feats": x}, True),
        "mmgen": (
            {"mean": mean.astype(np.float32), "cov": cov, "size": len(x), "name": "cifar"},
            False,
        ),
        "mmagic": ({"real_mean": mean, "real_cov": cov, "raw_feature": x, "prefix": "FID"}, False),
        "mmagic-other": ({"mu": mean, "sigma": cov}, False),
        "stylegan": (
            {
                "num_items": len(x),
                "num_features": x.shape[1],
                "capture_all": False,
                "capture_mean_cov": True,
                "max_items": len(x),
                "all_features": None,
                "raw_mean": x.sum(0),
                "raw_cov": x.T @ x,
            },
            False,
        ),
    }


@pytest.mark.parametrize("peer", peer_files(np.eye(3)))
def test_files_of_the_peers(tmp_path, peer):
    x = features().astype(np.float64)
    data, zipped = peer_files(x)[peer]
    path = tmp_path / ("peer.npz" if zipped else "peer.pkl")
    np.savez_compressed(path, **data) if zipped else path.write_bytes(pickle.dumps(data))
    with pytest.raises(UserError, match="does not tell its protocol"):
        Statistics.load(path)
    stats = Statistics.load(path, protocol="clean")
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats.cov, np.cov(x.T), rtol=1e-6, atol=1e-9)
    assert stats.info["variant"] == "clean"
    assert stats.number in (50, None)
    assert (stats.features is not None) == (
        peer in ("studiogan-features", "clean-fid-kid", "mmagic")
    )


@pytest.mark.parametrize("form", ["mmgen", "mmagic", "stylegan"])
def test_written_for_a_peer_reads_back_the_same(tmp_path, form):
    stats = made_of(features())
    stats.save(tmp_path / "p.pkl", form)
    back = Statistics.load(tmp_path / "p.pkl", protocol="tf")
    np.testing.assert_allclose(back.mean, stats.mean, rtol=1e-6)
    np.testing.assert_allclose(back.cov, stats.cov, rtol=1e-9, atol=1e-12)
    raw = weights.load(tmp_path / "p.pkl")
    if form == "stylegan":  # its own reading: mean = raw_mean / n, cov = raw_cov / n - mean mean'
        mean = raw["raw_mean"] / 50
        np.testing.assert_allclose(
            raw["raw_cov"] / 50 - np.outer(mean, mean), np.cov(features().T, ddof=0), rtol=1e-5
        )


def test_pytorch_fid_file():
    path = shared_dir("parity") / "inception" / "stats_full64_pytorch_fid.npz"
    with np.load(path.with_name("inception_fixture.npz")) as data:
        x = data["feat_full64_1"].astype(np.float64)
    np.testing.assert_allclose(
        Statistics.load(path, "pytorch-fid").cov, np.cov(x.T), rtol=1e-6, atol=1e-9
    )


def test_bad_files_are_named(tmp_path):
    for name, content, message in (
        ("missing.npz", None, "cannot be read"),
        ("text.npz", b"PK but no zip", "text.npz: damaged"),
        ("page.npz", b"<html>404", "web page"),
        ("other.pkl", pickle.dumps({"weight": np.zeros(3)}), "neither mean and covariance"),
        ("list.pkl", pickle.dumps([1, 2]), "no statistics file"),
        ("nan.pkl", pickle.dumps({"mu": np.array([np.nan]), "sigma": np.eye(1)}), "NaN"),
        ("shape.pkl", pickle.dumps({"mu": np.zeros(3), "sigma": np.eye(2)}), "need"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            Statistics.load(tmp_path / name, "tf")
        assert name in str(error.value) and "\n" not in str(error.value)


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    (tmp_path / "s.pkl").write_bytes(pickle.dumps({"mu": Evil()}))
    with pytest.raises(UserError, match="refused"):
        Statistics.load(tmp_path / "s.pkl", "tf")
    assert not (tmp_path / "ran").exists()


def write(path, data, how):
    """A file of a dict as one of the peers writes it."""
    if how == "npy":
        np.save(path, data, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(data))
    return path


@pytest.mark.parametrize("how", ["npy", "pkl"])
def test_nested_dicts_and_pickled_arrays(tmp_path, how):
    """EDM2's file, by the network, torch-fidelity's cache of features, and a dict in a .npy."""
    x = features().astype(np.float64)
    other = {"mu": np.zeros(3), "sigma": np.eye(3)}
    flat = {"mu": x.mean(0), "sigma": np.cov(x.T)}
    for data in ({"fid": flat, "fd_dinov2": other}, flat, {"2048": x, "logits": x}):
        stats = Statistics.load(write(tmp_path / f"s.{how}", data, how), "tf")
        np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-6)
        np.testing.assert_allclose(stats.cov, np.cov(x.T), rtol=1e-6, atol=1e-9)


def test_torch_fidelitys_cache(tmp_path):
    path = tmp_path / "cifar10-train-stat-fid-inception-v3-compat-2048.pt"
    stats = {"mu": np.arange(3.0), "sigma": np.eye(3)}
    path.write_bytes(torch_zip(pickle.dumps(stats, 2), {}))
    assert Statistics.load(path, "tf").mean.tolist() == [0, 1, 2]


def test_images_with_their_sets_statistics(tmp_path):
    """guided-diffusion's reference files: FID there is against mu and sigma."""
    path = tmp_path / "VIRTUAL_imagenet256.npz"
    images = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez_compressed(path, arr_0=images, mu=np.ones(3), sigma=np.eye(3), mu_s=np.zeros(2))
    assert not scoring.holds_images(path)
    stats = Statistics.load(path, "tf")
    assert stats.mean.tolist() == [1, 1, 1]
    assert "its mu, sigma are used, not the images" in stats.notes[0]


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"sigma": np.diag([1.0, -0.5, 1])}, "sigma holds a negative variance"),
        ({"mu": np.array([0, np.inf, 0])}, "mu holds NaN or infinite"),
        ({"feats": np.full((4, 3), np.nan)}, "feats holds NaN or infinite"),
        ({"num_items": np.inf}, "num_items is no number"),
        ({"num_items": "many"}, "num_items is no number"),
        ({"sigma": np.array(["a", "b"])}, "sigma is no array of numbers"),
        ({"sigma": np.ones(3)}, "sigma has the shape"),
    ],
)
def test_entries_that_no_statistics_have_are_named(tmp_path, change, fault):
    data = {"mu": np.zeros(3), "sigma": np.eye(3)} | change
    np.savez(tmp_path / "s.npz", **data)
    for path in (tmp_path / "s.npz", write(tmp_path / "s.pkl", data, "pkl")):
        with pytest.raises(UserError, match=f"^{path}: {fault}"):
            Statistics.load(path, "tf")
