"""Compare batches: the same 200 prompts to a local model, run to the end and killed half-way.

The contenders are this library's command, openai's SDK under asyncio with a semaphore, and litellm's
``batch_completion``.

    python benchmarks/batch_comparison/compare.py --litellm python-with-litellm

Prints a table: lines of code that a user writes, wall time, CPU time of the client, and the results
that are left if it is killed when half of the requests have been sent. All use one server with four
slots, which is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import trio

from trio_minillm.local import open_local_server

HERE = Path(__file__).parent
COUNT, TOKENS, SLOTS = 200, 4, 4


def lines_of_code(path: Path | None) -> int:
    return 0 if path is None else sum(bool(line.strip()) for line in path.open())


def results_in(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


class Counter:
    """A proxy between the contenders and the server that counts the requests."""

    def __init__(self, address: str) -> None:
        self.requests = 0
        self._host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
        self._port = int(port)

    async def serve(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream(self._host, self._port)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, client, server, nursery.cancel_scope)
            nursery.start_soon(self._pass_on, server, client, nursery.cancel_scope)

    async def _pass_on(
        self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                self.requests += data.count(b"POST /")
                await target.send_all(data)
        scope.cancel()


def whole(command: list[str], environment: dict[str, str], target: Path) -> tuple[float, float]:
    """Run a command to its end, and return its wall and CPU time in seconds."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, os.times()
    assert results_in(target) == COUNT
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


def killed(
    command: list[str], environment: dict[str, str], target: Path, counter: Counter
) -> tuple[int, int]:
    """Kill a command half-way, and return the requests sent by then and the results left."""
    target.unlink()
    before = counter.requests
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while counter.requests - before < COUNT // 2 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    return counter.requests - before, results_in(target)


def compare(
    environment: dict[str, str], folder: Path, litellm: str | None, counter: Counter
) -> None:
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
    print("| | lines of code | wall s | CPU s | sent before a kill | results left |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, command, code in contenders:
        target.unlink(missing_ok=True)
        wall, cpu = whole(command, environment, target)
        sent, left = killed(command, environment, target, counter)
        row = f"| {name} | {lines_of_code(code)} | {wall:.1f} | {cpu:.1f} | {sent} | {left} |"
        print(row, flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", help="a Python that has litellm")
    options = parser.parse_args()
    async with open_local_server(slots=SLOTS) as local:
        model = local.model()
        key = model.api_key or ""
        counter = Counter(model.base_url)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        told = {"BASE_URL": url, "API_KEY": key, "TRIO_MINILLM_API_KEY": key}
        environment = {**os.environ, **told}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, counter.serve, listeners)
            with tempfile.TemporaryDirectory() as folder:
                await trio.to_thread.run_sync(
                    compare, environment, Path(folder), options.litellm, counter
                )
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
