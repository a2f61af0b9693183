"""Sockets that say when the kernel had received what is read from them.

On Linux ``SO_TIMESTAMPNS`` gives the time at which the newest segment of a read arrived. The time from
there to the read is the client's own lag: everything between is this program and the scheduler of the
machine. It is told, and taken out of the times of contents (`Lags.at`): where a server sends to hundreds of
streams at once, they are read one after the other, and the last ones milliseconds after they came.

The sockets are below TLS. A read that brings several segments has the time of the newest one, so that a lag
must be shorter than the gap between contents to be taken out rightly; the audit sees to that.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from array import array
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..._batch.histogram import Histogram
from ..._http.proxies import Proxies

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from ..._http.transport import TrioTransport

MAX_READS = 10_000
"""Newest reads whose lags are known: more than a consumer is ever behind."""
NEAR = 0.1
"""Seconds from a read to the time of what is in it, at most: that is parsed in between, in a busy program
also by turns. An end that comes by a clock comes later (`DRAIN_SECONDS`)."""
TWICE = 0.00002
"""Seconds between the readings of two clocks from which on they are read again."""
TRIES = 3
"""Readings of the clocks, at most."""
MAX_LAG = 60.0
"""Seconds of a lag that is believed: more is a step of the machine's clock, as is less than 0."""

_STAMP = 35
"""``SO_TIMESTAMPNS`` in Linux's headers (asm-generic), which Python does not name."""
_TIME = struct.Struct("@ll")
_SPACE = socket.CMSG_SPACE(_TIME.size) if hasattr(socket, "CMSG_SPACE") else 0


class Lags:
    """The lags of one client's reads, in seconds."""

    def __init__(
        self,
        now: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.known = False
        """True once a socket has been made that tells them."""
        self.every = Histogram()
        """Those of all reads."""
        self.first = Histogram()
        """Those of the first read behind each request, which brings the response's beginning."""
        self.last = Histogram()
        """Those of the last read of each response."""
        self._now = now
        self._monotonic = monotonic
        self._reads = array("d")
        self._lags = array("d")

    def clear(self) -> None:
        """Begin anew."""
        self.every, self.first, self.last = Histogram(), Histogram(), Histogram()

    def of(self, received: int) -> float | None:
        """Return the lag of the read that was just made of what was received at this time, in nanoseconds
        of the system's clock; None if that clock was set meanwhile.
        """
        tries = 0
        while True:  # another process may have had its turn between the two clocks
            read, tries = self._monotonic(), tries + 1
            lag = (self._now() - received) * 1e-9
            if self._monotonic() - read < TWICE or tries == TRIES:
                break
        if not -MAX_LAG < lag < MAX_LAG:
            return None
        lag = max(0.0, lag)
        self._reads.append(read)
        self._lags.append(lag)
        if len(self._reads) > 2 * MAX_READS:
            del self._reads[:MAX_READS], self._lags[:MAX_READS]
        return lag

    def at(self, time: float) -> float:
        """Return the seconds from the kernel's receipt to this time of the monotonic clock, at which contents
        got theirs: the lag of the read just before it, since nothing else is read until then, and what
        lies between the two. It is 0 if there is none.
        """
        place = bisect_right(self._reads, time) - 1
        near = place >= 0 and time - self._reads[place] < NEAR
        return self._lags[place] + time - self._reads[place] if near else 0.0

    def wrap(self, sock: socket.socket) -> socket.socket:
        """Return the socket as one that tells its lags, or as it is where the system can't."""
        if not sys.platform.startswith("linux"):
            return sock
        try:
            sock.setsockopt(socket.SOL_SOCKET, _STAMP, 1)
        except OSError:
            return sock
        self.known = True
        made = StampedSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        made.setblocking(False)
        made.lags = self
        return made


class StampedSocket(socket.socket):
    """A socket that tells the lags of its reads."""

    lags: Lags
    begun = False
    """True once something was read behind what was sent last."""
    lag: float | None = None
    """The lag of the newest read."""

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Send as `socket.socket.send` does: what was read before it was the end of a response."""
        self._ended()
        return super().send(data, flags)

    def close(self) -> None:
        """Close as `socket.socket.close` does."""
        self._ended()
        super().close()

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Read as `socket.socket.recv_into` does, and add the lag."""
        count, ancillary, _, _ = self.recvmsg_into([buffer], _SPACE, flags)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _STAMP and len(data) == _TIME.size:
                seconds, nanoseconds = _TIME.unpack(data)
                self._read(self.lags.of(seconds * 1_000_000_000 + nanoseconds))
        return count

    def _read(self, lag: float | None) -> None:
        if lag is not None:
            lags = self.lags
            lags.every.add(lag)
            if not self.begun:
                lags.first.add(lag)
            self.begun, self.lag = True, lag

    def _ended(self) -> None:
        if self.begun and self.lag is not None:
            self.lags.last.add(self.lag)
        self.begun = False


@asynccontextmanager
async def open_stamped_transport(lags: Lags) -> AsyncIterator[TrioTransport | None]:
    """Open a transport for `open_client`, whose reads tell their lags.

    It is None, for the client's own, where the environment names a proxy: this one would use none.
    """
    if Proxies():
        yield None
        return
    from ..._http.transport import TrioTransport  # which imports httpx

    transport = TrioTransport()
    transport.pool.wrap = lags.wrap
    try:
        yield transport
    finally:
        await transport.aclose()
