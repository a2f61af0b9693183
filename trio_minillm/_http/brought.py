"""The ways through a client or a transport that a program brings, of httpx's or of httpx2's.

Whoever brings one has imported httpx or httpx2; this module is imported by nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import httpx

from .exchange import Exchange
from .httpx_exchange import HttpxExchange, send_by_client, send_by_transport
from .transport import HANDLE_REQUEST, TrioTransport
from .trio_exchange import TrioExchange

if TYPE_CHECKING:
    import httpx2

HTTPClient: TypeAlias = "httpx.AsyncClient | httpx2.AsyncClient"
HTTPTransport: TypeAlias = "httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport"


def connect_by(
    client: HTTPClient | None, transport: HTTPTransport | None
) -> Callable[[], Exchange]:
    """Return what makes exchanges through the client, or else through the transport."""
    if client is not None:
        return _by_client(client)
    assert transport is not None
    return _by_transport(transport)


def _by_client(client: HTTPClient) -> Callable[[], Exchange]:
    if isinstance(client, httpx.AsyncClient):
        return partial(HttpxExchange, partial(send_by_client, client))
    from .httpx2_bridge import send_by_httpx2

    return partial(HttpxExchange, partial(send_by_httpx2, client))


def as_httpx(transport: HTTPTransport) -> httpx.AsyncBaseTransport:
    """Return the transport as one of httpx's."""
    if isinstance(transport, httpx.AsyncBaseTransport):
        return transport
    from .httpx2_bridge import Httpx2Transport

    return Httpx2Transport(transport)


def _by_transport(given: HTTPTransport) -> Callable[[], Exchange]:
    transport = as_httpx(given)
    # One that handles requests in its own way must be asked: a subclass, or what has replaced the
    # method, may do anything there.
    handler = getattr(transport.handle_async_request, "__func__", None)
    if isinstance(transport, TrioTransport) and handler is HANDLE_REQUEST:
        return partial(TrioExchange, transport.pool)
    return partial(HttpxExchange, partial(send_by_transport, transport))
