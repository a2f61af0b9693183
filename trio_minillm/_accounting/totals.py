"""Sums over many records: of all, of each model, and of each value of each ``meta`` key.

Sums are exact. Their memory is bounded: beyond `MAX_VALUES` models or values, and
`MAX_META_KEYS` keys, records are summed together under `OTHER`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from .._types.cost import CostResolution
from .._types.money import add
from .._types.response import Outcome
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
    """The sums over a set of attempts at the time when you read them. This is a copy, not a
    view.
    """

    total: Decimal = _ZERO
    """USD of finished and cancelled attempts, including lower bounds."""
    unbooked: Decimal = _ZERO
    """USD of the other attempts, as far as they are known."""
    attempts: int = 0
    """Number of attempts."""
    booked: int = 0
    """Number of attempts whose cost counts: finished and cancelled ones."""
    rejected: int = 0
    """Number of attempts that the caller rejected."""
    prompt_tokens: int = 0
    """Input tokens of all attempts, cached or not, as far as they are known."""
    completion_tokens: int = 0
    """Output tokens of all attempts, as far as they are known."""
    counted: int = 0
    """Number of attempts whose tokens are known, at least in part."""
    unbooked_known: int = 0
    """Number of the other attempts whose cost is known, at least in part."""
    resolutions: dict[CostResolution, int] = msgspec.field(default_factory=Counter)
    """Number of finished and cancelled attempts of each resolution; a missing one reads as 0."""
    outcomes: dict[Outcome, int] = msgspec.field(default_factory=Counter)
    """Number of all attempts of each outcome; a missing one reads as 0."""


class Kind(msgspec.Struct, frozen=True, cache_hash=True):
    """All of an attempt that is counted; each is of one kind."""

    outcome: Outcome
    resolution: CostResolution
    booked: bool
    rejected: bool
    counted: bool
    """True if its tokens are known, at least in part."""
    known: bool
    """True if its cost is known, at least in part."""


class Share(msgspec.Struct, frozen=True):
    """The share of one record in the sums that it belongs to."""

    kind: Kind
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    amount: Decimal

    def negated(self) -> Share:
        """Return the share that takes this one away when it is added."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return Share(self.kind, -self.attempts, -prompt, -completion, self.amount.copy_negate())


class Sums(msgspec.Struct, eq=False):
    """Totals as a vector, so that a record's share can be added and taken away again."""

    total: Decimal = _ZERO
    unbooked: Decimal = _ZERO
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kinds: dict[Kind, int] = {}
    """Number of attempts of each kind: a few of the kinds that there can be."""

    @property
    def attempts(self) -> int:
        """Number of attempts."""
        return sum(self.kinds.values())

    def add(self, share: Share) -> None:
        """Add the share of a record."""
        kind, kinds = share.kind, self.kinds
        kinds[kind] = kinds.get(kind, 0) + share.attempts
        if kind.counted:
            self.prompt_tokens += share.prompt_tokens
            self.completion_tokens += share.completion_tokens
        if not share.amount:  # as of most attempts without a price
            return
        if kind.booked:
            self.total = add(self.total, share.amount)
        else:
            self.unbooked = add(self.unbooked, share.amount)

    def totals(self) -> Totals:
        """Return the sums under their public names."""
        kinds = [(kind, n) for kind, n in self.kinds.items() if n]
        outcomes: Counter[Outcome] = Counter()
        resolutions: Counter[CostResolution] = Counter()
        for kind, n in kinds:
            outcomes[kind.outcome] += n
            if kind.booked:
                resolutions[kind.resolution] += n
        return Totals(
            total=self.total,
            unbooked=self.unbooked,
            attempts=self.attempts,
            booked=sum(n for kind, n in kinds if kind.booked),
            rejected=sum(n for kind, n in kinds if kind.rejected),
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            counted=sum(n for kind, n in kinds if kind.counted),
            unbooked_known=sum(n for kind, n in kinds if kind.known and not kind.booked),
            resolutions=resolutions,
            outcomes=outcomes,
        )


_kinds: dict[Kind, Kind] = {}


def share_of(record: CostRecord) -> Share:
    """Return what one record adds to the sums."""
    usage, cost, prompt, completion = record.usage, record.cost, None, None
    if usage is not None:
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
    counted = prompt is not None or completion is not None
    amount = cost.amount if cost.resolution in _PAID else None
    kind = Kind(
        record.outcome,
        cost.resolution,
        record.booked,
        record.rejected,
        counted,
        amount is not None,
    )
    kind = _kinds.setdefault(kind, kind)  # one of each: sums find it without a comparison
    return Share(kind, 1, prompt or 0, completion or 0, amount or _ZERO)


Added: TypeAlias = tuple[Share, list[Sums]]
"""The share of one record, and the sums that it was added to and can be taken away from."""


class GroupedSums:
    """Sums of all records, of each model, and of each value of each ``meta`` key."""

    def __init__(self) -> None:
        self.all: Sums = Sums()
        self._models: dict[str, Sums] = {}
        self._meta: dict[str, dict[Any, Sums]] = {}

    def add(self, record: CostRecord) -> Added:
        """Add a record to all the sums that it belongs to."""
        share, groups = share_of(record), self._groups(record)
        for sums in groups:
            sums.add(share)
        return share, groups

    def remove(self, added: Added) -> None:
        """Take a record away from all the sums that it was added to."""
        share, groups = added
        negated = share.negated()
        for sums in groups:
            sums.add(negated)

    def by_model(self) -> dict[Any, Totals]:
        """Return the totals of each model."""
        return _totals(self._models)

    def by_meta(self, key: str) -> dict[Any, Totals]:
        """Return the totals of each value of one meta key."""
        return _totals(self._meta.get(key, {}))

    def _groups(self, record: CostRecord) -> list[Sums]:
        groups, crowded = [self.all, _group(self._models, record.model)], False
        if record.meta is None:
            return groups
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
    if isinstance(meta, Mapping):
        return meta
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
    return {value: sums.totals() for value, sums in groups.items() if sums.attempts}
