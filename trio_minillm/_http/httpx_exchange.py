"""Exchanges over httpx: any client or transport that the caller supplies, or that a proxy requires."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeAlias

import httpx
import trio

from .exchange import Body, Exchange, Outgoing, Response, log_response
from .failures import BAD_REDIRECT, foreign
from .roundtrip import SENT_MORE, OnProgress, Trace
from .transport import BODY, TrioBody, WholeBody

PIECES_IN_A_READ = 16_384
"""More HTTP chunks than can lie in one read of 64 KiB, since each takes 6 bytes at least."""
PIECE_BYTES = 64 * 1024
"""Bytes of a request's body that httpx is given at a time."""
CLOSE_SECONDS = 1.0
"""Seconds that closing a connection may take before it is left to the operating system."""

NO_HTTP2 = (
    "this HTTP client uses HTTP/2, over which httpx does not stop an answer that is left: "
    "create it without http2=True"
)
"""Words of the error for a connection on which HTTP/2 was agreed.

httpcore sends no ``RST_STREAM`` (encode/httpcore#943, closed as not planned). The server generates to
the end, and its stream counts for good in h2's limit of open ones, but not in httpcore's: of 300
answers, a third of them left, 200 failed with "Max outbound streams is 100, 100 open". Its bytes are
never acknowledged either, and after 16 MiB of them the whole connection stands still. Nothing public
resets a stream, and closing the connection would cut the answers beside it.
"""

_NO_TIMEOUT = httpx.Timeout(None).as_dict()  # all clocks are ours

Send: TypeAlias = Callable[[Outgoing], Awaitable[httpx.Response]]
"""Async function that sends a request and returns the response, whose body is still to be read:
`send_by_client` or `send_by_transport`, with the first argument given."""


class HttpxExchange(Exchange):
    """One request and its response through httpx."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send_by = send

    async def _send(self, request: Outgoing) -> Response:
        return _response(await self._send_by(request))


def _response(response: httpx.Response) -> Response:
    return Response(response.status_code, dict(response.headers.items()), _body_of(response))


# -- requests ------------------------------------------------------------------------------


async def send_by_client(client: httpx.AsyncClient, request: Outgoing) -> httpx.Response:
    """Send a request by a client of httpx's: with its headers, cookies, hooks and auth."""
    built = client.build_request(
        request.method,
        request.url,
        headers=dict(request.headers),
        content=request.body,
        timeout=None,
        extensions={"trace": trace_of(request.on_progress)},
    )
    built.stream = in_pieces(request)
    try:
        return await client.send(built, stream=True, follow_redirects=False)
    except httpx.InvalidURL:  # the request's own was parsed before: it is a redirect's
        raise httpx.RemoteProtocolError(BAD_REDIRECT) from None


async def send_by_transport(
    transport: httpx.AsyncBaseTransport, request: Outgoing
) -> httpx.Response:
    """Send a request by a transport of httpx's, as it is: with no header but those of HTTP added."""
    url, host = _parsed(request.url)
    built = httpx.Request(
        request.method,
        url,
        headers=request.all_headers(host),
        content=request.body,  # read at once, so that a transport may look at `content`
        extensions={"trace": trace_of(request.on_progress), "timeout": _NO_TIMEOUT},
    )
    built.stream = in_pieces(request)
    response = await transport.handle_async_request(built)
    status, reason = response.status_code, response.reason_phrase
    log_response(request.method, url, response.http_version, status, reason)
    return response


def trace_of(on_progress: OnProgress) -> Trace:
    """Return a trace function that passes events on, and ends a request before it is sent over
    HTTP/2.
    """

    async def tell(event: str, info: Mapping[str, Any]) -> None:
        if event in ("http2.send_connection_init.started", "http2.send_request_headers.started"):
            raise httpx.UnsupportedProtocol(NO_HTTP2)
        on_progress(event)

    return tell


def in_pieces(request: Outgoing) -> httpx.AsyncByteStream:
    """Return the body of a request, which tells how far it has come."""
    return _InPieces(request.body, request.on_progress)


