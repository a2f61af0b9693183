"""The ledger: every attempt counted once, in memory and in the file, whatever happens to it."""

import copy
import io
import json
import logging
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from enum import Enum
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from trio_minillm import CostInfo, CostResolution, Outcome, Usage
from trio_minillm._accounting import ledger as module
from trio_minillm._accounting import ledger_file as in_file
from trio_minillm._accounting import totals as sums_module
from trio_minillm._accounting.ledger import Ledger, SeenKeys
from trio_minillm._accounting.ledger_file import MAX_LINE, MAX_META, JSONLLedger
from trio_minillm._accounting.record import CostRecord
from trio_minillm._accounting.totals import OTHER, Sums, Totals, group_name, share_of

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX's files, signals or limits")

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def paid(amount, resolution=CostResolution.RESOLVED):
    return CostInfo(Decimal(amount), resolution, "price")


def record(key="a1b2c3d4-1", **fields):
    known = {
        "key": key,
        "at": AT,
        "model": "m",
        "provider": "openrouter",
        "base_url": "https://example.org/v1",
        "id": "gen-" + key,
        "outcome": Outcome.FINISHED,
        "booked": True,
        "cost": paid("0.25"),
    }
    return CostRecord(**{**known, **fields})


def recorded(ledger, *records):
    for one in records:
        ledger.record(one)
    return ledger


def line(one=None, version=1, **changes):
    """A line of the file, made without the module's help."""
    plain = {"v": version, **msgspec.to_builtins(one or record())}
    return json.dumps({**plain, **changes}, separators=(",", ":")).encode() + b"\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "costs.jsonl"


# -- one record ------------------------------------------------------------------------------


def test_a_record_shows_no_meta():
    one = record(meta={"secret": "s3cret"})
    assert repr(one) == "<CostRecord a1b2c3d4-1 finished resolved 0.25 USD>"
    assert list(one.__rich_repr__()) == [repr(one)]
    assert (one.amount, one.resolution) == (Decimal("0.25"), CostResolution.RESOLVED)


def test_a_record_says_by_itself_that_nothing_is_known():
    one = record(cost=CostInfo())
    assert (one.amount, one.resolution) == (None, CostResolution.UNKNOWN)


def test_keys_count_up_within_a_run():
    ledger = Ledger()
    (run, one), (again, two) = (ledger.new_key().split("-") for _ in range(2))
    assert (run, one, two) == (again, "1", "2")
    assert len(run) >= 8
    assert int(run, 16) >= 0
    assert Ledger().new_key() != f"{run}-1"


def test_a_forked_process_has_a_run_of_its_own(monkeypatch):
    ledger = Ledger()
    parents = ledger.new_key()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert ledger.new_key() != f"{parents[:-1]}2"


# -- sums ------------------------------------------------------------------------------------


def test_nothing_is_nothing():
    ledger = Ledger()
    assert ledger.totals == Totals()
    assert (ledger.total, ledger.unbooked, ledger.attempts) == (0, 0, 0)
    assert ledger.by_model == ledger.by_meta("k") == ledger.resolutions == ledger.outcomes == {}
    assert ledger.unsettled == ledger.recent == ()
    assert ledger.find("gen") is None
    assert repr(ledger) == "<Ledger 0 attempts, 0 USD>"


def test_what_is_booked_and_what_is_not():
    usage = Usage(uncached_input_tokens=3, cache_read_tokens=4, completion_tokens=5)
    ledger = recorded(
        Ledger(),
        record("r-1", usage=usage),
        record("r-2", outcome=Outcome.CANCELLED, cost=paid("0.5", CostResolution.LOWER_BOUND)),
        record("r-3", cost=CostInfo(None, CostResolution.UNPRICED), usage=usage),
        record("r-4", cost=CostInfo(Decimal(9), CostResolution.UNPRICED)),  # is no amount
        record("r-5", outcome=Outcome.ERRORED, booked=False, cost=paid(2)),
        record("r-6", outcome=Outcome.CANCELLED, booked=False, rejected=True),
        record("r-7", outcome=Outcome.TRUNCATED, booked=False, cost=CostInfo()),
    )
    R = CostResolution
    assert ledger.totals == Totals(
        total=Decimal("0.75"),
        unbooked=Decimal("2.25"),
        attempts=7,
        booked=4,
        rejected=1,
        prompt_tokens=14,
        completion_tokens=10,
        counted=2,
        unbooked_known=2,
        resolutions={R.RESOLVED: 1, R.LOWER_BOUND: 1, R.UNPRICED: 2},
        outcomes={
            Outcome.FINISHED: 3,
            Outcome.CANCELLED: 2,
            Outcome.ERRORED: 1,
            Outcome.TRUNCATED: 1,
        },
    )
    assert ledger.resolutions == ledger.totals.resolutions
    assert ledger.outcomes == ledger.totals.outcomes
    assert ledger.resolutions[R.UNKNOWN] == 0
    assert (ledger.total, ledger.unbooked, ledger.attempts) == (
        Decimal("0.75"),
        Decimal("2.25"),
        7,
    )


