"""Run ``trio-minillm`` as a user does: in a process, with pipes or on a terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest

from .forked import Forker

COMMAND = [sys.executable, "-P", "-W", "error", "-m", "trio_minillm.cli"]
KEY = "sk-test-0123456789abcdef"
LIMIT = 30.0
"""Seconds after which a test that waits for a process has failed."""


def environment(**more: str) -> dict[str, str]:
    """The environment without keys, proxies and wishes about the output, and with ``more``."""
    hidden = re.compile("(?i)_api_key$|proxy|^(no_color|force_color|pythonioencoding|columns)$")
    kept = {name: value for name, value in os.environ.items() if not hidden.search(name)}
    return {**kept, "TERM": "xterm-256color", "TRIO_MINILLM_API_KEY": KEY, **more}


class Ran:
    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.raw = done.stdout
        self.out = done.stdout.decode()
        self.err = done.stderr.decode()
        assert "Traceback" not in self.err
        assert KEY not in self.out + self.err


@cache
def forker() -> Forker:
    return Forker(COMMAND[: COMMAND.index("-m")])


def run(args: list[str], stdin: bytes | None = None, **env: str) -> Ran:
    """Run a command to its end, in a fork of a process that has imported it, if it is ours."""
    surroundings = environment(**env)
    startup = any(name.startswith(("PYTHON", "LC_", "LANG")) for name in env)
    own = args[len(COMMAND) :]
    usual = not startup and all(isinstance(arg, str) for arg in own)
    if args[: len(COMMAND)] == COMMAND and usual and sys.platform != "win32":
        return Ran(forker().run(own, stdin, surroundings, LIMIT))
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return Ran(subprocess.run(args, capture_output=True, env=surroundings, timeout=LIMIT, **given))


def read_until(fd: int, wanted: bytes) -> bytes:
    """Return what can be read up to ``wanted``, or to the end (which is an error on a terminal)."""
    got, deadline = b"", time.monotonic() + LIMIT
    while wanted not in got:
        assert select.select([fd], [], [], deadline - time.monotonic())[0], got
        try:
            data = os.read(fd, 65536)
        except OSError:
            data = b""
        if not data:
            assert not wanted or wanted in got, got
            return got
        got += data
    return got


def start(
    args: list[str], env: dict[str, str] | None = None, **files: Any
) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(args, env=env or environment(), **{**pipes, **files})


@contextmanager
def running(args: list[str], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run until the end of the block, at which the process is killed."""
    with start(args, environment(**env)) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Wait for the end; what else it wrote to stdout and stderr."""
    out, err = (data.decode() for data in process.communicate(timeout=LIMIT))
    assert "Traceback" not in err
    assert KEY not in out + err
    return out, err


ENDING = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The signals that ask a command to end, and its exit code then."""
endings = pytest.mark.parametrize("ending", ENDING)

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def on_terminal(args: list[str]) -> tuple[int, str]:
    """Run with stdout and stderr on one terminal; the exit code and what it showed."""
    import pty

    ours, theirs = pty.openpty()
    try:
        with start(args, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            while data := read_some(ours):
                shown += data
            code = process.wait(LIMIT)
    finally:
        os.close(ours)
    return code, shown.decode().replace("\r\n", "\n")


def read_some(fd: int) -> bytes:
    assert select.select([fd], [], [], LIMIT)[0]
    try:
        return os.read(fd, 65536)
    except OSError:  # Linux's word for the end of a terminal
        return b""
