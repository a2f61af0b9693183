"""The tree of errors: their messages, and that they survive pickling and copying."""

import copy
import pickle
from datetime import UTC, datetime

import pytest

import trio_minillm as llm
from trio_minillm._types.errors import alone

INFO = llm.ErrorInfo(message="slow down", kind="rate_limit", status=429, code="rate_limit_exceeded")

UNTIL = datetime(2026, 1, 1, 14, 20, tzinfo=UTC)

ERRORS = [
    llm.MiniLLMError("x"),
    llm.SendError("x"),
    llm.ConnectTimeout(10.0),
    llm.RefusedError(INFO, retry_after=2.5, request_id="req_1", headers={"a": "b"}),
    llm.ConnectionCut("x"),
    llm.EndedEarly("x"),
    llm.StreamTimeout("idle", 1.5, chunks=3, received=40),
    llm.ProviderError(INFO),
    llm.ProtocolError("not JSON", event=4),
    llm.LimitExceeded("bytes in one line", 4096, event=2),
    llm.RetriesExhausted((llm.SendError("x"), llm.RefusedError(INFO))),
    llm.SendTimeout(30.0),
    llm.SendError("x", reason="refused"),
    llm.RefusedUntil(
        llm.RefusedError(INFO, retry_after=2.5, request_id="req_1", headers={"a": "b"}, url="u"),
        until=UNTIL,
        wait=7_200.0,
        when="14:20 (in 2 h 00 min)",
    ),
    llm.RefusedUntil(llm.ProviderError(INFO), until=UNTIL, wait=7_200.0, when="14:20"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_an_error_survives_copying_and_pickling(error):
    error.partial = llm.CompletionResponse(id="p")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.partial.id == "p"
        assert set(vars(twin)) == set(vars(error))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ERRORS[2], "not connected within 10 s (clock 'connect')"),
        (
            ERRORS[3],
            "HTTP 429 [rate_limit_exceeded] rate_limit: slow down (retry after 2.5 s) (request req_1)",
        ),
        (ERRORS[6], "clock 'idle' ran out after 1.5 s (3 chunks, 40 bytes arrived)"),
        (ERRORS[7], "the server reported an error [rate_limit_exceeded] (rate_limit): slow down"),
        (ERRORS[8], "event 4: not JSON"),
        (ERRORS[11], "sending made no progress for 30 s (clock 'send')"),
        (ERRORS[9], "event 2: more than 4,096 bytes in one line (Bounds(event=…) raises it)"),
    ],
)
def test_the_message_says_what_and_how_much(error, words):
    assert str(error) == words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.25, "0.25 s"), (61.234567, "61.2346 s"), (343_798_000.5, "343,798,000 s")],
)
def test_a_wait_is_said_in_digits(seconds, said):
    error = llm.RefusedError(llm.ErrorInfo(message="later", kind="rate_limit"), retry_after=seconds)
    assert str(error) == f"refused rate_limit: later (retry after {said})"


def test_one_chunk_is_one():
    error = llm.StreamTimeout("idle", 2, chunks=1, received=40)
    assert str(error) == "clock 'idle' ran out after 2 s (1 chunk, 40 bytes arrived)"


def test_exhausted_retries_tell_of_the_last_and_of_all():
    error = ERRORS[10]
    assert error.attempts == 2
    assert error.last_error is error.errors[1]
    assert "2 attempts failed; the last: HTTP 429" in str(error)


def test_a_refusal_keeps_the_address_that_was_asked():
    error = llm.RefusedError(INFO, url="https://llm.invalid/v1/chat/completions")
    assert pickle.loads(pickle.dumps(error)).url == error.url
    assert error.url not in str(error)
    assert llm.RefusedError(INFO).url is None


@pytest.mark.parametrize("error", [ERRORS[3], ERRORS[7]])
def test_refusals_and_errors_in_the_stream_are_read_alike(error):
    assert (error.status, error.code, error.kind) == (429, "rate_limit_exceeded", "rate_limit")


@pytest.mark.parametrize(
    ("kind", "should_retry", "expected"),
    [
        ("rate_limit", None, True),
        ("overloaded", None, True),
        ("timeout", None, True),
        ("server", None, True),
        ("quota", None, False),
        ("auth", None, False),
        ("invalid", None, False),
        ("invalid", True, True),
        ("server", False, False),
    ],
)
def test_what_may_pass_by_itself(kind, should_retry, expected):
    info = llm.ErrorInfo(message="", kind=kind, status=500, should_retry=should_retry)
    assert info.retryable is expected


def test_an_error_that_nobody_can_classify_is_not_tried_again():
    assert not llm.ErrorInfo(message="who knows", kind="server").retryable


def test_a_refusal_until_a_time_names_it_and_keeps_what_the_last_refusal_had():
    refused = llm.RefusedError(INFO, retry_after=2.5, request_id="r", headers={"a": "b"}, url="u")
    error = llm.RefusedUntil(refused, until=UNTIL, wait=7_200.0, when="14:20")
    assert str(error).startswith("the server refuses until 14:20: ")
    assert (error.until, error.retry_after) == (UNTIL, 7_200.0)
    assert (error.request_id, error.headers, error.url) == ("r", {"a": "b"}, "u")
    broken = llm.RefusedUntil(llm.ProviderError(INFO), until=UNTIL, wait=1.0, when="14:20")
    assert (broken.request_id, dict(broken.headers), broken.url) == (None, {}, None)


def test_an_error_of_the_callers_is_logged_without_ours_around_it():
    ours = llm.MiniLLMError("what the server said")
    kept, cause = ValueError("kept"), KeyError("cause")
    cause.__context__ = ours
    kept.__cause__ = cause
    assert alone(kept) is kept
    assert (kept.__cause__, cause.__suppress_context__) == (cause, True)
    cause.__cause__ = ours
    assert alone(kept).__cause__.__cause__ is None
    cause.__cause__ = kept  # in a circle
    assert alone(kept) is kept
