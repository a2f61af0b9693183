"""The options of ``trio-minillm bench`` that say what load to measure, and the values they stand for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from typer import Option

from .._bench.figures.objective import Objective, parse_objective
from .._bench.plan import (
    CONCURRENCY,
    REQUESTS,
    WAVES,
    Closed,
    Course,
    Load,
    Open,
    Plan,
    Ramp,
    Trace,
    requests_by_default,
)
from .._bench.search import Over
from .._bench.trace import TraceError, read_trace
from .._bench.workers import MAX_PROCESSES
from ..local._settings import cores
from ._output import Misuse
from ._shared import positive

MIN_RAMP = 0.001
"""Seconds of the shortest ramp."""
MAX_POINTS = 100
"""Loads of a sweep: whoever lists more has mistaken a step."""
TRIAL_SECONDS = 30.0
"""Seconds of each load that a search tries, unless they are given: long enough for a queue that grows by
a twentieth to show, short enough for a dozen."""

_HELP = {
    "requests": f"Requests per load. [{REQUESTS}, or {WAVES} per stream if that is more; with --duration,"
    " no limit]",
    "concurrency": f"Maximum streams at once. [{CONCURRENCY}; with --rate, --ramp, or --trace, no limit]",
    "rate": "Start R requests per second, whether or not earlier ones have ended.",
    "arrivals": "Spacing of the requests of --rate or --ramp: even or random. [constant]",
    "burstiness": "Shape of the gamma distribution of --arrivals gamma: 1 is Poisson, less is burstier.",
    "ramp": "Change the rate linearly from FROM to TO requests per second over S seconds.",
    "trace": "Start requests at the times in a file: seconds on each line, or `timestamp` in CSV or JSON lines.",
    "speed_up": "Replay the trace X times as fast.",
    "duration": "Start no new requests after S seconds of a load; running ones finish.",
    "warmup": "Requests to send before each load is measured; they are not counted.",
    "steady": "Figures from the steady state only, or from all requests. [auto with --duration, otherwise off]",
    "processes": "Processes that send requests; 0 means one per core.",
    "sweep": "Measure several loads in turn: concurrency=1,2,4 or rate=1:10:2.",
    "find": 'Find the highest load at which this share of requests meets limits: "99% ttft<0.5s,tpot<0.05s".',
    "find_over": "What --find varies. [rate with --rate, --arrivals, or --burstiness, otherwise concurrency]",
    "precision": "Stop --find when the interval is this narrow, as a share of the load.",
}

Requests = Annotated[int | None, Option(metavar="N", min=1, help=_HELP["requests"])]
Concurrency = Annotated[int | None, Option(metavar="N", min=1, help=_HELP["concurrency"])]
Rate = Annotated[float | None, Option(metavar="R", help=_HELP["rate"])]
Arrivals = Annotated[Literal["constant", "poisson", "gamma"] | None, Option(help=_HELP["arrivals"])]
Burstiness = Annotated[float | None, Option(metavar="K", help=_HELP["burstiness"])]
RampText = Annotated[str | None, Option("--ramp", metavar="FROM:TO:S", help=_HELP["ramp"])]
TraceFile = Annotated[Path | None, Option("--trace", metavar="FILE", help=_HELP["trace"])]
SpeedUp = Annotated[float | None, Option(metavar="X", help=_HELP["speed_up"])]
Duration = Annotated[float | None, Option(metavar="S", help=_HELP["duration"])]
Warmup = Annotated[int, Option(metavar="N", min=0, help=_HELP["warmup"])]
Steady = Annotated[Literal["auto", "off"] | None, Option(help=_HELP["steady"])]
Processes = Annotated[int, Option(metavar="N", min=0, max=MAX_PROCESSES, help=_HELP["processes"])]
SweepText = Annotated[str | None, Option("--sweep", metavar="WHAT=LIST", help=_HELP["sweep"])]
FindText = Annotated[str | None, Option("--find", metavar="OBJECTIVE", help=_HELP["find"])]
FindOver = Annotated[Literal["rate", "concurrency"] | None, Option(help=_HELP["find_over"])]
Precision = Annotated[float, Option(metavar="SHARE", help=_HELP["precision"])]


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as they were given."""

    requests: int | None = None
    concurrency: int | None = None
    rate: float | None = None
    arrivals: str | None = None
    burstiness: float | None = None
    ramp: str | None = None
    trace: Path | None = None
    speed_up: float | None = None
    duration: float | None = None
    sweep: str | None = None
    find: str | None = None
    find_over: Over | None = None
    precision: float = 0.05
    steady: str | None = None
    warmup: int = 0
    hedge: str | None = None
    goodput: str | None = None

    def course(self, **more: Any) -> Course:
        """Return what is to be measured; ``more`` are further fields of each plan. Raises `Misuse`."""
        objective = self._objective()
        for name in ("rate", "ramp", "trace", "find"):
            if self.hedge is not None and getattr(self, name) is not None:
                raise Misuse(f"--hedge can't be combined with --{name}")
        plans = tuple(
            Plan(
                load=load,
                requests=self.requests_of(load),
                duration=self.seconds_of(),
                warmup=self.warmup,
                steady=self._steady(load),
                **more,
            )
            for load in self.loads()
        )
        return Course(plans=plans, objective=objective, over=self.over, precision=self.precision)

    def load(self) -> Load:
        """Return the load, or the first one of a search. Raises `Misuse`."""
        positive("duration", self.duration)
        rate, burstiness = positive("rate", self.rate), self._shape()
        named = {"--rate": rate, "--ramp": self.ramp, "--trace": self.trace}
        given = [name for name, value in named.items() if value is not None]
        if len(given) > 1:
            raise Misuse(f"{given[1]} can't be combined with {given[0]}")
        if self.speed_up is not None and self.trace is None:
            raise Misuse("--speed-up needs --trace")
        if self.trace is not None:
            return self._trace(self.trace, positive("speed-up", self.speed_up) or 1.0)
        if self.ramp is not None:
            first, last, seconds = _three_numbers("ramp", self.ramp)
            if min(first, last) < 0 or not max(first, last) or seconds < MIN_RAMP:
                least = f"and the time at least {MIN_RAMP:g} seconds"
                raise Misuse(f"--ramp: rates must be 0 or more, one of them above 0, {least}")
            return Ramp(
                first=first,
                last=last,
                seconds=seconds,
                burstiness=burstiness,
                concurrency=self.concurrency,
            )
        if rate is not None or (self.over == "rate" and (self.find or self.sweep)):
            return Open(rate=rate or 1.0, burstiness=burstiness, concurrency=self.concurrency)
        if burstiness is not None or self.arrivals is not None:
            raise Misuse("--arrivals and --burstiness need --rate or --ramp")
        return Closed(concurrency=self.concurrency or CONCURRENCY)

    def loads(self) -> list[Load]:
        """Return the loads to measure, one after the other. Raises `Misuse`."""
        first = self.load()
        if self.sweep is None:
            return [first]
        what, values = _sweep_of(self.sweep)
        if getattr(self, what) is not None:
            raise Misuse(f"--sweep {what}=… can't be combined with --{what}")
        if not isinstance(first, Open if what == "rate" else Closed):
            raise Misuse(f"--sweep {what}=… can't be combined with another kind of load")
        if what == "rate":
            return [msgspec.structs.replace(first, rate=value) for value in values]
        if any(value != int(value) for value in values):
            raise Misuse("--sweep concurrency=… takes whole numbers")
        return [Closed(concurrency=int(value)) for value in values]

    def most_requests(self) -> int | None:
        """Return the most requests of one load, the warm-up's among them; None if only time ends it."""
        every = [self.requests_of(load) for load in self.loads()]
        most = [number for number in every if number is not None]
        return max(*most, self.warmup) if len(most) == len(every) else None

    def requests_of(self, load: Load) -> int | None:
        """Return the number of requests of a load, unless it is its duration that ends it."""
        if self.requests is not None or self.duration is not None or self.find is not None:
            return self.requests
        return requests_by_default(load)

    def seconds_of(self) -> float | None:
        """Return the duration of a load."""
        searched = self.find is not None and self.requests is None and self.duration is None
        return TRIAL_SECONDS if searched else self.duration

    @property
    def over(self) -> Over:
        """The number that a sweep or a search changes."""
        if self.sweep is not None:
            return "rate" if self.sweep.partition("=")[0].strip() == "rate" else "concurrency"
        rate = self.rate is not None or self.arrivals is not None or self.burstiness is not None
        return self.find_over or ("rate" if rate else "concurrency")

    def _objective(self) -> Objective | None:
        if self.find is None:
            if self.find_over is not None:
                raise Misuse("--find-over needs --find")
            return None
        if not 0.001 <= self.precision < 1:
            raise Misuse("--precision must be at least 0.001 and below 1")
        for name in ("ramp", "trace", "sweep", "goodput"):
            if getattr(self, name) is not None:
                raise Misuse(f"--find can't be combined with --{name}")
        if self.over == "concurrency" and self.rate is not None:
            raise Misuse("--find-over concurrency can't be combined with --rate")
        try:
            return parse_objective(self.find)
        except ValueError as exc:
            raise Misuse(f"--find: {exc}") from None

    def _steady(self, load: Load) -> bool:
        if self.steady == "auto" and isinstance(load, Ramp | Trace):
            raise Misuse("--steady auto can't be combined with --ramp or --trace")
        timed = self.duration is not None and isinstance(load, Closed | Open)
        return timed if self.steady is None else self.steady == "auto"

    def _shape(self) -> float | None:
        shape = positive("burstiness", self.burstiness)
        if shape is not None and self.arrivals not in (None, "gamma"):
            raise Misuse("--burstiness needs --arrivals gamma")
        if shape is not None and not 0.001 <= shape <= 1e6:
            raise Misuse("--burstiness must be from 0.001 to 1,000,000")
        if self.arrivals == "gamma" and shape is None:
            raise Misuse("--arrivals gamma needs --burstiness")
        return 1.0 if self.arrivals == "poisson" else shape

    def _trace(self, path: Path, speed_up: float) -> Trace:
        if self.arrivals is not None or self.burstiness is not None:
            raise Misuse("--arrivals and --burstiness can't be combined with --trace")
        try:
            times = read_trace(path)
        except OSError as exc:
            raise Misuse(f"the trace {path}: {exc.strerror or exc}") from exc
        except TraceError as exc:
            raise Misuse(f"the trace {path}: {exc}") from exc
        offsets = tuple(at / speed_up for at in times)
        return Trace(offsets=offsets, concurrency=self.concurrency)


