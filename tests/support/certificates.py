"""TLS for tests: a server's certificate for loopback, and what a client needs to trust it."""

from __future__ import annotations

import ssl
from functools import cache

from .paths import TLS_FILES


@cache
def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts the authority of the tests."""
    return ssl.create_default_context(cafile=TLS_FILES / "ca.pem")


@cache
def certified(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return a server's context, up to a version of TLS; it offers HTTP/2 as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS_FILES / "srv.pem", TLS_FILES / "srv.key")
    context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@cache
def expired(*, trusted: bool = False) -> ssl.SSLContext:
    """Return a server's context whose certificate is past its end, or that of a client who trusts it."""
    if trusted:
        return ssl.create_default_context(cafile=TLS_FILES / "expired.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS_FILES / "expired.pem", TLS_FILES / "srv.key")
    return context
