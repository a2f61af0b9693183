"""The response that the chunks of a stream add up to, with its outcome and its timings, and the errors
that have a response.

Times are in seconds, money is in USD. ``None`` always means that the provider did not say; it is
never read as zero.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final, Generic, overload

import msgspec

from .cost import CostInfo
from .messages import Message, Part, ToolCall
from .schemas import read_answer
from .usage import Usage
from .value_type import Asked, Value


class Outcome(str, Enum):
    """The way a stream ended: exactly one of four ways, which never changes."""

    FINISHED = "finished"
    """The answer is complete: the provider sent a finish reason or its end marker."""
    TRUNCATED = "truncated"
    """The body ended, or the connection broke, before that."""
    ERRORED = "errored"
    """A clock ran out, the provider reported an error, the data was malformed, or no answer
    started."""
    CANCELLED = "cancelled"
    """The caller left, cancelled, or rejected the stream."""

    def __str__(self) -> str:
        return self.value


FINISHED: Final = Outcome.FINISHED
"""`Outcome.FINISHED` for code that asks in each request: in Python 3.11 an enum's attribute is looked up
by a method written in Python."""


class Timings(msgspec.Struct, kw_only=True):
    """The times of a stream's milestones, in seconds since the last attempt started.

    ``None`` means that the milestone was not reached. All times are those at which the bytes were
    read from the socket.
    """

    sent: float | None = None
    """Time when the request was sent, known once it is answered. On a connection that was already
    open, this is when the attempt started."""
    headers: float | None = None
    """Time when the response's headers had arrived."""
    first_chunk: float | None = None
    """Time when the first *content* arrived. An opening with only a role does not count."""
    last_chunk: float | None = None
    """Time when the last *content* arrived. Usage after the content does not count."""
    total: float | None = None
    """Time when the stream was over."""
    chunks: int = 0
    """The number of chunks with content. A chunk may have several tokens."""
    bytes: int = 0
    """The bytes of the body, decompressed."""
    attempts: int = 1
    """The number of requests for an answer that were sent."""
    resumes: int = 0
    """The number of times that an answer in the background was resumed after a cut."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers to a request. There are several only if you asked for them with ``n=``.

    If the stream was truncated, failed, or was cancelled, this holds what had arrived.
    """

    index: int = 0
    """The number of the choice, from 0."""
    parts: tuple[Part, ...] = ()
    """Text, reasoning, refusals, tool calls, and opaque blocks, in the order in which they
    started."""
    content: str = ""
    """The text, without reasoning and refusal."""
    reasoning: str = ""
    """The visible reasoning."""
    refusal: str | None = None
    """The text in which the model declined to answer, if it did."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls that you can run: they have a name and JSON arguments, and the answer is complete,
    neither cut nor filtered."""
    invalid_tool_calls: tuple[ToolCall, ...] = ()
    """The calls that you must not run: cut, without a name, not JSON, or perhaps not the
    model's."""
    finish_reason: str | None = None
    """The reason why the answer ended, as the provider sent it."""
    finish_reasons: tuple[str, ...] = ()
    """All finish reasons, without repeats. More than one is a conflict."""
    logprobs: dict[str, Any] | None = None
    """Log probabilities, in the provider's own shape, with the lists joined."""
    annotations: tuple[dict[str, Any], ...] = ()
    """Annotations and citations, in the provider's own shape."""
    audio: dict[str, Any] | None = None
    """Audio, in the provider's own shape, with its pieces joined."""
    images: tuple[dict[str, Any], ...] = ()
    """Images that the model made, in the provider's own shape."""

    @property
    def text(self) -> str:
        """The text, without reasoning and refusal; the same as ``content``."""
        return self.content

    def to_message(self) -> Message:
        """Return the assistant's turn to send back, with its blocks unchanged and in order.

        Invalid calls are left out, because no server accepts a call without a result.
        """
        invalid = {id(call) for call in self.invalid_tool_calls}
        return Message(role="assistant", parts=tuple(p for p in self.parts if id(p) not in invalid))


