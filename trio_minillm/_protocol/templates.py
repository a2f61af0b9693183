"""The common chunk, fast: a piece of text in an event that is otherwise as the one before.

Almost all events of a stream are equal, byte for byte, but for one JSON string. `EventTemplate.learn`
cuts an event at that string and proves, by having another text parsed in its place, that the
string is the chunk's text and that nothing else hangs on it. `EventTemplate.text` then reads an event
by comparing its two ends and decoding what is between them, strictly, as JSON: an event that
differs in any byte outside, or is malformed inside, is not taken and goes the long way.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .._types.chunks import StreamChunk

_text_of = msgspec.json.Decoder(str).decode
_PROBE = 'a "probe" \u00e9\n'
_PADDING = b'"obfuscation":"'
"""OpenAI pads events with a string of random length in this field, against eavesdroppers."""
_BRACKETS = frozenset(b'"}]')
MAX_TEMPLATE = 4 * 1024
"""Bytes of an event that is worth remembering."""


class TextRun(list[StreamChunk]):
    """Chunks that differ in their text only (and in ``event``), by one template."""

    __slots__ = ("template",)

    def __init__(self, chunks: list[StreamChunk], template: EventTemplate) -> None:
        super().__init__(chunks)
        self.template = template


class EventTemplate:
    """An event with a hole for its text; ``chunk`` is one of its kind."""

    def __init__(self, chunk: StreamChunk, prefix: bytes, suffix: bytes, end: bytes | None) -> None:
        self.chunk: StreamChunk = chunk
        self.prefix: bytes = prefix
        """Up to the quotation mark that opens the text."""
        self.suffix: bytes = suffix
        """From the one that closes it; where there is padding, up to that."""
        self.end: bytes | None = end
        """What follows the padding, if there is any."""
        self.reasoning: bool = bool(chunk.reasoning)
        """Whether the text is reasoning."""
        # Anthropic's padding is blanks between the last brackets.
        self._brackets = end is None and set(suffix) <= _BRACKETS
        self._start = len(prefix) - 1
        self._stop = 1 - len(suffix)

    @classmethod
    def learn(
        cls, block: bytes, chunk: StreamChunk, parse: Callable[[bytes], object]
    ) -> EventTemplate | None:
        """A template from an event and the chunk that it was read as, if there can be one.

        ``parse`` reads such an event; it is asked once, about another text.
        """
        text = chunk.delta or chunk.reasoning
        if not text or len(block) > MAX_TEMPLATE or not _plain(chunk):
            return None
        value = msgspec.json.encode(text)
        event, _, data = block.rpartition(b"\n")
        if block.count(value) != 1 or not data.startswith(b"data:") or b"\n" in event:
            return None
        if event and not event.startswith(b"event:"):
            return None
        place = block.index(value)
        prefix, suffix, end = block[: place + 1], block[place + len(value) - 1 :], None
        bare = suffix.replace(b" ", b"")
        if set(bare) <= _BRACKETS:
            suffix = bare
        cut = suffix.find(_PADDING)
        if cut >= 0:
            cut += len(_PADDING)
            _, mark, rest = suffix[cut:].partition(b'"')
            suffix, end = suffix[:cut], mark + rest
        made = cls(chunk, prefix, suffix, end)
        probe = prefix + msgspec.json.encode(_PROBE)[1:-1] + suffix + (end or b"")
        try:
            proven = parse(probe) == _with(chunk, _PROBE)
        except Exception:  # noqa: BLE001 - whatever it trips over, it is no template
            return None
        return made if proven and made.text(block) == text else None

    def text(self, block: bytes) -> str | None:
        """The text of an event of this kind; None if it is of another, or malformed."""
        if not block.startswith(self.prefix):
            return None
        try:
            if self.end is not None:
                return self._padded(block, self.end)
            if block.endswith(self.suffix):
                return _text_of(block[self._start : self._stop]) or None
            if self._brackets:
                last = block.rfind(b'"')
                if block[last:].replace(b" ", b"") == self.suffix:
                    return _text_of(block[self._start : last + 1]) or None
        except (msgspec.MsgspecError, UnicodeError):
            pass
        return None

    def _padded(self, block: bytes, end: bytes) -> str | None:
        if not block.endswith(end):
            return None
        # No text can hold it: its inner quotation marks would stand behind backslashes.
        cut = block.find(self.suffix, self._start + 1)
        padding = block[cut + len(self.suffix) : -len(end)]
        if cut < 0 or (not padding.isalnum() and padding):
            return None
        return _text_of(block[self._start : cut + 1]) or None


def _plain(chunk: StreamChunk) -> bool:
    """Whether it has a text, or reasoning, and nothing else that is its own."""
    return not (chunk.delta and chunk.reasoning) and chunk == StreamChunk(
        chunk.delta,
        chunk.reasoning,
        id=chunk.id,
        model=chunk.model,
        choice=chunk.choice,
        part=chunk.part,
        event=chunk.event,
        received_at=chunk.received_at,
    )


def _with(chunk: StreamChunk, text: str) -> StreamChunk:
    """The same with another text, as a parser gives it: not stamped yet."""
    reasoning = bool(chunk.reasoning)
    return StreamChunk(
        "" if reasoning else text,
        text if reasoning else "",
        id=chunk.id,
        model=chunk.model,
        choice=chunk.choice,
        part=chunk.part,
    )
