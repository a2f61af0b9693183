"""The status line of a ``batch`` command."""

from __future__ import annotations

from collections import deque

import trio

from trio_minillm.batch import Attempt, BatchStatistics

from .._batch.throttle.controls import duration, shown
from .._protocol.redaction import redact_beginnings
from ._batch_report import BatchSums
from ._costs import cost_text
from ._measurements import seconds_text
from ._output import one_line

SPEED_OVER = 30.0
"""Seconds over which the status line takes its rates."""


class BatchStatus:
    """The texts of a run's status line, one after the other."""

    def __init__(self, sums: BatchSums, secret: str) -> None:
        self._sums = sums
        self._secret = secret
        self._states = deque[tuple[float, int, int, int]]()
        """Recent times with the counts of requests, chunks and tokens then, oldest first."""
        self._before = 0

    def text(
        self, stats: BatchStatistics, *, every: float, before: int = 0, stopping: bool = False
    ) -> str:
        """Return ``1,204 of 5,000 done, 3 failed, 64 running, waiting: retry 2 · ETA 2 min · …``.

        To be called each ``every`` seconds: rates are over the last `SPEED_OVER`. ``before`` is the
        number of this run's results that these statistics leave out. Chunks and tokens are counted
        when an answer ends.
        """
        sums, states, now = self._sums, self._states, trio.current_time()
        if before != self._before:  # the counts are those of another batch now
            self._before = before
            states.clear()
        if len(states) > int(SPEED_OVER / every):
            states.popleft()
        states.append((now, stats.done, stats.chunks, stats.completion_tokens))
        since, done, chunks, tokens = states[0]
        # Requests that wait for others to end are just the next in line: nothing holds them up.
        waits = [
            f"{name} {n:,}" for name, n in stats.waiting.items() if n and name != "concurrency"
        ]
        earlier = f" ({n:,} before)" if (n := sums.before["finished"]) else ""
        parts = [
            f"{stats.done + before:,} of {sums.todo:,} done{earlier}, {stats.failed:,} failed,"
            f" {stats.running:,} running" + (f", waiting: {', '.join(waits)}" if waits else "")
        ]
        controls = self.held_up(stats)
        parts += controls
        delayed = stats.waiting.get("pause") or stats.waiting.get("retry")
        if delayed and not controls and stats.newest_failure is not None:
            parts.append(f"newest error {failure_name(stats.newest_failure)}")
        gone = max(now - since, 1e-9)
        speed = (stats.done - done) / gone
        if stopping:
            parts.insert(0, "stopping")
        elif speed > 0:
            parts.append(f"ETA {duration((sums.todo - before - stats.done) / speed)}")
        if sums.ledger.attempts:
            parts.append(f"cost {cost_text(sums.ledger.totals).partition(' (')[0]}")
        parts.append(f"{(stats.chunks - chunks) / gone:,.0f} chunks/s")
        parts.append(f"{(stats.completion_tokens - tokens) / gone:,.0f} tokens/s")
        if stats.ttft_p50 is not None:
            p50, p99 = seconds_text(stats.ttft_p50), seconds_text(stats.ttft_p99)
            parts.append(f"TTFT p50 {p50} p99 {p99}")
        return " · ".join(parts)

    def held_up(self, stats: BatchStatistics) -> list[str]:
        """Return what the server or this machine holds down now."""
        return [
            one_line(redact_beginnings(text, self._secret), 200) for text in shown(stats.controls)
        ]


def failure_name(attempt: Attempt) -> str:
    """Return the class of an attempt's error and what distinguishes it: ``SendError refused``."""
    words = (attempt.error, attempt.reason, attempt.kind, attempt.status)
    return one_line(" ".join(str(word) for word in words if word is not None), 60)
