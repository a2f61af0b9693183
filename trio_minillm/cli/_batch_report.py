"""What came of a ``batch`` command: counts, the closing lines, the summary as JSON."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import trio

import trio_minillm as llm
from trio_minillm.batch import BatchOptions, BatchRequest, BatchResult, InputReport

from ._bench_load import RunLedger
from ._measurements import Results, Sample, cost_fields, cost_text
from ._output import Answer, Row, exit_code, one_line, usd

STOPPED_BY_LIMIT = 7
MAX_SHOWN = 20
"""Bad lines that are shown; ``--summary json`` has more."""


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One ``batch`` command, its options read and checked. ``model`` is None for a local one."""

    model: llm.Model | None
    path: str | None
    source: Path
    target: Path
    one_model: bool
    params: dict[str, Any]
    options: BatchOptions
    shard: tuple[int, int] | None
    skip_bad: bool
    retry_failed: bool
    dry_run: bool
    fsync: Any
    cache: Path | None
    ledger: llm.Ledger | None


class Estimate(msgspec.Struct):
    """What the requests come to at most, as far as there is a bound."""

    input_tokens: int = 0
    output_tokens: int = 0
    amount: Decimal = Decimal(0)
    unbounded: int = 0
    unpriced: int = 0

    def add(self, request: BatchRequest) -> None:
        assert request.model is not None
        found = llm.estimate(request.model, request.messages, extra=request.extra, **request.params)
        self.input_tokens += found.input_tokens or 0
        self.output_tokens += found.output_tokens or 0
        self.amount += found.amount or 0
        self.unbounded += found.input_tokens is None or found.output_tokens is None
        self.unpriced += found.amount is None


