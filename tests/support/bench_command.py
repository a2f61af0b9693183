"""``trio-minillm bench`` before an endpoint, as a user runs it."""

from __future__ import annotations

import json
import sys
from typing import Any

from .bench_schema import check
from .command import COMMAND, Ran, run
from .endpoint import Endpoint

FAST = "from trio_minillm.cli import _live, main; _live.SAY_EVERY = _live.REDRAW = 0.05; main()"


def command(
    endpoint: Endpoint, *args: str, kind: str = "compatible", model: str = "m"
) -> list[str]:
    return [*COMMAND, "bench", "-m", f"{kind}:{model}", "--base-url", endpoint.url, *args]


def fast(endpoint: Endpoint, *args: str) -> list[str]:
    """The command with a state on stderr every 50 ms."""
    whole = command(endpoint, *args)
    return [sys.executable, "-P", "-W", "error", "-c", FAST, *whole[whole.index("bench") :]]


def bench(endpoint: Endpoint, *args: str) -> Ran:
    return run(command(endpoint, *args))


def measured(endpoint: Endpoint, *args: str, code: int = 0) -> dict[str, Any]:
    """Run the benchmark with ``--json`` and return the object that it prints."""
    ran = bench(endpoint, "--json", "--quiet", *args)
    assert (ran.code, ran.out.count("\n")) == (code, 1), ran.err
    found: dict[str, Any] = json.loads(ran.out)
    assert found["exit_code"] == code
    check(found)
    return found
