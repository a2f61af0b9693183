"""Chunks in, one response out: the only place that accumulates.

`Ingest` folds chunks into text, reasoning, calls, usage and the rest (`ChoiceBuilder` has the
parts of one choice), and asks the table in `state` what they mean for the stream.

Guarantees:

- No method raises or waits.
- Once the outcome stands, nothing changes it or adds to the response.
- Folding chunk by chunk and folding in batches give the same response.
- The work per chunk is O(1): text is a list of pieces that is joined once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from .._types.chunks import StreamChunk, has_content
from .._types.cost import CostInfo
from .._types.errors import (
    ConnectionCut,
    EndedEarly,
    LimitExceeded,
    MiniLLMError,
    ProtocolError,
    ProviderError,
    StreamTimeout,
)
from .._types.options import BOUNDS, Bounds
from .._types.response import Choice, CompletionResponse, Outcome, Timings
from .._types.usage import Usage
from ..providers._charged import Asked, charged
from .choice import ChoiceBuilder, Extras
from .repeats import SURE_CHARS
from .state import Event, State, StreamState
from .templates import TextRun

_FINISHED = Outcome.FINISHED

COMPACT_EVERY = 1024
"""Chunks after which the pieces of the newest parts are joined, so that they take the space of
their text. (Joining all of it each time would be quadratic.)"""
COUNTED_FROM = 16
"""Choices of one piece each from which on their numbers count pieces, where one was asked for."""


class Ingest:
    """The machine of one stream; the module's docstring has its guarantees.

    Its 21 attributes are one thing, the response under construction: most are fields of that or
    of its timings, and none is used without the others.
    """

    __slots__ = (
        "_arguments",
        "_asked",
        "_bounds",
        "_charged",
        "_counting",
        "_first",
        "_model_named",
        "_others",
        "_usage",
        "_wire",
        "chunks",
        "error",
        "first_at",
        "id",
        "last_at",
        "metadata",
        "model",
        "newest_usage",
        "notes",
        "rejected",
        "state",
    )

    def __init__(
        self,
        model: str,
        expect_usage: bool,
        choices: int = 1,
        wire: str = "",
        bounds: Bounds = BOUNDS,
        asked: Asked | None = None,
        id: str = "",
    ) -> None:
        self.state: StreamState = StreamState(expect_usage, choices)
        self.id: str = id
        self.model: str = model
        """The model that was asked, then the one that the provider names."""
        self.error: MiniLLMError | None = None
        """The error that ended the stream."""
        self._usage: Usage | None = None
        self.newest_usage: Usage | None = None
        """The usage of a chunk of a `TextRun` that was handed out, if it is still to be merged into those
        before it: as it came, and not as who received it has changed it."""
        self.chunks: int = 0
        """The number of chunks with content."""
        self.first_at: float | None = None
        """The time of the first of them, on Trio's clock, in seconds."""
        self.last_at: float | None = None
        self.metadata: dict[str, Any] | None = None
        self.notes: tuple[str, ...] = ()
        self.rejected: bool = False
        """True if the caller did not accept the answer."""
        self._model_named = False
        self._arguments = 0  # characters in the arguments of all calls
        self._wire = wire
        self._bounds = bounds
        self._asked = asked or Asked()
        self._first = ChoiceBuilder(0, bounds)  # almost every chunk is for it
        self._others: dict[int, ChoiceBuilder] | None = None  # by their numbers
        self._counting = False  # the numbers of the choices count pieces: all are one
        self._charged: Usage | None = None  # that of an answer which is over

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, once it stands."""
        return self.state.outcome

    # -- chunks ----------------------------------------------------------------------------

    # Three places keep count of what a chunk adds: `_folded` for any chunk, `_ingest_run` for
    # chunks that differ in their text only, and the fast branch of `StreamingCompletion.__anext__`
    # for one of those, which it hands out without a call of this class. The last two do what is
    # left of the first where text is all that is new; a change to one is a change to all.

    def ingest(self, chunk: StreamChunk) -> None:
        """Fold one chunk. Does nothing once the outcome stands."""
        state = self.state
        if state.over:
            return
        choice = self._folded(chunk)
        if choice is None:
            return
        if choice.over_limit is not None:  # before a reason in the same chunk can end the answer
            self.fail(LimitExceeded(*choice.over_limit, event=chunk.event or None))
        state.chunk(chunk)
        if self._usage is not None:
            self._usage.final = state.usage_final

    def _folded(self, chunk: StreamChunk) -> ChoiceBuilder | None:
        """Fold a chunk, of which the state is still to be told. Return its choice, which may have crossed
        a limit; ``None`` if its number has ended the stream.
        """
        choice = self._first
        if chunk.choice and not self._counting:
            found = self._choice_of(chunk)
            if found is None:
                return None
            choice = found
        block = chunk.block
        if block is not None:
            if block.whole is not None:
                self._count_arguments(choice.complete(chunk, block.whole), choice)
            choice.block(chunk.part, block)
        reason = chunk.finish_reason
        if reason is not None and (chunk.delta or chunk.reasoning):
            self._drop_repeated(chunk, choice)
        if chunk.delta:
            choice.part("text", chunk.part).pieces.append(chunk.delta)
        if chunk.reasoning:
            choice.part("reasoning", chunk.part).pieces.append(chunk.reasoning)
        if chunk.progress:
            if chunk.delta or has_content(chunk):
                self._ingest_content(chunk, choice)
            if chunk.annotations or chunk.logprobs or chunk.images or chunk.audio:
                if reason is not None and choice.extras is not None:
                    self._drop_attached_again(chunk, choice.extras)
                choice.add_attachments(chunk)
            if reason is not None:
                choice.add_reason(reason, chunk.metadata)
        if not self.id and chunk.id:
            self.id = chunk.id
        if not self._model_named and chunk.model:
            self.model = chunk.model
            self._model_named = True
        if chunk.metadata is not None:
            if self.metadata is None:
                self.metadata = {}
            self.metadata.update(chunk.metadata)
        if chunk.usage is not None:
            usage = self.usage
            if usage is None:
                self._usage = msgspec.structs.replace(chunk.usage)
            else:
                usage.merge_from(chunk.usage)
        return choice

    @property
    def usage(self) -> Usage | None:
        """The usage so far."""
        newest = self.newest_usage
        if newest is not None and self._usage is not None:
            self.newest_usage = None
            self._usage.merge_from(newest.anew() or newest)
        return self._usage

    def ingest_all(self, chunks: Iterable[StreamChunk]) -> None:
        """Fold a batch, with the result of folding its chunks one by one."""
        if type(chunks) is TextRun and not self.state.over:
            self._ingest_run(chunks)
            return
        for chunk in chunks:
            self.ingest(chunk)

    def ingest_last(self, chunks: list[StreamChunk], told: StreamState) -> None:
        """Fold the last batch of an answer that nobody has watched. ``told`` was told all of it, and is over.

        The result is that of `ingest_all`, without asking a second machine of states what the first
        has said (rule 4 of `state`): for a short answer that is half of the work.
        """
        own = self.state
        if own.over:
            return
        for number, chunk in enumerate(chunks):
            beside = chunk.finish_reason is not None and (chunk.delta or chunk.reasoning)
            choice = None if chunk.choice or beside else self._folded(chunk)
            if choice is not None and choice.over_limit is None:
                continue
            for before in chunks[:number]:
                own.chunk(before)
            if choice is not None and choice.over_limit is not None:
                self.fail(LimitExceeded(*choice.over_limit, event=chunk.event or None))
            else:  # what the chunk does may depend on the state
                self.ingest_all(chunks[number:])
            return
        self.state = told
        usage = self.usage
        if usage is not None:
            usage.final = told.usage_final

    def _ingest_run(self, run: TextRun) -> None:
        # The others add nothing but their text and, the last of them, its usage.
        self.ingest(run[0])
        usage = run[-1].usage
        if usage is not None and len(run) > 1 and self.usage is not None:
            self.usage.merge_from(usage)  # of the same fields as those of the others
        self.pieces_of(run[0]).extend([c.delta or c.reasoning for c in run[1:]])
        before, self.chunks = self.chunks, self.chunks + len(run) - 1
        self.last_at = run[-1].received_at
        if before // COMPACT_EVERY != self.chunks // COMPACT_EVERY:
            self.compact()

    def _ingest_content(self, chunk: StreamChunk, choice: ChoiceBuilder) -> None:
        """Count a chunk with content, and fold what of it is neither text nor reasoning."""
        self.last_at = chunk.received_at
        if self.first_at is None:
            self.first_at = chunk.received_at
        self.chunks += 1
        if self.chunks % COMPACT_EVERY == 0:
            choice.compact()
        if chunk.tool_calls:
            self._count_arguments(sum(len(d.arguments) for d in chunk.tool_calls), choice)
        if chunk.refusal or chunk.tool_calls or chunk.reasoning_details:
            choice.add_extras(chunk)

    def _count_arguments(self, more: int, choice: ChoiceBuilder) -> None:
        self._arguments += more
        if self._arguments > self._bounds.arguments:
            choice.over_limit = ("characters in the arguments of calls", self._bounds.arguments)

    def _drop_repeated(self, chunk: StreamChunk, choice: ChoiceBuilder) -> None:
        """Empty a text that comes again, whole, beside the finish reason: some servers repeat it."""
        for field, kind in (("delta", "text"), ("reasoning", "reasoning")):
            text = getattr(chunk, field)
            long = len(text) >= SURE_CHARS and choice.pieces(kind) > 1
            if long and text == choice.join(kind):
                setattr(chunk, field, "")
                why = f"the {kind} was repeated with the finish reason: counted once"
                self.notes = (*self.notes, why)

    def _drop_attached_again(self, chunk: StreamChunk, there: Extras) -> None:
        """Take out likewise annotations and images that come again, all of them, perhaps with others."""
        for kind in ("annotations", "images"):
            attached, known = getattr(chunk, kind), getattr(there, kind)
            if known and list(attached[: len(known)]) == known:
                setattr(chunk, kind, attached[len(known) :])
                why = f"the {kind} were repeated with the finish reason: counted once"
                self.notes = (*self.notes, why)

    def _choice_of(self, chunk: StreamChunk) -> ChoiceBuilder | None:
        """Return the choice that a chunk belongs to; ``None`` if its number ends the stream."""
        index, event = chunk.choice, chunk.event or None
        others = self._others or {}
        found = others.get(index)
        if index < 0:
            self.fail(ProtocolError("a choice has a negative number", event=event))
            return None
        if found is None:
            if len(others) >= COUNTED_FROM - 1 and self.state.may_count:
                self._first = ChoiceBuilder.joined(self._sorted(), self._bounds)
                self._others, self._counting = None, True
                return self._first
            if len(others) >= self._bounds.choices - 1:
                self.fail(LimitExceeded("choices", self._bounds.choices, event=event))
                return None
            found = others[index] = ChoiceBuilder(index, self._bounds)
            self._others = others
        return found

    def pieces_of(self, chunk: StreamChunk) -> list[str]:
        """Return the list that the text of a folded chunk of a `TextRun` has gone to.

        The texts of further chunks of its kind go there, too.
        """
        others = self._others
        choice = self._first if others is None or not chunk.choice else others[chunk.choice]
        return choice.part("reasoning" if chunk.reasoning else "text", chunk.part).pieces

    def compact(self) -> None:
        """Join the pieces of the newest parts. To be called every `COMPACT_EVERY` chunks."""
        for choice in self._sorted():
            choice.compact()

    # -- other ends ------------------------------------------------------------------------

    def fail(self, error: MiniLLMError) -> None:
        """End the stream: it broke, a clock ran out, or its body ended.

        The state decides what that means: an answer that is whole stays whole, and the error
        becomes a note.
        """
        if self.state.over:
            return
        if isinstance(error, ProviderError) and error.usage is not None:
            self._usage = self.usage or Usage()
            self._usage.merge_from(error.usage)
        if isinstance(error, StreamTimeout):
            event = Event.CLOCK
        elif isinstance(error, ConnectionCut):
            event = Event.CUT
        elif isinstance(error, ProtocolError):
            event = Event.MALFORMED
        else:
            event = Event.CLOSE if isinstance(error, EndedEarly) else Event.ERROR
        quiet = self.state.state is State.WHOLE and event in (Event.CLOCK, Event.CLOSE)
        self.state.event(event)
        if self.usage is not None:
            self.usage.final = self.state.usage_final
        if self.outcome is not Outcome.FINISHED:
            self.error = error
            error.partial = self.response()
        elif not quiet:  # an answer with its usage may lack an end marker: many servers send none
            told = self.finish_reason is not None and isinstance(error, EndedEarly)
            why = "the body ended" if told else error
            self.notes = (*self.notes, f"ended without the expected usage or end marker: {why}")

    def cancel(self, *, rejected: bool = False, error: MiniLLMError | None = None) -> None:
        """End the stream because the caller left, or reached a limit of its own (``error``).

        Does nothing once the outcome stands.
        """
        if not self.state.over:
            self.rejected = rejected
            self.error = error
            self.state.event(Event.CANCEL)
            if error is not None:
                error.partial = self.response()

    # -- the result ------------------------------------------------------------------------

    @property
    def accumulated(self) -> str:
        """The text of the first choice so far."""
        return self._in_order()[0].join("text")

    @property
    def finish_reason(self) -> str | None:
        """The newest finish reason of the first choice, unless content has disproved it."""
        return self._standing(self._in_order()[0])

    def followed(self) -> Sequence[ChoiceBuilder]:
        """Return the choices in which parts of the first one may come.

        That is all of them where one was asked for: there are servers that put its calls beside its text.
        """
        if not self._others or self.state.choices > 1:
            return (self._first,)
        return self._sorted()

    def first_choice(self) -> ChoiceBuilder:
        """Return the first choice of the response, as it is built."""
        return self._in_order()[0]

    def _standing(self, choice: ChoiceBuilder) -> str | None:
        """Return a choice's reason if it stands.

        Of a finished answer it does in any case: the server has said so, and the body is whole.
        """
        state = self.state
        stands = choice.index in state.reasoned or state.outcome is _FINISHED or state.counted
        return choice.reason if stands else None

    @property
    def charged_usage(self) -> Usage | None:
        """A copy of the usage so far, as `charged` returns it."""
        usage = self.usage
        if usage is None:
            return None
        if not self.state.over:
            return self.charged(usage)
        if self._charged is None:  # nothing changes it any more
            self._charged = self.charged(usage)
        return msgspec.structs.replace(self._charged)

    def charged(self, usage: Usage) -> Usage:
        """Return a copy of a usage with the tier and the doubts that decide what it costs."""
        choices, images, cited = 1, False, False
        if self._others or self._first.extras is not None:
            choices = len(self._in_order())
            images = any(choice.has_images for choice in self._sorted())
            cited = any(choice.cites_pages for choice in self._sorted())
        made = charged(
            usage,
            self._asked,
            self.metadata or {},
            choices=choices,
            content=self.chunks > 0,
            images=images,
            cited=cited,
        )
        return msgspec.structs.replace(usage) if made is usage else made

    def _in_order(self) -> list[ChoiceBuilder]:
        """Return the choices by number, without a number 0 that never came."""
        if not self._others:
            return [self._first]
        ordered = self._sorted()
        if self.state.counted:
            return [ChoiceBuilder.joined(ordered, self._bounds)]
        if self.state.choices == 1 and self._calls_apart(ordered):
            return [ChoiceBuilder.joined(ordered, self._bounds, pieces=False)]
        return ordered if self._first.parts or self._first.reasons else ordered[1:]

    def _calls_apart(self, choices: list[ChoiceBuilder]) -> bool:
        """Return whether text and calls stand in choices of their own, as GitHub's Copilot has them."""
        with_calls = [choice for choice in choices if "call" in choice.kinds]
        others = [choice for choice in choices if choice.kinds - {"call"}]
        apart = len(others) == 1 and others[0].kinds <= {"text", "reasoning"}
        return bool(with_calls) and apart

    def _sorted(self) -> list[ChoiceBuilder]:
        if self._others is None:
            return [self._first]
        return [self._first, *(self._others[number] for number in sorted(self._others))]

    def response(
        self,
        *,
        id: str | None = None,
        unread: Mapping[str, int] | None = None,
        cost: CostInfo | None = None,
        timings: Timings | None = None,
        request_id: str | None = None,
        skipped_events: int = 0,
        response_type: Any = None,
    ) -> CompletionResponse:
        """Return the response so far, a snapshot that later chunks don't change.

        ``id`` comes from the headers and counts more than one from a chunk; ``unread`` counts what
        the decoder has left out, by name; the others are fields that no chunk carries.
        """
        state = self.state
        finished = state.outcome is _FINISHED
        builders = self._in_order()
        answer = id or self.id
        built: list[Choice] = []
        for builder in builders:
            reason = self._standing(builder)
            built.append(builder.build(self._wire, finished, reason, answer))
        notes, usage, metadata = list(self.notes), self.charged_usage, self.metadata
        if finished and len(built) < state.choices:
            notes.append(f"{state.choices} choices were requested, and {len(built)} arrived")
        if self._counting or (self._others and state.counted):
            notes.append("the choice numbers count pieces: read as one answer")
        if state.reopened:
            notes.append("content followed a finish reason, which therefore does not count")
        if unread:
            for name, count in unread.items():
                times = f" ({count:,} times)" if count > 1 else ""
                notes.append(f"left out because it could not be read: {name}{times}")
        if usage is not None and usage.doubts:
            notes += [f"usage: {field}: {why}" for field, why in usage.doubts.items()]
        for choice in built:
            if len(choice.finish_reasons) > 1:
                notes.append(f"choice {choice.index}: finish reasons {choice.finish_reasons}")
        for builder in builders:
            for note in builder.notes:
                notes.append(f"choice {builder.index}: {note}")
        return CompletionResponse(
            id=answer,
            model=self.model,
            choices=tuple(built),
            usage=usage,
            outcome=state.outcome,
            rejected=self.rejected,
            cost=CostInfo() if cost is None else cost,
            timings=Timings() if timings is None else timings,
            request_id=request_id,
            metadata=_decoded(metadata, notes) if metadata else {},
            notes=tuple(notes),
            skipped_events=skipped_events,
            response_type=response_type,
        )


def _decoded(metadata: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return the metadata with its raw JSON decoded. What is malformed is left out, with a note."""
    out = metadata.copy()
    for key, value in metadata.items():
        if type(value) is Raw:
            try:
                out[key] = msgspec.json.decode(value)
            except (msgspec.MsgspecError, RecursionError, UnicodeError):
                del out[key]
                notes.append(f"{key} was malformed and is left out")
    return out
