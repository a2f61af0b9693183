"""Measurements of a batch's answers and their sums, in bounded memory.

All of it is pure. Times are seconds. The times, chunks and tokens of a stream count only if its
outcome is ``finished``; other streams are only counted, by outcome and by error.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

import trio_minillm as llm

from .._batch.histogram import ERROR, EXACT, Histogram
from .._bench.figures.request import even_share
from .._protocol.redaction import redact_beginnings
from ._output import Row, error_fields, one_line

MAX_ERRORS = 50
"""Kinds of failure that are told apart, so that memory stays bounded whatever servers say."""
MAX_REASONS = 20
"""Finish reasons that are told apart, likewise: they are the server's words."""
OTHER = "(other)"
"""The name of all further kinds and reasons together."""
COUNTS = (
    *("prompt_tokens", "uncached_input_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("completion_tokens", "reasoning_tokens"),
)
"""Fields of `Usage` that are summed."""
CUT = ("length", "max_tokens")
"""Finish reasons of an answer that the parameter max_tokens has cut off."""
BUSY = 0.8
"""Share of a core from which on this program itself may have limited what was measured."""
BUSY_SECONDS = 1.0
"""Seconds that a run must have taken for `BUSY` to apply: a shorter one is always busy."""


class Sample(msgspec.Struct, kw_only=True):
    """One request's measurements."""

    response: llm.CompletionResponse
    error: llm.MiniLLMError | None = None
    last_at: float | None = None
    """Trio's clock when the last content left the socket."""


class Latencies(msgspec.Struct):
    """Distributions of the times of whole answers, in seconds."""

    ttft: Histogram = msgspec.field(default_factory=Histogram)
    """From the start of a request to its first content."""
    per_token: Histogram = msgspec.field(default_factory=Histogram)
    """Between the first and the last content, for each token."""
    total: Histogram = msgspec.field(default_factory=Histogram)
    """From the start of a request to the end of its answer."""

    @property
    def exact(self) -> bool:
        """True as long as all percentiles are exact."""
        return all(d.exact for d in (self.ttft, self.per_token, self.total))

    def table(self) -> list[tuple[str, ...]]:
        """Return a row for each distribution that has values."""
        named = {
            "first content": self.ttft,
            "per output token": self.per_token,
            "whole answer": self.total,
        }
        return [
            (name, f"{d.count:,}", *map(seconds_text, list(d.summary().values())[1:6]))
            for name, d in named.items()
            if d.count
        ]

    def fields(self) -> dict[str, Any]:
        return {
            "ttft": self.ttft.summary(),
            "time_per_output_token": self.per_token.summary(),
            "total": self.total.summary(),
        }


class Failures:
    """The failures of one phase, counted by kind."""

    def __init__(self, phase: str, secret: str) -> None:
        self._phase = phase
        self._secret = secret
        self._kinds: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._newest: dict[tuple[Any, ...], llm.MiniLLMError] = {}

    def add(self, outcome: llm.Outcome, error: llm.MiniLLMError) -> None:
        fields = error_fields(error, self._secret)
        key = (outcome, *(fields[name] for name in ("type", "kind", "status", "clock")))
        if key not in self._kinds and len(self._kinds) >= MAX_ERRORS:
            key = (OTHER,)
            fields = dict.fromkeys(fields) | {"type": OTHER, "message": ""}
        if key not in self._kinds:
            named = "kind", "status", "code", "clock"
            self._kinds[key] = {
                "phase": self._phase,
                "outcome": None if key == (OTHER,) else outcome,
                "type": fields["type"],
                **{name: fields[name] for name in named},
                "count": 0,
                "example": redact_beginnings(str(fields["message"]), self._secret),
            }
        self._kinds[key]["count"] += 1
        self._newest[key] = error

    @property
    def commonest(self) -> llm.MiniLLMError | None:
        """The newest error of the commonest kind."""
        if not self._kinds:
            return None
        return self._newest[max(self._kinds, key=lambda key: self._kinds[key]["count"])]

    def rows(self) -> list[Row]:
        """Return a row for each kind of failure, the commonest first."""
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind["count"])
        return [
            (error_name(kind), f"{kind['count']:,} · {one_line(kind['example'], 200)}")
            for kind in kinds
        ]

    def fields(self) -> list[dict[str, Any]]:
        """Return the kinds of failure for JSON."""
        return list(self._kinds.values())


