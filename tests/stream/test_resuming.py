"""Responses in the background: cut, taken up again, and called off."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import trio_minillm as llm
from trio_minillm._stream.resuming import CALL_OFF_SECONDS, MOST_RESUMES
from trio_minillm._stream.stream import StreamingCompletion
from trio_minillm.batch import BatchRequest
from trio_minillm.providers import Continuation, FollowUp, OpenAIChat
from trio_minillm.testing import (
    LoopbackServer,
    Reply,
    ScriptedTransport,
    ServedRequest,
    answer,
    eof,
    faults,
    hang,
    json_reply,
    openai_events,
    reply,
    responses_events,
    resumable,
    serve,
    sse,
)

from ..support.recorded import Recording, recordings
from ..support.runs import IN_MEMORY, ON_SOCKETS, TRANSPORTS, client_over, run
from ..support.streams import cancelled_at, take

URL = "http://test.invalid/v1"
KEY = "sk-secret-000"
EVENTS = responses_events("Sea ", "water ", "is ", "salty.")
SIZE = sum(map(len, EVENTS))
WHOLE = "Sea water is salty."
BEGUN = 6
"""Events up to the second piece of the text."""
QUICK = llm.Retry(base_delay=0.0)
WAYS = ("complete", "iterate")
LONG = llm.Timeouts(total=10_000)
ALL = resumable(*EVENTS)
CUT = reply(*EVENTS[:BEGUN], eof)
REFUSED = json_reply({"error": {"message": f"not for {KEY}", "code": "no"}}, status=404)


def model(url: str = URL, **options: Any) -> llm.Model:
    return llm.openai_responses("m", base_url=url, **{"api_key": KEY, **options})


def said(response: llm.CompletionResponse) -> dict[str, Any]:
    """What an answer says, without when and how it came."""
    fields = msgspec.structs.asdict(response)
    return {k: v for k, v in fields.items() if k not in ("timings", "request_id")}


async def one(
    client: llm.Client, made: llm.Model, way: str = "complete", **options: Any
) -> llm.CompletionResponse:
    options = {"background": True, "timeouts": LONG, **options}
    if way == "complete":
        return await client.complete(made, "Hi", **options)
    text = ""
    async with client.stream(made, "Hi", **options) as stream:
        async for chunk in stream:
            text += chunk.delta
    assert stream.response.content == text
    return stream.response


def answered(
    *replies: Any, way: str = "complete", retry: llm.Retry = QUICK, **options: Any
) -> tuple[llm.CompletionResponse, ScriptedTransport]:
    """The answer to one request, and the server that gave it by a script."""
    transport = ScriptedTransport(*replies)
    made = options.pop("model", None) or model()

    async def main() -> llm.CompletionResponse:
        async with llm.open_client(transport=transport, retry=retry) as client:
            return await one(client, made, way, **options)

    response = run(main, IN_MEMORY)
    assert transport.open_bodies == 0
    return response, transport


def failed(*replies: Any, **options: Any) -> tuple[llm.MiniLLMError, ScriptedTransport]:
    """The error of one request, and the server."""
    transport = ScriptedTransport(*replies)
    retry = options.pop("retry", QUICK)
    made = options.pop("model", None) or model()

    async def main() -> llm.MiniLLMError:
        async with llm.open_client(transport=transport, retry=retry) as client:
            with pytest.raises(llm.MiniLLMError) as caught:
                await one(client, made, **options)
            (record,) = client.ledger.recent
            assert not record.booked
            return caught.value

    error = run(main, IN_MEMORY)
    assert transport.open_bodies == 0
    return error, transport


ONCE = said(answered(reply(*EVENTS))[0])
"""The answer that was not cut."""


def positions(transport: ScriptedTransport) -> list[str]:
    """The numbers behind which the answer was taken up."""
    return [q.url.params["starting_after"] for q in transport.questions]


# -- nothing twice, nothing lost -------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_an_answer_that_is_cut_goes_on(way: str, how: Any) -> None:
    for at in range(len(EVENTS[0]), SIZE, 61):
        response, transport = answered(ALL | faults.cut(at, how), ALL, way=way)
        assert said(response) == ONCE
        assert (len(transport.requests), response.timings.attempts) == (1, 1)
        assert response.timings.resumes == len(transport.questions) <= 1


@pytest.mark.parametrize("way", WAYS)
def test_cut_again_and_again(way: str) -> None:
    pieces = [reply(*EVENTS[:1], eof), *(reply(event, eof) for event in EVENTS[1:])]
    response, transport = answered(*pieces, way=way)
    assert said(response) == ONCE
    assert positions(transport) == [str(number) for number in range(len(EVENTS) - 1)]


def test_a_server_that_sends_everything_again() -> None:
    response, _ = answered(CUT, reply(*EVENTS))
    assert said(response) == ONCE


@pytest.mark.parametrize("recording", recordings("openai_responses"))
def test_recorded_streams(recording: Recording) -> None:
    numbers = [event.get("sequence_number") for event in recording.data]
    if len(numbers) < 3 or None in numbers:
        pytest.skip("its events have no numbers")
    body = recording.body
    events = [e + b"\n\n" for e in body.replace(b"\r\n", b"\n").strip(b"\n").split(b"\n\n")]
    with suppress(llm.MiniLLMError):
        wanted, _ = answered(reply(body))
        for cut in {1, len(events) // 2, len(events) - 1}:
            first = reply(*events[:cut], events[cut][:30], eof)
            response, _ = answered(first, reply(*events[cut:]))
            assert said(response) == said(wanted)


@given(data=st.data())
def test_any_cuts_any_reads_and_pauses(data: st.DataObject) -> None:
    replies: list[Any] = []
    hows: list[str] = []
    for number in range(data.draw(st.integers(0, 4), "cuts")):
        least = 0 if number else len(EVENTS[0])
        at = data.draw(st.integers(least, SIZE), "at")
        how = data.draw(st.sampled_from(("eof", "reset", "stall")), "how")
        fault = faults.stall(at) if how == "stall" else faults.cut(at, how)  # type: ignore[arg-type]
        hows.append(how)
        replies.append(ALL | fault)
    replies.append(ALL)
    size = data.draw(st.integers(1, SIZE), "read")
    replies = [made | faults.merge() | faults.split(every=size) for made in replies]
    way = data.draw(st.sampled_from(WAYS), "way")
    try:
        response, _ = answered(*replies, way=way)
    except (llm.StreamTimeout, llm.ConnectionCut):
        assert hows.count("stall") > 1  # silent twice, with nothing new in between
    else:
        assert said(response) == ONCE


# -- what is asked for -----------------------------------------------------------------------------


def test_the_rest_is_asked_for_as_it_was_begun() -> None:
    made = model(f"{URL}?api-version=7", headers={"x-team": "a"})
    options = {"include": ["reasoning.encrypted_content"], "include_obfuscation": False}
    _, transport = answered(CUT, ALL, model=made, headers={"x-one": "b"}, **options)
    (begun,), (resumed,) = transport.requests, transport.questions
    assert transport.bodies[0]["background"] is True
    assert resumed.method == "GET"
    assert resumed.url.path == "/v1/responses/resp_1"
    assert parse_qsl(resumed.url.query.decode()) == [
        ("stream", "true"),
        ("starting_after", "5"),
        ("include[]", "reasoning.encrypted_content"),
        ("include_obfuscation", "false"),
        ("api-version", "7"),
    ]
    for name in ("authorization", "x-team", "x-one", "accept", "user-agent"):
        assert resumed.headers[name] == begun.headers[name]
    assert "content-type" not in resumed.headers


@pytest.mark.parametrize(
    ("ident", "path"),
    [("a/../b?c#d", "/v1/responses/a%2F..%2Fb%3Fc%23d"), ("é", "/v1/responses/%C3%A9")],
)
def test_an_id_stays_in_its_place(ident: str, path: str) -> None:
    events = [e.replace(b'"id":"resp_1"', f'"id":"{ident}"'.encode()) for e in EVENTS]
    _, transport = answered(reply(*events[:BEGUN], eof), reply(*events[BEGUN:]))
    assert transport.questions[0].url.raw_path.decode().partition("?")[0] == path


@pytest.mark.parametrize("ident", ["", "..", ".", "x" * 513])
def test_an_id_that_is_none(ident: str) -> None:
    events = [e.replace(b'"id":"resp_1"', f'"id":"{ident}"'.encode()) for e in EVENTS]
    error, transport = failed(reply(*events[:BEGUN], eof), ALL)
    assert isinstance(error, llm.ConnectionCut)
    assert transport.questions == []


def test_the_key_is_asked_for_and_requests_are_signed() -> None:
    keys, signed = iter(["key-1", "key-2", "key-3"]), list[llm.RequestToSign]()

    def sign(request: llm.RequestToSign) -> dict[str, str]:
        signed.append(request)
        return {"x-signature": f"{request.method}-{len(signed)}"}

    denied = json_reply({"error": {"message": "key-2 ran out"}}, status=401)
    made = model(api_key=lambda: next(keys), sign=sign)
    response, transport = answered(CUT, denied, ALL, model=made)
    assert said(response) == ONCE
    assert [r.headers["authorization"] for r in transport.questions] == [
        "Bearer key-2",
        "Bearer key-3",
    ]
    assert [r.headers["x-signature"] for r in transport.questions] == ["GET-2", "GET-3"]
    assert urlsplit(signed[1].url).path == "/v1/responses/resp_1"
    assert signed[1].body == b""


def test_a_key_that_was_asked_for_later_is_not_shown() -> None:
    keys = iter(["key-one", "key-two"])
    denied = json_reply({"error": {"message": "not with key-two"}}, status=403)
    error, _ = failed(CUT, denied, model=model(api_key=lambda: next(keys)))
    (note,) = error.__notes__
    assert "RefusedError: HTTP 403" in note
    assert "key-two" not in note


def test_it_is_asked_for_only_in_the_background() -> None:
    error, transport = failed(CUT, ALL, background=None)
    assert isinstance(error, llm.ConnectionCut)
    assert transport.questions == []
    assert "background" not in transport.bodies[0]


def test_an_answer_that_is_not_stored_is_not_begun() -> None:
    with pytest.raises(ValueError, match="background=True needs store"):
        answered(ALL, store=False)
    with pytest.raises(ValueError, match="background"):
        answered(ALL, extra={"background": True}, background=None)
    with pytest.raises(ValueError, match="background: not a parameter of the openai"):
        answered(ALL, model=llm.openai("m", base_url=URL, api_key=KEY))
    response, _ = answered(ALL, store=True)
    assert response.content == WHOLE


# -- what can't be had -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_refused_it_stays_cut(status: int) -> None:
    error, transport = failed(CUT, REFUSED | faults.status(status))
    assert isinstance(error, llm.ConnectionCut)
    assert len(transport.questions) == 1
    (note,) = error.__notes__
    assert f"not resumed: RefusedError: HTTP {status}" in note
    assert KEY not in note
    assert "the path or the model" not in note
    assert error.partial is not None
    assert error.partial.content == "Sea water "
    assert error.partial.id == "resp_1"


@pytest.mark.parametrize(
    "rest",
    [
        reply(*EVENTS[BEGUN + 1 :]),
        json_reply({"object": "response", "id": "resp_1", "status": "completed", "output": []}),
        reply(b"<html><p>no</p></html>", headers={"content-type": "text/html"}),
    ],
)
def test_what_does_not_follow_is_not_taken(rest: Reply) -> None:
    error, _ = failed(CUT, rest)
    assert isinstance(error, llm.ConnectionCut)
    assert "not resumed: ProtocolError: " in error.__notes__[0]
    assert error.partial is not None
    assert error.partial.content == "Sea water "


def test_a_failure_of_the_answer_itself_is_raised_as_it_is() -> None:
    down = sse({"type": "error", "sequence_number": 6, "code": "server_error", "message": "no"})
    error, transport = failed(CUT, reply(down))
    assert isinstance(error, llm.ProviderError)
    assert len(transport.questions) == 1


@pytest.mark.parametrize("events", [[], EVENTS[:1][:0]])
def test_before_its_id_came_it_is_as_any_other(events: list[bytes]) -> None:
    error, transport = failed(reply(*events, EVENTS[0][:-9], eof))
    assert isinstance(error, llm.ConnectionCut)
    assert (len(transport.requests), transport.questions) == (1, [])


def test_before_its_text_came_it_is_not_paid_for_twice() -> None:
    response, transport = answered(reply(*EVENTS[:2], eof), ALL)
    assert said(response) == ONCE
    assert (len(transport.requests), positions(transport)) == (1, ["1"])


def test_a_server_without_numbers_can_t_be_asked() -> None:
    events = [e.replace(b'"sequence_number"', b'"number"') for e in EVENTS]
    error, transport = failed(reply(*events[:BEGUN], eof), ALL)
    assert isinstance(error, llm.ConnectionCut)
    assert transport.questions == []


# -- again and again -------------------------------------------------------------------------------


def in_seconds(*replies: Any, **options: Any) -> float:
    """How long an answer takes that comes in the end."""

    async def main() -> float:
        transport = ScriptedTransport(*replies)
        async with llm.open_client(
            transport=transport, retry=options.pop("retry", QUICK)
        ) as client:
            response = await one(client, model(), **options)
        assert said(response) == ONCE
        return trio.current_time()

    seconds: float = run(main, IN_MEMORY)
    return seconds


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_a_server_that_has_no_time(status: int) -> None:
    busy = json_reply({"error": {"message": "busy"}}, status=status) | faults.status(
        status, retry_after=7
    )
    assert 14 <= in_seconds(CUT, busy, busy, ALL) < 15


def test_a_server_that_is_not_there() -> None:
    gone = Reply(error=httpx.ConnectError("no"))
    assert in_seconds(CUT, gone, gone, gone, ALL) < 1


def test_pauses_grow_until_something_new_comes() -> None:
    retry = llm.Retry(base_delay=1.0, max_delay=4.0, resumes=6)
    nothing = reply(eof)
    replies = [CUT, nothing, nothing, nothing, reply(EVENTS[BEGUN], eof), ALL]
    assert 0 < in_seconds(*replies, retry=retry) < 1 + 2 + 4 + 4 + 1


def test_no_more_often_than_is_allowed() -> None:
    nothing = reply(eof)
    for resumes in (0, 1, 3):
        retry = llm.Retry(base_delay=0.0, resumes=resumes, attempts=1)
        error, transport = failed(CUT, nothing, retry=retry)
        assert isinstance(error, llm.ConnectionCut)
        assert len(transport.questions) == resumes
        assert len(getattr(error, "__notes__", [])) == (resumes > 0)
    with pytest.raises(ValueError, match="resumes"):
        llm.Retry(resumes=-1)


def test_a_wait_that_is_too_long_is_not_begun() -> None:
    busy = json_reply({"error": {"message": "busy"}}, status=503) | faults.status(
        503, retry_after=61
    )
    error, transport = failed(CUT, busy)
    assert isinstance(error, llm.ConnectionCut)
    assert len(transport.questions) == 1


def test_a_server_that_cuts_behind_each_event_comes_to_an_end() -> None:
    events = responses_events(*["a"] * (2 * MOST_RESUMES))

    def each(request: ServedRequest) -> Reply:
        after = request.resumes
        return reply(events[0 if after is None else after + 1], eof)

    error, transport = failed(each)
    assert isinstance(error, llm.ConnectionCut)
    assert len(transport.questions) == MOST_RESUMES


# -- clocks ----------------------------------------------------------------------------------------


CLOCKS = llm.Timeouts(first_chunk=50, idle=20, byte_idle=None, total=None)


def test_silence_is_a_cut() -> None:
    assert 20 <= in_seconds(reply(*EVENTS[:BEGUN], hang), ALL, timeouts=CLOCKS) < 21


def test_silence_before_the_text_is_a_cut() -> None:
    assert 50 <= in_seconds(reply(*EVENTS[:2], hang), ALL, timeouts=CLOCKS) < 51


def test_silence_runs_anew_and_ends_it_the_second_time() -> None:
    async def main() -> tuple[float, int]:
        transport = ScriptedTransport(reply(*EVENTS[:BEGUN], hang), reply(hang))
        async with llm.open_client(transport=transport, retry=QUICK) as client:
            with pytest.raises(llm.StreamTimeout) as caught:
                await one(client, model(), timeouts=CLOCKS)
        assert caught.value.clock == "idle"
        return trio.current_time(), len(transport.questions)

    assert run(main, IN_MEMORY) == (pytest.approx(40, abs=1), 1)


def test_silence_ends_it_the_second_time_behind_a_cut_as_well() -> None:
    async def main() -> tuple[float, int]:
        transport = ScriptedTransport(CUT, reply(hang), reply(hang), ALL)
        async with llm.open_client(transport=transport, retry=QUICK) as client:
            with pytest.raises(llm.ConnectionCut) as caught:
                await one(client, model(), timeouts=CLOCKS)
        assert "StreamTimeout: clock 'idle'" in caught.value.__notes__[0]
        return trio.current_time(), len(transport.questions)

    assert run(main, IN_MEMORY) == (pytest.approx(40, abs=1), 2)


def test_silence_may_follow_upon_something_new() -> None:
    pieces = [reply(*EVENTS[:BEGUN], hang), reply(EVENTS[BEGUN], hang), ALL]
    assert 40 <= in_seconds(*pieces, timeouts=CLOCKS) < 41


def test_the_head_of_the_rest_may_not_be_late_for_ever() -> None:
    late = ALL | faults.late()
    assert 40 <= in_seconds(CUT, late, ALL, timeouts=CLOCKS) + 20 < 41


@pytest.mark.parametrize("rest", [reply(hang), ALL | faults.late(), REFUSED | faults.status(503)])
def test_the_total_clock_spans_all_of_it(rest: Reply) -> None:
    clocks = llm.Timeouts(first_chunk=None, idle=None, byte_idle=None, total=30)
    retry = llm.Retry(base_delay=100.0, max_delay=100.0, resumes=1000)

    async def main() -> float:
        transport = ScriptedTransport(reply(*EVENTS[:BEGUN], 10.0, eof), rest)
        async with llm.open_client(transport=transport, retry=retry) as client:
            with pytest.raises(llm.StreamError):
                await one(client, model(), timeouts=clocks)
        return trio.current_time()

    assert run(main, IN_MEMORY) <= 30.1


def test_timings_are_those_of_one_answer() -> None:
    first = reply(1.0, *EVENTS[:BEGUN], 2.0, eof) | faults.late(3.0)
    response, _ = answered(first, reply(5.0, *EVENTS[BEGUN:]))
    made = response.timings
    assert made.headers == pytest.approx(3, abs=0.1)
    assert made.first_chunk == pytest.approx(4, abs=0.1)
    assert made.last_chunk == pytest.approx(11, abs=0.1)
    assert made.total == pytest.approx(11, abs=0.1)
    assert (made.bytes, made.resumes) == (SIZE, 1)


# -- books -----------------------------------------------------------------------------------------


def test_it_is_one_generation() -> None:
    price = llm.TokenPrice(input=1, output=2)
    told: list[llm.CostRecord] = []

    async def on_cost(record: llm.CostRecord) -> None:
        told.append(record)

    async def main() -> llm.Ledger:
        first = CUT | (lambda r: msgspec.structs.replace(r, headers={"x-request-id": "r1"}))
        transport = ScriptedTransport(first, REFUSED | faults.status(500), ALL)
        async with llm.open_client(
            transport=transport, retry=QUICK, on_cost=on_cost, limits=llm.Limits(max_tokens=100)
        ) as client:
            await one(client, model(price=price))
            return client.ledger

    ledger = run(main, IN_MEMORY)
    (record,) = ledger.recent
    assert [each.key for each in told] == [record.key]
    assert (record.attempt, record.request_id, record.id) == (1, "r1", "resp_1")
    assert record.outcome is llm.Outcome.FINISHED
    assert record.usage is not None
    assert record.usage.completion_tokens == 4


def test_in_a_batch() -> None:
    async def main() -> list[Any]:
        transport = ScriptedTransport(CUT, ALL)
        async with llm.open_client(transport=transport) as client:
            request = BatchRequest("k", "Hi", params={"background": True})
            async with client.batch([request], model=model()) as results:
                return [result async for result in results]

    (result,) = run(main, IN_MEMORY)
    assert result.response.content == WHOLE
    assert result.response.timings.resumes == 1
    assert [attempt.timings.resumes for attempt in result.attempts] == [1]


def test_not_in_a_vendors_batch(tmp_path: Any) -> None:
    async def main() -> None:
        async with llm.open_client(transport=ScriptedTransport()) as client:
            request = BatchRequest("k", "Hi", params={"background": True})
            async with client.vendor_batch(
                [request], model=model(), journal=tmp_path / "j"
            ) as results:
                async for _ in results:
                    pass

    with pytest.raises(ValueError, match="background"):
        run(main, IN_MEMORY)


# -- leaving ---------------------------------------------------------------------------------------


async def by_break(stream: StreamingCompletion) -> None:
    pass


async def by_cancel(stream: StreamingCompletion) -> None:
    await stream.cancel()


async def by_aclose(stream: StreamingCompletion) -> None:
    await stream.aclose()


async def by_reject(stream: StreamingCompletion) -> None:
    stream.reject()


async def by_an_error(stream: StreamingCompletion) -> None:
    raise KeyError


LEAVING = [by_break, by_cancel, by_aclose, by_reject, by_an_error]


@pytest.mark.parametrize("leave", LEAVING)
def test_who_leaves_calls_it_off(leave: Callable[[Any], Awaitable[None]]) -> None:
    transport = ScriptedTransport(reply(*EVENTS[:BEGUN], hang))

    async def main() -> llm.Ledger:
        async with llm.open_client(transport=transport) as client:
            with suppress(KeyError):
                async with client.stream(model(), "Hi", background=True) as stream:
                    await take(stream, "Sea water ")
                    await leave(stream)
            assert stream.outcome is llm.Outcome.CANCELLED
            assert trio.current_time() < 0.1
            return client.ledger

    (record,) = run(main, IN_MEMORY).recent
    (question,) = transport.questions
    assert (question.method, question.url.path) == ("POST", "/v1/responses/resp_1/cancel")
    assert question.headers["authorization"] == f"Bearer {KEY}"
    assert question.content == b""
    assert record.rejected is (leave is by_reject)
    assert record.cost.resolution is llm.CostResolution.UNKNOWN
    assert transport.open_bodies == 0


@pytest.mark.parametrize("way", WAYS)
def test_who_is_cancelled_calls_it_off(way: str) -> None:
    transport = ScriptedTransport(reply(*EVENTS[:BEGUN], hang))

    async def main() -> None:
        async with llm.open_client(transport=transport) as client:
            with trio.move_on_after(5):
                await one(client, model(), way)

    run(main, IN_MEMORY)
    assert [q.method for q in transport.questions] == ["POST"]


@pytest.mark.parametrize("way", WAYS)
def test_who_is_cancelled_in_several_tasks_calls_it_off(way: str) -> None:
    """As a function of the program's may have them, or the dialling of a host with several addresses."""
    transport = ScriptedTransport(CUT, ALL)
    signed = 0

    async def sign(request: llm.RequestToSign) -> dict[str, str]:
        nonlocal signed
        signed += 1
        if signed == 2:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(trio.sleep_forever)
        return {"x-signature": f"{request.method}-{signed}"}

    async def main() -> None:
        async with llm.open_client(transport=transport, retry=QUICK) as client:
            with trio.move_on_after(5):
                await one(client, model(sign=sign), way)

    run(main, IN_MEMORY)
    assert [(q.method, q.url.path) for q in transport.questions] == [
        ("POST", "/v1/responses/resp_1/cancel")
    ]


