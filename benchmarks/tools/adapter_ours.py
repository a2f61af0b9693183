"""``trio-minillm bench``: its command line, and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measured import Load, Measured, Spread, spread

NAME, PACKAGE = "trio-minillm bench", "trio-minillm"
ENVIRONMENT: dict[str, str] = {}

NAMES = ("mean", "p50", "p99")


def command(environment: Path, load: Load) -> list[str]:
    return [
        str(environment / "bin" / "python"),
        *("-m", "trio_minillm.cli", "bench"),
        *("--model", f"compatible:{load.model}"),
        *("--base-url", f"{load.base_url}/v1"),
        *("--requests", str(load.requests)),
        *("--concurrency", str(load.concurrency)),
        *("--max-tokens", str(load.tokens)),
        *("--timeout-total", f"{load.timeout:g}"),
        "--json",
        "--quiet",
    ]


def measured(load: Load) -> Measured:
    found = json.loads((load.folder / "stdout").read_text())
    return figures(found)


def figures(found: dict[str, Any]) -> Measured:
    """Return the figures of a report, as docs/bench.md describes it."""
    counts, distributions = found["counts"], found["distributions"]

    def of(name: str) -> Spread:
        return spread(distributions.get(name), NAMES)

    good = counts["finished"]
    tokens = found["usage"]["completion_tokens"]
    return Measured(
        succeeded=good,
        failed=counts["sent"] - good,
        tokens=tokens / found["usage"]["answers"] if tokens else None,
        ttft=of("ttft"),
        itl=of("gap"),
        tpot=of("time_per_output_token"),
        e2e=of("total"),
    )
