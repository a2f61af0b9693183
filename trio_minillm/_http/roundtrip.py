"""One request and its response on a connection of the pool.

Guarantees: cancelled at any checkpoint, a request leaves no socket, no slot and no task behind. Its
connection goes to another request only if the request was sent, the response was whole, and nothing
came behind it. Errors are those of ``transport_errors``.

A server may answer before it has the whole request. What happens then:

=====================  ===========================================================================
what came              what becomes of the rest of the request
=====================  ===========================================================================
head of an error, or   is not sent (RFC 9112, 9.5); the response is read
of a redirect
head of a success      is sent while the response is read (`Roundtrip.receive`). A body that is
                       still being made is sent before `Roundtrip.start` returns, and up to
                       `AHEAD_BYTES` of the response are kept meanwhile
end of the connection  can't be sent; a response that came before is read
=====================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar, TypeVarTuple, Unpack

import msgspec
import trio
from trio.lowlevel import checkpoint

from .connection import Connection, Origin
from .http1 import (
    BadRequest,
    BadResponse,
    Headers,
    RequestHead,
    ResponseHead,
    ResponseParser,
    request_head,
)
from .pool import ConnectionPool
from .transport_errors import (
    ConnectTimeout,
    LocalProtocolError,
    PoolTimeout,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    TransportError,
    WriteTimeout,
)

DIED_IDLE_SECONDS = 1.0
"""Seconds after a request went out on a connection that was used before. If the connection ends
within this time without a byte, or with HTTP 408 as its last word (RFC 9110, 15.5.9), the server closed
it before it saw the request, which is then sent again, once and silently, on a new connection."""
AHEAD_BYTES = 1024 * 1024
"""Bytes of a response's body that are read while a request's body is still being made. A server that
sends more than this and the sockets hold, before it reads on, waits for ever: none is known."""

EAGER_SENDS = 16
"""Steps of sending in a row without waiting, after which other tasks get a turn: 4 MiB."""

CONNECTING = "connection.connect_tcp.started"
"""Trace event: a new connection is needed, and is being made or waits for its turn."""
SENDING = "http11.send_request_headers.started"
"""Trace event: the request goes out."""
SENT_MORE, SENT = "http11.send_request_body.progress", "http11.send_request_body.complete"
"""Trace events: more of the request is out, or all of it. The first is not one of httpcore's."""

Trace: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Async function that is told trace events; httpx's extension ``trace``."""

OnProgress: TypeAlias = Callable[[str], None]
"""Function that is told the transport's trace events: ``connection_pool.wait.started`` and
``….complete``, ``connection.…``, ``….send_request_headers.started`` unless all goes out at once,
``….send_request_body.complete``, and before that ``….progress`` whenever more was sent. On some
transports it is the last alone."""

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


def encode_head(method: str, target: bytes, headers: Headers) -> RequestHead:
    """Encode the head of a request. Raises `LocalProtocolError` for an unsafe one."""
    try:
        return request_head(method.encode("ascii"), target, headers)
    except (BadRequest, UnicodeEncodeError) as exc:
        raise LocalProtocolError(str(exc)) from exc


class WireRequest(msgspec.Struct, kw_only=True):
    """Everything that one request puts on the wire, and how long that may take."""

    origin: Origin
    head: RequestHead
    body: bytes | None = None
    """The whole body as it is sent, so that it can be sent twice; None while only `pieces` have it."""
    pieces: AsyncIterable[bytes] | None = None
    """The body as it is being made, if it is not known in advance."""
    no_body: bool = False
    """True if the response has no body, whatever its headers say: it answers HEAD."""
    server_name: str | None = None
    """Name that the certificate must have, if not the origin's host."""
    timeouts: Mapping[str, float | None] = {}
    """Seconds by the name of httpx's clocks: ``pool``, ``connect``, ``write``, ``read``."""
    trace: Trace | None = None
    on_progress: OnProgress | None = None

    def __repr__(self) -> str:
        return f"<request to {self.origin}>"  # the head has the key, the body the prompt

    async def tell(self, event: str) -> None:
        """Tell who wants to know about an event."""
        if self.on_progress is not None:
            self.on_progress(event)
        if self.trace is not None:
            await self.trace(event, {})


