"""``batch --via provider``: the requests in their vendor's own batches, at half the price."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

import trio_minillm as llm
from trio_minillm.batch import (
    BatchRequest,
    BatchResult,
    Journal,
    RequestFile,
    Unreturned,
    VendorBatch,
    VendorBatchOptions,
    read_results,
)

from .._vendor_batch.parts import vendor_of
from .._vendor_batch.pricing import BATCH, batch_model
from ..providers._pricing import price_at
from ._batch_output import remove_empty
from ._batch_report import BatchPlan, ViaPlan
from ._live import Progress
from ._output import Misuse, Row, many, one_line
from ._shared import positive
from ._terminal import StatusLine, say

MAX_TOLD = 20
"""Requests without an answer that are named on stderr; the summary as JSON has more."""
MAX_FIELDS = 10_000
"""Of which the summary as JSON names so many."""


_REFUSED = "can't be combined with --via provider"


def planned(
    plan: BatchPlan,
    via: str,
    parts: tuple[int | None, float | None, float | None],
    *,
    then: str | None,
    cancel: bool,
) -> BatchPlan:
    """Return the plan with what is about vendors' batches, if ``via`` says so. ``parts`` are their most
    requests, their most megabytes, and the longest wait between two looks. Raises `Misuse`.
    """
    size, every = positive("part-mb", parts[1]), positive("look-every", parts[2])
    names = ("part-requests", "part-mb", "look-every", "then", "cancel")
    given = [name for name, value in zip(names, (*parts, then, cancel), strict=True) if value]
    if via == "live":
        if given:
            raise Misuse(f"--{given[0]} needs --via provider")
        return plan
    _check_together(plan)
    if then and cancel:
        raise Misuse("--then can't be combined with --cancel")
    assert plan.target.journal is not None
    options: VendorBatchOptions = {
        "part_requests": parts[0],
        "part_bytes": None if size is None else max(1, int(size * 1_000_000)),
        "look_every": every,
        "submit": not cancel,
        "failures": then is None,
        "validate": plan.options.get("validate"),
        "score": plan.options.get("score"),
    }
    made = ViaPlan(
        journal=plan.target.journal, live=then is not None, cancel=cancel, options=options
    )
    return msgspec.structs.replace(plan, via=made)


def _check_together(plan: BatchPlan) -> None:
    """Raise `Misuse` for an option that vendors' batches can't keep."""
    if plan.options.get("limits") is not None:
        why = "a batch is charged as a whole; --dry-run estimates it"
        raise Misuse(f"--max-cost {_REFUSED}: {why}")
    refused = {
        "--retries-invalid": plan.options.get("retries_invalid"),
        "--order": plan.options.get("ordered"),
        "--check": plan.check,
        "--cache": plan.cache,
        "--trace": plan.trace,
    }
    if clash := [name for name, value in refused.items() if value]:
        raise Misuse(f"{clash[0]} {_REFUSED}")
    if isinstance(plan.model, str):
        raise Misuse("--via provider can't be combined with a local model, which has no batches")
    try:
        vendor_of(plan.model)
    except ValueError as exc:
        raise Misuse(f"--via provider: {exc}") from exc


def batch_priced(model: llm.Model) -> llm.Model:
    """Return the model at the price of a batch, for an estimate; the same where that is not known."""
    price = batch_model(model, None).price
    price = None if price is None else price_at(price, BATCH)
    return model if price is None else msgspec.structs.replace(model, price=price)


def live_model(request: BatchRequest) -> BatchRequest:
    """Return a request that is asked live: at the standard price, which that of a batch is not."""
    model = request.model
    if model is None or model.price is None or model.price.service_tier != BATCH:
        return request
    return msgspec.structs.replace(request, model=msgspec.structs.replace(model, price=None))


@contextmanager
def open_journal(plan: ViaPlan | None) -> Iterator[Journal | None]:
    """Open the journal for the block, if there is one. A new one in which nothing is noted goes again.

    Raises `Misuse`, and `OutputError` if what is noted can't be written.
    """
    if plan is None:
        yield None
        return
    new = not plan.journal.exists()
    try:
        journal = Journal(plan.journal)
    except OSError as exc:
        raise Misuse(f"the journal {plan.journal}: {exc.strerror or exc}") from exc
    with journal:
        try:
            yield journal
        finally:
            if new:
                remove_empty(plan.journal)


async def release_failed(journal: Journal | None, lines: Path | None, file: RequestFile) -> None:
    """Note that the requests whose lines are failures may be submitted again, before these go."""
    if journal is None or lines is None:
        return

    def failed() -> list[tuple[str, int]]:
        found = (line for line in read_results(lines) if not line.ok and line.key in file)
        return [(line.key, line.sample) for line in found]

    await journal.release(await trio.to_thread.run_sync(failed))


class Via:
    """The part of a run that is in vendors' batches."""

    def __init__(self, plan: ViaPlan, *, quiet: bool) -> None:
        self.plan = plan
        self.left: tuple[Unreturned, ...] = ()
        """Requests that came back without an answer, and are not asked live."""
        self._quiet = quiet
        self._batch: VendorBatch | None = None
        self._scope = trio.CancelScope()
        self._live = 0  # that are asked live
        self._stopped = False
        self._none_under_way = False

    async def take(
        self,
        client: llm.Client,
        requests: AsyncGenerator[BatchRequest, None],
        journal: Journal,
        model: llm.Model,
        keep: Callable[[BatchResult], Awaitable[None]],
    ) -> list[BatchRequest]:
        """Take the results of all batches, and return the requests that are to be asked live."""
        self._none_under_way = not any(part.under_way for part in journal.parts.values())
        batch = client.vendor_batch(requests, model=model, journal=journal, **self.plan.options)
        with self._scope:
            async with batch:
                self._batch = batch
                if self._stopped:  # before there was one
                    batch.leave()
                if self.plan.cancel:
                    batch.cancel()
                try:
                    async for result in batch:
                        await keep(result)
                except llm.MiniLLMError as exc:
                    if not self.plan.live or exc is not batch.failure or not batch.unreturned:
                        raise
                    self._tell(f"{one_line(str(exc), 500)}\n")
                finally:
                    self.left = batch.unreturned
                    self._tell(self._told())
        if not self.plan.live or self._scope.cancelled_caught or self._stopped:
            return []
        live, self.left = [live_model(one.request) for one in self.left], ()
        self._live = len(live)
        if live:
            self._tell(f"{many(len(live), 'request')} without an answer: now sent live\n")
        return live

    # -- as its user sees it -----------------------------------------------------------------

    def stop(self) -> None:
        """Submit nothing more and wait for nothing; the batches stay at the vendor."""
        self._stopped = True
        if self._batch is not None:
            self._batch.leave()

    def cancel(self) -> None:
        """Wait not even for a call that is under way."""
        self._scope.cancel()

    def progress(self) -> Progress | None:
        """Return what the status line should show."""
        if self._batch is None:
            return None
        stats = self._batch.statistics()
        there = [one for one in stats.at_vendor if one.id is not None]
        total, done = sum(one.requests for one in there), sum(one.done for one in there)
        leaving = sum(one.requests for one in stats.at_vendor if one.id is None)
        words = Counter(one.status for one in there)
        states = ", ".join(f"{count:,} {one_line(word, 40)}" for word, count in words.items())
        text = f"{stats.results:,} fetched, {stats.unreturned:,} without an answer"
        if total:
            batches = "batch" if len(there) == 1 else "batches"
            text += f" · {many(total, 'request')} at the vendor, {done:,} done ({states} {batches})"
        if leaving:
            text += f" · {many(leaving, 'request')} being submitted"
        if stats.failing:
            text += f" · {one_line(stats.failing, 200)}"
        every = stats.results + stats.unreturned
        share = (every + done) / max(1, every + total + leaving)
        return Progress(text, bool(stats.unreturned or stats.failing), share)

    def rows(self) -> list[Row]:
        """Return the closing lines."""
        if self._batch is None:
            return []
        stats, rows = self._batch.statistics(), []
        if self.plan.cancel and self._none_under_way:
            rows.append(("cancelled", "nothing: no batch was under way"))
        if stats.parts:
            rows.append(
                ("submitted", f"{many(stats.submitted, 'request')} in {_batches(stats.parts)}")
            )
        if stats.adopted:
            rows.append(("resumed", f"{many(stats.adopted, 'request')} at the vendor"))
        if there := stats.at_vendor:
            count = many(sum(one.requests for one in there), "request")
            goes_on = (
                "run the same command again to fetch the answers, or with --cancel to cancel them"
            )
            if self.plan.cancel:
                goes_on = (
                    "run the same command again to cancel them, and fetch what was answered before"
                )
            rows.append(("at the vendor", f"{count} in {_batches(len(there))}: {goes_on}"))
        if self.left:
            words = Counter(one.reason for one in self.left)
            told = ", ".join(f"{count:,} {word}" for word, count in words.items())
            without = ", without --cancel," if self.plan.cancel else ""
            rows.append(
                ("unanswered", f"{told}: run the same command again{without} to submit them again")
            )
        if self._live:
            rows.append(("asked live", f"{self._live:,}"))
        for odd, what in (
            (stats.unreadable, "can't be read"),
            (stats.strange, "belong to other requests"),
        ):
            if odd:
                rows.append(("note", f"{many(odd, 'line')} of results {what}"))
        return rows

    def fields(self) -> dict[str, Any]:
        """Return what the summary as JSON has of it."""
        if self._batch is None:
            return {}
        stats = self._batch.statistics()
        return {
            "batches": {
                "submitted": stats.parts,
                "submitted_requests": stats.submitted,
                "adopted_requests": stats.adopted,
                "asked_live": self._live,
                "at_vendor": [msgspec.to_builtins(one) for one in stats.at_vendor],
                "unanswered": [
                    {"key": one.key, "sample": (one.request.samples or (0,))[0], "why": one.reason}
                    for one in self.left[:MAX_FIELDS]
                ],
            }
        }

    def _told(self) -> str:
        """Return a line for each request that came back without an answer."""
        lines = [f"  {one_line(one.key, 100)}: {one.reason}\n" for one in self.left[:MAX_TOLD]]
        if len(self.left) > MAX_TOLD:
            lines.append(f"  and {len(self.left) - MAX_TOLD:,} more\n")
        return "".join(lines)

    def _tell(self, text: str) -> None:
        if text and not self._quiet:
            StatusLine().clear()
            say(text)


def _batches(count: int) -> str:
    return "1 batch" if count == 1 else f"{count:,} batches"
