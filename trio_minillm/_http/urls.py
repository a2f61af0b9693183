"""Addresses of requests, parsed as httpx parses them: by httpx itself only where it is needed."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .connection import Origin
from .transport_errors import UnsupportedProtocol

if TYPE_CHECKING:
    import httpx

LONGEST_URL = 65_536
"""Characters of the longest URL that httpx takes."""

_PORTS = {"http": 80, "https": 443}
"""Schemes that there is a transport for, and the ports that they have by default."""

_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = r"[a-z0-9_-]+"
# A name whose last label has a letter in front is no IPv4 address, and one without "xn--" no IDNA.
_HOST = rf"(?!xn--)(?:{_LABEL}\.)*[a-z][a-z0-9_-]*|{_BYTE}(?:\.{_BYTE}){{3}}"
_CHARACTER = r"[A-Za-z0-9_~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}"
# httpx resolves the segments "." and "..", so that none may begin with a dot.
_PATH = rf"(?:/(?:(?:{_CHARACTER})(?:{_CHARACTER}|\.)*)?)*"
_QUERY = rf"\?(?:{_CHARACTER}|[./?])*"
_PLAIN = re.compile(rf"(https?)://({_HOST})(?::([1-9][0-9]{{0,4}}))?({_PATH})({_QUERY})?")


class PlainURL(msgspec.Struct, frozen=True):
    """A URL in which nothing has to be encoded, decoded or left out. Its attributes are `httpx.URL`'s."""

    scheme: str
    host: str
    port: int | None
    """None also if it is the scheme's."""
    raw_path: bytes
    """Path and query, as the request line has them."""
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def raw_host(self) -> bytes:
        """The host in bytes."""
        return self.host.encode()

    @property
    def netloc(self) -> bytes:
        """The Host header's value."""
        return (self.host if self.port is None else f"{self.host}:{self.port}").encode()


URL: TypeAlias = "PlainURL | httpx.URL"


@lru_cache(maxsize=64)  # parsing takes httpx 20 µs, and a client asks few addresses
def parsed(url: str) -> URL:
    """Return a URL in its parts. Raises ``httpx.InvalidURL``, or ``TypeError`` for what is no text."""
    plain = _PLAIN.fullmatch(url) if isinstance(url, str) and len(url) <= LONGEST_URL else None
    if plain is None:
        import httpx

        return httpx.URL(url)
    scheme, host, digits, path, query = plain.groups("")
    port = int(digits) if digits and int(digits) != _PORTS[scheme] else None
    written = f"{scheme}://{host}{'' if port is None else f':{port}'}{path}{query}"
    return PlainURL(scheme, host, port, f"{path or '/'}{query}".encode(), written)


def origin_of(url: URL) -> Origin:
    """Return where a connection for the URL must lead. Raises `UnsupportedProtocol`."""
    if url.scheme not in _PORTS or not url.host:
        raise UnsupportedProtocol(f"no transport for {url.scheme or 'no scheme'}://")
    return (url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
