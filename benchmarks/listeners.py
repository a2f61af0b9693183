"""Listeners of one stream: CPU for each chunk that one of them gets, and memory.

    python benchmarks/listeners.py

A stream of 2,000 chunks, with one or with 50 in a read, and up to 1,000 listeners; for comparison, a
memory channel for each listener, as one would write it by hand. Half of the listeners are cancelled on
the way. Times are of the process's CPU, without the making of the chunks.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Sequence

import trio

import trio_minillm as llm

CHUNKS = 2_000
COUNTS = (1, 10, 100, 1_000)
BATCHES = (1, 50)


def batches_of(size: int) -> list[list[llm.StreamChunk]]:
    chunks = [llm.StreamChunk(f"word {number} ") for number in range(CHUNKS)]
    chunks[-1].finish_reason = "stop"
    return [chunks[at : at + size] for at in range(0, CHUNKS, size)]


async def feed(send: trio.MemorySendChannel, batches: Sequence[list[llm.StreamChunk]]) -> None:
    async with send:
        for batch in batches:
            await send.send(batch)
            await trio.lowlevel.checkpoint()  # a read each


async def by_hub(count: int, batches: list[list[llm.StreamChunk]], cancelled: int) -> int:
    """Return the number of chunks that listeners got."""
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    got = 0

    async def listen(listener: llm.Listener, scope: trio.CancelScope) -> None:
        nonlocal got
        with scope:
            async with listener:
                while chunks := await listener.next_chunks():
                    got += len(chunks)

    async with stream.broadcast() as hub, trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(count)]
        for scope in scopes:
            nursery.start_soon(listen, hub.subscribe(), scope)
        nursery.start_soon(feed, send, batches)
        nursery.start_soon(cancel, scopes, cancelled)
    return got


async def by_channels(count: int, batches: list[list[llm.StreamChunk]], cancelled: int) -> int:
    """The same with a memory channel for each listener."""
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    got = 0

    async def listen(receive: trio.MemoryReceiveChannel, scope: trio.CancelScope) -> None:
        nonlocal got
        with scope:
            async with receive:
                async for _ in receive:
                    got += 1

    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(count)]
        channels = []
        for scope in scopes:
            out, receive = trio.open_memory_channel[llm.StreamChunk](1024)
            channels.append(out)
            nursery.start_soon(listen, receive, scope)
        nursery.start_soon(feed, send, batches)
        nursery.start_soon(cancel, scopes, cancelled)
        while chunks := await stream.next_chunks():
            for out in list(channels):
                try:
                    for chunk in chunks:
                        await out.send(chunk)
                except trio.BrokenResourceError:
                    channels.remove(out)
        for out in channels:
            out.close()
    return got


async def cancel(scopes: list[trio.CancelScope], count: int) -> None:
    for scope in random.Random(1).sample(scopes, count):
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        scope.cancel()


def main() -> None:
    print("| listeners | chunks a read | hub, µs | channels, µs | hub, MB at most |")
    print("| --- | --- | --- | --- | --- |")
    for size in BATCHES:
        for count in COUNTS:
            took = []
            for run in (by_hub, by_channels):
                batches = batches_of(size)
                begun = time.process_time()
                got = trio.run(run, count, batches, 0)
                took.append((time.process_time() - begun) / got * 1e6)
                assert got == count * CHUNKS
            batches = batches_of(size)
            tracemalloc.start()
            got = trio.run(by_hub, count, batches, count // 2)
            most = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            assert got >= (count - count // 2) * CHUNKS
            print(f"| {count:,} | {size} | {took[0]:.2f} | {took[1]:.2f} | {most:.2f} |")


if __name__ == "__main__":
    main()
