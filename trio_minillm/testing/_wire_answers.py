"""Answers in each known wire format: the events of a stream, and the bodies of whole responses.

Those of OpenAI's Responses are in `_responses_answers`.
"""

from __future__ import annotations

from itertools import count
from typing import Any, TypeAlias

import msgspec

from .._types.usage import Usage
from ._answer_parts import AnswerPart, Block, Blocks

JSON: TypeAlias = dict[str, Any]


def sse(data: Any, event: str | None = None) -> bytes:
    """Return one server-sent event. Text in ``data`` is sent unchanged, and anything else as JSON.

    ``event`` is the name of the event.
    """
    text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {text}\n\n".encode()


def known(**counts: Any) -> JSON:
    """Return the counts that are known; details without any are left out."""
    return {name: value for name, value in counts.items() if value is not None and value != {}}


# -- OpenAI's chat completions ---------------------------------------------------------------------

_OPENAI_REASONS: dict[str, str] = {}
_OPENAI_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "test-model-1"}


def openai_events(
    *parts: AnswerPart,
    finish: str | None = "auto",
    usage: Usage | bool = True,
    done: bool = True,
) -> list[bytes]:
    """Return the events of an OpenAI chat-completions stream, one ``bytes`` each.

    - ``parts`` are texts, `reasoning`, and `tool_call`, in order.
    - ``finish`` is the finish reason. By default, it is ``tool_calls`` if there are calls, and
      ``stop`` otherwise. With ``None``, there is none.
    - ``usage`` says whether there is usage, and may be a `Usage`.
    - ``done`` says whether ``[DONE]`` ends the stream.
    """
    blocks = Blocks(parts)

    def choice(delta: JSON, reason: str | None = None) -> bytes:
        inner = {"index": 0, "delta": delta, "finish_reason": reason}
        return sse({**_OPENAI_HEAD, "choices": [inner]})

    events = [choice({"role": "assistant", "content": ""})]
    for block in blocks.all:
        if block.kind == "call":
            opened = {"index": block.number, **_openai_call(block, "")}
            more = {"index": block.number, "function": {"arguments": block.text}}
            events += [choice({"tool_calls": [opened]}), choice({"tool_calls": [more]})]
        else:
            field = "content" if block.kind == "text" else "reasoning_content"
            events += [choice({field: piece}) for piece in block.pieces]
    reason = blocks.reason(finish, _OPENAI_REASONS)
    if reason is not None:
        events.append(choice({}, reason))
    if usage:
        counts = openai_counts(blocks.usage(usage))
        events.append(sse({**_OPENAI_HEAD, "choices": [], "usage": counts}))
    return [*events, sse("[DONE]")] if done else events


def openai_body(blocks: Blocks, finish: str, usage: Usage | bool) -> JSON:
    """Return a whole chat completion."""
    said = blocks.text_of("text")
    turn: JSON = {"role": "assistant", "content": None if blocks.calls and not said else said}
    if thought := blocks.text_of("reasoning"):
        turn["reasoning_content"] = thought
    if blocks.calls:
        turn["tool_calls"] = [_openai_call(block, block.text) for block in blocks.calls]
    reason = blocks.reason(finish, _OPENAI_REASONS)
    body: JSON = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0}
    body |= {"model": "test-model-1", "usage": openai_counts(blocks.usage(usage))}
    return body | {"choices": [{"index": 0, "message": turn, "finish_reason": reason}]}


def _openai_call(block: Block, arguments: str) -> JSON:
    function = {"name": block.call.name, "arguments": arguments}
    return {"id": block.call.id, "type": "function", "function": function}


def openai_counts(usage: Usage) -> JSON:
    """Return a usage in the words of OpenAI's chat completions, and OpenRouter's."""
    given = known(
        cached_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        audio_tokens=usage.audio_input_tokens,
    )
    made = known(reasoning_tokens=usage.reasoning_tokens, audio_tokens=usage.audio_output_tokens)
    return known(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=given,
        completion_tokens_details=made,
        cost=usage.cost,
    )


# -- text completions ------------------------------------------------------------------------------


