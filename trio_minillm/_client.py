"""The client: requests in, streams out."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import msgspec
import trio

from ._accounting.bookkeeper import Bookkeeper, OnCost
from ._accounting.budget import Budget
from ._accounting.ledger import Ledger
from ._accounting.record import CostRecord
from ._accounting.settlement import SettlementClient
from ._accounting.totals import JSON_ERRORS
from ._http.connector import (
    CheckAddress,
    Connect,
    HTTPClient,
    HTTPTransport,
    any_address,
    check_brought,
    open_connector,
)
from ._http.open_files import raise_file_limit
from ._protocol.ingest import Ingest
from ._protocol.request import Messages, Prepared, prepare, with_price
from ._stream.outside import check_in_trio
from ._stream.task import StreamTask
from ._toolkit.streams import TrackedStream
from ._types.checks import check_option
from ._types.cost import TokenPrice
from ._types.options import BOUNDS, Bounds, Limits, Retry, Timeouts
from ._types.params import Params, PlainParams, show_params
from ._types.response import CompletionResponse
from ._types.value_type import Asked
from .providers import Model

if TYPE_CHECKING:
    from ._batch.batch import Batch
    from ._batch.options import BatchOptions
    from ._batch.types import BatchRequest
    from ._toolkit.choices.choice import ModelChoice
    from ._toolkit.choices.race import PreparedChoice
    from ._toolkit.observers.observing import Notifier, Observer
    from ._toolkit.reasking import Asking
    from ._toolkit.tools.tool_loop import ToolRun
    from ._vendor_batch.journal import Journal
    from ._vendor_batch.options import VendorBatchOptions
    from ._vendor_batch.vendor_batch import VendorBatch

_log = logging.getLogger("trio_minillm")

COMPLETE_SECONDS = 600.0
"""Seconds of the total clock of `Client.complete`, and of a batch's attempt, unless another is set:
ten minutes, as in the vendors' own clients."""


