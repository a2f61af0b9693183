"""Every attempt and what it cost, and what they come to; in memory (`_ledger_file`: in a file).

Guarantees: an attempt is counted once; sums are exact; nothing here is async, so that no
cancellation comes between a booking and its line. Money is USD, tokens are counts. One ledger
is for one thread.
"""

from __future__ import annotations

import logging
import operator
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec.structs import astuple, replace

from .._types.cost import CostInfo, CostResolution, add, payable
from .._types.response import Outcome
from .._types.usage import Usage

OTHER = "(other)"
"""Where the attempts are summed that the bounds below leave no room for."""
MAX_VALUES = 10_000
"""Models, and values of one meta key, that have sums of their own."""
MAX_VALUE_CHARS = 1_000
"""A longer value of a meta key is summed under `OTHER`."""
MAX_META_KEYS = 100
"""Meta keys that have sums of their own."""
MAX_RECENT, MAX_RECENT_BYTES = 1_000, 32 << 20
"""Records that `Ledger.recent` keeps, and in how many bytes of lines of a file."""
MAX_UNSETTLED = 100_000
"""Records that wait for `Client.settle`, meta included; beyond, the oldest stay as they were
booked and can't be settled."""

MAX_TOKENS = 10**15

_PAID = (CostResolution.RESOLVED, CostResolution.LOWER_BOUND)
_RESOLUTIONS, _OUTCOMES = tuple(CostResolution), tuple(Outcome)
_ZERO = Decimal(0)
BAD_JSON = (msgspec.MsgspecError, TypeError, ValueError, ArithmeticError, RecursionError)
_NUMBER = re.compile("[1-9][0-9]{0,17}")
_log = logging.getLogger("trio_minillm")


class CostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt and what came of it: a line of the ledger, and what ``on_cost`` is given.

    It holds no key of any API and no text of any error. ``meta`` is the caller's own and is
    not shown by ``repr``.
    """

    key: str
    """Unique: ``<run>-<number>``, from `Ledger.new_key`."""
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    """When the attempt ended or was settled, in UTC."""
    model: str
    """As it was asked."""
    provider: str
    base_url: str
    id: str | None
    """The provider's generation id."""
    request_id: str | None = None
    attempt: int = 1
    """Number within its stream, from 1."""
    outcome: Outcome
    rejected: bool = False
    booked: bool
    """True for finished and cancelled attempts, unless they were rejected."""
    unsettled: bool = False
    """The provider may still say what it cost (`Client.settle`)."""
    usage: Usage | None = None
    """Kept without ``raw``."""
    cost: CostInfo = CostInfo()
    error: str | None = None
    """Name of the class of the error that ended it."""
    meta: Any = None

    @property
    def amount(self) -> Decimal | None:
        """What it cost in USD; ``None`` unless resolved or a lower bound."""
        return self.cost.amount

    @property
    def resolution(self) -> CostResolution:
        """How much `amount` can be trusted."""
        return self.cost.resolution

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<CostRecord {self.key} {self.outcome} {self.resolution} {self.amount} USD>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What a set of attempts comes to, as it was when this was read: a copy, not a view."""

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
    resolutions: dict[CostResolution, int] = msgspec.field(default_factory=Counter)
    """How many booked attempts have each; what is missing reads as 0."""
    outcomes: dict[Outcome, int] = msgspec.field(default_factory=Counter)
    """How many of all attempts have each; what is missing reads as 0."""


_COUNTS = ("attempts", "booked", "rejected", "prompt_tokens", "completion_tokens")
_NO_NAMES = [0] * (len(_RESOLUTIONS) + len(_OUTCOMES))
_PLACES = {name: i for i, name in enumerate((*_RESOLUTIONS, *_OUTCOMES), len(_COUNTS))}


class _Sums(msgspec.Struct, eq=False):
    """Sums as a vector, to which an attempt's share can be added and from which it is taken.

    ``counts`` are those of `_COUNTS`, then of each resolution, then of each outcome.
    """

    total: Decimal = _ZERO
    unbooked: Decimal = _ZERO
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * len(_COUNTS) + _NO_NAMES)

    def add(self, share: _Sums) -> None:
        self.total = add(self.total, share.total)
        self.unbooked = add(self.unbooked, share.unbooked)
        self.counts = list(map(operator.add, self.counts, share.counts))

    def negated(self) -> _Sums:
        counts = [-count for count in self.counts]
        return _Sums(self.total.copy_negate(), self.unbooked.copy_negate(), counts)

    def totals(self) -> Totals:
        counts = self.counts
        named = {name: counts[place] for name, place in _PLACES.items() if counts[place]}
        return Totals(
            total=self.total,
            unbooked=self.unbooked,
            resolutions=Counter({k: n for k, n in named.items() if isinstance(k, CostResolution)}),
            outcomes=Counter({k: n for k, n in named.items() if isinstance(k, Outcome)}),
            **dict(zip(_COUNTS, counts, strict=False)),
        )


def _share(record: CostRecord) -> _Sums:
    usage = record.usage or Usage()
    amount = (record.amount if record.resolution in _PAID else None) or _ZERO
    tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0
    counts = [1, int(record.booked), int(record.rejected), *tokens, *_NO_NAMES]
    counts[_PLACES[record.outcome]] = 1
    if record.booked:
        counts[_PLACES[record.resolution]] = 1
    return _Sums(*((amount, _ZERO) if record.booked else (_ZERO, amount)), counts)


def countable(usage: Usage | None) -> bool:
    if usage is None:
        return True
    return all(0 <= n <= MAX_TOKENS for n in astuple(usage) if type(n) is int)


def own(record: CostRecord) -> CostRecord:
    """A copy that nobody else can change; what can't be added is unknown in it."""
    usage, cost = record.usage, record.cost
    if usage is not None:
        usage = replace(usage, raw=None) if countable(usage) else None
    if not payable(cost.amount):
        cost = CostInfo(source=cost.source)
    return replace(record, usage=usage, cost=cost, at=record.at.astimezone(UTC))


