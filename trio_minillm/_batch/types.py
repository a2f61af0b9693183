"""Requests, attempts and results of a batch, as plain values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Unpack, overload

import msgspec

from .._protocol.request import Messages
from .._types.cost import CostInfo, CostResolution
from .._types.errors import ErrorKind, MiniLLMError, SendReason
from .._types.money import sum_of
from .._types.params import Params, PlainParams, check_names
from .._types.response import CompletionResponse, Outcome, Timings
from .._types.usage import Usage
from .._types.value_type import Asked, Value
from ..providers import Model


class _TakesParams(msgspec.StructMeta):
    """The type of `BatchRequest`, which takes parameters by name and puts them into ``params``.

    msgspec lets no Struct have an ``__init__`` of its own.
    """

    if not TYPE_CHECKING:  # they read the signatures in the class

        def __call__(cls, *args: Any, **given: Any) -> Any:  # noqa: N805 - of a class
            if not given.keys() <= _FIELDS:
                args, given = _sorted_in(cls.__struct_fields__, args, given)
            return _make(cls, *args, **given)


_make = msgspec.StructMeta.__call__


def _sorted_in(
    fields: Sequence[str], args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a request with the parameters that stand among them in ``params``."""
    flat = {name: given.pop(name) for name in given.keys() - set(fields)}
    check_names(flat, fields)
    place = fields.index("params")
    by_place = len(args) > place
    params = args[place] if by_place else given.get("params", {})
    if not isinstance(params, Mapping):
        raise TypeError(_NO_MAPPINGS)
    if twice := sorted(flat.keys() & params.keys()):
        raise ValueError(f"{', '.join(twice)} must not be in params as well")
    params = {**params, **flat}
    if by_place:
        return (*args[:place], params, *args[place + 1 :]), given
    return args, {**given, "params": params}


class BatchRequest(msgspec.Struct, Generic[Value], frozen=True, metaclass=_TakesParams):
    """One request of a batch. Its ``repr`` shows no prompt.

    You can pass the parameters of `Client.stream` (`Params`) by name, or as the mapping ``params``,
    which stores them.

    Raises ``TypeError`` for a key that is not a string, and for an unknown parameter. Raises
    ``ValueError`` for an empty key, for a parameter that is passed in both ways, and for
    ``samples`` that are not different numbers from 0.
    """

    key: str
    """The name of the request in results and files, which should be unique in a run."""
    messages: Messages
    """The prompt or the messages, in any form that `Client.stream` accepts."""
    model: Model | None = None
    """The model; ``None`` for the batch's model."""
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """The parameters of the request (`Params`)."""
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Other fields of the body."""
    meta: Any = None
    """The caller's own value of any type, which the result repeats."""
    samples: tuple[int, ...] | None = None
    """The numbers of the answers to request, from 0. ``None`` requests as many as the batch does.
    `ResultFile.unanswered` sets the missing ones."""

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: BatchRequest[Asked],
            key: str,
            messages: Messages,
            model: Model | None = None,
            params: Mapping[str, Any] = ...,
            extra: Mapping[str, Any] = ...,
            meta: Any = None,
            samples: Sequence[int] | None = None,
            *,
            response_format: type[Asked],
            **flat: Unpack[PlainParams],
        ) -> None: ...

        @overload
        def __init__(
            self: BatchRequest[Any],
            key: str,
            messages: Messages,
            model: Model | None = None,
            params: Mapping[str, Any] = ...,
            extra: Mapping[str, Any] = ...,
            meta: Any = None,
            samples: Sequence[int] | None = None,
            **flat: Unpack[Params],
        ) -> None: ...

        def __init__(self, *args: Any, **given: Any) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.key, str):
            raise TypeError("a request's key must be text")
        if not self.key:
            raise ValueError("a request's key must not be empty")
        if type(self.params) is not dict or type(self.extra) is not dict:  # noqa: SIM102 - the usual case first
            if not (isinstance(self.params, Mapping) and isinstance(self.extra, Mapping)):
                raise TypeError(_NO_MAPPINGS)
        if self.samples is not None:
            numbers = tuple(self.samples)
            if not numbers or any(type(n) is not int or n < 0 for n in numbers):
                raise ValueError("a request's samples must be whole numbers, 0 or more")
            if len(set(numbers)) < len(numbers):
                raise ValueError("a request's samples must be different numbers")
            msgspec.structs.force_setattr(self, "samples", numbers)

    def __repr__(self) -> str:
        return f"<BatchRequest {self.key!r}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


