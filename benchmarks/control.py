"""Simulate how a batch is controlled at servers of many kinds, on a virtual clock: hours in minutes.

``python benchmarks/control.py [TABLE …] [--seeds N]`` prints tables in Markdown, of which
docs/batches/batch-control.md has a copy. Each is one question:

``random``    refusals that come whatever the rate: is a batch as fast as a plain loop?
``limits``    a true limit: is it used, and are few requests refused?
``outages``   a server that fails for a while: how much longer than that does it take?
``single``    one request that is never accepted: do the others wait for it?
``latency``   answers that take longer the more there are: is the best number found?

Every server answers through httpx's interface of transports, so that all of the client is in the
way but the socket. Cells are means over the seeds of the server's and the client's chance.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeAlias

import httpx
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm.batch import BatchRequest
from trio_minillm.testing import openai_events

BODY = b"".join(event for event in openai_events("Hi") if isinstance(event, bytes))
RATE = 20
"""Requests a second that the servers of `LIMITS` allow."""
TOKENS = 1_000
"""Tokens that a request counts for at the server that counts tokens."""

WINDOWS = {
    "second": (1.0, 0.0),
    "ten seconds": (10.0, 0.0),
    "minute": (60.0, 0.0),
    "minute that began 40 s ago": (60.0, 40.0),
}
"""Seconds of a window, and of it that are over when the run begins."""

Concurrency: TypeAlias = int | str
Refusal: TypeAlias = tuple[int, str, dict[str, str]]
"""Status, message and headers."""

TOO_MANY: Refusal = 429, "Rate limit reached", {}
UNAVAILABLE: Refusal = 503, "Service Unavailable", {}


# -- servers -----------------------------------------------------------------------------------


class Server(httpx.AsyncBaseTransport):
    """A server that accepts everything, and answers after ``seconds``, more or less."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.under_way = 0
        self.random = random.Random()

    def refusal(self, now: float, prompt: str) -> Refusal | None:
        """Return why a request is refused, ``None`` to accept it."""
        return None

    def headers(self, now: float) -> dict[str, str]:
        """Return what the server says of its limits."""
        return {}

    def delay(self) -> float:
        """Return the seconds until an answer."""
        return self.seconds * self.random.uniform(0.5, 1.5)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        now = trio.current_time()
        body = json.loads(await request.aread())
        refusal = self.refusal(now, body["messages"][-1]["content"])
        if refusal is not None:
            self.refused.append(now)
            status, message, headers = refusal
            await trio.sleep(self.seconds * self.random.uniform(0.1, 1.0))
            content = json.dumps({"error": {"message": message}}).encode()
            return httpx.Response(status, content=content, headers=headers | self.headers(now))
        self.accepted.append(now)
        self.under_way += 1
        try:
            await trio.sleep(self.delay())
        finally:
            self.under_way -= 1
        headers = {"content-type": "text/event-stream"} | self.headers(now)
        return httpx.Response(200, content=BODY, headers=headers)


class AtRandom(Server):
    """It refuses a share of requests, by chance."""

    def __init__(self, share: float, why: Refusal = TOO_MANY) -> None:
        super().__init__()
        self.share = share
        self.why = why

    def refusal(self, now: float, prompt: str) -> Refusal | None:
        return self.why if self.random.random() < self.share else None


class Limited(Server):
    """It counts requests by a bucket, by a window of the clock, or over the last minute."""

    def __init__(self, counts: str, rate: Callable[[float], float] = lambda now: RATE) -> None:
        super().__init__(0.5)
        self.counts = counts
        self.rate = rate
        self.level, self.at = float(RATE * 10), 0.0

    def refusal(self, now: float, prompt: str) -> Refusal | None:
        return None if self.allows(now) else TOO_MANY

    def allows(self, now: float) -> bool:
        rate = self.rate(now)
        if self.counts == "bucket":
            self.level = min(rate * 10, self.level + (now - self.at) * rate)
            self.at = now
            if self.level < 1.0:
                return False
            self.level -= 1.0
            return True
        if self.counts == "last minute":
            most, begin = round(rate * 60), now - 60.0
        else:
            span, offset = WINDOWS[self.counts]
            most, begin = round(rate * span), (now + offset) // span * span - offset
        recent = self.accepted[-most:]
        return len(recent) < most or recent[0] < begin


