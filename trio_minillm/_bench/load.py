"""The load of a benchmark in one process: streams at a fixed concurrency or at given times.

Guarantees: every stream that was started has one record, even if everything is cancelled; whatever
stops the sending leaves the running streams alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from itertools import chain, islice, takewhile
from typing import Any

import trio
from msgspec.structs import replace

from .._batch.throttle.retry import is_fatal
from .._client import Client
from .._toolkit.streams import TrackedStream
from .._types.errors import BudgetExceeded, MiniLLMError
from .._types.messages import assistant
from .arrivals import offsets
from .audit.stamps import Lags
from .hedge import Hedge
from .plan import CONCURRENCY, Closed, Load, Plan, part_of
from .prompts.prompt import Prompt, as_sent, next_turn
from .record import MEASURED, WARMUP, Record, kind_of_failure
from .sender import Sender, failure_of

GIVE_UP = 100
"""Failures in a row after which no more requests are sent: a server that refuses within a
millisecond would otherwise be asked thousands of times a second."""
GIVE_UP_FATAL = 10
"""Failures in a row that any request would share (a wrong key, an exhausted quota), after which no
more are sent."""
MAX_ERRORS = 50
"""Kinds of failure of which an error is kept."""
MAX_UNSENT = 1_000_000
"""Requests that were due and not sent of which the number is told; beyond, it is this one."""
COST_UNKNOWN = "--max-cost can't be enforced: the cost of an answer is unknown"
"""Reason for a stop where a limit would have no effect."""


class LoadRun:
    """The requests of one plan in this process.

    ``sink`` is called with each record when its request has ended. ``max_cost`` says that the client has
    such a limit, so that answers without a known cost end the run. ``lags`` are those of the client's
    reads, if its transport tells them: they are taken out of the times of contents. Its 20 attributes are the plan, its
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
        lags: Lags | None = None,
    ) -> None:
        self.plan = plan
        self.sink = sink
        self.hedge = hedge
        self.stopped = ""
        """The reason that no more requests are sent, unless that is the plan's own end."""
        self.gave_up = False
        """True if that is because all failed at this load, which may be otherwise at another."""
        self.unsent = 0
        """Requests that were due when the sending ended, and had not been sent by then."""
        self.error: str | None = None
        """The reason that the run could not be carried out as it was asked for."""
        self.phase = WARMUP if plan.warmup else MEASURED
        self.chunks = self.tokens = 0
        """Contents of the current phase so far, and tokens as far as the server has told."""
        self.sender = Sender(client, model, plan, secret=secret, moved=self._moved)
        if lags is not None:
            self.sender.lag_at = lags.at
        self.measuring: Callable[[], object] = lambda: None
        """Called before what counts begins."""
        self._secret = secret
        self._max_cost = max_cost
        self._sending = trio.CancelScope()
        self._pauses = set[trio.CancelScope]()
        self._left: int | None = None
        self._number = 0
        self._in_a_row = 0
        self.errors: dict[tuple[str | None, ...], MiniLLMError] = {}
        """The newest error of each kind of failure, of which `kind_of_failure` makes the key."""

    @property
    def running(self) -> int:
        """Streams that are open."""
        return self.sender.running

    @property
    def idle(self) -> bool:
        """True if there is no stream to wait for."""
        return not self.running

    def stop(self, why: str) -> None:
        """Send no more requests. Running streams go on."""
        self.stopped = self.stopped or why
        self._sending.cancel()
        for pause in self._pauses:
            pause.cancel()

    async def run(self) -> None:
        """Run the warm-up, then what counts.

        Raises ``ValueError`` or ``TypeError``, before anything is sent, for a parameter that the wire
        format does not have.
        """
        self.check()
        await self.warm_up()
        await self.run_measured()

    def check(self) -> None:
        """Raise as `run` does, for a prompt of each kind: with the same parameters, and as many turns."""
        kinds = {
            (frozenset(prompt.params), bool(prompt.turns)): prompt for prompt in self.plan.prompts
        }
        asked = [*kinds.values()]
        asked += [turn for prompt in asked if (turn := next_turn(prompt, assistant("-")))]
        for prompt in asked:
            self.sender.open(prompt, self.phase)
            if self.hedge is not None:
                self.sender.open(prompt, self.phase, self.hedge.choice)

    async def warm_up(self) -> None:
        """Send the requests before those that count, if there are any."""
        plan = self.plan
        if plan.warmup and not self.stopped:
            most = plan.load.concurrency or -(-CONCURRENCY // plan.part[1])
            load, now = Closed(concurrency=most), trio.current_time()
            await self._run_phase(WARMUP, load, plan.warmup, math.inf, now)

    async def run_measured(self, begin_at: float | None = None) -> None:
        """Send those that count, which begin at ``begin_at`` (Trio's clock) or at once."""
        plan = self.plan
        self.phase = MEASURED
        self.chunks = self.tokens = self._in_a_row = 0
        self.measuring()
        began = trio.current_time() if begin_at is None else begin_at
        with trio.CancelScope() as self._sending:
            if self.stopped:
                return
            await trio.sleep_until(began)
        if not self.stopped:
            end = math.inf if plan.duration is None else began + plan.duration
            await self._run_phase(MEASURED, plan.load, plan.requests, end, began)

    async def _run_phase(
        self, phase: str, load: Load, requests: int | None, end: float, began: float
    ) -> None:
        plan = self.plan
        self.phase, self._number = phase, plan.part[0]
        self._left = None if requests is None else part_of(requests, plan.part)
        self._sending = trio.CancelScope(deadline=end)
        async with trio.open_nursery() as nursery:
            if isinstance(load, Closed):
                least = load.concurrency if self._left is None else self._left
                for _ in range(min(load.concurrency, least)):
                    nursery.start_soon(self._worker)
            else:
                with self._sending:
                    await self._open_loop(nursery, load, began)

    # -- when --------------------------------------------------------------------------------

    def _next(self) -> int | None:
        """Return the number of the next request, or None if no more may start."""
        if self._sending.cancel_called or self._left == 0:
            return None
        if trio.current_time() >= self._sending.deadline:
            return None
        if self._left is not None:
            self._left -= 1
        number = self._number
        self._number += self.plan.part[1]
        return number

    async def _worker(self) -> None:
        """Run one request after the other."""
        while (number := self._next()) is not None:
            await self._send(number, trio.current_time())

    async def _open_loop(self, nursery: trio.Nursery, load: Load, began: float) -> None:
        """Start requests at their times, whatever became of earlier ones, within the concurrency."""
        room = trio.Semaphore(load.concurrency or sys.maxsize)

        async def run(number: int, due: float) -> None:
            try:
                await self._send(number, due)
            finally:
                room.release()

        mine = islice(offsets(load, self.plan.seed), self.plan.part[0], None, self.plan.part[1])
        offset: float | None = None
        try:
            for offset in mine:
                if self._left == 0:
                    return
                await trio.sleep_until(began + offset)
                await room.acquire()
                if (number := self._next()) is None:
                    return
                nursery.start_soon(run, number, began + offset)
                offset = None
        finally:
            passed = min(trio.current_time(), self._sending.deadline) - began
            if offset is not None and offset < passed:
                due = takewhile(lambda offset: offset < passed, mine)
                most = MAX_UNSENT if self._left is None else min(self._left, MAX_UNSENT)
                self.unsent = sum(1 for _ in islice(chain((offset,), due), most))

    # -- one request, or one conversation ----------------------------------------------------

    async def _send(self, number: int, due: float) -> None:
        """Send the request with this number, and the further turns of its conversation: to both models
        where two are compared.
        """
        prompts = self.plan.prompts
        prompt, further = self._begun(prompts[number % len(prompts)])
        phases: tuple[str, ...] = (self.phase,)
        if self.hedge is not None and self.phase == MEASURED:
            phases = self.hedge.turns(number)
        due += self.sender.offset
        turns = 0
        for phase in phases:
            record = Record(number=number, phase=phase, scheduled=due, sent=due, ended=due)
            model = None
            if self.hedge is not None and phase == MEASURED:
                model = self.hedge.choice
            record = await self._converse(prompt, record, model)
            due, turns = record.ended, max(turns, record.turn)
        if self._left is not None:
            self._left += further - turns

    def _begun(self, prompt: Prompt) -> tuple[Prompt, int]:
        """Return a prompt with as many further turns as there are requests left, and their number, which is
        taken off.
        """
        further = len(prompt.turns)
        if further and self._left is not None:
            further = min(further, self._left)
            self._left -= further
            prompt = replace(prompt, turns=prompt.turns[:further])
        return prompt, further

    async def _converse(self, prompt: Prompt, record: Record, model: Any) -> Record:
        """Send a prompt, and each further turn behind the answer to the one before. Returns the last
        turn's record.

        The conversation is over with its last turn, with an answer that is not whole or that nothing can
        follow, and when no more requests may start.
        """
        record.asked_tokens = prompt.tokens
        prompt = as_sent(prompt)
        while True:
            stream = await self._sent(prompt, record, model)
            if not record.whole or not prompt.turns:
                return record
            following = next_turn(prompt, stream.response.to_message())
            if following is None or not await self._thought():
                return record
            prompt, due = following, record.ended + self.plan.think
            record = Record(
                number=record.number,
                phase=record.phase,
                turn=record.turn + 1,
                scheduled=due,
                sent=due,
                ended=due,
            )

    async def _sent(self, prompt: Prompt, record: Record, model: Any) -> TrackedStream:
        """Send one request, and take note of its end, also if it is cancelled."""
        error: MiniLLMError | None = None
        try:
            _, stream, error = await self.sender.send(prompt, record, model)
        finally:
            self._ended(record, error)
        return stream

    async def _thought(self) -> bool:
        """Wait as long as a user thinks. Returns False if no more requests may start by then."""
        if self.plan.think:
            with trio.move_on_at(self._sending.deadline) as pause:
                self._pauses.add(pause)
                try:
                    await trio.sleep(self.plan.think)
                finally:
                    self._pauses.discard(pause)
        over = trio.current_time() >= self._sending.deadline
        return not (over or self._sending.cancel_called)

    def _ended(self, record: Record, error: MiniLLMError | None) -> None:
        if isinstance(error, BudgetExceeded):
            self.stop("--max-cost was reached")
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
            most = max(most, 2 * (self.plan.load.concurrency or 0))
            if self._in_a_row >= most and not self.stopped:
                self.gave_up = not is_fatal(error)
                self.stop(f"gave up after {self._in_a_row:,} failures in a row")
        if error is not None and len(self.errors) < MAX_ERRORS:
            self.errors[kind_of_failure(record)] = error
        if record.outcome is not None and record.attempts:
            self.sink(record)

    def _moved(self, chunks: int, tokens: int) -> None:
        self.chunks += chunks
        self.tokens += tokens