_FIELDS = frozenset(BatchRequest.__struct_fields__)
_NO_MAPPINGS = "a request's params and extra must be mappings"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # nothing in it leads back
    """One request that was sent, and how it ended."""

    outcome: Outcome
    """The outcome of its stream."""
    started: datetime
    """The time when it was sent, in UTC."""
    waited: float = 0.0
    """The seconds for which it waited before that."""
    usage: Usage | None = None
    """Token counts; ``None`` if none arrived."""
    cost: CostInfo = CostInfo()
    """Its cost in USD, as in the ledger; unknown if it was refused or never sent."""
    timings: Timings = msgspec.field(default_factory=Timings)
    """The times of its milestones, in seconds."""
    error: str | None = None
    """The name of the class of the error that ended it."""
    kind: ErrorKind | None = None
    """The kind of the provider's refusal, if it was refused."""
    status: int | None = None
    """The HTTP status of a refusal."""
    reason: SendReason | None = None
    """The reason why it was not sent, in one word (`SendError.reason`)."""
    retry_after: float | None = None
    """The seconds that the server asked to wait."""
    id: str = ""
    """The provider's generation id."""
    request_id: str | None = None
    """The provider's id of the request."""
    record: str | None = None
    """The key of its record in the client's ledger."""
    invalid: str | None = None
    """The fault of its answer, in the words that the model was given when it was asked again."""

    @property
    def refused(self) -> bool:
        """True if no model can have worked on it, because it was refused or never sent. Sums leave
        it out.

        If a server failed or was late, a model may have answered.
        """
        if self.error == "RefusedError":
            return self.kind not in ("timeout", "server")
        return self.error == "ConnectTimeout" or self.reason is not None


class BatchResult(msgspec.Struct, Generic[Value], frozen=True, kw_only=True):
    """The final result of one request: an answer, or the error of its last attempt.

    A request that was not sent when the run stopped, or that was waiting for a retry, has no
    result. ``BatchResult[City]`` is the result of a request with ``response_format=City``.
    """

    request: BatchRequest[Value]
    """The request, with the model that was asked."""
    index: int
    """The place of the request in the input, from 0."""
    sample: int = 0
    """The number of this answer among several to one request, from 0."""
    response: CompletionResponse[Value] | None = None
    """The complete answer, if there is one. It may be ``invalid``."""
    error: MiniLLMError | None = None
    """The error of the last attempt, whose ``partial`` holds what arrived."""
    attempts: tuple[Attempt, ...] = ()
    """All attempts in order; none for an answer from a cache."""
    cached: bool = False
    """True if the answer came from the cache, so nothing was sent."""
    value: Value | None = None
    """The answer as the type of the request's ``response_format``; ``None`` if it named no type, or
    if there is no such answer."""
    invalid: Exception | None = None
    """The reason why a finished answer is rejected: an `InvalidAnswer` if it is not of the
    requested type, or what the ``validate`` function raised."""
    score: Any = None
    """The value that the batch's ``score`` function returned."""

    @property
    def key(self) -> str:
        """The request's key."""
        return self.request.key

    @property
    def meta(self) -> Any:
        """The request's ``meta``."""
        return self.request.meta

    @property
    def ok(self) -> bool:
        """True if there is a complete answer of the requested type, and ``validate`` accepted
        it.
        """
        return self.response is not None and self.invalid is None

    @property
    def outcome(self) -> Outcome:
        """The outcome of the last attempt; ``finished`` for an answer from a cache."""
        return self.attempts[-1].outcome if self.attempts else Outcome.FINISHED

    @property
    def usage(self) -> Usage | None:
        """The usage of the last attempt. For a cached answer, the usage when it was made."""
        if self.attempts:
            return self.attempts[-1].usage
        return None if self.response is None else self.response.usage

    @property
    def cost(self) -> CostInfo:
        """The cost in USD of all attempts together, except refused ones.

        It is unknown if all attempts were refused, and 0 for an answer from a cache. The resolution
        is that of the least certain attempt. If nothing is known about an attempt, the sum of the
        others is a lower bound; without a price, there is no amount.
        """
        paid = [a.cost for a in self.attempts if not a.refused]
        if len(paid) == 1:
            return paid[0]
        if self.attempts and not paid:
            return CostInfo()
        known = [cost.amount for cost in paid if cost.amount is not None]
        worst = max((cost.resolution for cost in paid), key=_CERTAINTY.index, default=_CERTAINTY[0])
        if known and worst is CostResolution.UNKNOWN:
            return CostInfo(sum_of(known), CostResolution.LOWER_BOUND)
        return CostInfo(sum_of(known) if len(known) == len(paid) else None, worst)

    def __repr__(self) -> str:
        ended = "ok" if self.ok else type(self.error or self.invalid).__name__
        return f"<BatchResult {self.key!r} {ended} {len(self.attempts)} attempts>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


# From the most certain to the least.
_CERTAINTY = (
    CostResolution.RESOLVED,
    CostResolution.LOWER_BOUND,
    CostResolution.UNPRICED,
    CostResolution.UNKNOWN,
)
