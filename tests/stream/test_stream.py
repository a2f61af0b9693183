"""Streams on Trio: the six tests of the Rust original, endings, clocks, cancellation.

Everything here runs on a mock clock over a scripted transport: no sockets, no real waiting.
"""

import gc
import json
import re
from contextlib import AsyncExitStack, nullcontext

import httpx
import msgspec
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import (
    Outcome,
    StreamChunk,
    StreamingCompletion,
    Timeouts,
    ToolCallDelta,
    Usage,
    testing,
)
from trio_minillm._stream.clocks import REOPENED_SECONDS
from trio_minillm._stream.handoff import BUFFERED_BATCHES, Handoff
from trio_minillm._stream.task import StreamTask
from trio_minillm.testing import (
    ScriptedTransport,
    anthropic_events,
    hang,
    model,
    openai_events,
    reply,
    sse,
)

from ..support.streams import CancelAtStep, count_of, other_task

OFF = Timeouts(connect=None, first_chunk=None, idle=None, byte_idle=None, usage_grace=None)


def clocks(**seconds):
    return llm.Timeouts(**{**dict.fromkeys(Timeouts.__struct_fields__), **seconds})


@pytest.fixture
def autojump():
    return trio.testing.MockClock(autojump_threshold=0)


def run(autojump, function):
    """Run with a mock clock that jumps, so that nothing waits for real."""
    return trio.run(function, clock=autojump)


def client_of(*replies, **options):
    transport = ScriptedTransport(*replies)
    return transport, llm.open_client(transport=transport, **options)


async def text_of(stream):
    return "".join([chunk.delta async for chunk in stream])


# -- the Rust original's tests, in its terms ---------------------------------------------------


async def test_collects_content_and_a_channel_close_truncates():
    stream, send = StreamingCompletion.from_channel("m", "gen-1", True)
    await send.send(StreamChunk.content("Hel"))
    await send.send(StreamChunk.content("lo"))
    await send.aclose()
    with pytest.raises(llm.StreamTruncated) as caught:
        await stream.collect()
    partial = caught.value.partial
    assert (partial.content, partial.id, partial.model) == ("Hello", "gen-1", "m")
    assert partial.tool_calls == ()
    assert stream.outcome is Outcome.TRUNCATED


async def test_threads_finish_reason_and_usage():
    stream, send = StreamingCompletion.from_channel("m", "gen-1", True)
    await send.send(StreamChunk.content("hi"))
    await send.send(StreamChunk.finished("stop"))
    await send.send(StreamChunk(usage=Usage(uncached_input_tokens=3, completion_tokens=1)))
    await send.aclose()
    response = await stream.collect()
    assert response.content == "hi"
    assert response.finish_reason == "stop"
    assert response.usage.total_tokens == 4


@pytest.mark.parametrize("item", ["text", None, ["text"], [llm.EndedEarly("x")], ValueError("x")])
async def test_what_is_no_chunk_can_not_be_fed(item, autojump_clock):
    for early in (True, False):
        stream, send = StreamingCompletion.from_channel("m")
        async with trio.open_nursery() as nursery:
            if early:
                send.send_nowait(item)
            else:
                nursery.start_soon(send.send, item)
            with pytest.raises(TypeError, match="an item of the channel must be StreamChunk or"):
                await stream.collect()


async def test_accumulates_tool_call_deltas_across_chunks():
    stream, send = StreamingCompletion.from_channel("m", "gen-1", False)
    first = ToolCallDelta(0, name="search", arguments='{"q":')
    await send.send(StreamChunk(tool_calls=(first,)))
    await send.send(StreamChunk(tool_calls=(ToolCallDelta(0, arguments='"rust"}'),)))
    await send.send(StreamChunk.finished("tool_calls"))
    (call,) = (await stream.collect()).tool_calls
    assert (call.name, call.arguments) == ("search", '{"q":"rust"}')


async def test_finish_and_usage_end_the_stream_though_the_channel_stays_open():
    stream, send = StreamingCompletion.from_channel("m", "gen-1", True)
    await send.send(StreamChunk.content("done"))
    await send.send(StreamChunk(finish_reason="stop", usage=Usage()))
    assert await text_of(stream) == "done"
    assert stream.is_finished
    assert stream.accumulated == "done"
    send.close()


async def test_finish_reason_alone_ends_it_when_no_usage_is_expected():
    stream, send = StreamingCompletion.from_channel("m", "gen-1", False)
    await send.send(StreamChunk.content("hi"))
    await send.send(StreamChunk.finished("stop"))
    while await stream.next_chunk() is not None:
        pass
    assert stream.is_finished
    assert stream.accumulated == "hi"
    assert stream.response.finish_reason == "stop"
    send.close()


async def test_anthropic_split_usage_is_merged():
    stream, send = StreamingCompletion.from_channel("claude-haiku-4-5", "msg_1", True)
    provisional = Usage(uncached_input_tokens=15, completion_tokens=1)
    await send.send(StreamChunk(id="msg_1", usage=provisional))
    await send.send([StreamChunk.content("Hel"), StreamChunk.content("lo")])
    await send.send(StreamChunk(finish_reason="end_turn", usage=Usage(completion_tokens=9)))
    response = await stream.collect()
    assert response.content == "Hello"
    assert response.usage.uncached_input_tokens == 15
    assert response.usage.completion_tokens == 9
    assert response.usage.total_tokens == 24
    send.close()


# -- the whole way -----------------------------------------------------------------------------


async def test_a_stream_from_request_to_response():
    transport, opening = client_of(reply(*openai_events("Hel", "lo")))
    async with opening as client:
        async with client.stream(model(), "Hi", max_tokens=5) as stream:
            assert stream.outcome is None
            seen = [chunk async for chunk in stream]
        response = stream.response
    assert [c.delta for c in seen if c.delta] == ["Hel", "lo"]
    assert response.content == stream.accumulated == "Hello"
    assert (response.id, response.model) == ("chatcmpl-1", "test-model-1")
    assert response.outcome is Outcome.FINISHED
    assert response.usage.final
    assert response.timings.chunks == 2
    assert response.timings.attempts == 1
    assert (
        0 <= response.timings.first_chunk <= response.timings.last_chunk <= response.timings.total
    )
    assert transport.open_bodies == 0
    assert transport.read_to_end == 1, "the body was drained, so the connection can be used again"
    assert transport.bodies[0]["max_tokens"] == 5


