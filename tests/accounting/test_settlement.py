"""Asking the provider, after the fact, what a generation cost: the waiting, the answers, resuming."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from collections import Counter
from decimal import Decimal

import httpx
import msgspec
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import CostResolution, Outcome, Timeouts
from trio_minillm._accounting.settlement import ASKING_AT_ONCE, MODELS_KEPT, SettlementClient
from trio_minillm.providers.openrouter import OpenRouter
from trio_minillm.testing import ScriptedTransport, hang, reply, settlement, sse

from ..support.streams import Told, take
from ..support.wires import KEY, URL, Spent, begin, end, model_on

JSON = {"content-type": "application/json"}
NOT_YET = reply(b'{"error":{"code":404}}', status=404, headers=JSON)
ANSWER = settlement(0.7)
OPEN = reply(*begin("openrouter"), hang)


def said(body, **options):
    """An answer with this body, JSON or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return reply(data, **{"headers": JSON, **options})


def slow(answer, seconds):
    """The same, with the body held back."""
    return reply(seconds, *answer.steps, headers=JSON)


async def cancelled(*settlements, model=None, answer=OPEN, timeouts=None, **options):
    """One cancelled stream: its record, what was told and when it was settled, the transport."""
    transport = Clocked(answer, settlements=settlements)
    told = Told()
    start = trio.current_time()
    async with llm.open_client(
        transport=transport, on_cost=told, timeouts=timeouts, **options
    ) as client:
        async with client.stream(model or model_on("openrouter"), "Hi", meta="m") as stream:
            await take(stream, "a")
            await trio.testing.wait_all_tasks_blocked()
    (record,) = told.records
    assert transport.open_bodies == 0
    assert client.ledger.attempts == 1
    assert stream.records == (record,)
    open_ids = [r.id for r in client.ledger.unsettled]
    assert open_ids == ([record.id] if record.unsettled else [])
    return record, trio.current_time() - start, transport


class Clocked(ScriptedTransport):
    """Knows when each question came."""

    def __init__(self, *replies, **options):
        super().__init__(*replies, **options)
        self.asked_at = []

    async def handle_async_request(self, request):
        if request.method == "GET":
            self.asked_at.append(trio.current_time())
        return await super().handle_async_request(request)


def is_unknown(record):
    assert (record.resolution, record.amount) == (CostResolution.UNKNOWN, None)
    assert (record.id, record.unsettled, record.booked) == ("gen-1", True, True)
    return True


# -- the waiting ---------------------------------------------------------------------------------


async def test_it_is_asked_until_there_is_an_answer(autojump_clock):
    record, took, transport = await cancelled(*[NOT_YET] * 9, ANSWER)
    assert (record.amount, record.resolution) == (Decimal("0.7"), CostResolution.RESOLVED)
    assert (record.outcome, record.meta, record.unsettled) == (Outcome.CANCELLED, "m", False)
    assert len(transport.questions) == 10
    waits = [b - a for a, b in zip(transport.asked_at, transport.asked_at[1:], strict=False)]
    assert waits == sorted(waits), "no more often than before"
    assert 0 < min(waits) <= max(waits) <= 2
    assert took < 20


async def test_a_provider_that_takes_eighteen_seconds_is_in_time(autojump_clock):
    """Check that a cost is waited for as long as the Rust original measured after a cancel."""

    class Eventual(Clocked):
        async def handle_async_request(self, request):
            self.settlements = (ANSWER if trio.current_time() >= 18 else NOT_YET,)
            return await super().handle_async_request(request)

    transport = Eventual(OPEN)
    async with llm.open_client(transport=transport) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
            assert (await stream.cancel()).cost.amount == Decimal("0.7")
    assert 18 <= trio.current_time() < 20.5


@pytest.mark.parametrize(
    ("timeouts", "seconds"),
    [(None, 30), (Timeouts(settlement=5), 5), (Timeouts(settlement=0.1), 0.1)],
)
async def test_after_its_clock_the_cost_stays_unknown(timeouts, seconds, autojump_clock):
    record, took, transport = await cancelled(timeouts=timeouts)
    assert is_unknown(record)
    assert took == pytest.approx(seconds, abs=2)
    assert took <= seconds
    assert transport.questions


async def test_without_the_clock_nobody_is_asked(autojump_clock):
    record, took, transport = await cancelled(ANSWER, timeouts=Timeouts(settlement=None))
    assert is_unknown(record)
    assert (took, transport.questions) == (0, [])


async def test_the_clock_can_be_set_per_call(autojump_clock):
    transport = ScriptedTransport(OPEN, settlements=[slow(ANSWER, 3.0)])
    async with llm.open_client(transport=transport) as client:
        for settle, amount in ((2, None), (4, Decimal("0.7"))):
            async with client.stream(
                model_on("openrouter"), "Hi", timeouts=Timeouts(settlement=settle)
            ) as stream:
                await take(stream, "a")
                response = await stream.cancel()
            assert response.cost.amount == amount


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -1, True, "5"])
def test_a_clock_without_an_end_is_refused(bad):
    with pytest.raises(ValueError, match="settlement"):
        Timeouts(settlement=bad)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
async def test_a_busy_server_is_asked_again_when_it_says(status, autojump_clock):
    later = said({}, status=status, headers={"retry-after": "7"})
    record, took, transport = await cancelled(later, ANSWER)
    assert record.amount == Decimal("0.7")
    assert took == 7
    assert len(transport.questions) == 2


