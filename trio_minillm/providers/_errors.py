"""Error bodies of every provider, of refusals and in streams, through one classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .._types.errors import EXCERPT_CHARS, ErrorInfo, ErrorKind

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

FEW = 64
"""Entries of a list in an error that are read: more than an excerpt of the message can show."""

# An exhausted quota is reported as 400, 402, 403 or 429. Codes are certain; of a message only whole
# phrases count, since OpenAI's *rate* limit message mentions billing and payment, too.
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
    """Return the kind of an error, by its status and the provider's own words (in lower case)."""
    if "in_flight_budget" in codes:
        return "rate_limit"  # OpenRouter: the money is reserved by requests that are still running
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


def in_short(value: Any) -> str:
    """Return a JSON value as text; only the first entries of a list, since little is shown."""
    return str(value[:FEW] if isinstance(value, list) else value)


def error_info(status: int | None, body: bytes) -> ErrorInfo:
    """Classify an error body in any of the shapes that servers of the OpenAI family use.

    ``status`` is the HTTP status, or ``None`` for an error in a stream. Never raises: a body that
    is not JSON becomes the message.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        text = body[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").strip()
        return error_from(status, text or "no explanation")
    return error_from(status, found)


def error_from(status: int | None, found: Any) -> ErrorInfo:
    """Classify an error in decoded JSON: an object, its ``error``, a list of those, or bare text."""
    if isinstance(found, list):  # Google's
        found = next((item for item in found[:FEW] if isinstance(item, Mapping)), None)
    inner = found
    if isinstance(found, Mapping):
        inner = found.get("error") or found
        if isinstance(inner, str):
            inner = {**found, "message": inner}
    if not isinstance(inner, Mapping):
        inner = {} if inner is None else {"message": in_short(inner)}
    code = _word(inner.get("code"))
    kind_word = _word(inner.get("type"))
    details, metadata = _inner(inner, "details"), _inner(inner, "metadata")
    codes = (code, kind_word, _word(details.get("error_code")), _word(metadata.get("error_type")))
    if status is None:
        status = _implied(inner, codes)
    message = _message(inner)
    kind = classify(status, " ".join(map(str, codes)).lower(), message[:500].lower())
    if kind == "auth" and (metadata.get("reasons") or metadata.get("patterns")):
        kind = "invalid"  # OpenRouter: 403 because of the content, not because of the key
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
    """Return the HTTP status that the code or type of an error in a stream stands for, if any."""
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
        if isinstance(value, list):  # FastAPI's validation errors echo the input: leave that out
            listed = [v for v in value[:FEW] if isinstance(v, Mapping)]
            said = [str(v["msg"])[:EXCERPT_CHARS] for v in listed if v.get("msg")]
            if said:
                return "; ".join(said)
    return str(_word(inner.get("type")) or _word(inner.get("code")) or "no explanation")
