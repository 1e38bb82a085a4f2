"""HTTP with an end: a server that sends a byte now and then, headers included, is left in time."""

import functools
import http.client
import io
import time
import urllib.request


class TookTooLong(Exception):
    """The time for a whole transfer is over."""


class Opener:
    """Opens addresses as urllib does, redirects followed, until a moment for all of it.

    Args: timeout, seconds without a byte; deadline, of `time.monotonic`.
    """

    def __init__(self, timeout, deadline):
        self.timeout = timeout
        self.deadline = deadline
        self._opener = urllib.request.build_opener(_Http(self), _Https(self))

    def open(self, request):
        """The response. Raises: as urlopen; TookTooLong, which reading it may raise, too."""
        return self._opener.open(request, timeout=self.left())

    def hurry(self, deadline):
        """Let the transfer end earlier."""
        self.deadline = min(self.deadline, deadline)

    def left(self):
        """Seconds that may pass without a byte now. Raises: TookTooLong when the time is over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TookTooLong("it took too long; run again to go on from there")
        return min(self.timeout, left)

    def connection(self, kind, host, **how):
        """A connection of http.client whose responses keep to the deadline."""
        connection = kind(host, **how)
        connection.response_class = functools.partial(_Response, self)
        return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, opener):
        super().__init__()
        self.connection = functools.partial(opener.connection, http.client.HTTPConnection)

    def http_open(self, request):
        return self.do_open(self.connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, opener):
        super().__init__()
        self.connection = functools.partial(opener.connection, http.client.HTTPSConnection)

    def https_open(self, request):
        return self.do_open(self.connection, request, context=self._context)


class _Response(http.client.HTTPResponse):
    def __init__(self, opener, sock, *args, **how):
        super().__init__(sock, *args, **how)
        self.fp = io.BufferedReader(_Stream(opener, sock, self.fp.detach()))


class _Stream(io.RawIOBase):
    """A socket's bytes, each wait no longer than what is left of the time."""

    def __init__(self, opener, sock, raw):
        self.opener = opener
        self.sock = sock
        self.raw = raw

    def readable(self):
        return True

    def readinto(self, buffer):
        self.sock.settimeout(self.opener.left())
        try:
            return self.raw.readinto(buffer)
        except TimeoutError:
            self.opener.left()  # is it the whole time that is over?
            raise

    def close(self):
        self.raw.close()
        super().close()
