"""Results of runs, and the file that keeps them: a run takes long, and can be done in parts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from measured import Measured, Spread
from process import Run
from timed_server import Truth


class Result(NamedTuple):
    """One run of one tool, and what the server did in it."""

    scenario: str
    tool: str
    requests: int
    concurrency: int
    run: Run
    truth: Truth | None
    """None where the server keeps no log: llama.cpp's."""

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What was run: a later run of the same takes its place."""
        return self.scenario, self.tool, self.requests, self.concurrency


class Store:
    """The results by what was run."""

    def __init__(self, path: Path | None, machine: str, missing: bool = False) -> None:
        """Read what a file has already. If only what is ``missing`` is wanted, the rest stays."""
        self.machine = machine
        self._missing = missing
        self._path = path
        self._found: dict[tuple[str, str, int, int], Result] = {}
        if path is not None and path.exists():
            for row in json.loads(path.read_text())["results"]:
                self._put(result_from(row))

    @property
    def results(self) -> list[Result]:
        return list(self._found.values())

    def has(self, *key: str | int) -> bool:
        """Return True if this need not be run."""
        return self._missing and key in self._found

    def add(self, result: Result) -> None:
        """Take in a result, keep it, and say so."""
        self._put(result)
        run = result.run
        said = run.why or f"{run.measured and run.measured.succeeded} good"
        load = f"{result.requests} requests, {result.concurrency} at once"
        words = f"{result.scenario}, {load}: {result.tool}: {said}, {run.cpu:.1f} s CPU"
        print(words, file=sys.stderr, flush=True)
        if self._path is not None:
            rows = [row_of(result) for result in self.results]
            text = json.dumps({"machine": self.machine, "results": rows}, indent=1)
            self._path.write_text(f"{text}\n")

    def _put(self, result: Result) -> None:
        self._found[result.key] = result


def row_of(value: Any) -> Any:
    """Return named tuples as objects, all the way down."""
    if not hasattr(value, "_asdict"):
        return value
    return {name: row_of(field) for name, field in value._asdict().items()}


def result_from(row: dict[str, Any]) -> Result:
    """Return a result from its row."""
    run, truth = row["run"], row["truth"]
    measured = run["measured"] and Measured(**spreads(run["measured"]))
    return Result(
        **row
        | {
            "run": Run(**run | {"measured": measured}),
            "truth": truth and Truth(**spreads(truth)),
        }
    )


def spreads(row: dict[str, Any]) -> dict[str, Any]:
    return {name: Spread(**v) if isinstance(v, dict) else v for name, v in row.items()}
