"""Measure what a batch costs compared with a bare loop, and how it copes with servers' limits.

``python benchmarks/batch.py overhead [REQUESTS]`` · ``pairs [ROUNDS [REQUESTS]]`` · ``paced
[REQUESTS]`` · ``rate [SECONDS [REQUESTS_A_MINUTE]]`` · ``load [SECONDS]``. Each run has a server
process and a client process of its own. Prints a table in Markdown.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import open_files

CONCURRENCY = 2_000
DELAY = 4.0
"""Seconds until an answer, so that all requests are under way at once."""
PROMPT = "Why is the sea salty?"
HERE = Path(__file__).parent


@contextmanager
def serving(**options: object) -> Iterator[tuple[int, Any]]:
    """Run a server; yield its port, and a function that returns what it has counted."""
    words = [f"{name}={value}" for name, value in options.items()]
    with subprocess.Popen(
        [sys.executable, HERE / "batch_server.py", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())

        def counted() -> dict[str, list[float]]:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return json.loads(process.stdout.readline())  # type: ignore[union-attr]

        try:
            yield port, counted
        finally:
            process.stdin.close()


def _kib() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


class Task(NamedTuple):
    """The work of a client's process."""

    kind: str
    """``bare``, a loop of `Client.complete` in as many tasks as the concurrency; or ``batch``."""
    port: int
    count: int | None
    """Number of requests; ``None`` for as many as there is time for."""
    concurrency: Any
    seconds: float = math.inf
    warm_up: int = 200
    """Unmeasured requests of a bare loop beforehand, and one of a batch: imports, caches, first
    connections."""


def _requests(model: Any, count: int | None) -> Iterator[Any]:
    from trio_minillm.batch import BatchRequest

    for number in itertools.count(1) if count is None else range(1, count + 1):
        yield BatchRequest(f"r{number}", PROMPT, model, {"max_tokens": 5})


async def _bare(client: Any, model: Any, count: int, at_once: int) -> None:
    import trio

    numbers = iter(range(count))

    async def worker() -> None:
        for _ in numbers:
            await client.complete(model, PROMPT, max_tokens=5)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)


def _client(task: Task, out: Any) -> None:
    """Send the requests in this fresh process, and report their cost through the pipe."""
    import trio

    import trio_minillm as llm

    open_files.raise_limit()
    model = llm.compatible("short", base_url=f"http://127.0.0.1:{task.port}/v1")

    async def batch(client: llm.Client, count: int | None) -> dict[str, Any]:
        asked = _requests(model, count)
        async with client.batch(asked, concurrency=task.concurrency) as results:
            with trio.move_on_after(task.seconds):
                async for _ in results:
                    pass
            found = results.statistics()
            return {"done": found.ok, "limit": found.concurrency, "statistics": str(found)}

    async def main() -> dict[str, Any]:
        async with llm.open_client() as client:
            await _bare(client, model, task.warm_up, 50)
            if task.warm_up:
                await batch(client, 1)
            gc.collect()
            began, cpu = time.monotonic(), time.process_time()
            user = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            told: dict[str, Any] = {"began": began}
            if task.kind == "bare":
                await _bare(client, model, task.count or 0, task.concurrency)
            else:
                told |= await batch(client, task.count)
            told["cpu"] = time.process_time() - cpu
            told["wall"] = time.monotonic() - began
            told["user"] = resource.getrusage(resource.RUSAGE_SELF).ru_utime - user
        return {**told, "kib": _kib()}

    out.send(trio.run(main))


def run(task: Task) -> dict[str, Any]:
    """Run a task in a process of its own, and return its report."""
    spawned = multiprocessing.get_context("spawn")
    here, there = spawned.Pipe()
    process = spawned.Process(target=_client, args=(task, there))
    process.start()
    there.close()
    told: dict[str, Any] = here.recv()
    process.join()
    return told


def overhead(most: int) -> None:
    """Compare CPU and memory with a bare loop of `Client.complete`, in turns."""
    print("| | requests | CPU, µs each | wall, s | peak, MiB |\n| --- | --- | --- | --- | --- |")
    with serving(delay=DELAY) as (port, counted):
        for count in (10_000, 10_000, most) if most > 10_000 else (most, most):
            for kind in ("bare", "batch"):
                told = run(Task(kind, port, count, CONCURRENCY))
                each, mib = told["cpu"] / count * 1e6, told["kib"] / 1024
                print(
                    f"| {kind} | {count:,} | {each:.0f} | {told['wall']:.1f} | {mib:.0f} |",
                    flush=True,
                )
                counted()


