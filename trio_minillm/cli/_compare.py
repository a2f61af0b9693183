"""``trio-minillm compare``: what differs between results of ``bench``, and whether that is chance."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ._output import (
    Misuse,
    OutputError,
    Row,
    error_code,
    error_fields,
    error_line,
    one_line,
    safe_json,
)
from ._terminal import ALIGNED, MARKDOWN, encoded, print_error, print_summary, write_all

FAILED = 8
"""Exit code if a condition of ``--fail-if`` holds."""

_HELP = {
    "files": "Files from bench --json or --records; the first is the base. Join several runs of one"
    " side with commas.",
    "fail_if": 'Exit with 8 if this holds: "ttft.p99 > 1.1x", "tpot.mean > 50ms", "failed > 1%"; may be'
    " repeated.",
    "json": "Print the comparison as one JSON object.",
    "markdown": "Print the comparison as Markdown.",
}


class Failed(Exception):
    """A condition of ``--fail-if`` that holds. The message says which, and where."""


def compare(
    files: Annotated[list[str], Argument(metavar="BASE NEW...", help=_HELP["files"])],
    *,
    fail_if: Annotated[
        list[str] | None, Option("--fail-if", metavar="CONDITION", help=_HELP["fail_if"])
    ] = None,
    json: Annotated[bool, Option("--json", help=_HELP["json"])] = False,
    markdown: Annotated[bool, Option("--markdown", help=_HELP["markdown"])] = False,
) -> None:
    """Compare runs of bench with a base run, load by load.

    Records give the narrowest intervals: a bootstrap draws the same prompts on both sides. Results of
    --json are compared by their own intervals.
    """
    error: Exception | None = None
    try:
        error = _compare(files, fail_if or [], json=json, markdown=markdown)
    except Misuse as exc:
        error = exc
        if json:
            _print_json({}, error)
    except OutputError as exc:
        error = exc
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    code = _code(error)
    if error is not None and code != 141:
        print_error(error_line(error, None))
    raise typer.Exit(code)


def _code(error: Exception | None) -> int:
    return FAILED if isinstance(error, Failed) else error_code(error)


def _compare(
    files: list[str], conditions: list[str], *, json: bool, markdown: bool
) -> Failed | None:
    """Print the comparisons, and return what holds of the conditions."""
    from .._bench.comparison.compare import compare as compared  # brings numpy
    from .._bench.comparison.conditions import parse_condition
    from .._bench.comparison.sides import ResultError, read_side
    from .._bench.comparison.table import SCHEMA, fields_of, table_of

    if json and markdown:
        raise Misuse("--json can't be combined with --markdown")
    if len(files) < 2:
        raise Misuse("give at least two results to compare")
    try:
        wanted = [parse_condition(text) for text in conditions]
        base, *others = [read_side(given) for given in files]
        found = [one for other in others for one in compared(base, other)]
    except (ResultError, ValueError) as exc:
        raise Misuse(str(exc)) from None
    broken = [
        f"{why} ({one.new}, {one.load})"
        for one in found
        for condition in wanted
        if (why := condition.failure(one.changes)) is not None
    ]
    failed = Failed("; ".join(broken)) if broken else None
    if json:
        fields = {"schema": SCHEMA, "comparisons": [fields_of(one) for one in found]}
        _print_json({**fields, "broken": broken}, failed)
        return failed
    form = MARKDOWN if markdown else ALIGNED
    for number, one in enumerate(found):
        title = one_line(f"{one.base} → {one.new} · {one.load}")
        heading = f"### {title}\n\n" if markdown else f"{title}\n"
        write_all(sys.stdout, encoded(("\n" if number else "") + heading, sys.stdout))
        print_summary(table_of(one), _rows(one), form=form)
    return failed


def _rows(one: Any) -> list[Row]:
    how = "paired by prompt" if one.paired else "from the intervals of each side"
    return [("intervals", how), *(("note", one_line(note)) for note in one.notes)]


def _print_json(fields: dict[str, Any], error: Exception | None) -> None:
    what = None if error is None else error_fields(error)
    write_all(sys.stdout, safe_json({**fields, "error": what, "exit_code": _code(error)}))