def test_a_key_is_counted_once():
    ledger = recorded(Ledger(), record(), record(), record(cost=paid(7), unsettled=True))
    assert (ledger.attempts, ledger.total, ledger.unsettled) == (1, Decimal("0.25"), ())


def test_a_settlement_takes_the_place_of_what_it_settles():
    first = record(unsettled=True, cost=CostInfo(), outcome=Outcome.CANCELLED, meta={"k": "a"})
    ledger = recorded(Ledger(), first)
    assert (ledger.unsettled, ledger.find(first.id), ledger.total) == ((first,), first, 0)
    last = replace(first, unsettled=False, cost=paid(3), model="other", meta={"k": "b"})
    recorded(ledger, last, replace(last, cost=paid(4)))
    assert (ledger.unsettled, ledger.find(first.id)) == ((), None)
    assert ledger.recent == (last,)
    assert ledger.totals == recorded(Ledger(), last).totals
    assert ledger.by_model == {"other": ledger.totals}
    assert ledger.by_meta("k") == {"b": ledger.totals}


def test_what_is_settled_to_be_unsettled_still_waits():
    first = record(unsettled=True, cost=paid(1, CostResolution.LOWER_BOUND))
    second = replace(first, cost=paid(2, CostResolution.LOWER_BOUND))
    ledger = recorded(Ledger(), first, second)
    assert (ledger.total, ledger.unsettled) == (2, (second,))
    assert recorded(ledger, replace(first, unsettled=False, cost=paid(3))).total == 3


def test_a_meta_or_usage_that_is_changed_later_spoils_no_sum():
    meta, usage = {"k": "a"}, Usage(completion_tokens=5, raw={"a": 1})
    ledger = recorded(Ledger(), record(unsettled=True, meta=meta, usage=usage))
    meta["k"], usage.completion_tokens = "b", 9
    ledger.unsettled[0].usage.completion_tokens = 11
    recorded(ledger, record(meta={"k": "c"}))
    assert ledger.totals.completion_tokens == 0
    assert ledger.by_meta("k") == {"c": ledger.totals}


def test_raw_usage_is_not_kept():
    raw = Usage(completion_tokens=5, raw={"prompt": "text"})
    ledger = recorded(Ledger(), record(usage=raw))
    assert ledger.recent[0].usage == Usage(completion_tokens=5)
    assert raw.raw


def test_what_is_read_is_a_copy():
    ledger = recorded(Ledger(), record(meta={"k": 1}))
    ledger.totals.outcomes.clear()
    ledger.resolutions.clear()
    ledger.by_model.clear()
    ledger.by_meta("k").clear()
    assert all((ledger.outcomes, ledger.resolutions, ledger.by_model, ledger.by_meta("k")))
    with pytest.raises(AttributeError):
        ledger.totals.total = 3
    assert pickle.loads(pickle.dumps(ledger.totals)) == copy.deepcopy(ledger.totals)


def test_sums_are_exact_whatever_the_programs_context():
    with localcontext(prec=3):
        ledger = recorded(Ledger(), record("r-0", cost=paid(10**9), unsettled=True))
        for n in range(1, 20_001):
            ledger.record(record(f"r-{n}", cost=paid("1E-10")))
        assert ledger.total == Decimal("1000000000.0000020000")
        assert recorded(ledger, record("r-0", cost=paid("1E-60"))).total == Decimal(
            "0.000002" + "0" * 53 + "1"
        )


def test_a_million_tiny_costs_add_up():
    sums, share = Sums(), share_of(record(cost=paid("1E-10")))
    for _ in range(1_000_000):
        sums.add(share)
    assert sums.totals().total == Decimal("0.0001")


@pytest.mark.parametrize(
    "amount", ["NaN", "sNaN", "Infinity", "-1", "-0.01", "1E+999999", "1E-999999", "1E13", 0.5]
)
def test_what_is_no_amount_is_unknown(amount):
    bad = amount if isinstance(amount, float) else Decimal(amount)
    ledger = recorded(Ledger(), record(cost=CostInfo(bad, CostResolution.RESOLVED, "native")))
    assert (ledger.attempts, ledger.total) == (1, 0)
    assert ledger.resolutions == {CostResolution.UNKNOWN: 1}
    assert ledger.recent[0].cost == CostInfo(source="native")


@pytest.mark.parametrize("count", [-1, 10**16, 10**5000], ids=["-1", "1E16", "1E5000"])
def test_what_is_no_count_is_unknown(count):
    ledger = recorded(Ledger(), record(usage=Usage(completion_tokens=count)))
    assert (ledger.totals.completion_tokens, ledger.recent[0].usage) == (0, None)
    assert ledger.total == Decimal("0.25")


# -- by what ---------------------------------------------------------------------------------


def test_a_meta_that_can_not_be_read_costs_no_booking(caplog):
    class Closed(dict):
        def items(self):
            raise ValueError("the shelf is closed")

    ledger = recorded(Ledger(), record(meta=Closed(a=1)))
    assert (ledger.attempts, ledger.total, dict(ledger.by_meta("a"))) == (1, Decimal("0.25"), {})
    assert "its attempt is counted without it" in caplog.text


