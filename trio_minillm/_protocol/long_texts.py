"""Long texts cut out of an event before it is parsed, and put back into what it became.

Pictures, audio and files come as one JSON string of up to 40 MB. Decoding such an event as a whole
takes hundreds of milliseconds, in which no other task has its turn; finding where the string begins
and ends, and copying it, takes a few. What is left of the event is then decoded as any other.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

LONG_TEXT = 64 * 1024
"""Characters from which on a string is cut out. Every stretch of so many bytes is looked at once."""

_MARK = "\x00long text \x00"
_BEFORE, _BEHIND = b":[,", b",]}"


class LongTexts:
    """The long texts of one event, and the event without them.

    Only strings of plain ASCII are cut out, without a backslash: base64 is that.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self.short: bytes = b""
        """The event with a mark in place of each long text."""
        self._texts: list[str] = []
        pieces: list[bytes | bytearray] = []
        done, at, view = 0, LONG_TEXT, memoryview(data)
        while at < len(data):
            begin, end = data.rfind(b'"', done, at) + 1, data.find(b'"', at)
            if begin and end - begin >= LONG_TEXT and _is_string(data, begin, end):
                with suppress(UnicodeDecodeError):
                    pieces += [data[done:begin], self._mark(str(view[begin:end], "ascii"))]
                    done = end
            at = max(at, end) + LONG_TEXT
        self.short = b"".join([*pieces, data[done:]])
        if pieces and not _is_json(self.short):  # a mark stands where no text was
            self._texts.clear()
            self.short = bytes(data)

    def _mark(self, text: str) -> bytes:
        self._texts.append(text)
        return msgspec.json.encode(f"{_MARK}{len(self._texts) - 1}")[1:-1]

    def restored(self, value: Any) -> Any:
        """Return a value that was made of the short event, with the long texts in their places."""
        if not self._texts:
            return value
        if isinstance(value, str):
            number = value.removeprefix(_MARK)
            return self._texts[int(number)] if number != value else value
        if isinstance(value, dict):
            return {key: self.restored(inner) for key, inner in value.items()}
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
    around = before and behind and before in _BEFORE and behind in _BEHIND
    return bool(around) and data.find(b"\\", begin, end) < 0
