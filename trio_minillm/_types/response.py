"""The response that the chunks of a stream add up to, with its outcome and its timings.

Times are in seconds, money is in USD. ``None`` always means that the provider did not say; it is
never read as zero.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import msgspec

from .cost import CostInfo
from .messages import Message, Part, ToolCall
from .schemas import read_answer
from .usage import Usage


class Outcome(str, Enum):
    """The way a stream ended: exactly one of four, which never changes once it is set."""

    FINISHED = "finished"
    """The answer is complete: the provider gave a finish reason or its end marker."""
    TRUNCATED = "truncated"
    """The body ended, or the connection broke, before that."""
    ERRORED = "errored"
    """A clock ran out, the provider reported an error, the data were malformed, or no answer
    began."""
    CANCELLED = "cancelled"
    """The caller left, cancelled or rejected the stream."""

    def __str__(self) -> str:
        return self.value


FINISHED: Final = Outcome.FINISHED
"""`Outcome.FINISHED` for code that asks in each request: in Python 3.11 an enum's attribute is looked up
by a method written in Python."""


class Timings(msgspec.Struct, kw_only=True):
    """Times of a stream's milestones, in seconds since the newest attempt began.

    ``None`` means that it was not reached. ``first_chunk`` and ``last_chunk`` are the first and the
    last *content*; an opening with a role only, or usage after the content, does not count. All are
    the times at which the bytes were read from the socket.
    """

    headers: float | None = None
    first_chunk: float | None = None
    last_chunk: float | None = None
    total: float | None = None
    chunks: int = 0
    """Number of chunks with content (not tokens: servers put several into a chunk)."""
    bytes: int = 0
    """Bytes of the body, decompressed."""
    attempts: int = 1
    """Number of requests for an answer that were sent."""
    resumes: int = 0
    """Number of times that the answer, made in the background, was taken up again after a cut."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers to a request (several come only if ``n=`` asks for them).

    If the stream was truncated, failed or was cancelled, it holds what had arrived by then.
    """

    index: int = 0
    parts: tuple[Part, ...] = ()
    """Text, reasoning, refusal, tool calls and opaque blocks, in the order in which they began."""
    content: str = ""
    """The text, without reasoning and refusal."""
    reasoning: str = ""
    """The visible reasoning."""
    refusal: str | None = None
    """The words in which the model declined to answer, if it did."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls that can be run: they have a name, their arguments are JSON, and the answer is
    complete, neither cut nor filtered."""
    invalid_tool_calls: tuple[ToolCall, ...] = ()
    """Calls that must not be run: cut off, without a name, not JSON, or perhaps not the model's."""
    finish_reason: str | None = None
    """The reason why the answer ended, in the provider's words."""
    finish_reasons: tuple[str, ...] = ()
    """All finish reasons that were given, without repeats; more than one is a conflict."""
    logprobs: dict[str, Any] | None = None
    annotations: tuple[dict[str, Any], ...] = ()
    audio: dict[str, Any] | None = None
    images: tuple[dict[str, Any], ...] = ()
    """Images that the model made, in the provider's own shape."""

    def to_message(self) -> Message:
        """Return the assistant turn to send back, with its blocks unchanged and in order.

        Invalid calls are left out: no server accepts a call without a result.
        """
        invalid = {id(call) for call in self.invalid_tool_calls}
        return Message(role="assistant", parts=tuple(p for p in self.parts if id(p) not in invalid))


class CompletionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of the answer to one request.

    The fields of choice 0 can be read directly. ``outcome`` is ``None`` only while the stream is
    still running.
    """

    id: str = ""
    """The provider's generation id."""
    model: str = ""
    """The model that answered, in the provider's words, or else the one that was asked."""
    choices: tuple[Choice, ...] = (Choice(),)
    usage: Usage | None = None
    outcome: Outcome | None = None
    rejected: bool = False
    """True if the caller rejected the answer; it is then not booked."""
    cost: CostInfo = CostInfo()
    timings: Timings = msgspec.field(default_factory=Timings)
    request_id: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Oddities that did no harm to the answer (two different finish reasons …)."""
    skipped_events: int = 0
    """Number of events that were passed over: they could not be read, and were no part of the answer,
    or ``lenient=True`` was given."""
    response_type: Any = None
    """Type that `parsed` decodes into by default: the request's ``response_format``."""

    @property
    def content(self) -> str:
        """The text of choice 0, without reasoning and refusal."""
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
        """The words in which choice 0 declined to answer, if it did."""
        return self.choices[0].refusal

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of choice 0 that can be run."""
        return self.choices[0].tool_calls

    @property
    def invalid_tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of choice 0 that must not be run."""
        return self.choices[0].invalid_tool_calls

    @property
    def finish_reason(self) -> str | None:
        """The finish reason of choice 0, in the provider's words."""
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> dict[str, Any] | None:
        """Log probabilities of choice 0, in the provider's own shape, lists joined."""
        return self.choices[0].logprobs

    @property
    def annotations(self) -> tuple[dict[str, Any], ...]:
        """Annotations and citations of choice 0."""
        return self.choices[0].annotations

    @property
    def audio(self) -> dict[str, Any] | None:
        """Audio of choice 0, in the provider's own shape, its pieces joined."""
        return self.choices[0].audio

    @property
    def images(self) -> tuple[dict[str, Any], ...]:
        """Images of choice 0, in the provider's own shape."""
        return self.choices[0].images

    def to_message(self) -> Message:
        """Return the assistant turn to send back, made from choice 0; see `Choice.to_message`."""
        return self.choices[0].to_message()

    def parsed(self, type: Any = None) -> Any:
        """Return the text of choice 0, decoded from JSON into ``type``.

        By default that is the type given as the request's ``response_format``, if it was a type. An
        answer that was asked for in an object (a list, a union, a scalar) is taken out of it.

        Raises `msgspec.DecodeError` if the text is not JSON, which says so if the model declined, or if
        the answer is empty or was cut; and its subclass
        `msgspec.ValidationError` if it does not match the type: for a pydantic model, too, whose own
        error is then its ``__cause__``.
        """
        asked = self.response_type
        text = self.content.strip()
        try:
            return read_answer(text, type or asked or Any, asked)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError as exc:
            if self.refusal:
                why = "the model declined to answer"
            elif not text:
                calls = self.tool_calls or self.invalid_tool_calls
                why = "the answer is empty" + (": the model called tools instead" if calls else "")
            elif "truncated" in str(exc):  # msgspec's words for JSON that does not end
                why = "the answer was cut before its JSON ended"
            else:
                raise
            raise msgspec.DecodeError(why) from None

    def __repr__(self) -> str:
        return (
            f"<CompletionResponse {self.outcome} {self.finish_reason!r}"
            f" {len(self.content)} characters, {len(self.tool_calls)} tool calls>"
        )

    def __rich_repr__(self) -> Any:
        yield repr(self)