def test_the_newest_attempt_of_an_id_is_found():
    ledger = recorded(Ledger(), record("k-1", id="gen"), record("k-2", id="gen"))
    assert (ledger.key_of("gen"), ledger.newest("gen").key) == ("k-2", "k-2")
    assert (ledger.key_of("other"), ledger.newest("other")) == (None, None)


def test_totals_of_each_model_and_each_value():
    ledger = recorded(
        Ledger(),
        record("r-1", model="a", meta={"user": "x", "n": 1}),
        record("r-2", model="a", meta={"user": "y"}),
        record("r-3", model="b", meta={"user": "x"}),
        record("r-4", model="b", meta=["user"]),
        record("r-5", model="b", meta="user"),
    )
    assert {k: v.attempts for k, v in ledger.by_model.items()} == {"a": 2, "b": 3}
    assert {k: v.total for k, v in ledger.by_meta("user").items()} == {
        "x": Decimal("0.5"),
        "y": Decimal("0.25"),
    }
    assert ledger.by_meta("nobody") == {}


class Colour(str, Enum):
    RED = "red"


class Job(msgspec.Struct):
    user: str


@pytest.mark.parametrize(
    ("value", "under"),
    [
        ("text", "text"),
        (7, 7),
        (1.5, 1.5),
        (None, None),
        (False, False),
        (float("nan"), None),
        (Colour.RED, "red"),
        (Decimal("1.50"), "1.50"),
        ([1, "a"], '[1,"a"]'),
        ((1, "a"), '[1,"a"]'),
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        (msgspec.Raw(b" [1]"), "[1]"),
        (Job("x"), '{"user":"x"}'),
        (object(), OTHER),
        (10**5000, OTHER),
        ("x" * 1001, OTHER),
        (["x" * 1001], OTHER),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_summed_under_what_is_read_back(value, under, path):
    ledger = recorded(Ledger(), record(meta={"k": value}))
    assert ledger.by_meta("k") == {under: ledger.totals}
    if not isinstance(value, int) and type(value) is not object:
        recorded(JSONLLedger(path), record(meta={"k": value}))
        assert JSONLLedger(path).by_meta("k") == {under: ledger.totals}


def test_a_struct_is_a_mapping_and_its_keys_are_text(path):
    recorded(JSONLLedger(path), record("r-1", meta=Job("x")), record("r-2", meta={7: "y"}))
    for ledger in (JSONLLedger(path), recorded(Ledger(), record(meta=Job("x")))):
        assert ledger.by_meta("user")["x"].attempts == 1
    assert set(JSONLLedger(path).by_meta("7")) == {"y"}
    assert recorded(Ledger(), record(meta=object())).attempts == 1


def test_keys_of_one_name_are_one_key():
    ledger = recorded(Ledger(), record(meta={7: "x", "7": "x", OTHER: "x", "y" * 1001: "x"}))
    assert ledger.by_meta("7") == {"x": ledger.totals}
    assert ledger.by_meta(OTHER) == {OTHER: ledger.totals}


def test_beyond_its_bounds_values_are_summed_together(monkeypatch):
    monkeypatch.setattr(sums_module, "MAX_VALUES", 3)
    monkeypatch.setattr(sums_module, "MAX_META_KEYS", 2)
    ledger = Ledger()
    for n in range(1, 11):
        ledger.record(record(f"r-{n}", model=f"m{n}", meta={"k": n, "one": 1, f"x{n}": n, "y": 0}))
    for totals in (ledger.by_model, ledger.by_meta("k")):
        assert len(totals) == 4
        assert totals[OTHER].attempts == 7
        assert sum(t.total for t in totals.values()) == ledger.total
    assert ledger.by_meta("y") == {}
    assert ledger.by_meta(OTHER) == {OTHER: ledger.totals}  # each once, though it has two keys


def test_only_the_newest_records_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MAX_RECENT", 3)
    monkeypatch.setattr(module, "MAX_UNSETTLED", 2)
    ledger = recorded(Ledger(), *(record(f"r-{n}", unsettled=True) for n in range(1, 6)))
    assert [r.key for r in ledger.recent] == ["r-3", "r-4", "r-5"]
    assert [r.key for r in ledger.unsettled] == ["r-4", "r-5"]
    recorded(ledger, record("r-1", cost=paid(9)), record("r-4", cost=paid(9)))
    assert ledger.total == Decimal("10.00")
    assert [r.key for r in ledger.recent] == ["r-3", "r-5", "r-4"]


def test_a_key_takes_bits():
    seen = SeenKeys()
    tracemalloc.start()
    try:
        for n in range(1, 100_001):
            assert seen.add(f"abcdefabcdef-{n}")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 100_000
    assert not seen.add("abcdefabcdef-77777")


# -- any sequence ----------------------------------------------------------------------------

KEYS = ["run-1", "run-2", "run-1025", "other-1", "run-01", "strange", "-", "run-9" * 50]
TRICKY = b'{"v":1,"key":"x","meta":'

amounts = st.decimals(0, 1000, places=9) | st.sampled_from(["1E-60", "1E+12", "0E-7"]).map(Decimal)
costs = st.builds(CostInfo, st.none() | amounts, st.sampled_from(CostResolution), st.none())
counts = st.none() | st.integers(0, 10**15)
metas = st.recursive(
    st.none() | st.booleans() | st.integers(2, 9) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["k", "l", "ü"]), inner, max_size=3)
        | st.just(TRICKY.decode() + '{"v":1}}')
        | inner.map(lambda meta: {"v": 1, **msgspec.to_builtins(record("fake")), "meta": meta})
    ),
    max_leaves=5,
)
attempts = st.builds(
    record,
    st.sampled_from(KEYS),
    at=st.just(AT),
    model=st.sampled_from(["a", "b", "ü\u2028"]),
    outcome=st.sampled_from(Outcome),
    booked=st.booleans(),
    rejected=st.booleans(),
    unsettled=st.booleans(),
    cost=costs,
    usage=st.none()
    | st.builds(Usage, uncached_input_tokens=counts, completion_tokens=counts, final=st.booleans()),
    meta=metas,
)


