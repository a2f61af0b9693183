"""A result, made again from a file of its records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ..audit.audit import Audit
from ..audit.null import NullRun
from ..figures.objective import Objective
from ..kept import Kept
from ..plan import Load
from ..record import Record
from ..run import Point, Result
from .record_files import RecordsError, read_records
from .record_lines import Mark

Seed = Annotated[int, msgspec.Meta(ge=0)]
UNFINISHED = "the records end before the run did"
"""Note of a result whose run was killed, or is still going on."""


class Again(msgspec.Struct, kw_only=True):
    """A result that was made again, with what its run knew beside its records."""

    result: Result
    beside: dict[str, Any]
    """Cost and comparison, as the run has told them; empty if it was killed."""


def again(path: Path, watch: Callable[[int, Record], object] = lambda point, record: None) -> Again:
    """Return the result of a file of records: the figures are exactly those that the run has told.

    ``watch`` is called with each record and the number of its load. Raises `RecordsError`.
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

    def __init__(self, path: Path, watch: Callable[[int, Record], object]) -> None:
        self._path = path
        self._watch = watch
        self._marks: dict[tuple[str, int | None], dict[str, Any]] = {}
        self._kept: Kept | None = None
        self._number: int | None = None
        self._points: list[Point] = []

    def mark(self, mark: Mark) -> None:
        self._marks[mark.mark, mark.point] = mark.fields

    def add(self, number: int, record: Record) -> None:
        if number != self._number or self._kept is None:
            if number < len(self._points) + (self._kept is not None):
                raise RecordsError(f"{self._path}: the loads are out of order")
            self._begin(number)
            assert self._kept is not None
        try:
            self._kept.add(record)
        except KeyError:
            raise RecordsError(f'{self._path}: unknown phase "{record.phase}"') from None
        self._watch(number, record)

    def _begin(self, number: int) -> None:
        """Begin with a load. Those since the one before had no record, and are known by their marks."""
        self._finish()
        steady = self._config.get("steady") is True
        for one in range(len(self._points), number + 1):
            self._number, self._kept = one, Kept(steady=steady, objective=self._objective())
            if one < number:
                if ("load", one) not in self._marks:
                    raise RecordsError(f"{self._path}: load {one} is missing")
                self._finish()

    @property
    def _config(self) -> dict[str, Any]:
        found = self._marks.get(("begin", None), {}).get("config")
        return found if isinstance(found, dict) else {}

    def _finish(self) -> None:
        """Make the point of the newest load, if there is one."""
        if self._number is None or self._kept is None:
            return
        begun = self._marks.get(("begin", self._number), {}) if self._number else self._config
        unfinished: dict[str, Any] = {"audit": {}, "notes": [UNFINISHED]}
        unfinished |= {name: begun.get(name) for name in ("load", "seed")}
        fields = self._marks.get(("load", self._number), unfinished)
        try:
            load, seed = msgspec.convert((fields["load"], fields["seed"]), tuple[Load, Seed])
            audit = msgspec.convert(fields["audit"], Audit)
            null_run = msgspec.convert(fields.get("null_run"), NullRun | None)
            notes = msgspec.convert(fields["notes"], tuple[str, ...])
        except (ValueError, KeyError) as exc:
            raise RecordsError(f"{self._path}: {exc}") from exc
        point, _ = self._kept.point(load, seed)
        known = {"audit": audit, "null_run": null_run, "notes": notes}
        self._points.append(msgspec.structs.replace(point, **known))
        self._kept = None

    def _objective(self) -> Objective | None:
        """Return the limits of a good answer, if the run had any."""
        limits = self._config.get("goodput")
        if limits is None:
            return None
        try:
            return Objective(share=1.0, limits=msgspec.convert(limits, dict[str, float]))
        except ValueError as exc:
            raise RecordsError(f"{self._path}: {exc}") from exc

    def made(self) -> Again:
        last = max(
            (at for what, at in self._marks if what == "load" and at is not None), default=-1
        )
        if last > (-1 if self._number is None else self._number):
            self._begin(last)
        self._finish()
        begin = self._marks.get(("begin", None), {})
        end = dict(self._marks.get(("end", None), {}))
        try:
            result = Result(
                version=str(begin["version"]),
                at=msgspec.convert(begin["at"], datetime),
                config=msgspec.convert(begin["config"], dict[str, Any]),
                points=tuple(self._points),
                found=end.pop("found", None),
            )
        except (ValueError, KeyError) as exc:
            raise RecordsError(f"{self._path}: {exc}") from exc
        return Again(result=result, beside=end)
