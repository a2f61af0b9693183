"""Decisions after a failure: try again and when, give the request up, or end the whole run. Pure.

This is the only layer of retry: a request of a batch is sent by a stream that tries once.
"""

from __future__ import annotations

from ..._types.errors import (
    MiniLLMError,
    ProviderError,
    RefusedError,
    RetriesExhausted,
    SendError,
    StreamTimeout,
    StreamTruncated,
)
from ..._types.options import Retry
from .own_fault import CERTAIN, Ticket

BATCH_RETRY = Retry(attempts=6, base_delay=1.0, max_delay=60.0, max_retry_after=3_600.0)
"""More patient than the default of a single call: nobody watches, and a failure costs a second
run. A server that asks for more than an hour is not waited for."""
ALLOWANCE = 100
"""Retries that a run has beyond its share, and beyond one for each request under way at a time."""
REFUSALS = 8
"""Refusals for rate or load that count as one attempt."""

_PASSING = ("rate_limit", "overloaded", "timeout", "server")


def server_delay(error: MiniLLMError) -> float | None:
    """Return the seconds that the server asked to wait, ``None`` if it did not."""
    if isinstance(error, RefusedError):
        return error.retry_after
    return error.info.retry_after if isinstance(error, ProviderError) else None


def worth_retrying(error: MiniLLMError) -> bool:
    """Return True if another attempt may succeed.

    Unlike in a single stream, a broken answer is tried again as well: nobody has seen it yet.
    """
    if isinstance(error, RefusedError):
        return error.info.retryable
    if isinstance(error, ProviderError):
        return error.info.should_retry is not False and error.kind in _PASSING
    if isinstance(error, SendError):
        return not error.permanent
    return isinstance(error, StreamTruncated | StreamTimeout)


def retry_delay(
    error: MiniLLMError,
    *,
    attempt: int,
    retry: Retry,
    remaining: float,
    random: float,
    well: bool = False,
) -> float | None:
    """Return the seconds until the next attempt, or ``None`` to give the request up.

    ``attempt`` counts those made (see `counted_attempts`), ``remaining`` is the seconds that the
    request's deadline leaves, and ``random`` is uniform in [0, 1) (full jitter). The waits grow, unless
    the server is ``well``: then there is nothing to wait for. The wait that a
    server asks for is kept and drawn out a little, so that not all requests return at once; one of 0
    seconds is believed once.
    """
    if attempt >= retry.attempts or not worth_retrying(error):
        return None
    waits = 0 if well else min(attempt - 1, 32)
    spread = min(retry.max_delay, retry.base_delay * 2.0**waits)
    asked = server_delay(error)
    if asked is None or (not asked and attempt > 1):
        wait = random * spread
    elif asked > retry.max_retry_after:
        return None
    else:
        wait = asked + random * min(spread, 0.1 * asked + 0.1)
    return None if wait >= remaining else wait


def counted_attempts(attempts: int, ticket: Ticket) -> int:
    """Return the number of attempts that count.

    A refusal for rate, or for load while others are accepted, costs nothing and may be chance: eight
    of them are one attempt, unless the odds are that they are the request's own fault.
    """
    if ticket.odds >= CERTAIN:
        return attempts
    return attempts - ticket.refusals + -(-ticket.refusals // REFUSALS)


def is_fatal(error: Exception | None) -> bool:
    """Return True if every further request would be refused for the same cause: an exhausted quota,
    or a wrong key (HTTP 401).

    HTTP 403 is not fatal, although it is about permission, too: it may be about one request alone.
    """
    if isinstance(error, RetriesExhausted):
        error = error.last_error
    if not isinstance(error, RefusedError | ProviderError):
        return False
    return error.kind == "quota" or error.status == 401


class RetryBudget:
    """Retries in proportion to requests, so that a failing server is not sent a multiple of its load.

    Refusals for rate or load are not counted: they cost nothing, and the lanes keep them few.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._earned = 0.0
        self._spent = 0
        self._peak = 0

    def sent(self, in_flight: int) -> None:
        """Count a request that is sent for the first time, with so many under way."""
        self._earned += self._share
        if in_flight > self._peak:
            self._peak = in_flight

    def spend(self, error: MiniLLMError) -> bool:
        """Count another attempt after this error, and return True; or False if none is left."""
        if isinstance(error, RefusedError) and error.kind in ("rate_limit", "overloaded"):
            return True
        if self._spent >= self._earned + ALLOWANCE + self._peak:
            return False
        self._spent += 1
        return True
