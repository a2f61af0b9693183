"""Arguments of calls that come as values with their paths, written as the pieces of one JSON text.

Vertex AI streams them so on request (``streamFunctionCallArguments``): each piece names a place
(``$.recipe.steps[0]``) and a value, or the next part of a string. A model makes them in the order of
the text, and so the text can be written while they come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from .._types.chunks import StreamChunk, ToolCallDelta

Path: TypeAlias = "tuple[str | int, ...]"

_STEP: Final = re.compile(
    r"""\.([^.\[\]'"]+)|\[([0-9]{1,9})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]"""
)
"""One step of a path by RFC 9535: a name behind a dot, an index, a name in quotation marks."""
_VALUES: Final = ("stringValue", "numberValue", "boolValue", "nullValue")
_encode = msgspec.json.Encoder().encode


class PathArguments:
    """The calls that are open: at most one in each choice."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[str | None, _Writer]] = {}

    def write(self, chunk: StreamChunk) -> None:
        """Put the next pieces of text into the calls of a chunk that have values with paths."""
        for delta in chunk.tool_calls:
            if delta.partial is not None:
                self._write(delta, delta.partial, chunk)
                delta.partial = None

    def _write(self, delta: ToolCallDelta, partial: Mapping[str, Any], chunk: StreamChunk) -> None:
        name, writer = self._open.pop(chunk.choice, (None, None))
        if writer is not None and delta.name in (None, name):
            chunk.block = delta.name = None  # it goes on
        elif delta.name or partial.get("partialArgs") or partial.get("args"):
            name, writer = delta.name, _Writer()
        else:
            chunk.progress = _ends(chunk)  # the end of a call, and there is none
            if partial.keys() - {"willContinue", "id", "name"}:
                chunk.unread = (*chunk.unread, "functionCall")
            return
        values = partial.get("partialArgs") or []
        for value in values if isinstance(values, list) else [values]:
            if not writer.add(value if isinstance(value, Mapping) else {}):
                chunk.unread = (*chunk.unread, "functionCall.partialArgs")
        if partial.get("willContinue") is True:
            self._open[chunk.choice] = name, writer
        else:
            writer.end(partial.get("args"))
        delta.arguments = writer.text()
        chunk.progress = bool(delta.name or delta.arguments) or _ends(chunk)


def _ends(chunk: StreamChunk) -> bool:
    """Return whether a chunk says something beside its call: why the answer ended, or what it cites."""
    return bool(chunk.finish_reason or chunk.annotations or chunk.logprobs)


class _Writer:
    """The JSON text of one call, as far as it has come.

    Values in an order in which the text can't be written leave it open for good: the call is then
    not whole, and is never run.
    """

    def __init__(self) -> None:
        self._out: list[str] = []
        self._path: Path = ()  # of the newest value
        self._in_string = False  # that value is a string, and goes on
        self._names: list[set[str]] = []  # that were written, of each object or list that is open
        self._lost = False  # a value could not be written

    def text(self) -> str:
        """Return what was written since it was last asked for."""
        text = "".join(self._out)
        self._out.clear()
        return text

    def add(self, value: Mapping[str, Any]) -> bool:
        """Write a value, or the next part of one. Returns whether that could be done."""
        path = _path_of(value.get("jsonPath"))
        kind = next((kind for kind in _VALUES if kind in value), "")
        found = value.get(kind)
        if not self._in_string or path != self._path:
            self._close_string()
            if self._lost or not (path and kind and self._go_to(path)):
                if not self._lost and not self._names:
                    self._out.append("{")  # without any text, it would be a call without arguments
                self._lost = True
                return False
            if not isinstance(found, str) or kind != "stringValue":
                self._out.append("null" if kind == "nullValue" else _encode(found).decode())
                return True
            self._out.append('"')
            self._in_string = True
        if isinstance(found, str):
            self._out.append(_encode(found)[1:-1].decode())
        if value.get("willContinue") is not True:
            self._close_string()
        return True

    def end(self, whole: Any) -> None:
        """Write the end. Arguments that came ``whole`` are taken if no value came by its path."""
        self._close_string()
        if self._lost:
            return
        if not self._path:
            self._out.append(_encode(whole if isinstance(whole, Mapping) else {}).decode())
        else:
            self._close(0)
            self._out.append("}")

    def _close_string(self) -> None:
        if self._in_string:
            self._out.append('"')
            self._in_string = False

    def _go_to(self, path: Path) -> bool:
        """Write what stands between the newest value and the one at ``path``: brackets and names.

        Returns whether that could be done.
        """
        old, self._path = self._path, path
        if not old:
            self._out.append("{")
            self._names.append(set())
            return isinstance(path[0], str) and self._open(path, 0)
        shared = next((n for n, (a, b) in enumerate(zip(old, path, strict=False)) if a != b), None)
        if shared is None:
            return False  # a second value at one place, or one inside another
        before, step = old[shared], path[shared]
        self._path = old
        self._close(shared)
        self._path = path
        self._out.append(",")
        if isinstance(before, int):
            return step == before + 1 and self._open(path, shared)
        return isinstance(step, str) and self._open(path, shared)

    def _open(self, path: Path, depth: int) -> bool:
        """Write the steps of a path from ``depth`` on; what holds the first of them is open."""
        for number, step in enumerate(path[depth:]):
            if number:
                self._out.append("{" if isinstance(step, str) else "[")
                self._names.append(set())
            if isinstance(step, str):
                if step in self._names[-1]:
                    return False
                self._names[-1].add(step)
                self._out.append(_encode(step).decode() + ":")
            elif number and step:
                return False  # a list that does not begin with its first entry
        return True

    def _close(self, depth: int) -> None:
        """Close what holds the steps of the newest path behind ``depth``."""
        for step in reversed(self._path[depth + 1 :]):
            self._out.append("}" if isinstance(step, str) else "]")
            self._names.pop()


def _path_of(value: Any) -> Path:
    """Return the steps of a path in JSONPath; an empty tuple if it can't be read."""
    if not isinstance(value, str) or value[:1] != "$":
        return ()
    steps: list[str | int] = []
    at = 1
    while at < len(value):
        found = _STEP.match(value, at)
        if found is None:
            return ()
        dotted, index, single, double = found.groups()
        quoted = double if single is None else single
        name = dotted if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        steps.append(int(index) if index is not None else name)
        at = found.end()
    return tuple(steps)
