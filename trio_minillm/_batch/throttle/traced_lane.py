"""A lane that tells each of its decisions, for a log that can be plotted. Pure.

A lane that is not traced is a plain `Lane`, and pays nothing for this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from ..._types.errors import MiniLLMError
from .own_fault import Ticket
from .throttle import Lane, LaneState, failure_words

TraceName: TypeAlias = Literal[
    "sample", "refused", "concurrency", "cut", "raised", "limited", "freed", "stated", "paused", "resumed", "closed",
]  # fmt: skip
"""``sample``: nothing but a second has passed · ``refused``: an attempt failed · ``concurrency``: another
number at once · ``cut``, ``raised``: another rate is tried, or a refusal lowered it · ``limited``: a
rate is taken for the limit · ``freed``: there is no learned rate any more · ``stated``: headers name
other limits · ``paused``, ``resumed`` · ``closed``: nothing more is sent."""

RAISED = 1.5
"""Factor of a rate that is a decision, and not the slow rise between refusals."""


class TraceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about an endpoint, key, and model, or its state at a full second."""

    time: float
    """Seconds since the batch started."""
    model: str
    """The name of the model."""
    host: str
    """The host of its address, or the name of the provider."""
    event: TraceName
    """The decision, or ``sample`` for the state at a full second."""
    why: str = ""
    """The failure, for ``refused``, ``paused``, and ``closed``."""
    before: float | None = None
    """The concurrency, the requests per second, or the seconds of pause before the decision."""
    after: float | None = None
    """The same after the decision."""
    in_flight: int
    """Requests that are running."""
    concurrency: int | None
    """Requests that may run at the same time, if the batch searches for that number."""
    rate: float | None
    """Requests per second, if a learned rate limits them."""
    paused: float
    """The remaining seconds of a pause."""
    accepted: int
    """Requests accepted in the last second."""
    refused: int
    """Requests refused for rate or load in the last second."""


class TracedLane(Lane):
    """A lane that gives ``tell`` an event for each change of its state; ``began`` is when the batch did."""

    def __init__(
        self, now: float, *args: Any, tell: Callable[[TraceEvent], object], began: float
    ) -> None:
        super().__init__(now, *args)
        self.tell = tell
        self.began = began
        self.recent = deque[list[int]](maxlen=10)
        """Of the last tenths of a second that had any: its number, requests accepted and refused."""

    def accepted(self, ticket: Ticket, now: float) -> None:
        if ticket.accepted:
            return
        before = self.state(now)
        super().accepted(ticket, now)
        self._count(now, 1)
        self._compare(before, now)

    def read(self, ticket: Ticket, now: float, headers: Mapping[str, str], *, epoch: float) -> None:
        before = self.state(now)
        super().read(ticket, now, headers, epoch=epoch)
        self._compare(before, now)

    def ended(
        self, ticket: Ticket, now: float, *, error: MiniLLMError | None, tokens: int | None
    ) -> None:
        if error is None:
            self.accepted(ticket, now)
        before, refused = self.state(now), self.tally.refused
        super().ended(ticket, now, error=error, tokens=tokens)
        if error is not None:
            if self.tally.refused > refused:
                self._count(now, 2)
            self.note(now, "refused", why=failure_words(error))
        self._compare(before, now)

    def note(
        self,
        now: float,
        event: TraceName,
        before: float | None = None,
        after: float | None = None,
        *,
        why: str = "",
    ) -> None:
        """Tell an event, with the state at this time."""
        state = self.state(now)
        first = int(10 * now) - 9
        lately = [row for row in self.recent if row[0] >= first]
        self.tell(
            TraceEvent(
                time=round(now - self.began, 6),
                model=self.place.model,
                host=self.place.host,
                event=event,
                why=why,
                before=before,
                after=after,
                in_flight=self.in_flight,
                concurrency=state.concurrency,
                rate=state.rate,
                paused=max(0.0, state.paused_until - now),
                accepted=sum(row[1] for row in lately),
                refused=sum(row[2] for row in lately),
            )
        )

    def _count(self, now: float, column: int) -> None:
        tenth = int(10 * now)
        if not self.recent or self.recent[-1][0] != tenth:
            self.recent.append([tenth, 0, 0])
        self.recent[-1][column] += 1

    def _compare(self, before: LaneState, now: float) -> None:
        for event, was, is_now in changes(before, self.state(now), now):
            why = self.tally.newest if event == "paused" else ""
            self.note(now, event, was, is_now, why=why)


def changes(
    before: LaneState, after: LaneState, now: float
) -> Iterator[tuple[TraceName, float | None, float | None]]:
    """Yield the decisions that lie between two states, each with its values before and after."""
    if before.concurrency != after.concurrency:
        yield "concurrency", before.concurrency, after.concurrency
    if (event := _of_rate(before, after)) is not None:
        yield event, before.rate, after.rate
    if before.stated != after.stated:
        old, new = dict(before.stated), dict(after.stated)
        for unit in sorted(set(old) | set(new)):
            if old.get(unit) != new.get(unit):
                yield "stated", old.get(unit), new.get(unit)
    if after.open and after.paused_until > max(now, before.paused_until):
        yield "paused", max(0.0, before.paused_until - now), after.paused_until - now
    elif before.open and not after.open:
        yield "resumed", max(0.0, before.paused_until - now), 0.0


def _of_rate(before: LaneState, after: LaneState) -> TraceName | None:
    if after.rate is None:
        return None if before.rate is None else "freed"
    if after.settled and not before.settled:
        return "limited"
    if before.rate is None or after.rate < before.rate * 0.999:
        return "cut"
    return "raised" if after.rate > before.rate * RAISED else None
