"""The tasks of a batch: pull requests, send what the schedule lets go, hand results out.

All decisions are in the schedule and its lanes, which never wait. A worker takes an item, sends
it, and asks for the next one; there are as many workers as were ever busy at once. One task pulls
requests a little ahead, another wakes the workers when only time has passed.
"""

from __future__ import annotations

import inspect
import math
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sized
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

import msgspec
import trio

from .._budget import Budget
from .._chunks import CompletionResponse, Outcome
from .._errors import BudgetExceeded, MiniLLMError, ProviderError, RefusedError, StreamTimeout
from .._options import Limits, Retry
from ..providers import Model
from ._adaptive import Adaptive
from ._cache import request_key
from ._control import BATCH_RETRY, Lane, RetryBudget, counted, ends_the_run, retry_in
from ._judge import judged
from ._results import Results, Watch
from ._schedule import Item, Schedule
from ._settings import BatchOptions, Settings, check_count
from ._statistics import BatchStatistics, Tally
from ._values import Attempt, BatchRequest, BatchResult, rough_tokens

if TYPE_CHECKING:
    from .._client import Client

Requests = Iterable[BatchRequest] | AsyncIterable[BatchRequest]

LOOK_AHEAD = 256
"""Requests that are pulled before they can be sent, at most: so that a model whose turn has not come
does not hold up the others, and reading never keeps a worker waiting."""
TURN = 32
"""Requests that are pulled before other tasks get a turn."""
ONCE = Retry(attempts=1)


