"""Tests of whole lanes at servers with limits, in virtual time: what is used, what is refused."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable

import pytest

import trio_minillm as llm
from trio_minillm._batch.throttle.rate_limits import Rates
from trio_minillm._batch.throttle.throttle import Lane
from trio_minillm._types.errors import ErrorInfo

REFUSED = llm.RefusedError(ErrorInfo(message="no", kind="rate_limit", status=429))


class Simulation:
    """A lane and a server that answers after a while, and refuses sooner."""

    def __init__(
        self, allows: Callable[[Simulation], bool], seconds: float, most: int | None, seed: int
    ) -> None:
        self.now = 0.0
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.under_way = 0
        self.lane = Lane(0.0, Rates(), 1_000 if most is None else None)
        self._allows = allows
        self._seconds = seconds
        self._most = math.inf if most is None else most
        self._chance = random.Random(seed)

    def run(self, *, until: float = math.inf, count: float = math.inf) -> float:
        """Send ``count`` requests, each until it is accepted, and return the time of the last answer."""
        lane, events, order = self.lane, [], itertools.count()
        while count or events:
            while count and lane.in_flight < self._most and not lane.blocked(self.now, 1.0):
                count -= 1
                ok = self._allows(self)
                (self.accepted if ok else self.refused).append(self.now)
                self.under_way += ok
                took = self._seconds * self._chance.uniform(*((0.5, 1.5) if ok else (0.1, 1.0)))
                heapq.heappush(
                    events, (self.now + took, next(order), lane.start(self.now, 1.0), ok)
                )
            blocked = lane.blocked(self.now, 1.0) if count else None
            ask = math.inf if blocked is None else self.now + blocked[1]
            if min(ask, events[0][0] if events else math.inf) >= until:
                break
            if events and events[0][0] <= ask:
                self.now, _, ticket, ok = heapq.heappop(events)
                self.under_way -= ok
                count += not ok
                lane.ended(ticket, self.now, error=None if ok else REFUSED, tokens=None)
            else:
                self.now = ask
        return self.now

    def refused_share(self) -> float:
        """The share of refusals after ten seconds."""
        late = [sum(at > 10.0 for at in times) for times in (self.accepted, self.refused)]
        return late[1] / sum(late)


def by_window(span: float, began: float = 0.0, rate: float = 20.0) -> Callable[[Simulation], bool]:
    def allows(at: Simulation) -> bool:
        most, begin = round(rate * span), (at.now + began) // span * span - began
        recent = at.accepted[-most:]
        return len(recent) < most or recent[0] < begin

    return allows


AT_ONCE = pytest.mark.parametrize("most", [100, None], ids=["100 at once", "auto"])
SEEDS = range(2)


@AT_ONCE
def test_an_outage_that_is_told_as_a_rate_limit_costs_little_more_than_it_takes(
    most: int | None,
) -> None:
    for seed in SEEDS:
        normal, took = (
            Simulation(lambda at, s=s: not 0.5 <= at.now < 0.5 + s, 0.05, most, seed).run(
                count=3_000
            )
            for s in (0.0, 6.0)
        )
        assert took - normal - 6.0 <= 5.0


@AT_ONCE
@pytest.mark.parametrize(("span", "began"), [(10.0, 0.0), (60.0, 0.0), (60.0, 40.0)])
def test_a_limit_that_is_counted_in_windows_is_used_and_few_are_refused(
    most: int | None, span: float, began: float
) -> None:
    used, refused = [], []
    for seed in SEEDS:
        simulation = Simulation(by_window(span, began), 0.5, most, seed)
        simulation.run(until=180.0)
        used.append(len(simulation.accepted) / (180.0 * 20.0))
        refused.append(simulation.refused_share())
    assert sum(used) / len(used) >= 0.93
    assert max(refused) <= 0.02


@AT_ONCE
def test_a_limit_on_the_number_at_once_is_used_and_few_are_refused(most: int | None) -> None:
    used, refused = [], []
    for seed in SEEDS:
        simulation = Simulation(lambda at: at.under_way < 10, 0.5, most, seed)
        simulation.run(until=180.0)
        used.append(sum(at > 60.0 for at in simulation.accepted) / (120.0 * 20.0))
        refused.append(simulation.refused_share())
        number = simulation.lane.state(simulation.now).concurrency
        assert number in (10, 11)
        assert f"holding {number}" in str(simulation.lane.controls(simulation.now, 1)[0])
    assert sum(used) / len(used) >= 0.9
    assert max(refused) <= 0.02


def test_a_number_that_falls_is_found_again_by_way_of_a_rate() -> None:
    simulation = Simulation(lambda at: at.under_way < (10 if at.now < 120.0 else 4), 0.5, 100, 0)
    simulation.run(until=300.0)
    late = [at for at in simulation.accepted if at > 180.0]
    assert len(late) / (120.0 * 4 / 0.5) >= 0.6
    assert simulation.refused_share() <= 0.05
