"""Budgets: the sum that was spent under `Limits`, and the streams to stop when it is too much.

Nothing here is async. A budget within another one passes everything on to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from .._types.checks import warn_caller
from .._types.errors import BudgetExceeded
from .._types.money import add, exact
from .._types.options import Limits


class Budget:
    """The money and tokens spent under one `Limits`, and the streams that run under it."""

    def __init__(self, limits: Limits, parent: Budget | None = None) -> None:
        self._limits = limits
        self._parent = parent
        self._cost = Decimal(0)
        self._tokens = 0
        self._running: dict[
            Callable[[BudgetExceeded], None], None
        ] = {}  # what stops each, in order
        self._stopping = False
        self._unpriced = ""
        self._warned = False
        self.idle: bool = False
        """True while nothing is limited, here and further out: only what is spent has to be counted."""
        self._note_idle()

    def _note_idle(self) -> None:
        limits, parent = self._limits, self._parent
        unlimited = limits.max_cost is None and limits.max_tokens is None
        self.idle = unlimited and (parent is None or parent.idle)

    def check(self) -> None:
        """Raise `BudgetExceeded` if no attempt may start any more."""
        error = self._exceeded()
        if error is not None:
            raise error
        if self._parent is not None:
            self._parent.check()

    def note_unpriced(self, model: str) -> None:
        """Note that an answer of this model has a cost that ``max_cost`` can't count."""
        if self._limits.max_cost is not None:
            self._unpriced = model
        if self._parent is not None:
            self._parent.note_unpriced(model)

    def warn(self) -> None:
        """Warn, once, if there was such an answer.

        It is no error: limits may be meant for the other models of a client, or for tokens alone.
        """
        if self._unpriced and not self._warned:
            self._warned = True  # also where warnings are errors
            self._warned = warn_caller(
                f"max_cost can't count {self._unpriced}: the cost of its answers is unknown (give price=)"
            )
        if self._parent is not None:
            self._parent.warn()

    def change(self, limits: Limits, running: Iterable[Callable[[BudgetExceeded], None]]) -> None:
        """Replace the limits. What was spent before counts under the new ones, and so do the streams
        that are ``running``, by what stops them, since they did not enter while it was idle.
        """
        self._limits = limits
        self._note_idle()
        self._running = {} if self.idle else dict.fromkeys(running)
        self.spend(Decimal(0), 0)

    def enter(self, stop: Callable[[BudgetExceeded], None]) -> None:
        """Register a stream that begins, by what stops it if a limit is reached.

        Streams need neither enter nor leave while the budget is idle.
        """
        self._running[stop] = None
        if self._parent is not None and not self._parent.idle:
            self._parent.enter(stop)

    def leave(self, stop: Callable[[BudgetExceeded], None]) -> None:
        """Forget a stream that has ended."""
        self._running.pop(stop, None)
        if self._parent is not None:
            self._parent.leave(stop)

    def spend(self, cost: Decimal, tokens: int) -> None:
        """Add USD and tokens. If a limit is reached, cancel what runs where ``running="cancel"``."""
        if cost:
            self._cost = add(self._cost, cost)
        self._tokens += tokens
        if self._limits.running == "cancel" and not self._stopping:
            self._stopping = (
                True  # a stream that is stopped is booked at once, which comes here again
            )
            while self._running and (error := self._exceeded()) is not None:
                stop, _ = self._running.popitem()
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