@pytest.mark.parametrize("rest", [reply(hang), reply(hang) | faults.late(), REFUSED])
def test_a_server_that_does_not_listen_holds_nobody_up(rest: Reply) -> None:
    transport = ScriptedTransport(reply(*EVENTS[:BEGUN], hang), settlements=[rest])

    async def main() -> float:
        async with llm.open_client(transport=transport) as client:
            async with client.stream(model(), "Hi", background=True) as stream:
                await take(stream, "Sea water ")
            return trio.current_time()

    assert run(main, IN_MEMORY) <= CALL_OFF_SECONDS + 0.1
    assert transport.open_bodies == 0


@pytest.mark.parametrize("while_", ["waiting", "asking", "reading"])
def test_who_leaves_while_it_is_taken_up(while_: str) -> None:
    retry = llm.Retry(base_delay=1000.0, max_delay=1000.0) if while_ == "waiting" else QUICK
    rest = {"waiting": ALL, "asking": ALL | faults.late(), "reading": reply(hang)}[while_]
    transport = ScriptedTransport(CUT, rest)

    async def main() -> llm.Ledger:
        async with llm.open_client(transport=transport, retry=retry) as client:
            with trio.move_on_after(0.5):
                async with client.stream(model(), "Hi", background=True) as stream:
                    async for _ in stream:
                        pass
            assert stream.outcome is llm.Outcome.CANCELLED
            assert stream.response.content == "Sea water "
            return client.ledger

    (record,) = run(main, IN_MEMORY).recent
    assert (record.outcome, record.booked) == (llm.Outcome.CANCELLED, True)
    assert transport.questions[-1].url.path.endswith("/cancel")


