"""httpx's transport on Trio's sockets: HTTP/1.1, one buffer of body a read, an O(1) pool.

Guarantees: cancelled at any checkpoint, a request leaves no socket, no slot and no task behind.
A connection is given to one request at a time, and to another only if the response before was
whole and nothing came behind it. All changes of the pool are synchronous.
"""

from __future__ import annotations

import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar, TypeVarTuple, Unpack

import httpx
import msgspec
import trio
from trio.lowlevel import checkpoint

from .connection import READ_BYTES, Connection, Origin
from .http1 import BadRequest, BadResponse, ResponseParser, body_length, head_of

MAX_IDLE = 256
"""Connections that are kept for later requests, in all; the oldest are closed first."""
KEEPALIVE_EXPIRY = 15.0
"""Seconds after which an idle connection is not used again. Servers close theirs after 5 (Node),
60 (load balancers) or 75 s (nginx); what they closed is noticed in any case."""
DIED_IDLE_SECONDS = 1.0
"""A connection that was used before and ends within this time after a request went out, without
a byte, was closed by the server before it saw the request: one silent retry on a new one."""

WRITE_BYTES = 64 * 1024
"""What must be sent within httpx's ``write`` timeout, where there is one."""
BODY = "trio_minillm.body"
"""The response's extension with its body, a `Roundtrip` or what wraps one: to be read without the
generators that httpx puts around it, by its ``receive`` and ``aclose``."""

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")
Trace: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[None]]

