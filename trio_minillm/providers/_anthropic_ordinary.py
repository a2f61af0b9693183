"""Ordinary events of Anthropic Messages: the short way from their JSON to a chunk.

They have no fields but those that nearly every answer has, each in its place. What `Anthropic` asks
of any other event is settled for these by their shape: there is no other field in which something
could stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from .._types.chunks import Block, StreamChunk, ToolCallDelta
from ._anthropic_events import Message, told
from ._reasons import USUAL_REASONS

Found: TypeAlias = StreamChunk | msgspec.UnsetType | None


class _Event(msgspec.Struct, gc=False, tag_field="type", forbid_unknown_fields=True):
    def chunk(self) -> Found:
        """Return what the event says, or ``UNSET`` if it is for `Anthropic` to find out."""
        return None


class _Start(_Event, tag="message_start"):
    message: Message

    def chunk(self) -> Found:
        message = self.message
        if message.content or message.stop_reason is not None:
            return msgspec.UNSET
        usage = told(message.usage)
        return StreamChunk(usage=usage, id=message.id, model=message.model, progress=False)


_EMPTY_TEXT = {"type": "text", "text": ""}


class _BlockStart(_Event, tag="content_block_start"):
    index: int
    content_block: dict[str, Any]

    def chunk(self) -> Found:
        block = self.content_block
        if block != _EMPTY_TEXT:
            return msgspec.UNSET
        return StreamChunk(part=self.index, block=Block(start=block), progress=False)


class _Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: str
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _BlockDelta(_Event, tag="content_block_delta"):
    index: int
    delta: _Delta

    def chunk(self) -> Found:
        kind, delta, index = self.delta.type, self.delta, self.index
        if kind == "text_delta" and delta.text:
            return StreamChunk(delta.text, part=index)
        if kind == "thinking_delta" and delta.thinking:
            return StreamChunk(reasoning=delta.thinking, part=index)
        if kind == "input_json_delta" and delta.partial_json:
            piece = ToolCallDelta(index, arguments=delta.partial_json)
            return StreamChunk(tool_calls=(piece,), part=index)
        return msgspec.UNSET


class _BlockStop(_Event, tag="content_block_stop"):
    index: int

    def chunk(self) -> Found:
        return StreamChunk(part=self.index, block=Block(stop=True))


class _Reason(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    container: None = None


class _MessageDelta(_Event, tag="message_delta"):
    delta: _Reason
    usage: dict[str, Any] | None = None

    def chunk(self) -> Found:
        reason, sequence = self.delta.stop_reason, self.delta.stop_sequence
        if reason is not None and reason not in USUAL_REASONS:
            return msgspec.UNSET
        out = StreamChunk(finish_reason=reason, usage=told(self.usage))
        if sequence is not None:
            out.metadata = {"stop_sequence": sequence}
        return out


class _Stop(_Event, tag="message_stop"):
    def chunk(self) -> Found:
        return StreamChunk(end=True, progress=False)


class _Ping(_Event, tag="ping"):
    pass


_decode: Callable[[bytes], _Event] = msgspec.json.Decoder(
    _Start | _BlockStart | _BlockDelta | _BlockStop | _MessageDelta | _Stop | _Ping
).decode


def ordinary_chunk(data: bytes) -> Found:
    """Return the chunk of an ordinary event (a ping has none), or ``UNSET`` for any other."""
    try:
        return _decode(data).chunk()
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return msgspec.UNSET
