"""The process that forked.py starts: it imports the command, and forks for each question."""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

MOST = 1 << 17


def preload() -> None:
    """Import what the subcommands import when they run, and keep it from the forks' garbage collector, which
    would copy all of it.
    """
    import trio_minillm.cli
    from trio_minillm.cli._app import SUBCOMMANDS

    folder = Path(trio_minillm.cli.__file__).parent
    for path in sorted(folder.glob("_*.py")):
        if path.stem not in ("__init__", "__main__"):
            import_module(f"trio_minillm.cli.{path.stem}")
    for name in ("numpy", "rich.live", "rich.table", "trio_minillm.batch", "trio_minillm._bench"):
        import_module(name)
    with suppress(ModuleNotFoundError):
        import_module("genai_prices.data_snapshot")
    for name in SUBCOMMANDS:
        sys.argv = ["trio-minillm", name, "--help"]  # imports what typer checks values with
        with redirect_stdout(StringIO()), suppress(SystemExit):
            trio_minillm.cli.main()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as a new process has it
    gc.collect()
    gc.freeze()


def asked(peer: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each question. Returns it in the child, with the child's pipes."""
    while True:
        text, fds, _, _ = socket.recv_fds(peer, MOST, 3)
        if not text:
            raise SystemExit
        child = os.fork()
        if not child:
            peer.close()
            return json.loads(text), fds
        for fd in fds:
            os.close(fd)
        peer.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        with suppress(BrokenPipeError):
            peer.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(given: dict[str, Any], fds: list[int]) -> None:
    """Take on the pipes, the environment, the folder and the arguments of a new process."""
    for place, fd in enumerate(fds):
        os.dup2(fd, place)
        os.close(fd)
    os.environ.clear()
    os.environ.update(given["env"])
    os.chdir(given["cwd"])
    sys.argv = ["trio-minillm", *given["args"]]
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))


if __name__ == "__main__":
    asker = socket.socket(fileno=int(sys.argv[1]))
    preload()
    become(*asked(asker))
    runpy.run_module("trio_minillm.cli", run_name="__main__", alter_sys=True)
