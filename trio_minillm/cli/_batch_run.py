"""One ``trio-minillm batch`` command, from the first reading of its input to its last result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import (
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

import trio_minillm as llm
from trio_minillm.batch import (
    Batch,
    BatchOptions,
    BatchRequest,
    BatchResult,
    Journal,
    RequestFile,
)

from .._batch.files.key_table import KeyTable
from .._batch.validation import check_schema
from .._protocol.redaction import redact_beginnings
from .._toolkit.reasking import words_of
from ..local._named import open_model
from ._batch_files import RunTrace, check_cache, open_cache, open_input, open_trace
from ._batch_output import Output, make_table, open_output, writing
from ._batch_report import STDIN, BatchPlan, BatchSums, hints_text, problems_text
from ._batch_status import BatchStatus
from ._batch_stdin import copy_of_stdin
from ._batch_via import Via, batch_priced, open_journal, release_failed
from ._live import TIMES_HEAD, LiveRun, Progress, Table, timed
from ._output import Misuse, OutputError, Row, many, one_line
from ._shared import LOCAL_SLOTS, price_of
from ._terminal import StatusLine, say

LOCAL_CONTEXT = 4096
"""Tokens of prompt and answer together, for each slot of a local model."""
TURN = 64
"""Lines of the input that are passed over before other tasks get a turn."""


class _Stopped(Exception):
    """Ctrl-C was pressed while the input was read."""


class InvalidFirstAnswer(llm.MiniLLMError):
    """A whole answer to the check that is not valid."""


class BatchRun(LiveRun):
    """One run of the command as its user sees it."""

    def __init__(self, plan: BatchPlan, secret: str, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self._secret = secret
        self.noun = plan.noun
        self.sums = BatchSums(plan, secret)
        self.ledger = self.sums.ledger
        self._batch: Batch | None = None
        self._check_failed = False
        self._checked = 0
        """Results of the check, which are none of the batch that follows it."""
        self._making: Path | None = None
        """The table, once it is being made."""
        self._unwritten: OutputError | None = None
        """The reason why the ledger could not be written, if it could not."""
        self._reading = trio.CancelScope()
        """The scope in which stdin is read."""
        self._received = 0
        """Bytes of stdin that have come."""
        self._status = BatchStatus(self.sums, secret)
        self._via = None if plan.via is None else Via(plan.via, quiet=quiet)
        self._outdated = KeyTable()
        """Keys whose line is the failure of a request that has changed since."""

    # -- as its user sees it -----------------------------------------------------------------

    async def work(self) -> None:
        with suppress(_Stopped):
            await self._run()

    def stop(self) -> int:
        if self._via is not None:
            self._via.stop()
        if self._batch is None:
            self._reading.cancel()
            return 0
        self.sums.held_up = self._status.held_up(self._batch.statistics())
        self._batch.stop()
        return self._batch.statistics().running

    def cancel(self) -> None:
        if self._via is not None:
            self._via.cancel()
        if self._batch is not None:
            self._batch.cancel()

    def progress(self) -> Progress | None:
        if self._making is not None:
            return Progress(f"writing {self._making.name}", failing=False)
        if self._batch is None and self._via is not None and (told := self._via.progress()):
            return told._replace(text=redact_beginnings(told.text, self._secret))
        if self._batch is None:
            lines = self.sums.lines
            read = f"reading the input: {many(lines, 'line')}"
            if not lines:
                read = f"reading stdin: {self._received / 1e6:,.1f} MB"
            return Progress(read, failing=False) if lines or self._received else None
        stats, before = self._batch.statistics(), self._checked
        stopping = bool(self.interrupted) or self._batch.stopped is not None
        text = self._status.text(stats, every=self.every, before=before, stopping=stopping)
        share = (stats.done + before) / max(self.sums.todo, 1)
        return Progress(text, bool(stats.failed), share)

    def exit_code(self) -> int:
        return self.sums.exit_code(self.error, interrupted=self.interrupted)

    def summary(self) -> tuple[Table, list[Row]] | None:
        sums = self.sums
        if sums.report is None or (isinstance(self.error, Misuse) and not sums.ok):
            return None
        rows = sums.rows(self.error)
        if self._via is not None:
            rows = self._via.rows() + rows
        if self._check_failed:
            what = "the first request failed; it has no result, and no other was sent"
            rows.insert(0, ("check", what))
        return [TIMES_HEAD, *sums.results.table()], rows

    def fields(self, name: str) -> dict[str, Any]:
        fields = self.sums.fields(name)
        return fields if self._via is None else {**fields, **self._via.fields()}

    # -- the work ----------------------------------------------------------------------------

    async def _run(self) -> None:
        plan, sums = self.sums.plan, self.sums
        local = isinstance(plan.model, str)
        async with (
            self._source() as source,
            open_model(plan.model, context=LOCAL_CONTEXT, slots=_slots(plan)) as model,
        ):
            one_model = plan.one_model or local
            named = partial(_model_named, model, one_model=one_model)
            if plan.via is not None and plan.dry_run:
                named = partial(_batch_priced, named)
            file = open_input(plan, source, named)
            empty = not plan.cancels
            with open_output(
                plan.target, plan.fsync, dry_run=plan.dry_run, keep_empty=empty
            ) as out:
                sums.torn = 0 if out is None else out.torn
                await self._read(file, out, model)
                if out is None or plan.dry_run:
                    check_cache(plan)
                    return
                with open_journal(plan.via) as journal:
                    await self._answer(file, out, journal)

    async def _answer(self, file: RequestFile, out: Output, journal: Journal | None) -> None:
        """Send what has no result, and make the table of all results, also if the sending fails."""
        plan = self.sums.plan
        with writing(plan.target):
            if len(self._outdated):
                forget = partial(out.forget, partial(_failed_in, self._outdated))
                await trio.to_thread.run_sync(forget)
            if plan.retry_failed:
                await release_failed(journal, plan.target.lines, file)
                forget = partial(out.forget, partial(_failed_in, file), samples=plan.samples)
                await trio.to_thread.run_sync(forget)
        try:
            with open_cache(plan) as cache, open_trace(plan) as trace:
                options: BatchOptions = {**plan.options, "cache": cache}
                if isinstance(plan.model, str):  # more would only wait in a local model's server
                    options["concurrency"] = _slots(plan)
                await self._send(file, out, options, trace, journal)
        except (llm.MiniLLMError, Misuse):
            await self._make_table()
            raise
        await self._make_table()
        if self._unwritten is not None:
            raise self.ledger.unwritten() or self._unwritten
        if cache is not None and cache.unwritten is not None:
            raise OutputError(OSError(cache.unwritten), "the cache", plan.cache)

    async def _make_table(self) -> None:
        """Make the table of all lines, if one is wanted; of a million it takes a minute."""
        plan = self.sums.plan
        if plan.cancels and plan.target.lines and not plan.target.lines.stat().st_size:
            return  # which is removed
        self._making = plan.target.table
        await trio.to_thread.run_sync(make_table, plan.target)

    @asynccontextmanager
    async def _source(self) -> AsyncIterator[Path]:
        """Provide the path of the input, which for stdin is that of a copy."""
        if self.sums.plan.source != STDIN:
            yield self.sums.plan.source
            return
        async with AsyncExitStack() as stack:
            path: Path | None = None
            with self._reading:
                path = await stack.enter_async_context(copy_of_stdin(self._receive))
            if path is None:
                raise _Stopped
            yield path

    def _receive(self, count: int) -> None:
        self._received = count

    async def _read(self, file: RequestFile, out: Output | None, model: llm.Model) -> None:
        """Check the whole input, in a thread, so that Ctrl-C and the status line keep working."""
        plan, sums = self.sums.plan, self.sums

        def visit(number: int, request: BatchRequest) -> None:
            wanted = plan.samples
            states = ["missing"] * wanted if out is None else out.states(request, wanted)
            others = out is not None and out.has_other_answers(request)
            if "outdated" in states:
                self._outdated.put(request.key, 1)
            if plan.options.get("validate") is not None:
                check_schema(request)
            sums.add_line(request, states, others=others)

        local = isinstance(plan.model, str)
        check = partial(file.check, visit, progress=self._line)
        try:
            with sums.estimate.prepared(model, plan.target.lines, local=local, on=plan.dry_run):
                sums.report = await trio.to_thread.run_sync(check)
        except (OSError, ValueError, ImportError) as exc:
            raise Misuse(f"the input {plan.input}: {exc}") from exc
        if sums.report.bad and not plan.skip_bad:
            say(problems_text(sums.report) + hints_text(sums.report, plan))
            many = "a line" if sums.report.bad == 1 else f"{sums.report.bad:,} lines"
            what = "; --skip-bad leaves them out" if sums.report.requests else ""
            raise Misuse(f"{many} of {plan.input} can't be sent, so nothing was sent{what}")
        if not sums.report.requests and not self.quiet:
            part = f"shard {plan.shard[0]}/{plan.shard[1]} of " if plan.shard else ""
            StatusLine().clear()
            say(f"there are no requests in {part}{one_line(plan.input, 300)}\n")

    def _line(self, number: int) -> None:
        if self.interrupted:
            raise _Stopped
        self.sums.lines = number

    async def _send(
        self,
        file: RequestFile,
        out: Output,
        options: BatchOptions,
        trace: RunTrace | None,
        journal: Journal | None,
    ) -> None:
        sums = self.sums
        missing = partial(_missing, file, out, sums.plan.samples)
        async with llm.open_client(ledger=sums.ledger, observer=sums.plan.observer) as opened:
            # The limit is the command's, of which the check is a part.
            client = opened.scope(limits=options.get("limits"))
            options = {**options, "limits": None}
            try:
                with timed(sums.results):
                    if self._via is not None and journal is not None:
                        await self._send_batches(self._via, client, missing, out, options, journal)
                        return
                    if sums.plan.check:
                        told = None if trace is None else trace.of_batch()
                        async with aclosing(missing()) as requests:
                            await self._check(client, requests, out, {**options, "trace": told})
                    self._checked = sums.ok
                    if not (sums.cost_unknown or self._unwritten or self.interrupted):
                        options["trace"] = None if trace is None else trace.of_batch()
                        await self._take_results(client.batch(missing(), **options), out)
            finally:
                self.leaving()
        if sums.cost_unknown:
            raise Misuse("--max-cost can't be enforced: the cost of an answer is not known")

    async def _send_batches(
        self,
        via: Via,
        client: llm.Client,
        missing: Callable[[], AsyncGenerator[BatchRequest, None]],
        out: Output,
        options: BatchOptions,
        journal: Journal,
    ) -> None:
        """Send what has no result in its vendor's batches, and what they do not answer live, if that is
        wanted.
        """
        model = self.sums.plan.model
        assert isinstance(model, llm.Model)

        async def keep(result: BatchResult) -> None:
            await self._keep(result, out)
            if self._unwritten:
                via.stop()

        async with aclosing(missing()) as requests:
            live = await via.take(client, requests, journal, model, keep)
        if live and not (self._unwritten or self.interrupted):
            await self._take_results(client.batch(live, **options), out)

    async def _check(
        self,
        client: llm.Client,
        requests: AsyncGenerator[BatchRequest, None],
        out: Output,
        options: BatchOptions,
    ) -> None:
        """Send the first request that the cache does not answer, alone and once. Raises its error.

        A failure is not written: what is wrong is likely to be put right by other options, and then
        its line would be that of another request.
        """
        once: BatchOptions = {**options, "concurrency": 1, "max_concurrency": None}
        once["retry"] = llm.Retry(attempts=1)
        taken, sent = trio.Event(), False

        async def one_by_one() -> AsyncGenerator[BatchRequest, None]:
            nonlocal taken
            async for request in requests:
                yield msgspec.structs.replace(request, samples=(request.samples or (0,))[:1])
                await taken.wait()
                taken = trio.Event()
                if sent:
                    return

        async with client.batch(one_by_one(), **once) as batch:
            self._batch = batch
            if self.interrupted:
                batch.stop()
            try:
                async for result in batch:
                    if error := result.error or result.invalid:
                        raise _named(error)
                    await self._keep(result, out)
                    sent = not result.cached
                    if sent and not self.quiet and self.sums.unsent:
                        StatusLine().clear()
                        key = one_line(result.key, 100)
                        say(f"check: {key} has an answer; now sending the others\n")
                    taken.set()
            except llm.MiniLLMError:
                self._check_failed = True
                raise

    async def _take_results(self, batch: Batch, out: Output) -> None:
        async with batch:
            self._batch = batch
            if self.interrupted:
                batch.stop()
            async for result in batch:
                await self._keep(result, out)
                if self.sums.cost_unknown or self._unwritten:
                    batch.stop()

    async def _keep(self, result: BatchResult, out: Output) -> None:
        """Write a result's line, and count it."""
        with writing(self.sums.plan.target):
            await out.append(result)
        self.sums.add_result(result)
        # An attempt that no file has is worse than one that is made later.
        self._unwritten = self._unwritten or self.ledger.unwritten()


