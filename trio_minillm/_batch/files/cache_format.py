"""A response as the bytes that a cache stores, and back. Pure.

It is the JSON of the response's own fields, so that a field which is added later is kept, too. The
types that are read are made from those of `_types`, field by field: msgspec can't read the parts of
a `Choice`, a union of types without tags, so each part is stored with the number of its type.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import asdict, fields

from ..._types.messages import OpaquePart, ReasoningPart, RefusalPart, TextPart, ToolCall
from ..._types.response import Choice, CompletionResponse

_PARTS = (TextPart, ReasoningPart, RefusalPart, ToolCall, OpaquePart)
"""Types of the parts of an answer. A part is stored with its place in here."""
_DECODERS = [msgspec.json.Decoder(kind) for kind in _PARTS]


def _stored(name: str, original: Any, **other: Any) -> Any:
    """Return a type with the fields of ``original``, some of another type and some (``None``) left
    out.
    """
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
    """Return a response as JSON, without its ``response_type``, which is the request's.

    Raises ``TypeError`` or ``ValueError`` for what no JSON can hold.
    """
    choices = [_choice(choice) for choice in response.choices]
    stored = {name: getattr(response, name) for name in _StoredResponse.__struct_fields__}
    return msgspec.json.encode(stored | {"choices": choices})


def load_response(data: bytes) -> CompletionResponse:
    """Return the response that `dump_response` was given. Raises `msgspec.DecodeError` or
    ``ValueError`` for other bytes.
    """
    stored = _decode(data)
    choices = []
    for choice in stored.choices:
        parts = [_DECODERS[kind].decode(raw) for kind, raw in choice.parts]
        made: dict[str, Any] = asdict(choice)
        for name in ("tool_calls", "invalid_tool_calls"):
            calls = getattr(choice, name)
            made[name] = tuple(parts[c] if isinstance(c, int) else c for c in calls)
        made["parts"] = tuple(parts)
        choices.append(Choice(**made))
    whole: dict[str, Any] = asdict(stored)
    whole["choices"] = tuple(choices)
    return CompletionResponse(**whole)


def _choice(choice: Choice) -> dict[str, Any]:
    """Return a choice's fields as they are stored.

    A call that is also a part is stored once, since `Choice.to_message` compares by identity.
    """
    places = {id(part): place for place, part in enumerate(choice.parts)}
    made = asdict(choice)
    made["parts"] = [(_PARTS.index(type(part)), part) for part in choice.parts]
    for name in ("tool_calls", "invalid_tool_calls"):
        made[name] = [places.get(id(call), call) for call in made[name]]
    return made