async def test_a_wait_that_outlasts_the_clock_is_not_begun(autojump_clock):
    later = said({}, status=503, headers={"retry-after": "3600"})
    record, took, transport = await cancelled(later, ANSWER)
    assert is_unknown(record)
    assert (took, len(transport.questions)) == (0, 1)


async def test_a_server_that_says_now_is_not_asked_all_the_time(autojump_clock):
    later = said({}, status=429, headers={"retry-after": "0"})
    _, _, transport = await cancelled(later)
    assert len(transport.questions) < 30


@pytest.mark.parametrize("status", [400, 401, 402, 403, 405, 410, 301, 302, 307, 304])
async def test_a_refusal_that_will_not_change_ends_it(status, autojump_clock):
    headers = {"location": "http://elsewhere.invalid/"} if status < 400 else JSON
    record, took, transport = await cancelled(said({}, status=status, headers=headers), ANSWER)
    assert is_unknown(record)
    assert (took, len(transport.questions)) == (0, 1)


# -- answers that are none -----------------------------------------------------------------------

SILENCE = {
    "no connection": reply(error=httpx.ConnectError("no")),
    "a foreign error": reply(error=OSError("no")),
    "cut in the headers": reply(error=httpx.RemoteProtocolError("Server disconnected")),
    "no headers": reply(wait=hang),
    "no body": reply(hang, headers=JSON),
    "half a body": reply(b'{"data":', hang, headers=JSON),
    "a server that fails": said({"error": {"code": 500, "message": "no"}}, status=500),
    "no cost yet": settlement(None),
    "no cost": said({"data": {"native_tokens_prompt": 1}}),
    "a cost that is no number": settlement("unknown"),
    "a negative cost": settlement(-0.5),
    "a cost that is true": settlement(True),
    "an absurd cost": settlement(1e15),
    "no data": said({}),
    "data is null": said({"data": None}),
    "an error in it": said({"error": {"code": 500, "message": "no"}}),
}
NONSENSE = {
    "no HTTP": reply(error=httpx.RemoteProtocolError("illegal status line")),
    "cut in the body": reply(b'{"data":{"total', OSError("cut"), headers=JSON),
    "cut short": said(b'{"data":{"total_cost":0.5'),
    "empty": reply(headers=JSON),
    "not JSON": said(b"<html>"),
    "not UTF-8": said(b'{"data":{"total_cost":0.5,"id":"\xff"}}'),
    "a list": said([]),
    "null": said(None),
    "data of another type": said({"data": [1]}),
    "a cost that is not finite": said(b'{"data":{"total_cost":1e999}}'),
    "more than 64 KiB": settlement(0.5, padding="x" * 70_000),
    "too deep": said(b'{"data":' + b"[" * 60_000),
    "compressed in a strange way": said(b"\x8b\x00\x80{}\x03", headers={"content-encoding": "br"}),
}
BAD = SILENCE | NONSENSE


def each(answers):
    return pytest.mark.parametrize("bad", answers.values(), ids=answers)


@each(BAD)
async def test_after_an_answer_that_is_none_it_is_asked_again(bad, autojump_clock, caplog):
    record, took, transport = await cancelled(bad, bad, ANSWER)
    assert record.amount == Decimal("0.7")
    assert record.usage.total_tokens == 12, "nothing of the others is in it"
    assert len(transport.questions) == 3
    assert took < 25
    assert caplog.records == []


@each(SILENCE)
async def test_if_no_better_one_comes_the_cost_stays_unknown(bad, autojump_clock):
    record, took, transport = await cancelled(bad)
    assert is_unknown(record)
    assert record.usage is None
    assert 27 < took <= 30
    assert 3 <= len(transport.questions) < 30


@each(NONSENSE)
async def test_who_only_talks_nonsense_is_not_asked_for_ever(bad, autojump_clock):
    record, took, transport = await cancelled(bad)
    assert is_unknown(record)
    assert record.usage is None
    assert 3 <= len(transport.questions) <= 10
    assert took < 20


@pytest.mark.parametrize(
    ("cost", "amount"),
    [
        (0, "0"),
        (0.1, "0.1"),
        ("0.1", "0.1"),
        (1e-7, "0.0000001"),
        (0.00012345678901234, "0.00012345678901234"),
        (12, "12"),
    ],
)
async def test_the_answer_is_taken_digit_by_digit(cost, amount, autojump_clock):
    """Zero is an answer, too, if the provider says so."""
    record, _, _ = await cancelled(settlement(cost))
    assert (record.amount, record.resolution) == (Decimal(amount), CostResolution.RESOLVED)


async def test_what_the_answer_does_not_say_stays_unsaid(autojump_clock):
    record, _, _ = await cancelled(said({"data": {"total_cost": 0.7}}))
    assert record.amount == Decimal("0.7")
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (None, None)


async def test_the_answer_takes_the_place_of_a_lower_bound(autojump_clock):
    running = reply(*begin("openrouter", Spent(3, 1, cost=0.2)), hang)
    record, _, _ = await cancelled(ANSWER, answer=running)
    assert (record.amount, record.resolution) == (Decimal("0.7"), CostResolution.RESOLVED)
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (7, 5), "not added up"
    record, _, _ = await cancelled(answer=running)
    assert (record.amount, record.resolution) == (Decimal("0.2"), CostResolution.LOWER_BOUND)
    assert record.unsettled


