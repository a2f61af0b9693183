"""The same 200 prompts through the embedded model: our command, openai's SDK under asyncio with a
semaphore, litellm's ``batch_completion``; each whole, and each killed half-way.

    python benchmarks/batch_beside/beside.py --litellm python-with-litellm

Prints a table: lines of code that a user writes, wall time, CPU time of the client, results that a
kill half-way leaves. One server for all, of four slots, outside of what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

from trio_minillm.local import open_local_server

HERE = Path(__file__).parent
COUNT, TOKENS, SLOTS = 200, 8, 4


def lines_of_code(path: Path | None) -> int:
    return 0 if path is None else sum(bool(line.strip()) for line in path.open())


def results_in(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def whole(command: list[str], environment: dict[str, str], target: Path) -> tuple[float, float]:
    """Seconds on the wall and of CPU."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, os.times()
    assert results_in(target) == COUNT
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


def killed(command: list[str], environment: dict[str, str], target: Path, seconds: float) -> int:
    """Results that are left of a run that was killed after so many seconds."""
    target.unlink()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    process.kill()
    process.wait()
    return results_in(target)


def beside(environment: dict[str, str], folder: Path, litellm: str | None) -> None:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    with source.open("w") as file:
        for number in range(COUNT):
            line = {"key": str(number), "prompt": f"Say the number {number}.", "max_tokens": TOKENS}
            file.write(json.dumps(line) + "\n")
    files = [str(source), str(target)]
    ours = [sys.executable, "-m", "trio_minillm.cli", "batch", *files, "-m", "compatible:m"]
    ours += ["--base-url", environment["BASE_URL"], "--concurrency", str(SLOTS), "--quiet"]
    contenders: list[tuple[str, list[str], Path | None]] = [
        ("trio-minillm batch", ours, None),
        (
            "openai, asyncio, semaphore",
            [sys.executable, str(HERE / "openai_sdk.py"), *files],
            HERE / "openai_sdk.py",
        ),
    ]
    if litellm:
        code = HERE / "litellm_batch.py"
        contenders.append(("litellm batch_completion", [litellm, str(code), *files], code))
    print("| | lines of code | wall s | CPU s | results left by a kill half-way |")
    print("| --- | --- | --- | --- | --- |")
    for name, command, code in contenders:
        target.unlink(missing_ok=True)
        wall, cpu = whole(command, environment, target)
        left = killed(command, environment, target, wall / 2)
        row = f"| {name} | {lines_of_code(code)} | {wall:.1f} | {cpu:.1f} | {left} of {COUNT} |"
        print(row, flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", help="a Python that has litellm")
    options = parser.parse_args()
    async with open_local_server(slots=SLOTS) as local:
        model = local.model()
        key = model.api_key or ""
        told = {"BASE_URL": model.base_url, "API_KEY": key, "TRIO_MINILLM_API_KEY": key}
        with tempfile.TemporaryDirectory() as folder:
            await trio.to_thread.run_sync(
                beside, {**os.environ, **told}, Path(folder), options.litellm
            )


if __name__ == "__main__":
    trio.run(main)
