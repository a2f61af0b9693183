"""The answer of a stream so far, as the fewest chunks that say the same.

`History` keeps every chunk of an answer, with pieces of one text in one chunk: whoever folds what
`History.chunks` returns, and then what follows, has folded the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from ..._protocol.builders import Joined
from ..._protocol.ingest import COMPACT_EVERY
from ..._types.chunks import StreamChunk, ToolCallDelta
from ..._types.messages import ToolCall
from ..._types.response import CompletionResponse
from ..._types.usage import Usage

_Kind: TypeAlias = tuple[str, int | None, int | None]


def text_field(chunk: StreamChunk) -> str:
    """Return the field of a chunk that has its text: ``delta``, ``reasoning`` or ``refusal``.

    Empty if it has several, or anything beside it but usage, which counts what came before as well.
    """
    if chunk.delta:
        field, more = "delta", chunk.reasoning or chunk.refusal
    elif chunk.reasoning:
        field, more = "reasoning", chunk.refusal
    else:
        field, more = "refusal" if chunk.refusal else "", ""
    return "" if more or chunk.tool_calls or not _is_bare(chunk) else field


def _is_bare(chunk: StreamChunk) -> bool:
    return not (
        chunk.finish_reason is not None
        or chunk.block is not None
        or chunk.reasoning_details
        or chunk.annotations
        or chunk.logprobs
        or chunk.audio
        or chunk.images
        or chunk.metadata
        or chunk.end
        or chunk.elsewhere
        or chunk.unread
    )


def _kind_of(chunk: StreamChunk) -> _Kind | None:
    """Return what a chunk is a piece of; ``None`` if it can't be joined with others."""
    if field := text_field(chunk):
        return (field, chunk.part, None)
    if len(chunk.tool_calls) != 1 or chunk.delta or chunk.reasoning or chunk.refusal:
        return None
    (call,) = chunk.tool_calls
    if call.id or call.name or call.extra or call.partial or not _is_bare(chunk):
        return None
    return (f"arguments {call.type}", chunk.part, call.index)


class _Run:
    """Chunks of one choice that are pieces of the same text, as one chunk."""

    __slots__ = ("_count", "_first", "_last", "_made", "_text", "_usage", "kind")

    def __init__(self, first: StreamChunk, kind: _Kind) -> None:
        self.kind = kind
        self._first = first
        self._last = first.received_at
        self._count = 0
        self._text = Joined()
        self._usage: Usage | None = None
        self._made: StreamChunk | None = None

    def add(self, chunk: StreamChunk) -> None:
        """Take the next piece."""
        calls = chunk.tool_calls
        text = calls[0].arguments if calls else chunk.delta or chunk.reasoning or chunk.refusal
        self._text.pieces.append(text)
        self._last, self._made = chunk.received_at, None
        self._count += 1
        if self._count % COMPACT_EVERY == 0:
            self._text.compact()

    def count(self, usage: Usage) -> None:
        """Take the usage so far: of all choices, whichever piece it came with."""
        self._made = None
        if self._usage is None:
            self._usage = msgspec.structs.replace(usage)
        else:
            self._usage.merge_from(usage)

    def chunk(self) -> StreamChunk:
        """Return the pieces so far as one chunk."""
        if self._made is None:
            text, first = self._text.joined(), self._first
            if self.kind[0] in ("delta", "reasoning", "refusal"):
                joined: dict[str, object] = {self.kind[0]: text}
            else:
                piece = msgspec.structs.replace(first.tool_calls[0], arguments=text)
                joined = {"tool_calls": (piece,)}
            usage = None if self._usage is None else msgspec.structs.replace(self._usage)
            self._made = msgspec.structs.replace(
                first, usage=usage, received_at=self._last, raw=None, **joined
            )
        return self._made


class History:
    """Every chunk of an answer, in little space; O(1) for each."""

    def __init__(self, before: Iterable[StreamChunk] = ()) -> None:
        self._parts: list[StreamChunk | _Run] = list(before)
        self._runs: dict[int, _Run] = {}  # the newest part of each choice, if it may go on

    def add(self, chunks: Iterable[StreamChunk]) -> None:
        """Take the next chunks."""
        for chunk in chunks:
            kind, choice = _kind_of(chunk), chunk.choice
            run = self._runs.get(choice)
            if kind is None:
                self._runs.pop(choice, None)
                self._parts.append(chunk)
                continue
            last, usage = self._parts[-1] if self._parts else None, chunk.usage
            behind = usage is not None and not isinstance(last, _Run)
            if run is None or run.kind != kind or behind:
                last = run = self._runs[choice] = _Run(chunk, kind)
                self._parts.append(run)
            run.add(chunk)
            if usage is not None and isinstance(last, _Run):
                last.count(usage)  # the newest is to be the last, if another choice has it

    def chunks(self) -> list[StreamChunk]:
        """Return the fewest chunks that say what all of them say. Later ones don't change these."""
        return [part.chunk() if isinstance(part, _Run) else part for part in self._parts]


def chunks_of(response: CompletionResponse) -> list[StreamChunk]:
    """Return what a response says, as one chunk for each choice in which anything was said."""
    out: list[StreamChunk] = []
    for choice in response.choices:
        calls = [part for part in choice.parts if isinstance(part, ToolCall)]
        deltas = tuple(
            ToolCallDelta(number, c.id or None, c.name or None, c.arguments, c.type, c.extra)
            for number, c in enumerate(calls)
        )
        if choice.content or choice.reasoning or choice.refusal or deltas:
            made = StreamChunk(choice.content, choice.reasoning, choice.refusal or "", deltas)
            made.id, made.model, made.choice = response.id or None, response.model, choice.index
            out.append(made)
    return out
