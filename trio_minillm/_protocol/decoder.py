"""Body bytes -> chunks: framing and the provider's parsing, put together. No I/O, no clock.

Whatever can be wrong with the bytes becomes one of this library's errors here and names the
event, so that no foreign exception leaves this file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import msgspec

from .._types.chunks import StreamChunk, continues_answer, has_content
from .._types.errors import LimitExceeded, MiniLLMError, ProtocolError, ProviderError
from .._types.options import BOUNDS
from ..providers import Provider
from ..providers._base import Parsed, RepeatFilter
from .documents import documents, without_prefix
from .json_limits import MAX_DECODED, exceeded_limit, shallow, without_side_fields
from .left_out import MAX_STRANGE, LeftOut
from .long_texts import LONG_TEXT, LongTexts
from .redaction import HIDDEN, THOROUGH, redact, redact_text
from .repeats import MALFORMED, MESSAGE, Repeats, in_message, kinds_of
from .sniffer import Sniffer
from .sse import NAME_LINE, QUICK_BYTES, SSEDecoder, SSEEvent, name_in
from .state import NO_CHOICES
from .templates import EventTemplate, SidedTemplate, TextRun

if TYPE_CHECKING:  # few answers need these: they are loaded by the first that does
    from .array_events import ArrayEvents
    from .path_arguments import PathArguments
    from .surrogates import SurrogateHalves

_BLANK = b"\n\n"

LEARN_FROM = 3
"""Blocks left of a read, or events so far, from which on a template is learned. That takes as long as
reading two or three events the long way, and each of thousands of streams holds its template."""
ALIKE = 40
"""Bytes in which the beginnings of events of one kind agree."""
LEARNING_COST = 4
"""Credit that learning a template takes; each chunk that a template reads gives 1."""
MAX_CREDIT = 64
"""Credit that a stream begins with, and that it can save up: if no template ever fits, it learns in
vain 16 times."""

PAGE_CHARS = 300
"""Characters that are shown of a page that came in place of a stream: its title says whose it is."""
_OPENING = (b"data: {", b"data: [")
"""Beginnings of a line of data that holds JSON, or the sentinel."""
_CLOSE_OPENING = (b"data:{", b"data:[")
"""Likewise, from servers that put no blank there."""
_PREFIXED = (b"d", b"\xef", b" ")
"""First bytes of data with something before them: the field's name again, a byte-order mark, a blank."""
DEEP = "values nested too deep"
HALF = "half of a surrogate pair"
_SURROGATE = b"\\u"
"""Begins half of a surrogate pair in JSON: bytes of UTF-8 can't hold one."""

_ANSWER = rb"\s*(?:\[\s*)*(?:\{|\Z)"
"""The beginning, perhaps cut short, of data that may be part of an answer: an object, or a list of
those. Lists of anything else are keep-alives (``[]``, ``[ping]``)."""

_KEEP_ALIVE = (
    rb"""(?i)[{\[\s'"]*(?:(?:type|event|status|message|comment)['"\s]*[:=][\s'"]*)?"""
    rb"(?:ping|pong|keep[-_ ]?alive|heart[-_ ]?beat|no[-_]?op|alive)\b"
)
"""The beginning of a keep-alive that looks like an object, and is no JSON."""
_FAILURE = (
    rb"(?i)[^\w{]{0,4}(?!no\b|without\b)(?:\w{1,20}[ _.-]){0,4}?"
    rb"(?:error|exception|traceback|fatal|panic|failure|failed)\b"
)
"""The beginning of data that are no JSON, and that say in their first words that something failed."""

_NO_ANSWER = (msgspec.DecodeError, UnicodeError, ProtocolError)
"""Errors by which a parser of JSON says that something is none."""


