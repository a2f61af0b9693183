"""The contract of a stream, as `StreamingCompletion` promises it, as a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeAlias

import msgspec
import trio

from .._toolkit.streams import StreamingCompletion
from .._types.chunks import StreamChunk
from .._types.errors import MiniLLMError
from .._types.response import CompletionResponse, Outcome

SECONDS = 60.0
"""Seconds on Trio's clock that each reading may take."""

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[StreamingCompletion]]

_Take: TypeAlias = Callable[[StreamingCompletion], Awaitable[list[StreamChunk]]]

_FAILED = (Outcome.ERRORED, Outcome.TRUNCATED)


class _Expected(msgspec.Struct, frozen=True, eq=False):
    """The result of reading a stream to its end, with which every other reading must agree."""

    content: str
    outcome: Outcome
    error: type[MiniLLMError] | None


async def check_stream(open: Open, *, seconds: float = SECONDS) -> None:
    """Check that streams keep their contract.

    - ``open`` opens the same stream again each time: ``lambda: client.stream(model, "Hi")``. The
      server must give the same answer to every request, including any faults.
    - ``seconds`` on Trio's clock limit each reading.

    The stream is read in every possible way. The checks are: it ends with exactly one outcome,
    which never changes; its error is raised once by iteration and each time by ``collect``, and
    holds what arrived; the response is final and matches the chunks; leaving, cancelling, and
    rejecting the stream end it without an error and keep what had arrived; a cancelled read loses
    nothing; a second reader is refused, as is one after the block; the stream can be closed
    repeatedly; exceptions in the block propagate unchanged.

    Raises ``AssertionError``, which says what is wrong.
    """
    expected: list[_Expected] = []

    async def first() -> None:
        expected.append(await _read(open))

    await _within(seconds, "read to its end", first)
    for what, check in _CHECKS.items():

        async def run(check: _Check = check) -> None:
            await check(open, expected[0])

        await _within(seconds, what, run)


async def _within(seconds: float, what: str, do: Callable[[], Awaitable[None]]) -> None:
    with trio.move_on_after(seconds) as scope:
        await do()
    assert not scope.cancelled_caught, f"a stream that is {what} does not end"


async def _read(open: Open) -> _Expected:
    from trio.testing import assert_checkpoints  # takes long where pytest is installed

    pieces: list[str] = []
    error: MiniLLMError | None = None
    async with open() as stream:
        assert stream.outcome is None, "a stream has an outcome before it is read"
        try:
            async for chunk in stream:
                if chunk.choice == 0:
                    pieces.append(chunk.delta)
                assert stream.accumulated == "".join(pieces), "accumulated is not what was read"
        except MiniLLMError as exc:
            error = exc
        outcome = stream.outcome
        assert outcome is not None, "a stream that was read to its end has no outcome"
        assert outcome is not Outcome.CANCELLED, "a stream that nobody left is cancelled"
        assert (error is not None) == (outcome in _FAILED), (
            f"it ended {outcome}, and iteration raised {type(error).__name__}"
        )
        assert stream.is_finished, "a stream with an outcome is not finished"
        assert stream.errored == (error is not None), "errored is not what happened"
        assert stream.error is error, "the stream's error is not the one that was raised"
        if error is not None:
            assert error.partial is not None, "the error has no partial response"
            _check_agrees(error.partial, "".join(pieces), outcome, "the error's partial response")
        again: MiniLLMError | None = None
        with assert_checkpoints():
            try:
                assert await stream.next_chunk() is None, "a chunk comes after the end"
            except MiniLLMError as exc:
                again = exc
        assert again is None, "iteration raises its error a second time"
        await stream.cancel()
        stream.reject()
        stream.drain_buffered()
        assert stream.outcome is outcome, "an outcome has changed after the end"
    _check_agrees(stream.response, "".join(pieces), outcome, "the response")
    assert stream.response == stream.response, "the response at the end is not final"
    return _Expected("".join(pieces), outcome, None if error is None else type(error))


def _check_agrees(response: CompletionResponse, content: str, outcome: Outcome, what: str) -> None:
    assert response.content == content, f"{what} does not have what was read"
    assert response.outcome is outcome, f"{what} has another outcome than the stream"


async def _collected(open: Open, expected: _Expected) -> None:
    async with open() as stream:
        for again in (False, True):
            response: CompletionResponse | None
            error: MiniLLMError | None = None
            try:
                response = await stream.collect()
            except MiniLLMError as exc:
                error, response = exc, exc.partial
            name = "collect, called again," if again else "collect"
            found = None if error is None else type(error)
            assert found is expected.error, f"{name} raises {found}, and iteration {expected.error}"
            assert response is not None, f"{name} raises an error without what arrived"
            _check_agrees(response, expected.content, expected.outcome, f"what {name} gives")


async def _first_delta(stream: StreamingCompletion) -> str:
    """Return the text of a first chunk, or an empty text if there is none or it fails."""
    try:
        chunk = await stream.next_chunk()
    except MiniLLMError:
        return ""
    return chunk.delta if chunk is not None and chunk.choice == 0 else ""


def _check_left(stream: StreamingCompletion, expected: _Expected, first: str, how: str) -> None:
    outcome = stream.outcome
    assert outcome is not None, f"a stream that was {how} has no outcome"
    assert outcome in (Outcome.CANCELLED, expected.outcome), f"a stream that was {how} is {outcome}"
    response = stream.response
    assert response.outcome is outcome, f"the response of a stream that was {how} has another end"
    kept = response.content
    assert kept.startswith(first), f"a stream that was {how} has lost what was read of it"
    assert expected.content.startswith(kept), f"a stream that was {how} has text that never came"


