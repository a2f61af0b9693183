"""A stream that is booked: each of its attempts reaches the client's ledger exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import trio

from .._accounting.bookkeeper import Bookkeeper, PendingSettlement
from .._accounting.budget import Budget
from .._accounting.record import CostRecord, attempt_record
from .._protocol.ingest import Ingest
from .._protocol.request import Prepared
from .._types.cost import CostInfo
from .._types.errors import MiniLLMError, ProviderError, RetriesExhausted, StreamTruncated
from .._types.response import FINISHED, CompletionResponse, Outcome
from .._types.usage import Usage
from .handoff import Item
from .outside import check_in_trio
from .stream import StreamingCompletion
from .task import StreamTask

NOT_BOOKED = CostInfo()
"""The cost before the attempt is booked."""


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `TrackedStream.collect_or_cancel`. The ledger has the attempt in any case."""

    status: Literal["finished", "interrupted", "failed"]
    """``"finished"`` if the answer is complete, ``"interrupted"`` if the event or another task
    cancelled the stream, ``"failed"`` if an error ended it."""
    response: CompletionResponse
    """Everything that arrived; complete only if ``status`` is ``"finished"``."""
    error: MiniLLMError | None = None
    """The error that ended the stream, if ``status`` is ``"failed"``."""

    def __repr__(self) -> str:
        return f"<Collected {self.status} {self.response!r}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class TrackedStream(StreamingCompletion):
    """A stream whose attempts are recorded; `trio_minillm._toolkit.streams` documents what users
    are promised.
    """

    def __init__(
        self,
        ingest: Ingest,
        task: StreamTask,
        prepared: Prepared,
        bookkeeper: Bookkeeper,
        budget: Budget | None,
        meta: Any,
    ) -> None:
        model = prepared.model
        super().__init__(ingest, task, model=model, response_type=prepared.response_type)
        self.made_before: int = 0
        """Attempts at the same request that other streams have made: a batch has one for each."""
        self._task = task
        self._meta = meta
        self._bookkeeper = bookkeeper
        self._budget = budget
        self._settlement = prepared.timeouts.settlement or 0.0
        self._asked = model
        self._records: tuple[CostRecord, ...] = ()
        self._pending: PendingSettlement | None = None
        self._booked = False
        self._booked_cost = NOT_BOOKED
        self._on_begin: Callable[[], None] | None = None
        if budget is not None and not budget.idle:
            task.before_attempt = budget.check
        task.before_retry = self._attempt_failed

    @property
    def meta(self) -> Any:
        """The ``meta`` of the call."""
        return self._meta

    @property
    def records(self) -> tuple[CostRecord, ...]:
        """The ledger's records of the attempts that have ended, in order.

        The newest record may still change while its final cost is looked up.
        """
        if self._pending is None:
            return self._records
        return (*self._records, self._pending.record)

    @property
    def usage(self) -> Usage | None:
        """The usage so far, or the final usage once it has been looked up."""
        settled = self._settled()
        return super().usage if settled is None else settled.usage

    @property
    def response(self) -> CompletionResponse:
        """The response so far; complete once ``outcome`` is set.

        Only usage and cost may still change, while the final cost is looked up.
        """
        made, settled = self._kept_response(), self._settled()
        if settled is None or settled.rejected or made.cost == settled.cost:
            return made  # a rejected answer is nobody's to pay
        return msgspec.structs.replace(made, usage=settled.usage, cost=settled.cost)

    def _begin(self) -> None:
        self._bookkeeper.check_open()
        self._bookkeeper.enter(self._stop, self._budget)
        if self._budget is not None and not self._budget.idle:
            self._budget.enter(self._stop)

    async def _close(self, *, at_once: bool) -> None:
        await super()._close(at_once=at_once)
        pending = self._pending
        if pending is not None and not pending.delivered.is_set() and pending.settled.is_set():
            with trio.CancelScope(shield=True):  # bounded
                await pending.wait_delivered()

    async def complete(self, on_begin: Callable[[], None] | None = None) -> CompletionResponse:
        """Send the request, wait for the complete answer, and return it. Use this instead of the
        block.

        It does the same as the block with `collect` in it, but costs less, because no separate task
        reads the chunks. ``on_begin`` is called once, when the first content has arrived; it must
        not raise. Raises the error that ended the stream.
        """
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except RuntimeError:
            check_in_trio("complete")
            raise
        if self._closed or self._entered:
            raise RuntimeError("a stream can be entered only once")
        self._begin()
        self._entered = self._busy = True
        self._on_begin = on_begin
        try:
            await self._task.run_here(self._fold)
            if not self._ingest.state.over:
                self._source_ended()
                self._ended()
        finally:
            self._busy, self._on_begin = False, None
            await self._close(at_once=False)
        self._raise_once()
        if self._ingest.error is not None:
            raise self._ingest.error
        return self.response

    def _fold(self, item: Item) -> None:
        """Take an item of an answer that nobody watches."""
        if isinstance(item, list):
            body, on_begin = self._task.body, self._on_begin
            # An opening that a failed answer leaves behind has begun nothing.
            begun = body is not None and body.answer.begun
            if on_begin is not None and begun:
                self._on_begin = None
                on_begin()
            if body is not None and begun and body.answer.state.over:
                self._ingest.ingest_last(item, body.answer.state)
            else:
                self._ingest.ingest_all(item)
        else:
            self._put(item)
        if self._ingest.state.over:
            self._ended()
            if self._ingest.state.outcome is not FINISHED and self.errored:
                self._task.stop()  # the answer may go on: a bound was crossed

    async def cancel(self) -> CompletionResponse:
        """End the stream now, and return what has arrived once the attempt is recorded.

        Has no effect after the end. Everything that arrived counts, including usage. If the cost is
        not final and can be looked up, this waits for the lookup: at most for the clock
        ``settlement`` (30 seconds by default) from the first question, or twice that if hundreds of
        lookups wait for the same address. The connection is closed before that. This is a
        checkpoint.
        """
        await super().cancel()
        await self._wait_booked()
        return self.response

    async def collect_or_cancel(self, event: trio.Event) -> Collected:
        """Receive all remaining chunks, or cancel the stream as soon as ``event`` is set.

        Does not raise the stream's error, which is in the result. When this returns, the attempt is
        recorded (see `cancel` for how long that can take).
        """
        if not callable(getattr(event, "wait", None)) or isinstance(event, threading.Event):
            raise TypeError("event must be a trio.Event, or have an async wait()")
        crash: Exception | None = None
        error: MiniLLMError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_on, event)
            try:
                await self.collect()
            except MiniLLMError as exc:
                error = exc
            except Exception as exc:  # noqa: BLE001 - comes out as itself, not in a group
                crash = exc
            nursery.cancel_scope.cancel()
        if crash is not None:
            raise crash
        await self._wait_booked()
        finished = self.outcome is Outcome.FINISHED
        status: Literal["finished", "interrupted", "failed"]
        status = "failed" if error else "finished" if finished else "interrupted"
        return Collected(status=status, response=self.response, error=error)

    # -- inside ----------------------------------------------------------------------------

    async def _cancel_on(self, event: trio.Event) -> None:
        await event.wait()
        self._stop()

    def _stop(self, error: MiniLLMError | None = None) -> None:
        self._leave(error=error)
        self._task.stop()

    async def _wait_booked(self) -> None:
        if self._pending is not None:
            await self._pending.wait()
        await trio.lowlevel.checkpoint()

    def _settled(self) -> CostRecord | None:
        """Return the record if the provider's settlement is in it."""
        if self._pending is None or not self._pending.settled.is_set():
            return None
        return self._pending.record if not self._pending.record.unsettled else None

    def _cost(self) -> CostInfo:
        """Return the cost that was booked, if it was: to find it out takes as long as the booking."""
        if self._pending is None or self._ingest.rejected:
            return super()._cost()
        return self._booked_cost

    def _forget(self) -> None:
        self._bookkeeper.leave(self._stop)
        if self._budget is not None and not self._budget.idle:
            self._budget.leave(self._stop)

    def _attempt_failed(self, error: MiniLLMError) -> None:
        """Record an attempt that failed and that another follows."""
        usage: Usage | None = None
        told = [chunk.usage for chunk in self._source.info.held]
        if isinstance(error, ProviderError):  # the event of a failure may say what it took
            told.append(error.usage)
        for one in told:
            if one is not None:
                usage = usage or Usage()
                usage.merge_from(one)
        ident = next((chunk.id for chunk in self._source.info.held if chunk.id), None)
        outcome = Outcome.TRUNCATED if isinstance(error, StreamTruncated) else Outcome.ERRORED
        usage = None if usage is None else self._ingest.charged(usage)
        record = self._record(outcome, usage, ident, error)
        self._records = (*self._records, record)
        self._bookkeeper.book(record, self._asked, self._budget, 0.0)

    def _ended(self) -> None:
        if self._booked or (outcome := self._ingest.outcome) is None:
            return
        ingest = self._ingest
        self._booked = True
        self._forget()
        if self._source.info.attempts == len(self._records):
            return  # ended before its first attempt, or between two
        record = self._record(outcome, ingest.charged_usage, ingest.id, ingest.error)
        self._booked_cost = record.cost
        self._pending = self._bookkeeper.book(record, self._asked, self._budget, self._settlement)

    def _record(
        self, outcome: Outcome, usage: Usage | None, ident: str | None, error: MiniLLMError | None
    ) -> CostRecord:
        info = self._source.info
        if isinstance(error, RetriesExhausted):
            error = error.last_error
        ident = info.generation_id or ident or None
        if ident is not None:
            ident = self._task.redacted(ident)
        return attempt_record(
            self._asked,
            key=self._bookkeeper.ledger.new_key(),
            outcome=outcome,
            generation_id=ident,
            request_id=info.request_id,
            attempt=self.made_before + info.attempts,
            rejected=self._ingest.rejected,
            usage=usage,
            error=error,
            meta=self._meta,
        )
