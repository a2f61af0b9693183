"""The contenders: each reads one answer of the replay server. Runs as a process of its own.

``python contenders.py NAME MODE CHUNKS PORT [CPU]`` prints one JSON object. Each contender
takes the first chunk, starts the clock, takes the rest and keeps every piece of text, and
stops the clock; what it kept is compared with the answer afterwards, outside of the clock.
The library is imported where it is used: the other contenders run without it.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import server
import trio
from httpx_sse import aconnect_sse

if TYPE_CHECKING:
    from trio_minillm._decode import ChunkDecoder

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

WARM_UP = 300
"""Chunks of the stream before the measured one, in the same process and connection."""
IDLE_SECONDS = 120.0
"""The idle clock, where a contender has one: our own default."""


class Clock:
    """CPU, wall time and waits between `start` and `stop`."""

    def __init__(self) -> None:
        self._from = self._to = (0.0, 0.0, 0)

    @staticmethod
    def _now() -> tuple[float, float, int]:
        if resource is None:
            return time.process_time(), time.perf_counter(), 0
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime, time.perf_counter(), used.ru_nvcsw

    def start(self) -> None:
        self._from = self._now()

    def stop(self) -> None:
        self._to = self._now()

    def result(self) -> dict[str, float]:
        cpu, wall, waits = (b - a for a, b in zip(self._from, self._to, strict=True))
        return {"cpu": cpu, "wall": wall, "waits": waits}


Stream = Callable[[str, Clock], Awaitable[list[str]]]
"""Reads the answer at a URL once, and returns its pieces of text."""


# -- over the network, under Trio ------------------------------------------------------------


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Stream]:
    """The public API: `Client.stream`, iterated."""
    import trio_minillm as llm

    async with llm.open_client() as client:

        async def stream(path: str, clock: Clock) -> list[str]:
            model = llm.openai("bench", base_url=f"{url}{path}/v1", api_key="none")
            async with client.stream(model, "Go on.") as chunks:
                out = [(await chunks.receive()).delta]
                clock.start()
                async for chunk in chunks:
                    out.append(chunk.delta)
                clock.stop()
            assert chunks.outcome is llm.Outcome.FINISHED
            assert chunks.accumulated == "".join(out)
            return out

        yield stream


@asynccontextmanager
async def httpx_sse(url: str) -> AsyncIterator[Stream]:
    """The obvious way: httpx + httpx-sse + json."""
    async with httpx.AsyncClient(timeout=None) as client:

        async def stream(path: str, clock: Clock) -> list[str]:
            out: list[str] = []
            async with aconnect_sse(client, "POST", url + path, json={"stream": True}) as source:
                events = source.aiter_sse()
                out.append(json.loads((await anext(events)).data)["choices"][0]["delta"]["content"])
                clock.start()
                async for event in events:
                    if event.data == "[DONE]":
                        continue  # the body ends right behind it
                    for choice in json.loads(event.data)["choices"]:
                        out.append(choice["delta"].get("content", ""))
                clock.stop()
            return out

        yield stream


@asynccontextmanager
async def httpx_sse_task(url: str) -> AsyncIterator[Stream]:
    """The obvious way in our shape: a task that reads, a channel, an idle clock an event."""
    async with httpx.AsyncClient(timeout=None) as client:

        async def read(path: str, send: trio.MemorySendChannel[str]) -> None:
            async with (
                send,
                aconnect_sse(client, "POST", url + path, json={"stream": True}) as source,
            ):
                events = source.aiter_sse()
                while True:
                    with trio.fail_after(IDLE_SECONDS):
                        event = await anext(events, None)
                    if event is None:
                        return
                    if event.data == "[DONE]":
                        continue
                    for choice in json.loads(event.data)["choices"]:
                        await send.send(choice["delta"].get("content", ""))

        async def stream(path: str, clock: Clock) -> list[str]:
            send, receive = trio.open_memory_channel[str](32)
            async with trio.open_nursery() as nursery, receive:
                nursery.start_soon(read, path, send)
                out = [await receive.receive()]
                clock.start()
                async for text in receive:
                    out.append(text)
                clock.stop()
            return out

        yield stream


@asynccontextmanager
async def httpx_bytes(url: str) -> AsyncIterator[Stream]:
    """httpx alone: the body's bytes, neither framed nor parsed."""
    async with httpx.AsyncClient(timeout=None) as client:

        async def stream(path: str, clock: Clock) -> list[str]:
            async with client.stream("POST", url + path, json={"stream": True}) as response:
                pieces = response.aiter_bytes()
                out = [await anext(pieces)]
                clock.start()
                async for piece in pieces:
                    out.append(piece)
                clock.stop()
            return parsed(b"".join(out))

        yield stream


class _Delta(msgspec.Struct, gc=False):
    content: str = ""


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Chunk).decode


def parsed(body: bytes) -> list[str]:
    """The pieces of text in a whole body."""
    events = body.split(b"\n\n")[:-2]  # the last is [DONE], with nothing behind it
    chunks = [_decode(event.removeprefix(b"data: ")) for event in events]
    return [choice.delta.content for chunk in chunks for choice in chunk.choices]


# -- over the network, blocking --------------------------------------------------------------


