"""Ordinary events of OpenAI chat completions: the short way from their JSON to a chunk.

Most events that no template reads (`trio_minillm._protocol.templates`) are the opening, the pieces of
calls, the finish reason and the usage, with no fields but those of the reference and of well-known
servers, each in its place. What `OpenAIChat` asks of any other event is settled for these by their
shape: there is no other field in which something could stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .._types.chunks import StreamChunk
from .._types.usage import Usage
from ._openai_choices import advances, call_deltas, take_facts
from ._openai_events import Call
from ._reasons import USUAL_REASONS

_ABSENT = msgspec.Raw()
_OBJECTS = ("chat.completion.chunk", "")


class _Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: str | None = None
    content: str | None = None
    tool_calls: list[Call] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    function_call: None = None


class _Choice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    delta: _Delta
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    native_finish_reason: str | None = None
    stop_reason: msgspec.Raw = _ABSENT  # vLLM's, as the next
    token_ids: msgspec.Raw = _ABSENT


class _Event(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    choices: list[_Choice]
    id: str | None = None
    object: str = ""
    created: msgspec.Raw = _ABSENT
    model: str | None = None
    usage: dict[str, Any] | None = None
    provider: Any = None
    service_tier: Any = None
    system_fingerprint: str | None = None
    obfuscation: msgspec.Raw = _ABSENT


_decode = msgspec.json.Decoder(_Event).decode


def ordinary_chunk(data: bytes, told: Callable[[Any], Usage | None]) -> StreamChunk | None:
    """Return the chunk of an ordinary event, or ``None`` for any other.

    ``told`` reads a usage object; it returns ``None`` for one that says nothing.
    """
    try:
        event = _decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    choices, usage = event.choices, event.usage
    if len(choices) > 1 or event.object not in _OBJECTS:
        return None
    read = told(usage) if usage else None
    if choices:
        if (out := _chunk_of(choices[0], event, read)) is None:
            return None
    elif usage:
        out = StreamChunk(
            usage=read, id=event.id, model=event.model, progress=read is not None, answer=False
        )
    else:
        return None
    edge = not out.delta or read is not None or out.finish_reason is not None
    if edge and (event.provider or event.service_tier or event.system_fingerprint):
        take_facts(event, out)
    return out


def _chunk_of(choice: _Choice, event: _Event, usage: Usage | None) -> StreamChunk | None:
    """Return what a choice says; ``None`` if it is for `chunk_of` to find out."""
    delta, reason, native = choice.delta, choice.finish_reason, choice.native_finish_reason
    if (reason is not None and reason not in USUAL_REASONS) or choice.index < 0:
        return None
    out = StreamChunk(
        delta.content or "",
        delta.reasoning or delta.reasoning_content or "",
        "",
        call_deltas(delta.tool_calls) if delta.tool_calls else (),
        reason,
        usage,
        event.id,
        event.model,
        choice.index,
    )
    if choice.logprobs:
        out.logprobs = choice.logprobs
    if native:
        if native not in USUAL_REASONS:
            return None
        out.metadata = {"native_finish_reason": native}
    if not (out.delta or reason or usage):
        out.progress = advances(out)
    return out
