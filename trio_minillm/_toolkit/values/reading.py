"""One text that is read while it arrives, and what it turns out to be once it is whole.

`Reading` passes over what stands before the JSON (`Dressing`), has a shape read it, and compares in the
end: the whole text, as `undressed` understands it, has the last word. What was given out by then stays;
if it is not what the whole says, the reading is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ..._protocol.arguments import same_json
from .broken import BrokenJSON, UnexpectedValue
from .dressing import Dressing
from .shapes import Shape, escaped
from .sources import Source

T = TypeVar("T")


class Reading(Generic[T]):
    """Reads a text with the shapes that ``make`` makes; `broken` is the error that ended it, if any."""

    def __init__(self, make: Callable[[], Shape[T]]) -> None:
        self._make = make
        self.restart(0)

    def restart(self, offset: int) -> None:
        """Begin anew: what came before this place stands for nothing."""
        self.shape: Shape[T] = self._make()
        self._dressing = Dressing()
        self._offset = offset  # characters before the text that is read
        self._fed = 0  # characters that the shape got
        self._behind = False  # something but spaces follows the JSON
        self._lost = False  # what was taken for the JSON was none, and the end must tell
        self._told = False  # the position of the error was put right
        self._final: str | None = None  # the text, if it was read in the end only

    @property
    def broken(self) -> BrokenJSON | None:
        """The error that ended it; all that was given before is good."""
        error = None if self._lost else self.shape.broken
        if error is not None and not self._told:
            self._told = True
            error.position += self._offset + self._dressing.start
        return error

    @property
    def over(self) -> bool:
        """True once the JSON is whole."""
        return self.shape.over and self.shape.broken is None

    @property
    def given(self) -> int:
        """The number of things that were given."""
        return self.shape.given

    def feed(self, text: str) -> list[T]:
        """Read more, and return what it adds."""
        shape, dressing = self.shape, self._dressing
        if self._lost:
            return []
        if not dressing.begun:
            text = dressing.feed(text)
        if not text:
            return []
        if shape.over:
            self._behind = self._behind or not text.isspace()
            return []
        out = shape.feed(text)
        self._fed += len(text)
        if shape.broken is not None:
            # The whole may turn out to be something else, but what does not match its type.
            sure = dressing.bare and isinstance(shape.broken, UnexpectedValue)
            self._lost = not shape.given and not sure
        elif shape.over and (behind := self._fed - shape.at):
            self._behind = not text[-behind:].isspace()
        return out

    def read(self, source: Source) -> str:
        """Return the JSON that was read."""
        if self._final is not None:
            return self._final[: self.shape.at]
        begin = source.base + self._dressing.start
        return source.whole()[begin : begin + self.shape.at]

    def finish(self, source: Source) -> list[T]:
        """Take note of the end of the source's text, and return what that adds."""
        shape, rest = self.shape, source.rest()
        if self._lost or not (shape.given or shape.over or rest):
            return self._read_anew(source.whole(), source.final())
        if rest is None:
            self._break("the text that was read while it streamed is not the complete answer's")
            return []
        out = self.feed(rest)
        if self._lost or not (shape.given or shape.over):
            return self._read_anew(source.whole(), source.final())
        if shape.broken is not None:
            return out
        if not shape.over:
            return out + shape.finish()
        if not self._dressing.bare or self._behind or source.base:
            self._compare(source)
        return out

    def _compare(self, source: Source) -> None:
        """Break it if the JSON that was read is not the one of the whole text."""
        mine, its = self.read(source).strip(), source.final().strip()
        mine = mine if mine == its else escaped(mine)
        if mine != its and not same_json(mine, its):
            self._break("the complete text is not only the JSON that was read while it streamed")

    def _break(self, why: str) -> None:
        if self.shape.broken is None:
            self.shape.broken = BrokenJSON(why, position=self.shape.at)

    def _read_anew(self, whole: str, text: str) -> list[T]:
        """Read what the text turns out to be; nothing was given before."""
        shape = self.shape = self._make()
        self._lost = self._told = False
        self._dressing = Dressing()
        self._offset = max(whole.find(text), 0)
        self._final = text
        out = shape.feed(text) + shape.finish()
        if shape.broken is None and text[shape.at :].strip():
            self._break("something follows the JSON")
        return out
