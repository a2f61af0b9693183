"""Plain values under construction, of JSON that was checked."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from .json_grammar import grammar, unescaped

_TOKENS: Final = re.compile(
    r'[ \t\n\r,:]*+(?:([{}\[\]])|"((?:[^"\\]++|\\.)*+)(")?|([^\s{}\[\],:"]++))', re.DOTALL
)
_REST: Final = re.compile(r'((?:[^"\\]++|\\.)*+)(")?', re.DOTALL)
NOTHING: Final = object()


class Tree:
    """Plain values under construction, of JSON whose pieces `MemberReader` has checked."""

    def __init__(self) -> None:
        self._root: Any = NOTHING
        self._stack: list[Any] = []  # the objects and lists that are open
        self._name: str | None = None  # of the value that comes, in an object
        self._text: list[str] | None = None  # a string that is open, as JSON
        self._joined = True  # the value has all of its text
        self._whole = grammar(loose=False).whole.match

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
        while found := _TOKENS.match(text, i):
            bracket, string, closed, word = found.groups()
            i = found.end()
            if bracket in ("{", "["):
                if self._stack and (all_of_it := self._whole(text, i - 1)):
                    self._put(_plain(all_of_it[0]))
                    i = all_of_it.end()
                    continue
                new: Any = {} if bracket == "{" else []
                self._put(new)
                self._stack.append(new)
            elif bracket:
                self._stack.pop()
            elif word:
                self._put(_plain(word))
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


def _plain(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:  # a number out of its range
        return json.loads(text)