def survivors(records):
    """By the rule alone: which records count."""
    kept = {}
    for one in records:
        if one.key not in kept or kept[one.key].unsettled:
            kept[one.key] = one
    return list(kept.values())


def summed(records):
    """The totals, by the simplest means."""
    paid = {CostResolution.RESOLVED, CostResolution.LOWER_BOUND}
    known = [(r.booked, r.amount) for r in records if r.resolution in paid and r.amount]
    used = [r.usage for r in records if r.usage]
    with localcontext(prec=200):
        return Totals(
            total=sum((a for booked, a in known if booked), Decimal(0)),
            unbooked=sum((a for booked, a in known if not booked), Decimal(0)),
            attempts=len(records),
            booked=sum(r.booked for r in records),
            rejected=sum(r.rejected for r in records),
            prompt_tokens=sum(u.prompt_tokens or 0 for u in used),
            completion_tokens=sum(u.completion_tokens or 0 for u in used),
            counted=sum((u.prompt_tokens, u.completion_tokens) != (None, None) for u in used),
            unbooked_known=sum(
                r.resolution in paid and r.amount is not None for r in records if not r.booked
            ),
            resolutions=dict(Counter(r.resolution for r in records if r.booked)),
            outcomes=dict(Counter(r.outcome for r in records)),
        )


def grouped(records, value):
    return {v: summed([r for r in records if value(r) == v]) for v in map(value, records)}


def check_sums(ledger, records):
    assert ledger.totals == summed(records)
    assert ledger.by_model == grouped(records, lambda r: r.model)
    having = [r for r in records if isinstance(r.meta, dict) and "k" in r.meta]
    assert ledger.by_meta("k") == grouped(having, lambda r: group_name(r.meta["k"]))
    assert {r.key: r for r in ledger.unsettled} == {r.key: r for r in records if r.unsettled}
    assert {r.key: r for r in ledger.recent} == {r.key: r for r in records}


@given(st.lists(attempts, max_size=12))
def test_sums_are_those_of_a_naive_recomputation(records):
    check_sums(recorded(Ledger(), *records), survivors(records))


@settings(deadline=None)
@given(st.lists(attempts, max_size=12))
def test_what_is_read_back_is_what_was_recorded(records):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "costs.jsonl")
        ledger = recorded(JSONLLedger(path), *records)
        check_sums(ledger, survivors(records))
        again = JSONLLedger(path)
        check_sums(again, survivors(records))
        assert (again.torn, again.newer) == (0, 0)
        assert again.unsettled == ledger.unsettled
        assert again.recent == ledger.recent
        lines = path.read_bytes().splitlines()
        assert all(one.startswith(b'{"v":1,"key":"') for one in lines)
        assert all(one.count(b'{"v":1,"key":"') == 1 for one in lines)
        assert len(list(again.records())) == len(lines)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), attempts), max_size=12))
def test_two_writers_on_one_file(turns):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "costs.jsonl")
        one, two = JSONLLedger(path), JSONLLedger(path)
        for first, attempt in turns:
            (one if first else two).record(attempt)
        again = JSONLLedger(path)
        assert again.torn == 0
        check_sums(again, survivors(again.records()))
        assert {r.key for r in again.recent} == {attempt.key for _, attempt in turns}


# -- the file --------------------------------------------------------------------------------


def test_a_line_is_what_the_documentation_says(path):
    usage = Usage(completion_tokens=5, cost=0.1, raw={"a": 1})
    at = AT.astimezone(timezone(timedelta(hours=2)))
    one = record(at=at, usage=usage, cost=paid("0.10"), meta={"k": ["ü"]}, error="IdleTimeout")
    recorded(JSONLLedger(path), one)
    (text,) = path.read_text(encoding="utf-8").splitlines()
    assert path.read_bytes().endswith(b"}\n")
    assert text.startswith('{"v":1,"key":"a1b2c3d4-1",')
    read = json.loads(text)
    assert read["at"] == "2026-01-02T03:04:05.678901Z"
    assert read["cost"]["amount"] == "0.10"
    assert (read["meta"], read["error"]) == ({"k": ["ü"]}, "IdleTimeout")
    assert (read["usage"]["completion_tokens"], read["usage"]["raw"]) == (5, None)


