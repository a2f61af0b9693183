"""One attempt at one request of a batch: sent once, told to its lane, and described."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import trio
from msgspec.structs import replace

from .._protocol.request import Prepared
from .._stream.tracked import TrackedStream
from .._types.errors import MiniLLMError, ProviderError, RefusedError
from .._types.options import Retry, Timeouts
from .._types.response import CompletionResponse, Outcome
from .files.response_cache import request_key
from .throttle.schedule import Item
from .types import Attempt

ONCE = Retry(attempts=1)

_T = TypeVar("_T")


class Sender:
    """Sends items, with these clocks for each attempt.

    ``prepare`` and ``stream`` are given the same arguments, those of `Client.stream`: one makes
    the request that the other makes and opens a stream for.
    """

    def __init__(
        self,
        prepare: Callable[..., Prepared],
        stream: Callable[..., TrackedStream],
        timeouts: Timeouts,
    ) -> None:
        self._prepare = prepare
        self._stream = stream
        self._timeouts = timeouts

    def cache_key(self, item: Item) -> tuple[bytes, Any]:
        """The key under which an item's answer is stored, and the type that it asks for."""
        prepared = _asked(self._prepare, item, self._timeouts)
        return request_key(prepared, item.sample), prepared.response_type

    async def send(
        self, item: Item, *, left: float | None
    ) -> tuple[CompletionResponse | None, MiniLLMError | None]:
        """Send an item once: its answer, or the error it ended with. ``left`` is what its deadline
        leaves, in seconds.

        The lane is told of its end in each case, and ``item.attempts`` has one more if it was not
        cancelled. Without an error and without an answer, the client's block has ended under it.
        """
        lane, ticket, sent_at = item.lane, item.ticket, trio.current_time()
        waited, started = sent_at - item.since, datetime.now(UTC)
        error: MiniLLMError | None = None
        ended = False
        try:
            stream = _asked(self._stream, item, self._clocks(left))
            try:
                async with stream:
                    first = await stream.next_chunk()
                    now = trio.current_time()
                    lane.accepted(ticket, now)
                    if lane.wants_headers:
                        lane.read(ticket, now, stream.headers, epoch=time.time())
                    if first is not None:
                        await stream.collect()
            except MiniLLMError as exc:
                error = exc
            now = trio.current_time()
            answer = stream.response if error is None else error.partial
            usage = None if answer is None else answer.usage
            if isinstance(error, RefusedError):
                lane.read(ticket, now, error.headers, epoch=time.time())
            tokens = None if usage is None else usage.total_tokens
            lane.ended(ticket, now, error=error, tokens=tokens)
            ended = True
        finally:
            if not ended:
                lane.dropped(ticket)
        record = stream.records[-1].key if stream.records else None
        item.attempts += (_attempt(answer, error, started, waited, record),)
        return (answer, None) if error is None else (None, _bare(error))

    def _clocks(self, left: float | None) -> Timeouts:
        total = self._timeouts.total
        if left is None or (isinstance(total, int | float) and left >= total):
            return self._timeouts
        return replace(self._timeouts, total=max(0.0, left))


def _asked(function: Callable[..., _T], item: Item, timeouts: Timeouts) -> _T:
    """Call a function with what an item asks for. An error names the item."""
    request = item.request
    try:
        return function(
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


def _bare(error: MiniLLMError) -> MiniLLMError:
    """Without the frames it came through, which hold the prompt and much else."""
    one: BaseException | None = error
    for _ in range(8):
        if one is None:
            break
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error
