"""Passes over the data, counted by the images seen."""

from shared_metrics.errors import UserError

# What a checkpoint holds; since: the iterations after which these sizes came.
STATE = ("epoch", "seen", "images", "batch_size", "processes", "since")


def batches_per_epoch(number, batch_size, world=1, drop_last=True):
    """How many batches of `batch_size` images a process has in an epoch of `number` images."""
    whole, rest = divmod(number, batch_size * world)
    return whole + (not drop_last and rest >= world)


class Epochs:
    """Where a run is in its epochs, at any iteration.

    A run that goes on with another batch, other processes or other data keeps the epochs it has
    done and its place in the one it is in, so that length, rates and data go on from there.

    Args:
        images: how many an epoch passes over.
        batch_size: images per batch of a process; world: how many processes.
        drop_last: whether an epoch's last, smaller batch is left out.
        per_iteration: batches of a process that an iteration takes.
    Attributes: per_epoch, batches of a process in a whole epoch; at least 1, since data that fill
        no batch are refused later, by name (`loader.Batches`).
    """

    def __init__(self, images, batch_size, world=1, drop_last=True, per_iteration=1):
        self.images = images
        self.batch_size = batch_size
        self.world = world
        self.drop_last = drop_last
        self.per_iteration = per_iteration
        self.per_epoch = max(1, self._batches(images))
        self._begin(batch=0, epoch=0, seen=0)
        self._since = 0

    def _batches(self, images):
        return batches_per_epoch(images, self.batch_size, self.world, self.drop_last)

    def _begin(self, batch, epoch, seen):
        """Let the batch number `batch` come after `epoch` epochs and `seen` images of the next."""
        self._batch = batch
        self._epoch = epoch
        self._seen = seen
        self._rest = self._batches(self.images - seen) if seen else self.per_epoch

    def place(self, batch):
        """(epoch, images of it before) of a batch; both, and batches, are counted from 0."""
        number = batch - self._batch
        size = self.batch_size * self.world
        if number < self._rest:
            return self._epoch, self._seen + number * size
        epochs, number = divmod(number - self._rest, self.per_epoch)
        return self._epoch + 1 + epochs, number * size

    def done(self, iteration):
        """Whole epochs that are done after so many iterations."""
        return self.place(iteration * self.per_iteration)[0]

    def end(self, epochs):
        """The iterations after which so many epochs are done."""
        batch = self._batch + self._rest + (epochs - self._epoch - 1) * self.per_epoch
        return -(-batch // self.per_iteration)  # rounded up

    def state(self, iteration):
        """What a checkpoint holds of it: plain values, see STATE."""
        place = self.place(iteration * self.per_iteration)
        values = (*place, self.images, self.batch_size, self.world, self._since)
        return dict(zip(STATE, values, strict=True))

    def go_on(self, iteration, state, source):
        """Go on from a checkpoint's `state`, at its iteration.

        Of an epoch over other images the same share counts as seen.
        Returns: one line where data or batches were others, else "". Raises: UserError.
        """
        values = [state.get(name) if isinstance(state, dict) else None for name in STATE]
        if not all(type(value) is int and value >= 0 for value in values) or not all(values[2:5]):
            raise UserError(f"{source}: holds no epochs as this repository's runs count them")
        epoch, seen, images, batch_size, world, self._since = values
        if images != self.images:
            seen = seen * self.images // images
        self._begin(iteration * self.per_iteration, epoch, min(seen, self.images))
        before = (images, batch_size, world)
        if before == (self.images, self.batch_size, self.world):
            return ""
        self._since = iteration
        return (
            f"resume: {_sizes(self.images, self.batch_size, self.world)}; before: "
            f"{_sizes(*before)}. It goes on after {epoch} epoch(s) and {seen:,} images of the next"
        )


def ends(state):
    """{epoch, counted from 0: iterations after which it ended}, by a run's newest checkpoint.

    What ended before the batches were changed is not known. Args: state, its dict.
    """
    length = state.get("batches_per_epoch")
    if not length:
        return {}
    done, batches = divmod(state["iteration"], length)
    since = 0
    if state.get("epochs"):  # a checkpoint of before they were counted has none
        own = state["epochs"][0]
        done, since = own["epoch"], own["since"]
        batches = own["seen"] // (own["batch_size"] * own["processes"])
    last = state["iteration"] - batches
    every = {done - 1 - k: last - k * length for k in range(done)}
    return {epoch: iteration for epoch, iteration in every.items() if iteration > since}


def _sizes(images, batch_size, world):
    batch = batch_size * world
    return f"{images:,} images, batch {batch_size} x {world} process(es), {batch} in all"
