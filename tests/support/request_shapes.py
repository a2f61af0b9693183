"""Strict checks of requests: the shape that each API documents, and what it is known to refuse.

They are written from the vendors' references, not from the code that builds requests. What a vendor
refuses is an `AssertionError` here, and so is a field that the reference does not have. Only what our
own histories hold is known: no hosted tools but those that are passed on as they came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

Object = dict[str, Any]
Shape = Callable[[Object], None]


def fields(found: Object, needed: str, optional: str = "") -> None:
    """Raise unless an object has all needed fields, and none but the optional ones beside them."""
    assert set(needed.split()) <= found.keys(), f"of {sorted(found)}, not all of {needed}"
    assert not (more := found.keys() - set(f"{needed} {optional}".split())), f"unknown: {more}"


def words(text: Any) -> None:
    """Raise unless it is text that can be seen."""
    assert isinstance(text, str)
    assert text.strip()


def json_object(text: Any) -> None:
    assert isinstance(json.loads(text), dict)


NAME = "[a-zA-Z0-9_-]{1,64}"


class Calls:
    """The calls of a conversation: each has an id of its own, and its result before all else."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.due: list[str] = []

    def made(self, idents: Iterable[str]) -> None:
        for ident in idents:
            assert ident
            assert ident not in self.seen, "ids are unique in a conversation"
            self.seen.add(ident)
            self.due.append(ident)

    def answered(self, idents: Iterable[str]) -> None:
        for ident in idents:
            assert self.due, "a result without a call"
            assert ident == self.due.pop(0), "results stand in the order of their calls"

    def none_left(self) -> None:
        assert not self.due, "each call has its result directly behind it"


# -- OpenAI's chat completions -----------------------------------------------------------------


def chat(body: Object, more: str = "") -> None:
    """The request of ``/v1/chat/completions`` (openai-openapi: CreateChatCompletionRequest).

    ``more`` are fields in which another server wants its reasoning back.
    """
    fields(body, "model messages stream", "stream_options tools max_completion_tokens store")
    calls = Calls()
    for message in body["messages"]:
        role = message["role"]
        if role == "tool":
            fields(message, "role tool_call_id content")
            calls.answered([message["tool_call_id"]])
            _chat_content(message["content"], ("text",))
            continue
        calls.none_left()
        if role == "assistant":
            _chat_answer(message, calls, more)
            continue
        assert role in ("system", "developer", "user")
        fields(message, "role content", "name")
        words(message.get("name", "x"))
        _chat_content(message["content"], ("text", "image_url", "input_audio", "file"))
    calls.none_left()


def _chat_content(content: Any, kinds: tuple[str, ...]) -> None:
    if isinstance(content, str):
        return
    assert content
    for part in content:
        fields(part, f"type {part['type']}")
        assert part["type"] in kinds


def _chat_answer(message: Object, calls: Calls, more: str) -> None:
    fields(message, "role", f"content refusal tool_calls name {more}")
    made = message.get("tool_calls")
    assert made is None or made, "an empty list is refused"
    assert isinstance(message.get("content"), str) or made or message.get("refusal")
    for call in made or ():
        kind = call["type"]
        fields(call, f"id type {kind}")
        assert more or len(call["id"]) <= 40
        assert re.fullmatch(NAME, call[kind]["name"])
        if kind == "function":
            fields(call["function"], "name arguments")
            json_object(call["function"]["arguments"])
        else:
            assert kind == "custom"
            fields(call["custom"], "name input")
    calls.made(call["id"] for call in made or ())


# -- Anthropic's Messages ----------------------------------------------------------------------

_RESULTS = "text image document search_result"
_BLOCKS: dict[str, tuple[str, str]] = {
    "text": ("type text", "citations cache_control"),
    "thinking": ("type thinking signature", ""),
    "redacted_thinking": ("type data", ""),
    "tool_use": ("type id name input", "caller cache_control"),
    "tool_result": ("type tool_use_id", "content is_error cache_control"),
    "image": ("type source", "cache_control"),
    "document": ("type source", "title context citations cache_control"),
}
"""Blocks that are checked: their needed and their optional fields (API reference, Messages)."""


def messages(body: Object, *, signatures: bool = True) -> None:
    """The request of ``/v1/messages``, as Anthropic itself takes it; other servers check no
    ``signatures``, and take a turn that ends in thought.
    """
    fields(body, "model messages max_tokens stream", "system tools thinking")
    if "system" in body:
        words(body["system"]) if isinstance(body["system"], str) else _blocks(
            body["system"], signatures
        )
    calls = Calls()
    for number, message in enumerate(body["messages"]):
        fields(message, "role content")
        assert message["role"] == ("user", "assistant")[number % 2], "the roles alternate"
        blocks = message["content"]
        if isinstance(blocks, str):
            words(blocks)
            blocks = [{"type": "text", "text": blocks}]
        _blocks(blocks, signatures)
        kinds = [block["type"] for block in blocks]
        results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
        assert kinds[: len(results)] == ["tool_result"] * len(results), "results come first"
        calls.answered(results)
        calls.none_left()
        if message["role"] == "user":
            assert not {"tool_use", "thinking", "redacted_thinking"} & set(kinds)
            continue
        assert not results
        thoughts = ("thinking", "redacted_thinking") if signatures else ()
        assert kinds[-1] not in thoughts, "a turn doesn't end in thought"
        calls.made(block["id"] for block in blocks if block["type"] == "tool_use")
    calls.none_left()
    if body.get("thinking", {}).get("type") == "enabled":
        _goes_on_in_thought(body["messages"])