def _named(error: Exception) -> llm.MiniLLMError:
    """Return the error of a check as one of the library's."""
    if isinstance(error, llm.MiniLLMError) and not isinstance(error, llm.InvalidAnswer):
        return error
    return InvalidFirstAnswer(f"the first answer is invalid: {words_of(error)}")


def _slots(plan: BatchPlan) -> int:
    """Return the number of requests that a local model takes at once."""
    wanted = plan.options.get("concurrency", "auto")
    return LOCAL_SLOTS if wanted == "auto" else min(wanted, LOCAL_SLOTS)


def _model_named(model: llm.Model, name: str | None, *, one_model: bool) -> llm.Model:
    """Return the model for a line of the input, with its price if that is known.

    ``name`` is the one in the line, if it has one. ``one_model`` ignores it.
    """
    if name is not None and name != model.name and not one_model:
        model = msgspec.structs.replace(model, name=name, price=None)
    return msgspec.structs.replace(model, price=price_of(model))


def _batch_priced(named: Callable[[str | None], llm.Model], name: str | None) -> llm.Model:
    """Return the model for a line of the input at the price of its vendor's batches."""
    return batch_priced(named(name))


def _failed_in(keys: RequestFile | KeyTable, key: str, ok: bool) -> bool:
    return not ok and key in keys


async def _missing(
    file: RequestFile, out: Output, samples: int
) -> AsyncGenerator[BatchRequest, None]:
    """Yield the requests that lack a line in the output, with the samples that do.

    Other tasks get a turn while lines are passed over: all but one of a million requests may
    have a result already.
    """
    try:
        for number, request in enumerate(file):
            if not number % TURN:
                await trio.lowlevel.checkpoint()
            for missing in out.unanswered([request], samples=samples):
                yield missing
    except (OSError, ValueError) as exc:  # it was changed or deleted meanwhile
        raise Misuse(f"the input {file.path}: {exc}") from exc
