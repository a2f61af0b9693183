"""Shapes: the fields that are made of JSON while it arrives, and the base of all that is made of it.

A shape takes text and gives what it adds. It neither waits nor raises: it says that it is `over`, or
`broken` with the error, before which all that it gave is good.
"""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

import msgspec

from ..._protocol.arguments import MAX_MENDED
from ..._types.schemas import ANSWER, JSON_TEXT
from .broken import BrokenJSON, CutJSON, Path, UnexpectedValue, mismatch, path_of_end, words_of
from .field_types import Fields, decoded
from .json_fields import ENDED, Key, MemberReader, Piece

T = TypeVar("T")


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A new part of a field of streamed JSON: more of its text, or its end.

    The joined ``delta`` values of a field are its text: the decoded text of a string (``is_text``),
    or the JSON of any other value.
    """

    name: str
    """The name of the field in the JSON."""
    delta: str = ""
    """The text that is new; it may be empty at the end."""
    done: bool = False
    """True if the field is complete, so nothing more of it follows."""
    value: Any = None
    """The complete value, in the field's type if that is known; ``None`` until the field is
    done."""
    is_text: bool = False
    """True if the value is a string, so that ``delta`` is a part of it."""
    repaired: bool = False
    """True if the model did not write the value like this: it was cut or invalid, and was
    repaired."""

    def __repr__(self) -> str:
        done = ", done" if self.done else ""
        return f"<Field {len(self.delta)} characters{done}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class Shape(Generic[T]):
    """The base of what reads one JSON text."""

    def __init__(self, *, loose: bool = False) -> None:
        self.broken: BrokenJSON | None = None
        """The error that ended it."""
        self.given: int = 0
        """The number of things that were given."""
        self.mended: bool = False
        """True if a string had control characters in it."""
        self._reader = MemberReader(loose=loose)
        self._begun = False  # it is known what the first member is
        self._inner: MemberReader | None = None  # of the JSON in a `JSON_TEXT`
        self._open: list[str] = []  # what has come of the member that is open

    @property
    def over(self) -> bool:
        """True once the JSON is whole."""
        return self._reader.over

    @property
    def at(self) -> int:
        """The number of characters that were read."""
        return self._reader.at

    def feed(self, text: str) -> list[T]:
        """Read more, and return what it adds."""
        out: list[T] = []
        if self.broken is None:
            self._take(self._reader.feed(text), out)
            if self._reader.broken and self.broken is None:
                self._break(BrokenJSON, self._reader.broken)
        self.given += len(out)
        return out

    def finish(self) -> list[T]:
        """Take note of the end of the text; it is broken if the JSON is not whole by then."""
        out: list[T] = []
        if self.broken is None:
            self._take(self._reader.finish(), out)
            if self._reader.broken and self.broken is None:
                self._break(CutJSON, self._reader.broken)
        self.given += len(out)
        return out

    def _take(self, pieces: list[Piece], out: list[T]) -> None:
        raise NotImplementedError

    # -- what the shapes share -------------------------------------------------------------------

    def _break(
        self, kind: type[BrokenJSON], why: str, path: Path | None = None, at: int | None = None
    ) -> None:
        """End it; by default at the place that was reached."""
        path = self._path(None) if path is None else path
        at = self._reader.at if at is None else at
        if kind is CutJSON:
            said = why if why != ENDED else "the answer ended before its JSON did"
        elif kind is UnexpectedValue:
            said = f"{why} - at `{words_of(path, self._names())}`"
        else:
            said = f"the JSON is broken: {why}"
        self.broken = kind(said, position=at, path=path)

    def _path(self, key: Key) -> Path:
        """Return the path of a member, or else of the place that was reached."""
        if key is not None:
            return (key,)
        if self._reader.key is None:
            return ()
        return (self._reader.key, *path_of_end("".join(self._open)))

    def _names(self) -> Fields:
        """Return the fields of the type, for the words of an error."""
        return {}

    def _unfolded(self, pieces: list[Piece], types: Fields) -> list[Piece]:
        """Return the pieces of an object, which may have come as JSON in a text (`JSON_TEXT`).

        Breaks it if the root is no object.
        """
        reader = self._reader
        if not self._begun and reader.root:
            if reader.root != "{":
                self._break(UnexpectedValue, "the answer is not an object", (), reader.start)
                return []
            if not pieces and not reader.over:
                return []
            self._begun = True
            if pieces and pieces[0][::3] == (JSON_TEXT, True) and JSON_TEXT not in types:
                self._inner = MemberReader()
        inner = self._inner
        if inner is None:
            return pieces
        out: list[Piece] = []
        for piece in pieces:
            if piece.key == JSON_TEXT:
                out += inner.feed(piece.text)
                out += inner.finish() if piece.done else []
        if inner.root not in ("", "{"):
            self._break(UnexpectedValue, "the answer is not an object", (JSON_TEXT,))
        elif inner.broken:
            self._break(BrokenJSON, inner.broken)
        return out

    def _whole(self, piece: Piece, type: Any) -> Any:
        """Return the value of a member whose last piece has come.

        Raises `msgspec.DecodeError` if it does not match its type.
        """
        self._open.append(piece.text)
        text = self._open[0] if len(self._open) == 1 else "".join(self._open)
        self._open.clear()
        if piece.mended:
            self.mended = True
            text = text if piece.is_text else escaped(text)
        return decoded(text, type, is_text=piece.is_text)

    def _mismatch(self, error: Exception, piece: Piece) -> None:
        path = self._path(piece.key)
        if isinstance(error, msgspec.ValidationError):
            self.broken = mismatch(error, piece.at, path, self._names())
            return
        self._break(BrokenJSON, "a value that can't be read", path, piece.at)
        assert self.broken is not None
        self.broken.__cause__ = error.with_traceback(None)


class FieldShape(Shape[Field]):
    """The fields of an object.

    ``types`` are those of its fields, as far as they are known. An answer that was asked for in an
    object (``wrapped``) is the field `ANSWER`, of ``type``, also if the model left the object out.
    """

    def __init__(
        self, types: Fields, *, wrapped: bool = False, type: Any = None, loose: bool = False
    ) -> None:
        super().__init__(loose=loose)
        self.types: Fields = {ANSWER: type} if wrapped else types
        self._wrapped = wrapped
        self._text: list[str] | None = [] if wrapped else None  # until it is known what the root is
        self._bare = False  # the object was left out: the root is the answer
        self._held = ""  # of the root's text, what was not read yet

    def feed(self, text: str) -> list[Field]:
        """Read more, and return what it adds."""
        if not self._wrapped:
            return super().feed(text)
        return self._feed_wrapped(text)

    def _names(self) -> Fields:
        return self.types

    def _take(self, pieces: list[Piece], out: list[Field]) -> None:
        broken = self.broken
        pieces = self._unfolded(pieces, self.types)
        after, self.broken = self.broken, broken
        for piece in pieces:
            self._give(piece, out)
            if self.broken is not None:
                return
        self.broken = after

    def _give(self, piece: Piece, out: list[Field]) -> None:
        key, text, done, is_text, _, mended = piece
        name = str(key)
        if not done:
            self._open.append(text)
            out.append(Field(name=name, delta=text, is_text=is_text, repaired=mended))
            return
        try:
            value = self._whole(piece, self.types.get(name))
        except msgspec.DecodeError as error:
            if text:
                out.append(Field(name=name, delta=text, is_text=is_text))
            self._mismatch(error, piece)
            return
        out.append(
            Field(name=name, delta=text, done=True, value=value, is_text=is_text, repaired=mended)
        )

    # -- answers that are asked for in an object -------------------------------------------------

    def _feed_wrapped(self, text: str) -> list[Field]:
        """Read more of an answer of which it may not be known yet if it is in its object."""
        reader, out = self._reader, list[Field]()
        if self.broken is not None:
            return out
        before = reader.at
        pieces = reader.feed(text)
        if self._bare:
            self._give_root(self._held + text, reader.at - before, out)
        elif self._begun:
            self._give_answer(pieces, out)
        else:
            assert self._text is not None
            self._text.append(text)
            if pieces and reader.root == "{" and pieces[0].key == ANSWER:
                self._begun, self._text = True, None
                self._give_answer(pieces, out)
            elif pieces and pieces[0].key is None:  # a scalar
                self._begun, self._text = True, None
                self._give_answer([p._replace(key=ANSWER) for p in pieces], out)
            elif pieces or reader.over or reader.root == "[":
                self._bare = self._begun = True
                whole = "".join(self._text)[reader.start :]
                self._text = None
                self._give_root(whole, reader.at - reader.start, out)
        if reader.broken and self.broken is None:
            self._break(BrokenJSON, reader.broken)
        self.given += len(out)
        return out

    def finish(self) -> list[Field]:
        """Take note of the end of the text; it is broken if the JSON is not whole by then."""
        if not self._wrapped:
            return super().finish()
        out: list[Field] = []
        if self.broken is None:
            pieces = self._reader.finish()
            if not self._bare:
                self._give_answer([p._replace(key=ANSWER) for p in pieces], out)
            if self._reader.broken and self.broken is None:
                self._break(CutJSON, self._reader.broken)
        self.given += len(out)
        return out

    def _give_root(self, text: str, size: int, out: list[Field]) -> None:
        """Give the root's own text as the answer's."""
        self._held = text[size:]
        self._give(Piece(ANSWER, text[:size], self.over, False, self._reader.at), out)

    def _give_answer(self, pieces: list[Piece], out: list[Field]) -> None:
        for piece in pieces:
            if piece.key != ANSWER:
                said = "the answer has another field besides its own"
                self._break(UnexpectedValue, said, self._path(piece.key), piece.at)
                return
            self._give(piece, out)
            if self.broken is not None:
                return


def escaped(text: str) -> str:
    """Return JSON with the control characters in its strings as escapes; longer than a bound, as it is."""
    if len(text) > MAX_MENDED:
        return text
    return re.sub(_STRING, lambda string: string[0].translate(_ESCAPES), text)


_STRING = r'"(?:[^"\\]++|\\.)*+"'
_ESCAPES = {number: f"\\u{number:04x}" for number in range(32)}