_PORTS = {"http": 80, "https": 443}
_Seconds: TypeAlias = "float | None"


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport holds, and what it has done so far."""

    active: int
    """Connections that a request is using."""
    idle: int
    waiting: int
    """Requests that wait for a slot (only with ``max_connections``)."""
    opened: int
    """Connections ever made."""
    reused: int
    """Requests that went out on a connection that was there."""
    retried: int
    """Requests sent again since their connection had died idle."""


class _Pool:
    """Idle connections by origin, newest used first; every operation is O(1)."""

    def __init__(self, limit: int, expiry: float) -> None:
        self._limit = limit
        self._expiry = expiry
        self._all: OrderedDict[Connection, None] = OrderedDict()  # oldest first
        self._by_origin: dict[Origin, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def take(self, origin: Origin) -> Connection | None:
        """The connection that was used last and still can be."""
        self._expire()
        while there := self._by_origin.get(origin):
            connection, _ = there.popitem()
            del self._all[connection]
            if not there:
                del self._by_origin[origin]
            if connection.usable():
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        """A connection has nothing to do."""
        connection.idle_since = trio.current_time()
        self._all[connection] = None
        self._by_origin.setdefault(connection.origin, {})[connection] = None
        self._expire()

    def shrink(self, limit: int) -> None:
        """Close the oldest, until so many are left."""
        while len(self._all) > max(limit, 0):
            oldest = next(iter(self._all))
            self._remove(oldest)
            oldest.close()

    def _expire(self) -> None:
        self.shrink(self._limit)
        before = trio.current_time() - self._expiry
        while self._all and (oldest := next(iter(self._all))).idle_since <= before:
            self._remove(oldest)
            oldest.close()

    def _remove(self, connection: Connection) -> None:
        del self._all[connection]
        there = self._by_origin[connection.origin]
        del there[connection]
        if not there:
            del self._by_origin[connection.origin]


class TrioTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 for an ``httpx.AsyncClient`` under Trio; the default of `open_client`.

    ``verify`` is httpx's: True for its certificates, an ``ssl.SSLContext`` for others
    (``truststore.SSLContext`` for the platform's), False for none. ``max_connections`` bounds the
    requests under way: more wait in line, first come, first served, and no clock of a request
    runs meanwhile. ``max_idle_connections`` are kept; one that was idle for ``keepalive_expiry``
    seconds is not used again, and closed when the pool is next used.

    httpx's own ``timeout`` extension is heeded. No proxies and no HTTP/2: those are
    ``httpx.AsyncHTTPTransport``'s.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        max_connections: int | None = None,
        max_idle_connections: int = MAX_IDLE,
        keepalive_expiry: float = KEEPALIVE_EXPIRY,
    ) -> None:
        self._verify = verify
        self._context: ssl.SSLContext | None = None
        self._max = max_connections
        self._slots = None if max_connections is None else trio.CapacityLimiter(max_connections)
        self._pool = _Pool(max_idle_connections, keepalive_expiry)
        self._active: set[Connection] = set()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._closed = False
        self._opened = self._reused = self._retried = 0

    def statistics(self) -> Statistics:
        """What it holds now, and has done so far."""
        waiting = self._slots.statistics().tasks_waiting if self._slots is not None else 0
        return Statistics(
            active=len(self._active),
            idle=len(self._pool),
            waiting=waiting,
            opened=self._opened,
            reused=self._reused,
            retried=self._retried,
        )

    async def aclose(self) -> None:
        """Close every connection, also those in use. A checkpoint."""
        self._closed = True
        self._pool.shrink(0)
        while self._active:
            self._active.pop().close()
        await checkpoint()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response's body is read as it is iterated. Raises httpx's errors."""
        self.check_open()
        exchange = Roundtrip(self, request)
        try:
            await exchange.start()
            return exchange.response()
        except BaseException:
            exchange.end()
            raise

    def check_open(self) -> None:
        """``RuntimeError`` once it is closed."""
        if self._closed:
            raise RuntimeError("the transport is closed")

    # -- for exchanges ---------------------------------------------------------------------

    async def _slot(self, exchange: Roundtrip) -> None:
        """A place among ``max_connections``; no clock runs while waiting for it."""
        if self._slots is None:
            return
        try:
            self._slots.acquire_on_behalf_of_nowait(exchange)
        except trio.WouldBlock:
            await exchange.trace("connection_pool.wait.started")
            await _within(
                exchange.seconds("pool"),
                httpx.PoolTimeout,
                self._slots.acquire_on_behalf_of,
                exchange,
            )
            exchange.has_slot = True
            await exchange.trace("connection_pool.wait.complete")
        exchange.has_slot = True

    def _idle(self, exchange: Roundtrip) -> Connection | None:
        """A connection to the origin that has nothing to do."""
        connection = self._pool.take(exchange.origin)
        if connection is not None:
            self._reused += 1
            self._active.add(connection)
        return connection

    async def _open(self, exchange: Roundtrip) -> Connection:
        """A new connection; whoever is cancelled here leaves none behind."""
        scheme, host, port = exchange.origin
        if self._max is not None:
            self._pool.shrink(self._max - len(self._active) - 1)
        try:
            stream = await trio.open_tcp_stream(host, port)  # happy eyeballs, TCP_NODELAY
        except (OSError, UnicodeError) as exc:  # UnicodeError: no name that DNS could have
            raise httpx.ConnectError(str(exc)) from exc
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        connection = Connection(exchange.origin, sock, self._buffer)
        self._opened += 1
        self._active.add(connection)
        try:
            self.check_open()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if scheme == "https":
                if self._context is None:
                    self._context = httpx.create_ssl_context(verify=self._verify)
                    if not isinstance(self._verify, ssl.SSLContext):
                        self._context.set_alpn_protocols(["http/1.1"])
                await connection.start_tls(self._context, exchange.server_name(host))
        except BaseException as exc:
            self._drop(connection)
            if isinstance(exc, OSError | ValueError):
                raise httpx.ConnectError(str(exc)) from exc
            raise
        return connection

    def _drop(self, connection: Connection) -> None:
        self._active.discard(connection)
        connection.close()

    def _release(self, exchange: Roundtrip, connection: Connection | None, keep: bool) -> None:
        """An exchange is over. Synchronous, so that it is never half done."""
        if connection is not None:
            if keep and not self._closed:
                self._active.discard(connection)
                self._pool.put(connection)
            else:
                self._drop(connection)
        if exchange.has_slot and self._slots is not None:
            exchange.has_slot = False
            self._slots.release_on_behalf_of(exchange)