class Client:
    """A sender of requests to any number of models; `open_client` makes it.

    Any number of tasks may use it at once.
    """

    def __init__(
        self,
        connect: Connect,
        timeouts: Timeouts,
        retry: Retry,
        bookkeeper: Bookkeeper,
        *,
        bounds: Bounds = BOUNDS,
        check_address: CheckAddress = any_address,
        budget: Budget | None = None,
        meta: Any = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._connect = connect
        self._check_address = check_address
        self._timeouts = timeouts
        self._unwatched = _bounded(timeouts)
        self._retry = retry
        self._bookkeeper = bookkeeper
        self._bounds = bounds
        self._budget = budget
        self._meta = meta
        self._notifier = notifier

    @property
    def ledger(self) -> Ledger:
        """The ledger, which has every attempt of this client and their sums."""
        return self._bookkeeper.ledger

    def scope(
        self, *, limits: Limits | None = None, meta: Mapping[str, Any] | None = None
    ) -> Client:
        """Return this client with limits of its own, within those that it has already.

        They count what is sent through the returned one. ``meta`` is added to that of every call.
        """
        check_option("limits", limits, Limits)
        check_option("meta", meta, Mapping)
        budget = self._budget if limits is None else Budget(limits, self._budget)
        return self._scope(budget, _merged(self._meta, meta))

    def _scope(self, budget: Budget | None, meta: Any, connect: Connect | None = None) -> Client:
        return Client(
            connect or self._connect,
            self._timeouts,
            self._retry,
            self._bookkeeper,
            bounds=self._bounds,
            check_address=self._check_address,
            budget=budget,
            meta=meta,
            # What another connection plays back was made long ago.
            notifier=self._notifier if connect is None else None,
        )

    @show_params
    def stream(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        raw: bool = False,
        **params: Unpack[Params],
    ) -> TrackedStream:
        """Return a stream, to be used as ``async with client.stream(…) as stream``.

        Nothing is sent before the block is entered. Entering does not wait for the server:
        iteration and `StreamingCompletion.collect` raise what goes wrong.

        ``params`` are the typed parameters (`Params`); ``extra`` adds fields to the body.
        ``price`` takes the place of the model's. ``meta`` comes back with what the stream cost,
        in ``on_cost`` and the ledger. ``expect_usage=False`` neither asks nor waits for usage,
        where the wire format leaves the choice. ``lenient`` passes over events
        whose text or calls can't be read, and counts them. ``raw`` keeps each event's bytes.

        ``model`` may be several (`first_of`, `fallback`): the stream is then that of the one that gives
        the answer. All requests are made before the first is sent, each by its model's own options:
        ``price`` and ``headers`` are refused.

        Raises ``TypeError`` for an unknown parameter and for a ``meta`` that the ledger can't
        keep, ``ValueError`` for a parameter that the model's wire format does not have, for a clash
        of ``extra`` with a typed one, for bad messages, and for a proxy in the environment that can't
        be used.
        """
        prepare: Any = self._prepare if isinstance(model, Model) else self._prepare_choice
        prepared: Prepared | PreparedChoice = prepare(
            model,
            messages,
            timeouts=timeouts,
            retry=retry,
            bounds=bounds,
            price=price,
            meta=meta,
            extra=extra,
            headers=headers,
            expect_usage=expect_usage,
            lenient=lenient,
            raw=raw,
            **params,
        )
        return self._stream_of(prepared, meta, messages, params)

    @overload
    async def complete(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        retries_invalid: int = 0,
        response_format: type[Asked],
        **params: Unpack[PlainParams],
    ) -> CompletionResponse[Asked]: ...

    @overload
    async def complete(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        retries_invalid: int = 0,
        **params: Unpack[Params],
    ) -> CompletionResponse: ...

    @show_params
    async def complete(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        retries_invalid: int = 0,
        **params: Unpack[Params],
    ) -> CompletionResponse[Any]:
        """Wait for the whole answer, and return it. Takes what `stream` takes, without ``raw``.

        It streams inside, so that no read timeout cuts a long answer, and raises what a stream
        would raise. The total clock is 600 s unless ``timeouts`` sets another.

        With a type as ``response_format``, the answer as that type is the response's ``value``.
        ``retries_invalid`` is the number of times that an answer which can't be read so is asked again,
        with what is wrong with it as a further turn: each is a request of its own, with these clocks
        and in the ledger. The `InvalidAnswer` of the last one is raised. With 0, nothing is decoded
        before ``value`` is read.
        """
        if timeouts is None:
            timeouts = self._unwatched
        else:
            check_option("timeouts", timeouts, Timeouts)
            timeouts = _bounded(timeouts)
        if params.get("raw"):  # that `stream` would take, for chunks that nobody gets to see
            raise TypeError("complete takes no raw: use stream, whose chunks have the bytes")
        asking: Asking | TrackedStream
        if retries_invalid == 0:
            prepare: Any = self._prepare if isinstance(model, Model) else self._prepare_choice
            prepared: Prepared | PreparedChoice = prepare(
                model,
                messages,
                timeouts=timeouts,
                retry=retry,
                bounds=bounds,
                price=price,
                meta=meta,
                extra=extra,
                headers=headers,
                expect_usage=expect_usage,
                lenient=lenient,
                **params,
            )
            asking = self._stream_of(prepared, meta, messages, params)
            del prepared
        else:
            from ._toolkit.reasking import Asking, check_reasking

            check_reasking(retries_invalid, params.get("response_format"))
            options: dict[str, Any] = {"timeouts": timeouts, "retry": retry, "bounds": bounds}
            options |= {"price": price, "meta": meta, "extra": extra, "headers": headers}
            options |= {"expect_usage": expect_usage, "lenient": lenient, **params}
            asking = Asking(partial(self.stream, model, **options), messages, retries_invalid)
            del options
        del messages, extra, headers, params  # what prints variables must not show them
        return await asking.complete()

    @show_params
    def run_tools(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        max_steps: int = 10,
        max_parallel: int = 8,
        total: float | None = None,
        limits: Limits | None = None,
        errors: Literal["show", "raise"] = "show",
        threads: bool = False,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        **params: Unpack[Params],
    ) -> ToolRun:
        """Return a loop that runs the functions that the model calls until it answers without a call:
        ``async with client.run_tools(model, messages, tools=[…]) as run: async for step in run``.

        ``tools`` are functions, or made from them. The calls of one turn run side by side, ``max_parallel``
        at a time: async functions in tasks, others as they are, or in threads with ``threads=True``. What
        one raises is shown to the model, or raised with ``errors="raise"``. The loop ends without an
        answer after ``max_steps`` requests, ``total`` seconds, or what ``limits`` allow to spend.

        All else is as for `stream`, for each request; ``tool_choice``, unless it is ``"auto"`` or
        ``"none"``, for the first one only, or the model could never answer.

        Raises what `stream` does, and ``TypeError`` for tools that have no function.
        """
        from ._toolkit.tools.tool_loop import new_run

        check_option("limits", limits, Limits)
        client = self if limits is None else self.scope(limits=limits)
        options: dict[str, Any] = {
            "timeouts": timeouts,
            "retry": retry,
            "bounds": bounds,
            "price": price,
            "meta": meta,
            "extra": extra,
            "headers": headers,
            "expect_usage": expect_usage,
            "lenient": lenient,
            **params,
        }
        return new_run(
            client.stream,
            model,
            messages,
            options,
            max_steps=max_steps,
            max_parallel=max_parallel,
            total=total,
            errors=errors,
            threads=threads,
        )

    def batch(
        self,
        requests: Iterable[BatchRequest[Asked]] | AsyncIterable[BatchRequest[Asked]],
        *,
        model: Model | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch[Asked]:
        """Return a batch: any number of requests under one control of concurrency, rates, retries
        and money, as ``async with client.batch(requests, model=…) as results: async for result in
        results``.

        ``requests`` is any iterable or async iterable, pulled as requests can be sent; ``model``
        is for those that name none. ``options`` are those of `trio_minillm.batch.BatchOptions`;
        what they leave out is adapted to the providers' answers. Results come as they are ready.
        Nothing is pulled or sent before the block is entered.

        Raises ``TypeError`` for an unknown option, ``ValueError`` for a wrong one.
        """
        from ._batch.batch import Batch
        from ._batch.options import settings_from

        settings = settings_from(options)
        timeouts = _bounded(settings.timeouts or self._timeouts)
        budget = Budget(settings.limits or Limits(), self._budget)
        return Batch(
            requests,
            model,
            msgspec.structs.replace(settings, timeouts=timeouts),
            prepare=self._prepare,
            stream=self._scope(budget, self._meta)._stream_in_batch,  # noqa: SLF001 - of this class
            budget=budget,
        )

    def vendor_batch(
        self,
        requests: Iterable[BatchRequest[Asked]] | AsyncIterable[BatchRequest[Asked]],
        *,
        journal: str | os.PathLike[str] | Journal,
        model: Model | None = None,
        **options: Unpack[VendorBatchOptions],
    ) -> VendorBatch[Asked]:
        """Return requests in their vendors' own batches, which are answered within a day at half the
        price: ``async with client.vendor_batch(requests, model=…, journal=…) as results: async for
        result in results``.

        ``requests`` and ``model`` are as in `batch`, at an address that has OpenAI's Batch API or
        Anthropic's Message Batches; all requests are held in memory. ``journal`` is a file that keeps
        what was submitted: the same requests with the same journal go on after a stop or a kill.
        ``options`` are those of `trio_minillm.batch.VendorBatchOptions`.

        Raises ``TypeError`` for an unknown option, ``ValueError`` for a wrong one, and for a wire format
        without batches.
        """
        from ._vendor_batch.answers import PaidBudget
        from ._vendor_batch.options import settings_from
        from ._vendor_batch.vendor_batch import VendorBatch

        paid = PaidBudget(self._budget)

        def replay(
            connect: Connect, model: Model, messages: Messages, **more: Any
        ) -> TrackedStream:
            reader = self._scope(paid, self._meta, connect)
            return reader._stream_in_batch(model, messages, **more)  # noqa: SLF001 - of this class

        return VendorBatch(
            requests,
            model,
            journal,
            settings_from(options),
            prepare=self._prepare,
            replay=replay,
            connect=self._connect,
            budget=self._budget,
        )

    def _stream_in_batch(
        self, model: Model, messages: Messages, *, meta: Any, made: int, **more: Any
    ) -> TrackedStream:
        """Return the stream of a batch's request, whose meta goes into the ledger if that can keep
        it: a batch takes any. ``made`` is the number of attempts that were made at it before.
        """
        if meta is not None:
            try:
                if len(msgspec.json.encode(meta)) <= MAX_BATCH_META:
                    self.ledger.check(_merged(self._meta, meta))
                else:
                    meta = None
            except JSON_ERRORS:
                meta = None
        prepared = self._prepare(model, messages, meta=meta, **more)
        stream = self._stream_of(prepared, meta, messages, more)
        stream.made_before = made
        return stream

    async def settle(
        self,
        ids: Iterable[str | CostRecord] | None = None,
        *,
        model: Model | None = None,
        timeouts: Timeouts | None = None,
    ) -> list[CostRecord]:
        """Ask again what streams cost that are still unsettled, and book the answers.

        ``ids`` are generation ids, or records of the ledger; by default all that it has as
        unsettled, also from an earlier process. Returns a record for each, in order: resolved,
        or still ``unknown`` after the clock ``settlement``, which begins for each with its first
        question; 64 are asked at a time. ``on_cost`` is not called again.

        ``model`` gives the address and the key for attempts that another client made; by default
        a model that this client has used at the same address. Raises ``ValueError`` without any.
        """
        check_option("timeouts", timeouts, Timeouts)
        check_option("model", model, Model)
        seconds = (timeouts or self._timeouts).settlement or 0.0
        return await self._bookkeeper.settle(ids, model, seconds)

    def _stream_of(
        self,
        prepared: Prepared | PreparedChoice,
        meta: Any,
        messages: Messages,
        params: Mapping[str, Any],
        kind: Callable[..., TrackedStream] = TrackedStream,
    ) -> TrackedStream:
        """Return the stream that sends a request and reads its answer, of a kind of its own if one is
        given.

        ``messages`` and ``params`` are those that the request was made of, for an observer.
        """
        if not isinstance(prepared, Prepared):
            from ._toolkit.choices.chosen import stream_of_choice

            # Not functools.partial, whose repr would show the messages.
            return stream_of_choice(
                prepared,
                lambda one, kind: self._stream_of(one, meta, messages, params, kind),
            )
        model = prepared.model
        if self._budget is not None:
            self._budget.warn()
        ingest = Ingest(
            model=model.name,
            expect_usage=prepared.expect_usage,
            choices=prepared.choices,
            bounds=prepared.bounds,
            wire=model.provider.wire_at(model),
            asked=prepared.asked,
        )
        observed = self._notifier is not None or _log.isEnabledFor(logging.DEBUG)
        if observed:
            from ._toolkit.observers.observing import observed_kind

            kind = observed_kind(kind)
        stream = kind(
            ingest,
            StreamTask(self._connect, prepared),
            model=model,
            response_type=prepared.response_type,
            bookkeeper=self._bookkeeper,
            budget=self._budget,
            meta=_merged(self._meta, meta),
            settlement=prepared.timeouts.settlement or 0.0,
        )
        if observed:
            from ._toolkit.observers.observing import observe

            observe(stream, self._notifier, prepared, messages, params)
        return stream

    def _prepare(
        self,
        model: Model,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        **more: Any,
    ) -> Prepared:
        """Check all that `stream` takes and make the request, with the client's defaults."""
        model = with_price(model, price)
        if timeouts is not None:
            check_option("timeouts", timeouts, Timeouts)
        if retry is not None:
            check_option("retry", retry, Retry)
        if bounds is not None:
            check_option("bounds", bounds, Bounds)
        self._bookkeeper.remember(model)
        self.ledger.check(_merged(self._meta, meta))
        prepared = prepare(
            model,
            messages,
            OPTIONS,
            timeouts=timeouts or self._timeouts,
            retry=retry or self._retry,
            bounds=bounds or self._bounds,
            **more,
        )
        self._check_address(prepared.url)
        return prepared

    def _prepare_choice(self, model: object, messages: Messages, **more: Any) -> PreparedChoice:
        """Make the requests for several models. Raises ``TypeError`` if they are no `ModelChoice`."""
        from ._toolkit.choices.race import prepare_choice

        return prepare_choice(model, messages, self._prepare, **more)


MAX_BATCH_META = 1 << 16
"""Bytes of JSON of a batch request's meta that goes into the ledger, which keeps the newest 1,000
and those of unsettled attempts in memory."""
OPTIONS = frozenset(Client.stream.__kwdefaults__ or ())
"""The arguments of `Client.stream` that are no parameters of the request."""


@lru_cache(maxsize=16)
def _bounded(timeouts: Timeouts) -> Timeouts:
    """Return the clocks of an answer that nobody watches."""
    return timeouts.with_total(COMPLETE_SECONDS)


def _merged(outer: Any, inner: Any) -> Any:
    """Return the scope's meta with the call's on top."""
    if outer is None or inner is None:
        return outer if inner is None else inner
    if not isinstance(inner, Mapping):
        raise TypeError("meta must be a mapping in a scope that has meta: the two are merged")
    return {**outer, **inner}


def _notifier(observer: Observer | None) -> Notifier | None:
    if observer is None:
        return None
    from ._toolkit.observers.observing import Notifier

    return Notifier(observer)


@asynccontextmanager
async def open_client(
    *,
    http_client: HTTPClient | None = None,
    transport: HTTPTransport | None = None,
    timeouts: Timeouts | None = None,
    retry: Retry | None = None,
    bounds: Bounds | None = None,
    on_cost: OnCost | None = None,
    ledger: Ledger | None = None,
    limits: Limits | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[Client]:
    """Open a client for the length of a block: ``async with open_client() as client``.

    Without ``http_client`` or ``transport`` it has connections of its own, as a `TrioTransport`
    makes them: it verifies TLS, queues nowhere, and closes them with the block. Addresses for which
    the environment names a proxy are asked through httpx; this machine never is, nor is what
    ``NO_PROXY`` excepts. Whoever brings a client or a transport keeps it: it is left open. Those of
    httpx2 are taken as well as httpx's.

    ``timeouts``, ``retry`` and ``bounds`` are the defaults of every call. Redirects are never
    followed. The process's soft limit of open files is raised, as far as the hard one allows: each
    connection is one.

    ``on_cost`` is an async function that is called once with every attempt that is booked, a
    `CostRecord`. It runs in the client's own nursery, so it can neither slow a stream down by
    more than 1 s nor fail it: what it raises is logged (``trio_minillm``), and after 30 s it is
    cancelled; the ledger has the attempt in any case. ``ledger`` keeps all attempts (by default
    in memory); ``limits`` stops new ones when enough is spent. A call warns once (``UserWarning``)
    if ``max_cost`` can't count an earlier answer, whose cost is not known.

    ``observer`` is told of each attempt as it begins and ends: an `Observer`, such as
    `opentelemetry_observer` makes.

    The block ends only when all is booked, also when it is cancelled. It waits while a provider is
    asked what a stream cost: at most for the clock ``settlement`` from the first question (twice
    that, where hundreds stand in line for the same address), and then for the callback. About
    streams that *finished* without naming their cost, it is asked only as long as the block lasts
    anyway.
    """
    check_in_trio("open_client")
    if http_client is not None and transport is not None:
        raise ValueError("give http_client or transport, not both")
    check_option("timeouts", timeouts, Timeouts)
    check_option("retry", retry, Retry)
    check_option("bounds", bounds, Bounds)
    check_brought(http_client, transport)
    check_option("ledger", ledger, Ledger)
    check_option("limits", limits, Limits)
    if on_cost is not None and not callable(on_cost):
        raise TypeError("on_cost must be an async function")
    notifier = _notifier(observer)
    raise_file_limit()
    failure: BaseException | None = None
    async with open_connector(http_client, transport) as connect, trio.open_nursery() as nursery:
        bookkeeper = Bookkeeper(
            SettlementClient(connect),
            Ledger() if ledger is None else ledger,
            on_cost,
            nursery,
        )
        budget = Budget(limits) if limits is not None else None
        try:
            yield Client(
                connect,
                timeouts or Timeouts(),
                retry or Retry(),
                bookkeeper,
                bounds=bounds or BOUNDS,
                check_address=connect.check,
                budget=budget,
                notifier=notifier,
            )
        except BaseException as exc:  # noqa: BLE001 - also Cancelled: the tasks are shielded
            failure = exc  # comes out as itself, and not before all is booked
        finally:
            bookkeeper.close()
    bookkeeper.finish()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # or its traceback and this frame keep each other alive
