"""The options of ``bench`` and ``report`` that say what becomes of the results."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import msgspec
from typer import Option

from .._bench.output.record_files import SUFFIXES
from ._batch_files import check_paths
from ._output import Misuse

_JSON = "Print the results as one JSON object."
_MARKDOWN = "Print the results as Markdown."
_CSV = "Write the figures to this CSV file, one row per load."
_RECORDS = "Write each request and its times to this file: .jsonl, .jsonl.gz, or .parquet."
_HTML = "Write an HTML report with plots, which opens without a network."

JSON = Annotated[bool, Option("--json", help=_JSON)]
Markdown = Annotated[bool, Option("--markdown", help=_MARKDOWN)]
CSVFile = Annotated[Path | None, Option("--csv", metavar="FILE", help=_CSV)]
RecordsFile = Annotated[Path | None, Option("--records", metavar="FILE", help=_RECORDS)]
HTMLFile = Annotated[Path | None, Option("--html", metavar="FILE", help=_HTML)]


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """The forms in which the results of one command are wanted."""

    json: bool = False
    markdown: bool = False
    csv: Path | None = None
    records: Path | None = None
    html: Path | None = None

    def check(self, *read: tuple[str, Path | None]) -> None:
        """Raise `Misuse` if a file can't be written, is another one that the command uses, or needs what
        is not installed. ``read`` are names and paths of others. Nothing is made or changed.
        """
        if self.json and self.markdown:
            raise Misuse("--json can't be combined with --markdown")
        if self.records is not None:
            if not self.records.name.endswith(SUFFIXES):
                raise Misuse(f"--records must name a file that ends in {', '.join(SUFFIXES)}")
            if self.records.suffix == ".parquet":
                _need("pyarrow", "a table of records", "tables")
        if self.html is not None:
            _need("plotly", "--html", "report")
        named = (("--csv", self.csv), ("--records", self.records), ("--html", self.html))
        check_paths(
            [(name, path) for name, path in read if path is not None],
            [(name, path) for name, path in named if path is not None],
        )


def _need(package: str, what: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Misuse(f"{what} needs {package}: pip install 'trio-minillm[{extra}]'")
