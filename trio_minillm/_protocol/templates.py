"""The common chunk, fast: a piece of text in an event that otherwise equals the one before.

Almost all events of a stream are equal, byte for byte, but for one JSON string. `EventTemplate.learn`
cuts an event at that string and proves, by having another text parsed in its place, that the
string is the chunk's text and that nothing else depends on it. `EventTemplate.run` then reads each
event by comparing its two ends and decoding what is between them, strictly, as JSON. An event that
differs in any byte outside, or is malformed inside, is refused, and is parsed the long way.

In some wire formats a second value differs from event to event: the number of the event, or the usage so
far. The provider names its field and reads it (`Provider.beside_text`). `SidedTemplate` cuts that value
out of an event, and reads the rest as any other template does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Self

import msgspec

from .._types.chunks import StreamChunk
from ..providers._base import Beside

_decode_string = msgspec.json.Decoder(str).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PROBE = 'a "probe" \u00e9\n'
_PADDING = b'"obfuscation":"'
"""The field in which OpenAI pads events with a string of random length, against eavesdroppers."""
_BRACKETS = frozenset(b'"}]')
MAX_TEMPLATE = 4 * 1024
"""Bytes of the longest event that a template is made of: it is held for the whole stream."""


class TextRun(list[StreamChunk]):
    """Chunks that one template has read: they differ in their text only, and in ``event`` and ``usage``.

    Either all have usage, of the same fields and with output, or none has any.
    """

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
        # Whoever receives the chunk itself may change it.
        self.chunk: StreamChunk = msgspec.structs.replace(chunk)
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
    ) -> Self | None:
        """Return the template of an event and of the chunk that was read from it, if there is one.

        ``parse`` reads the data of an event of a name; it is called once, for such an event with
        another text in it.
        """
        made = None if chunk.usage is not None else cls._learned(block, chunk, parse)
        return made if made is not None and made.reads(block, chunk) else None

    @classmethod
    def _learned(
        cls, block: bytes, chunk: StreamChunk, parse: Callable[[str, bytes], object]
    ) -> Self | None:
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
        return made if proven else None

    def reads(self, block: bytes, chunk: StreamChunk) -> bool:
        """Return whether this reads the text of an event as it was read before."""
        read = self.run([block], 0, 0, 0.0)
        return bool(read) and (read[0].delta, read[0].reasoning) == (chunk.delta, chunk.reasoning)

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
                    text = self._padded_text(block, first)
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

    def _padded_text(self, block: bytes, start: int) -> str:
        """Return the text that begins at a place in an event that may have padding.

        Returns ``""`` if what follows it is not what follows it here.
        """
        end, suffix = self.end, self.suffix
        if end is None and block.endswith(suffix):
            cut = len(block) - len(suffix)
        elif end is None:
            cut = block.rfind(b'"')
            if not self._blanks_in_suffix or block[cut:].replace(b" ", b"") != suffix:
                return ""
        else:
            # The text can't contain it: its inner quotation marks would stand behind backslashes.
            cut = block.find(suffix, start + 1)
            behind = cut + len(suffix)
            padding = block[behind : -len(end)]
            # The mark that opens the padding must not be taken for the one that closes it.
            if cut < 0 or not block.endswith(end, behind) or (padding and not padding.isalnum()):
                return ""
        return _decode_string(block[start : cut + 1])


class SidedTemplate(EventTemplate):
    """An event with a hole for its text, and one for a value beside it."""

    # Attributes and no parameters: a template is made by `_learned` without them.
    beside: Beside
    fields: Set[str]
    """The fields of the usage that stands beside the text, if that does."""
    place: int
    """The place of the value in the event, if it stands before the text, or else -1."""
    before: bytes
    """The bytes before the value. If the text stands before it, those between the two."""
    behind: bytes
    """The bytes behind the value; up to the quotation mark that opens the text, if that follows."""

    @classmethod
    def learn_beside(
        cls,
        block: bytes,
        chunk: StreamChunk,
        parse: Callable[[str, bytes], object],
        beside: Beside,
    ) -> Self | None:
        """Return the template of an event that has a value of that kind, if there is one (see `learn`)."""
        found = _place_of(block, beside.field) if len(block) <= MAX_TEMPLATE else None
        if found is None:
            return None
        place, value = found
        try:
            usage = beside.read(value)
            if usage != chunk.usage or (usage is not None and usage.anew() != usage):
                return None
        except (msgspec.MsgspecError, ValueError):
            return None
        rest = block[:place] + block[place + len(value) :]
        first = block.find(b":", block.rfind(b"\n") + 1) + 1
        first += block[first : first + 1] == b" "  # where the data begin
        text = rest.find(msgspec.json.encode(chunk.delta or chunk.reasoning))
        ahead = text >= place
        from_here = place - (first if ahead else len(rest))

        def parse_whole(name: str, data: bytes) -> object:
            return parse(name, data[:from_here] + value + data[from_here:])

        made = cls._learned(rest, chunk, parse_whole)
        if made is None or (made.end is not None and not ahead):
            return None
        made.beside, made.place = beside, place if ahead else -1
        made.fields = (chunk.usage.raw or {}).keys() if chunk.usage is not None else frozenset()
        part = made.prefix if ahead else made.suffix
        cut = place if ahead else len(part) - (len(rest) - place)
        made.before, made.behind = part[:cut] if ahead else part[1:cut], part[cut:]
        return made if made.reads(block, chunk) else None

    def run(self, blocks: list[bytes], start: int, events: int, at: float) -> TextRun:
        """As `EventTemplate.run`; each chunk has its event's usage, if that is what stands beside."""
        out = TextRun()
        out.template = self
        reasoning, like = self.reasoning, self.chunk
        ident, model, choice, part = like.id, like.model, like.choice, like.part
        fields, read, parted = self.fields, self.beside.read, self._parted
        try:
            for number in range(start, len(blocks)):
                text, value = parted(blocks[number])
                if not text or value.find(b"\n") >= 0:  # JSON could have it, an event's line can't
                    break
                usage = read(value)
                if usage is not None and usage.raw.keys() != fields:  # type: ignore[union-attr]
                    break
                events += 1
                out.append(  # spelled out as above: a call would cost as much as the chunk itself
                    StreamChunk(
                        "" if reasoning else text,
                        text if reasoning else "",
                        usage=usage,
                        id=ident,
                        model=model,
                        choice=choice,
                        part=part,
                        event=events,
                        received_at=at,
                    )
                )
        except (msgspec.MsgspecError, ValueError):
            pass  # malformed, or a value that may mean more
        return out

    def _parted(self, block: bytes) -> tuple[str, bytes]:
        """Return the text and the value of an event; ``""`` for the text of an event of another kind."""
        place, before, behind = self.place, self.before, self.behind
        if place < 0:
            # As with padding: what has quotation marks can't be a part of the text.
            said, _, rest = block.partition(before)
            text, value = said.removeprefix(self.prefix[:-1]), rest.removesuffix(behind)
            if len(text) == len(said) or len(value) == len(rest):
                return "", b""
            return _decode_string(text), value
        end = block.find(behind, place)
        if end < 0 or not block.startswith(before):
            return "", b""
        return self._padded_text(block, end + len(behind) - 1), block[place:end]


def _place_of(block: bytes, field: str) -> tuple[int, bytes] | None:
    """Return where the value of a field stands in an event, and the value, if it has that field once."""
    name = b'"%b"' % field.encode()
    if block.count(name) != 1:
        return None
    try:
        fields = _decode_fields(
            block[block.rindex(b"\n") + 1 if b"\n" in block else 0 :][len(b"data:") :]
        )
    except (msgspec.MsgspecError, UnicodeError):
        return None
    value = bytes(fields.get(field, b""))
    after = block.index(name) + len(name)
    place = block.find(value, after)
    return (place, value) if value and block[after:place].strip() == b":" else None


def _only_text(chunk: StreamChunk) -> bool:
    """Return whether a chunk has text, or reasoning, and else nothing that is its own but usage."""
    return not (chunk.delta and chunk.reasoning) and chunk == StreamChunk(
        chunk.delta,
        chunk.reasoning,
        usage=chunk.usage,
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
        usage=chunk.usage,
        id=chunk.id,
        model=chunk.model,
        choice=chunk.choice,
        part=chunk.part,
    )
