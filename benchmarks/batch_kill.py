"""``trio-minillm batch`` killed again and again: what is lost, and what is paid for twice.

One run of REQUESTS is killed by SIGKILL at KILLS random instants and started again with the same
command each time. A server in this process counts what it is asked, by key. Prints what it found
as JSON, and fails if a key is missing from the output or is there twice, if a key that had a line
at a kill was asked for again, or if a line can't be read.

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
from typing import Any

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


class Counting:
    """Answers after a few milliseconds, and counts what it was asked and what it answered."""

    def __init__(self, seed: int) -> None:
        self.asked: Counter[int] = Counter()
        self.answered = 0
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
                    self.answered += 1


def _whole(path: Path) -> set[str]:
    return {line.key for line in read_results(path)} if path.exists() else set()


async def _one_life(command: list[str], server: Counting, chance: random.Random, most: int) -> int:
    """Run the command until it ends or is killed; its exit code (-9 for a kill).

    Half of the kills come after so many requests and some milliseconds, half at any time from
    its start on: while it starts, reads its files, or repairs them.
    """
    environment = {**os.environ, "TRIO_MINILLM_API_KEY": "sk-none"}
    process = await trio.lowlevel.open_process(command, env=environment)
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


async def run(requests: int, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    with source.open("w") as file:
        for number in range(requests):
            file.write(json.dumps({"key": str(number), "prompt": f"prompt {number}"}) + "\n")
    chance, server = random.Random(seed), Counting(seed)
    began, torn, idle = time.perf_counter(), 0, 0
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        command = [sys.executable, "-m", "trio_minillm.cli", "batch", str(source), str(target)]
        command += ["-m", "compatible:m", "--base-url", url, "--quiet"]
        command += ["--concurrency", str(CONCURRENCY)]
        kept: set[str] = set()
        done = 0
        while done < kills:
            before = Counter(server.asked)
            code = await _one_life(command, server, chance, max(2, 2 * requests // kills))
            assert code in (0, -9), code
            for key in kept:
                assert server.asked[int(key)] == before[int(key)], f"{key} was sent again"
            now = _whole(target)
            assert now >= kept
            idle += now == kept
            torn += target.exists() and target.read_bytes()[-1:] not in (b"\n", b"")
            kept = now
            done += code == -9
            if code == 0:
                break
        else:
            process = await trio.run_process(
                command, env={**os.environ, "TRIO_MINILLM_API_KEY": "sk-none"}
            )
            assert process.returncode == 0
        nursery.cancel_scope.cancel()
    lines = [json.loads(line)["custom_id"] for line in target.read_bytes().splitlines()]
    assert sorted(lines, key=int) == [str(n) for n in range(requests)]
    again = {key: n for key, n in server.asked.items() if n > 1}
    return {
        "requests": requests,
        "kills": done,
        "kills_without_progress": idle,
        "keys_in_output": len(lines),
        "keys_twice": len(lines) - len(set(lines)),
        "torn_ends": torn,
        "sent": server.asked.total(),
        "sent_twice_under_way_at_a_kill": sum(n - 1 for n in again.values()),
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
