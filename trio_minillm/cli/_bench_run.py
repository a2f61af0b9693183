"""What ``trio-minillm bench`` does and shows, from the first request to the last line."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any

import trio

import trio_minillm as llm

from ._bench_load import Load, Plan
from ._live import LiveRun
from ._measurements import Results, cost_fields, cost_text, seconds_text
from ._output import Answer, Row, exit_code, one_line, usd

SPEED_OVER = 5.0
"""Seconds over which the status line takes its chunks/s."""


class Bench(LiveRun):
    """One benchmark as its user sees it: how it goes, how it is stopped, what came of it."""

    noun = "stream"

    def __init__(self, plan: Plan, secret: str, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.load = Load(plan, secret)
        self.books = self.load.books
        self.began = datetime.now(UTC)
        self._streams = trio.CancelScope()
        self._phase: Results | None = None
        self._states = deque[tuple[float, int]]()

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

    def state(self) -> tuple[str, bool, float | None]:
        now, states = self.load.now, self._states
        if self._phase is not now:  # it counts anew
            self._phase = now
            states.clear()
            states.append((now.first_sent or trio.current_time(), 0))
        elif len(states) > max(1, int(SPEED_OVER / self.every)):
            states.popleft()
        states.append((trio.current_time(), self.load.chunks))
        return self.status(*states[0]), bool(now.failed), None

    def status(self, since: float, chunks: int) -> str:
        """``12 done, 0 failed, 8 running · 812 chunks/s · …``, chunks since then.

        Most servers say how many tokens there were with an answer's end only: tokens/s are those
        so far.
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
        if self.load.books.total:
            parts.append(f"${usd(self.load.books.total)}")
        if results.ttft.count:
            p50, p99 = map(seconds_text, results.ttft.percentiles(50, 99))
            parts.append(f"TTFT p50 {p50} p99 {p99}")
        if self.load.stopped:
            parts.append("stopping")
        return " · ".join(parts)

    # -- the end -----------------------------------------------------------------------------

    def exit_code(self) -> int:
        results = self.load.measured
        if self.interrupted:
            return 130
        if self.error is not None:
            return exit_code(Answer(error=self.error))
        if results.finished and results.finished == results.sent:
            return 0
        if results.finished:
            return 6
        return exit_code(Answer(error=self.fatal)) if self.fatal is not None else 6

    @property
    def fatal(self) -> Exception | None:
        """The commonest failure, where no answer was whole."""
        if self.interrupted or self.load.measured.finished:
            return None
        return self.load.measured.commonest_error or self.load.warmup.commonest_error

    def told(self) -> tuple[Results, list[Row]] | None:
        if self.error is not None and not (self.load.measured.sent or self.load.warmup.sent):
            return None
        return self.load.measured, self.rows()

    def notes(self) -> list[str]:
        """What to know of the results."""
        stopped = (
            [f"stopped: {self.load.stopped}"] if self.load.stopped and self.error is None else []
        )
        return stopped + self.load.measured.notes()

    def rows(self) -> list[Row]:
        """The lines below the table."""
        rows = self.load.measured.rows()
        costs = self.load.books.by_meta("bench")
        rows.append(("cost", cost_text(costs.get("measured"))))
        if self.load.warmup.sent:
            warm = f"{self.load.warmup.finished:,} of {self.load.warmup.sent:,} finished"
            spent = costs.get("warmup")
            warm += f" · ${usd(spent.total)}" if spent is not None and spent.total else ""
            rows += [("warm-up", warm), *self.load.warmup.error_rows()]
        return rows + [("note", one_line(note)) for note in self.notes()]

    def fields(self, name: str) -> dict[str, Any]:
        costs, warm = self.load.books.by_meta("bench"), self.load.warmup
        found = self.load.measured.fields()
        found["counts"]["warmup"] = {"sent": warm.sent, "finished": warm.finished}
        return {
            "version": llm.__version__,
            "at": self.began,
            "config": self.load.plan.fields(name),
            **found,
            "cost": cost_fields(costs.get("measured"), costs.get("warmup")),
            "errors": [*warm.errors.values(), *self.load.measured.errors.values()],
            "notes": self.notes(),
        }


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