async def test_complete_streams_inside():
    transport, opening = client_of(reply(*openai_events("Hel", "lo")))
    async with opening as client:
        response = await client.complete(model(), [llm.user("Hi")])
    assert response.content == "Hello"
    assert transport.bodies[0]["stream"] is True


async def test_a_server_that_ignores_stream_is_understood():
    whole = {
        "id": "x",
        "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    body = json.dumps(whole).encode()
    _, opening = client_of(reply(body[:9], body[9:], headers={"content-type": "application/json"}))
    async with opening as client:
        response = await client.complete(model(), "Hi")
    assert (response.content, response.usage.total_tokens) == ("Hello", 3)


async def test_the_generation_id_of_the_header_comes_first(autojump_clock):
    headers = {"x-generation-id": "gen-header", "x-request-id": "req-1"}
    _, opening = client_of(reply(*openai_events("x"), headers=headers))
    async with opening as client:
        remote = llm.openrouter("m", api_key="k", base_url="http://test.invalid")
        response = await client.complete(remote, "Hi")
        assert response.request_id == "req-1"
        async with client.stream(remote, "Hi") as stream:
            assert stream.headers == {}
            await stream.next_chunk()
            assert stream.id == "gen-header"
        assert stream.headers["x-request-id"] == "req-1"


async def test_a_key_that_the_server_repeats_in_a_header_is_hidden():
    headers = {"x-echo": "Bearer sk-secret-1234", "x-left": "7"}
    _, opening = client_of(reply(*openai_events("x"), headers=headers))
    async with opening as client:
        remote = llm.openrouter("m", api_key="sk-secret-1234", base_url="http://test.invalid")
        async with client.stream(remote, "Hi") as stream:
            await stream.collect()
        assert stream.headers["x-left"] == "7"
        assert "sk-secret" not in str(stream.headers)


async def test_a_stream_fed_by_hand_has_no_headers():
    stream, send = llm.StreamingCompletion.from_channel("m")
    send.close()
    assert stream.headers == {}


async def test_raw_bytes_are_kept_on_request():
    _, opening = client_of(reply(*openai_events("x")))
    async with opening as client:
        async with client.stream(model(), "Hi", raw=True) as stream:
            raws = [c.raw async for c in stream]
    assert raws.pop() == b"[DONE]"
    raws = [json.loads(raw) for raw in raws]
    assert [r["choices"][0]["delta"] for r in raws if r["choices"]] == [
        {"role": "assistant", "content": ""},
        {"content": "x"},
        {},
    ]


async def test_a_whole_answer_has_no_raw_bytes():
    transport, opening = client_of(reply(*openai_events("x")))
    async with opening as client:
        with pytest.raises(TypeError, match="complete does not accept raw"):
            await client.complete(model(), "Hi", raw=True)
    assert not transport.requests


async def test_openings_without_content_are_held_back_up_to_a_bound():
    empty = openai_events()[0]
    _, opening = client_of(reply(*[empty] * 200, *openai_events("x")[1:]))
    async with opening as client, client.stream(model(), "Hi") as stream:
        await trio.testing.wait_all_tasks_blocked()
        assert len(stream._source.info.held) <= 65
        assert (await stream.collect()).content == "x"


# -- the ends ----------------------------------------------------------------------------------

HALF = openai_events("Hel", "lo", finish=None, usage=False, done=False)


@pytest.mark.parametrize(
    ("steps", "error", "outcome"),
    [
        (HALF, llm.EndedEarly, Outcome.TRUNCATED),
        ([*HALF, httpx.ReadError("reset")], llm.ConnectionCut, Outcome.TRUNCATED),
        ([*HALF, httpx.RemoteProtocolError("short")], llm.ConnectionCut, Outcome.TRUNCATED),
        ([*HALF, OSError("pipe")], llm.ConnectionCut, Outcome.TRUNCATED),
        ([*HALF, sse({"error": {"message": "boom"}})], llm.ProviderError, Outcome.ERRORED),
        ([*HALF, b"error: boom\n\n"], llm.ProviderError, Outcome.ERRORED),
        ([*HALF, sse("{not json")], llm.ProtocolError, Outcome.ERRORED),
        ([*HALF, sse("[DONE]")], llm.EndedEarly, Outcome.TRUNCATED),
        ([*HALF, b"data: " + b"x" * (65 << 20)], llm.LimitExceeded, Outcome.ERRORED),
    ],
)
async def test_a_broken_stream_raises_once_and_keeps_what_came(steps, error, outcome):
    transport, opening = client_of(reply(*steps))
    async with opening as client, client.stream(model(), "Hi") as stream:
        seen = []
        with pytest.raises(error) as caught:
            async for chunk in stream:
                seen.append(chunk.delta)
        assert seen == ["Hel", "lo"]
        assert caught.value.partial.content == "Hello"
        assert caught.value.partial.outcome is outcome
        assert caught.value.partial.timings.chunks == 2
        assert stream.errored
        assert await stream.next_chunk() is None
        with pytest.raises(trio.EndOfChannel):
            await stream.receive()
        with pytest.raises(error):
            await stream.collect()
    assert stream.outcome is outcome
    assert stream.error is caught.value
    assert transport.open_bodies == 0


@pytest.mark.parametrize(
    ("steps", "reason", "usage"),
    [
        (openai_events("Hi", usage=False, done=False), "stop", False),
        ([*openai_events("Hi", usage=False, done=False), OSError("cut")], "stop", False),
        (openai_events("Hi", finish=None), None, True),
        (openai_events("Hi", done=False), "stop", True),
        ([*openai_events("Hi"), *openai_events("more")], "stop", True),
        (anthropic_events("Hi"), "end_turn", True),
    ],
)
async def test_a_whole_answer_is_finished_whatever_is_missing_behind_it(steps, reason, usage):
    provider = llm.providers.Anthropic() if reason == "end_turn" else None
    _, opening = client_of(reply(*steps))
    async with opening as client:
        response = await client.complete(model(provider), "Hi")
    assert response.content == ("Hi" if len(steps) > 2 else "")
    assert response.finish_reason == reason
    assert response.outcome is Outcome.FINISHED
    assert (response.usage is not None) is usage


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([], llm.EndedEarly),
        ([b"\n\n"], llm.EndedEarly),
        ([b": ping\n\n"], llm.EndedEarly),
        ([b"<html>oops</html>"], llm.ProtocolError),
        ([b'{"error": {"message": "no"}}'], llm.ProviderError),
        ([b'{"detail": "no"}'], llm.ProviderError),
        ([b"{}"], llm.ProviderError),
        ([b"[1,2]"], llm.ProtocolError),
        ([b'{"choi'], llm.ProtocolError),
    ],
)
async def test_bodies_that_are_no_stream_are_errors_of_ours(steps, error):
    transport, opening = client_of(reply(*steps))
    async with opening as client:
        with pytest.raises(error):
            await client.complete(model(), "Hi")
    assert len(transport.requests) == 1


