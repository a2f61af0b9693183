"""Check ``trio-minillm bench`` against servers whose timing is known.

``python benchmarks/bench_truth.py`` runs ``trio-minillm serve`` in a process of its own and the benchmark's
engine in this one, and compares each figure with the same one out of the server's log: it must be within 1 ms or 1 %
(and twice the time by which the machine itself is late to wake a process up, which is measured beside it), or
marked as unreliable by the benchmark's own audit. Then it puts Poisson arrivals on servers of few places,
and compares the waits with what queueing theory says, for these arrivals and in the mean.

The exit code is 1 if a figure is wrong and not marked.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import math
import subprocess
import sys
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
from trio_minillm._bench.plan import Closed, Open, Plan
from trio_minillm._bench.prompts.prompt import Prompt
from trio_minillm._bench.record import Record
from trio_minillm._bench.run import Point

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
Served: TypeAlias = dict[str, dict[str, Any]]


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
            process.stdout.read()


class Machine:
    """The times by which this machine wakes a process up late, in seconds."""

    def __init__(self) -> None:
        self.late = spread_of([])

    def at(self, which: str) -> float:
        """Return one figure of them: ``mean``, ``p50`` …"""
        return self.late.at(which) or 0.0


WATCH = """
import json, signal, sys, time
late = []
signal.signal(signal.SIGTERM, lambda *_: (print(json.dumps(late)), sys.exit()))
while True:
    due = time.perf_counter() + 0.005
    time.sleep(0.005)
    late.append(time.perf_counter() - due)
"""


@contextmanager
def machine() -> Iterator[Machine]:
    """Watch how late this machine wakes a process up, for the length of a block."""
    found = Machine()
    with subprocess.Popen([sys.executable, "-c", WATCH], stdout=subprocess.PIPE) as process:
        try:
            yield found
        finally:
            process.terminate()
            assert process.stdout is not None
            found.late = spread_of(json.loads(process.stdout.read() or "[]"))


async def measured(base_url: str, plan: Plan) -> tuple[list[Record], Point]:
    """Run the benchmark's engine, and return the records that count, in order, and its point."""
    records: list[Record] = []
    lags = Lags()
    async with (
        open_stamped_transport(lags) as transport,
        llm.open_client(transport=transport) as client,
    ):
        model = llm.compatible("timed", base_url=base_url)
        point = await Engine(client, model, sink=records.append, lags=lags).measure(plan)
    counted = [record for record in records if record.phase == "measured"]
    return sorted(counted, key=lambda record: record.number), point


def served_of(log: Path) -> Served:
    """Return the server's records by the ids of requests."""
    return {one["id"]: one for one in map(json.loads, log.read_text().splitlines())}


def truth(records: list[Record], served: Served, reasoning: int) -> dict[str, Spread]:
    """Return the same figures with the times at which the server sent.

    The times begin when the request was out: what it takes the server to read it is the server's own.
    """
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
    for record in records:
        one = served[record.request_id or ""]
        sent, tokens = one["sent"], one["tokens"]
        gaps = np.diff(sent)
        thought = int(np.searchsorted(np.cumsum(tokens), reasoning)) + 1 if reasoning else 0
        found["ttft"].append(sent[0] - record.sent)
        found["ttft_text"].append(sent[thought] - record.sent)
        if reasoning:
            found["ttft_reasoning"].append(sent[0] - record.sent)
        found["itl"] += gaps.tolist()
        found["itl_token"] += (gaps / tokens[1:]).tolist()
        weights += tokens[1:]
        found["itl_max"].append(gaps.max())
        found["tpot"].append((sent[-1] - sent[0]) / sum(tokens[1:]))
        found["e2e"].append(sent[-1] - record.sent)
    spreads = {name: spread_of(values) for name, values in found.items() if name != "itl_token"}
    spreads["itl_token"] = spread_of(found["itl_token"], np.array(weights, dtype=float))
    return spreads


def compared(point: Point, expected: dict[str, Spread], late: Machine) -> tuple[int, int]:
    """Print each figure beside the true one. Returns the number of wrong ones, and of marked ones.

    Two processes are woken up for each time, by a machine that is late itself: that is allowed as well.
    """
    wrong = marked = 0
    for name, true in expected.items():
        told, reason = point.figures.latency[name], point.audit.unreliable.get(name)
        if not true.count:
            continue
        marked += reason is not None
        parts = []
        for which in SHOWN:
            mine, its = told.at(which), true.at(which)
            assert mine is not None
            assert its is not None
            allowed = max(ABSOLUTE, RELATIVE * its) + 2 * late.at(which)
            right = abs(mine - its) <= allowed
            # A pause of the machine is the longest of the few values that it hits.
            excused = bool(point.audit.stolen) and (name == "itl_max" or which == "p99")
            wrong += not right and reason is None and not excused
            sign = " " if right else "!"
            parts.append(f"{which} {its * 1000:9.3f} {(mine - its) * 1000:+8.3f}{sign}")
        print(f"  {name:15} {' '.join(parts)} {'marked: ' + reason if reason else ''}")
    return wrong, marked


