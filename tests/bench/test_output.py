"""A result as text, Markdown, CSV and curves: records in, text out."""

from __future__ import annotations

import csv
import io

import pytest

from trio_minillm._bench.figures.objective import Objective
from trio_minillm._bench.output import curves as curves_module
from trio_minillm._bench.output.csv import columns, csv_of
from trio_minillm._bench.output.curves import MAX_LOADS, MAX_STEPS, MAX_STREAMS, CurveMaker
from trio_minillm._bench.output.table import (
    load_text,
    number_text,
    result_table,
    rows_of,
    table_of,
)
from trio_minillm._bench.output.text import aligned, markdown
from trio_minillm._bench.plan import Closed, Load, Open, Ramp, Trace
from trio_minillm._bench.record import WARMUP, Record

from ..support.bench_results import answered, failed, many, point, result


def labels(records: list[Record]) -> list[str]:
    return [row[0] for row in table_of(point(records).figures)[1:]]


USUAL = ["TTFT (ms)", "ITL (ms)", "TPOT (ms)", "E2E (ms)"]


def test_a_table_has_no_rows_that_say_the_same() -> None:
    assert labels(many(20)) == USUAL


def test_rows_that_say_something_else_are_there() -> None:
    thought = answered(0, first_reasoning=None)
    thought.first_reasoning, thought.first_text = thought.stamps[0], thought.stamps[5]
    assert labels([thought]) == ["TTFT (ms)", "TTFT, text (ms)", *USUAL[1:]]
    late = answered(0)
    late.scheduled -= 0.5
    assert labels([late]) == [*USUAL, "TTFT from schedule (ms)", "E2E from schedule (ms)", "sent late (ms)"]  # fmt: skip
    trailing = answered(0)
    trailing.ended += 1
    assert labels([trailing]) == [*USUAL, "E2E, end of stream (ms)"]
    doubled = answered(0, output_tokens=20, counts=[2 * n for n in range(1, 11)])
    assert "ITL, by token (ms)" in labels([doubled])


def test_a_row_has_one_unit_and_the_interval_of_its_mean() -> None:
    records = many(200)
    slow = answered(200, gap=2.0)
    rows = {row[0]: row for row in table_of(point([*records, slow]).figures)}
    assert "E2E (s)" in rows
    assert "±" in rows["TTFT (ms)"][2]
    assert rows["TTFT (ms)"][1] == "201"


def test_a_figure_that_the_audit_refuses_is_marked() -> None:
    figures = point(many(5)).figures
    assert [row[0] for row in table_of(figures, {"itl"})][2] == "ITL (ms) (!)"


def test_the_lines_below() -> None:
    objective = Objective(share=1.0, limits={"ttft": 0.3})
    records = [answered(0), answered(1, ttft=0.5, reason="length"), failed(2)]
    rows = dict(rows_of(point(records, objective=objective)))
    assert rows["finished"] == "2 of 3 (stop 1 · 1 cut at max_tokens)"
    assert rows["failed"] == "1"
    assert rows["RefusedError server 500"] == "1 · oops"
    assert rows["goodput"].startswith("1 good of 3 (33.3%)")
    assert rows["goodput"].endswith("ttft<0.3s")
    assert rows["tokens"].startswith("20 out · ")


def test_a_sweep_has_a_row_for_a_load() -> None:
    objective = Objective(share=1.0, limits={"ttft": 0.3})
    points = [
        point(many(20), Closed(concurrency=1), objective=objective),
        point([*many(20, slower=2.0), failed(20)], Closed(concurrency=2), objective=objective),
    ]
    head, one, two = result_table(result(*points))
    assert head == ("load", "requests/s", "TTFT p50", "p99", "TPOT p50", "tokens/s", "goodput", "failed")  # fmt: skip
    assert (one[0], one[-1]) == ("concurrency 1", "0")
    assert (two[0], two[-1]) == ("concurrency 2", "1")
    assert float(one[-2].rstrip("%")) > float(two[-2].rstrip("%"))


