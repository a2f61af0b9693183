"""Requests from a file, which is checked whole before the first of them is sent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from ..._types.checks import check_option, wrong_type
from ...providers import Model
from ..types import BatchRequest
from .columns import Columns
from .key_table import KeyTable, check_shard, in_shard
from .request_format import JSON_FIELDS, RequestReader
from .rows import FORMATS, Format, format_of, rows_of

MAX_PROBLEMS = 100
"""Problems that an `InputReport` keeps; all are counted."""
MAX_NAMES = 50
"""Names of extra fields that an `InputReport` counts, and of columns that it keeps."""
MAX_MODELS = 1_000
"""Models that are kept for lines that name the same one."""
_BAD = 0
"""Number of a key that only bad lines have had: the next line with it is no duplicate."""


class Problem(msgspec.Struct, frozen=True):
    """The fault of a line or row. Numbers start from 1; a CSV row is named by its first line."""

    line: int
    """The number of the line or row."""
    what: str
    """The fault, as text."""

    def __str__(self) -> str:
        return f"line {self.line:,}: {self.what}"


class InputReport(msgspec.Struct, kw_only=True):
    """The findings of the first reading. Requests of other shards are not counted."""

    requests: int = 0
    """The number of requests that can be sent."""
    bad: int = 0
    """The number of lines that can't be read or sent."""
    problems: list[Problem] = msgspec.field(default_factory=list)
    """The first `MAX_PROBLEMS` problems."""
    extra: dict[str, int] = msgspec.field(default_factory=Counter)
    """Fields of bodies that are no known parameters, with the number of requests that have them.
    They are sent unchanged, so a misspelt name is among them."""
    columns: list[str] = msgspec.field(default_factory=list)
    """The first fields of the first readable line."""
    as_meta: list[str] = msgspec.field(default_factory=list)
    """The first columns of a dataset (see ``prompt`` of `RequestFile`) that became ``meta``."""
    as_params: list[str] = msgspec.field(default_factory=list)
    """The first columns of a dataset that are sent as parameters, because they have such a name."""

    def add(self, problem: Problem) -> None:
        """Count a problem."""
        self.bad += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


class InputError(ValueError):
    """The file has lines that can't be sent, which ``report`` lists. Nothing was sent."""

    def __init__(self, path: Path, report: InputReport) -> None:
        lines = "a line" if report.bad == 1 else f"{report.bad:,} lines"
        super().__init__(f"{path}: {lines} can't be sent; {report.problems[0]}")
        self.report = report