@pytest.mark.parametrize("stays", [True, False])
async def test_a_finished_answer_without_usage_is_asked_for_too(stays, autojump_clock):
    """As long as the client lasts: nobody cancelled, so nobody expects to wait at its end."""
    told = Told()
    transport = ScriptedTransport(
        reply(*begin("openrouter"), *end("openrouter")),
        settlements=[NOT_YET, slow(ANSWER, 3.0)],
    )
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            response = await stream.collect()
            assert response.cost == llm.CostInfo()
        assert trio.current_time() == 0, "leaving is not slow"
        assert (response.outcome, response.usage) == (Outcome.FINISHED, None)
        await trio.sleep(20 if stays else 1)
    amount = Decimal("0.7") if stays else None
    assert trio.current_time() == (20 if stays else 1)
    assert [(r.outcome, r.amount) for r in told.records] == [(Outcome.FINISHED, amount)]
    assert [r.id for r in client.ledger.unsettled] == ([] if stays else ["gen-1"])
    assert stream.response.cost.amount == amount
    assert transport.open_bodies == 0


# -- the question --------------------------------------------------------------------------------


def with_headers(**headers):
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return reply(*begin("openrouter"), hang, headers={"content-type": "text/event-stream", **named})


async def test_the_id_of_the_header_wins(autojump_clock):
    record, _, transport = await cancelled(ANSWER, answer=with_headers(x_generation_id="gen-head"))
    assert record.id == "gen-head"
    assert transport.questions[0].url.params["id"] == "gen-head"


async def test_without_the_header_it_is_the_first_chunks(autojump_clock):
    chunks = [*begin("openrouter", id="gen-a"), *begin("openrouter", id="gen-b")]
    record, _, transport = await cancelled(ANSWER, answer=reply(*chunks, hang))
    assert (record.id, transport.questions[0].url.params["id"]) == ("gen-a", "gen-a")


@pytest.mark.parametrize(
    "ident", ["gen 1", "a/b", "a&b=c#d?e", "../../credits", "ä€", "%2e%2e", "+"]
)
async def test_the_id_is_quoted(ident, autojump_clock):
    record, _, transport = await cancelled(
        ANSWER, answer=reply(*begin("openrouter", id=ident), hang)
    )
    (question,) = transport.questions
    assert record.id == ident
    assert question.url.path == "/api/v1/generation"
    assert question.url.params.multi_items() == [("id", ident)]
    assert question.url.raw_path.isascii()


@pytest.mark.parametrize("base", [URL, URL + "/"])
async def test_it_goes_to_the_same_address_with_the_same_key(base, autojump_clock):
    model = model_on("openrouter", base_url=base, headers={"X-Tenant": "t-1"})
    _, _, transport = await cancelled(ANSWER, model=model)
    (question,), (request,) = transport.questions, transport.requests
    assert (question.method, str(question.url)) == ("GET", f"{URL}/generation?id=gen-1")
    assert question.headers["authorization"] == f"Bearer {KEY}"
    assert question.headers["x-tenant"] == "t-1"
    assert question.headers["user-agent"] == request.headers["user-agent"]
    assert "json" in question.headers["accept"]
    assert question.content == b""


async def test_the_calls_own_headers_go_along(autojump_clock):
    transport = ScriptedTransport(OPEN, settlements=[ANSWER])
    model = model_on("openrouter", headers={"x-tenant": "t-1", "x-org": "o-1"})
    async with llm.open_client(transport=transport) as client:
        async with client.stream(model, "Hi", headers={"x-tenant": "t-2"}) as stream:
            await take(stream, "a")
    (question,) = transport.questions
    assert (question.headers["x-tenant"], question.headers["x-org"]) == ("t-2", "o-1")


async def test_each_stream_is_asked_for_with_its_own_key(autojump_clock):
    transport = ScriptedTransport(
        *[reply(*begin("openrouter", id=f"gen-{n}"), hang) for n in range(3)],
        settlements=[ANSWER],
    )
    async with llm.open_client(transport=transport) as client:
        for number in range(3):
            model = model_on("openrouter", api_key=f"key-{number}")
            async with client.stream(model, "Hi") as stream:
                await take(stream, "a")
    keys = {q.url.params["id"]: q.headers["authorization"] for q in transport.questions}
    assert keys == {f"gen-{n}": f"Bearer key-{n}" for n in range(3)}


async def test_nobody_is_asked_about_what_is_not_booked_or_has_no_id(autojump_clock):
    transport = ScriptedTransport(
        reply(wait=hang), OPEN, reply(*begin("openrouter")), settlements=[ANSWER]
    )
    told = Told()
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(model_on("openrouter"), "Hi"):
            await trio.testing.wait_all_tasks_blocked()  # not even headers
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
            stream.reject()
        with pytest.raises(llm.EndedEarly):
            await client.complete(model_on("openrouter"), "Hi")
    assert transport.questions == []
    assert client.ledger.unsettled == ()
    assert [(r.resolution, r.unsettled) for r in told.records] == [(CostResolution.UNKNOWN, False)]


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_wires_that_can_not_be_asked_are_not(wire, autojump_clock):
    transport = ScriptedTransport(reply(*begin(wire), hang), settlements=[ANSWER])
    async with llm.open_client(transport=transport) as client:
        async with client.stream(model_on(wire), "Hi") as stream:
            await take(stream, "a")
            response = await stream.cancel()
    assert response.cost.resolution is CostResolution.UNKNOWN
    assert (transport.questions, client.ledger.unsettled) == ([], ())


