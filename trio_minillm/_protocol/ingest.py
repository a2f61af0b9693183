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

from .._types.chunks import Block, StreamChunk, ToolCallDelta, has_content
from .._types.errors import (
    ConnectionCut,
    EndedEarly,
    LimitExceeded,
    MiniLLMError,
    ProtocolError,
    ProviderError,
    StreamTimeout,
)
from .._types.messages import Part, ToolCall
from .._types.response import Choice, CompletionResponse, Outcome
from .._types.usage import Usage
from .builders import (
    CallBuilder,
    DetailBuilder,
    TextBuilder,
    another_call,
    compact,
    join_fields,
    joined_fields,
)
from .state import Event, StreamState
from .templates import TextRun

MAX_CHOICES = 128
"""Answers in one response. OpenAI allows 128."""
MAX_TOOL_CALLS = 128
"""Tool calls in one answer. OpenAI allows 128 tools; more calls mean a model in a loop."""
COMPACT_EVERY = 1024
"""Chunks after which the pieces of the newest parts are joined, so that they take the space of
their text. (Joining all of it each time would be quadratic.)"""
MAX_ARGUMENTS = 8 * 1024 * 1024
"""Characters of arguments in all the tool calls of a response, which are checked to be JSON: 8 Mi,
some 15 times what a model can say in one answer."""
MAX_INPUT = 256 * 1024
"""Characters of the input of one of the provider's own tools, which is kept decoded."""
MAX_ITEMS = 2**18
"""Annotations, reasoning blocks or log probabilities of one answer. As Python objects they take
twenty times their size on the wire. 262,144 is more tokens than any model gives in one answer."""
MAX_REASONS = 16
"""Different finish reasons of one answer that are listed; the newest counts in any case."""
MAX_PARTS = 4096
"""Content blocks, and images, in one answer."""

_FIELDS = ("fields of audio or log probabilities", MAX_PARTS)

CUT_REASONS = frozenset({"length", "max_tokens", "model_context_window_exceeded", "model_length"})
"""Finish reasons that mean: the answer was cut at a limit of tokens."""


class _Extras:
    """What few answers have."""

    def __init__(self) -> None:
        self.calls: list[CallBuilder] = []
        self.by_id: dict[str, CallBuilder] = {}
        self.by_index: dict[int, CallBuilder] = {}
        self.annotations: list[dict[str, Any]] = []
        self.logprobs: dict[str, Any] = {}
        self.audio: dict[str, Any] = {}
        self.images: list[dict[str, Any]] = []

    def call_of(self, delta: ToolCallDelta) -> CallBuilder | None:
        """The open call that a delta continues: by id, else by index, else the last one.

        ``None`` where it opens a new one: an id not seen before (unless the call at its index
        still waits for an id, or its arguments have not ended and no name comes with the new id),
        an index not seen before, or a name on a call that has its own.
        """
        if delta.id and delta.id in self.by_id:
            return self.by_id[delta.id]
        if delta.index is not None:
            found = self.by_index.get(delta.index)
        else:
            found = self.calls[-1] if self.calls else None
        if found is None:
            return None
        if delta.id and found.id:  # some servers make up an id for every piece
            return found if not delta.name and found.open() else None
        again = delta.name and found.name and not delta.id
        return None if again and another_call(found, delta) else found


