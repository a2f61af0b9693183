"""Several models in place of one, as a value: `first_of` and `fallback`, and what sends to the next.

Nothing here waits. `race` asks the models, and `chosen` has the stream of the one that answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from ..._types.checks import check_seconds, wrong_type
from ..._types.errors import (
    BudgetExceeded,
    CredentialsError,
    MiniLLMError,
    ProtocolError,
    ProviderError,
    RefusedError,
    RetriesExhausted,
    SendError,
    StreamTimeout,
    StreamTruncated,
)
from ...providers import Model

FailureWord = Literal[
    "auth",
    "quota",
    "rate_limit",
    "overloaded",
    "timeout",
    "server",
    "not_found",
    "invalid",
    "send",
    "clock",
    "truncated",
    "protocol",
]
"""A failure before the first content, in one word.

The first six, and ``invalid``, are the ``kind`` of a provider's error · ``not_found``: there is no
such model, or nothing at the address · ``send``: the request could not be sent, or the connection
broke before any response · ``clock``: a clock ran out · ``truncated``: the body ended before any
content · ``protocol``: the response violates its format."""

FAILURES: frozenset[FailureWord] = frozenset(get_args(FailureWord)) - {"invalid"}
"""The failures after which the next model is asked by default: all that another model may not have.
An invalid request is for the caller to fix."""

On: TypeAlias = (
    FailureWord
    | type[MiniLLMError]
    | Iterable[FailureWord | type[MiniLLMError]]
    | Callable[[MiniLLMError], bool]
)
"""The failures after which the next model is asked: words, classes of errors, or a function."""

_ABSENT = (404, 405, 410)


class ModelChoice(msgspec.Struct, frozen=True):
    """Several models instead of one, for `Client.stream` and `Client.complete`.

    `first_of` and `fallback` make one. A choice may contain other choices, and the same model
    twice.

    Raises ``ValueError`` if there is no model, ``TypeError`` for anything that is not a model, and
    either for an invalid option.
    """

    models: tuple[Model | ModelChoice, ...]
    """The models, in the order in which they are asked."""
    after: float | None = None
    """Seconds without content after which the next model is asked as well. ``None`` means never."""
    on: On = FAILURES
    """The failures before any content after which the next model is asked at once."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "models", tuple(self.models))  # or it could change
        if not self.models:
            raise ValueError("give at least one model")
        for one in self.models:
            if not isinstance(one, Model | ModelChoice):
                raise wrong_type("each model", one, Model, "a choice of models")
        if self.after is not None:
            check_seconds("after", self.after)
        msgspec.structs.force_setattr(self, "on", _checked(self.on))

    @property
    def all(self) -> tuple[Model, ...]:
        """All models in order, including those of inner choices."""
        nested = ((one,) if isinstance(one, Model) else one.all for one in self.models)
        return tuple(model for models in nested for model in models)

    def asks_next(self, error: MiniLLMError) -> bool:
        """Return whether the next model is asked after this failure of one.

        Always False if a spending limit is reached or the clock ``total`` ran out, because both
        apply to the whole call.
        """
        last = error.last_error if isinstance(error, RetriesExhausted) else error
        if isinstance(last, BudgetExceeded):
            return False
        if isinstance(last, StreamTimeout) and last.clock == "total":
            return False
        on = self.on
        if callable(on):
            return bool(on(last))
        word = word_of(last)
        return any(isinstance(last, one) if isinstance(one, type) else one == word for one in on)

    def __repr__(self) -> str:
        models = ", ".join(map(repr, self.models))
        return (
            f"fallback({models})"
            if self.after is None
            else f"first_of({models}, after={self.after:g})"
        )

    def __rich_repr__(self) -> Any:
        yield repr(self)


def first_of(*models: Model | ModelChoice, after: float, on: On = FAILURES) -> ModelChoice:
    """Return a choice in which the first model to start its answer gives it (hedging).

    - ``models`` are asked in order.
    - ``after`` is the number of seconds without content after which the next model is asked as
      well. With 0, all are asked at the same time.
    - ``on`` says after which failures the next model is asked at once; see `fallback`.

    The first content decides, and the other requests are cancelled.
    """
    return ModelChoice(models, after, on)


def fallback(*models: Model | ModelChoice, on: On = FAILURES) -> ModelChoice:
    """Return a choice that asks the next model if the one before it fails before any content.

    ``on`` says which failures count: words (`FailureWord`), error classes, or a function of the
    error. The default is every failure that another model may not have.
    """
    return ModelChoice(models, None, on)


class ModelsExhausted(RetriesExhausted):
    """Every model of a choice failed before any content.

    - ``errors`` holds the error of each model, in the order in which they were asked.
    - ``models`` holds their names.
    """

    def __init__(self, errors: tuple[MiniLLMError, ...], models: tuple[str, ...]) -> None:
        told = " · ".join(f"{name}: {error}" for name, error in zip(models, errors, strict=True))
        MiniLLMError.__init__(self, f"none of {len(models)} models answered: {told}")
        self.errors = errors
        self.models = models

    @property
    def last_error(self) -> MiniLLMError:
        """The error of the last attempt at the last model."""
        last = self.errors[-1]
        return last.last_error if isinstance(last, RetriesExhausted) else last

    @property
    def attempts(self) -> int:
        """The number of requests that were sent to all of the models."""
        return sum(e.attempts if isinstance(e, RetriesExhausted) else 1 for e in self.errors)


def word_of(error: MiniLLMError) -> FailureWord | None:
    """Return the word for a failure; ``None`` for a limit of the caller's own."""
    if isinstance(error, RefusedError | ProviderError):
        return "not_found" if _is_absent(error) else error.kind
    words: dict[type[MiniLLMError], FailureWord] = {
        CredentialsError: "auth",
        SendError: "send",
        StreamTimeout: "clock",
        StreamTruncated: "truncated",
        ProtocolError: "protocol",
    }
    return next((word for kind, word in words.items() if isinstance(error, kind)), None)


def _is_absent(error: RefusedError | ProviderError) -> bool:
    """Return whether the server says that it has no such model, or that nothing is at the address."""
    if error.kind != "invalid":
        return False
    from ...providers._error_codes import plain_code, status_of  # only failures need them
    from ...providers._error_kinds import says_absent

    code = plain_code(error.code or "")
    return (
        error.status in _ABSENT or status_of((code,)) in _ABSENT or says_absent(error.info.message)
    )


def _checked(on: object) -> Any:
    """Return the failures as a set, or the function. Raises ``TypeError`` or ``ValueError`` for others."""
    if isinstance(on, str | type):
        on = (on,)
    elif callable(on):
        return on
    if not isinstance(on, Iterable):
        raise wrong_type("on", on, "words", "classes of errors", "a function")
    found = frozenset(on)
    for one in found:
        if isinstance(one, type) and issubclass(one, MiniLLMError):
            continue
        if not isinstance(one, str):
            raise wrong_type(
                "each failure of on", one, "a word", "a class of this library's errors"
            )
        if one not in get_args(FailureWord):
            raise ValueError(f"on must hold words of {', '.join(get_args(FailureWord))}")
    return found