async def test_over_real_sockets():
    """The question is HTTP that a server understands, and its connection is used again."""
    heads, connections = [], []

    async def serve(stream):
        connections.append(stream)
        received = b""
        while data := await stream.receive_some():
            received += data
            while b"\r\n\r\n" in received:
                head, _, rest = received.partition(b"\r\n\r\n")
                lines = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:])
                length = int(lines.get(b"content-length", 0))
                if len(rest) < length:
                    break
                received = rest[length:]
                heads.append((head.splitlines()[0], lines))
                if head.startswith(b"POST"):
                    kind, body = b"text/event-stream", b"".join(begin("openrouter"))
                    more = b"content-length: 99999"  # the rest never comes
                else:
                    kind, body = b"application/json", b'{"data":{"total_cost":0.7}}'
                    more = b"content-length: %d" % len(body)
                start = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n" % (kind, more)
                await stream.send_all(start + body)

    async with trio.open_nursery() as nursery:
        serving = functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serving)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/api/v1"
        with trio.fail_after(10):
            async with llm.open_client() as client:
                for _ in range(3):
                    model = model_on("openrouter", base_url=url)
                    async with client.stream(model, "Hi") as stream:
                        await take(stream, "abc")
                        response = await stream.cancel()
                        assert response.cost.amount == Decimal("0.7")
        nursery.cancel_scope.cancel()
    assert client.ledger.total == Decimal("2.1")
    asked = [
        lines for first, lines in heads if first == b"GET /api/v1/generation?id=gen-1 HTTP/1.1"
    ]
    assert [lines[b"authorization"] for lines in asked] == [b"bearer " + KEY.encode()] * 3
    assert len(heads) == 6
    assert len(connections) == 4, "three were cut, and each answer's was used for the next"


# -- settle --------------------------------------------------------------------------------------

UNASKED = Timeouts(settlement=None)


class Left:
    """A client with streams that were left and not asked for; ids ``gen-0`` …"""

    def __init__(self, streams=1, *, settlements=(ANSWER,), ledger=None, **options):
        self.transport = Clocked(
            *[reply(*begin("openrouter", id=f"gen-{n}"), hang) for n in range(streams)],
            settlements=settlements,
        )
        self.told = Told()
        self.streams = []
        self._count = streams
        self._opening = llm.open_client(
            transport=self.transport,
            on_cost=self.told,
            timeouts=UNASKED,
            ledger=ledger,
            **options,
        )

    async def __aenter__(self):
        self.client = await self._opening.__aenter__()
        for number in range(self._count):
            async with self.client.stream(
                model_on("openrouter"), "Hi", meta={"number": number}
            ) as stream:
                await take(stream, "a")
            self.streams.append(stream)
        assert self.transport.questions == []
        assert len(self.client.ledger.unsettled) == self._count
        return self

    async def __aexit__(self, *exc):
        return await self._opening.__aexit__(*exc)

    @property
    def ledger(self):
        return self.client.ledger

    async def settle(self, *args, seconds=30, **options):
        return await self.client.settle(*args, timeouts=Timeouts(settlement=seconds), **options)

    def ids(self):
        return [q.url.params["id"] for q in self.transport.questions]


async def test_settle_settles_all(autojump_clock):
    async with Left(3) as left:
        records = await left.settle()
        assert [r.id for r in records] == ["gen-0", "gen-1", "gen-2"]
        assert [r.meta["number"] for r in records] == [0, 1, 2]
        assert {(r.amount, r.unsettled, r.booked) for r in records} == {
            (Decimal("0.7"), False, True)
        }
        assert left.ledger.unsettled == ()
        assert (left.ledger.attempts, left.ledger.total) == (3, Decimal("2.1"))
        assert left.ledger.resolutions == {CostResolution.RESOLVED: 3}
        assert left.ledger.by_meta("number")[1].total == Decimal("0.7")
        assert await left.settle() == []
    assert len(left.transport.questions) == 3
    assert [r.resolution for r in left.told.records] == [CostResolution.UNKNOWN] * 3, "told before"


async def test_settle_by_id_and_by_record(autojump_clock):
    async with Left(4) as left:
        (by_id,) = await left.settle(["gen-2"])
        assert (by_id.id, by_id.meta, by_id.amount) == ("gen-2", {"number": 2}, Decimal("0.7"))
        assert [r.id for r in left.ledger.unsettled] == ["gen-0", "gen-1", "gen-3"]
        (by_record,) = await left.settle([left.ledger.unsettled[1]])
        assert by_record.id == "gen-1"
        three, zero = await left.settle(iter(["gen-3", left.ledger.unsettled[0]]))
        assert (three.id, zero.id) == ("gen-3", "gen-0"), "in the order that was given"
        assert left.ids()[:2] == ["gen-2", "gen-1"]
        assert Counter(left.ids()) == {f"gen-{n}": 1 for n in range(4)}
        assert left.ledger.total == Decimal("2.8")
        assert await left.settle([]) == []


async def test_settle_refuses_one_string():
    async with Left() as left:
        with pytest.raises(TypeError, match="several"):
            await left.settle("gen-0")
        with pytest.raises(TypeError, match="timeouts"):
            await left.client.settle(timeouts=3)


