"""Observers of attempts, and the log records of them: what a program is told beside its answers.

Nothing here costs anything unless a client has an observer, or the logger ``trio_minillm`` is at DEBUG.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import cache
from typing import Any, Protocol

import msgspec
import trio

from ..._accounting.record import CostRecord
from ..._protocol.request import Messages, Prepared
from ..._types.errors import MiniLLMError, RetriesExhausted, alone
from ..._types.messages import Message
from ..._types.openai_messages import messages_of
from ..._types.params import PARAM_NAMES
from ..._types.response import CompletionResponse, Outcome, Timings
from ...providers import Model
from ..streams import TrackedStream
from .http_facts import HTTPRequest, HTTPResponse, request_facts, response_facts
from .log_records import described, error_type, log


class ObservedAttempt(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An attempt at a request, as an `Observer` sees it: the same object at each call.

    Its ``repr`` shows neither parameters nor messages.
    """

    model: Model
    """The requested model."""
    number: int
    """The number of the attempt within its call, or within a batch's request, from 1."""
    url: str
    """The address that is called, without its query."""
    params: Mapping[str, Any]
    """The parameters of the call (`Params`)."""
    meta: Any = None
    """The ``meta`` of the call."""
    messages: tuple[Message, ...] | None = None
    """The messages that are sent, if the observer has ``wants_content = True``, and ``None``
    otherwise."""
    http: HTTPRequest | None = None
    """The request without secrets and texts, if the observer has ``wants_http = True``, else ``None``."""

    def __repr__(self) -> str:
        return f"<ObservedAttempt {self.number} {self.model!r}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class AttemptEnd(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The end of an attempt: its outcome, what is known of its cost, and its times."""

    outcome: Outcome
    """The outcome of the attempt."""
    error: MiniLLMError | None
    """The error that ended it. Its message may be the server's, which may quote the prompt."""
    retried: bool
    """True if the same call makes another attempt, unless the caller leaves first. Always False in
    a batch, which decides later."""
    record: CostRecord
    """The attempt as it was recorded in the ledger, before its final cost was looked up."""
    seconds: float
    """Seconds from the start of the attempt to its end."""
    timings: Timings
    """The times of its milestones, in seconds since it started."""
    response: CompletionResponse | None
    """Everything that arrived; ``None`` if nothing arrived and another attempt follows."""
    http: HTTPResponse | None = None
    """The status and the headers without secrets, if a response came and the observer has
    ``wants_http = True``, else ``None``."""

    def __repr__(self) -> str:
        return f"<AttemptEnd {self.outcome} {self.seconds:.3f} s>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class Observer(Protocol):
    """An object that is notified of each attempt of a client: ``open_client(observer=…)``.

    A subclass needs only the methods that it wants. They run in the middle of the program's
    streams, so they must return at once. They run in a copy of the call's context (`contextvars`).
    An exception is logged once for each method, and does not affect the answer.

    If an observer has the attribute ``wants_content = True``, it receives the messages of each
    attempt, which are held until the attempt ends. If it has ``wants_http = True``, it receives the
    request and the response as HTTP has them: method, status, headers without secrets, and the names
    and sizes of the body's fields.
    """

    def attempt_began(self, attempt: ObservedAttempt) -> None:
        """Handle the start of an attempt: its request is about to be sent."""
        return

    def answer_began(self, attempt: ObservedAttempt, seconds: float) -> None:
        """Handle the start of the answer, ``seconds`` after the attempt, almost always with its
        first content.

        No other attempt follows from now on. This is not called for an answer that does not start.
        """
        return

    def attempt_ended(self, attempt: ObservedAttempt, end: AttemptEnd) -> None:
        """Handle the end of an attempt. This is called once for each attempt that started."""
        return


METHODS = ("attempt_began", "answer_began", "attempt_ended")


class Notifier:
    """The observer of a client, called so that it can do no harm."""

    def __init__(self, observer: Observer) -> None:
        for name in METHODS:
            method = getattr(observer, name, None)
            if not callable(method) or inspect.iscoroutinefunction(method):
                raise TypeError(f"observer must be an Observer: its {name} must be a plain method")
        self.wants_content: bool = getattr(observer, "wants_content", False) is True
        self.wants_http: bool = getattr(observer, "wants_http", False) is True
        self._observer = observer
        self._failed: set[str] = set()

    def tell(self, name: str, *args: Any) -> None:
        """Call a method of the observer. What it raises is logged, the first time."""
        try:
            getattr(self._observer, name)(*args)
        except Exception as exc:  # noqa: BLE001 - the observer's, whatever it is
            if name not in self._failed:
                self._failed.add(name)
                words = "observer.%s failed; further failures of it are not logged"
                log.exception(words, name, exc_info=alone(exc))


