"""One attempt at one request of a batch: sent once, reported to its lane, and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import trio
from msgspec.structs import replace

from .._protocol.request import Prepared
from .._stream.tracked import TrackedStream
from .._types.errors import MiniLLMError, ProviderError, RefusedError, SendError
from .._types.options import Retry, Timeouts
from .._types.response import CompletionResponse, Outcome
from .files.response_cache import request_key
from .statistics import Counters
from .throttle.own_fault import Ticket
from .throttle.schedule import Item
from .throttle.throttle import Lane
from .types import Attempt

ONCE = Retry(attempts=1)
"""No retry in the stream: the batch has its own."""


class Sender:
    """Sends items, with these clocks for each attempt.

    ``prepare`` takes the arguments of `Client.stream` and returns the prepared request. ``stream``
    takes the same, with the parameters as a mapping, and returns the stream that sends the request. It
    also gets the request's meta, and the number of attempts that were ``made`` at it before.
    """

    def __init__(
        self,
        prepare: Callable[..., Prepared],
        stream: Callable[..., TrackedStream],
        timeouts: Timeouts,
        *,
        lenient: bool = False,
    ) -> None:
        self._prepare = partial(prepare, lenient=True) if lenient else prepare
        self._stream = partial(stream, lenient=True) if lenient else stream
        self._timeouts = timeouts

    def cache_key(self, item: Item) -> tuple[bytes, Any]:
        """Return the key of an item's next answer in the cache, and the type that the item asks for."""
        request = item.request
        try:
            prepared = self._prepare(
                item.model,
                item.asks,
                timeouts=self._timeouts,
                retry=ONCE,
                extra=request.extra,
                **request.params,
            )
        except (TypeError, ValueError) as exc:
            exc.add_note(_named(item))
            raise
        return request_key(prepared, item.sample), prepared.response_type

    async def send(
        self, item: Item, clock: trio.abc.Clock, counters: Counters, *, left: float | None
    ) -> tuple[CompletionResponse | None, MiniLLMError | None]:
        """Send an item once, and return its answer or the error that it ended with. ``left`` is the
        number of seconds that its deadline leaves.

        The lane is told of the end in each case. Unless it was cancelled, ``item.attempts`` has one
        more, which ``counters`` have counted. With neither answer nor error, the client was closed while it ran.
        """
        lane, ticket, request = item.lane, item.ticket, item.request
        assert ticket is not None  # an item that is sent has one
        waited, started = ticket.sent_at - item.since, datetime.now(UTC)
        error: MiniLLMError | None = None
        try:
            try:
                stream = self._stream(
                    item.model,
                    item.asks,
                    request.params,
                    meta=request.meta,
                    made=len(item.attempts),
                    timeouts=self._timeouts if left is None else self._clocks(left),
                    retry=ONCE,
                    extra=request.extra,
                )
            except (TypeError, ValueError) as exc:
                exc.add_note(_named(item))
                raise
            answer: CompletionResponse | None
            try:
                answer = await stream.complete(partial(_begun, lane, ticket, stream, clock))
            except MiniLLMError as exc:
                error, answer = exc, exc.partial
            now = clock.current_time()
            if error is not None and isinstance(error, RefusedError):
                lane.read(ticket, now, error.headers, epoch=time.time())
            usage = None if answer is None else answer.usage
            tokens = None if usage is None else usage.total_tokens
            lane.ended(ticket, now, error=error, tokens=tokens)
        except BaseException:
            lane.dropped(ticket)
            raise
        records = stream.records
        record = records[-1].key if records else None
        made = attempt_of(answer, error, started, waited, record)
        item.attempts += (made,)
        counters.add_attempt(made, len(item.attempts), tokens)
        return (answer, None) if error is None else (None, without_frames(error))

    def _clocks(self, left: float) -> Timeouts:
        total = self._timeouts.total
        if isinstance(total, int | float) and left >= total:
            return self._timeouts
        return replace(self._timeouts, total=max(0.0, left))


def _begun(lane: Lane, ticket: Ticket, stream: TrackedStream, clock: trio.abc.Clock) -> None:
    """Tell a lane that the answer to one of its requests begins."""
    now = clock.current_time()
    lane.accepted(ticket, now)
    if lane.wants_headers:
        lane.read(ticket, now, stream.headers, epoch=time.time())


def _named(item: Item) -> str:
    """Return the note for an error of a request that can't be built."""
    return f"in the request with the key {item.request.key!r}"


def attempt_of(
    answer: CompletionResponse | None,
    error: MiniLLMError | None,
    started: datetime,
    waited: float,
    record: str | None,
) -> Attempt:
    if answer is None:
        answer = CompletionResponse()
    made = Attempt(
        outcome=answer.outcome or Outcome.ERRORED,
        started=started,
        waited=waited,
        usage=answer.usage,
        cost=answer.cost,
        timings=answer.timings,
        id=answer.id,
        request_id=answer.request_id,
        record=record,
    )
    if error is None:
        return made
    refused = error if isinstance(error, RefusedError | ProviderError) else None
    return replace(
        made,
        error=type(error).__name__,
        kind=None if refused is None else refused.kind,
        status=None if refused is None else refused.status,
        reason=error.reason if isinstance(error, SendError) else None,
        retry_after=None if not isinstance(refused, RefusedError) else refused.retry_after,
    )


def without_frames(error: MiniLLMError) -> MiniLLMError:
    """Return the error without the frames that it came through: they hold the prompt and more."""
    link: BaseException | None = error
    for _ in range(8):  # a chain of causes may be a circle
        if link is None:
            break
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