async def test_what_settle_can_not_settle_stays_unsettled(autojump_clock):
    async with Left(settlements=[NOT_YET]) as left:
        start = trio.current_time()
        (record,) = await left.settle(seconds=5)
        assert 3 < trio.current_time() - start <= 5
        assert (record.resolution, record.unsettled) == (CostResolution.UNKNOWN, True)
        assert left.ledger.unsettled == (record,)
        left.transport.settlements = (ANSWER,)
        (record,) = await left.settle()
        assert (record.amount, left.ledger.total) == (Decimal("0.7"), Decimal("0.7"))
    assert left.ledger.attempts == len(left.told.records) == 1


async def test_settle_without_a_clock_asks_nobody(autojump_clock):
    async with Left() as left:
        (record,) = await left.settle(seconds=None)
        assert record.unsettled
        assert left.transport.questions == []


async def test_an_id_that_is_in_the_books_is_not_booked_again(autojump_clock):
    """Finished, rejected and truncated attempts are there under their ids, and stay as they are."""
    spent = Spent(7, 5, cost=0.5)
    replies = [
        reply(*begin("openrouter"), *end("openrouter", spent)),
        reply(*begin("openrouter", id="gen-2"), hang),
        reply(*begin("openrouter", id="gen-3")),
    ]
    transport = ScriptedTransport(*replies, settlements=[ANSWER])
    async with llm.open_client(transport=transport) as client:
        await client.complete(model_on("openrouter"), "Hi")
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
            stream.reject()
        with pytest.raises(llm.StreamTruncated):
            await client.complete(model_on("openrouter"), "Hi")
        before = client.ledger.totals
        records = await client.settle(["gen-1", "gen-2", "gen-3"])
        assert [r.outcome for r in records] == ["finished", "cancelled", "truncated"]
        assert client.ledger.totals == before
        assert transport.questions == []


async def test_settle_is_a_checkpoint():
    async with llm.open_client(transport=ScriptedTransport()) as client:
        with trio.testing.assert_checkpoints():
            assert await client.settle() == []


async def test_what_is_settled_is_neither_asked_nor_counted_again(autojump_clock):
    async with Left() as left:
        (unsettled,) = left.ledger.unsettled
        (settled,) = await left.settle()
        asked = len(left.transport.questions)
        assert await left.settle([settled]) == [settled]
        assert len(left.transport.questions) == asked
        for again in (["gen-0"], [unsettled], ["gen-0", "gen-0"], left.streams[0].records):
            records = await left.settle(again)
            assert {r.amount for r in records} == {Decimal("0.7")}
            assert (left.ledger.attempts, left.ledger.total) == (1, Decimal("0.7"))
        assert left.ledger.unsettled == ()


@pytest.mark.parametrize("what", ["id", "record", "both"])
async def test_the_same_attempt_twice_in_a_call_is_counted_once(what, autojump_clock):
    async with Left() as left:
        (record,) = left.ledger.unsettled
        twice = {"id": ["gen-0"] * 2, "record": [record] * 2, "both": ["gen-0", record]}[what]
        first, second = await left.settle(twice)
        assert first.key == second.key == record.key
        assert (first.amount, second.amount) == (Decimal("0.7"),) * 2
        assert (left.ledger.attempts, left.ledger.total) == (1, Decimal("0.7"))


async def test_several_that_settle_at_once_count_once(autojump_clock):
    async with Left(2, settlements=[slow(ANSWER, 2.0)]) as left:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(left.settle)
        assert (left.ledger.attempts, left.ledger.total) == (2, Decimal("1.4"))
        assert left.ledger.unsettled == ()


async def test_settle_while_the_client_itself_is_asking(autojump_clock):
    told = Told()
    transport = ScriptedTransport(OPEN, settlements=[NOT_YET, slow(ANSWER, 2.0)])
    async with llm.open_client(
        transport=transport, on_cost=told, limits=llm.Limits(max_cost=Decimal("1.3"))
    ) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
        (record,) = await client.settle()
        assert record.amount == Decimal("0.7")
        await trio.sleep(20)
        assert (client.ledger.attempts, client.ledger.total) == (1, Decimal("0.7"))
        assert [(r.key, r.amount) for r in told.records] == [(record.key, Decimal("0.7"))]
        async with client.stream(model_on("openrouter"), "Hi") as second:
            await take(second, "a")  # 0.7 are spent and not 1.4
    assert stream.response.cost.amount == Decimal("0.7")
    assert len(told.records) == 2


async def test_an_answer_that_settle_got_is_everybodys(autojump_clock):
    """The client itself was told: not yet. Then callback, stream and ledger say the same."""
    told = Told()
    transport = ScriptedTransport(OPEN, settlements=[NOT_YET, ANSWER, NOT_YET])
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert len(transport.questions) == 1
        (record,) = await client.settle()
        assert record.amount == Decimal("0.7")
    assert [(r.key, r.amount) for r in told.records] == [(record.key, Decimal("0.7"))]
    assert stream.records == (record,)
    assert stream.response.cost == record.cost
    assert trio.current_time() < 5, "and nobody asks on"


