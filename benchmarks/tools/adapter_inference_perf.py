"""inference-perf: its configuration, its command line, and its summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measured import PROMPT, Load, Measured, Spread, spread

NAME, PACKAGE = "inference-perf", "inference-perf"

NAMES = ("mean", "median", "p99")


def configuration(load: Load) -> dict[str, Any]:
    return {
        "api": {"type": "chat", "streaming": True},
        "data": {"type": "shareGPT", "path": str(load.folder / "conversations.json")},
        "load": {
            "type": "concurrent",
            "num_workers": 1,
            "request_timeout": load.timeout,
            "stages": [{"num_requests": load.requests, "concurrency_level": load.concurrency}],
        },
        "server": {
            "type": "vllm",
            "model_name": load.model,
            "base_url": load.base_url,
            "api_key": load.key,
        },
        "tokenizer": {"pretrained_model_name_or_path": str(load.tokenizer)},
        "report": {
            "request_lifecycle": {"summary": True, "per_stage": False, "per_request": False}
        },
        "storage": {"local_storage": {"path": str(load.folder)}},
    }


def command(environment: Path, load: Load) -> list[str]:
    """Write the conversations and the configuration, which is YAML of which JSON is a part."""
    turns = [
        {"from": "human", "value": PROMPT},
        {"from": "gpt", "value": "word " * load.tokens},
    ]
    conversations = [{"conversations": turns}] * 8  # read round and round
    (load.folder / "conversations.json").write_text(json.dumps(conversations))
    path = load.folder / "configuration.yaml"
    path.write_text(json.dumps(configuration(load)))
    program = environment / "bin" / "inference-perf"
    return [str(program), "--config_file", str(path), "--log-level", "WARNING"]


def variables(load: Load) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1"}


def measured(load: Load) -> Measured:
    found = json.loads((load.folder / "summary_lifecycle_metrics.json").read_text())
    latency = found["successes"]["latency"]

    def of(name: str) -> Spread:
        return spread(latency.get(name), NAMES)

    return Measured(
        succeeded=found["successes"]["count"],
        failed=found["failures"]["count"],
        tokens=(found["successes"]["output_tokens"] or {}).get("mean"),
        ttft=of("time_to_first_token"),
        itl=of("inter_token_latency"),
        tpot=of("time_per_output_token"),
        e2e=of("request_latency"),
    )
