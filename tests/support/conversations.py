"""A conversation of five turns, with tools and reasoning, as each vendor would stream its answers.

The streams have what the recorded ones of the same vendor have around their content: ids, signatures,
where they stand, and how a call is cut in pieces. What belongs to one server alone, and must not come to
another, has one of `HIDDEN` in it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import trio_minillm as llm
from trio_minillm.testing import ScriptedTransport, reply, sse

from .request_shapes import SHAPES, signed


class Turn(NamedTuple):
    """An answer of a model, and what it is an answer to."""

    asked: str
    """What the user said; empty if the tools' results were sent."""
    thought: str
    text: str
    calls: tuple[tuple[str, str, str], ...] = ()
    """Of each call the function, its arguments as JSON, and the result that it will get."""


TURNS = (
    Turn(
        "Shall I go out?",
        "I need the sky and the time.",
        "Let me look.",
        (("sky", '{"city": "Rome", "days": [1, 2]}', "clear"), ("now", "{}", "noon")),
    ),
    Turn("", "", "Yes, it is clear."),
    Turn("And tomorrow?", "The sky once more.", "", (("sky", '{"city": "Ostia"}', "rain"),)),
    Turn("", "Rain is wet.", "Better not."),
    Turn("Thanks.", "", "You are welcome."),
)
"""The user speaks three times, and the model five times: with two calls, in words, with a call and no
word, in thought and words, in words alone."""

LAST = "And the day after?"
HIDDEN = ("SECRET", "U0VDUkVU")
"""A word in signatures and encrypted reasoning, and the same in base64."""


def said() -> list[tuple[str, ...]]:
    """Return what a request says that has the whole conversation in its history (`said_in`)."""
    out: list[tuple[str, ...]] = [("system", "Be brief.")]
    for turn in TURNS:
        out += [("user", turn.asked)] if turn.asked else []
        out += [("model", turn.text)] if turn.text else []
        calls = [
            (name, json.dumps(json.loads(given), sort_keys=True)) for name, given, _ in turn.calls
        ]
        out += [("call", *call) for call in calls]
        out += [("result", name, result) for name, _, result in turn.calls]
    return [*out, ("user", LAST)]


Stream = Callable[[int, Turn], list[bytes]]


def halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [piece for piece in (text[:middle], text[middle:]) if piece]


# -- chat completions --------------------------------------------------------------------------


def chat(number: int, turn: Turn) -> list[bytes]:
    """OpenAI's, which shows no reasoning."""
    return _chat(number, [{"content": piece} for piece in halves(turn.text)], turn)


def deepseek(number: int, turn: Turn) -> list[bytes]:
    thoughts = [{"content": None, "reasoning_content": p} for p in halves(turn.thought)]
    texts = [{"content": p, "reasoning_content": None} for p in halves(turn.text)]
    return _chat(number, [*thoughts, *texts], turn)


def openrouter(number: int, turn: Turn) -> list[bytes]:
    """OpenRouter with a model of Anthropic's: blocks of reasoning, the signature in one of its own."""
    head = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    deltas: list[dict[str, Any]] = []
    for piece in halves(turn.thought):
        deltas.append(
            {"content": "", "reasoning": piece, "reasoning_details": [{**head, "text": piece}]}
        )
    if turn.thought:
        signature = [{**head, "signature": f"SECRET-{number}"}]
        deltas.append({"content": "", "reasoning": None, "reasoning_details": signature})
    return _chat(number, [*deltas, *({"content": piece} for piece in halves(turn.text))], turn)


