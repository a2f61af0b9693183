"""Blanking out what a server repeats: keys, and header values that may be one.

A key comes back whole or in part, and spelled as JSON, URLs or HTML spell it, within one another
as well (a proxy quotes the JSON of its upstream). So both sides are compared without escapes, and
what is blanked is any run of `RUN` characters in a row, not the whole key only.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import msgspec

HIDDEN = b"[hidden]"
RUN = 12
"""Characters of a secret in a row that are not shown. What providers themselves show of a key is
shorter: a prefix that says whose it is, and its last four."""
GRAM = 6
"""Any run of `RUN` holds a whole one of the pieces of this length that a secret is cut into."""
THOROUGH = 64 * 1024
"""Bytes in which all spellings are looked for; in more, which takes too long for a task that others
wait for, only the secrets as they are and as JSON writes them."""

_JSON = r"\\+u([0-9a-fA-F]{4})|\\+(.)"
_JSON_ONLY = re.compile(_JSON + r"|()()()()(?!)", re.DOTALL)
_ESCAPE = re.compile(
    _JSON + r"|%(?:25)*([0-9a-fA-F]{2})"
    r"|&(?:amp;)*(?:#0*([0-9]{1,3})|#[xX]0*([0-9a-fA-F]{1,2})|(quot|amp|lt|gt|apos));",
    re.DOTALL,
)
_NAMED = {"quot": '"', "amp": "&", "lt": "<", "gt": ">", "apos": "'"}


def redact(data: bytes, secrets: Sequence[bytes]) -> bytes:
    """The data with every secret blanked out. JSON stays JSON."""
    if len(data) > THOROUGH:
        return _plainly(data, secrets)
    for secret in secrets:
        if b"\\" in secret:  # which would look like part of an escape
            for spelled in (msgspec.json.encode(secret.decode())[1:-1], secret):
                data = data.replace(spelled, HIDDEN)
    raw = data.decode("latin-1")
    out: list[str] = []
    done = -1
    for start, stop in sorted(stretches(data, secrets)):
        if start > done:
            out += [raw[max(done, 0) : start], HIDDEN.decode()]
        done = max(done, stop)
    return "".join([*out, raw[max(done, 0) :]]).encode("latin-1")


def stretches(data: bytes, secrets: Iterable[bytes]) -> list[tuple[int, int]]:
    """Where a secret stands, whole or a run of it, in any spelling; stretches may overlap."""
    raw = data.decode("latin-1")  # secrets are ASCII, and every place stays what it is
    found: list[tuple[int, int]] = []
    # A "%" in front of a key is no escape, so both; the second finds more only if it has some.
    for escape in (_JSON_ONLY, _ESCAPE)[: 2 if b"%" in data or b"&" in data else 1]:
        text = _Unescaped(raw, escape)
        for secret in (secret.decode("latin-1") for secret in secrets):
            # A backslash in it reads like an escape, and may have been spelled out as one.
            for wanted in {secret, _Unescaped(secret, escape).text}:
                runs = _runs(text.text, wanted)
                found += ((text.place(start), text.place(stop)) for start, stop in runs)
    return found


class _Unescaped:
    """A text without its escapes, and where its characters stood."""

    def __init__(self, raw: str, escape: re.Pattern[str]) -> None:
        pieces: list[str] = []
        self._from = [0]  # from this character on …
        self._shift = [0]  # … it stood so many further on
        size = end = 0
        for found in escape.finditer(raw):
            pieces.append(raw[end : found.start()])
            size += found.start() - end
            pieces.append(_character(found))
            end = found.end()
            self._from += (size, size + 1)
            self._shift += (found.start() - size, end - size - 1)
            size += 1
        self.text = "".join([*pieces, raw[end:]])

    def place(self, number: int) -> int:
        """Where the character stood."""
        return number + self._shift[bisect_right(self._from, number) - 1]


def _character(found: re.Match[str]) -> str:
    code, bare, url, decimal, hexadecimal, name = found.groups()
    if bare is not None:
        return bare
    if name is not None:
        return _NAMED[name]
    return chr(int(decimal) if decimal else int(code or url or hexadecimal, 16))


def _runs(text: str, wanted: str) -> Iterator[tuple[int, int]]:
    """Where a secret stands in a text, whole or a run of it: overlapping stretches."""
    size = len(wanted)
    enough = min(RUN, size)
    length = GRAM if enough == RUN else size
    for at in range(0, size - length + 1, length):
        gram = wanted[at : at + length]
        found = text.find(gram)
        while found >= 0:
            if text.startswith(wanted, found - at) and found >= at:
                yield found - at, found - at + size
                found = text.find(gram, found - at + size)
                continue
            # As far as the next gram would reach: what is further on is found by that.
            start, stop = found, found + length
            begins = max(found - GRAM, found - at, 0)
            while start > begins and text[start - 1] == wanted[at + start - found - 1]:
                start -= 1
            ends = min(stop + GRAM, found + size - at, len(text))
            while stop < ends and text[stop] == wanted[at + stop - found]:
                stop += 1
            if stop - start >= enough:
                yield start, stop
            found = text.find(gram, found + length)


def _plainly(data: bytes, secrets: Sequence[bytes]) -> bytes:
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeError):
        # Written anew, so that every character has its one spelling ("\\/" and "/" are the same).
        data = msgspec.json.encode(msgspec.json.decode(data))
    for secret in secrets:
        data = data.replace(secret, HIDDEN)
        data = data.replace(msgspec.json.encode(secret.decode())[1:-1], HIDDEN)
    return data
