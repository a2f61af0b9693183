"""Lines and rows of a batch's input, in whatever format and however it is compressed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import msgspec

from .request_format import JSON_FIELDS
from .unpacked import DamagedError, opened

MAX_LINE = 64 << 20
"""Bytes of the longest line, unpacked. A line with pictures has a few MB; a whole file of OpenAI's
Batch API may have 200 MB."""
Row = tuple[int, "dict[str, Any] | str"]
"""Number of a line (of a row in Parquet), and its fields or the words for a fault."""
Format = Literal["jsonl", "csv", "tsv", "parquet"]
"""Format of an input."""
FORMATS: tuple[str, ...] = get_args(Format)


def format_of(path: Path) -> Format:
    """Return the format that a file's name tells, JSON lines unless it tells another. ``.gz`` and
    ``.zst`` at its end don't count.
    """
    packed = path.suffix.lower() in (".gz", ".zst")
    kind = Path(path.stem if packed else path.name).suffix.lower()
    return {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}.get(kind, "jsonl")  # type: ignore[return-value]


def rows_of(path: Path, format: Format, json: Collection[str] = JSON_FIELDS) -> Iterator[Row]:
    """Yield the rows of a file. ``json`` are the columns whose text is read as JSON where it can be.

    Raises `OSError`, ``ValueError`` for a file that is no Parquet, and `ImportError` for an extra that
    is missing.
    """
    if format == "jsonl":
        with opened(path) as file:
            yield from json_rows(file)
        return
    from .tables import csv_rows, parquet_rows

    if format == "parquet":
        yield from parquet_rows(path, json)
        return
    with opened(path) as file, TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        yield from csv_rows(text, json, "\t" if format == "tsv" else ",", MAX_LINE)


def json_rows(file: BinaryIO, limit: int = MAX_LINE) -> Iterator[Row]:
    """Yield each line that is not blank: its number, and its fields or the words for a fault."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    number = 0
    try:
        while line := file.readline(limit + 1):
            number += 1
            if len(line) > limit and not line.endswith(b"\n"):
                while (rest := file.readline(limit)) and not rest.endswith(b"\n"):
                    pass
                yield number, f"longer than {limit:,} bytes"
                continue
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text or text.isspace():
                continue
            try:
                yield number, decode(text)
            except msgspec.ValidationError:
                yield number, "not a JSON object"
            except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
                # msgspec's words name the fault and the byte, and quote nothing.
                fault = str(exc) if isinstance(exc, msgspec.DecodeError) else "not readable text"
                yield number, f"not JSON: {fault}"
    except DamagedError as exc:
        yield number + 1, f"not readable from here on: {exc}"
