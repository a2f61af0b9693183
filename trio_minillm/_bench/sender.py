"""One request of a benchmark: it is sent, and its record made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from .._client import Client
from .._protocol.redaction import redact_beginnings
from .._toolkit.streams import TrackedStream
from .._types.chunks import has_content
from .._types.errors import MiniLLMError, RetriesExhausted
from .._types.messages import Message, user
from .._types.options import Retry
from .._types.response import Outcome
from .plan import Plan
from .prompts.prompt import Prompt
from .record import Failure, Record, clock_offset

MAX_MESSAGE = 1000
"""Characters of an error's message that a record keeps."""

MAX_ID = 200
"""Characters of any other word of the server's that a record keeps: a request's id, a finish reason, a code."""


class Sender:
    """Sends prompts to one model, and makes a record of each request, however it ends.

    ``secret`` holds the keys that must not show, a line each. ``moved`` is called with the number of
    contents, and with that of tokens, that have just come, for whoever watches.
    """

    def __init__(
        self,
        client: Client,
        model: Any,
        plan: Plan,
        *,
        secret: str = "",
        moved: Callable[[int, int], None] = lambda chunks, tokens: None,
    ) -> None:
        self._client = client
        self._model = model
        self._plan = plan
        self._secret = secret
        self._moved = moved
        self.offset = clock_offset()
        """Seconds to add to Trio's clock to get the times of records."""
        self.lag_at: Callable[[float], float] = lambda at: 0.0
        """Returns the seconds by which what was read at a time had been there before."""
        self.running = 0
        """Streams that are open."""

    def open(self, prompt: Prompt, phase: str, model: Any = None) -> TrackedStream:
        """Return the stream of a prompt, unopened. Raises ``ValueError`` and ``TypeError`` for parameters
        that the wire format does not have.
        """
        plan = self._plan
        given = prompt.messages
        messages: list[Message] = [user(given)] if isinstance(given, str) else [*given]
        if plan.system is not None and messages[0].role not in ("system", "developer"):
            messages.insert(0, plan.system)
        return self._client.stream(
            self._model if model is None else model,
            messages,
            timeouts=plan.timeouts,
            retry=Retry(attempts=plan.attempts),
            meta={"bench": phase},
            **{**plan.params, **prompt.params},
        )

    async def send(
        self, prompt: Prompt, record: Record, model: Any = None
    ) -> tuple[Record, TrackedStream, MiniLLMError | None]:
        """Send a prompt, read the answer to its end, and complete the record.

        ``model`` is another one than the sender's. Raises nothing that a request can meet.
        """
        stream = self.open(prompt, record.phase, model)
        error: MiniLLMError | None = None
        record.hedged = model is not None
        record.sent = record.called = trio.current_time() + self.offset
        self.running += 1
        try:
            async with stream:
                await self._read(stream, record)
        except MiniLLMError as exc:
            error = exc
        finally:
            self.running -= 1
            self._complete(record, stream, error)
        return record, stream, error

    async def _read(self, stream: TrackedStream, record: Record) -> None:
        offset, stamps, counts = self.offset, record.stamps, record.counts
        tokens = 0
        async for chunk in stream:
            made = 0
            if chunk.usage is not None and chunk.usage.completion_tokens is not None:
                made, tokens = chunk.usage.completion_tokens - tokens, chunk.usage.completion_tokens
            if not (chunk.delta or has_content(chunk)):
                if made:
                    self._moved(0, made)
                continue
            read = chunk.received_at + offset
            # Clocks that were set meanwhile can't make a content older than the one before, or the call.
            at = max(read - self.lag_at(read), stamps[-1] if stamps else record.sent)
            if not stamps:
                record.lag = read - at
            stamps.append(at)
            if chunk.usage is not None and len(counts) == len(stamps) - 1:
                counts.append(tokens)
            if record.first_text is None and chunk.delta:
                record.first_text = at
            if record.first_reasoning is None and chunk.reasoning:
                record.first_reasoning = at
            self._moved(1, made)

    def _complete(self, record: Record, stream: TrackedStream, error: MiniLLMError | None) -> None:
        response, timings = stream.response, stream.response.timings
        record.ended = trio.current_time() + self.offset
        record.attempts = timings.attempts
        if response.request_id is not None:
            record.request_id = redact_beginnings(response.request_id, self._secret)[:MAX_ID]
        if timings.headers is not None and timings.first_chunk is not None and record.stamps:
            began = record.stamps[0] + record.lag - timings.first_chunk
            record.headers = min(began + timings.headers, record.stamps[0])
            if timings.total is not None and response.outcome is Outcome.FINISHED:
                over = began + timings.total
                record.ended = max(record.stamps[-1], over - self.lag_at(over))
            if timings.sent is not None and timings.attempts == 1 and not record.hedged:
                # A request was out before its answer came, however late this program looked at the clock.
                out = min(began + timings.sent, record.stamps[0])
                record.sent = max(record.sent, out)
        record.outcome = None if response.outcome is None else response.outcome.value
        if len(record.counts) != len(record.stamps):
            record.counts = []
        if response.finish_reason is not None:
            record.reason = redact_beginnings(response.finish_reason, self._secret)[:MAX_ID]
        if error is not None:
            record.failure = failure_of(error, self._secret)
        if response.cost.amount is not None:
            record.cost = f"{response.cost.amount:f}"
        usage = response.usage
        if usage is not None and usage.final:
            record.prompt_tokens = usage.prompt_tokens
            record.cached_tokens = usage.cache_read_tokens
            record.output_tokens = usage.completion_tokens
            record.reasoning_tokens = usage.reasoning_tokens


def failure_of(error: Exception, secret: str) -> Failure:
    """Return what is kept of an error: that of the last attempt, without keys."""
    last = error.last_error if isinstance(error, RetriesExhausted) else error

    def text(name: str) -> str | None:
        found = getattr(last, name, None)
        return None if found is None else redact_beginnings(str(found), secret)[:MAX_ID]

    return Failure(
        type=type(last).__name__,
        kind=text("kind"),
        status=getattr(last, "status", None),
        code=text("code"),
        clock=text("clock"),
        message=redact_beginnings(str(last), secret)[:MAX_MESSAGE],
    )
