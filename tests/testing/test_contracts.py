"""The contracts of transports and of streams: ours keep them, and what is broken is told."""

from __future__ import annotations

from typing import ClassVar

import httpx
import httpx2
import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import faults

# -- transports ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transport",
    [llm.TrioTransport, httpx.AsyncHTTPTransport, httpx2.AsyncHTTPTransport],
    ids=["ours", "httpx", "httpx2"],
)
async def test_a_transport_keeps_the_contract(transport, mock_clock):
    mock_clock.autojump_threshold = 0.02
    await testing.check_transport(transport)


async def test_one_that_records_keeps_it_as_well(mock_clock, tmp_path):
    mock_clock.autojump_threshold = 0.02
    number = iter(range(1000))
    for inner in (llm.TrioTransport, httpx.AsyncHTTPTransport):
        await testing.check_transport(
            lambda: testing.record(tmp_path / f"{next(number)}", inner())  # noqa: B023
        )


class Wrapped(httpx.AsyncBaseTransport):
    """A transport around ours, to be broken."""

    def __init__(self):
        self.inner = llm.TrioTransport()

    async def handle_async_request(self, request):
        response = await self.inner.handle_async_request(request)
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=self.body(response.stream),
            extensions=response.extensions,
        )

    def body(self, stream):
        return stream

    async def aclose(self):
        await self.inner.aclose()


class Stream(httpx.AsyncByteStream):
    def __init__(self, inner):
        self.inner = inner

    async def __aiter__(self):
        async for piece in self.inner:
            yield piece

    async def aclose(self):
        await self.inner.aclose()


class Deaf(Wrapped):
    async def handle_async_request(self, request):
        del request.headers["authorization"]
        return await super().handle_async_request(request)


class Polite(Wrapped):
    """Says that all is well."""

    async def handle_async_request(self, request):
        response = await super().handle_async_request(request)
        response.status_code = 200
        return response


class Hoarding(Wrapped):
    """Reads the whole body first."""

    async def handle_async_request(self, request):
        response = await self.inner.handle_async_request(request)
        data = b"".join([piece async for piece in response.stream])
        await response.stream.aclose()
        return httpx.Response(response.status_code, headers=response.headers, content=data)


class Wasteful(Wrapped):
    """A new connection for every request."""

    async def handle_async_request(self, request):
        request.headers["connection"] = "close"
        return await super().handle_async_request(request)


class Trusting(Wrapped):
    """Takes the end of what came for the end."""

    class Body(Stream):
        async def __aiter__(self):
            try:
                async for piece in self.inner:
                    yield piece
            except httpx.TransportError:
                pass

    body = Body


class Foreign(Wrapped):
    """Lets other exceptions through."""

    async def handle_async_request(self, request):
        try:
            return await super().handle_async_request(request)
        except httpx.TransportError as exc:
            raise LookupError from exc


class Clinging(Wrapped):
    """Never closes a body."""

    class Body(Stream):
        async def aclose(self):
            pass

    body = Body


class Swallowing(Wrapped):
    """Turns a cancellation into an end."""

    async def handle_async_request(self, request):
        try:
            return await super().handle_async_request(request)
        except trio.Cancelled:
            return httpx.Response(200)


class Careless(Wrapped):
    """Goes away without closing anything."""

    kept: ClassVar[list[httpx.AsyncBaseTransport]] = []

    async def aclose(self):
        self.kept.append(self.inner)


class Confused(Wrapped):
    """Gives the answer that came first to whoever asks."""

    def __init__(self):
        super().__init__()
        self.bodies = []

    async def handle_async_request(self, request):
        response = await self.inner.handle_async_request(request)
        data = b"".join([piece async for piece in response.stream])
        await response.stream.aclose()
        self.bodies.append(data)
        return httpx.Response(
            response.status_code, headers=response.headers, content=self.bodies[0]
        )