class _Floor:
    """recv + find + msgspec: the least that anything written in Python can do.

    It passes over HTTP's framing, which works because no event here straddles two chunks.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.reads = 0
        self._connection = connection
        self._buffer = b""

    def take(self, out: list[str]) -> bool:
        """Add the texts that one read brings; whether there is more to come."""
        self._buffer += self._connection.recv(65536)
        self.reads += 1
        buffer, at = self._buffer, 0
        while True:
            start = buffer.find(b"data: ", at)
            end = buffer.find(b"\n\n", start) if start >= 0 else -1
            if end < 0:
                break
            at = end + 2
            if buffer[start + 6 : start + 7] == b"[":
                break
            for choice in _decode(buffer[start + 6 : end]).choices:
                out.append(choice.delta.content)
        self._buffer = buffer[at:]
        return not self._buffer.endswith(b"0\r\n\r\n")


def floor_stream(connection: socket.socket, path: str, clock: Clock) -> tuple[list[str], int]:
    request = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n"
    connection.sendall(request.encode())
    floor, out = _Floor(connection), list[str]()
    while not out:
        floor.take(out)
    clock.start()
    while floor.take(out):
        pass
    clock.stop()
    return out, floor.reads


def run_floor(mode: str, chunks: int, port: int) -> dict[str, Any]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        floor_stream(connection, f"/{mode}/{WARM_UP}", Clock())
        clock = Clock()
        gc.collect()
        out, reads = floor_stream(connection, f"/{mode}/{chunks}", clock)
    return report(clock, out, reads / chunks)


# -- without a network -----------------------------------------------------------------------


def run_core(upto: str, mode: str, chunks: int) -> dict[str, Any]:
    """The pure core on the same bytes: framing, then parsing, then the ingest machine."""
    steps = {"core-sse": core_sse, "core-parse": core_parse, "core-ingest": core_ingest}
    step = steps[upto]
    step(server.bodies(server.MODES[mode], WARM_UP), Clock())
    clock = Clock()
    pieces = server.bodies(server.MODES[mode], chunks)
    gc.collect()
    return report(clock, step(pieces, clock), None)


def core_sse(pieces: list[bytes], clock: Clock) -> list[str]:
    from trio_minillm import SSEDecoder, SSEEvent

    decoder, out = SSEDecoder(), list[list[SSEEvent]]()
    clock.start()
    for piece in pieces:
        out.append(decoder.feed(piece))
    clock.stop()
    return parsed(b"".join(b"data: %b\n\n" % e.data for events in out for e in events))


def _decoder() -> ChunkDecoder:
    import trio_minillm as llm
    from trio_minillm._decode import ChunkDecoder

    return ChunkDecoder(llm.openai("bench", base_url="http://bench", api_key="none").provider)


def core_parse(pieces: list[bytes], clock: Clock) -> list[str]:
    decoder, out = _decoder(), list[str]()
    clock.start()
    for piece in pieces:
        for chunk in decoder.feed(piece, 0.0):
            out.append(chunk.delta)
    clock.stop()
    return out


def core_ingest(pieces: list[bytes], clock: Clock) -> list[str]:
    from trio_minillm import Outcome
    from trio_minillm._ingest import Ingest

    decoder, out = _decoder(), list[str]()
    state = Ingest(model="bench", expect_usage=True)
    clock.start()
    for piece in pieces:
        for chunk in decoder.feed(piece, 0.0):
            state.ingest(chunk)
            out.append(chunk.delta)
    clock.stop()
    assert state.outcome is Outcome.FINISHED
    assert state.accumulated == "".join(out)
    return out


# -- running one -----------------------------------------------------------------------------

ASYNC = {
    "ours": ours,
    "httpx-sse": httpx_sse,
    "httpx-sse-task": httpx_sse_task,
    "httpx-bytes": httpx_bytes,
}


class Reads:
    """How often Trio's sockets were read."""

    count = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count for the length of a block. Not done under the clock, since it costs time."""
        with trio.socket.socket() as one:
            kind: Any = type(one)
        kept = {name: getattr(kind, name) for name in ("recv", "recv_into")}
        for name, method in kept.items():
            setattr(kind, name, self._counting(method))
        try:
            yield
        finally:
            for name, method in kept.items():
                setattr(kind, name, method)

    def _counting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            self.count += 1
            return method(*args, **options)

        return counting


async def run_async(name: str, mode: str, chunks: int, port: int) -> dict[str, Any]:
    reads, clock = Reads(), Clock()
    async with ASYNC[name](f"http://127.0.0.1:{port}") as stream:
        with reads.counted():
            await stream(f"/{mode}/{WARM_UP}", Clock())
        gc.collect()
        out = await stream(f"/{mode}/{chunks}", clock)
    return report(clock, out, reads.count / WARM_UP or None)


def report(clock: Clock, out: list[str], reads: float | None) -> dict[str, Any]:
    found = [text for text in out if text]
    return {
        **clock.result(),
        "chunks": len(found),
        "digest": server.digest(found),
        "reads_per_chunk": reads,
    }


def main() -> None:
    name, mode, chunks, port, *cpu = sys.argv[1:]
    if cpu and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu[0])})
    if name in ASYNC:
        result = trio.run(run_async, name, mode, int(chunks), int(port))
    elif name == "floor":
        result = run_floor(mode, int(chunks), int(port))
    else:
        result = run_core(name, mode, int(chunks))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
