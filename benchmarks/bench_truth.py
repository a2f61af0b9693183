"""Check ``trio-minillm bench`` against servers whose timing is known.

``python benchmarks/bench_truth.py`` runs ``trio-minillm serve`` and ``trio-minillm bench`` in processes of
their own, and compares each figure with the same one out of the server's log: it must be within 1 ms or 1 %
(and twice the time by which the machine itself is late to wake a process up, which is measured beside it), or
marked as unreliable by the benchmark's own audit. Then it puts Poisson arrivals on servers of few places,
and compares the waits with what queueing theory says, for these arrivals and in the mean.

The exit code is 1 if a figure is wrong and not marked.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import trio

import trio_minillm as llm
from trio_minillm._bench.arrivals import offsets
from trio_minillm._bench.audit.stamps import Lags, open_stamped_transport
from trio_minillm._bench.engine import Engine
from trio_minillm._bench.figures.spread import Spread, spread_of
from trio_minillm._bench.plan import Open, Plan
from trio_minillm._bench.prompts.prompt import Prompt
from trio_minillm._bench.record import Record

COMMAND = [sys.executable, "-m", "trio_minillm.cli"]
ABSOLUTE, RELATIVE = 0.001, 0.01
"""A figure is right within so many seconds, or within this share of it."""
TOKENS = 32
WARMUP = 10
"""Requests before those that meet the queue."""
SHOWN = ("mean", "p50", "p99")
CASES: dict[str, list[str]] = {
    "plain": [],
    "4 tokens a chunk": ["--tokens-per-chunk=4"],
    "4 tokens a chunk, running usage": ["--tokens-per-chunk=4", "--usage=running"],
    "late usage": ["--usage=late"],
    "openings first": ["--opening"],
    "reasoning": ["--reasoning=8"],
}
Served: TypeAlias = list[dict[str, Any]]


@contextmanager
def serving(log: Path, *options: str) -> Iterator[str]:
    """Run a timed server for the length of a block, and give its address."""
    command = [*COMMAND, "serve", "--port=0", "--json", "--quiet", f"--log={log}", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["base_url"]
        finally:
            process.terminate()


class Machine:
    """The times by which this machine wakes a thread up late, in seconds."""

    def __init__(self) -> None:
        self.late: list[float] = []

    def at(self, which: str) -> float:
        """Return one figure of them: ``mean``, ``p50`` …"""
        return spread_of(self.late).at(which) or 0.0


@contextmanager
def machine() -> Iterator[Machine]:
    """Watch how late this machine wakes a thread up, for the length of a block."""
    found, over = Machine(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            due = time.perf_counter() + 0.005
            time.sleep(0.005)
            found.late.append(time.perf_counter() - due)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def measured(base_url: str, *options: str) -> dict[str, Any]:
    """Run the benchmark, and return its only point."""
    command = [*COMMAND, "bench", "--model=compatible:timed", f"--base-url={base_url}", "--json"]
    command += ["--quiet", f"--max-tokens={TOKENS}", *options]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    point: dict[str, Any] = json.loads(ran.stdout)["points"][0]
    return point


def truth(served: Served, reasoning: int) -> dict[str, Spread]:
    """Return the same figures out of the server's log."""
    found: dict[str, list[float]] = {
        "ttft": [],
        "ttft_text": [],
        "ttft_reasoning": [],
        "itl": [],
        "itl_token": [],
        "itl_max": [],
        "tpot": [],
        "e2e": [],
    }
    weights: list[int] = []
    for one in served:
        sent, tokens, received = one["sent"], one["tokens"], one["received"]
        gaps = np.diff(sent)
        thought = int(np.searchsorted(np.cumsum(tokens), reasoning)) + 1 if reasoning else 0
        found["ttft"].append(sent[0] - received)
        found["ttft_text"].append(sent[thought] - received)
        if reasoning:
            found["ttft_reasoning"].append(sent[0] - received)
        found["itl"] += gaps.tolist()
        found["itl_token"] += (gaps / tokens[1:]).tolist()
        weights += tokens[1:]
        found["itl_max"].append(gaps.max())
        found["tpot"].append((sent[-1] - sent[0]) / sum(tokens[1:]))
        found["e2e"].append(sent[-1] - received)
    spreads = {name: spread_of(values) for name, values in found.items() if name != "itl_token"}
    spreads["itl_token"] = spread_of(found["itl_token"], np.array(weights, dtype=float))
    return spreads


