"""What differs between two results, and when that is more than chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from trio_minillm._bench.audit.audit import Audit
from trio_minillm._bench.comparison.change import Change
from trio_minillm._bench.comparison.compare import Comparison, compare, names_of_figures
from trio_minillm._bench.comparison.conditions import parse_condition
from trio_minillm._bench.comparison.sides import ResultError, read_side
from trio_minillm._bench.comparison.table import fields_of, table_of
from trio_minillm._bench.figures.objective import Objective
from trio_minillm._bench.output.json import fields_of as result_fields
from trio_minillm._bench.plan import Closed, Load, Open
from trio_minillm._bench.record import Record
from trio_minillm._bench.run import Result

from ..support.bench_results import answered, failed, many, point, result, write


def written(path: Path, found: Result) -> str:
    path.write_bytes(msgspec.json.encode(result_fields(found)))
    return str(path)


def recorded(path: Path, records: list[Record], load: Load | None = None, **config: Any) -> str:
    return str(write(path, [(load or Closed(concurrency=4), records)], **config))


def only(base: str, new: str) -> Comparison:
    (found,) = compare(read_side(base), read_side(new))
    return found


def test_paired_runs_show_a_small_change_that_the_intervals_of_each_do_not(tmp_path: Path) -> None:
    records = many(200), many(200, slower=1.05, seed=1)
    paths = [recorded(tmp_path / f"{n}.jsonl", some) for n, some in enumerate(records)]
    results = [
        written(tmp_path / f"{n}.json", result(point(some))) for n, some in enumerate(records)
    ]
    paired, apart = only(*paths), only(*results)
    assert (paired.paired, apart.paired) == (True, False)
    one, two = paired.changes["ttft.mean"], apart.changes["ttft.mean"]
    assert one.ratio == two.ratio == pytest.approx(1.05, rel=0.01)
    assert (one.verdict, two.verdict) == ("worse", "same")
    for change in one, two:
        assert change.ratio_interval is not None
        low, high = change.ratio_interval
        assert low < 1.05 < high
    assert one.ratio_interval is not None
    assert one.ratio_interval[1] - one.ratio_interval[0] < 0.01
    assert paired.changes["ttft.p50"].verdict in ("worse", "same")
    assert paired.changes["itl.mean"].verdict == "worse"


def test_paired_runs_draw_from_what_the_figures_are_made_of(tmp_path: Path) -> None:
    calm = many(400)
    rough = [*many(100, slower=5.0), *calm[100:]]  # a transient, which the steady state is without
    base, new = (
        recorded(tmp_path / f"{n}.jsonl", some, steady=True) for n, some in enumerate((rough, calm))
    )
    change = only(base, new).changes["ttft.mean"]
    assert change.ratio == pytest.approx(1.0, rel=0.05)
    assert change.ratio_interval is not None
    low, high = change.ratio_interval
    assert low < change.ratio < high
    assert change.verdict == "same"


def test_a_load_without_a_request_is_compared_too(tmp_path: Path) -> None:
    loads: list[tuple[Load, list[Record]]] = [(Open(rate=0.1), []), (Open(rate=5.0), many(20))]
    path = str(write(tmp_path / "a.jsonl", loads))
    none, some = compare(read_side(path), read_side(path))
    assert {change.verdict for change in none.changes.values()} == {"unknown"}
    assert some.changes["ttft.mean"].ratio == 1.0


def test_the_same_is_the_same(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.jsonl", many(50))
    found = only(path, path)
    for change in found.changes.values():
        assert change.verdict in ("same", "unknown")
        assert change.ratio in (None, 1.0)
    assert found.changes["ttft.mean"].ratio_interval == (1.0, 1.0)


def test_faster_is_better(tmp_path: Path) -> None:
    base = recorded(tmp_path / "a.jsonl", many(100))
    new = recorded(tmp_path / "b.jsonl", many(100, slower=0.5))
    found = only(base, new)
    assert found.changes["e2e.p90"].verdict == "better"
    assert found.changes["requests_per_second"].verdict == "unknown"


def test_a_multiple_of_nothing_has_no_interval(tmp_path: Path) -> None:
    at_once = [replace(record, stamps=[record.stamps[0]] * 4) for record in many(50)]
    found = only(recorded(tmp_path / "a.jsonl", at_once), recorded(tmp_path / "b.jsonl", many(50)))
    gap = found.changes["itl.p50"]
    assert (gap.base, gap.ratio, gap.ratio_interval, gap.verdict) == (0, None, None, "unknown")
    assert found.changes["ttft.p50"].ratio_interval is not None


def test_few_requests_have_no_interval(tmp_path: Path) -> None:
    found = only(*(recorded(tmp_path / f"{n}.jsonl", many(5)) for n in range(2)))
    assert found.changes["ttft.mean"].ratio == 1.0
    assert found.changes["ttft.mean"].ratio_interval is None
    found = only(*(recorded(tmp_path / f"{n}.jsonl", many(20)) for n in range(2)))
    assert found.changes["ttft.mean"].ratio_interval is not None
    assert found.changes["ttft.p99"].ratio_interval is None


def test_several_runs_of_a_side_widen_the_interval_by_what_lies_between_them(
    tmp_path: Path,
) -> None:
    calm = ",".join(recorded(tmp_path / f"a{n}.jsonl", many(60, seed=n)) for n in range(3))
    wild = ",".join(
        recorded(tmp_path / f"b{n}.jsonl", many(60, slower=slower, seed=n))
        for n, slower in enumerate((0.7, 1.0, 1.4))
    )
    assert only(calm, wild).changes["ttft.mean"].verdict == "same"
    assert only(calm, calm).changes["ttft.mean"].verdict == "same"
    sides = [
        ",".join(
            written(tmp_path / f"{n}{m}.json", result(point(many(60, slower=s)))) for m, s in e
        )
        for n, e in enumerate(([(0, 1.0), (1, 1.0)], [(0, 1.5), (1, 1.5)]))
    ]
    change = only(*sides).changes["ttft.mean"]
    assert change.ratio == pytest.approx(1.5, rel=0.02)
    assert only(*sides).changes["requests_per_second"].ratio_interval is not None


def test_shares_of_failures_and_of_good_answers(tmp_path: Path) -> None:
    objective = Objective(share=1.0, limits={"ttft": 0.3})
    few = [answered(n) for n in range(99)] + [failed(99)]
    more = [answered(n, 0.5 if n % 2 else 0.1) for n in range(70)]
    more += [failed(n) for n in range(70, 100)]
    found = only(
        *(
            written(tmp_path / f"{n}.json", result(point(some, objective=objective)))
            for n, some in enumerate((few, more))
        )
    )
    failures, good = found.changes["failed"], found.changes["goodput"]
    assert (failures.base, failures.new, failures.verdict) == (0.01, 0.3, "worse")
    assert (good.base, good.new, good.verdict) == (0.99, 0.35, "worse")
    assert good.difference == pytest.approx(-0.64)
    paired = only(*(recorded(tmp_path / f"{n}.jsonl", some) for n, some in enumerate((few, more))))
    assert paired.changes["failed"].verdict == "worse"


def test_loads_are_compared_with_their_like(tmp_path: Path) -> None:
    def swept(name: str, *counts: int) -> str:
        points = [point(many(20, slower=n), Closed(concurrency=n)) for n in counts]
        return written(tmp_path / name, result(*points))

    found = compare(read_side(swept("a", 1, 2, 4)), read_side(swept("b", 2, 4, 8)))
    assert [one.load for one in found] == ["concurrency 2", "concurrency 4"]
    assert all("2 loads are on one side only" in one.notes for one in found)
    with pytest.raises(ResultError, match="no load in common"):
        compare(read_side(swept("a", 1, 2)), read_side(swept("b", 4, 8)))


def test_different_loads_and_options_are_told(tmp_path: Path) -> None:
    base = written(tmp_path / "a", result(point(many(20), Closed(concurrency=1)), max_tokens=10))
    new = written(
        tmp_path / "b",
        result(point(many(20), Closed(concurrency=8)), max_tokens=20, timeouts={"idle": 1}),
    )
    found = only(base, new)
    assert found.notes == (
        "the loads differ: concurrency 1 and concurrency 8",
        "max_tokens differs: 10 and 20",
        "timeouts.idle differs: - and 1",
    )
    assert found.load == "concurrency 1 / concurrency 8"
    mixed = only(base, f"{base},{new}")
    assert f"the runs of {base},{new} used different options" in mixed.notes


def test_what_an_audit_refuses_is_told(tmp_path: Path) -> None:
    audit = Audit(limited=True, unreliable={"itl": "lag", "itl_max": "lag", "chunks": "cpu"})
    base = written(tmp_path / "a", result(point(many(20), audit=audit)))
    new = written(tmp_path / "b", result(point(many(20))))
    assert only(base, new).notes == (f"the client may have limited itl, chunks in {base}",)


def test_the_table_has_what_was_measured(tmp_path: Path) -> None:
    found = only(
        recorded(tmp_path / "a.jsonl", many(50)),
        recorded(tmp_path / "b.jsonl", [answered(n, output_tokens=None) for n in range(50)]),
    )
    head, *rows = table_of(found)
    assert head == ("", "base", "new", "new/base", "95 % interval", "")
    cells = {row[0]: row[1:] for row in rows}
    assert "goodput" not in cells
    assert cells["TPOT mean"][1:] == ("-", "-", "-", "-")
    assert cells["failed"][:3] == ("0.00%", "0.00%", "+0.00 pp")
    told = json.loads(msgspec.json.encode(fields_of(found)))
    assert [*told["changes"]] == names_of_figures()


BAD = {
    "no JSON": b"x",
    "no object": b"[]",
    "no schema": b"{}",
    "deep JSON": b"[" * 100_000,
    "another schema": b'{"schema": "x"}',
    "no points": b'{"schema": "trio-minillm/bench/1", "points": []}',
    "points without figures": b'{"schema": "trio-minillm/bench/1", "points": [{}]}',
}


@pytest.mark.parametrize("case", BAD)
def test_bad_results_are_said_to_be_bad(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(BAD[case])
    with pytest.raises(ResultError, match=r"a\.json"):
        read_side(str(path))
    for name in "none.json", "none.jsonl":
        with pytest.raises(ResultError, match="No such file"):
            read_side(str(tmp_path / name))


# -- conditions ------------------------------------------------------------------------------


def changes(**more: Change) -> dict[str, Change]:
    return {
        "ttft.p99": Change(name="ttft.p99", base=0.5, new=0.6, ratio=1.2),
        "failed": Change(name="failed", base=0.0, new=0.02),
        "goodput": Change(name="goodput", base=1.0, new=0.9, ratio=0.9),
        "requests_per_second": Change(name="requests_per_second", base=10, new=9, ratio=0.9),
        "tpot.mean": Change(name="tpot.mean", base=None, new=0.05),
        "itl.p50": Change(name="itl.p50", base=0.1, new=None),
        **more,
    }


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("ttft.p99 > 1.1x", True),
        ("ttft.p99>1.2x", False),
        ("ttft.p99 >= 1.2x", True),
        ("ttft.p99 > 0.5", True),
        ("ttft.p99 > 600ms", False),
        ("ttft.p99 >= .6s", True),
        ("failed > 1%", True),
        ("failed > 0.02", False),
        ("failed > 1x", True),
        ("goodput < 0.95x", True),
        ("goodput <= 90%", True),
        ("goodput < 90 %", False),
        ("requests_per_second < 9.5", True),
        ("tpot.mean > 60ms", False),
        ("tpot.mean > 1.1x", True),  # of nothing
        ("itl.p50 > 1s", True),  # not measured
    ],
)
def test_conditions(text: str, fails: bool) -> None:
    why = parse_condition(text).failure(changes())
    assert (why is not None) == fails
    if why is not None:
        assert why.startswith(f"{text}: ")


@pytest.mark.parametrize(
    "text",
    [
        *("", "ttft", "ttft > 1", "ttft.p98 > 1", "nothing > 1", "ttft.p99 = 1", "ttft.p99 > x"),
        *(
            "ttft.p99 > -1",
            "ttft.p99 > 1%",
            "failed > 1s",
            "goodput < 1ms",
            "ttft.p99 > 1.1x; exit",
        ),
        *("__import__('os') > 1", "ttft.p99 > 1e400", "requests_per_second < 5%"),
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|is not one of|only failed"):
        parse_condition(text)
