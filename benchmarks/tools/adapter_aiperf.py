"""NVIDIA's aiperf: its command line, and its summary."""

from __future__ import annotations

import json
from pathlib import Path

from measured import PROMPT, Load, Measured, spread, write_lines

NAME, PACKAGE = "aiperf", "aiperf"
MS = 1e-3
NAMES = ("avg", "p50", "p99")


def command(environment: Path, load: Load) -> list[str]:
    return [
        str(environment / "bin" / "aiperf"),
        "profile",
        *("--model", load.model),
        *("--url", load.base_url),
        *("--endpoint-type", "chat"),
        "--streaming",
        *("--tokenizer", str(load.tokenizer)),
        *("--concurrency", str(load.concurrency)),
        *("--request-count", str(load.requests)),
        *("--input-file", write_lines(load, {"text": PROMPT})),
        *("--custom-dataset-type", "single_turn"),
        *("--osl", str(load.tokens)),
        *("--request-timeout-seconds", str(load.timeout)),
        *("--api-key", load.key),
        *("--artifact-dir", str(load.folder)),
        *("--export-level", "summary"),
        *("--ui", "none"),
    ]


def variables(load: Load) -> dict[str, str]:
    """Return nothing. Not ``HF_HUB_OFFLINE``: with it, aiperf takes no folder for a tokenizer."""
    return {}


def measured(load: Load) -> Measured:
    found = json.loads((load.folder / "profile_export_aiperf.json").read_text())

    def count(name: str) -> int:
        return round((found.get(name) or {}).get("avg") or 0)

    return Measured(
        succeeded=count("request_count"),
        failed=count("error_request_count"),
        tokens=(found.get("output_sequence_length") or {}).get("avg"),
        ttft=spread(found.get("time_to_first_token"), NAMES, MS),
        itl=spread(found.get("inter_token_latency"), NAMES, MS),
        chunk=spread(found.get("inter_chunk_latency"), NAMES, MS),
        e2e=spread(found.get("request_latency"), NAMES, MS),
    )