def test_the_client_ends_before_the_stream() -> None:
    transport = llm.TrioTransport()

    async def read(client: llm.Client, url: str, begun: trio.Event) -> None:
        async with client.stream(model(url), "Hi", background=True) as stream:
            await take(stream, "Sea water ")
            begun.set()
            assert await stream.next_chunk() is None
        assert stream.outcome is llm.Outcome.CANCELLED

    async def main() -> None:
        async with serve(reply(*EVENTS[:BEGUN], hang)) as server, trio.open_nursery() as nursery:
            begun = trio.Event()
            async with transport, llm.open_client(transport=transport) as client:
                nursery.start_soon(read, client, server.base_url, begun)
                await begun.wait()

    run(main, ON_SOCKETS)


def test_a_whole_answer_is_not_called_off() -> None:
    transport = ScriptedTransport(reply(*EVENTS, hang))

    async def main() -> None:
        async with llm.open_client(transport=transport) as client:
            async with client.stream(model(), "Hi", background=True) as stream:
                await stream.collect()

    run(main, IN_MEMORY)
    assert transport.questions == []


def test_what_has_no_id_yet_can_t_be_called_off() -> None:
    transport = ScriptedTransport(reply(hang))

    async def main() -> None:
        async with llm.open_client(transport=transport) as client:
            with trio.move_on_after(5):
                await one(client, model())

    run(main, IN_MEMORY)
    assert transport.questions == []