class ChunkDecoder:
    """One response body, decoded as it comes.

    Guarantees: the chunks of any split of the same bytes are the same; what came before a
    fault is handed out first, then ``error`` is set and nothing more comes out.

    ``choices`` is the number of choices that were asked for; ``max_event`` is the number of bytes
    that an event, or a body in place of a stream, may have. ``lenient`` passes over malformed
    events; ``raw`` keeps each event's bytes on its chunks; ``secrets`` are blanked out in what
    errors show.

    Passed over in any case, and noted in ``left_out``, is what can't be a part of the answer: data
    that don't begin like a JSON object (keep-alives in all clothes), and malformed events once every
    choice has its finish reason.

    Its 25 attributes are the stages of one pipeline, each of which knows the one before.
    """

    __slots__ = (
        "_array",
        "_bounded_bytes",
        "_by_template",
        "_choices",
        "_credit",
        "_doubt",
        "_ended",
        "_filters_itself",
        "_halves",
        "_learn_from",
        "_lenient",
        "_paths",
        "_provider",
        "_quick_bytes",
        "_raw",
        "_reasoned",
        "_repeats",
        "_secrets",
        "_sniffed",
        "_sniffer",
        "_sse",
        "_template",
        "error",
        "events",
        "left_out",
    )

    def __init__(
        self,
        provider: Provider,
        choices: int = 1,
        max_event: int = BOUNDS.event,
        lenient: bool = False,
        raw: bool = False,
        secrets: Sequence[bytes] = (),
    ) -> None:
        self.error: MiniLLMError | None = None
        self.events: int = 0
        """The number of events so far."""
        self.left_out: LeftOut = LeftOut()
        self._provider = provider
        self._secrets = secrets
        self._lenient = lenient
        self._raw = raw
        self._sniffed = False  # the body is known to be events
        self._sniffer: Sniffer | None = None  # of a body that does not begin with a field's name
        self._array: ArrayEvents | None = None  # in place of `_sse`, in a body that is an array
        self._paths: PathArguments | None = None  # once a call came whose arguments have paths
        self._sse = new_framing(max_event)
        # Bytes of a read whose blocks cross no bound, and of a block that `_ordinary` reads.
        self._bounded_bytes, self._quick_bytes = MAX_DECODED, -1 if raw else LONG_TEXT
        if max_event < MAX_DECODED:
            self._bounded_bytes = max_event
            self._quick_bytes = min(self._quick_bytes, max_event)
        self._by_template = provider.literal_text and not raw
        self._template: EventTemplate | None = None
        # Learning parses an event a second time, and some streams never repeat themselves.
        self._credit = MAX_CREDIT if self._by_template else 0
        self._learn_from = LEARN_FROM
        self._choices = choices
        # Choices whose newest chunk of content has a reason.
        self._reasoned: AbstractSet[int] = NO_CHOICES
        self._halves: SurrogateHalves | None = None  # while a half waits for its other half
        self._ended = False  # the body is over
        self._doubt = b""  # data that speak of a failure, with nothing of the answer behind them
        own = provider.repeat_filter
        self._filters_itself = own is not None
        self._repeats: RepeatFilter = Repeats(provider, self.left_out) if own is None else own()

    def feed(self, data: bytes, at: float) -> list[StreamChunk]:
        """Return the chunks that these bytes complete; ``at`` is when they left the socket."""
        if self.error is not None:
            return []
        if not self._sniffed:
            if self._sniffer is None and data[:1].isalpha():
                self._sniffed = True  # a field's name: a sniffer would say the same
            else:
                data = self._sniff(data)
                if self._array is not None:
                    return self._elements(self._array, data, at)
        bounded = len(data) + QUICK_BYTES <= self._bounded_bytes
        template = self._template if bounded and self._halves is None else None
        if template is not None and data.find(_BLANK) == len(data) - len(_BLANK):
            # The commonest read: a single event, like the one before.
            block = data[: -len(_BLANK)]
            if self._sse.between and (alone := self._run(template, [block], 0, at)):
                return alone
        events, blocks, tail = self._sse.split(data)
        if b"" in blocks[:3]:  # blank lines by the thousand would each be looked at
            blocks = [block for block in blocks if block]
        out = self._events(events, at) if events else []
        done = 0
        while done < len(blocks) and self.error is None:
            template, run = self._template, None
            if template is not None and bounded and self._halves is None:
                run = self._run(template, blocks, done, at)
            if run:
                done += len(run)
                if len(run) == len(blocks) and not out:
                    out = run
                else:
                    out += run
            else:
                done = self._by_parser(blocks, done, at, out)
        if tail and self.error is None:
            more = self._events(self._sse.hold(tail, quick=self._by_template), at)
            out = [*out, *more] if more else out  # a run has nothing else in it
        if not self.events:
            self.left_out.begin(data)
        self.error = self.error or self._sse.failure
        return out

    def _sniff(self, data: bytes) -> bytes:
        """Return what of a body's beginning is to be decoded as events now."""
        sniffer = self._sniffer
        if sniffer is None:
            sniffer = self._sniffer = Sniffer(
                self._sse.max_event, arrays=self._provider.array_events
            )
        data = sniffer.feed(data)
        self.error = sniffer.failure
        if sniffer.is_array:
            if self._array is None:
                from .array_events import ArrayEvents

                self._array = ArrayEvents(sniffer.max_size)
        elif sniffer.decided and sniffer.pieces is None:
            self._sniffed, self._sniffer = True, None
        return data

    def _elements(self, array: ArrayEvents, data: bytes, at: float) -> list[StreamChunk]:
        """Decode the elements of an array that these bytes complete."""
        out = self._events(array.feed(data), at)
        if not self.events and data.strip(b"[] \t\r\n\xef\xbb\xbf"):
            self.left_out.begin(data)
        self.error = self.error or array.failure
        return out

    # -- by a template ---------------------------------------------------------------------

    def _run(self, template: EventTemplate, blocks: list[bytes], start: int, at: float) -> TextRun:
        """Return the chunks of the blocks from ``start`` on, as far as the template reads them."""
        run = template.run(blocks, start, self.events, at)
        if run:
            self._doubt = b""
            self.events += len(run)
            if self._reasoned:
                self._reasoned -= {template.chunk.choice}
            if self._credit < MAX_CREDIT:
                self._credit = min(self._credit + len(run), MAX_CREDIT)
        return run

    def _by_parser(self, blocks: list[bytes], start: int, at: float, out: list[StreamChunk]) -> int:
        """Decode blocks from ``start`` on, up to where a template is to be tried, and learn one from them if
        that is worth it. Return the number of the next block.
        """
        number = start
        for number in range(start, len(blocks)):
            block, events = blocks[number], self.events
            made = self._ordinary(block, at)
            if made is None:
                made = _alone(self._events(self._sse.dissect(block), at))
            if self._filters_itself:
                self._template = None  # what it was proven with may have changed
            if isinstance(made, StreamChunk):
                out.append(made)
                text = (made.delta or made.reasoning) and not made.elsewhere
                if text and self._credit > 0 and self._pays_to_learn(blocks, number, events):
                    self._template = self._learned(block, made) or self._template
                    self._credit -= LEARNING_COST
            else:
                out += made
            if self._template is not None or self.error is not None:
                break
        return number + 1

    def _learned(self, block: bytes, chunk: StreamChunk) -> EventTemplate | None:
        """Return a template of a block, if there is one."""
        beside = self._provider.beside_text
        if beside is not None:
            made = SidedTemplate.learn_beside(block, chunk, self._by_filter, beside)
            if made is not None:
                return made
        return EventTemplate.learn(block, chunk, self._by_filter)

    def _by_filter(self, name: str, data: bytes) -> Parsed:
        """Read an event like one that was read; ``None`` if that would change what a filter knows."""
        parsed = self._by_name(name, data)
        if self._filters_itself and not (
            type(parsed) is StreamChunk and self._repeats.known(parsed)
        ):
            return None
        return parsed

    def _unsettles(self, parsed: StreamChunk | Sequence[StreamChunk]) -> bool:
        """Return whether an event may change what a template was proven with: a filter's memory."""
        if not self._filters_itself:
            return False
        if type(parsed) is not StreamChunk:
            return True
        place = parsed.part
        known = self._repeats.known(parsed)
        parsed.part = place  # which asking has replaced
        return not known

    def _pays_to_learn(self, blocks: list[bytes], number: int, events: int) -> bool:
        """Return whether a block, before which so many events came, is worth a template."""
        if events < self._learn_from:
            # The first event is often like no other: it opens the answer, too.
            if not events or len(blocks) - number < LEARN_FROM:
                return False
            # A template is for the next event, which begins alike if it is of the same kind.
            if blocks[number][:ALIKE] != blocks[number + 1][:ALIKE]:
                return False
        return not in_message(blocks[number])

    # -- by the provider's parser ----------------------------------------------------------

    def _ordinary(self, block: bytes, at: float) -> Parsed:
        """Decode a block in which nothing is odd: what `SSEDecoder.dissect` and `_events` do for it, in a
        third of the time. Returns ``None``, having changed nothing, for any other.
        """
        if len(block) > self._quick_bytes or self._doubt or self._halves:
            return None
        before, _, line = block.rpartition(b"\n")
        name: str | None = "message"
        if before:
            name = name_in(before) if len(before) < NAME_LINE else None
        if line[:7] in _OPENING:
            data = line[6:]
        elif line[:6] in _CLOSE_OPENING:
            data = line[5:]
        else:
            return None
        try:
            if name == "message":
                parsed = self._provider.parse_chunk(data)
            elif name is not None:
                parsed = self._provider.parse_event(name, data)
            else:
                return None
        except Exception:  # noqa: BLE001 - once more, the long way, which says what is wrong
            return None
        if type(parsed) is not StreamChunk or parsed.elsewhere or parsed.unread:
            return self._filtered(parsed, data, at)
        says, reason = parsed.delta or has_content(parsed), parsed.finish_reason
        # Few events have a backslash, and a partition finds one in half of the time of `find`.
        if says and data.partition(b"\\")[1] and _may_have_half(data):
            return None
        if (says or reason) and data.partition(MESSAGE)[1]:
            return self._filtered(parsed, data, at)
        if says or (parsed.block is not None and not self._filters_itself):
            try:
                self._repeats.note(parsed)
            except ProtocolError:  # likewise; it has changed nothing
                return None
        self.events += 1
        parsed.event, parsed.received_at = self.events, at
        if reason is not None or (says and self._reasoned) or not (parsed.answer or parsed.usage):
            self._note(parsed, data)
        return parsed

    def _filtered(self, parsed: Parsed, data: bytes, at: float) -> Parsed:
        """Return the chunks of an event that may repeat what came before; ``None`` as `_ordinary`."""
        if parsed is not None and self._filters_itself:
            return None  # its filter may refuse what it is given
        self.events += 1
        if parsed is None:
            return ()
        parsed = self._repeats.removed_from(parsed, data, _same)
        return _alone(self._stamp(listed(parsed), at, data, b""))

    def _note(self, chunk: StreamChunk, data: bytes) -> None:
        """Take note of what a chunk says of its choice's end, and of an event that says nothing."""
        if chunk.finish_reason is not None:
            self._reasoned |= {chunk.choice}
        elif self._reasoned and continues_answer(chunk):
            self._reasoned -= {chunk.choice}
        if not chunk.answer and chunk.usage is None:
            self.left_out.strange(data)

    def _events(self, events: list[SSEEvent], at: float) -> list[StreamChunk]:
        out: list[StreamChunk] = []
        for event in events:
            self.events += 1
            data, long = event.data, None
            if type(data) is not bytes or len(data) > LONG_TEXT:
                long = LongTexts(data)
                data = long.short
            if not data or data.isspace():
                continue
            if data[:1] in _PREFIXED:
                data = without_prefix(data)
            try:
                data = self._within_limits(data, "event")
                parsed = self._read(event.event, data)
                restored = _same if long is None else long.restored
                if parsed is not None:
                    if self._template is not None and self._unsettles(parsed):
                        self._template = None
                    parsed = self._repeats.removed_from(restored(parsed), data, restored)
            except ProtocolError as exc:
                if long is None and (found := documents(data)):
                    out += self._several(event, found, at)
                else:
                    self._malformed(exc.reason, exc, data)
            except MiniLLMError as exc:
                if beside := self._beside(exc, event.event, data):
                    self.left_out.pass_over(beside, data)
                    continue
                self.error = exc
                if long is not None and isinstance(exc, ProviderError):
                    exc.content = long.restored(exc.content)
            except MALFORMED as exc:
                if long is None and (found := documents(data)):
                    out += self._several(event, found, at)
                else:
                    self._malformed(_say(exc), exc, data)
            else:
                out += self._stamp(
                    listed(parsed), at, data, bytes(event.data) if self._raw else b""
                )
            if self.error is not None:
                out += self._last_words(self.error, data, at)
                return out
        self.error = self._sse.failure
        return out

    def _beside(self, error: MiniLLMError, name: str, data: bytes) -> str:
        """Return what an event is that reports a failure, but not of the answer; ``""`` for others."""
        from ..providers._errors import is_of_tool  # loaded by the failure already

        known = error if isinstance(error, ProviderError) else None
        if known and known.vague and self._all_reasoned:
            return "an event after the finish reason"
        return "the failure of a tool" if known and is_of_tool(name, data) else ""

    def _several(self, event: SSEEvent, found: list[bytes], at: float) -> list[StreamChunk]:
        """Decode the objects of one event as events."""
        self.events -= 1  # they are counted one by one
        return self._events([SSEEvent(one, event.event, event.id) for one in found], at)

    def _within_limits(self, data: bytes, what: str) -> bytes:
        """Return JSON that may be read, perhaps without large fields beside the answer.

        Raises `LimitExceeded`.
        """
        if exceeded_limit(data) is None:
            return data
        data, names = without_side_fields(data)
        for name in names:
            self.left_out.note(f"{name} beyond the limits of one {what}")
        if exceeded := exceeded_limit(data):
            event = self.events if what == "event" else None
            raise LimitExceeded(f"{exceeded[0]} in one {what}", exceeded[1], event=event)
        return data

    def _read(self, name: str, data: bytes) -> Parsed:
        try:
            return self._by_name(name, data)
        except RecursionError:
            self.left_out.note(DEEP)
        return self._by_name(name, shallow(data))

    def _by_name(self, name: str, data: bytes) -> Parsed:
        if name == "message":
            return self._provider.parse_chunk(data)
        return self._provider.parse_event(name, data)

    def _last_words(self, error: MiniLLMError, data: bytes, at: float) -> Sequence[StreamChunk]:
        """Return what an error's event or body said beside it, and redact the error."""
        said: Sequence[StreamChunk] = ()
        if isinstance(error, ProviderError) and error.content:
            said, error.content = self._stamp(error.content, at, data, data), ()
        self.error = self._redacted(error, data)
        return said

    def _stamp(
        self, chunks: Sequence[StreamChunk], at: float, data: bytes, raw: bytes
    ) -> Sequence[StreamChunk]:
        """Complete chunks with what their event has, and take note of what they say beside it."""
        for chunk in chunks:
            chunk.received_at = at
            chunk.event = self.events
            if self._raw:
                chunk.raw = raw
            if chunk.tool_calls and any(call.partial is not None for call in chunk.tool_calls):
                self._write_paths(chunk)
            if chunk.unread:
                for name in chunk.unread:
                    self.left_out.note(name)
            if self._doubt:
                self._judge(chunk)
            self._note(chunk, data)
            if self._halves is not None or _may_have_half(data):
                self._join_halves(chunk)
        return chunks

    def _write_paths(self, chunk: StreamChunk) -> None:
        """Write the arguments of a chunk's calls that came as values at paths."""
        if self._paths is None:
            from .path_arguments import PathArguments

            self._paths = PathArguments()
        self._paths.write(chunk)

    def _join_halves(self, chunk: StreamChunk) -> None:
        """Join the halves of surrogate pairs in a chunk's texts with those that wait for them."""
        from .surrogates import SurrogateHalves

        halves = self._halves or SurrogateHalves()
        if halves.join(chunk):
            self.left_out.note(HALF)
        self._halves = halves if halves.pending else None

    def _judge(self, chunk: StreamChunk) -> None:
        """Decide whether words of a failure were one: not if the answer goes on, or has its reason."""
        if continues_answer(chunk) or chunk.finish_reason is not None:
            self._doubt = b""
        elif (chunk.usage is not None or chunk.end) and not self._all_reasoned:
            chunk.end = False  # the failure ends the answer
            self._fail_as_doubted()

    def _fail_as_doubted(self) -> None:
        info = self._provider.parse_error(None, redact(self._doubt, self._secrets))
        self.error = self.error or ProviderError(info)

    @property
    def _all_reasoned(self) -> bool:
        return len(self._reasoned) >= self._choices

    def _malformed(self, reason: str, cause: Exception, data: bytes) -> None:
        """Pass over an event that can't be read if the answer can do without it, or else fail."""
        like_answer = re.match(_ANSWER, data) is not None and re.match(_KEEP_ALIVE, data) is None
        if self._ended and like_answer:
            return  # the half that a cut has left
        if isinstance(cause, _NO_ANSWER) and not like_answer:
            if re.match(_FAILURE, data):
                self._doubt = data[:MAX_STRANGE]
            self.left_out.pass_over("an event that is not JSON", data)
        elif self._all_reasoned:
            self.left_out.pass_over("an event after the finish reason", data)
        elif (told := self._failure_behind(data)) is not None:
            self.error = told
        elif isinstance(cause, LimitExceeded):
            self.error = cause
        elif self._lenient:
            self.left_out.pass_over("a malformed event", data)
        else:
            self.error = ProtocolError(reason, event=self.events)
            self.error.__cause__ = cause

    def _failure_behind(self, data: bytes) -> ProviderError | None:
        """Return the failure in the last line of data that are broken before it.

        So relays report that their upstream has broken off inside an event.
        """
        _, line_end, last = data.rpartition(b"\n")
        try:
            if line_end:
                self._provider.parse_chunk(last)
        except ProviderError as exc:
            return exc
        except (MiniLLMError, *MALFORMED):
            pass
        return None

    def other_words(self) -> MiniLLMError | None:
        """Return the error of a body without any part of an answer, in the words of the server.

        ``None`` if it said nothing at all.
        """
        said = self.left_out.words(only_events=bool(self._sse.comments))
        if not said.strip():
            return None
        info = self._provider.parse_error(None, redact(said, self._secrets))
        return ProviderError(info)

    def _redacted(self, error: MiniLLMError, data: bytes) -> MiniLLMError:
        """Return the error without the secrets that the provider has echoed."""
        if not isinstance(error, ProviderError):
            return error  # malformed events are not quoted
        return _redacted_error(error, data, self._provider, self._secrets)

    # -- the end ---------------------------------------------------------------------------

    def finish(self, at: float) -> list[StreamChunk]:
        """End the body: return its last chunks, or those of a document that was no stream.

        Servers leave out the blank line behind their last event, so it is read if it can be. If
        it can't, it is the half that a cut has left, and means nothing.
        """
        if self.error is not None:
            return []
        sniffer = self._sniffer
        if sniffer is not None and sniffer.pieces is not None:
            return self._document(sniffer.document(), at)
        rest = b"" if sniffer is None else sniffer.rest
        events = [*self._sse.feed(rest), *self._sse.flush()]
        self._ended = True
        chunks = self._events(events, at)
        if self._halves is not None:
            self.left_out.note(HALF)
        if self._doubt and not self._all_reasoned:
            self._fail_as_doubted()
        return chunks

    def _document(self, body: bytes, at: float) -> list[StreamChunk]:
        if body[:1] == b"[" and (found := documents(body)):
            return self._events([SSEEvent(one, "message", "") for one in found], at)
        try:
            return list(self._stamp(self._parsed_document(body), at, body, b""))
        except MiniLLMError as exc:
            # Chunks that a proxy has put together without anything between them.
            if isinstance(exc, ProtocolError) and (found := documents(body)):
                return self._events([SSEEvent(one, "message", "") for one in found], at)
            self.error = exc
        return list(self._last_words(self.error, body, at))

    def _parsed_document(self, body: bytes) -> Sequence[StreamChunk]:
        if body[:1] == b"<":
            from ..providers._error_words import text_of_page

            page = text_of_page(redact(body[:THOROUGH], self._secrets).decode("utf-8", "replace"))
            raise ProtocolError(
                f"the body is HTML or XML, not an event stream: {page[:PAGE_CHARS]}"
            )
        long = LongTexts(body)
        body = long.short
        body = self._within_limits(body, "body")
        try:
            try:
                parsed = self._provider.parse_response(body)
            except RecursionError:
                self.left_out.note(DEEP)
                parsed = self._provider.parse_response(shallow(body))
            chunks: Sequence[StreamChunk] = long.restored(parsed)
            if self._choices == 1:
                _as_one(chunks)
        except ProviderError as exc:
            exc.content = long.restored(exc.content)
            raise
        except MALFORMED as exc:
            raise ProtocolError(f"the body is neither events nor an answer: {_say(exc)}") from exc
        return chunks