def _goes_on_in_thought(turns: list[Object]) -> None:
    """Raise for a turn that goes on after tools' results, and did not begin with thinking."""
    begun = None
    for turn in turns:
        first = turn["content"][0] if isinstance(turn["content"], list) else {"type": "text"}
        if turn["role"] == "assistant":
            begun = begun or first["type"]
        elif first["type"] != "tool_result":
            begun = None
    assert begun in (None, "thinking", "redacted_thinking")


def _blocks(blocks: list[Object], signatures: bool) -> None:
    assert blocks
    for block in blocks:
        kind = block["type"]
        if kind not in _BLOCKS:  # of a hosted tool
            continue
        fields(block, *_BLOCKS[kind])
        if kind == "text":
            words(block["text"])
        elif kind == "thinking" and signatures:
            words(block["signature"])
        elif kind == "tool_use":
            assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", block["id"])
            assert re.fullmatch("[a-zA-Z0-9_-]{1,128}", block["name"])
            assert isinstance(block["input"], dict)
        elif kind == "tool_result" and isinstance(block.get("content"), list):
            assert all(part["type"] in _RESULTS.split() for part in block["content"])
            _blocks(block["content"], signatures)


# -- OpenAI's Responses ------------------------------------------------------------------------

_PREFIXES = {
    "reasoning": "rs_",
    "message": "msg_",
    "function_call": "fc_",
    "custom_tool_call": "ctc_",
}
"""Beginnings of the ids of items: "Expected an ID that begins with …" otherwise."""


def responses(body: Object, *, own: bool = True) -> None:
    """The request of ``/v1/responses`` (openai-openapi: CreateResponse), ``own`` if OpenAI itself is
    to take it, which looks at the ids.
    """
    fields(body, "model input stream", "tools store include reasoning max_output_tokens")
    calls = Calls()
    idents: set[str] = set()
    thinking = False
    for item in body["input"]:
        kind, role = item.get("type", "message"), item.get("role")
        ident = item.get("id")
        if ident and own:
            assert ident not in idents, "an item can be in the input once"
            idents.add(ident)
            assert len(ident) <= 64
            assert ident.startswith(_PREFIXES.get(kind, ""))
        if thinking:
            ours = kind.endswith("_output") or role not in (None, "assistant")
            assert not ours, "reasoning stands before the item that came of it"
            assert kind == "reasoning" or ident, "of which the id goes back, too"
        thinking = kind == "reasoning"
        if kind in ("function_call_output", "custom_tool_call_output"):
            fields(item, "type call_id output")
            calls.answered([item["call_id"]])
        elif kind in ("function_call", "custom_tool_call"):
            given = "arguments" if kind == "function_call" else "input"
            fields(item, f"type call_id name {given}", "id status namespace caller")
            assert re.fullmatch(NAME, item["name"])
            assert len(item["call_id"]) <= 64
            if kind == "function_call":
                json_object(item["arguments"])
            calls.made([item["call_id"]])
        elif kind == "reasoning":
            fields(item, "type id summary", "encrypted_content content status")
            assert body.get("store") is not False or item.get("encrypted_content"), "not stored"
        elif kind == "message":
            if role != "assistant":
                calls.none_left()
            _said(item)
    assert not thinking
    calls.none_left()


def _said(item: Object) -> None:
    role = item["role"]
    assert role in ("system", "developer", "user", "assistant")
    fields(item, "role content", "type id status phase")
    assert ("id" in item) == ("status" in item)
    content = item["content"]
    assert content
    for part in () if isinstance(content, str) else content:
        if role != "assistant":
            assert part["type"] in ("input_text", "input_image", "input_file", "input_audio")
        elif part["type"] == "output_text":
            fields(part, "type text annotations", "logprobs")
        else:
            fields(part, "type refusal")


# -- Gemini ------------------------------------------------------------------------------------

_DATA = "text inlineData fileData functionCall functionResponse executableCode codeExecutionResult"


