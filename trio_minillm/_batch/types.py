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
        raise ValueError(f"{', '.join(twice)} must not stand in params as well")
    params = {**params, **flat}
    if by_place:
        return (*args[:place], params, *args[place + 1 :]), given
    return args, {**given, "params": params}


class BatchRequest(msgspec.Struct, Generic[Value], frozen=True, metaclass=_TakesParams):
    """One request of a batch. A value; its ``repr`` shows no prompt.

    ``key`` names it in results and files, and should be unique in a run. The
    typed parameters of `Client.stream` (`Params`) are given by name, as there, or as the mapping
    ``params``, in which they are kept; ``extra`` adds fields to the body. ``meta`` is
    the caller's own, of any type, and comes back with the result.

    Raises ``TypeError`` for a key that is not a string, and for a name that is no parameter;
    ``ValueError`` for an empty key, for a parameter that is given in both ways, and for
    ``samples`` that are not different numbers from 0 on.
    """

    key: str
    messages: Messages
    """The prompt, or the messages, in any form that `Client.stream` takes."""
    model: Model | None = None
    """Model to ask; ``None`` for the batch's."""
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    meta: Any = None
    samples: tuple[int, ...] | None = None
    """Numbers of the answers to ask for; ``None`` for as many as the batch asks of each request.
    `ResultFile.unanswered` names those that are missing."""

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
                raise ValueError("a request's samples must be numbers from 0 on")
            if len(set(numbers)) < len(numbers):
                raise ValueError("a request's samples must be different numbers")
            msgspec.structs.force_setattr(self, "samples", numbers)

    def __repr__(self) -> str:
        return f"<BatchRequest {self.key!r}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


_FIELDS = frozenset(BatchRequest.__struct_fields__)
_NO_MAPPINGS = "a request's params and extra must be mappings"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was sent, and its end."""

    outcome: Outcome
    """Outcome of its stream."""
    started: datetime
    """Time at which it was sent, in UTC."""
    waited: float = 0.0
    """Seconds before that in which it waited to be sent."""
    usage: Usage | None = None
    """Token counts; ``None`` if none came."""
    cost: CostInfo = CostInfo()
    """Its cost in USD, as in the ledger: unknown if it was refused, or was never sent."""
    timings: Timings = msgspec.field(default_factory=Timings)
    """Times of its milestones, in seconds."""
    error: str | None = None
    """Name of the class of the error that ended it."""
    kind: ErrorKind | None = None
    """Kind of the provider's refusal, if that is what it was."""
    status: int | None = None
    """HTTP status of a refusal."""
    reason: SendReason | None = None
    """Reason for which it was not sent, in a word (that of `SendError`)."""
    retry_after: float | None = None
    """Seconds that the server asked to wait."""
    id: str = ""
    """The provider's generation id."""
    request_id: str | None = None
    """The request's id at the provider."""
    record: str | None = None
    """Key of its record in the client's ledger."""
    invalid: str | None = None
    """Fault of its answer, in the words in which the model was told of it and asked again."""

    @property
    def refused(self) -> bool:
        """True if no model can have worked on it: it was refused, or never sent. Sums leave it out.

        Behind a server that failed or was late, a model may have answered.
        """
        if self.error == "RefusedError":
            return self.kind not in ("timeout", "server")
        return self.error == "ConnectTimeout" or self.reason is not None


class BatchResult(msgspec.Struct, Generic[Value], frozen=True, kw_only=True):
    """The end of one request: an answer, or the error of its newest attempt.

    It is final. A request that was not sent, or was still to be sent again, when the run stopped
    has no result. ``BatchResult[City]`` is that of a request with ``response_format=City``.
    """

    request: BatchRequest[Value]
    """The request, with the model that was asked in ``model``."""
    index: int
    """Place of the request in the input, from 0."""
    sample: int = 0
    """Number of the answer among several to one request, from 0."""
    response: CompletionResponse[Value] | None = None
    """The whole answer, if one came; it may be ``invalid``."""
    error: MiniLLMError | None = None
    """Error of the newest attempt, with what had arrived as ``partial``."""
    attempts: tuple[Attempt, ...] = ()
    """All attempts, in order; none for an answer from a cache."""
    cached: bool = False
    """True if the answer came from the cache: nothing was sent for it."""
    value: Value | None = None
    """The answer as the type that the request's ``response_format`` asked for; ``None`` if it asked for
    none, or if there is no such answer."""
    invalid: Exception | None = None
    """Error that says why a finished answer is not of that type (an `InvalidAnswer`), or that the batch's
    ``validate`` function raised."""
    score: Any = None
    """Value that the batch's ``score`` function returned for it."""

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
        """True if there is a whole answer, of the type that was asked for, and ``validate`` took it."""
        return self.response is not None and self.invalid is None

    @property
    def outcome(self) -> Outcome:
        """Outcome of the newest attempt; ``finished`` for an answer from a cache."""
        return self.attempts[-1].outcome if self.attempts else Outcome.FINISHED

    @property
    def usage(self) -> Usage | None:
        """Usage of the newest attempt; of a cached answer, that of the time when it was made."""
        if self.attempts:
            return self.attempts[-1].usage
        return None if self.response is None else self.response.usage

    @property
    def cost(self) -> CostInfo:
        """Cost of all attempts together, in USD, except for refused ones; unknown if all of them were
        refused, and 0 for an answer from a cache.

        The resolution is that of the least certain attempt. Beside an attempt of which nothing is
        known, the sum of the others is a lower bound; without a price, the amount is missing.
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
