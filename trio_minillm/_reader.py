"""The sending side of a stream: attempts, clocks, and batches into the memory channel.

One task a stream runs `Reader.run`. It sends what one read of the socket brought as one
batch, and as the last item the error that ended the stream, if one did. It raises nothing
but ``Cancelled``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
import trio

from ._chunks import StreamChunk, has_content
from ._decode import ChunkDecoder, hide
from ._ending import Ending, State
from ._errors import (
    ConnectTimeout,
    EndedEarly,
    LimitExceeded,
    MiniLLMError,
    RefusedError,
    RetriesExhausted,
    StreamError,
    StreamTimeout,
)
from ._http import Exchange
from ._options import Retry, Timeouts, retry_after, retryable
from .providers import Model, Provider

Item: TypeAlias = "list[StreamChunk] | StreamChunk | MiniLLMError"
"""What goes through the channel: a batch (one read's chunks), a chunk, or the last error."""

INFINITY = float("inf")

MAX_RESPONSE = 256 * 1024 * 1024
"""Decompressed bytes in one response: 256 MiB, about fifty times the longest answer that any
model gives today with log probabilities."""

NO_END = "the body ended without a finish reason or an end marker"

MAX_HELD = 64
"""Openings without content that are held back for another attempt; after that many, they are
handed out, and there is no other attempt. Real streams have one or two."""

MIN_SECRET = 6
"""Shorter header values are words, not secrets, in characters."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request, ready to be sent any number of times, and how to read its answer."""

    model: Model
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeouts: Timeouts
    retry: Retry
    expect_usage: bool
    choices: int
    lenient: bool
    raw: bool

    def __repr__(self) -> str:
        return f"<Prepared {self.model!r}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class Facts(msgspec.Struct, kw_only=True):
    """What the reader knows beside the chunks; the stream puts it into the response."""

    started: float | None = None
    """When the newest attempt began, on Trio's clock."""
    headers_at: float | None = None
    ended: float | None = None
    attempts: int = 0
    received: int = 0
    skipped: int = 0
    request_id: str | None = None
    generation_id: str | None = None
    held: list[StreamChunk] = msgspec.field(default_factory=list)
    """Openings without content, held back: until content comes, another attempt may."""


class Clocks:
    """The clocks of one attempt as one cancel scope, whose deadline is the nearest of theirs.

    Before the first content only ``connect`` and then ``first_chunk`` run (``idle`` and
    ``byte_idle`` where that is off), since a model that thinks is silent; after it ``idle``,
    ``byte_idle`` and, once only usage is missing, ``usage_grace``. ``total`` always runs.
    """

    def __init__(self, timeouts: Timeouts, total_at: float) -> None:
        self._timeouts = timeouts
        self._total_at = total_at
        self._now = trio.current_time()
        self._connecting = True
        self._traced = False
        self._content_at: float | None = None
        self._bytes_at = self._now
        self._grace_from: float | None = None
        idle = INFINITY if timeouts.idle is None else timeouts.idle
        bytes_idle = INFINITY if timeouts.byte_idle is None else timeouts.byte_idle
        self._quiet = min(idle, bytes_idle)
        self._quiet_name = "idle" if idle <= bytes_idle else "byte_idle"
        self.name = ""
        self.limit = 0.0
        self.scope = trio.move_on_after(INFINITY)
        self._arm()

    def transport_event(self, event: str) -> None:
        """The transport says how far it is; one that says nothing gets both clocks' time."""
        if not self._connecting:
            return
        self._traced = True
        if event.endswith("send_request_body.complete"):
            self.sent()
        else:
            self._arm()

    def sent(self) -> None:
        """The request is out: from here on the server's silence counts."""
        if self._connecting:
            self._connecting = False
            self._now = self._bytes_at = trio.current_time()
            self._arm()

    def heard(self, now: float, content: bool, state: State, says: bool) -> None:
        """Bytes came, with or without content; ``says``: behind the end, with some of the answer."""
        self._bytes_at = now
        if content:
            self._content_at = now
            if state is State.OPEN:  # the common case, for which nothing needs to be weighed
                self._arm_for(now + self._quiet, self._quiet_name, self._quiet)
                return
        if state is State.ENDING and (self._grace_from is None or says):
            self._grace_from = now
        self._arm()

    def pause(self) -> float:
        """The consumer is slow: no clock runs. Returns what `resume` wants."""
        self.scope.deadline = INFINITY
        return trio.current_time()

    def resume(self, paused_at: float) -> None:
        """The consumer has caught up: its time is not counted."""
        gone = trio.current_time() - paused_at
        self._now += gone
        self._bytes_at += gone
        self._total_at += gone
        if self._content_at is not None:
            self._content_at += gone
        if self._grace_from is not None:
            self._grace_from += gone
        self._arm()

    def stop(self) -> float:
        """What follows has bounds of its own. Returns what the total clock leaves, in seconds."""
        self.scope.deadline = INFINITY
        return max(0.0, self._total_at - trio.current_time())

    def _running(self) -> list[tuple[float, str, float | None]]:
        """The clocks that run now: since when, name, limit."""
        clocks = self._timeouts
        if self._connecting:
            if self._traced:
                return [(self._now, "connect", clocks.connect)]
            if clocks.connect is None or clocks.first_chunk is None:
                return []
            return [(self._now + clocks.connect, "first_chunk", clocks.first_chunk)]
        if self._content_at is None and clocks.first_chunk is not None:
            return [(self._now, "first_chunk", clocks.first_chunk)]
        since = self._now if self._content_at is None else self._content_at
        running: list[tuple[float, str, float | None]] = [
            (since, "idle", clocks.idle),
            (self._bytes_at, "byte_idle", clocks.byte_idle),
        ]
        if self._grace_from is not None:
            running.append((self._grace_from, "usage_grace", clocks.usage_grace))
        return running

    def _arm(self) -> None:
        nearest, name, limit = INFINITY, "", 0.0
        for since, running, seconds in self._running():
            if seconds is not None and since + seconds < nearest:
                nearest, name, limit = since + seconds, running, seconds
        self._arm_for(nearest, name, limit)

    def _arm_for(self, deadline: float, name: str, limit: float) -> None:
        """Set the nearest deadline, unless the total clock's is nearer."""
        if deadline > self._total_at:
            total = self._timeouts.total
            deadline, name = self._total_at, "total"
            limit = float(total) if isinstance(total, int | float) else 0.0
        self.name, self.limit = name, limit
        if deadline != self.scope.deadline:
            self.scope.deadline = deadline

    def error(self, chunks: int, received: int) -> MiniLLMError:
        """The error of the clock that ran out."""
        if self.name == "connect":
            return ConnectTimeout(self.limit)
        return StreamTimeout(self.name, self.limit, chunks=chunks, received=received)


class Reader:
    """Sends one prepared request, again if need be, and feeds the channel with the answer."""

    def __init__(
        self,
        connect: Callable[[], Exchange],
        prepared: Prepared,
        send: trio.MemorySendChannel[Item],
    ) -> None:
        self.facts: Facts = Facts()
        self.done: trio.Event = trio.Event()
        self.crash: Exception | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self._connect = connect
        self._prepared = prepared
        self._provider: Provider = prepared.model.provider
        self._send = send
        self._delivered = False
        self._content = 0
        # What servers must not make us repeat: the key, and header values that may be one.
        given = (prepared.model.api_key, *prepared.model.headers.values())
        self._secrets = [v.encode() for v in given if v and len(v) >= MIN_SECRET]

    async def run(self) -> None:
        """The task of a stream. Never raises: a bug of ours is kept in ``crash``, and a
        cancellation from outside is the block's to raise, which is cancelled with it. (Raised
        here as well, it would take the place of what the block itself raises.)
        """
        try:
            with self.scope:
                await self._run()
        except trio.Cancelled:
            pass
        except Exception as exc:  # noqa: BLE001 - kept for the block, which raises it
            self.crash = exc
        finally:
            if self.facts.ended is None:
                self.facts.ended = trio.current_time()
            self._send.close()  # last: whoever sees it closed sees why
            self.done.set()

    async def _run(self) -> None:
        try:
            await self._attempts()
        except MiniLLMError as exc:
            if self.facts.held:
                await self._send.send(self.facts.held)
                self.facts.held = []
            await self._send.send(exc)

    async def _attempts(self) -> None:
        prepared, errors = self._prepared, list[MiniLLMError]()
        total = prepared.timeouts.total
        total_at = trio.current_time() + (total if isinstance(total, int | float) else INFINITY)
        while True:
            self.facts.attempts += 1
            try:
                await self._attempt(total_at)
                return
            except MiniLLMError as exc:
                errors.append(exc)
                if self._delivered or not retryable(exc):
                    raise
                delay = prepared.retry.delay(
                    exc,
                    attempt=len(errors),
                    remaining=total_at - trio.current_time(),
                    random=random.random(),
                )
                if delay is None:
                    if len(errors) > 1:
                        raise RetriesExhausted(tuple(errors)) from exc
                    raise
            self.facts.held = []
            await trio.sleep(delay)

    async def _attempt(self, total_at: float) -> None:
        facts, prepared = self.facts, self._prepared
        facts.started = trio.current_time()
        facts.headers_at = facts.request_id = facts.generation_id = None
        facts.received = 0
        clocks = Clocks(prepared.timeouts, total_at)
        exchange = self._connect()
        try:
            with clocks.scope:
                await exchange.start(
                    prepared.url,
                    prepared.headers,
                    prepared.body,
                    on_progress=clocks.transport_event,
                )
                clocks.sent()
                facts.headers_at = trio.current_time()
                await self._answer(exchange, clocks)
            if clocks.scope.cancelled_caught:
                raise clocks.error(self._content, facts.received)
        finally:
            await exchange.close()

    async def _answer(self, exchange: Exchange, clocks: Clocks) -> None:
        headers = exchange.headers
        ident = headers.get("x-request-id") or headers.get("request-id")
        self.facts.request_id = self._hidden(ident) if ident else None
        if not 200 <= exchange.status < 300:
            body = await exchange.error_body(clocks.stop())
            raise self._refused(exchange.status, headers, body)
        self.facts.generation_id = self._provider.generation_id(headers)
        await self._read(exchange, clocks)
        self.facts.ended = trio.current_time()
        clocks.stop()
        await exchange.drain()

    async def _read(self, exchange: Exchange, clocks: Clocks) -> None:
        """Read until the answer is over; raise what ended it otherwise."""
        prepared, facts = self._prepared, self.facts
        decoder = ChunkDecoder(
            self._provider, lenient=prepared.lenient, raw=prepared.raw, secrets=self._secrets
        )
        ending = Ending(
            expect_usage=prepared.expect_usage,
            choices=prepared.choices,
            awaits_end=self._provider.ends_itself,
        )
        end: MiniLLMError | None = None
        while end is None:
            try:
                data = await exchange.receive()
            except StreamError as exc:
                data, end = b"", exc
            now = trio.current_time()
            if data:
                facts.received += len(data)
                chunks = decoder.feed(data, now)
            else:
                chunks = decoder.finish(now)
                end = end or decoder.error or EndedEarly(NO_END)
            facts.skipped = decoder.skipped
            content = silent = False
            for number, chunk in enumerate(chunks):
                ending.chunk(chunk)
                if chunk.progress:
                    content = True
                    self._content += chunk.finish_reason is None and chunk.usage is None
                else:
                    silent = True
                if ending.over:
                    chunks = chunks[: number + 1]
                    break
            says = ending.state is State.ENDING and any(map(has_content, chunks))
            clocks.heard(now, content, ending.state, says)
            if silent and self._delivered:
                chunks = list(filter(_worth_sending, chunks))
            if chunks:
                await self._deliver(chunks, content or ending.over, clocks)
            if ending.over:
                return
            if facts.received > MAX_RESPONSE:
                end = LimitExceeded("bytes in one response", MAX_RESPONSE)
            end = end or decoder.error
        raise end

    async def _deliver(self, chunks: list[StreamChunk], content: bool, clocks: Clocks) -> None:
        facts = self.facts
        if not (self._delivered or content or len(facts.held) >= MAX_HELD):
            facts.held += chunks
            return
        if facts.held:
            chunks = facts.held + chunks
            facts.held = []
        self._delivered = True
        try:
            self._send.send_nowait(chunks)
        except trio.WouldBlock:
            paused_at = clocks.pause()
            await self._send.send(chunks)
            clocks.resume(paused_at)

    def _hidden(self, text: str) -> str:
        return hide(text.encode("utf-8", "replace"), self._secrets).decode()

    def _refused(self, status: int, headers: Mapping[str, str], body: bytes) -> RefusedError:
        info = self._provider.parse_error(status, hide(body, self._secrets))
        word = headers.get("x-should-retry")
        if word in ("true", "false"):
            info = msgspec.structs.replace(info, should_retry=word == "true")
        if 300 <= status < 400:
            info = msgspec.structs.replace(info, message="the server redirects; not followed")
        return RefusedError(
            info,
            retry_after=retry_after(headers, now=time.time()),
            request_id=self.facts.request_id,
            headers={k: self._hidden(v) for k, v in headers.items()},
        )


def _worth_sending(chunk: StreamChunk) -> bool:
    """Whether a chunk in the middle says anything: the buffer counts batches, and a server could
    fill them with nothings.
    """
    return bool(
        chunk.progress or chunk.usage is not None or chunk.end or chunk.metadata or chunk.raw
    )