def test_what_failed_is_left_to_its_caller() -> None:
    _, transport = failed(CUT, REFUSED)
    assert [q.method for q in transport.questions] == ["GET"]


# -- over sockets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_given_up_ends_then_and_not_when_it_was_cut(transport: str, way: str) -> None:
    slow = [step for event in EVENTS[:BEGUN] for step in (0.5, event)]
    busy = json_reply({"error": {"message": "busy"}}, status=503, headers={"retry-after": "20"})

    async def main() -> None:
        async with serve(reply(*slow, eof), busy, REFUSED) as server:
            async with client_over(transport, retry=QUICK) as client:
                began = trio.current_time()
                with pytest.raises(llm.ConnectionCut) as caught:
                    await one(client, model(server.base_url), way)
                assert caught.value.partial is not None
                total = caught.value.partial.timings.total
                assert total == pytest.approx(trio.current_time() - began, abs=0.5)
                assert total > 20

    run(main, ON_SOCKETS)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["eof", "reset", "half_close", "stall"])
def test_over_a_socket(transport: str, way: str, how: Any) -> None:
    slow = [step for event in EVENTS for step in (0.5, event)]
    at = sum(map(len, EVENTS[:BEGUN])) + 40
    cut = reply(*slow) | (faults.stall(at) if how == "stall" else faults.cut(at, how))

    async def main() -> llm.CompletionResponse:
        async with serve(cut, ALL) as server:
            async with client_over(transport, retry=QUICK) as client:
                response = await one(client, model(server.base_url), way)
                with trio.fail_after(5):
                    await server.left_with(1)
                return response

    response = run(main, ON_SOCKETS)
    assert said(response) == ONCE
    assert response.timings.resumes == 1