def test_a_sweep_without_usage_shows_chunks() -> None:
    records = [answered(n, output_tokens=None) for n in range(3)]
    points = [point(records, Open(rate=1.0)), point(records, Open(rate=2.5))]
    head, one, two = result_table(result(*points))
    assert head[4:6] == ("ITL p50", "chunks/s")
    assert (one[0], two[0]) == ("1/s", "2.5/s")


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (Closed(concurrency=1000), "concurrency 1,000"),
        (Open(rate=0.5), "0.5/s"),
        (Open(rate=11.313708), "11.31/s"),
        (Open(rate=12345.0), "12,345/s"),
        (Open(rate=0.00012345), "0.000123/s"),
        (Ramp(first=1, last=20, seconds=5), "1/s to 20/s"),
        (Trace(offsets=(0.0, 1.0)), "trace of 2 requests"),
    ],
)
def test_loads_in_words(load: Load, text: str) -> None:
    assert load_text(load) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0.00"), (9.994, "9.99"), (9.996, "10.0"), (999.94, "999.9"), (999.96, "1,000")],
)
def test_numbers_have_three_digits(number: float, text: str) -> None:
    assert number_text(number) == text


def test_aligned_text_and_markdown() -> None:
    table = [("", "n"), ("a|b", "1"), ("c", "1,000")]
    assert aligned(table) == "         n\na|b      1\nc    1,000\n"
    assert markdown(table, [("no<te", "*x* [y](z) `w` #1")]) == (
        "|      |     n |\n"
        "| ---- | ----: |\n"
        "| a\\|b |     1 |\n"
        "| c    | 1,000 |\n"
        "\n"
        "- **no\\<te**: \\*x\\* \\[y\\](z) \\`w\\` \\#1\n"
    )
    assert markdown([], [("a", "b")]) == "- **a**: b\n"


def test_csv_has_the_same_columns_for_every_load() -> None:
    points = point(many(3), Closed(concurrency=3)), point([failed(0)], Open(rate=2.0))
    found = csv_of(result(*points, model="=cmd()"))
    one, two = csv.DictReader(io.StringIO(found))
    assert [*one] == columns()
    assert (one["model"], one["point"], two["point"]) == ("'=cmd()", "0", "1")
    assert (one["load"], one["concurrency"], two["load"], two["rate"]) == ("closed", "3", "open", "2.0")  # fmt: skip
    assert (two["failed"], two["ttft_count"], two["ttft_p50"]) == ("1", "0", "")
    assert float(one["itl_mean"]) == points[0].figures.latency["itl"].mean


# -- curves ----------------------------------------------------------------------------------


def test_curves_are_those_of_all_requests_while_there_are_few() -> None:
    maker = CurveMaker()
    records = [answered(1, 0.3), answered(0, 0.1), failed(2), answered(9, phase=WARMUP)]
    for record in records:
        maker.add(0, record)
    maker.finish()
    found = maker.made[0]
    assert found.ecdf["ttft"] == ([0.1, 0.3], [0.5, 1.0])
    assert found.ecdf["itl"][1][-1] == 1.0
    assert (found.starts, found.ttft) == ([0.0, 0.05], [0.1, 0.3])
    assert [stream.outcome for stream in found.streams] == ["finished", "finished", "errored"]
    assert found.streams[0].first == pytest.approx(0.1)
    assert found.streams_of == 3


def test_curves_are_bounded() -> None:
    maker = CurveMaker()
    for number in range(3000):
        maker.add(0, answered(number, 0.1 + number / 1e4))
    for number in range(1, MAX_LOADS + 2):
        maker.add(number, answered(0))
    maker.finish()
    assert len(maker.made) == MAX_LOADS
    found = maker.made[0]
    for values, shares in found.ecdf.values():
        assert len(values) == len(shares) <= MAX_STEPS
        assert (values, shares) == (sorted(values), sorted(shares))
    assert found.ecdf["ttft"][0][-1] == pytest.approx(0.3999)
    assert len(found.starts) == len(found.ttft) == MAX_STEPS
    assert (len(found.streams), found.streams_of) == (MAX_STREAMS, 3000)
    assert max(stream.number for stream in found.streams) > 2000


def test_a_load_without_whole_answers_has_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves_module, "MAX_STREAMS", 1)
    maker = CurveMaker()
    maker.add(0, failed(0))
    maker.add(0, failed(1))
    maker.finish()
    assert maker.made[0].ecdf == {"ttft": ([], []), "itl": ([], []), "e2e": ([], [])}
    assert len(maker.made[0].streams) == 1
