"""The proxies that the environment names, and the addresses that are asked without one.

``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` name a proxy for addresses of one scheme or of
both, in lower case, too, which counts more. ``NO_PROXY`` is a list of exceptions:

=========================== ==================================================================
``*``                       every address
``example.com``             this name and all below it (curl, requests, httpx)
``.example.com``            the names below it (requests, httpx, Go)
``192.168.*``               names and addresses of this form
``10.0.0.1`` ``[::1]``      this address
``10.0.0.0/8`` ``fd00::/8`` the addresses of this network, as far as a URL has them as numbers
``example.com:8080``        only at this port
``https://example.com``     only with this scheme (httpx)
``<local>``                 names without a dot (Windows)
=========================== ==================================================================

This machine is asked without a proxy in any case, as Go's client does it: a proxy elsewhere could
not reach it, and would be shown prompts and keys that were never to leave the machine.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .._types.errors import ErrorInfo, ErrorKind, MiniLLMError, RefusedError
from .._types.hosts import ip_address, is_this_machine
from .failures import errors_named
from .status_phrases import phrase_of

if TYPE_CHECKING:  # loaded where the environment names a proxy
    import httpx

UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - asked, not listened at
"""Addresses that servers print when they listen everywhere; asked, they are this machine as well."""
LOCAL_NAMES = "<local>"
"""The entry of ``NO_PROXY`` for names without a dot, as Windows has it."""
KINDS = ("http", "https", "socks5", "socks5h")
"""Schemes of the proxies that httpx can talk to."""

THROUGH = "through the proxy"
"""Beginning of the note that a request's failure has if it went through a proxy."""

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_PORTS = {"http": 80, "https": 443}
_ENTRY = r"(?i)(?:(?P<scheme>https?|all)://)?(?P<host>\[[0-9a-f:.%]+\](?:/\d+)?|[^:\[\]/]+(?:/\d+)?)(?::(?P<port>\d+|\*))?/?"
_NAME = r"(?a)[\w.*-]+"


class Proxy:
    """A proxy that the environment names. Its name and password are in no ``repr``."""

    def __init__(self, variable: str, url: httpx.URL) -> None:
        self.variable: str = variable
        """The environment variable that names it."""
        self.url: httpx.URL = url
        """Its address, with the name and the password that it asks for."""

    def __repr__(self) -> str:
        return f"<Proxy {self}>"

    def __str__(self) -> str:
        port = "" if self.url.port is None else f":{self.url.port}"
        host = f"[{self.url.host}]" if ":" in self.url.host else self.url.host
        return f"{self.url.scheme}://{host}{port} (from {self.variable})"


class Proxies:
    """The choice of a proxy, or of none, for each address; made once of the environment.

    What the environment says wrongly is an error only for the addresses that it matters to.
    """

    def __init__(self) -> None:
        found = _settings()
        self._by_scheme: dict[str, tuple[str, str]] = {}
        for scheme in _PORTS:
            for name in (scheme, "all"):
                if value := found.get(name, "").strip():
                    self._by_scheme.setdefault(scheme, (_variable(name), value))
        self._exceptions = [_exception(entry) for entry in UNSPECIFIED]
        self._unreadable: str | None = None
        for entry in found.get("no", "").replace(",", " ").replace(";", " ").split():
            try:
                self._exceptions.append(_exception(entry))
            except ValueError as exc:
                self._unreadable = f"{_variable('no')} {exc}"

    def __bool__(self) -> bool:
        return bool(self._by_scheme)

    def proxy_for(self, address: str) -> Proxy | None:
        """Return the proxy through which an address is asked, or None.

        Raises ``ValueError`` where the environment decides it, and can't be understood; the message
        does not repeat a proxy's address, which may have a password.
        """
        import httpx

        try:
            url = httpx.URL(address)
        except httpx.InvalidURL:
            return None  # whoever sends to it says so
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        if url.scheme not in self._by_scheme or is_this_machine(host):
            return None
        port = url.port or _PORTS[url.scheme]
        if any(exception.matches(url.scheme, host, port) for exception in self._exceptions):
            return None
        if self._unreadable is not None:
            raise ValueError(self._unreadable)
        return _parsed(*self._by_scheme[url.scheme])


def _settings() -> dict[str, str]:
    """Return the proxies of the environment; on macOS and Windows the system's, where it has none."""
    if sys.platform not in ("darwin", "win32") and not any(
        name.lower().endswith("_proxy") for name in os.environ
    ):
        return {}
    from urllib.request import getproxies  # slow to import

    return getproxies()


def _variable(name: str) -> str:
    """Return the environment variable that `getproxies` found under a name."""
    there = [key for key, value in os.environ.items() if key.lower() == f"{name}_proxy" and value]
    return max(there, key=str.islower, default="the system's settings")


