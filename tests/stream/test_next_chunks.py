"""`next_chunks`: the chunks of a stream in batches, which are those of `next_chunk`."""

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import faults, sse

from ..support.streams import CancelAtStep

CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}
SCRIPTS = {
    "text": testing.openai_events(*"abcdefgh"),
    "a call": [
        sse({"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]}),
        *testing.openai_events("x", finish="tool_calls"),
    ],
    "usage with each": [
        sse(
            {
                "choices": [{"index": 0, "delta": {"content": word}}],
                "usage": {"prompt_tokens": 1, "completion_tokens": n + 1},
            }
        )
        for n, word in enumerate("abc")
    ]
    + testing.openai_events("d"),
}
FAULTS = {
    "whole": None,
    "cut": faults.cut(120),
    "dripped": faults.drip(7, 0.0),
    "garbled": faults.edit(lambda event: None if event == "[DONE]" else {**event, "choices": 5}),
}


async def by_batches(stream):
    out = []
    while batch := await stream.next_chunks():
        out += batch
    assert await stream.next_chunks() == []  # the error comes once
    return out


async def one_by_one(stream):
    out = []
    while (chunk := await stream.next_chunk()) is not None:
        out.append(chunk)
    return out


async def seen(take, script):
    """All that a caller sees of an answer; an error counts as the last chunk."""
    out = []
    async with llm.open_client(transport=testing.ScriptedTransport(script)) as client:
        async with client.stream(testing.model(), "Hi") as stream:
            try:
                out = await take(stream)
            except llm.MiniLLMError as error:
                out = [type(error), str(error)]
        for chunk in out:
            if isinstance(chunk, llm.StreamChunk):
                chunk.received_at = 0.0
        response = msgspec.structs.replace(stream.response, timings=llm.Timings())
        return out, response, stream.outcome, stream.records[0].outcome


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("script", SCRIPTS)
async def test_they_are_the_chunks_of_the_loop(script, fault, autojump_clock):
    made = testing.reply(*SCRIPTS[script])
    if FAULTS[fault] is not None:
        made = made | FAULTS[fault]
    assert await seen(by_batches, made) == await seen(one_by_one, made)


@given(
    st.lists(
        st.one_of(
            st.builds(llm.StreamChunk, st.text(max_size=3)),
            st.builds(llm.StreamChunk, reasoning=st.text(max_size=3)),
            st.builds(llm.StreamChunk, choice=st.integers(-1, 2), delta=st.just("x")),
            st.builds(llm.StreamChunk, usage=st.builds(llm.Usage, completion_tokens=st.just(3))),
            st.just(llm.StreamChunk(progress=False)),
            st.just(llm.StreamChunk.finished("stop")),
        ),
        max_size=12,
    ),
    st.lists(st.integers(1, 4), max_size=12),
)
def test_any_chunks_in_any_batches(chunks, sizes):
    async def run(take):
        stream, send = llm.StreamingCompletion.from_channel("m")
        left = [msgspec.structs.replace(chunk) for chunk in chunks]
        for size in [*sizes, len(left)]:
            if left[:size]:
                send.send_nowait(left[:size])
            del left[:size]
        send.close()
        try:
            return await take(stream), stream.outcome, stream.response.choices
        except llm.MiniLLMError as error:
            return str(error), stream.outcome, stream.response.choices

    ended = [
        trio.run(run, take, clock=trio.testing.MockClock(autojump_threshold=0))
        for take in (by_batches, one_by_one)
    ]
    assert ended[0] == ended[1]


async def test_what_is_done_with_a_chunk_does_not_reach_the_answer():
    script = testing.reply(*SCRIPTS["usage with each"])
    async with llm.open_client(transport=testing.ScriptedTransport(script)) as client:
        async with client.stream(testing.model(), "Hi") as stream:
            while batch := await stream.next_chunks():
                for chunk in batch:
                    if chunk.usage is not None:
                        chunk.usage.raw["prompt_tokens"] = 99
    assert stream.usage.raw["prompt_tokens"] != 99


async def test_a_stream_fed_by_hand_is_plain_whatever_class_it_is_asked_of():
    stream, send = llm.TrackedStream.from_channel("m")
    assert type(stream) is llm.StreamingCompletion
    send.close()


async def test_two_tasks_can_not_take_chunks_at_once(autojump_clock):
    stream, _send = llm.StreamingCompletion.from_channel("m")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.next_chunks)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.next_chunks()
        nursery.cancel_scope.cancel()


async def test_nothing_is_lost_by_a_cancelled_wait(autojump_clock):
    for step in range(12):
        stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
        for word in "abc":
            send.send_nowait([llm.StreamChunk(word)])
        send.send_nowait(llm.StreamChunk.finished("stop"))
        send.close()
        text = ""
        with trio.CancelScope() as scope:
            trio.lowlevel.add_instrument(instrument := CancelAtStep(step, scope))
            try:
                while batch := await stream.next_chunks():
                    text += "".join(chunk.delta for chunk in batch)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        while batch := await stream.next_chunks():
            text += "".join(chunk.delta for chunk in batch)
        assert text == "abc"


async def test_it_is_a_checkpoint_in_any_case():
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    send.send_nowait([llm.StreamChunk("a")])
    send.send_nowait(llm.StreamChunk.finished("stop"))
    send.close()
    for batches in (1, 1, 0, 0):
        with trio.testing.assert_checkpoints():
            assert len(await stream.next_chunks()) == batches