class Batch:
    """Many requests under one control; what ``client.batch(…)`` returns. Use it as ``async with
    client.batch(…) as results: async for result in results``.

    Guarantees:

    - Nothing is pulled or sent before the block is entered, and nothing outlives it: leaving it
      cancels what still runs (and the client settles what that cost).
    - Requests are pulled a few hundred ahead at most, so a million need no more memory than some
      thousand; results wait for a slow consumer up to ``buffer``, then nothing more is sent.
    - Each request that was pulled gets one final result for each sample, unless the run ends
      before: by `stop`, or by what no further request would escape (an exhausted quota, a wrong
      key, a limit of ``limits``). What was not sent or was to be retried then has none. In
      the second case iteration raises that error, once, after the last result.
    - Only this library's errors become results. Whatever else is raised, by the input or by a
      request that can't be built, ends the run and comes out of iteration as itself, else of
      the block.

    Iteration is for one task at a time; `watch` gives further ones.
    """

    def __init__(
        self,
        client: Client,
        requests: Requests,
        model: Model | None,
        settings: Settings,
        *,
        budget: Budget,
    ) -> None:
        if isinstance(requests, str | bytes) or not (
            hasattr(requests, "__iter__") or hasattr(requests, "__aiter__")
        ):
            raise TypeError("requests must be an iterable or async iterable of BatchRequest")
        if model is not None and not isinstance(model, Model):
            raise TypeError("model must be a Model: llm.openai(…), llm.anthropic(…), …")
        self._client = client
        self._requests = requests
        self._model = model
        self._settings = settings
        self._budget = budget
        self._retry = settings.retry or BATCH_RETRY
        assert settings.timeouts is not None
        self._timeouts = settings.timeouts
        self._schedule = Schedule(settings.capacity, self._new_lane)
        self._retries = RetryBudget(settings.retry_share)
        self._results = Results(settings.buffer, ordered=settings.ordered, on_room=self._on_room)
        self._tally = Tally()
        self._exhausted = self._stopping = False
        self._found = 0  # answers from the cache that are being judged
        self._stopped: MiniLLMError | None = None
        self._crash: BaseException | None = None
        self._told = False
        self._scope = trio.CancelScope()
        self._pulling = trio.CancelScope()
        self._room = trio.Event()
        self._idle = trio.lowlevel.ParkingLot()
        self._coming = False  # a worker is on its way to its item
        self._timer = trio.lowlevel.ParkingLot()
        self._alarm = math.inf
        self._done = trio.Event()
        self._began = self._ended_at = 0.0
        self._entered = False
        self._nursery_manager: Any = None
        self._nursery: trio.Nursery
        self._workers: trio.Nursery

    # -- the block -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a batch can be entered once")
        self._entered = True
        await trio.lowlevel.checkpoint()
        self._began = trio.current_time()
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self._nursery.start_soon(self._run, name="trio_minillm batch")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._scope.cancel()
        try:
            with trio.CancelScope(shield=True):  # bounded: leaving a stream is
                await self._done.wait()
        finally:
            self._results.close()
            # The tasks are done and raise nothing, so this can't either.
            await self._nursery_manager.__aexit__(None, None, None)
        crash, self._crash = self._crash, None
        if crash is not None and crash is not exc and not self._told:
            if exc is None or _only_cancelled(exc):
                raise crash
            raise BaseExceptionGroup("the block and its batch both failed", [exc, crash])

    async def run(self, handler: Callable[[BatchResult], object] | None = None) -> BatchStatistics:
        """All of it, in place of the block: ``await client.batch(…).run(handler)``.

        ``handler`` is a function, async or not, that is given one result after the other. Raises
        what iteration raises. Returns the final statistics.
        """
        async with self:
            async for result in self:
                if handler is not None and inspect.isawaitable(done := handler(result)):
                    await done
        return self.statistics()

    # -- results ---------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult:
        """The next result. A checkpoint."""
        if not self._entered:
            raise RuntimeError("use the batch as `async with client.batch(…) as results`")
        result = await self._results.main.take()
        if result is not None:
            return result
        if not self._told:
            self._told = True
            if self._crash is not None:
                raise self._crash
            if self._stopped is not None:
                raise self._stopped
        raise StopAsyncIteration

    def watch(
        self, *, buffer: int = 100, policy: Literal["block", "drop_oldest"] = "block"
    ) -> Watch:
        """Another consumer: every result from now on, in the same order, as ``async with
        results.watch() as watch: async for result in watch``.

        One that is ``buffer`` results behind holds up the whole batch (``"block"``), or loses
        the oldest of them (``"drop_oldest"``; ``watch.dropped`` counts). It ends with the batch,
        without an error.
        """
        check_count("buffer", buffer)
        if policy not in ("block", "drop_oldest"):
            raise ValueError("policy must be 'block' or 'drop_oldest'")
        return self._results.watch(buffer, policy)

    # -- while it runs -----------------------------------------------------------------------------

    @property
    def stopped(self) -> MiniLLMError | None:
        """What ended the run before its end: an exhausted quota, a wrong key, a limit."""
        return self._stopped

    def stop(self) -> None:
        """Send no more; let what runs come to its end, and then the iteration.

        What waits, also for another attempt, is dropped without a result.
        """
        self._stopping = True
        self._exhausted = True
        self._pulling.cancel()
        self._tally.unsent += len(self._schedule.clear())
        self._check_end()

    def cancel(self) -> None:
        """Send no more, and cancel what runs: it gets no result, and the client settles what it
        cost. Iteration goes on with the results that are there already, and then ends.
        """
        self.stop()
        self._scope.cancel()

    def update(self, **options: Unpack[BatchOptions]) -> None:
        """Change ``concurrency``, ``max_concurrency``, ``requests_per_minute``,
        ``tokens_per_minute``, ``limits``, ``retry`` or ``deadline`` while it runs.

        What is not named stays. What is under way is left alone. A change between a number
        and ``"auto"`` holds for models that are new after it, too.
        """
        fixed = set(options) - _CHANGEABLE
        if fixed:
            raise TypeError(f"can't be changed while it runs: {', '.join(sorted(fixed))}")
        before, now = self._settings, trio.current_time()
        self._settings = after = msgspec.structs.replace(before, **options)
        self._retry = after.retry or BATCH_RETRY
        if "limits" in options:
            self._budget.change(after.limits or Limits())
        self._schedule.capacity = after.capacity
        for lane in self._schedule.lanes:
            lane.change(after.rates, now)
            if after.concurrency != "auto":
                lane.adaptive = None
            elif lane.adaptive is None:
                lane.adaptive = Adaptive(after.capacity, now)
            else:
                lane.adaptive.change(after.capacity, now)
        if self._entered:
            self._kick()

    def statistics(self) -> BatchStatistics:
        """How it is doing."""
        now = trio.current_time() if not self._ended_at else self._ended_at
        length: int | None = None
        if isinstance(self._requests, Sized):
            length = len(self._requests) * self._settings.samples
        limits = [lane.adaptive.limit for lane in self._schedule.lanes if lane.adaptive is not None]
        capacity = self._schedule.capacity
        return self._tally.read(
            total=length,
            running=self._schedule.running,
            waiting=dict(self._schedule.reasons(now)),
            elapsed=now - self._began if self._entered else 0.0,
            concurrency=min(capacity, sum(limits)) if limits else capacity,
        )

    # -- tasks -----------------------------------------------------------------------------------

    def _new_lane(self, now: float) -> Lane:
        auto = self._settings.concurrency == "auto"
        return Lane(
            now, self._settings.rates, Adaptive(self._settings.capacity, now) if auto else None
        )

    async def _run(self) -> None:
        """The parent of all. Raises nothing: a bug is kept for whoever iterates, and cancellation
        from outside is the block's to raise.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._workers = nursery
                    nursery.start_soon(self._pull)
                    nursery.start_soon(self._watch_clock)
        except trio.Cancelled:
            pass
        finally:
            self._ended_at = trio.current_time()
            self._results.close()
            self._done.set()

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
        if self._crash is None:
            self._crash = exc
        self._scope.cancel()
        if cancelled is not None:
            raise cancelled

    async def _pull(self) -> None:
        try:
            with self._pulling:
                if self._stopping:
                    pass
                elif isinstance(self._requests, AsyncIterable):
                    await self._pull_async(aiter(self._requests))
                else:
                    for number, request in enumerate(self._requests, 1):
                        self._admit(request)
                        await self._wait_for_room()
                        if not number % TURN:
                            await trio.lowlevel.checkpoint()
            self._exhausted = True
            self._check_end()
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self._crashed(exc)

    async def _pull_async(self, iterator: AsyncIterator[BatchRequest]) -> None:
        try:
            async for request in iterator:
                self._admit(request)
                await self._wait_for_room()
        finally:
            if inspect.isasyncgen(iterator):  # nobody else goes on with it
                await iterator.aclose()

    async def _wait_for_room(self) -> None:
        while self._schedule.waiting >= LOOK_AHEAD or self._too_far() or self._full_of_hits():
            self._room = trio.Event()
            await self._room.wait()

    def _admit(self, request: BatchRequest) -> None:
        if not isinstance(request, BatchRequest):
            raise TypeError(f"requests must be BatchRequest values, not {type(request).__name__}")
        model = request.model or self._model
        if model is None:
            raise ValueError(f"request {request.key!r} has no model, and the batch has none either")
        if request.model is None:
            request = msgspec.structs.replace(request, model=model)
        if self._stopping:  # the input has paid no heed to its cancellation
            self._tally.unsent += self._settings.samples
            return
        now = trio.current_time()
        index = self._tally.pulled // self._settings.samples
        tokens = rough_tokens(request)
        for sample in range(self._settings.samples):
            item = Item(request, model, index, sample)
            item.tokens = tokens
            item.number = self._tally.pulled
            self._tally.pulled += 1
            if not self._in_cache(item, now):
                self._schedule.add(item, now)
        self._kick()

    def _in_cache(self, item: Item, now: float) -> bool:
        """Look an item up; one that is found needs no turn, and is on its way out."""
        cache = self._settings.cache
        if cache is None:
            return False
        stream = self._stream(item, now)  # not entered: it only says what would be sent
        item.cache_key = request_key(stream._reader._prepared, item.sample)
        answer = cache.get(item.cache_key, stream._response_type)
        if answer is None:
            return False
        self._found += 1
        self._workers.start_soon(self._hand_out, item, answer, name="trio_minillm batch cache")
        return True

    async def _hand_out(self, item: Item, answer: CompletionResponse) -> None:
        try:
            await self._publish(item, response=answer, cached=True)
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self._crashed(exc)
        finally:
            self._found -= 1
        self._refill()
        self._check_end()

    def _full_of_hits(self) -> bool:
        """Whether answers from the cache must wait, for the score or a slow consumer."""
        some = self._settings.cache is not None
        return some and (self._results.blocked or self._found >= self._schedule.capacity)

    def _too_far(self) -> bool:
        if not self._settings.ordered:
            return False
        window = self._settings.window or max(1_000, 2 * self._schedule.capacity)
        return self._tally.pulled - self._results.handed_out >= window

    async def _watch_clock(self) -> None:
        """Wake a worker when time alone has made something possible."""
        while True:
            with trio.move_on_at(self._alarm):
                await self._timer.park()
            if trio.current_time() >= self._alarm:
                self._alarm = math.inf
                self._kick()

    def _kick(self) -> None:
        """Let somebody go on, if anything may be sent; he wakes the next. Else see to the clock."""
        if self._results.blocked or not self._schedule.waiting:
            return
        if self._coming:
            return  # and wakes the next
        if self._schedule.ready(trio.current_time()):
            self._coming = True
            if self._idle:
                self._idle.unpark()
            else:
                self._workers.start_soon(self._work, name="trio_minillm batch worker")
        else:
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._schedule.wake_at < self._alarm:
            self._alarm = self._schedule.wake_at
            self._timer.unpark()

    def _on_room(self) -> None:
        """A consumer has taken results."""
        self._kick()
        self._refill()

    def _refill(self) -> None:
        enough = self._schedule.waiting > LOOK_AHEAD // 2
        if not enough and not self._too_far() and not self._full_of_hits():
            self._room.set()

    async def _work(self) -> None:
        """A worker: one item after the other, parked while there is none for it."""
        schedule, results = self._schedule, self._results
        try:
            while not self._done_all():
                self._coming = False
                item = None if results.blocked else schedule.next(trio.current_time())
                if item is None:
                    self._set_alarm()
                    await self._idle.park()
                    continue
                if schedule.waiting <= LOOK_AHEAD // 2:
                    self._refill()
                if schedule.running < schedule.capacity:
                    self._kick()
                await self._serve(item)
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self._crashed(exc)

    def _done_all(self) -> bool:
        busy = self._schedule.waiting or self._schedule.running or self._found
        return self._exhausted and not busy

    def _check_end(self) -> None:
        if self._entered and self._done_all():
            self._scope.cancel()  # only parked tasks are left

    # -- one item ----------------------------------------------------------------------------------

    async def _serve(self, item: Item) -> None:
        """One attempt, and what follows from it."""
        lane, now = item.lane.lane, trio.current_time()
        if now >= item.expires:
            await self._expired(item)
            return
        waited = now - item.since
        if item.started is None:
            item.started = now
            self._retries.sent(self._schedule.running)
        started = datetime.now(UTC)
        error: MiniLLMError | None = None
        ended = False
        try:
            stream = self._stream(item, now)
            try:
                async with stream:
                    first = await stream.next_chunk()
                    now = trio.current_time()
                    lane.accepted(item.ticket, now)
                    if lane.wants_headers:
                        lane.read(item.ticket, now, stream.headers, epoch=time.time())
                    if first is not None:
                        await stream.collect()
            except MiniLLMError as exc:
                error = exc
            now = trio.current_time()
            answer = stream.response if error is None else error.partial
            usage = None if answer is None else answer.usage
            if isinstance(error, RefusedError):
                lane.read(item.ticket, now, error.headers, epoch=time.time())
            lane.ended(
                item.ticket, now, error=error, tokens=None if usage is None else usage.total_tokens
            )
            ended = True
            records = stream.records
            attempt = _attempt(answer, error, started, waited, records[-1].key if records else None)
            item.attempts += (attempt,)
            self._tally.attempt(attempt, len(item.attempts))
            if error is None:
                await self._finish(item, answer)
            else:
                await self._failed(item, _bare(error), now)
        finally:
            if not ended:
                lane.dropped(item.ticket)
            self._schedule.ended(item)
        self._check_end()

    async def _expired(self, item: Item) -> None:
        """Its time is over, and it was still waiting to be sent again."""
        item.lane.lane.dropped(item.ticket)
        limit = self._settings.deadline or 0.0
        try:
            await self._publish(item, error=StreamTimeout("total", limit, chunks=0, received=0))
        finally:
            self._schedule.ended(item)
        self._check_end()

    def _stream(self, item: Item, now: float) -> Any:
        request = item.request
        timeouts = self._timeouts
        if self._settings.deadline is not None:
            started = now if item.started is None else item.started
            left = max(0.0, started + self._settings.deadline - now)
            if not isinstance(timeouts.total, int | float) or left < timeouts.total:
                timeouts = msgspec.structs.replace(timeouts, total=left)
        try:
            return self._client.stream(
                item.model,
                request.messages,
                timeouts=timeouts,
                retry=ONCE,
                extra=request.extra,
                **request.params,
            )
        except (TypeError, ValueError) as exc:
            exc.add_note(f"in the request with the key {request.key!r}")
            raise

    async def _finish(self, item: Item, response: CompletionResponse | None) -> None:
        if response is None or response.outcome is not Outcome.FINISHED:
            self._tally.unsent += 1  # the client's block has ended under it
            return
        if self._settings.cache is not None and item.cache_key is not None:
            await self._settings.cache.put(item.cache_key, response)
        await self._publish(item, response=response)

    async def _failed(self, item: Item, error: MiniLLMError, now: float) -> None:
        hopeless = item.lane.lane.hopeless(now)
        if isinstance(error, BudgetExceeded) or ends_the_run(error) or hopeless:
            if self._stopped is None:
                self._stopped = error
            self._tally.unsent += 1
            self.stop()
            return
        deadline = self._settings.deadline
        assert item.started is not None
        wait = retry_in(
            error,
            attempt=counted(len(item.attempts), sum(a.kind == "rate_limit" for a in item.attempts)),
            retry=self._retry,
            remaining=math.inf if deadline is None else item.started + deadline - now,
            random=random.random(),
        )
        if wait is None or (not self._stopping and not self._retries.spend(error)):
            await self._publish(item, error=error)
        elif self._stopping:
            self._tally.unsent += 1
        else:
            if deadline is not None:
                item.expires = item.started + deadline
            self._schedule.retry(item, now, wait)
            self._kick()

    async def _publish(self, item: Item, **what: Any) -> None:
        result = BatchResult(
            request=item.request,
            index=item.index,
            sample=item.sample,
            attempts=item.attempts,
            **what,
        )
        result = await judged(result, self._settings.score)
        self._tally.result(result)
        self._results.put(result, item.number)
        if self._settings.ordered:
            self._refill()  # the window may have moved on


_CHANGEABLE = {
    *("concurrency", "max_concurrency", "requests_per_minute", "tokens_per_minute"),
    *("limits", "retry", "deadline"),
}


def _attempt(
    answer: CompletionResponse | None,
    error: MiniLLMError | None,
    started: datetime,
    waited: float,
    record: str | None,
) -> Attempt:
    if answer is None:
        answer = CompletionResponse()
    refused = error if isinstance(error, RefusedError | ProviderError) else None
    return Attempt(
        outcome=answer.outcome or Outcome.ERRORED,
        started=started,
        waited=waited,
        usage=answer.usage,
        cost=answer.cost,
        timings=answer.timings,
        error=None if error is None else type(error).__name__,
        kind=None if refused is None else refused.kind,
        status=None if refused is None else refused.status,
        retry_after=None if not isinstance(refused, RefusedError) else refused.retry_after,
        id=answer.id,
        request_id=answer.request_id,
        record=record,
    )


def _only_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(trio.Cancelled)[1] is None
    return isinstance(exc, trio.Cancelled)


def _bare(error: MiniLLMError) -> MiniLLMError:
    """Without the frames it came through, which hold the prompt and much else."""
    one: BaseException | None = error
    for _ in range(8):
        if one is None:
            break
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error
