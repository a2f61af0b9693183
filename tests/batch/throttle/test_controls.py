"""The control of a lane in words, its log, and the signs that nothing will be accepted."""

from __future__ import annotations

import math

import pytest

import trio_minillm as llm
from trio_minillm._batch.throttle.breaker import OUTAGE_SECONDS, CircuitBreaker
from trio_minillm._batch.throttle.controls import Control, Place, Tally, duration, shown
from trio_minillm._batch.throttle.prospects import FIRST_WAVE, TOLD_AGAIN, Prospects
from trio_minillm._batch.throttle.rate_limits import Rates
from trio_minillm._batch.throttle.schedule import Item, Schedule
from trio_minillm._batch.throttle.throttle import Lane, LaneState, failure_words, network_down
from trio_minillm._batch.throttle.traced_lane import TracedLane, changes
from trio_minillm._types.errors import ErrorInfo
from trio_minillm.batch import BatchRequest

MODEL = llm.compatible("m", base_url="http://test.invalid/v1", api_key="secret")


def refused(kind="rate_limit", status=429, retry_after=None, message="no"):
    info = ErrorInfo(message=message, kind=kind, status=status)
    return llm.RefusedError(info, retry_after=retry_after)


def control(**fields):
    given = {
        "model": "m",
        "host": "h",
        "kind": "rate",
        "source": "learned",
        "limit": 1,
        "reason": "r",
    }
    return Control(**{**given, **fields})


def sent(lane, now, error=None, after=0.1):
    """Send a request, which ends soon."""
    ticket = lane.start(now, 1.0)
    lane.ended(ticket, now + after, error=error, tokens=None)


def words(lane, now, waiting=1):
    return [str(one) for one in lane.controls(now, waiting)]


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"kind": "concurrency", "limit": 20, "most": 200, "reason": "12 % refused"},
            "holding 20 of 200 at once: 12 % refused",
        ),
        ({"kind": "files", "limit": 20, "reason": "no room"}, "holding 20 at once: no room"),
        (
            {"limit": 12.0, "reason": "learned from refusals"},
            "12.0 requests/s learned from refusals",
        ),
        ({"limit": 0.05, "reason": "set by you"}, "3.0 requests/min set by you"),
        ({"kind": "tokens", "limit": 4e5, "reason": "set by you"}, "400,000 tokens/min set by you"),
        ({"kind": "pause", "limit": 3.2}, "paused 3 s: r"),
        ({"kind": "pause", "limit": 0.1}, "trying again: r"),
        ({"kind": "closed", "limit": 0}, "nothing more is sent: r"),
    ],
)
def test_a_control_is_a_sentence(fields, text):
    assert str(control(**fields)) == text


def test_durations():
    assert [duration(s) for s in (0.4, 99, 170, 7500)] == ["0 s", "99 s", "3 min", "2 h 05 min"]


def test_what_is_shown_is_held_down_by_others_than_you():
    quiet = [
        control(source="set", waiting=5),
        control(waiting=0),
        control(kind="concurrency", source="found", waiting=5),
        control(kind="concurrency", source="set", refused=0.5, waiting=5),
    ]
    loud = [
        control(waiting=1),
        control(kind="pause", limit=3),
        control(kind="concurrency", source="found", refused=0.5, limit=2, waiting=1),
    ]
    assert list(shown(tuple(quiet))) == []
    assert list(shown((*quiet, *loud))) == [
        "1.0 requests/s r",
        "paused 3 s: r",
        "and 1 more",
    ]
    other = control(model="n", kind="pause", limit=3)
    everywhere = control(model="", kind="files", source="machine", limit=3, waiting=1)
    assert list(shown((other, loud[0]))) == ["n: paused 3 s: r", "m: 1.0 requests/s r"]
    assert next(shown((everywhere, other))) == "holding 3 at once: r"


