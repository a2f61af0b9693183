"""Blanking out what a server repeats: keys, and header values that may be one.

A key comes back whole or in part, and spelled as JSON, URLs or HTML spell it, within one another
as well (a proxy quotes the JSON of its upstream). So both sides are compared without escapes, and
what is blanked is any run of `RUN` characters in a row, not the whole key only.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
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

_ESCAPE = re.compile(
    r"\\+u([0-9a-fA-F]{4})|\\+(.)|%(?:25)*([0-9a-fA-F]{2})"
    r"|&(?:amp;)*(?:#0*([0-9]{1,3})|#[xX]0*([0-9a-fA-F]{1,2})|(quot|amp|lt|gt|apos));",
    re.DOTALL,
)
_NAMED = {"quot": '"', "amp": "&", "lt": "<", "gt": ">", "apos": "'"}


def hide(data: bytes, secrets: Sequence[bytes]) -> bytes:
    """The data with every secret blanked out. JSON stays JSON."""
    if len(data) > THOROUGH:
        return _plainly(data, secrets)
    raw = data.decode("latin-1")  # secrets are ASCII, and every place stays what it is
    text = _Unescaped(raw)
    out: list[str] = []
    done = 0
    for start, stop in sorted(run for secret in secrets for run in _runs(text.text, secret)):
        begin, end = max(text.place(start), done), text.place(stop)
        if end > begin:
            out += [raw[done:begin]] * (begin > done or not out) + [HIDDEN.decode()]
            done = end
    return "".join([*out, raw[done:]]).encode("latin-1")


class _Unescaped:
    """A text without its escapes, and where its characters stood."""

    def __init__(self, raw: str) -> None:
        pieces: list[str] = []
        self._from = [0]  # from this character on …
        self._shift = [0]  # … it stood so many further on
        size = end = 0
        for found in _ESCAPE.finditer(raw):
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


def _runs(text: str, secret: bytes) -> Iterator[tuple[int, int]]:
    """Where a secret stands in a text, whole or a run of it."""
    wanted = _Unescaped(secret.decode()).text
    size = len(wanted)
    enough = min(RUN, size)
    for at in range(0, size, GRAM) if enough == RUN else [0]:
        gram = wanted[at : at + (GRAM if enough == RUN else size)]
        if len(gram) < min(GRAM, size):
            continue  # what is left over at the end
        found = text.find(gram)
        while found >= 0:
            before, after = 0, len(gram)
            while before < min(at, found) and text[found - before - 1] == wanted[at - before - 1]:
                before += 1
            while (
                text[found + after : found + after + 1] == wanted[at + after : at + after + 1] != ""
            ):
                after += 1
            if before + after >= enough:
                yield found - before, found + after
            found = text.find(gram, found + 1)


def _plainly(data: bytes, secrets: Sequence[bytes]) -> bytes:
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeError):
        # Written anew, so that every character has its one spelling ("\\/" and "/" are the same).
        data = msgspec.json.encode(msgspec.json.decode(data))
    for secret in secrets:
        data = data.replace(secret, HIDDEN)
        data = data.replace(msgspec.json.encode(secret.decode())[1:-1], HIDDEN)
    return data
