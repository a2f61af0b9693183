"""Exchanges on this library's own connections, with no request or response of httpx's in between.

For every request an httpx client parses the address, merges headers, and asks for auth, hooks,
cookies and redirects: 0.3 ms, a fifth of a short answer. None of it is wanted here. No cookie is
kept, either: one that came with a key must not go out with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import httpx

from .connection import Origin
from .exchange import (
    FOREIGN,
    Exchange,
    OnProgress,
    complete_headers,
    ignore_progress,
    log_response,
    map_error,
    safe_cause,
)
from .http1 import Headers
from .pool import ConnectionPool
from .roundtrip import Roundtrip, Trace, WireRequest, encode_head, origin_of


class TrioExchange(Exchange):
    """One request and its response on a connection of a pool."""

    def __init__(self, pool: ConnectionPool) -> None:
        super().__init__()
        self._pool = pool

    async def start(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        method: str = "POST",
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        """Send the request, and wait for the response's headers. Raises as `Exchange.start` does."""

        async def trace(event: str, info: object) -> None:
            on_progress(event)

        roundtrip = Roundtrip(self._pool)
        try:
            address = _address(url)
            head = await roundtrip.start(_wire_request(address, method, headers, body, trace))
        except FOREIGN as exc:
            failure, cause = map_error(exc, begun=False), safe_cause(exc)
        else:
            log_response(method, address.url, f"HTTP/{head.version}", head.status)
            self._begin(head.status, by_name(head.headers), roundtrip)
            return
        finally:
            headers, body = {}, b""  # or frames of tracebacks would show them, and keep the prompt
        raise failure from cause  # out here, so that `exc` is not its context


class _Address(NamedTuple):
    """What a URL says about where a request goes."""

    url: httpx.URL
    origin: Origin
    target: bytes
    """Path and query, as the request line has them."""
    host: bytes
    """The Host header's value."""


@lru_cache(maxsize=64)  # parsing takes httpx 20 µs, and a client asks few addresses
def _address(url: str) -> _Address:
    parsed = httpx.URL(url)
    return _Address(parsed, origin_of(parsed), parsed.raw_path, parsed.netloc)


def _wire_request(
    address: _Address, method: str, headers: Mapping[str, str], body: bytes, trace: Trace
) -> WireRequest:
    complete = complete_headers(method, address.host, headers, len(body))
    head = encode_head(method, address.target, complete)
    if head.length != len(body):  # a provider of the user's own says so
        much = head.length is not None and len(body) > head.length
        size = "much" if much else "little"
        raise httpx.LocalProtocolError(f"Too {size} data for declared Content-Length")
    return WireRequest(
        origin=address.origin, head=head, body=body, no_body=method == "HEAD", trace=trace
    )


def by_name(headers: Headers) -> dict[str, str]:
    """Return headers by their names in lower case, decoded and joined as httpx does it."""
    try:
        lines = [(name.lower().decode(), value.decode()) for name, value in headers]
    except UnicodeDecodeError:
        lines = [
            (name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in headers
        ]
    joined: dict[str, str] = {}
    for name, value in lines:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
