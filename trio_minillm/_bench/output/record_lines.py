"""The lines and columns of a file of records: what stands in it, and what becomes of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from ..record import Failure, Record

SCHEMA = "trio-minillm/bench-records/1"
"""Name and version of the form of a file of records."""
MOST = 2**60
"""The bound of every number in a record: more than any clock or count reaches, and within 64 bits."""
COUNTS = (
    *("number", "worker", "turn", "attempts", "asked_tokens"),
    *("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"),
)
"""Fields that are counts."""
FAILURE = "failure_"
"""Beginning of the names of the columns that hold a request's failure."""

_encode = msgspec.json.Encoder().encode


class Mark(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line that is no record: the ``begin`` of the file or of a later load, a ``load`` that has ended, or
    the ``end``.
    """

    mark: str
    point: int | None = None
    """Number of the load, from 0."""
    fields: dict[str, Any] = {}


def record_line(point: int, record: Record) -> bytes:
    """Return a record as a line of JSON: ``{"point":0,"number":7,"phase":"measured",…}``."""
    return b'{"point":%d,%b\n' % (point, _encode(record)[1:])


def mark_line(mark: Mark) -> bytes:
    """Return a mark as a line of JSON."""
    return _encode(mark) + b"\n"


def parsed(line: bytes) -> Mark | tuple[int, Record]:
    """Return what a line says: a mark, or a record with the number of its load.

    Raises ``ValueError`` for a line that is neither.
    """
    try:
        fields = msgspec.json.decode(line)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    if "mark" in fields:
        return msgspec.convert(fields, Mark)
    return record_of(fields)


def record_of(fields: dict[str, Any]) -> tuple[int, Record]:
    """Return the record with these fields, and the number of its load. Raises ``ValueError``."""
    point = fields.pop("point", 0)
    if type(point) is not int or not 0 <= point < MOST:
        raise ValueError("point is no number of a load")
    record = msgspec.convert(fields, Record)
    _check(record)
    return point, record


def _check(record: Record) -> None:
    """Raise ``ValueError`` if no run can have made such a record: figures are computed of what is sure to be a
    time, a count, or an amount.
    """
    times = (record.scheduled, record.sent, record.ended, record.lag, *record.stamps)
    others = (record.called, record.headers, record.first_text, record.first_reasoning)
    if not all(abs(at) < MOST for at in (*times, *(at for at in others if at is not None))):
        raise ValueError("a time is out of range")
    counts = (getattr(record, name) for name in COUNTS)
    if not all(0 <= n < MOST for n in (*record.counts, *(n for n in counts if n is not None))):
        raise ValueError("a count is out of range")
    if record.counts and len(record.counts) != len(record.stamps):
        raise ValueError("counts and stamps differ in length")
    if record.cost is not None:
        try:
            known = abs(Decimal(record.cost)) < MOST
        except ArithmeticError:  # no number, or one that can't be compared
            known = False
        if not known:
            raise ValueError("cost is no amount")


# -- columns ---------------------------------------------------------------------------------

TYPES = {bool: "bool_", int: "int64", float: "float64", str: "string"}
LISTS = {"stamps": "float64", "counts": "int64"}


def column_types() -> dict[str, tuple[str, bool]]:
    """Return the columns of a table of records: Arrow's name of the type, and whether it is a list of it."""
    found: dict[str, tuple[str, bool]] = {"point": ("int64", False)}
    for field in msgspec.structs.fields(Record):
        if field.name == "failure":
            for part in msgspec.structs.fields(Failure):
                found[FAILURE + part.name] = (_type_name(part.type), False)
        elif field.name in LISTS:
            found[field.name] = (LISTS[field.name], True)
        else:
            found[field.name] = (_type_name(field.type), False)
    return found


def _type_name(annotation: Any) -> str:
    options = getattr(annotation, "__args__", (annotation,))
    return next(TYPES[option] for option in options if option in TYPES)


def row_of(point: int, record: Record) -> dict[str, Any]:
    """Return a record as a row of such a table."""
    row = {"point": point, **msgspec.structs.asdict(record)}
    failure = row.pop("failure")
    for part in msgspec.structs.fields(Failure):
        row[FAILURE + part.name] = None if failure is None else getattr(failure, part.name)
    return row


def record_from_row(row: dict[str, Any]) -> tuple[int, Record]:
    """Return the record of a row, and the number of its load. Raises ``ValueError``."""
    failure = {
        name.removeprefix(FAILURE): row.pop(name)
        for name in [name for name in row if name.startswith(FAILURE)]
    }
    row["failure"] = failure if failure.get("type") is not None else None
    return record_of(row)


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the rows as lists of values, by column."""
    return {name: [row[name] for row in rows] for name in column_types()}