def _value(value: Any) -> Any:
    """What it is summed under: a scalar as it is read back from JSON, else its JSON text."""
    if type(value) is not str:
        try:
            text = msgspec.json.encode(value, order="sorted").strip()
            value = text.decode() if text[:1] in b"{[" else msgspec.json.decode(text)
        except BAD_JSON:
            return OTHER
    return OTHER if isinstance(value, str) and len(value) > MAX_VALUE_CHARS else value


def _mapping(meta: Any) -> Mapping[Any, Any]:
    """A meta as the mapping that it is, or would be read back as; else an empty one."""
    if meta is None or isinstance(meta, Mapping):
        return meta or {}
    try:
        plain = msgspec.to_builtins(meta)
    except BAD_JSON:
        return {}
    return plain if isinstance(plain, dict) else {}


def _items(meta: Any) -> dict[str, Any]:
    """What a meta says, by key; nothing if it can't be read: no booking is lost for that."""
    try:
        return {str(_value(key)): value for key, value in _mapping(meta).items()}
    except Exception:  # noqa: BLE001 - a mapping of the user's own (a closed shelf, say)
        _log.exception("a meta can't be read; its attempt is counted without it")
        return {}


def _slot(groups: dict[Any, _Sums], value: Any) -> _Sums:
    if value not in groups and len(groups) >= MAX_VALUES:
        value = OTHER
    return groups.setdefault(value, _Sums())


