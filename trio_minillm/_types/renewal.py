"""Reading of when a rate limit is renewed, from the headers in which servers state it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from .errors import MiniLLMError, ProviderError, RefusedError

_MOST = 64
"""Headers that are looked at; a server states a dozen limits at most."""
_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)


def number_of(text: str | None) -> float | None:
    """Return the number that a header has; ``None`` for anything else, and for what is no count."""
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0 <= value < 1e15 else None


def seconds_until(text: str, *, epoch: float) -> float | None:
    """Return the seconds from ``epoch`` until the moment that a reset header names, ``None`` if it
    can't be read.

    The header may be a duration (``6m0s``, ``120ms``), a date (RFC 3339), a number of seconds, or
    a time of day in seconds or milliseconds since 1970.
    """
    text = text.strip()[:64]
    number = number_of(text)
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


def until_renewed(error: MiniLLMError, *, now: float) -> float | None:
    """Return the seconds until the limits that refused a request are renewed, where headers say so
    and nothing names a wait.

    A limit is one of those if nothing of it remains; if the server does not say what remains, the
    one that is renewed first. ``now`` is the time in seconds since the epoch.
    """
    if not isinstance(error, RefusedError | ProviderError) or error.kind != "rate_limit":
        return None
    refused = error if isinstance(error, RefusedError) else None
    if refused.retry_after if refused else error.info.retry_after:
        return None
    headers = {**_quoted(error.info.metadata), **(refused.headers if refused else {})}
    used_up, unclear = list[float](), list[float]()
    for name, value in islice(headers.items(), _MOST):
        if "ratelimit" not in name or "reset" not in name:
            continue
        seconds = seconds_until(value, epoch=now)
        remaining = number_of(headers.get(name.replace("reset", "remaining")))
        if seconds is not None and not remaining:
            (unclear if remaining is None else used_up).append(seconds)
    return max(used_up) if used_up else min(unclear, default=None)


def _quoted(metadata: Any) -> dict[str, str]:
    """Return the headers that an error's body quotes (OpenRouter's ``metadata``)."""
    found = metadata.get("headers") if isinstance(metadata, Mapping) else None
    items = islice(found.items(), _MOST) if isinstance(found, Mapping) else ()
    return {str(k).lower(): v for k, v in items if isinstance(v, str)}
