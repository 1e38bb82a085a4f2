"""SIGTERM and Ctrl-C as an exception, so that what is open is closed and nothing half is left."""

import contextlib
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """SIGINT or SIGTERM came. Attributes: number; name, such as "SIGTERM"."""

    def __init__(self, number):
        super().__init__(number)
        self.number = int(number)
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def raising():
    """Context in which SIGINT and SIGTERM raise Stopped; a second one ends the process at once.

    What is ignored, as a background job's SIGINT, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in SIGNALS}
    for number in SIGNALS:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, _raise)
    try:
        yield
    finally:
        _set(before)


def _raise(number, frame):
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    raise Stopped(number)


@contextlib.contextmanager
def kept():
    """Context after which SIGINT and SIGTERM do what they did before: Paddle takes SIGTERM over
    when it is imported, for a banner, and Python does not know.
    """
    before = {n: signal.getsignal(n) for n in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            _set(before)


def _set(handlers):
    for number, handler in handlers.items():
        if handler is not None:  # None: not set by Python
            signal.signal(number, handler)
