"""The names that options of other benchmarks have here, for whoever types them from memory."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = {
    "--arrivals": "--arrival-pattern --request-rate-mode",
    "--base-url": "--url --target --host --port",
    "--concurrency": "--max-concurrency",
    "--duration": "--benchmark-duration --max-seconds",
    "--extra": "--extra-body --extra-inputs",
    "--input-tokens": "--random-input-len --synthetic-input-tokens-mean --isl",
    "--output-tokens": "--random-output-len --output-tokens-mean --osl",
    "--prompts": "--dataset-path --input-file --data",
    "--rate": "--request-rate",
    "--records": "--save-detailed",
    "--requests": "--num-prompts --request-count --max-requests",
    "--warmup": "--num-warmups --warmup-request-count",
}
"""Each option, and its names elsewhere: vLLM's ``bench serve``, aiperf, guidellm."""

NAMES_HERE: Mapping[str, str] = {
    **{other: here for here, others in _NAMES.items() for other in others.split()},
    "--random-prefix-len": "--prefix-share, as a share of the prompt",
    "--profile": "--rate, --concurrency or --sweep",
    "--rate-type": "--rate, --concurrency or --sweep",
    "--save-result": "--json, whose output you can save to a file",
    "--dataset-name": "--prompts with a file, or --input-tokens for generated prompts",
}
"""Each such name, and what to give in its place."""
