"""Files of records: what is written is read again, and bad files are said to be bad."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trio_minillm._bench.output import record_files
from trio_minillm._bench.output.again import UNFINISHED, again
from trio_minillm._bench.output.record_files import RecordFile, RecordsError, read_records
from trio_minillm._bench.output.record_lines import (
    Mark,
    column_types,
    mark_line,
    record_line,
    row_of,
)
from trio_minillm._bench.plan import Closed, Open
from trio_minillm._bench.record import ALONE, WARMUP, Failure, Record

from ..support.bench_results import AT, CONFIG, answered, failed, many, point, write

NAMES = ["r.jsonl", "r.jsonl.gz", "r.parquet"]


def needs(name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="needs the extra [tables]")


FULL = Record(
    number=3,
    phase=ALONE,
    worker=2,
    turn=1,
    scheduled=0.1,
    sent=1 / 3,
    headers=0.5,
    first_text=0.7,
    first_reasoning=0.6,
    stamps=[0.6, 0.7, 1e-9],
    counts=[1, 2, 5],
    ended=2.0,
    outcome="errored",
    reason="stop",
    failure=Failure(type="E", kind="k", status=500, code="c", clock="idle", message="ü\n"),
    attempts=2,
    prompt_tokens=1,
    cached_tokens=0,
    output_tokens=9,
    reasoning_tokens=0,
    cost="0.000000001",
    asked_tokens=10,
)


@pytest.mark.parametrize("name", NAMES)
def test_records_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    needs(name)
    records = [FULL, answered(0), failed(1), answered(2, phase=WARMUP)]
    path = write(tmp_path / name, [(Closed(), records)])
    found = [one for one in read_records(path) if not isinstance(one, Mark)]
    assert found == [(0, record) for record in records]


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_of_several_loads_come_back(tmp_path: Path, name: str) -> None:
    needs(name)
    loads = [(Closed(concurrency=2), many(30)), (Open(rate=3.0), [*many(20, seed=1), failed(20)])]
    made = again(write(tmp_path / name, list(loads), goodput={"ttft": 0.2}))
    assert made.result.at == AT
    for found, (load, records) in zip(made.result.points, loads, strict=True):
        assert found.load == load
        assert found.figures.goodput is not None
        assert found.figures.latency == point(records, load).figures.latency


def test_every_field_of_a_record_has_a_column() -> None:
    names = {*column_types()}
    assert {*row_of(0, FULL)} == names
    assert {field.name for field in msgspec.structs.fields(Record)} - {"failure"} <= names


def test_a_table_is_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [tables]")
    monkeypatch.setattr(record_files._Table, "most", (10, 10**6, float("inf")))
    path = write(tmp_path / "r.parquet", [(Closed(), many(25))])
    with parquet.ParquetFile(path) as file:
        assert file.metadata.num_row_groups == 3
    assert again(path).result.points[0].figures.sent == 25


def test_many_contents_are_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    real = record_files._Lines.write

    def write_lines(self: Any, batch: list[Any]) -> None:
        written.append(len(batch))
        real(self, batch)

    monkeypatch.setattr(record_files._Lines, "write", write_lines)
    monkeypatch.setattr(record_files._Lines, "most", (1000, 25, 1e9))
    write(tmp_path / "r.jsonl", [(Closed(), many(9))])
    assert written == [4, 3, 3, 2]  # with marks; of ten contents each


def test_a_slow_disk_holds_records_up_and_not_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, entered = threading.Event(), threading.Event()
    real = record_files._Lines.write

    def write_lines(self: Any, batch: list[Any]) -> None:
        entered.set()
        gate.wait(30)
        real(self, batch)

    monkeypatch.setattr(record_files._Lines, "write", write_lines)
    monkeypatch.setattr(record_files._Lines, "most", (1, 10**6, 1e9))
    file = RecordFile(tmp_path / "r.jsonl")
    for number in range(record_files.MAX_WAITING):
        file.add(0, answered(number))
    assert entered.wait(30)
    threading.Timer(0.05, gate.set).start()
    file.add(0, answered(99))  # waits until a write is over
    assert gate.is_set()
    assert file.close() is None


def test_the_first_failure_ends_the_file_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files._Lines, "most", (1, 1, 1e9))
    file = RecordFile(tmp_path / "no" / "r.jsonl")
    for number in range(20):
        file.add(0, answered(number))
    error = file.close()
    assert isinstance(error, FileNotFoundError)


def test_without_a_record_no_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("precious")
    file = RecordFile(path)
    file.mark("end")
    assert file.close() is None
    assert path.read_text() == "precious"


def begin(path: Path) -> RecordFile:
    return RecordFile(
        path, version="1", at=AT, config={**CONFIG, "load": {"type": "closed"}, "seed": 0}
    )


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_torn_end_is_passed_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    file = begin(path)
    for record in many(20):
        file.add(0, record)
    file.close()
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    made = again(path)
    assert made.result.points[0].notes == (UNFINISHED,)
    assert 0 < made.result.points[0].figures.sent < 20 or name.endswith(".gz")
    assert made.beside == {}


@pytest.mark.parametrize("told", [True, False])
def test_a_later_load_that_has_not_ended_is_not_taken_for_the_first(
    tmp_path: Path, told: bool
) -> None:
    path = write(tmp_path / "r.jsonl", [(Closed(concurrency=1), many(3))])
    *lines, _ = path.read_bytes().splitlines(keepends=True)  # without the end
    if told:
        load = {"type": "open", "rate": 2.0}
        lines.append(mark_line(Mark(mark="begin", point=1, fields={"load": load, "seed": 7})))
    path.write_bytes(b"".join([*lines, record_line(1, answered(0))]))
    if told:
        _, found = again(path).result.points
        assert (found.load, found.seed, found.notes) == (Open(rate=2.0), 7, (UNFINISHED,))
    else:
        with pytest.raises(RecordsError, match=r"r\.jsonl"):
            again(path)


BAD = {
    "nothing": (b"", "empty"),
    "a torn first line": (b'{"mark":"beg', "ends within its first line"),
    "another schema behind an empty line": (
        b'\n{"mark":"begin","fields":{"schema":"x"}}\n',
        "not a file of records",
    ),
    "no object": (b"[]\n", "line 1 is not a record"),
    "another schema": (b'{"mark":"begin","fields":{"schema":"x"}}\n', "not a file of records"),
    "a mark that is none": (b'{"mark":7}\n', "line 1 is not a record"),
    "no version": (
        b'{"mark":"begin","fields":{"schema":"%s"}}\n' % record_files.SCHEMA.encode(),
        "version",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_said_to_be_bad(tmp_path: Path, case: str) -> None:
    data, words = BAD[case]
    path = tmp_path / "r.jsonl"
    path.write_bytes(data)
    with pytest.raises(RecordsError, match=words):
        again(path)


ODD = [
    *(("cost", text) for text in ("x", "NaN", "sNaN", "1e999999999")),
    *(("number", n) for n in (-1, 2**63)),
    *(("output_tokens", n) for n in (-1, 10**400)),
    *(("counts", some) for some in ([1], [1] * 99, [2**70] * 4)),
    *((name, value) for name in ("sent", "ended", "called") for value in (1e308, -1e308)),
    ("stamps", [1e308, -1e308]),
]


@pytest.mark.parametrize(
    "line",
    [
        {"number": "x"},
        {"point": "x", **msgspec.to_builtins(answered(0))},
        {**msgspec.to_builtins(answered(0)), "phase": "x"},
        *({**msgspec.to_builtins(answered(0)), name: value} for name, value in ODD),
        {"point": 7, **msgspec.to_builtins(answered(0))},
        {"point": True, **msgspec.to_builtins(answered(0))},
    ],
)
def test_bad_records_are_said_to_be_bad(tmp_path: Path, line: dict[str, Any]) -> None:
    path = tmp_path / "r.jsonl"
    file = begin(path)
    file.add(0, answered(0))
    file.close()
    with path.open("a") as more:
        more.write(json.dumps(line) + "\n")
    with pytest.raises(RecordsError, match=r"r\.jsonl"):
        again(path)


def test_damaged_compression_is_said_to_be_bad(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.gz"
    data = bytearray(gzip.compress(b'{"mark":"begin"}\n' * 1000, mtime=0))
    data[15:40] = b"\xff" * 25
    path.write_bytes(data)
    with pytest.raises(RecordsError):
        again(path)


def test_bad_marks_are_said_to_be_bad(tmp_path: Path) -> None:
    for fields in {"load": {"type": "x"}}, {}:
        path = tmp_path / "r.jsonl"
        file = begin(path)
        file.add(0, answered(0))
        file.mark("load", 0, seed=0, audit={}, notes=[], **fields)
        file.close()
        with pytest.raises(RecordsError, match=r"r\.jsonl"):
            again(path)
    path = write(tmp_path / "l.jsonl", [(Closed(), [answered(0)])], goodput={"ttft": "x"})
    with pytest.raises(RecordsError, match=r"l\.jsonl"):
        again(path)


def test_a_line_that_nests_too_deep_is_said_to_be_bad(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"[" * 100_000 + b"\n")
    with pytest.raises(RecordsError, match="too deep"):
        again(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_load_without_a_request_keeps_its_place(tmp_path: Path, name: str) -> None:
    needs(name)
    rates = [0.1, 5.0, 0.2, 6.0, 0.3]
    loads = [
        (Open(rate=rate), [answered(n) for n in range(3)] if rate > 1 else []) for rate in rates
    ]
    points = again(write(tmp_path / name, loads)).result.points
    assert [point.load for point in points] == [load for load, _ in loads]
    assert [point.figures.sent for point in points] == [0, 3, 0, 3, 0]
