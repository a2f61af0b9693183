"""Every recorded stream that has JSON in it: its views give what the response has."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import trio_minillm as llm

from ..support.recorded import Recording, recordings

MODELS: dict[str, Callable[..., llm.Model]] = {
    "openai_chat": llm.openai,
    "openrouter": llm.openrouter,
    "anthropic": llm.anthropic,
    "openai_responses": llm.openai_responses,
    "gemini": llm.gemini,
}


async def body(recording: Recording, size: int) -> AsyncIterator[bytes]:
    """The bytes, in pieces of this size; 0 cuts them anywhere."""
    data, at, chance = recording.body, 0, random.Random(recording.name)
    while at < len(data):
        end = at + (size or chance.choice((1, 7, 50, 400, 3000)))
        yield data[at:end]
        at = end


def opened(recording: Recording, size: int) -> llm.StreamingCompletion:
    model = MODELS[recording.dialect]("m", api_key="k")
    return llm.StreamingCompletion.from_event_source(body(recording, size), model)


def loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


async def fields_of(view: Any) -> tuple[dict[str, Any], dict[str, str], Exception | None]:
    """The values of the fields that are done, the texts of all, and the error that ended them."""
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    try:
        async for field in view:
            texts[field.name] = texts.get(field.name, "") + field.delta
            if field.done:
                values[field.name] = field.value
    except (llm.MiniLLMError, ValueError) as error:
        return values, texts, error
    return values, texts, None


@pytest.mark.parametrize("size", [0, 2**20], ids=["pieces", "whole"])
@pytest.mark.parametrize("recording", recordings(*MODELS))
async def test_the_fields_of_calls_are_those_of_the_response(
    recording: Recording, size: int
) -> None:
    calls: list[tuple[llm.StreamedCall, Any]] = []
    failure = None
    async with opened(recording, size) as stream:
        try:
            async for call in stream.calls():
                calls.append((call, await fields_of(call.fields())))
        except llm.MiniLLMError as error:
            failure = error
        assert failure is stream.error
        partials = [call.partial() for call, _ in calls]
        response = stream.response
    runnable = [call.tool_call for call, _ in calls if call.runnable]
    assert runnable == list(response.tool_calls)
    for (call, (values, texts, error)), partial in zip(calls, partials, strict=True):
        made = call.tool_call
        if made is None or made.type == "custom":
            continue
        assert error is None
        wanted = made.parsed(Any)
        assert values == wanted == partial.value == dict(partial.fields)
        strings = {k: v for k, v in wanted.items() if isinstance(v, str)}
        assert {k: texts[k] for k in strings} == strings
        others = wanted.keys() - strings
        assert {k: json.loads(texts[k]) for k in others} == {k: wanted[k] for k in others}


@pytest.mark.parametrize("size", [0, 2**20], ids=["pieces", "whole"])
@pytest.mark.parametrize("recording", recordings(*MODELS))
async def test_the_fields_of_the_answer_are_those_of_the_response(
    recording: Recording, size: int
) -> None:
    async with opened(recording, size) as stream:
        values, texts, error = await fields_of(stream.fields())
        partial = stream.partial()
        response = stream.response
        if stream.error is not None:
            assert error is stream.error
            return
    try:
        wanted = response.parsed(Any)
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        assert isinstance(error, llm.BrokenJSON)
        assert partial.value == wanted
        return
    assert error is None
    assert values == wanted == partial.value == dict(partial.fields)
    assert all(texts[k] == v for k, v in wanted.items() if isinstance(v, str))