async def test_lenient_streams_pass_over_malformed_events_and_count_them():
    events = openai_events("a", "b")
    events.insert(2, sse("{not json"))
    events.insert(3, sse({"choices": [{"delta": {"content": {"a": 1}}}]}))
    _, opening = client_of(reply(*events))
    async with opening as client:
        response = await client.complete(model(), "Hi", lenient=True)
    assert (response.content, response.skipped_events) == ("ab", 2)


async def test_a_malformed_event_is_named_by_its_number():
    _, opening = client_of(reply(*openai_events("a", done=False)[:2], sse("{")))
    async with opening as client:
        with pytest.raises(llm.ProtocolError, match="event 3"):
            await client.complete(model(), "Hi")


async def test_a_bound_that_folding_crosses_ends_the_stream():
    def many(i):
        call = {"index": i, "id": str(i), "function": {"name": "f", "arguments": "{}"}}
        return sse({"choices": [{"delta": {"tool_calls": [call]}}]})

    _, opening = client_of(reply(*[many(i) for i in range(200)], hang))
    async with opening as client, client.stream(model(), "Hi") as stream:
        with pytest.raises(llm.LimitExceeded, match="tool calls"):
            await text_of(stream)
    assert len(stream.response.invalid_tool_calls) == 128


async def test_an_endless_answer_is_cut_at_the_bound():
    _, opening = client_of(reply(*openai_events(*["x" * 500] * 50)))
    async with opening as client:
        with pytest.raises(llm.LimitExceeded, match="one response"):
            await client.complete(model(), "Hi", bounds=llm.Bounds(response=10_000))


# -- clocks ------------------------------------------------------------------------------------

ONE, TWO = openai_events("a", "b")[1:3]
END = openai_events("a")[2:]
PING = b": ping\n\n"


@pytest.mark.parametrize(
    ("options", "limits", "clock", "at"),
    [
        ({"wait": hang}, {"first_chunk": 5}, "first_chunk", 5),
        ({"steps": (hang,)}, {"first_chunk": 5}, "first_chunk", 5),
        ({"steps": (3.0, PING) * 9}, {"first_chunk": 5}, "first_chunk", 5),
        ({"steps": (3.0, openai_events()[0], hang)}, {"first_chunk": 5}, "first_chunk", 5),
        ({"steps": (3.0, openai_events()[0], hang)}, {"idle": 5}, "idle", 5),
        ({"steps": (3.0, PING, hang)}, {"byte_idle": 5}, "byte_idle", 8),
        ({"steps": (ONE, 4.0, TWO, hang)}, {"idle": 5}, "idle", 9),
        ({"steps": (ONE, *(3.0, PING) * 9)}, {"idle": 5, "byte_idle": 5}, "idle", 5),
        ({"steps": (ONE, *(3.0, sse({"type": "ping"})) * 9)}, {"idle": 5}, "idle", 5),
        ({"steps": (ONE, 3.0, PING, hang)}, {"idle": 9, "byte_idle": 5}, "byte_idle", 8),
        ({"steps": (ONE, *(1.0, b"d") * 99)}, {"idle": 5, "byte_idle": 5}, "idle", 5),
        ({"steps": (*(3.0, ONE) * 9, hang)}, {"idle": 5, "total": 20}, "total", 20),
        ({"wait": hang}, {"first_chunk": 5, "total": 3}, "total", 3),
    ],
)
def test_each_clock_fires_at_its_time_and_says_so(autojump, options, limits, clock, at):
    transport, opening = client_of(llm.testing.Reply(**options))

    async def main():
        start = trio.current_time()
        async with opening as client:
            with pytest.raises(llm.StreamTimeout) as caught:
                async with client.stream(model(), "Hi", timeouts=clocks(**limits)) as stream:
                    await stream.collect()
        assert trio.current_time() - start == pytest.approx(at)
        error = caught.value
        assert (error.clock, error.limit) == (clock, limits[clock])
        assert error.partial.outcome is Outcome.ERRORED
        assert stream.outcome is Outcome.ERRORED

    run(autojump, main)
    assert transport.open_bodies == 0


def test_the_connect_clock_covers_everything_up_to_the_sent_request(autojump):
    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            await request.extensions["trace"]("connection.connect_tcp.started", {})
            await trio.sleep_forever()

    async def main():
        async with llm.open_client(transport=Slow(), retry=llm.Retry(attempts=1)) as client:
            with pytest.raises(llm.ConnectTimeout, match="10 s"):
                await client.complete(model(), "Hi")
            assert trio.current_time() == pytest.approx(10)

    autojump.jump(-autojump.current_time())
    run(autojump, main)


@pytest.mark.parametrize(("limits", "at"), [({}, 310), ({"connect": None}, None)])
def test_a_transport_that_tells_nothing_gets_the_time_of_both_clocks(autojump, limits, at):
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            await trio.sleep_forever()

    async def main():
        start = trio.current_time()
        async with llm.open_client(transport=Silent(), timeouts=Timeouts(**limits)) as client:
            with trio.move_on_after(9999) as scope:
                with pytest.raises(llm.StreamTimeout, match="first_chunk"):
                    await client.complete(model(), "Hi", timeouts=Timeouts(**limits, total=None))
        assert scope.cancelled_caught is (at is None)
        assert trio.current_time() - start == pytest.approx(at or 9999)

    run(autojump, main)


@pytest.mark.parametrize(
    ("steps", "at"),
    [
        ((ONE, *openai_events("a", usage=False, done=False)[2:], hang), 1),
        # content behind the reason counts anew, and makes it patient; keep-alives and other signs of life don't
        ((ONE, *openai_events("a", usage=False, done=False)[2:], *(0.4, END[0]) * 9), 1),
        (
            (
                *(ONE, *openai_events("a", usage=False, done=False)[2:], 0.5),
                *(TWO, *openai_events("a", usage=False, done=False)[2:], hang),
            ),
            0.5 + REOPENED_SECONDS,
        ),
        ((ONE, *openai_events("a", usage=False, done=False)[2:], *(0.4, PING) * 9), 1),
    ],
)
def test_a_whole_answer_waits_only_the_grace_for_its_usage(autojump, steps, at):
    _, opening = client_of(reply(*steps))

    async def main():
        start = trio.current_time()
        async with opening as client:
            response = await client.complete(model(), "Hi")
        assert trio.current_time() - start == pytest.approx(at)
        assert response.outcome is Outcome.FINISHED
        assert response.usage is None
        assert "usage_grace" in response.notes[0]

    run(autojump, main)


