"""Errors of this library for those that a transport, httpx, TLS or the system raise.

A transport tells little by itself ("all attempts to connect failed"); the reason stands in one of the
errors that led to its own. All of them are looked at, so that the words are the same on every
transport.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress

import trio

from .._types.errors import (
    ConnectionCut,
    ConnectTimeout,
    CredentialsError,
    ErrorInfo,
    MiniLLMError,
    ProtocolError,
    RefusedError,
    SendError,
    SendReason,
)
from . import transport_errors
from .transport_errors import TransportError, in_httpx
from .urls import parsed

BAD_REDIRECT = "Invalid URL in location header"
"""Beginning of httpx's message for a redirect to an invalid address. httpx parses it even
where it is told to follow no redirect."""

OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
"""The errors of a process, and of a system, that has as many files open as it may."""

MAX_CAUSES = 64
"""Errors behind an error that are looked at: a chain may be a circle, and a group large."""

_SYSTEM: dict[int, tuple[SendReason | None, str]] = {
    errno.EMFILE: ("open_files", "too many open files in this process"),
    errno.ENFILE: ("open_files", "too many open files on this machine"),
    errno.ECONNREFUSED: ("refused", "connection refused: nothing listens there"),
    errno.EHOSTUNREACH: ("unreachable", "the host can't be reached: no route to it"),
    errno.ENETUNREACH: ("unreachable", "the network can't be reached"),
    errno.ETIMEDOUT: ("unreachable", "the host does not answer"),
    errno.ECONNRESET: (None, "the connection was reset"),
}
"""Words by the number of the system's error; of several errors, the first here is told."""

_NO_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

_CERTIFICATE = {
    2: "unknown authority: the issuer of the server's certificate is not trusted here",
    9: "the server's certificate is not valid yet: is this machine's clock right?",
    10: "expired certificate: the server's has expired, or this machine's clock is wrong",
    18: "unknown authority: the server has signed its certificate itself",
    19: "unknown authority: a root that is not trusted here has signed the server's certificate",
    20: "unknown authority: the issuer of the server's certificate is not trusted here",
    21: "unknown authority: the server does not send its issuer's certificate",
    23: "revoked certificate: the server's was revoked",
    62: "wrong host name: the server's certificate is for another host",
    64: "wrong host name: the server's certificate is not for this IP address",
}
"""Words by OpenSSL's number of the fault (``X509_V_ERR_…`` in ``x509_vfy.h``)."""

_PASSING_TLS = ("EOF", "INTERNAL_ERROR", "USER_CANCEL", "BAD_RECORD_MAC", "CLOSE", "SHUTDOWN")
"""Parts of the names of TLS's failures that are the connection's fault, or of the moment."""


NO_AUTHORITIES = (
    "the trusted certificates can't be read: do SSL_CERT_FILE and SSL_CERT_DIR name them?"
)
"""Message of the `ConnectError` if the certificates of the authorities to trust can't be read."""


def foreign() -> tuple[type[Exception], ...]:
    """Return the exceptions that a transport, httpx's included, may raise for a request that failed."""
    return (
        *errors_named("TransportError", "HTTPError", "InvalidURL", "StreamError"),
        OSError,
        trio.BrokenResourceError,
        trio.ClosedResourceError,
        UnicodeError,  # a host that is no name for IDNA
    )


def errors_named(*names: str) -> tuple[type[Exception], ...]:
    """Return the errors of these names, ours and httpx's. Where httpx is not loaded, nobody can have
    raised one of its own.
    """
    homes = (transport_errors, sys.modules.get("httpx"))
    return tuple(getattr(home, name) for home in homes for name in names if hasattr(home, name))


def map_error(exc: Exception, *, begun: bool, host: str = "") -> MiniLLMError:
    """Return the error of this library for one of `foreign`; ``begun`` says a response had begun.

    ``host`` is where the request was to go. The message quotes no bytes of the server's.
    """
    no_http = isinstance(exc, errors_named("RemoteProtocolError"))
    if no_http and BAD_REDIRECT in str(exc):
        message = "the server redirects to an invalid address; not followed"
        return RefusedError(ErrorInfo(message=message, kind="invalid"))
    if no_http and not begun and "disconnect" not in str(exc):
        # It did answer, and may have begun to work: asking again is not safe.
        fault = _without_quotes(exc).removeprefix("not HTTP: ")
        return ProtocolError(f"the response is not HTTP: {fault}")
    reason, words = explain(exc)
    if not words:
        text = _without_quotes(exc)
        words = f"{type(exc).__name__}: {text}" if text else type(exc).__name__
    if begun:
        return ConnectionCut(f"the connection broke: {words}")
    to = f" to {host}" if host else ""
    return SendError(f"the request could not be sent{to}: {words}", reason=reason)