async def test_a_callback_may_settle(autojump_clock):
    """It is told ``unknown``, and has a way to ask for longer."""
    settled = []

    async def on_cost(record):
        if record.unsettled:
            settled.extend(await client.settle([record], timeouts=Timeouts(settlement=20)))

    transport = ScriptedTransport(OPEN, settlements=[*[NOT_YET] * 8, ANSWER])
    async with llm.open_client(
        transport=transport, on_cost=on_cost, timeouts=Timeouts(settlement=2)
    ) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
    assert [r.amount for r in settled] == [Decimal("0.7")]
    assert (client.ledger.attempts, client.ledger.total) == (1, Decimal("0.7"))
    assert client.ledger.unsettled == ()


async def test_a_cancelled_settle_loses_nothing(autojump_clock):
    async with Left(2, settlements=[ANSWER, NOT_YET]) as left:
        with trio.move_on_after(3) as scope:
            await left.settle()
        assert scope.cancelled_caught
        assert len(left.ledger.unsettled) == 1
        assert left.ledger.total == Decimal("0.7")
        left.transport.settlements = (ANSWER,)
        await left.settle()
        assert left.ledger.total == Decimal("1.4")
    assert left.transport.open_bodies == 0


async def test_settle_cancelled_at_every_step(autojump_clock):
    """Whatever was cancelled: the ledger is right, and what is missing can be settled later."""
    for steps in range(60):
        async with Left(2, settlements=[NOT_YET, ANSWER]) as left:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.settle)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            missing = len(left.ledger.unsettled)
            assert left.ledger.total == Decimal("0.7") * (2 - missing)
            await left.settle()
            assert (left.ledger.attempts, left.ledger.total) == (2, Decimal("1.4"))
        assert left.transport.open_bodies == 0


# -- settle in another client --------------------------------------------------------------------


async def test_settle_in_another_client_needs_a_model(autojump_clock):
    ledger = llm.Ledger()
    async with Left(2, ledger=ledger):
        pass
    transport = ScriptedTransport(settlements=[ANSWER])
    async with llm.open_client(transport=transport, ledger=ledger) as client:
        for ids in (None, ["gen-0"], ledger.unsettled, ["gen-unknown"]):
            with pytest.raises(ValueError, match="model="):
                await client.settle(ids)
        assert transport.questions == []
        assert (ledger.attempts, len(ledger.unsettled)) == (2, 2)
        model = model_on("openrouter", api_key="another-key")
        records = await client.settle(model=model)
        assert [r.amount for r in records] == [Decimal("0.7")] * 2
        assert {q.headers["authorization"] for q in transport.questions} == {"Bearer another-key"}
    assert (ledger.attempts, ledger.total, ledger.unsettled) == (2, Decimal("1.4"), ())


async def test_settle_takes_a_model_that_the_client_has_used_at_that_address(autojump_clock):
    ledger = llm.Ledger()
    async with Left(ledger=ledger):
        pass
    answer = reply(*begin("openrouter"), *end("openrouter", Spent(1, 1, cost=0.1)))
    transport = ScriptedTransport(answer, settlements=[ANSWER])
    async with llm.open_client(transport=transport, ledger=ledger) as client:
        elsewhere = model_on("openrouter", base_url="http://elsewhere.invalid", api_key="key-2")
        await client.complete(elsewhere, "Hi")
        await client.complete(model_on("openai"), "Hi")
        with pytest.raises(ValueError, match="model="):
            await client.settle()  # a key is not sent to an address that it was not given for
        await client.complete(model_on("openrouter", api_key="key-3"), "Hi")
        await client.settle()
    (question,) = transport.questions
    assert question.headers["authorization"] == "Bearer key-3"
    assert str(question.url).startswith(URL)
    assert ledger.unsettled == ()


async def test_an_id_that_is_in_no_ledger_of_ours(autojump_clock):
    transport = ScriptedTransport(settlements=[NOT_YET, ANSWER])
    told = Told()
    async with llm.open_client(transport=transport, on_cost=told) as client:
        for _ in range(2):
            records = await client.settle(["gen-1", "gen-1"], model=model_on("openrouter"))
            assert {(r.id, r.amount, r.booked) for r in records} == {
                ("gen-1", Decimal("0.7"), True)
            }
            assert {(r.model, r.provider, r.base_url) for r in records} == {
                ("a/b", "openrouter", URL)
            }
            assert (client.ledger.attempts, client.ledger.total) == (1, Decimal("0.7"))
    assert told.records == []


async def test_an_unknown_id_without_an_answer_can_be_resumed(autojump_clock):
    transport = ScriptedTransport(settlements=[NOT_YET])
    async with llm.open_client(transport=transport) as client:
        (record,) = await client.settle(["gen-1"], model=model_on("openrouter"))
        assert (record.resolution, record.unsettled) == (CostResolution.UNKNOWN, True)
        assert client.ledger.total == 0
        transport.settlements = (ANSWER,)
        (record,) = await client.settle([record], model=model_on("openrouter"))
        assert record.amount == client.ledger.total == Decimal("0.7")
        assert client.ledger.attempts == 1


async def test_what_is_no_question_is_refused_and_leaves_no_trace(autojump_clock):
    ledger = llm.Ledger()
    async with Left(ledger=ledger):
        pass
    before = ledger.totals
    async with llm.open_client(transport=ScriptedTransport(), ledger=ledger) as client:
        with pytest.raises(ValueError, match="needs model"):
            await client.settle(model=model_on("openai"))
        with pytest.raises(ValueError, match="needs model"):
            await client.settle(["gen-9"], model=model_on("openai"))
        for ids in ([""], [None], [b"gen-1"]):
            with pytest.raises(TypeError):
                await client.settle(ids, model=model_on("openrouter"))
        with pytest.raises(TypeError):
            await client.settle(["gen-1"], model="gpt")
    assert [r.id for r in ledger.unsettled] == ["gen-0"]
    assert ledger.totals == before


