"""A scripted server on a real loopback socket, with every byte of its connections in its hand.

Guarantees: it listens on the loopback interface only; it reads no more than `MAX_HEAD` bytes of a
request's head and `MAX_BODY` of its body; nothing of it outlives the block of `serve`; and it
notices at once when a client hangs up, whatever it is saying or waiting for.
"""

from __future__ import annotations

import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import httptools
import httpx
import msgspec
import trio

from ..providers import Model, Provider
from ..providers._models import compatible
from ._events import NOT_YET, OK, json_reply
from ._script import (
    Answer,
    Forever,
    Reply,
    Script,
    Scripted,
    ServedRequest,
    Step,
    eof,
    half_close,
    hang,
    wire,
)

MAX_HEAD = 64 * 1024
"""Bytes of a request's head; above, the answer is 431."""
MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request's body, for prompts with pictures; above, the answer is 413."""
MAX_PIPELINED = 64
"""Requests of one connection that wait for their answer; above, it is closed."""
READ_BYTES = 64 * 1024
LINGER_SECONDS = 1.0
"""How long a client that was refused may go on sending before its connection is closed."""


class Connection(msgspec.Struct, kw_only=True, eq=False):
    """One connection, as the server saw it. Times are of Trio's clock, in seconds."""

    number: int
    opened_at: float
    closed_at: float | None = None
    """When the socket was closed, by whichever side; None while it is open."""
    left_at: float | None = None
    """When the client hung up: its end or its reset came; None if it did not."""
    requests: int = 0
    closed: trio.Event = msgspec.field(default_factory=trio.Event)
    """Set with ``closed_at``."""
    left: trio.Event = msgspec.field(default_factory=trio.Event)
    """Set with ``left_at``."""


class LoopbackServer(Scripted):
    """A running server; made by `serve`."""

    def __init__(self, script: Script, context: ssl.SSLContext | None) -> None:
        self.script: Script = script
        self.port: int = 0
        self.requests: list[ServedRequest] = []
        """All but the GET requests, in the order in which they were whole."""
        self.questions: list[ServedRequest] = []
        """The GET requests."""
        self.connections: list[Connection] = []
        """Every connection ever made, oldest first."""
        self._context = context
        self._scopes: dict[Connection, trio.CancelScope] = {}
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._crash: Exception | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``, or ``https://localhost:port`` with TLS."""
        scheme, host = ("https", "localhost") if self._context else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The address for a client's ``base_url``."""
        return f"{self.url}/v1"

    @property
    def bodies(self) -> list[Any]:
        """The JSON that each request carried."""
        return [request.json() for request in self.requests]

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._scopes)

    async def asked(self, count: int = 1) -> None:
        """Wait until so many requests have come, GET requests not counted."""
        await trio.lowlevel.checkpoint()
        while len(self.requests) < count:
            await self._changed.wait()

    async def left_with(self, most: int = 0) -> None:
        """Wait until no more than so many connections are open."""
        await trio.lowlevel.checkpoint()
        while self.open > most:
            await self._changed.wait()

    def model(self, provider: Provider | None = None, **options: Any) -> Model:
        """A model at this server; options as for `trio_minillm.compatible`."""
        made = compatible("test-model", **{"base_url": self.base_url, **options})
        return made if provider is None else msgspec.structs.replace(made, provider=provider)

    def disconnect(self) -> None:
        """Break every open connection, now, with a reset where there is no TLS."""
        for scope in [*self._scopes.values()]:
            scope.cancel()

    # -- inside ----------------------------------------------------------------------------

    def _failed(self, exc: Exception) -> None:
        """A function of the script has raised: that ends the block."""
        self._crash = self._crash or exc
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _serve(self, stream: trio.SocketStream) -> None:
        number, now = len(self.connections), trio.current_time()
        connection = Connection(number=number, opened_at=now)
        self.connections.append(connection)
        with trio.CancelScope() as scope:
            self._scopes[connection] = scope
            self._tell()
            try:
                await _Peer(self, connection, stream, self._context).run()
            except Exception as exc:  # noqa: BLE001 - it is raised by `serve`
                self._failed(exc)
            finally:
                if scope.cancel_called:
                    _abort(stream)
                stream.socket.close()
                del self._scopes[connection]
                connection.closed_at = trio.current_time()
                connection.closed.set()
                self._tell()


_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError)
"""What a socket raises whose other end is gone."""