def test_the_share_of_refusals_is_that_of_the_newest_attempts():
    tally = Tally()
    assert tally.share_text == ""
    for _ in range(300):
        tally.add_refused()
    for _ in range(700):
        tally.add_accepted()
    assert tally.share_text == ""
    for _ in range(13):
        tally.add_refused()
    assert tally.share_text == "12 % refused"
    assert (tally.accepted, tally.refused) == (700, 313)


def test_a_failure_in_words_has_nothing_that_a_server_said():
    assert failure_words(refused(message="prompt")) == "rate_limit 429"
    assert failure_words(refused("server", None)) == "server"
    assert failure_words(llm.ConnectionCut("x")) == "ConnectionCut"
    said = llm.SendError("the request could not be sent to h:80: connection refused: nobody there")
    assert failure_words(said) == "connection refused: nobody there"
    assert failure_words(llm.ConnectTimeout(5)).startswith("not connected")
    lane = Lane(0.0, Rates(), None)
    for n in range(2):
        sent(lane, float(n), said)
    (pause,) = words(lane, 1.2)
    assert pause == "trying again: nothing can be sent, connection refused: nobody there"


# -- of a lane --------------------------------------------------------------------------------------


def test_a_lane_says_what_holds_it_back():
    lane = Lane(0.0, Rates(requests=600, tokens=6_000), 200)
    assert words(lane, 0.0) == [
        "holding 8 of 200 at once: found by trying",
        "10.0 requests/s set by you",
        "6,000 tokens/min set by you",
    ]
    sent(lane, 0.0)
    for n in range(20):
        sent(lane, 10.0 + n, refused("overloaded", 503))
    found = words(lane, 29.2)
    assert found[0].endswith(" of 200 at once: 95 % refused")
    assert found[-1].endswith(": failures in a row, overloaded 503")
    (told,) = [c for c in lane.controls(29.2, 7) if c.kind == "concurrency"]
    assert (told.in_use, told.waiting, told.most) == (0, 7, 200)


def test_a_lane_says_what_the_server_stated_and_asked_for():
    lane = Lane(0.0, Rates(), None)
    ticket = lane.start(0.0, 1.0)
    lane.accepted(ticket, 0.1)
    headers = {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "500",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "500",
    }
    lane.read(ticket, 0.1, headers, epoch=0.0)
    assert words(lane, 0.1) == [
        "10.0 requests/s stated by the server",
        "6,000 tokens/min stated by the server",
    ]
    now = 0.0
    while (lane.blocked(now, 1.0) or ("", 0.0))[0] != "pause":
        now += 1.0
        sent(lane, now - 0.1, refused("overloaded", 503, retry_after=30.0))
        assert now < 100.0
    assert words(lane, now)[-1] == "paused 30 s: the server asked for it"


def test_where_nothing_adapts_no_pause_is_told():
    lane = Lane(0.0, Rates(), None, "off")
    for _ in range(20):
        sent(lane, 1.0, refused("overloaded", 503))
    assert words(lane, 1.1) == []


def test_a_schedule_says_it_for_all_lanes_without_a_key():
    schedule = Schedule(5, lambda now: Lane(now, Rates(requests=60), None))
    for n in range(3):
        schedule.add(Item(BatchRequest(f"k{n}", "Hi", MODEL), MODEL, n, 0), 0.0)
    assert schedule.next(0.0) is not None
    schedule.running = 3
    assert schedule.no_room()
    files, rate = schedule.controls(0.0)
    assert str(files) == "holding 2 of 5 at once: too many open files on this machine"
    assert (rate.model, rate.host, rate.waiting) == ("m", "test.invalid", 2)
    (queue,) = schedule.queues
    assert schedule.close(queue, refused()) == 2
    assert schedule.waiting == 0
    assert not schedule.add(Item(BatchRequest("k9", "Hi", MODEL), MODEL, 9, 0), 0.0)
    closed = schedule.controls(0.0)[-1]
    assert str(closed) == "nothing more is sent: HTTP 429 rate_limit: no"
    assert "secret" not in repr(schedule.controls(0.0))