class TokenCounts:
    """Sums over the answers that came with their final usage."""

    def __init__(self) -> None:
        self.sums = Counter[str]()
        """Tokens, by the name of the field of `Usage`; fields that no answer had are not there."""
        self.answers = 0
        """Answers whose output tokens are known."""

    def add(self, usage: llm.Usage) -> None:
        for name in COUNTS:
            if (count := getattr(usage, name)) is not None:
                self.sums[name] += count
        self.answers += usage.completion_tokens is not None

    def text(self, rate: float | None) -> str:
        """Return the sums as text. ``rate`` is that of the output tokens."""
        if not self.answers:
            return "unknown: no answer came with its usage"
        sums = self.sums
        text = f"{sums['completion_tokens']:,} out{_rate_text(rate)}"
        if sums["reasoning_tokens"]:
            text += f" ({sums['reasoning_tokens']:,} of them reasoning)"
        text += f" · {sums['prompt_tokens']:,} in"
        if sums["cache_read_tokens"]:
            text += f" ({sums['cache_read_tokens']:,} cached)"
        return text

    def fields(self) -> dict[str, Any] | None:
        """Return the sums for JSON, with null for what no answer said."""
        if not self.answers:
            return None
        return {**{name: self.sums.get(name) for name in COUNTS}, "answers": self.answers}


