"""Everything this library raises, as one tree, by what to do next.

=====================  ========================================================
``SendError``          The request did not get out, or no answer began. Check the
                       address and the network; trying again is safe.
``RefusedError``       The server answered with an error status. ``kind`` says
                       whether to wait, pay, fix the key or fix the request.
``StreamError``        The answer began and broke. ``partial`` has what arrived;
                       sending again costs again.
``RetriesExhausted``   Several attempts failed; ``last_error`` is the newest.
``BudgetExceeded``     A limit of yours is reached; nothing more was sent.
=====================  ========================================================

Misuse (a wrong argument, a stream used twice at once) is ``TypeError``, ``ValueError``
or Trio's own error and not in this tree. No message, ``repr`` or argument of these
errors contains an API key or a prompt: what a server echoes is cut to an excerpt in
which the key is blanked.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from .response import CompletionResponse
from .usage import Usage

ErrorKind = Literal["auth", "invalid", "quota", "rate_limit", "overloaded", "timeout", "server"]
"""What a provider's error asks of the caller.

``auth`` fix the key or its rights · ``invalid`` fix the request · ``quota`` pay or raise a
limit (waiting does not help) · ``rate_limit`` wait · ``overloaded`` wait · ``timeout`` the
provider gave up waiting · ``server`` the provider failed.
"""

RETRYABLE: frozenset[ErrorKind] = frozenset({"rate_limit", "overloaded", "timeout", "server"})

EXCERPT_CHARS = 2_000
"""How much of a provider's own words an error shows, in characters."""


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider said of a failure, in one shape for HTTP and in-band errors.

    ``status`` is the HTTP status, or for an in-band error the status that the provider's
    code stands for (``None`` where it stands for none).
    """

    message: str
    kind: ErrorKind
    status: int | None = None
    code: str | None = None
    type: str | None = None
    metadata: Any = None
    should_retry: bool | None = None
    """The provider's own word (``x-should-retry``), which beats ``kind``."""
    retry_after: float | None = None
    """Seconds, where the body itself names them (OpenRouter's ``availability``)."""

    def __repr__(self) -> str:
        # `metadata` may quote the prompt (OpenRouter's `flagged_input`).
        return f"<ErrorInfo {self.status} {self.kind} {self.code or self.type}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)

    @property
    def retryable(self) -> bool:
        """Whether another attempt may succeed without any change.

        The provider's own word counts first. An in-band error that stands for no status is
        not tried again: it may as well be about the request.
        """
        if self.should_retry is not None:
            return self.should_retry
        return self.kind in RETRYABLE and not (self.kind == "server" and self.status is None)


class MiniLLMError(Exception):
    """Base of every error that this library raises for a fault outside the program."""

    partial: CompletionResponse | None = None
    """What had arrived when a stream failed (nothing yet, for one that was refused or not
    sent); ``None`` on errors that did not come from a stream."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders and are copied; their constructors take other arguments.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[MiniLLMError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class SendError(MiniLLMError):
    """The request could not be sent, or the connection died before any answer began."""


class ConnectTimeout(SendError):
    """Connecting and sending took longer than ``limit`` seconds (clock ``connect``)."""

    clock = "connect"

    def __init__(self, limit: float) -> None:
        super().__init__(f"not connected and sent within {limit:g} s (clock 'connect')")
        self.limit = limit


class _Reported:
    """Short names for the fields of an error that a provider reported."""

    info: ErrorInfo

    @property
    def status(self) -> int | None:
        """HTTP status; in a stream, the one that the provider's code stands for, if any."""
        return self.info.status

    @property
    def code(self) -> str | None:
        """The provider's machine-readable code, else its error type."""
        return self.info.code or self.info.type

    @property
    def kind(self) -> ErrorKind:
        """What to do next, by the same rules for a refused request and inside a stream."""
        return self.info.kind


