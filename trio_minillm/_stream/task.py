"""The sending side of a stream: attempts, retries, and the task that makes them.

One task a stream runs `StreamTask.run`. It sends what one read of the socket brought as one
batch, and as the last item the error that ended the stream, if one did. `BodyReader` reads the
answer, and lets the consumer read it directly once that waits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import msgspec
import trio

from .._http.credentials import CredentialedExchange
from .._http.exchange import Exchange
from .._protocol.decoder import ChunkDecoder
from .._protocol.redaction import redact, redact_text, secrets_added, secrets_of
from .._protocol.request import Prepared
from .._protocol.state import StreamState
from .._types.errors import (
    ErrorInfo,
    LimitExceeded,
    MiniLLMError,
    ProtocolError,
    ProviderError,
    RefusedError,
    RetriesExhausted,
)
from .._types.options import retry_after, retryable
from .answer import Answer, AttemptInfo
from .body import DIRECT, BodyReader
from .clocks import INFINITY, Clocks
from .handoff import FoldingSink, Handoff, Item, Sink
from .resuming import Resuming

LEAVE_SECONDS = 1.0
"""Seconds that leaving a finished stream may wait for the rest of its body to be drained (which
has its own, shorter bound)."""


def _ignore(*args: object) -> None: ...


class StreamTask:
    """The task that sends one request, again if need be, and reads the answer.

    It is the `Source` of a stream's chunks: the consumer's side receives from it, stops it and
    waits for its end. Where nobody watches the chunks, it runs in the caller's task (`run_here`).

    Its 26 attributes are what that side sees, the request, and how the task is told to stop.
    """

    __slots__ = (
        "_asked_url",
        "_connect",
        "_counted",
        "_crash",
        "_done",
        "_handoff",
        "_own_nursery",
        "_prepared",
        "_provider",
        "_resuming",
        "_scope",
        "_secrets",
        "_sink",
        "_stopped",
        "_total_at",
        "_waited",
        "after_begin",
        "asked_at",
        "before_attempt",
        "before_retry",
        "body",
        "info",
        "is_done",
        "nursery",
        "started",
        "tools",
    )

    def __init__(self, connect: Callable[[], Exchange], prepared: Prepared) -> None:
        self.info: AttemptInfo = AttemptInfo()
        self.asked_at: float | None = None
        """The time at which the caller asked, on Trio's clock, if that was before the first attempt: the
        clock ``total`` counts from then."""
        self.nursery: trio.Nursery | None = None
        """The nursery in which the task runs, if others close it; by default, that is one of its own."""
        self.started: bool = False
        """True once the stream's block was entered, or its answer is read in a caller's task."""
        self._handoff: Handoff | None = None  # made with the task; none in a caller's
        # An exception, a KeyboardInterrupt say, could come between an item and the count of items.
        self._counted = False
        self._sink: Sink | None = None
        self._waited = False  # other tasks have had a turn
        self.body: BodyReader | None = None
        self.is_done: bool = False
        """True once all attempts were made; nothing changes any more."""
        self.before_attempt: Callable[[], None] = _ignore
        """Called before each attempt, which is then made; what it raises (`BudgetExceeded`) is raised
        instead."""
        self.after_begin: Callable[[], None] | None = None
        """Called when an answer has begun, so that no other attempt can follow."""
        self.before_retry: Callable[[MiniLLMError], None] = _ignore
        """Called with the error of each attempt that another will follow; ``info`` is of the
        failed one."""
        self.tools: Sequence[Any] = prepared.tools
        """The tools that the request has given the model, as they were given."""
        self._connect = connect
        self._prepared = prepared  # until the answer begins
        self._total_at = INFINITY  # when the clock ``total`` runs out
        self._asked_url = prepared.url
        self._provider = prepared.model.provider
        self._own_nursery: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._scope: trio.CancelScope | None = None  # of what it waits for now
        self._stopped = False
        self._done: trio.Event | None = None  # made for the first that waits for the end
        self._crash: Exception | None = None
        # Servers must not make us repeat them.
        self._secrets = secrets_of(prepared.model.api_key, prepared.model.headers.values())
        if prepared.credentials is not None:
            self._connect = partial(
                CredentialedExchange, connect, prepared.credentials, self._keep_added
            )
        self._resuming: Resuming | None = None
        if prepared.continuation is not None:
            self._resuming = Resuming(connect, prepared, self._keep_added)

    # -- in the task -------------------------------------------------------------------------

    async def run_here(self, fold: Callable[[Item], None]) -> None:
        """Make the attempts in the caller's task, in place of `start`; ``fold`` takes each item.

        A checkpoint. Raises nothing but a cancellation from outside.
        """
        self.started, self._sink = True, FoldingSink(fold)
        await self.run()
        if not self._waited:  # no answer is lost to a cancellation here
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def run(self) -> None:
        """Make the attempts. The error that ended the answer is handed on, and a bug of ours is kept as
        ``crash``.

        Raises a cancellation from outside in a caller's task, and never in one of its own: there it also
        cancels the block, which raises it, and raising it twice would hide what the block itself raises.
        """
        errors: tuple[MiniLLMError, ...] = ()
        try:
            try:
                if self._handoff is not None:  # else its caller has just looked
                    await trio.lowlevel.checkpoint_if_cancelled()  # what is over sends nothing
                while not self._stopped:
                    self._begin_attempt(errors)
                    try:
                        await self._new_attempt()
                        break
                    except MiniLLMError as exc:
                        errors = (*errors, exc)
                        delay = self._delay_after(errors)
                    if delay is not None:
                        with self._stoppable(trio.CancelScope()):
                            await trio.sleep(delay)
            except MiniLLMError as exc:
                await self._failed(exc)
            self._counted = True
        except Exception as exc:  # noqa: BLE001 - kept for the block, which raises it
            self._crash = exc
        except trio.Cancelled:
            if self._handoff is None:
                raise
        finally:
            errors = ()  # their tracebacks hold this frame
            self._done_with()

    def _done_with(self) -> None:
        """Say that all attempts were made."""
        if self.info.ended is None:
            self.info.ended = trio.current_time()
        self.is_done = True
        self._resuming = None  # which has a method of this
        if self._sink is not None:
            self._sink.close()  # last: whoever sees it closed sees why
        self._sink = None
        if self._done is not None:
            self._done.set()

    def _stoppable(self, scope: trio.CancelScope) -> trio.CancelScope:
        """Let `stop` cancel this scope, in place of the one before."""
        self._scope = scope
        if self._stopped:
            scope.cancel()
        return scope

    async def _failed(self, error: MiniLLMError) -> None:
        assert self._sink is not None
        with self._stoppable(trio.CancelScope()):
            if self.info.held:
                held, self.info.held = self.info.held, ()
                await self._sink.put(list(held))
            await self._sink.put(error)

    def _begin_attempt(self, errors: Sequence[MiniLLMError]) -> None:
        """Take note of an attempt that follows those with these errors. Raises what `before_attempt` does."""
        try:
            self.before_attempt()
        except MiniLLMError as exc:
            raise exc from (errors[-1] if errors else None)
        info = self.info
        now = info.started = trio.current_time()
        total = self._prepared.timeouts.total
        if not info.attempts and total is not None and total is not msgspec.UNSET:
            self._total_at = (now if self.asked_at is None else self.asked_at) + total
        info.attempts += 1
        info.sent_at = info.headers_at = info.request_id = info.generation_id = None
        info.received = 0

    def _new_attempt(self) -> Awaitable[None]:
        """Make an attempt. Raises its error."""
        exchange, timeouts = self._connect(), self._prepared.timeouts
        clocks = Clocks(timeouts, self._total_at, self.info.started, exchange.tells)
        if self._resuming is None:
            return self._attempt(exchange, clocks)
        return self._attempt_in_background(exchange, clocks, self._resuming)

    def _delay_after(self, errors: Sequence[MiniLLMError]) -> float | None:
        """Return the seconds to wait for another attempt; ``None`` if the caller has left.

        Raises the error of the last, or that of all, if no other follows.
        """
        error = errors[-1]
        begun = self.body is not None and self.body.answer.begun
        if begun or not retryable(error):
            raise error
        delay = self._delay(error, len(errors))
        if delay is None:
            if len(errors) > 1:
                raise RetriesExhausted(tuple(errors)) from error
            raise error
        if self._stopped:  # it was refused as its caller left, who has booked it
            return None
        self.before_retry(error)
        self.info.held, self.body = (), None  # of an attempt that ended nothing
        return delay

    def _delay(self, error: MiniLLMError, attempt: int) -> float | None:
        """Return the seconds to wait for the next attempt, put off until the limit is renewed that the
        server calls used up; ``None`` to give up.

        Not put off if that is later than any wait that it may ask for: it is a state, and no advice.
        """
        delay = self._prepared.retry.delay(
            error,
            attempt=attempt,
            remaining=self._total_at - trio.current_time(),
            random=random.random(),
        )
        if delay is None:
            return None
        from .._types.renewal import until_renewed  # only failures need it

        renewed = until_renewed(error, now=time.time())
        if renewed is None or renewed > self._prepared.retry.max_retry_after:
            return delay
        later = renewed + delay
        return later if later < self._total_at - trio.current_time() else delay

    async def _attempt_in_background(
        self, exchange: Exchange, clocks: Clocks, resuming: Resuming
    ) -> None:
        """Make an attempt whose answer is taken up again where it was cut, and called off if the caller
        leaves it.
        """
        again, failed = None, None
        self.info.resumes = 0
        resuming.begin()
        try:
            while True:
                try:
                    await self._attempt(exchange, clocks, again)
                    return
                except MiniLLMError as exc:
                    delay = resuming.delay(exc, clocks.stop())
                    failed = exc
                if delay is None:
                    raise resuming.failure(failed)
                failed = None
                with self._stoppable(trio.CancelScope()):
                    await trio.sleep(delay)
                if self._stopped:
                    return
                again = resuming
                exchange, clocks = resuming.connect(clocks)
        except (trio.Cancelled, BaseExceptionGroup):  # of several tasks that were cancelled
            await resuming.call_off()
            raise
        finally:
            if self._stopped:
                await resuming.call_off()
            resuming.end()
            failed = None  # its traceback has this frame

    async def _attempt(
        self, exchange: Exchange, clocks: Clocks, resuming: Resuming | None = None
    ) -> None:
        """Send the request and read the answer; or, with ``resuming``, go on with one that was cut.

        Its 46 lines are one coroutine, since each more would be held for as long as the stream waits.
        """
        body: BodyReader | None = None
        answered = False
        try:
            while not self._stopped:
                scope = self._scope = clocks.new_scope()
                with scope:
                    if not answered:
                        if resuming is None:
                            await exchange.start(  # this frame keeps no name of the prompt
                                self._prepared.url,
                                self._prepared.headers,
                                self._prepared.body,
                                on_progress=clocks.transport_event,
                            )
                            self._answered(exchange, clocks)
                        else:
                            await resuming.ask(exchange, clocks.transport_event)
                            self._answered_again(exchange, clocks)
                        answered = True
                    if body is None:  # again, if a clock ran out as the head came
                        if not 200 <= exchange.status < 300:
                            raise await self._refused(exchange, clocks.stop(), resuming)
                        body = self.body = self._body_reader(exchange, clocks, resuming)
                    try:
                        while not await body.read() and body.lent:
                            # Here, and not in one more frame for as long as it is lent.
                            await body.wait()
                    except (ProtocolError, ProviderError) as exc:
                        raise self._addressed(exc, body.answer) from exc.__cause__
                    if body.answer.over:
                        if not exchange.ended:
                            clocks.stop()
                            # Else a caller could lose a whole answer.
                            scope.shield = self._handoff is None
                            await exchange.drain()
                        return
                if scope.cancelled_caught and not self._stopped:
                    if not answered:
                        raise clocks.error(0, 0)
                    if body is not None:
                        body.check_clocks()
        finally:
            if body is not None:
                body.close()
            await exchange.close()

    def _answered(self, exchange: Exchange, clocks: Clocks) -> None:
        """Take note of the head of the response."""
        info = self.info
        self._waited = self._waited or exchange.waits
        clocks.answered(sending=exchange.sending, resumable=exchange.resumable)
        info.headers_at = clocks.clock.current_time()
        info.sent_at = clocks.sent_at  # none where an answer comes before all of the request is out
        info.status = exchange.status
        headers = info.headers = exchange.headers
        ident = headers.get("x-request-id") or headers.get("request-id")
        info.request_id = self.redacted(ident) if ident else None

    def _answered_again(self, exchange: Exchange, clocks: Clocks) -> None:
        """Take note of the head of a response that goes on with the answer, which is timed, and known to
        the server, by the request that it was first asked for with.
        """
        self._waited = self._waited or exchange.waits
        clocks.answered(sending=exchange.sending, resumable=exchange.resumable)
        self.info.headers = exchange.headers

    def _addressed(self, error: ProtocolError | ProviderError, answer: Answer) -> MiniLLMError:
        """Return the error, with the address that was asked if it may come from the wrong one."""
        if isinstance(error, ProtocolError):
            if error.event is not None or isinstance(error, LimitExceeded):
                return error
            return ProtocolError(f"{error.reason} (asked {self._url})")  # it is no stream at all
        if error.kind not in ("invalid", "server") or answer.state.understood:
            return error
        words = f"{error.info.message} (asked {self._url})"  # perhaps another program answers
        again = ProviderError(msgspec.structs.replace(error.info, message=words))
        again.usage = error.usage
        return again

    def _body_reader(
        self, exchange: Exchange, clocks: Clocks, again: Resuming | None
    ) -> BodyReader:
        assert self._sink is not None
        if again is not None:
            self.info.resumes += 1
            answer = again.go_on(clocks)
            return BodyReader(exchange, answer, self.info, self._sink, self._release_request)
        prepared, resuming = self._prepared, self._resuming
        provider = self._provider
        self.info.generation_id = provider.generation_id(exchange.headers)
        make = ChunkDecoder if resuming is None else resuming.new_decoder
        # By position here: a class that is given names takes up to twice as long to make an object.
        decoder = make(
            provider,
            prepared.choices,
            prepared.bounds.event,
            prepared.lenient,
            prepared.raw,
            self._secrets,
        )
        state = StreamState(prepared.expect_usage, prepared.choices)
        answer = Answer(decoder, state, clocks, self.info, prepared.bounds.response)
        if resuming is not None:
            resuming.answer = answer
            answer.resumable = True
        return BodyReader(exchange, answer, self.info, self._sink, self._release_request)

    def _release_request(self) -> None:
        """Drop the request: no other attempt follows, and a prompt may be long."""
        if self.after_begin is not None:
            self.after_begin()
        del self._prepared, self._connect  # which has it, too, where a key is asked for
        self.before_retry = _ignore

    def _keep_added(self, headers: Mapping[str, str]) -> None:
        """Add the secrets of a key that was asked for, or of a signature."""
        self.keep_secrets(secrets_added(headers))

    def keep_secrets(self, secrets: Iterable[bytes]) -> None:
        """Add secrets that nothing of the server's may show."""
        self._secrets += (s for s in secrets if s not in self._secrets)

    async def _refused(
        self, exchange: Exchange, seconds: float, again: Resuming | None
    ) -> RefusedError:
        """Return the error of a response that refuses the request, whose body may take so long."""
        body = await exchange.short_body(seconds)
        headers = exchange.headers
        info = self._provider.parse_refusal(exchange.status, headers, redact(body, self._secrets))
        word = headers.get("x-should-retry")
        if word in ("true", "false"):
            info = msgspec.structs.replace(info, should_retry=word == "true")
        if again is None:  # else the address, and the model, were right before
            page = body.lstrip()[:1] == b"<"
            to = self.redacted(headers.get("location", ""))
            info = _naming(info, self._url, page=page, to=to)
        ident = headers.get("x-request-id") or headers.get("request-id")
        return RefusedError(
            info,
            retry_after=retry_after(headers, now=time.time()),
            request_id=ident and self.redacted(ident),
            headers={k: self.redacted(v) for k, v in headers.items()},
            url=self._url,
        )

    @property
    def _url(self) -> str:
        """The address that is asked, as errors name it: without the query, which may be private."""
        return self.redacted(self._asked_url.partition("?")[0])

    # -- for the consumer's side: `Source` ---------------------------------------------------

    async def start(self) -> None:
        """Start the task, which `join` waits for."""
        # `Background` without an object and a frame: thousands of streams have one each.
        self.started, nursery = True, self.nursery
        self._handoff = self._sink = Handoff()
        if nursery is None:
            self._own_nursery = trio.open_nursery()
            nursery = await self._own_nursery.__aenter__()
        nursery.start_soon(self.run, name="trio_minillm stream")

    async def join(self) -> None:
        """Close the nursery. The task must have been stopped before; it raises nothing."""
        own, self._own_nursery = self._own_nursery, None
        if own is not None:
            await own.__aexit__(None, None, None)

    @property
    def received(self) -> int:
        """The number of items that were taken."""
        return 0 if self._handoff is None else self._handoff.received

    @property
    def ready(self) -> bool:
        """True if `receive_nowait` has an item, or says that there will be none."""
        handoff = self._handoff
        return handoff is not None and (handoff.received < handoff.sent or handoff.closed)

    @property
    def more(self) -> bool:
        """True if an item is in the channel."""
        handoff = self._handoff
        return handoff is not None and handoff.received < handoff.sent

    def wait(self) -> Awaitable[None]:
        """Wait for the next item, or for the end. A checkpoint."""
        assert self._handoff is not None
        return self._handoff.wait()

    def receive_nowait(self) -> Item:
        """Take the next item. Raises what a memory channel does."""
        handoff = self._handoff
        if handoff is None:
            raise trio.ClosedResourceError if self.is_done else trio.WouldBlock
        item = handoff.take_nowait()
        if self.body is not None and self.body.mode is DIRECT:
            handoff.rest()
        return item

    def unexplained_end(self) -> MiniLLMError | None:
        """Return None: the task sends why the answer ended, unless it was cancelled or crashed."""
        return None

    @property
    def crash(self) -> Exception | None:
        """The bug that ended the task, or is about to."""
        if self._crash is None and self.body is not None:
            return self.body.crash
        return self._crash

    def stop(self) -> None:
        """Cancel the task; `close` waits for its end."""
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel()

    async def stopped(self) -> None:
        """Stop, and wait until the connection is closed."""
        self.stop()
        await self._wait_done()

    async def _wait_done(self) -> None:
        if not self.is_done:
            if self._done is None:
                self._done = trio.Event()
            await self._done.wait()

    async def end(self, *, at_once: bool) -> None:
        """End the task with its block: at once, or after the drain of a finished answer.

        Takes at most `LEAVE_SECONDS` and the bounded close of the connection. Shielded.
        """
        if self.started and not self.is_done:
            if at_once:
                self.stop()
            with trio.CancelScope(shield=True):
                with trio.move_on_after(LEAVE_SECONDS):
                    await self._wait_done()
                await self.stopped()

    def close(self) -> None:
        """Leave the channel, and drop the callbacks: they and their owner would keep each other alive."""
        handoff = self._handoff
        if handoff is not None:
            handoff.leave(empty=self._counted and handoff.received == handoff.sent)
        self.before_attempt = self.before_retry = _ignore
        self.after_begin = None

    def redacted(self, text: str) -> str:
        """Return a server's words without the key."""
        return redact_text(text, self._secrets)


def _naming(info: ErrorInfo, url: str, *, page: bool, to: str) -> ErrorInfo:
    """Return a report with the address that was asked, where that may be what is wrong.

    ``page`` says that the answer is HTML, which no endpoint for models sends: a proxy's, or another
    program's. ``to`` is the address that a redirection names.
    """
    status = info.status or 0
    if 300 <= status < 400 and status != 304:  # that one sends nobody anywhere
        place = f", sent on to {to.partition('?')[0][:200]}" if to else ""
        words = f"the server redirects; not followed (asked {url}{place})"
    elif status in (404, 405):
        words = f"{info.message} (asked {url}: the path or the model may be wrong)"
    elif page:
        words = f"{info.message} (a page, not an answer; asked {url})"
    else:
        return info
    return msgspec.structs.replace(info, message=words)