@posix
def test_the_file_is_the_owners(path):
    JSONLLedger(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_goes_on_where_it_ended(path):
    first = recorded(JSONLLedger(str(path)), record("r-1"), record("r-2", unsettled=True))
    second = JSONLLedger(path)
    assert second.totals == first.totals
    assert second.unsettled == first.unsettled == (second.find("gen-r-2"),)
    recorded(second, record("r-2", cost=paid(4)), record("r-1"), record("r-2"))
    assert second.new_key().split("-")[0] != first.new_key().split("-")[0]
    third = JSONLLedger(path)
    assert third.totals == second.totals
    assert (third.total, third.attempts, third.unsettled) == (Decimal("4.25"), 2, ())
    assert [(r.key, r.unsettled) for r in third.records()] == [
        ("r-1", False),
        ("r-2", True),
        ("r-2", False),
    ]


def test_a_relative_path_stays_where_it_was(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    ledger = JSONLLedger(path.name)
    monkeypatch.chdir("/")
    ledger.record(record())
    assert JSONLLedger(path).attempts == 1


def test_a_rotated_file_is_begun_anew(path):
    ledger = recorded(JSONLLedger(path), record("r-1"))
    path.rename(path.with_suffix(".1"))
    recorded(ledger, record("r-2"))
    assert [r.key for r in ledger.records()] == ["r-2"]
    assert ledger.attempts == 2


def test_the_folder_must_exist(path):
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        JSONLLedger(path / "no" / "costs.jsonl")
    with pytest.raises(IsADirectoryError):
        JSONLLedger(path.parent)


@posix
def test_a_pipe_is_no_ledger(path):
    os.mkfifo(path)
    with pytest.raises(OSError, match="regular file"):
        JSONLLedger(path)


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do all")
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o200])
def test_a_file_of_another_fails_at_once(path, mode):
    path.touch(mode)
    with pytest.raises(PermissionError):
        JSONLLedger(path)


def test_reading_only(path):
    with pytest.raises(FileNotFoundError):
        JSONLLedger(path, read_only=True)
    assert not path.exists()
    one = record()
    recorded(JSONLLedger(path), one)
    ledger = JSONLLedger(path, read_only=True)
    assert (ledger.attempts, list(ledger.records())) == (1, [one])
    for misuse in (lambda: ledger.record(record("r-2")), lambda: ledger.check(None)):
        with pytest.raises(io.UnsupportedOperation):
            misuse()
    assert ledger.attempts == 1


# -- meta ------------------------------------------------------------------------------------

GOOD = [
    None,
    "text",
    {"a": [1, 2.5, None, {"b": True}]},
    (1, 2),
    AT,
    {1: 2},
    float("nan"),
    Job("x"),
]
LIST = [[]]
for _ in range(100_000):
    LIST = [LIST]
BAD = [object(), {"a": object()}, {(1, 2): 3}, "\ud800", LIST, 10**5000, msgspec.Raw(b'{"a":')]


@pytest.mark.parametrize("meta", [*GOOD, *BAD], ids=lambda meta: type(meta).__name__)
def test_a_ledger_in_memory_takes_any_meta(meta):
    Ledger().check(meta)
    assert recorded(Ledger(), record(meta=meta)).attempts == 1


@pytest.mark.parametrize("meta", GOOD, ids=lambda meta: type(meta).__name__)
def test_a_meta_of_json(path, meta):
    ledger = JSONLLedger(path)
    ledger.check(meta)
    recorded(ledger, record(meta=meta))
    (read,) = ledger.records()
    assert read.meta == msgspec.json.decode(msgspec.json.encode(meta))


@pytest.mark.parametrize("meta", BAD, ids=lambda meta: type(meta).__name__)
def test_a_meta_that_is_no_json_is_refused_and_if_it_comes_all_the_same_left_out(path, meta):
    ledger = JSONLLedger(path)
    with pytest.raises(TypeError, match="meta must be JSON for this ledger") as caught:
        ledger.check(meta)
    assert caught.value.__cause__ is None
    if not isinstance(meta, msgspec.Raw | int | list):  # their lines are torn, or fail below
        recorded(ledger, record(meta=meta))
        assert JSONLLedger(path).recent == ledger.recent == (record(),)


def test_a_meta_that_is_too_long(path):
    ledger = JSONLLedger(path)
    ledger.check("x" * (MAX_META - 2))
    with pytest.raises(ValueError, match="bytes of JSON"):
        ledger.check("x" * (MAX_META - 1))
    recorded(ledger, record("r-1", meta="x" * MAX_LINE), record("r-2", id="\ud800" * MAX_LINE))
    assert ledger.recent[0] == record("r-1")
    assert ledger.recent[1].id == "?" * 1000
    assert JSONLLedger(path).recent == ledger.recent


def test_the_longest_meta_fits(path):
    meta = "x" * (MAX_META - 2)
    long = dict.fromkeys(("model", "base_url", "id", "request_id", "error"), "ü" * 2000)
    recorded(JSONLLedger(path), record(**long, meta=meta))
    (read,) = JSONLLedger(path).recent
    assert read.meta == meta