def timing(name: str, concurrency: int, requests: int, itl: float) -> int:
    """Measure one case, and return the number of wrong figures."""
    options = [*CASES[name], f"--itl={itl:g}"]
    plan = Plan(
        prompts=(Prompt(messages="Tell me a story."),),
        load=Closed(concurrency=concurrency),
        requests=requests,
        warmup=concurrency,
        params={"max_tokens": TOKENS},
    )
    with TemporaryDirectory() as folder:
        log = Path(folder) / "served.jsonl"
        with serving(log, *options) as base_url, machine() as late:
            records, point = trio.run(measured, base_url, plan)
        served = served_of(log)
    assert point.figures.outcomes == {"finished": requests}
    print(
        f"{name}, {concurrency:,} at once, {requests:,} requests; ms by the server, and difference"
    )
    reasoning = next((int(o.partition("=")[2]) for o in options if "reasoning" in o), 0)
    wrong, marked = compared(point, truth(records, served, reasoning), late)
    print(f"  {point.audit.verdict}")
    ways = spread_of([served[r.request_id or ""]["received"] - r.sent for r in records])
    texts = [
        " ".join(f"{which} {(spread.at(which) or 0.0) * 1000:.2f}" for which in SHOWN)
        for spread in (ways, late.late)
    ]
    print(f"  requests were read after {texts[0]} ms; this machine wakes up late by {texts[1]} ms")
    print(f"  {wrong} wrong, {marked} marked\n")
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


def mean_wait(load: float, service: float, places: int) -> float:
    """Return the mean wait of M/D/c: exact for one place, else half of M/M/c's, which is close."""
    offered = load * places
    terms = [offered**k / math.factorial(k) for k in range(places)]
    last = offered**places / math.factorial(places) / (1 - load)
    waiting = last / (sum(terms) + last)
    return waiting * service / (places * (1 - load)) / 2


def queue(places: int, load: float, service: float, requests: int) -> int:
    """Put Poisson arrivals on a server of few places. Returns the number of wrong means."""
    arrivals = Open(rate=load * places / service, burstiness=1.0)
    plan = Plan(
        prompts=(Prompt(messages="hi"),),
        load=arrivals,
        requests=requests,
        warmup=WARMUP,
        params={"max_tokens": 1},
    )
    with TemporaryDirectory() as folder:
        log = Path(folder) / "served.jsonl"
        options = (f"--slots={places}", f"--ttft={service}", "--tokens=1")
        with serving(log, *options) as base_url, machine() as late:
            records, point = trio.run(measured, base_url, plan)
        served = served_of(log)
    answers = [served[record.request_id or ""] for record in records]
    services = [one["sent"][0] - one["received"] - one["queued"] for one in answers]
    times = [at for at, _ in zip(offsets(arrivals, 0), range(requests), strict=False)]
    ideal = float(np.mean(waits_of(times, [service] * requests, places)))
    theory = mean_wait(load, service, places)
    print(
        f"M/D/{places}, load {load}, service {service * 1000:g} ms, {requests:,} requests: mean wait"
    )
    print(f"  in theory {theory * 1000:.2f} ms; for these arrivals {ideal * 1000:.2f} ms")
    read = float(
        np.mean([one["received"] - r.sent for one, r in zip(answers, records, strict=True)])
    )
    print(
        f"  by the server's log: service {np.mean(services) * 1000:.2f} ms, read after {read * 1000:.2f} ms"
    )
    wrong = 0
    for name in ("sent", "scheduled"):
        begins = [getattr(record, name) for record in records]
        waits = [
            (record.first or 0.0) - begin - took
            for record, begin, took in zip(records, begins, services, strict=True)
        ]
        its = [
            one["received"] + one["queued"] - begin
            for one, begin in zip(answers, begins, strict=True)
        ]
        mean, expected = float(np.mean(waits)), float(np.mean(its))
        right = abs(mean - expected) <= max(ABSOLUTE, RELATIVE * expected) + 2 * late.at("mean")
        wrong += not right
        print(f"  from the {name} instants {mean * 1000:.2f} ms, by the log", end=" ")
        print(f"{expected * 1000:.2f} ms{'' if right else ' !'}")
    marked = "ttft_scheduled" in point.audit.unreliable
    near = abs(mean - ideal) <= 0.1 * ideal + read
    wrong += not near and not marked
    print(f"  within 10 % of those arrivals' own: {near}{', marked' if marked else ''}")
    # The variance of a mean of correlated waits is below that of M/M/1 with the same load.
    variance = load * (2 + 5 * load - 4 * load**2 + load**3) / (1 - load) ** 4 * service**2
    allowed = 4 * math.sqrt(variance / requests)
    right = abs(ideal - theory) <= allowed
    print(
        f"  these arrivals are within {allowed * 1000:.1f} ms of theory: {right}\n  {point.audit.verdict}\n"
    )
    return wrong + (not right)


def main() -> None:
    """Check all of it. The exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 50, 1000])
    parser.add_argument("--rounds", type=int, default=4, help="requests for each stream at once")
    parser.add_argument("--itl", type=float, default=0.02, help="seconds between contents")
    parser.add_argument("--arrivals", type=int, default=2000)
    options = parser.parse_args()
    gc.freeze()  # as the command does
    wrong = 0
    for concurrency in options.at_once:
        for name in CASES:
            requests = max(20, options.rounds * concurrency)
            wrong += timing(name, concurrency, requests, options.itl)
    if options.arrivals:
        wrong += queue(1, 0.7, 0.05, options.arrivals)
        wrong += queue(4, 0.8, 0.2, options.arrivals)
        wrong += queue(4, 0.8, 0.016, options.arrivals)  # 200 requests a second
    print("all right" if not wrong else f"{wrong} figures are wrong and not marked")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