class CompletionResponse(msgspec.Struct, Generic[Value], frozen=True, kw_only=True, dict=True):
    """Everything that is known about the answer to one request.

    The fields of choice 0 are also properties of the response. ``CompletionResponse[City]`` is a
    response whose `value` is a ``City``; without the brackets, the type is not known.
    """

    id: str = ""
    """The provider's generation id."""
    model: str = ""
    """The model that answered, as the provider names it, or else the requested model."""
    choices: tuple[Choice, ...] = (Choice(),)
    """The answers by number: one, unless you asked for more with ``n=``."""
    usage: Usage | None = None
    """Token counts; ``None`` if the provider sent none."""
    outcome: Outcome | None = None
    """The way the stream ended; ``None`` only while it is running."""
    rejected: bool = False
    """True if the caller rejected the answer, so that its cost is not counted."""
    cost: CostInfo = CostInfo()
    """The cost in USD, and how reliable it is."""
    timings: Timings = msgspec.field(default_factory=Timings)
    """The times of the stream's milestones, in seconds."""
    request_id: str | None = None
    """The provider's id of the request, from the headers. Its support asks for it."""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    """Other facts that the provider sent, such as its fingerprint or the upstream provider."""
    notes: tuple[str, ...] = ()
    """Quirks that did not affect the answer, such as two different finish reasons."""
    skipped_events: int = 0
    """The number of events that were skipped, because they could not be read and were no part of
    the answer, or because of ``lenient=True``."""
    response_type: Any = None
    """The type that `parsed` decodes into by default: the request's ``response_format``."""

    @property
    def text(self) -> str:
        """The text of choice 0, without reasoning and refusal."""
        return self.choices[0].content

    @property
    def content(self) -> str:
        """The old name of `text`."""
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
        """The text in which the model declined to answer in choice 0, if it did."""
        return self.choices[0].refusal

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of choice 0 that you can run."""
        return self.choices[0].tool_calls

    @property
    def invalid_tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of choice 0 that you must not run."""
        return self.choices[0].invalid_tool_calls

    @property
    def finish_reason(self) -> str | None:
        """The finish reason of choice 0, as the provider sent it."""
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> dict[str, Any] | None:
        """Log probabilities of choice 0, in the provider's own shape, with the lists joined."""
        return self.choices[0].logprobs

    @property
    def annotations(self) -> tuple[dict[str, Any], ...]:
        """Annotations and citations of choice 0."""
        return self.choices[0].annotations

    @property
    def audio(self) -> dict[str, Any] | None:
        """Audio of choice 0, in the provider's own shape, with its pieces joined."""
        return self.choices[0].audio

    @property
    def images(self) -> tuple[dict[str, Any], ...]:
        """Images of choice 0, in the provider's own shape."""
        return self.choices[0].images

    def to_message(self) -> Message:
        """Return the assistant's turn to send back, from choice 0; see `Choice.to_message`.

        If the answer has ended without finishing, the message is marked as ``cut``.
        """
        message = self.choices[0].to_message()
        cut = self.outcome not in (Outcome.FINISHED, None)
        return msgspec.structs.replace(message, cut=True) if cut else message

    @property
    def value(self) -> Value:
        """The text of choice 0, decoded from JSON into the type of ``response_format``.

        If the request named no type, this is plain JSON. The text is decoded when you first read
        this, and you get the same object from then on. Raises what `parsed` raises.
        """
        kept: dict[str, Any] = vars(self)  # no field: neither compared nor copied
        if "value" not in kept:
            kept["value"] = self.parsed()
        found: Value = kept["value"]
        return found

    @overload
    def parsed(self, type: type[Asked]) -> Asked: ...

    @overload
    def parsed(self, type: Any = None) -> Any: ...

    def parsed(self, type: Any = None) -> Any:
        """Return the text of choice 0, decoded from JSON into ``type``.

        ``type`` is the request's ``response_format`` by default, if that was a type. An answer that
        was wrapped in an object (a list, a union, a scalar) is unwrapped.

        Raises `InvalidAnswer`, a `msgspec.DecodeError`, if the text is not JSON. Its message says
        if the model declined, or if the answer is empty or was cut. Raises its subclass
        `MismatchedAnswer`, a `msgspec.ValidationError`, if the JSON does not match the type. For a
        pydantic model, pydantic's own error is its ``__cause__``.
        """
        asked = self.response_type
        failure: InvalidAnswer
        try:
            return read_answer(self.text.strip(), type or asked or Any, asked)
        except msgspec.ValidationError as exc:
            cause, failure = exc.__cause__, MismatchedAnswer(str(exc), self)
        except msgspec.DecodeError as exc:
            cause, failure = None, InvalidAnswer(self._fault(str(exc)), self)
        except UnicodeError:  # its repr would show the text
            cause, failure = None, InvalidAnswer("the answer is not valid Unicode", self)
        raise failure from cause

    def _fault(self, words: str) -> str:
        """Return why the text is not JSON: in msgspec's words, unless there is more to say."""
        if self.refusal:
            return "the model declined to answer"
        if not self.text.strip():
            calls = self.tool_calls or self.invalid_tool_calls
            return "the answer is empty" + (": the model called tools instead" if calls else "")
        if "truncated" in words:  # msgspec's for JSON that does not end, and for the "no" of a null
            begun = any(mark in self.text for mark in '{["')
            return "the answer was cut before its JSON ended" if begun else "the answer is not JSON"
        return words

    def __repr__(self) -> str:
        return (
            f"<CompletionResponse {self.outcome} {self.finish_reason!r}"
            f" {len(self.text)} characters, {len(self.tool_calls)} tool calls>"
        )

    def __rich_repr__(self) -> Any:
        yield repr(self)