def test_an_idle_clock_that_fires_after_the_reason_loses_nothing(autojump):
    events = openai_events("a", usage=False, done=False)
    _, opening = client_of(reply(*events, hang))

    async def main():
        async with opening as client:
            response = await client.complete(model(), "Hi", timeouts=clocks(idle=5))
        assert response.outcome is Outcome.FINISHED

    run(autojump, main)


def test_a_slow_consumer_trips_no_clock(autojump):
    events = openai_events(*[f"{i} " for i in range(BUFFERED_BATCHES + 40)])
    transport, opening = client_of(reply(*events))
    limits = clocks(connect=1, first_chunk=1, idle=1, byte_idle=1, total=5, usage_grace=1)

    async def main():
        async with opening as client, client.stream(model(), "Hi", timeouts=limits) as stream:
            count = 0
            async for chunk in stream:
                count += bool(chunk.delta)
                await trio.sleep(60)
            assert count == BUFFERED_BATCHES + 40
        assert stream.outcome is Outcome.FINISHED

    run(autojump, main)
    assert transport.open_bodies == 0


@pytest.mark.parametrize("room", range(-2, 3))
@pytest.mark.parametrize("ends", ["whole", "in an error", "with clocks that have run out"])
def test_an_end_that_finds_no_room_is_not_lost(autojump, ends, room):
    """The answer is over with a read for which the channel has no room: it must still arrive."""
    *events, reason, usage, done = openai_events(*["x"] * (BUFFERED_BATCHES + room))
    failure = b'data: {"error": {"message": "Out of memory.", "type": "server_error"}}\n\n'
    last = events.pop() + failure if ends == "in an error" else reason + usage + done
    _, opening = client_of(reply(*events, last))
    limits = clocks(idle=1, total=5) if "clocks" in ends else None

    async def main():
        text = ""
        async with opening as client, client.stream(model(), "Hi", timeouts=limits) as stream:
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(10)
            with pytest.raises(llm.ProviderError) if "error" in ends else nullcontext():
                async for chunk in stream:
                    text += chunk.delta
        assert text == "x" * (BUFFERED_BATCHES + room)
        if "error" in ends:
            assert stream.outcome is Outcome.ERRORED
            return
        assert (stream.outcome, stream.response.finish_reason) == (Outcome.FINISHED, "stop")
        assert stream.usage is not None

    run(autojump, main)


def test_backpressure_reaches_the_body(autojump):
    taken = []

    def steps():
        for event in openai_events(*["x"] * 500):
            taken.append(1)
            yield event

    transport = ScriptedTransport()
    transport.replies = (llm.testing.Reply(steps=steps()),)

    async def main():
        async with llm.open_client(transport=transport) as client:
            async with client.stream(model(), "Hi") as stream:
                await stream.next_chunk()
                await trio.sleep(10)
                assert len(taken) <= BUFFERED_BATCHES + 5
                await stream.collect()
        assert len(taken) > 500

    run(autojump, main)


async def test_leaving_takes_what_waits_for_room(autojump_clock):
    """A consumer that never caught up still counts what was read for it, usage included."""
    *events, reason, usage, done = openai_events(*["x"] * BUFFERED_BATCHES)
    async with client_of(reply(*events, reason + usage + done))[1] as client:
        async with client.stream(model(), "Hi") as stream:
            await trio.sleep(1)
            assert stream._source._handoff.sent == BUFFERED_BATCHES  # and one more waits
    assert stream.text == "x" * BUFFERED_BATCHES
    assert stream.outcome is Outcome.FINISHED
    assert stream.usage is not None


async def test_a_channel_is_used_again_by_the_next_stream(monkeypatch):
    unused = []
    monkeypatch.setattr("trio_minillm._stream.handoff._unused_channels", unused)
    used = []
    async with client_of(reply(*openai_events("a", "b")))[1] as client:
        for _ in range(3):
            async with client.stream(model(), "Hi") as stream:
                assert await text_of(stream) == "ab"
            used += unused
    assert used[0] is used[1] is used[2]
    assert used[0][1].statistics().open_send_channels == 1


@pytest.mark.parametrize("left", ["with an item", "in the middle of an item", "with a crash"])
async def test_a_channel_that_may_not_be_empty_is_closed(monkeypatch, left, autojump_clock):
    """What one answer has left there must not be read as a part of another."""

    put_nowait = Handoff.put_nowait

    def interrupt(handoff, item):
        put_nowait(handoff, item)
        handoff.sent -= 1
        raise KeyboardInterrupt  # before it was counted

    def open_channel(size):
        opened.append(trio.open_memory_channel(size))
        return opened[-1]

    unused, opened = [], []
    monkeypatch.setattr("trio_minillm._stream.handoff._unused_channels", unused)
    monkeypatch.setattr("trio_minillm._stream.handoff._open_channel", open_channel)
    if left == "in the middle of an item":
        monkeypatch.setattr("trio_minillm._stream.handoff.Handoff.put_nowait", interrupt)
    steps = openai_events("secret")
    steps += [RuntimeError("bug")] if left == "with a crash" else [hang]
    async with client_of(reply(*steps))[1] as client:
        with nullcontext() if left == "with an item" else pytest.raises(BaseException):
            async with client.stream(model(), "Hi") as stream:
                await trio.testing.wait_all_tasks_blocked()
                monkeypatch.setattr(stream, "drain_buffered", lambda: None)  # it takes no more
    assert unused == []
    assert [channel[0].statistics().open_send_channels for channel in opened] == [0]


async def test_no_more_channels_are_kept_than_that(monkeypatch):
    unused = []
    monkeypatch.setattr("trio_minillm._stream.handoff._unused_channels", unused)
    monkeypatch.setattr("trio_minillm._stream.handoff.UNUSED_CHANNELS", 2)
    async with client_of(reply(*openai_events("a")))[1] as client:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                stream = await stack.enter_async_context(client.stream(model(), "Hi"))
                await stream.collect()
    assert len(unused) == 2


# -- leaving early -----------------------------------------------------------------------------


