"""Limits on JSON that is to become Python objects, checked on the text as it stands.

Objects take a hundred times their size on the wire, and are made in one go, in which no other task
has its turn: one input may take 50 ms at most. Counting characters takes a few.
"""

from __future__ import annotations

import re

import msgspec

MAX_DECODED = 4 * 1024 * 1024
"""Bytes of an event, or of a body in place of a stream, that are decoded in one go: 4 MiB. Long texts
don't count (`LongTexts`)."""

MAX_OBJECTS = 100 * 1024
"""Braces and brackets that may open in one event, or in a body that is no event stream: 102,400,
one for every 41 bytes of those. As many names of fields."""

MAX_VALUES = 2**19
"""Values in one event, or in such a body: 524,288. Plain ones are made faster than objects."""


MAX_NESTED = 100
"""Levels of JSON within JSON that are kept by `shallow`. Answers have ten or so."""


def shallow(data: bytes) -> bytes:
    """Return JSON without what is nested deeper than `MAX_NESTED`: ``null`` stands in its place.

    Decoders give up at about a thousand levels, wherever these are. Linear in the bytes.
    """
    out, depth, kept = [], 0, 0
    for found in re.finditer(_BRACKETS, data):
        mark = found[0]
        if mark in b"[{":
            depth += 1
            if depth == MAX_NESTED + 1:
                out += [data[kept : found.start()], b"null"]
        elif mark in b"]}":
            if depth == MAX_NESTED + 1:
                kept = found.end()
            depth -= 1
    if depth <= MAX_NESTED:
        out.append(data[kept:])
    return b"".join(out)


_BRACKETS = rb'(?s)"(?:[^"\\]++|\\.)*+"?|[\[\]{}]'


def exceeded_limit(data: bytes) -> tuple[str, int] | None:
    """Return the limit that this JSON exceeds: what is bounded, in words, and the number."""
    if len(data) > MAX_DECODED:
        return "bytes beside long texts", MAX_DECODED
    if len(data) <= MAX_OBJECTS or _exceeded(data) is None:
        return None
    # Some of that may be in texts. Finding out takes as long as there are strings, so these are
    # bounded, too.
    if data.count(b'"') - data.count(b'\\"') > 2 * MAX_OBJECTS:
        return "quotation marks", 2 * MAX_OBJECTS
    outside = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    return _exceeded(b"".join(outside))


def _exceeded(data: bytes) -> tuple[str, int] | None:
    if data.count(b"{") + data.count(b"[") > MAX_OBJECTS:
        return "opening braces and brackets", MAX_OBJECTS
    if data.count(b":") > MAX_OBJECTS:
        return "names of fields", MAX_OBJECTS
    return ("values", MAX_VALUES) if data.count(b",") > MAX_VALUES else None


# -- side fields -----------------------------------------------------------------------------

_LARGE = 64 * 1024
"""Bytes from which on a field beside the answer is left out of an event that exceeds a limit."""
MAX_NAME = 40
"""Characters of the longest name of such a field that is told."""
_WAY = ("choices", "message", "delta")
"""Fields on the way to the answer, which are looked into."""
_ANSWER = frozenset(
    {
        *("id", "model", "index", "finish_reason", "usage", "error", "content", "text", "refusal"),
        *("tool_calls", "function_call", "reasoning", "reasoning_content", "reasoning_details"),
    }
)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def without_side_fields(data: bytes) -> tuple[bytes, list[str]]:
    """Return an event or a body without its large fields beside the answer, and their names.

    Thousands of log probabilities with twenty alternatives each are such a field. What has no
    choices is no answer, and is returned as it is.
    """
    names: list[str] = []
    try:
        fields = _object(data)
        if bytes(fields.get("choices", b"")).strip() in (b"", b"null", b"[]"):
            return data, []
        light = _light(fields, names)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return data, []
    return (msgspec.json.encode(light), names) if names else (data, [])


def _light(fields: dict[str, msgspec.Raw], names: list[str]) -> dict[str, object]:
    out: dict[str, object] = {}
    for name, value in fields.items():
        begin = memoryview(value)[:1].tobytes()
        if name in _WAY and begin in (b"{", b"["):
            inside = _objects(value) if begin == b"[" else [_object(value)]
            found = [_light(one, names) for one in inside]
            out[name] = found if begin == b"[" else found[0]
        elif name in _ANSWER or len(value) < _LARGE:
            out[name] = value
        else:
            names.append(name if name.isidentifier() and len(name) <= MAX_NAME else "a field")
    return out
