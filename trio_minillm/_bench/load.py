"""The load of a benchmark in one process: streams at a fixed concurrency or at given times.

Guarantees: every stream that was started has one record, even if everything is cancelled; whatever
stops the sending leaves the running streams alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import trio

from .._batch.throttle.retry import is_fatal
from .._client import Client
from .._toolkit.streams import TrackedStream
from .._types.errors import BudgetExceeded, MiniLLMError
from .arrivals import offsets
from .hedge import Hedge
from .plan import CONCURRENCY, Closed, Load, Plan
from .record import MEASURED, WARMUP, Record, clock_offset, kind_of_failure
from .sender import Sender, failure_of

GIVE_UP = 100
"""Failures in a row after which no more requests are sent: a server that refuses within a
millisecond would otherwise be asked thousands of times a second."""
GIVE_UP_FATAL = 10
"""Failures in a row that any request would share (a wrong key, an exhausted quota), after which no
more are sent."""
MAX_ERRORS = 50
"""Kinds of failure of which an error is kept."""
COST_UNKNOWN = "--max-cost can't be kept: what an answer cost is not known"
"""Reason for a stop where a limit would have no effect."""


class LoadRun:
    """The requests of one plan in this process.

    ``sink`` is called with each record when its request has ended. ``max_cost`` says that the client has
    such a limit, so that answers without a known cost end the run. Its 16 attributes are the plan, its
    outlets, and how far it has come.
    """

    def __init__(
        self,
        client: Client,
        model: Any,
        plan: Plan,
        sink: Callable[[Record], object],
        *,
        secret: str = "",
        hedge: Hedge | None = None,
        max_cost: bool = False,
    ) -> None:
        self.plan = plan
        self.sink = sink
        self.hedge = hedge
        self.stopped = ""
        """The reason that no more requests are sent, unless that is the plan's own end."""
        self.error: str | None = None
        """The reason that the run could not be carried out as it was asked for."""
        self.phase = WARMUP if plan.warmup else MEASURED
        self.chunks = self.tokens = 0
        """Contents of the current phase so far, and tokens as far as the server has told."""
        self.sender = Sender(client, model, plan, secret=secret, moved=self._moved)
        self._secret = secret
        self._max_cost = max_cost
        self._sending = trio.CancelScope()
        self._left: int | None = None
        self._number = 0
        self._in_a_row = 0
        self.errors: dict[tuple[str | None, ...], MiniLLMError] = {}
        """The newest error of each kind of failure, of which `kind_of_failure` makes the key."""

    @property
    def running(self) -> int:
        """Streams that are open."""
        return self.sender.running

    def stop(self, why: str) -> None:
        """Send no more requests. Running streams go on."""
        self.stopped = self.stopped or why
        self._sending.cancel()

    async def run(self, begin_at: float | None = None) -> None:
        """Run the warm-up, then what counts, which begins at ``begin_at`` (Trio's clock) or at once.

        Raises ``ValueError`` or ``TypeError``, before anything is sent, for a parameter that the wire
        format does not have.
        """
        plan = self.plan
        for prompt in plan.prompts[:1]:
            self.sender.open(prompt, self.phase)
        if plan.warmup:
            await self._run_phase(
                WARMUP, Closed(concurrency=_most(plan.load)), plan.warmup, math.inf
            )
        self.chunks = self.tokens = self._in_a_row = 0
        if begin_at is not None and not self.stopped:
            await trio.sleep_until(begin_at)
        duration = math.inf if plan.duration is None else plan.duration
        await self._run_phase(MEASURED, plan.load, plan.requests, duration)

    async def _run_phase(
        self, phase: str, load: Load, requests: int | None, seconds: float
    ) -> None:
        if self.stopped:
            return
        self.phase, self._left, self._number = phase, requests, 0
        self._sending = trio.CancelScope(deadline=trio.current_time() + seconds)
        async with trio.open_nursery() as nursery:
            if isinstance(load, Closed):
                workers = load.concurrency if requests is None else min(load.concurrency, requests)
                for _ in range(workers):
                    nursery.start_soon(self._worker)
            else:
                with self._sending:
                    await self._open_loop(nursery, load)

    # -- when --------------------------------------------------------------------------------

    def _next(self) -> int | None:
        """Return the number of the next request, or None if no more may start."""
        if self._sending.cancel_called or self._left == 0:
            return None
        if trio.current_time() >= self._sending.deadline:
            return None
        if self._left is not None:
            self._left -= 1
        self._number += 1
        return self._number - 1

    async def _worker(self) -> None:
        """Run one request after the other."""
        while (number := self._next()) is not None:
            await self._send(number, trio.current_time())

    async def _open_loop(self, nursery: trio.Nursery, load: Load) -> None:
        """Start requests at their times, whatever became of earlier ones, within the concurrency."""
        room = trio.Semaphore(getattr(load, "concurrency", None) or sys.maxsize)
        began = trio.current_time()

        async def run(number: int, due: float) -> None:
            try:
                await self._send(number, due)
            finally:
                room.release()

        for offset in offsets(load, self.plan.seed):
            await trio.sleep_until(began + offset)
            await room.acquire()
            if (number := self._next()) is None:
                return
            nursery.start_soon(run, number, began + offset)

    # -- one request -------------------------------------------------------------------------

    async def _send(self, number: int, due: float) -> None:
        """Send the request with this number: to both models where two are compared."""
        prompts = self.plan.prompts
        prompt = prompts[number % len(prompts)]
        phases: tuple[str, ...] = (self.phase,)
        if self.hedge is not None and self.phase == MEASURED:
            phases = self.hedge.turns(number)
        due += clock_offset()
        for phase in phases:
            record = Record(number=number, phase=phase, scheduled=due, sent=due, ended=due)
            model = None
            if self.hedge is not None and phase == MEASURED:
                model = self.hedge.choice
            sent = await self.sender.send(prompt, record, model)
            self._ended(*sent)
            due = sent[0].ended

    def _ended(self, record: Record, stream: TrackedStream, error: MiniLLMError | None) -> None:
        if isinstance(error, BudgetExceeded):
            self.stop("--max-cost is reached")
            if isinstance(error.__cause__, MiniLLMError):  # the limit prevented a retry of this
                record.failure = failure_of(error.__cause__, self._secret)
        if record.whole:
            self._in_a_row = 0
            if self._max_cost and record.cost is None:
                self.error = COST_UNKNOWN
                self.stop(COST_UNKNOWN)
        elif error is not None:
            self._in_a_row += 1
            most = GIVE_UP_FATAL if is_fatal(error) else GIVE_UP
            if self._in_a_row >= max(most, 2 * (getattr(self.plan.load, "concurrency", 0) or 0)):
                self.stop(f"gave up after {self._in_a_row:,} failures in a row")
        if error is not None and len(self.errors) < MAX_ERRORS:
            self.errors[kind_of_failure(record)] = error
        if record.outcome is not None and record.attempts:
            self.sink(record)

    def _moved(self, chunks: int, tokens: int) -> None:
        self.chunks += chunks
        self.tokens += tokens


def _most(load: Load) -> int:
    """Return the streams at once of a warm-up."""
    return getattr(load, "concurrency", None) or CONCURRENCY
