"""An httpx client that hands requests to its transport as they are."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import httpx

_NO_TIMEOUT = httpx.Timeout(None).as_dict()
_log = logging.getLogger("httpx")


@lru_cache(maxsize=64)
def _parsed(url: str) -> tuple[httpx.URL, bytes]:
    """The address, and what its Host header says."""
    parsed = httpx.URL(url)
    return parsed, parsed.netloc


class DirectClient(httpx.AsyncClient):
    """A client on one transport, with nothing else of httpx's set; `open_client` makes it.

    For every request httpx parses the address, merges headers, and asks for auth, hooks, cookies
    and redirects: 0.3 ms, a fifth of a short answer. Here there are none of them. No cookie
    is kept: one that came with a key must not go out with another.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, timeout=None, trust_env=False)
        self._straight = transport

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        """A request of ``headers`` (a mapping), ``content`` (bytes) and ``extensions``. Headers that
        HTTP demands are added. There is no timeout.
        """
        parsed, host = _parsed(str(url))
        content: bytes = options["content"]
        given = [(k.encode("ascii"), v.encode("ascii")) for k, v in options["headers"].items()]
        added = {b"host": host, b"connection": b"keep-alive"}
        if content or method in ("POST", "PUT", "PATCH"):
            added[b"content-length"] = b"%d" % len(content)
        for name, _ in given:
            added.pop(name.lower(), None)
        request = httpx.Request(
            method,
            parsed,
            headers=[*added.items(), *given],
            stream=httpx.ByteStream(content),
            extensions={**options["extensions"], "timeout": _NO_TIMEOUT},
        )
        request.read()  # so that a transport may look at its `content`
        return request

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """The transport's answer, its body unread, and logged as httpx does."""
        if self.is_closed:
            raise RuntimeError("the client is closed")
        response = await self._straight.handle_async_request(request)
        if _log.isEnabledFor(logging.INFO):
            answer = response.http_version, response.status_code, response.reason_phrase
            _log.info('HTTP Request: %s %s "%s %d %s"', request.method, request.url, *answer)
        return response
