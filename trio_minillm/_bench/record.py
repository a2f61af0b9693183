"""The record of one request: every time that was observed of it."""

from __future__ import annotations

import time

import msgspec
import trio

ALONE, MEASURED, WARMUP = "alone", "measured", "warmup"
"""Phases: the requests to the first model alone in a comparison, those that count, and those before."""
READINGS = 10
"""Of two clocks, to know how far they are apart."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The error that ended a request. Its message has no key in it, and no prompt."""

    type: str
    """The error's class."""
    kind: str | None = None
    """Kind of a refusal, or of an error of the provider's: ``rate_limit``, ``server`` …"""
    status: int | None = None
    """HTTP status."""
    code: str | None = None
    """The server's own word for it."""
    clock: str | None = None
    """Clock that ran out: ``first_chunk``, ``idle`` …"""
    message: str = ""


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request. Times are seconds on the machine's monotonic clock, which all processes share.

    ``None`` is a time that was not reached, or a number that nobody told.
    """

    number: int
    """Number of the request within its phase, from 0, over all processes; that of its first turn, for the
    later turns of a conversation."""
    phase: str = MEASURED
    worker: int = 0
    """Number of the process that sent it."""
    turn: int = 0
    """Number of the turn of its conversation, from 0."""
    scheduled: float
    """Time at which the load wanted it to start."""
    sent: float
    """Time at which the request was out: its last byte was handed to the socket. Where that is not known
    of one request alone (several attempts, several models, no answer), it is ``called``."""
    called: float | None = None
    """Time at which the call was made: between it and ``sent`` are the connection, a key that has to be
    fetched, and this program's own work."""
    headers: float | None = None
    """Time at which the response's headers were there."""
    first_text: float | None = None
    """Time of the first text."""
    first_reasoning: float | None = None
    """Time of the first reasoning."""
    stamps: list[float] = []
    """Times of the chunks with content, in order: when the machine received them, where it tells that
    (Linux), or else when they were read."""
    lag: float = 0.0
    """Seconds from the machine's receipt of the first content to its being read; they are in no time here
    but ``ended``."""
    counts: list[int] = []
    """Output tokens that the server had counted by each of ``stamps``; empty if it did not say."""
    ended: float
    """Time at which the stream was over."""
    outcome: str | None = None
    """One of the values of `Outcome`; None if nothing was sent."""
    reason: str | None = None
    """The finish reason."""
    failure: Failure | None = None
    attempts: int = 1
    """Requests that were sent for it; 0 if none was."""
    hedged: bool = False
    """True if several models could be asked at once: ``attempts`` has the requests to all of them."""
    request_id: str | None = None
    """The server's name of it, by which its log can be searched."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that the server took from its cache."""
    output_tokens: int | None = None
    """Output tokens by the server's final usage, reasoning included."""
    reasoning_tokens: int | None = None
    cost: str | None = None
    """USD, exactly; None if it is not known."""
    asked_tokens: int | None = None
    """Prompt tokens that were wanted of a synthetic prompt."""

    @property
    def first(self) -> float | None:
        """Time of the first content of any kind."""
        return self.stamps[0] if self.stamps else None

    @property
    def last(self) -> float | None:
        """Time of the last content."""
        return self.stamps[-1] if self.stamps else None

    @property
    def retries(self) -> int:
        """Requests that were sent because an earlier one had failed, as far as they can be told apart."""
        return 0 if self.hedged else max(0, self.attempts - 1)

    @property
    def whole(self) -> bool:
        """True if the answer is whole: only then do its times, chunks and tokens count."""
        return self.outcome == "finished"


def kind_of_failure(record: Record) -> tuple[str | None, ...]:
    """Return what failures are told apart by: outcome, class, kind, status and clock."""
    failure = record.failure
    if failure is None:
        return (record.outcome,)
    status = None if failure.status is None else str(failure.status)
    return (record.outcome, failure.type, failure.kind, status, failure.clock)


def clock_offset() -> float:
    """Return the seconds to add to Trio's clock to get the monotonic one, to a few microseconds.

    Trio's has an origin of its own in each run. Under a mocked clock the two have nothing to do with
    each other, and the offset is that of the moment. Another process may have its turn between the
    readings of the clocks, so they are read several times.
    """
    return min((_offset() for _ in range(READINGS)), key=lambda found: found[1])[0]


def _offset() -> tuple[float, float]:
    """Return the offset by two readings, and the seconds by which it may be too large.

    It is never too small: the time of a content must not lie before the read that brought it, or it
    would be taken for one of the read before.
    """
    before, there, after = time.perf_counter(), trio.current_time(), time.perf_counter()
    return after - there, after - before
