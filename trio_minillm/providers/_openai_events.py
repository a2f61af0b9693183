"""The events of OpenAI chat completions as structs, and their reading where they differ from that.

`decode` is strict and fast; `decode_loosely` reads what it refuses, field by field. Only fields that
are used are declared: msgspec skips the others without building them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .._types.errors import ProtocolError
from . import _coerce as coerce
from ._parts import MAX_ENTRIES, bounded, text_within

_ABSENT = msgspec.Raw()


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    parameters: Any = None
    args: Any = None
    input: Any = None


class Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    parameters: Any = None
    args: Any = None
    input: Any = None
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
    reasoning: str | None = None  # OpenRouter's, beside the text


class Groq(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None
    error: Any = None


class ChunkEvent(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[ChoiceEvent] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    code: Any = None
    base_resp: Any = None
    header: Any = None
    cost: Any = None
    x_groq: Groq | None = None
    provider: Any = None
    service_tier: Any = None
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


def _refusal(value: Any, where: str, left_out: list[str]) -> str | None:
    """Read a refusal: text, an object with text, or a list of those."""
    return text_within(value) or coerce.piece(value, where, left_out)


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


_ARGUMENTS = dict.fromkeys(("arguments", "parameters", "args", "input"), _arguments)
"""Names of a call's arguments; but for the first, those of servers that take other wires'."""
_read_function = coerce.fields(Function, {"name": coerce.text, **_ARGUMENTS})
_read_custom = coerce.fields(Custom, {"name": coerce.text, "input": coerce.piece})
_read_call = coerce.fields(
    Call,
    {
        "index": coerce.number,
        "id": coerce.side_text,
        "type": coerce.side_text,
        "function": _read_function,
        "custom": _read_custom,
        "name": coerce.text,
        **_ARGUMENTS,
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
        "refusal": _refusal,
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
        "text": coerce.side_piece,
        "reasoning": _reasoning,
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
        "code": coerce.anything,
        "base_resp": coerce.anything,
        "header": coerce.anything,
        "cost": coerce.anything,
        "x_groq": _groq,
        "provider": coerce.anything,
        "service_tier": coerce.anything,
        "system_fingerprint": coerce.side_text,
        "citations": coerce.raw,
        "search_results": coerce.raw,
        "timings": coerce.raw,
    },
)
