"""Soak test: ``python benchmarks/soak.py [--seconds 300] [--streams 200]``.

Many streams run at once, each with a random fault of a server that is a process of its own. The
stream's number alone decides, on both sides, which outcome it must have (`soak_scenes`). It ends
with a report, and with status 1 if an outcome was wrong, memory grew, or a descriptor, a task, a
connection or a slot was left.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import trio
from soak_scenes import WIRES, Scene, prompt_of, scene

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import Reply, ServedRequest

WARM = 0.2
"""Share of the time after which memory is first measured: by then pools, caches and the ledger's
newest records have reached their size."""
GROWTH_MB = 8.0
"""Growth of memory between the two measurements, in MiB, that is accepted; a leak of one stream's
state, 5 KiB, would exceed it within a minute."""
LONG = 60.0
"""Shortest run, in seconds, whose memory is judged: in a shorter one caches still grow."""
CLOCKS = llm.Timeouts(connect=60.0, first_chunk=60.0, idle=8.0, byte_idle=60.0, usage_grace=0.3)
"""Generous, so that a slow machine is not taken for a fault; ``idle`` is one of the faults."""
SHOWN = 20
"""Most wrong outcomes that are listed."""


# -- the server ----------------------------------------------------------------------------------


def serve() -> None:
    """Run the server: print its port, and end when standard input is closed."""

    def answer(request: ServedRequest) -> Reply:
        return scene(int(prompt_of(request.json()))).reply

    async def main() -> None:
        async with testing.serve(answer) as server:
            print(server.port, flush=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(forget, server)
                await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()

    async def forget(server: testing.LoopbackServer) -> None:
        while True:
            await trio.sleep(1.0)
            server.requests.clear()

    trio.run(main)


# -- the client ----------------------------------------------------------------------------------


class Soak:
    """The streams of a run, and the counts of their outcomes."""

    def __init__(self, base_url: str, seed: int) -> None:
        self.models = {name: wire.model(base_url) for name, wire in WIRES.items()}
        self.numbers = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.count = 0

    async def worker(self, client: llm.Client, until: float) -> None:
        while trio.current_time() < until:
            number = self.numbers.randrange(2**40)
            planned = scene(number)
            try:
                got, text = await self.one(client, number, planned)
            except Exception as exc:
                got, text = f"foreign {type(exc).__name__}: {exc}", ""
            self.count += 1
            self.done[f"{planned.name.split()[0]}: {got}"] += 1
            self.done[f"on {planned.wire}"] += 1
            fits = text == planned.text if planned.whole else planned.text.startswith(text)
            if got not in planned.expected or not fits:
                self.wrong.append(f"{number} {planned.name} ({planned.wire}): {got}, text {fits}")

    async def one(self, client: llm.Client, number: int, planned: Scene) -> tuple[str, str]:
        """Run one stream, and return its outcome, or the class of its error, and its text."""
        model = self.models[planned.wire]
        scope = trio.CancelScope()
        stream = client.stream(model, str(number), timeouts=CLOCKS, retry=llm.Retry(attempts=1))
        try:
            with scope:
                async with stream:
                    async for _ in stream:
                        if planned.slow:
                            await trio.sleep(planned.slow)
                        if planned.leave and stream.accumulated:
                            if planned.leave == "leave":
                                break
                            if planned.leave == "cancel":
                                await stream.cancel()
                            elif planned.leave == "reject":
                                stream.reject()
                            else:
                                scope.cancel()
        except llm.MiniLLMError as exc:
            assert exc.partial is not None  # noqa: PT017
            return type(exc).__name__, exc.partial.content
        assert stream.outcome is not None
        return stream.outcome.value, stream.response.content


class Measure(NamedTuple):
    """The resources that the process holds."""

    rss_mb: float
    fds: int
    tasks: int

    @classmethod
    def now(cls) -> Measure:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        rss = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        fds = len(list(Path("/proc/self/fd").iterdir()))
        return cls(rss, fds, trio.lowlevel.current_statistics().tasks_living)


async def soak(base_url: str, seconds: float, streams: int, seed: int) -> int:
    work = Soak(base_url, seed)
    before = Measure.now()
    transport = llm.TrioTransport()
    measures: list[Measure] = []
    began = trio.current_time()
    async with llm.open_client(transport=transport) as client, trio.open_nursery() as nursery:
        for _ in range(streams):
            nursery.start_soon(work.worker, client, began + seconds)
        await trio.sleep(seconds * WARM)
        measures.append(Measure.now())
        await trio.sleep(seconds * (1 - WARM))
        measures.append(Measure.now())
    pool = transport.statistics()
    await transport.aclose()
    client = None  # type: ignore[assignment]
    after = Measure.now()
    problems = _problems(work, seconds, before, measures, after, pool)
    _report(work, seconds, measures, after, pool)
    for problem in problems:
        print("PROBLEM:", problem)
    return 1 if problems else 0


def _problems(
    work: Soak, seconds: float, before: Measure, measures: list[Measure], after: Measure, pool: Any
) -> list[str]:
    found = [f"wrong outcome: {one}" for one in work.wrong[:SHOWN]]
    grown = measures[1].rss_mb - measures[0].rss_mb
    if grown > GROWTH_MB and seconds >= LONG:
        found.append(f"memory grew by {grown:.1f} MiB")
    if after.fds > before.fds:
        found.append(f"{after.fds - before.fds} descriptors are left")
    if after.tasks > before.tasks:
        found.append(f"{after.tasks - before.tasks} tasks are left")
    if pool.active or pool.waiting:
        found.append(f"the pool still counts {pool.active} in use and {pool.waiting} waiting")
    if not work.count:
        found.append("no stream came to its end")
    return found


def _report(work: Soak, seconds: float, measures: list[Measure], after: Measure, pool: Any) -> None:
    for name, count in sorted(work.done.items()):
        print(f"  {count:8,}  {name}")
    print(f"{work.count:,} streams in {seconds:g} s, {len(work.wrong)} with another outcome")
    warm, end = measures
    print(f"memory: {warm.rss_mb:.1f} MiB at {WARM:.0%}, {end.rss_mb:.1f} at the end")
    print(
        f"connections: {pool.opened:,} opened, {pool.reused:,} times reused, {pool.active} in use"
    )
    print(f"left after the end: {after.fds} descriptors, {after.tasks} tasks (Trio's own)")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="to see a run's streams again")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    seed = given.seed if given.seed is not None else int(time.time())
    command = [sys.executable, __file__, "--serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        print(f"{given.streams} streams at once for {given.seconds:g} s, seed {seed}", flush=True)
        base_url = f"http://127.0.0.1:{port}"
        return trio.run(soak, base_url, given.seconds, given.streams, seed)
    finally:
        server.communicate("")


if __name__ == "__main__":
    sys.exit(main())
