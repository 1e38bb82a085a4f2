"""MS-SSIM: closed forms, a direct computation, a peer's values; the pairs within classes."""

import numpy as np
import pytest

from shared_metrics import ms_ssim as module
from shared_metrics.errors import UserError
from shared_metrics.ms_ssim import choose_pairs, intra_class, ms_ssim, ssim_terms

C1 = 6.5025  # (0.01 * 255)^2
C2 = 58.5225  # (0.03 * 255)^2


def waves(height, width, number, seed):
    """Images (number, height, width, 3) of one sine a channel, float in [37.5, 217.5]."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    images = np.zeros((number, height, width, 3))
    for i in range(number):
        for c in range(3):
            fy = rng.uniform(0.02, 1.0)
            fx = rng.uniform(0.02, 1.0)
            phase = rng.uniform(0, 6)
            images[i, :, :, c] = 127.5 + 90 * np.sin(fy * y + fx * x + phase)
    return images


def pairs_of_images(height, width):
    """Three pairs: less contrast, added noise, another image altogether."""
    a = waves(height, width, number=3, seed=0)
    noise = np.random.RandomState(1).uniform(-1, 1, a.shape)
    other = waves(height, width, number=1, seed=2)[0]
    b = np.stack([a[0] * 0.7 + 20, a[1] + 50 * noise[1], other])
    return a.clip(0, 255).astype(np.uint8), b.clip(0, 255).astype(np.uint8)


# pytorch-msssim 1.0.0 with torch 2.13, data_range=255, float64 images of `pairs_of_images`. It
# rounds its window to float32: with that very window the difference falls from 1e-6 to 2e-15. At
# odd sides it pads with zeros before it halves (4e-3 off at 181 x 179), and it refuses sides up to
# 160.
PEER = {
    (176, 176): [0.95475623, 0.91267274, 0.02149731],
    (256, 192): [0.95474598, 0.90754576, 0.02146615],
}


@pytest.mark.parametrize("size", PEER)
def test_recorded_values_of_a_peer(size):
    assert np.allclose(ms_ssim(*pairs_of_images(*size)), PEER[size], atol=3e-6, rtol=0)


def test_the_peer_itself():
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("pytorch_msssim")
    a, b = pairs_of_images(208, 176)
    tensors = [torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)) for x in (a, b)]
    theirs = peer.ms_ssim(*tensors, data_range=255, size_average=False).numpy()
    assert np.allclose(ms_ssim(a, b), theirs, atol=3e-6, rtol=0)


@pytest.mark.parametrize("side", [16, 32, 64, 100])
def test_equal_images_give_one_and_order_does_not_matter(side):
    a, b = pairs_of_images(side, side)
    assert np.allclose(ms_ssim(a, a), 1.0, atol=1e-12)
    scores = ms_ssim(a, b)
    assert np.array_equal(scores, ms_ssim(b, a)) and scores.dtype == np.float64
    assert (scores < 0.999).all() and scores[0] > scores[1] > scores[2]
    alone = [ms_ssim(a[i : i + 1], b[i : i + 1])[0] for i in range(3)]
    assert np.allclose(alone, scores, atol=1e-12)


@pytest.mark.parametrize("side", [16, 32, 176])
def test_constant_images_differ_in_luminance_alone(side):
    """Structure is (0 + C2) / (0 + C2) = 1; luminance enters once, at the coarsest scale."""
    a = np.full((1, side, side, 3), 200, np.uint8)
    b = np.full((1, side, side, 3), 90, np.uint8)
    expected = ((2 * 200 * 90 + C1) / (200**2 + 90**2 + C1)) ** 0.1333
    assert ms_ssim(a, b)[0] == pytest.approx(expected, abs=1e-9)
    b[..., 2] = 200  # of the three channels' scores the mean is taken
    assert ms_ssim(a, b)[0] == pytest.approx((2 * expected + 1) / 3, abs=1e-9)


def test_a_negative_has_no_similarity():
    a = pairs_of_images(64, 64)[0]
    assert np.array_equal(ms_ssim(a, 255 - a), np.zeros(3))


def test_one_scale_against_the_definition():
    """Each window's means, variances, covariance one by one (Wang et al. 2004, eq. 14 to 16)."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 255, (2, 14, 13))
    i, j = np.mgrid[-5:6, -5:6]
    weight = np.exp(-(i**2 + j**2) / (2 * 1.5**2)).ravel()
    weight /= weight.sum()
    luminance, structure = ssim_terms(a[None, None], b[None, None])
    assert luminance.shape == (1, 1, 4, 3)
    for i in range(4):
        for j in range(3):
            x = a[i : i + 11, j : j + 11].ravel()
            y = b[i : i + 11, j : j + 11].ravel()
            mx = weight @ x
            my = weight @ y
            vx = weight @ (x - mx) ** 2
            vy = weight @ (y - my) ** 2
            cov = weight @ ((x - mx) * (y - my))
            expected = (2 * mx * my + C1) / (mx**2 + my**2 + C1)
            assert luminance[0, 0, i, j] == pytest.approx(expected)
            assert structure[0, 0, i, j] == pytest.approx((2 * cov + C2) / (vx + vy + C2))


