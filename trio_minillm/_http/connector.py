"""The choice of how a client's requests are sent: on our own connections, or through httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeAlias
from urllib.request import getproxies

import httpx
import trio

from .exchange import Exchange
from .httpx_exchange import HttpxExchange, send_by_client, send_by_transport
from .pool import ConnectionPool
from .transport import TrioTransport
from .trio_exchange import TrioExchange

HANDLE_REQUEST = TrioTransport.handle_async_request
"""The method as it was defined: a program may put another in its place, on a class or an object."""

Connect: TypeAlias = Callable[[], Exchange]
"""Function that makes an exchange for one request."""

CLOSE_SECONDS = 2.0
"""Seconds that closing httpx's pool may take at the end of a client."""


@asynccontextmanager
async def open_connector(
    client: httpx.AsyncClient | None = None, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Connect]:
    """Open what makes exchanges, for the length of a block.

    ============================== =====================================
    a client was brought           through httpx, by that client
    a `TrioTransport` was brought  on its connections
    another transport was brought  through httpx, by that transport
    the environment names a proxy  through httpx, by a client that heeds it
    none of these                  on connections of its own
    ============================== =====================================

    What was brought is left open; what was opened here is closed with the block.
    """
    if client is not None:
        yield _by_client(client)
    elif transport is not None:
        yield _by_transport(transport)
    elif getproxies().keys() & {"http", "https", "all"}:
        async with _proxying_client() as own:
            yield _by_client(own)
    else:
        pool = ConnectionPool()
        try:
            yield partial(TrioExchange, pool)
        finally:
            pool.close()


def _by_client(client: httpx.AsyncClient) -> Connect:
    return partial(HttpxExchange, partial(send_by_client, client))


def _by_transport(transport: httpx.AsyncBaseTransport) -> Connect:
    # One that handles requests in its own way must be asked: a subclass, or what has replaced the
    # method, may do anything there.
    handler = getattr(transport.handle_async_request, "__func__", None)
    if isinstance(transport, TrioTransport) and handler is HANDLE_REQUEST:
        return partial(TrioExchange, transport.pool)
    return partial(HttpxExchange, partial(send_by_transport, transport))


@asynccontextmanager
async def _proxying_client() -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of httpx's that finds its proxy in the environment."""
    client = httpx.AsyncClient(
        # No limit on connections: a pool that is full would be a queue that no clock sees.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        timeout=None,
        # No cookie is kept: one that came with a key must not go out with another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )
    try:
        yield client
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await client.aclose()
