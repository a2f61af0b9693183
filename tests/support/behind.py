"""Calls of the embedded model behind another program, and what must hold of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Annotated, Any, Literal

import httpx
import pytest
import trio
from msgspec import Meta

import trio_minillm as llm
from trio_minillm.testing import openai_events

from .peers import Peer

ONCE = llm.Retry(attempts=1)
TWICE = llm.Retry(attempts=2, base_delay=0.01)
PROMPT = "Write a long story about the sea."
SAME: dict[str, Any] = {"temperature": 0.0}
"""Parameters with which the model answers the same each time, but for what is in its cache."""


async def answers(model: llm.Model, client: llm.Client | None = None) -> llm.CompletionResponse:
    """The model answers whole, with counts; as a stream, and as a whole."""
    if client is None:
        async with llm.open_client(retry=ONCE) as client:
            return await answers(model, client)
    async with client.stream(model, PROMPT, max_tokens=24, **SAME) as stream:
        pieces = [chunk.delta async for chunk in stream]
    response = stream.response
    assert response.outcome is llm.Outcome.FINISHED
    assert "".join(pieces) == response.content != ""
    assert len([p for p in pieces if p]) > 5
    assert response.usage is not None
    assert response.usage.final
    assert response.usage.completion_tokens == 24
    again = await client.complete(model, PROMPT, max_tokens=24, **SAME)
    assert again.finish_reason == response.finish_reason
    assert again.usage is not None
    return response


def forecast(city: Annotated[str, Meta(max_length=20)], unit: Literal["c", "f"]) -> str:
    """The weather in a city."""
    return f"21 degrees {unit} in {city}, sunny"


TOOL = llm.tool(forecast)
WEATHER = "What is the weather in Paris?"


async def calls_a_tool(model: llm.Model) -> tuple[llm.ToolCall, llm.CompletionResponse]:
    """The model calls a tool in a stream, and answers once it has the result; return both."""
    question, tools = llm.user(WEATHER), [TOOL]
    async with llm.open_client(retry=ONCE) as client:
        asked = await client.stream(
            model, [question], tools=tools, tool_choice="required", max_tokens=120, **SAME
        ).complete()
        (call,) = asked.tool_calls
        turns = [question, asked.to_message(), llm.tool_result(call, TOOL.call(call))]
        return call, await client.complete(model, turns, tools=tools, max_tokens=60, **SAME)


async def broken(
    model: llm.Model, break_it: Callable[[], object], error: type[llm.StreamError]
) -> llm.CompletionResponse:
    """A stream breaks in its middle with this error, and has what had arrived."""
    async with llm.open_client(retry=ONCE) as client:
        with pytest.raises(error) as caught:
            async with client.stream(model, PROMPT, max_tokens=900) as stream:
                while len(stream.accumulated) < 20:
                    assert await stream.next_chunk() is not None
                break_it()
                await stream.collect()
    partial = caught.value.partial
    assert partial is not None
    assert partial.outcome in (llm.Outcome.TRUNCATED, llm.Outcome.ERRORED)
    assert len(partial.content) >= 20
    return partial


async def leaves_nothing_running(model: llm.Model, url: str, key: str) -> None:
    """A stream is left, and the model stops generating it."""
    async with llm.open_client(retry=ONCE) as client:
        async with client.stream(model, PROMPT, max_tokens=900) as stream:
            while len(stream.accumulated) < 20:
                assert await stream.next_chunk() is not None
            assert await busy_slots(url, key) == 1
        with trio.fail_after(30):
            while await busy_slots(url, key):
                await trio.sleep(0.02)


async def busy_slots(url: str, key: str) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answer = await http.get(f"{url}/slots", headers={"authorization": f"Bearer {key}"})
    return sum(bool(slot["is_processing"]) for slot in answer.raise_for_status().json())


async def refused(
    model: llm.Model, status: int, kind: str, *, attempts: int, prompt: str = PROMPT
) -> llm.RefusedError:
    """The request is refused with this status, after so many attempts."""
    async with llm.open_client(retry=TWICE) as client:
        with pytest.raises(llm.MiniLLMError) as caught:
            await client.complete(model, prompt, max_tokens=5)
    error, made = caught.value, 1
    if isinstance(error, llm.RetriesExhausted):
        error, made = error.last_error, error.attempts
    assert isinstance(error, llm.RefusedError), repr(error)
    assert (error.status, error.kind, made) == (status, kind, attempts), repr(error)
    return error


async def not_sent(model: llm.Model, words: str) -> None:
    """The request is not sent, and the error says why."""
    async with llm.open_client(retry=ONCE) as client:
        with pytest.raises(llm.SendError, match=words):
            await client.complete(model, PROMPT, max_tokens=5)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def falling_silent(peer: Peer) -> None:
    """Answers with a few pieces, and then with nothing more."""
    await peer.request()
    await peer.send(HEAD)
    for event in openai_events("a" * 30, "b" * 30)[:3]:
        await peer.send(b"%x\r\n%s\r\n" % (len(event), event))
    while await peer.receive():
        pass


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
