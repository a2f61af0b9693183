"""The load of a benchmark: streams, so many at once or so many a second, each one measured.

Guarantees: nothing of a stream is kept but numbers; every stream that was begun is counted once,
also when all is cancelled; what stops the sending leaves the running streams alone.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import trio

import trio_minillm as llm

from .._batch.histogram import Histogram
from .._batch.throttle.retry import is_fatal
from .._types.chunks import has_content
from ._measurements import Results, Sample
from ._options import price_of
from ._output import Misuse

CONCURRENCY = 10
"""Streams at once, if nothing else is said."""
LOCAL_CONTEXT, LOCAL_SLOTS = 2048, 4
"""Tokens for each slot of a local model, and slots: memory for both is taken at once. More
streams than slots wait in the server, and that is measured."""
GIVE_UP, GIVE_UP_FATAL = 100, 10
"""Failures in a row after which no more is sent; fewer where every request would fail alike. A
server that refuses within a millisecond would be asked thousands of times a second."""
OPEN_FILES = 65_536
"""Connections that can be open, if the system allows so many to this program."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One ``bench`` command, its options read and checked. ``model`` is None for a local one."""

    model: llm.Model | None
    path: str | None
    prompts: list[str]
    max_tokens: int | None
    requests: int | None
    duration: float | None
    concurrency: int | None
    rate: float | None
    warmup: int
    timeouts: llm.Timeouts
    retry: llm.Retry
    limits: llm.Limits
    ledger: llm.Ledger | None

    def fields(self, name: str) -> dict[str, Any]:
        """For ``--json``: no key, and of the prompts only how many and how long they are."""
        clocks = msgspec.structs.asdict(self.timeouts.with_total(None))
        cost = self.limits.max_cost
        return {
            "model": name,
            "base_url": None if self.model is None else self.model.base_url.partition("?")[0],
            **{n: getattr(self, n) for n in ("requests", "duration", "concurrency", "rate")},
            **{n: getattr(self, n) for n in ("warmup", "max_tokens")},
            "prompts": {"count": len(self.prompts), "characters": sum(map(len, self.prompts))},
            "attempts": self.retry.attempts,
            "timeouts": clocks,
            "max_cost": None if cost is None else str(cost),
        }


class RunLedger(llm.Ledger):
    """The sums of this run alone; each record goes into the file of ``--ledger``, too."""

    def __init__(self, file: llm.Ledger | None) -> None:
        super().__init__()
        self._file = file

    def record(self, record: llm.CostRecord) -> bool:
        if self._file is not None:
            self._file.record(record)
        return super().record(record)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()


