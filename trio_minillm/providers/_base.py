"""What a provider is: a stateless translator between our vocabulary and one wire.

A new wire is one subclass of `Provider`, in this package or outside of it. It never waits,
never accumulates and keeps nothing between two calls: the client does the waiting, the
ingest machine the accumulating. `trio_minillm.testing.check_provider` checks one.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, ClassVar, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import msgspec

from .._types.chunks import StreamChunk
from .._types.cost import CostInfo, TokenPrice, exact, native_cost, priced_cost
from .._types.errors import ErrorInfo, ProtocolError, ProviderError
from .._types.messages import Message
from .._types.usage import Usage
from ._errors import error_info

Parsed: TypeAlias = StreamChunk | Sequence[StreamChunk] | None
"""What one event says: a chunk; several (an event with several choices); or nothing."""

_UNPRINTABLE = "API keys and headers must be printable ASCII without spaces around them"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model at an address, with the key to it. A value: make as many as you like.

    Its ``repr`` shows neither the key nor header values. ``extra`` goes into every request's
    body, ``headers`` into every request's headers. Raises ``ValueError``, which shows neither, for
    a key, a header or an address that can't be sent as it is; a key that is to go over plain HTTP
    to another machine is a ``UserWarning``.
    """

    name: str
    provider: Provider
    base_url: str
    api_key: str | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    price: TokenPrice | None = None

    def __post_init__(self) -> None:
        values = [*self.headers.values(), *([] if self.api_key is None else [self.api_key])]
        if not all(map(sendable, values)):
            raise ValueError(_UNPRINTABLE)
        if not all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in self.headers):
            raise ValueError("a header's name must be an HTTP token")
        if _FRAMING & {name.lower() for name in self.headers}:
            raise ValueError("headers must not say where the body ends: that is HTTP's own")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url must begin with http:// or https://")
        _check_url(self.base_url)
        named = self.headers.keys() & {"authorization", "Authorization", "x-api-key", "api-key"}
        if (self.api_key or named) and self.base_url.startswith("http:"):
            _warn_of_plain_text(urlsplit(self.base_url).hostname or "")

    def __repr__(self) -> str:
        return f"<Model {self.provider.name}:{self.name}>"

    def __rich_repr__(self) -> Any:
        yield f"{self.provider.name}:{self.name}"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request in our vocabulary. ``params`` holds only given, typed parameters."""

    model: Model
    messages: tuple[Message, ...]
    params: Mapping[str, Any]
    extra: Mapping[str, Any]
    expect_usage: bool = True

    def __repr__(self) -> str:
        return f"<Request {self.model!r} {len(self.messages)} messages>"

    def __rich_repr__(self) -> Any:
        yield f"{self.model.name} {len(self.messages)} messages"


class SettlementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider is asked what a generation cost. The client adds the model's headers."""

    url: str
    method: str = "GET"
    body: bytes = b""


