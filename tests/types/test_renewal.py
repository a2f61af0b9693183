"""Tests of when a rate limit is renewed, from the headers in which servers state it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._types.renewal import seconds_until, until_renewed

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("120ms", 0.12),
        ("17.5s", 17.5),
        ("2m59.56s", 179.56),
        ("1d", 86400.0),
        ("30", 30.0),
        ("1700000060", 60.0),
        ("1700000060500", 60.5),
        ("2023-11-14T22:14:20Z", 60.0),
        ("2023-11-14T23:14:20+01:00", 60.0),
        ("2023-11-14T22:14:20", 60.0),  # without a zone it is UTC
        ("2023-11-14T22:00:00Z", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("m", None),
        ("nan", None),
    ],
)
def test_resets_of_all_customs_are_read(text: str, seconds: float | None) -> None:
    found = seconds_until(text, epoch=1_700_000_000.0)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=30))
def test_no_reset_header_is_too_strange(text: str) -> None:
    found = seconds_until(text, epoch=1e9)
    assert found is None or found >= 0


def refused(headers: dict[str, str], **fields: Any) -> llm.RefusedError:
    info = llm.ErrorInfo(**{"message": "x", "kind": "rate_limit", "status": 429, **fields})
    return llm.RefusedError(info, headers=headers)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        (  # what is left of the one does not help if the other is used up
            {
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "7s",
            },
            7.0,
        ),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:25Z",
                "anthropic-ratelimit-tokens-remaining": "0.0",
                "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:29Z",
            },
            9.0,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000004000"}, 4.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        (  # Cerebras
            {
                "x-ratelimit-remaining-tokens-minute": "0",
                "x-ratelimit-reset-tokens-minute": "32.5",
                "x-ratelimit-remaining-requests-day": "7",
                "x-ratelimit-reset-requests-day": "5000",
            },
            32.5,
        ),
        ({"x-ratelimit-reset": "20", "x-ratelimit-reset-day": "7000"}, 20.0),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "20"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "0"}, None),
        ({}, None),
    ],
)
def test_a_limit_that_is_used_up_says_when_it_is_renewed(
    headers: dict[str, str], seconds: float | None
) -> None:
    found = until_renewed(refused(headers), now=NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_headers_that_the_body_quotes_count_too() -> None:
    quoted = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000004000", "n": 1}
    error = refused({}, metadata={"headers": quoted})
    assert until_renewed(error, now=NOW) == 4.0
    assert until_renewed(llm.ProviderError(error.info), now=NOW) == 4.0  # under HTTP 200
    for other in ({"headers": ["x"]}, {}, ["x"], None):
        assert until_renewed(refused({}, metadata=other), now=NOW) is None


def test_it_is_no_answer_where_a_wait_is_named_or_none_helps() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "20"}
    assert until_renewed(refused(headers, retry_after=3.0), now=NOW) is None
    assert until_renewed(refused(headers, retry_after=0.0), now=NOW) == 20.0
    assert until_renewed(refused(headers, kind="overloaded"), now=NOW) is None
    assert until_renewed(llm.EndedEarly("x"), now=NOW) is None