def text_events(
    *parts: AnswerPart,
    finish: str | None = "stop",
    usage: Usage | bool = True,
    done: bool = True,
) -> list[bytes]:
    """Return the events of a stream of text completions, one ``bytes`` each.

    The arguments are as for `openai_events`. The finish reason comes with an empty text, as from
    most servers. Raises ``ValueError`` for parts other than text.
    """
    blocks = Blocks(parts)
    blocks.only_text("text completions")
    head = {"id": "cmpl-1", "object": "text_completion", "created": 0, "model": "test-model-1"}

    def choice(text: str, reason: str | None = None) -> bytes:
        return sse({**head, "choices": [_continued(text, reason)]})

    events = [choice(piece) for block in blocks.all for piece in block.pieces]
    reason = blocks.reason(finish, _OPENAI_REASONS)
    if reason is not None:
        events.append(choice("", reason))
    if usage:
        counts = openai_counts(blocks.usage(usage))
        events.append(sse({**head, "choices": [], "usage": counts}))
    return [*events, sse("[DONE]")] if done else events


def text_body(blocks: Blocks, finish: str, usage: Usage | bool) -> JSON:
    """Return a whole text completion."""
    blocks.only_text("text completions")
    reason = blocks.reason(finish, _OPENAI_REASONS)
    body: JSON = {"id": "cmpl-1", "object": "text_completion", "created": 0}
    body |= {"model": "test-model-1", "usage": openai_counts(blocks.usage(usage))}
    return body | {"choices": [_continued(blocks.text_of("text"), reason)]}


def _continued(text: str, reason: str | None) -> JSON:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


# -- Anthropic's Messages --------------------------------------------------------------------------

_ANTHROPIC_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def anthropic_events(
    *parts: AnswerPart, stop: str | None = "auto", usage: Usage | bool = True
) -> list[bytes]:
    """Return the events of an Anthropic Messages stream, one ``bytes`` each.

    ``parts`` and ``usage`` are as for `openai_events`. ``stop`` is the stop reason: by default
    ``tool_use`` if there are calls, and ``end_turn`` otherwise. With ``None``, the stream has no
    end.
    """
    blocks = Blocks(parts)

    def event(kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, **fields}, kind)

    counts = _anthropic_counts(blocks.usage(usage)) if usage else {}
    made = counts.pop("output_tokens", None)
    opening = {**counts, "output_tokens": 1} if usage else {}
    message = {"id": "msg_1", "model": "claude-test", "content": [], "usage": opening}
    events = [event("message_start", message=message)]
    for index, block in enumerate(blocks.all):
        opened, deltas = _anthropic_block(block)
        events.append(event("content_block_start", index=index, content_block=opened))
        events += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        events.append(event("content_block_stop", index=index))
    reason = blocks.reason(stop, _ANTHROPIC_REASONS)
    if reason is not None:
        last = known(output_tokens=made)
        events.append(event("message_delta", delta={"stop_reason": reason}, usage=last))
        events.append(event("message_stop"))
    return events


def _anthropic_block(block: Block) -> tuple[JSON, list[JSON]]:
    """Return a block as it begins, and its pieces."""
    if block.kind == "text":
        texts = [{"type": "text_delta", "text": piece} for piece in block.pieces]
        return {"type": "text", "text": ""}, texts
    if block.kind == "call":
        opened = {"type": "tool_use", "id": block.call.id, "name": block.call.name, "input": {}}
        return opened, [{"type": "input_json_delta", "partial_json": block.text}]
    thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in block.pieces]
    if block.signature is not None:
        thoughts.append({"type": "signature_delta", "signature": block.signature})
    return {"type": "thinking", "thinking": "", "signature": ""}, thoughts