class RefusedError(MiniLLMError, _Reported):
    """The server answered with a status other than 200.

    ``info`` holds the provider's words; ``retry_after`` (seconds, ``None`` if the server
    named none) and ``request_id`` come from the response's headers.
    """

    def __init__(
        self,
        info: ErrorInfo,
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.info = info
        code = f" [{self.code}]" if self.code else ""
        retry_after = info.retry_after if retry_after is None else retry_after
        wait = f" (retry after {retry_after:g} s)" if retry_after is not None else ""
        ident = f" (request {request_id})" if request_id else ""
        status = "refused" if info.status is None else f"HTTP {info.status}"
        super().__init__(f"{status}{code} {info.kind}: {info.message}{wait}{ident}")
        self.retry_after = retry_after
        self.request_id = request_id
        self.headers: Mapping[str, str] = headers or {}


class StreamError(MiniLLMError):
    """The answer began and did not come to its end. ``partial`` has what arrived."""


class StreamTruncated(StreamError):
    """The body ended before the answer did. Raised as one of its two subclasses."""


class ConnectionCut(StreamTruncated):
    """The connection broke, or the body was shorter than announced, before the end."""


class EndedEarly(StreamTruncated):
    """The body ended in good order but without any sign that the answer had ended."""


class StreamTimeout(StreamError):
    """A clock ran out. ``clock`` names the field of `Timeouts`, ``limit`` its seconds.

    ``chunks`` and ``received`` (bytes of body) say what had arrived by then.
    """

    def __init__(self, clock: str, limit: float, *, chunks: int = 0, received: int = 0) -> None:
        super().__init__(
            f"clock {clock!r} ran out after {limit:g} s ({chunks} chunks, {received} bytes arrived)"
        )
        self.clock = clock
        self.limit = limit
        self.chunks = chunks
        self.received = received


class ProviderError(StreamError, _Reported):
    """The provider reported a failure inside a stream that had begun with HTTP 200."""

    usage: Usage | None = None
    """The usage that came in the same event, if any; it is in ``partial`` as well."""

    def __init__(self, info: ErrorInfo) -> None:
        self.info = info
        code = f" [{self.code}]" if self.code else ""
        super().__init__(f"error in the stream{code} {info.kind}: {info.message}")


class ProtocolError(StreamError):
    """The stream broke its own format: not JSON, a wrong type, a body of another kind.

    ``event`` counts the stream's events from 1 (``None`` if the fault is not in one).
    """

    def __init__(self, message: str, *, event: int | None = None) -> None:
        super().__init__(message if event is None else f"event {event}: {message}")
        self.reason = message
        self.event = event


class LimitExceeded(ProtocolError):
    """The stream crossed one of this library's bounds; ``bound`` names it."""

    def __init__(self, bound: str, limit: int, *, event: int | None = None) -> None:
        super().__init__(f"more than {limit:,} {bound}", event=event)
        self.bound = bound
        self.limit = limit


class RetriesExhausted(MiniLLMError):
    """Every allowed attempt failed. ``last_error`` is the newest, ``errors`` has them all."""

    def __init__(self, errors: tuple[MiniLLMError, ...]) -> None:
        super().__init__(f"{len(errors)} attempts failed; the last: {errors[-1]}")
        self.errors = errors

    @property
    def last_error(self) -> MiniLLMError:
        """The error of the newest attempt."""
        return self.errors[-1]

    @property
    def attempts(self) -> int:
        """How many requests were sent."""
        return len(self.errors)


class BudgetExceeded(MiniLLMError):
    """A limit of `Limits` is reached: the attempt was not started, or was cancelled for it.

    ``limit`` names the field, ``allowed`` is its value and ``spent`` what was known to be spent,
    both in USD or tokens.
    """

    def __init__(self, limit: str, allowed: Decimal | int, spent: Decimal | int) -> None:
        unit = "tokens" if limit == "max_tokens" else "USD"
        super().__init__(f"{limit} is reached: {spent} of {allowed} {unit} are spent")
        self.limit = limit
        self.allowed = allowed
        self.spent = spent
