"""What one tool measured in one run, in the same shape whichever tool it was."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PROMPT = "Tell me a long story about the sea."


class Load(NamedTuple):
    """What every tool is told to do, in the words that all of them have."""

    base_url: str
    """The address without ``/v1``."""
    model: str
    requests: int
    concurrency: int
    tokens: int
    """Tokens of an answer; the server decides, the tools are told."""
    timeout: float
    """Seconds that a request may take, for the tools that have a limit for it."""
    folder: Path
    """An empty folder for what the tool writes."""
    tokenizer: Path
    """A folder with a tokenizer that counts words."""
    key: str = "none"
    limit: float = 180.0
    """Seconds after which a tool that still runs is stopped, and has measured nothing."""


class Spread(NamedTuple):
    """A quantity over a run, in seconds. None is what the tool doesn't say."""

    mean: float | None = None
    p50: float | None = None
    p99: float | None = None


class Measured(NamedTuple):
    """What a tool says of a run."""

    succeeded: int | None
    failed: int | None
    """Requests that the tool counts as failed, whatever it calls them."""
    tokens: float | None = None
    """Tokens of an answer, in the mean."""
    ttft: Spread = Spread()
    """Time to first token."""
    itl: Spread = Spread()
    """What the tool calls inter-token latency."""
    tpot: Spread = Spread()
    """What the tool calls time per output token."""
    chunk: Spread = Spread()
    """The time between two chunks, where a tool has a name of its own for it."""
    e2e: Spread = Spread()
    """From the request to the end of the answer."""


def write_lines(load: Load, row: Mapping[str, Any]) -> str:
    """Write a file of JSON lines, this one for each request, and return its path."""
    path = load.folder / "prompts.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * load.requests)
    return str(path)


def spread(found: Mapping[str, Any] | None, names: Sequence[str], scale: float = 1.0) -> Spread:
    """Return the mean, the median and the 99th percentile under these names, in seconds."""
    values = [(found or {}).get(name) for name in names]
    return Spread(*(None if value is None else value * scale for value in values))


def spread_of(values: Iterable[float]) -> Spread:
    """Return those of single values. Percentiles are values that occurred: the nearest rank."""
    ordered = sorted(values)
    if not ordered:
        return Spread()
    rank = [ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 99)]
    return Spread(statistics.fmean(ordered), *rank)
