"""A record of what was left out of an answer since it could not be read, and did not cost it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .._types.errors import EXCERPT_CHARS
from .sniffer import BOM

MAX_UNREAD = 32
"""Different names of what was left out that are kept; more are not counted."""
NOTHING_UNREAD: Mapping[str, int] = MappingProxyType({})
"""The record of every answer of which nothing was left out."""
MAX_STRANGE = 4 * EXCERPT_CHARS
"""Bytes that are kept of a body, or an event, that is no part of an answer, to be shown if nothing
else comes."""

_FIELDS = (b"", b"data", b"event", b"id", b"retry", b"error")


class LeftOut:
    """A record of what was left out of an answer, and of what the server said beside it."""

    __slots__ = (
        "_head",
        "_strange",
        "skipped",
        "unread",
    )

    def __init__(self) -> None:
        self.skipped: int = 0
        """The number of events that were passed over."""
        self.unread: Mapping[str, int] = NOTHING_UNREAD
        """Names of what was left out since it could not be read, and how often."""
        self._strange = b""  # the first event that is no part of an answer
        self._head = b""  # the beginning of a body without any event

    def note(self, name: str) -> None:
        """Take note of something that was left out."""
        if name in self.unread or len(self.unread) < MAX_UNREAD:
            self.unread = {**self.unread, name: self.unread.get(name, 0) + 1}

    def found_again(self, name: str) -> None:
        """Take back a note: it was not left out after all."""
        left = {**self.unread, name: self.unread.get(name, 0) - 1}
        self.unread = {name: count for name, count in left.items() if count > 0}

    def pass_over(self, what: str, data: bytes) -> None:
        """Take note of a whole event that was passed over."""
        self.skipped += 1
        self.note(what)
        self.strange(data)

    def strange(self, data: bytes) -> None:
        """Keep the beginning of an event that is no part of an answer, if it is the first."""
        self._strange = self._strange or data[:MAX_STRANGE]

    def begin(self, data: bytes) -> None:
        """Keep the beginning of a body in which no event has come yet."""
        if len(self._head) < MAX_STRANGE:
            self._head = (self._head + data)[:MAX_STRANGE]

    def words(self, *, only_events: bool) -> bytes:
        """Return what the server said, if it was no answer: an event, or else a body that does not
        begin like events (unless ``only_events``).
        """
        head = self._head
        if only_events:  # what stands behind the comments, which are a proxy's
            head = b"\n".join(n for n in head.split(b"\n") if not n.startswith(b":")).lstrip()
        if self._strange or not head or _like_events(head):
            return self._strange
        return head


def _like_events(head: bytes) -> bool:
    """Return whether a body begins, perhaps cut short, like a stream of events."""
    name, colon, _ = head.removeprefix(BOM).lstrip().split(b"\n", 1)[0].partition(b":")
    if colon:
        return name in _FIELDS
    return any(field.startswith(name.strip()) for field in _FIELDS)