def test_a_slow_consumer_over_a_socket() -> None:
    words = ["x" * 50_000] * 40

    async def main() -> str:
        async with serve(answer(*words) | faults.cut(-90_000), answer(*words)) as server:
            async with client_over("ours", retry=QUICK) as client:
                text = ""
                options = {"background": True, "timeouts": llm.Timeouts(idle=5, byte_idle=5)}
                async with client.stream(model(server.base_url), "Hi", **options) as stream:
                    async for chunk in stream:
                        text += chunk.delta
                        await trio.sleep(2)
                return text

    assert run(main, ON_SOCKETS) == "".join(words)


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_step(way: str, autojump_clock: MockClock) -> None:
    async with serve(settlements=[json_reply({})]) as server:
        await _walk(server, way)


async def _walk(server: LoopbackServer, way: str) -> None:
    timeouts = llm.Timeouts(connect=None, first_chunk=None)  # names are looked up in real time
    for step in range(1, 1000):
        server.replies = (CUT, REFUSED | faults.status(503), ALL)
        server.requests.clear()
        server.questions.clear()
        transport = llm.TrioTransport()
        async with llm.open_client(transport=transport, retry=QUICK) as client:
            ask = partial(one, client, model(server.base_url), way, timeouts=timeouts)
            more = await cancelled_at(step, ask)
            now = transport.statistics()
            assert (now.active, now.waiting) == (0, 0)
            outcomes = [record.outcome for record in client.ledger.recent]
            called_off = any(q.path.endswith("/cancel") for q in server.questions)
            assert len(outcomes) <= 1
            assert not called_off or outcomes == [llm.Outcome.CANCELLED]
        await transport.aclose()
        await server.left_with(0)
        if not more:
            assert outcomes == [llm.Outcome.FINISHED]
            return
    raise AssertionError


