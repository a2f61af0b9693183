"""What a provider is: a stateless translator between our vocabulary and one wire.

A new wire is one subclass of `Provider`, in this package or outside of it. It never waits,
never accumulates and keeps nothing between two calls: the client does the waiting, the
ingest machine the accumulating. `trio_minillm.testing.check_provider` checks one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

import msgspec

from .._chunks import StreamChunk, Usage
from .._cost import CostInfo, TokenPrice, exact, native_cost, priced_cost
from .._errors import EXCERPT_CHARS, ErrorInfo, ErrorKind, ProtocolError, ProviderError
from .._messages import Message

Parsed: TypeAlias = StreamChunk | Sequence[StreamChunk] | None
"""What one event says: a chunk; several (an event with several choices); or nothing."""

_UNPRINTABLE = "API keys and headers must be printable ASCII without spaces around them"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model at an address, with the key to it. A value: make as many as you like.

    Its ``repr`` shows neither the key nor header values. ``extra`` goes into every request's
    body, ``headers`` into every request's headers.
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
        if not all(map(_sendable, values)):
            raise ValueError(_UNPRINTABLE)
        if not all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in self.headers):
            raise ValueError("a header's name must be an HTTP token")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url must begin with http:// or https://")
        if "@" in urlsplit(self.base_url).netloc:
            raise ValueError("base_url must not hold a user or password: give api_key=")

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

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        """What the usage cost: the wire's own figure if it has one, else price x usage."""
        if usage is not None and usage.cost is not None:
            return native_cost(usage, exact(usage.cost))
        return priced_cost(usage, price)


_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2


def _sendable(value: object) -> bool:
    plain = isinstance(value, str) and value.isascii() and value.isprintable()
    return plain and value == str(value).strip()


def body_of(request: Request, body: dict[str, Any]) -> dict[str, Any]:
    """The body with ``extra`` added. An extra key that a typed parameter of this wire decides,
    or that the body has already, is a ``ValueError``: two places must not decide one thing.
    """
    merged = {**request.model.extra, **request.extra}
    decided = set(body) | set(request.params) | request.model.provider.typed_fields
    clash = sorted(set(merged) & (decided | {"messages", "stream"}))
    if clash:
        raise ValueError(f"extra must not hold {', '.join(clash)}: give it as a parameter")
    return {**body, **merged}


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


# -- errors: one classifier for HTTP and in-band ---------------------------------------------

_KIND_BY_STATUS: dict[int, ErrorKind] = {
    401: "auth",
    402: "quota",
    403: "auth",
    408: "timeout",
    409: "server",
    425: "server",
    429: "rate_limit",
    498: "overloaded",  # Groq: flex capacity exceeded
    503: "overloaded",
    504: "timeout",
    529: "overloaded",  # Anthropic
}

# Exhausted quota comes as 400, 402, 403 and 429. Codes are sure; of the messages only phrases
# count, since OpenAI's *rate* limit message speaks of billing and payment too.
_QUOTA_CODES = (
    "insufficient_quota",
    "billing",
    "credit_balance",
    "spend_limit",
    "usage_limit_exceeded",
    "payment_required",
    "quota_exceeded",
    "weight_exceeds_budget",
    "blocked_api_access",
)
_QUOTA_PHRASES = (
    "credit balance is too low",
    "exceeded your current quota",
    "insufficient balance",
    "insufficient credit",
    "insufficient funds",
    "used all available credits",
    "spending limit",
    "spend limit",
    "reached your specified api usage limits",
)

