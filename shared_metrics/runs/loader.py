"""Batches in an order of our own, decoded by threads, with errors that name the file.

Paddle's DataLoader hangs for ever when a data set raises without workers, hides the file with them,
and shuffles differently with each number of workers. Here batch k depends on (seed, k) alone.
Pillow and numpy release the GIL while they decode, so threads suffice: no process is left behind
and no shared memory is needed.
"""

import functools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from shared_metrics.errors import UserError
from shared_metrics.process import rng
from shared_metrics.runs.epochs import Epochs, batches_per_epoch


class Batches:
    """Endless iterator over the batches of one rank: each is a tuple of stacked numpy arrays.

    Args:
        dataset: has `len(dataset)` and `dataset.load(index, rng)` -> tuple of numpy arrays or
            scalars, of one shape for every index; raises UserError naming the file. `rng` is the
            item's own numpy Generator.
        batch_size: images per batch of this rank; a global batch is batch_size * world consecutive
            images of the epoch.
        seed: fixes order and augmentation.
        start: number of the first batch, counted from the beginning of training (the iteration
            resumed from).
        rank, world: this process and how many there are; the ranks share each global batch without
            overlap.
        workers: decoding threads; 0 decodes in the caller. The batches are the same.
        shuffle: False keeps the data set's order in every epoch.
        drop_last: False adds the epoch's last, smaller batch.
        skip_bad: an item that raises UserError is replaced by the next one (cyclic) instead of
            stopping the run.
        epochs: their `Epochs`, where a run goes on that had other batches before.
    Attributes: batches_per_epoch; skipped, {index: reason} of the bad items met so far.
    Raises: UserError when the images do not fill one batch, when an item cannot be read, when
        shapes differ.
    """

    def __init__(
        self,
        dataset,
        batch_size,
        seed,
        start=0,
        rank=0,
        world=1,
        workers=0,
        shuffle=True,
        drop_last=True,
        skip_bad=False,
        epochs=None,
    ):
        self.dataset = dataset
        self.seed = seed
        self.rank = rank
        self.world = world
        self.workers = workers
        self.shuffle = shuffle
        self.skip_bad = skip_bad
        self.global_size = batch_size * world
        self.batches_per_epoch = batches_per_epoch(len(dataset), batch_size, world, drop_last)
        if not self.batches_per_epoch:
            ranks = f" on each of {world} processes" if world > 1 else ""
            raise UserError(
                f"--batch_size {batch_size}{ranks}: "
                f"the data has only {len(dataset)} image(s). Lower it."
            )
        self._epochs = epochs or Epochs(len(dataset), batch_size, world, drop_last)
        self.skipped = {}
        # Prefetching crosses the end of an epoch, so two orders are in use there.
        self._order = functools.lru_cache(maxsize=2)(self._new_order)
        self._next = start
        self._pending = deque()
        self._ready = deque()  # fetched, and not handed out yet
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches") if workers else None

    def __iter__(self):
        return self

    def __next__(self):
        return self._ready.popleft() if self._ready else self._take()

    def fetch(self):
        """Have the batches of the next iteration ready. Returns: the error that prevents it, or
        None.
        """
        try:
            while len(self._ready) < self._epochs.per_iteration:
                self._ready.append(self._take())
        except Exception as error:
            return error
        return None

    def _take(self):
        if not self.workers:
            batch = self._batch(self._next)
        elif self._pool is None:
            raise ValueError("these batches are closed")
        else:
            # One batch ahead for each thread besides the one that is waited for.
            while len(self._pending) <= self.workers:
                number = self._next + len(self._pending)
                self._pending.append(self._pool.submit(self._batch, number))
            batch = self._pending.popleft().result()
        self._next += 1
        return batch

    def close(self):
        """Drop what is prefetched and end the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._pending.clear()
        self._ready.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _new_order(self, epoch):
        n = len(self.dataset)
        return rng(self.seed, "order", epoch).permutation(n) if self.shuffle else np.arange(n)

    def _batch(self, k):
        """Batch k of the whole training, this rank's share of it."""
        epoch, start = self._epochs.place(k)
        together = self._order(epoch)[start : start + self.global_size]
        mine = [int(i) for i in np.array_split(together, self.world)[self.rank]]
        items = [self._item(epoch, i) for i in mine]
        return tuple(self._stack(mine, parts) for parts in zip(*items, strict=True))

    def _item(self, epoch, index):
        """Item `index`, or with skip_bad the first readable one after it."""
        n = len(self.dataset)
        for i in range(index, index + n):
            i %= n
            augment = rng(self.seed, "augment", epoch, i)
            try:
                return self.dataset.load(i, augment)
            except UserError as error:
                if not self.skip_bad:
                    raise
                self.skipped[i] = str(error)
        raise UserError(f"none of the {n} images can be read; the last: {self.skipped[i]}")

    @staticmethod
    def _stack(indices, parts):
        parts = [np.asarray(p) for p in parts]
        for i, p in zip(indices, parts, strict=True):
            if p.shape != parts[0].shape:
                raise UserError(
                    f"items {indices[0]} and {i} of the data have shapes {parts[0].shape} and "
                    f"{p.shape}: one batch needs one size. Resize or crop them."
                )
        return np.stack(parts)
