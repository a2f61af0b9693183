"""The pure parts of a batch: rates, headers, concurrency, turns, retries, tokens."""

from __future__ import annotations

import copy
import heapq
import itertools
import math
import pickle
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._batch.throttle.concurrency import START, ConcurrencyLimit
from trio_minillm._batch.throttle.cut_pays import BELOW, ENOUGH, FEW, LEAST, CutTest
from trio_minillm._batch.throttle.own_fault import Ticket
from trio_minillm._batch.throttle.rate_headers import (
    RateLimit,
    family_of,
    limits_in,
)
from trio_minillm._batch.throttle.rate_limits import Rates
from trio_minillm._batch.throttle.retry import (
    ALLOWANCE,
    BATCH_RETRY,
    RetryBudget,
    counted_attempts,
    is_fatal,
    retry_delay,
    worth_retrying,
)
from trio_minillm._batch.throttle.schedule import Item, Schedule
from trio_minillm._batch.throttle.throttle import Lane
from trio_minillm._batch.throttle.token_bucket import StatedLimit, TokenBucket
from trio_minillm._batch.throttle.token_estimate import estimate_tokens
from trio_minillm._types.errors import ErrorInfo
from trio_minillm.batch import BatchRequest

MODELS = [llm.compatible(name, base_url="http://test.invalid/v1") for name in "abc"]


def refused(kind="rate_limit", status=429, retry_after=None, **more):
    info = ErrorInfo(message="no", kind=kind, status=status, **more)
    return llm.RefusedError(info, retry_after=retry_after)


def item(model=MODELS[0], index=0):
    return Item(BatchRequest(f"k{index}", "Hello", model), model, index, 0)


# -- buckets ---------------------------------------------------------------------------------------


@given(
    st.floats(0.1, 1000),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 3)), min_size=1, max_size=60),
)
def test_a_bucket_lets_through_its_rate_and_what_it_may_save_up(rate, asked):
    bucket, now, taken = TokenBucket(rate, 5.0, 0.0), 0.0, 0.0
    for pause, amount in asked:
        now += pause
        wait = bucket.wait(amount, now)
        assert 0 <= wait <= amount / rate + 1e-5
        now += wait
        bucket.take(amount, now)
        taken += amount
        assert taken <= 5.0 + rate * now + 3.0 + 1e-3


def test_a_bucket_lets_a_request_through_that_is_larger_than_itself_and_makes_it_good():
    bucket = TokenBucket(1.0, 10.0, 0.0)
    assert bucket.wait(100.0, 0.0) == 0.0
    bucket.take(100.0, 0.0)
    assert bucket.wait(1.0, 0.0) == pytest.approx(91.0)


# -- headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            [RateLimit("requests", 60, 59, 1), RateLimit("tokens", 150000, 149984, 360)],
        ),
        (
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "1970-01-01T00:00:02Z",
            },
            [RateLimit("requests", 50, 49, 2)],
        ),
        (
            {
                "x-ratelimit-limit": "20",
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": "1741305600000",
            },
            [RateLimit("requests", 20, 0, pytest.approx(1741305600.0))],
        ),
        ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-remaining-tokens": "7"}, None),
        ({"x-ratelimit-remaining-requests": "7"}, [RateLimit("requests", None, 7, None)]),
    ],
)
def test_headers_of_all_customs_are_read(headers, found):
    limits = limits_in(headers, family_of(headers), epoch=0.0)
    assert limits == ([RateLimit("tokens", None, 7, None)] if found is None else found)


def test_servers_without_such_headers_have_no_custom():
    assert family_of({"content-type": "text/event-stream"}) is None


def test_what_was_sent_meanwhile_counts_against_what_remains():
    stated = StatedLimit(0.0)
    assert stated.bucket.wait(1.0, 0.0) == 0.0  # nothing is known
    stated.sync(RateLimit("requests", 60, 10, 50.0), 1.0, sent_at=0.5, since=10)
    assert stated.bucket.wait(1.0, 1.0) == pytest.approx(1.0)
    stated.sync(RateLimit("requests", 60, 60, 0.0), 1.0, sent_at=0.4, since=0)  # older: passed over
    assert stated.bucket.wait(1.0, 1.0) == pytest.approx(1.0)


