"""Who is tried again, when, and who ends the whole run. Pure.

There is one layer of retry, this one: a request of a batch is sent by a stream that tries once.
"""

from __future__ import annotations

from ..._types.errors import (
    MiniLLMError,
    ProviderError,
    RefusedError,
    SendError,
    StreamTimeout,
    StreamTruncated,
)
from ..._types.options import Retry

BATCH_RETRY = Retry(attempts=6, base_delay=1.0, max_delay=60.0, max_retry_after=600.0)
"""More patient than a single call's: nobody watches, and a failure costs a second run."""
ALLOWANCE = 100
"""Retries that a run has beyond its share, and beyond one for everything under way at a time."""
RATE_REFUSALS = 8
"""Refusals for rate that count as one attempt."""

_PASSING = ("rate_limit", "overloaded", "timeout", "server")


def asked_to_wait(error: MiniLLMError) -> float | None:
    """Seconds that the server asked for."""
    if isinstance(error, RefusedError):
        return error.retry_after
    return error.info.retry_after if isinstance(error, ProviderError) else None


def may_pass(error: MiniLLMError) -> bool:
    """Whether another attempt may succeed. Unlike in a single stream, a broken answer is tried
    again as well: nobody has seen it.
    """
    if isinstance(error, RefusedError):
        return error.info.retryable
    if isinstance(error, ProviderError):
        return error.info.should_retry is not False and error.kind in _PASSING
    return isinstance(error, SendError | StreamTruncated | StreamTimeout)


def retry_in(
    error: MiniLLMError, *, attempt: int, retry: Retry, remaining: float, random: float
) -> float | None:
    """Seconds until the next attempt, or ``None`` to give up now.

    ``attempt`` counts those made (see `counted`); ``remaining`` is what the item's deadline leaves; ``random`` is
    uniform in [0, 1) (full jitter). What the server asks for is waited for, and a little more,
    so that not all come back at once.
    """
    if attempt >= retry.attempts or not may_pass(error):
        return None
    spread = min(retry.max_delay, retry.base_delay * 2.0 ** min(attempt - 1, 32))
    asked = asked_to_wait(error)
    if asked is None:
        wait = random * spread
    elif asked > retry.max_retry_after:
        return None
    else:
        wait = asked + random * min(spread, 0.1 * asked + 0.1)
    return None if wait >= remaining else wait


def counted(attempts: int, refused_for_rate: int) -> int:
    """How many attempts count. Refusals for rate are how a limit is found, and cost nothing: eight
    are one attempt.
    """
    return attempts - refused_for_rate + -(-refused_for_rate // RATE_REFUSALS)


def ends_the_run(error: MiniLLMError) -> bool:
    """Whether all further requests would meet with the same: nothing left to spend, a wrong key."""
    if not isinstance(error, RefusedError | ProviderError):
        return False
    return error.kind == "quota" or error.status == 401


class RetryBudget:
    """Retries in proportion to requests, so that a failing server gets no multiple of its load.

    Refusals for rate are not counted: lanes see to it that they are few.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._earned = 0.0
        self._spent = 0
        self._peak = 0

    def sent(self, in_flight: int) -> None:
        """A request was sent for the first time."""
        self._earned += self._share
        self._peak = max(self._peak, in_flight)

    def spend(self, error: MiniLLMError) -> bool:
        """Whether there may be another attempt after this error; counts it."""
        if isinstance(error, RefusedError) and error.kind == "rate_limit":
            return True
        if self._spent >= self._earned + ALLOWANCE + self._peak:
            return False
        self._spent += 1
        return True
