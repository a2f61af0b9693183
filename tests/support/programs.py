"""Other people's programs as child processes on loopback, for the tests in `tests/servers`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

START_SECONDS = 90.0
"""Seconds that a program may take until it listens."""
STOP_SECONDS = 10.0
"""Seconds that it may take to end before it is killed."""

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def found(program: str, variable: str = "") -> str | None:
    """Return the program's path: that in the environment variable, or on the path."""
    return shutil.which(os.environ.get(variable) or program, path=_PATH)


def needs(program: str, how: str, variable: str = "") -> pytest.MarkDecorator:
    """Skip where a program is missing; ``how`` says how it is installed."""
    reason = f"{program} is not installed ({how})"
    return pytest.mark.skipif(found(program, variable) is None, reason=reason)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def without_proxies() -> dict[str, str]:
    """Return this process's environment without proxies."""
    return {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}


class Program:
    """A running program, all its processes included."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, sig: signal.Signals) -> None:
        """Send a signal to the program's first process."""
        self.process.send_signal(sig)

    def kill(self) -> None:
        """Kill all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def children(self) -> list[int]:
        """Return the processes that the first one has started."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]


@contextmanager
def running(
    *command: str,
    port: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    seconds: float = START_SECONDS,
) -> Iterator[Program]:
    """Run a program until the block ends; the block begins once it listens."""
    path = found(command[0]) or command[0]
    log = folder / f"{Path(path).name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            (path, *command[1:]),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=folder,
            env={**without_proxies(), **(environment or {})},
            start_new_session=True,
        )
    program = Program(process, port, log)
    try:
        _wait_until_it_listens(program, seconds)
        yield program
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        program.kill()  # what is left of its group
        process.wait()


def _wait_until_it_listens(program: Program, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and program.process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", program.port), 1):
            return
        time.sleep(0.05)
    tail = program.log.read_text(errors="replace")[-3000:]
    raise AssertionError(f"{program.process.args!r} does not listen: {tail}")
