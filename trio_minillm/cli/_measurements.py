"""What a benchmark measures of its streams, and what they come to, in bounded memory.

All of it is pure. Times are seconds. What is measured of a stream counts only if its outcome
is ``finished``; the others are counted, by outcome and error, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

import trio_minillm as llm

from .._batch.histogram import ERROR, EXACT, Histogram
from .._protocol.redaction import redact_beginnings
from ._output import Row, error_fields, one_line, usd

MAX_ERRORS = 50
"""Kinds of failure that are told apart."""
MAX_REASONS = 20
"""Finish reasons that are told apart: they are the server's words."""
OTHER = "(other)"
BUSY, BUSY_SECONDS = 0.8, 1.0
"""Share of a core from which on this program may have been what was measured, and the seconds
that it took at least: a shorter run is always busy."""


class Sample(msgspec.Struct, kw_only=True):
    """One request, and what came of it."""

    response: llm.CompletionResponse
    error: llm.MiniLLMError | None = None
    gaps: Histogram = msgspec.field(default_factory=Histogram)
    """Between one content and the next; 0 where one read brought both."""
    last_at: float | None = None
    """When its last content left the socket, on Trio's clock."""


class Results:
    """What the streams of one phase come to."""

    def __init__(self, phase: str, secret: str = "") -> None:
        self.phase = phase
        self.outcomes = Counter[llm.Outcome]()
        self.errors: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.newest_error: dict[tuple[Any, ...], llm.MiniLLMError] = {}
        self.reasons = Counter[str]()
        self.ttft, self.gap, self.per_token = Histogram(), Histogram(), Histogram()
        self.whole, self.late = Histogram(), Histogram()
        self.chunks = self.empty = self.retries = 0
        self.usage = Counter[str]()
        self.with_usage = 0
        self.first_sent: float | None = None
        self.last_content: float | None = None
        self.cpu = self.seconds = 0.0
        """CPU time of this process while it measured, and how long that was."""
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
        """Count a stream that has ended; one of which nothing was sent does not count."""
        response, timings = sample.response, sample.response.timings
        if response.outcome is None or not timings.attempts:
            return
        self.outcomes[response.outcome] += 1
        self.retries += timings.attempts - 1
        if response.outcome is not llm.Outcome.FINISHED:
            if sample.error is not None:
                self._failed(response.outcome, sample.error)
            return
        reason = one_line(
            redact_beginnings(str(response.finish_reason or "unknown"), self._secret), 40
        )
        full = reason not in self.reasons and len(self.reasons) >= MAX_REASONS
        self.reasons[OTHER if full else reason] += 1
        self.chunks += timings.chunks
        self.gap.merge(sample.gaps)
        if timings.total is not None:
            self.whole.add(timings.total)
        if sample.last_at is None or timings.first_chunk is None:
            self.empty += 1
        else:
            self.ttft.add(timings.first_chunk)
            self.last_content = max(sample.last_at, self.last_content or 0.0)
        if response.usage is not None and response.usage.final:
            self._count_tokens(response.usage, response)

    def _count_tokens(self, usage: llm.Usage, response: llm.CompletionResponse) -> None:
        names = ("prompt_tokens", "uncached_input_tokens", "cache_read_tokens")
        for name in (*names, "cache_write_tokens", "completion_tokens", "reasoning_tokens"):
            self.usage[name] += getattr(usage, name) or 0
        if usage.completion_tokens is None:
            return
        self.with_usage += 1
        # Reasoning that is counted and not shown came before the first content, not after it.
        unseen = 0 if response.reasoning else usage.reasoning_tokens or 0
        between = usage.completion_tokens - unseen - 1
        first, last = response.timings.first_chunk, response.timings.last_chunk
        if first is not None and last is not None and last > first and between > 0:
            self.per_token.add((last - first) / between)

    def _failed(self, outcome: llm.Outcome, error: llm.MiniLLMError) -> None:
        fields = error_fields(error, self._secret)
        key = (outcome, *(fields[name] for name in ("type", "kind", "status", "clock")))
        if key not in self.errors and len(self.errors) >= MAX_ERRORS:
            key = (OTHER,)
            fields = dict.fromkeys(fields) | {"type": OTHER, "message": ""}
        if key not in self.errors:
            named = "kind", "status", "code", "clock"
            self.errors[key] = {
                "phase": self.phase,
                "outcome": None if key == (OTHER,) else outcome,
                "type": fields["type"],
                **{name: fields[name] for name in named},
                "count": 0,
                "example": redact_beginnings(str(fields["message"]), self._secret),
            }
        self.errors[key]["count"] += 1
        self.newest_error[key] = error

    @property
    def commonest_error(self) -> llm.MiniLLMError | None:
        """The newest of the commonest kind."""
        if not self.errors:
            return None
        return self.newest_error[max(self.errors, key=lambda key: self.errors[key]["count"])]

    @property
    def window(self) -> float | None:
        """From the first request to the last content of the last whole answer."""
        if self.first_sent is None or self.last_content is None:
            return None
        return self.last_content - self.first_sent

    def rate(self, count: int) -> float | None:
        """So many a second, over the window."""
        return count / self.window if self.window else None

    @property
    def tokens_rate(self) -> float | None:
        """Tokens of whole answers a second; ``None`` if no server said how many they are."""
        return self.rate(self.usage["completion_tokens"]) if self.with_usage else None

    # -- as text -----------------------------------------------------------------------------

    def table(self) -> list[tuple[str, ...]]:
        """The distributions that there are, a row each."""
        named = {
            "first content": self.ttft,
            "gap between chunks": self.gap,
            "per output token": self.per_token,
            "whole answer": self.whole,
            "sent late": self.late,
        }
        return [
            (name, f"{d.count:,}", *map(seconds_text, list(d.summary().values())[1:6]))
            for name, d in named.items()
            if d.count
        ]

    def rows(self) -> list[Row]:
        """All else but cost."""
        finished, cancelled = self.finished, self.outcomes[llm.Outcome.CANCELLED]
        reasons = " · ".join(f"{reason} {n:,}" for reason, n in self.reasons.most_common())
        rows = [
            ("finished", f"{finished:,} of {self.sent:,}" + (f" ({reasons})" if reasons else ""))
        ]
        if self.failed:
            rows.append(("failed", f"{self.failed:,}"))
        rows += self.error_rows()
        if cancelled:
            rows.append(("cancelled", f"{cancelled:,}"))
        if self.window is not None:
            rate = _rate_text(self.rate(finished))
            rows.append(("time", f"{seconds_text(self.window)}{rate.replace('/s', ' answers/s')}"))
            rows.append(("chunks", f"{self.chunks:,}{_rate_text(self.rate(self.chunks))}"))
        if finished:
            rows.append(("tokens", self._tokens_text()))
        return [(label, one_line(line)) for label, line in rows]

    def error_rows(self) -> list[Row]:
        """A row for each kind of failure, the commonest first."""
        failures = sorted(self.errors.values(), key=lambda f: -f["count"])
        return [
            (error_name(f), f"{f['count']:,} · {one_line(f['example'], 200)}") for f in failures
        ]

    def _tokens_text(self) -> str:
        if not self.with_usage:
            return "unknown: no answer came with its usage"
        usage = self.usage
        text = f"{usage['completion_tokens']:,} out{_rate_text(self.tokens_rate)}"
        if usage["reasoning_tokens"]:
            text += f" ({usage['reasoning_tokens']:,} of them reasoning)"
        text += f" · {usage['prompt_tokens']:,} in"
        if usage["cache_read_tokens"]:
            text += f" ({usage['cache_read_tokens']:,} cached)"
        return text

    def notes(self) -> list[str]:
        """What the figures don't say of themselves."""
        notes = []
        if self.empty:
            notes.append(f"{_many(self.empty, 'whole answer')} had no content")
        if self.with_usage and self.with_usage < self.finished:
            missing = _many(self.finished - self.with_usage, "whole answer")
            notes.append(f"{missing} came without usage: there were more tokens than these")
        if self.retries:
            notes.append(f"sent again: {self.retries:,}; times are those of the last attempts")
        if self.seconds >= BUSY_SECONDS and self.cpu > BUSY * self.seconds:
            share = self.cpu / self.seconds
            notes.append(f"this program took {share:.0%} of a core: it may have been the limit")
        if not all(d.exact for d in (self.ttft, self.gap, self.per_token, self.whole, self.late)):
            notes.append(f"percentiles of more than {EXACT:,} values are within {ERROR:.0%}")
        return notes

    def fields(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "counts": {
                "sent": self.sent,
                **{outcome.value: self.outcomes[outcome] for outcome in llm.Outcome},
                "empty": self.empty,
                "retries": self.retries,
                "chunks": self.chunks,
                "finish_reasons": self.reasons,
            },
            "distributions": {
                "ttft": self.ttft.summary(),
                "gap": self.gap.summary(),
                "time_per_output_token": self.per_token.summary(),
                "total": self.whole.summary(),
                "late": self.late.summary(),
            },
            "rates": {
                "window": self.window,
                "requests_per_second": self.rate(self.finished),
                "chunks_per_second": self.rate(self.chunks),
                "tokens_per_second": self.tokens_rate,
            },
            "usage": {**self.usage, "answers": self.with_usage} if self.with_usage else None,
            "client": {"cpu_seconds": self.cpu, "seconds": self.seconds},
        }