def test_a_raw_meta_does_not_break_its_line(path):
    raw = msgspec.Raw(b'{\n"v":1,\n"a": [{"v":1,"key":"x"}]\n}')
    ledger = JSONLLedger(path)
    ledger.check(raw)
    recorded(ledger, record(meta=raw))
    assert JSONLLedger(path).recent[0].meta == {"v": 1, "a": [{"v": 1, "key": "x"}]}


# -- torn and foreign lines ------------------------------------------------------------------

FAKE = {"v": 1, **msgspec.to_builtins(record("fake"))}


def lines_of(*records):
    """Return what the ledger writes for the records, one line each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "costs.jsonl")
        recorded(JSONLLedger(path), *records)
        return path.read_bytes().splitlines(keepends=True)


def keys_in(path, content):
    path.write_bytes(content)
    ledger = JSONLLedger(path, read_only=True)
    keys = [r.key for r in ledger.records()]
    assert ledger.attempts == len(set(keys))
    return keys, ledger.torn, ledger.newer


@pytest.mark.parametrize(
    "bad",
    [
        b"\n\n",
        b"nonsense\n",
        b"[]\n",
        b"1\n",
        b"{}\n",
        b'{"v":1}\n',
        b'{"v":1,"key":"x"}\n',
        b"\xff\xfe\x00\n",
        b"\x00" * 5000 + b"\n",
        b"[" * 100_000 + b"\n",
        b'{"v":1,"key":"x","z":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        line(key="\N{BULLET}").replace(b"\\u2022", b"\xff"),
        line(key=7),
        line(outcome="else"),
        line(at="yesterday"),
        line(at="2026-01-02T03:04:05"),
        line(v=0),
        line(v="1"),
        line(v=None),
        line(cost={"amount": "NaN", "resolution": "resolved"}),
        line(cost={"amount": "sNaN", "resolution": "resolved"}),
        line(cost={"amount": "Infinity", "resolution": "resolved"}),
        line(cost={"amount": "-0.1", "resolution": "resolved"}),
        line(cost={"amount": "1E+999999999", "resolution": "resolved"}),
        line(cost={"amount": "1E-999999999", "resolution": "resolved"}),
        line(cost={"amount": "1E+9999999999999999999999", "resolution": "resolved"}),
        line(cost={"amount": "9" * 10_000, "resolution": "resolved"}),
        line(usage={"completion_tokens": -1}),
        line(usage={"completion_tokens": 10**30}),
        line(usage={"completion_tokens": 0}).replace(b":0", b":" + b"9" * 10_000),
        line(meta=0).replace(b'"meta":0', b'"meta":' + b"9" * 10_000),
        line(meta=0).replace(b'"meta":0', b'"meta":NaN'),
        line(at=0, meta=FAKE),  # its meta is no record of ours
        line(v=None, meta=FAKE),
    ],
    ids=lambda bad: bad[:20].decode(errors="replace") + str(len(bad)),
)
def test_a_bad_line_is_counted_and_passed_over(path, bad):
    content = line(record("r-1")) + bad + line(record("r-2"))
    assert keys_in(path, content) == (["r-1", "r-2"], int(bool(bad.strip())), 0)


@pytest.mark.parametrize(
    "good",
    [
        line(record("r-3"), new_field={"a": [1]}),
        line(record("r-3"), at="2026-01-02T05:04:05+02:00"),
        json.dumps({"v": 1, **msgspec.to_builtins(record("r-3"))}, indent=1)
        .replace("\n", "")
        .encode()
        + b"\r\n",
        line(record("r-3"), cost={"amount": "0.25", "resolution": "resolved", "new": 1}),
        line(record("r-3"), meta=FAKE),
    ],
)
def test_lines_of_other_hands_are_read(path, good):
    assert keys_in(path, line(record("r-1")) + good) == (["r-1", "r-3"], 0, 0)


def test_a_newer_version_is_counted_apart(path):
    content = line(record("r-1"), version=2, key=7) + line(record("r-2")) + b'{"v":99}\n'
    assert keys_in(path, content) == (["r-2"], 0, 2)


@pytest.mark.parametrize("size", [MAX_LINE, 2 * MAX_LINE, 5 * MAX_LINE + 7])
def test_a_line_that_is_too_long_is_torn(path, size):
    text = line(record("long"), meta="x" * (size - len(line(record("long"), meta=""))))
    assert len(text) == size
    keys, torn, _ = keys_in(path, line(record("r-1")) + text + line(record("r-2")))
    assert (keys, torn) == (
        (["r-1", "long", "r-2"], 0) if size == MAX_LINE else (["r-1", "r-2"], 1)
    )
    glued = text[: size // 2] + line(record("r-3")) + line(record("r-4"))
    assert keys_in(path, glued) == (["r-3", "r-4"], 1, 0)


def test_a_line_without_end_takes_no_memory(path):
    with path.open("wb") as file:
        for _ in range(32):
            file.write(b"x" * MAX_LINE)
    tracemalloc.start()
    try:
        assert JSONLLedger(path, read_only=True).torn == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * MAX_LINE


def test_a_long_file_takes_no_memory(path, monkeypatch):
    with path.open("wb") as file:
        for n in range(1, 101):
            file.write(line(record("r-1"), meta="x" * 500_000, key=f"r-{n}"))
    monkeypatch.setattr(module, "MAX_RECENT_BYTES", MAX_LINE)
    tracemalloc.start()
    try:
        ledger = JSONLLedger(path, read_only=True)
        assert ledger.attempts == 100
        assert [r.key for r in ledger.recent] == ["r-99", "r-100"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * MAX_LINE


@settings(deadline=None)
@given(st.lists(attempts, min_size=1, max_size=4), st.data())
def test_a_cut_anywhere_leaves_the_whole_lines_before_it(records, data):
    records = [replace(one, key=f"r-{n}") for n, one in enumerate(records, 1)]
    lines = lines_of(*records)
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    whole = [n for n in range(len(lines)) if len(b"".join(lines[: n + 1])) - 1 <= cut]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "costs.jsonl")
        keys, torn, _ = keys_in(path, content[:cut])
        assert keys == [records[n].key for n in whole]
        assert torn == (len(b"".join(lines[: len(whole)])) < cut)
        # The ledger goes on behind the torn line, which spoils no other.
        recorded(JSONLLedger(path), record("next-1"), record("next-2"))
        again = JSONLLedger(path)
        assert [r.key for r in again.records()] == [*keys, "next-1", "next-2"]
        assert again.torn == torn


@settings(deadline=None)
@given(attempts, attempts, st.data())
def test_a_line_that_was_glued_behind_a_torn_one_is_found(first, second, data):
    # Another process was killed between our look at the file's end and our writing.
    torn, whole = lines_of(replace(first, key="torn-1"), replace(second, key="whole-1"))
    cut = data.draw(st.integers(1, len(torn) - 2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "costs.jsonl")
        assert keys_in(path, torn[:cut] + whole) == (["whole-1"], 1, 0)
        assert keys_in(path, torn[:cut] + torn[:cut] + whole) == (["whole-1"], 1, 0)
        assert keys_in(path, torn[:-1] + whole) == (["torn-1", "whole-1"], 0, 0)


def test_a_record_in_a_meta_is_none_of_ours_be_the_line_torn_at_the_worst_place(path):
    (text,) = lines_of(record(meta=FAKE))
    (plain,) = lines_of(record("other-1"))
    torn = text[: text.rindex(b"}")]
    assert torn.endswith(b'"meta":null}')  # the fake is whole
    assert keys_in(path, torn) == ([], 1, 0)
    assert keys_in(path, torn + plain) == (["other-1"], 1, 0)


# -- writing that fails ----------------------------------------------------------------------


def test_a_booking_is_not_lost_when_the_folder_is_gone(path, caplog):
    folder = path.parent / "folder"
    folder.mkdir()
    ledger = JSONLLedger(folder / "costs.jsonl")
    ledger.flush()
    (folder / "costs.jsonl").unlink()
    folder.rmdir()
    with caplog.at_level(logging.INFO, logger="trio_minillm"):
        recorded(ledger, record("r-1", meta={"m": "s3cret"}), record("r-2"), record("r-2"))
        assert (ledger.pending, ledger.total, ledger.lost) == (2, Decimal("0.50"), 0)
        with pytest.raises(FileNotFoundError):
            ledger.flush()
        assert len(caplog.records) == 1
        assert "can't be written (No such file" in caplog.text
        assert "s3cret" not in caplog.text
        assert "r-1" not in caplog.text
        folder.mkdir()
        recorded(ledger, record("r-3"))
        assert ledger.pending == 0
        assert [r.key for r in ledger.records()] == ["r-1", "r-2", "r-3"]
        (folder / "costs.jsonl").unlink()
        folder.rmdir()
        recorded(ledger, record("r-4"), record("r-5"))
        assert len(caplog.records) == 2
    folder.mkdir()
    ledger.flush()
    assert [r.key for r in ledger.records()] == ["r-4", "r-5"]


def test_what_waits_is_bounded(path, monkeypatch):
    monkeypatch.setattr(in_file, "MAX_PENDING", 5_000)
    ledger = JSONLLedger(path)
    path.unlink()
    path.mkdir()
    recorded(ledger, *(record(f"r-{n}") for n in range(1, 101)))
    assert ledger.attempts == 100
    assert 0 < ledger.pending < 20
    assert ledger.pending + ledger.lost == 100
    path.rmdir()
    ledger.flush()
    assert (ledger.pending, ledger._pending_bytes) == (0, 0)
    assert [r.key for r in ledger.records()] == [f"r-{n}" for n in range(1 + ledger.lost, 101)]


@posix
def test_a_full_disk(path):
    import resource

    ledger = recorded(JSONLLedger(path), record("r-1"))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, old[1]))
    try:
        recorded(ledger, record("r-2"), record("r-3"))
        with pytest.raises(OSError, match="too large"):
            ledger.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert ledger.pending == 2
    assert not path.read_bytes().endswith(b"\n")
    recorded(ledger, record("r-4"))
    again = JSONLLedger(path)
    assert [r.key for r in again.records()] == ["r-1", "r-2", "r-3", "r-4"]
    assert again.torn == 1


def test_short_writes_are_completed(path, monkeypatch):
    write = os.write
    ledger = JSONLLedger(path)
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    recorded(ledger, record("r-1"), record("r-2"))
    assert b"".join(lines_of(record("r-1"), record("r-2"))) == path.read_bytes()


@pytest.mark.parametrize("at", [1, 20, 300, -1])
def test_a_short_write_that_another_process_came_behind(path, monkeypatch, at):
    write, ours = os.write, []

    def short(fd, data):
        ours.append(data)
        written = write(fd, data[:at] if len(ours) == 1 else data)
        if len(ours) == 1:
            with path.open("ab") as theirs:
                theirs.write(line(record("theirs-1")))
        return written

    ledger = JSONLLedger(path)
    monkeypatch.setattr(os, "write", short)
    ledger.record(record("ours-1"))
    monkeypatch.undo()
    again = JSONLLedger(path)
    assert sorted({r.key for r in again.records()}) == ["ours-1", "theirs-1"]
    assert (again.total, ledger.pending) == (Decimal("0.50"), 0)


def test_an_interruption_in_the_writing_loses_nothing(path, monkeypatch):
    def interrupted(fd, data):
        raise KeyboardInterrupt

    ledger = JSONLLedger(path)
    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.record(record("r-1"))
    monkeypatch.undo()
    recorded(ledger, record("r-1"), record("r-2"))
    assert [r.key for r in ledger.records()] == ["r-1", "r-2"]


# -- kill -9 ---------------------------------------------------------------------------------

HELPER = """
import json, os, random, select, signal, sys, time
from datetime import UTC, datetime
from decimal import Decimal
from trio_minillm import CostInfo, CostResolution, Outcome
from trio_minillm._accounting.record import CostRecord
from trio_minillm._accounting.ledger_file import JSONLLedger
from msgspec.structs import replace

