"""The rows that go into Ray's blocks and come out of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .._batch.files.result_format import ResultLine

if TYPE_CHECKING:
    import pyarrow as pa


def rows_of(batch: Mapping[str, Any]) -> list[Any]:
    """The rows of a block in Ray's numpy format, in JSON's types. Raises ``ValueError``."""
    columns = {name: column.tolist() for name, column in batch.items()}
    if "text" in columns:
        return [_json(text) for text in columns["text"]]
    names = list(columns)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [
        {name: _cell(name, value) for name, value in row.items() if not _missing(value)}
        for row in rows
    ]


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ValueError("a row's text is not a line of JSON") from None


def _cell(name: str, value: Any) -> Any:
    """Nested fields may come as JSON: columns of a table have one type."""
    if name not in ("key", "custom_id", "prompt", "system", "model") and isinstance(value, str):
        if value[:1] in ("{", "["):
            return _json(value)
        return value
    return value.tolist() if hasattr(value, "tolist") else value


def _missing(value: Any) -> bool:
    return value is None or value != value  # NaN: what a table has in place of a missing number


def table_of(lines: list[bytes]) -> pa.Table:
    """The rows that come out, with the same types in each block."""
    import pyarrow as pa

    texts, numbers = pa.string(), pa.int64()
    found = [(msgspec.json.decode(line, type=ResultLine), line) for line in lines]
    usages = [line.usage or {} for line, _ in found]
    return pa.table(
        {
            "key": pa.array([line.key for line, _ in found], texts),
            "ok": pa.array([line.ok for line, _ in found], pa.bool_()),
            "outcome": pa.array([line.outcome for line, _ in found], texts),
            "content": pa.array([line.content for line, _ in found], texts),
            "error": pa.array([(line.error or {}).get("code") for line, _ in found], texts),
            "prompt_tokens": pa.array([u.get("prompt_tokens") for u in usages], numbers),
            "completion_tokens": pa.array([u.get("completion_tokens") for u in usages], numbers),
            "cost": pa.array([(line.cost or {}).get("amount") for line, _ in found], texts),
            "cached": pa.array([line.cached for line, _ in found], pa.bool_()),
            "result": pa.array([raw.decode().rstrip("\n") for _, raw in found], texts),
        }
    )