# -- other wires -----------------------------------------------------------------------------------


class WayBack(Continuation):
    """The way back to an answer of chat completions whose events are numbered."""

    def position_in(self, data: bytes) -> int | None:
        found = re.search(rb'"n":(\d+)', data)
        return None if found is None else int(found[1])

    def resume_request(self, response_id: str, position: int) -> FollowUp:
        body = b'{"after":%d,"stream":true}' % position
        return FollowUp(url=f"{URL}/again/{response_id}", method="PUT", body=body)


class Numbered(OpenAIChat):
    """A wire of a program's own, whose pieces of text differ in nothing else, or in a number."""

    def continuation(self, request: llm.Request) -> Continuation | None:
        return WayBack()


NUMBERED = [
    event.replace(b'"id":', b'"n":%d,"id":' % number)
    for number, event in enumerate(openai_events(*"abcdefghij", done=False))
]


@pytest.mark.parametrize("at", range(1, len(NUMBERED) - 1))
@pytest.mark.parametrize("way", WAYS)
def test_a_wire_of_ones_own(way: str, at: int) -> None:
    made = msgspec.structs.replace(llm.openai("m", base_url=URL, api_key=KEY), provider=Numbered())
    first, rest = reply(b"".join(NUMBERED[:at]), eof), reply(*NUMBERED[at - 1 :])
    response, transport = answered(first, rest, model=made, way=way, background=None)
    assert (response.content, response.finish_reason) == ("abcdefghij", "stop")
    assert response.usage is not None
    _, again = transport.requests
    assert (again.method, again.url.path) == ("PUT", "/v1/again/chatcmpl-1")
    assert json.loads(again.content)["after"] == at - 1