def _chat(number: int, deltas: list[dict[str, Any]], turn: Turn) -> list[bytes]:
    head = {"id": f"gen-{number}", "object": "chat.completion.chunk", "model": "m"}
    for index, (name, given, _) in enumerate(turn.calls):
        function: dict[str, Any] = {"name": name, "arguments": ""}
        call = {"index": index, "id": f"call_{number}_{index}", "type": "function"}
        deltas.append({"tool_calls": [{**call, "function": function}]})
        for piece in halves(given):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    events = [
        sse({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        for delta in ({"role": "assistant", "content": ""}, *deltas)
    ]
    reason = "tool_calls" if turn.calls else "stop"
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return [*events, sse(end), sse({**head, "choices": [], "usage": usage}), sse("[DONE]")]


# -- Messages ----------------------------------------------------------------------------------


def anthropic(number: int, turn: Turn) -> list[bytes]:
    """Anthropic's, with interleaved thinking: a thought stands before what came of it."""
    events: list[bytes] = []
    indexes = count()

    def event(kind: str, **fields: Any) -> None:
        events.append(sse({"type": kind, **fields}, kind))

    def block(start: dict[str, Any], *deltas: dict[str, Any]) -> None:
        index = next(indexes)
        event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            event("content_block_delta", index=index, delta=delta)
        event("content_block_stop", index=index)

    message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": "m"}
    usage = {"input_tokens": 9, "output_tokens": 1}
    event("message_start", message={**message, "content": [], "usage": usage})
    event("ping")
    if turn.thought:
        pieces = [{"type": "thinking_delta", "thinking": p} for p in halves(turn.thought)]
        signature = {"type": "signature_delta", "signature": f"SECRET-{number}"}
        block({"type": "thinking", "thinking": "", "signature": ""}, *pieces, signature)
        block({"type": "redacted_thinking", "data": f"SECRET-DATA-{number}"})
    if turn.text:
        block(
            {"type": "text", "text": ""},
            *({"type": "text_delta", "text": piece} for piece in halves(turn.text)),
        )
    for place, (name, given, _) in enumerate(turn.calls):
        cut = [] if given == "{}" else halves(given)
        block(
            {"type": "tool_use", "id": f"toolu_{number}_{place}", "name": name, "input": {}},
            *({"type": "input_json_delta", "partial_json": piece} for piece in ("", *cut)),
        )
    delta = {"stop_reason": "tool_use" if turn.calls else "end_turn", "stop_sequence": None}
    event("message_delta", delta=delta, usage={"output_tokens": 9})
    event("message_stop")
    return events


# -- Responses ---------------------------------------------------------------------------------


def responses(number: int, turn: Turn) -> list[bytes]:
    """OpenAI's, with a summary of the reasoning, and the reasoning itself encrypted."""
    events: list[bytes] = []
    output: list[dict[str, Any]] = []
    numbers = count()

    def event(kind: str, **fields: Any) -> None:
        events.append(sse({"type": kind, "sequence_number": next(numbers), **fields}, kind))

    def item(opened: dict[str, Any], done: dict[str, Any], kind: str, pieces: list[str]) -> None:
        place: dict[str, Any] = {"output_index": len(output)}
        event("response.output_item.added", **place, item=opened)
        inner = {"item_id": opened["id"], **place}
        if "arguments" not in opened:
            inner["summary_index" if opened["type"] == "reasoning" else "content_index"] = 0
        for piece in pieces:
            event(f"response.{kind}.delta", **inner, delta=piece)
        last = "arguments" if "arguments" in opened else "text"
        event(f"response.{kind}.done", **inner, **{last: "".join(pieces)})
        event("response.output_item.done", **place, item=done)
        output.append(done)

    answer = {"id": f"resp_{number}", "object": "response", "model": "m", "output": []}
    event("response.created", response={**answer, "status": "in_progress"})
    if turn.thought:
        head = {"id": f"rs_{number}", "type": "reasoning"}
        summary = [{"type": "summary_text", "text": turn.thought}]
        hidden = {"encrypted_content": f"SECRET-{number}"}
        opened, done = {**head, "summary": [], **hidden}, {**head, "summary": summary, **hidden}
        item(opened, done, "reasoning_summary_text", halves(turn.thought))
    if turn.text:
        head = {"id": f"msg_{number}", "type": "message", "role": "assistant"}
        part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
        opened = {**head, "status": "in_progress", "content": []}
        done = {**head, "status": "completed", "content": [part]}
        item(opened, done, "output_text", halves(turn.text))
    for place, (name, given, _) in enumerate(turn.calls):
        ids = {"id": f"fc_{number}_{place}", "call_id": f"call_{number}_{place}"}
        call = {"type": "function_call", **ids, "name": name}
        opened = {**call, "status": "in_progress", "arguments": ""}
        done = {**call, "status": "completed", "arguments": given}
        item(opened, done, "function_call_arguments", halves(given))
    usage = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
    last = {**answer, "status": "completed", "output": output, "usage": usage}
    event("response.completed", response=last)
    return events


# -- Gemini ------------------------------------------------------------------------------------


def signature(text: str) -> str:
    """Return a signature as Gemini's are: base64."""
    return base64.b64encode(text.encode()).decode()


def gemini(number: int, turn: Turn) -> list[bytes]:
    """Gemini 3's: the first call is signed, or an empty text behind the last one."""
    parts: list[dict[str, Any]] = []
    parts += [{"text": piece, "thought": True} for piece in halves(turn.thought)]
    parts += [{"text": piece} for piece in halves(turn.text)]
    for place, (name, given, _) in enumerate(turn.calls):
        args = {} if given == "{}" else {"args": json.loads(given)}
        signed = {"thoughtSignature": signature(f"SECRET-{number}")} if place == 0 else {}
        parts.append({"functionCall": {"name": name, **args}, **signed})
    if turn.thought and not turn.calls:
        parts.append({"text": "", "thoughtSignature": signature(f"SECRET-{number}")})
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 9, "totalTokenCount": 18}
    told = {"usageMetadata": usage, "modelVersion": "m", "responseId": f"r-{number}"}
    events = [
        sse({"candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0}], **told})
        for part in parts
    ]
    end = {
        "content": {"parts": [{"text": ""}], "role": "model"},
        "finishReason": "STOP",
        "index": 0,
    }
    return [*events, sse({"candidates": [end], **told})]


def gemini_with_ids(number: int, turn: Turn) -> list[bytes]:
    """The same with an id for each call, which its result must have."""
    events = gemini(number, turn)
    for place, event in enumerate(events):
        data = json.loads(event.removeprefix(b"data: "))
        (part,) = data["candidates"][0]["content"]["parts"]
        if "functionCall" in part:
            part["functionCall"]["id"] = f"fc-{number}-{place}"
            events[place] = sse(data)
    return events


class Speaker(NamedTuple):
    """A model, and how it streams."""

    model: llm.Model
    stream: Stream
    shape: str
    """Name of the shape of its requests (`request_shapes.SHAPES`)."""


SPEAKERS = {
    "openai": Speaker(llm.openai("gpt-5", api_key="k"), chat, "openai"),
    "openrouter": Speaker(
        llm.openrouter("anthropic/claude-sonnet-5", api_key="k"), openrouter, "openrouter"
    ),
    "deepseek": Speaker(
        llm.compatible("deepseek-v4", base_url="https://api.deepseek.com", api_key="k"),
        deepseek,
        "deepseek",
    ),
    "anthropic": Speaker(llm.anthropic("claude-sonnet-5", api_key="k"), anthropic, "anthropic"),
    "responses": Speaker(llm.openai_responses("gpt-5", api_key="k"), responses, "openai-responses"),
    "gemini": Speaker(llm.gemini("gemini-3-pro", api_key="k"), gemini, "gemini"),
    "gemini with ids": Speaker(llm.gemini("gemini-3-pro", api_key="k"), gemini_with_ids, "gemini"),
}


async def talk(*speakers: str, **params: Any) -> list[dict[str, Any]]:
    """Have each turn answered by the model named for it, through the front door; return the requests.

    Each of them is `checked`. There may be one speaker more than turns, who gets the last request.
    ``params`` are those of the requests to the last speaker.
    """
    history, bodies = [llm.system("Be brief.")], []
    for number, name in enumerate(speakers):
        speaker = SPEAKERS[name]
        turn = TURNS[number % len(TURNS)]
        asked = turn.asked if number < len(TURNS) else LAST
        history += [llm.user(asked)] if asked else []
        transport = ScriptedTransport(reply(*speaker.stream(number, turn)))
        async with llm.open_client(transport=transport) as client:
            given = params if name == speakers[-1] else {}
            answer = await client.complete(speaker.model, history, **given)
        assert answer.outcome is llm.Outcome.FINISHED
        assert not answer.notes
        assert answer.content == turn.text
        checked(speaker, transport.bodies[0])
        bodies += transport.bodies
        history.append(answer.to_message())
        for call, (function, _, result) in zip(answer.tool_calls, turn.calls, strict=True):
            assert call.name == function
            history.append(llm.tool_result(call, result))
    return bodies


def checked(speaker: Speaker, body: dict[str, Any]) -> None:
    """Raise unless a request has the shape of its API."""
    SHAPES[speaker.shape](body)
    if speaker.shape == "gemini":
        signed(body)
