"""The observations of the client during a run, and the verdict on its figures. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..plan import Closed, Load

if TYPE_CHECKING:  # it brings numpy, which a worker process does not need
    from ..figures.figures import Figures

LEAST_LAG = 0.001
"""Seconds of lag that no figure is marked for."""
SHARE_OF_FIGURE = 0.01
"""Share of a figure's median that the lag may have, if that is more than `LEAST_LAG`."""
WORDS = {
    "ttft_text": "TTFT (text)",
    "ttft_reasoning": "TTFT (reasoning)",
    "itl_token": "ITL by token",
    "itl_max": "longest ITL",
    "e2e_stream": "end of stream",
    "requests": "requests/s",
    "chunks": "chunks/s",
    "output_tokens": "tokens/s",
    "input_tokens": "input tokens/s",
}
"""Figures in words, but for those that are abbreviations."""
OWN = ("sending", "late")
"""Figures that are the client's own in any case."""
BUSY = 0.8
"""Share of a core from which on this program may have limited the rates, waits for the core included."""
BUSY_SECONDS = 1.0
"""Seconds that a run must have taken for `BUSY` to apply: a shorter one is always busy."""
STALLS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds of a turn of the event loop from which on turns are summed up as stalls."""
STALLED = 0.01
"""Share of the time that stalls may take: as many contents are read together with the ones behind them."""
TOGETHER = 0.01
"""Share of contents, or of answers, that may have come in one read with others, with no figure in doubt."""
STOLEN_PAUSE = 0.1
"""Seconds for which a host takes a CPU away at a time, about."""
ENOUGH_READS = 20
"""Reads below which the loop's turns stand in for the lag of reads."""

WAITED = 0.05
"""Share of the time spent waiting for a CPU from which on the report tells it."""

RATES = ("requests", "chunks", "output_tokens", "input_tokens")
"""The rates of a run, by their names in `Figures.rates`."""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution in four numbers; seconds. All are None if there is no value."""

    count: int = 0
    p50: float | None = None
    p99: float | None = None
    max: float | None = None

    @property
    def worst(self) -> float:
        """The p99, or 0."""
        return self.p99 or 0.0


class Pauses(msgspec.Struct, frozen=True, kw_only=True):
    """The pauses of Python's garbage collector."""

    count: int = 0
    total: float = 0.0
    """Seconds of all of them."""
    longest: float = 0.0
    """Seconds."""
    by_generation: dict[str, int] = {}
    """Their number for each generation that was collected: ``0``, ``1``, ``2``."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that the figures of a point can be believed, or that they can't."""

    workers: int = 1
    """Processes that sent; with several, each figure is that of the worst one, and ``cpu_seconds`` and
    the numbers are sums."""
    seconds: float = 0.0
    """Seconds of what was measured, without the warm-up."""
    cpu_seconds: float = 0.0
    cpu_share: float | None = None
    """CPU seconds of the process for each second: 1 is a whole core. None if no time passed."""
    cpu_shares: tuple[float, ...] = ()
    """That of each process, where there are several; the last one is that which gathers the records."""
    cpu_waited: float | None = None
    """Seconds that this program could have run and had to wait for a CPU, because of other programs. None
    where the system does not tell (only Linux does)."""
    stolen: float | None = None
    """Seconds for which a virtual machine's host gave a CPU of it to others, in the mean over its CPUs; None
    as above."""
    lag: Times | None = None
    """Seconds from the kernel's receipt of the newest bytes of a read to that read. None where the system
    does not say when it received them (only Linux does), or a proxy is on the way. It is in no time of a
    content, but bytes that come meanwhile are taken for one read."""
    lag_first: Times | None = None
    """That of the first read of each response, which ``ttft`` rests on: many that start together are read
    one after the other."""
    lag_last: Times | None = None
    """That of the last read of each response, which ``e2e`` rests on."""
    loop: Times = Times()
    """Seconds that each turn of the event loop took, during which nothing else could be read or sent."""
    stalls: dict[str, float] = {}
    """Seconds spent in turns of the event loop that were longer than the key says, in seconds."""
    gc: Pauses = Pauses()
    late: Times = Times()
    """Seconds from a request's scheduled start to its call, of whole answers."""
    limited: bool = False
    """True if the client was a limit, so that ``unreliable`` has something."""
    unreliable: dict[str, str] = {}
    """Names of `LATENCIES` and of `Figures.rates` that can't be believed, each with its reason: ``lag``,
    ``stalls``, ``late``, or ``cpu``."""
    verdict: str = ""
    """The conclusion, as a sentence for the report."""


