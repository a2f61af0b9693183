"""The record of one attempt: its outcome, its usage and its cost.

Records are immutable values. Amounts are USD, tokens are counts, times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec.structs import astuple, replace

from .._types.cost import CostInfo, CostResolution
from .._types.errors import MiniLLMError
from .._types.money import payable
from .._types.response import FINISHED, Outcome
from .._types.usage import Usage
from ..providers import Model
from ..providers._base import loggable_url
from ..providers._safe_calls import safe_cost, safe_settlement_request

MAX_TOKENS = 10**15
"""Largest token count that is believed; the longest answers have some 10^5. Without a bound, one
absurd number from a server would spoil a sum (and Python prints no integer of over 4300 digits)."""


_CANCELLED, _RESOLVED = Outcome.CANCELLED, CostResolution.RESOLVED


class CostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt and its cost: a line of the ledger, and the argument of ``on_cost``.

    It contains no API key and no error message.
    """

    key: str
    """The unique key of the attempt: ``<run>-<number>``, from `Ledger.new_key`."""
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    """The time when the attempt ended or its final cost was recorded, in UTC."""
    model: str
    """The name of the requested model."""
    provider: str
    """The name of the provider, such as ``"openai"``."""
    base_url: str
    """The address that was called, without a key."""
    id: str | None
    """The provider's generation id."""
    request_id: str | None = None
    """The provider's id of the request."""
    attempt: int = 1
    """The number of the attempt within its call, or within a batch's request, from 1."""
    outcome: Outcome
    """The outcome of the attempt."""
    rejected: bool = False
    """True if the caller rejected the answer."""
    booked: bool
    """True if the cost counts towards the total: for finished and cancelled attempts that were not
    rejected."""
    unsettled: bool = False
    """True while the final cost can still be looked up (`Client.settle`)."""
    usage: Usage | None = None
    """Token counts, without ``raw``."""
    cost: CostInfo = CostInfo()
    """The cost in USD; unknown if nobody reported it."""
    error: str | None = None
    """The name of the class of the error that ended the attempt."""
    meta: Any = None
    """The caller's own value. ``repr`` does not show it."""

    @property
    def amount(self) -> Decimal | None:
        """The cost in USD; ``None`` unless it is resolved or a lower bound."""
        return self.cost.amount

    @property
    def resolution(self) -> CostResolution:
        """The reliability of `amount`."""
        return self.cost.resolution

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<CostRecord {self.key} {self.outcome} {self.resolution} {self.amount} USD>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


def attempt_record(
    model: Model,
    *,
    key: str,
    outcome: Outcome,
    generation_id: str | None,
    request_id: str | None = None,
    attempt: int = 1,
    rejected: bool = False,
    usage: Usage | None = None,
    error: MiniLLMError | None = None,
    meta: Any = None,
) -> CostRecord:
    """Return the record of an attempt that has just ended. It keeps the usage, which must be its own.

    Finished and cancelled attempts are booked, unless they were rejected. A booked one without a
    resolved cost is unsettled if its provider can be asked about it.
    """
    booked = (outcome is FINISHED or outcome is _CANCELLED) and not rejected
    cost = safe_cost(model, usage)
    record = CostRecord(  # with more than fifteen keywords, Python makes a dictionary of them first
        key=key,
        at=datetime.now(UTC),
        model=model.name,
        provider=model.provider.name,
        base_url=loggable_url(model),
        id=generation_id,
        request_id=request_id,
        attempt=attempt,
        outcome=outcome,
        rejected=rejected,
        booked=booked,
        unsettled=booked
        and generation_id is not None
        and cost.resolution is not _RESOLVED
        and safe_settlement_request(model, generation_id) is not None,
        usage=usage,
        cost=cost,
        meta=meta,
    )
    return record if error is None else replace(record, error=type(error).__name__)


def settled_record(record: CostRecord, model: Model, usage: Usage) -> CostRecord:
    """Return the record with the provider's later answer in place of what was known before."""
    cost = safe_cost(model, usage)
    return replace(record, at=datetime.now(UTC), usage=usage, cost=cost, unsettled=False)


def detached(record: CostRecord) -> CostRecord:
    """Return a copy with a usage of its own, without ``raw``.

    A usage or an amount that can't be added up is unknown in the copy.
    """
    usage, cost = record.usage, record.cost
    if usage is not None:
        usage = replace(usage, raw=None) if countable(usage) else None
    if not payable(cost.amount):
        cost = CostInfo(source=cost.source)
    at = record.at if record.at.tzinfo is UTC else record.at.astimezone(UTC)
    return replace(record, usage=usage, cost=cost, at=at)


_NUMBERS = Usage.__struct_fields__.index("service_tier")
"""Fields of a usage that are numbers: those before the tier."""


def countable(usage: Usage | None) -> bool:
    """Return False if a count is negative or larger than `MAX_TOKENS`."""
    if usage is not None:
        for count in filter(None, astuple(usage)[:_NUMBERS]):  # most are ``None``
            if type(count) is int and not 0 <= count <= MAX_TOKENS:
                return False
    return True
