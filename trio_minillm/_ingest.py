"""Chunks in, one response out: the only place that accumulates.

`Ingest` folds chunks into text, reasoning, calls, usage and the rest, and asks the table in
`_ending` what they mean for the stream. Guarantees: no method raises or waits; after the
outcome stands nothing changes it or adds to the response; folding chunk by chunk or in
batches is the same; the work per chunk is O(1) (text is a list that is joined once).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ._chunks import (
    Block,
    Choice,
    CompletionResponse,
    Outcome,
    StreamChunk,
    ToolCallDelta,
    Usage,
    has_content,
)
from ._ending import Ending, Event
from ._errors import (
    ConnectionCut,
    EndedEarly,
    LimitExceeded,
    MiniLLMError,
    ProtocolError,
    StreamTimeout,
)
from ._messages import OpaquePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCall

MAX_CHOICES = 128
"""Answers in one response. OpenAI allows 128."""
MAX_TOOL_CALLS = 128
"""Tool calls in one answer. OpenAI allows 128 tools; more calls mean a model in a loop."""
COMPACT_EVERY = 1024
"""Chunks after which the pieces of the newest parts are joined, so that they take the space of
their text. (Joining all of it each time would be quadratic.)"""
MAX_ITEMS = 2**18
"""Annotations, reasoning blocks or log probabilities of one answer. As Python objects they take
twenty times their size on the wire. 262,144 is more tokens than any model gives in one answer."""
LONG_ARGUMENTS = 16 * 1024
"""Arguments beyond this, in characters, are not read again and again to see if they are whole."""
MAX_REASONS = 16
"""Different finish reasons of one answer that are listed; the newest counts in any case."""
MAX_PARTS = 4096
"""Content blocks in one answer."""

CUT_REASONS = frozenset({"length", "max_tokens", "model_context_window_exceeded", "model_length"})
"""Finish reasons that mean: the answer was cut at a limit of tokens."""


class _Text:
    """A text, refusal or reasoning part under construction."""

    __slots__ = ("citations", "details", "kind", "pieces", "signature", "start", "whole")

    def __init__(self, kind: str, start: dict[str, Any] | None = None) -> None:
        self.kind = kind
        self.start = start
        self.whole: list[str] = []  # pieces joined by the thousand, which saves their overhead
        self.pieces: list[str] = []
        self.citations: list[dict[str, Any]] = []
        self.signature: list[str] = []
        self.details: list[_Detail] = []

    def text(self) -> str:
        return _joined_up(self)

    def parts(self, wire: str) -> Iterable[Part]:
        text = self.text()
        if self.kind == "text":
            if text or self.citations:
                yield TextPart(text, citations=tuple(self.citations))
        elif self.kind == "refusal":
            yield RefusalPart(text)
        elif self.details:
            for detail in self.details:
                yield detail.part(wire)
        elif self.start is None:
            yield ReasoningPart(text=text, wire=wire)
        elif self.start.get("type") == "redacted_thinking":
            data = self.start.get("data")
            yield ReasoningPart(encrypted=data, wire=wire, raw=self.start)
        else:
            signature = "".join(self.signature)
            raw = {**self.start, "thinking": text, "signature": signature}
            yield ReasoningPart(text=text, signature=signature or None, wire=wire, raw=raw)


class _Detail:
    """One of OpenRouter's reasoning blocks, whose pieces come with one type and index."""

    __slots__ = ("key", "pieces", "raw")

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = dict(raw)
        self.key = {"reasoning.text": "text", "reasoning.summary": "summary"}.get(
            str(raw.get("type")), ""
        )
        piece = raw.get(self.key)
        self.pieces: list[str] = [piece] if isinstance(piece, str) else []

    def takes(self, raw: dict[str, Any]) -> bool:
        """Whether a new piece continues this block."""
        old, new = self.raw.get("id"), raw.get("id")
        same_id = old is None or new is None or old == new
        same = raw.get("type") == self.raw.get("type") and raw.get("index") == self.raw.get("index")
        return bool(self.key) and same and same_id

    def add(self, raw: dict[str, Any]) -> None:
        for key, value in raw.items():
            if key == self.key:
                if isinstance(value, str):
                    self.pieces.append(value)
            elif value not in (None, "") or key not in self.raw:
                self.raw[key] = value  # signatures come late; empty ones never overwrite

    def part(self, wire: str) -> ReasoningPart:
        raw = self.raw
        if self.key and (self.pieces or self.key in raw):
            raw = {**raw, self.key: "".join(self.pieces) if self.pieces else raw[self.key]}
        data, signature = raw.get("data"), raw.get("signature")
        return ReasoningPart(
            text="".join(self.pieces),
            signature=signature if isinstance(signature, str) and signature else None,
            encrypted=data if isinstance(data, str) else None,
            wire=wire,
            raw=raw,
        )


