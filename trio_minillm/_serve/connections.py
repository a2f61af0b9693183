"""One connection of a client: requests are read by a task of its own, and sends never wait.

The sockets are the standard library's, and non-blocking: what a socket does not take at once goes to a
backlog with a bound, which another task sends, so that a client that does not read delays nobody else.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import trio

from ..testing._loopback_connection import MAX_PIPELINED, READ_BYTES, RequestReader
from ..testing._script import Reply, ServedRequest, wire

MAX_BACKLOG: Final = 1024 * 1024
"""Bytes that wait for a client which does not read; with more, its connection is reset."""


class Exchange(Protocol):
    """A request that is being answered."""

    def left(self) -> None:
        """Take note that the client has hung up."""
        ...


class Connection:
    """A connection; ``begin`` is called with each request when its turn has come."""

    def __init__(
        self,
        sock: socket.socket,
        number: int,
        begin: Callable[[Connection, ServedRequest, float], Exchange | None],
        now: Callable[[], float],
    ) -> None:
        self._sock = sock
        self._sock_send = sock.send
        self._begin = begin
        self._now = now
        self._reader = RequestReader(number)
        self._waiting: deque[tuple[ServedRequest | Reply, float]] = deque()
        self._exchange: Exchange | None = None
        self._backlog = bytearray()
        self._writable = trio.Event()  # replaced each time: there is a backlog
        self._closing = False  # as soon as the backlog is sent
        self.closed = False
        self.gave_up = False
        """True if the client did not read, and was reset for it."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        """Read requests until one side hangs up."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_backlog)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self.close()

    async def _read(self) -> None:
        while not self.closed:
            with suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._sock)
            if self.closed:
                return
            try:
                data = self._sock.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        if self._closing:
            return
        at = self._now()
        refusal = self._reader.feed(data)
        self._waiting.extend((request, at) for request in self._reader.take())
        if refusal is not None:
            self._waiting.append((refusal, at))
        if len(self._waiting) > MAX_PIPELINED:
            self.reset()
        elif self._exchange is None:
            self._next()

    def _next(self) -> None:
        """Begin with the next request that waits, and with those behind it that are answered at once."""
        while self._waiting and self._exchange is None and not (self._closing or self.closed):
            request, at = self._waiting.popleft()
            if isinstance(request, Reply):
                self.send(b"".join(s for s in wire(request).steps if isinstance(s, bytes)))
                self.end()
            else:
                self._exchange = self._begin(self, request, at)

    def done(self, *, keep: bool) -> None:
        """Go on to the next request, or end the connection: the exchange is over."""
        self._exchange = None
        if keep:
            now = (
                self._now()
            )  # of a pipelined request the time runs from the end of the answer before it
            self._waiting = deque((request, now) for request, _ in self._waiting)
            self._next()
        else:
            self.end()

    def send(self, data: bytes) -> bool:
        """Send the data, or keep what the socket does not take. Returns False in the latter case.

        A client for which too much is kept is reset.
        """
        if self._backlog or self.closed:
            sent = 0
        else:
            try:
                sent = self._sock_send(data)
                if sent == len(data):
                    return True
            except BlockingIOError:
                sent = 0
            except OSError:
                self.reset()
                return False
        if not self.closed:
            self._backlog += data[sent:] if sent else data
            if len(self._backlog) > MAX_BACKLOG:
                self.gave_up = True
                self.reset()
            self._writable.set()
        return False

    @property
    def backlog(self) -> int:
        """The number of bytes that wait for the client."""
        return len(self._backlog)

    async def _send_backlog(self) -> None:
        while True:
            await self._writable.wait()
            self._writable = trio.Event()
            while self._backlog and not self.closed:
                with suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_writable(self._sock)
                try:
                    sent = 0 if self.closed else self._sock.send(self._backlog)
                except BlockingIOError:
                    continue
                except OSError:
                    self.reset()
                    break
                del self._backlog[:sent]
            if self._closing and not self.closed:
                self._shut()

    # -- the end -------------------------------------------------------------------------------

    def end(self) -> None:
        """Close in order, as soon as the backlog is sent. The client is still read until it hangs up."""
        if not self._closing:
            self._closing = True
            if not self._backlog:
                self._shut()

    def _shut(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        if not self.closed:
            with suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close()

    def close(self) -> None:
        """Close the socket. Whatever is being answered learns that the client is gone."""
        if self.closed:
            return
        self.closed = True
        self._backlog.clear()
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.left()