class Roundtrip:
    """A request that is sent by `start`, and then the body of its response.

    The body can be read by `receive`, or, where `direct` is true, by any task with `readable` and
    `receive_now`. `end` may be called at any time, and does not wait; it gives the connection back,
    which happens by itself where the body is read to its end.
    """

    __slots__ = (
        "_connection",
        "_has_slot",
        "_parser",
        "_pool",
        "_read_seconds",
        "_tell",
    )

    resumable: bool = True
    """True: a `receive` that was cancelled has lost nothing."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._has_slot = False
        self._connection: Connection | None = None
        self._parser: ResponseParser
        # Tells of a request that is sent while the response is read.
        self._tell: Callable[[str], Awaitable[None]] | None = None
        self._read_seconds: float | None = None

    # -- the request -----------------------------------------------------------------------

    async def start(self, request: WireRequest) -> ResponseHead:
        """Send the request and return the response's head, which may come before all is sent.

        Raises `TransportError`, ``RuntimeError`` if the pool was closed, and what the body's pieces
        or the trace function raise. Nothing of the request is kept, but for what is still to be
        sent.
        """
        pool = self._pool
        pool.check_open()
        self._read_seconds = request.timeouts.get("read")
        self._parser = ResponseParser(no_body=request.no_body)
        try:
            if not pool.take_slot(self):
                await self._wait_for_slot(request)
            self._has_slot = True
            connection = self._connection = pool.take(request.origin)
            if connection is not None:
                try:
                    await self._exchange_on(connection, request)
                    head = self._parser.take_head()
                    # One that has waited for a request for too long answers none.
                    tired = head.status == 408 and not self._parser.reusable
                    if not (tired and self._may_repeat(connection, request)):
                        return head
                except (ReadError, RemoteProtocolError):
                    if self._parser.begun or not self._may_repeat(connection, request):
                        raise
                self._connection = None
                pool.drop_dead(connection)
                self._parser = ResponseParser(no_body=request.no_body)
            await self._exchange_on(await self._connected(request), request)
        except BaseException:
            self.end()
            raise
        return self._parser.take_head()

    async def _wait_for_slot(self, request: WireRequest) -> None:
        await request.tell("connection_pool.wait.started")
        await _within(request.timeouts.get("pool"), PoolTimeout, self._pool.wait_for_slot, self)
        self._has_slot = True  # at once: telling of it may fail, or be cancelled
        await request.tell("connection_pool.wait.complete")
        self._pool.check_open()

    async def _connected(self, request: WireRequest) -> Connection:
        """Return a new connection to the request's origin."""
        await request.tell(CONNECTING)
        if request.timeouts:
            opened = self._opened_in_time(request)
        else:
            opened = self._pool.open(request.origin, request.server_name, request.tell)
        connection = self._connection = await opened
        await request.tell("connection.connect_tcp.complete")
        return connection

    async def _opened_in_time(self, request: WireRequest) -> Connection:
        clock = _ConnectClock(request)
        with clock.scope:
            return await self._pool.open(request.origin, request.server_name, clock.tell)
        raise clock.error()

    @staticmethod
    def _may_repeat(connection: Connection, request: WireRequest) -> bool:
        """Return whether a connection ended so soon that it had ended before the request went out."""
        soon = trio.current_time() - connection.taken_at <= DIED_IDLE_SECONDS
        return soon and request.body is not None

    async def _exchange_on(self, connection: Connection, request: WireRequest) -> None:
        """Send the request and read the response's head."""
        if request.body is None:
            await request.tell(SENDING)
            await self._put_pieces(connection, request)
        else:
            connection.begin_sending(request.head.data + request.body)
            # Almost always all of it goes out at once, and nobody needs to know that it began to.
            at_once = request.trace is None and self._send_now(connection)
            if not at_once or connection.sending:
                await request.tell(SENDING)
                await self._push(connection, request, last=True)
        connection.spent = connection.spent or request.head.closes
        if connection.sending:
            self._tell = request.tell
            return  # the head is here
        if request.trace is not None:
            await request.tell(SENT)
        elif request.on_progress is not None:  # in a step less, which each request takes
            request.on_progress(SENT)
        while not self._parser.head:
            await self._read(connection)

    async def _put_pieces(self, connection: Connection, request: WireRequest) -> None:
        """Send head and body; the first piece of the body goes out with the head."""
        length, waiting, count = request.head.length, request.head.data, 0
        assert request.pieces is not None
        pieces = aiter(request.pieces)
        try:
            async for piece in pieces:
                count += len(piece)
                # A body of one piece can be sent again; to keep more could take any memory.
                request.body = piece if count == len(piece) == length else None
                if length is not None and count > length:
                    raise LocalProtocolError("Too much data for declared Content-Length")
                data = piece if length is not None else b"%x\r\n%s\r\n" % (len(piece), piece)
                if piece and not await self._put(
                    connection, request, waiting + data, last=count == length
                ):
                    return
                waiting = b"" if piece else waiting
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        if length is not None and count < length:
            raise LocalProtocolError("Too little data for declared Content-Length")
        ending = b"0\r\n\r\n" if length is None else b""
        if waiting or ending:
            await self._put(connection, request, waiting + ending, last=True)
        if not length:
            request.body = b"" if length == 0 else None

    async def _put(
        self, connection: Connection, request: WireRequest, data: bytes, *, last: bool
    ) -> bool:
        """Send the bytes. Returns False if nothing is to be sent behind them: the peer takes no
        more, it has refused, or these are the ``last``, and the rest of them goes out later.
        """
        connection.begin_sending(data)
        return await self._push(connection, request, last=last)

    async def _push(self, connection: Connection, request: WireRequest, *, last: bool) -> bool:
        """Send what the connection has taken, as `_put` does."""
        parser, seconds = self._parser, request.timeouts.get("write")
        moved_at, steps = trio.current_time(), 0
        while connection.sending:
            if self._send_now(connection):
                moved_at, steps = trio.current_time(), steps + 1
                if connection.sending:
                    await request.tell(SENT_MORE)
                if not steps % EAGER_SENDS:
                    await checkpoint()
                continue
            left = None if seconds is None else moved_at + seconds - trio.current_time()
            full = sum(map(len, parser.pieces)) >= AHEAD_BYTES
            wait = connection.wait_to_send if full else connection.wait_to_read_or_send
            await _within(left, WriteTimeout, wait)
            if not full and self._read_now(connection) and parser.head:
                if not 200 <= parser.status < 300:
                    connection.stop_sending()
                elif last:
                    return False
                elif parser.complete or parser.fault:
                    connection.stop_sending()
        return not connection.spent

    def _send_now(self, connection: Connection) -> bool:
        """Send without waiting. Returns False if the socket takes nothing now."""
        try:
            return connection.send_now()
        except OSError:  # the peer takes no more: it may have answered before
            connection.stop_sending()
            return True

    # -- the response's body ---------------------------------------------------------------

    async def receive(self) -> bytes:
        """Return the next bytes of the body, ``b""`` at its end. Cancelled, it has lost nothing.

        Raises `TransportError`.
        """
        while True:
            data = self._taken()
            if data is not None:
                return data
            assert self._connection is not None
            try:
                await self._read(self._connection)
            except TransportError:
                self.end()
                raise

    def receive_now(self) -> bytes | None:
        """Return what `receive` would, without waiting; None if nothing of the body is there.

        It reads once at the most. Raises `TransportError`.
        """
        connection = self._connection
        if connection is not None and not self._parser.pieces and not self._parser.complete:
            try:
                if not self._read_now(connection):
                    return None
            except TransportError:
                self.end()
                raise
        return self._taken()

    def readable(self) -> Awaitable[None]:
        """Wait until `receive_now` has an answer. A checkpoint; cancelled, it has lost nothing.

        Raises ``OSError``, ``ValueError`` or `trio.ClosedResourceError` if the connection is gone;
        `receive_now` says why.
        """
        connection, parser = self._connection, self._parser
        if connection is None or parser.complete or parser.fault or connection.failure:
            return checkpoint()  # noqa: ASYNC105 - the caller awaits it
        return connection.readable()

    @property
    def direct(self) -> bool:
        """True if any task may wait for the body: no timeout of httpx's must bound each read, and
        nothing is to be sent meanwhile.
        """
        return self._read_seconds is None and not self.sending

    @property
    def sending(self) -> bool:
        """True if the request is still being sent, which `receive` does."""
        return self._connection is not None and self._connection.sending

    @property
    def silent(self) -> bool:
        """True if nothing is left to hand out: neither bytes nor an end nor a fault."""
        connection, parser = self._connection, self._parser
        if connection is None or parser.complete or parser.fault or connection.failure:
            return False
        return connection.silent

    @property
    def ended(self) -> bool:
        """True once the connection was given back, or closed."""
        return self._connection is None

    def _taken(self) -> bytes | None:
        """Take the body that was read, ``b""`` at its end; None if more must be read first."""
        parser = self._parser
        data = parser.take()
        if parser.complete:
            self.end()
        return data if data or parser.complete or self._connection is None else None

    async def _read(self, connection: Connection) -> None:
        """Read once, waiting for it, and feed the parser."""
        seconds = self._read_seconds
        while True:
            wait = connection.wait
            if connection.sending:
                wait = connection.wait_to_read_or_send
                if self._send_now(connection) and self._tell is not None:
                    await self._tell(SENT_MORE if connection.sending else SENT)
            if not (self._parser.fault or connection.failure):
                try:
                    if seconds is None:
                        await wait()
                    else:
                        await _within(seconds, ReadTimeout, wait)
                except OSError as exc:
                    raise ReadError(str(exc)) from exc
            if self._read_now(connection):
                return

    def _read_now(self, connection: Connection) -> bool:
        """Read once and feed the parser. Returns False if nothing was there."""
        parser = self._parser
        try:
            if parser.fault:
                parser.check()
            there = connection.read_now(parser)
            if there is False:
                parser.feed_end()
        except OSError as exc:
            raise ReadError(str(exc)) from exc
        except BadResponse as exc:
            raise RemoteProtocolError(str(exc)) from exc
        return there is not None

    # -- the end ---------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End it as `end` does: without waiting, and without a checkpoint."""
        if self._connection is not None or self._has_slot:
            self.end()

    def end(self) -> None:
        """Give the connection back if the response was whole, else close it; give the slot back.

        Synchronous, so that it is never half done. May be called more than once.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            keep = self._pool.reusable(connection, self._parser)
            self._pool.release(connection, keep=keep)
            self._parser.close()
        if self._has_slot:
            self._has_slot = False
            self._pool.release_slot(self)


class _ConnectClock:
    """The time that a request may take to connect. It stands still while that waits for the pool, for as
    long as that may take.
    """

    def __init__(self, request: WireRequest) -> None:
        self._request = request
        self._waiting = False
        self._left = _seconds(request, "connect")
        self.scope = trio.CancelScope(deadline=trio.current_time() + self._left)

    async def tell(self, event: str) -> None:
        """Hand an event on, and stop or start the clock where it says so."""
        now, waits = trio.current_time(), event == "connection_pool.wait.started"
        if waits:
            self._waiting, self._left = True, self.scope.deadline - now
            self.scope.deadline = now + _seconds(self._request, "pool")
        elif event == "connection_pool.wait.complete":
            self._waiting, self.scope.deadline = False, now + self._left
        await self._request.tell(event)

    def error(self) -> TransportError:
        """Return the error of the clock that has run out."""
        name = "pool" if self._waiting else "connect"
        kind = PoolTimeout if self._waiting else ConnectTimeout
        return kind(_timed_out(_seconds(self._request, name)))


def _seconds(request: WireRequest, name: str) -> float:
    """Return a limit of the request's; infinite if it has none."""
    seconds = request.timeouts.get(name)
    return float("inf") if seconds is None else seconds


def _timed_out(seconds: float) -> str:
    return f"timed out after {seconds:g} s"


async def _within(
    seconds: float | None,
    error: type[TransportError],
    do: Callable[[Unpack[_Args]], Awaitable[_T]],
    *args: *_Args,
) -> _T:
    """Await it, for so many seconds at most if there is a limit; then raise the error."""
    if seconds is None:
        return await do(*args)
    with trio.move_on_after(seconds):
        return await do(*args)
    raise error(_timed_out(seconds))
