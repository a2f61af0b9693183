"""What comes back: chunks, usage, and the response that they add up to.

Tokens are counts, times are seconds, money is USD. ``None`` always means *not said by the
provider*; it is never read as zero.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from .cost import CostInfo
from .messages import Message, OpaquePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCall


class Outcome(str, Enum):
    """How a stream ended: exactly one of four, and it never changes once it is set."""

    FINISHED = "finished"
    """The answer is whole: the provider gave a reason, or its end marker."""
    TRUNCATED = "truncated"
    """The body ended, or the connection broke, before that."""
    ERRORED = "errored"
    """A clock ran out, the provider reported an error, or the data were malformed."""
    CANCELLED = "cancelled"
    """The caller left, cancelled or rejected."""

    def __str__(self) -> str:
        return self.value


MAX_RAW_FIELDS = 256
"""Fields of a raw usage object that later ones are merged into."""


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of one response, in disjoint buckets: three of input and one of output.

    Guarantees: no token is in two buckets, ``None`` means that the provider did not say, and
    the other counts of tokens are parts of a bucket: ``reasoning_tokens`` and ``…_output_tokens``
    of ``completion_tokens``, ``…_input_tokens`` of the input.
    """

    uncached_input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    """Everything that was generated, reasoning included."""
    reasoning_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """The part of ``cache_write_tokens`` that was written to live an hour."""
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    web_searches: int | None = None
    """Searches that the provider ran for this answer. Not tokens: a number of requests."""
    cost: float | None = None
    """What the provider says that this cost, in USD, as on the wire."""
    final: bool = False
    """True for the last word on the whole answer; False for a count that was still
    running when the stream stopped, which is a lower bound."""
    raw: dict[str, Any] | None = None
    """The usage as the wire had it, later objects merged into earlier ones."""

    @property
    def prompt_tokens(self) -> int | None:
        """All input: uncached, read from and written to the cache."""
        known = [self.uncached_input_tokens, self.cache_read_tokens, self.cache_write_tokens]
        if all(n is None for n in known):
            return None
        return sum(n or 0 for n in known)

    @property
    def total_tokens(self) -> int | None:
        """Input and output; ``None`` only where neither was said."""
        prompt = self.prompt_tokens
        if prompt is None and self.completion_tokens is None:
            return None
        return (prompt or 0) + (self.completion_tokens or 0)

    def merge_from(self, later: Usage) -> None:
        """Take over every field that ``later`` has. Replaces, never adds: counts on every
        wire are cumulative. What is final stays final.
        """
        for field in _USAGE_FIELDS:
            value = getattr(later, field)
            if value is not None:
                setattr(self, field, value)
        if later.raw is not None:
            few = self.raw is not None and len(self.raw) < MAX_RAW_FIELDS
            self.raw = {**self.raw, **later.raw} if self.raw and few else later.raw
        self.final = self.final or later.final


_USAGE_FIELDS = (
    "uncached_input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "audio_output_tokens",
    "image_output_tokens",
    "web_searches",
    "cost",
)


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


class Timings(msgspec.Struct, kw_only=True):
    """When things happened, in seconds since the newest attempt began; ``None``: it did not.

    ``first_chunk`` and ``last_chunk`` are the first and last *content*; a role-only opening or
    trailing usage does not count. All are stamped when the bytes left the socket.
    """

    headers: float | None = None
    first_chunk: float | None = None
    last_chunk: float | None = None
    total: float | None = None
    chunks: int = 0
    """Chunks with content. Not tokens: servers put several tokens into a chunk."""
    bytes: int = 0
    """Bytes of body, decompressed."""
    attempts: int = 1


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers to a request. Everything is as it had arrived by the end."""

    index: int = 0
    parts: tuple[Part, ...] = ()
    """Text, reasoning, refusal, calls and opaque blocks, in the order of their appearance."""
    content: str = ""
    reasoning: str = ""
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls that are whole: their arguments are JSON and the answer was not cut."""
    invalid_tool_calls: tuple[ToolCall, ...] = ()
    """Calls that must not be executed: cut, nameless or not JSON."""
    finish_reason: str | None = None
    finish_reasons: tuple[str, ...] = ()
    """Every reason that was given, without repeats; more than one is a conflict."""
    logprobs: dict[str, Any] | None = None
    annotations: tuple[dict[str, Any], ...] = ()
    audio: dict[str, Any] | None = None
    images: tuple[dict[str, Any], ...] = ()
    """Pictures that the model made, in the wire's shape."""

    def to_message(self) -> Message:
        """The assistant turn to send back, blocks unchanged and in order.

        Invalid calls are left out: no server accepts a call without an answer to it.
        """
        invalid = {id(call) for call in self.invalid_tool_calls}
        return Message(role="assistant", parts=tuple(p for p in self.parts if id(p) not in invalid))


class CompletionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one answer. The fields of choice 0 can be read directly.

    ``outcome`` is ``None`` only while the stream is still running.
    """

    id: str = ""
    """The provider's generation id."""
    model: str = ""
    """The model that answered, in the provider's words, else the one that was asked."""
    choices: tuple[Choice, ...] = (Choice(),)
    usage: Usage | None = None
    outcome: Outcome | None = None
    rejected: bool = False
    cost: CostInfo = CostInfo()
    timings: Timings = msgspec.field(default_factory=Timings)
    request_id: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Oddities that did not spoil the answer (two different finish reasons, …)."""
    skipped_events: int = 0
    """Malformed events that were passed over (only with ``lenient=True``)."""
    response_type: Any = None

    @property
    def content(self) -> str:
        """The text of choice 0; no reasoning and no refusal in it."""
        return self.choices[0].content

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of choice 0, in order."""
        return self.choices[0].parts

    @property
    def reasoning(self) -> str:
        """The visible reasoning of choice 0."""
        return self.choices[0].reasoning

    @property
    def refusal(self) -> str | None:
        """The refusal of choice 0, if it declined."""
        return self.choices[0].refusal

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The whole calls of choice 0."""
        return self.choices[0].tool_calls

    @property
    def invalid_tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls of choice 0 that must not be executed."""
        return self.choices[0].invalid_tool_calls

    @property
    def finish_reason(self) -> str | None:
        """Why choice 0 ended, in the provider's words."""
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> dict[str, Any] | None:
        """Log probabilities of choice 0, in the wire's shape, lists joined."""
        return self.choices[0].logprobs

    @property
    def annotations(self) -> tuple[dict[str, Any], ...]:
        """Annotations and citations of choice 0."""
        return self.choices[0].annotations

    @property
    def audio(self) -> dict[str, Any] | None:
        """Sound of choice 0, in the wire's shape, its pieces joined."""
        return self.choices[0].audio

    @property
    def images(self) -> tuple[dict[str, Any], ...]:
        """Pictures of choice 0, in the wire's shape."""
        return self.choices[0].images

    def to_message(self) -> Message:
        """The assistant turn to send back, made of choice 0."""
        return self.choices[0].to_message()

    def parsed(self, type: Any = None) -> Any:
        """The content read as JSON into ``type``, by default the request's ``response_format``.

        Raises `msgspec.ValidationError` (its base `msgspec.DecodeError` for what is not JSON).
        """
        return msgspec.json.decode(self.content.strip(), type=type or self.response_type or Any)

    def __repr__(self) -> str:
        return (
            f"<CompletionResponse {self.outcome} {self.finish_reason!r}"
            f" {len(self.content)} characters, {len(self.tool_calls)} tool calls>"
        )

    def __rich_repr__(self) -> Any:
        yield repr(self)


__all__ = [
    "Block",
    "Choice",
    "CompletionResponse",
    "OpaquePart",
    "Outcome",
    "ReasoningPart",
    "RefusalPart",
    "StreamChunk",
    "TextPart",
    "Timings",
    "ToolCallDelta",
    "Usage",
]
