"""The table of money: how an attempt ends x the usage on the wire x the price -> what is booked.

The rules behind it (``house.md``, 8): every attempt is in the ledger once; ``on_cost`` is told of
the finished and cancelled ones, once each; a figure is never made up, and what is absent is never
zero. All expected amounts stand in the table; none is computed by the code under test.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import CostResolution, Outcome, TokenPrice, testing
from trio_minillm.testing import ScriptedTransport, hang, reply, settlement

from ..support.recorded import Recording, recordings
from ..support.streams import Told, take
from ..support.wires import URL, Spent, begin, end, in_band_error, model_on

# -- the table -----------------------------------------------------------------------------------
#
# On every wire 3 input tokens; 1 output token in a provisional usage, 2 in the final one.
# native   the usage names a cost: 0.2 USD in a provisional one, 0.5 in the final one
# table    it names none, and the model has a price: 1 USD an input token, 10 USD an output token,
#          so 13 USD for the provisional usage and 23 for the final one
# none     neither
#
#   =x         resolved, x USD                 unpriced   the usage is known, its price is not
#   >=x        lower bound, x USD              unknown    not even the usage is known
#   ?…         the provider is asked and says 0.7; what follows holds until then, and for ever if
#              it never answers (or, of a finished one, if the client's block ends before)
#   (a) (b)    impossible, see REASONS
#
# b.           attempts that are booked, and calls of on_cost

TABLE = """
                                      |             | OpenAI                    | Anthropic         | OpenRouter
