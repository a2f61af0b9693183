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
from ._clocks import INFINITY, Clocks
from ._decode import ChunkDecoder
from ._ending import Ending, State
from ._errors import (
    EndedEarly,
    LimitExceeded,
    MiniLLMError,
    RefusedError,
    RetriesExhausted,
    StreamError,
)
from ._http import Exchange
from ._options import Retry, Timeouts, retry_after, retryable
from ._plain import PlainBatch
from ._secrets import hide
from .providers import Model, Provider

Item: TypeAlias = "list[StreamChunk] | StreamChunk | MiniLLMError"
"""What goes through the channel: a batch (one read's chunks), a chunk, or the last error."""


MAX_RESPONSE = 64 * 1024 * 1024
"""Decompressed bytes in one response: 64 MiB. 128,000 tokens, the longest answer of today's models,
take 45 in events of a token each; joining 100 of one text would hold other tasks up for 50 ms."""

NO_END = "the body ended without a finish reason or an end marker"

MAX_HELD = 64
"""Openings without content that are held back for another attempt; after that many, they are
handed out, and there is no other attempt. Real streams have one or two."""

MANY_LINES = 4096
"""Lines in one read, after which it is decoded in slices, and other tasks get their turn in between:
64 KiB of the smallest events would hold them up for a tenth of a second. Real events are longer."""
SLICE = 4 * 1024
"""Bytes of such a slice: so few that it is not sliced again."""

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
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The newest response's, as they came."""
    held: list[StreamChunk] = msgspec.field(default_factory=list)
    """Openings without content, held back: until content comes, another attempt may."""


class Arrivals:
    """How many items went into the channel, and who waits for the next: one task at most.

    A parking lot for a single task, at half its price; every chunk that is waited for pays it.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self.over: bool = False
        """Whether the channel was closed: there will be no more."""
        self._waiting: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Until something changes. A checkpoint."""
        self._waiting = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    def one_more(self) -> None:
        """An item was put into the channel."""
        self.count += 1
        self._wake()

    def end(self) -> None:
        """The channel was closed."""
        self.over = True
        self._wake()

    def _wake(self) -> None:
        task, self._waiting = self._waiting, None
        if task is not None:
            trio.lowlevel.reschedule(task)


