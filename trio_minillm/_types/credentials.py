"""Keys that are asked for, and requests that are signed: the values that the functions of a program
take and return.

What is told of a failure is decided here: never a key, and never the words of a function that may
quote one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable, Mapping
from pathlib import PurePath
from typing import Any, TypeAlias

import msgspec

from .errors import CredentialsError


class RequestToSign(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is about to be sent, which a model's ``sign=`` function receives.

    The ``repr`` shows neither headers nor body.
    """

    method: str
    """The HTTP method; ``POST`` for a request for an answer."""
    url: str
    """The complete address, with its query."""
    headers: Mapping[str, str]
    """All headers, including ``host``, except those that say how the body is sent. Names are in
    lower case."""
    body: bytes
    """The body as it is sent."""

    def __repr__(self) -> str:
        return f"<{self.method} request to sign>"

    def __rich_repr__(self) -> Any:
        yield f"{self.method} request to sign"


KeySource: TypeAlias = Callable[[], str | Awaitable[str]]
"""A function, or async function, that returns the key: ``api_key=`` of a model."""
Sign: TypeAlias = Callable[[RequestToSign], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""A function, or async function, that returns headers to add or replace: ``sign=`` of a model."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """The way in which requests to one model get their key and their signature."""

    ask: KeySource | None
    sign: Sign | None
    headers: Callable[[str], Mapping[str, str]]
    """Function that returns the headers of the request with a key."""

    def __repr__(self) -> str:  # a function's own may show its arguments
        return "<Credentials>"

    def __rich_repr__(self) -> Any:
        yield "credentials"


def identity_of(function: object) -> Hashable:
    """Return what tells a function from others, for as long as it is kept."""
    try:
        hash(function)
    except TypeError:  # an object that can be called and compared
        return id(function)
    return function


# -- what can be sent --------------------------------------------------------------------------

UNPRINTABLE = "API keys and headers must be printable ASCII without surrounding spaces"
DRESSED = "api_key must be the key alone, without quotation marks or 'Bearer' before it"

_DRESSED = r"(?i)bearer\s|['\"`]"
"""The beginning of a key that was copied with what stood around it: an env file's quotation marks,
the whole header."""
_FIELD_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110, 5.6.2
_FRAMING = {"content-length", "transfer-encoding"}


def sendable(value: object) -> bool:
    """Return whether a value can be sent as a header's value, and can't end the header."""
    plain = isinstance(value, str) and value.isascii() and value.isprintable()
    return plain and value == str(value).strip()


def header_fault(headers: Mapping[str, str]) -> str:
    """Return why these headers can't be sent; an empty text if they can."""
    if not all(map(sendable, headers.values())):
        return UNPRINTABLE
    if not all(isinstance(name, str) and re.fullmatch(_FIELD_NAME, name) for name in headers):
        return "a header's name must be an HTTP token"
    if _FRAMING & {name.lower() for name in headers}:
        return "headers must not say where the body ends: HTTP does that"
    return ""


def key_fault(key: str) -> str:
    """Return why a key can't be sent; an empty text if it can."""
    if not sendable(key):
        return UNPRINTABLE
    return DRESSED if re.match(_DRESSED, key) else ""


# -- what the functions do ---------------------------------------------------------------------


def checked_key(key: object) -> str:
    """Return the key that a function has returned. Raises `CredentialsError` for anything else."""
    if type(key) is not str:
        fault = f"returned {type(key).__name__}, not str"
    elif not key:
        fault = "returned an empty text"
    elif not (fault := key_fault(key)):
        return key
    else:
        fault = f"returned a value that can't be sent: {fault}"
    del key
    raise CredentialsError(f"no key: the function api_key {fault}", permanent=True)


def checked_headers(headers: object) -> dict[str, str]:
    """Return what ``sign`` has returned, the names in lower case. Raises `CredentialsError`."""
    if isinstance(headers, Mapping):
        fault = header_fault(headers)
        if not fault:
            return {name.lower(): value for name, value in headers.items()}
        fault = f"returned a value that can't be sent: {fault}"
    else:
        fault = f"returned {type(headers).__name__}, not a mapping of headers"
    del headers
    raise CredentialsError(f"not signed: the function sign {fault}", permanent=True)


def failed_call(what: str, exc: Exception) -> CredentialsError:
    """Return the error for a function that has raised into the frame that caught it. It says where.

    Its cause is of the same class, without words and frames: both may hold the key.
    """
    error = CredentialsError(f"{what} raised {type(exc).__name__}{_place(exc)}")
    error.__cause__ = _wordless(exc)
    return error


def in_own_words(error: CredentialsError) -> CredentialsError:
    """Return the error that a function has raised itself: its words are meant to be shown, but not its
    frames, nor those of what led to it.
    """
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    error.__cause__ = _wordless(cause) if isinstance(cause, Exception) else None
    error.__context__ = None
    return error.with_traceback(None)


def without_errors(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what cancels or interrupts in a group that a function has raised, without the errors."""
    rest = group.split(Exception)[1]
    assert rest is not None  # or it would be an ``ExceptionGroup``
    rest.__cause__ = rest.__context__ = None
    return rest.with_traceback(None)


def _place(exc: Exception) -> str:
    at = exc.__traceback__ and exc.__traceback__.tb_next
    if at is None:  # it is not written in Python
        return ""
    code = at.tb_frame.f_code
    return f" (in {code.co_name}, {PurePath(code.co_filename).name} line {at.tb_lineno})"


def _wordless(exc: Exception) -> Exception | None:
    try:
        bare = type(exc).__new__(type(exc))
        bare.args = ()
        str(bare)
    except Exception:  # noqa: BLE001 - a class of the program's own, which may do anything
        return None
    return bare