def compared(
    point: dict[str, Any], expected: dict[str, Spread], late: Machine, *, exact: bool
) -> tuple[int, int]:
    """Print each figure beside the true one. Returns the number of wrong ones, and of marked ones.

    Two processes are woken up for each time, by a machine that is late itself: that is allowed as well.
    Unless it is ``exact``, the tokens of each content were not told, so that the times by token are
    estimates, and no claim.
    """
    wrong = marked = 0
    for name, true in expected.items():
        told, reason = point["latency"][name], point["audit"]["unreliable"].get(name)
        if not true.count or (name in ("itl_token", "tpot") and not exact):
            continue
        marked += reason is not None
        parts = []
        for which in SHOWN:
            mine, its = told[which], true.at(which)
            assert its is not None
            allowed = max(ABSOLUTE, RELATIVE * its) + 2 * late.at(which)
            right = abs(mine - its) <= allowed
            wrong += not right and reason is None
            sign = " " if right else "!"
            parts.append(f"{which} {its * 1000:9.3f} {(mine - its) * 1000:+8.3f}{sign}")
        print(f"  {name:15} {' '.join(parts)} {'marked: ' + reason if reason else ''}")
    return wrong, marked


def timing(name: str, concurrency: int, requests: int) -> int:
    """Measure one case, and return the number of wrong figures."""
    options = CASES[name]
    warmup = concurrency
    with TemporaryDirectory() as folder:
        log = Path(folder) / "served.jsonl"
        with serving(log, *options) as base_url, machine() as late:
            point = measured(
                base_url,
                f"--concurrency={concurrency}",
                f"--requests={requests}",
                f"--warmup={warmup}",
            )
        served = [json.loads(line) for line in log.read_text().splitlines()]
    counted = [one for one in served if one["number"] >= warmup and one["ended"] == "whole"]
    assert point["counts"]["outcomes"] == {"finished": requests} == {"finished": len(counted)}
    print(
        f"{name}, {concurrency:,} at once, {requests:,} requests; ms by the server, and difference"
    )
    reasoning = next((int(o.partition("=")[2]) for o in options if "reasoning" in o), 0)
    exact = "running" in str(options) or "per-chunk" not in str(options)
    wrong, marked = compared(point, truth(counted, reasoning), late, exact=exact)
    print(f"  {point['audit']['verdict']}")
    wakes = ", ".join(f"{which} {late.at(which) * 1000:.2f}" for which in SHOWN)
    print(f"  {wrong} wrong, {marked} marked; this machine wakes up late by {wakes} ms\n")
    return wrong


# -- queues --------------------------------------------------------------------------------


def waits_of(arrivals: list[float], services: list[float], places: int) -> list[float]:
    """Return the wait of each arrival at a server of so many places, first come, first served."""
    free = [0.0] * places
    waits = []
    for at, service in zip(arrivals, services, strict=True):
        begin = max(at, heapq.heappop(free))
        heapq.heappush(free, begin + service)
        waits.append(begin - at)
    return waits


def _number(one: dict[str, Any]) -> int:
    return int(one["number"])


def mean_wait(load: float, service: float, places: int) -> float:
    """Return the mean wait of M/D/c: exact for one place, else half of M/M/c's, which is close."""
    offered = load * places
    terms = [offered**k / math.factorial(k) for k in range(places)]
    last = offered**places / math.factorial(places) / (1 - load)
    waiting = last / (sum(terms) + last)
    return waiting * service / (places * (1 - load)) / 2


