"""Datasets as a batch's input: columns of any name, formats of any name, compressed files."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._batch.files import columns as columns_module
from trio_minillm._batch.files import rows
from trio_minillm._batch.files.columns import Columns
from trio_minillm._batch.files.request_file import RequestFile
from trio_minillm._batch.files.rows import format_of, json_rows
from trio_minillm._batch.files.unpacked import opened
from trio_minillm._batch.types import BatchRequest

from ...support.wires import model_on

MODEL = model_on("openai")
HELLO = [{"role": "user", "content": "Hello."}]
ROW = {"id": "a", "question": "Hello.", "answer": "Hi.", "level": 3}


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def requests_of(path: Path, **options: Any) -> list[BatchRequest]:
    return list(RequestFile(path, **{"model": MODEL, **options}))


def problems_of(path: Path, **options: Any) -> list[str]:
    return [str(p) for p in RequestFile(path, **{"model": MODEL, **options}).check().problems]


# -- columns ---------------------------------------------------------------------------------


def test_columns_of_any_name(tmp_path: Path) -> None:
    rows = [{**ROW, "tone": "Be brief."}, {**ROW, "id": 7, "tone": None, "max_tokens": 5}]
    path = written(tmp_path / "in.jsonl", *rows)
    file = RequestFile(path, model=MODEL, key="id", prompt="question", system="tone")
    a, b = file
    assert (a.key, a.messages, a.meta) == (
        "a",
        [{"role": "system", "content": "Be brief."}, *HELLO],
        {"answer": "Hi.", "level": 3},
    )
    assert (b.key, b.messages, b.params) == ("7", HELLO, {"max_tokens": 5})
    assert file.report is not None
    assert (file.report.as_meta, file.report.as_params) == (["answer", "level"], ["max_tokens"])


def test_without_named_columns_unknown_ones_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", {"key": "a", "prompt": "x", "answer": "y"})
    for strict in False, True:
        (bad,) = problems_of(path, strict=strict)
        assert bad.startswith("line 1: unknown field: answer")


def test_strict_refuses_other_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", {"id": "a", "question": "x", "max_token": 5})
    named = {"key": "id", "prompt": "question"}
    assert [r.meta for r in requests_of(path, **named)] == [{"max_token": 5}]
    assert problems_of(path, strict=True, **named) == [
        "line 1: unknown field: max_token (did you mean max_tokens?); strict keeps them out of meta"
    ]
    path = written(tmp_path / "in.jsonl", {"id": "a", "question": "x", "answer": "y"})
    assert problems_of(path, strict=True, **named) == [
        "line 1: unknown field: answer; strict keeps them out of meta"
    ]
    path = written(tmp_path / "in.jsonl", {"id": "a", "question": "x", "max_tokens": 5})
    assert [r.params for r in requests_of(path, strict=True, **named)] == [{"max_tokens": 5}]


def test_a_named_column_stands_in_place_of_ours(tmp_path: Path) -> None:
    row = {"key": "k", "custom_id": "c", "id": "a", "messages": [1], "prompt": "p", "q": "Hello."}
    (one,) = requests_of(written(tmp_path / "in.jsonl", {**row, "body": "b"}), key="id", prompt="q")
    assert (one.key, one.messages) == ("a", HELLO)
    assert one.meta == {"key": "k", "custom_id": "c", "messages": [1], "prompt": "p", "body": "b"}
    (two,) = requests_of(
        written(tmp_path / "in.jsonl", {"id": "a", "body": "Hello."}), prompt="body"
    )
    assert (two.key, two.messages, two.meta) == ("1", HELLO, {"id": "a"})


def test_the_key_alone_may_be_named_in_either_form(tmp_path: Path) -> None:
    path = written(
        tmp_path / "in.jsonl",
        {"id": "a", "prompt": "Hello.", "answer": 1, "meta": {"answer": 2, "n": 3}},
        {"id": "b", "body": {"messages": HELLO, "seed": 1}, "answer": 1, "meta": "m"},
    )
    a, b = requests_of(path, key="id")
    assert (a.key, a.messages, a.meta) == ("a", HELLO, {"answer": 2, "n": 3})
    assert (b.key, b.messages, b.params) == ("b", HELLO, {"seed": 1})
    assert b.meta == {"answer": 1, "meta": "m"}


def test_one_column_for_two_things(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", {"text": "Hello."})
    (one,) = requests_of(path, key="text", prompt="text")
    assert (one.key, one.messages, one.meta) == ("Hello.", HELLO, None)


def test_lines_without_a_key_are_known_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"q": "x"}\n\n{"q": "y"}\n{"q": "z", "key": "own"}\n{"q": "w", "key": "3"}\n')
    file = RequestFile(path, model=MODEL, prompt="q", skip_bad=True)
    assert [str(p) for p in file.check().problems] == ["line 5: the key is the same as in line 3"]
    assert [r.key for r in file] == ["1", "3", "own"]
    assert problems_of(path)[0] == "line 1: no custom_id or key"
    assert problems_of(path, system="q")[0] == "line 1: no custom_id or key"


def test_a_prompt_may_be_messages(tmp_path: Path) -> None:
    (one,) = requests_of(written(tmp_path / "in.jsonl", {"chat": HELLO}), prompt="chat")
    assert one.messages == HELLO
    parts = [{"type": "text", "text": "Hello."}]
    (two,) = requests_of(written(tmp_path / "in.jsonl", {"chat": parts}), prompt="chat")
    assert two.messages == [{"role": "user", "content": parts}]
    (bad,) = problems_of(written(tmp_path / "in.jsonl", {"chat": 5}), prompt="chat")
    assert "messages[0]" in bad


def test_a_row_without_a_named_column_is_bad(tmp_path: Path) -> None:
    rows = [ROW, {"id": "b"}, {"question": "x"}, {"id": "c", "question": None}, {**ROW, "id": [1]}]
    path = written(tmp_path / "in.jsonl", *rows)
    assert problems_of(path, key="id", prompt="question") == [
        "line 2: no question, which is the prompt",
        "line 3: no id, which is the key",
        "line 4: no question, which is the prompt",
        "line 5: the key is not a string",
    ]


@pytest.mark.parametrize(
    ("named", "what"),
    [
        ({"prompt": "qestion"}, "for the prompt (did you mean question?); there are: id, question"),
        ({"key": "ID", "prompt": "question"}, "for the key (did you mean id?)"),
        ({"key": "ident", "prompt": "question"}, "no line has a field ident for the key"),
        ({"prompt": "question", "system": "tone"}, "no line has a field tone for the system"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_column_that_no_line_has_is_one_error(
    tmp_path: Path, named: dict[str, str], what: str, skip_bad: bool
) -> None:
    path = written(tmp_path / "in.jsonl", ROW, ROW)
    with pytest.raises(ValueError, match="no line has a field") as caught:
        requests_of(path, skip_bad=skip_bad, **named)
    assert what in str(caught.value)


def test_lines_that_are_no_objects_name_no_column(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("[1]\n")
    assert problems_of(path, prompt="q") == ["line 1: not a JSON object"]
    path.write_text("")
    assert requests_of(path, prompt="q") == []


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers()), min_size=1))
def test_nothing_of_a_row_is_lost(rows: list[dict[str, int]]) -> None:
    columns = Columns(key="a", prompt="b", system=None, strict=False)
    for number, row in enumerate(rows, 1):
        if {"a", "b"} <= row.keys():
            line = columns.line(number, row)
            rest = {k: v for k, v in row.items() if k not in "ab"}
            assert line == {
                "custom_id": row["a"],
                "prompt": row["b"],
                **({"meta": rest} if rest else {}),
            }
        else:
            with pytest.raises(ValueError, match="which is the"):
                columns.line(number, row)


def test_many_names_of_columns_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "MAX_LAYOUTS", 3)
    columns = Columns(key="id", prompt="last", system=None, strict=False)
    for number in range(200):
        columns.line(number, {"id": "a", "last": "x", f"c{number}": 1})
        assert len(columns._layouts) <= 3
    assert len(columns._seen) == len(columns.told()[0]) == columns_module.MAX_NAMES
    assert columns.missing() is None  # a named one is noticed, however many there are


def test_names_of_columns_are_text(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", ROW)
    with pytest.raises(TypeError, match="prompt must be str or None, not int"):
        RequestFile(path, model=MODEL, prompt=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="format must be one of jsonl, csv, tsv, parquet"):
        RequestFile(path, model=MODEL, format="xml")  # type: ignore[arg-type]


def test_the_progress_is_told_for_each_line(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"q": "x"}\n\n{"q": 5}\n[]\n{"q": "y"}\n')
    told: list[Any] = []
    file = RequestFile(path, model=MODEL, prompt="q", skip_bad=True)
    file.check(lambda number, request: told.append(request.key), progress=told.append)
    assert told == [1, "1", 3, 4, 5, "5"]


# -- tables ----------------------------------------------------------------------------------


def test_cells_of_a_csv_are_text_but_for_parameters(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('id,stop,zip,max_tokens,meta.n\n007,5,01234,9,1\n008,"[""x""]",,,\n')
    a, b = requests_of(path, key="id", prompt="stop")
    assert (a.key, a.messages, a.params) == (
        "007",
        [{"role": "user", "content": "5"}],
        {"max_tokens": 9},
    )
    assert a.meta == {"zip": "01234", "n": "1"}
    assert b.messages == [{"role": "user", "content": '["x"]'}]


def test_a_meta_that_is_no_object_beside_columns_of_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("key,prompt,meta,meta.n\na,x,5,1\nb,x,,2\n")
    (bad,) = problems_of(path)
    assert bad == "line 2: meta is not an object, but there are also columns for its fields"


def test_parquet_of_any_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra [tables]")
    from pyarrow import parquet

    path = tmp_path / "data"
    kept = {"source": {"page": 1, "none": None}, "code": "007"}
    parquet.write_table(pyarrow.Table.from_pylist([{**ROW, **kept}]), path)
    (one,) = requests_of(path, key="id", prompt="question", format="parquet")
    assert (one.key, one.messages) == ("a", HELLO)
    assert one.meta == {"answer": "Hi.", "level": 3, "source": {"page": 1}, "code": "007"}


def test_a_row_of_a_csv_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE", 100)
    path = tmp_path / "in.csv"
    path.write_text("key,prompt\na,x\n" + 'b,"' + "line\n" * 30 + '"\nc,x\n')
    (bad,) = problems_of(path)
    assert bad == "line 3: not readable from here on: a row is longer than 100 characters"
    path.write_text("key,prompt\n" + "".join(f"b{n},x\n" for n in range(100)))
    assert problems_of(path) == []


# -- formats and compressed files ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("in.jsonl", "jsonl"),
        ("in", "jsonl"),
        ("in.txt", "jsonl"),
        ("in.CSV", "csv"),
        ("in.csv.gz", "csv"),
        ("in.tsv.zst", "tsv"),
        ("in.parquet", "parquet"),
        ("in.jsonl.GZ", "jsonl"),
        ("csv.gz", "jsonl"),
        (".csv", "jsonl"),
    ],
)
def test_a_name_tells_the_format(name: str, format: str) -> None:
    assert format_of(Path(name)) == format


def test_a_format_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("key\tprompt\na\tHello.\n")
    (one,) = requests_of(path, format="tsv")
    assert one.messages == HELLO
    path.write_text('{"key": "a", "prompt": "Hello."}\n')
    (two,) = requests_of(path.rename(tmp_path / "in.csv"), format="jsonl")
    assert two == one


def zstd(data: bytes) -> bytes:
    package: ModuleType = pytest.importorskip("zstandard", reason="needs the extra [zstd]")
    compressor = package.ZstdCompressor().compressobj()  # as in a pipe: no length in the head
    packed: bytes = compressor.compress(data) + compressor.flush()
    return packed


def packed(data: bytes, kind: str) -> bytes:
    return zstd(data) if kind == "zst" else gzip.compress(data)


KINDS = pytest.mark.parametrize("kind", ["gz", "zst"])


@KINDS
@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_compressed_file_is_as_it_was(tmp_path: Path, kind: str, format: str) -> None:
    plain = tmp_path / f"in.{format}"
    if format == "csv":
        plain.write_text("key,prompt\n" + "".join(f"k{n},Number {n}\n" for n in range(5000)))
    else:
        written(plain, *({"key": f"k{n}", "prompt": f"Number {n}"} for n in range(5000)))
    data = plain.read_bytes()
    for name, parts in ((f"in.{format}.{kind}", [data]), ("two", [data[:999], data[999:]])):
        path = tmp_path / name
        path.write_bytes(b"".join(packed(part, kind) for part in parts))
        assert requests_of(path, format=format) == requests_of(plain)
    bare = tmp_path / f"plain.{format}.{kind}"  # as some programs download it
    bare.write_bytes(data)
    assert len(requests_of(bare)) == 5000


@KINDS
@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_compressed_data_that_are_cut_off_or_damaged(
    tmp_path: Path, kind: str, format: str
) -> None:
    head = "key,prompt\n" if format == "csv" else ""
    row = "k{0},{1}\n" if format == "csv" else '{{"key": "k{0}", "prompt": "{1}"}}\n'
    text = head + "".join(row.format(n, hash((n, "x"))) for n in range(20_000))
    whole = packed(text.encode(), kind)
    path = tmp_path / f"in.{format}.{kind}"
    for data in (whole[:-1], whole[: len(whole) // 2], whole + b"\x28\xb5garbage"):
        path.write_bytes(data)
        file = RequestFile(path, model=MODEL, skip_bad=True)
        report = file.check()
        assert "not readable from here on: the " in str(report.problems[-1])
        assert [r.key for r in file] == [f"k{n}" for n in range(report.requests)]
        assert report.problems[-1].line > 1


@KINDS
def test_what_unpacks_to_much_takes_little_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(packed(b" " * (256 << 20) + b'\n{"key": "a"}\n', kind))
    tracemalloc.start()
    try:
        with opened(path) as file:
            found = list(json_rows(file, 1 << 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [(1, "longer than 1,048,576 bytes"), (2, {"key": "a"})]
    assert peak < 24 << 20


def test_zstd_that_needs_much_memory_is_refused(tmp_path: Path) -> None:
    package = pytest.importorskip("zstandard", reason="needs the extra [zstd]")
    far = package.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = package.ZstdCompressor(compression_params=far).compressobj()
    path = tmp_path / "in.zst"
    path.write_bytes(compressor.compress(b"{}\n" * 100_000) + compressor.flush())
    (bad,) = problems_of(path)
    assert bad.startswith("line 1: not readable from here on: the data can't be decompressed: ")


def test_frames_to_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "in.zst"  # as pzstd makes them
    path.write_bytes(b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(b'{"key": "a", "prompt": "x"}\n'))
    assert [r.key for r in requests_of(path)] == ["a"]


def test_without_the_extra_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = tmp_path / "in.jsonl.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(ImportError, match=r"pip install 'trio-minillm\[zstd\]'"):
        RequestFile(path, model=MODEL).check()
