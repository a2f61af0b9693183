"""``trio-minillm report``: all outputs of a benchmark, made again from its records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument

from . import _bench_output_options as output
from ._output import Misuse, OutputError, error_code, error_fields, error_line, safe_json
from ._terminal import ALIGNED, MARKDOWN, print_error, print_summary, write_all


def report(
    file: Annotated[
        Path, Argument(help="Records written by bench: .jsonl, .jsonl.gz, or .parquet.")
    ],
    *,
    json: output.JSON = False,
    markdown: output.Markdown = False,
    csv: output.CSVFile = None,
    html: output.HTMLFile = None,
) -> None:
    """Rebuild the results of a benchmark from the records of its requests.

    The figures are exactly those that the run reported.
    """
    outputs = output.Outputs(json=json, markdown=markdown, csv=csv, html=html)
    try:
        error = _tell(file, outputs)
    except Misuse as exc:
        error = exc
        if json:
            print_json({}, error)
    except OutputError as exc:
        error = exc
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    code = error_code(error)
    if error is not None and code != 141:
        print_error(error_line(error, None))
    raise typer.Exit(code)


def _tell(file: Path, outputs: output.Outputs) -> Exception | None:
    """Make all that is wanted of these records, and return the failure of a file, if there is one."""
    from .._bench.output.again import again  # brings numpy
    from .._bench.output.curves import CurveMaker
    from .._bench.output.record_files import RecordsError
    from ._bench_told import Told

    outputs.check(("the records", file))
    curves = CurveMaker()
    try:
        made = again(file, curves.add)
    except RecordsError as exc:
        raise Misuse(str(exc)) from exc
    told = Told(result=made.result, beside=made.beside)
    try:
        table, rows = told.table(), told.rows()
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as exc:
        raise Misuse(f"{file}: its entry for the end of the run can't be read") from exc
    error = told.write_files(outputs, curves)
    if outputs.json:
        print_json(told.fields(), None)
    else:
        form = MARKDOWN if outputs.markdown else ALIGNED
        print_summary(table, rows, form=form)
    return error


def print_json(fields: dict[str, Any], error: Exception | None) -> None:
    """Print one JSON object, with the error of a command and its exit code. Raises `OutputError`."""
    what = None if error is None else error_fields(error)
    write_all(sys.stdout, safe_json({**fields, "error": what, "exit_code": error_code(error)}))