# -- prospects ---------------------------------------------------------------------------------------


def test_few_are_sent_before_the_first_answer():
    lane = Lane(0.0, Rates(), None)
    tickets = [lane.start(0.0, 1.0) for _ in range(FIRST_WAVE)]
    assert lane.blocked(0.2, 1.0) == ("concurrency", pytest.approx(0.8))
    assert lane.blocked(1.0, 1.0) is None
    lane.ended(tickets[0], 0.3, error=llm.ConnectionCut("x"), tokens=None)
    lane.start(0.3, 1.0)
    assert lane.blocked(0.3, 1.0) is None
    free = Lane(0.0, Rates(), None, "off")
    for _ in range(1_000):
        assert free.blocked(0.0, 1.0) is None
        free.start(0.0, 1.0)


def test_a_row_of_refusals_ends_with_another_cause_and_with_an_accepted_request():
    gone, other = refused("invalid", 404), refused("invalid", 400)
    prospects = Prospects()
    for n in range(1, 10):
        assert prospects.refused(gone)
        assert (prospects.row, prospects.hopeless(0)) == (n, False)
        assert not prospects.refused(refused())  # that passes
    assert prospects.wait(0.0, 10) == math.inf
    assert prospects.wait(0.0, 9) == 0.0
    assert prospects.refused(refused("invalid", 404, message="no such model req-17"))
    assert (prospects.row, prospects.mixed) == (1, True)
    for _ in range(9):
        assert prospects.refused(refused("invalid", 404, message="no such model req-18"))
    assert prospects.hopeless(9)
    assert not prospects.hopeless(10)
    assert not prospects.refused(other)
    assert prospects.row == 0
    prospects.refused(gone)
    prospects.accepted(0.0)
    assert prospects.row == 0
    assert not prospects.refused(gone)


def test_a_long_wait_is_believed_if_nothing_sent_since_is_accepted():
    prospects = Prospects()
    prospects.told(1.0, 0.0, [])
    for n in range(TOLD_AGAIN):
        assert prospects.asked_to_wait
        assert not prospects.shut
        prospects.told(2.0, 0.5, [])  # was under way
        prospects.told(2.0, 1.0 + n, [])
    assert prospects.shut
    prospects.accepted(0.5)  # was under way
    assert prospects.shut
    prospects.accepted(1.0)
    assert not prospects.shut
    assert not prospects.asked_to_wait
    for _ in range(TOLD_AGAIN + 1):
        prospects.told(3.0, 3.0, [3.0] * 4 + [2.0] * 4)  # which may be accepted
    assert not prospects.shut
    prospects.told(3.0, 3.0, [3.0] * 4)
    assert prospects.shut


def test_a_lane_pauses_for_as_long_as_it_believes():
    lane = Lane(0.0, Rates(), None)
    now = 0.0
    for _ in range(8):
        sent(lane, now, refused("overloaded", 503, retry_after=600.0))
        now += 0.2 + (lane.blocked(now + 0.1, 1.0) or ("", 0.0))[1]
    reason, wait = lane.blocked(now - 599.0, 1.0)
    assert (reason, wait) == ("pause", pytest.approx(599.0, abs=2.0))


def test_an_address_that_answered_before_is_tried_for_longer():
    breaker = CircuitBreaker()
    breaker.answered()
    breaker.failed(10.0, 9.0, asked=None, longest=60.0)
    assert not breaker.unreachable(10.0 + OUTAGE_SECONDS - 1.0, stays=True)
    assert breaker.unreachable(10.0 + OUTAGE_SECONDS)
    breaker.answered()
    breaker.failed(10_000.0, 9_999.0, asked=None, longest=60.0)
    assert not breaker.unreachable(10_010.0)