def gemini(body: Object) -> None:
    """The request of ``streamGenerateContent`` (ai.google.dev/api: Content, Part; the guides to
    function calling and to thought signatures).
    """
    fields(body, "contents", "systemInstruction tools toolConfig generationConfig")
    if "systemInstruction" in body:
        fields(body["systemInstruction"], "parts")
        assert all(part.keys() == {"text"} for part in body["systemInstruction"]["parts"])
    due: list[tuple[str, Any]] = []
    for number, turn in enumerate(body["contents"]):
        fields(turn, "role parts")
        assert turn["role"] == ("user", "model")[number % 2], "the roles alternate"
        assert turn["parts"]
        for part in turn["parts"]:
            _part(part, turn["role"])
        results = [p["functionResponse"] for p in turn["parts"] if "functionResponse" in p]
        found = [(one["name"], one.get("id")) for one in results]
        assert found == due, "as many results as calls, of the same names and ids"
        calls = [p["functionCall"] for p in turn["parts"] if "functionCall" in p]
        due = [(one["name"], one.get("id")) for one in calls]
    assert not due


def signed(body: Object) -> None:
    """Raise unless the first call of each step has a signature, without which Gemini 3 answers 400."""
    for turn in body["contents"]:
        calls = [part for part in turn["parts"] if "functionCall" in part]
        assert not calls or calls[0].get("thoughtSignature")


def _part(part: Object, role: str) -> None:
    (kind,) = part.keys() - {"thought", "thoughtSignature"}
    assert kind in _DATA.split()
    assert kind != "functionResponse" or role == "user"
    if role == "user":
        assert part.keys() == {kind}
        assert kind != "functionCall"
    signature = part.get("thoughtSignature", "c2ln")
    words(signature)
    if kind == "text":
        assert part["text"] or "thoughtSignature" in part, "an empty text is refused"
    if kind == "functionCall":
        fields(part[kind], "name args", "id")
        assert isinstance(part[kind]["args"], dict)
    if kind == "functionResponse":
        fields(part[kind], "name response", "id parts")
        assert isinstance(part[kind]["response"], dict)
    if kind in ("functionCall", "functionResponse"):
        assert re.fullmatch("[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}", part[kind]["name"])


SHAPES: dict[str, Shape] = {
    "openai": chat,
    "openrouter": partial(chat, more="reasoning reasoning_details"),
    "deepseek": partial(chat, more="reasoning_content"),
    "anthropic": messages,
    "openai-responses": responses,
    "gemini": gemini,
}
"""The checks, by the names of their wires, or of servers that have a field more than the wire."""


# -- what is said ------------------------------------------------------------------------------


def said_in(wire: str, body: Object) -> list[tuple[str, ...]]:
    """Return what a request says, in the same words for all wires: without ids, and without thoughts."""
    out: list[tuple[str, ...]] = []
    for who, what, *more in _SAID[wire](body):
        if out and who in ("user", "model") and out[-1][0] == who:
            out[-1] = (who, out[-1][1] + what)
        elif what:
            out.append((who, what, *more))
    return out


Said = Iterable[tuple[str, ...]]


def _texts(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _values(arguments: Any) -> str:
    given = json.loads(arguments) if isinstance(arguments, str) else arguments
    return json.dumps(given, sort_keys=True)


def _chat_said(body: Object) -> Said:
    names: dict[str, str] = {}
    for message in body["messages"]:
        role, text = message["role"], _texts(message["content"])
        if role == "tool":
            yield "result", names[message["tool_call_id"]], text
        else:
            yield "model" if role == "assistant" else role, text
        for call in message.get("tool_calls", ()):
            function = call["function"]
            names[call["id"]] = function["name"]
            yield "call", function["name"], _values(function["arguments"])


def _messages_said(body: Object) -> Said:
    names: dict[str, str] = {}
    yield "system", _texts(body.get("system"))
    for message in body["messages"]:
        role, content = message["role"], message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block["type"] == "text":
                yield "model" if role == "assistant" else role, block["text"]
            elif block["type"] == "tool_use":
                names[block["id"]] = block["name"]
                yield "call", block["name"], _values(block["input"])
            elif block["type"] == "tool_result":
                yield "result", names[block["tool_use_id"]], _texts(block["content"])


def _responses_said(body: Object) -> Said:
    names: dict[str, str] = {}
    for item in body["input"]:
        kind, role = item.get("type", "message"), item.get("role")
        if kind == "message":
            yield "model" if role == "assistant" else role, _texts(item["content"])
        elif kind == "function_call":
            names[item["call_id"]] = item["name"]
            yield "call", item["name"], _values(item["arguments"])
        elif kind == "function_call_output":
            yield "result", names[item["call_id"]], _texts(item["output"])


def _gemini_said(body: Object) -> Said:
    yield "system", _texts(body.get("systemInstruction", {}).get("parts"))
    for turn in body["contents"]:
        for part in turn["parts"]:
            if part.get("thought"):
                continue
            if "text" in part:
                yield turn["role"], part["text"]
            elif "functionCall" in part:
                yield "call", part["functionCall"]["name"], _values(part["functionCall"]["args"])
            elif "functionResponse" in part:
                (result,) = part["functionResponse"]["response"].values()
                yield "result", part["functionResponse"]["name"], result


_SAID: dict[str, Callable[[Object], Said]] = {
    **dict.fromkeys(("openai", "openrouter", "deepseek"), _chat_said),
    "anthropic": _messages_said,
    "openai-responses": _responses_said,
    "gemini": _gemini_said,
}
