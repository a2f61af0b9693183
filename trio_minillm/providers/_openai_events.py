"""The events of OpenAI chat completions as structs, and their reading where they differ from that.

`decode` is strict and fast; `decode_loosely` reads what it refuses, field by field. Only fields that
are used are declared: msgspec skips the others without building them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from .._types.chunks import StreamChunk
from .._types.errors import ProtocolError
from . import _coerce as coerce

MAX_ENTRIES: Final = 4096
"""Most choices, content parts, tool calls or reasoning details in one event. Real events have a few;
each becomes an object, and a hundred thousand would hold up every other task for a second."""

_Entry = TypeVar("_Entry")
_ABSENT = msgspec.Raw()


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra_content: dict[str, Any] | None = None


class Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_text: str | None = None
    thinking: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    annotations: list[dict[str, Any]] | None = None
    audio: dict[str, Any] | None = None
    images: list[dict[str, Any]] | None = None
    usage: Any = None
    error: Any = None


class ChoiceEvent(msgspec.Struct, gc=False):
    delta: Delta | None = None
    finish_reason: Any = None
    index: int | None = 0
    logprobs: dict[str, Any] | None = None
    native_finish_reason: str | None = None
    error: Any = None
    message: msgspec.Raw = _ABSENT
    usage: Any = None
    text: str | None = None


class Groq(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None
    error: Any = None


class ChunkEvent(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[ChoiceEvent] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    x_groq: Groq | None = None
    provider: Any = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    citations: msgspec.Raw = _ABSENT
    search_results: msgspec.Raw = _ABSENT
    timings: msgspec.Raw = _ABSENT


decode = msgspec.json.Decoder(ChunkEvent).decode
decode_delta = msgspec.json.Decoder(Delta).decode


# -- other shapes ----------------------------------------------------------------------------


def decode_loosely(data: bytes) -> tuple[ChunkEvent, list[str]]:
    """Read an event that `decode` refused. Return it, and the names of the fields left out.

    Raises `msgspec.DecodeError` for what is no JSON, and `ProtocolError` for a
    field of the answer itself that can't be read.
    """
    left_out: list[str] = []
    return _read_chunk(coerce.loose_object(data, left_out), "", left_out), left_out


def loose_delta(message: Any) -> tuple[Delta, list[str]]:
    """Read the message of a whole answer as a delta, like `decode_loosely`."""
    left_out: list[str] = []
    return _read_delta(message, "message", left_out) or Delta(), left_out


def _content(value: Any, where: str, left_out: list[str]) -> Any:
    if isinstance(value, Mapping):
        if value.get("type") is None and text_within(value) is None:
            raise ProtocolError(f"{where} is not text")
        value = [value]
    return value if isinstance(value, list) else coerce.piece(value, where, left_out)


def _reasoning(value: Any, where: str, left_out: list[str]) -> str | None:
    """Read reasoning: text, an object with text, or a list of those."""
    if isinstance(value, list | Mapping):
        found = text_within(value)
        if found is None:
            left_out.append(where)
        return found
    return coerce.side_piece(value, where, left_out)


def _arguments(value: Any, where: str, left_out: list[str]) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return coerce.clean(value)
    # No object: the call will be an invalid one.
    return msgspec.json.encode(coerce.clean(value)).decode()


def _details(value: Any, where: str, left_out: list[str]) -> list[dict[str, Any]]:
    return bounded(coerce.side_objects(value, where, left_out))


def _delta_or_text(value: Any, where: str, left_out: list[str]) -> Any:
    """Read a delta; bare text in its place is its content."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return Delta(content=coerce.piece(value, where, left_out))
    return _read_delta(value, where, left_out)


