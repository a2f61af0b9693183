"""What ``trio-minillm batch`` does, from the first reading of the input to the last result."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial

import msgspec
import trio

import trio_minillm as llm
from trio_minillm.batch import (
    Batch,
    BatchOptions,
    BatchRequest,
    CacheError,
    RequestFile,
    ResponseCache,
    ResultFile,
)

from ._batch_report import BatchPlan, BatchSums, problems_text
from ._load import LOCAL_SLOTS, allow_many_files
from ._measure import cost_text, seconds_text
from ._options import price_of
from ._report import Misuse, OutputError
from ._terminal import StatusLine, say

LOCAL_CONTEXT = 4096
"""Tokens of prompt and answer together, for each slot of a local model."""
REDRAW, SAY_EVERY = 0.25, 5.0
"""Seconds between two states of the status line on a terminal, and elsewhere."""
SPEED_OVER = 30.0
"""Seconds over which the status line takes its rates."""
TURN = 64
"""Lines that are read before other tasks get a turn."""


class _Stopped(Exception):
    """Ctrl-C while the input is read."""


class BatchRun:
    """One run as its user sees it: how it goes, and how it is stopped."""

    def __init__(self, sums: BatchSums, *, quiet: bool) -> None:
        self.sums = sums
        self.quiet = quiet
        self._batch: Batch | None = None

    async def main(self, finish: Callable[[], int]) -> None:
        """Carry out the plan; ``finish`` is called where that can't end by itself."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch, finish)
            done, shown = trio.Event(), trio.Event()
            if self.quiet:
                shown.set()
            else:
                nursery.start_soon(self._show, done, shown)
            try:
                await self._run()
            except _Stopped:
                pass
            except (llm.MiniLLMError, Misuse, OutputError) as exc:
                self.sums.error = exc
            done.set()
            with trio.move_on_after(0.5):  # a terminal that hangs
                await shown.wait()
            nursery.cancel_scope.cancel()

    async def _run(self) -> None:
        plan, sums = self.sums.plan, self.sums
        async with self._open_model() as model:
            one_model = plan.one_model or plan.model is None
            named = partial(_model_named, model, one_model=one_model)
            file = _open_input(plan, named)
            with _open_output(plan) as out:
                sums.torn = 0 if out is None else out.torn
                # In a thread, so that Ctrl-C is heard and the status line goes on.
                visit = partial(self._visit, out)
                try:
                    sums.report = await trio.to_thread.run_sync(file.check, visit)
                except (OSError, ValueError, ImportError) as exc:
                    raise Misuse(f"the input {plan.source}: {exc}") from exc
                if sums.report.bad and not plan.skip_bad:
                    say(problems_text(sums.report))
                    many = "a line" if sums.report.bad == 1 else f"{sums.report.bad:,} lines"
                    what = "nothing was sent; --skip-bad leaves them out"
                    raise Misuse(f"{many} of {plan.source} can't be sent: {what}")
                if out is None or plan.dry_run:
                    return
                if plan.retry_failed:
                    failed = partial(_failed_in, file)
                    await trio.to_thread.run_sync(out.forget, failed)
                with _open_cache(plan) as cache:
                    options: BatchOptions = {**plan.options, "cache": cache}
                    if plan.model is None:  # more would only wait in its server
                        options["concurrency"] = _slots(plan)
                    await self._send(file, out, options)

    def _visit(self, out: ResultFile | None, number: int, request: BatchRequest) -> None:
        if self.sums.interrupted:
            raise _Stopped
        self.sums.add_line(number, request, "missing" if out is None else out.state(request))

    async def _send(self, file: RequestFile, out: ResultFile, options: BatchOptions) -> None:
        allow_many_files()
        sums, results = self.sums, self.sums.results
        cpu, since = time.process_time(), trio.current_time()
        results.first_sent = since
        async with llm.open_client(ledger=sums.books) as client:
            try:
                async with client.batch(_missing(file, out), **options) as batch:
                    self._batch = batch
                    if sums.interrupted:
                        batch.stop()
                    async for result in batch:
                        sums.add_result(result)
                        try:
                            await out.append(result)
                        except OSError as exc:
                            raise OutputError(exc) from exc
                        if sums.blind:
                            batch.stop()
            finally:
                sums.seconds = results.seconds = trio.current_time() - since
                results.cpu = time.process_time() - cpu
                if sums.interrupted and sums.books.unsettled and not self.quiet:
                    say("\nasking what it cost; Ctrl-C again does not wait for the answer\n")
        if sums.blind:
            raise Misuse("--max-cost can't be kept: what an answer cost is not known")

    @asynccontextmanager
    async def _open_model(self) -> AsyncIterator[llm.Model]:
        plan = self.sums.plan
        if plan.model is not None:
            yield plan.model
            return
        slots = _slots(plan)
        opened = llm.open_local_model(path=plan.path, context=LOCAL_CONTEXT, slots=slots)
        async with opened as model:
            yield model

    # -- Ctrl-C ------------------------------------------------------------------------------

    async def _watch(
        self, finish: Callable[[], int], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Ctrl-C: the first stops sending, the second the streams, the third everything."""
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            await anext(signals)
            self.sums.interrupted = True
            if self._batch is not None:
                running = self._batch.statistics().running
                self._batch.stop()
                if running and not self.quiet:
                    many = "one request is" if running == 1 else f"{running:,} requests are"
                    say(f"\n{many} still running; Ctrl-C again cancels them\n")
            await anext(signals)
            if self._batch is not None:
                self._batch.cancel()
            await anext(signals)  # providers are being asked, or something hangs
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
            os._exit(finish())

    # -- how it goes -------------------------------------------------------------------------

    async def _show(self, done: trio.Event, shown: trio.Event) -> None:
        """Say every now and then how it goes."""
        line = StatusLine()
        every = REDRAW if line.changes else SAY_EVERY
        states = deque[tuple[float, int, int, int]](maxlen=1 + int(SPEED_OVER / every))
        while not done.is_set():
            with trio.move_on_after(every):
                await done.wait()
                break
            if self._batch is None:
                if self.sums.lines:
                    await line.show(f"reading the input: {self.sums.lines:,} lines", bad=False)
                continue
            stats = self._batch.statistics()
            now = trio.current_time()
            states.append((now, stats.done, stats.chunks, stats.completion_tokens))
            share = stats.done / max(self.sums.todo, 1)
            await line.show(self.status(*states[0]), bad=bool(stats.failed), share=share)
        line.clear()
        shown.set()

    def status(self, since: float, done: int, chunks: int, tokens: int) -> str:
        """``1,204 of 5,000 done, 3 failed, 64 running, waiting: retry 2 · ETA 2 min · …``

        The rates are since then, when there were so many of each. Chunks and tokens are counted
        where an answer ends.
        """
        assert self._batch is not None
        stats, sums = self._batch.statistics(), self.sums
        # Those that wait for others to end are just the next ones.
        waits = [
            f"{name} {n:,}" for name, n in stats.waiting.items() if n and name != "concurrency"
        ]
        parts = [
            f"{stats.done:,} of {sums.todo:,} done, {stats.failed:,} failed,"
            f" {stats.running:,} running" + (f", waiting: {', '.join(waits)}" if waits else "")
        ]
        stopping = sums.interrupted or self._batch.stopped is not None
        gone = max(trio.current_time() - since, 1e-9)
        speed = (stats.done - done) / gone
        if stopping:
            parts.insert(0, "stopping")
        elif speed > 0:
            parts.append(f"ETA {duration((sums.todo - stats.done) / speed)}")
        if sums.books.attempts:
            parts.append(f"cost {cost_text(sums.books.totals).partition(' (')[0]}")
        parts.append(f"{(stats.chunks - chunks) / gone:,.0f} chunks/s")
        parts.append(f"{(stats.completion_tokens - tokens) / gone:,.0f} tokens/s")
        if stats.ttft_p50 is not None:
            p50, p99 = seconds_text(stats.ttft_p50), seconds_text(stats.ttft_p99)
            parts.append(f"TTFT p50 {p50} p99 {p99}")
        return " · ".join(parts)


def duration(seconds: float) -> str:
    """``42 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _slots(plan: BatchPlan) -> int:
    """How many requests a local model takes at once."""
    wanted = plan.options.get("concurrency", "auto")
    return LOCAL_SLOTS if wanted == "auto" else min(wanted, LOCAL_SLOTS)


def _model_named(model: llm.Model, name: str | None, *, one_model: bool) -> llm.Model:
    """The model of a line that names one, with the price that is known for it."""
    if name is not None and name != model.name and not one_model:
        model = msgspec.structs.replace(model, name=name, price=None)
    return msgspec.structs.replace(model, price=price_of(model))


def _open_input(plan: BatchPlan, named: Callable[[str | None], llm.Model]) -> RequestFile:
    try:
        return RequestFile(
            plan.source,
            model=named,
            params=plan.params,
            shard=plan.shard,
            skip_bad=plan.skip_bad,
        )
    except OSError as exc:
        raise Misuse(f"the input {plan.source}: {exc.strerror or exc}") from exc


def _open_output(plan: BatchPlan) -> AbstractContextManager[ResultFile | None]:
    """The output; none where a dry run would make it."""
    target = plan.target
    try:
        if target.exists() and target.samefile(plan.source):
            raise Misuse("the output must be another file than the input")
        if plan.dry_run and not target.exists():
            return nullcontext()
        return ResultFile(target, fsync=plan.fsync)
    except OSError as exc:
        raise Misuse(f"the output {target}: {exc.strerror or exc}") from exc


def _open_cache(plan: BatchPlan) -> AbstractContextManager[ResponseCache | None]:
    if plan.cache is None:
        return nullcontext()
    try:
        return ResponseCache(plan.cache)
    except (OSError, CacheError) as exc:
        raise Misuse(f"the cache {plan.cache}: {exc}") from exc


def _failed_in(file: RequestFile, key: str, ok: bool) -> bool:
    return not ok and key in file


async def _missing(file: RequestFile, out: ResultFile) -> AsyncIterator[BatchRequest]:
    """Those without a line. Of a million requests all but one may have theirs."""
    try:
        for number, request in enumerate(file):
            if not number % TURN:
                await trio.lowlevel.checkpoint()
            if out.state(request) == "missing":
                yield request
    except (OSError, ValueError) as exc:  # it was changed meanwhile, or is gone
        raise Misuse(f"the input {file.path}: {exc}") from exc
