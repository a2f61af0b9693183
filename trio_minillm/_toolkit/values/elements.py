"""The elements of a list while it arrives, each as soon as it is whole."""

from __future__ import annotations

from typing import Any

import msgspec

from ..._types.schemas import ANSWER, JSON_TEXT
from .broken import BrokenJSON, Path, UnexpectedValue, path_of_end
from .field_types import Fields
from .json_fields import Key, MemberReader, Piece
from .shapes import Shape


class ElementShape(Shape[Any]):
    """The elements of a list: the root's, or those of one field of an object.

    ``field`` is the list's name, or ``None`` for a list at the root; one that is asked for in an object
    (``wrapped``) is looked for at both places. ``type`` is that of the elements.
    """

    def __init__(
        self, type: Any, *, field: str | None = None, wrapped: bool = False, loose: bool = False
    ) -> None:
        super().__init__(loose=loose)
        self._type = type
        self._field = ANSWER if wrapped else field
        self._root_too = wrapped or field is None
        self._list: MemberReader | None = None  # of the field
        self._text: MemberReader | None = None  # of a list that comes as text
        self.found: bool = False
        """True once the list has begun."""

    def _path(self, key: Key) -> Path:
        if self._list is None:
            return super()._path(key)
        if key is not None:
            return (self._field or "", key) if isinstance(key, int) else (key,)
        steps = (self._field or "", (self._text or self._list).key)
        return (*(x for x in steps if x is not None), *path_of_end("".join(self._open)))

    def _names(self) -> Fields:
        return {} if self._field is None else {self._field: None}

    def _take(self, pieces: list[Piece], out: list[Any]) -> None:
        reader = self._reader
        if reader.root == "[" and self._root_too:
            self.found = True
            self._give(pieces, out)
            return
        if reader.root and (reader.root != "{" or self._field is None):
            self._break(UnexpectedValue, "the answer is not a list", (), reader.start)
            return
        for piece in pieces:
            if piece.key == self._field:
                self._take_field(piece, out)
            if self.broken is not None:
                return
        if reader.over and not self.found and self.broken is None:
            self._break(UnexpectedValue, "the answer has no such list", ())

    def _take_field(self, piece: Piece, out: list[Any]) -> None:
        """Take more of the field's JSON."""
        if self._list is None or (self._list.over and piece.text):
            self._list, self._text = MemberReader(), None  # or once more, under the same name
        if piece.is_text:
            self._no_list(piece)
            return
        inner = self._list.feed(piece.text)
        if piece.done:
            inner += self._list.finish()
        if self._list.root == "[":
            self.found = True
            self._give(inner, out)
        elif self._list.root == "{" and (not inner or inner[0].key == JSON_TEXT):
            self._take_text(inner, out)
        elif piece.done and piece.text.strip() == "null":
            self.found = True
        elif self._list.root or piece.done:
            self._no_list(piece)

    def _no_list(self, piece: Piece) -> None:
        path = () if piece.key is None else (piece.key,)
        self._break(UnexpectedValue, "the value is not a list", path, piece.at)

    def _take_text(self, pieces: list[Piece], out: list[Any]) -> None:
        """Take more of a list that comes as text, in place of one that could not be asked for."""
        for piece in pieces:
            self._text = self._text or MemberReader()
            inner = self._text.feed(piece.text)
            if self._text.root == "[":
                self.found = True
                self._give(inner, out)
            if self._text.broken or self._text.root not in ("", "["):
                self._break(BrokenJSON, self._text.broken or "a list is missing")
                return

    def _give(self, pieces: list[Piece], out: list[Any]) -> None:
        for piece in pieces:
            if not piece.done:
                self._open.append(piece.text)
                continue
            try:
                out.append(self._whole(piece, self._type))
            except msgspec.DecodeError as error:
                self._mismatch(error, piece)
                return
