"""One choice of a response under construction: its parts, tool calls and finish reasons.

`ChoiceBuilder` takes the chunks of one choice from `Ingest`, decides which part each piece of
them belongs to, and bounds what it holds. What a limit does to the stream is for `Ingest` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._types.chunks import IN_ORDER, Block, StreamChunk, ToolCallDelta
from .._types.messages import Part, TextPart, ToolCall
from .._types.options import BOUNDS, Bounds
from .._types.response import Choice
from .builders import DetailBuilder, TextBuilder, join_fields, joined_fields
from .calls import CallBuilder, Calls
from .reasons import asks_for_calls, ended_by_model, forbids_calls

MAX_REASONS = 16
"""Different finish reasons of one choice that are listed; the newest counts in any case."""
_FIELDS = "fields of audio or log probabilities"
TEXT_BLOCKS = {
    **dict.fromkeys(("text", "message"), "text"),
    **dict.fromkeys(("thinking", "redacted_thinking", "reasoning"), "reasoning"),
    "refusal": "refusal",
}
"""The kinds of text in blocks of a type. Any other block is that of a server's tool, but for calls."""


_FIELD_OF = {"text": "delta", "reasoning": "reasoning", "refusal": "refusal"}
"""The field of a chunk that has each kind of text."""


class Extras:
    """The contents of a choice beside text and reasoning; few choices have any.

    Held apart so that each of thousands of streams is spared seven empty containers.
    """

    def __init__(self) -> None:
        self.calls: Calls = Calls()
        self.annotations: list[dict[str, Any]] = []
        self.logprobs: dict[str, Any] = {}
        self.audio: dict[str, Any] = {}
        self.images: list[dict[str, Any]] = []

    @classmethod
    def joined(cls, those: Sequence[Extras]) -> Extras:
        """Return the contents of choices that are pieces of one, but for their calls."""
        one = cls()
        for extras in those:
            one.annotations += extras.annotations
            one.images += extras.images
            join_fields(one.logprobs, joined_fields(extras.logprobs) or {})
            join_fields(one.audio, joined_fields(extras.audio) or {})
        return one


_NO_EXTRAS = Extras()
"""The extras of every choice without any; nothing is put into them."""


_NO_PARTS: dict[int | None, TextBuilder | CallBuilder] = {}
"""The numbered parts of every choice without any; nothing is put into it."""


