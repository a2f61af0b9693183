"""The load of a benchmark: streams at a fixed concurrency or rate, each of them measured.

Guarantees: only numbers are kept of a stream; every stream that was started is counted once, even
if everything is cancelled; whatever stops the sending leaves the running streams alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import trio

import trio_minillm as llm

from .._batch.histogram import Histogram
from .._batch.throttle.retry import is_fatal
from .._types.chunks import has_content
from ..local._named import open_model
from ._bench_hedge import Comparison, Hedge
from ._costs import RunLedger
from ._live import timed
from ._measurements import Results, Sample
from ._output import Misuse
from ._shared import LOCAL_SLOTS, price_of

CONCURRENCY = 10
"""Streams at once by default."""
LOCAL_CONTEXT = 2048
"""Tokens for each slot of a local model. Streams beyond its slots wait in its server, and that is
measured."""
GIVE_UP = 100
"""Failures in a row after which no more requests are sent: a server that refuses within a
millisecond would otherwise be asked thousands of times a second."""
GIVE_UP_FATAL = 10
"""Failures in a row that any request would share (a wrong key, an exhausted quota), after which no
more are sent."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One ``bench`` command with its options parsed and checked."""

    model: llm.Model | str
    """The model, or the name of a local one."""
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
    hedge: Hedge | None = None

    def fields(self, name: str) -> dict[str, Any]:
        """Return the options for ``--json``: no key, and only the count and size of the prompts."""
        clocks = msgspec.structs.asdict(self.timeouts.with_total(None))
        cost, model = self.limits.max_cost, self.model
        return {
            "model": name,
            "base_url": None if isinstance(model, str) else model.base_url.partition("?")[0],
            **{n: getattr(self, n) for n in ("requests", "duration", "concurrency", "rate")},
            **{n: getattr(self, n) for n in ("warmup", "max_tokens")},
            "prompts": {"count": len(self.prompts), "characters": sum(map(len, self.prompts))},
            "attempts": self.retry.attempts,
            "timeouts": clocks,
            "max_cost": None if cost is None else str(cost),
        }


class Load:
    """The requests of one benchmark, and their results.

    Its 15 attributes are the plan, its results, and how far it has come.
    """

    def __init__(self, plan: Plan, secret: str) -> None:
        self.plan = plan
        self.warmup = Results("warmup", secret)
        self.measured = Results("measured", secret)
        self.compared: Comparison | None = None
        if plan.hedge is not None:
            self.compared = Comparison(plan.hedge, self.measured, secret)
        self.now = self.warmup
        """The results of the current phase."""
        self.ledger = RunLedger(plan.ledger)
        self.error: Exception | None = None
        """The reason that there is no benchmark, or that it could not go on."""
        self.stopped = ""
        """The reason that no more requests are sent, unless that is the plan's own end."""
        self.running = self.chunks = self.tokens = 0
        self._sending = trio.CancelScope()
        self._left: int | None = None
        self._number = 0
        self._in_a_row = 0

    # -- one stream --------------------------------------------------------------------------

    def _open(
        self, client: llm.Client, model: llm.Model
    ) -> Iterator[tuple[llm.TrackedStream, Results]]:
        """Return the streams of the next prompt, each made when it is its turn, and their results."""
        prompts, compared = self.plan.prompts, self.compared
        prompt = prompts[self._number % len(prompts)]
        self._number += 1
        turns: tuple[Results, ...] = (self.now,)
        if compared is not None and self.now is self.measured:
            turns = compared.turns(self._number)
        for results in turns:
            alone = compared is None or results is compared.alone
            stream = client.stream(
                model if alone or compared is None else compared.choice(model),
                prompt,
                timeouts=self.plan.timeouts,
                retry=self.plan.retry,
                meta={"bench": results.phase},
                max_tokens=self.plan.max_tokens,
            )
            yield stream, results

    async def _measure(self, stream: llm.TrackedStream, results: Results) -> None:
        """Read a stream to its end, and count it, however it ends."""
        gaps, began = Histogram(), trio.current_time()
        error: llm.MiniLLMError | None = None
        first_at: float | None = None
        last_at: float | None = None
        first_tokens: int | None = None
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
                    first_at = at if first_at is None else first_at
                    if at == first_at and chunk.usage is not None:  # in the same read, too
                        first_tokens = chunk.usage.completion_tokens or first_tokens
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
            gaps.add_times(0.0, together)
            sample = Sample(
                response=stream.response,
                error=error,
                gaps=gaps,
                last_at=last_at,
                first_tokens=first_tokens,
            )
            if self.compared is not None:
                sample.first = None if first_at is None else first_at - began
                sample.total = trio.current_time() - began
                self.compared.add(results, sample)
            self._ended(results, sample)

    def _ended(self, results: Results, sample: Sample) -> None:
        outcome, error = sample.response.outcome, sample.error
        if isinstance(error, llm.BudgetExceeded):
            self.stop("--max-cost is reached")
            if isinstance(error.__cause__, llm.MiniLLMError):  # the limit prevented a retry of this
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

    # -- many streams ------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """Send no more requests. Running streams go on."""
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
        self._sending = trio.CancelScope(deadline=trio.current_time() + seconds)
        with timed(results):
            async with trio.open_nursery() as nursery:
                if rate is not None:
                    with self._sending:
                        await self._at_rate(nursery, client, model, rate)
                else:
                    workers = self.plan.concurrency or CONCURRENCY
                    workers = workers if requests is None else min(workers, requests)
                    for _ in range(workers):
                        nursery.start_soon(self._worker, client, model)

    async def _worker(self, client: llm.Client, model: llm.Model) -> None:
        """Run one stream after the other."""
        while self._may_send():
            if trio.current_time() >= self._sending.deadline:
                return
            for stream, results in self._open(client, model):
                await self._measure(stream, results)

    async def _at_rate(
        self, nursery: trio.Nursery, client: llm.Client, model: llm.Model, rate: float
    ) -> None:
        """Start streams at a rate, whatever became of earlier ones, within the concurrency."""
        room = trio.Semaphore(self.plan.concurrency or sys.maxsize)
        began, number = trio.current_time(), 0

        async def run(stream: llm.TrackedStream, results: Results) -> None:
            try:
                await self._measure(stream, results)
            finally:
                room.release()

        while self._may_send():
            due = began + number / rate
            number += 1
            await trio.sleep_until(due)
            await room.acquire()
            self.now.latencies.late.add(max(0.0, trio.current_time() - due))
            nursery.start_soon(run, *next(self._open(client, model)))

    async def run(self, leaving: Callable[[], None]) -> None:
        """Run the warm-up, then what counts.

        ``leaving`` is called when all streams have ended, and only their costs may still be open.
        """
        plan = self.plan
        slots = min(plan.concurrency or LOCAL_SLOTS, LOCAL_SLOTS)
        async with (
            open_model(plan.model, context=LOCAL_CONTEXT, slots=slots) as model,
            llm.open_client(ledger=self.ledger, limits=plan.limits) as client,
        ):
            model = msgspec.structs.replace(model, price=price_of(model))
            try:
                # Raises for an option that a wire format does not have.
                next(self._open(client, model))
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
