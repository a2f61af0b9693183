"""A conversation of five turns can be carried on by every model, whoever spoke before.

The answers are streamed as their vendors stream them, go into the history as `to_message` gives them,
and each request is held against the shape that the API documents (`support.request_shapes`).
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import pytest

import trio_minillm as llm
from trio_minillm._protocol.request import body_of, make_request
from trio_minillm.testing import decode

from .support.conversations import HIDDEN, SPEAKERS, TURNS, checked, said, signature, talk
from .support.recorded import Recording, recordings
from .support.request_shapes import said_in

NAMES = list(SPEAKERS)


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.parametrize("origin", NAMES)
async def test_every_model_goes_on_with_what_another_has_said(origin: str, to: str) -> None:
    *_, body = await talk(*[origin] * len(TURNS), to)
    assert said_in(SPEAKERS[to].shape, body) == said()
    if SPEAKERS[origin].shape != SPEAKERS[to].shape:
        assert not any(word in json.dumps(body) for word in HIDDEN)


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.parametrize("origin", NAMES)
async def test_models_that_take_turns(origin: str, to: str) -> None:
    """One goes on behind the other's calls, and finds its own turns as it made them."""
    *_, body = await talk(origin, to, to, origin, to, origin)
    shape = SPEAKERS[origin].shape
    assert said_in(shape, body) == said()
    for number, turn in OWN[origin].items():
        if number in (0, 3):
            assert model_turns(shape, body)[number] == turn


@pytest.mark.parametrize("name", NAMES)
async def test_a_model_gets_its_own_turns_as_it_made_them(name: str) -> None:
    *_, body = await talk(*[name] * len(TURNS), name)
    found = model_turns(SPEAKERS[name].shape, body)
    assert len(found) == len(TURNS)
    assert {number: found[number] for number in OWN[name]} == OWN[name]


@pytest.mark.parametrize("origin", NAMES)
@pytest.mark.parametrize("goes_on", [1, 3, 5])
async def test_a_model_that_is_to_think_goes_on_behind_anothers_turns(
    origin: str, goes_on: int
) -> None:
    """With a budget, Anthropic refuses a tool loop that another model began, if it is to think in it."""
    *_, body = await talk(*[origin] * goes_on, "anthropic", reasoning=1024)
    thinks = origin == "anthropic" or goes_on == len(TURNS)
    assert ("thinking" in body) is thinks


@pytest.mark.parametrize("origin", NAMES)
async def test_reasoning_that_the_server_does_not_store_goes_back_encrypted(origin: str) -> None:
    *_, body = await talk(*[origin] * len(TURNS), "responses", store=False, reasoning="low")
    assert body["include"] == ["reasoning.encrypted_content"]
    assert said_in("openai-responses", body) == said()
    kept = [item["id"] for item in body["input"] if item.get("type") == "reasoning"]
    assert kept == (["rs_0", "rs_2", "rs_3"] if origin == "responses" else [])


def model_turns(shape: str, body: dict[str, Any]) -> list[Any]:
    """Return the turns of the model in a request, each as its API has it."""
    if shape == "gemini":
        return [turn["parts"] for turn in body["contents"] if turn["role"] == "model"]
    if shape != "openai-responses":
        return [m for m in body["messages"] if m["role"] == "assistant"]
    runs = groupby(body["input"], _is_models)
    return [list(items) for models, items in runs if models]


def _is_models(item: dict[str, Any]) -> bool:
    role = item.get("role")
    return role == "assistant" if role else not item["type"].endswith("_output")


# -- each vendor's turns, as it wants them back ------------------------------------------------

ROME, OSTIA = '{"city": "Rome", "days": [1, 2]}', '{"city": "Ostia"}'
SKY, NOW, AGAIN = ("sky", ROME), ("now", "{}"), ("sky", OSTIA)


