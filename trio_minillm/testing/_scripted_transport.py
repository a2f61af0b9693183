"""A scripted server without sockets: an httpx transport on Trio's clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import trio

from .._http.http1 import BadResponse, ResponseParser
from ._events import NOT_YET, OK
from ._script import (
    Answer,
    Forever,
    Reply,
    Script,
    Scripted,
    ServedRequest,
    Step,
    failure_of,
    hang,
    is_plain,
    wire,
)


class ScriptedTransport(Scripted, httpx.AsyncBaseTransport):
    """A server in memory: a transport that answers requests with scripted replies.

    - ``replies`` answer the requests in order, and the last one answers all further requests. A
      reply may be a function of the request (`ServedRequest`).
    - ``settlements`` answer cost lookups and requests that cancel a response, in the same way. The
      default is 404, which means "not known yet".

    ``requests`` are the requests for an answer, ``bodies`` their decoded JSON, and ``questions``
    all other requests. These include the GET requests that resume a response in the background
    (`resumable`), which get the next of the replies. ``open_bodies`` counts the responses that were
    started and not closed: 0 means that none has leaked.
    """

    def __init__(self, *replies: Answer, settlements: Sequence[Answer] = ()) -> None:
        self.script: Script = Script(replies or (OK,), settlements or (NOT_YET,))
        self.requests: list[httpx.Request] = []
        self.questions: list[httpx.Request] = []
        self.open_bodies: int = 0
        self.read_to_end: int = 0

    @property
    def bodies(self) -> list[Any]:
        """The decoded JSON of each of ``requests``."""
        return [json.loads(request.content) for request in self.requests]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the script, and report the trace event that httpx's own transport reports.

        Raises the script's ``error``, and ``httpx.RemoteProtocolError`` for a head that is not
        HTTP.
        """
        body = await request.aread()
        served = ServedRequest(
            method=request.method,
            target=request.url.raw_path.decode("ascii"),
            headers=dict(request.headers.items()),
            body=body,
        )
        chosen = self.script.next(served)
        (self.questions if served.asks_about else self.requests).append(request)
        trace = request.extensions.get("trace")
        await trio.lowlevel.checkpoint()
        if chosen.error is not None:
            raise chosen.error
        if trace is not None:
            await trace("http11.send_request_body.complete", {})
        if not isinstance(chosen.wait, int | float):
            await trio.sleep_forever()
        await trio.sleep(chosen.wait)
        if is_plain(chosen):
            self.open_bodies += 1
            return httpx.Response(
                chosen.status, headers=chosen.headers, stream=_Body(self, chosen.steps)
            )
        return await self._parsed(wire(chosen), no_body=request.method == "HEAD")

    async def _parsed(self, chosen: Reply, *, no_body: bool) -> httpx.Response:
        """Return the response that a client parses from the bytes of a connection."""
        body = _WireBody(self, chosen, ResponseParser(no_body=no_body))
        try:
            await body.read_head()
        except BadResponse as exc:
            raise httpx.RemoteProtocolError(str(exc)) from exc
        self.open_bodies += 1
        head = body.parser.take_head()
        version = {"http_version": b"HTTP/" + head.version.encode()}
        return httpx.Response(head.status, headers=head.headers, stream=body, extensions=version)


def _played(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        while isinstance(step, Forever):
            yield from step.steps
        yield step


class _Body(httpx.AsyncByteStream):
    """A body that is its own iterator: a generator would be left behind by a cancelled reader."""

    def __init__(self, transport: ScriptedTransport, steps: Sequence[Step]) -> None:
        self._transport = transport
        self._steps = _played(steps)
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for step in self._steps:
            if isinstance(step, bytes):
                await trio.lowlevel.checkpoint()
                return step
            await self._happen(step)
        await trio.lowlevel.checkpoint()
        if not self._closed:
            self._transport.read_to_end += 1
        raise StopAsyncIteration

    async def _happen(self, step: Step) -> None:
        if step is hang:
            await trio.sleep_forever()
        elif (failure := failure_of(step)) is not None:
            await trio.lowlevel.checkpoint()
            raise failure
        else:
            assert isinstance(step, int | float)
            await trio.sleep(step)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._transport.open_bodies -= 1
        await trio.lowlevel.checkpoint()


class _WireBody(_Body):
    """The body of a reply that consists of a connection's bytes, parsed as `TrioTransport` does."""

    def __init__(self, transport: ScriptedTransport, chosen: Reply, parser: ResponseParser) -> None:
        super().__init__(transport, chosen.steps)
        self._keep_alive = chosen.keep_alive
        self.parser = parser

    async def read_head(self) -> None:
        """Read up to the end of the head. Raises `BadResponse` if it is malformed."""
        while not self.parser.head:
            await self._feed()

    async def __anext__(self) -> bytes:
        parser = self.parser
        while not (data := parser.take()):
            await trio.lowlevel.checkpoint()
            if parser.complete:
                if not self._closed:
                    self._transport.read_to_end += 1
                raise StopAsyncIteration
            try:
                parser.check()
                await self._feed()
            except BadResponse as exc:
                raise httpx.RemoteProtocolError(str(exc)) from exc
        return data

    async def _feed(self) -> None:
        """Do one more step of the connection."""
        step = next(self._steps, None)
        if step is None:
            if self._keep_alive:
                await trio.sleep_forever()  # the connection stays open, and silent
            self.parser.feed_end()
        elif isinstance(step, bytes):
            await trio.lowlevel.checkpoint()
            self.parser.feed(step)
        elif isinstance(failure_of(step), httpx.RemoteProtocolError):
            await trio.lowlevel.checkpoint()
            self.parser.feed_end()
        else:
            await self._happen(step)
