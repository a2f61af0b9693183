"""Clients and transports of httpx2, which has httpx's interface but none of its classes.

Its requests, responses and errors are turned into httpx's of the same name, so that nothing behind here
knows of it. This module is imported only where a program brings one: httpx2 need not be installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import httpx2

from .exchange import Outgoing
from .failures import BAD_REDIRECT
from .httpx_exchange import in_pieces, trace_of

ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError)
"""Exceptions that httpx2 may raise for a request that failed."""


async def send_by_httpx2(client: httpx2.AsyncClient, request: Outgoing) -> httpx.Response:
    """Send a request by a client of httpx2's: with its headers, cookies, hooks and auth."""
    built = client.build_request(
        request.method,
        request.url,
        headers=dict(request.headers),
        content=request.body,
        timeout=None,
        extensions={"trace": trace_of(request.on_progress)},
    )
    built.stream = _Sent(in_pieces(request))
    try:
        return _received(await client.send(built, stream=True, follow_redirects=False))
    except httpx2.InvalidURL:  # the request's own was parsed before: it is a redirect's
        failure: Exception = httpx.RemoteProtocolError(BAD_REDIRECT)
    except ERRORS as exc:
        failure = as_httpx_error(exc)
    raise failure


class Httpx2Transport(httpx.AsyncBaseTransport):
    """A transport of httpx2's as one of httpx's."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request as it is. Raises httpx's errors."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        content: bytes | None = None
        with suppress(httpx.RequestNotRead):  # a transport may look at it
            content = request.content
        built = httpx2.Request(
            request.method,
            str(request.url),
            content=content,
            extensions=request.extensions,
        )
        built.headers = httpx2.Headers(request.headers.raw)  # without what it has added
        built.stream = _Sent(request.stream)
        try:
            return _received(await self._transport.handle_async_request(built))
        except ERRORS as exc:
            failure = as_httpx_error(exc)
        raise failure

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


class _Sent(httpx2.AsyncByteStream):
    """The body of a request."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)


def _received(response: httpx2.Response) -> httpx.Response:
    return httpx.Response(
        response.status_code,
        headers=response.headers.raw,
        stream=_Received(response),
        extensions=response.extensions,
    )


def received_by(response: httpx2.Response) -> httpx.Response:
    """Return a response that a program has got, not read yet or read whole, as httpx's."""
    if response.is_stream_consumed or response.is_closed:
        made = httpx.Response(response.status_code, headers=response.headers.raw, stream=_Gone())
        with suppress(httpx2.ResponseNotRead):
            kept = [(k, v) for k, v in response.headers.raw if k.lower() != b"content-encoding"]
            made = httpx.Response(response.status_code, headers=kept, content=response.content)
        made.is_stream_consumed = made.is_closed = True
    else:
        made = _received(response)
    with suppress(RuntimeError):  # it was made without a request
        asked = response.request
        made.request = httpx.Request(asked.method, str(asked.url), headers=asked.headers.raw)
    return made


class _Gone(httpx.AsyncByteStream):
    """The body of a response that somebody else has taken."""


class _Received(httpx.AsyncByteStream):
    """The body of a response as it is on the wire."""

    def __init__(self, response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        self._stream = response.stream
        self._close_response = response.aclose

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stream:
                yield piece
        except ERRORS as exc:
            failure = as_httpx_error(exc)
        else:
            return
        raise failure

    async def aclose(self) -> None:
        try:
            await self._close_response()
        except ERRORS as exc:
            failure = as_httpx_error(exc)
        else:
            return
        raise failure


def as_httpx_error(exc: Exception) -> Exception:
    """Return httpx's error for one of httpx2's, with what led to it."""
    names = (kind.__name__ for kind in type(exc).__mro__)
    kinds = (getattr(httpx, name, None) for name in names)
    found: type[Exception] = next(k for k in kinds if isinstance(k, type))
    made = found.__new__(found)
    Exception.__init__(made, str(exc))
    made.__cause__ = exc.__cause__ or exc.__context__
    return made
