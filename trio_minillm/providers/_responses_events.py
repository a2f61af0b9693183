"""The events of OpenAI Responses as structs, and their reading where they differ from that.

What an event is about differs from type to type, so most fields are read as they are, and checked by
whoever uses them. The ``response`` of an event is decoded only as far as it is needed: it repeats the
request, with all of its tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec

from ._coerce import anything, fields, loose_json, loose_object, number, raw, said, side_text, word

_ABSENT = msgspec.Raw()
_Said: TypeAlias = str | list[Any] | dict[str, Any] | None
"""Values that hold text. A number is read by `decode_loosely`, which keeps its digits."""


class Event(msgspec.Struct, gc=False):
    """One event. Each type has some of these fields."""

    type: str = ""
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    name: str | None = None
    delta: _Said = None
    text: _Said = None
    refusal: _Said = None
    arguments: _Said = None
    input: _Said = None
    annotation: Any = None
    logprobs: Any = None
    part: Any = None
    item: Any = None
    response: msgspec.Raw = _ABSENT
    error: Any = None
    object: Any = None
    output: msgspec.Raw = _ABSENT


class Head(msgspec.Struct, gc=False):
    """The fields of a response that has just begun."""

    id: Any = None
    model: Any = None
    status: Any = None
    error: Any = None


class Response(Head, gc=False):
    """A response, as far as it is read."""

    object: Any = None
    output: Any = None
    usage: Any = None
    incomplete_details: Any = None
    service_tier: Any = None


decode = msgspec.json.Decoder(Event).decode
_decode_number = msgspec.json.Decoder(int).decode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_response = msgspec.json.Decoder(Response).decode

_read_event = fields(
    Event,
    {
        "type": word,
        **dict.fromkeys(("output_index", "content_index", "summary_index"), number),
        **dict.fromkeys(("item_id", "name"), side_text),
        **dict.fromkeys(("delta", "text", "refusal", "arguments", "input"), said),
        **dict.fromkeys(("annotation", "logprobs", "part", "item", "error", "object"), anything),
        **dict.fromkeys(("response", "output"), raw),
    },
)


def decode_loosely(data: bytes, left_out: list[str], cause: Exception) -> Event:
    """Read an event of another shape. Raises ``cause`` if it is no JSON at all."""
    try:
        found = loose_object(data, left_out)
    except msgspec.DecodeError:
        raise cause from None
    event: Event = _read_event(found, "", left_out)
    return event


def number_alone(value: bytes) -> None:
    """Read the number of an event, which says nothing of its chunk. Raises msgspec's error for others."""
    _decode_number(value)


def head_in(data: bytes | msgspec.Raw) -> Head:
    """Return the beginning of a response; an empty one for what is none. Raises nothing."""
    with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        return _decode_head(data)
    return Head()


def response_in(data: bytes | msgspec.Raw) -> Response:
    """Return a response. Raises `msgspec.DecodeError` for what is no object."""
    try:
        return _decode_response(data)
    except (msgspec.DecodeError, UnicodeError):
        found = loose_json(bytes(data))
        if not isinstance(found, Mapping):
            raise
        given = {name: anything(found.get(name), "", []) for name in Response.__struct_fields__}
        return Response(**given)