_read_function = coerce.fields(Function, {"name": coerce.text, "arguments": _arguments})
_read_custom = coerce.fields(Custom, {"name": coerce.text, "input": coerce.piece})
_read_call = coerce.fields(
    Call,
    {
        "index": coerce.number,
        "id": coerce.side_text,
        "type": coerce.side_text,
        "function": _read_function,
        "custom": _read_custom,
        "extra_content": coerce.side_object,
    },
)
_read_delta = coerce.fields(
    Delta,
    {
        "content": _content,
        "reasoning_content": _reasoning,
        "reasoning": _reasoning,
        "reasoning_text": _reasoning,
        "thinking": _reasoning,
        "reasoning_details": _details,
        "refusal": coerce.piece,
        "tool_calls": coerce.each(_read_call, MAX_ENTRIES),
        "function_call": _read_function,
        "annotations": coerce.side_objects,
        "audio": coerce.side_object,
        "images": coerce.side_objects,
        "usage": coerce.side_object,
        "error": coerce.anything,
    },
)
_read_choice = coerce.fields(
    ChoiceEvent,
    {
        "delta": _delta_or_text,
        "finish_reason": coerce.anything,
        "index": coerce.number,
        "logprobs": coerce.side_object,
        "native_finish_reason": coerce.side_text,
        "error": coerce.anything,
        "message": coerce.raw,
        "usage": coerce.side_object,
        "text": coerce.piece,
    },
)
_read_groq = coerce.fields(Groq, {"usage": coerce.side_object, "error": coerce.anything})


def _groq(value: Any, where: str, left_out: list[str]) -> Any:
    return _read_groq(coerce.side_object(value, where, left_out), where, left_out)


_read_chunk = coerce.fields(
    ChunkEvent,
    {
        "id": coerce.side_text,
        "model": coerce.side_text,
        "choices": coerce.each(_read_choice, MAX_ENTRIES),
        "usage": coerce.side_object,
        "error": coerce.anything,
        "x_groq": _groq,
        "provider": coerce.anything,
        "service_tier": coerce.side_text,
        "system_fingerprint": coerce.side_text,
        "citations": coerce.raw,
        "search_results": coerce.raw,
        "timings": coerce.raw,
    },
)


# -- parts -----------------------------------------------------------------------------------


def bounded(entries: list[_Entry]) -> list[_Entry]:
    """Return the list, or raise `ProtocolError` if it has more than `MAX_ENTRIES`."""
    if len(entries) > MAX_ENTRIES:
        raise ProtocolError(
            f"one event lists more than {MAX_ENTRIES:,} choices, parts, calls or details"
        )
    return entries


_TEXTS = ("text", "thinking", "reasoning", "reasoning_content", "summary", "content", "value")
"""Fields in which servers put the text of a part or of a reasoning object."""


def text_within(value: Any, depth: int = 4) -> str | None:
    """Return the text in a part: text, an object with text in one of its fields, or a list of those.

    ``None`` if there is none to be found.
    """
    if isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        found = [text_within(entry, depth - 1) for entry in bounded(value)]
        return None if None in found else "".join(filter(None, found))
    if depth and isinstance(value, Mapping):
        for key in _TEXTS:
            if value.get(key) is not None:
                return text_within(value[key], depth - 1)
        return "" if value.keys() <= {"type", "signature", "index", "id", "format"} else None
    return None


def add_parts(content: list[Any], out: StreamChunk) -> None:
    """Add content that came as a list: Mistral's and Databricks' text and thinking parts, refusals,
    pictures, and references beside them.

    Raises `ProtocolError` for a text part whose text can't be read.
    """
    said: list[str] = []
    thought: list[str] = []
    others: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for part in bounded(content):
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        if kind in ("text", "output_text", "input_text", None):
            said.append(_text_of(part))
        elif kind in ("thinking", "reasoning", "reasoning_text", "summary_text"):
            found = text_within(part)
            if found is None and part.get(kind) is not None:
                out.unread = (*out.unread, f"a content part of type {kind}")
            thought.append(found or "")
        elif kind == "refusal":
            out.refusal += text_within(part.get("refusal")) or ""
        elif kind == "image_url":
            images.append(coerce.clean(part))
        else:
            others.append(coerce.clean(part))
    out.delta += "".join(said)
    out.reasoning += "".join(thought)
    out.images = (*out.images, *images)
    out.annotations = (*out.annotations, *others)


def _text_of(part: Any) -> str:
    """Return the text of a text part, or of bare text in its place."""
    value = part.get("text") if isinstance(part, Mapping) else part
    if value is None:
        return ""
    if isinstance(value, int | float):
        return msgspec.json.encode(value).decode()
    found = text_within(value)
    if found is None:
        raise ProtocolError("the text of choices[].delta.content[] is not text")
    return found


def visible(details: Iterable[Mapping[str, Any]]) -> str:
    """Return the readable text of OpenRouter's reasoning blocks."""
    found = (detail.get("text") or detail.get("summary") for detail in details)
    return "".join(text for text in found if isinstance(text, str))
