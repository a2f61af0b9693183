"""The steady state of a run, found in its records. Pure.

The rule:

- The state is **full** until the last request has started; from then on streams only end. That is the end.
- It **begins** with the first request behind the transient. Two series are looked at, both over the requests
  in the order in which they started: the time to the first content (by its rank, so that a few slow ones
  mean no more than others), and the number of streams that were open. Of each, means of five are taken, and
  what is cut off, half at most, is what makes the standard error of the rest the least (MSER-5; White 1997),
  or so little less than that as makes no difference.
  The later of the two cuts counts.
- If what is left still drifts, there is no steady state: if its halves differ by more than `DRIFT` of their
  standard deviations. That is so if the load is more than the server can carry, as the queue then grows to
  the end: halves of a straight line differ by 3.5.

Latencies are those of the requests that started within the state, up to one median duration before its end,
so that most of them ended within it. They are chosen by their start alone, as choosing by the end would
prefer the short ones. Rates are of all that came within the state, whichever request it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from .plan import Closed, Load, Open
from .record import Record

BATCH = 5
"""Values of each mean, as in the rule's name."""
NEARLY = 1.1
"""Factor of the least squared error within which the smallest cut is taken: by chance alone the least one
is often far behind, and would throw away what is steady."""
DRIFT = 2.0
"""Standard deviations between the halves of a series from which on it drifts. Halves of a steady one are
rarely 1 apart, even if neighbours are much alike."""
MIN_REQUESTS = 100
"""Whole answers below which nothing is cut: twenty means are few enough to look for a trend in."""
RESOLUTION = 6
"""Decimals of a second from which on two times differ: the errors of floats are no order."""
Values = NDArray[np.float64]


class Steady(msgspec.Struct, frozen=True, kw_only=True):
    """The steady state of a run. Times are as in its records, in seconds."""

    found: bool
    """True if there is one; otherwise all requests count."""
    why: str = ""
    """The reason that there is none."""
    begin: float | None = None
    end: float | None = None
    last_start: float | None = None
    """Start of the last request whose latency counts."""
    before: float = 0.0
    """Seconds of the ramp-up that were cut off."""
    after: float = 0.0
    """Seconds of the cool-down that were cut off."""
    cut: int = 0
    """Requests whose latency does not count."""
    cut_failed: int = 0
    """Requests among them that failed."""

    def holds(self, record: Record) -> bool:
        """Return True if the request's latency counts."""
        if self.begin is None or self.last_start is None:
            return True
        return self.begin <= record.sent <= self.last_start


def steady_state(records: Sequence[Record], load: Load) -> Steady:
    """Return the steady state of a run of one load, from all of its records that count."""
    if not isinstance(load, Closed | Open):
        return Steady(found=False, why="a ramp or a trace has no constant load")
    ordered = sorted(records, key=lambda record: record.sent)
    whole = [record for record in ordered if record.whole and record.first is not None]
    if len(whole) < MIN_REQUESTS:
        why = f"there are fewer than {MIN_REQUESTS} complete answers"
        return Steady(found=False, why=why)
    first = np.array([(r.first or r.sent) - r.sent for r in whole], dtype=np.float64)
    cuts = transient(_ranks(np.round(first, RESOLUTION))), transient(open_streams(ordered))
    if cuts[0] is None or cuts[1] is None:
        what = "TTFT" if cuts[0] is None else "the number of open streams"
        return Steady(found=False, why=f"{what} kept drifting")
    begin = max(whole[cuts[0]].sent, ordered[cuts[1]].sent)
    end = ordered[-1].sent
    last_start = end - float(np.median([record.ended - record.sent for record in whole]))
    held = [record for record in ordered if begin <= record.sent <= last_start]
    if sum(record.whole for record in held) < MIN_REQUESTS / 2:
        return Steady(found=False, why="too few requests were left between ramp-up and cool-down")
    lost = [record for record in ordered if not begin <= record.sent <= last_start]
    return Steady(
        found=True,
        begin=begin,
        end=end,
        last_start=last_start,
        before=begin - ordered[0].sent,
        after=max(record.ended for record in ordered) - end,
        cut=len(lost),
        cut_failed=sum(not record.whole for record in lost),
    )


def transient(values: Values) -> int | None:
    """Return the number of values to cut off at the beginning, or None if the rest still drifts."""
    batches = len(values) // BATCH
    if batches < 4:
        return None
    means = np.asarray(values[: batches * BATCH], dtype=np.float64).reshape(-1, BATCH).mean(axis=1)
    # What is left behind each cut. Sums about the mean, so that nothing cancels out.
    shifted = (means - means.mean())[::-1]
    left = np.arange(batches, 0, -1)
    sums, squares = np.cumsum(shifted)[::-1], np.cumsum(shifted**2)[::-1]
    errors = np.maximum(0.0, squares - sums**2 / left) / left**2
    allowed = errors[: batches // 2 + 1]
    cut = int(np.argmax(allowed <= NEARLY * allowed.min()))
    return None if _drifts(means[cut:]) else cut * BATCH


def _drifts(means: Values) -> bool:
    one, other = np.array_split(means, 2)
    spread = float(np.sqrt((one.var() + other.var()) / 2))
    apart = abs(float(one.mean() - other.mean()))
    return apart > DRIFT * spread and apart > 1e-9 * float(np.abs(means).max())


def _ranks(values: Values) -> Values:
    """Return the rank of each value; equal ones have the mean of theirs."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    up_to = np.searchsorted(ordered, values, side="right")
    return (below + up_to) / 2


def open_streams(ordered: Sequence[Record]) -> Values:
    """Return the number of other streams that were open at the start of each request, in that order."""
    starts = np.array([record.sent for record in ordered])
    ends = np.sort(np.array([record.ended for record in ordered]))
    others = np.arange(len(starts)) - np.searchsorted(ends, starts, side="right")
    return others.astype(np.float64)


def steady_rates(records: Sequence[Record], steady: Steady) -> dict[str, float]:
    """Return what came in each second of a steady state, as ``rates`` of figures.

    Of whole answers only. An answer's tokens are spread evenly over its contents, as servers tell only
    their number; those of the prompt are taken to be read at the first.
    """
    assert steady.begin is not None
    assert steady.end is not None
    begin, end = steady.begin, steady.end
    sums = {"requests": 0.0, "chunks": 0.0, "output_tokens": 0.0, "input_tokens": 0.0}
    known = False
    for record in records:
        if not record.whole:
            continue
        sums["requests"] += begin <= record.ended <= end
        if not record.stamps:
            continue
        within = float(np.searchsorted(record.stamps, end, side="right"))
        within -= float(np.searchsorted(record.stamps, begin, side="left"))
        sums["chunks"] += within
        if record.output_tokens is not None:
            known = True
            sums["output_tokens"] += record.output_tokens * within / len(record.stamps)
            sums["input_tokens"] += (record.prompt_tokens or 0) * (begin <= record.stamps[0] <= end)
    if not known:
        del sums["output_tokens"], sums["input_tokens"]
    return {name: total / (end - begin) for name, total in sums.items()}
