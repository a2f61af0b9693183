"""Show where the cost of one short request goes: calls and CPU by room of the library.

``python benchmarks/request_profile.py [stream complete batch] [--requests N] [--top N] [--wire
openai|anthropic]``. Each way runs in a fresh process, one request after the other, against a server in
another. Calls are counted by `cProfile`, and depend on nothing but the code; its times are inflated
by the counting itself, so they show shares, and ``CPU`` is taken in a run without it.

A builtin, and a function of a library without rooms here, counts for the room that called it.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import multiprocessing
import os
import pstats
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench

import trio_minillm

PROMPT = "Why is the sea salty?"
WAYS = ("stream", "complete", "batch")
WARM_UP = 50
ROOT = Path(trio_minillm.__file__).parent
"""The package that is measured: this checkout's, or an installed one."""
LIBRARIES = ("trio", "httpx", "httpcore", "anyio", "asyncio")
"""Libraries that stand in the table by themselves."""


def room_of(file: str) -> str:
    """Return the room that a file belongs to; "" for a builtin or another library."""
    path = Path(file)
    if path.is_relative_to(ROOT):
        inside = path.relative_to(ROOT)
        return inside.parts[0].removesuffix(".py")
    for name in LIBRARIES:
        if f"{os.sep}{name}{os.sep}" in file:
            return name
    return ""


async def _sender(way: str, client: Any, model: Any, count: int) -> Callable[[], Awaitable[None]]:
    from trio_minillm.batch import BatchRequest

    async def stream() -> None:
        for _ in range(count):
            async with client.stream(model, PROMPT, max_tokens=5) as answer:
                async for _ in answer:
                    pass

    async def complete() -> None:
        for _ in range(count):
            await client.complete(model, PROMPT, max_tokens=5)

    async def batch() -> None:
        asked = (BatchRequest(f"r{n}", PROMPT, model, {"max_tokens": 5}) for n in range(count))
        async with client.batch(asked, concurrency=1) as results:
            async for _ in results:
                pass

    return {"stream": stream, "complete": complete, "batch": batch}[way]


def _client(way: str, wire: str, url: str, count: int, profiled: bool, out: Any) -> None:
    """Send the requests in this fresh process, and report through the pipe."""
    import trio

    import trio_minillm as llm

    make = llm.openai if wire == "openai" else llm.anthropic
    name = "short" if wire == "openai" else "short-anthropic"
    model = make(name, base_url=url + ("/v1" if wire == "openai" else ""), api_key="none")
    profile = cProfile.Profile()

    async def main() -> float:
        async with llm.open_client() as client:
            await (await _sender(way, client, model, WARM_UP))()
            send = await _sender(way, client, model, count)
            gc.collect()
            began = resource.getrusage(resource.RUSAGE_SELF)
            if profiled:
                profile.enable()
            await send()
            profile.disable()
            ended = resource.getrusage(resource.RUSAGE_SELF)
        return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    cpu = trio.run(main)
    out.send((cpu, pstats.Stats(profile).stats if profiled else None))  # type: ignore[attr-defined]


def run(*args: object) -> tuple[float, Any]:
    """Run a client in a process of its own, and return its CPU seconds and its profile."""
    spawned = multiprocessing.get_context("spawn")
    here, there = spawned.Pipe()
    process = spawned.Process(target=_client, args=(*args, there))
    process.start()
    there.close()
    told: tuple[float, Any] = here.recv()
    process.join()
    return told


def by_room(stats: dict[Any, Any]) -> tuple[Counter[str], Counter[str]]:
    """Return the calls and the seconds of each room.

    What has no room counts for its callers, in the shares in which they called it.
    """
    calls: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for (file, _, _), (_, count, own, _, callers) in stats.items():
        if room := room_of(file):
            calls[room] += count
            seconds[room] += own
            continue
        for (caller, _, _), (_, times, there, _) in callers.items():
            calls[room_of(caller) or "other"] += times
            seconds[room_of(caller) or "other"] += there
    return calls, seconds


def top(stats: dict[Any, Any], count: int, most: int) -> Iterator[str]:
    """Return lines about the functions that took the most time."""
    found = sorted(stats.items(), key=lambda item: -item[1][2])
    for (file, line, name), (_, calls, own, _, _) in found[:most]:
        where = f"{Path(file).parent.name}/{Path(file).name}:{line}" if line else ""
        yield f"{calls / count:8.1f} {own / count * 1e6:8.1f} µs  {where} {name}"


@contextmanager
def _serving() -> Iterator[str]:
    _, its = bench.cores() or (None, None)
    with bench.replay_server(its) as urls:
        yield urls["many"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ways", nargs="*", default=WAYS, metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--requests", type=int, default=300, help="of each way (default: 300)")
    parser.add_argument("--top", type=int, default=0, help="also list so many functions")
    parser.add_argument("--wire", choices=("openai", "anthropic"), default="openai")
    options = parser.parse_args()
    count = options.requests
    tables = {}
    with _serving() as url:
        for way in options.ways:
            cpu, _ = run(way, options.wire, url, count, False)
            _, stats = run(way, options.wire, url, count, True)
            tables[way] = (cpu / count * 1e6, *by_room(stats))
            if options.top:
                print(f"{way}: calls per request, own time, function")
                print(*top(stats, count, options.top), sep="\n")
    print(f"<!-- {os.cpu_count()} cores, Python {sys.version.split()[0]}, {options.wire} -->")
    print(f"| room |{''.join(f' {way}: calls | share |' for way in tables)}")
    print(f"| --- |{' --- | --- |' * len(tables)}")
    rooms = Counter[str]()
    for _, calls, _ in tables.values():
        rooms |= calls
    for room, _ in rooms.most_common():
        cells = "".join(
            f" {calls[room] / count:.0f} | {seconds[room] / seconds.total():.0%} |"
            for _, calls, seconds in tables.values()
        )
        print(f"| `{room}` |{cells}")
    totals = "".join(
        f" {calls.total() / count:.0f} | {cpu:.0f} µs |" for cpu, calls, _ in tables.values()
    )
    print(f"| all; CPU per request |{totals}")


if __name__ == "__main__":
    main()
