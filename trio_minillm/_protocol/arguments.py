"""Arguments of a tool call under construction: whole or not, and one copy of what came twice.

Pieces are joined, as OpenAI's reference says. Some servers send more than the pieces: a placeholder
before the arguments, the whole behind them, or all of them so far with every piece. That is sorted
out once, when the response is built, and only if the pieces as they came are no JSON object: while
they arrive, a piece that repeats the beginning may as well be an object inside.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Final

import msgspec

from .builders import Joined

MAX_CHECKED = 2**20
"""Characters that are parsed for one call while it arrives, to see if its arguments are whole:
1 Mi. Without the bound, that would be quadratic for a server that repeats names or ids."""
MAX_MENDED = 2**18
"""Characters of the longest malformed arguments that are looked through: 256 Ki, some 20 ms."""
MAX_STARTS = 4096
"""Pieces of one call that begin an object and are remembered, to find copies of its arguments. A
server that repeats all arguments with every piece reaches the bound on arguments before."""
PLACEHOLDERS: Final = ("", "null", "{}")
"""Arguments that stand for none, and that some servers send before the arguments."""
_TRIES = 16
"""Last pieces of a call of which each may begin the one whole copy of its arguments."""

_decoder = json.JSONDecoder()
_check_json = msgspec.json.Decoder(msgspec.Raw).decode
"""Checks that a text is JSON. Making objects of it would take 25 times as long."""


class Arguments(Joined):
    """The arguments of one call, as they arrive. Each piece takes O(1)."""

    __slots__ = (
        *("_checked", "_read", "_read_at", "free_text", "last", "mended", "renewed", "replaced"),
        *("size", "starts"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.mended: bool = False  # they were not quite JSON, and had one meaning
        self.replaced: bool = False  # others came at the end
        self.renewed: int = 0  # the times at which others took the place of all pieces
        self.free_text: bool = False  # of OpenAI's custom tools: it need not be JSON
        self.size: int = 0  # characters
        self.starts: list[int] = []  # where a later piece begins an object
        self.last: str = ""  # the newest piece that is not only spaces
        self._checked = 0  # characters parsed so far
        self._read, self._read_at = "", -1

    def add_piece(self, piece: str) -> None:
        """Take the next piece, which is not empty."""
        first = piece[0]
        if first > " " or not piece.isspace():
            self.last = piece
        begins = first == "{" or (first <= " " and piece.lstrip().startswith("{"))
        if begins and self.size and len(self.starts) < MAX_STARTS:
            self.starts.append(self.size)
        self.pieces.append(piece)
        self.size += len(piece)

    def rest_of(self, whole: str) -> str:
        """Return what is still to come of arguments that are known as a whole.

        If they are others than those that came in pieces, they count in their place.
        """
        rest = super().rest_of(whole)
        if rest or whole.strip() in PLACEHOLDERS or not (self.free_text or is_object(whole)):
            return rest
        said = self.read()
        if said != whole and (self.free_text or not same_json(said, whole)):
            self._replace(whole)
            self.starts, self.last, self.size = [], whole, len(whole)
            self._read_at, self.replaced = -1, said.strip() not in PLACEHOLDERS
            self.renewed += 1
        return ""

    @property
    def blank(self) -> bool:
        """True while they are nothing, or nothing but spaces."""
        return not self.last

    def so_far(self) -> str:
        """Return ``empty``, ``open`` or ``whole``. Past `MAX_CHECKED` characters, all are open."""
        if self.blank:
            return "empty"
        if self.free_text:
            return "whole"  # it may end anywhere
        if self.last.rstrip()[-1] not in "}l" or self._checked > MAX_CHECKED:
            return "open"
        self._checked += self.size
        return "whole" if is_object(self.read()) else "open"

    def read(self) -> str:
        """Return the pieces joined, or one copy of what came more than once."""
        if self.free_text:
            return self.joined()
        if self._read_at != self.size:
            text = self.joined()
            if len(self.starts) < MAX_STARTS and not is_object(text):
                if self.starts:
                    text = _one_copy(text, self.starts)
                if text.count("}") > 1 or text.endswith("null"):
                    text = _last_of_several(text)
                found = None if is_object(text) else _mended(text)
                self.mended = found is not None
                text = text if found is None else found
            self._read, self._read_at = text, self.size
        return self._read

    def is_whole(self) -> bool:
        """Return whether they are a JSON object so far, or nothing at all, or free text."""
        return self.free_text or is_object(self.read())

    def came_again(self) -> bool:
        """Return whether they came more than once, a placeholder not counted."""
        whole = self.read()
        return (
            len(whole) < self.size
            and not self.mended
            and self.joined()[: -len(whole)].strip() not in PLACEHOLDERS
        )


def _mended(text: str) -> str | None:
    """Return the object that malformed arguments can only mean, if there is one.

    Models write line ends into strings as they are, and servers encode the arguments twice, or leave
    marks of the model's own around them. A line end behind a backslash is left alone: it may be meant
    as the two characters, or as none.
    """
    text = text.strip()
    if len(text) > MAX_MENDED:
        return None
    if marked := re.fullmatch(_MARKED, text):
        text = marked[1]
        if is_object(text):
            return text
    if text[:1] == '"':
        try:
            inside = _decode_text(text)
        except (msgspec.MsgspecError, UnicodeError):
            return None
        return inside if inside.strip()[:1] == "{" and is_object(inside) else None
    if text[:1] != "{" or text[-1:] != "}" or re.search(_CONTROL, text) is None:
        return None
    escaped = re.sub(_STRING, lambda string: string[0].translate(_ESCAPES), text)
    return escaped if is_object(escaped) else None


_MARKED = (
    r"(?s)\ufeff?(?:```)?(?:json)?\s*+(\{.*\})"
    r"(?:\s*+```)?(?:\s*+<[|/\uff5c][\w|\uff5c\u2581-]{1,40}>)*+\s*+"
)
"""An object in a fence of code, or before the tokens with which models end a call. Possessive: nothing
in it takes time in proportion to a square."""
_decode_text = msgspec.json.Decoder(str).decode
_STRING = r'"(?:[^"\\]++|\\[^\0-\x1f])*+"?'
"""A string of JSON, up to a control character behind a backslash. Possessive: without that, each of
thousands of quotation marks would be tried as the beginning of one without an end."""
_CONTROL = "[\0-\x1f]"
_ESCAPES = {number: json.dumps(chr(number))[1:-1] for number in range(32)}


def is_object(text: str) -> bool:
    """Return whether arguments are a JSON object, or what stands for none."""
    text = text.strip() or "{}"
    try:
        _check_json(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False
    return text[0] == "{" or text == "null"


def same_json(a: str, b: str) -> bool:
    """Return whether two texts are the same JSON, whatever its spaces and the order of fields."""
    if len(a) + len(b) > MAX_CHECKED:
        return False
    try:
        one, two = (msgspec.json.encode(msgspec.json.decode(t), order="sorted") for t in (a, b))
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False
    return one == two


def _one_copy(text: str, starts: list[int]) -> str:
    """Return the last whole object, if all before it says nothing else; otherwise all of it.

    A placeholder behind a whole object says nothing, either.
    """
    *before, last = starts
    if text[last:].strip() in PLACEHOLDERS:
        head = text[:last]
        if before and not is_object(head):
            head = _one_copy(head, before)
        if is_object(head):
            return head
    for start in reversed(starts[-_TRIES:]):
        whole = text[start:]
        if is_object(whole) and _explained(text, [0, *starts], start, whole):
            return whole
    return text


def _last_of_several(text: str) -> str:
    """Return the last of several whole values, if the others are placeholders or copies of it."""
    if len(text) > MAX_CHECKED:
        return text
    values: list[str] = []
    at = 0
    while at < len(text) and len(values) < _TRIES:
        try:
            _, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return text
        values.append(text[at:end].strip())
        at = len(text) - len(text[end:].lstrip())
    real = [value for value in values if value not in PLACEHOLDERS]
    if at < len(text) or not real or not is_object(real[-1]):
        return text
    return real[-1] if all(same_json(value, real[-1]) for value in real) else text


def _explained(text: str, starts: list[int], end: int, whole: str) -> bool:
    """Return whether all before ``end`` says nothing that ``whole`` does not say."""
    at = 0
    for a, b in pairwise([*(s for s in starts if s < end), end]):
        said = text[a:b]
        if whole.startswith(said, at):
            at += len(said)
        elif whole.startswith(said):
            at = len(said)
        elif said.strip() in PLACEHOLDERS:
            at = 0
        else:
            return same_json(text[:end], whole)
    return True
