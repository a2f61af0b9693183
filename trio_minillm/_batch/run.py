"""The tasks of a batch: send what the schedule lets go, hand results out.

All decisions are in the schedule and its lanes, which never wait. One task pulls requests a little
ahead (`RequestSource`), a crew of others takes one item after the other (`WorkerPool`) and sends it (`Sender`).
"""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any

import trio
from msgspec.structs import replace

from .._types.errors import BudgetExceeded, MiniLLMError, StreamTimeout
from .._types.response import CompletionResponse, Outcome
from ..providers import Model
from .options import Settings
from .results import Results
from .scoring import score_result
from .sender import Sender
from .source import Requests, RequestSource
from .statistics import BatchStatistics, Counters
from .throttle.lanes import Lane
from .throttle.retry import BATCH_RETRY, RetryBudget, counted_attempts, is_fatal, retry_delay
from .throttle.schedule import Item, Schedule
from .throttle.token_estimate import estimate_tokens
from .types import BatchRequest, BatchResult
from .workers import WorkerPool

LOOK_AHEAD = 256
"""Requests that are pulled before they can be sent, at most: so that a model whose turn has not come
does not hold up the others, and reading never keeps a worker waiting."""


class Run:
    """What goes on in a batch's block.

    Guarantees: `run` raises nothing of its own (what a task raised is in `crash`), and when it
    ends no task is left; each item that was admitted is handed out as one result, or counted as
    unsent.
    """

    def __init__(
        self, requests: Requests, model: Model | None, settings: Settings, sender: Sender
    ) -> None:
        self.settings = settings
        self.schedule = Schedule(settings.capacity, self._new_lane)
        self.results = Results(settings.buffer, ordered=settings.ordered, on_room=self._on_room)
        self.tally = Counters()
        self.stopped: MiniLLMError | None = None
        """What ended it before its end."""
        self.crash: BaseException | None = None
        """What a task of it raised."""
        self.done = trio.Event()
        self.ended_at: float | None = None
        self._model = model
        self._sender = sender
        self._retries = RetryBudget(settings.retry_share)
        self._intake = RequestSource(requests, self._admit, self._crowded)
        self._crew = WorkerPool(
            self.schedule,
            self._serve,
            held=lambda: self.results.blocked,
            expire=self._expire,
            crashed=self._crashed,
        )
        self._stopping = False
        self._aside = 0  # items that are handed out without having been sent just now
        self._scope = trio.CancelScope()
        self._workers: trio.Nursery | None = None

    def _new_lane(self, now: float) -> Lane:
        return Lane(now, self.settings.rates, self.settings.searched)

    # -- from outside ------------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it. A cancellation from outside is for the block to raise."""
        try:
            with self._scope:
                async with trio.open_nursery() as self._workers:
                    self._workers.start_soon(self._pull, name="trio_minillm batch input")
                    self._crew.start(self._workers)
        except trio.Cancelled:
            pass
        finally:
            self.ended_at = trio.current_time()
            self.results.close()
            self.done.set()

    def stop(self) -> None:
        """Send no more; what waits is dropped."""
        self._stopping = True
        self._intake.stop()
        self.tally.unsent += len(self.schedule.clear())
        self._check_end()

    def cancel(self) -> None:
        """End all tasks."""
        self._scope.cancel()

    def change(self, settings: Settings, now: float) -> None:
        """Other settings, while it runs."""
        self.settings = settings
        self.schedule.capacity = settings.capacity
        for lane in self.schedule.lanes:
            lane.change(settings.rates, settings.searched, now)
        self._crew.kick()

    def read(self, *, total: int | None, began: float | None) -> BatchStatistics:
        """How it is doing, since it ``began``."""
        now = self.ended_at or trio.current_time()
        limits = [lane.concurrency.limit for lane in self.schedule.lanes if lane.concurrency]
        capacity = self.schedule.capacity
        return self.tally.read(
            total=total,
            running=self.schedule.running,
            waiting=dict(self.schedule.reasons(now)),
            elapsed=0.0 if began is None else now - began,
            concurrency=min(capacity, sum(limits)) if limits else capacity,
        )

    # -- what comes in -----------------------------------------------------------------------------

    async def _pull(self) -> None:
        try:
            await self._intake.run()
            self._check_end()
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self._crashed(exc)

    def _admit(self, request: BatchRequest) -> None:
        if not isinstance(request, BatchRequest):
            raise TypeError(f"requests must be BatchRequest values, not {type(request).__name__}")
        model = request.model or self._model
        if model is None:
            raise ValueError(f"request {request.key!r} has no model, and the batch has none either")
        if request.model is None:
            request = replace(request, model=model)
        samples = self.settings.samples
        if self._stopping:  # the input has paid no heed to its cancellation
            self.tally.unsent += samples
            return
        now, tokens = trio.current_time(), estimate_tokens(request)
        index = self.tally.pulled // samples
        for sample in range(samples):
            item = Item(request, model, index, sample)
            item.tokens = tokens
            item.number = self.tally.pulled
            self.tally.pulled += 1
            if not self._in_cache(item):
                self.schedule.add(item, now)
        self._crew.kick()

    def _in_cache(self, item: Item) -> bool:
        """Look an item up; one that is found needs no turn, and is on its way out."""
        cache = self.settings.cache
        if cache is None:
            return False
        item.cache_key, response_type = self._sender.cache_key(item)
        answer = cache.get(item.cache_key, response_type)
        if answer is None:
            return False
        self._hand_out(item, response=answer, cached=True)
        return True

    def _hand_out(self, item: Item, **what: Any) -> None:
        """Begin to hand out an item that has no worker."""
        assert self._workers is not None
        self._aside += 1
        self._workers.start_soon(
            partial(self._publish_aside, item, **what), name="trio_minillm batch result"
        )

    async def _publish_aside(self, item: Item, **what: Any) -> None:
        try:
            await self._publish(item, **what)
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self._crashed(exc)
        finally:
            self._aside -= 1
        self._refill()
        self._check_end()

    def _crowded(self, ahead: int = LOOK_AHEAD) -> bool:
        """Whether no more should be pulled now, with so many waiting at most."""
        return self.schedule.waiting >= ahead or self._too_far() or self._full_of_hits()

    def _too_far(self) -> bool:
        if not self.settings.ordered:
            return False
        window = self.settings.window or max(1_000, 2 * self.schedule.capacity)
        return self.tally.pulled - self.results.handed_out >= window

    def _full_of_hits(self) -> bool:
        """Whether answers from the cache must wait, for the score or a slow consumer."""
        some = self.settings.cache is not None
        return some and (self.results.blocked or self._aside >= self.schedule.capacity)

    def _refill(self) -> None:
        if not self._crowded(LOOK_AHEAD // 2 + 1):
            self._intake.wake()

    def _on_room(self) -> None:
        """A consumer has taken results."""
        self._crew.kick()
        self._refill()

    # -- how it ends -------------------------------------------------------------------------------

    def _all_done(self) -> bool:
        busy = self.schedule.waiting or self.schedule.running or self._aside
        return self._intake.exhausted and not busy

    def _check_end(self) -> None:
        if self._workers is not None and self._all_done():
            self._scope.cancel()  # only parked tasks are left

    def _crashed(self, exc: BaseException) -> None:
        """Keep what a task raised, and end the run; a cancellation goes on its way."""
        cancelled: BaseException | None = None
        if isinstance(exc, trio.Cancelled):
            raise exc
        if isinstance(exc, BaseExceptionGroup) and not isinstance(exc, ExceptionGroup):
            # What a stream's block raised, and the cancellation that another's failure brought it.
            cancelled, rest = exc.split(trio.Cancelled)
            if rest is None:
                raise exc
            exc = rest
            while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
                exc = exc.exceptions[0]
        if self.crash is None:
            self.crash = exc
        self._scope.cancel()
        if cancelled is not None:
            raise cancelled

    # -- one item ----------------------------------------------------------------------------------

    def _expire(self, now: float) -> float:
        """Give up those whose time is over while they wait to be sent again."""
        gone, following = self.schedule.expired(now)
        for item in gone:
            assert item.started is not None
            allowed = item.expires - item.started
            late = StreamTimeout("total", allowed, chunks=0, received=0)
            self._hand_out(item, error=late)
        return following

    async def _serve(self, item: Item) -> None:
        """One attempt, and what follows from it."""
        if self.schedule.waiting <= LOOK_AHEAD // 2:
            self._refill()
        now, limit = trio.current_time(), self.settings.deadline
        try:
            if item.started is None:
                item.started = now
                self._retries.sent(self.schedule.running)
            left = None if limit is None else item.started + limit - now
            answer, error = await self._sender.send(item, left=left)
            self.tally.add_attempt(item.attempts[-1], len(item.attempts))
            if error is None:
                await self._finish(item, answer)
            else:
                await self._failed(item, error)
        finally:
            self.schedule.ended()
        self._check_end()

    async def _finish(self, item: Item, response: CompletionResponse | None) -> None:
        if response is None or response.outcome is not Outcome.FINISHED:
            self.tally.unsent += 1  # the client's block has ended under it
            return
        if self.settings.cache is not None and item.cache_key is not None:
            await self.settings.cache.put(item.cache_key, response)
        await self._publish(item, response=response)

    async def _failed(self, item: Item, error: MiniLLMError) -> None:
        now = trio.current_time()
        unreachable = item.lane.unreachable(now)
        if isinstance(error, BudgetExceeded) or is_fatal(error) or unreachable:
            if self.stopped is None:
                self.stopped = error
            self.tally.unsent += 1
            self.stop()
            return
        limit = self.settings.deadline
        assert item.started is not None
        until = math.inf if limit is None else item.started + limit
        wait = retry_delay(
            error,
            attempt=counted_attempts(
                len(item.attempts), sum(a.kind == "rate_limit" for a in item.attempts)
            ),
            retry=self.settings.retry or BATCH_RETRY,
            remaining=until - now,
            random=random.random(),
        )
        if wait is None or (not self._stopping and not self._retries.spend(error)):
            await self._publish(item, error=error)
        elif self._stopping:
            self.tally.unsent += 1
        else:
            item.expires = until
            self.schedule.retry(item, now, wait)
            self._crew.wake_at(until)
            self._crew.kick()

    async def _publish(self, item: Item, **what: Any) -> None:
        result = BatchResult(
            request=item.request,
            index=item.index,
            sample=item.sample,
            attempts=item.attempts,
            **what,
        )
        result = await score_result(result, self.settings.score)
        self.tally.add_result(result)
        self.results.put(result, item.number)
        if self.settings.ordered:
            self._refill()  # the window may have moved on
