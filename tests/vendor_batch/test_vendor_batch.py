"""Vendors' batches as a whole, on the virtual clock, against the stand-in for both of them."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import ssl
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from functools import partial

import httpx
import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._batch.files.append_file import AppendFile
from trio_minillm._vendor_batch.parts import Lines
from trio_minillm._vendor_batch.vendors import Call
from trio_minillm.batch import (
    BatchRequest,
    Journal,
    ResultFile,
    ResultFileError,
    VendorBatchError,
    read_results,
)

from ..support.streams import cancelled_at
from ..support.vendor_batches import USAGE, Batch, StandIn, StandInTransport, chat, message

KEY = "sk-test-0123456789abcdef"
URL = "http://127.0.0.1:9/v1"
PRICE = llm.TokenPrice(
    input=2, output=8, variants=(llm.TokenPrice(input=1, output=4, service_tier="batch"),)
)
COST = Decimal("0.003000")  # 1,000 tokens at 1 USD and 500 at 4 USD a million


def model_of(vendor, **more):
    make = {"openai": llm.openai, "anthropic": llm.anthropic}[vendor]
    return make("m-1", **{"api_key": KEY, "base_url": URL, "price": PRICE, **more})


vendors = pytest.mark.parametrize("vendor", ["openai", "anthropic"])


def requests(*prompts, **more):
    return [BatchRequest(f"k-{prompt}", prompt, **more) for prompt in prompts]


class Rig:
    """A run into a file, which can be repeated as the command does."""

    def __init__(self, tmp_path, vendor="openai", **more):
        self.stand_in = StandIn()
        self.model = model_of(vendor, **more)
        self.out = tmp_path / "out.jsonl"
        self.journal = tmp_path / "out.jsonl.batches"
        self.unreturned = {}
        self.ledger = llm.Ledger()

    async def run(self, asked, instrument=None, **options):
        transport = StandInTransport(self.stand_in)
        async with llm.open_client(transport=transport, ledger=self.ledger) as client:
            with ResultFile(self.out, fsync="never") as out:
                left = out.unanswered(asked, model=self.model)
                batch = client.vendor_batch(left, model=self.model, journal=self.journal, **options)
                try:
                    async with batch as results:
                        async for result in results:
                            await out.append(result)
                finally:
                    self.unreturned = {one.key: one.reason for one in batch.unreturned}
        return batch.statistics()

    def lines(self):
        return {line.key: line for line in read_results(self.out)}

    def keys(self):
        return Counter(line.key for line in read_results(self.out))


@pytest.fixture
def rig(tmp_path, request):
    return Rig(tmp_path)


@vendors
async def test_each_request_comes_back_as_a_line(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    stats = await rig.run(requests("a", "b", "c"))
    lines = rig.lines()
    assert {key: line.content for key, line in lines.items()} == {
        f"k-{p}": f"to {p}" for p in "abc"
    }
    line = lines["k-a"]
    assert line.ok
    assert line.cost == {"amount": "0.003000", "resolution": "resolved", "source": "price"}
    assert line.usage["service_tier"] == "batch"
    assert line.timings.keys() == {"chunks", "bytes", "attempts"}, "no times"
    assert line.timings["chunks"] == 1
    assert len(line.attempts) == 1
    assert rig.ledger.totals.total == 3 * COST
    assert (stats.parts, stats.submitted, stats.results) == (1, 3, 3)
    assert stats.at_vendor == ()
    steps = Counter(rig.stand_in.calls)
    assert steps == Counter({"upload": vendor == "openai", "create": 1, "look": 2, "results": 1})


@vendors
async def test_a_key_may_be_asked_for(tmp_path, vendor, autojump_clock):
    """It is asked for with each call, and once more after a 401; no answer that is there needs it."""
    keys = ["sk-of-before-0123456789", KEY]
    asked = []

    async def key():
        asked.append(keys.pop(0) if len(keys) > 1 else keys[0])
        return asked[-1]

    rig = Rig(tmp_path, vendor, api_key=key)
    await rig.run(requests("a", "b"))
    assert all(line.ok for line in rig.lines().values())
    assert len(rig.lines()) == 2
    assert len(asked) == len(rig.stand_in.calls)  # of which the first was made twice
    assert not any(one.encode() in rig.journal.read_bytes() for one in asked)


async def test_requests_are_signed_if_the_model_says_so(rig, autojump_clock):
    rig.model = model_of("openai", api_key=None, sign=lambda _: {"authorization": f"Bearer {KEY}"})
    await rig.run(requests("a"))
    assert rig.lines()["k-a"].ok


async def test_requests_of_two_accounts_are_in_batches_of_their_own(rig, autojump_clock):
    models = [model_of("openai", api_key=lambda: KEY) for _ in range(2)]
    await rig.run([BatchRequest(f"k-{n}", "a", models[n % 2]) for n in range(4)])
    assert [len(batch.requests) for batch in rig.stand_in.batches.values()] == [2, 2]


async def test_text_completions_have_batches_of_their_endpoint(rig, autojump_clock):
    rig.model = llm.text_completions("m-1", base_url=URL, api_key=KEY, price=PRICE)
    await rig.run(requests("a"))
    line = rig.lines()["k-a"]
    assert (line.ok, line.content) == (True, "to a")
    assert line.cost["resolution"] == "resolved"
    (batch,) = rig.stand_in.batches.values()
    assert batch.requests[0]["url"] == "/v1/completions"


@vendors
async def test_a_line_is_that_of_a_live_answer(tmp_path, vendor, autojump_clock):
    """But for its times, its tier and its price."""
    rig = Rig(tmp_path, vendor)
    asked = requests("a", meta={"label": 1})
    await rig.run(asked)
    body = message("a") if vendor == "anthropic" else chat("a")
    live_file = tmp_path / "live.jsonl"
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=body))
    async with llm.open_client(transport=transport) as client:
        with ResultFile(live_file) as out:
            async with client.batch(asked, model=rig.model) as results:
                async for result in results:
                    await out.append(result)
    found, live = (json.loads(path.read_text()) for path in (rig.out, live_file))
    for line in (found, live):
        for name in ("cost", "timings", "attempts", "usage"):
            del line[name]
        del line["response"]["body"]["created"], line["response"]["request_id"]
    assert found == live


async def test_a_refused_request_is_a_failure_with_its_status(rig, autojump_clock):
    await rig.run(requests("a", "refuse it"))
    line = rig.lines()["k-refuse it"]
    assert not line.ok
    assert line.error["kind"] == "invalid"
    assert line.response["status_code"] == 400
    assert line.cost["resolution"] == "unknown"
    assert rig.unreturned == {}
    await rig.run(requests("a", "refuse it"))  # it has its line
    assert rig.stand_in.calls.count("create") == 1


@vendors
async def test_what_comes_back_without_an_answer_is_told_and_sent_again(
    tmp_path, vendor, autojump_clock
):
    rig = Rig(tmp_path, vendor)
    asked = requests("a", "expire", "vanish", "refuse it")
    await rig.run(asked, failures=False)
    assert rig.unreturned == {
        "k-expire": "expired",
        # OpenAI says that the whole batch has expired.
        "k-vanish": "expired" if vendor == "openai" else "missing",
        "k-refuse it": "errored",
    }
    assert rig.keys() == {"k-a": 1}
    await rig.run(asked, failures=False)
    second = list(rig.stand_in.batches.values())[1]
    assert len(second.requests) == 3
    assert rig.stand_in.work == {"a": 1}


@vendors
async def test_parts_are_cut_by_number_and_by_size(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    await rig.run(requests(*"abcdefg"), part_requests=3)
    assert [len(b.requests) for b in rig.stand_in.batches.values()] == [3, 3, 1]
    rig = Rig(tmp_path / "..", vendor)
    rig.out, rig.journal = tmp_path / "2", tmp_path / "2.batches"
    await rig.run(requests(*("x" * 400 + c for c in "abc")), part_bytes=1400)
    assert [len(b.requests) for b in rig.stand_in.batches.values()] == [2, 1]


async def test_a_batch_has_one_model_only(rig, autojump_clock):
    other = model_of("openai")
    other = llm.openai("m-2", api_key=KEY, base_url=URL)
    await rig.run([*requests("a", "b"), BatchRequest("k-c", "c", model=other)])
    found = [{r["body"]["model"] for r in b.requests} for b in rig.stand_in.batches.values()]
    assert found == [{"m-1"}, {"m-2"}]


async def test_samples_are_requests_of_their_own(rig, autojump_clock):
    async with llm.open_client(transport=StandInTransport(rig.stand_in)) as client:
        batch = client.vendor_batch(
            requests("a", "b"), model=rig.model, journal=rig.journal, samples=2
        )
        async with batch as results:
            found = [(r.key, r.sample, r.index) async for r in results]
    assert sorted(found) == [("k-a", 0, 0), ("k-a", 1, 0), ("k-b", 0, 1), ("k-b", 1, 1)]
    assert rig.stand_in.work == {"a": 2, "b": 2}


async def test_openai_s_responses(rig, autojump_clock):
    rig.model = llm.openai_responses("m-1", api_key=KEY, base_url=URL, price=PRICE)

    def work(batch):
        batch.status = "completed"
        assert [r["url"] for r in batch.requests] == ["/v1/responses"]
        text = {"type": "output_text", "text": "to a", "annotations": []}
        item = {"type": "message", "id": "m", "role": "assistant", "content": [text]}
        body = {
            "id": "resp_1",
            "object": "response",
            "model": "m-1",
            "status": "completed",
            "service_tier": "default",
            "output": [item | {"status": "completed"}],
            "usage": {"input_tokens": 1_000, "output_tokens": 500, "total_tokens": 1_500},
        }
        answer = {"status_code": 200, "request_id": "r", "body": body}
        line = {"custom_id": batch.requests[0]["custom_id"], "response": answer, "error": None}
        batch.lines = [json.dumps(line).encode()]

    rig.stand_in._work = work
    await rig.run(requests("a"))
    line = rig.lines()["k-a"]
    assert line.content == "to a"
    assert line.cost["amount"] == "0.003000"


async def test_text_completions(rig, autojump_clock):
    rig.model = llm.text_completions("m-1", api_key=KEY, base_url=URL, price=PRICE)

    def work(batch):
        assert [r["url"] for r in batch.requests] == ["/v1/completions"]
        choice = {"index": 0, "text": "to a", "logprobs": None, "finish_reason": "stop"}
        made = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m-1"}
        _worked(rig.stand_in, made | {"choices": [choice], "usage": USAGE}, batch)

    rig.stand_in._work = work
    await rig.run(requests("a"))
    assert rig.lines()["k-a"].content == "to a"


@vendors
async def test_a_key_that_is_refused_after_a_while(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.looks = 9
    rig.stand_in.faults = {"look": [None, None, 401]}
    with pytest.raises(llm.RefusedError) as caught:
        await rig.run(requests("a"))
    assert caught.value.status == 401
    await rig.run(requests("a"))
    assert rig.stand_in.work == {"a": 1}


async def test_betas_are_a_part_of_their_own_with_their_header(tmp_path, autojump_clock):
    rig = Rig(tmp_path, "anthropic")
    seen = []
    create = rig.stand_in._create_messages

    def watched(path, query, headers, body):
        seen.append(headers.get("anthropic-beta"))
        return create(path, query, headers, body)

    rig.stand_in._create_messages = watched
    beta = BatchRequest("k-b", "b", params={"betas": ["new-1"]})
    await rig.run([*requests("a"), beta])
    assert seen == [None, "new-1"]
    assert rig.keys() == {"k-a": 1, "k-b": 1}


async def test_a_number_of_looks_grows_apart(rig, autojump_clock):
    rig.stand_in.looks = 8
    began = trio.current_time()
    await rig.run(requests("a"))
    # 5, 7.5, 11.25, 16.9, 25.3, 38, 57, 60 s
    assert trio.current_time() - began == pytest.approx(220.8, abs=0.2)


# -- odd files of results ------------------------------------------------------------------------


@vendors
async def test_another_order_and_lines_that_come_twice(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.reversed = True
    await rig.run(requests("a", "twice", "b"))
    assert rig.keys() == {"k-a": 1, "k-twice": 1, "k-b": 1}


@vendors
async def test_a_line_that_is_missing_at_first(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.lost_lines = 1
    await rig.run(requests("a", "b"))
    assert rig.keys() == {"k-a": 1, "k-b": 1}
    assert rig.unreturned == {}


@vendors
@pytest.mark.parametrize(
    ("odd", "content"),
    [(b"\\ud83d", "to \ufffd"), (b"\xff", "to \ufffd"), (b"\x01", "to \x01")],
    ids=["half of a pair", "not UTF-8", "control character"],
)
async def test_an_answer_with_what_strict_decoders_refuse(
    tmp_path, vendor, odd, content, autojump_clock
):
    """It is read as a live one is, at the price of a batch."""
    rig = Rig(tmp_path, vendor, price=STANDARD, base_url=OWN[vendor])
    lines = rig.stand_in._lines
    rig.stand_in._lines = lambda given: lines([one.replace(b"to a", b"to " + odd) for one in given])
    await rig.run(requests("a"))
    line = rig.lines()["k-a"]
    assert line.content == content
    assert (Decimal(line.cost["amount"]), line.cost["resolution"]) == (COST, "resolved")


async def test_lines_of_something_else_are_counted(rig, autojump_clock):
    rig.stand_in.looks = 1
    add = [b"not json", b'{"custom_id": "other-0", "response": null, "error": null}']
    work = rig.stand_in._work

    def work_and_add(batch):
        work(batch)
        batch.lines += add

    rig.stand_in._work = work_and_add
    stats = await rig.run(requests("a"))
    assert (stats.unreadable, stats.strange) == (1, 1)
    assert rig.keys() == {"k-a": 1}


async def test_a_file_that_is_named_early_is_not_read_before_the_end(rig, autojump_clock):
    rig.stand_in.early_file, rig.stand_in.looks = True, 4
    await rig.run(requests("a"))
    assert rig.stand_in.calls[-2:] == ["look", "results"]
    assert rig.stand_in.calls.count("look") == 4
    assert rig.keys() == {"k-a": 1}


async def test_a_file_that_is_named_late_is_waited_for(rig, autojump_clock):
    rig.stand_in.late_file = 2
    await rig.run(requests("a"))
    assert rig.keys() == {"k-a": 1}


async def test_a_file_that_is_named_late_after_looks_that_failed(rig, autojump_clock):
    """They don't count as looks at which the file was missing."""
    look = rig.stand_in._look

    def all_done_at_first(*call):
        status, batch = look(*call)
        if batch["status"] == "validating":
            batch["request_counts"]["completed"] = 1
        return status, batch

    rig.stand_in._look, rig.stand_in.late_file = all_done_at_first, 2
    rig.stand_in.faults = {"look": [None, *[500] * 6]}
    await rig.run(requests("a"))
    assert rig.keys() == {"k-a": 1}