how the attempt ends      usage       | outcome   b. | native   table    none    | table    none    | native    table     none
-------------------------------------------------------------------------------------------------------------------------
finished                  final       | finished  1 | =0.5     =23      unpriced| =23      unpriced| =0.5      =23       ?unpriced
finished                  provisional | finished  1 | >=0.2    >=13     unpriced| >=13     unpriced| ?>=0.2    ?>=13     ?unpriced
finished                  none        | finished  1 | (m)      unknown  unknown | unknown  unknown | (m)       ?unknown  ?unknown
-------------------------------------------------------------------------------------------------------------------------
truncated: body ended     final       | truncated 0 | (e)      (e)      (e)     | (f)      (f)     | (e)       (e)       (e)
truncated: body ended     provisional | truncated 0 | >=0.2    >=13     unpriced| >=13     unpriced| >=0.2     >=13      unpriced
truncated: body ended     none        | truncated 0 | (m)      unknown  unknown | unknown  unknown | (m)       unknown   unknown
-------------------------------------------------------------------------------------------------------------------------
truncated: cut            final       | truncated 0 | (e)      (e)      (e)     | (f)      (f)     | (e)       (e)       (e)
truncated: cut            provisional | truncated 0 | >=0.2    >=13     unpriced| >=13     unpriced| >=0.2     >=13      unpriced
truncated: cut            none        | truncated 0 | (m)      unknown  unknown | unknown  unknown | (m)       unknown   unknown
-------------------------------------------------------------------------------------------------------------------------
errored: in-band          final       | errored   0 | (e)      (e)      (e)     | =23      unpriced| (e)       (e)       (e)
errored: in-band          provisional | errored   0 | >=0.2    >=13     unpriced| >=13     unpriced| >=0.2     >=13      unpriced
errored: in-band          none        | errored   0 | (m)      unknown  unknown | unknown  unknown | (m)       unknown   unknown
-------------------------------------------------------------------------------------------------------------------------
errored: clock            final       | errored   0 | (e)      (e)      (e)     | (f)      (f)     | (e)       (e)       (e)
errored: clock            provisional | errored   0 | >=0.2    >=13     unpriced| >=13     unpriced| >=0.2     >=13      unpriced
errored: clock            none        | errored   0 | (m)      unknown  unknown | unknown  unknown | (m)       unknown   unknown
-------------------------------------------------------------------------------------------------------------------------
cancelled: before headers final       | cancelled 1 | (h)      (h)      (h)     | (h)      (h)     | (h)       (h)       (h)
cancelled: before headers provisional | cancelled 1 | (h)      (h)      (h)     | (h)      (h)     | (h)       (h)       (h)
cancelled: before headers none        | cancelled 1 | (m)      unknown  unknown | unknown  unknown | (m)       unknown   unknown
-------------------------------------------------------------------------------------------------------------------------
cancelled: after headers  final       | cancelled 1 | (c)      (c)      (c)     | (c)      (c)     | (c)       (c)       (c)
cancelled: after headers  provisional | cancelled 1 | (c)      (c)      (c)     | >=13     unpriced| (c)       (c)       (c)
cancelled: after headers  none        | cancelled 1 | (m)      unknown  unknown | unknown  unknown | (m)       ?unknown  ?unknown
-------------------------------------------------------------------------------------------------------------------------
cancelled: midway         final       | cancelled 1 | (e)      (e)      (e)     | =23      unpriced| (e)       (e)       (e)
cancelled: midway         provisional | cancelled 1 | >=0.2    >=13     unpriced| >=13     unpriced| ?>=0.2    ?>=13     ?unpriced
cancelled: midway         none        | cancelled 1 | (m)      unknown  unknown | unknown  unknown | (m)       ?unknown  ?unknown
-------------------------------------------------------------------------------------------------------------------------
cancelled: end in buffer  final       | finished  1 | =0.5     =23      unpriced| =23      unpriced| =0.5      =23       ?unpriced
cancelled: end in buffer  provisional | finished  1 | >=0.2    >=13     unpriced| >=13     unpriced| ?>=0.2    ?>=13     ?unpriced
cancelled: end in buffer  none        | finished  1 | (m)      unknown  unknown | unknown  unknown | (m)       ?unknown  ?unknown
-------------------------------------------------------------------------------------------------------------------------
cancelled: text in buffer final       | cancelled 1 | (e)      (e)      (e)     | (t)      (t)     | (e)       (e)       (e)
cancelled: text in buffer provisional | cancelled 1 | >=0.2    >=13     unpriced| >=13     unpriced| ?>=0.2    ?>=13     ?unpriced
cancelled: text in buffer none        | cancelled 1 | (m)      unknown  unknown | unknown  unknown | (m)       ?unknown  ?unknown
-------------------------------------------------------------------------------------------------------------------------
rejected                  final       | cancelled 0 | (e)      (e)      (e)     | =23      unpriced| (e)       (e)       (e)
rejected                  provisional | cancelled 0 | >=0.2    >=13     unpriced| >=13     unpriced| >=0.2     >=13      unpriced
rejected                  none        | cancelled 0 | (m)      unknown  unknown | unknown  unknown | (m)       unknown   unknown
-------------------------------------------------------------------------------------------------------------------------
retried, then finished    final       | finished  1 | =0.5     =23      unpriced| =23      unpriced| =0.5      =23       ?unpriced
retried, then finished    provisional | finished  1 | >=0.2    >=13     unpriced| >=13     unpriced| ?>=0.2    ?>=13     ?unpriced
retried, then finished    none        | finished  1 | (m)      unknown  unknown | unknown  unknown | (m)       ?unknown  ?unknown
"""

REASONS = {
    "(n)": "no cost stands on Anthropic's wire",
    "(m)": "the wire names a cost in its usage, and there is none",
    "(e)": "on this wire the final usage ends the stream: it is finished",
    "(f)": "with reason and final usage it is finished, whatever is missing behind them",
    "(h)": "nothing comes before the headers",
    "(c)": "on this wire no such usage comes before the content",
    "(t)": "on this wire the final usage stands behind all text",
}

PRICE = TokenPrice(input=1_000_000, output=10_000_000)
PRICES = ("native", "table", "none")
USAGES = {  # provisional and final, by price
    "native": (Spent(3, 1, cost=0.2), Spent(3, 2, cost=0.5)),
    "table": (Spent(3, 1), Spent(3, 2)),
    "none": (Spent(3, 1), Spent(3, 2)),
}
ANSWERED = CostResolution.RESOLVED, Decimal("0.7")


class Cell(NamedTuple):
    """One attempt of the table."""

    how: str
    usage: str
    outcome: Outcome
    booked: int
    wire: str
    price: str
    says: str

    @property
    def asked(self) -> bool:
        """Return whether the provider is asked for the cost afterwards."""
        return self.says.startswith("?")

    @property
    def figure(self) -> tuple[CostResolution, Decimal | None]:
        """Return the cost, and how certain it is, that the stream alone tells."""
        says = self.says.removeprefix("?")
        if says.startswith("="):
            return CostResolution.RESOLVED, Decimal(says[1:])
        if says.startswith(">="):
            return CostResolution.LOWER_BOUND, Decimal(says[2:])
        return CostResolution(says), None

    @property
    def param(self) -> Any:
        name = f"{self.how}, {self.usage} usage, {self.wire}, {self.price} price"
        if self.says in REASONS:
            return pytest.param(self, id=name, marks=pytest.mark.skip(reason=REASONS[self.says]))
        return pytest.param(self, id=name)


def cells() -> Iterator[Cell]:
    for line in TABLE.splitlines()[3:]:
        if line.startswith("---"):
            continue
        head, ends, openai, anthropic, openrouter = line.split("|")
        how, usage = head.strip().rsplit(maxsplit=1)
        outcome, booked = ends.split()
        columns = {"openai": openai, "anthropic": f"(n) {anthropic}", "openrouter": openrouter}
        for wire, column in columns.items():
            for price, says in zip(PRICES, column.split(), strict=True):
                cell = Cell(
                    how.strip(), usage, Outcome(outcome), int(booked), wire, price, says.strip()
                )
                yield cell


def script(cell: Cell) -> list[Any]:
    """The replies that bring it about."""
    wire = cell.wire
    provisional, final = USAGES[cell.price]
    early = begin(wire, provisional if cell.usage == "provisional" else None)
    late = end(wire, final if cell.usage == "final" else None)
    if wire == "anthropic" and cell.usage == "final":
        early = begin(wire, provisional)  # which has the input tokens
    headers = {"content-type": "text/event-stream", "x-request-id": "req-1"}
    if wire == "openrouter":
        headers["x-generation-id"] = "gen-1"
    # Anthropic's final usage comes one event before its end.
    open_end = late[:-1] if cell.usage == "final" else []
    steps = {
        "finished": [*early, *late],
        "truncated: body ended": early,
        "truncated: cut": [*early, OSError("cut")],
        "errored: in-band": [*early, *open_end, in_band_error(wire)],
        "errored: clock": [*early, hang],
        "cancelled: before headers": [],
        "cancelled: after headers": [*(early[:1] if cell.usage == "provisional" else []), hang],
        "cancelled: midway": [*early, *open_end, hang],
        "cancelled: end in buffer": [*early, *late, hang],
        "cancelled: text in buffer": [*early, hang],
        "rejected": [*early, *open_end, hang],
        "retried, then finished": [*early, *late],
    }[cell.how]
    wait = hang if cell.how == "cancelled: before headers" else 0.0
    answer = reply(*steps, headers=headers, wait=wait)
    failed = reply(b"{}", status=503)
    return [failed, answer] if cell.how.startswith("retried") else [answer]


async def consume(cell: Cell, stream: llm.TrackedStream) -> None:
    """Take what the table wants to be taken."""
    what, _, where = cell.how.partition(": ")
    if what in ("cancelled", "rejected"):
        if where == "midway" or what == "rejected":
            await take(stream, "abc")
            if cell.usage == "final":
                while stream.finish_reason is None:
                    await stream.next_chunk()
        elif where.endswith("buffer"):
            await take(stream, "a")
        await trio.testing.wait_all_tasks_blocked()
        return
    with suppress(llm.MiniLLMError):
        async for _ in stream:
            pass
    assert stream.outcome is cell.outcome


async def leave(cell: Cell, stream: llm.TrackedStream, way: str, scope: trio.CancelScope) -> None:
    if cell.how == "rejected":
        stream.reject()
    elif cell.how.startswith("cancelled"):
        if way == "cancel()":
            await stream.cancel()
        elif way.startswith("scope"):
            scope.cancel()
            if way != "scope":
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
            await trio.lowlevel.checkpoint()


def ways(cell: Cell) -> tuple[str, ...]:
    if cell.how.startswith("cancelled"):
        return ("block", "cancel()", "scope", "scope, the stream's task first")
    return ("block",)


@pytest.mark.parametrize("cell", [cell.param for cell in cells()])
async def test_the_table(
    cell: Cell, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await play(cell, answers=True)
    told = [record.message for record in caplog.records]
    assert all("another follows" in words for words in told)  # only of the retry


@pytest.mark.parametrize("cell", [cell.param for cell in cells() if cell.asked])
async def test_the_table_without_an_answer(
    cell: Cell, autojump_clock: trio.testing.MockClock
) -> None:
    await play(cell, answers=False)


async def play(cell: Cell, *, answers: bool) -> None:
    for way in ways(cell):
        told = Told()
        settlements = [reply(b"{}", status=404), settlement(0.7)] if answers else []
        transport = ScriptedTransport(*script(cell), settlements=settlements)
        model = model_on(cell.wire, price=PRICE if cell.price == "table" else None)
        meta = {"row": cell.how, "way": way}
        async with llm.open_client(transport=transport, on_cost=told) as client:
            with trio.CancelScope() as scope:
                async with client.stream(model, "Hi", meta=meta) as stream:
                    await consume(cell, stream)
                    await leave(cell, stream, way, scope)
            at_once = stream.records
            if cell.asked:  # the client's block waits for cancelled streams only
                await trio.sleep(40)
        check(cell, answers, client.ledger, told, stream, at_once, meta)
        assert bool(transport.questions) is cell.asked
        assert len(transport.requests) == client.ledger.attempts
        assert transport.open_bodies == 0


def check(
    cell: Cell,
    answers: bool,
    ledger: llm.Ledger,
    told: Told,
    stream: llm.TrackedStream,
    at_once: tuple[llm.CostRecord, ...],
    meta: object,
) -> None:
    resolution, amount = ANSWERED if cell.asked and answers else cell.figure
    retried = cell.how.startswith("retried")

    # The ledger.
    assert ledger.attempts == 1 + retried
    assert ledger.outcomes == Counter({cell.outcome: 1} | ({Outcome.ERRORED: 1} if retried else {}))
    assert ledger.totals.booked == cell.booked
    assert ledger.totals.rejected == (cell.how == "rejected")
    assert ledger.resolutions == ({resolution: 1} if cell.booked else {})
    assert ledger.total == ((amount or 0) if cell.booked else 0)
    assert ledger.unbooked == (0 if cell.booked else (amount or 0))
    assert [r.id for r in ledger.unsettled] == (["gen-1"] if cell.asked and not answers else [])

    # The callback, once for what is booked.
    assert len(told.records) == cell.booked
    for record in told.records:
        assert (record.resolution, record.amount) == (resolution, amount)
        assert record.meta == meta
        assert record.booked
        assert record.unsettled is (cell.asked and not answers)

    # The record of the last attempt; before any answer it said what the stream said.
    record = stream.records[-1]
    assert told.records in ([], [record])
    assert ledger.recent[-1].key == record.key == at_once[-1].key
    assert (record.resolution, record.amount) == (resolution, amount)
    assert (record.outcome, record.attempt) == (cell.outcome, 1 + retried)
    assert (record.booked, record.rejected) == (bool(cell.booked), cell.how == "rejected")
    assert (record.model, record.provider, record.base_url) == ("a/b", cell.wire, URL)
    assert record.meta == meta
    before = cell.how == "cancelled: before headers"
    assert record.request_id == (None if before else "req-1")
    nameless = before or (cell.how == "cancelled: after headers" and record.usage is None)
    if cell.wire == "openrouter" and not before:
        nameless = False
    assert record.id == (None if nameless else "gen-1")

    # The stream's own figures agree; what was rejected is nobody's to pay.
    shown = stream.response.cost
    if cell.how == "rejected":
        assert shown == llm.CostInfo()
    else:
        assert (shown.resolution, shown.amount) == (resolution, amount)
    if not (cell.asked and answers):
        assert (at_once[-1].resolution, at_once[-1].amount) == cell.figure
        if cell.usage == "none":
            assert record.usage is None
        else:
            assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (
                (3, 2) if cell.usage == "final" else (3, 1)
            )
            assert record.usage.final is (cell.usage == "final")


def test_the_table_is_whole() -> None:
    """Every combination stands in it exactly once, and every reason is used."""
    found = Counter((c.how, c.usage, c.wire, c.price) for c in cells())
    assert set(found.values()) == {1}
    assert len(found) == len({c.how for c in cells()}) * 3 * 3 * 3
    assert {c.says for c in cells()} >= set(REASONS)


# -- a failed attempt that had begun -------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "resolution", "amount"),
    [
        ("table", CostResolution.LOWER_BOUND, Decimal(13)),
        ("none", CostResolution.UNPRICED, None),
    ],
)
async def test_what_a_failed_attempt_had_used_is_kept_apart(
    price: str,
    resolution: CostResolution,
    amount: Decimal | None,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Anthropic's message_start, with usage, and then: overloaded. The next attempt finishes."""
    provisional, final = USAGES[price]
    opening = begin("anthropic", provisional, id="msg-failed")[0]
    told = Told()
    transport = ScriptedTransport(
        reply(opening, in_band_error("anthropic", 529), headers={"request-id": "req-1"}),
        reply(*begin("anthropic", provisional), *end("anthropic", final)),
    )
    model = model_on("anthropic", price=PRICE if price == "table" else None)
    async with llm.open_client(transport=transport, on_cost=told) as client:
        response = await client.complete(model, "Hi")
    failed, finished = client.ledger.recent
    assert (failed.id, failed.request_id, failed.attempt) == ("msg-failed", "req-1", 1)
    assert (failed.outcome, failed.booked, failed.error) == (
        Outcome.ERRORED,
        False,
        "ProviderError",
    )
    assert (failed.resolution, failed.amount) == (resolution, amount)
    assert (failed.usage.prompt_tokens, failed.usage.completion_tokens) == (3, 1)
    assert (finished.id, finished.request_id, finished.attempt) == ("gen-1", None, 2)
    assert response.usage.completion_tokens == 2
    assert client.ledger.total == (23 if price == "table" else 0)
    assert client.ledger.unbooked == (amount or 0)
    assert [record.key for record in told.records] == [finished.key]