class Told(Limited):
    """It counts by the minute, and says so in its headers."""

    def __init__(self, unit: str = "requests") -> None:
        super().__init__("minute")
        self.unit, self.scale = unit, TOKENS if unit == "tokens" else 1

    def headers(self, now: float) -> dict[str, str]:
        begin = now // 60.0 * 60.0
        left = RATE * 60 - sum(1 for t in self.accepted[-RATE * 60 :] if t >= begin)
        return {
            f"x-ratelimit-limit-{self.unit}": str(RATE * 60 * self.scale),
            f"x-ratelimit-remaining-{self.unit}": str(left * self.scale),
            f"x-ratelimit-reset-{self.unit}": f"{begin + 60.0 - now:.3f}s",
        }


class Crowded(Server):
    """It refuses what would be more than so many at once."""

    def __init__(self, most: int) -> None:
        super().__init__(0.5)
        self.most = most

    def refusal(self, now: float, prompt: str) -> Refusal | None:
        return None if self.under_way < self.most else (429, "Too many concurrent requests", {})


class Out(Server):
    """It fails everything for a time."""

    def __init__(self, status: int, message: str, seconds: float, after: float | None) -> None:
        super().__init__()
        self.until = 0.5 + seconds
        headers = {} if after is None else {"retry-after": f"{after:g}"}
        self.why: Refusal = status, message, headers

    def refusal(self, now: float, prompt: str) -> Refusal | None:
        return self.why if 0.5 <= now < self.until else None


class Poisoned(Server):
    """It never accepts one prompt."""

    def __init__(self, why: Refusal | None) -> None:
        super().__init__(0.5)
        self.why = why

    def refusal(self, now: float, prompt: str) -> Refusal | None:
        return self.why if prompt == "bad" else None


class Loaded(Server):
    """Its answers take longer the more are under way."""

    def delay(self) -> float:
        return 0.2 * (1.0 + (self.under_way / 32) ** 2) * self.random.uniform(0.9, 1.1)


# -- clients -----------------------------------------------------------------------------------


def requests(count: float, bad: int = -1) -> Iterator[BatchRequest]:
    number = 0
    while number < count:
        number += 1
        yield BatchRequest(str(number), "bad" if number == bad else "Hi")


MODEL = llm.compatible("m", base_url="http://model.invalid/v1")