class BatchSums:
    """What one run comes to, in bounded memory."""

    def __init__(self, plan: BatchPlan, secret: str) -> None:
        self.plan = plan
        self.began = datetime.now(UTC)
        self.books = RunLedger(plan.ledger)
        self.results = Results("batch", secret)
        self.estimate = Estimate()
        self.report: InputReport | None = None
        """What the first reading of the input found, once it is over."""
        self.before: Counter[str] = Counter()
        """Requests of the input, by what the output had of them."""
        self.todo = self.lines = self.ok = self.failed = self.cached = self.torn = 0
        self.blind = False
        """Whether there is a limit on cost, and an answer whose cost is not known."""
        self.seconds = 0.0

    def add_line(self, number: int, request: BatchRequest, state: str) -> None:
        """A good line, at the first reading, and what the output has of it."""
        self.lines = number
        if state == "changed":
            raise ValueError(
                f"{self.plan.target.name} has a result of this key for another request"
                " (another model, messages or parameters)"
            )
        self.before[state] += 1
        if state == "missing" or (state == "failed" and self.plan.retry_failed):
            self.todo += 1
            if self.plan.dry_run:
                self.estimate.add(request)

    def add_result(self, result: BatchResult) -> None:
        """A result is there."""
        self.ok += result.ok
        self.failed += not result.ok
        if result.cached:
            self.cached += 1
            return
        if result.ok and self.plan.options.get("limits") and result.cost.amount is None:
            self.blind = True
        response = result.response
        if response is None:
            response = (result.error and result.error.partial) or llm.CompletionResponse()
            if response.outcome is None:
                response = msgspec.structs.replace(response, outcome=result.outcome)
        timings, now = response.timings, trio.current_time()
        last_at = None
        if timings.last_chunk is not None and timings.total is not None:
            last_at = now - (timings.total - timings.last_chunk)
        self.results.add(Sample(response=response, error=result.error, last_at=last_at))
        self.results.retries += max(0, len(result.attempts) - 1)

    @property
    def unsent(self) -> int:
        """Requests that have no result: not sent, or cancelled."""
        return self.todo - self.ok - self.failed

    def exit_code(self, error: Exception | None, *, interrupted: bool) -> int:
        """Which of `EXIT_CODES` the command ends with; ``error`` is why it could not go on."""
        if error is not None and not interrupted:
            quota = isinstance(error, llm.RefusedError | llm.ProviderError)
            if isinstance(error, llm.BudgetExceeded) or (quota and error.kind == "quota"):  # type: ignore[attr-defined]
                return STOPPED_BY_LIMIT
            return exit_code(Answer(error=error))
        if interrupted and (self.report is None or self.unsent):
            return 130
        failed = self.failed + self._failed_before
        if not failed:
            return 0
        if not self.ok and not self.before["finished"] and self.results.commonest_error is not None:
            return exit_code(Answer(error=self.results.commonest_error))
        return 6

    @property
    def _failed_before(self) -> int:
        return 0 if self.plan.retry_failed else self.before["failed"]

    def notes(self) -> list[str]:
        """What to know of the results."""
        notes = []
        report = self.report
        if report is not None and report.bad:
            notes.append(f"{report.bad:,} bad lines were left out; {report.problems[0]}")
        if report is not None and report.extra:
            names = ", ".join(f"{name} ({n:,})" for name, n in report.extra.items())
            notes.append(f"fields that are sent as they are: {names}")
        if self.torn:
            notes.append(f"{self.torn:,} torn lines in the output; their requests are sent again")
        if self._failed_before:
            notes.append(f"{self._failed_before:,} failed before: --retry-failed sends them again")
        return notes + self.results.notes()

    def rows(self) -> list[Row]:
        """The closing lines."""
        if self.plan.dry_run:
            return self._dry_rows()
        rows = []
        if self.before["finished"] or self._failed_before:
            failed = f", {self._failed_before:,} failed" if self._failed_before else ""
            rows.append(("before", f"{self.before['finished']:,} finished{failed}"))
        if self.todo:
            rows += self.results.rows()
        if self.cached:
            rows.append(("from cache", f"{self.cached:,}"))
        if self.unsent:
            rows.append(("no result", f"{self.unsent:,}: the same command goes on with them"))
        if self.books.attempts:
            rows.append(("cost", cost_text(self.books.totals)))
        return rows + [("note", one_line(note)) for note in self.notes()]

    def _dry_rows(self) -> list[Row]:
        found = self.estimate
        rows = [("to send", f"{self.todo:,} of {sum(self.before.values()):,} requests")]
        rows += [(f"has {s}", f"{n:,}") for s, n in self.before.items() if s != "missing"]
        least = f" (and {found.unbounded:,} requests without a bound)" if found.unbounded else ""
        tokens = f"at most {found.input_tokens:,} in · {found.output_tokens:,} out{least}"
        rows.append(("tokens", tokens))
        if found.unpriced < self.todo:
            more = f" (and {found.unpriced:,} requests without a bound or a price)"
            rows.append(("cost", f"at most ${usd(found.amount)}{more if found.unpriced else ''}"))
        else:
            rows.append(("cost", "unknown: no request has both a bound and a price"))
        return rows + [("note", one_line(note)) for note in self.notes()]

    def fields(self, name: str) -> dict[str, Any]:
        """For ``--summary json``."""
        report = self.report or InputReport()
        fields = {
            "version": llm.__version__,
            "at": self.began,
            "model": name,
            "input": str(self.plan.source),
            "output": str(self.plan.target),
            "shard": self.plan.shard,
            "requests": {
                "input": sum(self.before.values()),
                "bad": report.bad,
                "finished_before": self.before["finished"],
                "failed_before": self.before["failed"],
                "to_send": self.todo,
                "finished": self.ok,
                "failed": self.failed,
                "cached": self.cached,
                "no_result": self.unsent,
            },
            "seconds": self.seconds,
            "problems": [{"line": p.line, "what": p.what} for p in report.problems],
            "notes": self.notes(),
        }
        if self.plan.dry_run:
            found = self.estimate
            return fields | {
                "estimate": {
                    "input_tokens": found.input_tokens,
                    "output_tokens": found.output_tokens,
                    "amount": f"{found.amount:f}",
                    "without_bound": found.unbounded,
                    "without_amount": found.unpriced,
                }
            }
        return fields | {
            **self.results.fields(),
            "cost": cost_fields(self.books.totals, None),
            "errors": list(self.results.errors.values()),
        }


def problems_text(report: InputReport) -> str:
    """The bad lines, or the first of them, a line each."""
    shown = [f"  {one_line(str(problem), 300)}\n" for problem in report.problems[:MAX_SHOWN]]
    if report.bad > len(shown):
        shown.append(f"  and {report.bad - len(shown):,} more\n")
    return "".join(shown)