def processes_of(given: int) -> int:
    """Return the number of processes that ``--processes`` stands for."""
    if given:
        return given
    return min(MAX_PROCESSES, cores())


def _three_numbers(option: str, text: str) -> tuple[float, float, float]:
    parts = [_number(option, part) for part in text.split(":")]
    if len(parts) != 3:
        raise Misuse(f"--{option} takes three numbers, separated by colons")
    return parts[0], parts[1], parts[2]


def _sweep_of(text: str) -> tuple[str, list[float]]:
    """Return what changes in a sweep, and its values."""
    what, mark, listed = text.partition("=")
    if not mark or (what := what.strip()) not in ("concurrency", "rate"):
        raise Misuse("--sweep must be concurrency=LIST or rate=LIST")
    if ":" in listed:
        first, last, step = _three_numbers("sweep", listed)
        steps = (last - first) / step if step > 0 else -1.0
        count = math.floor(max(-1.0, min(steps + 1e-9, MAX_POINTS))) + 1
        values = [first + i * step for i in range(count)]
    else:
        values = [_number("sweep", part) for part in listed.split(",")]
    if not 0 < len(values) <= MAX_POINTS or min(values) <= 0:
        raise Misuse(
            f"--sweep takes up to {MAX_POINTS} numbers above 0, such as 1,2,4 or FROM:TO:STEP"
        )
    return what, values


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Misuse(f"--{option} takes numbers")
    return number
