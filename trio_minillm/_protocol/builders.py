"""Parts of a choice under construction: text and reasoning (`calls` has the tool calls).

Each takes pieces in O(1) and is joined once. `ChoiceBuilder` decides which piece goes where.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from .._types.messages import Part, ReasoningPart, RefusalPart, TextPart


class Place:
    """A place in a `Joined`: so much of it was read."""

    __slots__ = ("blocks", "chars", "pieces", "whole")

    def __init__(self) -> None:
        self.chars: int = 0
        """The number of characters before it."""
        self.whole: list[str] | None = None  # those of the pieces before it that were joined …
        self.blocks: int = 0
        self.pieces: int = 0  # … and the number of the others


_NO_BLOCKS: list[str] = []
"""The joined pieces of every string without any; nothing is put into it."""


class Joined:
    """A string that grows by pieces, which are joined when it is asked for."""

    __slots__ = ("_whole", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._whole = _NO_BLOCKS  # pieces that `compact` has joined, by the thousand

    def compact(self) -> None:
        """Join the pieces so far. A short piece costs 50 bytes beside its text."""
        if self.pieces:
            if not self._whole:
                self._whole = []
            self._whole.append("".join(self.pieces))
            self.pieces.clear()

    def joined(self) -> str:
        """Return the string so far."""
        whole, pieces = self._whole, self.pieces
        if pieces:
            if not whole:
                self._whole = whole = []
            whole.append("".join(pieces))
            pieces.clear()
        if len(whole) > 1:
            self._whole = whole = ["".join(whole)]
        return whole[0] if whole else ""

    def rest_of(self, whole: str) -> str:
        """Return what of a string is still to come, if what came is its beginning; otherwise nothing."""
        said = self.joined()
        return whole[len(said) :] if whole.startswith(said) else ""

    def _replace(self, whole: str) -> None:
        """Put another string in the place of all pieces."""
        self.pieces[:] = (whole,)
        self._whole = _NO_BLOCKS

    def since(self, place: Place) -> str:
        """Return what has come behind a place, and move the place to the end.

        It takes time in proportion to what has come, but for the times at which pieces were joined
        meanwhile: then also to the number of joined blocks, a thousandth of the pieces.
        """
        whole, pieces = self._whole, self.pieces
        if place.whole is whole and place.blocks == len(whole):
            new = pieces[place.pieces :]
        else:
            left = sum(map(len, whole)) + sum(map(len, pieces)) - place.chars
            new = []
            for piece in chain(reversed(pieces), reversed(whole)):
                if left <= 0:
                    break
                new.append(piece[-left:] if len(piece) > left else piece)
                left -= len(piece)
            new.reverse()
        place.whole, place.blocks, place.pieces = whole, len(whole), len(pieces)
        text = new[0] if len(new) == 1 else "".join(new)
        place.chars += len(text)
        return text


class Additions:
    """The contents of a text part beside its text; few parts have any."""

    __slots__ = ("citations", "details", "signature")

    def __init__(self) -> None:
        self.citations: list[dict[str, Any]] = []
        self.signature: list[str] = []
        self.details: list[DetailBuilder] = []


_NOTHING = Additions()
"""The additions of every part without any, where they are read."""


class TextBuilder(Joined):
    """A text, refusal or reasoning part under construction."""

    __slots__ = ("_additions", "kind", "start")

    def __init__(self, kind: str, start: dict[str, Any] | None = None) -> None:
        # As `Joined` does, without a call: almost every answer has one of these.
        self.pieces: list[str] = []
        self._whole = _NO_BLOCKS
        self.kind: str = kind
        self.start: dict[str, Any] | None = start
        """The content block as it was opened, on wires with blocks."""
        self._additions: Additions | None = None

    @property
    def additions(self) -> Additions:
        """The place for what comes beside the text."""
        if self._additions is None:
            self._additions = Additions()
        return self._additions

    @property
    def is_plain(self) -> bool:
        """True if it is text, and has nothing beside that."""
        return (
            self.kind == "text"
            and not (self._additions or _NOTHING).citations
            and (self.start is None or not self.start.get("item"))
        )

    @property
    def said(self) -> bool:
        """True if there is more in it than spaces."""
        return bool(self.joined().strip())

    def parts(self, wire: str) -> Iterable[Part]:
        """Yield the parts that it has become; several where reasoning came in blocks."""
        text, additions = self.joined(), self._additions or _NOTHING
        if self.kind == "text":
            if text or additions.citations:
                extra = None if self.start is None else self._extra(self.start)
                yield TextPart(text, citations=tuple(additions.citations), extra=extra)
        elif self.kind == "refusal":
            yield RefusalPart(text, None if self.start is None else self._extra(self.start))
        elif additions.details:
            for detail in additions.details:
                yield detail.part(wire)
        elif self.start is None and not additions.signature:
            yield ReasoningPart(text=text, wire=wire)
        elif self.start is not None and self.start.get("type") == "reasoning":
            data = self.start.get("encrypted_content")
            yield ReasoningPart(
                text=text,
                encrypted=data if isinstance(data, str) and data else None,
                wire=wire,
                raw=self.start if len(self.start) > 1 else None,  # it never ended
            )
        elif self.start is not None and self.start.get("type") == "redacted_thinking":
            data = self.start.get("data")
            yield ReasoningPart(encrypted=data, wire=wire, raw=self.start)
        else:
            signature = "".join(additions.signature)
            # One that was never opened has nothing but these two.
            opened = self.start is not None
            raw = (
                {**(self.start or {}), "thinking": text, "signature": signature} if opened else None
            )
            yield ReasoningPart(text=text, signature=signature or None, wire=wire, raw=raw)

    @staticmethod
    def _extra(start: dict[str, Any]) -> dict[str, Any] | None:
        item = start.get("item")
        return {"item": item} if item else None


class DetailBuilder:
    """One of OpenRouter's reasoning blocks, whose pieces share a type and an index."""

    __slots__ = ("key", "pieces", "raw")

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = dict(raw)
        self.key = {"reasoning.text": "text", "reasoning.summary": "summary"}.get(
            str(raw.get("type")), ""
        )
        piece = raw.get(self.key)
        self.pieces: list[str] = [piece] if isinstance(piece, str) else []

    def takes(self, raw: dict[str, Any]) -> bool:
        """Return whether a new piece continues this block."""
        old, new = self.raw.get("id"), raw.get("id")
        same_id = old is None or new is None or old == new
        same = raw.get("type") == self.raw.get("type") and raw.get("index") == self.raw.get("index")
        return bool(self.key) and same and same_id

    def add(self, raw: dict[str, Any]) -> None:
        """Take a piece that continues this block."""
        for key, value in raw.items():
            if key == self.key:
                if isinstance(value, str):
                    self.pieces.append(value)
            elif value not in (None, "") or key not in self.raw:
                self.raw[key] = value  # signatures come late; empty ones never overwrite

    def part(self, wire: str) -> ReasoningPart:
        """Return the part that it has become."""
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


class _Pieces(list[str]):
    """Pieces of one string, told apart from a list of strings by their type."""


def join_fields(into: dict[str, Any], new: dict[str, Any]) -> None:
    """Add a piece of an object: lists and strings grow, other values are replaced, and null
    changes nothing. `joined_fields` ends it.
    """
    for key, value in new.items():
        there = into.get(key)
        if isinstance(value, list):
            if type(there) is list:
                there += value
            else:
                into[key] = list(value)
        elif isinstance(value, str) and key != "id":
            if not isinstance(there, _Pieces):
                there = into[key] = _Pieces()
            there.append(value)
        elif value is not None:
            into[key] = value


def joined_fields(found: dict[str, Any]) -> dict[str, Any] | None:
    """Return what `join_fields` has put together; ``None`` if that is nothing."""
    if not found:
        return None
    return {k: "".join(v) if isinstance(v, _Pieces) else v for k, v in found.items()}
