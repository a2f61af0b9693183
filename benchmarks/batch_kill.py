"""Kill ``trio-minillm batch`` again and again, and count the requests that are lost or paid twice.

One run of REQUESTS is killed by SIGKILL at KILLS random instants and started again with the same
command each time. A server in this process counts the requests by key. Prints the counts as JSON,
and fails if a key is missing from the output or is there twice, if a key that had a line at a kill
was requested again, or if a line can't be read.

    python benchmarks/batch_kill.py --requests 5000 --kills 30
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import trio

from trio_minillm.batch import read_results
from trio_minillm.testing import openai_events

KEY = re.compile(rb'"prompt (\d+)"')
LENGTH = re.compile(rb"(?i)\r\ncontent-length:\s*(\d+)")
BODY = b"".join(openai_events("Hello", ", ", "you", "."))
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    + BODY
)
CONCURRENCY = 50
ENVIRONMENT = {**os.environ, "TRIO_MINILLM_API_KEY": "sk-none"}


class CountingServer:
    """A server that answers after a few milliseconds, and counts the requests by key."""

    def __init__(self, seed: int) -> None:
        self.asked: Counter[int] = Counter()
        self._chance = random.Random(seed)

    async def serve(self, stream: trio.SocketStream) -> None:
        got = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                while True:
                    while (end := got.find(b"\r\n\r\n")) < 0:
                        if not (data := await stream.receive_some(65536)):
                            return
                        got += data
                    length = LENGTH.search(got[:end])
                    whole = end + 4 + (int(length[1]) if length else 0)
                    while len(got) < whole:
                        if not (data := await stream.receive_some(65536)):
                            return
                        got += data
                    found = KEY.search(got[:whole])
                    assert found is not None
                    got = got[whole:]
                    self.asked[int(found[1])] += 1
                    await trio.sleep(self._chance.uniform(0, 0.02))
                    await stream.send_all(ANSWER)


def _keys_in(path: Path) -> set[str]:
    return {line.key for line in read_results(path)} if path.exists() else set()


async def _one_life(
    command: list[str], server: CountingServer, chance: random.Random, most: int
) -> int:
    """Run the command until it ends or is killed, and return its exit code (-9 for a kill).

    Half of the kills come after up to ``most`` requests and some milliseconds, half within two
    seconds of its start: while it starts, reads its files, or repairs them.
    """
    process = await trio.lowlevel.open_process(command, env=ENVIRONMENT)
    if chance.random() < 0.5:
        wanted = server.asked.total() + chance.randint(1, most)
        while server.asked.total() < wanted and process.poll() is None:
            await trio.sleep(0.001)
        await trio.sleep(chance.uniform(0, 0.005))
    else:
        with trio.move_on_after(chance.uniform(0, 2.0)):
            await process.wait()
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    assert process.returncode is not None
    return process.returncode


class Progress(NamedTuple):
    """Counts of a run that was killed again and again."""

    kills: int = 0
    without_progress: int = 0
    """Kills between which no line was added to the output."""
    torn_ends: int = 0
    """Kills that left half a line at the end of the output."""


async def _kill_again_and_again(
    command: list[str], server: CountingServer, target: Path, requests: int, kills: int, seed: int
) -> Progress:
    """Run the command and kill it so often, or until it ends; check what each kill left."""
    chance = random.Random(seed)
    kept: set[str] = set()
    progress = Progress()
    while progress.kills < kills:
        before = Counter(server.asked)
        code = await _one_life(command, server, chance, max(2, 2 * requests // kills))
        assert code in (0, -9), code
        for key in kept:
            assert server.asked[int(key)] == before[int(key)], f"{key} was sent again"
        now = _keys_in(target)
        assert now >= kept
        torn = target.exists() and target.read_bytes()[-1:] not in (b"\n", b"")
        progress = Progress(
            progress.kills + (code == -9),
            progress.without_progress + (now == kept),
            progress.torn_ends + torn,
        )
        kept = now
        if code == 0:
            break
    else:
        process = await trio.run_process(command, env=ENVIRONMENT)
        assert process.returncode == 0
    return progress


async def run(requests: int, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    with source.open("w") as file:
        for number in range(requests):
            file.write(json.dumps({"key": str(number), "prompt": f"prompt {number}"}) + "\n")
    server = CountingServer(seed)
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        command = [sys.executable, "-m", "trio_minillm.cli", "batch", str(source), str(target)]
        command += ["-m", "compatible:m", "--base-url", f"http://127.0.0.1:{port}/v1", "--quiet"]
        command += ["--concurrency", str(CONCURRENCY)]
        progress = await _kill_again_and_again(command, server, target, requests, kills, seed)
        nursery.cancel_scope.cancel()
    keys = [json.loads(line)["custom_id"] for line in target.read_bytes().splitlines()]
    assert sorted(keys, key=int) == [str(n) for n in range(requests)]
    return {
        "requests": requests,
        "kills": progress.kills,
        "kills_without_progress": progress.without_progress,
        "keys_in_output": len(keys),
        "keys_twice": len(keys) - len(set(keys)),
        "torn_ends": progress.torn_ends,
        "sent": server.asked.total(),
        "sent_twice_under_way_at_a_kill": sum(n - 1 for n in server.asked.values() if n > 1),
        "concurrency": CONCURRENCY,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = trio.run(run, options.requests, options.kills, options.seed, Path(folder))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
