"""guidellm: its command line, and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measured import PROMPT, Load, Measured, Spread, write_lines

NAME, PACKAGE = "guidellm", "guidellm"

MS = 1e-3


def command(environment: Path, load: Load) -> list[str]:
    backend = f"kind=openai_http,target={load.base_url},model={load.model}"
    data = write_lines(load, {"prompt": PROMPT, "output_tokens_count": load.tokens})
    return [
        str(environment / "bin" / "guidellm"),
        "run",
        *("--backend", f"{backend},api_key={load.key},timeout={load.timeout:g}"),
        *("--profile", f"kind=concurrent,streams={load.concurrency}"),
        *("--constraint", f"kind=max_requests,count={load.requests}"),
        *("--tokenizer", f"kind=hf_auto,model={load.tokenizer}"),
        *("--data", f"kind=json_file,path={data}"),
        *("--output", f"kind=json,path={load.folder / 'report.json'}"),
        "--disable-console",
    ]


def variables(load: Load) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1"}


def measured(load: Load) -> Measured:
    (run,) = json.loads((load.folder / "report.json").read_text())["benchmarks"]
    metrics = run["metrics"]

    def of_successes(name: str, scale: float) -> Spread:
        found: dict[str, Any] = metrics[name]["successful"]
        if not found["count"]:
            return Spread()
        percentiles = found["percentiles"]
        return Spread(found["mean"] * scale, found["median"] * scale, percentiles["p99"] * scale)

    totals = metrics["request_totals"]
    return Measured(
        succeeded=totals["successful"],
        failed=totals["errored"] + totals["incomplete"],
        tokens=metrics["output_token_count"]["successful"]["mean"],
        ttft=of_successes("time_to_first_token_ms", MS),
        itl=of_successes("inter_token_latency_ms", MS),
        tpot=of_successes("time_per_output_token_ms", MS),
        e2e=of_successes("request_latency", 1.0),
    )
