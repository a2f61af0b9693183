"""The texts that are read while they arrive: an answer's, and the arguments of a call.

The builders of `_protocol` decide what belongs where. A source reads what has come to them since it last
looked, whoever has taken the chunks meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..._protocol.arguments import PLACEHOLDERS
from ..._protocol.builders import Place, TextBuilder
from ..._protocol.calls import CallBuilder
from ..._protocol.choice import ChoiceBuilder
from ..._protocol.ingest import Ingest
from ..._types.schemas import undressed


class Source(Protocol):
    """A text that grows."""

    base: int
    """The place at which the text begins that counts."""
    restarted: int | None
    """The same place, if the text has begun anew with what was taken last."""

    def take(self) -> str:
        """Return what has come since it was last asked."""
        ...

    def whole(self) -> str:
        """Return all that has come, as it came."""
        ...

    def final(self) -> str:
        """Return the JSON in the text, once the answer is over."""
        ...

    def rest(self) -> str | None:
        """Return what `take` has not returned once the answer is over; ``None`` if it has returned
        something else than the text that came.
        """
        ...


class ContentSource:
    """The text of the first choice, without reasoning and refusal."""

    restarted: int | None = None
    base: int = 0

    def __init__(self, ingest: Callable[[], Ingest]) -> None:
        self._ingest = ingest
        # Where the numbers of choices count pieces, the others are read in the end.
        self._choice: ChoiceBuilder | None = None
        self._part = 0  # the number of its parts that were looked at
        self._read: list[tuple[TextBuilder, Place]] = []

    def take(self) -> str:
        """Return what has come since it was last asked."""
        choice = self._choice = self._choice or self._first_with_text()
        if choice is None:
            return ""
        out: list[str] = []
        if self._read:
            builder, place = self._read[-1]
            out.append(builder.since(place))
        for part in choice.parts[self._part :]:
            if isinstance(part, TextBuilder) and part.kind == "text":
                place = Place()
                self._read.append((part, place))
                out.append(part.since(place))
        self._part = len(choice.parts)
        return out[0] if len(out) == 1 else "".join(out)

    def _first_with_text(self) -> ChoiceBuilder | None:
        """Return the choice to read: servers put an answer's calls into a choice before its text."""
        choices = self._ingest().followed()
        return next((choice for choice in choices if "text" in choice.kinds), None)

    def whole(self) -> str:
        """Return all that has come, as it came."""
        return self._ingest().accumulated

    def final(self) -> str:
        """Return the JSON in the text, once the answer is over."""
        return undressed(self._ingest().accumulated.strip())

    def rest(self) -> str | None:
        """Return what was not taken of the whole text; ``None`` if that is another."""
        parts = self._ingest().first_choice().parts
        texts = [p for p in parts if isinstance(p, TextBuilder) and p.kind == "text"]
        read = [builder for builder, _ in self._read]
        alike = len(texts) == len(read) and all(a is b for a, b in zip(texts, read, strict=True))
        if alike and all(place.chars == len(part.joined()) for part, place in self._read):
            return ""
        said = "".join(part.joined()[: place.chars] for part, place in self._read)
        content = self._ingest().accumulated
        return content[len(said) :] if content.startswith(said) else None


class CallSource:
    """The arguments of one call.

    Servers send more than the pieces: a placeholder first, all arguments again, or all so far with each
    piece. The builder sorts that out in the end. What can be known before is not given twice.
    """

    def __init__(self, call: CallBuilder) -> None:
        self.call: CallBuilder = call
        self.restarted: int | None = None
        self._place = Place()
        self._renewed = call.renewed
        self._starts = 0  # of the builder's, so many were looked at
        self.base: int = 0
        self._head = ""  # its first characters

    def take(self) -> str:
        """Return what has come since it was last asked."""
        call = self.call
        self.restarted = None
        if call.renewed != self._renewed:  # what was taken counts no more
            self._renewed, self._place, self._starts = call.renewed, Place(), 0
            self.restarted, self.base, self._head = 0, 0, ""
        at = self._place.chars
        text = call.since(self._place)
        if not self._head:
            self._head = text[:_HEAD]
        elif len(self._head) < _HEAD and self.base + len(self._head) == at:
            self._head += text[: _HEAD - len(self._head)]
        starts = call.starts
        if self._starts == len(starts):
            return text
        new = [s for s in starts[self._starts :] if s >= at]
        self._starts = len(starts)
        return self._without_repeats(text, at, new) if new else text

    def _without_repeats(self, text: str, at: int, starts: list[int]) -> str:
        """Return a text without what came before: pieces of it begin an object at ``starts``."""
        out = [text[: starts[0] - at]]
        for begin, end in zip(starts, [*starts[1:], at + len(text)], strict=True):
            piece = text[begin - at : end - at]
            size = begin - self.base
            if size <= _LONGEST_PLACEHOLDER and self._copy(begin).strip() in PLACEHOLDERS:
                self.base, self._head, self.restarted = begin, piece[:_HEAD], begin
                out.clear()
            elif (
                size >= _HEAD
                and len(piece) >= size
                and piece.startswith(self._head)
                and piece.startswith(self._copy(begin))
            ):
                self.base = begin
                piece = piece[size:]
            out.append(piece)
        return "".join(out)

    def _copy(self, end: int) -> str:
        return self.call.joined()[self.base : end]

    def whole(self) -> str:
        """Return all that has come, as it came."""
        return self.call.joined()

    def final(self) -> str:
        """Return the arguments, of which one copy counts, once the answer is over."""
        text = self.call.read()
        return "{}" if text.strip() in PLACEHOLDERS else text

    def rest(self) -> str | None:
        """Return nothing: all was taken."""
        return ""


_HEAD = 16
"""First characters of arguments by which a copy of them is recognised, as in `repeats.SURE_CHARS`."""
_LONGEST_PLACEHOLDER = 16
"""Characters of a placeholder with the spaces around it."""
