"""Run the command in processes that are forked from one that has imported it already.

A new interpreter spends half a second on imports, and the tests run the command more than a thousand
times. A fork has its own pipes, environment, folder and exit, as a new process has; what differs is
that the modules are there.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

MOST = 1 << 17
"""Bytes of a question: arguments and the environment, about as many as a packet may have."""

SERVER = Path(__file__).with_name("forking.py")


class Forker:
    """The process that has imported the command."""

    def __init__(self, interpreter: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*interpreter, str(SERVER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # threads do not outlive a fork
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End the process; forks that still run go on."""
        self._asked.close()
        self._process.wait()

    def run(
        self, args: Sequence[str], stdin: bytes | None, env: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command as `subprocess.run` would, with its output captured."""
        question = json.dumps({"args": list(args), "env": env, "cwd": str(Path.cwd())}).encode()
        assert len(question) <= MOST
        with self._lock, ExitStack() as stack:
            reading, ours = os.pipe()
            if stdin is None:
                os.close(reading)
                reading = os.open(os.devnull, os.O_RDONLY)
            fds, pipes = [reading], [stack.enter_context(os.fdopen(ours, "wb", buffering=0))]
            for _ in range(2):
                ours, writing = os.pipe()
                fds.append(writing)
                pipes.append(stack.enter_context(os.fdopen(ours, "rb", buffering=0)))
            socket.send_fds(self._asked, [question], fds)
            for fd in fds:
                os.close(fd)
            pid = int(self._asked.recv(100))
            found: list[bytes] = [b"", b""]

            def read(place: int) -> None:
                found[place] = pipes[1 + place].read()

            work = [threading.Thread(target=read, args=[place], daemon=True) for place in range(2)]
            work.append(threading.Thread(target=write, args=[pipes[0], stdin or b""], daemon=True))
            for thread in work:
                thread.start()
            self._asked.settimeout(timeout)
            try:
                code = int(self._asked.recv(100))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._asked.settimeout(None)
                self._asked.recv(100)
                raise subprocess.TimeoutExpired(list(args), timeout) from None
            finally:
                self._asked.settimeout(None)
            for thread in work:
                thread.join(timeout)
        return subprocess.CompletedProcess(list(args), code, *found)


def write(pipe: IO[bytes], data: bytes) -> None:
    """Write what the process reads of it, and close the pipe."""
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[pipe.write(rest) :]
    except BrokenPipeError:
        pass
    finally:
        pipe.close()
