"""A stream of any wire, written as OpenAI's chat completions: read again, it is the same answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._protocol.reasons import in_chat_words

from ..support.recorded import Recording, recordings

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


async def written(stream: llm.StreamingCompletion) -> bytes:
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


@pytest.mark.parametrize("recording", recordings(*MODELS))
async def test_a_recorded_stream_is_the_same_when_read_again(recording: Recording) -> None:
    asked = len(recording.expected.get("choices") or [0])
    stream = llm.StreamingCompletion.from_event_source(
        body_of(recording.body), MODELS[recording.dialect](), choices=asked
    )
    async with stream:
        body = await written(stream)
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
