"""Clocks and retries as values: how long to wait, and when to give up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._types.errors import RETRYABLE, ErrorKind
from trio_minillm._types.options import retry_after, retryable

INFINITY = math.inf
NOW = 1_000_000.0


def refused(
    kind: ErrorKind = "rate_limit", wait: float | None = None, should_retry: bool | None = None
) -> llm.RefusedError:
    info = llm.ErrorInfo(message="m", kind=kind, status=429, should_retry=should_retry)
    return llm.RefusedError(info, retry_after=wait)


# -- Retry.delay -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "upper"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (99, 8.0)]
)
def test_the_upper_end_of_the_wait_doubles_up_to_a_cap(attempt: int, upper: float) -> None:
    retry = llm.Retry(attempts=100)
    error = llm.SendError("x")
    for random in (0.0, 0.25, 0.5, 0.999):
        delay = retry.delay(error, attempt=attempt, remaining=INFINITY, random=random)
        assert delay == pytest.approx(random * upper)


@given(
    attempt=st.integers(1, 10_000),
    random=st.floats(0, 1, exclude_max=True),
    base=st.floats(0, 100),
    cap=st.floats(0, 100),
)
def test_any_wait_is_full_jitter_within_the_cap(
    attempt: int, random: float, base: float, cap: float
) -> None:
    retry = llm.Retry(attempts=100_000, base_delay=base, max_delay=cap)
    delay = retry.delay(llm.SendError("x"), attempt=attempt, remaining=INFINITY, random=random)
    assert delay is not None
    assert 0 <= delay <= cap


@pytest.mark.parametrize(("attempts", "allowed"), [(1, 0), (2, 1), (3, 2), (7, 6)])
def test_attempts_counts_all_requests(attempts: int, allowed: int) -> None:
    retry = llm.Retry(attempts=attempts)
    made = [
        n
        for n in range(1, 10)
        if retry.delay(llm.SendError("x"), attempt=n, remaining=INFINITY, random=0.5) is not None
    ]
    assert made == list(range(1, allowed + 1))


@pytest.mark.parametrize(
    ("asked", "waited"),
    [(0.0, 0.0), (3.0, 3.0), (60.0, 60.0), (60.001, None), (3600.0, None), (None, 0.25)],
)
def test_the_server_decides_the_wait_up_to_a_cap(asked: float | None, waited: float | None) -> None:
    delay = llm.Retry().delay(refused(wait=asked), attempt=1, remaining=INFINITY, random=0.5)
    assert delay == waited


def test_an_error_inside_a_stream_may_name_the_wait_too() -> None:
    info = llm.ErrorInfo(message="m", kind="rate_limit", status=429, retry_after=7.0)
    error = llm.ProviderError(info)
    assert llm.Retry().delay(error, attempt=1, remaining=INFINITY, random=0.5) == 7.0


@pytest.mark.parametrize("error", [refused(wait=0.0), refused("overloaded", wait=0.0)])
def test_no_wait_at_all_is_believed_once(error: llm.RefusedError) -> None:
    waits = [
        llm.Retry(attempts=9).delay(error, attempt=n, remaining=99, random=0.5) for n in (1, 2, 3)
    ]
    assert waits == [0.0, 0.5, 1.0]


def test_the_servers_wait_is_not_bound_by_max_delay() -> None:
    retry = llm.Retry(max_delay=1.0, max_retry_after=600.0)
    assert retry.delay(refused(wait=500.0), attempt=1, remaining=INFINITY, random=0.0) == 500.0


@pytest.mark.parametrize(
    ("remaining", "waited"), [(10.0, 5.0), (5.001, 5.0), (5.0, None), (1.0, None), (-1.0, None)]
)
def test_a_wait_that_would_outlast_the_total_clock_is_not_begun(
    remaining: float, waited: float | None
) -> None:
    delay = llm.Retry().delay(refused(wait=5.0), attempt=1, remaining=remaining, random=0.0)
    assert delay == waited


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (llm.SendError("x"), True),
        (llm.ConnectTimeout(1.0), True),
        (llm.SendTimeout(1.0), True),
        (llm.SendError("x", reason="refused"), True),
        (llm.SendError("x", reason="no_such_host"), True),
        (llm.SendError("x", reason="open_files"), True),
        (llm.SendError("x", reason="certificate"), False),
        (llm.SendError("x", reason="tls"), False),
        (llm.SendError("x", reason="address"), False),
        (refused("rate_limit"), True),
        (refused("overloaded"), True),
        (refused("timeout"), True),
        (refused("server"), True),
        (refused("quota"), False),
        (refused("auth"), False),
        (refused("invalid"), False),
        (refused("server", should_retry=False), False),
        (refused("invalid", should_retry=True), True),
        (llm.ProviderError(llm.ErrorInfo(message="m", kind="overloaded")), True),
        (llm.ProviderError(llm.ErrorInfo(message="m", kind="quota")), False),
        (llm.ConnectionCut("x"), False),
        (llm.EndedEarly("x"), False),
        (llm.StreamTimeout("idle", 1.0), False),
        (llm.ProtocolError("x"), False),
        (llm.LimitExceeded("bytes", 1), False),
    ],
)
def test_what_is_tried_again(error: llm.MiniLLMError, again: bool) -> None:
    assert retryable(error) is again
    delay = llm.Retry().delay(error, attempt=1, remaining=INFINITY, random=0.5)
    assert (delay is not None) is again


def test_the_kinds_that_pass_by_themselves() -> None:
    assert {"rate_limit", "overloaded", "timeout", "server"} == RETRYABLE


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"base_delay": -1.0},
        {"base_delay": math.nan},
        {"max_delay": -0.1},
        {"max_retry_after": -5.0},
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        llm.Retry(**wrong)  # type: ignore[arg-type]


# -- Timeouts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", llm.Timeouts.__struct_fields__)
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, "5"])
def test_a_clock_is_a_number_of_seconds_or_off(name: str, value: float) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        llm.Timeouts(**{name: value})
    assert getattr(llm.Timeouts(**{name: None}), name) is None
    assert getattr(llm.Timeouts(**{name: 0}), name) == 0


@pytest.mark.parametrize(
    ("total", "decided"), [(msgspec.UNSET, 600.0), (None, None), (5.0, 5.0), (0, 0)]
)
def test_total_is_decided_by_the_call_unless_it_was_set(
    total: float | None, decided: float | None
) -> None:
    clocks = llm.Timeouts(total=total, idle=7.0).with_total(600.0)
    assert clocks == llm.Timeouts(total=decided, idle=7.0)


# -- the headers -----------------------------------------------------------------------------


def http_date(offset: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + offset, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "20s"}, 20.0),
        ({"retry-after": "300 ms"}, 0.3),
        ({"retry-after-ms": "300ms"}, 0.3),
        ({"retry-after": "20 m"}, None),
        ({"retry-after": "20 seconds"}, 20.0),
        ({"retry-after": '"20"'}, 20.0),
        ({"retry-after": "20, 30"}, 30.0),  # of two proxies
        ({"retry-after": "20, soon"}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": http_date(30)}, 30.0),
        ({"retry-after": http_date(-30)}, 0.0),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "\u0663"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Mon, 99 Foo 99999 99:99:99 GMT"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "0.5"}, 0.0005),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),  # both SDKs read it first
        ({"retry-after-ms": "junk"}, None),
        # A header that can't be read says nothing: the other one counts.
        ({"retry-after-ms": "junk", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "", "retry-after": "9"}, 9.0),
    ],
)
def test_what_the_retry_headers_ask_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds


@given(st.text(), st.text())
def test_no_header_is_junk_enough_to_raise(one: str, two: str) -> None:
    for headers in ({"retry-after": one}, {"retry-after-ms": one, "retry-after": two}):
        found = retry_after(headers, now=NOW)
        assert found is None or 0 <= found < INFINITY


def test_the_clock_that_a_clients_block_waits_for_has_an_end() -> None:
    assert llm.Timeouts(total=INFINITY, settlement=None).settlement is None
    with pytest.raises(ValueError, match="settlement must be finite"):
        llm.Timeouts(settlement=INFINITY)


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs POSIX")
@pytest.mark.parametrize(
    "date",
    [
        "Mon, 12 Jan 1970 13:47:10 GMT",
        "Mon, 12 Jan 1970 13:47:10 -0000",
        "Mon Jan 12 13:47:10 1970",  # asctime's form, which RFC 9110 still allows
    ],
)
def test_a_date_is_in_gmt_wherever_the_machine_stands(date: str) -> None:
    assert retry_after({"retry-after": date}, now=NOW) == 30.0


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4096"])
def test_a_bound_is_a_whole_number_from_1_on(value: Any) -> None:
    with pytest.raises(ValueError, match="parts must be a whole number, 1 or more"):
        llm.Bounds(parts=value)


@pytest.mark.parametrize("resumes", [-1, 1.5, "3", None, True])
def test_the_number_of_resumes_is_checked(resumes: Any) -> None:
    with pytest.raises(ValueError, match="resumes"):
        llm.Retry(resumes=resumes)
