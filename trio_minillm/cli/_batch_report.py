"""Counts of a ``batch`` command, its closing lines, and its summary as JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import trio

import trio_minillm as llm
from trio_minillm.batch import (
    BatchOptions,
    BatchRequest,
    BatchResult,
    InputReport,
    VendorBatchOptions,
)

from .._batch.files.request_file import Problem
from .._batch.files.rows import Format, format_of
from ._batch_estimate import Estimate
from ._batch_judging import Judgements
from ._batch_output import Target
from ._costs import RunLedger, cost_fields, cost_text
from ._measurements import Results, Sample
from ._output import OutputError, Row, error_code, many, one_line

STOPPED_BY_LIMIT = 7
"""The exit code of a run that a limit, an exhausted quota, or a server that names a late time to come
back has stopped."""
REFUSED_AS_WRONG = 4
"""The exit code of a run whose key, model or endpoint is wrong."""
STDIN = Path("-")
"""The input that is stdin."""
MAX_SHOWN = 20
"""Bad lines that are shown; ``--summary json`` has more."""
MAX_ALIKE = 3
"""Lines with the same fault that are shown each; of more, only the first."""


_BEFORE = {
    "finished": "already finished",
    "failed": "failed before",
    "outdated": "failed before, changed since",
}
"""Words for the state of a sample's line in the output."""


class ViaPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a plan that is about vendors' batches."""

    journal: Path
    """File that keeps what was submitted, beside the output."""
    live: bool
    """True to ask live at the end what came back without an answer."""
    cancel: bool
    """True to cancel the batches."""
    options: VendorBatchOptions


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One ``batch`` command with its options parsed and checked."""

    model: llm.Model | str
    """The model, or the name of a local one."""
    source: Path
    """The input; `STDIN` for stdin."""
    target: Target
    columns: dict[str, str | None]
    """The columns of the input, by what they hold."""
    strict: bool
    format: Format | None
    one_model: bool
    params: dict[str, Any]
    options: BatchOptions
    shard: tuple[int, int] | None
    skip_bad: bool
    retry_failed: bool
    samples: int
    check: bool
    dry_run: bool
    fsync: Any
    cache: Path | None
    trace: Path | None
    ledger: llm.Ledger | None
    observer: llm.Observer | None = None
    via: ViaPlan | None = None

    @property
    def cancels(self) -> bool:
        """True if the command only cancels vendors' batches, and submits nothing."""
        return self.via is not None and self.via.cancel

    @property
    def noun(self) -> str:
        """The name of one of the things that are sent and counted."""
        return "request" if self.samples == 1 else "sample"

    @property
    def input(self) -> str:
        """The input's name in messages."""
        return "stdin" if self.source == STDIN else str(self.source)


