"""Rows of any dataset as lines of a batch's input, by the columns that hold what is asked. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from .request_format import ENVELOPE, JSON_FIELDS, PARAMETERS, SHORT, check_known

MAX_NAMES = 50
"""Names of columns that are kept for messages."""
MAX_LAYOUTS = 256
"""Sets of columns that are remembered at a time."""


class _Layout(msgspec.Struct, frozen=True):
    """The columns of some rows, by what becomes of them."""

    ours: tuple[str, ...]
    others: tuple[str, ...]


class Columns:
    """Rows as lines of the short form, or of OpenAI's.

    ``key``, ``prompt`` and ``system`` are columns, each in place of our fields of that kind. Columns
    that are neither named nor fields of ours go into the line's ``meta``; ``strict`` refuses them.
    With ``prompt`` and without ``key``, a row that has no ``key`` or ``custom_id`` gets its number.
    """

    def __init__(
        self, *, key: str | None, prompt: str | None, system: str | None, strict: bool
    ) -> None:
        self._key = key
        self._prompt = prompt
        self._system = system
        self._strict = strict
        self._named = {c for c in (key, prompt, system) if c is not None}
        self._replaced = {
            *(("key", "custom_id") if key is not None else ()),
            *(("prompt", "messages", "body") if prompt is not None else ()),
            *(("system", "body") if system is not None else ()),
        }
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._seen: dict[str, None] = {}
        self._as_meta: dict[str, None] = {}
        self._as_params: dict[str, None] = {}
        self.json: Collection[str] = JSON_FIELDS - self._named - self._replaced
        """Columns that may hold something else than text."""

    def line(self, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row as a line. Raises ``ValueError`` for a row without a named column."""
        columns = tuple(row)
        layout = self._layouts.get(columns) or self._layout(columns)
        line = {name: row[name] for name in layout.ours}
        if self._key is not None:
            line["custom_id"] = _value(row, self._key, "key")
        elif self._prompt is not None and "key" not in line and "custom_id" not in line:
            line["key"] = str(number)
        if self._prompt is not None:
            asked = _value(row, self._prompt, "prompt")
            line["messages" if _are_messages(asked) else "prompt"] = asked
        if self._system is not None:
            line["system"] = row.get(self._system)
        meta = line.get("meta")
        if layout.others:
            own = {} if meta is None else meta if isinstance(meta, dict) else {"meta": meta}
            line["meta"] = {name: row[name] for name in layout.others} | own
        return line

    def missing(self) -> str | None:
        """Return words for a named column that no row had, ``None`` if there is none such."""
        if not self._seen:
            return None
        kinds = {"key": self._key, "prompt": self._prompt, "system": self._system}
        for kind, name in kinds.items():
            if name is not None and name not in self._seen:
                folded = {seen.casefold(): seen for seen in self._seen}
                close = get_close_matches(name.casefold(), folded, 1)
                hint = f" (did you mean {folded[close[0]]}?)" if close else ""
                there = ", ".join(self._seen)[:500]
                return f"no line has a field {name} for the {kind}{hint}; there are: {there}"
        return None

    def told(self) -> tuple[list[str], list[str]]:
        """Return the columns that went into metas, and those that are sent as parameters, since they
        have such a name.
        """
        return list(self._as_meta), list(self._as_params)

    def _layout(self, columns: tuple[str, ...]) -> _Layout:
        for name in columns:
            _note(self._seen, name, always=name in self._named)
        known = ENVELOPE if "body" in columns and "body" not in self._replaced else SHORT
        known = known - self._replaced
        rest = [name for name in columns if name not in self._named]
        if self._strict:
            check_known(rest, known, named=True)
        ours = tuple(name for name in rest if name in known)
        others = tuple(name for name in rest if name not in known)
        for name in others:
            _note(self._as_meta, name)
        for name in ours:
            if name in PARAMETERS:
                _note(self._as_params, name)
        if len(self._layouts) >= MAX_LAYOUTS:
            self._layouts.clear()
        layout = self._layouts[columns] = _Layout(ours, others)
        return layout


def _note(names: dict[str, None], name: str, *, always: bool = False) -> None:
    if always or len(names) < MAX_NAMES:
        names[name] = None


def _value(row: Mapping[str, Any], name: str, kind: str) -> Any:
    value = row.get(name)
    if value is None:
        raise ValueError(f"no {name}, which is the {kind}")
    return value


def _are_messages(asked: Any) -> bool:
    """Return whether a prompt is a list of messages, as some datasets have it."""
    return isinstance(asked, list) and all(isinstance(m, dict) and "role" in m for m in asked)