class _Call:
    """A tool call under construction, or a server tool's block, whose input comes alike."""

    __slots__ = ("extra", "id", "kind", "name", "pieces", "size", "start", "whole")

    def __init__(self, start: dict[str, Any] | None = None) -> None:
        self.start = start  # a server tool's block
        self.id: str | None = None
        self.name: str | None = None
        self.kind = "function"
        self.extra: dict[str, Any] | None = None
        self.whole: list[str] = []
        self.pieces: list[str] = []
        self.size = 0

    def add(self, delta: ToolCallDelta) -> None:
        if delta.id and not self.id:
            self.id = delta.id
        if delta.name and not self.name:
            self.name = delta.name
        if delta.arguments:
            self.pieces.append(delta.arguments)
            self.size += len(delta.arguments)
        if delta.extra:
            self.extra = {**(self.extra or {}), **delta.extra}
        if delta.type == "custom":
            self.kind = "custom"

    def arguments(self) -> str:
        return _joined_up(self)

    def whole_json(self) -> bool:
        """Whether what came so far can be the whole: a JSON object, or nothing at all."""
        try:
            found = msgspec.json.decode(self.arguments().strip() or "{}")
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return False
        return found is None or isinstance(found, dict)

    def call(self, number: int) -> ToolCall:
        return ToolCall(
            id=self.id or f"call_{number}",  # some servers name none, and the answer needs one
            name=self.name or "",
            arguments=self.arguments(),
            type="custom" if self.kind == "custom" else "function",
            extra=self.extra,
        )

    def opaque(self, wire: str) -> OpaquePart:
        raw = dict(self.start or {})
        if self.arguments() and self.whole_json():
            raw["input"] = msgspec.json.decode(self.arguments().strip() or "{}")
        return OpaquePart(wire=wire, raw=raw)


def _compact(part: _Text | _Call) -> None:
    """Move the pieces into one string. A short piece costs 50 bytes beside its text."""
    if part.pieces:
        part.whole.append("".join(part.pieces))
        part.pieces.clear()


def _joined_up(part: _Text | _Call) -> str:
    _compact(part)
    if len(part.whole) > 1:
        part.whole = ["".join(part.whole)]
    return part.whole[0] if part.whole else ""


def _another(found: _Call, delta: ToolCallDelta) -> bool:
    """Whether a named delta without id is a call of its own: another name is, and so is the
    same name again when a new object begins behind a whole one.
    """
    return delta.name != found.name or (
        delta.arguments.lstrip().startswith("{")
        and found.size < LONG_ARGUMENTS
        and found.whole_json()
    )


