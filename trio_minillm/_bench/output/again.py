"""A result, made again from a file of its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ..figures.figures import figures_of
from ..plan import Load
from ..record import ALONE, MEASURED, WARMUP, Record
from ..run import Point, Result
from .record_files import RecordsError, read_records
from .record_lines import Mark

UNFINISHED = "the file of records ends before its run did"
"""Note of a result whose run was killed, or is still going on."""


class Again(msgspec.Struct, kw_only=True):
    """A result that was made again, with what its run knew beside its records."""

    result: Result
    beside: dict[str, Any]
    """Cost and comparison, as the run has told them; empty if it was killed."""


def again(
    path: Path, watch: Callable[[Point, Sequence[Record]], object] = lambda point, records: None
) -> Again:
    """Return the result of a file of records: the figures are exactly those that the run has told.

    The records of one load are in memory at a time; ``watch`` is called with each load's. Raises
    `RecordsError`.
    """
    maker = _Maker(path, watch)
    for one in read_records(path):
        if isinstance(one, Mark):
            maker.mark(one)
        else:
            maker.add(*one)
    return maker.made()


class _Maker:
    """Makes points of records that come in the order of their loads."""

    def __init__(self, path: Path, watch: Callable[[Point, Sequence[Record]], object]) -> None:
        self._path = path
        self._watch = watch
        self._marks: dict[tuple[str, int | None], dict[str, Any]] = {}
        self._records: dict[str, list[Record]] = {}
        self._number: int | None = None
        self._points: list[Point] = []

    def mark(self, mark: Mark) -> None:
        self._marks[mark.mark, mark.point] = mark.fields

    def add(self, number: int, record: Record) -> None:
        if self._number is not None and number != self._number:
            self._finish()
        self._number = number
        self._records.setdefault(record.phase, []).append(record)

    def _finish(self) -> None:
        fields = self._marks.get(("load", self._number))
        begin = self._marks.get(("begin", None), {})
        try:
            if fields is None:
                config = begin.get("config", {})
                load = msgspec.convert(config.get("load") or {"type": "closed"}, Load)
                point = point_of(load, self._records, notes=(UNFINISHED,))
            else:
                notes = tuple(fields.get("notes", ()))
                load = msgspec.convert(fields["load"], Load)
                point = point_of(load, self._records, audit=fields["audit"], notes=notes)
        except (ValueError, KeyError) as exc:
            raise RecordsError(f"{self._path}: {exc}") from exc
        self._watch(point, self._records.get(MEASURED, []))
        self._points.append(point)
        self._records = {}

    def made(self) -> Again:
        if self._number is not None:
            self._finish()
        begin = self._marks.get(("begin", None), {})
        end = dict(self._marks.get(("end", None), {}))
        try:
            result = Result(
                version=str(begin["version"]),
                at=msgspec.convert(begin["at"], datetime),
                config=begin["config"],
                points=tuple(self._points),
                found=end.pop("found", None),
            )
        except (ValueError, KeyError) as exc:
            raise RecordsError(f"{self._path}: {exc}") from exc
        return Again(result=result, beside=end)


def point_of(load: Load, records: Mapping[str, list[Record]], **more: Any) -> Point:
    """Return the figures of one load from its records by phase."""
    warmup, alone = records.get(WARMUP), records.get(ALONE)
    return Point(
        load=load,
        figures=figures_of(records.get(MEASURED, ())),
        warmup=figures_of(warmup) if warmup else None,
        alone=figures_of(alone) if alone else None,
        **more,
    )
