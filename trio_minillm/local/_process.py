"""The child process as its parent sees it: started, asked for its state, and ended with its block.

The child runs `_child`, whose docstring has the protocol of the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import trio

from .._types.errors import MiniLLMError

if TYPE_CHECKING:  # loaded by whoever opens a server
    import httpx

STOP_GRACE = 3.0
"""Seconds that the child has to exit by itself before it is killed. It exits within
milliseconds of the order, even in the middle of a stream; the rest is for a busy machine."""

LOG_TAIL = 2_000
"""Characters of the child's log that an error shows, from its end."""

COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("_child.py")))
"""The command that starts the child."""


class LocalModelError(MiniLLMError):
    """A local server could not be started, or has died. The message contains the end of its log."""


class Slots(NamedTuple):
    """The slots of a local server."""

    busy: int
    """The number of streams that it is generating."""
    total: int
    """The number of streams that it can generate at the same time."""


class ServerProcess:
    """The child process with its key, its log and, once it has started, its address."""

    def __init__(
        self, process: trio.Process, key: str, log: IO[bytes], http: httpx.AsyncClient
    ) -> None:
        self.key = key
        self.address: str = ""
        self._process = process
        self._log = log
        self._http = http

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self, settings: Mapping[str, Any]) -> None:
        """Send the child its settings, and wait until it answers a request.

        Raises ``ValueError`` for a setting that llama.cpp refuses, and `LocalModelError` if the
        child ends for any other reason.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        report = b""
        try:
            await stdin.send_all(json.dumps(settings).encode() + b"\n")
            while b"\n" not in report and (part := await stdout.receive_some()):
                report += part
        except trio.BrokenResourceError:
            pass  # It died while the settings were sent; what follows says how.
        said: dict[str, str] = json.loads(report) if report.endswith(b"\n") else {}
        if "address" not in said:
            await self._process.wait()
            if "bad_setting" in said:
                raise ValueError(said["bad_setting"])
            raise LocalModelError(self.explain(f"did not start ({said.get('error', 'it died')})"))
        # Only our own child can report this address, so no other server can be mistaken for it.
        self.address = said["address"]
        await self.slots()

    async def slots(self) -> Slots:
        """Ask the server for its slots. Raises `LocalModelError` if it does not answer."""
        import httpx

        try:
            answer = await self._http.get(f"{self.address}/slots")
            answer.raise_for_status()
        except httpx.HTTPError as exc:
            raise LocalModelError(self.explain(f"does not answer ({exc})")) from exc
        busy = [bool(slot["is_processing"]) for slot in answer.json()]
        return Slots(sum(busy), len(busy))

    def explain(self, what: str) -> str:
        """Return a message: ``what`` happened, how the process ended if it did, its log's end."""
        text = f"the local llama.cpp server {what}"
        status = self._process.poll()
        if status is not None and status < 0:
            text += f"; it was ended by signal {-status}"
        elif status is not None:
            text += f"; it exited with status {status}"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL))
        tail = self._log.read().decode(errors="replace").replace(self.key, "…").strip()
        return f"{text}; its log ends with:\n{tail}" if tail else f"{text}; its log is empty"


@asynccontextmanager
async def open_process(log: IO[bytes]) -> AsyncGenerator[trio.Process, None]:
    """Run the child for the length of the block. It waits for its settings.

    The log is a file and not a pipe, so that no task has to read it while the block runs: a full
    pipe would stop the server, and a nursery for the reading task would wrap the body's exceptions.
    """
    process = await trio.lowlevel.open_process(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
    )
    try:
        yield process
    finally:
        await _stop(process)


async def _stop(process: trio.Process) -> None:
    """Order the child to exit, wait for it, and kill it after `STOP_GRACE` seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    # Twice the grace, because a broken disk can hold even a killed process forever.
    with trio.move_on_after(2 * STOP_GRACE, shield=True):
        await process.stdin.aclose()  # the order to exit, see `_child`
        await process.stdout.aclose()
        with trio.move_on_after(STOP_GRACE):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