def test_a_limit_for_a_day_is_not_taken_for_one_of_a_minute():
    stated = StatedLimit(0.0)
    stated.sync(RateLimit("requests", 14400, 14370, 179.56), 0.0, sent_at=0.0, since=14370)
    assert stated.bucket.wait(1.0, 0.0) == pytest.approx(179.56 / 30)


# -- lanes -----------------------------------------------------------------------------------------


def test_given_tokens_are_corrected_by_what_was_used():
    lane = Lane(0.0, Rates(None, 6000), None)
    ticket = lane.start(0.0, 100.0)
    before = lane.blocked(0.0, 1.0)
    assert before is not None
    assert before[0] == "tokens"
    lane.ended(ticket, 0.0, error=None, tokens=1000)
    after = lane.blocked(0.0, 1.0)
    assert after is not None
    assert after[1] == pytest.approx(before[1] + 900 / (6000 * 0.99 / 60), rel=0.01)


def test_tokens_that_headers_state_are_kept():
    """Check that the tokens that headers state are reduced by what was sent after the request they answer."""
    lane = Lane(0.0, Rates(), None)
    first, second = lane.start(0.0, 100.0), lane.start(0.0, 100.0)
    lane.accepted(first, 0.5)
    headers = {"x-ratelimit-limit-tokens": "6000", "x-ratelimit-remaining-tokens": "150"}
    lane.read(first, 0.5, headers, epoch=0.0)
    assert lane.blocked(0.5, 100.0) == (
        "tokens",
        pytest.approx(0.5),
    )  # 50 are left, 100 come a second
    assert lane.blocked(0.5, 50.0) is None
    lane.ended(
        second, 0.6, error=refused("overloaded", 503), tokens=None
    )  # its tokens were not counted
    assert lane.blocked(0.6, 100.0) is None


def test_what_was_under_way_at_the_first_refusal_is_no_part_of_the_rate():
    """A server that had ten seconds' worth saved up, and answers late."""
    lane, level, at, pending = Lane(0.0, Rates(), None), 100.0, 0.0, []
    refusals, accepted = [], 0
    for step in range(60_000):
        now = step / 1000
        level, at = min(100.0, level + (now - at) * 10.0), now
        while pending and pending[0][0] <= now:
            lane.ended(pending.pop(0)[1], now, error=None, tokens=None)
        if lane.in_flight >= 200 or lane.blocked(now, 1.0) is not None:
            continue
        ticket = lane.start(now, 1.0)
        if level >= 1:
            level -= 1
            accepted += 1
            pending.append((now + 0.5, ticket))
        else:
            refusals.append(now)
            lane.ended(ticket, now, error=refused(), tokens=None)
    assert accepted >= 0.95 * 600
    assert sum(at > 10 for at in refusals) <= 0.02 * 500


@pytest.mark.parametrize(("rate", "at_once"), [(2, 20), (5, 200), (20, 20), (20, 200), (100, 200)])
@pytest.mark.parametrize("saves", [True, False])
def test_a_limit_is_found_whether_the_server_saves_up_or_not(
    rate: int, at_once: int, saves: bool
) -> None:
    """By a bucket of ten seconds, or by the second of the clock, where what is not used is lost."""
    lane, pending, chance = Lane(0.0, Rates(), None), [], random.Random(1)
    level, at, window, left = 10.0 * rate, 0.0, -1, 0
    refusals, accepted = [], 0
    for step in range(120_000):
        now = step / 1000
        while pending and pending[0][0] <= now:
            _, _, ticket, error = heapq.heappop(pending)
            lane.ended(ticket, now, error=error, tokens=None)
        if lane.in_flight >= at_once or lane.blocked(now, 1.0) is not None:
            continue
        level, at = min(10.0 * rate, level + (now - at) * rate), now
        if int(now) != window:
            window, left = int(now), rate
        ticket, fits = lane.start(now, 1.0), level >= 1 if saves else left > 0
        level, left = level - fits, left - fits
        accepted += fits
        if not fits:
            refusals.append(now)
        seconds = 0.3 * chance.uniform(0.5, 1.5) if fits else 0.1 * chance.random()
        heapq.heappush(pending, (now + seconds, step, ticket, None if fits else refused()))
    assert accepted >= (1.0 if saves else 0.7) * 120 * rate
    assert sum(at > 10 for at in refusals) <= 0.025 * accepted


