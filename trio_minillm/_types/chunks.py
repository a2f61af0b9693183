"""Chunks, the steps in which an answer arrives, and the pieces of tool calls and blocks in them.

"Does this chunk say anything" is six questions, and each has its own answer:

==================  ==========================================  ====================================
question            yes for                                     asked by
==================  ==========================================  ====================================
`progress`          whatever moves the answer: content, a       the clocks, which it ends a silence
                    finish reason, usage, a block with          for; the hold-back of openings before
                    content (set by the provider, which         a retry; `StreamState`, for choices
                    knows the event)                            that have begun; `Ingest`
`has_content`       a part of the answer itself                 `StreamState`: usage before it is not
                                                                final; `ChunkDecoder`: an event behind
                                                                it is no whole answer; `Ingest`, for the
                                                                number of chunks and the times of the
                                                                first and the last
`continues_answer`  content that was not there before: not an   `StreamState` and `ChunkDecoder`: it
                    empty piece of a call, not a signature      disproves the finish reason before it;
                                                                `Answer`, for the clock ``usage_grace``
`speaks`            text other than blanks, arguments, a        `StreamState`: without any behind it, a
                    refusal, a picture                          finish reason stands at the body's end
`has_effect`        progress, and facts without any: usage,     `Answer`, which drops all others in
                    an end, metadata, a block, raw bytes        the middle of an answer
is it shown?        progress, and raw bytes (``raw=True``)      `StreamingCompletion.next_chunk`, in
                                                                line, since it asks for every chunk
is it counted?      progress other than a reason or usage       `Answer`, for the number of chunks in
                                                                the error of a clock
==================  ==========================================  ====================================

They differ where it matters. An empty piece of a call has content (it may open the call) and is no
progress; a finish reason is progress and no content; metadata alone has an effect and is neither.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from .usage import Usage

IN_ORDER = -1
"""Value of `StreamChunk.part` in wire formats whose parts have an order and no numbers (Gemini's): a
piece goes on with the newest part, if that is open and of its kind, or else opens the next one."""


class ToolCallDelta(msgspec.Struct, gc=False):
    """A piece of a tool call.

    ``index``, ``id``, and ``name`` are as the provider sent them, and ``None`` if this piece has
    none.
    """

    index: int | None = None
    """The number of the call within the answer."""
    id: str | None = None
    """The id of the call, which its result refers to."""
    name: str | None = None
    """The name of the tool."""
    arguments: str = ""
    """The next piece of the arguments, as JSON text."""
    type: str = "function"
    """``"function"``, or ``"custom"`` for OpenAI's free-text tools."""
    extra: dict[str, Any] | None = None
    """Other fields of the call that the provider wants back."""
    partial: dict[str, Any] | None = None
    """The piece as Gemini sends it, with values and their paths. ``None`` once `arguments` has the
    text made from them."""


class Block(msgspec.Struct, kw_only=True):
    """A change to a content block, in wire formats that have blocks (Anthropic's).

    A block with the part number `IN_ORDER` that is not text or reasoning is closed at once.
    """

    start: dict[str, Any] | None = None
    """The block as it was opened."""
    delta: dict[str, Any] | None = None
    """A change other than text, reasoning, or arguments, such as a signature or a citation."""
    stop: bool = False
    """True if the block is closed."""
    whole: str | None = None
    """All of the block's text or arguments, if the wire sends them once more at its end. What did not
    come before is then added to the chunk."""


class StreamChunk(msgspec.Struct, gc=False):
    """One step of an answer: the content of a provider's event in neutral terms.

    Most chunks are plain text and have only ``delta``. A chunk belongs to the code that received
    it.
    """

    delta: str = ""
    """The next piece of text."""
    reasoning: str = ""
    """The next piece of visible reasoning."""
    refusal: str = ""
    """The next piece of a refusal, in which the model declines to answer."""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    """Pieces of tool calls."""
    finish_reason: str | None = None
    """The reason why the answer ends, as the provider sent it."""
    usage: Usage | None = None
    """The usage so far. A later one replaces it field by field."""
    id: str | None = None
    """The provider's generation id."""
    model: str | None = None
    """The model that answers, as the provider names it."""
    choice: int = 0
    """The number of the choice that this belongs to, from 0."""
    part: int | None = None
    """The number of the content block that this belongs to, in wire formats that number them."""
    block: Block | None = None
    """A change to a content block, in wire formats that have blocks."""
    reasoning_details: tuple[dict[str, Any], ...] = ()
    """Reasoning blocks that must be sent back unchanged (OpenRouter)."""
    annotations: tuple[dict[str, Any], ...] = ()
    """Annotations and citations, in the provider's own shape."""
    logprobs: dict[str, Any] | None = None
    """Log probabilities of this text, in the provider's own shape."""
    audio: dict[str, Any] | None = None
    """A piece of audio, in the provider's own shape."""
    images: tuple[dict[str, Any], ...] = ()
    """Images that the model made, in the provider's own shape (OpenRouter's ``image_url``
    parts)."""
    metadata: dict[str, Any] | None = None
    """Other facts worth keeping, such as the serving provider or its timings."""
    end: bool = False
    """True for the wire format's end event (``message_stop``) or its sentinel (``[DONE]``)."""
    sentinel: bool = False
    """True for an end event that says only that the stream is over (``[DONE]``), and not that the
    answer is complete."""
    progress: bool = True
    """False if the answer did not advance, as with an opening with only a role, or an empty
    delta."""
    answer: bool = True
    """False for an event that is no part of an answer, such as separate facts or an unknown
    object."""
    unread: tuple[str, ...] = ()
    """Names of fields outside the answer that could not be read and are left out."""
    elsewhere: bool = False
    """True if the text was in a place where the wire format has none. It counts only if there was
    no text in the right place."""
    event: int = 0
    """The number of the event that this came from, counted from 1 in each stream."""
    received_at: float = 0.0
    """The time when its bytes were read from the socket, in seconds on Trio's clock."""
    raw: bytes | None = None
    """The event's data, if the stream was opened with ``raw=True``."""

    @classmethod
    def content(cls, delta: str) -> StreamChunk:
        """Return a chunk of plain text."""
        return cls(delta)

    @classmethod
    def finished(cls, reason: str) -> StreamChunk:
        """Return a chunk with only a finish reason."""
        return cls(finish_reason=reason)


def has_content(chunk: StreamChunk) -> bool:
    """Return whether a chunk carries a part of the answer itself, and not only facts about it.

    Where most chunks have text, ask for ``chunk.delta`` first: that saves the call.
    """
    return bool(
        chunk.delta
        or chunk.reasoning
        or chunk.tool_calls
        or chunk.refusal
        or chunk.audio
        or chunk.images
        or chunk.reasoning_details
    )


def continues_answer(chunk: StreamChunk) -> bool:
    """Return whether a chunk adds to what was said, so that a finish reason before it was wrong.

    An empty piece of a call does not, nor does a signature of reasoning that ended long before.
    """
    return bool(
        chunk.delta
        or chunk.reasoning
        or chunk.refusal
        or chunk.audio
        or chunk.images
        or (chunk.tool_calls and any(c.id or c.name or c.arguments for c in chunk.tool_calls))
    )


def speaks(chunk: StreamChunk) -> bool:
    """Return whether a chunk adds to what the answer says: to its text, its calls or its pictures.

    Reasoning, blanks and the name of a call again are left: behind a finish reason, they come late
    and change nothing, and only what speaks shows that the reason was wrong for good.
    """
    return bool(
        (chunk.delta and not chunk.delta.isspace())
        or chunk.refusal
        or chunk.images
        or (chunk.audio and any(chunk.audio.get(key) for key in ("data", "transcript")))
        or (chunk.tool_calls and any(c.arguments for c in chunk.tool_calls))
    )


def has_effect(chunk: StreamChunk) -> bool:
    """Return whether a chunk in the middle of an answer changes anything for its consumer.

    The channel to the consumer is bounded in batches, and a server could fill it with chunks
    that change nothing.
    """
    return bool(
        chunk.progress
        or chunk.usage is not None
        or chunk.block is not None
        or chunk.end
        or chunk.metadata
        or chunk.raw
    )


def separate(chunk: StreamChunk) -> None:
    """Give a chunk objects of its own in place of those that the answer has kept of it.

    Its text and numbers can't be changed there; a block, a usage or a citation could.
    """
    usage, block = chunk.usage, chunk.block
    if usage is not None:
        usage.raw, usage.doubts = _copied(usage.raw), _copied(usage.doubts)
    if block is not None:
        start, delta = _copied(block.start), _copied(block.delta)
        chunk.block = Block(start=start, delta=delta, stop=block.stop, whole=block.whole)
    for call in chunk.tool_calls:
        call.extra, call.partial = _copied(call.extra), _copied(call.partial)
    if chunk.metadata:
        chunk.metadata = _copied(chunk.metadata)
    if chunk.logprobs:
        chunk.logprobs = _copied(chunk.logprobs)
    if chunk.audio:
        chunk.audio = _copied(chunk.audio)
    if chunk.images:
        chunk.images = tuple(map(_copied, chunk.images))
    if chunk.annotations:
        chunk.annotations = tuple(map(_copied, chunk.annotations))
    if chunk.reasoning_details:
        chunk.reasoning_details = tuple(map(_copied, chunk.reasoning_details))


_Object = TypeVar("_Object", dict[str, Any], dict[str, Any] | None)


def _copied(value: _Object) -> _Object:
    """Return a copy of a JSON object, with copies of what is in it, however deep; else the value."""
    if type(value) is not dict:
        return value
    out = value.copy()
    todo: list[Any] = [out]
    while todo:
        holder = todo.pop()
        for place, inner in holder.items() if type(holder) is dict else enumerate(holder):
            if type(inner) is dict or type(inner) is list:
                holder[place] = inner.copy()
                todo.append(holder[place])
    return out
