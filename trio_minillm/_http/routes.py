"""The routes of a client: its own connections, and one transport of httpx's for each proxy.

Which of them a request takes depends on its address alone: see `proxies`.
"""

from __future__ import annotations

from collections.abc import Awaitable

import httpx
import msgspec
import trio

from .exchange import Exchange, Outgoing, Response
from .httpx_exchange import send_through
from .pool import ConnectionPool
from .proxies import THROUGH, Proxies, Proxy
from .roundtrip import CONNECTING, OnProgress
from .trio_exchange import send_on

CLOSE_SECONDS = 2.0
"""Seconds that closing a proxy's connections may take at the end of a client."""


class Routes:
    """All connections of a client where the environment names a proxy."""

    def __init__(self, pool: ConnectionPool, proxies: Proxies) -> None:
        self._pool = pool
        self._proxies = proxies
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}

    def check(self, address: str) -> None:
        """Raise ``ValueError`` if the environment names a proxy for it that can't be used."""
        self._proxies.proxy_for(address)

    async def send(self, request: Outgoing) -> Response:
        """Send a request on its route. Raises one of `foreign`, and ``ValueError`` as `check` does."""
        proxy = self._proxies.proxy_for(request.url)
        if proxy is None:
            return await send_on(self._pool, request)
        if proxy.url.scheme.startswith("http") and request.url.startswith("https:"):
            told = _behind_connect(request.on_progress)
            request = msgspec.structs.replace(request, on_progress=told)
        try:
            return await send_through(self._transport(proxy), request)
        except httpx.TransportError as exc:  # it may be the proxy's fault as well as the server's
            exc.add_note(f"{THROUGH} {proxy}")
            raise

    def _transport(self, proxy: Proxy) -> httpx.AsyncHTTPTransport:
        """Return the transport that asks through a proxy, made with the first request."""
        address = str(proxy.url)
        if address not in self._transports:
            tls = httpx.create_ssl_context()  # the same authorities for the proxy's own TLS
            self._transports[address] = httpx.AsyncHTTPTransport(
                verify=tls,
                proxy=httpx.Proxy(
                    proxy.url, ssl_context=tls if proxy.url.scheme == "https" else None
                ),
                # No limit on connections: a pool that is full would be a queue that no clock sees.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            )
        return self._transports[address]

    async def aclose(self) -> None:
        """Close everything, also connections in use. Bounded, also when cancelled."""
        self._pool.close()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            for transport in self._transports.values():
                await transport.aclose()


def _behind_connect(on_progress: OnProgress) -> OnProgress:
    """Return a function that does not tell of the request to the proxy, ``CONNECT``.

    httpcore reports its end like that of the request itself, and the clock of connecting would stop
    before the server was reached.
    """
    connecting = False

    def tell(event: str) -> None:
        nonlocal connecting
        if event == CONNECTING:
            connecting = True
        elif event == "proxy.start_tls.complete":
            connecting = False
        if not (connecting and event.endswith("send_request_body.complete")):
            on_progress(event)

    return tell


class RoutedExchange(Exchange):
    """One request and its response on the route of its address."""

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self._routes = routes

    def _send(self, request: Outgoing) -> Awaitable[Response]:
        return self._routes.send(request)
