"""Errors of requests on this library's own connections, by the names that they have in httpx.

They are not httpx's: importing httpx takes half as long again as everything else that a program needs
to get an answer, and it is needed only by those who bring something of it, or have a proxy. It is
imported for none of these errors, either. `in_httpx` makes one of httpx's of them where a program can
tell the difference: for a `TrioTransport` that is used through httpx (``transport``), and for causes,
if the program has imported httpx (``failures``).
"""

from __future__ import annotations


class TransportError(Exception):
    """Any of them."""


class ConnectError(TransportError):
    """No connection could be made."""


class ReadError(TransportError):
    """The connection broke while something was read from it."""


class LocalProtocolError(TransportError):
    """The request can't be sent as it is: HTTP does not allow it."""


class RemoteProtocolError(TransportError):
    """The response is not HTTP, or was not whole. The message may quote it."""


class UnsupportedProtocol(TransportError):
    """The address is not one of HTTP's."""


class PoolTimeout(TransportError):
    """The request waited for too long for a slot, or in line for a connection."""


class ConnectTimeout(TransportError):
    """Connecting took too long."""


class WriteTimeout(TransportError):
    """The server took nothing of the request for too long."""


class ReadTimeout(TransportError):
    """The server sent nothing for too long."""


def in_httpx(exc: TransportError) -> Exception:
    """Return httpx's error of the same name, with the same words and cause."""
    import httpx

    made: Exception = getattr(httpx, type(exc).__name__)(str(exc))
    made.__cause__ = exc.__cause__
    return made
