"""Chunks, the steps in which an answer arrives, and the pieces of tool calls and blocks in them."""

from __future__ import annotations

from typing import Any

import msgspec

from .usage import Usage


class ToolCallDelta(msgspec.Struct, gc=False):
    """A piece of a tool call.

    ``index``, ``id`` and ``name`` are as the provider sent them, ``None`` where this piece has
    none; ``arguments`` is the next piece of the argument string.
    """

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    type: str = "function"
    extra: dict[str, Any] | None = None


class Block(msgspec.Struct, kw_only=True):
    """A change to a content block, in wire formats that have blocks (Anthropic's).

    ``start`` is the block as it was opened; ``delta`` is a change other than text, reasoning or
    arguments (a signature, a citation); ``stop`` is true where the block is closed.
    """

    start: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None
    stop: bool = False


class StreamChunk(msgspec.Struct, gc=False):
    """One step of an answer: the content of a provider's event in neutral terms.

    Most chunks are plain text, and have nothing but ``delta``. A chunk is a value that belongs to
    the code that received it.
    """

    delta: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    id: str | None = None
    model: str | None = None
    choice: int = 0
    part: int | None = None
    """Number of the content block that this belongs to, in wire formats that number them."""
    block: Block | None = None
    reasoning_details: tuple[dict[str, Any], ...] = ()
    """Reasoning blocks that must be sent back unchanged (OpenRouter's)."""
    annotations: tuple[dict[str, Any], ...] = ()
    logprobs: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    images: tuple[dict[str, Any], ...] = ()
    """Images that the model made, in the provider's shape (OpenRouter's ``image_url`` parts)."""
    metadata: dict[str, Any] | None = None
    """Other facts worth keeping (serving provider, native finish reason, timings …)."""
    end: bool = False
    """True for the wire format's own end event (``[DONE]``, ``message_stop``)."""
    progress: bool = True
    """False where the answer did not advance (an opening with a role only, an empty delta)."""
    event: int = 0
    """Number of the event that it came from, counted from 1 in each stream."""
    received_at: float = 0.0
    """Time at which its bytes were read from the socket, in seconds on Trio's clock."""
    raw: bytes | None = None
    """The event's data, if the stream was opened with ``raw=True``."""

    @classmethod
    def content(cls, delta: str) -> StreamChunk:
        """Return a chunk of plain text."""
        return cls(delta)

    @classmethod
    def finished(cls, reason: str) -> StreamChunk:
        """Return a chunk that has nothing but the finish reason."""
        return cls(finish_reason=reason)


def has_content(chunk: StreamChunk) -> bool:
    """Whether a chunk carries some of the answer itself, and not just facts about it."""
    return bool(
        chunk.delta
        or chunk.reasoning
        or chunk.tool_calls
        or chunk.refusal
        or chunk.audio
        or chunk.images
        or chunk.reasoning_details
    )
