"""Parts of errors: the objects in one another, codes, statuses, limits and waits of the fields. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from ._error_codes import CODES_OF_BASE_RESP, CODES_OF_NUMBERS, plain_code, status_of
from ._error_words import CODES, FEW, NESTED, READ_CHARS, TYPES, unpacked

Levels: TypeAlias = Sequence[tuple[Mapping[str, Any], bool]]
"""The objects of an error from the outside in, each with whether it only stands beside the error."""

MAX_LEVELS: Final = 24
"""Objects of an error that are read. Gateways nest three or four of their upstream's."""
_PUT_IN = ("data", "body", "provider", "ResponseMetadata", "value")
"""Fields into which gateways put what they were sent, but which may hold the request as well: only an
error in them is read."""
_PUT_ERRORS = ("error", "Error", "error_message")
_BESIDE = ("details", "metadata", "param", "issues")
"""Those whose codes are not the error's own."""
_STATUSES = (
    *("code", "status_code", "statusCode", "status", "http_code", "http_status", "httpStatus"),
    *("httpCode", "error_code"),
)
_WAITS = {
    **dict.fromkeys(("retry_after", "retryAfter", "retry_after_seconds", "retry-after"), 1.0),
    **dict.fromkeys(("retryDelay", "retry_delay", "resets_in_seconds", "reset_in_seconds"), 1.0),
    "estimated_time": 1.0,  # Hugging Face, while a model loads
    **dict.fromkeys(("retry_after_ms", "retryAfterMs"), 0.001),
}
"""Fields that name a wait (Google's `RetryInfo`, ChatGPT's plans, many gateways), with their unit in
seconds."""
_LIMITS = ("quotaId", "quotaMetric", "quota_id", "quota_metric", "limit_name", "limitName")
_WITH_CODES = (*CODES, *TYPES, "status")
_EMPTY_TYPES = ("error", "object", "none", "null")


def levels_of(found: Any) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Yield the objects of an error from the outside in, each with whether it stands beside it."""
    waiting: list[tuple[Any, bool]] = [(found, False)]
    seen = 0
    while waiting and seen < MAX_LEVELS:
        value, beside = waiting.pop(0)
        value = unpacked(value)
        if isinstance(value, list):
            waiting += [(item, beside) for item in value[:FEW] if isinstance(item, Mapping | list)]
            seen += 1
            continue
        if not isinstance(value, Mapping):
            continue
        seen += 1
        yield value, beside or "loc" in value or "@type" in value
        for key in NESTED:
            if value.get(key):
                waiting.append((value[key], beside or (key in _BESIDE and key != "raw")))
        waiting += [(value[name], beside) for name in exceptions_in(value)]
        for inner in (object_in(value, name) for name in _PUT_IN):
            if error := {key: inner[key] for key in _PUT_ERRORS if inner.get(key)}:
                waiting.append((error, beside))


def first_of(found: Any) -> Any:
    """Return the first object of a list, as Google sends it, or else what was given."""
    if not isinstance(found, list):
        return found
    return next((item for item in found[:FEW] if isinstance(item, Mapping)), found)


def main_of(found: Any) -> Mapping[str, Any]:
    """Return the object that describes the error: the one in ``error``, or else the whole."""
    if not isinstance(found, Mapping):
        return {}
    error = found.get("error")
    return error if isinstance(error, Mapping) and error else found


def object_in(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object in a field, or an empty one."""
    value = found.get(key)
    return value if isinstance(value, Mapping) else {}


def _word(value: Any) -> str | None:
    scalar = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value)[:100] if scalar and value != "" else None


