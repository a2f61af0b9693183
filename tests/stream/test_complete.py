"""`complete` reads in the caller's task, and is to be the block with `collect` in it all the same."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import Outcome
from trio_minillm._stream.task import StreamTask
from trio_minillm.testing import (
    Reply,
    ScriptedTransport,
    eof,
    hang,
    model,
    openai_events,
    reply,
    reset,
    serve,
)

from ..support.streams import count_of

# -- the same as the block -------------------------------------------------------------------------

STRANGE: tuple[bytes, ...] = (
    b": ping\n\n",
    b"data: {nonsense\n\n",
    b'data: {"error": {"message": "no", "code": 400}}\n\n',
    b'data: {"error": {"message": "busy", "code": 503}}\n\n',
    b": \n" * 5000,
    b"data: " + b"x" * 70_000 + b"\n\n",
)
SECONDS = st.sampled_from((0.1, 0.2, 1.0, 31.0, 121.0, 301.0))
ENDS = st.sampled_from((None, None, None, reset, hang, eof, 0.2, 5.0))
REFUSALS = st.builds(
    lambda status, headers: reply(b'{"error": {"message": "no"}}', status=status, headers=headers),
    st.sampled_from((400, 429, 503)),
    st.sampled_from(({}, {"retry-after": "2"})),
)


@st.composite
def answers(draw: Callable[..., Any]) -> Reply:
    """An answer that may stop early, with strange things, cuts and pauses in it."""
    events = list(openai_events(*draw(st.lists(st.sampled_from(("a", "bb", "é\n")), max_size=4))))
    if draw(st.integers(0, 3)) == 0:
        events.insert(draw(st.integers(0, len(events))), draw(st.sampled_from(STRANGE)))
    if draw(st.integers(0, 4)) == 0:
        events = events[: draw(st.integers(0, len(events)))]
    if draw(st.booleans()):
        body = b"".join(events)
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
        pairs = zip([0, *cuts], [*cuts, len(body)], strict=True)
        events = [body[start:stop] for start, stop in pairs if start < stop]
    steps: list[Any] = []
    for event in events:
        if draw(st.integers(0, 5)) == 0:
            steps.append(draw(SECONDS))
        steps.append(event)
    end = draw(ENDS)
    return reply(*steps, *(() if end is None else (end,)), headers={"x-request-id": "r"})


REPLIES = answers() | answers() | REFUSALS | st.just(Reply(error=httpx.ConnectError("no")))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "lenient": st.just(True),
        "raw": st.just(True),
        "expect_usage": st.just(False),
        "bounds": st.sampled_from([llm.Bounds(response=n) for n in (50, 300, 1000)]),
        "timeouts": st.sampled_from([llm.Timeouts(total=n) for n in (5, 100, None)]),
    },
)


def seen(value: Any) -> Any:
    """Everything that a caller can see of a result, an error or a record, but for names and dates."""
    if isinstance(value, BaseException):
        fields = {name: seen(field) for name, field in vars(value).items()}
        return type(value), str(value), fields, seen(value.__cause__), value.__suppress_context__
    if isinstance(value, llm.CostRecord):
        value = msgspec.structs.replace(value, key="", at=DATE)
    if isinstance(value, msgspec.Struct):
        return type(value), seen(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {name: seen(field) for name, field in value.items()}
    return [seen(one) for one in value] if isinstance(value, list | tuple) else value


DATE = datetime(2026, 1, 1, tzinfo=UTC)


async def outcome_of(way: str, replies: list[Reply], options: dict[str, Any], until: float) -> Any:
    transport, ledger = ScriptedTransport(*replies), llm.Ledger()
    retry = llm.Retry(attempts=3, base_delay=0)
    result: Any = None
    async with llm.open_client(transport=transport, ledger=ledger, retry=retry) as client:
        stream = client.stream(model(), "Hi", **options)
        with trio.move_on_at(until) as scope:
            try:
                if way == "complete":
                    result = await stream.complete()
                else:
                    async with stream:
                        result = await stream.collect()
            except llm.MiniLLMError as exc:
                result = exc
        if scope.cancelled_caught:
            result = "cancelled"
    assert transport.open_bodies == 0
    books = seen(ledger.recent), seen(stream.records), len(transport.requests)
    return seen(result), seen(stream.response), seen(stream.error), stream.outcome, books


@given(
    st.lists(REPLIES, min_size=1, max_size=3),
    OPTIONS,
    st.just(float("inf")) | st.sampled_from((0.0, 0.05, 0.15, 0.5, 2.0, 35.0)),
)
def test_all_that_is_seen_is_as_with_the_block(
    replies: list[Reply], options: dict[str, Any], until: float
) -> None:
    def run(way: str) -> Any:
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(outcome_of, way, replies, options, until, clock=clock)

    assert run("complete") == run("block")


async def test_a_whole_answer_is_not_lost_to_a_cancellation_while_its_end_is_awaited(
    autojump_clock: Any,
) -> None:
    transport = ScriptedTransport(reply(*openai_events("a"), hang))
    async with llm.open_client(transport=transport) as client:
        with trio.move_on_after(0.1) as scope:
            response = await client.complete(model(), "Hi")
    assert scope.cancel_called
    assert (response.content, response.outcome) == ("a", Outcome.FINISHED)
    assert trio.current_time() < 1
    assert transport.open_bodies == 0


async def cancelled(stream: llm.TrackedStream) -> None:
    await stream.cancel()


async def closed(stream: llm.TrackedStream) -> None:
    await stream.aclose()


async def rejected(stream: llm.TrackedStream) -> None:
    stream.reject()


@pytest.mark.parametrize("end", [cancelled, closed, rejected])
@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (reply(wait=hang), ""),
        (reply(*openai_events("a")[:2], hang), "a"),
        (reply(b"{}", hang, status=400), ""),
        (reply(b"{}", status=503, headers={"retry-after": "30"}), ""),
    ],
    ids=["asks", "reads", "refused", "sleeps"],
)
async def test_another_task_ends_it(
    answer: Reply,
    content: str,
    end: Callable[[llm.TrackedStream], Awaitable[None]],
    autojump_clock: Any,
    nursery: trio.Nursery,
) -> None:
    transport = ScriptedTransport(answer)
    async with llm.open_client(transport=transport) as client:
        stream = client.stream(model(), "Hi", timeouts=llm.Timeouts(total=None))

        async def end_soon() -> None:
            await trio.sleep(0.1)
            await end(stream)

        nursery.start_soon(end_soon)
        response = await stream.complete()
        assert trio.current_time() < 1
        assert (response.outcome, response.content) == (Outcome.CANCELLED, content)
    assert len(stream.records) == len(transport.requests) == client.ledger.attempts == 1
    assert transport.open_bodies == 0


@pytest.mark.parametrize("again", ["complete", "block"])
async def test_a_stream_is_read_once(again: str, autojump_clock: Any) -> None:
    transport = ScriptedTransport(reply(*openai_events("a"), wait=1.0))
    async with llm.open_client(transport=transport) as client:
        stream = client.stream(model(), "Hi")
        results: list[Any] = []

        async def read(way: str) -> None:
            try:
                if way == "complete":
                    results.append((await stream.complete()).content)
                else:
                    await trio.sleep(0.5)
                    async with stream:
                        results.append((await stream.collect()).content)
            except RuntimeError as exc:
                results.append(str(exc))

        async with trio.open_nursery() as readers:
            readers.start_soon(read, "complete")
            readers.start_soon(read, again)
    assert results == ["a stream can be entered only once", "a"]
    assert len(transport.requests) == 1


OPENING, PIECE, *REST = openai_events("a")
BUSY = b'data: {"error": {"message": "busy", "code": 503}}\n\n'


@pytest.mark.parametrize(
    ("replies", "begun"),
    [
        ([reply(OPENING, 1.0, PIECE, 1.0, *REST)], [1]),
        ([reply(OPENING, 1.0, *REST)], [1]),
        ([reply(OPENING, 1.0, PIECE, 1.0, BUSY)], [1]),
        ([reply(OPENING, 1.0, BUSY)], []),
        ([reply(OPENING, 1.0)], []),
        ([reply(BUSY)], []),
        ([reply(b"{}", status=503)], []),
        ([reply(OPENING, 1.0, BUSY), reply(OPENING, 1.0, PIECE, *REST)], [2]),
    ],
)
async def test_it_is_told_when_the_answer_begins(
    replies: list[Reply], begun: list[int], autojump_clock: Any
) -> None:
    told: list[float] = []
    retry = llm.Retry(attempts=len(replies), base_delay=0)
    async with llm.open_client(transport=ScriptedTransport(*replies), retry=retry) as client:
        start = trio.current_time()
        with suppress(llm.MiniLLMError):
            stream = client.stream(model(), "Hi")
            await stream.complete(lambda: told.append(trio.current_time() - start))
    assert told == begun


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"".join(openai_events("a"))), (200, openai_events("a")[0]), (400, b"{}")],
    ids=["finished", "truncated", "refused"],
)
async def test_it_is_a_checkpoint_where_the_transport_never_waits(status: int, body: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    retry = llm.Retry(attempts=1)
    async with llm.open_client(transport=transport, retry=retry) as client:
        with trio.testing.assert_checkpoints(), suppress(llm.MiniLLMError):
            await client.complete(model(), "Hi")


async def test_it_is_a_checkpoint_where_nothing_is_sent() -> None:
    transport = ScriptedTransport(reply(*openai_events("a")))
    async with llm.open_client(transport=transport, limits=llm.Limits(max_tokens=1)) as client:
        await client.complete(model(), "Hi")
        with trio.testing.assert_checkpoints(), pytest.raises(llm.BudgetExceeded):
            await client.complete(model(), "Hi")
    assert len(transport.requests) == 1


# -- what is left of it ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["complete", "block"])
async def test_nothing_keeps_the_prompt_of_an_answer_that_has_begun(way: str) -> None:
    counts: list[int] = []
    async with serve(reply(*openai_events("a"))) as server, llm.open_client() as client:
        stream = client.stream(server.model(), "x" * 10_000)
        body = stream._source._prepared.body  # type: ignore[attr-defined]
        if way == "complete":
            await stream.complete(lambda: counts.append(sys.getrefcount(body)))
        else:
            async with stream:
                await stream.next_chunk()
                counts.append(sys.getrefcount(body))
    assert counts == [2], "more than the name here and the argument"


@pytest.mark.parametrize(
    "replies",
    [
        [reply(*openai_events("a"))],
        [reply(b"{}", status=503), reply(*openai_events("a"))],
        [reply(*openai_events("a")[:2], hang)],
    ],
    ids=["finished", "retried", "cancelled"],
)
async def test_what_is_over_needs_no_garbage_collector(
    replies: list[Reply], autojump_clock: Any
) -> None:
    async with llm.open_client(transport=ScriptedTransport(*replies)) as client:
        stream = client.stream(model(), "Hi")
        gone = weakref.ref(stream)
        gc.collect()
        before = count_of(StreamTask)
        gc.disable()
        try:
            with trio.move_on_after(10):
                await stream.complete()
            del stream
            await trio.lowlevel.checkpoint()
            assert gone() is None
            assert count_of(StreamTask) == before - 1
        finally:
            gc.enable()
