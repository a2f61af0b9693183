"""What goes into a batch and what comes out: values, which no task and no clock knows of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from .._protocol.request import Messages
from .._types.cost import CostInfo, CostResolution, sum_of
from .._types.errors import ErrorKind, MiniLLMError
from .._types.response import CompletionResponse, Outcome, Timings
from .._types.usage import Usage
from ..providers import Model


class BatchRequest(msgspec.Struct, frozen=True):
    """One request of a batch. A value; its ``repr`` shows no prompt.

    ``key`` names it in results and files, and should be unique in a run. ``params`` are the
    typed parameters of `Client.stream` (`Params`); ``extra`` adds fields to the body. ``meta`` is the caller's own, of any type, and comes back with the result. Raises
    ``TypeError`` for a key that is no text, and ``ValueError`` for an empty one.
    """

    key: str
    messages: Messages
    model: Model | None = None
    """``None``: the batch's."""
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    meta: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str):
            raise TypeError("a request's key must be text")
        if not self.key:
            raise ValueError("a request's key must not be empty")
        if not isinstance(self.params, Mapping) or not isinstance(self.extra, Mapping):
            raise TypeError("a request's params and extra must be mappings")

    def __repr__(self) -> str:
        return f"<BatchRequest {self.key!r}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was sent, and what came of it."""

    outcome: Outcome
    started: datetime
    """When it was sent, in UTC."""
    waited: float = 0.0
    """Seconds before that in which it was ready, or put off, and not sent."""
    usage: Usage | None = None
    cost: CostInfo = CostInfo()
    timings: Timings = msgspec.field(default_factory=Timings)
    error: str | None = None
    """Name of the class of the error that ended it."""
    kind: ErrorKind | None = None
    """What the provider's refusal asks for, where it is one."""
    status: int | None = None
    """The HTTP status of a refusal."""
    retry_after: float | None = None
    """Seconds that the server asked to wait."""
    id: str = ""
    """The provider's generation id."""
    request_id: str | None = None
    record: str | None = None
    """The key of its record in the client's ledger."""


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request: an answer, or the error that it ended with.

    It is final: a request that was not sent, or that another attempt was still to be made of
    when the run stopped, has no result.
    """

    request: BatchRequest
    """The request, with the model that was asked."""
    index: int
    """Its place in the input, from 0."""
    sample: int = 0
    """Which of several answers to the same request, from 0."""
    response: CompletionResponse | None = None
    error: MiniLLMError | None = None
    """The newest attempt's error, with what had arrived as ``partial``."""
    attempts: tuple[Attempt, ...] = ()
    """All that was sent, in order; none for an answer from a cache."""
    cached: bool = False
    value: Any = None
    """The content as the type that the request's ``response_format`` asked for."""
    invalid: Exception | None = None
    """Why a finished answer is no such value (one of msgspec's errors)."""
    score: Any = None
    """What the batch's ``score`` made of it."""

    @property
    def key(self) -> str:
        """The request's key."""
        return self.request.key

    @property
    def meta(self) -> Any:
        """What the caller attached to the request."""
        return self.request.meta

    @property
    def ok(self) -> bool:
        """Whether there is a whole answer, of the type that was asked for."""
        return self.response is not None and self.invalid is None

    @property
    def outcome(self) -> Outcome:
        """How the newest attempt ended; an answer from a cache had finished."""
        return self.attempts[-1].outcome if self.attempts else Outcome.FINISHED

    @property
    def usage(self) -> Usage | None:
        """The newest attempt's usage; of a cached answer, what it took when it was made."""
        if self.attempts:
            return self.attempts[-1].usage
        return None if self.response is None else self.response.usage

    @property
    def cost(self) -> CostInfo:
        """What all attempts cost together, in USD; 0 for an answer from a cache.

        Refused attempts and those that were never sent cost nothing. The resolution is that of
        the least certain of the rest; the amount is missing if one of those is.
        """
        paid = [a.cost for a in self.attempts if a.usage is not None or a.error is None]
        if not paid:
            known = not self.attempts or all(a.status is not None for a in self.attempts)
            return CostInfo(sum_of(()), CostResolution.RESOLVED) if known else CostInfo()
        if len(paid) == 1:
            return paid[0]
        worst = max((c.resolution for c in paid), key=_CERTAINTY.index)
        amounts = [c.amount for c in paid if c.amount is not None]
        return CostInfo(sum_of(amounts) if len(amounts) == len(paid) else None, worst)

    def __repr__(self) -> str:
        ended = "ok" if self.ok else type(self.error or self.invalid).__name__
        return f"<BatchResult {self.key!r} {ended} {len(self.attempts)} attempts>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


_CERTAINTY = (
    CostResolution.RESOLVED,
    CostResolution.LOWER_BOUND,
    CostResolution.UNPRICED,
    CostResolution.UNKNOWN,
)
