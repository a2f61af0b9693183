"""One tool as a process: what it took, and what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from measured import Load, Measured

ADAPTERS: dict[str, ModuleType] = {
    name: import_module(f"adapter_{name}")
    for name in ("ours", "aiperf", "guidellm", "vllm", "inference_perf")
}
"""The tools by the names that ``run.py`` knows them by."""

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class Run(NamedTuple):
    """A run of one tool."""

    measured: Measured | None
    """None if it measured nothing."""
    why: str
    """Why it measured nothing, in a line."""
    cpu: float
    """CPU seconds of the process and of all processes it started and waited for."""
    wall: float
    """Seconds from its start to its end."""


def environment_of(adapter: ModuleType, load: Load) -> dict[str, str]:
    """Return a tool's environment: without proxies, and with its caches in its own folder."""
    dropped = ("_proxy", "pythonsafepath", "_api_key")
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith(dropped)}
    return {**kept, **QUIET, "HF_HOME": str(load.folder / "cache"), **adapter.variables(load)}


def run_tool(adapter: ModuleType, environment: Path, load: Load) -> Run:
    """Run a tool to its end, and read what it wrote."""
    command, variables = adapter.command(environment, load), environment_of(adapter, load)
    code, cpu, wall = timed(command, variables, load.folder, load.limit)
    if code is None:
        return Run(None, f"still running after {load.limit:g} s", cpu, wall)
    try:
        return Run(adapter.measured(load), "", cpu, wall)
    except (OSError, LookupError, ValueError, TypeError) as exc:
        return Run(None, f"exit code {code}, no report ({type(exc).__name__})", cpu, wall)


def timed(
    command: Sequence[str], environment: dict[str, str], folder: Path, limit: float
) -> tuple[int | None, float, float]:
    """Run a command, and return its exit code (None if it was stopped), CPU and wall seconds."""
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        stopped = False
        # Only wait4 has the CPU of one child; what it waited for itself is in it.
        while not (found := os.wait4(process.pid, os.WNOHANG))[0]:
            if not stopped and time.monotonic() - began > limit:
                stopped = True
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.02)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(found[1])
    used = found[2]
    return None if stopped else process.returncode, used.ru_utime + used.ru_stime, wall


def version_of(adapter: ModuleType, environment: Path) -> str:
    """Return the version of a tool in its environment."""
    code = f"import importlib.metadata as m; print(m.version({adapter.PACKAGE!r}))"
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
