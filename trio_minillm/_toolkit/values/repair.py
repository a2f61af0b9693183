"""JSON that models break, mended by json-repair (extra ``repair``), and never silently."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from .shapes import Field, Shape

T = TypeVar("T")

MAX_REPAIRED = 2**18
"""Characters of the longest text that is mended: 256 Ki, some 0.7 s of CPU. The library is written in
Python, and other tasks wait meanwhile."""

_CUT_ESCAPE = re.compile(
    r"(?<!\\)((?:\\\\)*)"
    r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?)?\Z"
)
"""The beginning of an escape at the end of a text that was cut, and the whole backslashes before it."""


def needs_library(wanted: bool) -> None:
    """Raise ``ImportError`` if repairs are wanted and the library is missing."""
    if wanted:
        _library()


def _library() -> Any:
    try:
        import json_repair
    except ImportError as exc:
        wanted = "repair=True needs json-repair: pip install 'trio-minillm[repair]'"
        raise ImportError(wanted) from exc
    return json_repair


def repaired(text: str) -> str | None:
    """Return JSON for a text that is none; ``None`` if it is too long, or nothing can be made of it."""
    if len(text) > MAX_REPAIRED:
        return None
    text = _CUT_ESCAPE.sub(r"\1", text)
    try:
        made: str = _library().repair_json(text, ensure_ascii=False)
        msgspec.json.decode(made, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return None
    return made or None


class Mender(Generic[T]):
    """Remembers what was handed out of a text, and goes on with what the mended text has."""

    def __init__(self, make: Callable[[], Shape[T]]) -> None:
        self.done: bool = False
        """True once the text was mended, and agrees with what was handed out before."""
        self._make = make
        self._given: list[Any] = []  # values, or names and texts of fields
        self._open: list[str] = []  # what has come of the field that is open

    def note(self, values: list[T]) -> None:
        """Take note of what was handed out."""
        for one in values:
            if not isinstance(one, Field):
                self._given.append(one)
                continue
            self._open.append(one.delta)
            if one.done:
                self._given.append((one.name, "".join(self._open)))
                self._open.clear()

    def mended(self, text: str) -> list[T]:
        """Return what the mended text has beside what was handed out; nothing if the two disagree."""
        made = repaired(text)
        if made is None:
            return []
        shape = self._make()
        found = shape.feed(made) + shape.finish()
        if shape.broken is not None or len(found) < len(self._given):
            return []
        before, new = found[: len(self._given)], found[len(self._given) :]
        if [(x.name, x.delta) if isinstance(x, Field) else x for x in before] != self._given:
            return []
        self.done = True
        begun = "".join(self._open)
        return [self._rest(x, begun if not n else "") for n, x in enumerate(new)]

    @staticmethod
    def _rest(one: T, begun: str) -> T:
        """Return a field without the text that was handed out of it, marked as repaired."""
        if not isinstance(one, Field):
            return one
        rest = one.delta[len(begun) :] if one.delta.startswith(begun) else ""
        marked: T = msgspec.structs.replace(one, delta=rest, repaired=True)
        return marked
