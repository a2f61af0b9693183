"""The sending side of a stream: attempts, clocks, and batches into the memory channel.

One task a stream runs `Reader.run`. It sends what one read of the socket brought as one
batch, and as the last item the error that ended the stream, if one did. It raises nothing
but ``Cancelled``.

A consumer that waits has nothing else to do: once it does, the task lends it the connection
(`Reader.read_lent`), so that one task wakes for a chunk and not two, and keeps the clocks. It goes on
when the answer is over: it drains, closes, and says what ended it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
import trio

from .._http.exchange import Exchange
from .._protocol.decoder import ChunkDecoder
from .._protocol.redaction import redact
from .._protocol.state import StreamState
from .._types.chunks import StreamChunk
from .._types.errors import MiniLLMError, RefusedError, RetriesExhausted, StreamError
from .._types.options import Retry, Timeouts, retry_after, retryable
from ..providers import Model, Provider
from .body import AttemptInfo, Intake
from .clocks import INFINITY, Clocks

Item: TypeAlias = "list[StreamChunk] | StreamChunk | MiniLLMError"
"""What goes through the channel: a batch (one read's chunks), a chunk, or the last error."""


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


class _Place:
    """Where a single task waits for another: a parking lot at half its price. Every chunk that is
    waited for pays it.
    """

    def __init__(self) -> None:
        self._waiting: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Until somebody calls `wake`. A checkpoint."""
        self._waiting = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> bool:
        """Let the task go on; whether there was one."""
        task, self._waiting = self._waiting, None
        if task is not None:
            trio.lowlevel.reschedule(task)
        return task is not None


class Arrivals(_Place):
    """How many items went into the channel, and who waits for the next: one task at most."""

    def __init__(self) -> None:
        super().__init__()
        self.count: int = 0
        self.over: bool = False
        """Whether the channel was closed: there will be no more."""

    def one_more(self) -> bool:
        """An item was put into the channel; whether it was waited for."""
        self.count += 1
        return self.wake()

    def end(self) -> None:
        """The channel was closed."""
        self.over = True
        self.wake()


def _nothing(*args: object) -> None: ...


class Reader:
    """Sends one prepared request, again if need be, and feeds the channel with the answer."""

    def __init__(
        self,
        connect: Callable[[], Exchange],
        prepared: Prepared,
        send: trio.MemorySendChannel[Item],
    ) -> None:
        self.facts: AttemptInfo = AttemptInfo()
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
        self._slices: list[bytes] = []  # of a read, last one first
        self._unsent: list[StreamChunk] | None = None  # there was no room for it
        self.lent: bool = False
        """Whether the consumer reads, with `read_lent`, and not this task."""
        self._given_back = _Place()
        self._waited_for = False  # the consumer is in `read_lent`
        self._away_since: float | None = None  # what the clocks want to hear when it is again
        self._intake: Intake | None = None
        self._exchange: Exchange | None = None
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
                raise clocks.error(0, 0)
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
        if self.facts.ended is None:
            self.facts.ended = trio.current_time()
        clocks.stop()
        await exchange.drain()

    async def _read(self, exchange: Exchange, clocks: Clocks) -> None:
        """Read until the answer is over; raise what ended it otherwise."""
        prepared = self._prepared
        decoder = ChunkDecoder(
            self._provider, lenient=prepared.lenient, raw=prepared.raw, secrets=self._secrets
        )
        ending = StreamState(
            expect_usage=prepared.expect_usage,
            choices=prepared.choices,
            awaits_end=self._provider.ends_itself,
        )
        del prepared  # it has the prompt
        intake = self._intake = Intake(decoder, ending, clocks, self.facts)
        self._exchange, self._slices = exchange, []
        try:
            while not intake.over:
                # Nothing but waiting for bytes is cancelled by it, and no bytes are in hand then.
                with clocks.reading(lazy=exchange.resumable) as scope:
                    await (
                        self._given_back.wait() if self.lent else self._read_on(exchange, intake)
                    )
                if self.crash is not None:
                    raise self.crash
                if self._unsent is not None:
                    paused_at = clocks.pause()
                    await self._send.send(self._unsent)
                    self._unsent = None
                    self.arrived.one_more()
                    clocks.resume(paused_at)
                elif scope.cancelled_caught and (clocks.due() or not exchange.resumable):
                    self._overdue(exchange, intake)
        finally:
            self.lent, self._exchange = False, None
        if intake.error is not None and not ending.over:
            raise intake.error

    async def _read_on(self, exchange: Exchange, intake: Intake) -> None:
        """Read until the answer is over, or something has ended it, or the channel is full
        (``_unsent``), or the consumer waits and can do the reading (``lent``).
        """
        late = False
        while not (intake.over or self._unsent or self.lent or late):
            data = b""
            try:
                if self._slices:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    data = self._slices.pop()
                else:
                    data = await exchange.receive()
                    # It came in the moment of a deadline: the next read wants a scope of its own.
                    late = intake.clocks.scope.cancel_called
            except StreamError as exc:
                intake.error = exc
            if self._sliced(data):
                continue
            chunks, content = intake.feed(data, trio.current_time())
            waited_for = bool(chunks) and self._deliver(chunks, content)
            intake.begun = self._delivered
            # It has nothing else to do: from here on one task wakes for a read, and not two.
            self.lent = waited_for and exchange.lendable and not (intake.over or self._slices)
            # A stream that waits for long holds no more than it must.
            del data, chunks

    def _sliced(self, data: bytes) -> bool:
        """Whether it was too much for one step, and was put aside in slices."""
        many = len(data) > MANY_LINES and data.count(b"\n") + data.count(b"\r") > MANY_LINES
        if many:
            self._slices = [data[i : i + SLICE] for i in range(0, len(data), SLICE)][::-1]
        return many

    def _deliver(self, chunks: list[StreamChunk], content: bool) -> bool:
        """Put a batch into the channel; whether it was waited for."""
        facts = self.facts
        if not (self._delivered or content or len(facts.held) >= MAX_HELD):
            facts.held += chunks
            return False
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
            return False
        return self.arrived.one_more()

    # -- while the consumer reads ----------------------------------------------------------

    def _overdue(self, exchange: Exchange, intake: Intake) -> None:
        """A clock has run out. Raises its error, unless something came in time: it was read in the
        same moment, or it lies there, and the consumer, who is to read it, is about to, or slow.
        """
        clocks = intake.clocks
        if intake.over or self._slices:
            return
        if not self.lent or exchange.silent or (self._waited_for and clocks.name == "total"):
            raise clocks.error(intake.content, self.facts.received)
        if not self._waited_for:
            self._away_since = clocks.away()

    async def read_lent(self) -> list[StreamChunk]:
        """In the consumer's task, while the connection is lent: wait for the next chunks. A
        checkpoint; cancelled, it has lost nothing. Nothing comes if it was given back.
        """
        exchange, intake = self._exchange, self._intake
        assert exchange is not None
        assert intake is not None
        if self._away_since is not None:
            intake.clocks.resume(self._away_since)
            self._away_since = None
        self._waited_for = True
        try:
            while self.lent:
                try:  # noqa: SIM105 - an object less for each chunk
                    await exchange.readable()
                except (OSError, ValueError, trio.ClosedResourceError):
                    pass  # `_take_lent` finds out why
                if chunks := self._take_lent():
                    return chunks
        finally:
            self._waited_for = False
        return []

    def take_lent(self) -> list[StreamChunk] | None:
        """What came over a connection that is lent, without waiting; None if nothing did. Nor if
        the consumer waits for it: what another task took could not wake it any more, and it alone
        may give back what it waits at.
        """
        return None if self._waited_for else self._take_lent()

    def _take_lent(self) -> list[StreamChunk] | None:
        """The same. The connection is given back when the answer is over."""
        if not self.lent:
            return None
        intake, exchange, data = self._intake, self._exchange, None
        assert exchange is not None
        assert intake is not None
        chunks: list[StreamChunk] = []
        try:
            data = exchange.receive_now()
        except StreamError as exc:
            intake.error = exc
            data = b""
        now = trio.current_time()
        try:
            if data is not None and not self._sliced(data):
                chunks, _ = intake.feed(data, now)
        except Exception as exc:  # noqa: BLE001 - the task raises it, as where it reads itself
            self.crash = exc
        if intake.over or self._slices or self.crash:
            self.lent = False
            self.facts.ended = now if intake.over else None
            self._given_back.wake()
        return chunks if data is not None else None

    @property
    def failure(self) -> MiniLLMError | None:
        """What has ended the answer, as far as it was read."""
        return None if self._intake is None else self._intake.error

    async def _give(self, item: Item) -> None:
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            await self._send.send(item)
        self.arrived.one_more()

    def hidden(self, text: str) -> str:
        """What a server said, without the key."""
        return redact(text.encode("utf-8", "replace"), self._secrets).decode()

    def _refused(self, status: int, headers: Mapping[str, str], body: bytes) -> RefusedError:
        info = self._provider.parse_error(status, redact(body, self._secrets))
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
