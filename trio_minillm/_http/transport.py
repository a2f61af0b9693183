"""The transport as httpx sees it: a connection pool behind ``httpx.AsyncBaseTransport``."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import httpx
from trio.lowlevel import checkpoint

from .http1 import ResponseHead
from .pool import KEEPALIVE_EXPIRY, MAX_IDLE, ConnectionPool, Statistics
from .roundtrip import Roundtrip, WireRequest, encode_head
from .transport_errors import TransportError, in_httpx
from .urls import origin_of

BODY = "trio_minillm.body"
"""Name of the response extension that holds the body: a `TrioBody`, or an object that wraps one.
Its ``receive`` and ``aclose`` read and close it without the generators that httpx puts around it."""


class TrioTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 under Trio for an ``httpx.AsyncClient``; the default transport of `open_client`.

    - ``verify`` is as in httpx: True for its certificates, an ``ssl.SSLContext`` for others
      (``truststore.SSLContext`` for the platform's), and False for no verification.
    - ``max_connections`` is the largest number of concurrent requests. Others wait in order, and no
      clock of a request runs while it waits. The default is no limit.
    - ``max_idle_connections`` is the number of idle connections that are kept.
    - ``keepalive_expiry`` is the number of seconds after which an idle connection is no longer
      used. It is closed the next time the pool is used.

    The transport respects httpx's ``timeout`` extension. It uses no proxy.

    Raises ``TypeError`` for an invalid ``verify``, and ``ValueError`` for numbers that make no
    sense.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        max_connections: int | None = None,
        max_idle_connections: int = MAX_IDLE,
        keepalive_expiry: float = KEEPALIVE_EXPIRY,
    ) -> None:
        self.pool: ConnectionPool = ConnectionPool(
            verify=verify,
            max_connections=max_connections,
            max_idle_connections=max_idle_connections,
            keepalive_expiry=keepalive_expiry,
        )
        """The transport's connections; `open_client` sends its requests on them directly."""

    def statistics(self) -> Statistics:
        """Return the number of connections that the transport holds now, and its counts so far."""
        return self.pool.statistics()

    async def aclose(self) -> None:
        """Close all connections, including those in use. This is a checkpoint."""
        self.pool.close()
        await checkpoint()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. The body of the response is read as it is iterated. Raises httpx's
        errors.
        """
        self.pool.check_open()
        body = Roundtrip(self.pool)
        try:
            head = await body.start(_wire_request(request))
        except TransportError as exc:
            raise in_httpx(exc) from exc.__cause__
        return _response(head, TrioBody(body))


HANDLE_REQUEST = TrioTransport.handle_async_request
"""The method as it was defined: a program may put another in its place, on a class or an object."""


def _wire_request(request: httpx.Request) -> WireRequest:
    """Return what a request of httpx's puts on the wire. Raises `TransportError`."""
    origin = origin_of(request.url)
    extensions = request.extensions
    target = extensions.get("target", request.url.raw_path)
    body = request.stream
    assert isinstance(body, httpx.AsyncByteStream)
    head = encode_head(request.method, target, request.headers.raw)
    whole = body.data if isinstance(body, WholeBody) else None
    return WireRequest(
        origin=origin,
        head=head,
        body=whole if whole is not None and len(whole) == head.length else None,
        pieces=body,
        no_body=request.method == "HEAD",
        server_name=extensions.get("sni_hostname"),
        timeouts=extensions.get("timeout") or {},
        trace=extensions.get("trace"),
    )


def _response(head: ResponseHead, body: TrioBody) -> httpx.Response:
    return httpx.Response(
        head.status,
        headers=head.headers,
        stream=body,
        extensions={
            "http_version": b"HTTP/" + head.version.encode(),
            # httpx logs the phrase, and a server can put anything into its own: the key, say.
            "reason_phrase": httpx.codes.get_reason_phrase(head.status).encode(),
            BODY: body,
        },
    )


class WholeBody(httpx.AsyncByteStream):
    """A request's body that is known as a whole, so that it can be sent twice."""

    def __init__(self, data: bytes) -> None:
        self.data: bytes = data


class TrioBody(httpx.AsyncByteStream):
    """The body of a response as httpx iterates it; no generator, which could be left unfinished."""

    def __init__(self, roundtrip: Roundtrip) -> None:
        self.roundtrip: Roundtrip = roundtrip
        """The body itself, whose errors are not httpx's."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.receive()
        if not data:
            raise StopAsyncIteration
        return data

    async def receive(self) -> bytes:
        """Return the next bytes, ``b""`` at the end. Cancelled, it has lost nothing.

        Raises httpx's errors.
        """
        try:
            return await self.roundtrip.receive()
        except TransportError as exc:
            raise in_httpx(exc) from exc.__cause__

    async def aclose(self) -> None:
        """End the request."""
        self.roundtrip.end()
