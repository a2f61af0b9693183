"""The judges of a batch's answers that are given on the command line: a schema, and a function."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from trio_minillm.batch import BatchOptions, BatchResult, validate_schema

from .._batch.files.result_format import check_score
from .._batch.validation import need_jsonschema
from .._toolkit.reasking import words_of
from ._imported import imported, said
from ._output import Misuse, Row, many, one_line


def judged(schema: Path | None, retries_invalid: int, score: str | None) -> BatchOptions:
    """Return the batch's options for these judges. Raises `Misuse`.

    Answers are checked against the schemas of the lines if there is one for all of them, or if invalid
    ones are to be asked again.
    """
    options: BatchOptions = {"retries_invalid": retries_invalid}
    if schema is not None or retries_invalid:
        try:
            need_jsonschema()
        except ImportError as exc:
            raise Misuse(str(exc)) from exc
        options["validate"] = validate_schema
    if score is not None:
        options["score"] = score_from(score)
    return options


def score_from(given: str) -> Callable[[BatchResult], Any]:
    """Return the function of ``--score MODULE:FUNCTION``, with its faults as `Misuse`.

    What it returns is checked to be JSON, and what it raises ends the run with one line that names the
    place.
    """
    found = imported("--score", given, "MODULE:FUNCTION")
    if not callable(found):
        raise Misuse(f"--score {given}: not a function")

    async def score(result: BatchResult) -> Any:
        try:
            made = found(result)
            if inspect.isawaitable(made):
                made = await made
            check_score(made)
            msgspec.json.encode(made)
        except (Exception, SystemExit) as exc:
            where = f"with key {one_line(result.key, 100)}"
            raise Misuse(f"--score {given} failed for the result {where}: {said(exc)}") from exc
        return made

    return score


class Judgements:
    """The counts of what was judged of a run's answers."""

    def __init__(self) -> None:
        self.invalid = self.asked_again = self.scored = 0
        self.newest = ""
        """Words for what was wrong with the newest answer that is not valid."""
        self.total = 0.0
        """Sum of the scores that are numbers, of which there are ``scored``."""

    def add(self, result: BatchResult) -> None:
        """Count a result."""
        self.asked_again += sum(attempt.invalid is not None for attempt in result.attempts)
        if result.invalid is not None:
            self.invalid += 1
            self.newest = words_of(result.invalid)
        if isinstance(result.score, int | float) and math.isfinite(result.score):
            self.scored += 1
            self.total += result.score

    def rows(self) -> list[Row]:
        """Return the closing lines."""
        rows = []
        if self.invalid:
            rows.append(("invalid", one_line(f"{self.invalid:,} · {self.newest}")))
        if self.asked_again:
            rows.append(("asked again", many(self.asked_again, "invalid answer")))
        if self.scored:
            mean = f"{self.total / self.scored:.4g}"
            rows.append(("score", f"mean {mean} of {many(self.scored, 'result')}"))
        return rows

    def fields(self) -> dict[str, Any]:
        """Return the counts for ``--summary json``."""
        mean = self.total / self.scored if self.scored else None
        return {
            "invalid": self.invalid,
            "asked_again": self.asked_again,
            "score": {"mean": mean, "count": self.scored},
        }
