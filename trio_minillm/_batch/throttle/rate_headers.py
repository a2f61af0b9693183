"""Reading of the rate limits that a provider states in the headers of its responses. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ..._types.renewal import number_of, seconds_until

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
        left = number_of(headers.get(remaining))
        if left is not None:
            until = seconds_until(headers.get(reset, ""), epoch=epoch)
            found.append(RateLimit(unit, number_of(headers.get(limit)), left, until))
    return found