def spoken(number: int, text: str | None, *calls: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Return a turn in OpenAI's format."""
    out: dict[str, Any] = {"role": "assistant", "content": text, **more}
    for place, (name, given) in enumerate(calls):
        function = {"name": name, "arguments": given}
        call = {"id": f"call_{number}_{place}", "type": "function", "function": function}
        out.setdefault("tool_calls", []).append(call)
    return out


def detail(number: int, thought: str) -> list[dict[str, Any]]:
    head = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    return [{**head, "text": thought, "signature": f"SECRET-{number}"}]


def blocks(number: int, thought: str, *others: dict[str, Any]) -> dict[str, Any]:
    """Return a turn in Anthropic's format that begins with thinking."""
    shown = {"type": "thinking", "thinking": thought, "signature": f"SECRET-{number}"}
    hidden = {"type": "redacted_thinking", "data": f"SECRET-DATA-{number}"}
    return {"role": "assistant", "content": [shown, hidden, *others]}


def tool_use(ident: str, name: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": ident, "name": name, "input": given}


def thought(number: int, summary: str) -> dict[str, Any]:
    """Return an item of reasoning of OpenAI's Responses."""
    head = {"type": "reasoning", "id": f"rs_{number}", "encrypted_content": f"SECRET-{number}"}
    return {**head, "summary": [{"type": "summary_text", "text": summary}]}


def message(number: int, text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    head = {"type": "message", "role": "assistant", "id": f"msg_{number}", "status": "completed"}
    return {**head, "content": [part]}


def item(number: int, place: int, name: str, given: str) -> dict[str, Any]:
    ids = {"id": f"fc_{number}_{place}", "call_id": f"call_{number}_{place}"}
    head = {"type": "function_call", "status": "completed"}
    return {**head, **ids, "name": name, "arguments": given}


def call(name: str, number: int | None = None, ident: str = "", **args: Any) -> dict[str, Any]:
    """Return a part of Gemini's with a call."""
    signed = {} if number is None else {"thoughtSignature": signature(f"SECRET-{number}")}
    ids = {"id": ident} if ident else {}
    return {"functionCall": {"name": name, "args": args, **ids}, **signed}


_FIRST, _THIRD = {"city": "Rome", "days": [1, 2]}, {"city": "Ostia"}
_ANSWERED = [{"text": "Better not."}, {"text": "", "thoughtSignature": signature("SECRET-3")}]

OWN: dict[str, dict[int, Any]] = {
    "openai": {
        0: spoken(0, "Let me look.", SKY, NOW),
        1: spoken(1, "Yes, it is clear."),
        2: spoken(2, None, AGAIN),
        3: spoken(3, "Better not."),
    },
    "openrouter": {
        0: spoken(
            0, "Let me look.", SKY, NOW, reasoning_details=detail(0, "I need the sky and the time.")
        ),
        1: spoken(1, "Yes, it is clear."),
        2: spoken(2, None, AGAIN, reasoning_details=detail(2, "The sky once more.")),
        3: spoken(3, "Better not.", reasoning_details=detail(3, "Rain is wet.")),
    },
    "deepseek": {
        0: spoken(0, "Let me look.", SKY, NOW, reasoning_content="I need the sky and the time."),
        2: spoken(2, "", AGAIN, reasoning_content="The sky once more."),
        3: spoken(3, "Better not.", reasoning_content="Rain is wet."),
    },
    "anthropic": {
        0: blocks(
            0,
            "I need the sky and the time.",
            {"type": "text", "text": "Let me look."},
            tool_use("toolu_0_0", "sky", **_FIRST),
            tool_use("toolu_0_1", "now"),
        ),
        1: {"role": "assistant", "content": "Yes, it is clear."},
        2: blocks(2, "The sky once more.", tool_use("toolu_2_0", "sky", **_THIRD)),
        3: blocks(3, "Rain is wet.", {"type": "text", "text": "Better not."}),
    },
    "responses": {
        0: [
            thought(0, "I need the sky and the time."),
            message(0, "Let me look."),
            item(0, 0, *SKY),
            item(0, 1, *NOW),
        ],
        1: [{"type": "message", "role": "assistant", "content": "Yes, it is clear."}],
        2: [thought(2, "The sky once more."), item(2, 0, *AGAIN)],
        3: [thought(3, "Rain is wet."), message(3, "Better not.")],
    },
    "gemini": {
        0: [{"text": "Let me look."}, call("sky", 0, **_FIRST), call("now")],
        1: [{"text": "Yes, it is clear."}],
        2: [call("sky", 2, **_THIRD)],
        3: _ANSWERED,
    },
    "gemini with ids": {
        0: [
            {"text": "Let me look."},
            call("sky", 0, "fc-0-4", **_FIRST),
            call("now", None, "fc-0-5"),
        ],
        2: [call("sky", 2, "fc-2-2", **_THIRD)],
        3: _ANSWERED,
    },
}
"""Turns of the conversation by their numbers, from what each vendor documents of turns that go back."""


# -- recorded answers --------------------------------------------------------------------------

RECORDED = {
    "openai_chat": "openai",
    "openrouter": "openrouter",
    "anthropic": "anthropic",
    "openai_responses": "responses",
    "gemini": "gemini",
}


@pytest.mark.parametrize("recording", recordings(*RECORDED))
def test_every_recorded_answer_goes_into_a_request_of_every_shape(recording: Recording) -> None:
    maker = SPEAKERS[RECORDED[recording.dialect]].model
    answer, _ = decode(maker.provider, [recording.body])
    history = [llm.user("Hi"), answer.to_message()]
    history += [llm.tool_result(call, "done") for call in answer.tool_calls]
    history += [llm.user("Go on.")]
    foreign = recording.meta["provider"] == "deepseek"  # whose ids OpenAI never gets to see
    for name in [name for name in NAMES if not foreign or name != "responses"]:
        checked(SPEAKERS[name], body_of(make_request(SPEAKERS[name].model, tuple(history), {})))
