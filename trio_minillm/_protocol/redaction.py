"""Secrets, and blanking them out of what a server repeats.

This is the only place that decides which strings are secrets and which spellings of them count. It
serves three: a stream (`secrets_of`, `redact`: errors, headers, ids), a recording of responses
(`secrets_in`, `stretches`, which it fills with as many ``*``), and the command line, whose last gate
before a terminal or a log is `redact_beginnings`.

A key comes back whole or in part, and spelled as JSON, URLs or HTML spell it, within one another
as well (a proxy quotes the JSON of its upstream). So both sides are compared without escapes, and
any run of `RUN` characters of a secret is blanked out, not the whole secret only.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec

HIDDEN = b"[hidden]"
"""The words that stand in the place of a secret."""
RUN = 12
"""Characters of a secret in a row that are not shown. What providers themselves show of a key is
shorter: a prefix that says whose it is, and its last four."""
GRAM = 6
"""Length of the pieces that a secret is cut into for the search: any `RUN` characters of it hold a
whole one."""
THOROUGH = 64 * 1024
"""Bytes up to which all spellings are looked for. In more, which would take too long for a task that
others wait for, only the secrets as they are and as JSON writes them are."""
MIN_SECRET = 6
"""Characters below which a header's value is taken for a word and no secret."""
MIN_RECORDED = 4
"""Characters below which no value is taken for a secret in a recording: blanking out every ``1`` of
a body would hide nothing and spoil it."""
MIN_BEGINNING = 8
"""Characters of a key's beginning that the command line hides: an excerpt may end in the key."""

_SENSITIVE = "auth|key|token|secret|cookie|credential|session|signature|passw"
"""Names of headers and of fields of a query whose values are secrets."""
_SCHEMES = {"bearer", "basic", "token", "digest", "negotiate"}
"""Schemes of HTTP authentication: the words before the secret in a header."""
_QUERY = r"\?[^\s<>\"']+"
"""Query of an address in a header, such as ``location``."""

_JSON = r"(?s)\\+u([0-9a-fA-F]{4})|\\+(.)"
_JSON_ONLY = _JSON + r"|()()()()(?!)"
_ESCAPE = (
    _JSON + r"|%(?:25)*([0-9a-fA-F]{2})"
    r"|&(?:amp;)*(?:#0*([0-9]{1,3})|#[xX]0*([0-9a-fA-F]{1,2})|(quot|amp|lt|gt|apos));"
)
_NAMED = {"quot": '"', "amp": "&", "lt": "<", "gt": ">", "apos": "'"}


# -- what is a secret --------------------------------------------------------------------------


def secrets_of(api_key: str | None, header_values: Iterable[str]) -> list[bytes]:
    """Return the secrets of a model: its key, and the values of its headers that may be one."""
    return [v.encode() for v in (api_key, *header_values) if v and len(v) >= MIN_SECRET]


def secrets_in(fields: Iterable[tuple[str, str]], others: Iterable[str] = ()) -> set[bytes]:
    """Return what a request carries that may be a key, for a recording.

    ``fields`` are its headers and the fields of its query, of which the name decides; the words of
    a value count as well as the whole. ``others`` are secrets under any name.
    """
    found = set(others)
    for name, value in fields:
        if re.search(_SENSITIVE, name, re.IGNORECASE):
            found.add(value)
            found |= {word.partition("=")[2] or word for word in re.split(r"[\s,;]+", value)}
    return {v.encode() for v in found if len(v) >= MIN_RECORDED and v.lower() not in _SCHEMES}


def secrets_added(headers: Mapping[str, str]) -> list[bytes]:
    """Return the secrets of headers that a key or a signature has added to a request."""
    return [*secrets_of(None, headers.values()), *secrets_in(headers.items())]


# -- blanking it out ---------------------------------------------------------------------------


def redact(data: bytes, secrets: Sequence[bytes]) -> bytes:
    """Return the data with every secret blanked out. JSON stays JSON."""
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


def redact_text(text: str, secrets: Sequence[bytes]) -> str:
    """Return a server's words with every secret blanked out."""
    if not secrets and text.isascii():
        return text  # of a server that takes no key
    if not _may_show(text, secrets):
        return text  # almost every id, and each answer has one
    return redact(text.encode("utf-8", "replace"), secrets).decode()


def _may_show(text: str, secrets: Sequence[bytes]) -> bool:
    """Return False if a text has no escapes, and not a single piece of a secret as it is written."""
    if "\\" in text or "%" in text or "&" in text or not text.isascii():
        return True
    for secret in secrets:
        wanted = secret.decode("latin-1")
        if "\\" in wanted:  # it may have been spelled out, or been left out
            return True
        if len(wanted) < RUN:
            if wanted in text:
                return True
            continue
        # A run that both have holds a whole piece of either, and an id has fewer of them than a key.
        cut, whole = (text, wanted) if len(text) < len(wanted) else (wanted, text)
        for at in range(0, len(cut) - GRAM + 1, GRAM):
            if cut[at : at + GRAM] in whole:
                return True
    return False