class Ledger:
    """Every attempt, counted once, in memory that is bounded but for the keys that it has seen: some
    three bits an attempt and 200 bytes a run (more for keys that are not `new_key`'s).

    Guarantees: a record whose key was recorded before is ignored, unless the earlier one was
    unsettled: then it takes that one's place in every sum. What is read is a copy.
    """

    def __init__(self) -> None:
        self._run, self._pid, self._number = "", 0, 0
        self._all = _Sums()
        self._models: dict[str, _Sums] = {}
        self._meta: dict[str, dict[Any, _Sums]] = {}
        self._seen: dict[tuple[str, int], int] = {}  # bitmaps of 1,024 numbers each
        self._strange: set[str] = set()  # keys of another shape than ours
        self._open: OrderedDict[str, tuple[CostRecord, _Sums, list[_Sums]]] = OrderedDict()
        self._keys: OrderedDict[str, str] = OrderedDict()  # of the newest attempts, by id
        self._recent: OrderedDict[str, tuple[CostRecord, int]] = OrderedDict()
        self._recent_bytes = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.attempts} attempts, {self.total} USD>"

    def new_key(self) -> str:
        """A key that no other record has, in this process or another."""
        if self._pid != os.getpid():  # a forked child must not go on with its parent's numbers
            self._run, self._pid, self._number = os.urandom(6).hex(), os.getpid(), 0
        self._number += 1
        return f"{self._run}-{self._number}"

    def check(self, meta: object) -> None:
        """Nothing: a ledger in memory takes any ``meta``."""

    def record(self, record: CostRecord) -> bool:
        """Count an attempt, or let a settlement take the place of what it settles.

        False if it was counted before, and so changed nothing.
        """
        return self._fold(own(record))

    def flush(self) -> None:
        """Write what waits, where there is something to write to."""

    @property
    def totals(self) -> Totals:
        """What all attempts come to."""
        return self._all.totals()

    @property
    def total(self) -> Decimal:
        """USD of booked attempts, lower bounds included."""
        return self._all.total

    @property
    def unbooked(self) -> Decimal:
        """USD of attempts that are not booked, where it is known."""
        return self._all.unbooked

    @property
    def attempts(self) -> int:
        """How many attempts were recorded."""
        return self._all.counts[0]

    @property
    def resolutions(self) -> dict[CostResolution, int]:
        """How many booked attempts have each resolution."""
        return self.totals.resolutions

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """How many attempts ended in each way."""
        return self.totals.outcomes

    @property
    def by_model(self) -> Mapping[str, Totals]:
        """The totals of each model; beyond `MAX_VALUES` models those of `OTHER`."""
        return _read(self._models)

    def by_meta(self, key: str) -> Mapping[Any, Totals]:
        """The totals of each value under ``key`` in a meta that is a mapping.

        Scalars stand for themselves (equal ones, as 1 and True, share their totals), others
        as their JSON text, what has no JSON under `OTHER`. Where there are more than
        `MAX_META_KEYS` keys, ``by_meta(OTHER)[OTHER]`` is of the attempts with any of the rest.
        """
        return _read(self._meta.get(key, {}))

    @property
    def unsettled(self) -> tuple[CostRecord, ...]:
        """What the provider may still price, oldest first."""
        return tuple(record for record, _, _ in self._open.values())

    def find(self, id: str) -> CostRecord | None:
        """The unsettled record of this generation id."""
        found = self._open.get(self._keys.get(id, ""))
        return None if found is None else found[0]

    def newest(self, id: str) -> CostRecord | None:
        """The newest record with this generation id, if it is unsettled or among `recent`."""
        kept = self._recent.get(self._keys.get(id, ""))
        return self.find(id) or (None if kept is None else kept[0])

    def key_of(self, id: str) -> str | None:
        """The key of the newest attempt with this generation id (of the last `MAX_UNSETTLED`)."""
        return self._keys.get(id)

    @property
    def recent(self) -> tuple[CostRecord, ...]:
        """The newest `MAX_RECENT` records, oldest first; of one attempt only the newest."""
        return tuple(record for record, _ in self._recent.values())

    def _fold(self, record: CostRecord, size: int = 0) -> bool:
        """Count it; False for one that was counted before. ``size``: bytes of its line."""
        key = record.key
        if key not in self._open and not self._is_new(key):
            return False
        share, groups = _share(record), self._groups(record)
        if key in self._open:
            _, old_share, old_groups = self._open.pop(key)
            for sums in old_groups:
                sums.add(old_share.negated())
        for sums in groups:
            sums.add(share)
        if record.unsettled:
            self._open[key] = record, share, groups
            if len(self._open) > MAX_UNSETTLED:
                self._open.popitem(last=False)
        if record.id is not None:
            self._keys[record.id] = key
            self._keys.move_to_end(record.id)
            if len(self._keys) > MAX_UNSETTLED:
                self._keys.popitem(last=False)
        self._keep(record, size)
        return True

    def _keep(self, record: CostRecord, size: int) -> None:
        recent = self._recent
        self._recent_bytes += size - recent.pop(record.key, (record, 0))[1]
        recent[record.key] = record, size
        while len(recent) > MAX_RECENT or self._recent_bytes > MAX_RECENT_BYTES:
            self._recent_bytes -= recent.popitem(last=False)[1][1]

    def _is_new(self, key: str) -> bool:
        run, _, digits = key.rpartition("-")
        if not _NUMBER.fullmatch(digits):
            known = key in self._strange
            self._strange.add(key)
            return not known
        block, bit = (run, int(digits) >> 10), 1 << (int(digits) & 1023)
        bits = self._seen.get(block, 0)
        self._seen[block] = bits | bit
        return not bits & bit

    def _groups(self, record: CostRecord) -> list[_Sums]:
        """The sums that it has a share in."""
        groups, crowded = [self._all, _slot(self._models, record.model)], False
        for name, value in _items(record.meta).items():
            if name != OTHER and (name in self._meta or len(self._meta) < MAX_META_KEYS):
                groups.append(_slot(self._meta.setdefault(name, {}), _value(value)))
            else:
                crowded = True
        if crowded:  # once, however many of its keys there is no room for
            groups.append(_slot(self._meta.setdefault(OTHER, {}), OTHER))
        return groups


def _read(groups: Mapping[Any, _Sums]) -> dict[Any, Totals]:
    return {value: sums.totals() for value, sums in groups.items() if sums.counts[0]}
