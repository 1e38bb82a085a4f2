"""How a run ends: signals read at the step boundary, the NaN guard."""

import math
import os
import signal

from shared_metrics.errors import UserError
from shared_metrics.interrupts import Stopped
from shared_metrics.process import launched, rank, world_size

PARENT = os.getppid()  # the launcher, if there is one


class NotFinite(UserError):
    """Training or a checkpoint holds NaN or Inf."""


class StopSignals:
    """Turns SIGINT and SIGTERM into a flag that the loop reads after each step.

        with StopSignals() as stop:
            for iteration in ...:
                step()
                if signal_number := stop.requested():
                    save()
                    return 128 + signal_number

    The handlers of before are restored on leaving. A second Ctrl-C (without a launcher also a
    second SIGTERM) ends the process at once.
    Attributes: interrupting, whether a signal raises Stopped instead, see `interrupt`; failed, the
        highest rank that told `requested` of an error, or None.
    """

    def __init__(self):
        self.interrupting = False
        self.failed = None
        self._signal = 0
        self._group = None

    def __enter__(self):
        self._before = {n: signal.signal(n, self._handle) for n in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            # Paddle does not retry a call to its store that a signal interrupts; the system does.
            signal.siginterrupt(number, False)
        if world_size() > 1:
            import paddle

            # Agree over gloo: no all-reduce on the card, no wait for it.
            if paddle.get_device() != "cpu":
                self._group = paddle.distributed.new_group(backend="gloo")
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        # paddle.distributed.launch sends SIGTERM up to three times in a row: there only Ctrl-C
        # means "now".
        if self._signal and (number == signal.SIGINT or not launched()):
            os._exit(128 + number)
        if not self._signal:
            # Not print: a handler may interrupt one, and its buffer cannot be entered twice.
            when = "" if self.interrupting else " after this step"
            os.write(2, f"\n{signal.Signals(number).name}: stopping{when}\n".encode())
        self._signal = int(number)
        if self.interrupting:
            self.interrupting = False
            raise Stopped(number)

    def interrupt(self):
        """From here on until `interrupting` is False again a signal raises Stopped, one that has
        come already at once: for long work that trains nothing.
        """
        if self._signal:
            raise Stopped(self._signal)
        self.interrupting = True

    def requested(self, failed=False):
        """The signal's number once one arrived, else 0.

        Args: failed, whether this rank has met an error, which then all know by `failed`.
        Every rank calls it after the same step and gets the same. Under paddle.distributed.launch a
        launcher that has gone counts as SIGTERM: it can no longer stop its ranks.
        """
        if launched() and os.getppid() != PARENT and not self._signal:
            self._signal = int(signal.SIGTERM)
        own = [self._signal, 1 + rank() if failed else 0]
        if world_size() > 1:
            import paddle

            flags = paddle.to_tensor(own, dtype="int32", place=paddle.CPUPlace())
            highest = paddle.distributed.ReduceOp.MAX
            paddle.distributed.all_reduce(flags, op=highest, group=self._group)
            own = flags.numpy().tolist()
        number, failed = own
        self.failed = failed - 1 if failed else None
        return number


def check_finite(losses, iteration, last_checkpoint):
    """Raise NotFinite when a loss is NaN or Inf.

    Args: losses, dict name -> float; iteration, the step they belong to; last_checkpoint, path of
        the last good checkpoint or None.
    """
    if all(math.isfinite(value) for value in losses.values()):
        return
    values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    last = "No checkpoint was saved yet"
    if last_checkpoint:
        last = f"The last good checkpoint is {last_checkpoint}"
    raise NotFinite(
        f"training diverged at iteration {iteration}: {values}. {last}; lower the learning rates."
    )


def weight_sums(**parameters):
    """{"weights of <name>": sum}, finite while every weight is; for `check_finite`.

    A loss may look well when a network is lost: Paddle's ReLU turns NaN to 0.
    Args: name=list of tensors, e.g. G=generator.parameters().
    """
    import paddle

    sums = {}
    with paddle.no_grad():
        for name, tensors in parameters.items():
            sums[f"weights of {name}"] = float(sum(p.sum() for p in tensors))
    return sums
