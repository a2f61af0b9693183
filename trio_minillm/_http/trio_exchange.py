"""Exchanges on this library's own connections, with no request or response of httpx's in between.

For every request an httpx client parses the address, merges headers, and asks for auth, hooks,
cookies and redirects: 0.3 ms, a fifth of a short answer. None of it is wanted here. No cookie is
kept, either: one that came with a key must not go out with another.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import lru_cache

import msgspec

from .connection import Origin
from .exchange import (
    Exchange,
    Outgoing,
    Response,
    ignore_progress,
    log_response,
    logs_responses,
)
from .headers import ResponseHeaders
from .http1 import RequestHead
from .pool import ConnectionPool
from .roundtrip import Roundtrip, WireRequest, encode_head
from .transport_errors import LocalProtocolError
from .urls import URL, origin_of, parsed


class TrioExchange(Exchange):
    """One request and its response on a connection of a pool."""

    __slots__ = ("_pool",)

    waits = tells = True

    def __init__(self, pool: ConnectionPool) -> None:
        super().__init__()
        self._pool = pool

    def _send(self, request: Outgoing) -> Awaitable[Response]:
        return send_on(self._pool, request)


async def send_on(pool: ConnectionPool, request: Outgoing) -> Response:
    """Send a request on a connection of the pool. Raises one of `foreign`."""
    address = _address(request.url)
    roundtrip = Roundtrip(pool)
    head = await roundtrip.start(_wire_request(request, address))
    if logs_responses():
        log_response(request.method, address.url, f"HTTP/{head.version}", head.status)
    return Response(head.status, ResponseHeaders(head.lines), roundtrip)


class _Address(msgspec.Struct, frozen=True):
    """The parts of a URL that say where a request goes."""

    url: URL
    origin: Origin
    target: bytes
    """Path and query, as the request line has them."""
    host: bytes
    """The Host header's value."""


@lru_cache(maxsize=64)
def _address(url: str) -> _Address:
    parts = parsed(url)
    return _Address(parts, origin_of(parts), parts.raw_path, parts.netloc)


def _wire_request(request: Outgoing, address: _Address) -> WireRequest:
    size = len(request.body)
    try:
        parts = _head(request.method, request.url, _Headers(request.headers.items()))
    except TypeError:  # a value that is no text: what is wrong is said below
        parts = None
    if parts is not None:
        head = RequestHead(b"%s%d%s" % (parts.before, size, parts.behind), size, parts.closes)
    else:
        head = encode_head(request.method, address.target, request.all_headers(address.host))
    if head.length != size:  # a provider of the user's own says so
        much = head.length is not None and size > head.length
        raise LocalProtocolError(
            f"Too {'much' if much else 'little'} data for declared Content-Length"
        )
    return WireRequest(
        origin=address.origin,
        head=head,
        body=request.body,
        no_body=request.method == "HEAD",
        on_progress=request.on_progress,
    )


class _Headers(tuple[tuple[str, str], ...]):
    """Headers as a key of the cache. No ``repr`` of a traceback's variables shows them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<headers>"


class _Head(msgspec.Struct, frozen=True):
    """The head of a request but for the length of its body."""

    before: bytes
    behind: bytes
    closes: bool


@lru_cache(maxsize=64)  # the same for each request to a model, and a third of its way to the wire
def _head(method: str, url: str, headers: _Headers) -> _Head | None:
    """Return the head; None if the headers say where the body ends, or if there may be none."""
    bare = Outgoing(method, url, dict(headers), b"", ignore_progress)
    own = any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers)
    if own or not bare.has_body:
        return None
    address = _address(url)
    head = encode_head(method, address.target, bare.all_headers(address.host))
    before, length, behind = head.data.partition(b"\r\ncontent-length: ")
    return _Head(before + length, behind.removeprefix(b"0"), head.closes)