SIZES = (0, 10, 300, 2_000, 2_000, 9_000, 70_000, 300_000)
COST = CostInfo(Decimal("0.01"), CostResolution.RESOLVED, "price")

def write_on(ledger, pipe, chance):
    while True:
        size, key = chance.choice(SIZES), ledger.new_key()
        one = CostRecord(
            key=key, at=datetime.now(UTC), model="m", provider="p", base_url="u", id=key,
            outcome=Outcome.FINISHED, booked=True, cost=COST,
            meta={"size": size, "pad": "x" * size, "inner": {"v": 1, "key": "fake"}},
        )
        if size % 3:
            ledger.record(replace(one, unsettled=True, cost=CostInfo()))
        ledger.record(one)
        assert not ledger.pending
        os.write(pipe, key.encode() + b"\\n")

def main(path, rounds, writers, seed):
    chance, ledger, keys = random.Random(seed), JSONLLedger(path), []
    for _ in range(rounds):
        children, said = {}, {}
        for _ in range(writers):
            ours, theirs = os.pipe()
            own = random.Random(chance.random())
            child = os.fork()
            if not child:
                try:
                    write_on(ledger, theirs, own)
                finally:
                    os._exit(1)
            os.close(theirs)
            children[ours], said[ours] = child, b""
        wanted = chance.randrange(0, 30)
        heard = 0
        while heard < wanted:
            for ready in select.select(list(children), [], [])[0]:
                data = os.read(ready, 65536)
                if not data:
                    sys.exit("a writer gave up")
                heard += data.count(b"\\n")
                said[ready] += data
        time.sleep(chance.random() * 0.003)
        for child in children.values():
            os.kill(child, signal.SIGKILL)
        for ours, child in children.items():
            os.waitpid(child, 0)  # what it said is still in the pipe
            while data := os.read(ours, 65536):
                said[ours] += data
            os.close(ours)
            keys += said[ours].decode().split("\\n")[:-1]
    print(json.dumps(keys))

