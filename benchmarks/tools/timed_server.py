"""``trio-minillm serve`` as a process, and what its log says of a run: the truth."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from measured import Spread, spread_of

COMMAND = [sys.executable, "-P", "-m", "trio_minillm.cli", "serve"]

MODEL = "timed"
"""What the tools call the model; the server takes any name."""

Record: TypeAlias = dict[str, Any]
"""A request in the server's log, as docs/benchmarks/serve.md describes it."""


@contextmanager
def timed_server(options: Sequence[str], log: Path) -> Iterator[str]:
    """Run the server, and yield its address. Its log is whole when the block has ended."""
    command = [*COMMAND, "--port", "0", *options]
    with subprocess.Popen(
        [*command, "--log", str(log)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found[0]
                    break
            else:
                raise RuntimeError("the server did not start")
        finally:
            process.send_signal(signal.SIGINT)


class Truth(NamedTuple):
    """What the server did in a run, over the answers that it sent whole."""

    requests: int
    """All requests, and those that a tool sends before it measures."""
    whole: int
    """Answers that were sent whole and without an error."""
    tokens: float | None
    """Tokens of an answer, in the mean."""
    ttft: Spread
    """From the complete request to the first content, reasoning or text."""
    text: Spread
    """From the complete request to the first text."""
    chunk: Spread
    """Between two contents of a stream."""
    tpot: Spread
    """From the first content to the last, over the tokens but those of the first content."""
    e2e: Spread
    """From the complete request to the last content."""


def records_of(log: Path) -> list[Record]:
    """Return the requests for answers in a log."""
    records = map(json.loads, log.read_text().splitlines())
    return [record for record in records if record["path"].endswith("/chat/completions")]


def truth_of(records: Sequence[Record]) -> Truth:
    """Return what the server did."""
    whole = [r for r in records if r["ended"] == "whole" and not r["faults"] and r["sent"]]
    return Truth(
        requests=len(records),
        whole=len(whole),
        tokens=sum(sum(r["tokens"]) for r in whole) / len(whole) if whole else None,
        ttft=spread_of(r["sent"][0] - r["received"] for r in whole),
        text=spread_of(first_text(r) - r["received"] for r in whole),
        chunk=spread_of(b - a for r in whole for a, b in pairwise(r["sent"])),
        tpot=spread_of(
            (r["sent"][-1] - r["sent"][0]) / sum(r["tokens"][1:]) for r in whole if r["tokens"][1:]
        ),
        e2e=spread_of(r["sent"][-1] - r["received"] for r in whole),
    )


def first_text(record: Record) -> float:
    """Return the time of the first content behind the reasoning."""
    before = 0
    for at, tokens in zip(record["sent"], record["tokens"], strict=True):
        if before >= record["reasoning_tokens"]:
            return float(at)
        before += tokens
    return float(record["sent"][-1])
