"""The run of a batch: one task pulls requests a little ahead, others send them, results go out.

Rule: nothing here decides when a request is sent or whether it is sent again. Those decisions are in
``throttle``, which never waits; the table of endings is in `ending`.

========================  ==============================================================================
event                     what happens
========================  ==============================================================================
request pulled            admitted: an item for each sample, into the schedule; an answer from the cache
                          goes out at once
worker free               the schedule's next item is sent (`Sender`), if it has one
answer                    into the cache, checked, scored, out
answer that is invalid    back into the schedule with what is wrong with it, as often as that is wanted
error that may pass       back into the schedule, to be sent again
error that will not       out, as a result
refused at first, for     held until it is known whether all are: then its lane is closed, and it has no
what may meet all         result; else out, as a result
network down              back into the schedule, and is no attempt
server refuses for long   back into the schedule; if it says so again and again: its lane is closed
no room for it here       back into the schedule, and fewer run at once; alone, and again and again:
                          the run stops
fatal error               its lane is closed; with the last one, the run stops
limit reached             the run stops
deadline over             out, with `StreamTimeout`
consumer too slow         nothing is sent until it has taken results
========================  ==============================================================================
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

import trio
from msgspec.structs import replace

from .._toolkit.reasking import asked_again, words_of
from .._types.errors import BudgetExceeded, MiniLLMError, StreamTimeout
from .._types.options import Retry
from .._types.response import FINISHED, CompletionResponse
from ..providers import Model
from .ending import RunEnd, until_told
from .options import BatchSettings
from .results import Results
from .scoring import score_result, validated_result
from .sender import Sender
from .source import Requests, RequestSource
from .statistics import BatchStatistics, Counters
from .throttle.own_fault import CERTAIN, Ticket
from .throttle.prospects import TOLD_AGAIN
from .throttle.retry import (
    BATCH_RETRY,
    RetryBudget,
    counted_attempts,
    is_fatal,
    retry_delay,
    server_delay,
)
from .throttle.schedule import Item, Queue, Schedule
from .throttle.throttle import Lane, network_down, no_room_here
from .throttle.token_estimate import estimate_tokens
from .throttle.traced_lane import TracedLane, TraceName
from .trace import Trace
from .types import Attempt, BatchRequest, BatchResult
from .workers import WorkerPool

HALF_AHEAD = 128
"""Requests that wait at most when reading goes on after a stop."""
LOOK_AHEAD = 2 * HALF_AHEAD
"""Requests that may wait to be sent: so many that a model whose turn has not come does not hold up
the others, and that reading never keeps a worker waiting."""


class Run:
    """The tasks and the state of one batch, from its first request to its end.

    Guarantees: `run` raises nothing of its own (the exception of a task is in ``end.crash``), and
    when it ends no task is left; each item that was admitted comes out as one result, or is counted
    as unsent.

    Its 18 attributes are its parts, which know nothing of each other, and what passes between them.
    """

    def __init__(
        self, requests: Requests, model: Model | None, settings: BatchSettings, sender: Sender
    ) -> None:
        self.settings = settings
        self.schedule = Schedule(settings.capacity, self._new_lane)
        self.results = Results(settings.buffer, ordered=settings.ordered, on_full=self._on_full)
        self.counters = Counters()
        self.end = RunEnd()
        self._model = model
        self._samples = range(settings.samples)  # of a request that names none
        self._sender = sender
        self._retries = RetryBudget(settings.retry_share)
        self._workers = WorkerPool(
            self.schedule,
            self._serve,
            expire=self._expire,
            crashed=self.end.crashed,
        )
        self._source = RequestSource(requests, self._admit, self._full, self._workers.notify)
        # Answers are neither checked nor kept nor scored, unless they are for a type.
        self._plain = (settings.validate, settings.score, settings.cache) == (None, None, None)
        self._trace = None if settings.trace is None else Trace(settings.trace)
        self._nursery: trio.Nursery | None = None
        self._clock: trio.abc.Clock  # asked by itself: `trio.current_time` costs three calls
        self._newest_failure: Attempt | None = None
        self._requests = 0  # that were pulled
        self._leaving = 0  # items that go out by a task of their own, without a worker

    def _new_lane(self, now: float) -> Lane:
        settings = self.settings
        args = now, settings.rates, settings.searched, settings.adapt
        if self._trace is None:
            return Lane(*args)
        return TracedLane(*args, tell=self._trace.tell, began=self._trace.began)

    def open(self) -> None:
        """Open what the run writes to. Raises `OSError`."""
        self._clock = trio.lowlevel.current_clock()
        if self._trace is not None:
            self._trace.open(trio.current_time())

    # -- from outside ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run to the end. Raises nothing: a cancellation from outside is raised by the block."""
        try:
            with self.end.scope:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._pull, name="trio_minillm batch input")
                    self._workers.start(self._nursery)
                    if self._trace is not None:
                        self._nursery.start_soon(self._sample, name="trio_minillm batch trace")
                    try:
                        await trio.sleep_forever()
                    finally:  # results may still be taken, which makes room for others
                        self._workers.end()
        except trio.Cancelled:
            pass
        finally:
            if self._trace is not None:
                try:
                    self._trace.close()
                except Exception as exc:  # noqa: BLE001 - comes out of iteration, as itself
                    self.end.crashed(exc)
            self.results.close()
            self.end.finish()

    def stop(self) -> None:
        """Send no more, and drop what waits."""
        self.end.stopping = True
        self._source.stop()
        self.counters.unsent += self.schedule.clear()
        self._check_end()

    def cancel(self) -> None:
        """Cancel all tasks."""
        self.end.scope.cancel()

    def change(self, settings: BatchSettings, now: float) -> None:
        """Go on with other settings."""
        self.settings = settings
        self.schedule.change(settings.capacity)
        for lane in self.schedule.lanes:
            lane.change(settings.rates, settings.searched, now, settings.adapt)
        self._workers.notify()

    def read(self, *, requests: int | None, began: float | None) -> BatchStatistics:
        """Return the statistics of a run of so many requests (if that is known) that ``began`` at this
        time.
        """
        total = None
        if requests is not None:
            # Those still to come may name samples of their own, which is not known yet.
            left = max(0, requests - self._requests)
            total = self.counters.pulled + left * self.settings.samples
        now = self.end.at or trio.current_time()
        limits = [lane.concurrency.limit for lane in self.schedule.lanes if lane.concurrency]
        capacity = self.schedule.limit
        return self.counters.read(
            total=total,
            running=self.schedule.running,
            waiting=dict(self.schedule.reasons(now)),
            elapsed=0.0 if began is None else now - began,
            concurrency=min(capacity, sum(limits)) if limits else capacity,
            controls=tuple(self.schedule.controls(now)),
            newest_failure=self._newest_failure,
        )

    # -- requests in -------------------------------------------------------------------------------

    async def _pull(self) -> None:
        try:
            await self._source.run()
            self._workers.retire()
            self._check_end()
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self.end.crashed(exc)

    def _admit(self, request: BatchRequest) -> None:
        if not isinstance(request, BatchRequest):
            raise TypeError(f"requests must be BatchRequest values, not {type(request).__name__}")
        model = request.model or self._model
        if model is None:
            raise ValueError(f"request {request.key!r} has no model, and the batch has none either")
        if request.model is None:
            request = replace(request, model=model)
        settings, counters = self.settings, self.counters
        samples = self._samples if request.samples is None else request.samples
        if self.end.stopping:  # the input has swallowed its cancellation
            counters.unsent += len(samples)
            return
        now, tokens = self._clock.current_time(), estimate_tokens(request)
        index, self._requests = self._requests, self._requests + 1
        for sample in samples:
            item = Item(request, model, index, sample, counters.pulled, tokens)
            counters.pulled += 1
            if settings.cache is not None and self._in_cache(item):
                continue
            if not self.schedule.add(item, now):
                counters.unsent += 1

    def _in_cache(self, item: Item) -> bool:
        """Look an item up in the cache. Returns True if it is there, and on its way out."""
        cache = self.settings.cache
        if cache is None:
            return False
        item.cache_key, response_type = self._sender.cache_key(item)
        answer = cache.get(item.cache_key, response_type)
        if answer is None:
            return False
        self._start_leaving(partial(self._answered, item, answer, cached=True))
        return True

    def _full(self, ahead: int = LOOK_AHEAD) -> bool:
        """Return True if no more should be pulled now, with so many waiting at most."""
        if self.schedule.waiting >= ahead:
            return True
        settings = self.settings
        if settings.ordered and self._beyond_window():
            return True
        return settings.cache is not None and self._too_many_hits()

    def _beyond_window(self) -> bool:
        window = self.settings.window or max(1_000, 2 * self.schedule.capacity)
        return self.counters.pulled - self.results.handed_out >= window

    def _too_many_hits(self) -> bool:
        """Return True if answers from the cache must wait for a score or a slow consumer."""
        return self.results.blocked() or self._leaving >= self.schedule.capacity

    def _resume_source(self) -> None:
        if self._source.waits and not self._full(HALF_AHEAD + 1):
            self._source.resume()

    # -- one item ----------------------------------------------------------------------------------

    async def _serve(self, item: Item) -> None:
        """Make one attempt, and do what follows from it."""
        schedule = self.schedule
        if self._source.waits and schedule.waiting <= HALF_AHEAD:
            self._resume_source()
        assert item.ticket is not None  # an item that is sent has one
        if self.end.stopping or item.queue.closed is not None:  # since a worker was given it
            self._unsend(item, item.ticket)
            return
        now = item.ticket.sent_at
        try:
            if item.started is None:
                item.started = now
                self._retries.sent(schedule.running)
            left = None if self.settings.deadline is None else self._until(item) - now
            answer, error = await self._sender.send(item, self._clock, self.counters, left=left)
            if error is not None:
                await self._failed(item, error)
            elif answer is None or answer.outcome is not FINISHED:
                self.counters.unsent += 1  # the client was closed while it ran
            elif self._plain and answer.response_type is None:
                result = BatchResult(
                    request=item.request,
                    index=item.index,
                    sample=item.sample,
                    response=answer,
                    attempts=item.attempts,
                )
                self._hand_out(item, result)
            else:
                await self._answered(item, answer)
            if item.queue.held and not item.lane.prospects.row:
                self._release(item.queue)
        finally:
            schedule.ended()
        if not schedule.waiting:
            self._check_end()

    def _unsend(self, item: Item, ticket: Ticket) -> None:
        """Drop an item that was about to be sent."""
        item.lane.dropped(ticket)
        self.schedule.ended()
        self.counters.unsent += 1
        self._check_end()

    def _until(self, item: Item) -> float:
        """Return the time at which an item that was sent must have its result."""
        limit = self.settings.deadline
        return math.inf if limit is None or item.started is None else item.started + limit

    async def _answered(
        self, item: Item, answer: CompletionResponse, *, cached: bool = False
    ) -> None:
        """Check an answer, keep it in the cache, and publish it or ask again.

        The cache has each answer under what was asked for it, so that a chain of questions comes out of
        it as it was. An answer that stays invalid after all of them is not kept: another run may ask
        for it again.
        """
        settings = self.settings
        result = self._result(item, response=answer, cached=cached and not item.attempts)
        if settings.validate is not None or answer.response_type is not None:
            result = await validated_result(result, settings.validate)
        invalid, left = result.invalid, item.asked_again < settings.retries_invalid
        keep = invalid is None or left or not settings.retries_invalid
        if not cached and keep and settings.cache is not None and item.cache_key is not None:
            await settings.cache.put(item.cache_key, answer)
        if invalid is None or not left or trio.current_time() >= self._until(item):
            if settings.score is None:
                self._hand_out(item, result)
            else:
                await self._publish(item, result)
        elif self.end.stopping or (item.started is not None and item.queue.closed is not None):
            self.counters.unsent += 1
        else:
            self._ask_again(item, answer, words_of(invalid), cached=cached)

    def _ask_again(
        self, item: Item, answer: CompletionResponse, words: str, *, cached: bool
    ) -> None:
        """Send an item again, with an answer to it that is not valid.

        That is a new question: failures on the way to the answer count no more, neither as attempts nor
        against the item in its lane.
        """
        now = trio.current_time()
        self.counters.asked_again += 1
        if not cached:
            item.attempts = (*item.attempts[:-1], replace(item.attempts[-1], invalid=words))
        item.asked_again += 1
        item.messages = asked_again(item.asks, answer, words)
        item.tokens = estimate_tokens(replace(item.request, messages=item.messages))
        item.put_off, item.ticket = len(item.attempts), None
        if self._in_cache(item):
            return
        if item.started is None:  # all so far came from the cache
            self.counters.unsent += not self.schedule.add(item, now)
        else:
            item.expires = self._until(item)
            self.schedule.retry(item, now, 0.0)
            self._workers.wake_at(item.expires)
        self._workers.notify()

    async def _failed(self, item: Item, error: MiniLLMError) -> None:
        now, queue = trio.current_time(), item.queue
        self._newest_failure = item.attempts[-1]
        if isinstance(error, BudgetExceeded):
            self._stop_for(error)
            return
        prospects = item.lane.prospects
        may_close = prospects.refused(error)
        hopeless = may_close and prospects.hopeless(item.lane.in_flight)
        if hopeless or self._ends_its_lane(item, error, now):
            self.counters.unsent += 1
            self._close(queue, until_told(error, datetime.now().astimezone()))
            return
        stopping = self.end.stopping or queue.closed is not None
        if may_close and not stopping:
            if prospects.row == 1:
                self._release(queue)  # what was held had another cause
            queue.held.append((item, error))
            return
        crowded = no_room_here(error) and self.schedule.no_room()
        doubted = self._doubted(item, error)
        item.put_off += crowded or doubted
        wait = self._wait(item, error, now, doubted=doubted)
        if crowded:
            wait = 0.0  # it goes out when another has ended
        free = stopping or crowded or doubted
        if wait is None and no_room_here(error):
            self._stop_for(error)
        elif not may_close and (wait is None or not (free or self._retries.spend(error))):
            await self._publish(item, self._result(item, error=error))
        elif stopping:
            self.counters.unsent += 1
        else:
            assert wait is not None  # else it was published, or counted as unsent
            item.expires = self._until(item)
            self.schedule.retry(item, now, wait)
            self._workers.wake_at(item.expires)
            self._workers.notify()

    @property
    def _longest_wait(self) -> float:
        """The longest wait that a server may ask for, in seconds."""
        return min(self._retry.max_retry_after, self.settings.deadline or math.inf)

    @property
    def _retry(self) -> Retry:
        return self.settings.retry or BATCH_RETRY

    def _ends_its_lane(self, item: Item, error: MiniLLMError, now: float) -> bool:
        """Return True if a failure shows that nothing more will be accepted in its lane."""
        lane, asked = item.lane, server_delay(error)
        if is_fatal(error) or lane.unreachable(now, error):
            return True
        return lane.prospects.shut and asked is not None and asked > self._longest_wait

    def _doubted(self, item: Item, error: MiniLLMError) -> bool:
        """Return True for a failure that does not count as an attempt: the network may be down, or
        the server asks for a long wait and may not mean it.
        """
        if network_down(error):
            return self._retry.attempts > 1
        asked = server_delay(error)
        if asked is None or asked <= self._longest_wait or not item.lane.prospects.asked_to_wait:
            return False
        told = sum((a.retry_after or 0.0) > self._longest_wait for a in item.attempts)
        chance = item.ticket is not None and item.ticket.odds < CERTAIN
        serving = item.lane.faults.serving(trio.current_time())
        return told <= TOLD_AGAIN + 1 or (serving and chance)

    def _wait(self, item: Item, error: MiniLLMError, now: float, *, doubted: bool) -> float | None:
        """Return the seconds until an item's next attempt; ``None`` to give it up."""
        remaining = self._until(item) - now
        if doubted:
            longest = self._retry.base_delay * 2.0 ** min(item.put_off - 1, 6)
            wait = random.random() * min(longest, self._retry.max_delay)
            return wait if wait < remaining else None
        assert item.ticket is not None
        return retry_delay(
            error,
            attempt=counted_attempts(len(item.attempts) - item.put_off, item.ticket),
            well=item.lane.faults.well(now),
            retry=self._retry,
            remaining=remaining,
            random=random.random(),
        )

    def _stop_for(self, error: MiniLLMError) -> None:
        """Send no more because of an error that would meet every other request as well."""
        if self.end.stopped is None:
            self.end.stopped = error
        self.counters.unsent += 1
        self.stop()

    def _close(self, queue: Queue, error: MiniLLMError) -> None:
        """Send no more in a lane; if it was the last one, stop."""
        if queue.closed is None:
            self.counters.unsent += self.schedule.close(queue, error)
            self._tell("closed", queue.lane, why=type(error).__name__)
        self.end.closed = self.end.closed or error
        if all(other.closed is not None for other in self.schedule.queues):
            self.end.stopped = self.end.stopped or self.end.closed
            self.stop()
        self._resume_source()

    def _release(self, queue: Queue) -> None:
        """Publish the refusals that were held: they do not close the lane."""
        held, queue.held = queue.held, []
        for item, error in held:
            self._start_leaving(partial(self._publish, item, self._result(item, error=error)))

    def _expire(self, now: float) -> float:
        """Give up the items whose deadline passed while they waited to be sent again, and return
        the time of the next such deadline.
        """
        gone, following = self.schedule.expired(now)
        for item in gone:
            assert item.started is not None
            allowed = item.expires - item.started
            late = StreamTimeout("total", allowed, chunks=0, received=0)
            self._start_leaving(partial(self._publish, item, self._result(item, error=late)))
        return following

    # -- results out -------------------------------------------------------------------------------

    def _result(self, item: Item, **found: Any) -> BatchResult:
        """Return an item's result, of what was found for it."""
        return BatchResult(
            request=item.request,
            index=item.index,
            sample=item.sample,
            attempts=item.attempts,
            **found,
        )

    async def _publish(self, item: Item, result: BatchResult) -> None:
        """Score an item's result, and hand it out."""
        if self.settings.score is not None:
            result = await score_result(result, self.settings.score)
        self._hand_out(item, result)

    def _hand_out(self, item: Item, result: BatchResult) -> None:
        self.counters.add_result(result)
        self.results.put(result, item.number)
        if self.settings.ordered:
            self._resume_source()  # the window may have moved on

    def _start_leaving(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Go on with an item that has no worker in a task of its own."""
        assert self._nursery is not None
        self._leaving += 1
        self._nursery.start_soon(self._leave, leave, name="trio_minillm batch result")

    async def _leave(self, leave: Callable[[], Awaitable[None]]) -> None:
        try:
            await leave()
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self.end.crashed(exc)
        finally:
            self._leaving -= 1
        self._resume_source()
        self._check_end()

    async def _sample(self) -> None:
        """Tell the state of each lane once a second, while anything is under way."""
        assert self._trace is not None
        try:
            while True:
                if self.schedule.running or self.schedule.waiting:
                    self._tell("sample", *(queue.lane for queue in self.schedule.queues))
                self._trace.flush()
                await trio.sleep(1.0)
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self.end.crashed(exc)

    def _tell(self, event: TraceName, *lanes: Lane, why: str = "") -> None:
        for lane in lanes:
            if isinstance(lane, TracedLane):
                lane.note(trio.current_time(), event, why=why)

    def _on_full(self, full: bool) -> None:
        """Send nothing while a consumer is behind, and go on after it has taken results."""
        self._workers.held = self.results.blocked()
        if not full:
            self._workers.notify()
            self._resume_source()

    def _check_end(self) -> None:
        """End the run if nothing is left to do."""
        if self.schedule.waiting or self.schedule.running or self._leaving or self._nursery is None:
            return
        for queue in tuple(self.schedule.queues):
            if not queue.held:
                continue
            all_alike = not queue.lane.prospects.mixed and len(queue.held) > 1
            if self._source.exhausted and not self.end.stopping and all_alike:
                # Whoever mends the cause will want to send all of them again.
                self._close(queue, queue.held[-1][1])
            else:
                self._release(queue)  # others may be waiting for them
        if self._leaving:
            return
        if self._source.exhausted or self.end.closed is not None:
            self.end.scope.cancel()  # only tasks that wait for work are left