async def observed(base_url: str, load: Open, requests: int) -> tuple[list[Record], str]:
    """Return the records of Poisson arrivals, and the audit's verdict."""
    records: list[Record] = []
    lags = Lags()
    async with (
        open_stamped_transport(lags) as transport,
        llm.open_client(transport=transport) as client,
    ):
        model = llm.compatible("timed", base_url=base_url)
        engine = Engine(client, model, sink=records.append, lags=lags)
        prompts = (Prompt(messages="hi"),)
        plan = Plan(
            prompts=prompts, load=load, requests=requests, warmup=WARMUP, params={"max_tokens": 1}
        )
        point = await engine.measure(plan)
    counted = [record for record in records if record.phase == "measured"]
    return sorted(counted, key=lambda record: record.number), point.audit.verdict


def queue(places: int, load: float, service: float, requests: int) -> int:
    """Put Poisson arrivals on a server of few places. Returns the number of wrong means."""
    arrivals = Open(rate=load * places / service, burstiness=1.0)
    with TemporaryDirectory() as folder:
        log = Path(folder) / "served.jsonl"
        with serving(log, f"--slots={places}", f"--ttft={service}", "--tokens=1") as base_url:
            with machine() as late:
                records, verdict = trio.run(observed, base_url, arrivals, requests)
        served = [json.loads(line) for line in log.read_text().splitlines()]
    served = sorted((one for one in served if one["number"] >= WARMUP), key=_number)
    services = [one["sent"][0] - one["received"] - one["queued"] for one in served]
    times = [at for at, _ in zip(offsets(arrivals, 0), range(requests), strict=False)]
    ideal = float(np.mean(waits_of(times, [service] * requests, places)))
    expected = float(np.mean(waits_of(times, services, places)))
    theory = mean_wait(load, service, places)
    print(
        f"M/D/{places}, load {load}, service {service * 1000:g} ms, {requests:,} requests: mean wait"
    )
    print(
        f"  in theory {theory * 1000:.2f} ms; for these arrivals {ideal * 1000:.2f} ms; and with the"
    )
    print(
        f"  service of the server's log, whose mean is {np.mean(services) * 1000:.2f} ms,", end=" "
    )
    print(f"{expected * 1000:.2f} ms")
    wrong = 0
    for name, begin in (("scheduled", "scheduled"), ("sent", "sent")):
        waits = [
            (record.first or 0.0) - getattr(record, begin) - took
            for record, took in zip(records, services, strict=True)
        ]
        mean = float(np.mean(waits))
        right = abs(mean - expected) <= max(ABSOLUTE, RELATIVE * expected) + 2 * late.at("mean")
        wrong += not right
        print(f"  measured from the {name} instant {mean * 1000:.2f} ms{'' if right else ' !'}")
    # The variance of a mean of correlated waits is below that of M/M/1 with the same load.
    variance = load * (2 + 5 * load - 4 * load**2 + load**3) / (1 - load) ** 4 * service**2
    allowed = 4 * math.sqrt(variance / requests)
    right = abs(ideal - theory) <= allowed
    print(f"  these arrivals are within {allowed * 1000:.1f} ms of theory: {right}\n  {verdict}\n")
    return wrong + (not right)


def main() -> None:
    """Check all of it. The exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 50, 1000])
    parser.add_argument("--rounds", type=int, default=4, help="requests for each stream at once")
    parser.add_argument("--arrivals", type=int, default=2000)
    options = parser.parse_args()
    wrong = 0
    for concurrency in options.at_once:
        for name in CASES:
            wrong += timing(name, concurrency, max(20, options.rounds * concurrency))
    if options.arrivals:
        wrong += queue(1, 0.7, 0.05, options.arrivals)
        wrong += queue(4, 0.8, 0.2, options.arrivals)
    print("all right" if not wrong else f"{wrong} figures are wrong and not marked")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
