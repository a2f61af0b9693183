"""One stream, many listeners: each gets all of it, and none harms another."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._toolkit.listeners.history import History
from trio_minillm.testing import ScriptedTransport, openai_events, reply, sse

from ..support.streams import cancelled_at

MODEL = llm.compatible("m", base_url="http://test.invalid/v1")
WORDS = [f"word{number} " for number in range(200)]


def fed(
    *batches: Sequence[llm.StreamChunk], end: bool = True
) -> tuple[llm.StreamingCompletion, trio.MemorySendChannel[Any]]:
    """A stream without a connection, with these batches in its channel."""
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    for batch in batches:
        send.send_nowait(list(batch))
    if end:
        send.send_nowait(llm.StreamChunk.finished("stop"))
        send.close()
    return stream, send


def text_chunks(*words: str) -> list[llm.StreamChunk]:
    return [llm.StreamChunk.content(word) for word in words]


async def text_of(listener: llm.Listener) -> str:
    return "".join([chunk.delta async for chunk in listener])


@asynccontextmanager
async def streaming(*events: bytes | float | Exception) -> AsyncIterator[llm.TrackedStream]:
    transport = ScriptedTransport(reply(*events))
    retry = llm.Retry(attempts=1)
    async with llm.open_client(transport=transport, retry=retry) as client:
        async with client.stream(MODEL, "Hi") as stream:
            yield stream


# -- what a listener gets --------------------------------------------------------------------------


async def test_every_listener_gets_every_chunk_and_the_end() -> None:
    events = openai_events(*WORDS)
    async with streaming(*events) as stream, stream.broadcast() as hub:
        listeners = [hub.subscribe() for _ in range(5)]
        texts: list[list[str]] = []

        async def listen(listener: llm.Listener) -> None:
            texts.append([chunk.delta async for chunk in listener if chunk.delta])
            assert await listener.next_chunk() is None
            with pytest.raises(trio.EndOfChannel):
                await listener.receive()

        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(listen, listener)
        assert texts == [WORDS] * 5
        for listener in listeners:
            assert listener.outcome is llm.Outcome.FINISHED
            assert listener.response == stream.response
            assert listener.error is None
            assert listener.dropped == 0


async def test_a_late_listener_begins_with_all_that_has_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    head, *events = openai_events("a", "b", "c", "d")
    spaced = [step for event in events for step in (event, 1.0)]
    async with streaming(head, *spaced) as stream, stream.broadcast() as hub:
        await trio.sleep(1.5)  # a, b
        late = hub.subscribe()
        chunks = [chunk.delta async for chunk in late if chunk.delta]
        assert chunks == ["ab", "c", "d"]
        afterwards = hub.subscribe()
        assert await text_of(afterwards) == "abcd"
        assert afterwards.outcome is llm.Outcome.FINISHED


async def test_what_was_taken_before_the_broadcast_is_a_part_of_the_beginning() -> None:
    stream, _ = fed(
        [*text_chunks("a", "b"), llm.StreamChunk(reasoning="hm")], text_chunks("c", "d")
    )
    async with stream:
        for _ in range(3):
            await stream.next_chunk()
        async with stream.broadcast() as hub:
            first, *others = await hub.subscribe().next_chunks()
            assert (first.delta, first.reasoning, others) == ("ab", "hm", [])
            assert await text_of(hub.subscribe()) == "abcd"


async def test_a_snapshot_is_made_once_for_each_state(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    chunks_of_history = History.chunks

    def counted(history: History) -> list[llm.StreamChunk]:
        nonlocal made
        made += 1
        return chunks_of_history(history)

    monkeypatch.setattr(History, "chunks", counted)
    stream, send = fed(text_chunks("a", "b"), end=False)
    async with stream, stream.broadcast() as hub:
        await trio.testing.wait_all_tasks_blocked()
        made = 0
        many = [hub.subscribe() for _ in range(100)]
        assert {(await listener.receive()).delta for listener in many} == {"ab"}
        assert made == 1
        send.send_nowait(text_chunks("c"))
        await trio.testing.wait_all_tasks_blocked()
        more = [hub.subscribe() for _ in range(100)]
        assert {(await listener.receive()).delta for listener in more} == {"abc"}
        assert made == 2
        send.send_nowait(llm.StreamChunk.finished("stop"))
        send.close()
        assert {await text_of(listener) for listener in many} == {"c"}
        assert {await text_of(listener) for listener in more} == {""}


@pytest.mark.parametrize("together", [False, True])
async def test_the_streams_error_reaches_every_listener(together: bool) -> None:
    events = openai_events("a", "b")[:3]
    error = sse({"error": {"message": "overloaded", "type": "overloaded_error", "code": 529}})
    caught: list[llm.MiniLLMError] = []

    async def listen(listener: llm.Listener) -> None:
        got = ""
        with pytest.raises(llm.ProviderError) as raised:
            async for chunk in listener:
                got += chunk.delta
        assert got == "ab"
        caught.append(raised.value)
        assert await listener.next_chunks() == []  # it is raised once

    async with streaming(*events, error) as stream, stream.broadcast() as hub:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                listener = hub.subscribe()
                nursery.start_soon(listen, listener)
                if not together:
                    await trio.testing.wait_all_tasks_blocked()
        assert stream.outcome is llm.Outcome.ERRORED
        assert stream.error is not None
    for one in caught:
        assert (type(one), one.args, one.partial) == (
            type(stream.error),
            stream.error.args,
            stream.error.partial,
        )
    assert len(set(map(id, (*caught, stream.error)))) == 4  # no traceback grows with listeners


async def test_a_cancelled_stream_is_the_end_for_all() -> None:
    stream, _ = fed(text_chunks("a"), end=False)
    async with stream, stream.broadcast() as hub:
        listener = hub.subscribe()
        assert (await listener.receive()).delta == "a"
        await stream.cancel()
        with pytest.raises(trio.EndOfChannel):
            await listener.receive()
        assert listener.outcome is llm.Outcome.CANCELLED


# -- bounds ----------------------------------------------------------------------------------------


async def test_a_blocking_listener_holds_the_stream_back() -> None:
    stream, _ = fed(*(text_chunks(word) for word in WORDS[:90]))
    async with stream, stream.broadcast(buffer=10) as hub:
        slow, fast = hub.subscribe(), hub.subscribe(buffer=20)
        got: list[str] = []

        async def read() -> None:
            async for chunk in fast:
                got.append(chunk.delta)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert len(got) == 10  # as many as the slow one may be behind
            assert await text_of(slow) == "".join(WORDS[:90])
        assert "".join(got) == "".join(WORDS[:90])


async def test_one_that_drops_goes_without_the_oldest_and_says_how_many() -> None:
    stream, _ = fed(text_chunks(*WORDS))
    async with stream, stream.broadcast() as hub:
        lossy = hub.subscribe(buffer=10, policy="drop_oldest")
        whole = hub.subscribe(policy="block")
        await hub.wait_over()
        got = [chunk.delta async for chunk in lossy if chunk.delta]
        assert got == WORDS[-9:]  # and the finish reason
        assert lossy.dropped == len(WORDS) - 9
        assert await text_of(whole) == "".join(WORDS)


async def test_one_that_is_too_far_behind_is_detached() -> None:
    stream, _ = fed(text_chunks(*WORDS))
    async with stream, stream.broadcast(policy="detach", buffer=10) as hub:
        slow = hub.subscribe()
        whole = hub.subscribe(buffer=1000)
        await hub.wait_over()
        for _ in range(2):  # it stays detached
            with pytest.raises(
                llm.ListenerDetached, match="201 chunks behind, and its buffer is 10"
            ):
                await slow.receive()
        assert hub.listeners == 1
        assert await text_of(whole) == "".join(WORDS)
        assert await text_of(hub.subscribe()) == "".join(WORDS)


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "detach"])
async def test_a_late_one_is_not_behind_before_its_first_take(policy: Any) -> None:
    """Nor does it hold anything until then, or anybody up."""
    stream, send = fed(text_chunks("a"), end=False)
    async with stream, stream.broadcast(policy=policy, buffer=2) as hub:
        await trio.testing.wait_all_tasks_blocked()
        late = hub.subscribe()
        for word in "bcdef":
            send.send_nowait(text_chunks(word))
        await trio.testing.wait_all_tasks_blocked()
        assert hub._log.published == 6
        assert (await late.receive()).delta == "abcdef"
        for word in "ghi":
            send.send_nowait(text_chunks(word))
            await trio.testing.wait_all_tasks_blocked()
        assert hub._log.published == (8 if policy == "block" else 9)  # now it counts
        if policy == "detach":
            with pytest.raises(llm.ListenerDetached):
                await late.receive()
        else:
            assert (await late.receive()).delta == ("g" if policy == "block" else "h")


@pytest.mark.parametrize("policy", ["drop_oldest", "detach"])
async def test_one_that_keeps_up_is_never_behind(policy: Any) -> None:
    """Check that a read with more chunks than a buffer holds is handed over in parts."""
    stream, _ = fed(text_chunks(*WORDS))
    async with stream, stream.broadcast(policy=policy, buffer=3) as hub:
        texts: list[str] = []

        async def listen(listener: llm.Listener) -> None:
            texts.append(await text_of(listener))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(listen, hub.subscribe())
        assert texts == ["".join(WORDS)] * 3


# -- listeners that leave --------------------------------------------------------------------------


async def test_a_cancelled_listener_harms_no_other() -> None:
    """Whether it was closed, or forgotten by a task that was cancelled."""
    stream, send = fed(text_chunks("a"), end=False)
    async with stream, stream.broadcast(buffer=1) as hub, trio.open_nursery() as nursery:

        async def forgetful(seen: trio.Event, scope: trio.CancelScope) -> None:
            listener = hub.subscribe()
            with scope:
                await listener.receive()
                seen.set()
                await trio.sleep_forever()

        scopes = [trio.CancelScope() for _ in range(3)]
        for scope in scopes:
            seen = trio.Event()
            nursery.start_soon(forgetful, seen, scope)
            await seen.wait()
        closed = hub.subscribe()
        other = hub.subscribe(buffer=50)
        for word in "bcdef":
            send.send_nowait(text_chunks(word))
        await trio.testing.wait_all_tasks_blocked()
        assert hub._log.published == 2  # the forgetful ones and `closed` brake
        await closed.aclose()
        for scope in scopes:
            scope.cancel()
        send.send_nowait(llm.StreamChunk.finished("stop"))
        assert await text_of(other) == "abcdef"
        with pytest.raises(trio.ClosedResourceError):
            await closed.receive()


async def test_a_cancelled_take_loses_nothing() -> None:
    stream, send = fed(text_chunks("a"), end=False)
    async with stream, stream.broadcast() as hub:
        listener = hub.subscribe()
        assert (await listener.receive()).delta == "a"
        with trio.move_on_after(0) as scope:
            await listener.receive()
        assert scope.cancelled_caught
        send.send_nowait([*text_chunks("b"), llm.StreamChunk.finished("stop")])
        with trio.CancelScope() as scope:
            scope.cancel()
            await listener.next_chunks()
        assert scope.cancelled_caught
        assert await text_of(listener) == "b"


async def test_leaving_the_block_stops_it() -> None:
    stream, send = fed(text_chunks("a"), end=False)
    async with stream:
        async with trio.open_nursery() as nursery:
            async with stream.broadcast() as hub:
                waiting = hub.subscribe()
                await waiting.receive()

                async def wait() -> None:
                    with pytest.raises(trio.ClosedResourceError, match="block was left"):
                        await waiting.receive()

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            hub.subscribe()
        send.send_nowait(text_chunks("b"))  # the stream goes on without it
        assert (await stream.receive()).delta == "b"


async def test_behind_the_end_the_rest_can_be_taken() -> None:
    stream, _ = fed(text_chunks("a", "b"))
    async with stream:
        async with stream.broadcast() as hub:
            listener = hub.subscribe()
            await hub.wait_over()
    assert await text_of(listener) == "ab"
    assert await text_of(hub.subscribe()) == "ab"


async def test_an_exception_of_the_block_comes_out_as_itself() -> None:
    stream, _ = fed(text_chunks("a"), end=False)
    async with stream:
        with pytest.raises(KeyError, match="mine"):
            async with stream.broadcast():
                raise KeyError("mine")


async def test_a_crash_of_the_reading_is_no_end() -> None:
    stream, _ = fed(text_chunks("a"), end=False)

    async def broken() -> list[llm.StreamChunk]:
        raise ZeroDivisionError

    async with stream:
        await stream.next_chunk()
        stream.next_chunks = broken  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            async with stream.broadcast() as hub:
                listener = hub.subscribe()
                assert (await listener.receive()).delta == "a"
                with pytest.raises(trio.BrokenResourceError, match="has crashed"):
                    await listener.receive()


async def test_who_takes_chunks_beside_a_hub_is_refused_and_harms_nobody() -> None:
    stream, _ = fed(text_chunks("a"), text_chunks("b"))
    async with stream, stream.broadcast() as hub:
        listener = hub.subscribe()
        with pytest.raises(trio.BusyResourceError):
            await stream.next_chunk()  # before the hub had its first turn
        with pytest.raises(trio.BusyResourceError):
            async for _ in stream.fields():
                pass
        assert await text_of(listener) == "ab"


async def test_a_stream_that_another_task_reads_can_not_be_broadcast() -> None:
    stream, _ = fed(text_chunks("a"), end=False)
    async with stream, trio.open_nursery() as nursery:
        await stream.next_chunk()
        nursery.start_soon(stream.next_chunk)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            async with stream.broadcast():
                raise AssertionError
        nursery.cancel_scope.cancel()


async def test_nobody_takes_chunks_while_the_hub_waits_for_a_listener() -> None:
    """They would be missing in what the listeners get."""
    stream, send = fed(text_chunks("a"), end=False)
    async with stream, stream.broadcast(buffer=1) as hub:
        listener = hub.subscribe()
        assert (await listener.receive()).delta == "a"
        send.send_nowait(text_chunks("b", "c", "d"))
        send.send_nowait(text_chunks("e"))
        send.send_nowait(llm.StreamChunk.finished("stop"))
        send.close()
        await trio.testing.wait_all_tasks_blocked()
        for take in (stream.next_chunk, stream.next_chunks, stream.collect, stream.__anext__):
            with pytest.raises(trio.BusyResourceError):
                await take()
        assert await text_of(listener) == "bcde"
        assert await stream.next_chunk() is None, "it is free again"


async def test_misuse() -> None:
    stream, _ = fed(text_chunks("a"))
    with pytest.raises(ValueError, match="policy must be one of 'block', 'drop_oldest', 'detach'"):
        stream.broadcast(policy="sleep")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="buffer must be a whole number, 1 or more"):
        stream.broadcast(buffer=0)
    hub = stream.broadcast()
    with pytest.raises(RuntimeError, match="async with"):
        hub.subscribe()
    async with hub:
        listener = hub.subscribe()
        await text_of(listener)
    with pytest.raises(RuntimeError, match="once"):
        async with hub:
            raise AssertionError
    async with llm.open_client(transport=ScriptedTransport()) as client:
        with pytest.raises(RuntimeError, match="async with"):
            client.stream(MODEL, "Hi").broadcast()


async def test_two_tasks_at_one_listener() -> None:
    stream, _ = fed(end=False)
    async with stream, stream.broadcast() as hub, trio.open_nursery() as nursery:
        listener = hub.subscribe()
        nursery.start_soon(listener.next_chunk)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await listener.receive()
        nursery.cancel_scope.cancel()


# -- the bar ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "detach"])
async def test_a_thousand_listeners_of_which_half_are_cancelled(policy: Any) -> None:
    """The others get every chunk, and what is kept does not grow with their number."""
    draw = random.Random(7)
    stream, send = fed(end=False)
    texts: list[str] = []
    left = 0

    async def listen(hub: llm.Broadcast, scope: trio.CancelScope) -> None:
        nonlocal left
        listener = hub.subscribe()
        with scope:
            texts.append(await text_of(listener))
        left += scope.cancelled_caught

    async with stream, stream.broadcast(policy=policy, buffer=16) as hub:
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(1000)]
            for scope in scopes:
                nursery.start_soon(listen, hub, scope)
            await trio.testing.wait_all_tasks_blocked()
            doomed = draw.sample(scopes, 500)
            for number, word in enumerate(WORDS):
                await send.send(text_chunks(word, word))
                for scope in doomed[number * 5 : number * 5 + 5]:
                    scope.cancel()
                await trio.lowlevel.checkpoint()
                assert hub._log.size <= 3 * 16
            await send.send(llm.StreamChunk.finished("stop"))
        assert left == 500
        assert texts == ["".join(word * 2 for word in WORDS)] * 500
        gc.collect()
        assert hub.listeners == 0


async def test_cancelled_at_every_step() -> None:
    async def run() -> None:
        async with streaming(*openai_events("a", "b", "c")) as stream, stream.broadcast() as hub:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(text_of, hub.subscribe(buffer=1))

    step = 1
    while await cancelled_at(step, run):
        step += 1
    assert step > 10


# -- the beginning, by rule ------------------------------------------------------------------------


def folded(chunks: Sequence[llm.StreamChunk]) -> llm.CompletionResponse:
    ingest = Ingest(model="m", expect_usage=False, choices=2)
    ingest.ingest_all(chunks)
    response = ingest.response()
    response.timings.chunks = 0  # which the beginning has fewer of
    return response


texts = st.text("ab ", min_size=1, max_size=3)
call_pieces = st.builds(
    llm.ToolCallDelta,
    index=st.none() | st.integers(0, 1),
    id=st.none() | st.just("x"),
    name=st.none() | st.just("f"),
    arguments=st.sampled_from(["", '{"a":', "1}"]),
)
usages = st.builds(llm.Usage, uncached_input_tokens=st.just(3), completion_tokens=st.integers(1, 9))
chunks = st.builds(
    llm.StreamChunk,
    delta=st.just("") | texts,
    reasoning=st.just("") | st.just("") | texts,
    refusal=st.just("") | st.just("") | st.just("") | texts,
    tool_calls=st.just(()) | st.just(()) | st.tuples(call_pieces),
    usage=st.none() | st.none() | usages,
    choice=st.sampled_from([0, 0, 1]),
    part=st.sampled_from([None, None, 0]),
)


@given(st.lists(chunks, max_size=20), st.lists(st.booleans(), max_size=20))
@settings(deadline=None)
def test_the_beginning_says_what_all_chunks_say(
    given_chunks: list[llm.StreamChunk], looked: list[bool]
) -> None:
    history = History()
    for number, chunk in enumerate(given_chunks):
        history.add([chunk])
        if number < len(looked) and looked[number]:
            history.chunks()  # looking changes nothing
    at = len(given_chunks) // 2
    assert folded(history.chunks()) == folded(given_chunks)
    half = History()
    half.add(given_chunks[:at])
    assert folded([*half.chunks(), *given_chunks[at:]]) == folded(given_chunks)


def test_the_newest_usage_stays_the_newest() -> None:
    """Of several choices, whose texts are joined each for itself."""

    def said(text: str, choice: int, tokens: int) -> llm.StreamChunk:
        usage = llm.Usage(completion_tokens=tokens)
        return llm.StreamChunk(text, choice=choice, usage=usage)

    history = History()
    for end, pieces in enumerate(("ab", "cd", "ef")):
        history.add(said(text, choice, 10 * end + choice) for choice in (0, 1) for text in pieces)
        found = history.chunks()
        assert [chunk.choice for chunk in found] == [0, 1], "no more for their usage"
        assert folded(found).usage.completion_tokens == 10 * end + 1
    history.add([llm.StreamChunk(finish_reason="stop", usage=llm.Usage(completion_tokens=50))])
    history.add([said("g", 1, 60)])
    assert folded(history.chunks()).usage.completion_tokens == 60


def test_the_beginning_of_a_long_answer_is_one_chunk() -> None:
    history = History()
    history.add(text_chunks(*["ab "] * 5000))
    (only,) = history.chunks()
    assert only.delta == "ab " * 5000