def test_a_failure_behind_the_finish_reason_is_no_cut() -> None:
    """The cut before it is over and done with: an answer that was resumed fails as any other does."""
    made = msgspec.structs.replace(llm.openai("m", base_url=URL, api_key=KEY), provider=Numbered())
    reason = next(number for number, e in enumerate(NUMBERED) if b'"stop"' in e)
    failure = sse({"error": {"message": "no disk", "code": "server_error"}, "n": reason + 1})
    first, rest = reply(*NUMBERED[:5], eof), reply(*NUMBERED[5 : reason + 1], failure)
    error, _ = failed(first, rest, model=made, background=None)
    assert isinstance(error, llm.ProviderError)
    assert not hasattr(error, "__notes__")


def test_a_wire_of_ones_own_without_a_way_to_call_it_off() -> None:
    made = msgspec.structs.replace(llm.openai("m", base_url=URL, api_key=KEY), provider=Numbered())
    transport = ScriptedTransport(reply(*NUMBERED[:5], hang))

    async def main() -> None:
        async with llm.open_client(transport=transport) as client:
            async with client.stream(made, "Hi") as stream:
                await take(stream, "abcd")

    run(main, IN_MEMORY)
    assert len(transport.requests) == 1


def test_other_wires_have_no_way_back() -> None:
    asked = llm.Request(
        model=llm.openai("m", api_key=KEY), messages=(llm.user("Hi"),), params={}, extra={}
    )
    assert asked.model.provider.continuation(asked) is None
    response, _ = answered(
        reply(*openai_events("a")),
        model=llm.openai("m", base_url=URL, api_key=KEY),
        background=None,
    )
    assert response.content == "a"