class ObservedStream(TrackedStream):
    """A stream whose attempts an observer, or the log, is told of."""

    def observe(
        self,
        notifier: Notifier | None,
        prepared: Prepared,
        messages: Messages,
        params: Mapping[str, Any],
    ) -> None:
        """Tell of the attempts from now on; ``notifier`` is ``None`` if only the log is to be told."""
        self._notifier = notifier
        self._told_of: ObservedAttempt | None = None
        self._context = copy_context()
        self._telling = False
        self._described: dict[str, Any] = {
            "model": prepared.model,
            "url": self._task.redacted(prepared.url.partition("?")[0]),
            "params": {
                name: value
                for name, value in params.items()
                if name in PARAM_NAMES and value is not None
            },
        }
        if notifier is not None and notifier.wants_content:
            self._described["messages"] = messages_of(messages)
        if notifier is not None and notifier.wants_http:
            self._described["http"] = request_facts(
                prepared.headers, prepared.body, self._task.redacted
            )
        self._check_budget = self._task.before_attempt
        self._task.before_attempt = self._attempt_begins
        self._task.after_begin = self._answer_begins

    def _attempt_begins(self) -> None:
        self._check_budget()
        number = self.made_before + self._task.info.attempts + 1
        attempt = ObservedAttempt(number=number, meta=self._meta, **self._described)
        self._told_of = attempt
        if log.isEnabledFor(logging.DEBUG):
            log.debug("attempt %d at %s began", number, attempt.model, extra=_fields(attempt))
        self._tell("attempt_began", attempt)

    def _answer_begins(self) -> None:
        seconds = trio.current_time() - (self._task.info.started or 0.0)
        self._tell("answer_began", self._told_of, seconds)

    def _attempt_failed(self, error: MiniLLMError) -> None:
        super()._attempt_failed(error)
        self._attempt_over(self._records[-1], error)

    def _ended(self) -> None:
        booked = self._booked
        super()._ended()
        if self._booked and not booked:
            if self._pending is not None:
                self._attempt_over(self._pending.record, self._ingest.error)
            self._described.clear()  # the prompt may be long

    def _attempt_over(self, record: CostRecord, error: MiniLLMError | None) -> None:
        attempt, self._told_of = self._told_of, None
        if attempt is None:
            return
        info, retried = self._task.info, not self._booked
        ended = info.ended if info.ended is not None and not retried else trio.current_time()
        end = AttemptEnd(
            outcome=record.outcome,
            error=error.last_error if isinstance(error, RetriesExhausted) else error,
            retried=retried,
            record=record,
            seconds=ended - (info.started or 0.0),
            timings=self._timings(),
            response=None if retried else self.response,
            http=self._response_head(),
        )
        if log.isEnabledFor(logging.DEBUG) and not retried:
            words = "attempt %d at %s ended: %s after %.3f s%s"
            error_words = f", {described(end.error)}" if end.error is not None else ""
            args = record.attempt, attempt.model, end.outcome, end.seconds, error_words
            log.debug(words, *args, extra=_fields(attempt) | _end_fields(end))
        self._tell("attempt_ended", attempt, end)

    def _response_head(self) -> HTTPResponse | None:
        info = self._task.info
        if self._notifier is None or not self._notifier.wants_http or info.headers_at is None:
            return None
        return response_facts(info.status, info.headers, info.received, self._task.redacted)

    def _tell(self, name: str, attempt: ObservedAttempt | None, *more: Any) -> None:
        if self._notifier is None or attempt is None:  # it has ended already
            return
        if self._telling:  # the observer has ended the stream; a context is entered once
            self._notifier.tell(name, attempt, *more)
            return
        self._telling = True
        try:
            self._context.run(self._notifier.tell, name, attempt, *more)
        finally:
            self._telling = False


def observed_kind(kind: Callable[..., TrackedStream]) -> Callable[..., TrackedStream]:
    """Return the class of streams of a kind of which an observer is told; what is no class stays as it is:
    a stream over others, which are told of themselves.
    """
    return _observed(kind) if isinstance(kind, type) else kind


@cache  # of classes alone: what is none belongs to one call
def _observed(kind: type[TrackedStream]) -> type[TrackedStream]:
    if kind is TrackedStream:
        return ObservedStream
    return type(f"Observed{kind.__name__}", (ObservedStream, kind), {})


def observe(
    stream: TrackedStream,
    notifier: Notifier | None,
    prepared: Prepared,
    messages: Messages,
    params: Mapping[str, Any],
) -> None:
    """Tell of the attempts of a stream, if it is an `ObservedStream`."""
    if isinstance(stream, ObservedStream):
        stream.observe(notifier, prepared, messages, params)


def _fields(attempt: ObservedAttempt) -> dict[str, Any]:
    """Return the fields of a log record."""
    return {
        "llm_model": attempt.model.name,
        "llm_provider": attempt.model.provider.name,
        "llm_attempt": attempt.number,
        "llm_url": attempt.url,
    }


def _end_fields(end: AttemptEnd) -> dict[str, Any]:
    usage, record = end.record.usage, end.record
    return {
        "llm_outcome": str(end.outcome),
        "llm_error": None if end.error is None else error_type(end.error),
        "llm_seconds": end.seconds,
        "llm_first_chunk": end.timings.first_chunk,
        "llm_input_tokens": None if usage is None else usage.prompt_tokens,
        "llm_output_tokens": None if usage is None else usage.completion_tokens,
        "llm_id": record.id,
        "llm_request_id": record.request_id,
        "llm_key": record.key,
    }
