"""JSON read while it arrives: the members of an object or a list, piece by piece.

`MemberReader` takes a text in pieces that are cut anywhere and gives what they add to each member of
the outermost object or list: the decoded text of a string, the JSON text of anything else. It reads
every character once, whatever the cut, and holds back less than one escape sequence. It is as strict
as RFC 8259 (and msgspec), so that what it gives is the beginning of a JSON text.

Nothing here raises or waits: a reader says that its text is `broken`, and where.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from .json_grammar import CUT_ESCAPE, digits, grammar, is_number, space, unescaped

Key: TypeAlias = "str | int | None"
"""A member's name, its index in a list, or ``None`` for a root that is neither object nor list."""

_LITERALS: Final = {"t": "true", "f": "false", "n": "null"}

# The state of a reader: what may come next.
_STRING, _AFTER, _VALUE, _ITEM_OR_END, _KEY, _KEY_OR_END, _KEY_STRING, _COLON, _DIGITS, _OVER = (
    range(10)
)

_IN_STRINGS: Final = (_STRING, _KEY_STRING)
_AT_NAMES: Final = (_KEY, _KEY_OR_END)

ENDED = "it ends too early"
"""The words for a text that is the beginning of JSON."""


class Piece(NamedTuple):
    """Something new of a member."""

    key: Key
    text: str
    """The text that has come: decoded, of a string; JSON, of anything else."""
    done: bool
    """True once the member is whole."""
    is_text: bool
    """True if the member is a string."""
    at: int = 0
    """The number of characters before its value."""
    mended: bool = False
    """True if there have been control characters in the member's strings."""