class Results:
    """The results of the streams of one phase."""

    def __init__(self, phase: str, secret: str = "") -> None:
        self.phase = phase
        self.outcomes = Counter[llm.Outcome]()
        self.reasons = Counter[str]()
        self.failures = Failures(phase, secret)
        self.latencies = Latencies()
        self.tokens = TokenCounts()
        self.chunks = self.empty = self.retries = 0
        self.first_sent: float | None = None
        self.last_content: float | None = None
        self.cpu = self.seconds = 0.0
        """CPU time of this process while it measured, and the wall-clock time of that."""
        self._secret = secret

    @property
    def finished(self) -> int:
        return self.outcomes[llm.Outcome.FINISHED]

    @property
    def sent(self) -> int:
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        return self.outcomes[llm.Outcome.TRUNCATED] + self.outcomes[llm.Outcome.ERRORED]

    def add(self, sample: Sample) -> None:
        """Count a stream that has ended, unless nothing of it was sent."""
        response, timings = sample.response, sample.response.timings
        if response.outcome is None or not timings.attempts:
            return
        self.outcomes[response.outcome] += 1
        self.retries += timings.attempts - 1
        if response.outcome is not llm.Outcome.FINISHED:
            if sample.error is not None:
                self.failures.add(response.outcome, sample.error)
            return
        reason = one_line(
            redact_beginnings(str(response.finish_reason or "unknown"), self._secret), 40
        )
        full = reason not in self.reasons and len(self.reasons) >= MAX_REASONS
        self.reasons[OTHER if full else reason] += 1
        self.chunks += timings.chunks
        if timings.total is not None:
            self.latencies.total.add(timings.total)
        if sample.last_at is None or timings.first_chunk is None:
            self.empty += not timings.chunks  # one from a vendor's batch has content without times
        else:
            self.latencies.ttft.add(timings.first_chunk)
            self.last_content = max(sample.last_at, self.last_content or 0.0)
        if response.usage is not None and response.usage.final:
            self.tokens.add(response.usage)
            self._add_time_per_token(response.usage, response)

    def _add_time_per_token(self, usage: llm.Usage, response: llm.CompletionResponse) -> None:
        hidden = 0 if response.reasoning else usage.reasoning_tokens or 0
        made = usage.completion_tokens or 0
        between = made - even_share(made, hidden, response.timings.chunks)
        first, last = response.timings.first_chunk, response.timings.last_chunk
        if first is not None and last is not None and last > first and between > 0:
            self.latencies.per_token.add((last - first) / between)

    @property
    def window(self) -> float | None:
        """Seconds from the first request to the last content of the last whole answer."""
        if self.first_sent is None or self.last_content is None:
            return None
        return self.last_content - self.first_sent

    def rate(self, count: int) -> float | None:
        """Return the count per second of the window."""
        return count / self.window if self.window else None

    @property
    def tokens_rate(self) -> float | None:
        """Output tokens of whole answers per second; None if no server said how many they are."""
        return self.rate(self.tokens.sums["completion_tokens"]) if self.tokens.answers else None

    # -- as text -----------------------------------------------------------------------------

    def table(self) -> list[tuple[str, ...]]:
        return self.latencies.table()

    def rows(self, *, asked: int | None = None, cached: int = 0, invalid: int = 0) -> list[Row]:
        """Return all the other lines but that of the cost.

        ``asked`` is the number of answers that were wanted, if more were than were sent for;
        ``cached`` of them came without being sent for, and ``invalid`` are whole, but not valid.
        """
        finished, cancelled = self.finished, self.outcomes[llm.Outcome.CANCELLED]
        reasons = " · ".join(
            f"{n:,} cut at max_tokens" if reason in CUT else f"{reason} {n:,}"
            for reason, n in self.reasons.most_common()
        )
        count = f"{finished + cached:,} of {self.sent if asked is None else asked:,}"
        if invalid:
            count += f", {finished + cached - invalid:,} valid"
        rows = [("finished", count + (f" ({reasons})" if reasons else ""))]
        if self.failed:
            rows.append(("failed", f"{self.failed:,}"))
        rows += self.failures.rows()
        if cancelled:
            rows.append(("cancelled", f"{cancelled:,}"))
        if self.window is not None:
            rate = _rate_text(self.rate(finished))
            rows.append(("time", f"{seconds_text(self.window)}{rate.replace('/s', ' answers/s')}"))
            rows.append(("chunks", f"{self.chunks:,}{_rate_text(self.rate(self.chunks))}"))
        if finished:
            rows.append(("tokens", self.tokens.text(self.tokens_rate)))
        return [(label, one_line(line)) for label, line in rows]

    def notes(self) -> list[str]:
        """Return what qualifies the figures."""
        notes = []
        if self.empty:
            notes.append(f"{_many(self.empty, 'complete answer')} had no content")
        if self.tokens.answers and self.tokens.answers < self.finished:
            missing = _many(self.finished - self.tokens.answers, "complete answer")
            notes.append(f"{missing} reported no usage; their tokens are not counted")
        if self.retries:
            notes.append(
                f"{_many(self.retries, 'attempt')} retried; times are those of the last attempts"
            )
        if self.seconds >= BUSY_SECONDS and self.cpu > BUSY * self.seconds:
            share = self.cpu / self.seconds
            notes.append(
                f"this program used {share:.0%} of a core, so it may have been the bottleneck"
            )
        if not self.latencies.exact:
            notes.append(f"percentiles of more than {EXACT:,} values are within {ERROR:.0%}")
        return notes

    def fields(self) -> dict[str, Any]:
        """Return all but failures and cost, for JSON."""
        return {
            "counts": {
                "sent": self.sent,
                **{outcome.value: self.outcomes[outcome] for outcome in llm.Outcome},
                "empty": self.empty,
                "retries": self.retries,
                "chunks": self.chunks,
                "finish_reasons": self.reasons,
            },
            "distributions": self.latencies.fields(),
            "rates": {
                "window": self.window,
                "requests_per_second": self.rate(self.finished),
                "chunks_per_second": self.rate(self.chunks),
                "tokens_per_second": self.tokens_rate,
            },
            "usage": self.tokens.fields(),
            "client": {"cpu_seconds": self.cpu, "seconds": self.seconds},
        }


# -- text ----------------------------------------------------------------------------------


def seconds_text(seconds: float | None) -> str:
    """Return a time such as ``0.42 ms``, ``12.3 ms`` or ``1.23 s``."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:,.2f} s"
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2f} ms"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _rate_text(rate: float | None) -> str:
    return "" if rate is None else f" · {rate:,.1f}/s"


def error_name(failure: dict[str, Any]) -> str:
    """Return the name of a kind of failure, such as ``RefusedError rate_limit 429``."""
    words = (failure[name] for name in ("type", "kind", "status", "clock"))
    return one_line(" ".join(str(word) for word in words if word is not None), 60)
