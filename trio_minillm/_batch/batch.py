"""The object that ``client.batch(…)`` returns: a block, its results, and control while it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sized
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, Self, Unpack

import trio
from msgspec.structs import replace

from .._accounting.budget import Budget
from .._protocol.request import Prepared, check_model
from .._stream.background import Background, raise_crash
from .._stream.outside import check_in_trio
from .._stream.tracked import TrackedStream
from .._types.checks import check_count
from .._types.errors import MiniLLMError
from .._types.options import Limits
from .._types.value_type import Value
from ..providers import Model
from .options import BatchOptions, BatchSettings
from .results import Watch
from .run import Run
from .sender import Sender
from .source import Requests
from .statistics import BatchStatistics
from .types import BatchResult


class Batch(Generic[Value]):
    """Many requests under common control; `Client.batch` returns it.

    Use it as ``async with client.batch(…) as results: async for result in results``. Guarantees:

    - Nothing is read or sent before the block is entered, and nothing outlives the block. Leaving
      it cancels the running requests, and the client looks up what they cost.
    - Requests are read at most a few hundred ahead, so a million need no more memory than a few
      thousand. Results wait for a slow consumer up to ``buffer``; then nothing more is sent.
    - Each request that was read gets one final result for each sample, unless the run ends first:
      by `stop`, by a limit of ``limits``, or by an error that all other requests of its model would
      meet. Such errors are a used-up quota, a wrong key, an unknown model, an address where nothing
      answers, and a server that refuses for hours. They do not affect other models. Requests that
      were not sent, that waited for a retry, or that failed with this error then have no result.
      After a limit or such an error, iteration raises it, once, after the last result.
    - Only this library's errors become results. Any other exception, from the input or from a
      request that can't be built, ends the run. It is raised unchanged by iteration, or else by the
      block.

    One task at a time may iterate. `watch` adds other consumers.
    """

    def __init__(
        self,
        requests: Requests,
        model: Model | None,
        settings: BatchSettings,
        *,
        prepare: Callable[..., Prepared],
        stream: Callable[..., TrackedStream],
        budget: Budget,
        change_limits: Callable[[Limits], None],
    ) -> None:
        if isinstance(requests, str | bytes) or not (
            hasattr(requests, "__iter__") or hasattr(requests, "__aiter__")
        ):
            raise TypeError("requests must be an iterable or async iterable of BatchRequest")
        if model is not None:
            check_model(model)
        assert settings.timeouts is not None
        self._requests = requests
        self._budget = budget
        self._change_limits = change_limits
        sender = Sender(prepare, stream, settings.timeouts, lenient=settings.lenient)
        self._run = Run(requests, model, settings, sender)
        self._take = self._run.results.main.take
        self._raised = False
        self._began: float | None = None
        self._background = Background()

    # -- the block -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._began is not None:
            raise RuntimeError("a batch can be entered only once")
        check_in_trio("a batch")
        self._began = trio.current_time()
        self._run.open()
        await trio.lowlevel.checkpoint()
        await self._background.start(self._run.run, "trio_minillm batch")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._run.cancel()
        try:
            with trio.CancelScope(shield=True):  # bounded: leaving a stream is
                await self._run.end.done.wait()
        finally:
            self._run.results.close()
            await self._background.join()
        end = self._run.end
        crash, end.crash = end.crash, None
        if crash is not None and crash is not exc and not self._raised:
            if exc is not None and _only_cancelled(exc):
                exc = None
            raise_crash(crash, exc, "the block and its batch both failed")

    async def run(
        self, handler: Callable[[BatchResult[Value]], object] | None = None
    ) -> BatchStatistics:
        """Run the batch to its end, instead of the block: ``await client.batch(…).run(handler)``.

        ``handler`` is a function, async or not, that receives one result after the other. Returns
        the final statistics, and raises what iteration raises.
        """
        async with self:
            async for result in self:
                if handler is not None and inspect.isawaitable(done := handler(result)):
                    await done
        return self.statistics()

    # -- results ---------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, BatchResult[Value]]:
        """Return the next result. A checkpoint."""
        if self._began is None:
            raise RuntimeError("use the batch as `async with client.batch(…) as results`")
        if not self._budget.idle:
            self._budget.warn()
        return self._take(self._raise_end)

    def _raise_end(self) -> NoReturn:
        """Raise what ended the run, once, and then the end of iteration."""
        if not self._raised:
            self._raised = True
            end = self._run.end
            if end.crash is not None:
                raise end.crash
            if end.stopped is not None:
                raise end.stopped
        raise StopAsyncIteration

    def watch(
        self, *, buffer: int = 100, policy: Literal["block", "drop_oldest"] = "block"
    ) -> Watch[Value]:
        """Return another consumer of all results from now on, in the same order.

        Use it as ``async with results.watch() as watch: async for result in watch``. A consumer
        that is ``buffer`` results behind stops the whole batch until it catches up (``"block"``),
        or loses the oldest results (``"drop_oldest"``; ``watch.dropped`` counts them). It ends with
        the batch, without an error.
        """
        check_count("buffer", buffer)
        if policy not in ("block", "drop_oldest"):
            raise ValueError("policy must be 'block' or 'drop_oldest'")
        return self._run.results.watch(buffer, policy)

    # -- while it runs -----------------------------------------------------------------------------

    @property
    def stopped(self) -> MiniLLMError | None:
        """The error that ended the run, or closed the first of its models, before the input ended.

        It is a used-up quota, a wrong key or model, a limit, an address where nothing answers, or a
        server that refuses until a late time (`RefusedUntil`).
        """
        return self._run.end.stopped

    def stop(self) -> None:
        """Send nothing more. Running requests continue to their end, and then iteration ends.

        Requests that wait, including those that wait for a retry, are dropped without a result.
        """
        self._run.stop()

    def cancel(self) -> None:
        """Send nothing more, and cancel the running requests.

        These get no result, and the client looks up what they cost. Iteration yields the results
        that are ready, and then ends.
        """
        self._run.stop()
        self._run.cancel()

    def update(self, **options: Unpack[BatchOptions]) -> None:
        """Change options while the batch runs.

        You can change ``concurrency``, ``max_concurrency``, ``adapt``, ``requests_per_minute``,
        ``tokens_per_minute``, ``limits``, ``retry``, and ``deadline``. Other options stay, and
        running requests are not affected. A change between a number and ``"auto"`` also applies to
        models that appear later.
        """
        unknown = set(options) - BatchOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
        fixed = set(options) - _CHANGEABLE
        if fixed:
            raise TypeError(f"can't be changed while it runs: {', '.join(sorted(fixed))}")
        settings = replace(self._run.settings, **options)
        if "limits" in options:
            self._change_limits(settings.limits or Limits())
        self._run.change(settings, trio.current_time())

    def statistics(self) -> BatchStatistics:
        """Return a copy of all counts at this moment."""
        requests = len(self._requests) if isinstance(self._requests, Sized) else None
        return self._run.read(requests=requests, began=self._began)


_CHANGEABLE = {
    *("concurrency", "max_concurrency", "adapt", "requests_per_minute", "tokens_per_minute"),
    *("limits", "retry", "deadline"),
}


def _only_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(trio.Cancelled)[1] is None
    return isinstance(exc, trio.Cancelled)