def never_sent(error: MiniLLMError) -> bool:
    """Return whether an error shows that nothing of its request can have reached the server.

    The reason alone does not: the host of a connection that stood may become unreachable, and its TLS may
    break, when the server has long done what it was asked for.
    """
    if isinstance(error, CredentialsError | ConnectTimeout):
        return True
    reason, cause = getattr(error, "reason", None), error.__cause__
    if not isinstance(error, SendError) or reason is None:
        return False
    not_connected = isinstance(cause, errors_named("ConnectError", "UnsupportedProtocol"))
    return not_connected or (cause is None and reason == "address")


def explain(exc: BaseException) -> tuple[SendReason | None, str]:
    """Return why a request failed, as far as the errors that led to this one tell, and in words.

    The words are empty where they tell no more than the error itself.
    """
    if str(exc) == NO_AUTHORITIES:
        return "certificate", NO_AUTHORITIES
    causes = list(_causes(exc))
    numbers = set(map(_number, causes))
    for number in OUT_OF_FILES:
        if number in numbers:
            return _SYSTEM[number]
    for one in causes:
        if isinstance(one, ssl.SSLCertVerificationError):
            # Contexts in pure Python, such as truststore's, may leave these out.
            code, said = getattr(one, "verify_code", 0), getattr(one, "verify_message", "")
            words = _CERTIFICATE.get(code, "the server's certificate was rejected")
            return "certificate", f"{words} (CERTIFICATE_VERIFY_FAILED: {said or code})"
        if isinstance(one, ssl.SSLError) and (words := _tls_words(one)):
            return "tls", words
        if isinstance(one, socket.gaierror):
            return _name_words(one)
        if isinstance(one, UnicodeError):
            return "address", "no such host: the name is not valid in DNS"
    for number, told in _SYSTEM.items():
        if number in numbers:
            return told
    wrong = isinstance(exc, errors_named("InvalidURL", "UnsupportedProtocol"))
    return ("address" if wrong else None), ""


def _number(exc: BaseException) -> int | None:
    """Return the system's number of an error; those of TLS and of look-ups are others."""
    if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError | socket.gaierror):
        return exc.errno
    return None


def _name_words(exc: socket.gaierror) -> tuple[SendReason | None, str]:
    if exc.errno in _NO_NAME:
        return "no_such_host", "no such host"
    if exc.errno == socket.EAI_AGAIN:
        return (
            "unreachable",
            "the name can't be looked up now: no such host, or no name server answers",
        )
    return None, f"the name can't be looked up: {exc.strerror}"


def _tls_words(exc: ssl.SSLError) -> str:
    """Return the words for a failure of TLS that stays if it is tried again, else nothing."""
    name = getattr(exc, "reason", None) or ""
    if isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return ""
    if not name or any(part in name for part in _PASSING_TLS):
        return ""
    if name in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"):
        return "the server does not speak TLS there: is it http:// rather than https://?"
    said = name.lower().replace("_", " ")
    return f"the TLS handshake failed: {said}"


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that led to it, also those inside of groups; each once."""
    seen: set[int] = set()
    rest: list[BaseException] = [exc]
    while rest and len(seen) < MAX_CAUSES:
        one = rest.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            rest += one.exceptions
        rest += [led for led in (one.__cause__, one.__context__) if led is not None]


def _without_quotes(exc: Exception) -> str:
    """Return a transport's message without the bytes from the server that h11 quotes behind it."""
    text = str(exc)
    quotes = isinstance(exc, errors_named("RemoteProtocolError"))
    return re.split(r"[:,]? *(?:bytearray\(|b['\"])", text)[0] if quotes else text


def safe_cause(exc: Exception) -> Exception | None:
    """Return what may be kept of a foreign error as the cause of ours; None if it quotes a server.

    It loses its traceback, and so do its own causes: their frames would show the request to
    whatever prints local variables, and keep the prompt in memory.
    """
    for one in _causes(exc):
        one.__traceback__ = None
    if isinstance(exc, errors_named("RemoteProtocolError", "InvalidURL")):
        return None
    # Only a program that has imported httpx can look for its errors, and then it finds them.
    return in_httpx(exc) if isinstance(exc, TransportError) and sys.modules.get("httpx") else exc


def host_of(url: str) -> str:
    """Return the host and port of a URL as an error may show them; empty if it has none."""
    with suppress(*foreign(), TypeError):
        return parsed(url).netloc.decode("ascii", "replace")[:200]
    return ""