async def test_an_amount_counts_though_a_count_beside_it_is_none(autojump_clock):
    for name, field in (("prompt", "uncached_input_tokens"), ("completion", "completion_tokens")):
        record, _, _ = await cancelled(settlement(0.5, **{f"native_tokens_{name}": "many"}))
        assert (record.amount, record.resolution) == (Decimal("0.5"), CostResolution.RESOLVED)
        assert getattr(record.usage, field) is None
        assert field in record.usage.doubts


# -- across processes ----------------------------------------------------------------------------

PROCESS = """
import os, sys, trio
import trio_minillm as llm
from trio_minillm import testing
from trio.testing import MockClock

path, job = sys.argv[1:3]
model = llm.openrouter("a/b", base_url="http://test.invalid/api/v1", api_key="sk-test-0123456789")
ledger = llm.JSONLLedger(path)
event = testing.sse({"id": "gen-" + job, "choices": [{"index": 0, "delta": {"content": "a"}}]})

async def leave():
    transport = testing.ScriptedTransport(testing.reply(event, testing.hang))
    async with llm.open_client(transport=transport, ledger=ledger) as client:
        async with client.stream(model, "my own prompt", meta={"job": job}) as stream:
            await stream.next_chunk()
        if job == "killed":
            os._exit(9)

async def settle():
    transport = testing.ScriptedTransport(settlements=[testing.settlement(0.7)])
    async with llm.open_client(transport=transport, ledger=ledger) as client:
        for record in await client.settle(sys.argv[3:] or None, model=model):
            print(record.id, record.meta, record.amount, record.unsettled)

trio.run(settle if job == "settle" else leave, clock=MockClock(autojump_threshold=0))
print(ledger.attempts, ledger.total, len(ledger.unsettled))
"""


def process(path, *args, code=0):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROCESS, str(path), *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines()


def test_what_one_process_left_open_another_settles(tmp_path):
    path = tmp_path / "costs.jsonl"
    assert process(path, "first") == ["1 0 1"]
    assert process(path, "killed", code=9) == [], "it died before anybody was asked"
    assert process(path, "settle") == [
        "gen-first {'job': 'first'} 0.7 False",
        "gen-killed {'job': 'killed'} 0.7 False",
        "2 1.4 0",
    ]
    # Again, by default and by name: nothing is left, and nothing is counted twice.
    assert process(path, "settle") == ["2 1.4 0"]
    assert process(path, "settle", "gen-first")[-1] == "2 1.4 0"
    ledger = llm.JSONLLedger(path)
    assert (ledger.attempts, ledger.total) == (2, Decimal("1.4"))
    assert ledger.by_meta("job")["killed"].total == Decimal("0.7")
    written = path.read_text()
    assert KEY not in written
    assert "my own prompt" not in written


def test_an_id_that_was_written_down_by_hand_is_settled_once(tmp_path):
    path = tmp_path / "costs.jsonl"
    for _ in range(2):
        assert process(path, "settle", "gen-x")[-1] == "1 0.7 0"


# -- providers of the user's own -----------------------------------------------------------------


class Mine(llm.Provider):
    """A wire outside of this package, whose costs are asked for with a POST."""

    name = "mine"

    def endpoint_url(self, model):
        return f"{model.base_url}/say"

    def auth_headers(self, model):
        return {"x-key": model.api_key or ""}

    def build_request(self, request):
        return {"text": str(request.messages[0].text)}

    def parse_chunk(self, data):
        return llm.StreamChunk(**json.loads(data))

    def generation_id(self, headers):
        return headers.get("x-job")

    def settlement_request(self, model, generation_id):
        body = json.dumps({"job": generation_id}).encode()
        return llm.SettlementRequest(url=f"{model.base_url}/bill", method="POST", body=body)

    def parse_settlement(self, body):
        usd = json.loads(body)["usd"]
        return None if usd is None else llm.Usage(cost=usd, completion_tokens=1, final=True)


