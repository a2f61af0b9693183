"""A value as far as it has come: its fields so far, and all of it in its type once it is whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import msgspec

from .._types.schemas import ANSWER, read_answer
from .broken import BrokenJSON, UnexpectedValue
from .field_types import Fields, decoded
from .json_fields import Key, Piece, unescaped
from .reading import Reading
from .repair import repaired
from .shapes import Shape, escaped
from .sources import Source

T = TypeVar("T")

_TOKENS: Final = re.compile(
    r'[ \t\n\r,:]*+(?:([{}\[\]])|"((?:[^"\\]++|\\.)*+)(")?|([^\s{}\[\],:"]++))', re.DOTALL
)
_REST: Final = re.compile(r'((?:[^"\\]++|\\.)*+)(")?', re.DOTALL)
_NOTHING: Final = object()


class Tree:
    """Plain values under construction, of JSON whose pieces `MemberReader` has checked."""

    def __init__(self) -> None:
        self._root: Any = _NOTHING
        self._stack: list[Any] = []  # the objects and lists that are open
        self._name: str | None = None  # of the value that comes, in an object
        self._text: list[str] | None = None  # a string that is open, as JSON
        self._joined = True  # the value has all of its text

    def feed(self, text: str) -> None:
        """Take more of the JSON."""
        i = 0
        if self._text is not None:
            found = _REST.match(text)
            assert found is not None
            self._text.append(found[1])
            self._joined = False
            i = found.end()
            if found[2]:
                self._close_text()
        for found in _TOKENS.finditer(text, i):
            bracket, string, closed, word = found.groups()
            if bracket in ("{", "["):
                new: Any = {} if bracket == "{" else []
                self._put(new)
                self._stack.append(new)
            elif bracket:
                self._stack.pop()
            elif word:
                self._put(msgspec.json.decode(word))
            else:
                self._text, self._joined = [string], False
                if closed:
                    self._close_text()

    def _close_text(self) -> None:
        text, self._text = unescaped("".join(self._text or ())), None
        self._joined = True
        self._set(text)

    def _set(self, text: str) -> None:
        """Take a string that is whole: a name, or a value, which may be there in part."""
        top = self._stack[-1] if self._stack else None
        if isinstance(top, dict) and self._name is None:
            self._name = text
        elif isinstance(top, list) and self._shown:
            top[-1] = text
        else:
            self._put(text)
        self._shown = False

    _shown = False  # the open string is in a list already

    def _put(self, value: Any) -> None:
        if not self._stack:
            self._root = value
        elif isinstance(top := self._stack[-1], list):
            top.append(value)
        else:
            top[self._name], self._name = value, None

    def value(self) -> Any:
        """Return the value so far. An open string takes time in proportion to its text."""
        if self._text is not None and not self._joined:
            top = self._stack[-1] if self._stack else None
            if not isinstance(top, dict) or self._name is not None:
                self._show("".join(self._text), top)
        return self._root

    def _show(self, text: str, top: Any) -> None:
        """Put what has come of the open string in its place."""
        text = unescaped(text)
        self._joined = True
        if isinstance(top, dict):
            top[self._name] = text
        elif not isinstance(top, list):
            self._root = text
        elif self._shown:
            top[-1] = text
        else:
            top.append(text)
            self._shown = True


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
        key, text, done, is_text = piece
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
            self._plain[key] = decoded(raw, None, is_text=is_text)
            value = self._whole(piece, self._types.get(str(key)))
            if isinstance(key, str):
                self.whole[key] = value
        except msgspec.DecodeError as error:
            self._mismatch(error, key)

    def members(self) -> dict[Key, Any]:
        """Return the members so far, as plain JSON."""
        out = self._plain
        if self._texts is not None:
            out = {**out, self._key: "".join(self._texts)}
        elif self._tree is not None and (value := self._tree.value()) is not _NOTHING:
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
    """A value of type ``T`` as far as it has come; see `StreamingCompletion.partial`.

    It is brought up to date by each call that returns it, and does not change in between.
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
        """Return whether it is the partial of a type."""
        return repair == self._repair and (type is self._type or type == self._type)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields that have arrived, as plain JSON: an open string with its text so far, an open list
        with what it has. Empty if the value is a list.

        Taking it costs the text of a string that is open.
        """
        members = self._shape.members()
        return MappingProxyType({k: v for k, v in members.items() if isinstance(k, str)})

    @property
    def whole(self) -> Mapping[str, Any]:
        """The fields that are whole, each in the type that ``T`` has for it."""
        return MappingProxyType(self._shape.whole)

    @property
    def data(self) -> Any:
        """All that has arrived, as plain JSON; ``None`` before it has begun."""
        return self._shape.data()

    def update(self, *, finished: bool) -> None:
        """Read what has come meanwhile."""
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

    def _decode(self, text: str) -> None:
        try:
            text = escaped(text) if self._shape.mended else text
            self.value = read_answer(text, Any if self._type is None else self._type, self._asked)
            self.is_whole = True
        except msgspec.DecodeError as error:
            kind = UnexpectedValue if isinstance(error, msgspec.ValidationError) else BrokenJSON
            self.error = kind("the value does not match its type", partial=None)
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
