"""Epochs counted by the images seen."""

import pytest

from shared_metrics.errors import UserError
from shared_metrics.runs.epochs import Epochs, ends


def gone_on(before, iteration, now):
    """`now`, going on from where `before` is, and the line on it."""
    line = now.go_on(iteration, before.state(iteration), "a.pdparams")
    return now, line


def test_places_and_ends_without_a_change():
    epochs = Epochs(23, 4)  # five batches
    assert [epochs.place(k) for k in (0, 4, 5, 11)] == [(0, 0), (0, 16), (1, 0), (2, 4)]
    assert [epochs.done(k) for k in (0, 4, 5, 11)] == [0, 0, 1, 2]
    assert [epochs.end(n) for n in (0, 1, 3)] == [0, 5, 15]
    assert Epochs(23, 4, drop_last=False).end(2) == 12
    assert Epochs(24, 4, per_iteration=4).end(2) == 3


@pytest.mark.parametrize(
    "now, end",
    [
        (Epochs(40, 4, 2), 30),  # another process
        (Epochs(40, 8), 30),
        (Epochs(40, 2), 60),
        (Epochs(80, 4), 60),  # more images
    ],
)
def test_of_four_epochs_two_are_done_and_two_are_left(now, end):
    _, line = gone_on(Epochs(40, 4), 20, now)
    assert now.end(4) == end and now.place(20) == (2, 0)
    assert now.end(2) == 20 and now.done(20) == 2
    assert "before: 40 images, batch 4 x 1 process(es), 4 in all" in line and "\n" not in line


def test_inside_an_epoch_its_images_are_seen_once():
    now, _ = gone_on(Epochs(40, 4), 13, Epochs(40, 3, 2))  # 12 images of epoch 1
    assert [now.place(k) for k in (13, 14, 16, 17)] == [(1, 12), (1, 18), (1, 30), (2, 0)]
    assert now.end(2) == 17 and now.end(3) == 23
    again, line = gone_on(now, 15, Epochs(40, 3, 2))
    assert line == "" and [again.place(k) for k in (15, 16, 17)] == [(1, 24), (1, 30), (2, 0)]
    other, _ = gone_on(Epochs(40, 4), 15, Epochs(80, 4))  # half of epoch 1
    assert other.place(15) == (1, 40) and other.end(2) == 25


def test_which_epochs_ended_with_which_iterations():
    epochs = Epochs(40, 4)

    def state(iteration):
        own = {"batches_per_epoch": epochs.per_epoch, "epochs": [epochs.state(iteration)]}
        return {"iteration": iteration, **own}

    assert ends(state(20)) == ends(state(29)) == {0: 10, 1: 20}
    assert ends({"iteration": 29, "batches_per_epoch": 10}) == {0: 10, 1: 20}
    assert ends({"iteration": 29}) == {}
    epochs, _ = gone_on(epochs, 15, Epochs(40, 4, 2))  # half of epoch 1 is left, of 2.5 batches
    assert ends(state(16)) == {}
    assert ends(state(17)) == {1: 17} and ends(state(24)) == {1: 17, 2: 22}


def test_what_a_file_holds_is_looked_at():
    good = Epochs(40, 4).state(3)
    for bad in (None, [], {}, good | {"seen": "12"}, good | {"images": 0}, good | {"epoch": -1}):
        with pytest.raises(UserError, match="a.pdparams: holds no epochs"):
            Epochs(40, 4).go_on(3, bad, "a.pdparams")
