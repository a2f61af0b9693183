"""Answers in the format of OpenAI's Responses: the events of a stream, and whole responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TypeAlias

from .._types.usage import Usage
from ._answer_parts import AnswerPart, Block, Blocks
from ._wire_answers import JSON, known, sse

_REASONS = {
    "stop": "completed",
    "tool_calls": "completed",
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
_Event: TypeAlias = Callable[..., bytes]


def responses_events(
    *parts: AnswerPart, status: str | None = "completed", usage: Usage | bool = True
) -> list[bytes]:
    """Return the events of an OpenAI Responses stream, one ``bytes`` each.

    ``parts`` and ``usage`` are as for `openai_events`. ``status`` is the status of the response;
    ``"incomplete"`` is a cut answer. With ``None``, the last part stays open and the stream has no
    end.
    """
    reason = "max_output_tokens" if status == "incomplete" else None
    return _events(Blocks(parts), status, reason, usage)


def responses_answer(blocks: Blocks, finish: str, usage: Usage | bool) -> list[bytes]:
    """Return the events of an answer that ends for this reason."""
    return _events(blocks, *_status(blocks, finish), usage)


def responses_body(blocks: Blocks, finish: str, usage: Usage | bool) -> JSON:
    """Return a whole response."""
    return _response(blocks, *_status(blocks, finish), usage)


def _status(blocks: Blocks, finish: str) -> tuple[str, str | None]:
    reason = blocks.reason(finish, _REASONS)
    return ("completed", None) if reason == "completed" else ("incomplete", reason)


def _events(
    blocks: Blocks, status: str | None, reason: str | None, usage: Usage | bool
) -> list[bytes]:
    numbers = count()

    def event(kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, "sequence_number": next(numbers), **fields}, kind)

    events = [
        event("response.created", response=_response(blocks, "in_progress", None, usage)),
        event("response.in_progress", response=_response(blocks, "in_progress", None, usage)),
    ]
    for index, block in enumerate(blocks.all):
        is_open = status is None and block is blocks.all[-1]
        done = None if is_open else _item(block, index, status or "completed")
        events += _item_events(event, block, index, done)
    if status is not None:
        whole = _response(blocks, status, reason, usage)
        events.append(event(f"response.{status}", response=whole))
    return events


def _item_events(event: _Event, block: Block, index: int, done: JSON | None) -> Iterator[bytes]:
    """Yield the events of one item; without an end if there is no ``done``."""
    opened = _item(block, index, "in_progress")
    place = {"output_index": index, "item_id": opened["id"]}
    yield event("response.output_item.added", output_index=index, item=opened)
    if block.kind == "call":
        yield event("response.function_call_arguments.delta", **place, delta=block.text)
        if done is not None:
            yield event("response.function_call_arguments.done", **place, arguments=block.text)
    else:
        text, part, where, kind = _NAMES[block.kind]
        place[where] = 0
        yield event(f"response.{part}.added", **place, part=_part(kind, ""))
        for piece in block.pieces:
            yield event(f"response.{text}.delta", **place, delta=piece)
        if done is not None:
            yield event(f"response.{text}.done", **place, text=block.text)
            whole = _part(kind, block.text)
            yield event(f"response.{part}.done", **place, part=whole)
    if done is not None:
        yield event("response.output_item.done", output_index=index, item=done)


_NAMES = {
    "text": ("output_text", "content_part", "content_index", "output_text"),
    "reasoning": (
        "reasoning_summary_text",
        "reasoning_summary_part",
        "summary_index",
        "summary_text",
    ),
}
"""The names of a text's events, of its part's, of the part's number, and the part's type."""


def _part(kind: str, text: str) -> JSON:
    part: JSON = {"type": kind, "text": text}
    return part | {"annotations": []} if kind == "output_text" else part


def _item(block: Block, index: int, status: str) -> JSON:
    """Return an item; what is in progress has nothing in it."""
    begins, number = status == "in_progress", index + 1
    if block.kind == "call":
        item: JSON = {"id": f"fc_{number}", "type": "function_call", "call_id": block.call.id}
        return item | {"name": block.call.name, "arguments": "" if begins else block.text}
    if block.kind == "reasoning":
        summary = [] if begins else [_part("summary_text", block.text)]
        return {"id": f"rs_{number}", "type": "reasoning", "summary": summary}
    item = {"id": f"msg_{number}", "type": "message", "role": "assistant"}
    if begins:
        return item | {"content": []}
    return item | {"status": status, "content": [_part("output_text", block.text)]}


def _response(blocks: Blocks, status: str, reason: str | None, usage: Usage | bool) -> JSON:
    """Return a response; it has output only once it has ended."""
    made: JSON = {"id": "resp_1", "object": "response", "created_at": 0}
    made |= {"model": "test-model-1", "status": status, "error": None, "output": [], "usage": None}
    if status != "in_progress":
        output = [_item(block, i, status) for i, block in enumerate(blocks.all)]
        counts = _counts(blocks.usage(usage)) if usage else None
        made |= {"output": output, "usage": counts}
    if reason is not None:
        made["incomplete_details"] = {"reason": reason}
    return made


def _counts(usage: Usage) -> JSON:
    return known(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=known(cached_tokens=usage.cache_read_tokens),
        output_tokens_details=known(reasoning_tokens=usage.reasoning_tokens),
    )
