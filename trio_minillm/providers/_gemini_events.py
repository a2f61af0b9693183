"""The events of Gemini's wire as structs, and the chunks that their parts become.

An event has candidates, each with the next parts of its content: text, thoughts, calls, media, and
whatever else a server's tools put there. Parts have no numbers, only their order
(`trio_minillm._types.chunks.IN_ORDER`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .._types.chunks import IN_ORDER, Block, StreamChunk, ToolCallDelta
from .._types.errors import ProtocolError
from ._coerce import (
    anything,
    clean,
    each,
    fields,
    number,
    said,
    side_object,
    side_objects,
    side_text,
    text,
)
from ._parts import MAX_ENTRIES, bounded, text_within


class Content(msgspec.Struct, gc=False):
    parts: list[dict[str, Any]] | None = None


class Candidate(msgspec.Struct, gc=False, rename="camel"):
    index: int | None = None
    content: Content | None = None
    finish_reason: Any = None
    finish_message: Any = None
    safety_ratings: Any = None
    citation_metadata: dict[str, Any] | None = None
    grounding_metadata: dict[str, Any] | None = None
    url_context_metadata: Any = None
    logprobs_result: dict[str, Any] | None = None
    avg_logprobs: Any = None


class Event(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[Candidate] | None = None
    usage_metadata: dict[str, Any] | None = None
    model_version: str | None = None
    response_id: str | None = None
    prompt_feedback: dict[str, Any] | None = None
    error: Any = None
    response: Any = None
    """A whole event in a wrapping: Google's Code Assist, and what relays it."""


def _parts(value: Any, where: str, left_out: list[str]) -> Any:
    """Read parts; bare text is a part with that text."""
    return each(_part, MAX_ENTRIES)([value] if isinstance(value, str) else value, where, left_out)


def _part(value: Any, where: str, left_out: list[str]) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        return {"text": str(value)}
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is not an object")
    # Text may begin or end with half of a surrogate pair, whose other half is in another event.
    found: dict[str, Any] = clean(value)
    return found | {"text": said(value["text"], where, left_out)} if "text" in value else found


def _content(value: Any, where: str, left_out: list[str]) -> Any:
    """Read content; text or a list in its place are its parts."""
    if isinstance(value, str | list):
        return Content(_parts(value, where, left_out))
    return _read_content(value, where, left_out)


_read_content = fields(Content, {"parts": _parts})
_read_candidate = fields(
    Candidate,
    {
        "index": number,
        "content": _content,
        "finishReason": anything,
        "finishMessage": anything,
        "safetyRatings": anything,
        "citationMetadata": side_object,
        "groundingMetadata": side_object,
        "urlContextMetadata": anything,
        "logprobsResult": side_object,
        "avgLogprobs": anything,
    },
)
read_event = fields(
    Event,
    {
        "candidates": each(_read_candidate, MAX_ENTRIES),
        "usageMetadata": side_object,
        "modelVersion": side_text,
        "responseId": side_text,
        "promptFeedback": side_object,
        "error": anything,
        "response": anything,
    },
)
decode = msgspec.json.Decoder(Event).decode


# -- parts ------------------------------------------------------------------------------------


_TEXT = {"text"}
_SIGNATURES = ("thoughtSignature", "thought_signature")
_MARKS = {"thought", *_SIGNATURES}
_CALL = ("functionCall", "function_call")


def chunks_of(candidate: Candidate) -> list[StreamChunk]:
    """Return the chunks of a candidate's parts: one for all that follow each other and are alike."""
    parts = candidate.content.parts if candidate.content is not None else None
    if not parts:
        return []
    if len(parts) == 1 and parts[0].keys() == _TEXT and type(parts[0]["text"]) is str:
        said = parts[0]["text"]  # almost always
        return [StreamChunk(said, part=IN_ORDER, progress=bool(said))]
    out: list[StreamChunk] = []
    for part in bounded(parts):
        _add(part, out)
    return out


def _add(part: dict[str, Any], out: list[StreamChunk]) -> None:
    """Add a part to the chunks of those before it."""
    signature = _signature(part)
    call = next((part[key] for key in _CALL if part.get(key) is not None), None)
    before = len(out)
    if call is not None:
        if part.get("text"):  # by the reference they are two parts
            _add({name: part[name] for name in ("text", "thought") if name in part}, out)
        _add_call(call, signature, out)
    elif part.get("thought") is True and (part.get("text") or part.keys() - _MARKS <= _TEXT):
        thought = _said(part)
        out.append(StreamChunk(reasoning=thought, part=IN_ORDER, progress=bool(thought)))
        if signature:  # it ends the thought that it signs
            out += (_change({"signature": signature}), _change(None))
    elif part.get("text") or part.keys() - _MARKS == _TEXT:
        _add_text(_said(part), signature, out)
    elif part:
        out.append(_opaque(part))
    if signature is None and len(out) > before and any(part.get(name) for name in _SIGNATURES):
        out[-1].unread = (*out[-1].unread, "thoughtSignature")


