"""The figures of a single request. Pure.

Each is a number of seconds, or None where the record does not tell it: the answer has no content of
that kind, or the server has not said how many tokens it has. An answer of one content has no gap:
its ``itl``, ``itl_max`` and ``tpot`` are None too, and `within` takes them to be 0.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import sub

from ..record import Record


def _since_sent(name: str) -> Callable[[Record], float | None]:
    return lambda record: _between(record.sent, getattr(record, name))


def _since_scheduled(name: str) -> Callable[[Record], float | None]:
    return lambda record: _between(record.scheduled, getattr(record, name))


def _between(begin: float, end: float | None) -> float | None:
    return None if end is None else end - begin


def mean_gap(record: Record) -> float | None:
    """Return the mean gap between two contents."""
    stamps = record.stamps
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1) if len(stamps) > 1 else None


def longest_gap(record: Record) -> float | None:
    """Return the longest gap between two contents."""
    stamps = record.stamps
    return max(map(sub, stamps[1:], stamps), default=None)


def first_tokens(record: Record) -> float:
    """Return the output tokens that were made when the first content came, of an answer with usage.

    Usage with the first content says how many; otherwise `even_share` does.
    """
    if record.counts:
        return record.counts[0]
    hidden = 0 if record.first_reasoning is not None else record.reasoning_tokens or 0
    return even_share(record.output_tokens or 0, hidden, len(record.stamps))


def even_share(tokens: int, hidden: int, contents: int) -> float:
    """Return the tokens up to the first content where only their sum is known.

    Those that were ``hidden`` (reasoning that is counted and not shown) came before it, and the others
    are taken to be spread evenly over all contents: a server that puts four tokens into each puts four
    into the first.
    """
    return hidden + max(0, tokens - hidden) / max(1, contents)


def time_per_token(record: Record) -> float | None:
    """Return the seconds between the first and the last content for each token after the first."""
    first, last = record.first, record.last
    if first is None or last is None or record.output_tokens is None:
        return None
    between = record.output_tokens - first_tokens(record)
    return (last - first) / between if last > first and between > 0 else None


FIGURES: dict[str, Callable[[Record], float | None]] = {
    "ttft": _since_sent("first"),
    "ttft_text": _since_sent("first_text"),
    "ttft_reasoning": _since_sent("first_reasoning"),
    "itl": mean_gap,
    "itl_max": longest_gap,
    "tpot": time_per_token,
    "e2e": _since_sent("last"),
    "e2e_stream": _since_sent("ended"),
    "ttft_scheduled": _since_scheduled("first"),
    "ttft_text_scheduled": _since_scheduled("first_text"),
    "ttft_reasoning_scheduled": _since_scheduled("first_reasoning"),
    "e2e_scheduled": _since_scheduled("last"),
    "e2e_stream_scheduled": _since_scheduled("ended"),
}
"""The figures that a single request has, by name. Its ``itl`` is the mean of its gaps."""
BETWEEN = frozenset({"itl", "itl_max", "tpot"})
"""Those of the time between contents, which an answer of one content does not have."""


def within(record: Record, name: str, limit: float) -> bool:
    """Return True if a whole answer's figure is below the limit. One that is not known is not below it."""
    value = FIGURES[name](record)
    if value is None and name in BETWEEN and len(record.stamps) > 0 and record.first == record.last:
        return name != "tpot" or record.output_tokens is not None
    return value is not None and value < limit