def test_small_scales_shrink_the_window(monkeypatch):
    """8 px: a window of 8 with sigma 8 * 1.5 / 11, one place. So 32 px keep five scales."""
    x = np.random.default_rng(0).uniform(0, 255, (1, 1, 8, 8))
    offsets = np.arange(8) - 3.5
    kernel = np.exp(-(offsets**2) / (2 * (8 * 1.5 / 11) ** 2))
    kernel /= kernel.sum()
    assert np.allclose(module._window(x)[0, 0], kernel @ x[0, 0] @ kernel)
    sides = []

    def note_the_side(a, b):
        sides.append(a.shape[2])
        return np.ones_like(a), np.ones_like(a)

    monkeypatch.setattr(module, "ssim_terms", note_the_side)
    ms_ssim(*pairs_of_images(32, 32))
    assert sides == [32, 16, 8, 4, 2]


def test_halving_takes_means():
    x = np.arange(30.0).reshape(1, 1, 5, 6)
    assert np.allclose(module._half(x)[0, 0], [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]])


def test_what_it_cannot_compare_is_refused():
    a = np.zeros((1, 32, 32, 3), np.uint8)
    for b in (a.astype(float), a[:, :16], a[0]):
        with pytest.raises(ValueError, match="need two uint8"):
            ms_ssim(a, b)
    with pytest.raises(ValueError, match="15x32: five scales"):
        ms_ssim(a[:, :, :15], a[:, :, :15])


# ---- pairs ----


def test_pairs_are_of_one_class_distinct_and_reproducible():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 7], [40, 200, 3]))
    chosen = choose_pairs(labels, 100)
    numbers = {label: len(pairs) for label, pairs in chosen.items()}
    assert numbers == {0: 100, 1: 100, 7: 3}  # three images: 3 pairs
    for label, pairs in chosen.items():
        assert (labels[pairs] == label).all() and (pairs[:, 0] != pairs[:, 1]).all()
        assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    again = choose_pairs(labels, 100)
    other = choose_pairs(labels, 100, seed=1)
    assert np.array_equal(chosen[0], again[0]) and not np.array_equal(chosen[0], other[0])
    # Every image of the class is as likely as another: each of the 200 is met 2 * 5000 / 200 = 50
    # times.
    met = np.bincount(choose_pairs(np.zeros(200, int), 5000)[0].ravel(), minlength=200)
    assert met.mean() == 50 and met.min() > 20 and met.max() < 85


def test_every_pair_of_a_large_class_is_made_of_images_of_it():
    pairs = choose_pairs(np.zeros(100_000, int), 1000)[0]
    assert pairs.min() >= 0 and pairs.max() < 100_000 and (pairs[:, 0] > pairs[:, 1]).all()


def test_the_mean_within_each_class():
    images = np.concatenate(pairs_of_images(32, 32))
    labels = [4, 4, 4, 2, 2, 2]

    def scores(*pairs):
        return [ms_ssim(images[i : i + 1], images[j : j + 1])[0] for i, j in pairs]

    of_4 = scores((0, 1), (0, 2), (1, 2))
    of_2 = scores((3, 4), (3, 5), (4, 5))
    assert intra_class(images, labels) == pytest.approx({4: np.mean(of_4), 2: np.mean(of_2)})
    # One pair a class, and of class 2 just the two images of that pair.
    needed = dict(enumerate(images[:3]))
    for i in choose_pairs(labels, 1)[2].ravel().tolist():
        needed[i] = images[i]
    score = intra_class(needed, labels, pairs=1)[2]
    assert score in [pytest.approx(expected) for expected in of_2]


def test_a_class_of_one_image_is_told():
    with pytest.raises(UserError, match="class 1 has one image"):
        choose_pairs([0, 0, 1])
