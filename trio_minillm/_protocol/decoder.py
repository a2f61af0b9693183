"""Body bytes -> chunks: framing and the provider's parsing, put together. No I/O, no clock.

Everything that can be wrong with the bytes becomes one of this library's errors here and
names the event, so that no foreign exception leaves this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from .._types.chunks import StreamChunk, has_content
from .._types.errors import LimitExceeded, MiniLLMError, ProtocolError, ProviderError
from ..providers import Provider
from .json_limits import exceeded_limit
from .redaction import HIDDEN, THOROUGH, redact
from .sse import MAX_EVENT, QUICK_BYTES, SSEDecoder, SSEEvent
from .templates import EventTemplate, TextRun

_BOM = b"\xef\xbb\xbf"

MAX_WHOLE = 4 * 1024 * 1024
"""Largest JSON body read in place of a stream, in bytes (a server that ignored ``stream``): as much as
an event may have. It is parsed in one go."""

_BLANK = b"\n\n"

FEW, SOON = 2, 3
"""Blocks in a read, or events so far, from which on a template is learned. A lesson costs as much as
reading two or three events the long way, and each of thousands of streams holds what it has learned."""
LESSON, MAX_CREDIT = 4, 64
"""What learning a template costs, and what can be saved up for it: each chunk that a template
reads gives 1. A stream in which none ever fits pays for 16 lessons."""

# What a provider's parser may trip over in malformed input. Everything else is a bug and
# shall be seen as one.
_MALFORMED = (
    msgspec.MsgspecError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class ChunkDecoder:
    """One response body, decoded as it comes.

    Guarantees: the chunks of any split of the same bytes are the same; what came before a
    fault is handed out first, then ``error`` is set and nothing more comes out.

    ``lenient`` passes over malformed events and counts them in ``skipped``; ``raw`` keeps each
    event's bytes on its chunks; ``secrets`` are blanked out in what errors show.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        lenient: bool = False,
        raw: bool = False,
        secrets: Sequence[bytes] = (),
    ) -> None:
        self.error: MiniLLMError | None = None
        self.skipped = 0
        self.events = 0
        self._provider = provider
        self._secrets = secrets
        self._lenient = lenient
        self._raw = raw
        self._sse = SSEDecoder()
        self._template: EventTemplate | None = None
        # Lessons cost a second parsing, and some streams never repeat themselves.
        self._quick = provider.literal_text and not raw
        self._credit = MAX_CREDIT if self._quick else 0
        self._soon = SOON
        self._begun = False  # past the byte-order mark, if there was one
        self._sniffed = False
        self._head = b""  # half a byte-order mark
        self._whole: list[bytes] | None = None  # the body, where it is no event stream
        self._whole_size = 0

    def feed(self, data: bytes, at: float) -> list[StreamChunk]:
        """The chunks that these bytes complete; ``at`` is when they left the socket."""
        if self.error is not None:
            return []
        if not self._sniffed:
            data = self._sniff(data)
        if self._whole is not None:
            self._keep(data)
            return []
        bounded = len(data) <= MAX_EVENT - QUICK_BYTES  # no block can cross a bound then
        template = self._template if bounded else None
        if template is not None and data.find(_BLANK) == len(data) - len(_BLANK):
            # The commonest read: a single event, like the one before.
            run = self._run(template, [data[: -len(_BLANK)]], 0, at) if self._sse.between else None
            if run:
                return TextRun(run, template)
        events, blocks, tail = self._sse.split(data)
        if b"" in blocks[:3]:  # blank lines by the thousand would each be looked at
            blocks = [block for block in blocks if block]
        out = self._events(events, at) if events else []
        done = 0
        while done < len(blocks) and self.error is None:
            template = self._template if bounded else None
            run = self._run(template, blocks, done, at) if template is not None else None
            if run and template is not None:
                done += len(run)
                if len(run) == len(blocks) and not out:
                    out = run = TextRun(run, template)
                else:
                    out += run
            else:
                out += self._block(
                    blocks[done], at, learn=len(blocks) > FEW or self.events >= self._soon
                )
                done += 1
        if tail and self.error is None:
            out += self._events(self._sse.hold(tail, quick=self._quick), at)
        self.error = self.error or self._sse.failure
        return out

    def _run(
        self, template: EventTemplate, blocks: list[bytes], start: int, at: float
    ) -> list[StreamChunk]:
        """The chunks of the blocks from ``start`` on, as far as they are by the template."""
        run: list[StreamChunk] = []
        text_of, reasoning, like = template.text, template.reasoning, template.chunk
        ident, model, choice, part = like.id, like.model, like.choice, like.part
        event = self.events
        for number in range(start, len(blocks)):
            text = text_of(blocks[number])
            if text is None:
                break
            event += 1
            run.append(
                StreamChunk(
                    "" if reasoning else text,
                    text if reasoning else "",
                    id=ident,
                    model=model,
                    choice=choice,
                    part=part,
                    event=event,
                    received_at=at,
                )
            )
        self.events = event
        if run:
            self._credit = min(self._credit + len(run), MAX_CREDIT)
        return run

    def _block(self, block: bytes, at: float, *, learn: bool) -> list[StreamChunk]:
        """One block, the long way; what is common in it is remembered."""
        chunks = self._events(self._sse.dissect(block), at)
        if learn and len(chunks) == 1 and self._credit > 0 and chunks[0].progress:
            learned = EventTemplate.learn(block, chunks[0], self._parsed)
            self._template = learned or self._template
            self._credit -= LESSON
        return chunks

    def _parsed(self, block: bytes) -> object:
        """What a block says, without any effect."""
        (event,) = SSEDecoder().feed(block + b"\n\n")
        if event.event == "message":
            return self._provider.parse_chunk(event.data)
        return self._provider.parse_event(event.event, event.data)

    def finish(self, at: float) -> list[StreamChunk]:
        """The body has ended: the last event, or the answer in a body that was no stream.

        Servers leave the blank line behind their last event out, so it is read if it can be. If
        it can't, it is the half that a cut has left, which says nothing.
        """
        if self.error is not None:
            return []
        if self._whole is None:
            events = [*self._sse.feed(self._head), *self._sse.flush()]
            chunks = self._events(events, at)
            half = isinstance(self.error, ProtocolError)
            if half and not isinstance(self.error, LimitExceeded):
                self.error = None
            return chunks
        body = b"".join(self._whole)
        try:
            return self._stamp(self._answer(body), at, b"")
        except MiniLLMError as exc:
            self.error = exc
        self.error = self._hidden(self.error, body)
        return []

    def _sniff(self, data: bytes) -> bytes:
        """An event stream never begins like JSON or HTML: tell by that, not by the header.

        Returns what is to be decoded now: half a byte-order mark waits for its other half.
        """
        data, self._head = self._head + data, b""
        if not self._begun:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._head = data
                return b""
            self._begun = True
            head = data.removeprefix(_BOM).lstrip()[:1]
        else:  # behind blanks, where a byte-order mark is none
            head = data.lstrip()[:1]
        if head:
            self._sniffed = True
            if head in b"{[<":
                self._whole = []
        return data

    def _keep(self, data: bytes) -> None:
        assert self._whole is not None
        self._whole_size += len(data)
        if self._whole_size > MAX_WHOLE:
            self.error = LimitExceeded("bytes in a body that is no event stream", MAX_WHOLE)
            self._whole.clear()
        else:
            self._whole.append(data)

    def _answer(self, body: bytes) -> Sequence[StreamChunk]:
        body = body.removeprefix(_BOM).lstrip()  # blanks may have come before it was recognised
        if body[:1] == b"<":
            raise ProtocolError("the body is HTML or XML, not an event stream")
        if crowd := exceeded_limit(body):
            raise LimitExceeded(f"{crowd[0]} in one body", crowd[1])
        try:
            return self._provider.parse_response(body)
        except _MALFORMED as exc:
            raise ProtocolError(f"the body is neither events nor an answer: {_say(exc)}") from exc

    def _events(self, events: list[SSEEvent], at: float) -> list[StreamChunk]:
        out: list[StreamChunk] = []
        parse = self._provider.parse_chunk
        for event in events:
            self.events += 1
            data = event.data
            if not data or data.isspace():
                continue
            if crowd := exceeded_limit(data):
                bound, limit = crowd
                self.error = LimitExceeded(f"{bound} in one event", limit, event=self.events)
                return out
            try:
                if event.event == "message":
                    parsed = parse(data)
                else:
                    parsed = self._provider.parse_event(event.event, data)
            except ProtocolError as exc:
                self._malformed(exc.reason, exc)
            except MiniLLMError as exc:
                self.error = exc
            except _MALFORMED as exc:
                self._malformed(_say(exc), exc)
            else:
                if parsed is None:
                    continue
                if self.events == 1:
                    parsed = self._whole_event(parsed, data)
                if isinstance(parsed, StreamChunk):
                    parsed.received_at = at
                    parsed.event = self.events
                    if self._raw:
                        parsed.raw = data
                    out.append(parsed)
                else:
                    out += self._stamp(parsed, at, data)
            if self.error is not None:
                self.error = self._hidden(self.error, data)
                return out
        self.error = self._sse.failure
        return out

    def _whole_event(
        self, parsed: StreamChunk | Sequence[StreamChunk], data: bytes
    ) -> StreamChunk | Sequence[StreamChunk]:
        """A first event that ends the answer before anything was said may be the whole of it, from
        a proxy that streams for servers which don't.
        """
        chunks = [parsed] if isinstance(parsed, StreamChunk) else parsed
        if not any(c.finish_reason for c in chunks) or any(map(has_content, chunks)):
            return parsed
        with suppress(MiniLLMError, *_MALFORMED):
            whole = self._provider.parse_response(data)
            if any(map(has_content, whole)):
                return whole
        return parsed

    def _stamp(self, chunks: Sequence[StreamChunk], at: float, data: bytes) -> list[StreamChunk]:
        for chunk in chunks:
            chunk.received_at = at
            chunk.event = self.events
            if self._raw:
                chunk.raw = data
        return list(chunks)

    def _hidden(self, error: MiniLLMError, data: bytes) -> MiniLLMError:
        """The same error without the key, where the provider echoed it: blanked in the data
        before anything is cut to an excerpt, so that no part of it is left. Not to be called
        while the error is being handled: it would become the context of the new one.
        """
        if not isinstance(error, ProviderError):
            return error  # malformed events are not quoted
        if len(data) > THOROUGH:
            return self._short(error)  # of which little is shown
        clean = redact(data, self._secrets)
        if HIDDEN in clean:
            # `parse_error` takes any bytes.
            again: MiniLLMError = ProviderError(self._provider.parse_error(None, clean))
            try:
                self._provider.parse_event("error", clean)
            except MiniLLMError as exc:
                again = exc
            except _MALFORMED:
                pass  # a body that is only in part what it looks like
            error = again
        return error

    def _short(self, error: ProviderError) -> ProviderError:
        """What is shown of a long event, without the key."""
        info = error.info
        shown = {k: getattr(info, k) for k in ("message", "code", "type")}
        for name, text in shown.items():
            shown[name] = text and redact(text.encode("utf-8", "replace"), self._secrets).decode()
        again = ProviderError(msgspec.structs.replace(info, metadata=None, **shown))
        again.usage = error.usage
        return again

    def _malformed(self, reason: str, cause: Exception) -> None:
        if self._lenient:
            self.skipped += 1
            return
        self.error = ProtocolError(reason, event=self.events)
        self.error.__cause__ = cause


def _say(exc: Exception) -> str:
    """Msgspec's messages name the place and never the data; others may, and are not shown."""
    return str(exc) if isinstance(exc, msgspec.MsgspecError) else type(exc).__name__
