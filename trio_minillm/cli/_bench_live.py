"""The status of a ``bench`` command, while it runs."""

from __future__ import annotations

from collections import deque

import msgspec
import trio

import trio_minillm as llm

from .._bench.engine import Engine, Run
from .._bench.output.table import load_text, seconds_text
from .._bench.record import WARMUP, Record, kind_of_failure
from ._output import usd
from ._terminal import sparkline

SPEED_OVER = 5.0
"""Seconds over which the status line takes its chunks/s."""
MAX_RECENT = 10_000
"""Newest times to the first content of which the status line shows percentiles."""
COLUMN, COLUMNS = 1.0, 48
"""Seconds of a column of a sparkline, and the number of its columns."""


class Column(msgspec.Struct):
    """One column of the sparklines."""

    began: float
    chunks: int
    """Contents of the phase when it began."""
    failed: int = 0
    running: int = 0
    speed: float | None = None
    """Contents per second; None at its very beginning."""
    ttft: list[float] = []

    @property
    def median(self) -> float | None:
        """Median time to the first content of what ended in it."""
        times = sorted(self.ttft)
        return times[(len(times) - 1) // 2] if times else None


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
        self._columns = deque[Column](maxlen=COLUMNS)

    def add(self, record: Record, run: Run) -> None:
        """Count a request of a run that has ended."""
        self._look_at(run)
        column = self._columns[-1] if self._columns else None
        if record.whole:
            self.finished += 1
            if record.first is not None:
                self._ttft.append(record.first - record.sent)
                if column is not None and len(column.ttft) < MAX_RECENT:
                    column.ttft.append(record.first - record.sent)
        elif record.failure is not None:
            self.failed += 1
            if column is not None:
                column.failed += 1
            kind = kind_of_failure(record)
            if kind in self._kinds or len(self._kinds) < MAX_RECENT:
                self._kinds[kind] = self._kinds.get(kind, 0) + 1

    def _look_at(self, run: Run) -> None:
        """Count from 0 if the run is a new one, or in a new phase."""
        if self.phase != (id(run), run.phase):
            self.phase, self._began = (id(run), run.phase), trio.current_time()
            self.finished = self.failed = 0
            self._states.clear()
            self._states.append((self._began, run.chunks))
            self._ttft.clear()
            self._columns.clear()

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
        self._look(now, run.chunks, run.running)
        since, chunks = self._states[0]
        done = f"{self.finished:,} done, {self.failed:,} failed, {run.running:,} running"
        parts = ["warming up", done] if run.phase == WARMUP else [done]
        if now > since:
            parts.append(f"{_short((run.chunks - chunks) / (now - since))} chunks/s")
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

    def _look(self, now: float, chunks: int, running: int) -> None:
        """Fill the newest column, and begin the next one when its time has come."""
        if not self._columns:
            self._columns.append(Column(began=now, chunks=chunks))
        column = self._columns[-1]
        if now - column.began >= COLUMN:
            column = Column(began=now, chunks=chunks)
            self._columns.append(column)
        elif now > column.began:
            column.speed = (chunks - column.chunks) / (now - column.began)
        column.running = running

    def share(self, engine: Engine) -> float | None:
        """Return how much of the load is done, from 0 to 1, if that is known."""
        if (run := engine.run) is None or run.phase == WARMUP:
            return None
        plan, parts = run.plan, []
        if plan.requests:
            parts.append((self.finished + self.failed) / plan.requests)
        if plan.duration:
            parts.append((trio.current_time() - self._began) / plan.duration)
        return min(1.0, max(parts)) if parts else None

    def lines(self, engine: Engine) -> tuple[str, ...]:
        """Return the course of the load so far, as a sparkline for each figure."""
        if engine.run is None or not self._columns:
            return ()
        columns, newest = list(self._columns), self._columns[-1]
        ttft, speed = [c.median for c in columns], [c.speed for c in columns]
        rows: list[tuple[str, list[float | None], str]] = [
            ("TTFT", ttft, seconds_text(_newest(ttft))),
            ("chunks/s", speed, _short(_newest(speed) or 0.0)),
            ("running", [column.running for column in columns], f"{newest.running:,}"),
            ("failed", [column.failed for column in columns], f"{self.failed:,}"),
        ]
        shown = [
            f"  {name:<9}{sparkline(values):<{COLUMNS}}  {text}"
            for name, values, text in rows
            if name != "failed" or self.failed
        ]
        return (f"  {load_text(engine.run.plan.load)}", *shown)


def _newest(values: list[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