async def leave_by_break(stream):
    async for _ in stream:
        break


async def leave_by_cancel(stream):
    await stream.next_chunk()
    response = await stream.cancel()
    assert response.outcome is Outcome.CANCELLED
    assert await stream.next_chunk() is None


async def leave_by_reject(stream):
    await stream.next_chunk()
    stream.reject()
    assert await stream.next_chunk() is None
    assert stream.response.rejected


async def leave_by_aclose(stream):
    await stream.next_chunk()
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.next_chunk()


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_cancel, leave_by_reject, leave_by_aclose]
)
async def test_leaving_early_is_cancelled_and_raises_nothing(leave, mock_clock):
    transport, opening = client_of(reply(*HALF, hang))
    async with opening as client:
        async with client.stream(model(), "Hi") as stream:
            await leave(stream)
        assert stream.outcome is Outcome.CANCELLED
        assert stream.response.content.startswith("Hel")
        assert stream.response.tool_calls == ()
        assert transport.open_bodies == 0
        with pytest.raises(trio.ClosedResourceError):
            await stream.next_chunk()


async def test_what_had_arrived_counts_when_the_caller_leaves():
    _, opening = client_of(reply(b"".join(openai_events("Hel", "lo"))))
    async with opening as client:
        async with client.stream(model(), "Hi") as stream:
            await stream.next_chunk()
            assert stream.usage is None
    assert stream.outcome is Outcome.FINISHED
    assert stream.response.content == "Hello"
    assert stream.usage.final


async def test_openings_that_were_held_back_count_too(mock_clock):
    head = openai_events("x")[0]
    _, opening = client_of(reply(head, hang))
    async with opening as client, client.stream(model(), "Hi") as stream:
        await trio.testing.wait_all_tasks_blocked()
        assert (await stream.cancel()).id == "chatcmpl-1"


async def test_an_error_that_waits_behind_taken_chunks_counts_when_the_caller_leaves():
    stream, send = StreamingCompletion.from_channel("m")
    await send.send(StreamChunk.content("a"))
    await send.send(StreamChunk.content("b"))
    await send.send(llm.ConnectionCut("gone"))
    async with stream:
        await stream.next_chunk()
    assert stream.outcome is Outcome.TRUNCATED
    assert stream.response.content == "ab"
    send.close()


async def test_ingest_is_the_truth_that_iteration_uses():
    stream, send = StreamingCompletion.from_channel("m", expect_usage=False)
    stream.ingest(StreamChunk("a", finish_reason="stop"))
    assert stream.outcome is None
    stream.ingest(StreamChunk(end=True))
    assert (stream.accumulated, stream.outcome) == ("a", Outcome.FINISHED)
    assert await stream.next_chunk() is None
    send.close()


async def test_cancel_wakes_the_task_that_waits_for_a_chunk(mock_clock):
    _, opening = client_of(reply(*HALF, hang))
    async with opening as client, client.stream(model(), "Hi") as stream:
        got = []

        async def consume():
            got.append(await text_of(stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await trio.testing.wait_all_tasks_blocked()
            await stream.cancel()
    assert got == ["Hello"]


async def test_cancel_wakes_a_consumer_of_a_hand_fed_stream():
    stream, send = StreamingCompletion.from_channel("m")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.next_chunk)
        await trio.testing.wait_all_tasks_blocked()
        await stream.cancel()
    assert stream.outcome is Outcome.CANCELLED
    await send.aclose()


async def test_an_ended_stream_is_not_changed_by_cancel_or_reject():
    _, opening = client_of(reply(*openai_events("x")))
    async with opening as client, client.stream(model(), "Hi") as stream:
        await stream.collect()
        stream.reject()
        response = await stream.cancel()
    assert response.outcome is Outcome.FINISHED
    assert not response.rejected


async def test_a_block_that_takes_nothing_sends_and_leaves():
    transport, opening = client_of(reply(*HALF, hang))
    async with opening as client:
        async with client.stream(model(), "Hi") as stream:
            pass
    assert stream.outcome is Outcome.CANCELLED
    assert transport.open_bodies == 0


# -- exceptions and misuse -----------------------------------------------------------------------


async def test_an_exception_of_the_block_comes_out_as_itself(mock_clock):
    transport, opening = client_of(reply(*HALF, hang))
    async with opening as client:
        with pytest.raises(KeyError, match="mine"):
            async with client.stream(model(), "Hi") as stream:
                await stream.next_chunk()
                raise KeyError("mine")
    assert stream.outcome is Outcome.CANCELLED
    assert transport.open_bodies == 0


async def test_an_exception_of_the_block_survives_a_cancellation_from_outside(mock_clock):
    transport, opening = client_of(reply(*HALF, hang))
    async with opening as client:
        with pytest.raises(KeyError, match="mine"):
            with trio.CancelScope() as scope:
                async with client.stream(model(), "Hi") as stream:
                    await stream.next_chunk()
                    scope.cancel()
                    raise KeyError("mine")
    assert transport.open_bodies == 0


async def test_the_list_of_a_hand_fed_stream_is_not_changed():
    stream, send = StreamingCompletion.from_channel("m", expect_usage=False)
    mine = [StreamChunk.content("a")]
    await send.send(mine)
    await send.send(StreamChunk.finished("stop"))
    await stream.collect()
    assert len(mine) == 1
    send.close()


async def test_cancelled_from_outside_while_the_consumer_is_shielded(mock_clock):
    _, opening = client_of(reply(*HALF, hang))
    async with opening as client:
        with trio.CancelScope() as scope:
            async with client.stream(model(), "Hi") as stream:
                await stream.next_chunk()
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await text_of(stream)
        assert stream.outcome is Outcome.CANCELLED
        assert stream.error is None


async def test_a_crash_of_a_transport_comes_out_as_itself():
    for steps in (HALF, HALF[:1], ()):
        _, opening = client_of(reply(*steps, RuntimeError("transport bug")))
        async with opening as client, client.stream(model(), "Hi") as stream:
            with pytest.raises(RuntimeError, match="transport bug"):
                await text_of(stream)


async def test_a_bug_in_a_provider_comes_out_as_itself_and_beside_the_blocks_own():
    class Buggy(llm.providers.OpenAIChat):
        def generation_id(self, headers):
            raise ZeroDivisionError("bug")

    _, opening = client_of(reply(*HALF))
    async with opening as client:
        with pytest.raises(ZeroDivisionError):
            await client.complete(model(Buggy()), "Hi")
        with pytest.raises(ZeroDivisionError):
            async with client.stream(model(Buggy()), "Hi"):
                await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ExceptionGroup) as caught:
            async with client.stream(model(Buggy()), "Hi"):
                await trio.testing.wait_all_tasks_blocked()
                raise KeyError("mine")
    assert {type(e) for e in caught.value.exceptions} == {KeyError, ZeroDivisionError}