def merged(audits: Sequence[Audit], *, here: Audit | None = None) -> Audit:
    """Return the audit of several processes that measured at once: the worst of each.

    ``here`` is that of the process that gathers what they send: only its CPU time counts.
    """
    if here is not None:
        every = [*audits, here]
        shares = tuple(audit.cpu_share for audit in every if audit.cpu_share is not None)
        return msgspec.structs.replace(
            merged(audits),
            cpu_seconds=sum(audit.cpu_seconds for audit in every),
            cpu_share=max(shares, default=None),
            cpu_shares=shares,
        )
    if len(audits) == 1:
        return audits[0]
    known = [audit.cpu_share for audit in audits if audit.cpu_share is not None]
    pauses = [audit.gc for audit in audits]
    generations = {name for each in pauses for name in each.by_generation}
    return Audit(
        workers=len(audits),
        seconds=max(audit.seconds for audit in audits),
        cpu_seconds=sum(audit.cpu_seconds for audit in audits),
        cpu_waited=max((a.cpu_waited for a in audits if a.cpu_waited is not None), default=None),
        stolen=max((a.stolen for a in audits if a.stolen is not None), default=None),
        cpu_share=max(known, default=None),
        lag=_worst_known([audit.lag for audit in audits]),
        lag_first=_worst_known([audit.lag_first for audit in audits]),
        lag_last=_worst_known([audit.lag_last for audit in audits]),
        loop=_worst([audit.loop for audit in audits]),
        stalls={
            name: max(audit.stalls.get(name, 0.0) for audit in audits)
            for name in sorted({name for audit in audits for name in audit.stalls}, key=float)
        },
        gc=Pauses(
            count=sum(each.count for each in pauses),
            total=sum(each.total for each in pauses),
            longest=max(each.longest for each in pauses),
            by_generation={
                name: sum(each.by_generation.get(name, 0) for each in pauses)
                for name in sorted(generations)
            },
        ),
    )


def _worst_known(times: Sequence[Times | None]) -> Times | None:
    known = [each for each in times if each is not None]
    return _worst(known) if len(known) == len(times) else None


def _worst(times: Sequence[Times]) -> Times:
    known = [each for each in times if each.count]
    if not known:
        return Times()
    return Times(
        count=sum(each.count for each in known),
        p50=max(each.p50 or 0.0 for each in known),
        p99=max(each.p99 or 0.0 for each in known),
        max=max(each.max or 0.0 for each in known),
    )


def judged(audit: Audit, figures: Figures, load: Load) -> Audit:
    """Return the audit with its verdict on these figures.

    ==========  ======================================  ============================================
    reason      rule                                    marks
    ==========  ======================================  ============================================
    ``lag``     lag p99 of its reads above 1 ms and     that figure
                above 1 % of the figure's median (for
                TPOT: of the time from the first to
                the last content); and, where the lag
                is taken out, above half of the median
                gap, where reads did bring several
                contents
    ``stalls``  turns of the event loop longer than     that figure, unless it is a hundred
                half of the median gap, and CPUs taken  times as long as the longest turn (0.1 s
                away by the host, took more than 1 %    for what the host took)
                of the time, where reads did bring
                several contents
    ``late``    late p99 above 1 ms and above 1 % of    the figures from the scheduled start; above
                the median TTFT, in an open loop        1 % of the run, the rate of requests
                without a bound of its own
    ``cpu``     more than 80 % of a core, used or       the rates
                waited for, in a closed loop, or in
                one that was ``late``
    ==========  ======================================  ============================================

    Reads that brought several contents are told by `Figures.together`: the server may have sent these at
    once, but where there are none (no more than 1 %), no lag and no stall has put any behind another. For
    TTFT and TPOT it is the first contents that count, for the longest gap each answer.
    Where the lag of reads is not known, the turns of the event loop stand in for it.
    """
    late = figures.latency["late"]
    late_times = Times(count=late.count, p50=late.at("p50"), p99=late.at("p99"), max=late.max)
    audit = msgspec.structs.replace(audit, late=late_times)
    unreliable: dict[str, str] = {}
    for name, spread in figures.latency.items():
        lag = _lag(audit, name)
        if name not in OWN and spread.count and _wrong(lag, name, audit, figures):
            unreliable[name] = "lag"
        elif name not in OWN and spread.count and _stalled(audit, name, figures):
            unreliable[name] = "stalls"
    closed = isinstance(load, Closed)
    free = not closed and getattr(load, "concurrency", None) is None
    behind = free and late_times.worst > _allowed(_stretch("ttft", figures))
    if behind:
        scheduled = [name for name in figures.latency if name.endswith("_scheduled")]
        unreliable |= dict.fromkeys(scheduled, "late")
        if late_times.worst > SHARE_OF_FIGURE * audit.seconds:
            unreliable["requests"] = "late"
    if busy(audit) and (closed or behind):
        unreliable |= dict.fromkeys(RATES, "cpu")
    return msgspec.structs.replace(
        audit,
        limited=bool(unreliable),
        unreliable=unreliable,
        verdict=_verdict(audit, unreliable) if figures.sent else "",
    )


