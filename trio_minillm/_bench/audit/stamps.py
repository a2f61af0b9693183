"""Sockets that say when the kernel had received what is read from them.

On Linux ``SO_TIMESTAMPNS`` gives the time at which the newest segment of a read arrived. The time from
there to the read is the client's own lag: everything between is this program and the scheduler of the
machine. The sockets are below TLS.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..._batch.histogram import Histogram
from ..._http.proxies import Proxies
from ..._http.transport import TrioTransport

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

EVERY = 8
"""Reads of which one is stamped, once there are `FEW`."""
FEW = 1000
"""Reads that are all stamped."""
MAX_LAG = 60.0
"""Seconds of a lag that is believed: more is a step of the machine's clock, as is less than 0."""

_STAMP = 35
"""``SO_TIMESTAMPNS`` in Linux's headers (asm-generic), which Python does not name."""
_TIME = struct.Struct("@ll")
_SPACE = socket.CMSG_SPACE(_TIME.size) if hasattr(socket, "CMSG_SPACE") else 0


class Lags:
    """The lags of one client's reads."""

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self.known = False
        """True once a socket has been made that tells them."""
        self.reads = 0
        """Reads of such sockets."""
        self.times = Histogram()
        """Seconds of those that were stamped."""
        self._now = now

    def clear(self) -> None:
        """Begin anew."""
        self.reads, self.times = 0, Histogram()

    def due(self) -> bool:
        """Count a read, and return True if it is one of those that are stamped."""
        self.reads += 1
        return self.reads <= FEW or not self.reads % EVERY

    def add(self, received: int) -> None:
        """Add a read of what was received at this time, in nanoseconds of the system's clock."""
        lag = (self._now() - received) * 1e-9
        if -MAX_LAG < lag < MAX_LAG:
            self.times.add(max(0.0, lag))

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
    """A socket whose reads are stamped, every one or some."""

    lags: Lags

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Read as `socket.socket.recv_into` does, and add the lag."""
        lags = self.lags
        if not lags.due():
            return super().recv_into(buffer, nbytes, flags)
        count, ancillary, _, _ = self.recvmsg_into([buffer], _SPACE, flags)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _STAMP and len(data) == _TIME.size:
                seconds, nanoseconds = _TIME.unpack(data)
                lags.add(seconds * 1_000_000_000 + nanoseconds)
        return count


@asynccontextmanager
async def open_stamped_transport(lags: Lags) -> AsyncIterator[TrioTransport | None]:
    """Open a transport for `open_client`, whose reads tell their lags.

    It is None, for the client's own, where the environment names a proxy: this one would use none.
    """
    if Proxies():
        yield None
        return
    transport = TrioTransport()
    transport.pool.wrap = lags.wrap
    try:
        yield transport
    finally:
        await transport.aclose()