def anthropic_body(blocks: Blocks, finish: str, usage: Usage | bool) -> JSON:
    """Return a whole message."""
    content: list[JSON] = []
    for block in blocks.all:
        opened, _ = _anthropic_block(block)
        if block.kind == "text":
            content.append(opened | {"text": block.text})
        elif block.kind == "call":
            content.append(opened | {"input": _arguments(block)})
        else:
            content.append(opened | {"thinking": block.text, "signature": block.signature or ""})
    body: JSON = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test"}
    body |= {"content": content, "usage": _anthropic_counts(blocks.usage(usage))}
    reason = blocks.reason(finish, _ANTHROPIC_REASONS)
    return body | {"stop_reason": reason, "stop_sequence": None}


def _anthropic_counts(usage: Usage) -> JSON:
    return known(
        input_tokens=usage.uncached_input_tokens,
        cache_read_input_tokens=usage.cache_read_tokens,
        cache_creation_input_tokens=usage.cache_write_tokens,
        output_tokens=usage.completion_tokens,
        output_tokens_details=known(thinking_tokens=usage.reasoning_tokens),
    )


def _arguments(block: Block) -> Any:
    """Return the arguments of a call as JSON. Raises ``ValueError`` if they are not."""
    try:
        return msgspec.json.decode(block.text)
    except msgspec.DecodeError:
        where = f"of {block.call.name}: this wire format sends no text that is not JSON"
        raise ValueError(f"the arguments {where}") from None


# -- Gemini's --------------------------------------------------------------------------------------

_GEMINI_REASONS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}


def gemini_events(
    *parts: AnswerPart, finish: str | None = "auto", usage: Usage | bool = True
) -> list[bytes]:
    """Return the events of a stream in Gemini's own format, one ``bytes`` each. There is no end
    event.

    ``parts`` and ``usage`` are as for `openai_events`; the arguments of a call must be JSON.
    ``finish`` is the finish reason, ``STOP`` by default, which has a separate event without
    content.
    """
    blocks = Blocks(parts)
    numbers = count(1)

    def event(part: JSON, made: int, **fields: Any) -> bytes:
        content = {"parts": [part], "role": "model"}
        data: JSON = {"candidates": [{"content": content, "index": 0, **fields}]}
        if usage:
            counts = usage
            if not isinstance(counts, Usage):
                counts = msgspec.structs.replace(whole, completion_tokens=made)
            data["usageMetadata"] = _gemini_counts(counts)
        return sse({**data, "modelVersion": "gemini-test-1", "responseId": "gemini-1"})

    whole = blocks.usage(usage)
    events = [event(part, next(numbers)) for block in blocks.all for part in _gemini_parts(block)]
    reason = blocks.reason(finish, _GEMINI_REASONS)
    if reason is None:
        return events
    return [*events, event({"text": ""}, blocks.pieces, finishReason=reason)]


def gemini_body(blocks: Blocks, finish: str, usage: Usage | bool) -> JSON:
    """Return a whole answer of ``generateContent``."""
    if [block.kind for block in blocks.all] == ["text"]:
        parts: list[JSON] = [{"text": blocks.all[0].text}]
    else:
        parts = [part for block in blocks.all for part in _gemini_parts(block)]
    content = {"parts": parts, "role": "model"}
    reason = blocks.reason(finish, _GEMINI_REASONS)
    body: JSON = {"candidates": [{"content": content, "finishReason": reason}]}
    counts = _gemini_counts(blocks.usage(usage))
    return body | {"usageMetadata": counts, "modelVersion": "gemini-test-1"}


def _gemini_parts(block: Block) -> list[JSON]:
    signed = known(thoughtSignature=block.signature)
    if block.kind == "call":
        call = {"id": block.call.id, "name": block.call.name, "args": _arguments(block)}
        return [{"functionCall": call}]
    if block.kind == "reasoning":
        return [{"text": piece, "thought": True, **signed} for piece in block.pieces]
    return [{"text": piece} for piece in block.pieces]


def _gemini_counts(usage: Usage) -> JSON:
    made, thought = usage.completion_tokens, usage.reasoning_tokens
    counts = {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": None if made is None else made - (thought or 0),
        "totalTokenCount": usage.total_tokens,
        "cachedContentTokenCount": usage.cache_read_tokens,
        "thoughtsTokenCount": thought,
    }
    return {name: number for name, number in counts.items() if number}  # as Google's JSON has them
