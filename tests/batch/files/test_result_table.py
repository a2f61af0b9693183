"""Results as tables, and results that were compressed."""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trio_minillm._batch.files import result_table
from trio_minillm._batch.files.result_file import read_results
from trio_minillm._batch.files.result_format import ROW_TYPES
from trio_minillm.batch import ResultLine, write_table


def line(key: str = "a", **changes: Any) -> dict[str, Any]:
    """A line as a run writes it."""
    choice = {"message": {"content": "Hi."}, "finish_reason": "stop"}
    whole: dict[str, Any] = {
        "id": "batch_req_1",
        "custom_id": key,
        "ok": True,
        "outcome": "finished",
        "content": "Hi.",
        "request": "0" * 16,
        "response": {"status_code": 200, "body": {"model": "m-1", "choices": [choice]}},
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "cache_read_tokens": 3,
            "reasoning_tokens": 2,
        },
        "cost": {"amount": "0.10000000000000000000001", "resolution": "resolved"},
        "timings": {"first_chunk": 0.25, "total": 1.5},
        "attempts": [{}, {}],
        "meta": {"label": "ß"},
        "score": 0.5,
    }
    return {**whole, **changes}


FAILED: dict[str, Any] = {
    "ok": False,
    "outcome": "errored",
    "content": None,
    "response": {"status_code": 400, "body": {"error": {"message": "no"}}},
    "error": {"code": "RefusedError", "message": "HTTP 400"},
    **dict.fromkeys(["usage", "cost", "timings", "meta", "score"]),
    "attempts": [{}],
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    partial = {"model": "m-2", "choices": [{"message": {"content": "Ha"}, "finish_reason": None}]}
    lines = line("a"), line("b", **FAILED), line("c", **{**FAILED, "partial": partial, "meta": "x"})
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_a_row_is_flat(results: Path) -> None:
    a, b, c = (found.row() for found in read_results(results))
    assert a == {
        "key": "a",
        "sample": 0,
        "ok": True,
        "outcome": "finished",
        "content": "Hi.",
        "finish_reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "cached_tokens": 3,
        "reasoning_tokens": 2,
        "cost_usd": 0.1,
        "cost_usd_exact": "0.10000000000000000000001",
        "cost_status": "resolved",
        "model": "m-1",
        "error": None,
        "error_message": None,
        "attempts": 2,
        "seconds": 1.5,
        "ttft": 0.25,
        "meta": '{"label":"ß"}',
        "score": "0.5",
    }
    assert {name: value for name, value in b.items() if value is not None} == {
        "key": "b",
        "sample": 0,
        "ok": False,
        "outcome": "errored",
        "error": "RefusedError",
        "error_message": "HTTP 400",
        "attempts": 1,
    }
    assert (c["model"], c["content"], c["meta"]) == ("m-2", None, '"x"')
    for row in (a, b, c):
        assert list(row) == list(ROW_TYPES)
        for name, value in row.items():
            assert value is None or type(value) is ROW_TYPES[name]


def read_table(path: Path) -> list[dict[str, Any]]:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra [tables]")
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
    else:
        with pyarrow.OSFile(str(path)) as file:
            table = pyarrow.ipc.open_file(file).read_all()
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


needs_pyarrow = pytest.mark.usefixtures("pyarrow")


@pytest.fixture
def pyarrow() -> Any:
    return pytest.importorskip("pyarrow", reason="needs the extra [tables]")


@needs_pyarrow
@pytest.mark.parametrize("name", ["out.parquet", "out.ARROW", "out.feather"])
def test_a_table_has_the_rows(results: Path, name: str) -> None:
    path = results.with_name(name)
    path.write_text("an older one")
    assert write_table(read_results(results), path) == 3
    rows = [found.row() for found in read_results(results)]
    assert read_table(path) == [rows[0] | {"score": 0.5}, *rows[1:]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(["out.jsonl", name])


def column(path: Path, name: str, values: list[Any]) -> tuple[str, list[Any]]:
    """The type and the cells of a column of the table that is made of lines with these values of a
    field, of which ``None`` is a line without it.
    """
    from pyarrow import parquet

    lines = ({"score": v} if name == "score" else {"meta": v} for v in values)
    made = (
        ResultLine(id="i", custom_id="k", ok=True, outcome="x", request="0" * 16, **one)
        for one in lines
    )
    write_table(made, path)
    found = parquet.read_table(path).column(name)
    return str(found.type), found.to_pylist()


@needs_pyarrow
@pytest.mark.parametrize("rows", [1, 10_000])
@pytest.mark.parametrize(
    ("scores", "kind", "cells"),
    [
        ([1, None, -(2**63)], "int64", None),
        ([1, 0.5, 2**60], "double", [1.0, 0.5, 2.0**60]),
        ([0.5, 1e-7, None], "double", None),
        ([True, None, False], "bool", None),
        ([None, None], "string", None),
        ([True, 1], "string", ["true", "1"]),
        ([1, 2**63], "string", ["1", "9223372036854775808"]),
        (["a", "b"], "string", ['"a"', '"b"']),
        ([1, {"right": 1}], "string", ["1", '{"right":1}']),
    ],
)
def test_scores_of_one_kind_are_a_column_of_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    scores: list[Any],
    kind: str,
    cells: list[Any] | None,
) -> None:
    monkeypatch.setattr(result_table, "ROWS", rows)
    assert column(tmp_path / "out.parquet", "score", scores) == (kind, cells or scores)


@needs_pyarrow
def test_fields_of_metas_are_columns(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "out.parquet"
    metas = [
        {"label": "ß", "n": 1, "x": 1, "right": True, "mixed": 1, "list": [1], "none": None},
        None,
        {"label": "b", "n": None, "x": 0.5, "mixed": "a"},
    ]
    kind, texts = column(path, "meta", metas)
    assert (kind, [text and json.loads(text) for text in texts]) == ("string", metas)
    table = parquet.read_table(path)
    found = {name: table.column(name).to_pylist() for name in table.column_names[len(ROW_TYPES) :]}
    assert found == {
        "meta.label": ["ß", None, "b"],
        "meta.n": [1, None, None],
        "meta.x": [1.0, None, 0.5],
        "meta.right": [True, None, None],
    }


@needs_pyarrow
@pytest.mark.parametrize(
    "metas", [[{"a": 1}, "x"], [[], {"a": 1}], [{f"n{n}": 1} for n in range(101)]]
)
def test_metas_that_are_no_fixed_fields_have_no_columns(tmp_path: Path, metas: list[Any]) -> None:
    from pyarrow import parquet

    column(tmp_path / "out.parquet", "meta", metas)
    assert parquet.read_schema(tmp_path / "out.parquet").names == list(ROW_TYPES)


@needs_pyarrow
def test_a_table_of_nothing_has_its_columns(tmp_path: Path) -> None:
    from pyarrow import parquet

    assert write_table([], tmp_path / "out.parquet") == 0
    found = parquet.read_schema(tmp_path / "out.parquet")
    assert found.names == list(ROW_TYPES)
    assert str(found.field("content").type) == "string"


@needs_pyarrow
@pytest.mark.parametrize(("rows", "text"), [(4, 10**9), (10**9, 8)])
def test_rows_are_held_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, text: int
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(result_table, "ROWS", rows)
    monkeypatch.setattr(result_table, "TEXT", text)

    def made() -> Any:
        for n in range(10):
            yield ResultLine(id="i", custom_id=f"k{n}", ok=False, outcome="x", request="0" * 16)

    path = tmp_path / "out.parquet"
    assert write_table(made(), path) == 10
    with parquet.ParquetFile(path) as file:
        assert file.metadata.num_row_groups > 2
    assert [row["key"] for row in read_table(path)] == [f"k{n}" for n in range(10)]


@needs_pyarrow
@pytest.mark.parametrize("name", ["out.parquet", "out.arrow"])
def test_a_table_that_can_not_be_written_leaves_the_old_one(
    results: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = results.with_name(name)
    path.write_text("an older one")

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_table(read_results(results), path)
    assert caught.value.filename == str(path)
    assert path.read_text() == "an older one"
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(["out.jsonl", name])


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"endings \.parquet, \.arrow, \.feather"):
        write_table([], tmp_path / "out.csv")


def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)


def test_without_the_extra_it_says_what_to_install(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pyarrow(monkeypatch)
    with pytest.raises(ImportError, match=r"pip install 'trio-minillm\[tables\]'"):
        write_table(read_results(results), results.with_name("out.parquet"))
    assert [p.name for p in results.parent.iterdir()] == ["out.jsonl"]


# -- compressed ------------------------------------------------------------------------------


def zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard", reason="needs the extra [zstd]")
    packed: bytes = zstandard.compress(data)
    return packed


packings = pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gzip", "zstd"])


@packings
@pytest.mark.parametrize("parts", [1, 2])
def test_compressed_results_are_read(
    results: Path, pack: Callable[[bytes], bytes], parts: int
) -> None:
    data = results.read_bytes()
    results.write_bytes(pack(data) * parts)  # whatever its name is
    assert [found.key for found in read_results(results)] == ["a", "b", "c"] * parts


@packings
def test_a_compressed_file_that_is_cut_off_is_an_error(
    results: Path, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(os.urandom(50_000).hex().encode() + b"\n" + results.read_bytes())
    results.write_bytes(packed[:-4000])
    with pytest.raises(OSError):
        list(read_results(results))


def test_zstd_needs_its_extra(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"pip install 'trio-minillm\[zstd\]'"):
        list(read_results(results))


def test_results_can_be_piped_in(results: Path) -> None:
    fifo = results.with_name("pipe")
    mkfifo = getattr(os, "mkfifo", None)
    if mkfifo is None:
        pytest.skip("there are no named pipes here")
    mkfifo(fifo)
    both_ends = os.open(fifo, os.O_RDWR)
    reader = read_results(fifo)
    os.write(both_ends, results.read_bytes()[: results.read_bytes().index(b"\n") + 1])
    try:
        assert next(reader).key == "a"
    finally:
        reader.close()  # type: ignore[attr-defined]
        os.close(both_ends)
