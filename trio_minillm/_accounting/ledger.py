"""The ledger: the record of every attempt, counted once; here in memory.

Nothing here is async, so no cancellation comes between an attempt's end and its record. Amounts
are USD, tokens are counts. A ledger is for one thread. `trio_minillm._accounting.ledger_file` has
the ledger in a file.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from .._types.cost import CostResolution
from .._types.response import Outcome
from .record import CostRecord, detached
from .totals import Added, GroupedSums, Totals

MAX_RECENT, MAX_RECENT_BYTES = 1_000, 32 << 20
"""Records that `Ledger.recent` keeps, and the bytes that their lines may have in a file: long
metas of a thousand records could fill a gigabyte."""
MAX_UNSETTLED = 100_000
"""Records that wait for `Client.settle`. Beyond, the oldest stay as they were booked and can't be
settled. With a small meta a record takes 1.7 KB, so all of them 170 MB."""

MAX_DIGITS = 18
"""Digits of the longest number of a key that is kept as a bit."""


class SeenKeys:
    """The set of all keys that were recorded; a key of `Ledger.new_key` takes some three bits.

    The numbers of a run are kept as bitmaps of 1,024 each, about 200 bytes for a run's first.
    """

    def __init__(self) -> None:
        self._bitmaps: dict[tuple[str, int], int] = {}  # by run and number // 1024
        self._others: set[str] = set()  # keys of another shape

    def add(self, key: str) -> bool:
        """Add a key. Return False if it was there."""
        run, _, digits = key.rpartition("-")
        # isdecimal() alone takes digits of other scripts, too.
        number = digits.isascii() and digits.isdecimal() and digits[0] != "0"
        if not number or len(digits) > MAX_DIGITS:
            known = key in self._others
            self._others.add(key)
            return not known
        place = int(digits)
        block, bit = (run, place >> 10), 1 << (place & 1023)
        bits = self._bitmaps.get(block, 0)
        self._bitmaps[block] = bits | bit
        return not bits & bit


class Ledger:
    """The records of all attempts and their sums, in memory.

    Guarantees: a record whose key is already known is ignored, unless the earlier record was not
    final; it then replaces that record in every sum. Sums are exact. Everything you read is a copy.
    The memory is bounded, except for `SeenKeys`.
    """

    def __init__(self) -> None:
        self._run, self._pid, self._number = "", 0, 0
        self._seen = SeenKeys()
        self._sums = GroupedSums()
        self._unsettled: OrderedDict[str, tuple[CostRecord, Added]] = OrderedDict()
        self._keys: OrderedDict[str, str] = OrderedDict()  # of the newest attempts, by id
        self._recent: OrderedDict[str, tuple[CostRecord, int]] = OrderedDict()
        self._recent_bytes = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.attempts} attempts, {self.total} USD>"

    def new_key(self) -> str:
        """Return a key that no other record has, in this process or another."""
        if self._pid != os.getpid():  # a forked child must not go on with its parent's numbers
            self._run, self._pid, self._number = os.urandom(6).hex(), os.getpid(), 0
        self._number += 1
        return f"{self._run}-{self._number}"

    def check(self, meta: object) -> None:
        """Raise an error if this ledger can't store ``meta``. A ledger in memory stores
        anything.
        """

    def record(self, record: CostRecord) -> bool:
        """Record an attempt, or replace its record if that was not final.

        Returns False, and changes nothing, if the attempt was recorded before.
        """
        return self._count(detached(record))

    def flush(self) -> None:
        """Write records that wait to be written. A ledger in memory has none."""

    @property
    def totals(self) -> Totals:
        """The sums over all attempts."""
        return self._sums.all.totals()

    @property
    def total(self) -> Decimal:
        """The USD of finished and cancelled attempts, including lower bounds."""
        return self._sums.all.total

    @property
    def unbooked(self) -> Decimal:
        """The USD of the other attempts, as far as they are known."""
        return self._sums.all.unbooked

    @property
    def attempts(self) -> int:
        """The number of recorded attempts."""
        return self._sums.all.attempts

    @property
    def resolutions(self) -> dict[CostResolution, int]:
        """The number of finished and cancelled attempts of each resolution."""
        return self.totals.resolutions

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """The number of attempts of each outcome."""
        return self.totals.outcomes

    @property
    def by_model(self) -> Mapping[str, Totals]:
        """The totals of each model. Beyond 10,000 models, the rest is under ``"(other)"``."""
        return self._sums.by_model()

    def by_meta(self, key: str) -> Mapping[Any, Totals]:
        """Return the totals for each value of ``key`` in the attempts' ``meta``, if that is a
        mapping.

        Scalars stand for themselves; equal ones, such as 1 and True, share their totals. Other
        values are keyed by their JSON text, and values without JSON by ``OTHER = "(other)"``. If
        there are more than 100 keys, ``by_meta(OTHER)[OTHER]`` has the attempts with any of the
        rest.
        """
        return self._sums.by_meta(key)

    @property
    def unsettled(self) -> tuple[CostRecord, ...]:
        """The records whose final cost can still be looked up, oldest first."""
        return tuple(record for record, _ in self._unsettled.values())

    def find(self, id: str) -> CostRecord | None:
        """Return the record with this generation id, if its final cost can still be looked up."""
        found = self._unsettled.get(self._keys.get(id, ""))
        return None if found is None else found[0]

    def newest(self, id: str) -> CostRecord | None:
        """Return the newest record with this generation id, if it is in `unsettled` or in
        `recent`.
        """
        recent = self._recent.get(self._keys.get(id, ""))
        return self.find(id) or (None if recent is None else recent[0])

    def key_of(self, id: str) -> str | None:
        """Return the key of the newest attempt with this generation id, among the last 100,000."""
        return self._keys.get(id)

    @property
    def recent(self) -> tuple[CostRecord, ...]:
        """The newest 1,000 records, oldest first, with only the newest of each attempt."""
        return tuple(record for record, _ in self._recent.values())

    def _count(self, record: CostRecord, size: int = 0) -> bool:
        """Count a record, of a line of ``size`` bytes. Return False if it was counted before."""
        key = record.key
        if key not in self._unsettled and not self._seen.add(key):
            return False
        added = self._sums.add(record)
        if key in self._unsettled:
            self._sums.remove(self._unsettled.pop(key)[1])
        if record.unsettled:
            self._unsettled[key] = record, added
            if len(self._unsettled) > MAX_UNSETTLED:
                self._unsettled.popitem(last=False)
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
