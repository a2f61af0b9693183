"""A TCP connection under Trio, with or without TLS, that feeds a parser with what it reads.

Sockets are the operating system's own, not Trio's: `trio.SocketStream` passes through the scheduler
on every read, also where the bytes are there already, and a TLS stream returns one record at a
time. Cancellation is checked on every read, and other tasks get a turn whenever there is nothing to
read, and at least every `EAGER_READS` reads.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import trio
from trio.lowlevel import checkpoint_if_cancelled, wait_readable, wait_writable

from .http1 import ResponseParser

READ_BYTES = 64 * 1024
"""Bytes that one read takes at most. A socket holds more only while nobody reads from it."""
EAGER_READS = 16
"""Reads in a row without waiting, after which other tasks get a turn: 1 MiB at the most."""

CLOSED = "the transport was closed"
"""Message of the error of a read or write that was under way when its transport was closed."""

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port that a connection leads to."""
WaitFor: TypeAlias = Callable[[socket.socket], Awaitable[None]]
"""One of Trio's `trio.lowlevel.wait_readable` and `trio.lowlevel.wait_writable`."""


class Connection:
    """A connected socket, with TLS on it or without."""

    def __init__(self, origin: Origin, sock: socket.socket, buffer: memoryview) -> None:
        self.origin: Origin = origin
        self.idle_since: float = 0.0
        """Time on Trio's clock at which the last response was complete; the pool keeps it."""
        self.failure: OSError | None = None
        """Error that the next read raises; it came behind bytes that were parsed already."""
        self._sock = sock
        self._buffer = buffer  # shared by all connections: nothing is left in it between reads
        self._more = False  # the next read may find something without waiting
        self._reads = 0
        self._sending = False
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO
        self._outgoing: ssl.MemoryBIO

    async def start_tls(self, context: ssl.SSLContext, hostname: str) -> None:
        """Shake hands. Raises ``ssl.SSLError``, ``OSError``, or ``ValueError`` for a bad name."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.wait()
            with suppress(BlockingIOError, InterruptedError):
                count = self._sock.recv_into(self._buffer)
                if not count:
                    raise ConnectionError("the connection ended in the TLS handshake")
                self._incoming.write(self._buffer[:count])
        await self._flush()
        if self._tls.selected_alpn_protocol() == "h2":
            raise ConnectionError("the server was offered HTTP/2 and speaks it; this does not")

    # -- out -------------------------------------------------------------------------------

    async def send(self, data: bytes, parser: ResponseParser) -> bool:
        """Send all of it. Returns False if a response came first, or the peer takes no more."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        return await self._send(data, parser)

    async def _flush(self) -> None:
        if self._outgoing.pending and not self._sending:
            await self._send(self._outgoing.read(), None)

    async def _send(self, data: bytes, parser: ResponseParser | None) -> bool:
        rest = memoryview(data)
        # A read meanwhile may make TLS want to send something, too. It stays in `_outgoing` until
        # the next flush: in the middle of this record it would break the stream of records.
        self._sending = True
        try:
            while rest:
                try:
                    rest = rest[self._sock.send(rest) :]
                except (BlockingIOError, InterruptedError):
                    if not await self._sendable(parser):
                        return False
                except OSError:
                    if parser is None:
                        raise
                    return False  # it may have answered before it hung up
        finally:
            self._sending = False
        return True

    async def _sendable(self, parser: ResponseParser | None) -> bool:
        """Wait until more can be sent. Returns False if the whole head of a response came first."""
        if parser is None:
            await _waited(wait_writable, self._sock)
            return True
        ready = ""

        async def wait(way: str, wait_for: WaitFor) -> None:
            nonlocal ready
            with suppress(ConnectionError):  # closed: the next call says so
                await _waited(wait_for, self._sock)
            ready = ready or way
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "write", wait_writable)
            nursery.start_soon(wait, "read", wait_readable)
        return ready != "read" or (await self.read(parser) and not parser.head)

    # -- in --------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait until a read may find something. A checkpoint. Raises ``OSError``."""
        if self._tls is not None and self._outgoing.pending:
            await self._flush()  # the answer to a change of keys
        self._reads += 1
        if self._more and self._reads % EAGER_READS:
            await checkpoint_if_cancelled()
        else:
            await _waited(wait_readable, self._sock)

    def readable(self) -> Awaitable[None]:
        """Wait as `wait` does, in fewer steps. Raises `trio.ClosedResourceError` or ``ValueError``
        for a connection that was closed.
        """
        if self._tls is not None and self._outgoing.pending:
            return self.wait()
        return wait_readable(self._sock)  # noqa: ASYNC105 - the caller awaits it

    async def read(self, parser: ResponseParser) -> bool:
        """Read once and feed the parser. Returns False at the connection's end. A checkpoint.

        Raises ``OSError`` and `BadResponse`.
        """
        while True:
            if self.failure is None:
                await self.wait()
            there = self.read_now(parser)
            if there is not None:
                return there

    def read_now(self, parser: ResponseParser) -> bool | None:
        """Read as `read` does, without waiting. Returns None if nothing is there."""
        if self.failure is not None:
            raise self.failure
        try:
            count = self._sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            self._more = False
            return None
        # A read that does not fill the buffer has emptied the socket: another would find nothing.
        self._more = count == READ_BYTES
        if self._tls is None:
            if count:
                parser.feed(self._buffer[:count])
            return count > 0
        if not count:
            if parser.ends_with_connection:  # anybody on the way could have cut it there
                raise ConnectionError("the connection ended without TLS's close_notify")
            return False
        self._incoming.write(self._buffer[:count])
        return self._decrypt(self._tls, parser)

    def _decrypt(self, tls: ssl.SSLObject, parser: ResponseParser) -> bool:
        """Feed the parser with all complete records. Returns False if the peer sent its last."""
        fed = False
        try:
            while self._incoming.pending or tls.pending():
                data = tls.read(READ_BYTES)
                if not data:
                    return False
                parser.feed(data)
                fed = True
        except ssl.SSLWantReadError:
            pass  # half a record
        except ssl.SSLZeroReturnError:
            return False
        except ssl.SSLError as exc:
            if not fed:
                raise
            self.failure = exc  # what came before it is handed out first
        return True

    @property
    def silent(self) -> bool:
        """True if everything that came was read: neither bytes nor an end lie in the socket."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            pass
        return False

    # -- the end ---------------------------------------------------------------------------

    def usable(self) -> bool:
        """Return True if nothing came while it was idle: neither an end nor unrequested bytes."""
        self._more = False
        return self.silent

    def close(self) -> None:
        """Close it now, without TLS's close_notify. May be called more than once."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


async def _waited(wait_for: WaitFor, sock: socket.socket) -> None:
    try:
        await wait_for(sock)
    except (trio.ClosedResourceError, ValueError) as exc:  # ValueError: it was closed before
        raise ConnectionError(CLOSED) from exc
