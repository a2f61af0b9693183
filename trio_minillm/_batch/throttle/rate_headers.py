"""Reading of the rate limits that a provider states in the headers of its responses. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

Unit = Literal["requests", "tokens"]


class RateLimit(NamedTuple):
    """One rate limit as headers state it; a field they leave out is ``None``."""

    unit: Unit
    limit: float | None
    """Requests or tokens in the provider's window, mostly a minute."""
    remaining: float
    reset: float | None
    """Seconds until all of the limit is available again."""


def _headers(pattern: str) -> tuple[tuple[Unit, str, str, str], ...]:
    units: tuple[Unit, Unit] = ("requests", "tokens")
    words = ("limit", "remaining", "reset")
    names = {unit: [pattern.format(unit=unit, word=word) for word in words] for unit in units}
    return tuple((unit, names[unit][0], names[unit][1], names[unit][2]) for unit in units)


_FAMILIES: dict[str, tuple[tuple[Unit, str, str, str], ...]] = {
    "openai": _headers("x-ratelimit-{word}-{unit}"),
    "anthropic": _headers("anthropic-ratelimit-{unit}-{word}"),
    "plain": (("requests", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),),
}
"""Names of the headers for limit, remaining and reset, by naming scheme: OpenAI's (also Azure's,
Groq's and Mistral's), Anthropic's, and the older plain one (OpenRouter's)."""


def family_of(headers: Mapping[str, str]) -> str | None:
    """Return the naming scheme that these headers follow, ``None`` if they state no rate limit."""
    for name, rows in _FAMILIES.items():
        if any(row[2] in headers for row in rows):
            return name
    return None


def limits_in(headers: Mapping[str, str], family: str, *, epoch: float) -> list[RateLimit]:
    """Return the rate limits that a response's headers state; values that can't be read are
    passed over.

    Names of headers are in lower case. ``epoch`` is the time of day in seconds since 1970.
    """
    found = []
    for unit, limit, remaining, reset in _FAMILIES[family]:
        left = _number(headers.get(remaining))
        if left is not None:
            until = seconds_until(headers.get(reset, ""), epoch=epoch)
            found.append(RateLimit(unit, _number(headers.get(limit)), left, until))
    return found


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0 <= value < 1e15 else None


_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)


def seconds_until(text: str, *, epoch: float) -> float | None:
    """Return the seconds from ``epoch`` until the moment that a reset header names, ``None`` if it
    can't be read.

    The header may be a duration (``6m0s``, ``120ms``), a date (RFC 3339), a number of seconds, or
    a time of day in seconds or milliseconds since 1970.
    """
    text = text.strip()[:64]
    number = _number(text)
    if number is not None:
        if number > 1e11:  # milliseconds since 1970
            number /= 1000.0
        return max(0.0, number - epoch) if number > 1e9 else number
    parts = _DURATION.fullmatch(text)
    if text and parts is not None:
        return sum(float(n) * s for n, s in zip(parts.groups(), _SECONDS, strict=True) if n)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - epoch)