class Clients:
    """The ways to send requests; each leaves its results in ``failed`` and ``stopped``."""

    def __init__(self, server: Server, count: float, concurrency: Concurrency) -> None:
        self.server = server
        self.count = count
        self.concurrency: Any = concurrency
        self.failed = 0
        self.stopped: Exception | None = None
        self.bad = -1

    async def batch(self) -> None:
        async with llm.open_client(transport=self.server) as client:
            asked = requests(self.count, self.bad)
            async with client.batch(asked, model=MODEL, concurrency=self.concurrency) as results:
                try:
                    async for result in results:
                        self.failed += not result.ok
                except llm.MiniLLMError as error:
                    self.stopped = error

    async def two_batches(self) -> None:
        """As in two processes: neither knows of the other."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.batch)
            nursery.start_soon(self.batch)

    async def loop(self) -> None:
        limiter, retry = trio.CapacityLimiter(self.concurrency), llm.Retry(attempts=40)
        async with llm.open_client(transport=self.server) as client, trio.open_nursery() as nursery:

            async def ask(prompt: str) -> None:
                async with limiter:
                    await client.complete(MODEL, prompt, retry=retry)

            for request in requests(self.count, self.bad):
                nursery.start_soon(ask, request.messages)


def seconds_of(run: Callable[[], Awaitable[None]], most: float = 1e6) -> float:
    """Return the virtual seconds that a run takes, or ``most``."""

    async def main() -> float:
        with trio.move_on_after(most):
            await run()
        return trio.current_time()

    clock = trio.testing.MockClock(autojump_threshold=0)
    began = clock.current_time()
    return trio.run(main, clock=clock) - began


# -- tables ------------------------------------------------------------------------------------

Case: TypeAlias = tuple[str, tuple[Any, ...], int]
"""The name of a function below, its arguments, and a seed."""

COUNTS = (400, 3_000)
SHARES = (0.01, 0.05, 0.2, 0.5)
AS: dict[str, Refusal] = {
    "429": TOO_MANY,
    "429, `retry-after: 0.3`": (*TOO_MANY[:2], {"retry-after": "0.3"}),
    "503": UNAVAILABLE,
}
LIMITS: dict[str, tuple[Callable[[], Server], str]] = {
    "bucket of ten seconds": (lambda: Limited("bucket"), "batch"),
    **{name: (partial(Limited, name), "batch") for name in WINDOWS},
    "last minute": (lambda: Limited("last minute"), "batch"),
    "minute, told": (Told, "batch"),
    "tokens in a minute, told": (lambda: Told("tokens"), "batch"),
    "10 at once": (lambda: Crowded(10), "batch"),
    "minute, two batches": (lambda: Limited("minute"), "two_batches"),
    "bucket, two batches": (lambda: Limited("bucket"), "two_batches"),
    "bucket, 20, from 60 s on 5, from 120 s on 20": (
        lambda: Limited("bucket", lambda now: 5 if 60 <= now < 120 else RATE),
        "batch",
    ),
}
SECONDS = 180.0
OVERLOADED = "Engine overloaded, please try again later"
FAILURES = [
    TOO_MANY[:2],
    (429, OVERLOADED),
    UNAVAILABLE[:2],
    (529, "Overloaded"),
]
OUTAGES = [(*failure, seconds) for failure in FAILURES for seconds in (2.0, 6.0, 60.0)]
SINGLES: dict[str, Refusal | None] = {
    "none": None,
    "429, too large for the limit": (
        429,
        "Request too large for m: Limit 10000, Requested 20000",
        {},
    ),
    "429, whatever the rate": TOO_MANY,
    "503, always": UNAVAILABLE,
    "500, always": (500, "Internal Server Error", {}),
}
FIXED = (8, 16, 24, 32, 48, 64, 96)


def seeded(server: Server, seed: int) -> Server:
    server.random = random.Random(seed)
    random.seed(seed)  # the client's jitter
    return server


def took(way: str, server: Server, count: int, concurrency: Concurrency, bad: int = -1) -> float:
    clients = Clients(server, count, concurrency)
    clients.bad = bad
    return seconds_of(getattr(clients, way), 1e5)


def at_random(
    share: float, kind: str, count: int, way: str, concurrency: Concurrency, *, seed: int
) -> tuple[float, ...]:
    return (took(way, seeded(AtRandom(share, AS[kind]), seed), count, concurrency),)


def limited(name: str, concurrency: Concurrency, *, seed: int) -> tuple[float, ...]:
    make, way = LIMITS[name]
    server = seeded(make(), seed)
    seconds_of(getattr(Clients(server, math.inf, concurrency), way), SECONDS)
    late = [sum(t > 10 for t in times) for times in (server.accepted, server.refused)]
    allowed = SECONDS * RATE
    if isinstance(server, Limited) and server.rate(90) != RATE:
        allowed -= 60 * (RATE - server.rate(90))
    return sum(t <= SECONDS for t in server.accepted) / allowed, late[1] / max(1, sum(late))


def outage(
    status: int,
    message: str,
    seconds: float,
    after: float | None,
    concurrency: Concurrency,
    *,
    seed: int,
) -> tuple[float, ...]:
    server = seeded(Out(status, message, seconds, after), seed)
    clients = Clients(server, 3_000, concurrency)
    return seconds_of(clients.batch, 1e5), clients.failed + 1e6 * (clients.stopped is not None)


def single(name: str, concurrency: Concurrency, *, seed: int) -> tuple[float, ...]:
    return (took("batch", seeded(Poisoned(SINGLES[name]), seed), 1_500, concurrency, bad=100),)


def latency(concurrency: Concurrency, *, seed: int) -> tuple[float, ...]:
    server = seeded(Loaded(), seed)
    seconds_of(Clients(server, math.inf, concurrency).batch, 60.0)
    return (len(server.accepted) / 60.0,)


def measure(case: Case) -> tuple[float, ...]:
    name, args, seed = case
    found: tuple[float, ...] = globals()[name](*args, seed=seed)
    return found


class Measured:
    """Means over the seeds, measured on all cores."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds
        self._pool = get_context("spawn").Pool()

    def means(self, name: str, cases: list[tuple[Any, ...]]) -> list[tuple[float, ...]]:
        every: list[Case] = [(name, args, seed) for args in cases for seed in range(self._seeds)]
        found = self._pool.map(measure, every, chunksize=1)
        groups = [found[i : i + self._seeds] for i in range(0, len(found), self._seeds)]
        return [tuple(sum(c) / len(c) for c in zip(*group, strict=True)) for group in groups]


