"""Calls of a provider whose failure must not lose a booking.

A provider may be the user's own class. Whatever it raises here is logged, and the cost of the
stream is then unknown; the attempt is still recorded.
"""

from __future__ import annotations

import logging

from .._types.cost import CostInfo
from .._types.errors import alone
from .._types.money import payable
from .._types.usage import Usage
from ._base import Model, SettlementRequest

_log = logging.getLogger("trio_minillm")


def safe_cost(model: Model, usage: Usage | None) -> CostInfo:
    """Return the cost of the usage; unknown if the provider fails or names an absurd amount."""
    try:
        cost = model.provider.cost_of(usage, model.price)
        return cost if payable(cost.amount) else CostInfo(source=cost.source)
    except Exception as exc:  # noqa: BLE001 - a provider of the user's own
        _log.exception(
            "%s can't compute a cost", type(model.provider).__name__, exc_info=alone(exc)
        )
        return CostInfo()


def safe_settlement_request(model: Model, generation_id: str) -> SettlementRequest | None:
    """Return the request that asks what a generation cost, or ``None``, also if the provider fails."""
    try:
        return model.provider.settlement_request(model, generation_id)
    except Exception as exc:  # noqa: BLE001 - a provider of the user's own
        provider = type(model.provider).__name__
        _log.exception("%s can't look up a cost", provider, exc_info=alone(exc))
        return None
