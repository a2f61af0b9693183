"""Budgets: what was spent under `Limits`, and who is stopped when it is too much. No waiting."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from .._types.errors import BudgetExceeded
from .._types.money import add, exact
from .._types.options import Limits


class Budget:
    """What was spent under one `Limits`, and the streams that run under it."""

    def __init__(self, limits: Limits, parent: Budget | None = None) -> None:
        self._limits = limits
        self._parent = parent
        self._cost = Decimal(0)
        self._tokens = 0
        self._running: dict[object, Callable[[BudgetExceeded], None]] = {}
        self._stopping = False

    def check(self) -> None:
        """Raise `BudgetExceeded` if nothing more may start."""
        error = self._exceeded()
        if error is not None:
            raise error
        if self._parent is not None:
            self._parent.check()

    def change(self, limits: Limits) -> None:
        """Other limits, for what was spent before as well."""
        self._limits = limits
        self.spend(Decimal(0), 0)

    def enter(self, stream: object, stop: Callable[[BudgetExceeded], None]) -> None:
        """A stream begins; ``stop`` cancels it if it comes to that."""
        self._running[stream] = stop
        if self._parent is not None:
            self._parent.enter(stream, stop)

    def leave(self, stream: object) -> None:
        """A stream has ended."""
        self._running.pop(stream, None)
        if self._parent is not None:
            self._parent.leave(stream)

    def spend(self, cost: Decimal, tokens: int) -> None:
        """Something was spent; cancel what runs, if it is too much and was to be so."""
        self._cost = add(self._cost, cost)
        self._tokens += tokens
        if self._limits.running == "cancel" and not self._stopping:
            self._stopping = True  # what is stopped is booked, and so comes here again
            while self._running and (error := self._exceeded()) is not None:
                _, stop = self._running.popitem()
                stop(error)
            self._stopping = False
        if self._parent is not None:
            self._parent.spend(cost, tokens)

    def _exceeded(self) -> BudgetExceeded | None:
        limits = self._limits
        if limits.max_cost is not None and self._cost >= exact(limits.max_cost):
            return BudgetExceeded("max_cost", exact(limits.max_cost), self._cost)
        if limits.max_tokens is not None and self._tokens >= limits.max_tokens:
            return BudgetExceeded("max_tokens", limits.max_tokens, self._tokens)
        return None