class Load:
    """What one benchmark sends, and what comes of it."""

    def __init__(self, plan: Plan, secret: str) -> None:
        self.plan = plan
        self.warmup = Results("warmup", secret)
        self.measured = Results("measured", secret)
        self.now = self.warmup
        """The phase that goes on."""
        self.books = RunLedger(plan.ledger)
        self.error: Exception | None = None
        """Why there is no benchmark, or it could not go on."""
        self.stopped = ""
        """Why no more is sent, where that is not the plan's own end."""
        self.running = self.chunks = self.tokens = 0
        self._sending = trio.CancelScope()
        self._left: int | None = None
        self._number = 0
        self._in_a_row = 0

    # -- one stream --------------------------------------------------------------------------

    def _open(self, client: llm.Client, model: llm.Model) -> llm.TrackedStream:
        prompts = self.plan.prompts
        prompt = prompts[self._number % len(prompts)]
        self._number += 1
        return client.stream(
            model,
            prompt,
            timeouts=self.plan.timeouts,
            retry=self.plan.retry,
            meta={"bench": self.now.phase},
            max_tokens=self.plan.max_tokens,
        )

    async def _one(self, stream: llm.TrackedStream) -> None:
        """Take a stream to its end, and count it, however it ends."""
        results, gaps = self.now, Histogram()
        error: llm.MiniLLMError | None = None
        last_at: float | None = None
        together = tokens = 0
        self.running += 1
        try:
            async with stream:
                async for chunk in stream:
                    if chunk.usage is not None:
                        before, tokens = tokens, chunk.usage.completion_tokens or tokens
                        self.tokens += tokens - before
                    if not (chunk.delta or has_content(chunk)):
                        continue
                    self.chunks += 1
                    at = chunk.received_at
                    if at == last_at:  # one read brought both
                        together += 1
                        continue
                    if last_at is not None:
                        gaps.add(at - last_at)
                    last_at = at
        except llm.MiniLLMError as exc:
            error = exc
        finally:
            self.running -= 1
            gaps.add(0.0, together)
            sample = Sample(response=stream.response, error=error, gaps=gaps, last_at=last_at)
            self._ended(results, sample)

    def _ended(self, results: Results, sample: Sample) -> None:
        outcome, error = sample.response.outcome, sample.error
        if isinstance(error, llm.BudgetExceeded):
            self.stop("--max-cost is reached")
            if isinstance(error.__cause__, llm.MiniLLMError):  # it was to be a retry
                sample.error = error.__cause__
        results.add(sample)
        if outcome is llm.Outcome.FINISHED:
            self._in_a_row = 0
            if self.plan.limits.max_cost is not None and sample.response.cost.amount is None:
                self.error = Misuse("--max-cost can't be kept: what an answer cost is not known")
                self.stop(str(self.error))
        elif sample.error is not None:
            self._in_a_row += 1
            most = GIVE_UP_FATAL if is_fatal(sample.error) else GIVE_UP
            if self._in_a_row >= max(most, 2 * (self.plan.concurrency or 0)):
                self.stop(f"gave up after {self._in_a_row:,} failures in a row")

    # -- many --------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """Send no more; what runs goes on."""
        self.stopped = self.stopped or why
        self._sending.cancel()

    def _may_send(self) -> bool:
        if self._sending.cancel_called or self._left == 0:
            return False
        if self._left is not None:
            self._left -= 1
        return True

    async def _phase(
        self,
        client: llm.Client,
        model: llm.Model,
        results: Results,
        *,
        requests: int | None,
        seconds: float,
        rate: float | None,
    ) -> None:
        if self.stopped:
            return
        self.now, self._left = results, requests
        cpu, began = time.process_time(), trio.current_time()
        results.first_sent = began
        self._sending = trio.CancelScope(deadline=began + seconds)
        try:
            async with trio.open_nursery() as nursery:
                if rate is not None:
                    with self._sending:
                        await self._at_rate(nursery, client, model, rate)
                else:
                    workers = self.plan.concurrency or CONCURRENCY
                    workers = workers if requests is None else min(workers, requests)
                    for _ in range(workers):
                        nursery.start_soon(self._worker, client, model)
        finally:
            results.cpu = time.process_time() - cpu
            results.seconds = trio.current_time() - began

    async def _worker(self, client: llm.Client, model: llm.Model) -> None:
        """One stream after the other."""
        while self._may_send():
            if trio.current_time() >= self._sending.deadline:
                return
            await self._one(self._open(client, model))

    async def _at_rate(
        self, nursery: trio.Nursery, client: llm.Client, model: llm.Model, rate: float
    ) -> None:
        """Begin a stream every so often, whatever became of the others, as far as there is room."""
        room = trio.Semaphore(self.plan.concurrency or sys.maxsize)
        began, number = trio.current_time(), 0

        async def run(stream: llm.TrackedStream) -> None:
            try:
                await self._one(stream)
            finally:
                room.release()

        while self._may_send():
            due = began + number / rate
            number += 1
            await trio.sleep_until(due)
            await room.acquire()
            self.now.late.add(max(0.0, trio.current_time() - due))
            nursery.start_soon(run, self._open(client, model))

    async def run(self, leaving: Callable[[], None]) -> None:
        """All of it: the warm-up, then what counts. ``leaving`` is called when all streams have
        ended, and only what they cost may still be open.
        """
        plan = self.plan
        allow_many_files()
        async with (
            _model_of(plan) as model,
            llm.open_client(ledger=self.books, limits=plan.limits) as client,
        ):
            model = msgspec.structs.replace(model, price=price_of(model))
            try:
                self._open(client, model)  # says which option this model's wire does not have
            except (ValueError, TypeError) as exc:
                raise Misuse(str(exc)) from exc
            self._number = 0
            try:
                await self._phases(client, model)
            finally:
                leaving()

    async def _phases(self, client: llm.Client, model: llm.Model) -> None:
        plan = self.plan
        if plan.warmup:
            await self._phase(
                client, model, self.warmup, requests=plan.warmup, seconds=math.inf, rate=None
            )
        self.chunks = self.tokens = self._in_a_row = 0
        await self._phase(
            client,
            model,
            self.measured,
            requests=plan.requests,
            seconds=math.inf if plan.duration is None else plan.duration,
            rate=plan.rate,
        )


@asynccontextmanager
async def _model_of(plan: Plan) -> AsyncIterator[llm.Model]:
    if plan.model is not None:
        yield plan.model
        return
    slots = min(plan.concurrency or LOCAL_SLOTS, LOCAL_SLOTS)
    opened = llm.open_local_model(path=plan.path, context=LOCAL_CONTEXT, slots=slots)
    async with opened as model:
        yield model


def allow_many_files() -> None:
    """Each stream has a socket, and systems allow some 1,000 unless they are asked."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
