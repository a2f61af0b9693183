"""Clocks and retries as frozen values, and the retry decision as a function of values.

Nothing here waits or knows the time: `Retry.delay` is told everything it depends on.
"""

from __future__ import annotations

import math
import re
from datetime import UTC
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from .errors import ConnectTimeout, MiniLLMError, ProviderError, RefusedError, SendError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The clocks of a stream, in seconds; ``None`` turns one off.

    A consumer that is slow to take chunks never trips any of them: they stand still while
    the buffer to it is full.
    """

    connect: float | None = 10.0
    """Name look-up, TCP, TLS and sending the request. 10 s: three SYN retries fit."""
    first_chunk: float | None = 300.0
    """From then to the first content. Reasoning models think for minutes, and some
    servers hold back even the headers until then."""
    idle: float | None = 120.0
    """Silence between content. Keep-alive comments and pings are silence."""
    byte_idle: float | None = 120.0
    """No bytes at all, comments included."""
    total: float | msgspec.UnsetType | None = msgspec.UNSET
    """From the start to the end, retries and their waits included. Unless set: none for a
    stream, since someone watches it; 600 s for `Client.complete`, since no one does."""
    usage_grace: float | None = 1.0
    """How long to wait for usage, once the finish reason and all content are here. Servers
    send it within milliseconds or not at all."""
    settlement: float | None = 30.0
    """How long a provider is asked what a stream cost that ended without a final figure;
    ``None``: not at all. 30 s: OpenRouter's answer takes up to 20."""

    def __post_init__(self) -> None:
        if self.settlement == math.inf:
            raise ValueError("settlement must have an end, since a client's block waits for it")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value is not msgspec.UNSET:
                _check_seconds(name, value)

    def with_total(self, default: float | None) -> Timeouts:
        """The same with ``total`` decided."""
        if self.total is not msgspec.UNSET:
            return self
        return msgspec.structs.replace(self, total=default)


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When and how often to try again. Only before the first chunk, never after.

    Tried again: requests that could not be sent or died before an answer began, HTTP 408,
    409, 429 and 5xx, and the same reported in-band as a stream's first event. Never: an
    exhausted quota, a wrong key, a wrong request, a broken stream.
    """

    attempts: int = 3
    """Requests in all; 1 turns retries off."""
    base_delay: float = 0.5
    """Upper end of the first wait, in seconds; it doubles with every attempt."""
    max_delay: float = 8.0
    """Upper end of any wait that the server did not ask for, in seconds."""
    max_retry_after: float = 60.0
    """The longest wait that a server may ask for; above it the error is raised at once."""

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError("attempts must be a whole number from 1 on")
        for name in ("base_delay", "max_delay", "max_retry_after"):
            _check_seconds(name, getattr(self, name))

    def delay(
        self, error: MiniLLMError, *, attempt: int, remaining: float, random: float
    ) -> float | None:
        """Seconds to wait before the next attempt, or ``None`` to give up now.

        ``attempt`` counts those made so far; ``remaining`` is what the total clock leaves, in
        seconds; ``random`` is uniform in [0, 1). Waits are full-jitter, so that many clients
        that failed together don't return together. A wait that would outlast ``remaining``
        is not begun.
        """
        if attempt >= self.attempts or not retryable(error):
            return None
        asked = None
        if isinstance(error, RefusedError):
            asked = error.retry_after
        elif isinstance(error, ProviderError):
            asked = error.info.retry_after
        if asked is not None:
            wait = asked if asked <= self.max_retry_after else None
        else:
            wait = random * min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 32))
        return None if wait is None or wait >= remaining else wait


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent. No attempt starts once it is: `BudgetExceeded` is raised instead.

    What counts is known spending: the costs and tokens of attempts that have ended, of failed
    ones too, as far as they are known. Attempts that are under way can carry the sum past the
    limit; what becomes of them then is ``running``.
    """

    max_cost: Decimal | float | int | None = None
    """USD."""
    max_tokens: int | None = None
    """Input and output together."""
    running: Literal["finish", "cancel"] = "finish"
    """Attempts under way when the limit is reached: let them finish, or cancel them (their
    consumers get `BudgetExceeded`, with what had arrived)."""

    def __post_init__(self) -> None:
        cost, tokens = self.max_cost, self.max_tokens
        if cost is not None:
            number = not isinstance(cost, bool) and isinstance(cost, Decimal | float | int)
            if not number or not Decimal(cost).is_finite() or cost < 0:
                raise ValueError("max_cost must be a number of USD, 0 or more")
        if tokens is not None and (type(tokens) is not int or tokens < 0):
            raise ValueError("max_tokens must be a whole number, 0 or more")
        if self.running not in ("finish", "cancel"):
            raise ValueError("running must be 'finish' or 'cancel'")


def retryable(error: MiniLLMError) -> bool:
    """Whether an error from before the first chunk may pass by itself."""
    if isinstance(error, RefusedError | ProviderError):
        return error.info.retryable
    return isinstance(error, SendError | ConnectTimeout)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """What ``retry-after-ms`` or ``retry-after`` ask for, in seconds from ``now`` (epoch).

    The first that makes sense counts; a date without a zone is in UTC, as HTTP's are.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        number = _NUMBER.fullmatch(value.strip())
        seconds = float(number[0]) / unit if number else _until(value, now)
        if 0 <= seconds < float("inf"):
            return seconds
    return None


_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")
"""`float` takes more: ``1_000``, ``inf``, digits of other alphabets."""


def _until(date: str, now: float) -> float:
    """Seconds until an HTTP date, 0 if it is past, -1 if it is none."""
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return -1.0


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name} must be a number of seconds, 0 or more")
