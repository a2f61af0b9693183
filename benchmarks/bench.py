"""Compare CPU, latency and memory with plain HTTP clients, the vendors' SDKs and a lower bound.

``python benchmarks/bench.py`` takes half an hour, with ``--quick`` 9 minutes. The method and its
limits are in ``docs/proof/benchmarks.md``. Exits with 1 if a contender fails or gets a wrong answer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import plot
import report
import targets
from cases import FULL, PARTS, QUICK, Case, Sizes, cases
from report import Results

HERE = Path(__file__).parent
CHILD_SECONDS = 120.0
"""Seconds after which a contender that is still running has failed."""
PACKAGES = (
    *("trio-minillm", "trio", "httpx", "httptools", "msgspec"),
    *("aiohttp", "httpx-sse", "httpcore", "openai", "anthropic", "httpx2"),
)
IMPORT = (
    "from time import process_time as t; a = t(); import {}; print('{{\"cpu\":', t() - a, '}}')"
)


def cores() -> tuple[int, int] | None:
    """Return a core for the contender and one for the server, or ``None`` if there is no choice."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else None


def environment() -> dict[str, str]:
    """Return the environment for contenders: without proxies, and trusting the replay server.

    Installed packages were compiled by their installer, a checkout is compiled when it is first
    imported. That bytecode must be kept, or the import measures the compiler for this library only.
    """
    dropped = ("_proxy", "pythonsafepath", "pythondontwritebytecode")  # scripts import each other
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith(dropped)}
    return {**kept, "SSL_CERT_FILE": str(HERE / "tls" / "ca.pem")}


@contextmanager
def replay_server(cpu: int | None) -> Iterator[dict[str, str]]:
    """Run the replay server as a process, and yield its URLs by name."""
    command = [sys.executable, str(HERE / "server.py"), *([] if cpu is None else [str(cpu)])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            ports = json.loads(process.stdout.readline())
            schemes = {name: "https" if name == "https" else "http" for name in ports}
            yield {name: f"{schemes[name]}://127.0.0.1:{port}" for name, port in ports.items()}
        finally:
            process.stdin.close()


def command_of(case: Case, urls: dict[str, str], cpu: int | None) -> list[str]:
    """Return the command that runs a case."""
    task = dict(case.task)
    if "modules" in task:
        return [sys.executable, "-c", IMPORT.format(task["modules"])]
    given = {key: task.pop(key) for key in ("wire", "kind") if key in task}
    options = {"url": urls[task.pop("port")], **given}
    if "secure" in task:
        task["secure"] = urls[task["secure"]]
    whole = {"contender": case.contender, "cpu": cpu, "options": options, **task}
    return [sys.executable, str(HERE / "measures.py"), json.dumps(whole)]


def run(case: Case, urls: dict[str, str], cpu: int | None) -> Any:
    """Run a case in a fresh process, and return its numbers, or ``{"failed": reason}``."""
    try:
        done = subprocess.run(
            command_of(case, urls, cpu),
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            env=environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {CHILD_SECONDS:g} s"}
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no words"])[-1]
        if "modules" in case.task and "ModuleNotFoundError" in why:
            return {"skipped": "not installed"}
        return {"failed": why}
    return json.loads(done.stdout)


def measure(sizes: Sizes, parts: list[str]) -> Results:
    """Run all rounds, interleaved, so that a noisy minute hits every contender."""
    results, chosen = Results(), cores()
    mine, its = chosen or (None, None)
    with replay_server(its) as urls:
        for part in parts:
            every = cases(part, sizes)
            for number in range(sizes.rounds[part]):
                for case in every:
                    got = {"skipped": case.skip} if case.skip else run(case, urls, mine)
                    results.add(case, got)
                    if "failed" in got:
                        where = ", ".join(case.tables)
                        print(
                            f"FAILED: {case.contender} in {where}: {got['failed']}", file=sys.stderr
                        )
                done = f"{part}: round {number + 1} of {sizes.rounds[part]}"
                print(done, file=sys.stderr, flush=True)
    return results


def machine() -> dict[str, Any]:
    """Return the facts about machine and packages that the numbers depend on."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "pinned": cores() is not None,
        "packages": packages,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--only", metavar="PARTS", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help="fresh processes per case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a plot there")
    options = parser.parse_args(arguments)
    parts = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if not hasattr(select, "epoll"):
        parser.error("it needs Linux: the server of thousands of connections uses epoll")
    sizes = QUICK if options.quick else FULL
    if options.rounds is not None:
        if options.rounds < 1:
            parser.error("at least 1 round")
        sizes = sizes._replace(rounds=dict.fromkeys(PARTS, options.rounds))
    results, about = measure(sizes, parts), machine()
    print(
        f"{sizes}\n{about}\n\n{report.tables(results)}\n\n{targets.verdicts(results)}", flush=True
    )
    if options.json:
        whole = {"machine": about, "sizes": sizes._asdict(), **report.as_json(results)}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(plot.svg(results))
    return int(bool(results.failed))


if __name__ == "__main__":
    sys.exit(main())
