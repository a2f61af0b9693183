"""Simulate how a batch is controlled at servers of many kinds, on a virtual clock: minutes in seconds.

``python benchmarks/control.py``. First servers that refuse at random, whatever the rate: a batch is
compared with a plain loop over `Client.complete` at the same concurrency. Then servers with a true
limit of 20 requests a second, of which they tell nothing. Prints two tables in Markdown.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import httpx
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm.batch import BatchRequest
from trio_minillm.testing import openai_events

PER_MINUTE, MINUTES = 1_200, 3
BODY = b"".join(event for event in openai_events("Hi") if isinstance(event, bytes))
Concurrency: TypeAlias = int | str


class Server(httpx.AsyncBaseTransport):
    """A server that accepts what `accepts` says."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        """Mean time until an answer."""
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.random = random.Random(1)

    def accepts(self, now: float) -> bool:
        raise NotImplementedError

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        now = trio.current_time()
        if self.accepts(now):
            self.accepted.append(now)
            await trio.sleep(self.seconds * self.random.uniform(0.5, 1.5))
            return httpx.Response(200, content=BODY, headers={"content-type": "text/event-stream"})
        self.refused.append(now)
        await trio.sleep(self.seconds * self.random.uniform(0.1, 1.0))
        return httpx.Response(429, content=b'{"error":{"message":"Rate limit reached"}}')


class AtRandom(Server):
    """It refuses a share of requests, by chance."""

    def __init__(self, share: float) -> None:
        super().__init__(0.05)
        self.share = share

    def accepts(self, now: float) -> bool:
        return self.random.random() >= self.share


class Limited(Server):
    """It counts by a bucket, by the minute or second of the clock, or over the last minute."""

    def __init__(self, counts: str) -> None:
        super().__init__(0.5)
        self.counts = counts
        self.level, self.at = float(PER_MINUTE), 0.0

    def accepts(self, now: float) -> bool:
        if self.counts == "bucket":
            self.level = min(PER_MINUTE, self.level + (now - self.at) * PER_MINUTE / 60)
            self.at = now
            if self.level < 1.0:
                return False
            self.level -= 1.0
            return True
        span = {"second": 1.0, "minute": 60.0, "last minute": 60.0}[self.counts]
        most = round(PER_MINUTE * span / 60)
        begin = now - 60.0 if self.counts == "last minute" else now // span * span
        recent = self.accepted[-most:]
        return len(recent) < most or recent[0] < begin


def requests() -> Iterator[BatchRequest]:
    number = 0
    while True:
        number += 1
        yield BatchRequest(key=str(number), messages="Hi")


async def batch(server: Server, count: int, concurrency: Concurrency) -> None:
    async with llm.open_client(transport=server) as client:
        model = llm.compatible("m", base_url="http://model.invalid/v1")
        asked = (request for request, _ in zip(requests(), range(count), strict=False))
        async with client.batch(asked, model=model, concurrency=concurrency) as results:
            async for _ in results:
                pass


async def loop(server: Server, count: int, concurrency: Concurrency) -> None:
    assert isinstance(concurrency, int)
    async with llm.open_client(transport=server) as client, trio.open_nursery() as nursery:
        model = llm.compatible("m", base_url="http://model.invalid/v1")
        limiter, retry = trio.CapacityLimiter(concurrency), llm.Retry(attempts=40)

        async def ask() -> None:
            async with limiter:
                await client.complete(model, "Hi", retry=retry)

        for _ in range(count):
            nursery.start_soon(ask)


def seconds_of(
    run: Callable[[Server, int, Concurrency], Awaitable[None]],
    server: Server,
    count: int,
    concurrency: Concurrency,
    most: float = 1e6,
) -> float:
    """Return the virtual seconds that a run takes, or ``most``."""

    async def main() -> float:
        with trio.move_on_after(most):
            await run(server, count, concurrency)
        return trio.current_time()

    clock = trio.testing.MockClock(autojump_threshold=0)
    began = clock.current_time()
    return trio.run(main, clock=clock) - began


def main() -> None:
    print("| refused at random | requests | plain loop, 20 at once | batch, 20 | batch, `auto` |")
    print("| --- | --- | --- | --- | --- |")
    for share in (0.0, 0.01, 0.05, 0.2, 0.5):
        for count in (400, 3_000):
            times = [
                seconds_of(run, AtRandom(share), count, concurrency)
                for run, concurrency in ((loop, 20), (batch, 20), (batch, "auto"))
            ]
            told = " | ".join(f"{t:.1f} s" for t in times)
            print(f"| {share:.0%} | {count:,} | {told} |", flush=True)
    print("\n| 20 a second, counted by | concurrency | used | refused after 10 s |")
    print("| --- | --- | --- | --- |")
    for counts in ("bucket", "minute", "last minute", "second"):
        for concurrency in (100, "auto"):
            server = Limited(counts)
            seconds_of(batch, server, 10**9, concurrency, 60.0 * MINUTES)
            late = [sum(t > 10 for t in times) for times in (server.accepted, server.refused)]
            used = len(server.accepted) / (PER_MINUTE * MINUTES)
            share = late[1] / sum(late)
            print(f"| {counts} | {concurrency} | {used:.1%} | {share:.2%} |", flush=True)


if __name__ == "__main__":
    main()