async def test_two_tasks_can_not_take_chunks_at_once(mock_clock):
    _, opening = client_of(reply(hang))
    async with opening as client, client.stream(model(), "Hi") as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.next_chunk)
            await trio.testing.wait_all_tasks_blocked()
            for use in (stream.next_chunk, stream.receive, stream.collect):
                with pytest.raises(trio.BusyResourceError):
                    await use()
            nursery.cancel_scope.cancel()


async def test_a_stream_is_used_in_its_block_and_once():
    _, opening = client_of(reply(*openai_events("x")))
    async with opening as client:
        stream = client.stream(model(), "Hi")
        with pytest.raises(RuntimeError, match="async with"):
            await stream.next_chunk()
        async with stream:
            await stream.collect()
        with pytest.raises(RuntimeError, match="once"):
            async with stream:
                pass


async def test_the_repr_shows_no_content():
    stream, send = StreamingCompletion.from_channel("m")
    await send.send(StreamChunk.content("secret words"))
    await stream.next_chunk()
    assert "secret" not in repr(stream) + repr(stream.response)
    send.close()


async def test_a_hand_fed_stream_has_a_block_too_and_can_be_rejected():
    stream, send = StreamingCompletion.from_channel("m")
    async with stream:
        await send.send(StreamChunk("a", finish_reason="stop"))
        assert (await stream.next_chunk()).delta == "a"
        assert stream.finish_reason == "stop"
        assert stream.error is None
        stream.reject()
    assert stream.response.rejected
    send.close()


async def test_a_rejected_stream_costs_the_caller_nothing(mock_clock):
    events = [*HALF, sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})]
    _, opening = client_of(reply(*events, hang))
    priced = model(price=llm.TokenPrice(input=1, output=1))
    async with opening as client:
        for reject, resolution in ((True, "unknown"), (False, "lower_bound")):
            async with client.stream(priced, "Hi") as stream:
                while stream.usage is None:
                    await stream.next_chunk()
                if reject:
                    stream.reject()
            assert str(stream.response.cost.resolution) == resolution


async def test_events_that_say_nothing_do_not_fill_the_buffer(autojump_clock):
    nothing = sse({"id": "x", "choices": []})
    _, opening = client_of(reply(HALF[1], b"".join([nothing] * 1000), 1.0, *END))
    async with opening as client, client.stream(model(), "Hi") as stream:
        await trio.sleep(0.5)
        await stream.next_chunk()
        assert len(stream._buffer.batch) < 10
        await stream.collect()


async def test_a_cancel_that_comes_between_two_chunks_ends_the_iteration():
    stream, send = StreamingCompletion.from_channel("m")
    await send.send([StreamChunk.content("x")] * 1000)
    async with trio.open_nursery() as nursery:

        async def cancel():
            await trio.lowlevel.checkpoint()
            await stream.cancel()

        nursery.start_soon(cancel)
        taken = len([chunk async for chunk in stream])
    assert 0 < taken < 1000
    assert stream.accumulated == "x" * 1000, "what had arrived is folded in"
    send.close()


def test_a_slow_consumer_does_not_use_up_the_grace(autojump):
    many = [f"{i} " for i in range(3 * BUFFERED_BATCHES)]
    events = openai_events(*many, usage=False, done=False)
    repeated = [events[-1]] * (3 * BUFFERED_BATCHES)  # the reason, again and again
    _, opening = client_of(reply(*events, *repeated, *openai_events("a")[-2:]))

    async def main():
        async with opening as client, client.stream(model(), "Hi") as stream:
            async for _ in stream:
                await trio.sleep(60)
        assert stream.usage.final

    run(autojump, main)


async def test_rich_shows_no_key_and_no_prompt():
    pretty = pytest.importorskip("rich.pretty", reason="needs rich")
    _, opening = client_of()
    async with opening as client:
        stream = client.stream(model(api_key="sk-0123456789"), "my prompt")
        shown = pretty.pretty_repr([stream._source._prepared, stream, stream.response, model()])
    assert "my prompt" not in shown
    assert "0123456789" not in shown


# -- checkpoints ---------------------------------------------------------------------------------


async def test_every_public_method_is_a_checkpoint_on_every_path():
    stream, send = StreamingCompletion.from_channel("m", expect_usage=False)
    await send.send([StreamChunk.content("a"), StreamChunk.content("b")])
    with trio.testing.assert_checkpoints():
        await stream.next_chunk()
    await send.send(StreamChunk.finished("stop"))
    with trio.testing.assert_checkpoints():
        await stream.collect()
    for method in (stream.next_chunk, stream.collect, stream.cancel, stream.aclose):
        with trio.testing.assert_checkpoints():
            await method()
    send.close()


async def test_taking_a_buffered_chunk_checks_for_cancellation_and_loses_none():
    stream, send = StreamingCompletion.from_channel("m")
    await send.send([StreamChunk.content("a"), StreamChunk.content("b")])
    assert (await stream.next_chunk()).delta == "a"
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.next_chunk()
    assert scope.cancelled_caught
    assert (await stream.next_chunk()).delta == "b"
    send.close()


async def test_other_tasks_get_their_turn_within_a_batch():
    stream, send = StreamingCompletion.from_channel("m")
    await send.send([StreamChunk.content("x")] * 1000)
    async with other_task() as turns:
        for _ in range(1000):
            await stream.next_chunk()
    assert len(turns) >= 1000 // 128
    send.close()


SCENARIOS = {
    "finished": lambda: (reply(*openai_events("a", "b")),),
    "hanging": lambda: (reply(*HALF, 5.0, *END),),
    "broken": lambda: (reply(*HALF, OSError("cut")),),
    "retried": lambda: (reply(status=503), reply(*openai_events("a"))),
    "unsent": lambda: (reply(error=httpx.ConnectError("no")), reply(*openai_events("a"))),
    "held back": lambda: (reply(*openai_events("a"), wait=3.0),),
    "grace": lambda: (reply(*openai_events("a", usage=False, done=False), hang),),
}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("use", ["iterate", "collect", "leave", "cancel"])
def test_cancelled_at_every_step_nothing_leaks(name, use):
    steps = 0
    while True:
        steps += 1
        transport = ScriptedTransport(*SCENARIOS[name]())
        ended, stream = _cancelled_at(steps, transport, use)
        assert transport.open_bodies == 0, f"a body is left open when cancelled at step {steps}"
        if stream is not None:
            assert stream.outcome is not None
        if ended:
            break
    assert steps > 4


