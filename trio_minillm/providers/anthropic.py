"""Anthropic Messages, whose events open, change and close typed content blocks.

The order is ``message_start``, then blocks (``content_block_start``, ``…_delta``, ``…_stop``), one
or more ``message_delta`` with cumulative usage, and ``message_stop``; ``ping`` and ``error`` may
come anywhere. Unknown events only show that the stream is alive, as Anthropic's versioning policy
asks. Usage in ``message_start`` is provisional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from .._types.chunks import Block, StreamChunk, ToolCallDelta
from .._types.cost import CostInfo, CostResolution, TokenPrice
from .._types.errors import ProtocolError, ProviderError
from .._types.usage import Usage
from ._anthropic_request import CALL_FIELDS, TYPED_FIELDS, messages_body
from ._base import Model, Parsed, Provider, Request, sendable
from ._errors import error_from
from ._usage import anthropic_usage

VERSION = "2023-06-01"
"""Value of ``anthropic-version``, which ``headers=`` of the model overrides. The newer 2026-10-21
refuses every sampling parameter."""


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: dict[str, Any] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | None = None
    content: Any = None
    encrypted_content: str | None = None


class _Message(msgspec.Struct, gc=False):
    type: Any = None
    id: str | None = None
    model: str | None = None
    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | None = None
    usage: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int | None = None
    delta: _Delta | None = None
    content_block: dict[str, Any] | None = None
    message: _Message | str | None = None
    usage: Any = None
    error: Any = None
    context_management: dict[str, Any] | None = None


class _Kind(msgspec.Struct, gc=False):
    type: Any = None
    delta: Any = None
    error: Any = None


_EVENTS = {
    *("message_start", "message_delta", "message_stop", "ping", "error"),
    *("content_block_start", "content_block_delta", "content_block_stop"),
}
_DELTAS = {
    *("text_delta", "thinking_delta", "input_json_delta", "signature_delta"),
    *("citations_delta", "compaction_delta"),
}

_decode = msgspec.json.Decoder(_Event).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_message = msgspec.json.Decoder(_Message).decode


class Anthropic(Provider):
    """The provider for Anthropic's Messages endpoint, and for servers that imitate it."""

    name = "anthropic"
    replay_wire = "anthropic"
    literal_text = True
    always_usage = True
    ends_itself = True  # one or more message_delta, then message_stop

    def endpoint_url(self, model: Model) -> str:
        base = model.base_url.rstrip("/")
        return f"{base}/messages" if base.endswith("/v1") else f"{base}/v1/messages"

    def auth_headers(self, model: Model) -> dict[str, str]:
        headers = {"anthropic-version": VERSION}
        if model.api_key:
            headers["x-api-key"] = model.api_key
        return headers

    @property
    def typed_fields(self) -> frozenset[str]:
        return TYPED_FIELDS

    def request_headers(self, request: Request) -> dict[str, str]:
        """Return the betas of the call and of the model's own header, joined in one header."""
        given = request.params.get("betas") or ()
        betas = [given] if isinstance(given, str) else list(given)
        if not all(map(sendable, betas)):
            raise ValueError("betas must be printable ASCII without spaces around them")
        named = {k.lower(): v for k, v in request.model.headers.items()}.get("anthropic-beta")
        return {"anthropic-beta": ",".join(filter(None, [named, *betas]))} if betas else {}

    def build_request(self, request: Request) -> dict[str, Any]:
        return messages_body(request)

    def parse_chunk(self, data: bytes) -> Parsed:
        try:
            event = _decode(data)
        except msgspec.DecodeError as exc:
            if data.strip() == b"[DONE]":  # some proxies add it
                return StreamChunk(end=True, progress=False)
            if isinstance(exc, msgspec.ValidationError) and _is_unknown(_decode_kind(data)):
                return StreamChunk()
            raise
        kind = event.type
        if event.error or kind == "error":  # an error counts whatever else the event says
            raise ProviderError(error_from(None, msgspec.json.decode(data)))
        if kind == "content_block_delta":
            return _delta(event)
        if kind == "content_block_start":
            return _start(_index(event), event.content_block or {})
        if kind == "content_block_stop":
            return StreamChunk(part=_index(event), block=Block(stop=True))
        if kind == "message_delta":
            return _message_delta(event)
        if kind == "message_start":
            if not isinstance(event.message, _Message):
                raise ProtocolError("message_start has no message")
            return _message(event.message)
        if kind == "message_stop":
            return StreamChunk(end=True, progress=False)
        if kind == "ping":
            return None
        if not kind:
            raise ProtocolError("the event has no type")
        return StreamChunk()  # unknown, but a sign of life

    def parse_event(self, event: str, data: bytes) -> Parsed:
        if event in _EVENTS and event != "error":
            return self.parse_chunk(data)  # which finds the name in the data, too
        if event != "error":
            with suppress(msgspec.DecodeError):
                kind = _decode_kind(data)
                if kind.type is None and not kind.error:
                    return None  # a proxy's own event, such as a keep-alive
        return super().parse_event(event, data)

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        message = _decode_message(body)
        if message.content is None or message.type == "error":
            raise ProviderError(self.parse_error(None, body))
        return [*_message(message), StreamChunk(end=True, progress=False)]

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        """Return usage times price.

        It is a lower bound if the answer used another model, too (the advisor tool): that model's
        tokens are only in ``iterations``, and have another price.
        """
        cost = super().cost_of(usage, price)
        steps = (usage.raw or {}).get("iterations") if usage is not None else None
        if cost.amount is None or not isinstance(steps, list):
            return cost
        if all(isinstance(s, Mapping) and s.get("type", "message") == "message" for s in steps):
            return cost
        return msgspec.structs.replace(cost, resolution=CostResolution.LOWER_BOUND)


