"""Chunks per second and CPU per chunk, beside the obvious way and two floors.

``python benchmarks/bench.py`` (under 4 minutes; ``--quick`` under one). The method and its
limits are in ``docs/benchmarks.md``. Exits with 1 if a contender failed or got a wrong answer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import server

HERE = Path(__file__).parent
OURS = "ours"
CONTENDERS = {
    OURS: "trio_minillm",
    "httpx-sse": "httpx + httpx-sse + json",
    "httpx-sse-task": "the same + task, channel, idle clock",
    "httpx-bytes": "httpx aiter_bytes (no parsing)",
    "floor": "blocking socket + msgspec",
    "core-sse": "  our core: framing",
    "core-parse": "  our core: framing + parsing",
    "core-ingest": "  our core: framing + parsing + ingest",
}
PACED_SHARE = 10
"""A paced stream has this many times fewer chunks: its time is mostly pauses."""
CHILD_SECONDS = 120.0
"""How long one contender may run before it counts as failed."""


class Case(NamedTuple):
    """One row of the tables."""

    mode: str
    contender: str


Run = dict[str, Any]
"""What a contender's process reported, or ``{"failed": reason}``."""


def cases() -> list[Case]:
    """Every row. To the core, which knows no HTTP, ``merged`` is the same as ``paced``."""
    every = [Case(mode, contender) for mode in server.MODES for contender in CONTENDERS]
    return [c for c in every if not (c.mode == "merged" and c.contender.startswith("core"))]


def cores() -> tuple[int, int] | None:
    """A core for the contender and one for the server, where that can be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else None


def environment() -> dict[str, str]:
    """Without proxies, which must not stand between us and loopback."""
    return {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}


@contextmanager
def replay_server(cpu: list[str]) -> Iterator[int]:
    """The server as a process; yields its port."""
    command = [sys.executable, str(HERE / "server.py"), *cpu]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def chunks_of(mode: str, chunks: int) -> int:
    return max(chunks // PACED_SHARE, 2) if server.MODES[mode].paced else chunks


def run(case: Case, chunks: int, port: int, cpu: list[str]) -> Run:
    """Run one contender in a fresh process and check its answer."""
    command = [sys.executable, str(HERE / "contenders.py"), case.contender, case.mode]
    try:
        done = subprocess.run(
            [*command, str(chunks), str(port), *cpu],
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            env=environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {CHILD_SECONDS:g} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no words"])[-1]}
    result: Run = json.loads(done.stdout)
    if result["chunks"] != chunks:
        return {"failed": f"{result['chunks']} chunks instead of {chunks}"}
    if result["digest"] != server.digest(server.texts(chunks)):
        return {"failed": "the text is wrong"}
    return result


def measure(chunks: int, rounds: int) -> dict[Case, list[Run]]:
    """All rounds, interleaved, so that a noisy minute hits every contender."""
    results: dict[Case, list[Run]] = {case: [] for case in cases()}
    chosen = cores()
    mine, its = ([str(c)] for c in chosen) if chosen else ([], [])
    with replay_server(its) as port:
        for number in range(rounds):
            for case, runs in results.items():
                runs.append(run(case, chunks_of(case.mode, chunks), port, mine))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return results


def summary(runs: list[Run]) -> dict[str, Any]:
    """One row: microseconds of CPU per chunk over the rounds, or why it failed."""
    failed = [r["failed"] for r in runs if "failed" in r]
    if failed:
        return {"failed": failed[0]}
    cost = [r["cpu"] / (r["chunks"] - 1) * 1e6 for r in runs]  # the first is before the clock
    reads = [r["reads_per_chunk"] for r in runs if r["reads_per_chunk"] is not None]
    middle = statistics.median(cost)
    return {
        "cpu_us": middle,
        "cpu_us_min": min(cost),
        "cpu_us_max": max(cost),
        "chunks_per_cpu_second": 1e6 / middle,
        "wall_us": statistics.median(r["wall"] / (r["chunks"] - 1) * 1e6 for r in runs),
        "waits_per_chunk": statistics.median(r["waits"] / (r["chunks"] - 1) for r in runs),
        "reads_per_chunk": statistics.median(reads) if reads else None,
    }


def line(name: str, row: dict[str, Any], ours: float | None) -> str:
    if "failed" in row:
        return f"{name:40} FAILED: {row['failed']}"
    spread = f"[{row['cpu_us_min']:.2f}-{row['cpu_us_max']:.2f}]"
    ratio = f"{row['cpu_us'] / ours:.2f}" if ours else "-"
    reads = "-" if row["reads_per_chunk"] is None else f"{row['reads_per_chunk']:.3f}"
    waits = f"{row['waits_per_chunk']:.3f}"
    return (
        f"{name:40} {row['cpu_us']:8.2f} {spread:>17} {row['chunks_per_cpu_second']:10,.0f}"
        f" {ratio:>7} {reads:>7} {waits:>7}"
    )


def table(rows: dict[Case, dict[str, Any]]) -> str:
    """The rows of each mode under its title."""
    out: list[str] = []
    for mode, words in server.MODES.items():
        head = f"{'CPU us':>8} {'[min-max]':>17} {'chunks/s':>10} {'x ours':>7} {'reads':>7}"
        out += ["", f"{words.title:40} {head} {'waits':>7}"]
        ours = rows[Case(mode, OURS)].get("cpu_us")
        for case, row in rows.items():
            if case.mode == mode:
                out.append(line(CONTENDERS[case.contender], row, ours))
    return "\n".join(out)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    packages = ("trio-minillm", "trio", "httpx", "httpcore", "h11", "httpx-sse", "msgspec")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "pinned": cores() is not None,
        "packages": {name: version(name) for name in packages},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, help="chunks in an answer (default 20000)")
    parser.add_argument("--rounds", type=int, help="fresh processes per row (default 5)")
    parser.add_argument("--quick", action="store_true", help="4000 chunks, 2 rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers there")
    options = parser.parse_args()
    chunks = options.chunks or (4000 if options.quick else 20000)
    rounds = options.rounds or (2 if options.quick else 5)
    if chunks < 2 or rounds < 1:
        parser.error("at least 2 chunks and 1 round")
    results = measure(chunks, rounds)
    rows = {case: summary(runs) for case, runs in results.items()}
    about = machine()
    print(f"{chunks} chunks ({chunks_of('paced', chunks)} paced), {rounds} rounds; {about}")
    print(table(rows))
    print("\nchunks/s: of one core's CPU time; reads, waits: of the socket, per chunk", flush=True)
    if options.json:
        listed = [{**c._asdict(), **row, "runs": results[c]} for c, row in rows.items()]
        whole = {"chunks": chunks, "rounds": rounds, "machine": about, "rows": listed}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    return int(any("failed" in row for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
