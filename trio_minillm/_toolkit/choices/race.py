"""The race of several models for one answer: who is asked when, and who gives it.

Each model that is asked has an ordinary stream of its own, an `Attempt`, which is booked as any other. A
task beside each waits for its first content, and takes nothing of it; whatever comes first decides. From
then on that attempt is the answer, and the others are cancelled.

All tasks are in two nurseries of the one that `Race.run` runs in: those of the streams, which end with
them, and those that decide, which end with the decision.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import trio

from ..._protocol.request import Messages, Prepared, check_model
from ..._types.errors import BudgetExceeded, MiniLLMError
from ...providers import Model
from .attempt import Attempt, name_of
from .choice import ModelChoice, ModelsExhausted


class PreparedChoice(msgspec.Struct, frozen=True):
    """The requests of a choice, ready to be sent, in its shape."""

    choice: ModelChoice
    requests: tuple[Prepared | PreparedChoice, ...]

    @property
    def first(self) -> Prepared:
        """The request to the model that is asked first."""
        first = self.requests[0]
        return first if isinstance(first, Prepared) else first.first

    def __repr__(self) -> str:
        return f"<PreparedChoice {self.choice!r}>"


def prepare_choice(
    choice: object,
    messages: Messages,
    prepare: Callable[..., Prepared],
    **options: Any,
) -> PreparedChoice:
    """Make the request for each model of a choice. ``prepare`` makes that of one.

    Raises what it raises, for a ``ValueError`` with the name of the model, and ``TypeError`` for anything
    but a choice, and for options that can't hold for several models.
    """
    if not isinstance(choice, ModelChoice):
        check_model(choice)
        raise AssertionError
    for name in ("price", "headers"):
        if options.get(name) is not None:
            raise TypeError(f"{name} can't apply to several models: set it on each of them")

    def made(model: Model | ModelChoice) -> Prepared | PreparedChoice:
        if isinstance(model, ModelChoice):
            return PreparedChoice(model, tuple(map(made, model.models)))
        try:
            return prepare(model, messages, **options)
        except ValueError as exc:
            raise ValueError(f"{name_of(model)}: {exc}") from exc

    return PreparedChoice(choice, tuple(map(made, choice.models)))


class _Failed(NamedTuple):
    """The attempts at the models of a choice, all of which failed."""

    attempts: list[Attempt]
    final: Attempt | None = None
    """The first whose failure sends to no other model."""


class Race:
    """The attempts of one call, and the decision which of them is the answer."""

    def __init__(self, root: PreparedChoice, make: Callable[[Prepared], Attempt]) -> None:
        self.attempts: list[Attempt] = []
        """All that were begun, in order."""
        self.decided: trio.Event = trio.Event()
        """Set once it is known who answers, or that nobody does."""
        self.won: Attempt | None = None
        """The attempt that is the answer, or the failure, of the call."""
        self.error: ModelsExhausted | None = None
        """The error if all models have failed."""
        self.crash: Exception | None = None
        """The bug, or the exception of the caller's own function, that ended the race."""
        self._root: PreparedChoice | None = root
        self._make: Callable[[Prepared], Attempt] | None = make
        self._asked_at = 0.0
        self._streams: trio.Nursery | None = None
        self._deciding: trio.Nursery | None = None

    async def run(self, made_before: int) -> None:
        """Ask the models until one answers, and wait until all their streams have ended.

        The attempts are numbered behind the ``made_before`` of the same call that came earlier. Raises
        nothing: a cancellation from outside also cancels the block, which raises it.
        """
        self._asked_at = trio.current_time()
        self._numbers = itertools.count(made_before + 1)
        try:
            async with (
                trio.open_nursery() as self._streams,
                trio.open_nursery() as self._deciding,
            ):
                if self._root is not None:
                    self._deciding.start_soon(self._report, self._root, self._exhausted)
        except trio.Cancelled:
            pass
        except BaseExceptionGroup as group:
            _, rest = group.split(trio.Cancelled)
            if rest is not None:
                raise rest from None
        finally:
            self._decide(None)
            self._streams = self._deciding = None

    async def _report(
        self, asked: Prepared | PreparedChoice, tell: Callable[[_Failed], None]
    ) -> None:
        """Ask a model, or several, and tell of it if they all fail."""
        try:
            tell(await self._ask(asked))
        except Exception as exc:  # noqa: BLE001 - raised by the stream
            self.crash = self.crash or exc
            self._decide(None)

    async def _ask(self, asked: Prepared | PreparedChoice) -> _Failed:
        if isinstance(asked, Prepared):
            return await self._ask_one(asked)
        choice, waiting = asked.choice, deque(asked.requests)
        send, receive = trio.open_memory_channel[_Failed](len(waiting))
        running, failed = 0, _Failed([])

        def tell(failed: _Failed) -> None:
            with suppress(trio.ClosedResourceError):  # cancelled in the same moment: nobody asks
                send.send_nowait(failed)

        with send, receive:
            while running or waiting:
                if waiting:
                    assert self._deciding is not None
                    self._deciding.start_soon(self._report, waiting.popleft(), tell)
                    running += 1
                seconds = math.inf if choice.after is None or not waiting else choice.after
                with trio.move_on_after(seconds):
                    attempts, _ = await receive.receive()
                    running -= 1
                    final = next((a for a in attempts if not self._sends_on(choice, a)), None)
                    failed = _Failed([*failed.attempts, *attempts], failed.final or final)
                    if final is not None:
                        waiting.clear()
                    elif running or waiting:
                        for attempt in attempts:
                            attempt.leave()  # it is booked before the next is asked
        return failed

    def _sends_on(self, choice: ModelChoice, attempt: Attempt) -> bool:
        """Return whether the next model of a choice is asked after an attempt's failure."""
        failure = attempt.failure
        return failure is not None and choice.asks_next(failure)

    async def _ask_one(self, prepared: Prepared) -> _Failed:
        """Ask a model. Returns if it fails before any content, and otherwise not at all."""
        if not self.decided.is_set():
            assert self._make is not None
            assert self._streams is not None
            attempt = self._make(prepared)
            await attempt.enter(self._streams, self._asked_at, self._numbers)
            self.attempts.append(attempt)
            await attempt.begun()
            if attempt.failure is not None:
                return _Failed([attempt])
            self._decide(attempt)
        await trio.sleep_forever()
        raise AssertionError

    def _exhausted(self, failed: _Failed) -> None:
        """Decide that all have failed: with the error that sends to no other model, or with all."""
        if failed.final is not None or len(self.attempts) == 1:
            final = failed.final or self.attempts[0]
            failure = final.failure
            if isinstance(failure, BudgetExceeded) and failure.__cause__ is None:
                before = [a.failure for a in failed.attempts if a is not final]
                failure.__cause__ = before[-1] if before else None
            elif failure is not None and len(self.attempts) > 1:
                others = ", ".join(a.asked for a in self.attempts if a is not final)
                failure.add_note(f"from {final.asked}; asked as well: {others}")
            self._decide(final)
            return
        for attempt in self.attempts:
            attempt.leave()  # its error may still be behind chunks that are no content
        errors = [(a.error, a.asked) for a in self.attempts if a.error is not None]
        self.error = ModelsExhausted(*zip(*errors, strict=True))
        self.error.__cause__ = errors[-1][0]
        self._decide(None)

    def _decide(self, won: Attempt | None) -> None:
        """Let an attempt be the answer, and cancel the others. The first decision stands."""
        if self.decided.is_set():
            return
        self.won = won
        self.decided.set()  # first: a limit that is reached by what is booked now ends all
        for attempt in self.attempts:
            if attempt is not won:
                attempt.leave()
        if self._deciding is not None:
            self._deciding.cancel_scope.cancel()
        self._root = self._make = None  # they hold the prompt, which may be long

    # -- for the stream ----------------------------------------------------------------------

    def leave(self, *, rejected: bool = False, error: MiniLLMError | None = None) -> None:
        """End every attempt now. If nothing was decided, one that had content or was whole has won."""
        undecided = not self.decided.is_set()
        self.decided.set()
        for attempt in tuple(self.attempts):
            stop = attempt is not self.won
            attempt.leave(rejected=rejected, error=error, stop=stop)
        if undecided:
            self.won = next((a for a in self.attempts if a.said), None)
            if self._deciding is not None:
                self._deciding.cancel_scope.cancel()
            self._root = self._make = None

    def stop(self) -> None:
        """Close all connections."""
        for attempt in self.attempts:
            attempt.leave()

    async def stopped(self) -> None:
        """Close all connections, and wait until that is done."""
        for attempt in self.attempts:
            await attempt.stopped()

    async def booked(self) -> None:
        """Wait until it is known what each attempt cost, or that nobody will say."""
        for attempt in self.attempts:
            await attempt.booked()

    async def close(self, *, at_once: bool) -> None:
        """Close all streams, at once except for the answer. Shielded, and bounded as with one stream."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for attempt in self.attempts:
                    now = at_once or attempt is not self.won
                    nursery.start_soon(partial(attempt.close, at_once=now))