def _parsed(variable: str, value: str) -> Proxy:
    """Return a proxy by its address. Raises ``ValueError``, which does not repeat the address."""
    import httpx

    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme and url.scheme not in KINDS:
        raise ValueError(
            f"{variable} names a proxy of the kind {url.scheme}://, which can't be used: "
            f"it must be one of {', '.join(f'{kind}://' for kind in KINDS)}"
        )
    port = 1 if url.port is None else url.port
    # What stands behind the host may be the rest of a password.
    behind = url.fragment or url.query or "@" in url.path
    if behind or not url.host or "%" in url.host or not 0 < port < 65536:
        raise ValueError(
            f"{variable} does not name a proxy: it must be like http://proxy.example:3128, with a "
            "port from 1 to 65535, and with special characters of a password as %XX"
        )
    from importlib.util import find_spec  # needed by few, and slow to import

    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ValueError(
            f"{variable} names a SOCKS proxy, for which the package socksio is missing: "
            "pip install socksio"
        )
    return Proxy(variable, url)


class _Exception(msgspec.Struct, frozen=True):
    """An entry of ``NO_PROXY``."""

    scheme: str
    """The scheme that it is for; ``all`` for any."""
    host: str
    port: int | None
    network: _Network | None

    def matches(self, scheme: str, host: str, port: int) -> bool:
        """Return whether an address is excepted."""
        if self.scheme not in ("all", scheme) or self.port not in (None, port):
            return False
        if self.network is not None:
            numbers = {ip_address(host), ip_address(host, unwrap=False)}
            return any(number in self.network for number in numbers if number is not None)
        if self.host == LOCAL_NAMES:
            return "." not in host and ip_address(host) is None
        if "*" in self.host:
            return fnmatch.fnmatchcase(host, self.host)
        return host.endswith(f".{self.host.lstrip('.')}") or host == self.host


def _exception(entry: str) -> _Exception:
    """Parse an entry of ``NO_PROXY``. Raises ``ValueError``."""
    with suppress(ValueError):  # IPv6 without brackets, before a colon means a port
        return _Exception("all", entry, None, ipaddress.ip_network(entry, strict=False))
    if entry == LOCAL_NAMES:
        return _Exception("all", entry, None, None)
    parts = re.fullmatch(_ENTRY, entry)
    if parts is not None:
        host, network = parts["host"].lower().rstrip("."), None
        with suppress(ValueError):
            plain = re.sub(r"[\[\]]", "", host)
            network = ipaddress.ip_network(plain, strict=False)
        if not host.isascii():
            import httpx

            with suppress(httpx.InvalidURL):
                host = httpx.URL(f"http://{host}").raw_host.decode("ascii")
        if network is not None or (re.fullmatch(_NAME, host) and host.strip(".")):
            scheme, port = (parts["scheme"] or "all").lower(), parts["port"]
            return _Exception(scheme, host, int(port) if port and port != "*" else None, network)
    raise ValueError(
        f"has the entry {entry.rpartition('@')[2]!r}, which is not a host: an entry is a name, .suffix, IP address or "
        "network, with :port or without"
    )


def name_proxy(exc: Exception, error: MiniLLMError) -> MiniLLMError:
    """Return the error for a request that failed, with the proxy's part in it.

    ``error`` is what ``exc`` means otherwise. A proxy that answers a request for a tunnel with a
    status refuses as a server does: httpcore's message begins with that status.
    """
    notes = [note for note in getattr(exc, "__notes__", ()) if note.startswith(THROUGH)]
    through = "".join(f", {note}" for note in notes[:1])
    status = (
        re.match(r"[345]\d\d\b", str(exc)) if isinstance(exc, errors_named("ProxyError")) else None
    )
    if status is None:
        said = f"{error}{through}"
        if notes and getattr(error, "reason", None) in _PROXYS_OWN:
            unsent, _, why = str(error).partition(": ")
            said = f"{notes[0].removeprefix('through ')} can't be reached: {why}; {unsent}"
        error.args = (said,)
        return error
    code = int(status[0])
    phrase = phrase_of(code)  # the proxy's own may repeat its password
    message = f"the proxy does not connect to the server: {phrase or 'no reason is given'}{through}"
    return RefusedError(ErrorInfo(message=message, kind=_kind(code), status=code))


_PROXYS_OWN = ("refused", "no_such_host")
"""Failures that are the proxy's own: it reports those of the server by a status."""


def _kind(status: int) -> ErrorKind:
    """Return the kind of a proxy's refusal. A gateway's failure to reach the server may pass."""
    return _KINDS.get(status, "server" if status >= 500 else "invalid")


_KINDS: dict[int, ErrorKind] = {
    401: "auth",
    403: "auth",
    407: "auth",
    408: "timeout",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
}
