"""One step of an answer as it arrives: the chunk, and the pieces of calls and blocks in it."""

from __future__ import annotations

from typing import Any

import msgspec

from .usage import Usage


class ToolCallDelta(msgspec.Struct, gc=False):
    """A piece of a tool call. ``index``, ``id`` and ``name`` are as the wire had them, and
    may be missing; ``arguments`` is the next piece of the argument string.
    """

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    type: str = "function"
    extra: dict[str, Any] | None = None


class Block(msgspec.Struct, kw_only=True):
    """What happened to a content block, on wires that have blocks (Anthropic's).

    ``start`` is the block as it was opened, ``delta`` a change that is more than text,
    reasoning or arguments (a signature, a citation), ``stop`` closes it.
    """

    start: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None
    stop: bool = False


class StreamChunk(msgspec.Struct, gc=False):
    """One step of the answer: what a provider's event says, in neutral terms.

    A plain piece of text has ``delta`` and nothing else. A chunk is a value: it belongs to
    whoever received it.
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
    """Number of the content block that this belongs to, on wires that number them."""
    block: Block | None = None
    reasoning_details: tuple[dict[str, Any], ...] = ()
    """Reasoning blocks to be sent back unchanged (OpenRouter's)."""
    annotations: tuple[dict[str, Any], ...] = ()
    logprobs: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    images: tuple[dict[str, Any], ...] = ()
    """Pictures that the model made, in the wire's shape (OpenRouter's ``image_url`` parts)."""
    metadata: dict[str, Any] | None = None
    """The rest that is worth keeping (serving provider, native reason, timings …)."""
    end: bool = False
    """The wire's own end event (``[DONE]``, ``message_stop``)."""
    progress: bool = True
    """False where nothing of the answer moved (a role-only opening, an empty delta)."""
    event: int = 0
    """Number of the stream's event that it came from, counted from 1."""
    received_at: float = 0.0
    """When its bytes left the socket, on Trio's clock, in seconds."""
    raw: bytes | None = None
    """The event's data, if the stream was opened with ``raw=True``."""

    @classmethod
    def content(cls, delta: str) -> StreamChunk:
        """A chunk of plain text."""
        return cls(delta)

    @classmethod
    def finished(cls, reason: str) -> StreamChunk:
        """A chunk that says only why the answer ended."""
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