class Stuck(Wrapped):
    async def handle_async_request(self, request):
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("transport", "words"),
    [
        (Deaf, "header"),
        (Polite, "status"),
        (Hoarding, "hangs.*before more of it has come|held back"),
        (Wasteful, "not reused"),
        (Trusting, "looks whole"),
        (Foreign, "foreign LookupError"),
        (Clinging, "keeps its connection open"),
        (Swallowing, "swallows a cancellation"),
        (Careless, "open after aclose"),
        (Stuck, "hangs"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
async def test_a_broken_transport_is_told(transport, words, mock_clock):
    mock_clock.autojump_threshold = 0.02
    try:
        with pytest.raises(AssertionError, match=words):
            await testing.check_transport(transport)
    finally:
        for inner in Careless.kept:
            await inner.aclose()
        Careless.kept.clear()


async def test_one_that_mixes_answers_up_is_told(mock_clock):
    mock_clock.autojump_threshold = 0.02
    from trio_minillm.testing._check_transport import _does_many_at_once

    with pytest.raises(AssertionError, match="another's answer"):
        await _does_many_at_once(Confused)


# -- streams -------------------------------------------------------------------------------------

EVENTS = testing.openai_events("Sea ", "salty", " water")
WHOLE = testing.reply(*EVENTS)
STREAMS = {
    "whole": WHOLE,
    "one read": WHOLE | faults.merge(),
    "dripped": WHOLE | faults.drip(20, 0.5),
    "long": testing.reply(*testing.openai_events(*["word "] * 300)),
    "empty": testing.reply(*testing.openai_events()),
    "cut": WHOLE | faults.cut(-200),
    "reset": WHOLE | faults.cut(-200, "reset"),
    "silent": WHOLE | faults.stall(-200),
    "refused": WHOLE | faults.status(400),
    "malformed": WHOLE | faults.inject(b"data: {\n\n", at=3),
    "an error": WHOLE | faults.inject(testing.sse({"error": {"message": "no"}}), at=3),
    "nothing": testing.reply(),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("wait", [0.0, 0.3])
async def test_streams_keep_the_contract(name, wait, autojump_clock):
    reply = msgspec.structs.replace(STREAMS[name], wait=wait)
    transport = testing.ScriptedTransport(reply)
    clocks = llm.Timeouts(idle=5, byte_idle=5)
    async with llm.open_client(transport=transport, timeouts=clocks) as client:
        await testing.check_stream(lambda: client.stream(testing.model(), "Hi"))
    assert transport.open_bodies == 0


class Streams:
    """Streams of a client, one of whose methods is replaced."""

    def __init__(self, client, break_it):
        self.client = client
        self.break_it = break_it

    def __call__(self):
        opening = self.client.stream(testing.model(), "Hi")
        self.break_it(opening)
        return opening


def never_ends(stream):
    async def following():
        await trio.sleep_forever()

    stream.next_chunk = following
    replace(stream, __anext__=lambda self: following())


def replace(stream, **methods):
    stream.__class__ = type("Broken", (type(stream),), methods)


def loses_the_outcome(stream):
    replace(stream, outcome=property(lambda self: None))


def calls_it_cancelled(stream):
    replace(
        stream, outcome=property(lambda self: (self.is_finished and llm.Outcome.CANCELLED) or None)
    )


def swallows_its_error(stream):
    async def following(self):
        try:
            return await type(stream).__mro__[1].__anext__(self)
        except llm.MiniLLMError:
            raise StopAsyncIteration from None

    replace(stream, __anext__=following)


def raises_again(stream):
    async def following(self):
        chunk = await type(stream).__mro__[1].next_chunk(self)
        if chunk is None and self.error is not None:
            raise self.error
        return chunk

    replace(stream, next_chunk=following)


def forgets(stream):
    empty = llm.CompletionResponse(outcome=llm.Outcome.FINISHED)
    replace(stream, response=property(lambda self: empty))


def collects_less(stream):
    async def collect(self):
        await type(stream).__mro__[1].next_chunk(self)
        return await self.cancel()

    replace(stream, collect=collect)


def drops_when_cancelled(stream):
    async def following(self):
        chunk = await type(stream).__mro__[1].next_chunk(self)
        await trio.lowlevel.checkpoint()
        return chunk

    replace(stream, next_chunk=following)


def drops_a_batch_when_cancelled(stream):
    async def following(self):
        batch = await type(stream).__mro__[1].next_chunks(self)
        await trio.lowlevel.checkpoint()
        return batch

    replace(stream, next_chunks=following)


def ignores_cancellation(stream):
    async def following(self):
        with trio.CancelScope(shield=True):
            return await type(stream).__mro__[1].next_chunk(self)

    replace(stream, next_chunk=following)


def queues(stream):
    lock = trio.Lock()

    async def following(self):
        async with lock:
            return await type(stream).__mro__[1].next_chunk(self)

    replace(stream, next_chunk=following)


def reopens(stream):
    async def following(self):
        try:
            return await type(stream).__mro__[1].next_chunk(self)
        except trio.ClosedResourceError:
            return None

    replace(stream, next_chunk=following)


def wraps(stream):
    async def leave(self, kind, exc, tb):
        await type(stream).__mro__[1].__aexit__(self, kind, exc, tb)
        if kind is not None and issubclass(kind, Exception):
            raise ExceptionGroup("wrapped", [exc])

    replace(stream, __aexit__=leave)


def raises_when_left(stream):
    async def leave(self, kind, exc, tb):
        early = not self.is_finished
        await type(stream).__mro__[1].__aexit__(self, kind, exc, tb)
        if early:
            raise AssertionError("left early")

    replace(stream, __aexit__=leave)


@pytest.mark.parametrize(
    ("break_it", "name", "words"),
    [
        (never_ends, "whole", "does not end"),
        (loses_the_outcome, "whole", "no outcome"),
        (calls_it_cancelled, "whole", "nobody left"),
        (swallows_its_error, "cut", "iteration raised NoneType"),
        (raises_again, "cut", "second time"),
        (forgets, "whole", "does not have what was read"),
        (collects_less, "whole", "collect"),
        (drops_when_cancelled, "long", "lost a chunk"),
        (drops_a_batch_when_cancelled, "long", "lost a chunk"),
        (ignores_cancellation, "whole", "cancellation|checkpoint"),
        (queues, "whole", "two tasks"),
        (reopens, "whole", "after the block"),
        (wraps, "whole", "comes out as ExceptionGroup"),
        (raises_when_left, "whole", "left early"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
async def test_a_broken_stream_is_told(break_it, name, words, autojump_clock):
    transport = testing.ScriptedTransport(STREAMS[name])
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(AssertionError, match=words):
            await testing.check_stream(Streams(client, break_it))