@pytest.mark.parametrize(
    ("error", "down"),
    [
        (llm.SendError("x", reason="refused"), True),
        (llm.SendError("x", reason="no_such_host"), True),
        (llm.SendError("x", reason="unreachable"), True),
        (llm.ConnectTimeout(5), True),
        (llm.SendError("x"), False),
        (llm.SendError("x", reason="tls"), False),
        (refused(), False),
    ],
)
def test_a_network_that_is_down(error, down):
    assert network_down(error) is down


# -- the log ------------------------------------------------------------------------------------------


def test_a_traced_lane_tells_its_decisions_and_decides_as_any():
    found = []
    lane = TracedLane(5.0, Rates(), 40, "rate+concurrency", tell=found.append, began=5.0)
    plain = Lane(5.0, Rates(), 40)
    lane.place = Place("m", "h")
    headers = {"x-ratelimit-limit-requests": "6000", "x-ratelimit-remaining-requests": "500"}
    now = 5.0
    for n in range(400):
        bad = refused() if n % 100 >= 80 else None
        if 40 <= n < 80 and n % 3 == 0:
            bad = refused("overloaded", 503)
        for one in (lane, plain):
            ticket = one.start(now, 1.0)
            if bad is None:
                one.accepted(ticket, now + 0.05)
                one.accepted(ticket, now + 0.05)
                if n > 200:
                    one.read(ticket, now + 0.05, headers, epoch=0.0)
            one.ended(ticket, now + 0.1, error=bad, tokens=None)
        assert lane.state(now) == plain.state(now)
        now += 0.2
    names = {event.event for event in found}
    assert names >= {"refused", "concurrency", "stated", "paused", "resumed", "cut"}
    paused = next(event for event in found if event.event == "paused")
    assert paused.why.startswith("failures in a row")
    assert paused.after == pytest.approx(paused.paused)
    assert all((e.model, e.host) == ("m", "h") and 0 <= e.time <= 100 for e in found)
    lane.note(now, "sample")
    assert (found[-1].accepted, found[-1].refused) == (0, 5)
    sent(lane, now)
    sent(lane, now)
    sent(lane, now, refused("invalid", 400))
    lane.note(now + 0.1, "sample")
    assert (found[-1].accepted, found[-1].refused) == (2, 4)
    assert found[-2].why == "invalid 400"


STATE = LaneState(
    concurrency=8, rate=None, settled=False, stated=(), open=False, paused_until=-math.inf
)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, []),
        ({}, {"concurrency": 5}, [("concurrency", 8, 5)]),
        ({}, {"rate": 10.0}, [("cut", None, 10.0)]),
        ({"rate": 10.0}, {"rate": 8.0}, [("cut", 10.0, 8.0)]),
        ({"rate": 10.0}, {"rate": 40.0}, [("raised", 10.0, 40.0)]),
        ({"rate": 10.0}, {"rate": 8.0, "settled": True}, [("limited", 10.0, 8.0)]),
        ({"rate": 10.0, "settled": True}, {"rate": 10.1, "settled": True}, []),
        ({"rate": 10.0}, {}, [("freed", 10.0, None)]),
        ({}, {"stated": (("rate", 5.0),)}, [("stated", None, 5.0)]),
        (
            {"stated": (("rate", 5.0), ("tokens", 60.0))},
            {"stated": (("rate", 5.0), ("tokens", 70.0))},
            [("stated", 60.0, 70.0)],
        ),
        ({}, {"open": True, "paused_until": 12.0}, [("paused", 0.0, 2.0)]),
        (
            {"open": True, "paused_until": 11.0},
            {"open": True, "paused_until": 14.0},
            [("paused", 1.0, 4.0)],
        ),
        ({"open": True, "paused_until": 11.0}, {}, [("resumed", 1.0, 0.0)]),
        ({"open": True, "paused_until": 9.0}, {"open": True, "paused_until": 9.0}, []),
    ],
)
def test_what_lies_between_two_states(before, after, found):
    told = changes(STATE._replace(**before), STATE._replace(**after), 10.0)
    assert list(told) == found