async def _left(open: Open, expected: _Expected) -> None:
    async with open() as stream:
        first = await _first_delta(stream)
    _check_left(stream, expected, first, "left")
    async with open() as stream:
        pass
    _check_left(stream, expected, "", "left at once")


async def _cancelled(open: Open, expected: _Expected) -> None:
    from trio.testing import assert_checkpoints

    async with open() as stream:
        first = await _first_delta(stream)
        with assert_checkpoints():
            response = await stream.cancel()
        _check_left(stream, expected, first, "cancelled")
        assert response.content == stream.response.content, "cancel returns another response"
        outcome = stream.outcome
        assert await _next_after_end(stream) is None, (
            "a chunk comes from a stream that was cancelled"
        )
        await stream.cancel()
        assert stream.outcome is outcome, "cancel, called again, changes the outcome"


async def _next_after_end(stream: StreamingCompletion) -> object:
    try:
        return await stream.next_chunk()
    except MiniLLMError:  # the server's error from before the cancellation
        return await stream.next_chunk()


async def _rejected(open: Open, expected: _Expected) -> None:
    async with open() as stream:
        first = await _first_delta(stream)
        stream.reject()
        _check_left(stream, expected, first, "rejected")
    _check_left(stream, expected, first, "rejected")


async def _interrupted(open: Open, expected: _Expected) -> None:
    await _take_interrupted(open, expected, _one_chunk)


async def _interrupted_batches(open: Open, expected: _Expected) -> None:
    await _take_interrupted(open, expected, lambda stream: stream.next_chunks())


async def _one_chunk(stream: StreamingCompletion) -> list[StreamChunk]:
    chunk = await stream.next_chunk()
    return [] if chunk is None else [chunk]


async def _take_interrupted(open: Open, expected: _Expected, take: _Take) -> None:
    """Take chunks by reads that are cancelled at their first step, their second, and so on.

    The first read that has no such step completes.
    """
    pieces: list[str] = []
    async with open() as stream:
        while not stream.is_finished:
            chunks: list[StreamChunk] = []
            for step in range(_STEPS):
                with trio.CancelScope() as scope, suppress(MiniLLMError):
                    chunks = await _cancelled_at(step, scope, stream, take)
                assert step or scope.cancelled_caught, (
                    "taking a chunk does not look for a cancellation"
                )
                if not scope.cancelled_caught:
                    break
            else:
                raise AssertionError(f"no chunk comes of {_STEPS} reads that were cancelled")
            pieces += (chunk.delta for chunk in chunks if chunk.choice == 0)
        assert "".join(pieces) == expected.content, "a read that was cancelled has lost a chunk"
        assert stream.outcome is expected.outcome, "a read that was cancelled has changed the end"


_STEPS = 1000
"""Times that a task may be woken for one chunk; a read that is woken more often never completes."""


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self._left = step
        self._scope = scope
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def _cancelled_at(
    step: int, scope: trio.CancelScope, stream: StreamingCompletion, take: _Take
) -> list[StreamChunk]:
    """Take chunks, and cancel the scope before this task is woken for the ``step``-th time."""
    if step == 0:
        scope.cancel()
    instrument = _CancelAtStep(step, scope)
    trio.lowlevel.add_instrument(instrument)
    try:
        return await take(stream)
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def _raced(open: Open, expected: _Expected) -> None:
    refused = 0

    async def take(stream: StreamingCompletion) -> None:
        nonlocal refused
        try:
            await stream.next_chunk()
        except trio.BusyResourceError:
            refused += 1
        except MiniLLMError:
            pass

    async with open() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, stream)
            nursery.start_soon(take, stream)
        assert refused == 1, "two tasks can take chunks at once"


async def _closed(open: Open, expected: _Expected) -> None:
    async with open() as stream:
        first = await _first_delta(stream)
        for _ in range(2):
            await stream.aclose()
        _check_left(stream, expected, first, "closed")
    outcome = stream.outcome
    await stream.aclose()
    assert stream.outcome is outcome, "closing, repeated, changes the outcome"
    refused = False
    try:
        await stream.next_chunk()
    except trio.ClosedResourceError:
        refused = True
    assert refused, "a chunk can be taken after the block"


async def _broken_off(open: Open, expected: _Expected) -> None:
    class Mine(Exception):
        pass

    mine = Mine()
    streams: list[tuple[StreamingCompletion, str]] = []
    seen: BaseException | None = None
    try:
        async with open() as stream:
            streams.append((stream, await _first_delta(stream)))
            raise mine
    except BaseException as exc:  # noqa: BLE001 - every exception is compared below
        seen = exc
    assert seen is mine, f"an exception of the block comes out as {type(seen).__name__}"
    for stream, first in streams:
        _check_left(stream, expected, first, "broken off by an exception")


async def _abandoned(open: Open, expected: _Expected) -> None:
    streams: list[tuple[StreamingCompletion, str]] = []
    with trio.CancelScope() as scope:
        async with open() as stream:
            streams.append((stream, await _first_delta(stream)))
            scope.cancel()
            await stream.next_chunk()
    assert scope.cancelled_caught, "a cancellation from outside is swallowed"
    for stream, first in streams:
        _check_left(stream, expected, first, "cancelled from outside")


_Check: TypeAlias = Callable[[Open, _Expected], Awaitable[Any]]
_CHECKS: dict[str, _Check] = {
    "collected": _collected,
    "left": _left,
    "cancelled": _cancelled,
    "rejected": _rejected,
    "read with interruptions": _interrupted,
    "read in batches with interruptions": _interrupted_batches,
    "read by two tasks": _raced,
    "closed": _closed,
    "broken off by an exception": _broken_off,
    "cancelled from outside": _abandoned,
}
