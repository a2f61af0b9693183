"""The errors that this library raises, as one tree ordered by what the caller should do next.

=====================  ===========================================================
``SendError``          The request could not be sent, or the connection broke before
                       any response. Check the address and the network. Retrying
                       is safe.
``RefusedError``       The server answered with an error status. ``kind`` says
                       whether to wait, pay, fix the key or fix the request.
``StreamError``        The answer did not arrive in time, or broke off. ``partial``
                       holds what arrived. A new request costs again.
``InvalidAnswer``      The answer is complete, but not JSON, or not of the requested
                       type. ``text`` is the answer. Defined with the response.
``RetriesExhausted``   Several attempts failed. ``last_error`` is the last error.
``BudgetExceeded``     A spending limit is reached. Nothing more was sent.
=====================  ===========================================================

Misuse (a wrong argument, a stream used by two tasks at once) raises ``TypeError``,
``ValueError`` or Trio's own error, which are not in this tree. No message, ``repr`` or
argument of these errors contains an API key or a prompt: a server's message is cut to an
excerpt in which the key is redacted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec

from .chunks import StreamChunk
from .response import MiniLLMError as MiniLLMError
from .usage import Usage

ErrorKind = Literal["auth", "invalid", "quota", "rate_limit", "overloaded", "timeout", "server"]
"""The action that a provider's error asks for.

``auth``: fix the key or its rights · ``invalid``: fix the request, because it is malformed,
exceeds a limit, or asks for something that the model can't do · ``quota``: pay, raise the limit,
or wait for its renewal, because the account or a limit of a day or longer is used up ·
``rate_limit``, ``overloaded``: wait · ``timeout``: the provider gave up waiting · ``server``:
the provider failed."""

RETRYABLE: frozenset[ErrorKind] = frozenset({"rate_limit", "overloaded", "timeout", "server"})
"""Kinds of errors that may go away without a change."""

SendReason = Literal[
    "refused",
    "no_such_host",
    "unreachable",
    "certificate",
    "tls",
    "open_files",
    "address",
    "credentials",
]
"""The reason why a request could not be sent, if it is known.

``refused``: nothing listens at the address · ``no_such_host``: the name does not exist ·
``unreachable``: the host or a name server can't be reached at the moment · ``certificate``: the
server's certificate is expired, for another name, or from an unknown authority · ``tls``: the two
sides agree on no handshake · ``open_files``: this process or the machine has too many open files ·
``address``: the URL is invalid · ``credentials``: the program's own function returned no key, or
did not sign."""

EXCERPT_CHARS = 2_000
"""Most characters of a provider's own words that an error shows."""


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's report of a failure, in one shape for error statuses and for errors in a
    stream.
    """

    message: str
    """An excerpt of the provider's own message, at most 2,000 characters, with keys redacted."""
    kind: ErrorKind
    """The action that the error asks for; see `ErrorKind`."""
    status: int | None = None
    """The HTTP status. For an error in a stream, the status that the provider's code stands for, or
    ``None``."""
    code: str | None = None
    """The provider's machine-readable code."""
    type: str | None = None
    """The provider's name for the kind of error."""
    metadata: Any = None
    """More facts, in the provider's own shape. They may quote the prompt."""
    should_retry: bool | None = None
    """The provider's advice on retrying (``x-should-retry``), which takes precedence over
    ``kind``."""
    retry_after: float | None = None
    """Seconds to wait, if the body names them: in a field (Google's ``RetryInfo``, OpenRouter's
    ``availability``) or in its message (``try again in 7m12s``)."""

    def __repr__(self) -> str:
        # `metadata` may quote the prompt (OpenRouter's `flagged_input`).
        return f"<ErrorInfo {self.status} {self.kind} {self.code or self.type}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)

    @property
    def retryable(self) -> bool:
        """True if another attempt may succeed without any change.

        The provider's own advice comes first. An error in a stream without a known status is not
        retried, because it may be about the request.
        """
        if self.should_retry is not None:
            return self.should_retry
        return self.kind in RETRYABLE and not (self.kind == "server" and self.status is None)


