"""Events that hold something else than one JSON object: several, a list of them, or one as text.

Relays build events out of whole lines of their upstream's, or encode them twice.
"""

from __future__ import annotations

import re

import msgspec

MAX_SPLIT = 64 * 1024
"""Bytes of the longest event that is looked through: it is read a string at a time."""
MAX_SEVERAL = 256
"""Objects of one event that are read as events. A relay puts a few into one."""

_PREFIXES = rb"(?:\xef\xbb\xbf|data:|\s)+"
_MARKS = rb'(?s)"(?:[^"\\]++|\\.)*+"?|[\[\]{}]'
_BETWEEN = rb"(?:\s|,|data:|\\[nr])*"
_EVENT = rb'^\[DONE\]$|"(?:choices|candidates|type|usage|usageMetadata|error|object)"'
_OBJECT = rb"^\{"
_decode_text = msgspec.json.Decoder(str).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def without_prefix(data: bytes) -> bytes:
    """Return the data of an event without a byte-order mark, or the field's name once more, before it
    (``data: data: …``).
    """
    found = re.match(_PREFIXES, data)
    return data[found.end() :] if found else data


def documents(data: bytes) -> list[bytes]:
    """Return the objects in an event that is not one JSON object, or an empty list if it is none of
    several events, a list of those, or one as JSON text. ``[DONE]`` counts as an event, ``{}`` does not.
    """
    data = data.strip()
    if len(data) > MAX_SPLIT:
        return []
    if data[:1] == b'"':
        try:
            text = _decode_text(data).strip().encode()
        except (msgspec.DecodeError, UnicodeError):
            return []
        return [text] if text[:1] == b"{" else []
    found = _in_a_row(data)
    listed = len(found) == 1 and found[0][:1] == b"["
    if listed:
        try:
            found = [bytes(entry) for entry in _decode_list(found[0])]
        except (msgspec.DecodeError, UnicodeError):
            return []
    if len(found) > MAX_SEVERAL or (found == [data] and not listed):
        return []
    wanted = _OBJECT if listed else _EVENT
    return found if all(re.search(wanted, each) for each in found) else []


def _in_a_row(data: bytes) -> list[bytes]:
    """Return what stands in brackets; an empty list if there is anything between or an end is missing."""
    out: list[bytes] = []
    depth = begin = done = 0
    for mark in re.finditer(_MARKS, data):
        if depth == 0:
            begin = mark.start()
            if mark[0] not in (b"{", b"[") or not re.fullmatch(_BETWEEN, data[done:begin]):
                return []
        if mark[0] in (b"{", b"["):
            depth += 1
        elif mark[0] in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                done = mark.end()
                out.append(data[begin:done])
    return out if depth == 0 and re.fullmatch(_BETWEEN, data[done:]) else []
