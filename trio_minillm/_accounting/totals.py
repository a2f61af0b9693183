"""Sums over many records: of all, of each model, and of each value of each ``meta`` key.

Sums are exact. Their memory is bounded: beyond `MAX_VALUES` models or values, and
`MAX_META_KEYS` keys, records are summed together under `OTHER`.
"""

from __future__ import annotations

import logging
import operator
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from .._types.cost import CostResolution
from .._types.money import add
from .._types.response import Outcome
from .._types.usage import Usage
from .record import CostRecord

OTHER = "(other)"
"""Name of the sums of all records for which the bounds below leave no room."""
MAX_VALUES = 10_000
"""Models, and values of one meta key, that have sums of their own: enough for a value per user,
and too few for a value per request to fill the memory (some 5 MB a key)."""
MAX_VALUE_CHARS = 1_000
"""Characters of a meta value that has sums of its own; a longer one is summed under `OTHER`."""
MAX_META_KEYS = 100
"""Meta keys that have sums of their own."""

JSON_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, ArithmeticError, RecursionError)
"""Errors that msgspec raises for a value that can't be encoded, and for text that is not JSON."""

_PAID = (CostResolution.RESOLVED, CostResolution.LOWER_BOUND)
_ZERO = Decimal(0)
_log = logging.getLogger("trio_minillm")


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over a set of attempts at the time they were read: a copy, not a view."""

    total: Decimal = _ZERO
    """USD of booked attempts, lower bounds included."""
    unbooked: Decimal = _ZERO
    """USD of the others, where it is known."""
    attempts: int = 0
    booked: int = 0
    rejected: int = 0
    prompt_tokens: int = 0
    """Input of all attempts, cached or not, where it is known."""
    completion_tokens: int = 0
    """Output of all attempts, where it is known."""
    counted: int = 0
    """Number of attempts whose tokens are known, at least in part."""
    unbooked_known: int = 0
    """Number of attempts that are not booked and whose cost is known, at least in part."""
    resolutions: dict[CostResolution, int] = msgspec.field(default_factory=Counter)
    """Number of booked attempts of each resolution; a missing one reads as 0."""
    outcomes: dict[Outcome, int] = msgspec.field(default_factory=Counter)
    """Number of all attempts of each outcome; a missing one reads as 0."""


_COUNTS = (
    *("attempts", "booked", "rejected", "prompt_tokens", "completion_tokens"),
    *("counted", "unbooked_known"),
)
_NO_NAMES = [0] * (len(CostResolution) + len(Outcome))
_PLACES = {name: i for i, name in enumerate((*CostResolution, *Outcome), len(_COUNTS))}


class Sums(msgspec.Struct, eq=False):
    """Totals as a vector, so that a record can be added and taken away again.

    ``counts`` are those of `_COUNTS`, then one for each resolution, then one for each outcome.
    """

    total: Decimal = _ZERO
    unbooked: Decimal = _ZERO
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * len(_COUNTS) + _NO_NAMES)

    def add(self, other: Sums) -> None:
        """Add another vector to this one."""
        if other.total:  # most attempts have one amount or none
            self.total = add(self.total, other.total)
        if other.unbooked:
            self.unbooked = add(self.unbooked, other.unbooked)
        self.counts = list(map(operator.add, self.counts, other.counts))

    def negated(self) -> Sums:
        """Return the vector that takes this one away when it is added."""
        counts = [-count for count in self.counts]
        return Sums(self.total.copy_negate(), self.unbooked.copy_negate(), counts)

    def totals(self) -> Totals:
        """Return the sums under their public names."""
        counts = self.counts
        named = {name: counts[place] for name, place in _PLACES.items() if counts[place]}
        return Totals(
            total=self.total,
            unbooked=self.unbooked,
            resolutions=Counter({k: n for k, n in named.items() if isinstance(k, CostResolution)}),
            outcomes=Counter({k: n for k, n in named.items() if isinstance(k, Outcome)}),
            **dict(zip(_COUNTS, counts, strict=False)),
        )


def sums_of(record: CostRecord) -> Sums:
    """Return one record as a vector."""
    usage = record.usage or Usage()
    known = record.resolution in _PAID and record.amount is not None
    amount = (record.amount if known else None) or _ZERO
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    counted = prompt is not None or completion is not None
    counts = [1, int(record.booked), int(record.rejected), prompt or 0, completion or 0]
    counts += [int(counted), int(known and not record.booked), *_NO_NAMES]
    counts[_PLACES[record.outcome]] = 1
    if record.booked:
        counts[_PLACES[record.resolution]] = 1
    return Sums(*((amount, _ZERO) if record.booked else (_ZERO, amount)), counts)


class Added(NamedTuple):
    """The share of one record, and the sums that it was added to and can be taken away from."""

    share: Sums
    groups: list[Sums]


class GroupedSums:
    """Sums of all records, of each model, and of each value of each ``meta`` key."""

    def __init__(self) -> None:
        self.all: Sums = Sums()
        self._models: dict[str, Sums] = {}
        self._meta: dict[str, dict[Any, Sums]] = {}

    def add(self, record: CostRecord) -> Added:
        """Add a record to all the sums that it belongs to."""
        added = Added(sums_of(record), self._groups(record))
        for sums in added.groups:
            sums.add(added.share)
        return added

    def remove(self, added: Added) -> None:
        """Take a record away from all the sums that it was added to."""
        negated = added.share.negated()
        for sums in added.groups:
            sums.add(negated)

    def by_model(self) -> dict[Any, Totals]:
        """Return the totals of each model."""
        return _totals(self._models)

    def by_meta(self, key: str) -> dict[Any, Totals]:
        """Return the totals of each value of one meta key."""
        return _totals(self._meta.get(key, {}))

    def _groups(self, record: CostRecord) -> list[Sums]:
        groups, crowded = [self.all, _group(self._models, record.model)], False
        for name, value in _meta_items(record.meta).items():
            if name != OTHER and (name in self._meta or len(self._meta) < MAX_META_KEYS):
                groups.append(_group(self._meta.setdefault(name, {}), group_name(value)))
            else:
                crowded = True
        if crowded:  # once, however many of its keys there is no room for
            groups.append(_group(self._meta.setdefault(OTHER, {}), OTHER))
        return groups


def group_name(value: Any) -> Any:
    """Return the value that a meta value is summed under.

    A scalar as it is read back from JSON; anything else as its JSON text; `OTHER` if it has no
    JSON or is longer than `MAX_VALUE_CHARS`.
    """
    if type(value) is not str:
        try:
            text = msgspec.json.encode(value, order="sorted").strip()
            value = text.decode() if text[:1] in b"{[" else msgspec.json.decode(text)
        except JSON_ERRORS:
            return OTHER
    return OTHER if isinstance(value, str) and len(value) > MAX_VALUE_CHARS else value


def _meta_items(meta: Any) -> dict[str, Any]:
    """Return a meta's keys and values; none if it can't be read, so that its attempt counts."""
    try:
        return {str(group_name(key)): value for key, value in _mapping(meta).items()}
    except Exception:  # noqa: BLE001 - a mapping of the user's own (a closed shelf, say)
        _log.exception("a meta can't be read; its attempt is counted without it")
        return {}


def _mapping(meta: Any) -> Mapping[Any, Any]:
    """Return a meta as the mapping that it is or would be read back as; else an empty one."""
    if meta is None or isinstance(meta, Mapping):
        return meta or {}
    try:
        plain = msgspec.to_builtins(meta)
    except JSON_ERRORS:
        return {}
    return plain if isinstance(plain, dict) else {}


def _group(groups: dict[Any, Sums], value: Any) -> Sums:
    found = groups.get(value)
    if found is None:
        if len(groups) >= MAX_VALUES:
            value = OTHER
        found = groups.setdefault(value, Sums())
    return found


def _totals(groups: Mapping[Any, Sums]) -> dict[Any, Totals]:
    return {value: sums.totals() for value, sums in groups.items() if sums.counts[0]}
