"""The results that are compared, read from files."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..figures.request import FIGURES
from ..output.again import again
from ..output.json import fields_of
from ..output.record_files import SUFFIXES, RecordsError, read_records
from ..output.record_lines import Mark
from ..plan import Load
from ..record import MEASURED, Record
from ..run import SCHEMA

Floats = NDArray[np.float64]

LATENCIES = ("ttft", "itl", "tpot", "e2e")
"""Distributions that are compared."""
MAX_BYTES = 256 << 20
"""Bytes of a result that is read."""


class ResultError(Exception):
    """A file that is no result. The message says why."""


class Sample:
    """The requests of one load that its figures are made of, as far as a comparison draws from them."""

    def __init__(self) -> None:
        self.numbers = array("q")
        """Numbers of all requests."""
        self.failed = array("d")
        """1 for each of them that failed, and 0 for the others."""
        self._owners: dict[str, array[int]] = {name: array("q") for name in LATENCIES}
        self._values: dict[str, array[float]] = {name: array("d") for name in LATENCIES}

    def add(self, record: Record) -> None:
        """Take a request."""
        if record.phase != MEASURED or record.outcome == "cancelled":
            return
        self.numbers.append(record.number)
        self.failed.append(0.0 if record.whole else 1.0)
        if not record.whole:
            return
        for name in LATENCIES:
            if name == "itl":
                gaps = np.diff(record.stamps)
                self._values[name].extend(gaps.tolist())
                self._owners[name].extend([record.number] * gaps.size)
            elif (value := FIGURES[name](record)) is not None:
                self._values[name].append(value)
                self._owners[name].append(record.number)

    def values(self, name: str) -> tuple[Floats, NDArray[np.int64]]:
        """Return the values of a distribution, and the number of the request that each is of."""
        return np.array(self._values[name]), np.array(self._owners[name], dtype=np.int64)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One result."""

    path: Path
    fields: dict[str, Any]
    """As JSON has it."""
    samples: dict[int, Sample] | None = None
    """The requests by the number of their load, if the file has them."""

    def points(self) -> dict[str, int]:
        """Return the numbers of the points by their loads; of equal ones the last, which is the newest."""
        return {load_key(point["load"]): n for n, point in enumerate(self.fields["points"])}


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One or several runs of the same thing."""

    name: str
    runs: tuple[Run, ...]

    @property
    def sampled(self) -> bool:
        """True if the requests of all runs are known."""
        return all(run.samples is not None for run in self.runs)


def load_key(load: dict[str, Any]) -> str:
    """Return a text that is the same for the same loads."""
    return msgspec.json.encode({k: v for k, v in sorted(load.items()) if v is not None}).decode()


def read_side(given: str) -> Side:
    """Return the runs of a file, or of several whose names are joined by commas. Raises `ResultError`."""
    names = [given] if Path(given).exists() else given.split(",")
    return Side(name=given, runs=tuple(_read(Path(name)) for name in names))


def _read(path: Path) -> Run:
    if path.name.endswith(SUFFIXES):
        return _from_records(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ResultError(f"{path}: {exc.strerror or exc}") from exc
    if len(data) > MAX_BYTES:
        raise ResultError(f"{path}: too large for a result")
    try:
        fields = msgspec.json.decode(data)
        if fields["schema"] != SCHEMA:
            raise ResultError(f"{path}: its schema is not {SCHEMA}")
        _check(fields["points"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ResultError(f"{path}: not a result of trio-minillm bench --json") from None
    if not fields["points"]:
        raise ResultError(f"{path}: nothing was measured")
    return Run(path=path, fields=fields)


def _check(points: Sequence[dict[str, Any]]) -> None:
    """Raise ``ValueError``, ``TypeError`` or ``KeyError`` if these are no points."""
    for point in points:
        msgspec.convert(point["load"], Load)
        msgspec.convert(point["counts"]["outcomes"], dict[str, int])
        msgspec.convert(point["rates"], dict[str, float | None])
        msgspec.convert(point["latency"], dict[str, dict[str, Any]])
        for spread in point["latency"].values():
            msgspec.convert(spread["intervals"], dict[str, tuple[float, float]])


def _from_records(path: Path) -> Run:
    """Return the run of a file of records, which is read twice: what is drawn from is known at its end."""
    try:
        result = again(path).result
        samples = {number: Sample() for number in range(len(result.points))}
        for one in read_records(path):
            if isinstance(one, Mark) or one[0] not in samples:
                continue
            number, record = one
            steady = result.points[number].steady
            if steady is None or steady.holds(record):
                samples[number].add(record)
    except RecordsError as exc:
        raise ResultError(str(exc)) from exc
    if not result.points:
        raise ResultError(f"{path}: nothing was measured")
    return Run(path=path, fields=fields_of(result), samples=samples)