class _Choice:
    """One answer under construction."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.parts: list[_Text | _Call] = []
        self.numbered: dict[int, _Text | _Call] = {}  # by content-block number
        self.plain: dict[str, _Text] = {}  # on wires without numbers: one part a kind
        self.calls: list[_Call] = []
        self.by_id: dict[str, _Call] = {}
        self.by_index: dict[int, _Call] = {}
        self.reason: str | None = None  # the newest
        self.reasons: list[str] = []  # each that came, once
        self.annotations: list[dict[str, Any]] = []
        self.logprobs: dict[str, Any] = {}
        self.audio: dict[str, Any] = {}
        self.images: list[dict[str, Any]] = []
        self.over_limit: tuple[str, int] | None = None

    # -- parts -----------------------------------------------------------------------------

    def part(self, kind: str, number: int | None) -> _Text:
        """The part that a piece of this kind belongs to; opened if there is none."""
        if number is None:
            found = self.plain.get(kind)
            if found is None:
                found = self.plain[kind] = _Text(kind)
                self._append(found)
            return found
        there = self.numbered.get(number)
        if isinstance(there, _Text) and there.kind == kind:
            return there
        # A delta for a block that was never opened, or is of another kind: nothing is lost.
        found = _Text(kind)
        self.numbered[number] = found
        self._append(found)
        return found

    def _append(self, part: _Text | _Call) -> None:
        if len(self.parts) >= MAX_PARTS:
            self.over_limit = ("content blocks", MAX_PARTS)
        else:
            self.parts.append(part)

    def block(self, number: int, block: Block) -> None:
        """A numbered block opens or changes (its end needs nothing)."""
        if block.start is not None:
            kind = block.start.get("type")
            opened: _Text | _Call
            if kind == "tool_use":
                return  # the call's delta, beside it, opens the call
            if kind in ("text", "thinking", "redacted_thinking"):
                opened = _Text("text" if kind == "text" else "reasoning", block.start)
                citations = block.start.get("citations")
                if isinstance(citations, list):
                    opened.citations += citations
                if isinstance(block.start.get("signature"), str):
                    opened.signature.append(block.start["signature"])
            else:
                opened = _Call(dict(block.start))
            self.numbered[number] = opened
            self._append(opened)
        elif block.delta is not None:
            self._change(number, block.delta)

    def _change(self, number: int, delta: dict[str, Any]) -> None:
        there = self.numbered.get(number)
        if isinstance(there, _Call):
            if there.start is not None:
                there.start.update(delta)
        elif "signature" in delta:
            self.part("reasoning", number).signature.append(delta["signature"])
        elif "citation" in delta:
            self.part("text", number).citations.append(delta["citation"])

    # -- calls -----------------------------------------------------------------------------

    def call_delta(self, delta: ToolCallDelta, number: int | None, opens: bool) -> None:
        if number is not None and not opens:
            there = self.numbered.get(number)
            if isinstance(there, _Call):
                there.add(delta)
                return
        call = None if opens else self._find(delta)
        if call is None:
            if len(self.calls) >= MAX_TOOL_CALLS:
                self.over_limit = ("tool calls", MAX_TOOL_CALLS)
                return
            call = _Call()
            self.calls.append(call)
            self._append(call)
            if number is not None:
                self.numbered[number] = call
        call.add(delta)
        if delta.id:
            self.by_id[delta.id] = call
        if delta.index is not None:
            self.by_index[delta.index] = call

    def _find(self, delta: ToolCallDelta) -> _Call | None:
        """The open call that a delta continues: by id, else by index, else the last one.

        ``None`` where it opens a new one: an id not seen before (unless the call at its index
        still waits for an id), an index not seen before, or a name on a call that has its own.
        """
        if delta.id and delta.id in self.by_id:
            return self.by_id[delta.id]
        if delta.index is not None:
            found = self.by_index.get(delta.index)
        else:
            found = self.calls[-1] if self.calls else None
        if found is None or (delta.id and found.id):
            return None
        again = delta.name and found.name and not delta.id
        return None if again and _another(found, delta) else found

    # -- the rest --------------------------------------------------------------------------

    def extras(self, chunk: StreamChunk) -> None:
        """What few chunks have."""
        if chunk.refusal:
            self.part("refusal", chunk.part).pieces.append(chunk.refusal)
        if chunk.tool_calls:
            opens = chunk.block is not None and chunk.block.start is not None
            for delta in chunk.tool_calls:
                self.call_delta(delta, chunk.part, opens)
        if chunk.reasoning_details:
            details = self.part("reasoning", chunk.part).details
            for raw in chunk.reasoning_details:
                if details and details[-1].takes(raw):
                    details[-1].add(raw)
                else:
                    details.append(_Detail(raw))
                if len(details) > MAX_ITEMS:
                    self.over_limit = ("reasoning blocks", MAX_ITEMS)
        if chunk.annotations:
            self.annotations += chunk.annotations
            if len(self.annotations) > MAX_ITEMS:
                self.over_limit = ("annotations", MAX_ITEMS)
        if chunk.logprobs:
            _join(self.logprobs, chunk.logprobs)
            if any(isinstance(v, list) and len(v) > MAX_ITEMS for v in self.logprobs.values()):
                self.over_limit = ("log probabilities", MAX_ITEMS)
        self.images += chunk.images
        if chunk.audio:
            _join(self.audio, chunk.audio)
        if chunk.finish_reason is not None:
            self.reason = chunk.finish_reason
            if self.reason not in self.reasons and len(self.reasons) < MAX_REASONS:
                self.reasons.append(self.reason)

    def join(self, kind: str) -> str:
        texts = [p.text() for p in self.parts if isinstance(p, _Text) and p.kind == kind]
        return texts[0] if len(texts) == 1 else "".join(texts)

    def build(self, wire: str, finished: bool) -> Choice:
        parts: list[Part] = []
        good: list[ToolCall] = []
        bad: list[ToolCall] = []
        for part in self.parts:
            if isinstance(part, _Text):
                parts += part.parts(wire)
            elif part.start is not None:
                parts.append(part.opaque(wire))
            else:
                call = part.call(len(good) + len(bad))
                cut = self.reason in CUT_REASONS and part is self.calls[-1] and not part.arguments()
                whole = part.kind == "custom" or part.whole_json()
                (good if finished and whole and part.name and not cut else bad).append(call)
                parts.append(call)
        refusal = self.join("refusal")
        return Choice(
            index=self.index,
            parts=tuple(parts),
            content=self.join("text"),
            reasoning=self.join("reasoning"),
            refusal=refusal or None,
            tool_calls=tuple(good),
            invalid_tool_calls=tuple(bad),
            finish_reason=self.reason,
            finish_reasons=tuple(self.reasons),
            logprobs=_joined(self.logprobs),
            annotations=tuple(self.annotations),
            audio=_joined(self.audio),
            images=tuple(self.images),
        )


def _join(into: dict[str, Any], new: dict[str, Any]) -> None:
    """Lists and strings grow, other values are replaced, nulls say nothing."""
    for key, value in new.items():
        there = into.get(key)
        if isinstance(value, list):
            if type(there) is list:
                there += value
            else:
                into[key] = list(value)
        elif isinstance(value, str) and key != "id":
            if not isinstance(there, _Pieces):
                there = into[key] = _Pieces()
            there.append(value)
        elif value is not None:
            into[key] = value


class _Pieces(list[str]):
    """Pieces of one string."""


def _joined(found: dict[str, Any]) -> dict[str, Any] | None:
    out = {k: "".join(v) if isinstance(v, _Pieces) else v for k, v in found.items()}
    return out or None


class Ingest:
    """The machine of one stream: see this module's docstring for what it guarantees."""

    def __init__(
        self,
        *,
        model: str,
        id: str = "",
        expect_usage: bool,
        choices: int = 1,
        wire: str = "",
        awaits_end: bool = False,
    ) -> None:
        self.ending: Ending = Ending(
            expect_usage=expect_usage, choices=choices, awaits_end=awaits_end
        )
        self.id: str = id
        self.model: str = model
        self.error: MiniLLMError | None = None
        self.usage: Usage | None = None
        self.chunks: int = 0
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.metadata: dict[str, Any] = {}
        self.notes: list[str] = []
        self.rejected: bool = False
        self._model_said = False
        self._wire = wire
        self._first = _Choice(0)
        self._choices: dict[int, _Choice] = {0: self._first}

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, once it stands."""
        return self.ending.outcome

    def ingest(self, chunk: StreamChunk) -> None:
        """Fold one chunk. After the outcome stands this does nothing."""
        if self.ending.over:
            return
        choice = self._first if chunk.choice == 0 else self._choice(chunk.choice)
        if choice is None:
            return
        if chunk.block is not None and chunk.part is not None:
            choice.block(chunk.part, chunk.block)
        if chunk.delta:
            choice.part("text", chunk.part).pieces.append(chunk.delta)
        if chunk.reasoning:
            choice.part("reasoning", chunk.part).pieces.append(chunk.reasoning)
        if chunk.progress:
            self._content(chunk, choice)
        if chunk.id and not self.id:
            self.id = chunk.id
        if chunk.model and not self._model_said:
            self.model = chunk.model
            self._model_said = True
        if chunk.metadata is not None:
            self.metadata.update(chunk.metadata)
        if chunk.usage is not None:
            if self.usage is None:
                self.usage = Usage()
            self.usage.merge_from(chunk.usage)
        self.ending.chunk(chunk)
        if self.usage is not None:
            self.usage.final = self.ending.usage_final
        if choice.over_limit is not None:
            self.fail(LimitExceeded(*choice.over_limit, event=chunk.event or None))

    def ingest_all(self, chunks: Iterable[StreamChunk]) -> None:
        """Fold a batch: the same as folding its chunks one by one."""
        for chunk in chunks:
            self.ingest(chunk)

    def fail(self, error: MiniLLMError) -> None:
        """The stream broke, a clock ran out, or the body ended. What that means depends on
        the state: an answer that is whole stays whole, and the error becomes a note.
        """
        if self.ending.over:
            return
        if isinstance(error, StreamTimeout):
            event = Event.CLOCK
        elif isinstance(error, ConnectionCut):
            event = Event.CUT
        else:
            event = Event.CLOSE if isinstance(error, EndedEarly) else Event.ERROR
        self.ending.event(event)
        if self.outcome is Outcome.FINISHED:
            self.notes.append(f"ended without the expected usage or end marker: {error}")
        else:
            self.error = error
            error.partial = self.response()

    def cancel(self, *, rejected: bool = False) -> None:
        """The caller left. Does nothing once the outcome stands."""
        if not self.ending.over:
            self.rejected = rejected
            self.ending.event(Event.CANCEL)

    @property
    def accumulated(self) -> str:
        """The text of the first choice so far."""
        return self._shown()[0].join("text")

    @property
    def finish_reason(self) -> str | None:
        """The newest finish reason of the first choice."""
        return self._shown()[0].reason

    def _shown(self) -> list[_Choice]:
        """The choices by number, without a number 0 that never came."""
        if len(self._choices) == 1:
            return [self._first]
        shown = [self._choices[number] for number in sorted(self._choices)]
        return shown if self._first.parts or self._first.reasons else shown[1:]

    def response(self, **more: Any) -> CompletionResponse:
        """What has arrived, as a response. A snapshot: later chunks don't change it."""
        finished = self.outcome is Outcome.FINISHED
        built = [c.build(self._wire, finished) for c in self._shown()]
        notes = list(self.notes)
        for choice in built:
            if len(choice.finish_reasons) > 1:
                notes.append(f"choice {choice.index}: finish reasons {choice.finish_reasons}")
        return CompletionResponse(
            id=self.id,
            model=self.model,
            choices=tuple(built),
            usage=None if self.usage is None else msgspec.structs.replace(self.usage),
            outcome=self.outcome,
            rejected=self.rejected,
            metadata=_decoded(self.metadata, notes),
            notes=tuple(notes),
            **more,
        )

    def _content(self, chunk: StreamChunk, choice: _Choice) -> None:
        if chunk.delta or has_content(chunk):
            self.last_at = chunk.received_at
            if self.first_at is None:
                self.first_at = chunk.received_at
            self.chunks += 1
            if self.chunks % COMPACT_EVERY == 0:
                for part in choice.parts[-8:]:
                    _compact(part)
        choice.extras(chunk)

    def _choice(self, index: int) -> _Choice | None:
        found = self._choices.get(index)
        if index < 0:
            self.fail(ProtocolError("a choice has a negative number"))
            return None
        if found is None:
            if len(self._choices) >= MAX_CHOICES:
                self.fail(LimitExceeded("choices", MAX_CHOICES))
                return None
            found = self._choices[index] = _Choice(index)
        return found


def _decoded(metadata: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The metadata with its undecoded JSON read; what can't be is left out, with a note."""
    out: dict[str, Any] = {}
    for key, value in metadata.items():
        try:
            out[key] = msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            notes.append(f"{key} was malformed and is left out")
    return out