# -- text ----------------------------------------------------------------------------------


def seconds_text(seconds: float | None) -> str:
    """``0.42 ms``, ``12.3 ms``, ``1.23 s``."""
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
    """``RefusedError rate_limit 429``."""
    words = (failure[name] for name in ("type", "kind", "status", "clock"))
    return one_line(" ".join(str(word) for word in words if word is not None), 60)


def cost_fields(totals: llm.Totals | None, warmup: llm.Totals | None) -> dict[str, Any]:
    """What the attempts come to, for ``--json``: amounts in USD as strings, since they are exact."""
    totals, warmup = totals or llm.Totals(), warmup or llm.Totals()
    counts = {r.value: totals.resolutions.get(r, 0) for r in llm.CostResolution}
    known = counts["resolved"] + counts["lower_bound"]
    return {
        "amount": f"{totals.total:f}" if known else None,
        "at_least": known < totals.booked or counts["lower_bound"] > 0,
        "resolutions": counts,
        "not_booked": f"{totals.unbooked:f}",
        "warmup": f"{warmup.total:f}",
    }


def cost_text(totals: llm.Totals | None) -> str:
    """The amount, and how far it can be trusted."""
    totals = totals or llm.Totals()
    counts = totals.resolutions
    unpriced = counts.get(llm.CostResolution.UNPRICED, 0)
    known = counts.get(llm.CostResolution.RESOLVED, 0)
    bounds = counts.get(llm.CostResolution.LOWER_BOUND, 0)
    if not known + bounds:
        return "unpriced (tokens known, price not)" if unpriced else "unknown"
    least = "at least " if known < totals.booked else ""
    more = f" · failed attempts ${usd(totals.unbooked)}" if totals.unbooked else ""
    return f"{least}${usd(totals.total)}{more}"