class Provider:
    """Base of all providers; subclasses give at least `endpoint_url` … `parse_chunk`.

    Guarantees that a subclass must keep: every method is a pure function of its arguments;
    the parsing methods raise only this library's errors (or msgspec's, ``UnicodeError`` and
    ``RecursionError``, which the caller turns into a `ProtocolError` that names the event).
    """

    name: ClassVar[str] = ""
    """Short name of the dialect, as in ``trio-minillm chat --model NAME:…``."""
    replay_wire: ClassVar[str] = ""
    """Whose reasoning and opaque blocks these are: they go back on the same wire only."""
    ends_itself: ClassVar[bool] = False
    """True where an end event always follows, and reason and usage may be corrected before."""
    always_usage: ClassVar[bool] = False
    """True where the wire ends with usage whatever the request says."""
    literal_text: ClassVar[bool] = False
    """True where a piece of text is a JSON string of the event as it stands, so that events which
    differ in nothing else need no parser (`trio_minillm._protocol.templates`). Not inherited by a class that
    parses on its own."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if ("parse_chunk" in own or "parse_event" in own) and "literal_text" not in own:
            cls.literal_text = False

    def endpoint_url(self, model: Model) -> str:
        """The URL that takes the request."""
        raise NotImplementedError

    def auth_headers(self, model: Model) -> dict[str, str]:
        """The headers that carry the key, and those that the wire demands."""
        raise NotImplementedError

    @property
    def typed_fields(self) -> frozenset[str]:
        """The fields of the body that typed parameters decide; ``extra`` must not name them."""
        return frozenset()

    def request_headers(self, request: Request) -> dict[str, str]:
        """Headers that depend on the request; none by default."""
        return {}

    def build_request(self, request: Request) -> dict[str, Any]:
        """The JSON body of a streaming request, without ``extra`` (the caller adds it)."""
        raise NotImplementedError

    def parse_chunk(self, data: bytes) -> Parsed:
        """One event's data. Raises `ProviderError` where it reports a failure."""
        raise NotImplementedError

    def parse_event(self, event: str, data: bytes) -> Parsed:
        """One *named* event. By default ``error`` is a failure; under other names only JSON
        is read.
        """
        if event == "error":
            parsed = None
            with suppress(msgspec.MsgspecError, ProtocolError):
                parsed = self.parse_chunk(data)
            if parsed is None or (isinstance(parsed, StreamChunk) and not parsed.progress):
                raise ProviderError(self.parse_error(None, data))
            return parsed
        try:
            return self.parse_chunk(data)
        except msgspec.ValidationError:
            if data.lstrip()[:1] != b"{":
                return None
            raise
        except msgspec.DecodeError:
            return None  # not JSON under a name of its own: Azure's keep-alive, say

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        """The body of an answer that was not streamed, as the chunks it would have been."""
        raise ProtocolError("the body is not an event stream")

    def parse_error(self, status: int | None, body: bytes) -> ErrorInfo:
        """An error body, HTTP (``status``) or in-band (``None``), in one shape."""
        return error_info(status, body)

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        """The generation id, where the response's headers (lower-case names) carry it."""
        return None

    def settlement_request(self, model: Model, generation_id: str) -> SettlementRequest | None:
        """How to ask, after the fact, what a generation cost; ``None`` if it can't be asked.

        The client asks for streams that ended without a final figure, until `parse_settlement`
        has one or the clock ``settlement`` has run out.
        """
        return None

    def parse_settlement(self, body: bytes) -> Usage | None:
        """The final usage, cost included, from the answer to that; ``None``: not known yet."""
        raise NotImplementedError

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        """What the usage cost: the wire's own figure if it has one, else price x usage."""
        if usage is not None and usage.cost is not None:
            return native_cost(usage, exact(usage.cost))
        return priced_cost(usage, price)


_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_FRAMING = {"content-length", "transfer-encoding"}


def sendable(value: object) -> bool:
    """Whether it can be a header's value and nothing more."""
    plain = isinstance(value, str) and value.isascii() and value.isprintable()
    return plain and value == str(value).strip()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:  # also a port that is none, half an address in brackets
        raise ValueError("base_url must name a host, and a port from 1 to 65535 if any") from None
    if "@" in parts.netloc:
        raise ValueError("base_url must not hold a user or password: give api_key=")
    if _KEYS_IN_QUERY & {name.lower() for name, _ in parse_qsl(parts.query)}:
        raise ValueError("base_url must not hold a key: addresses are logged. Give api_key=")
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("base_url must not hold blanks, backslashes or control characters")


_KEYS_IN_QUERY = {"key", "api_key", "apikey", "api-key", "token", "access_token"}


def _warn_of_plain_text(host: str) -> None:
    """A key over plain HTTP is read by everyone on the way. Not so on this machine, and under
    names that exist nowhere.
    """
    if host == "localhost" or host.endswith((".localhost", ".invalid")):
        return
    with suppress(ValueError):
        if ip_address(host).is_loopback:
            return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    message = f"the API key goes to {host} unencrypted, readable on the way: use https://"
    warnings.warn(message, stacklevel=level)


_PACKAGE = __name__.partition(".")[0] + "."


def take(request: Request, table: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that only change their name on the wire."""
    return {table[k]: v for k, v in request.params.items() if k in table}


def refuse_others(request: Request, known: frozenset[str] | set[str]) -> None:
    """``ValueError`` for parameters that the wire does not have."""
    other = sorted(set(request.params) - known)
    if other:
        raise ValueError(
            f"{', '.join(other)}: not a parameter of the {request.model.provider.name} wire"
            " (extra={…} sends a field as it is)"
        )


def loggable_url(model: Model) -> str:
    """Return the base URL without its query, which may be private and belongs in no file."""
    return model.base_url.partition("?")[0]