def shown_headers(headers: Mapping[str, str], redacted: Callable[[str], str]) -> dict[str, str]:
    """Return headers as they may be shown: blanked out where the name speaks of a secret, and elsewhere
    as ``redacted`` returns the value, without the queries of addresses in it.
    """
    hidden = HIDDEN.decode()

    def shown(value: str) -> str:
        return re.sub(_QUERY, f"?{hidden}", redacted(value))

    return {
        name: hidden if _is_sensitive(name) else shown(value) for name, value in headers.items()
    }


def _is_sensitive(name: str) -> bool:
    """Return whether a header's name speaks of a secret, and not of a limit on tokens."""
    if re.search("rate-?limit", name, re.IGNORECASE):
        return False
    return re.search(_SENSITIVE, name, re.IGNORECASE) is not None


def redact_beginnings(text: str, secret: str) -> str:
    """Return the text without a secret, as it is written, and without any beginning of it.

    There may be several, each on a line of its own.
    """
    for one in secret.split("\n"):
        for length in range(len(one), MIN_BEGINNING - 1, -1):
            text = text.replace(one[:length], HIDDEN.decode())
    return text


def stretches(data: bytes, secrets: Iterable[bytes]) -> list[tuple[int, int]]:
    """Return where secrets stand, whole or a run of them, in any spelling.

    Each stretch is a start and an end in bytes; stretches may overlap.
    """
    raw = data.decode("latin-1")  # secrets are ASCII, and every place stays where it is
    found: list[tuple[int, int]] = []
    # A "%" before a key is no escape, so both; the second finds more only if there are such.
    for escape in (_JSON_ONLY, _ESCAPE)[: 2 if b"%" in data or b"&" in data else 1]:
        text = _Unescaped(raw, escape)
        for secret in (secret.decode("latin-1") for secret in secrets):
            # A backslash in it reads like an escape, and may have been spelled out as one.
            for wanted in {secret, _Unescaped(secret, escape).text}:
                runs = _runs(text.text, wanted)
                found += ((text.place(start), text.place(stop)) for start, stop in runs)
    return found


class _Unescaped:
    """A text without its escapes, and the places of its characters before."""

    def __init__(self, raw: str, escape: str) -> None:
        pieces: list[str] = []
        self._from = [0]  # from this character on, each stood …
        self._shift = [0]  # … so many places further on
        size = end = 0
        for found in re.finditer(escape, raw):
            pieces.append(raw[end : found.start()])
            size += found.start() - end
            pieces.append(_character(found))
            end = found.end()
            self._from += (size, size + 1)
            self._shift += (found.start() - size, end - size - 1)
            size += 1
        self.text = "".join([*pieces, raw[end:]])

    def place(self, number: int) -> int:
        """Return the place that a character of the text had in the raw text."""
        return number + self._shift[bisect_right(self._from, number) - 1]


def _character(found: re.Match[str]) -> str:
    code, bare, url, decimal, hexadecimal, name = found.groups()
    if bare is not None:
        return bare
    if name is not None:
        return _NAMED[name]
    return chr(int(decimal) if decimal else int(code or url or hexadecimal, 16))


def _cut(size: int) -> tuple[int, range]:
    """Return the length of the pieces that a secret of this size is cut into, and where they begin."""
    length = GRAM if size >= RUN else size
    return length, range(0, size - length + 1, length)


def _runs(text: str, wanted: str) -> Iterator[tuple[int, int]]:
    """Yield where a secret stands in a text, whole or a run of it; stretches may overlap."""
    size = len(wanted)
    enough = min(RUN, size)
    length, places = _cut(size)
    for at in places:
        gram = wanted[at : at + length]
        found = text.find(gram)
        while found >= 0:
            if text.startswith(wanted, found - at) and found >= at:
                yield found - at, found - at + size
                found = text.find(gram, found - at + size)
                continue
            # No further than the next gram reaches: that finds the rest.
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
    """Blank out secrets that are written as they are, or as JSON writes them."""
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeError):
        # Written anew, so that every character has its one spelling ("\\/" and "/" are the same).
        data = msgspec.json.encode(msgspec.json.decode(data))
    for secret in secrets:
        data = data.replace(secret, HIDDEN)
        data = data.replace(msgspec.json.encode(secret.decode())[1:-1], HIDDEN)
    return data
