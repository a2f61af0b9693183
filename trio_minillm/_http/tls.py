"""The TLS context of a transport's connections, as httpx makes it."""

from __future__ import annotations

import os
import ssl


def create_context(verify: ssl.SSLContext | bool) -> ssl.SSLContext:
    """Return what ``httpx.create_ssl_context`` does: a context that trusts the authorities of
    ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` or certifi, one that verifies nothing for False, or the given one.

    Raises ``OSError`` if the authorities can't be read.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    if file := os.environ.get("SSL_CERT_FILE"):
        return ssl.create_default_context(cafile=file)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    import certifi  # which httpx needs as well

    return ssl.create_default_context(cafile=certifi.where())
