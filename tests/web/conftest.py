"""The web example behind a real server.

Plain ``pytest`` does not collect these tests: ``python -m nox -s web`` runs them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.paths import REPOSITORY

collect_ignore_glob = [] if os.environ.get("TRIO_MINILLM_WEB") else ["test_*.py"]

START = """
import json, sys, time, trio
from functools import partial
from hypercorn.config import Config
from hypercorn.trio import serve
import trio_minillm as llm
from trio_minillm import testing

sys.path.insert(0, sys.argv[1])
from app import App

def tell(what, **more):
    print(json.dumps({"what": what, "at": time.monotonic(), **more}), flush=True)

def answers(request):
    words = [f"word {n} of the answer, " for n in range(40)]
    steps = [step for event in testing.anthropic_events(*words) for step in (event, 0.05)]
    if b"Fall silent" in request.body:
        steps = [*steps[:12], testing.hang]
    return testing.reply(*steps)

async def main():
    async with testing.serve(answers) as upstream, llm.open_client() as client:
        config = Config()
        config.bind = ["127.0.0.1:0"]
        model = llm.anthropic("claude-test", base_url=upstream.url, api_key="k")
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(partial(serve, App(client, model), config))
            tell("ready", url=bound[0])
            count = 0
            while True:
                await upstream.asked(count + 1)
                tell("asked")
                connection = upstream.connections[-1]
                await connection.closed.wait()
                tell("closed")
                count = len(upstream.requests)

trio.run(main)
"""


class Server:
    """The example, and the model's server behind it, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url: str = self.told("ready")["url"].rstrip("/")

    def told(self, what: str) -> dict[str, Any]:
        """Wait for the next line of this kind; it has the time on the machine's monotonic clock."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found: dict[str, Any] = json.loads(line)
            if found["what"] == what:
                return found
        raise AssertionError("the server has ended")


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("hypercorn", reason="hypercorn is not installed")
    folder = str(Path(REPOSITORY) / "examples" / "web")
    with subprocess.Popen(
        [sys.executable, "-c", START, folder], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process)
        finally:
            process.terminate()