@pytest.mark.parametrize(
    ("limit", "longest"), [(None, 50.0), ("30", 50.0), ("1000", 8.0), ("500", 12.0)]
)
def test_how_long_a_server_that_refuses_everything_is_left_alone(limit, longest):
    """Until its window ends, unless asking now and then is a small share of what it allows."""
    lane, now, pauses = Lane(0.0, Rates(), None), 0.0, []
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "50s"}
    if limit is not None:
        headers["x-ratelimit-limit-requests"] = limit
    for _ in range(9):
        ticket = lane.start(now, 1.0)
        lane.read(ticket, now, headers, epoch=0.0)
        lane.ended(ticket, now, error=refused(), tokens=None)
        pauses.append(lane._breaker.pause)
        now += 100.0
    assert pauses[1:4] == [0.5, 1.0, 2.0]
    assert pauses[-1] == pytest.approx(longest)


@pytest.mark.parametrize(
    ("adapt", "held"), [("rate+concurrency", True), ("concurrency", True), ("off", False)]
)
def test_what_is_adapted_is_what_was_asked_for(adapt, held):
    lane, now = Lane(0.0, Rates(requests=6_000), None, adapt), 0.0
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}
    for _ in range(100):  # down, and its headers say so, too
        now += 1.0
        ticket = lane.start(now, 1.0)
        lane.read(ticket, now, headers, epoch=0.0)
        lane.ended(ticket, now, error=refused(), tokens=None)
    assert lane._rates.learned.active is (adapt == "rate+concurrency")
    assert (lane._rates.family is not None) is (adapt == "rate+concurrency")
    why = lane.blocked(now, 1.0)
    assert (why is not None) is held
    if not held:  # but the caller's own limit is kept
        for _ in range(30):
            lane.start(now, 1.0)
        assert lane.blocked(now, 1.0)[0] == "requests"
    lane.change(Rates(), None, now, "off")
    assert lane.blocked(now, 1.0) is None


def test_failures_that_were_under_way_together_count_once():
    lane = Lane(0.0, Rates(), None)
    tickets = [lane.start(0.0, 0.0) for _ in range(100)]
    for ticket in tickets:
        lane.ended(ticket, 0.1, error=llm.SendError("no"), tokens=None)
    assert lane.blocked(0.1, 0.0) is None
    lane.ended(lane.start(0.2, 0.0), 0.3, error=llm.SendError("no"), tokens=None)
    assert lane.blocked(0.3, 0.0) == ("pause", pytest.approx(0.5))