async def send_through(transport: httpx.AsyncBaseTransport, request: Outgoing) -> Response:
    """Send a request as `send_by_transport` does, and return its response as this library's."""
    return _response(await send_by_transport(transport, request))


@lru_cache(maxsize=64)  # parsing takes httpx 20 µs, and a client asks few addresses
def _parsed(url: str) -> tuple[httpx.URL, bytes]:
    """Return the parsed URL, and the Host header's value."""
    parsed = httpx.URL(url)
    return parsed, parsed.netloc


class _InPieces(WholeBody):
    """The body of a request, which httpx takes piece by piece: that shows how far it has come.

    Iterated by a plain object: httpx's own iterator is an async generator, and a send that is
    cancelled leaves it to the garbage collector.
    """

    def __init__(self, data: bytes, on_progress: OnProgress) -> None:
        super().__init__(data)
        self._on_progress = on_progress

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Pieces(self.data, self._on_progress)


class _Pieces:
    """Async iterator of a body's pieces. Whoever asks for another has sent the one before."""

    def __init__(self, data: bytes, on_progress: OnProgress) -> None:
        self._rest = memoryview(data)
        self._on_progress = on_progress
        self._begun = False

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        piece = self._rest[:PIECE_BYTES]
        self._rest = self._rest[PIECE_BYTES:]
        if self._begun:
            self._on_progress(SENT_MORE)
        self._begun = True
        if not piece:
            raise StopAsyncIteration
        return bytes(piece)


# -- responses -----------------------------------------------------------------------------


def _body_of(response: httpx.Response) -> Body:
    """Return the body to read from: the innermost that can be reached.

    httpx's own iterators are more async generators around it, and the only thing that they add is
    decompression. With a body of ours, nothing keeps httpx's response and request, which are some
    4 KiB and a prompt: a stream may last for hours.
    """
    body = response.extensions.get(BODY)
    if isinstance(body, TrioBody):
        return body.roundtrip
    return _IteratedBody(response) if body is None else _WrappedBody(body)


class _HttpxBody:
    """A body that only the task of its stream can read."""

    resumable: bool = False
    direct: bool = False
    sending: bool = False
    silent: bool = False
    ended: bool = False

    def receive_now(self) -> bytes | None:
        raise NotImplementedError

    def readable(self) -> Awaitable[None]:
        raise NotImplementedError


class _WrappedBody(_HttpxBody):
    """A body of ours in another object (`testing.record`'s, say), which has ``receive`` as well."""

    resumable = True

    def __init__(self, body: Any) -> None:
        self._body = body

    async def receive(self) -> bytes:
        data: bytes = await self._body.receive()
        return data

    async def aclose(self) -> None:
        await self._body.aclose()


class _IteratedBody(_HttpxBody):
    """A body that is iterated, mostly by async generators of httpx's and httpcore's."""

    def __init__(self, response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._close_response = response.aclose
        self._pieces = aiter(response.stream)

    async def receive(self) -> bytes:
        try:
            while not (data := await anext(self._pieces)):
                pass  # an empty piece is not the end
        except StopAsyncIteration:
            self.ended = True
            return b""
        return data

    async def aclose(self) -> None:
        """Close it, shielded from cancellation, within `CLOSE_SECONDS`."""
        with trio.CancelScope(shield=True) as bound:
            bound.deadline = trio.current_time() + CLOSE_SECONDS
            with suppress(*foreign()):
                if not self.ended and isinstance(self._pieces, AsyncGenerator):
                    await self._unwind()
                await self._close_response()

    async def _unwind(self) -> None:
        """End the body's generators from the inside.

        httpx nests six async generators around the socket. Leaving the outermost abandons
        the others to the garbage collector (ResourceWarnings, clean-up in a foreign task). A
        read that is cancelled at the socket ends them all in order, so make one.
        """
        with trio.CancelScope() as scope, suppress(StopAsyncIteration, *foreign()):
            scope.cancel()
            for _ in range(PIECES_IN_A_READ):  # what was read already comes out first
                await anext(self._pieces)
