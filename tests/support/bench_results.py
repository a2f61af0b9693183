"""Results of benchmarks, made of records as a run makes them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from trio_minillm._bench.kept import Kept
from trio_minillm._bench.output.record_files import RecordFile
from trio_minillm._bench.plan import Closed, Load
from trio_minillm._bench.record import Failure, Record
from trio_minillm._bench.run import Point, Result

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG: dict[str, Any] = {"model": "compatible:m", "base_url": "http://h/v1", "seed": 0}
BEGAN = 1000.0
"""Time of the first request, on the monotonic clock."""


def answered(number: int, ttft: float = 0.1, gap: float = 0.01, **fields: Any) -> Record:
    """The record of a whole answer of ten chunks, each a token."""
    sent = BEGAN + number * 0.05
    stamps = [sent + ttft + n * gap for n in range(10)]
    usual: dict[str, Any] = {
        "number": number,
        "scheduled": sent,
        "sent": sent,
        "ended": stamps[-1] + 0.001,
        "stamps": stamps,
        "first_text": stamps[0],
        "outcome": "finished",
        "reason": "stop",
        "prompt_tokens": 20,
        "output_tokens": 10,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
    }
    return Record(**usual | fields)


def failed(number: int, message: str = "oops", **fields: Any) -> Record:
    """The record of a request that the server refused."""
    sent = BEGAN + number * 0.05
    failure = Failure(type="RefusedError", kind="server", status=500, message=message)
    usual = {"scheduled": sent, "sent": sent, "ended": sent + 0.01, "failure": failure}
    return Record(number=number, outcome="errored", **{**usual, **fields})


def many(count: int, *, slower: float = 1.0, seed: int = 0, of: int = 0) -> list[Record]:
    """Whole answers whose times depend on the prompt, and a little on chance."""
    prompts, noise = random.Random(7), random.Random(seed)
    found = []
    for number in range(count):
        own = prompts.uniform(0.05, 0.5)
        ttft = own * slower * noise.uniform(0.98, 1.02)
        found.append(answered(number + of, ttft, 0.01 * slower * noise.uniform(0.9, 1.1)))
    return found


def point(records: Iterable[Record], load: Load | None = None, **more: Any) -> Point:
    kept = Kept(steady=more.pop("steady", False), objective=more.pop("objective", None))
    for record in records:
        kept.add(record)
    found, _ = kept.point(load or Closed(concurrency=4), 0)
    return msgspec.structs.replace(found, **more)


def result(*points: Point, **config: Any) -> Result:
    return Result(version="1", at=AT, config={**CONFIG, **config}, points=points)


def write(path: Path, loads: Iterable[tuple[Load, list[Record]]], **config: Any) -> Path:
    """Write a file of records as a run does."""
    begin = {"version": "1", "at": AT, "config": {**CONFIG, **config}}
    file = RecordFile(path, **begin)
    for number, (load, records) in enumerate(loads):
        for record in records:
            file.add(number, record)
        known = {"load": load, "seed": 0, "audit": {}, "notes": []}
        file.mark("load", number, **msgspec.to_builtins(known))
    file.mark("end", found=None)
    assert file.close() is None
    return path