async def test_results_at_another_address_do_not_get_the_key(tmp_path, autojump_clock):
    rig = Rig(tmp_path, "anthropic")
    asked = []

    class Watched(StandInTransport):
        async def handle_async_request(self, request):
            asked.append(request.url.host)
            return await super().handle_async_request(request)

    rig.stand_in.results_at = "https://api.anthropic.com/v1"
    async with llm.open_client(transport=Watched(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results:
            assert [r.ok async for r in results] == [True]
    assert set(asked) == {"127.0.0.1"}


# -- faults of calls -----------------------------------------------------------------------------

PASSING = [429, 500, 503, 529, "lost", "cut"]


@vendors
@pytest.mark.parametrize("step", ["upload", "create", "look", "results"])
@pytest.mark.parametrize("fault", [*PASSING, "half"])
async def test_faults_that_pass(tmp_path, vendor, step, fault, autojump_clock):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.faults = {step: [fault, fault]}
    await rig.run(requests("a", "b"))
    assert rig.keys() == {"k-a": 1, "k-b": 1}
    assert rig.stand_in.work == {"a": 1, "b": 1}


@vendors
@pytest.mark.parametrize("fault", PASSING)
async def test_a_list_that_fails_when_it_is_needed(tmp_path, vendor, fault, autojump_clock):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.faults = {"create": ["cut"], "list": [fault, fault]}
    await rig.run(requests("a", "b"))
    assert rig.stand_in.work == {"a": 1, "b": 1}
    assert rig.stand_in.calls.count("create") == 1


@vendors
@pytest.mark.parametrize("key", [KEY, lambda: KEY], ids=["key", "asked for"])
async def test_a_submission_is_not_sent_again_silently(tmp_path, vendor, key, autojump_clock):
    """As transports do where a connection that was used before ends without a word."""

    class Again(StandInTransport):
        async def handle_async_request(self, request):
            response = await super().handle_async_request(request)
            if self.stand_in.calls == [*["upload"][: vendor == "openai"], "create"]:
                tell = request.extensions["trace"]
                await tell("http11.send_request_headers.started", {})
                await tell("connection.connect_tcp.started", {})
                response = await super().handle_async_request(request)
            return response

    rig = Rig(tmp_path, vendor, api_key=key)
    async with llm.open_client(transport=Again(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results:
            assert [r.ok async for r in results] == [True]
    assert rig.stand_in.calls.count("create") == 1


TLS_BROKE = ssl.SSLError(1, "unexpected message")
TLS_BROKE.reason = "UNEXPECTED_MESSAGE"
OUT = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, trio.BrokenResourceError)


@vendors
@pytest.mark.parametrize("kind", OUT)
@pytest.mark.parametrize(
    "cause", [OSError(errno.ETIMEDOUT, ""), OSError(errno.EHOSTUNREACH, ""), TLS_BROKE]
)
async def test_a_host_that_is_lost_behind_a_submission_may_have_it(
    tmp_path, vendor, kind, cause, autojump_clock
):
    """Why the connection broke says nothing of what had arrived before."""

    class Lost(StandInTransport):
        broke = False

        async def handle_async_request(self, request):
            response = await super().handle_async_request(request)
            if self.stand_in.calls[-1] == "create" and not self.broke:
                self.broke = True
                raise kind("Server disconnected") from cause
            return response

    rig = Rig(tmp_path, vendor)
    async with llm.open_client(transport=Lost(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results:
            assert [r.ok async for r in results] == [True]
    assert rig.stand_in.calls.count("create") == 1
    assert rig.stand_in.work == {"a": 1}


@vendors
async def test_a_host_that_is_not_reached_is_asked_again_without_a_list(
    tmp_path, vendor, autojump_clock
):
    class Away(StandInTransport):
        away = 2

        async def handle_async_request(self, request):
            if request.method == "POST" and "batches" in request.url.path and self.away:
                self.away -= 1
                raise httpx.ConnectError("") from OSError(errno.EHOSTUNREACH, "")
            return await super().handle_async_request(request)

    rig = Rig(tmp_path, vendor)
    async with llm.open_client(transport=Away(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results:
            assert [r.ok async for r in results] == [True]
    assert rig.stand_in.calls.count("list") == 0
    assert rig.stand_in.work == {"a": 1}


@vendors
async def test_a_batch_that_is_listed_late_is_found(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.faults = {"create": ["cut"]}
    rig.stand_in.unlisted = 3
    await rig.run(requests("a", "b"))
    assert rig.stand_in.work == {"a": 1, "b": 1}
    assert rig.stand_in.calls.count("create") == 1


@vendors
@pytest.mark.parametrize("ahead", [-14 * 3600, 600, 12 * 3600])
async def test_a_clock_that_is_wrong_pays_for_nothing_twice(
    tmp_path, vendor, ahead, autojump_clock
):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.now = lambda: time.time() - ahead
    rig.stand_in.faults = {"create": ["cut"]}
    await rig.run(requests("a", "b"))
    assert rig.stand_in.work == {"a": 1, "b": 1}
    assert rig.stand_in.calls.count("create") == 1


@vendors
async def test_a_clock_that_is_set_between_two_runs(tmp_path, vendor, monkeypatch, autojump_clock):
    """The batch gets its time to show up all the same."""
    rig = Rig(tmp_path, vendor)
    rig.stand_in.faults = {"create": ["cut"], "list": [403]}
    rig.stand_in.unlisted = 3
    with pytest.raises(llm.RefusedError):
        await rig.run(requests("a", "b"))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    await rig.run(requests("a", "b"))
    assert rig.stand_in.work == {"a": 1, "b": 1}
    assert rig.stand_in.calls.count("create") == 1


@vendors
async def test_among_batches_of_others_ours_is_found(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    await rig.run(requests("a", "b"))
    for name in "xyz":
        other = Rig(tmp_path, vendor)
        other.stand_in = rig.stand_in
        other.out, other.journal = tmp_path / name, tmp_path / f"{name}.batches"
        await other.run(requests(f"{name}1", f"{name}2"))
    rig.stand_in.faults = {"create": ["cut"]}
    asked = requests("c", "d")
    await rig.run(asked)
    assert rig.lines()["k-c"].content == "to c"
    assert max(rig.stand_in.work.values()) == 1
    assert rig.stand_in.calls.count("create") == 5


@vendors
@pytest.mark.parametrize("oldest_first", [False, True])
async def test_a_list_of_many_old_batches(tmp_path, vendor, oldest_first, autojump_clock):
    """It is read no further than needed, and to its end where it is in another order."""
    rig = Rig(tmp_path, vendor)
    rig.stand_in.oldest_first = oldest_first
    rig.stand_in.now = lambda: time.time() - 100_000
    for number in range(7):
        other = Rig(tmp_path, vendor)
        other.stand_in = rig.stand_in
        other.out, other.journal = tmp_path / f"{number}", tmp_path / f"{number}.batches"
        await other.run([BatchRequest(f"{number}", f"{number}"), BatchRequest("x", f"x {number}")])
    rig.stand_in.now = time.time
    rig.stand_in.faults = {"create": ["cut"]}
    await rig.run(requests("a", "b"))
    assert (rig.stand_in.work["a"], rig.stand_in.work["b"]) == (1, 1)
    assert rig.stand_in.calls.count("create") == 8
    once = 4 if oldest_first else 1
    times = 1 if vendor == "openai" else 2  # Anthropic's is over by the second
    assert rig.stand_in.calls.count("list") == once * times


async def test_a_list_that_goes_round_in_a_circle_is_an_error(rig, autojump_clock):
    """And no reason to submit again: what it does not show may be there."""
    rig.stand_in.faults, rig.stand_in.unlisted = {"create": ["cut"]}, 99
    page = {"data": [rig.stand_in._batch(Batch("b", [{"url": URL}], time.time(), metadata={}))]}
    rig.stand_in._list = lambda *call: (200, page | {"has_more": True})
    with pytest.raises(VendorBatchError, match="has no end"):
        await rig.run(requests("a"))
    assert rig.stand_in.calls.count("list") == 2
    assert rig.stand_in.calls.count("create") == 1


@vendors
@pytest.mark.parametrize("step", ["upload", "create", "look", "results", "list"])
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_faults_that_stay_end_the_run(tmp_path, vendor, step, status, autojump_clock):
    rig = Rig(tmp_path, vendor)
    if step == "upload" and vendor == "anthropic":
        pytest.skip("it has none")
    rig.stand_in.faults = {step: [status], **({"create": ["cut"]} if step == "list" else {})}
    with pytest.raises((llm.RefusedError, VendorBatchError)) as caught:
        await rig.run(requests("a secret prompt", "b"))
    assert KEY not in str(caught.value)
    assert "secret" not in str(caught.value)
    await rig.run(requests("a secret prompt", "b"))
    assert rig.keys() == {"k-a secret prompt": 1, "k-b": 1}
    assert max(rig.stand_in.work.values()) == 1


async def test_a_server_without_batches_is_told_as_such(rig, autojump_clock):
    rig.stand_in.faults = {"upload": [404]}
    with pytest.raises(llm.RefusedError, match=r"/files: no batches here\)$"):
        await rig.run(requests("a"))


async def test_a_file_that_is_not_there_may_be_of_another_key(rig, autojump_clock):
    rig.stand_in.faults = {"results": [404]}
    with pytest.raises(llm.RefusedError, match="no batches here, or none with this id"):
        await rig.run(requests("a"))


async def test_a_part_that_is_too_large_for_the_server(rig, autojump_clock):
    rig.stand_in.faults = {"upload": [413]}
    with pytest.raises(llm.RefusedError, match="make it smaller"):
        await rig.run(requests("a"))


async def test_a_key_in_an_error_is_blanked_out(rig, autojump_clock):
    rig.stand_in.key = "another"
    with pytest.raises(llm.RefusedError) as caught:
        await rig.run(requests("a"))
    assert caught.value.kind == "auth"
    assert KEY not in str(caught.value)


async def test_a_key_that_was_asked_for_is_blanked_out(rig, autojump_clock):
    rig.model = model_of("openai", api_key=lambda: "sk-another-0123456789")
    with pytest.raises(llm.RefusedError, match="Incorrect API key") as caught:
        await rig.run(requests("a"))
    assert "another" not in str(caught.value)


@vendors
@pytest.mark.parametrize("step", ["upload", "create", "look", "results"])
@pytest.mark.parametrize("fault", [401, "lost", "cut", "half"])
async def test_the_frames_of_an_error_show_neither_key_nor_prompt(
    tmp_path, vendor, step, fault, autojump_clock
):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.faults = {step: [fault] * 99, "list": [401] * 99}
    try:
        await rig.run([BatchRequest("k", "a secret prompt")])
    except (llm.MiniLLMError, VendorBatchError) as exc:
        link = exc
    else:
        pytest.skip("this vendor has no such step")
    while link is not None:
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if "/trio_minillm/" in frame.f_code.co_filename:
                shown = {name: repr(value) for name, value in frame.f_locals.items()}
                assert "secret" not in str(shown), frame
                assert KEY not in str(shown), frame
        link = link.__cause__ or link.__context__


async def test_looks_that_fail_for_an_hour_end_the_run(rig, autojump_clock):
    rig.stand_in.faults = {"look": [500] * 1000}
    began = trio.current_time()
    with pytest.raises(llm.RefusedError):
        await rig.run(requests("a"))
    assert 3600 < trio.current_time() - began < 4000


@vendors
@pytest.mark.parametrize("step", ["upload", "create"])
@pytest.mark.parametrize("fault", [400, "cut"])
async def test_a_failed_submission_keeps_no_part_in_memory(
    tmp_path, vendor, step, fault, autojump_clock
):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.faults = {step: [None, fault], "look": [401], "list": [500] * 99}
    async with llm.open_client(transport=StandInTransport(rig.stand_in)) as client:
        batch = client.vendor_batch(
            requests("a", "b"), model=rig.model, journal=rig.journal, part_requests=1
        )
        async with batch as results:
            with suppress(llm.RefusedError):  # of the first part
                await anext(results)
            gc.collect()
            found = gc.get_objects()
            assert not [one for one in found if isinstance(one, Call) and b'"b"' in one.body]
            assert not [one for one in found if isinstance(one, Lines) and one]


async def test_a_submission_that_never_arrives_is_not_tried_for_ever(rig, autojump_clock):
    rig.stand_in.faults = {"create": ["lost"] * 100}
    with pytest.raises(llm.SendError):
        await rig.run(requests("a"))
    assert rig.stand_in.calls.count("create") == 3


# -- batches that the vendor does not take -------------------------------------------------------


async def test_a_batch_that_is_not_taken_is_an_error_with_its_words(rig, autojump_clock):
    rig.stand_in.not_taken = ("model_not_found", "no model m-1")
    with pytest.raises(llm.RefusedError, match="batch_0 was rejected: no model m-1"):
        await rig.run(requests("a", "b"))
    assert rig.keys() == {}
    rig.stand_in.not_taken = None
    await rig.run(requests("a", "b"))
    assert rig.keys() == {"k-a": 1, "k-b": 1}


async def test_a_key_in_the_words_of_a_batch_that_is_not_taken(rig, autojump_clock):
    rig.stand_in.not_taken = ("invalid_key", f"the key {KEY} may not")
    with pytest.raises(llm.RefusedError, match="batch_0 was rejected: the key") as caught:
        await rig.run(requests("a"))
    assert KEY not in str(caught.value)


async def test_a_batch_that_failed_after_some_answers_brings_them(rig, autojump_clock):
    """They are paid for, so that the batch is none that was not taken."""
    rig.stand_in.looks, state = 1, rig.stand_in._batch

    def failed_at_the_end(batch):
        shown = state(batch)
        return shown | {"status": "failed"} if shown["output_file_id"] else shown

    rig.stand_in._batch = failed_at_the_end
    await rig.run(requests("a", "vanish"))
    assert rig.keys() == {"k-a": 1}
    assert rig.unreturned == {"k-vanish": "failed"}


async def test_a_full_queue_is_waited_for(rig, autojump_clock):
    rig.stand_in.full = 1
    await rig.run(requests(*"abcd"), part_requests=2)
    assert rig.stand_in.work == dict.fromkeys("abcd", 1)
    assert len(rig.stand_in.batches) == 3


async def test_while_the_queue_is_full_nothing_is_submitted(rig, autojump_clock):
    """What was not taken goes out once more when another batch is over, and not before."""
    look, first = rig.stand_in._look, "batch_0"

    def look_while_full(path, *more):
        batch, of_first = rig.stand_in.batches[path.split("/")[2]], rig.stand_in.batches[first]
        if batch.id != first and of_first.status != "completed":
            batch.status = "failed"
            batch.more["failure"] = {"code": "token_limit_exceeded", "message": "it is full"}
            return 200, rig.stand_in._batch(batch)
        return look(path, *more)

    rig.stand_in.looks, rig.stand_in._look = 60, look_while_full
    await rig.run(requests(*"abcdef"), part_requests=2)
    assert rig.stand_in.work == dict.fromkeys("abcdef", 1)
    assert rig.stand_in.calls.count("create") == 5
    assert rig.unreturned == {}


async def test_what_waits_for_a_queue_that_stays_full_is_told(rig, autojump_clock):
    rig.stand_in.full = 99
    with pytest.raises(llm.RefusedError):
        await rig.run(requests(*"abcdef"), part_requests=2)
    assert rig.unreturned == dict.fromkeys((f"k-{p}" for p in "abcdef"), "failed")
    assert rig.stand_in.calls.count("create") == 3


async def test_a_full_queue_with_nothing_of_ours_in_it_is_a_quota(rig, autojump_clock):
    rig.stand_in.full = 9
    with pytest.raises(llm.RefusedError) as caught:
        await rig.run(requests("a"))
    assert caught.value.kind == "quota"


async def test_the_others_come_back_when_a_submission_is_refused(rig, autojump_clock):
    create = rig.stand_in._create

    def second_refused(*args):
        if len(rig.stand_in.batches) == 1:
            return 429, {"error": {"message": "quota", "code": "insufficient_quota"}}
        return create(*args)

    rig.stand_in._create = second_refused
    with pytest.raises(llm.RefusedError) as caught:
        await rig.run(requests(*"abcd"), part_requests=1)
    assert caught.value.kind == "quota"
    assert rig.keys() == {"k-a": 1}
    assert rig.stand_in.calls.count("create") == 2


# -- going on ------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


class Deadly:
    """The death of a process at its n-th event: before a call, after it, or in the middle of a line."""

    def __init__(self, at, monkeypatch):
        self.left = at
        self.dead = False
        write = AppendFile.write

        def written(file, line):
            if self.event():
                os.write(file._fd, line[: len(line) // 2])
                raise Killed
            write(file, line)
            if self.event():
                raise Killed

        monkeypatch.setattr(AppendFile, "write", written)

    def event(self):
        self.left -= 1
        self.dead = self.dead or self.left == 0
        return self.dead

    def transport(self, stand_in):
        deadly = self

        class Transport(StandInTransport):
            async def handle_async_request(self, request):
                if deadly.event():
                    raise Killed
                response = await super().handle_async_request(request)
                if deadly.event():
                    raise Killed
                return response

        return Transport(stand_in)


async def killed_at(rig, asked, at, **options):
    """Run until the n-th event. Returns False if there were less."""
    with pytest.MonkeyPatch.context() as patched:
        deadly = Deadly(at, patched)
        try:
            async with llm.open_client(transport=deadly.transport(rig.stand_in)) as client:
                with ResultFile(rig.out, fsync="never") as out:
                    left = out.unanswered(asked, model=rig.model)
                    batch = client.vendor_batch(
                        left, model=rig.model, journal=rig.journal, **options
                    )
                    async with batch as results:
                        async for result in results:
                            await out.append(result)
        except BaseException:
            if not deadly.dead:
                raise
    return deadly.dead


@vendors
async def test_a_kill_at_any_event_pays_for_nothing_twice(tmp_path, vendor, autojump_clock):
    asked = requests("a", "b", "twice", "expire", "refuse it")
    for at in itertools.count(1):
        rig = Rig(tmp_path, vendor)
        rig.out, rig.journal = tmp_path / f"{at}", tmp_path / f"{at}.batches"
        if not await killed_at(rig, asked, at, part_requests=2):
            break
        await rig.run(asked, part_requests=2)
        assert max(rig.stand_in.work.values()) == 1, at
        wanted = {"k-a", "k-b", "k-twice", "k-refuse it"}
        assert rig.keys() == dict.fromkeys(wanted, 1), at
        assert rig.unreturned.keys() <= {"k-expire"}
    assert at > 30


@vendors
@settings(max_examples=30)
@given(data=st.data())
def test_kills_faults_and_parts_in_any_number(tmp_path_factory, vendor, data):
    """Each key has one line and is paid for once, whatever happens on the way, if it ever ends."""
    rig = Rig(tmp_path_factory.mktemp("kills"), vendor)
    asked = requests("a", "b", "c", "twice")
    size = data.draw(st.integers(1, 5), "size of the parts")
    faults = st.lists(st.sampled_from([429, 500, "lost", "cut", "half"]), max_size=2)
    kills = data.draw(st.lists(st.integers(1, 40), max_size=4), "kills")

    async def main():
        for kill in kills:
            for step in ("upload", "create", "look", "list", "results"):
                rig.stand_in.faults[step] = data.draw(faults, step)
            rig.stand_in.unlisted = data.draw(st.integers(0, 2), "unlisted")
            await killed_at(rig, asked, kill, part_requests=size)
        rig.stand_in.faults = {}
        await rig.run(asked, part_requests=size)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert rig.keys() == {f"k-{p}": 1 for p in ("a", "b", "c", "twice")}
    assert set(rig.stand_in.work.values()) == {1}


@vendors
async def test_a_cancellation_at_any_step_pays_for_nothing_twice(tmp_path, vendor, autojump_clock):
    asked = requests("a", "b", "c")
    for step in itertools.count(1, 3):
        rig = Rig(tmp_path, vendor)
        rig.out, rig.journal = tmp_path / f"{step}", tmp_path / f"{step}.batches"
        if not await cancelled_at(step, rig.run, asked):
            break
        await rig.run(asked)
        assert rig.keys() == {"k-a": 1, "k-b": 1, "k-c": 1}, step
        assert rig.stand_in.work == {"a": 1, "b": 1, "c": 1}, step


async def test_results_whose_lines_are_lost_are_read_again(rig, autojump_clock):
    asked = requests("a", "b")
    await rig.run(asked)
    rig.out.unlink()
    await rig.run(asked)
    assert rig.keys() == {"k-a": 1, "k-b": 1}
    assert rig.stand_in.work == {"a": 1, "b": 1}
    assert rig.ledger.totals.attempts == 4  # the ledger of the first run was another process's


async def test_a_changed_request_is_another_one(rig, autojump_clock):
    rig.stand_in.looks = 100
    with trio.move_on_after(30):
        await rig.run([BatchRequest("k", "a"), BatchRequest("l", "b")])
    await rig.run([BatchRequest("k", "c"), BatchRequest("l", "b")])
    assert {key: line.content for key, line in rig.lines().items()} == {"k": "to c", "l": "to b"}


async def test_further_requests_are_submitted_beside_those_that_are_there(rig, autojump_clock):
    rig.stand_in.looks = 100
    with trio.move_on_after(30):
        await rig.run(requests("a", "b"))
    stats = await rig.run(requests("a", "b", "c"))
    assert (stats.adopted, stats.submitted) == (2, 1)
    assert rig.stand_in.work == {"a": 1, "b": 1, "c": 1}


async def test_released_samples_may_be_sent_again(rig, autojump_clock):
    """Others of the same key may not: their answers may still be at the vendor."""
    await rig.run(requests("a", "b", samples=(0, 1)))
    with Journal(rig.journal) as journal:
        await journal.release([("k-a", 1)])
    rig.out.unlink()
    await rig.run(requests("a", "b", samples=(0, 1)))
    assert rig.stand_in.work == {"a": 3, "b": 2}


async def test_another_address_is_an_error_while_answers_are_at_the_first(rig, autojump_clock):
    rig.stand_in.looks = 100
    with trio.move_on_after(30):
        await rig.run(requests("a"))
    rig.model = model_of("openai", base_url="http://127.0.0.1:8/v1")
    with pytest.raises(VendorBatchError, match=r"127\.0\.0\.1:9"):
        await rig.run(requests("a"))
    assert rig.stand_in.calls.count("create") == 1


async def test_a_batch_that_the_vendor_does_not_know_is_not_sent_again(rig, autojump_clock):
    rig.stand_in.looks = 100
    with trio.move_on_after(30):
        await rig.run(requests("a"))
    rig.stand_in.batches.clear()
    with pytest.raises(VendorBatchError, match="does not know the batch batch_0"):
        await rig.run(requests("a"))
    assert rig.stand_in.calls.count("create") == 1


async def test_a_part_without_an_id_needs_the_same_key(rig, autojump_clock):
    """Another key's list says nothing of it."""
    rig.stand_in.faults = {"create": ["cut"], "list": [403]}
    with pytest.raises(llm.RefusedError):
        await rig.run(requests("a"))
    rig.model = model_of("openai", api_key="sk-another-0123456789")
    with pytest.raises(VendorBatchError, match="another key"):
        await rig.run(requests("a"))
    assert rig.stand_in.calls.count("create") == 1


@vendors
async def test_a_function_is_asked_for_the_key_of_each_call(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    keys = itertools.count()

    async def key():
        await trio.sleep(1)
        rig.stand_in.key = f"token-{next(keys)}-0123456789abcdef"
        return rig.stand_in.key

    rig.model = model_of(vendor, api_key=key)
    await rig.run(requests("a", "b"))
    assert rig.lines()["k-a"].content == "to a"
    assert next(keys) == len(rig.stand_in.calls), "none for reading what has come"


@vendors
async def test_a_key_that_ran_out_is_asked_for_again(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    good = itertools.cycle([KEY.replace("test", "past"), KEY])
    rig.model = model_of(vendor, api_key=lambda: next(good))
    await rig.run(requests("a"))
    assert rig.lines()["k-a"].content == "to a"
    rig.model = model_of(vendor, api_key=lambda: KEY.replace("test", "past"))
    with pytest.raises(llm.RefusedError, match="Incorrect API key") as caught:
        await rig.run(requests("b"))
    assert "0123456789" not in str(caught.value)


async def test_calls_are_signed(rig, autojump_clock):
    signed = []

    def sign(request):
        signed.append((request.method, len(request.body) > 0))
        return {"authorization": f"Bearer {KEY}"}

    rig.model = model_of("openai", api_key=None, sign=sign)
    await rig.run(requests("a"))
    assert rig.lines()["k-a"].content == "to a"
    assert signed[:2] == [("POST", True), ("POST", True)]
    assert len(signed) == len(rig.stand_in.calls)


async def test_each_function_has_batches_of_its_own(rig, autojump_clock):
    asked = [
        BatchRequest(name, name, model=model_of("openai", api_key=lambda: KEY)) for name in "ab"
    ]
    await rig.run(asked)
    assert rig.stand_in.calls.count("create") == 2


async def test_a_key_that_stands_twice_is_an_error(rig, autojump_clock):
    with pytest.raises(ValueError, match="'k' is twice among the requests"):
        await rig.run([BatchRequest("k", "a"), BatchRequest("k", "b")])
    assert rig.stand_in.calls == []


async def test_one_run_at_a_time_has_a_journal(rig, autojump_clock):
    with Journal(rig.journal), pytest.raises(ResultFileError):
        await rig.run(requests("a"))


def test_a_file_of_something_else_is_no_journal(tmp_path):
    path = tmp_path / "notes"
    path.write_text("my notes\n")
    with pytest.raises(ResultFileError):
        Journal(path)
    assert path.read_text() == "my notes\n"


async def test_a_line_in_between_that_is_torn_is_an_error(rig, autojump_clock):
    await rig.run(requests("a"))
    lines = rig.journal.read_bytes().splitlines(keepends=True)
    rig.journal.write_bytes(lines[0] + lines[1][:9] + b"\n" + lines[2])
    with pytest.raises(ResultFileError):
        Journal(rig.journal)


async def test_the_journal_has_no_prompt_and_no_key(rig, autojump_clock):
    await rig.run([BatchRequest("k", "a secret prompt")])
    text = rig.journal.read_text()
    assert "secret" not in text
    assert KEY not in text
    assert rig.journal.stat().st_mode & 0o777 == 0o600


# -- leaving and cancelling ----------------------------------------------------------------------


async def test_leaving_ends_the_iteration_and_no_batch(rig, autojump_clock):
    rig.stand_in.looks = 5
    async with llm.open_client(transport=StandInTransport(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results, trio.open_nursery() as nursery:

            async def leave():
                await trio.sleep(10)
                batch.leave()

            nursery.start_soon(leave)
            assert [r async for r in results] == []
            assert [(one.id, one.requests) for one in batch.statistics().at_vendor] == [
                ("batch_0", 1)
            ]
    assert "cancel" not in rig.stand_in.calls
    await rig.run(requests("a"))
    assert rig.stand_in.work == {"a": 1}


async def test_a_wait_that_was_cancelled_does_not_pass_for_the_end(rig, autojump_clock):
    rig.stand_in.looks = 9
    async with llm.open_client(transport=StandInTransport(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results:
            with trio.move_on_after(30):
                await anext(results)
            with pytest.raises(RuntimeError, match="was cancelled"):
                await anext(results)
    await rig.run(requests("a"))
    assert rig.stand_in.work == {"a": 1}


@pytest.mark.parametrize("step", ["upload", "create"])
async def test_leaving_waits_for_no_further_attempt_at_a_submission(rig, step, autojump_clock):
    rig.stand_in.faults = {step: [429] * 100}
    began = trio.current_time()
    async with llm.open_client(transport=StandInTransport(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results, trio.open_nursery() as nursery:

            async def leave():
                await trio.sleep(5)
                batch.leave()

            nursery.start_soon(leave)
            with pytest.raises(llm.RefusedError):
                await anext(results)
    assert trio.current_time() - began < 5.1
    assert batch.statistics().unsent == 1
    rig.stand_in.faults = {}
    began = trio.current_time()
    await rig.run(requests("a"))
    assert trio.current_time() - began < 20, "it is known to be absent"
    assert rig.stand_in.work == {"a": 1}


async def test_leaving_while_a_part_is_uploaded_submits_it_not(rig, autojump_clock):
    class Leaving(StandInTransport):
        async def handle_async_request(self, request):
            if request.url.path.endswith("/files"):
                batch.leave()
            return await super().handle_async_request(request)

    async with llm.open_client(transport=Leaving(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results:
            assert [r async for r in results] == []
    assert rig.stand_in.calls == ["upload"]
    assert batch.statistics().unsent == 1


@vendors
async def test_cancelling_brings_what_was_answered(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    rig.stand_in.looks = 100
    async with llm.open_client(transport=StandInTransport(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a", "b"), model=rig.model, journal=rig.journal)
        async with batch as results, trio.open_nursery() as nursery:

            async def cancel():
                await trio.sleep(10)
                batch.cancel()

            nursery.start_soon(cancel)
            assert [r.key async for r in results] == ["k-a"]
    assert [(one.key, one.reason) for one in batch.unreturned] == [("k-b", "cancelled")]
    assert rig.stand_in.calls.count("cancel") == 1


async def test_a_batch_that_is_over_needs_no_cancelling(rig, autojump_clock):
    rig.stand_in.looks = 1
    async with llm.open_client(transport=StandInTransport(rig.stand_in)) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        rig.stand_in.faults = {"cancel": [409]}
        async with batch as results:
            batch.statistics()
            found = anext(results)
            async with trio.open_nursery() as nursery:

                async def cancel():
                    await trio.sleep(1)
                    batch.cancel()

                nursery.start_soon(cancel)
                assert (await found).key == "k-a"


# -- money ---------------------------------------------------------------------------------------


async def answered_at(price, base_url, usage=None, vendor="openai"):
    """The cost of an answer from a batch."""
    stand_in = StandIn()
    model = model_of(vendor, base_url=base_url, price=price)
    if usage is not None:
        body = chat("a") | {"usage": usage}
        stand_in._work = partial(_worked, stand_in, body)
    async with llm.open_client(transport=StandInTransport(stand_in)) as client:
        with tempfile.TemporaryDirectory() as folder:
            batch = client.vendor_batch(requests("a"), model=model, journal=f"{folder}/journal")
            async with batch as results:
                return (await anext(results)).cost


def _worked(stand_in, body, batch):
    batch.status = "completed"
    answer = {"status_code": 200, "request_id": "r", "body": body}
    line = {"custom_id": batch.requests[0]["custom_id"], "response": answer, "error": None}
    batch.lines = [json.dumps(line).encode()]


STANDARD = llm.TokenPrice(input=2, output=8, cache_read=1)
OWN = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


@vendors
async def test_half_the_standard_price_at_the_vendors_own_address(vendor, autojump_clock):
    cost = await answered_at(STANDARD, OWN[vendor], vendor=vendor)
    assert (cost.amount, cost.resolution) == (COST, "resolved")


@vendors
async def test_no_price_elsewhere_without_that_of_a_batch(vendor, autojump_clock):
    cost = await answered_at(STANDARD, URL, vendor=vendor)
    assert (cost.amount, cost.resolution) == (None, "unpriced")


async def test_a_price_that_is_a_batchs_own(autojump_clock):
    price = llm.TokenPrice(input=1, output=4, service_tier="batch")
    cost = await answered_at(price, URL)
    assert (cost.amount, cost.resolution) == (COST, "resolved")


async def test_cached_tokens_at_openai_are_not_guessed(autojump_clock):
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 600}}
    cost = await answered_at(STANDARD, OWN["openai"], usage)
    assert cost.resolution == "unpriced"
    listed = llm.TokenPrice(input=1, output=4, cache_read=1, service_tier="batch")
    price = msgspec.structs.replace(STANDARD, variants=(listed,))
    cost = await answered_at(price, OWN["openai"], usage)
    assert (cost.amount, cost.resolution) == (COST, "resolved")


async def test_an_answer_without_usage_has_no_known_cost(autojump_clock):
    cost = await answered_at(STANDARD, OWN["openai"], usage={})
    assert cost.resolution == "unknown"


async def test_a_budget_that_is_spent_submits_nothing_more(rig, autojump_clock):
    async with llm.open_client(
        transport=StandInTransport(rig.stand_in), limits=llm.Limits(max_cost=0.001)
    ) as client:
        batch = client.vendor_batch(requests("a"), model=rig.model, journal=rig.journal)
        async with batch as results:
            assert [r.ok async for r in results] == [True]
        again = client.vendor_batch(requests("b"), model=rig.model, journal=rig.journal)
        with pytest.raises(llm.BudgetExceeded):
            async with again as results:
                assert [r async for r in results] == []
    assert rig.stand_in.calls.count("create") == 1


# -- misuse --------------------------------------------------------------------------------------


async def test_misuse(rig, autojump_clock):
    async with llm.open_client() as client:
        make = partial(client.vendor_batch, journal=rig.journal)
        with pytest.raises(ValueError, match="no vendor's batches for gemini"):
            make([], model=llm.gemini("m", api_key=KEY))
        with pytest.raises(TypeError, match="concurrency"):
            make([], model=rig.model, concurrency=3)
        with pytest.raises(ValueError, match="part_requests"):
            make([], model=rig.model, part_requests=0)
        with pytest.raises(TypeError, match="requests must be"):
            make("abc", model=rig.model)
        with pytest.raises(RuntimeError, match="async with"):
            await anext(make([], model=rig.model))
        with pytest.raises(ValueError, match="no model"):
            async with make(requests("a")) as results:
                await anext(results)
        batch = make([], model=rig.model)
        async with batch:
            pass
        with pytest.raises(RuntimeError, match="once"):
            async with batch:
                pass