def test_a_paused_lane_sends_one_at_a_time_until_one_is_accepted():
    lane, now = Lane(0.0, Rates(), None), 0.0
    for pause in (None, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        ticket = lane.start(now, 0.0)
        lane.ended(ticket, now + 0.1, error=llm.SendError("no"), tokens=None)
        now += 0.1
        if pause is not None:
            assert lane.blocked(now, 0.0) == ("pause", pytest.approx(pause))
            now += pause
    assert lane.blocked(now, 0.0) is None
    ticket = lane.start(now, 0.0)
    assert lane.blocked(now, 0.0) is not None
    lane.accepted(ticket, now)
    assert lane.blocked(now, 0.0) is None


def test_a_long_retry_after_of_one_request_does_not_stop_the_lane():
    lane = Lane(0.0, Rates(), None)
    ok = lane.start(0.0, 0.0)
    lane.accepted(ok, 0.1)
    ticket = lane.start(0.2, 0.0)
    lane.ended(ticket, 0.3, error=refused(retry_after=500.0), tokens=None)
    assert lane.blocked(0.3, 0.0) is None  # one refusal among answers is no rate


@given(st.lists(st.sampled_from(["send", "ok", "429", "503", "cut", "drop", "wait"]), max_size=200))
def test_a_lane_never_loses_count_and_always_comes_back(events):
    now, lane, under_way = 0.0, Lane(0.0, Rates(), 50), []
    for event in events:
        now += 0.01
        if event == "send" and lane.blocked(now, 1.0) is None:
            under_way.append(lane.start(now, 1.0))
        elif event == "wait":
            now += 5.0
        elif under_way and event == "drop":
            lane.dropped(under_way.pop())
        elif under_way and event != "send":
            errors = {"429": refused(), "503": refused("overloaded", 503)}
            error = errors.get(event) or (llm.ConnectionCut("cut") if event == "cut" else None)
            lane.ended(under_way.pop(0), now, error=error, tokens=3)
        assert lane.in_flight == len(under_way)
        assert 1 <= lane.concurrency.limit <= 50
    for ticket in under_way:
        lane.ended(ticket, now, error=None, tokens=None)
    for _ in range(100):  # some wait, and it may send again
        why = lane.blocked(now, 1.0)
        if why is None:
            break
        assert 0 < why[1] <= 61.0
        now += why[1]
    assert lane.blocked(now, 1.0) is None


# -- concurrency -----------------------------------------------------------------------------------


class ThoroughLane(Lane):
    """A lane that is never quiet: all its parts are asked each time."""

    def may_be_quiet(self):
        return False


def contents(lane):
    """All that a lane knows once it has counted everything, bit by bit, but whether it is quiet."""
    lane = copy.deepcopy(lane)
    lane.catch_up()
    kept = {name: value for name, value in vars(lane).items() if name not in QUIET}
    return pickle.dumps(copy.deepcopy(kept))


QUIET = ("_quiet", "_accepted_at", "_newest_sent")
"""What only a quiet lane has."""


@pytest.mark.parametrize("search", [None, 40])
@pytest.mark.parametrize("seed", range(6))
def test_a_quiet_lane_knows_and_decides_what_a_thorough_one_does(search, seed):
    chance, now, quiet = random.Random(seed), 0.0, 0
    lanes = [made(0.0, Rates(), search) for made in (Lane, ThoroughLane)]
    under_way = []
    failures = [llm.ConnectionCut("cut"), llm.SendError("no room", reason="open_files")]
    failures += [refused(), refused("overloaded", 503, 2.0), refused("invalid", 400)]

    def both(name, *args, tickets=(), **more):
        first, second = [
            getattr(lane, name)(*(t[n] for t in tickets), *args, **more)
            for n, lane in enumerate(lanes)
        ]
        assert tickets or name == "start" or first == second
        return first, second

    for step in range(1500):
        now += chance.expovariate(20.0)
        troubled = 500 < step < 560 or (step > 900 and seed % 2 and not step % 97)
        if both("blocked", now, 9.0)[0] is None and len(under_way) < 30:
            under_way.append(both("start", now, 9.0))
        if under_way and chance.random() < 0.7:
            one = under_way.pop(chance.randrange(len(under_way)))
            if troubled and chance.random() < 0.5:
                both("ended", now, error=chance.choice(failures), tokens=None, tickets=[one])
            elif chance.random() < 0.02:
                both("dropped", tickets=[one])
            else:
                both("accepted", now, tickets=[one])
                if step > 1200 and seed == 3:
                    stated = {"x-ratelimit-limit-requests": "600"}
                    stated |= {"x-ratelimit-remaining-requests": "99"}
                    both("read", now, stated, epoch=0.0, tickets=[one])
                both("ended", now, error=None, tokens=chance.randrange(20), tickets=[one])
        if step == 700 and seed == 2:
            both("change", Rates(requests=900, tokens=9_000), search, now, "rate+concurrency")
        quiet += vars(lanes[0])["_quiet"]
        assert lanes[0].wants_headers == lanes[1].wants_headers
        assert both("state", now)
        assert contents(lanes[0]) == contents(lanes[1])
    assert quiet > 100  # else nothing was compared


def climb(latency, seconds, maximum=500, noise=0.0, seed=1, overloaded_at=0):
    """Answers a second of the limit that is found against a latency at a load, and where it ends."""
    chance, now, events, running, done = random.Random(seed), 0.0, [], 0, 0
    search = ConcurrencyLimit(maximum, 0.0)
    if overloaded_at:
        search.limit = overloaded_at
        for _ in range(overloaded_at * 3 // 4):
            search.finished(0.0, 1, 0.0)
        for _ in range(overloaded_at // 4):
            search.failed(0.0, overloaded_at, 0.0)
        assert search.limit < overloaded_at
    number = itertools.count()
    while True:
        while running < search.limit:
            running += 1
            seconds_each = latency(running) * chance.lognormvariate(-noise * noise / 2, noise)
            heapq.heappush(events, (now + seconds_each, next(number), now))
        now, _, sent_at = heapq.heappop(events)
        if now > seconds:
            return done / seconds, search.limit
        search.finished(now, running, sent_at)
        running -= 1
        done += 1


@pytest.mark.parametrize(
    ("latency", "best"),
    [
        (lambda n: 0.5 * max(1, n / 50), 100.0),  # so many slots
        (lambda n: 0.5 * (1 + (n / 100) ** 2), 100.0),  # worse and worse
        (lambda n: 0.5 * math.exp(n / 60), 60 / 0.5 / math.e),
        (lambda n: 0.3 + 0.01 * n, 500 / 5.3),  # a batching server: more is always more
    ],
    ids=["slots", "square", "exponential", "batching"],
)
def test_the_adaptive_limit_is_within_ten_percent_of_the_best_fixed_one(latency, best):
    per_second, _ = climb(latency, 240)
    assert per_second >= 0.9 * best


def test_after_an_overload_the_limit_can_be_below_where_it_was_cut():
    """A server that has had a bad moment at 120, and gets worse and worse from 60 on."""
    per_second, limit = climb(lambda n: 0.5 * math.exp(n / 60), 600, overloaded_at=120)
    assert per_second >= 0.9 * 60 / 0.5 / math.e
    assert limit < 90


@pytest.mark.parametrize("seed", range(3))
def test_answers_of_very_different_lengths_do_not_lead_it_astray(seed):
    per_second, _ = climb(lambda n: 0.5 * max(1, n / 50), 240, noise=0.5, seed=seed)
    assert per_second >= 0.85 * 100


def overloaded(limit: int, failures: int) -> ConcurrencyLimit:
    """A search at this limit, just cut, after as many answers as were under way."""
    search = ConcurrencyLimit(limit, 0.0)
    search.limit = limit
    for _ in range(limit - failures):
        search.finished(0.0, 1, 0.0)
    for _ in range(failures):
        assert search.limit == limit
        search.failed(1.0, limit, 0.0)
    return search


def test_overload_cuts_it_and_it_comes_back_to_where_it_was():
    search = overloaded(100, FEW)
    assert search.limit == int(BELOW * 95)
    for _ in range(FEW):
        search.failed(1.0, 100, 0.5)  # sent before the cut
    now = 1.0
    for _ in range(2_000):
        now += 0.001
        search.finished(now, search.limit, now)
        if search.limit >= 95:
            break
    assert search.limit >= 95


def test_failures_as_before_a_cut_undo_it_and_are_usual_from_then_on():
    search = overloaded(100, 10)
    for number in range(400):
        if number % 10:
            search.finished(2.0 + number, 1, 2.0 + number)
        else:
            search.failed(2.0 + number, 100, 2.0 + number)
    assert search.limit == 100
    for number in range(200):  # more than twice the usual share
        search.failed(1e3 + number, 100, 1e3 + number)
        if search.limit < 100:
            return
    raise AssertionError("a server that fails more is not cut")


def test_few_failures_among_many_answers_cut_nothing():
    search = ConcurrencyLimit(100, 0.0)
    search.limit = 100
    for number in range(5_000):
        if number % 50:
            search.finished(float(number), 1, float(number))
        else:
            search.failed(float(number), 100, float(number))
    assert search.limit == 100


def test_a_cut_is_to_less_than_what_was_accepted():
    assert overloaded(100, 60).limit == int(BELOW * 40)
    assert overloaded(100, 100).limit == 1


@pytest.mark.parametrize(("share", "pays"), [(0.0, True), (0.3, False)])
def test_a_cut_is_judged_by_the_share_of_failures_after_it(share, pays):
    test, answers = CutTest(0.3), 0
    while (verdict := test.verdict()) is None:
        answers += 1
        if share and answers % round(1 / share) == 0:
            test.refused()
        else:
            test.accepted()
        assert answers <= ENOUGH
    assert verdict is pays


def test_failures_are_not_judged_while_requests_without_an_answer_may_be_accepted():
    test = CutTest(0.3)
    for _ in range(LEAST):
        test.refused()
    assert test.verdict(pending=1_000) is None
    assert test.verdict(pending=0) is False


def test_what_does_not_fill_the_limit_does_not_raise_it():
    search = ConcurrencyLimit(100, 0.0)
    for number in range(1000):
        search.finished(number * 0.1, 3, number * 0.1)
    assert search.limit == START


# -- turns -----------------------------------------------------------------------------------------


def test_lanes_take_turns():
    schedule = Schedule(100, lambda now: Lane(now, Rates(), None))
    for index in range(9):
        schedule.add(item(MODELS[index // 3], index), 0.0)
    names = []
    while (following := schedule.next(0.0)) is not None:
        names.append(following.model.name)
    assert names == list("abcabcabc")


def test_accounts_have_lanes_of_their_own_also_where_a_function_gives_the_key():
    class Unhashable(list):
        def __call__(self):
            return "key"

    functions = [Unhashable(), Unhashable()]
    hooks = [str, repr]
    models = [msgspec.structs.replace(MODELS[0], api_key=None, key_source=f) for f in functions]
    models += [msgspec.structs.replace(MODELS[0], sign=hook) for hook in hooks]
    models += [MODELS[0], msgspec.structs.replace(MODELS[0], api_key="another")]
    schedule = Schedule(100, lambda now: Lane(now, Rates(), None))
    for index, model in enumerate(models * 2):
        schedule.add(item(model, index), 0.0)
    assert len(list(schedule.lanes)) == len(models)


def test_a_lane_that_may_not_send_holds_up_no_other():
    limits = iter([Rates(1, None), Rates()])
    schedule = Schedule(100, lambda now: Lane(now, next(limits), None))
    for index in range(5):
        schedule.add(item(MODELS[0], index), 0.0)
    for index in range(5, 8):
        schedule.add(item(MODELS[1], index), 0.0)
    names = []
    while (following := schedule.next(0.0)) is not None:
        names.append(following.model.name)
    assert sorted(names) == ["a", "b", "b", "b"]
    assert schedule.wake_at == pytest.approx(60 / 0.99, rel=0.01)
    assert schedule.reasons(0.0) == {"requests": 4}


@settings(max_examples=200)
@given(st.data())
def test_everyone_is_sent_once_and_never_too_many_run(data):
    capacity = data.draw(st.integers(1, 5))
    schedule = Schedule(capacity, lambda now: Lane(now, Rates(), None))
    now, added, running, ended = 0.0, 0, [], []
    waiting = set()
    for action in data.draw(st.lists(st.sampled_from(["add", "next", "end", "retry", "wait"]))):
        now += 0.01
        if action == "add":
            one = item(data.draw(st.sampled_from(MODELS)), added)
            schedule.add(one, now)
            waiting.add(one)
            added += 1
        elif action == "wait":
            now += data.draw(st.floats(0, 20))
        elif action == "next":
            one = schedule.next(now)
            if one is not None:
                waiting.remove(one)
                running.append(one)
        elif running:
            one = running.pop(data.draw(st.integers(0, len(running) - 1)))
            one.lane.ended(one.ticket, now, error=None, tokens=None)
            schedule.ended()
            if action == "retry":
                schedule.retry(one, now, data.draw(st.floats(0, 10)))
                waiting.add(one)
            else:
                ended.append(one)
        assert schedule.running == len(running) <= capacity
        assert schedule.waiting == len(waiting)
        assert sum(schedule.reasons(now).values()) == len(waiting)
    assert schedule.clear() == len(waiting)
    assert len(waiting) + len(running) + len(ended) == added
    assert schedule.waiting == 0
    assert schedule.next(now + 100) is None


def test_whose_retry_is_due_goes_before_the_new():
    schedule = Schedule(10, lambda now: Lane(now, Rates(), None))
    old, new = item(index=0), item(index=1)
    schedule.add(old, 0.0)
    assert schedule.next(0.0) is old
    schedule.ended()
    schedule.retry(old, 0.0, 5.0)
    assert schedule.next(0.0) is None
    assert schedule.wake_at == 5.0
    schedule.add(new, 0.0)
    assert schedule.next(6.0) is old
    assert schedule.next(6.0) is new


def test_whose_time_is_over_while_they_wait_are_given_up():
    schedule = Schedule(10, lambda now: Lane(now, Rates(), None))
    items = [item(index=n) for n in range(4)]
    for each in items:
        schedule.add(each, 0.0)
    for each, expires in zip(items[:3], (50.0, 20.0, 20.0), strict=True):
        assert schedule.next(0.0) is each
        schedule.ended()
        each.expires = expires
        schedule.retry(each, 0.0, 10.0)
    assert schedule.expired(19.0) == ([], 20.0)
    assert schedule.expired(20.0) == (items[1:3], 50.0)
    assert schedule.waiting == 2
    assert schedule.next(20.0) is items[0]
    assert schedule.expired(60.0) == ([], math.inf)  # who runs has a clock of his own
    assert schedule.next(20.0) is items[3]
    schedule.retry(items[0], 60.0, 1.0)
    assert schedule.expired(60.0) == ([items[0]], math.inf)
    assert schedule.next(70.0) is None
    assert schedule.waiting == 0


# -- retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (llm.SendError("no"), True),
        (llm.ConnectionCut("no"), True),
        (llm.EndedEarly("no"), True),
        (llm.StreamTimeout("idle", 1.0), True),
        (llm.ProtocolError("no"), False),
        (llm.BudgetExceeded("max_cost", 1, 1), False),
        (refused("invalid", 400), False),
        (refused("auth", 401), False),
        (refused("quota", 429), False),
        (refused("server", 500), True),
        (refused("server", 500, should_retry=False), False),
        (llm.ProviderError(ErrorInfo(message="", kind="overloaded")), True),
        (llm.ProviderError(ErrorInfo(message="", kind="invalid")), False),
    ],
)
def test_what_is_tried_again(error, passes):
    wait = retry_delay(error, attempt=1, retry=BATCH_RETRY, remaining=math.inf, random=0.5)
    assert worth_retrying(error) is passes is (wait is not None)


@given(
    st.integers(1, 100),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.none(), st.floats(0, 1000)),
    st.floats(0, 1000),
)
def test_a_wait_is_at_least_what_was_asked_and_ends_before_the_deadline(
    attempt, chance, asked, remaining
):
    wait = retry_delay(
        refused(retry_after=asked),
        attempt=attempt,
        retry=BATCH_RETRY,
        remaining=remaining,
        random=chance,
    )
    if wait is not None:
        assert attempt < BATCH_RETRY.attempts
        assert wait < remaining
        assert wait >= (asked or 0.0)
        named = asked or (asked is not None and attempt == 1)
        assert wait <= (asked * 1.1 + 0.1 if named else BATCH_RETRY.max_delay)


def test_no_wait_at_all_is_believed_once():
    def wait(attempt):
        error = refused(retry_after=0.0)
        return retry_delay(
            error, attempt=attempt, retry=BATCH_RETRY, remaining=math.inf, random=0.5
        )

    assert [wait(1), wait(2), wait(3)] == [0.05, 1.0, 2.0]


def test_refusals_for_rate_hardly_count_as_attempts():
    ticket = Ticket(0.0, 1, 0.0, 0.0)
    counted = []
    for ticket.refusals in (1, 8, 9, 40):
        counted.append(counted_attempts(ticket.refusals, ticket))
    assert counted == [1, 1, 2, 5]
    ticket.refusals = 0
    assert counted_attempts(3, ticket) == 3


def test_retries_are_a_share_of_the_requests():
    budget = RetryBudget(0.1)
    for _ in range(1000):
        budget.sent(20)
    error = refused("server", 500)
    assert sum(budget.spend(error) for _ in range(10_000)) == pytest.approx(
        100 + ALLOWANCE + 20, abs=1
    )
    assert budget.spend(refused())  # a refusal for rate or load costs the server nothing
    assert budget.spend(refused("overloaded", 503))


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (refused("quota", 429), True),
        (refused("auth", 401), True),
        (refused("auth", 403), False),  # may be about this request alone
        (refused(), False),
        (llm.ProviderError(ErrorInfo(message="", kind="quota")), True),
        (llm.RetriesExhausted((llm.SendError("no"), refused("auth", 401))), True),
        (llm.SendError("no"), False),
        (None, False),
    ],
)
def test_what_no_other_request_would_escape_ends_the_run(error, ends):
    assert is_fatal(error) is ends


# -- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "params", "tokens"),
    [
        ("x" * 400, {}, 100 + 256),
        ("x" * 400, {"max_tokens": 20}, 100 + 20),
        ("x" * 400, {"max_tokens": -1}, 100 + 256),
        (llm.user("x" * 400), {"max_tokens": 1000}, 100 + 256),
        ([llm.system("x" * 40), llm.user("x" * 40)], {}, 20 + 256),
        ([{"role": "user", "content": "x" * 40}], {}, 10 + 256),
        ([{"role": "user", "content": [{"type": "text", "text": "x" * 40}]}], {}, 10 + 256),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], {}, 256),
        ([7, 8, 9], {}, 3 + 256),
        ([{"role": "user", "content": [7, 8]}], {}, 2 + 256),
        (llm.user(llm.TokensPart((7, 8))), {}, 2 + 256),
    ],
)
def test_what_a_request_comes_to_is_guessed_before_it_is_sent(messages, params, tokens):
    asked = BatchRequest("a", messages, params=params)
    assert estimate_tokens(asked) == tokens
