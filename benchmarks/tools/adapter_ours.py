"""``trio-minillm bench``: its command line, and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measured import PROMPT, Load, Measured, Spread, spread

NAME, PACKAGE = "trio-minillm bench", "trio-minillm"
NAMES = ("mean", "p50", "p99")


def command(environment: Path, load: Load) -> list[str]:
    return [
        str(environment / "bin" / "python"),
        *("-m", "trio_minillm.cli", "bench"),
        *("--model", f"compatible:{load.model}"),
        *("--base-url", f"{load.base_url}/v1"),
        *("--requests", str(load.requests)),
        *("--concurrency", str(load.concurrency)),
        *("--prompt", PROMPT),
        *("--max-tokens", str(load.tokens)),
        *("--timeout-total", f"{load.timeout:g}"),
        "--json",
        "--quiet",
    ]


def variables(load: Load) -> dict[str, str]:
    return {"TRIO_MINILLM_API_KEY": load.key}


def measured(load: Load) -> Measured:
    found = json.loads((load.folder / "stdout").read_text())
    return figures(found)


def figures(found: dict[str, Any]) -> Measured:
    """Return the figures of a report, as docs/benchmarks/bench-output.md describes it."""
    (point,) = found["points"]
    counts, latency = point["counts"], point["latency"]

    def of(name: str) -> Spread:
        return spread(latency[name], NAMES)

    tokens = point["tokens"]
    good = counts["outcomes"].get("finished", 0)
    return Measured(
        succeeded=good,
        failed=counts["sent"] - good,
        tokens=tokens["output_tokens"] / tokens["answers"] if tokens else None,
        ttft=of("ttft"),
        itl=of("itl"),
        tpot=of("tpot"),
        e2e=of("e2e"),
    )