class MiniLLMError(Exception):
    """The base class of all errors that this library raises for faults outside your program."""

    partial: CompletionResponse | None = None
    """The response so far when the stream failed; empty if the request was refused or could not be
    sent. ``None`` for errors that did not come from a stream."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders and are copied; their constructors take other arguments.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[MiniLLMError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class InvalidAnswer(MiniLLMError, msgspec.DecodeError):
    """The answer is not JSON, although JSON was requested.

    - ``response`` is the response, and ``text`` the text of the answer.
    - ``reason`` says what is wrong. It may quote the answer; the message does not.
    """

    path: str | None = None
    """The place of the fault in the JSON (``$.cities[0].name``); ``None`` if there is no JSON."""

    def __init__(self, reason: str, response: CompletionResponse[Any]) -> None:
        super().__init__(_without_quotes(reason))
        self.reason: str = reason
        self.response: CompletionResponse[Any] = response
        self.partial: CompletionResponse[Any] | None = response

    @property
    def text(self) -> str:
        """The text of the answer, as it arrived."""
        return self.response.text


class MismatchedAnswer(InvalidAnswer, msgspec.ValidationError):
    """The answer is JSON, but does not match the requested type."""

    def __init__(self, reason: str, response: CompletionResponse) -> None:
        super().__init__(reason, response)
        found = _PLACE.search(reason)
        self.path: str | None = found[1] if found else "$"


_PLACE = re.compile(r" - at `(?:key` in `)?(\$[^`]*)`\Z")
"""The end of a complaint of msgspec's that names a place. A fault of the whole has none."""
_QUOTES = re.compile(
    r"(?s)\A(Invalid (?:enum )?value|Object contains unknown field|Input tag)"
    r" .*?(?= - at `\$[^`]*`\Z| found using |\Z)"
)
"""Complaints of msgspec's and pydantic's that quote what the model wrote."""


def _without_quotes(reason: str) -> str:
    return _QUOTES.sub(r"\1", reason)
