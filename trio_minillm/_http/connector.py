"""The choice of how a client's requests are sent: on our own connections, or through httpx."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, TypeAlias

import httpx

from .._types.checks import wrong_type
from .exchange import Exchange
from .httpx_exchange import HttpxExchange, send_by_client, send_by_transport
from .pool import ConnectionPool
from .proxies import Proxies
from .routes import RoutedExchange, Routes
from .transport import TrioTransport
from .trio_exchange import TrioExchange

if TYPE_CHECKING:
    import httpx2

HTTPClient: TypeAlias = "httpx.AsyncClient | httpx2.AsyncClient"
HTTPTransport: TypeAlias = "httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport"

HANDLE_REQUEST = TrioTransport.handle_async_request
"""The method as it was defined: a program may put another in its place, on a class or an object."""

Connect: TypeAlias = Callable[[], Exchange]
"""Function that makes an exchange for one request."""
CheckAddress: TypeAlias = Callable[[str], None]
"""Function that raises ``ValueError`` for an address to which no request can be sent."""


def any_address(address: str) -> None:
    """Take any address."""


class Connector:
    """Maker of exchanges; called, it makes one."""

    def __init__(self, connect: Connect, check: CheckAddress = any_address) -> None:
        self._connect = connect
        self.check: CheckAddress = check
        """Raises ``ValueError`` for an address whose proxy in the environment can't be used."""

    def __call__(self) -> Exchange:
        """Return an exchange for one request to any address."""
        return self._connect()


@asynccontextmanager
async def open_connector(
    client: HTTPClient | None = None, transport: HTTPTransport | None = None
) -> AsyncIterator[Connector]:
    """Open what makes exchanges, for the length of a block.

    ============================== ===========================================================
    a client was brought           through httpx (or httpx2), by that client
    a `TrioTransport` was brought  on its connections
    another transport was brought  through httpx (or httpx2), by that transport
    none of these                  on connections of its own; for addresses that the environment
                                   names a proxy for, through httpx (`proxies`)
    ============================== ===========================================================

    What was brought is left open; what was opened here is closed with the block.
    """
    if client is not None:
        yield Connector(_by_client(client))
    elif transport is not None:
        yield Connector(_by_transport(transport))
    elif proxies := Proxies():
        routes = Routes(ConnectionPool(), proxies)
        try:
            yield Connector(partial(RoutedExchange, routes), routes.check)
        finally:
            await routes.aclose()
    else:
        pool = ConnectionPool()
        try:
            yield Connector(partial(TrioExchange, pool))
        finally:
            pool.close()


def check_brought(client: object, transport: object) -> None:
    """Raise ``TypeError`` unless they are a client and a transport, of httpx's or of httpx2's."""
    for what, name, value in (
        ("http_client", "AsyncClient", client),
        ("transport", "AsyncBaseTransport", transport),
    ):
        # A program that brings something of httpx2's has imported it.
        packages = (httpx, sys.modules.get("httpx2") or httpx)
        kinds = tuple(getattr(package, name) for package in packages)
        if value is not None and not isinstance(value, kinds):
            raise wrong_type(what, value, kinds[0], NoneType)


def _by_client(client: HTTPClient) -> Connect:
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


def _by_transport(given: HTTPTransport) -> Connect:
    transport = as_httpx(given)
    # One that handles requests in its own way must be asked: a subclass, or what has replaced the
    # method, may do anything there.
    handler = getattr(transport.handle_async_request, "__func__", None)
    if isinstance(transport, TrioTransport) and handler is HANDLE_REQUEST:
        return partial(TrioExchange, transport.pool)
    return partial(HttpxExchange, partial(send_by_transport, transport))