def code_of(levels: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the code of an error, or else that of its first cause with one."""
    for level in _inside_first(levels):
        for key in CODES:
            if (word := _word(level.get(key))) is not None:
                return word
        if "status_msg" in level and (word := _word(level.get("status_code"))) is not None:
            return word
    return None


def type_of(levels: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the type of an error, or else that of its first cause with one."""
    for level in _inside_first(levels):
        for key in TYPES[:4]:
            word = _word(level.get(key))
            if word is not None and word.lower() not in _EMPTY_TYPES:
                return word
    return None


def _inside_first(levels: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield an ``error`` before the object that it is in, and then what is in it."""
    if len(levels) > 1 and isinstance(levels[0].get("error"), Mapping):
        yield levels[1]
    yield from levels


def codes_of(levels: Levels) -> list[str]:
    """Return every code, type and reason, with what numbers stand for, as `kind_of` wants them."""
    out: list[str] = []
    for level, _ in levels:
        for key in [key for key in _WITH_CODES if key in level]:
            word = _word(level[key])
            if word is not None and word.lower() not in _EMPTY_TYPES:
                out.append(CODES_OF_NUMBERS.get(word) or plain_code(word))
        if "status_msg" in level:
            out.append(CODES_OF_BASE_RESP.get(str(level.get("status_code")), ""))
        out += map(plain_code, exceptions_in(level))
    return [code for code in out if code]


def implied_status(levels: Levels, codes: Sequence[str], words: str) -> int | None:
    """Return the HTTP status that an error in a stream stands for, if any: by a number, a code, the
    name of an exception, or the words ``HTTP 503``, ``Error code: 429``.
    """
    number = next(numbers_in(levels), None)
    return named_status(codes, words) if number is None else number


def named_status(codes: Sequence[str], words: str) -> int | None:
    """Return the HTTP status that codes, or the words, of an error stand for."""
    number = status_of(codes)
    return worded_status(words) if number is None else number


def worded_status(words: str) -> int | None:
    """Return the HTTP status that words name: by an exception in front, or as ``Error code: 429``."""
    number = None
    if named := re.match(_EXCEPTION, words[:READ_CHARS]):
        number = status_of((plain_code(named[1]),))
    if number is None and (found := re.search(_STATUS_WORDS, words[:READ_CHARS])):
        number = int(found[1] or found[2])
    return number


def numbers_in(levels: Levels) -> Iterator[int]:
    """Yield the HTTP statuses that fields of an error name."""
    for level, _ in levels:
        for key in _STATUSES:
            number = level.get(key)
            if isinstance(number, str) and re.fullmatch("[0-9]{3}", number):
                number = int(number)
            if isinstance(number, int) and 300 <= number < 600:
                yield number


_EXCEPTION = r"(?:[\w.]{1,60}\.)?([A-Z]\w{2,60}(?:Error|Exception))\b"
"""The name of an exception at the beginning: ``litellm.BadRequestError: …``."""

_STATUS_WORDS = r"(?i)(?:error code|status(?: code)?|http(?:/\d(?:\.\d)?)?)[\s:=]{1,3}([45]\d\d)\b|^([45]\d\d)\b"


def limits_of(levels: Levels) -> str:
    """Return the names of the limits that Google's ``QuotaFailure`` lists, as codes are written."""
    out: list[str] = []
    for level, _ in levels:
        listed = level.get("violations")
        for item in [level, *(listed[:FEW] if isinstance(listed, list) else ())]:
            if isinstance(item, Mapping):
                out += [plain_code(w) for w in map(_word, map(item.get, _LIMITS)) if w]
                if str(item.get("quotaValue")) == "0":
                    out.append("value0")
    return " ".join(out)


def availability(main: Mapping[str, Any]) -> tuple[bool | None, float | None]:
    """Return OpenRouter's advice: whether to try again, and after how many seconds."""
    found = object_in(main, "availability")
    word, wait = found.get("retryable"), found.get("retry_after")
    seconds = None if isinstance(wait, str) else _seconds(wait, 1.0)
    return word if isinstance(word, bool) else None, seconds


def wait_of(levels: Levels) -> float | None:
    """Return the seconds that a field of the error asks to wait, the longest if there are several."""
    named = [_seconds(lv[k], unit) for lv, _ in levels for k, unit in _WAITS.items() if k in lv]
    return max((seconds for seconds in named if seconds is not None), default=None)


def time_left(levels: Levels, date: str) -> float | None:
    """Return the seconds until the time, since 1970, at which a field says that a limit is renewed.

    ``date`` is the header of that name: the server's own clock.
    """
    times = [level.get(key) for level, _ in levels for key in _RENEWED]
    at = max((t for t in times if isinstance(t, int) and 1e9 < t < 1e10), default=None)
    if at is None:
        return None
    from email.utils import parsedate_to_datetime  # slow to import, and rarely needed

    try:
        left = at - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return left if left > 0 else None


_RENEWED = ("resets_at", "reset_at", "resetsAt", "resetAt")


def _seconds(value: Any, unit: float) -> float | None:
    if isinstance(value, Mapping):  # Google's duration, spelled out
        nanos = _seconds(value.get("nanos"), 1e-9) or 0.0
        value = _seconds(value.get("seconds", 0), 1.0)
        value = None if value is None else value + nanos
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,12})?)\s*s?\s*", value)
        value = float(found[1]) if found else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        return None
    return float(value) * unit


def told_by(headers: Mapping[str, str]) -> bool:
    """Return whether headers say when to come back: by name, or by a limit of which nothing is left."""
    if any(headers.get(name, "").strip() for name in ("retry-after-ms", "retry-after")):
        return True
    return any(
        "ratelimit-remaining" in name and value.strip() in ("0", "0.0")
        for name, value in headers.items()
    )


def exceptions_in(found: Mapping[str, Any]) -> list[str]:
    """Return the fields that name an exception: Amazon's event streams, through a gateway."""
    return [
        name
        for name in islice(found, FEW)
        if name.endswith("Exception") and isinstance(found[name], Mapping | list)
    ]
