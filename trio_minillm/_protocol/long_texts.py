"""Long texts cut out of an event before it is parsed, and put back into what it became.

Pictures, audio and files come as one JSON string of up to 40 MB. Decoding such an event as a whole
takes hundreds of milliseconds, in which no other task has its turn; finding where the string begins
and ends, and copying it, takes a few. What is left of the event is then decoded as any other.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import msgspec

LONG_TEXT = 64 * 1024
"""Characters from which on a string is cut out. Every stretch of so many bytes is looked at once."""

MAX_ESCAPED = 16 * 1024 * 1024
"""Bytes of the longest string with escapes in it (MIME's line ends, PHP's ``\\/``) that is cut out: 16
MiB. Decoding it takes longer than copying it."""

_DIGITS = 6
"""Digits of a mark's number."""
_BEFORE, _BEHIND = b":[,", b",]}"


class LongTexts:
    """The long texts of one event, and the event without them.

    Only strings without a quotation mark are cut out: base64 is that, and most texts of tables.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self.short: bytes = b""
        """The event with a mark in place of each long text."""
        self._texts: list[str] = []
        # Marks are found in any text, also in JSON that was made of what they stood in. So nothing
        # in them is written another way there, and no server can foresee them.
        self._key = f"(long text {os.urandom(8).hex()} "
        pieces: list[bytes | bytearray] = []
        done, begin, seen, at, view = 0, 0, 0, LONG_TEXT, memoryview(data)
        while at < len(data) and (end := data.find(b'"', at)) >= 0:
            begin = data.rfind(b'"', seen, at) + 1 or begin
            seen = at
            if begin and end - begin >= LONG_TEXT and _is_string(data, begin, end):
                with suppress(UnicodeDecodeError, msgspec.DecodeError):
                    plain = data.find(b"\\", begin, end) < 0
                    text = _text_of(view[begin - 1 : end + 1], plain=plain)
                    pieces += [data[done:begin], self._mark(text)]
                    done = end
            at = end + LONG_TEXT
        self.short = b"".join([*pieces, data[done:]])
        if pieces and not _is_json(self.short):  # a mark stands where no text was
            self._texts.clear()
            self.short = bytes(data)

    def _mark(self, text: str) -> bytes:
        self._texts.append(text)
        return f"{self._key}{len(self._texts) - 1:0{_DIGITS}})".encode()

    def restored(self, value: Any) -> Any:
        """Return a value that was made of the short event, with the long texts in their places."""
        if not self._texts:
            return value
        if isinstance(value, str):
            first, *others = value.split(self._key)
            if not others:
                return value
            back = ((self._texts[int(o[:_DIGITS])], o[_DIGITS + 1 :]) for o in others)
            # Without empty pieces, a text that stood alone is not copied.
            return "".join(filter(None, [first, *(text for pair in back for text in pair)]))
        if isinstance(value, dict):
            return {self.restored(k): self.restored(inner) for k, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self.restored(inner) for inner in value])
        if isinstance(value, msgspec.Raw):
            return msgspec.Raw(msgspec.json.encode(self.restored(msgspec.json.decode(value))))
        if isinstance(value, msgspec.Struct):
            for name in value.__struct_fields__:
                setattr(value, name, self.restored(getattr(value, name)))
        return value


def _is_json(data: bytes) -> bool:
    try:
        _check(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


_check = msgspec.json.Decoder(msgspec.Raw).decode


def _is_string(data: bytes | bytearray, begin: int, end: int) -> bool:
    """Return whether the quotation marks around these places seem to open and close a plain string.

    If the first one closes a string instead, what is left is no JSON.
    """
    before = data[max(0, begin - 64) : begin - 1].rstrip()[-1:]
    behind = data[end + 1 : end + 64].lstrip()[:1]
    if not (before and behind and before in _BEFORE and behind in _BEHIND):
        return False
    if data.find(b"\\", begin, end) < 0:
        return True
    # With a quotation mark in it, it may end elsewhere.
    return end - begin <= MAX_ESCAPED and data.find(b'\\"', begin, end + 1) < 0


def _text_of(quoted: memoryview, *, plain: bool) -> str:
    """Return the text of a JSON string; ``plain`` if it has no escapes."""
    return str(quoted[1:-1], "utf-8") if plain else _decode(quoted)


_decode = msgspec.json.Decoder(str).decode
