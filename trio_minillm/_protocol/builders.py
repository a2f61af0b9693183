"""Parts of an answer under construction: text, reasoning, calls, and blocks kept as they are.

Each takes pieces in O(1) and is joined once. The machine in `_ingest` says which piece goes where.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from .._types.chunks import ToolCallDelta
from .._types.messages import OpaquePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCall

LONG_ARGUMENTS = 16 * 1024
"""Arguments beyond this, in characters, are not read again and again to see if they are whole."""

_checked = msgspec.json.Decoder(msgspec.Raw).decode


class TextBuilder:
    """A text, refusal or reasoning part under construction."""

    __slots__ = ("citations", "details", "kind", "pieces", "signature", "start", "whole")

    def __init__(self, kind: str, start: dict[str, Any] | None = None) -> None:
        self.kind = kind
        self.start = start
        self.whole: list[str] = []  # pieces joined by the thousand, which saves their overhead
        self.pieces: list[str] = []
        self.citations: list[dict[str, Any]] = []
        self.signature: list[str] = []
        self.details: list[DetailBuilder] = []

    def text(self) -> str:
        return joined_up(self)

    def parts(self, wire: str) -> Iterable[Part]:
        text = self.text()
        if self.kind == "text":
            if text or self.citations:
                yield TextPart(text, citations=tuple(self.citations))
        elif self.kind == "refusal":
            yield RefusalPart(text)
        elif self.details:
            for detail in self.details:
                yield detail.part(wire)
        elif self.start is None and not self.signature:
            yield ReasoningPart(text=text, wire=wire)
        elif self.start is not None and self.start.get("type") == "redacted_thinking":
            data = self.start.get("data")
            yield ReasoningPart(encrypted=data, wire=wire, raw=self.start)
        else:
            signature = "".join(self.signature)
            start = self.start or {"type": "thinking"}  # signed, though it never began
            raw = {**start, "thinking": text, "signature": signature}
            yield ReasoningPart(text=text, signature=signature or None, wire=wire, raw=raw)


class DetailBuilder:
    """One of OpenRouter's reasoning blocks, whose pieces come with one type and index."""

    __slots__ = ("key", "pieces", "raw")

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = dict(raw)
        self.key = {"reasoning.text": "text", "reasoning.summary": "summary"}.get(
            str(raw.get("type")), ""
        )
        piece = raw.get(self.key)
        self.pieces: list[str] = [piece] if isinstance(piece, str) else []

    def takes(self, raw: dict[str, Any]) -> bool:
        """Whether a new piece continues this block."""
        old, new = self.raw.get("id"), raw.get("id")
        same_id = old is None or new is None or old == new
        same = raw.get("type") == self.raw.get("type") and raw.get("index") == self.raw.get("index")
        return bool(self.key) and same and same_id

    def add(self, raw: dict[str, Any]) -> None:
        for key, value in raw.items():
            if key == self.key:
                if isinstance(value, str):
                    self.pieces.append(value)
            elif value not in (None, "") or key not in self.raw:
                self.raw[key] = value  # signatures come late; empty ones never overwrite

    def part(self, wire: str) -> ReasoningPart:
        raw = self.raw
        if self.key and (self.pieces or self.key in raw):
            raw = {**raw, self.key: "".join(self.pieces) if self.pieces else raw[self.key]}
        data, signature = raw.get("data"), raw.get("signature")
        return ReasoningPart(
            text="".join(self.pieces),
            signature=signature if isinstance(signature, str) and signature else None,
            encrypted=data if isinstance(data, str) else None,
            wire=wire,
            raw=raw,
        )


class CallBuilder:
    """A tool call under construction, or a server tool's block, whose input comes alike."""

    __slots__ = ("extra", "id", "kind", "name", "pieces", "size", "start", "whole")

    def __init__(self, start: dict[str, Any] | None = None) -> None:
        self.start = start  # a server tool's block
        self.id: str | None = None
        self.name: str | None = None
        self.kind = "function"
        self.extra: dict[str, Any] | None = None
        self.whole: list[str] = []
        self.pieces: list[str] = []
        self.size = 0

    def add(self, delta: ToolCallDelta) -> None:
        if delta.id and not self.id:
            self.id = delta.id
        if delta.name and not self.name:
            self.name = delta.name
        if delta.arguments:
            self.pieces.append(delta.arguments)
            self.size += len(delta.arguments)
        if delta.extra:
            self.extra = {**(self.extra or {}), **delta.extra}
        if delta.type == "custom":
            self.kind = "custom"

    def arguments(self) -> str:
        return joined_up(self)

    def whole_json(self) -> bool:
        """Whether what came so far can be the whole: a JSON object, or nothing at all."""
        text = self.arguments().strip() or "{}"
        try:
            _checked(text)  # no objects are made of it: that takes 25 times as long
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return False
        return text[0] == "{" or text == "null"

    def open(self) -> bool:
        """Whether arguments have begun and are not whole yet, as far as that is worth finding out."""
        return bool(self.size) and (self.size >= LONG_ARGUMENTS or not self.whole_json())

    def call(self, number: int) -> ToolCall:
        return ToolCall(
            id=self.id or f"call_{number}",  # some servers name none, and the answer needs one
            name=self.name or "",
            arguments=self.arguments(),
            type="custom" if self.kind == "custom" else "function",
            extra=self.extra,
        )

    def opaque(self, wire: str) -> OpaquePart:
        raw = dict(self.start or {})
        if self.arguments() and self.whole_json():
            raw["input"] = msgspec.json.decode(self.arguments().strip() or "{}")
        return OpaquePart(wire=wire, raw=raw)


def compact(part: TextBuilder | CallBuilder) -> None:
    """Move the pieces into one string. A short piece costs 50 bytes beside its text."""
    if part.pieces:
        part.whole.append("".join(part.pieces))
        part.pieces.clear()


def joined_up(part: TextBuilder | CallBuilder) -> str:
    compact(part)
    if len(part.whole) > 1:
        part.whole = ["".join(part.whole)]
    return part.whole[0] if part.whole else ""


def another_call(found: CallBuilder, delta: ToolCallDelta) -> bool:
    """Whether a named delta without id is a call of its own: another name is, and so is the
    same name again when a new object begins behind a whole one.
    """
    return delta.name != found.name or (
        delta.arguments.lstrip().startswith("{")
        and found.size < LONG_ARGUMENTS
        and found.whole_json()
    )


def join_fields(into: dict[str, Any], new: dict[str, Any]) -> None:
    """Lists and strings grow, other values are replaced, nulls say nothing."""
    for key, value in new.items():
        there = into.get(key)
        if isinstance(value, list):
            if type(there) is list:
                there += value
            else:
                into[key] = list(value)
        elif isinstance(value, str) and key != "id":
            if not isinstance(there, Pieces):
                there = into[key] = Pieces()
            there.append(value)
        elif value is not None:
            into[key] = value


class Pieces(list[str]):
    """Pieces of one string."""


def joined_fields(found: dict[str, Any]) -> dict[str, Any] | None:
    out = {k: "".join(v) if isinstance(v, Pieces) else v for k, v in found.items()}
    return out or None