class Roundtrip(httpx.AsyncByteStream):
    """One request and its response, whose body it is: an iterator that is no generator."""

    def __init__(self, transport: TrioTransport, request: httpx.Request) -> None:
        self._transport = transport
        self._request: httpx.Request | None = request
        self._no_body = request.method == "HEAD"
        self._extensions: Mapping[str, Any] = request.extensions
        self._timeout: Mapping[str, _Seconds] = request.extensions.get("timeout") or {}
        self._connection: Connection | None = None
        self._parser = ResponseParser()
        self._body: bytes | None = None  # all of the request's, once it is known to be one piece
        self._early = False  # the response came before the whole request was out
        self.has_slot = False
        url = request.url
        if url.scheme not in _PORTS or not url.host:
            raise httpx.UnsupportedProtocol(f"no transport for {url.scheme or 'no scheme'}://")
        host = url.raw_host.decode("ascii")
        self.origin: Origin = (url.scheme, host, url.port or _PORTS[url.scheme])
        try:
            method = request.method.encode("ascii")
            target = request.extensions.get("target", url.raw_path)
            self._head = head_of(method, target, request.headers.raw)
            self._length = body_length(request.headers.raw)
            self._closes = "close" in request.headers.get("connection", "").lower()
        except (BadRequest, UnicodeEncodeError) as exc:
            raise httpx.LocalProtocolError(str(exc)) from exc

    def seconds(self, clock: str) -> _Seconds:
        """What httpx's timeout says for a clock."""
        return self._timeout.get(clock)

    def server_name(self, host: str) -> str:
        """What the certificate must say."""
        name: str = self._extensions.get("sni_hostname") or host
        return name

    async def trace(self, event: str) -> None:
        """Tell whoever wants to know how far it is."""
        trace: Trace | None = self._extensions.get("trace")
        if trace is not None:
            await trace(event, {})

    # -- the request -----------------------------------------------------------------------

    async def start(self) -> None:
        """Send the request and wait for the response's head."""
        await self._transport._slot(self)
        self._transport.check_open()
        connection = self._connection = self._transport._idle(self)
        if connection is not None:
            sent_at = trio.current_time()
            try:
                await self._roundtrip(connection)
                return
            except (httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError):
                soon = trio.current_time() - sent_at <= DIED_IDLE_SECONDS
                if self._parser.begun or not soon or self._body is None:
                    raise
            self._connection = None
            self._transport._drop(connection)
            self._transport._retried += 1
        await self.trace("connection.connect_tcp.started")
        self._connection = await _within(
            self.seconds("connect"), httpx.ConnectTimeout, self._transport._open, self
        )
        await self.trace("connection.connect_tcp.complete")
        await self._roundtrip(self._connection)

    async def _roundtrip(self, connection: Connection) -> None:
        self._early = False
        self._parser = parser = ResponseParser(no_body=self._no_body)
        await self._send(connection)
        await self.trace("http11.send_request_body.complete")
        while not parser.head:
            await self._read(connection)

    async def _send(self, connection: Connection) -> None:
        """Head and body; the first piece of the body goes out with the head."""
        if self._body is not None:  # for the second time
            await self._put(connection, self._head + self._body)
            return
        length, waiting, count = self._length, self._head, 0
        assert self._request is not None
        assert isinstance(self._request.stream, httpx.AsyncByteStream)
        pieces = aiter(self._request.stream)
        try:
            async for piece in pieces:
                count += len(piece)
                # What is one piece can be sent again; more would have to be kept.
                self._body = piece if count == len(piece) == length else None
                if length is not None and count > length:
                    raise httpx.LocalProtocolError("Too much data for declared Content-Length")
                data = piece if length is not None else b"%x\r\n%s\r\n" % (len(piece), piece)
                if piece and not await self._put(connection, waiting + data):
                    return
                waiting = b"" if piece else waiting
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        if length is not None and count < length:
            raise httpx.LocalProtocolError("Too little data for declared Content-Length")
        ending = b"0\r\n\r\n" if length is None else b""
        if waiting or ending:
            await self._put(connection, waiting + ending)
        if not length:
            self._body = b"" if length == 0 else None

    async def _put(self, connection: Connection, data: bytes) -> bool:
        """Send; False if a response came before all of it was out."""
        seconds = self.seconds("write")
        size = len(data) if seconds is None else WRITE_BYTES
        try:
            for start in range(0, len(data), size):
                part = data if size == len(data) else data[start : start + size]
                sent = await _within(
                    seconds, httpx.WriteTimeout, connection.send, part, self._parser
                )
                if not sent:
                    self._early = True
                    return False
        except OSError as exc:
            raise httpx.WriteError(str(exc)) from exc
        except BadResponse as exc:
            raise httpx.RemoteProtocolError(str(exc)) from exc
        return True

    # -- the response ----------------------------------------------------------------------

    def response(self) -> httpx.Response:
        """The response's head, with this as its body."""
        parser = self._parser
        headers, parser.headers = parser.headers, []
        # A stream of hours keeps nothing that it does not need; a prompt may be long.
        self._request = self._body = None
        self._head, self._extensions = b"", {}
        return httpx.Response(
            parser.status,
            headers=headers,
            stream=self,
            extensions={
                "http_version": b"HTTP/" + parser.version.encode(),
                # httpx logs it, and a server can say anything in it: the key, say.
                "reason_phrase": httpx.codes.get_reason_phrase(parser.status).encode(),
                BODY: self,
            },
        )

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.receive()
        if not data:
            raise StopAsyncIteration
        return data

    async def receive(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end. Cancelled, it has lost nothing."""
        while True:
            data = self._taken()
            if data is not None:
                return data
            assert self._connection is not None
            try:
                await self._read(self._connection)
            except httpx.TransportError:
                self.end()
                raise

    def receive_now(self) -> bytes | None:
        """As `receive`, of what is there; None if that is nothing of the body. One read."""
        connection = self._connection
        if connection is not None and not self._parser.pieces and not self._parser.complete:
            try:
                if not self._read_now(connection):
                    return None
            except httpx.TransportError:
                self.end()
                raise
        return self._taken()

    def _taken(self) -> bytes | None:
        """The body that was read but not handed out, ``b""`` at its end; None if there is none."""
        parser = self._parser
        data = parser.take()
        if parser.complete:
            self.end()
        return data if data or parser.complete or self._connection is None else None

    @property
    def silent(self) -> bool:
        """Whether nothing came that was not handed out: neither bytes nor an end nor a fault."""
        connection, parser = self._connection, self._parser
        if connection is None or parser.complete or parser.fault or connection.failure:
            return False
        return connection.silent

    @property
    def ended(self) -> bool:
        """Whether the connection has been given back, or closed."""
        return self._connection is None

    @property
    def unlimited(self) -> bool:
        """Whether no timeout of httpx's hangs on a read."""
        return self.seconds("read") is None

    def readable(self) -> Awaitable[None]:
        """Wait until `receive_now` has an answer. A checkpoint; cancelled, it has lost nothing.
        Raises ``OSError``, ``ValueError`` or `trio.ClosedResourceError` if the connection is gone.
        """
        connection, parser = self._connection, self._parser
        if connection is None or parser.complete or parser.fault or connection.failure:
            return checkpoint()  # noqa: ASYNC105 - the caller awaits it
        return connection.readable()

    async def _read(self, connection: Connection) -> None:
        """One read, fed to the parser. Raises httpx's errors."""
        seconds = self.seconds("read")
        while True:
            if not (self._parser.fault or connection.failure):
                try:
                    await _within(seconds, httpx.ReadTimeout, connection.wait)
                except OSError as exc:
                    raise httpx.ReadError(str(exc)) from exc
            if self._read_now(connection):
                return

    def _read_now(self, connection: Connection) -> bool:
        """The same of what is there; False if nothing is."""
        parser = self._parser
        try:
            if parser.fault:
                parser.check()
            there = connection.read_now(parser)
            if there is False:
                parser.feed_end()
        except OSError as exc:
            raise httpx.ReadError(str(exc)) from exc
        except BadResponse as exc:
            raise httpx.RemoteProtocolError(str(exc)) from exc
        return there is not None

    async def aclose(self) -> None:
        """Give the connection back if the response was whole, else close it. Does not wait."""
        self.end()

    def end(self) -> None:
        """The exchange is over. May be called more than once."""
        connection, self._connection = self._connection, None
        parser = self._parser
        keep = parser.complete and parser.reusable and not (self._early or self._closes)
        self._transport._release(self, connection, keep)


async def _within(
    seconds: _Seconds,
    error: type[httpx.TimeoutException],
    do: Callable[[Unpack[_Args]], Awaitable[_T]],
    *args: *_Args,
) -> _T:
    """Await it for so long at most, if there is a limit."""
    if seconds is None:
        return await do(*args)
    with trio.move_on_after(seconds):
        return await do(*args)
    raise error(f"timed out after {seconds:g} s")
