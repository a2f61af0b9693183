"""The beginning of an answer before its JSON, passed over while it arrives.

Models put their JSON behind their thoughts, into a fenced block, or behind a few words. `undressed` of
`_types.schemas` understands such an answer once it is whole; `Dressing` finds the place at which its JSON
begins as soon as that can be said. The whole answer has the last word: who reads along compares what it
has read with that in the end.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

MAX_LEAD_IN = 240
"""Characters of words before the JSON that are passed over while it arrives. What is longer may be
thoughts whose opening mark stands in the model's template, and may have drafts of the JSON in it: then
nothing is read before the closing mark, or the end of the answer. A sentence or two are usual."""
_SPACES: Final = " \t\n\r\v\f\ufeff"
_THOUGHTS: Final = ("<think>", "<thinking>")
_THOUGHT_OUT: Final = re.compile(r"</think(?:ing)?>")
_FENCE: Final = re.compile(r"```[\w-]{0,40}\s")
_CUT_FENCE: Final = re.compile(r"`{1,2}|```[\w-]{0,40}")
_MARK: Final = re.compile(r"```[\w-]{0,40}\s|</think(?:ing)?>|[{\[]")
_OPENING: Final = re.compile(r"\{\s*[\"}]|\[\s*[\[{\"\]]")
"""The beginning of an object, or of a list that is no reference to a source."""
_MAYBE: Final = re.compile(r"[{\[]\s*|</?\w{0,8}|`{1,2}|```[\w-]{0,40}")
"""The beginning of a mark, of which the rest may come."""
_LONGEST_MARK: Final = 11  # "</thinking>"


class _At(Enum):
    HEAD = "only spaces and fences have arrived"
    THOUGHTS = "in thoughts"
    WORDS = "in words"
    JSON = "in the JSON, or behind it"


class Dressing:
    """Passes over what stands before the JSON of a text that comes in pieces."""

    def __init__(self) -> None:
        self.start: int = 0
        """The place in the text at which the JSON begins, once it has begun."""
        self.bare: bool = True
        """True if nothing but spaces has come before it."""
        self._at = _At.HEAD
        self._head = ""  # what may still decide
        self._seen = 0  # characters that have come
        self._words = 0  # characters of words so far

    @property
    def begun(self) -> bool:
        """True once the JSON has begun."""
        return self._at is _At.JSON

    def feed(self, text: str) -> str:
        """Take more of the text, and return what of it is JSON."""
        self._seen += len(text)
        if self.begun:
            return text
        self._head += text
        while self._step():
            if self.begun:
                text, self._head = self._head, ""
                self.start = self._seen - len(text)
                return text
        return ""

    def _step(self) -> bool:
        """Go on to the next decision; return False if more must come before."""
        if self._at is _At.HEAD:
            return self._look_at_head()
        if self._at is _At.THOUGHTS:
            found = _THOUGHT_OUT.search(self._head)
            if found is None:
                self._head = self._head[1 - _LONGEST_MARK :]
                return False
            self._words = 0
            self._pass(found.end(), _At.HEAD)
            return True
        return self._look_at_words()

    def _look_at_head(self) -> bool:
        head = self._head = self._head.lstrip(_SPACES)
        if not head:
            return False
        if head[0] in "{[":
            self._at = _At.JSON
        elif head.startswith(_THOUGHTS):
            self._pass(1, _At.THOUGHTS)
        elif fence := _FENCE.match(head):
            self._pass(fence.end(), _At.HEAD)
        elif any(mark.startswith(head) for mark in _THOUGHTS) or _CUT_FENCE.fullmatch(head):
            return False
        else:
            self._pass(0, _At.WORDS)
        return True

    def _look_at_words(self) -> bool:
        head = self._head
        if self._words > MAX_LEAD_IN:
            self._pass(0, _At.THOUGHTS)
            return True
        found = _MARK.search(head)
        if found is None:
            cut = next(
                (i for i in range(max(0, len(head) - 44), len(head)) if _MAYBE.fullmatch(head, i)),
                len(head),
            )
            self._words += cut
            self._head = head[cut:]
            return self._words > MAX_LEAD_IN
        place = found.start()
        if self._words + place > MAX_LEAD_IN:
            self._words += place
            self._head = head[place:]
        elif found[0] not in "{[":
            self._pass(found.end(), _At.HEAD)
            if found[0].startswith("<"):
                self._words = 0
        elif _OPENING.match(head, place):
            self._pass(place, _At.JSON)
        elif _MAYBE.fullmatch(head, place):
            self._words += place
            self._head = head[place:]
            return False
        else:
            self._words += place + 1
            self._head = head[place + 1 :]
        return True

    def _pass(self, size: int, then: _At) -> None:
        """Pass over so many characters."""
        self.bare = False
        self._head = self._head[size:]
        self._at = then