class RequestFile:
    """The requests of a file: ``async with client.batch(RequestFile("in.jsonl", model=model))``.

    JSON lines are read in OpenAI's Batch API form (``custom_id``, ``method``, ``url``, ``body``) or
    in a short form (``key``, ``messages`` or ``prompt``, parameters, ``meta``, ``extra``).
    ``.csv``, ``.tsv``, and ``.parquet`` files (extra ``tables``) have the short form's fields as
    columns, with a column ``meta.NAME`` for each field of ``meta``. Files compressed with gzip or
    zstd (extra ``zstd``) are decompressed while they are read.

    - ``path`` is the file.
    - ``model`` gives the provider, the address, and the key, and the name for lines without
      ``model``. Lines that name another model have no price. It may also be a function that returns
      the model for a line's name (``None`` if it has none), and may raise ``ValueError``.
    - ``params`` are parameters for lines that do not set them.
    - ``key`` is the column or field with a line's key, in a dataset of any form.
    - ``prompt`` is the column or field with the prompt: a text, or messages in OpenAI's format.
      Lines without a key are then named by their numbers.
    - ``system`` is the column or field with a system message.
    - ``strict`` rejects unknown fields. They are always rejected unless ``key``, ``prompt``, or
      ``system`` is given; in that case, they become ``meta`` by default.
    - ``format`` is ``"jsonl"``, ``"csv"``, ``"tsv"``, or ``"parquet"``, if the file name does not
      say.
    - ``shard`` is ``(i, n)`` to read only the i-th of n parts, by the hash of the key (`in_shard`).
    - ``skip_bad`` leaves out lines that can't be sent, and repeats of a key.

    Guarantees: the whole file is checked before the first request is yielded, so a bad line, a
    duplicate key, or an unknown field is reported before anything is sent. At most one line is held
    at a time, plus 64 bytes for each key. A change of the file in the meantime is noticed.

    Raises ``OSError`` if the file can't be read. Iteration raises `InputError`, and ``ValueError``
    if the file has changed or no line has a named column.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: Model | Callable[[str | None], Model],
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
        prompt: str | None = None,
        system: str | None = None,
        strict: bool = False,
        format: Format | None = None,
        shard: tuple[int, int] | None = None,
        skip_bad: bool = False,
    ) -> None:
        if shard is not None:
            check_shard(shard)
        for name, column in (("key", key), ("prompt", prompt), ("system", system)):
            check_option(name, column, str)
        if format is not None and format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}")
        if not isinstance(model, Model) and not callable(model):
            raise wrong_type("model", model, Model, "a function that makes one of a name")
        self.path: Path = Path(path).absolute()
        self.report: InputReport | None = None
        """Findings of `check`, once it has run."""
        make = partial(_named, model) if isinstance(model, Model) else model
        model_of = lru_cache(MAX_MODELS)(make)
        self._reader = RequestReader(model_of=model_of, params=dict(params or {}))
        self._columns: Columns | None = None
        if (key, prompt, system) != (None, None, None):
            self._columns = Columns(key=key, prompt=prompt, system=system, strict=strict)
        self._format: Format = format or format_of(self.path)
        self._shard = shard
        self._skip_bad = skip_bad
        self._lines = KeyTable()
        self._checked: tuple[int, int] | None = None
        if not self.path.is_file():
            self.path.stat()  # raises if there is no such file
            raise OSError(f"{self.path} is not a regular file: it is read twice")

    def __contains__(self, key: str) -> bool:
        """Return True if the file (its shard) has a good line with this key, once it is checked."""
        return (self._lines.get(key) or _BAD) != _BAD

    def __len__(self) -> int:
        """Return the number of requests. Checks the file first, unless that was done."""
        return (self.report or self.check()).requests

    def check(
        self,
        visit: Callable[[int, BatchRequest], object] | None = None,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> InputReport:
        """Read the whole file and report its faults.

        - ``visit`` is called with the number and the request of each good line. If it raises
          ``ValueError``, the line counts as bad.
        - ``progress`` is called with the number of each line that is not blank, before anything
          else.
        """
        report, self._lines = InputReport(), KeyTable()
        self._checked = self._state()
        for number, request, shape in self._requests(report, progress):
            first = self._lines.add(request.key, number)
            if first not in (number, _BAD):
                report.add(Problem(number, f"the key is the same as in line {first:,}"))
                continue
            try:
                self._reader.check(request, shape)
                if visit is not None:
                    visit(number, request)
            except ValueError as exc:
                report.add(Problem(number, str(exc)))
                self._lines.put(request.key, _BAD)
                continue
            if first == _BAD:
                self._lines.put(request.key, number)
            report.requests += 1
            for name in request.extra:
                if name in report.extra or len(report.extra) < MAX_NAMES:
                    report.extra[name] = report.extra.get(name, 0) + 1
        if self._columns is not None:
            if (what := self._columns.missing()) is not None:
                raise ValueError(what)
            report.as_meta, report.as_params = self._columns.told()
        self.report = report
        return report

    def __iter__(self) -> Iterator[BatchRequest]:
        """Yield the requests, in the file's order. Checks the file first, unless that was done."""
        report = self.report or self.check()
        if report.bad and not self._skip_bad:
            raise InputError(self.path, report)
        for number, request, _ in self._requests(InputReport()):
            if self._lines.get(request.key) == number:  # neither bad nor a duplicate
                yield request
            self._check_state(number)
        self._check_state(0)

    def _requests(
        self, report: InputReport, progress: Callable[[int], object] | None = None
    ) -> Iterator[tuple[int, BatchRequest, bytes | None]]:
        """Yield the number, request and shape of each line of this shard, and report those that can't
        be a request.
        """
        columns = self._columns
        json = JSON_FIELDS if columns is None else columns.json
        for number, row in rows_of(self.path, self._format, json):
            if progress is not None:
                progress(number)
            try:
                if isinstance(row, str):
                    raise ValueError(row)
                report.columns = report.columns or list(row)[:MAX_NAMES]
                line = row if columns is None else columns.line(number, row)
                request, shape = self._reader.read(line)
            except ValueError as exc:
                report.add(Problem(number, str(exc)))
                continue
            if self._shard is None or in_shard(request.key, self._shard):
                yield number, request, shape

    def _state(self) -> tuple[int, int]:
        now = self.path.stat()
        return now.st_size, now.st_mtime_ns

    def _check_state(self, number: int) -> None:
        if number % 1000 == 0 and self._state() != self._checked:
            raise ValueError(f"{self.path} was changed while it was read")


def _named(model: Model, name: str | None) -> Model:
    if name is None or name == model.name:
        return model
    return replace(model, name=name, price=None)
