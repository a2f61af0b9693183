"""A scripted server on a real loopback socket.

Guarantees: it listens on the loopback interface only; it reads no more than `MAX_HEAD` bytes of a
request's head and `MAX_BODY` of its body; it ends with the block of `serve`, with all its
connections; and it notices at once when a client hangs up, whatever it is sending or waiting for.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from ..providers import Model, Provider
from ..providers._models import compatible
from ._events import NOT_YET, OK
from ._loopback_connection import Connection, ConnectionHandler, abort
from ._script import Answer, Script, Scripted, ServedRequest


class LoopbackServer(Scripted):
    """A running server, started by `serve`."""

    def __init__(self, script: Script, context: ssl.SSLContext | None) -> None:
        self.script: Script = script
        self.port: int = 0
        self.requests: list[ServedRequest] = []
        """All but the GET requests, in the order in which they arrived completely."""
        self.questions: list[ServedRequest] = []
        """The GET requests, in the same order."""
        self.connections: list[Connection] = []
        """Every connection ever made, oldest first."""
        self._context = context
        self._scopes: dict[Connection, trio.CancelScope] = {}
        self._changed = trio.Event()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``, or ``https://localhost:port`` with TLS."""
        scheme, host = ("https", "localhost") if self._context else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The address to use as a model's ``base_url``."""
        return f"{self.url}/v1"

    @property
    def bodies(self) -> list[Any]:
        """The decoded JSON of each of ``requests``."""
        return [request.json() for request in self.requests]

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._scopes)

    async def asked(self, count: int = 1) -> None:
        """Wait until ``count`` requests have arrived; GET requests do not count."""
        await trio.lowlevel.checkpoint()
        while len(self.requests) < count:
            await self._changed.wait()

    async def left_with(self, most: int = 0) -> None:
        """Wait until at most ``most`` connections are open."""
        await trio.lowlevel.checkpoint()
        while self.open > most:
            await self._changed.wait()

    def model(self, provider: Provider | None = None, **options: Any) -> Model:
        """Return a model at this server. ``options`` are those of `trio_minillm.compatible`."""
        made = compatible("test-model", **{"base_url": self.base_url, **options})
        return made if provider is None else msgspec.structs.replace(made, provider=provider)

    def disconnect(self) -> None:
        """Break every open connection at once, with a TCP reset unless TLS is used."""
        for scope in [*self._scopes.values()]:
            scope.cancel()

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve an accepted connection until it is closed; `serve` calls this.

        Raises what the function of a reply raises.
        """
        connection = Connection(number=len(self.connections), opened_at=trio.current_time())
        self.connections.append(connection)
        with trio.CancelScope() as scope:
            self._scopes[connection] = scope
            self._notify()
            handler = ConnectionHandler(
                connection, stream, self._context, self.script.next, self._arrived
            )
            try:
                await handler.run()
            finally:
                if scope.cancel_called:
                    abort(stream)
                stream.socket.close()
                del self._scopes[connection]
                connection.closed_at = trio.current_time()
                connection.closed.set()
                self._notify()

    def _arrived(self, request: ServedRequest) -> None:
        (self.questions if request.asks_about else self.requests).append(request)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def serve(
    *replies: Answer,
    settlements: Sequence[Answer] = (),
    context: ssl.SSLContext | None = None,
    port: int = 0,
) -> AsyncIterator[LoopbackServer]:
    """Run a scripted server on 127.0.0.1 for the duration of a block.

    - ``replies`` answer the requests in order, and the last one answers all further requests. A
      reply may be a function of the request (`ServedRequest`).
    - ``settlements`` answer GET requests in the same way.
    - ``context`` turns on TLS.
    - ``port`` is the port; 0 lets the system choose one.

    An exception in the block, or in the function of a reply, propagates unchanged. Leaving the
    block breaks the open connections.

    With a mocked clock, use ``MockClock(autojump_threshold=0.02)``: bytes on a socket need a moment
    of real time, and a clock with a lower threshold would jump meanwhile.
    """
    server = LoopbackServer(Script(replies or (OK,), settlements or (NOT_YET,)), context)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    server.port = listeners[0].socket.getsockname()[1]
    failure: BaseException | None = None
    crashes: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            try:
                await server.handle(stream)
            except Exception as exc:  # noqa: BLE001 - raised below: it ends the block
                crashes.append(exc)
                nursery.cancel_scope.cancel()

        nursery.start_soon(
            partial(trio.serve_listeners, handle, listeners, handler_nursery=nursery)
        )
        try:
            yield server
        except BaseException as exc:  # noqa: BLE001 - raised below
            failure = exc
        nursery.cancel_scope.cancel()
    if crashes and isinstance(failure, Exception):
        raise ExceptionGroup("the block and the server's script both failed", [failure, crashes[0]])
    if crashes:
        raise crashes[0]
    if failure is not None:
        raise failure