async def test_a_provider_of_the_users_own_can_be_asked(autojump_clock):
    asked = []

    class Hanging(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield sse({"delta": "abc"})
            await trio.sleep_forever()

    def answer(request):
        if request.url.path == "/say":
            return httpx.Response(
                200,
                headers={"x-job": "job-1", "content-type": "text/event-stream"},
                stream=Hanging(),
            )
        asked.append(request)
        return httpx.Response(200, json={"usd": 0.3 if len(asked) > 2 else None})

    told = Told()
    model = llm.Model(name="m", provider=Mine(), base_url="http://mine.invalid", api_key=KEY)
    async with llm.open_client(transport=httpx.MockTransport(answer), on_cost=told) as client:
        async with client.stream(model, "Hi") as stream:
            await take(stream, "abc")
            response = await stream.cancel()
    assert response.cost == llm.CostInfo(Decimal("0.3"), CostResolution.RESOLVED, "native")
    assert [(r.id, r.provider, r.amount) for r in told.records] == [
        ("job-1", "mine", Decimal("0.3"))
    ]
    assert [(r.method, r.url.path, r.content) for r in asked] == [
        ("POST", "/bill", b'{"job": "job-1"}')
    ] * 3
    assert {r.headers["x-key"] for r in asked} == {KEY}


class NoParser(llm.Provider):
    """Half of the pair: the base's `parse_settlement` is not implemented."""

    parse_chunk = Mine.parse_chunk
    endpoint_url, auth_headers = Mine.endpoint_url, Mine.auth_headers


class BrokenParser(OpenRouter):
    def parse_settlement(self, body):
        return json.loads(body)["data"]["price"]


class BrokenRequest(OpenRouter):
    def settlement_request(self, model, generation_id):
        raise KeyError("settlement_request")


class BrokenCost(OpenRouter):
    def cost_of(self, usage, price):
        raise KeyError("cost_of")


class BrokenSettledCost(OpenRouter):
    def cost_of(self, usage, price):
        return llm.CostInfo() if usage is None else {}["cost_of"]


@pytest.mark.parametrize("broken", [BrokenParser, BrokenRequest, BrokenCost, BrokenSettledCost])
async def test_a_providers_bug_loses_no_booking(broken, autojump_clock, caplog):
    """It is logged, the attempt is booked as unknown, and the program goes on."""
    model = msgspec.structs.replace(model_on("openrouter"), provider=broken())
    told = Told()
    transport = ScriptedTransport(OPEN, settlements=[ANSWER])
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(model, "my own prompt", meta="m") as stream:
            await take(stream, "a")
            response = await stream.cancel()
        await trio.sleep(60)
    assert response.content.startswith("a")
    (record,) = told.records
    assert (record.resolution, record.amount, record.meta) == (CostResolution.UNKNOWN, None, "m")
    assert client.ledger.attempts == 1
    assert transport.open_bodies == 0
    assert broken.__name__ in caplog.text
    assert KEY not in caplog.text
    assert "my own prompt" not in caplog.text
    assert len(transport.questions) <= 1


@pytest.mark.parametrize("broken", [BrokenCost, BrokenSettledCost])
async def test_a_providers_bug_in_the_price_of_a_finished_answer(broken, autojump_clock, caplog):
    model = msgspec.structs.replace(model_on("openrouter"), provider=broken())
    answer = reply(*begin("openrouter"), *end("openrouter", Spent(1, 1, cost=0.1)))
    told = Told()
    transport = ScriptedTransport(answer, settlements=[ANSWER])
    async with llm.open_client(transport=transport, on_cost=told) as client:
        response = await client.complete(model, "Hi")
    assert (response.content, response.cost) == ("abc", llm.CostInfo())
    assert [r.resolution for r in told.records] == [CostResolution.UNKNOWN]
    assert transport.open_bodies == 0


# -- the settlement client by itself -------------------------------------------------------------


class Exchanges:
    """Connections whose answers come after a second; counts those that are under way."""

    status, headers = 200, {}

    def __init__(self):
        self.open = Counter()
        self.most = Counter()

    def __call__(self):
        return copy.copy(self)

    async def start(self, url, headers, body, *, method):
        self.host = httpx.URL(url).host
        self.open[self.host] += 1
        self.most[self.host] = max(self.most[self.host], self.open[self.host])
        await trio.sleep(1)

    async def short_body(self, seconds):
        return b'{"data":{"total_cost":0.7}}'

    async def close(self):
        self.open[self.host] -= 1


async def test_many_questions_to_one_address_take_turns_and_hold_up_no_other(autojump_clock):
    exchanges = Exchanges()
    client = SettlementClient(exchanges)
    crowded, quiet = (
        model_on("openrouter", base_url=f"http://{host}.invalid/v1") for host in ("a", "b")
    )
    done = []

    async def ask(model, seconds=30):
        usage = await client.ask(model, "gen-1", seconds)
        done.append((model is crowded, usage.cost, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for _ in range(2 * ASKING_AT_ONCE):
            nursery.start_soon(ask, crowded, 1.5)  # the clock begins with the question
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, quiet)
    assert exchanges.most == {"a.invalid": ASKING_AT_ONCE, "b.invalid": 1}
    assert not +exchanges.open
    assert Counter(done) == {
        (True, 0.7, 1.0): ASKING_AT_ONCE,
        (False, 0.7, 1.0): 1,
        (True, 0.7, 2.0): ASKING_AT_ONCE,
    }


def test_the_model_that_was_used_last_is_asked_with():
    client = SettlementClient(Exchanges())
    assert client.model_for("gen-1") is None
    older, newer = (model_on("openrouter", api_key=key) for key in ("older", "newer"))
    elsewhere = model_on("openrouter", base_url="http://elsewhere.invalid")
    for model in (older, elsewhere, newer, model_on("openai")):
        client.remember(model)
    assert client.model_at("openrouter", URL) is newer
    assert client.model_at("openrouter", "http://unknown.invalid") is None
    assert client.model_for("gen-1") is newer, "one of OpenAI's can't be asked"


def test_models_are_kept_within_bounds():
    client = SettlementClient(Exchanges())
    urls = [f"http://{n}.invalid" for n in range(MODELS_KEPT + 1)]
    for url in urls:
        client.remember(model_on("openrouter", base_url=url))
        client.remember(model_on("openrouter", base_url=urls[1]))
    kept = [url for url in urls if client.model_at("openrouter", url) is not None]
    assert len(kept) == MODELS_KEPT
    assert urls[0] not in kept
    assert urls[1] in kept, "used again and again"