def _add_text(said: str, signature: str | None, out: list[StreamChunk]) -> None:
    """Add text. A signature is of its own part alone, and so that part is not joined to another."""
    if said and signature:
        out.append(_change(None))
    if said or not signature:
        last = out[-1] if out else None
        if last is not None and last.delta and last.block is None:
            last.delta += said
        else:
            out.append(StreamChunk(said, part=IN_ORDER, progress=bool(said)))
    if signature:
        signed = {} if said else {"text": ""}
        out.append(_opaque({**signed, "thoughtSignature": signature}))


def _change(delta: dict[str, Any] | None) -> StreamChunk:
    """Return a change to the newest part, or its end."""
    block = Block(stop=True) if delta is None else Block(delta=delta)
    return StreamChunk(part=IN_ORDER, block=block, progress=False)


def _opaque(part: dict[str, Any]) -> StreamChunk:
    """Return a part that is kept as it came; media are handed out as well."""
    out = StreamChunk(part=IN_ORDER, block=Block(start=part))
    data = part.get("inlineData")
    if isinstance(data, Mapping):
        kind = str(data.get("mimeType") or data.get("mime_type"))
        if kind.startswith("audio/"):
            out.audio = {"inlineData": [data]}
        elif kind.startswith("image/"):
            out.images = ({"inlineData": data},)
    return out


def _add_call(call: Any, signature: str | None, out: list[StreamChunk]) -> None:
    """Add a call: whole, or a piece of one. One without arguments is whole."""
    if not isinstance(call, Mapping):
        raise ProtocolError("functionCall is not an object")
    name, given = text(call.get("name"), "functionCall.name", []), call.get("args")
    left_out: list[str] = []
    ident = side_text(call.get("id"), "functionCall.id", left_out)
    extra: dict[str, Any] = {"id": ident} if ident else {}
    if signature:
        extra["thoughtSignature"] = signature
    delta = ToolCallDelta(None, ident or None, name or None, extra=extra or None)
    if call.get("partialArgs") is not None or call.get("willContinue") is not None or not name:
        delta.partial = dict(call)
    elif isinstance(given, str):  # relays encode them once more
        delta.arguments = given
    else:
        delta.arguments = msgspec.json.encode({} if given is None else given).decode()
    block = Block(start={"type": "tool_use"}) if name else None
    out.append(StreamChunk(tool_calls=(delta,), part=IN_ORDER, block=block, unread=tuple(left_out)))


def _said(part: Mapping[str, Any]) -> str:
    """Return the text of a part. Raises `ProtocolError` if it is none, and msgspec's error for a
    number, so that the event is read again with the number's digits.
    """
    value = part.get("text")
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int | float):
        raise msgspec.ValidationError("text is a number")
    found = text_within(value)
    if found is None:
        raise ProtocolError("the text of candidates[].content.parts[] is not text")
    return found


def _signature(part: Mapping[str, Any]) -> str | None:
    value = next(filter(None, (part.get(name) for name in _SIGNATURES)), None)
    return value if isinstance(value, str) and value else None


# -- beside the parts -------------------------------------------------------------------------


def annotations_of(candidate: Candidate, left_out: list[str]) -> tuple[dict[str, Any], ...]:
    """Return what an answer cites: the sources of its grounding, and those of its citations."""
    found: list[dict[str, Any]] = []
    for holder, names in (
        (candidate.grounding_metadata, ("groundingChunks",)),
        (candidate.citation_metadata, ("citations", "citationSources")),
    ):
        for name in names if holder else ():
            found += side_objects(holder.get(name) or [], name, left_out)  # type: ignore[union-attr]
    return tuple(found)


_FACTS = {
    "finishMessage": "finish_message",
    "safetyRatings": "safety_ratings",
    "groundingMetadata": "grounding_metadata",
    "urlContextMetadata": "url_context_metadata",
    "avgLogprobs": "avg_logprobs",
}


def facts_of(candidate: Candidate) -> dict[str, Any] | None:
    """Return a candidate's further facts, under the wire's own names."""
    found = {name: value for name, field in _FACTS.items() if (value := getattr(candidate, field))}
    return found or None
