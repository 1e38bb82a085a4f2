"""films.py: which points a film passes, and a GIF that shows them."""

from argparse import Namespace

import numpy as np
from PIL import Image

from shared_metrics import films


def test_stops_are_distinct_seeds_and_never_one():
    assert films.stops(np.array([5, 3, 5, 3])).tolist() == [3, 5]
    assert films.stops(np.arange(50)).tolist() == list(range(10))
    assert films.stops(np.array([2**32 - 1])).tolist() == [2**32 - 1, 0]


def test_between_goes_straight_and_comes_back():
    z = np.array([[0, 0], [4, 8]], np.float32)
    points = films.between(z, 4)
    assert points.dtype == np.float32
    assert points.tolist() == [[0, 0], [1, 2], [2, 4], [3, 6], [4, 8], [3, 6], [2, 4], [1, 2]]


def test_film_shows_every_class_at_the_same_latent(tmp_path):
    """The stand-in G paints z in red and the class in green."""

    def draw(z, labels):
        images = np.zeros((len(z), 16, 16, 3), np.uint8)
        images[..., 0] = z[:, :1, None]
        images[..., 1] = labels[:, None, None] * 100
        return images

    def latents(seeds):
        return np.float32([[100 * seed] for seed in seeds])

    labels = np.array([0, 2])
    films.write_film(Namespace(film=0), tmp_path, [0, 1], latents, draw, labels)
    assert not (tmp_path / "film.gif").exists()
    films.write_film(Namespace(film=2), tmp_path, [0, 1], latents, draw, labels)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4 and film.info["loop"] == 0
        reds = []
        for k in range(4):
            film.seek(k)
            frame = np.asarray(film.convert("RGB")).astype(int)
            left, right = frame[8, frame.shape[1] // 4], frame[8, frame.shape[1] * 3 // 4]
            assert abs(left[0] - right[0]) <= 2 and left[1] <= 2 and abs(right[1] - 200) <= 2
            reds.append(left[0])
    np.testing.assert_allclose(reds, [0, 50, 100, 50], atol=2)