def heading(*columns: str) -> None:
    print("\n| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns), flush=True)


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def table_random(measured: Measured) -> None:
    heading("refused at random", "requests", "plain loop, 20 at once", "batch, 20", "batch, `auto`")
    ways = [("loop", 20), ("batch", 20), ("batch", "auto")]
    kinds = [(0.0, "429", n) for n in COUNTS]
    kinds += [(share, kind, n) for share in SHARES for kind in AS for n in COUNTS]
    found = measured.means("at_random", [(*kind, *way) for kind in kinds for way in ways])
    for i, (share, kind, count) in enumerate(kinds):
        times = [time for (time,) in found[3 * i : 3 * i + 3]]
        cells = [f"{t:.1f} s" for t in times[:1]]
        cells += [f"{t:.1f} s ({t / times[0]:.1f} times)" for t in times[1:]]
        row(f"{share:.0%} as {kind}" if share else "none", f"{count:,}", *cells)


def table_limits(measured: Measured) -> None:
    heading(f"{RATE} a second, counted by", "concurrency", "used", "refused after 10 s")
    cases = [(name, concurrency) for name in LIMITS for concurrency in (100, "auto")]
    for (name, concurrency), (used, refused) in zip(
        cases, measured.means("limited", cases), strict=True
    ):
        row(name, str(concurrency), f"{used:.1%}", f"{refused:.2%}")


def table_outages(measured: Measured) -> None:
    heading("fails with", "for", "batch, 20: longer than the outage by", "batch, `auto`")
    normal = measured.means("outage", [(*FAILURES[0], 0.0, None, c) for c in (20, "auto")])
    cases = [(*o, a, c) for o in OUTAGES for a in (None, 1.0) for c in (20, "auto")]
    found = measured.means("outage", cases)
    for i in range(0, len(cases), 2):
        status, message, seconds, after, _ = cases[i]
        cells = []
        for (time, failed), (usual, _) in zip(found[i : i + 2], normal, strict=True):
            bad = f", {failed:.0f} failed" if failed else ""
            cells.append(f"{time - usual - seconds:.1f} s{bad}")
        told = "" if after is None else f", `retry-after: {after:g}`"
        row(f"{status} {message}{told}", f"{seconds:.0f} s", *cells)


def table_single(measured: Measured) -> None:
    heading("one of 1,500 is refused with", "batch, 20", "batch, `auto`")
    cases = [(name, concurrency) for name in SINGLES for concurrency in (20, "auto")]
    found = measured.means("single", cases)
    for i, name in enumerate(SINGLES):
        times = [time for (time,) in found[2 * i : 2 * i + 2]]
        usual = [time for (time,) in found[:2]]
        cells = [f"{t:.1f} s ({t / u:.2f} times)" for t, u in zip(times, usual, strict=True)]
        row(name, *cells)


def table_latency(measured: Measured) -> None:
    heading("concurrency", *map(str, FIXED), "`auto`, its search included")
    found = measured.means("latency", [(c,) for c in (*FIXED, "auto")])
    row("answers a second", *(f"{rate:.1f}" for (rate,) in found))


TABLES = {
    "random": table_random,
    "limits": table_limits,
    "outages": table_outages,
    "single": table_single,
    "latency": table_latency,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each cell [3]")
    asked = parser.parse_args()
    unknown = set(asked.tables) - set(TABLES)
    if unknown:
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    measured = Measured(asked.seeds)
    for name in asked.tables or TABLES:
        TABLES[name](measured)


if __name__ == "__main__":
    main()
