"""One connection of the loopback server, which reads requests and sends replies step by step."""

from __future__ import annotations

import math
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress

import httptools
import msgspec
import trio

from .._http.failures import errors_named
from ._events import json_reply
from ._script import Forever, Reply, ServedRequest, Step, eof, half_close, hang, wire

MAX_HEAD = 64 * 1024
"""Bytes of a request's head; above, the answer is 431."""
MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request's body, for prompts with images; above, the answer is 413."""
MAX_PIPELINED = 64
"""Requests of one connection that may wait for their answer, so that memory is bounded; above, it
is closed."""
READ_BYTES = 64 * 1024
"""Bytes that one read of the socket brings, at most."""
LINGER_SECONDS = 1.0
"""Seconds that a refused client may go on sending before its connection is closed. Closed at once,
the unread bytes would turn the end into a reset, and the client might never see the refusal."""

_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError)
"""Exceptions of a socket whose other end is gone."""


class Connection(msgspec.Struct, kw_only=True, eq=False):
    """One connection, as the server saw it. Times are in seconds on Trio's clock."""

    number: int
    """The number of the connection, from 0."""
    opened_at: float
    """The time when it was accepted."""
    closed_at: float | None = None
    """The time when either side closed the socket; ``None`` while it is open."""
    left_at: float | None = None
    """The time when the client closed or reset the connection; ``None`` if it did not."""
    requests: int = 0
    """The number of requests that arrived on it."""
    closed: trio.Event = msgspec.field(default_factory=trio.Event)
    """Set with ``closed_at``."""
    left: trio.Event = msgspec.field(default_factory=trio.Event)
    """Set with ``left_at``."""


class ConnectionHandler:
    """The two tasks of a connection: one reads requests, the other answers them in order.

    ``choose`` returns the reply to a request. ``arrived`` is called with each complete request.
    """

    def __init__(
        self,
        connection: Connection,
        socket: trio.SocketStream,
        context: ssl.SSLContext | None,
        choose: Callable[[ServedRequest], Reply],
        arrived: Callable[[ServedRequest], None],
    ) -> None:
        self._connection = connection
        self._socket = socket
        self._stream: trio.abc.Stream = socket
        if context is not None:
            self._stream = trio.SSLStream(socket, context, server_side=True)
        self._choose = choose
        self._arrived = arrived
        send, receive = trio.open_memory_channel[ServedRequest | Reply](math.inf)
        self._incoming, self._waiting = send, receive
        self._reader = RequestReader(connection.number)
        self._ended = False  # by the server
        self._refused = False

    async def run(self) -> None:
        """Serve until one side hangs up. Raises what ``choose`` raises."""
        crash: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, nursery.cancel_scope)
            try:
                await self._answer()
            except _GONE:
                pass
            except Exception as exc:  # noqa: BLE001 - raised below, outside of the nursery's group
                crash = exc
            nursery.cancel_scope.cancel()
        if crash is not None:
            raise crash

    async def _read(self, scope: trio.CancelScope) -> None:
        """Read requests until the client hangs up, which cancels whatever is being sent to it."""
        while True:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except _GONE:
                data = b""
            if not data:
                break
            if self._refused:
                continue  # see LINGER_SECONDS
            refusal = self._reader.feed(data)
            for request in self._reader.take():
                self._connection.requests += 1
                self._arrived(request)
                self._incoming.send_nowait(request)
            if self._waiting.statistics().current_buffer_used > MAX_PIPELINED:
                scope.cancel()
            if refusal is not None:
                self._refused = True
                self._incoming.send_nowait(refusal)
        if self._ended:
            return
        self._connection.left_at = trio.current_time()
        self._connection.left.set()
        scope.cancel()

    async def _answer(self) -> None:
        async for request in self._waiting:
            if isinstance(request, Reply):
                chosen, bodiless = request, False
            else:
                chosen, bodiless = self._choose(request), request.method == "HEAD"
            if chosen.error is not None:
                abort(self._socket)
                return
            if not isinstance(chosen.wait, int | float):
                await trio.sleep_forever()
            await trio.sleep(chosen.wait)
            for step in wire(chosen).steps:
                if not await self._do(step):
                    return
                if bodiless and not chosen.raw:
                    break
            if self._refused and chosen is request:
                await self._socket.send_eof()
                await trio.sleep(LINGER_SECONDS)
            if not chosen.keep_alive:
                await self._end()
                return

    async def _do(self, step: Step) -> bool:
        """Do a step. Returns False if it was the connection's last."""
        if isinstance(step, bytes):
            await self._stream.send_all(step)
        elif isinstance(step, int | float):
            await trio.sleep(step)
        elif isinstance(step, Forever):
            while True:
                for inner in step.steps:
                    await self._do(inner)
        elif step is hang:
            await trio.sleep_forever()
        elif step is half_close:
            await self._socket.send_eof()
            await trio.sleep_forever()
        elif step is eof or isinstance(step, errors_named("RemoteProtocolError")):
            await self._end()
            return False
        else:
            abort(self._socket)
            return False
        return True

    async def _end(self) -> None:
        """Close the connection in order, with TLS's closing message if TLS is used."""
        self._ended = True
        await self._stream.aclose()


def abort(stream: trio.SocketStream) -> None:
    """Close the socket with a TCP reset, so that the client's next read fails."""
    with suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stream.socket.close()


def _refusal(status: int, message: str) -> Reply:
    return json_reply({"error": {"message": message}}, status=status, keep_alive=False)


class RequestReader:
    """A parser of the requests of the connection with this number, with bounds on their size."""

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._whole: list[ServedRequest] = []
        self._parser = httptools.HttpRequestParser(self)
        self._fault: Reply | None = None
        self.on_message_begin()

    def feed(self, data: bytes | bytearray) -> Reply | None:
        """Parse the next bytes. Returns a refusal if they are not an acceptable request."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return self._fault or _refusal(400, "this is not HTTP/1.1")
        if self._in_head:
            self._head += len(data)  # includes bytes that httptools holds back
            self._check()
        return self._fault

    def take(self) -> list[ServedRequest]:
        """Return the requests that were completed since the last call."""
        whole, self._whole = self._whole, []
        return whole

    def _check(self) -> None:
        if self._head > MAX_HEAD:
            self._fault = _refusal(431, f"the head has more than {MAX_HEAD:,} bytes")
        elif self._size > MAX_BODY:
            self._fault = _refusal(413, f"the body has more than {MAX_BODY:,} bytes")
            self._pieces.clear()

    # -- callbacks of httptools ------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._head = self._size = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        there = self._headers.get(key)
        self._headers[key] = text if there is None else f"{there}, {text}"

    def on_headers_complete(self) -> None:
        self._in_head = False

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        self._check()
        if self._fault is None:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._fault is None:
            self._whole.append(
                ServedRequest(
                    method=self._parser.get_method().decode("ascii"),
                    target=self._target.decode("latin-1"),
                    headers=self._headers,
                    body=b"".join(self._pieces),
                    connection=self._connection,
                )
            )
        self._in_head = True
        self._head = 0
