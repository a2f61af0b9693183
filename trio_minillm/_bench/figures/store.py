"""The records of one phase in compact form, in bounded memory for each request. Pure.

Records of several processes are added to one store, in any order.
"""

from __future__ import annotations

from array import array
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..record import Record, kind_of_failure
from .gaps import Gaps
from .objective import Objective
from .request import FIGURES, first_tokens

MAX_FAILURES = 50
"""Kinds of failure that are told apart: kinds and codes are the server's words, and it may have any
number of them."""
MAX_REASONS = 20
"""Finish reasons that are told apart, likewise."""
OTHER = "(other)"
"""The name of all further kinds and reasons together."""
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
"""Counts of tokens that are summed."""


class Store:
    """The part of the records of one phase that figures are made of.

    A request takes some 200 bytes; of its gaps there is the bound that `Gaps` has.
    Its 15 attributes are counts, sums, columns and gaps.
    """

    def __init__(self, objective: Objective | None = None) -> None:
        self.objective = objective
        """The limits of a good answer, if there are any."""
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.failures: dict[tuple[Any, ...], dict[str, Any]] = {}
        """Failures by kind, each with its fields, its count and an example."""
        self.tokens: Counter[str] = Counter()
        """Sums of `TOKENS` over the answers whose output tokens are known."""
        self.answers = 0
        """Answers whose output tokens are known."""
        self.running = 0
        """Answers whose server counted the tokens as it went."""
        self.empty = 0
        """Whole answers without content."""
        self.retries = 0
        self.good = 0
        """Whole answers within the limits."""
        self.cost: Decimal | None = None
        """USD, as far as it is known."""
        self.priced = 0
        """Requests whose cost is known."""
        self.gaps = Gaps()
        self._every = {name: array("d") for name in ("scheduled", "sent", "ended", "whole")}
        self._whole = {
            name: array("d") for name in (*FIGURES, "sent", "sending", "late", "last", "tokens")
        }

    @property
    def sent(self) -> int:
        """Requests."""
        return len(self._every["sent"])

    @property
    def finished(self) -> int:
        """Whole answers."""
        return len(self._whole["sent"])

    def every(self, name: str) -> NDArray[np.float64]:
        """Return a column of all requests: ``scheduled``, ``sent``, ``ended``, ``whole`` (1 or 0)."""
        return np.array(self._every[name])

    def whole(self, name: str) -> NDArray[np.float64]:
        """Return a column of the whole answers: a figure, ``sent``, ``sending``, ``late``, ``last``
        or ``tokens``. It is NaN where it is not known.
        """
        return np.array(self._whole[name])

    def add(self, record: Record) -> None:
        """Keep what the figures need of a record."""
        every = self._every
        for name in ("scheduled", "sent", "ended"):
            every[name].append(getattr(record, name))
        every["whole"].append(record.whole)
        self.outcomes[str(record.outcome)] += 1
        self.retries += record.retries
        if record.cost is not None:
            self.cost = (self.cost or Decimal(0)) + Decimal(record.cost)
            self.priced += 1
        if record.whole:
            self._add_answer(record)
        elif record.failure is not None:
            self._add_failure(record)

    def _add_answer(self, record: Record) -> None:
        reason = record.reason or "unknown"
        full = reason not in self.reasons and len(self.reasons) >= MAX_REASONS
        self.reasons[OTHER if full else reason] += 1
        values: dict[str, float | None] = {name: of(record) for name, of in FIGURES.items()}
        values["sent"], values["last"] = record.sent, record.last
        values["sending"] = None if record.called is None else record.sent - record.called
        called = record.sent if record.called is None else record.called
        values["late"] = max(0.0, called - record.scheduled)
        values["tokens"] = record.output_tokens
        for name, value in values.items():
            self._whole[name].append(np.nan if value is None else value)
        self.empty += not record.stamps
        self.good += self.objective is not None and self.objective.good(record)
        if record.output_tokens is not None:
            self.answers += 1
            self.tokens.update({name: getattr(record, name) or 0 for name in TOKENS})
        self.running += bool(record.counts)
        self.gaps.add(record.stamps, tokens_of(record))

    def _add_failure(self, record: Record) -> None:
        failure = record.failure
        assert failure is not None
        key: tuple[Any, ...] = kind_of_failure(record)
        fields: dict[str, Any] = {
            name: getattr(failure, name) for name in ("type", "kind", "status", "code", "clock")
        }
        fields = {"outcome": record.outcome, **fields, "count": 0, "example": failure.message}
        if key not in self.failures and len(self.failures) >= MAX_FAILURES:
            key = (OTHER,)
            fields = {**dict.fromkeys(fields), "type": OTHER, "count": 0, "example": ""}
        self.failures.setdefault(key, fields)["count"] += 1


def tokens_of(record: Record) -> list[float]:
    """Return the output tokens that each content holds; empty if the server has not said how many.

    The server's running usage says it. Without that, they are spread evenly over the contents
    (`first_tokens`).
    """
    stamps, counts = record.stamps, record.counts
    if counts:  # of the same length
        return [float(after - before) for before, after in zip([0, *counts], counts, strict=False)]
    if record.output_tokens is None or not stamps:
        return []
    first = first_tokens(record)
    each = (record.output_tokens - first) / max(1, len(stamps) - 1)
    return [first, *([each] * (len(stamps) - 1))]