def _cancelled_at(step, transport, use):
    """Run until the end or the n-th step; whether it came to the end by itself."""
    made = []

    async def main():
        with trio.CancelScope() as scope:
            trio.lowlevel.add_instrument(CancelAtStep(step, scope))
            try:
                async with llm.open_client(transport=transport) as client:
                    async with client.stream(model(), "Hi") as stream:
                        made.append(stream)
                        if use == "iterate":
                            await text_of(stream)
                        elif use == "collect":
                            await stream.collect()
                        elif use == "cancel":
                            await stream.next_chunk()
                            await stream.cancel()
            except llm.MiniLLMError:
                pass
        return not scope.cancel_called

    ended = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return ended, made[0] if made else None


@pytest.mark.parametrize(
    "event", [b"data: {}\n\n", b":\r", b"\n"], ids=["events", "comments", "blank"]
)
async def test_a_read_of_the_smallest_events_is_no_one_step(event):
    """Others get their turn while one read of 64 KiB is decoded."""
    _, opening = client_of(reply(event * (65_536 // len(event)), *openai_events("Hi")))
    async with opening as client, other_task() as turns:
        response = await client.complete(model(), "Hi")
    assert response.content == "Hi"
    assert len(turns) > 16


async def test_hidden_thinking_behind_an_opened_block_has_the_first_chunks_time(autojump_clock):
    """Anthropic opens an empty block, and then may think for minutes without a word of it."""
    head, rest = testing.anthropic_events("Hi")[:2], testing.anthropic_events("Hi")[2:]
    _, opening = client_of(reply(*head, 250.0, *rest))
    async with opening as client:
        remote = llm.anthropic("m", api_key="key-key-key", base_url="http://test.invalid")
        response = await client.complete(remote, "Hi")
    assert response.content == "Hi"


async def test_an_overload_behind_an_opened_block_is_tried_again(autojump_clock):
    overload = {"type": "error", "error": {"type": "overloaded_error", "message": "later"}}
    head = testing.anthropic_events()[:2]
    _, opening = client_of(
        reply(*head, testing.sse(overload, "error")), reply(*testing.anthropic_events("Hi"))
    )
    async with opening as client:
        remote = llm.anthropic("m", api_key="key-key-key", base_url="http://test.invalid")
        response = await client.complete(remote, "Hi")
    assert (response.content, response.timings.attempts) == ("Hi", 2)


async def test_an_attempt_that_failed_does_not_end_a_stream_that_is_left_between_two(mock_clock):
    overload = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    refused = reply(*testing.anthropic_events("Hi")[:1], testing.sse(overload, "error"))
    _, opening = client_of(refused, retry=llm.Retry(attempts=2))
    async with opening as client:
        remote = llm.anthropic("m", api_key="key-key-key", base_url="http://test.invalid")
        async with client.stream(remote, "Hi") as stream:
            await trio.testing.wait_all_tasks_blocked()  # it sleeps before its second attempt
            await stream.cancel()
    assert (stream.outcome, stream.error) == (Outcome.CANCELLED, None)
    assert [record.outcome for record in stream.records] == [Outcome.ERRORED]


class Late:
    """An exchange whose last read comes in the moment in which an old deadline passes."""

    waits = tells = direct = sending = ended = False
    status, headers = 200, {"content-type": "text/event-stream"}

    def __init__(self, clock, resumable):
        self.resumable = resumable
        pieces = openai_events(*(f"<{number}>" for number in range(BUFFERED_BATCHES + 8)))
        self.pieces, self.clock = iter(pieces), clock
        self.left = BUFFERED_BATCHES + 2  # the opening goes with the first piece; then all is full

    async def start(self, *args, on_progress, **kwargs):
        on_progress("send_request_body.complete")

    async def receive(self):
        await trio.lowlevel.checkpoint_if_cancelled()
        self.left -= 1
        if self.left == 0:
            self.clock.jump(10_000)  # somebody held the loop for that long
        await trio.lowlevel.cancel_shielded_checkpoint()  # bytes are seen before deadlines
        return next(self.pieces, b"")

    async def drain(self):
        await trio.lowlevel.checkpoint()

    async def close(self):
        await trio.lowlevel.cancel_shielded_checkpoint()


@pytest.mark.parametrize("resumable", [True, False])
async def test_a_read_in_the_moment_of_an_old_deadline_is_not_lost(
    mock_clock, monkeypatch, resumable
):
    _, opening = client_of()
    async with opening as client:
        monkeypatch.setattr(client, "_connect", lambda: Late(mock_clock, resumable))
        async with client.stream(model(), "Hi") as stream:
            await stream.next_chunk()
            await trio.testing.wait_all_tasks_blocked()
            text = "".join([chunk.delta async for chunk in stream])
    assert stream.outcome is Outcome.FINISHED
    assert "<0>" + text == "".join(f"<{number}>" for number in range(BUFFERED_BATCHES + 8))


class Held(Late):
    """An exchange during whose n-th wait (0 is that for the head) somebody holds the loop."""

    def __init__(self, clock, wait, first=b": alive\n\n"):
        super().__init__(clock, None)
        self.pieces, self.left = iter((first, *openai_events("a", "b"))), wait
        self.looks = 0

    @property
    def resumable(self):
        self.looks += 1
        assert self.looks < 100, "it turns in a circle, without a checkpoint"
        return False

    @resumable.setter
    def resumable(self, value): ...

    async def start(self, *args, on_progress, **kwargs):
        on_progress("send_request_body.complete")
        if self.left == 0:
            self.clock.jump(10_000)
        await trio.lowlevel.cancel_shielded_checkpoint()


@pytest.mark.parametrize("way", ["block", "complete"])
@pytest.mark.parametrize(
    ("wait", "total", "ends"),
    [
        (0, None, "first_chunk"),
        (1, None, "first_chunk"),  # a comment is no content
        (2, None, "first_chunk"),  # nor is an opening
        (3, None, None),
        (3, 300, "total"),
        (4, 300, "total"),
    ],
)
async def test_what_can_not_be_read_on_ends_with_the_clock_that_ran_out_meanwhile(
    mock_clock, monkeypatch, way, wait, total, ends
):
    _, opening = client_of(retry=llm.Retry(attempts=1))
    async with opening as client:
        monkeypatch.setattr(client, "_connect", lambda: Held(mock_clock, wait))
        stream = client.stream(model(), "Hi", timeouts=llm.Timeouts(total=total))
        if ends is not None:
            with pytest.raises(llm.StreamTimeout) as caught:
                await collected(stream, way)
            assert caught.value.clock == ends
        else:
            assert (await collected(stream, way)).content == "ab"


async def test_the_rest_of_a_long_read_is_in_time_if_the_read_was(mock_clock, monkeypatch):
    opening, *rest = openai_events("a", "b")
    long = b": \n" * 5000 + opening + rest[0]
    _, opening = client_of(retry=llm.Retry(attempts=1))
    async with opening as client:
        monkeypatch.setattr(client, "_connect", lambda: Held(mock_clock, 1, long))
        done = await client.complete(model(), "Hi", timeouts=llm.Timeouts(total=None))
    assert done.content == "aab"


@pytest.mark.parametrize("resumable", [True, False])
async def test_a_refusal_in_the_moment_of_a_deadline_is_still_one(
    mock_clock, monkeypatch, resumable
):
    class Refusing(Held):
        status, resumable = 429, False

        async def short_body(self, seconds):
            await trio.lowlevel.checkpoint()
            return b'{"error": {"message": "slowly"}}'

    Refusing.resumable = resumable
    _, opening = client_of(retry=llm.Retry(attempts=1))
    async with opening as client:
        monkeypatch.setattr(client, "_connect", lambda: Refusing(mock_clock, 0))
        with pytest.raises(llm.RefusedError, match="HTTP 429 rate_limit: slowly"):
            await client.complete(model(), "Hi")


async def collected(stream, way):
    if way == "complete":
        return await stream.complete()
    async with stream:
        return await stream.collect()


# -- an ended stream ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["collect", "leave", "leave at once"])
async def test_an_ended_stream_needs_no_garbage_collector(how):
    """Its task goes as soon as nothing refers to the stream."""
    transport = ScriptedTransport(reply(*openai_events("a", "b")))
    async with httpx.AsyncClient(transport=transport) as http:
        async with llm.open_client(http_client=http) as client:
            gc.collect()
            gc.disable()
            before = count_of(StreamTask)
            try:
                async with client.stream(model(), "Hi") as stream:
                    if how == "collect":
                        await stream.collect()
                    elif how == "leave":
                        await stream.next_chunk()
                await trio.lowlevel.checkpoint()
                assert count_of(StreamTask) == before + 1
                del stream
                await trio.lowlevel.checkpoint()
                assert count_of(StreamTask) == before
            finally:
                gc.enable()


async def test_a_stream_that_is_kept_keeps_no_request():
    def http_objects() -> list[object]:
        return [o for o in gc.get_objects() if isinstance(o, httpx.Request | httpx.Response)]

    older = http_objects()  # of other tests; kept, so that no new object gets the id of one
    before = set(map(id, older))
    transport = ScriptedTransport(reply(*openai_events("a", "b")))
    async with httpx.AsyncClient(transport=transport) as http:
        async with llm.open_client(http_client=http) as client:
            async with client.stream(model(), "Hi") as stream:
                await stream.collect()
            transport.requests.clear()  # it keeps what arrived
            gc.collect()  # httpx's response and its body refer to each other
            assert not [o for o in http_objects() if id(o) not in before]
            assert stream.response.content == "ab"


# -- chunks belong to whoever receives them ------------------------------------------------------


def wreck(value):
    """Change whatever can be changed in a value, and in what it holds."""
    if isinstance(value, dict):
        for inner in value.values():
            wreck(inner)
        value.clear()
    elif isinstance(value, list | tuple):
        for inner in value:
            wreck(inner)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            inner = getattr(value, name)
            wreck(inner)
            setattr(value, name, 7 if type(inner) is int else "x" if inner else None)


WORDS = [f"w{number} " for number in range(9)]
ODD_ITEM = {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "queries": ["q"]}}
ITEM = (
    b"event: response.output_item.done\ndata: %b\n\n"
    % json.dumps(
        {"type": "response.output_item.done", "output_index": 1, "item": ODD_ITEM}
    ).encode()
)
LAST = json.dumps({"choices": [{"index": 0, "delta": {"annotations": [{"a": [1]}]}}]}).encode()
CITED = openai_events(*WORDS)
CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": [1]}}
CALLED = anthropic_events("Look: ")
CALLED[-2:-2] = [
    sse({"type": "content_block_start", "index": 1, "content_block": CALL}, "content_block_start"),
    sse({"type": "content_block_stop", "index": 1}, "content_block_stop"),
]
FOUND = testing.responses_events(*WORDS)


@pytest.mark.parametrize(
    ("make", "events"),
    [
        (llm.gemini, testing.gemini_events(*WORDS)),
        (llm.openai_responses, [*FOUND[:-1], ITEM, FOUND[-1]]),
        (llm.openai, [*CITED[:3], b"data: %b\n\n" % LAST, *CITED[3:]]),
        (llm.anthropic, CALLED),
        (llm.anthropic, anthropic_events(*WORDS)),
    ],
)
@pytest.mark.parametrize("at_once", [False, True])
def test_what_becomes_of_a_chunk_changes_nothing_of_the_answer(autojump, make, events, at_once):
    """Nor of the chunks behind it, nor of a usage that is asked for in between."""
    pieces = [b"".join(events)] if at_once else events
    _, client = client_of(reply(*pieces), reply(*pieces), reply(*pieces))
    made = make("m", base_url="http://test.invalid/v1", api_key="k")

    async def main():
        chunks, usages = [], []
        async with client as opened:
            responses = [await opened.complete(made, "Hi")]
            for spoil in (False, True):
                seen, counts = [], []
                async with opened.stream(made, "Hi") as stream:
                    async for chunk in stream:
                        seen.append(str((chunk, msgspec.json.encode(chunk))))
                        if spoil:
                            wreck(chunk)
                        counts.append(stream.response.usage)
                chunks.append([re.sub(r"received_at[^,]*", "", one) for one in seen])
                usages.append(counts)
                responses.append(stream.response)
        fields = [msgspec.structs.asdict(response) for response in responses]
        for each in fields:
            del each["timings"]
        assert fields[0] == fields[1] == fields[2]
        assert chunks[0] == chunks[1]
        assert usages[0] == usages[1]

    run(autojump, main)
