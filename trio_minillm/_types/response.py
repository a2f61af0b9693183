"""The response that a stream's chunks add up to, its outcome and its timings.

Tokens are counts, times are seconds, money is USD. ``None`` always means *not said by the
provider*; it is never read as zero.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from .cost import CostInfo
from .messages import Message, Part, ToolCall
from .usage import Usage


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