class MemberReader:
    """Reads the members of one object or list, of which the text comes in pieces.

    With ``loose``, strings may have control characters in them, as those of models do that write
    line ends as they are; `mended` then says so. Its 20 attributes are one thing, the place in the
    grammar and in the text: held apart, each character would cost a call.
    """

    __slots__ = (
        *("at", "broken", "mended", "root", "start"),
        *(
            "_begun_at",
            "_decoded",
            "_digits",
            "_digits_at",
            "_grammar",
            "_held",
            "_is_text",
            "_key",
            "_loose",
        ),
        *("_key_text", "_late", "_open", "_out", "_stack", "_state"),
    )

    def __init__(self, *, loose: bool = False) -> None:
        self.at: int = 0
        """The number of characters that were read."""
        self.start: int = 0
        """The place of the root value's first character."""
        self.root: str = ""
        """The root's first character, once that has come."""
        self.broken: str = ""
        """The reason why the text is not JSON; then `at` is the place, and nothing more is read."""
        self.mended: bool = False
        """True if a string of the newest member has control characters in it."""
        self._loose = loose
        self._grammar = grammar(loose=False)
        self._state = _VALUE
        self._stack: list[str] = []  # the brackets that are open
        self._key: Key = None  # of the member that comes
        self._key_text: list[str] = []  # of a name, as far as it has come
        self._open = False  # a member has begun and is not whole
        self._begun_at = 0
        self._is_text = False  # it is a string
        self._decoded: list[str] = []  # its text in the piece that is read
        self._digits: list[str] = []  # a number, as far as it has come
        self._digits_at = 0
        self._late = ""  # the digits of a number that has ended, from pieces before
        self._held = ""  # the beginning of an escape or of a word
        self._out: list[Piece] = []

    @property
    def over(self) -> bool:
        """True once the root value is whole. Nothing more is read then."""
        return self._state == _OVER

    @property
    def key(self) -> Key:
        """The key of the member that is open, or of the newest."""
        return self._key

    def feed(self, text: str) -> list[Piece]:
        """Read more, and return what it adds: one piece at most of each member."""
        if self.broken or self._state == _OVER:
            return []
        text = self._held + text if self._held else text
        out = self._out = []
        begin, i = 0, 0
        size = len(text)
        while i < size and not self.broken:
            state = self._state
            if state in _IN_STRINGS:
                i, waits = self._string(text, i)
            elif state == _DIGITS:
                i, waits = self._number(text, i), False
                if self._state != _DIGITS and not self.broken and self._ended():
                    self._emit(text[begin:i], done=True)
            else:
                i = space(text, i).end()  # type: ignore[union-attr]  # it matches nothing, too
                if i == size:
                    break
                if not self._open:
                    begin = i
                i, waits = self._structure(text, i, begin)
            if waits:
                break
            if self._state == _OVER:
                break
        self._held = text[i:] if not self.broken and self._state != _OVER else ""
        if self._open:
            # A number is given when it is whole: its first digits are no beginning of its value.
            end = max(begin, self._digits_at - self.at) if self._state == _DIGITS else i
            new = "".join(self._decoded) if self._is_text else text[begin:end]
            self._emit(new, done=False)
        self.at += i
        return out

    def finish(self) -> list[Piece]:
        """Take note of the end of the text, and return what that completes: a number at the root."""
        self._out = []
        if self._state == _DIGITS and not self._stack and not self.broken:
            self._number(" ", 0)
            if not self.broken:
                self._emit("", done=True)
        if self._state != _OVER and not self.broken:
            self.broken = ENDED
        return self._out

    # -- inside: each takes the text and a place, and returns the place behind what it has read ------

    def _string(self, text: str, i: int) -> tuple[int, bool]:
        """Read what has come of a string; the second value is true if more must come first."""
        end = self._grammar.body.match(text, i).end()  # type: ignore[union-attr]
        key = self._state == _KEY_STRING
        if end > i and (len(self._stack) == 1 if key else self._open and self._is_text):
            (self._key_text if key else self._decoded).append(unescaped(text[i:end]))
        if end == len(text):
            return end, False
        last = text[end]
        if last == '"':
            self._grammar = grammar(loose=False)
            if key:
                self._state = _COLON
                if len(self._stack) == 1:
                    self._key = "".join(self._key_text)
                    self._key_text.clear()
            else:
                self._state = _AFTER if self._stack else _OVER
                if self._ended():
                    self._emit("".join(self._decoded), done=True)
            return end + 1, False
        if last == "\\":
            if CUT_ESCAPE.fullmatch(text, end):
                return end, True
            return self._break("an invalid escape", end), False
        if not self._loose:
            return self._break("a control character in a string", end), False
        self.mended, self._grammar = True, grammar(loose=True)
        return end, False

    def _number(self, text: str, i: int) -> int:
        end = digits(text, i).end()  # type: ignore[union-attr]
        self._digits.append(text[i:end])
        if end == len(text):
            return end
        number = "".join(self._digits)
        self._digits.clear()
        if not is_number(number):
            begin = self._digits_at - self.at  # negative, if it has begun in a piece before
            self._break("an invalid number", begin)
            return begin
        if before := len(number) - (end - i):
            self._late = number[:before]
        self._state = _AFTER if self._stack else _OVER
        return end

    def _structure(self, text: str, i: int, begin: int) -> tuple[int, bool]:
        """Read a bracket, a comma, a colon, or the beginning of a value or of a name."""
        state, stack, c = self._state, self._stack, text[i]
        if len(stack) > 1 and state != _AFTER and state != _COLON:
            in_object = state in _AT_NAMES
            run = self._grammar.members if in_object else self._grammar.items
            if self._in_place(state) and (end := run.match(text, i).end()) > i:  # type: ignore[union-attr]
                self._state = _KEY if in_object else _VALUE
                return end, False
        if state == _AFTER:
            return self._after(text, i, begin), False
        if state == _COLON:
            if c != ":":
                return self._break("no colon after a name", i), False
            self._state = _VALUE
            return i + 1, False
        if state in _AT_NAMES:
            if c == '"':
                self._state = _KEY_STRING
                return i + 1, False
            if c == "}" and state == _KEY_OR_END:
                return self._close(text, i, begin), False
            return self._break("a name is missing", i), False
        if c == "]" and state == _ITEM_OR_END:
            return self._close(text, i, begin), False
        return self._begin(text, i, begin)

    def _in_place(self, state: int) -> bool:
        """Return whether a list's item may come: behind a colon, a value belongs to a name."""
        return state != _VALUE or self._stack[-1] == "["

    def _after(self, text: str, i: int, begin: int) -> int:
        """Read what follows a value: a comma or a bracket."""
        c, top = text[i], self._stack[-1]
        if c == ",":
            self._state = _KEY if top == "{" else _VALUE
            if len(self._stack) == 1 and isinstance(self._key, int):
                self._key += 1
            return i + 1
        if c == ("}" if top == "{" else "]"):
            return self._close(text, i, begin)
        return self._break("no comma after a value", i)

    def _begin(self, text: str, i: int, begin: int) -> tuple[int, bool]:
        """Read the beginning of a value, or all of a word."""
        c, depth = text[i], len(self._stack)
        member = depth == 1 or (not depth and c not in "{[")
        word = _LITERALS.get(c)
        if word is not None and not text.startswith(word, i):
            if word.startswith(text[i:]):
                return i, True
            return self._break("a value is missing", i), False
        if word is None and c not in '{["-0123456789':
            return self._break("a value is missing", i), False
        if not depth:
            self.root, self.start = c, self.at + i
        if member:
            self._open, self._is_text, self._begun_at = True, c == '"', self.at + i
        if word is not None:
            self._state = _AFTER if depth else _OVER
            if member:
                self._emit(word, done=True)
            return i + len(word), False
        if c == '"':
            self._state = _STRING
        elif c in "{[":
            if depth and (found := self._grammar.whole.match(text, i)):
                self._state = _AFTER
                if member:
                    self._emit(text[begin : found.end()], done=True)
                return found.end(), False
            self._stack.append(c)
            self._state = _KEY_OR_END if c == "{" else _ITEM_OR_END
            if not depth and c == "[":
                self._key = 0
        else:
            self._state, self._digits_at = _DIGITS, self.at + i
            return i, False
        return i + 1, False

    def _close(self, text: str, i: int, begin: int) -> int:
        """Read a bracket that closes."""
        self._stack.pop()
        self._state = _AFTER if self._stack else _OVER
        if len(self._stack) == 1:
            self._emit(text[begin : i + 1], done=True)
        return i + 1

    def _ended(self) -> bool:
        """Return whether the value that has ended is the member that was open."""
        return self._open and len(self._stack) < 2

    def _emit(self, text: str, *, done: bool) -> None:
        """Give what is new of the member that is open."""
        if self._late:
            text, self._late = self._late + text, ""
        if text or done:
            at, mended = self._begun_at, self.mended
            self._out.append(Piece(self._key, text, done, self._is_text, at, mended))
        self._decoded.clear()
        if done:
            self._open = self.mended = False

    def _break(self, why: str, i: int) -> int:
        self.broken = why
        return i