main(sys.argv[1], *map(int, sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize(("rounds", "writers"), [(40, 1), (40, 4)])
def test_no_kill_loses_a_booking_or_counts_it_twice(path, rounds, writers):
    arguments = [str(path), str(rounds), str(writers), "7"]
    ran = subprocess.run(
        [sys.executable, "-c", HELPER, *arguments], stdout=subprocess.PIPE, check=True, timeout=120
    )
    acknowledged = json.loads(ran.stdout)
    assert len(set(acknowledged)) == len(acknowledged) > rounds
    ledger = JSONLLedger(path)
    seen, settled = Counter(), set()
    for one in ledger.records():
        seen[one.key, one.unsettled] += 1
        assert one.meta["size"] == len(one.meta["pad"])
        if not one.unsettled:
            settled.add(one.key)
    assert set(acknowledged) <= settled
    assert set(seen.values()) == {1}
    assert ledger.attempts == len({key for key, _ in seen})
    assert ledger.total == len(settled) * Decimal("0.01")
    assert ledger.torn <= rounds * writers
    recorded(ledger, record("next-1"))
    again = JSONLLedger(path)
    assert (again.totals, again.torn) == (ledger.totals, ledger.torn)


def test_records_can_be_in_a_set():
    first = record()
    assert {first, replace(first, attempt=2), first} == {first, replace(first, attempt=2)}
