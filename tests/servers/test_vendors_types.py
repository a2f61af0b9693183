"""Requests are what the vendors' own SDKs call one: their types, with nothing unknown beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import trio_minillm as llm
from trio_minillm._protocol.request import body_of, make_request

from ..support.conversations import SPEAKERS, TURNS, talk

NAMES = [name for name in SPEAKERS if name not in ("openrouter", "deepseek")]


def _plain(value: Any) -> Any:
    """Return it as JSON has it: pydantic leaves some lists to be read later."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value if isinstance(value, str | int | float | None) else [*map(_plain, value)]


def _typed(params: Any, body: dict[str, Any]) -> None:
    """Raise unless a body is of the type of an SDK's parameters; fields that it lacks are dropped."""
    pydantic = pytest.importorskip("pydantic")
    assert _plain(pydantic.TypeAdapter(params).validate_python(body)) == body


def _chat(body: dict[str, Any]) -> None:
    types = pytest.importorskip("openai.types.chat.completion_create_params")
    _typed(types.CompletionCreateParamsStreaming, body)


def _responses(body: dict[str, Any]) -> None:
    types = pytest.importorskip("openai.types.responses.response_create_params")
    _typed(types.ResponseCreateParamsStreaming, body)


def _messages(body: dict[str, Any]) -> None:
    types = pytest.importorskip("anthropic.types.message_create_params")
    _typed(types.MessageCreateParamsStreaming, body)


def _gemini(body: dict[str, Any]) -> None:
    types = pytest.importorskip("google.genai.types")
    for content in (*body["contents"], body["systemInstruction"]):
        types.Content.model_validate(content, strict=True)


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "openai": _chat,
    "anthropic": _messages,
    "openai-responses": _responses,
    "gemini": _gemini,
}


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.parametrize("origin", SPEAKERS)
async def test_a_conversation_is_what_the_vendors_sdk_calls_one(origin: str, to: str) -> None:
    *_, body = await talk(*[origin] * len(TURNS), to)
    CHECKS[SPEAKERS[to].shape](body)


@pytest.mark.parametrize("to", NAMES)
def test_the_check_finds_a_field_that_is_unknown(to: str) -> None:
    body = body_of(make_request(SPEAKERS[to].model, (llm.system("Be brief."), llm.user("x")), {}))
    turns = body.get("messages") or body.get("input") or body["contents"]
    turns[-1]["unheard_of"] = "x"
    with pytest.raises((AssertionError, ValueError)):
        CHECKS[SPEAKERS[to].shape](body)