class SendError(MiniLLMError):
    """The request could not be sent, or the connection broke before any response."""

    reason: SendReason | None = None
    """The cause in one word (see `SendReason`), if it is known."""

    def __init__(self, message: str = "", *, reason: SendReason | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason

    @property
    def permanent(self) -> bool:
        """True if another attempt would fail in the same way, because the address or the server
        there must change first.
        """
        return self.reason in ("certificate", "tls", "address")


class CredentialsError(SendError):
    """A function passed as ``api_key`` or ``sign`` failed, so nothing was sent.

    The message names the class of the exception and where it was raised. It never quotes the
    exception, which may contain a key. To show a message of your own, raise this error in the
    function. ``permanent=True`` says that another attempt is useless, so there is none.
    """

    reason: SendReason | None = "credentials"
    """Always ``"credentials"``."""

    def __init__(self, message: str = "", *, permanent: bool = False) -> None:
        super().__init__(message)
        self._permanent = permanent

    @property
    def permanent(self) -> bool:
        """True if another attempt would fail in the same way, because the returned value can't be
        sent.
        """
        return self._permanent


class ConnectTimeout(SendError):
    """Connecting took longer than ``limit`` seconds (clock ``connect``).

    If ``reason`` is ``"credentials"``, the time was spent waiting for the key or the signature.
    """

    clock = "connect"

    def __init__(self, limit: float, *, reason: SendReason | None = None) -> None:
        what = "no key or signature" if reason == "credentials" else "not connected"
        super().__init__(f"{what} within {limit:g} s (clock 'connect')", reason=reason)
        self.limit = limit


class SendTimeout(SendError):
    """Sending the request made no progress for ``limit`` seconds (clock ``send``)."""

    clock = "send"

    def __init__(self, limit: float) -> None:
        super().__init__(f"sending made no progress for {limit:g} s (clock 'send')")
        self.limit = limit


class _Reported:
    """Shortcuts to the fields of a provider's report."""

    info: ErrorInfo

    @property
    def status(self) -> int | None:
        """The HTTP status; in a stream, the one that the provider's code stands for, if any."""
        return self.info.status

    @property
    def code(self) -> str | None:
        """The provider's machine-readable code, or else its error type."""
        return self.info.code or self.info.type

    @property
    def kind(self) -> ErrorKind:
        """The action that the error asks for, by the same rules for a refusal and in a stream."""
        return self.info.kind


class RefusedError(MiniLLMError, _Reported):
    """The server answered with an error status, which is any status outside 200 to 299.

    - ``info`` is the provider's report; `kind`, `status`, and `code` are taken from it.
    - ``retry_after`` is the wait that the server asks for, in seconds, or ``None``.
    - ``request_id`` and ``headers`` are those of the response.
    - ``url`` is the address that was called, without its query. The message includes it if the
      address may be wrong.
    """

    def __init__(
        self,
        info: ErrorInfo,
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        url: str | None = None,
    ) -> None:
        self.info = info
        code = f" [{self.code}]" if self.code else ""
        retry_after = info.retry_after if retry_after is None else retry_after
        wait = ""
        if retry_after is not None:  # of a date, many seconds
            seconds = f"{retry_after:g}" if retry_after < 100_000 else f"{retry_after:,.0f}"
            wait = f" (retry after {seconds} s)"
        ident = f" (request {request_id})" if request_id else ""
        status = "refused" if info.status is None else f"HTTP {info.status}"
        super().__init__(f"{status}{code} {info.kind}: {info.message}{wait}{ident}")
        self.retry_after = retry_after
        self.request_id = request_id
        self.headers: Mapping[str, str] = headers or {}
        self.url = url


class RefusedUntil(RefusedError):
    """The server refuses all requests until a time that is too far away to wait for.

    ``until`` is that time. The other attributes are those of the newest refusal.
    """

    def __init__(
        self, refused: RefusedError | ProviderError, *, until: datetime, wait: float, when: str
    ) -> None:
        known = refused if isinstance(refused, RefusedError) else None
        super().__init__(
            refused.info,
            retry_after=wait,
            request_id=None if known is None else known.request_id,
            headers=None if known is None else known.headers,
            url=None if known is None else known.url,
        )
        self.args: tuple[Any, ...] = (f"the server refuses until {when}: {refused}",)
        self.until = until


class StreamError(MiniLLMError):
    """The answer did not arrive in time, or broke off. ``partial`` holds what arrived."""


class StreamTruncated(StreamError):
    """The body ended before the answer did. This is always one of the two subclasses."""


class ConnectionCut(StreamTruncated):
    """The connection broke before the answer's end, or the body was shorter than announced."""


class EndedEarly(StreamTruncated):
    """The body ended cleanly, but without a sign that the answer was complete."""


class StreamTimeout(StreamError):
    """A clock ran out while the client waited for the answer.

    - ``clock`` is the name of the clock, a field of `Timeouts`, and ``limit`` its value in seconds.
    - ``chunks`` and ``received`` are the numbers of chunks and of bytes that had arrived.
    """

    def __init__(self, clock: str, limit: float, *, chunks: int = 0, received: int = 0) -> None:
        super().__init__(
            f"clock {clock!r} ran out after {limit:g} s"
            f" ({chunks} chunk{'' if chunks == 1 else 's'}, {received} bytes arrived)"
        )
        self.clock = clock
        self.limit = limit
        self.chunks = chunks
        self.received = received


class ProviderError(StreamError, _Reported):
    """The provider reported a failure in a stream that started with HTTP 200.

    ``info`` is the provider's report; `kind`, `status`, and `code` are taken from it.
    """

    usage: Usage | None = None
    """The usage from the same event, if any. ``partial`` includes it."""
    content: tuple[StreamChunk, ...]
    """The parts of the answer in the same event, until the decoder has passed them on."""

    vague: bool
    """True if only the text of an event, and no field for errors, reports the failure."""

    def __init__(
        self, info: ErrorInfo, *, content: tuple[StreamChunk, ...] = (), vague: bool = False
    ) -> None:
        self.info = info
        self.content = content
        self.vague = vague
        code = f" [{self.code}]" if self.code else ""
        super().__init__(f"the server reported an error{code} ({info.kind}): {info.message}")


class ProtocolError(StreamError):
    """The response violates its format. For example, it is not JSON, or a field has the wrong type.

    - ``event`` is the number of the event, counted from 1, or ``None`` if no event is at fault.
    - ``reason`` is the message without that number.
    """

    def __init__(self, message: str, *, event: int | None = None) -> None:
        super().__init__(message if event is None else f"event {event}: {message}")
        self.reason = message
        self.event = event


_FIELDS = {
    "bytes in one line": "event",
    "bytes in one event": "event",
    "bytes in a body that is no event stream": "event",
    "bytes in one response": "response",
    "choices": "choices",
    "tool calls": "tool_calls",
    "characters in the arguments of calls": "arguments",
    "characters in the input of a provider's tool": "tool_input",
    "content blocks": "parts",
    "images": "parts",
    "annotations": "items",
    "reasoning blocks": "items",
    "log probabilities": "items",
}
"""The fields of `Bounds`, by the words for what is bounded."""


class LimitExceeded(ProtocolError):
    """The response exceeded one of this library's `Bounds`.

    ``bound`` describes the bound (``bytes in one line``), and ``limit`` is its value.
    """

    def __init__(self, bound: str, limit: int, *, event: int | None = None) -> None:
        field = _FIELDS.get(bound)
        raised = f" (Bounds({field}=…) raises it)" if field else ""
        super().__init__(f"more than {limit:,} {bound}{raised}", event=event)
        self.bound = bound
        self.limit = limit


class RetriesExhausted(MiniLLMError):
    """All allowed attempts failed. ``errors`` holds the error of each, in order."""

    def __init__(self, errors: tuple[MiniLLMError, ...]) -> None:
        super().__init__(f"{len(errors)} attempts failed; the last: {errors[-1]}")
        self.errors = errors

    @property
    def last_error(self) -> MiniLLMError:
        """The error of the last attempt."""
        return self.errors[-1]

    @property
    def attempts(self) -> int:
        """The number of requests that were sent."""
        return len(self.errors)


class BudgetExceeded(MiniLLMError):
    """A spending limit is reached, so an attempt was not started or was cancelled.

    - ``limit`` is the name of the field of `Limits`.
    - ``allowed`` is its value, and ``spent`` what is known to be spent; both are in USD or in
      tokens.
    """

    def __init__(self, limit: str, allowed: Decimal | int, spent: Decimal | int) -> None:
        unit = "tokens" if limit == "max_tokens" else "USD"
        super().__init__(f"the limit {limit} is reached: {spent} {unit} spent, {allowed} allowed")
        self.limit = limit
        self.allowed = allowed
        self.spent = spent


def alone(error: BaseException) -> BaseException:
    """Return what a function of the caller's has raised for a log, without this library's errors around it.

    One may have been handled when it was raised, or it was raised from one: their words may be a
    server's, which may quote the prompt.
    """
    seen: list[BaseException] = []
    shown: BaseException | None = error
    while shown is not None and shown not in seen:
        seen.append(shown)
        shown.__suppress_context__ = True
        if isinstance(shown.__cause__, MiniLLMError):
            shown.__cause__ = None
        shown = shown.__cause__
    return error
