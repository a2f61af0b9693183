"""The status line of a ``bench`` command."""

from __future__ import annotations

from collections import deque

import trio

import trio_minillm as llm

from .._bench.engine import Engine, Run
from .._bench.output.table import seconds_text
from .._bench.record import Record, kind_of_failure
from ._output import usd

SPEED_OVER = 5.0
"""Seconds over which the status line takes its chunks/s."""
MAX_RECENT = 10_000
"""Newest times to the first content of which the status line shows percentiles."""


class Watch:
    """The counts of the phase that runs, for the status line."""

    def __init__(self) -> None:
        self.phase: tuple[int, str] = (0, "")
        """The run whose phase is counted, and that phase."""
        self.finished = self.failed = 0
        self._began = 0.0
        self._ttft = deque[float](maxlen=MAX_RECENT)
        self._kinds: dict[tuple[str | None, ...], int] = {}
        self._states = deque[tuple[float, int]]()
        """Recent times with the count of chunks then, oldest first."""

    def add(self, record: Record, run: Run) -> None:
        """Count a request of a run that has ended."""
        self._look_at(run)
        if record.whole:
            self.finished += 1
            if record.first is not None:
                self._ttft.append(record.first - record.sent)
        elif record.failure is not None:
            self.failed += 1
            kind = kind_of_failure(record)
            if kind in self._kinds or len(self._kinds) < MAX_RECENT:
                self._kinds[kind] = self._kinds.get(kind, 0) + 1

    def _look_at(self, run: Run) -> None:
        """Count from 0 if the run is a new one, or in a new phase."""
        if self.phase != (id(run), run.phase):
            self.phase, self._began = (id(run), run.phase), trio.current_time()
            self.finished = self.failed = 0
            self._states.clear()
            self._ttft.clear()

    def commonest(self, engine: Engine | None) -> llm.MiniLLMError | None:
        """Return the newest error of the commonest kind of failure."""
        errors = {} if engine is None or engine.run is None else engine.run.errors
        kinds = [kind for kind in self._kinds if kind in errors]
        return errors[max(kinds, key=self._kinds.__getitem__)] if kinds else None

    def text(self, engine: Engine, every: float, ledger: llm.Ledger) -> str:
        """Return ``12 done, 0 failed, 8 running · 812 chunks/s · …``.

        Most servers give a token count only at the end of an answer, so tokens/s are those of the
        whole phase so far.
        """
        run, now = engine.run, trio.current_time()
        if run is None:
            return ""
        self._look_at(run)
        if len(self._states) > max(1, int(SPEED_OVER / every)):
            self._states.popleft()
        self._states.append((now, run.chunks))
        since, chunks = self._states[0]
        done = f"{self.finished:,} done, {self.failed:,} failed, {run.running:,} running"
        parts = ["warming up", done] if run.phase == "warmup" else [done]
        parts.append(f"{_short((run.chunks - chunks) / max(now - since, 1e-9))} chunks/s")
        if run.tokens and now > self._began:
            parts.append(f"{_short(run.tokens / max(now - self._began, 1e-9))} tokens/s")
        if ledger.total:
            parts.append(f"${usd(ledger.total)}")
        if self._ttft:
            times = sorted(self._ttft)
            p50, p99 = times[(len(times) - 1) // 2], times[-(-99 * len(times) // 100) - 1]
            parts.append(f"TTFT p50 {seconds_text(p50)} p99 {seconds_text(p99)}")
        if engine.stopped:
            parts.append("stopping")
        return " · ".join(parts)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
