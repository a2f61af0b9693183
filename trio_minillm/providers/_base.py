"""What a provider is: a stateless translator between our vocabulary and one wire.

A new wire is one subclass of `Provider`, in this package or outside of it. It never waits,
never accumulates and keeps nothing between two calls: the client does the waiting, the
ingest machine the accumulating. `trio_minillm.testing.check_provider` checks one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeAlias

import msgspec

from .._chunks import StreamChunk, Usage
from .._cost import CostInfo, TokenPrice, exact, native_cost, priced_cost
from .._errors import EXCERPT_CHARS, ErrorInfo, ErrorKind, ProviderError
from .._messages import Message
from .._params import PARAM_NAMES

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
        for value in (self.api_key, *self.headers.values()):
            if value is not None and not _sendable(value):
                raise ValueError(_UNPRINTABLE)
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url must begin with http:// or https://")

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
    """Base of all providers; subclasses give at least `endpoint_url` … `parse_response`.

    Guarantees that a subclass must keep: every method is a pure function of its arguments;
    the parsing methods raise only this library's errors (or msgspec's, ``UnicodeError`` and
    ``RecursionError``, which the caller turns into a `ProtocolError` that names the event).
    """

    name: ClassVar[str] = ""
    """Short name of the dialect, as in ``trio-minillm chat --model NAME:…``."""
    replay_wire: ClassVar[str] = ""
    """Whose reasoning and opaque blocks these are: they go back on the same wire only."""
    always_usage: ClassVar[bool] = False
    """True where the wire ends with usage whatever the request says."""

    def endpoint_url(self, model: Model) -> str:
        """The URL that takes the request."""
        raise NotImplementedError

    def auth_headers(self, model: Model) -> dict[str, str]:
        """The headers that carry the key, and those that the wire demands."""
        raise NotImplementedError

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
        """One *named* event. By default ``error`` is a failure, other names say nothing."""
        if event == "error":
            parsed = None
            with suppress(msgspec.MsgspecError):
                parsed = self.parse_chunk(data)
            if parsed is None or (isinstance(parsed, StreamChunk) and not parsed.progress):
                raise ProviderError(self.parse_error(None, data))
            return parsed
        return self.parse_chunk(data)

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        """The body of an answer that was not streamed, as the chunks it would have been."""
        raise NotImplementedError

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


def _sendable(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


def body_of(request: Request, body: dict[str, Any]) -> dict[str, Any]:
    """The body with ``extra`` added. An extra key that is a typed parameter, or that the body
    has already, is a ``ValueError``: two places must not decide one thing.
    """
    merged = {**request.model.extra, **request.extra}
    clash = sorted(set(merged) & (set(body) | PARAM_NAMES | {"messages", "stream"}))
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
)
_QUOTA_PHRASES = (
    "credit balance is too low",
    "exceeded your current quota",
    "insufficient balance",
    "insufficient credits",
    "insufficient funds",
    "used all available credits",
    "monthly spending limit",
    "reached your specified api usage limits",
)

_STATUS_BY_WORD = {
    "invalid_request_error": 400,
    "invalid_request": 400,
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
    "provider_overloaded": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def classify(status: int | None, codes: str, message: str) -> ErrorKind:
    """The kind of an error by its status and the provider's own words (lower case)."""
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
    except (msgspec.MsgspecError, RecursionError):
        text = body[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").strip()
        return error_from(status, text or "no explanation")
    return error_from(status, found)


def error_from(status: int | None, found: Any) -> ErrorInfo:
    """The same from decoded JSON: the object itself, its ``error``, or bare text."""
    inner = found
    if isinstance(found, Mapping):
        inner = found.get("error") or found
        if isinstance(inner, str):
            inner = {**found, "message": inner}
    if not isinstance(inner, Mapping):
        inner = {"message": str(inner)}
    code = _word(inner.get("code"))
    kind_word = _word(inner.get("type"))
    if status is None:
        status = _implied(inner, code, kind_word)
    message = _message(inner)
    details = inner.get("details") if isinstance(inner.get("details"), Mapping) else {}
    metadata = inner.get("metadata") if isinstance(inner.get("metadata"), Mapping) else {}
    codes = (code, kind_word, details.get("error_code"), metadata.get("error_type"))
    return ErrorInfo(
        message=message[:EXCERPT_CHARS],
        kind=classify(status, " ".join(map(str, codes)).lower(), message[:500].lower()),
        status=status,
        code=code,
        type=kind_word,
        metadata=metadata or details or None,
        should_retry=_availability(inner),
    )


def _availability(inner: Mapping[str, Any]) -> bool | None:
    """OpenRouter's own word on whether to try again."""
    found = inner.get("availability")
    word = found.get("retryable") if isinstance(found, Mapping) else None
    return word if isinstance(word, bool) else None


def _implied(inner: Mapping[str, Any], code: str | None, kind: str | None) -> int | None:
    """The HTTP status that an in-band error's code or type stands for."""
    for word in (inner.get("code"), inner.get("status_code"), inner.get("status"), code):
        number = int(word) if isinstance(word, str) and word.isdecimal() and len(word) < 5 else word
        if isinstance(number, int) and 300 <= number < 600:
            return number
    return next((_STATUS_BY_WORD[w] for w in (code, kind) if w in _STATUS_BY_WORD), None)


def _word(value: Any) -> str | None:
    return None if value in (None, "") or isinstance(value, bool) else str(value)[:100]


def _message(inner: Mapping[str, Any]) -> str:
    for key in ("message", "detail", "msg", "error_description", "title"):
        value = inner.get(key)
        if isinstance(value, str) and value.strip():
            raw = inner.get("metadata")
            more = raw.get("raw") if isinstance(raw, Mapping) else None
            return f"{value} ({more})" if isinstance(more, str) and more else value
        if isinstance(value, list):  # FastAPI's validation errors echo the input: take the words
            said = [str(v.get("msg")) for v in value if isinstance(v, Mapping) and v.get("msg")]
            if said:
                return "; ".join(said)
    return str(_word(inner.get("type")) or _word(inner.get("code")) or "no explanation")
