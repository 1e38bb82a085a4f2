"""Batches depend on (seed, number) alone; errors name the file and never hang."""

import threading
import time

import numpy as np
import pytest

from shared_metrics.errors import UserError
from shared_metrics.runs.loader import Batches


class Numbers:
    """Item i: (float32 noise of its own generator + i, int64 class i % 3).

    Indices in `bad` cannot be read; `delay` (seconds) makes some slower than others.
    """

    def __init__(self, n, bad=(), delay=0.0):
        self.n = n
        self.bad = bad
        self.delay = delay
        self.loads = 0

    def __len__(self):
        return self.n

    def load(self, index, rng):
        self.loads += 1
        if self.delay:
            time.sleep(self.delay * (index % 3))
        if index in self.bad:
            raise UserError(f"data/{index:03d}.png: truncated image")
        return np.float32(index + 0.5 * rng.random((2, 2))), index % 3


def take(count, dataset=None, **options):
    options = {"batch_size": 4, "seed": 7, **options}
    with Batches(dataset or Numbers(23), **options) as batches:
        return [next(batches) for _ in range(count)]


def indices(batches):
    return [x[:, 0, 0].astype(int).tolist() for x, _ in batches]


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_nothing(workers):
    plain = take(12)
    assert_equal(plain, take(12, Numbers(23, delay=0.004), workers=workers))
    x, y = plain[0]
    assert x.shape == (4, 2, 2) and x.dtype == np.float32
    assert y.shape == (4,) and y.dtype == np.int64


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_tail(workers):
    assert_equal(take(13)[8:], take(5, start=8, workers=workers))  # 8: inside the second epoch


def test_an_epoch_visits_each_image_at_most_once_and_epochs_differ():
    assert Batches(Numbers(23), 4, 7).batches_per_epoch == 5
    batches = indices(take(10))
    first = sum(batches[:5], [])
    second = sum(batches[5:], [])
    assert len(set(first)) == len(set(second)) == 20 and first != second
    assert indices(take(5, seed=8)) != batches[:5]


def test_images_are_augmented_anew_in_each_epoch():
    epochs = []
    for batches in (take(10)[:5], take(10)[5:]):
        images = np.concatenate([x for x, _ in batches])
        epochs.append({int(image[0, 0]): image for image in images})
    first, second = epochs
    both = first.keys() & second.keys()
    assert len(both) > 15 and not any((first[i] == second[i]).all() for i in both)


def test_order_of_the_data_set_and_the_last_small_batch():
    assert indices(take(4, Numbers(7), batch_size=3, shuffle=False)) == [[0, 1, 2], [3, 4, 5]] * 2
    kept = indices(take(4, Numbers(7), batch_size=3, shuffle=False, drop_last=False))
    assert kept == [[0, 1, 2], [3, 4, 5], [6], [0, 1, 2]]


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_global_batch(drop_last):
    whole = take(9, batch_size=6, drop_last=drop_last)
    ranks = [take(9, batch_size=2, rank=r, world=3, drop_last=drop_last) for r in range(3)]
    joined = []
    for parts in zip(*ranks, strict=True):
        joined.append([np.concatenate(arrays) for arrays in zip(*parts, strict=True)])
    assert_equal(whole, joined)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("bad", [0, 11, 22])
def test_a_bad_image_stops_the_run_with_its_name(workers, bad):
    with Batches(Numbers(23, {bad}), 23, 7, workers=workers) as batches:
        with pytest.raises(UserError, match=f"data/{bad:03d}.png"):
            next(batches)


def test_bad_images_are_skipped_alike_and_counted():
    bad = {3, 4, 22}
    seen = []
    for workers in (0, 3):
        with Batches(Numbers(23, bad), 4, 7, workers=workers, skip_bad=True) as batches:
            seen.append([next(batches) for _ in range(12)])
        assert set(batches.skipped) == bad and "data/022.png" in batches.skipped[22]
    assert_equal(*seen)
    replaced = {3: 5, 4: 5, 22: 0}  # the next readable one, cyclic
    expected = []
    for batch in indices(take(12)):
        expected.append([replaced.get(i, i) for i in batch])
    assert indices(seen[0]) == expected


def test_nothing_readable_is_an_error_not_a_loop():
    with pytest.raises(UserError, match="none of the 5 images"):
        take(1, Numbers(5, set(range(5))), skip_bad=True)


@pytest.mark.parametrize("options", [{"batch_size": 24}, {"batch_size": 8, "world": 3}])
def test_too_few_images_for_one_batch(options):
    with pytest.raises(UserError, match="--batch_size"):
        take(1, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_two_sizes_are_told(workers):
    class Sizes(Numbers):
        def load(self, index, rng):
            return (np.zeros((3, 8, 9 if index == 2 else 8)),)

    with pytest.raises(UserError, match=r"item.*2.*\(3, 8, 9\)"):
        take(1, Sizes(4), shuffle=False, workers=workers)


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_threads_end_on_close_and_prefetch_is_bounded():
    dataset = Numbers(100)
    batches = Batches(dataset, 4, 7, workers=2)
    next(batches)
    assert threads()
    time.sleep(0.2)
    assert dataset.loads <= 4 * 3  # the batch taken and two more
    batches.close()
    batches.close()
    assert not threads()
    with pytest.raises(ValueError, match="closed"):
        next(batches)
