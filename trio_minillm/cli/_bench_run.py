"""One ``trio-minillm bench`` command: its progress, its end, and its report."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any

import trio

import trio_minillm as llm

from ._bench_load import Load, Plan
from ._costs import cost_fields, cost_text
from ._live import LiveRun, Progress
from ._measurements import Results, seconds_text
from ._output import Row, error_code, one_line, usd

SPEED_OVER = 5.0
"""Seconds over which the status line takes its chunks/s."""


class Bench(LiveRun):
    """One benchmark as its user sees it."""

    noun = "stream"

    def __init__(self, plan: Plan, secret: str, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.load = Load(plan, secret)
        self.secret = secret
        self.ledger = self.load.ledger
        self.began = datetime.now(UTC)
        self._streams = trio.CancelScope()
        self._phase: Results | None = None
        self._states = deque[tuple[float, int]]()
        """Recent times with the count of chunks then, oldest first."""

    async def work(self) -> None:
        try:
            with self._streams:
                await self.load.run(self.leaving)
        finally:
            self.error = self.load.error

    def stop(self) -> int:
        running = self.load.running
        self.load.stop("interrupted")
        if not running:
            self._streams.cancel()
        return running

    def cancel(self) -> None:
        self._streams.cancel()

    def progress(self) -> Progress:
        now, states = self.load.now, self._states
        if self._phase is not now:  # a new phase counts from 0
            self._phase = now
            states.clear()
            states.append((now.first_sent or trio.current_time(), 0))
        elif len(states) > max(1, int(SPEED_OVER / self.every)):
            states.popleft()
        states.append((trio.current_time(), self.load.chunks))
        return Progress(self._status(*states[0]), bool(now.failed))

    def _status(self, since: float, chunks: int) -> str:
        """Return ``12 done, 0 failed, 8 running · 812 chunks/s · …``.

        Chunks/s count from ``since``, when there were so many ``chunks``. Most servers give a
        token count only at the end of an answer, so tokens/s are those of the whole phase so far.
        """
        results, now = self.load.now, trio.current_time()
        gone = max(now - since, 1e-9)
        done = (
            f"{results.finished:,} done, {results.failed:,} failed, {self.load.running:,} running"
        )
        parts = [done] if results is self.load.measured else ["warming up", done]
        parts.append(f"{_short((self.load.chunks - chunks) / gone)} chunks/s")
        if self.load.tokens and results.first_sent is not None:
            so_far = self.load.tokens / max(now - results.first_sent, 1e-9)
            parts.append(f"{_short(so_far)} tokens/s")
        if self.ledger.total:
            parts.append(f"${usd(self.ledger.total)}")
        ttft = results.latencies.ttft
        if ttft.count:
            p50, p99 = map(seconds_text, ttft.percentiles(50, 99))
            parts.append(f"TTFT p50 {p50} p99 {p99}")
        if self.load.stopped:
            parts.append("stopping")
        return " · ".join(parts)

    # -- the end -----------------------------------------------------------------------------

    def exit_code(self) -> int:
        results = self.load.measured
        if self.interrupted:
            return 128 + self.interrupted
        if self.error is not None:
            return error_code(self.error)
        if results.finished and results.finished == results.sent:
            return 0
        if results.finished:
            return 6
        return error_code(self.fatal) if self.fatal is not None else 6

    @property
    def fatal(self) -> Exception | None:
        """The commonest failure, if no answer was whole."""
        if self.interrupted or self.load.measured.finished:
            return None
        return self.load.measured.failures.commonest or self.load.warmup.failures.commonest

    def summary(self) -> tuple[Results, list[Row]] | None:
        if self.error is not None and not (self.load.measured.sent or self.load.warmup.sent):
            return None
        return self.load.measured, self.rows()

    def notes(self) -> list[str]:
        """Return what qualifies the results."""
        stopped = (
            [f"stopped: {self.load.stopped}"] if self.load.stopped and self.error is None else []
        )
        return stopped + self.load.measured.notes()

    def rows(self) -> list[Row]:
        """Return the lines below the table."""
        rows = self.load.measured.rows()
        costs = self.ledger.by_meta("bench")
        rows.append(("cost", cost_text(costs.get("measured"))))
        if self.load.compared is not None:
            rows += self.load.compared.rows(self.ledger)
        if self.load.warmup.sent:
            warm = f"{self.load.warmup.finished:,} of {self.load.warmup.sent:,} finished"
            spent = costs.get("warmup")
            warm += f" · ${usd(spent.total)}" if spent is not None and spent.total else ""
            rows += [("warm-up", warm), *self.load.warmup.failures.rows()]
        return rows + [("note", one_line(note)) for note in self.notes()]

    def fields(self, name: str) -> dict[str, Any]:
        costs, warm = self.ledger.by_meta("bench"), self.load.warmup
        found = self.load.measured.fields()
        found["counts"]["warmup"] = {"sent": warm.sent, "finished": warm.finished}
        return {
            "version": llm.__version__,
            "at": self.began,
            "config": self.load.plan.fields(name),
            **found,
            "cost": cost_fields(costs.get("measured"), costs.get("warmup")),
            **(
                {}
                if self.load.compared is None
                else {"hedge": self.load.compared.fields(self.ledger)}
            ),
            "errors": [*warm.failures.fields(), *self.load.measured.failures.fields()],
            "notes": self.notes(),
        }


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
