"""A TCP connection under Trio, with or without TLS, that feeds a parser with what it reads.

Sockets are the operating system's own, not Trio's: `trio.SocketStream` passes through the scheduler
on every read, also where the bytes are there already, and a TLS stream returns one record at a
time. Cancellation is checked on every read, and other tasks get a turn whenever there is nothing to
read, and at least every `EAGER_READS` reads.

A request goes out in steps that do not wait, so that it can be sent by whoever waits for the
response, and a cancellation between two steps loses nothing.
"""

from __future__ import annotations

import select
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
SEND_BYTES = 256 * 1024
"""Bytes that one step of sending takes at most: 0.2 ms to encrypt, and little to hold twice."""

NOTHING = memoryview(b"")
_POLL = hasattr(select, "poll")  # Windows has none

CLOSED = "the transport was closed"
"""Message of the error of a read or write that was under way when its transport was closed."""

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port that a connection leads to."""
WaitFor: TypeAlias = Callable[[socket.socket], Awaitable[None]]
"""One of Trio's `trio.lowlevel.wait_readable` and `trio.lowlevel.wait_writable`."""


class Connection:
    """A connected socket, with TLS on it or without.

    Its 18 attributes are the socket, TLS on it, what is on its way through both, and what the pool
    notes of it.
    """

    __slots__ = (
        "_buffer",
        "_incoming",
        "_more",
        "_outgoing",
        "_poll",
        "_reads",
        "_records",
        "_rest",
        "_session_taken",
        "_sock",
        "_tls",
        "failure",
        "idle_since",
        "origin",
        "sending",
        "server_name",
        "spent",
        "taken_at",
    )

    def __init__(self, origin: Origin, sock: socket.socket, buffer: memoryview) -> None:
        self.origin: Origin = origin
        self.idle_since: float = 0.0
        """Time on Trio's clock at which the last response was complete; the pool keeps it."""
        self.taken_at: float = 0.0
        """Time at which it was taken from among the idle ones."""
        self.server_name: str = ""
        """Name that the server's certificate was checked for; empty without TLS."""
        self.failure: OSError | None = None
        """Error that the next read raises; it came behind bytes that were parsed already."""
        self.sending: bool = False
        """True if something is to be sent that the socket has not taken yet."""
        self.spent: bool = False
        """True once no other request may follow: one was cut off, or said that it is the last."""
        self._sock = sock
        self._poll: select.poll | None = None  # of `silent`, once it was asked
        self._buffer = buffer  # shared by all connections: nothing is left in it between reads
        self._more = False  # the next read may find something without waiting
        self._reads = 0
        self._rest = NOTHING  # of the request: it is neither encrypted nor sent
        self._records = NOTHING  # of TLS: they are not sent
        self._tls: ssl.SSLObject | None = None
        self._session_taken = False
        self._incoming: ssl.MemoryBIO
        self._outgoing: ssl.MemoryBIO

    async def start_tls(
        self, context: ssl.SSLContext, hostname: str, session: ssl.SSLSession | None = None
    ) -> None:
        """Shake hands, perhaps going on with an earlier ``session`` of the same context and host.

        Raises ``ssl.SSLError``, ``OSError``, or ``ValueError`` for a bad name.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=hostname, session=session
        )
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
            raise ConnectionError("the server speaks HTTP/2, which this transport does not")

    def take_session(self) -> ssl.SSLSession | None:
        """Return the TLS session, once, if another connection can go on with it. Servers send what
        that takes behind the handshake, with their first answer or before it.
        """
        if self._tls is None or self._session_taken:
            return None
        self._session_taken = True
        session = self._tls.session
        return session if session is not None and session.has_ticket else None

    # -- out -------------------------------------------------------------------------------

    def begin_sending(self, data: bytes) -> None:
        """Take the next bytes of the request, for `send_now`; those before must be out."""
        self._rest = memoryview(data)
        self.sending = bool(data or self._records)

    def send_now(self) -> bool:
        """Give the socket what it takes at once. Returns False if it takes nothing now.

        Raises ``OSError`` if the peer takes no more. It may have answered before it hung up.
        """
        if self._tls is None:
            waiting = self._rest
        else:
            if not self._records:
                if self._rest:
                    self._tls.write(self._rest[:SEND_BYTES])
                    self._rest = self._rest[SEND_BYTES:] or NOTHING
                # A read may have made TLS want to send something, too. It has its place between
                # two records, and nowhere else.
                self._records = memoryview(self._outgoing.read())
            waiting = self._records
        taken = True
        try:
            waiting = waiting[self._sock.send(waiting[:SEND_BYTES]) :]
        except (BlockingIOError, InterruptedError):
            taken = False
        if self._tls is None:
            self._rest = waiting or NOTHING
        else:
            self._records = waiting or NOTHING
        self.sending = bool(self._rest or self._records)
        return taken

    async def wait_to_send(self) -> None:
        """Wait until more can be sent. A checkpoint. Raises ``OSError``."""
        await _waited(wait_writable, self._sock)

    def stop_sending(self) -> None:
        """Send nothing more: the server would take another request for the rest of this one."""
        self._rest = self._records = NOTHING
        self.sending, self.spent = False, True

    async def _flush(self) -> None:
        """Send what TLS itself has to say."""
        while self._outgoing.pending or self._records:
            if not self.send_now():
                await self.wait_to_send()

    @property
    def _flushed(self) -> bool:
        return self._tls is None or not (self._outgoing.pending or self._records)

    # -- in --------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait until a read may find something. A checkpoint. Raises ``OSError``."""
        if self._tls is not None and not self._flushed:
            await self._flush()  # the answer to a change of keys
        self._reads += 1
        if self._more and self._reads % EAGER_READS:
            await checkpoint_if_cancelled()
            return
        try:  # as `_waited`, which would be another frame for as long as a stream waits
            await wait_readable(self._sock)
        except (trio.ClosedResourceError, ValueError) as exc:
            raise ConnectionError(CLOSED) from exc

    def readable(self) -> Awaitable[None]:
        """Wait as `wait` does, in fewer steps. Raises `trio.ClosedResourceError` or ``ValueError``
        for a connection that was closed.
        """
        if self._tls is not None and not self._flushed:
            return self.wait()
        return wait_readable(self._sock)  # noqa: ASYNC105 - the caller awaits it

    async def wait_to_read_or_send(self) -> None:
        """Wait until a read may find something, or more can be sent. A checkpoint."""

        async def wait(wait_for: WaitFor) -> None:
            with suppress(ConnectionError):  # closed: the next call says so
                await _waited(wait_for, self._sock)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, wait_readable)
            nursery.start_soon(wait, wait_writable)

    def read_now(self, parser: ResponseParser) -> bool | None:
        """Read once, without waiting, and feed the parser. Returns False at the connection's end,
        and None if nothing is there. Raises ``OSError`` and `BadResponse`.
        """
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
        if _POLL:  # an exception, which is the common case of the other way, takes as long as this
            if self._poll is None:
                if self._sock.fileno() < 0:
                    return False
                self._poll = select.poll()
                self._poll.register(self._sock, select.POLLIN)
            return not self._poll.poll(0)
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
            self._poll = None  # the number of its file may be another's from now on


async def _waited(wait_for: WaitFor, sock: socket.socket) -> None:
    try:
        await wait_for(sock)
    except (trio.ClosedResourceError, ValueError) as exc:  # ValueError: it was closed before
        raise ConnectionError(CLOSED) from exc
