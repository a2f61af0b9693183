"""The common chunk, fast: a piece of text in an event that otherwise equals the one before.

Almost all events of a stream are equal, byte for byte, but for one JSON string. `EventTemplate.learn`
cuts an event at that string and proves, by having another text parsed in its place, that the
string is the chunk's text and that nothing else depends on it. `EventTemplate.run` then reads each
event by comparing its two ends and decoding what is between them, strictly, as JSON. An event that
differs in any byte outside, or is malformed inside, is refused, and is parsed the long way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from .._types.chunks import StreamChunk

_decode_string = msgspec.json.Decoder(str).decode
_PROBE = 'a "probe" \u00e9\n'
_PADDING = b'"obfuscation":"'
"""The field in which OpenAI pads events with a string of random length, against eavesdroppers."""
_BRACKETS = frozenset(b'"}]')
MAX_TEMPLATE = 4 * 1024
"""Bytes of the longest event that a template is made of: it is held for the whole stream."""


class TextRun(list[StreamChunk]):
    """Chunks that one template has read: they differ in their text only (and in ``event``)."""

    __slots__ = ("template",)

    template: EventTemplate

    # No ``__init__``: it would cost as much as the one chunk that most runs of a slow answer have.
    @classmethod
    def of(cls, template: EventTemplate, chunks: Iterable[StreamChunk] = ()) -> TextRun:
        """Return a run of these chunks."""
        run = cls(chunks)
        run.template = template
        return run


class EventTemplate:
    """An event with a hole for its text."""

    def __init__(self, chunk: StreamChunk, prefix: bytes, suffix: bytes, end: bytes | None) -> None:
        self.chunk: StreamChunk = chunk
        """A chunk of this kind; all others have its fields but for the text."""
        self.prefix: bytes = prefix
        """The bytes up to the quotation mark that opens the text, with it."""
        self.suffix: bytes = suffix
        """The bytes from the quotation mark that closes the text; up to the padding, if any."""
        self.end: bytes | None = end
        """The bytes behind the padding; ``None`` if there is none."""
        self.reasoning: bool = bool(chunk.reasoning)
        """True if the text is reasoning."""
        # Anthropic pads with blanks between the last brackets.
        self._blanks_in_suffix = end is None and set(suffix) <= _BRACKETS
        self._start = len(prefix) - 1
        self._stop = 1 - len(suffix)

    @classmethod
    def learn(
        cls, block: bytes, chunk: StreamChunk, parse: Callable[[str, bytes], object]
    ) -> EventTemplate | None:
        """Return the template of an event and of the chunk that was read from it, if there is one.

        ``parse`` reads the data of an event of a name; it is called once, for such an event with
        another text in it.
        """
        text = chunk.delta or chunk.reasoning
        if not text or len(block) > MAX_TEMPLATE or not _only_text(chunk):
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
            data = probe[len(event) + 1 if event else 0 :][len(b"data:") :]
            name = event[len(b"event:") :].removeprefix(b" ").decode() or "message"
            proven = parse(name, data.removeprefix(b" ")) == _with_text(chunk, _PROBE)
        except Exception:  # noqa: BLE001 - whatever it trips over, it is no template
            return None
        read = made.run([block], 0, 0, 0.0)
        return made if proven and read and (read[0].delta or read[0].reasoning) == text else None

    def run(self, blocks: list[bytes], start: int, events: int, at: float) -> TextRun:
        """Return the chunks of the blocks from ``start`` on, up to one that is no event of this kind.

        ``events`` is the number of events before them, and ``at`` the time at which they came.
        """
        out, prefix = TextRun(), self.prefix
        out.template = self
        if not blocks[start].startswith(prefix):
            return out
        reasoning, like = self.reasoning, self.chunk
        ident, model, choice, part = like.id, like.model, like.choice, like.part
        suffix, first, last = self.suffix, self._start, self._stop
        padded, text = self.end is not None, ""
        try:
            for number in range(start, len(blocks)):
                block = blocks[number]
                if not block.startswith(prefix):
                    break
                if padded or not block.endswith(suffix):
                    text = self._padded_text(block)
                else:
                    text = _decode_string(block[first:last])
                if not text:
                    break
                events += 1
                out.append(
                    StreamChunk(
                        "" if reasoning else text,
                        text if reasoning else "",
                        id=ident,
                        model=model,
                        choice=choice,
                        part=part,
                        event=events,
                        received_at=at,
                    )
                )
        except (msgspec.MsgspecError, UnicodeError):
            pass  # malformed: the long way says what of it
        return out

    def _padded_text(self, block: bytes) -> str:
        """Return the text of an event that may have padding; ``""`` if it is of another kind."""
        end, suffix = self.end, self.suffix
        if end is None:
            cut = block.rfind(b'"')
            if not self._blanks_in_suffix or block[cut:].replace(b" ", b"") != suffix:
                return ""
        else:
            # The text can't contain it: its inner quotation marks would stand behind backslashes.
            cut = block.find(suffix, self._start + 1)
            padding = block[cut + len(suffix) : -len(end)]
            if cut < 0 or not block.endswith(end) or (padding and not padding.isalnum()):
                return ""
        return _decode_string(block[self._start : cut + 1])


def _only_text(chunk: StreamChunk) -> bool:
    """Return whether a chunk has text, or reasoning, and else nothing that is its own."""
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


def _with_text(chunk: StreamChunk, text: str) -> StreamChunk:
    """Return a chunk with another text, as a parser makes it: without event and time."""
    reasoning = bool(chunk.reasoning)
    return StreamChunk(
        "" if reasoning else text,
        text if reasoning else "",
        id=chunk.id,
        model=chunk.model,
        choice=chunk.choice,
        part=chunk.part,
    )
