"""What is too much to be made into Python objects, told from the JSON as it stands.

Objects take a hundred times their size on the wire, and are made in one go, in which no other task
has its turn: 50 ms are the most that an input may take. Counting takes a few.
"""

from __future__ import annotations

MAX_OBJECTS = 100 * 1024
"""Braces and brackets that may open in one event, or in a body that is none: 102,400, one for every
41 bytes of the longest. As objects they take a hundred times their size, and seconds in which no
other task has its turn. As many names of fields."""

MAX_VALUES = 2**19
"""Values in one event, or in such a body: 524,288. Plain ones are made quicker than objects."""


def exceeded_limit(data: bytes) -> tuple[str, int] | None:
    """What there is too much of to be made into objects, and its limit."""
    if len(data) <= MAX_OBJECTS or _counts(data) is None:
        return None
    # Some are in texts. To find out takes as long as there are strings.
    if data.count(b'"') - data.count(b'\\"') > 2 * MAX_OBJECTS:
        return "quotation marks", 2 * MAX_OBJECTS
    outside = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    return _counts(b"".join(outside))


def _counts(data: bytes) -> tuple[str, int] | None:
    if data.count(b"{") + data.count(b"[") > MAX_OBJECTS:
        return "opening braces and brackets", MAX_OBJECTS
    if data.count(b":") > MAX_OBJECTS:
        return "names of fields", MAX_OBJECTS
    return ("values", MAX_VALUES) if data.count(b",") > MAX_VALUES else None