class BatchSums:
    """The counts of one run, in bounded memory: of the input and the output, and of the results.

    Its 16 attributes are all that the summary is made of.
    """

    def __init__(self, plan: BatchPlan, secret: str) -> None:
        self.plan = plan
        self.began = datetime.now(UTC)
        self.ledger = RunLedger(plan.ledger, sum_meta=False)
        self.results = Results("batch", secret)
        self.estimate = Estimate()
        self.report: InputReport | None = None
        """The findings of the first reading of the input, once it is over."""
        self.before: Counter[str] = Counter()
        """Samples of the input's requests, by the state of their line in the output before this run."""
        self.lines = self.torn = 0
        self.todo = self.ok = self.failed = self.cached = 0
        """Counts of samples, of which most runs want one for each request."""
        self.judgements = Judgements()
        self.held_up: list[str] = []
        """The limits of the server or of this machine when the run was interrupted."""
        self.cost_unknown = False
        """True if there is a limit on cost and an answer whose cost is not known."""

    def add_line(
        self, request: BatchRequest, states: Sequence[str], *, others: bool = False
    ) -> None:
        """Count a good line of the input, with the state of each sample's line in the output.

        Raises ``ValueError`` if one of those is an answer to another request, or if there are
        ``others``, beyond the samples of this run.
        """
        if others or "changed" in states:
            lines = self.plan.target.lines
            raise ValueError(
                f"{lines and lines.name} has a result with this key for another request"
                " (its model, messages or parameters differ); --skip-bad keeps that result, or name"
                " another output"
            )
        self.before.update(states)
        todo = states.count("missing") + states.count("outdated")
        todo += states.count("failed") if self.plan.retry_failed else 0
        self.todo += todo
        if todo and self.plan.dry_run:
            self.estimate.add(request, todo)

    def add_result(self, result: BatchResult) -> None:
        """Count a result."""
        self.ok += result.ok
        self.failed += not result.ok
        self.judgements.add(result)
        if result.cached:
            self.cached += 1
            return
        if result.ok and self.plan.options.get("limits") and result.cost.amount is None:
            self.cost_unknown = True
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
        asked_again = sum(attempt.invalid is not None for attempt in result.attempts)
        self.results.retries += max(0, len(result.attempts) - 1 - asked_again)

    @property
    def unsent(self) -> int:
        """Samples that have no result: not sent, or cancelled."""
        return self.todo - self.ok - self.failed

    def exit_code(self, error: Exception | None, *, interrupted: int | None) -> int:
        """Return the exit code. ``error`` is the reason that the run could not go on, ``interrupted``
        the signal that asked for its end.
        """
        if isinstance(error, OutputError):
            return error_code(error)
        if error is not None and not interrupted:
            if isinstance(error, llm.RefusedUntil):
                return STOPPED_BY_LIMIT
            quota = isinstance(error, llm.RefusedError | llm.ProviderError)
            if isinstance(error, llm.BudgetExceeded) or (quota and error.kind == "quota"):  # type: ignore[attr-defined]
                return STOPPED_BY_LIMIT
            return error_code(error)
        if interrupted and (self.report is None or self.unsent):
            return 128 + interrupted
        failed = self.failed + self._failed_before
        if not failed:
            return 6 if self.unsent and not self.plan.dry_run else 0
        commonest = self.results.failures.commonest
        if not self.ok and not self.before["finished"] and commonest is not None:
            return error_code(commonest)
        return 6

    @property
    def _failed_before(self) -> int:
        """Requests that failed in earlier runs and are not sent again."""
        return 0 if self.plan.retry_failed else self.before["failed"]

    def notes(self) -> list[str]:
        """Return what qualifies the results."""
        notes = []
        report = self.report
        if report is not None and report.bad:
            left = f"{many(report.bad, 'bad line')} {'was' if report.bad == 1 else 'were'} left out"
            notes.append(f"{left}; {report.problems[0]}")
        if report is not None and report.extra:
            names = ", ".join(f"{name} ({n:,})" for name, n in report.extra.items())
            notes.append(f"fields sent as they are: {names}")
        if report is not None and report.as_params:
            notes.append(f"columns sent as parameters: {', '.join(report.as_params)}")
        if report is not None and report.as_meta:
            notes.append(f"columns kept as meta: {', '.join(report.as_meta)}")
        if self.torn:
            torn = many(self.torn, "torn line")
            notes.append(f"{torn} in the output; their requests are sent again")
        if self.before["outdated"]:
            failed = many(self.before["outdated"], self.plan.noun)
            notes.append(f"{failed} failed before and have changed since: sent again")
        if self._failed_before:
            failed = many(self._failed_before, self.plan.noun)
            notes.append(f"{failed} failed before: --retry-failed sends them again")
        notes += [f"when interrupted: {text}" for text in self.held_up]
        return notes + self.results.notes()

    def rows(self, error: Exception | None) -> list[Row]:
        """Return the closing lines. ``error`` is the reason that the run could not go on."""
        if self.plan.dry_run:
            return self._dry_rows()
        rows = []
        if self.plan.samples > 1:
            rows.append(self._samples_row())
        if self.before["finished"] or self._failed_before:
            failed = f", {self._failed_before:,} failed" if self._failed_before else ""
            rows.append(("before", f"{self.before['finished']:,} finished{failed}"))
        if self.todo:
            invalid = self.judgements.invalid
            rows += self.results.rows(asked=self.todo, cached=self.cached, invalid=invalid)
        rows += self.judgements.rows()
        if self.cached:
            rows.append(("from cache", f"{self.cached:,}"))
        if self.unsent:
            rows.append(("no result", f"{self.unsent:,}: {self._goes_on(error)}"))
        if self.ledger.attempts:
            rows.append(("cost", cost_text(self.ledger.totals)))
        return rows + [("note", one_line(note)) for note in self.notes()]

    def _goes_on(self, error: Exception | None) -> str:
        """Return what becomes of samples that have no result."""
        if self.plan.target.lines is None:
            return "with a file as OUTPUT, the same command could send them later"
        # What was refused as wrong is refused again, until the key, the model or the address is right.
        once = "fix the error, then " if error_code(error) == REFUSED_AS_WRONG else ""
        without = ", without --cancel," if self.plan.cancels else ""
        return f"{once}run the same command again{without} to send them"

    def _samples_row(self) -> Row:
        requests = many(self.before.total() // self.plan.samples, "request")
        done = self.before["finished"] + self._failed_before + self.ok + self.failed
        of = f"{self.plan.samples:,} of each of {requests}"
        return "samples", f"{done:,} of {self.before.total():,} have a result: {of}"

    def _dry_rows(self) -> list[Row]:
        of = many(self.before.total() // self.plan.samples, "request")
        if self.plan.samples > 1:
            of = f"{self.before.total():,} samples: {self.plan.samples:,} of each of {of}"
        rows = [("to send", f"{self.todo:,} of {of}")]
        rows += [(_BEFORE[s], f"{n:,}") for s, n in self.before.items() if s != "missing"]
        rows += self.estimate.rows(self.todo, self.plan.noun)
        return rows + [("note", one_line(note)) for note in self.notes()]

    def fields(self, name: str) -> dict[str, Any]:
        """Return the summary for ``--summary json``. ``name`` is the model's."""
        report = self.report or InputReport()
        fields = {
            "version": llm.__version__,
            "at": self.began,
            "model": name,
            "input": self.plan.input,
            "output": self.plan.target.name,
            "shard": self.plan.shard,
            "samples": self.plan.samples,
            "requests": {
                "input": self.before.total() // self.plan.samples,
                "bad": report.bad,
                "finished_before": self.before["finished"],
                "failed_before": self.before["failed"],
                "to_send": self.todo,
                "finished": self.ok,
                "failed": self.failed,
                "cached": self.cached,
                "no_result": self.unsent,
            },
            "seconds": self.results.seconds,
            "problems": [{"line": p.line, "what": p.what} for p in report.problems],
            "notes": self.notes(),
        }
        if self.plan.dry_run:
            return fields | {"estimate": self.estimate.fields()}
        return fields | {
            **self.results.fields(),
            **self.judgements.fields(),
            "cost": cost_fields(self.ledger.totals, None),
            "errors": self.results.failures.fields(),
        }


def problems_text(report: InputReport) -> str:
    """Return the first bad lines, each on a line of its own, or one for many with the same fault."""
    alike: dict[str, list[Problem]] = {}
    for problem in report.problems:
        alike.setdefault(re.sub(r"\d+", "0", problem.what), []).append(problem)
    told: list[tuple[Problem, int]] = []
    for same in alike.values():
        told += [(same[0], len(same))] if len(same) > MAX_ALIKE else [(p, 1) for p in same]
    told = sorted(told, key=lambda found: found[0].line)[:MAX_SHOWN]
    shown = [
        f"  {one_line(str(problem), 300)}"
        + (f" (and {many(count - 1, 'more line')} like it)\n" if count > 1 else "\n")
        for problem, count in told
    ]
    left = report.bad - sum(count for _, count in told)
    if left:
        shown.append(f"  and {left:,} more\n")
    return "".join(shown)


def hints_text(report: InputReport, plan: BatchPlan) -> str:
    """Return a line on what to do about bad lines, if the form of the input is likely at fault."""
    there = set(report.columns)
    if report.bad <= report.requests:
        return ""
    if not there:  # no line could be read
        if plan.format is None and format_of(plan.source) == "jsonl":
            return "  the input is read as JSON lines; --format names another format: csv, tsv, parquet\n"
        return ""
    lacks = []
    named = plan.columns["key"] is not None or plan.columns["prompt"] is not None
    if not named and not there & {"key", "custom_id"}:
        lacks.append("--key COLUMN")
    if plan.columns["prompt"] is None and not there & {"prompt", "messages", "body"}:
        lacks.append("--prompt COLUMN")
    if not lacks:
        return ""
    names = one_line(", ".join(report.columns), 300)
    return f"  name the columns with {' '.join(lacks)}; the input has: {names}\n"
