"""The events of Anthropic Messages as structs, and their reading where they differ from that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .._types.errors import ProtocolError
from .._types.usage import Usage
from ._coerce import (
    Reader,
    anything,
    clean,
    each,
    fields,
    loose_object,
    number,
    piece,
    side_object,
    side_piece,
    side_text,
    word,
)
from ._parts import text_within
from ._usage import anthropic_usage

MAX_BLOCKS = 4096
"""Content blocks in one message, as many as `Ingest` keeps."""


class Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: dict[str, Any] | None = None
    stop_reason: Any = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | None = None
    content: Any = None
    encrypted_content: str | None = None
    usage: Any = None
    error: Any = None
    finish_reason: Any = None


class Message(msgspec.Struct, gc=False):
    type: Any = None
    id: str | None = None
    model: str | None = None
    content: list[dict[str, Any]] | None = None
    stop_reason: Any = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


class Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int | None = None
    delta: Delta | None = None
    content_block: dict[str, Any] | None = None
    message: Message | str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    stop_reason: Any = None
    context_management: dict[str, Any] | None = None


class Kind(msgspec.Struct, gc=False):
    type: Any = None
    delta: Any = None
    error: Any = None


def _text(value: Any, where: str, left_out: list[str]) -> str | None:
    """Read a piece of text; an object or a list with text in it is that text."""
    if isinstance(value, list | Mapping) and (found := text_within(value)) is not None:
        return found
    return piece(value, where, left_out)


def _thought(value: Any, where: str, left_out: list[str]) -> str | None:
    if isinstance(value, list | Mapping) and (found := text_within(value)) is not None:
        return found
    return side_piece(value, where, left_out)


def _delta_or_text(value: Any, where: str, left_out: list[str]) -> Any:
    """Read a delta; bare text in its place is a piece of text."""
    if type(value) is str and value:
        return Delta(type="text_delta", text=value)
    return _read_delta(value, where, left_out)


def _json_text(value: Any, where: str, left_out: list[str]) -> str:
    """Read a piece of a tool's input; an object in place of its JSON is that JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(clean(value)).decode()


def _blocks(value: Any, where: str, left_out: list[str]) -> Any:
    """Read content; bare text is a block of text."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    return each(_block, MAX_BLOCKS)(value, where, left_out)


def _block(value: Any, where: str, left_out: list[str]) -> Any:
    if value is None:
        return None
    return clean(
        {"type": "text", "text": value} if isinstance(value, str) else _object(value, where)
    )


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is not an object")
    return value


def _message_or_text(value: Any, where: str, left_out: list[str]) -> Any:
    return value if isinstance(value, str) else read_message(value, where, left_out)


def decode_loosely(read: Reader, data: bytes, left_out: list[str], cause: Exception) -> Any:
    """Read JSON of another shape. Raises ``cause`` if it is no JSON at all."""
    try:
        found = loose_object(data, left_out)
    except msgspec.DecodeError:
        raise cause from None
    return read(found, "", left_out)


EVENTS = {
    *("message_start", "message_delta", "message_stop", "ping", "error"),
    *("content_block_start", "content_block_delta", "content_block_stop"),
}
DELTAS = {
    *("text_delta", "thinking_delta", "input_json_delta", "signature_delta"),
    *("citations_delta", "compaction_delta"),
}

_read_delta = fields(
    Delta,
    {
        "type": word,
        "text": _text,
        "partial_json": _json_text,
        "thinking": _thought,
        "signature": side_text,
        "citation": side_object,
        "stop_reason": anything,
        "stop_sequence": side_text,
        "stop_details": side_object,
        "container": side_object,
        "content": anything,
        "encrypted_content": side_text,
        "usage": side_object,
        "error": anything,
        "finish_reason": anything,
    },
)
read_message = fields(
    Message,
    {
        "type": anything,
        "id": side_text,
        "model": side_text,
        "content": _blocks,
        "stop_reason": anything,
        "stop_sequence": side_text,
        "stop_details": side_object,
        "container": side_object,
        "usage": side_object,
    },
)
read_event = fields(
    Event,
    {
        "type": word,
        "index": number,
        "delta": _delta_or_text,
        "content_block": side_object,
        "message": _message_or_text,
        "usage": side_object,
        "error": anything,
        "stop_reason": anything,
        "context_management": side_object,
    },
)

decode = msgspec.json.Decoder(Event).decode
decode_kind = msgspec.json.Decoder(Kind).decode
decode_message = msgspec.json.Decoder(Message).decode


def told(raw: Any) -> Usage | None:
    """Return a usage object, if it says something."""
    if not raw:
        return None
    usage = anthropic_usage(raw)
    return usage if usage.completion_tokens is not None or not usage.empty else None


# -- types that are unknown or missing ---------------------------------------------------------


def is_unknown(kind: Kind) -> bool:
    """Return whether an event, or its delta, is of an unknown type, whose fields may be anything."""
    name, known = kind.type, EVENTS
    if name == "content_block_delta" and isinstance(kind.delta, dict):
        name, known = kind.delta.get("type"), DELTAS
    return isinstance(name, str) and bool(name) and name not in known and not kind.error


def kind_of_event(event: Event) -> str:
    """Return the type of an event that names none, by what it has."""
    if event.content_block is not None:
        return "content_block_start"
    if isinstance(event.message, Message):
        return "message_start"
    delta = event.delta
    if delta and delta.stop_reason is not None:
        return "message_delta"
    return "content_block_delta" if delta and (delta.type or kind_of(delta)) else ""


def kind_of(delta: Delta) -> str:
    """Return the type of a delta that names none, by the field that it has."""
    found = {
        "text_delta": delta.text,
        "thinking_delta": delta.thinking,
        "input_json_delta": delta.partial_json,
        "signature_delta": delta.signature,
        "citations_delta": delta.citation,
        "compaction_delta": delta.encrypted_content,
    }
    return next((kind for kind, value in found.items() if value is not None), "")