class _Peer:
    """One connection: a task that reads requests, and one that answers them in their order."""

    def __init__(
        self,
        server: LoopbackServer,
        connection: Connection,
        socket: trio.SocketStream,
        context: ssl.SSLContext | None,
    ) -> None:
        self._server = server
        self._connection = connection
        self._socket = socket
        self._stream: trio.abc.Stream = socket
        if context is not None:
            self._stream = trio.SSLStream(socket, context, server_side=True)
        send, receive = trio.open_memory_channel[ServedRequest | Reply](math.inf)
        self._incoming, self._waiting = send, receive
        self._reader = _RequestReader(connection)
        self._ended = False  # by the server
        self._refused = False

    async def run(self) -> None:
        """Until one side hangs up. Raises what a reply's function raises."""
        crash: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, nursery.cancel_scope)
            try:
                await self._answer()
            except _GONE:
                pass
            except Exception as exc:  # noqa: BLE001 - raised as itself, outside of the nursery
                crash = exc
            nursery.cancel_scope.cancel()
        if crash is not None:
            raise crash

    async def _read(self, scope: trio.CancelScope) -> None:
        """Hand on what comes. The client's end cancels whatever is being said to it."""
        while True:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except _GONE:
                data = b""
            if not data:
                break
            if self._refused:
                continue  # unread bytes would turn the end into a reset
            refusal = self._reader.feed(data)
            for request in self._reader.take():
                asked = self._server
                (asked.questions if request.method == "GET" else asked.requests).append(request)
                self._connection.requests += 1
                asked._tell()
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
                chosen, bodiless = self._server.script.next(request), request.method == "HEAD"
            if chosen.error is not None:
                _abort(self._socket)
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
        """Do a step; False if it was the connection's last."""
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
        elif step is eof or isinstance(step, httpx.RemoteProtocolError):
            await self._end()
            return False
        else:
            _abort(self._socket)
            return False
        return True

    async def _end(self) -> None:
        """Hang up in good order, with TLS's word for it."""
        self._ended = True
        await self._stream.aclose()


def _abort(stream: trio.SocketStream) -> None:
    """Close the socket so that the client's next read fails: a TCP reset."""
    with suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stream.socket.close()


def _refusal(status: int, message: str) -> Reply:
    return json_reply({"error": {"message": message}}, status=status, keep_alive=False)


class _RequestReader:
    """Requests out of bytes, with bounds."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._whole: list[ServedRequest] = []
        self._parser = httptools.HttpRequestParser(self)
        self._fault: Reply | None = None
        self.on_message_begin()

    def feed(self, data: bytes | bytearray) -> Reply | None:
        """The next bytes; the answer to them if they are no request that can be taken."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return self._fault or _refusal(400, "this is not HTTP/1.1")
        if self._in_head:
            self._head += len(data)  # also what httptools holds back
            self._check()
        return self._fault

    def take(self) -> list[ServedRequest]:
        """The requests that are whole since the last call."""
        whole, self._whole = self._whole, []
        return whole

    def _check(self) -> None:
        if self._head > MAX_HEAD:
            self._fault = _refusal(431, f"the head has more than {MAX_HEAD:,} bytes")
        elif self._size > MAX_BODY:
            self._fault = _refusal(413, f"the body has more than {MAX_BODY:,} bytes")
            self._pieces.clear()

    # -- what httptools calls --------------------------------------------------------------

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
                    connection=self._connection.number,
                )
            )
        self._in_head = True
        self._head = 0


@asynccontextmanager
async def serve(
    *replies: Answer,
    settlements: Sequence[Answer] = (),
    context: ssl.SSLContext | None = None,
    port: int = 0,
) -> AsyncIterator[LoopbackServer]:
    """A server on 127.0.0.1 that answers by a script, for the length of a block.

    The n-th request gets the n-th of ``replies``, later ones the last; a reply may be a function
    of the request (`ServedRequest`). GET requests get ``settlements``. ``context`` is for TLS. An
    exception of the block comes out as itself, and so does one of a reply's function; leaving the
    block breaks the connections that are open.

    On a mocked clock give it ``MockClock(autojump_threshold=0.02)``: bytes on a socket need a
    moment of real time, in which an eager clock would jump.
    """
    server = LoopbackServer(Script(replies or (OK,), settlements or (NOT_YET,)), context)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    server.port = listeners[0].socket.getsockname()[1]
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        server._nursery = nursery
        nursery.start_soon(
            partial(trio.serve_listeners, server._serve, listeners, handler_nursery=nursery)
        )
        try:
            yield server
        except BaseException as exc:  # noqa: BLE001 - it is raised below
            failure = exc
        nursery.cancel_scope.cancel()
    crash = server._crash
    if crash is not None and isinstance(failure, Exception):
        raise ExceptionGroup("the block and the server's script both failed", [failure, crash])
    if crash is not None:
        raise crash
    if failure is not None:
        raise failure
