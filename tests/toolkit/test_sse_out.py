"""A stream of any wire, written as OpenAI's chat completions: read again, it is the same answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._protocol.reasons import in_chat_words

from ..support.recorded import Recording, recordings
from ..support.streams import cancelled_at

URL = "http://unused.invalid"
MODELS: dict[str, Callable[[], llm.Model]] = {
    "openai_chat": lambda: llm.compatible("asked", base_url=URL),
    "openrouter": lambda: llm.openrouter("asked", base_url=URL, api_key="k"),
    "anthropic": lambda: llm.anthropic("asked", base_url=URL, api_key="k"),
    "openai_responses": lambda: llm.openai_responses("asked", base_url=URL, api_key="k"),
    "gemini": lambda: llm.gemini("asked", base_url=URL, api_key="k"),
}
CHAT = llm.compatible("asked", base_url=URL)


async def body_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def written(stream: llm.StreamingCompletion | llm.Listener) -> bytes:
    return b"".join([data async for data in llm.sse_of(stream, keep_alive=None)])


def read_again(body: bytes, choices: int = 1) -> tuple[llm.CompletionResponse, Any]:
    return testing.decode(CHAT.provider, [body], choices=choices)


def view(response: llm.CompletionResponse) -> dict[str, Any]:
    """What a chat client can know of an answer."""
    usage = response.usage
    return {
        "id": response.id,
        "model": response.model,
        "outcome": response.outcome,
        "choices": [
            {
                "index": choice.index,
                "content": choice.content,
                "reasoning": choice.reasoning,
                "refusal": choice.refusal,
                "calls": [
                    (call.id, call.name, call.arguments, call.type) for call in choice.tool_calls
                ],
                "invalid": [(call.name, call.arguments) for call in choice.invalid_tool_calls],
                "images": choice.images,
                "audio": choice.audio,
            }
            for choice in response.choices
        ],
        "usage": usage
        and {
            "prompt": usage.prompt_tokens,
            "read": usage.cache_read_tokens,
            "written": usage.cache_write_tokens,
            "completion": usage.completion_tokens,
            "reasoning": usage.reasoning_tokens,
            "cost": usage.cost,
        },
    }


def reason_expected(choice: llm.Choice) -> str:
    word = in_chat_words(choice.finish_reason)
    return "tool_calls" if word == "stop" and choice.tool_calls else word


def cut(body: bytes, pieces: int) -> list[bytes]:
    size = max(1, len(body) // pieces)
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize("recording", recordings(*MODELS))
@pytest.mark.parametrize("by", ["itself", "a listener", "late listeners"])
async def test_a_recorded_stream_is_the_same_when_read_again(recording: Recording, by: str) -> None:
    asked = len(recording.expected.get("choices") or [0])
    stream = llm.StreamingCompletion.from_event_source(
        body_of(*cut(recording.body, 20)), MODELS[recording.dialect](), choices=asked
    )
    async with stream:
        if by == "itself":
            check(stream, await written(stream), asked)
            return
        async with stream.broadcast(buffer=4) as hub:
            first = hub.subscribe()
            if by == "a listener":
                check(stream, await written(first), asked)
                return
            bodies: list[bytes] = []

            async def listen() -> None:
                bodies.append(await written(hub.subscribe()))

            async with trio.open_nursery() as nursery:
                with suppress(llm.MiniLLMError):
                    async for _ in first:
                        if hub.listeners < 5:
                            nursery.start_soon(listen)
                            await trio.lowlevel.checkpoint()
        for body in bodies:
            check(stream, body, asked)
        check(stream, await written(hub.subscribe()), asked)


def check(stream: llm.StreamingCompletion, body: bytes, asked: int) -> None:
    ours, (theirs, error) = stream.response, read_again(body, asked)
    if ours.outcome is llm.Outcome.FINISHED:
        assert body.endswith(b"data: [DONE]\n\n")
        assert view(theirs) == view(ours)
        reasons = [choice.finish_reason for choice in theirs.choices]
        assert reasons == [reason_expected(choice) for choice in ours.choices]
    else:
        assert b"[DONE]" not in body
        assert b'"finish_reason":"' not in body
        assert theirs.outcome is llm.Outcome.ERRORED
        assert isinstance(error, llm.ProviderError)
        assert stream.error is not None
        assert theirs.content == ours.content


# -- by rule ---------------------------------------------------------------------------------------

texts = st.text(max_size=6)
steps = st.one_of(
    st.builds(lambda text: {"delta": text}, texts),
    st.builds(lambda text: {"reasoning": text}, texts),
    st.builds(lambda text: {"refusal": text}, texts.filter(str.strip)),
    st.builds(lambda a, b: {"delta": a, "reasoning": b}, texts, texts),
)
arguments = st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=3)
calls = st.lists(st.tuples(st.sampled_from("fgh"), arguments, st.integers(0, 9)), max_size=3)


def call_chunks(made: list[tuple[str, dict[str, int], int]], numbered: bool) -> list[Any]:
    out = []
    for number, (name, given_arguments, cut) in enumerate(made):
        text = json.dumps(given_arguments)
        index = number if numbered else None
        opening = llm.ToolCallDelta(index, f"id{number}", name, text[:cut])
        out.append(llm.StreamChunk(tool_calls=(opening,)))
        if text[cut:]:
            rest = llm.ToolCallDelta(index, arguments=text[cut:])
            out.append(llm.StreamChunk(tool_calls=(rest,)))
    return out


@given(
    st.lists(steps, max_size=8),
    calls,
    st.booleans(),
    st.sampled_from(["stop", "end_turn", "MAX_TOKENS", "tool_use", "SAFETY", "pause_turn", None]),
    st.lists(st.booleans(), max_size=8),
    st.booleans(),
)
@settings(deadline=None)
def test_any_answer_is_the_same_when_read_again(
    said: list[dict[str, str]],
    made: list[tuple[str, dict[str, int], int]],
    numbered: bool,
    reason: str | None,
    apart: list[bool],
    broadcast: bool,
) -> None:
    chunks = [llm.StreamChunk(id="answer-1", model="named")]
    chunks += [llm.StreamChunk(**fields) for fields in said] + call_chunks(made, numbered)
    chunks.append(llm.StreamChunk(usage=USAGE))
    if reason is not None:
        chunks.append(llm.StreamChunk.finished(reason))

    async def main() -> None:
        stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
        batch: list[llm.StreamChunk] = []
        for number, chunk in enumerate(chunks):
            batch.append(chunk)
            if number < len(apart) and apart[number]:
                await send.send(batch)
                batch = []
        await send.send(batch)
        send.close()
        if broadcast:
            async with stream.broadcast(buffer=2) as hub:
                body = b"".join([data async for data in llm.sse_of(hub.subscribe())])
        else:
            body = await written(stream)
        ours, (theirs, error) = stream.response, read_again(body)
        if reason is None:
            assert ours.outcome is llm.Outcome.TRUNCATED
            assert b"[DONE]" not in body
            assert isinstance(error, llm.ProviderError)
            assert error.info.type == "truncated"
            assert theirs.content == ours.content
        else:
            assert view(theirs) == view(ours)
            assert theirs.finish_reason == reason_expected(ours.choices[0])

    trio.run(main)


USAGE = llm.Usage(
    uncached_input_tokens=5,
    cache_read_tokens=3,
    cache_write_tokens=2,
    completion_tokens=9,
    reasoning_tokens=4,
    cost=0.25,
)


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        *[(word, "stop") for word in ("stop", "end_turn", "STOP", "stop_sequence", "eos", None)],
        *[(word, "length") for word in ("length", "max_tokens", "MAX_TOKENS")],
        ("model_context_window_exceeded", "length"),
        ("max_output_tokens", "length"),
        *[(word, "content_filter") for word in ("content_filter", "refusal", "SAFETY", "SPII")],
        *[(word, "tool_calls") for word in ("tool_calls", "tool_use", "function_call")],
        ("content_filter: MAX_SAFETY", "content_filter"),
        ("pause_turn", "stop"),
        ("something else", "stop"),
    ],
)
def test_reasons_in_openais_words(reason: str | None, word: str) -> None:
    assert in_chat_words(reason) == word


# -- ends, and silence -----------------------------------------------------------------------------


def fed(*items: Any) -> llm.StreamingCompletion:
    stream, send = llm.StreamingCompletion.from_channel("m", id="x", expect_usage=False)
    for item in items:
        send.send_nowait(item)
    send.close()
    return stream


def error_in(body: bytes) -> dict[str, Any]:
    assert b"[DONE]" not in body
    last = body.strip().rpartition(b"\n\n")[2]
    error: dict[str, Any] = json.loads(last.removeprefix(b"data: "))["error"]
    return error


INFO = llm.ErrorInfo(message="too much", kind="rate_limit", status=429, code="rl", type="limit")
REFUSED = llm.RefusedError(INFO)


@pytest.mark.parametrize(
    ("error", "type", "code"),
    [
        (llm.ProviderError(INFO), "limit", "rl"),
        (REFUSED, "limit", "rl"),
        (llm.RetriesExhausted((REFUSED, REFUSED)), "limit", "rl"),
        (llm.StreamTimeout("idle", 3), "timeout", "idle"),
        (llm.ConnectionCut("cut"), "truncated", None),
        (llm.ProtocolError("no JSON"), "upstream_error", None),
    ],
)
async def test_a_failure_is_an_error_event(error: Any, type: str, code: str | None) -> None:
    stream = fed(llm.StreamChunk("a"), error)
    told = error_in(await written(stream))
    assert told == {"message": str(error), "type": type, "param": None, "code": code}
    again = error_in(await written(stream))  # also where the stream has raised it before
    assert again["type"] == type


async def test_the_words_of_an_error_can_be_replaced() -> None:
    stream = fed(llm.StreamChunk("a"), REFUSED)
    body = b"".join([data async for data in llm.sse_of(stream, describe=lambda _: "sorry")])
    assert error_in(body)["message"] == "sorry"


async def test_a_cancelled_answer_is_no_answer() -> None:
    stream, send = llm.StreamingCompletion.from_channel("m")
    send.send_nowait(llm.StreamChunk("a"))
    body = llm.sse_of(stream)
    assert b'"content":"a"' in await anext(body)
    await stream.cancel()
    assert error_in(await anext(body))["type"] == "cancelled"
    with pytest.raises(StopAsyncIteration):
        await anext(body)


async def test_a_listener_that_is_sent_away_gets_an_error() -> None:
    words = [llm.StreamChunk(f"{number} ") for number in range(9)]
    stream = fed(words, llm.StreamChunk.finished("stop"))
    async with stream.broadcast() as hub:
        body = llm.sse_of(hub.subscribe(policy="detach", buffer=2))
        await hub.wait_over()
        assert "behind" in error_in(await anext(body))["message"]
        with pytest.raises(ValueError, match="drop_oldest"):
            llm.sse_of(hub.subscribe(policy="drop_oldest"))
        early = llm.sse_of(hub.subscribe())
        assert (await anext(early)).count(b"data:") == 1  # the beginning, in one event


async def test_silence_is_filled_with_comments(autojump_clock: trio.testing.MockClock) -> None:
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    body, at = [], []

    async def speak() -> None:
        await trio.sleep(35)
        send.send_nowait([llm.StreamChunk("a"), llm.StreamChunk.finished("stop")])
        send.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        async for data in llm.sse_of(stream):
            body.append(data)
            at.append(trio.current_time())
    assert body[:2] == [b": keep-alive\n\n"] * 2
    assert at[:3] == [15, 30, 35]
    assert read_again(b"".join(body))[0].content == "a"


async def test_what_was_taken_before_comes_first() -> None:
    stream = fed([llm.StreamChunk("a"), llm.StreamChunk("b")], llm.StreamChunk.finished("stop"))
    await stream.next_chunk()
    assert read_again(await written(stream))[0].content == "ab"


async def test_a_call_in_doubt_is_no_answer() -> None:
    """Check that a client gets no call to run that the response does not have."""
    # Without ids and indexes: one call whose name came in two pieces, or two calls.
    pieces = [llm.ToolCallDelta(name="look"), llm.ToolCallDelta(name="up", arguments="{}")]
    chunks = [llm.StreamChunk(tool_calls=(piece,)) for piece in pieces]
    stream = fed(chunks, llm.StreamChunk.finished("tool_calls"))
    body = await written(stream)
    assert [call.name for call in stream.response.invalid_tool_calls] == ["lookup"]
    assert error_in(body)["type"] == "invalid_call"
    cut = await written(fed(chunks, llm.StreamChunk.finished("length")))
    assert cut.endswith(b"[DONE]\n\n")  # whose reason says that no call is to be run


async def test_half_a_surrogate_pair_is_replaced() -> None:
    body = await written(fed(llm.StreamChunk("a\ud800"), llm.StreamChunk.finished("stop")))
    assert read_again(body)[0].content == "a?"


def test_misuse() -> None:
    with pytest.raises(TypeError, match="stream must be"):
        llm.sse_of("no")  # type: ignore[arg-type]
    for seconds in (-1, 0):
        with pytest.raises(ValueError, match="keep_alive"):
            llm.sse_of(fed(), keep_alive=seconds)


@pytest.mark.parametrize("works", [True, False])
async def test_the_stream_of_a_choice_of_models(works: bool) -> None:
    """Over a listener: the second model answers, or none does."""
    refused = testing.reply(b'{"error": {"message": "no"}}', status=503)
    second = testing.reply(*testing.openai_events("a", "b")) if works else refused
    transport = testing.ScriptedTransport(refused, second)
    retry = llm.Retry(attempts=1)
    async with llm.open_client(transport=transport, retry=retry) as client:
        async with client.stream(llm.fallback(CHAT, CHAT), "Why?") as stream:
            async with stream.broadcast() as hub:
                body = await written(hub.subscribe())
    if works:
        check(stream, body, 1)
        assert stream.response.content == "ab"
    else:
        assert isinstance(stream.error, llm.ModelsExhausted)
        assert error_in(body)["message"] == str(stream.error)


async def test_cancelled_at_every_step() -> None:
    async def run() -> None:
        events = testing.openai_events("a", "b", "c")
        async with llm.open_client(
            transport=testing.ScriptedTransport(testing.reply(*events))
        ) as c:
            async with c.stream(CHAT, "Why?") as stream:
                assert (await written(stream)).endswith(b"[DONE]\n\n")

    step = 1
    while await cancelled_at(step, run):
        step += 1
    assert step > 10