def new_framing(max_event: int) -> SSEDecoder:
    """Return the decoder of a body's events."""
    return SSEDecoder(max_event, max_event, True)  # by position: half of the time


def _may_have_half(data: bytes) -> bool:
    """Return whether half of a surrogate pair may be in an event."""
    # Few events have a backslash, and one byte is found in a tenth of the time.
    return data.find(b"\\") >= 0 and data.find(_SURROGATE) >= 0


def _same(value: Any) -> Any:
    return value


def _alone(chunks: Sequence[StreamChunk]) -> StreamChunk | Sequence[StreamChunk]:
    """Return an only chunk as itself."""
    return chunks[0] if len(chunks) == 1 else chunks


def listed(parsed: Parsed) -> Sequence[StreamChunk]:
    """Return the chunks of an event."""
    return (parsed,) if isinstance(parsed, StreamChunk) else parsed or ()


def _say(exc: Exception) -> str:
    """Return the words of a parser's error: msgspec's name the place and never the data, others
    may quote it and are not shown.
    """
    if isinstance(exc, msgspec.MsgspecError):
        return "JSON is truncated" if "truncated" in str(exc) else str(exc)
    return type(exc).__name__


def _as_one(chunks: Sequence[StreamChunk]) -> None:
    """Make one choice of several that were not asked for: GitHub's Copilot puts the text and each
    call into a choice of its own. Texts alone stay apart.
    """
    by_choice: dict[int, set[str]] = {}
    for chunk in chunks:
        by_choice.setdefault(chunk.choice, set()).update(kinds_of(chunk))
    kinds = [kind for found in by_choice.values() for kind in found]
    if len(by_choice) < 2 or (len(kinds) > len(set(kinds)) and "tool_calls" not in kinds):
        return
    calls = [call for chunk in chunks for call in chunk.tool_calls]
    for number, call in enumerate(calls):
        call.index = number
    for chunk in chunks:
        chunk.choice = 0


def _redacted_error(
    error: ProviderError, data: bytes, provider: Provider, secrets: Sequence[bytes]
) -> MiniLLMError:
    """Return an error that a provider reported in ``data``, without the secrets it has echoed.

    They are blanked out before anything is cut to an excerpt, so that no part of them is left.
    Not to be called while the error is being handled: it would become the context of the new one.
    """
    if len(data) > THOROUGH:
        return _redacted_words(error, secrets)  # little of the data is shown
    clean = redact(data, secrets)
    if HIDDEN not in clean:
        return error
    again: MiniLLMError = ProviderError(provider.parse_error(None, clean))  # takes any bytes
    try:
        provider.parse_event("error", clean)
    except MiniLLMError as exc:
        again = exc
    except MALFORMED:
        pass  # a body that is only in part what it looks like
    return again


def _redacted_words(error: ProviderError, secrets: Sequence[bytes]) -> ProviderError:
    info = error.info
    shown = {k: getattr(info, k) for k in ("message", "code", "type")}
    for name, text in shown.items():
        shown[name] = text and redact_text(text, secrets)
    again = ProviderError(msgspec.structs.replace(info, metadata=None, **shown))
    again.usage = error.usage
    return again
