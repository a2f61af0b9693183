"""Compare what benchmarks of model servers measure with what a server really did.

    python benchmarks/tools/run.py --tool aiperf=ENVIRONMENT --tool guidellm=ENVIRONMENT …

Each tool is named with the virtual environment that it is installed in (``aiperf``, ``guidellm``,
``vllm``, ``inference_perf``); ``trio-minillm bench`` of this Python always takes part. All are put
before ``trio-minillm serve``, one after another, each in a process of its own. ``python -m nox -s
tools`` installs them and runs this.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import tables
import trio
from measured import Load
from process import ADAPTERS, run_tool, version_of
from scenarios import BY_NAME, SCENARIOS, TOKENS, Scenario
from store import Result, Store
from timed_server import MODEL, records_of, timed_server, truth_of
from word_tokenizer import write_tokenizer

from trio_minillm.local import open_local_server

LOCAL = (8, 1), (32, 4)
"""Requests and concurrency for the embedded model, which has four slots."""


def measure(tool: str, environment: Path, scenario: Scenario, load: Load) -> Result:
    """Run a tool against a server of its own."""
    log = load.folder / "server.jsonl"
    with timed_server(scenario.server, log) as url:
        run = run_tool(ADAPTERS[tool], environment, load._replace(base_url=url))
    truth = truth_of(records_of(log))
    return Result(scenario.name, tool, load.requests, load.concurrency, run, truth)


def compare(
    environments: dict[str, Path], scenarios: Sequence[Scenario], folder: Path, store: Store
) -> None:
    """Run all tools in all scenarios."""
    for scenario in scenarios:
        for requests, concurrency in scenario.loads:
            for tool, environment in environments.items():
                if store.has(scenario.name, tool, requests, concurrency):
                    continue
                load = Load(
                    base_url="",
                    model=MODEL,
                    requests=requests,
                    concurrency=concurrency,
                    tokens=TOKENS,
                    timeout=scenario.timeout,
                    limit=scenario.limit,
                    folder=fresh(folder),
                    tokenizer=folder / "words",
                )
                store.add(measure(tool, environment, scenario, load))


async def compare_local(environments: dict[str, Path], folder: Path, store: Store) -> None:
    """Run all tools against the embedded model, which is on this machine, too."""
    async with open_local_server(slots=4) as server:
        model = server.model()
        for requests, concurrency in LOCAL:
            for tool, environment in environments.items():
                if store.has("local", tool, requests, concurrency):
                    continue
                load = Load(
                    base_url=model.base_url.removesuffix("/v1"),
                    model=model.name,
                    requests=requests,
                    concurrency=concurrency,
                    tokens=TOKENS,
                    timeout=60.0,
                    folder=fresh(folder),
                    tokenizer=folder / "words",
                    key=model.api_key or "none",
                )
                run = await trio.to_thread.run_sync(run_tool, ADAPTERS[tool], environment, load)
                store.add(Result("local", tool, requests, concurrency, run, None))


def fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def machine(environments: dict[str, Path]) -> str:
    """Return a sentence on what was run, and on what."""
    found = (f"{ADAPTERS[t].NAME} {version_of(ADAPTERS[t], e)}" for t, e in environments.items())
    versions = ", ".join(found)
    python = platform.python_version()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {versions}; Python {python}, {os.cpu_count()} cores of"
        f" {platform.machine()}, shared by the server, the tool, and other programs."
    )


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tool", action="append", default=[], metavar="NAME=ENVIRONMENT")
    parser.add_argument("--only", default="", help=f"of {', '.join([*BY_NAME, 'local'])}")
    parser.add_argument(
        "--json",
        type=Path,
        help="keep the results in this file; what it has of other runs is shown, too",
    )
    parser.add_argument(
        "--missing", action="store_true", help="run only what that file does not have"
    )
    parser.add_argument("--write", type=Path, help="write the tables into this page")
    options = parser.parse_args(words)
    options.environments = {"ours": Path(sys.prefix)}
    for word in options.tool:
        name, _, environment = word.partition("=")
        if name not in ADAPTERS:
            parser.error(f"--tool: {name} is none of {', '.join(ADAPTERS)}")
        options.environments[name] = Path(environment).resolve()
    wanted = options.only.split(",") if options.only else [*BY_NAME, "local"]
    if unknown := set(wanted) - {*BY_NAME, "local"}:
        parser.error(f"--only: no scenario is called {', '.join(sorted(unknown))}")
    options.scenarios = [scenario for scenario in SCENARIOS if scenario.name in wanted]
    options.local = "local" in wanted
    return options


def main(words: Sequence[str] | None = None) -> int:
    options = arguments(words)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_tokenizer(folder / "words")
        store = Store(options.json, machine(options.environments), options.missing)
        compare(options.environments, options.scenarios, folder, store)
        if options.local:
            trio.run(compare_local, options.environments, folder, store)
    text = f"{store.machine}\n\n{tables.tables(store.results)}"
    print(text)
    if options.write:
        tables.write_between(options.write, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