_STATUS_BY_WORD = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "model_not_found": 404,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "billing_error": 402,
    "insufficient_quota": 429,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "internal_error": 500,
    "unavailable_error": 503,
    "service_unavailable": 503,
    "service_unavailable_error": 503,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "provider_overloaded": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def classify(status: int | None, codes: str, message: str) -> ErrorKind:
    """The kind of an error by its status and the provider's own words (lower case)."""
    if "in_flight_budget" in codes:
        return "rate_limit"  # OpenRouter: money is reserved by requests that still run
    spent = any(w in codes for w in _QUOTA_CODES) or any(w in message for w in _QUOTA_PHRASES)
    if spent and status in (400, 402, 403, 429, None):
        return "quota"
    if status == 400 and ("api_key" in codes or "incorrect api key" in message):
        return "auth"  # xAI
    if status is not None and status in _KIND_BY_STATUS:
        return _KIND_BY_STATUS[status]
    if status is not None and 300 <= status < 500:
        return "invalid"
    return "overloaded" if "overloaded" in codes or "overloaded" in message else "server"


def error_info(status: int | None, body: bytes) -> ErrorInfo:
    """An error in any of the shapes that servers of the OpenAI family use."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        text = body[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").strip()
        return error_from(status, text or "no explanation")
    return error_from(status, found)


def error_from(status: int | None, found: Any) -> ErrorInfo:
    """The same from decoded JSON: the object itself, its ``error``, a list of one, bare text."""
    if isinstance(found, list):  # Google's
        found = next((item for item in found if isinstance(item, Mapping)), None)
    inner = found
    if isinstance(found, Mapping):
        inner = found.get("error") or found
        if isinstance(inner, str):
            inner = {**found, "message": inner}
    if not isinstance(inner, Mapping):
        inner = {} if inner is None else {"message": str(inner)}
    code = _word(inner.get("code"))
    kind_word = _word(inner.get("type"))
    details, metadata = _inner(inner, "details"), _inner(inner, "metadata")
    codes = (code, kind_word, _word(details.get("error_code")), _word(metadata.get("error_type")))
    if status is None:
        status = _implied(inner, codes)
    message = _message(inner)
    kind = classify(status, " ".join(map(str, codes)).lower(), message[:500].lower())
    if kind == "auth" and (metadata.get("reasons") or metadata.get("patterns")):
        kind = "invalid"  # OpenRouter: 403 for what was asked, not for who asks
    availability = _inner(inner, "availability")
    word, wait = availability.get("retryable"), availability.get("retry_after")
    return ErrorInfo(
        message=message[:EXCERPT_CHARS],
        kind=kind,
        status=status,
        code=code,
        type=kind_word,
        metadata=metadata or details or None,
        should_retry=word if isinstance(word, bool) else None,
        retry_after=float(wait)
        if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait < 1e9
        else None,
    )


def _inner(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = found.get(key)
    return value if isinstance(value, Mapping) else {}


def _implied(inner: Mapping[str, Any], codes: tuple[str | None, ...]) -> int | None:
    """The HTTP status that an in-band error's code or type stands for."""
    for word in (inner.get("code"), inner.get("status_code"), inner.get("status")):
        number = int(word) if isinstance(word, str) and word.isdecimal() and len(word) < 5 else word
        if isinstance(number, int) and 300 <= number < 600:
            return number
    return next((_STATUS_BY_WORD[w] for w in codes if w in _STATUS_BY_WORD), None)


def _word(value: Any) -> str | None:
    return None if value in (None, "") or isinstance(value, bool) else str(value)[:100]


def _message(inner: Mapping[str, Any]) -> str:
    for key in ("message", "detail", "msg", "error_description", "title"):
        value = inner.get(key)
        if isinstance(value, Mapping):  # Mistral puts FastAPI's list in here
            value = value.get("detail")
        if isinstance(value, str) and value.strip():
            raw = inner.get("metadata")
            more = raw.get("raw") if isinstance(raw, Mapping) else None
            return f"{value} ({more})" if isinstance(more, str) and more else value
        if isinstance(value, list):  # FastAPI's validation errors echo the input: take the words
            said = [str(v.get("msg")) for v in value if isinstance(v, Mapping) and v.get("msg")]
            if said:
                return "; ".join(said)
    return str(_word(inner.get("type")) or _word(inner.get("code")) or "no explanation")