def pairs(rounds: int, count: int) -> None:
    """Compare CPU with a bare loop at several concurrencies: medians over pairs of fresh processes,
    which run at the same time, so that both meet the same neighbours.

    User time alone, since the kernel's depends on how answers happen to fall together.
    """
    print("| at once | bare, µs of user CPU each | batch | ratio | difference, µs |")
    print("| --- | --- | --- | --- | --- |")
    for concurrency, delay in ((1, 0.0), (50, 0.05), (1_000, 1.0)):
        found = []
        with serving(delay=delay) as (port, _):
            for _ in range(rounds):
                tasks = [Task(kind, port, count, concurrency) for kind in ("bare", "batch")]
                with ThreadPoolExecutor(len(tasks)) as pool:
                    found.append([told["user"] / count * 1e6 for told in pool.map(run, tasks)])
        bare, batch = (statistics.median(column) for column in zip(*found, strict=True))
        # So few requests that their time is too short to be counted have no ratio.
        ratio = statistics.median(b / a if a else math.nan for a, b in found)
        more = statistics.median(with_batch - alone for alone, with_batch in found)
        print(
            f"| {concurrency:,} | {bare:.0f} | {batch:.0f} | {ratio:.3f} | {more:.0f} |", flush=True
        )


def paced(most: int, pace: float = 500.0) -> None:
    """Compare wall time with that of a server whose pace is the limit."""
    print("| requests | concurrency | at the server's pace, s | batch, s | ratio |")
    print("| --- | --- | --- | --- | --- |")
    delay = CONCURRENCY / pace
    with serving(delay=delay) as (port, _):
        told = run(Task("batch", port, most, CONCURRENCY))
        least = -(-most // CONCURRENCY) * delay
        ratio = told["wall"] / least
        print(f"| {most:,} | {CONCURRENCY:,} | {least:.1f} | {told['wall']:.1f} | {ratio:.2f} |")


def rate(seconds: float, per_minute: int = 3_000) -> None:
    """Measure a server that allows a number of requests a minute, and has had none before."""
    print(f"{per_minute:,} requests a minute, for {seconds:.0f} s\n")
    print("| counts by | tells | concurrency | used | refused after 10 s |")
    print("| --- | --- | --- | --- | --- |")
    for counts, tell in itertools.product(("bucket", "window", "log"), ("no", "yes")):
        for concurrency in (100, "auto"):
            options = {"per_minute": per_minute, "counts": counts, "tell": tell, "delay": 0.5}
            with serving(**options) as (port, counted):
                began = run(Task("batch", port, None, concurrency, seconds, 0))["began"]
                told = counted()
            late = {k: [t for t in v if t > began + 10] for k, v in told.items()}
            sent = len(late["accepted"]) + len(late["refused"])
            used = len(told["accepted"]) / (per_minute * seconds / 60)
            share = len(late["refused"]) / max(1, sent)
            print(f"| {counts} | {tell} | {concurrency} | {used:.1%} | {share:.2%} |", flush=True)


def load(seconds: float) -> None:
    """Compare fixed concurrencies with ``"auto"`` at a server that slows down under load."""
    print("| concurrency | answers a second |\n| --- | --- |")
    for concurrency in (8, 16, 24, 32, 48, 64, 96, "auto"):
        with serving(delay=0.2, knee=32) as (port, _):
            told = run(Task("batch", port, None, concurrency, seconds))
        found = f" (ends at {told['limit']})" if concurrency == "auto" else ""
        print(f"| {concurrency}{found} | {told['done'] / seconds:.1f} |", flush=True)


def main() -> None:
    what, *more = sys.argv[1:] or ["overhead"]
    number, *rest = [float(word) for word in more] or [None]
    print(f"<!-- {os.cpu_count()} cores, Python {sys.version.split()[0]} -->")
    if what == "overhead":
        overhead(int(number or 100_000))
    elif what == "pairs":
        pairs(int(number or 15), *map(int, rest or [2_000]))
    elif what == "paced":
        paced(int(number or 20_000))
    elif what == "rate":
        rate(number or 120, *map(int, rest))
    else:
        load(number or 30)


if __name__ == "__main__":
    main()
