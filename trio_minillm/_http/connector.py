"""The choice of how a client's requests are sent: on our own connections, or through httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import httpx

from .exchange import Exchange
from .httpx_exchange import HttpxExchange, send_by_client, send_by_transport
from .pool import ConnectionPool
from .proxies import Proxies
from .routes import RoutedExchange, Routes
from .transport import TrioTransport
from .trio_exchange import TrioExchange

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
    client: httpx.AsyncClient | None = None, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Connector]:
    """Open what makes exchanges, for the length of a block.

    ============================== ===========================================================
    a client was brought           through httpx, by that client
    a `TrioTransport` was brought  on its connections
    another transport was brought  through httpx, by that transport
    none of these                  on connections of its own; for addresses that the environment
                                   names a proxy for, through httpx (`proxies`)
    ============================== ===========================================================

    What was brought is left open; what was opened here is closed with the block.
    """
    if client is not None:
        yield Connector(partial(HttpxExchange, partial(send_by_client, client)))
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


def _by_transport(transport: httpx.AsyncBaseTransport) -> Connect:
    # One that handles requests in its own way must be asked: a subclass, or what has replaced the
    # method, may do anything there.
    handler = getattr(transport.handle_async_request, "__func__", None)
    if isinstance(transport, TrioTransport) and handler is HANDLE_REQUEST:
        return partial(TrioExchange, transport.pool)
    return partial(HttpxExchange, partial(send_by_transport, transport))