class ChoiceBuilder:
    """One choice under construction. Nothing here raises: a limit that was crossed is noted."""

    __slots__ = (
        "_bounds",
        "_numbered",
        "_text",
        "_unnumbered",
        "extras",
        "index",
        "native_reason",
        "notes",
        "over_limit",
        "parts",
        "reason",
        "reasons",
    )

    def __init__(self, index: int, bounds: Bounds = BOUNDS) -> None:
        self.index: int = index
        self._bounds = bounds
        self.parts: list[TextBuilder | CallBuilder] = []
        self.reason: str | None = None
        """The newest finish reason."""
        self.reasons: tuple[str, ...] = ()
        """The different finish reasons, in the order in which they came."""
        self.native_reason: str = ""
        """The reason in the words of the server behind a gateway."""
        self.notes: Sequence[str] = ()
        """Oddities of the choice that was built last."""
        self.over_limit: tuple[str, int] | None = None
        """The limit that was crossed: what is bounded, in words, and the number."""
        self._numbered = _NO_PARTS  # by content-block number
        # On wires without numbers: the text, and one part of each other kind.
        self._text: TextBuilder | None = None
        self._unnumbered: tuple[TextBuilder, ...] = ()
        self.extras: Extras | None = None
        """Its contents beside text and reasoning, once there are any."""

    @classmethod
    def joined(
        cls, choices: Sequence[ChoiceBuilder], bounds: Bounds, *, pieces: bool = True
    ) -> ChoiceBuilder:
        """Return choices that belong to one as that one; each has one piece of it, or whole parts."""
        one = cls(0, bounds)
        extras = [choice.extras for choice in choices if choice.extras is not None]
        one.extras = Extras.joined(extras) if extras else None
        for part in (part for choice in choices for part in choice.parts):
            if isinstance(part, CallBuilder) and part.start is None:
                one._call_delta(part.as_piece(), None, opens=not pieces, beside=False)
            else:
                one.parts.append(part)
        one.reasons = tuple(dict.fromkeys(r for choice in choices for r in choice.reasons))
        # One that says that a part was cut or filtered holds for all.
        ended = [choice for choice in choices if choice.reason] or choices[-1:]
        bad = (c for c in ended if forbids_calls((c.reason or "", c.native_reason)))
        last = next(bad, ended[-1])
        one.reason, one.native_reason = last.reason, last.native_reason
        return one

    @property
    def kinds(self) -> set[str]:
        """The kinds of its parts; a tool call is of the kind ``call``."""
        return {part.kind if isinstance(part, TextBuilder) else "call" for part in self.parts}

    # -- parts -----------------------------------------------------------------------------

    def part(self, kind: str, number: int | None) -> TextBuilder:
        """Return the part that a piece of this kind belongs to; open it if there is none."""
        if number is None:
            if kind == "text" and self._text is not None:
                return self._text
            for found in self._unnumbered:
                if found.kind == kind:
                    return found
            # On wires with numbers, a relay has left this one out.
            last = self._numbered.get(None) or (self.parts[-1] if self.parts else None)
            if isinstance(last, TextBuilder) and last.kind == kind:
                return last
            found = TextBuilder(kind)
            if kind == "text":
                self._text = found
            else:
                self._unnumbered = (*self._unnumbered, found)
            self._append(found)
            return found
        there = self._numbered.get(number)
        if isinstance(there, TextBuilder) and there.kind == kind:
            return there
        # A delta for a block that was never opened, or is of another kind: nothing is lost.
        found = TextBuilder(kind)
        if isinstance(there, CallBuilder):
            if there.beside is not None and there.beside.kind == kind:
                return there.beside
            there.beside = found
        else:
            self._number(number, found)
        self._append(found)
        return found

    def compact(self) -> None:
        """Join the pieces of the newest parts, so that they take the space of their text."""
        for part in self.parts[-8:]:  # older ones hardly grow any more
            part.compact()

    def _append(self, part: TextBuilder | CallBuilder) -> None:
        if len(self.parts) >= self._bounds.parts:
            self.over_limit = ("content blocks", self._bounds.parts)
        else:
            self.parts.append(part)

    def block(self, number: int | None, block: Block) -> None:
        """Open or change a numbered block. (Its end changes nothing; that of one in order closes it.)"""
        if block.start is not None:
            kind = block.start.get("type")
            opened: TextBuilder | CallBuilder
            if kind == "tool_use":
                return  # the delta of the call, in the same chunk, opens the call
            if isinstance(kind, str) and kind in TEXT_BLOCKS:
                opened = TextBuilder(TEXT_BLOCKS[kind], block.start)
                citations = block.start.get("citations")
                if isinstance(citations, list):
                    opened.additions.citations.extend(citations)
                if isinstance(block.start.get("signature"), str):
                    opened.additions.signature.append(block.start["signature"])
            else:
                opened = CallBuilder(dict(block.start))
                if kind == "fallback":  # the model that made the calls so far has declined
                    for call in (self.extras or _NO_EXTRAS).calls.all:
                        call.declined = True
            self._open(number, opened)
        elif block.delta is not None:
            self._change(number, block.delta)
        elif number == IN_ORDER:
            self._numbered.pop(number, None)

    def complete(self, chunk: StreamChunk, whole: str) -> int:
        """Add to a chunk what its block lacks of a text, or of arguments, that came once more.

        Returns by how many characters arguments grew because others count in their place.
        """
        there = self._numbered.get(chunk.part)
        if isinstance(there, TextBuilder):
            if rest := there.rest_of(whole):
                setattr(chunk, _FIELD_OF[there.kind], rest)
                chunk.progress = True
        elif there is not None:
            before = there.size
            if rest := there.rest_of(whole):
                kind = "custom" if there.free_text else "function"
                chunk.tool_calls = (ToolCallDelta(there.index, arguments=rest, type=kind),)
                chunk.progress = True
            return there.size - before
        return 0

    def _open(self, number: int | None, part: TextBuilder | CallBuilder) -> None:
        """Take a new part, to which the pieces of this number belong from now on."""
        self._append(part)
        if number == IN_ORDER and isinstance(part, CallBuilder):
            self._numbered.pop(number, None)
        else:
            self._number(number, part)

    def _number(self, number: int | None, part: TextBuilder | CallBuilder) -> None:
        if not self._numbered:  # perhaps a copy of the shared one
            self._numbered = {}
        self._numbered[number] = part

    def _change(self, number: int | None, delta: dict[str, Any]) -> None:
        there = self._numbered.get(number)
        if isinstance(there, CallBuilder):
            if there.start is not None:
                there.start.update(delta)
        elif isinstance(there, TextBuilder) and (there.start or {}).get("type") == "reasoning":
            there.start = {**delta, "type": "reasoning"}
        elif "signature" in delta:
            self.part("reasoning", number).additions.signature.append(delta["signature"])
        elif "citation" in delta:
            self.part("text", number).additions.citations.append(delta["citation"])
        elif "citations" in delta:
            self.part("text", number).additions.citations.extend(delta["citations"])
        elif isinstance(there, TextBuilder) and there.start is not None:
            there.start = {**there.start, **delta}

    # -- the rest of a chunk ---------------------------------------------------------------

    def add_extras(self, chunk: StreamChunk) -> None:
        """Take the refusal, the calls and OpenRouter's blocks of reasoning of a chunk."""
        if chunk.refusal:
            self.part("refusal", chunk.part).pieces.append(chunk.refusal)
        if chunk.tool_calls and not self._repeats_calls(chunk):
            opens = chunk.block is not None and chunk.block.start is not None
            for number, delta in enumerate(chunk.tool_calls):
                self._call_delta(delta, chunk.part, opens=opens, beside=number > 0)
        if chunk.reasoning_details:
            details = self.part("reasoning", chunk.part).additions.details
            for raw in chunk.reasoning_details:
                if details and details[-1].takes(raw):
                    details[-1].add(raw)
                else:
                    details.append(DetailBuilder(raw))
                if len(details) > self._bounds.items:
                    self.over_limit = ("reasoning blocks", self._bounds.items)

    def add_reason(self, reason: str, facts: Mapping[str, Any] | None) -> None:
        """Take a finish reason; the words of the server behind a gateway are in the facts beside it."""
        self.reason = reason
        native = str(facts.get("native_finish_reason") or "") if facts else ""
        if native and not forbids_calls((self.native_reason,)):  # a filter is not taken back
            self.native_reason = native
        if reason not in self.reasons and len(self.reasons) < MAX_REASONS:
            self.reasons = (*self.reasons, reason)

    def _repeats_calls(self, chunk: StreamChunk) -> bool:
        """Return whether a chunk that ends the answer lists all of its calls once more.

        A single call that comes again is told by its pieces.
        """
        if chunk.finish_reason is None or len(chunk.tool_calls) < 2 or self.extras is None:
            return False
        return self.extras.calls.repeated_by(chunk.tool_calls)

    def _call_delta(
        self, delta: ToolCallDelta, number: int | None, *, opens: bool, beside: bool
    ) -> None:
        if number is not None and not opens:
            there = self._numbered.get(number)
            if isinstance(there, CallBuilder):
                there.add(delta)
                if there.start is not None and there.size > self._bounds.tool_input:
                    self.over_limit = (
                        "characters in the input of a provider's tool",
                        self._bounds.tool_input,
                    )
                return
        extras = self.extras = self.extras or Extras()
        opened = extras.calls.take(delta, opens=opens, beside=beside)
        if opened is None:
            return
        if len(extras.calls.all) > self._bounds.tool_calls:
            self.over_limit = ("tool calls", self._bounds.tool_calls)
            return
        if number is None:
            self._append(opened)
        else:
            self._open(number, opened)

    def add_attachments(self, chunk: StreamChunk) -> None:
        """Take the annotations, log probabilities, pictures and audio of a chunk."""
        extras = self.extras = self.extras or Extras()
        if (
            len(chunk.audio or ()) > self._bounds.parts
            or len(chunk.logprobs or ()) > self._bounds.parts
        ):
            self.over_limit = (_FIELDS, self._bounds.parts)
            return
        if chunk.annotations:
            extras.annotations += chunk.annotations
            if len(extras.annotations) > self._bounds.items:
                self.over_limit = ("annotations", self._bounds.items)
        if chunk.logprobs:
            join_fields(extras.logprobs, chunk.logprobs)
            if any(
                isinstance(v, list) and len(v) > self._bounds.items
                for v in extras.logprobs.values()
            ):
                self.over_limit = ("log probabilities", self._bounds.items)
        extras.images += chunk.images
        if len(extras.images) > self._bounds.parts:
            self.over_limit = ("images", self._bounds.parts)
        if chunk.audio:
            join_fields(extras.audio, chunk.audio)
        if len(extras.audio) > self._bounds.parts or len(extras.logprobs) > self._bounds.parts:
            self.over_limit = (_FIELDS, self._bounds.parts)

    # -- the result ------------------------------------------------------------------------

    @property
    def has_images(self) -> bool:
        """True if the model made pictures."""
        return self.extras is not None and bool(self.extras.images)

    @property
    def cites_pages(self) -> bool:
        """True if the answer cites pages, which a search has found."""
        found = self.extras.annotations if self.extras is not None else ()
        return any(one.get("type") == "url_citation" for one in found)

    def pieces(self, kind: str) -> int:
        """Return the number of pieces in which the texts of a kind came, as far as they are apart."""
        return sum(
            len(p.pieces) for p in self.parts if isinstance(p, TextBuilder) and p.kind == kind
        )

    def join(self, kind: str) -> str:
        """Return the text of all parts of a kind: ``text``, ``reasoning`` or ``refusal``."""
        texts = [p.joined() for p in self.parts if isinstance(p, TextBuilder) and p.kind == kind]
        return texts[0] if len(texts) == 1 else "".join(texts)

    def build(self, wire: str, finished: bool, reason: str | None, answer: str = "") -> Choice:
        """Return the choice so far, and say in `notes` what was odd in it.

        ``reason`` is the finish reason that stands, ``answer`` the id of the response. A call can be
        run only if the answer is ``finished``, was neither cut nor filtered, and the call is whole.
        """
        alone = self._text_alone(finished, reason)
        return self._any(wire, finished, reason, answer) if alone is None else alone

    def _any(self, wire: str, finished: bool, reason: str | None, answer: str) -> Choice:
        """Return any choice, whatever it is made of."""
        extras = self.extras or _NO_EXTRAS
        parts: list[Part] = []
        good: list[ToolCall] = []
        bad: list[ToolCall] = []
        texts: dict[str, list[str]] = {"text": [], "reasoning": [], "refusal": []}
        told = extras.calls.sorted_out(finished=finished) if extras.calls.all else None
        ids: dict[CallBuilder, str] = {}
        usable = ended = False
        if told is not None:
            ids = extras.calls.ids(told.copies, answer)
            # One that was withdrawn counts, too: it is not known what was lost.
            reasons = (*self.reasons, self.reason or "")
            usable = finished and not forbids_calls((*reasons, self.native_reason))
            ended = ended_by_model(reasons)
        for part in self.parts:
            if isinstance(part, TextBuilder):
                parts += part.parts(wire)
                texts[part.kind].append(part.joined())
            elif part.start is not None:
                parts.append(part.opaque(wire))
            elif told is not None and told.shows(part):
                call = part.call(ids[part])
                whole = part.is_whole() and bool(part.name) and part not in told.doubtful
                given = ended or bool(call.arguments.strip())
                (good if usable and whole and given else bad).append(call)
                parts.append(call)
        self.notes = () if told is None else tuple(told.notes())
        if finished and not good and not bad:
            self.notes = (*self.notes, *self._notes_without_calls())
        return Choice(
            index=self.index,
            parts=tuple(parts),
            content="".join(texts["text"]),
            reasoning="".join(texts["reasoning"]),
            refusal="".join(texts["refusal"]) or None,
            tool_calls=tuple(good),
            invalid_tool_calls=tuple(bad),
            finish_reason=reason,
            finish_reasons=self.reasons,
            logprobs=joined_fields(extras.logprobs),
            annotations=tuple(extras.annotations),
            audio=joined_fields(extras.audio),
            images=tuple(extras.images),
        )

    def _text_alone(self, finished: bool, reason: str | None) -> Choice | None:
        """Return a choice that is one part of plain text, in a third of the time; ``None`` for others."""
        if self.extras is not None or len(self.parts) != 1:
            return None
        only = self.parts[0]
        if not isinstance(only, TextBuilder) or not only.is_plain or not (text := only.joined()):
            return None
        self.notes = self._notes_without_calls() if finished else ()
        return Choice(
            index=self.index,
            parts=(TextPart(text),),
            content=text,
            finish_reason=reason,
            finish_reasons=self.reasons,
        )

    def _notes_without_calls(self) -> list[str]:
        """Return what is odd in a finished answer without a call."""
        if not asks_for_calls(self.reason):
            return []
        return [f"finish reason {self.reason!r}, but no tool call"]