def _nothing(*args: object) -> None: ...


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
        self.arrived: Arrivals = Arrivals()
        self.crash: Exception | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self.before_attempt: Callable[[], None] = _nothing
        """Called before each attempt; what it raises (`BudgetExceeded`) is raised instead."""
        self.before_retry: Callable[[MiniLLMError], None] = _nothing
        """Told of an attempt that failed and will be followed by another; `facts` are its own."""
        self._connect = connect
        self._prepared = prepared
        self._provider: Provider = prepared.model.provider
        self._send = send
        self._delivered = False
        self._content = 0
        self._end: MiniLLMError | None = None  # of the attempt
        self._slices: list[bytes] = []  # of a read, last one first
        self._unsent: list[StreamChunk] | None = None  # there was no room for it
        # What servers must not make us repeat: the key, and header values that may be one.
        given = (prepared.model.api_key, *prepared.model.headers.values())
        self._secrets = [v.encode() for v in given if v and len(v) >= MIN_SECRET]

    def forget(self) -> None:
        """Call nobody any more."""
        self.before_attempt = self.before_retry = _nothing

    async def run(self) -> None:
        """The task of a stream. Never raises: a bug of ours is kept in ``crash``, and a
        cancellation from outside is the block's to raise, which is cancelled with it. (Raised
        here as well, it would take the place of what the block itself raises.)
        """
        try:
            with self.scope:
                try:
                    await self._attempts()
                except MiniLLMError as exc:
                    await self._failed(exc)
        except trio.Cancelled:
            pass
        except Exception as exc:  # noqa: BLE001 - kept for the block, which raises it
            self.crash = exc
        finally:
            if self.facts.ended is None:
                self.facts.ended = trio.current_time()
            self._send.close()  # last: whoever sees it closed sees why
            self.arrived.end()
            self.done.set()

    async def _failed(self, error: MiniLLMError) -> None:
        if self.facts.held:
            held, self.facts.held = self.facts.held, []
            await self._give(held)
        await self._give(error)

    async def _attempts(self) -> None:
        errors: list[MiniLLMError] = []
        total = self._prepared.timeouts.total
        total_at = trio.current_time() + (total if isinstance(total, int | float) else INFINITY)
        while True:
            try:
                self.before_attempt()
            except MiniLLMError as exc:
                raise exc from (errors[-1] if errors else None)
            await trio.lowlevel.checkpoint_if_cancelled()  # what is over already sends nothing
            self.facts.attempts += 1
            try:
                await self._attempt(total_at)
                return
            except MiniLLMError as exc:
                errors.append(exc)
                if self._delivered or not retryable(exc):
                    raise
                delay = self._prepared.retry.delay(
                    exc,
                    attempt=len(errors),
                    remaining=total_at - trio.current_time(),
                    random=random.random(),
                )
                if delay is None:
                    if len(errors) > 1:
                        raise RetriesExhausted(tuple(errors)) from exc
                    raise
                self.before_retry(exc)
            self.facts.held = []
            await trio.sleep(delay)

    async def _attempt(self, total_at: float) -> None:
        facts = self.facts
        facts.started = trio.current_time()
        facts.headers_at = facts.request_id = facts.generation_id = None
        facts.received = 0
        clocks = Clocks(self._prepared.timeouts, total_at)
        exchange = self._connect()
        try:
            with clocks.scope as scope:
                await exchange.start(
                    self._prepared.url,
                    self._prepared.headers,
                    self._prepared.body,
                    on_progress=clocks.transport_event,
                )
            if scope.cancelled_caught:
                raise clocks.error(self._content, 0)
            clocks.sent()
            facts.headers_at = trio.current_time()
            await self._answer(exchange, clocks)
        finally:
            await exchange.close()

    async def _answer(self, exchange: Exchange, clocks: Clocks) -> None:
        headers = self.facts.headers = exchange.headers
        ident = headers.get("x-request-id") or headers.get("request-id")
        self.facts.request_id = self.hidden(ident) if ident else None
        if not 200 <= exchange.status < 300:
            body = await exchange.short_body(clocks.stop())
            raise self._refused(exchange.status, headers, body)
        self.facts.generation_id = self._provider.generation_id(headers)
        await self._read(exchange, clocks)
        self.facts.ended = trio.current_time()
        clocks.stop()
        await exchange.drain()

    async def _read(self, exchange: Exchange, clocks: Clocks) -> None:
        """Read until the answer is over; raise what ended it otherwise."""
        prepared = self._prepared
        self._end, self._slices = None, []
        decoder = ChunkDecoder(
            self._provider, lenient=prepared.lenient, raw=prepared.raw, secrets=self._secrets
        )
        ending = Ending(
            expect_usage=prepared.expect_usage,
            choices=prepared.choices,
            awaits_end=self._provider.ends_itself,
        )
        del prepared  # it has the prompt
        while not ending.over and self._end is None:
            # Nothing but waiting for bytes is cancelled by it, and no bytes are in hand then.
            with clocks.reading(lazy=exchange.resumable) as scope:
                await self._read_on(exchange, clocks, decoder, ending)
            if self._unsent is not None:
                paused_at = clocks.pause()
                await self._send.send(self._unsent)
                self._unsent = None
                self.arrived.one_more()
                clocks.resume(paused_at)
            elif scope.cancelled_caught and (clocks.due() or not exchange.resumable):
                raise clocks.error(self._content, self.facts.received)
        if self._end is not None and not ending.over:
            raise self._end

    async def _read_on(
        self, exchange: Exchange, clocks: Clocks, decoder: ChunkDecoder, ending: Ending
    ) -> None:
        """Read until the answer is over, or something has ended it (``_end``), or the channel is
        full (``_unsent``).
        """
        facts, late = self.facts, False
        while not (ending.over or self._end or self._unsent or late):
            data = b""
            try:
                if self._slices:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    data = self._slices.pop()
                else:
                    data = await exchange.receive()
                    # It came in the moment of a deadline: the next read wants a scope of its own.
                    late = clocks.scope.cancel_called
            except StreamError as exc:
                self._end = exc
            if len(data) > MANY_LINES and data.count(b"\n") + data.count(b"\r") > MANY_LINES:
                self._slices = [data[i : i + SLICE] for i in range(0, len(data), SLICE)][::-1]
                continue
            now = trio.current_time()
            if data:
                facts.received += len(data)
                chunks = decoder.feed(data, now)
                if type(chunks) is PlainBatch and self._delivered and ending.state is State.OPEN:
                    ending.chunk(chunks[0])  # the others would change nothing more
                    self._content += len(chunks)
                    clocks.heard(now, True, State.OPEN, False)
                    self._deliver(chunks, True)
                    if facts.received > MAX_RESPONSE:
                        self._end = LimitExceeded("bytes in one response", MAX_RESPONSE)
                    # A stream that waits for long holds no more than it must.
                    del data, chunks
                    continue
            else:
                chunks = decoder.finish(now)
                self._end = self._end or decoder.error or EndedEarly(NO_END)
            self._weigh(chunks, ending, clocks, now)
            facts.skipped = decoder.skipped
            if facts.received > MAX_RESPONSE:
                self._end = self._end or LimitExceeded("bytes in one response", MAX_RESPONSE)
            self._end = self._end or decoder.error
            del data, chunks

    def _weigh(self, chunks: list[StreamChunk], ending: Ending, clocks: Clocks, now: float) -> None:
        """What the chunks mean for the ending and the clocks; and send them on."""
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
            self._deliver(chunks, content or ending.over)

    def _deliver(self, chunks: list[StreamChunk], content: bool) -> None:
        facts = self.facts
        if not (self._delivered or content or len(facts.held) >= MAX_HELD):
            facts.held += chunks
            return
        if facts.held:
            chunks = facts.held + chunks
            facts.held = []
        if not self._delivered:
            self._delivered = True  # there is no other attempt, and a prompt may be long
            self._prepared = msgspec.structs.replace(self._prepared, body=b"", headers={})
        try:
            self._send.send_nowait(chunks)
        except trio.WouldBlock:
            self._unsent = chunks
        else:
            self.arrived.one_more()

    async def _give(self, item: Item) -> None:
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            await self._send.send(item)
        self.arrived.one_more()

    def hidden(self, text: str) -> str:
        """What a server said, without the key."""
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
            headers={k: self.hidden(v) for k, v in headers.items()},
        )


def _worth_sending(chunk: StreamChunk) -> bool:
    """Whether a chunk in the middle says anything: the buffer counts batches, and a server could
    fill them with nothings.
    """
    return bool(
        chunk.progress
        or chunk.usage is not None
        or chunk.block is not None
        or chunk.end
        or chunk.metadata
        or chunk.raw
    )
