"""The object that ``client.vendor_batch(…)`` returns: a block, its results, and control while it runs."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterator
from types import TracebackType
from typing import Generic, Self

import msgspec
import trio

from .._accounting.budget import Budget
from .._batch.source import Requests
from .._batch.types import BatchRequest, BatchResult
from .._http.exchange import Exchange
from .._protocol.request import Prepared, check_model
from .._types.checks import check_type
from .._types.errors import MiniLLMError
from .._types.value_type import Value
from ..providers import Model
from .answers import Answers, Replay
from .journal import Journal
from .options import VendorSettings
from .parts import Unreturned, vendor_of
from .run import Sums, VendorRun


class AtVendor(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of this run that is at its vendor."""

    id: str | None
    """The vendor's id of the batch; ``None`` while it is not known whether the vendor has it."""
    status: str
    """Its state, in the vendor's word, or ``submitting``."""
    requests: int
    """The number of its requests."""
    done: int
    """The number of its requests that have ended, if the vendor reports it."""


class VendorStatistics(Sums, kw_only=True):
    """Counts of a run, and the batches that are at their vendors."""

    unreturned: int = 0
    """Requests that came back without an answer."""
    at_vendor: tuple[AtVendor, ...] = ()
    """The batches that are at their vendors."""
    failing: str = ""
    """The failure of the newest call to a vendor, as text; empty if it did not fail."""


class VendorBatch(Generic[Value]):
    """Requests in their vendors' own batches; `Client.vendor_batch` returns it.

    Use it as ``async with client.vendor_batch(…) as results: async for result in results``.
    Guarantees:

    - Nothing is read or sent before the first result is requested, and nothing runs unless a result
      is awaited. Leaving the block leaves the batches at their vendors.
    - What is submitted is in the journal before it can be at the vendor. The same requests with the
      same journal therefore continue after a stop or a kill at any time, and none is paid for
      twice.
    - A request has one result, or is in `unreturned`, unless it was not submitted or the run ended
      before it came back. A result is like that of a live answer, at the price of a batch.
    - Errors of this library that no further call could fix, such as a wrong key or a used-up quota,
      are raised by iteration, once. Exceptions of the input are raised unchanged.

    One task at a time may iterate.
    """

    def __init__(
        self,
        requests: Requests,
        model: Model | None,
        journal: str | os.PathLike[str] | Journal,
        settings: VendorSettings,
        *,
        prepare: Callable[..., Prepared],
        replay: Replay,
        connect: Callable[[], Exchange],
        budget: Budget | None,
    ) -> None:
        if isinstance(requests, str | bytes) or not (
            hasattr(requests, "__iter__") or hasattr(requests, "__aiter__")
        ):
            raise TypeError("requests must be an iterable or async iterable of BatchRequest")
        check_type("journal", journal, str | os.PathLike | Journal)
        if model is not None:
            check_model(model)
            vendor_of(model)
        self._run = VendorRun(
            requests,
            model,
            settings,
            prepare=prepare,
            answers=Answers(replay, settings.validate, settings.score),
            connect=connect,
            check_budget=_anything if budget is None else budget.check,
        )
        self._path = journal
        self._journal: Journal | None = None
        self._results: AsyncGenerator[BatchResult, None] | None = None
        self._cancelled = False

    async def __aenter__(self) -> Self:
        """Open the journal. Raises `OSError`, and `ResultFileError` for one that is in use."""
        if self._results is not None:
            raise RuntimeError("a batch can be entered only once")
        await trio.lowlevel.checkpoint()  # before it holds anything
        given = self._path
        self._journal = given if isinstance(given, Journal) else Journal(given)
        self._results = self._run.results(self._journal)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._results is not None
        try:
            await self._results.aclose()
        finally:
            if self._journal is not None and self._journal is not self._path:
                self._journal.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult[Value]:
        """Return the next result. A checkpoint. Once it was cancelled, the same journal goes on."""
        if self._results is None:
            raise RuntimeError("use it as `async with client.vendor_batch(…) as results`")
        if self._cancelled:  # its end would look like that of the results
            raise RuntimeError(
                "waiting for a result was cancelled: continue with another vendor_batch"
            )
        try:
            return await anext(self._results)
        except trio.Cancelled:
            self._cancelled = True
            raise

    @property
    def unreturned(self) -> tuple[Unreturned, ...]:
        """The requests that have come back without an answer so far."""
        return tuple(self._run.unreturned)

    def unanswered(self) -> Iterator[BatchRequest[Value]]:
        """Yield these requests for ``client.batch``, each with its sample as ``samples``."""
        return (one.request for one in self.unreturned)

    @property
    def failure(self) -> MiniLLMError | None:
        """The vendor's reason for rejecting a batch, which iteration raises after the last
        result.
        """
        return self._run.failure

    def leave(self) -> None:
        """Submit nothing more, and stop waiting.

        Iteration ends, and the batches stay at their vendors, where the same journal finds them.
        """
        self._run.control.leave()

    def cancel(self) -> None:
        """Submit nothing more, and cancel the batches. Requests that are already answered still
        give results.
        """
        self._run.control.cancel()

    def statistics(self) -> VendorStatistics:
        """Return the counts so far, and the batches at their vendors."""
        run = self._run
        there = tuple(
            AtVendor(
                id=one.part.batch,
                status="submitting" if one.state is None else one.state.status,
                requests=len(one.part.items),
                done=0 if one.state is None else one.state.done,
            )
            for one in run.running.values()
        )
        return VendorStatistics(
            **msgspec.structs.asdict(run.sums),
            unreturned=len(run.unreturned),
            at_vendor=there,
            failing=run.failing,
        )

    def __repr__(self) -> str:
        return f"<VendorBatch {len(self._run.running)} batches>"


def _anything() -> None:
    """Refuse nothing: there is no limit."""
