"""A value as far as it has come: its fields so far, and all of it in its type once it is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec

from ..._types.schemas import ANSWER, read_answer
from .broken import BrokenJSON, mismatch
from .field_types import Fields, decoded
from .json_fields import Key, Piece
from .reading import Reading
from .repair import repaired
from .shapes import Shape, escaped
from .sources import Source
from .tree import NOTHING, Tree

T = TypeVar("T")


class PartialShape(Shape[None]):
    """The members of an object or a list, as far as they have come."""

    def __init__(
        self, types: Fields, *, wrapped: bool = False, type: Any = None, loose: bool = False
    ) -> None:
        super().__init__(loose=loose)
        self._types: Fields = {ANSWER: type} if wrapped else types
        self._wrapped = wrapped
        self._plain: dict[Key, Any] = {}  # members that are whole
        self._key: Key = None
        self._texts: list[str] | None = None  # the open member, if it is a string
        self._tree: Tree | None = None  # or else
        self.whole: dict[str, Any] = {}
        """The fields that are whole, in their own types."""

    def _names(self) -> Fields:
        return self._types

    def _take(self, pieces: list[Piece], out: list[None]) -> None:
        root, broken = self._reader.root, self.broken
        if root == "{" and not self._wrapped:
            pieces = self._unfolded(pieces, self._types)
        after, self.broken = self.broken, broken
        for piece in pieces:
            self._add(piece)
            out.append(None)
            if self.broken is not None:
                return
        self.broken = after

    def _add(self, piece: Piece) -> None:
        key, text, done, is_text, *_ = piece
        if not self._open and (self._texts, self._tree) == (None, None):
            self._key = key
            self._texts, self._tree = ([], None) if is_text else (None, Tree())
        if not done:
            self._open.append(text)
            if self._texts is not None:
                self._texts.append(text)
            elif self._tree is not None:
                self._tree.feed(text)
            return
        raw = "".join([*self._open, text])
        self._texts = self._tree = None
        try:
            type = self._types.get(str(key))
            value = self._whole(piece, type)
            self._plain[key] = value if type is None else decoded(raw, None, is_text=is_text)
            if isinstance(key, str):
                self.whole[key] = value
        except msgspec.DecodeError as error:
            self._mismatch(error, piece)

    def members(self) -> dict[Key, Any]:
        """Return the members so far, as plain JSON."""
        out = self._plain
        if self._texts is not None:
            out = {**out, self._key: "".join(self._texts)}
        elif self._tree is not None and (value := self._tree.value()) is not NOTHING:
            out = {**out, self._key: value}
        return out

    def data(self) -> Any:
        """Return all of it so far, as plain JSON."""
        members = self.members()
        if not self._reader.root:
            return None
        if self._reader.root == "[":
            return list(members.values())
        if self._wrapped and members.keys() <= {ANSWER}:
            return members.get(ANSWER)
        return members.get(None) if None in members else dict(members)


class Partial(Generic[T]):
    """The part of a value of type ``T`` that has arrived; see `StreamingCompletion.partial`.

    Each call that returns it updates it. It does not change in between.
    """

    def __init__(
        self,
        make: Callable[[], PartialShape],
        source: Source,
        type: Any,
        asked: Any,
        *,
        repair: bool,
    ) -> None:
        self.value: T | None = None
        """The value, once it is whole and matches its type; ``None`` before."""
        self.is_whole: bool = False
        """True once `value` is there, which may be ``None`` itself in a type that has that value."""
        self.error: BrokenJSON | None = None
        """The reason why there will be no value: the JSON is broken, was cut, or does not match."""
        self.repaired: bool = False
        """True if the model did not write the value like this: it was mended."""
        self._shape = make()
        self._make = make
        self._reading = Reading(self._shape_made)
        self._source = source
        self._type = type
        self._asked = asked
        self._repair = repair
        self._ended = False

    def _shape_made(self) -> PartialShape:
        self._shape = self._make()
        return self._shape

    def is_of(self, type: Any, *, repair: bool) -> bool:
        """Return whether this is the partial value of a type."""
        return repair == self._repair and (type is self._type or type == self._type)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields that have arrived, as plain JSON; empty if the value is a list.

        An unfinished string has its text so far, and an unfinished list its elements so far.
        Reading this takes time in proportion to the text of an unfinished string.
        """
        members = self._shape.members()
        return MappingProxyType({k: v for k, v in members.items() if isinstance(k, str)})

    @property
    def whole(self) -> Mapping[str, Any]:
        """The complete fields, each in the type that ``T`` gives it."""
        return MappingProxyType(self._shape.whole)

    @property
    def data(self) -> Any:
        """Everything that has arrived, as plain JSON; ``None`` before the value starts."""
        return self._shape.data()

    def update(self, *, finished: bool) -> None:
        """Read what has arrived since the last update."""
        reading, source = self._reading, self._source
        if self._ended:
            return
        if text := source.take():
            if source.restarted is not None and not reading.given:
                reading.restart(source.restarted)
            reading.feed(text)
        if finished:
            self._ended = True
            reading.finish(source)
        self.error = reading.broken
        if (
            self.error is None
            and reading.over
            and not self.is_whole
            and (reading.given or finished)
        ):
            self._decode(reading.read(source))
        if self.error is not None:
            self.value, self.is_whole = None, False
            if finished and self._repair:
                self._mend()
        if self.error is not None and not self.error.text:
            self.error.came_in(self.error.response, source.whole())

    def _decode(self, text: str) -> None:
        try:
            text = escaped(text) if self._shape.mended else text
            self.value = read_answer(text, Any if self._type is None else self._type, self._asked)
            self.is_whole = True
        except msgspec.ValidationError as error:
            self.error = mismatch(error, self._shape.at)
        except msgspec.DecodeError as error:
            self.error = BrokenJSON("a value that can't be read")
            self.error.__cause__ = error.with_traceback(None)

    def _mend(self) -> None:
        text = repaired(self._source.final())
        if text is None:
            return
        broken, before = self.error, self._shape
        shape = self._shape_made()
        shape.feed(text)
        shape.finish()
        self.error = shape.broken
        if self.error is None:
            self._decode(text)
        self.repaired = self.is_whole
        if not self.is_whole:
            self.error, self._shape = broken, before

    def __repr__(self) -> str:
        return f"<Partial {len(self._shape.whole)} fields whole>"

    def __rich_repr__(self) -> Any:
        yield repr(self)
