"""The choice of how a client's requests are sent: on our own connections, or through httpx."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, TypeAlias

from .._types.checks import wrong_type
from .exchange import Exchange
from .pool import ConnectionPool
from .proxies import Proxies
from .trio_exchange import TrioExchange

if TYPE_CHECKING:
    from .brought import HTTPClient, HTTPTransport

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
    if client is not None or transport is not None:
        from .brought import connect_by

        yield Connector(connect_by(client, transport))
    elif proxies := Proxies():
        from .routes import RoutedExchange, Routes

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
        if value is None:
            continue
        import httpx

        # A program that brings something of httpx2's has imported it.
        packages = (httpx, sys.modules.get("httpx2") or httpx)
        kinds = tuple(getattr(package, name) for package in packages)
        if not isinstance(value, kinds):
            raise wrong_type(what, value, kinds[0], NoneType)