@pytest.mark.parametrize("whole", [False, True])
async def test_what_the_event_of_a_failure_says_is_of_its_attempt(
    whole: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """An error is the only event, and it has the id and the usage: they are not the next attempt's."""
    failure = {
        "id": "gen-failed",
        "error": {"code": 502, "message": "boom"},
        "usage": {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9},
    }
    transport = ScriptedTransport(
        testing.json_reply(failure) if whole else reply(testing.sse(failure)),
        reply(*begin("openai"), *end("openai", Spent(3, 2))),
    )
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(model_on("openai", price=PRICE), "Hi")
    failed, finished = client.ledger.recent
    assert (failed.id, failed.outcome, failed.booked) == ("gen-failed", Outcome.ERRORED, False)
    assert (failed.usage.prompt_tokens, failed.usage.completion_tokens) == (4, 5)
    assert failed.resolution is CostResolution.LOWER_BOUND
    assert (finished.usage.prompt_tokens, finished.usage.completion_tokens) == (3, 2)
    assert response.usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("replies", "outcomes", "errors"),
    [
        ([reply(b"{}", status=500)] * 3, ["errored"] * 3, ["RefusedError"] * 3),
        ([reply(error=OSError("no"))] * 3, ["errored"] * 3, ["SendError"] * 3),
        ([reply(b"{}", status=401)], ["errored"], ["RefusedError"]),
        ([reply()], ["truncated"], ["EndedEarly"]),
    ],
)
async def test_every_failed_attempt_has_its_record_and_no_callback(
    replies: list[Any],
    outcomes: list[str],
    errors: list[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    told = Told()
    transport = ScriptedTransport(*replies)
    async with llm.open_client(transport=transport, on_cost=told) as client:
        with pytest.raises(llm.MiniLLMError):
            await client.complete(model_on("openrouter", price=PRICE), "Hi", meta="m")
    records = client.ledger.recent
    assert [str(r.outcome) for r in records] == outcomes
    assert [r.error for r in records] == errors
    assert [r.attempt for r in records] == list(range(1, len(replies) + 1))
    assert {(r.meta, r.booked, r.resolution) for r in records} == {
        ("m", False, CostResolution.UNKNOWN)
    }
    assert (client.ledger.total, told.records, transport.questions) == (0, [], [])
    assert client.ledger.unsettled == ()


async def test_the_wires_own_figure_beats_the_price() -> None:
    for wire in ("openai", "openrouter"):
        transport = ScriptedTransport(reply(*begin(wire), *end(wire, Spent(3, 2, cost=0.5))))
        async with llm.open_client(transport=transport) as client:
            response = await client.complete(model_on(wire, price=PRICE), "Hi")
        assert response.cost == llm.CostInfo(Decimal("0.5"), CostResolution.RESOLVED, "native")


async def test_the_calls_price_beats_the_models() -> None:
    transport = ScriptedTransport(reply(*begin("openai"), *end("openai", Spent(3, 2))))
    cheap = TokenPrice(input=2_000_000, output=0)
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(model_on("openai", price=PRICE), "Hi", price=cheap)
    assert response.cost.amount == client.ledger.total == 6


# -- the user's own key --------------------------------------------------------------------------

BYOK = [
    # is_byok, cost, upstream -> what it cost
    (True, 0.05, 0.2, "=0.25"),
    (True, 0, 0.2, "=0.2"),
    (False, 0.2, 0.2, "=0.2"),
    (None, 0.2, 0.2, "=0.2"),
    (True, 0.05, None, ">=0.05"),
    (False, 0.2, None, "=0.2"),
]
by_key = pytest.mark.parametrize(("is_byok", "cost", "upstream", "says"), BYOK)


@by_key
async def test_the_upstreams_charge_is_added_for_the_users_own_key_only(
    is_byok: bool | None, cost: float, upstream: float | None, says: str
) -> None:
    """In the stream; the cached tokens are a part of the prompt."""
    more = {
        "is_byok": is_byok,
        "cost_details": {"upstream_inference_cost": upstream},
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    used = Spent(10, 2, cost, more)
    transport = ScriptedTransport(
        reply(*begin("openrouter"), *end("openrouter", used)), settlements=[settlement(9)]
    )
    async with llm.open_client(transport=transport, timeouts=llm.Timeouts(settlement=None)) as c:
        response = await c.complete(model_on("openrouter"), "Hi")
    _same(says, response.cost, c.ledger.total)
    usage = response.usage
    assert (usage.uncached_input_tokens, usage.cache_read_tokens) == (6, 4)
    assert (usage.prompt_tokens, usage.completion_tokens) == (10, 2)


@by_key
async def test_so_it_is_when_the_provider_is_asked(
    is_byok: bool | None,
    cost: float,
    upstream: float | None,
    says: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    answer = settlement(
        cost,
        is_byok=is_byok,
        upstream_inference_cost=upstream,
        native_tokens_prompt=10,
        native_tokens_completion=2,
        native_tokens_cached=4,
        native_tokens_reasoning=1,
        tokens_prompt=99,
        tokens_completion=99,
    )
    transport = ScriptedTransport(reply(*begin("openrouter"), hang), settlements=[answer])
    async with llm.open_client(transport=transport) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "abc")
            response = await stream.cancel()
    _same(says, response.cost, client.ledger.total)
    usage = response.usage
    assert usage is not None
    assert usage.final
    assert (usage.uncached_input_tokens, usage.cache_read_tokens) == (6, 4)
    assert (usage.prompt_tokens, usage.completion_tokens) == (10, 2)
    assert usage.reasoning_tokens == 1


def _same(says: str, cost: llm.CostInfo, total: Decimal) -> None:
    resolution = CostResolution.LOWER_BOUND if says[0] == ">" else CostResolution.RESOLVED
    amount = Decimal(says.lstrip(">="))
    assert (cost.resolution, cost.amount, total) == (resolution, amount, amount)


# -- recorded streams ----------------------------------------------------------------------------

TICKS_IN_A_USD = 10**10


def recorded_cost(recording: Recording) -> Decimal | None:
    """Return the cost that the recording states, digit by digit, or ``None`` if it states none."""
    path = recording._file(".expected.json")
    expected = json.loads(path.read_bytes(), parse_float=Decimal)
    usage, raw = expected["usage"] or {}, expected.get("usage_raw") or {}
    if usage.get("cost") is not None:
        assert not raw.get("is_byok"), "such a one costs more: write that down here"
        return Decimal(usage["cost"])
    ticks = raw.get("cost_in_usd_ticks")
    return Decimal(ticks) / TICKS_IN_A_USD if ticks else None


def with_cost() -> list[Any]:
    params = recordings("openai_chat", "openrouter")
    return [p for p in params if p.values[0] is None or recorded_cost(p.values[0]) is not None]


def lost_with_its_error(recording: Recording) -> bool:
    """Return whether the recording reports a failure, with its usage beside the error or behind it."""
    expected = recording.expected
    return bool(expected.get("error") or expected.get("out_of_band_error"))


def model_of(recording: Recording) -> llm.Model:
    make = llm.openrouter if recording.dialect == "openrouter" else llm.compatible
    return make("the-model", base_url=URL, api_key="k")


def content_type(recording: Recording) -> dict[str, str]:
    return {"content-type": recording.meta["content_type"] or "text/event-stream"}


@pytest.mark.parametrize("recording", with_cost())
async def test_a_recorded_stream_costs_what_it_says(
    recording: Recording, autojump_clock: trio.testing.MockClock
) -> None:
    if lost_with_its_error(recording):
        pytest.skip("it reports an error: errored, not booked, and the cost is not read any more")
    told = Told()
    headers = content_type(recording)
    transport = ScriptedTransport(reply(recording.body, headers=headers))
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(model_of(recording), "Hi", meta=recording.name) as stream:
            async for _ in stream:
                pass
    cost = recorded_cost(recording)
    expected = llm.CostInfo(cost, CostResolution.RESOLVED, "native")
    assert stream.response.cost == expected
    assert [(r.cost, r.meta) for r in told.records] == [(expected, recording.name)]
    assert client.ledger.total == cost
    assert transport.questions == []


async def test_all_recorded_streams_together_cost_their_exact_sum(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """At once, in one client: nothing is rounded, lost or counted twice."""
    played = [p.values[0] for p in with_cost()]
    if played[0] is None:
        pytest.skip("no recordings")
    played = {r.name: r for r in played if not lost_with_its_error(r)}
    assert len(played) > 100

    def answer(request: httpx.Request) -> httpx.Response:
        recording = played[json.loads(request.content)["model"]]
        return httpx.Response(200, headers=content_type(recording), content=recording.body)

    told = Told()
    async with llm.open_client(transport=httpx.MockTransport(answer), on_cost=told) as client:
        async with trio.open_nursery() as nursery:
            for recording in played.values():
                model = msgspec.structs.replace(model_of(recording), name=recording.name)
                nursery.start_soon(client.complete, model, "Hi")
    costs = {name: recorded_cost(recording) for name, recording in played.items()}
    assert Fraction(client.ledger.total) == sum(map(Fraction, costs.values()))
    assert {r.model: r.amount for r in told.records} == costs
    assert len(told.records) == client.ledger.totals.booked == len(played)
    assert client.ledger.unbooked == 0


async def test_an_in_band_error_leaves_the_recording_unbooked() -> None:
    failed = [
        p.values[0]
        for p in with_cost()
        if p.values[0] is not None and lost_with_its_error(p.values[0])
    ]
    if not failed:
        pytest.skip("no recordings")
    for recording in failed:
        headers = content_type(recording)
        transport, told = ScriptedTransport(reply(recording.body, headers=headers)), Told()
        async with llm.open_client(transport=transport, on_cost=told) as client:
            with pytest.raises(llm.ProviderError):
                await client.complete(model_of(recording), "Hi")
        assert (client.ledger.attempts, client.ledger.totals.booked) == (1, 0)
        assert (client.ledger.total, told.records) == (0, [])