def _wrong(lag: Times, name: str, audit: Audit, figures: Figures) -> bool:
    """Return True if a lag may have put a figure wrong."""
    if lag.worst <= _allowed(_stretch(name, figures)):
        return False
    taken_out = lag is not audit.loop
    half = (figures.latency["itl"].at("p50") or 0.0) / 2
    return not taken_out or (lag.worst > half and _read_together(name, figures))


def _read_together(name: str, figures: Figures) -> bool:
    """Return True if reads brought several contents, among them such as this figure rests on: the first
    ones of answers, any of an answer, or any of all.
    """
    together, answers = figures.together, figures.finished
    if name.startswith(("ttft", "tpot")):
        return together.beginnings > TOGETHER * answers
    if name == "itl_max":
        return together.answers > TOGETHER * answers
    return together.contents > TOGETHER * figures.latency["itl"].count


def _stalled(audit: Audit, name: str, figures: Figures) -> bool:
    """Return True if stalls may have put a figure wrong."""
    if not _read_together(name, figures):
        return False
    half = (figures.latency["itl"].at("p50") or 0.0) / 2
    limit = max((each for each in STALLS if each <= half), default=STALLS[0])
    stalled, stolen = audit.stalls.get(f"{limit:g}", 0.0), audit.stolen or 0.0
    longest = max(audit.loop.max or 0.0, STOLEN_PAUSE if stolen else 0.0)
    share = (stalled + stolen) / audit.seconds if audit.seconds else 0.0
    return share > STALLED and longest > _allowed(_stretch(name, figures))


def _stretch(name: str, figures: Figures) -> float:
    """Return the median of the time that a figure is made of. That is the figure, but for a time per
    token, whose error is that of the whole answer by its tokens.
    """
    if name != "tpot":
        return figures.latency[name].at("p50") or 0.0
    whole, first = (figures.latency[each].at("p50") or 0.0 for each in ("e2e", "ttft"))
    return max(0.0, whole - first)


def busy(audit: Audit) -> bool:
    """Return True if this program used most of a core, or would have, had other programs let it."""
    if audit.seconds < BUSY_SECONDS:
        return False
    return (audit.cpu_share or 0.0) + (audit.cpu_waited or 0.0) / audit.seconds > BUSY


def _lag(audit: Audit, name: str = "") -> Times:
    """Return the lag of the reads that a figure rests on, or of all."""
    lag = audit.lag
    if name.startswith("ttft"):
        lag = audit.lag_first
    elif name.startswith(("e2e", "tpot")):
        lag = audit.lag_last
    return audit.loop if lag is None or lag.count < ENOUGH_READS else lag


def _allowed(median: float) -> float:
    return max(LEAST_LAG, SHARE_OF_FIGURE * median)


def _verdict(audit: Audit, unreliable: dict[str, str]) -> str:
    lag = _lag(audit)
    what = "event loop turns took" if lag is audit.loop else "reads lagged by"
    facts = [f"{what} p50 {_ms(lag.p50)}, p99 {_ms(lag.p99)}, max {_ms(lag.max)}"]
    for what, times in (("first", audit.lag_first), ("last", audit.lag_last)):
        if times is not None and times.worst > max(LEAST_LAG, lag.worst):
            facts.append(f"{what} reads of answers lagged by p99 {_ms(times.p99)}")
    if audit.cpu_share is not None:
        facts.append(f"{audit.cpu_share:.0%} of a core")
    waited = audit.cpu_waited or 0.0
    if waited > WAITED * audit.seconds > 0:
        facts.append(f"waited for a CPU {waited / audit.seconds:.0%} of the time")
    if audit.stolen:
        facts.append(f"the host took CPU time away for {audit.stolen:.2f} s")
    if audit.late.worst > LEAST_LAG:
        facts.append(f"sent late by p99 {_ms(audit.late.p99)}")
    if "stalls" in unreliable.values() and (audit.loop.max or 0.0) > LEAST_LAG:
        facts.append(f"the event loop stalled for up to {_ms(audit.loop.max)}")
    if audit.gc.longest > LEAST_LAG:
        facts.append(f"longest garbage collection {_ms(audit.gc.longest)}")
    told = " · ".join(facts)
    return f"{limit_text(unreliable)}: {told}" if unreliable else f"the client kept up: {told}"


def limit_text(unreliable: Collection[str]) -> str:
    """Return which figures may be the client's own doing, and what helps, in words.

    Of figures that rest on one another, such as ``ttft`` and ``ttft_text``, the first is named.
    """
    names = []
    for name in unreliable:
        if not any(name.startswith(f"{other}_") for other in unreliable):
            scheduled = name.endswith("_scheduled")
            names.append("times from schedule" if scheduled else WORDS.get(name, name.upper()))
    named = ", ".join(dict.fromkeys(names))
    return f"the client may have limited {named} (try --processes or a less busy machine)"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"