def _is_unknown(kind: _Kind) -> bool:
    """Return whether an event, or its delta, is of an unknown type, whose fields may be anything."""
    name, known = kind.type, _EVENTS
    if name == "content_block_delta" and isinstance(kind.delta, dict):
        name, known = kind.delta.get("type"), _DELTAS
    return isinstance(name, str) and bool(name) and name not in known and not kind.error


def _index(event: _Event) -> int:
    if event.index is None:
        raise ProtocolError(f"{event.type} has no index")
    return event.index


def _delta(event: _Event) -> StreamChunk:
    delta = event.delta
    if delta is None:
        raise ProtocolError("content_block_delta has no delta")
    index = _index(event)
    kind = delta.type
    # An empty piece is not progress.
    if kind == "text_delta":
        text = _given(delta.text, kind)
        return StreamChunk(text, part=index, progress=bool(text))
    if kind == "thinking_delta":
        text = _given(delta.thinking, kind)
        return StreamChunk(reasoning=text, part=index, progress=bool(text))
    if kind == "input_json_delta":
        text = _given(delta.partial_json, kind)
        piece = ToolCallDelta(index, arguments=text)
        return StreamChunk(tool_calls=(piece,), part=index, progress=bool(text))
    if kind == "signature_delta":
        text = _given(delta.signature, kind)
        block = Block(delta={"signature": text})
        return StreamChunk(part=index, block=block, progress=bool(text))
    if kind == "citations_delta":
        if delta.citation is None:
            raise ProtocolError("citations_delta has no citation")
        return StreamChunk(
            part=index,
            annotations=(delta.citation,),
            block=Block(delta={"citation": delta.citation}),
        )
    if kind == "compaction_delta":
        whole = {"content": delta.content, "encrypted_content": delta.encrypted_content}
        changed = {k: v for k, v in whole.items() if v is not None}
        return StreamChunk(part=index, block=Block(delta=changed))
    if not kind:
        raise ProtocolError("the delta has no type")
    return StreamChunk(part=index)


def _given(value: str | None, kind: str) -> str:
    if value is None:
        raise ProtocolError(f"{kind} is empty")
    return value


def _start(index: int, block: dict[str, Any]) -> StreamChunk:
    """Translate the opening of a block; the content that it has from the start counts as a delta."""
    out = StreamChunk(part=index, block=Block(start=block))
    kind = block.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("content_block_start has no block type")
    # An empty block is not progress: minutes of hidden thinking may follow.
    if kind == "text":
        out.delta = _string(block, "text")
        out.annotations = _citations(block)
        out.progress = bool(out.delta or out.annotations)
    elif kind == "thinking":
        signature = _string(block, "signature")
        out.reasoning = _string(block, "thinking")
        out.progress = bool(out.reasoning or signature)
    elif kind == "redacted_thinking":
        _string(block, "data")
    elif kind == "tool_use":
        given = block.get("input")
        arguments = msgspec.json.encode(given).decode() if given else ""
        extra = {k: block[k] for k in CALL_FIELDS if block.get(k) is not None}
        name, ident = _string(block, "name"), _string(block, "id")
        out.tool_calls = (
            ToolCallDelta(index, ident or None, name or None, arguments, extra=extra or None),
        )
    return out


def _citations(block: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    found = block.get("citations") or ()
    if not isinstance(found, list | tuple) or not all(isinstance(c, dict) for c in found):
        raise ProtocolError("citations of a text block are not a list of objects")
    return tuple(found)


def _string(block: dict[str, Any], key: str) -> str:
    value = block.get(key) or ""
    if not isinstance(value, str):
        raise ProtocolError(f"{key} of a {block.get('type')} block is not text")
    return value


def _message(message: _Message) -> list[StreamChunk]:
    """Translate ``message_start``, which has content only if the server had the whole answer."""
    head = StreamChunk(id=message.id, model=message.model, progress=False)
    head.usage = _told(message.usage)
    out = [head]
    for index, block in enumerate(message.content or ()):
        out.append(_start(index, block))
        out.append(StreamChunk(part=index, block=Block(stop=True)))
    if message.stop_reason:
        # The same usage again: together with the finish reason, it is final.
        last = StreamChunk(finish_reason=message.stop_reason)
        last.usage = _told(message.usage)
        last.metadata = _stop_facts(message)
        out.append(last)
    return out


def _message_delta(event: _Event) -> StreamChunk:
    out = StreamChunk()
    if event.delta is not None:
        out.finish_reason = event.delta.stop_reason or None
        out.metadata = _stop_facts(event.delta)
    if event.context_management:
        out.metadata = {**(out.metadata or {}), "context_management": event.context_management}
    out.usage = _told(event.usage)
    return out


def _told(raw: Any) -> Usage | None:
    """Return a usage object, if it says something."""
    usage = anthropic_usage(raw) if raw else None
    return None if usage is None or usage.empty else usage


def _stop_facts(source: _Delta | _Message) -> dict[str, Any] | None:
    facts = {
        "stop_sequence": source.stop_sequence,
        "stop_details": source.stop_details,
        "container": source.container,
    }
    return {k: v for k, v in facts.items() if v is not None} or None
