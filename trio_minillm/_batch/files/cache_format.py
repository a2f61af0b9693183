"""A response as bytes and back: what a cache keeps of it. Pure.

The JSON of the response's own fields, so that a field which is added later is kept too.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import asdict, fields

from ..._types.messages import OpaquePart, ReasoningPart, RefusalPart, TextPart, ToolCall
from ..._types.response import Choice, CompletionResponse

_PARTS = (TextPart, ReasoningPart, RefusalPart, ToolCall, OpaquePart)
"""What the parts of an answer are; the number is stored."""
_DECODERS = [msgspec.json.Decoder(kind) for kind in _PARTS]


def _stored(name: str, original: Any, **other: Any) -> Any:
    """The fields of a type, some with another type and some (``None``) left out."""
    made = [
        (field.name, other.get(field.name, field.type))
        for field in fields(original)
        if other.get(field.name, field) is not None
    ]
    return msgspec.defstruct(name, made, kw_only=True, forbid_unknown_fields=True)


_CALLS = list[int | ToolCall]
_StoredChoice = _stored(
    "_StoredChoice",
    Choice,
    parts=list[tuple[int, msgspec.Raw]],
    tool_calls=_CALLS,
    invalid_tool_calls=_CALLS,
)
_StoredResponse = _stored(
    "_StoredResponse",
    CompletionResponse,
    choices=list[_StoredChoice],  # type: ignore[valid-type]
    response_type=None,
)
_decode = msgspec.json.Decoder(_StoredResponse).decode


def dump_response(response: CompletionResponse) -> bytes:
    """A response as JSON, without its ``response_type``, which is the request's.

    Raises ``TypeError`` or ``ValueError`` for what no JSON can hold.
    """
    choices = [_choice(choice) for choice in response.choices]
    facts = {name: getattr(response, name) for name in _StoredResponse.__struct_fields__}
    return msgspec.json.encode(facts | {"choices": choices})


def load_response(data: bytes) -> CompletionResponse:
    """What `dump_response` was given. Raises `msgspec.DecodeError` for anything else."""
    stored = _decode(data)
    choices = []
    for choice in stored.choices:
        parts = [_DECODERS[kind].decode(raw) for kind, raw in choice.parts]
        facts: dict[str, Any] = asdict(choice)
        for name in ("tool_calls", "invalid_tool_calls"):
            calls = getattr(choice, name)
            facts[name] = tuple(parts[c] if isinstance(c, int) else c for c in calls)
        facts["parts"] = tuple(parts)
        choices.append(Choice(**facts))
    whole: dict[str, Any] = asdict(stored)
    whole["choices"] = tuple(choices)
    return CompletionResponse(**whole)


def _choice(choice: Choice) -> dict[str, Any]:
    """Calls that are parts too are stored once: `Choice.to_message` knows them by identity."""
    places = {id(part): place for place, part in enumerate(choice.parts)}
    made = asdict(choice)
    made["parts"] = [(_PARTS.index(type(part)), part) for part in choice.parts]
    for name in ("tool_calls", "invalid_tool_calls"):
        made[name] = [places.get(id(call), call) for call in made[name]]
    return made