class _Choice:
    """One answer under construction."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.parts: list[TextBuilder | CallBuilder] = []
        self.numbered: dict[int, TextBuilder | CallBuilder] = {}  # by content-block number
        self.plain: dict[str, TextBuilder] = {}  # on wires without numbers: one part a kind
        self.reason: str | None = None  # the newest
        self.reasons: list[str] = []  # each that came, once
        self.over_limit: tuple[str, int] | None = None
        # Few answers have any, and of thousands at once each would hold a dozen empty containers.
        self.rare: _Extras | None = None

    # -- parts -----------------------------------------------------------------------------

    def part(self, kind: str, number: int | None) -> TextBuilder:
        """The part that a piece of this kind belongs to; opened if there is none."""
        if number is None:
            found = self.plain.get(kind)
            if found is None:
                found = self.plain[kind] = TextBuilder(kind)
                self._append(found)
            return found
        there = self.numbered.get(number)
        if isinstance(there, TextBuilder) and there.kind == kind:
            return there
        # A delta for a block that was never opened, or is of another kind: nothing is lost.
        found = TextBuilder(kind)
        self.numbered[number] = found
        self._append(found)
        return found

    def _append(self, part: TextBuilder | CallBuilder) -> None:
        if len(self.parts) >= MAX_PARTS:
            self.over_limit = ("content blocks", MAX_PARTS)
        else:
            self.parts.append(part)

    def block(self, number: int, block: Block) -> None:
        """A numbered block opens or changes (its end needs nothing)."""
        if block.start is not None:
            kind = block.start.get("type")
            opened: TextBuilder | CallBuilder
            if kind == "tool_use":
                return  # the call's delta, beside it, opens the call
            if kind in ("text", "thinking", "redacted_thinking"):
                opened = TextBuilder("text" if kind == "text" else "reasoning", block.start)
                citations = block.start.get("citations")
                if isinstance(citations, list):
                    opened.citations += citations
                if isinstance(block.start.get("signature"), str):
                    opened.signature.append(block.start["signature"])
            else:
                opened = CallBuilder(dict(block.start))
            self.numbered[number] = opened
            self._append(opened)
        elif block.delta is not None:
            self._change(number, block.delta)

    def _change(self, number: int, delta: dict[str, Any]) -> None:
        there = self.numbered.get(number)
        if isinstance(there, CallBuilder):
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
            if isinstance(there, CallBuilder):
                there.add(delta)
                if there.start is not None and there.size > MAX_INPUT:
                    self.over_limit = ("characters in the input of a provider's tool", MAX_INPUT)
                return
        rare = self.rare = self.rare or _Extras()
        call = None if opens else rare.call_of(delta)
        if call is None:
            if len(rare.calls) >= MAX_TOOL_CALLS:
                self.over_limit = ("tool calls", MAX_TOOL_CALLS)
                return
            call = CallBuilder()
            rare.calls.append(call)
            self._append(call)
            if number is not None:
                self.numbered[number] = call
        call.add(delta)
        if delta.id:
            rare.by_id[delta.id] = call
        if delta.index is not None:
            rare.by_index[delta.index] = call

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
                    details.append(DetailBuilder(raw))
                if len(details) > MAX_ITEMS:
                    self.over_limit = ("reasoning blocks", MAX_ITEMS)
        if chunk.annotations or chunk.logprobs or chunk.images or chunk.audio:
            self._rare(chunk)
        if chunk.finish_reason is not None:
            self.reason = chunk.finish_reason
            if self.reason not in self.reasons and len(self.reasons) < MAX_REASONS:
                self.reasons.append(self.reason)

    def _rare(self, chunk: StreamChunk) -> None:
        rare = self.rare = self.rare or _Extras()
        if len(chunk.audio or ()) > MAX_PARTS or len(chunk.logprobs or ()) > MAX_PARTS:
            self.over_limit = _FIELDS
            return
        if chunk.annotations:
            rare.annotations += chunk.annotations
            if len(rare.annotations) > MAX_ITEMS:
                self.over_limit = ("annotations", MAX_ITEMS)
        if chunk.logprobs:
            join_fields(rare.logprobs, chunk.logprobs)
            if any(isinstance(v, list) and len(v) > MAX_ITEMS for v in rare.logprobs.values()):
                self.over_limit = ("log probabilities", MAX_ITEMS)
        rare.images += chunk.images
        if len(rare.images) > MAX_PARTS:
            self.over_limit = ("images", MAX_PARTS)
        if chunk.audio:
            join_fields(rare.audio, chunk.audio)
        if len(rare.audio) > MAX_PARTS or len(rare.logprobs) > MAX_PARTS:
            self.over_limit = _FIELDS

    def join(self, kind: str) -> str:
        texts = [p.text() for p in self.parts if isinstance(p, TextBuilder) and p.kind == kind]
        return texts[0] if len(texts) == 1 else "".join(texts)

    def build(self, wire: str, finished: bool) -> Choice:
        rare = self.rare or _Extras()
        parts: list[Part] = []
        good: list[ToolCall] = []
        bad: list[ToolCall] = []
        for part in self.parts:
            if isinstance(part, TextBuilder):
                parts += part.parts(wire)
            elif part.start is not None:
                parts.append(part.opaque(wire))
            else:
                call = part.call(len(good) + len(bad))
                cut = self.reason in CUT_REASONS and part is rare.calls[-1] and not part.arguments()
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
            logprobs=joined_fields(rare.logprobs),
            annotations=tuple(rare.annotations),
            audio=joined_fields(rare.audio),
            images=tuple(rare.images),
        )


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
        self.ending: StreamState = StreamState(
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
        self._arguments = 0  # characters of them
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
        choice = self._first if chunk.choice == 0 else self._choice(chunk)
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
        if type(chunks) is TextRun and not self.ending.over:
            self._plain(chunks)
            return
        for chunk in chunks:
            self.ingest(chunk)

    def _plain(self, batch: TextRun) -> None:
        self.ingest(batch[0])  # the others say nothing more, but for their text
        self.pieces_of(batch[0]).extend([c.delta or c.reasoning for c in batch[1:]])
        before, self.chunks = self.chunks, self.chunks + len(batch) - 1
        self.last_at = batch[-1].received_at
        if before // COMPACT_EVERY != self.chunks // COMPACT_EVERY:
            self.compact()

    def pieces_of(self, chunk: StreamChunk) -> list[str]:
        """Where the text of a plain chunk that was folded has gone, and that of its like goes."""
        choice = self._choices[chunk.choice]
        return choice.part("reasoning" if chunk.reasoning else "text", chunk.part).pieces

    def compact(self) -> None:
        """Join what the newest parts consist of. To be called every `COMPACT_EVERY` chunks."""
        for choice in self._choices.values():
            for part in choice.parts[-8:]:
                compact(part)

    def fail(self, error: MiniLLMError) -> None:
        """The stream broke, a clock ran out, or the body ended. What that means depends on
        the state: an answer that is whole stays whole, and the error becomes a note.
        """
        if self.ending.over:
            return
        if isinstance(error, ProviderError) and error.usage is not None:
            self.usage = self.usage or Usage()
            self.usage.merge_from(error.usage)
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

    def cancel(self, *, rejected: bool = False, error: MiniLLMError | None = None) -> None:
        """The caller left, or a limit of the caller's (``error``) was reached. Does nothing once
        the outcome stands.
        """
        if not self.ending.over:
            self.rejected = rejected
            self.error = error
            self.ending.event(Event.CANCEL)
            if error is not None:
                error.partial = self.response()

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

    def response(self, *, id: str | None = None, **more: Any) -> CompletionResponse:
        """What has arrived, as a response. A snapshot: later chunks don't change it. ``id`` is
        that of the headers, which counts before one of the chunks.
        """
        finished = self.outcome is Outcome.FINISHED
        built = [c.build(self._wire, finished) for c in self._shown()]
        notes = list(self.notes)
        for choice in built:
            if len(choice.finish_reasons) > 1:
                notes.append(f"choice {choice.index}: finish reasons {choice.finish_reasons}")
        return CompletionResponse(
            id=id or self.id,
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
                    compact(part)
        if chunk.tool_calls:
            self._arguments += sum(len(delta.arguments) for delta in chunk.tool_calls)
            if self._arguments > MAX_ARGUMENTS:
                choice.over_limit = ("characters in the arguments of calls", MAX_ARGUMENTS)
        choice.extras(chunk)

    def _choice(self, chunk: StreamChunk) -> _Choice | None:
        index, event = chunk.choice, chunk.event or None
        found = self._choices.get(index)
        if index < 0:
            self.fail(ProtocolError("a choice has a negative number", event=event))
            return None
        if found is None:
            if len(self._choices) >= MAX_CHOICES:
                self.fail(LimitExceeded("choices", MAX_CHOICES, event=event))
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
